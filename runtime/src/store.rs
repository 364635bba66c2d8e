//! The values that this node holds: its tasks' outputs and what it fetched of others'.
//!
//! The store counts bytes. It decides nothing: what is put in and dropped is the worker machine's to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use starling_core::ids::TaskId;

use crate::value::{CodecError, Encoded, Value};

/// A node's values by task. Shared between the executor's threads, the mesh and the worker actor.
#[derive(Default)]
pub struct Store {
    values: DashMap<TaskId, Held>,
    nbytes: AtomicU64,
    /// 0 for no limit.
    limit: u64,
}

struct Held {
    value: Value,
    nbytes: u64,
}

/// Why a value was not stored. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It does not fit. Free something, or run with a larger memory limit.
    #[error(
        "a value of {nbytes} bytes does not fit: the store holds {held} of {limit} bytes; use more workers, smaller \
         partitions, or a larger --memory-limit"
    )]
    Full {
        /// The value's size.
        nbytes: u64,
        /// What is in the store.
        held: u64,
        /// The store's limit.
        limit: u64,
    },
    /// No other node could ever have it.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Store {
    /// A store that holds at most `limit` bytes; 0 for no limit.
    pub fn new(limit: u64) -> Arc<Store> {
        Arc::new(Store { limit, ..Store::default() })
    }

    /// Holds `value` as the output of `task`, in place of what was there. Gives its size in bytes.
    pub fn insert(&self, task: TaskId, value: Value) -> Result<u64, StoreError> {
        let nbytes = value.nbytes()?;
        let held = self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
        if self.limit > 0 && held.saturating_add(nbytes) > self.limit {
            self.nbytes.fetch_sub(nbytes, Ordering::Relaxed);
            return Err(StoreError::Full { nbytes, held, limit: self.limit });
        }
        if let Some(old) = self.values.insert(task, Held { value, nbytes }) {
            self.nbytes.fetch_sub(old.nbytes, Ordering::Relaxed);
        }
        Ok(nbytes)
    }

    /// Holds `live` in place of the `encoded` that it was decoded from. Does nothing if something else is held by now.
    pub fn replace_decoded(&self, task: TaskId, encoded: &Encoded, live: Value) {
        if let Some(mut held) = self.values.get_mut(&task)
            && matches!(&held.value, Value::Encoded(held) if held.head.as_ptr() == encoded.head.as_ptr())
        {
            held.value = live;
        }
    }

    /// The output of `task`, shared.
    pub fn get(&self, task: TaskId) -> Option<Value> {
        self.values.get(&task).map(|held| held.value.clone())
    }

    /// The size in bytes of the output of `task`; 0 if it is not held.
    pub fn nbytes_of(&self, task: TaskId) -> u64 {
        self.values.get(&task).map_or(0, |held| held.nbytes)
    }

    /// Gives the output of `task` away, with its size in bytes, to be dropped where that may take its time.
    pub fn remove(&self, task: TaskId) -> Option<(Value, u64)> {
        let (_, old) = self.values.remove(&task)?;
        self.nbytes.fetch_sub(old.nbytes, Ordering::Relaxed);
        Some((old.value, old.nbytes))
    }

    /// How many bytes are held.
    pub fn nbytes(&self) -> u64 {
        self.nbytes.load(Ordering::Relaxed)
    }

    /// How many values are held.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use starling_core::ids::JobId;

    use super::*;

    fn task(index: u32) -> TaskId {
        TaskId::new(JobId(0), index)
    }

    #[test]
    fn bytes_are_counted_through_insert_replace_and_remove() {
        let store = Store::new(0);
        store.insert(task(0), Value::live("x".repeat(99))).unwrap();
        store.insert(task(0), Value::live("x".repeat(199))).unwrap();
        store.insert(task(1), Value::live("x".repeat(49))).unwrap();
        assert_eq!((store.nbytes(), store.len()), (250, 2));
        store.remove(task(0));
        store.remove(task(0));
        assert_eq!((store.nbytes(), store.len()), (50, 1));
    }

    #[test]
    fn a_value_over_the_limit_is_refused_and_nothing_changes() {
        let store = Store::new(150);
        store.insert(task(0), Value::live("x".repeat(99))).unwrap();
        let full = store.insert(task(1), Value::live("x".repeat(99))).unwrap_err();
        assert_eq!(full, StoreError::Full { nbytes: 100, held: 100, limit: 150 });
        assert_eq!((store.nbytes(), store.len()), (100, 1));
    }
}
