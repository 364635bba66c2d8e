//! The scheduler's actor: links in, the machine, links out; as long as its node holds office.
//!
//! In office it sends only what the quorum's clock lets it send: a process that was stopped for a while finds out before it
//! tells anybody anything. Out of office it has no machine and no links.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use starling_core::ids::{ClientId, NodeId, Term, Time, WorkerId};
use starling_core::ledger::{Entry, Kept};
use starling_core::record::Header;
use starling_core::scheduler::{Effects, Event, Scheduler, TICK_US};
use starling_core::wire::{FromClient, FromWorker, Inventory, ToClient, ToWorker, WorkerInfo};
use starling_quorum::Quorum;
use starling_runtime::inbox::Inbox;
use starling_runtime::recorder::{Recorder, Recording};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::host::Vital;
use crate::link::Outbox;

/// How long a new scheduler waits for the workers that the mesh knows, before it decides without them.
const RECOVERY: Duration = Duration::from_secs(2);
/// How long a client whose link is lost may take to come back, as long as its node is there.
const CLIENT_GRACE: Duration = Duration::from_secs(15);

/// What reaches the scheduler's actor.
pub(crate) enum Input {
    /// This node holds the scheduler from now on.
    TakeOffice(Box<TakeOffice>),
    /// It does not any more.
    LeaveOffice,
    /// An entry was taken into the ledger in this term, or not, and why.
    Logged { term: Term, entry: Entry, outcome: Result<(), String> },
    /// A worker's link has been opened and found good.
    WorkerLink { info: WorkerInfo, outbox: Outbox<ToWorker>, welcome: oneshot::Sender<(WorkerId, Term)> },
    /// Messages from a worker, in order.
    FromWorker { worker: WorkerId, messages: Vec<FromWorker> },
    /// A worker's link is closed.
    WorkerLinkClosed { worker: WorkerId },
    /// A client's link has been opened, from this node.
    ClientLink { node: NodeId, outbox: Outbox<ToClient>, welcome: oneshot::Sender<(ClientId, Term)> },
    /// Messages from a client, in order.
    FromClient { client: ClientId, messages: Vec<FromClient> },
    /// A client's link is closed.
    ClientLinkClosed { client: ClientId },
    /// Membership has declared a node dead, or it has left: then its clients do not come back.
    NodeDown { node: NodeId, has_left: bool },
}

/// What a scheduler begins with.
pub(crate) struct TakeOffice {
    pub(crate) header: Header,
    /// The term as the quorum counts it.
    pub(crate) of_quorum: Term,
    pub(crate) recording: Option<Recording>,
    /// What the ledger keeps.
    pub(crate) kept: Vec<Arc<Kept>>,
    /// The nodes whose workers are likely to come.
    pub(crate) expected: Vec<NodeId>,
    pub(crate) quorum: Quorum,
}

pub(crate) struct SchedulerActor {
    office: Option<Office>,
    /// To hear what came of entries for the ledger.
    inbox: Inbox<Input>,
    /// Where the quorum is asked.
    runtime: Handle,
    started: Instant,
    workers: HashMap<WorkerId, WorkerLink>,
    clients: HashMap<ClientId, ClientLink>,
    /// The clients whose link is lost: until when they may come back.
    parted: Vec<(Instant, ClientId, NodeId)>,
    /// The next ids; never used twice.
    next_worker: u32,
    next_client: u32,
    /// Reused from event to event.
    effects: Effects,
}

/// What this actor has while its node holds the scheduler.
struct Office {
    machine: Scheduler,
    recorder: Option<Recorder>,
    /// Ends with the office.
    _recording: Option<Recording>,
    term: Term,
    of_quorum: Term,
    quorum: Quorum,
    /// While it gathers what there is: whose workers have not said yet what they have, and when it ends at the latest.
    recovery: Option<(BTreeSet<NodeId>, Instant)>,
}

