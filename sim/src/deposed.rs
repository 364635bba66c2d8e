//! A scheduler that does not know yet that another one leads: it hears what was on its way to it, notices losses, and says what
//! follows from that over the links that it had. All of that comes late, and changes nothing: those links are closed, the ledger
//! takes nothing from it.

use std::collections::BTreeMap;

use starling_core::ids::{ClientId, WorkerId};
use starling_core::scheduler::{Effects, Event, Scheduler};
use starling_core::wire::{FromClient, FromWorker, ToClient, ToWorker};

use crate::cluster::{Cluster, Happening, Link, decode, encode};

/// The scheduler of an earlier term.
#[derive(Debug)]
pub(crate) struct Deposed {
    pub(crate) scheduler: Scheduler,
    pub(crate) era: u32,
}

impl Cluster {
    /// The scheduler of this term leads no more, and does not know it for some time.
    pub(crate) fn depose(&mut self, scheduler: Scheduler) {
        let era = self.era;
        self.deposed = Some(Deposed { scheduler, era });
        for _ in 0..self.rng.below(6) {
            let delay = self.rng.between(1, 30 * self.plan.delay_max_us);
            self.at(delay, Happening::DeposedActs { era });
        }
    }

    /// It notices that somebody is gone, or that time passes.
    pub(crate) fn deposed_acts(&mut self, era: u32) -> Result<(), String> {
        let Some(deposed) = self.deposed.as_ref().filter(|deposed| deposed.era == era) else { return Ok(()) };
        let workers: Vec<WorkerId> = deposed.scheduler.workers().into_iter().map(|view| view.worker).collect();
        let clients: Vec<ClientId> = deposed.scheduler.jobs().into_iter().map(|view| view.client).collect();
        let event = match self.rng.below(4) {
            0 | 1 => self.rng.pick(&workers).map(|worker| Event::WorkerLost { worker: *worker }),
            2 => self.rng.pick(&clients).map(|client| Event::ClientLost { client: *client }),
            _ => Some(Event::Tick),
        };
        event.map_or(Ok(()), |event| self.tell_deposed(event))
    }

    pub(crate) fn deposed_hears_worker(&mut self, worker: WorkerId, batch: &[u8]) -> Result<(), String> {
        for message in decode::<FromWorker>(batch)? {
            if self.deposed.as_ref().is_some_and(|deposed| deposed.scheduler.worker(worker).is_some()) {
                self.tell_deposed(Event::FromWorker { worker, message })?;
            }
        }
        Ok(())
    }

    pub(crate) fn deposed_hears_client(&mut self, client: ClientId, batch: &[u8]) -> Result<(), String> {
        for message in decode::<FromClient>(batch)? {
            self.tell_deposed(Event::FromClient { client, message })?;
        }
        Ok(())
    }

    fn tell_deposed(&mut self, event: Event) -> Result<(), String> {
        let now = self.scheduler_time();
        let Some(deposed) = &mut self.deposed else { return Ok(()) };
        self.report.count("deposed");
        let era = deposed.era;
        let mut effects = Effects::default();
        deposed.scheduler.handle(now, event, &mut effects);
        for entry in std::mem::take(&mut effects.to_log) {
            let problem = "another scheduler leads".to_owned();
            deposed.scheduler.handle(now, Event::NotLogged { entry, problem }, &mut effects);
        }
        let mut to_workers: BTreeMap<WorkerId, Vec<ToWorker>> = BTreeMap::new();
        effects
            .to_workers
            .into_iter()
            .for_each(|(worker, message)| to_workers.entry(worker).or_default().push(message));
        for (worker, batch) in to_workers {
            let batch = encode(&batch)?;
            self.send(Link::ToWorker(worker), Happening::WorkerHears { worker, batch, era });
        }
        let mut to_clients: BTreeMap<ClientId, Vec<ToClient>> = BTreeMap::new();
        effects
            .to_clients
            .into_iter()
            .for_each(|(client, message)| to_clients.entry(client).or_default().push(message));
        for (client, batch) in to_clients {
            let batch = encode(&batch)?;
            self.send(Link::ToClient(client), Happening::ClientHears { client, batch, era });
        }
        Ok(())
    }
}
