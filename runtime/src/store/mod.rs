//! The values that this node holds: its tasks' outputs and what it fetched of others', in memory or on disk.
//!
//! The store counts bytes, and keeps them within what [`MemoryConfig`] says by writing values to disk; which values there
//! are is the worker machine's to say.
//!
//! ```text
//!  insert --> memory --(least recently used, over the target)--> disk
//!    |          ^                                                 |
//!    |          +---------(read, and there is room below spill)---+   its copy on disk stays
//!    +--> straight to disk, if nothing else can make room below refuse
//! ```
//!
//! **What is counted.** `nbytes` are the sizes of the values that the store holds in memory, each once and with the size
//! of its encoding, whoever else shares them. A value that a running task has in hand is not spilled while there are
//! others, since its memory would stay. A value on disk that is read when there is no room for it is given to the
//! reader and not kept, and so not counted: a task whose inputs together exceed the limit gets them all.
//!
//! **Who does it.** Inserting and getting below the thresholds touches neither disk nor any lock but a shard's of the
//! map. A thread of the store's own spills (`spill`). Over `refuse`, the inserting thread waits while that makes
//! progress, then writes its value to disk itself. So only threads that may block insert and get; [`Store::admit`] and
//! [`Store::place`] are the two halves of inserting for those who have an actor in between. [`Store::remove`] never
//! waits for the disk.
//!
//! - `config`: the thresholds; `spill`: which values go, when; `disk`: files and checksums.

mod config;
mod disk;
mod spill;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use starling_core::failure::FailureCause;
use starling_core::fixed::FixedState;
use starling_core::ids::TaskId;

pub(crate) use self::config::Thresholds;
pub use self::config::{MemoryConfig, MemoryConfigError};
use self::disk::{Disk, OnDisk, ReadError, WriteError};
use self::spill::{SPILL_BYTES_MIN, Spill};
use crate::parts::encode_part;
use crate::value::{CodecError, Encoded, Value};

/// A node's values by task. Shared between the executor's threads, the mesh and the worker actor.
pub struct Store {
    values: DashMap<TaskId, Held, FixedState>,
    /// Of the values in memory, and of those that are about to be.
    nbytes: AtomicU64,
    /// Of the values that are on disk only.
    spilled: AtomicU64,
    /// `None` if there is no limit.
    spill: Option<Arc<Spill>>,
}

struct Held {
    /// In memory, on disk, or both: then the copy on disk saves writing the value again.
    memory: Option<Value>,
    disk: Option<Box<OnDisk>>,
    nbytes: u64,
    /// Which insertion this is; 0 if there is no limit.
    serial: u64,
    /// By the clock of `Spill`.
    used: AtomicU64,
    /// Whether it could not be encoded when it was to be spilled.
    is_unspillable: bool,
}

/// Why a value was not stored, or cannot be had. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not fit, and nothing can be spilled. Free something, or run with a larger memory limit.
    #[error(
        "a value of {nbytes} bytes does not fit: the store holds {held} of {limit} bytes in memory, and it cannot be \
         spilled; use more workers, smaller partitions, or a larger --memory-limit"
    )]
    Full {
        /// The value's size.
        nbytes: u64,
        /// What is in memory.
        held: u64,
        /// The store's limit.
        limit: u64,
    },
    /// It does not fit, and the disk does not take it. Nothing of it is left there.
    #[error(
        "a value of {nbytes} bytes does not fit: the store holds {held} of {limit} bytes in memory, and spilling to {} \
         failed: {source}; give a --spill-directory with more room, a larger --spill-limit, or a larger --memory-limit",
        .directory.display()
    )]
    Spill {
        /// The value's size.
        nbytes: u64,
        /// What is in memory.
        held: u64,
        /// The store's limit.
        limit: u64,
        /// Where it was to be written.
        directory: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// It was spilled, and its file cannot be read. Compute it again.
    #[error("the spilled output of task {task} cannot be read from {}: {source}; see that nothing removes files from \
             --spill-directory", .path.display())]
    Unreadable {
        /// The task whose output it is.
        task: TaskId,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// It was spilled, and its bytes have changed since. Compute it again.
    #[error("the spilled output of task {task} in {} is damaged: its checksum does not match; check the disk, or give \
             another --spill-directory", .path.display())]
    Damaged {
        /// The task whose output it is.
        task: TaskId,
        /// The file.
        path: PathBuf,
    },
    /// No other node could ever have it.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<StoreError> for FailureCause {
    fn from(error: StoreError) -> FailureCause {
        let message = error.to_string();
        match error {
            StoreError::Codec(_) => FailureCause::Codec { message },
            StoreError::Full { .. }
            | StoreError::Spill { .. }
            | StoreError::Unreadable { .. }
            | StoreError::Damaged { .. } => FailureCause::Store { message },
        }
    }
}

/// Why a store could not be made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StoreStartError {
    /// The thresholds make no sense.
    #[error(transparent)]
    Config(#[from] MemoryConfigError),
    /// The directory for spilled values cannot be made.
    #[error(
        "no directory for spilled values can be made in {}: {source}; give another --spill-directory, or --spill-limit \
         0 to spill nothing",
        .parent.display()
    )]
    Directory {
        /// Where it was to be.
        parent: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that spills could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] io::Error),
}

