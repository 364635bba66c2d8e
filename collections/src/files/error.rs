//! What can be wrong with files on the nodes, with the remedy.

use std::io;

use starling_runtime::task::ClientError;

/// Why files could not be listed, read or copied. Unless it says otherwise, no file was changed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or directory could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The pattern is none.
    #[error("{pattern} is no valid pattern: {message}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// More files than are listed at once.
    #[error("there are more than {limit} files under {path}; name a smaller directory or a narrower pattern")]
    TooMany {
        /// The path or pattern.
        path: String,
        /// How many are listed at most.
        limit: usize,
    },
    /// A name that cannot be told to other nodes.
    #[error("{path} is not UTF-8; rename it")]
    NotUtf8 {
        /// The name, as well as it can be written.
        path: String,
    },
    /// A path that does not begin at the root.
    #[error("{path} is no absolute path: nodes have working directories of their own, so write it from the root on")]
    Relative {
        /// The path.
        path: String,
    },
    /// There is nobody to ask.
    #[error("the cluster has no workers, which are what has files: start some with `node --join ADDRESS`")]
    NoWorkers,
    /// No worker has the path.
    #[error(
        "no worker has {path} (asked: {asked}); correct the path, or, if only the client has the file, copy it to nodes with \
         `node put`"
    )]
    Nowhere {
        /// The path or pattern.
        path: String,
        /// The workers that were asked.
        asked: String,
    },
    /// Copies on different nodes differ.
    #[error(
        "{path} is not the same file on all nodes: {sizes}; replace the wrong copies, for example with `node put --force`, or \
         remove them"
    )]
    Differs {
        /// The file.
        path: String,
        /// Which nodes have which size.
        sizes: String,
    },
    /// Some workers lack a file that all should have.
    #[error(
        "{path} is not on every node: {lacking} lack it; copy it there, for example with `node put {path} --to all`"
    )]
    NotEverywhere {
        /// The file.
        path: String,
        /// The workers that lack it.
        lacking: String,
    },
    /// The file is another one than before.
    #[error("{path} has changed on {node} since it was looked at; try again when nothing writes to it")]
    Changed {
        /// The file.
        path: String,
        /// The node.
        node: String,
    },
    /// What would be overwritten.
    #[error(
        "{on} has another {path} already, and it was left as it is; overwrite it with --force, or choose another path"
    )]
    Exists {
        /// The file.
        path: String,
        /// Where it is.
        on: String,
    },
    /// The directory that a file should go to.
    #[error("{on} has no directory {path}; make it there, or give --make-directories")]
    NoDirectory {
        /// The directory.
        path: String,
        /// The node.
        on: String,
    },
    /// Something that is no file, where a file is needed.
    #[error("{path} is a directory; name one file")]
    IsDirectory {
        /// The path.
        path: String,
    },
    /// A copy did not come out like its original.
    #[error("the copy of {path} on {on} has another checksum than the original; it was removed, so try again")]
    Damaged {
        /// The file.
        path: String,
        /// Where the copy was made.
        on: String,
    },
    /// A task ran on another node, because its own has gone.
    #[error("the node {0} has left the cluster")]
    NodeGone(String),
    /// A name that fits no worker.
    #[error("there is no worker {name}: the cluster has {known}")]
    NoSuchWorker {
        /// The name.
        name: String,
        /// The workers that there are.
        known: String,
    },
    /// A name that fits several workers.
    #[error("{name} may be any of {matching}: say which by the beginning of its node's id")]
    AmbiguousWorker {
        /// The name.
        name: String,
        /// The workers that it fits.
        matching: String,
    },
    /// Fewer workers than copies.
    #[error("there are only {workers} workers for {copies} copies; give --to all")]
    TooFewWorkers {
        /// How many there are.
        workers: usize,
        /// How many were asked for.
        copies: usize,
    },
    /// A copy could not be made on some nodes; on others it may have been.
    #[error("{path} was not copied to {on}: {source}")]
    NotCopied {
        /// The file.
        path: String,
        /// The node.
        on: String,
        /// Why.
        source: Box<FilesError>,
    },
    /// A task failed, or the cluster could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The client has ended.
    #[error("the connection to the cluster is closed; connect again")]
    Closed,
}

impl FilesError {
    pub(crate) fn io(path: impl Into<String>) -> impl FnOnce(io::Error) -> FilesError {
        let path = path.into();
        move |source| FilesError::Io { path, source }
    }
}
