//! How a client comes to its scheduler: over a mesh of its own, or over that of the node whose tasks it serves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starling_core::ids::{JobId, NodeId};
use starling_core::wire::{FromClient, ToClient};
use starling_runtime::executor::{TaskContext, current_task};
use starling_runtime::mesh::{Mesh, MeshError, MeshEvent, Multiaddr};
use starling_runtime::slots::Slots;
use starling_runtime::store::MemoryConfig;
use starling_runtime::task::ClientError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::client::{Client, Connection};
use crate::cluster::ClusterError;
use crate::link::{Hello, MessageReceiver, Refusal, Welcome, encode_one};
use crate::node::{Node, open_to_scheduler};

/// How long the scheduler may take to open a job.
const JOB_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client has to do with its mesh.
pub(crate) enum MeshHold {
    /// It is the client's own, and ends with it, and so do the nodes of an embedded cluster.
    Own { events: mpsc::Receiver<MeshEvent>, nodes: Vec<Node> },
    /// It is the node's that the client is on.
    Nodes,
}

/// The client that tasks on a node use for tasks of their own: one for all of them, connected when the first one asks.
pub(crate) struct Nested {
    mesh: Mesh,
    name: String,
    /// Where the links are served.
    runtime: Handle,
    memory: MemoryConfig,
    client: Mutex<Option<Arc<Client>>>,
    /// What the node's tasks share.
    slots: Slots,
}

impl Nested {
    pub(crate) fn new(mesh: Mesh, name: String, memory: MemoryConfig, runtime: Handle) -> Nested {
        Nested { mesh, name, runtime, memory, client: Mutex::default(), slots: Slots::default() }
    }

    /// The client. Blocks while it connects, and so is only for the executor's threads.
    pub(crate) fn client(&self) -> Result<Arc<Client>, ClusterError> {
        let mut connected = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = connected.as_ref().filter(|client| client.is_usable()) {
            return Ok(Arc::clone(client));
        }
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (mesh, name) = (self.mesh.clone(), format!("tasks on {}", self.name));
        self.runtime.spawn(async move {
            // Whoever asked waits for it.
            let _ = tell.send(open(&mesh, MeshHold::Nodes, String::new(), name).await);
        });
        let client = told.recv().map_err(|_| ClusterError::Mesh(MeshError::Closed))??;
        *connected = Some(Arc::clone(&client));
        Ok(client)
    }
}

/// The node on which a task runs, for that task.
pub struct CurrentNode(Arc<Nested>);

impl CurrentNode {
    /// The node whose task runs on this thread; `None` on a thread that is no executor's.
    pub fn get() -> Option<CurrentNode> {
        CurrentNode::of(current_task()?)
    }

    pub(crate) fn of(context: TaskContext) -> Option<CurrentNode> {
        context.extension?.downcast().ok().map(CurrentNode)
    }

    pub(crate) fn client(&self) -> Result<Arc<Client>, ClusterError> {
        self.0.client()
    }

    /// The node's id.
    pub fn node(&self) -> NodeId {
        self.0.mesh.node()
    }

    /// The node's name, for people.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How much memory the node may use.
    pub fn memory(&self) -> &MemoryConfig {
        &self.0.memory
    }

    /// The node's value of this type, made now if there is none: what its tasks share.
    pub fn extension<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.0.slots.get_or_init(make)
    }
}

/// Joins by the first of these addresses that answers, and opens a job at the mesh's scheduler.
pub(crate) async fn connect(
    mesh: &Mesh,
    hold: MeshHold,
    addrs: &[Multiaddr],
    name: String,
) -> Result<Arc<Client>, ClusterError> {
    let mut error = None;
    for addr in addrs {
        match mesh.join(addr).await {
            Ok(_) => {
                error = None;
                break;
            }
            Err(failed) => error = error.or(Some(failed)),
        }
    }
    if let Some(error) = error {
        return Err(error.into());
    }
    let at = addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    open(mesh, hold, at, name).await
}

