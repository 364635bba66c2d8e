//! What a client asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ids::{KindId, TaskId};

/// One task as its client describes it. The payload (the encoded arguments) means nothing to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The task's id: the next index of its job.
    pub task: TaskId,
    /// The function to run.
    pub kind: KindId,
    /// The encoded arguments; `inputs` are referred to by position.
    pub payload: Bytes,
    /// The tasks whose outputs are arguments: tasks of the same job with a smaller index, so that a cycle cannot be
    /// said. May hold duplicates.
    pub inputs: SmallVec<[u32; 3]>,
    /// How the task is to be treated.
    pub options: TaskOptions,
}

/// How a task is to be treated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOptions {
    /// Higher runs first, whatever was submitted earlier.
    pub priority: i32,
    /// How often a task that returned an error, panicked or ran out of time is tried again. A lost worker is not counted
    /// here.
    pub retries: u16,
    /// Whether the client holds the result: it is told of the outcome, and the output is kept until it releases it.
    pub wanted: bool,
    /// How long one try may run, in milliseconds; 0 for no limit.
    pub timeout_ms: u32,
    /// What the task needs of a worker; `None` for nothing.
    pub requirements: Option<Arc<Requirements>>,
    /// Which part it takes of its inputs, if not all of each.
    pub part: Option<PartOf>,
    /// On how many workers the output shall be, on every one if there are fewer; 0 is as good as 1.
    pub replicas: u8,
}

impl Default for TaskOptions {
    fn default() -> TaskOptions {
        TaskOptions {
            priority: 0,
            retries: 0,
            wanted: true,
            timeout_ms: 0,
            requirements: None,
            part: None,
            replicas: 0,
        }
    }
}

/// A task that takes one part of each of some inputs, whose outputs are in parts: one of those that share a shuffle. Where
/// an input is not on the task's own worker, only this part of it is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartOf {
    /// The part that is taken, below `of`.
    pub index: u32,
    /// How many parts there are, all about equally large as far as the scheduler is concerned.
    pub of: NonZeroU32,
    /// The first input, by its place in [`TaskSpec::inputs`], that is taken in part; those before it are taken whole.
    pub from: u32,
}

impl PartOf {
    /// How many of an output's bytes a task takes that has it as the input at this place.
    pub fn share(part: Option<PartOf>, at: usize, nbytes: u64) -> u64 {
        part.filter(|part| part.covers(at)).map_or(nbytes, |part| nbytes.div_ceil(u64::from(part.of.get())))
    }

    /// Whether the input at this place is taken in part.
    pub fn covers(self, at: usize) -> bool {
        at >= self.from as usize
    }

    /// What is wrong with it for a task of so many inputs, for a person.
    pub fn problem(self, inputs: usize) -> Option<String> {
        if self.index >= self.of.get() {
            let Self { index, of, .. } = self;
            return Some(format!("part {index} of {of} does not exist: parts are numbered from 0"));
        }
        (self.from as usize > inputs).then(|| {
            format!("parts are taken from input {} on, and there are {inputs}: name an input of the task", self.from)
        })
    }
}

/// How many resources, and how many workers, a task may name.
pub const REQUIREMENTS_MAX: usize = 64;

/// How long the name of a resource or worker may be, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// What a task needs of the worker that runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirements {
    /// What it takes of the worker's resources while it runs.
    pub resources: Resources,
    /// The workers that may run it, each by its name, its host or the beginning of its node's id; empty for every one.
    pub workers: Vec<String>,
    /// Whether it may run elsewhere as long as none of `workers` is there.
    pub allow_other_workers: bool,
}

/// Abstract resources by name, such as `gpu`: what a worker has, or what a task takes of them.
pub type Resources = BTreeMap<String, Amount>;

/// How much there is of a resource, in thousandths, so that amounts can be added up without rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Amount(pub u64);

impl Amount {
    /// So many whole ones.
    pub const fn whole(count: u64) -> Amount {
        Amount(count.saturating_mul(1000))
    }

    /// From a text such as `2` or `0.5`; `None` if it is not a number with at most three decimals, or too large.
    pub fn parse(text: &str) -> Option<Amount> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || decimals.len() > 3 || !digits(whole) || !digits(decimals) {
            return None;
        }
        let thousandths: u64 = format!("{decimals:0<3}").parse().ok()?;
        whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths).map(Amount)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, thousandths) = (self.0 / 1000, self.0 % 1000);
        if thousandths == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{thousandths:03}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_a_share_of_what_is_taken_in_part() {
        let part = PartOf { index: 7, of: NonZeroU32::new(8).unwrap(), from: 1 };
        let shares = [0, 1, 2].map(|at| PartOf::share(Some(part), at, 81));
        assert_eq!((shares, PartOf::share(None, 5, 81)), ([81, 11, 11], 81));
        assert_eq!(size_of::<Option<PartOf>>(), 12);
        assert_eq!((part.problem(1), part.problem(9)), (None, None));
        assert!(part.problem(0).unwrap().contains("from input 1 on, and there are 0"));
        assert!(PartOf { index: 8, ..part }.problem(1).unwrap().contains("part 8 of 8"));
    }

    #[test]
    fn an_amount_is_read_as_it_is_written() {
        for (text, thousandths) in [("2", 2000), ("0.5", 500), ("1.25", 1250), ("0.001", 1), ("0", 0)] {
            assert_eq!(Amount::parse(text), Some(Amount(thousandths)));
            assert_eq!(Amount(thousandths).to_string(), text);
        }
        for text in ["", ".5", "-1", "1.2345", "1,5", "x", "99999999999999999999", "18446744073709551615"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }
}
