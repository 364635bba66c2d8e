//! Files copied to nodes, and from them.
//!
//! A piece that goes to nodes is put on one worker and passed on from there, so that the client sends each only once,
//! however many nodes are to have it. At most [`PIECES_AT_ONCE`] of [`PIECE_BYTES`] are on their way.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use futures::future::{join_all, try_join_all};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use starling_actors::Cluster;
use starling_core::ids::NodeId;
use starling_runtime::value::Buffer;

use super::error::FilesError;
use super::listing::{Copy, MeshFile, name_of};
use super::mesh::{PIECES_AT_ONCE, entry_of, list, names, on, piece_of};
use super::read::{self, modified};
use super::tasks;
use super::write::{self, Begun};
use crate::csv::absolute;

/// How large a piece is.
const PIECE_BYTES: u64 = 4 << 20;

/// Which workers get a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// All of them.
    All,
    /// So many: those that have it already first, then in the order of their names.
    Some(usize),
    /// These, each called by its name or by the beginning of its node's id.
    Named(Vec<String>),
}

/// How a file is put on nodes.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Its absolute path there; that of the local file if there is none.
    pub path: Option<String>,
    /// Whether another file of this name is overwritten.
    pub force: bool,
    /// Whether directories that do not exist are made.
    pub make_directories: bool,
}

/// What became of a [`put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The path on the nodes.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The names of the nodes that it was copied to.
    pub copied: Vec<String>,
    /// The names of those that had it already.
    pub had: Vec<String>,
}

/// How a file is fetched.
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// The node to fetch it from, by its name or by the beginning of its id; any that has it if there is none.
    pub node: Option<String>,
    /// Where it goes: a file or a directory. The working directory if there is none.
    pub to: Option<PathBuf>,
    /// Whether another file there is overwritten.
    pub force: bool,
}

/// What became of a [`get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// Where it was written.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The name of the node that it is from.
    pub from: String,
}

/// Copies a local file to workers, with its time. Each copy has its name only once it is whole and its SHA-256 is that of
/// the original.
///
/// # Errors
/// [`FilesError::Exists`] and [`FilesError::NoDirectory`] before anything was written. After that
/// [`FilesError::NotCopied`] or [`FilesError::Damaged`] names a node where the file was not copied to; what had come there
/// was removed, and the other nodes may have it.
pub async fn put(cluster: &Cluster, file: &Path, to: &Targets, options: &PutOptions) -> Result<Put, FilesError> {
    let local = file.display().to_string();
    let open = File::open(file).map_err(FilesError::io(&*local))?;
    let metadata = open.metadata().map_err(FilesError::io(&*local))?;
    if metadata.is_dir() {
        return Err(FilesError::IsDirectory { path: local });
    }
    let path = match &options.path {
        Some(path) if !Path::new(path).is_absolute() => return Err(FilesError::Relative { path: path.clone() }),
        Some(path) => path.clone(),
        None => absolute(file.to_str().ok_or_else(|| FilesError::NotUtf8 { path: local.clone() })?),
    };
    let names = names(cluster);
    let nodes = targets(cluster, &names, to, &path).await?;
    let sending = Sending {
        cluster,
        names: &names,
        file: &open,
        path: &path,
        size: metadata.len(),
        transfer: write::transfer_number(),
    };
    let (wanting, had) = match sending.begin(&nodes, options).await {
        Ok(begun) => begun,
        Err(error) => {
            sending.abort(&nodes).await;
            return Err(error);
        }
    };
    let done = if wanting.is_empty() { Ok(()) } else { sending.send(&wanting, modified(&metadata)).await };
    if let Err(error) = done {
        sending.abort(&wanting).await;
        return Err(error);
    }
    let named = |nodes: &[NodeId]| nodes.iter().map(|&node| name_of(&names, [node])).collect();
    Ok(Put { size: metadata.len(), copied: named(&wanting), had: named(&had), path })
}

/// A file on its way to nodes.
struct Sending<'a> {
    cluster: &'a Cluster,
    names: &'a BTreeMap<NodeId, String>,
    file: &'a File,
    path: &'a str,
    size: u64,
    transfer: u64,
}

