//! A simulated client: what it submits, asks for, and makes of what the scheduler says. What it may be told is known by
//! the oracles of [`crate::check`].

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use starling_core::ids::{ClientId, JobId, KindId, TaskId, WorkerId};
use starling_core::spec::{PartOf, Requirements, TaskOptions, TaskSpec};
use starling_core::wire::{FromClient, KeptName, SubmitError, ToClient};

use crate::check::requests::{Asked, Requests};
use crate::check::values::{Submitted, Values};
use crate::plan::{self, Plan};
use crate::rng::Rng;
use crate::work::{self, FAIL, FLAKY, HANG, HANG_TIMEOUT_MS, MIX, Payload, UNKNOWN};

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

/// How the tasks of a submission hang together.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Each has some inputs among what is there; with `is_wide` now and then very many.
    Random { is_wide: bool },
    /// So many chains beside each other.
    Chains { width: u32 },
    /// A reduction, from its leaves on.
    Tree { leaves: u32 },
    /// All others take their parts of these first ones.
    Shuffle { producers: u32 },
}

/// What a client has asked to have kept without it.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    pub(crate) name: KeptName,
    pub(crate) wanted: Vec<u32>,
    /// Whether it was told that it is kept.
    pub(crate) is_promised: bool,
}

/// A client with one job.
#[derive(Debug)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    plan: Arc<Plan>,
    job: Option<JobId>,
    next_index: u32,
    /// The tasks as they were submitted.
    specs: BTreeMap<u32, TaskSpec>,
    /// The pieces of the job that were said again and have no answer.
    restoring: BTreeSet<u64>,
    pub(crate) values: Values,
    pub(crate) requests: Requests,
    workers: BTreeSet<WorkerId>,
    /// Every worker that it was ever told of.
    workers_seen: BTreeSet<WorkerId>,
    /// The submissions without an answer, and whether they must be refused. They are answered in order.
    unanswered: BTreeMap<u64, bool>,
    token: u64,
    /// What it has asked to have kept without it, and what of that was refused.
    pub(crate) keeps: BTreeMap<u64, Keep>,
    /// How many things it will still do.
    pub actions_left: u64,
}

impl Client {
    /// A client that has just connected.
    pub fn new(id: ClientId, plan: &Arc<Plan>) -> Client {
        Client {
            id,
            plan: Arc::clone(plan),
            job: None,
            next_index: 0,
            specs: BTreeMap::new(),
            restoring: BTreeSet::new(),
            values: Values::new(plan.allowed_failures, plan.store_bytes_max > 0),
            requests: Requests::default(),
            workers: BTreeSet::new(),
            workers_seen: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            token: 0,
            keeps: BTreeMap::new(),
            actions_left: plan.actions,
        }
    }

    /// What it says first.
    pub fn hello(&self) -> FromClient {
        FromClient::OpenJob { name: format!("job of {:?}", self.id), token: 0 }
    }

    /// Its job, once it is open.
    pub fn job(&self) -> Option<JobId> {
        self.job
    }

    /// Does the next thing, if its job is open.
    pub fn act(&mut self, rng: &mut Rng) -> Vec<Wish> {
        let Some(job) = self.job else { return Vec::new() };
        self.actions_left = self.actions_left.saturating_sub(1);
        match rng.below(16) {
            0..=6 => vec![Wish::Say(self.submit(job, rng))],
            7 | 8 => self.release_some(job, rng),
            9 => self.scatter(job, rng),
            10 => vec![Wish::Say(self.submit_badly(job, rng))],
            11 | 12 => vec![Wish::Say(self.cancel_some(job, rng))],
            13 => vec![Wish::Say(self.look(job, rng))],
            _ => vec![Wish::Say(self.ask(job, rng))],
        }
    }

    fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    fn submit(&mut self, job: JobId, rng: &mut Rng) -> FromClient {
        let token = self.next_token();
        self.unanswered.insert(token, false);
        let mut usable = self.values.held();
        let count = rng.between(1, self.plan.tasks_max) as u32;
        let shape = match rng.below(12) {
            0..=3 => Shape::Random { is_wide: rng.chance(30) },
            8 | 9 => Shape::Shuffle { producers: (count / 2).min(rng.between(1, 8) as u32) },
            4..=7 => Shape::Chains { width: rng.between(1, 4) as u32 },
            _ => Shape::Tree { leaves: count / 2 + 1 },
        };
        let first = self.next_index;
        let tasks = (0..count).map(|at| {
            let mut inputs = inputs(shape, first, at, &usable, rng);
            if !matches!(shape, Shape::Random { .. }) && rng.chance(5) {
                inputs.extend(rng.pick(&usable).copied());
            }
            let is_last = at + 1 == count;
            let is_wanted = rng.chance(if matches!(shape, Shape::Random { .. }) || is_last { 60 } else { 15 });
            usable.push(first + at);
            let part = match shape {
                Shape::Shuffle { producers } => part(at.checked_sub(producers), count - producers),
                _ if rng.chance(self.plan.parts) => {
                    let of = rng.between(1, 5) as u32;
                    part(Some(rng.below(u64::from(of)) as u32), of)
                }
                _ => None,
            };
            let from = if rng.chance(30) { rng.below(inputs.len() as u64 + 1) as u32 } else { 0 };
            let part = part.map(|part| PartOf { from, ..part });
            self.make_task(job, inputs, part, is_wanted, rng)
        });
        let tasks = tasks.collect();
        FromClient::Submit { job, token, kinds: work::kinds(), tasks }
    }

    fn make_task(
        &mut self,
        job: JobId,
        inputs: Vec<u32>,
        part: Option<PartOf>,
        wanted: bool,
        rng: &mut Rng,
    ) -> TaskSpec {
        let (kind, failures) = match rng.below(100) {
            roll if roll < self.plan.failing => (if rng.chance(50) { FAIL } else { HANG }, 0),
            roll if roll < self.plan.failing + 5 => (FLAKY, rng.between(1, 3) as u8),
            _ => (MIX, 0),
        };
        let nests = kind == MIX && rng.chance(self.plan.nesting);
        let timeout_ms = match kind {
            HANG => HANG_TIMEOUT_MS,
            MIX if !nests && rng.chance(self.plan.timed) => rng.between(1, 30) as u32,
            _ => 0,
        };
        let options = TaskOptions {
            priority: if rng.chance(20) { rng.below(5) as i32 - 2 } else { 0 },
            retries: u16::from(failures) + rng.below(2) as u16,
            wanted,
            timeout_ms,
            requirements: rng
                .chance(self.plan.demanding)
                .then(|| Arc::new(plan::some_requirements(self.plan.nodes, rng))),
            part,
            replicas: if rng.chance(self.plan.precious) { rng.between(1, 4) as u8 } else { 0 },
        };
        let takes = part.map(|part| (part.index, part.from));
        let payload = Payload { salt: rng.bits(), failures, is_small: rng.chance(50), nests, takes };
        self.add_task(job, kind, payload, inputs, options)
    }

    fn add_task(
        &mut self,
        job: JobId,
        kind: KindId,
        payload: Payload,
        inputs: Vec<u32>,
        options: TaskOptions,
    ) -> TaskSpec {
        let index = self.next_index;
        self.next_index += 1;
        let can_be_met = |requirements: &Arc<Requirements>| self.plan.can_be_met(requirements);
        let submitted = Submitted {
            kind,
            payload,
            inputs: inputs.clone(),
            timeout_ms: options.timeout_ms,
            is_stuck: !options.requirements.as_ref().is_none_or(can_be_met),
            is_held: options.wanted,
        };
        self.values.submit(index, submitted);
        let spec = TaskSpec {
            task: TaskId::new(job, index),
            kind,
            payload: payload.encode(),
            inputs: inputs.into_iter().collect(),
            options,
        };
        self.specs.insert(index, spec.clone());
        spec
    }

