//! The client for programs that are not asynchronous: a plain `fn main`, a script, a test, a binding to another language.
//!
//! A [`Cluster`] here owns a runtime, on threads of its own, and each call waits on it for what the asynchronous
//! [`Cluster`](crate::Cluster) does. What has no call here is done by [`Cluster::run`].

use std::future::Future as StdFuture;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use starling_core::explain::Explanation;
use starling_core::ids::JobId;
use starling_core::wire::JobSummary;
use starling_runtime::task::{Call, ClientError, Delayed, Future, Graph, delayed};
use starling_runtime::value::Data;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::cluster::{Cluster as AsyncCluster, ClusterError, ConnectOptions, Detached, LocalOptions};

/// How long taking leave may take when the last handle is dropped.
const LEAVE: Duration = Duration::from_secs(5);

/// Why a call of a blocking client gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum BlockingError {
    /// It was called on a thread of a tokio runtime, whose other tasks would stand still, and might be waited for. Nothing was done.
    #[error(
        "a blocking call inside of an asynchronous runtime could wait for itself: use starling::Cluster and await there, or in a \
         task Cluster::current() with starling::block_on"
    )]
    InsideRuntime,
    /// The client's runtime could not be started.
    #[error("the client's threads could not be started: {0}")]
    Runtime(#[from] std::io::Error),
    /// The cluster could not be started or connected to.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What the asynchronous client said.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A client of a cluster whose calls wait. Clones are the same client; when the last is dropped, the client leaves, and an
/// embedded cluster ends. Its futures give no results from then on.
///
/// Every call but those that do not wait is refused with [`BlockingError::InsideRuntime`] on a thread that belongs to a tokio
/// runtime, threads of `spawn_blocking` and of Starling's tasks included.
///
/// ```no_run
/// # use starling_runtime::task::Call;
/// use starling_actors::blocking::Cluster;
///
/// # fn run(square: fn(i64) -> Call<i64>) -> Result<(), starling_actors::blocking::BlockingError> {
/// let cluster = Cluster::local(2)?;
/// let squares = cluster.map((0..10).map(square));
/// println!("{:?}", cluster.gather(&squares)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cluster {
    home: Arc<Home>,
}

/// The runtime and what lives on it.
struct Home {
    /// Both are taken when this is dropped.
    cluster: Option<AsyncCluster>,
    runtime: Option<Runtime>,
}

impl Drop for Home {
    fn drop(&mut self) {
        let (Some(runtime), cluster) = (self.runtime.take(), self.cluster.take()) else { return };
        match cluster {
            Some(cluster) if !is_inside() => {
                // It leaves anyway; whoever does not answer in time hears of it by the closed links.
                let _ = runtime.block_on(async { tokio::time::timeout(LEAVE, cluster.shutdown()).await });
            }
            cluster => {
                let _entered = runtime.enter();
                drop(cluster);
            }
        }
        runtime.shutdown_background();
    }
}

fn is_inside() -> bool {
    Handle::try_current().is_ok()
}

impl Cluster {
    /// As [`local`](AsyncCluster::local): starts a cluster inside this process, one scheduler node and `workers` worker nodes.
    pub fn local(workers: usize) -> Result<Cluster, BlockingError> {
        Cluster::local_with(LocalOptions::new(workers))
    }

    /// As [`Cluster::local`], with options.
    pub fn local_with(options: LocalOptions) -> Result<Cluster, BlockingError> {
        Cluster::start(AsyncCluster::local_with(options))
    }

    /// As [`connect`](AsyncCluster::connect): connects to the cluster that the node at `addr` belongs to.
    pub fn connect(addr: &str) -> Result<Cluster, BlockingError> {
        Cluster::connect_with(addr, ConnectOptions::default())
    }

    /// As [`Cluster::connect`], with options.
    pub fn connect_with(addr: &str, options: ConnectOptions) -> Result<Cluster, BlockingError> {
        Cluster::start(AsyncCluster::connect_with(addr, options))
    }

    fn start(starting: impl StdFuture<Output = Result<AsyncCluster, ClusterError>>) -> Result<Cluster, BlockingError> {
        if is_inside() {
            return Err(BlockingError::InsideRuntime);
        }
        let runtime = Builder::new_multi_thread().thread_name("starling-client").enable_all().build()?;
        let started = runtime.block_on(Box::pin(starting));
        // Owns the runtime from here on, so that it is ended in the same way if there is no cluster.
        let mut home = Home { cluster: None, runtime: Some(runtime) };
        home.cluster = Some(started?);
        Ok(Cluster { home: Arc::new(home) })
    }

