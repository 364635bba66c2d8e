//! A whole cluster in one thread: the real machines, and around them everything that the world does to them, from one
//! seed.
//!
//! Messages of one link keep their order; those of different links do not. Messages are encoded on the way. A fetch
//! and an execution write to the store some time before their event reaches the machine, as in a real node. Faults come
//! at random until the cluster is healed; then everything that was promised must come true.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_core::failure::FailureCause;
use starling_core::ids::{Attempt, ClientId, JobId, NodeId, TaskId, Term, Time, WorkerId};
use starling_core::scheduler::{self, Scheduler};
use starling_core::wire::{FromClient, FromWorker, ResultAt, ToClient, ToWorker, WorkerStatus};
use starling_core::worker::Event;

use crate::client::{Client, Wish};
use crate::node::{Deed, Due, SimNode};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::work;

/// More happenings than this in one run mean that the cluster turns in a circle.
const HAPPENINGS_MAX: u64 = 3_000_000;

/// Something that is going to happen.
#[derive(Debug)]
enum Happening {
    WorkerSays { worker: WorkerId, batch: Vec<u8> },
    WorkerHears { worker: WorkerId, batch: Vec<u8> },
    ClientSays { client: ClientId, batch: Vec<u8>, era: u32 },
    ClientHears { client: ClientId, batch: Vec<u8> },
    WorkerIsUp { worker: WorkerId, era: u32 },
    WorkerIsDown { worker: WorkerId },
    ClientIsUp { client: ClientId, era: u32 },
    ClientIsDown { client: ClientId },
    NodeRegisters { node: usize },
    NodeDeed { node: usize, life: u32, deed: Deed },
    ClientActs { client: ClientId },
    ClientFetches { client: ClientId, task: TaskId, from: WorkerId },
    Fault,
}

/// The two ends of a link, in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    FromWorker(WorkerId),
    ToWorker(WorkerId),
    FromClient(ClientId),
    ToClient(ClientId),
}

/// What came of a run that went well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events that the machines handled.
    pub events: u64,
    /// Tasks that were submitted.
    pub tasks: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Messages by what they say: shows that a run went where it should go.
    pub said: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Adds another run's figures.
    pub fn add(&mut self, other: &Report) {
        self.events += other.events;
        self.tasks += other.tasks;
        self.faults += other.faults;
        for (name, count) in &other.said {
            *self.said.entry(name).or_default() += count;
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.said.entry(name).or_default() += 1;
    }
}

fn name_to_worker(message: &ToWorker) -> &'static str {
    match message {
        ToWorker::Worker { .. } => "peer",
        ToWorker::WorkerGone { .. } => "peer-gone",
        ToWorker::Compute(_) => "compute",
        ToWorker::Cancel { .. } => "cancel",
        ToWorker::Free { .. } => "free",
        ToWorker::Steal { .. } => "steal",
        ToWorker::Acquire { .. } => "acquire",
        ToWorker::Leave => "leave",
    }
}

fn name_from_worker(message: &FromWorker) -> &'static str {
    match message {
        FromWorker::Finished { .. } => "finished",
        FromWorker::Failed { .. } => "failed",
        FromWorker::InputsMissing { .. } => "inputs-missing",
        FromWorker::Replica { .. } => "replica",
        FromWorker::StealAnswer { given: true, .. } => "stolen",
        FromWorker::StealAnswer { given: false, .. } => "kept",
        FromWorker::Suspended { .. } => "suspended",
        FromWorker::Resumed { .. } => "resumed",
        FromWorker::NotAcquired { .. } => "not-acquired",
        FromWorker::Status(_) => "status",
        FromWorker::Leaving => "leaving",
    }
}

fn name_to_client(message: &ToClient) -> &'static str {
    match message {
        ToClient::Rejected { .. } => "rejected",
        ToClient::Recomputing { .. } => "recomputing",
        ToClient::Finished { result: ResultAt::Inline(_), .. } => "inline",
        ToClient::Failed { failure, .. } => match failure.cause {
            FailureCause::WorkersLost { .. } => "workers-lost",
            FailureCause::DataLost { .. } => "data-lost",
            FailureCause::TimedOut { .. } => "timed-out",
            _ => "task-failed",
        },
        _ => "other",
    }
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    rng: Rng,
    now: u64,
    sequence: u64,
    /// What happens when, and in which order at one time.
    agenda: BTreeMap<(u64, u64), Happening>,
    /// When the last message of a link arrives.
    links: BTreeMap<Link, u64>,
    scheduler: Scheduler,
    /// How often the scheduler has started.
    era: u32,
    nodes: Vec<SimNode>,
    /// Which node a worker id stands for, until the scheduler has heard that it is gone.
    workers: BTreeMap<WorkerId, usize>,
    workers_next: u32,
    clients: BTreeMap<ClientId, Client>,
    clients_next: u32,
    /// How often each task has run.
    runs: BTreeMap<TaskId, u8>,
    /// Values that a client has put into stores and that the scheduler has not heard of.
    orphans: BTreeMap<TaskId, ()>,
    is_healed: bool,
    report: Report,
}

