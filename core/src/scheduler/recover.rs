//! Jobs that their clients resume, at another scheduler or over another link.
//!
//! A client says again what it may still need ([`FromClient::Restore`]), workers say what they have
//! ([`inventory`](super::inventory)). A new scheduler in a recovery takes up neither before it is over, so that what one of them
//! says is not decided upon before the others have had their say ([`take_up`](super::take_up)).
//!
//! What a client says of a job before that has been taken up comes after it, in the order in which it was said; so does, until the
//! recovery is over, what concerns what the ledger keeps. Every result that its client holds is announced anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failure::TaskFailure;
use crate::ids::{ClientId, JobId, TaskId};
use crate::ledger::Kept;
use crate::spec::TaskSpec;
use crate::wire::{FromClient, SubmitError, ToClient};

use super::inventory::ORPHANS_US;
use super::record::{Job, NOBODY};
use super::{Effects, Scheduler};

/// How many tasks a client may restore of one job.
const RESTORED_TASKS_MAX: usize = 20_000_000;

/// How many tasks a client may name in what has to wait for its job to be taken up, each message counted as one more.
const LATER_MAX: usize = 1_000_000;

/// What a job consists of, as its client says again.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) tasks: Vec<TaskSpec>,
    pub(super) values: Vec<(u32, u64)>,
    pub(super) failed: Vec<(u32, TaskFailure)>,
}

impl Pieces {
    fn append(&mut self, mut other: Pieces) {
        self.tasks.append(&mut other.tasks);
        self.values.append(&mut other.values);
        self.failed.append(&mut other.failed);
    }

    fn len(&self) -> usize {
        self.tasks.len() + self.values.len() + self.failed.len()
    }
}

/// What a client has said too early, in order.
#[derive(Debug, Default)]
struct Later {
    messages: Vec<(ClientId, FromClient)>,
    size: usize,
}

impl Later {
    /// Keeps a message; gives it back if there are too many.
    fn push(&mut self, client: ClientId, message: FromClient) -> Result<(), FromClient> {
        let size = match &message {
            FromClient::Submit { tasks, .. } => tasks.len(),
            FromClient::Scattered { values, .. } => values.len(),
            FromClient::Keep { wanted, .. } => wanted.len(),
            FromClient::Release { tasks }
            | FromClient::Cancel { tasks }
            | FromClient::Watch { tasks }
            | FromClient::Retry { tasks, .. }
            | FromClient::WhoHas { tasks, .. }
            | FromClient::Replicate { tasks, .. } => tasks.len(),
            _ => 0,
        };
        if self.size + size >= LATER_MAX {
            return Err(message);
        }
        self.size += size + 1;
        self.messages.push((client, message));
        Ok(())
    }
}

/// A job of which its client has not said everything again, or that is not taken up yet. As long as it is here, nobody is its
/// client, so that nothing is said of it.
#[derive(Debug)]
struct Restoring {
    client: ClientId,
    pieces: Pieces,
    /// The index of the job's next task, once everything was said.
    end: Option<u32>,
    /// What its client has said of it meanwhile.
    later: Later,
}

/// What is to be taken up.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Whether the scheduler still gathers what there is.
    pub(super) is_under_way: bool,
    restoring: BTreeMap<JobId, Restoring>,
    /// What the ledger keeps, until it is taken up.
    kept: Vec<Arc<Kept>>,
    /// What clients have said of what the ledger keeps, before that was taken up.
    later: Later,
}

impl Recovery {
    /// Whether it is not known yet what this job consists of.
    pub(super) fn awaits(&self, job: JobId) -> bool {
        self.restoring.contains_key(&job)
    }

    /// Whose job this is, if it is not known yet what it consists of.
    fn client_of(&self, job: JobId) -> Option<ClientId> {
        self.restoring.get(&job).map(|restoring| restoring.client)
    }

    /// Whether nothing waits here.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_under_way && self.restoring.is_empty()
    }

    /// Nobody waits for the answers to what this client has said.
    pub(super) fn forget_client(&mut self, client: ClientId) {
        self.later.messages.retain(|(of, _)| *of != client);
    }
}

