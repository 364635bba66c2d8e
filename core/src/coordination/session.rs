//! A session, as the ledger knows it: its leases, and what it may ask for again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ask::{LeaseName, Outcome};
use super::state::ENTRY_BYTES;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// What came of requests whose answers it may not have seen, by their numbers, with their places in the sequence of all that
    /// was done for it.
    answers: BTreeMap<u64, (u64, Outcome)>,
    /// The last place.
    last_seq: u64,
    /// All and only its leases.
    pub(super) leases: BTreeSet<(LeaseName, u64)>,
}

fn cost(outcome: &Outcome) -> u64 {
    ENTRY_BYTES + if let Outcome::Value(value) = outcome { value.len() as u64 } else { 0 }
}

impl Session {
    /// The bytes of what is remembered.
    pub(super) fn nbytes(&self) -> u64 {
        self.answers.values().map(|(_, outcome)| cost(outcome)).sum()
    }

    pub(super) fn answer(&self, number: u64) -> Option<(u64, Outcome)> {
        self.answers.get(&number).cloned()
    }

    pub(super) fn answers_len(&self) -> usize {
        self.answers.len()
    }

    /// Remembers what came of a request. Gives its place, and the bytes that it takes.
    pub(super) fn remember(&mut self, number: u64, outcome: Outcome) -> (u64, u64) {
        self.last_seq += 1;
        let added = cost(&outcome);
        self.answers.insert(number, (self.last_seq, outcome));
        (self.last_seq, added)
    }

    /// A lease has ended that it may not know of yet: it is not told any more that it was granted.
    pub(super) fn forget_grant(&mut self, token: u64) {
        for (_, outcome) in self.answers.values_mut().filter(|(_, outcome)| *outcome == Outcome::Granted(token)) {
            *outcome = Outcome::TimedOut;
        }
    }

    /// Forgets what it has seen. Gives the bytes that went.
    pub(super) fn has_seen(&mut self, seen: u64) -> u64 {
        let mut freed = 0;
        self.answers.retain(|_, (seq, outcome)| {
            let is_kept = *seq > seen;
            freed += if is_kept { 0 } else { cost(outcome) };
            is_kept
        });
        freed
    }
}
