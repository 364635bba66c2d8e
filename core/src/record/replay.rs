//! Runs a recording again through the real machine, and tells what happened: in all, or to one task.

use std::collections::BTreeMap;
use std::fmt;

use crate::failure::TaskFailure;
use crate::ids::{Attempt, ClientId, JobId, NodeId, TaskId, Time, WorkerId};
use crate::scheduler::{Effects, Event, Scheduler, TaskState};
use crate::spec::TaskSpec;
use crate::wire::{FromClient, FromWorker, Inventory, ToClient, ToWorker};

use super::Header;

/// How many failed tasks are kept; others are counted.
const FAILURES_MAX: usize = 1000;

/// A scheduler to which its events come again.
#[derive(Debug)]
pub struct Replay {
    header: Header,
    scheduler: Scheduler,
    effects: Effects,
    summary: Summary,
    watched: Option<Watched>,
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many events there were, those included by which the scheduler is told that time passes.
    pub events: u64,
    /// When the last one came, from the scheduler's start.
    pub last: Time,
    /// Every worker that ever joined.
    pub workers: BTreeMap<WorkerId, WorkerSummary>,
    /// How many clients have connected, and how many are gone.
    pub clients: (u64, u64),
    /// Every job that was ever opened.
    pub jobs: BTreeMap<JobId, JobSummary>,
    /// How many submissions were refused.
    pub submissions_refused: u64,
    /// How many attempts were given to workers, have ended with a result, and have failed. The others were taken back,
    /// or lost with their worker, or go on.
    pub attempts: (u64, u64, u64),
    /// The tasks that have failed for good, each with how many wanted results failed because of it.
    pub failures: BTreeMap<TaskId, (TaskFailure, u64)>,
    /// How many failed tasks are not among `failures`.
    pub failures_more: u64,
    /// How many results that a client held were lost, and computed again.
    pub results_lost: u64,
}

/// A worker in a [`Summary`].
#[derive(Clone, Debug)]
pub struct WorkerSummary {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: NodeId,
    /// How many tasks it runs at once.
    pub nthreads: u32,
    /// When it joined.
    pub joined: Time,
    /// When it was lost or left.
    pub lost: Option<Time>,
    /// How many attempts it has finished with a result.
    pub finished: u64,
    /// How long those ran, in microseconds.
    pub run_us: u64,
}

/// A job in a [`Summary`].
#[derive(Clone, Debug)]
pub struct JobSummary {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub client: ClientId,
    /// How many tasks and values were submitted to it.
    pub tasks: u64,
}

/// Something that happened to the task that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When, from the scheduler's start.
    pub at: Time,
    /// What came.
    pub cause: String,
    /// The task's state afterwards.
    pub state: TaskState,
    /// Whether it was in another state, or with another worker, before.
    pub is_change: bool,
    /// The name of the worker that has it afterwards, if one has, and which try of it this is.
    pub place: Option<(String, Attempt)>,
    /// What the scheduler has said of it to others.
    pub said: Vec<String>,
}

#[derive(Debug)]
struct Watched {
    task: TaskId,
    /// Empty until it was submitted.
    kind_name: String,
}

/// A task as it is at one moment.
type Position = (TaskState, Option<(WorkerId, Attempt)>);

impl Replay {
    /// A scheduler as it was before the first event.
    pub fn new(header: &Header) -> Replay {
        Replay {
            header: header.clone(),
            scheduler: header.scheduler(),
            effects: Effects::default(),
            summary: Summary::default(),
            watched: None,
        }
    }

    /// The same, which tells of this task.
    pub fn watching(self, task: TaskId) -> Replay {
        Replay { watched: Some(Watched { task, kind_name: String::new() }), ..self }
    }

    /// The scheduler after the last event.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// What the scheduler wanted done because of the last event.
    pub fn effects(&self) -> &Effects {
        &self.effects
    }

    /// What has happened so far.
    pub fn summary(&mut self) -> &Summary {
        self.count_submitted();
        &self.summary
    }

    /// The name of the watched task's function; empty if the task was not submitted.
    pub fn kind_name(&self) -> &str {
        self.watched.as_ref().map_or("", |watched| &watched.kind_name)
    }

