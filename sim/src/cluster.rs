//! A whole cluster in one thread: the real machines, and around them everything that the world does to them, from one
//! seed.
//!
//! **Messages.** Those of one link keep their order, since a link is a stream; those of different links do not. A message
//! that comes late holds up what is behind it. Messages are encoded on the way. What was on its way when a link was lost
//! still arrives, under the old id, until the scheduler has heard of the loss, which may be after the same node has
//! registered anew.
//!
//! **Doubled.** No stream doubles a message, but a peer is input, so that the machines have to bear one that does. What
//! names an attempt is doubled at once or much later, in both directions, and so is what a client releases, cancels or cannot
//! reach. Not doubled are submissions and requests, which a token or an index answers for; nor `Free`, `Acquire` and
//! `Replica`, which name an output and no attempt: said later, they would mean another copy of it, and a machine cannot tell.
//!
//! **Stores and threads.** A fetch and an execution write to the store some time before their event reaches the machine, as
//! in a real node. A task that was given up for its time has no thread any more, and what it returns later is dropped.
//!
//! **Time.** The machines are told of it as long as anything is under way. Faults come at random until the cluster is healed;
//! then everything that was promised must come true. What no node may ever run is cancelled by its client then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_core::ids::{Attempt, ClientId, NodeId, TaskId, Term, WorkerId};
use starling_core::scheduler::{self, Scheduler, TaskState};
use starling_core::wire::{FromClient, FromWorker, ToClient, ToWorker};
use starling_core::worker;

use crate::check::acknowledged_is_kept::Acknowledged;
use crate::check::leaving::Leaving;
use crate::check::one_attempt::OneAttempt;
use crate::check::requests::{self, Asked};
use crate::check::terms_grow::Terms;
use crate::check::{emptiness, resources};
use crate::client::{Client, Wish};
use crate::clock::Clock;
use crate::deposed::Deposed;
use crate::failover::Quorum;
use crate::keep::Watcher;
use crate::node::{Deed, Due, SimNode, Thread};
use crate::plan::Plan;
pub use crate::report::Report;
use crate::report::{name_from_worker, name_to_client, name_to_worker};
use crate::rng::Rng;
use crate::work;

/// More happenings than this in one run mean that the cluster turns in a circle.
const HAPPENINGS_MAX: u64 = 3_000_000;

/// How long it is waited for that nothing is left, in microseconds.
pub(crate) const LONG_US: u64 = 60_000_000;

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    WorkerSays {
        worker: WorkerId,
        batch: Vec<u8>,
    },
    WorkerHears {
        worker: WorkerId,
        batch: Vec<u8>,
        era: u32,
    },
    ClientSays {
        client: ClientId,
        batch: Vec<u8>,
        era: u32,
    },
    ClientHears {
        client: ClientId,
        batch: Vec<u8>,
        era: u32,
    },
    WorkerIsUp {
        worker: WorkerId,
        era: u32,
    },
    WorkerIsDown {
        worker: WorkerId,
    },
    ClientIsUp {
        client: ClientId,
        era: u32,
    },
    ClientIsDown {
        client: ClientId,
    },
    /// The scheduler notices that a link is lost over which a client said its things before.
    OldClientIsDown {
        client: ClientId,
        era: u32,
    },
    /// An entry is in the ledger.
    Logged {
        era: u32,
    },
    /// The scheduler has waited long enough.
    Recovered {
        era: u32,
    },
    NodeRegisters {
        node: usize,
    },
    NodeDeed {
        node: usize,
        life: u32,
        deed: Deed,
    },
    NodePauses {
        node: usize,
        is_paused: bool,
    },
    NodeWantsToLeave {
        node: usize,
    },
    ClientActs {
        client: ClientId,
    },
    ClientFetches {
        client: ClientId,
        task: TaskId,
        from: WorkerId,
    },
    Fault,
    SchedulerTick,
    /// The scheduler of an earlier term notices something, and does not know that it leads no more.
    DeposedActs {
        era: u32,
    },
    NodeTick {
        node: usize,
    },
}

impl Happening {
    fn is_tick(&self) -> bool {
        matches!(self, Happening::SchedulerTick | Happening::NodeTick { .. })
    }

    /// For a person, with what messages say.
    fn describe(&self) -> String {
        match self {
            Happening::WorkerSays { worker, batch } => format!("{worker:?} says {:?}", decode::<FromWorker>(batch)),
            Happening::WorkerHears { worker, batch, .. } => format!("{worker:?} hears {:?}", decode::<ToWorker>(batch)),
            Happening::ClientSays { client, batch, .. } => format!("{client:?} says {:?}", decode::<FromClient>(batch)),
            Happening::ClientHears { client, batch, .. } => format!("{client:?} hears {:?}", decode::<ToClient>(batch)),
            other => format!("{other:?}"),
        }
    }
}

/// The two ends of a link, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    FromWorker(WorkerId),
    ToWorker(WorkerId),
    FromClient(ClientId),
    ToClient(ClientId),
    Ledger,
    /// From a node's threads and fetches to its machine.
    Within(usize),
}

