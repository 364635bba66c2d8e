//! A detached job on its way: opened, submitted whole, and kept, all over the client's link.
//!
//! ```text
//! Opening --JobOpened--> Submitting --the last Accepted--> Keeping --Done--> told
//! ```
//!
//! It is a job of its own, whose tasks are numbered from 0 and to which nothing is ever added. Until it is kept its tasks all are
//! wanted, so that none is dropped because what needs it has not come yet. Over another link all of it is said again, and kept
//! again: a scheduler takes the same request twice as once.

use std::collections::{BTreeSet, HashSet};

use starling_core::ids::{JobId, TaskId};
use starling_core::spec::TaskSpec;
use starling_core::wire::{FromClient, KeptName, SubmitError};
use starling_runtime::task::{CallParts, ClientError, Graph, GraphParts, Input};
use tokio::sync::oneshot;

use super::open_graph::pieces;
use super::sending::Queued;
use super::{Client, State};

/// A job of which it is not known yet that it is kept.
pub(super) struct Detaching {
    /// A name for people.
    name: String,
    /// All its tasks, in the order of their indices.
    specs: Vec<TaskSpec>,
    /// Those whose outputs are kept.
    wanted: Vec<u32>,
    stage: Stage,
    told: oneshot::Sender<Result<JobId, ClientError>>,
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// It has been asked for its id.
    Opening { token: u64 },
    /// Its tasks were said, in pieces that are answered, each with its token.
    Submitting { job: JobId, unaccepted: BTreeSet<u64> },
    /// It has been asked to be kept.
    Keeping { job: JobId, token: u64 },
}

impl Client {
    /// Submits calls as a job that goes on without this client, and keeps all of their outputs, or does nothing.
    pub(crate) async fn detach_calls(
        &self,
        name: String,
        calls: Vec<CallParts>,
        priority: i32,
    ) -> Result<JobId, ClientError> {
        let told = {
            let mut state = self.lock();
            let mut specs = Vec::with_capacity(calls.len());
            for (mut parts, index) in calls.into_iter().zip(0..) {
                if let Some(input) = parts.inputs.first() {
                    return Err(match input {
                        Input::Key(name) => ClientError::KeyOutsideGraph(name.clone()),
                        Input::Delayed(_) => ClientError::DelayedOutsideGraph(parts.def.name.to_owned()),
                        Input::Future(future) => ClientError::FutureInDetached(future.task()),
                    });
                }
                if !parts.has_priority {
                    parts.options.priority = priority;
                }
                let (inputs, kind) = self.check(&mut state, &parts)?;
                let task = TaskId::new(JobId::default(), index);
                specs.push(TaskSpec { task, kind, payload: parts.payload.into(), inputs, options: parts.options });
            }
            let wanted = specs.iter().map(|spec| spec.task.index).collect();
            state.detach(name, specs, wanted)?
        };
        self.queued.notify_one();
        told.await.map_err(|_| self.lost_error())?
    }

    /// As [`detach_calls`](Client::detach_calls), with a graph, of which the outputs of the wanted tasks are kept.
    pub(crate) async fn detach_graph(
        &self,
        name: String,
        graph: Graph,
        wanted: &[String],
        priority: i32,
    ) -> Result<JobId, ClientError> {
        let told = {
            let GraphParts { graph, defs, with_priority, futures } = graph.into_parts();
            self.check_kinds(&defs)?;
            if let Some(future) = futures.first() {
                return Err(ClientError::FutureInDetached(future.task()));
            }
            let mut lowered = graph.lower(JobId::default(), 0)?;
            let index_of = |name: &String| {
                lowered.ids.get(name).map(|task| task.index).ok_or_else(|| ClientError::NoSuchKey(name.clone()))
            };
            let wanted = wanted.iter().map(index_of).collect::<Result<Vec<_>, _>>()?;
            let has_priority: HashSet<TaskId> =
                with_priority.iter().filter_map(|name| lowered.ids.get(name).copied()).collect();
            for spec in lowered.tasks.iter_mut().filter(|spec| !has_priority.contains(&spec.task)) {
                spec.options.priority = priority;
            }
            self.lock().detach(name, lowered.tasks, wanted)?
        };
        self.queued.notify_one();
        told.await.map_err(|_| self.lost_error())?
    }
}

impl State {
    fn detach(
        &mut self,
        name: String,
        mut specs: Vec<TaskSpec>,
        wanted: Vec<u32>,
    ) -> Result<oneshot::Receiver<Result<JobId, ClientError>>, ClientError> {
        self.check_not_lost()?;
        specs.iter_mut().for_each(|spec| spec.options.wanted = true);
        let token = self.next_token();
        let (told, outcome) = oneshot::channel();
        self.queue.push_back(Queued::Message(FromClient::OpenJob { name: name.clone(), token }));
        self.detaching.push(Detaching { name, specs, wanted, stage: Stage::Opening { token }, told });
        Ok(outcome)
    }

    fn detaching_at(&self, is_it: impl Fn(&Stage) -> bool) -> Option<usize> {
        self.detaching.iter().position(|detaching| is_it(&detaching.stage))
    }

    /// A job was opened: its tasks get their ids and are said.
    pub(super) fn detached_is_open(&mut self, token: u64, job: JobId) {
        let Some(at) = self.detaching_at(|stage| matches!(stage, Stage::Opening { token: of } if *of == token)) else {
            return;
        };
        self.detaching[at].specs.iter_mut().for_each(|spec| spec.task.job = job);
        let mut unaccepted = BTreeSet::new();
        for tasks in pieces(self.detaching[at].specs.clone().into_iter()) {
            let token = self.next_token();
            unaccepted.insert(token);
            self.queue.push_back(Queued::Message(FromClient::Submit { job, token, kinds: Vec::new(), tasks }));
        }
        self.detaching[at].stage = Stage::Submitting { job, unaccepted };
        self.keep_if_submitted(at);
    }

