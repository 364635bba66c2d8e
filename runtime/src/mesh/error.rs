//! What can go wrong in the mesh, told apart by what a person or a caller does about it.

use std::io;

use libp2p::Multiaddr;
use starling_core::ids::{NodeId, TaskId};

use super::admission::Refusal;

/// Why an operation of the mesh failed. Unless a variant says otherwise nothing has changed and it may be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// The text is no address.
    #[error("{text:?} is not an address: {why}; write HOST:PORT or /ip4/IP/tcp/PORT")]
    BadAddress {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The name has no address.
    #[error("the host {host} is not known ({why}): check the spelling or give its IP address")]
    UnknownHost {
        /// The name.
        host: String,
        /// What the resolver said.
        why: String,
    },
    /// Another program listens there.
    #[error("{addr} is in use: stop the program that listens there or choose another port with --listen")]
    PortInUse {
        /// The address.
        addr: Multiaddr,
    },
    /// The system did not let us listen.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: Multiaddr,
        /// What the system said.
        source: io::Error,
    },
    /// The machine answers, and says that nobody listens on that port.
    #[error("nobody listens on {addr}: start the node there first, or check the address and port")]
    NobodyListens {
        /// The address.
        addr: Multiaddr,
    },
    /// The machine does not answer.
    #[error("{addr} cannot be reached ({why}): check the address, the network and the firewall")]
    Unreachable {
        /// The address.
        addr: Multiaddr,
        /// What the system said.
        why: String,
    },
    /// Something listens there, but it does not speak our protocol.
    #[error(
        "what listens on {addr} does not answer as a starling node ({why}): check the address and port; a node that many \
         join at once may also hang up, then try again"
    )]
    NotStarling {
        /// The address.
        addr: Multiaddr,
        /// What it did instead.
        why: String,
    },
    /// Another node answers than the one that the address names.
    #[error("another node answers on {addr} than the one that its /p2p part names: check the address")]
    OtherNode {
        /// The address.
        addr: Multiaddr,
    },
    /// The address is this node's own.
    #[error("{addr} is this node itself: give the address of another one")]
    Itself {
        /// The address.
        addr: Multiaddr,
    },
    /// The two nodes do not admit each other. Trying again without a change is of no use.
    #[error("{at} and this node do not admit each other: {refusal}")]
    Refused {
        /// The address or the node.
        at: String,
        /// Why.
        refusal: Refusal,
    },
    /// There was no answer in time.
    #[error("{what} was not done within {ms} ms: the node may be overloaded or its network cut")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        ms: u64,
    },
    /// The node is neither connected nor dialable, and no node that both are connected with relays to it.
    #[error("node {node} cannot be reached: {why}")]
    NoRoute {
        /// The node.
        node: NodeId,
        /// What was tried.
        why: String,
    },
    /// The connection to the node broke during the operation, part of which may have been done.
    #[error("the connection to node {node} broke: {source}")]
    Broken {
        /// The node.
        node: NodeId,
        /// What the stream said.
        source: io::Error,
    },
    /// The node sent what the protocol does not allow; its stream was closed.
    #[error("node {node} broke the protocol: {why}")]
    Protocol {
        /// The node.
        node: NodeId,
        /// What it sent.
        why: String,
    },
    /// The node did not take the block.
    #[error("node {node} did not take the block of task {task}: {why}")]
    PutRefused {
        /// The node.
        node: NodeId,
        /// The block's task.
        task: TaskId,
        /// What it said.
        why: String,
    },
    /// A block, frame or name is larger than the limits allow.
    #[error("{what} is {size} bytes, which is more than the limit of {max}: split it or raise the limit on every node")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// The node's own keypair is not an ed25519 one.
    #[error("the node's key is not an ed25519 key: give another one, or none to have one made")]
    KeyType,
    /// The transport could not be set up.
    #[error("the transport cannot be set up: {0}")]
    Transport(String),
    /// The mesh was shut down.
    #[error("the mesh is shut down")]
    Closed,
}
