//! What must hold between events. A failure here is a fault of ours, never of a peer's.

use std::collections::BTreeMap;

use crate::ids::{JobId, TaskId};
use crate::spec::Resources;

use super::Scheduler;
use super::classes::ClassId;
use super::pool::{Room, Slot};
use super::record::{Job, NOBODY, Phase, QueuedAt, Record, State};
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
    /// How many were sent ahead, are suspended, are asked back.
    phases: BTreeMap<Slot, (usize, usize, usize)>,
    used: BTreeMap<Slot, Resources>,
    classes: BTreeMap<ClassId, u64>,
    queued_in: BTreeMap<ClassId, usize>,
}

impl Scheduler {
    /// Panics if the machine's records contradict each other. Costs a pass over everything.
    pub fn check_invariants(&self) {
        assert!(self.ready.is_empty() && self.loose.is_empty() && self.roomy.is_empty(), "an event was not ended");
        assert!(self.ahead.is_empty() && self.ahead_roomy.is_empty(), "an event was not ended");
        assert!(self.bytes_at.iter().all(|bytes| *bytes == 0));
        let mut sums = Sums::default();
        let kept = self.kept_jobs();
        for (id, job) in self.jobs.iter() {
            let has_client = self.clients.get(&job.client).is_some_and(|jobs| jobs.contains(&id));
            let is_in_between = kept.contains(&id) || self.recovery.awaits(id);
            assert!(has_client || job.client == NOBODY && is_in_between, "{id:?} is of no client");
            self.check_job(id, job, &mut sums);
        }
        self.pool.check();
        self.check_workers(&sums);
        assert_eq!(self.roots.len(), sums.roots, "the roots' queue is counted wrongly");
        assert_eq!(self.parked.len(), sums.parked, "the parked tasks are counted wrongly");
        assert_eq!(
            self.live,
            self.jobs.iter().map(|(_, job)| job.len() as u64).sum::<u64>(),
            "tasks are counted wrongly"
        );
        if sums.roots > 0 || !sums.queued.is_empty() {
            for (_, worker) in self.pool.iter() {
                assert!(worker.room() >= Room::Open, "worker {:?} has room and tasks are queued", worker.id);
            }
        }
        self.check_classes(&sums);
        self.moves.check();
        self.check_copies();
        for (task, to) in self.moves.iter() {
            assert!(
                self.jobs.get(task).is_some_and(|record| record.state.is_memory()),
                "{task} is copied and not there"
            );
            assert!(self.pool.get(to).is_some(), "{task} is copied to a worker that is gone");
        }
    }

    fn check_classes(&self, sums: &Sums) {
        self.classes.check(&sums.classes);
        for (id, class) in self.classes.iter() {
            assert_eq!(class.queue.len(), sums.queued_in.get(&id).copied().unwrap_or(0), "{id:?}: queue");
            if class.queue.is_empty() {
                continue;
            }
            assert!(!class.eligible().is_empty(), "{id:?} has a queue and no workers");
            for worker in class.eligible().iter().filter_map(|slot| self.pool.get(*slot)) {
                let has_left = worker.has_left(&class.requirements.resources);
                assert!(
                    worker.room() == Room::Full || !has_left,
                    "worker {:?} could run what {id:?} queues",
                    worker.id
                );
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
        if record.class != ClassId::ANY {
            *sums.classes.entry(record.class).or_default() += 1;
        }
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
                    QueuedAt::Class(class) => {
                        assert_eq!(*class, record.class, "{task} is queued with another class");
                        *sums.queued_in.entry(*class).or_default() += 1;
                        self.classes.get(*class).map(|class| &class.queue)
                    }
                };
                // Looking an entry up in a long queue would make the check quadratic.
                if let Some(queue) = queue.filter(|queue| queue.len() < 50) {
                    assert!(queue.contains(record.priority, task), "{task} is not in its queue");
                }
            }
            State::NoWorker => {
                assert_eq!(not_there, 0, "{task} is parked without its inputs");
                let eligible = self.classes.get(record.class).map_or(self.pool.len(), |class| class.eligible().len());
                assert_eq!(eligible, 0, "{task} waits for a worker and there is one");
                sums.parked += 1;
            }
            State::Processing { worker, position, expected_us, phase } => {
                self.check_phase(task, job, record, *worker, *phase, not_there, sums);
                let at = self.pool.get(*worker).and_then(|worker| worker.processing.get(*position as usize));
                assert_eq!(at, Some(&task), "{task} is not where it is processed");
                *sums.processing.entry(*worker).or_default() += 1;
                *sums.occupancy_us.entry(*worker).or_default() += u64::from(*expected_us);
                if let Some(class) = self.classes.get(record.class) {
                    let used = sums.used.entry(*worker).or_default();
                    for (name, needed) in &class.requirements.resources {
                        used.entry(name.clone()).or_default().0 += needed.0;
                    }
                }
            }
            State::Memory { nbytes, holders } => {
                assert!(record.is_needed(), "{task} is kept for nobody");
                assert!(!holders.is_empty(), "{task} is held by nobody");
                self.check_copies_of(task, record);
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

    fn check_phase(
        &self,
        task: TaskId,
        job: &Job,
        record: &Record,
        slot: Slot,
        phase: Phase,
        not_there: u32,
        sums: &mut Sums,
    ) {
        let phases = sums.phases.entry(slot).or_default();
        match phase {
            Phase::Ahead { unfinished } => {
                phases.0 += 1;
                assert_eq!(not_there, unfinished, "{task} was sent ahead of something else");
                for input in &record.inputs {
                    let is_fit = match job.get(*input).map(|record| &record.state) {
                        Some(State::Memory { .. }) => true,
                        Some(State::Processing { worker, .. }) => *worker == slot,
                        _ => false,
                    };
                    assert!(is_fit, "{task} was sent ahead of {input}, which is not computed there");
                }
            }
            Phase::Suspended => phases.1 += 1,
            Phase::Asked { .. } => phases.2 += 1,
            Phase::Sent | Phase::Begun => {}
        }
        if !matches!(phase, Phase::Ahead { .. }) {
            assert_eq!(not_there, 0, "{task} is processed without its inputs");
        }
    }

    fn check_workers(&self, sums: &Sums) {
        for (slot, worker) in self.pool.iter() {
            let id = worker.id;
            assert_eq!(worker.queue.len(), sums.queued.get(&slot).copied().unwrap_or(0), "{id:?}: queue");
            assert_eq!(worker.processing.len(), sums.processing.get(&slot).copied().unwrap_or(0), "{id:?}: processing");
            assert_eq!(worker.occupancy_us, sums.occupancy_us.get(&slot).copied().unwrap_or(0), "{id:?}: occupancy");
            assert_eq!(worker.phases(), sums.phases.get(&slot).copied().unwrap_or_default(), "{id:?}: phases");
            assert_eq!(*worker.used(), sums.used.get(&slot).cloned().unwrap_or_default(), "{id:?}: resources");
            for (name, used) in worker.used() {
                assert!(worker.info.resources.get(name).is_some_and(|total| total >= used), "{id:?}: too much {name}");
            }
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
