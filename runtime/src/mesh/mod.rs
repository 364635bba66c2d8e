//! The mesh: nodes that know each other, frames and blocks between them.
//!
//! libp2p gives identity, encryption and streams; this adds who may join ([`admission`]), who is there ([`membership`]),
//! ordered frames between two nodes ([`Link`]) and blocks from store to store ([`Mesh::fetch`], [`Mesh::put`]). It knows
//! nothing of tasks beyond their ids and decides nothing about them; what a member being down means is its owner's to say.
//!
//! Two nodes are joined by up to two connections, control and bulk, each admitted by the proof of the cluster's secret.
//! Both are under the node's one identity: the plane is named, and bound, in the admission handshake. One side may be
//! unable to dial the other; then it is asked to dial back, and if neither can dial, a third node relays.
//!
//! ```text
//! Mesh (handle) --commands--> driver: swarm + membership      one task, never waits for another
//!      |                        |  spawns: admission, links, bulk serving, relays
//!      +--- streams of admitted connections, directly (shared table) ---+
//! ```

mod addr;
mod admission;
mod block;
mod bulk;
mod dialing;
mod driver;
mod error;
mod events;
mod link;
mod listen;
mod membership;
mod muxer;
mod net;
mod redial;
mod relay;
mod shared;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libp2p::identity::Keypair;
use serde::{Deserialize, Serialize};
use starling_core::ids::{NodeId, TaskId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;

pub use addr::{DEFAULT_PORT, node_of, parse_addr, peer_of};
pub use admission::Refusal;
pub use error::MeshError;
pub use libp2p::multiaddr::Protocol;
pub use libp2p::{Multiaddr, identity};
pub use link::{Link, LinkError, LinkReceiver, LinkSender};

use membership::{Ident, Membership, NAME_BYTES_MAX};
use shared::{Cmd, Shared};

use crate::secret::ClusterSecret;
use crate::value::Encoded;

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Places tasks, before others that could.
    Scheduler,
    /// Runs tasks, and places them when it is elected to.
    Auto,
    /// Runs tasks.
    Worker,
    /// Submits tasks.
    Client,
    /// Hosts actors.
    Service,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// A name for people, of at most 128 bytes.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How much it can hold, in megabytes of memory.
    pub room: u64,
    /// Whether it comes back as the same node when it is started again.
    pub keeps: bool,
}

/// A live member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub node: NodeId,
    /// What it says of itself.
    pub info: MemberInfo,
    /// Where it can be dialed; empty if nowhere.
    pub addrs: Vec<Multiaddr>,
    /// Grows whenever the node starts anew or comes back after having been taken for down.
    pub incarnation: u64,
}

/// Why a member is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// It said that it leaves.
    Left,
    /// It does not answer, neither to us nor to others, or its process is gone.
    Silent,
}

/// Bounds, the same on every node of a cluster.
#[derive(Clone, Debug)]
pub struct MeshLimits {
    /// The largest frame of a link, in bytes.
    pub frame_bytes_max: usize,
    /// The largest block, in bytes.
    pub block_bytes_max: u64,
    /// Frames that wait to be written on one link.
    pub link_queue_frames: usize,
    /// Bytes that wait to be written on one link.
    pub link_queue_bytes: usize,
    /// Events that wait for the mesh's owner.
    pub event_queue: usize,
    /// Inbound connections that are not admitted yet. More are refused until some are admitted or closed.
    pub strangers_max: usize,
    /// How long a connection may take to be set up and admitted.
    pub handshake_timeout: Duration,
    /// How long [`Mesh::join`] may take in all, for each address.
    pub join_timeout: Duration,
    /// Nodes that this one is connected with; it dials no more, and admits no more.
    pub peers_max: usize,
    /// Bulk streams opened to one node.
    pub bulk_streams_per_node: usize,
    /// How long a transfer may stand still before it is given up.
    pub stall_timeout: Duration,
    /// How long a node that could not be dialed for bulk is not dialed again.
    pub redial_after: Duration,
    /// Streams relayed for others at a time.
    pub relays_max: usize,
}

impl Default for MeshLimits {
    fn default() -> MeshLimits {
        MeshLimits {
            frame_bytes_max: 64 * 1024 * 1024,
            block_bytes_max: 16 * 1024 * 1024 * 1024,
            link_queue_frames: 4096,
            link_queue_bytes: 64 * 1024 * 1024,
            event_queue: 1024,
            strangers_max: 256,
            handshake_timeout: Duration::from_secs(5),
            join_timeout: Duration::from_secs(10),
            peers_max: 512,
            bulk_streams_per_node: 8,
            stall_timeout: Duration::from_secs(30),
            redial_after: Duration::from_secs(5),
            relays_max: 64,
        }
    }
}

