//! Which task ran where and when: kept while a client asks for it, and only then.
//!
//! A ring of the last [`RECORDS_MAX`] tasks that have ended, numbered from 0; the oldest go first, and whoever asks for them is told
//! how many are gone. Without anybody who asks there is no ring, and a task costs one look at an empty option.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::failure::TaskFailure;
use crate::ids::{Attempt, ClientId, TaskId, WorkerId};
use crate::task_stream::{StreamFailure, StreamPage, StreamWorker, TaskOutcome, TaskRecord};
use crate::wire::ToClient;

use super::pool::{PoolWorker, Slot};
use super::{Effects, Scheduler};

/// How many tasks are remembered.
pub const RECORDS_MAX: usize = 100_000;
/// How many records go in one answer.
pub const PAGE_RECORDS_MAX: usize = 4_096;
/// Of how many failures the text is remembered, and so many bytes of each.
const FAILURES_MAX: usize = 100;
const FAILURE_BYTES_MAX: usize = 500;
/// How many workers are remembered; of those that left, the oldest are forgotten first.
const WORKERS_MAX: usize = 10_000;

/// What is recorded, if somebody asks for it.
#[derive(Debug, Default)]
pub(super) struct Stream {
    ring: Option<Box<Ring>>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Who asks for it; never empty.
    clients: BTreeSet<ClientId>,
    /// The number of the first record that is there.
    first: u64,
    records: VecDeque<TaskRecord>,
    /// With the numbers of their records.
    failures: VecDeque<StreamFailure>,
    workers: BTreeMap<WorkerId, StreamWorker>,
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn add(&mut self, record: TaskRecord, worker: &PoolWorker) {
        if self.records.len() >= RECORDS_MAX {
            self.records.pop_front();
            self.first += 1;
        }
        if !self.workers.contains_key(&record.worker) {
            if self.workers.len() >= WORKERS_MAX {
                self.workers.pop_first();
            }
            self.workers.insert(record.worker, worker_of(worker));
        }
        self.records.push_back(record);
    }

    fn add_failure(&mut self, failure: &TaskFailure) {
        if self.failures.len() >= FAILURES_MAX {
            self.failures.pop_front();
        }
        let mut message = failure.to_string();
        message.truncate(message.floor_char_boundary(FAILURE_BYTES_MAX));
        self.failures.push_back(StreamFailure { number: self.end().saturating_sub(1), message });
    }
}

fn worker_of(worker: &PoolWorker) -> StreamWorker {
    StreamWorker { worker: worker.id, name: worker.info.name.clone(), nthreads: worker.nthreads() }
}

impl Scheduler {
    /// Answers with what is remembered from number `since` on, and records for this client from now on.
    pub(super) fn on_task_stream(&mut self, client: ClientId, token: u64, since: u64, effects: &mut Effects) {
        let ring = self.stream.ring.get_or_insert_default();
        ring.clients.insert(client);
        let end = ring.end();
        // What is not there yet begins with the next one.
        let first = since.clamp(ring.first, end);
        let skipped = (first - ring.first) as usize;
        let records: Vec<TaskRecord> = ring.records.iter().skip(skipped).take(PAGE_RECORDS_MAX).copied().collect();
        let numbers = first..first + records.len() as u64;
        let kinds: BTreeSet<_> = records.iter().map(|record| record.kind).collect();
        let named: BTreeSet<_> = records.iter().map(|record| record.worker).collect();
        let failures = ring.failures.iter().filter(|failure| numbers.contains(&failure.number)).cloned().collect();
        // Those that are there now are told in any case: also one that ran nothing was part of it.
        let present: BTreeSet<WorkerId> = self.pool.iter().map(|(_, worker)| worker.id).collect();
        let gone =
            ring.workers.values().filter(|worker| named.contains(&worker.worker) && !present.contains(&worker.worker));
        let workers = gone.cloned().chain(self.pool.iter().map(|(_, worker)| worker_of(worker))).collect();
        let page = StreamPage {
            term: self.term,
            now: self.now,
            first,
            end,
            forgotten: first.saturating_sub(since),
            records,
            kinds: kinds.into_iter().map(|kind| (kind, self.kinds.name_of_id(kind))).collect(),
            workers,
            failures,
        };
        effects.tell_client(client, ToClient::TaskStream { token, page: Box::new(page) });
    }

    /// This client asks no more. When nobody does, nothing is remembered.
    pub(super) fn end_task_stream(&mut self, client: ClientId) {
        let Some(ring) = &mut self.stream.ring else { return };
        ring.clients.remove(&client);
        if ring.clients.is_empty() {
            self.stream.ring = None;
        }
    }

    /// A task has ended on this worker.
    pub(super) fn record_task(
        &mut self,
        (task, attempt): (TaskId, Attempt),
        slot: Slot,
        run_us: u64,
        nbytes: u64,
        outcome: TaskOutcome,
    ) {
        let Some(ring) = &mut self.stream.ring else { return };
        let (Some(worker), Some(record)) = (self.pool.get(slot), self.jobs.get(task)) else { return };
        let kind = self.kinds.id(record.kind);
        ring.add(
            TaskRecord { task, kind, worker: worker.id, attempt, ended: self.now, run_us, nbytes, outcome },
            worker,
        );
    }

    /// Why the task that was recorded last has failed.
    pub(super) fn record_failure(&mut self, failure: &TaskFailure) {
        if let Some(ring) = &mut self.stream.ring {
            ring.add_failure(failure);
        }
    }
}
