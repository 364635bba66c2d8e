//! How many tasks are known at a time.
//!
//! Beyond a limit, a client's further submissions are kept as they came and answered later, when tasks have been
//! forgotten. A client that waits for its answers (as ours does) then has only a bounded number of tasks on the way. The limit
//! gives way where it would stand in the way of all progress: when no task that is known has anything left to do, or all that
//! run wait for what their own submissions compute.
//!
//! What a client releases or gives up stays behind the submissions that it was said after, as far as it concerns them.

use std::collections::{BTreeSet, VecDeque};

use crate::fixed::FixedMap;
use crate::ids::{ClientId, JobId, TaskId};
use crate::wire::{FromClient, SubmitError, ToClient};

use super::record::Jobs;
use super::{Effects, Scheduler, TaskState};

/// How many tasks of one client are kept beyond the limit before it is refused more.
pub(super) const KEPT_TASKS_MAX: usize = 1_000_000;

/// What a client has sent beyond the limit, in order.
#[derive(Debug, Default)]
pub(super) struct Kept {
    messages: VecDeque<FromClient>,
    /// How many tasks the messages name.
    tasks: usize,
    /// How often the submissions name each task of an earlier one as an input.
    inputs: FixedMap<TaskId, u32>,
    /// The tasks that are given up as soon as they are known.
    given_up: BTreeSet<TaskId>,
}

/// How many tasks a message adds to those that are known.
fn new_tasks_in(message: &FromClient) -> usize {
    match message {
        FromClient::Submit { tasks, .. } => tasks.len(),
        FromClient::Scattered { values, .. } => values.len(),
        _ => 0,
    }
}

fn tasks_in(message: &FromClient) -> usize {
    match message {
        FromClient::Release { tasks } => tasks.len(),
        _ => new_tasks_in(message),
    }
}

