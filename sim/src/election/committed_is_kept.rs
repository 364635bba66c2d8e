//! What was acknowledged is in every later leader's ledger, and nothing is that nobody has proposed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use starling_core::ids::{JobId, NodeId, Term};
use starling_core::ledger::{Entry, Kept, Ledger};
use starling_core::wire::KeptName;

use super::world::World;

/// What was proposed and what of it was acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Oracle(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    proposed: u32,
    acknowledged: BTreeSet<u32>,
    /// How many were acknowledged when a leader's ledger was last compared.
    compared: BTreeMap<(NodeId, u64, Term), usize>,
}

impl Oracle {
    /// Another entry, with its number. Some are larger than others.
    pub(crate) fn next(&self, size: usize) -> (u32, Entry) {
        let mut state = self.state();
        state.proposed += 1;
        let job = JobId(state.proposed);
        let kept = Kept {
            name: KeptName::Job(job),
            job,
            label: "x".repeat(size),
            tasks: Vec::new(),
            values: Vec::new(),
            wanted: Vec::new(),
        };
        (state.proposed, Entry::Keep(Arc::new(kept)))
    }

    pub(crate) fn acknowledge(&self, number: u32) {
        self.state().acknowledged.insert(number);
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.state().acknowledged.len() as u64
    }

    /// Looks at who leads now.
    pub(crate) fn check(&self, world: &World) -> Result<(), String> {
        for (node, quorum) in world.running() {
            let Some(term) = quorum.still_leads() else { continue };
            let mut state = self.state();
            let known = state.acknowledged.len();
            if state.compared.insert((node.id, node.start, term), known) != Some(known) {
                state.compare(&quorum.ledger()).map_err(|error| format!("leader {} of {term:?}: {error}", node.id))?;
            }
        }
        Ok(())
    }

    /// Compares one ledger with what was acknowledged.
    pub(crate) fn compare(&self, ledger: &Ledger) -> Result<(), String> {
        self.state().compare(ledger)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn compare(&self, ledger: &Ledger) -> Result<(), String> {
        let lost = self.acknowledged.iter().find(|number| !ledger.kept.contains_key(&KeptName::Job(JobId(**number))));
        if let Some(number) = lost {
            return Err(format!("entry {number} was acknowledged and is gone"));
        }
        let invented = ledger.kept.values().find(|kept| kept.job.0 == 0 || kept.job.0 > self.proposed);
        invented.map_or(Ok(()), |kept| Err(format!("nobody has proposed {:?}", kept.name)))
    }
}
