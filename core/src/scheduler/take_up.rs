//! Tasks that are taken up again, with what workers have of them: outputs, and threads that run them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::failure::TaskFailure;
use crate::ids::{Attempt, JobId, TaskId};
use crate::ledger::Kept;
use crate::spec::TaskSpec;
use crate::wire::{Priority, ResultAt, ToClient};

use super::ahead;
use super::classes::ClassId;
use super::inventory::Claim;
use super::pool::Slot;
use super::record::{Job, NOBODY, Phase, Record, State};
use super::recover::{Pieces, is_task_of};
use super::{Effects, Scheduler};

/// One thing that is taken up again.
#[derive(Debug)]
enum Again {
    Task(TaskSpec),
    /// What cannot be computed: the value is on a worker, or lost.
    Value {
        index: u32,
        wanted: bool,
    },
}

impl Again {
    fn index(&self) -> u32 {
        match self {
            Again::Task(spec) => spec.task.index,
            Again::Value { index, .. } => *index,
        }
    }

    /// Whether its client holds the output.
    fn is_wanted(&self) -> bool {
        match self {
            Again::Task(spec) => spec.options.wanted,
            Again::Value { wanted, .. } => *wanted,
        }
    }
}

impl Scheduler {
    /// Takes up what a client says that its job consists of. What the job has beyond that is released.
    pub(super) fn take_up_job(&mut self, job_id: JobId, pieces: Pieces, end: u32, effects: &mut Effects) {
        let Pieces { tasks, values, failed } = pieces;
        let values = values.into_iter().map(|(index, _)| Again::Value { index, wanted: true });
        let all: Vec<Again> = tasks.into_iter().map(Again::Task).chain(values).collect();
        let wanted: BTreeSet<u32> = all.iter().filter(|again| again.is_wanted()).map(Again::index).collect();
        self.take_up_all(job_id, all, failed.into_iter().collect(), effects);
        let Some(job) = self.jobs.job_mut(job_id) else { return };
        job.skip_to(end);
        let client = job.client;
        let is_released = |(index, record): &(u32, &Record)| record.wanted && !wanted.contains(index);
        let released: Vec<u32> = job.iter().filter(is_released).map(|found| found.0).collect();
        for index in released {
            self.on_release(client, TaskId::new(job_id, index));
        }
        self.drop_orphans_of(job_id, effects);
    }

    /// Takes up what the ledger keeps. What cannot be computed any more, since this binary lacks the function, is kept as
    /// long as its output is there.
    pub(super) fn take_up_kept(&mut self, kept: &Kept, effects: &mut Effects) {
        if self.jobs.job(kept.job).is_none() {
            self.jobs.open_as(kept.job, Job::new(NOBODY, kept.label.clone()));
        }
        let tasks = kept.tasks.iter().filter(|spec| is_task_of(kept.job, spec)).map(|spec| {
            if self.check_options(spec).is_err() {
                return Again::Value { index: spec.task.index, wanted: false };
            }
            let mut spec = spec.clone();
            spec.options.wanted = false;
            Again::Task(spec)
        });
        let values = kept.values.iter().filter(|(index, _)| *index < u32::MAX);
        let values = values.map(|(index, _)| Again::Value { index: *index, wanted: false });
        let all = tasks.chain(values).collect();
        self.take_up_all(kept.job, all, BTreeMap::new(), effects);
        let values = kept.values.iter().map(|(index, _)| *index);
        self.keep(kept.name.clone(), kept.job, kept.wanted.clone(), values.collect(), effects);
        self.kept_is_logged(&kept.name);
    }

    /// Takes tasks up, in the order of their indices, so that each finds its inputs.
    fn take_up_all(
        &mut self,
        job_id: JobId,
        mut all: Vec<Again>,
        mut failed: BTreeMap<u32, TaskFailure>,
        effects: &mut Effects,
    ) {
        all.sort_by_key(Again::index);
        all.dedup_by_key(|again| again.index());
        if let Some(job) = self.jobs.job_mut(job_id) {
            job.forget_dependents();
        }
        let submission = self.submission;
        self.submission = self.submission.wrapping_add(1);
        for (again, order) in all.into_iter().zip(0..) {
            let task = TaskId::new(job_id, again.index());
            let is_wanted = again.is_wanted();
            let failure = failed.remove(&again.index()).map(Arc::new);
            let is_known = self.jobs.get(task).is_some();
            match again {
                _ if is_known => self.merge(task, is_wanted, failure, effects),
                Again::Task(spec) => {
                    let user = spec.options.priority.saturating_neg();
                    self.take_up_task(spec, Priority { user, submission, order }, failure, effects);
                }
                Again::Value { .. } => {
                    self.take_up_value(task, is_wanted, Priority { user: 0, submission, order }, failure, effects);
                }
            }
            if !is_wanted {
                self.loose.push(task);
            }
        }
    }

