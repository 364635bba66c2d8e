//! A scheduler with its peers played by the test, and effects as short lines of text.
//!
//! Workers and clients are told first, in the order in which the machine spoke: `w1 < compute 2#1 (0@1,2)` tells worker 1
//! to compute task 2 under attempt 1 with the input 0, which workers 1 and 2 hold. Tasks are of job 0 unless said. Attempts of the
//! scheduler of term 3 are written `#t3.1`.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{FailureCause, TaskFailure};
use crate::ids::{Attempt, ClientId, JobId, KindId, NodeId, TaskId, Term, Time, WorkerId};
use crate::ledger::Entry;
use crate::scheduler::{Config, Effects, Event, Scheduler, TaskState};
use crate::spec::{Amount, TaskOptions, TaskSpec};
use crate::task_stream::StreamPage;
use crate::wire::{
    FromClient, FromWorker, Inventory, KindInfo, ResultAt, StillRunning, ToClient, ToWorker, WorkerInfo,
};

/// How many workers may be lost under a task here.
pub(super) const ALLOWED_FAILURES: u32 = 2;

pub(super) struct Env {
    pub(super) scheduler: Scheduler,
    effects: Effects,
    next_token: u64,
    /// The time of the next events, in microseconds.
    pub(super) now_us: u64,
}

/// What a worker says that has heard everything and holds a copy of an output as it is now.
pub(super) fn replica(scheduler: &Scheduler, worker: WorkerId, task: TaskId) -> FromWorker {
    let attempt = scheduler.jobs.get(task).map_or(Attempt(0), |record| record.attempt);
    let slot = scheduler.pool.slot(worker).unwrap();
    FromWorker::Replica { task, attempt, frees_heard: scheduler.pool.get(slot).unwrap().frees_said }
}

pub(super) fn task(index: u32) -> TaskId {
    TaskId::new(JobId(0), index)
}

/// A task that is wanted and runs `work`.
pub(super) fn spec(index: u32, inputs: &[u32]) -> TaskSpec {
    TaskSpec {
        task: task(index),
        kind: KindId(1),
        payload: Bytes::from(format!("payload {index}")),
        inputs: inputs.iter().copied().collect(),
        options: TaskOptions::default(),
    }
}

/// The same, but nobody holds its result.
pub(super) fn inner(index: u32, inputs: &[u32]) -> TaskSpec {
    let mut spec = spec(index, inputs);
    spec.options.wanted = false;
    spec
}

pub(super) fn failure(index: u32) -> TaskFailure {
    let cause = FailureCause::Error { message: "it broke".into(), sources: vec![] };
    TaskFailure { task: task(index), name: "work".into(), node: None, cause }
}

pub(super) fn round_trip<T: Serialize + DeserializeOwned>(message: &T) -> T {
    postcard::from_bytes(&postcard::to_allocvec(message).unwrap()).unwrap()
}

impl Env {
    pub(super) fn empty() -> Env {
        // What these two decide is tested by itself, and would be in the way elsewhere.
        Env::empty_with(|config| (config.send_ahead, config.stealing) = (false, false))
    }

    pub(super) fn empty_with(change: impl FnOnce(&mut Config)) -> Env {
        let kind = |kind, name: &str| KindInfo { kind: KindId(kind), name: name.into(), signature: "fn()".into() };
        let kinds = vec![kind(1, "work"), kind(2, "other")];
        let mut config = Config { kinds, allowed_failures: ALLOWED_FAILURES, ..Config::default() };
        change(&mut config);
        Env { scheduler: Scheduler::new(config), effects: Effects::default(), next_token: 100, now_us: 0 }
    }

    /// A new scheduler of a term, in its recovery, with nobody. What it asks of the ledger is taken by [`Env::take_to_log`].
    pub(super) fn recovering(term: Term, change: impl FnOnce(&mut Config)) -> Env {
        let Env { scheduler, effects, .. } = Env::empty_with(change);
        // Job 0 is of an earlier one.
        let scheduler = scheduler.in_term(term).first_job(JobId(10)).recovering();
        Env { scheduler, effects, next_token: 100, now_us: 0 }
    }

    /// Client 0 with job 0, and workers of so many threads, numbered from 1. Nothing is sent ahead or stolen.
    pub(super) fn new(nthreads: &[u32]) -> Env {
        Env::empty().populated(nthreads)
    }

