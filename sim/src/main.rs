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
        /// Have a client record which task ran where and when.
        #[arg(long)]
        recorded: bool,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command {
        None => simulate(args.seed, args.seeds, args.trace),
        Some(Command::Election { seeds, seed, trace }) => elect(seed, seeds, trace),
        Some(Command::Bench { tasks, workers, runs, recorded }) => {
            for (tasks, workers) in tasks.iter().flat_map(|tasks| workers.iter().map(move |workers| (*tasks, *workers)))
            {
                measure(tasks, workers, runs.max(1), recorded);
            }
            ExitCode::SUCCESS
        }
    }
}

#[allow(clippy::print_stdout, reason = "the line on standard output is what the program is for")]
fn say(line: &serde_json::Value) {
    println!("{line}");
}

fn measure(tasks: u32, workers: u32, runs: usize, is_recorded: bool) {
    let timings: Vec<_> = (0..runs).map(|_| sim::bench::merge(tasks, workers, is_recorded)).collect();
    let mut times: Vec<f64> = timings.iter().map(|timing| timing.us_per_task).collect();
    times.sort_by(f64::total_cmp);
    let is_right = timings.iter().all(|timing| timing.is_right);
    // Later runs reuse the memory of the first.
    let bytes = timings.first().map_or(0.0, |timing| timing.bytes_per_task);
    let recorded = if is_recorded { "-recorded" } else { "" };
    say(&json!({
        "bench": "tasks", "case": format!("core-{tasks}-on-{workers}{recorded}"), "system": "starling", "runs": runs, "unit": "us/task",
        "median": times[times.len() / 2], "min": times[0], "max": times[times.len() - 1],
        "cpu_s": cpu_seconds(), "peak_rss_mb": peak_rss_mb(), "ok": is_right,
        "note": format!("{bytes:.0} bytes a task in the first run"),
    }));
}

fn simulate(first: Option<u64>, count: Option<u64>, is_traced: bool) -> ExitCode {
    let mut sum = Report::default();
    let one = |seed| {
        let report = if is_traced { sim::trace_seed(seed, |line| eprintln!("{line}")) } else { sim::run_seed(seed) }?;
        sum.add(&report);
        Ok(report.events)
    };
    let seeds = Seeds::run(first, count, "", one);
    let note = format!("{} tasks, {} faults, {:?}", sum.tasks, sum.faults, sum.said);
    seeds.report("cluster", "events/seed", &note)
}

fn elect(first: Option<u64>, count: Option<u64>, is_traced: bool) -> ExitCode {
    let mut sum = election::Report::default();
    let one = |seed| {
        let report = election::run_seed(seed, is_traced.then_some(|line: &str| eprintln!("{line}")))?;
        sum.add(&report);
        Ok(report.terms)
    };
    let seeds = Seeds::run(first, count, "election ", one);
    let note = format!("{} entries, {} looks, {:?}", sum.committed, sum.looks, sum.faults);
    seeds.report("election", "terms/seed", &note)
}

/// What came of some seeds.
struct Seeds {
    count: u64,
    /// A figure of each that ended well, in order.
    figures: Vec<u64>,
    failed: Vec<u64>,
}

impl Seeds {
    fn run(
        first: Option<u64>,
        count: Option<u64>,
        subcommand: &str,
        mut one: impl FnMut(u64) -> Result<u64, String>,
    ) -> Seeds {
        let count = count.unwrap_or(if first.is_some() { 1 } else { 100 });
        let first = first.unwrap_or(0);
        let (mut figures, mut failed) = (Vec::new(), Vec::new());
        for seed in first..first.saturating_add(count) {
            match one(seed) {
                Ok(figure) => figures.push(figure),
                Err(error) => {
                    eprintln!("seed {seed}: {error}");
                    eprintln!("replay: cargo run -p sim -- {subcommand}--seed {seed}");
                    failed.push(seed);
                }
            }
        }
        figures.sort_unstable();
        Seeds { count, figures, failed }
    }

    fn report(self, case: &str, unit: &str, note: &str) -> ExitCode {
        let Seeds { count, figures, failed } = self;
        let at = |part: usize| figures.get(part.min(figures.len().saturating_sub(1))).copied().unwrap_or(0);
        say(&json!({
            "bench": "sim", "case": case, "system": "starling", "runs": count, "unit": unit,
            "median": at(figures.len() / 2), "min": at(0), "max": at(usize::MAX),
            "cpu_s": cpu_seconds(), "peak_rss_mb": peak_rss_mb(), "ok": failed.is_empty(),
            "note": format!("{note}, failed seeds: {failed:?}"),
        }));
        if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
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
