//! The client's handle on a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use starling_core::explain::Explanation;
use starling_core::ids::{NodeId, TaskId, WorkerId};
use starling_core::spec::Resources;
use starling_core::wire::WorkerInfo;
use starling_remote::{Actors, RemoteAddr, RemoteError};
use starling_runtime::executor::current_task;
use starling_runtime::mesh::{MemberInfo, Mesh, MeshConfig, MeshError, MeshLimits, Multiaddr, Role, parse_addr};
use starling_runtime::secret::{ClusterSecret, SecretError};
use starling_runtime::store::{MemoryConfig, Store};
use starling_runtime::task::{Call, ClientError, Delayed, Future, Graph, GraphClient, Input, ResultSource};

use crate::client::Client;
use crate::connect::{CurrentNode, MeshHold, PATIENCE, connect};
use crate::link::Refusal;
use crate::node::{Node, NodeConfig, NodeError, NodeRole};
use crate::served::ServedStore;
use crate::status::{self, NodeStatus};

mod coordination;
mod keeping;
mod recording;
mod reporting;
mod results;
mod scattering;

pub use self::keeping::Detached;
pub use self::recording::{TaskRecording, TaskStream};
pub use self::reporting::{SchedulerInfo, Scope};
pub use self::scattering::ScatterOptions;

/// How many calls [`Cluster::submit_all`] lets the scheduler be behind with, and at which counts it looks.
pub(crate) const UNACCEPTED_MAX: usize = 64 * 1024;
pub(crate) const UNACCEPTED_STEP: usize = 4 * 1024;

/// Why a cluster could not be started or connected to. Nothing of the attempt is left running.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The mesh could not be started or joined.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A node of an embedded cluster could not be started.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// There is no usable secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It was told no node to connect to.
    #[error("a client needs a node to connect to: give an address, such as 10.12.0.10:8786")]
    NoAddress,
    /// The mesh has no scheduler.
    #[error("connected to {0}, but its mesh has no scheduler: start one with `node --role scheduler`")]
    NoScheduler(String),
    /// The scheduler refused the client.
    #[error("the scheduler refused the client: {0}")]
    Refused(#[from] Refusal),
    /// It was asked for the cluster of the current task, where there is none.
    #[error("there is no task here whose cluster could be meant: call it inside of a task, or connect")]
    NotInTask,
    /// The scheduler went away, or did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// How to connect to a running cluster.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// The secret, if it is given by the program itself.
    pub secret: Option<ClusterSecret>,
    /// Where the secret is, if not in `STARLING_SECRET` or in the default place.
    pub secret_file: Option<PathBuf>,
    /// Whether to connect without a secret, to a cluster that has none.
    pub insecure: bool,
    /// A name for people.
    pub name: Option<String>,
    /// For how long the client looks for a scheduler when it has lost the one it had, before its futures fail; a minute if
    /// nothing is said.
    pub patience: Option<Duration>,
}

impl ConnectOptions {
    fn secret(&self) -> Result<Option<ClusterSecret>, SecretError> {
        match (self.insecure, &self.secret) {
            (true, _) => Ok(None),
            (false, Some(secret)) => Ok(Some(secret.clone())),
            (false, None) => Ok(Some(ClusterSecret::find(self.secret_file.as_deref(), None)?.0)),
        }
    }
}

/// How an embedded cluster is to be.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// How many worker nodes.
    pub workers: usize,
    /// How many tasks each runs at once.
    pub nthreads: u32,
    /// How many bytes of outputs each holds in memory, and what it does as it comes near that.
    pub memory: MemoryConfig,
    /// What each has of abstract resources.
    pub resources: Resources,
    /// How many tasks the scheduler knows at a time before further submissions wait; 0 for no limit.
    pub tasks_max: u64,
}

impl LocalOptions {
    /// So many workers that share the machine's cores.
    pub fn new(workers: usize) -> LocalOptions {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        LocalOptions {
            workers,
            nthreads: (cores / workers.max(1)).max(1) as u32,
            memory: MemoryConfig::default(),
            resources: Resources::new(),
            tasks_max: NodeConfig::new(NodeRole::Scheduler).tasks_max,
        }
    }
}

/// A client's handle on a cluster. Clones are the same client; when the last clone and the last [`Future`] are dropped,
/// the client leaves, and an embedded cluster ends.
#[derive(Clone)]
pub struct Cluster {
    client: Arc<Client>,
    /// Its name, for people.
    name: Arc<str>,
    /// The priority of calls that say none.
    priority: i32,
}

