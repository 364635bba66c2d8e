//! Outputs in parts: every task that takes a part gets that part of each, and no more is fetched than that.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::time::{Duration, Instant};

use starling::{Buffer, Cluster, Future, LocalOptions, MemoryConfig, Parts};
use starling_integration_tests::processes::Processes;
use starling_integration_tests::tasks::{self, Given};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const PRODUCERS: usize = 4;
const PARTS: usize = 8;

fn split(cluster: &Cluster, length: u64) -> Vec<Future<Parts>> {
    cluster.map((0..PRODUCERS).map(|number| tasks::split::task(10 * number as u8, PARTS as u8, length)))
}

fn take(cluster: &Cluster, outputs: &[Future<Parts>], millis: u64) -> Vec<Future<Vec<Given>>> {
    let take = |part| tasks::take_part::task(outputs.to_vec(), part as u64, millis).part(part, PARTS, 0);
    cluster.map((0..PARTS).map(take))
}

/// Asserts that each task was given its part of each output. Gives how many of the outputs came as one part only.
fn check(taken: &[Vec<Given>], length: usize) -> usize {
    let mut alone = 0;
    assert_eq!(taken.len(), PARTS);
    for (part, given) in taken.iter().enumerate() {
        assert_eq!(given.len(), PRODUCERS);
        for (producer, given) in given.iter().enumerate() {
            assert_eq!((given.parts, given.part), (PARTS, Some(((10 * producer + part) as u8, length))));
            assert!(given.here == PARTS || given.here == 1, "{given:?}");
            alone += usize::from(given.here == 1);
        }
    }
    alone
}

/// Waits for a condition that other threads bring about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Gives how many bytes of the outputs were on disk only when they were taken.
async fn shuffle(memory: MemoryConfig, length: u64) -> u64 {
    let cluster = Cluster::local_with(LocalOptions { memory, nthreads: 1, ..LocalOptions::new(3) }).await.unwrap();
    let outputs = split(&cluster, length);
    for output in &outputs {
        output.wait().await.unwrap();
    }
    let spilled = cluster.nodes().iter().map(|node| node.store().spilled_bytes()).sum();
    let consumers = take(&cluster, &outputs, 20);
    let taken = cluster.gather(&consumers).await.unwrap();
    let alone = check(&taken, length as usize);
    assert!(spilled == 0 || alone == PRODUCERS * PARTS, "what is on disk is read in part: {alone}");
    // Tasks run on more than one worker, and an output is on one.
    assert!(alone >= PARTS, "{alone} parts came alone");
    let holders = cluster.who_has(&outputs).await.unwrap();
    assert!(holders.iter().all(|(_, holders, _)| holders.len() == 1), "a fetched part is no copy");
    // What was fetched is gone, and nothing but outputs is left.
    let stored = || cluster.nodes().iter().map(|node| node.store().len()).sum::<usize>();
    eventually("stores without parts", || stored() == PRODUCERS + PARTS).await;
    drop((outputs, consumers));
    eventually("empty stores", || stored() == 0).await;
    spilled
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_gets_its_part_of_each_output_and_only_that_is_fetched() {
    assert_eq!(shuffle(MemoryConfig::default(), 100_000).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_what_was_spilled_are_read_alone() {
    const MIB: u64 = 1 << 20;
    // An output is larger than the limit, and a part is not.
    let folder = tempfile::tempdir().unwrap();
    let memory = MemoryConfig { spill_directory: Some(folder.path().to_owned()), ..MemoryConfig::limited(6 * MIB) };
    let spilled = shuffle(memory, MIB).await;
    assert_eq!(spilled / MIB, (PRODUCERS * PARTS) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_before_the_first_that_is_taken_in_part_are_whole_as_is_what_is_not_in_parts() {
    let cluster = Cluster::local_with(LocalOptions { nthreads: 1, ..LocalOptions::new(2) }).await.unwrap();
    let large = cluster.submit(tasks::bytes::task(1_000_000_u64, 7_u8));
    let output = cluster.submit(tasks::split::task(0_u8, 4_u8, 1_000_u64));
    for part in 0..4 {
        let call = tasks::take_after::task(&large, &output, part as u64).part(part, 4, 1);
        let (length, given) = cluster.submit(call).result().await.unwrap();
        assert_eq!((length, given.part), (1_000_000, Some((part as u8, 1_000))));
        // Everything is taken in part, although the first is not in parts.
        let call = tasks::take_after::task(&large, &output, part as u64).part(part, 4, 0);
        let (length, given) = cluster.submit(call).result().await.unwrap();
        assert_eq!((length, given.part), (1_000_000, Some((part as u8, 1_000))));
    }
    let whole = output.result().await.unwrap();
    assert_eq!(*whole.get::<Buffer>(3).unwrap().unwrap(), Buffer::from(vec![3; 1_000]));
    let refused = cluster.submit(tasks::take_after::task(&large, &output, 0_u64).part(0, 4, 3)).result().await;
    assert!(refused.unwrap_err().to_string().contains("from input 3 on, and there are 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_killed_worker_are_computed_again() {
    let mut processes = Processes::start(NODE, 3).unwrap();
    let cluster = processes.connect().await.unwrap();
    let outputs = split(&cluster, 100_000);
    let consumers: Vec<_> = (0..6).flat_map(|_| take(&cluster, &outputs, 20)).collect();
    consumers[2].wait().await.unwrap();
    processes.workers[1].kill().unwrap();
    let taken = cluster.gather(&consumers).await.unwrap();
    let alone: usize = taken.chunks(PARTS).map(|taken| check(taken, 100_000)).sum();
    assert!(alone >= PARTS, "{alone} parts came alone");
}