/// A task on a thread that waits for another, which its client has submitted.
#[derive(Debug)]
pub(crate) struct Nested {
    node: usize,
    life: u32,
    thread: Thread,
    pub(crate) task: TaskId,
    client: ClientId,
    pub(crate) awaited: u32,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) plan: Arc<Plan>,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    sequence: u64,
    /// What happens when, and in which order at one time.
    agenda: BTreeMap<(u64, u64), Happening>,
    /// How much of that is more than the passing of time.
    open: u64,
    /// When the last message of a link arrives.
    pub(crate) links: BTreeMap<Link, u64>,
    pub(crate) scheduler: Scheduler,
    pub(crate) quorum: Quorum,
    /// What the scheduler is told the time by.
    pub(crate) clock: Clock,
    /// The scheduler of the term before, until it hears that it leads no more.
    pub(crate) deposed: Option<Deposed>,
    /// How often the scheduler has started.
    pub(crate) era: u32,
    pub(crate) nodes: Vec<SimNode>,
    /// Which node a worker id stands for, until the scheduler has heard that it is gone.
    pub(crate) workers: BTreeMap<WorkerId, usize>,
    workers_next: u32,
    pub(crate) clients: BTreeMap<ClientId, Client>,
    pub(crate) clients_next: u32,
    pub(crate) nested: Vec<Nested>,
    /// The clients that are gone and have left something that is kept.
    pub(crate) gone: Vec<Client>,
    /// Who looks at what is kept, in the end.
    pub(crate) watcher: Option<Watcher>,
    /// How often each task has run.
    pub(crate) runs: BTreeMap<TaskId, u8>,
    /// Values that a client has put into stores and that the scheduler has not heard of.
    pub(crate) orphans: BTreeSet<TaskId>,
    pub(crate) leaving: Leaving,
    pub(crate) acknowledged: Acknowledged,
    pub(crate) attempts: OneAttempt,
    pub(crate) terms: Terms,
    pub(crate) is_healed: bool,
    pub(crate) report: Report,
    /// Is told of everything that happens.
    tracer: Option<fn(&str)>,
}

impl Cluster {
    /// The cluster of a seed, before anything has happened.
    pub fn new(seed: u64) -> Cluster {
        let mut rng = Rng::new(seed);
        let plan = Arc::new(Plan::new(&mut rng));
        let nodes = (0..plan.nodes).map(|number| SimNode::new(number as u8, &plan, &mut rng)).collect();
        let mut cluster = Cluster {
            scheduler: new_scheduler(&plan, 0).recovering(),
            quorum: Quorum::new(),
            clock: Clock::default(),
            plan,
            rng,
            now: 0,
            sequence: 0,
            agenda: BTreeMap::new(),
            open: 0,
            links: BTreeMap::new(),
            deposed: None,
            era: 0,
            nodes,
            workers: BTreeMap::new(),
            workers_next: 0,
            clients: BTreeMap::new(),
            clients_next: 0,
            nested: Vec::new(),
            gone: Vec::new(),
            watcher: None,
            runs: BTreeMap::new(),
            orphans: BTreeSet::new(),
            leaving: Leaving::default(),
            acknowledged: Acknowledged::default(),
            attempts: OneAttempt::default(),
            terms: Terms::default(),
            is_healed: false,
            report: Report::default(),
            tracer: None,
        };
        cluster.prepare();
        cluster
    }

    /// The same cluster, which tells everything that happens, a line each.
    pub fn traced(self, tell: fn(&str)) -> Cluster {
        Cluster { tracer: Some(tell), ..self }
    }

    fn prepare(&mut self) {
        for node in 0..self.nodes.len() {
            let at = if self.rng.chance(70) { self.rng.below(100) } else { self.rng.below(50_000) };
            self.at(at, Happening::NodeRegisters { node });
        }
        for _ in 0..self.plan.clients {
            self.connect_client();
        }
        self.plan_troubles();
        self.at(0, Happening::Recovered { era: 0 });
    }

    /// Runs everything to its end. An error says which promise was broken.
    pub fn run(mut self) -> Result<Report, String> {
        self.run_until_quiet()?;
        self.heal()?;
        self.give_up_the_impossible()?;
        self.check_promises()?;
        self.check_where_things_are()?;
        self.release_all()?;
        self.check_kept()?;
        // Until what nobody has asked for again is not waited for any more.
        self.now += LONG_US;
        self.run_until_quiet()?;
        emptiness::check(&self.scheduler, &self.nodes, |task| self.orphans.contains(&task))?;
        Ok(self.report)
    }

    pub(crate) fn at(&mut self, delay: u64, happening: Happening) {
        self.sequence += 1;
        self.open += u64::from(!happening.is_tick());
        self.agenda.insert((self.now + delay, self.sequence), happening);
    }

