//! What nodes do with their files for others. Each task is for one node, and says so if it runs on another because that
//! one has gone.

use starling_actors::CurrentNode;
use starling_core::ids::NodeId;
use starling_macros::task;
use starling_runtime::value::Buffer;

use super::error::FilesError;
use super::listing::{FileEntry, Found};
use super::read;
use super::write::{self, Begun};

/// The node that this runs on, and what it has under `path`.
#[task(crate = starling_runtime, json = false)]
pub(super) fn find(path: &str) -> Result<(Option<NodeId>, Found), FilesError> {
    Ok((CurrentNode::get().map(|node| node.node()), read::find(path)?))
}

fn check_node(wanted: NodeId) -> Result<(), FilesError> {
    match CurrentNode::get() {
        Some(here) if here.node() != wanted => Err(FilesError::NodeGone(wanted.to_string())),
        _ => Ok(()),
    }
}

/// The bytes `start..end` of a file; `None` if it is another one than `file` by now.
#[task(crate = starling_runtime, json = false)]
pub(super) fn read_range(node: NodeId, file: &FileEntry, start: u64, end: u64) -> Result<Option<Buffer>, FilesError> {
    check_node(node)?;
    let Some(open) = read::open_same(file)? else { return Ok(None) };
    let bytes = read::read_at(&open, start, end.min(file.size)).map_err(FilesError::io(&*file.path))?;
    let is_whole = bytes.len() as u64 == end.min(file.size).saturating_sub(start).min(read::READ_BYTES_MAX);
    Ok(is_whole.then(|| Buffer::from(bytes)))
}

/// SHA-256 of a file; `None` if it is another one than `file` by now.
#[task(crate = starling_runtime, json = false)]
pub(super) fn digest(node: NodeId, file: &FileEntry) -> Result<Option<[u8; 32]>, FilesError> {
    check_node(node)?;
    let Some(open) = read::open_same(file)? else { return Ok(None) };
    read::digest(&open).map(Some).map_err(FilesError::io(&*file.path))
}

/// Makes ready for a file of `size` bytes.
#[task(crate = starling_runtime, json = false)]
pub(super) fn put_begin(
    node: NodeId,
    path: &str,
    transfer: u64,
    size: u64,
    overwrite: bool,
    make_directories: bool,
) -> Result<Begun, FilesError> {
    check_node(node)?;
    write::begin(path, transfer, size, overwrite, make_directories)
}

/// Writes a piece of it.
#[task(crate = starling_runtime, json = false)]
pub(super) fn put_piece(node: NodeId, path: &str, transfer: u64, at: u64, bytes: &Buffer) -> Result<(), FilesError> {
    check_node(node)?;
    write::piece(path, transfer, at, bytes)
}

/// Compares it with what was sent, and gives it its name.
#[task(crate = starling_runtime, json = false)]
pub(super) fn put_end(node: NodeId, path: &str, transfer: u64, sent: [u8; 32], time: u64) -> Result<bool, FilesError> {
    check_node(node)?;
    write::end(path, transfer, sent, time)
}

/// Removes what has come of it.
#[task(crate = starling_runtime, json = false)]
pub(super) fn put_abort(node: NodeId, path: &str, transfer: u64) -> Result<(), FilesError> {
    check_node(node)?;
    write::abort(path, transfer);
    Ok(())
}
