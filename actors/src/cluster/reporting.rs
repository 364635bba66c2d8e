//! What a person asks about the cluster: who holds what and does what; and calls on every worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{join_all, select};
use starling_core::ids::{NodeId, TaskId, WorkerId};
use starling_core::query::{NbytesOf, WorkerReport};
use starling_core::wire::{JobSummary, WorkerInfo};
use starling_runtime::task::{Call, ClientError, Future};
use starling_runtime::value::Data;

use super::Cluster;

/// Whose tasks are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those that this client has submitted and not detached.
    #[default]
    Own,
    /// Everybody's.
    All,
}

/// The cluster as its scheduler knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerInfo {
    /// Its workers, with what they do and hold.
    pub workers: Vec<WorkerReport>,
    /// The jobs that it knows, with their tasks by state.
    pub jobs: Vec<JobSummary>,
}

impl Cluster {
    /// The outputs that each worker holds, by its node, with their sizes in bytes.
    ///
    /// ```no_run
    /// # use starling_actors::{Cluster, Scope};
    /// # use starling_runtime::task::ClientError;
    /// # async fn run(cluster: Cluster) -> Result<(), ClientError> {
    /// for (node, outputs) in cluster.has_what(Scope::Own).await? {
    ///     println!("{node}: {} outputs, {} bytes", outputs.len(), outputs.iter().map(|(_, nbytes)| nbytes).sum::<u64>());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::SchedulerLost`] if there is no scheduler any more, as all of these.
    pub async fn has_what(&self, scope: Scope) -> Result<BTreeMap<NodeId, Vec<(TaskId, u64)>>, ClientError> {
        let mut all = BTreeMap::new();
        for (worker, info) in self.client.workers() {
            all.insert(info.node, self.client.has_what(worker, self.job_of(scope)).await?);
        }
        Ok(all)
    }

    /// The tasks that each worker was given and that have not ended, by its node, with the names of their functions. Not all of
    /// them run: some wait there for a thread or for inputs.
    ///
    /// # Errors
    /// As [`Cluster::has_what`].
    pub async fn processing(&self, scope: Scope) -> Result<BTreeMap<NodeId, Vec<(TaskId, String)>>, ClientError> {
        let mut all = BTreeMap::new();
        for (worker, info) in self.client.workers() {
            all.insert(info.node, self.client.processing(worker, self.job_of(scope)).await?);
        }
        Ok(all)
    }

    /// How many outputs of each function the workers hold, and how many bytes, each output counted once; the name is empty for
    /// values that were scattered. For the sizes of single outputs see [`Cluster::who_has`].
    ///
    /// # Errors
    /// As [`Cluster::has_what`].
    pub async fn nbytes(&self, scope: Scope) -> Result<Vec<NbytesOf>, ClientError> {
        self.client.nbytes(self.job_of(scope)).await
    }

    /// The workers, with how busy and how full each is, and the jobs.
    ///
    /// # Errors
    /// As [`Cluster::has_what`].
    pub async fn scheduler_info(&self) -> Result<SchedulerInfo, ClientError> {
        Ok(SchedulerInfo { workers: self.client.worker_reports().await?, jobs: self.client.jobs().await? })
    }

    /// How many tasks each worker runs at once, by its node.
    pub fn ncores(&self) -> BTreeMap<NodeId, u32> {
        self.client.workers().into_values().map(|info| (info.node, info.nthreads)).collect()
    }

    fn job_of(&self, scope: Scope) -> Option<starling_core::ids::JobId> {
        match scope {
            Scope::Own => Some(self.job()),
            Scope::All => None,
        }
    }

    /// Runs a call once on every worker that there is now, and gives what came of it by the workers' nodes. It goes before
    /// whatever is queued there, unless it says a priority, and takes a thread as any task does: on a worker whose threads are all
    /// busy it waits for one.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::{Call, ClientError};
    /// # async fn run(cluster: Cluster, free_disk: fn() -> Call<u64>) -> Result<(), ClientError> {
    /// for (node, bytes) in cluster.run(free_disk()).await? {
    ///     println!("{node}: {}", bytes?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What is wrong with the call. What goes wrong on one worker is told in its place: [`ClientError::NoSuchWorker`] if the
    /// worker is lost, and its node does not come back within a quarter of a minute.
    pub async fn run<R: Data>(&self, call: Call<R>) -> Result<BTreeMap<NodeId, Result<R, ClientError>>, ClientError> {
        self.run_at(call, self.client.workers().into_values().collect()).await
    }

    /// As [`Cluster::run`], on certain workers, each called by its name or by the beginning of its node's id.
    ///
    /// # Errors
    /// As [`Cluster::run`]; [`ClientError::NoSuchWorker`] or [`ClientError::AmbiguousWorker`] for a name that fits none or
    /// several, and then nothing was run.
    pub async fn run_on<R: Data>(
        &self,
        call: Call<R>,
        workers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<BTreeMap<NodeId, Result<R, ClientError>>, ClientError> {
        let names: Vec<String> = workers.into_iter().map(Into::into).collect();
        let named: Vec<WorkerId> = self.client.find(&names)?;
        let all = self.client.workers();
        self.run_at(call, named.iter().filter_map(|worker| all.get(worker).cloned()).collect()).await
    }

    async fn run_at<R: Data>(
        &self,
        call: Call<R>,
        workers: Vec<WorkerInfo>,
    ) -> Result<BTreeMap<NodeId, Result<R, ClientError>>, ClientError> {
        let mut parts = call.into_parts()?;
        if !parts.has_priority {
            (parts.options.priority, parts.has_priority) = (i32::MAX, true);
        }
        let mut needs = parts.options.requirements.take().map(Arc::unwrap_or_clone).unwrap_or_default();
        needs.allow_other_workers = false;
        let runs = workers.into_iter().map(|info| {
            let mut parts = parts.clone();
            needs.workers = vec![info.node.hex()];
            parts.options.requirements = Some(Arc::new(needs.clone()));
            let future: Future<R> = Future::new(self.client.submit(parts, self.priority), self.source());
            async move {
                let (result, gone) = (std::pin::pin!(future.result()), std::pin::pin!(self.client.gone(info.node)));
                let result = match select(result, gone).await {
                    futures::future::Either::Left((result, _)) => result,
                    futures::future::Either::Right(_) => Err(self.client.no_such_worker(&info.name)),
                };
                (info.node, result)
            }
        });
        // Submitted before any is waited for.
        let runs: Vec<_> = runs.collect();
        Ok(join_all(runs).await.into_iter().collect())
    }
}
