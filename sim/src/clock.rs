//! Clocks that jump. What a machine is told of the time is ahead of the true time by what its clock has jumped so far, by
//! minutes; and now and then, once, it is minutes earlier than that.

use starling_core::ids::Time;

use crate::rng::Rng;

/// The longest jump, in microseconds.
const JUMP_US_MAX: u64 = 300_000_000;

/// The clock that one machine is told the time by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    ahead_us: u64,
}

impl Clock {
    /// From now on it is minutes later.
    pub(crate) fn jump(&mut self, rng: &mut Rng) {
        self.ahead_us += rng.between(JUMP_US_MAX / 5, JUMP_US_MAX);
    }

    /// What it shows at this true time.
    pub(crate) fn time(self, now: u64) -> Time {
        Time(now + self.ahead_us)
    }

    /// What it shows when it slips.
    pub(crate) fn slipped(self, now: u64, rng: &mut Rng) -> Time {
        Time((now + self.ahead_us).saturating_sub(rng.between(1, JUMP_US_MAX)))
    }
}
