//! What the scheduler knows of one task, and where the records live.
//!
//! A job's records lie in pages of [`PAGE_RECORDS`], indexed by the task's dense index; a page goes back to the
//! allocator when the last task on it is forgotten. Edges count with multiplicity: a task that names an input twice is
//! twice among its dependents, and every count below counts edges. So nothing has to be made distinct.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::failure::TaskFailure;
use crate::ids::{Attempt, ClientId, JobId, KindId, TaskId};
use crate::spec::{PartOf, TaskOptions, TaskSpec};
use crate::wire::Priority;

use super::classes::ClassId;
use super::pool::Slot;
use super::view::{StateCounts, TaskState};

/// How many records lie on one page.
pub(super) const PAGE_RECORDS: usize = 1024;

/// Stands for the client of a job that has none.
pub(super) const NOBODY: ClientId = ClientId(u32::MAX);

/// The kind of a value that a client scattered: there is no function that could compute it again.
pub(super) const KIND_SCATTERED: u32 = u32::MAX;

/// A list of dependents is searched for forgotten ones only when it is longer than this.
const DEPENDENTS_COMPACTED_MIN: usize = 16;

/// Where a queued task waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuedAt {
    /// In the queue of tasks without inputs, which any worker may take.
    Roots,
    /// In the queue of the worker that holds most of its inputs.
    Worker(Slot),
    /// In the queue of the tasks with the same requirements.
    Class(ClassId),
}

/// How far an assigned task is, as far as the scheduler knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Sent before its inputs: `unfinished` of its input edges are not in memory, and the same worker computes each of
    /// them first.
    Ahead { unfinished: u32 },
    /// Sent, with every input in memory; perhaps begun.
    Sent,
    /// Asked back, for this worker; its own worker here stands for any other one.
    Asked { thief: Slot },
    /// It was asked back and had begun.
    Begun,
    /// It waits for tasks that it has submitted itself, and does not count against its worker's threads.
    Suspended,
}

/// A task's state, with the data that it has in that state only. A forgotten task has no record.
#[derive(Debug)]
pub(super) enum State {
    /// Known, but neither computed nor needed now: its spec is kept because a dependent may have to run again.
    Released,
    /// Needed. `unfinished` of its input edges are not in memory; 0 only until the end of the event.
    Waiting { unfinished: u32 },
    /// Needed, every input in memory, and no worker has room.
    Queued { at: QueuedAt },
    /// Needed, every input in memory, and there is no worker that may run it.
    NoWorker,
    /// Assigned under the record's current attempt. `position` is its place in the worker's list.
    Processing { worker: Slot, position: u32, expected_us: u32, phase: Phase },
    /// The output is in the stores of these workers; never empty between events.
    Memory { nbytes: u64, holders: SmallVec<[Slot; 2]> },
    /// Failed for good, or because an input did.
    Erred { failure: Arc<TaskFailure> },
}

impl State {
    /// Whether the task has to be computed: then each of its input edges counts as a waiter at the input.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self, State::Waiting { .. } | State::Queued { .. } | State::NoWorker | State::Processing { .. })
    }

    pub(super) fn is_memory(&self) -> bool {
        matches!(self, State::Memory { .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self, State::Waiting { unfinished: 0 })
    }

    pub(super) fn view(&self) -> TaskState {
        match self {
            State::Released => TaskState::Released,
            State::Waiting { .. } => TaskState::Waiting,
            State::Queued { .. } => TaskState::Queued,
            State::NoWorker => TaskState::NoWorker,
            State::Processing { .. } => TaskState::Processing,
            State::Memory { .. } => TaskState::Memory,
            State::Erred { .. } => TaskState::Erred,
        }
    }
}

