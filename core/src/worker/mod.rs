//! The worker machine: what an assigned task waits for, what is fetched from whom, and what runs next.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::failure::FailureCause;
use crate::ids::{Attempt, KindId, NodeId, TaskId, WorkerId};
use crate::wire::{FromWorker, ToWorker};

/// What can happen to the worker.
#[derive(Clone, Debug)]
pub enum Event {
    /// The scheduler says something.
    FromScheduler(ToWorker),
    /// A fetch has ended: for each task asked for, its size in bytes if it is now in the store.
    Fetched {
        /// Whom it was asked of.
        from: WorkerId,
        /// Task, and size in bytes or `None` if it was not to be had there.
        outcome: Vec<(TaskId, Option<u64>)>,
    },
    /// An execution has ended. A result is in the store before this is said.
    Executed {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
        /// How long it ran, in microseconds.
        run_us: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// A client has put a value into this worker's store, and is about to tell the scheduler of it
    /// ([`FromClient::Scattered`](crate::wire::FromClient::Scattered)).
    Stored {
        /// The id that the client gave the value.
        task: TaskId,
        /// Its size in bytes.
        nbytes: u64,
    },
    /// The link to the scheduler is lost: every assignment and every output is dropped.
    SchedulerLost,
}

/// What came of an execution.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The output is in the store.
    Stored {
        /// Its size in bytes.
        nbytes: u64,
        /// Encoded, if that was asked for and it is small.
        inline: Option<Bytes>,
    },
    /// There is no output.
    Failed {
        /// The function's name.
        name: String,
        /// Why.
        cause: FailureCause,
    },
}

/// What the worker wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Say this to the scheduler.
    ToScheduler(FromWorker),
    /// Fetch these outputs from a worker into the store, then say [`Event::Fetched`].
    Fetch {
        /// The worker to ask.
        from: WorkerId,
        /// Its node.
        node: NodeId,
        /// The outputs to ask for.
        tasks: Vec<TaskId>,
    },
    /// Run this on a free thread, then say [`Event::Executed`]. There is a free thread.
    Execute(Execution),
    /// Drop this output from the store.
    Free {
        /// The task whose output it is.
        task: TaskId,
    },
}

/// A task whose inputs are all in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The task.
    pub task: TaskId,
    /// Which try of it.
    pub attempt: Attempt,
    /// The function.
    pub kind: KindId,
    /// The encoded arguments.
    pub payload: Bytes,
    /// The outputs that are arguments, as the payload refers to them.
    pub inputs: SmallVec<[TaskId; 3]>,
    /// Whether a small result shall be encoded as well.
    pub inline_result: bool,
}

/// What the worker is told at the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// How many tasks run at once, at least 1.
    pub nthreads: u32,
    /// How many fetches are under way at once, over all peers.
    pub fetches_max: usize,
    /// How many bytes one fetch asks for at most (one output may be larger).
    pub fetch_bytes_max: u64,
}

#[allow(dead_code)]
type Placeholder = BTreeMap<TaskId, ()>;