    /// The same with the default configuration, or what is changed of it.
    pub(super) fn with(nthreads: &[u32], change: impl FnOnce(&mut Config)) -> Env {
        Env::empty_with(change).populated(nthreads)
    }

    fn populated(mut self, nthreads: &[u32]) -> Env {
        self.event(Event::ClientJoined { client: ClientId(0) });
        self.client(0, FromClient::OpenJob { name: "job".into(), token: 0 });
        for (worker, nthreads) in (1..).zip(nthreads) {
            self.join(worker, *nthreads);
        }
        self.effects = Effects::default();
        self
    }

    pub(super) fn event(&mut self, event: Event) {
        let event = match event {
            Event::FromClient { client, message } => Event::FromClient { client, message: round_trip(&message) },
            Event::FromWorker { worker, message } => Event::FromWorker { worker, message: round_trip(&message) },
            other => other,
        };
        self.scheduler.handle(Time(self.now_us), event, &mut self.effects);
        self.scheduler.check_invariants();
    }

    pub(super) fn client(&mut self, client: u32, message: FromClient) {
        self.event(Event::FromClient { client: ClientId(client), message });
    }

    pub(super) fn worker(&mut self, worker: u32, message: FromWorker) {
        self.event(Event::FromWorker { worker: WorkerId(worker), message });
    }

    pub(super) fn join(&mut self, worker: u32, nthreads: u32) {
        let node = NodeId([worker as u8; 32]);
        let info = WorkerInfo { node, name: format!("worker {worker}"), nthreads, ..WorkerInfo::default() };
        self.event(Event::WorkerJoined { worker: WorkerId(worker), info });
    }

    /// A worker with one thread and these resources, given as `gpu=1`.
    pub(super) fn join_with(&mut self, worker: u32, resources: &[&str]) {
        let resources = resources.iter().filter_map(|text| text.split_once('=')).collect::<Vec<_>>();
        let resources =
            resources.iter().map(|(name, text)| ((*name).to_owned(), Amount::parse(text).unwrap())).collect();
        let node = NodeId([worker as u8; 32]);
        let (name, host) = (format!("worker {worker}"), format!("host {worker}"));
        let info = WorkerInfo { node, name, host, nthreads: 1, memory_limit: 0, resources };
        self.event(Event::WorkerJoined { worker: WorkerId(worker), info });
    }

    /// Some time passes.
    pub(super) fn tick_after(&mut self, micros: u64) {
        self.now_us += micros;
        self.event(Event::Tick);
    }

    pub(super) fn steal_answer(&mut self, worker: u32, index: u32, attempt: u32, given: bool) {
        self.worker(worker, FromWorker::StealAnswer { task: task(index), attempt: Attempt(attempt), given });
    }

    /// A value of so many bytes is put on workers.
    pub(super) fn scatter(&mut self, index: u32, nbytes: u64, workers: &[u32]) {
        let workers = workers.iter().map(|worker| WorkerId(*worker)).collect();
        self.client(0, FromClient::Scattered { job: JobId(0), values: vec![(index, nbytes, workers)] });
    }

    pub(super) fn lose(&mut self, worker: u32) {
        self.event(Event::WorkerLost { worker: WorkerId(worker) });
    }

    /// Submits and swallows nothing: the answer is `c0 < accepted` or `c0 < rejected`.
    pub(super) fn submit(&mut self, tasks: Vec<TaskSpec>) {
        self.next_token += 1;
        let token = self.next_token;
        self.client(0, FromClient::Submit { job: JobId(0), token, kinds: vec![], tasks });
    }

    pub(super) fn release(&mut self, tasks: &[u32]) {
        self.client(0, FromClient::Release { tasks: tasks.iter().map(|index| task(*index)).collect() });
    }

    pub(super) fn finish(&mut self, worker: u32, index: u32, attempt: u32) {
        self.finish_with(worker, index, attempt, 10, 1_000_000);
    }

    pub(super) fn finish_with(&mut self, worker: u32, index: u32, attempt: u32, nbytes: u64, run_us: u64) {
        let (task, attempt) = (task(index), Attempt(attempt));
        self.worker(worker, FromWorker::Finished { task, attempt, nbytes, run_us, inline: None });
    }

