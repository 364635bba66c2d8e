//! Jobs that outlive their clients, and data sets, on nodes of one process: what another client finds of them, and what is left
//! when another node takes the scheduler over.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

mod common;

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use starling::{ClientError, Cluster, FailureCause, Graph, JobSummary, Node, NodeRole, key};

use common::{connect, eventually, in_time, node};

/// The gates that are open.
static OPEN: (Mutex<BTreeSet<u64>>, Condvar) = (Mutex::new(BTreeSet::new()), Condvar::new());

fn open(gate: u64) {
    OPEN.0.lock().unwrap().insert(gate);
    OPEN.1.notify_all();
}

/// Gives the value once the gate is open.
#[starling::task]
fn behind(gate: u64, value: u64) -> u64 {
    let open = OPEN.0.lock().unwrap();
    drop(OPEN.1.wait_while(open, |open| !open.contains(&gate)).unwrap());
    value
}

#[starling::task]
fn plus(a: u64, b: u64) -> u64 {
    a + b
}

#[starling::task]
fn many(count: usize) -> Vec<u64> {
    (0..count as u64).collect()
}

#[starling::task]
fn broken() -> Result<u64, String> {
    Err("broken".to_owned())
}

/// A scheduler and a worker.
async fn two() -> (Node, Node) {
    let scheduler = node(NodeRole::Scheduler, "scheduler", &[]).await;
    let worker = node(NodeRole::Worker, "worker", &scheduler.listen_addrs()).await;
    (scheduler, worker)
}

/// Three that may each hold the scheduler, once each has a vote; the one that holds it first.
async fn three() -> Vec<Node> {
    let first = node(NodeRole::Auto, "a", &[]).await;
    let join = first.listen_addrs();
    let mut nodes = vec![first, node(NodeRole::Auto, "b", &join).await, node(NodeRole::Auto, "c", &join).await];
    eventually(async || {
        let all_vote = |node: &Node| node.status().quorum.is_some_and(|quorum| quorum.voters.len() == 3);
        nodes.iter().all(all_vote).then_some(())
    })
    .await;
    let leader = eventually(async || nodes[0].status().leader).await;
    nodes.sort_by_key(|node| node.id() != leader);
    nodes
}

async fn job(cluster: &Cluster, job: starling::JobId) -> Option<JobSummary> {
    cluster.jobs().await.unwrap().into_iter().find(|summary| summary.job == job)
}