impl Cluster {
    /// The cluster of a seed, before anything has happened.
    pub fn new(seed: u64) -> Cluster {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let nodes = (0..plan.nodes).map(|number| SimNode::new(number as u8, &plan, &mut rng)).collect();
        let mut cluster = Cluster {
            scheduler: new_scheduler(&plan, 0),
            plan,
            rng,
            now: 0,
            sequence: 0,
            agenda: BTreeMap::new(),
            links: BTreeMap::new(),
            era: 0,
            nodes,
            workers: BTreeMap::new(),
            workers_next: 0,
            clients: BTreeMap::new(),
            clients_next: 0,
            runs: BTreeMap::new(),
            orphans: BTreeMap::new(),
            is_healed: false,
            report: Report::default(),
        };
        cluster.prepare();
        cluster
    }

    fn prepare(&mut self) {
        for node in 0..self.nodes.len() {
            let at = if self.rng.chance(70) { self.rng.below(100) } else { self.rng.below(50_000) };
            self.at(at, Happening::NodeRegisters { node });
        }
        for _ in 0..self.plan.clients {
            self.connect_client();
        }
        let Plan { crashes, link_losses, client_losses, restarts, pauses, lies, .. } = self.plan;
        let faults = crashes + link_losses + client_losses + restarts + pauses + lies;
        for _ in 0..faults {
            let at = self.rng.below(60_000);
            self.at(at, Happening::Fault);
        }
    }

    /// Runs everything to its end. An error says which promise was broken.
    pub fn run(mut self) -> Result<Report, String> {
        self.run_until_quiet()?;
        self.heal()?;
        self.check_promises()?;
        self.release_all()?;
        self.check_empty()?;
        Ok(self.report)
    }

    fn at(&mut self, delay: u64, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((self.now + delay, self.sequence), happening);
    }

    /// Sends along a link: never before what was sent earlier.
    fn send(&mut self, link: Link, happening: Happening) {
        let due = self.now + self.rng.between(1, self.plan.delay_max_us);
        let last = self.links.entry(link).or_default();
        *last = due.max(*last);
        let delay = *last - self.now;
        self.at(delay, happening);
    }

    fn run_until_quiet(&mut self) -> Result<(), String> {
        while let Some(((time, _), happening)) = self.agenda.pop_first() {
            self.now = time;
            self.report.events += 1;
            if self.report.events > HAPPENINGS_MAX {
                return Err(format!("no end after {HAPPENINGS_MAX} happenings: {happening:?}"));
            }
            self.happen(happening)?;
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::WorkerSays { worker, batch } => {
                if self.scheduler.worker(worker).is_some() {
                    for message in decode::<FromWorker>(&batch)? {
                        self.report.count(name_from_worker(&message));
                        self.tell_scheduler(scheduler::Event::FromWorker { worker, message })?;
                    }
                }
            }
            Happening::WorkerHears { worker, batch } => {
                if let Some(node) = self.workers.get(&worker).copied()
                    && self.nodes[node].session == Some(worker)
                {
                    for message in decode::<ToWorker>(&batch)? {
                        self.nodes[node].hear(Time(self.now), message)?;
                        self.after_node(node)?;
                    }
                }
            }
            Happening::ClientSays { client, batch, era } => {
                if era == self.era {
                    for message in decode::<FromClient>(&batch)? {
                        // What a client says after its loss was noticed is ignored.
                        let is_known = self.clients.contains_key(&client);
                        if let FromClient::Scattered { job, values } = &message
                            && is_known
                        {
                            values.iter().for_each(|value| {
                                self.orphans.remove(&TaskId::new(*job, value.0));
                            });
                        }
                        self.tell_scheduler(scheduler::Event::FromClient { client, message })?;
                    }
                }
            }
            Happening::ClientHears { client, batch } => {
                for message in decode::<ToClient>(&batch)? {
                    let Some(known) = self.clients.get_mut(&client) else { break };
                    let opens = matches!(message, ToClient::JobOpened { .. });
                    let wish = known.hear(message, &mut self.rng)?;
                    self.grant(client, wish)?;
                    if opens {
                        self.at(1, Happening::ClientActs { client });
                    }
                }
            }
            Happening::WorkerIsUp { worker, era } => self.worker_is_up(worker, era)?,
            Happening::WorkerIsDown { worker } => {
                self.workers.remove(&worker);
                self.tell_scheduler(scheduler::Event::WorkerLost { worker })?;
            }
            Happening::ClientIsUp { client, era } => {
                if era == self.era && self.clients.contains_key(&client) {
                    self.tell_scheduler(scheduler::Event::ClientJoined { client })?;
                }
            }
            Happening::ClientIsDown { client } => self.tell_scheduler(scheduler::Event::ClientLost { client })?,
            Happening::NodeRegisters { node } => self.register(node),
            Happening::NodeDeed { node, life, deed } => self.node_does(node, life, deed)?,
            Happening::ClientActs { client } => self.client_acts(client)?,
            Happening::ClientFetches { client, task, from } => self.client_fetches(client, task, from)?,
            Happening::Fault => self.fault()?,
        }
        Ok(())
    }

