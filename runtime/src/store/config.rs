//! How much memory a worker may use, and what it does as it comes near.

use std::path::PathBuf;

/// A worker's memory limit, and Dask's four thresholds as fractions of it (`distributed.worker.memory.target`, `spill`,
/// `pause` and, where Dask terminates the worker and we refuse, `terminate`). Nothing is ever killed.
///
/// Two figures are compared with them. The *managed* bytes are the outputs that the store holds in memory, each with the
/// size of its encoding; what a task has in hand, and what the allocator keeps, is not in them. *Process memory* is what
/// the system says is resident, and counts only if [`MemoryConfig::counts_process`] is set.
///
/// A fraction of 0 means that there is no such threshold; a `limit` of 0 that there are none at all, and that nothing is
/// spilled. `refuse` falls back to the limit itself.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryConfig {
    /// The limit in bytes; 0 for none.
    pub limit: u64,
    /// While the managed bytes are above this, the least recently used outputs are written to disk.
    pub target: f64,
    /// While process memory is above this, outputs are written to disk even if the managed bytes are below `target`.
    pub spill: f64,
    /// While either figure is above this, the worker begins nothing, for as long as waiting helps: if for two seconds
    /// nothing becomes better, it goes on, and pauses again once memory has grown by another twentieth of the limit.
    pub pause: f64,
    /// No output is kept in memory above this: it is written straight to disk, and refused if that is impossible. What
    /// is too small to be spilled may use the rest, up to the limit.
    pub refuse: f64,
    /// Where the directory of spilled outputs is made. `None` for the system's temporary directory.
    pub spill_directory: Option<PathBuf>,
    /// How many bytes may be on disk. `None` for as many as it holds; 0 for no spilling.
    pub spill_limit: Option<u64>,
    /// Whether the process's memory counts too. Only where a process holds one worker and nothing else.
    pub counts_process: bool,
}

impl Default for MemoryConfig {
    /// No limit, and Dask's fractions for when there is one.
    fn default() -> MemoryConfig {
        MemoryConfig {
            limit: 0,
            target: 0.60,
            spill: 0.70,
            pause: 0.80,
            refuse: 0.95,
            spill_directory: None,
            spill_limit: None,
            counts_process: false,
        }
    }
}

/// Why a [`MemoryConfig`] cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MemoryConfigError {
    /// A fraction is not one.
    #[error("--memory-{name} {value} is no fraction of the memory limit: give a number from 0 to 1, such as 0.6")]
    NoFraction {
        /// The threshold.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// The thresholds are not in their order.
    #[error(
        "--memory-{lower} {lower_value} is above --memory-{upper} {upper_value}: they rise in the order target, spill, \
         pause, refuse"
    )]
    Order {
        /// The threshold that comes first.
        lower: &'static str,
        /// Its value.
        lower_value: f64,
        /// The one that follows.
        upper: &'static str,
        /// Its value.
        upper_value: f64,
    },
}

/// The thresholds in bytes; `u64::MAX` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) limit: u64,
    pub(crate) target: u64,
    pub(crate) spill: u64,
    pub(crate) pause: u64,
    pub(crate) refuse: u64,
}

impl MemoryConfig {
    /// So many bytes, and Dask's fractions of them; 0 for no limit.
    pub fn limited(limit: u64) -> MemoryConfig {
        MemoryConfig { limit, ..MemoryConfig::default() }
    }

    /// Says what is wrong, if anything is.
    pub fn check(&self) -> Result<(), MemoryConfigError> {
        let named = [("target", self.target), ("spill", self.spill), ("pause", self.pause), ("refuse", self.refuse)];
        if let Some(&(name, value)) = named.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err(MemoryConfigError::NoFraction { name, value });
        }
        let given: Vec<_> = named.into_iter().filter(|(_, value)| *value > 0.0).collect();
        match given.windows(2).find(|pair| pair[0].1 > pair[1].1) {
            None => Ok(()),
            Some(pair) => Err(MemoryConfigError::Order {
                lower: pair[0].0,
                lower_value: pair[0].1,
                upper: pair[1].0,
                upper_value: pair[1].1,
            }),
        }
    }

    pub(crate) fn thresholds(&self) -> Thresholds {
        let limit = if self.limit == 0 { u64::MAX } else { self.limit };
        let part = |fraction: f64| {
            let is_off = self.limit == 0 || fraction == 0.0;
            if is_off { u64::MAX } else { (self.limit as f64 * fraction) as u64 }
        };
        Thresholds {
            limit,
            target: part(self.target),
            spill: part(self.spill),
            pause: part(self.pause),
            refuse: part(self.refuse).min(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_dasks_fractions_of_no_limit() {
        assert_eq!(MemoryConfig::default().check(), Ok(()));
        let none = MemoryConfig::default().thresholds();
        let max = u64::MAX;
        assert_eq!(none, Thresholds { limit: max, target: max, spill: max, pause: max, refuse: max });
        let some = MemoryConfig::limited(1000).thresholds();
        assert_eq!(some, Thresholds { limit: 1000, target: 600, spill: 700, pause: 800, refuse: 950 });
    }

    #[test]
    fn a_threshold_of_nothing_is_left_out_and_refuse_falls_back_to_the_limit() {
        let config = MemoryConfig { target: 0.0, pause: 0.0, refuse: 0.0, ..MemoryConfig::limited(1000) };
        assert_eq!(config.check(), Ok(()));
        let expected = Thresholds { limit: 1000, target: u64::MAX, spill: 700, pause: u64::MAX, refuse: 1000 };
        assert_eq!(config.thresholds(), expected);
    }

    #[test]
    fn what_is_no_fraction_or_out_of_order_is_refused_by_name() {
        let of = |config: MemoryConfig| config.check().unwrap_err().to_string();
        let percent = of(MemoryConfig { pause: 80.0, ..MemoryConfig::default() });
        assert!(percent.starts_with("--memory-pause 80 is no fraction"), "{percent}");
        let nan = of(MemoryConfig { target: f64::NAN, ..MemoryConfig::default() });
        assert!(nan.starts_with("--memory-target NaN"), "{nan}");
        let order = of(MemoryConfig { spill: 0.0, target: 0.9, ..MemoryConfig::default() });
        assert!(order.starts_with("--memory-target 0.9 is above --memory-pause 0.8"), "{order}");
    }
}