/// The inputs that belong to earlier submissions, with multiplicity.
fn earlier_inputs(message: &FromClient) -> impl Iterator<Item = TaskId> + '_ {
    let submission = match message {
        FromClient::Submit { job, tasks, .. } => tasks.first().map(|first| (*job, first.task.index, tasks)),
        _ => None,
    };
    submission.into_iter().flat_map(|(job, first, tasks)| {
        let inputs = tasks.iter().flat_map(|spec| spec.inputs.iter().copied());
        inputs.filter(move |input| *input < first).map(move |input| TaskId::new(job, input))
    })
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn has_room_for(&self, tasks: usize) -> bool {
        self.tasks.saturating_add(self.given_up.len()).saturating_add(tasks) <= KEPT_TASKS_MAX
    }

    fn push(&mut self, message: FromClient) {
        self.tasks += tasks_in(&message);
        for input in earlier_inputs(&message) {
            *self.inputs.entry(input).or_default() += 1;
        }
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<FromClient> {
        let message = self.messages.pop_front()?;
        self.tasks -= tasks_in(&message);
        for input in earlier_inputs(&message) {
            if let Some(count) = self.inputs.get_mut(&input) {
                *count -= 1;
                if *count == 0 {
                    self.inputs.remove(&input);
                }
            }
        }
        Some(message)
    }

    /// The tasks of a submission that are given up, which are so once it is taken.
    fn take_given_up(&mut self, message: &FromClient) -> Vec<TaskId> {
        let FromClient::Submit { tasks, .. } = message else { return Vec::new() };
        let Some((first, last)) = tasks.first().zip(tasks.last()) else { return Vec::new() };
        if first.task > last.task {
            return Vec::new();
        }
        let given_up: Vec<TaskId> = self.given_up.range(first.task..=last.task).copied().collect();
        for task in &given_up {
            self.given_up.remove(task);
        }
        given_up
    }

    /// Whether this task is in a submission that is kept.
    pub(super) fn holds(&self, task: TaskId) -> bool {
        self.messages.iter().any(|message| match message {
            FromClient::Submit { tasks, .. } => {
                let ends = tasks.first().zip(tasks.last());
                ends.is_some_and(|(first, last)| (first.task..=last.task).contains(&task))
            }
            _ => false,
        })
    }

    /// Whether what comes next adds nothing.
    fn goes_on(&self) -> bool {
        self.messages.front().is_some_and(|message| new_tasks_in(message) == 0)
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
        let more = new_tasks_in(&message);
        let is_full = self.is_full(more) && self.has_progress();
        let kept = self.kept.entry(client).or_default();
        if kept.is_empty() && !is_full {
            self.kept.remove(&client);
            return Some(message);
        }
        if !kept.has_room_for(more) {
            if kept.is_empty() {
                self.kept.remove(&client);
            }
            if let FromClient::Submit { token, .. } = message {
                let error = SubmitError::TooManyTasks { tasks_max: self.tasks_max };
                effects.tell_client(client, ToClient::Rejected { token, error });
            }
            return None;
        }
        kept.push(message);
        None
    }

    /// Of what a client releases, what is released at once. The rest is kept itself, or an input of what is kept, and is
    /// released in turn.
    pub(super) fn release_later(&mut self, client: ClientId, tasks: Vec<TaskId>) -> Vec<TaskId> {
        let Some(kept) = self.kept.get_mut(&client).filter(|kept| kept.has_room_for(tasks.len())) else {
            return tasks;
        };
        let jobs = &self.jobs;
        let is_later = |task: &TaskId| is_to_come(jobs, *task) || kept.inputs.contains_key(task);
        let (later, now): (Vec<TaskId>, Vec<TaskId>) = tasks.into_iter().partition(is_later);
        if !later.is_empty() {
            kept.push(FromClient::Release { tasks: later });
        }
        now
    }

    /// Of what a client gives up, what is given up at once. The rest is kept, and is given up as soon as it is taken.
    pub(super) fn cancel_later(&mut self, client: ClientId, mut tasks: Vec<TaskId>) -> Vec<TaskId> {
        if let Some(kept) = self.kept.get_mut(&client).filter(|kept| kept.has_room_for(tasks.len())) {
            let jobs = &self.jobs;
            kept.given_up.extend(tasks.extract_if(.., |task| is_to_come(jobs, *task)));
        }
        tasks
    }

    /// Whether something that is known is still to be done, and will be without what is kept here. A task that waits inside
    /// may wait for just that; so may what was sent ahead of one, and what is queued for what one has.
    fn has_progress(&self) -> bool {
        let in_flight = self.pool.iter().any(|(_, worker)| worker.in_flight() > 0);
        in_flight || (self.counts().get(TaskState::Queued) > 0 && self.pool.iter().all(|(_, it)| it.phases().1 == 0))
    }

    /// Takes up what was kept, as far as there is room for it, or nothing else to do.
    pub(super) fn take_kept(&mut self, effects: &mut Effects) {
        while let Some((client, more)) = self.next_kept() {
            if more > 0 && self.is_full(more) && self.has_progress() {
                return;
            }
            let Some(kept) = self.kept.get_mut(&client) else { return };
            let message = kept.pop();
            let given_up = message.as_ref().map_or_else(Vec::new, |message| kept.take_given_up(message));
            // What adds nothing belongs to what was taken before it, and is not cut off from it by another's turn.
            let goes_on = kept.goes_on();
            if !goes_on {
                self.kept_last = client;
            }
            if kept.is_empty() {
                self.kept.remove(&client);
            }
            if let Some(message) = message {
                self.take_one(client, message, effects);
                // A submission that was refused had the numbers of the one that comes in its place.
                let (to_come, known) = given_up.into_iter().partition(|task| is_to_come(&self.jobs, *task));
                self.on_cancel(client, known, effects);
                if let Some(kept) = self.kept.get_mut(&client) {
                    kept.given_up.extend::<Vec<TaskId>>(to_come);
                }
            }
            // What is released right behind is not begun.
            if !goes_on {
                self.settle(effects);
                self.place_ready(effects);
                self.fill(effects);
            }
        }
    }

    fn take_one(&mut self, client: ClientId, message: FromClient, effects: &mut Effects) {
        match message {
            FromClient::Submit { job, token, kinds, tasks } => {
                self.on_submit(client, job, token, &kinds, tasks, effects);
            }
            FromClient::Scattered { job, values } => self.on_scattered(client, job, values, effects),
            FromClient::Release { tasks } => tasks.into_iter().for_each(|task| self.on_release(client, task)),
            _ => {}
        }
    }

    /// Whose turn it is, one client after the other, and how many tasks come with it.
    fn next_kept(&self) -> Option<(ClientId, usize)> {
        let after_last = (std::ops::Bound::Excluded(self.kept_last), std::ops::Bound::Unbounded);
        let (client, kept) = self.kept.range(after_last).next().or_else(|| self.kept.iter().next())?;
        kept.messages.front().map(|message| (*client, new_tasks_in(message)))
    }

    /// A client is gone, and with it what is kept of it. Nobody but the workers knows of the values that it has put there.
    pub(super) fn drop_kept(&mut self, client: ClientId, effects: &mut Effects) {
        let Some(kept) = self.kept.remove(&client) else { return };
        for message in kept.messages {
            let FromClient::Scattered { job, values } = message else { continue };
            for (index, _, workers) in values {
                let task = TaskId::new(job, index);
                if !self.is_of(client, job) || !is_to_come(&self.jobs, task) {
                    continue;
                }
                for slot in workers.into_iter().filter_map(|worker| self.pool.slot(worker)).collect::<Vec<_>>() {
                    self.tell_to_free(slot, task, effects);
                }
            }
        }
    }

    /// A job's client says all of it again: what was kept of it goes. The values that it has put on workers wait there.
    pub(super) fn hand_over_kept(&mut self, client: ClientId, job_id: JobId) {
        let Some(kept) = self.kept.remove(&client) else { return };
        let mut others = Kept::default();
        for message in kept.messages {
            match message {
                FromClient::Submit { job, .. } if job == job_id => {}
                FromClient::Scattered { job, values } if job == job_id => self.orphan_values(job_id, values),
                FromClient::Release { mut tasks } => {
                    tasks.retain(|task| task.job != job_id);
                    others.push(FromClient::Release { tasks });
                }
                other => others.push(other),
            }
        }
        others.given_up = kept.given_up.into_iter().filter(|task| task.job != job_id).collect();
        if !others.is_empty() {
            self.kept.insert(client, others);
        }
    }

    /// A job that has been given up gets nothing of what is kept for it.
    pub(super) fn cancel_kept(&mut self, client: ClientId, job_id: JobId, effects: &mut Effects) {
        let Some(kept) = self.kept.remove(&client) else { return };
        for message in kept.messages {
            // Taken in order, so that the numbers go on; what is pending of it is cancelled with the rest.
            self.take_one(client, message, effects);
        }
        debug_assert!(self.jobs.job(job_id).is_none_or(|job| job.client == client));
    }
}

/// Whether no task of this number has come to be known yet.
fn is_to_come(jobs: &Jobs, task: TaskId) -> bool {
    jobs.job(task.job).is_some_and(|job| task.index >= job.next_index)
}