/// What a mesh is started with.
#[derive(Debug)]
pub struct MeshConfig {
    /// The node's identity, an ed25519 key; a new one is made if there is none.
    pub keypair: Option<Keypair>,
    /// Where to listen; empty for a node that only dials out.
    pub listen: Vec<Multiaddr>,
    /// The cluster's secret; none for a cluster that admits everybody.
    pub secret: Option<ClusterSecret>,
    /// What the node says of itself.
    pub member: MemberInfo,
    /// Bounds.
    pub limits: MeshLimits,
}

/// Where blocks come from and go to.
pub trait BlockStore: Send + Sync + 'static {
    /// The block, encoded. Called on a thread that may block, as encoding may take long.
    fn get(&self, task: TaskId) -> Option<Encoded>;

    /// Keeps a block that a peer sent. Called on a thread that may block. The text of a refusal goes to the peer.
    fn put(&self, task: TaskId, value: Encoded) -> Result<(), String>;
}

/// What the mesh tells its owner.
#[derive(Debug)]
pub enum MeshEvent {
    /// A member is there, or is back, or has another incarnation or other addresses than before.
    MemberUp(Member),
    /// A member is gone. The links with it close by themselves, also if it comes back at once.
    MemberDown {
        /// Who.
        node: NodeId,
        /// Why.
        reason: DownReason,
    },
    /// An admitted peer opened a link. Whatever was known of the members by then was told before.
    Link {
        /// The link.
        link: Link,
        /// What the peer said on opening it.
        hello: Bytes,
    },
    /// A peer that connected was not admitted. For the log; left out when too many wait.
    Refused {
        /// Its address.
        addr: Multiaddr,
        /// Why.
        refusal: Refusal,
    },
}

/// A handle to a running mesh. Clones stand for the same one; it ends when the last is dropped.
#[derive(Clone)]
pub struct Mesh {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mesh({})", self.node())
    }
}

/// Commands that wait for the driver.
const COMMANDS_WAITING: usize = 256;

/// How long [`Mesh::shutdown`] lets each of its steps take.
const SHUTDOWN_STEP: Duration = Duration::from_millis(1500);

impl Mesh {
    /// Starts a node on the current tokio runtime. It listens when this returns. The events must be taken: links, and
    /// news of members, wait for room.
    pub async fn start(
        config: MeshConfig,
        blocks: Arc<dyn BlockStore>,
    ) -> Result<(Mesh, mpsc::Receiver<MeshEvent>), MeshError> {
        let MeshConfig { keypair, listen, secret, member, limits } = config;
        if member.name.len() > NAME_BYTES_MAX {
            let size = member.name.len() as u64;
            return Err(MeshError::TooLarge { what: "the node's name".to_owned(), size, max: NAME_BYTES_MAX as u64 });
        }
        let keypair = keypair.unwrap_or_else(Keypair::generate_ed25519);
        let node = node_of(&keypair.public().to_peer_id()).ok_or(MeshError::KeyType)?;
        let mut swarm = net::swarm(&keypair, &limits)?;
        let (listening, early) = listen::listen(&mut swarm, &listen).await?;
        let advertised = addr::advertised(&listening);
        let dialable = !advertised.is_empty();
        let membership = Membership::new(Ident::new(node, listen::incarnation(), member, advertised), rand::make_rng());
        let (cmds, commands) = mpsc::channel(COMMANDS_WAITING);
        let (arrivals, arrived) = mpsc::channel(16);
        let (events, received) = mpsc::channel(limits.event_queue.max(1));
        let shared = Arc::new(Shared::new(node, secret, limits, blocks, (listening, dialable), cmds, arrivals));
        let driver = driver::Driver::new(shared.clone(), swarm, membership);
        shared.tasks.spawn(driver.run(commands, early));
        shared.spawn(events::pump(shared.view.subscribe(), arrived, events, node));
        Ok((Mesh { handle: Arc::new(Handle { shared }) }, received))
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.shared().node
    }

