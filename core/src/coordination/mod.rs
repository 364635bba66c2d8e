//! What programs coordinate with: locks, semaphores, events, queues, variables, barriers, metadata, topics.
//!
//! Two machines. [`Coordination`] is the part that survives: it is in the [`Ledger`](crate::ledger::Ledger), every voter applies
//! the same [`Step`]s to it, and it knows no clock. [`Coordinator`] is the part of the node in office: it has sessions' requests
//! come to it, lets those wait that cannot be done yet, first come first served, keeps leases' deadlines, and makes steps. No
//! answer leaves before a quorum has the steps that it follows from.
//!
//! A client is a *session*, which holds the leases of locks and semaphores. It is heard whenever it says anything, and a lease
//! ends when its session was not heard for so long. A new coordinator has heard every session when it begins. Requests that wait
//! are not in the ledger: a session says again at the next coordinator what has no answer. What was done for it is remembered
//! until it has seen the answer, so that a request that is said twice is done once.
//!
//! **Tokens** of leases and generations of barriers come from one number that only grows, and begins with the term in which the
//! cluster was founded, so that it grows beyond the ledger's own life. Names that nothing stands for any more are forgotten.
//!
//! What the coordinator never does: it hands no lease out twice because a clock jumped (only expired ones end, and with a step), and
//! it trusts no session: what is out of bounds is refused, each bound with an error of its own.
//!
//! - `ask`: what is said; `state`, `session`, `metadata`, `topics`: [`Coordination`]; `coordinator`, `lines`: [`Coordinator`].

mod ask;
mod coordinator;
mod lines;
mod metadata;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod topics;

pub use ask::{
    Ask, Change, FromSession, LeaseKind, LeaseName, Logged, Outcome, Path, Read, Refused, RequestId, SessionId, Step,
    ToSession,
};
pub use coordinator::{Coordinator, Effects, Event, LinkId};
pub use state::Coordination;

/// How many bytes a name may have; so may each part of a metadata path.
pub const NAME_BYTES_MAX: usize = 256;
/// How many bytes a value of a queue or a variable may have.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// How many bytes the JSON of an event or of one metadata leaf may have.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// How many bytes values, metadata and events may have together. Each counts 64 more than it has.
pub const VALUES_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The same with sessions, leases and names, which find room when values do not any more.
pub const BYTES_MAX: u64 = 80 * 1024 * 1024;
/// How many sessions are known at a time.
pub const SESSIONS_MAX: usize = 10_000;
/// How many requests of a session may be without an answer.
pub const REQUESTS_MAX: usize = 2_048;
/// How many requests wait at a time, of all sessions.
pub const WAITERS_MAX: usize = 65_536;
/// How many topics there are.
pub const TOPICS_MAX: usize = 256;
/// How many events a topic keeps. The oldest go first.
pub const TOPIC_EVENTS_MAX: usize = 1_000;
/// How many bytes of events a topic keeps. The oldest go first.
pub const TOPIC_BYTES_MAX: u64 = 1024 * 1024;
/// How deep metadata may be nested.
pub const PATH_PARTS_MAX: usize = 32;
/// How many bytes metadata may have together, so that all of it can be read at once.
pub const METADATA_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How many leaves one change of the metadata may set.
pub const LEAVES_MAX: usize = 1_000;
/// The shortest and the longest lease, in milliseconds: a second, and ten minutes.
pub const LEASE_MS_MIN: u32 = 1_000;
/// See [`LEASE_MS_MIN`].
pub const LEASE_MS_MAX: u32 = 600_000;
/// For how many microseconds a session is known that is not heard: ten minutes. What it had asked for cannot be said again later.
pub const SESSION_US: u64 = 600_000_000;
/// About how many bytes one entry of the log takes of what has gathered.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How many bytes may gather for the log before changes are refused.
pub const GATHERED_BYTES_MAX: usize = 64 * 1024 * 1024;
