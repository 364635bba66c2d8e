//! What is said between a session and the coordinator, and what goes into the log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    LEASE_MS_MAX, LEASE_MS_MIN, LEAVES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, PATH_PARTS_MAX, TEXT_BYTES_MAX,
    VALUE_BYTES_MAX, VALUES_BYTES_MAX, metadata,
};

/// A client, as the coordinator knows it: a number that it has drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u128);

/// One request of a session's. The numbers of a session's requests grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId {
    /// Whose it is.
    pub session: SessionId,
    /// Which one.
    pub number: u64,
}

/// What is leased. Each kind has names of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LeaseKind {
    /// A lock: one lease at a time.
    Lock,
    /// A semaphore.
    Semaphore,
}

/// A lock or a semaphore.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseName {
    /// Which of the two.
    pub kind: LeaseKind,
    /// Its name.
    pub name: String,
}

/// Where something is in the metadata: the keys from the outermost object to it. Empty for all of it.
pub type Path = Vec<String>;

/// What changes something. It goes into the log once it can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Lease this, of which there are `limit` leases at a time. Waits for a free one. Gives [`Outcome::Granted`].
    Acquire {
        /// What.
        of: LeaseName,
        /// How many leases there are of it. All who ask while there are any must say the same.
        limit: u32,
        /// For how long the lease lasts when its session is not heard, in milliseconds.
        lease_ms: u32,
    },
    /// End a lease. Gives [`Outcome::Flag`]: whether it was there.
    Release {
        /// Of what.
        of: LeaseName,
        /// Which one.
        token: u64,
    },
    /// Set an event.
    SetEvent(String),
    /// Clear an event.
    ClearEvent(String),
    /// Add to a queue's end. Waits until it has fewer than `maxsize` values; 0 for no limit.
    Put {
        /// Which queue.
        queue: String,
        /// Its limit.
        maxsize: u64,
        /// What.
        value: Bytes,
    },
    /// Add to a queue's front what was got by one who did not want it any more.
    PutBack {
        /// Which queue.
        queue: String,
        /// What.
        value: Bytes,
    },
    /// Take from a queue's front. Waits for a value. Gives [`Outcome::Value`].
    Get {
        /// Which queue.
        queue: String,
    },
    /// Drop what is in a queue. Gives [`Outcome::Count`].
    ClearQueue(String),
    /// Set a variable.
    SetVariable {
        /// Which.
        name: String,
        /// To what.
        value: Bytes,
    },
    /// Forget a variable's value. Gives [`Outcome::Flag`]: whether it had one.
    DeleteVariable(String),
    /// Put these leaves, each with its JSON, in the place of what is at `path`.
    SetMetadata {
        /// Where.
        path: Path,
        /// Paths that begin with `path`.
        leaves: Vec<(Path, String)>,
    },
    /// Forget what is at a path. Gives [`Outcome::Flag`]: whether there was anything.
    DeleteMetadata(Path),
    /// Add an event to a topic. Gives [`Outcome::Count`]: its number.
    Log {
        /// Which topic.
        topic: String,
        /// When, in milliseconds since 1970. The coordinator says it.
        at_unix_ms: u64,
        /// What, as JSON.
        value: String,
    },
}

/// What changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Read {
    /// How many leases there are. Gives [`Outcome::Count`].
    Leases(LeaseName),
    /// Whether an event is set. Gives [`Outcome::Flag`].
    IsSet(String),
    /// Wait until an event is set.
    WaitSet(String),
    /// How many values are in a queue. Gives [`Outcome::Count`].
    Len(String),
    /// A variable's value. Waits until it has one. Gives [`Outcome::Value`].
    Variable(String),
    /// What is at a path and below it. Gives [`Outcome::Leaves`].
    Metadata(Path),
    /// The events of a topic after the one of this number. Waits until there is one. Gives [`Outcome::Events`].
    Events {
        /// Which topic.
        topic: String,
        /// After which one; they count from 1.
        after: u64,
    },
    /// The number of a topic's last event, 0 if it has none. Gives [`Outcome::Count`].
    LastEvent(String),
    /// The names of all topics. Gives [`Outcome::Names`].
    Topics,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// For a change.
    Change(Change),
    /// For what is.
    Read(Read),
    /// Wait until so many wait at this barrier. Gives [`Outcome::Passed`].
    Arrive {
        /// The barrier.
        barrier: String,
        /// How many. All who wait must say the same.
        parties: u32,
    },
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It could not be done in the time that it was given.
    TimedOut,
    /// It was taken back in time.
    Cancelled,
    /// A lease, with its fencing token: later grants of the same name have greater ones.
    Granted(u64),
    /// Yes or no.
    Flag(bool),
    /// So many.
    Count(u64),
    /// A value.
    Value(Bytes),
    /// All are there.
    Passed {
        /// Which meeting it was: later ones at the same barrier have greater ones.
        generation: u64,
        /// Which of the parties this one is, from 0.
        index: u32,
    },
    /// Metadata: each leaf with its JSON.
    Leaves(Vec<(Path, String)>),
    /// Events, in their order.
    Events(Vec<Logged>),
    /// Names, in their order.
    Names(Vec<String>),
}

