//! One node of a cluster: the mesh, the actors, and what connects them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use starling_core::ids::{JobId, NodeId, TaskId, Term};
use starling_core::record::Header;
use starling_core::scheduler;
use starling_core::spec::Resources;
use starling_core::wire::WorkerInfo;
use starling_core::worker::{self, Worker};
use starling_runtime::executor::Executor;
use starling_runtime::inbox::Inbox;
use starling_runtime::memory;
use starling_runtime::mesh::{
    Link, Member, MemberInfo, Mesh, MeshConfig, MeshError, MeshEvent, MeshLimits, Multiaddr, Role,
};
use starling_runtime::recorder::{RecordError, Recording};
use starling_runtime::secret::ClusterSecret;
use starling_runtime::store::{MemoryConfig, Store, StoreStartError};
use starling_runtime::task::Tasks;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connect::Nested;
use crate::host::ActorHost;
use crate::link::{Hello, MessageReceiver, Outbox, Refusal, Welcome, compare_kinds, encode_one};
use crate::registry_actor::{self, LocationView, RegistryActor};
use crate::scheduler_actor::{self, SchedulerActor};
use crate::served::ServedStore;
use crate::worker_actor::{self, WorkerActor};

/// How many inputs wait for an actor before its peers' streams stand still.
const INBOX_FULL: usize = 4096;
/// How many threads a worker may have.
const NTHREADS_MAX: u32 = 4096;
/// There is one scheduler, which stays in its first term until there are elections.
const TERM: Term = Term(1);
/// How long a peer may take to answer a hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a worker looks for the scheduler of a mesh that it has joined before it says that there is none.
const SCHEDULER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many bytes are fetched from one worker at once, unless one output is larger.
const FETCH_BYTES_MAX: u64 = 64 << 20;
/// How many tasks a scheduler knows at a time: 6 GB of records.
const TASKS_MAX: u64 = 20_000_000;
/// The longest saturation, in microseconds: a minute.
const SATURATION_US_MAX: u64 = 60_000_000;

/// How much work each of a worker's threads has in hand, in microseconds: a few wake-ups' worth.
const RUN_AHEAD_US: u64 = 500;

/// What a node does for the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// It holds the scheduler.
    Scheduler,
    /// It runs tasks.
    Worker,
}

/// How a node is to be started.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// A name for people.
    pub name: String,
    /// What it does for the cluster.
    pub role: NodeRole,
    /// Where it listens; empty to only dial out.
    pub listen: Vec<Multiaddr>,
    /// Nodes of the mesh to join; the first that answers is taken. Empty only for the first node of a mesh.
    pub join: Vec<Multiaddr>,
    /// The cluster's secret; `None` lets anybody in who can reach the port.
    pub secret: Option<ClusterSecret>,
    /// How many tasks a worker runs at once, at least 1.
    pub nthreads: u32,
    /// How many bytes of outputs a worker holds in memory, and what it does as it comes near that.
    pub memory: MemoryConfig,
    /// A worker's abstract resources, which tasks may ask for.
    pub resources: Resources,
    /// How many workers a scheduler may lose while they run a task before it gives the task up.
    pub allowed_failures: u32,
    /// How much work a scheduler gives each of a worker's threads in advance. More hides longer round trips, less leaves
    /// more to be decided late.
    pub saturation: Duration,
    /// How many tasks a scheduler knows at a time before further submissions wait; 0 for no limit. Each takes about 300 bytes.
    pub tasks_max: u64,
    /// The record that a scheduler keeps, if it keeps one.
    pub record: Option<RecordConfig>,
}

/// Where a scheduler keeps a record of what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordConfig {
    /// The file.
    pub path: PathBuf,
    /// How many bytes it may take; with them the recording ends, since a replay needs its beginning.
    pub limit_bytes: u64,
}

