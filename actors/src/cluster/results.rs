//! Results of many futures, and what becomes of tasks: run again, run to their end, forgotten.

use std::pin::pin;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt, stream};
use starling_core::ids::TaskId;
use starling_runtime::task::{Call, ClientError, Future, batches};
use starling_runtime::value::{Data, Value};

use super::Cluster;
use crate::client::Held;

impl Cluster {
    /// The results of all these futures, in their order. The first failure ends the waiting, not the tasks. Results on the same
    /// worker are fetched together.
    pub async fn gather<T: Data>(&self, futures: impl IntoIterator<Item = &Future<T>>) -> Result<Vec<T>, ClientError> {
        let futures: Vec<&Future<T>> = futures.into_iter().collect();
        let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
        let mut outputs = pin!(self.outputs(&futures));
        while let Some((at, output)) = outputs.next().await {
            results[at] = Some(decode(output)?);
        }
        let all = results.into_iter().zip(&futures);
        all.map(|(result, future)| result.ok_or(ClientError::Unreachable(future.task()))).collect()
    }

    /// As [`Cluster::gather`], with what has become of each future: a failure ends nothing. Waits until all have ended.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::Future;
    /// # async fn run(cluster: Cluster, parts: Vec<Future<i64>>) {
    /// for (part, result) in parts.iter().zip(cluster.gather_all(&parts).await) {
    ///     match result {
    ///         Ok(number) => println!("{number}"),
    ///         Err(error) => eprintln!("{}: {error}", part.task()),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn gather_all<T: Data>(
        &self,
        futures: impl IntoIterator<Item = &Future<T>>,
    ) -> Vec<Result<T, ClientError>> {
        let futures: Vec<&Future<T>> = futures.into_iter().collect();
        let unknown = |future: &&Future<T>| Err(ClientError::Unreachable(future.task()));
        let mut results: Vec<Result<T, ClientError>> = futures.iter().map(unknown).collect();
        let mut outputs = pin!(self.outputs(&futures));
        while let Some((at, output)) = outputs.next().await {
            results[at] = decode(output);
        }
        results
    }

    /// As [`Cluster::gather_all`], without those that have failed: the results of the others, in their order.
    pub async fn gather_ok<T: Data>(&self, futures: impl IntoIterator<Item = &Future<T>>) -> Vec<T> {
        self.gather_all(futures).await.into_iter().filter_map(Result::ok).collect()
    }

    /// The outputs of these futures as they come, by their places.
    fn outputs<T: Data>(
        &self,
        futures: &[&Future<T>],
    ) -> impl Stream<Item = (usize, Result<Value, ClientError>)> + Send + '_ {
        let mut tasks = Vec::new();
        let others = FuturesUnordered::new();
        for (at, future) in futures.iter().enumerate() {
            if future.is_of(&*self.client) {
                tasks.push((at, Held::Own, future.task()));
            } else if future.is_kept_for(&*self.client) {
                tasks.push((at, Held::Kept, future.task()));
            } else {
                let future = Future::clone(future);
                others.push(async move { (at, future.value().await) });
            }
        }
        stream::select(self.client.outputs(tasks), others)
    }

    /// Submits many calls and waits until the scheduler has taken them, as [`Cluster::submit_all`]: Dask's word for it. The
    /// outputs stay on the workers, and are there for further calls, as long as the futures are held.
    pub async fn persist<R>(&self, calls: impl IntoIterator<Item = Call<R>>) -> Vec<Future<R>> {
        self.submit_all(calls).await
    }

    /// Submits many calls and gives their results, in the calls' order: [`Cluster::submit_all`] and [`Cluster::gather`].
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::{Call, ClientError};
    /// # async fn run(cluster: Cluster, square: fn(i64) -> Call<i64>) -> Result<(), ClientError> {
    /// let squares = cluster.compute((0..100).map(square)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first failure. The tasks that have not ended by then are given up, since nobody holds their futures.
    pub async fn compute<R: Data>(&self, calls: impl IntoIterator<Item = Call<R>>) -> Result<Vec<R>, ClientError> {
        let futures = self.submit_all(calls).await;
        self.gather(&futures).await
    }

    /// Submits many small calls, `batch_size` of them as one task, whose output is the list of their results in the calls'
    /// order. A task costs the cluster about as much as ten microseconds of work, so that this pays for calls that do less. In
    /// Dask `batch_size` only bounds how many calls are submitted at a time; for that there is [`Cluster::submit_all`].
    ///
    /// A batch is treated as its first call says: its priority, retries, timeout and requirements are the whole batch's. The first
    /// call that fails fails its batch, and says which call it was. The calls' arguments go into one message of at most 16 MiB.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::{Call, ClientError};
    /// # async fn run(cluster: Cluster, square: fn(i64) -> Call<i64>) -> Result<(), ClientError> {
    /// let batches = cluster.map_batched((0..1_000_000).map(square), 1_000);
    /// let squares: Vec<i64> = cluster.gather(&batches).await?.into_iter().flatten().collect();
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_batched<R>(&self, calls: impl IntoIterator<Item = Call<R>>, batch_size: usize) -> Vec<Future<Vec<R>>> {
        let checked =
            batches(calls, batch_size).and_then(|(batches, defs)| self.client.check_kinds(&defs).map(|()| batches));
        match checked {
            Ok(batches) => self.map(batches),
            Err(error) => vec![Future::new(self.client.fail(error), self.source())],
        }
    }

    /// Runs tasks again that have failed or were given up, with all that they need and that has failed. Does not wait: their
    /// futures have not ended from now on. What has not failed, or could not be submitted, stays as it is; so do other tasks
    /// that have failed for want of these.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::{ClientError, Future};
    /// # async fn run(cluster: Cluster, parts: Vec<Future<i64>>) -> Result<Vec<i64>, ClientError> {
    /// if cluster.gather(&parts).await.is_err() {
    ///     cluster.retry(&parts)?; // the disk that was full is not any more
    /// }
    /// cluster.gather(&parts).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::ForeignFuture`] if one is not of this client's job, and then none runs again;
    /// [`ClientError::SchedulerLost`].
    pub fn retry<'a, T: 'a>(&self, futures: impl IntoIterator<Item = &'a Future<T>>) -> Result<(), ClientError> {
        let futures: Vec<&Future<T>> = futures.into_iter().collect();
        self.check_ours(futures.iter().copied())?;
        self.client.retry(futures.iter().map(|future| future.task()).collect::<Vec<TaskId>>())
    }

    /// Lets a task run to its end although nobody holds its future any more. If it fails, that is logged. It is this client's
    /// nevertheless: when the client leaves, it is given up; [`Cluster::submit_detached`] is for what shall outlive it. What a
    /// task has submitted by [`Cluster::current`] is the node's, and goes on when the task has ended.
    ///
    /// # Errors
    /// [`ClientError::ForeignFuture`] if it is not of this client's job: what is detached or published runs on anyway.
    pub fn fire_and_forget<T>(&self, future: Future<T>) -> Result<(), ClientError> {
        self.check_ours([&future])?;
        self.client.fire_and_forget(future.task());
        Ok(())
    }

    /// Gives everything up that this client has submitted, and has the cluster forget its outputs, although futures of them are
    /// held: all of these are cancelled from now on. Resolves when the scheduler has forgotten them. What is submitted later, what
    /// is detached and what was published goes on, and so do other clients; workers are not started anew, since they keep
    /// nothing but outputs. Does nothing to what [`Cluster::current`] gave, which other tasks use as well.
    ///
    /// # Errors
    /// [`ClientError::SchedulerLost`] if there is no scheduler any more.
    pub async fn restart(&self) -> Result<(), ClientError> {
        if self.client.owns_mesh() { self.client.restart().await } else { Ok(()) }
    }
}

fn decode<T: Data>(output: Result<Value, ClientError>) -> Result<T, ClientError> {
    Ok(std::sync::Arc::unwrap_or_clone(output?.get()?))
}
