//! What must hold between events. A failure here is a fault of ours, never of a peer's.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::TaskId;
use crate::spec::Amount;

use super::inputs::Place;
use super::run::{Fate, Running};
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
            assert!(held.is_doomed || !task.is_part(), "the part {task} would stay");
            assert_eq!(held.users, users.remove(task).unwrap_or(0), "{task}: users of what is here");
            let is_kept = !held.is_doomed || held.users > 0 || self.may_be_written(*task);
            assert!(is_kept, "{task} should have been freed");
        }
        for (task, missing) in &self.missing {
            assert!(!missing.is_acquired || !task.is_part(), "the part {task} is to be a copy");
            assert_eq!(missing.users, users.remove(task).unwrap_or(0), "{task}: users of what is awaited");
            self.check_missing(*task);
        }
        assert!(users.is_empty(), "inputs that are neither here nor awaited: {users:?}");
        assert!(self.withdrawn.is_empty(), "what waits for {:?} was not looked at", self.withdrawn);
        self.check_ready();
        self.check_threads();
        self.check_fetches();
        self.check_registered();
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
                assert!(missing.is_wanted(), "{task} is to be fetched for nobody");
                assert!(!self.memory.contains_key(&task), "{task} is to be fetched and is here");
                let holders = || missing.untried.iter().filter_map(|holder| Some((holder, self.peers.get(holder)?)));
                let is_assigned = self.assignments.contains_key(&task);
                assert!(is_assigned || holders().next().is_some(), "{task} can be fetched from nobody");
                for (holder, peer) in holders() {
                    let is_busy = self.batches.contains_key(holder);
                    assert!(is_busy || peer.listed.is_some(), "{task} could be asked of {holder:?}");
                    let has_room = self.batches.len() < self.config.fetches_max && !self.status.is_paused();
                    assert!(is_busy || !has_room, "{task} could be fetched from {holder:?} now");
                }
            }
            Place::Flight { from } => {
                let batch = self.batches.get(&from);
                assert!(
                    batch.is_some_and(|batch| !batch.is_stale && batch.tasks.iter().any(|entry| entry.0 == task)),
                    "{task} is in no fetch"
                );
            }
        }
    }

    /// What is ready and not handed out has a reason, and will be looked at when the reason is gone.
    fn check_ready(&self) {
        let mut held_back = BTreeSet::new();
        for (_, task, serial) in &self.held_back {
            let assigned = self.assignments.get(task).filter(|assigned| assigned.serial == *serial);
            if let Some(assigned) = assigned.filter(|assigned| assigned.state == AssignedState::Ready) {
                assert!(!self.has_room_for(&assigned.requirements), "{task} is held back by nothing");
                held_back.insert(*task);
            }
        }
        let ready = self.assignments.iter().filter(|entry| entry.1.state == AssignedState::Ready);
        let ready = ready.filter(|entry| !held_back.contains(entry.0));
        let Some((task, first)) = ready.min_by_key(|entry| (entry.1.priority, *entry.0)) else { return };
        let listed = self.ready.iter().any(|entry| entry.0.1 == *task && entry.0.2 == first.serial);
        assert!(listed, "{task} is ready and in no list");
        let slots_max = match first.timeout_ms {
            0 => self.ahead.tasks_max(self.config.nthreads),
            _ => self.config.nthreads as usize,
        };
        let has_slot = self.slots_taken() < slots_max;
        assert!(!has_slot || self.status.is_paused(), "{task} is ready and a slot is free");
    }

    fn check_threads(&self) {
        let suspended = self.running.values().filter(|running| running.is_suspended).count();
        assert_eq!(suspended, self.suspended, "the slots are counted wrongly");
        let mut taken: BTreeMap<String, Amount> = BTreeMap::new();
        for required in self.running.values().filter_map(|running| running.requirements.as_ref()) {
            for (name, amount) in required.resources.iter().filter(|entry| entry.1.0 > 0) {
                taken.entry(name.clone()).or_default().0 += amount.0;
            }
        }
        assert_eq!(&taken, self.taken.amounts(), "resources are counted wrongly");
        for (deadline, task) in &self.deadlines {
            let running = self.running.get(task);
            assert!(
                running.is_some_and(|it| it.deadline == Some(*deadline)),
                "{task} is not running, and has a deadline"
            );
        }
        for (task, running) in &self.running {
            match running.fate {
                Fate::Reported => assert!(self.assignments.contains_key(task), "{task} runs for nobody"),
                Fate::Dropped { .. } => {
                    assert!(!self.assignments.contains_key(task), "{task} was cancelled, and is not")
                }
                Fate::Abandoned => {
                    assert!(self.stale.contains_key(task), "{task} is abandoned, and is not counted")
                }
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
        let is_stale = |running: &&Running| matches!(running.fate, Fate::Abandoned);
        let stale_runs = self.running.values().filter(is_stale).count();
        let stale: u32 = self.stale.values().sum();
        assert_eq!(stale as usize, stale_batches.sum::<usize>() + stale_runs, "what is stale is counted wrongly");
    }

    /// Without a scheduler there is nothing left of what one has said, but what has begun.
    fn check_registered(&self) {
        if self.is_registered {
            return;
        }
        let not_begun = self.assignments.iter().find(|entry| entry.1.state != AssignedState::Executing);
        assert!(not_begun.is_none(), "{not_begun:?} is to run for nobody");
        assert!(self.missing.is_empty(), "{:?} are awaited by nobody", self.missing);
        assert!(self.peers.is_empty() && self.own_id.is_none(), "workers are known under ids that mean nothing");
        assert!(self.batches.values().all(|batch| batch.is_stale), "something is fetched for nobody");
    }
}