impl Sending<'_> {
    fn name(&self, node: NodeId) -> String {
        name_of(self.names, [node])
    }

    fn not_copied(&self, node: NodeId) -> impl FnOnce(FilesError) -> FilesError + use<'_> {
        let on = self.name(node);
        move |error| FilesError::NotCopied { path: self.path.to_owned(), on, source: Box::new(error) }
    }

    /// Makes the nodes ready; gives those that want the file, and those that have it.
    async fn begin(&self, nodes: &[NodeId], options: &PutOptions) -> Result<(Vec<NodeId>, Vec<NodeId>), FilesError> {
        let begin = |&node: &NodeId| {
            let call = tasks::put_begin::task(
                node,
                self.path.to_owned(),
                self.transfer,
                self.size,
                options.force,
                options.make_directories,
            );
            let begun = self.cluster.submit(on(node, call));
            async move { begun.result().await.map_err(|error| self.not_copied(node)(error.into())) }
        };
        // All of them, so that none begins after an abort.
        let begun = join_all(nodes.iter().map(begin)).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (mut wanting, mut had, mut digest) = (Vec::new(), Vec::new(), None);
        for (&node, begun) in nodes.iter().zip(begun) {
            let exists = || FilesError::Exists { path: self.path.to_owned(), on: self.name(node) };
            match begun {
                Begun::Ready => wanting.push(node),
                Begun::Another => return Err(exists()),
                Begun::SameSize(theirs) => {
                    let ours = match digest {
                        Some(ours) => ours,
                        None => *digest.insert(read::digest(self.file).map_err(FilesError::io(self.path))?),
                    };
                    if ours != theirs {
                        return Err(exists());
                    }
                    had.push(node);
                }
                Begun::NoDirectory(path) => return Err(FilesError::NoDirectory { path, on: self.name(node) }),
                Begun::IsDirectory => return Err(FilesError::IsDirectory { path: self.path.to_owned() }),
            }
        }
        Ok((wanting, had))
    }

    async fn send(&self, nodes: &[NodeId], time: u64) -> Result<(), FilesError> {
        let mut hash = Sha256::new();
        // Read in order, since the hash wants them so; sent several at a time.
        let pieces = (0..self.size).step_by(PIECE_BYTES as usize).map(|at| {
            let bytes =
                read::read_at(self.file, at, (at + PIECE_BYTES).min(self.size)).map_err(FilesError::io(self.path));
            let bytes = bytes.and_then(|bytes| {
                let is_whole = bytes.len() as u64 == PIECE_BYTES.min(self.size - at);
                let changed = || FilesError::Changed { path: self.path.to_owned(), node: "this machine".into() };
                is_whole.then_some(bytes).ok_or_else(changed)
            })?;
            hash.update(&bytes);
            Ok(self.piece(nodes, at, bytes.into()))
        });
        stream::iter(pieces).try_buffer_unordered(PIECES_AT_ONCE).try_collect::<()>().await?;
        let sent: [u8; 32] = hash.finalize().into();
        let end = |&node: &NodeId| {
            let call = tasks::put_end::task(node, self.path.to_owned(), self.transfer, sent, time);
            let ended = self.cluster.submit(on(node, call));
            async move {
                match ended.result().await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(FilesError::Damaged { path: self.path.to_owned(), on: self.name(node) }),
                    Err(error) => Err(self.not_copied(node)(error.into())),
                }
            }
        };
        join_all(nodes.iter().map(end)).await.into_iter().collect()
    }

    /// Sends one piece to all.
    async fn piece(&self, nodes: &[NodeId], at: u64, bytes: Buffer) -> Result<(), FilesError> {
        let bytes = self.cluster.scatter(bytes).await?;
        let written = nodes.iter().map(|&node| {
            let call = tasks::put_piece::task(node, self.path.to_owned(), self.transfer, at, &bytes);
            let written = self.cluster.submit(on(node, call));
            async move { written.result().await.map_err(|error| self.not_copied(node)(error.into())) }
        });
        try_join_all(written).await.map(drop)
    }

    /// Removes what has come. As far as that is possible: it is done after something else has gone wrong.
    async fn abort(&self, nodes: &[NodeId]) {
        let abort = |&node: &NodeId| {
            self.cluster.submit(on(node, tasks::put_abort::task(node, self.path.to_owned(), self.transfer)))
        };
        let aborted: Vec<_> = nodes.iter().map(abort).collect();
        for (aborted, &node) in join_all(aborted.iter().map(|aborted| aborted.result())).await.iter().zip(nodes) {
            if let Err(error) = aborted {
                tracing::warn!(path = self.path, %node, %error, "what came of a file could not be removed");
            }
        }
    }
}

/// The nodes that a file goes to.
async fn targets(
    cluster: &Cluster,
    names: &BTreeMap<NodeId, String>,
    to: &Targets,
    path: &str,
) -> Result<Vec<NodeId>, FilesError> {
    if names.is_empty() {
        return Err(FilesError::NoWorkers);
    }
    match to {
        Targets::All => Ok(names.keys().copied().collect()),
        Targets::Named(wanted) => {
            let mut nodes = wanted.iter().map(|name| by_name(names, name)).collect::<Result<Vec<_>, _>>()?;
            nodes.sort_unstable();
            nodes.dedup();
            Ok(nodes)
        }
        &Targets::Some(copies) if copies > names.len() => {
            Err(FilesError::TooFewWorkers { workers: names.len(), copies })
        }
        &Targets::Some(copies) => {
            let listing = list(cluster, path).await?;
            let has = |node: &NodeId| listing.files.iter().any(|file| file.nodes().any(|having| having == *node));
            let mut nodes: Vec<NodeId> = names.keys().copied().collect();
            nodes.sort_by_key(|node| (!has(node), names.get(node)));
            nodes.truncate(copies);
            Ok(nodes)
        }
    }
}

