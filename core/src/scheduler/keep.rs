//! Tasks whose outputs are kept without a client: detached jobs and data sets. What is kept is in the ledger, so that the next
//! scheduler keeps it too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::failure::{FailureCause, TaskFailure};
use crate::ids::{ClientId, JobId, TaskId};
use crate::ledger::{ENTRY_BYTES_MAX, Entry, KEPT_MAX, Kept};
use crate::spec::{NAME_BYTES_MAX, TaskOptions, TaskSpec};
use crate::wire::{JobSummary, KeptName, ResultAt, ToClient};

use super::record::{Job, NOBODY, Record, State};
use super::view::TaskState;
use super::{Effects, Scheduler};

/// How many kept tasks clients may watch, all together.
const WATCHED_MAX: usize = 1_000_000;

/// How many job ids are reserved at a time: more, when half of them are used. Few in tests, which open that many jobs.
const JOBS_RESERVED: u32 = if cfg!(test) { 64 } else { 1 << 16 };

/// How many requests to keep or to forget may wait for the ledger.
const ASKED_MAX: usize = 10_000;

/// What is kept under a name.
#[derive(Debug)]
struct KeptTasks {
    job: JobId,
    wanted: Vec<u32>,
    /// Values that a client had put on workers and that are kept with it, since they cannot be computed again.
    values: Vec<u32>,
    /// Whether the ledger is known to say so.
    is_logged: bool,
}

impl KeptTasks {
    /// Every task that is kept, once.
    fn distinct(&self) -> BTreeSet<u32> {
        self.wanted.iter().chain(&self.values).copied().collect()
    }
}

/// Who waits to hear that the ledger keeps something, or keeps it no longer.
#[derive(Debug)]
struct Asked {
    client: ClientId,
    token: u64,
    name: KeptName,
    is_forget: bool,
}

/// What is kept, and who wants to hear of it.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    kept: BTreeMap<KeptName, KeptTasks>,
    /// Who waits to hear that the ledger says so.
    asked: Vec<Asked>,
    watchers: BTreeMap<TaskId, SmallVec<[ClientId; 1]>>,
    /// How many job ids the ledger has been asked to reserve; `None` if there is no ledger.
    reserved: Option<u32>,
}

impl Keeping {
    /// The first job ids are reserved.
    pub(super) fn reserve(&mut self) {
        self.reserved = Some(JOBS_RESERVED);
    }
}

impl Scheduler {
    pub(super) fn on_keep(
        &mut self,
        client: ClientId,
        token: u64,
        name: KeptName,
        job: JobId,
        wanted: Vec<u32>,
        effects: &mut Effects,
    ) {
        // A client whose link was lost before the answer asks again.
        let same = self.keeping.kept.get(&name).filter(|kept| kept.job == job && kept.wanted == wanted);
        match same.filter(|_| self.is_of(client, job)).map(|kept| kept.is_logged) {
            Some(true) => return effects.tell_client(client, done(token, String::new())),
            Some(false) => return self.ask(Asked { client, token, name, is_forget: false }, None, effects),
            None => {}
        }
        match self.describe_kept(client, &name, job, &wanted) {
            Ok(kept) => {
                let values = kept.values.iter().map(|(index, _)| *index).collect();
                let asked = Asked { client, token, name: name.clone(), is_forget: false };
                if self.keeping.asked.len() < ASKED_MAX {
                    self.keep(name, job, wanted, values, effects);
                }
                self.ask(asked, Some(Entry::Keep(Arc::new(kept))), effects);
            }
            Err(problem) => effects.tell_client(client, done(token, problem)),
        }
    }

    /// Has the ledger say something, and the client hear of it.
    fn ask(&mut self, asked: Asked, entry: Option<Entry>, effects: &mut Effects) {
        if self.keeping.asked.len() >= ASKED_MAX {
            let problem = format!("{ASKED_MAX} requests wait for the ledger: try again later");
            return effects.tell_client(asked.client, done(asked.token, problem));
        }
        self.keeping.asked.push(asked);
        effects.to_log.extend(entry);
    }

