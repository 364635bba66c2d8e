//! Files of other nodes, as a client sees them.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use starling_actors::Cluster;
use starling_core::ids::NodeId;
use starling_runtime::task::{Call, ClientError};

use super::error::FilesError;
use super::listing::{Copy, FileEntry, Listing, MeshFile, name_of};
use super::read::READ_BYTES_MAX;
use super::tasks;
use crate::csv::absolute;

/// Looking after files goes before what is queued: a plan waits for it.
const PRIORITY: i32 = 1 << 20;
/// How many pieces of a file are on their way at once.
pub(super) const PIECES_AT_ONCE: usize = 4;

/// A call for this node. It runs elsewhere if the node has gone, since it would wait for ever otherwise; the task says so.
pub(super) fn on<R>(node: NodeId, call: Call<R>) -> Call<R> {
    call.workers([node.hex()]).allow_other_workers().priority(PRIORITY)
}

/// The workers' names.
pub(super) fn names(cluster: &Cluster) -> BTreeMap<NodeId, String> {
    cluster.worker_infos().into_iter().map(|info| (info.node, info.name)).collect()
}

/// What the workers have under `path`: a file, a directory with all files below it, or a pattern with `*`, `?`, `[..]` or
/// `**`. A relative path starts from the client's working directory.
///
/// It waits for every worker, hence for one that computes something long until a place is free there.
///
/// # Errors
/// A path that no worker has is none: [`Listing::check`] says what is wrong with what was found.
/// [`FilesError::NoWorkers`], and [`FilesError::Client`] with what a node could not do: more than [`FILES_MAX`](super::FILES_MAX) files,
/// or a directory that it may not read.
pub async fn list(cluster: &Cluster, path: &str) -> Result<Listing, FilesError> {
    let path = &absolute(path);
    let names = names(cluster);
    if names.is_empty() {
        return Err(FilesError::NoWorkers);
    }
    let asked = names.keys().map(|&node| cluster.submit(on(node, tasks::find::task(path.clone()))));
    let asked: Vec<_> = asked.collect();
    let answers = try_join_all(asked.iter().map(|answer| answer.result())).await?;
    let answers = answers.into_iter().filter_map(|(node, found)| Some((node?, found))).collect();
    Ok(Listing::merge(path, &names, answers))
}

/// The bytes of a range of a file, in pieces from the nodes that have it; from the next one if a node fails.
///
/// # Errors
/// [`FilesError::Changed`] if the file is another one by now on the last node that was asked.
pub async fn read(cluster: &Cluster, file: &MeshFile, range: Range<u64>) -> Result<Bytes, FilesError> {
    let end = range.end.min(file.size());
    let starts = (range.start..end).step_by(READ_BYTES_MAX as usize);
    let pieces = stream::iter(starts.enumerate())
        .map(|(turn, start)| piece(cluster, file, turn, start..(start + READ_BYTES_MAX).min(end)))
        .buffered(PIECES_AT_ONCE);
    let mut pieces: Vec<Bytes> = pieces.try_collect().await?;
    if pieces.len() == 1 {
        return Ok(pieces.remove(0));
    }
    let mut whole = BytesMut::with_capacity(end.saturating_sub(range.start) as usize);
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    Ok(whole.freeze())
}

/// One piece, from the copy whose turn it is, or from the next ones.
pub(super) async fn piece(
    cluster: &Cluster,
    file: &MeshFile,
    turn: usize,
    range: Range<u64>,
) -> Result<Bytes, FilesError> {
    let mut failed = None;
    for number in 0..file.copies.len() {
        let copy = &file.copies[(turn + number) % file.copies.len()];
        match piece_of(cluster, file, copy, range.clone()).await {
            Ok(bytes) => return Ok(bytes),
            Err(error @ FilesError::Client(ClientError::SchedulerLost(_))) => return Err(error),
            Err(error) => {
                tracing::debug!(path = file.path, node = %copy.node, %error, "a copy of a file could not be read");
                // Of several failures that a file has changed says most.
                if !matches!(failed, Some(FilesError::Changed { .. })) {
                    failed = Some(error);
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| FilesError::Nowhere { path: file.path.clone(), asked: "nobody".into() }))
}

pub(super) async fn piece_of(
    cluster: &Cluster,
    file: &MeshFile,
    copy: &Copy,
    range: Range<u64>,
) -> Result<Bytes, FilesError> {
    let call = tasks::read_range::task(copy.node, entry_of(file, copy), range.start, range.end);
    match cluster.submit(on(copy.node, call)).result().await? {
        Some(bytes) => Ok(bytes.0),
        None => Err(FilesError::Changed { path: file.path.clone(), node: name_of(&names(cluster), [copy.node]) }),
    }
}

/// The file as a node has it.
pub(super) fn entry_of(file: &MeshFile, copy: &Copy) -> FileEntry {
    FileEntry { path: file.path.clone(), size: copy.size, modified: copy.modified }
}