impl RecordConfig {
    /// How many bytes a record may take if nothing else is said.
    pub const LIMIT_BYTES_DEFAULT: u64 = 1 << 30;
    /// A record that may take less would hold next to nothing.
    pub const LIMIT_BYTES_MIN: u64 = 1 << 20;
}

impl NodeConfig {
    /// A node of this role that listens nowhere, joins nobody, and has a thread for each core.
    pub fn new(role: NodeRole) -> NodeConfig {
        let nthreads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        let name = format!("{role:?}-{}", std::process::id()).to_lowercase();
        NodeConfig {
            name,
            role,
            listen: Vec::new(),
            join: Vec::new(),
            secret: None,
            nthreads,
            memory: MemoryConfig::default(),
            resources: Resources::new(),
            allowed_failures: 3,
            saturation: Duration::from_millis(10),
            tasks_max: TASKS_MAX,
            record: None,
        }
    }
}

/// Why a node could not be started. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The mesh could not be started or joined.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The scheduler's events cannot be recorded as asked.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The mesh has no scheduler.
    #[error("joined the mesh at {0}, but it has no scheduler: start one with `node --role scheduler`")]
    NoScheduler(Multiaddr),
    /// The mesh has a scheduler already.
    #[error("the mesh has a scheduler already, node {0}: join it as a worker, without --role scheduler")]
    AnotherScheduler(NodeId),
    /// A worker was told no node to join.
    #[error("a worker needs a node to join: give --join ADDRESS, such as --join 10.12.0.10:8786")]
    NoJoin,
    /// The scheduler refused the worker.
    #[error("the scheduler refused this node: {0}")]
    Refused(#[from] Refusal),
    /// The worker's memory options cannot be used.
    #[error(transparent)]
    Store(#[from] StoreStartError),
}

/// Why a node has stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was asked to.
    #[error("the node was shut down")]
    Shutdown,
    /// The scheduler let this worker go: what only it held is elsewhere.
    #[error("the scheduler let this worker go")]
    Retired,
    /// The scheduler came back with other tasks.
    #[error("the scheduler refused this node: {0}")]
    Refused(Refusal),
    /// One of its actors died by a fault of Starling's.
    #[error("the {0} actor died by an internal fault; please report it with the node's log")]
    Fault(&'static str),
}

/// A running node. Dropping it stops it at once; [`Node::shutdown`] takes leave of the others first.
pub struct Node {
    mesh: Mesh,
    store: Arc<Store>,
    locations: LocationView,
    /// Keeps the actors' system alive.
    _host: ActorHost,
    /// A scheduler's; ends with the node.
    _recording: Option<Recording>,
    stopped: watch::Receiver<Option<Stopped>>,
    tasks: Vec<JoinHandle<()>>,
    /// Keeps a worker registered.
    registering: Option<JoinHandle<()>>,
    /// A worker's way to its leave.
    leaving: Option<Leaving>,
}

/// What a worker needs in order to leave by itself.
struct Leaving {
    inbox: Inbox<worker_actor::Input>,
    /// Whether there is a scheduler to ask.
    is_registered: watch::Receiver<bool>,
}

impl Node {
    /// Starts a node on the current tokio runtime. A scheduler is ready on return, a worker is registered.
    pub async fn start(config: NodeConfig) -> Result<Node, NodeError> {
        if config.role == NodeRole::Worker && config.join.is_empty() {
            return Err(NodeError::NoJoin);
        }
        let store = match config.role {
            NodeRole::Worker => Store::start(&config.memory)?,
            NodeRole::Scheduler => Store::unlimited(),
        };
        let role = match config.role {
            NodeRole::Scheduler => Role::Scheduler,
            NodeRole::Worker => Role::Worker,
        };
        let mesh_config = MeshConfig {
            keypair: None,
            listen: config.listen.clone(),
            secret: config.secret.clone(),
            member: MemberInfo { name: config.name.clone(), role },
            limits: MeshLimits::default(),
        };
        let served = ServedStore::new(store.clone());
        let (mesh, events) = Mesh::start(mesh_config, served.clone()).await?;
        let started = Node::start_on(config, mesh.clone(), events, store, &served).await;
        if started.is_err() {
            mesh.shutdown().await;
        }
        started
    }

    async fn start_on(
        config: NodeConfig,
        mesh: Mesh,
        events: mpsc::Receiver<MeshEvent>,
        store: Arc<Store>,
        served: &ServedStore,
    ) -> Result<Node, NodeError> {
        let joined = join_any(&mesh, &config.join).await?;
        let other_scheduler = |member: &Member| member.info.role == Role::Scheduler && member.node != mesh.node();
        if config.role == NodeRole::Scheduler
            && let Some(other) = mesh.members().into_iter().find(other_scheduler)
        {
            return Err(NodeError::AnotherScheduler(other.node));
        }
        let host = ActorHost::start()?;
        let locations = LocationView::default();
        let registry = {
            let (mesh, view) = (mesh.clone(), locations.clone());
            let runtime = tokio::runtime::Handle::current();
            host.spawn("registry", INBOX_FULL, move |inbox| RegistryActor::new(mesh, view, inbox, runtime))?
        };
        let (stop, stopped) = watch::channel(None);
        let mut tasks = Vec::new();
        let mut registering = None;
        let mut leaving = None;
        let mut recording = None;
        match config.role {
            NodeRole::Scheduler => {
                let inbox;
                (inbox, recording) = spawn_scheduler(&host, &config)?;
                tasks.push(tokio::spawn(watch_mesh(events, Some(inbox), registry)));
            }
            NodeRole::Worker => {
                tasks.push(tokio::spawn(watch_mesh(events, None, registry.clone())));
                let leave: Arc<Notify> = Arc::default();
                let inbox = spawn_worker(&host, &config, &mesh, &store, registry, leave.clone())?;
                served.tell(inbox.clone());
                let (registered, is_registered) = watch::channel(false);
                leaving = Some(Leaving { inbox: inbox.clone(), is_registered });
                tasks.push(tokio::spawn(memory::watch(store.clone(), config.memory.counts_process, {
                    let inbox = inbox.clone();
                    move |status| inbox.push(worker_actor::Input::Event(worker::Event::Status(status)))
                })));
                let worker = WorkerLoop {
                    inbox,
                    registered,
                    leave,
                    info: WorkerInfo {
                        node: mesh.node(),
                        name: config.name.clone(),
                        nthreads: config.nthreads.clamp(1, NTHREADS_MAX),
                        memory_limit: config.memory.limit,
                        host: host_name(),
                        resources: config.resources.clone(),
                    },
                    mesh: mesh.clone(),
                    join: config.join.clone(),
                };
                let link = match worker.register().await? {
                    Some(link) => link,
                    // `joined` is there: a worker has somebody to join.
                    None => return Err(joined.map_or(NodeError::NoJoin, NodeError::NoScheduler)),
                };
                registering = Some(tokio::spawn(worker.run(link, stop.clone())));
            }
        }
        tasks.push(tokio::spawn(watch_faults(host.fault(), stop, mesh.clone())));
        Ok(Node { mesh, store, locations, _host: host, _recording: recording, stopped, tasks, registering, leaving })
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.mesh.node()
    }

    /// Where it listens, with the actual ports.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.mesh.listen_addrs()
    }

    /// Its part of the mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The values that it holds.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who holds the output of `task`, with its size in bytes, as far as this node has heard: a hint. Outputs of up to
    /// [`INLINE_RESULT_BYTES_MAX`](starling_core::wire::INLINE_RESULT_BYTES_MAX) bytes are not told around; the client's
    /// `who_has` asks the scheduler, which knows all of them.
    pub fn who_has(&self, task: TaskId) -> Vec<(NodeId, u64)> {
        self.locations.who_has(task)
    }

    /// Waits until the node has stopped by itself.
    pub async fn stopped(&self) -> Stopped {
        let mut stopped = self.stopped.clone();
        let reason = stopped.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or(Stopped::Shutdown)
    }

    /// Asks the scheduler to let this worker go, and waits until it has: its tasks are finished, what only it holds is
    /// moved to others, and then it stops by itself, as [`stopped`](Node::stopped) tells. Says whether that came about. Gives up
    /// after `patience`, or when the scheduler is lost; a scheduler is not let go by anybody.
    pub async fn retire(&self, patience: Duration) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let mut is_registered = leaving.is_registered.clone();
        let mut stopped = self.stopped.clone();
        leaving.inbox.push(worker_actor::Input::Event(worker::Event::LeaveWanted));
        let let_go = async {
            tokio::select! {
                // A worker that was let go is registered no longer, and both are told at about the same time.
                biased;
                reason = stopped.wait_for(Option::is_some) => {
                    matches!(reason.as_deref(), Ok(Some(Stopped::Retired)))
                }
                _ = is_registered.wait_for(|is_registered| !is_registered) => false,
            }
        };
        timeout(patience, let_go).await.unwrap_or(false)
    }

    /// Takes leave of the other nodes and stops.
    pub async fn shutdown(self) {
        self.leave().await;
    }

    pub(crate) async fn leave(&self) {
        if let Some(registering) = &self.registering {
            registering.abort();
        }
        self.mesh.shutdown().await;
        // Much may be on disk. Fails only if the runtime ends first; then dropping the node does it.
        let store = Arc::clone(&self.store);
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in self.tasks.iter().chain(&self.registering) {
            task.abort();
        }
        // Handles of these may be held elsewhere.
        self.mesh.close();
        self.store.close();
    }
}