    /// How many tasks were ever submitted and are not known any more.
    pub fn forgotten(&mut self) -> u64 {
        let submitted: u64 = self.summary().jobs.values().map(|job| job.tasks).sum();
        submitted.saturating_sub(self.scheduler.counts().total())
    }

    /// Gives the scheduler its next event. If that has to do with the watched task, says how.
    pub fn step(&mut self, now: Time, event: Event) -> Option<Moment> {
        let position = self.watched.as_ref().map(|watched| self.position(watched.task));
        let cause = self.watched.as_ref().map(|watched| (event.names(watched.task), self.describe(&event)));
        self.note_event(now, &event);
        self.note_spec(&event);
        let opened = opened(&event);
        if matches!(event, Event::ClientLost { .. }) {
            // Its jobs are closed with it.
            self.count_submitted();
        }
        self.effects.to_workers.clear();
        self.effects.to_clients.clear();
        self.scheduler.handle(now, event, &mut self.effects);
        self.note_effects(opened);
        let (before, (is_named, cause)) = (position?, cause?);
        self.moment(now, before, is_named, cause)
    }

    fn moment(&self, at: Time, before: Position, is_named: bool, cause: String) -> Option<Moment> {
        let task = self.watched.as_ref()?.task;
        let after = self.position(task);
        let said = self.said(task);
        let is_change = before != after;
        if !is_change && !is_named && said.is_empty() {
            return None;
        }
        let place = after.1.map(|(worker, attempt)| (self.worker_name(worker), attempt));
        Some(Moment { at, cause, state: after.0, is_change, place, said })
    }

    fn position(&self, task: TaskId) -> Position {
        (self.scheduler.state(task), self.scheduler.processing_on(task))
    }

    fn worker_name(&self, worker: WorkerId) -> String {
        match self.summary.workers.get(&worker) {
            Some(summary) if !summary.name.is_empty() => format!("{} (worker {})", summary.name, worker.number()),
            _ => format!("worker {}", worker.number()),
        }
    }

    /// Counts what the event says, as long as the scheduler is as it was before it.
    fn note_event(&mut self, now: Time, event: &Event) {
        let summary = &mut self.summary;
        summary.events += 1;
        summary.last = now;
        match event {
            Event::WorkerJoined { worker, info } => {
                // A second one under the same id is ignored.
                summary.workers.entry(*worker).or_insert_with(|| WorkerSummary {
                    name: info.name.clone(),
                    node: info.node,
                    nthreads: info.nthreads,
                    joined: now,
                    lost: None,
                    finished: 0,
                    run_us: 0,
                });
            }
            Event::WorkerLost { worker } => {
                if let Some(worker) = summary.workers.get_mut(worker) {
                    worker.lost.get_or_insert(now);
                }
            }
            Event::ClientJoined { .. } => summary.clients.0 += 1,
            Event::ClientLost { .. } => summary.clients.1 += 1,
            Event::FromWorker { worker, message: FromWorker::Finished { task, attempt, run_us, .. } }
                if self.scheduler.processing_on(*task) == Some((*worker, *attempt)) =>
            {
                summary.attempts.1 += 1;
                if let Some(worker) = summary.workers.get_mut(worker) {
                    worker.finished += 1;
                    worker.run_us = worker.run_us.saturating_add(*run_us);
                }
            }
            Event::FromWorker { worker, message: FromWorker::Failed { task, attempt, .. } }
                if self.scheduler.processing_on(*task) == Some((*worker, *attempt)) =>
            {
                summary.attempts.2 += 1;
            }
            _ => {}
        }
    }

    /// Keeps the name of the watched task's function.
    fn note_spec(&mut self, event: &Event) {
        let Some(watched) = &mut self.watched else { return };
        let Event::FromClient { message: FromClient::Submit { tasks, .. }, .. } = event else { return };
        if let Some(spec) = find_spec(tasks, watched.task) {
            let info = self.header.config.kinds.iter().find(|info| info.kind == spec.kind);
            watched.kind_name = info.map_or_else(|| "unknown".to_owned(), |info| info.name.clone());
        }
    }

