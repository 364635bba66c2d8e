//! A simulated node: the real worker machine, with a store and threads around it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use starling_core::failure::FailureCause;
use starling_core::ids::{Attempt, NodeId, TaskId, Time, WorkerId};
use starling_core::wire::{FromWorker, ToWorker, WorkerInfo};
use starling_core::worker::{Config, Effect, Event, Execution, Outcome, Worker};

use crate::cluster::node_id;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::work::{self, FAIL, FLAKY, HANG, HANG_TIMEOUT_MS, Payload};

/// What a node does some time after its machine has asked for it.
#[derive(Debug)]
pub(crate) enum Deed {
    /// Its request for outputs arrives at a peer.
    Ask { from: WorkerId, peer: NodeId, tasks: Vec<TaskId> },
    /// The answer arrives.
    Store { from: WorkerId, values: Vec<(TaskId, Option<u64>)> },
    /// A thread is done with a task, unless the task was given up before.
    Compute { task: TaskId, attempt: Attempt },
    /// A task begins to wait inside, or goes on.
    Wait { task: TaskId, attempt: Attempt, waits: bool },
    /// The machine hears of something.
    Report(Event),
}

/// So many microseconds from now, this happens.
pub(crate) type Due = (u64, Deed);

/// A task on a thread. It has taken its inputs out of the store when it began.
#[derive(Debug)]
struct Running {
    execution: Execution,
    /// `None` if one was not there.
    inputs: Option<Vec<u64>>,
    run_us: u64,
    is_suspended: bool,
}

/// A node.
#[derive(Debug)]
pub(crate) struct SimNode {
    number: u8,
    config: Config,
    machine: Worker,
    effects: Vec<Effect>,
    /// What was handed out and has not begun.
    queue: VecDeque<Execution>,
    threads: Vec<Running>,
    pub(crate) store: BTreeMap<TaskId, u64>,
    pub(crate) is_alive: bool,
    /// Counts crashes: what was under way before one never ends.
    pub(crate) life: u32,
    /// Its current registration.
    pub(crate) session: Option<WorkerId>,
}

