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
        match self.store.get(task)?.encode() {
            Ok(encoded) => Some(encoded),
            Err(error) => {
                tracing::error!(%task, %error, "an output cannot be encoded, so that no other node can have it");
                None
            }
        }
    }

    fn put(&self, task: TaskId, value: Encoded) -> Result<(), String> {
        let Some(worker) = self.worker.get() else { return Err("the node holds no worker".to_owned()) };
        // Only the machine knows whether something that is under way may still write under this id.
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        worker.push(Input::Put { task, value: Value::Encoded(value), answer });
        answered.recv().unwrap_or_else(|_| Err("the node is shutting down".to_owned()))
    }
}
