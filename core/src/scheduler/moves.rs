//! Copies that are made: replicas, on request or kept up ([`copies`](super::copies)), a better balance, and the data of workers that are about to leave.
//!
//! A copy is asked of the worker that shall have it; what it was for is noted until that worker says that it has it, or cannot
//! have it.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::ids::{ClientId, TaskId, WorkerId};
use crate::wire::{InputAt, ToClient, ToWorker};

use super::pool::{PoolWorker, Slot};
use super::record::State;
use super::{Effects, Scheduler};

/// How many requests of one client are under way at most.
const REQUESTS_MAX: usize = 1_024;

/// How many outputs one rebalancing moves at most.
const REBALANCED_MAX: usize = 100_000;

/// A worker is left alone while it holds at most so many percent more than the mean.
const TOLERANCE_PERCENT: u64 = 5;

/// How many workers are tried for the copy of one output.
const TRIES_MAX: usize = 8;

/// What a client asked for and waits for.
#[derive(Debug)]
struct Request {
    client: ClientId,
    token: u64,
    /// How many copies, and workers that are to leave, are outstanding.
    open: u64,
    moved: u64,
    problem: String,
}

/// A copy that a worker was asked to make.
#[derive(Debug)]
struct Move {
    to: Slot,
    /// Whose copy goes once it is there.
    from: Option<Slot>,
    request: Option<u64>,
    /// Whom it was asked of in vain.
    tried: SmallVec<[Slot; 2]>,
}

/// What is being copied, and for whom.
#[derive(Debug, Default)]
pub(super) struct Moves {
    by_task: BTreeMap<TaskId, SmallVec<[Move; 1]>>,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    /// The workers that are about to leave, with the requests that wait for that.
    retiring: BTreeMap<Slot, Vec<u64>>,
    /// What is on its way to each worker.
    incoming: BTreeMap<Slot, Incoming>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Incoming {
    outputs: usize,
    nbytes: u64,
}

impl Moves {
    /// Panics if something is counted wrongly.
    pub(super) fn check(&self) {
        for (id, request) in &self.requests {
            let moves = self.by_task.values().flatten().filter(|of| of.request == Some(*id)).count();
            let retiring = self.retiring.values().flatten().filter(|of| *of == id).count();
            assert_eq!(request.open, (moves + retiring) as u64, "request {id} is counted wrongly");
            assert!(request.open > 0, "request {id} was not answered");
        }
        assert!(self.by_task.values().all(|moves| !moves.is_empty()));
        let mut coming: BTreeMap<Slot, usize> = BTreeMap::new();
        self.by_task.values().flatten().for_each(|of| *coming.entry(of.to).or_default() += 1);
        let counted = self.incoming.iter().map(|(slot, incoming)| (*slot, incoming.outputs));
        assert_eq!(counted.collect::<BTreeMap<_, _>>(), coming, "what is on its way is counted wrongly");
    }

    /// The tasks whose outputs are being copied, and the workers that take part, for checks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TaskId, Slot)> + '_ {
        self.by_task.iter().flat_map(|(task, moves)| moves.iter().map(|of| (*task, of.to)))
    }

    /// How many copies of an output are on their way that take no other's place, or that of one for which this holds.
    pub(super) fn coming(&self, task: TaskId, is_leaving: impl Fn(Slot) -> bool) -> usize {
        let adds = |of: &&Move| of.from.is_none_or(&is_leaving);
        self.by_task.get(&task).map_or(0, |moves| moves.iter().filter(adds).count())
    }

    fn incoming_bytes(&self, slot: Slot) -> u64 {
        self.incoming.get(&slot).map_or(0, |incoming| incoming.nbytes)
    }
}

