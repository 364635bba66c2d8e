//! What must hold between events. A failure here is a fault of ours, never of a peer's.

use std::collections::BTreeMap;

use crate::ids::{JobId, TaskId};

use super::Scheduler;
use super::pool::{Room, Slot};
use super::record::{Job, QueuedAt, Record, State};
use super::view::StateCounts;

/// What the records say of the queues and the workers, added up.
#[derive(Debug, Default)]
struct Sums {
    roots: usize,
    parked: usize,
    queued: BTreeMap<Slot, usize>,
    processing: BTreeMap<Slot, usize>,
    held: BTreeMap<Slot, (usize, u64)>,
    occupancy_us: BTreeMap<Slot, u64>,
}

impl Scheduler {
    /// Panics if the machine's records contradict each other. Costs a pass over everything.
    pub fn check_invariants(&self) {
        assert!(self.ready.is_empty() && self.loose.is_empty() && self.roomy.is_empty(), "an event was not ended");
        assert!(self.bytes_at.iter().all(|bytes| *bytes == 0));
        let mut sums = Sums::default();
        for (id, job) in self.jobs.iter() {
            assert!(self.clients.get(&job.client).is_some_and(|jobs| jobs.contains(&id)), "{id:?} is of no client");
            self.check_job(id, job, &mut sums);
        }
        self.pool.check();
        self.check_workers(&sums);
        assert_eq!(self.roots.len(), sums.roots, "the roots' queue is counted wrongly");
        assert_eq!(self.parked.len(), sums.parked, "the parked tasks are counted wrongly");
        if sums.parked > 0 {
            assert!(self.pool.is_empty(), "tasks wait for a worker and there is one");
        }
        if sums.roots > 0 || !sums.queued.is_empty() {
            for (_, worker) in self.pool.iter() {
                assert!(worker.room() >= Room::Open, "worker {:?} has room and tasks are queued", worker.id);
            }
        }
    }

    fn check_job(&self, id: JobId, job: &Job, sums: &mut Sums) {
        let mut counts = StateCounts::default();
        let mut live = 0;
        // Each edge: the input, and whether the dependent is pending.
        let mut edges: Vec<(u32, bool)> = Vec::new();
        for (index, record) in job.iter() {
            live += 1;
            counts.add(record.state.view(), 1);
            self.check_record(TaskId::new(id, index), job, record, sums);
            for input in &record.inputs {
                assert!(*input < index && job.get(*input).is_some(), "task {index}: its input {input} is not known");
                edges.push((*input, record.state.is_pending()));
            }
        }
        assert_eq!(counts, job.counts, "the states are counted wrongly");
        assert_eq!(live, job.len());
        edges.sort_unstable();
        let mut edges = edges.into_iter().peekable();
        for (index, record) in job.iter() {
            let (mut dependents, mut waiters) = (0, 0);
            while let Some((_, is_pending)) = edges.next_if(|edge| edge.0 == index) {
                dependents += 1;
                waiters += u32::from(is_pending);
            }
            let listed = record.dependents.iter().filter(|at| job.get(**at).is_some()).count();
            assert_eq!(record.dependents_live, dependents, "task {index}: dependents");
            assert_eq!(listed, dependents as usize, "task {index}: list of dependents");
            assert_eq!(record.waiters, waiters, "task {index}: waiters");
        }
    }

    fn check_record(&self, task: TaskId, job: &Job, record: &Record, sums: &mut Sums) {
        assert!(record.is_needed() || record.dependents_live > 0, "{task} should have been forgotten");
        let not_there = record
            .inputs
            .iter()
            .filter(|input| !job.get(**input).is_some_and(|record| record.state.is_memory()))
            .count() as u32;
        match &record.state {
            State::Released => assert!(!record.is_needed(), "{task} is needed and released"),
            State::Waiting { unfinished } => {
                assert!(*unfinished > 0, "{task} is ready and was not placed");
                assert_eq!(*unfinished, not_there, "{task} waits for something else");
            }
            State::Queued { at } => {
                assert_eq!(not_there, 0, "{task} is queued without its inputs");
                let queue = match at {
                    QueuedAt::Roots => {
                        sums.roots += 1;
                        Some(&self.roots)
                    }
                    QueuedAt::Worker(slot) => {
                        *sums.queued.entry(*slot).or_default() += 1;
                        self.pool.get(*slot).map(|worker| &worker.queue)
                    }
                };
                // Looking an entry up in a long queue would make the check quadratic.
                if let Some(queue) = queue.filter(|queue| queue.len() < 50) {
                    assert!(queue.contains(record.priority, task), "{task} is not in its queue");
                }
            }
            State::NoWorker => {
                assert_eq!(not_there, 0, "{task} is parked without its inputs");
                sums.parked += 1;
            }
            State::Processing { worker, position, expected_us } => {
                assert_eq!(not_there, 0, "{task} is processed without its inputs");
                let at = self.pool.get(*worker).and_then(|worker| worker.processing.get(*position as usize));
                assert_eq!(at, Some(&task), "{task} is not where it is processed");
                *sums.processing.entry(*worker).or_default() += 1;
                *sums.occupancy_us.entry(*worker).or_default() += u64::from(*expected_us);
            }
            State::Memory { nbytes, holders } => {
                assert!(record.is_needed(), "{task} is kept for nobody");
                assert!(!holders.is_empty(), "{task} is held by nobody");
                for (at, slot) in holders.iter().enumerate() {
                    assert!(!holders[..at].contains(slot), "{task} names a holder twice");
                    let held = sums.held.entry(*slot).or_default();
                    held.0 += 1;
                    held.1 = held.1.saturating_add(*nbytes);
                }
            }
            State::Erred { .. } => {
                assert_eq!(record.waiters, 0, "{task} has failed and is waited for");
            }
        }
        assert!(!record.announced || (record.wanted && record.state.is_memory()), "{task} was announced and is gone");
        assert!(
            !record.is_scattered()
                || matches!(record.state, State::Memory { .. } | State::Erred { .. } | State::Released)
        );
    }

    fn check_workers(&self, sums: &Sums) {
        for (slot, worker) in self.pool.iter() {
            let id = worker.id;
            assert_eq!(worker.queue.len(), sums.queued.get(&slot).copied().unwrap_or(0), "{id:?}: queue");
            assert_eq!(worker.processing.len(), sums.processing.get(&slot).copied().unwrap_or(0), "{id:?}: processing");
            assert_eq!(worker.occupancy_us, sums.occupancy_us.get(&slot).copied().unwrap_or(0), "{id:?}: occupancy");
            let (outputs, nbytes) = sums.held.get(&slot).copied().unwrap_or_default();
            assert_eq!(worker.held_live, outputs, "{id:?}: outputs");
            assert_eq!(self.has_what(id).len(), outputs, "{id:?}: list of outputs");
            if nbytes < u64::MAX {
                assert_eq!(worker.nbytes, nbytes, "{id:?}: bytes");
            }
        }
        for slot in sums.held.keys().chain(sums.queued.keys()).chain(sums.processing.keys()) {
            assert!(self.pool.get(*slot).is_some(), "a record names a worker that is gone");
        }
    }
}
