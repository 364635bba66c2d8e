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
    /// A client gave the task up, or one that it needs.
    Cancelled,
    /// The task ran longer than it may.
    TimedOut {
        /// How long it may run, in milliseconds.
        timeout_ms: u32,
    },
    /// The worker could not store the result, or an input.
    Store {
        /// What the store said.
        message: String,
    },
}

/// How many bytes each text of a failure keeps, and how many sources.
const TEXT_BYTES_MAX: usize = 8 * 1024;
const SOURCES_MAX: usize = 16;

impl FailureCause {
    /// The same with texts of a bounded length, since a failure is told to everybody who waits for something that needs
    /// the task.
    pub fn shortened(mut self) -> FailureCause {
        match &mut self {
            FailureCause::Error { message, sources } => {
                sources.truncate(SOURCES_MAX);
                sources.iter_mut().for_each(shorten);
                shorten(message);
            }
            FailureCause::Panicked { message, location } => {
                location.iter_mut().for_each(shorten);
                shorten(message);
            }
            FailureCause::Codec { message } | FailureCause::Store { message } => shorten(message),
            FailureCause::WorkersLost { .. }
            | FailureCause::DataLost { .. }
            | FailureCause::UnknownKind
            | FailureCause::Cancelled
            | FailureCause::TimedOut { .. } => {}
        }
        self
    }
}

fn shorten(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push_str(" ... (cut)");
    }
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
            FailureCause::Cancelled => write!(f, "was cancelled"),
            FailureCause::TimedOut { timeout_ms } => {
                write!(f, "ran longer than its timeout of {timeout_ms} ms and was given up")
            }
            FailureCause::Codec { message } => write!(f, "could not be encoded or decoded: {message}"),
            FailureCause::Store { message } => write!(f, "could not store what it needs or returned: {message}"),
        }
    }
}

impl std::error::Error for TaskFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = FailureCause::Error { message: "ä".repeat(10_000), sources: vec!["x".repeat(9_000); 100] };
        let FailureCause::Error { message, sources } = long.shortened() else { panic!("another cause") };
        assert!(message.starts_with('ä') && message.ends_with("(cut)") && message.len() < 8_300);
        assert_eq!((sources.len(), sources[0].len()), (16, 8 * 1024 + " ... (cut)".len()));
        let short = FailureCause::Codec { message: "no".into() };
        assert_eq!(short.clone().shortened(), short);
    }
}
