//! The registered workers: what each one runs, holds and queues, and which of them has room.
//!
//! A worker is told as much work as keeps its threads busy for `saturation_us`, going by the measured mean duration of
//! each kind, and one task more than it has threads at least, so that a thread that gets free finds the next task
//! there. What is beyond that stays at the scheduler, where it can still go to another worker. Tasks that are sent ahead
//! of their inputs are counted apart, up to the same bounds: until their inputs are there they keep no thread busy. Suspended
//! tasks are not counted. A worker that is paused or about to leave has no room, whatever it does.
//!
//! Every worker is in one class by its room. Choosing among many looks at [`SAMPLE`] of the best class, so that the
//! cost of placing a task does not grow with the number of workers.

use std::collections::{BTreeMap, VecDeque};

use smallvec::SmallVec;

use crate::ids::{TaskId, Time, WorkerId};
use crate::spec::{Amount, Resources};
use crate::wire::{WorkerInfo, WorkerStatus};

use super::queue::ReadyQueue;
use super::record::Phase;

/// How many tasks a thread is given in advance at most, however short they are; and as many again ahead of their inputs.
const IN_FLIGHT_TASKS_MAX: u64 = 1_000;

/// How long a task of a kind that was never run is taken to run, in microseconds: two of them fill a thread.
pub(super) const UNKNOWN_US: u32 = 5_000;

/// How many threads a worker is believed to have at most, whatever it says.
const NTHREADS_MAX: u32 = 4_096;

/// An output is believed to have at most this many bytes, so that sums over many of them cannot overflow.
pub(super) const NBYTES_MAX: u64 = 1 << 46;

/// How many orders to drop a copy are remembered until the worker is known to have heard them. The oldest are forgotten, at the
/// risk that a copy is counted that goes.
const TAKEN_AWAY_MAX: usize = 100_000;

/// How many workers are compared when one is chosen.
const SAMPLE: usize = 16;

/// A worker's place in the pool. Reused after the worker is gone, when no record names it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) u32);

/// How much room a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Room {
    /// A thread has nothing to do.
    Idle = 0,
    /// Every thread has a task, and none waits behind them.
    Low = 1,
    /// Some wait, and more may be sent.
    Open = 2,
    /// As much is in flight as should be.
    Full = 3,
}

/// A registered worker.
#[derive(Debug)]
pub(super) struct PoolWorker {
    pub(super) id: WorkerId,
    pub(super) info: WorkerInfo,
    nthreads: u32,
    /// How much work each thread is given in advance, in microseconds.
    saturation_us: u64,
    /// All and only the tasks in state processing here. A record knows its position.
    pub(super) processing: Vec<TaskId>,
    /// How many of `processing` were sent ahead of their inputs, and their expected durations, added up.
    ahead: usize,
    ahead_us: u64,
    /// How many of `processing` wait for tasks that they have submitted themselves. These are expected to take no time.
    suspended: usize,
    /// How many of `processing` are asked back.
    pub(super) asked: usize,
    /// The expected durations of `processing`, added up.
    pub(super) occupancy_us: u64,
    /// When a task last began to be processed by an idle worker, or ended here.
    pub(super) progress_at: Time,
    /// What it last said of itself.
    pub(super) status: WorkerStatus,
    /// Whether it is about to leave.
    pub(super) is_retiring: bool,
    /// How many outputs it was told to drop; wraps around.
    pub(super) frees_said: u32,
    /// The copies that it was told to drop while others stay, by the number of the order, until it is known to have heard.
    taken_away: VecDeque<(u32, TaskId)>,
    /// How much of its resources is in use.
    used: Resources,
    /// Tasks whose inputs are computed here, and that could not be sent ahead for want of room; some may not wait any
    /// more.
    pub(super) ahead_later: VecDeque<TaskId>,
    /// Tasks whose inputs are mostly here and that wait for room.
    pub(super) queue: ReadyQueue,
    /// Every output that has come here; those that have gone are weeded out when they are the most.
    held: Vec<TaskId>,
    /// How many outputs are here.
    pub(super) held_live: usize,
    /// Their bytes.
    pub(super) nbytes: u64,
    /// The list of rooms that it is in, and its place there.
    listed: Room,
    room_position: usize,
    /// The place among the workers with a queue.
    queue_position: Option<usize>,
}

