//! Failed tasks that run again, because a client says so.

use crate::ids::{ClientId, TaskId};
use crate::wire::ToClient;

use super::record::State;
use super::{Effects, Scheduler};

impl Scheduler {
    /// Runs a client's failed tasks again, and with them whatever they need that has failed. Those that fail or are given up
    /// once more are told again. Other tasks that had failed because of the same input stay as they are.
    pub(super) fn on_retry(&mut self, client: ClientId, token: u64, tasks: Vec<TaskId>, effects: &mut Effects) {
        let mut failed = Vec::new();
        let mut stack: Vec<TaskId> = tasks.into_iter().filter(|task| self.is_of(client, task.job)).collect();
        while let Some(task) = stack.pop() {
            let Some(record) = self.jobs.get_mut(task) else { continue };
            if !matches!(record.state, State::Erred { .. }) {
                continue;
            }
            record.workers_lost = 0;
            stack.extend(record.inputs.iter().map(|input| TaskId::new(task.job, *input)));
            self.transition(task, State::Released, effects);
            failed.push(task);
        }
        // Whatever is said of them from here on is new.
        let moved = failed.len() as u64;
        effects.tell_client(client, ToClient::Done { token, moved, problem: String::new() });
        for task in failed {
            let Some(record) = self.jobs.get(task) else { continue };
            if record.keeps > 0 {
                self.tell_watchers(task, &ToClient::Recomputing { task }, effects);
            }
            if record.is_needed() {
                self.require(task, effects);
            } else {
                self.loose.push(task);
            }
        }
    }
}