    /// Where this node listens, with the ports that it was given.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.shared().listening.clone()
    }

    /// Connects with the node at an address, and learns of the others from it. The addresses are kept: a node that has
    /// lost everybody dials them again.
    pub async fn join(&self, addr: &Multiaddr) -> Result<NodeId, MeshError> {
        let shared = self.shared();
        let mut failure = None;
        for ip in addr::resolve(addr).await? {
            let (reply, answer) = oneshot::channel();
            let join = Cmd::Join { addr: ip, peer: addr::peer_in(addr), reply };
            shared.cmds.send(join).await.map_err(|_| MeshError::Closed)?;
            let timeout = shared.limits.join_timeout;
            let late = || MeshError::Timeout { what: format!("joining at {addr}"), ms: timeout.as_millis() as u64 };
            match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(Ok(node))) => return Ok(node),
                Ok(Ok(Err(error))) => failure.get_or_insert(error),
                Ok(Err(_)) => failure.insert(MeshError::Closed),
                Err(_) => failure.get_or_insert_with(late),
            };
        }
        // What the first address came to tells a person most.
        Err(failure.unwrap_or(MeshError::Closed))
    }

    /// Is known to the others as this from now on.
    pub async fn introduce(&self, info: MemberInfo) -> Result<(), MeshError> {
        let (done, told) = oneshot::channel();
        self.shared().cmds.send(Cmd::Introduce { info, done }).await.map_err(|_| MeshError::Closed)?;
        told.await.map_err(|_| MeshError::Closed)
    }

    /// The live members, this node among them, as of the latest gossip.
    pub fn members(&self) -> Vec<Member> {
        self.shared().view.borrow().members.values().cloned().collect()
    }

    /// Opens a link. The other side gets `hello` with it. Through a third node if neither can dial the other.
    pub async fn open_link(&self, node: NodeId, hello: Bytes) -> Result<Link, MeshError> {
        let shared = self.shared();
        let refused = |error: LinkError| match error {
            LinkError::TooLarge { size, max } => {
                MeshError::TooLarge { what: "the hello".to_owned(), size: size as u64, max: max as u64 }
            }
            error => MeshError::Broken { node, source: std::io::Error::other(error) },
        };
        if node == shared.node {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (mine, theirs) = (shared.link(near.compat(), node), shared.link(far.compat(), node));
            let arrival = MeshEvent::Link { link: theirs, hello };
            shared.arrivals.send(arrival).await.map_err(|_| MeshError::Closed)?;
            return Ok(mine);
        }
        let stream = relay::open(shared, node, relay::Service::Link).await?;
        let link = shared.link(stream, node);
        link.tx.send(hello).await.map_err(refused)?;
        Ok(link)
    }

    /// Fetches blocks from a node's store, in this order. `on_block` gets each as it comes, none for one that the node
    /// does not have or that arrived damaged. After an error nothing is known of the blocks that were not reported.
    pub async fn fetch(
        &self,
        node: NodeId,
        tasks: &[TaskId],
        on_block: &mut (dyn FnMut(TaskId, Option<Encoded>) + Send),
    ) -> Result<(), MeshError> {
        bulk::fetch(self.shared(), node, tasks, on_block).await
    }

    /// Puts a block into a node's store.
    pub async fn put(&self, node: NodeId, task: TaskId, value: Encoded) -> Result<(), MeshError> {
        bulk::put(self.shared(), node, task, value).await
    }

    /// Ends at once, without taking leave: links close, the port is free. For who drops a node.
    pub fn close(&self) {
        self.handle.shared.cancel.cancel();
    }

    /// Whether this node's part of the mesh has ended, or is about to.
    pub fn is_closed(&self) -> bool {
        self.shared().cancel.is_cancelled()
    }

    /// Leaves: the others are told, what waits on links is written, connections are closed. Takes a few seconds at
    /// most. Every later operation fails with [`MeshError::Closed`] or alike.
    pub async fn shutdown(&self) {
        let shared = self.shared();
        let (done, told) = oneshot::channel();
        let leave = async {
            shared.cmds.send(Cmd::Leave { done }).await.ok()?;
            told.await.ok()
        };
        drop(tokio::time::timeout(SHUTDOWN_STEP, leave).await);
        shared.drain.cancel();
        shared.links.close();
        drop(tokio::time::timeout(SHUTDOWN_STEP, shared.links.wait()).await);
        shared.cancel.cancel();
        shared.tasks.close();
        drop(tokio::time::timeout(SHUTDOWN_STEP, shared.tasks.wait()).await);
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}