impl Scheduler {
    /// Opens a request, which counts as outstanding until it is closed; `None` if the client has too many.
    fn open_request(&mut self, client: ClientId, token: u64, effects: &mut Effects) -> Option<u64> {
        if self.moves.requests.values().filter(|request| request.client == client).count() >= REQUESTS_MAX {
            let problem = format!("{REQUESTS_MAX} requests are under way: wait for some of them to end");
            effects.tell_client(client, ToClient::Done { token, moved: 0, problem });
            return None;
        }
        let id = self.moves.next_request;
        self.moves.next_request += 1;
        // One for the asking itself.
        self.moves.requests.insert(id, Request { client, token, open: 1, moved: 0, problem: String::new() });
        Some(id)
    }

    /// One thing that a request waits for has ended: the copy was made, or what stood in the way.
    fn close_one(&mut self, id: Option<u64>, outcome: Result<u64, String>, effects: &mut Effects) {
        let Some((id, request)) = id.and_then(|id| self.moves.requests.get_mut(&id).map(|request| (id, request)))
        else {
            return;
        };
        match outcome {
            Ok(moved) => request.moved += moved,
            // The first one is told; the others mostly are the same.
            Err(problem) if request.problem.is_empty() => request.problem = problem,
            Err(_) => {}
        }
        request.open -= 1;
        if request.open == 0
            && let Some(request) = self.moves.requests.remove(&id)
        {
            let Request { client, token, moved, problem, .. } = request;
            effects.tell_client(client, ToClient::Done { token, moved, problem });
        }
    }

    /// Nobody waits for this client's requests any more.
    pub(super) fn drop_requests(&mut self, client: ClientId) {
        self.moves.requests.retain(|_, request| request.client != client);
        let requests = &self.moves.requests;
        let is_open = |id: &u64| requests.contains_key(id);
        self.moves.retiring.values_mut().for_each(|waiting| waiting.retain(is_open));
        for of in self.moves.by_task.values_mut().flatten() {
            of.request = of.request.filter(is_open);
        }
    }

    /// Asks a worker for a copy of an output. Says whether it was asked.
    pub(super) fn start_move(
        &mut self,
        task: TaskId,
        to: Slot,
        from: Option<Slot>,
        request: Option<u64>,
        tried: SmallVec<[Slot; 2]>,
        effects: &mut Effects,
    ) -> bool {
        let Some(record) = self.jobs.get(task) else { return false };
        let State::Memory { nbytes, holders } = &record.state else { return false };
        let Some(worker) = self.pool.get(to).map(|worker| worker.id) else { return false };
        let input =
            InputAt { task, nbytes: *nbytes, attempt: record.attempt, holders: self.worker_ids(holders).collect() };
        let incoming = self.moves.incoming.entry(to).or_default();
        incoming.outputs += 1;
        incoming.nbytes = incoming.nbytes.saturating_add(*nbytes);
        if let Some(request) = request.and_then(|id| self.moves.requests.get_mut(&id)) {
            request.open += 1;
        }
        self.moves.by_task.entry(task).or_default().push(Move { to, from, request, tried });
        effects.tell_worker(worker, ToWorker::Acquire { inputs: vec![input] });
        true
    }

    /// Takes the moves of an output out that a condition holds for.
    fn take_moves(&mut self, task: TaskId, is_meant: impl Fn(&Move) -> bool) -> Vec<Move> {
        let Some(moves) = self.moves.by_task.get_mut(&task) else { return Vec::new() };
        let (taken, left): (Vec<Move>, Vec<Move>) = std::mem::take(moves).into_iter().partition(is_meant);
        *moves = left.into_iter().collect();
        if moves.is_empty() {
            self.moves.by_task.remove(&task);
        }
        let nbytes = self.nbytes(task).unwrap_or(0);
        for of in &taken {
            let Some(incoming) = self.moves.incoming.get_mut(&of.to) else { continue };
            incoming.outputs -= 1;
            // The size may have become known differently since.
            incoming.nbytes = incoming.nbytes.saturating_sub(nbytes);
            if incoming.outputs == 0 {
                self.moves.incoming.remove(&of.to);
            }
        }
        taken
    }