/// Whether the order of this number is among the first so many, which wrap around.
fn is_heard(number: u32, heard: u32) -> bool {
    heard.wrapping_sub(number) < u32::MAX / 2
}

impl PoolWorker {
    /// How many tasks its threads have to do, or will have as soon as they get free.
    pub(super) fn in_flight(&self) -> usize {
        self.processing.len() - self.ahead - self.suspended
    }

    pub(super) fn nthreads(&self) -> u32 {
        self.nthreads
    }

    /// How much room it has now. Which list it is in follows at the end of the event.
    pub(super) fn room(&self) -> Room {
        let in_flight = self.in_flight() as u64;
        let nthreads = u64::from(self.nthreads);
        let in_flight_us = self.occupancy_us - self.ahead_us;
        if self.status.paused || self.is_retiring {
            Room::Full
        } else if in_flight < nthreads {
            Room::Idle
        } else if in_flight == nthreads {
            Room::Low
        } else if in_flight_us < self.saturation_us * nthreads && in_flight < IN_FLIGHT_TASKS_MAX * nthreads {
            Room::Open
        } else {
            Room::Full
        }
    }

    /// It was just told to drop a copy that others have, too.
    pub(super) fn take_away(&mut self, task: TaskId) {
        if self.taken_away.len() >= TAKEN_AWAY_MAX {
            self.taken_away.pop_front();
        }
        self.taken_away.push_back((self.frees_said, task));
    }

    /// Whether a copy that it tells of, when it had heard so many orders to drop something, goes with one that it had not.
    pub(super) fn is_taken_away(&mut self, task: TaskId, frees_heard: u32) -> bool {
        while self.taken_away.front().is_some_and(|(number, _)| is_heard(*number, frees_heard)) {
            self.taken_away.pop_front();
        }
        self.taken_away.iter().any(|(_, taken)| *taken == task)
    }

    /// How long the work in flight will take, in microseconds.
    pub(super) fn wait_us(&self) -> u64 {
        self.occupancy_us / u64::from(self.nthreads)
    }

    fn enter_phase(&mut self, phase: Phase, expected_us: u32) {
        let expected_us = u64::from(expected_us);
        self.occupancy_us += expected_us;
        match phase {
            Phase::Ahead { .. } => {
                self.ahead += 1;
                self.ahead_us += expected_us;
            }
            Phase::Suspended => self.suspended += 1,
            Phase::Asked { .. } => self.asked += 1,
            Phase::Sent | Phase::Begun => {}
        }
    }

    fn leave_phase(&mut self, phase: Phase, expected_us: u32) {
        let expected_us = u64::from(expected_us);
        self.occupancy_us -= expected_us;
        match phase {
            Phase::Ahead { .. } => {
                self.ahead -= 1;
                self.ahead_us -= expected_us;
            }
            Phase::Suspended => self.suspended -= 1,
            Phase::Asked { .. } => self.asked -= 1,
            Phase::Sent | Phase::Begun => {}
        }
    }

    /// How many of its tasks are in each phase that is counted: sent ahead, suspended, asked back.
    pub(super) fn phases(&self) -> (usize, usize, usize) {
        (self.ahead, self.suspended, self.asked)
    }

    /// Whether it may be given work at all.
    pub(super) fn is_open(&self) -> bool {
        !self.status.paused && !self.is_retiring
    }

    /// How much of a resource is not in use.
    pub(super) fn left(&self, resource: &str) -> Amount {
        let amount = |of: &Resources| of.get(resource).map_or(0, |amount| amount.0);
        Amount(amount(&self.info.resources).saturating_sub(amount(&self.used)))
    }

    /// Whether so much is not in use.
    pub(super) fn has_left(&self, needs: &Resources) -> bool {
        needs.iter().all(|(name, needed)| self.left(name) >= *needed)
    }

    /// A task that needs so much begins.
    pub(super) fn take_resources(&mut self, needs: &Resources) {
        for (name, needed) in needs {
            self.used.entry(name.clone()).or_default().0 += needed.0;
        }
    }

    /// A task that needed so much has ended.
    pub(super) fn give_resources_back(&mut self, needs: &Resources) {
        for (name, needed) in needs {
            if let Some(used) = self.used.get_mut(name) {
                used.0 = used.0.saturating_sub(needed.0);
            }
        }
        self.used.retain(|_, used| used.0 > 0);
    }