    /// Does something with the asynchronous client, on this one's runtime, and waits for it: for what has no call here.
    ///
    /// ```no_run
    /// # use starling_actors::blocking::{BlockingError, Cluster};
    /// # fn run(cluster: Cluster) -> Result<(), BlockingError> {
    /// let moved = cluster.run(|cluster| async move { cluster.retire_workers(["worker-1"]).await })??;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run<F: StdFuture>(&self, work: impl FnOnce(AsyncCluster) -> F) -> Result<F::Output, BlockingError> {
        if is_inside() {
            return Err(BlockingError::InsideRuntime);
        }
        match (&self.home.runtime, &self.home.cluster) {
            (Some(runtime), Some(cluster)) => Ok(runtime.block_on(Box::pin(work(cluster.clone())))),
            _ => Err(lost().into()),
        }
    }

    /// The same with a client's error in what it gives.
    fn ask<T, F: StdFuture<Output = Result<T, ClientError>>>(
        &self,
        work: impl FnOnce(AsyncCluster) -> F,
    ) -> Result<T, BlockingError> {
        Ok(self.run(work)??)
    }

    /// The asynchronous client: what does not wait may be called at any time.
    pub fn client(&self) -> Option<&AsyncCluster> {
        self.home.cluster.as_ref()
    }
}

/// Running tasks.
impl Cluster {
    /// Submits a call. Does not wait; whatever goes wrong is told by [`Cluster::result`].
    ///
    /// # Errors
    /// Only if the client is ending.
    pub fn submit<R>(&self, call: Call<R>) -> Result<Future<R>, BlockingError> {
        Ok(self.client().ok_or_else(lost)?.submit(call))
    }

    /// Submits many calls; the futures are in the calls' order. Does not wait.
    pub fn map<R>(&self, calls: impl IntoIterator<Item = Call<R>>) -> Vec<Future<R>> {
        self.client().map(|client| client.map(calls)).unwrap_or_default()
    }

    /// As [`submit_all`](AsyncCluster::submit_all): submits very many calls, as fast as the scheduler takes them.
    pub fn submit_all<R>(&self, calls: impl IntoIterator<Item = Call<R>>) -> Result<Vec<Future<R>>, BlockingError> {
        self.run(|cluster| async move { cluster.submit_all(calls).await })
    }

    /// As [`submit_graph`](AsyncCluster::submit_graph). Does not wait.
    pub fn submit_graph<T>(
        &self,
        graph: Graph,
        wanted: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Future<T>>, BlockingError> {
        Ok(self.client().ok_or_else(lost)?.submit_graph(graph, wanted)?)
    }

    /// The output of a delayed call.
    pub fn compute<R: Data>(&self, delayed: &Delayed<R>) -> Result<R, BlockingError> {
        self.ask(|cluster| async move { delayed.compute(&cluster).await })
    }

    /// The outputs of delayed calls, in their order; what they share is computed once.
    pub fn compute_all<'a, R: Data>(
        &self,
        all: impl IntoIterator<Item = &'a Delayed<R>>,
    ) -> Result<Vec<R>, BlockingError> {
        self.ask(|cluster| async move { delayed::compute_all(&cluster, all).await })
    }

    /// A future's output: waits for it and fetches it.
    pub fn result<T: Data>(&self, future: &Future<T>) -> Result<T, BlockingError> {
        self.ask(|_| future.result())
    }

    /// The same, shared instead of copied when it is in this process.
    pub fn shared<T: Data>(&self, future: &Future<T>) -> Result<Arc<T>, BlockingError> {
        self.ask(|_| future.shared())
    }

    /// The results of all these futures, in their order. The first failure ends the waiting, not the tasks.
    pub fn gather<'a, T: Data>(
        &self,
        futures: impl IntoIterator<Item = &'a Future<T>>,
    ) -> Result<Vec<T>, BlockingError> {
        self.ask(|cluster| async move { cluster.gather(futures).await })
    }

    /// Waits until all these tasks have their outputs, without fetching them. The first failure ends the waiting.
    pub fn wait<'a, T: 'a>(&self, futures: impl IntoIterator<Item = &'a Future<T>>) -> Result<(), BlockingError> {
        self.ask(
            |_| async move { futures::future::try_join_all(futures.into_iter().map(Future::wait)).await.map(|_| ()) },
        )
    }

    /// The results in the order in which they come, each with the place of its future in the list.
    ///
    /// ```no_run
    /// # use starling_runtime::task::Call;
    /// # use starling_actors::blocking::{BlockingError, Cluster};
    /// # fn run(cluster: Cluster, calls: Vec<Call<i64>>) -> Result<(), BlockingError> {
    /// for (number, result) in cluster.as_completed(cluster.map(calls)) {
    ///     println!("call {number} gave {}", result?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_completed<T: Data>(&self, futures: impl IntoIterator<Item = Future<T>>) -> Completed<T> {
        let waits = futures.into_iter().enumerate().map(|(number, future)| -> BoxFuture<'static, _> {
            Box::pin(async move { (number, future.result().await) })
        });
        Completed { cluster: self.clone(), waiting: waits.collect() }
    }

    /// Puts a value on one of the workers, in turn, and gives a future of it, to be passed to tasks.
    pub fn scatter<T: Data>(&self, value: T) -> Result<Future<T>, BlockingError> {
        self.ask(|cluster| async move { cluster.scatter(value).await })
    }

    /// Gives tasks up, and every task that needs one of them. Does not wait.
    pub fn cancel<'a, T: 'a>(&self, futures: impl IntoIterator<Item = &'a Future<T>>) {
        if let Some(client) = self.client() {
            client.cancel(futures);
        }
    }

    /// Gives up everything that this client has submitted and that is not finished. Does not wait.
    pub fn cancel_all(&self) {
        if let Some(client) = self.client() {
            client.cancel_all();
        }
    }
}