    /// The client has another link, to this scheduler or to another: what it says over it. What was on its way is lost.
    pub(crate) fn resume(&mut self, id: ClientId, rng: &mut Rng) -> Vec<FromClient> {
        self.id = id;
        self.workers.clear();
        self.workers_seen.clear();
        self.unanswered.clear();
        self.restoring.clear();
        self.requests = Requests::default();
        let Some(job) = self.job else { return vec![self.hello()] };
        let needed = self.values.resume(rng);
        let mut said = vec![FromClient::Resume { token: self.next_token(), job, name: format!("job of {id:?}") }];
        let piece_max = *rng.pick(&[1, 10, 1_000]).unwrap_or(&10);
        let mut released = Vec::new();
        let mut pieces = needed.chunks(piece_max).peekable();
        // At least one piece, which may be empty.
        loop {
            let piece = pieces.next().unwrap_or_default();
            let token = self.next_token();
            self.restoring.insert(token);
            let (mut tasks, mut values, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            for index in piece {
                let is_held = self.values.is_held(*index);
                failed.extend(self.values.failure(*index).map(|failure| (*index, failure)));
                match self.specs.get(index) {
                    Some(spec) => {
                        let mut spec = spec.clone();
                        spec.options.wanted = is_held;
                        tasks.push(spec);
                    }
                    None => {
                        values.push((*index, self.values.nbytes(*index)));
                        released.extend((!is_held).then_some(TaskId::new(job, *index)));
                    }
                }
            }
            let end = pieces.peek().is_none().then_some(self.next_index);
            said.push(FromClient::Restore { job, token, tasks, values, failed, end });
            if end.is_some() {
                break;
            }
        }
        // Values are taken to be wanted.
        said.push(FromClient::Release { tasks: released });
        // What was given up may not have been heard.
        let cancelled = needed.iter().filter(|index| self.values.is_cancelled(**index));
        said.push(FromClient::Cancel { tasks: cancelled.map(|index| TaskId::new(job, *index)).collect() });
        said
    }

    /// A task of this client has it submit another one, and waits for that: gives that one.
    pub(crate) fn submit_nested(&mut self, rng: &mut Rng) -> Option<(u32, FromClient)> {
        let job = self.job?;
        let token = self.next_token();
        self.unanswered.insert(token, false);
        let index = self.next_index;
        let payload = Payload { salt: rng.bits(), failures: 0, is_small: true, nests: false, takes: None };
        let options = TaskOptions { priority: 3, ..TaskOptions::default() };
        let task = self.add_task(job, MIX, payload, Vec::new(), options);
        Some((index, FromClient::Submit { job, token, kinds: work::kinds(), tasks: vec![task] }))
    }

    fn submit_badly(&mut self, job: JobId, rng: &mut Rng) -> FromClient {
        let token = self.next_token();
        self.unanswered.insert(token, true);
        let next = self.next_index;
        let mut options = TaskOptions::default();
        let (index, kind, input) = match rng.below(5) {
            0 => (next.wrapping_add(1 + rng.below(1 << 31) as u32), MIX, None),
            1 => (next, UNKNOWN, None),
            2 => (next, MIX, Some(next)),
            3 => {
                options.part = part(Some(rng.below(2) as u32 + 3), 3);
                (next, MIX, None)
            }
            _ => (next, MIX, Some(u32::MAX - rng.below(1_000) as u32)),
        };
        let payload = Payload { salt: 0, failures: 0, is_small: true, nests: false, takes: None }.encode();
        let inputs = input.into_iter().collect();
        let task = TaskSpec { task: TaskId::new(job, index), kind, payload, inputs, options };
        FromClient::Submit { job, token, kinds: Vec::new(), tasks: vec![task] }
    }

    /// Some of its tasks.
    fn some(&self, job: JobId, percent: u64, rng: &mut Rng) -> Vec<TaskId> {
        let indices = self.values.indices().into_iter();
        indices.filter(|_| rng.chance(percent)).map(|index| TaskId::new(job, index)).collect()
    }

    fn release_some(&mut self, job: JobId, rng: &mut Rng) -> Vec<Wish> {
        let percent = *rng.pick(&[5, 30, 100]).unwrap_or(&30);
        let mut tasks = self.some(job, percent, rng);
        tasks.retain(|task| self.values.release(task.index));
        vec![Wish::Say(FromClient::Release { tasks })]
    }

    fn scatter(&mut self, job: JobId, rng: &mut Rng) -> Vec<Wish> {
        let workers: Vec<WorkerId> = self.workers.iter().copied().collect();
        let mut holders: Vec<WorkerId> = (0..rng.between(1, 2)).filter_map(|_| rng.pick(&workers).copied()).collect();
        holders.dedup();
        let index = self.next_index;
        self.next_index += 1;
        let value = rng.bits();
        self.values.scatter(index, value, holders.clone());
        let said = FromClient::Scattered { job, values: vec![(index, work::nbytes(value), holders.clone())] };
        vec![Wish::Put(TaskId::new(job, index), value, holders), Wish::Say(said)]
    }

    /// Gives tasks up. Mostly few, since everything that needs one goes with it.
    fn cancel_some(&mut self, job: JobId, rng: &mut Rng) -> FromClient {
        if rng.chance(10) {
            self.values.indices().into_iter().for_each(|index| self.values.cancel(index));
            return FromClient::CancelJob { job };
        }
        let indices = self.values.indices();
        let tasks: Vec<u32> = (0..rng.between(1, 3)).filter_map(|_| rng.pick(&indices).copied()).collect();
        self.cancel(job, &tasks)
    }

    fn cancel(&mut self, job: JobId, tasks: &[u32]) -> FromClient {
        tasks.iter().for_each(|index| self.values.cancel(*index));
        FromClient::Cancel { tasks: tasks.iter().map(|index| TaskId::new(job, *index)).collect() }
    }

    /// Gives up what no node may ever run, as far as something that it waits for needs it.
    pub(crate) fn cancel_stuck(&mut self) -> Option<FromClient> {
        let job = self.job?;
        let stuck = self.values.stuck();
        (!stuck.is_empty()).then(|| self.cancel(job, &stuck))
    }

    /// Asks how things are.
    fn look(&mut self, job: JobId, rng: &mut Rng) -> FromClient {
        let token = self.next_token();
        if rng.chance(30) {
            self.requests.ask(token, Asked::WhoHas);
            return FromClient::WhoHas { token, tasks: self.some(job, 100, rng) };
        }
        let task = TaskId::new(job, rng.below(u64::from(self.next_index) + 3) as u32);
        self.requests.ask(token, Asked::Explain(task));
        FromClient::Explain { token, task }
    }

    /// Asks for something to be done to the data or the workers.
    fn ask(&mut self, job: JobId, rng: &mut Rng) -> FromClient {
        let token = self.next_token();
        if rng.chance(self.plan.keeping) {
            return self.keep(job, token, rng);
        }
        match rng.below(if self.plan.leaves > 0 { 3 } else { 2 }) {
            0 => {
                self.requests.ask(token, Asked::Replicate);
                let tasks = self.some(job, *rng.pick(&[3, 30]).unwrap_or(&3), rng);
                FromClient::Replicate { token, tasks, copies: rng.between(1, 4) as u32 }
            }
            1 => {
                self.requests.ask(token, Asked::Rebalance);
                FromClient::Rebalance { token }
            }
            _ => {
                let known: Vec<WorkerId> = self.workers_seen.iter().copied().collect();
                let workers: Vec<WorkerId> = (0..rng.between(1, 2)).filter_map(|_| rng.pick(&known).copied()).collect();
                self.requests.ask(token, Asked::Retire(workers.clone()));
                FromClient::Retire { token, workers }
            }
        }
    }

    /// Has some of its results kept without it.
    fn keep(&mut self, job: JobId, token: u64, rng: &mut Rng) -> FromClient {
        // Of what is known to have failed there is nothing to keep, and what it would need may be gone.
        let held: Vec<u32> =
            self.values.held().into_iter().filter(|index| self.values.failure(*index).is_none()).collect();
        let wanted: BTreeSet<u32> = (0..rng.between(1, 4)).filter_map(|_| rng.pick(&held).copied()).collect();
        let wanted: Vec<u32> = wanted.into_iter().collect();
        let name = if rng.chance(50) { KeptName::Job(job) } else { KeptName::DataSet(format!("{}-{token}", job.0)) };
        self.values.may_end_anew = true;
        self.requests.ask(token, Asked::Keep);
        self.keeps.insert(token, Keep { name: name.clone(), wanted: wanted.clone(), is_promised: false });
        FromClient::Keep { token, name, job, wanted }
    }

    /// A request has ended.
    fn done(&mut self, token: u64, problem: &str) -> Result<(), String> {
        if let Some(keep) = self.keeps.get_mut(&token) {
            keep.is_promised = problem.is_empty();
            if !keep.is_promised {
                self.keeps.remove(&token);
            }
        }
        let is_request =
            |asked: &Asked| matches!(asked, Asked::Replicate | Asked::Rebalance | Asked::Retire(_) | Asked::Keep);
        self.requests.answer(token, is_request)
    }

    /// Lets everything go.
    pub fn release_all(&mut self) -> Option<FromClient> {
        let job = self.job?;
        let mut tasks = self.values.held();
        tasks.retain(|index| self.values.release(*index));
        Some(FromClient::Release { tasks: tasks.into_iter().map(|index| TaskId::new(job, index)).collect() })
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
            ToClient::Accepted { token } if self.restoring.remove(&token) => {}
            ToClient::Accepted { token } => match self.answered(token)? {
                false => {}
                true => return Err(format!("submission {token} was accepted, and it was to be refused")),
            },
            ToClient::Rejected { token, error } => match (self.answered(token)?, &error) {
                (true, SubmitError::UnknownKinds(_) | SubmitError::Graph(_) | SubmitError::BadOptions { .. }) => {}
                (must_be, _) => return Err(format!("submission {token} was refused ({must_be}): {error}")),
            },
            ToClient::Finished { task, nbytes, result } => {
                self.values.finished(task, nbytes, result, &self.workers_seen)?;
                return Ok(self.fetch_again(task, rng));
            }
            ToClient::Failed { task, failure } => self.values.failed(task, &failure)?,
            ToClient::Recomputing { task } => self.values.recomputing(task)?,
            ToClient::Explained { token, explanation } => {
                self.requests.answer(token, |asked| *asked == Asked::Explain(explanation.task))?;
            }
            ToClient::Done { token, problem, .. } => self.done(token, &problem)?,
            ToClient::Jobs { .. } | ToClient::Kept { .. } | ToClient::Report { .. } | ToClient::TaskStream { .. } => {
                return Err(format!("nobody asked for {message:?}"));
            }
            ToClient::WhoHas { token, holders } => {
                self.requests.answer(token, |asked| *asked == Asked::WhoHas)?;
                for (task, workers, _) in holders {
                    if !workers.iter().all(|worker| self.workers_seen.contains(worker)) {
                        return Err(format!("{task} is said to be on a worker that was never named"));
                    }
                }
            }
        }
        Ok(None)
    }