    fn note_effects(&mut self, mut opened: Option<(ClientId, String)>) {
        let summary = &mut self.summary;
        for (_, message) in &self.effects.to_workers {
            if matches!(message, ToWorker::Compute(_)) {
                summary.attempts.0 += 1;
            }
        }
        for (client, message) in &self.effects.to_clients {
            match message {
                ToClient::JobOpened { job, .. } => {
                    if let Some((_, name)) = opened.take() {
                        summary.jobs.insert(*job, JobSummary { name, client: *client, tasks: 0 });
                    }
                }
                ToClient::Rejected { .. } => summary.submissions_refused += 1,
                ToClient::Recomputing { .. } => summary.results_lost += 1,
                ToClient::Failed { failure, .. } => {
                    if let Some((_, told)) = summary.failures.get_mut(&failure.task) {
                        *told += 1;
                    } else if summary.failures.len() < FAILURES_MAX {
                        summary.failures.insert(failure.task, (failure.clone(), 1));
                    } else {
                        summary.failures_more += 1;
                    }
                }
                _ => {}
            }
        }
    }

    /// Counts what the open jobs have. A submission may be taken long after it came, so this is asked when it matters.
    fn count_submitted(&mut self) {
        for view in self.scheduler.jobs() {
            if let Some(job) = self.summary.jobs.get_mut(&view.job) {
                job.tasks = u64::from(view.submitted);
            }
        }
    }

    /// What the scheduler has just told others of a task.
    fn said(&self, task: TaskId) -> Vec<String> {
        let to_workers = self.effects.to_workers.iter().filter_map(|(worker, message)| {
            let name = || self.worker_name(*worker);
            Some(match message {
                ToWorker::Compute(assignment) if assignment.task == task => {
                    format!("{} is given attempt {}", name(), assignment.attempt.number())
                }
                ToWorker::Cancel { task: told, attempt } if *told == task => {
                    format!("{} is to drop attempt {}", name(), attempt.number())
                }
                ToWorker::Steal { task: told, attempt } if *told == task => {
                    format!("{} is asked to give attempt {} back", name(), attempt.number())
                }
                ToWorker::Free { task: told } if *told == task => format!("{} is to drop its output", name()),
                ToWorker::Acquire { inputs } if inputs.iter().any(|input| input.task == task) => {
                    format!("{} is to fetch a copy", name())
                }
                _ => return None,
            })
        });
        let to_clients = self.effects.to_clients.iter().filter_map(|(client, message)| {
            let client = client.0;
            Some(match message {
                ToClient::Finished { task: told, .. } if *told == task => {
                    format!("client {client} is told that it has finished")
                }
                ToClient::Failed { task: told, failure } if *told == task => {
                    format!("client {client} is told that it has failed: {failure}")
                }
                ToClient::Recomputing { task: told } if *told == task => {
                    format!("client {client} is told that it is computed again")
                }
                _ => return None,
            })
        });
        to_workers.chain(to_clients).collect()
    }

    /// The event in words.
    fn describe(&self, event: &Event) -> String {
        match event {
            Event::Tick => "time passed".to_owned(),
            Event::Restored(kept) => format!("the ledger keeps {}", kept.name),
            Event::Recovered => "the recovery is over".to_owned(),
            Event::Logged(_) => "the ledger has taken an entry".to_owned(),
            Event::NotLogged { problem, .. } => format!("the ledger has not taken an entry: {problem}"),
            Event::WorkerJoined { worker, info } if info.name.is_empty() => {
                format!("worker {} joined", worker.number())
            }
            Event::WorkerJoined { worker, info } => format!("{} (worker {}) joined", info.name, worker.number()),
            Event::WorkerLost { worker } => format!("{} was lost", self.worker_name(*worker)),
            Event::FromWorker { worker, message } => {
                format!("{} says: {}", self.worker_name(*worker), describe_from_worker(message))
            }
            Event::ClientJoined { client } => format!("client {} connected", client.0),
            Event::ClientLost { client } => format!("client {} is gone", client.0),
            Event::FromClient { client, message } => {
                format!("client {} {}", client.0, describe_from_client(message))
            }
        }
    }
}