/// An event of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// Its number in its topic, from 1.
    pub number: u64,
    /// When it was logged, in milliseconds since 1970, by the clock of the node that held the scheduler.
    pub at_unix_ms: u64,
    /// What, as JSON.
    pub value: String,
}

/// Why a request was not done. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The name is empty or too long.
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes, and this one has {nbytes}")]
    BadName {
        /// Its length.
        nbytes: usize,
    },
    /// The value is too large.
    #[error(
        "a value of {nbytes} bytes is more than the {max} that are taken: share a Future of it, or a file's name, instead"
    )]
    TooLarge {
        /// Its size, encoded.
        nbytes: usize,
        /// The limit.
        max: usize,
    },
    /// There is no room for more values.
    #[error(
        "what the cluster keeps in queues, variables, metadata and events has reached its bound of {VALUES_BYTES_MAX} bytes, or metadata that of {METADATA_BYTES_MAX}: get or delete some of it"
    )]
    OutOfRoom,
    /// A number is out of its bounds.
    #[error("{what} must be from {least} to {most}")]
    OutOfBounds {
        /// What it is.
        what: String,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// Others lease it with another limit.
    #[error("the semaphore has {limit} leases as others have made it: say the same")]
    LimitDiffers {
        /// Theirs.
        limit: u32,
    },
    /// Others wait with another number.
    #[error("the barrier waits for {parties} parties as others have said: say the same")]
    PartiesDiffer {
        /// Theirs.
        parties: u32,
    },
    /// What is there has no keys.
    #[error("the metadata at {} is no object, so nothing can be set below it: delete it first", .path.join("."))]
    NotAnObject {
        /// What is there.
        path: Path,
    },
    /// There are too many topics.
    #[error("the cluster has {} topics already: log to one of them", super::TOPICS_MAX)]
    TooManyTopics,
    /// Too many sessions are known.
    #[error("{} clients coordinate already, or did in the last ten minutes: try again later", super::SESSIONS_MAX)]
    TooManySessions,
    /// Too many requests wait.
    #[error("too many requests wait already: try again later")]
    TooManyWaiting,
    /// The session is not known: it was not heard for too long.
    #[error(
        "the client was out of reach for so long that its leases have ended, and what it had asked for last may or may not have been done"
    )]
    Expired,
}

/// What a session says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSession {
    /// Do this. Answered by [`ToSession::Answer`], once.
    Request {
        /// Its number, greater than that of any before it.
        number: u64,
        /// Answers in the sequence up to this one have all been seen.
        seen: u64,
        /// For how long it may wait, in milliseconds; `None` for as long as it takes.
        wait_ms: Option<u64>,
        /// What.
        ask: Ask,
    },
    /// Wait no more with this one. Answered by [`Outcome::Cancelled`] if that is in time.
    Cancel {
        /// The request.
        number: u64,
    },
    /// Still here. Answered by [`ToSession::Pong`].
    Ping {
        /// Comes back.
        number: u64,
        /// As in a request.
        seen: u64,
    },
    /// Gone: end its leases.
    Leave,
}

/// What the coordinator says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSession {
    /// The session is known: first of all, on every link.
    Opened,
    /// The session is not known, or cannot be: last of all.
    NotOpened(Refused),
    /// To a request.
    Answer {
        /// Which one.
        number: u64,
        /// Its place among what was done for the session, from 1; `None` if nothing was, and it is not remembered.
        seq: Option<u64>,
        /// What came of it.
        outcome: Result<Outcome, Refused>,
    },
    /// To a ping.
    Pong {
        /// Of this number.
        number: u64,
    },
    /// A lease has ended because the session was not heard for so long.
    Lost {
        /// Its token.
        token: u64,
    },
}

/// What goes into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A session begins.
    Open(SessionId),
    /// A session ends, with its leases and with what was remembered for it.
    Close(SessionId),
    /// Something is done for a session.
    Do {
        /// For which request.
        request: RequestId,
        /// Up to where it has seen answers.
        seen: u64,
        /// What.
        change: Change,
    },
    /// All that a barrier waits for are there.
    Pass(Vec<RequestId>),
    /// A lease ends because its session was not heard.
    Expire {
        /// Of what.
        of: LeaseName,
        /// Which one.
        token: u64,
    },
    /// A session has seen answers up to this one.
    Seen {
        /// Which session.
        session: SessionId,
        /// Up to where.
        seen: u64,
    },
}

