//! What a quorum of nodes remembers for the schedulers to come: the little that neither workers nor clients could tell a
//! new one. Every voter applies the same entries in the same order and so has the same ledger.
//!
//! It holds no task that its client could submit again, and no output: clients say anew what they want, workers what they
//! have.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::coordination::{Coordination, Step};
use crate::directory::ActorSpec;
use crate::ids::{JobId, Term};
use crate::spec::TaskSpec;
use crate::wire::KeptName;

/// How many bytes one entry may have, encoded.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many things are kept at most.
pub const KEPT_MAX: usize = 10_000;

/// One change of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The cluster was founded: its terms come after this one.
    Founded(Term),
    /// Job ids up to this one, and not this one, may be in use.
    JobsBelow(JobId),
    /// Keep this. It takes the place of what was kept under the same name.
    Keep(Arc<Kept>),
    /// Keep what has this name no longer.
    Forget(KeptName),
    /// Make these steps of the coordination, in their order.
    Coordinate(Arc<Vec<Step>>),
    /// This actor is spawned. It takes the place of what had the same name.
    Actor(Arc<ActorSpec>),
    /// The actor of this name is spawned no longer.
    ForgetActor(String),
}

/// Tasks that are computed, and whose outputs are kept, without a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What they are kept as.
    pub name: KeptName,
    /// Their job.
    pub job: JobId,
    /// The job's name.
    pub label: String,
    /// The tasks that are needed to compute what is wanted, in the order of their indices.
    pub tasks: Vec<TaskSpec>,
    /// Values that a client had put on workers, which cannot be computed, with their sizes in bytes.
    pub values: Vec<(u32, u64)>,
    /// The tasks whose outputs are wanted, in the order in which they were named.
    pub wanted: Vec<u32>,
}

/// The ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The terms of the cluster come after this one; the first if nothing is known of its founding.
    pub terms_after: Term,
    /// No scheduler has given out this job id, or any up to half of all ids above it.
    pub jobs_below: JobId,
    /// What is kept.
    pub kept: BTreeMap<KeptName, Arc<Kept>>,
    /// Locks, queues and what else programs coordinate with. Its tokens are greater than those of any ledger before.
    pub coordination: Arc<Coordination>,
    /// The actors that are spawned.
    pub actors: BTreeMap<String, Arc<ActorSpec>>,
}

impl Ledger {
    /// Makes the change.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Founded(term) => {
                self.terms_after = term;
                Arc::make_mut(&mut self.coordination).number_from(term.0);
            }
            Entry::JobsBelow(job) => self.jobs_below = job,
            Entry::Keep(kept) => drop(self.kept.insert(kept.name.clone(), kept)),
            Entry::Forget(name) => drop(self.kept.remove(&name)),
            Entry::Coordinate(steps) => Arc::make_mut(&mut self.coordination).apply(&steps),
            Entry::Actor(spec) => drop(self.actors.insert(spec.name.clone(), spec)),
            Entry::ForgetActor(name) => drop(self.actors.remove(&name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: KeptName, label: &str) -> Entry {
        let kept = Kept {
            name,
            job: JobId(7),
            label: label.to_owned(),
            tasks: Vec::new(),
            values: Vec::new(),
            wanted: vec![0],
        };
        Entry::Keep(Arc::new(kept))
    }

    #[test]
    fn a_name_stands_for_the_last_thing_that_was_kept_under_it() {
        let mut ledger = Ledger::default();
        let [job, set] = [KeptName::Job(JobId(7)), KeptName::DataSet("a".to_owned())];
        for entry in [kept(job.clone(), "x"), kept(set.clone(), "y"), kept(set.clone(), "z")] {
            ledger.apply(entry);
        }
        assert_eq!(ledger.kept.values().map(|kept| kept.label.as_str()).collect::<Vec<_>>(), ["x", "z"]);
        ledger.apply(Entry::Forget(set));
        ledger.apply(Entry::JobsBelow(JobId(40)));
        assert_eq!(ledger.kept.keys().collect::<Vec<_>>(), [&job]);
        let bytes = postcard::to_stdvec(&ledger).unwrap();
        assert_eq!(postcard::from_bytes::<Ledger>(&bytes).unwrap(), ledger);
    }
}
