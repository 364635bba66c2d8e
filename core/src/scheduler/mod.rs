//! The scheduler machine: which task runs where, and when.
//!
//! It decides; it never reads a payload, never sees a value, and never waits. Whatever a peer says is checked against
//! the records and ignored if it does not fit: a late, doubled or wrong message changes nothing.
//!
//! ```text
//!                 +------------------------------ an input is lost ----+
//!                 v                                                    |
//! released --> waiting --> queued ------> processing --> memory        |
//!    ^            |    \-> no-worker --/      |    |       | |          |
//!    |            |                           |    |       | +- lost --+ (waiting, or released if nobody needs it)
//!    |            +---- a failed input -------+----+--> erred
//!    +------------------- nobody needs it any more --------+
//! ```
//! From every state a task is forgotten when its client does not hold it and no task that names it as an input is
//! known. Until then its spec is kept, because a lost output may have to be computed again from the beginning.
//!
//! **Order.** Within a submission tasks are numbered depth first ([`order`](crate::order)); the user's priority goes before the
//! order of submission, which goes before that. Tasks without inputs wait in one queue (the roots), and only as much as keeps
//! the workers' threads busy for a while is sent, so that what has been begun stays little. A task whose inputs are there goes at
//! once to the worker that has to fetch the fewest bytes, then to the least busy; if that one is full it waits in a queue of
//! that worker's. A worker that gets room takes from its own queue first, from the roots next (unless a root's user priority
//! is higher) and, if it is running dry, from the longest queue of another. So what was begun is finished before something new
//! is begun, and nobody idles while a task is queued.
//!
//! **Requirements.** Tasks that need resources or certain workers are placed among the workers that have them, and wait in a
//! queue of their own class, so that they hold nobody else up.
//!
//! **Phases.** What is processing may have been sent ahead of its inputs (`ahead`), asked back for an idle worker (`steal`), or be
//! suspended, when it waits for tasks that it has submitted itself.
//!
//! - [`view`], `report`, `explain`: what may be asked of the scheduler.
//! - `record`: the records; `queue`: ready tasks; `pool`: the workers; `kinds`: the functions; `classes`: the requirements.
//! - `recover`: jobs that clients resume; `take_up`: their tasks; `inventory`: what workers have from before; `keep`: what is kept
//!   without a client.
//! - `submit`: what clients say; `admit`: how much of it at a time; `retry`: what has failed and is to run again; `workers`: joining, leaving and what workers say.
//! - `transitions`: what follows when a task's state changes; `place`: which worker gets what; `ahead`: what is sent before its
//!   inputs; `steal`: what is asked back; `moves`: copies on request, and workers that leave; `copies`: those that are kept up.
//! - `stream`: which task ran where and when, while somebody asks.
//! - `invariants`: what must hold between events.

mod admit;
mod ahead;
mod classes;
mod copies;
mod explain;
mod invariants;
mod inventory;
mod keep;
mod kinds;
mod moves;
mod place;
mod pool;
mod queue;
mod record;
mod recover;
mod report;
mod retry;
mod steal;
mod stream;
mod submit;
mod take_up;
mod transitions;
pub mod view;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, ClientId, JobId, TaskId, Term, Time, WorkerId};
use crate::ledger::{Entry, Kept as KeptEntry};
use crate::wire::{FromClient, FromWorker, KindInfo, ToClient, ToWorker, WorkerInfo};

use self::admit::Kept;
use self::classes::Classes;
use self::copies::Copies;
use self::inventory::Orphans;
use self::keep::Keeping;
use self::kinds::Kinds;
use self::moves::Moves;
use self::pool::{Pool, Slot};
use self::queue::ReadyQueue;
use self::record::{Jobs, NOBODY};
use self::recover::Recovery;
use self::stream::Stream;
pub use self::stream::{PAGE_RECORDS_MAX, RECORDS_MAX};
pub use self::view::{JobView, StateCounts, TaskState, WorkerView};

/// What can happen to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Some time has passed: said about every [`TICK_US`] microseconds.
    Tick,
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
    /// The ledger says to keep this: told to a new scheduler before anything else.
    Restored(Arc<KeptEntry>),
    /// Workers and clients that were there before have had time to say what they have and want.
    Recovered,
    /// A quorum has taken this entry into the ledger.
    Logged(Entry),
    /// An entry was not taken into the ledger.
    NotLogged {
        /// The entry.
        entry: Entry,
        /// Why, for a person.
        problem: String,
    },
}

