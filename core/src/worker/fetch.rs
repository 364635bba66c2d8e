//! What is asked of whom: one batch at a time from each peer, the most urgent first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::fixed::FixedMap;
use crate::ids::{Attempt, NodeId, TaskId, WorkerId};
use crate::wire::{FromWorker, Priority};

use super::inputs::{Place, Value};
use super::{AssignedState, Effect, Worker};

/// How many outputs one fetch asks for at most, however small they are.
const FETCH_TASKS_MAX: usize = 1_000;

/// Another worker.
#[derive(Debug)]
pub(super) struct Peer {
    node: NodeId,
    /// What it may be asked for. Some of it may be here by now, or in flight from elsewhere.
    wanted: BinaryHeap<Reverse<(Priority, TaskId)>>,
    /// Under which priority it is among the askable.
    pub(super) listed: Option<Priority>,
}

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Batch {
    /// What was asked for, and of which try of its task that is as far as the scheduler knew.
    pub(super) tasks: Vec<(TaskId, Attempt)>,
    /// Whether it is from before the link to the scheduler was lost.
    pub(super) is_stale: bool,
}

impl Worker {
    pub(super) fn on_peer(&mut self, worker: WorkerId, node: NodeId) {
        // The scheduler also tells a worker of itself. It never asks itself for anything.
        if node == self.config.node {
            self.own_id = Some(worker);
            return;
        }
        if self.peers.contains_key(&worker) {
            return;
        }
        self.peers.insert(worker, Peer { node, wanted: BinaryHeap::new(), listed: None });
        // A scheduler names a worker before it mentions it; but what was mentioned before is not forgotten.
        let mentioned = self.missing.iter().filter(|entry| entry.1.untried.contains(&worker)).map(|entry| *entry.0);
        let mut mentioned: Vec<TaskId> = mentioned.collect();
        mentioned.sort_unstable();
        for task in mentioned {
            self.enqueue(task);
        }
    }

    /// A fetch from it that is under way will end with an event, like any other.
    pub(super) fn on_peer_gone(&mut self, worker: WorkerId, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.remove(&worker) else { return };
        if let Some(priority) = peer.listed {
            self.askable.remove(&(priority, worker));
        }
        for Reverse((_, task)) in peer.wanted.into_sorted_vec().into_iter().rev() {
            if let Some(missing) = self.missing.get_mut(&task)
                && let Some(position) = missing.untried.iter().position(|holder| *holder == worker)
            {
                missing.untried.remove(position);
                missing.tried.push(worker);
                self.give_up_if_nowhere(task, effects);
            }
        }
    }

    /// Puts an output that is to be fetched into the queue of everybody who may have it.
    pub(super) fn enqueue(&mut self, task: TaskId) {
        let Some(missing) = self.missing.get(&task).filter(|missing| missing.place == Place::Fetch) else { return };
        let entry = (missing.priority, task);
        for holder in &missing.untried {
            let Some(peer) = self.peers.get_mut(holder) else { continue };
            peer.wanted.push(Reverse(entry));
            let comes_first = peer.listed.is_none_or(|listed| entry.0 < listed);
            if comes_first && !self.batches.contains_key(holder) {
                if let Some(listed) = peer.listed.replace(entry.0) {
                    self.askable.remove(&(listed, *holder));
                }
                self.askable.insert((entry.0, *holder));
            }
        }
    }

    /// A stale activity has ended that an awaited output was blocked by.
    pub(super) fn unblock(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        if let Some(missing) = self.missing.get_mut(&task).filter(|missing| missing.place == Place::Blocked) {
            missing.place = Place::Fetch;
            self.enqueue(task);
            self.give_up_if_nowhere(task, effects);
        }
    }

    pub(super) fn start_fetches(&mut self, effects: &mut Vec<Effect>) {
        while !self.status.is_paused() && self.batches.len() < self.config.fetches_max {
            let Some((_, worker)) = self.askable.pop_first() else { break };
            let Some(peer) = self.peers.get_mut(&worker) else { continue };
            peer.listed = None;
            let node = peer.node;
            let tasks = self.next_batch(worker);
            if !tasks.is_empty() {
                let asked = tasks.iter().map(|entry| entry.0).collect();
                self.batches.insert(worker, Batch { tasks, is_stale: false });
                effects.push(Effect::Fetch { from: worker, node, tasks: asked });
            }
        }
    }

    fn next_batch(&mut self, worker: WorkerId) -> Vec<(TaskId, Attempt)> {
        let mut tasks = Vec::new();
        let mut bytes: u64 = 0;
        while tasks.len() < FETCH_TASKS_MAX {
            let Some(task) = self.first_wanted(worker) else { break };
            let Some(missing) = self.missing.get_mut(&task) else { break };
            bytes = bytes.saturating_add(missing.nbytes);
            if !tasks.is_empty() && bytes > self.config.fetch_bytes_max {
                break;
            }
            missing.place = Place::Flight { from: worker };
            missing.untried.retain(|holder| *holder != worker);
            tasks.push((task, missing.attempt));
            if let Some(peer) = self.peers.get_mut(&worker) {
                peer.wanted.pop();
            }
        }
        tasks
    }