    /// A worker has a copy now.
    pub(super) fn on_moved(&mut self, slot: Slot, task: TaskId, effects: &mut Effects) {
        for of in self.take_moves(task, |of| of.to == slot) {
            if let Some(from) = of.from {
                self.drop_spare(task, from, effects);
            }
            self.close_one(of.request, Ok(1), effects);
        }
    }

    /// Drops a worker's copy of an output, unless it is the only one.
    fn drop_spare(&mut self, task: TaskId, from: Slot, effects: &mut Effects) {
        let Some(State::Memory { holders, .. }) = self.jobs.get(task).map(|record| &record.state) else { return };
        if holders.len() < 2 {
            return;
        }
        if self.drop_holder(task, from).is_some() {
            self.take_copy_away(from, task, effects);
        }
    }

    /// A worker cannot have a copy: another one is asked if the data must go, and else it is told so.
    pub(super) fn on_not_acquired(&mut self, slot: Slot, task: TaskId, effects: &mut Effects) {
        for of in self.take_moves(task, |of| of.to == slot) {
            self.try_elsewhere(task, of, effects);
        }
    }

    fn try_elsewhere(&mut self, task: TaskId, mut of: Move, effects: &mut Effects) {
        of.tried.push(of.to);
        let must_go = of.from.is_some_and(|from| self.moves.retiring.contains_key(&from));
        match self.pool.get(of.to) {
            Some(worker) if of.from.is_none() && !worker.is_retiring => self.copy_was_refused(task),
            _ => self.look_at_copies(task),
        }
        let next = if must_go && of.tried.len() < TRIES_MAX { self.target(task, &of.tried) } else { None };
        if let Some(next) = next
            && self.start_move(task, next, of.from, of.request, of.tried, effects)
        {
            // It counts for the new try.
            return self.close_one(of.request, Ok(0), effects);
        }
        let worker = self.pool.get(of.to).map_or_else(|| "a worker that is gone".to_owned(), |to| to.info.name.clone());
        self.close_one(of.request, Err(format!("the output of task {task} could not be copied to {worker}")), effects);
        if let Some(from) = of.from.filter(|_| must_go) {
            self.stop_retiring(from, &format!("nobody could take the output of task {task}"), effects);
        }
    }

    /// An output is gone: so are the copies that were to be made of it.
    pub(super) fn end_moves(&mut self, task: TaskId, effects: &mut Effects) {
        if self.moves.by_task.is_empty() {
            return;
        }
        for of in self.take_moves(task, |_| true) {
            self.close_one(of.request, Ok(0), effects);
        }
    }

    /// A worker is gone.
    pub(super) fn end_moves_of(&mut self, slot: Slot, effects: &mut Effects) {
        for request in self.moves.retiring.remove(&slot).unwrap_or_default() {
            self.close_one(Some(request), Ok(0), effects);
        }
        for task in self.moved(|of| of.from == Some(slot)) {
            for of in self.take_moves(task, |of| of.from == Some(slot)) {
                self.close_one(of.request, Ok(0), effects);
            }
            self.look_at_copies(task);
        }
        self.end_moves_to(slot, effects);
    }

    /// A worker takes nothing any more: others are asked for the copies that it was to make.
    fn end_moves_to(&mut self, slot: Slot, effects: &mut Effects) {
        for task in self.moved(|of| of.to == slot) {
            for of in self.take_moves(task, |of| of.to == slot) {
                self.try_elsewhere(task, of, effects);
            }
        }
    }

    /// The outputs that a copy is made of that a condition holds for.
    fn moved(&self, is_meant: impl Fn(&Move) -> bool) -> Vec<TaskId> {
        let touched = self.moves.by_task.iter().filter(|(_, moves)| moves.iter().any(&is_meant));
        touched.map(|(task, _)| *task).collect()
    }