    pub(super) fn fail(&mut self, worker: u32, index: u32, attempt: u32) {
        let (task, attempt) = (task(index), Attempt(attempt));
        self.worker(worker, FromWorker::Failed { task, attempt, failure: failure(index) });
    }

    pub(super) fn missing(&mut self, worker: u32, index: u32, attempt: u32, missing: &[(u32, &[u32])]) {
        let missing = missing
            .iter()
            .map(|(input, holders)| (task(*input), holders.iter().map(|holder| WorkerId(*holder)).collect()))
            .collect();
        self.worker(worker, FromWorker::InputsMissing { task: task(index), attempt: Attempt(attempt), missing });
    }

    pub(super) fn replica(&mut self, worker: u32, index: u32) {
        let replica = replica(&self.scheduler, WorkerId(worker), task(index));
        self.worker(worker, replica);
    }

    pub(super) fn state(&self, index: u32) -> TaskState {
        self.scheduler.state(task(index))
    }

    /// A worker says what it has, in one piece: task, attempt and bytes of outputs; task, attempt and whether it is suspended
    /// of what runs.
    pub(super) fn inventory(&mut self, worker: u32, outputs: &[(u32, u32, u64)], running: &[(u32, u32, bool)]) {
        let outputs = outputs.iter().map(|(index, attempt, nbytes)| (task(*index), Attempt(*attempt), *nbytes));
        let running = running.iter().map(|(index, attempt, is_suspended)| StillRunning {
            task: task(*index),
            attempt: Attempt(*attempt),
            is_suspended: *is_suspended,
        });
        let inventory = Inventory { outputs: outputs.collect(), running: running.collect(), is_last: true };
        self.worker(worker, FromWorker::Inventory(inventory));
    }

    /// A client joins and resumes job 0.
    pub(super) fn resume(&mut self, client: u32) {
        self.event(Event::ClientJoined { client: ClientId(client) });
        self.client(client, FromClient::Resume { token: 7, job: JobId(0), name: "job".into() });
    }

    /// A client says everything that its job 0 consists of.
    pub(super) fn restore(&mut self, client: u32, tasks: Vec<TaskSpec>, end: u32) {
        self.restore_piece(client, tasks, &[], &[], Some(end));
    }

    /// The same with values and failures, or in pieces.
    pub(super) fn restore_piece(
        &mut self,
        client: u32,
        tasks: Vec<TaskSpec>,
        values: &[(u32, u64)],
        failed: &[u32],
        end: Option<u32>,
    ) {
        let failed = failed.iter().map(|index| (*index, failure(*index))).collect();
        let values = values.to_vec();
        self.client(client, FromClient::Restore { job: JobId(0), token: 8, tasks, values, failed, end });
    }

    /// What was proposed for the ledger since the last call.
    pub(super) fn take_to_log(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.effects.to_log).iter().map(round_trip).collect()
    }

    /// All effects since the last call, in order. What is proposed for the ledger stays.
    pub(super) fn take(&mut self) -> Vec<String> {
        let to_log = std::mem::take(&mut self.effects.to_log);
        let effects = std::mem::replace(&mut self.effects, Effects { to_log, ..Effects::default() });
        let workers = effects
            .to_workers
            .iter()
            .map(|(worker, message)| format!("w{} < {}", worker.0, describe_to_worker(&round_trip(message))));
        let clients = effects
            .to_clients
            .iter()
            .map(|(client, message)| format!("c{} < {}", client.0, describe_to_client(&round_trip(message))));
        workers.chain(clients).collect()
    }

    /// What was said to workers since the last call.
    pub(super) fn take_to_workers(&mut self) -> Vec<ToWorker> {
        let effects = std::mem::take(&mut self.effects);
        effects.to_workers.iter().map(|(_, message)| round_trip(message)).collect()
    }

    /// What client 0 is told of the tasks that ran, from this number on.
    pub(super) fn stream(&mut self, since: u64) -> StreamPage {
        self.effects = Effects::default();
        self.client(0, FromClient::TaskStream { token: 5, since });
        let effects = std::mem::take(&mut self.effects);
        match effects.to_clients.iter().map(|(client, message)| (client.0, round_trip(message))).next() {
            Some((0, ToClient::TaskStream { token: 5, page })) => *page,
            other => panic!("not a page: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn expect(&mut self, lines: &[&str]) {
        assert_eq!(self.take(), lines);
    }

    /// Does something that another test asserts the effects of.
    pub(super) fn quietly(&mut self, act: impl FnOnce(&mut Env)) {
        act(self);
        self.effects = Effects::default();
    }
}

fn show(task: TaskId) -> String {
    task.to_string().trim_start_matches("0.").to_owned()
}

/// `#3` of the first schedulers, `#t2.3` of the one of term 2.
fn show_attempt(attempt: Attempt) -> String {
    match attempt.0 >> 20 {
        0 => attempt.0.to_string(),
        term => format!("t{term}.{}", attempt.number()),
    }
}

fn show_ids(ids: impl IntoIterator<Item = WorkerId>) -> String {
    ids.into_iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",")
}