/// What the scheduler wants done, in order. The caller groups it by receiver and sends each group as a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Messages to workers.
    pub to_workers: Vec<(WorkerId, ToWorker)>,
    /// Messages to clients.
    pub to_clients: Vec<(ClientId, ToClient)>,
    /// What is to be taken into the ledger. Answered, each, by [`Event::Logged`] or [`Event::NotLogged`].
    pub to_log: Vec<Entry>,
}

/// How often the scheduler should be told that time passes, in microseconds.
pub const TICK_US: u64 = 50_000;

/// What the scheduler is told at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The functions that this binary holds, hence every worker that may join. Submissions of others are refused.
    pub kinds: Vec<KindInfo>,
    /// How many workers may be lost while they run a task before the task is given up.
    pub allowed_failures: u32,
    /// How much work each of a worker's threads is given in advance, in microseconds, going by what tasks of its kind have
    /// taken so far: the saturation. More hides longer round trips, less leaves more to decide.
    pub saturation_us: u64,
    /// How many tasks are known at a time before further submissions wait; 0 for no limit.
    pub tasks_max: u64,
    /// Whether a task may be sent to the worker that computes its inputs before they are there.
    pub send_ahead: bool,
    /// Whether idle workers are given what waits at busy ones.
    pub stealing: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            kinds: Vec::new(),
            allowed_failures: 3,
            saturation_us: 10_000,
            tasks_max: 0,
            send_ahead: true,
            stealing: true,
        }
    }
}

impl Effects {
    fn tell_worker(&mut self, worker: WorkerId, message: ToWorker) {
        self.to_workers.push((worker, message));
    }

    fn tell_client(&mut self, client: ClientId, message: ToClient) {
        if client != NOBODY {
            self.to_clients.push((client, message));
        }
    }
}

/// The scheduler: see the module's text.
#[derive(Debug)]
pub struct Scheduler {
    term: Term,
    /// The time of the last event. It does not run backwards.
    now: Time,
    kinds: Kinds,
    classes: Classes,
    allowed_failures: u32,
    tasks_max: u64,
    may_send_ahead: bool,
    may_steal: bool,
    /// How many tasks are known.
    live: u64,
    /// What came beyond `tasks_max`, by client.
    kept: BTreeMap<ClientId, Kept>,
    /// Of whom something was taken up last.
    kept_last: ClientId,
    /// The connected clients and their jobs.
    clients: BTreeMap<ClientId, Vec<JobId>>,
    jobs: Jobs,
    pool: Pool,
    /// All and only the tasks in state queued at the roots.
    roots: ReadyQueue,
    /// All and only the tasks in state no-worker.
    parked: ReadyQueue,
    /// The number of the next submission.
    submission: u32,
    /// Tasks that have become ready in this event. Empty between events, like the next two.
    ready: Vec<TaskId>,
    /// Tasks that may have become unneeded in this event.
    loose: Vec<TaskId>,
    /// Workers that may have got room in this event.
    roomy: Vec<Slot>,
    /// Tasks that were sent in this event, and where: what depends on them may follow. Empty between events, like the next.
    ahead: Vec<(TaskId, Slot)>,
    /// Workers that have got room for tasks ahead of their inputs.
    ahead_roomy: Vec<Slot>,
    /// The copies that are being made, and who is about to leave.
    moves: Moves,
    copies: Copies,
    /// What clients and the ledger say again.
    recovery: Recovery,
    /// What workers have of tasks that are not known.
    orphans: Orphans,
    /// Until when they may be asked for.
    orphans_until: Time,
    keeping: Keeping,
    stream: Stream,
    /// Attempts are counted from here on.
    attempts_after: Attempt,
    /// The last attempt of any task of a job that was closed.
    attempts_closed: Attempt,
    /// Nothing is stolen before this time.
    steal_at: Time,
    /// Where the next sample of eligible workers begins.
    cursor: usize,
    /// Bytes of a task's inputs by worker slot; all zero between uses.
    bytes_at: Vec<u64>,
    /// Events since the last check of the invariants.
    #[cfg(debug_assertions)]
    unchecked: u64,
}

