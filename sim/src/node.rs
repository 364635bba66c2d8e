//! A simulated node: the real worker machine, with a store and threads around it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use starling_core::failure::FailureCause;
use starling_core::ids::{Attempt, NodeId, TaskId, Time, WorkerId};
use starling_core::spec::Requirements;
use starling_core::wire::{FromWorker, ToWorker, WorkerInfo, WorkerStatus};
use starling_core::worker::{Config, Effect, Event, Execution, Outcome, TICK_US, Worker};

use crate::check::inventory::Having;
use crate::check::one_attempt::Origin;
use crate::check::resources;
use crate::clock::Clock;
use crate::cluster::node_id;
use crate::plan::{self, Plan};
use crate::rng::Rng;
use crate::work::{self, FAIL, FLAKY, HANG, HANG_TIMEOUT_MS, Payload};

/// What a node does some time after its machine has asked for it.
#[derive(Debug)]
pub(crate) enum Deed {
    /// Its request for outputs arrives at a peer.
    Ask { from: WorkerId, peer: NodeId, tasks: Vec<TaskId> },
    /// The answer arrives.
    Store { from: WorkerId, values: Vec<(TaskId, Option<(u64, Origin)>)> },
    /// A thread is done with a task, unless the task was given up before.
    Compute { thread: Thread },
    /// A task begins to wait inside, or goes on.
    Wait { thread: Thread, waits: bool },
    /// A task has its client submit another one, and waits for that.
    Nest { thread: Thread },
    /// The machine hears of something.
    Report(Vec<Event>),
}

/// One execution on a thread: the same try may be executed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread(u64);

/// So many microseconds from now, this happens.
pub(crate) type Due = (u64, Deed);

/// What was handed out, and when.
#[derive(Debug)]
struct HandedOut {
    execution: Execution,
    requirements: Option<Arc<Requirements>>,
    timeout_us: u64,
    since: u64,
}

/// A task on a thread. It has taken its inputs out of the store when it began.
#[derive(Debug)]
struct Running {
    thread: Thread,
    of: HandedOut,
    /// `None` if one was not there.
    inputs: Option<Vec<u64>>,
    run_us: u64,
    is_suspended: bool,
}

/// What an assignment said that an execution does not.
#[derive(Debug, Default)]
struct Order {
    requirements: Option<Arc<Requirements>>,
    timeout_us: u64,
}