impl Scheduler {
    /// What was said again of a job is not taken up. The values that its client has put on workers meanwhile wait there.
    pub(super) fn give_up_restoring(&mut self, job: JobId) {
        let Some(restoring) = self.recovery.restoring.remove(&job) else { return };
        for (_, message) in restoring.later.messages {
            if let FromClient::Scattered { values, .. } = message {
                self.orphan_values(job, values);
            }
        }
    }

    /// A client goes on with a job that it has opened before.
    pub(super) fn on_resume(&mut self, client: ClientId, token: u64, job: JobId, name: String, effects: &mut Effects) {
        match self.recovery.client_of(job).or_else(|| self.jobs.job(job).map(|job| job.client)) {
            // What the other link still says of it is not its client's any more, and all of it is said again.
            Some(owner) => {
                self.give_up_restoring(job);
                self.hand_over_kept(owner, job);
                if let Some(jobs) = self.clients.get_mut(&owner) {
                    jobs.retain(|owned| *owned != job);
                }
                if let Some(job) = self.jobs.job_mut(job) {
                    job.client = NOBODY;
                }
            }
            None => {
                // It may have been closed here, and then no attempt is given out twice.
                self.attempts_after = self.attempts_after.max(self.attempts_closed);
                self.jobs.open_as(job, Job::new(NOBODY, name));
            }
        }
        self.clients.entry(client).or_default().push(job);
        let restoring = Restoring { client, pieces: Pieces::default(), end: None, later: Later::default() };
        self.recovery.restoring.insert(job, restoring);
        effects.tell_client(client, ToClient::JobOpened { token, job, term: self.term });
    }

    /// A piece of what a resumed job consists of.
    pub(super) fn on_restore(
        &mut self,
        client: ClientId,
        job: JobId,
        token: u64,
        pieces: Pieces,
        end: Option<u32>,
        effects: &mut Effects,
    ) {
        if let Err(error) = self.check_restored(client, job, &pieces) {
            return effects.tell_client(client, ToClient::Rejected { token, error });
        }
        let Some(restoring) = self.recovery.restoring.get_mut(&job) else { return };
        restoring.pieces.append(pieces);
        restoring.end = end;
        effects.tell_client(client, ToClient::Accepted { token });
        if end.is_some() && !self.recovery.is_under_way {
            self.take_restored(job, effects);
        }
    }

