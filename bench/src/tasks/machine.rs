//! The scheduler machine alone, in this process: no network, no codec, workers that finish at once.
//!
//! Only `Scheduler::handle` is timed. A task's whole life is: it is submitted, assigned, finished, told to its client,
//! and in the end released by it and forgotten.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use starling::core::ids::{ClientId, JobId, KindId, NodeId, TaskId, Time, WorkerId};
use starling::core::scheduler::{Config, Effects, Event, Scheduler};
use starling::core::spec::{TaskOptions, TaskSpec};
use starling::core::wire::{FromClient, FromWorker, KindInfo, ToClient, ToWorker, WorkerInfo};

use super::BENCH;
use crate::measure::{Plan, Repeat};
use crate::report::{Line, Report, STARLING, tell};

struct Case {
    name: &'static str,
    tasks: u32,
    /// Instead of as many as the plan has.
    workers: Option<u32>,
    /// The case that this one should cost as much as.
    flat_with: Option<&'static str>,
}

const CASES: &[Case] = &[
    Case { name: "core-10k", tasks: 10_000, workers: None, flat_with: None },
    Case { name: "core-1m", tasks: 1_000_000, workers: None, flat_with: Some("core-10k") },
    Case { name: "core-1m-w1000", tasks: 1_000_000, workers: Some(1_000), flat_with: Some("core-1m") },
    Case { name: "core-5m", tasks: 5_000_000, workers: None, flat_with: Some("core-10k") },
];

/// How many tasks a client puts into one submission.
const SUBMIT_TASKS: u32 = 2048;
/// How many results it releases at once.
const RELEASE_TASKS: usize = 2048;
const KIND: KindId = KindId(7);
const CLIENT: ClientId = ClientId(0);

/// Measures the cases that the plan wants.
pub(super) fn run(plan: &Plan, report: &mut Report) {
    let mut least: BTreeMap<&str, f64> = BTreeMap::new();
    for &Case { name, tasks: full, workers, flat_with } in CASES.iter().filter(|case| plan.wants(case.name)) {
        tell(format_args!("{BENCH}: {name}"));
        let n = if plan.quick { full.min(200_000) } else { full };
        let workers = workers.unwrap_or(plan.workers);
        let mut repeat = Repeat::start(plan.runs, plan.budget());
        let mut wrong = None;
        while repeat.wants_more() && wrong.is_none() {
            match Drive::merge(workers, plan.threads, n) {
                Ok(spent) => repeat.add(spent.as_secs_f64() * 1e6 / f64::from(n + 1)),
                Err(error) => wrong = Some(format!("{error:#}")),
            }
        }
        let size = if n == full { String::new() } else { format!("at {n} tasks instead of {full}") };
        let measured = repeat.finish();
        // Of the quickest runs: whatever else the machine does only adds to a figure, to the short ones most.
        let flatness = measured.values.iter().copied().reduce(f64::min).and_then(|quickest| {
            least.insert(name, quickest);
            Some((flat_with?, quickest / least.get(flat_with?)?))
        });
        let mut line = Line::new(BENCH, name, STARLING, "us/task", &measured)
            .wrong(wrong.is_some())
            .with("workers", workers)
            .note(size)
            .note("time in Scheduler::handle for a merge graph, from submission to release; cpu_s and peak include the driver")
            .note(wrong.unwrap_or_default());
        if let Some((other, ratio)) = flatness {
            line = line.with_figure("flatness", ratio).note(format!("flatness is this min over that of {other}"));
        }
        report.push(line);
    }
}

/// The machine with its surroundings.
struct Drive {
    machine: Scheduler,
    effects: Effects,
    /// What the workers are about to say.
    inbox: VecDeque<(WorkerId, FromWorker)>,
    now: u64,
    spent: Duration,
    /// How many wanted results the client was told of.
    finished: u32,
    freed: u32,
    merged: Option<Bytes>,
}

impl Drive {
    /// The time that `n` no-ops and a task that takes them all spend in the machine.
    fn merge(workers: u32, threads: u32, n: u32) -> anyhow::Result<Duration> {
        let mut drive = Drive::new();
        let job = drive.start(workers, threads)?;
        // That workers join, and tell each other, is no task's cost.
        drive.spent = Duration::ZERO;
        let mut index = 0;
        while index < n {
            let end = (index + SUBMIT_TASKS).min(n);
            drive.submit(job, (index..end).map(|index| spec(job, index, 0..0)).collect())?;
            index = end;
        }
        drive.submit(job, vec![spec(job, n, 0..n)])?;
        while drive.step() {}
        ensure!(drive.finished == n + 1, "{} of {} tasks have finished", drive.finished, n + 1);
        ensure!(drive.merged.as_deref() == Some(&n.to_le_bytes()[..]), "the last task has another result");
        drive.release(job, n + 1);
        ensure!(drive.freed == n + 1, "{} of {} outputs were freed", drive.freed, n + 1);
        Ok(drive.spent)
    }

