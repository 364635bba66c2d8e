//! A node of the quorum: [`Quorum`].

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{ClientWriteError, RaftError};
use starling_core::election::Rank;
use starling_core::ids::{NodeId, Term};
use starling_core::ledger::{self, ENTRY_BYTES_MAX, Ledger};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::answer::Incoming;
use crate::config::QuorumConfig;
use crate::disk::{Disk, Folder, Memory};
use crate::driver;
use crate::error::{ProposeError, QuorumError};
use crate::lease::Lease;
use crate::log::Log;
use crate::machine::{Applied, Machine};
use crate::network::{Peers, Transport, Wire};
use crate::raft::{Metrics, Raft};
use crate::shared::{Hints, Shared};
use crate::store::{ClusterId, Store};
use crate::view::View;

/// A node's part in the quorum. Clones are the same node; when the last one is dropped, it stops as if it had crashed.
#[derive(Clone)]
pub struct Quorum {
    shared: Arc<Shared>,
    driver: Arc<Driver>,
}

/// Stops the driver with the last handle.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Quorum {
    /// Starts a node on what its directory holds. A node without a log waits until it [founds](Quorum::found) a cluster or
    /// the leader of one sends it the log, which happens when that leader finds it among the
    /// [candidates](Quorum::candidates).
    ///
    /// Errors name the file and say what a person can do.
    pub async fn start(config: QuorumConfig, transport: Arc<dyn Transport>) -> Result<Quorum, QuorumError> {
        let disk: Box<dyn Disk> = match config.data.clone() {
            None => Box::new(Memory::new()),
            Some(path) => {
                let opened = tokio::task::spawn_blocking(move || open(&path)).await;
                Box::new(opened.map_err(|error| QuorumError::Stopped(error.to_string()))??)
            }
        };
        Quorum::start_on(config, transport, disk).await
    }

    /// The same, on files that are kept elsewhere. `config.data` is not looked at.
    pub async fn start_on(
        config: QuorumConfig,
        transport: Arc<dyn Transport>,
        disk: Box<dyn Disk>,
    ) -> Result<Quorum, QuorumError> {
        if ![1, 3, 5].contains(&config.voters_max) {
            return Err(QuorumError::Config("there are 1, 3 or 5 voters"));
        }
        if !config.pace.is_sound() {
            return Err(QuorumError::Config("the lease must be at least two heartbeats, and nothing below 10 ms"));
        }
        let (node, pace, is_fast) = (config.node, config.pace, disk.is_fast());
        let open = move || {
            let (store, snapshot) = Store::open(node, disk)?;
            let applied = Applied::new(&store, snapshot)?;
            Ok((Arc::new(store), Arc::new(applied)))
        };
        let opened = if is_fast { Ok(open()) } else { tokio::task::spawn_blocking(open).await };
        let (store, applied) = opened.map_err(|error| QuorumError::Stopped(error.to_string()))??;
        let wire = Arc::new(Wire {
            store: Arc::clone(&store),
            transport,
            lease: Lease::new(Instant::now()),
            patience: pace.heartbeat * 2,
            pause: pace.heartbeat,
            problem: Mutex::new(None),
        });
        let machine = Machine { store: Arc::clone(&store), applied: Arc::clone(&applied) };
        let raft =
            Raft::new(node, Arc::new(raft_config(&config)), Peers(Arc::clone(&wire)), Log(Arc::clone(&store)), machine)
                .await
                .map_err(|error| QuorumError::Stopped(error.to_string()))?;
        let shared = Arc::new(Shared {
            metrics: raft.metrics(),
            raft,
            wire,
            store,
            applied,
            view: watch::Sender::new(View::default()),
            hints: Mutex::new(Hints::default()),
            wake: tokio::sync::Notify::new(),
            handing_over: Mutex::new(None),
            polled: Mutex::new(None),
            founding: tokio::sync::Mutex::new(()),
            incoming: tokio::sync::Mutex::new(Incoming::default()),
            config,
        });
        shared.update_view();
        let driver = tokio::spawn(driver::run(Arc::clone(&shared)));
        Ok(Quorum { shared, driver: Arc::new(Driver(driver)) })
    }

    /// Whether this node has no log yet, and has voted for nobody.
    pub fn is_new(&self) -> bool {
        self.shared.store.is_new()
    }

    /// Founds a cluster in which this node votes alone, and waits until it leads.
    pub async fn found(&self) -> Result<(), QuorumError> {
        let shared = &self.shared;
        {
            let _founding = shared.founding.lock().await;
            if !self.is_new() {
                return Err(QuorumError::NotNew);
            }
            let saved = shared.store.save_cluster(ClusterId(rand::random())).await;
            saved.map_err(|source| QuorumError::Io { place: shared.store.place().to_owned(), source })?;
            let founded = shared.raft.initialize(BTreeSet::from([shared.config.node])).await;
            founded.map_err(|error| match error {
                RaftError::APIError(_) => QuorumError::NotNew,
                RaftError::Fatal(error) => QuorumError::Stopped(shared.problem().unwrap_or_else(|| error.to_string())),
            })?;
        }
        let mut view = self.view();
        let leads = timeout(shared.config.pace.lease * 4, view.wait_for(|view| view.is_leader)).await;
        match leads {
            Ok(Ok(_)) => Ok(()),
            _ => Err(QuorumError::Stopped(shared.problem().unwrap_or_else(|| "it took too long".to_owned()))),
        }
    }

    /// Serves a request that the node `from`, as the transport has proved, has sent. What cannot be read is refused.
    pub async fn answer(&self, from: NodeId, request: Bytes) -> Bytes {
        self.shared.answer(from, &request).await
    }

    /// How this node sees the quorum, and when that changes. What it says about leading may be out of date by a quarter of
    /// a lease, or by however long this process was stopped: see [`still_leads`](Quorum::still_leads).
    pub fn view(&self) -> watch::Receiver<View> {
        self.shared.view.subscribe()
    }

    /// The term in which this node leads at this moment, by the clock: no other node leads in any term now. `None` if it
    /// does not, or not for sure.
    pub fn still_leads(&self) -> Option<Term> {
        self.shared.still_leads(Instant::now())
    }

    /// What this node has applied. Only a leader's is sure to hold all that was ever agreed on.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.shared.applied.ledger()
    }

    /// How many entries of the log this node has applied, and when that changes: then the ledger may have changed.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.count()
    }

    /// Has every voter remember this. Once it returns, a quorum has it on disk and it is in this node's ledger.
    ///
    /// Only a leader may; see [`ProposeError`] for what an error says about the entry. Not cancelled by dropping: the entry
    /// may be made all the same.
    pub async fn propose(&self, entry: ledger::Entry) -> Result<(), ProposeError> {
        let shared = &self.shared;
        let bytes = postcard::experimental::serialized_size(&entry).unwrap_or(usize::MAX);
        if bytes > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes });
        }
        if self.still_leads().is_none() {
            return Err(shared.why_not_leading());
        }
        let patience = shared.config.pace.lease * 4 + Duration::from_secs(bytes as u64 / (1024 * 1024));
        match timeout(patience, shared.raft.client_write(entry)).await {
            Err(_) => Err(ProposeError::NoQuorum),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(ProposeError::NotLeader { leader: to.leader_id.filter(|leader| *leader != shared.config.node) })
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_)))) => Err(ProposeError::NoQuorum),
            Ok(Err(RaftError::Fatal(_))) => Err(ProposeError::Closed),
        }
    }

    /// Says which nodes could vote now, as the mesh sees it. A leader has all of them hold the log and makes voters of the
    /// best; followers stand in the order of their ranks. Call it whenever that changes. The node itself need not be in it.
    ///
    /// Everyone here gets heartbeats and the log, so name nodes that may become schedulers, dozens at most.
    pub fn candidates(&self, live: Vec<(NodeId, Rank)>) {
        self.shared.set_candidates(live);
    }

    /// Says that the mesh takes a node for gone. If it leads, its followers stand as soon as its lease is over. Forgotten
    /// when it is among the [candidates](Quorum::candidates) again.
    pub fn is_down(&self, node: NodeId) {
        self.shared.set_down(node);
    }

    /// Stops, and returns when nothing of this node's runs any more and its directory is free. Other handles see a stopped
    /// node.
    pub async fn shutdown(self) {
        self.driver.0.abort();
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::warn!(%error, "the quorum's core did not stop in order");
        }
        self.shared.store.close();
        self.shared.update_view();
    }
}

fn open(path: &Path) -> Result<Folder, QuorumError> {
    let place = path.display().to_string();
    Folder::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => QuorumError::InUse { place },
        _ => QuorumError::Io { place, source },
    })
}

/// Elections, heartbeats and snapshots are ours to start; openraft does them.
fn raft_config(config: &QuorumConfig) -> openraft::Config {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let pace = config.pace;
    openraft::Config {
        cluster_name: "starling".to_owned(),
        // The lease that voters grant a leader, and for how long a request for a vote is waited for.
        election_timeout_max: millis(pace.follower_lease()),
        election_timeout_min: millis(pace.lease / 2),
        // Only how long any one request may take; ours end sooner if they are small.
        heartbeat_interval: 60_000,
        install_snapshot_timeout: 60_000,
        snapshot_max_chunk_size: 1024 * 1024,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 16,
        max_payload_entries: 1_000,
        enable_heartbeat: false,
        enable_elect: false,
        ..openraft::Config::default()
    }
}

/// All voters of all configurations that hold now: one, or two during a change.
pub(crate) fn configs(metrics: &Metrics) -> &[BTreeSet<NodeId>] {
    metrics.membership_config.membership().get_joint_config()
}

/// The lock's content, whatever became of who had it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