    /// Whether a piece can be taken, its tasks' inputs apart, which may be in an earlier one.
    fn check_restored(&self, client: ClientId, job: JobId, pieces: &Pieces) -> Result<(), SubmitError> {
        let restoring = self.recovery.restoring.get(&job);
        let is_open = |restoring: &&Restoring| restoring.client == client && restoring.end.is_none();
        let restoring = restoring.filter(is_open).ok_or(SubmitError::UnknownJob(job))?;
        if restoring.pieces.len() + pieces.len() > RESTORED_TASKS_MAX {
            return Err(SubmitError::TooManyTasks { tasks_max: RESTORED_TASKS_MAX as u64 });
        }
        if pieces.values.iter().any(|(index, _)| *index == u32::MAX) {
            return Err(SubmitError::UnknownJob(job));
        }
        let mut unknown = Vec::new();
        for spec in &pieces.tasks {
            if !is_task_of(job, spec) {
                return Err(SubmitError::UnknownJob(spec.task.job));
            }
            self.check_options(spec)?;
            if self.kinds.find(spec.kind).is_none() && unknown.len() < 100 {
                unknown.push(super::submit::nameless(spec.kind));
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(SubmitError::UnknownKinds(unknown)) }
    }

    /// Of what a client says, what is to be done at once: the rest waits for what it is about to be taken up.
    pub(super) fn defer(&mut self, client: ClientId, message: FromClient, effects: &mut Effects) -> Option<FromClient> {
        let awaits = |job: JobId| self.recovery.client_of(job) == Some(client);
        let of_tasks = |tasks: &[TaskId]| tasks.iter().map(|task| task.job).find(|job| awaits(*job));
        let job = match &message {
            FromClient::Submit { job, .. }
            | FromClient::Scattered { job, .. }
            | FromClient::CancelJob { job }
            | FromClient::Keep { job, .. } => Some(*job).filter(|job| awaits(*job)),
            FromClient::WhoHas { tasks, .. }
            | FromClient::Replicate { tasks, .. }
            | FromClient::Retry { tasks, .. } => of_tasks(tasks),
            FromClient::Release { tasks } | FromClient::Cancel { tasks } => {
                let job = of_tasks(tasks);
                if let Some(first) = job.filter(|first| tasks.iter().any(|task| task.job != *first)) {
                    return self.defer_some(client, first, message, effects);
                }
                job
            }
            // Where it is will be said anew.
            FromClient::Unreachable { task, .. } if awaits(task.job) => return None,
            _ => None,
        };
        let is_of_ledger = matches!(
            message,
            FromClient::Keep { .. }
                | FromClient::Forget { .. }
                | FromClient::Kept { .. }
                | FromClient::Watch { .. }
                | FromClient::Jobs { .. }
        );
        let later = match job {
            Some(job) => self.recovery.restoring.get_mut(&job).map(|restoring| &mut restoring.later),
            None if is_of_ledger && self.recovery.is_under_way => Some(&mut self.recovery.later),
            None => None,
        };
        let Some(later) = later else { return Some(message) };
        if let Err(FromClient::Submit { token, .. }) = later.push(client, message) {
            let error = SubmitError::TooManyTasks { tasks_max: LATER_MAX as u64 };
            effects.tell_client(client, ToClient::Rejected { token, error });
        }
        None
    }

    /// Tasks of several jobs are released or given up: each job's by themselves.
    fn defer_some(
        &mut self,
        client: ClientId,
        job: JobId,
        message: FromClient,
        effects: &mut Effects,
    ) -> Option<FromClient> {
        let (of_job, others) = match message {
            FromClient::Release { tasks } => {
                let (of_job, others) = tasks.into_iter().partition(|task| task.job == job);
                (FromClient::Release { tasks: of_job }, FromClient::Release { tasks: others })
            }
            FromClient::Cancel { tasks } => {
                let (of_job, others) = tasks.into_iter().partition(|task| task.job == job);
                (FromClient::Cancel { tasks: of_job }, FromClient::Cancel { tasks: others })
            }
            other => return Some(other),
        };
        self.defer(client, of_job, effects);
        self.defer(client, others, effects)
    }

    /// Takes a job up of which everything was said, and then what was said of it meanwhile.
    fn take_restored(&mut self, job: JobId, effects: &mut Effects) {
        let Some(Restoring { client, pieces, end, later }) = self.recovery.restoring.remove(&job) else { return };
        if let Some(job) = self.jobs.job_mut(job) {
            job.client = client;
        }
        self.take_up_job(job, pieces, end.unwrap_or(0), effects);
        for (client, message) in later.messages {
            self.on_client_message(client, message, effects);
        }
    }

    /// Everything that the ledger keeps, said before anything else.
    pub(super) fn on_restored(&mut self, kept: Arc<Kept>) {
        self.recovery.kept.push(kept);
    }

    /// Who was to say something has said it, or will not: what was said is taken up.
    pub(super) fn on_recovered(&mut self, effects: &mut Effects) {
        self.recovery.is_under_way = false;
        self.let_last_go(effects);
        self.orphans_until.0 = self.now.0.saturating_add(ORPHANS_US);
        // First, since clients may have more of the same jobs.
        for kept in std::mem::take(&mut self.recovery.kept) {
            self.take_up_kept(&kept, effects);
        }
        let complete: Vec<JobId> =
            self.recovery.restoring.iter().filter(|(_, job)| job.end.is_some()).map(|(id, _)| *id).collect();
        for job in complete {
            self.take_restored(job, effects);
        }
        for (client, message) in std::mem::take(&mut self.recovery.later).messages {
            self.on_client_message(client, message, effects);
        }
    }
}

/// Whether this can be a task of the job at all. The last index is never given out.
pub(super) fn is_task_of(job: JobId, spec: &TaskSpec) -> bool {
    let task = spec.task;
    task.job == job && !task.is_part() && task.index < u32::MAX && spec.inputs.iter().all(|input| *input < task.index)
}