impl SimNode {
    pub(crate) fn new(number: u8, plan: &Plan, rng: &mut Rng) -> SimNode {
        let config = Config {
            node: node_id(number),
            nthreads: rng.between(1, plan.nthreads_max) as u32,
            fetches_max: plan.fetches_max,
            fetch_bytes_max: plan.fetch_bytes_max,
            resources: Default::default(),
        };
        SimNode {
            number,
            machine: Worker::new(config.clone()).run_ahead(plan.run_ahead_us),
            config,
            effects: Vec::new(),
            queue: VecDeque::new(),
            threads: Vec::new(),
            store: BTreeMap::new(),
            is_alive: false,
            life: 0,
            session: None,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn info(&self) -> WorkerInfo {
        WorkerInfo {
            node: self.config.node,
            name: format!("node-{}", self.number),
            nthreads: self.config.nthreads,
            ..WorkerInfo::default()
        }
    }

    pub(crate) fn handle(&mut self, now: Time, event: Event) {
        self.machine.handle(now, event, &mut self.effects);
        if !cfg!(debug_assertions) {
            self.machine.check_invariants();
        }
    }

    pub(crate) fn hear(&mut self, now: Time, message: ToWorker) -> Result<(), String> {
        self.handle(now, Event::FromScheduler(message));
        Ok(())
    }

    /// A client puts a value here.
    pub(crate) fn put(&mut self, now: Time, task: TaskId, value: u64) {
        if !self.machine.accepts(task) {
            return;
        }
        self.store.insert(task, value);
        self.handle(now, Event::Stored { task, nbytes: work::nbytes(value) });
    }

    /// Performs the effects: what is to be said, and what happens when.
    pub(crate) fn take_effects(
        &mut self,
        now: Time,
        plan: &Plan,
        rng: &mut Rng,
    ) -> Result<(Vec<FromWorker>, Vec<Due>), String> {
        let (mut said, mut deeds) = (Vec::new(), Vec::new());
        // What the threads answer has effects itself.
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::ToScheduler(message) | Effect::ToSchedulerSoon(message) => said.push(message),
                    Effect::Fetch { from, node, tasks } => {
                        deeds.push((rng.between(1, plan.delay_max_us), Deed::Ask { from, peer: node, tasks }));
                    }
                    Effect::Execute(execution) => self.queue.push_back(execution),
                    Effect::TakeBack { task, attempt } => {
                        let at = self.queue.iter().position(|it| it.task == task && it.attempt == attempt);
                        let execution = at.and_then(|at| self.queue.remove(at));
                        self.handle(now, Event::TakenBack { task, attempt, execution });
                    }
                    Effect::Abandon { task, attempt } => self.abandon(now, task, attempt),
                    Effect::Leave => {}
                    Effect::Free { task } => {
                        self.store.remove(&task);
                    }
                }
            }
        }
        deeds.extend(self.begin(plan, rng)?);
        Ok((said, deeds))
    }

    /// If the task has ended already, the machine is about to hear of it.
    fn abandon(&mut self, now: Time, task: TaskId, attempt: Attempt) {
        if self.take_off(task, attempt).is_some() {
            let outcome = Outcome::Failed { name: String::new(), cause: FailureCause::Cancelled };
            self.handle(now, Event::Executed { task, attempt, run_us: 0, outcome });
        }
    }

    fn find(&self, task: TaskId, attempt: Attempt) -> Option<usize> {
        self.threads.iter().position(|it| it.execution.task == task && it.execution.attempt == attempt)
    }

    fn take_off(&mut self, task: TaskId, attempt: Attempt) -> Option<Running> {
        let at = self.find(task, attempt)?;
        Some(self.threads.remove(at))
    }

    /// Free threads take what is next. Gives what will come of it.
    pub(crate) fn begin(&mut self, plan: &Plan, rng: &mut Rng) -> Result<Vec<Due>, String> {
        let mut deeds = Vec::new();
        while self.threads.iter().filter(|it| !it.is_suspended).count() < self.config.nthreads as usize {
            let Some(execution) = self.queue.pop_front() else { break };
            let (task, attempt) = (execution.task, execution.attempt);
            let inputs = execution.inputs.iter().map(|input| self.store.get(input).copied()).collect();
            let run_us = rng.between(0, plan.run_max_us);
            if execution.kind == HANG {
                // It never ends; but time passes.
                deeds.push((u64::from(HANG_TIMEOUT_MS) * 1000 + run_us, Deed::Report(Event::Tick)));
            } else {
                deeds.push((run_us, Deed::Compute { task, attempt }));
            }
            if rng.chance(plan.waiting) {
                deeds.push((run_us / 4, Deed::Wait { task, attempt, waits: true }));
                deeds.push((run_us / 2, Deed::Wait { task, attempt, waits: false }));
            }
            self.threads.push(Running { execution, inputs, run_us, is_suspended: false });
        }
        Ok(deeds)
    }

    /// The task waits inside, or goes on. Gives what the machine hears of it, a moment later.
    pub(crate) fn wait(&mut self, task: TaskId, attempt: Attempt, waits: bool) -> Option<Deed> {
        let at = self.find(task, attempt)?;
        let running = &mut self.threads[at];
        if std::mem::replace(&mut running.is_suspended, waits) == waits {
            return None;
        }
        let event = if waits { Event::Suspended { task, attempt } } else { Event::Resumed { task, attempt } };
        Some(Deed::Report(event))
    }

    /// A thread is done: its result is in the store, and the machine will hear of it. `runs` says how often each task
    /// has run anywhere, for those that fail at first. `None` if the task was given up before.
    pub(crate) fn compute(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        runs: &mut BTreeMap<TaskId, u8>,
    ) -> Result<Option<Deed>, String> {
        let Some(running) = self.take_off(task, attempt) else { return Ok(None) };
        let execution = running.execution;
        let payload = Payload::decode(&execution.payload).ok_or("a payload was changed on its way")?;
        let runs = runs.entry(task).or_default();
        *runs = runs.saturating_add(1);
        let fails = execution.kind == FAIL || (execution.kind == FLAKY && *runs <= payload.failures);
        let outcome = match running.inputs {
            Some(inputs) if !fails => {
                let value = work::result(payload, &inputs);
                self.store.insert(task, value);
                let inline =
                    (execution.inline_result && payload.is_small).then(|| Bytes::copy_from_slice(&value.to_le_bytes()));
                Outcome::Stored { nbytes: work::nbytes(value), inline }
            }
            Some(_) => Outcome::Failed { name: "fail".to_owned(), cause: work::failure() },
            None => return Err(format!("{task} ran without its inputs")),
        };
        Ok(Some(Deed::Report(Event::Executed { task, attempt, run_us: running.run_us, outcome })))
    }

    pub(crate) fn store_fetched(&mut self, from: WorkerId, values: Vec<(TaskId, Option<u64>)>) -> Deed {
        let outcome = values
            .into_iter()
            .map(|(task, value)| {
                if let Some(value) = value {
                    self.store.insert(task, value);
                }
                (task, value.map(work::nbytes))
            })
            .collect();
        Deed::Report(Event::Fetched { from, outcome })
    }

    /// The process is killed. Gives the registration that is lost with it.
    pub(crate) fn crash(&mut self, plan: &Plan, rng: &mut Rng) -> Option<WorkerId> {
        let session = self.session.take();
        let life = self.life + 1;
        *self = SimNode { life, ..SimNode::new(self.number, plan, rng) };
        session
    }

    /// The link to the scheduler breaks. Gives the registration that is lost with it.
    pub(crate) fn lose_link(&mut self, now: Time) -> Option<WorkerId> {
        if self.session.is_some() {
            self.handle(now, Event::SchedulerLost);
        }
        self.session.take()
    }

    /// Whether nothing is left here that nobody needs.
    pub(crate) fn check_empty(&self, is_orphan: impl Fn(TaskId) -> bool) -> Result<(), String> {
        let number = self.number;
        if let Some(task) = self.store.keys().find(|task| !is_orphan(**task)) {
            return Err(format!(
                "node {number} still stores {task}: its machine knows {:?}",
                self.machine.holds(*task)
            ));
        }
        if let Some((task, _)) = self.machine.has_what().into_iter().find(|(task, _)| !is_orphan(*task)) {
            return Err(format!("node {number} believes to hold {task}"));
        }
        let (assigned, executing) = (self.machine.assignments_len(), self.machine.executing_len());
        if assigned + executing + self.machine.fetches_len() > 0 {
            return Err(format!("node {number} still has {assigned} assignments and runs {executing}"));
        }
        Ok(())
    }
}