    /// The most urgent output that this peer may be asked for. Drops what it need not be asked for any more.
    fn first_wanted(&mut self, worker: WorkerId) -> Option<TaskId> {
        let peer = self.peers.get_mut(&worker)?;
        while let Some(Reverse((_, task))) = peer.wanted.peek() {
            let is_wanted = self
                .missing
                .get(task)
                .is_some_and(|missing| missing.place == Place::Fetch && missing.untried.contains(&worker));
            if is_wanted {
                return Some(*task);
            }
            peer.wanted.pop();
        }
        None
    }

    /// The peer may be asked again, if there is something to ask it for.
    fn list(&mut self, worker: WorkerId) {
        self.first_wanted(worker);
        let Some(peer) = self.peers.get_mut(&worker) else { return };
        let first = peer.wanted.peek().map(|entry| entry.0.0);
        if let Some(listed) = std::mem::replace(&mut peer.listed, first) {
            self.askable.remove(&(listed, worker));
        }
        if let Some(first) = first {
            self.askable.insert((first, worker));
        }
    }

    pub(super) fn on_fetched(
        &mut self,
        from: WorkerId,
        outcome: Vec<(TaskId, Option<u64>)>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(batch) = self.batches.remove(&from) else { return };
        let outcome: FixedMap<TaskId, Option<u64>> = outcome.into_iter().collect();
        for (task, attempt) in batch.tasks {
            let value = outcome.get(&task).copied().flatten().map(|nbytes| Value { attempt, nbytes });
            match value {
                _ if batch.is_stale => {
                    if let Some(value) = value {
                        self.on_stale_arrived(task, value, effects);
                    }
                    self.end_stale(task, effects);
                }
                Some(value) => self.on_arrived(task, value, effects),
                None => self.on_not_there(task, from, effects),
            }
        }
        self.list(from);
    }

    fn on_arrived(&mut self, task: TaskId, value: Value, effects: &mut Vec<Effect>) {
        let Some(missing) = self.missing.get_mut(&task) else { return };
        missing.place = Place::Fetch;
        self.on_written(task, value, effects);
    }

    /// This was asked for before the link was lost. It is dropped, unless that would take something with it that stays: what
    /// was here, or what a thread may just have put here.
    fn on_stale_arrived(&mut self, task: TaskId, value: Value, effects: &mut Vec<Effect>) {
        if self.memory.contains_key(&task) || self.running.contains_key(&task) {
            self.on_written(task, value, effects);
        } else {
            effects.push(Effect::Free { task });
        }
    }

    /// An output has come into the store otherwise than by an assignment that has ended.
    pub(super) fn on_written(&mut self, task: TaskId, value: Value, effects: &mut Vec<Effect>) {
        let was_here = self.memory.contains_key(&task);
        let missing = self.missing.get(&task);
        let is_needed = missing.is_some_and(|missing| missing.users > 0);
        let is_told = missing.is_some_and(|missing| missing.is_acquired);
        let assigned = self.assignments.get(&task).map(|assigned| (assigned.attempt, assigned.state));
        match assigned {
            // It was to be computed here, and need not be now.
            Some((attempt, AssignedState::Waiting { .. } | AssignedState::Ready)) => {
                self.drop_assignment(task, effects);
                let value = Value { attempt, ..value };
                let report = FromWorker::Finished { task, attempt, nbytes: value.nbytes, run_us: 0, inline: None };
                effects.push(Effect::ToScheduler(report));
                self.take_in(task, value, false, effects);
            }
            // The completion will tell the scheduler.
            Some((_, AssignedState::Executing)) => self.take_in(task, value, !is_needed, effects),
            None => {
                self.take_in(task, value, !is_needed || task.is_part(), effects);
                if is_needed && !was_here && !is_told && !task.is_part() {
                    self.tell_of_copy(task, effects);
                }
            }
        }
        // What nobody waits for any more goes at once.
        self.free_if_doomed(task, effects);
    }

    fn on_not_there(&mut self, task: TaskId, from: WorkerId, effects: &mut Vec<Effect>) {
        let Some(missing) = self.missing.get_mut(&task) else { return };
        missing.place = Place::Fetch;
        missing.tried.push(from);
        if !missing.is_wanted() {
            self.missing.remove(&task);
            self.free_if_doomed(task, effects);
            return;
        }
        self.enqueue(task);
        self.give_up_if_nowhere(task, effects);
    }
}
