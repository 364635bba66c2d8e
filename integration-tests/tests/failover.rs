//! Nothing dies with a node: schedulers that are killed, stopped and started again, with a job under way.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use starling::{Buffer, NodeStatus};
use starling_integration_tests::processes::{Equals, PATIENCE, Processes};
use starling_integration_tests::tasks;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// The number of voters that are set, once the leader has chosen them.
fn votes(count: usize) -> impl Fn(&NodeStatus) -> bool {
    move |status| status.leader.is_some() && status.quorum.as_ref().is_some_and(|quorum| quorum.voters.len() == count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_although_the_scheduler_is_killed_and_its_results_are_the_same() {
    let mut equals = Equals::start(NODE, 3).unwrap();
    equals.until(2, votes(3)).await.unwrap();
    let leader = equals.leader(2).await.unwrap();
    let other = (leader + 1) % 3;
    let cluster = equals.connect().await.unwrap();
    let term = equals.status(other).await.unwrap().term.unwrap();

    let parts = cluster.map((0..30_u64).map(|n| tasks::bytes::task(400_000 + n, 1_u8)));
    let sums = cluster.map((0..29).map(|n| tasks::sum_bytes::task(&parts[n], &parts[n + 1])));
    let slow = cluster.map((0..150).map(|value| tasks::slow::task(20_u64, value)));
    let early = cluster.gather(&slow[..5]).await.unwrap();
    let scattered = cluster.scatter(Buffer::from(vec![7_u8; 50_000])).await.unwrap();
    equals.kill(leader).unwrap();
    let killed = Instant::now();
    // Submitted while nobody holds the scheduler.
    let late = cluster.map((0..10_i64).map(|x| tasks::add::task(x, 1)));
    assert_eq!(
        tokio::time::timeout(PATIENCE, cluster.gather(&late)).await.unwrap().unwrap(),
        (1..=10).collect::<Vec<i64>>()
    );
    eprintln!("the job went on {:?} after the kill", killed.elapsed());

    assert_eq!(early, (0..5).collect::<Vec<i64>>());
    assert_eq!(cluster.gather(&slow).await.unwrap(), (0..150).collect::<Vec<i64>>());
    assert_eq!(cluster.gather(&sums).await.unwrap(), (0..29).map(|n| 800_000 + 2 * n + 1).collect::<Vec<u64>>());
    let parts = cluster.gather(&parts).await.unwrap();
    assert!(parts.iter().zip(400_000..).all(|(part, length)| part.len() == length));
    // On the node that was killed, it is lost with it; elsewhere it is there.
    if let Ok(value) = scattered.result().await {
        assert_eq!(value.len(), 50_000);
    }
    let status = equals.until(other, |status| status.leader.is_some()).await.unwrap();
    assert!(status.term.unwrap() > term);

    // The old leader comes back, as itself, and follows.
    equals.start_one(leader).unwrap();
    cluster.wait_for_workers(3).await.unwrap();
    let seen = equals.until(leader, votes(3)).await.unwrap();
    assert_eq!((seen.leader, seen.term), (status.leader, status.term));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_scheduler_that_is_started_again_goes_on_with_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let args = [OsStr::new("--data-dir"), folder.path().as_os_str()];
    let mut processes = Processes::start_with(NODE, 2, &args).unwrap();
    let cluster = processes.connect().await.unwrap();
    let parts = cluster.map((0..20_u64).map(|n| tasks::bytes::task(300_000 + n, 1_u8)));
    cluster.gather(&parts).await.unwrap();
    let slow = cluster.map((0..100).map(|value| tasks::slow::task(20_u64, value)));
    slow[3].wait().await.unwrap();
    processes.scheduler.kill().unwrap();
    processes.restart_scheduler(&args).unwrap();
    assert_eq!(
        tokio::time::timeout(PATIENCE, cluster.gather(&slow)).await.unwrap().unwrap(),
        (0..100).collect::<Vec<i64>>()
    );
    // What the workers had, they have.
    let sums = cluster.map((0..19).map(|n| tasks::sum_bytes::task(&parts[n], &parts[n + 1])));
    assert_eq!(cluster.gather(&sums).await.unwrap(), (0..19).map(|n| 600_000 + 2 * n + 1).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_stopped_as_a_whole_goes_on() {
    let equals = Equals::start(NODE, 3).unwrap();
    equals.until(1, votes(3)).await.unwrap();
    let cluster = equals.connect().await.unwrap();
    let slow = cluster.map((0..150).map(|value| tasks::slow::task(20_u64, value)));
    let pids: Vec<Pid> = equals.nodes.iter().flatten().map(|node| Pid::from_raw(node.process.id() as i32)).collect();
    for settled in [3, 60] {
        slow[settled].wait().await.unwrap();
        pids.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
        // Longer than any lease.
        tokio::time::sleep(Duration::from_secs(2)).await;
        pids.iter().for_each(|pid| kill(*pid, Signal::SIGCONT).unwrap());
    }
    let results = tokio::time::timeout(PATIENCE, cluster.gather(&slow)).await.unwrap().unwrap();
    assert_eq!(results, (0..150).collect::<Vec<i64>>());
    cluster.wait_for_workers(3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_was_stopped_and_goes_on_is_not_heard_any_more() {
    let equals = Equals::start(NODE, 3).unwrap();
    equals.until(1, votes(3)).await.unwrap();
    let leader = equals.leader(1).await.unwrap();
    let other = (leader + 1) % 3;
    let cluster = equals.connect().await.unwrap();
    let slow = cluster.map((0..120).map(|value| tasks::slow::task(20_u64, value)));
    slow[3].wait().await.unwrap();
    let stopped = Pid::from_raw(equals.nodes[leader].as_ref().unwrap().process.id() as i32);
    let before = equals.status(other).await.unwrap();
    kill(stopped, Signal::SIGSTOP).unwrap();
    let after = equals.until(other, |status| status.leader.is_some() && status.leader != before.leader).await.unwrap();
    assert!(after.term > before.term);
    tokio::time::sleep(Duration::from_millis(500)).await;
    kill(stopped, Signal::SIGCONT).unwrap();
    let results = tokio::time::timeout(PATIENCE, cluster.gather(&slow)).await.unwrap().unwrap();
    assert_eq!(results, (0..120).collect::<Vec<i64>>());
    // It has found out, and works for the other one now.
    let seen = equals.until(leader, |status| status.leader == after.leader).await.unwrap();
    assert_eq!(seen.term, after.term);
    cluster.wait_for_workers(3).await.unwrap();
}