/// What the scheduler knows of one task.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) payload: Bytes,
    /// All of them have a record as long as this one exists.
    pub(super) inputs: SmallVec<[u32; 3]>,
    /// Every task that named this one as an input; forgotten ones are weeded out now and then.
    pub(super) dependents: SmallVec<[u32; 4]>,
    /// How many of `dependents` have a record.
    pub(super) dependents_live: u32,
    /// How many of `dependents` are pending, and so need this output.
    pub(super) waiters: u32,
    pub(super) priority: Priority,
    /// Index into the scheduler's kinds, or [`KIND_SCATTERED`].
    pub(super) kind: u32,
    /// What it needs of a worker.
    pub(super) class: ClassId,
    /// How long one try may run, in milliseconds; 0 for no limit.
    pub(super) timeout_ms: u32,
    /// Which part it takes of its inputs.
    pub(super) part: Option<PartOf>,
    /// The last attempt that was assigned; 0 if none was.
    pub(super) attempt: Attempt,
    pub(super) retries_left: u16,
    /// How many workers were lost while they ran this task.
    pub(super) workers_lost: u16,
    /// Whether the client holds the result.
    pub(super) wanted: bool,
    /// Whether the client believes the output to be there.
    pub(super) announced: bool,
    /// Whether some dependent has so few inputs that it may be sent ahead.
    pub(super) leads: bool,
    /// Under how many names the output is kept without a client.
    pub(super) keeps: u8,
    /// On how many workers the output shall be.
    pub(super) replicas: u8,
}

impl Record {
    /// A task that is new here, in this state and without dependents.
    pub(super) fn new(spec: TaskSpec, kind: u32, class: ClassId, priority: Priority, state: State) -> Record {
        let TaskSpec { payload, inputs, options, .. } = spec;
        Record {
            state,
            payload,
            inputs,
            dependents: SmallVec::new(),
            dependents_live: 0,
            waiters: 0,
            priority,
            kind,
            class,
            timeout_ms: options.timeout_ms,
            part: options.part,
            attempt: Attempt(0),
            retries_left: options.retries,
            workers_lost: 0,
            wanted: options.wanted,
            announced: false,
            leads: false,
            keeps: 0,
            replicas: options.replicas,
        }
    }

    /// A value that a client has put on workers, which wants it.
    pub(super) fn scattered(priority: Priority, state: State) -> Record {
        let spec = TaskSpec {
            task: TaskId::new(JobId(0), 0),
            kind: KindId(0),
            payload: Bytes::new(),
            inputs: SmallVec::new(),
            options: TaskOptions::default(),
        };
        Record::new(spec, KIND_SCATTERED, ClassId::ANY, priority, state)
    }

    /// Whether somebody needs the output, now or as soon as it is there.
    pub(super) fn is_needed(&self) -> bool {
        self.wanted || self.waiters > 0 || self.keeps > 0
    }

    /// The inputs, each with how many of its bytes the task takes if it is of so many.
    pub(super) fn shares(&self) -> impl Iterator<Item = (u32, impl Fn(u64) -> u64)> {
        let part = self.part;
        self.inputs.iter().enumerate().map(move |(at, input)| (*input, move |nbytes| PartOf::share(part, at, nbytes)))
    }

    pub(super) fn is_scattered(&self) -> bool {
        self.kind == KIND_SCATTERED
    }
}

#[derive(Debug, Default)]
struct Page {
    /// How many places at the page's beginning have no record, before `records` begins.
    skipped: usize,
    records: Vec<Option<Record>>,
    live: usize,
}

impl Page {
    /// The next record that is pushed gets this place, which none has been put at or behind.
    fn leave_gap(&mut self, at: usize) {
        if self.live == 0 && self.skipped + self.records.len() < at {
            (self.skipped, self.records) = (at, Vec::new());
        } else if self.skipped + self.records.len() < at {
            self.records.resize_with(at - self.skipped, || None);
        }
    }

    /// A place that may never have been reached, or may have been left behind.
    fn place(&mut self, at: usize) -> Option<&mut Option<Record>> {
        if self.live == 0 {
            (self.skipped, self.records) = (at, Vec::new());
        } else if at < self.skipped {
            let mut records: Vec<Option<Record>> = Vec::new();
            records.resize_with(self.skipped - at, || None);
            records.append(&mut self.records);
            (self.skipped, self.records) = (at, records);
        }
        let at = at - self.skipped;
        if at >= self.records.len() {
            self.records.resize_with(at + 1, || None);
        }
        self.records.get_mut(at)
    }
}

/// A job and the records of its tasks.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) client: ClientId,
    pub(super) name: String,
    /// The index that the next task must have.
    pub(super) next_index: u32,
    pub(super) counts: StateCounts,
    pages: Vec<Option<Page>>,
}

impl Job {
    pub(super) fn new(client: ClientId, name: String) -> Job {
        Job { client, name, next_index: 0, counts: StateCounts::default(), pages: Vec::new() }
    }

