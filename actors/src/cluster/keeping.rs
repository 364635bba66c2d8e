//! What outlives the client: detached jobs and published data sets.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use starling_core::ids::{JobId, TaskId};
use starling_core::wire::{JobSummary, KeptName};
use starling_runtime::task::{Call, ClientError, Future, Graph, ResultSource};

use super::Cluster;
use crate::client::KeptResults;

/// A job that goes on without the client that has submitted it, and whose results, each an `R`, are kept until it is
/// forgotten. Dropping this changes nothing: with its number, [`Cluster::detached`] gives the results to any client.
pub struct Detached<R> {
    job: JobId,
    result: PhantomData<fn() -> R>,
}

impl<R> Detached<R> {
    fn new(job: JobId) -> Detached<R> {
        Detached { job, result: PhantomData }
    }

    /// The job's id, which is its number for people.
    pub fn job(&self) -> JobId {
        self.job
    }
}

impl<R> Clone for Detached<R> {
    fn clone(&self) -> Detached<R> {
        Detached::new(self.job)
    }
}

impl<R> fmt::Debug for Detached<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detached({})", self.job.0)
    }
}

impl Cluster {
    /// Submits a call as a job that goes on without this client, under this client's name. Resolves when the cluster has it for
    /// sure: from then on neither the end of the client nor the loss of the scheduler ends the job, as long as a majority of
    /// the nodes that vote comes back. What it takes to compute the result is part of what these agree on, at most 8 MiB, and
    /// so the arguments are too.
    ///
    /// Dropping this before it resolves leaves open whether the job is submitted. If the scheduler is lost meanwhile, all of it
    /// is submitted again at the next one.
    ///
    /// ```no_run
    /// # use starling_actors::{Cluster, ClusterError};
    /// # use starling_runtime::task::Call;
    /// # async fn run(count: fn(&str) -> Call<u64>) -> Result<(), ClusterError> {
    /// let cluster = Cluster::connect("10.12.0.10:8786").await?;
    /// let job = cluster.submit_detached(count("a.txt")).await?.job();
    /// cluster.shutdown().await;
    ///
    /// let cluster = Cluster::connect("10.12.0.11:8786").await?; // later, elsewhere
    /// println!("{}", cluster.detached::<u64>(job).await?[0].result().await?);
    /// cluster.forget(job).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::FutureInDetached`] if the call takes a future, and what else keeps a call from being submitted; then
    /// nothing was. [`ClientError::NotKept`] if the cluster does not agree to keep the job; then it is cancelled.
    /// [`ClientError::SchedulerLost`] leaves open whether it is kept: [`Cluster::jobs`] tells.
    pub async fn submit_detached<R>(&self, call: Call<R>) -> Result<Detached<R>, ClientError> {
        self.submit_all_detached([call]).await
    }

    /// As [`Cluster::submit_detached`], with many calls in one job, whose results [`Cluster::detached`] gives in the calls' order.
    ///
    /// # Errors
    /// As [`Cluster::submit_detached`]: all calls are submitted, or none is.
    pub async fn submit_all_detached<R>(
        &self,
        calls: impl IntoIterator<Item = Call<R>>,
    ) -> Result<Detached<R>, ClientError> {
        let calls = calls.into_iter().map(Call::into_parts).collect::<Result<Vec<_>, _>>()?;
        Ok(Detached::new(self.client.detach_calls(self.name.to_string(), calls, self.priority).await?))
    }

