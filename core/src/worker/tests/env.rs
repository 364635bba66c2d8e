//! A worker with its scheduler, store and threads played by the test, and effects as short lines of text: `> ...` is
//! said to the scheduler, `run 2#1 (0 1)` begins task 2 under attempt 1 with the inputs 0 and 1. Tasks are of job 0.

use std::num::NonZeroU32;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use crate::failure::FailureCause;
use crate::ids::{Attempt, JobId, KindId, NodeId, TaskId, Time, WorkerId};
use crate::spec::{Amount, PartOf, Requirements, Resources};
use crate::wire::{Assignment, FromWorker, InputAt, Priority, ToWorker, WorkerStatus};
use crate::worker::{Config, Effect, Event, Execution, Outcome, Worker};

pub(super) struct Env {
    pub(super) worker: Worker,
    pub(super) now: Time,
    is_checked: bool,
    effects: Vec<Effect>,
}

/// The worker itself is known to others under this id.
pub(super) const OWN: u32 = 0;

pub(super) fn task(index: u32) -> TaskId {
    TaskId::new(JobId(0), index)
}

/// An assignment under attempt 1. The index is the priority. Each input comes with its holders, and has 10 bytes.
pub(super) fn assignment(index: u32, inputs: &[(u32, &[u32])]) -> Assignment {
    Assignment {
        task: task(index),
        attempt: Attempt(1),
        kind: KindId(1),
        payload: Bytes::from(format!("payload {index}")),
        inputs: inputs
            .iter()
            .map(|(input, holders)| InputAt {
                attempt: crate::ids::Attempt(0),
                task: task(*input),
                nbytes: 10,
                holders: holders.iter().map(|holder| WorkerId(*holder)).collect(),
            })
            .collect(),
        priority: Priority { user: 0, submission: 0, order: index },
        inline_result: false,
        may_be_told_late: false,
        timeout_ms: 0,
        requirements: None,
        part: None,
    }
}

pub(super) fn part_of_8(index: u32, from: u32) -> PartOf {
    PartOf { index, of: NonZeroU32::new(8).unwrap(), from }
}

/// So many whole ones of a resource.
pub(super) fn needs(resource: &str, count: u64) -> Requirements {
    Requirements {
        resources: Resources::from([(resource.to_owned(), Amount::whole(count))]),
        ..Requirements::default()
    }
}

fn round_trip<T: Serialize + DeserializeOwned>(message: &T) -> T {
    postcard::from_bytes(&postcard::to_allocvec(message).unwrap()).unwrap()
}

impl Env {
    /// A worker of so many threads that knows the workers 1 to 3.
    pub(super) fn new(nthreads: u32) -> Env {
        Env::with(nthreads, 10, 1_000)
    }

    /// For more tasks than can be checked after every event.
    pub(super) fn unchecked(nthreads: u32) -> Env {
        Env { is_checked: false, ..Env::new(nthreads) }
    }

    pub(super) fn with(nthreads: u32, fetches_max: usize, fetch_bytes_max: u64) -> Env {
        let resources = Resources::from([("gpu".to_owned(), Amount::whole(2))]);
        let config = Config { node: NodeId([OWN as u8; 32]), nthreads, fetches_max, fetch_bytes_max, resources };
        let mut env = Env { worker: Worker::new(config), now: Time(0), is_checked: true, effects: Vec::new() };
        env.registered();
        env.expect(&["> has ; runs "]);
        env
    }

    pub(super) fn event(&mut self, event: Event) {
        let event = match event {
            Event::FromScheduler(message) => Event::FromScheduler(round_trip(&message)),
            other => other,
        };
        self.worker.handle(self.now, event, &mut self.effects);
        if self.is_checked {
            self.worker.check_invariants();
        }
    }

    pub(super) fn lost(&mut self) {
        self.event(Event::SchedulerLost);
    }

    /// Registered at a scheduler, which tells of the workers 0 to 3 once it was told what there is to say.
    pub(super) fn registered(&mut self) {
        self.event(Event::Registered);
        (0..=3).for_each(|peer| self.peer(peer));
    }

    pub(super) fn peer(&mut self, peer: u32) {
        let message = ToWorker::Worker { worker: WorkerId(peer), node: NodeId([peer as u8; 32]) };
        self.event(Event::FromScheduler(message));
    }

    pub(super) fn gone(&mut self, peer: u32) {
        self.event(Event::FromScheduler(ToWorker::WorkerGone { worker: WorkerId(peer) }));
    }

    pub(super) fn assign(&mut self, assignment: Assignment) {
        self.event(Event::FromScheduler(ToWorker::Compute(assignment)));
    }