    pub(super) fn get(&self, index: u32) -> Option<&Record> {
        let index = index as usize;
        let page = self.pages.get(index / PAGE_RECORDS)?.as_ref()?;
        page.records.get((index % PAGE_RECORDS).checked_sub(page.skipped)?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Record> {
        let index = index as usize;
        let page = self.pages.get_mut(index / PAGE_RECORDS)?.as_mut()?;
        page.records.get_mut((index % PAGE_RECORDS).checked_sub(page.skipped)?)?.as_mut()
    }

    /// Adds the record of task `next_index`.
    pub(super) fn push(&mut self, record: Record) {
        let page_index = self.next_index as usize / PAGE_RECORDS;
        let at = self.next_index as usize % PAGE_RECORDS;
        if page_index >= self.pages.len() {
            self.pages.resize_with(page_index, || None);
            // A small job shall not pay for a whole page; a job that has filled one will most likely fill the next.
            let is_next = page_index > 0 && at == 0;
            let records = if is_next { Vec::with_capacity(PAGE_RECORDS) } else { Vec::new() };
            self.pages.push(Some(Page { skipped: at, records, live: 0 }));
        }
        self.counts.add(record.state.view(), 1);
        if let Some(page) = self.pages.get_mut(page_index) {
            let page = page.get_or_insert_with(|| Page { skipped: at, ..Page::default() });
            page.leave_gap(at);
            page.records.push(Some(record));
            page.live += 1;
        }
        self.next_index += 1;
    }

    /// Leaves a gap, which costs nothing: the next record gets this index, unless that lies behind already.
    pub(super) fn skip_to(&mut self, index: u32) {
        self.next_index = self.next_index.max(index);
    }

    /// Adds a record where none is: at the end, behind a gap, or in one. The last index of all is not for records.
    pub(super) fn put(&mut self, index: u32, record: Record) {
        if index >= self.next_index {
            self.skip_to(index);
            return self.push(record);
        }
        let (page_index, at) = (index as usize / PAGE_RECORDS, index as usize % PAGE_RECORDS);
        if page_index >= self.pages.len() {
            self.pages.resize_with(page_index + 1, || None);
        }
        let Some(page) = self.pages.get_mut(page_index) else { return };
        let page = page.get_or_insert_with(|| Page { skipped: at, ..Page::default() });
        if let Some(place) = page.place(at).filter(|place| place.is_none()) {
            self.counts.add(record.state.view(), 1);
            *place = Some(record);
            page.live += 1;
        }
    }

    /// Forgets a task and gives its record; frees the page when it was the last on it.
    pub(super) fn remove(&mut self, index: u32) -> Option<Record> {
        let index = index as usize;
        let slot = self.pages.get_mut(index / PAGE_RECORDS)?;
        let page = slot.as_mut()?;
        let record = page.records.get_mut((index % PAGE_RECORDS).checked_sub(page.skipped)?)?.take()?;
        page.live -= 1;
        if page.live == 0 {
            page.skipped += page.records.len();
            page.records = Vec::new();
            if page.skipped == PAGE_RECORDS {
                *slot = None;
            }
        }
        self.counts.remove(record.state.view(), 1);
        Some(record)
    }

    /// Puts a task into another state and gives the old one. The counts follow.
    pub(super) fn set_state(&mut self, index: u32, state: State) -> Option<State> {
        let new = state.view();
        let old = std::mem::replace(&mut self.get_mut(index)?.state, state);
        self.counts.remove(old.view(), 1);
        self.counts.add(new, 1);
        Some(old)
    }

    /// Weeds forgotten tasks out of all lists of dependents, so that records may be put in their places.
    pub(super) fn forget_dependents(&mut self) {
        let indices: Vec<u32> = self.iter().map(|(index, _)| index).collect();
        for index in indices {
            self.weed_dependents(index);
        }
    }

    fn weed_dependents(&mut self, index: u32) {
        let Some(record) = self.get_mut(index) else { return };
        let mut dependents = std::mem::take(&mut record.dependents);
        dependents.retain(|dependent| self.get(*dependent).is_some());
        dependents.shrink_to_fit();
        if let Some(record) = self.get_mut(index) {
            record.dependents = dependents;
        }
    }

    /// One dependent of `index` was forgotten. Long lists lose their forgotten entries when these are the most.
    pub(super) fn drop_dependent(&mut self, index: u32) {
        let Some(record) = self.get_mut(index) else { return };
        record.dependents_live -= 1;
        let live = record.dependents_live as usize;
        if record.dependents.len() > DEPENDENTS_COMPACTED_MIN && record.dependents.len() > 2 * live {
            self.weed_dependents(index);
        }
    }

    /// All records, in the order of their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Record)> {
        self.pages.iter().enumerate().filter_map(|(number, page)| page.as_ref().map(|page| (number, page))).flat_map(
            |(number, page)| {
                let first = number * PAGE_RECORDS + page.skipped;
                page.records
                    .iter()
                    .enumerate()
                    .filter_map(move |(at, record)| record.as_ref().map(|record| ((first + at) as u32, record)))
            },
        )
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.pages.iter().flatten().map(|page| page.live).sum()
    }
}

/// Every open job. Those of this scheduler are indexed by their ids, which it hands out in order.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    /// The first job's id.
    first: u32,
    jobs: Vec<Option<Box<Job>>>,
    /// The jobs of earlier schedulers.
    adopted: BTreeMap<JobId, Box<Job>>,
}

