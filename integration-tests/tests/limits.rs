//! Tasks that do not end, or that wait, against an embedded cluster: real nodes, real mesh, one process.

#![allow(missing_docs, clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use starling::{ClientError, Cluster, FailureCause, LocalOptions, task};
use starling_integration_tests::tasks;

/// Never returns.
#[task]
fn hangs(number: i64) -> i64 {
    loop {
        std::thread::park();
        // Nobody unparks it; the argument tells the tasks apart.
        std::hint::black_box(number);
    }
}

/// Waits, as it may, for what another task does.
#[task]
async fn waits_for_the_flag() -> bool {
    while !FLAG.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

#[task]
fn sets_the_flag() -> bool {
    !FLAG.swap(true, Ordering::AcqRel)
}

static FLAG: AtomicBool = AtomicBool::new(false);

/// One worker with one thread.
async fn one_thread() -> Cluster {
    Cluster::local_with(LocalOptions { nthreads: 1, ..LocalOptions::new(1) }).await.unwrap()
}

fn cause(error: ClientError) -> FailureCause {
    let ClientError::Failed(failure) = error else { panic!("another error: {error}") };
    assert_eq!(failure.name, "limits::hangs");
    failure.cause
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_never_returns_fails_and_its_only_thread_is_replaced() {
    let cluster = one_thread().await;
    let timeout = Duration::from_millis(50);
    let stuck = cluster.submit(hangs::task(0_i64).timeout(timeout));
    let dependent = cluster.submit(tasks::add::task(&stuck, 1));
    let others = cluster.map((0..20_i64).map(|x| tasks::add::task(x, 1)));
    let timed_out = FailureCause::TimedOut { timeout_ms: 50 };
    assert_eq!(cause(stuck.result().await.unwrap_err()), timed_out);
    assert_eq!(cause(dependent.result().await.unwrap_err()), timed_out);
    assert_eq!(cluster.gather(&others).await.unwrap(), (1..=20).collect::<Vec<i64>>());
    // Neither that it is tried again nor that more of them hang takes the worker away from others.
    let more = cluster.map((1..4_i64).map(|number| hangs::task(number).timeout(timeout).retries(1)));
    let others = cluster.map((0..20_i64).map(|x| tasks::add::task(x, 2)));
    for stuck in more {
        assert_eq!(cause(stuck.result().await.unwrap_err()), timed_out);
    }
    assert_eq!(cluster.gather(&others).await.unwrap(), (2..22).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_in_time_is_not_touched() {
    let cluster = one_thread().await;
    let timely = cluster.map((0..50_i64).map(|x| tasks::add::task(x, 1).timeout(Duration::from_secs(600))));
    assert_eq!(cluster.gather(&timely).await.unwrap(), (1..=50).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_leaves_its_only_thread_to_what_it_waits_for() {
    let cluster = one_thread().await;
    let waiting = cluster.submit(waits_for_the_flag::task());
    let setting = cluster.submit(sets_the_flag::task());
    assert!(waiting.result().await.unwrap());
    assert!(setting.result().await.unwrap());
}
