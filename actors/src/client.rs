//! What a client knows of its job: which tasks it has submitted, what came of them, and what is still to be said.
//!
//! Submitting never blocks and never waits: a task gets its number and a place in the queue, and one task of this
//! module sends what has gathered. The queue's order is the order in which the scheduler hears of things, so that a
//! task's inputs are known before it, and a release comes after the last use.
//!
//! A link that is lost is opened anew, to whoever holds the scheduler then ([`connect`](crate::connect)): the job goes on
//! (`resuming`), with what may still be needed of it said again (`open_graph`).
//!
//! What outlives the client is submitted as a job of its own (`detaching`), or kept of this one's (`keeping`).

mod again;
mod asking;
mod borrowing;
mod detaching;
mod fetching;
mod gathering;
mod keeping;
mod open_graph;
mod reporting;
mod resuming;
mod scattering;
mod sending;
mod streaming;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use smallvec::SmallVec;
use starling_core::fixed::FixedMap;
use starling_core::ids::{JobId, KindId, NodeId, TaskId, WorkerId};
use starling_core::spec::TaskSpec;
use starling_core::wire::{FromClient, ResultAt, SubmitError, ToClient, WorkerInfo};
use starling_remote::Actors;
use starling_runtime::mesh::Mesh;
use starling_runtime::slots::Slots;
use starling_runtime::task::{CallParts, ClientError, FutureStatus, Graph, GraphParts, Input, ResultSource, TaskDef};
use starling_runtime::value::Value;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::coordination::Way;
use crate::node::Node;

pub(crate) use self::fetching::Held;
pub(crate) use self::keeping::KeptResults;
pub(crate) use self::streaming::AskedPage;

use self::detaching::Detaching;
use self::keeping::Watched;
use self::open_graph::OpenGraph;
use self::sending::Queued;

/// How many ids go in one message.
const IDS_MAX: usize = 64 * 1024;
/// How many bytes one call's arguments may have. They go through the scheduler, so that large ones are better scattered.
const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Tasks that never reached the scheduler are numbered down from the top, where no real task gets to.
const UNSENT_FROM: u32 = 1 << 31;

/// One client's connection. Futures hold it.
pub(crate) struct Client {
    job: JobId,
    mesh: Mesh,
    actors: Actors,
    /// Whether the mesh ends with the client.
    owns_mesh: bool,
    kinds: HashSet<KindId>,
    state: Mutex<State>,
    /// There is something to send.
    queued: Arc<Notify>,
    /// A worker came or went.
    workers_changed: Notify,
    /// To give futures a hold on it.
    own: Weak<Client>,
    /// What ends with the client.
    connection: OnceLock<Connection>,
    /// What collections keep for this client.
    slots: Slots,
}

/// What a client keeps alive.
pub(crate) struct Connection {
    /// The tasks that read and write its links.
    pub(crate) tasks: Vec<JoinHandle<()>>,
    /// The nodes of an embedded cluster: the scheduler's first.
    pub(crate) nodes: Vec<Node>,
    /// How the node in office is found.
    pub(crate) way: Way,
}

#[derive(Default)]
struct State {
    /// The next task's number, and the next unsent one's, counted from the top.
    next: u32,
    unsent: u32,
    queue: VecDeque<Queued>,
    /// What does not wait for its turn in the queue.
    urgent: Option<FromClient>,
    tasks: FixedMap<u32, Entry>,
    /// The ids of the functions that were submitted, by address: finding one out costs as much as the rest of a submission.
    kinds: FixedMap<usize, KindId>,
    /// All tasks below this number are known to the scheduler.
    accepted: u32,
    /// All tasks below this number have been sent to it.
    sent: u32,
    /// All numbers below this one have been said to it, those of values that were scattered too.
    said: u32,
    open_graph: OpenGraph,
    /// What is given up and not settled yet.
    cancelled: BTreeSet<u32>,
    /// What runs to its end though its futures may be dropped, and whether they are.
    fired: BTreeMap<u32, (TaskId, bool)>,
    /// What is to run again, by the question that says so: until that is answered, failures that are told are old ones.
    retrying: BTreeMap<u32, u64>,
    /// What a restart has made the cluster forget though its futures are held.
    forgotten: BTreeSet<u32>,
    /// The pieces in which the job is said again that are not accepted yet.
    restoring: BTreeSet<u64>,
    /// Submissions on their way: token, the number after their last task.
    submissions: BTreeMap<u64, u32>,
    next_token: u64,
    accept_waiters: Vec<(u32, oneshot::Sender<()>)>,
    /// Who waits for the answer to which question.
    answers: BTreeMap<u64, Question>,
    /// The detached jobs of which it is not known yet that they are kept.
    detaching: Vec<Detaching>,
    /// The pieces on their way of a detached job of which one was not taken.
    given_up: BTreeSet<u64>,
    /// The kept tasks whose outcome is wanted here, of whatever job.
    watched: FixedMap<TaskId, Watched>,
    workers: BTreeMap<WorkerId, WorkerInfo>,
    next_scatter: usize,
    /// Set when the link is lost for good.
    lost: Option<String>,
}