impl Jobs {
    /// No job, the next one getting this id.
    pub(super) fn starting_at(first: JobId) -> Jobs {
        Jobs { first: first.0, ..Jobs::default() }
    }

    fn place(&self, job: JobId) -> usize {
        job.0.wrapping_sub(self.first) as usize
    }

    pub(super) fn open(&mut self, job: Job) -> JobId {
        // An id that a client claims to have been given is not given out again.
        while self.adopted.contains_key(&self.next_id()) {
            self.jobs.push(None);
        }
        let id = self.next_id();
        self.jobs.push(Some(Box::new(job)));
        id
    }

    fn next_id(&self) -> JobId {
        JobId(self.first.wrapping_add(self.jobs.len() as u32))
    }

    /// The id of the job that comes after so many.
    pub(super) fn id_after(&self, count: u32) -> JobId {
        JobId(self.first.wrapping_add(count))
    }

    /// How many ids have been handed out.
    pub(super) fn handed_out(&self) -> usize {
        self.jobs.len()
    }

    /// Opens a job that has its id already, in place of one that has this id.
    pub(super) fn open_as(&mut self, id: JobId, job: Job) {
        let place = self.place(id);
        match self.jobs.get_mut(place) {
            Some(entry) if !self.adopted.contains_key(&id) => *entry = Some(Box::new(job)),
            _ => drop(self.adopted.insert(id, Box::new(job))),
        }
    }

    pub(super) fn close(&mut self, job: JobId) -> Option<Box<Job>> {
        let place = self.place(job);
        self.jobs.get_mut(place).and_then(Option::take).or_else(|| self.adopted.remove(&job))
    }

    pub(super) fn job(&self, job: JobId) -> Option<&Job> {
        match self.jobs.get(self.place(job)) {
            Some(Some(job)) => Some(job),
            _ => self.adopted.get(&job).map(Box::as_ref),
        }
    }

    pub(super) fn job_mut(&mut self, job: JobId) -> Option<&mut Job> {
        let place = self.place(job);
        match self.jobs.get_mut(place) {
            Some(Some(job)) => Some(job),
            _ => self.adopted.get_mut(&job).map(Box::as_mut),
        }
    }

    /// `None` for a part of an output, which only a peer that errs can name here.
    pub(super) fn get(&self, task: TaskId) -> Option<&Record> {
        if task.is_part() {
            return None;
        }
        self.job(task.job)?.get(task.index)
    }

    pub(super) fn get_mut(&mut self, task: TaskId) -> Option<&mut Record> {
        if task.is_part() {
            return None;
        }
        self.job_mut(task.job)?.get_mut(task.index)
    }

    pub(super) fn set_state(&mut self, task: TaskId, state: State) -> Option<State> {
        self.job_mut(task.job)?.set_state(task.index, state)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, &Job)> {
        let id = |place: usize| JobId(self.first.wrapping_add(place as u32));
        let own =
            self.jobs.iter().enumerate().filter_map(move |(place, job)| job.as_deref().map(|job| (id(place), job)));
        own.chain(self.adopted.iter().map(|(id, job)| (*id, job.as_ref())))
    }
}
