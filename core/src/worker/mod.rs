//! The worker machine: what an assigned task waits for, what is fetched from whom, and what runs next.
//!
//! It decides; it never sees a value, never fetches, never runs anything. Its caller performs the effects in order and
//! comes back with an event for each fetch and each execution.
//!
//! ```text
//!  an assignment:  waiting --> ready --> executing --> finished or failed (and gone)
//!                     |          |           |
//!                     |          |           +--- cancelled: the execution goes on, and what comes of it is dropped;
//!                     |          |           |    out of time: it is abandoned; not begun after all: as if it were ready
//!                     +----------+--- cancelled, stolen, or an input is nowhere to be had: gone
//!
//!  an input:       fetch --> flight --> memory --> (freed)
//!                    ^         |
//!                    +---------+ not to be had there: the next holder
//! ```
//!
//! **Sent ahead.** An input that is assigned here itself is awaited like any other, whether or not somebody else could be
//! asked for it. When its assignment goes without an output, those that wait for it are given back, unless somebody else
//! can be asked.
//!
//! **Copies.** The scheduler knows of every output in this worker's store, because each one is reported when it comes
//! (`Finished` for a computed one, `Replica` for a fetched one), or was here when the worker registered. It goes when the
//! scheduler says so, but never while an assignment here needs it, nor while a fetch or an execution may still write it.
//! What was fetched for an assignment that is gone when it comes is dropped without a word; what the scheduler itself wanted
//! to be copied here ([`ToWorker::Acquire`]) stays, and is answered for, whoever else waits for it.
//!
//! **Parts.** A task may take one part of an input, and then only this part is fetched, under its own key, unless the whole
//! is here, is assigned here or is said to be here. The scheduler never hears of parts: a fetched one is no copy of the
//! output, and goes with the last assignment that needs it; what cannot be had is told as the whole.
//!
//! **Slots.** A task that is handed out takes a slot until it has ended, except while it waits inside and says so. One that
//! was cancelled has its slot, and what it takes of the worker's resources, until its thread is done with it. One that ran
//! out of time has neither, because its thread may never be.
//!
//! **When the link to the scheduler is lost**, the outputs that are here stay, and what has begun goes on. All else that was
//! asked for goes: another scheduler, or the same one over another link, knows nothing of it. A fetch under way is stale:
//! what it brings is dropped, unless it has taken the place of something that stays, and until it ends nothing of the same id
//! is fetched or run. Nothing is said to anybody until the worker is registered again. Then it first tells of what it has
//! ([`FromWorker::Inventory`]): what is here, and what runs, with the attempts under which it was asked for. What has
//! finished meanwhile is simply here; what has failed or run out of time is not told of, and will be asked for again. From
//! then on what runs is an assignment of the new scheduler's like any other.
//!
//! - `orders`: what the scheduler says; `inputs`: what is here and what is awaited; `fetch`: what is asked of whom;
//!   `run`: what runs; `limits`: what ends, or holds back, what runs: time, resources, memory; `failover`: what stays when the
//!   scheduler is lost, and what the next one is told.
//! - `invariants`: what must hold between events.

mod failover;
mod fetch;
mod inputs;
mod invariants;
mod limits;
mod orders;
mod run;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::failure::FailureCause;
use crate::fixed::FixedMap;
use crate::ids::{Attempt, KindId, NodeId, TaskId, Time, WorkerId};
use crate::spec::{PartOf, Requirements, Resources};
use crate::wire::{FromWorker, Priority, ToWorker, WorkerStatus};

use self::failover::leave_unsaid;
use self::fetch::{Batch, Peer};
use self::inputs::{Held, Missing, Value};
use self::limits::{Status, Taken};
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
    /// The link to the scheduler is lost: what has not begun is dropped. Outputs stay, and what has begun goes on.
    SchedulerLost,
    /// A link to a scheduler is open. Said before anything that comes over it.
    Registered,
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
    /// The answer to [`Effect::TakeBack`].
    TakenBack {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
        /// What was handed out, if it has not begun and now never will; `None` if it has, and ends as always.
        execution: Option<Execution>,
    },
    /// How this worker's memory is: a paused worker begins nothing.
    Status(WorkerStatus),
    /// The node was asked to leave: the scheduler is told, and what is held here is moved first.
    LeaveWanted,
}

