//! Every request is answered once, by what was asked for; an explanation agrees with what the scheduler says otherwise;
//! what was cancelled is not computed any more.

use std::collections::BTreeMap;

use starling_core::explain::{Explanation, ObstacleKind, Why};
use starling_core::ids::{JobId, TaskId, WorkerId};
use starling_core::scheduler::{Scheduler, TaskState};
use starling_core::wire::FromClient;

/// What a client has asked for and waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    WhoHas,
    Explain(TaskId),
    Replicate,
    Rebalance,
    Retire(Vec<WorkerId>),
    Keep,
}

/// The requests of a client, by token.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    open: BTreeMap<u64, Asked>,
}

impl Requests {
    pub(crate) fn ask(&mut self, token: u64, asked: Asked) {
        self.open.insert(token, asked);
    }

    pub(crate) fn get(&self, token: u64) -> Option<&Asked> {
        self.open.get(&token)
    }

    /// Takes an answer. It is an error if it was not asked for, or was given before.
    pub(crate) fn answer(&mut self, token: u64, fits: impl Fn(&Asked) -> bool) -> Result<(), String> {
        match self.open.remove(&token) {
            Some(asked) if fits(&asked) => Ok(()),
            other => Err(format!("request {token} has an answer that was not asked for: {other:?}")),
        }
    }

    /// The first that has no answer.
    pub(crate) fn unanswered(&self) -> Option<(&u64, &Asked)> {
        self.open.first_key_value()
    }
}

/// Whether an explanation agrees with what else may be asked of the scheduler.
pub(crate) fn check_explanation(scheduler: &Scheduler, explanation: &Explanation) -> Result<(), String> {
    let task = explanation.task;
    let state = scheduler.state(task);
    let name_of = |worker: WorkerId| scheduler.worker(worker).map(|view| view.info.name).unwrap_or_default();
    let agrees = match &explanation.why {
        Why::Forgotten | Why::Kept { .. } => state == TaskState::Forgotten,
        Why::Released => state == TaskState::Released,
        Why::Waiting { inputs, .. } => {
            let is_so = |input: TaskId, said: TaskState| scheduler.state(input) == said && said != TaskState::Memory;
            state == TaskState::Waiting && !inputs.is_empty() && inputs.iter().all(|it| is_so(it.task, it.state))
        }
        Why::Queued { queue_len, next, obstacles, .. } => {
            let is_full = obstacles.iter().all(|obstacle| obstacle.what != ObstacleKind::Free);
            state == TaskState::Queued && *queue_len > 0 && next.is_some() && is_full
        }
        Why::NoWorker { obstacles, .. } => {
            let is_excluded =
                |what: &ObstacleKind| matches!(what, ObstacleKind::Restricted | ObstacleKind::Lacks { .. });
            state == TaskState::NoWorker && obstacles.iter().all(|obstacle| is_excluded(&obstacle.what))
        }
        Why::Processing { worker, attempt, processing, .. } => {
            let on = scheduler.processing_on(task);
            on.is_some_and(|(id, at)| name_of(id) == *worker && at == *attempt) && *processing > 0
        }
        Why::Memory { workers, nbytes } => {
            let mut said = workers.clone();
            let mut holders: Vec<String> = scheduler.who_has(task).into_iter().map(name_of).collect();
            said.sort_unstable();
            holders.sort_unstable();
            said == holders && !said.is_empty() && scheduler.nbytes(task) == Some(*nbytes)
        }
        Why::Erred(failure) => scheduler.failure(task) == Some(failure),
    };
    if agrees { Ok(()) } else { Err(format!("{task} is {state:?}, and it is explained so: {explanation:?}")) }
}

/// Whether what a client has just given up is given up.
pub(crate) fn check_cancelled(scheduler: &Scheduler, message: &FromClient) -> Result<(), String> {
    let is_pending = |state: &TaskState| {
        matches!(state, TaskState::Waiting | TaskState::Queued | TaskState::NoWorker | TaskState::Processing)
    };
    let is_left = match message {
        FromClient::Cancel { tasks } => tasks.iter().find(|task| is_pending(&scheduler.state(**task))).copied(),
        FromClient::CancelJob { job } => pending_in(scheduler, *job).then(|| TaskId::new(*job, u32::MAX)),
        _ => None,
    };
    match is_left {
        Some(task) => Err(format!("{task} was cancelled, and is {:?}", scheduler.state(task))),
        None => Ok(()),
    }
}

fn pending_in(scheduler: &Scheduler, job: JobId) -> bool {
    let pending = [TaskState::Waiting, TaskState::Queued, TaskState::NoWorker, TaskState::Processing];
    let jobs = scheduler.jobs();
    let view = jobs.iter().find(|view| view.job == job);
    view.is_some_and(|view| pending.into_iter().any(|state| view.counts.get(state) > 0))
}
