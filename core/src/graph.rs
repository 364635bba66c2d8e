//! A named task graph, checked before it is sent.

use serde::{Deserialize, Serialize};

/// Why tasks do not form a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GraphError {
    /// Two tasks have one key.
    #[error("the key {key} names two tasks: give each task a key of its own")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// An input names no task.
    #[error("task {key} has the input {input}, which is no task of the graph: add it, or correct the name")]
    DanglingInput {
        /// The task.
        key: String,
        /// The input's key.
        input: String,
    },
    /// Tasks wait for each other.
    #[error("the graph has a cycle: {}: remove one of these inputs", .keys.join(" -> "))]
    Cycle {
        /// The tasks of the cycle in order, the first repeated at the end.
        keys: Vec<String>,
    },
    /// A task's index does not continue its job's.
    #[error("task {index} was sent where task {expected} was due")]
    Gap {
        /// The index sent.
        index: u32,
        /// The index due.
        expected: u32,
    },
}
