//! Clusters of real processes on loopback: three of them at work, and one of them killed.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use starling::core::explain::Why;
use starling::{Buffer, ClientError, ConnectOptions};
use starling_integration_tests::processes::{Process, Processes};
use starling_integration_tests::tasks;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_compute_and_both_workers_take_part() {
    let processes = Processes::start(NODE, 2).unwrap();
    let cluster = processes.connect().await.unwrap();
    let parts = cluster.map((0..1000_i64).map(tasks::square::task));
    assert_eq!(cluster.submit(tasks::total::task(parts)).result().await.unwrap(), 332_833_500);

    // Which worker is given what depends on how fast each one happens to be, but not one of them is left out for long.
    let workers: std::collections::BTreeSet<u32> = processes.workers.iter().map(|worker| worker.id()).collect();
    let mut seen = std::collections::BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen != workers {
        assert!(Instant::now() < deadline, "only {seen:?} of {workers:?} took part");
        let slow = cluster.map((0..8).map(|_| tasks::sleep_then::task(50_u64, 0)));
        let seen_by = cluster.map((0..8).map(|_| tasks::process::task()));
        cluster.gather(&slow).await.unwrap();
        seen.extend(cluster.gather(&seen_by).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_exact_although_a_worker_is_killed_in_the_middle() {
    let mut processes = Processes::start(NODE, 3).unwrap();
    let cluster = processes.connect().await.unwrap();
    // Large outputs on every worker, then a reduction over them: the killed worker takes some of each with it.
    let parts = cluster.map((0..30_u64).map(|n| tasks::bytes::task(400_000 + n, 1_u8)));
    let sums = cluster.map((0..29).map(|n| tasks::sum_bytes::task(&parts[n], &parts[n + 1])));
    let slow = cluster.map((0..60).map(|value| tasks::slow::task(20_u64, value)));
    sums[3].wait().await.unwrap();
    let killed = Instant::now();
    processes.workers[1].kill().unwrap();

    let sums = cluster.gather(&sums).await.unwrap();
    assert_eq!(sums, (0..29).map(|n| 800_000 + 2 * n + 1).collect::<Vec<u64>>());
    assert_eq!(cluster.gather(&slow).await.unwrap(), (0..60).collect::<Vec<i64>>());
    // Far from any timeout of membership: the closed link says it.
    eprintln!("done {:?} after the kill", killed.elapsed());

    let parts = cluster.gather(&parts).await.unwrap();
    assert!(parts.iter().zip(400_000..).all(|(part, length)| part.len() == length));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_answering_is_noticed_and_its_tasks_run_elsewhere() {
    let processes = Processes::start(NODE, 2).unwrap();
    let cluster = processes.connect().await.unwrap();
    let slow = cluster.map((0..40).map(|value| tasks::slow::task(20_u64, value)));
    slow[0].wait().await.unwrap();
    let silent = Pid::from_raw(processes.workers[0].id() as i32);
    // Its connections stay open, so that only membership can tell.
    kill(silent, Signal::SIGSTOP).unwrap();
    let results = tokio::time::timeout(Duration::from_secs(40), cluster.gather(&slow)).await;
    kill(silent, Signal::SIGCONT).unwrap();
    assert_eq!(results.expect("the silent worker was noticed").unwrap(), (0..40).collect::<Vec<i64>>());
}

fn press_ctrl_c(process: &Process) {
    kill(Pid::from_raw(process.id() as i32), Signal::SIGINT).unwrap();
}

fn has_said(process: &Process, text: &str) {
    process.wait_for_line(|line| line.contains(text).then_some(())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_on_a_worker_loses_nothing() {
    let mut processes = Processes::start(NODE, 2).unwrap();
    let cluster = processes.connect().await.unwrap();
    // What a client has put there cannot be computed again.
    let mut scattered = Vec::new();
    for value in 0..6_u8 {
        scattered.push(cluster.scatter(Buffer::from(vec![value; 100_000])).await.unwrap());
    }
    let slow = cluster.map((0..20).map(|value| tasks::slow::task(20_u64, value)));
    slow[0].wait().await.unwrap();
    press_ctrl_c(&processes.workers[0]);
    assert!(processes.workers[0].wait().unwrap().success(), "{}", processes.workers[0].output());

    let values = cluster.gather(&scattered).await.unwrap();
    assert!(
        values.iter().zip(0..).all(|(bytes, value)| bytes.len() == 100_000 && bytes.iter().all(|&byte| byte == value))
    );
    assert_eq!(cluster.gather(&slow).await.unwrap(), (0..20).collect::<Vec<i64>>());

    // Nobody is there to take anything over: it goes at once.
    let endless = cluster.submit(tasks::slow::task(600_000_u64, 0)).await.unwrap();
    press_ctrl_c(&processes.workers[1]);
    assert!(processes.workers[1].wait().unwrap().success(), "{}", processes.workers[1].output());
    drop(endless);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_on_a_worker_that_finishes_its_task_stops_it_at_once() {
    let mut processes = Processes::start(NODE, 2).unwrap();
    let cluster = processes.connect().await.unwrap();
    let endless = cluster.map((0..2).map(|value| tasks::slow::task(600_000_u64, value)));
    let deadline = Instant::now() + Duration::from_secs(60);
    for future in &endless {
        while !matches!(cluster.explain(future).await.unwrap().why, Why::Processing { .. }) {
            assert!(Instant::now() < deadline, "it did not begin");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    press_ctrl_c(&processes.workers[0]);
    has_said(&processes.workers[0], "leaving, once what only this worker holds is elsewhere");
    press_ctrl_c(&processes.workers[0]);
    assert!(processes.workers[0].wait().unwrap().success(), "{}", processes.workers[0].output());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_on_a_worker_without_a_scheduler_does_not_wait_for_one() {
    let mut processes = Processes::start(NODE, 1).unwrap();
    processes.scheduler.kill().unwrap();
    has_said(&processes.workers[0], "the link to the scheduler is closed");
    press_ctrl_c(&processes.workers[0]);
    assert!(processes.workers[0].wait().unwrap().success(), "{}", processes.workers[0].output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_outlives_its_workers_is_given_up_by_name() {
    let mut processes = Processes::start(NODE, 1).unwrap();
    let cluster = processes.connect().await.unwrap();
    let endless = cluster.submit(tasks::slow::task(600_000_u64, 0));
    for _ in 0..4 {
        // It runs once something submitted after it waits behind it on the one thread.
        endless.clone().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        processes.workers[0].kill().unwrap();
        processes.workers.clear();
        processes.start_worker(&[]).unwrap();
    }
    let ClientError::Failed(failure) = endless.result().await.unwrap_err() else { panic!("another error") };
    assert_eq!(failure.name, "starling_integration_tests::tasks::slow");
    assert!(failure.to_string().contains("workers were lost while they ran it"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_stays_away_is_said_to_whoever_waits() {
    let mut processes = Processes::start(NODE, 1).unwrap();
    let options = ConnectOptions { patience: Some(Duration::from_secs(1)), ..ConnectOptions::default() };
    let cluster = processes.connect_with(options).await.unwrap();
    let waiting = cluster.submit(tasks::slow::task(600_000_u64, 0)).await.unwrap();
    processes.scheduler.kill().unwrap();
    assert!(matches!(waiting.result().await.unwrap_err(), ClientError::SchedulerLost(_)));
    assert!(matches!(
        cluster.submit(tasks::add::task(1, 1)).result().await.unwrap_err(),
        ClientError::SchedulerLost(_)
    ));
}
