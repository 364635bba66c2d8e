//! How often a case is run, for how long at most, and what its runs came to.

use std::time::{Duration, Instant};

use crate::usage::{Meter, Used};

/// What the command line asks of every measurement.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) runs: u32,
    pub(crate) quick: bool,
    pub(crate) workers: u32,
    pub(crate) threads: u32,
    /// Only cases whose name contains one of these; all if empty.
    pub(crate) only: Vec<String>,
    pub(crate) started: Instant,
}

/// A `--quick` run begins nothing after this, so that it ends within 60 seconds.
const QUICK_TOTAL: Duration = Duration::from_secs(52);

impl Plan {
    /// Whether the case is to be measured.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| case.contains(text.as_str()))
    }

    /// How long the runs of one case may take in all; a run that has begun is brought to its end.
    pub(crate) fn budget(&self) -> Duration {
        if self.quick { Duration::from_millis(2500).min(self.left()) } else { Duration::from_secs(45) }
    }

    /// The same for another system's case, of which there are many more.
    pub(crate) fn peer_budget(&self) -> Duration {
        if self.quick { Duration::from_millis(700) } else { Duration::from_secs(30) }
    }

    /// How long one run may take before it is given up.
    pub(crate) fn timeout(&self) -> Duration {
        if self.quick {
            Duration::from_secs(10).min(self.left()).max(Duration::from_secs(1))
        } else {
            Duration::from_secs(180)
        }
    }

    /// Whether there is no time left to begin anything.
    pub(crate) fn is_over(&self) -> bool {
        self.quick && self.left().is_zero()
    }

    fn left(&self) -> Duration {
        QUICK_TOTAL.saturating_sub(self.started.elapsed())
    }

    /// How many tasks run at once.
    pub(crate) fn parallelism(&self) -> u32 {
        self.workers * self.threads
    }
}

/// What the runs of a case came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// A figure a run.
    pub(crate) values: Vec<f64>,
    /// What all runs together used.
    pub(crate) used: Used,
}

/// The runs of a case under way.
pub(crate) struct Repeat {
    runs: u32,
    budget: Duration,
    started: Instant,
    meter: Meter,
    values: Vec<f64>,
}

impl Repeat {
    /// Begins to measure, up to `runs` runs within `budget`.
    pub(crate) fn start(runs: u32, budget: Duration) -> Repeat {
        Repeat { runs, budget, meter: Meter::start(), started: Instant::now(), values: Vec::new() }
    }

    /// Whether another run is wanted and, going by those before it, fits the budget. The first always is.
    pub(crate) fn wants_more(&self) -> bool {
        let done = self.values.len() as u32;
        if done == 0 {
            return true;
        }
        let spent = self.started.elapsed();
        done < self.runs && spent + spent / done <= self.budget
    }

    /// A run has ended with this figure.
    pub(crate) fn add(&mut self, value: f64) {
        self.values.push(value);
    }

    /// What the runs came to.
    pub(crate) fn finish(self) -> Measured {
        Measured { values: self.values, used: self.meter.stop() }
    }
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The value that this share of the values (0 to 1) does not exceed; `None` of nothing.
pub(crate) fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[((sorted.len() as f64 * share) as usize).min(last)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_an_even_and_no_number_of_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), Some(50.0));
        assert_eq!(percentile(&values, 0.99), Some(99.0));
        assert_eq!(percentile(&values, 1.0), Some(99.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_spent_budget_ends_the_runs_but_the_first_is_always_made() {
        let mut repeat = Repeat::start(5, Duration::ZERO);
        assert!(repeat.wants_more());
        repeat.add(1.0);
        assert!(!repeat.wants_more());
        assert_eq!(repeat.finish().values, [1.0]);
    }

    #[test]
    fn no_more_runs_are_made_than_asked_for() {
        let mut repeat = Repeat::start(2, Duration::from_secs(3600));
        let mut runs = 0;
        while repeat.wants_more() {
            repeat.add(0.0);
            runs += 1;
        }
        assert_eq!(runs, 2);
    }

    #[test]
    fn only_the_cases_that_were_asked_for_are_wanted() {
        let mut plan = Plan { runs: 1, quick: true, workers: 2, threads: 1, only: Vec::new(), started: Instant::now() };
        assert!(plan.wants("merge-10k"));
        plan.only = vec!["chain".into(), "core".into()];
        assert!(!plan.wants("merge-10k"));
        assert!(plan.wants("core-1m"));
    }
}
