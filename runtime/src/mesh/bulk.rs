//! The bulk plane: blocks from store to store on pooled streams, which never carry anything else.
//!
//! A stream carries one request at a time, and is kept for the next. A store may take long to encode, so it is asked on
//! threads that may block, a group of blocks ahead of what is being written.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use libp2p::Stream;
use serde::{Deserialize, Serialize};
use starling_core::ids::{NodeId, TaskId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::admission::Plane;
use super::block::{BlockHeader, BlockStream, Received, Shape};
use super::relay::{self, Service};
use super::shared::Shared;
use super::{BlockStore, MeshError};
use crate::value::Encoded;

/// Tasks of one request; a longer list goes in several.
const REQUEST_TASKS_MAX: usize = 4096;

/// A group of blocks that are taken from the store together ends when it holds this many bytes.
const GROUP_BYTES: u64 = 1024 * 1024;

/// Unused streams to one node that are kept.
const IDLE_MAX: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Answered by a [`BlockHeader`] and its block for each.
    Get(Vec<TaskId>),
    /// The block follows. Answered by a `Result<(), String>`.
    Put { task: TaskId, shape: Shape },
}

type Blocks = BlockStream<Stream>;

/// When dialing the node failed, if it did. Held while dialing.
pub(crate) type Gate = Arc<tokio::sync::Mutex<Option<Instant>>>;

/// Streams to nodes that are not in use, and what keeps their number small.
pub(crate) struct Pool {
    nodes: Mutex<HashMap<NodeId, NodePool>>,
    streams_max: usize,
}

struct NodePool {
    idle: Vec<Blocks>,
    permits: Arc<Semaphore>,
    control_gate: Gate,
    bulk_gate: Gate,
}

/// A stream out of the pool. It goes back only after a whole exchange.
struct Lease {
    blocks: Blocks,
    /// Whether it was used before, and so may have died unnoticed.
    used: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(streams_max: usize) -> Pool {
        Pool { nodes: Mutex::default(), streams_max }
    }

    pub(crate) fn gate(&self, node: NodeId, plane: Plane) -> Gate {
        self.with(node, |pool| match plane {
            Plane::Control => pool.control_gate.clone(),
            Plane::Bulk => pool.bulk_gate.clone(),
        })
    }

    /// The node is down.
    pub(crate) fn forget(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, NodePool>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, node: NodeId, act: impl FnOnce(&mut NodePool) -> T) -> T {
        let mut nodes = self.lock();
        let pool = nodes.entry(node).or_insert_with(|| NodePool {
            idle: Vec::new(),
            permits: Arc::new(Semaphore::new(self.streams_max)),
            control_gate: Gate::default(),
            bulk_gate: Gate::default(),
        });
        act(pool)
    }

    async fn lease(&self, shared: &Shared, node: NodeId) -> Result<Lease, MeshError> {
        let permits = self.with(node, |pool| pool.permits.clone());
        let permit = permits.acquire_owned().await.map_err(|_| MeshError::Closed)?;
        if let Some(blocks) = self.with(node, |pool| pool.idle.pop()) {
            return Ok(Lease { blocks, used: true, _permit: permit });
        }
        let stream = relay::open(shared, node, Service::Bulk).await?;
        let blocks = BlockStream::new(stream, shared.limits.stall_timeout);
        Ok(Lease { blocks, used: false, _permit: permit })
    }

    fn give_back(&self, node: NodeId, lease: Lease) {
        self.with(node, |pool| {
            if pool.idle.len() < IDLE_MAX {
                pool.idle.push(lease.blocks);
            }
        });
    }
}

/// See [`Mesh::fetch`](super::Mesh::fetch).
pub(crate) async fn fetch(
    shared: &Arc<Shared>,
    node: NodeId,
    tasks: &[TaskId],
    on_block: &mut (dyn FnMut(TaskId, Option<Encoded>) + Send),
) -> Result<(), MeshError> {
    if node == shared.node {
        return fetch_here(shared, tasks, on_block).await;
    }
    let mut left = tasks;
    while !left.is_empty() {
        let mut lease = shared.pool.lease(shared, node).await?;
        let (now, later) = left.split_at(left.len().min(REQUEST_TASKS_MAX));
        let mut reported = 0;
        let mut count = |task, block| {
            reported += 1;
            on_block(task, block);
        };
        match exchange(shared, node, &mut lease.blocks, now, &mut count).await {
            Ok(()) => {
                shared.pool.give_back(node, lease);
                left = later;
            }
            // A pooled stream whose connection has gone is found out by using it. One that was new has no such excuse.
            Err(error) if lease.used && error.kind() != io::ErrorKind::InvalidData => {
                tracing::debug!(%node, %error, "a pooled stream had died");
                left = &left[reported..];
            }
            Err(error) => return Err(broken(node, error)),
        }
    }
    Ok(())
}

async fn exchange(
    shared: &Shared,
    node: NodeId,
    blocks: &mut Blocks,
    tasks: &[TaskId],
    on_block: &mut (dyn FnMut(TaskId, Option<Encoded>) + Send),
) -> io::Result<()> {
    blocks.write_header(&Request::Get(tasks.to_vec())).await?;
    blocks.flush().await?;
    for &task in tasks {
        let header: BlockHeader = blocks.read_header().await?;
        if header.task != task {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it answered for another task"));
        }
        let block = match header.shape {
            None => None,
            Some(shape) => match blocks.read_block(&shape, shared.limits.block_bytes_max).await? {
                Received::Sound(value) => Some(value),
                Received::Damaged => {
                    tracing::warn!(%node, %task, "a block arrived damaged: its checksum does not match");
                    None
                }
            },
        };
        on_block(task, block);
    }
    Ok(())
}

