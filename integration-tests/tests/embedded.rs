//! The task API against an embedded cluster: real nodes, real mesh, one process.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::time::Duration;

use starling::{Buffer, ClientError, Cluster, FailureCause, Graph, LocalOptions, MemoryConfig, key};
use starling_integration_tests::tasks;

async fn cluster(workers: usize) -> Cluster {
    Cluster::local(workers).await.unwrap()
}

/// Waits for a condition that other threads bring about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn stored(cluster: &Cluster) -> usize {
    cluster.nodes().iter().map(|node| node.store().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn futures_are_arguments_alone_and_in_lists() {
    let cluster = cluster(2).await;
    let squares = cluster.map((0..100_i64).map(tasks::square::task));
    let sum = cluster.submit(tasks::total::task(squares));
    let doubled = cluster.submit(tasks::add::task(&sum, &sum));
    assert_eq!(doubled.result().await.unwrap(), 2 * 328_350);
    assert_eq!(sum.result().await.unwrap(), 328_350);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_futures_may_be_shared_instead_of_owned() {
    let cluster = cluster(2).await;
    let texts = ["a b a".to_owned(), "b c".to_owned(), "a".to_owned()];
    let counts = cluster.map(texts.into_iter().map(tasks::count_words::task));
    let merged = cluster.submit(tasks::merge_counts::task(counts)).result().await.unwrap();
    assert_eq!(merged.into_iter().collect::<Vec<_>>(), [("a".into(), 3), ("b".into(), 2), ("c".into(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_graph_is_built_in_any_order_and_checked_as_a_whole() {
    let cluster = cluster(2).await;
    let mut graph = Graph::new();
    graph.add("sum", tasks::total::task(vec![key("one"), key("two"), key("one")])).unwrap();
    graph.add("two", tasks::add::task(key("one"), 1)).unwrap();
    graph.add("one", tasks::add::task(0, 1)).unwrap();
    let taken = graph.add("one", tasks::add::task(5, 5)).unwrap_err();
    assert_eq!(taken.to_string(), "the key one names two tasks: give each task a key of its own");
    let results = cluster.submit_graph::<i64>(graph, ["sum", "two", "sum"]).unwrap();
    assert_eq!(cluster.gather(&results).await.unwrap(), [4, 2, 4]);

    let refused = |tasks: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (name, input) in tasks {
            graph.add(*name, tasks::add::task(key(*input), 1)).unwrap();
        }
        cluster.submit_graph::<i64>(graph, ["a"]).unwrap_err().to_string()
    };
    let cycle = refused(&[("a", "b"), ("b", "a")]);
    assert!(cycle.starts_with("the graph has a cycle: "), "{cycle}");
    assert!(refused(&[("a", "nowhere")]).contains("has the input nowhere, which is no task of the graph"));
    assert_eq!(cluster.submit_graph::<i64>(Graph::new(), ["a"]).unwrap_err(), ClientError::NoSuchKey("a".into()));
    // Nothing of what was refused has used up a number.
    assert_eq!(cluster.submit(tasks::add::task(1, 1)).result().await.unwrap(), 2);
    let outside = cluster.submit(tasks::add::task(key("one"), 1)).result().await.unwrap_err();
    assert_eq!(outside, ClientError::KeyOutsideGraph("one".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn awaiting_a_future_waits_for_the_scheduler_and_gives_the_future_back() {
    let cluster = cluster(1).await;
    let sum = cluster.submit(tasks::add::task(1, 2)).await.unwrap();
    assert_eq!(sum.result().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn async_tasks_run() {
    let cluster = cluster(1).await;
    assert_eq!(cluster.submit(tasks::sleep_then::task(5_u64, 7)).result().await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_reaches_the_client_with_task_node_message_and_sources() {
    let cluster = cluster(1).await;
    let failed = cluster.submit(tasks::fail::task(17_u64));
    let ClientError::Failed(failure) = failed.result().await.unwrap_err() else { panic!("another error") };
    assert_eq!(failure.name, "starling_integration_tests::tasks::fail");
    assert_eq!(failure.node, Some(cluster.nodes()[1].id()));
    let FailureCause::Error { message, sources } = &failure.cause else { panic!("another cause: {failure}") };
    assert_eq!(
        (message.as_str(), sources.as_slice()),
        ("record 17 is bad", ["the disk said no".to_owned()].as_slice())
    );
    assert!(failure.to_string().ends_with("failed: record 17 is bad: the disk said no"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_reaches_the_client_with_its_place_and_the_worker_goes_on() {
    let cluster = cluster(1).await;
    let failed = cluster.submit(tasks::panic_with::task("no way".to_owned()));
    let ClientError::Failed(failure) = failed.result().await.unwrap_err() else { panic!("another error") };
    let FailureCause::Panicked { message, location } = failure.cause else { panic!("another cause") };
    assert_eq!(message, "no way");
    assert!(location.unwrap().contains("tasks.rs"));
    assert_eq!(cluster.submit(tasks::add::task(1, 1)).result().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_a_failed_task_fails_with_the_same_failure() {
    let cluster = cluster(2).await;
    let failed = cluster.submit(tasks::panic_with::task("root".to_owned()));
    let after = cluster.submit(tasks::bytes::task(failed.clone(), 1_u8));
    let ClientError::Failed(failure) = after.result().await.unwrap_err() else { panic!("another error") };
    assert_eq!(failure.task, failed.task());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_retries_is_tried_again() {
    let cluster = cluster(1).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tries");
    let call = tasks::fail_at_first::task(file.clone(), 2_u64);
    assert!(cluster.submit(call).result().await.is_err());
    std::fs::remove_file(&file).unwrap();
    let call = tasks::fail_at_first::task(file, 2_u64).retries(2);
    assert_eq!(cluster.submit(call).result().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_dropped_when_their_futures_are() {
    let cluster = cluster(2).await;
    let large = cluster.map((0..8_u8).map(|value| tasks::bytes::task(100_000_u64, value)));
    for future in &large {
        future.wait().await.unwrap();
    }
    assert!(stored(&cluster) >= 8);
    drop(large);
    eventually("every output dropped", || stored(&cluster) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_move_between_workers_and_to_the_client() {
    let cluster = cluster(3).await;
    let parts = cluster.map((1..=9_u8).map(|value| tasks::bytes::task(3_000_000_u64, value)));
    let sums = cluster.map(parts.iter().zip(&parts[1..]).map(|(one, other)| tasks::sum_bytes::task(one, other)));
    let sums = cluster.gather(&sums).await.unwrap();
    let expected: Vec<u64> = (1..9).map(|value| 3_000_000 * (2 * value + 1)).collect();
    assert_eq!(sums, expected);
    let value = parts[4].result().await.unwrap();
    assert!(value.len() == 3_000_000 && value.iter().all(|&byte| byte == 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scattered_value_is_an_argument_and_is_held_by_a_worker() {
    let cluster = cluster(2).await;
    let one: starling::Future<Buffer> = cluster.scatter(Buffer::from(vec![1; 50_000])).await.unwrap();
    let two = cluster.scatter(Buffer::from(vec![2; 50_000])).await.unwrap();
    assert_eq!(cluster.submit(tasks::sum_bytes::task(&one, &two)).result().await.unwrap(), 150_000);
    let holders = cluster.who_has([&one, &two]).await.unwrap();
    assert_eq!(holders.len(), 2);
    assert!(holders.iter().all(|(_, nodes, nbytes)| !nodes.is_empty() && *nbytes >= 50_000), "{holders:?}");
    assert_eq!(one.result().await.unwrap().len(), 50_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_again_when_a_worker_is_lost() {
    let cluster = cluster(3).await;
    let parts = cluster.map((0..6_u8).map(|value| tasks::bytes::task(200_000_u64, value)));
    for part in &parts {
        part.wait().await.unwrap();
    }
    cluster.nodes()[2].mesh().shutdown().await;
    let sums = cluster.map(parts.iter().zip(&parts[1..]).map(|(one, other)| tasks::sum_bytes::task(one, other)));
    let sums = cluster.gather(&sums).await.unwrap();
    assert_eq!(sums, (0..5).map(|value| 200_000 * (2 * value + 1)).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_small_tasks() {
    let cluster = cluster(2).await;
    let parts = cluster.map((0..10_000_i64).map(|x| tasks::add::task(x, 1)));
    assert_eq!(cluster.submit(tasks::total::task(parts)).result().await.unwrap(), 10_000 * 10_001 / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_a_thousand_links() {
    let cluster = cluster(2).await;
    let mut link = cluster.submit(tasks::add::task(0, 0));
    for _ in 0..1000 {
        link = cluster.submit(tasks::add::task(link, 1));
    }
    assert_eq!(link.result().await.unwrap(), 1000);
}

#[test]
fn a_cluster_starts_and_stops_many_times_in_one_process() {
    for _ in 0..3 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let cluster = cluster(1).await;
            let future = cluster.submit(tasks::add::task(20, 22));
            assert_eq!(future.result().await.unwrap(), 42);
            cluster.shutdown().await;
            assert!(matches!(future.result().await, Ok(42) | Err(ClientError::SchedulerLost(_))));
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_who_has() {
    let cluster = cluster(3).await;
    let large = cluster.submit(tasks::bytes::task(100_000_u64, 1_u8));
    large.wait().await.unwrap();
    let holders = cluster.who_has([&large]).await.unwrap()[0].1.clone();
    eventually("every node has heard", || {
        let heard = cluster.nodes().iter().map(|node| node.who_has(large.task()));
        heard.into_iter().all(|heard| heard.iter().map(|holder| holder.0).eq(holders.iter().copied()))
    })
    .await;
    let task = large.task();
    drop(large);
    eventually("every node has forgotten", || cluster.nodes().iter().all(|node| node.who_has(task).is_empty())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_lost_with_the_cluster_fails_instead_of_waiting() {
    let cluster = cluster(1).await;
    let large = cluster.submit(tasks::bytes::task(100_000_u64, 1_u8));
    large.wait().await.unwrap();
    cluster.shutdown().await;
    assert!(matches!(large.result().await, Err(ClientError::SchedulerLost(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_keeps_its_cluster() {
    let future = {
        let cluster = cluster(1).await;
        cluster.submit(tasks::sleep_then::task(50_u64, 5))
    };
    assert_eq!(future.result().await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_future_of_another_cluster_is_no_argument() {
    let (one, other) = (cluster(1).await, cluster(1).await);
    let ours = one.submit(tasks::add::task(1, 1));
    other.submit(tasks::add::task(5, 5)).wait().await.unwrap();
    let mixed = other.submit(tasks::add::task(&ours, 1)).result().await;
    assert!(matches!(mixed, Err(ClientError::ForeignFuture(_))), "{mixed:?}");
    assert_eq!(other.submit(tasks::add::task(2, 2)).result().await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_too_large_for_the_scheduler_are_told_to_be_scattered() {
    let cluster = cluster(1).await;
    let large = "x".repeat(20 << 20);
    let refused = cluster.submit(tasks::count_words::task(large.clone())).result().await.unwrap_err();
    assert!(refused.to_string().contains("scatter"), "{refused}");
    let scattered = cluster.scatter(large).await.unwrap();
    assert_eq!(cluster.submit(tasks::count_words::task(scattered)).result().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn scatters_that_are_not_polled_hold_nothing_up() {
    use futures::StreamExt;
    let cluster = cluster(2).await;
    let values = futures::stream::iter((0..20_i64).map(|value| vec![value; 10]));
    let mut scattered = std::pin::pin!(values.map(|value| cluster.scatter(value)).buffered(8));
    let mut sum = 0;
    while let Some(future) = scattered.next().await {
        sum += cluster.submit(tasks::total::task(future.unwrap())).result().await.unwrap();
    }
    assert_eq!(sum, 10 * 190);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_has_no_encoding_fails_its_task() {
    let cluster = cluster(1).await;
    let failed = cluster.submit(tasks::flattened::task()).result().await.unwrap_err();
    assert!(failed.to_string().contains("cannot be encoded"), "{failed}");
    let failed = cluster.submit(tasks::panics_when_encoded::task()).wait().await.unwrap_err();
    assert!(failed.to_string().contains("not today"), "{failed}");
    assert_eq!(cluster.submit(tasks::add::task(1, 1)).result().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_inputs_do_not_fit_fails_with_the_remedy() {
    let memory = MemoryConfig { spill_limit: Some(0), ..MemoryConfig::limited(1_000_000) };
    let options = LocalOptions { memory, nthreads: 1, ..LocalOptions::new(2) };
    let cluster = Cluster::local_with(options).await.unwrap();
    let parts = cluster.map((0..2_u8).map(|value| tasks::bytes::task(600_000_u64, value)));
    for part in &parts {
        part.wait().await.unwrap();
    }
    let failed = cluster.submit(tasks::sum_bytes::task(&parts[0], &parts[1])).result().await.unwrap_err();
    assert!(failed.to_string().contains("--memory-limit"), "{failed}");
    assert_eq!(parts[0].result().await.unwrap().len() + parts[1].result().await.unwrap().len(), 1_200_000);
}
