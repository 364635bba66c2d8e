//! What nodes and clients say to the directory, and it to them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, Term};

/// How many bytes the arguments of a spawned actor may have, encoded.
pub const ARGS_BYTES_MAX: usize = 1024 * 1024;
/// How many bytes the name of an actor may have.
pub const NAME_BYTES_MAX: usize = 256;

/// An actor that the cluster makes, and makes anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorSpec {
    /// The name that it holds.
    pub name: String,
    /// A random number: an actor that is spawned later under the same name is another one.
    pub id: u64,
    /// The path of its type.
    pub type_name: String,
    /// What it is made from, encoded.
    pub args: Bytes,
    /// Where it may be.
    pub placement: Place,
    /// When it is made anew.
    pub restart: Restart,
}

/// Where a spawned actor may be. Schedulers and clients run none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// On the node with the fewest spawned actors.
    #[default]
    Any,
    /// Only on the node of this name, or whose id begins with these 8 digits or more.
    Node(String),
    /// On this node if it is there and has the actor's type, otherwise on any.
    Near(NodeId),
}

/// When a spawned actor is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Not at all: when it ends, or its node is lost, its name is free.
    Never,
    /// When it panics, cannot be made anew, or its node is lost. After more than `max` failures `within` that time it is given up; nodes that
    /// are lost do not count.
    OnFailure {
        /// How often it may fail.
        max: u32,
        /// In which time.
        within: Duration,
    },
    /// Whenever it ends, also by itself, as often as it takes, until it is stopped by name.
    Always,
}

/// On failure, at most 5 times a minute.
impl Default for Restart {
    fn default() -> Restart {
        Restart::OnFailure { max: 5, within: Duration::from_secs(60) }
    }
}

/// One making of a spawned actor. A later one is greater, across terms as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation {
    /// The term in which it was ordered.
    pub term: Term,
    /// Counted from 1.
    pub number: u64,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Whether actors may be spawned there.
    pub can_host: bool,
    /// The paths of the types of the actors that its program can make.
    pub types: Vec<String>,
}

/// A name that an actor of a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldName {
    /// The name.
    pub name: String,
    /// Which hosting.
    pub actor: u64,
    /// The path of the actor's type.
    pub type_name: String,
    /// The spec's id and which making, of an actor that was spawned.
    pub spawned: Option<(u64, Incarnation)>,
}

/// Who holds a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The holder's node.
    pub node: NodeId,
    /// Which hosting there.
    pub actor: u64,
    /// The path of the actor's type.
    pub type_name: String,
}

/// How an actor ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// By itself.
    Stopped,
    /// By a panic.
    Panicked,
}

/// From a node or client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNode {
    /// The first message.
    Introduce(NodeInfo),
    /// Names that its actors hold. With the last of them the directory knows all.
    Names {
        /// The names.
        names: Vec<HeldName>,
        /// Whether these are the last.
        is_last: bool,
    },
    /// A question, answered once.
    Ask {
        /// Its number, for the answer.
        ask: u64,
        /// What is asked.
        question: Ask,
    },
    /// An actor that was registered holds its name no longer.
    Released {
        /// The name.
        name: String,
        /// Which hosting.
        actor: u64,
    },
    /// What came of [`ToNode::Start`]: which hosting, or why there is none.
    Started {
        /// The name.
        name: String,
        /// Which making.
        incarnation: Incarnation,
        /// The hosting.
        outcome: Result<u64, String>,
    },
    /// A spawned actor has ended.
    Ended {
        /// The name.
        name: String,
        /// Which making.
        incarnation: Incarnation,
        /// How.
        end: End,
    },
}

/// A question to the directory. Asking again does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Who holds the name?
    Find(String),
    /// The asking node's actor is to hold the name.
    Claim {
        /// The name.
        name: String,
        /// Which hosting.
        actor: u64,
        /// The path of its type.
        type_name: String,
    },
    /// This actor is to be made.
    Spawn(Arc<ActorSpec>),
    /// The spawned actor of this name is to end, and not to be made anew.
    Stop(String),
    /// Which actors hold names?
    List,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Who holds the name, if anybody does.
    Held(Option<Holder>),
    /// The name is the asker's, or the actor has been stopped.
    Done,
    /// Somebody else holds the name.
    Taken(NodeId),
    /// The spawned actor of this name was given up, and why.
    GivenUp(String),
    /// It cannot be done, and why.
    Problem(String),
    /// Those that hold names, by name, at most [`LISTED_MAX`].
    Listed(Vec<ActorStatus>),
}

/// How many actors an answer lists.
pub const LISTED_MAX: usize = 10_000;

/// An actor that holds a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorStatus {
    /// The name.
    pub name: String,
    /// The path of its type.
    pub type_name: String,
    /// Where it is, if it is anywhere.
    pub node: Option<NodeId>,
    /// That node's name.
    pub node_name: Option<String>,
    /// How it is.
    pub state: ActorState,
    /// How often it was made anew, as far as this term's directory has seen.
    pub restarts: u32,
    /// Why it was last made anew, or why it is not.
    pub problem: Option<String>,
}

/// How an actor that holds a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActorState {
    /// Its node has registered it.
    Registered,
    /// It was spawned, and a node is making it.
    Starting,
    /// It was spawned, and runs.
    Running,
    /// It was spawned, and waits for a node, or for its next try.
    Waiting,
    /// It was stopped, or given up, and is about to be forgotten.
    Stopping,
}

/// To a node or client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNode {
    /// The answer to the question of this number.
    Answer {
        /// The number.
        ask: u64,
        /// The answer.
        answer: Answer,
    },
    /// All names that the node has said it holds, and was not told to stop, are its.
    Confirmed,
    /// Make this actor. If that was done already, say so again.
    Start {
        /// The actor.
        spec: Arc<ActorSpec>,
        /// Which making of it.
        incarnation: Incarnation,
    },
    /// The actor holds the name no longer. One that was spawned ends.
    Stop {
        /// The name.
        name: String,
        /// Which hosting.
        actor: u64,
        /// Whether it is not made anew anywhere either.
        is_over: bool,
    },
}
