//! A scheduler as it is configured in a cluster, with its peers and its clock played by the test.

use std::sync::Arc;

use super::super::env::{failure, replica, round_trip, task};
use crate::ids::{Attempt, ClientId, JobId, NodeId, TaskId, Time, WorkerId};
use crate::scheduler::{Config, Effects, Event, Scheduler, TaskState};
use crate::spec::{Amount, Requirements, Resources, TaskSpec};
use crate::wire::{FromClient, FromWorker, KindInfo, ToClient, ToWorker, WorkerInfo, WorkerStatus};

/// Messages are short lines: `w1 < compute 2#1`, `w1 < steal 2#1`, `c0 < failed 2`. Acceptances, and who is in the
/// cluster, are left out.
pub(super) struct Play {
    pub(super) scheduler: Scheduler,
    pub(super) now: u64,
    effects: Effects,
}

/// `gpu=2` and the like.
pub(super) fn resources(amounts: &[(&str, u64)]) -> Resources {
    amounts.iter().map(|(name, thousandths)| ((*name).to_owned(), Amount(*thousandths))).collect()
}

/// The task, which takes so much of these resources, in thousandths.
pub(super) fn taking(mut spec: TaskSpec, amounts: &[(&str, u64)]) -> TaskSpec {
    spec.options.requirements =
        Some(Arc::new(Requirements { resources: resources(amounts), ..Requirements::default() }));
    spec
}

/// The task, which only these workers may run.
pub(super) fn only_at(mut spec: TaskSpec, workers: &[&str], allow_other_workers: bool) -> TaskSpec {
    let workers = workers.iter().map(|name| (*name).to_owned()).collect();
    spec.options.requirements =
        Some(Arc::new(Requirements { workers, allow_other_workers, ..Requirements::default() }));
    spec
}

impl Play {
    /// Client 0 with job 0, and workers `w1`, `w2`, ... of so many threads, on hosts of the same numbers.
    pub(super) fn new(nthreads: &[u32]) -> Play {
        Play::with(nthreads, |_| {})
    }

    pub(super) fn with(nthreads: &[u32], change: impl FnOnce(&mut Config)) -> Play {
        let kind =
            |kind, name: &str| KindInfo { kind: crate::ids::KindId(kind), name: name.into(), signature: "fn()".into() };
        let mut config =
            Config { kinds: vec![kind(1, "work"), kind(2, "other")], allowed_failures: 2, ..Config::default() };
        change(&mut config);
        let mut play = Play { scheduler: Scheduler::new(config), now: 0, effects: Effects::default() };
        play.event(Event::ClientJoined { client: ClientId(0) });
        play.client(FromClient::OpenJob { name: "job".into(), token: 0 });
        for (worker, nthreads) in (1..).zip(nthreads) {
            play.join(worker, *nthreads, &[]);
        }
        play.effects = Effects::default();
        play
    }

    pub(super) fn event(&mut self, event: Event) {
        let event = round_trip(&event);
        self.scheduler.handle(Time(self.now), event, &mut self.effects);
        self.scheduler.check_invariants();
    }

    pub(super) fn join(&mut self, worker: u32, nthreads: u32, amounts: &[(&str, u64)]) {
        let info = WorkerInfo {
            node: NodeId([worker as u8; 32]),
            name: format!("w{worker}"),
            host: format!("host{worker}"),
            nthreads,
            resources: resources(amounts),
            ..WorkerInfo::default()
        };
        self.event(Event::WorkerJoined { worker: WorkerId(worker), info });
    }

    pub(super) fn lose(&mut self, worker: u32) {
        self.event(Event::WorkerLost { worker: WorkerId(worker) });
    }

    pub(super) fn client(&mut self, message: FromClient) {
        self.event(Event::FromClient { client: ClientId(0), message });
    }

    pub(super) fn worker(&mut self, worker: u32, message: FromWorker) {
        self.event(Event::FromWorker { worker: WorkerId(worker), message });
    }

    pub(super) fn submit(&mut self, tasks: Vec<TaskSpec>) {
        self.client(FromClient::Submit { job: JobId(0), token: 1, kinds: vec![], tasks });
    }

    /// Puts a value of so many bytes on workers.
    pub(super) fn scatter(&mut self, index: u32, nbytes: u64, workers: &[u32]) {
        let workers = workers.iter().map(|worker| WorkerId(*worker)).collect();
        self.client(FromClient::Scattered { job: JobId(0), values: vec![(index, nbytes, workers)] });
    }

    pub(super) fn release(&mut self, tasks: &[u32]) {
        self.client(FromClient::Release { tasks: tasks.iter().map(|index| task(*index)).collect() });
    }

    pub(super) fn cancel(&mut self, tasks: &[u32]) {
        self.client(FromClient::Cancel { tasks: tasks.iter().map(|index| task(*index)).collect() });
    }

    pub(super) fn finish(&mut self, worker: u32, index: u32, attempt: u32) {
        self.finish_with(worker, index, attempt, 10, 5_000);
    }

