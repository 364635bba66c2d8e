//! What must hold between events. A failure here is a fault of ours, never of a peer's.

use std::collections::BTreeMap;

use crate::ids::TaskId;

use super::inputs::Place;
use super::run::Fate;
use super::{AssignedState, Worker};

impl Worker {
    /// Panics if the machine's records contradict each other. Costs a pass over everything.
    pub fn check_invariants(&self) {
        let mut users: BTreeMap<TaskId, u32> = BTreeMap::new();
        self.check_assignments(&mut users);
        for running in self.running.values() {
            if let Fate::Dropped { inputs } = &running.fate {
                inputs.iter().for_each(|input| *users.entry(*input).or_default() += 1);
            }
        }
        for (task, held) in &self.memory {
            assert_eq!(held.users, users.remove(task).unwrap_or(0), "{task}: users of what is here");
            let is_kept = !held.is_doomed || held.users > 0 || self.may_be_written(*task);
            assert!(is_kept, "{task} should have been freed");
        }
        for (task, missing) in &self.missing {
            assert_eq!(missing.users, users.remove(task).unwrap_or(0), "{task}: users of what is awaited");
            self.check_missing(*task);
        }
        assert!(users.is_empty(), "inputs that are neither here nor awaited: {users:?}");
        self.check_threads();
        self.check_fetches();
    }

    fn check_assignments(&self, users: &mut BTreeMap<TaskId, u32>) {
        for (task, assigned) in &self.assignments {
            for input in &assigned.inputs {
                *users.entry(*input).or_default() += 1;
            }
            let not_here = assigned.inputs.iter().filter(|input| !self.memory.contains_key(input)).count() as u32;
            let is_blocked = u32::from(self.stale.contains_key(task));
            match assigned.state {
                AssignedState::Waiting { missing } => {
                    assert!(missing > 0, "{task} is ready and does not know it");
                    assert_eq!(missing, not_here + is_blocked, "{task} waits for something else");
                    assert!(!self.memory.contains_key(task), "{task} is here and waits for its inputs");
                }
                AssignedState::Ready => {
                    assert_eq!(not_here + is_blocked, 0, "{task} is ready without its inputs");
                    assert!(!self.memory.contains_key(task), "{task} is here and waits for a thread");
                    let handed_out_max = self.ahead.tasks_max(self.config.nthreads);
                    assert!(self.running.len() >= handed_out_max, "{task} is ready and a thread is free");
                }
                AssignedState::Executing => {
                    assert_eq!(not_here, 0, "{task} runs without its inputs");
                    let running = self.running.get(task);
                    assert!(
                        running.is_some_and(|running| matches!(running.fate, Fate::Reported)),
                        "{task} is not running"
                    );
                }
            }
        }
    }

    fn check_missing(&self, task: TaskId) {
        let Some(missing) = self.missing.get(&task) else { return };
        match missing.place {
            Place::Blocked => assert!(self.stale.contains_key(&task), "{task} is blocked by nothing"),
            Place::Fetch => {
                assert!(missing.users > 0, "{task} is to be fetched for nobody");
                assert!(!self.memory.contains_key(&task), "{task} is to be fetched and is here");
                let holders = || missing.untried.iter().filter_map(|holder| Some((holder, self.peers.get(holder)?)));
                assert!(holders().next().is_some(), "{task} can be fetched from nobody");
                for (holder, peer) in holders() {
                    let is_busy = self.batches.contains_key(holder);
                    assert!(is_busy || peer.listed.is_some(), "{task} could be asked of {holder:?}");
                    let has_room = self.batches.len() < self.config.fetches_max;
                    assert!(is_busy || !has_room, "{task} could be fetched from {holder:?} now");
                }
            }
            Place::Flight { from } => {
                let batch = self.batches.get(&from);
                assert!(
                    batch.is_some_and(|batch| !batch.is_stale && batch.tasks.contains(&task)),
                    "{task} is in no fetch"
                );
            }
        }
    }

    fn check_threads(&self) {
        let most = (self.config.nthreads * super::HANDED_OUT_PER_THREAD_MAX) as usize;
        assert!(self.running.len() <= most, "more tasks are handed out than the threads' queue holds");
        for (task, running) in &self.running {
            match running.fate {
                Fate::Reported => assert!(self.assignments.contains_key(task), "{task} runs for nobody"),
                Fate::Dropped { .. } => {
                    assert!(!self.assignments.contains_key(task), "{task} was cancelled, and is not")
                }
                Fate::Stale => assert!(self.stale.contains_key(task), "{task} is stale, and is not counted"),
            }
        }
    }

    fn check_fetches(&self) {
        assert!(self.batches.len() <= self.config.fetches_max, "too many fetches");
        for (priority, worker) in &self.askable {
            assert_eq!(self.peers.get(worker).and_then(|peer| peer.listed), Some(*priority));
            assert!(!self.batches.contains_key(worker), "{worker:?} is asked already");
        }
        let listed = self.peers.values().filter(|peer| peer.listed.is_some()).count();
        assert_eq!(listed, self.askable.len(), "the askable peers are listed wrongly");
        let stale_batches = self.batches.values().filter(|batch| batch.is_stale).map(|batch| batch.tasks.len());
        let stale_runs = self.running.values().filter(|running| matches!(running.fate, Fate::Stale)).count();
        let stale: u32 = self.stale.values().sum();
        assert_eq!(stale as usize, stale_batches.sum::<usize>() + stale_runs, "what is stale is counted wrongly");
    }
}
