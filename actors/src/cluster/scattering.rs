//! Values that a client puts on workers.

use futures::{StreamExt, TryStreamExt, stream};
use starling_core::ids::WorkerId;
use starling_runtime::task::{ClientError, Future};
use starling_runtime::value::{Data, Encoded};

use super::Cluster;

/// How many values are put at a time.
const PUT_AT_ONCE: usize = 16;

/// On which workers, and how many of them, a scattered value is to be. Without options: on one, in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterOptions {
    workers: Vec<String>,
    copies: u32,
}

impl Default for ScatterOptions {
    fn default() -> ScatterOptions {
        ScatterOptions { workers: Vec::new(), copies: 1 }
    }
}

impl ScatterOptions {
    /// On one worker, in turn.
    pub fn new() -> ScatterOptions {
        ScatterOptions::default()
    }

    /// Only on these, each called by its name or by the beginning of its node's id. Of the others none gets a copy unless a
    /// task needs one there.
    pub fn workers(mut self, workers: impl IntoIterator<Item = impl Into<String>>) -> ScatterOptions {
        self.workers.extend(workers.into_iter().map(Into::into));
        self
    }

    /// On so many workers, or on all if there are fewer.
    pub fn copies(self, copies: u32) -> ScatterOptions {
        ScatterOptions { copies: copies.max(1), ..self }
    }

    /// On every worker: of the named ones, if some are named.
    pub fn broadcast(self) -> ScatterOptions {
        self.copies(u32::MAX)
    }
}

impl Cluster {
    /// Puts a value on one of the workers, in turn, and gives a future of it, to be passed to tasks. The cluster cannot
    /// compute it again: if its worker is lost, it is lost, and tasks that need it fail.
    pub async fn scatter<T: Data>(&self, value: T) -> Result<Future<T>, ClientError> {
        self.scatter_with(value, ScatterOptions::default()).await
    }

    /// As [`Cluster::scatter`], on several workers or on certain ones. Where workers are named, the client sends the value to
    /// each; otherwise it sends it to one, and the workers copy it from each other, as by [`Cluster::replicate`].
    ///
    /// ```no_run
    /// # use starling_actors::{Cluster, ScatterOptions};
    /// # use starling_runtime::task::ClientError;
    /// # async fn run(cluster: Cluster, table: Vec<f64>) -> Result<(), ClientError> {
    /// let everywhere = cluster.scatter_with(table.clone(), ScatterOptions::new().broadcast()).await?;
    /// let near = cluster.scatter_with(table, ScatterOptions::new().workers(["rack1-a"])).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::NotPlaced`] if no worker takes it, [`ClientError::NotDone`] if not as many as wanted do,
    /// [`ClientError::NoSuchWorker`] or [`ClientError::AmbiguousWorker`] for a name that fits none or several.
    pub async fn scatter_with<T: Data>(&self, value: T, options: ScatterOptions) -> Result<Future<T>, ClientError> {
        let among = self.client.find(&options.workers)?;
        self.scatter_among(&value, &among, options.copies).await
    }

    /// As [`Cluster::scatter`], with many values, which go to the workers in turn. The futures are in the values' order. Values
    /// are taken from the iterator as they are sent, so that it need not hold all of them.
    ///
    /// # Errors
    /// As [`Cluster::scatter`]: the first one, and then no value is kept.
    pub async fn scatter_many<T: Data>(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Future<T>>, ClientError> {
        self.scatter_many_with(values, ScatterOptions::default()).await
    }

    /// As [`Cluster::scatter_many`], each on several workers or on certain ones.
    ///
    /// # Errors
    /// As [`Cluster::scatter_with`]: the first one, and then no value is kept.
    pub async fn scatter_many_with<T: Data>(
        &self,
        values: impl IntoIterator<Item = T>,
        options: ScatterOptions,
    ) -> Result<Vec<Future<T>>, ClientError> {
        let among = self.client.find(&options.workers)?;
        let (among, copies) = (&among[..], options.copies);
        let put = |value: T| async move { self.scatter_among(&value, among, copies).await };
        stream::iter(values.into_iter().map(put)).buffered(PUT_AT_ONCE).try_collect().await
    }

    async fn scatter_among<T: Data>(
        &self,
        value: &T,
        among: &[WorkerId],
        copies: u32,
    ) -> Result<Future<T>, ClientError> {
        let put = if among.is_empty() { 1 } else { copies as usize };
        let (task, placed) = self.client.scatter(Encoded::of(value)?, among, put);
        // Made first, so that the value is released if this is given up.
        let future = Future::new(task, self.source());
        placed.await.map_err(|_| ClientError::NotPlaced("the client's runtime has ended".to_owned()))??;
        if among.is_empty() && copies > 1 {
            self.client.replicate(&[task], copies).await?;
        }
        Ok(future)
    }
}
