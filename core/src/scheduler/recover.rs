//! Jobs that their clients resume, at another scheduler or over another link.
//!
//! A client says again what it may still need ([`FromClient::Restore`](crate::wire::FromClient::Restore)), workers say what they
//! have ([`inventory`](super::inventory)). A new scheduler in a recovery takes up neither before it is over, so that what one of them
//! says is not decided upon before the others have had their say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::failure::TaskFailure;
use crate::ids::{Attempt, ClientId, JobId, TaskId};
use crate::ledger::Kept;
use crate::spec::TaskSpec;
use crate::wire::{JobSummary, KeptName, Priority, ResultAt, SubmitError, ToClient};

use super::ahead;
use super::inventory::Claim;
use super::record::{Job, NOBODY, Phase, Record, State};
use super::view::TaskState;
use super::{Effects, Scheduler};

/// How many tasks a client may restore that has no more known ones than that.
const RESTORED_TASKS_MAX: usize = 20_000_000;

/// What a job consists of, as its client says again.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) tasks: Vec<TaskSpec>,
    pub(super) values: Vec<(u32, u64)>,
    pub(super) failed: Vec<(u32, TaskFailure)>,
}

impl Pieces {
    fn append(&mut self, mut other: Pieces) {
        self.tasks.append(&mut other.tasks);
        self.values.append(&mut other.values);
        self.failed.append(&mut other.failed);
    }

    fn len(&self) -> usize {
        self.tasks.len() + self.values.len()
    }

    /// Everything that is restored, in the order of the indices.
    fn in_order(self) -> (Vec<Again>, BTreeMap<u32, TaskFailure>) {
        let mut again: Vec<Again> = self.tasks.into_iter().map(Again::Task).collect();
        again.extend(self.values.into_iter().map(|(index, _)| Again::Value(index)));
        again.sort_by_key(Again::index);
        again.dedup_by_key(|again| again.index());
        (again, self.failed.into_iter().collect())
    }
}

/// One thing that is restored.
#[derive(Debug)]
enum Again {
    Task(TaskSpec),
    Value(u32),
}

impl Again {
    fn index(&self) -> u32 {
        match self {
            Again::Task(spec) => spec.task.index,
            Again::Value(index) => *index,
        }
    }

    /// Whether its client holds the output.
    fn is_wanted(&self) -> bool {
        match self {
            Again::Task(spec) => spec.options.wanted,
            Again::Value(_) => true,
        }
    }
}

/// A job of which its client has not said everything again, or that is not taken up yet.
#[derive(Debug)]
struct Restoring {
    pieces: Pieces,
    /// The index of the job's next task, once everything was said.
    end: Option<u32>,
}

/// What is to be taken up.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Whether the scheduler still gathers what there is.
    pub(super) is_under_way: bool,
    restoring: BTreeMap<JobId, Restoring>,
    /// What the ledger keeps, until it is taken up.
    kept: Vec<Arc<Kept>>,
}

impl Recovery {
    /// Whether it is not known yet what this job consists of.
    pub(super) fn awaits(&self, job: JobId) -> bool {
        self.restoring.contains_key(&job)
    }
}

impl Scheduler {
    /// A client goes on with a job that it has opened before.
    pub(super) fn on_resume(&mut self, client: ClientId, token: u64, job: JobId, name: String, effects: &mut Effects) {
        let owner = self.jobs.job(job).map(|job| job.client);
        match owner {
            // What the other link still says of it is not its client's any more.
            Some(owner) if owner != client => {
                self.drop_kept(owner, effects);
                if let Some(jobs) = self.clients.get_mut(&owner) {
                    jobs.retain(|owned| *owned != job);
                }
                if let Some(job) = self.jobs.job_mut(job) {
                    job.client = client;
                }
            }
            Some(_) => {}
            None => self.jobs.open_as(job, Job::new(client, name)),
        }
        if owner != Some(client)
            && let Some(jobs) = self.clients.get_mut(&client)
        {
            jobs.push(job);
        }
        self.recovery.restoring.insert(job, Restoring { pieces: Pieces::default(), end: None });
        effects.tell_client(client, ToClient::JobOpened { token, job, term: self.term });
    }

