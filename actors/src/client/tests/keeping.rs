//! What outlives the client.

use std::future::Future as StdFuture;

use smallvec::smallvec;
use starling_core::spec::TaskSpec;
use starling_core::wire::{JobSummary, KeptName, ResultAt, SubmitError};
use starling_runtime::value::Encoded;
use tokio::task::JoinHandle;

use super::*;
use crate::cluster::Cluster;

const DETACHED: JobId = JobId(70);
const KEPT: TaskId = TaskId::new(JobId(80), 3);

/// Asks in the background.
fn ask<T, F>(client: &Arc<Client>, ask: impl FnOnce(Cluster) -> F) -> JoinHandle<Result<T, ClientError>>
where
    T: Send + 'static,
    F: StdFuture<Output = Result<T, ClientError>> + Send + 'static,
{
    tokio::spawn(ask(Cluster::of(Arc::clone(client))))
}

/// Waits until something is said, and gives all that is queued.
async fn all_said(client: &Client) -> Vec<FromClient> {
    loop {
        let messages = said(client);
        if !messages.is_empty() {
            return messages;
        }
        tokio::task::yield_now().await;
    }
}

/// The tasks that are released by what is queued.
pub(super) fn released(client: &Client) -> Vec<TaskId> {
    let mut released = Vec::new();
    client.lock().queue.retain(|queued| match queued {
        Queued::Release(task) => {
            released.push(*task);
            false
        }
        _ => true,
    });
    released
}

fn detach(client: &Arc<Client>, calls: usize) -> JoinHandle<Result<JobId, ClientError>> {
    ask(client, move |cluster| async move {
        cluster.submit_all_detached((0..calls).map(|_| call())).await.map(|detached| detached.job())
    })
}

async fn opened(client: &Client) -> u64 {
    let message = next_said(client).await;
    let FromClient::OpenJob { name, token } = message else { panic!("not opened: {message:?}") };
    assert_eq!(name, "client");
    client.handle(vec![ToClient::JobOpened { token, job: DETACHED, term: Default::default() }]);
    token
}

fn indices(tasks: &[TaskSpec]) -> Vec<u32> {
    assert!(tasks.iter().all(|spec| spec.task.job == DETACHED && spec.options.wanted && spec.kind == DEF.kind()));
    tasks.iter().map(|spec| spec.task.index).collect()
}

/// The pieces in which a detached job was said: tokens and how many tasks.
fn pieces_of(messages: &[FromClient]) -> Vec<(u64, usize)> {
    let piece = |message: &FromClient| match message {
        FromClient::Submit { job: DETACHED, token, tasks, .. }
        | FromClient::Restore { job: DETACHED, token, tasks, .. } => (*token, indices(tasks).len()),
        other => panic!("{other:?}"),
    };
    messages.iter().map(piece).collect()
}

fn accept(client: &Client, tokens: impl IntoIterator<Item = u64>) {
    client.handle(tokens.into_iter().map(|token| ToClient::Accepted { token }).collect());
}

fn done(client: &Client, token: u64, problem: &str) {
    client.handle(vec![ToClient::Done { token, moved: 0, problem: problem.to_owned() }]);
}

fn keep_token(messages: &[FromClient], wanted_len: usize) -> u64 {
    let [FromClient::Keep { token, name: KeptName::Job(DETACHED), job: DETACHED, wanted }] = messages else {
        panic!("not kept: {messages:?}")
    };
    assert_eq!(wanted.len(), wanted_len);
    *token
}

#[tokio::test]
async fn a_detached_job_is_opened_said_in_pieces_and_kept_and_its_tasks_are_let_go() {
    let client = client().await;
    let detaching = detach(&client, 3_000);
    opened(&client).await;
    let submitted = said(&client);
    let [(first, 2048), (second, 952)] = pieces_of(&submitted)[..] else { panic!("{:?}", pieces_of(&submitted)) };
    accept(&client, [second]);
    assert_eq!(said(&client), []);
    accept(&client, [first, first]);
    let token = keep_token(&said(&client), 3_000);
    // Answers to other questions, and outcomes of tasks that nobody here waits for.
    done(&client, token + 1, "no");
    let task = TaskId::new(DETACHED, 5);
    client.handle(vec![ToClient::Finished { task, nbytes: 1, result: ResultAt::Workers(smallvec![WorkerId(1)]) }]);
    assert!(!detaching.is_finished());
    done(&client, token, "");
    assert_eq!(detaching.await.unwrap(), Ok(DETACHED));
    assert_eq!(released(&client).len(), 3_000);
    assert_eq!(said(&client), []);
    assert!(client.lock().detaching.is_empty());
}