/// What was asked, and waits for its answer.
struct Question {
    message: FromClient,
    answer: oneshot::Sender<ToClient>,
}

/// A task whose outcome is wanted.
#[derive(Default)]
struct Entry {
    /// The error apart, because it is large and there may be millions of entries.
    outcome: Option<Result<ResultAt, Box<ClientError>>>,
    waiters: Vec<oneshot::Sender<()>>,
}

impl Client {
    pub(crate) fn new(job: JobId, mesh: Mesh, actors: Actors, kinds: HashSet<KindId>, owns_mesh: bool) -> Arc<Client> {
        Arc::new_cyclic(|own| Client {
            job,
            mesh,
            actors,
            owns_mesh,
            kinds,
            state: Mutex::default(),
            queued: Arc::default(),
            workers_changed: Notify::new(),
            own: own.clone(),
            connection: OnceLock::new(),
            slots: Slots::default(),
        })
    }

    /// Hands over what shall end with the client. Called once.
    pub(crate) fn keep(&self, connection: Connection) {
        // A second one would end at once, which no caller wants.
        let _ = self.connection.set(connection);
    }

    pub(crate) fn actors(&self) -> &Actors {
        &self.actors
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        self.connection.get().map_or(&[], |connection| &connection.nodes)
    }

    pub(crate) fn way(&self) -> Option<Way> {
        self.connection.get().map(|connection| connection.way.clone())
    }

    pub(crate) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    pub(crate) fn owns_mesh(&self) -> bool {
        self.owns_mesh
    }

