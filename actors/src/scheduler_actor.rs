//! The scheduler's actor: links in, the machine, links out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use serde::Serialize;
use starling_core::ids::{ClientId, NodeId, Time, WorkerId};
use starling_core::scheduler::{Effects, Event, Scheduler, TICK_US};
use starling_core::wire::{FromClient, FromWorker, ToClient, ToWorker, WorkerInfo};
use starling_runtime::recorder::Recorder;
use tokio::sync::oneshot;

use crate::host::Vital;
use crate::link::Outbox;

/// What reaches the scheduler's actor.
pub(crate) enum Input {
    /// A worker's link has been opened and found good.
    WorkerLink { info: WorkerInfo, outbox: Outbox<ToWorker>, welcome: oneshot::Sender<WorkerId> },
    /// Messages from a worker, in order.
    FromWorker { worker: WorkerId, messages: Vec<FromWorker> },
    /// A worker's link is closed.
    WorkerLinkClosed { worker: WorkerId },
    /// A client's link has been opened.
    ClientLink { outbox: Outbox<ToClient>, welcome: oneshot::Sender<ClientId> },
    /// Messages from a client, in order.
    FromClient { client: ClientId, messages: Vec<FromClient> },
    /// A client's link is closed.
    ClientLinkClosed { client: ClientId },
    /// Membership has declared a node dead, or it has left.
    NodeDown { node: NodeId },
}

pub(crate) struct SchedulerActor {
    machine: Scheduler,
    recorder: Option<Recorder>,
    started: Instant,
    workers: HashMap<WorkerId, WorkerLink>,
    clients: HashMap<ClientId, ClientLink>,
    /// The next ids; never used twice.
    next_worker: u32,
    next_client: u32,
    /// Reused from event to event.
    effects: Effects,
}

struct WorkerLink {
    node: NodeId,
    outbox: Outbox<ToWorker>,
    /// What is being gathered for the outbox. Empty between inputs, like a client's.
    unsent: Vec<ToWorker>,
}

struct ClientLink {
    outbox: Outbox<ToClient>,
    unsent: Vec<ToClient>,
}

/// For how many messages a list that is used again keeps its memory.
const UNSENT_KEPT_MAX: usize = 4_096;

impl SchedulerActor {
    pub(crate) fn new(machine: Scheduler, recorder: Option<Recorder>) -> SchedulerActor {
        SchedulerActor {
            machine,
            recorder,
            started: Instant::now(),
            workers: HashMap::new(),
            clients: HashMap::new(),
            next_worker: 0,
            next_client: 0,
            effects: Effects::default(),
        }
    }

    /// The time of the events that come together: asking the clock costs as much as a small event.
    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    fn event(&mut self, event: Event) {
        self.event_at(self.now(), event);
    }

    fn event_at(&mut self, now: Time, event: Event) {
        if let Some(recorder) = &self.recorder {
            recorder.record(now, &event);
        }
        self.machine.handle(now, event, &mut self.effects);
    }

    fn lose_worker(&mut self, worker: WorkerId, reason: &'static str) {
        if let Some(link) = self.workers.remove(&worker) {
            tracing::warn!(worker = worker.0, node = %link.node, reason, "worker lost");
            link.outbox.close();
            self.event(Event::WorkerLost { worker });
        }
    }
}

impl Vital for SchedulerActor {
    type Input = Input;
    const TICK: Option<Duration> = Some(Duration::from_micros(TICK_US));

    fn tick(&mut self) {
        self.event(Event::Tick);
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::WorkerLink { info, outbox, welcome } => {
                let worker = WorkerId(self.next_worker);
                // The one who waits has gone: so has the link.
                if welcome.send(worker).is_err() {
                    return;
                }
                self.next_worker += 1;
                tracing::info!(worker = worker.0, node = %info.node, name = %info.name, nthreads = info.nthreads, "worker joined");
                self.workers.insert(worker, WorkerLink { node: info.node, outbox, unsent: Vec::new() });
                self.event(Event::WorkerJoined { worker, info });
            }
            Input::FromWorker { worker, messages } => {
                let now = self.now();
                for message in messages {
                    self.event_at(now, Event::FromWorker { worker, message });
                }
            }
            Input::WorkerLinkClosed { worker } => self.lose_worker(worker, "its link is closed"),
            Input::ClientLink { outbox, welcome } => {
                let client = ClientId(self.next_client);
                if welcome.send(client).is_err() {
                    return;
                }
                self.next_client += 1;
                self.clients.insert(client, ClientLink { outbox, unsent: Vec::new() });
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
                    self.event(Event::ClientLost { client });
                }
            }
            Input::NodeDown { node } => {
                let on_it = self.workers.iter().filter(|(_, link)| link.node == node);
                let lost: Vec<WorkerId> = on_it.map(|(&worker, _)| worker).collect();
                for worker in lost {
                    self.lose_worker(worker, "its node is down");
                }
            }
        }
    }

    /// Sends what the machine wants sent, one batch a receiver. A receiver that cannot be reached is lost, which may
    /// give more to send.
    fn perform(&mut self) {
        while !self.effects.to_workers.is_empty() || !self.effects.to_clients.is_empty() {
            let lost_workers = send_grouped(&mut self.effects.to_workers, &mut self.workers);
            let lost_clients = send_grouped(&mut self.effects.to_clients, &mut self.clients);
            for worker in lost_workers {
                self.lose_worker(worker, "it does not read");
            }
            for client in lost_clients {
                self.input(Input::ClientLinkClosed { client });
            }
        }
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
