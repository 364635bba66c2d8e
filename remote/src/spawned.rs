//! What a node has to do with actors that the cluster makes: it hosts them like others, and keeps states of those of other nodes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr, Context};
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use starling_core::directory::{HeldName, Incarnation};
use starling_core::ids::NodeId;
use tokio::time::timeout;

use crate::actors::Actors;
use crate::error::RegisterError;
use crate::hosted::Taken;
use crate::wire::{ActorId, ToHost, Version};

/// How many bytes one state may have.
pub const SNAPSHOT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many bytes of states a node keeps. Beyond them those go that were kept first.
pub const SNAPSHOTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// On how many other nodes a state is kept.
const KEEPERS: usize = 2;
/// How many nodes are asked at once for a state.
const ASKED_AT_ONCE: usize = 8;
/// How long a node is waited for that does not read.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// A state of a spawned actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which.
    pub version: Version,
    /// The state, encoded.
    pub state: Bytes,
}

/// The states that a node keeps, the latest of each actor.
#[derive(Default)]
pub(crate) struct Snapshots {
    inner: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_name: BTreeMap<String, (u64, Snapshot)>,
    /// Of the last that was kept, which number it had.
    number: u64,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, name: &str) {
        if let Some((_, snapshot)) = self.by_name.remove(name) {
            self.bytes -= snapshot.state.len();
        }
    }
}

impl Snapshots {
    /// Keeps a state, unless a later one is there; `false` if it is too large.
    pub(crate) fn put(&self, name: &str, version: Version, state: Bytes) -> bool {
        if state.len() > SNAPSHOT_BYTES_MAX {
            return false;
        }
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let making = |version: &Version| (version.incarnation, version.number);
        if kept.by_name.get(name).is_some_and(|(_, there)| making(&there.version) >= making(&version)) {
            return true;
        }
        kept.remove(name);
        while kept.bytes + state.len() > SNAPSHOTS_BYTES_MAX {
            let oldest = kept.by_name.iter().min_by_key(|(_, (number, _))| *number).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { break };
            tracing::warn!(
                actor = oldest,
                "a state is dropped: the states of spawned actors here are too large together"
            );
            kept.remove(&oldest);
        }
        kept.number += 1;
        kept.bytes += state.len();
        let number = kept.number;
        kept.by_name.insert(name.to_owned(), (number, Snapshot { version, state }));
        true
    }

    pub(crate) fn get(&self, name: &str, spec: Option<u64>) -> Option<Snapshot> {
        let kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.by_name.get(name).map(|(_, snapshot)| snapshot);
        kept.filter(|snapshot| spec.is_none_or(|spec| snapshot.version.spec == spec)).cloned()
    }

    pub(crate) fn remove(&self, name: &str, spec: u64) {
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.by_name.get(name).is_some_and(|(_, snapshot)| snapshot.version.spec == spec) {
            kept.remove(name);
        }
    }
}

/// For the node that makes spawned actors.
impl Actors {
    /// Hosts an actor that the directory has ordered under its name; gives which hosting.
    ///
    /// # Errors
    /// An actor here holds the name, or the actor cannot be hosted.
    pub fn host<A: Actor<Context = Context<A>>>(
        &self,
        name: &str,
        addr: Addr<A>,
        spec: u64,
        incarnation: Incarnation,
    ) -> Result<u64, RegisterError> {
        match self.table().name(name, addr, Some((spec, incarnation)))? {
            Ok(hosted) => Ok(hosted.id),
            Err(Taken) => Err(RegisterError::NameTaken { name: name.to_owned(), node: self.node() }),
        }
    }

    /// Hosts it no longer: whoever sends to it hears that it has stopped.
    pub fn let_go(&self, actor: ActorId) {
        self.table().remove(actor);
    }

    /// The names that actors of this node hold.
    pub fn held_names(&self) -> Vec<HeldName> {
        self.table().holders()
    }

    /// Has the actors that hold names answer nobody, because it is not known whether they still do; or answer again.
    pub fn suspend(&self, is_suspended: bool) {
        self.table().suspend(is_suspended);
    }

    /// The nodes that are to keep the states of an actor of this one.
    pub fn keepers(&self, name: &str) -> Vec<NodeId> {
        let weight = |node: &NodeId| {
            let mut hasher = DefaultHasher::new();
            (name, node).hash(&mut hasher);
            hasher.finish()
        };
        let mut nodes = self.others();
        nodes.sort_by_key(|node| std::cmp::Reverse(weight(node)));
        nodes.truncate(KEEPERS);
        nodes
    }