    pub(super) fn compute(&mut self, index: u32, inputs: &[(u32, &[u32])]) {
        self.assign(assignment(index, inputs));
    }

    /// It takes part `part` of 8 of the inputs from number `from` on.
    pub(super) fn compute_part(&mut self, index: u32, part: u32, from: u32, inputs: &[(u32, &[u32])]) {
        self.assign(Assignment { part: Some(part_of_8(part, from)), ..assignment(index, inputs) });
    }

    pub(super) fn compute_again(&mut self, index: u32, attempt: u32, inputs: &[(u32, &[u32])]) {
        self.assign(Assignment { attempt: Attempt(attempt), ..assignment(index, inputs) });
    }

    /// Each output with its holders.
    pub(super) fn acquire(&mut self, outputs: &[(u32, &[u32])]) {
        let inputs = assignment(0, outputs).inputs;
        self.event(Event::FromScheduler(ToWorker::Acquire { inputs }));
    }

    pub(super) fn steal(&mut self, index: u32, attempt: u32) {
        let message = ToWorker::Steal { task: task(index), attempt: Attempt(attempt) };
        self.event(Event::FromScheduler(message));
    }

    /// So many microseconds pass.
    pub(super) fn tick(&mut self, micros: u64) {
        self.now.0 += micros;
        self.event(Event::Tick);
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.event(Event::Status(WorkerStatus { paused, ..WorkerStatus::default() }));
    }

    pub(super) fn suspended(&mut self, index: u32, attempt: u32) {
        self.event(Event::Suspended { task: task(index), attempt: Attempt(attempt) });
    }

    pub(super) fn resumed(&mut self, index: u32, attempt: u32) {
        self.event(Event::Resumed { task: task(index), attempt: Attempt(attempt) });
    }

    /// The threads give a task back, which they had not begun.
    pub(super) fn not_begun(&mut self, index: u32, attempt: u32) {
        let (task, attempt) = (task(index), Attempt(attempt));
        let execution = Execution {
            task,
            attempt,
            kind: KindId(1),
            payload: Bytes::from(format!("payload {index}")),
            inputs: SmallVec::new(),
            part: None,
            inline_result: false,
            user_priority: 0,
        };
        self.event(Event::TakenBack { task, attempt, execution: Some(execution) });
    }

    /// The threads do not give a task back, because they have begun it.
    pub(super) fn begun(&mut self, index: u32, attempt: u32) {
        self.event(Event::TakenBack { task: task(index), attempt: Attempt(attempt), execution: None });
    }

    /// Hands tasks out for so many microseconds of each thread before it is free. Tasks take 7, by `executed`.
    pub(super) fn run_ahead(&mut self, micros: u64) {
        let fresh = Worker::new(self.worker.config.clone());
        self.worker = std::mem::replace(&mut self.worker, fresh).run_ahead(micros);
    }

    pub(super) fn cancel(&mut self, index: u32, attempt: u32) {
        let message = ToWorker::Cancel { task: task(index), attempt: Attempt(attempt) };
        self.event(Event::FromScheduler(message));
    }

    pub(super) fn free(&mut self, index: u32) {
        self.event(Event::FromScheduler(ToWorker::Free { task: task(index) }));
    }

    pub(super) fn leave_wanted(&mut self) {
        self.event(Event::LeaveWanted);
    }

    /// The peer gives those outputs that have a size.
    pub(super) fn fetched(&mut self, from: u32, outcome: &[(u32, Option<u64>)]) {
        let outcome = outcome.iter().map(|(index, nbytes)| (task(*index), *nbytes)).collect();
        self.event(Event::Fetched { from: WorkerId(from), outcome });
    }

    /// The peer gives parts: of which output, which part, of which size.
    pub(super) fn fetched_parts(&mut self, from: u32, outcome: &[(u32, u32, Option<u64>)]) {
        let outcome = outcome.iter().map(|(index, part, nbytes)| (task(*index).part(*part), *nbytes)).collect();
        self.event(Event::Fetched { from: WorkerId(from), outcome });
    }

    pub(super) fn executed(&mut self, index: u32, attempt: u32) {
        let outcome = Outcome::Stored { nbytes: 10, inline: Some(Bytes::from_static(b"small")) };
        self.event(Event::Executed { task: task(index), attempt: Attempt(attempt), run_us: 7, outcome });
    }

    pub(super) fn failed(&mut self, index: u32, attempt: u32) {
        let cause = FailureCause::UnknownKind;
        let outcome = Outcome::Failed { name: "work".into(), cause };
        self.event(Event::Executed { task: task(index), attempt: Attempt(attempt), run_us: 7, outcome });
    }

