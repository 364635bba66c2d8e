//! How a client comes to its scheduler: over a mesh of its own, or over that of the node whose tasks it serves.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use starling_core::directory::NodeInfo;
use starling_core::ids::{JobId, NodeId, Term};
use starling_core::wire::{FromClient, ToClient};
use starling_remote::{Actors, TaskHost};
use starling_runtime::executor::{TaskContext, current_task};
use starling_runtime::mesh::{Link, LinkSender, Mesh, MeshError, MeshEvent, Multiaddr};
use starling_runtime::slots::Slots;
use starling_runtime::store::MemoryConfig;
use starling_runtime::task::ClientError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, Connection};
use crate::cluster::{Cluster, ClusterError};
use crate::coordination::Way;
use crate::directory_link::DirectoryLink;
use crate::leaders::Leaders;
use crate::link::{Hello, MessageReceiver, Refusal, Welcome, frame_with};
use crate::node::{Node, remote_actors};

/// How long the scheduler may take to open a job.
const JOB_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client looks for the scheduler of a mesh that it has joined before it says that there is none.
const SCHEDULER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it takes until a scheduler that was lost is looked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long one is looked for, unless something else is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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
    leaders: Leaders,
    actors: Actors,
    name: String,
    /// Where the links are served.
    runtime: Handle,
    memory: MemoryConfig,
    client: Mutex<Option<Arc<Client>>>,
    /// What the node's tasks share.
    slots: Slots,
}

impl Nested {
    pub(crate) fn new(
        mesh: Mesh,
        leaders: Leaders,
        actors: Actors,
        name: String,
        memory: MemoryConfig,
        runtime: Handle,
    ) -> Nested {
        Nested { mesh, leaders, actors, name, runtime, memory, client: Mutex::default(), slots: Slots::default() }
    }

    /// The client. Blocks while it connects, and so is only for the executor's threads.
    pub(crate) fn client(&self) -> Result<Arc<Client>, ClusterError> {
        let mut connected = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = connected.as_ref().filter(|client| client.is_usable()) {
            return Ok(Arc::clone(client));
        }
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (mesh, leaders, name) = (self.mesh.clone(), self.leaders.clone(), self.label());
        let actors = self.actors.clone();
        self.runtime.spawn(async move {
            // Whoever asked waits for it.
            let _ = tell.send(open(&mesh, &leaders, &actors, MeshHold::Nodes, String::new(), name, PATIENCE).await);
        });
        let client = told.recv().map_err(|_| ClusterError::Mesh(MeshError::Closed))??;
        *connected = Some(Arc::clone(&client));
        Ok(client)
    }
}

impl Nested {
    /// A handle on the client, for what is no task.
    pub(crate) async fn cluster(self: &Arc<Nested>) -> Result<Cluster, ClusterError> {
        let nested = Arc::clone(self);
        let connecting = self.runtime.spawn_blocking(move || nested.client());
        let client = connecting.await.unwrap_or(Err(ClusterError::Mesh(MeshError::Closed)))?;
        Ok(Cluster::of_node(client, self.label()))
    }

    pub(crate) fn actors(&self) -> &Actors {
        &self.actors
    }

    /// What the client is called, for people.
    pub(crate) fn label(&self) -> String {
        format!("tasks on {}", self.name)
    }

    /// The node's name, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
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
        let host = context.extension?.downcast::<TaskHost>().ok()?;
        Arc::clone(&host.owner).downcast().ok().map(CurrentNode)
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
    patience: Duration,
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
    let (leaders, actors) = (Leaders::new(), remote_actors(mesh)?);
    let info = NodeInfo { name: name.clone(), ..NodeInfo::default() };
    actors.set_directory(Arc::new(DirectoryLink::new(mesh, &leaders, info, Weak::new())));
    open(mesh, &leaders, &actors, hold, at, name, patience).await
}

/// Opens a job at the scheduler of a mesh that was joined at `at`.
async fn open(
    mesh: &Mesh,
    leaders: &Leaders,
    actors: &Actors,
    hold: MeshHold,
    at: String,
    name: String,
    patience: Duration,
) -> Result<Arc<Client>, ClusterError> {
    let hello = Hello::Client { name: name.clone() };
    let opening = leaders.open(mesh, &hello, SCHEDULER_TIMEOUT).await?;
    let (connected, kinds) = match opening {
        Some((link, Welcome::Client { kinds, term, .. })) => (Connected::new(link, term), kinds),
        Some((_, Welcome::Refused(refusal))) => return Err(refusal.into()),
        Some((_, Welcome::Worker { .. } | Welcome::Session { .. } | Welcome::Directory { .. })) => {
            return Err(Refusal::BadHello.into());
        }
        None => return Err(ClusterError::NoScheduler(at)),
    };
    let lost = |reason: String| ClientError::SchedulerLost(reason);
    let mut connected = connected;
    let open = FromClient::OpenJob { name: name.clone(), token: 0 };
    let (job, early) = connected.open_job(&open).await.map_err(lost)?;

    let kinds = kinds.into_iter().map(|kind| kind.kind).collect();
    let client = Client::new(job, mesh.clone(), actors.clone(), kinds, matches!(hold, MeshHold::Own { .. }));
    client.handle(early);
    let line =
        Line { client: Arc::downgrade(&client), mesh: mesh.clone(), leaders: leaders.clone(), job, name, patience };
    let mut tasks = vec![tokio::spawn(line.keep(connected))];
    let nodes = match hold {
        MeshHold::Own { events, nodes } => {
            tasks.push(tokio::spawn(listen(mesh.clone(), events, leaders.clone())));
            nodes
        }
        MeshHold::Nodes => Vec::new(),
    };
    let way = Way { mesh: mesh.clone(), leaders: leaders.clone(), patience, runtime: Handle::current() };
    client.keep(Connection { tasks, nodes, way });
    Ok(client)
}