/// A [`Cluster`] that does not keep its client: for what the client itself keeps.
#[derive(Clone, Debug)]
pub struct WeakCluster {
    client: Weak<Client>,
    name: Arc<str>,
    priority: i32,
}

impl WeakCluster {
    /// The cluster, if its client is still there.
    pub fn upgrade(&self) -> Option<Cluster> {
        self.client.upgrade().map(|client| Cluster { client, name: Arc::clone(&self.name), priority: self.priority })
    }
}

impl GraphClient for Cluster {
    fn submit_graph<T>(
        &self,
        graph: Graph,
        wanted: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Future<T>>, ClientError> {
        Cluster::submit_graph(self, graph, wanted)
    }
}

impl Cluster {
    #[cfg(test)]
    pub(crate) fn of(client: Arc<Client>) -> Cluster {
        Cluster { client, name: "client".into(), priority: 0 }
    }

    /// That of a node, for the actors on it.
    pub(crate) fn of_node(client: Arc<Client>, name: String) -> Cluster {
        Cluster { client, name: name.into(), priority: 0 }
    }

    /// Starts a cluster inside this process, one scheduler node and `workers` worker nodes on a real mesh over
    /// loopback, and connects to it. The cluster has a secret of its own, which nobody else knows.
    pub async fn local(workers: usize) -> Result<Cluster, ClusterError> {
        Cluster::local_with(LocalOptions::new(workers)).await
    }

    /// As [`Cluster::local`], with options.
    pub async fn local_with(options: LocalOptions) -> Result<Cluster, ClusterError> {
        let secret = Some(ClusterSecret::generate());
        let loopback = parse_addr("/ip4/127.0.0.1/tcp/0")?;
        let scheduler = Node::start(NodeConfig {
            name: "scheduler".into(),
            listen: vec![loopback.clone()],
            secret: secret.clone(),
            tasks_max: options.tasks_max,
            ..NodeConfig::new(NodeRole::Scheduler)
        })
        .await?;
        let join = scheduler.listen_addrs();
        let mut nodes = vec![scheduler];
        for number in 0..options.workers {
            let config = NodeConfig {
                name: format!("worker-{number}"),
                listen: vec![loopback.clone()],
                join: join.clone(),
                secret: secret.clone(),
                nthreads: options.nthreads,
                memory: options.memory.clone(),
                resources: options.resources.clone(),
                ..NodeConfig::new(NodeRole::Worker)
            };
            nodes.push(Node::start(config).await?);
        }
        let cluster = Cluster::connect_to(&join, secret, "local".into(), nodes, PATIENCE).await?;
        cluster.wait_for_workers(options.workers).await?;
        Ok(cluster)
    }

    /// Connects to the cluster that the node at `addr` belongs to: `/ip4/10.12.0.10/tcp/8786`, `10.12.0.10:8786` or
    /// `10.12.0.10`. The secret is looked for as [`ClusterSecret::find`] says.
    pub async fn connect(addr: &str) -> Result<Cluster, ClusterError> {
        Cluster::connect_with(addr, ConnectOptions::default()).await
    }

    /// As [`Cluster::connect`], with options.
    pub async fn connect_with(addr: &str, options: ConnectOptions) -> Result<Cluster, ClusterError> {
        Cluster::connect_any(&[parse_addr(addr)?], options).await
    }

    /// As [`Cluster::connect_with`], by the first of these nodes that answers.
    pub async fn connect_any(addrs: &[Multiaddr], options: ConnectOptions) -> Result<Cluster, ClusterError> {
        if addrs.is_empty() {
            return Err(ClusterError::NoAddress);
        }
        let secret = options.secret()?;
        let name = options.name.unwrap_or_else(|| format!("client-{}", std::process::id()));
        Cluster::connect_to(addrs, secret, name, Vec::new(), options.patience.unwrap_or(PATIENCE)).await
    }

    async fn connect_to(
        addrs: &[Multiaddr],
        secret: Option<ClusterSecret>,
        name: String,
        nodes: Vec<Node>,
        patience: Duration,
    ) -> Result<Cluster, ClusterError> {
        let member = MemberInfo { name: name.clone(), role: Role::Client, room: 0, keeps: false };
        let config = MeshConfig { keypair: None, listen: Vec::new(), secret, member, limits: MeshLimits::default() };
        let (mesh, events) = Mesh::start(config, ServedStore::new(Store::unlimited())).await?;
        match connect(&mesh, MeshHold::Own { events, nodes }, addrs, name.clone(), patience).await {
            Ok(client) => Ok(Cluster { client, name: name.into(), priority: 0 }),
            Err(error) => {
                mesh.shutdown().await;
                Err(error)
            }
        }
    }

