//! The seeded simulation of elections: real [`Quorum`](starling_quorum::Quorum)s on tokio's paused clock, in one thread, with
//! a network and disks that fail, then healed.
//!
//! A seed decides about every fault, delay and proposal. What tokio and openraft draw from chances of their own (in which
//! order ready branches are polled) is not the seed's, so that a replay is nearly, not always, the same.
//!
//! - `plan`: what a seed stands for; `world`: nodes, their crashes, and what they are told; `net`: how requests travel;
//!   `disk`: what a crash leaves; `run`: faults and observations.
//! - What a run has to keep: `one_leader_a_term`, `committed_is_kept`, `converges`.

mod committed_is_kept;
mod converges;
mod disk;
mod net;
mod one_leader_a_term;
mod plan;
mod run;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a run has met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How often somebody was looked at.
    pub looks: u64,
    /// How many terms had a leader.
    pub terms: u64,
    /// How many entries were acknowledged.
    pub committed: u64,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Adds what another run has met.
    pub fn add(&mut self, other: &Report) {
        self.looks += other.looks;
        self.terms += other.terms;
        self.committed += other.committed;
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
    }

    fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }
}

/// Runs the elections of a seed to their end. An error says what was violated.
pub fn run_seed(seed: u64, trace: Option<fn(&str)>) -> Result<Report, String> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(run::run(seed, trace))
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a text")))
    })
}

#[cfg(test)]
mod tests {
    use super::{Report, run_seed};

    #[test]
    fn there_is_one_leader_a_term_and_what_is_committed_is_kept() {
        let mut sum = Report::default();
        for seed in 0..25 {
            match run_seed(seed, None) {
                Ok(report) => sum.add(&report),
                Err(error) => panic!("seed {seed}: {error}\nreplay: cargo run -p sim -- election --seed {seed}"),
            }
        }
        assert!(sum.terms > 50 && sum.committed > 200, "the seeds do too little to mean anything: {sum:?}");
        for fault in ["crash", "torn-write", "restart", "partition", "one-way", "heal", "lost", "doubled", "wrong-hint"]
        {
            assert!(sum.faults.get(fault).is_some_and(|count| *count > 3), "{fault} was hardly met: {sum:?}");
        }
    }
}