    /// A submission has an answer: says whether it must be refused.
    fn answered(&mut self, token: u64) -> Result<bool, String> {
        match self.unanswered.pop_first() {
            Some((first, must_be_refused)) if first == token => Ok(must_be_refused),
            first => Err(format!("submission {token} has its answer when it is the turn of {first:?}")),
        }
    }

    /// Fetches a result from one of its places, if it still is wanted.
    fn fetch_again(&self, task: TaskId, rng: &mut Rng) -> Option<Wish> {
        rng.pick(self.values.places(task.index)).map(|worker| Wish::Fetch(task, *worker))
    }

    /// A fetch of a result has ended.
    pub fn fetched(&mut self, task: TaskId, from: WorkerId, value: Option<u64>) -> Result<Option<Wish>, String> {
        let has_reason = self.values.fetched(task, value)?;
        Ok(has_reason.then(|| Wish::Say(FromClient::Unreachable { task, holders: vec![from] })))
    }

    /// What it still waits for, and the results that it was told the place of and does not have: these it may fetch.
    pub fn unresolved(&self) -> Vec<(TaskId, Option<WorkerId>)> {
        self.job.map_or_else(Vec::new, |job| self.values.unresolved(job))
    }

    /// What it should have been told and never was, apart from outcomes.
    pub fn check_answered(&self) -> Result<(), String> {
        if self.job.is_none() {
            return Err(format!("{:?} never got its job", self.id));
        }
        if !self.restoring.is_empty() {
            return Err(format!("{:?} has {} pieces without an answer", self.id, self.restoring.len()));
        }
        if !self.unanswered.is_empty() {
            return Err(format!("{:?} has {} submissions without an answer", self.id, self.unanswered.len()));
        }
        match self.requests.unanswered() {
            Some((token, asked)) => Err(format!("{:?}: request {token} has no answer: {asked:?}", self.id)),
            None => Ok(()),
        }
    }

