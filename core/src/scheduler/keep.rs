//! Tasks whose outputs are kept without a client: detached jobs and data sets. What is kept is in the ledger, so that the next
//! scheduler keeps it too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::failure::{FailureCause, TaskFailure};
use crate::ids::{ClientId, JobId, TaskId};
use crate::ledger::{ENTRY_BYTES_MAX, Entry, KEPT_MAX, Kept};
use crate::spec::{NAME_BYTES_MAX, TaskOptions, TaskSpec};
use crate::wire::{KeptName, ResultAt, ToClient};

use super::record::{Job, NOBODY, Record, State};
use super::{Effects, Scheduler};

/// How many kept tasks clients may watch, all together.
const WATCHED_MAX: usize = 1_000_000;

/// How many job ids are in reserve when more are reserved, and how many then.
const JOBS_RESERVED: u32 = 1 << 16;

/// What is kept under a name.
#[derive(Debug)]
struct KeptTasks {
    job: JobId,
    wanted: Vec<u32>,
}

/// What is kept, and who wants to hear of it.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    kept: BTreeMap<KeptName, KeptTasks>,
    /// Who waits to hear that the ledger says so.
    asked: Vec<(ClientId, u64, KeptName)>,
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
        match self.describe_kept(client, &name, job, &wanted) {
            Ok(kept) => {
                self.keep(name.clone(), job, wanted);
                self.keeping.asked.push((client, token, name));
                effects.to_log.push(Entry::Keep(Arc::new(kept)));
            }
            Err(problem) => effects.tell_client(client, ToClient::Done { token, moved: 0, problem }),
        }
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
        let mut bytes = 0;
        for index in ancestors(job, wanted).ok_or_else(|| format!("{name} names a task that job {} has not", id.0))? {
            let Some(record) = job.get(index) else { continue };
            if record.keeps == u8::MAX {
                return Err(format!("task {} is kept under {} names already", TaskId::new(id, index), u8::MAX));
            }
            if record.is_scattered() {
                let nbytes = if let State::Memory { nbytes, .. } = record.state { nbytes } else { 0 };
                values.push((index, nbytes));
            } else {
                bytes += record.payload.len() + 4 * record.inputs.len() + 64;
                tasks.push(self.spec_of(TaskId::new(id, index), record));
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
            },
        }
    }

    /// From now on these outputs are kept.
    pub(super) fn keep(&mut self, name: KeptName, job: JobId, wanted: Vec<u32>) {
        for index in &wanted {
            if let Some(record) = self.jobs.get_mut(TaskId::new(job, *index)) {
                record.keeps = record.keeps.saturating_add(1);
            }
        }
        self.keeping.kept.insert(name, KeptTasks { job, wanted });
    }

    /// From now on they are not.
    fn unkeep(&mut self, name: &KeptName, effects: &mut Effects) {
        let Some(KeptTasks { job, wanted }) = self.keeping.kept.remove(name) else { return };
        for index in wanted {
            let task = TaskId::new(job, index);
            let Some(record) = self.jobs.get_mut(task) else { continue };
            record.keeps = record.keeps.saturating_sub(1);
            if record.keeps == 0 {
                self.keeping.watchers.remove(&task);
            }
            self.loose.push(task);
        }
        if self.jobs.job(job).is_some_and(|job| job.client == NOBODY) && self.kept_names_of(job).next().is_none() {
            self.close_job(job, effects);
        }
    }

    pub(super) fn on_forget(&mut self, client: ClientId, token: u64, name: KeptName, effects: &mut Effects) {
        if !self.keeping.kept.contains_key(&name) {
            let problem = format!("there is no {name}");
            return effects.tell_client(client, ToClient::Done { token, moved: 0, problem });
        }
        self.keeping.asked.push((client, token, name.clone()));
        effects.to_log.push(Entry::Forget(name));
    }

    /// A quorum has taken an entry into the ledger.
    pub(super) fn on_logged(&mut self, entry: &Entry, effects: &mut Effects) {
        match entry {
            Entry::Founded(_) | Entry::JobsBelow(_) => {}
            Entry::Keep(kept) => self.answer_kept(&kept.name, "", effects),
            Entry::Forget(name) => {
                self.unkeep(name, effects);
                self.answer_kept(name, "", effects);
            }
        }
    }

    /// An entry could not be taken into the ledger, or it is not known whether it was.
    pub(super) fn on_not_logged(&mut self, entry: &Entry, problem: &str, effects: &mut Effects) {
        match entry {
            Entry::Founded(_) | Entry::JobsBelow(_) => {}
            Entry::Keep(kept) => {
                self.unkeep(&kept.name, effects);
                self.answer_kept(&kept.name, problem, effects);
            }
            Entry::Forget(name) => self.answer_kept(name, problem, effects),
        }
    }

    fn answer_kept(&mut self, name: &KeptName, problem: &str, effects: &mut Effects) {
        for (client, token, _) in self.keeping.asked.extract_if(.., |(_, _, asked)| asked == name) {
            effects.tell_client(client, ToClient::Done { token, moved: 0, problem: problem.to_owned() });
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
        self.keeping.asked.retain(|(asked, ..)| *asked != client);
        self.keeping.watchers.retain(|_, watchers| {
            watchers.retain(|watcher| *watcher != client);
            !watchers.is_empty()
        });
    }

    /// Tells those who watch a task, its own client apart.
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

    pub(super) fn kept_jobs(&self) -> BTreeSet<JobId> {
        self.keeping.kept.values().map(|kept| kept.job).collect()
    }
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