#[tokio::test]
async fn a_detached_graph_is_numbered_from_0_and_its_outputs_are_kept_in_the_order_of_their_names() {
    let client = client().await;
    let _own = submit(&client, call());
    let mut graph = Graph::new();
    graph.add("b", call().arg::<u64>(key::<u64>("a")).priority(4)).unwrap();
    graph.add("a", call()).unwrap();
    let detaching = ask(&client, |cluster| async move {
        cluster.submit_graph_detached::<u64>(graph, ["b", "a", "b"]).await.map(|detached| detached.job())
    });
    // The own task is queued as a task, not as a message.
    opened(&client).await;
    let messages = said(&client);
    let [FromClient::Submit { token, tasks, .. }] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(indices(tasks), [0, 1]);
    assert_eq!(tasks.iter().map(|spec| spec.options.priority).collect::<Vec<_>>(), [0, 4]);
    accept(&client, [*token]);
    let messages = said(&client);
    let [FromClient::Keep { token, wanted, .. }] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(wanted, &[1, 0, 1]);
    done(&client, *token, "");
    assert_eq!(detaching.await.unwrap(), Ok(DETACHED));
}

#[tokio::test]
async fn what_cannot_be_detached_is_refused_before_anything_is_said() {
    let client = client().await;
    let cluster = Cluster::of(Arc::clone(&client));
    let future = cluster.submit(call());
    client.lock().queue.clear();
    let error = cluster.submit_detached(call().arg::<u64>(&future)).await.unwrap_err();
    assert_eq!(error, ClientError::FutureInDetached(future.task()));
    let error = cluster.submit_detached(call().arg::<u64>(key::<u64>("a"))).await.unwrap_err();
    assert_eq!(error, ClientError::KeyOutsideGraph("a".to_owned()));
    let error = cluster.submit_graph_detached::<u64>(Graph::new(), ["a"]).await.unwrap_err();
    assert_eq!(error, ClientError::NoSuchKey("a".to_owned()));
    assert!(matches!(
        cluster.submit_detached(call().timeout(std::time::Duration::ZERO)).await,
        Err(ClientError::BadOptions { .. })
    ));
    assert!(client.lock().queue.is_empty() && client.lock().detaching.is_empty());
}

#[tokio::test]
async fn a_job_that_is_not_kept_is_given_up_and_the_error_says_why() {
    let client = client().await;
    let detaching = detach(&client, 1);
    opened(&client).await;
    let [(token, 1)] = pieces_of(&said(&client))[..] else { panic!("another piece") };
    accept(&client, [token]);
    let token = keep_token(&said(&client), 1);
    done(&client, token, "no quorum");
    assert_eq!(detaching.await.unwrap(), Err(ClientError::NotKept("no quorum".to_owned())));
    assert_eq!(released(&client), [TaskId::new(DETACHED, 0)]);
    assert_eq!(said(&client), [FromClient::CancelJob { job: DETACHED }]);
}

#[tokio::test]
async fn a_piece_that_is_not_taken_ends_the_job_and_not_the_client() {
    let client = client().await;
    let detaching = detach(&client, 3_000);
    opened(&client).await;
    let [(first, _), (second, _)] = pieces_of(&said(&client))[..] else { panic!("other pieces") };
    let error = SubmitError::TooManyTasks { tasks_max: 9 };
    client.handle(vec![
        ToClient::Rejected { token: first, error: error.clone() },
        ToClient::Rejected { token: second, error: SubmitError::UnknownJob(DETACHED) },
    ]);
    assert_eq!(detaching.await.unwrap(), Err(ClientError::Rejected(error)));
    assert!(client.is_usable() && client.lock().given_up.is_empty());
    // What nobody has sent is a fault, as ever.
    client.handle(vec![ToClient::Rejected { token: 999, error: SubmitError::UnknownJob(JOB) }]);
    assert!(client.is_lost());
}