    /// Sends along a link: never before what was sent earlier.
    pub(crate) fn send(&mut self, link: Link, happening: Happening) {
        let mut delay = self.rng.between(1, self.plan.delay_max_us);
        if matches!(link, Link::Within(_)) {
            delay /= 10;
        }
        if self.rng.below(1_000) < self.plan.stalls {
            delay *= 20;
        }
        let due = self.now + delay;
        let last = self.links.entry(link).or_default();
        *last = due.max(*last);
        let delay = *last - self.now;
        self.at(delay, happening);
    }

    pub(crate) fn run_until_quiet(&mut self) -> Result<(), String> {
        self.start_ticking();
        while let Some(((time, _), happening)) = self.next_happening() {
            self.now = time;
            self.open -= u64::from(!happening.is_tick());
            self.report.events += 1;
            if self.report.events > HAPPENINGS_MAX {
                return Err(format!("no end after {HAPPENINGS_MAX} happenings: {happening:?}"));
            }
            if let Some(tell) = self.tracer {
                tell(&format!("{} {}", self.now, happening.describe()));
            }
            self.happen(happening)?;
        }
        Ok(())
    }

    fn start_ticking(&mut self) {
        self.at(scheduler::TICK_US, Happening::SchedulerTick);
        for node in 0..self.nodes.len() {
            let delay = self.rng.below(worker::TICK_US);
            self.at(delay, Happening::NodeTick { node });
        }
    }

    /// When nothing else is to happen, what waits on a thread although nobody wants it any more loses its patience.
    fn next_happening(&mut self) -> Option<((u64, u64), Happening)> {
        if self.agenda.is_empty() {
            let nodes = &self.nodes;
            let scheduler = &self.scheduler;
            let is_wanted = |it: &Nested| {
                let on = scheduler.processing_on(it.task);
                on.is_some_and(|(worker, attempt)| {
                    nodes[it.node].session == Some(worker) && nodes[it.node].attempt(it.thread) == Some(attempt)
                })
            };
            let (wanted, idle): (Vec<Nested>, Vec<Nested>) =
                std::mem::take(&mut self.nested).into_iter().partition(is_wanted);
            self.nested = wanted;
            if !idle.is_empty() {
                self.start_ticking();
            }
            for Nested { node, life, thread, .. } in idle {
                self.go_on(node, life, thread);
            }
        }
        self.agenda.pop_first()
    }

