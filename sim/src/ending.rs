//! How a run ends: everything is healed, what was promised must have come true, and what is let go must leave nothing.

use starling_core::ids::{ClientId, WorkerId};
use starling_core::scheduler::TaskState;
use starling_core::wire::FromClient;

use crate::check::{acknowledged_is_kept, registry_converges};
use crate::client::{Client, Wish};
use crate::cluster::{Cluster, Happening, LONG_US};

impl Cluster {
    /// Nothing goes wrong any more, and every node is there.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.is_healed = true;
        for node in 0..self.nodes.len() {
            self.at(0, Happening::NodeRegisters { node });
            self.at(0, Happening::NodePauses { node, is_paused: false });
        }
        self.run_until_quiet()?;
        // What nobody has asked for again is not waited for any more, and workers may leave that had some of it.
        self.now += LONG_US;
        self.run_and_fetch()
    }

    fn run_and_fetch(&mut self) -> Result<(), String> {
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

    /// What no node may ever run is all that can be open now. Its clients give it up.
    pub(crate) fn give_up_the_impossible(&mut self) -> Result<(), String> {
        // Further submissions may have waited for what is given up.
        for _ in 0..1_000 {
            let mut messages = Vec::new();
            for client in self.clients.values_mut() {
                if let Some((task, _)) =
                    client.unresolved().iter().find(|(task, _)| !client.values.is_blocked(task.index))
                {
                    return Err(format!("{task} has no outcome: {}", self.scheduler.explain(*task)));
                }
                messages.extend(client.cancel_stuck().map(|message| (client.id, message)));
            }
            if messages.is_empty() {
                return Ok(());
            }
            for (client, message) in messages {
                if let FromClient::Cancel { tasks } = &message {
                    for task in tasks {
                        let state = self.scheduler.state(*task);
                        if matches!(state, TaskState::Queued | TaskState::Processing | TaskState::Memory) {
                            return Err(format!("{task} can run nowhere and is {state:?}"));
                        }
                    }
                }
                self.report.count("given-up");
                self.client_says(client, vec![message]);
            }
            self.run_and_fetch()?;
        }
        Err("there is no end to what cannot be run".to_owned())
    }

    pub(crate) fn check_promises(&mut self) -> Result<(), String> {
        for client in self.clients.values() {
            client.check_answered()?;
            if let Some((task, _)) = client.unresolved().first() {
                let state = self.scheduler.state(*task);
                return Err(format!("{task} never had an outcome; the scheduler says {state:?}"));
            }
            self.report.tasks += client.tasks_len() as u64;
        }
        if let Some(nested) = self.nested.first() {
            return Err(format!("{} still waits for task {} of its client", nested.task, nested.awaited));
        }
        Ok(())
    }

    /// What clients were told of is there, and what the scheduler believes to be there is.
    pub(crate) fn check_where_things_are(&mut self) -> Result<(), String> {
        let node_of = |worker: WorkerId| {
            let node = self.workers.get(&worker)?;
            Some(&self.nodes[*node]).filter(|node| node.session == Some(worker))
        };
        let checked = acknowledged_is_kept::check(&self.scheduler, self.clients.values(), node_of)?;
        self.report.count_many("acknowledged", checked);
        // A node that lies is believed until somebody looks.
        if self.plan.lies == 0 {
            let checked = registry_converges::check(&self.scheduler, &self.nodes, |task| self.orphans.contains(&task))?;
            self.report.count_many("agreed", checked);
        }
        Ok(())
    }

    pub(crate) fn release_all(&mut self) -> Result<(), String> {
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in clients {
            if self.rng.chance(20) {
                self.gone.extend(self.clients.remove(&id));
                self.at(1, Happening::ClientIsDown { client: id });
            } else if let Some(message) = self.clients.get_mut(&id).and_then(Client::release_all) {
                self.client_says(id, vec![message]);
            }
        }
        self.run_until_quiet()
    }
}
