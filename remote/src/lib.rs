//! Remote actors: actix actors that are reached from any node.
//!
//! An actor stays an ordinary actix [`Actor`](actix::Actor) with ordinary [`Handler`](actix::Handler)s. A message that may come from another node
//! is a serde type with `#[derive(RemoteMessage)]` that names the actors that take it. [`Actors`] is a node's part: it hosts what is
//! registered, and finds what others host; [`RemoteAddr`] sends.
//!
//! ```text
//! RemoteAddr -> Target (window) -> Peer ==link==> serve -> actor's mailbox        one link a pair of nodes and direction
//!     ^                              ^               |
//!     +-- answers, credit, losses ---+<==== same link+
//! ```
//!
//! A message is in one of four places: in the sender's hands (an error gave it back), on its way (it counts in the window), handled
//! (credit says so), or lost (the next use of the address says so). It never disappears without that.

mod actors;
mod addr;
mod error;
mod group;
mod hosted;
mod message;
mod outgoing;
mod pace;
mod peer;
mod receipt;
mod serve;
mod spawned;
#[cfg(test)]
mod tests;
mod wire;

pub use actors::{Actors, Directory, TaskHost};
pub use addr::{Asking, Ended, RemoteAddr};
pub use error::{Refused, RegisterError, RemoteError};
pub use group::{Broadcast, Group};
pub use message::{Accepts, Delivered, Handling, MessageDef, RemoteMessage};
pub use spawned::{SNAPSHOT_BYTES_MAX, SNAPSHOTS_BYTES_MAX, Snapshot};
pub use starling_core::directory::Holder;
pub use starling_macros::RemoteMessage;
pub use wire::{MESSAGE_BYTES_MAX, NAME_BYTES_MAX, Version};

/// What generated code refers to.
#[doc(hidden)]
pub mod __remote {
    pub use crate::message::{Accepts, Delivered, Handling, MessageDef, RemoteMessage};
    pub use {actix, inventory};
}