/// The cluster and its data.
impl Cluster {
    /// Why a task is where it is at this moment.
    pub fn explain<T>(&self, future: &Future<T>) -> Result<Explanation, BlockingError> {
        self.ask(|cluster| async move { cluster.explain(future).await })
    }

    /// Has copies of these outputs on so many workers; gives how many were made.
    pub fn replicate<'a, T: 'a>(
        &self,
        futures: impl IntoIterator<Item = &'a Future<T>>,
        copies: u32,
    ) -> Result<u64, BlockingError> {
        self.ask(|cluster| async move { cluster.replicate(futures, copies).await })
    }

    /// Moves outputs from full workers to empty ones; gives how many were moved.
    pub fn rebalance(&self) -> Result<u64, BlockingError> {
        self.ask(|cluster| async move { cluster.rebalance().await })
    }

    /// Submits a call as a job that goes on without this client.
    pub fn submit_detached<R>(&self, call: Call<R>) -> Result<Detached<R>, BlockingError> {
        self.ask(|cluster| async move { cluster.submit_detached(call).await })
    }

    /// Futures of a detached job's outputs.
    pub fn detached<T>(&self, job: JobId) -> Result<Vec<Future<T>>, BlockingError> {
        self.ask(|cluster| async move { cluster.detached(job).await })
    }

    /// The cluster's jobs.
    pub fn jobs(&self) -> Result<Vec<JobSummary>, BlockingError> {
        self.ask(|cluster| async move { cluster.jobs().await })
    }

    /// Keeps a detached job's outputs no longer.
    pub fn forget(&self, job: JobId) -> Result<(), BlockingError> {
        self.ask(|cluster| async move { cluster.forget(job).await })
    }

    /// Keeps these outputs under a name, for others to find.
    pub fn publish<'a, T: 'a>(
        &self,
        name: impl Into<String>,
        futures: impl IntoIterator<Item = &'a Future<T>>,
    ) -> Result<(), BlockingError> {
        self.ask(|cluster| async move { cluster.publish(name, futures).await })
    }

    /// Futures of what is kept under a name.
    pub fn data_set<T>(&self, name: impl Into<String>) -> Result<Vec<Future<T>>, BlockingError> {
        self.ask(|cluster| async move { cluster.data_set(name).await })
    }

    /// Keeps what has this name no longer.
    pub fn unpublish(&self, name: impl Into<String>) -> Result<(), BlockingError> {
        self.ask(|cluster| async move { cluster.unpublish(name).await })
    }

    /// Waits until at least `workers` workers are there.
    pub fn wait_for_workers(&self, workers: usize) -> Result<(), BlockingError> {
        self.ask(|cluster| async move { cluster.wait_for_workers(workers).await })
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.client().map_or(0, AsyncCluster::workers)
    }

    /// How many tasks all workers together run at once.
    pub fn nthreads(&self) -> u32 {
        self.client().map_or(0, AsyncCluster::nthreads)
    }
}

/// Results in the order in which they come: see [`Cluster::as_completed`].
pub struct Completed<T> {
    cluster: Cluster,
    waiting: FuturesUnordered<BoxFuture<'static, (usize, Result<T, ClientError>)>>,
}

impl<T: Data> Iterator for Completed<T> {
    type Item = (usize, Result<T, BlockingError>);

    /// Waits for the next result. Inside of a runtime it gives the error once, under the number of futures that are left, and ends.
    fn next(&mut self) -> Option<Self::Item> {
        let waiting = &mut self.waiting;
        match self.cluster.run(|_| waiting.next()) {
            Ok(next) => next.map(|(number, result)| (number, result.map_err(BlockingError::from))),
            Err(error) => {
                let left = self.waiting.len();
                self.waiting.clear();
                (left > 0).then_some((left, Err(error)))
            }
        }
    }
}

fn lost() -> ClientError {
    ClientError::SchedulerLost("the client has left".to_owned())
}
