//! A simulated client, and the oracle: it knows the right value of every task that it submits, and holds the scheduler
//! to what it was promised.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::failure::{FailureCause, TaskFailure};
use starling_core::ids::{ClientId, JobId, KindId, TaskId, WorkerId};
use starling_core::spec::{TaskOptions, TaskSpec};
use starling_core::wire::{FromClient, ResultAt, SubmitError, ToClient};

use crate::plan::Plan;
use crate::rng::Rng;
use crate::work::{self, FAIL, FLAKY, HANG, HANG_TIMEOUT_MS, MIX, Payload, UNKNOWN};

/// What must come of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Value(u64),
    Failure,
}

/// What the client knows of a task.
#[derive(Clone, Debug)]
struct Known {
    due: Due,
    /// Whether a scattered value is among what it follows from.
    is_scattered: bool,
    /// Whether the client holds it and may name it as an input.
    is_held: bool,
    got: Got,
    /// How often it has told the scheduler that the result is not where it should be: so often it may be told anew.
    complaints: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Nothing,
    /// It is in these stores.
    Place(Vec<WorkerId>),
    /// It was not there, and the scheduler was told.
    Complained,
    Value,
    Failure,
}

/// What a client wants done besides sending messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Say this to the scheduler.
    Say(FromClient),
    /// Fetch this result.
    Fetch(TaskId, WorkerId),
    /// Put this value on a worker, then say so to the scheduler.
    Put(TaskId, u64, Vec<WorkerId>),
}

/// A client with one job.
#[derive(Debug)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    job: Option<JobId>,
    next_index: u32,
    tasks: BTreeMap<u32, Known>,
    workers: BTreeSet<WorkerId>,
    /// Every worker that it was ever told of.
    workers_seen: BTreeSet<WorkerId>,
    /// The submissions without an answer, and whether they must be refused.
    unanswered: BTreeMap<u64, bool>,
    token: u64,
    /// How many things it will still do.
    pub actions_left: u64,
    tasks_max: u64,
    failing: u64,
    allowed_failures: u32,
}

impl Client {
    /// A client that has just connected.
    pub fn new(id: ClientId, plan: &Plan) -> Client {
        Client {
            id,
            job: None,
            next_index: 0,
            tasks: BTreeMap::new(),
            workers: BTreeSet::new(),
            workers_seen: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            token: 0,
            actions_left: plan.actions,
            tasks_max: plan.tasks_max,
            failing: plan.failing,
            allowed_failures: plan.allowed_failures,
        }
    }

    /// What it says first.
    pub fn hello(&self) -> FromClient {
        FromClient::OpenJob { name: format!("job of {:?}", self.id), token: 0 }
    }

    /// Does the next thing, if its job is open.
    pub fn act(&mut self, rng: &mut Rng) -> Vec<Wish> {
        let Some(job) = self.job else { return Vec::new() };
        self.actions_left = self.actions_left.saturating_sub(1);
        match rng.below(10) {
            0..=4 => vec![Wish::Say(self.submit(job, rng))],
            5 | 6 => self.release_some(job, rng),
            7 => self.scatter(job, rng),
            8 => {
                self.token += 1;
                let tasks = self.tasks.keys().map(|index| TaskId::new(job, *index)).collect();
                vec![Wish::Say(FromClient::WhoHas { token: self.token, tasks })]
            }
            _ => vec![Wish::Say(self.submit_badly(job, rng))],
        }
    }

    fn submit(&mut self, job: JobId, rng: &mut Rng) -> FromClient {
        self.token += 1;
        self.unanswered.insert(self.token, false);
        let mut usable: Vec<u32> = self.tasks.iter().filter(|task| task.1.is_held).map(|task| *task.0).collect();
        let is_wide = rng.chance(30);
        let tasks =
            (0..rng.between(1, self.tasks_max)).map(|_| self.make_task(job, &mut usable, is_wide, rng)).collect();
        FromClient::Submit { job, token: self.token, kinds: work::kinds(), tasks }
    }

    fn make_task(&mut self, job: JobId, usable: &mut Vec<u32>, is_wide: bool, rng: &mut Rng) -> TaskSpec {
        let count = match rng.below(10) {
            0..=2 => 0,
            3..=8 => rng.between(1, 3),
            _ if is_wide => usable.len() as u64,
            _ => 1,
        };
        let inputs: Vec<u32> = (0..count).filter_map(|_| rng.pick(usable).copied()).collect();
        let (kind, failures) = match rng.below(100) {
            roll if roll < self.failing => (if rng.chance(50) { FAIL } else { HANG }, 0),
            roll if roll < self.failing + 5 => (FLAKY, rng.between(1, 3) as u8),
            _ => (MIX, 0),
        };
        let retries = u16::from(failures) + rng.below(2) as u16;
        let payload = Payload { salt: rng.bits(), failures, is_small: rng.chance(50) };
        let priority = if rng.chance(20) { rng.below(5) as i32 - 2 } else { 0 };
        let wanted = rng.chance(60);
        let index = self.next_index;
        self.next_index += 1;
        usable.push(index);
        let due = self.due(kind, payload, &inputs);
        let is_scattered = inputs.iter().any(|input| self.tasks.get(input).is_some_and(|known| known.is_scattered));
        self.tasks.insert(index, Known { due, is_scattered, is_held: wanted, got: Got::Nothing, complaints: 0 });
        TaskSpec {
            task: TaskId::new(job, index),
            kind,
            payload: payload.encode(),
            inputs: inputs.into_iter().collect(),
            options: TaskOptions {
                priority,
                retries,
                wanted,
                timeout_ms: if kind == HANG { HANG_TIMEOUT_MS } else { 0 },
                ..TaskOptions::default()
            },
        }
    }