    /// Inside of a task: the cluster that it runs on, for tasks that submit others. Cheap, but for the first time on each
    /// node, which connects. Calls that say no priority get one more than the task's, so that what was begun is finished
    /// before something new is begun.
    ///
    /// An `async` task awaits what it has submitted. Another waits by `starling::block_on`, which gives the task's place on the
    /// worker to the tasks that it waits for; waiting in any other way may leave no place for them.
    ///
    /// ```
    /// use starling_actors::{Cluster, ClusterError};
    /// assert!(matches!(Cluster::current(), Err(ClusterError::NotInTask)));
    /// ```
    ///
    /// # Errors
    /// [`ClusterError::NotInTask`] outside of a task, and in what a task runs on other threads: there a clone of the handle
    /// serves. Otherwise what stands in the way of connecting.
    pub fn current() -> Result<Cluster, ClusterError> {
        let context = current_task().ok_or(ClusterError::NotInTask)?;
        let priority = context.user_priority.saturating_add(1);
        let node = CurrentNode::of(context).ok_or(ClusterError::NotInTask)?;
        Ok(Cluster { client: node.client()?, name: format!("tasks on {}", node.name()).into(), priority })
    }

    /// Submits a call. Neither blocks nor waits; whatever goes wrong is told by the future.
    pub fn submit<R>(&self, call: Call<R>) -> Future<R> {
        let task = match call.into_parts() {
            Ok(parts) if parts.inputs.iter().any(|input| matches!(input, Input::Delayed(_))) => {
                return self.submit_delayed(&Delayed::of_parts(parts));
            }
            Ok(parts) => self.client.submit(parts, self.priority),
            Err(error) => self.client.fail(error),
        };
        Future::new(task, self.source())
    }

    /// A call that takes delayed ones is submitted with them.
    fn submit_delayed<R>(&self, delayed: &Delayed<R>) -> Future<R> {
        delayed.persist(self).unwrap_or_else(|error| Future::new(self.client.fail(error), self.source()))
    }

    /// Submits many calls; the futures are in the calls' order. For very many, [`submit_all`](Cluster::submit_all) does
    /// not let them gather in this process.
    pub fn map<R>(&self, calls: impl IntoIterator<Item = Call<R>>) -> Vec<Future<R>> {
        calls.into_iter().map(|call| self.submit(call)).collect()
    }

    /// Submits very many calls, waiting whenever the scheduler has not taken the last 64 thousand of them yet, so that an
    /// iterator that makes millions is run through only as fast as they are taken. The futures are in the calls' order;
    /// whatever goes wrong is told by them. Dropping this submits no more, and releases what was submitted.
    ///
    /// ```no_run
    /// # use starling_actors::{Cluster, ClusterError};
    /// # use starling_runtime::task::{Call, ClientError};
    /// # async fn run(cluster: Cluster, square: fn(i64) -> Call<i64>) -> Result<(), ClientError> {
    /// let squares = cluster.submit_all((0..10_000_000).map(square)).await;
    /// println!("{}", squares[17].result().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn submit_all<R>(&self, calls: impl IntoIterator<Item = Call<R>>) -> Vec<Future<R>> {
        let mut futures = Vec::new();
        for call in calls {
            futures.push(self.submit(call));
            let behind = futures.len().saturating_sub(UNACCEPTED_MAX);
            if behind > 0 && futures.len().is_multiple_of(UNACCEPTED_STEP) {
                // Whatever became of it is told by the future itself.
                let _ = self.client.accepted(futures[behind - 1].task()).await;
            }
        }
        futures
    }

