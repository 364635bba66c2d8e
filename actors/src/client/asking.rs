//! What a client asks of the scheduler besides running tasks: to give up, to explain, to move data, to let workers go.
//!
//! A question carries a token, and its answer carries it back. Questions go through the same queue as tasks, so that the
//! scheduler knows every task that was submitted before.

use std::collections::BTreeMap;

use starling_core::explain::Explanation;
use starling_core::ids::{TaskId, WorkerId};
use starling_core::wire::{FromClient, ToClient, WorkerInfo};
use starling_runtime::task::ClientError;
use tokio::sync::oneshot;

use super::sending::Queued;
use super::{Client, IDS_MAX, Question, UNSENT_FROM};

/// How many workers an error names.
const NAMED_MAX: usize = 16;

pub(crate) type WhoHas = Vec<(TaskId, Vec<WorkerId>, u64)>;

/// A question on its way. Dropping it forgets the question.
struct Asked<'a> {
    client: &'a Client,
    token: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.client.lock().answers.remove(&self.token);
    }
}

impl Client {
    /// Says something that is answered with its token, and gives the answer.
    pub(super) async fn ask(&self, message: impl FnOnce(u64) -> FromClient) -> Result<ToClient, ClientError> {
        let (answer, answered) = oneshot::channel();
        let asked = {
            let mut state = self.lock();
            state.check_not_lost()?;
            let token = state.next_token();
            let message = message(token);
            state.answers.insert(token, Question { message: message.clone(), answer });
            state.queue.push_back(Queued::Message(message));
            Asked { client: self, token }
        };
        self.queued.notify_one();
        let answer = answered.await.map_err(|_| self.lost_error());
        drop(asked);
        answer
    }

    /// Who holds these outputs, as the scheduler knows it.
    pub(crate) async fn who_has(&self, tasks: &[TaskId]) -> Result<WhoHas, ClientError> {
        let mut all = Vec::new();
        for tasks in tasks.chunks(IDS_MAX) {
            match self.ask(|token| FromClient::WhoHas { token, tasks: tasks.to_vec() }).await? {
                ToClient::WhoHas { holders, .. } => all.extend(holders),
                _ => return Err(another_answer()),
            }
        }
        Ok(all)
    }

    /// Why a task is where it is; of one that was never sent, why it was not.
    pub(crate) async fn explain(&self, task: TaskId) -> Result<Explanation, ClientError> {
        if let Some(error) = self.unsent_failure_of(task) {
            return Err(error);
        }
        match self.ask(|token| FromClient::Explain { token, task }).await? {
            ToClient::Explained { explanation, .. } => Ok(explanation),
            _ => Err(another_answer()),
        }
    }

    /// Has so many copies of each output; gives how many were made.
    pub(crate) async fn replicate(&self, tasks: &[TaskId], copies: u32) -> Result<u64, ClientError> {
        let mut all = Moved::default();
        for tasks in tasks.chunks(IDS_MAX) {
            let tasks = tasks.to_vec();
            all.add(self.ask(|token| FromClient::Replicate { token, tasks, copies }).await?)?;
        }
        all.into_result()
    }

    /// Evens out what workers hold; gives how many outputs were moved.
    pub(crate) async fn rebalance(&self) -> Result<u64, ClientError> {
        let mut all = Moved::default();
        all.add(self.ask(|token| FromClient::Rebalance { token }).await?)?;
        all.into_result()
    }

    /// Has workers leave; gives how many outputs were moved for it.
    pub(crate) async fn retire(&self, names: &[String]) -> Result<u64, ClientError> {
        let workers = self.find(names)?;
        let mut all = Moved::default();
        all.add(self.ask(|token| FromClient::Retire { token, workers }).await?)?;
        all.into_result()
    }

    /// The workers of these names, each the name of one worker or the beginning of its node's id.
    pub(crate) fn find(&self, names: &[String]) -> Result<Vec<WorkerId>, ClientError> {
        find_workers(&self.workers(), names)
    }

    /// That there is no such worker, with those that there are.
    pub(crate) fn no_such_worker(&self, name: &str) -> ClientError {
        ClientError::NoSuchWorker { name: name.to_owned(), known: list(self.workers().values()) }
    }

    /// Gives tasks up. What is not this job's, or was never sent, is passed over.
    pub(crate) fn cancel_tasks(&self, tasks: impl IntoIterator<Item = TaskId>) {
        let is_sent = |task: &TaskId| task.job == self.job && task.index < UNSENT_FROM;
        let tasks: Vec<TaskId> = tasks.into_iter().filter(is_sent).collect();
        self.lock().give_up(tasks.iter().map(|task| task.index));
        self.say(tasks.chunks(IDS_MAX).map(|tasks| FromClient::Cancel { tasks: tasks.to_vec() }));
    }

