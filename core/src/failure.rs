//! Why a task has no result.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, TaskId};

/// A task's failure as its client sees it: which task, where, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// The task that failed; for a task that was never run because an input failed, the input that failed first.
    pub task: TaskId,
    /// The name of that task's function.
    pub name: String,
    /// The node it failed on, when it failed on one.
    pub node: Option<NodeId>,
    /// What happened.
    pub cause: FailureCause,
}

/// What happened to a task. A failing user task, a lost node and a fault of the system are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureCause {
    /// The task returned an error: its text, then the texts of its chain of sources.
    Error {
        /// The error's own text.
        message: String,
        /// The texts of `source()`, `source().source()`, ...
        sources: Vec<String>,
    },
    /// The task panicked.
    Panicked {
        /// The panic's message.
        message: String,
        /// `file:line:column`, when known.
        location: Option<String>,
    },
    /// The task was running on this many workers in turn when they were lost.
    WorkersLost {
        /// How many workers were lost.
        count: u32,
    },
    /// The task's input cannot be had again: it was put into the cluster by a client, and every holder is gone.
    DataLost {
        /// The lost input.
        input: TaskId,
    },
    /// The worker's binary does not hold the task's function.
    UnknownKind,
    /// An argument, or the result, could not be encoded or decoded.
    Codec {
        /// What the codec said.
        message: String,
    },
    /// The worker could not store the result.
    Store {
        /// What the store said.
        message: String,
    },
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} ({})", self.name, self.task)?;
        if let Some(node) = self.node {
            write!(f, " on node {node}")?;
        }
        write!(f, " {}", self.cause)
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureCause::Error { message, sources } => {
                write!(f, "failed: {message}")?;
                sources.iter().try_for_each(|source| write!(f, ": {source}"))
            }
            FailureCause::Panicked { message, location: Some(at) } => write!(f, "panicked at {at}: {message}"),
            FailureCause::Panicked { message, location: None } => write!(f, "panicked: {message}"),
            FailureCause::WorkersLost { count } => {
                write!(f, "was given up: {count} workers were lost while they ran it")
            }
            FailureCause::DataLost { input } => write!(f, "lost its input {input}: every node that held it is gone"),
            FailureCause::UnknownKind => {
                write!(f, "is not in the worker's binary: start the worker from the program that submits the task")
            }
            FailureCause::Codec { message } => write!(f, "could not be encoded or decoded: {message}"),
            FailureCause::Store { message } => write!(f, "could not store its result: {message}"),
        }
    }
}

impl std::error::Error for TaskFailure {}
