//! The values that this node holds: its tasks' outputs and what it fetched of others'.
//!
//! The store counts bytes. It decides nothing: what is put in and dropped is the worker machine's to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use starling_core::ids::TaskId;

use crate::value::Value;

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

/// The value does not fit. Nothing was stored; free something, or run with a larger memory limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a value of {nbytes} bytes does not fit: the store holds {held} of {limit} bytes; use more workers, smaller partitions, or a \
     larger --memory-limit"
)]
pub struct StoreFull {
    /// The value's size.
    pub nbytes: u64,
    /// What is in the store.
    pub held: u64,
    /// The store's limit.
    pub limit: u64,
}

impl Store {
    /// A store that holds at most `limit` bytes; 0 for no limit.
    pub fn new(limit: u64) -> Arc<Store> {
        Arc::new(Store { limit, ..Store::default() })
    }

    /// Holds `value` as the output of `task`, in place of what was there. Gives its size in bytes.
    pub fn insert(&self, task: TaskId, value: Value) -> Result<u64, StoreFull> {
        let nbytes = value.nbytes();
        let held = self.nbytes.fetch_add(nbytes, Ordering::Relaxed);
        if self.limit > 0 && held.saturating_add(nbytes) > self.limit {
            self.nbytes.fetch_sub(nbytes, Ordering::Relaxed);
            return Err(StoreFull { nbytes, held, limit: self.limit });
        }
        if let Some(old) = self.values.insert(task, Held { value, nbytes }) {
            self.nbytes.fetch_sub(old.nbytes, Ordering::Relaxed);
        }
        Ok(nbytes)
    }

    /// Holds `value`, the same in another form, in place of what is held of `task`; does nothing if nothing is.
    pub fn replace(&self, task: TaskId, value: Value) {
        if let Some(mut held) = self.values.get_mut(&task) {
            held.value = value;
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

    /// Drops the output of `task`. Others that share it keep it alive until they are done.
    pub fn remove(&self, task: TaskId) {
        if let Some((_, old)) = self.values.remove(&task) {
            self.nbytes.fetch_sub(old.nbytes, Ordering::Relaxed);
        }
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
        assert_eq!(full, StoreFull { nbytes: 100, held: 100, limit: 150 });
        assert_eq!((store.nbytes(), store.len()), (100, 1));
    }
}
