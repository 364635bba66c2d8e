//! Tasks that submit tasks.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::time::Duration;

use starling::core::explain::Why;
use starling::core::spec::{Amount, Resources};
use starling::{ClientError, Cluster, ClusterError, FailureCause, LocalOptions};
use starling_integration_tests::tasks;

/// So many workers with one thread each.
async fn cluster(workers: usize) -> Cluster {
    Cluster::local_with(LocalOptions { nthreads: 1, ..LocalOptions::new(workers) }).await.unwrap()
}

/// What hangs would hang forever: a place that is not given up.
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it ended in time")
}

fn cause_of(error: ClientError) -> FailureCause {
    match error {
        ClientError::Failed(failure) => failure.cause,
        other => panic!("another error: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursion_that_is_deeper_than_there_are_threads_ends_since_who_waits_gives_its_place_up() {
    let cluster = cluster(1).await;
    assert_eq!(in_time(cluster.submit(tasks::fibonacci::task(10_u64)).result()).await.unwrap(), 55);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursion_on_several_workers() {
    let cluster = cluster(3).await;
    let numbers = cluster.map((0..10_u64).map(tasks::fibonacci::task));
    assert_eq!(in_time(cluster.gather(&numbers)).await.unwrap(), [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_async_task_submits_and_awaits() {
    let cluster = cluster(1).await;
    let sums = cluster.map([10, 100].map(tasks::sum_of_squares::task));
    assert_eq!(in_time(cluster.gather(&sums)).await.unwrap(), [285, 328_350]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_failure_is_the_parents_error_with_its_sources() {
    let cluster = cluster(1).await;
    let failed = in_time(cluster.submit(tasks::submits_a_failure::task(17_u64)).result()).await;
    let FailureCause::Error { message, .. } = cause_of(failed.unwrap_err()) else { panic!("another cause") };
    assert!(message.starts_with("task starling_integration_tests::tasks::fail ("), "{message}");
    assert!(message.ends_with("failed: record 17 is bad: the disk said no"), "{message}");
    // The node's client and mesh go on.
    assert_eq!(in_time(cluster.submit(tasks::fibonacci::task(5_u64)).result()).await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_come_from_the_own_store_and_from_others() {
    let cluster = cluster(2).await;
    let sums = cluster.map((1..=4_u64).map(|n| tasks::sums_large::task(n * 100_000)));
    let expected: Vec<u64> = (1..=4).map(|n| n * 100_000 * (1 + 3)).collect();
    assert_eq!(in_time(cluster.gather(&sums)).await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_submits_goes_before_what_waits_beside_it() {
    let cluster = cluster(1).await;
    let parent = cluster.submit(tasks::sum_of_squares::task(20).priority(3));
    let beside = cluster.map((0..100).map(|value| tasks::slow::task(20_u64, value).priority(3)));
    assert_eq!(in_time(parent.result()).await.unwrap(), 2470);
    let last = cluster.explain(&beside[99]).await.unwrap();
    assert!(!matches!(last.why, Why::Memory { .. }), "what was begun was finished last: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_take_a_resource_run_in_turn_and_their_places_are_given_up_too() {
    let resources = Resources::from([("gpu".to_owned(), Amount::whole(1))]);
    let options = LocalOptions { nthreads: 2, resources, ..LocalOptions::new(1) };
    let cluster = Cluster::local_with(options).await.unwrap();
    let numbers = cluster.map((5..8_u64).map(|n| tasks::fibonacci::task(n).resource("gpu", 1.0)));
    assert_eq!(in_time(cluster.gather(&numbers)).await.unwrap(), [5, 8, 13]);
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_of_a_task_there_is_no_current_cluster() {
    let Err(error) = Cluster::current() else { panic!("a cluster") };
    assert!(matches!(error, ClusterError::NotInTask));
    assert!(error.to_string().contains("inside of a task"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_leaves_unfinished_is_released_and_its_node_goes_on() {
    let cluster = cluster(1).await;
    in_time(cluster.submit(tasks::forgets_what_it_submits::task(50_i64)).result()).await.unwrap();
    assert_eq!(in_time(cluster.submit(tasks::add::task(1, 1)).result()).await.unwrap(), 2);
}