    /// The worker with the least data that has no copy, is not about to leave and was not tried.
    pub(super) fn target(&self, task: TaskId, tried: &[Slot]) -> Option<Slot> {
        let Some(State::Memory { holders, .. }) = self.jobs.get(task).map(|record| &record.state) else { return None };
        let moves = self.moves.by_task.get(&task);
        let is_coming = |slot: Slot| moves.is_some_and(|moves| moves.iter().any(|of| of.to == slot));
        self.pool
            .iter()
            .filter(|(slot, worker)| {
                !worker.is_retiring && !holders.contains(slot) && !tried.contains(slot) && !is_coming(*slot)
            })
            .min_by_key(|(slot, worker)| {
                let nbytes = worker.nbytes.saturating_add(self.moves.incoming_bytes(*slot));
                (worker.status.paused, nbytes, *slot)
            })
            .map(|found| found.0)
    }

    /// Makes copies of a client's outputs until there are so many, and keeps them up.
    pub(super) fn on_replicate(
        &mut self,
        client: ClientId,
        token: u64,
        tasks: Vec<TaskId>,
        copies: u32,
        effects: &mut Effects,
    ) {
        let Some(request) = self.open_request(client, token, effects) else { return };
        for task in tasks {
            let holders = match self.jobs.get(task).map(|record| &record.state) {
                Some(State::Memory { holders, .. }) if self.is_of(client, task.job) => holders.len(),
                _ => continue,
            };
            self.raise_copies(task, copies);
            for _ in holders + self.moves.coming(task, |_| false)..copies as usize {
                let Some(to) = self.target(task, &[]) else { break };
                self.start_move(task, to, None, Some(request), SmallVec::new(), effects);
            }
            self.look_at_copies(task);
        }
        self.close_one(Some(request), Ok(0), effects);
    }