/// Of which try a value is that no task has computed.
const SCATTERED: Attempt = Attempt(0);

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
    /// Say this to the scheduler within a few milliseconds, with what else there will be. In order with the others.
    ToSchedulerSoon(FromWorker),
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
    /// Take this back if it has not begun, then say [`Event::TakenBack`], whether it has or not.
    TakeBack {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
    },
    /// This task has run out of time: its thread counts no longer, whatever it still does, and what comes of it is dropped.
    /// Say [`Event::Executed`] with a failure at once; or, if the task has just ended and its output may be in the store, as
    /// it would have been said anyway.
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
    /// The outputs that are arguments, as the payload refers to them: each as it is in the store, the whole of it or the part
    /// that is taken.
    pub inputs: SmallVec<[TaskId; 3]>,
    /// Which part it takes of its inputs: of one that is here as a whole, no more has to be had.
    pub part: Option<PartOf>,
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
    /// The worker's abstract resources.
    pub resources: Resources,
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
    may_be_told_late: bool,
    timeout_ms: u32,
    requirements: Option<Arc<Requirements>>,
    part: Option<PartOf>,
    state: AssignedState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AssignedState {
    /// So many inputs are not here; a stale activity of the task's own id counts as one. 0 only within an event.
    Waiting { missing: u32 },
    /// All and only these have a valid entry in the heap of ready tasks, or among those that are held back.
    Ready,
    /// Handed out: on a thread, or about to be.
    Executing,
}

/// The worker: see the module's text.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    /// Under which id this worker is known to the scheduler, once it has said so.
    own_id: Option<WorkerId>,
    /// The other workers.
    peers: BTreeMap<WorkerId, Peer>,
    /// The fetches under way, at most one from a worker.
    batches: BTreeMap<WorkerId, Batch>,
    /// The peers that something could be asked of now, each with the priority of the first such thing.
    askable: BTreeSet<(Priority, WorkerId)>,
    assignments: FixedMap<TaskId, Assigned>,
    /// The outputs, and parts of outputs, in the store.
    memory: FixedMap<TaskId, Held>,
    /// The outputs that assignments wait for, and those in flight.
    missing: FixedMap<TaskId, Missing>,
    ready: BinaryHeap<Reverse<(Priority, TaskId, u64)>>,
    /// What is ready and waits for a resource that something on a thread has.
    held_back: Vec<(Priority, TaskId, u64)>,
    /// What is on the threads, wanted or not.
    running: FixedMap<TaskId, Running>,
    /// How many of these wait inside and have no slot.
    suspended: usize,
    /// When what may run only for so long has to have ended: of what is on the threads and was not abandoned.
    deadlines: BTreeSet<(Time, TaskId)>,
    /// What those on the threads take of the resources.
    taken: Taken,
    /// How many fetches from before the link was lost, and abandoned executions, of each task are under way.
    stale: FixedMap<TaskId, u32>,
    /// The assignments that have gone without an output in this event: what waits for one has to be looked at.
    withdrawn: Vec<TaskId>,
    serial: u64,
    /// How much work is handed out beyond the free threads.
    ahead: Ahead,
    status: Status,
    /// Whether there is a link to a scheduler. Otherwise nothing is heard or said, and all assignments are executing.
    is_registered: bool,
    /// How many outputs the scheduler has said to drop since this worker registered; wraps around.
    frees_heard: u32,
    /// Whether the node was asked to leave. It never goes back on that.
    wants_to_leave: bool,
    /// The time of the last event.
    now: Time,
}

impl Worker {
    /// A worker with nothing to do and no scheduler.
    pub fn new(config: Config) -> Worker {
        let config = Config { nthreads: config.nthreads.max(1), fetches_max: config.fetches_max.max(1), ..config };
        Worker {
            config,
            own_id: None,
            peers: BTreeMap::new(),
            batches: BTreeMap::new(),
            askable: BTreeSet::new(),
            assignments: FixedMap::default(),
            memory: FixedMap::default(),
            missing: FixedMap::default(),
            ready: BinaryHeap::new(),
            held_back: Vec::new(),
            running: FixedMap::default(),
            suspended: 0,
            deadlines: BTreeSet::new(),
            taken: Taken::default(),
            stale: FixedMap::default(),
            withdrawn: Vec::new(),
            serial: 0,
            ahead: Ahead::default(),
            status: Status::default(),
            is_registered: false,
            frees_heard: 0,
            wants_to_leave: false,
            now: Time(0),
        }
    }

