//! What a client asks of the scheduler besides running tasks: to explain, to give up, to let workers go; and a client that
//! vanishes.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::time::Duration;

use starling::core::explain::{ObstacleKind, Why};
use starling::core::ids::TaskId;
use starling::{
    ClientError, Cluster, ConnectOptions, FailureCause, Future, LocalOptions, Node, NodeConfig, NodeRole, Stopped, mesh,
};
use starling_integration_tests::tasks;

/// So many workers with one thread each.
async fn cluster(workers: usize) -> Cluster {
    Cluster::local_with(LocalOptions { nthreads: 1, ..LocalOptions::new(workers) }).await.unwrap()
}

async fn in_time<T>(what: impl std::future::Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it ended in time")
}

async fn is_cancelled<T: starling::Data>(future: &Future<T>) -> bool {
    match in_time(future.result()).await {
        Err(ClientError::Failed(failure)) => failure.cause == FailureCause::Cancelled,
        _ => false,
    }
}

/// Asks until the answer is as it should be.
async fn eventually_explained(cluster: &Cluster, task: TaskId, is_so: impl Fn(&Why) -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let explanation = cluster.explain_task(task).await.unwrap();
        if is_so(&explanation.why) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "it still is so: {explanation}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_no_worker_may_run_is_explained_by_what_each_lacks() {
    let cluster = cluster(1).await;
    let future = cluster.submit(tasks::add::task(1, 2).resource("gpu", 1.0));
    let explanation = cluster.explain(&future).await.unwrap();
    let Why::NoWorker { obstacles, more: 0 } = &explanation.why else { panic!("another reason: {explanation}") };
    assert!(
        matches!(&obstacles[0].what, ObstacleKind::Lacks { resource, needed: 1000, total: 0 } if resource == "gpu")
    );
    let text = explanation.to_string();
    assert!(text.contains("tasks::add") && text.contains("resource gpu"), "{text}");
    // Whoever asks hears the same, and a task that is done is explained as well.
    assert_eq!(cluster.explain_task(future.task()).await.unwrap(), explanation);
    let done = cluster.submit(tasks::add::task(1, 2));
    done.wait().await.unwrap();
    assert!(
        matches!(cluster.explain(&done).await.unwrap().why, Why::Memory { workers, .. } if workers == ["worker-0"])
    );
    let restricted = cluster.submit(tasks::add::task(1, 2).workers(["nowhere"]));
    let explanation = cluster.explain(&restricted).await.unwrap();
    assert!(explanation.to_string().contains("none of the workers that the task is restricted to"), "{explanation}");
    let elsewhere = tasks::add::task(1, 2).workers(["nowhere"]).allow_other_workers();
    assert_eq!(in_time(cluster.submit(elsewhere).result()).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_out_of_bounds_fail_the_future_and_nothing_else() {
    let cluster = cluster(1).await;
    let bad = cluster.submit(tasks::add::task(1, 2).timeout(Duration::ZERO));
    assert!(matches!(bad.result().await, Err(ClientError::BadOptions { .. })));
    assert!(matches!(cluster.explain(&bad).await, Err(ClientError::BadOptions { .. })));
    let after = cluster.submit(tasks::add::task(&bad, 2));
    assert!(matches!(after.result().await, Err(ClientError::BadOptions { .. })));
    assert_eq!(in_time(cluster.submit(tasks::add::task(2, 2)).result()).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_tasks_and_what_needs_them_say_so_and_the_others_go_on() {
    let cluster = cluster(1).await;
    let slow = cluster.map((0..20).map(|value| tasks::slow::task(50_u64, value)));
    let after = cluster.submit(tasks::add::task(&slow[19], 1));
    let sum = cluster.submit(tasks::total::task(slow[..5].to_vec()));
    cluster.cancel(&slow[10..19]);
    slow[19].cancel();
    for cancelled in &slow[10..] {
        assert!(is_cancelled(cancelled).await, "{cancelled:?}");
    }
    assert!(is_cancelled(&after).await);
    assert_eq!(in_time(sum.result()).await.unwrap(), 10);

    cluster.cancel_all();
    // What is done stays; what is not is given up.
    assert_eq!(in_time(sum.result()).await.unwrap(), 10);
    assert!(is_cancelled(&slow[9]).await);
    assert_eq!(in_time(cluster.submit(tasks::add::task(2, 2)).result()).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_of_another_cluster_is_neither_explained_nor_copied_and_is_cancelled_at_home() {
    let (ours, theirs) = (cluster(1).await, cluster(1).await);
    let foreign = theirs.submit(tasks::slow::task(50_u64, 0).resource("gpu", 1.0));
    assert_eq!(ours.explain(&foreign).await.unwrap_err(), ClientError::ForeignFuture(foreign.task()));
    assert_eq!(ours.replicate([&foreign], 2).await.unwrap_err(), ClientError::ForeignFuture(foreign.task()));
    ours.cancel([&foreign]);
    assert!(is_cancelled(&foreign).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_worker_stops_by_itself_once_its_data_is_elsewhere() {
    let cluster = cluster(2).await;
    let parts = cluster.map((1..=6_u8).map(|value| tasks::bytes::task(100_000_u64, value)));
    for part in &parts {
        part.wait().await.unwrap();
    }
    let nobody = cluster.retire_workers(["worker-7"]).await.unwrap_err();
    assert!(nobody.to_string().contains("worker-0 (") && nobody.to_string().contains("worker-1 ("), "{nobody}");
    let node = cluster.nodes()[1].id();
    let held = cluster.who_has(&parts).await.unwrap();
    let held_there = held.iter().filter(|(_, nodes, _)| nodes.contains(&node)).count() as u64;
    assert!(held_there > 0, "the test needs data on both workers");

    assert_eq!(in_time(cluster.retire_workers(["worker-0"])).await.unwrap(), held_there);
    assert_eq!(in_time(cluster.nodes()[1].stopped()).await, Stopped::Retired);
    let values = in_time(cluster.gather(&parts)).await.unwrap();
    assert!(
        values.iter().zip(1..).all(|(bytes, value)| bytes.len() == 100_000 && bytes.iter().all(|&byte| byte == value))
    );
    let last = in_time(cluster.retire_workers([cluster.nodes()[2].id().hex()])).await.unwrap_err();
    assert!(matches!(&last, ClientError::NotDone { moved: 0, .. }), "{last}");
    assert_eq!(in_time(cluster.submit(tasks::add::task(2, 2)).result()).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_copied_to_as_many_workers_as_there_are() {
    let cluster = cluster(3).await;
    let parts = cluster.map((1..=4_u8).map(|value| tasks::bytes::task(100_000_u64, value)));
    assert_eq!(in_time(cluster.replicate(&parts, 2)).await.unwrap(), 4);
    let holders = |held: Vec<(TaskId, Vec<_>, u64)>| held.iter().map(|(_, nodes, _)| nodes.len()).collect::<Vec<_>>();
    assert_eq!(holders(cluster.who_has(&parts).await.unwrap()), [2; 4]);
    in_time(cluster.replicate(&parts[..1], 100)).await.unwrap();
    assert_eq!(holders(cluster.who_has(&parts[..1]).await.unwrap()), [3]);
    in_time(cluster.rebalance()).await.unwrap();
    let failed = cluster.submit(tasks::fail::task(1_u64));
    assert!(matches!(in_time(cluster.replicate([&failed], 2)).await, Err(ClientError::Failed(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_tasks_are_submitted_as_fast_as_they_are_taken() {
    let cluster = cluster(1).await;
    // They wait for a worker that is not there, so that the test is about submitting them.
    let calls = (0..100_000).map(|x| tasks::add::task(x, 1).resource("gpu", 1.0));
    let futures = in_time(cluster.submit_all(calls)).await;
    assert_eq!(futures.len(), 100_000);
    assert!(matches!(cluster.explain(&futures[99_999]).await.unwrap().why, Why::NoWorker { .. }));
    cluster.cancel_all();
    assert!(is_cancelled(&futures[99_999]).await);
}

/// A scheduler and a worker with one thread, which let everybody in.
async fn open_nodes() -> (Node, Node) {
    let loopback = vec![mesh::parse_addr("/ip4/127.0.0.1/tcp/0").unwrap()];
    let config = |role| NodeConfig { listen: loopback.clone(), nthreads: 1, ..NodeConfig::new(role) };
    let scheduler = Node::start(config(NodeRole::Scheduler)).await.unwrap();
    let join = scheduler.listen_addrs();
    let worker = Node::start(NodeConfig { join, ..config(NodeRole::Worker) }).await.unwrap();
    (scheduler, worker)
}

async fn connect(scheduler: &Node) -> Cluster {
    let options = ConnectOptions { insecure: true, ..ConnectOptions::default() };
    let cluster = Cluster::connect_any(&scheduler.listen_addrs(), options).await.unwrap();
    cluster.wait_for_workers(1).await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_while_it_submits_is_forgotten_and_the_cluster_goes_on() {
    let (scheduler, worker) = open_nodes().await;
    let other = connect(&scheduler).await;
    let vanishing = connect(&scheduler).await;
    let submitted = vanishing.map((0..150_000).map(|value| tasks::slow::task(1_u64, value)));
    let (first, last) = (submitted[0].task(), submitted[149_999].task());
    let held = submitted[0].clone().await.unwrap();
    eventually_explained(&other, first, |why| !matches!(why, Why::Forgotten)).await;

    // Without a word, as if its machine had lost power, whatever is still on its way.
    vanishing.mesh().close();
    eventually_explained(&other, first, |why| matches!(why, Why::Forgotten)).await;
    assert!(matches!(other.explain_task(last).await.unwrap().why, Why::Forgotten));
    assert!(matches!(in_time(submitted[149_999].result()).await, Err(ClientError::SchedulerLost(_))));
    drop(held);
    let sums = other.map((0..100_i64).map(|x| tasks::add::task(x, 1)));
    assert_eq!(in_time(other.gather(&sums)).await.unwrap(), (1..=100).collect::<Vec<i64>>());
    drop((submitted, worker));
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_to_a_lost_scheduler_fail_instead_of_waiting() {
    let (scheduler, worker) = open_nodes().await;
    let cluster = connect(&scheduler).await;
    let future = cluster.submit(tasks::add::task(1, 2));
    future.wait().await.unwrap();
    // It takes leave, and nobody is there who could hold the scheduler in its place.
    scheduler.shutdown().await;
    let explained = in_time(async {
        // Asked until the client has noticed.
        while cluster.explain(&future).await.is_ok() {}
        cluster.explain(&future).await
    });
    assert!(matches!(explained.await, Err(ClientError::SchedulerLost(_))));
    assert!(matches!(in_time(cluster.rebalance()).await, Err(ClientError::SchedulerLost(_))));
    assert!(matches!(in_time(cluster.retire_workers(Vec::<String>::new())).await, Err(ClientError::SchedulerLost(_))));
    let futures = in_time(cluster.submit_all((0..100_000).map(|x| tasks::add::task(x, 1)))).await;
    assert!(matches!(in_time(futures[99_999].result()).await, Err(ClientError::SchedulerLost(_))));
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_full_takes_the_rest_when_there_is_room_and_loses_nothing() {
    const TASKS: i64 = 9_000;
    let options = LocalOptions { nthreads: 1, tasks_max: 3_000, ..LocalOptions::new(2) };
    let cluster = Cluster::local_with(options).await.unwrap();
    // Three times as many as the scheduler keeps, each released when its result has been seen.
    let futures = cluster.map((0..TASKS).map(|x| tasks::slow::task(1_u64, x)));
    // Asked after all of them were sent: the first thousands take more than a second, and until then the last is kept.
    let last = futures.last().unwrap();
    assert_eq!(cluster.explain(last).await.unwrap().why, Why::Kept { tasks_max: 3_000 });
    assert!(matches!(cluster.explain(&futures[0]).await.unwrap().why, Why::Processing { .. } | Why::Memory { .. }));
    let mut sum = 0;
    for future in futures {
        sum += in_time(future.result()).await.unwrap();
    }
    assert_eq!(sum, (0..TASKS).sum::<i64>());
}
