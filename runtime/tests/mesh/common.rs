//! Nodes, stores, and waiting for what shall come about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use starling_core::ids::{JobId, NodeId, TaskId};
use starling_runtime::mesh::{
    BlockStore, Link, MemberInfo, Mesh, MeshConfig, MeshError, MeshEvent, MeshLimits, Multiaddr, Role, identity,
};
use starling_runtime::secret::ClusterSecret;
use starling_runtime::value::Encoded;
use tokio::sync::mpsc;

/// How long anything may take before the test has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A store that is a map.
#[derive(Default)]
pub(crate) struct MapStore {
    pub(crate) blocks: Mutex<BTreeMap<TaskId, Encoded>>,
}

impl BlockStore for MapStore {
    fn get(&self, task: TaskId) -> Option<Encoded> {
        if task.index == 666 {
            panic!("this block's encoding panics");
        }
        self.blocks.lock().unwrap().get(&task).cloned()
    }

    fn put(&self, task: TaskId, value: Encoded) -> Result<(), String> {
        if task.job == JobId(13) {
            return Err("job 13 is not taken".to_owned());
        }
        self.blocks.lock().unwrap().insert(task, value);
        Ok(())
    }
}

pub(crate) fn task(index: u32) -> TaskId {
    TaskId::new(JobId(1), index)
}

pub(crate) fn value(seed: u32, head: usize, buffers: &[usize]) -> Encoded {
    let fill =
        |length: usize| Bytes::from((0..length).map(|at| (at as u32).wrapping_mul(seed | 1) as u8).collect::<Vec<_>>());
    Encoded { head: fill(head), buffers: buffers.iter().map(|&length| fill(length)).collect() }
}

/// How a node is set up; by default it listens on loopback, runs without a secret and is a worker.
pub(crate) struct Setup {
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) secret: Option<ClusterSecret>,
    pub(crate) role: Role,
    pub(crate) keypair: Option<identity::Keypair>,
    pub(crate) limits: MeshLimits,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            secret: None,
            role: Role::Worker,
            keypair: None,
            limits: MeshLimits::default(),
        }
    }
}

impl Setup {
    pub(crate) fn scheduler() -> Setup {
        Setup { role: Role::Scheduler, ..Setup::default() }
    }

    pub(crate) fn dial_out_only() -> Setup {
        Setup { listen: Vec::new(), ..Setup::default() }
    }

    pub(crate) fn secret(self, secret: &ClusterSecret) -> Setup {
        Setup { secret: Some(secret.clone()), ..self }
    }

    pub(crate) async fn try_start(self) -> Result<Node, MeshError> {
        let Setup { listen, secret, role, keypair, limits } = self;
        let store = Arc::new(MapStore::default());
        let member = MemberInfo { name: format!("{role:?}"), role, room: 0, keeps: false };
        let config = MeshConfig { keypair, listen, secret, member, limits };
        let (mesh, events) = Mesh::start(config, store.clone()).await?;
        Ok(Node { mesh, events, store })
    }

    pub(crate) async fn start(self) -> Node {
        self.try_start().await.unwrap()
    }
}

pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) events: mpsc::Receiver<MeshEvent>,
    pub(crate) store: Arc<MapStore>,
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.mesh.node()
    }

    pub(crate) fn addr(&self) -> Multiaddr {
        self.mesh.listen_addrs()[0].clone()
    }

    pub(crate) async fn join(&self, other: &Node) -> NodeId {
        self.mesh.join(&other.addr()).await.unwrap()
    }

    /// The first event that `pick` takes.
    pub(crate) async fn event<T>(&mut self, mut pick: impl FnMut(MeshEvent) -> Option<T>) -> T {
        within("an event", async {
            loop {
                if let Some(found) = pick(self.events.recv().await.expect("the mesh has ended")) {
                    return found;
                }
            }
        })
        .await
    }

    pub(crate) async fn link(&mut self) -> (Link, Bytes) {
        self.event(|event| match event {
            MeshEvent::Link { link, hello } => Some((link, hello)),
            _ => None,
        })
        .await
    }

    /// Waits until these are all the members that it knows.
    pub(crate) async fn knows(&self, nodes: &[NodeId]) {
        let mut expected = nodes.to_vec();
        expected.sort_unstable();
        until(&format!("{} members", nodes.len()), || {
            self.mesh.members().iter().map(|member| member.node).collect::<Vec<_>>() == expected
        })
        .await;
    }
}

/// The outcome, or a failed test if there is none in time.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Starts nodes that join the first, and waits until each knows all.
pub(crate) async fn cluster(setups: Vec<Setup>) -> Vec<Node> {
    let mut nodes = Vec::new();
    for setup in setups {
        nodes.push(setup.start().await);
    }
    for node in &nodes[1..] {
        node.join(&nodes[0]).await;
    }
    let ids: Vec<_> = nodes.iter().map(Node::id).collect();
    for node in &nodes {
        node.knows(&ids).await;
    }
    nodes
}