fn describe_to_worker(message: &ToWorker) -> String {
    match message {
        ToWorker::Worker { worker, .. } => format!("worker {}", worker.0),
        ToWorker::WorkerGone { worker } => format!("gone {}", worker.0),
        ToWorker::Compute(assignment) => {
            let inputs: Vec<String> = assignment
                .inputs
                .iter()
                .map(|input| format!("{}@{}", show(input.task), show_ids(input.holders.iter().copied())))
                .collect();
            assert_eq!(assignment.payload, format!("payload {}", assignment.task.index));
            let inputs = if inputs.is_empty() { String::new() } else { format!(" ({})", inputs.join(" ")) };
            let limit = match assignment.timeout_ms {
                0 => String::new(),
                timeout_ms => format!(" within {timeout_ms} ms"),
            };
            format!("compute {}#{}{inputs}{limit}", show(assignment.task), show_attempt(assignment.attempt))
        }
        ToWorker::Cancel { task, attempt } => format!("cancel {}#{}", show(*task), show_attempt(*attempt)),
        ToWorker::Free { task } => format!("free {}", show(*task)),
        ToWorker::Steal { task, attempt } => format!("steal {}#{}", show(*task), show_attempt(*attempt)),
        ToWorker::Acquire { inputs } => {
            let inputs: Vec<String> = inputs
                .iter()
                .map(|input| format!("{}@{}", show(input.task), show_ids(input.holders.iter().copied())))
                .collect();
            format!("acquire {}", inputs.join(" "))
        }
        ToWorker::Leave => "leave".into(),
    }
}

fn describe_to_client(message: &ToClient) -> String {
    match message {
        ToClient::Worker { worker, .. } => format!("worker {}", worker.0),
        ToClient::WorkerGone { worker } => format!("gone {}", worker.0),
        ToClient::JobOpened { job, token, .. } => format!("opened {} for {token}", job.0),
        ToClient::Accepted { .. } => "accepted".into(),
        ToClient::Rejected { error, .. } => format!("rejected: {error}"),
        ToClient::Finished { task, result: ResultAt::Inline(bytes), .. } => {
            format!("finished {}: {} bytes inline", show(*task), bytes.len())
        }
        ToClient::Finished { task, nbytes, result: ResultAt::Workers(workers) } => {
            format!("finished {}: {nbytes} bytes at {}", show(*task), show_ids(workers.iter().copied()))
        }
        ToClient::Failed { task, failure } => format!("failed {}: {failure}", show(*task)),
        ToClient::Explained { explanation, .. } => format!("explained: {explanation}"),
        ToClient::Done { moved, problem, .. } => format!("done: {moved} moved{problem}"),
        ToClient::Report { report, .. } => format!("report: {report:?}"),
        ToClient::Jobs { jobs, .. } => format!("jobs: {jobs:?}"),
        ToClient::Kept { tasks, .. } => format!("kept: {tasks:?}"),
        ToClient::TaskStream { page, .. } => format!("ran: {} of {}", page.records.len(), page.end),
        ToClient::Recomputing { task } => format!("recomputing {}", show(*task)),
        ToClient::WhoHas { holders, .. } => {
            let held: Vec<String> = holders
                .iter()
                .map(|(task, workers, nbytes)| {
                    format!("{}@{} {nbytes}", show(*task), show_ids(workers.iter().copied()))
                })
                .collect();
            format!("who has: {}", held.join("; "))
        }
    }
}