/// Opens a job at the scheduler of a mesh that was joined at `at`.
async fn open(mesh: &Mesh, hold: MeshHold, at: String, name: String) -> Result<Arc<Client>, ClusterError> {
    let (link, kinds) = match open_to_scheduler(mesh, &Hello::Client { name: name.clone() }).await? {
        Some((link, Welcome::Client { kinds, .. })) => (link, kinds),
        Some((_, Welcome::Refused(refusal))) => return Err(refusal.into()),
        Some((_, Welcome::Worker { .. })) => return Err(Refusal::BadHello.into()),
        None => return Err(ClusterError::NoScheduler(at)),
    };

    let peer = link.peer;
    let mut messages = MessageReceiver::<ToClient>::new(link.rx);
    let open = FromClient::OpenJob { name, token: 0 };
    let lost = |reason: &str| ClientError::SchedulerLost(reason.to_owned());
    let frame = encode_one(&open).map_err(|error| lost(&error.to_string()))?;
    link.tx.send(frame).await.map_err(|_| lost("the link is closed"))?;
    let (job, early) = timeout(JOB_TIMEOUT, job_opened(&mut messages, peer))
        .await
        .ok()
        .flatten()
        .ok_or_else(|| lost("it did not open a job"))?;

    let kinds = kinds.into_iter().map(|kind| kind.kind).collect();
    let client = Client::new(job, mesh.clone(), kinds, matches!(hold, MeshHold::Own { .. }));
    client.handle(early);
    let reader = {
        let client = Arc::downgrade(&client);
        tokio::spawn(async move {
            let reason = loop {
                match messages.recv(peer).await {
                    Ok(Some(messages)) => match client.upgrade() {
                        Some(client) => client.handle(messages),
                        None => return,
                    },
                    Ok(None) => break "its link is closed".to_owned(),
                    Err(error) => break error.to_string(),
                }
            };
            if let Some(client) = client.upgrade() {
                client.lose(&reason);
            }
        })
    };
    let mut tasks = vec![reader, tokio::spawn(Client::send_queued(Arc::downgrade(&client), link.tx))];
    let nodes = match hold {
        MeshHold::Own { events, nodes } => {
            tasks.push(tokio::spawn(ignore(events)));
            nodes
        }
        MeshHold::Nodes => Vec::new(),
    };
    client.keep(Connection { tasks, nodes });
    Ok(client)
}

/// The id of the job that was asked for, and what was said about workers before it.
async fn job_opened(messages: &mut MessageReceiver<ToClient>, peer: NodeId) -> Option<(JobId, Vec<ToClient>)> {
    let mut early = Vec::new();
    loop {
        let mut opened = None;
        for message in messages.recv(peer).await.ok()?? {
            match message {
                ToClient::JobOpened { job, .. } => opened = Some(job),
                other => early.push(other),
            }
        }
        if let Some(job) = opened {
            return Some((job, early));
        }
    }
}

/// A client serves nobody: links to it are closed, and the scheduler tells it of workers.
async fn ignore(mut events: mpsc::Receiver<MeshEvent>) {
    while events.recv().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Cluster, ConnectOptions};
    use crate::node::{NodeConfig, NodeRole};

    /// On a thread that may block, as the executor's do.
    async fn client_of(nested: &Arc<Nested>) -> Arc<Client> {
        let nested = Arc::clone(nested);
        tokio::task::spawn_blocking(move || nested.client()).await.unwrap().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_nodes_client_is_one_until_it_is_lost_and_leaves_the_mesh_alone() {
        let node = Node::start(NodeConfig::new(NodeRole::Scheduler)).await.unwrap();
        let nested =
            Arc::new(Nested::new(node.mesh().clone(), "here".to_owned(), MemoryConfig::default(), Handle::current()));
        let first = client_of(&nested).await;
        assert!(Arc::ptr_eq(&first, &client_of(&nested).await));
        first.lose("gone");
        let second = client_of(&nested).await;
        assert!(!Arc::ptr_eq(&first, &second) && second.is_usable());
        assert_ne!(first.job(), second.job());
        // Nobody but these holds the first: it is dropped here.
        drop((first, second));
        assert!(client_of(&nested).await.is_usable());
        Cluster::of(client_of(&nested).await).shutdown().await;
        let third = client_of(&nested).await;
        assert!(third.is_usable());

        node.mesh().close();
        third.lose("the node is gone");
        let nested = Arc::clone(&nested);
        let refused = tokio::task::spawn_blocking(move || nested.client().err()).await.unwrap();
        assert!(refused.is_some());
    }

    #[tokio::test]
    async fn no_address_is_no_cluster() {
        let options = ConnectOptions { insecure: true, ..ConnectOptions::default() };
        let refused = Cluster::connect_any(&[], options).await.err().unwrap();
        assert!(matches!(refused, ClusterError::NoAddress), "{refused}");
    }
}