struct WorkerLink {
    node: NodeId,
    outbox: Outbox<ToWorker>,
    /// What is being gathered for the outbox. Empty between inputs, like a client's.
    unsent: Vec<ToWorker>,
}

struct ClientLink {
    node: NodeId,
    outbox: Outbox<ToClient>,
    unsent: Vec<ToClient>,
}

/// For how many messages a list that is used again keeps its memory.
const UNSENT_KEPT_MAX: usize = 4_096;

impl SchedulerActor {
    /// On the current tokio runtime.
    pub(crate) fn new(inbox: Inbox<Input>, runtime: Handle) -> SchedulerActor {
        SchedulerActor {
            office: None,
            inbox,
            runtime,
            started: Instant::now(),
            workers: HashMap::new(),
            clients: HashMap::new(),
            parted: Vec::new(),
            next_worker: 0,
            next_client: 0,
            effects: Effects::default(),
        }
    }

    fn take_office(&mut self, take: TakeOffice) {
        self.leave_office();
        let TakeOffice { header, of_quorum, recording, kept, expected, quorum } = take;
        let term = header.term;
        // Ids of an earlier scheduler mean nobody.
        self.next_worker = self.next_worker.max(WorkerId::first_of(term).0);
        self.started = Instant::now();
        let recovery = Some((expected.into_iter().collect(), Instant::now() + RECOVERY));
        self.office = Some(Office {
            machine: header.scheduler(),
            recorder: recording.as_ref().map(Recording::recorder),
            _recording: recording,
            term,
            of_quorum,
            quorum,
            recovery,
        });
        for kept in kept {
            self.event(Event::Restored(kept));
        }
        self.end_recovery_if_complete();
    }

    /// Nothing more is said to anybody.
    fn leave_office(&mut self) {
        self.office = None;
        self.workers.drain().for_each(|(_, link)| link.outbox.close());
        self.clients.drain().for_each(|(_, link)| link.outbox.close());
        self.parted.clear();
        self.effects = Effects::default();
    }

    /// The time of the events that come together: asking the clock costs as much as a small event.
    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    fn event(&mut self, event: Event) {
        self.event_at(self.now(), event);
    }

    fn event_at(&mut self, now: Time, event: Event) {
        let Some(office) = &mut self.office else { return };
        if let Some(recorder) = &office.recorder {
            recorder.record(now, &event);
        }
        office.machine.handle(now, event, &mut self.effects);
    }

    fn lose_worker(&mut self, worker: WorkerId, reason: &'static str) {
        if let Some(link) = self.workers.remove(&worker) {
            tracing::warn!(worker = worker.number(), node = %link.node, reason, "worker lost");
            link.outbox.close();
            self.event(Event::WorkerLost { worker });
        }
    }

    fn lose_client(&mut self, client: ClientId) {
        if let Some(link) = self.clients.remove(&client) {
            link.outbox.close();
        }
        self.event(Event::ClientLost { client });
    }

    /// Whoever was awaited has said what there is, or has had the time for it.
    fn end_recovery_if_complete(&mut self) {
        let Some(Office { recovery: Some((awaited, deadline)), .. }) = &self.office else { return };
        if !awaited.is_empty() && Instant::now() < *deadline {
            return;
        }
        if !awaited.is_empty() {
            tracing::warn!(workers = awaited.len(), "the job goes on without workers that have not come");
        }
        if let Some(office) = &mut self.office {
            office.recovery = None;
        }
        self.event(Event::Recovered);
    }

    fn heard_from(&mut self, node: NodeId) {
        if let Some(Office { recovery: Some((awaited, _)), .. }) = &mut self.office {
            awaited.remove(&node);
        }
    }

    fn on_node_down(&mut self, node: NodeId) {
        self.heard_from(node);
        let on_it = self.workers.iter().filter(|(_, link)| link.node == node);
        let lost: Vec<WorkerId> = on_it.map(|(&worker, _)| worker).collect();
        for worker in lost {
            self.lose_worker(worker, "its node is down");
        }
    }

