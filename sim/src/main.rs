//! Runs the seeded cluster simulation and prints one JSON line for it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::json;
use sim::cluster::Report;

/// The seeded cluster simulation: the real machines in one thread, under faults, then healed.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Run this one only, or begin with it if `--seeds` is given too.
    #[arg(long)]
    seed: Option<u64>,
}

#[allow(clippy::print_stdout, reason = "the line on standard output is what the program is for")]
fn main() -> ExitCode {
    let args = Args::parse();
    let first = args.seed.unwrap_or(0);
    let count =
        if args.seed.is_some() && !std::env::args().any(|arg| arg.starts_with("--seeds")) { 1 } else { args.seeds };
    let mut events = Vec::new();
    let (mut sum, mut failed) = (Report::default(), Vec::new());
    let start = Instant::now();
    for seed in first..first.saturating_add(count) {
        match sim::run_seed(seed) {
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
    let line = json!({
        "bench": "sim", "case": "cluster", "system": "starling", "runs": count, "unit": "events/seed",
        "median": at(events.len() / 2), "min": at(0), "max": at(usize::MAX),
        "cpu_s": start.elapsed().as_secs_f64(), "ok": failed.is_empty(),
        "note": format!("{} tasks, {} faults, {:?}, failed seeds: {failed:?}", sum.tasks, sum.faults, sum.said),
    });
    println!("{line}");
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