/// A value that has its place, in memory or on disk, but is not yet held for a task. Dropping it gives the place up.
pub struct Admitted {
    store: Arc<Store>,
    nbytes: u64,
    /// `None` once it is placed.
    room: Option<Room>,
}

enum Room {
    /// Its bytes are counted already.
    Memory(Value),
    Disk(OnDisk),
}

/// What was held for a task and is no longer. Dropping it may take its time, and may run the user's code.
pub struct Removed {
    memory: Option<Value>,
    _disk: Option<Box<OnDisk>>,
    nbytes: u64,
}

impl Removed {
    /// How many bytes of memory dropping it frees.
    pub fn memory_bytes(&self) -> u64 {
        if self.memory.is_some() { self.nbytes } else { 0 }
    }
}

impl Store {
    /// A store within what `config` says. With a limit it makes its directory for spilled values, and removes those that
    /// ended nodes have left there.
    pub fn start(config: &MemoryConfig) -> Result<Arc<Store>, StoreStartError> {
        config.check()?;
        if config.limit == 0 {
            return Ok(Store::unlimited());
        }
        let disk = match config.spill_limit {
            Some(0) => None,
            limit => {
                let parent = config.spill_directory.clone().unwrap_or_else(std::env::temp_dir);
                let disk = Disk::create(&parent, limit.unwrap_or(u64::MAX));
                Some(disk.map_err(|source| StoreStartError::Directory { parent, source })?)
            }
        };
        let spill = Arc::new(Spill::new(config.thresholds(), disk));
        let store = Arc::new(Store::with(Some(Arc::clone(&spill))));
        if let Some(disk) = &spill.disk {
            let told = Arc::downgrade(&spill);
            disk.on_trash(move || {
                if let Some(spill) = told.upgrade() {
                    spill.tell();
                }
            });
            let store = Arc::downgrade(&store);
            let thread = std::thread::Builder::new().name("spill".into()).spawn({
                let spill = Arc::clone(&spill);
                move || spill.run(store)
            });
            thread.map_err(StoreStartError::Thread)?;
        }
        Ok(store)
    }

    /// A store without a limit, which never spills.
    pub fn unlimited() -> Arc<Store> {
        Arc::new(Store::with(None))
    }

    fn with(spill: Option<Arc<Spill>>) -> Store {
        Store { values: DashMap::default(), nbytes: AtomicU64::new(0), spilled: AtomicU64::new(0), spill }
    }

    /// Holds `value` as the output of `task`, in place of what was there. Gives its size in bytes. May wait for the
    /// disk if memory is short.
    pub fn insert(&self, task: TaskId, value: Value) -> Result<u64, StoreError> {
        let nbytes = value.nbytes()?;
        let room = self.find_room(value, nbytes)?;
        self.hold(task, room, nbytes);
        Ok(nbytes)
    }

    /// Finds a place for `value`, in memory or on disk. May wait for the disk if memory is short.
    pub fn admit(self: &Arc<Store>, value: Value) -> Result<Admitted, StoreError> {
        let nbytes = value.nbytes()?;
        let room = self.find_room(value, nbytes)?;
        Ok(Admitted { store: Arc::clone(self), nbytes, room: Some(room) })
    }