    /// Whether no scheduler is to be had any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lock().lost.is_some()
    }

    /// Whether tasks can be submitted for a good while yet: the scheduler is there, and so are numbers.
    pub(crate) fn is_usable(&self) -> bool {
        let state = self.lock();
        state.lost.is_none() && state.next < UNSENT_FROM / 2
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a call, with this priority unless it says one; gives the task's id. A call that cannot be sent gets an id
    /// too, and fails.
    pub(crate) fn submit(&self, mut parts: CallParts, priority: i32) -> TaskId {
        if !parts.has_priority {
            parts.options.priority = priority;
        }
        let mut state = self.lock();
        let (inputs, kind) = match self.check(&mut state, &parts) {
            Ok(checked) => checked,
            Err(error) => return TaskId::new(self.job, state.fail_unsent(error)),
        };
        let task = TaskId::new(self.job, state.next_index());
        let spec = TaskSpec { task, kind, payload: parts.payload.into(), inputs, options: parts.options };
        state.queue.push_back(Queued::Task(spec));
        drop(state);
        self.queued.notify_one();
        task
    }

    /// Submits a graph whole, or nothing of it; gives the ids of the tasks whose outputs are wanted, in their order.
    /// Those that say no priority get this one.
    pub(crate) fn submit_graph(
        &self,
        graph: Graph,
        wanted: &[String],
        priority: i32,
    ) -> Result<Vec<TaskId>, ClientError> {
        // The futures outlive the lock: dropping the last clone of one takes it.
        let GraphParts { graph, defs, with_priority, futures } = graph.into_parts();
        self.check_kinds(&defs)?;
        if let Some(foreign) = futures.iter().find(|future| !future.is_of(self)) {
            return Err(ClientError::ForeignFuture(foreign.task()));
        }
        let mut state = self.lock();
        state.check_not_lost()?;
        if let Some(error) = futures.iter().find_map(|future| state.unsent_failure(future.task())) {
            return Err(error);
        }
        let mut lowered = graph.lower(self.job, state.next)?;
        let id_of = |name: &String| lowered.ids.get(name).copied().ok_or_else(|| ClientError::NoSuchKey(name.clone()));
        let ids = wanted.iter().map(id_of).collect::<Result<Vec<_>, _>>()?;
        let is_wanted: HashSet<TaskId> = ids.iter().copied().collect();
        let has_priority: HashSet<TaskId> =
            with_priority.iter().filter_map(|name| lowered.ids.get(name).copied()).collect();
        // What only others of the graph need is wanted as well until all of it is known: it may be sent in pieces, and a scheduler
        // drops what nobody needs.
        let mut only_needed = Vec::new();
        for spec in &mut lowered.tasks {
            spec.options.wanted = true;
            if !is_wanted.contains(&spec.task) {
                only_needed.push(spec.task);
            }
            if !has_priority.contains(&spec.task) {
                spec.options.priority = priority;
            }
        }
        state.tasks.extend(is_wanted.iter().map(|task| (task.index, Entry::default())));
        state.next += lowered.tasks.len() as u32;
        state.queue.extend(lowered.tasks.into_iter().map(Queued::Task));
        state.queue.extend(only_needed.into_iter().map(Queued::Release));
        drop(state);
        self.queued.notify_one();
        Ok(ids)
    }

    /// Whether a call can be sent; the numbers of its inputs and its function's id if it can.
    fn check(&self, state: &mut State, parts: &CallParts) -> Result<(SmallVec<[u32; 3]>, KindId), ClientError> {
        let number = |input: &Input| match input {
            Input::Key(name) => Err(ClientError::KeyOutsideGraph(name.clone())),
            Input::Future(future) if future.is_of(self) => {
                state.unusable(future.task()).map_or(Ok(future.task().index), Err)
            }
            Input::Future(future) if future.is_kept_for(self) => {
                self.borrowed(state, future.task(), parts.options.priority)
            }
            Input::Future(future) => Err(ClientError::ForeignFuture(future.task())),
            Input::Delayed(_) => Err(ClientError::DelayedOutsideGraph(parts.def.name.to_owned())),
        };
        let inputs = parts.inputs.iter().map(number).collect::<Result<_, _>>()?;
        state.check_not_lost()?;
        let kind = self.known_kind(state, parts.def)?;
        if parts.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ClientError::TooLarge { name: parts.def.name, nbytes: parts.payload.len() });
        }
        Ok((inputs, kind))
    }

    /// The id of a function, if the cluster holds it.
    fn known_kind(&self, state: &mut State, def: &'static TaskDef) -> Result<KindId, ClientError> {
        let address = std::ptr::from_ref(def).addr();
        if let Some(kind) = state.kinds.get(&address) {
            return Ok(*kind);
        }
        self.check_kinds(&[def])?;
        let kind = def.kind();
        state.kinds.insert(address, kind);
        Ok(kind)
    }

    pub(crate) fn check_kinds(&self, defs: &[&'static TaskDef]) -> Result<(), ClientError> {
        let unknown = defs.iter().filter(|def| !self.kinds.contains(&def.kind()));
        let unknown: Vec<_> = unknown.map(|def| def.info()).collect();
        if unknown.is_empty() { Ok(()) } else { Err(ClientError::Rejected(SubmitError::UnknownKinds(unknown))) }
    }

    /// The id of a call that failed before it could be sent.
    pub(crate) fn fail(&self, error: ClientError) -> TaskId {
        TaskId::new(self.job, self.lock().fail_unsent(error))
    }

    /// Why a task was never sent, if it was not.
    fn unsent_failure_of(&self, task: TaskId) -> Option<ClientError> {
        self.lock().unsent_failure(task)
    }

    fn lost_error(&self) -> ClientError {
        ClientError::SchedulerLost(self.lock().lost.clone().unwrap_or_else(|| "the link is closed".into()))
    }

    pub(crate) fn workers(&self) -> BTreeMap<WorkerId, WorkerInfo> {
        self.lock().workers.clone()
    }

    /// Waits until `enough` workers are there.
    pub(crate) async fn wait_for_workers(&self, enough: usize) -> Result<(), ClientError> {
        loop {
            let changed = self.workers_changed.notified();
            {
                let state = self.lock();
                state.check_not_lost()?;
                if state.workers.len() >= enough {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Resolves when this node has had no worker for a while. One that loses its scheduler is back in a moment.
    pub(crate) async fn gone(&self, node: NodeId) {
        const MISSED_FOR: Duration = Duration::from_secs(15);
        let until_there = |is_wanted: bool| async move {
            loop {
                let changed = self.workers_changed.notified();
                if self.lock().workers.values().any(|info| info.node == node) == is_wanted {
                    return;
                }
                changed.await;
            }
        };
        loop {
            until_there(false).await;
            if tokio::time::timeout(MISSED_FOR, until_there(true)).await.is_err() {
                return;
            }
        }
    }

    /// Takes what the scheduler says.
    pub(crate) fn handle(&self, messages: Vec<ToClient>) {
        let mut rejected = None;
        let mut state = self.lock();
        for message in messages {
            match message {
                ToClient::Finished { task, result, .. } => {
                    state.settle_watched(task, &Ok(result.clone()));
                    if task.job == self.job {
                        state.settle(task.index, Ok(result));
                    }
                }
                ToClient::Failed { task, failure } => {
                    let is_of_watching = state.has_asked_in_vain(&failure);
                    let is_old = state.retrying.contains_key(&task.index);
                    let outcome = Err(ClientError::Failed(failure));
                    state.settle_watched(task, &outcome);
                    if task.job == self.job && !is_of_watching && !is_old {
                        state.settle(task.index, outcome);
                    }
                }
                ToClient::Recomputing { task } => {
                    state.watched.get_mut(&task).into_iter().for_each(|watched| watched.entry.outcome = None);
                    let is_forgotten = state.forgotten.contains(&task.index);
                    if let Some(entry) =
                        state.tasks.get_mut(&task.index).filter(|_| task.job == self.job && !is_forgotten)
                    {
                        entry.outcome = None;
                    }
                }
                ToClient::JobOpened { token, job, .. } => state.detached_is_open(token, job),
                ToClient::Accepted { token } => {
                    state.detached_is_accepted(token);
                    state.accept(token);
                }
                ToClient::Rejected { token, error } => {
                    if let Some(error) = state.detached_is_rejected(token, error) {
                        rejected = Some(format!("it did not take a submission: {error}"));
                        state.reject(token, &ClientError::Rejected(error));
                    }
                }
                ToClient::Done { token, ref problem, .. } if state.detached_is_kept(token, problem) => {}
                ToClient::WhoHas { token, .. }
                | ToClient::Explained { token, .. }
                | ToClient::Report { token, .. }
                | ToClient::Jobs { token, .. }
                | ToClient::Kept { token, .. }
                | ToClient::TaskStream { token, .. }
                | ToClient::Done { token, .. } => {
                    state.is_retried(token);
                    if let Some(question) = state.answers.remove(&token) {
                        // Whoever asked may have given up.
                        let _ = question.answer.send(message);
                    }
                }
                ToClient::Worker { worker, info } => {
                    state.workers.insert(worker, info);
                    self.workers_changed.notify_waiters();
                }
                ToClient::WorkerGone { worker } => {
                    state.workers.remove(&worker);
                    self.workers_changed.notify_waiters();
                }
            }
        }
        // It may have waited for this.
        if !state.queue.is_empty() {
            self.queued.notify_one();
        }
        drop(state);
        // What is submitted is checked before it is sent, and not too much is sent, so this is a fault of the system; the
        // numbers of all later tasks would not fit.
        if let Some(reason) = rejected {
            self.lose(&reason);
        }
    }

    /// The link is lost for good: everything that is not settled fails.
    pub(crate) fn lose(&self, reason: &str) {
        let mut state = self.lock();
        // What is found out later follows from the first.
        state.lost.get_or_insert_with(|| reason.to_owned());
        state.queue.clear();
        state.answers.clear();
        state.open_graph = OpenGraph::default();
        state.accept_waiters.clear();
        state.fired.clear();
        state.retrying.clear();
        let error = ClientError::SchedulerLost(reason.to_owned());
        state.lose_detaching(&error);
        state.lose_watched(&error);
        let open: Vec<u32> =
            state.tasks.iter().filter(|(_, entry)| entry.outcome.is_none()).map(|(&index, _)| index).collect();
        for index in open {
            state.settle(index, Err(error.clone()));
        }
        drop(state);
        self.workers_changed.notify_waiters();
        self.queued.notify_one();
    }
}

impl Entry {
    fn settle(&mut self, outcome: Result<ResultAt, ClientError>) {
        self.outcome = Some(outcome.map_err(Box::new));
        for waiter in self.waiters.drain(..) {
            // Whoever waited may have given up.
            let _ = waiter.send(());
        }
    }
}

impl State {
    fn check_not_lost(&self) -> Result<(), ClientError> {
        self.lost.as_ref().map_or(Ok(()), |lost| Err(ClientError::SchedulerLost(lost.clone())))
    }

    fn next_index(&mut self) -> u32 {
        let index = self.next;
        self.next += 1;
        self.tasks.insert(index, Entry::default());
        index
    }

    fn next_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Numbers a task that is not sent, and settles it.
    fn fail_unsent(&mut self, error: ClientError) -> u32 {
        self.unsent += 1;
        let index = u32::MAX - self.unsent;
        self.tasks.insert(index, Entry { outcome: Some(Err(Box::new(error))), waiters: Vec::new() });
        index
    }

    /// Why a task was never sent, if it was not.
    fn unsent_failure(&self, task: TaskId) -> Option<ClientError> {
        if task.index < UNSENT_FROM {
            return None;
        }
        self.tasks.get(&task.index)?.outcome.as_ref()?.as_ref().err().map(|error| (**error).clone())
    }

    fn settle(&mut self, index: u32, outcome: Result<ResultAt, ClientError>) {
        // Nobody holds the future any more: the release is on its way.
        self.cancelled.remove(&index);
        if self.forgotten.contains(&index) {
            return;
        }
        self.fired_has_ended(index, &outcome);
        if let Some(entry) = self.tasks.get_mut(&index) {
            entry.settle(outcome);
        }
    }

    fn accept(&mut self, token: u64) {
        if self.restoring.remove(&token) && self.restoring.is_empty() {
            // What had been said is known again, accepted before or not.
            self.submissions.clear();
            return self.accept_below(self.said);
        }
        if let Some(end) = self.submissions.remove(&token) {
            self.accept_below(end);
        }
    }

    fn accept_below(&mut self, end: u32) {
        self.accepted = self.accepted.max(end);
        let accepted = self.accepted;
        let (done, waiting) = self.accept_waiters.drain(..).partition(|(index, _)| *index < accepted);
        self.accept_waiters = waiting;
        for (_, waiter) in done {
            let _ = waiter.send(());
        }
    }

    /// Fails every task of a submission that was not taken.
    fn reject(&mut self, token: u64, error: &ClientError) {
        let Some(&end) = self.submissions.get(&token) else { return };
        let start = self.submissions.range(..token).next_back().map_or(self.accepted, |(_, &before)| before);
        for index in start..end {
            self.settle(index, Err(error.clone()));
        }
        self.accept(token);
    }
}

impl ResultSource for Client {
    fn release(&self, task: TaskId) {
        let mut state = self.lock();
        if state.runs_on(task.index) || !state.let_go(task) {
            return;
        }
        drop(state);
        self.queued.notify_one();
    }

    fn status(&self, task: TaskId) -> FutureStatus {
        let state = self.lock();
        let outcome = state.tasks.get(&task.index).and_then(|entry| entry.outcome.as_ref());
        FutureStatus::of(outcome.map(|outcome| outcome.as_ref().map_err(AsRef::as_ref)))
    }

    fn cancel(&self, task: TaskId) {
        self.cancel_tasks([task]);
    }

    fn result(&self, task: TaskId) -> BoxFuture<'static, Result<Value, ClientError>> {
        let Some(client) = self.own.upgrade() else { return gone() };
        async move { client.fetch(Held::Own, task).await }.boxed()
    }

    fn finished(&self, task: TaskId) -> BoxFuture<'static, Result<(), ClientError>> {
        let Some(client) = self.own.upgrade() else { return gone() };
        async move { client.settled(Held::Own, task).await.map(drop) }.boxed()
    }

    fn accepted(&self, task: TaskId) -> BoxFuture<'static, Result<(), ClientError>> {
        let Some(client) = self.own.upgrade() else { return gone() };
        async move {
            let waiting = {
                let mut state = client.lock();
                match state.tasks.get(&task.index).and_then(|entry| entry.outcome.as_ref()) {
                    Some(Err(error)) => return Err((**error).clone()),
                    Some(Ok(_)) => return Ok(()),
                    None if task.index < state.accepted => return Ok(()),
                    None => {}
                }
                let (told, waiting) = oneshot::channel();
                state.accept_waiters.push((task.index, told));
                waiting
            };
            // Told, or the link is lost.
            let _ = waiting.await;
            let state = client.lock();
            match state.tasks.get(&task.index).and_then(|entry| entry.outcome.as_ref()) {
                Some(Err(error)) => Err((**error).clone()),
                _ => Ok(()),
            }
        }
        .boxed()
    }
}

/// The client is being dropped by the one who asks.
fn gone<T: Send + 'static>() -> BoxFuture<'static, Result<T, ClientError>> {
    std::future::ready(Err(ClientError::SchedulerLost("the client is closed".into()))).boxed()
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.tasks.iter().for_each(JoinHandle::abort);
        }
        if self.owns_mesh {
            self.mesh.close();
        }
    }
}
