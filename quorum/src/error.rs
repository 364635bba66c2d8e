//! What can go wrong.

use std::io;

use starling_core::ids::NodeId;
use thiserror::Error;

/// Why a node cannot take part.
#[derive(Debug, Error)]
pub enum QuorumError {
    /// Another process has the directory.
    #[error(
        "the data directory {place} is in use by another process: stop that, or start this one with another --data-dir"
    )]
    InUse {
        /// The directory.
        place: String,
    },
    /// A file could not be read or written. Nothing has changed that others have been told of.
    #[error("{place}: {source}")]
    Io {
        /// The file.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else than this node has written. Nothing was changed.
    #[error(
        "{place} is damaged ({what}): this node has promised others what was in it and must not go on without. Restore the \
         directory, or start the node as a new one with another --data-dir; a cluster with other voters goes on meanwhile"
    )]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// The files are another node's. Nothing was changed.
    #[error("{place} is of the node {node}, not of this one: start this one with another --data-dir")]
    OtherNode {
        /// The file.
        place: String,
        /// Whose it is.
        node: NodeId,
    },
    /// The log is in use, so no new cluster can be founded on it.
    #[error("this node already has a log: it goes on with its cluster, and founds no other")]
    NotNew,
    /// The settings make no sense.
    #[error("quorum settings: {0}")]
    Config(&'static str),
    /// The node has stopped.
    #[error("the quorum has stopped: {0}")]
    Stopped(String),
}

/// Why an entry was not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Another node leads, or none. The entry was not made; one that was on its way when this node was deposed may still be.
    #[error("this node does not lead the quorum")]
    NotLeader {
        /// Who leads, if that is known.
        leader: Option<NodeId>,
    },
    /// The entry is over [`ENTRY_BYTES_MAX`](starling_core::ledger::ENTRY_BYTES_MAX). It was not made.
    #[error("the entry has {bytes} bytes, more than a ledger takes")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// Too few voters have answered in time. The entry may still be made later.
    #[error("no quorum: too few voters have answered in time")]
    NoQuorum,
    /// The node has stopped. The entry may have been made.
    #[error("the quorum has stopped")]
    Closed,
}

/// Why a request got no answer.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TransportError(pub String);
