//! The functions that the cluster holds, and how long each one takes.

use crate::fixed::FixedMap;
use crate::ids::KindId;
use crate::wire::KindInfo;

use super::pool::UNKNOWN_US;
use super::record::KIND_SCATTERED;

/// A duration that a worker reports is believed up to an hour.
const RUN_US_MAX: u64 = 3_600_000_000;

#[derive(Debug)]
struct Kind {
    info: KindInfo,
    /// Exponentially weighted mean of the measured durations, in sixteenths of a microsecond.
    mean: Option<u64>,
}

/// The functions that the cluster holds.
#[derive(Debug)]
pub(super) struct Kinds {
    kinds: Vec<Kind>,
    index: FixedMap<KindId, u32>,
}

impl Kinds {
    pub(super) fn new(infos: Vec<KindInfo>) -> Kinds {
        let index = infos.iter().enumerate().map(|(at, info)| (info.kind, at as u32)).collect();
        Kinds { kinds: infos.into_iter().map(|info| Kind { info, mean: None }).collect(), index }
    }

    pub(super) fn find(&self, kind: KindId) -> Option<u32> {
        self.index.get(&kind).copied()
    }

    pub(super) fn id(&self, kind: u32) -> KindId {
        self.kinds.get(kind as usize).map_or(KindId(0), |kind| kind.info.kind)
    }

    pub(super) fn name(&self, kind: u32) -> String {
        if kind == KIND_SCATTERED {
            return "scattered value".to_owned();
        }
        self.kinds.get(kind as usize).map_or_else(String::new, |kind| kind.info.name.clone())
    }

    pub(super) fn name_of_id(&self, kind: KindId) -> String {
        self.find(kind).map_or_else(String::new, |kind| self.name(kind))
    }

    /// A task of this kind has run for so long.
    pub(super) fn observe(&mut self, kind: u32, run_us: u64) {
        let Some(kind) = self.kinds.get_mut(kind as usize) else { return };
        let sample = run_us.min(RUN_US_MAX) * 16;
        kind.mean = Some(match kind.mean {
            None => sample,
            Some(mean) => mean - mean / 8 + sample / 8,
        });
    }

    /// How long a task of this kind is expected to run, in microseconds, at least 1.
    pub(super) fn expected_us(&self, kind: u32) -> u32 {
        match self.kinds.get(kind as usize).and_then(|kind| kind.mean) {
            None => UNKNOWN_US,
            Some(mean) => (mean / 16).clamp(1, u64::from(u32::MAX)) as u32,
        }
    }
}