    /// A piece of what a resumed job consists of.
    pub(super) fn on_restore(
        &mut self,
        client: ClientId,
        job: JobId,
        token: u64,
        pieces: Pieces,
        end: Option<u32>,
        effects: &mut Effects,
    ) {
        let is_of = self.is_of(client, job);
        let restoring = self.recovery.restoring.get_mut(&job).filter(|restoring| is_of && restoring.end.is_none());
        let Some(restoring) = restoring else {
            return effects.tell_client(client, ToClient::Rejected { token, error: SubmitError::UnknownJob(job) });
        };
        if restoring.pieces.len() + pieces.len() > RESTORED_TASKS_MAX {
            let error = SubmitError::TooManyTasks { tasks_max: RESTORED_TASKS_MAX as u64 };
            return effects.tell_client(client, ToClient::Rejected { token, error });
        }
        if let Err(error) = self.check_restored(job, &pieces) {
            return effects.tell_client(client, ToClient::Rejected { token, error });
        }
        let Some(restoring) = self.recovery.restoring.get_mut(&job) else { return };
        restoring.pieces.append(pieces);
        restoring.end = end;
        effects.tell_client(client, ToClient::Accepted { token });
        if end.is_some() && !self.recovery.is_under_way {
            self.take_restored(job, effects);
        }
    }