    fn new() -> Drive {
        let kind = KindInfo { kind: KIND, name: "bench::noop".into(), signature: "() -> u32".into() };
        Drive {
            machine: Scheduler::new(Config { kinds: vec![kind], ..Config::default() }),
            effects: Effects::default(),
            inbox: VecDeque::new(),
            now: 0,
            spent: Duration::ZERO,
            finished: 0,
            freed: 0,
            merged: None,
        }
    }

    /// Gives the machine events and notes the time that it takes; what is around it is not counted.
    fn handle(&mut self, events: impl IntoIterator<Item = Event>) {
        let events: Vec<Event> = events.into_iter().collect();
        let started = Instant::now();
        for event in events {
            self.now += 1;
            self.machine.handle(Time(self.now), event, &mut self.effects);
        }
        self.spent += started.elapsed();
    }

    /// The workers and a client join; gives the client's job.
    fn start(&mut self, workers: u32, threads: u32) -> anyhow::Result<JobId> {
        for number in 0..workers {
            let mut node = [0; 32];
            node[..4].copy_from_slice(&number.to_le_bytes());
            let info = WorkerInfo {
                node: NodeId(node),
                name: format!("worker-{number}"),
                nthreads: threads,
                ..WorkerInfo::default()
            };
            self.handle([Event::WorkerJoined { worker: WorkerId(number), info }]);
        }
        let open = FromClient::OpenJob { name: "bench".into(), token: 0 };
        self.handle([Event::ClientJoined { client: CLIENT }, Event::FromClient { client: CLIENT, message: open }]);
        let opened = self.effects.to_clients.drain(..).find_map(|(_, message)| match message {
            ToClient::JobOpened { job, .. } => Some(job),
            _ => None,
        });
        self.effects.to_workers.clear();
        opened.context("the scheduler opened no job")
    }

    fn submit(&mut self, job: JobId, tasks: Vec<TaskSpec>) -> anyhow::Result<()> {
        let message = FromClient::Submit { job, token: 0, kinds: Vec::new(), tasks };
        self.handle([Event::FromClient { client: CLIENT, message }]);
        self.perform();
        let rejected = self.effects.to_clients.drain(..).find_map(|(_, message)| match message {
            ToClient::Rejected { error, .. } => Some(error),
            _ => None,
        });
        rejected.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Tells the machine all that the workers have to say by now; whether there was anything.
    fn step(&mut self) -> bool {
        let said = std::mem::take(&mut self.inbox);
        let any = !said.is_empty();
        self.handle(said.into_iter().map(|(worker, message)| Event::FromWorker { worker, message }));
        self.perform();
        any
    }

    /// Does what the machine wants done: every assignment is finished at once.
    fn perform(&mut self) {
        for (worker, message) in self.effects.to_workers.drain(..) {
            match message {
                ToWorker::Compute(assignment) => {
                    let output = Bytes::copy_from_slice(&(assignment.inputs.len() as u32).to_le_bytes());
                    let finished = FromWorker::Finished {
                        task: assignment.task,
                        attempt: assignment.attempt,
                        nbytes: 4,
                        run_us: 1,
                        inline: assignment.inline_result.then_some(output),
                    };
                    self.inbox.push_back((worker, finished));
                }
                ToWorker::Free { .. } => self.freed += 1,
                ToWorker::Worker { .. }
                | ToWorker::WorkerGone { .. }
                | ToWorker::Cancel { .. }
                | ToWorker::Steal { .. }
                | ToWorker::Acquire { .. }
                | ToWorker::Leave => {}
            }
        }
        self.effects.to_clients.retain(|(_, message)| match message {
            ToClient::Finished { result, .. } => {
                self.finished += 1;
                if let starling::core::wire::ResultAt::Inline(bytes) = result {
                    self.merged = Some(bytes.clone());
                }
                false
            }
            _ => true,
        });
    }

    fn release(&mut self, job: JobId, count: u32) {
        let all: Vec<TaskId> = (0..count).map(|index| TaskId::new(job, index)).collect();
        for tasks in all.chunks(RELEASE_TASKS) {
            let message = FromClient::Release { tasks: tasks.to_vec() };
            self.handle([Event::FromClient { client: CLIENT, message }]);
            self.perform();
        }
    }
}

fn spec(job: JobId, index: u32, inputs: std::ops::Range<u32>) -> TaskSpec {
    TaskSpec {
        task: TaskId::new(job, index),
        kind: KIND,
        payload: Bytes::from_static(b"\x01\x00\x07"),
        inputs: inputs.collect(),
        options: TaskOptions::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_merge_goes_from_submission_to_release() {
        assert!(Drive::merge(3, 2, 5_000).unwrap() > Duration::ZERO);
    }

    #[test]
    fn there_may_be_more_threads_than_tasks() {
        assert!(Drive::merge(1_000, 2, 1_500).unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_flatness_is_over_a_case_that_comes_before() {
        for (at, case) in CASES.iter().enumerate() {
            let before = &CASES[..at];
            assert!(case.flat_with.is_none_or(|other| before.iter().any(|case| case.name == other)), "{}", case.name);
        }
    }
}