impl Scheduler {
    /// A scheduler with no workers, clients or jobs.
    pub fn new(config: Config) -> Scheduler {
        Scheduler {
            term: Term::default(),
            now: Time::default(),
            kinds: Kinds::new(config.kinds),
            classes: Classes::default(),
            allowed_failures: config.allowed_failures,
            tasks_max: config.tasks_max,
            may_send_ahead: config.send_ahead,
            may_steal: config.stealing,
            live: 0,
            kept: BTreeMap::new(),
            kept_last: ClientId(u32::MAX),
            clients: BTreeMap::new(),
            jobs: Jobs::default(),
            pool: Pool::new(config.saturation_us.max(1)),
            roots: ReadyQueue::default(),
            parked: ReadyQueue::default(),
            submission: 0,
            ready: Vec::new(),
            loose: Vec::new(),
            roomy: Vec::new(),
            ahead: Vec::new(),
            ahead_roomy: Vec::new(),
            moves: Moves::default(),
            copies: Copies::default(),
            recovery: Recovery::default(),
            orphans: Orphans::default(),
            orphans_until: Time::default(),
            keeping: Keeping::default(),
            stream: Stream::default(),
            attempts_after: Attempt(0),
            attempts_closed: Attempt(0),
            steal_at: Time::default(),
            cursor: 0,
            bytes_at: Vec::new(),
            #[cfg(debug_assertions)]
            unchecked: 0,
        }
    }

    /// The same scheduler in another term of office, which its clients are told.
    pub fn in_term(self, term: Term) -> Scheduler {
        Scheduler { term, attempts_after: Attempt::first_of(term), ..self }
    }

    /// The same scheduler, which has a ledger, with job ids reserved up to [`Scheduler::jobs_below`]. What the ledger keeps is said
    /// first ([`Event::Restored`]); then workers and clients say what they have and want, until it is told [`Event::Recovered`].
    pub fn recovering(mut self) -> Scheduler {
        self.keeping.reserve();
        self.recovery.is_under_way = true;
        self
    }

    /// The same scheduler, whose first job gets this id: one that no scheduler before it has used, so that what is left
    /// of that one's jobs is not taken for its own.
    pub fn first_job(self, job: JobId) -> Scheduler {
        Scheduler { jobs: Jobs::starting_at(job), ..self }
    }

    /// Takes an event and appends what is to be done because of it. The cost of a task's event does not depend on how
    /// many tasks and workers there are, only on how many different requirements are being waited for.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Effects) {
        self.now = self.now.max(now);
        match event {
            Event::Tick => {
                self.drop_old_orphans(effects);
                self.look_at_refused(effects);
            }
            Event::WorkerJoined { worker, info } => self.on_worker_joined(worker, info, effects),
            Event::WorkerLost { worker } => self.on_worker_lost(worker, effects),
            Event::FromWorker { worker, message } => self.on_worker_message(worker, message, effects),
            Event::ClientJoined { client } => self.on_client_joined(client, effects),
            Event::ClientLost { client } => self.on_client_lost(client, effects),
            Event::FromClient { client, message } => self.on_client_message(client, message, effects),
            Event::Restored(kept) => self.on_restored(kept),
            Event::Recovered => self.on_recovered(effects),
            Event::Logged(entry) => self.on_logged(&entry, effects),
            Event::NotLogged { entry, problem } => self.on_not_logged(&entry, &problem, effects),
        }
        self.settle(effects);
        self.place_ready(effects);
        self.fill(effects);
        self.take_kept(effects);
        self.send_ahead(effects);
        self.steal(effects);
        self.keep_up_copies(effects);
        self.let_retired_go(effects);
        #[cfg(debug_assertions)]
        self.check_sometimes();
    }

    /// Checks the invariants after every event while there are few tasks, and then so seldom that an event's share of
    /// the cost stays the same.
    #[cfg(debug_assertions)]
    fn check_sometimes(&mut self) {
        self.unchecked += 1;
        if self.unchecked > self.counts().total() / CHECKED_EACH_MAX {
            self.unchecked = 0;
            self.check_invariants();
        }
    }
}

/// Up to so many tasks, a debug build checks the invariants after every event.
#[cfg(debug_assertions)]
const CHECKED_EACH_MAX: u64 = 50;