    /// Whether tasks that are said again can be taken, their inputs apart, which may be in an earlier piece.
    fn check_restored(&self, job: JobId, pieces: &Pieces) -> Result<(), SubmitError> {
        let mut unknown = Vec::new();
        for spec in &pieces.tasks {
            if spec.task.job != job || spec.task.is_part() || spec.inputs.iter().any(|input| *input >= spec.task.index)
            {
                return Err(SubmitError::UnknownJob(spec.task.job));
            }
            self.check_options(spec)?;
            if self.kinds.find(spec.kind).is_none() && unknown.len() < 100 {
                unknown.push(super::submit::nameless(spec.kind));
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(SubmitError::UnknownKinds(unknown)) }
    }

    /// Takes a job up of which everything was said.
    fn take_restored(&mut self, job_id: JobId, effects: &mut Effects) {
        let Some(Restoring { pieces, end }) = self.recovery.restoring.remove(&job_id) else { return };
        let (again, failed) = pieces.in_order();
        let wanted: BTreeSet<u32> = again.iter().filter(|again| again.is_wanted()).map(Again::index).collect();
        self.take_all_again(job_id, again, failed, effects);
        let Some(job) = self.jobs.job_mut(job_id) else { return };
        job.skip_to(end.unwrap_or(0));
        // What the client has let go of meanwhile.
        let released: Vec<u32> = job
            .iter()
            .filter(|(index, record)| record.wanted && !wanted.contains(index))
            .map(|found| found.0)
            .collect();
        let client = job.client;
        for index in released {
            self.on_release(client, TaskId::new(job_id, index));
        }
        self.drop_orphans_of(job_id, effects);
    }

    fn take_all_again(
        &mut self,
        job_id: JobId,
        again: Vec<Again>,
        mut failed: BTreeMap<u32, TaskFailure>,
        effects: &mut Effects,
    ) {
        let submission = self.submission;
        self.submission = self.submission.wrapping_add(1);
        for (again, order) in again.into_iter().zip(0..) {
            let index = again.index();
            let task = TaskId::new(job_id, index);
            let is_wanted = again.is_wanted();
            let is_known = self.jobs.get(task).is_some();
            match again {
                _ if is_known => self.merge(task, is_wanted, effects),
                Again::Task(spec) => self.take_task_again(spec, submission, order, effects),
                Again::Value(_) => self.take_value_again(task, Priority { user: 0, submission, order }, effects),
            }
            if let Some(failure) = failed.remove(&index) {
                self.fail(task, Arc::new(failure), effects);
            }
            if !is_wanted {
                self.loose.push(task);
            }
        }
    }

    /// A task that is known here is said again.
    fn merge(&mut self, task: TaskId, is_wanted: bool, effects: &mut Effects) {
        let Some(record) = self.jobs.get_mut(task) else { return };
        if !is_wanted {
            return;
        }
        record.wanted = true;
        match &record.state {
            State::Erred { failure } => {
                let failure = (**failure).clone();
                self.tell_holder(task, ToClient::Failed { task, failure }, effects);
            }
            State::Memory { .. } => self.announce(task, effects),
            State::Released => self.require(task, effects),
            _ => {}
        }
    }

    /// Tells a task's client, if it holds the result, that and where it is.
    pub(super) fn announce(&mut self, task: TaskId, effects: &mut Effects) {
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        let client = job.client;
        let Some(record) = job.get_mut(task.index).filter(|record| record.wanted) else { return };
        let State::Memory { nbytes, holders } = &record.state else { return };
        record.announced = true;
        let holders = holders.iter().filter_map(|slot| self.pool.get(*slot).map(|worker| worker.id));
        let result = ResultAt::Workers(holders.collect());
        effects.tell_client(client, ToClient::Finished { task, nbytes: *nbytes, result });
    }

    fn tell_holder(&self, task: TaskId, message: ToClient, effects: &mut Effects) {
        if let Some(job) = self.jobs.job(task.job)
            && job.get(task.index).is_some_and(|record| record.wanted)
        {
            effects.tell_client(job.client, message);
        }
    }

    /// A task that is not known here is taken with what workers have of it: its output, or a thread that runs it.
    fn take_task_again(&mut self, spec: TaskSpec, submission: u32, order: u32, effects: &mut Effects) {
        let (task, index, job_id) = (spec.task, spec.task.index, spec.task.job);
        let Some(kind) = self.kinds.find(spec.kind) else { return };
        let claim = self.claim(task, effects);
        let is_there = matches!(claim, Some(Claim::Held { .. }));
        let Some(job) = self.jobs.job_mut(job_id) else { return };
        // Its client knows of every input of what it may need: this one errs.
        if spec.inputs.iter().any(|input| *input >= index || job.get(*input).is_none()) {
            self.give_up_claim(task, claim, effects);
            return;
        }
        let mut unfinished = 0;
        let mut failure = None;
        let mut released = Vec::new();
        let may_follow = spec.inputs.len() <= ahead::INPUTS_MAX;
        for input in &spec.inputs {
            let Some(record) = job.get_mut(*input) else { continue };
            record.dependents.push(index);
            record.leads |= may_follow;
            record.dependents_live += 1;
            if is_there {
                continue;
            }
            record.waiters += 1;
            match &record.state {
                State::Memory { .. } => continue,
                State::Erred { failure: why } => failure = Some(Arc::clone(why)),
                State::Released => released.push(*input),
                _ => {}
            }
            unfinished += 1;
        }
        let workers = self.pool.iter().map(|(slot, worker)| (slot, &worker.info));
        let class = self.classes.enter(&spec.options.requirements, workers);
        let priority = Priority { user: spec.options.priority.saturating_neg(), submission, order };
        self.live += 1;
        let is_ready = !is_there && unfinished == 0;
        job.put(index, Record::new(spec, kind, class, priority, State::Waiting { unfinished }));
        match claim {
            Some(Claim::Held { attempt, nbytes, holders }) => {
                if let Some(record) = job.get_mut(index) {
                    record.attempt = attempt;
                }
                for slot in &holders {
                    self.pool.hold(*slot, task, nbytes);
                }
                job.set_state(index, State::Memory { nbytes, holders: holders.clone() });
                self.announce(task, effects);
                for slot in holders {
                    self.move_away_if_retiring(slot, task, effects);
                }
            }
            Some(Claim::Running { slot, attempt, is_suspended }) if is_ready && failure.is_none() => {
                self.take_up_running(task, slot, attempt, is_suspended);
            }
            claim => {
                self.give_up_claim(task, claim, effects);
                if is_ready {
                    self.ready.push(task);
                }
            }
        }
        if let Some(failure) = failure {
            self.fail(task, failure, effects);
        } else {
            for input in released {
                self.require(TaskId::new(job_id, input), effects);
            }
        }
    }

    /// A task that is ready turns out to be running somewhere.
    pub(super) fn take_up_running(
        &mut self,
        task: TaskId,
        slot: super::pool::Slot,
        attempt: Attempt,
        is_suspended: bool,
    ) {
        let Some(record) = self.jobs.get_mut(task) else { return };
        record.attempt = attempt;
        let expected_us = if is_suspended { 0 } else { self.kinds.expected_us(record.kind) };
        if let Some((class, worker)) = self.classes.get(record.class).zip(self.pool.get_mut(slot)) {
            worker.take_resources(&class.requirements.resources);
        }
        let phase = if is_suspended { Phase::Suspended } else { Phase::Begun };
        let position = self.pool.begin(slot, task, expected_us, phase, self.now);
        self.jobs.set_state(task, State::Processing { worker: slot, position, expected_us, phase });
        self.roomy.push(slot);
    }

    fn take_value_again(&mut self, task: TaskId, priority: Priority, effects: &mut Effects) {
        let claim = self.claim(task, effects);
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        self.live += 1;
        job.put(task.index, Record::scattered(priority, State::Released));
        match claim {
            Some(Claim::Held { nbytes, holders, .. }) => {
                for slot in &holders {
                    self.pool.hold(*slot, task, nbytes);
                }
                job.set_state(task.index, State::Memory { nbytes, holders });
                if let Some(record) = job.get_mut(task.index) {
                    record.announced = true;
                }
            }
            claim => {
                self.give_up_claim(task, claim, effects);
                self.require(task, effects);
            }
        }
    }

    /// Everything that the ledger keeps, said before anything else.
    pub(super) fn on_restored(&mut self, kept: Arc<Kept>) {
        self.recovery.kept.push(kept);
    }

    /// Who was to say something has said it, or will not: what was said is taken up.
    pub(super) fn on_recovered(&mut self, effects: &mut Effects) {
        self.recovery.is_under_way = false;
        self.orphans_until = self.now;
        self.orphans_until.0 = self.now.0.saturating_add(super::inventory::ORPHANS_US);
        let complete: Vec<JobId> =
            self.recovery.restoring.iter().filter(|(_, job)| job.end.is_some()).map(|(id, _)| *id).collect();
        // First, since clients may have more of the same jobs.
        for kept in std::mem::take(&mut self.recovery.kept) {
            self.take_kept_again(&kept, effects);
        }
        for job in complete {
            self.take_restored(job, effects);
        }
    }

    fn take_kept_again(&mut self, kept: &Kept, effects: &mut Effects) {
        if self.jobs.job(kept.job).is_none() {
            self.jobs.open_as(kept.job, Job::new(NOBODY, kept.label.clone()));
        }
        let mut pieces = Pieces { tasks: kept.tasks.clone(), values: kept.values.clone(), failed: Vec::new() };
        for spec in &mut pieces.tasks {
            spec.options.wanted = false;
        }
        if self.check_restored(kept.job, &pieces).is_err() {
            return;
        }
        let (again, failed) = pieces.in_order();
        self.take_all_again(kept.job, again, failed, effects);
        self.keep(kept.name.clone(), kept.job, kept.wanted.clone());
        for (index, _) in &kept.values {
            // Nobody but the tasks that need it holds it.
            if let Some(record) = self.jobs.get_mut(TaskId::new(kept.job, *index)) {
                (record.wanted, record.announced) = (false, false);
                self.loose.push(TaskId::new(kept.job, *index));
            }
        }
        for index in &kept.wanted {
            self.require(TaskId::new(kept.job, *index), effects);
        }
    }

    /// The jobs, for a person, by their ids.
    pub(super) fn summaries(&self) -> Vec<JobSummary> {
        let mut all: Vec<JobSummary> = self.jobs.iter().map(|(id, job)| self.summary(id, job)).collect();
        all.sort_by_key(|summary| summary.job);
        all
    }

    fn summary(&self, id: JobId, job: &Job) -> JobSummary {
        let names: Vec<&KeptName> = self.kept_names_of(id).collect();
        let count = |state| job.counts.get(state);
        JobSummary {
            job: id,
            name: job.name.clone(),
            has_client: job.client != NOBODY,
            is_detached: names.contains(&&KeptName::Job(id)),
            data_sets: names
                .iter()
                .filter_map(|name| match name {
                    KeptName::DataSet(name) => Some(name.clone()),
                    KeptName::Job(_) => None,
                })
                .collect(),
            released: count(TaskState::Released),
            waiting: count(TaskState::Waiting),
            queued: count(TaskState::Queued),
            no_worker: count(TaskState::NoWorker),
            processing: count(TaskState::Processing),
            memory: count(TaskState::Memory),
            erred: count(TaskState::Erred),
        }
    }
}
