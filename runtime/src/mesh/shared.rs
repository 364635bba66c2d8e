//! What the handle, the driver and the serving tasks of one mesh share: identity, limits, the connections there are, the
//! members there are. It decides nothing but which of several connections is used.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, Stream};
use starling_core::ids::NodeId;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Plane;
use super::bulk::Pool;
use super::link::{self, Link, LinkLimits, LinkSender};
use super::net::Conn;
use super::wire::PeerMsg;
use super::{BlockStore, DownReason, Member, MemberInfo, MeshError, MeshEvent, MeshLimits, Role};
use crate::secret::ClusterSecret;

/// How long a node has to make a control connection that we could not make.
const ARRIVAL_WAIT: Duration = Duration::from_millis(500);

/// How long a dial for bulk is given before the node is asked to dial us as well.
const DIAL_BACK_AFTER: Duration = Duration::from_millis(500);

/// The answer to a dial: the node at the other end, once it is admitted and, on the control plane, in sync.
pub(crate) type DialReply = oneshot::Sender<Result<NodeId, MeshError>>;

/// What the driver is asked for.
pub(crate) enum Cmd {
    /// Connect with whoever is at the address, on the control plane.
    Join { addr: Multiaddr, peer: Option<PeerId>, reply: DialReply },
    /// Connect with a node.
    Dial { node: NodeId, addrs: Vec<Multiaddr>, plane: Plane, reply: DialReply },
    /// The handshake on a connection ended well.
    Admitted { conn: Conn, plane: Plane, stream: Stream, reply: Option<DialReply> },
    /// The node at the other end of a control connection says this.
    Said { conn: ConnectionId, node: NodeId, msg: PeerMsg },
    /// A connection is of no use.
    Close { conn: ConnectionId },
    /// Be known as this.
    Introduce { info: MemberInfo, done: oneshot::Sender<()> },
    /// Tell everybody that this node leaves.
    Leave { done: oneshot::Sender<()> },
}

/// The connections to one node, in the order in which they were admitted. Any of a plane will do.
#[derive(Default)]
pub(crate) struct PeerConns {
    control: Vec<(Conn, LinkSender)>,
    bulk: Vec<Conn>,
}

/// All and only admitted connections.
#[derive(Default)]
pub(crate) struct Table {
    peers: HashMap<NodeId, PeerConns>,
}

impl Table {
    pub(crate) fn insert_control(&mut self, node: NodeId, conn: Conn, tx: LinkSender) {
        self.peers.entry(node).or_default().control.push((conn, tx));
    }

    pub(crate) fn insert_bulk(&mut self, node: NodeId, conn: Conn) {
        self.peers.entry(node).or_default().bulk.push(conn);
    }

    /// Forgets a connection that is closed. Returns its plane if it was admitted.
    pub(crate) fn remove(&mut self, node: NodeId, id: ConnectionId) -> Option<Plane> {
        let peer = self.peers.get_mut(&node)?;
        let control = peer.control.extract_if(.., |(conn, _)| conn.id == id).next().map(|_| Plane::Control);
        let bulk = peer.bulk.extract_if(.., |conn| conn.id == id).next().map(|_| Plane::Bulk);
        if peer.control.is_empty() && peer.bulk.is_empty() {
            self.peers.remove(&node);
        }
        control.or(bulk)
    }

    pub(crate) fn conn(&self, node: NodeId, plane: Plane) -> Option<Conn> {
        let peer = self.peers.get(&node)?;
        match plane {
            Plane::Control => peer.control.iter().map(|(conn, _)| conn).find(|conn| conn.is_open()).cloned(),
            Plane::Bulk => peer.bulk.iter().find(|conn| conn.is_open()).cloned(),
        }
    }

    /// Where to put messages for a node that we are connected with.
    pub(crate) fn voice(&self, node: NodeId) -> Option<&LinkSender> {
        self.peers.get(&node)?.control.iter().find(|(conn, _)| conn.is_open()).map(|(_, tx)| tx)
    }

    pub(crate) fn has_control(&self, node: NodeId) -> bool {
        self.voice(node).is_some()
    }