    /// Gives up all that is not finished. If the queue waits for a scheduler that is full, what that one has is given up
    /// at once, and the rest in its turn.
    pub(crate) fn cancel_job(&self) {
        let message = FromClient::CancelJob { job: self.job };
        let mut state = self.lock();
        let all: Vec<u32> = state.tasks.keys().copied().filter(|index| *index < UNSENT_FROM).collect();
        state.give_up(all.into_iter());
        if state.is_far_ahead() {
            state.urgent = Some(message.clone());
        }
        drop(state);
        self.say([message]);
    }

    /// Says what has no answer.
    pub(super) fn say(&self, messages: impl IntoIterator<Item = FromClient>) {
        let mut state = self.lock();
        if state.check_not_lost().is_err() {
            return;
        }
        state.queue.extend(messages.into_iter().map(Queued::Message));
        drop(state);
        self.queued.notify_one();
    }
}

/// What came of an order that was given in parts.
#[derive(Default)]
struct Moved {
    outputs: u64,
    /// The first.
    problem: String,
}

impl Moved {
    fn add(&mut self, answer: ToClient) -> Result<(), ClientError> {
        let ToClient::Done { moved, problem, .. } = answer else { return Err(another_answer()) };
        self.outputs = self.outputs.saturating_add(moved);
        if self.problem.is_empty() {
            self.problem = problem;
        }
        Ok(())
    }

    fn into_result(self) -> Result<u64, ClientError> {
        let Moved { outputs, problem } = self;
        if problem.is_empty() { Ok(outputs) } else { Err(ClientError::NotDone { moved: outputs, problem }) }
    }
}

/// A fault of the scheduler's: nothing that it says can be relied on.
pub(super) fn another_answer() -> ClientError {
    ClientError::SchedulerLost("it answered something that was not asked".to_owned())
}

/// The workers of these names, each the name of one worker or the beginning of its node's id.
fn find_workers(workers: &BTreeMap<WorkerId, WorkerInfo>, names: &[String]) -> Result<Vec<WorkerId>, ClientError> {
    let mut found = Vec::new();
    for name in names {
        let mut matching: Vec<_> = workers.iter().filter(|(_, info)| info.name == *name).collect();
        if matching.is_empty() && !name.is_empty() {
            matching = workers.iter().filter(|(_, info)| info.node.hex().starts_with(name)).collect();
        }
        match matching.as_slice() {
            [(worker, _)] if found.contains(*worker) => {}
            [(worker, _)] => found.push(**worker),
            [] => {
                let known = list(workers.values());
                return Err(ClientError::NoSuchWorker { name: name.clone(), known });
            }
            several => {
                let matching = list(several.iter().map(|(_, info)| *info));
                return Err(ClientError::AmbiguousWorker { name: name.clone(), matching });
            }
        }
    }
    Ok(found)
}

fn list<'a>(workers: impl Iterator<Item = &'a WorkerInfo>) -> String {
    let all: Vec<String> = workers.map(|info| format!("{} ({})", info.name, info.node)).collect();
    match all.len() {
        0 => "none".to_owned(),
        count if count > NAMED_MAX => format!("{} and {} more", all[..NAMED_MAX].join(", "), count - NAMED_MAX),
        _ => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use starling_core::ids::NodeId;

    use super::*;

    fn workers(all: &[(&str, u8)]) -> BTreeMap<WorkerId, WorkerInfo> {
        let info = |(name, first): &(&str, u8)| {
            let mut node = [0; 32];
            (node[0], node[31]) = (*first, 7);
            WorkerInfo { node: NodeId(node), name: (*name).to_owned(), ..WorkerInfo::default() }
        };
        (0..).map(WorkerId).zip(all.iter().map(info)).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn workers_are_found_by_name_and_by_the_beginning_of_their_node() {
        let workers = workers(&[("a", 0xab), ("b", 0xac), ("ab", 0xff)]);
        let find = |asked: &[&str]| find_workers(&workers, &names(asked)).unwrap();
        assert_eq!(find(&["b", "ab"]), [WorkerId(1), WorkerId(2)]);
        assert_eq!(find(&["ac00", "b"]), [WorkerId(1)]);
        assert_eq!(find(&[&workers[&WorkerId(0)].node.hex()]), [WorkerId(0)]);
        assert_eq!(find(&[]), []);
    }

    #[test]
    fn a_name_that_fits_none_or_several_is_told_with_what_there_is() {
        let two = workers(&[("host", 0xab), ("host", 0xac)]);
        let error = |asked: &str| find_workers(&two, &names(&[asked])).unwrap_err().to_string();
        let both = "host (ab0000000000), host (ac0000000000)";
        assert_eq!(error("gone"), format!("there is no worker gone: the cluster has {both}"));
        assert_eq!(error(""), format!("there is no worker : the cluster has {both}"));
        assert_eq!(error("host"), format!("host may be any of {both}: say which by the beginning of its node's id"));
        assert_eq!(error("a"), error("host").replacen("host", "a", 1));
        let many = workers(&[("x", 1); 20]);
        assert!(find_workers(&many, &names(&["y"])).unwrap_err().to_string().ends_with("and 4 more"));
        assert!(find_workers(&workers(&[]), &names(&["y"])).unwrap_err().to_string().ends_with("has none"));
    }
}