    /// As [`Cluster::submit_detached`], with a named graph, checked as a whole. The outputs that are wanted are kept, and
    /// [`Cluster::detached`] gives them in this order; the others are dropped as soon as nothing needs them.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::{Call, ClientError, Graph, Key, key};
    /// # async fn run(
    /// #     cluster: Cluster,
    /// #     load: fn(&str) -> Call<String>,
    /// #     count: fn(Key<String>) -> Call<u64>,
    /// # ) -> Result<(), ClientError> {
    /// let mut graph = Graph::new();
    /// graph.add("text", load("a.txt"))?;
    /// graph.add("count", count(key("text")))?;
    /// let job = cluster.submit_graph_detached::<u64>(graph, ["count"]).await?.job();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Cluster::submit_graph`] and [`Cluster::submit_detached`].
    pub async fn submit_graph_detached<T>(
        &self,
        graph: Graph,
        wanted: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Detached<T>, ClientError> {
        let wanted: Vec<String> = wanted.into_iter().map(Into::into).collect();
        Ok(Detached::new(self.client.detach_graph(self.name.to_string(), graph, &wanted, self.priority).await?))
    }

    /// The jobs that the cluster knows, by their ids: those of connected clients, of which this one's is
    /// [`Cluster::job`], those that are detached, and those that data sets are of.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::ClientError;
    /// # async fn run(cluster: Cluster) -> Result<(), ClientError> {
    /// for job in cluster.jobs().await?.iter().filter(|job| job.is_detached) {
    ///     println!("{} ({}): {} done, {} failed", job.job.0, job.name, job.memory, job.erred);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::SchedulerLost`] if there is no scheduler any more.
    pub async fn jobs(&self) -> Result<Vec<JobSummary>, ClientError> {
        self.client.jobs().await
    }

    /// The job of what this client submits and does not detach.
    pub fn job(&self) -> JobId {
        self.client.job()
    }

    /// The results of a detached job, whoever has submitted it, in the order in which its calls or wanted names were given.
    /// They need not be there yet. A `T` that is not what the tasks give is told by the futures.
    ///
    /// Dropping such a future, or cancelling it, changes nothing at the cluster: [`Cluster::forget`] does. It may be an argument
    /// of this client's calls, for which the output is copied once into the client's job. It is another job's for what else
    /// looks at futures: [`Cluster::who_has`] passes it over.
    ///
    /// # Errors
    /// [`ClientError::NoSuchJob`] if there is no such job, or it was forgotten; [`ClientError::SchedulerLost`].
    pub async fn detached<T>(&self, job: JobId) -> Result<Vec<Future<T>>, ClientError> {
        let tasks = self.client.kept(KeptName::Job(job)).await?.ok_or(ClientError::NoSuchJob(job))?;
        self.watch(&tasks)
    }

    /// Keeps a detached job and its results no longer. What of it still runs is given up.
    ///
    /// # Errors
    /// [`ClientError::NoSuchJob`] if there is no such job; [`ClientError::NotForgotten`] if the cluster does not agree;
    /// [`ClientError::SchedulerLost`], which leaves open whether it is forgotten.
    pub async fn forget(&self, job: JobId) -> Result<(), ClientError> {
        if self.client.forget(KeptName::Job(job)).await? { Ok(()) } else { Err(ClientError::NoSuchJob(job)) }
    }

    /// Keeps the outputs of these futures, and what it takes to compute them again, under a name, until it is
    /// [taken back](Cluster::unpublish): after this client has gone, and through the loss of the scheduler. Resolves when that
    /// is certain. The tasks need not be done, only submitted. A scattered value stays as long as one of its workers does.
    ///
    /// ```no_run
    /// # use starling_actors::{Cluster, ClusterError};
    /// # use starling_runtime::task::Call;
    /// # async fn run(load: fn(i64) -> Call<Vec<f64>>) -> Result<(), ClusterError> {
    /// let cluster = Cluster::connect("10.12.0.10:8786").await?;
    /// let months = cluster.map((1..=12).map(load));
    /// cluster.publish("prices-2026", &months).await?;
    /// cluster.shutdown().await;
    ///
    /// let cluster = Cluster::connect("10.12.0.10:8786").await?; // another client, another day
    /// let january: Vec<f64> = cluster.data_set("prices-2026").await?[0].result().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first failure among the futures that is known; [`ClientError::ForeignFuture`] if one is not of this client's job;
    /// [`ClientError::NotKept`] if the name is taken, empty, or longer than 256 bytes, or if the cluster does not agree.
    /// [`ClientError::SchedulerLost`] leaves open whether they are kept.
    pub async fn publish<'a, T: 'a>(
        &self,
        name: impl Into<String>,
        futures: impl IntoIterator<Item = &'a Future<T>>,
    ) -> Result<(), ClientError> {
        let futures: Vec<&Future<T>> = futures.into_iter().collect();
        self.check_ours(futures.iter().copied())?;
        let tasks: Vec<TaskId> = futures.iter().map(|future| future.task()).collect();
        self.client.keep_tasks(KeptName::DataSet(name.into()), &tasks).await
    }

    /// The outputs of a data set, in the order in which they were published. They are as those of [`Cluster::detached`].
    ///
    /// # Errors
    /// [`ClientError::NoSuchDataSet`] if nothing is published under this name; [`ClientError::SchedulerLost`].
    pub async fn data_set<T>(&self, name: impl Into<String>) -> Result<Vec<Future<T>>, ClientError> {
        let name = name.into();
        let tasks = self.client.kept(KeptName::DataSet(name.clone())).await?;
        self.watch(&tasks.ok_or(ClientError::NoSuchDataSet(name))?)
    }

    /// The names of all data sets, in their order.
    ///
    /// # Errors
    /// [`ClientError::SchedulerLost`] if there is no scheduler any more.
    pub async fn data_sets(&self) -> Result<Vec<String>, ClientError> {
        let mut names: Vec<String> = self.jobs().await?.into_iter().flat_map(|job| job.data_sets).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Keeps a data set no longer. What of it is still to be computed, and nobody else needs, is given up.
    ///
    /// # Errors
    /// [`ClientError::NoSuchDataSet`] if nothing is published under this name; [`ClientError::NotForgotten`] and
    /// [`ClientError::SchedulerLost`] as [`Cluster::forget`].
    pub async fn unpublish(&self, name: impl Into<String>) -> Result<(), ClientError> {
        let name = name.into();
        let was_there = self.client.forget(KeptName::DataSet(name.clone())).await?;
        if was_there { Ok(()) } else { Err(ClientError::NoSuchDataSet(name)) }
    }

    fn watch<T>(&self, tasks: &[TaskId]) -> Result<Vec<Future<T>>, ClientError> {
        self.client.watch(tasks)?;
        let results: Arc<dyn ResultSource> = Arc::new(KeptResults(Arc::clone(&self.client)));
        Ok(tasks.iter().map(|task| Future::new(*task, Arc::clone(&results))).collect())
    }
}