    pub(super) fn used(&self) -> &Resources {
        &self.used
    }

    /// The outputs that came here, some of which may have gone again.
    pub(super) fn held(&self) -> &[TaskId] {
        &self.held
    }
}

/// The registered workers.
#[derive(Debug, Default)]
pub(super) struct Pool {
    slots: Vec<Option<Box<PoolWorker>>>,
    free: Vec<Slot>,
    by_id: BTreeMap<WorkerId, Slot>,
    /// How much work a thread is given in advance, in microseconds.
    saturation_us: u64,
    /// Idle, low, open and full workers.
    rooms: [Vec<Slot>; 4],
    /// All and only the workers with tasks in their queue.
    with_queue: Vec<Slot>,
    cursor: usize,
}

impl Pool {
    pub(super) fn new(saturation_us: u64) -> Pool {
        Pool { saturation_us, ..Pool::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// One more than the highest slot in use so far.
    pub(super) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slot(&self, id: WorkerId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&PoolWorker> {
        self.slots.get(slot.0 as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut PoolWorker> {
        self.slots.get_mut(slot.0 as usize)?.as_deref_mut()
    }

    /// The workers in order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &PoolWorker)> {
        self.by_id.values().filter_map(|slot| self.get(*slot).map(|worker| (*slot, worker)))
    }

    pub(super) fn insert(&mut self, id: WorkerId, info: WorkerInfo, now: Time) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(self.slots.len() as u32 - 1)
        });
        let nthreads = info.nthreads.clamp(1, NTHREADS_MAX);
        self.by_id.insert(id, slot);
        self.slots[slot.0 as usize] = Some(Box::new(PoolWorker {
            id,
            info,
            nthreads,
            saturation_us: self.saturation_us,
            processing: Vec::new(),
            ahead: 0,
            ahead_us: 0,
            suspended: 0,
            asked: 0,
            occupancy_us: 0,
            progress_at: now,
            status: WorkerStatus::default(),
            is_retiring: false,
            frees_said: 0,
            taken_away: VecDeque::new(),
            used: Resources::new(),
            ahead_later: VecDeque::new(),
            queue: ReadyQueue::default(),
            held: Vec::new(),
            held_live: 0,
            nbytes: 0,
            listed: Room::Full,
            room_position: self.rooms[Room::Full as usize].len(),
            queue_position: None,
        }));
        self.rooms[Room::Full as usize].push(slot);
        self.update_room(slot);
        slot
    }

    /// Takes a worker out of the choice and gives its last state. The slot is reused only after [`Pool::reuse`].
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Box<PoolWorker>> {
        self.leave_room(slot);
        self.leave_queue_list(slot);
        let worker = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.by_id.remove(&worker.id);
        Some(worker)
    }

    /// No record names the slot any more.
    pub(super) fn reuse(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// Adds a task to those that a worker has, ahead of its inputs or not; gives its position.
    pub(super) fn begin(&mut self, slot: Slot, task: TaskId, expected_us: u32, phase: Phase, now: Time) -> u32 {
        let Some(worker) = self.get_mut(slot) else { return 0 };
        if worker.in_flight() < worker.nthreads as usize {
            worker.progress_at = now;
        }
        worker.processing.push(task);
        worker.enter_phase(phase, expected_us);
        let position = worker.processing.len() as u32 - 1;
        self.update_room(slot);
        position
    }

    /// Takes a task from those that a worker has; gives the task that has moved to its position. The caller sees to it that
    /// [`Pool::update_room`] follows.
    pub(super) fn end(
        &mut self,
        slot: Slot,
        position: u32,
        expected_us: u32,
        phase: Phase,
        now: Time,
    ) -> Option<TaskId> {
        let worker = self.get_mut(slot)?;
        if position as usize >= worker.processing.len() {
            return None;
        }
        worker.progress_at = now;
        worker.processing.swap_remove(position as usize);
        worker.leave_phase(phase, expected_us);
        worker.processing.get(position as usize).copied()
    }

    /// A task that a worker has goes from one phase, in which it was expected to take so long, to another.
    pub(super) fn change_phase(&mut self, slot: Slot, from: (Phase, u32), to: (Phase, u32)) {
        let Some(worker) = self.get_mut(slot) else { return };
        worker.leave_phase(from.0, from.1);
        worker.enter_phase(to.0, to.1);
        self.update_room(slot);
    }

    /// Whether another task may be sent ahead of its inputs.
    pub(super) fn has_room_ahead(&self, slot: Slot) -> bool {
        self.get(slot).is_some_and(|worker| {
            let nthreads = u64::from(worker.nthreads);
            worker.is_open()
                && worker.ahead_us < self.saturation_us * nthreads
                && (worker.ahead as u64) < IN_FLIGHT_TASKS_MAX * nthreads
        })
    }

    /// Whether at least half of the room for tasks ahead of their inputs is free.
    pub(super) fn has_much_room_ahead(&self, slot: Slot) -> bool {
        self.get(slot).is_some_and(|worker| {
            let nthreads = u64::from(worker.nthreads);
            worker.ahead_us * 2 <= self.saturation_us * nthreads
                && worker.ahead as u64 * 2 <= IN_FLIGHT_TASKS_MAX * nthreads
        })
    }

    /// The worker has said how it is. Says whether it has begun or ceased to be paused.
    pub(super) fn set_status(&mut self, slot: Slot, status: WorkerStatus) -> bool {
        let Some(worker) = self.get_mut(slot) else { return false };
        let is_changed = worker.status.paused != status.paused;
        worker.status = status;
        self.update_room(slot);
        is_changed
    }

    pub(super) fn set_retiring(&mut self, slot: Slot, is_retiring: bool) {
        let Some(worker) = self.get_mut(slot) else { return };
        worker.is_retiring = is_retiring;
        self.update_room(slot);
    }

    /// Some of the workers that have nothing to do.
    pub(super) fn idle(&self) -> SmallVec<[Slot; SAMPLE]> {
        self.rooms[Room::Idle as usize].iter().copied().take(SAMPLE).collect()
    }

    /// The worker with the most work waiting behind what its threads do, of a sample of those that may have any.
    pub(super) fn busiest(&mut self) -> Option<Slot> {
        [Room::Full, Room::Open].into_iter().find_map(|room| {
            let list = std::mem::take(&mut self.rooms[room as usize]);
            let spare = |worker: &PoolWorker| {
                let is_busy = worker.in_flight() > worker.nthreads as usize && worker.asked == 0;
                if is_busy { u64::MAX - worker.wait_us() } else { u64::MAX }
            };
            let found = self.sample(&list, spare);
            self.rooms[room as usize] = list;
            found.filter(|slot| self.get(*slot).is_some_and(|worker| spare(worker) < u64::MAX))
        })
    }

    /// Whether some worker is idle, and some other has work waiting, as far as that is known at once.
    pub(super) fn is_uneven(&self) -> bool {
        let has = |room: Room| !self.rooms[room as usize].is_empty();
        has(Room::Idle) && (has(Room::Open) || has(Room::Full))
    }

    fn sample_room(&mut self, room: Room) -> Option<Slot> {
        let list = std::mem::take(&mut self.rooms[room as usize]);
        let found = self.sample(&list, PoolWorker::wait_us);
        self.rooms[room as usize] = list;
        found
    }

    /// Counts an output as held. The record names the worker from now on.
    pub(super) fn hold(&mut self, slot: Slot, task: TaskId, nbytes: u64) {
        let Some(worker) = self.get_mut(slot) else { return };
        worker.held.push(task);
        worker.held_live += 1;
        worker.nbytes = worker.nbytes.saturating_add(nbytes);
    }

    /// Counts an output as gone. Says whether the worker's list should be weeded.
    pub(super) fn unhold(&mut self, slot: Slot, nbytes: u64) -> bool {
        let Some(worker) = self.get_mut(slot) else { return false };
        worker.held_live = worker.held_live.saturating_sub(1);
        worker.nbytes = worker.nbytes.saturating_sub(nbytes);
        if worker.held_live == 0 {
            worker.held.clear();
            if worker.held.capacity() > 1024 {
                worker.held = Vec::new();
            }
        }
        worker.held.len() > 64 + 2 * worker.held_live
    }

    /// Weeds a worker's list of outputs.
    pub(super) fn weed_held(&mut self, slot: Slot, is_held: impl Fn(TaskId) -> bool) {
        let Some(worker) = self.get_mut(slot) else { return };
        worker.held.retain(|task| is_held(*task));
        worker.held.sort_unstable();
        worker.held.dedup();
        worker.held.shrink_to(2 * worker.held_live + 64);
    }

    /// A task was added to or taken from the worker's queue.
    pub(super) fn queue_changed(&mut self, slot: Slot) {
        let Some(worker) = self.get(slot) else { return };
        match (worker.queue.is_empty(), worker.queue_position) {
            (true, Some(_)) => self.leave_queue_list(slot),
            (false, None) => {
                let position = self.with_queue.len();
                self.with_queue.push(slot);
                if let Some(worker) = self.get_mut(slot) {
                    worker.queue_position = Some(position);
                }
            }
            _ => {}
        }
    }

    /// Whether a task waits in a worker's queue.
    pub(super) fn has_queues(&self) -> bool {
        !self.with_queue.is_empty()
    }

    /// A worker that has a queue, the longest of a sample.
    pub(super) fn longest_queue(&mut self) -> Option<Slot> {
        let list = std::mem::take(&mut self.with_queue);
        let found = self.sample(&list, |worker| u64::MAX - worker.queue.len() as u64);
        self.with_queue = list;
        found
    }

    /// A worker with the most room, if any has at least `room`: the least busy of a sample.
    pub(super) fn least_busy(&mut self, room: Room) -> Option<Slot> {
        [Room::Idle, Room::Low, Room::Open]
            .into_iter()
            .take_while(|class| *class <= room)
            .find(|class| !self.rooms[*class as usize].is_empty())
            .and_then(|class| self.sample_room(class))
    }

    fn sample(&mut self, list: &[Slot], cost: impl Fn(&PoolWorker) -> u64) -> Option<Slot> {
        if list.is_empty() {
            return None;
        }
        let (start, count) = if list.len() <= SAMPLE {
            (0, list.len())
        } else {
            self.cursor = (self.cursor + SAMPLE) % list.len();
            (self.cursor, SAMPLE)
        };
        (0..count)
            .filter_map(|step| list.get((start + step) % list.len()))
            .filter_map(|slot| self.get(*slot).map(|worker| (cost(worker), *slot)))
            .min()
            .map(|found| found.1)
    }

    /// Puts a worker into the list of its room. A task that has ended is mostly followed by another at once, so this is left
    /// until that has begun.
    pub(super) fn update_room(&mut self, slot: Slot) {
        let Some(worker) = self.get(slot) else { return };
        let room = worker.room();
        if room == worker.listed {
            return;
        }
        self.leave_room(slot);
        let position = self.rooms[room as usize].len();
        self.rooms[room as usize].push(slot);
        if let Some(worker) = self.get_mut(slot) {
            worker.listed = room;
            worker.room_position = position;
        }
    }

    fn leave_room(&mut self, slot: Slot) {
        let Some(worker) = self.get(slot) else { return };
        let (room, position) = (worker.listed, worker.room_position);
        let list = &mut self.rooms[room as usize];
        list.swap_remove(position);
        if let Some(moved) = list.get(position).copied()
            && let Some(moved) = self.get_mut(moved)
        {
            moved.room_position = position;
        }
    }

    fn leave_queue_list(&mut self, slot: Slot) {
        let Some(worker) = self.get_mut(slot) else { return };
        let Some(position) = worker.queue_position.take() else { return };
        self.with_queue.swap_remove(position);
        if let Some(moved) = self.with_queue.get(position).copied()
            && let Some(moved) = self.get_mut(moved)
        {
            moved.queue_position = Some(position);
        }
    }

    /// Panics if the lists do not agree with the workers.
    pub(super) fn check(&self) {
        let listed: usize = self.rooms.iter().map(Vec::len).sum();
        assert_eq!(listed, self.len(), "every worker is in one room");
        for (slot, worker) in self.iter() {
            assert_eq!(self.rooms[worker.listed as usize].get(worker.room_position), Some(&slot));
            let room = worker.room();
            assert_eq!(worker.listed, room, "worker {:?} is in the wrong room", worker.id);
            assert_eq!(worker.queue.is_empty(), worker.queue_position.is_none());
            if let Some(position) = worker.queue_position {
                assert_eq!(self.with_queue.get(position), Some(&slot));
            }
        }
        assert_eq!(
            self.with_queue.len(),
            self.iter().filter(|(_, worker)| !worker.queue.is_empty()).count(),
            "the list of workers with a queue holds only those"
        );
    }
}