#[tokio::test]
async fn over_another_link_a_job_that_is_not_kept_yet_is_said_again_from_where_it_was() {
    let client = client().await;
    let detaching = detach(&client, 3_000);
    let FromClient::OpenJob { token: opening, .. } = next_said(&client).await else { panic!("not opened") };
    // Not opened yet: it is opened there, once.
    client.lock().queue.push_back(Queued::Message(FromClient::OpenJob { name: "client".into(), token: opening }));
    let own = |messages: &[FromClient]| {
        messages.iter().filter(|message| matches!(message, FromClient::Restore { job: JOB, .. })).count()
    };
    let first = client.resume(Vec::new());
    assert_eq!((own(&first), first.len()), (1, 1));
    assert_eq!(opened(&client).await, opening);

    // Submitted in part: what is queued is not said as well.
    assert_eq!(client.lock().queue.len(), 2);
    client.lock().queue.pop_front();
    let again = client.resume(Vec::new());
    assert!(client.lock().queue.is_empty());
    let of_detached: Vec<FromClient> =
        again.into_iter().filter(|message| !matches!(message, FromClient::Restore { job: JOB, .. })).collect();
    assert!(matches!(&of_detached[0], FromClient::Resume { job: DETACHED, name, .. } if name == "client"));
    let pieces = pieces_of(&of_detached[1..]);
    assert_eq!(pieces.iter().map(|piece| piece.1).collect::<Vec<_>>(), [2048, 952, 0]);
    assert!(matches!(of_detached.last(), Some(FromClient::Restore { end: Some(3_000), .. })));
    accept(&client, pieces.iter().map(|piece| piece.0));
    keep_token(&said(&client), 3_000);

    // Asked to be kept: it is said again, and asked to be kept again.
    let once_more = client.resume(Vec::new());
    let pieces = pieces_of(&once_more[2..]);
    assert_eq!(said(&client), []);
    accept(&client, pieces.iter().map(|piece| piece.0));
    done(&client, keep_token(&said(&client), 3_000), "");
    assert_eq!(detaching.await.unwrap(), Ok(DETACHED));
    assert_eq!(client.resume(Vec::new()).len(), 1);
}

#[tokio::test]
async fn everything_that_waits_fails_when_no_scheduler_is_found_any_more() {
    let client = client().await;
    let detaching = detach(&client, 1);
    let jobs = ask(&client, |cluster| async move { cluster.jobs().await });
    let kept = watched(&client, KEPT).await;
    tokio::task::yield_now().await;
    client.lose("gone");
    assert!(is_lost(detaching.await.unwrap()));
    assert!(is_lost(jobs.await.unwrap()));
    assert!(is_lost(kept.result().await));
    let cluster = Cluster::of(Arc::clone(&client));
    assert!(is_lost(cluster.submit_detached(call()).await));
    assert!(is_lost(cluster.forget(DETACHED).await));
    assert!(is_lost(cluster.data_set::<u64>("x").await));
}

/// A future of a kept task.
pub(super) async fn watched(client: &Arc<Client>, task: TaskId) -> Future<u64> {
    let asking = ask(client, move |cluster| async move { cluster.detached::<u64>(task.job).await });
    let message = next_said(client).await;
    let FromClient::Kept { token, name } = message else { panic!("{message:?}") };
    assert_eq!(name, KeptName::Job(task.job));
    client.handle(vec![ToClient::Kept { token, tasks: Some(vec![task]) }]);
    let future = asking.await.unwrap().unwrap().pop().unwrap();
    assert_eq!(said(client), [FromClient::Watch { tasks: vec![task] }]);
    future
}

pub(super) fn inline(task: TaskId, value: u64) -> ToClient {
    let encoded = postcard::to_stdvec(&Encoded::of(&value).unwrap()).unwrap();
    ToClient::Finished { task, nbytes: 1, result: ResultAt::Inline(encoded.into()) }
}

pub(super) fn failure(task: TaskId, cause: FailureCause) -> TaskFailure {
    TaskFailure { task, name: String::new(), node: None, cause }
}