    fn worker_is_up(&mut self, worker: WorkerId, era: u32) -> Result<(), String> {
        let Some(node) = self.workers.get(&worker).copied().filter(|_| era == self.era) else { return Ok(()) };
        let info = self.nodes[node].info();
        self.tell_scheduler(scheduler::Event::WorkerJoined { worker, info })
    }

    /// Gives the scheduler an event and sends on what it wants said.
    fn tell_scheduler(&mut self, event: scheduler::Event) -> Result<(), String> {
        let mut effects = scheduler::Effects::default();
        self.scheduler.handle(Time(self.now), event, &mut effects);
        // A debug build has checked after every event already, unless there are very many tasks.
        if !cfg!(debug_assertions) {
            self.scheduler.check_invariants();
        }
        let mut to_workers: BTreeMap<WorkerId, Vec<ToWorker>> = BTreeMap::new();
        for (worker, message) in effects.to_workers {
            self.report.count(name_to_worker(&message));
            to_workers.entry(worker).or_default().push(message);
        }
        for (worker, batch) in to_workers {
            let batch = encode(&batch)?;
            self.send(Link::ToWorker(worker), Happening::WorkerHears { worker, batch });
        }
        let mut to_clients: BTreeMap<ClientId, Vec<ToClient>> = BTreeMap::new();
        for (client, message) in effects.to_clients {
            self.report.count(name_to_client(&message));
            to_clients.entry(client).or_default().push(message);
        }
        for (client, batch) in to_clients {
            let batch = encode(&batch)?;
            self.send(Link::ToClient(client), Happening::ClientHears { client, batch });
        }
        Ok(())
    }

    /// Does what a node's machine wants done.
    fn after_node(&mut self, node: usize) -> Result<(), String> {
        let (said, deeds) = self.nodes[node].take_effects(Time(self.now), &self.plan, &mut self.rng)?;
        if let Some(worker) = self.nodes[node].session.filter(|_| !said.is_empty()) {
            let batch = encode(&said)?;
            self.send(Link::FromWorker(worker), Happening::WorkerSays { worker, batch });
        }
        self.plan_deeds(node, deeds);
        Ok(())
    }

    fn plan_deeds(&mut self, node: usize, deeds: Vec<Due>) {
        let life = self.nodes[node].life;
        for (delay, deed) in deeds {
            self.at(delay, Happening::NodeDeed { node, life, deed });
        }
    }