    /// The clients of a node that has taken leave are gone for good, whether or not their links are known to be closed.
    fn on_node_left(&mut self, node: NodeId) {
        let parted = self.parted.extract_if(.., |(_, _, at)| *at == node).map(|(_, client, _)| client);
        let linked = self.clients.iter().filter(|(_, link)| link.node == node).map(|(client, _)| *client);
        let gone: Vec<ClientId> = parted.chain(linked).collect();
        gone.into_iter().for_each(|client| self.lose_client(client));
    }

    /// This node cannot be sure to lead any more, and says nothing. If it leads on in its term after all, as after a cluster was
    /// stopped as a whole, everybody finds it again; if not, it is told to leave office.
    fn fall_silent(&mut self) {
        let unsaid = std::mem::take(&mut self.effects);
        if let Some(office) = self.office.as_ref().filter(|_| !self.workers.is_empty() || !self.clients.is_empty()) {
            tracing::warn!(term = office.term.number(), "this node cannot be sure to lead any more: it says nothing");
        }
        for entry in unsaid.to_log {
            self.event(Event::NotLogged { entry, problem: "the scheduler could not be sure to lead".to_owned() });
        }
        let until = Instant::now() + CLIENT_GRACE;
        for (client, link) in self.clients.drain() {
            link.outbox.close();
            self.parted.push((until, client, link.node));
        }
        let workers: Vec<(WorkerId, WorkerLink)> = self.workers.drain().collect();
        for (worker, link) in workers {
            link.outbox.close();
            self.event(Event::WorkerLost { worker });
        }
        // Nobody is there to hear what followed from that.
        self.effects = Effects::default();
    }

    /// Whether this node may speak as the scheduler now.
    fn still_leads(&mut self) -> bool {
        let Some(office) = &self.office else { return false };
        if office.quorum.still_leads() == Some(office.of_quorum) {
            return true;
        }
        self.fall_silent();
        false
    }

    /// Has the quorum take entries into the ledger, one after the other.
    fn log(&mut self) {
        let Some(office) = &self.office else { return };
        if self.effects.to_log.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.effects.to_log);
        let (term, quorum, inbox) = (office.term, office.quorum.clone(), self.inbox.clone());
        self.runtime.spawn(async move {
            for entry in entries {
                let outcome = quorum.propose(entry.clone()).await.map_err(|error| error.to_string());
                inbox.push(Input::Logged { term, entry, outcome });
            }
        });
    }
}

impl Vital for SchedulerActor {
    type Input = Input;
    const TICK: Option<Duration> = Some(Duration::from_micros(TICK_US));

