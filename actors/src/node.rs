//! One node of a cluster: the mesh, the actors, and what connects them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context};
use starling_core::directory::NodeInfo;
use starling_core::ids::{NodeId, TaskId};
use starling_core::scheduler;
use starling_core::spec::Resources;
use starling_core::wire::WorkerInfo;
use starling_core::worker::{self, Worker};
use starling_quorum::QuorumError;
use starling_remote::{Actors, RegisterError, RemoteAddr, RemoteError, TaskHost};
use starling_runtime::executor::Executor;
use starling_runtime::inbox::Inbox;
use starling_runtime::memory;
use starling_runtime::mesh::{Member, MemberInfo, Mesh, MeshConfig, MeshError, MeshEvent, MeshLimits, Multiaddr, Role};
use starling_runtime::recorder::{self, RecordError};
use starling_runtime::secret::ClusterSecret;
use starling_runtime::store::{MemoryConfig, Store, StoreStartError};
use starling_runtime::task::Tasks;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cluster::{Cluster, ClusterError};
use crate::connect::Nested;
use crate::coordination::CoordinationActor;
use crate::data_dir::{self, Claimed, DataDir, DataError};
use crate::desk::{Desk, Seat};
use crate::directory_actor::DirectoryActor;
use crate::directory_link::DirectoryLink;
use crate::host::ActorHost;
use crate::leaders::Leaders;
use crate::link::{Hello, Refusal, encode_one};
use crate::office::{Candidacy, Office};
use crate::registry_actor::{self, LocationView, RegistryActor};
use crate::scheduler_actor::SchedulerActor;
use crate::served::ServedStore;
use crate::spawning::{ActorDef, Spawner};
use crate::status::NodeStatus;
use crate::worker_actor::{self, WorkerActor};
use crate::worker_loop::WorkerLoop;

/// How many inputs wait for an actor before its peers' streams stand still.
const INBOX_FULL: usize = 4096;
/// How many threads a worker may have.
pub(crate) const NTHREADS_MAX: u32 = 4096;
/// How long a worker looks for the scheduler of a mesh that it has joined before it says that there is none.
const SCHEDULER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a worker that wants to leave waits for a scheduler to come back.
const LEAVE_WITHOUT_SCHEDULER: Duration = Duration::from_secs(10);
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
    /// It holds the scheduler, before any other that could.
    Scheduler,
    /// It runs tasks, and holds the scheduler if it is elected to.
    Auto,
    /// It runs tasks. It holds the scheduler if it is elected to, unless it joins a mesh where a node is there for that.
    Joining,
    /// It runs tasks.
    Worker,
    /// It hosts actors, runs no tasks and never holds the scheduler. It needs no scheduler in its mesh, and can be the first of one.
    Service,
}

impl NodeRole {
    /// Whether a node of this role may hold the scheduler.
    pub fn may_lead(self) -> bool {
        !matches!(self, NodeRole::Worker | NodeRole::Service)
    }

    /// Whether a node of this role runs tasks.
    pub fn runs_tasks(self) -> bool {
        !matches!(self, NodeRole::Scheduler | NodeRole::Service)
    }
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
    /// Where a node that may hold the scheduler keeps its identity and the quorum's log; `None` to keep them in memory, so that
    /// the node is another one whenever it is started.
    pub data_dir: Option<DataDir>,
    /// How many nodes vote on who holds the scheduler, at most: 1, 3 or 5.
    pub voters: usize,
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
            data_dir: None,
            voters: 3,
        }
    }
}