#[tokio::test]
async fn kept_tasks_are_apart_from_own_ones_of_the_same_number() {
    let client = client().await;
    let own: Vec<Future<u64>> = (0..4).map(|_| submit(&client, call())).collect();
    client.lock().queue.clear();
    let kept = watched(&client, KEPT).await;
    client.handle(vec![inline(KEPT, 80), inline(TaskId::new(JOB, 3), 7), inline(TaskId::new(DETACHED, 3), 1)]);
    assert_eq!((kept.result().await, own[3].result().await), (Ok(80), Ok(7)));
    client.handle(vec![ToClient::Recomputing { task: KEPT }]);
    assert_eq!(futures::FutureExt::now_or_never(kept.wait()), None);
    assert_eq!(own[3].result().await, Ok(7));
    client.handle(vec![ToClient::Failed { task: KEPT, failure: failure(KEPT, FailureCause::Cancelled) }]);
    assert!(matches!(kept.result().await, Err(ClientError::Failed(_))));

    // Nobody gives it up or releases it from here.
    kept.cancel();
    let cluster = Cluster::of(Arc::clone(&client));
    cluster.cancel([&kept]);
    assert_eq!(cluster.publish("x", [&kept]).await, Err(ClientError::ForeignFuture(KEPT)));
    drop(kept);
    assert!(client.lock().queue.is_empty() && client.lock().watched.is_empty());
}

#[tokio::test]
async fn a_kept_task_is_watched_until_its_last_future_is_dropped() {
    let client = client().await;
    let [one, other] = [watched(&client, KEPT).await, watched(&client, KEPT).await];
    let clone = one.clone();
    drop(one);
    drop(other);
    client.handle(vec![inline(KEPT, 80)]);
    assert_eq!(clone.result().await, Ok(80));
    drop(clone);
    assert!(client.lock().watched.is_empty());
}