    /// The nodes that we have a control connection with.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = (NodeId, &LinkSender)> {
        self.peers
            .iter()
            .filter_map(|(node, peer)| peer.control.iter().find(|(conn, _)| conn.is_open()).map(|(_, tx)| (*node, tx)))
    }

    /// Every connection with a node.
    pub(crate) fn conns(&self, node: NodeId) -> Vec<Conn> {
        self.peers.get(&node).map_or_else(Vec::new, |peer| {
            peer.control.iter().map(|(conn, _)| conn).chain(&peer.bulk).cloned().collect()
        })
    }

    pub(crate) fn peer_count(&self) -> usize {
        self.peers.len()
    }
}

/// The members, as of the latest gossip.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The live ones, this node among them.
    pub(crate) members: BTreeMap<NodeId, Member>,
    /// Why those that went down lately did.
    pub(crate) down: BTreeMap<NodeId, DownReason>,
}

pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) secret: Option<ClusterSecret>,
    pub(crate) limits: MeshLimits,
    pub(crate) store: Arc<dyn BlockStore>,
    pub(crate) listening: Vec<Multiaddr>,
    /// Whether this node has an address that others may dial.
    pub(crate) dialable: bool,
    pub(crate) cmds: mpsc::Sender<Cmd>,
    /// Links that peers opened, and refusals, on their way to the owner.
    pub(crate) arrivals: mpsc::Sender<MeshEvent>,
    pub(crate) view: watch::Sender<Arc<View>>,
    table: Mutex<Table>,
    /// Told whenever a connection is admitted or closed.
    pub(crate) table_changed: watch::Sender<()>,
    pub(crate) pool: Pool,
    /// Streams relayed for others.
    pub(crate) relays: Arc<Semaphore>,
    /// Ends the links with one node, once they have written what they hold. For nodes that there are or were links with
    /// since they were last down.
    node_drains: Mutex<HashMap<NodeId, CancellationToken>>,
    /// Ends all links in the same way.
    pub(crate) drain: CancellationToken,
    /// Ends everything.
    pub(crate) cancel: CancellationToken,
    pub(crate) links: TaskTracker,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(
        node: NodeId,
        secret: Option<ClusterSecret>,
        limits: MeshLimits,
        store: Arc<dyn BlockStore>,
        (listening, dialable): (Vec<Multiaddr>, bool),
        cmds: mpsc::Sender<Cmd>,
        arrivals: mpsc::Sender<MeshEvent>,
    ) -> Shared {
        let cancel = CancellationToken::new();
        Shared {
            node,
            secret,
            store,
            listening,
            dialable,
            cmds,
            arrivals,
            view: watch::Sender::new(Arc::default()),
            table: Mutex::default(),
            table_changed: watch::Sender::new(()),
            pool: Pool::new(limits.bulk_streams_per_node),
            relays: Arc::new(Semaphore::new(limits.relays_max)),
            node_drains: Mutex::default(),
            drain: cancel.child_token(),
            cancel,
            links: TaskTracker::new(),
            tasks: TaskTracker::new(),
            limits,
        }
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task that ends with the mesh.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            cancel.run_until_cancelled(task).await;
        });
    }

    /// Starts a link with a node, which ends when the node is down.
    pub(crate) fn link(&self, stream: impl link::Io, node: NodeId) -> Link {
        let mut drains = self.node_drains.lock().unwrap_or_else(PoisonError::into_inner);
        let drain = drains.entry(node).or_insert_with(|| self.drain.child_token()).clone();
        link::spawn(stream, node, self.link_limits(), drain, &self.links)
    }

    /// Ends the links with a node that is down; those with one that leaves it ends itself.
    pub(crate) fn end_links(&self, node: NodeId, reason: DownReason) {
        let drain = self.node_drains.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
        if let Some(drain) = drain.filter(|_| reason != DownReason::Left) {
            drain.cancel();
        }
    }

    fn link_limits(&self) -> LinkLimits {
        let MeshLimits { frame_bytes_max, link_queue_frames, link_queue_bytes, .. } = self.limits;
        LinkLimits { frame_bytes_max, queue_frames: link_queue_frames, queue_bytes: link_queue_bytes }
    }

    pub(crate) fn member(&self, node: NodeId) -> Option<Member> {
        self.view.borrow().members.get(&node).cloned()
    }

    /// A connection with the node on the plane: one that there is, or else a new one.
    pub(crate) async fn connection(&self, node: NodeId, plane: Plane) -> Result<Conn, MeshError> {
        if let Some(conn) = self.table().conn(node, plane) {
            return Ok(conn);
        }
        let no_route = |why: &str| MeshError::NoRoute { node, why: why.to_owned() };
        // Bulk streams to one node start together; the first to come dials for all.
        let gate = self.pool.gate(node, plane);
        let mut failed_at = gate.lock().await;
        if let Some(conn) = self.table().conn(node, plane) {
            return Ok(conn);
        }
        let mut addrs = self.member(node).map_or_else(Vec::new, |member| member.addrs);
        let control = self.table().conn(node, Plane::Control);
        if let Some(control) = control.as_ref().filter(|control| control.dialer) {
            // What has worked once comes first.
            addrs.retain(|addr| *addr != control.remote);
            addrs.insert(0, control.remote.clone());
        }
        if failed_at.is_some_and(|at| at.elapsed() < self.limits.redial_after) {
            return Err(no_route("it could not be dialed a moment ago"));
        }
        let why = if addrs.is_empty() { "it has no address to dial" } else { "it could not be dialed" };
        let mut refused = None;
        let dialed = async {
            if addrs.is_empty() {
                return None;
            }
            match self.dial(node, addrs.clone(), plane).await {
                Ok(conn) => Some(conn),
                Err(error) => {
                    tracing::debug!(%node, %plane, %error, "a node could not be dialed");
                    if matches!(error, MeshError::Refused { .. } | MeshError::Closed) {
                        refused = Some(error);
                    }
                    None
                }
            }
        };
        let conn = tokio::select! {
            Some(conn) = dialed => Some(conn),
            Some(conn) = self.arrival(node, plane, addrs.is_empty()) => Some(conn),
            else => None,
        };
        *failed_at = if conn.is_some() { None } else { Some(Instant::now()) };
        conn.ok_or_else(|| refused.unwrap_or_else(|| no_route(why)))
    }

    /// A connection that the node makes to us: a bulk one it is asked for, a control one it may be about to make anyhow.
    async fn arrival(&self, node: NodeId, plane: Plane, at_once: bool) -> Option<Conn> {
        let mut changes = self.table_changed.subscribe();
        let mut patience = ARRIVAL_WAIT;
        if plane == Plane::Bulk {
            if !at_once {
                // A node that can be dialed answers before that.
                tokio::time::sleep(DIAL_BACK_AFTER).await;
            }
            let voice = self.table().voice(node).cloned()?;
            voice.try_send(PeerMsg::DialBack.encode()).ok()?;
            patience = self.limits.handshake_timeout;
        }
        let arrived = changes.wait_for(|()| self.table().conn(node, plane).is_some());
        drop(tokio::time::timeout(patience, arrived).await);
        self.table().conn(node, plane)
    }

    async fn dial(&self, node: NodeId, addrs: Vec<Multiaddr>, plane: Plane) -> Result<Conn, MeshError> {
        let (reply, answer) = oneshot::channel();
        self.cmds.send(Cmd::Dial { node, addrs, plane, reply }).await.map_err(|_| MeshError::Closed)?;
        answer.await.map_err(|_| MeshError::Closed)??;
        let lost = || MeshError::NoRoute { node, why: "the connection closed at once".to_owned() };
        self.table().conn(node, plane).ok_or_else(lost)
    }

    /// Nodes that may relay to nodes that we are not connected with, the likeliest first: those connected with us that
    /// others can dial, and the scheduler before others.
    pub(crate) fn relay_candidates(&self, target: NodeId) -> Vec<NodeId> {
        let view = self.view.borrow().clone();
        let table = self.table();
        let mut found: Vec<_> = table
            .neighbours()
            .filter(|&(node, _)| node != target)
            .filter_map(|(node, _)| {
                let member = view.members.get(&node)?;
                let last = (member.addrs.is_empty(), member.info.role != Role::Scheduler);
                Some((last, node))
            })
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, node)| node).collect()
    }
}
