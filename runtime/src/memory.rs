//! Watches a worker's memory: has the store spill, and says when the worker shall begin nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_core::wire::WorkerStatus;

use crate::store::{Store, Thresholds};

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(150);

/// How often it says how things are if only numbers have changed.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// How long a pause goes on without anything becoming better. Then what fills the memory is not ours to free, or the
/// allocator keeps it (glibc's does), and to go on waiting would be to wait for ever.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pause ends this part of the limit below where it began; one that was given up begins again as much above where it
/// was given up.
const HYSTERESIS_PART: u64 = 20;

/// What of the machine's memory this worker uses, at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Bytes of outputs in memory.
    managed: u64,
    /// Bytes of the process that are resident, if they count.
    process: Option<u64>,
    /// How many bytes spilling has freed, ever.
    freed: u64,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decision {
    paused: bool,
    /// Bytes to be spilled because of the process's memory.
    excess: u64,
    /// Whether everything has to go straight to disk.
    is_short: bool,
}

/// Decides from sample to sample.
struct Pressure {
    thresholds: Thresholds,
    pause: Pause,
}

#[derive(Clone, Copy, Debug)]
enum Pause {
    /// Memory is not above the pause threshold, or was not since it last fell below.
    Off,
    On {
        /// When something last became better.
        better_at: Instant,
        /// The least use since the pause began.
        lowest: u64,
        /// As in the sample.
        freed: u64,
    },
    /// It was of no use, with so much in use. Until memory falls, or grows further.
    GivenUp { at: u64 },
}

impl Pressure {
    fn new(thresholds: Thresholds) -> Pressure {
        Pressure { thresholds, pause: Pause::Off }
    }

    fn sample(&mut self, sample: Sample) -> Decision {
        let Thresholds { limit, target, spill, pause, refuse } = self.thresholds;
        let process = sample.process.unwrap_or(0);
        let used = process.max(sample.managed);
        let hysteresis = limit / HYSTERESIS_PART;
        let begin_above = match self.pause {
            Pause::GivenUp { at } => at.saturating_add(hysteresis),
            _ => pause,
        };
        self.pause = match self.pause {
            Pause::Off | Pause::GivenUp { .. } if used > begin_above => {
                tracing::info!(used, limit, "memory is short: the worker pauses");
                Pause::On { better_at: sample.at, lowest: used, freed: sample.freed }
            }
            Pause::Off => Pause::Off,
            _ if used < pause.saturating_sub(hysteresis) => {
                tracing::info!(used, limit, "memory is not short any more");
                Pause::Off
            }
            given_up @ Pause::GivenUp { .. } => given_up,
            // A hundredth less is not noise.
            Pause::On { lowest, freed, .. } if used < lowest - lowest / 100 || sample.freed > freed => {
                Pause::On { better_at: sample.at, lowest: lowest.min(used), freed: sample.freed }
            }
            Pause::On { better_at, .. } if sample.at.saturating_duration_since(better_at) >= PATIENCE => {
                tracing::warn!(
                    used,
                    limit,
                    "memory stays short although the worker pauses: it goes on; give it a larger --memory-limit, fewer \
                     --threads, or smaller partitions"
                );
                Pause::GivenUp { at: used }
            }
            on @ Pause::On { .. } => on,
        };
        // Down to the target, as the managed bytes; never more than there are.
        let excess = if process > spill { process.saturating_sub(target.min(spill)).min(sample.managed) } else { 0 };
        Decision { paused: matches!(self.pause, Pause::On { .. }), excess, is_short: process > refuse }
    }
}

/// Watches the memory that `store` and, if it counts, the process use, for as long as it is polled. `tell` hears at once
/// when the worker shall pause or go on, and about once a second of changed numbers.
pub async fn watch(store: Arc<Store>, counts_process: bool, tell: impl Fn(WorkerStatus) + Send) {
    let mut pressure = store.thresholds().map(Pressure::new);
    let counts_process = counts_process && pressure.is_some();
    let mut told = WorkerStatus::default();
    let mut told_at = Instant::now();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let at = Instant::now();
        let managed = store.nbytes();
        let mut status = WorkerStatus {
            paused: false,
            memory_bytes: managed,
            spilled_bytes: store.spilled_bytes(),
            // The worker machine's to count.
            threads_abandoned: 0,
        };
        if let Some(pressure) = &mut pressure {
            let process = if counts_process { resident_bytes() } else { None };
            let freed = store.spilled_bytes_total();
            let decision = pressure.sample(Sample { at, managed, process, freed });
            store.relieve(decision.excess, decision.is_short);
            status.paused = decision.paused;
        }
        let is_due = at.saturating_duration_since(told_at) >= STATUS_PERIOD && status != told;
        if status.paused != told.paused || is_due {
            tell(status);
            (told, told_at) = (status, at);
        }
    }
}