    fn due(&self, kind: KindId, payload: Payload, inputs: &[u32]) -> Due {
        let values: Option<Vec<u64>> = inputs
            .iter()
            .map(|input| match self.tasks.get(input).map(|known| known.due) {
                Some(Due::Value(value)) => Some(value),
                _ => None,
            })
            .collect();
        match values {
            Some(values) if kind != FAIL && kind != HANG => Due::Value(work::result(payload, &values)),
            _ => Due::Failure,
        }
    }

    fn submit_badly(&mut self, job: JobId, rng: &mut Rng) -> FromClient {
        self.token += 1;
        self.unanswered.insert(self.token, true);
        let next = self.next_index;
        let (index, kind, input) = match rng.below(4) {
            0 => (next.wrapping_add(1 + rng.below(1 << 31) as u32), MIX, None),
            1 => (next, UNKNOWN, None),
            2 => (next, MIX, Some(next)),
            _ => (next, MIX, Some(u32::MAX - rng.below(1_000) as u32)),
        };
        let payload = Payload { salt: 0, failures: 0, is_small: true }.encode();
        let inputs = input.into_iter().collect();
        let task = TaskSpec { task: TaskId::new(job, index), kind, payload, inputs, options: TaskOptions::default() };
        FromClient::Submit { job, token: self.token, kinds: Vec::new(), tasks: vec![task] }
    }

    fn release_some(&mut self, job: JobId, rng: &mut Rng) -> Vec<Wish> {
        let percent = *rng.pick(&[5, 30, 100]).unwrap_or(&30);
        let mut tasks = Vec::new();
        for (index, known) in &mut self.tasks {
            if known.is_held && rng.chance(percent) {
                known.is_held = false;
                tasks.push(TaskId::new(job, *index));
            }
        }
        vec![Wish::Say(FromClient::Release { tasks })]
    }

    fn scatter(&mut self, job: JobId, rng: &mut Rng) -> Vec<Wish> {
        let workers: Vec<WorkerId> = self.workers.iter().copied().collect();
        let mut holders: Vec<WorkerId> = (0..rng.between(1, 2)).filter_map(|_| rng.pick(&workers).copied()).collect();
        holders.dedup();
        let index = self.next_index;
        self.next_index += 1;
        let value = rng.bits();
        let (due, got) = (Due::Value(value), Got::Place(holders.clone()));
        self.tasks.insert(index, Known { due, is_scattered: true, is_held: true, got, complaints: 0 });
        let said = FromClient::Scattered { job, values: vec![(index, work::nbytes(value), holders.clone())] };
        vec![Wish::Put(TaskId::new(job, index), value, holders), Wish::Say(said)]
    }

    /// Lets everything go.
    pub fn release_all(&mut self) -> Option<FromClient> {
        let job = self.job?;
        let held = self.tasks.iter_mut().filter(|task| task.1.is_held);
        let tasks = held
            .map(|(index, known)| {
                known.is_held = false;
                TaskId::new(job, *index)
            })
            .collect();
        Some(FromClient::Release { tasks })
    }

    /// Takes what the scheduler says. An error is a broken promise.
    pub fn hear(&mut self, message: ToClient, rng: &mut Rng) -> Result<Option<Wish>, String> {
        match message {
            ToClient::Worker { worker, .. } => {
                self.workers.insert(worker);
                self.workers_seen.insert(worker);
            }
            ToClient::WorkerGone { worker } => {
                self.workers.remove(&worker);
            }
            ToClient::JobOpened { job, .. } => self.job = Some(job),
            ToClient::Accepted { token } => match self.unanswered.remove(&token) {
                Some(false) => {}
                other => return Err(format!("submission {token} was accepted, and it was to be refused: {other:?}")),
            },
            ToClient::Rejected { token, error } => match (self.unanswered.remove(&token), &error) {
                (Some(true), SubmitError::UnknownKinds(_) | SubmitError::Graph(_)) => {}
                (other, _) => return Err(format!("submission {token} was refused: {error}: {other:?}")),
            },
            ToClient::Finished { task, nbytes, result } => return self.hear_finished(task, nbytes, result, rng),
            ToClient::Failed { task, failure } => self.hear_failed(task, &failure)?,
            ToClient::Recomputing { task } => {
                let known = self.tasks.get_mut(&task.index).ok_or("an unknown task is computed again")?;
                if known.is_held && matches!(known.got, Got::Nothing | Got::Failure) {
                    return Err(format!("{task} is computed again and was {:?}", known.got));
                }
                known.got = Got::Nothing;
            }
            ToClient::Explained { .. } | ToClient::Done { .. } => {
                return Err("an answer that nobody asked for".to_owned());
            }
            ToClient::WhoHas { holders, .. } => {
                for (task, workers, _) in holders {
                    if !workers.iter().all(|worker| self.workers_seen.contains(worker)) {
                        return Err(format!("{task} is said to be on a worker that was never named"));
                    }
                }
            }
        }
        Ok(None)
    }

