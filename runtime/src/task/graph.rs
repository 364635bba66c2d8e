//! A task graph with names: built in any order, checked and submitted as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use starling_core::graph::{GraphError, GraphInput, TaskGraph};
use starling_core::ids::KindId;

use super::TaskDef;
use super::args::Input;
use super::call::Call;
use super::delayed::{Delayed, DelayedCall, DelayedNode};
use super::future::{ClientError, FutureInner};

/// The output of the task of this name in the same [`Graph`], as an argument of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key<T> {
    pub(super) name: String,
    value: PhantomData<fn() -> T>,
}

/// The output of the task `name`, a `T`, as an argument of another task of the same graph.
pub fn key<T>(name: impl Into<String>) -> Key<T> {
    Key { name: name.into(), value: PhantomData }
}

impl<T> Key<T> {
    /// The name of the task.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Tasks under names, each of which may take the outputs of others by [`key`], whatever the order in which they are added.
///
/// For graphs that are made by name, such as those of another program. Where the order is natural, futures or
/// [`Delayed`] calls as arguments say the same with types; a graph's tasks may take these, too.
#[derive(Debug, Default)]
pub struct Graph {
    graph: TaskGraph,
    defs: BTreeMap<KindId, &'static TaskDef>,
    with_priority: Vec<String>,
    /// The submitted tasks whose outputs are taken: held until the graph is submitted.
    futures: Vec<Arc<FutureInner>>,
    /// The delayed calls that are in the graph, by address, with their keys.
    delayed: HashMap<usize, (Arc<DelayedNode>, String)>,
}

/// A graph without its types, for the client.
pub struct GraphParts {
    /// The tasks.
    pub graph: TaskGraph,
    /// The functions in it.
    pub defs: Vec<&'static TaskDef>,
    /// The tasks whose priority the caller has said.
    pub with_priority: Vec<String>,
    /// The submitted tasks whose outputs are taken, to be held until the graph's tasks are queued.
    pub futures: Vec<Arc<FutureInner>>,
}

impl Graph {
    /// A graph without tasks.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Adds a task, and the [`Delayed`] calls among its arguments, as far as they are not there yet. An error leaves the graph
    /// as it was.
    ///
    /// # Errors
    /// [`GraphError::DuplicateKey`] if the name is taken; what is wrong with the call, or with a delayed one that it needs.
    pub fn add<R>(&mut self, name: impl Into<String>, call: Call<R>) -> Result<(), ClientError> {
        let call = DelayedCall::of(call)?;
        let name = name.into();
        if self.graph.contains(&name) {
            return Err(GraphError::DuplicateKey { key: name }.into());
        }
        self.add_nodes(&call.inputs)?;
        self.add_call(name, &call)
    }

    /// Adds a delayed call and all that it needs, as far as they are not there yet; gives the key of its task, for further
    /// tasks of the graph and to ask for its output.
    ///
    /// # Errors
    /// What is wrong with the call, or with one that it needs.
    pub fn add_delayed<T>(&mut self, delayed: &Delayed<T>) -> Result<Key<T>, ClientError> {
        self.add_nodes(&[Input::Delayed(Arc::clone(&delayed.node))])?;
        Ok(key(self.key_of(&delayed.node)))
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.graph.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.graph.is_empty()
    }

    /// The graph without its types.
    pub fn into_parts(self) -> GraphParts {
        let defs = self.defs.into_values().collect();
        GraphParts { graph: self.graph, defs, with_priority: self.with_priority, futures: self.futures }
    }

    /// Adds the delayed calls that these inputs need and that are not there yet. Does not recurse: a chain may be as long as a
    /// job. A task may come before its inputs.
    fn add_nodes(&mut self, inputs: &[Input]) -> Result<(), ClientError> {
        let mut seen = HashSet::new();
        let mut new: Vec<Arc<DelayedNode>> = Vec::new();
        let mut look_at = |new: &mut Vec<Arc<DelayedNode>>, inputs: &[Input]| {
            for input in inputs {
                if let Input::Delayed(node) = input
                    && !self.delayed.contains_key(&address(node))
                    && seen.insert(address(node))
                {
                    new.push(Arc::clone(node));
                }
            }
        };
        look_at(&mut new, inputs);
        let mut at = 0;
        while let Some(node) = new.get(at).cloned() {
            look_at(&mut new, &node.call()?.inputs);
            at += 1;
        }
        for node in &new {
            let key = self.free_key(&node.title());
            self.delayed.insert(address(node), (Arc::clone(node), key));
        }
        for node in new {
            let key = self.key_of(&node);
            self.add_call(key, node.call()?)?;
        }
        Ok(())
    }

    /// A key that no task has, for one that was given none.
    fn free_key(&self, title: &str) -> String {
        (self.delayed.len()..)
            .map(|number| format!("{title}#{number}"))
            .find(|key| !self.graph.contains(key))
            .unwrap_or_default()
    }

    fn key_of(&self, node: &Arc<DelayedNode>) -> String {
        self.delayed.get(&address(node)).map(|(_, key)| key.clone()).unwrap_or_default()
    }

    fn add_call(&mut self, key: String, call: &DelayedCall) -> Result<(), ClientError> {
        let mut futures = Vec::new();
        let inputs = call.inputs.iter().map(|input| match input {
            Input::Key(name) => GraphInput::Key(name.clone()),
            Input::Delayed(node) => GraphInput::Key(self.key_of(node)),
            Input::Future(future) => {
                futures.push(Arc::clone(future));
                GraphInput::Submitted(future.task().index)
            }
        });
        let inputs = inputs.collect();
        let kind = call.def.kind();
        let said_priority = call.has_priority.then(|| key.clone());
        self.graph.add_with(key, kind, Bytes::clone(&call.payload), inputs, call.options.clone())?;
        self.futures.extend(futures);
        self.with_priority.extend(said_priority);
        self.defs.insert(kind, call.def);
        Ok(())
    }
}

/// What tells one delayed call from the others for as long as it is held.
fn address(node: &Arc<DelayedNode>) -> usize {
    Arc::as_ptr(node).addr()
}

/// For drawing.
impl Graph {
    pub(super) fn tasks(&self) -> Vec<starling_core::graph::GraphTask<'_>> {
        self.graph.tasks()
    }

    pub(super) fn def_of(&self, kind: KindId) -> Option<&'static TaskDef> {
        self.defs.get(&kind).copied()
    }

    /// What is shown of the tasks that were given no name in the graph, by their keys.
    pub(super) fn titles(&self) -> HashMap<&str, String> {
        self.delayed.values().map(|(node, key)| (key.as_str(), node.title())).collect()
    }
}

impl From<GraphError> for ClientError {
    fn from(error: GraphError) -> ClientError {
        ClientError::Graph(error)
    }
}
