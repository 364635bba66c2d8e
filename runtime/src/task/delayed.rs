//! Calls that wait: a graph that is built by calling tasks, and computed when its results are asked for.
//!
//! A [`Delayed`] holds its call and, by way of the call's arguments, all that the call needs; several may share what they
//! need, which is then computed once. Since a call can only take what was made before it, there are no cycles. Nothing
//! here recurses, not even dropping: a chain may be as long as a job.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::try_join_all;
use starling_core::spec::TaskOptions;

use super::TaskDef;
use super::args::Input;
use super::call::{Call, CallParts};
use super::draw::DrawError;
use super::future::{ClientError, Future};
use super::graph::Graph;
use crate::value::Data;

/// A client that takes graphs: a `Cluster`.
pub trait GraphClient: Sync {
    /// Submits a graph whole; gives futures of the outputs that are wanted, in their order.
    fn submit_graph<T>(
        &self,
        graph: Graph,
        wanted: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Future<T>>, ClientError>;
}

/// A call that is not submitted yet, whose output will be an `R`. It may be an argument of further calls, wherever a
/// [`Future`] may.
///
/// ```
/// # use starling_runtime::task::{Call, ClientError, Delayed, DrawError, GraphClient};
/// # async fn run(
/// #     cluster: impl GraphClient, load: fn(&str) -> Call<u64>, clean: fn(&Delayed<u64>) -> Call<u64>,
/// #     total: fn(Vec<Delayed<u64>>) -> Call<u64>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let raw = load("a").delayed();
/// let parts = vec![clean(&raw).delayed(), clean(&raw).delayed().name("clean again")];
/// let sum = total(parts).delayed();
/// sum.visualize("sum.dot")?;
/// println!("{}", sum.compute(&cluster).await?); // `load` runs once
/// # Ok(())
/// # }
/// ```
pub struct Delayed<R> {
    pub(super) node: Arc<DelayedNode>,
    result: PhantomData<fn() -> R>,
}

/// A [`Delayed`] without its type.
pub struct DelayedNode {
    call: Result<DelayedCall, Box<ClientError>>,
    name: Mutex<Option<Box<str>>>,
}

/// A call that may be submitted several times.
pub(super) struct DelayedCall {
    pub(super) def: &'static TaskDef,
    pub(super) payload: Bytes,
    pub(super) inputs: Vec<Input>,
    pub(super) options: TaskOptions,
    pub(super) has_priority: bool,
}

impl DelayedCall {
    pub(super) fn of<R>(call: Call<R>) -> Result<DelayedCall, ClientError> {
        call.into_parts().map(DelayedCall::from)
    }
}

impl From<CallParts> for DelayedCall {
    fn from(parts: CallParts) -> DelayedCall {
        let CallParts { def, payload, inputs, options, has_priority } = parts;
        DelayedCall { def, payload: payload.into(), inputs, options, has_priority }
    }
}

impl DelayedNode {
    pub(super) fn call(&self) -> Result<&DelayedCall, ClientError> {
        self.call.as_ref().map_err(|error| (**error).clone())
    }

