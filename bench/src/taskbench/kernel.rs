//! What a task does, in units whose rate is measured on the workers' threads.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::measure::median;

/// The kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kernel {
    /// Fused multiply-adds on a few numbers; a unit is one on each of [`LANES`].
    Compute,
    /// Sweeps a working set that is larger than the caches; a unit reads and writes [`BLOCK_WORDS`] words.
    Memory,
}

/// How many multiply-adds do not wait for each other.
const LANES: usize = 16;
/// 4 KiB.
const BLOCK_WORDS: usize = 512;
/// The working set, 64 MiB a thread. It stays as large when the kernel shrinks; a task then sweeps a part of it.
const BLOCKS: usize = 16_384;
/// How long a rate is measured at a time. The middle one counts: a disturbance does not, nor does a moment in which the other
/// threads left all of the memory's bandwidth to this one.
const SLICE: Duration = Duration::from_millis(4);

thread_local! {
    /// The thread's working set, made when it is first needed: first touch would cost more than the kernel.
    static WORKING_SET: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Kernel {
    pub(super) const ALL: [Kernel; 2] = [Kernel::Compute, Kernel::Memory];

    /// Its name in the lines.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kernel::Compute => "compute",
            Kernel::Memory => "memory",
        }
    }

    /// Does so many units of work. `turn` tells one task from another: their sweeps begin at different places.
    pub(super) fn run(self, units: u64, turn: u64) {
        match self {
            Kernel::Compute => compute(units),
            Kernel::Memory => WORKING_SET.with_borrow_mut(|words| sweep(words, units, turn)),
        }
    }

    /// How many units this thread does in a microsecond, measured for so long.
    pub(super) fn rate(self, patience: Duration) -> f64 {
        if self == Kernel::Memory {
            // First touch is no part of it.
            self.run(BLOCKS as u64, 1);
        }
        let mut units = 1;
        let mut rates = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < patience || rates.is_empty() {
            let started = Instant::now();
            self.run(units, units);
            let took = started.elapsed();
            if took < SLICE {
                units *= 2;
            } else {
                rates.push(units as f64 / (took.as_secs_f64() * 1e6));
            }
        }
        median(&rates).unwrap_or_default()
    }

    /// What a thread's rate comes to, and its unit.
    pub(super) fn peak(self, units_per_us: f64) -> (&'static str, f64) {
        match self {
            Kernel::Compute => ("peak_gflops", units_per_us * (2 * LANES) as f64 / 1e3),
            Kernel::Memory => ("peak_gb_s", units_per_us * (2 * 8 * BLOCK_WORDS) as f64 / 1e3),
        }
    }
}

/// Tends to 1 from wherever it starts, so that no number becomes denormal.
fn compute(units: u64) {
    let mut lanes: [f64; LANES] = std::array::from_fn(|lane| lane as f64);
    let (factor, summand) = black_box((0.75, 0.25));
    for _ in 0..units {
        for lane in &mut lanes {
            *lane = lane.mul_add(factor, summand);
        }
    }
    black_box(lanes);
}

fn sweep(words: &mut Vec<u64>, units: u64, turn: u64) {
    if words.is_empty() {
        *words = vec![1; BLOCKS * BLOCK_WORDS];
    }
    // Where the sweep before has probably ended, so that what it left in the caches is not swept again.
    let mut block = (turn.wrapping_mul(units) % BLOCKS as u64) as usize;
    for _ in 0..units {
        for word in &mut words[block * BLOCK_WORDS..(block + 1) * BLOCK_WORDS] {
            *word = word.wrapping_add(turn);
        }
        block = (block + 1) % BLOCKS;
    }
    black_box(&words[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_touches_so_many_blocks_from_its_turn_on_and_goes_around() {
        let mut words = Vec::new();
        sweep(&mut words, 3, 2);
        let changed = |words: &[u64]| -> Vec<usize> {
            words.chunks(BLOCK_WORDS).enumerate().filter(|(_, block)| block[0] != 1).map(|(at, _)| at).collect()
        };
        assert_eq!(words.len(), BLOCKS * BLOCK_WORDS);
        assert_eq!(changed(&words), [6, 7, 8]);
        assert!(words[6 * BLOCK_WORDS..9 * BLOCK_WORDS].iter().all(|word| *word == 3));

        let mut words = Vec::new();
        sweep(&mut words, BLOCKS as u64 - 1, 1);
        assert_eq!(changed(&words).len(), BLOCKS - 1);
        assert_eq!(words[(BLOCKS - 2) * BLOCK_WORDS], 1, "the one before the first is left out");
    }

    #[test]
    fn a_rate_is_measured_however_little_time_there_is() {
        for kernel in Kernel::ALL {
            let rate = kernel.rate(Duration::ZERO);
            assert!(rate > 0.0 && rate.is_finite(), "{kernel:?}: {rate}");
        }
    }

    #[test]
    fn a_rate_is_told_in_operations_and_in_bytes() {
        assert_eq!(Kernel::Compute.peak(1_000.0), ("peak_gflops", 32.0));
        assert_eq!(Kernel::Memory.peak(2.0), ("peak_gb_s", 16.384));
    }
}