fn broken(node: NodeId, source: io::Error) -> MeshError {
    match source.kind() {
        io::ErrorKind::InvalidData => MeshError::Protocol { node, why: source.to_string() },
        _ => MeshError::Broken { node, source },
    }
}

async fn fetch_here(
    shared: &Shared,
    tasks: &[TaskId],
    on_block: &mut (dyn FnMut(TaskId, Option<Encoded>) + Send),
) -> Result<(), MeshError> {
    let tasks: Arc<[TaskId]> = tasks.into();
    let mut from = 0;
    while from < tasks.len() {
        let group = group(shared.store.clone(), tasks.clone(), from, u64::MAX).await;
        if group.is_empty() {
            return Err(MeshError::Closed);
        }
        from += group.len();
        group.into_iter().for_each(|(task, block)| on_block(task, block));
    }
    Ok(())
}

/// See [`Mesh::put`](super::Mesh::put).
pub(crate) async fn put(shared: &Arc<Shared>, node: NodeId, task: TaskId, value: Encoded) -> Result<(), MeshError> {
    let max = shared.limits.block_bytes_max;
    if value.nbytes() > max {
        return Err(MeshError::TooLarge { what: format!("the block of task {task}"), size: value.nbytes(), max });
    }
    let refused = |why| MeshError::PutRefused { node, task, why };
    if node == shared.node {
        return store(shared.store.clone(), task, value).await.map_err(refused);
    }
    loop {
        let mut lease = shared.pool.lease(shared, node).await?;
        let outcome = async {
            lease.blocks.write_header(&Request::Put { task, shape: Shape::of(&value) }).await?;
            lease.blocks.write_block(&value).await?;
            lease.blocks.flush().await?;
            lease.blocks.read_header::<Result<(), String>>().await
        };
        match outcome.await {
            Ok(answer) => {
                shared.pool.give_back(node, lease);
                return answer.map_err(refused);
            }
            Err(error) if lease.used && error.kind() != io::ErrorKind::InvalidData => {}
            Err(error) => return Err(broken(node, error)),
        }
    }
}

/// Serves a bulk stream that `peer` opened, until it closes it.
pub(crate) async fn serve(shared: Arc<Shared>, peer: NodeId, stream: Stream) {
    let mut blocks = BlockStream::new(stream, shared.limits.stall_timeout);
    loop {
        let outcome = match blocks.wait().await {
            Ok(true) => serve_one(&shared, &mut blocks).await,
            Ok(false) => return,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::debug!(%peer, %error, "a bulk stream broke");
            return;
        }
    }
}

async fn serve_one(shared: &Shared, blocks: &mut Blocks) -> io::Result<()> {
    match blocks.read_header().await? {
        Request::Get(tasks) if tasks.len() > REQUEST_TASKS_MAX => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many tasks in a request"));
        }
        Request::Get(tasks) => serve_blocks(shared, blocks, tasks).await?,
        Request::Put { task, shape } => {
            let answer = match blocks.read_block(&shape, shared.limits.block_bytes_max).await? {
                Received::Sound(value) => store(shared.store.clone(), task, value).await,
                Received::Damaged => Err("it arrived damaged: its checksum does not match".to_owned()),
            };
            blocks.write_header(&answer).await?;
        }
    }
    blocks.flush().await
}

async fn serve_blocks(shared: &Shared, blocks: &mut Blocks, tasks: Vec<TaskId>) -> io::Result<()> {
    let max = shared.limits.block_bytes_max;
    let tasks: Arc<[TaskId]> = tasks.into();
    let ask = |from| (from < tasks.len()).then(|| tokio::spawn(group(shared.store.clone(), tasks.clone(), from, max)));
    let mut from = 0;
    let mut next = ask(from);
    while let Some(asked) = next {
        let group = asked.await.map_err(io::Error::other)?;
        if group.is_empty() {
            return Err(io::Error::other("the node is being shut down"));
        }
        from += group.len();
        // The store is at work on the next group while this one is written.
        next = ask(from);
        for (task, value) in group {
            blocks.write_header(&BlockHeader { task, shape: value.as_ref().map(Shape::of) }).await?;
            if let Some(value) = value {
                blocks.write_block(&value).await?;
            }
        }
    }
    Ok(())
}

type Group = Vec<(TaskId, Option<Encoded>)>;

/// The blocks of the tasks from `from` on, as many as hold [`GROUP_BYTES`] together and at least one. One that is larger
/// than `max` is given as absent.
async fn group(store: Arc<dyn BlockStore>, tasks: Arc<[TaskId]>, from: usize, max: u64) -> Group {
    let taking = tokio::task::spawn_blocking(move || {
        let mut bytes = 0;
        let mut group = Vec::new();
        for &task in &tasks[from..] {
            let block = take(&*store, task).filter(|block| block.nbytes() <= max);
            bytes += block.as_ref().map_or(0, Encoded::nbytes);
            group.push((task, block));
            if bytes >= GROUP_BYTES {
                break;
            }
        }
        group
    });
    // Fails only when the runtime is being shut down; what is then answered reaches nobody.
    taking.await.unwrap_or_default()
}

/// A block out of the store. Encoding runs the user's code, which may panic; then the block cannot be had from here.
fn take(store: &dyn BlockStore, task: TaskId) -> Option<Encoded> {
    let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.get(task)));
    taken.unwrap_or_else(|_| {
        tracing::error!(%task, "a block could not be encoded: its Serialize panicked");
        None
    })
}

async fn store(store: Arc<dyn BlockStore>, task: TaskId, value: Encoded) -> Result<(), String> {
    tokio::task::spawn_blocking(move || store.put(task, value))
        .await
        .unwrap_or_else(|error| Err(format!("the store failed: {error}")))
}
