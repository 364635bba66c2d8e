//! Clients that join, leave, and say things.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::failure::{FailureCause, TaskFailure};
use crate::graph::GraphError;
use crate::ids::{ClientId, JobId, KindId, TaskId, WorkerId};
use crate::order::depth_first;
use crate::spec::TaskSpec;
use crate::wire::{FromClient, KindInfo, Priority, ResultAt, SubmitError, ToClient};

use super::ahead;
use super::classes::{self, ClassId};
use super::pool::{NBYTES_MAX, Slot};
use super::record::{Job, QueuedAt, Record, State};
use super::recover::Pieces;
use super::{Effects, Scheduler};

impl Scheduler {
    pub(super) fn on_client_joined(&mut self, client: ClientId, effects: &mut Effects) {
        if self.clients.contains_key(&client) {
            return;
        }
        self.clients.insert(client, Vec::new());
        for (_, worker) in self.pool.iter() {
            effects.tell_client(client, ToClient::Worker { worker: worker.id, info: worker.info.clone() });
        }
    }

    pub(super) fn on_client_lost(&mut self, client: ClientId, effects: &mut Effects) {
        self.drop_kept(client, effects);
        self.drop_requests(client);
        self.stop_watching(client);
        self.end_task_stream(client);
        self.recovery.forget_client(client);
        for job in self.clients.remove(&client).unwrap_or_default() {
            self.leave_job(job, effects);
        }
    }

    /// Drops a job with all its tasks. Inputs are of the same job, so nothing outside of it can need them.
    pub(super) fn close_job(&mut self, job_id: JobId, effects: &mut Effects) {
        let Some(indices) = self.jobs.job(job_id).map(|job| job.iter().map(|(index, _)| index).collect::<Vec<_>>())
        else {
            return;
        };
        for index in indices {
            self.transition(TaskId::new(job_id, index), State::Released, effects);
            if let Some(record) = self.jobs.get(TaskId::new(job_id, index)) {
                self.attempts_closed = self.attempts_closed.max(record.attempt);
                self.classes.leave(record.class);
            }
            self.live -= 1;
        }
        self.jobs.close(job_id);
        self.give_up_restoring(job_id);
        self.leave_orphans_of(job_id, effects);
    }

    pub(super) fn on_client_message(&mut self, client: ClientId, message: FromClient, effects: &mut Effects) {
        if !self.clients.contains_key(&client) {
            return;
        }
        let now = if self.recovery.is_idle() { Some(message) } else { self.defer(client, message, effects) };
        let Some(message) = now else { return };
        match message {
            FromClient::OpenJob { name, token } => {
                let job = self.jobs.open(Job::new(client, name));
                self.clients.entry(client).or_default().push(job);
                effects.tell_client(client, ToClient::JobOpened { token, job, term: self.term });
                self.reserve_jobs(effects);
            }
            FromClient::Submit { .. } | FromClient::Scattered { .. } => {
                match self.keep_for_later(client, message, effects) {
                    Some(FromClient::Submit { job, token, kinds, tasks }) => {
                        self.on_submit(client, job, token, &kinds, tasks, effects);
                    }
                    Some(FromClient::Scattered { job, values }) => self.on_scattered(client, job, values, effects),
                    _ => {}
                }
            }
            FromClient::Resume { token, job, name } => self.on_resume(client, token, job, name, effects),
            FromClient::Restore { job, token, tasks, values, failed, end } => {
                self.on_restore(client, job, token, Pieces { tasks, values, failed }, end, effects);
            }
            FromClient::Keep { token, name, job, wanted } => self.on_keep(client, token, name, job, wanted, effects),
            FromClient::Forget { token, name } => self.on_forget(client, token, name, effects),
            FromClient::Jobs { token } => effects.tell_client(client, ToClient::Jobs { token, jobs: self.summaries() }),
            FromClient::Kept { token, name } => {
                let tasks = self.kept_tasks(&name);
                effects.tell_client(client, ToClient::Kept { token, tasks });
            }
            FromClient::Watch { tasks } => self.on_watch(client, &tasks, effects),
            FromClient::Release { tasks } => {
                for task in self.release_later(client, tasks) {
                    self.on_release(client, task);
                }
            }
            FromClient::WhoHas { token, tasks } => {
                let holders = tasks.into_iter().filter_map(|task| self.holders_for(client, task)).collect();
                effects.tell_client(client, ToClient::WhoHas { token, holders });
            }
            FromClient::Cancel { tasks } => {
                let tasks = self.cancel_later(client, tasks);
                self.on_cancel(client, tasks, effects);
            }
            FromClient::CancelJob { job } => {
                if self.is_of(client, job) {
                    self.cancel_kept(client, job, effects);
                    self.cancel_job(job, effects);
                }
            }
            FromClient::Retry { token, tasks } => self.on_retry(client, token, tasks, effects),
            FromClient::Query { token, query } => {
                let report = self.report(&query);
                effects.tell_client(client, ToClient::Report { token, report });
            }
            FromClient::TaskStream { token, since } => self.on_task_stream(client, token, since, effects),
            FromClient::EndTaskStream => self.end_task_stream(client),
            FromClient::Explain { token, task } => {
                let explanation = self.explain(task);
                effects.tell_client(client, ToClient::Explained { token, explanation });
            }
            FromClient::Replicate { token, tasks, copies } => self.on_replicate(client, token, tasks, copies, effects),
            FromClient::Rebalance { token } => self.on_rebalance(client, token, effects),
            FromClient::Retire { token, workers } => self.on_retire(client, token, &workers, effects),
            FromClient::Unreachable { task, holders } => self.on_unreachable(client, task, &holders, effects),
        }
    }