/// The worker that has this name, or whose node's id begins like this.
fn by_name(names: &BTreeMap<NodeId, String>, wanted: &str) -> Result<NodeId, FilesError> {
    let fits = |(node, name): &(&NodeId, &String)| *name == wanted || node.hex().starts_with(wanted);
    let all =
        |nodes: &[NodeId]| nodes.iter().map(|node| format!("{} ({node})", names[node])).collect::<Vec<_>>().join(", ");
    let fitting: Vec<NodeId> = names.iter().filter(fits).map(|(&node, _)| node).collect();
    match fitting[..] {
        _ if wanted.is_empty() => Err(FilesError::NoSuchWorker {
            name: "without a name".into(),
            known: all(&names.keys().copied().collect::<Vec<_>>()),
        }),
        [node] => Ok(node),
        [] => Err(FilesError::NoSuchWorker {
            name: wanted.to_owned(),
            known: all(&names.keys().copied().collect::<Vec<_>>()),
        }),
        _ => Err(FilesError::AmbiguousWorker { name: wanted.to_owned(), matching: all(&fitting) }),
    }
}

/// Fetches a file from a worker, with its time. It has its name only once it is whole and its SHA-256 is that of the
/// original.
///
/// # Errors
/// [`FilesError::Nowhere`], [`FilesError::Differs`] if no node is named and copies differ, [`FilesError::Exists`];
/// [`FilesError::Changed`] and [`FilesError::Damaged`], after which nothing is left of the copy.
pub async fn get(cluster: &Cluster, path: &str, options: &GetOptions) -> Result<Got, FilesError> {
    let names = names(cluster);
    let wanted = options.node.as_deref().map(|name| by_name(&names, name)).transpose()?;
    let path = &absolute(path);
    let mut listing = list(cluster, path).await?;
    if let Some(wanted) = wanted {
        for file in &mut listing.files {
            file.copies.retain(|copy| copy.node == wanted);
        }
        listing.files.retain(|file| !file.copies.is_empty());
        listing.asked.retain(|node, _| *node == wanted);
    }
    listing.check(false)?;
    if listing.is_directory {
        return Err(FilesError::IsDirectory { path: path.clone() });
    }
    // A path that is there and no directory is one file.
    let Some(file) = listing.files.first() else {
        return Err(FilesError::Nowhere {
            path: path.to_owned(),
            asked: listing.name_of(listing.asked.keys().copied()),
        });
    };
    let to = local_path(options.to.as_deref(), path);
    let mut failed = None;
    for copy in &file.copies {
        match fetch(cluster, file, copy, &to, options.force).await {
            Ok(()) => return Ok(Got { path: to, size: copy.size, from: listing.name_of([copy.node]) }),
            Err(error @ (FilesError::Client(_) | FilesError::Changed { .. })) => {
                tracing::warn!(path, node = %copy.node, %error, "a copy could not be fetched");
                failed = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(failed.unwrap_or_else(|| FilesError::Nowhere { path: path.to_owned(), asked: String::new() }))
}

fn local_path(to: Option<&Path>, path: &str) -> PathBuf {
    let name = Path::new(path).file_name().unwrap_or_default();
    match to {
        Some(to) if to.is_dir() => to.join(name),
        Some(to) => to.to_owned(),
        None => PathBuf::from(name),
    }
}

/// Fetches one copy of a file.
async fn fetch(cluster: &Cluster, file: &MeshFile, copy: &Copy, to: &Path, force: bool) -> Result<(), FilesError> {
    let here = || "this machine".to_owned();
    let local = to.to_str().ok_or_else(|| FilesError::NotUtf8 { path: to.display().to_string() })?;
    let local = absolute(local);
    let call = tasks::digest::task(copy.node, entry_of(file, copy));
    let original = cluster.submit(on(copy.node, call)).result().await?;
    let changed = || FilesError::Changed { path: file.path.clone(), node: name_of(&names(cluster), [copy.node]) };
    let original = original.ok_or_else(changed)?;
    let transfer = write::transfer_number();
    match write::begin(&local, transfer, copy.size, force, false)? {
        Begun::Ready => {}
        Begun::SameSize(digest) if digest == original => return Ok(()),
        Begun::SameSize(_) | Begun::Another => return Err(FilesError::Exists { path: local, on: here() }),
        Begun::NoDirectory(path) => return Err(FilesError::NoDirectory { path, on: here() }),
        Begun::IsDirectory => return Err(FilesError::IsDirectory { path: local }),
    }
    let pieces = (0..copy.size).step_by(PIECE_BYTES as usize).map(|at| async move {
        Ok::<_, FilesError>((at, piece_of(cluster, file, copy, at..(at + PIECE_BYTES).min(copy.size)).await?))
    });
    let written = stream::iter(pieces)
        .buffer_unordered(PIECES_AT_ONCE)
        .try_for_each(|(at, bytes)| std::future::ready(write::piece(&local, transfer, at, &bytes)))
        .await;
    let ended = match written {
        Ok(()) => write::end(&local, transfer, original, copy.modified),
        Err(error) => Err(error),
    };
    match ended {
        Ok(true) => Ok(()),
        Ok(false) => Err(FilesError::Damaged { path: file.path.clone(), on: here() }),
        Err(error) => {
            write::abort(&local, transfer);
            Err(error)
        }
    }
}