    /// A piece was taken, if it was one of a detached job.
    pub(super) fn detached_is_accepted(&mut self, token: u64) {
        self.given_up.remove(&token);
        for at in 0..self.detaching.len() {
            if let Stage::Submitting { unaccepted, .. } = &mut self.detaching[at].stage
                && unaccepted.remove(&token)
            {
                return self.keep_if_submitted(at);
            }
        }
    }

    fn keep_if_submitted(&mut self, at: usize) {
        let Stage::Submitting { job, unaccepted } = &self.detaching[at].stage else { return };
        if !unaccepted.is_empty() {
            return;
        }
        let (job, token) = (*job, self.next_token());
        let detaching = &mut self.detaching[at];
        detaching.stage = Stage::Keeping { job, token };
        let (name, wanted) = (KeptName::Job(job), detaching.wanted.clone());
        self.queue.push_back(Queued::Message(FromClient::Keep { token, name, job, wanted }));
    }

    /// A piece was not taken. Gives the error back if it is about the client's own job.
    pub(super) fn detached_is_rejected(&mut self, token: u64, error: SubmitError) -> Option<SubmitError> {
        let at = self
            .detaching_at(|stage| matches!(stage, Stage::Submitting { unaccepted, .. } if unaccepted.contains(&token)));
        match at {
            Some(at) => {
                self.end_detaching(at, Err(ClientError::Rejected(error)));
                self.given_up.remove(&token);
            }
            // What follows a piece that was not taken does not fit, and is not taken either.
            None if self.given_up.remove(&token) => {}
            None => return Some(error),
        }
        None
    }

    /// Whether this answers the request to keep a detached job.
    pub(super) fn detached_is_kept(&mut self, token: u64, problem: &str) -> bool {
        let is_it = |stage: &Stage| matches!(stage, Stage::Keeping { token: of, .. } if *of == token);
        let Some(at) = self.detaching_at(is_it) else { return false };
        let Stage::Keeping { job, .. } = self.detaching[at].stage else { return false };
        let kept = if problem.is_empty() { Ok(job) } else { Err(ClientError::NotKept(problem.to_owned())) };
        self.end_detaching(at, kept);
        true
    }

    /// It is known what came of it: from now on nothing of it is this client's.
    fn end_detaching(&mut self, at: usize, outcome: Result<JobId, ClientError>) {
        let Detaching { specs, stage, told, .. } = self.detaching.swap_remove(at);
        match stage {
            Stage::Submitting { job, unaccepted } => {
                self.given_up.extend(unaccepted);
                self.queue.push_back(Queued::Message(FromClient::CancelJob { job }));
            }
            Stage::Keeping { job, .. } if outcome.is_err() => {
                self.queue.push_back(Queued::Message(FromClient::CancelJob { job }));
            }
            Stage::Opening { .. } | Stage::Keeping { .. } => {}
        }
        self.queue.extend(specs.into_iter().map(|spec| Queued::Release(spec.task)));
        // Whoever asked may have given up.
        let _ = told.send(outcome);
    }

    pub(super) fn lose_detaching(&mut self, error: &ClientError) {
        for detaching in self.detaching.drain(..) {
            // Whoever asked may have given up.
            let _ = detaching.told.send(Err(error.clone()));
        }
    }

    /// What another scheduler, or the same one over another link, is to be told of detached jobs.
    pub(super) fn detach_again(&mut self) -> Vec<FromClient> {
        let answers = &self.answers;
        self.queue.retain(|queued| match queued {
            Queued::Message(FromClient::OpenJob { .. } | FromClient::Submit { .. }) => false,
            Queued::Message(FromClient::Keep { token, .. }) => answers.contains_key(token),
            _ => true,
        });
        self.given_up.clear();
        let mut said = Vec::new();
        for at in 0..self.detaching.len() {
            let Detaching { name, specs, stage, .. } = &self.detaching[at];
            let (name, specs) = (name.clone(), specs.clone());
            match *stage {
                Stage::Opening { token } => {
                    self.queue.push_back(Queued::Message(FromClient::OpenJob { name, token }));
                }
                Stage::Submitting { job, .. } | Stage::Keeping { job, .. } => {
                    let unaccepted = self.restore_detached(job, name, specs, &mut said);
                    self.detaching[at].stage = Stage::Submitting { job, unaccepted };
                }
            }
        }
        said
    }

    /// Says the whole job again; gives the tokens of its pieces.
    fn restore_detached(
        &mut self,
        job: JobId,
        name: String,
        specs: Vec<TaskSpec>,
        said: &mut Vec<FromClient>,
    ) -> BTreeSet<u64> {
        let end = specs.len() as u32;
        said.push(FromClient::Resume { token: self.next_token(), job, name });
        let mut unaccepted = BTreeSet::new();
        // The last piece says that it is the last, and there is one.
        for (tasks, end) in pieces(specs.into_iter()).map(|tasks| (tasks, None)).chain([(Vec::new(), Some(end))]) {
            let token = self.next_token();
            unaccepted.insert(token);
            said.push(FromClient::Restore { job, token, tasks, values: Vec::new(), failed: Vec::new(), end });
        }
        unaccepted
    }
}