    /// A task that is known here is said again.
    fn merge(&mut self, task: TaskId, is_wanted: bool, failure: Option<Arc<TaskFailure>>, effects: &mut Effects) {
        let Some(record) = self.jobs.get_mut(task) else { return };
        let was_wanted = record.wanted;
        record.wanted |= is_wanted;
        let is_to_come = record.state.is_pending() || matches!(record.state, State::Released);
        match &record.state {
            // Others than its client may want what is kept, and it may end otherwise for them.
            _ if failure.is_some() && is_to_come && record.keeps == 0 => {
                let Some(failure) = failure else { return };
                // Its client knows.
                record.wanted = was_wanted;
                self.fail(task, failure, effects);
                if let Some(record) = self.jobs.get_mut(task) {
                    record.wanted |= is_wanted;
                }
            }
            _ if !is_wanted => {}
            State::Erred { failure: why } if failure.is_none() => {
                let message = ToClient::Failed { task, failure: (**why).clone() };
                self.tell_holder(task, message, effects);
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

    /// A task that is not known here is taken with what workers have of it. If it cannot be computed, for want of an input or of
    /// the function, it is taken like a value.
    fn take_up_task(
        &mut self,
        spec: TaskSpec,
        priority: Priority,
        failure: Option<Arc<TaskFailure>>,
        effects: &mut Effects,
    ) {
        let (task, index, job_id) = (spec.task, spec.task.index, spec.task.job);
        let Some(job) = self.jobs.job(job_id) else { return };
        let has_inputs = spec.inputs.iter().all(|input| *input < index && job.get(*input).is_some());
        let Some(kind) = self.kinds.find(spec.kind).filter(|_| has_inputs) else {
            return self.take_up_value(task, spec.options.wanted, priority, failure, effects);
        };
        let claim = self.claim(task, effects);
        let is_pending = failure.is_none() && !matches!(claim, Some(Claim::Held { .. }));
        let Some(job) = self.jobs.job_mut(job_id) else { return };
        let mut unfinished = 0;
        let mut input_failure = None;
        let mut released = Vec::new();
        let may_follow = spec.inputs.len() <= ahead::INPUTS_MAX;
        for input in &spec.inputs {
            let Some(record) = job.get_mut(*input) else { continue };
            record.dependents.push(index);
            record.leads |= may_follow;
            record.dependents_live += 1;
            if !is_pending {
                continue;
            }
            record.waiters += 1;
            match &record.state {
                State::Memory { .. } => continue,
                State::Erred { failure: why } => input_failure = Some(Arc::clone(why)),
                State::Released => released.push(*input),
                _ => {}
            }
            unfinished += 1;
        }
        let workers = self.pool.iter().map(|(slot, worker)| (slot, &worker.info));
        let class = self.classes.enter(&spec.options.requirements, workers);
        self.live += 1;
        let state = match failure {
            // Its client knows.
            Some(failure) => State::Erred { failure },
            None if is_pending => State::Waiting { unfinished },
            None => State::Released,
        };
        job.put(index, Record::new(spec, kind, class, priority, state));
        match claim {
            Some(Claim::Running { slot, attempt, is_suspended })
                if is_pending && unfinished == 0 && self.may_run_at(class, slot) =>
            {
                self.take_up_running(task, slot, attempt, is_suspended);
            }
            Some(Claim::Held { attempt, nbytes, holders })
                if self.jobs.get(task).is_some_and(|record| matches!(record.state, State::Released)) =>
            {
                self.take_up_held(task, attempt, nbytes, &holders, effects);
            }
            claim => {
                self.give_up_claim(task, claim, effects);
                if is_pending && unfinished == 0 {
                    self.ready.push(task);
                }
            }
        }
        if let Some(failure) = input_failure {
            self.fail(task, failure, effects);
        } else {
            for input in released {
                self.require(TaskId::new(job_id, input), effects);
            }
        }
    }

    /// A task that nobody computes turns out to be in these stores.
    fn take_up_held(&mut self, task: TaskId, attempt: Attempt, nbytes: u64, holders: &[Slot], effects: &mut Effects) {
        let Some(record) = self.jobs.get_mut(task) else { return };
        record.attempt = attempt;
        for slot in holders {
            self.pool.hold(*slot, task, nbytes);
        }
        self.jobs.set_state(task, State::Memory { nbytes, holders: holders.iter().copied().collect() });
        self.look_at_copies(task);
        self.announce(task, effects);
        for slot in holders {
            self.move_away_if_retiring(*slot, task, effects);
        }
    }

    /// Whether a worker that says that it runs a task is one that may, with what else it runs.
    pub(super) fn may_run_at(&self, class: ClassId, slot: Slot) -> bool {
        match (self.classes.get(class), self.pool.get(slot)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(class), Some(worker)) => class.is_eligible(slot) && worker.has_left(&class.requirements.resources),
        }
    }

    /// A task that is ready turns out to be running somewhere.
    pub(super) fn take_up_running(&mut self, task: TaskId, slot: Slot, attempt: Attempt, is_suspended: bool) {
        let Some(record) = self.jobs.get_mut(task) else { return };
        record.attempt = attempt;
        let expected_us = if is_suspended { 0 } else { self.kinds.expected_us(record.kind) };
        if let Some((class, worker)) = self.classes.get(record.class).zip(self.pool.get_mut(slot)) {
            worker.take_resources(&class.requirements.resources);
        }
        let phase = if is_suspended { Phase::Suspended } else { Phase::Begun };
        let position = self.pool.begin(slot, task, expected_us, phase, self.now);
        self.jobs.set_state(task, State::Processing { worker: slot, position, expected_us, phase });
    }

    /// What cannot be computed is there, or lost.
    fn take_up_value(
        &mut self,
        task: TaskId,
        is_wanted: bool,
        priority: Priority,
        failure: Option<Arc<TaskFailure>>,
        effects: &mut Effects,
    ) {
        let claim = self.claim(task, effects);
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        self.live += 1;
        let state = failure.map_or(State::Released, |failure| State::Erred { failure });
        let is_open = matches!(state, State::Released);
        let mut record = Record::scattered(priority, state);
        record.wanted = is_wanted;
        job.put(task.index, record);
        match claim {
            Some(Claim::Held { attempt, nbytes, holders }) if is_open => {
                self.take_up_held(task, attempt, nbytes, &holders, effects);
            }
            claim => {
                self.give_up_claim(task, claim, effects);
                if is_wanted {
                    self.require(task, effects);
                }
            }
        }
    }
}
