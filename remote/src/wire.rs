//! What nodes say to each other about actors. A link goes one way: one side sends to actors, the other hosts them. A frame is
//! a sequence of items.

use serde::{Deserialize, Serialize};
use starling_core::directory::Incarnation;

/// How many bytes a message, or its result, may have, encoded.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many bytes a name may have.
pub const NAME_BYTES_MAX: usize = 256;
/// How many messages one node may have on their way to one actor of another. The sender waits beyond that.
pub(crate) const WINDOW: u32 = 4096;
/// After how many handled messages the sender hears of it. A part of the window, so that a sender that fills it never waits
/// for messages that are handled already.
pub(crate) const CREDIT_EVERY: u32 = 512;
/// How many actors one link leads to.
pub(crate) const TARGETS_MAX: usize = 65_536;
/// How many message types one link carries.
pub(crate) const MESSAGES_MAX: usize = 4_096;
/// How many members of a group one node tells of.
pub(crate) const MEMBERS_MAX: usize = 10_000;

/// One hosting of an actor: a random number, so that what is meant for an earlier one reaches nobody.
pub(crate) type ActorId = u64;

/// From the side that sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHost<'a> {
    /// From now on this message type has the next number, counted from 0.
    Define { name: &'a str, version: u32, schema: u64 },
    /// From now on this actor has the next number, counted from 0.
    Bind { actor: ActorId },
    /// A message.
    Tell {
        target: u32,
        message: u32,
        #[serde(with = "serde_bytes_ref")]
        payload: &'a [u8],
    },
    /// A message that is answered.
    Ask {
        target: u32,
        message: u32,
        ask: u32,
        #[serde(with = "serde_bytes_ref")]
        payload: &'a [u8],
    },
    /// Answer when all before it is handled.
    Mark { target: u32, ask: u32 },
    /// Say when the actor is gone.
    Watch { target: u32 },
    /// Which actor of yours holds this name?
    WhoIs { ask: u32, name: &'a str },
    /// Which actors of yours are in this group?
    Group { ask: u32, name: &'a str },
    /// Keep this state of a spawned actor, unless you have a later one.
    Keep {
        ask: u32,
        name: &'a str,
        version: Version,
        #[serde(with = "serde_bytes_ref")]
        state: &'a [u8],
    },
    /// Which state have you of this actor, of this spec or of any?
    Kept { ask: u32, name: &'a str, spec: Option<u64> },
    /// Keep no state of this actor, of this spec.
    Drop { ask: u32, name: &'a str, spec: u64 },
}

/// Which state of an actor. A later one of the same spec is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Which spec.
    pub spec: u64,
    /// Which making of it.
    pub incarnation: Incarnation,
    /// Counted in that making.
    pub number: u64,
}

/// From the side that hosts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSender<'a> {
    /// The result.
    Reply {
        ask: u32,
        #[serde(with = "serde_bytes_ref")]
        payload: &'a [u8],
    },
    /// There is no result.
    NoReply { ask: u32, why: NoReply },
    /// So many messages more have been handled.
    Credit { target: u32, messages: u32 },
    /// So many messages were not handled, and will not be.
    Undelivered { target: u32, messages: u32, why: NoReply },
    /// The actor is gone.
    Gone { target: u32 },
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NoReply {
    /// The actor has ended, or has dropped the request.
    Stopped,
    /// No actor of this id is here.
    NoActor,
    /// The actor does not take it; the versions that it takes of this name.
    UnknownMessage { known: Vec<u32> },
    /// It could not be decoded.
    Decode(String),
    /// The answer could not be encoded.
    Encode(String),
    /// The answer is larger than a message may be.
    TooLarge { size: u64 },
}

/// An actor of the node that says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) actor: ActorId,
    /// The path of its type.
    pub(crate) type_name: String,
}

mod serde_bytes_ref {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = &'de [u8];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<&'de [u8], E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(Borrowed)
    }
}