impl Event {
    /// Whether it says something of this very task.
    fn names(&self, task: TaskId) -> bool {
        match self {
            Event::FromWorker { message, .. } => match message {
                FromWorker::Finished { task: named, .. }
                | FromWorker::Failed { task: named, .. }
                | FromWorker::InputsMissing { task: named, .. }
                | FromWorker::Replica { task: named, .. }
                | FromWorker::StealAnswer { task: named, .. }
                | FromWorker::Suspended { task: named, .. }
                | FromWorker::Resumed { task: named, .. }
                | FromWorker::NotAcquired { task: named } => *named == task,
                FromWorker::Inventory(inventory) => {
                    inventory.outputs.iter().any(|(named, ..)| *named == task)
                        || inventory.running.iter().any(|running| running.task == task)
                }
                FromWorker::Status(_) | FromWorker::Leaving => false,
            },
            Event::FromClient { message, .. } => match message {
                FromClient::Submit { tasks, .. } => find_spec(tasks, task).is_some(),
                FromClient::Restore { job, tasks, values, .. } => {
                    find_spec(tasks, task).is_some()
                        || *job == task.job && values.iter().any(|(index, _)| *index == task.index)
                }
                FromClient::Keep { job, wanted, .. } => *job == task.job && wanted.contains(&task.index),
                FromClient::Watch { tasks } => tasks.contains(&task),
                FromClient::Scattered { job, values } => {
                    *job == task.job && values.iter().any(|(index, ..)| *index == task.index)
                }
                FromClient::Release { tasks }
                | FromClient::Cancel { tasks }
                | FromClient::Retry { tasks, .. }
                | FromClient::Replicate { tasks, .. } => tasks.contains(&task),
                FromClient::CancelJob { job } => *job == task.job,
                FromClient::Explain { task: named, .. } | FromClient::Unreachable { task: named, .. } => *named == task,
                FromClient::OpenJob { .. }
                | FromClient::Resume { .. }
                | FromClient::Forget { .. }
                | FromClient::Jobs { .. }
                | FromClient::Kept { .. }
                | FromClient::WhoHas { .. }
                | FromClient::Query { .. }
                | FromClient::Rebalance { .. }
                | FromClient::TaskStream { .. }
                | FromClient::EndTaskStream
                | FromClient::Retire { .. } => false,
            },
            Event::Tick
            | Event::WorkerJoined { .. }
            | Event::WorkerLost { .. }
            | Event::ClientJoined { .. }
            | Event::ClientLost { .. }
            | Event::Recovered
            | Event::Logged(_)
            | Event::NotLogged { .. } => false,
            Event::Restored(kept) => {
                kept.job == task.job && kept.tasks.iter().any(|spec| spec.task.index == task.index)
            }
        }
    }
}

fn find_spec(tasks: &[TaskSpec], task: TaskId) -> Option<&TaskSpec> {
    tasks.iter().find(|spec| spec.task == task)
}

fn opened(event: &Event) -> Option<(ClientId, String)> {
    match event {
        Event::FromClient { client, message: FromClient::OpenJob { name, .. } | FromClient::Resume { name, .. } } => {
            Some((*client, name.clone()))
        }
        _ => None,
    }
}

