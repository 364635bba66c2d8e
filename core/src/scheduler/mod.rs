//! The scheduler machine: which task runs where, and when.

use crate::ids::{ClientId, WorkerId};
use crate::wire::{FromClient, FromWorker, KindInfo, ToClient, ToWorker, WorkerInfo};

/// What can happen to the scheduler.
#[derive(Clone, Debug)]
pub enum Event {
    /// A worker has registered under a fresh id.
    WorkerJoined {
        /// Never used before.
        worker: WorkerId,
        /// What it said of itself.
        info: WorkerInfo,
    },
    /// A worker is gone: its link closed, or membership declared its node dead.
    WorkerLost {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker says something.
    FromWorker {
        /// The worker.
        worker: WorkerId,
        /// What it says.
        message: FromWorker,
    },
    /// A client has connected under a fresh id.
    ClientJoined {
        /// Never used before.
        client: ClientId,
    },
    /// A client is gone; nobody wants its jobs' results any more.
    ClientLost {
        /// The client.
        client: ClientId,
    },
    /// A client says something.
    FromClient {
        /// The client.
        client: ClientId,
        /// What it says.
        message: FromClient,
    },
}

/// What the scheduler wants done, in order. The caller groups it by receiver and sends each group as a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Messages to workers.
    pub to_workers: Vec<(WorkerId, ToWorker)>,
    /// Messages to clients.
    pub to_clients: Vec<(ClientId, ToClient)>,
}

/// What the scheduler is told at the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The functions that this binary holds, hence every worker that may join. Submissions of others are refused.
    pub kinds: Vec<KindInfo>,
    /// How many workers may be lost while they run a task before the task is given up.
    pub allowed_failures: u32,
}
