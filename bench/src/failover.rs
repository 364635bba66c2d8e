//! `bench failover`: how long a job stands still when a node is lost, and what it costs.
//!
//! Three nodes may hold the scheduler, and workers run tasks of 20 ms, each of which leaves a mark when it runs. In the middle one
//! is killed as by `kill -9`, or stopped. `resumed` is the time from then to the end of the longest pause between two results that
//! the client sees. Every result is checked, and the marks tell how many tasks have run more than once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starling::core::ids::Term;
use starling::{Cluster, ClusterSecret, ConnectOptions, NodeStatus};
use tempfile::TempDir;

use crate::measure::{Measured, Plan};
use crate::processes::{Process, directory_with_secret, node};
use crate::report::{Line, Report, STARLING, tell};

/// The subcommand's name in the lines.
const BENCH: &str = "failover";
const UNIT: &str = "s";
/// How many nodes may hold the scheduler.
const SCHEDULERS: usize = 3;
/// How many tasks the job has, and how long each runs.
const TASKS: u64 = 600;
const TASKS_QUICK: u64 = 300;
const TASK: Duration = Duration::from_millis(20);
/// After how many results something happens.
const BEFORE: usize = 100;
/// How long a cluster may take to form, or anything else.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Scheduler,
    Worker,
    Both,
    Pause,
}

impl Case {
    const ALL: [Case; 4] = [Case::Scheduler, Case::Worker, Case::Both, Case::Pause];

    fn name(self) -> &'static str {
        match self {
            Case::Scheduler => "scheduler",
            Case::Worker => "worker",
            Case::Both => "both",
            Case::Pause => "pause",
        }
    }

    fn loses_scheduler(self) -> bool {
        self != Case::Worker
    }
}

/// Runs for so long, leaves a mark under its number, and gives what can be checked.
#[starling::task]
fn marked(folder: PathBuf, number: u64, millis: u64) -> anyhow::Result<u64> {
    std::thread::sleep(Duration::from_millis(millis));
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join(number.to_string()))?;
    file.write_all(b"x")?;
    Ok(expected(number))
}

fn expected(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 7
}

/// What one run has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    resumed: Duration,
    /// Until another node was known to hold the scheduler.
    elected: Option<Duration>,
    lost: u64,
    wrong: u64,
    rerun: u64,
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    for case in Case::ALL {
        if !plan.wants(case.name()) || plan.is_over() {
            continue;
        }
        let mut seen = Vec::new();
        for run in 0..plan.runs {
            if plan.is_over() {
                break;
            }
            match runtime.block_on(once(plan, case)) {
                Ok(one) => {
                    tell(format_args!("{} {run}: {one:?}", case.name()));
                    seen.push(one);
                }
                Err(error) => {
                    report.push(Line::failed(BENCH, case.name(), STARLING, UNIT, error));
                    seen.clear();
                    break;
                }
            }
        }
        if !seen.is_empty() {
            report.push(line(case, &seen));
        }
    }
    Ok(())
}

fn line(case: Case, seen: &[Seen]) -> Line {
    let values = seen.iter().map(|seen| seen.resumed.as_secs_f64()).collect();
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let (lost, wrong) = (sum(|seen| seen.lost), sum(|seen| seen.wrong));
    let measured = Measured { values, ..Measured::default() };
    let mut line = Line::new(BENCH, case.name(), STARLING, UNIT, &measured)
        .without_usage()
        .with("lost", lost)
        .with("wrong", wrong)
        .with_figure("rerun", sum(|seen| seen.rerun) as f64 / seen.len() as f64)
        .wrong(lost + wrong > 0);
    let elected: Vec<f64> = seen.iter().filter_map(|seen| seen.elected).map(|time| time.as_secs_f64()).collect();
    if let Some(median) = crate::measure::median(&elected) {
        line = line.with_figure("elected_median_s", median);
        line = line.with_figure("elected_max_s", elected.iter().copied().fold(0.0, f64::max));
    }
    line
}

/// The cluster of one run.
struct Nodes {
    directory: TempDir,
    secret: ClusterSecret,
    schedulers: Vec<Process>,
    workers: Vec<Process>,
    addresses: Vec<String>,
}

impl Nodes {
    fn start(plan: &Plan) -> anyhow::Result<Nodes> {
        let (directory, secret) = directory_with_secret()?;
        let mut nodes = Nodes { directory, secret, schedulers: Vec::new(), workers: Vec::new(), addresses: Vec::new() };
        for number in 0..SCHEDULERS {
            let name = format!("scheduler-{number}");
            let data = nodes.directory.path().join(&name).display().to_string();
            let mut args = vec!["--role", "scheduler", "--data-dir", &data];
            let join: Vec<String> = nodes.addresses.first().cloned().into_iter().collect();
            args.extend(join.iter().flat_map(|address| ["--join", address.as_str()]));
            let process = node(&nodes.directory, &name, &args)?;
            nodes.addresses.push(process.found(PATIENCE)?);
            nodes.schedulers.push(process);
        }
        for number in 0..plan.workers {
            let first = nodes.addresses.first().context("there is no scheduler")?;
            let threads = plan.threads.to_string();
            let args = ["--role", "worker", "--join", first, "--threads", &threads];
            nodes.workers.push(node(&nodes.directory, &format!("worker-{number}"), &args)?);
        }
        Ok(nodes)
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions { secret: Some(self.secret.clone()), name: Some("bench".into()), ..ConnectOptions::default() }
    }

