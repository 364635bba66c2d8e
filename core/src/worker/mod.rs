//! The worker machine: what an assigned task waits for, what is fetched from whom, and what runs next.
//!
//! It decides; it never sees a value, never fetches, never runs anything. Its caller performs the effects in order and
//! comes back with an event for each fetch and each execution.
//!
//! ```text
//!  an assignment:  waiting --> ready --> executing --> finished or failed (and gone)
//!                     |          |           |
//!                     +----------+--- cancelled, or an input is nowhere to be had: gone;
//!                                            an execution goes on, and what comes of it is dropped
//!
//!  an input:       fetch --> flight --> memory --> (freed)
//!                    ^         |
//!                    +---------+ not to be had there: the next holder
//! ```
//!
//! **Copies.** The scheduler knows of every output in this worker's store, because each one is reported when it comes:
//! `Finished` for a computed one, `Replica` for a fetched one. It goes when the scheduler says so, but never while an
//! assignment here needs it, nor while a fetch or an execution may still write it.
//!
//! **After the link to the scheduler was lost** ids may mean something else. What was under way then is stale: its result is
//! dropped when it ends, and until then nothing of the same id is fetched or run.
//!
//! - `orders`: what the scheduler says; `inputs`: what is here and what is awaited; `fetch`: what is asked of whom; `run`: what runs.
//! - `invariants`: what must hold between events.

mod fetch;
mod inputs;
mod invariants;
mod orders;
mod run;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::failure::FailureCause;
use crate::fixed::FixedMap;
use crate::ids::{Attempt, KindId, NodeId, TaskId, Time, WorkerId};
use crate::wire::{FromWorker, Priority, ToWorker, WorkerStatus};

use self::fetch::{Batch, Peer};
use self::inputs::{Held, Missing};
pub use self::run::HANDED_OUT_PER_THREAD_MAX;
use self::run::{Ahead, Running};

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
    /// What is being fetched cannot be stored here. Said before the fetch has ended.
    NoRoom {
        /// The task whose output it is.
        task: TaskId,
        /// What the store said.
        message: String,
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
    /// Some time has passed: said about every [`TICK_US`] microseconds.
    Tick,
    /// The task waits, on its thread, for others that it has submitted: another may run beside it.
    Suspended {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
    },
    /// The task goes on.
    Resumed {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
    },
    /// How this worker's memory is: a paused worker begins nothing.
    Status(WorkerStatus),
    /// The node was asked to leave: the scheduler is told, and what is held here is moved first.
    LeaveWanted,
}

/// How often the worker should be told that time passes, in microseconds.
pub const TICK_US: u64 = 20_000;

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
    /// Run this on a thread, then say [`Event::Executed`]. There is a free thread, or soon will be, as
    /// [`Worker::run_ahead`] says.
    Execute(Execution),
    /// Drop this output from the store.
    Free {
        /// The task whose output it is.
        task: TaskId,
    },
    /// This task has run out of time: its thread counts no longer, whatever it still does, and what comes of it is dropped.
    Abandon {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
    },
    /// The scheduler lets this worker go: nothing would be lost.
    Leave,
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
    /// The user's priority of the task, which tasks that it submits itself go before.
    pub user_priority: i32,
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

/// A task that the scheduler has given to this worker.
#[derive(Debug)]
struct Assigned {
    attempt: Attempt,
    /// Tells this assignment from earlier ones of the same task.
    serial: u64,
    kind: KindId,
    /// Moved out when the task begins.
    payload: Bytes,
    inputs: SmallVec<[TaskId; 3]>,
    priority: Priority,
    inline_result: bool,
    state: AssignedState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AssignedState {
    /// So many inputs are not here; a stale activity of the task's own id counts as one. 0 only within an event.
    Waiting { missing: u32 },
    /// All and only these have a valid entry in the heap of ready tasks.
    Ready,
    /// On a thread.
    Executing,
}

/// The worker: see the module's text.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    /// The other workers.
    peers: BTreeMap<WorkerId, Peer>,
    /// The fetches under way, at most one from a worker.
    batches: BTreeMap<WorkerId, Batch>,
    /// The peers that something could be asked of now, each with the priority of the first such thing.
    askable: BTreeSet<(Priority, WorkerId)>,
    assignments: FixedMap<TaskId, Assigned>,
    /// The outputs in the store.
    memory: FixedMap<TaskId, Held>,
    /// The outputs that assignments wait for, and those in flight.
    missing: FixedMap<TaskId, Missing>,
    ready: BinaryHeap<Reverse<(Priority, TaskId, u64)>>,
    /// What is on the threads, wanted or not.
    running: FixedMap<TaskId, Running>,
    /// How many fetches and executions of each task are under way from before the link was lost.
    stale: FixedMap<TaskId, u32>,
    serial: u64,
    /// How much work is handed out beyond the free threads.
    ahead: Ahead,
}

