//! Which values go to disk, when, and who waits for it.
//!
//! One thread of the store's own does it, woken when the managed bytes pass the target; it sleeps otherwise. Values stand
//! in a queue in the order in which they came. The thread takes from its front; one that was used since it was queued
//! goes to the back instead, as does one that somebody has in hand, whose memory spilling it would not free. So a use
//! costs one store to a field of the value's own, and the order is that of the least recent use to within a turn of the
//! queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use starling_core::ids::TaskId;

use super::config::Thresholds;
use super::disk::{Disk, OnDisk, WriteError};
use super::{Held, Store};
use crate::value::Value;

/// Smaller values are never spilled: what the store keeps of a spilled one would be as large.
pub(super) const SPILL_BYTES_MIN: u64 = 256;

/// Values up to this size share files.
const SMALL_BYTES: u64 = 64 * 1024;

/// A shared file ends when it has this many bytes.
const SHARED_FILE_BYTES: u64 = 1024 * 1024;

/// Once it spills, the thread goes on until this part of the target is free again, so that it is not woken for each
/// value.
const SLACK_PART: u64 = 16;

/// How long nothing is tried after too little could be spilled, unless somebody waits: at first, and at most. What
/// somebody has in hand may be free by then.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How many rounds of spilling one who waits sees others take the room before the value goes straight to disk.
const ROUNDS_MAX: u32 = 8;

/// The entries that the queue has before it is searched for those of values that are gone.
const QUEUE_COMPACTED_MIN: usize = 4096;

/// A value in memory that may be spilled.
#[derive(Clone, Copy)]
struct Entry {
    task: TaskId,
    /// Which insertion of the task it is.
    serial: u64,
    /// Its last use when it was queued.
    used: u64,
}

/// What a store with a limit has besides its values. Shared by the store and its thread.
pub(super) struct Spill {
    pub(super) thresholds: Thresholds,
    /// `None` if nothing may be spilled.
    pub(super) disk: Option<Arc<Disk>>,
    /// Counts insertions: the time by which uses are told apart.
    pub(super) clock: AtomicU64,
    /// Whether the system is so short of memory that everything has to go straight to disk.
    pub(super) is_short: AtomicBool,
    /// Whether the thread was told that there is something to do, and has not begun to look.
    is_told: AtomicBool,
    queue: Mutex<Queue>,
    state: Mutex<State>,
    /// Tells the thread.
    wake: Condvar,
    /// Tells those who wait for room.
    progress: Condvar,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Every entry of a value in memory is in the queue, or in the hands of the thread.
    compact_at: usize,
}

#[derive(Default)]
struct State {
    is_wanted: bool,
    is_closed: bool,
    /// Bytes to spill for the sake of the process's memory, whatever is managed.
    excess: u64,
    /// Bytes that somebody waits to have room for.
    waiting: u64,
    /// Rounds that have begun and ended.
    begun: u64,
    ended: u64,
    /// Bytes that spilling has freed, ever.
    freed: u64,
}

struct Closing<'a>(&'a Spill);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A value that is to be spilled.
struct Victim {
    entry: Entry,
    value: Value,
    nbytes: u64,
}

/// What became of a look at the front of the queue.
enum Next {
    Victim(Victim),
    /// Its copy on disk was still there: so many bytes are free.
    Freed(u64),
    Skipped,
    Empty,
}

impl Spill {
    pub(super) fn new(thresholds: Thresholds, disk: Option<Arc<Disk>>) -> Spill {
        Spill {
            thresholds,
            disk,
            clock: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            queue: Mutex::new(Queue { compact_at: QUEUE_COMPACTED_MIN, ..Queue::default() }),
            state: Mutex::default(),
            wake: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes there may be in memory with a value of this size among them.
    pub(super) fn room_max(&self, nbytes: u64) -> u64 {
        match nbytes {
            ..SPILL_BYTES_MIN => self.thresholds.limit,
            _ if self.is_short.load(Ordering::Relaxed) => 0,
            _ => self.thresholds.refuse,
        }
    }

    /// Tells the thread to look. Costs nothing if it was told already.
    pub(super) fn tell(&self) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            self.state().is_wanted = true;
            self.wake.notify_one();
        }
    }

    /// Has so many bytes spilled, whatever is managed.
    pub(super) fn tell_excess(&self, nbytes: u64) {
        self.state().excess = nbytes;
        self.tell();
    }

    /// How many bytes spilling has freed, ever.
    pub(super) fn freed(&self) -> u64 {
        self.state().freed
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.wake.notify_all();
        self.progress.notify_all();
    }

