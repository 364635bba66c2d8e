//! The worker's actor: the machine between the scheduler's link, the executor's threads and the mesh.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use starling_core::failure::FailureCause;
use starling_core::ids::{Attempt, NodeId, TaskId, Time, WorkerId};
use starling_core::wire::{FromWorker, ToWorker, WorkerStatus};
use starling_core::worker::{Effect, Event, Execution, Outcome, TICK_US, Worker};
use starling_runtime::executor::Executor;
use starling_runtime::inbox::Inbox;
use starling_runtime::mesh::Mesh;
use starling_runtime::store::{Admitted, Removed, Store, StoreError};
use starling_runtime::value::Value;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::host::Vital;
use crate::link::Outbox;
use crate::registry_actor;

/// For how long completions that may be told late are gathered while other tasks run here, and how many.
const GATHER: Duration = Duration::from_millis(2);
const GATHERED_MAX: usize = 64;
/// Tasks that take no longer than this are tiny, in microseconds: waking a thread to tell of one takes longer.
const TINY_US: u64 = 20;
/// For how long completions of tiny tasks are gathered, others that wait for them or not.
const GATHER_TINY: Duration = Duration::from_micros(100);

/// What reaches the worker's actor.
pub(crate) enum Input {
    /// Registered at a scheduler: say things there from now on.
    Registered { outbox: Outbox<FromWorker> },
    /// Messages from the scheduler, in order.
    FromScheduler(Vec<ToWorker>),
    /// An execution or a fetch has ended.
    Event(Event),
    /// A peer puts a value into the store, and waits for the answer: nothing, or why not.
    Put { task: TaskId, value: Admitted, answer: SyncSender<Result<(), String>> },
    /// The link to the scheduler is closed. Outputs stay, and stay published.
    SchedulerLost,
    /// What was held back for more of the kind has waited long enough.
    Flush,
}

pub(crate) struct WorkerActor {
    machine: Worker,
    inbox: Inbox<Input>,
    registry: Inbox<registry_actor::Input>,
    /// The outputs that other nodes are told of.
    published: HashSet<TaskId>,
    started: Instant,
    executor: Executor,
    store: Arc<Store>,
    mesh: Mesh,
    /// Where fetches run.
    runtime: Handle,
    /// Told when the scheduler has let this worker go.
    leave: Arc<Notify>,
    /// `None` while there is no scheduler.
    outbox: Option<Outbox<FromWorker>>,
    /// What was last known of this worker's memory and threads.
    status: WorkerStatus,
    /// Reused from event to event, and one while the other is being performed.
    effects: Vec<Effect>,
    spare: Vec<Effect>,
    to_scheduler: Vec<FromWorker>,
    /// Whether something in it should not wait for more.
    is_urgent: bool,
    /// Whether an [`Input::Flush`] is on its way.
    is_flush_due: bool,
    /// When something was last said to the scheduler.
    last_sent: Instant,
    to_registry: Vec<(TaskId, Option<u64>)>,
}

impl WorkerActor {
    pub(crate) fn new(
        machine: Worker,
        inbox: Inbox<Input>,
        registry: Inbox<registry_actor::Input>,
        executor: Executor,
        store: Arc<Store>,
        mesh: Mesh,
        runtime: Handle,
    ) -> WorkerActor {
        WorkerActor {
            machine,
            inbox,
            registry,
            published: HashSet::new(),
            started: Instant::now(),
            executor,
            store,
            mesh,
            runtime,
            leave: Arc::default(),
            outbox: None,
            status: WorkerStatus::default(),
            effects: Vec::new(),
            spare: Vec::new(),
            to_scheduler: Vec::new(),
            is_urgent: false,
            is_flush_due: false,
            last_sent: Instant::now(),
            to_registry: Vec::new(),
        }
    }

    /// The same actor, which tells this when the scheduler has let the worker go.
    pub(crate) fn told_to_leave(self, leave: Arc<Notify>) -> WorkerActor {
        WorkerActor { leave, ..self }
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        self.machine.handle(now, event, &mut self.effects);
    }

    /// The time of the events that come together: asking the clock costs as much as a small event.
    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    /// The memory is known elsewhere, the threads here.
    fn on_status(&mut self, status: WorkerStatus) {
        self.status = WorkerStatus { threads_abandoned: self.executor.abandoned(), ..status };
        self.event(Event::Status(self.status));
    }

