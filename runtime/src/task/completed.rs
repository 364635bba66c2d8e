//! Waiting for many futures: in the order in which they end, or for as many as are wanted.

use std::fmt;
use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};

use super::future::{ClientError, Future, FutureStatus};
use crate::value::Data;

/// The futures, each when its task has ended, well or not. More may be added at any time, also when all have come.
///
/// ```no_run
/// # use futures::StreamExt;
/// # use starling_runtime::task::{ClientError, Future, as_completed};
/// # async fn run(parts: Vec<Future<i64>>, more: impl Fn(i64) -> Option<Future<i64>>) -> Result<(), ClientError> {
/// let mut ended = as_completed(parts);
/// while let Some(part) = ended.next().await {
///     if let Some(another) = more(part.result().await?) {
///         ended.add(another);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub fn as_completed<T: 'static>(futures: impl IntoIterator<Item = Future<T>>) -> AsCompleted<T> {
    let mut ended = AsCompleted { waiting: FuturesUnordered::new() };
    ended.extend(futures);
    ended
}

/// What [`as_completed`] gives: a stream of futures. Dropping it releases those that have not come.
pub struct AsCompleted<T> {
    waiting: FuturesUnordered<BoxFuture<'static, Future<T>>>,
}

impl<T: 'static> AsCompleted<T> {
    /// Waits for this one too.
    pub fn add(&mut self, future: Future<T>) {
        let waiting = async move {
            // How it has ended is told by the future itself.
            let _ = future.wait().await;
            future
        };
        self.waiting.push(waiting.boxed());
    }

    /// How many have not come yet.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether all have come.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<T: Data> AsCompleted<T> {
    /// Each with its result, which is fetched when it is its turn.
    pub fn with_results(self) -> impl Stream<Item = (Future<T>, Result<T, ClientError>)> {
        self.then(|future| async move {
            let result = future.result().await;
            (future, result)
        })
    }
}

impl<T: 'static> Extend<Future<T>> for AsCompleted<T> {
    fn extend<I: IntoIterator<Item = Future<T>>>(&mut self, futures: I) {
        futures.into_iter().for_each(|future| self.add(future));
    }
}

impl<T> Stream for AsCompleted<T> {
    type Item = Future<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Future<T>>> {
        self.waiting.poll_next_unpin(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.waiting.len(), None)
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsCompleted({} to come)", self.waiting.len())
    }
}

/// Waits until all these futures have ended, or for less, as [`Wait`] says. Fetches no result.
///
/// ```no_run
/// # use std::time::Duration;
/// # use starling_runtime::task::{Future, wait};
/// # async fn run(parts: Vec<Future<i64>>) {
/// let ended = wait(&parts).first_failure().timeout(Duration::from_secs(60)).await;
/// println!("{} of {} have ended", ended.done.len(), parts.len());
/// # }
/// ```
pub fn wait<'a, T: 'static>(futures: impl IntoIterator<Item = &'a Future<T>>) -> Wait<T> {
    Wait { futures: futures.into_iter().cloned().collect(), until: Until::All, timeout: None }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    All,
    FirstCompleted,
    FirstFailure,
}

/// What is to be waited for: await it. Without options, until all have ended.
#[must_use = "nothing is waited for until this is awaited"]
pub struct Wait<T> {
    futures: Vec<Future<T>>,
    until: Until,
    timeout: Option<Duration>,
}

impl<T> Wait<T> {
    /// Only until the first has ended, well or not.
    pub fn first_completed(self) -> Wait<T> {
        Wait { until: Until::FirstCompleted, ..self }
    }

    /// Only until the first has failed or was given up; until all have ended if none does.
    pub fn first_failure(self) -> Wait<T> {
        Wait { until: Until::FirstFailure, ..self }
    }

    /// No longer than this.
    pub fn timeout(self, timeout: Duration) -> Wait<T> {
        Wait { timeout: Some(timeout), ..self }
    }
}

impl<T> fmt::Debug for Wait<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wait({} futures, {:?}, {:?})", self.futures.len(), self.until, self.timeout)
    }
}

/// What has become of the futures that were waited for, each list in the order in which they were given.
#[derive(Debug)]
pub struct Waited<T> {
    /// Those that have ended, well or not.
    pub done: Vec<Future<T>>,
    /// The others.
    pub not_done: Vec<Future<T>>,
    /// Whether the time was over before what was waited for.
    pub timed_out: bool,
}

impl<T: 'static> IntoFuture for Wait<T> {
    type Output = Waited<T>;
    type IntoFuture = BoxFuture<'static, Waited<T>>;

    fn into_future(self) -> BoxFuture<'static, Waited<T>> {
        let Wait { futures, until, timeout } = self;
        async move {
            let enough = until_enough(futures.clone(), until);
            let timed_out = match timeout {
                Some(timeout) => tokio::time::timeout(timeout, enough).await.is_err(),
                None => {
                    enough.await;
                    false
                }
            };
            let (done, not_done) = futures.into_iter().partition(Future::is_done);
            Waited { done, not_done, timed_out }
        }
        .boxed()
    }
}

async fn until_enough<T: 'static>(futures: Vec<Future<T>>, until: Until) {
    let is_failed = |status| matches!(status, FutureStatus::Error | FutureStatus::Cancelled | FutureStatus::Lost);
    let is_enough = |future: &Future<T>| match until {
        Until::All => false,
        Until::FirstCompleted => future.is_done(),
        Until::FirstFailure => is_failed(future.status()),
    };
    if futures.iter().any(is_enough) {
        return;
    }
    let pending = futures.into_iter().filter(|future| !future.is_done());
    let mut ended = pin!(as_completed(pending));
    while let Some(future) = ended.next().await {
        if is_enough(&future) {
            return;
        }
    }
}