    /// The tasks that it has submitted.
    pub fn tasks_len(&self) -> usize {
        self.values.len()
    }
}

/// This part of so many, of every input.
fn part(index: Option<u32>, of: u32) -> Option<PartOf> {
    Some(PartOf { index: index?, of: NonZeroU32::new(of)?, from: 0 })
}

/// The inputs of the task at a place of a submission that begins with `first`.
fn inputs(shape: Shape, first: u32, at: u32, usable: &[u32], rng: &mut Rng) -> Vec<u32> {
    match shape {
        Shape::Random { is_wide } => {
            let count = match rng.below(10) {
                0..=2 => 0,
                3..=8 => rng.between(1, 3),
                _ if is_wide => usable.len() as u64,
                _ => 1,
            };
            (0..count).filter_map(|_| rng.pick(usable).copied()).collect()
        }
        Shape::Chains { width } if at < width => {
            rng.pick(usable).copied().filter(|_| rng.chance(30)).into_iter().collect()
        }
        Shape::Chains { width } => vec![first + at - width],
        Shape::Shuffle { producers } if at < producers => Vec::new(),
        Shape::Shuffle { producers } => (first..first + producers).collect(),
        Shape::Tree { leaves } if at < leaves => Vec::new(),
        Shape::Tree { leaves } => vec![first + 2 * (at - leaves), first + 2 * (at - leaves) + 1],
    }
}