/// How many bytes of this process are resident; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    // `statm` has the same in pages, whose size it does not say.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// How many bytes of memory this machine has; 0 where that cannot be known.
pub fn of_machine() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryConfig;

    struct Clocked {
        pressure: Pressure,
        now: Instant,
    }

    impl Clocked {
        fn new() -> Clocked {
            let thresholds = MemoryConfig::limited(1000).thresholds();
            Clocked { pressure: Pressure::new(thresholds), now: Instant::now() }
        }

        fn after(&mut self, seconds: u64, managed: u64, process: Option<u64>, freed: u64) -> Decision {
            self.now += Duration::from_secs(seconds);
            self.pressure.sample(Sample { at: self.now, managed, process, freed })
        }
    }

    const CALM: Decision = Decision { paused: false, excess: 0, is_short: false };

    #[test]
    fn a_pause_begins_above_its_threshold_and_ends_well_below_it() {
        let mut memory = Clocked::new();
        assert_eq!(memory.after(0, 800, None, 0), CALM);
        assert_eq!(memory.after(1, 801, None, 0), Decision { paused: true, ..CALM });
        assert_eq!(memory.after(1, 760, None, 0), Decision { paused: true, ..CALM });
        assert_eq!(memory.after(1, 749, None, 0), CALM);
        assert_eq!(memory.after(1, 790, None, 0), CALM);
    }

    #[test]
    fn a_process_that_is_too_large_has_outputs_spilled_and_then_everything_written_to_disk() {
        let mut memory = Clocked::new();
        assert_eq!(memory.after(0, 300, Some(700), 0), CALM);
        assert_eq!(memory.after(1, 300, Some(710), 0), Decision { excess: 110, ..CALM });
        assert_eq!(memory.after(1, 100, Some(790), 0), Decision { excess: 100, ..CALM });
        assert_eq!(memory.after(1, 0, Some(960), 0), Decision { paused: true, excess: 0, is_short: true });
        assert_eq!(memory.after(1, 0, Some(700), 0), CALM);
    }

    #[test]
    fn a_pause_that_makes_nothing_better_is_given_up_until_memory_falls_or_grows() {
        let mut memory = Clocked::new();
        let paused = Decision { paused: true, ..CALM };
        assert_eq!(memory.after(0, 900, None, 0), paused);
        assert_eq!(memory.after(1, 900, None, 0), paused);
        // Something was spilled, and then memory fell: both are reasons to go on waiting.
        assert_eq!(memory.after(1, 900, None, 50), paused);
        assert_eq!(memory.after(1, 850, None, 50), paused);
        assert_eq!(memory.after(1, 850, None, 50), paused);
        assert_eq!(memory.after(1, 850, None, 50), CALM);
        assert_eq!(memory.after(9, 900, None, 50), CALM);
        assert_eq!(memory.after(1, 901, None, 50), paused);
        assert_eq!(memory.after(2, 901, None, 50), CALM);
        assert_eq!(memory.after(1, 700, None, 50), CALM);
        assert_eq!(memory.after(1, 801, None, 50), paused);
    }

    #[tokio::test]
    async fn a_full_store_is_told_as_paused_and_an_emptied_one_as_not() {
        use crate::value::Value;
        use starling_core::ids::{JobId, TaskId};

        let config = MemoryConfig { spill_limit: Some(0), ..MemoryConfig::limited(1000) };
        let store = Store::start(&config).unwrap();
        let task = TaskId::new(JobId(0), 0);
        store.insert(task, Value::live("x".repeat(899))).unwrap();
        let (told, mut heard) = tokio::sync::mpsc::channel(8);
        let watching = tokio::spawn(watch(store.clone(), false, move |status| told.try_send(status).unwrap()));
        let full = heard.recv().await.unwrap();
        assert_eq!(full, WorkerStatus { paused: true, memory_bytes: 900, ..WorkerStatus::default() });
        store.remove(task);
        assert_eq!(heard.recv().await.unwrap(), WorkerStatus::default());
        watching.abort();
    }

    #[test]
    fn the_system_says_how_large_this_process_is() {
        let before = resident_bytes().unwrap();
        assert!(before > 100 * 1024);
        let touched = std::hint::black_box(vec![1_u8; 32 << 20]);
        let after = resident_bytes().unwrap();
        assert!(after >= before + (16 << 20), "{before} then {after} with {} bytes more", touched.len());
    }
}
