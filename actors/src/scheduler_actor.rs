//! The scheduler's actor: links in, the machine, links out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

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
    clients: HashMap<ClientId, Outbox<ToClient>>,
    /// The next ids; never used twice.
    next_worker: u32,
    next_client: u32,
    /// Reused from event to event.
    effects: Effects,
}

struct WorkerLink {
    node: NodeId,
    outbox: Outbox<ToWorker>,
}

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

    fn event(&mut self, event: Event) {
        let now = Time(self.started.elapsed().as_micros() as u64);
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
                self.workers.insert(worker, WorkerLink { node: info.node, outbox });
                self.event(Event::WorkerJoined { worker, info });
            }
            Input::FromWorker { worker, messages } => {
                for message in messages {
                    self.event(Event::FromWorker { worker, message });
                }
            }
            Input::WorkerLinkClosed { worker } => self.lose_worker(worker, "its link is closed"),
            Input::ClientLink { outbox, welcome } => {
                let client = ClientId(self.next_client);
                if welcome.send(client).is_err() {
                    return;
                }
                self.next_client += 1;
                self.clients.insert(client, outbox);
                self.event(Event::ClientJoined { client });
            }
            Input::FromClient { client, messages } => {
                for message in messages {
                    self.event(Event::FromClient { client, message });
                }
            }
            Input::ClientLinkClosed { client } => {
                if let Some(outbox) = self.clients.remove(&client) {
                    outbox.close();
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
            let to_workers = std::mem::take(&mut self.effects.to_workers);
            let workers = &self.workers;
            let lost_workers = send_grouped(to_workers, |worker| workers.get(worker).map(|link| link.outbox.clone()));
            let to_clients = std::mem::take(&mut self.effects.to_clients);
            let lost_clients = send_grouped(to_clients, |client| self.clients.get(client).cloned());
            for worker in lost_workers {
                self.lose_worker(worker, "it does not read");
            }
            for client in lost_clients {
                self.input(Input::ClientLinkClosed { client });
            }
        }
    }
}

/// Sends messages in their order to each receiver; gives the receivers that cannot be reached any more.
fn send_grouped<K, M>(messages: Vec<(K, M)>, outbox_of: impl Fn(&K) -> Option<Outbox<M>>) -> Vec<K>
where
    K: Copy + Eq + std::hash::Hash,
    M: serde::Serialize + Send + 'static,
{
    let mut groups: HashMap<K, Vec<M>> = HashMap::new();
    for (receiver, message) in messages {
        groups.entry(receiver).or_default().push(message);
    }
    let sent = groups.into_iter().filter_map(|(receiver, messages)| {
        let outbox = outbox_of(&receiver)?;
        outbox.send(messages).is_err().then_some(receiver)
    });
    sent.collect()
}
