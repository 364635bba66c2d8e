//! The client alone, with the test in the scheduler's place.

mod again;
mod keeping;

use std::sync::Arc;

use starling_core::explain::{Explanation, Why};
use starling_core::failure::{FailureCause, TaskFailure};
use starling_core::ids::{JobId, TaskId, WorkerId};
use starling_core::wire::{FromClient, ToClient};
use starling_runtime::mesh::{MemberInfo, Mesh, MeshConfig, MeshLimits, Role};
use starling_runtime::store::Store;
use starling_runtime::task::{Call, ClientError, Entries, Future, Graph, ResultSource, TaskDef, key};

use super::borrowing::KEPT_OUTPUT;
use super::sending::{Next, Queued, SENT_MAX, TAKEN_MAX};
use super::{Client, IDS_MAX, UNSENT_FROM};
use crate::served::ServedStore;

const JOB: JobId = JobId(7);

static DEF: TaskDef = TaskDef {
    name: "crate::work",
    signature: "() -> u64",
    version: 0,
    json: None,
    entries: || Entries { call: Arc::new(|_| Err(FailureCause::UnknownKind)), items: None },
};

fn call() -> Call<u64> {
    Call::new(&DEF)
}

async fn client() -> Arc<Client> {
    let member = MemberInfo { name: "client".into(), role: Role::Client, room: 0, keeps: false };
    let config = MeshConfig { keypair: None, listen: Vec::new(), secret: None, member, limits: MeshLimits::default() };
    let (mesh, _) = Mesh::start(config, ServedStore::new(Store::unlimited())).await.unwrap();
    let kinds = [DEF.kind(), KEPT_OUTPUT.kind()].into();
    Client::new(JOB, mesh.clone(), crate::node::remote_actors(&mesh).unwrap(), kinds, true)
}

fn submit(client: &Arc<Client>, call: Call<u64>) -> Future<u64> {
    Future::new(client.submit(call.into_parts().unwrap(), 5), Arc::clone(client) as Arc<dyn ResultSource>)
}

/// Takes what is queued and is no task.
fn said(client: &Client) -> Vec<FromClient> {
    let queue = std::mem::take(&mut client.lock().queue);
    let messages = queue.into_iter().filter_map(|queued| match queued {
        Queued::Message(message) => Some(message),
        _ => None,
    });
    messages.collect()
}

/// Waits until something is said.
async fn next_said(client: &Client) -> FromClient {
    loop {
        if let Some(message) = said(client).pop() {
            return message;
        }
        tokio::task::yield_now().await;
    }
}

fn is_lost<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> bool {
    matches!(outcome, Err(ClientError::SchedulerLost(reason)) if reason == "gone")
}

#[tokio::test]
async fn a_question_is_answered_by_its_token_and_by_no_other() {
    let client = client().await;
    let task = TaskId::new(JobId(1), 2);
    let asking = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.explain(task).await }
    });
    let FromClient::Explain { token, task: asked } = next_said(&client).await else { panic!("another question") };
    assert_eq!(asked, task);
    let explanation = |name: &str| Explanation { task, name: name.into(), why: Why::Forgotten };
    client.handle(vec![
        ToClient::Explained { token: token + 1, explanation: explanation("wrong") },
        ToClient::Explained { token, explanation: explanation("right") },
        ToClient::Explained { token, explanation: explanation("doubled") },
    ]);
    assert_eq!(asking.await.unwrap(), Ok(explanation("right")));
    assert!(client.lock().answers.is_empty());
}

#[tokio::test]
async fn an_answer_of_another_kind_is_an_error() {
    let client = client().await;
    let asking = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.rebalance().await }
    });
    let FromClient::Rebalance { token } = next_said(&client).await else { panic!("another question") };
    client.handle(vec![ToClient::WhoHas { token, holders: Vec::new() }]);
    assert!(matches!(asking.await.unwrap(), Err(ClientError::SchedulerLost(_))));
}

#[tokio::test]
async fn a_question_that_is_given_up_is_forgotten() {
    let client = client().await;
    let question = client.explain(TaskId::new(JOB, 0));
    assert!(futures::FutureExt::now_or_never(question).is_none());
    assert!(client.lock().answers.is_empty());
    assert_eq!(said(&client).len(), 1);
}

