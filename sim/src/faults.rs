//! What goes wrong, and what else the world does to the nodes: memory that runs short, and nodes that leave.

use starling_core::failure::TaskFailure;
use starling_core::ids::{Attempt, ClientId, JobId, TaskId, WorkerId};
use starling_core::wire::{FromClient, FromWorker, WorkerStatus};

use crate::cluster::{Cluster, Happening, Link, encode};
use crate::plan::Plan;
use crate::work;

/// When the last of the troubles begins, in microseconds.
const TROUBLES_US: u64 = 60_000;

impl Cluster {
    /// Decides when things go wrong.
    pub(crate) fn plan_troubles(&mut self) {
        let Plan { crashes, link_losses, client_losses, client_link_losses, restarts, clock_jumps, lies, .. } =
            *self.plan;
        let Plan { pauses, leaves, .. } = *self.plan;
        for _ in 0..crashes + link_losses + client_losses + client_link_losses + restarts + clock_jumps + lies {
            let at = self.rng.below(TROUBLES_US);
            self.at(at, Happening::Fault);
        }
        for _ in 0..pauses {
            let (at, node) = (self.rng.below(TROUBLES_US), self.some_node());
            self.at(at, Happening::NodePauses { node, is_paused: true });
            let end = at + self.rng.between(1, TROUBLES_US);
            self.at(end, Happening::NodePauses { node, is_paused: false });
        }
        for _ in 0..leaves {
            let (at, node) = (self.rng.below(TROUBLES_US), self.some_node());
            self.at(at, Happening::NodeWantsToLeave { node });
        }
    }

    fn some_node(&mut self) -> usize {
        self.rng.below(self.nodes.len() as u64) as usize
    }

    /// One of the faults of the plan.
    pub(crate) fn fault(&mut self) -> Result<(), String> {
        self.report.faults += 1;
        let Plan { crashes, link_losses, client_losses, client_link_losses, restarts, clock_jumps, lies, .. } =
            *self.plan;
        let others = crashes + link_losses + client_losses + client_link_losses + restarts;
        let roll = self.rng.below(others + clock_jumps + lies);
        let node = self.some_node();
        if roll < crashes {
            self.crash(node);
            Ok(())
        } else if roll < crashes + link_losses {
            self.lose_link(node)
        } else if roll < crashes + link_losses + client_losses {
            self.lose_client();
            Ok(())
        } else if roll < crashes + link_losses + client_losses + client_link_losses {
            self.lose_client_link();
            Ok(())
        } else if roll < crashes + link_losses + client_losses + client_link_losses + restarts {
            self.fail_over()
        } else if roll < others + clock_jumps {
            self.jump_clock(node);
            Ok(())
        } else {
            self.lie(node)
        }
    }

    fn crash(&mut self, node: usize) {
        let session = self.nodes[node].crash(&self.plan, &mut self.rng);
        self.terms.node_crashes(node);
        self.after_loss(node, session);
    }

    fn lose_link(&mut self, node: usize) -> Result<(), String> {
        let session = self.lose_link_of(node);
        self.after_node(node)?;
        self.after_loss(node, session);
        Ok(())
    }

    pub(crate) fn lose_link_of(&mut self, node: usize) -> Option<WorkerId> {
        let now = self.node_time(node);
        self.nodes[node].lose_link(now)
    }

    /// A node that was let go ends. It may be started again.
    pub(crate) fn leave(&mut self, node: usize) {
        self.report.count("left");
        let session = self.nodes[node].crash(&self.plan, &mut self.rng);
        self.scheduler_will_hear(session);
        if self.is_healed || self.rng.chance(50) {
            let delay = self.rng.between(1, 20 * self.plan.delay_max_us);
            self.at(delay, Happening::NodeRegisters { node });
        }
    }

    /// The scheduler learns of a lost worker some time later, and the node comes back some time later: neither of
    /// them first by necessity.
    fn after_loss(&mut self, node: usize, session: Option<WorkerId>) {
        self.scheduler_will_hear(session);
        let delay = self.rng.between(1, 20 * self.plan.delay_max_us);
        self.at(delay, Happening::NodeRegisters { node });
    }

    fn scheduler_will_hear(&mut self, lost: Option<WorkerId>) {
        if let Some(worker) = lost {
            let delay = self.rng.between(1, 5 * self.plan.delay_max_us);
            self.at(delay, Happening::WorkerIsDown { worker });
        }
    }

    fn lose_client(&mut self) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        if let Some(client) = self.rng.pick(&ids).copied() {
            self.gone.extend(self.clients.remove(&client));
            let delay = self.rng.between(1, self.plan.delay_max_us);
            self.at(delay, Happening::ClientIsDown { client });
            self.connect_client();
        }
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
            let lie = match self.rng.below(5) {
                0 => FromClient::Release { tasks: vec![TaskId::new(job, task.index)] },
                1 => FromClient::Unreachable { task: TaskId::new(job, task.index), holders: vec![WorkerId(u32::MAX)] },
                2 => FromClient::Cancel { tasks: vec![TaskId::new(job, task.index)] },
                3 => FromClient::CancelJob { job },
                _ => FromClient::Scattered { job, values: vec![(u32::MAX, u64::MAX, vec![WorkerId(0)])] },
            };
            self.client_says(client, vec![lie]);
            return Ok(());
        }
        let Some(worker) = self.nodes[node].session else { return Ok(()) };
        let failure = TaskFailure { task, name: String::new(), node: None, cause: work::failure() };
        let lie = match self.rng.below(9) {
            0 => FromWorker::Replica { task, attempt, frees_heard: 0 },
            1 => FromWorker::Failed { task, attempt, failure },
            2 => FromWorker::InputsMissing { task, attempt, missing: vec![(task, [worker].into_iter().collect())] },
            3 => FromWorker::StealAnswer { task, attempt, given: true },
            4 => FromWorker::Suspended { task, attempt },
            5 => FromWorker::Resumed { task, attempt },
            6 => FromWorker::NotAcquired { task },
            7 => FromWorker::Status(WorkerStatus { memory_bytes: u64::MAX, ..WorkerStatus::default() }),
            _ => FromWorker::Finished { task, attempt, nbytes: u64::MAX, run_us: u64::MAX, inline: None },
        };
        let batch = encode(&vec![lie])?;
        self.send(Link::FromWorker(worker), Happening::WorkerSays { worker, batch });
        Ok(())
    }
}