    /// Submits a named graph, checked as a whole; gives futures of the outputs that are wanted, in their order. The others
    /// are dropped as soon as nothing needs them.
    ///
    /// # Errors
    /// A cycle, an input or a wanted name that is no task of the graph, or a task that the cluster does not hold; then
    /// nothing was submitted. A `T` that is not what the task gives is told by the future.
    pub fn submit_graph<T>(
        &self,
        graph: Graph,
        wanted: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Future<T>>, ClientError> {
        let mut names: Vec<String> = wanted.into_iter().map(Into::into).collect();
        let order = names.clone();
        names.sort_unstable();
        names.dedup();
        let ids = self.client.submit_graph(graph, &names, self.priority)?;
        // One hold on each, however often it is asked for.
        let futures: BTreeMap<&String, Future<T>> =
            names.iter().zip(ids.into_iter().map(|task| Future::new(task, self.source()))).collect();
        Ok(order.iter().filter_map(|name| futures.get(name).cloned()).collect())
    }

    /// How the cluster is, as one of its nodes sees it. The node that is asked need not be the one that holds the scheduler, so that
    /// this works while there is none.
    ///
    /// # Errors
    /// The node cannot be joined, or does not answer.
    pub async fn status_of(addr: &str, options: ConnectOptions) -> Result<NodeStatus, ClusterError> {
        let secret = options.secret()?;
        let member = MemberInfo { name: "status".to_owned(), role: Role::Client, room: 0, keeps: false };
        let config = MeshConfig { keypair: None, listen: Vec::new(), secret, member, limits: MeshLimits::default() };
        let (mesh, mut events) = Mesh::start(config, ServedStore::new(Store::unlimited())).await?;
        let listening = tokio::spawn(async move { while events.recv().await.is_some() {} });
        let asked = async {
            let node = mesh.join(&parse_addr(addr)?).await?;
            status::ask(&mesh, node).await
        };
        let status = asked.await;
        listening.abort();
        mesh.shutdown().await;
        Ok(status?)
    }

    /// The nodes that hold each future's output, and its size in bytes; futures without an output are left out.
    pub async fn who_has<'a, T: 'a>(
        &self,
        futures: impl IntoIterator<Item = &'a Future<T>>,
    ) -> Result<Vec<(TaskId, Vec<NodeId>, u64)>, ClientError> {
        let tasks: Vec<TaskId> = futures.into_iter().map(Future::task).collect();
        let holders = self.client.who_has(&tasks).await?;
        let workers = self.client.workers();
        let nodes_of = |holders: Vec<WorkerId>| {
            holders.iter().filter_map(|holder| workers.get(holder)).map(|info| info.node).collect()
        };
        Ok(holders.into_iter().map(|(task, holders, nbytes)| (task, nodes_of(holders), nbytes)).collect())
    }

    /// Gives tasks up, and every task that needs one of them, as [`Future::cancel`] does. Does not wait.
    pub fn cancel<'a, T: 'a>(&self, futures: impl IntoIterator<Item = &'a Future<T>>) {
        let (ours, others): (Vec<_>, Vec<_>) = futures.into_iter().partition(|future| future.is_of(&*self.client));
        self.client.cancel_tasks(ours.iter().map(|future| future.task()));
        others.into_iter().for_each(Future::cancel);
    }

    /// Gives up everything that this client has submitted and that is not finished. Does not wait; what is submitted later
    /// is not affected. Does nothing to what [`Cluster::current`] gave, which other tasks use as well: there, cancel the
    /// futures.
    pub fn cancel_all(&self) {
        if self.client.owns_mesh() {
            self.client.cancel_job();
        }
    }

    /// Why a task is where it is at this moment: what it waits for, or which worker is full.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::{Call, ClientError};
    /// # async fn run(cluster: Cluster, call: Call<i64>) -> Result<(), ClientError> {
    /// let future = cluster.submit(call.resource("gpu", 1.0));
    /// // task my::train (3141592653.0) could run, but no worker may run it:
    /// //   worker-1: has 0 of the resource gpu, and the task takes 1
    /// println!("{}", cluster.explain(&future).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why the task was not sent, if it was not; [`ClientError::ForeignFuture`] for one of another cluster.
    pub async fn explain<T>(&self, future: &Future<T>) -> Result<Explanation, ClientError> {
        self.check_ours([future])?;
        self.client.explain(future.task()).await
    }

    /// As [`Cluster::explain`], for any task of the cluster, whoever has submitted it.
    pub async fn explain_task(&self, task: TaskId) -> Result<Explanation, ClientError> {
        self.client.explain(task).await
    }

    /// Waits until these futures have their outputs and `copies` workers hold each of them, or every worker if there are
    /// fewer; gives how many copies were made. The cluster may drop copies later when memory is short.
    ///
    /// # Errors
    /// The first failure among the futures; [`ClientError::NotDone`] if a copy could not be made.
    pub async fn replicate<'a, T: 'a>(
        &self,
        futures: impl IntoIterator<Item = &'a Future<T>>,
        copies: u32,
    ) -> Result<u64, ClientError> {
        let futures: Vec<&Future<T>> = futures.into_iter().collect();
        self.check_ours(futures.iter().copied())?;
        for future in &futures {
            future.wait().await?;
        }
        let tasks: Vec<TaskId> = futures.iter().map(|future| future.task()).collect();
        self.client.replicate(&tasks, copies).await
    }

    /// Moves outputs from full workers to empty ones; gives how many were moved.
    ///
    /// # Errors
    /// [`ClientError::NotDone`] if an output could not be moved.
    pub async fn rebalance(&self) -> Result<u64, ClientError> {
        self.client.rebalance().await
    }

    /// Lets workers leave, each called by its name or by the beginning of its node's id: what only they hold is moved to
    /// others, their tasks are finished, and then they stop. Waits for that, and gives how many outputs were moved.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::ClientError;
    /// # async fn run(cluster: Cluster) -> Result<(), ClientError> {
    /// let moved = cluster.retire_workers(["rack1-a", "9f3c"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::NoSuchWorker`] or [`ClientError::AmbiguousWorker`] for a name that fits none or several, and then
    /// nothing was done; [`ClientError::NotDone`] if a worker could not be let go.
    pub async fn retire_workers(
        &self,
        workers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<u64, ClientError> {
        let names: Vec<String> = workers.into_iter().map(Into::into).collect();
        self.client.retire(&names).await
    }

    fn check_ours<'a, T: 'a>(&self, futures: impl IntoIterator<Item = &'a Future<T>>) -> Result<(), ClientError> {
        match futures.into_iter().find(|future| !future.is_of(&*self.client)) {
            Some(foreign) => Err(ClientError::ForeignFuture(foreign.task())),
            None => Ok(()),
        }
    }

    fn source(&self) -> Arc<dyn ResultSource> {
        Arc::clone(&self.client) as Arc<dyn ResultSource>
    }

    /// The client's value of this type, made now if there is none: what a collection keeps for a client. It must not hold
    /// the cluster itself, which would then never end: [`Cluster::downgrade`].
    pub fn extension<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.client.slots().get_or_init(make)
    }

    /// A handle that does not keep the client.
    pub fn downgrade(&self) -> WeakCluster {
        WeakCluster { client: Arc::downgrade(&self.client), name: Arc::clone(&self.name), priority: self.priority }
    }

    /// What each worker has said of itself, by its node.
    pub fn worker_infos(&self) -> Vec<WorkerInfo> {
        self.client.workers().into_values().collect()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.client.workers().len()
    }

    /// How many tasks all workers together run at once.
    pub fn nthreads(&self) -> u32 {
        self.client.workers().values().map(|info| info.nthreads).sum()
    }

    /// Waits until at least `workers` workers are there.
    pub async fn wait_for_workers(&self, workers: usize) -> Result<(), ClientError> {
        self.client.wait_for_workers(workers).await
    }

    /// The nodes of an embedded cluster, the scheduler's first; empty for a cluster that was connected to.
    pub fn nodes(&self) -> &[Node] {
        self.client.nodes()
    }

    /// Remote actors, as this client sees them: it finds them and sends to them, and hosts none itself.
    pub fn actors(&self) -> &Actors {
        self.client.actors()
    }

    /// The address of the actor that holds a name, wherever it is: [`Actors::lookup`].
    ///
    /// # Errors
    /// As there.
    pub async fn actor<A: actix::Actor>(&self, name: impl Into<String>) -> Result<RemoteAddr<A>, RemoteError> {
        self.actors().lookup(name).await
    }

    /// This client's part of the mesh.
    pub fn mesh(&self) -> &Mesh {
        self.client.mesh()
    }

    /// Takes leave of the cluster. Futures that are still held fail from now on. An embedded cluster ends with it. Does
    /// nothing to what [`Cluster::current`] gave, which is the node's.
    pub async fn shutdown(self) {
        if !self.client.owns_mesh() {
            return;
        }
        self.client.lose("the client was shut down");
        self.client.mesh().shutdown().await;
        // The workers first, so that they do not look for their scheduler.
        for node in self.client.nodes().iter().rev() {
            node.leave().await;
        }
    }
}