    /// The same worker, which hands out tasks for about so many microseconds of each thread's time before the thread is
    /// free: waking a thread costs more than a small task. Tasks that were handed out cannot be overtaken; what is
    /// cancelled or stolen is taken back if it has not begun. A task that may run only for so long is handed out to a free
    /// thread, as every task is by default, so that its time is its own.
    pub fn run_ahead(mut self, micros: u64) -> Worker {
        self.ahead.micros = micros;
        self
    }

    /// Takes an event and appends what is to be done because of it. Time does not run backwards here, whatever it is told.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        let effects_before = effects.len();
        match event {
            // Only a fault of the caller's lets it come without a link.
            Event::FromScheduler(_) if !self.is_registered => {}
            Event::FromScheduler(message) => self.on_order(message, effects),
            Event::Fetched { from, outcome } => self.on_fetched(from, outcome, effects),
            Event::NoRoom { task, message } => self.on_no_room(task, &message, effects),
            Event::Executed { task, attempt, run_us, outcome } => {
                self.on_executed(task, attempt, run_us, outcome, effects);
            }
            Event::Stored { task, nbytes } => self.on_stored(task, nbytes, effects),
            Event::SchedulerLost => self.on_scheduler_lost(effects),
            Event::Registered => self.on_registered(effects),
            Event::Tick => self.on_tick(effects),
            Event::Suspended { task, attempt } => self.on_suspended(task, attempt, effects),
            Event::Resumed { task, attempt } => self.on_resumed(task, attempt, effects),
            Event::TakenBack { task, attempt, execution } => self.on_taken_back(task, attempt, execution, effects),
            Event::Status(status) => self.on_status(status, effects),
            Event::LeaveWanted => {
                self.wants_to_leave = true;
                effects.push(Effect::ToScheduler(FromWorker::Leaving));
            }
        }
        // Giving one back may withdraw others, which is why this is a list and no recursion: chains may be long.
        while let Some(task) = self.withdrawn.pop() {
            self.give_up_if_nowhere(task, effects);
        }
        self.start_fetches(effects);
        self.start_executions(effects);
        if !self.is_registered {
            leave_unsaid(effects, effects_before);
        }
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

    /// Whether some task is being run that does not itself wait for others.
    pub fn is_busy(&self) -> bool {
        self.slots_taken() > 0
    }

    /// The running mean of what tasks take here, in microseconds; `None` before the first has ended.
    pub fn mean_us(&self) -> Option<u64> {
        self.ahead.mean_us()
    }

    /// How many fetches are under way.
    pub fn fetches_len(&self) -> usize {
        self.batches.len()
    }

    /// The whole outputs in the store, in order, with their sizes in bytes.
    pub fn has_what(&self) -> Vec<(TaskId, u64)> {
        let wholes = self.memory.iter().filter(|entry| !entry.0.is_part());
        let mut held: Vec<_> = wholes.map(|(task, held)| (*task, held.value.nbytes)).collect();
        held.sort_unstable();
        held
    }

    /// How many parts of outputs are in the store.
    pub fn parts_len(&self) -> usize {
        self.memory.keys().filter(|task| task.is_part()).count()
    }

    /// Whether an output, or a part of one, is in the store.
    pub fn holds(&self, task: TaskId) -> bool {
        self.memory.contains_key(&task)
    }

    /// Whether a client may put a value into the store under this id. While something stale may still write there, or
    /// a task of that id is assigned here, the put has to be refused.
    pub fn accepts(&self, task: TaskId) -> bool {
        !task.is_part()
            && !self.stale.contains_key(&task)
            && !self.assignments.contains_key(&task)
            && !self.running.contains_key(&task)
    }

    /// A value that was put although it had to be refused is not counted, and so in effect lost.
    fn on_stored(&mut self, task: TaskId, nbytes: u64, effects: &mut Vec<Effect>) {
        if self.accepts(task) {
            self.take_in(task, Value { attempt: SCATTERED, nbytes }, false, effects);
        }
    }

    /// A stale fetch or execution of this task has ended; what it left in the store is seen to.
    fn end_stale(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let Some(count) = self.stale.get_mut(&task) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.stale.remove(&task);
        self.come_nearer(task, None);
        self.unblock(task, effects);
        self.free_if_doomed(task, effects);
    }
}