    /// What the ledger has to say of it; or why it cannot be kept.
    fn describe_kept(&self, client: ClientId, name: &KeptName, id: JobId, wanted: &[u32]) -> Result<Kept, String> {
        let job = self.jobs.job(id).filter(|job| job.client == client);
        let Some(job) = job else { return Err(format!("job {} is not this client's", id.0)) };
        match name {
            KeptName::Job(named) if *named != id => return Err(format!("{name} is another job than {}", id.0)),
            KeptName::DataSet(text) if text.is_empty() || text.len() > NAME_BYTES_MAX => {
                return Err(format!("the name of a data set has 1 to {NAME_BYTES_MAX} bytes"));
            }
            _ => {}
        }
        if self.keeping.kept.contains_key(name) {
            return Err(format!("{name} is kept already: forget it first"));
        }
        if self.keeping.kept.len() >= KEPT_MAX {
            return Err(format!("{KEPT_MAX} jobs and data sets are kept already: forget some first"));
        }
        let mut tasks = Vec::new();
        let mut values = Vec::new();
        let mut bytes = wanted.len() * 5 + job.name.len();
        for index in ancestors(job, wanted).ok_or_else(|| format!("{name} names a task that job {} has not", id.0))? {
            let Some(record) = job.get(index) else { continue };
            if record.keeps == u8::MAX {
                return Err(format!("task {} is kept under {} names already", TaskId::new(id, index), u8::MAX));
            }
            if record.is_scattered() {
                let nbytes = if let State::Memory { nbytes, .. } = record.state { nbytes } else { 0 };
                bytes += 16;
                values.push((index, nbytes));
            } else {
                let spec = self.spec_of(TaskId::new(id, index), record);
                bytes += entry_bytes(&spec);
                tasks.push(spec);
            }
            if bytes > ENTRY_BYTES_MAX / 2 {
                let max = ENTRY_BYTES_MAX / 2;
                return Err(format!(
                    "what is needed to compute {name} again takes more than {max} bytes: scatter large arguments"
                ));
            }
        }
        Ok(Kept { name: name.clone(), job: id, label: job.name.clone(), tasks, values, wanted: wanted.to_vec() })
    }

    /// A task as its client would submit it.
    fn spec_of(&self, task: TaskId, record: &Record) -> TaskSpec {
        let class = self.classes.get(record.class);
        TaskSpec {
            task,
            kind: self.kinds.id(record.kind),
            payload: record.payload.clone(),
            inputs: record.inputs.clone(),
            options: TaskOptions {
                priority: record.priority.user.saturating_neg(),
                retries: record.retries_left,
                wanted: false,
                timeout_ms: record.timeout_ms,
                requirements: class.map(|class| Arc::clone(&class.requirements)),
                part: record.part,
                replicas: record.replicas,
            },
        }
    }

    /// From now on these outputs are kept, and those of the values that are there.
    pub(super) fn keep(
        &mut self,
        name: KeptName,
        job: JobId,
        wanted: Vec<u32>,
        mut values: Vec<u32>,
        effects: &mut Effects,
    ) {
        let jobs = &self.jobs;
        values.retain(|index| jobs.get(TaskId::new(job, *index)).is_some_and(|record| record.state.is_memory()));
        let kept = KeptTasks { job, wanted, values, is_logged: false };
        for index in kept.distinct() {
            let task = TaskId::new(job, index);
            if let Some(record) = self.jobs.get_mut(task) {
                record.keeps = record.keeps.saturating_add(1);
                self.require(task, effects);
            }
        }
        self.keeping.kept.insert(name, kept);
    }

    /// The ledger says that this is kept.
    pub(super) fn kept_is_logged(&mut self, name: &KeptName) {
        if let Some(kept) = self.keeping.kept.get_mut(name) {
            kept.is_logged = true;
        }
    }

    /// From now on they are not.
    fn unkeep(&mut self, name: &KeptName, effects: &mut Effects) {
        let Some(kept) = self.keeping.kept.remove(name) else { return };
        let job = kept.job;
        for index in kept.distinct() {
            let task = TaskId::new(job, index);
            let Some(record) = self.jobs.get_mut(task) else { continue };
            record.keeps = record.keeps.saturating_sub(1);
            self.loose.push(task);
            if record.keeps > 0 {
                continue;
            }
            // Whoever waits for it would wait for ever.
            if record.state.is_pending() {
                let name = self.kinds.name(record.kind);
                let failure = TaskFailure { task, name, node: None, cause: FailureCause::Cancelled };
                self.tell_watchers(task, &ToClient::Failed { task, failure }, effects);
            }
            self.keeping.watchers.remove(&task);
        }
        let is_of_nobody = self.jobs.job(job).is_some_and(|job| job.client == NOBODY) && !self.recovery.awaits(job);
        if is_of_nobody && self.kept_names_of(job).next().is_none() {
            self.close_job(job, effects);
        }
    }