#[tokio::test]
async fn questions_fail_when_the_scheduler_is_lost() {
    let client = client().await;
    let asking = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.replicate(&[TaskId::new(JOB, 0)], 2).await }
    });
    next_said(&client).await;
    client.lose("gone");
    assert!(is_lost(asking.await.unwrap()));
    assert!(is_lost(client.explain(TaskId::new(JOB, 0)).await));
    client.cancel_job();
    assert_eq!(said(&client), []);
}

#[tokio::test]
async fn an_order_in_parts_adds_up_and_tells_the_first_problem() {
    let client = client().await;
    let ordering = tokio::spawn({
        let client = Arc::clone(&client);
        let tasks: Vec<TaskId> = (0..IDS_MAX as u32 + 1).map(|index| TaskId::new(JOB, index)).collect();
        async move { client.replicate(&tasks, 3).await }
    });
    for (tasks_len, moved, problem) in [(IDS_MAX, 10, "no room"), (1, 1, "no more room")] {
        let FromClient::Replicate { token, tasks, copies: 3 } = next_said(&client).await else {
            panic!("another order")
        };
        assert_eq!(tasks.len(), tasks_len);
        client.handle(vec![ToClient::Done { token, moved, problem: problem.into() }]);
    }
    assert_eq!(ordering.await.unwrap(), Err(ClientError::NotDone { moved: 11, problem: "no room".into() }));
}

#[tokio::test]
async fn retiring_nobody_that_is_known_says_nothing() {
    let client = client().await;
    let refused = client.retire(&["one".to_owned()]).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no worker one: the cluster has none");
    assert_eq!(said(&client), []);

    client.handle(vec![ToClient::Worker { worker: WorkerId(4), info: named("one") }]);
    let asking = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.retire(&["one".to_owned()]).await }
    });
    let FromClient::Retire { token, workers } = next_said(&client).await else { panic!("another order") };
    assert_eq!(workers, [WorkerId(4)]);
    client.handle(vec![ToClient::Done { token, moved: 2, problem: String::new() }]);
    assert_eq!(asking.await.unwrap(), Ok(2));
}

fn named(name: &str) -> starling_core::wire::WorkerInfo {
    starling_core::wire::WorkerInfo { name: name.into(), ..Default::default() }
}

