//! How many tasks are known at a time.
//!
//! Beyond a limit, a client's further submissions are kept as they came and answered later, when tasks have been
//! forgotten. A client that waits for its answers (as ours does) then has only a bounded number of tasks on the way. The limit
//! gives way where it would stand in the way of all progress: when no task that is known has anything left to do.

use std::collections::VecDeque;

use crate::ids::{ClientId, JobId, TaskId};
use crate::wire::{FromClient, SubmitError, ToClient};

use super::{Effects, Scheduler, TaskState};

/// How many tasks of one client are kept beyond the limit before it is refused more.
pub(super) const KEPT_TASKS_MAX: usize = 1_000_000;

/// What a client has sent beyond the limit, in order.
#[derive(Debug, Default)]
pub(super) struct Kept {
    messages: VecDeque<FromClient>,
    tasks: usize,
}

fn tasks_in(message: &FromClient) -> usize {
    match message {
        FromClient::Submit { tasks, .. } => tasks.len(),
        FromClient::Scattered { values, .. } => values.len(),
        _ => 0,
    }
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn push(&mut self, message: FromClient) {
        self.tasks += tasks_in(&message);
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<FromClient> {
        let message = self.messages.pop_front()?;
        self.tasks -= tasks_in(&message);
        Some(message)
    }

    /// Marks a task that is kept as not wanted; says whether it is kept at all.
    pub(super) fn release(&mut self, task: TaskId) -> bool {
        let mut specs = self.messages.iter_mut().filter_map(|message| match message {
            FromClient::Submit { job, tasks, .. } if *job == task.job => Some(tasks),
            _ => None,
        });
        let is_in = |tasks: &&mut Vec<crate::spec::TaskSpec>| {
            tasks
                .first()
                .zip(tasks.last())
                .is_some_and(|(first, last)| (first.task.index..=last.task.index).contains(&task.index))
        };
        let Some(spec) = specs.find(is_in).and_then(|tasks| tasks.iter_mut().find(|spec| spec.task == task)) else {
            return false;
        };
        spec.options.wanted = false;
        true
    }
}

impl Scheduler {
    /// Whether so many more tasks are too many now.
    fn is_full(&self, more: usize) -> bool {
        self.tasks_max > 0 && self.live > 0 && self.live.saturating_add(more as u64) > self.tasks_max
    }

    /// Keeps a submission for later, if it cannot be taken now: then nothing is left of it here.
    pub(super) fn keep_for_later(
        &mut self,
        client: ClientId,
        message: FromClient,
        effects: &mut Effects,
    ) -> Option<FromClient> {
        let more = tasks_in(&message);
        let is_full = self.is_full(more) && self.has_progress();
        let kept = self.kept.entry(client).or_default();
        if kept.is_empty() && !is_full {
            self.kept.remove(&client);
            return Some(message);
        }
        if kept.tasks.saturating_add(more) > KEPT_TASKS_MAX {
            if let FromClient::Submit { token, .. } = message {
                let error = SubmitError::TooManyTasks { tasks_max: self.tasks_max };
                effects.tell_client(client, ToClient::Rejected { token, error });
            }
            return None;
        }
        kept.push(message);
        None
    }

    /// Whether something that is known is still to be done, and does not wait for what is kept here.
    fn has_progress(&self) -> bool {
        let counts = self.counts();
        let suspended: usize = self.pool.iter().map(|(_, worker)| worker.phases().1).sum();
        counts.get(TaskState::Queued) > 0 || counts.get(TaskState::Processing) > suspended as u64
    }

    /// Takes up what was kept, as far as there is room for it, or nothing else to do.
    pub(super) fn take_kept(&mut self, effects: &mut Effects) {
        while let Some((client, more)) = self.next_kept() {
            if self.is_full(more) && self.has_progress() {
                return;
            }
            let Some(kept) = self.kept.get_mut(&client) else { return };
            let message = kept.pop();
            if kept.is_empty() {
                self.kept.remove(&client);
            }
            match message {
                Some(FromClient::Submit { job, token, kinds, tasks }) => {
                    self.on_submit(client, job, token, &kinds, tasks, effects);
                }
                Some(FromClient::Scattered { job, values }) => self.on_scattered(client, job, values, effects),
                _ => {}
            }
            self.settle(effects);
            self.place_ready(effects);
            self.fill(effects);
        }
    }

    /// Whose turn it is, and how many tasks come with it.
    fn next_kept(&self) -> Option<(ClientId, usize)> {
        let (client, kept) = self.kept.iter().next()?;
        kept.messages.front().map(|message| (*client, tasks_in(message)))
    }

    /// A job that has been given up gets nothing of what is kept for it.
    pub(super) fn cancel_kept(&mut self, client: ClientId, job_id: JobId, effects: &mut Effects) {
        let Some(kept) = self.kept.remove(&client) else { return };
        for message in kept.messages {
            // Taken in order, so that the numbers go on; what is pending of it is cancelled with the rest.
            match message {
                FromClient::Submit { job, token, kinds, tasks } => {
                    self.on_submit(client, job, token, &kinds, tasks, effects);
                }
                FromClient::Scattered { job, values } => self.on_scattered(client, job, values, effects),
                _ => {}
            }
        }
        debug_assert!(self.jobs.job(job_id).is_none_or(|job| job.client == client));
    }
}
