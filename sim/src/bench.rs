//! The pure scheduler against the clock: a merge graph of no-op tasks, with every message made up on the spot.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_core::ids::{ClientId, JobId, TaskId, Time, WorkerId};
use starling_core::scheduler::{Config, Effects, Event, Scheduler};
use starling_core::spec::{TaskOptions, TaskSpec};
use starling_core::wire::{FromClient, FromWorker, ToClient, ToWorker, WorkerInfo};

use crate::work::{self, MIX};

/// How many tasks one submission holds.
const SUBMISSION: u32 = 10_000;

/// What a run cost.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The scheduler's time for a task, from its submission to its end, in microseconds.
    pub us_per_task: f64,
    /// By how much the process has grown for a task, in bytes, when every task is known and most are done.
    pub bytes_per_task: f64,
    /// Whether the one result was announced, and nothing else.
    pub is_right: bool,
}

/// Runs `tasks` tasks without inputs and one that merges them all, on that many workers of one thread each; perhaps while a
/// client asks which task ran where.
pub fn merge(tasks: u32, workers: u32, is_recorded: bool) -> Timing {
    let mut bench = Bench::new(workers);
    if is_recorded {
        let message = FromClient::TaskStream { token: 0, since: u64::MAX };
        bench.handle(Event::FromClient { client: ClientId(0), message });
    }
    let before = resident_bytes();
    let mut first = 0;
    while first < tasks {
        let count = SUBMISSION.min(tasks - first);
        bench.submit((first..first + count).map(|index| (index, Vec::new(), true)).collect());
        first += count;
    }
    bench.submit(vec![(tasks, (0..tasks).collect(), true)]);
    // The merge alone needs them from now on.
    bench.release(tasks);
    let after_submission = resident_bytes();
    bench.run_while(|bench| bench.scheduler.state(TaskId::new(JobId(0), tasks)) != PROCESSING);
    let after_roots = resident_bytes();
    bench.run_while(|_| true);
    let is_right = bench.finished.last() == Some(&TaskId::new(JobId(0), tasks));
    let grown = after_submission.max(after_roots).saturating_sub(before);
    Timing {
        us_per_task: bench.spent.as_secs_f64() * 1e6 / f64::from(tasks + 1),
        bytes_per_task: grown as f64 / f64::from(tasks + 1),
        is_right,
    }
}

const PROCESSING: starling_core::scheduler::TaskState = starling_core::scheduler::TaskState::Processing;

struct Bench {
    scheduler: Scheduler,
    effects: Effects,
    /// The completions that are on their way.
    inbox: VecDeque<(WorkerId, FromWorker)>,
    finished: Vec<TaskId>,
    /// The time inside the scheduler and what it takes to make up the messages of its peers.
    spent: Duration,
}

impl Bench {
    fn new(workers: u32) -> Bench {
        let scheduler = Scheduler::new(Config { kinds: work::kinds(), ..Config::default() });
        let mut bench = Bench {
            scheduler,
            effects: Effects::default(),
            inbox: VecDeque::new(),
            finished: Vec::new(),
            spent: Duration::ZERO,
        };
        for number in 0..workers {
            let info = WorkerInfo { nthreads: 1, ..WorkerInfo::default() };
            bench.handle(Event::WorkerJoined { worker: WorkerId(number), info });
        }
        let client = ClientId(0);
        bench.handle(Event::ClientJoined { client });
        bench.handle(Event::FromClient { client, message: FromClient::OpenJob { name: String::new(), token: 0 } });
        bench.spent = Duration::ZERO;
        bench
    }

    fn handle(&mut self, event: Event) {
        self.scheduler.handle(Time(0), event, &mut self.effects);
        for (worker, message) in self.effects.to_workers.drain(..) {
            if let ToWorker::Compute(assignment) = message {
                let (task, attempt) = (assignment.task, assignment.attempt);
                let finished = FromWorker::Finished { task, attempt, nbytes: 8, run_us: 1, inline: None };
                self.inbox.push_back((worker, finished));
            }
        }
        for (_, message) in self.effects.to_clients.drain(..) {
            if let ToClient::Finished { task, .. } = message {
                self.finished.push(task);
            }
        }
    }

    fn submit(&mut self, tasks: Vec<(u32, Vec<u32>, bool)>) {
        let tasks = tasks
            .into_iter()
            .map(|(index, inputs, wanted)| TaskSpec {
                task: TaskId::new(JobId(0), index),
                kind: MIX,
                payload: Bytes::from(vec![7; 16]),
                inputs: inputs.into_iter().collect(),
                options: TaskOptions { wanted, ..TaskOptions::default() },
            })
            .collect();
        let message = FromClient::Submit { job: JobId(0), token: 0, kinds: Vec::new(), tasks };
        self.timed(Event::FromClient { client: ClientId(0), message });
    }

    fn release(&mut self, tasks: u32) {
        let tasks = (0..tasks).map(|index| TaskId::new(JobId(0), index)).collect();
        self.timed(Event::FromClient { client: ClientId(0), message: FromClient::Release { tasks } });
    }

    fn timed(&mut self, event: Event) {
        let start = Instant::now();
        self.handle(event);
        self.spent += start.elapsed();
    }

    /// Delivers completions, in the order of the assignments, as long as there are any and the condition holds.
    fn run_while(&mut self, goes_on: impl Fn(&Bench) -> bool) {
        let start = Instant::now();
        while goes_on(self) {
            let Some((worker, message)) = self.inbox.pop_front() else { break };
            self.handle(Event::FromWorker { worker, message });
        }
        self.spent += start.elapsed();
    }
}

/// How much memory the process has, in bytes; 0 where that cannot be known.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok()));
    pages.unwrap_or(0) * 4096
}