#[tokio::test]
async fn cancelling_is_said_in_bounded_messages_and_the_result_says_it() {
    let client = client().await;
    let future = submit(&client, call());
    let never_sent = TaskId::new(JOB, UNSENT_FROM);
    let foreign = TaskId::new(JobId(8), 0);
    client.cancel_tasks([never_sent, foreign]);
    assert_eq!(said(&client), []);

    future.cancel();
    client.cancel_tasks((0..IDS_MAX as u32 + 1).map(|index| TaskId::new(JOB, index)));
    client.cancel_job();
    let said = said(&client);
    let lengths = said.iter().map(|message| match message {
        FromClient::Cancel { tasks } => tasks.len(),
        FromClient::CancelJob { job: JOB } => 0,
        other => panic!("{other:?}"),
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [1, IDS_MAX, 1, 0]);
    assert_eq!(said[0], FromClient::Cancel { tasks: vec![future.task()] });

    let failure =
        TaskFailure { task: future.task(), name: DEF.name.into(), node: None, cause: FailureCause::Cancelled };
    client.handle(vec![ToClient::Failed { task: future.task(), failure: failure.clone() }]);
    assert_eq!(future.result().await, Err(ClientError::Failed(failure)));
}

#[tokio::test]
async fn calls_that_say_no_priority_get_their_clients() {
    let client = client().await;
    let _held = [submit(&client, call()), submit(&client, call().priority(0))];
    let mut graph = Graph::new();
    graph.add("a", call()).unwrap();
    graph.add("b", call().priority(-3)).unwrap();
    client.submit_graph(graph, &["b".to_owned()], 6).unwrap();
    let state = client.lock();
    let priorities = state.queue.iter().filter_map(|queued| match queued {
        Queued::Task(spec) => Some(spec.options.priority),
        _ => None,
    });
    assert_eq!(priorities.collect::<Vec<_>>(), [5, 0, 6, -3]);
}

#[tokio::test]
async fn what_only_a_graph_needs_is_let_go_after_all_of_it_was_said() {
    let client = client().await;
    let mut graph = Graph::new();
    graph.add("b", call().arg::<u64>(key::<u64>("a"))).unwrap();
    graph.add("a", call()).unwrap();
    client.submit_graph(graph, &["b".to_owned()], 0).unwrap();
    let state = client.lock();
    let said = state.queue.iter().map(|queued| match queued {
        Queued::Task(spec) => (spec.task.index, spec.options.wanted),
        Queued::Release(task) => (task.index, false),
        _ => panic!("nothing else was queued"),
    });
    assert_eq!(said.collect::<Vec<_>>(), [(0, true), (1, true), (0, false)]);
}

#[tokio::test]
async fn what_is_out_of_bounds_is_the_futures_error_and_is_not_sent() {
    let client = client().await;
    let error = call().timeout(std::time::Duration::ZERO).into_parts().err().unwrap();
    let task = client.fail(error.clone());
    let future: Future<u64> = Future::new(task, Arc::clone(&client) as Arc<dyn ResultSource>);
    assert_eq!(future.result().await, Err(error.clone()));
    assert_eq!(future.clone().await.unwrap_err(), error);
    assert_eq!(client.explain(task).await, Err(error));
    assert!(client.lock().queue.is_empty());
}

#[tokio::test]
async fn submitting_very_many_waits_for_the_scheduler() {
    use crate::cluster::{Cluster, UNACCEPTED_MAX, UNACCEPTED_STEP};
    let client = client().await;
    let cluster = Cluster::of(Arc::clone(&client));
    let count = UNACCEPTED_MAX as u32 + 5 * UNACCEPTED_STEP as u32;
    let submitting = tokio::spawn(async move { cluster.submit_all((0..count).map(|_| call())).await });
    let mut steps = 0;
    while !submitting.is_finished() {
        tokio::task::yield_now().await;
        let mut state = client.lock();
        assert!(state.next - state.accepted <= (UNACCEPTED_MAX + UNACCEPTED_STEP) as u32);
        let waits_for = state.accept_waiters.iter().map(|(index, _)| *index).max();
        if let Some(index) = waits_for {
            steps += 1;
            // The part of the writer and of a scheduler that takes no more than what is waited for.
            state.queue.clear();
            state.submissions.insert(steps, index + 1);
            state.accept(steps);
        }
    }
    assert_eq!(submitting.await.unwrap().len(), count as usize);
    assert_eq!(steps, 5);
}

/// What the writer would send now: how many tasks, and which messages. `None` if it waits.
fn sends(client: &Client) -> Option<(usize, Vec<FromClient>)> {
    let Next::Send(queue) = client.next_to_send() else { return None };
    let mut tasks = 0;
    let mut messages = Vec::new();
    for queued in queue {
        match queued {
            Queued::Task(spec) => {
                tasks += 1;
                client.lock().sent = spec.task.index + 1;
            }
            Queued::Message(message) => messages.push(message),
            Queued::Release(_) | Queued::Scatter { .. } => panic!("nothing else was queued"),
        }
    }
    Some((tasks, messages))
}

#[tokio::test]
async fn the_queue_waits_while_the_scheduler_accepts_nothing_and_giving_up_does_not() {
    let client = client().await;
    let held: Vec<_> = (0..TAKEN_MAX + 10).map(|_| submit(&client, call())).collect();
    assert_eq!(sends(&client), Some((TAKEN_MAX, vec![])));
    // As if it had been sent much more.
    client.lock().sent = SENT_MAX;
    assert_eq!(sends(&client), None);
    let cancel = FromClient::CancelJob { job: JOB };
    client.cancel_job();
    assert_eq!(sends(&client), Some((0, vec![cancel.clone()])));
    assert_eq!(sends(&client), None);

    // The writer has heard of all that, and waits.
    let is_told = || futures::FutureExt::now_or_never(client.queued.notified()).is_some();
    while is_told() {}
    client.lock().submissions.insert(1, 5);
    client.handle(vec![ToClient::Accepted { token: 1 }]);
    assert!(is_told());
    assert_eq!(sends(&client), Some((10, vec![cancel.clone()])));
    // While nothing waits, it goes once, in its turn.
    client.cancel_job();
    assert_eq!(sends(&client), Some((0, vec![cancel])));
    assert_eq!(sends(&client), None);
    client.lose("gone");
    assert!(matches!(client.next_to_send(), Next::End));
    drop(held);
}