    pub(super) fn finish_with(&mut self, worker: u32, index: u32, attempt: u32, nbytes: u64, run_us: u64) {
        let (task, attempt) = (task(index), Attempt(attempt));
        self.worker(worker, FromWorker::Finished { task, attempt, nbytes, run_us, inline: None });
    }

    pub(super) fn fail(&mut self, worker: u32, index: u32, attempt: u32) {
        let (task, attempt) = (task(index), Attempt(attempt));
        self.worker(worker, FromWorker::Failed { task, attempt, failure: failure(index) });
    }

    pub(super) fn answer(&mut self, worker: u32, index: u32, attempt: u32, given: bool) {
        let (task, attempt) = (task(index), Attempt(attempt));
        self.worker(worker, FromWorker::StealAnswer { task, attempt, given });
    }

    pub(super) fn pause(&mut self, worker: u32, paused: bool) {
        self.worker(worker, FromWorker::Status(WorkerStatus { paused, ..WorkerStatus::default() }));
    }

    pub(super) fn replica(&mut self, worker: u32, index: u32) {
        let replica = replica(&self.scheduler, WorkerId(worker), task(index));
        self.worker(worker, replica);
    }

    pub(super) fn not_acquired(&mut self, worker: u32, index: u32) {
        self.worker(worker, FromWorker::NotAcquired { task: task(index) });
    }

    pub(super) fn retire(&mut self, workers: &[u32]) {
        let workers = workers.iter().map(|worker| WorkerId(*worker)).collect();
        self.client(FromClient::Retire { token: 9, workers });
    }

    pub(super) fn replicate(&mut self, tasks: &[u32], copies: u32) {
        let tasks = tasks.iter().map(|index| task(*index)).collect();
        self.client(FromClient::Replicate { token: 8, tasks, copies });
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, micros: u64) {
        self.now += micros;
        self.event(Event::Tick);
    }

    pub(super) fn state(&self, index: u32) -> TaskState {
        self.scheduler.state(task(index))
    }

    /// The worker and attempt under which a task is being run.
    pub(super) fn place(&self, index: u32) -> Option<(u32, u32)> {
        self.scheduler.processing_on(task(index)).map(|(worker, attempt)| (worker.0, attempt.0))
    }

    pub(super) fn holders(&self, index: u32) -> Vec<u32> {
        let mut holders: Vec<u32> = self.scheduler.who_has(task(index)).iter().map(|worker| worker.0).collect();
        holders.sort_unstable();
        holders
    }

    /// All messages since the last call, in order.
    pub(super) fn take(&mut self) -> Vec<String> {
        let effects = std::mem::take(&mut self.effects);
        let to_workers = effects
            .to_workers
            .iter()
            .filter_map(|(worker, message)| Some(format!("w{} < {}", worker.0, to_worker(&round_trip(message))?)));
        let to_clients = effects
            .to_clients
            .iter()
            .filter_map(|(client, message)| Some(format!("c{} < {}", client.0, to_client(&round_trip(message))?)));
        to_workers.chain(to_clients).collect()
    }

    #[track_caller]
    pub(super) fn expect(&mut self, lines: &[&str]) {
        assert_eq!(self.take(), lines);
    }

    /// Does something that another test asserts the effects of.
    pub(super) fn quietly(&mut self, act: impl FnOnce(&mut Play)) {
        act(self);
        self.effects = Effects::default();
    }
}

fn indices(tasks: impl IntoIterator<Item = TaskId>) -> String {
    tasks.into_iter().map(|task| task.index.to_string()).collect::<Vec<_>>().join(",")
}

fn to_worker(message: &ToWorker) -> Option<String> {
    Some(match message {
        ToWorker::Worker { .. } | ToWorker::WorkerGone { .. } => return None,
        ToWorker::Compute(assignment) => format!("compute {}#{}", assignment.task.index, assignment.attempt.0),
        ToWorker::Cancel { task, attempt } => format!("cancel {}#{}", task.index, attempt.0),
        ToWorker::Free { task } => format!("free {}", task.index),
        ToWorker::Steal { task, attempt } => format!("steal {}#{}", task.index, attempt.0),
        ToWorker::Acquire { inputs } => format!("acquire {}", indices(inputs.iter().map(|input| input.task))),
        ToWorker::Leave => "leave".into(),
    })
}

fn to_client(message: &ToClient) -> Option<String> {
    Some(match message {
        ToClient::Worker { .. }
        | ToClient::WorkerGone { .. }
        | ToClient::JobOpened { .. }
        | ToClient::Accepted { .. } => {
            return None;
        }
        ToClient::Rejected { error, .. } => format!("rejected: {error}"),
        ToClient::Finished { task, .. } => format!("finished {}", task.index),
        ToClient::Failed { task, failure } => format!("failed {}: {}", task.index, failure.cause),
        ToClient::Recomputing { task } => format!("recomputing {}", task.index),
        ToClient::WhoHas { .. }
        | ToClient::Explained { .. }
        | ToClient::Jobs { .. }
        | ToClient::Kept { .. }
        | ToClient::Report { .. }
        | ToClient::TaskStream { .. } => "an answer".into(),
        ToClient::Done { moved, problem, .. } => format!("done: {moved} moved; {problem}"),
    })
}
