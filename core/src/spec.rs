//! What a client asks for.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::{KindId, TaskId};

/// One task as its client describes it. The payload (the encoded arguments) means nothing to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The task's id: the next index of its job.
    pub task: TaskId,
    /// The function to run.
    pub kind: KindId,
    /// The encoded arguments; `inputs` are referred to by position.
    pub payload: Bytes,
    /// The tasks whose outputs are arguments: tasks of the same job with a smaller index, so that a cycle cannot be
    /// said. May hold duplicates.
    pub inputs: SmallVec<[u32; 3]>,
    /// How the task is to be treated.
    pub options: TaskOptions,
}

/// How a task is to be treated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOptions {
    /// Higher runs first, whatever was submitted earlier.
    pub priority: i32,
    /// How often a task that returned an error or panicked is tried again. A lost worker is not counted here.
    pub retries: u16,
    /// Whether the client holds the result: it is told of the outcome, and the output is kept until it releases it.
    pub wanted: bool,
}

impl Default for TaskOptions {
    fn default() -> TaskOptions {
        TaskOptions { priority: 0, retries: 0, wanted: true }
    }
}
