//! What the simulated tasks compute: a number that follows from their payload and inputs, so that the oracle knows it.

use bytes::Bytes;
use starling_core::failure::FailureCause;
use starling_core::ids::KindId;
use starling_core::wire::KindInfo;

use crate::rng::mix;

/// Mixes its payload and inputs.
pub const MIX: KindId = KindId(1);
/// Always fails.
pub const FAIL: KindId = KindId(2);
/// Fails as often as its payload says, then mixes.
pub const FLAKY: KindId = KindId(3);
/// Never ends, or long after its time: is given up after [`HANG_TIMEOUT_MS`].
pub const HANG: KindId = KindId(4);
/// A kind that no node holds.
pub const UNKNOWN: KindId = KindId(99);

/// How long a task of the kind [`HANG`] may run.
pub const HANG_TIMEOUT_MS: u32 = 3;

/// The kinds that every node holds.
pub fn kinds() -> Vec<KindInfo> {
    [(MIX, "mix"), (FAIL, "fail"), (FLAKY, "flaky"), (HANG, "hang")]
        .map(|(kind, name)| KindInfo { kind, name: name.to_owned(), signature: "fn(..) -> u64".to_owned() })
        .to_vec()
}

/// What a task is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Makes the result differ from that of every other task.
    pub salt: u64,
    /// How many executions fail before one succeeds, if the kind is [`FLAKY`].
    pub failures: u8,
    /// Whether the result may ride in the completion.
    pub is_small: bool,
    /// Whether it has its client submit another task, and waits for that one.
    pub nests: bool,
    /// Which part it takes, and from which input on.
    pub takes: Option<(u32, u32)>,
}

impl Payload {
    /// The encoded payload.
    pub fn encode(self) -> Bytes {
        let mut bytes = self.salt.to_le_bytes().to_vec();
        bytes.extend([self.failures, u8::from(self.is_small), u8::from(self.nests)]);
        for number in self.takes.into_iter().flat_map(|(index, from)| [index, from]) {
            bytes.extend(number.to_le_bytes());
        }
        Bytes::from(bytes)
    }

    /// The payload of an assignment.
    pub fn decode(bytes: &[u8]) -> Option<Payload> {
        let (salt, rest) = bytes.split_first_chunk::<8>()?;
        let ([failures, is_small, nests], takes) = rest.split_first_chunk::<3>()?;
        let takes = match takes.as_chunks::<4>() {
            ([], []) => None,
            ([index, from], []) => Some((u32::from_le_bytes(*index), u32::from_le_bytes(*from))),
            _ => return None,
        };
        let salt = u64::from_le_bytes(*salt);
        Some(Payload { salt, failures: *failures, is_small: *is_small != 0, nests: *nests != 0, takes })
    }

    /// The number of the part that the task takes of its input at this place; `None` if it takes all of it.
    pub fn part_at(self, at: usize) -> Option<u32> {
        self.takes.filter(|(_, from)| at >= *from as usize).map(|(index, _)| index)
    }

    /// What the task takes of its input at this place, which is the whole value.
    pub fn take(self, at: usize, whole: u64) -> u64 {
        self.part_at(at).map_or(whole, |number| part(whole, number))
    }
}

/// A part of a value.
pub fn part(whole: u64, number: u32) -> u64 {
    mix(whole ^ u64::from(number).rotate_right(9))
}

/// The result of a task that does not fail, from what it takes of its inputs.
pub fn result(payload: Payload, inputs: &[u64]) -> u64 {
    inputs.iter().fold(mix(payload.salt), |sum, input| mix(sum.rotate_left(7) ^ input))
}

/// The size that a value is said to have, in bytes.
pub fn nbytes(value: u64) -> u64 {
    match value % 10 {
        0 => 0,
        1..=5 => value / 10 % 1_000,
        _ => value / 10 % 10_000_000,
    }
}

/// What a failing task says.
pub fn failure() -> FailureCause {
    FailureCause::Error { message: "the task was made to fail".to_owned(), sources: vec!["by the plan".to_owned()] }
}

/// What a store says that has no room.
pub fn no_room() -> String {
    "the store is full".to_owned()
}
