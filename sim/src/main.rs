//! Runs the seeded cluster simulation and prints one JSON line for it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;
use sim::cluster::Report;
use sim::election;

/// The seeded cluster simulation: the real machines in one thread, under faults, then healed.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run [default: 100, or 1 with --seed].
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed, to replay one that has failed.
    #[arg(long)]
    seed: Option<u64>,
    /// Tell everything that happens on standard error, a line each.
    #[arg(long)]
    trace: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Elections of real quorums under faults, then healed.
    Election {
        /// How many seeds to run [default: 100, or 1 with --seed].
        #[arg(long)]
        seeds: Option<u64>,
        /// The first seed, to replay one that has failed.
        #[arg(long)]
        seed: Option<u64>,
        /// Tell every fault on standard error, a line each.
        #[arg(long)]
        trace: bool,
    },
    /// The pure scheduler against the clock, without a network.
    Bench {
        /// How many tasks the merge graphs have.
        #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
        tasks: Vec<u32>,
        /// How many workers there are.
        #[arg(long, value_delimiter = ',', default_value = "2,1000")]
        workers: Vec<u32>,
        /// How often each is run.
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        None => simulate(args.seed, args.seeds, args.trace),
        Some(Command::Election { seeds, seed, trace }) => elect(seed, seeds, trace),
        Some(Command::Bench { tasks, workers, runs }) => {
            for (tasks, workers) in tasks.iter().flat_map(|tasks| workers.iter().map(move |workers| (*tasks, *workers)))
            {
                measure(tasks, workers, runs.max(1));
            }
            ExitCode::SUCCESS
        }
    }
}

#[allow(clippy::print_stdout, reason = "the line on standard output is what the program is for")]
fn say(line: &serde_json::Value) {
    println!("{line}");
}

fn measure(tasks: u32, workers: u32, runs: usize) {
    let timings: Vec<_> = (0..runs).map(|_| sim::bench::merge(tasks, workers)).collect();
    let mut times: Vec<f64> = timings.iter().map(|timing| timing.us_per_task).collect();
    times.sort_by(f64::total_cmp);
    let is_right = timings.iter().all(|timing| timing.is_right);
    // Later runs reuse the memory of the first.
    let bytes = timings.first().map_or(0.0, |timing| timing.bytes_per_task);
    say(&json!({
        "bench": "tasks", "case": format!("core-{tasks}-on-{workers}"), "system": "starling", "runs": runs, "unit": "us/task",
        "median": times[times.len() / 2], "min": times[0], "max": times[times.len() - 1],
        "cpu_s": cpu_seconds(), "peak_rss_mb": peak_rss_mb(), "ok": is_right,
        "note": format!("{bytes:.0} bytes a task in the first run"),
    }));
}

fn simulate(first: Option<u64>, count: Option<u64>, is_traced: bool) -> ExitCode {
    let count = count.unwrap_or(if first.is_some() { 1 } else { 100 });
    let first = first.unwrap_or(0);
    let mut events = Vec::new();
    let (mut sum, mut failed) = (Report::default(), Vec::new());
    for seed in first..first.saturating_add(count) {
        let ended = if is_traced { sim::trace_seed(seed, |line| eprintln!("{line}")) } else { sim::run_seed(seed) };
        match ended {
            Ok(report) => {
                events.push(report.events);
                sum.add(&report);
            }
            Err(error) => {
                eprintln!("seed {seed}: {error}");
                eprintln!("replay: cargo run -p sim -- --seed {seed}");
                failed.push(seed);
            }
        }
    }
    events.sort_unstable();
    let at = |part: usize| events.get(part.min(events.len().saturating_sub(1))).copied().unwrap_or(0);
    say(&json!({
        "bench": "sim", "case": "cluster", "system": "starling", "runs": count, "unit": "events/seed",
        "median": at(events.len() / 2), "min": at(0), "max": at(usize::MAX),
        "cpu_s": cpu_seconds(), "peak_rss_mb": peak_rss_mb(), "ok": failed.is_empty(),
        "note": format!("{} tasks, {} faults, {:?}, failed seeds: {failed:?}", sum.tasks, sum.faults, sum.said),
    }));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn elect(first: Option<u64>, count: Option<u64>, is_traced: bool) -> ExitCode {
    let count = count.unwrap_or(if first.is_some() { 1 } else { 100 });
    let first = first.unwrap_or(0);
    let mut terms = Vec::new();
    let (mut sum, mut failed) = (election::Report::default(), Vec::new());
    for seed in first..first.saturating_add(count) {
        match election::run_seed(seed, is_traced.then_some(|line: &str| eprintln!("{line}"))) {
            Ok(report) => {
                terms.push(report.terms);
                sum.add(&report);
            }
            Err(error) => {
                eprintln!("seed {seed}: {error}");
                eprintln!("replay: cargo run -p sim -- election --seed {seed}");
                failed.push(seed);
            }
        }
    }
    terms.sort_unstable();
    let at = |part: usize| terms.get(part.min(terms.len().saturating_sub(1))).copied().unwrap_or(0);
    say(&json!({
        "bench": "sim", "case": "election", "system": "starling", "runs": count, "unit": "terms/seed",
        "median": at(terms.len() / 2), "min": at(0), "max": at(usize::MAX),
        "cpu_s": cpu_seconds(), "peak_rss_mb": peak_rss_mb(), "ok": failed.is_empty(),
        "note": format!("{} entries, {} looks, {:?}, failed seeds: {failed:?}", sum.committed, sum.looks, sum.faults),
    }));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The processor time of this process so far, in seconds; 0 where that cannot be known.
fn cpu_seconds() -> f64 {
    // User and system time are fields 14 and 15, in hundredths of a second; the second field may hold blanks.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The most memory that this process has had, in megabytes; 0 where that cannot be known.
fn peak_rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
