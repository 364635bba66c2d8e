//! A new leader: the scheduler dies, and the next one, of the next term, rebuilds from what survives. The ledger that a quorum
//! keeps, the nodes and what they have, the clients and what they hold.
//!
//! What was to go into the ledger and is not in it when the scheduler dies is in it or not, in order. Everybody loses the link, and
//! what was on the way; nodes register and clients resume some time later. The new scheduler waits for them for some time, which
//! may be too short.

use std::collections::VecDeque;

use starling_core::ids::{ClientId, JobId, Time};
use starling_core::ledger::{Entry, Ledger};
use starling_core::scheduler::{Event, Scheduler};

use crate::cluster::{Cluster, Happening, Link, new_scheduler};

/// What a quorum keeps.
#[derive(Debug)]
pub(crate) struct Quorum {
    pub(crate) ledger: Ledger,
    /// What is on its way into the ledger.
    proposed: VecDeque<Entry>,
}

impl Quorum {
    pub(crate) fn new() -> Quorum {
        let jobs_below = Scheduler::jobs_below(JobId(0));
        Quorum { ledger: Ledger { jobs_below, ..Ledger::default() }, proposed: VecDeque::new() }
    }
}

impl Cluster {
    /// The scheduler wants this in the ledger.
    pub(crate) fn propose(&mut self, entry: Entry) {
        self.report.count("proposed");
        self.quorum.proposed.push_back(entry);
        let era = self.era;
        self.send(Link::Ledger, Happening::Logged { era });
    }

    /// A quorum has taken the next entry.
    pub(crate) fn logged(&mut self) -> Result<(), String> {
        let Some(entry) = self.quorum.proposed.pop_front() else { return Ok(()) };
        self.quorum.ledger.apply(entry.clone());
        self.tell_scheduler(Event::Logged(entry))
    }

    /// The time as a node's machine is told of it, which may be earlier than what it was told before.
    pub(crate) fn node_time(&mut self, node: usize) -> Time {
        let (clock, now) = (self.nodes[node].clock, self.now);
        if self.slips() { clock.slipped(now, &mut self.rng) } else { clock.time(now) }
    }

    /// The time as the scheduler is told of it, which may be earlier than what it was told before.
    pub(crate) fn scheduler_time(&mut self) -> Time {
        let (clock, now) = (self.clock, self.now);
        if self.slips() { clock.slipped(now, &mut self.rng) } else { clock.time(now) }
    }

    fn slips(&mut self) -> bool {
        let slips = self.plan.clock_slips > 0 && !self.is_healed && self.rng.chance(self.plan.clock_slips);
        if slips {
            self.report.count("clock-slip");
        }
        slips
    }

    /// A clock jumps: the scheduler's or a node's.
    pub(crate) fn jump_clock(&mut self, node: usize) {
        self.report.count("clock-jump");
        if self.rng.chance(40) {
            self.clock.jump(&mut self.rng);
        } else {
            self.nodes[node].clock.jump(&mut self.rng);
        }
    }

    /// The scheduler dies, and another one takes over.
    pub(crate) fn fail_over(&mut self) -> Result<(), String> {
        self.report.count("fail-over");
        let taken = self.rng.below(self.quorum.proposed.len() as u64 + 1) as usize;
        for entry in self.quorum.proposed.drain(..).take(taken) {
            self.quorum.ledger.apply(entry);
        }
        let first = self.quorum.ledger.jobs_below;
        let next = new_scheduler(&self.plan, self.era + 1).first_job(first).recovering();
        let last = std::mem::replace(&mut self.scheduler, next);
        self.depose(last);
        self.era += 1;
        let kept: Vec<_> = self.quorum.ledger.kept.values().cloned().collect();
        self.quorum.ledger.apply(Entry::JobsBelow(Scheduler::jobs_below(first)));
        self.orphans.clear();
        self.acknowledged.lose_scheduler();
        self.attempts.begin_term();
        for kept in kept {
            self.tell_scheduler(Event::Restored(kept))?;
        }
        let patience = *self.rng.pick(&[5, 30, 100]).unwrap_or(&30) * self.plan.delay_max_us;
        let (era, delay) = (self.era, self.rng.between(1, patience));
        self.at(delay, Happening::Recovered { era });
        for node in 0..self.nodes.len() {
            let was_connected = self.lose_link_of(node).is_some();
            self.after_node(node)?;
            if was_connected {
                let delay = self.rng.between(1, 5 * self.plan.delay_max_us);
                self.at(delay, Happening::NodeRegisters { node });
            }
        }
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.reconnect(client);
        }
        Ok(())
    }

    /// A client has lost its link, to this scheduler or to the one before it, and connects anew: it goes on with its job.
    fn reconnect(&mut self, old: ClientId) {
        let Some(mut client) = self.clients.remove(&old) else { return };
        let id = ClientId(self.clients_next);
        self.clients_next += 1;
        let said = client.resume(id, &mut self.rng);
        self.clients.insert(id, client);
        self.nested_of(old, id);
        self.terms.client_is_now(old, id);
        let era = self.era;
        // Nothing arrives before it is there again.
        let pause = self.rng.between(1, 10 * self.plan.delay_max_us);
        self.links.insert(Link::FromClient(id), self.now + pause);
        self.send(Link::FromClient(id), Happening::ClientIsUp { client: id, era });
        self.client_says(id, said);
    }

    /// A client loses its link, and comes back before or after the scheduler notices.
    pub(crate) fn lose_client_link(&mut self) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        let Some(old) = self.rng.pick(&ids).copied() else { return };
        self.report.count("client-link");
        self.reconnect(old);
        let delay = self.rng.between(1, 60 * self.plan.delay_max_us);
        let era = self.era;
        self.at(delay, Happening::OldClientIsDown { client: old, era });
    }
}