/// A node.
#[derive(Debug)]
pub(crate) struct SimNode {
    number: u8,
    config: Config,
    machine: Worker,
    effects: Vec<Effect>,
    /// What is to be said to the scheduler, and whether now.
    outbox: Vec<FromWorker>,
    is_due: bool,
    orders: BTreeMap<(TaskId, Attempt), Order>,
    /// What was handed out and has not begun.
    queue: VecDeque<HandedOut>,
    threads: Vec<Running>,
    threads_next: u64,
    pub(crate) store: BTreeMap<TaskId, u64>,
    /// Where what is, or was, in the store comes from.
    origins: BTreeMap<TaskId, Origin>,
    /// What executions have taken that have begun, until the cluster has looked at it.
    consumed: Vec<(Origin, Vec<(TaskId, Origin)>)>,
    having: Having,
    store_bytes_max: u64,
    pub(crate) is_paused: bool,
    pub(crate) clock: Clock,
    /// Whether its clock slips, so that the machine may think that something began earlier than it did.
    slips: bool,
    /// Whether the scheduler has let it go.
    pub(crate) may_leave: bool,
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
            resources: plan.resources[usize::from(number)].clone(),
        };
        SimNode {
            number,
            machine: Worker::new(config.clone()).run_ahead(plan.run_ahead_us),
            config,
            effects: Vec::new(),
            outbox: Vec::new(),
            is_due: false,
            orders: BTreeMap::new(),
            queue: VecDeque::new(),
            threads: Vec::new(),
            threads_next: 0,
            store: BTreeMap::new(),
            origins: BTreeMap::new(),
            consumed: Vec::new(),
            having: Having::default(),
            store_bytes_max: plan.store_bytes_max,
            is_paused: false,
            clock: Clock::default(),
            slips: plan.clock_slips > 0,
            may_leave: false,
            is_alive: false,
            life: 0,
            session: None,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    pub(crate) fn machine(&self) -> &Worker {
        &self.machine
    }

    pub(crate) fn threads_len(&self) -> usize {
        self.threads.len() + self.queue.len()
    }

    /// Whether something happens here just because time passes: something is still to be said, or something on a thread may
    /// be given up for its time, and only then ends.
    pub(crate) fn waits_for_time(&self) -> bool {
        let has_deadlines = self.threads.iter().map(|it| &it.of).chain(&self.queue).any(|it| it.timeout_us > 0);
        has_deadlines || !self.outbox.is_empty()
    }

    pub(crate) fn info(&self) -> WorkerInfo {
        let [name, host, _] = plan::names(self.number);
        WorkerInfo {
            node: self.config.node,
            name,
            host,
            nthreads: self.config.nthreads,
            memory_limit: self.store_bytes_max,
            resources: self.config.resources.clone(),
        }
    }

    pub(crate) fn handle(&mut self, now: Time, event: Event) {
        if let Event::Executed { task, .. } | Event::TakenBack { task, execution: Some(_), .. } = &event {
            self.having.end(*task);
        }
        self.machine.handle(now, event, &mut self.effects);
        if !cfg!(debug_assertions) && self.machine.assignments_len() < 500 {
            self.machine.check_invariants();
        }
    }

    pub(crate) fn hear(&mut self, now: Time, message: ToWorker) {
        if let ToWorker::Compute(given) = &message {
            let timeout_us = u64::from(given.timeout_ms) * 1000;
            let order = Order { requirements: given.requirements.clone(), timeout_us };
            self.orders.insert((given.task, given.attempt), order);
        }
        self.having.hear(&message);
        self.handle(now, Event::FromScheduler(message));
    }

    /// Time passes. What may run only for so long has not been running for much longer afterwards.
    pub(crate) fn tick(&mut self, now: Time) -> Result<(), String> {
        self.is_due = true;
        self.handle(now, Event::Tick);
        let abandoned = |it: &Running| {
            self.effects.iter().any(|effect| {
                let (task, attempt) = (it.of.execution.task, it.of.execution.attempt);
                *effect == Effect::Abandon { task, attempt }
            })
        };
        let is_overdue = |it: &&Running| it.of.timeout_us > 0 && now.0 >= it.of.since + it.of.timeout_us + TICK_US;
        match self.threads.iter().filter(is_overdue).find(|it| !abandoned(it)) {
            Some(it) => Err(format!("node {}: {} runs on after its time", self.number, it.of.execution.task)),
            None => Ok(()),
        }
    }

    /// The memory is short, or is not any more.
    pub(crate) fn set_paused(&mut self, now: Time, is_paused: bool) {
        self.is_paused = is_paused;
        let status = WorkerStatus { paused: is_paused, memory_bytes: self.stored_bytes(), ..WorkerStatus::default() };
        self.handle(now, Event::Status(status));
    }

    fn stored_bytes(&self) -> u64 {
        self.store.values().map(|value| work::nbytes(*value)).sum()
    }

    /// Puts a value into the store, which may hold so many bytes then, if it is limited. Says whether there was room for it.
    fn store_value(&mut self, task: TaskId, value: u64, origin: Origin, bytes_max: u64) -> bool {
        if self.store_bytes_max > 0 && !self.store.contains_key(&task) {
            let bytes = self.stored_bytes().saturating_add(work::nbytes(value));
            if bytes > bytes_max {
                return false;
            }
        }
        self.store.insert(task, value);
        self.origins.insert(task, origin);
        true
    }

    /// A client puts a value here.
    pub(crate) fn put(&mut self, now: Time, task: TaskId, value: u64) {
        if self.machine.accepts(task) && self.store_value(task, value, Origin::default(), self.store_bytes_max) {
            self.having.put(task);
            self.handle(now, Event::Stored { task, nbytes: work::nbytes(value) });
        }
    }

    /// Performs the effects: what is to be said, and what happens when.
    pub(crate) fn take_effects(
        &mut self,
        now: Time,
        plan: &Plan,
        rng: &mut Rng,
    ) -> Result<(Vec<FromWorker>, Vec<Due>), String> {
        let mut deeds = Vec::new();
        // What the threads answer has effects itself.
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::ToScheduler(message) => {
                        self.say(message)?;
                        self.is_due = true;
                    }
                    Effect::ToSchedulerSoon(message) => self.say(message)?,
                    Effect::Fetch { .. } if self.is_paused => {
                        return Err(format!("node {} is paused and fetches", self.number));
                    }
                    Effect::Fetch { from, node, tasks } => {
                        let delay = rng.between(1, plan.delay_max_us) * self.slowness(plan);
                        deeds.push((delay, Deed::Ask { from, peer: node, tasks }));
                    }
                    Effect::Execute(execution) => self.hand_out(now, execution)?,
                    Effect::TakeBack { task, attempt } => {
                        let execution = self.take_from_queue(task, attempt);
                        self.handle(now, Event::TakenBack { task, attempt, execution });
                    }
                    Effect::Abandon { task, attempt } => self.abandon(now, task, attempt)?,
                    Effect::Leave => self.may_leave = true,
                    Effect::Free { task } => {
                        self.store.remove(&task);
                    }
                }
            }
        }
        deeds.extend(self.begin(plan, rng)?);
        // What may be said a little later is said with what may not, or when time passes, or now.
        let is_due = std::mem::take(&mut self.is_due) || rng.chance(30);
        let said = if is_due { std::mem::take(&mut self.outbox) } else { Vec::new() };
        Ok((said, deeds))
    }

    fn say(&mut self, message: FromWorker) -> Result<(), String> {
        if self.session.is_none() {
            return Err(format!("node {} has no scheduler, and says {message:?}", self.number));
        }
        self.having.say(&message, &self.store).map_err(|error| format!("node {}: {error}", self.number))?;
        self.outbox.push(message);
        Ok(())
    }

    fn slowness(&self, plan: &Plan) -> u64 {
        plan.slowness[usize::from(self.number)]
    }

    fn hand_out(&mut self, now: Time, execution: Execution) -> Result<(), String> {
        if self.is_paused {
            return Err(format!("node {} is paused and begins {}", self.number, execution.task));
        }
        self.having.hand_out(execution.task, execution.attempt);
        let order = self.orders.remove(&(execution.task, execution.attempt)).unwrap_or_default();
        let Order { requirements, timeout_us } = order;
        self.queue.push_back(HandedOut { execution, requirements, timeout_us, since: now.0 });
        Ok(())
    }

    fn take_from_queue(&mut self, task: TaskId, attempt: Attempt) -> Option<Execution> {
        let at = self.queue.iter().position(|it| it.execution.task == task && it.execution.attempt == attempt)?;
        let HandedOut { execution, requirements, timeout_us, .. } = self.queue.remove(at)?;
        // It may be handed out again.
        self.orders.insert((task, attempt), Order { requirements, timeout_us });
        Some(execution)
    }

    /// If the task has ended already, the machine is about to hear of it.
    fn abandon(&mut self, now: Time, task: TaskId, attempt: Attempt) -> Result<(), String> {
        self.having.abandon(task);
        let is_it = |it: &HandedOut| it.execution.task == task && it.execution.attempt == attempt;
        let queued = self.queue.iter().position(is_it).and_then(|at| self.queue.remove(at));
        let running = || self.threads.iter().position(|it| is_it(&it.of));
        let abandoned = match queued {
            Some(of) => Some(of),
            None => running().map(|at| self.threads.remove(at).of),
        };
        if let Some(HandedOut { timeout_us, since, .. }) = abandoned {
            if timeout_us == 0 || now.0 < since + timeout_us && !self.slips {
                return Err(format!("node {}: {task} was given up before its time", self.number));
            }
            let outcome = Outcome::Failed { name: String::new(), cause: FailureCause::Cancelled };
            self.handle(now, Event::Executed { task, attempt, run_us: 0, outcome });
        }
        Ok(())
    }

    /// What a thread runs; `None` if that was given up.
    pub(crate) fn runs(&self, thread: Thread) -> Option<TaskId> {
        let running = self.threads.iter().find(|it| it.thread == thread)?;
        Some(running.of.execution.task)
    }

    /// Under which attempt a thread runs what it runs.
    pub(crate) fn attempt(&self, thread: Thread) -> Option<Attempt> {
        let running = self.threads.iter().find(|it| it.thread == thread)?;
        Some(running.of.execution.attempt)
    }

    /// Free threads take what is next. Gives what will come of it.
    pub(crate) fn begin(&mut self, plan: &Plan, rng: &mut Rng) -> Result<Vec<Due>, String> {
        let mut deeds = Vec::new();
        while self.threads.iter().filter(|it| !it.is_suspended).count() < self.config.nthreads as usize {
            let Some(of) = self.queue.pop_front() else { break };
            let execution = &of.execution;
            let thread = Thread(self.threads_next);
            self.threads_next += 1;
            let payload = Payload::decode(&execution.payload).ok_or("a payload was changed on its way")?;
            let inputs = self.inputs_of(thread, execution, payload)?;
            let mut run_us = rng.between(0, plan.run_max_us) * self.slowness(plan);
            if rng.chance(plan.long) {
                run_us *= 50;
            }
            if execution.kind == HANG {
                // It ends long after its time, or never.
                if rng.chance(50) {
                    let late_us = u64::from(HANG_TIMEOUT_MS) * 1000 + 3 * TICK_US + run_us;
                    deeds.push((late_us, Deed::Compute { thread }));
                }
            } else if payload.nests {
                deeds.push((run_us / 2, Deed::Nest { thread }));
            } else {
                deeds.push((run_us, Deed::Compute { thread }));
                if rng.chance(plan.waiting) {
                    deeds.push((run_us / 4, Deed::Wait { thread, waits: true }));
                    deeds.push((run_us / 2, Deed::Wait { thread, waits: false }));
                }
            }
            self.threads.push(Running { thread, of, inputs, run_us, is_suspended: false });
            let required = self.threads.iter().filter_map(|it| it.of.requirements.as_deref());
            resources::check_threads(self.number, &self.config.resources, required)?;
        }
        Ok(deeds)
    }

    /// What a task takes of its inputs; `None` if one is not there.
    fn inputs_of(
        &mut self,
        thread: Thread,
        execution: &Execution,
        payload: Payload,
    ) -> Result<Option<Vec<u64>>, String> {
        let (mut taken, mut consumed) = (Vec::new(), Vec::new());
        for (at, input) in execution.inputs.iter().enumerate() {
            if input.is_part() && input.part_number() != payload.part_at(at) {
                return Err(format!("{} was given {input} as its input {at}", execution.task));
            }
            let Some(value) = self.store.get(input) else { return Ok(None) };
            taken.push(if input.is_part() { *value } else { payload.take(at, *value) });
            consumed.push((input.whole(), self.origin(*input)));
        }
        self.consumed.push((self.origin_of(thread), consumed));
        Ok(Some(taken))
    }

    /// What a peer that asks for an output, or for a part of one, is given.
    pub(crate) fn serve(&self, task: TaskId) -> Option<(u64, Origin)> {
        if let Some(value) = self.store.get(&task) {
            return Some((*value, self.origin(task)));
        }
        let whole = task.whole();
        Some((work::part(*self.store.get(&whole)?, task.part_number()?), self.origin(whole)))
    }

    /// Where an output that is in the store comes from.
    pub(crate) fn origin(&self, task: TaskId) -> Origin {
        self.origins.get(&task).copied().unwrap_or_default()
    }

    /// What executions have taken since this was asked last.
    pub(crate) fn take_consumed(&mut self) -> Vec<(Origin, Vec<(TaskId, Origin)>)> {
        std::mem::take(&mut self.consumed)
    }

    /// The origin of what a thread computes: no other one of any node.
    fn origin_of(&self, thread: Thread) -> Origin {
        Origin::of(self.number, self.life, thread.0)
    }

    /// The task waits inside, or goes on. Gives what the machine hears of it, a moment later; `None` if the task was given
    /// up, or does so already.
    pub(crate) fn wait(&mut self, thread: Thread, waits: bool) -> Option<Deed> {
        let running = self.threads.iter_mut().find(|it| it.thread == thread)?;
        let (task, attempt) = (running.of.execution.task, running.of.execution.attempt);
        if std::mem::replace(&mut running.is_suspended, waits) == waits {
            return None;
        }
        let event = if waits { Event::Suspended { task, attempt } } else { Event::Resumed { task, attempt } };
        Some(Deed::Report(vec![event]))
    }

    /// A thread is done: its result is in the store, and the machine will hear of it. `runs` says how often each task
    /// has run anywhere, for those that fail at first. `None` if the task was given up before.
    pub(crate) fn compute(&mut self, thread: Thread, runs: &mut BTreeMap<TaskId, u8>) -> Result<Option<Deed>, String> {
        let Some(at) = self.threads.iter().position(|it| it.thread == thread) else { return Ok(None) };
        let running = self.threads.remove(at);
        let execution = running.of.execution;
        let (task, attempt) = (execution.task, execution.attempt);
        let payload = Payload::decode(&execution.payload).ok_or("a payload was changed on its way")?;
        let runs = runs.entry(task).or_default();
        *runs = runs.saturating_add(1);
        let fails = execution.kind == FAIL || (execution.kind == FLAKY && *runs <= payload.failures);
        let outcome = match running.inputs {
            Some(_) if execution.kind == HANG => return Err(format!("{task} was to be given up before it ended")),
            Some(inputs) if !fails => {
                let value = work::result(payload, &inputs);
                if self.store_value(task, value, self.origin_of(thread), self.store_bytes_max) {
                    let is_inline = execution.inline_result && payload.is_small;
                    let inline = is_inline.then(|| Bytes::copy_from_slice(&value.to_le_bytes()));
                    Outcome::Stored { nbytes: work::nbytes(value), inline }
                } else {
                    Outcome::Failed { name: "mix".to_owned(), cause: FailureCause::Store { message: work::no_room() } }
                }
            }
            Some(_) => Outcome::Failed { name: "fail".to_owned(), cause: work::failure() },
            None => return Err(format!("{task} ran without its inputs")),
        };
        Ok(Some(Deed::Report(vec![Event::Executed { task, attempt, run_us: running.run_us, outcome }])))
    }

    /// An answer to a fetch has come.
    pub(crate) fn store_fetched(&mut self, from: WorkerId, values: Vec<(TaskId, Option<(u64, Origin)>)>) -> Deed {
        let mut events = Vec::new();
        let mut outcome = Vec::new();
        for (task, value) in values {
            // Several fetches at once hold their values twice for a moment, so that they find a store full that is not.
            let bytes_max = self.store_bytes_max / 4;
            let is_stored = value.is_some_and(|(value, origin)| self.store_value(task, value, origin, bytes_max));
            if value.is_some() && !is_stored {
                events.push(Event::NoRoom { task, message: work::no_room() });
            }
            outcome.push((task, value.filter(|_| is_stored).map(|(value, _)| work::nbytes(value))));
        }
        events.push(Event::Fetched { from, outcome });
        Deed::Report(events)
    }

    /// The process is killed, or ends. Gives the registration that is lost with it.
    pub(crate) fn crash(&mut self, plan: &Plan, rng: &mut Rng) -> Option<WorkerId> {
        let session = self.session.take();
        let life = self.life + 1;
        let clock = self.clock;
        *self = SimNode { life, clock, ..SimNode::new(self.number, plan, rng) };
        session
    }

    /// The node has a link to the scheduler, which knows it under this id.
    pub(crate) fn register(&mut self, now: Time, worker: WorkerId) {
        self.is_alive = true;
        self.session = Some(worker);
        self.handle(now, Event::Registered);
    }

    /// The link to the scheduler breaks. What the node has stays. Gives the registration that is lost with it.
    pub(crate) fn lose_link(&mut self, now: Time) -> Option<WorkerId> {
        let session = self.session.take();
        if session.is_some() {
            self.handle(now, Event::SchedulerLost);
        }
        self.may_leave = false;
        self.outbox.clear();
        session
    }
}
