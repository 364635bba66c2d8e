//! Why a message to an actor, or a question about one, came to nothing.

use std::fmt;

use starling_core::ids::NodeId;

/// Why a message was not answered, or not queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// As many messages as may be are on their way to the actor. Nothing was sent: wait, by
    /// [`tell`](crate::RemoteAddr::tell), or try later.
    #[error("the actor {actor} is {window} messages behind: wait, or send less")]
    Full {
        /// The actor.
        actor: String,
        /// How many may be on their way.
        window: u32,
    },
    /// The message, or its result, is too large. If it is the message, nothing was sent.
    #[error("a message of {size} bytes is larger than the limit of {max}: send it in parts, or as an output of a task")]
    TooLarge {
        /// Its size, encoded.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// The message, or its result, cannot be encoded with postcard.
    #[error("{type_name} cannot be encoded: {message}")]
    Encode {
        /// The type.
        type_name: &'static str,
        /// What postcard says.
        message: String,
    },
    /// What came back is no result of the message's.
    #[error("the answer to {type_name} cannot be decoded: {message}")]
    Decode {
        /// The message's type.
        type_name: &'static str,
        /// What postcard says, or the other node.
        message: String,
    },
    /// The actor's program does not have this message type, or has another definition of it. Nothing was handled.
    #[error(
        "the actor {actor} does not take {message} version {version}{}: build both programs from the same source",
        describe(known, *version)
    )]
    UnknownMessage {
        /// The actor.
        actor: String,
        /// The message's path.
        message: &'static str,
        /// The version that was sent.
        version: u32,
        /// The versions that the actor takes of a message of this path.
        known: Vec<u32>,
    },
    /// The actor has ended, or panicked, or dropped the request. It may have handled the message.
    #[error("the actor {actor} ended without an answer")]
    Stopped {
        /// The actor.
        actor: String,
    },
    /// The actor's node is gone, or cannot be reached. The message may have been handled.
    #[error("node {node}, where the actor {actor} is, is lost: {reason}")]
    NodeLost {
        /// The actor.
        actor: String,
        /// Its node.
        node: NodeId,
        /// Why it cannot be reached.
        reason: String,
    },
    /// No answer came within the deadline. The message may be handled yet.
    #[error("the actor {actor} did not answer within {deadline:?}")]
    Deadline {
        /// The actor.
        actor: String,
        /// The deadline.
        deadline: std::time::Duration,
    },
    /// Earlier messages that were queued have not been handled, or it is not known whether they were. Told once, by the next
    /// use of the address; this message was not sent.
    #[error("{messages} earlier messages to the actor {actor} may not have been handled: {reason}")]
    Undelivered {
        /// The actor.
        actor: String,
        /// How many, at most.
        messages: u64,
        /// Why.
        reason: String,
    },
    /// Nobody holds the name.
    #[error("no actor holds the name {name}{}", .problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default())]
    NotHeld {
        /// The name.
        name: String,
        /// What kept some nodes from being asked, if anything did.
        problem: Option<String>,
    },
    /// The actor of this name was spawned, and is not made anew. Who spawns it again gets another.
    #[error("the actor {name} was given up: {problem}")]
    GivenUp {
        /// The name.
        name: String,
        /// Why.
        problem: String,
    },
    /// The name is held by an actor of another type.
    #[error("the name {name} is held by an actor of type {held}, not {wanted}")]
    WrongActor {
        /// The name.
        name: String,
        /// The type of the actor that holds it.
        held: String,
        /// The type that was asked for.
        wanted: String,
    },
    /// An address that came out of a message's or a task's bytes is used where no node is known to send from.
    #[error("this address belongs to no node here: call `bind` with the node or cluster to send from")]
    NotBound,
    /// This process's part of the mesh has ended.
    #[error("this node has left the mesh")]
    Closed,
}

fn describe(known: &[u32], version: u32) -> String {
    match known {
        [] => " (it knows no message of this name)".to_owned(),
        known if known.contains(&version) => " (it knows this version with other fields or another result)".to_owned(),
        known => format!(" (it takes versions {known:?})"),
    }
}

/// Why an actor could not be registered. Nothing is registered then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Somebody holds the name.
    #[error("the name {name} is held by an actor on node {node}")]
    NameTaken {
        /// The name.
        name: String,
        /// Where its holder is.
        node: NodeId,
    },
    /// A name has 1 to 256 bytes.
    #[error("a name has 1 to 256 bytes, and this one has {0}")]
    BadName(usize),
    /// The actor takes no message from other nodes.
    #[error(
        "{0} takes no message from other nodes: list it on its messages, `#[derive(RemoteMessage)] #[remote({0})]`"
    )]
    TakesNothing(&'static str),
    /// The actor has ended already.
    #[error("the actor has ended")]
    Stopped,
    /// The cluster could not say whether the name is free.
    #[error("it is not known whether the name {name} is free: {problem}")]
    NotKnown {
        /// The name.
        name: String,
        /// Why.
        problem: String,
    },
}

/// A message that was not queued, and why.
pub struct Refused<M> {
    /// The message.
    pub message: M,
    /// Why it was not queued.
    pub error: RemoteError,
}

impl<M> fmt::Debug for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<M> std::error::Error for Refused<M> {}

impl<M> From<Refused<M>> for RemoteError {
    fn from(refused: Refused<M>) -> RemoteError {
        refused.error
    }
}