    fn put(&mut self, task: TaskId, value: Admitted) -> Result<(), String> {
        // What earlier events want freed must not take the new value with it.
        self.perform();
        if self.outbox.is_none() {
            return Err("the worker has no scheduler".to_owned());
        }
        if !self.machine.accepts(task) {
            return Err(format!("something is still under way here under the id {task}"));
        }
        let nbytes = self.store.place(task, value);
        self.publish(task, nbytes);
        self.event(Event::Stored { task, nbytes });
        Ok(())
    }

    /// Drops values, whose `Drop` may be the user's: large ones elsewhere, since that takes its time.
    fn drop_values(&self, values: Vec<Removed>) {
        const LARGE: u64 = 64 * 1024;
        if values.is_empty() {
            return;
        }
        let is_large = values.iter().map(Removed::memory_bytes).sum::<u64>() > LARGE;
        let dropping = move || {
            if catch_unwind(AssertUnwindSafe(|| drop(values))).is_err() {
                tracing::warn!("a value panicked when it was dropped");
            }
        };
        if is_large {
            self.runtime.spawn_blocking(dropping);
        } else {
            dropping();
        }
    }

    fn publish(&mut self, task: TaskId, nbytes: u64) {
        if registry_actor::is_published(nbytes) && self.published.insert(task) {
            self.to_registry.push((task, Some(nbytes)));
        }
    }

    /// Fetches in a task of its own; what arrives is in the store before the machine is told.
    fn fetch(&self, from: WorkerId, node: NodeId, tasks: Vec<TaskId>) {
        let (mesh, store, inbox) = (self.mesh.clone(), Arc::clone(&self.store), self.inbox.clone());
        self.runtime.spawn(async move {
            let mut outcome: BTreeMap<TaskId, Option<u64>> = tasks.iter().map(|&task| (task, None)).collect();
            // What has to wait for the disk does so on another thread; the size of a fetch bounds it.
            let mut waiting = Vec::new();
            let mut refused = Vec::new();
            let fetched = mesh
                .fetch(node, &tasks, &mut |task, block| {
                    let Some(encoded) = block else { return };
                    match store.admit_now(Value::Encoded(encoded)) {
                        Ok(Ok(admitted)) => drop(outcome.insert(task, Some(store.place(task, admitted)))),
                        Ok(Err(value)) => waiting.push((task, value)),
                        Err(error) => refused.push((task, error)),
                    }
                })
                .await;
            if !waiting.is_empty() {
                let store = Arc::clone(&store);
                let inserting = move || -> Vec<(TaskId, Result<u64, StoreError>)> {
                    waiting.into_iter().map(|(task, value)| (task, store.insert(task, value))).collect()
                };
                // Fails only when the node ends.
                for (task, inserted) in tokio::task::spawn_blocking(inserting).await.unwrap_or_default() {
                    match inserted {
                        Ok(nbytes) => drop(outcome.insert(task, Some(nbytes))),
                        Err(error) => refused.push((task, error)),
                    }
                }
            }
            for (task, error) in refused {
                tracing::warn!(%task, %error, "a fetched value was dropped");
                inbox.push(Input::Event(Event::NoRoom { task, message: error.to_string() }));
            }
            if let Err(error) = fetched {
                tracing::warn!(%node, %error, "a fetch failed");
            }
            inbox.push(Input::Event(Event::Fetched { from, outcome: outcome.into_iter().collect() }));
        });
    }

    fn perform_one(&mut self, effect: Effect, freed: &mut Vec<Removed>) {
        match effect {
            Effect::ToScheduler(message) => {
                self.is_urgent |= !matches!(message, FromWorker::Finished { .. }) || !self.is_tiny();
                self.say(message);
            }
            Effect::ToSchedulerSoon(message) => self.say(message),
            Effect::Fetch { from, node, tasks } => self.fetch(from, node, tasks),
            Effect::Execute(execution) => self.execute(execution),
            Effect::TakeBack { task, attempt } => {
                let execution = self.executor.take_back(task, attempt);
                self.event(Event::TakenBack { task, attempt, execution });
            }
            Effect::Abandon { task, attempt } => {
                // If it has ended meanwhile, its end is told as always.
                if self.executor.abandon(task, attempt) {
                    tracing::warn!(%task, attempt = attempt.0, "a task was given up for its time");
                    self.failed(task, attempt, FailureCause::Cancelled);
                }
            }
            Effect::Leave => self.leave.notify_one(),
            Effect::Free { task } => {
                freed.extend(self.store.remove(task));
                if self.published.remove(&task) {
                    self.to_registry.push((task, None));
                }
            }
        }
    }