    /// A value is in the store.
    pub(super) fn stored(&mut self, index: u32) {
        self.event(Event::Stored { task: task(index), nbytes: 10 });
    }

    pub(super) fn holds(&self, index: u32) -> bool {
        self.worker.holds(task(index))
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.effects).iter().map(describe).collect()
    }

    #[track_caller]
    pub(super) fn expect(&mut self, lines: &[&str]) {
        assert_eq!(self.take(), lines);
    }

    #[track_caller]
    pub(super) fn expect_idle(&self) {
        let worker = &self.worker;
        assert_eq!((worker.assignments_len(), worker.executing_len(), worker.fetches_len()), (0, 0, 0));
        assert!(worker.missing.is_empty() && worker.stale.is_empty(), "{worker:?}");
    }
}

/// `3`, or `3/1` for a part of its output.
fn show(task: &TaskId) -> String {
    task.to_string().trim_start_matches("0.").to_owned()
}

fn show_tasks(tasks: &[TaskId]) -> String {
    tasks.iter().map(show).collect::<Vec<_>>().join(" ")
}

fn show_ids<T>(ids: &[T], show: impl Fn(&T) -> u32) -> String {
    ids.iter().map(|id| show(id).to_string()).collect::<Vec<_>>().join(" ")
}

fn describe(effect: &Effect) -> String {
    match effect {
        Effect::ToScheduler(message) => format!("> {}", describe_message(&round_trip(message))),
        Effect::ToSchedulerSoon(message) => format!(">> {}", describe_message(&round_trip(message))),
        Effect::Fetch { from, node, tasks } => {
            assert_eq!(node.0[0], from.0 as u8);
            format!("fetch {} from {}", show_tasks(tasks), from.0)
        }
        Effect::Execute(execution) => {
            assert_eq!(execution.payload, format!("payload {}", execution.task.index));
            let inputs = show_tasks(&execution.inputs);
            format!("run {}#{} ({inputs})", execution.task.index, execution.attempt.0)
        }
        Effect::Free { task } => format!("free {}", show(task)),
        Effect::TakeBack { task, attempt } => format!("take back {}#{}", task.index, attempt.0),
        Effect::Abandon { task, attempt } => format!("abandon {}#{}", task.index, attempt.0),
        Effect::Leave => "leave".into(),
    }
}

fn describe_message(message: &FromWorker) -> String {
    match message {
        FromWorker::Finished { task, attempt, nbytes, run_us, inline } => {
            let inline = if inline.is_some() { " inline" } else { "" };
            format!("finished {}#{}: {nbytes} bytes{inline} in {run_us}", task.index, attempt.0)
        }
        FromWorker::Failed { task, attempt, failure } => {
            assert_eq!((failure.task, failure.node), (*task, Some(NodeId([OWN as u8; 32]))));
            format!("failed {}#{}", task.index, attempt.0)
        }
        FromWorker::InputsMissing { task, attempt, missing } => {
            let missing: Vec<String> = missing
                .iter()
                .map(|(input, tried)| format!("{} not at {}", show(input), show_ids(tried, |worker| worker.0)))
                .collect();
            format!("missing for {}#{}: {}", task.index, attempt.0, missing.join("; "))
        }
        FromWorker::Inventory(inventory) => {
            let outputs: Vec<String> = inventory
                .outputs
                .iter()
                .map(|(task, attempt, nbytes)| format!("{}#{} {nbytes}", show(task), attempt.0))
                .collect();
            let running: Vec<String> = inventory
                .running
                .iter()
                .map(|running| {
                    let waits = if running.is_suspended { " suspended" } else { "" };
                    format!("{}#{}{waits}", show(&running.task), running.attempt.0)
                })
                .collect();
            format!(
                "has {}; runs {}{}",
                outputs.join(", "),
                running.join(", "),
                if inventory.is_last { "" } else { "..." }
            )
        }
        FromWorker::Replica { task, .. } => format!("replica {}", show(task)),
        FromWorker::StealAnswer { task, attempt, given } => {
            format!("{} {}#{}", if *given { "gives" } else { "keeps" }, task.index, attempt.0)
        }
        FromWorker::Suspended { task, attempt } => format!("suspended {}#{}", task.index, attempt.0),
        FromWorker::Resumed { task, attempt } => format!("resumed {}#{}", task.index, attempt.0),
        FromWorker::NotAcquired { task } => format!("not acquired {}", show(task)),
        FromWorker::Status(status) => format!("status paused={}", status.paused),
        FromWorker::Leaving => "leaving".into(),
    }
}