/// More tasks than go in one message, each of which needs the one before.
fn chain() -> Graph {
    let mut graph = Graph::new();
    graph.add("0", plus::task(0, 0)).unwrap();
    for number in 1..5_000_u64 {
        graph.add(number.to_string(), plus::task(key((number - 1).to_string()), 1)).unwrap();
    }
    graph
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_without_its_client_and_another_one_gets_its_results() {
    let (scheduler, _worker) = two().await;
    let first = connect(&scheduler).await;
    let calls = [behind::task(1, 20).priority(3), plus::task(1, 2).retries(1)];
    let detached = in_time(first.submit_all_detached(calls)).await.unwrap();
    let of_client = first.job();
    assert_ne!(detached.job(), of_client);
    in_time(first.shutdown()).await;

    let second = connect(&scheduler).await;
    let summary = eventually(async || job(&second, detached.job()).await.filter(|job| !job.has_client)).await;
    assert_eq!((summary.name.as_str(), summary.is_detached), ("tests", true));
    assert!(job(&second, of_client).await.is_none());
    let results = second.detached::<u64>(detached.job()).await.unwrap();
    assert_eq!(in_time(results[1].result()).await, Ok(3));
    open(1);
    assert_eq!(in_time(second.gather(&results)).await, Ok(vec![20, 3]));
    // They are arguments here, and dropping them forgets nothing.
    assert_eq!(in_time(second.submit(plus::task(&results[0], 1)).result()).await, Ok(21));
    results.iter().for_each(starling::Future::cancel);
    drop(results);
    let again = second.detached::<u64>(detached.job()).await.unwrap();
    assert_eq!(in_time(again[0].result()).await, Ok(20));

    in_time(second.forget(detached.job())).await.unwrap();
    let missing = ClientError::NoSuchJob(detached.job());
    assert_eq!(second.forget(detached.job()).await, Err(missing.clone()));
    assert_eq!(second.detached::<u64>(detached.job()).await.err(), Some(missing));
    assert!(job(&second, detached.job()).await.is_none());
    in_time(second.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_detached_graph_has_its_large_results_fetched_and_its_failures_told() {
    let (scheduler, _worker) = two().await;
    let cluster = connect(&scheduler).await;
    let detached = in_time(cluster.submit_graph_detached::<u64>(chain(), ["4999", "7", "4999"])).await.unwrap();
    let results = cluster.detached::<u64>(detached.job()).await.unwrap();
    assert_eq!(in_time(cluster.gather(&results)).await, Ok(vec![4_999, 7, 4_999]));
    // The same by itself.
    let results = cluster.submit_graph::<u64>(chain(), ["4999"]).unwrap();
    assert_eq!(in_time(results[0].result()).await, Ok(4_999));

    let large = in_time(cluster.submit_detached(many::task(100_000))).await.unwrap();
    let results = cluster.detached::<Vec<u64>>(large.job()).await.unwrap();
    assert_eq!(in_time(results[0].result()).await.unwrap().len(), 100_000);

    let broken = in_time(cluster.submit_detached(broken::task())).await.unwrap();
    let results = cluster.detached::<u64>(broken.job()).await.unwrap();
    let error = in_time(results[0].result()).await.unwrap_err();
    let ClientError::Failed(failure) = error else { panic!("not the task's failure: {error}") };
    assert!(matches!(failure.cause, FailureCause::Error { message, .. } if message == "broken"));
    assert!(failure.name.ends_with("broken"));
    in_time(cluster.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_is_there_for_every_client_until_it_is_taken_back() {
    let (scheduler, _worker) = two().await;
    let first = connect(&scheduler).await;
    let parts = first.map([plus::task(1, 2), plus::task(3, 4)]);
    let sum = first.submit(plus::task(&parts[0], &parts[1]));
    in_time(first.publish("sums", [&sum, &parts[0]])).await.unwrap();
    let scattered = in_time(first.scatter(9_u64)).await.unwrap();
    in_time(first.publish("scattered", [&scattered])).await.unwrap();
    let taken = in_time(first.publish("sums", [&sum])).await;
    assert!(matches!(&taken, Err(ClientError::NotKept(problem)) if problem.contains("kept already")), "{taken:?}");
    in_time(first.shutdown()).await;

    let second = connect(&scheduler).await;
    assert_eq!(second.data_sets().await.unwrap(), ["scattered", "sums"]);
    let sums = second.data_set::<u64>("sums").await.unwrap();
    assert_eq!(in_time(second.gather(&sums)).await, Ok(vec![10, 3]));
    let values = second.data_set::<u64>("scattered").await.unwrap();
    assert_eq!(in_time(values[0].result()).await, Ok(9));
    in_time(second.unpublish("sums")).await.unwrap();
    let missing = ClientError::NoSuchDataSet("sums".to_owned());
    assert_eq!(second.unpublish("sums").await, Err(missing.clone()));
    assert_eq!(second.data_set::<u64>("sums").await.err(), Some(missing));
    assert_eq!(second.data_sets().await.unwrap(), ["scattered"]);
    in_time(second.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_jobs_and_data_sets_survive_the_node_that_held_the_scheduler() {
    let mut nodes = three().await;
    let first = connect(&nodes[1]).await;
    in_time(first.wait_for_workers(3)).await.unwrap();
    let calls = [behind::task(2, 20), plus::task(1, 2)];
    let detached = in_time(first.submit_all_detached(calls)).await.unwrap().job();
    let published = first.submit(plus::task(40, 2));
    in_time(first.publish("answer", [&published])).await.unwrap();
    drop(published);
    in_time(first.shutdown()).await;

    in_time(nodes.remove(0).shutdown()).await;
    let second = connect(&nodes[1]).await;
    let results = in_time(second.detached::<u64>(detached)).await.unwrap();
    assert_eq!(in_time(results[1].result()).await, Ok(3));
    open(2);
    assert_eq!(in_time(results[0].result()).await, Ok(20));
    let answer = in_time(second.data_set::<u64>("answer")).await.unwrap();
    assert_eq!(in_time(answer[0].result()).await, Ok(42));
    let summary = job(&second, detached).await.unwrap();
    assert_eq!((summary.name.as_str(), summary.is_detached, summary.has_client), ("tests", true, false));
    in_time(second.forget(detached)).await.unwrap();
    assert!(job(&second, detached).await.is_none());
    in_time(second.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_kept_results_gets_them_from_the_next_scheduler() {
    let mut nodes = three().await;
    let cluster = connect(&nodes[1]).await;
    in_time(cluster.wait_for_workers(3)).await.unwrap();
    let own = cluster.submit(behind::task(3, 1));
    let detached = in_time(cluster.submit_detached(behind::task(3, 2))).await.unwrap().job();
    let kept = cluster.detached::<u64>(detached).await.unwrap();
    let waiting = tokio::spawn({
        let kept = kept[0].clone();
        async move { kept.result().await }
    });
    in_time(nodes.remove(0).shutdown()).await;
    // Asked of the next one, as soon as there is one.
    let second = in_time(cluster.submit_detached(plus::task(1, 2))).await.unwrap().job();
    open(3);
    assert_eq!(in_time(waiting).await.unwrap(), Ok(2));
    assert_eq!(in_time(own.result()).await, Ok(1));
    let results = in_time(cluster.detached::<u64>(second)).await.unwrap();
    assert_eq!(in_time(results[0].result()).await, Ok(3));
    let detached_jobs: Vec<_> =
        cluster.jobs().await.unwrap().iter().filter(|job| job.is_detached).map(|job| job.job).collect();
    assert_eq!(BTreeSet::from_iter(detached_jobs), [detached, second].into());
    in_time(cluster.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_detached_while_the_scheduler_is_lost_is_kept_by_the_next_one_and_once() {
    const JOBS: u64 = 40;
    let mut nodes = three().await;
    let cluster = connect(&nodes[1]).await;
    let detaching: Vec<_> = (0..JOBS)
        .map(|number| {
            let cluster = cluster.clone();
            // Not all in the same moment, so that some are lost at each step.
            let later = Duration::from_millis(number / 2);
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                cluster.submit_all_detached([plus::task(number, 1), plus::task(number, 2)]).await
            })
        })
        .collect();
    in_time(nodes.remove(0).shutdown()).await;
    let mut jobs = BTreeSet::new();
    for (number, detached) in (0..JOBS).zip(detaching) {
        let job = in_time(detached).await.unwrap().unwrap().job();
        let results = in_time(cluster.detached::<u64>(job)).await.unwrap();
        assert_eq!(in_time(cluster.gather(&results)).await, Ok(vec![number + 1, number + 2]));
        jobs.insert(job);
    }
    let listed = cluster.jobs().await.unwrap();
    let detached: BTreeSet<_> = listed.iter().filter(|job| job.is_detached).map(|job| job.job).collect();
    assert_eq!((detached.len() as u64, detached), (JOBS, jobs));
    in_time(cluster.shutdown()).await;
}
