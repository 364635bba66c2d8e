//! The ledger as openraft applies entries to it.

use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use starling_core::ledger::Ledger;
use tokio::sync::watch;

use crate::error::QuorumError;
use crate::raft::{Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, Types};
use crate::store::{SNAPSHOT, Saved, Store};

/// What this node has applied.
pub(crate) struct Applied {
    state: Mutex<State>,
    /// How many entries were applied: one more than the index of the last.
    count: watch::Sender<u64>,
}

#[derive(Clone, Default)]
struct State {
    ledger: Arc<Ledger>,
    last: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<(SnapshotMeta, Arc<Vec<u8>>)>,
}

impl Applied {
    /// What a snapshot says, or nothing.
    pub(crate) fn new(store: &Store, snapshot: Option<Saved>) -> Result<Applied, QuorumError> {
        let state = match snapshot {
            None => State::default(),
            Some((meta, bytes)) => State::of(meta, Arc::new(bytes)).map_err(|error| QuorumError::Damaged {
                place: format!("{}/{SNAPSHOT}", store.place()),
                what: error.to_string(),
            })?,
        };
        let (count, _) = watch::channel(state.count());
        Ok(Applied { state: Mutex::new(state), count })
    }

    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.state().ledger)
    }

    pub(crate) fn count(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(meta: SnapshotMeta, bytes: Arc<Vec<u8>>) -> Result<State, postcard::Error> {
        Ok(State {
            ledger: Arc::new(postcard::from_bytes(&bytes)?),
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            snapshot: Some((meta, bytes)),
        })
    }

    fn count(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }
}

/// A handle to the ledger and to the files that its snapshots go to.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) store: Arc<Store>,
    pub(crate) applied: Arc<Applied>,
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let state = self.applied.state().clone();
        let failed = |error: &(dyn std::error::Error + 'static)| {
            StorageError::from(StorageIOError::write_snapshot(None, openraft::AnyError::error(error.to_string())))
        };
        let bytes = Arc::new(postcard::to_stdvec(&*state.ledger).map_err(|error| failed(&error))?);
        let meta = SnapshotMeta {
            last_log_id: state.last,
            snapshot_id: format!("{}-{}", state.last.map_or(0, |id| id.leader_id.term), state.count()),
            last_membership: state.membership,
        };
        self.store.save_snapshot(meta.clone(), Arc::clone(&bytes)).await.map_err(|error| failed(&error))?;
        self.applied.state().snapshot = Some((meta.clone(), Arc::clone(&bytes)));
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes.to_vec())) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let state = self.applied.state();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        let mut state = self.applied.state();
        for entry in entries {
            state.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(change) => Arc::make_mut(&mut state.ledger).apply(change),
                EntryPayload::Membership(members) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), members);
                }
            }
            answers.push(());
        }
        self.applied.count.send_replace(state.count());
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = Arc::new(snapshot.into_inner());
        let state = State::of(meta.clone(), Arc::clone(&bytes)).map_err(|error| {
            self.store.give_up(format!("a snapshot that cannot be read: {error}"));
            StorageIOError::read_snapshot(Some(meta.signature()), &error)
        })?;
        let saved = self.store.save_snapshot(meta.clone(), bytes).await;
        saved.map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), &error))?;
        self.applied.count.send_replace(state.count());
        *self.applied.state() = state;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshot = self.applied.state().snapshot.clone();
        Ok(snapshot.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes.to_vec())) }))
    }
}