    /// Keeps a state of an actor of this node, here and on other nodes; gives those that have it.
    pub async fn keep_snapshot(&self, name: &str, version: Version, state: Bytes) -> Vec<NodeId> {
        self.snapshots().put(name, version, state.clone());
        let mut keepers = Vec::new();
        for node in self.keepers(name) {
            // Held until the answer is there, as the link is.
            let peer = self.peer(node);
            if timeout(ROOM_TIMEOUT, peer.room()).await.is_err() {
                tracing::warn!(actor = name, %node, "a node does not read: it keeps no state");
                continue;
            }
            let (_, answer) = self.question(node, |ask| ToHost::Keep { ask, name, version, state: &state }).await;
            match answer {
                Ok(true) => keepers.push(node),
                Ok(false) => {
                    tracing::error!(actor = name, %node, bytes = state.len(), "a state is too large to be kept")
                }
                Err(error) => tracing::warn!(actor = name, %node, error, "a node keeps no state"),
            }
        }
        keepers
    }

    /// The latest state of an actor that is kept on any node.
    pub async fn latest_snapshot(&self, name: &str, spec: u64) -> Option<Snapshot> {
        self.latest_of(name, Some(spec)).await
    }

    async fn latest_of(&self, name: &str, spec: Option<u64>) -> Option<Snapshot> {
        let mut latest = self.snapshots().get(name, spec);
        let ask = |node| self.question::<Option<Snapshot>>(node, move |ask| ToHost::Kept { ask, name, spec });
        let mut asked = futures::stream::iter(self.others()).map(ask).buffer_unordered(ASKED_AT_ONCE);
        while let Some((node, answer)) = asked.next().await {
            match answer {
                Ok(Some(found)) if spec.is_none_or(|spec| found.version.spec == spec) => {
                    if latest.as_ref().is_none_or(|latest| latest.version < found.version) {
                        latest = Some(found);
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%node, error, "a node does not say which states it keeps"),
            }
        }
        latest
    }

    /// The latest state that is kept of an actor of this name, whichever spec it is of: for those who look into a cluster.
    pub async fn latest_snapshot_of(&self, name: &str) -> Option<Snapshot> {
        self.latest_of(name, None).await
    }

    /// Has nobody keep states of an actor that is not made anew.
    pub async fn drop_snapshots(&self, name: &str, spec: u64) {
        self.snapshots().remove(name, spec);
        for node in self.keepers(name) {
            // A node that cannot be reached drops it when it has no room.
            let _ = self.question::<()>(node, |ask| ToHost::Drop { ask, name, spec }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(spec: u64, made: u64, number: u64) -> Version {
        Version { spec, incarnation: Incarnation { number: made, ..Incarnation::default() }, number }
    }

    fn bytes(len: usize) -> Bytes {
        vec![7; len].into()
    }

    #[test]
    fn the_latest_state_of_each_actor_is_kept_and_no_other_ones() {
        let snapshots = Snapshots::default();
        assert!(snapshots.put("a", version(1, 1, 2), bytes(3)));
        assert!(snapshots.put("a", version(1, 1, 1), bytes(4)), "older");
        assert_eq!(snapshots.get("a", Some(1)).map(|snapshot| snapshot.state.len()), Some(3));
        assert!(snapshots.put("a", version(1, 2, 0), bytes(5)), "made anew");
        assert_eq!(snapshots.get("a", Some(1)).map(|snapshot| snapshot.state.len()), Some(5));
        assert_eq!(snapshots.get("a", Some(2)), None, "of another actor of the name");
        snapshots.remove("a", 2);
        assert!(snapshots.get("a", Some(1)).is_some());
        snapshots.remove("a", 1);
        assert_eq!(snapshots.get("a", Some(1)), None);
    }

    #[test]
    fn states_that_are_too_large_together_go_in_the_order_in_which_they_came() {
        let snapshots = Snapshots::default();
        assert!(!snapshots.put("large", version(1, 1, 1), bytes(SNAPSHOT_BYTES_MAX + 1)));
        let names: Vec<String> = (0..9).map(|number| format!("actor-{number}")).collect();
        for name in &names {
            assert!(snapshots.put(name, version(1, 1, 1), bytes(SNAPSHOT_BYTES_MAX)));
        }
        let kept = |name: &String| snapshots.get(name, Some(1)).is_some();
        assert_eq!(names.iter().map(kept).collect::<Vec<_>>(), [false, true, true, true, true, true, true, true, true]);
        assert_eq!(snapshots.inner.lock().unwrap().bytes, SNAPSHOTS_BYTES_MAX);
    }
}