    pub(super) fn on_submit(
        &mut self,
        client: ClientId,
        job: JobId,
        token: u64,
        kinds: &[KindInfo],
        tasks: Vec<TaskSpec>,
        effects: &mut Effects,
    ) {
        match self.check_submission(client, job, kinds, &tasks) {
            Err(error) => effects.tell_client(client, ToClient::Rejected { token, error }),
            Ok(kinds) => {
                effects.tell_client(client, ToClient::Accepted { token });
                self.take_submission(job, tasks, &kinds, effects);
            }
        }
    }

    pub(super) fn on_cancel(&mut self, client: ClientId, tasks: Vec<TaskId>, effects: &mut Effects) {
        for task in tasks {
            if self.is_of(client, task.job) {
                self.cancel(task, effects);
            }
        }
    }

    /// Gives a task up that is not done, and with it every task that waits for it.
    fn cancel(&mut self, task: TaskId, effects: &mut Effects) {
        let Some(record) = self.jobs.get(task) else { return };
        if record.state.is_pending() {
            let name = self.kinds.name(record.kind);
            let failure = TaskFailure { task, name, node: None, cause: FailureCause::Cancelled };
            self.fail(task, Arc::new(failure), effects);
        }
    }

    fn cancel_job(&mut self, job_id: JobId, effects: &mut Effects) {
        let Some(job) = self.jobs.job(job_id) else { return };
        let pending = job.iter().filter(|(_, record)| record.state.is_pending()).map(|(index, _)| index);
        // The first ones first: those that wait for them fail with them.
        for index in pending.collect::<Vec<u32>>() {
            self.cancel(TaskId::new(job_id, index), effects);
        }
    }

    pub(super) fn is_of(&self, client: ClientId, job: JobId) -> bool {
        self.jobs.job(job).is_some_and(|job| job.client == client)
    }

    fn holders_for(&self, client: ClientId, task: TaskId) -> Option<(TaskId, Vec<WorkerId>, u64)> {
        if !self.is_of(client, task.job) {
            return None;
        }
        match &self.jobs.get(task)?.state {
            State::Memory { nbytes, holders } => Some((task, self.worker_ids(holders).collect(), *nbytes)),
            _ => None,
        }
    }

    pub(super) fn on_release(&mut self, client: ClientId, task: TaskId) {
        if !self.is_of(client, task.job) {
            return;
        }
        let Some(record) = self.jobs.get_mut(task) else { return };
        record.wanted = false;
        record.announced = false;
        if record.waiters == 0 {
            self.loose.push(task);
        }
    }