fn describe_from_worker(message: &FromWorker) -> String {
    match message {
        FromWorker::Finished { task, attempt, nbytes, run_us, .. } => {
            let millis = Millis(*run_us);
            format!("{task} has finished, attempt {}, after {millis}: {nbytes} bytes", attempt.number())
        }
        FromWorker::Failed { task, attempt, failure } => {
            format!("{task} {}, attempt {}", failure.cause, attempt.number())
        }
        FromWorker::InputsMissing { task, attempt, missing } => {
            let inputs: Vec<String> = missing.iter().take(8).map(|(input, _)| input.to_string()).collect();
            format!("{task} cannot run, attempt {}, without its inputs {}", attempt.number(), inputs.join(", "))
        }
        FromWorker::Inventory(Inventory { outputs, running, .. }) => {
            format!("it has {} and runs {}", counted(outputs.len(), "output"), counted(running.len(), "task"))
        }
        FromWorker::Replica { task, .. } => format!("it holds a copy of {task}"),
        FromWorker::StealAnswer { task, attempt, given: true } => {
            format!("{task} is given back, attempt {}", attempt.number())
        }
        FromWorker::StealAnswer { task, attempt, given: false } => {
            format!("{task} has begun and is not given back, attempt {}", attempt.number())
        }
        FromWorker::Suspended { task, attempt } => {
            format!("{task} waits for tasks that it has submitted, attempt {}", attempt.number())
        }
        FromWorker::Resumed { task, attempt } => format!("{task} goes on, attempt {}", attempt.number()),
        FromWorker::NotAcquired { task } => format!("it could not get a copy of {task}"),
        FromWorker::Status(status) if status.paused => "its memory is short".to_owned(),
        FromWorker::Status(_) => "how it is".to_owned(),
        FromWorker::Leaving => "it wants to leave".to_owned(),
    }
}

fn describe_from_client(message: &FromClient) -> String {
    match message {
        FromClient::OpenJob { name, .. } => format!("opened a job, {name}"),
        FromClient::Submit { job, tasks, .. } => format!("submitted {} of job {}", counted(tasks.len(), "task"), job.0),
        FromClient::Resume { job, name, .. } => format!("resumed job {}, {name}", job.0),
        FromClient::Restore { job, tasks, values, .. } => {
            let (tasks, values) = (counted(tasks.len(), "task"), counted(values.len(), "value"));
            format!("said again {tasks} and {values} of job {}", job.0)
        }
        FromClient::Keep { name, .. } => format!("wants {name} to be kept"),
        FromClient::Forget { name, .. } => format!("wants {name} to be kept no longer"),
        FromClient::Jobs { .. } => "asked for the jobs".to_owned(),
        FromClient::Kept { name, .. } => format!("asked for {name}"),
        FromClient::Watch { tasks } => format!("wants to hear of {}", counted(tasks.len(), "task")),
        FromClient::Scattered { job, values } => format!("put {} into job {}", counted(values.len(), "value"), job.0),
        FromClient::Release { tasks } => format!("released {}", counted(tasks.len(), "result")),
        FromClient::WhoHas { .. } => "asked who has some outputs".to_owned(),
        FromClient::Cancel { tasks } => format!("cancelled {}", counted(tasks.len(), "task")),
        FromClient::Retry { tasks, .. } => format!("wants {} to run again", counted(tasks.len(), "task")),
        FromClient::Query { query, .. } => format!("asked: {query:?}"),
        FromClient::CancelJob { job } => format!("cancelled job {}", job.0),
        FromClient::Explain { task, .. } => format!("asked about {task}"),
        FromClient::Replicate { tasks, copies, .. } => {
            format!("wants {} to be on {}", counted(tasks.len(), "output"), counted(*copies as usize, "worker"))
        }
        FromClient::Rebalance { .. } => "wants outputs moved from full workers to empty ones".to_owned(),
        FromClient::Retire { workers, .. } => format!("wants {} to leave", counted(workers.len(), "worker")),
        FromClient::TaskStream { .. } => "asked which tasks ran".to_owned(),
        FromClient::EndTaskStream => "asks no more which tasks ran".to_owned(),
        FromClient::Unreachable { task, .. } => format!("could not fetch {task}"),
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Microseconds, shown as milliseconds.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1000, self.0 % 1000)
    }
}

impl fmt::Display for Moment {
    /// A line, and one more for each thing that the scheduler has said, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}.{:06} s  {}", self.at.0 / 1_000_000, self.at.0 % 1_000_000, self.cause)?;
        if self.is_change {
            write!(f, "\n{:16}-> {}", "", self.state)?;
            if let Some((worker, attempt)) = &self.place {
                write!(f, " on {worker}, attempt {}", attempt.number())?;
            }
        } else {
            write!(f, "\n{:16}   still {}", "", self.state)?;
        }
        self.said.iter().try_for_each(|said| write!(f, "\n{:19}{said}", ""))
    }
}