    fn say(&mut self, message: FromWorker) {
        match &message {
            FromWorker::Finished { task, nbytes, .. } => self.publish(*task, *nbytes),
            FromWorker::Replica { task, .. } => self.publish(*task, self.store.nbytes_of(*task)),
            // Some of it may have come while there was no scheduler.
            FromWorker::Inventory(inventory) => {
                inventory.outputs.iter().for_each(|(task, _, nbytes)| self.publish(*task, *nbytes));
            }
            _ => {}
        }
        self.to_scheduler.push(message);
    }

    /// Whether the tasks here mostly take less time than waking a thread to tell of them.
    fn is_tiny(&self) -> bool {
        self.machine.mean_us().is_some_and(|mean_us| mean_us <= TINY_US)
    }

    /// Whether what is to be said may wait for more of the kind, because other tasks are being run and will soon have ended
    /// too.
    fn may_gather(&self) -> bool {
        let gather = if self.is_tiny() { GATHER_TINY } else { GATHER };
        !self.is_urgent
            && self.machine.is_busy()
            && self.to_scheduler.len() < GATHERED_MAX
            && self.last_sent.elapsed() < gather
    }

    /// Sees to it that what is held back is sent even if nothing else happens here.
    fn send_later(&mut self) {
        if std::mem::replace(&mut self.is_flush_due, true) {
            return;
        }
        let inbox = self.inbox.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(GATHER).await;
            inbox.push(Input::Flush);
        });
    }

    /// Sends what there is to be said to the scheduler.
    fn send(&mut self) {
        self.is_urgent = false;
        self.last_sent = Instant::now();
        if let Some(outbox) = &self.outbox {
            // If it is closed, the reader of the same link tells so.
            let _ = outbox.send(self.to_scheduler.drain(..));
        }
        self.to_scheduler.clear();
    }

    fn execute(&mut self, execution: Execution) {
        if let Err(execution) = self.executor.execute(execution) {
            // The machine counts free threads, so this is a fault of ours; the task is told as failed rather than lost.
            tracing::error!(task = %execution.task, "no thread is free for a task");
            let cause = FailureCause::Store { message: "no thread is free".into() };
            self.failed(execution.task, execution.attempt, cause);
        }
    }

    fn failed(&mut self, task: TaskId, attempt: Attempt, cause: FailureCause) {
        let outcome = Outcome::Failed { name: String::new(), cause };
        self.event(Event::Executed { task, attempt, run_us: 0, outcome });
    }
}

impl Vital for WorkerActor {
    type Input = Input;
    const TICK: Option<Duration> = Some(Duration::from_micros(TICK_US));

    fn input(&mut self, input: Input) {
        match input {
            Input::Registered { outbox } => {
                // What is begun or ended by now is told of as such.
                self.perform();
                self.outbox = Some(outbox);
                self.event(Event::Registered);
            }
            Input::FromScheduler(messages) => {
                let now = self.now();
                for message in messages {
                    self.machine.handle(now, Event::FromScheduler(message), &mut self.effects);
                }
            }
            Input::Event(Event::Status(status)) => self.on_status(status),
            Input::Event(event) => self.event(event),
            Input::Put { task, value, answer } => {
                // The peer may have given up waiting.
                let _ = answer.send(self.put(task, value));
            }
            Input::Flush => (self.is_flush_due, self.is_urgent) = (false, true),
            Input::SchedulerLost => {
                self.perform();
                self.outbox = None;
                // What was held back, or has not reached it, is told to the next one by the inventory.
                self.to_scheduler.clear();
                self.event(Event::SchedulerLost);
            }
        }
    }

    fn perform(&mut self) {
        let mut effects = std::mem::take(&mut self.spare);
        let mut freed = Vec::new();
        // What the threads answer may have effects itself.
        while !self.effects.is_empty() {
            std::mem::swap(&mut effects, &mut self.effects);
            for effect in effects.drain(..) {
                self.perform_one(effect, &mut freed);
            }
        }
        self.spare = effects;
        self.drop_values(freed);
        if !self.to_registry.is_empty() {
            self.registry.push(registry_actor::Input::Own(std::mem::take(&mut self.to_registry)));
        }
        if self.to_scheduler.is_empty() {
            return;
        }
        if self.may_gather() {
            self.send_later();
        } else {
            self.send();
        }
    }

    fn tick(&mut self) {
        let threads_abandoned = self.executor.abandoned();
        if threads_abandoned != self.status.threads_abandoned {
            self.on_status(self.status);
        }
        self.event(Event::Tick);
    }
}
