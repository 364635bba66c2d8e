//! What is kept without its client: in the end somebody asks for it, sees how every task of it has ended, and has it forgotten.

use std::collections::BTreeMap;

use starling_core::ids::{ClientId, TaskId};
use starling_core::scheduler;
use starling_core::wire::{FromClient, ToClient};

use crate::client::{Client, Keep};
use crate::cluster::{Cluster, Happening, Link};

/// Who looks at what is kept.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) id: ClientId,
    /// What it has been told since it looked last.
    pub(crate) heard: Vec<ToClient>,
}

impl Cluster {
    /// Whether everything that was promised to be kept is, with the right values; after that nothing is kept any more.
    pub(crate) fn check_kept(&mut self) -> Result<(), String> {
        let mut owners = std::mem::take(&mut self.gone);
        owners.extend(std::mem::take(&mut self.clients).into_values());
        let keeps: Vec<(usize, Keep)> = owners
            .iter()
            .enumerate()
            .flat_map(|(owner, client)| client.keeps.values().map(move |keep| (owner, keep.clone())))
            .collect();
        if keeps.is_empty() {
            return Ok(());
        }
        let id = ClientId(self.clients_next);
        self.clients_next += 1;
        self.watcher = Some(Watcher { id, heard: Vec::new() });
        let era = self.era;
        self.send(Link::FromClient(id), Happening::ClientIsUp { client: id, era });
        let ask = |token: usize, keep: &Keep| FromClient::Kept { token: token as u64, name: keep.name.clone() };
        let kept =
            self.asked_by_watcher(keeps.iter().enumerate().map(|(token, (_, keep))| ask(token, keep)).collect())?;
        let mut forgotten = Vec::new();
        for message in kept {
            let ToClient::Kept { token, tasks } = message else { continue };
            let Some((owner, keep)) = keeps.get(token as usize) else { continue };
            match tasks {
                // The same name may stand for what was asked for before.
                Some(tasks) if forgotten.iter().all(|(_, name)| *name != keep.name) => {
                    forgotten.push((token, keep.name.clone()));
                    self.check_ends(&mut owners[*owner], keep, tasks)?;
                }
                None if keep.is_promised => return Err(format!("{} was to be kept, and is not", keep.name)),
                _ => {}
            }
        }
        let count = forgotten.len();
        let messages = forgotten.into_iter().map(|(token, name)| FromClient::Forget { token, name }).collect();
        let answers = self.asked_by_watcher(messages)?;
        let is_done = |message: &&ToClient| matches!(message, ToClient::Done { problem, .. } if problem.is_empty());
        if answers.iter().filter(is_done).count() != count {
            return Err(format!("{count} things were to be forgotten: {answers:?}"));
        }
        self.tell_scheduler(scheduler::Event::ClientLost { client: id })?;
        self.run_until_quiet()
    }

    /// What the watcher is told after it has said this.
    fn asked_by_watcher(&mut self, messages: Vec<FromClient>) -> Result<Vec<ToClient>, String> {
        let Some(id) = self.watcher.as_ref().map(|watcher| watcher.id) else { return Ok(Vec::new()) };
        self.client_says(id, messages);
        self.run_until_quiet()?;
        Ok(self.watcher.as_mut().map(|watcher| std::mem::take(&mut watcher.heard)).unwrap_or_default())
    }

    /// Whether kept tasks have ended as they may: with their values, which are somewhere, or with failures that may be.
    fn check_ends(&mut self, owner: &mut Client, keep: &Keep, tasks: Vec<TaskId>) -> Result<(), String> {
        let wanted: Vec<u32> = tasks.iter().map(|task| task.index).collect();
        if keep.is_promised && wanted != keep.wanted {
            return Err(format!("{} is of {wanted:?} instead of {:?}", keep.name, keep.wanted));
        }
        let mut ends: BTreeMap<TaskId, ToClient> = BTreeMap::new();
        for message in self.asked_by_watcher(vec![FromClient::Watch { tasks: tasks.clone() }])? {
            if let ToClient::Finished { task, .. } | ToClient::Failed { task, .. } = &message {
                ends.insert(*task, message);
            }
        }
        for task in tasks {
            owner.values.release(task.index);
            match ends.get(&task) {
                Some(ToClient::Failed { failure, .. }) => {
                    owner.values.failed(task, failure).map_err(|error| format!("kept: {error}"))?;
                    self.report.count("kept-failed");
                }
                Some(_) => {
                    let holders = self.scheduler.who_has(task);
                    let value = owner.values.value(task.index);
                    let has_it = |node: &usize| self.nodes[*node].store.get(&task).copied() == value;
                    if value.is_none() || !holders.iter().filter_map(|holder| self.workers.get(holder)).any(has_it) {
                        return Err(format!("{task} is kept, and is not at {holders:?}"));
                    }
                    self.report.count("kept-there");
                }
                None if owner.values.is_blocked(task.index) => self.report.count("kept-stuck"),
                None => return Err(format!("{task} is kept, and never ends: {:?}", self.scheduler.state(task))),
            }
        }
        Ok(())
    }
}