    pub(super) fn on_forget(&mut self, client: ClientId, token: u64, name: KeptName, effects: &mut Effects) {
        if !self.keeping.kept.contains_key(&name) {
            return effects.tell_client(client, done(token, format!("there is no {name}")));
        }
        let asked = Asked { client, token, name: name.clone(), is_forget: true };
        self.ask(asked, Some(Entry::Forget(name)), effects);
    }

    /// A quorum has taken an entry into the ledger.
    pub(super) fn on_logged(&mut self, entry: &Entry, effects: &mut Effects) {
        match entry {
            // Those are others'.
            Entry::Founded(_)
            | Entry::JobsBelow(_)
            | Entry::Coordinate(_)
            | Entry::Actor(_)
            | Entry::ForgetActor(_) => {}
            Entry::Keep(kept) => {
                self.kept_is_logged(&kept.name);
                self.answer_asked(&kept.name, false, "", effects);
            }
            Entry::Forget(name) => {
                self.unkeep(name, effects);
                self.answer_asked(name, true, "", effects);
            }
        }
    }

    /// An entry could not be taken into the ledger, or it is not known whether it was.
    pub(super) fn on_not_logged(&mut self, entry: &Entry, problem: &str, effects: &mut Effects) {
        match entry {
            Entry::Founded(_) | Entry::Coordinate(_) | Entry::Actor(_) | Entry::ForgetActor(_) => {}
            // The next job asks again.
            Entry::JobsBelow(_) => {
                self.keeping.reserved = self.keeping.reserved.map(|reserved| reserved.saturating_sub(JOBS_RESERVED));
            }
            Entry::Keep(kept) => {
                // One that was asked for again, and is in the ledger, stays.
                if self.keeping.kept.get(&kept.name).is_some_and(|kept| !kept.is_logged) {
                    self.unkeep(&kept.name, effects);
                }
                self.answer_asked(&kept.name, false, problem, effects);
            }
            Entry::Forget(name) => self.answer_asked(name, true, problem, effects),
        }
    }

    fn answer_asked(&mut self, name: &KeptName, is_forget: bool, problem: &str, effects: &mut Effects) {
        let is_meant = |asked: &mut Asked| asked.name == *name && asked.is_forget == is_forget;
        for asked in self.keeping.asked.extract_if(.., is_meant) {
            effects.tell_client(asked.client, done(asked.token, problem.to_owned()));
        }
    }

    /// What is kept of a job.
    pub(super) fn kept_names_of(&self, job: JobId) -> impl Iterator<Item = &KeptName> {
        self.keeping.kept.iter().filter(move |(_, kept)| kept.job == job).map(|(name, _)| name)
    }

    pub(super) fn kept_tasks(&self, name: &KeptName) -> Option<Vec<TaskId>> {
        let kept = self.keeping.kept.get(name)?;
        Some(kept.wanted.iter().map(|index| TaskId::new(kept.job, *index)).collect())
    }

    /// A client has left its job behind: what is kept of it goes on, the rest does not.
    pub(super) fn leave_job(&mut self, id: JobId, effects: &mut Effects) {
        if self.kept_names_of(id).next().is_none() {
            return self.close_job(id, effects);
        }
        self.give_up_restoring(id);
        let Some(job) = self.jobs.job_mut(id) else { return };
        job.client = NOBODY;
        let indices: Vec<u32> = job.iter().map(|(index, _)| index).collect();
        for index in indices {
            let Some(record) = job.get_mut(index) else { continue };
            (record.wanted, record.announced) = (false, false);
            if !record.is_needed() {
                self.loose.push(TaskId::new(id, index));
            }
        }
    }

    /// A client wants to hear how kept tasks end.
    pub(super) fn on_watch(&mut self, client: ClientId, tasks: &[TaskId], effects: &mut Effects) {
        for &task in tasks {
            let record = self.jobs.get(task).filter(|record| record.keeps > 0);
            let Some(record) = record.filter(|_| self.keeping.watchers.len() < WATCHED_MAX) else {
                let cause = FailureCause::DataLost { input: task };
                let failure = TaskFailure { task, name: String::new(), node: None, cause };
                effects.tell_client(client, ToClient::Failed { task, failure });
                continue;
            };
            match &record.state {
                State::Erred { failure } => {
                    effects.tell_client(client, ToClient::Failed { task, failure: (**failure).clone() });
                }
                State::Memory { nbytes, holders } => {
                    let result = ResultAt::Workers(self.worker_ids(holders).collect());
                    effects.tell_client(client, ToClient::Finished { task, nbytes: *nbytes, result });
                }
                _ => {}
            }
            let watchers = self.keeping.watchers.entry(task).or_default();
            if !watchers.contains(&client) {
                watchers.push(client);
            }
        }
    }