/// Why a node could not be started. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The mesh could not be started or joined.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The mesh has no scheduler.
    #[error("joined the mesh at {0}, but it has no scheduler: start one with `node --role scheduler`")]
    NoScheduler(Multiaddr),
    /// The scheduler's events cannot be recorded as asked.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The node cannot take part in the quorum.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
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
    name: String,
    role: NodeRole,
    mesh: Mesh,
    store: Arc<Store>,
    locations: LocationView,
    /// Keeps remote actors.
    actors: Actors,
    /// The client of whatever runs on it.
    nested: Arc<Nested>,
    /// Keeps those that the cluster has made here.
    spawner: Arc<Spawner>,
    /// Keeps the actors' system alive.
    host: ActorHost,
    /// Its data directory, which no other node uses while this one is there.
    _claimed: Option<Claimed>,
    /// Its part in the quorum, if it may hold the scheduler.
    candidacy: Option<Candidacy>,
    leaders: Leaders,
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
    /// Starts a node on the current tokio runtime. On return a worker is registered, and the first node of a mesh holds the
    /// scheduler. Others that may hold it take part, and need not have found each other yet.
    pub async fn start(config: NodeConfig) -> Result<Node, NodeError> {
        if config.role == NodeRole::Worker && config.join.is_empty() {
            return Err(NodeError::NoJoin);
        }
        let store = if config.role.runs_tasks() { Store::start(&config.memory)? } else { Store::unlimited() };
        let claimed = match config.data_dir.as_ref().filter(|_| config.role.may_lead()) {
            Some(directory) => Some(data_dir::claim_soon(directory).await?),
            None => None,
        };
        let mesh_config = MeshConfig {
            keypair: claimed.as_ref().map(|claimed| claimed.keypair.clone()),
            listen: config.listen.clone(),
            secret: config.secret.clone(),
            member: member_info(&config),
            limits: MeshLimits::default(),
        };
        let served = ServedStore::new(store.clone());
        let (mesh, events) = Mesh::start(mesh_config, served.clone()).await?;
        let started = Node::start_on(config, mesh.clone(), events, store, &served, claimed).await;
        if started.is_err() {
            mesh.shutdown().await;
        }
        started
    }

    async fn start_on(
        mut config: NodeConfig,
        mesh: Mesh,
        events: mpsc::Receiver<MeshEvent>,
        store: Arc<Store>,
        served: &ServedStore,
        claimed: Option<Claimed>,
    ) -> Result<Node, NodeError> {
        let host = ActorHost::start()?;
        let locations = LocationView::default();
        let registry = {
            let (mesh, view) = (mesh.clone(), locations.clone());
            let runtime = tokio::runtime::Handle::current();
            host.spawn("registry", INBOX_FULL, move |inbox| RegistryActor::new(mesh, view, inbox, runtime))?
        };
        let leaders = Leaders::new();
        let actors = remote_actors(&mesh)?;
        let mut joined = None;
        if config.role == NodeRole::Joining {
            joined = join_any(&mesh, &config.join).await?;
            let others = mesh.members();
            let is_pinned = others.iter().any(|member| member.info.role == Role::Scheduler);
            config.role = if is_pinned { NodeRole::Worker } else { NodeRole::Auto };
            mesh.introduce(member_info(&config)).await?;
        }
        let (stop, stopped) = watch::channel(None);
        let mut tasks = Vec::new();
        let candidacy = if config.role.may_lead() {
            let (info, addrs) = (member_info(&config), mesh.listen_addrs());
            let own = Member { node: mesh.node(), info, addrs, incarnation: 0 };
            let data = claimed.as_ref().map(|claimed| claimed.path.as_path());
            Some(Candidacy::start(&mesh, data, config.voters, &own).await?)
        } else {
            None
        };
        let (seat, directory) = match &candidacy {
            Some(candidacy) => {
                let (office, seat) = open_office(&host, &config, &mesh, &leaders, candidacy)?;
                let directory = office.directory.clone();
                tasks.push(tokio::spawn(office.run()));
                (Some(seat), Some(directory))
            }
            None => (None, None),
        };
        let nested = Arc::new(Nested::new(
            mesh.clone(),
            leaders.clone(),
            actors.clone(),
            config.name.clone(),
            config.memory.clone(),
            tokio::runtime::Handle::current(),
        ));
        let spawner = Arc::new(Spawner::new(host.arbiters(), nested.clone()));
        let directory_link = DirectoryLink::new(&mesh, &leaders, node_info(&config), Arc::downgrade(&spawner));
        actors.set_directory(Arc::new(directory_link.clone()));
        directory_link.start(&actors);
        let desk = Desk {
            mesh: mesh.clone(),
            registry: registry.clone(),
            leaders: leaders.clone(),
            candidacy: candidacy.clone(),
            seat: seat.clone(),
            directory,
            actors: actors.clone(),
            name: config.name.clone(),
        };
        // Before joining: others may ask at once.
        tasks.push(tokio::spawn(desk.watch(events)));
        tasks.push(tokio::spawn({
            let actors = actors.clone();
            async move { actors.look_after().await }
        }));
        if joined.is_none() {
            joined = match (join_any(&mesh, &config.join).await, &candidacy) {
                (Ok(joined), _) => joined,
                // It has been part of a cluster before: the others may be about to come back too.
                (Err(error), Some(candidacy)) if !candidacy.quorum.is_new() => {
                    tracing::warn!(%error, "nobody could be joined; waiting for others to come");
                    None
                }
                (Err(error), _) => return Err(error.into()),
            };
        }
        if let Some((candidacy, seat)) = candidacy.as_ref().zip(seat) {
            candidacy.take_part(config.role, joined.is_none(), &leaders, seat.term).await?;
        }
        let mut registering = None;
        let mut leaving = None;
        if config.role.runs_tasks() {
            let leave: Arc<Notify> = Arc::default();
            let inbox = spawn_worker(&host, &config, &mesh, &nested, &store, registry, leave.clone())?;
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
                leaders: leaders.clone(),
                join: config.join.clone(),
            };
            let first = worker.register(SCHEDULER_TIMEOUT).await?;
            if first.is_none() && config.role == NodeRole::Worker {
                // `joined` is there: a worker has somebody to join.
                return Err(joined.map_or(NodeError::NoJoin, NodeError::NoScheduler));
            }
            registering = Some(tokio::spawn(worker.run(first, stop.clone())));
        }
        if config.role != NodeRole::Scheduler {
            directory_link.known().await;
        }
        tasks.push(tokio::spawn(watch_faults(host.fault(), stop, mesh.clone())));
        let (name, role) = (config.name, config.role);
        Ok(Node {
            name,
            role,
            mesh,
            store,
            locations,
            actors,
            nested,
            host,
            spawner,
            _claimed: claimed,
            candidacy,
            leaders,
            stopped,
            tasks,
            registering,
            leaving,
        })
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

    /// How the cluster is, as this node sees it.
    pub fn status(&self) -> NodeStatus {
        NodeStatus::gather(&self.mesh, &self.name, &self.leaders, self.candidacy.as_ref())
    }

    /// What it does for the cluster, once it has joined.
    pub fn role(&self) -> NodeRole {
        self.role
    }

    /// A client of the cluster that this node is part of, for the program that hosts the node: it needs no mesh of its own. All calls
    /// give the same client, which tasks and actors on this node use as well.
    ///
    /// # Errors
    /// [`ClusterError::NoScheduler`] if the mesh has no scheduler; what else stands in the way of connecting.
    pub async fn cluster(&self) -> Result<Cluster, ClusterError> {
        self.nested.cluster().await
    }

    /// Remote actors, as this node sees them: `register`, `lookup`, groups.
    pub fn actors(&self) -> &Actors {
        &self.actors
    }

    /// Starts an actor on a thread of its own, an arbiter of the node's actix system, so that it may run under any runtime and a
    /// panic in it takes no other along. The thread ends with the node.
    ///
    /// # Errors
    /// The node's actix system has ended, as with the node.
    pub fn start_actor<A: Actor<Context = Context<A>>>(
        &self,
        make: impl FnOnce(&mut Context<A>) -> A + Send + 'static,
    ) -> std::io::Result<Addr<A>> {
        Ok(A::start_in_arbiter(&self.host.new_arbiter()?, make))
    }

    /// Has an actor hold a name in the whole cluster: [`Actors::register`].
    ///
    /// # Errors
    /// As there.
    pub async fn register<A: Actor<Context = Context<A>>>(
        &self,
        name: impl Into<String>,
        addr: Addr<A>,
    ) -> Result<RemoteAddr<A>, RegisterError> {
        self.actors.register(name, addr).await
    }

    /// The address of the actor that holds a name, wherever it is: [`Actors::lookup`].
    ///
    /// # Errors
    /// As there.
    pub async fn lookup<A: Actor>(&self, name: impl Into<String>) -> Result<RemoteAddr<A>, RemoteError> {
        self.actors.lookup(name).await
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
    /// after `patience`, or when no scheduler is there for a while; a scheduler is not let go by anybody.
    pub async fn retire(&self, patience: Duration) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let mut is_registered = leaving.is_registered.clone();
        let mut stopped = self.stopped.clone();
        leaving.inbox.push(worker_actor::Input::Event(worker::Event::LeaveWanted));
        // Whoever holds the scheduler next is asked again.
        let is_lost_for_good = async {
            loop {
                let is_gone = is_registered.wait_for(|is_registered| !is_registered).await.is_err();
                let comes_back = is_registered.wait_for(|is_registered| *is_registered);
                if is_gone || !matches!(timeout(LEAVE_WITHOUT_SCHEDULER, comes_back).await, Ok(Ok(_))) {
                    return;
                }
            }
        };
        let let_go = async {
            tokio::select! {
                // A worker that was let go is registered no longer, and both are told at about the same time.
                biased;
                reason = stopped.wait_for(Option::is_some) => {
                    matches!(reason.as_deref(), Ok(Some(Stopped::Retired)))
                }
                () = is_lost_for_good => false,
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
        self.spawner.leave().await;
        if let Some(candidacy) = &self.candidacy {
            candidacy.quorum.clone().shutdown().await;
        }
        self.actors.close();
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
        self.actors.close();
        self.mesh.close();
        self.store.close();
    }
}

/// The name of this machine, which tasks may be restricted to; empty where it cannot be known.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Joins the first address that answers. The error is the first address's, which is the one a person would look at.
pub(crate) async fn join_any(mesh: &Mesh, addrs: &[Multiaddr]) -> Result<Option<Multiaddr>, MeshError> {
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

/// How much the node can hold, in megabytes, as others are told.
fn room(config: &NodeConfig) -> u64 {
    let limit = if config.memory.limit == 0 { memory::of_machine() } else { config.memory.limit };
    limit >> 20
}

/// What the node says of itself.
fn member_info(config: &NodeConfig) -> MemberInfo {
    let role = match config.role {
        NodeRole::Scheduler => Role::Scheduler,
        NodeRole::Auto => Role::Auto,
        NodeRole::Service => Role::Service,
        // Until it knows what it is.
        NodeRole::Joining | NodeRole::Worker => Role::Worker,
    };
    MemberInfo { name: config.name.clone(), role, room: room(config), keeps: config.data_dir.is_some() }
}

/// What the node tells the directory of itself.
fn node_info(config: &NodeConfig) -> NodeInfo {
    let can_host = config.role != NodeRole::Scheduler;
    NodeInfo { name: config.name.clone(), can_host, types: if can_host { ActorDef::types() } else { Vec::new() } }
}

/// A node's or client's part in remote actors.
pub(crate) fn remote_actors(mesh: &Mesh) -> Result<Actors, MeshError> {
    // Nothing but numbers.
    let hello = encode_one(&Hello::Actors).map_err(|_| MeshError::Closed)?;
    Ok(Actors::new(mesh.clone(), hello))
}

fn open_office(
    host: &ActorHost,
    config: &NodeConfig,
    mesh: &Mesh,
    leaders: &Leaders,
    candidacy: &Candidacy,
) -> Result<(Office, Seat), NodeError> {
    if let Some(record) = &config.record {
        recorder::check(&record.path)?;
    }
    let scheduler_config = scheduler::Config {
        kinds: Tasks::linked().infos(),
        allowed_failures: config.allowed_failures,
        saturation_us: u64::try_from(config.saturation.as_micros()).unwrap_or(u64::MAX).clamp(1, SATURATION_US_MAX),
        tasks_max: config.tasks_max,
        ..scheduler::Config::default()
    };
    let runtime = tokio::runtime::Handle::current();
    let directory = host.spawn("directory", INBOX_FULL, {
        let runtime = runtime.clone();
        move |inbox| DirectoryActor::new(inbox, runtime)
    })?;
    let inbox = host.spawn("scheduler", INBOX_FULL, move |inbox| SchedulerActor::new(inbox, runtime))?;
    let runtime = tokio::runtime::Handle::current();
    let coordination = host.spawn("coordination", INBOX_FULL, move |inbox| CoordinationActor::new(inbox, runtime))?;
    let (term, seen) = watch::channel(None);
    let office = Office {
        candidacy: candidacy.clone(),
        mesh: mesh.clone(),
        leaders: leaders.clone(),
        inbox: inbox.clone(),
        coordination: coordination.clone(),
        directory,
        config: scheduler_config,
        record: config.record.clone(),
        term,
    };
    Ok((office, Seat { inbox, coordination, term: seen }))
}

fn spawn_worker(
    host: &ActorHost,
    config: &NodeConfig,
    mesh: &Mesh,
    nested: &Arc<Nested>,
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
    let owner: Arc<dyn std::any::Any + Send + Sync> = nested.clone();
    let task_host = TaskHost { actors: nested.actors().clone(), owner };
    let executor = Executor::start(nthreads, store.clone(), runtime.clone(), Some(Arc::new(task_host)), {
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