    /// Finds a place in memory for `value` if it need not wait; gives it back if it would have to.
    pub fn admit_now(self: &Arc<Store>, value: Value) -> Result<Result<Admitted, Value>, StoreError> {
        let nbytes = value.nbytes()?;
        if !self.reserve(nbytes) {
            return Ok(Err(value));
        }
        Ok(Ok(Admitted { store: Arc::clone(self), nbytes, room: Some(Room::Memory(value)) }))
    }

    /// Holds what was admitted as the output of `task`, in place of what was there. Gives its size in bytes. Never waits.
    pub fn place(&self, task: TaskId, mut admitted: Admitted) -> u64 {
        debug_assert!(std::ptr::eq(self, &*admitted.store), "a place in another store");
        if let Some(room) = admitted.room.take() {
            self.hold(task, room, admitted.nbytes);
        }
        admitted.nbytes
    }

    fn hold(&self, task: TaskId, room: Room, nbytes: u64) {
        let serial = self.spill.as_ref().map_or(0, |spill| spill.clock.fetch_add(1, Ordering::Relaxed) + 1);
        let (memory, disk) = match room {
            Room::Memory(value) => (Some(value), None),
            Room::Disk(place) => {
                self.spilled.fetch_add(nbytes, Ordering::Relaxed);
                (None, Some(Box::new(place)))
            }
        };
        let is_in_memory = memory.is_some();
        let held = Held { memory, disk, nbytes, serial, used: AtomicU64::new(serial), is_unspillable: false };
        if let Some(old) = self.values.insert(task, held) {
            self.count_out(&old);
        }
        if is_in_memory {
            self.enqueue(task, nbytes, serial, serial);
        }
    }

    /// Holds `live` in place of the `encoded` that it was decoded from. Does nothing if something else is held by now,
    /// or if it was given away without being kept in memory.
    pub fn replace_decoded(&self, task: TaskId, encoded: &Encoded, live: Value) {
        if let Some(mut held) = self.values.get_mut(&task)
            && matches!(&held.memory, Some(Value::Encoded(held)) if held.head.as_ptr() == encoded.head.as_ptr())
        {
            held.memory = Some(live);
        }
    }

    /// The output of `task`, shared; read from disk, and kept in memory if there is room, if it must be. `None` if it is
    /// not held.
    pub fn get(&self, task: TaskId) -> Result<Option<Value>, StoreError> {
        let (place, serial) = match self.use_now(task) {
            None => return Ok(None),
            Some(Ok(value)) => return Ok(Some(value)),
            Some(Err(on_disk)) => on_disk,
        };
        let value = Value::Encoded(read(task, &place)?);
        // It must not hold the file of a second copy that is given up.
        drop(place);
        self.keep_read(task, serial, &value);
        Ok(Some(value))
    }