    /// What a person sees: the name that it was given, or that of its function without the path.
    pub(super) fn title(&self) -> String {
        if let Some(name) = &*self.name.lock().unwrap_or_else(PoisonError::into_inner) {
            return name.to_string();
        }
        self.call.as_ref().map_or_else(|_| "a call that failed".to_owned(), |call| short_name(call.def.name).to_owned())
    }
}

/// A function's name without its path: of `my_crate::load` it is `load`.
pub(super) fn short_name(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

impl Drop for DelayedNode {
    fn drop(&mut self) {
        let Ok(call) = &mut self.call else { return };
        let mut inputs = std::mem::take(&mut call.inputs);
        while let Some(input) = inputs.pop() {
            if let Input::Delayed(node) = input
                && let Some(mut last) = Arc::into_inner(node)
                && let Ok(call) = &mut last.call
            {
                inputs.append(&mut call.inputs);
            }
        }
    }
}

impl<R> Call<R> {
    /// The call, to be submitted when its result is asked for.
    pub fn delayed(self) -> Delayed<R> {
        Delayed::new(DelayedCall::of(self))
    }
}

impl<R> Delayed<R> {
    fn new(call: Result<DelayedCall, ClientError>) -> Delayed<R> {
        let node = DelayedNode { call: call.map_err(Box::new), name: Mutex::default() };
        Delayed { node: Arc::new(node), result: PhantomData }
    }

    /// A delayed call of an `R`, by who has taken the call apart.
    pub fn of_parts(parts: CallParts) -> Delayed<R> {
        Delayed::new(Ok(parts.into()))
    }

    /// With a name for people, which drawings show instead of the function's. Clones have it too.
    pub fn name(self, name: impl Into<String>) -> Delayed<R> {
        *self.node.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.into().into_boxed_str());
        self
    }

    /// Submits the call and all that it needs as one graph, and gives a future of its output. Each time it is called anew,
    /// everything is computed anew. Neither blocks nor waits.
    ///
    /// # Errors
    /// A call could not be encoded, an option of one is out of its bounds, the cluster does not hold its task, or an argument
    /// is a future of another cluster; then nothing was submitted.
    pub fn persist(&self, cluster: &impl GraphClient) -> Result<Future<R>, ClientError> {
        let mut futures = persist_all(cluster, [self])?;
        futures.pop().ok_or_else(|| ClientError::NoSuchKey(self.node.title()))
    }

    /// The output: submits the call and all that it needs as one graph, and waits. Dropping the returned future cancels what
    /// still runs of it.
    ///
    /// # Errors
    /// As [`persist`](Delayed::persist), and the failure of a task.
    pub async fn compute(&self, cluster: &impl GraphClient) -> Result<R, ClientError>
    where
        R: Data,
    {
        self.persist(cluster)?.result().await
    }

    /// Draws the call and all that it needs into this file: see [`Graph::visualize`].
    ///
    /// # Errors
    /// As [`Graph::visualize`], and what is wrong with a call.
    pub fn visualize(&self, path: impl AsRef<Path>) -> Result<(), DrawError> {
        self.graph()?.visualize(path)
    }

    /// The call and all that it needs as a text that Graphviz draws.
    ///
    /// # Errors
    /// What is wrong with a call.
    pub fn to_dot(&self) -> Result<String, ClientError> {
        Ok(self.graph()?.to_dot())
    }

    /// The call and all that it needs as a graph of its own.
    ///
    /// # Errors
    /// What is wrong with a call.
    pub fn graph(&self) -> Result<Graph, ClientError> {
        let mut graph = Graph::new();
        graph.add_delayed(self)?;
        Ok(graph)
    }
}

/// Submits these calls and all that they need as one graph, what they share once; gives futures of their outputs, in their
/// order.
///
/// # Errors
/// As [`Delayed::persist`].
pub fn persist_all<'a, R: 'a>(
    cluster: &impl GraphClient,
    delayed: impl IntoIterator<Item = &'a Delayed<R>>,
) -> Result<Vec<Future<R>>, ClientError> {
    let mut graph = Graph::new();
    let add = |delayed: &Delayed<R>| graph.add_delayed(delayed).map(|key| key.name().to_owned());
    let keys = delayed.into_iter().map(add).collect::<Result<Vec<String>, ClientError>>()?;
    cluster.submit_graph(graph, keys)
}

/// The outputs of these calls, in their order: as [`persist_all`], and waits. The first failure ends the waiting, and cancels what
/// still runs.
///
/// ```
/// # use starling_runtime::task::{ClientError, Delayed, GraphClient, delayed};
/// # async fn run(cluster: impl GraphClient, low: Delayed<u64>, high: Delayed<u64>) -> Result<(), ClientError> {
/// let both: Vec<u64> = delayed::compute_all(&cluster, [&low, &high]).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Delayed::persist`], and the failure of a task.
pub async fn compute_all<R: Data>(
    cluster: &impl GraphClient,
    delayed: impl IntoIterator<Item = &Delayed<R>>,
) -> Result<Vec<R>, ClientError> {
    let futures = persist_all(cluster, delayed)?;
    try_join_all(futures.iter().map(Future::result)).await
}

impl<R> Clone for Delayed<R> {
    /// The same call: computed once wherever both are needed.
    fn clone(&self) -> Delayed<R> {
        Delayed { node: Arc::clone(&self.node), result: PhantomData }
    }
}

impl<R> fmt::Debug for Delayed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delayed({})", self.node.title())
    }
}

impl fmt::Debug for DelayedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DelayedNode({})", self.title())
    }
}

#[cfg(test)]
#[path = "delayed_tests.rs"]
mod tests;
