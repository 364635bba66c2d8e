//! Typed ids. A wrong id is a compile error, not a lookup that finds nothing.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// A moment, in microseconds since an origin that the caller chose. Only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// Microseconds from `earlier` to `self`; 0 if `earlier` is later.
    pub fn micros_since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A node of the mesh: its ed25519 public key, which the transport has authenticated.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// All of it in hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
    }
}

impl fmt::Display for NodeId {
    /// The first 12 hex digits: enough for a person to tell two nodes apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// One registration of a worker at the scheduler. A worker that comes back gets a new one, so that messages from
/// before its loss can be told from messages after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

impl WorkerId {
    const BITS: u32 = 16;

    /// The first that a scheduler of this term gives out, so that ids of neighbouring terms are apart.
    pub const fn first_of(term: Term) -> WorkerId {
        WorkerId((term.0 as u32) << WorkerId::BITS)
    }

    /// Which one it is of its term's, counted from 0: for people.
    pub const fn number(self) -> u32 {
        self.0 & ((1 << WorkerId::BITS) - 1)
    }
}

/// One connection of a client to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub u32);

/// A job: the tasks that one client submitted under one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u32);

/// A task: a dense index inside its job. The client numbers its own tasks, from 0 and without gaps.
///
/// Where it names an output, it may name one part of it instead of all. Only a worker's inputs and stores know of parts:
/// the scheduler deals in whole outputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    /// The job that the task belongs to.
    pub job: JobId,
    /// The task's place in the job, dense from 0.
    pub index: u32,
    /// 0 for the whole output, otherwise one more than the number of the part that is meant.
    part: u32,
}

impl TaskId {
    /// The task `index` of `job`, and the whole of its output.
    pub const fn new(job: JobId, index: u32) -> TaskId {
        TaskId { job, index, part: 0 }
    }

    /// Part `number` of this task's output. The last number of all names no part and gives the whole.
    pub const fn part(self, number: u32) -> TaskId {
        TaskId { part: number.wrapping_add(1), ..self }
    }

    /// The whole of the output that this is a part of.
    pub const fn whole(self) -> TaskId {
        TaskId { part: 0, ..self }
    }

    /// Whether this names a part of an output.
    pub const fn is_part(self) -> bool {
        self.part != 0
    }

    /// The number of the part that this names; `None` for a whole output.
    pub const fn part_number(self) -> Option<u32> {
        self.part.checked_sub(1)
    }
}

impl Hash for TaskId {
    /// As cheap as without parts, of which a table has few numbers, and mostly none.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.job.0);
        state.write_u64(u64::from(self.part) << 32 | u64::from(self.index));
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job.0, self.index)?;
        self.part_number().map_or(Ok(()), |number| write!(f, "/{number}"))
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

/// What a task runs: a function of the binary, named by a hash of its path, signature and version, which is the same in
/// every build of the same source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KindId(pub u64);

impl fmt::Debug for KindId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KindId({:016x})", self.0)
    }
}

/// The scheduler's term of office. A message of an older term is from a deposed scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

impl Term {
    const BITS: u32 = 20;

    /// The term before the first of a cluster that was founded at this time: later than every term of one that was founded
    /// before, so that those who knew that one follow the new one. `chance` keeps their attempts apart.
    pub const fn before_founding(unix_seconds: u64, chance: u32) -> Term {
        Term(unix_seconds << Term::BITS | (chance & 0x7ff) as u64)
    }

    /// The term so many elections later.
    pub const fn after(self, elections: u64) -> Term {
        Term(self.0.saturating_add(elections))
    }

    /// What tells it from others, for people.
    pub const fn number(self) -> u64 {
        self.0 & ((1 << Term::BITS) - 1)
    }
}

/// Which try of a task an assignment is. Whatever carries another attempt than the current one is late or doubled, and is
/// ignored. A scheduler counts from [`Attempt::first_of`] its term, so that no two terms give out the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt(pub u32);

impl Attempt {
    const BITS: u32 = 20;

    /// What a scheduler of this term counts on from. Terms share a number only when four thousand lie between them.
    pub const fn first_of(term: Term) -> Attempt {
        Attempt((term.0 as u32) << Attempt::BITS)
    }

    /// Which one it is of its term's, counted from 1: for people.
    pub const fn number(self) -> u32 {
        self.0 & ((1 << Attempt::BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_named_after_its_whole_and_is_another_key() {
        let whole = TaskId::new(JobId(3), 7);
        let part = whole.part(0);
        assert_eq!(
            (whole.to_string(), part.to_string(), whole.part(12).to_string()),
            ("3.7".into(), "3.7/0".into(), "3.7/12".into())
        );
        assert_eq!((part.is_part(), part.part_number(), part.whole()), (true, Some(0), whole));
        assert_eq!((whole.is_part(), whole.part_number(), whole.whole()), (false, None, whole));
        assert!(part != whole && part != whole.part(1) && part.part(4) == whole.part(4));
        assert_eq!(whole.part(u32::MAX), whole);
    }
}