    /// Moves outputs from the workers that hold most to those that hold least, until they hold about the same.
    pub(super) fn on_rebalance(&mut self, client: ClientId, token: u64, effects: &mut Effects) {
        let Some(request) = self.open_request(client, token, effects) else { return };
        let mut sizes: BTreeMap<Slot, u64> = self
            .pool
            .iter()
            .filter(|(_, worker)| worker.is_open())
            .map(|(slot, worker)| (slot, worker.nbytes.saturating_add(self.moves.incoming_bytes(slot))))
            .collect();
        let mean = sizes.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)) / (sizes.len() as u64).max(1);
        let enough = mean.saturating_add(mean / 100 * TOLERANCE_PERCENT);
        let mut moved = 0;
        let full: Vec<Slot> = sizes.iter().filter(|(_, bytes)| **bytes > enough).map(|(slot, _)| *slot).collect();
        for from in full {
            for task in self.movable(from) {
                let nbytes = self.nbytes(task).unwrap_or(0);
                let size = sizes.get(&from).copied().unwrap_or(0);
                if size <= enough || moved >= REBALANCED_MAX {
                    break;
                }
                let Some((to, least)) = sizes.iter().map(|(slot, bytes)| (*slot, *bytes)).min_by_key(|entry| entry.1)
                else {
                    break;
                };
                // It must make things better, and the receiver must not become the next one that is full.
                let is_better = to != from && nbytes > 0 && least.saturating_add(nbytes) < size;
                if is_better && self.start_move(task, to, Some(from), Some(request), SmallVec::new(), effects) {
                    sizes.insert(from, size - nbytes.min(size));
                    sizes.insert(to, least.saturating_add(nbytes));
                    moved += 1;
                }
            }
        }
        self.close_one(Some(request), Ok(0), effects);
    }

    /// The outputs that only this worker holds and that are not on their way, the largest first.
    fn movable(&self, slot: Slot) -> Vec<TaskId> {
        let Some(worker) = self.pool.get(slot) else { return Vec::new() };
        let mut tasks: Vec<TaskId> = self.has_what(worker.id);
        tasks.retain(|task| {
            let is_sole = matches!(self.jobs.get(*task).map(|record| &record.state), Some(State::Memory { holders, .. }) if holders.len() == 1);
            is_sole && !self.moves.by_task.contains_key(task)
        });
        tasks.sort_by_key(|task| std::cmp::Reverse(self.nbytes(*task)));
        tasks
    }

    /// A client wants workers to leave.
    pub(super) fn on_retire(&mut self, client: ClientId, token: u64, workers: &[WorkerId], effects: &mut Effects) {
        let Some(request) = self.open_request(client, token, effects) else { return };
        let mut leaving = Vec::new();
        for worker in workers {
            let Some(slot) = self.pool.slot(*worker) else { continue };
            if !self.can_retire(slot) {
                let name = self.pool.get(slot).map_or_else(String::new, |worker| worker.info.name.clone());
                let problem =
                    format!("worker {name} cannot leave: there is no other worker to take its tasks and data");
                if let Some(request) = self.moves.requests.get_mut(&request) {
                    request.problem = problem;
                }
                continue;
            }
            if let Some(request) = self.moves.requests.get_mut(&request) {
                request.open += 1;
            }
            if self.mark_retiring(slot, Some(request)) {
                leaving.push(slot);
            }
        }
        // Only now, so that nothing moves from one that leaves to another.
        for slot in leaving {
            self.clear_out(slot, Some(request), effects);
        }
        self.close_one(Some(request), Ok(0), effects);
    }

    /// A worker wants to leave. If nobody is there to take over, it goes at once: waiting would not help.
    pub(super) fn on_leaving(&mut self, slot: Slot, effects: &mut Effects) {
        // In a recovery others may still come.
        if self.can_retire(slot) || self.recovery.is_under_way {
            if self.mark_retiring(slot, None) {
                self.clear_out(slot, None, effects);
            }
        } else {
            self.let_go_at_once(slot, effects);
        }
    }

    /// The recovery is over. If all that have come want to leave, nobody will take over from them.
    pub(super) fn let_last_go(&mut self, effects: &mut Effects) {
        if self.pool.iter().all(|(_, worker)| worker.is_retiring) {
            for slot in self.moves.retiring.keys().copied().collect::<Vec<_>>() {
                for request in self.moves.retiring.remove(&slot).unwrap_or_default() {
                    self.close_one(Some(request), Ok(0), effects);
                }
                self.let_go_at_once(slot, effects);
            }
        }
    }

    fn let_go_at_once(&mut self, slot: Slot, effects: &mut Effects) {
        if let Some(worker) = self.pool.get(slot).map(|worker| worker.id) {
            // Nothing more comes to it, so that others do not leave their data to it.
            self.pool.set_retiring(slot, true);
            self.end_moves_to(slot, effects);
            self.has_what(worker).into_iter().for_each(|task| self.look_at_copies(task));
            effects.tell_worker(worker, ToWorker::Leave);
        }
    }

    fn can_retire(&self, slot: Slot) -> bool {
        self.pool.iter().any(|(other, worker)| other != slot && !worker.is_retiring)
    }

    /// The worker gets nothing more. Says whether it was not about to leave before.
    fn mark_retiring(&mut self, slot: Slot, request: Option<u64>) -> bool {
        let is_new = !self.moves.retiring.contains_key(&slot);
        self.moves.retiring.entry(slot).or_default().extend(request);
        self.pool.set_retiring(slot, true);
        is_new
    }

    /// What the worker has not begun is asked back, and what it holds is moved.
    fn clear_out(&mut self, slot: Slot, request: Option<u64>, effects: &mut Effects) {
        self.drain_queue_of(slot);
        self.ask_back_all(slot, effects);
        let held = self.pool.get(slot).map(|worker| worker.id).map_or_else(Vec::new, |worker| self.has_what(worker));
        for task in held {
            self.look_at_copies(task);
            self.move_away(task, slot, request, effects);
        }
    }

    /// An output has come to a worker: if that is about to leave, it goes on to another.
    pub(super) fn move_away_if_retiring(&mut self, slot: Slot, task: TaskId, effects: &mut Effects) {
        if self.moves.retiring.contains_key(&slot) {
            self.move_away(task, slot, None, effects);
        }
    }

    /// Has an output copied to a worker that stays, unless another has it that stays or is to see to it itself; and dropped
    /// here.
    fn move_away(&mut self, task: TaskId, from: Slot, request: Option<u64>, effects: &mut Effects) {
        let Some(State::Memory { holders, .. }) = self.jobs.get(task).map(|record| &record.state) else { return };
        let is_kept_by = |slot: &Slot| {
            let stays = self.pool.get(*slot).is_some_and(|worker| !worker.is_retiring);
            *slot != from && (stays || self.moves.retiring.contains_key(slot))
        };
        if holders.iter().any(is_kept_by) {
            return self.drop_spare(task, from, effects);
        }
        if let Some(to) = self.target(task, &[]) {
            self.start_move(task, to, Some(from), request, SmallVec::new(), effects);
        } else if let Some(of) = self.coming_to_stay(task) {
            // It is copied to the only one that could take it.
            of.from = Some(from);
        } else {
            self.stop_retiring(from, "there is no other worker to take its data", effects);
        }
    }

    /// A copy of an output that is being made on a worker that stays.
    fn coming_to_stay(&mut self, task: TaskId) -> Option<&mut Move> {
        let pool = &self.pool;
        let stays = |slot: Slot| pool.get(slot).is_some_and(|worker| !worker.is_retiring);
        self.moves.by_task.get_mut(&task)?.iter_mut().find(|of| of.from.is_none() && stays(of.to))
    }

    /// A worker cannot leave after all, and works on.
    fn stop_retiring(&mut self, slot: Slot, why: &str, effects: &mut Effects) {
        let Some(requests) = self.moves.retiring.remove(&slot) else { return };
        self.pool.set_retiring(slot, false);
        self.copies.look_at_starved();
        self.roomy.push(slot);
        let name = self.pool.get(slot).map_or_else(String::new, |worker| worker.info.name.clone());
        for request in requests {
            self.close_one(Some(request), Err(format!("worker {name} cannot leave: {why}")), effects);
        }
    }

    /// If only workers are left that were about to leave, they stay: there is nobody to take over.
    pub(super) fn keep_last_workers(&mut self, effects: &mut Effects) {
        if self.pool.iter().any(|(_, worker)| !worker.is_retiring) {
            return;
        }
        for slot in self.moves.retiring.keys().copied().collect::<Vec<_>>() {
            self.stop_retiring(slot, "there is no other worker any more", effects);
        }
    }

    /// Lets those go that were about to leave and have nothing left. They stay without work until they are gone.
    pub(super) fn let_retired_go(&mut self, effects: &mut Effects) {
        // What they have and nobody has asked for yet may be the only one of its kind.
        if self.moves.retiring.is_empty() || !self.orphans.is_empty() {
            return;
        }
        let is_done = |slot: &Slot| {
            let is_empty = |worker: &PoolWorker| worker.processing.is_empty() && worker.held_live == 0;
            // What is on its way to it may be taken from where it is as soon as it has arrived.
            self.pool.get(*slot).is_some_and(is_empty) && !self.moves.incoming.contains_key(slot)
        };
        let done: Vec<Slot> = self.moves.retiring.keys().copied().filter(is_done).collect();
        for slot in done {
            if let Some(worker) = self.pool.get(slot) {
                effects.tell_worker(worker.id, ToWorker::Leave);
            }
            for request in self.moves.retiring.remove(&slot).unwrap_or_default() {
                self.close_one(Some(request), Ok(0), effects);
            }
        }
    }
}
