//! A task graph with names: built in any order, checked and submitted as a whole.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use starling_core::graph::{GraphError, TaskGraph};
use starling_core::ids::KindId;

use super::TaskDef;
use super::args::Input;
use super::call::Call;
use super::future::ClientError;

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

/// Tasks under names, each of which may take the outputs of others by [`key`], whatever the order in which they are added.
///
/// For graphs that are made by name, such as those of another program. Where the order is natural, futures as arguments
/// say the same with types.
#[derive(Debug, Default)]
pub struct Graph {
    graph: TaskGraph,
    defs: BTreeMap<KindId, &'static TaskDef>,
    with_priority: Vec<String>,
}

/// A graph without its types, for the client.
pub struct GraphParts {
    /// The tasks.
    pub graph: TaskGraph,
    /// The functions in it.
    pub defs: Vec<&'static TaskDef>,
    /// The tasks whose priority the caller has said.
    pub with_priority: Vec<String>,
}

impl Graph {
    /// A graph without tasks.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Adds a task. An error leaves the graph as it was.
    ///
    /// # Errors
    /// [`GraphError::DuplicateKey`] if the name is taken. A future as an argument is refused: scatter values, or submit
    /// the call by itself.
    pub fn add<R>(&mut self, name: impl Into<String>, call: Call<R>) -> Result<(), ClientError> {
        let parts = call.into_parts()?;
        let inputs = parts.inputs.into_iter().map(|input| match input {
            Input::Key(name) => Ok(name),
            Input::Future(future) => Err(ClientError::FutureInGraph(future.task())),
        });
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let kind = parts.def.kind();
        let name = name.into();
        let said_priority = parts.has_priority.then(|| name.clone());
        self.graph.add(name, kind, parts.payload.into(), inputs, parts.options)?;
        self.with_priority.extend(said_priority);
        self.defs.insert(kind, parts.def);
        Ok(())
    }

    /// The graph without its types.
    pub fn into_parts(self) -> GraphParts {
        let defs = self.defs.into_values().collect();
        GraphParts { graph: self.graph, defs, with_priority: self.with_priority }
    }
}

impl From<GraphError> for ClientError {
    fn from(error: GraphError) -> ClientError {
        ClientError::Graph(error)
    }
}