/// The name of this machine, which tasks may be restricted to; empty where it cannot be known.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Joins the first address that answers. The error is the first address's, which is the one a person would look at.
async fn join_any(mesh: &Mesh, addrs: &[Multiaddr]) -> Result<Option<Multiaddr>, MeshError> {
    let mut first_error = None;
    for addr in addrs {
        match mesh.join(addr).await {
            Ok(node) => {
                tracing::info!(%addr, %node, "joined the mesh");
                return Ok(Some(addr.clone()));
            }
            Err(error) => {
                tracing::warn!(%addr, %error, "could not join");
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(None), Err)
}

fn spawn_scheduler(
    host: &ActorHost,
    config: &NodeConfig,
) -> Result<(Inbox<scheduler_actor::Input>, Option<Recording>), NodeError> {
    let header = Header {
        config: scheduler::Config {
            kinds: Tasks::linked().infos(),
            allowed_failures: config.allowed_failures,
            saturation_us: u64::try_from(config.saturation.as_micros()).unwrap_or(u64::MAX).clamp(1, SATURATION_US_MAX),
            tasks_max: config.tasks_max,
            ..scheduler::Config::default()
        },
        term: TERM,
        first_job: JobId(rand::random()),
        has_ledger: false,
        started_unix_ms: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |time| time.as_millis() as u64),
    };
    let machine = header.scheduler();
    let record = config.record.as_ref();
    let recording = record.map(|record| Recording::start(&record.path, &header, record.limit_bytes)).transpose()?;
    let recorder = recording.as_ref().map(Recording::recorder);
    let inbox = host.spawn("scheduler", INBOX_FULL, move |_| SchedulerActor::new(machine, recorder))?;
    Ok((inbox, recording))
}

fn spawn_worker(
    host: &ActorHost,
    config: &NodeConfig,
    mesh: &Mesh,
    store: &Arc<Store>,
    registry: Inbox<registry_actor::Input>,
    leave: Arc<Notify>,
) -> Result<Inbox<worker_actor::Input>, NodeError> {
    let nthreads = config.nthreads.clamp(1, NTHREADS_MAX);
    // What is fetched at once may wait in memory for room in the store: a small part of it.
    let fetch_bytes_max = match config.memory.limit {
        0 => FETCH_BYTES_MAX,
        limit => (limit / 16).clamp(1 << 20, FETCH_BYTES_MAX),
    };
    let machine_config = worker::Config {
        node: mesh.node(),
        nthreads,
        fetches_max: 8,
        fetch_bytes_max,
        resources: config.resources.clone(),
    };
    let machine = Worker::new(machine_config).run_ahead(RUN_AHEAD_US);
    let runtime = tokio::runtime::Handle::current();
    // The executor's threads tell the inbox, which is there only once the actor is.
    let inbox_slot: Arc<std::sync::OnceLock<Inbox<worker_actor::Input>>> = Arc::default();
    let nested: Arc<dyn std::any::Any + Send + Sync> =
        Arc::new(Nested::new(mesh.clone(), config.name.clone(), config.memory.clone(), runtime.clone()));
    let executor = Executor::start(nthreads, store.clone(), runtime.clone(), Some(nested), {
        let inbox_slot = Arc::clone(&inbox_slot);
        move |event| {
            if let Some(inbox) = inbox_slot.get() {
                inbox.push(worker_actor::Input::Event(event));
            }
        }
    })?;
    let (mesh, store) = (mesh.clone(), store.clone());
    let inbox = host.spawn("worker", INBOX_FULL, move |inbox| {
        WorkerActor::new(machine, inbox, registry, executor, store, mesh, runtime).told_to_leave(leave)
    })?;
    // Set before any task can be assigned, since registration follows.
    let _ = inbox_slot.set(inbox.clone());
    Ok(inbox)
}

/// An actor that has died takes the node with it, so that peers see closed links instead of silence.
async fn watch_faults(
    mut fault: watch::Receiver<Option<&'static str>>,
    stop: watch::Sender<Option<Stopped>>,
    mesh: Mesh,
) {
    if let Ok(name) = fault.wait_for(Option::is_some).await
        && let Some(name) = *name
    {
        tracing::error!(actor = name, "an actor died by an internal fault");
        stop.send_replace(Some(Stopped::Fault(name)));
        mesh.close();
    }
}

/// Takes what the mesh tells. Links of workers and clients go to the scheduler if there is one here, and are refused if
/// not.
async fn watch_mesh(
    mut events: mpsc::Receiver<MeshEvent>,
    scheduler: Option<Inbox<scheduler_actor::Input>>,
    registry: Inbox<registry_actor::Input>,
) {
    while let Some(event) = events.recv().await {
        match event {
            MeshEvent::MemberUp(member) => {
                tracing::info!(node = %member.node, name = %member.info.name, role = ?member.info.role, "member up");
                if member.info.role != Role::Client {
                    registry.push(registry_actor::Input::NodeUp(member.node));
                }
            }
            MeshEvent::MemberDown { node, reason } => {
                tracing::info!(%node, ?reason, "member down");
                registry.push(registry_actor::Input::NodeDown(node));
                if let Some(scheduler) = &scheduler {
                    scheduler.push(scheduler_actor::Input::NodeDown { node });
                }
            }
            MeshEvent::Link { link, hello } => {
                tokio::spawn(accept(link, hello, scheduler.clone(), registry.clone()));
            }
            MeshEvent::Refused { addr, refusal } => tracing::warn!(%addr, %refusal, "a peer was not admitted"),
        }
    }
}

/// Answers the hello of a link that another node opened, and serves it to its end.
async fn accept(
    link: Link,
    hello: Bytes,
    scheduler: Option<Inbox<scheduler_actor::Input>>,
    registry: Inbox<registry_actor::Input>,
) {
    let refusal = match (postcard::from_bytes::<Hello>(&hello), scheduler) {
        (Ok(Hello::Registry), _) => return registry_actor::serve(link, registry).await,
        (Ok(Hello::Worker { info, kinds }), Some(scheduler)) => {
            if info.node != link.peer {
                Refusal::BadHello
            } else if let Err(refusal) = compare_kinds(&kinds, &Tasks::linked().infos()) {
                refusal
            } else {
                return serve_worker(link, info, scheduler).await;
            }
        }
        (Ok(Hello::Client { name }), Some(scheduler)) => return serve_client(link, name, scheduler).await,
        (Ok(_), None) => Refusal::NotScheduler,
        (Err(_), _) => Refusal::BadHello,
    };
    tracing::warn!(peer = %link.peer, %refusal, "refused a link");
    if let Ok(frame) = encode_one(&Welcome::Refused(refusal)) {
        // The peer may have gone meanwhile.
        let _ = link.tx.send(frame).await;
    }
}

async fn serve_worker(link: Link, mut info: WorkerInfo, inbox: Inbox<scheduler_actor::Input>) {
    use scheduler_actor::Input;
    info.nthreads = info.nthreads.clamp(1, NTHREADS_MAX);
    let outbox = Outbox::new();
    let (welcome, worker) = oneshot::channel();
    inbox.extend_when_free([Input::WorkerLink { info, outbox: outbox.clone(), welcome }]).await;
    let Ok(worker) = worker.await else { return };
    let Ok(frame) = encode_one(&Welcome::Worker { worker, term: TERM }) else { return };
    if link.tx.send(frame).await.is_ok() {
        outbox.start(link.tx);
        let mut messages = MessageReceiver::new(link.rx);
        while let Some(messages) = next_messages(&mut messages, link.peer).await {
            inbox.extend_when_free([Input::FromWorker { worker, messages }]).await;
        }
    }
    inbox.push(Input::WorkerLinkClosed { worker });
}

async fn serve_client(link: Link, name: String, inbox: Inbox<scheduler_actor::Input>) {
    use scheduler_actor::Input;
    let outbox = Outbox::new();
    let (welcome, client) = oneshot::channel();
    inbox.extend_when_free([Input::ClientLink { outbox: outbox.clone(), welcome }]).await;
    let Ok(client) = client.await else { return };
    tracing::info!(client = client.0, peer = %link.peer, name, "client connected");
    let kinds = Tasks::linked().infos();
    let Ok(frame) = encode_one(&Welcome::Client { client, term: TERM, kinds }) else { return };
    if link.tx.send(frame).await.is_ok() {
        outbox.start(link.tx);
        let mut messages = MessageReceiver::new(link.rx);
        while let Some(messages) = next_messages(&mut messages, link.peer).await {
            inbox.extend_when_free([Input::FromClient { client, messages }]).await;
        }
    }
    inbox.push(Input::ClientLinkClosed { client });
}

/// The next messages; `None` when the link is closed, or carries what is no message.
async fn next_messages<M: serde::de::DeserializeOwned>(
    messages: &mut MessageReceiver<M>,
    peer: NodeId,
) -> Option<Vec<M>> {
    match messages.recv(peer).await {
        Ok(messages) => messages,
        Err(error) => {
            tracing::warn!(%error, "a link is closed");
            None
        }
    }
}

/// Keeps a worker registered at the mesh's scheduler.
struct WorkerLoop {
    inbox: Inbox<worker_actor::Input>,
    info: WorkerInfo,
    mesh: Mesh,
    join: Vec<Multiaddr>,
    registered: watch::Sender<bool>,
    /// Told when the scheduler has let the worker go.
    leave: Arc<Notify>,
}

impl WorkerLoop {
    /// Registers at the scheduler; `None` if the mesh shows none in time.
    async fn register(&self) -> Result<Option<Link>, NodeError> {
        let hello = Hello::Worker { info: self.info.clone(), kinds: Tasks::linked().infos() };
        match open_to_scheduler(&self.mesh, &hello).await? {
            Some((link, Welcome::Worker { worker, .. })) => {
                tracing::info!(worker = worker.0, scheduler = %link.peer, "registered at the scheduler");
                Ok(Some(link))
            }
            Some((_, Welcome::Refused(refusal))) => Err(NodeError::Refused(refusal)),
            Some((_, Welcome::Client { .. })) => Err(NodeError::Refused(Refusal::BadHello)),
            None => Ok(None),
        }
    }

    /// Until the scheduler lets the worker go, or refuses it.
    async fn run(self, link: Link, stop: watch::Sender<Option<Stopped>>) {
        let reason = tokio::select! {
            refusal = self.stay_registered(link) => Stopped::Refused(refusal),
            () = self.leave.notified() => {
                tracing::info!("the scheduler has let this worker go");
                self.mesh.shutdown().await;
                Stopped::Retired
            }
        };
        stop.send_replace(Some(reason));
    }

    async fn stay_registered(&self, link: Link) -> Refusal {
        self.serve(link).await;
        let mut pause = Duration::from_millis(50);
        loop {
            match self.register().await {
                Ok(Some(link)) => {
                    pause = Duration::from_millis(50);
                    self.serve(link).await;
                }
                Err(NodeError::Refused(refusal @ Refusal::TasksDiffer { .. })) => return refusal,
                Ok(None) => tracing::warn!("the mesh has no scheduler; looking again"),
                Err(error) => tracing::warn!(%error, "could not register; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
            if let Err(error) = join_any(&self.mesh, &self.join).await {
                tracing::debug!(%error, "could not join again");
            }
        }
    }

    /// Reads the scheduler's link to its end.
    async fn serve(&self, link: Link) {
        use worker_actor::Input;
        let outbox = Outbox::new();
        outbox.start(link.tx);
        self.inbox.extend_when_free([Input::Registered { outbox: outbox.clone() }]).await;
        self.registered.send_replace(true);
        let mut messages = MessageReceiver::new(link.rx);
        while let Some(messages) = next_messages(&mut messages, link.peer).await {
            self.inbox.extend_when_free([Input::FromScheduler(messages)]).await;
        }
        tracing::warn!("the link to the scheduler is closed");
        outbox.close();
        self.registered.send_replace(false);
        self.inbox.push(Input::SchedulerLost);
    }
}

/// Opens a link to the mesh's scheduler and gives its answer; `None` if the mesh shows no scheduler in time.
pub(crate) async fn open_to_scheduler(mesh: &Mesh, hello: &Hello) -> Result<Option<(Link, Welcome)>, MeshError> {
    let Some(scheduler) = find_scheduler(mesh).await else { return Ok(None) };
    let hello = encode_one(hello).map_err(|error| MeshError::Protocol { node: scheduler, why: error.to_string() })?;
    let mut link = mesh.open_link(scheduler, hello).await?;
    let answer = timeout(HELLO_TIMEOUT, link.rx.recv()).await.ok().flatten();
    let welcome = answer.and_then(|frame| postcard::from_bytes::<Welcome>(&frame).ok());
    match welcome {
        Some(welcome) => Ok(Some((link, welcome))),
        None => Err(MeshError::Protocol { node: scheduler, why: "it did not answer a hello".to_owned() }),
    }
}

/// The scheduler's node, once gossip has told of it.
async fn find_scheduler(mesh: &Mesh) -> Option<NodeId> {
    let deadline = tokio::time::Instant::now() + SCHEDULER_TIMEOUT;
    loop {
        let schedulers = mesh.members().into_iter().filter(|member| member.info.role == Role::Scheduler);
        // One that was restarted may for a moment be known beside what it was.
        if let Some(member) = schedulers.max_by_key(|member| member.incarnation) {
            return Some(member.node);
        }
        if tokio::time::Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