    /// Whether anything is going to happen but the passing of time, or because of that.
    fn is_busy(&self) -> bool {
        self.open > 0 || self.nodes.iter().any(SimNode::waits_for_time)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::WorkerSays { worker, batch } => self.worker_says(worker, &batch)?,
            Happening::WorkerHears { worker, batch, era } => self.worker_hears(worker, &batch, era)?,
            Happening::ClientSays { client, batch, era } if era == self.era => self.client_said(client, &batch)?,
            Happening::ClientSays { client, batch, .. } => self.deposed_hears_client(client, &batch)?,
            Happening::ClientHears { client, batch, era } => {
                self.client_hears(client, &batch, era)?;
                self.wake_nested();
            }
            Happening::WorkerIsUp { worker, era } => self.worker_is_up(worker, era)?,
            Happening::WorkerIsDown { worker } => {
                self.workers.remove(&worker);
                self.leaving.check_lost(&self.scheduler, worker, self.report.faults)?;
                self.acknowledged.lose_worker(worker);
                self.attempts.drop_at(worker, None);
                self.tell_scheduler(scheduler::Event::WorkerLost { worker })?;
            }
            Happening::ClientIsUp { client, era } => {
                let is_watcher = self.watcher.as_ref().is_some_and(|watcher| watcher.id == client);
                if era == self.era && (is_watcher || self.clients.contains_key(&client)) {
                    self.tell_scheduler(scheduler::Event::ClientJoined { client })?;
                }
            }
            Happening::ClientIsDown { client } => {
                self.scheduler_loses_client(client)?;
                self.wake_nested();
            }
            Happening::OldClientIsDown { client, era } => {
                if era == self.era {
                    self.scheduler_loses_client(client)?;
                }
            }
            Happening::Logged { era } if era == self.era => self.logged()?,
            Happening::Recovered { era } if era == self.era => self.recovered()?,
            Happening::Logged { .. } | Happening::Recovered { .. } => {}
            Happening::NodeRegisters { node } => self.register(node)?,
            Happening::NodeDeed { node, life, deed } => self.node_does(node, life, deed)?,
            Happening::NodePauses { node, is_paused } => {
                let now = self.node_time(node);
                self.nodes[node].set_paused(now, is_paused);
                self.after_node(node)?;
            }
            Happening::NodeWantsToLeave { node } => {
                if self.nodes[node].is_alive {
                    let now = self.node_time(node);
                    self.nodes[node].handle(now, worker::Event::LeaveWanted);
                    self.after_node(node)?;
                }
            }
            Happening::ClientActs { client } => self.client_acts(client)?,
            Happening::ClientFetches { client, task, from } => {
                self.client_fetches(client, task, from)?;
                self.wake_nested();
            }
            Happening::Fault => self.fault()?,
            Happening::DeposedActs { era } => self.deposed_acts(era)?,
            Happening::SchedulerTick => {
                self.tell_scheduler(scheduler::Event::Tick)?;
                if self.is_busy() {
                    self.at(scheduler::TICK_US, Happening::SchedulerTick);
                }
            }
            Happening::NodeTick { node } => {
                let now = self.nodes[node].clock.time(self.now);
                self.nodes[node].tick(now)?;
                self.after_node(node)?;
                if self.is_busy() {
                    self.at(worker::TICK_US, Happening::NodeTick { node });
                }
            }
        }
        Ok(())
    }

    /// How many times a message that may be doubled is taken now: the second one comes at once or, by `again`, later.
    fn takes(
        &mut self,
        may_be_doubled: bool,
        again: impl FnOnce(&mut Cluster) -> Result<(), String>,
    ) -> Result<u32, String> {
        if !may_be_doubled || self.is_healed || !self.rng.chance(self.plan.doubled) {
            return Ok(1);
        }
        self.report.count("doubled");
        if self.rng.chance(40) {
            return Ok(2);
        }
        again(self)?;
        Ok(1)
    }

    fn later(&mut self, happening: Happening) {
        let delay = self.rng.between(1, 20 * self.plan.delay_max_us);
        self.at(delay, happening);
    }

    fn worker_says(&mut self, worker: WorkerId, batch: &[u8]) -> Result<(), String> {
        if self.scheduler.worker(worker).is_none() {
            return self.deposed_hears_worker(worker, batch);
        }
        for message in decode::<FromWorker>(batch)? {
            let names_attempt = matches!(
                message,
                FromWorker::Finished { .. }
                    | FromWorker::Failed { .. }
                    | FromWorker::InputsMissing { .. }
                    | FromWorker::StealAnswer { .. }
                    | FromWorker::Suspended { .. }
                    | FromWorker::Resumed { .. }
            );
            let takes = self.takes(names_attempt, |cluster| {
                let batch = encode(&vec![&message])?;
                cluster.later(Happening::WorkerSays { worker, batch });
                Ok(())
            })?;
            if message == FromWorker::Leaving {
                self.leaving.ask(worker);
            }
            for _ in 0..takes {
                self.report.count(name_from_worker(&message));
                self.scheduler_hears_worker(worker, message.clone())?;
            }
        }
        Ok(())
    }

    fn scheduler_hears_worker(&mut self, worker: WorkerId, message: FromWorker) -> Result<(), String> {
        let node = self.workers.get(&worker).map(|node| &self.nodes[*node]);
        // Of a node that has gone since, it was so when it was said.
        let is_there = |task| node.is_none_or(|node| node.session != Some(worker) || node.store.contains_key(&task));
        self.acknowledged.hear_worker(worker, &message, is_there);
        self.attempts.hear(worker, &message);
        let is_there_for_scheduler = |cluster: &Cluster, task| cluster.scheduler.who_has(task).contains(&worker);
        match &message {
            FromWorker::Finished { task, attempt, inline, .. } => {
                let (task, is_inline) = (*task, inline.is_some());
                let is_taken = self.scheduler.processing_on(task) == Some((worker, *attempt));
                self.tell_scheduler(scheduler::Event::FromWorker { worker, message })?;
                if is_taken { self.task_has_ended(worker, task, is_inline) } else { Ok(()) }
            }
            FromWorker::Inventory(inventory) => {
                let tasks = inventory.outputs.iter().map(|output| output.0);
                let lacking: Vec<TaskId> = tasks.filter(|task| self.scheduler.who_has(*task).is_empty()).collect();
                self.tell_scheduler(scheduler::Event::FromWorker { worker, message })?;
                for task in lacking {
                    if is_there_for_scheduler(self, task) {
                        self.attempts.take_in(task);
                    }
                }
                Ok(())
            }
            FromWorker::Replica { task, .. } => {
                let task = *task;
                self.tell_scheduler(scheduler::Event::FromWorker { worker, message })?;
                if !is_there_for_scheduler(self, task) {
                    self.acknowledged.drop_holder(task, worker);
                }
                Ok(())
            }
            _ => self.tell_scheduler(scheduler::Event::FromWorker { worker, message }),
        }
    }

    /// The scheduler has taken it that a worker has run a task.
    fn task_has_ended(&mut self, worker: WorkerId, task: TaskId, is_inline: bool) -> Result<(), String> {
        self.attempts.finish(task);
        let node = self.workers.get(&worker).map(|node| &self.nodes[*node]);
        let Some(node) = node.filter(|node| node.session == Some(worker) && node.store.contains_key(&task)) else {
            return Ok(());
        };
        let (consumed, own) = self.attempts.count(node.origin(task))?;
        self.report.count_many("consumed", consumed);
        self.report.count_many("consumed-own", own);
        if is_inline { self.attempts.see(task, node.origin(task)) } else { Ok(()) }
    }

    /// The client's jobs are left, and what was acknowledged to it with them.
    fn scheduler_loses_client(&mut self, client: ClientId) -> Result<(), String> {
        let jobs = self.scheduler.jobs();
        jobs.iter().filter(|job| job.client == client).for_each(|job| self.acknowledged.leave(job.job));
        self.tell_scheduler(scheduler::Event::ClientLost { client })
    }

    fn worker_hears(&mut self, worker: WorkerId, batch: &[u8], era: u32) -> Result<(), String> {
        let Some(node) = self.workers.get(&worker).copied() else { return Ok(()) };
        for message in decode::<ToWorker>(batch)? {
            if self.nodes[node].session != Some(worker) {
                if era < self.era {
                    self.report.count("worker-was-told-late");
                }
                break;
            }
            self.terms.node_takes(node, era)?;
            let names_attempt =
                matches!(message, ToWorker::Compute(_) | ToWorker::Cancel { .. } | ToWorker::Steal { .. });
            let takes = self.takes(names_attempt, |cluster| {
                let batch = encode(&vec![&message])?;
                cluster.later(Happening::WorkerHears { worker, batch, era });
                Ok(())
            })?;
            for _ in 0..takes {
                let now = self.node_time(node);
                self.nodes[node].hear(now, message.clone());
                self.after_node(node)?;
            }
        }
        Ok(())
    }

    fn client_said(&mut self, client: ClientId, batch: &[u8]) -> Result<(), String> {
        for message in decode::<FromClient>(batch)? {
            // What a client says after its loss was noticed is ignored.
            let is_known = self.clients.contains_key(&client);
            // Nobody goes on with a job over a link that it has left for another.
            if !is_known && matches!(message, FromClient::Resume { .. }) {
                break;
            }
            match &message {
                FromClient::Scattered { job, values } if is_known => values.iter().for_each(|value| {
                    self.orphans.remove(&TaskId::new(*job, value.0));
                }),
                FromClient::Retire { workers, .. } => workers.iter().for_each(|worker| self.leaving.ask(*worker)),
                _ => {}
            }
            let may_be_doubled = matches!(
                message,
                FromClient::Release { .. } | FromClient::Cancel { .. } | FromClient::Unreachable { .. }
            );
            let takes = self.takes(may_be_doubled, |cluster| {
                if let FromClient::Unreachable { task, .. } = &message {
                    // The holders that it names may be good by then.
                    cluster.report.faults += 1;
                    if let Some(known) = cluster.clients.get_mut(&client) {
                        known.values.complain_again(task.index);
                    }
                }
                let (batch, era) = (encode(&vec![&message])?, cluster.era);
                cluster.later(Happening::ClientSays { client, batch, era });
                Ok(())
            })?;
            if takes > 1
                && let FromClient::Unreachable { task, .. } = &message
                && let Some(known) = self.clients.get_mut(&client)
            {
                known.values.complain_again(task.index);
            }
            for _ in 0..takes {
                self.scheduler_hears_client(client, message.clone())?;
            }
        }
        Ok(())
    }

    fn scheduler_hears_client(&mut self, client: ClientId, message: FromClient) -> Result<(), String> {
        if let FromClient::Explain { task, .. } = message {
            requests::check_explanation(&self.scheduler, &self.scheduler.explain(task))?;
        }
        let nodes = (&self.workers, &self.nodes);
        let is_there = |worker: WorkerId, task: TaskId| {
            let node = nodes.0.get(&worker).map(|node| &nodes.1[*node]);
            node.is_some_and(|node| node.session == Some(worker) && node.store.contains_key(&task))
        };
        self.acknowledged.hear_client(&message, is_there);
        let claimed = match &message {
            FromClient::Restore { tasks, .. } => self.claimed(tasks.iter().map(|spec| spec.task)),
            _ => Vec::new(),
        };
        let values: Vec<TaskId> = match &message {
            FromClient::Scattered { job, values } => values.iter().map(|value| TaskId::new(*job, value.0)).collect(),
            _ => Vec::new(),
        };
        let is_cancel = matches!(message, FromClient::Cancel { .. } | FromClient::CancelJob { .. });
        let cancelled = (is_cancel && self.clients.contains_key(&client)).then(|| message.clone());
        self.tell_scheduler(scheduler::Event::FromClient { client, message })?;
        let taken = values.into_iter().filter(|task| !self.scheduler.who_has(*task).is_empty());
        taken.for_each(|task| self.acknowledged.take_value(task));
        self.check_claimed(claimed)?;
        cancelled.map_or(Ok(()), |message| requests::check_cancelled(&self.scheduler, &message))
    }

    /// Of these tasks those that are not known yet and that workers have outputs of, with the last attempt of those.
    fn claimed(&self, tasks: impl Iterator<Item = TaskId>) -> Vec<(TaskId, Attempt, usize)> {
        let unknown = tasks.filter(|task| self.scheduler.state(*task) == TaskState::Forgotten);
        unknown
            .filter_map(|task| self.attempts.last_told(task).map(|(last, attempts)| (task, last, attempts)))
            .collect()
    }

    /// The scheduler takes up what clients have said so far.
    fn recovered(&mut self) -> Result<(), String> {
        let claimed = self.claimed(self.attempts.told().into_iter());
        self.tell_scheduler(scheduler::Event::Recovered)?;
        self.check_claimed(claimed)
    }

    fn check_claimed(&mut self, claimed: Vec<(TaskId, Attempt, usize)>) -> Result<(), String> {
        for (task, last, attempts) in claimed {
            let holders = self.scheduler.who_has(task);
            self.attempts.check_claimed(task, last, &holders)?;
            if !holders.is_empty() {
                self.report.count(if attempts > 1 { "claimed-last" } else { "claimed" });
            }
        }
        Ok(())
    }

    fn client_hears(&mut self, client: ClientId, batch: &[u8], era: u32) -> Result<(), String> {
        if let Some(watcher) = self.watcher.as_mut().filter(|watcher| watcher.id == client) {
            watcher.heard.extend(decode::<ToClient>(batch)?);
            return Ok(());
        }
        for message in decode::<ToClient>(batch)? {
            let Some(known) = self.clients.get_mut(&client) else {
                if era < self.era {
                    self.report.count("client-was-told-late");
                }
                break;
            };
            self.terms.client_takes(client, era)?;
            let opens = matches!(message, ToClient::JobOpened { .. });
            let wish = known.hear(message, &mut self.rng)?;
            self.grant(client, wish)?;
            if opens {
                self.at(1, Happening::ClientActs { client });
            }
        }
        Ok(())
    }

    fn worker_is_up(&mut self, worker: WorkerId, era: u32) -> Result<(), String> {
        let Some(node) = self.workers.get(&worker).copied().filter(|_| era == self.era) else { return Ok(()) };
        let info = self.nodes[node].info();
        self.tell_scheduler(scheduler::Event::WorkerJoined { worker, info })
    }

    /// Gives the scheduler an event and sends on what it wants said.
    pub(crate) fn tell_scheduler(&mut self, event: scheduler::Event) -> Result<(), String> {
        let mut effects = scheduler::Effects::default();
        let now = self.scheduler_time();
        self.scheduler.handle(now, event, &mut effects);
        // A debug build has checked by itself; of very many tasks the check is long.
        if !cfg!(debug_assertions) && (self.scheduler.counts().total() < 1_000 || self.report.events.is_multiple_of(16))
        {
            self.scheduler.check_invariants();
        }
        for entry in effects.to_log {
            self.propose(entry);
        }
        let mut to_workers: BTreeMap<WorkerId, Vec<ToWorker>> = BTreeMap::new();
        for (worker, message) in effects.to_workers {
            self.report.count(name_to_worker(&message));
            match &message {
                ToWorker::Compute(given) => {
                    resources::check_assignment(&self.scheduler, worker, given)?;
                    self.attempts.assign(given.task, worker);
                }
                ToWorker::Free { task, .. } => {
                    let clients = &self.clients;
                    let is_held = |task: TaskId| {
                        let owner = clients.values().find(|client| client.job() == Some(task.job));
                        let job = self.scheduler.jobs().into_iter().find(|job| job.job == task.job);
                        owner.is_some_and(|client| {
                            // What the ledger keeps may be taken up before its client has come.
                            let has_come = job.is_none_or(|job| job.client == client.id);
                            has_come && client.values.is_held(task.index)
                        })
                    };
                    if self.acknowledged.free(*task, worker, is_held) {
                        self.report.count("acknowledged-given-up-early");
                    }
                    self.attempts.drop_at(worker, Some(*task));
                }
                ToWorker::Leave => {
                    self.leaving.grant(&self.scheduler, worker, self.report.faults, self.era > 0)?;
                }
                _ => {}
            }
            to_workers.entry(worker).or_default().push(message);
        }
        for (worker, batch) in to_workers {
            let batch = encode(&batch)?;
            let era = self.era;
            self.send(Link::ToWorker(worker), Happening::WorkerHears { worker, batch, era });
        }
        let mut to_clients: BTreeMap<ClientId, Vec<ToClient>> = BTreeMap::new();
        for (client, message) in effects.to_clients {
            self.report.count(name_to_client(&message));
            self.check_said(client, &message)?;
            if let Some(name) = self.acknowledged.tell_client(&message) {
                self.report.count(name);
            }
            to_clients.entry(client).or_default().push(message);
        }
        for (client, batch) in to_clients {
            let batch = encode(&batch)?;
            let era = self.era;
            self.send(Link::ToClient(client), Happening::ClientHears { client, batch, era });
        }
        Ok(())
    }

    /// Whether what a client is told is true at the moment when it is said.
    fn check_said(&self, client: ClientId, message: &ToClient) -> Result<(), String> {
        match message {
            ToClient::Done { token, problem, .. } if problem.is_empty() => {
                let asked = self.clients.get(&client).and_then(|known| known.requests.get(*token));
                let Some(Asked::Retire(workers)) = asked else { return Ok(()) };
                let is_there = |worker: &&WorkerId| self.scheduler.worker(**worker).is_some();
                match workers.iter().filter(is_there).find(|worker| !self.leaving.is_granted(**worker)) {
                    Some(worker) => Err(format!("{worker:?} is said to have been let go, and was not")),
                    None => Ok(()),
                }
            }
            ToClient::Explained { explanation, .. } => requests::check_explanation(&self.scheduler, explanation),
            ToClient::Recomputing { task } if self.plan.is_calm && !self.leaving.has_lost() => {
                Err(format!("{task} is computed again, and nothing has failed"))
            }
            _ => Ok(()),
        }
    }

    /// Does what a node's machine wants done.
    pub(crate) fn after_node(&mut self, node: usize) -> Result<(), String> {
        let now = self.nodes[node].clock.time(self.now);
        let (said, deeds) = self.nodes[node].take_effects(now, &self.plan, &mut self.rng)?;
        if let Some(worker) = self.nodes[node].session.filter(|_| !said.is_empty()) {
            let batch = encode(&said)?;
            self.send(Link::FromWorker(worker), Happening::WorkerSays { worker, batch });
        }
        self.plan_deeds(node, deeds)?;
        if self.nodes[node].may_leave {
            self.leave(node);
        }
        Ok(())
    }

    fn plan_deeds(&mut self, node: usize, deeds: Vec<Due>) -> Result<(), String> {
        let life = self.nodes[node].life;
        for (delay, deed) in deeds {
            self.at(delay, Happening::NodeDeed { node, life, deed });
        }
        for (execution, inputs) in self.nodes[node].take_consumed() {
            self.attempts.take(execution, inputs);
        }
        Ok(())
    }

    /// A thread of the node may be free.
    fn begin(&mut self, node: usize) -> Result<(), String> {
        let deeds = self.nodes[node].begin(&self.plan, &mut self.rng)?;
        self.plan_deeds(node, deeds)
    }

    fn node_does(&mut self, node: usize, life: u32, deed: Deed) -> Result<(), String> {
        if self.nodes[node].life != life {
            return Ok(());
        }
        let delay = self.rng.between(1, self.plan.delay_max_us);
        let next = match deed {
            Deed::Ask { from, peer, tasks } => {
                let fails = if self.is_healed { 0 } else { self.plan.fetch_failures };
                let peer =
                    self.nodes.iter().position(|node| node.id() == peer).filter(|peer| self.nodes[*peer].is_alive);
                let values = tasks
                    .into_iter()
                    .map(|task| {
                        let value = peer.and_then(|peer| self.nodes[peer].serve(task));
                        if task.is_part() && value.is_some() {
                            self.report.count("part");
                        }
                        (task, value.filter(|_| !self.rng.chance(fails)))
                    })
                    .collect();
                Some(Deed::Store { from, values })
            }
            Deed::Store { from, values } => Some(self.nodes[node].store_fetched(from, values)),
            Deed::Compute { thread } => {
                let ended = self.nodes[node].compute(thread, &mut self.runs)?;
                self.begin(node)?;
                ended
            }
            Deed::Wait { thread, waits } => {
                let event = self.nodes[node].wait(thread, waits);
                self.begin(node)?;
                event
            }
            Deed::Nest { thread } => {
                let event = self.nodes[node].wait(thread, true);
                if let Some(task) = self.nodes[node].runs(thread) {
                    self.nest(node, thread, task);
                }
                self.begin(node)?;
                event
            }
            Deed::Report(events) => {
                for event in events {
                    if matches!(event, worker::Event::NoRoom { .. }) {
                        self.report.count("no-room");
                    }
                    let now = self.node_time(node);
                    self.nodes[node].handle(now, event);
                    self.after_node(node)?;
                }
                None
            }
        };
        if let Some(deed) = next {
            // The machine hears of what is in its store a little later.
            match deed {
                // In order, as from an inbox.
                Deed::Report(_) => self.send(Link::Within(node), Happening::NodeDeed { node, life, deed }),
                _ => self.at(delay, Happening::NodeDeed { node, life, deed }),
            }
        }
        Ok(())
    }

    /// A task has its client submit another one.
    fn nest(&mut self, node: usize, thread: Thread, task: TaskId) {
        let life = self.nodes[node].life;
        let client = self.clients.values_mut().find(|client| client.job() == Some(task.job));
        let submitted = client.and_then(|client| Some((client.id, client.submit_nested(&mut self.rng)?)));
        match submitted {
            Some((client, (awaited, message))) => {
                self.report.count("nested");
                self.client_says(client, vec![message]);
                self.nested.push(Nested { node, life, thread, task, client, awaited });
            }
            // Its client is gone, and with it the sense of what it does.
            None => self.go_on(node, life, thread),
        }
    }

    /// A client has another id.
    pub(crate) fn nested_of(&mut self, old: ClientId, new: ClientId) {
        self.nested.iter_mut().filter(|nested| nested.client == old).for_each(|nested| nested.client = new);
    }

    /// A task that has waited goes on, and ends a little later.
    fn go_on(&mut self, node: usize, life: u32, thread: Thread) {
        let delay = self.rng.between(1, self.plan.delay_max_us);
        self.at(delay, Happening::NodeDeed { node, life, deed: Deed::Wait { thread, waits: false } });
        let delay = delay + self.rng.between(1, self.plan.run_max_us);
        self.at(delay, Happening::NodeDeed { node, life, deed: Deed::Compute { thread } });
    }

    /// What waits for something that its client has now, or does not want any more, goes on.
    pub(crate) fn wake_nested(&mut self) {
        let clients = &self.clients;
        let is_over = |nested: &Nested| {
            clients.get(&nested.client).is_none_or(|client| client.values.is_resolved(nested.awaited))
        };
        let (over, waiting) = std::mem::take(&mut self.nested).into_iter().partition(is_over);
        self.nested = waiting;
        let over: Vec<Nested> = over;
        for Nested { node, life, thread, .. } in over {
            self.go_on(node, life, thread);
        }
    }

    fn register(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].session.is_some() {
            return Ok(());
        }
        let worker = WorkerId(self.workers_next);
        self.workers_next += 1;
        self.workers.insert(worker, node);
        let era = self.era;
        self.send(Link::FromWorker(worker), Happening::WorkerIsUp { worker, era });
        let now = self.node_time(node);
        self.nodes[node].register(now, worker);
        self.after_node(node)
    }

    pub(crate) fn connect_client(&mut self) {
        let id = ClientId(self.clients_next);
        self.clients_next += 1;
        let client = Client::new(id, &self.plan);
        let hello = client.hello();
        self.clients.insert(id, client);
        let era = self.era;
        self.send(Link::FromClient(id), Happening::ClientIsUp { client: id, era });
        self.client_says(id, vec![hello]);
    }

    pub(crate) fn client_says(&mut self, client: ClientId, messages: Vec<FromClient>) {
        if let Ok(batch) = encode(&messages) {
            let era = self.era;
            self.send(Link::FromClient(client), Happening::ClientSays { client, batch, era });
        }
    }

    fn client_acts(&mut self, id: ClientId) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        if client.actions_left == 0 {
            return Ok(());
        }
        for wish in client.act(&mut self.rng) {
            self.grant(id, Some(wish))?;
        }
        let pause = self.rng.between(1, 5 * self.plan.delay_max_us);
        self.at(pause, Happening::ClientActs { client: id });
        self.wake_nested();
        Ok(())
    }

    pub(crate) fn grant(&mut self, client: ClientId, wish: Option<Wish>) -> Result<(), String> {
        match wish {
            None => {}
            Some(Wish::Say(message)) => self.client_says(client, vec![message]),
            Some(Wish::Fetch(task, from)) => {
                let delay = self.rng.between(1, self.plan.delay_max_us);
                self.at(delay, Happening::ClientFetches { client, task, from });
            }
            Some(Wish::Put(task, value, workers)) => {
                for worker in workers {
                    let node = self.workers.get(&worker).copied();
                    if let Some(node) = node.filter(|node| self.nodes[*node].session == Some(worker)) {
                        self.orphans.insert(task);
                        let now = self.node_time(node);
                        self.nodes[node].put(now, task, value);
                        self.after_node(node)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn client_fetches(&mut self, client: ClientId, task: TaskId, from: WorkerId) -> Result<(), String> {
        let node = self.workers.get(&from).copied().filter(|node| self.nodes[*node].session == Some(from));
        let fails = if self.is_healed { 0 } else { self.plan.fetch_failures };
        let value = node.and_then(|node| self.nodes[node].store.get(&task).copied());
        let value = value.filter(|_| !self.rng.chance(fails));
        let Some(known) = self.clients.get_mut(&client) else { return Ok(()) };
        if let Some(node) = node.filter(|_| value.is_some() && known.values.is_held(task.index)) {
            self.attempts.see(task, self.nodes[node].origin(task))?;
        }
        let wish = known.fetched(task, from, value)?;
        self.grant(client, wish)
    }
}

pub(crate) fn new_scheduler(plan: &Plan, era: u32) -> Scheduler {
    let config = scheduler::Config {
        kinds: work::kinds(),
        allowed_failures: plan.allowed_failures,
        saturation_us: plan.saturation_us,
        tasks_max: plan.known_tasks_max,
        send_ahead: plan.sends_ahead,
        stealing: plan.steals,
    };
    Scheduler::new(config).in_term(Term(u64::from(era)))
}

/// A node's id by its number.
pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId([number; 32])
}

pub(crate) fn encode<T: Serialize>(batch: &Vec<T>) -> Result<Vec<u8>, String> {
    postcard::to_allocvec(batch).map_err(|error| format!("a batch cannot be encoded: {error}"))
}

pub(crate) fn decode<T: DeserializeOwned>(batch: &[u8]) -> Result<Vec<T>, String> {
    postcard::from_bytes(batch).map_err(|error| format!("a batch cannot be decoded: {error}"))
}
