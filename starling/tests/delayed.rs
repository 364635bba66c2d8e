//! Delayed calls on a real cluster inside this process.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::sync::atomic::{AtomicU32, Ordering};

use starling::{ClientError, Cluster, Delayed, Graph, delayed, key};

static LOADED: AtomicU32 = AtomicU32::new(0);

#[starling::task]
fn load(value: u64) -> u64 {
    LOADED.fetch_add(1, Ordering::Relaxed);
    value
}

#[starling::task]
fn next(value: &u64) -> u64 {
    *value + 1
}

#[starling::task]
fn total(values: &[u64]) -> u64 {
    values.iter().sum()
}

#[starling::task]
fn fail(_value: u64) -> Result<u64, String> {
    Err("on purpose".to_owned())
}

fn chain(start: Delayed<u64>, links: usize) -> Delayed<u64> {
    (0..links).fold(start, |link, _| next::task(&link).delayed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_calls_are_computed_when_asked_and_what_they_share_once() {
    let cluster = Cluster::local(2).await.unwrap();
    let loaded = load::task(7_u64).delayed().name("seven");
    let branches: Vec<Delayed<u64>> = (0..4).map(|links| chain(loaded.clone(), links)).collect();
    let sum = total::task(&branches).delayed();
    assert_eq!(LOADED.load(Ordering::Relaxed), 0);
    assert_eq!(sum.compute(&cluster).await.unwrap(), 7 + 8 + 9 + 10);
    assert_eq!(LOADED.load(Ordering::Relaxed), 1);
    let all = delayed::compute_all(&cluster, [&sum, &branches[3], &sum]).await.unwrap();
    assert_eq!((all, LOADED.load(Ordering::Relaxed)), (vec![34, 10, 34], 2));

    // Futures, delayed calls and names of a graph take each other.
    let future = cluster.submit(load::task(100_u64));
    let on_future = next::task(&future).delayed();
    let persisted = on_future.persist(&cluster).unwrap();
    drop((on_future, future));
    assert_eq!(cluster.submit(next::task(&persisted)).result().await.unwrap(), 102);
    let submitted = cluster.submit(total::task(vec![sum.clone(), chain(sum.clone(), 1)]));
    assert_eq!(submitted.result().await.unwrap(), 34 + 35);
    let mut graph = Graph::new();
    graph.add("last", total::task(vec![key("first"), key("second")])).unwrap();
    graph.add("first", next::task(&sum)).unwrap();
    graph.add("second", next::task(&persisted)).unwrap();
    let last = cluster.submit_graph::<u64>(graph, ["last"]).unwrap();
    assert_eq!(last[0].result().await.unwrap(), 35 + 102);

    let failed = chain(fail::task(&loaded).delayed(), 2).compute(&cluster).await;
    let Err(ClientError::Failed(failure)) = failed else { panic!("it did not fail: {failed:?}") };
    assert!(failure.name.ends_with("::fail") && failure.to_string().contains("on purpose"), "{failure}");
    let detached = cluster.submit_detached(next::task(&sum)).await;
    assert!(matches!(detached, Err(ClientError::DelayedOutsideGraph(_))), "{detached:?}");
    let wrong = next::task(load::task(1_u64).replicas(0).delayed());
    assert!(matches!(cluster.submit(wrong).result().await, Err(ClientError::BadOptions { .. })));

    let other = Cluster::local(1).await.unwrap();
    let foreign = next::task(&persisted).delayed().compute(&other).await;
    assert!(matches!(foreign, Err(ClientError::ForeignFuture(_))), "{foreign:?}");
    other.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_delayed_calls_as_long_as_a_job_is_computed() {
    let cluster = Cluster::local(1).await.unwrap();
    let last = chain(load::task(0_u64).delayed(), 20_000);
    assert_eq!(last.compute(&cluster).await.unwrap(), 20_000);
    cluster.shutdown().await;
}
