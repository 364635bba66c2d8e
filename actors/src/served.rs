//! A node's store as its peers see it: what they may fetch from it, and put there.

use std::sync::{Arc, OnceLock};

use starling_core::ids::TaskId;
use starling_runtime::inbox::Inbox;
use starling_runtime::mesh::BlockStore;
use starling_runtime::store::Store;
use starling_runtime::value::{Encoded, Value};

use crate::worker_actor::Input;

/// The store of a node that may hold a worker. Only a worker's takes values, because only its machine knows when to
/// drop them again.
pub(crate) struct ServedStore {
    store: Arc<Store>,
    /// Set once the worker's actor is there.
    worker: OnceLock<Inbox<Input>>,
}

impl ServedStore {
    pub(crate) fn new(store: Arc<Store>) -> Arc<ServedStore> {
        Arc::new(ServedStore { store, worker: OnceLock::new() })
    }

    pub(crate) fn tell(&self, worker: Inbox<Input>) {
        // A node has one worker for its whole life.
        let _ = self.worker.set(worker);
    }
}

impl BlockStore for ServedStore {
    fn get(&self, task: TaskId) -> Option<Encoded> {
        // The mesh asks on a thread that may wait for the disk.
        self.store.get_encoded(task).unwrap_or_else(|error| {
            // Whoever asks is told that it is not to be had here, and the scheduler has it computed again.
            tracing::error!(%task, %error, "no other node can have an output");
            None
        })
    }

    fn put(&self, task: TaskId, value: Encoded) -> Result<(), String> {
        let Some(worker) = self.worker.get() else { return Err("the node holds no worker".to_owned()) };
        // May wait for the disk, which the actor must not.
        let value = self.store.admit(Value::Encoded(value)).map_err(|refused| refused.to_string())?;
        // Only the machine knows whether something that is under way may still write under this id.
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        worker.push(Input::Put { task, value, answer });
        answered.recv().unwrap_or_else(|_| Err("the node is shutting down".to_owned()))
    }
}