    /// The client hears where else the output is, or that it is computed again.
    fn on_unreachable(&mut self, client: ClientId, task: TaskId, holders: &[WorkerId], effects: &mut Effects) {
        let is_watching = self.is_watching(client, task);
        if !is_watching && !self.is_of(client, task.job) {
            return;
        }
        if self.drop_holders(task, holders, effects) {
            self.recover(&[task], effects);
            return;
        }
        let Some(record) = self.jobs.get(task).filter(|record| record.wanted || is_watching) else { return };
        if let State::Memory { nbytes, holders } = &record.state {
            let result = ResultAt::Workers(self.worker_ids(holders).collect());
            effects.tell_client(client, ToClient::Finished { task, nbytes: *nbytes, result });
        }
    }

    /// Whether these tasks can be taken, all of them. Gives the place of each one's kind.
    fn check_submission(
        &self,
        client: ClientId,
        job_id: JobId,
        kinds: &[KindInfo],
        tasks: &[TaskSpec],
    ) -> Result<Vec<u32>, SubmitError> {
        let job = self.jobs.job(job_id).filter(|job| job.client == client).ok_or(SubmitError::UnknownJob(job_id))?;
        let mut found = Vec::with_capacity(tasks.len());
        let mut unknown: Vec<KindId> = Vec::new();
        // Neighbours mostly are of one kind.
        let mut last: Option<(KindId, u32)> = None;
        for (due, spec) in (u64::from(job.next_index)..).zip(tasks) {
            check_place(job, job_id, due, spec)?;
            self.check_options(spec)?;
            let kind = match last {
                Some((kind, at)) if kind == spec.kind => Some(at),
                _ => self.kinds.find(spec.kind),
            };
            match kind {
                Some(at) => {
                    last = Some((spec.kind, at));
                    found.push(at);
                }
                None if !unknown.contains(&spec.kind) && unknown.len() < 100 => unknown.push(spec.kind),
                None => {}
            }
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        let name =
            |kind: KindId| kinds.iter().find(|info| info.kind == kind).cloned().unwrap_or_else(|| nameless(kind));
        Err(SubmitError::UnknownKinds(unknown.into_iter().map(name).collect()))
    }

    pub(super) fn check_options(&self, spec: &TaskSpec) -> Result<(), SubmitError> {
        let bad_options = |problem| SubmitError::BadOptions { task: spec.task, problem };
        if let Some(requirements) = &spec.options.requirements {
            classes::check(requirements).map_err(bad_options)?;
        }
        let problem = spec.options.part.and_then(|part| part.problem(spec.inputs.len()));
        problem.map_or(Ok(()), |problem| Err(bad_options(problem)))
    }

    /// Takes tasks that were checked.
    fn take_submission(&mut self, job_id: JobId, tasks: Vec<TaskSpec>, kinds: &[u32], effects: &mut Effects) {
        let submission = self.submission;
        self.submission = self.submission.wrapping_add(1);
        let first = tasks.first().map_or(0, |spec| spec.task.index);
        let places = depth_first(first, tasks.len(), |at| tasks.get(at).map_or(&[], |spec| spec.inputs.as_slice()));
        let place_of = |at: usize| places.as_ref().and_then(|places| places.get(at).copied()).unwrap_or(at as u32);
        let mut unwanted = Vec::new();
        for ((at, spec), kind) in tasks.into_iter().enumerate().zip(kinds) {
            let priority = Priority { user: spec.options.priority.saturating_neg(), submission, order: place_of(at) };
            if !spec.options.wanted {
                unwanted.push(spec.task);
            }
            self.take_task(job_id, spec, *kind, priority, effects);
        }
        // An unwanted task that no other task of the submission needs was sent for nothing.
        unwanted.retain(|task| self.jobs.get(*task).is_some_and(|record| !record.is_needed()));
        self.loose.append(&mut unwanted);
    }

    fn take_task(&mut self, job_id: JobId, spec: TaskSpec, kind: u32, priority: Priority, effects: &mut Effects) {
        let Some(job) = self.jobs.job_mut(job_id) else { return };
        let client = job.client;
        let (task, index) = (spec.task, spec.task.index);
        let mut unfinished = 0;
        let mut failure = None;
        let mut released: SmallVec<[u32; 4]> = SmallVec::new();
        let mut processed_at = None;
        let may_follow = spec.inputs.len() <= ahead::INPUTS_MAX;
        for input in &spec.inputs {
            let Some(record) = job.get_mut(*input) else { continue };
            record.dependents.push(index);
            record.leads |= may_follow;
            record.dependents_live += 1;
            record.waiters += 1;
            match &record.state {
                State::Memory { .. } => continue,
                State::Erred { failure: why } => failure = Some(Arc::clone(why)),
                State::Released => released.push(*input),
                State::Processing { worker, .. } => processed_at = Some((TaskId::new(job_id, *input), *worker)),
                _ => {}
            }
            unfinished += 1;
        }
        let workers = self.pool.iter().map(|(slot, worker)| (slot, &worker.info));
        let class = self.classes.enter(&spec.options.requirements, workers);
        let state = match (spec.inputs.is_empty() && class == ClassId::ANY, self.pool.is_empty()) {
            (false, _) => State::Waiting { unfinished },
            (true, false) => State::Queued { at: QueuedAt::Roots },
            (true, true) => State::NoWorker,
        };
        match state {
            State::Queued { .. } => self.roots.push(priority, task),
            State::NoWorker => self.parked.push(priority, task),
            _ if unfinished == 0 => self.ready.push(task),
            // It may follow its inputs at once.
            _ => self.ahead.extend(processed_at.filter(|_| may_follow)),
        }
        self.live += 1;
        job.push(Record::new(spec, kind, class, priority, state));
        debug_assert_eq!(job.client, client);
        if let Some(failure) = failure {
            self.fail(task, failure, effects);
        } else {
            for input in released {
                self.require(TaskId::new(job_id, input), effects);
            }
        }
    }

    /// Values that a client has put on workers. There is no answer to a scatter, so one that does not fit is ignored, and
    /// the next submission of that client is refused for its gap.
    pub(super) fn on_scattered(
        &mut self,
        client: ClientId,
        job_id: JobId,
        values: Vec<(u32, u64, Vec<WorkerId>)>,
        effects: &mut Effects,
    ) {
        let Some(job) = self.jobs.job_mut(job_id).filter(|job| job.client == client) else { return };
        let fits = (u64::from(job.next_index)..).zip(&values).all(|(due, value)| u64::from(value.0) == due);
        if !fits || u64::from(job.next_index) + values.len() as u64 > u64::from(u32::MAX) {
            return;
        }
        let submission = self.submission;
        self.submission = self.submission.wrapping_add(1);
        for ((index, nbytes, workers), order) in values.into_iter().zip(0..) {
            let task = TaskId::new(job_id, index);
            let mut holders: SmallVec<[Slot; 2]> = SmallVec::new();
            let nbytes = nbytes.min(NBYTES_MAX);
            for worker in workers {
                if let Some(slot) = self.pool.slot(worker).filter(|slot| !holders.contains(slot)) {
                    holders.push(slot);
                    self.pool.hold(slot, task, nbytes);
                }
            }
            let is_lost = holders.is_empty();
            let put_at = holders.clone();
            let Some(job) = self.jobs.job_mut(job_id) else { return };
            self.live += 1;
            let mut record =
                Record::scattered(Priority { user: 0, submission, order }, State::Memory { nbytes, holders });
            record.announced = true;
            job.push(record);
            if is_lost {
                self.recover(&[task], effects);
            }
            for slot in put_at {
                self.move_away_if_retiring(slot, task, effects);
            }
        }
    }
}

/// Whether a task continues its job and names only tasks that are there before it.
fn check_place(job: &Job, job_id: JobId, due: u64, spec: &TaskSpec) -> Result<(), SubmitError> {
    if spec.task.job != job_id || spec.task.is_part() {
        return Err(SubmitError::UnknownJob(spec.task.job));
    }
    let index = spec.task.index;
    // The last index is never given out, so that the next one always can be said.
    if u64::from(index) != due || index == u32::MAX {
        let expected = u32::try_from(due).unwrap_or(u32::MAX);
        return Err(GraphError::Gap { index, expected }.into());
    }
    for input in &spec.inputs {
        if *input == index {
            let key = spec.task.to_string();
            return Err(GraphError::Cycle { keys: vec![key.clone(), key] }.into());
        }
        let is_there = *input < index && (*input >= job.next_index || job.get(*input).is_some());
        if !is_there {
            let input = TaskId::new(job_id, *input).to_string();
            return Err(GraphError::DanglingInput { key: spec.task.to_string(), input }.into());
        }
    }
    Ok(())
}

pub(super) fn nameless(kind: KindId) -> KindInfo {
    KindInfo { kind, name: format!("kind {:016x}", kind.0), signature: String::new() }
}