#[tokio::test]
async fn what_is_kept_is_watched_again_over_another_link_unless_it_has_failed() {
    let client = client().await;
    let [there, failed, open] = [0, 1, 2].map(|index| TaskId::new(JobId(80), index));
    let _held = [watched(&client, there).await, watched(&client, failed).await, watched(&client, open).await];
    let at = ResultAt::Workers(smallvec![WorkerId(4)]);
    client.handle(vec![
        ToClient::Finished { task: there, nbytes: 9, result: at },
        ToClient::Failed { task: failed, failure: failure(failed, FailureCause::Cancelled) },
    ]);
    client.lock().queue.push_back(Queued::Message(FromClient::Watch { tasks: vec![open] }));
    let said_first = client.resume(Vec::new());
    let again: Vec<TaskId> = said_first
        .iter()
        .flat_map(|message| match message {
            FromClient::Watch { tasks } => tasks.clone(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(std::collections::BTreeSet::from_iter(again.iter().copied()), [there, open].into());
    assert_eq!((again.len(), said(&client)), (2, vec![]));
}

#[tokio::test]
async fn a_kept_result_that_is_not_where_it_was_is_asked_for_and_watched_once_more() {
    let client = client().await;
    let kept = watched(&client, KEPT).await;
    let gone = ResultAt::Workers(smallvec![WorkerId(4)]);
    client.handle(vec![ToClient::Finished { task: KEPT, nbytes: 9, result: gone }]);
    let fetching = tokio::spawn(async move { kept.result().await });
    let expected =
        [FromClient::Unreachable { task: KEPT, holders: vec![WorkerId(4)] }, FromClient::Watch { tasks: vec![KEPT] }];
    assert_eq!(all_said(&client).await, expected);
    // It was forgotten meanwhile.
    let lost = failure(KEPT, FailureCause::DataLost { input: KEPT });
    client.handle(vec![ToClient::Failed { task: KEPT, failure: lost.clone() }]);
    assert_eq!(fetching.await.unwrap(), Err(ClientError::Failed(lost)));
}

#[tokio::test]
async fn a_data_set_of_ones_own_that_was_taken_back_says_nothing_of_ones_own_tasks() {
    let client = client().await;
    let own = submit(&client, call());
    client.lock().queue.clear();
    let kept = watched(&client, own.task()).await;
    let lost = ToClient::Failed {
        task: own.task(),
        failure: failure(own.task(), FailureCause::DataLost { input: own.task() }),
    };
    client.handle(vec![lost.clone()]);
    assert!(kept.result().await.is_err());
    client.handle(vec![inline(own.task(), 5)]);
    assert_eq!(own.result().await, Ok(5));
    // A value of its own that is lost is told as such.
    client.handle(vec![lost]);
    assert!(own.result().await.is_err());
}

#[tokio::test]
async fn publishing_waits_until_the_tasks_are_known_and_asks_for_them_in_their_order() {
    let client = client().await;
    let futures = [submit(&client, call()), submit(&client, call())];
    let never_sent = Future::<u64>::new(client.fail(ClientError::NotPlaced("x".into())), client.clone());
    let cluster = Cluster::of(Arc::clone(&client));
    assert_eq!(cluster.publish("x", [&never_sent]).await, Err(ClientError::NotPlaced("x".into())));
    let publishing = ask(&client, {
        let futures = [futures[1].clone(), futures[0].clone()];
        |cluster| async move { cluster.publish("x", &futures).await }
    });
    while client.lock().accept_waiters.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(said(&client), []);
    client.lock().submissions.insert(50, 2);
    accept(&client, [50]);
    let message = next_said(&client).await;
    let FromClient::Keep { token, ref name, job: JOB, ref wanted } = message else { panic!("{message:?}") };
    assert_eq!((name, wanted), (&KeptName::DataSet("x".to_owned()), &vec![1, 0]));
    // Not answered: it is asked again over another link, once.
    client.lock().queue.push_back(Queued::Message(message.clone()));
    client.resume(Vec::new());
    assert_eq!(said(&client), [message]);
    done(&client, token, "data set x is kept already: forget it first");
    let error = publishing.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "it is not kept: data set x is kept already: forget it first");
}

#[tokio::test]
async fn data_sets_are_listed_by_their_names_and_missing_ones_are_told() {
    let client = client().await;
    let listing = ask(&client, |cluster| async move { cluster.data_sets().await });
    let FromClient::Jobs { token } = next_said(&client).await else { panic!("another question") };
    let of = |names: &[&str]| JobSummary {
        data_sets: names.iter().map(|&name| name.to_owned()).collect(),
        ..JobSummary::default()
    };
    client.handle(vec![ToClient::Jobs { token, jobs: vec![of(&["c", "a"]), of(&[]), of(&["b"])] }]);
    assert_eq!(listing.await.unwrap().unwrap(), ["a", "b", "c"]);

    let asking = ask(&client, |cluster| async move { cluster.data_set::<u64>("d").await.map(|all| all.len()) });
    let FromClient::Kept { token, name } = next_said(&client).await else { panic!("another question") };
    assert_eq!(name, KeptName::DataSet("d".to_owned()));
    client.handle(vec![ToClient::Kept { token, tasks: None }]);
    assert_eq!(asking.await.unwrap(), Err(ClientError::NoSuchDataSet("d".to_owned())));
}

#[tokio::test]
async fn forgetting_what_was_forgotten_meanwhile_is_no_error() {
    let client = client().await;
    for (is_there_first, problem, is_there_then, expected) in [
        (false, "", false, Err(ClientError::NoSuchJob(DETACHED))),
        (true, "", false, Ok(())),
        (true, "there is no job 70", false, Ok(())),
        (true, "no quorum", true, Err(ClientError::NotForgotten("no quorum".to_owned()))),
    ] {
        let asking = ask(&client, |cluster| async move { cluster.forget(DETACHED).await });
        let answer_kept = async |is_there: bool| {
            let message = next_said(&client).await;
            let FromClient::Kept { token, .. } = message else { panic!("{message:?}") };
            client.handle(vec![ToClient::Kept { token, tasks: is_there.then(Vec::new) }]);
        };
        answer_kept(is_there_first).await;
        if is_there_first {
            let message = next_said(&client).await;
            let FromClient::Forget { token, name: KeptName::Job(DETACHED) } = message else { panic!("{message:?}") };
            done(&client, token, problem);
            if !problem.is_empty() {
                answer_kept(is_there_then).await;
            }
        }
        assert_eq!(asking.await.unwrap(), expected);
    }
}