    /// A value is in memory that may be spilled.
    pub(super) fn enqueue(&self, task: TaskId, serial: u64, used: u64) {
        let mut queue = self.queue();
        queue.entries.push_back(Entry { task, serial, used });
        let is_long = queue.entries.len() >= queue.compact_at;
        drop(queue);
        if is_long {
            self.tell();
        }
    }

    /// Waits, while spilling makes progress, until `try_reserve` succeeds. False if it is of no use.
    pub(super) fn wait_for_room(&self, nbytes: u64, try_reserve: impl Fn() -> bool) -> bool {
        if self.disk.is_none() {
            return false;
        }
        let mut state = self.state();
        state.waiting += nbytes;
        let mut is_reserved = false;
        for _ in 0..ROUNDS_MAX {
            // A round that is under way may have passed by what could now be spilled.
            let (round, freed) = (state.begun + 1, state.freed);
            state.is_wanted = true;
            self.wake.notify_one();
            while !is_reserved && !state.is_closed && state.ended < round {
                state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
                is_reserved = try_reserve();
            }
            if is_reserved || state.is_closed || state.freed == freed {
                break;
            }
        }
        state.waiting -= nbytes;
        is_reserved
    }

    /// Runs on a thread of its own until the store is gone or closed.
    pub(super) fn run(self: Arc<Spill>, store: Weak<Store>) {
        // Nobody waits for a thread that is gone, whatever ended it.
        let _closing = Closing(&self);
        let mut pause = None;
        loop {
            let mut state = self.state();
            if let Some(pause) = pause {
                let is_idle = |state: &mut State| state.waiting == 0 && !state.is_closed;
                let waited = self.wake.wait_timeout_while(state, pause, is_idle);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            while pause.is_none() && !state.is_wanted && !state.is_closed {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.is_closed {
                return;
            }
            state.is_wanted = false;
            self.is_told.store(false, Ordering::Relaxed);
            state.begun += 1;
            let (excess, waiting, freed) = (std::mem::take(&mut state.excess), state.waiting, state.freed);
            drop(state);

            let Some(store) = store.upgrade() else { return };
            self.compact(&store);
            let Thresholds { target, refuse, .. } = self.thresholds;
            let managed = store.nbytes();
            let mut floor = refuse.saturating_sub(waiting).min(managed.saturating_sub(excess));
            if managed > target {
                floor = floor.min(target - target / SLACK_PART);
            }
            if managed > floor {
                self.round(&store, floor);
            }
            if let Some(disk) = &self.disk {
                disk.empty_trash();
            }
            let is_left = store.nbytes() > floor;
            drop(store);

            let mut state = self.state();
            state.ended = state.begun;
            pause = match pause {
                _ if !is_left => None,
                Some(pause) if state.freed == freed => Some(PAUSE_MAX.min(2 * pause)),
                _ => Some(PAUSE_MIN),
            };
            drop(state);
            self.progress.notify_all();
        }
    }

    /// Forgets the entries of values that are gone, once there are as many again as there were.
    fn compact(&self, store: &Store) {
        let mut queue = self.queue();
        while queue.entries.len() >= queue.compact_at {
            // Nobody waits for the queue meanwhile.
            let mut old = std::mem::take(&mut queue.entries);
            drop(queue);
            old.retain(|entry| store.values.get(&entry.task).is_some_and(|held| held.serial == entry.serial));
            queue = self.queue();
            // What came meanwhile may be gone as well: if it was much, it is looked through at once.
            queue.compact_at = QUEUE_COMPACTED_MIN.max(2 * old.len());
            old.append(&mut queue.entries);
            queue.entries = old;
        }
    }

    /// Spills until at most `floor` bytes are managed, or each entry of the queue was looked at.
    fn round(&self, store: &Store, floor: u64) {
        let Some(disk) = &self.disk else { return };
        let mut looks = self.queue().entries.len();
        let mut is_out_of_entries = false;
        while !is_out_of_entries && store.nbytes() > floor {
            let needed = store.nbytes() - floor;
            let mut victims: Vec<Victim> = Vec::new();
            let mut found = 0;
            while found < needed.min(SHARED_FILE_BYTES) {
                if looks == 0 {
                    is_out_of_entries = true;
                    break;
                }
                looks -= 1;
                match self.next(store) {
                    Next::Victim(victim) => {
                        found += victim.nbytes;
                        victims.push(victim);
                    }
                    Next::Freed(nbytes) => {
                        found += nbytes;
                        self.count_freed(nbytes);
                    }
                    Next::Skipped => {}
                    Next::Empty => looks = 0,
                }
            }
            let (small, large): (Vec<_>, Vec<_>) = victims.into_iter().partition(|victim| victim.nbytes <= SMALL_BYTES);
            let mut files: Vec<Vec<Victim>> = large.into_iter().map(|victim| vec![victim]).collect();
            files.extend((!small.is_empty()).then_some(small));
            let mut files = files.into_iter();
            for victims in files.by_ref() {
                if let Err(error) = self.spill(store, disk, victims) {
                    tracing::warn!(directory = %disk.directory().display(), %error, "nothing can be spilled");
                    is_out_of_entries = true;
                    break;
                }
            }
            files.flatten().for_each(|victim| self.give_back(victim));
        }
    }

    /// What is at the front of the queue.
    fn next(&self, store: &Store) -> Next {
        let Some(entry) = self.queue().entries.pop_front() else { return Next::Empty };
        let Some(mut held) = store.values.get_mut(&entry.task) else { return Next::Skipped };
        let Held { nbytes, serial, .. } = *held;
        let Some(value) = held.memory.as_ref().filter(|_| serial == entry.serial && !held.is_unspillable) else {
            return Next::Skipped;
        };
        let used = held.used.load(Ordering::Relaxed);
        if used > entry.used || value.is_shared() {
            drop(held);
            self.enqueue(entry.task, serial, used);
            return Next::Skipped;
        }
        if held.disk.is_some() {
            let dropped = held.memory.take();
            store.count_spilled(nbytes);
            drop(held);
            drop_quietly(dropped);
            return Next::Freed(nbytes);
        }
        let value = value.clone();
        Next::Victim(Victim { entry, value, nbytes })
    }

    #[cfg(test)]
    pub(super) fn queue_len(&self) -> usize {
        self.queue().entries.len()
    }

    /// Writes victims into one file, and drops them from memory. If that fails, all of them stay.
    fn spill(&self, store: &Store, disk: &Arc<Disk>, victims: Vec<Victim>) -> std::io::Result<()> {
        let mut written = write(disk, &victims);
        if written.is_err() && store.drop_second_copies() {
            written = write(disk, &victims);
        }
        match written {
            Ok(places) => {
                for (victim, place) in victims.into_iter().zip(places) {
                    match place {
                        Some(place) => self.publish(store, victim, place),
                        None => store.mark_unspillable(victim.entry.task, victim.entry.serial),
                    }
                }
                Ok(())
            }
            Err(error) => {
                victims.into_iter().for_each(|victim| self.give_back(victim));
                Err(error)
            }
        }
    }

    /// The value is on disk: it need not be in memory, unless somebody has taken it meanwhile.
    fn publish(&self, store: &Store, victim: Victim, place: OnDisk) {
        let Victim { entry, value, nbytes } = victim;
        // The last one of a value that was removed meanwhile.
        drop_quietly(Some(value));
        // If it was removed or replaced meanwhile, the place goes with this.
        let Some(mut held) = store.values.get_mut(&entry.task).filter(|held| held.serial == entry.serial) else {
            return;
        };
        held.disk = Some(Box::new(place));
        if held.memory.as_ref().is_some_and(Value::is_shared) {
            let used = held.used.load(Ordering::Relaxed);
            drop(held);
            return self.enqueue(entry.task, entry.serial, used);
        }
        if let Some(dropped) = held.memory.take() {
            store.count_spilled(nbytes);
            drop(held);
            drop_quietly(Some(dropped));
            self.count_freed(nbytes);
        }
    }

    fn give_back(&self, victim: Victim) {
        let Victim { entry, value, .. } = victim;
        drop_quietly(Some(value));
        self.enqueue(entry.task, entry.serial, entry.used);
    }

    fn count_freed(&self, nbytes: u64) {
        self.state().freed += nbytes;
        self.progress.notify_all();
    }
}

/// Writes victims into one file. Gives their places; `None` for what cannot be encoded.
fn write(disk: &Arc<Disk>, victims: &[Victim]) -> std::io::Result<Vec<Option<OnDisk>>> {
    let mut writer = disk.writer()?;
    let mut places = Vec::with_capacity(victims.len());
    for Victim { entry, value, .. } in victims {
        places.push(match writer.append(value) {
            Ok(place) => Some(place),
            Err(WriteError::Disk(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(task = %entry.task, %error, "an output cannot be spilled");
                None
            }
        });
    }
    let mut written = writer.finish(places.iter().copied().flatten())?.into_iter();
    Ok(places.into_iter().map(|place| place.and_then(|_| written.next())).collect())
}

/// Drops a value, whose `Drop` may be the user's.
pub(super) fn drop_quietly(value: Option<Value>) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(value))).is_err() {
        tracing::warn!("a value panicked when it was dropped");
    }
}