    /// A thread of the node may be free.
    fn begin(&mut self, node: usize) -> Result<(), String> {
        let deeds = self.nodes[node].begin(&self.plan, &mut self.rng)?;
        self.plan_deeds(node, deeds);
        Ok(())
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
                        let value = peer.and_then(|peer| self.nodes[peer].store.get(&task).copied());
                        (task, value.filter(|_| !self.rng.chance(fails)))
                    })
                    .collect();
                Some(Deed::Store { from, values })
            }
            Deed::Store { from, values } => Some(self.nodes[node].store_fetched(from, values)),
            Deed::Compute { task, attempt } => {
                let ended = self.nodes[node].compute(task, attempt, &mut self.runs)?;
                self.begin(node)?;
                ended
            }
            Deed::Wait { task, attempt, waits } => {
                let event = self.nodes[node].wait(task, attempt, waits);
                self.begin(node)?;
                event
            }
            Deed::Report(event) => {
                self.nodes[node].handle(Time(self.now), event);
                self.after_node(node)?;
                None
            }
        };
        if let Some(deed) = next {
            // The machine hears of what is in its store a little later.
            let delay = if matches!(deed, Deed::Report(_)) { delay / 10 } else { delay };
            self.at(delay, Happening::NodeDeed { node, life, deed });
        }
        Ok(())
    }

    fn register(&mut self, node: usize) {
        if self.nodes[node].session.is_some() {
            return;
        }
        let worker = WorkerId(self.workers_next);
        self.workers_next += 1;
        self.workers.insert(worker, node);
        self.nodes[node].is_alive = true;
        self.nodes[node].session = Some(worker);
        let era = self.era;
        self.send(Link::FromWorker(worker), Happening::WorkerIsUp { worker, era });
    }

    fn connect_client(&mut self) {
        let id = ClientId(self.clients_next);
        self.clients_next += 1;
        let client = Client::new(id, &self.plan);
        let hello = client.hello();
        self.clients.insert(id, client);
        let era = self.era;
        self.send(Link::FromClient(id), Happening::ClientIsUp { client: id, era });
        self.client_says(id, vec![hello]);
    }

    fn client_says(&mut self, client: ClientId, messages: Vec<FromClient>) {
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
        Ok(())
    }

    fn grant(&mut self, client: ClientId, wish: Option<Wish>) -> Result<(), String> {
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
                        self.orphans.insert(task, ());
                        self.nodes[node].put(Time(self.now), task, value);
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
        let wish = known.fetched(task, from, value)?;
        self.grant(client, wish)
    }

    /// One of the faults of the plan.
    fn fault(&mut self) -> Result<(), String> {
        self.report.faults += 1;
        let Plan { crashes, link_losses, client_losses, restarts, pauses, lies, .. } = self.plan;
        let roll = self.rng.below(crashes + link_losses + client_losses + restarts + pauses + lies);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        if roll < crashes {
            self.crash(node)
        } else if roll < crashes + link_losses {
            self.lose_link(node)
        } else if roll < crashes + link_losses + client_losses {
            self.lose_client();
            Ok(())
        } else if roll < crashes + link_losses + client_losses + restarts {
            self.restart_scheduler()
        } else if roll < crashes + link_losses + client_losses + restarts + pauses {
            self.pause(node);
            Ok(())
        } else {
            self.lie(node)
        }
    }

    fn crash(&mut self, node: usize) -> Result<(), String> {
        let session = self.nodes[node].crash(&self.plan, &mut self.rng);
        self.after_loss(node, session);
        Ok(())
    }

    fn lose_link(&mut self, node: usize) -> Result<(), String> {
        let session = self.nodes[node].lose_link(Time(self.now));
        self.after_node(node)?;
        self.after_loss(node, session);
        Ok(())
    }

    /// The scheduler learns of a lost worker some time later, and the node comes back some time later: neither of
    /// them first by necessity.
    fn after_loss(&mut self, node: usize, session: Option<WorkerId>) {
        if let Some(worker) = session {
            let delay = self.rng.between(1, 5 * self.plan.delay_max_us);
            self.at(delay, Happening::WorkerIsDown { worker });
        }
        let delay = self.rng.between(1, 20 * self.plan.delay_max_us);
        self.at(delay, Happening::NodeRegisters { node });
    }

    /// The worker's memory is short for a while.
    fn pause(&mut self, node: usize) {
        let status = |paused| Deed::Report(Event::Status(WorkerStatus { paused, ..WorkerStatus::default() }));
        let delay = self.rng.between(1, 50 * self.plan.delay_max_us);
        self.plan_deeds(node, vec![(0, status(true)), (delay, status(false))]);
    }

    fn lose_client(&mut self) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        if let Some(client) = self.rng.pick(&ids).copied() {
            self.clients.remove(&client);
            let delay = self.rng.between(1, self.plan.delay_max_us);
            self.at(delay, Happening::ClientIsDown { client });
            self.connect_client();
        }
    }

    /// The scheduler forgets everything and numbers its jobs from 0 again: the same ids now mean other tasks. What it
    /// has said may still arrive at a node, but only before the node notices.
    fn restart_scheduler(&mut self) -> Result<(), String> {
        self.era += 1;
        self.scheduler = new_scheduler(&self.plan, self.era);
        for node in 0..self.nodes.len() {
            let was_connected = self.nodes[node].lose_link(Time(self.now)).is_some();
            self.after_node(node)?;
            if was_connected {
                let delay = self.rng.between(1, 5 * self.plan.delay_max_us);
                self.at(delay, Happening::NodeRegisters { node });
            }
        }
        let clients = self.clients.len();
        self.clients.clear();
        self.orphans.clear();
        self.runs.clear();
        (0..clients).for_each(|_| self.connect_client());
        Ok(())
    }

    /// A peer says what nobody asked it for.
    fn lie(&mut self, node: usize) -> Result<(), String> {
        let task = TaskId::new(JobId(self.rng.below(4) as u32), self.rng.below(300) as u32);
        let attempt = Attempt(1_000_000 + self.rng.below(9) as u32);
        if self.rng.chance(30) {
            let clients: Vec<ClientId> = self.clients.keys().copied().collect();
            let Some(client) = self.rng.pick(&clients).copied() else { return Ok(()) };
            // A job that is none of its own.
            let job = JobId(1_000_000);
            let lie = match self.rng.below(3) {
                0 => FromClient::Release { tasks: vec![TaskId::new(job, task.index)] },
                1 => FromClient::Unreachable { task: TaskId::new(job, task.index), holders: vec![WorkerId(u32::MAX)] },
                _ => FromClient::Scattered { job, values: vec![(u32::MAX, u64::MAX, vec![WorkerId(0)])] },
            };
            self.client_says(client, vec![lie]);
            return Ok(());
        }
        let Some(worker) = self.nodes[node].session else { return Ok(()) };
        let failure =
            starling_core::failure::TaskFailure { task, name: String::new(), node: None, cause: work::failure() };
        let lie = match self.rng.below(4) {
            0 => FromWorker::Replica { task },
            1 => FromWorker::Failed { task, attempt, failure },
            2 => FromWorker::InputsMissing { task, attempt, missing: vec![(task, [worker].into_iter().collect())] },
            _ => FromWorker::Finished { task, attempt, nbytes: u64::MAX, run_us: u64::MAX, inline: None },
        };
        let batch = encode(&vec![lie])?;
        self.send(Link::FromWorker(worker), Happening::WorkerSays { worker, batch });
        Ok(())
    }

    /// Nothing goes wrong any more, and every node is there.
    fn heal(&mut self) -> Result<(), String> {
        self.is_healed = true;
        for node in 0..self.nodes.len() {
            self.at(0, Happening::NodeRegisters { node });
        }
        self.run_until_quiet()?;
        // What clients have put somewhere or were told of, and have not looked at yet.
        for _ in 0..1_000 {
            let mut wishes = Vec::new();
            for client in self.clients.values() {
                let open = client.unresolved().into_iter();
                wishes.extend(open.filter_map(|(task, from)| from.map(|from| (client.id, Wish::Fetch(task, from)))));
            }
            if wishes.is_empty() {
                return Ok(());
            }
            for (client, wish) in wishes {
                self.grant(client, Some(wish))?;
            }
            self.run_until_quiet()?;
        }
        Err("a client was sent from one holder to another for ever".to_owned())
    }

    fn check_promises(&mut self) -> Result<(), String> {
        for client in self.clients.values() {
            if !client.is_open() {
                return Err(format!("{:?} never got its job", client.id));
            }
            if client.unanswered() > 0 {
                return Err(format!("{:?} has {} submissions without an answer", client.id, client.unanswered()));
            }
            if let Some((task, _)) = client.unresolved().first() {
                let state = self.scheduler.state(*task);
                return Err(format!("{task} never had an outcome; the scheduler says {state:?}"));
            }
            self.report.tasks += client.tasks_len() as u64;
        }
        Ok(())
    }

    fn release_all(&mut self) -> Result<(), String> {
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in clients {
            if self.rng.chance(20) {
                self.clients.remove(&id);
                self.at(1, Happening::ClientIsDown { client: id });
            } else if let Some(message) = self.clients.get_mut(&id).and_then(Client::release_all) {
                self.client_says(id, vec![message]);
            }
        }
        self.run_until_quiet()
    }

    fn check_empty(&self) -> Result<(), String> {
        let left = self.scheduler.counts();
        if left.total() > 0 {
            return Err(format!("the scheduler still knows tasks: {left:?}"));
        }
        for node in &self.nodes {
            node.check_empty(|task| self.orphans.contains_key(&task))?;
        }
        Ok(())
    }
}

fn new_scheduler(plan: &Plan, era: u32) -> Scheduler {
    let config =
        scheduler::Config { kinds: work::kinds(), allowed_failures: plan.allowed_failures, ..Default::default() };
    Scheduler::new(config).in_term(Term(u64::from(era)))
}

/// A node's id by its number.
pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn encode<T: Serialize>(batch: &Vec<T>) -> Result<Vec<u8>, String> {
    postcard::to_allocvec(batch).map_err(|error| format!("a batch cannot be encoded: {error}"))
}

fn decode<T: DeserializeOwned>(batch: &[u8]) -> Result<Vec<T>, String> {
    postcard::from_bytes(batch).map_err(|error| format!("a batch cannot be decoded: {error}"))
}