/// A link to the scheduler.
struct Connected {
    peer: NodeId,
    term: Term,
    tx: LinkSender,
    messages: MessageReceiver<ToClient>,
}

impl Connected {
    fn new(link: Link, term: Term) -> Connected {
        Connected { peer: link.peer, term, tx: link.tx, messages: MessageReceiver::new(link.rx, term) }
    }

    async fn send(&self, message: &FromClient) -> Result<(), String> {
        let frame = frame_with(self.term, message).map_err(|error| error.to_string())?;
        self.tx.send(frame).await.map_err(|error| error.to_string())
    }

    /// Opens or resumes a job: its id, and what was said about workers before.
    async fn open_job(&mut self, message: &FromClient) -> Result<(JobId, Vec<ToClient>), String> {
        self.send(message).await?;
        let opened = timeout(JOB_TIMEOUT, job_opened(&mut self.messages, self.peer)).await.ok().flatten();
        opened.ok_or_else(|| "it did not open a job".to_owned())
    }
}

/// A client's way to the scheduler, whoever holds it.
struct Line {
    client: Weak<Client>,
    mesh: Mesh,
    leaders: Leaders,
    job: JobId,
    name: String,
    /// How long a scheduler is looked for when one is lost.
    patience: Duration,
}

impl Line {
    /// Serves one link after the other, until the client is gone or no scheduler is found any more.
    async fn keep(self, mut connected: Connected) {
        loop {
            let Some(reason) = self.serve(connected).await else { return };
            tracing::warn!(reason, "the link to the scheduler is lost; looking for one");
            connected = match self.connect_again().await {
                Ok(Some(connected)) => connected,
                Ok(None) => return,
                Err(why) => {
                    if let Some(client) = self.client.upgrade() {
                        client.lose(&format!("{reason}, and {why}"));
                    }
                    return;
                }
            };
            tracing::info!(scheduler = %connected.peer, term = connected.term.number(), "the job goes on");
        }
    }

    /// Both directions of a link to its end; gives the reason, or `None` if the client is gone.
    async fn serve(&self, connected: Connected) -> Option<String> {
        let Connected { peer, term, tx, mut messages } = connected;
        let closing = tx.clone();
        let sending = tokio::spawn(Client::send_queued(Weak::clone(&self.client), tx, term));
        let reading = async {
            loop {
                match messages.recv(peer).await {
                    Ok(Some(messages)) => self.client.upgrade()?.handle(messages),
                    Ok(None) => break Some("its link is closed".to_owned()),
                    Err(error) => break Some(error.to_string()),
                }
            }
        };
        let reason = tokio::select! {
            reason = reading => reason,
            () = self.leaders.later_than(term) => Some("another scheduler has taken over".to_owned()),
        };
        // With the receiver the link closes; what was taken from the queue is accounted for before the next one is opened.
        drop(messages);
        closing.closed().await;
        drop(closing);
        let _ = sending.await;
        let client = self.client.upgrade()?;
        if client.is_lost() { None } else { reason }
    }

    /// Resumes the job at whoever holds the scheduler now; `None` if the client is gone.
    async fn connect_again(&self) -> Result<Option<Connected>, String> {
        let deadline = Instant::now() + self.patience;
        let mut why = "the mesh has no other".to_owned();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let hello = Hello::Client { name: self.name.clone() };
            let answered = self.leaders.open(&self.mesh, &hello, left.min(Duration::from_secs(1))).await;
            if self.client.strong_count() == 0 {
                return Ok(None);
            }
            match answered {
                Ok(Some((link, Welcome::Client { term, .. }))) => match self.resume(Connected::new(link, term)).await {
                    Ok(connected) => return Ok(connected),
                    Err(error) => why = error,
                },
                Ok(Some((_, Welcome::Refused(refusal)))) => why = refusal.to_string(),
                Ok(Some((_, Welcome::Worker { .. } | Welcome::Session { .. } | Welcome::Directory { .. }))) => {
                    why = Refusal::BadHello.to_string();
                }
                Ok(None) => {}
                Err(error) => why = error.to_string(),
            }
            if self.mesh.is_closed() {
                return Err(MeshError::Closed.to_string());
            }
            if self.leaders.have_left(&self.mesh) {
                return Err("the cluster was shut down".to_owned());
            }
            if Instant::now() >= deadline {
                return Err(why);
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn resume(&self, mut connected: Connected) -> Result<Option<Connected>, String> {
        let resume = FromClient::Resume { token: 0, job: self.job, name: self.name.clone() };
        let (_, early) = connected.open_job(&resume).await?;
        let Some(client) = self.client.upgrade() else { return Ok(None) };
        for message in client.resume(early) {
            connected.send(&message).await?;
        }
        Ok(Some(connected))
    }
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

/// A client serves nobody: links to it are closed, and the scheduler tells it of workers. It hears who leads.
async fn listen(mesh: Mesh, mut events: mpsc::Receiver<MeshEvent>, leaders: Leaders) {
    while let Some(event) = events.recv().await {
        match event {
            MeshEvent::Link { link, hello } => {
                if let Ok(Hello::Leads { term }) = postcard::from_bytes(&hello) {
                    leaders.hear_from(&mesh, term, link.peer);
                }
            }
            MeshEvent::MemberUp(member) => leaders.is_up(&member),
            MeshEvent::MemberDown { node, reason } => leaders.is_down(node, reason),
            MeshEvent::Refused { .. } => {}
        }
    }
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
        let nested = Arc::new(Nested::new(
            node.mesh().clone(),
            Leaders::new(),
            node.actors().clone(),
            "here".to_owned(),
            MemoryConfig::default(),
            Handle::current(),
        ));
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
