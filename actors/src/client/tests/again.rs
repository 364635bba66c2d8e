//! What a client does with its own tasks: again, to their end, not at all; and kept outputs among their inputs.

use smallvec::smallvec;
use starling_core::spec::TaskSpec;
use starling_core::wire::ResultAt;
use starling_runtime::task::FutureStatus;

use super::keeping::{failure, inline, released, watched};
use super::*;
use crate::cluster::Cluster;

const KEPT: TaskId = TaskId::new(JobId(80), 3);

fn failed(future: &Future<u64>) -> ToClient {
    ToClient::Failed { task: future.task(), failure: failure(future.task(), FailureCause::UnknownKind) }
}

/// Takes the tasks that are queued.
fn queued_tasks(client: &Client) -> Vec<TaskSpec> {
    let queue = std::mem::take(&mut client.lock().queue);
    let tasks = queue.into_iter().filter_map(|queued| match queued {
        Queued::Task(spec) => Some(spec),
        _ => None,
    });
    tasks.collect()
}

#[tokio::test]
async fn until_a_retry_is_answered_the_failures_that_are_told_are_old_ones() {
    let client = client().await;
    let cluster = Cluster::of(Arc::clone(&client));
    let futures = [submit(&client, call()), submit(&client, call())];
    client.handle(vec![failed(&futures[0]), inline(futures[1].task(), 5)]);
    client.lock().queue.clear();
    cluster.retry(&futures).unwrap();
    // Only what has failed.
    let messages = said(&client);
    let [FromClient::Retry { token, tasks }] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((&tasks[..], futures[0].status()), (&[futures[0].task()][..], FutureStatus::Pending));

    // Over another link the old failure is told again, and it is asked for again.
    let again = client.resume(vec![failed(&futures[0])]);
    assert!(again.iter().all(|message| !matches!(message, FromClient::Restore { failed, .. } if !failed.is_empty())));
    assert_eq!(said(&client), messages);
    assert_eq!(futures[0].status(), FutureStatus::Pending);
    client.handle(vec![ToClient::Done { token: *token, moved: 1, problem: String::new() }]);
    assert_eq!(futures[0].status(), FutureStatus::Pending);
    client.handle(vec![failed(&futures[0])]);
    assert_eq!(futures[0].status(), FutureStatus::Error);
    let state = client.lock();
    assert!(state.retrying.is_empty() && state.answers.is_empty());
}

#[tokio::test]
async fn what_is_fired_and_forgotten_is_released_once_it_has_ended() {
    let client = client().await;
    let cluster = Cluster::of(Arc::clone(&client));
    let [ends, fails, held, over] = std::array::from_fn(|_| submit(&client, call()));
    client.lock().queue.clear();
    client.handle(vec![inline(over.task(), 5)]);
    let tasks = [ends.task(), fails.task(), held.task(), over.task()];
    let still_held = held.clone();
    for future in [ends, fails.clone(), held, over] {
        cluster.fire_and_forget(future).unwrap();
    }
    let fails_now = failed(&fails);
    drop(fails);
    // It was over before, and nothing stands in the way.
    assert_eq!(released(&client), [tasks[3]]);
    client.handle(vec![inline(tasks[0], 5), fails_now, inline(tasks[2], 5)]);
    assert_eq!(released(&client), tasks[..2]);
    assert_eq!(still_held.result().await, Ok(5));
    drop(still_held);
    assert_eq!(released(&client), [tasks[2]]);
    let state = client.lock();
    assert!(state.fired.is_empty() && state.tasks.is_empty());
}

#[tokio::test]
async fn what_a_restart_forgets_is_neither_said_again_nor_an_argument() {
    let client = client().await;
    let cluster = Cluster::of(Arc::clone(&client));
    let futures: Vec<Future<u64>> = (0..2).map(|_| submit(&client, call())).collect();
    client.handle(vec![inline(futures[0].task(), 5)]);
    client.lock().queue.clear();
    let restarting = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.restart().await }
    });
    let asked = || {
        client.lock().queue.iter().find_map(|queued| match queued {
            Queued::Message(FromClient::WhoHas { token, .. }) => Some(*token),
            _ => None,
        })
    };
    let token = loop {
        match asked() {
            Some(token) => break token,
            None => tokio::task::yield_now().await,
        }
    };
    let first = client.lock().queue.pop_front();
    assert!(matches!(first, Some(Queued::Message(FromClient::CancelJob { job: JOB }))));
    assert_eq!(released(&client), [futures[0].task(), futures[1].task()]);
    client.handle(vec![ToClient::WhoHas { token, holders: Vec::new() }, inline(futures[1].task(), 9)]);
    restarting.await.unwrap().unwrap();
    client.lock().queue.clear();
    assert!(futures.iter().all(|future| future.status() == FutureStatus::Cancelled));
    let refused = cluster.submit(call().arg::<u64>(&futures[0]));
    assert_eq!(refused.status(), FutureStatus::Cancelled);
    let again = client.resume(Vec::new());
    let is_empty = |message: &FromClient| match message {
        FromClient::Restore { tasks, failed, .. } => tasks.is_empty() && failed.is_empty(),
        _ => true,
    };
    assert!(again.iter().all(is_empty), "{again:?}");
    drop((futures, refused));
    assert!(client.lock().queue.is_empty() && client.lock().forgotten.is_empty());
}

#[tokio::test]
async fn a_kept_output_comes_into_the_job_by_one_task_for_all_that_take_it() {
    let client = client().await;
    let cluster = Cluster::of(Arc::clone(&client));
    let kept = watched(&client, KEPT).await;
    client.handle(vec![
        ToClient::Worker { worker: WorkerId(4), info: named("one") },
        ToClient::Finished { task: KEPT, nbytes: 9, result: ResultAt::Workers(smallvec![WorkerId(4)]) },
    ]);
    let users = [cluster.submit(call().arg::<u64>(&kept)), cluster.submit(call().arg::<u64>(&kept).arg::<u64>(&kept))];
    let tasks = queued_tasks(&client);
    let [borrowed, one, other] = &tasks[..] else { panic!("{tasks:?}") };
    assert_eq!((borrowed.kind, borrowed.inputs.len()), (KEPT_OUTPUT.kind(), 0));
    let needs = borrowed.options.requirements.as_ref().unwrap();
    assert_eq!((&needs.workers[..], needs.allow_other_workers), (&[named("one").node.hex()][..], true));
    let index = borrowed.task.index;
    assert_eq!((&one.inputs[..], &other.inputs[..]), (&[index][..], &[index, index][..]));

    // One that has failed is made anew.
    let lost = failure(borrowed.task, FailureCause::UnknownKind);
    client.handle(vec![ToClient::Failed { task: borrowed.task, failure: lost }]);
    let third = cluster.submit(call().arg::<u64>(&kept));
    assert_eq!(released(&client), [borrowed.task]);
    let tasks = queued_tasks(&client);
    assert_eq!((tasks.len(), &tasks[1].inputs[..]), (2, &[tasks[0].task.index][..]));
    drop(kept);
    assert_eq!(released(&client), [tasks[0].task]);
    drop((users, third));
    assert!(client.lock().watched.is_empty() && client.lock().tasks.is_empty());
}