    pub(super) fn is_watching(&self, client: ClientId, task: TaskId) -> bool {
        self.keeping.watchers.get(&task).is_some_and(|watchers| watchers.contains(&client))
    }

    pub(super) fn stop_watching(&mut self, client: ClientId) {
        self.keeping.asked.retain(|asked| asked.client != client);
        self.keeping.watchers.retain(|_, watchers| {
            watchers.retain(|watcher| *watcher != client);
            !watchers.is_empty()
        });
    }

    /// Tells those who watch a task.
    pub(super) fn tell_watchers(&self, task: TaskId, message: &ToClient, effects: &mut Effects) {
        for client in self.keeping.watchers.get(&task).into_iter().flatten() {
            effects.tell_client(*client, message.clone());
        }
    }

    pub(super) fn tell_watchers_where(&self, task: TaskId, effects: &mut Effects) {
        if self.keeping.watchers.is_empty() {
            return;
        }
        if let Some(State::Memory { nbytes, holders }) = self.jobs.get(task).map(|record| &record.state) {
            let result = ResultAt::Workers(self.worker_ids(holders).collect());
            self.tell_watchers(task, &ToClient::Finished { task, nbytes: *nbytes, result }, effects);
        }
    }

    /// Sees to it that the ledger knows of job ids before they are used.
    pub(super) fn reserve_jobs(&mut self, effects: &mut Effects) {
        let handed_out = self.jobs.handed_out() as u32;
        let Some(reserved) = self.keeping.reserved else { return };
        if reserved.saturating_sub(handed_out) < JOBS_RESERVED / 2 {
            let more = reserved.saturating_add(JOBS_RESERVED);
            self.keeping.reserved = Some(more);
            effects.to_log.push(Entry::JobsBelow(self.jobs.id_after(more)));
        }
    }

    /// The job id up to which a scheduler that begins with this one has to have ids reserved.
    pub const fn jobs_below(first: JobId) -> JobId {
        JobId(first.0.wrapping_add(JOBS_RESERVED))
    }

    /// The jobs, for a person, by their ids.
    pub(super) fn summaries(&self) -> Vec<JobSummary> {
        let mut all: Vec<JobSummary> = self.jobs.iter().map(|(id, job)| self.summary(id, job)).collect();
        all.sort_by_key(|summary| summary.job);
        all
    }

    fn summary(&self, id: JobId, job: &Job) -> JobSummary {
        let names: Vec<&KeptName> = self.kept_names_of(id).collect();
        let count = |state| job.counts.get(state);
        JobSummary {
            job: id,
            name: job.name.clone(),
            has_client: job.client != NOBODY || self.recovery.awaits(id),
            is_detached: names.contains(&&KeptName::Job(id)),
            data_sets: names
                .iter()
                .filter_map(|name| match name {
                    KeptName::DataSet(name) => Some(name.clone()),
                    KeptName::Job(_) => None,
                })
                .collect(),
            released: count(TaskState::Released),
            waiting: count(TaskState::Waiting),
            queued: count(TaskState::Queued),
            no_worker: count(TaskState::NoWorker),
            processing: count(TaskState::Processing),
            memory: count(TaskState::Memory),
            erred: count(TaskState::Erred),
        }
    }

    pub(super) fn kept_jobs(&self) -> BTreeSet<JobId> {
        self.keeping.kept.values().map(|kept| kept.job).collect()
    }
}

fn done(token: u64, problem: String) -> ToClient {
    ToClient::Done { token, moved: 0, problem }
}

/// About how many bytes a task takes in the ledger.
fn entry_bytes(spec: &TaskSpec) -> usize {
    let requirements = spec.options.requirements.as_ref().map_or(0, |requirements| {
        let resources = requirements.resources.keys().map(|name| name.len() + 12);
        resources.chain(requirements.workers.iter().map(|name| name.len() + 2)).sum()
    });
    spec.payload.len() + 5 * spec.inputs.len() + requirements + 64
}

/// These tasks and everything that they need, in the order of the indices; `None` if one is not known.
fn ancestors(job: &Job, wanted: &[u32]) -> Option<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut stack = wanted.to_vec();
    while let Some(index) = stack.pop() {
        let record = job.get(index)?;
        if found.insert(index) {
            stack.extend(record.inputs.iter().copied());
        }
    }
    Some(found)
}