impl Ask {
    /// Whether it is within the bounds that hold whatever there is.
    pub fn check(&self) -> Result<(), Refused> {
        match self {
            Ask::Change(change) => change.check(),
            Ask::Read(read) => read.check(),
            Ask::Arrive { barrier, parties } => {
                name(barrier)?;
                bounded("the number of parties", u64::from(*parties), 1, super::WAITERS_MAX as u64)
            }
        }
    }
}

impl Change {
    fn check(&self) -> Result<(), Refused> {
        match self {
            Change::Acquire { of, limit, lease_ms } => {
                name(&of.name)?;
                bounded("the number of leases", u64::from(*limit), 1, u64::from(u32::MAX))?;
                let [least, most] = [LEASE_MS_MIN, LEASE_MS_MAX].map(u64::from);
                bounded("a lease's milliseconds", u64::from(*lease_ms), least, most)
            }
            Change::Release { of, .. } => name(&of.name),
            Change::SetEvent(of) | Change::ClearEvent(of) | Change::ClearQueue(of) | Change::DeleteVariable(of) => {
                name(of)
            }
            Change::Get { queue } => name(queue),
            Change::Put { queue: of, value, .. }
            | Change::PutBack { queue: of, value }
            | Change::SetVariable { name: of, value } => {
                name(of)?;
                size(value.len(), VALUE_BYTES_MAX)
            }
            Change::SetMetadata { path: at, leaves } => {
                path(at)?;
                bounded("the number of values set at once", leaves.len() as u64, 1, LEAVES_MAX as u64)?;
                leaves.iter().try_for_each(|(leaf, text)| {
                    path(leaf)?;
                    size(text.len(), TEXT_BYTES_MAX)
                })?;
                // As a whole it is a value like any other.
                size(self.nbytes(), VALUE_BYTES_MAX)?;
                metadata::check_leaves(at, leaves)
            }
            Change::DeleteMetadata(at) => path(at),
            Change::Log { topic, value, .. } => {
                name(topic)?;
                size(value.len(), TEXT_BYTES_MAX)
            }
        }
    }

    /// About how many bytes it takes in the log.
    pub(super) fn nbytes(&self) -> usize {
        let own = match self {
            Change::Put { value, .. } | Change::PutBack { value, .. } | Change::SetVariable { value, .. } => {
                value.len()
            }
            Change::SetMetadata { leaves, .. } => {
                let parts = |(path, text): &(Path, String)| path.iter().map(String::len).sum::<usize>() + text.len();
                leaves.iter().map(parts).sum()
            }
            Change::Log { value, .. } => value.len(),
            _ => 0,
        };
        own + NAME_BYTES_MAX
    }
}

impl Read {
    fn check(&self) -> Result<(), Refused> {
        match self {
            Read::Leases(of) => name(&of.name),
            Read::IsSet(of) | Read::WaitSet(of) | Read::Len(of) | Read::Variable(of) | Read::LastEvent(of) => name(of),
            Read::Events { topic, .. } => name(topic),
            Read::Metadata(at) => path(at),
            Read::Topics => Ok(()),
        }
    }
}

impl Step {
    /// About how many bytes it takes in the log.
    pub(super) fn nbytes(&self) -> usize {
        match self {
            Step::Do { change, .. } => change.nbytes(),
            Step::Pass(waiting) => waiting.len() * 32,
            Step::Open(_) | Step::Close(_) | Step::Expire { .. } | Step::Seen { .. } => NAME_BYTES_MAX,
        }
    }
}

fn name(name: &str) -> Result<(), Refused> {
    match name.len() {
        1..=NAME_BYTES_MAX => Ok(()),
        nbytes => Err(Refused::BadName { nbytes }),
    }
}

fn path(path: &[String]) -> Result<(), Refused> {
    bounded("the number of keys in a metadata path", path.len() as u64, 0, PATH_PARTS_MAX as u64)?;
    path.iter().try_for_each(|part| name(part))
}

fn size(nbytes: usize, max: usize) -> Result<(), Refused> {
    if nbytes <= max { Ok(()) } else { Err(Refused::TooLarge { nbytes, max }) }
}

fn bounded(what: &str, number: u64, least: u64, most: u64) -> Result<(), Refused> {
    if (least..=most).contains(&number) {
        Ok(())
    } else {
        Err(Refused::OutOfBounds { what: what.to_owned(), least, most })
    }
}
