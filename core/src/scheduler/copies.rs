//! Copies that are kept up: outputs that are to be on several workers, so that the loss of some costs nothing.
//!
//! An output with fewer copies than it should have is looked at, a few in an event, and copied to the workers with the least data
//! by the [`moves`](super::moves). If there are not enough workers it waits for one that joins or is paused no longer; if those that
//! there are cannot take it, for a while.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::ids::{TaskId, Time};

use super::record::{Record, State};
use super::{Effects, Scheduler};

/// How many outputs are looked at in one event, and at a tick.
const LOOKED_AT_MAX: (usize, usize) = (16, 1_024);

/// How long an output is left alone that nobody could take, in microseconds.
const PAUSE_US: u64 = 2_000_000;

/// The outputs that have, or may have, fewer copies than they should have. Each is in one of these at most.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// To be looked at.
    short: BTreeSet<TaskId>,
    /// There is no worker that has no copy.
    starved: BTreeSet<TaskId>,
    /// Nobody could take them: not before this time.
    refused: BTreeMap<TaskId, Time>,
}

impl Copies {
    fn is_empty(&self) -> bool {
        self.short.is_empty() && self.starved.is_empty() && self.refused.is_empty()
    }

    fn remove(&mut self, task: TaskId) {
        self.short.remove(&task);
        self.starved.remove(&task);
        self.refused.remove(&task);
    }

    fn holds(&self, task: TaskId) -> bool {
        self.short.contains(&task) || self.starved.contains(&task) || self.refused.contains_key(&task)
    }

    /// There is a worker more that may take some.
    pub(super) fn look_at_starved(&mut self) {
        self.short.append(&mut self.starved);
    }

    /// The outputs that wait here, for checks.
    pub(super) fn iter(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.short.iter().chain(&self.starved).chain(self.refused.keys()).copied()
    }
}

impl Scheduler {
    /// An output has come, or has lost a copy: whether it has enough of them is looked at.
    pub(super) fn look_at_copies(&mut self, task: TaskId) {
        if self.jobs.get(task).is_some_and(|record| record.replicas > 1 && record.state.is_memory()) {
            self.copies.remove(task);
            self.copies.short.insert(task);
        }
    }

    /// Nobody can take a copy of this output now.
    pub(super) fn copy_was_refused(&mut self, task: TaskId) {
        if self.jobs.get(task).is_some_and(|record| record.replicas > 1 && record.state.is_memory()) {
            self.copies.remove(task);
            self.copies.refused.insert(task, Time(self.now.0.saturating_add(PAUSE_US)));
        }
    }

    /// An output is gone, and with it its copies.
    pub(super) fn forget_copies(&mut self, task: TaskId) {
        if !self.copies.is_empty() {
            self.copies.remove(task);
        }
    }

    /// From now on this output shall have so many copies at least.
    pub(super) fn raise_copies(&mut self, task: TaskId, copies: u32) {
        if let Some(record) = self.jobs.get_mut(task) {
            record.replicas = record.replicas.max(u8::try_from(copies).unwrap_or(u8::MAX));
        }
    }

    /// Some time has passed.
    pub(super) fn look_at_refused(&mut self, effects: &mut Effects) {
        if self.copies.is_empty() {
            return;
        }
        let now = self.now;
        let due: Vec<TaskId> = self.copies.refused.extract_if(.., |_, until| *until <= now).map(|it| it.0).collect();
        self.copies.short.extend(due);
        self.keep_up(LOOKED_AT_MAX.1, effects);
    }

    /// Has copies made where there are too few.
    pub(super) fn keep_up_copies(&mut self, effects: &mut Effects) {
        if !self.copies.short.is_empty() {
            self.keep_up(LOOKED_AT_MAX.0, effects);
        }
    }

    fn keep_up(&mut self, looked_at_max: usize, effects: &mut Effects) {
        for _ in 0..looked_at_max {
            let Some(task) = self.copies.short.pop_first() else { return };
            for _ in 0..self.copies_lacking(task) {
                let to = self.target(task, &[]);
                let Some(to) = to.filter(|to| self.pool.get(*to).is_some_and(|worker| worker.is_open())) else {
                    self.copies.starved.insert(task);
                    break;
                };
                self.start_move(task, to, None, None, SmallVec::new(), effects);
            }
        }
    }

    /// How many copies of an output are neither there nor on their way. A copy that is about to be dropped does not count.
    fn copies_lacking(&self, task: TaskId) -> usize {
        let Some(Record { replicas, state: State::Memory { holders, .. }, .. }) = self.jobs.get(task) else { return 0 };
        let is_leaving = |slot| self.pool.get(slot).is_none_or(|worker| worker.is_retiring);
        let stay = holders.iter().filter(|slot| !is_leaving(**slot)).count();
        usize::from(*replicas).saturating_sub(stay + self.moves.coming(task, is_leaving))
    }

    /// Panics if an output has too few copies and waits nowhere, or waits and is not there.
    pub(super) fn check_copies(&self) {
        for task in self.copies.iter() {
            assert!(
                self.jobs.get(task).is_some_and(|record| record.state.is_memory()),
                "{task} lacks copies and is gone"
            );
        }
        let count = self.copies.short.len() + self.copies.starved.len() + self.copies.refused.len();
        assert_eq!(self.copies.iter().collect::<BTreeSet<_>>().len(), count, "an output lacks copies twice");
    }

    /// Panics if this output, which is in memory, has too few copies and that is not known.
    pub(super) fn check_copies_of(&self, task: TaskId, record: &Record) {
        if record.replicas > 1 && self.copies_lacking(task) > 0 {
            assert!(self.copies.holds(task), "{task} lacks copies, and nobody sees to it");
        }
    }
}