    fn tick(&mut self) {
        if self.office.is_none() || !self.still_leads() {
            return;
        }
        let now = Instant::now();
        let gone: Vec<ClientId> =
            self.parted.extract_if(.., |(until, ..)| *until <= now).map(|(_, client, _)| client).collect();
        gone.into_iter().for_each(|client| self.lose_client(client));
        self.event(Event::Tick);
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::TakeOffice(take) => self.take_office(*take),
            Input::LeaveOffice => self.leave_office(),
            Input::Logged { term, entry, outcome } => {
                if self.office.as_ref().is_some_and(|office| office.term == term) {
                    self.event(match outcome {
                        Ok(()) => Event::Logged(entry),
                        Err(problem) => Event::NotLogged { entry, problem },
                    });
                }
            }
            Input::WorkerLink { info, outbox, welcome } => {
                let Some(term) = self.office.as_ref().map(|office| office.term) else { return };
                let worker = WorkerId(self.next_worker);
                // The one who waits has gone: so has the link.
                if welcome.send((worker, term)).is_err() {
                    return;
                }
                self.next_worker += 1;
                tracing::info!(worker = worker.number(), node = %info.node, name = %info.name, nthreads = info.nthreads, "worker joined");
                self.workers.insert(worker, WorkerLink { node: info.node, outbox, unsent: Vec::new() });
                self.event(Event::WorkerJoined { worker, info });
            }
            Input::FromWorker { worker, messages } => {
                let now = self.now();
                for message in messages {
                    let is_all = matches!(&message, FromWorker::Inventory(Inventory { is_last: true, .. }));
                    self.event_at(now, Event::FromWorker { worker, message });
                    if let Some(node) = self.workers.get(&worker).map(|link| link.node).filter(|_| is_all) {
                        self.heard_from(node);
                    }
                }
            }
            Input::WorkerLinkClosed { worker } => self.lose_worker(worker, "its link is closed"),
            Input::ClientLink { node, outbox, welcome } => {
                let Some(term) = self.office.as_ref().map(|office| office.term) else { return };
                let client = ClientId(self.next_client);
                if welcome.send((client, term)).is_err() {
                    return;
                }
                self.next_client += 1;
                self.clients.insert(client, ClientLink { node, outbox, unsent: Vec::new() });
                self.event(Event::ClientJoined { client });
            }
            Input::FromClient { client, messages } => {
                let now = self.now();
                for message in messages {
                    self.event_at(now, Event::FromClient { client, message });
                }
            }
            Input::ClientLinkClosed { client } => {
                if let Some(link) = self.clients.remove(&client) {
                    link.outbox.close();
                    self.parted.push((Instant::now() + CLIENT_GRACE, client, link.node));
                }
            }
            Input::NodeDown { node, has_left } => {
                self.on_node_down(node);
                if has_left {
                    self.on_node_left(node);
                }
            }
        }
    }

    /// Sends what the machine wants sent, one batch a receiver. A receiver that cannot be reached is lost, which may
    /// give more to send.
    fn perform(&mut self) {
        self.end_recovery_if_complete();
        while !self.effects.to_workers.is_empty() || !self.effects.to_clients.is_empty() {
            if !self.still_leads() {
                return;
            }
            let lost_workers = send_grouped(&mut self.effects.to_workers, &mut self.workers);
            let lost_clients = send_grouped(&mut self.effects.to_clients, &mut self.clients);
            for worker in lost_workers {
                self.lose_worker(worker, "it does not read");
            }
            for client in lost_clients {
                self.input(Input::ClientLinkClosed { client });
            }
        }
        self.log();
    }
}

/// A link to which messages are gathered before they are sent.
trait Gathers<M> {
    fn parts(&mut self) -> (&Outbox<M>, &mut Vec<M>);
}

impl Gathers<ToWorker> for WorkerLink {
    fn parts(&mut self) -> (&Outbox<ToWorker>, &mut Vec<ToWorker>) {
        (&self.outbox, &mut self.unsent)
    }
}

impl Gathers<ToClient> for ClientLink {
    fn parts(&mut self) -> (&Outbox<ToClient>, &mut Vec<ToClient>) {
        (&self.outbox, &mut self.unsent)
    }
}

/// Sends messages in their order to each receiver; gives the receivers that cannot be reached any more. All lists are left
/// empty and keep their memory, unless they were very long.
fn send_grouped<K: Copy + Eq + Hash, M: Serialize + Send + 'static>(
    messages: &mut Vec<(K, M)>,
    links: &mut HashMap<K, impl Gathers<M>>,
) -> Vec<K> {
    let mut receivers: Vec<K> = Vec::new();
    for (receiver, message) in messages.drain(..) {
        let Some(link) = links.get_mut(&receiver) else { continue };
        let (_, unsent) = link.parts();
        if unsent.is_empty() {
            receivers.push(receiver);
        }
        unsent.push(message);
    }
    messages.shrink_to(UNSENT_KEPT_MAX);
    receivers.retain(|receiver| {
        let Some(link) = links.get_mut(receiver) else { return false };
        let (outbox, unsent) = link.parts();
        let sent = outbox.send(unsent.drain(..));
        unsent.clear();
        unsent.shrink_to(UNSENT_KEPT_MAX);
        sent.is_err()
    });
    receivers
}