impl Worker {
    /// A worker with nothing to do.
    pub fn new(config: Config) -> Worker {
        let config = Config { nthreads: config.nthreads.max(1), fetches_max: config.fetches_max.max(1), ..config };
        Worker {
            config,
            peers: BTreeMap::new(),
            batches: BTreeMap::new(),
            askable: BTreeSet::new(),
            assignments: FixedMap::default(),
            memory: FixedMap::default(),
            missing: FixedMap::default(),
            ready: BinaryHeap::new(),
            running: FixedMap::default(),
            stale: FixedMap::default(),
            serial: 0,
            ahead: Ahead::default(),
        }
    }

    /// The same worker, which hands out tasks for about so many microseconds of each thread's time before the thread is
    /// free: waking a thread costs more than a small task. Tasks that were handed out cannot be cancelled or overtaken.
    /// By default a task is handed out only to a free thread.
    pub fn run_ahead(mut self, micros: u64) -> Worker {
        self.ahead.micros = micros;
        self
    }

    /// Takes an event and appends what is to be done because of it.
    pub fn handle(&mut self, _now: Time, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::FromScheduler(message) => self.on_order(message, effects),
            Event::Fetched { from, outcome } => self.on_fetched(from, outcome, effects),
            Event::NoRoom { task, message } => self.on_no_room(task, &message, effects),
            Event::Executed { task, attempt, run_us, outcome } => {
                self.on_executed(task, attempt, run_us, outcome, effects);
            }
            Event::Stored { task, nbytes } => self.on_stored(task, nbytes),
            Event::SchedulerLost => self.on_scheduler_lost(effects),
            Event::Tick => {}
            Event::Suspended { task, attempt } => {
                effects.push(Effect::ToScheduler(FromWorker::Suspended { task, attempt }));
            }
            Event::Resumed { task, attempt } => {
                effects.push(Effect::ToScheduler(FromWorker::Resumed { task, attempt }));
            }
            Event::Status(status) => effects.push(Effect::ToScheduler(FromWorker::Status(status))),
            Event::LeaveWanted => effects.push(Effect::ToScheduler(FromWorker::Leaving)),
        }
        self.start_fetches(effects);
        self.start_executions(effects);
        #[cfg(debug_assertions)]
        if self.assignments.len() + self.memory.len() + self.missing.len() < 200 {
            self.check_invariants();
        }
    }

    /// How many tasks are assigned and have not ended.
    pub fn assignments_len(&self) -> usize {
        self.assignments.len()
    }

    /// How many tasks are on threads, cancelled ones included.
    pub fn executing_len(&self) -> usize {
        self.running.len()
    }

    /// How many fetches are under way.
    pub fn fetches_len(&self) -> usize {
        self.batches.len()
    }

    /// The outputs in the store, in order, with their sizes in bytes.
    pub fn has_what(&self) -> Vec<(TaskId, u64)> {
        let mut held: Vec<_> = self.memory.iter().map(|(task, held)| (*task, held.nbytes)).collect();
        held.sort_unstable();
        held
    }

    /// Whether an output is in the store.
    pub fn holds(&self, task: TaskId) -> bool {
        self.memory.contains_key(&task)
    }

    /// Whether a client may put a value into the store under this id. While something stale may still write there, or
    /// a task of that id is assigned here, the put has to be refused.
    pub fn accepts(&self, task: TaskId) -> bool {
        !self.stale.contains_key(&task) && !self.assignments.contains_key(&task) && !self.running.contains_key(&task)
    }

    /// A value that was put although it had to be refused is not counted, and so in effect lost.
    fn on_stored(&mut self, task: TaskId, nbytes: u64) {
        if self.accepts(task) {
            self.take_in(task, nbytes, false);
        }
    }

    /// The link to the scheduler is lost: nothing that was asked for is wanted, and nobody knows what is here.
    fn on_scheduler_lost(&mut self, effects: &mut Vec<Effect>) {
        for (task, _) in self.has_what() {
            effects.push(Effect::Free { task });
        }
        self.memory.clear();
        for batch in self.batches.values_mut().filter(|batch| !batch.is_stale) {
            batch.is_stale = true;
            for task in &batch.tasks {
                *self.stale.entry(*task).or_default() += 1;
            }
        }
        for (task, running) in &mut self.running {
            if running.make_stale() {
                *self.stale.entry(*task).or_default() += 1;
            }
        }
        self.assignments.clear();
        self.missing.clear();
        self.ready.clear();
        self.peers.clear();
        self.askable.clear();
    }

    /// A stale fetch or execution of this task has ended; what it left in the store is being dropped.
    fn end_stale(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let Some(count) = self.stale.get_mut(&task) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.stale.remove(&task);
        self.come_nearer(task, None);
        self.unblock(task, effects);
    }
}