    fn hear_finished(
        &mut self,
        task: TaskId,
        nbytes: u64,
        result: ResultAt,
        rng: &mut Rng,
    ) -> Result<Option<Wish>, String> {
        let known = self.tasks.get_mut(&task.index).ok_or("an unknown task has finished")?;
        let Due::Value(value) = known.due else { return Err(format!("{task} has finished and must fail")) };
        if known.is_held && matches!(known.got, Got::Place(_) | Got::Value | Got::Failure) {
            if known.complaints == 0 {
                return Err(format!("{task} has finished twice: {:?}", known.got));
            }
            known.complaints -= 1;
        }
        if nbytes != work::nbytes(value) {
            return Err(format!("{task} has {nbytes} bytes instead of {}", work::nbytes(value)));
        }
        match result {
            ResultAt::Inline(bytes) => {
                if bytes.as_ref() != value.to_le_bytes() {
                    return Err(format!("{task} has a wrong inline value"));
                }
                known.got = Got::Value;
                Ok(None)
            }
            ResultAt::Workers(workers) => {
                if !workers.iter().all(|worker| self.workers_seen.contains(worker)) {
                    return Err(format!("{task} is on a worker that was never named"));
                }
                known.got = Got::Place(workers.to_vec());
                Ok(self.fetch_again(task, rng))
            }
        }
    }

    fn hear_failed(&mut self, task: TaskId, failure: &TaskFailure) -> Result<(), String> {
        let allowed_failures = self.allowed_failures;
        let known = self.tasks.get_mut(&task.index).ok_or("an unknown task has failed")?;
        let may_be = match &failure.cause {
            FailureCause::Error { .. } | FailureCause::TimedOut { timeout_ms: HANG_TIMEOUT_MS } => {
                known.due == Due::Failure
            }
            FailureCause::WorkersLost { count } => *count > allowed_failures,
            FailureCause::DataLost { .. } => known.is_scattered,
            _ => false,
        };
        if !may_be {
            return Err(format!("{task} must not fail: {failure}"));
        }
        if known.is_held && known.got == Got::Failure {
            return Err(format!("{task} has failed twice"));
        }
        if failure.task.index > task.index || failure.task.job != task.job {
            return Err(format!("{task} has failed because of {}", failure.task));
        }
        known.got = Got::Failure;
        Ok(())
    }

    /// Fetches a result from one of its places, if it still is wanted.
    fn fetch_again(&self, task: TaskId, rng: &mut Rng) -> Option<Wish> {
        let known = self.tasks.get(&task.index).filter(|known| known.is_held)?;
        let Got::Place(workers) = &known.got else { return None };
        rng.pick(workers).map(|worker| Wish::Fetch(task, *worker))
    }

    /// A fetch of a result has ended.
    pub fn fetched(&mut self, task: TaskId, from: WorkerId, value: Option<u64>) -> Result<Option<Wish>, String> {
        let Some(known) = self.tasks.get_mut(&task.index).filter(|known| known.is_held) else { return Ok(None) };
        let Got::Place(_) = known.got else { return Ok(None) };
        match value {
            Some(value) if Due::Value(value) == known.due => {
                known.got = Got::Value;
                Ok(None)
            }
            Some(value) => Err(format!("{task} has the value {value} instead of {:?}", known.due)),
            None => {
                known.got = Got::Complained;
                known.complaints += 1;
                Ok(Some(Wish::Say(FromClient::Unreachable { task, holders: vec![from] })))
            }
        }
    }

    /// What it still waits for, and the results that it was told the place of and does not have: these it may fetch.
    pub fn unresolved(&self) -> Vec<(TaskId, Option<WorkerId>)> {
        let Some(job) = self.job else { return Vec::new() };
        self.tasks
            .iter()
            .filter(|(_, known)| known.is_held)
            .filter_map(|(index, known)| match &known.got {
                Got::Nothing | Got::Complained => Some((TaskId::new(job, *index), None)),
                Got::Place(workers) => Some((TaskId::new(job, *index), workers.first().copied())),
                Got::Value | Got::Failure => None,
            })
            .collect()
    }

    /// Submissions that were never answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Whether its job was ever opened.
    pub fn is_open(&self) -> bool {
        self.job.is_some()
    }

    /// The tasks that it has submitted.
    pub fn tasks_len(&self) -> usize {
        self.tasks.len()
    }
}