    /// The output of `task` for somebody who takes only this part of it: as it is if it is in memory, otherwise with no more
    /// than the part, which is read from disk and not kept. `None` if it is not held.
    pub fn get_part(&self, task: TaskId, number: u32) -> Result<Option<Value>, StoreError> {
        match self.use_now(task) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err((place, _))) => {
                let part = place.read_part(number).map_err(|error| unreadable(task, &place, error))?;
                Ok(Some(Value::Encoded(part)))
            }
        }
    }

    /// Counts as a use. The output if it is in memory, otherwise its place on disk and which insertion it is.
    fn use_now(&self, task: TaskId) -> Option<Result<Value, (OnDisk, u64)>> {
        let held = self.values.get(&task)?;
        if let Some(spill) = &self.spill {
            held.used.store(spill.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        match (&held.memory, &held.disk) {
            (Some(value), _) => Some(Ok(value.clone())),
            (None, Some(place)) => Some(Err(((**place).clone(), held.serial))),
            (None, None) => None,
        }
    }

    /// The output of `task`, encoded, for another node: what is on disk stays there. A part that is not held is cut out of
    /// the whole, and of no other part anything is read or encoded; an output that is not in parts is given as it is.
    /// `None` if it is not held.
    pub fn get_encoded(&self, task: TaskId) -> Result<Option<Encoded>, StoreError> {
        let Some((found, number)) = self.find(task) else { return Ok(None) };
        let encoded = match (found, number) {
            (Ok(value), None) => value.encode()?,
            (Ok(value), Some(number)) => encode_part(&value, number)?,
            (Err(place), None) => read(task, &place)?,
            (Err(place), Some(number)) => place.read_part(number).map_err(|error| unreadable(task, &place, error))?,
        };
        Ok(Some(encoded))
    }

    /// The output in memory or its place on disk, and the number of the part that has to be cut out of it, if one has to.
    fn find(&self, task: TaskId) -> Option<(Result<Value, OnDisk>, Option<u32>)> {
        let (held, number) = match self.values.get(&task) {
            Some(held) => (held, None),
            None => (self.values.get(&task.whole()).filter(|_| task.is_part())?, task.part_number()),
        };
        match (&held.memory, &held.disk) {
            (Some(value), _) => Some((Ok(value.clone()), number)),
            (None, Some(place)) => Some((Err((**place).clone()), number)),
            (None, None) => None,
        }
    }

    /// The size in bytes of the output of `task`; 0 if it is not held.
    pub fn nbytes_of(&self, task: TaskId) -> u64 {
        self.values.get(&task).map_or(0, |held| held.nbytes)
    }

    /// Gives the output of `task` away, to be dropped where that may take its time.
    pub fn remove(&self, task: TaskId) -> Option<Removed> {
        let (_, old) = self.values.remove(&task)?;
        self.count_out(&old);
        Some(Removed { memory: old.memory, _disk: old.disk, nbytes: old.nbytes })
    }

    /// How many bytes are held in memory.
    pub fn nbytes(&self) -> u64 {
        self.nbytes.load(Ordering::Relaxed)
    }

    /// How many bytes are held on disk only, by the same measure as [`Store::nbytes`].
    pub fn spilled_bytes(&self) -> u64 {
        self.spilled.load(Ordering::Relaxed)
    }

    /// How many bytes were ever freed in memory by writing values to disk.
    pub fn spilled_bytes_total(&self) -> u64 {
        self.spill.as_ref().map_or(0, |spill| spill.freed())
    }

    /// How many bytes the files of spilled values have, second copies and dead parts of shared files included.
    pub fn disk_bytes(&self) -> u64 {
        self.spill.as_ref().and_then(|spill| spill.disk.as_ref()).map_or(0, |disk| disk.used())
    }

    /// The directory of spilled values, if there is one.
    pub fn spill_directory(&self) -> Option<PathBuf> {
        let disk = self.spill.as_ref()?.disk.as_ref()?;
        Some(disk.directory().to_owned())
    }

    /// How many values are held.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Removes what is on disk: the node ends. Whoever waits for room is refused.
    pub fn close(&self) {
        if let Some(spill) = &self.spill {
            spill.close();
            if let Some(disk) = &spill.disk {
                disk.close();
            }
        }
    }

    pub(crate) fn thresholds(&self) -> Option<Thresholds> {
        self.spill.as_ref().map(|spill| spill.thresholds)
    }

    /// Has so many bytes spilled because the process uses too much memory, and from now on everything written straight
    /// to disk if `is_short`.
    pub(crate) fn relieve(&self, excess: u64, is_short: bool) {
        if let Some(spill) = &self.spill {
            spill.is_short.store(is_short, Ordering::Relaxed);
            if excess > 0 {
                spill.tell_excess(excess);
            }
        }
    }

    /// Counts the bytes of a value that is about to be in memory, if there is room for it now.
    fn reserve(&self, nbytes: u64) -> bool {
        let held = self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
        let Some(spill) = &self.spill else { return true };
        let now = held.saturating_add(nbytes);
        if now <= spill.thresholds.target && !spill.is_short.load(Ordering::Relaxed) {
            return true;
        }
        spill.tell();
        if now <= spill.room_max(nbytes) {
            return true;
        }
        self.nbytes.fetch_sub(nbytes, Ordering::Relaxed);
        false
    }

    /// The same if the bytes in memory stay below `max`; never over it, not even for a moment.
    fn reserve_below(&self, nbytes: u64, max: u64) -> bool {
        let add = |held: u64| held.checked_add(nbytes).filter(|held| *held <= max);
        self.nbytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn find_room(&self, value: Value, nbytes: u64) -> Result<Room, StoreError> {
        if self.reserve(nbytes) {
            return Ok(Room::Memory(value));
        }
        match &self.spill {
            Some(spill) => self.find_room_by_spilling(spill, value, nbytes),
            None => Ok(Room::Memory(value)),
        }
    }

    #[cold]
    fn find_room_by_spilling(&self, spill: &Spill, value: Value, nbytes: u64) -> Result<Room, StoreError> {
        let max = spill.room_max(nbytes);
        if nbytes <= max && spill.wait_for_room(nbytes, || self.reserve_below(nbytes, max)) {
            return Ok(Room::Memory(value));
        }
        let (held, limit) = (self.nbytes(), spill.thresholds.limit);
        let full = StoreError::Full { nbytes, held, limit };
        let Some(disk) = spill.disk.as_ref().filter(|_| nbytes >= SPILL_BYTES_MIN) else { return Err(full) };
        let mut written = disk.write(&value);
        if matches!(written, Err(WriteError::Disk(_))) && self.drop_second_copies() {
            written = disk.write(&value);
        }
        match written {
            Ok(place) => Ok(Room::Disk(place)),
            Err(error) => {
                disk.empty_trash();
                Err(match error {
                    WriteError::Disk(error) => StoreError::Spill {
                        nbytes,
                        held,
                        limit,
                        directory: disk.directory().to_owned(),
                        source: Arc::new(error),
                    },
                    WriteError::Codec(error) => error.into(),
                    WriteError::Panicked => full,
                })
            }
        }
    }

    /// Keeps in memory what was read from disk, if it is still wanted there and there is room below the spill threshold:
    /// over the target, the least recently used makes place for it.
    fn keep_read(&self, task: TaskId, serial: u64, value: &Value) {
        let Some(spill) = &self.spill else { return };
        let nbytes = self.nbytes_of(task);
        let Thresholds { target, spill: max, refuse, .. } = spill.thresholds;
        if spill.is_short.load(Ordering::Relaxed) || !self.reserve_below(nbytes, max.min(refuse)) {
            return;
        }
        let is_kept = self.values.get_mut(&task).is_some_and(|mut held| {
            let is_same = held.serial == serial && held.memory.is_none();
            if is_same {
                held.memory = Some(value.clone());
            }
            is_same
        });
        if !is_kept {
            self.nbytes.fetch_sub(nbytes, Ordering::Relaxed);
            return;
        }
        self.spilled.fetch_sub(nbytes, Ordering::Relaxed);
        self.enqueue(task, nbytes, serial, spill.clock.load(Ordering::Relaxed));
        if self.nbytes() > target {
            spill.tell();
        }
    }

    /// A value is in memory. What was removed again meanwhile does no harm.
    fn enqueue(&self, task: TaskId, nbytes: u64, serial: u64, used: u64) {
        if let Some(spill) = self.spill.as_ref().filter(|spill| spill.disk.is_some() && nbytes >= SPILL_BYTES_MIN) {
            spill.enqueue(task, serial, used);
        }
    }

    /// A value has left memory for the disk. Called with its entry locked.
    fn count_spilled(&self, nbytes: u64) {
        self.nbytes.fetch_sub(nbytes, Ordering::Relaxed);
        self.spilled.fetch_add(nbytes, Ordering::Relaxed);
    }

    fn count_out(&self, old: &Held) {
        let count = if old.memory.is_some() { &self.nbytes } else { &self.spilled };
        count.fetch_sub(old.nbytes, Ordering::Relaxed);
    }

    /// Gives up the copies on disk of what is in memory too. Says whether there were any.
    fn drop_second_copies(&self) -> bool {
        let mut is_any = false;
        for mut held in self.values.iter_mut() {
            is_any |= held.memory.is_some() && held.disk.take().is_some();
        }
        is_any
    }

    fn mark_unspillable(&self, task: TaskId, serial: u64) {
        if let Some(mut held) = self.values.get_mut(&task).filter(|held| held.serial == serial) {
            held.is_unspillable = true;
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The thread may hold what the directory goes with for a moment longer.
        self.close();
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(Room::Memory(_)) = &self.room {
            self.store.nbytes.fetch_sub(self.nbytes, Ordering::Relaxed);
        }
    }
}

fn read(task: TaskId, place: &OnDisk) -> Result<Encoded, StoreError> {
    place.read().map_err(|error| unreadable(task, place, error))
}

fn unreadable(task: TaskId, place: &OnDisk, error: ReadError) -> StoreError {
    match error {
        ReadError::Disk(source) => StoreError::Unreadable { task, path: place.path(), source: Arc::new(source) },
        ReadError::Damaged => StoreError::Damaged { task, path: place.path() },
    }
}
