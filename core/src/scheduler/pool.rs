//! The registered workers: what each one runs, holds and queues, and which of them has room.
//!
//! A worker is told as much work as keeps its threads busy for [`IN_FLIGHT_US`], going by the measured mean duration of
//! each kind, and one task more than it has threads at least, so that a thread that gets free finds the next task
//! there. What is beyond that stays at the scheduler, where it can still go to another worker.
//!
//! Every worker is in one class by its room. Choosing among many looks at [`SAMPLE`] of the best class, so that the
//! cost of placing a task does not grow with the number of workers.

use std::collections::BTreeMap;

use crate::ids::{TaskId, WorkerId};
use crate::wire::WorkerInfo;

use super::queue::ReadyQueue;

/// How much work a thread is given in advance, in microseconds. Long against a round trip (some 100 us), short against
/// what a person notices when work has to be moved.
pub(super) const IN_FLIGHT_US: u64 = 10_000;

/// How many tasks a thread is given in advance at most, however short they are.
const IN_FLIGHT_TASKS_MAX: u64 = 1_000;

/// How long a task of a kind that was never run is taken to run, in microseconds: two of them fill a thread.
pub(super) const UNKNOWN_US: u32 = 5_000;

/// How many threads a worker is believed to have at most, whatever it says.
const NTHREADS_MAX: u32 = 4_096;

/// An output is believed to have at most this many bytes, so that sums over many of them cannot overflow.
pub(super) const NBYTES_MAX: u64 = 1 << 46;

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
    /// All and only the tasks in state processing here. A record knows its position.
    pub(super) processing: Vec<TaskId>,
    /// The expected durations of `processing`, added up.
    pub(super) occupancy_us: u64,
    /// Tasks whose inputs are mostly here and that wait for room.
    pub(super) queue: ReadyQueue,
    /// Every output that has come here; those that have gone are weeded out when they are the most.
    held: Vec<TaskId>,
    /// How many outputs are here.
    pub(super) held_live: usize,
    /// Their bytes.
    pub(super) nbytes: u64,
    room: Room,
    room_position: usize,
    /// The place among the workers with a queue.
    queue_position: Option<usize>,
}

impl PoolWorker {
    pub(super) fn room(&self) -> Room {
        self.room
    }

    fn measure_room(&self) -> Room {
        let in_flight = self.processing.len() as u64;
        let nthreads = u64::from(self.nthreads);
        if in_flight < nthreads {
            Room::Idle
        } else if in_flight == nthreads {
            Room::Low
        } else if self.occupancy_us < IN_FLIGHT_US * nthreads && in_flight < IN_FLIGHT_TASKS_MAX * nthreads {
            Room::Open
        } else {
            Room::Full
        }
    }

    /// How long the work in flight will take, in microseconds.
    pub(super) fn wait_us(&self) -> u64 {
        self.occupancy_us / u64::from(self.nthreads)
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
    /// Idle, low and open workers; the full ones are in no list.
    rooms: [Vec<Slot>; 3],
    /// All and only the workers with tasks in their queue.
    with_queue: Vec<Slot>,
    cursor: usize,
}

impl Pool {
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

    pub(super) fn insert(&mut self, id: WorkerId, info: WorkerInfo) -> Slot {
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
            processing: Vec::new(),
            occupancy_us: 0,
            queue: ReadyQueue::default(),
            held: Vec::new(),
            held_live: 0,
            nbytes: 0,
            room: Room::Full,
            room_position: 0,
            queue_position: None,
        }));
        self.update_room(slot);
        slot
    }

    /// Takes a worker out of the choice and gives its last state. The slot is reused only after [`Pool::reuse`].
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Box<PoolWorker>> {
        self.leave_room(slot);
        if let Some(worker) = self.get_mut(slot) {
            worker.room = Room::Full;
        }
        self.leave_queue_list(slot);
        let worker = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.by_id.remove(&worker.id);
        Some(worker)
    }

    /// No record names the slot any more.
    pub(super) fn reuse(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// Adds a task to those that a worker runs; gives its position.
    pub(super) fn begin(&mut self, slot: Slot, task: TaskId, expected_us: u32) -> u32 {
        let Some(worker) = self.get_mut(slot) else { return 0 };
        worker.processing.push(task);
        worker.occupancy_us += u64::from(expected_us);
        let position = worker.processing.len() as u32 - 1;
        self.update_room(slot);
        position
    }

    /// Takes a task from those that a worker runs; gives the task that has moved to its position.
    pub(super) fn end(&mut self, slot: Slot, position: u32, expected_us: u32) -> Option<TaskId> {
        let worker = self.get_mut(slot)?;
        if position as usize >= worker.processing.len() {
            return None;
        }
        worker.processing.swap_remove(position as usize);
        worker.occupancy_us = worker.occupancy_us.saturating_sub(u64::from(expected_us));
        let moved = worker.processing.get(position as usize).copied();
        self.update_room(slot);
        moved
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
        for class in 0..=(room as usize).min(2) {
            if !self.rooms[class].is_empty() {
                let list = std::mem::take(&mut self.rooms[class]);
                let found = self.sample(&list, PoolWorker::wait_us);
                self.rooms[class] = list;
                return found;
            }
        }
        None
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

    fn update_room(&mut self, slot: Slot) {
        let Some(worker) = self.get(slot) else { return };
        let room = worker.measure_room();
        if room == worker.room {
            return;
        }
        self.leave_room(slot);
        let position = self.rooms.get_mut(room as usize).map(|list| {
            list.push(slot);
            list.len() - 1
        });
        if let Some(worker) = self.get_mut(slot) {
            worker.room = room;
            worker.room_position = position.unwrap_or(0);
        }
    }

    fn leave_room(&mut self, slot: Slot) {
        let Some(worker) = self.get(slot) else { return };
        let (room, position) = (worker.room, worker.room_position);
        let Some(list) = self.rooms.get_mut(room as usize) else { return };
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
        let full = self.iter().filter(|(_, worker)| worker.room == Room::Full).count();
        assert_eq!(listed + full, self.len(), "every worker is in one room");
        for (slot, worker) in self.iter() {
            if worker.room != Room::Full {
                assert_eq!(self.rooms[worker.room as usize].get(worker.room_position), Some(&slot));
            }
            assert_eq!(worker.room, worker.measure_room(), "worker {:?} is in the wrong room", worker.id);
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