    async fn status(&self, of: usize) -> anyhow::Result<NodeStatus> {
        let address = self.addresses.get(of).context("there is no such node")?;
        Ok(Cluster::status_of(address, self.options()).await?)
    }

    /// Waits until the cluster has all its voters; gives the number of the node that holds the scheduler.
    async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(0).await?;
            let voters = status.quorum.as_ref().map_or(0, |quorum| quorum.voters.len());
            let name = status.members.iter().find(|member| Some(member.node) == status.leader);
            let number = name.and_then(|member| member.name.strip_prefix("scheduler-")?.parse().ok());
            if let Some(number) = number.filter(|_| voters == SCHEDULERS) {
                return Ok(number);
            }
            ensure!(Instant::now() < deadline, "the cluster did not form: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn once(plan: &Plan, case: Case) -> anyhow::Result<Seen> {
    let mut nodes = Nodes::start(plan)?;
    let leader = nodes.leader().await?;
    let other = nodes.addresses[(leader + 1) % SCHEDULERS].clone();
    let cluster = Cluster::connect_with(&other, nodes.options()).await?;
    tokio::time::timeout(PATIENCE, cluster.wait_for_workers(nodes.workers.len()))
        .await
        .context("no workers came")??;
    let term = Cluster::status_of(&other, nodes.options()).await?.term;
    let marks = nodes.directory.path().join("marks");
    std::fs::create_dir(&marks)?;
    let tasks = if plan.quick { TASKS_QUICK } else { TASKS };
    let millis = TASK.as_millis() as u64;
    let futures = cluster.map((0..tasks).map(|number| marked::task(marks.clone(), number, millis)));
    let mut results: FuturesUnordered<_> =
        futures.iter().zip(0..).map(|(future, number)| async move { (number, future.result().await) }).collect();

    let mut seen = Seen::default();
    let mut watch = None;
    let mut struck: Option<Instant> = None;
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    for count in 1..=tasks as usize {
        let next = tokio::time::timeout(PATIENCE, results.next()).await;
        let (number, result) = next.ok().flatten().ok_or_else(|| anyhow!("no more than {} results came", count - 1))?;
        match result {
            Ok(value) if value == expected(number) => {}
            Ok(_) => seen.wrong += 1,
            Err(error) => {
                tell(format_args!("result {number} is lost: {error}"));
                seen.lost += 1;
            }
        }
        let now = Instant::now();
        if let Some(struck) = struck
            && now.duration_since(last) > longest
        {
            longest = now.duration_since(last);
            seen.resumed = now.duration_since(struck);
        }
        last = now;
        if count == BEFORE {
            nodes.strike(case, leader)?;
            last = Instant::now();
            struck = Some(last);
            if case.loses_scheduler() {
                watch = Some(tokio::spawn(later_term(other.clone(), nodes.options(), term, last)));
            }
        }
    }
    if let Some(watch) = watch {
        seen.elected = watch.await?;
    }
    if case == Case::Pause {
        signal(&nodes.schedulers[leader], "-CONT")?;
    }
    seen.rerun = runs_in(&marks)?.checked_sub(tasks).context("some tasks left no mark")?;
    cluster.shutdown().await;
    Ok(seen)
}

impl Nodes {
    /// What the case is about.
    fn strike(&mut self, case: Case, leader: usize) -> anyhow::Result<()> {
        let worker = self.workers.first_mut().context("there is no worker")?;
        match case {
            Case::Scheduler => self.schedulers[leader].kill(),
            Case::Worker => worker.kill(),
            Case::Both => worker.kill().and_then(|()| self.schedulers[leader].kill()),
            Case::Pause => signal(&self.schedulers[leader], "-STOP"),
        }
    }
}

fn signal(process: &Process, signal: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args([signal, &process.pid().to_string()]).status()?;
    ensure!(status.success(), "kill {signal} has failed");
    Ok(())
}

/// How long it takes from `since` until a node knows of a later term than this and who holds the scheduler in it.
async fn later_term(address: String, options: ConnectOptions, term: Option<Term>, since: Instant) -> Option<Duration> {
    while since.elapsed() < PATIENCE {
        match Cluster::status_of(&address, options.clone()).await {
            Ok(status) if status.term > term && status.leader.is_some() => return Some(since.elapsed()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    None
}

/// How many runs have left their marks.
fn runs_in(folder: &Path) -> anyhow::Result<u64> {
    let mut runs = 0;
    for entry in std::fs::read_dir(folder)? {
        runs += entry?.metadata()?.len();
    }
    Ok(runs)
}
