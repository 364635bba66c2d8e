//! The seeded cluster simulator: the real scheduler and worker machines in one thread, and around them everything that
//! the world does to them. One seed gives one run, always the same.
//!
//! What a run demands: every machine's invariants after every event; at no time a wrong value, an outcome that may not be,
//! or a broken promise at a client; after healing, an outcome for every result that a client holds and an answer to
//! everything it asked; and after everything is released, nothing left anywhere.
//!
//! - [`plan`]: what a seed stands for; [`work`]: what the tasks compute.
//! - [`cluster`]: the world, and how it treats messages, time, stores and threads; `faults`: what goes wrong in it, `failover` of the
//!   scheduler; `deposed`: the scheduler before; `clock`: time that jumps; `keep`: what is
//!   kept without a client;
//!   [`client`]: who submits and asks; `node`: a store and threads around the worker machine.
//! - `check`: what a run has to keep, one file each; `report`: what the runs have met.
//! - [`election`]: another world, in which real quorums elect leaders under faults.
//! - [`mod@bench`]: the pure scheduler against the clock.

pub mod bench;
mod check;
pub mod client;
mod clock;
pub mod cluster;
mod deposed;
pub mod election;
mod ending;
mod failover;
mod faults;
mod keep;
mod node;
pub mod plan;
mod report;
pub mod rng;
pub mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::cluster::{Cluster, Report};

/// Runs the cluster of a seed to its end. An error says what was violated; running the seed again shows it again.
pub fn run_seed(seed: u64) -> Result<Report, String> {
    run(Cluster::new(seed))
}

/// The same, telling everything that happens, a line each.
pub fn trace_seed(seed: u64, tell: fn(&str)) -> Result<Report, String> {
    run(Cluster::new(seed).traced(tell))
}

fn run(cluster: Cluster) -> Result<Report, String> {
    // A machine's violated invariant is a panic; the seed must be named all the same.
    catch_unwind(AssertUnwindSafe(|| cluster.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a text")))
    })
}

#[cfg(test)]
mod tests {
    use super::{Report, run_seed};

    #[test]
    fn every_promise_is_kept_under_crashes_losses_and_delays() {
        let mut sum = Report::default();
        for seed in 0..150 {
            match run_seed(seed) {
                Ok(report) => sum.add(&report),
                Err(error) => panic!("seed {seed}: {error}\nreplay: cargo run -p sim -- --seed {seed}"),
            }
        }
        assert!(sum.tasks > 5_000, "the seeds submit too little to mean anything: {sum:?}");
        assert!(sum.faults > 200, "the seeds break too little to mean anything: {sum:?}");
        let met = |what: &str| sum.said.get(what).copied().unwrap_or(0);
        let common = [
            "cancel",
            "inputs-missing",
            "replica",
            "recomputing",
            "data-lost",
            "task-failed",
            "steal",
            "stolen",
            "kept",
            "suspended",
            "resumed",
            "nested",
            "acquire",
            "paused",
            "timed-out",
            "cancelled",
            "doubled",
            "explained",
            "done",
            "leave",
            "leaving",
            "left",
            "store-full",
            "given-up",
            "part",
            "still-running",
            "still-here",
            "fail-over",
            "client-link",
            "acknowledged",
            "acknowledged-lost",
            "agreed",
            "consumed",
            "claimed",
            "deposed",
            "worker-was-told-late",
            "client-was-told-late",
            "clock-jump",
            "clock-slip",
            "kept-there",
        ];
        for what in common {
            assert!(met(what) > 10, "{what} was hardly met: {sum:?}");
        }
        for rare in ["workers-lost", "not-acquired", "not-done", "no-room"] {
            assert!(met(rare) > 2, "{rare} was hardly met: {sum:?}");
        }
    }

    #[test]
    fn a_seed_replays_exactly() {
        for seed in [3, 14, 15] {
            assert_eq!(run_seed(seed).unwrap(), run_seed(seed).unwrap());
        }
    }
}
