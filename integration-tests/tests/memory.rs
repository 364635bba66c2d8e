//! Workers with little memory: what does not fit goes to disk, and what cannot is an error of its task.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use starling::{Buffer, ClientError, Cluster, FailureCause, LocalOptions, MemoryConfig};
use starling_integration_tests::processes::Processes;
use starling_integration_tests::tasks;
use tempfile::TempDir;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const MIB: u64 = 1 << 20;

/// A cluster of so many workers with one thread each, which spill into a folder of the test's own.
async fn cluster(workers: usize, memory: MemoryConfig) -> (Cluster, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let memory = MemoryConfig { spill_directory: Some(folder.path().to_owned()), ..memory };
    let options = LocalOptions { memory, nthreads: 1, ..LocalOptions::new(workers) };
    (Cluster::local_with(options).await.unwrap(), folder)
}

/// Waits for a condition that other threads bring about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Of all stores: bytes in memory, bytes on disk only, bytes of files.
fn held(cluster: &Cluster) -> (u64, u64, u64) {
    let stores = cluster.nodes().iter().map(starling::Node::store);
    stores.fold((0, 0, 0), |(memory, spilled, disk), store| {
        (memory + store.nbytes(), spilled + store.spilled_bytes(), disk + store.disk_bytes())
    })
}

/// The files of spilled values below `folder`.
fn spilled_files(folder: &Path) -> Vec<PathBuf> {
    let directories = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = directories.flat_map(|directory| fs::read_dir(directory).unwrap()).map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().is_some_and(|name| name != "lock")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_four_times_the_memory_in_intermediate_data_finishes() {
    const CHUNKS: u64 = 128;
    let limit = 16 * MIB;
    let (cluster, folder) = cluster(2, MemoryConfig::limited(limit)).await;
    let chunks = cluster.map((0..CHUNKS).map(|n| tasks::bytes::task(MIB, n as u8)));
    for chunk in &chunks {
        chunk.wait().await.unwrap();
    }
    let (memory, spilled, disk) = held(&cluster);
    assert!(memory <= 2 * limit && spilled >= CHUNKS * MIB - 2 * limit, "{memory} in memory, {spilled} on disk");
    assert!(disk >= spilled);

    // Each needs the first chunks and the last, which are on either worker, on disk or not.
    let sums =
        cluster.map((0..chunks.len()).map(|n| tasks::sum_bytes::task(&chunks[n], &chunks[chunks.len() - 1 - n])));
    let results = cluster.gather(&sums).await.unwrap();
    assert!(results.iter().all(|&sum| sum == (CHUNKS - 1) * MIB), "{results:?}");
    assert!(cluster.nodes().iter().all(|node| node.store().nbytes() <= limit));
    // The client gets what is on disk, too.
    for (n, chunk) in chunks.iter().enumerate() {
        let bytes = chunk.result().await.unwrap();
        assert!(bytes.len() as u64 == MIB && bytes.iter().all(|&byte| byte == n as u8), "chunk {n} is wrong");
    }

    drop((chunks, sums));
    eventually("empty stores", || held(&cluster) == (0, 0, 0)).await;
    assert_eq!(spilled_files(folder.path()), Vec::<PathBuf>::new());
    cluster.shutdown().await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_larger_than_the_limit_goes_through_the_disk() {
    let (cluster, folder) = cluster(1, MemoryConfig::limited(MIB)).await;
    let large = cluster.submit(tasks::bytes::task(8 * MIB, 7_u8));
    assert_eq!(large.result().await.unwrap(), Buffer::from(vec![7; 8 << 20]));
    assert_eq!(held(&cluster).0, 0);
    assert_eq!(spilled_files(folder.path()).len(), 1);
    let sum = cluster.submit(tasks::sum_bytes::task(&large, &large)).result().await.unwrap();
    assert_eq!(sum, 2 * 7 * 8 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_larger_than_the_store_may_hold_fails_its_task_with_the_remedy() {
    let (cluster, _folder) = cluster(1, MemoryConfig { spill_limit: Some(0), ..MemoryConfig::limited(MIB) }).await;
    let failed = cluster.submit(tasks::bytes::task(8 * MIB, 7_u8)).result().await.unwrap_err();
    assert!(failed.to_string().contains("--memory-limit"), "{failed}");
    let ClientError::Failed(failure) = failed else { panic!("another error: {failed}") };
    assert!(matches!(failure.cause, FailureCause::Store { .. }), "{failure}");
    assert_eq!(cluster.submit(tasks::add::task(1, 1)).result().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_tasks_whose_results_have_no_place_and_no_others() {
    let memory = MemoryConfig { spill_limit: Some(2 * MIB), ..MemoryConfig::limited(4 * MIB) };
    let (cluster, folder) = cluster(1, memory).await;
    let parts = cluster.map((0..10).map(|n| tasks::bytes::task(MIB, n)));
    let (mut kept, mut refused) = (Vec::new(), 0);
    for (n, part) in parts.iter().enumerate() {
        match part.wait().await {
            Ok(()) => kept.push((n as u8, part)),
            Err(ClientError::Failed(failure)) => {
                let text = failure.to_string();
                assert!(matches!(failure.cause, FailureCause::Store { .. }), "{text}");
                assert!(text.contains("--spill-directory") && text.contains("--spill-limit"), "{text}");
                refused += 1;
            }
            Err(error) => panic!("another error: {error}"),
        }
    }
    assert!(refused >= 5 && kept.len() >= 4, "{} have a place, {refused} have none", kept.len());
    for (n, part) in kept {
        assert_eq!(part.result().await.unwrap(), Buffer::from(vec![n; 1 << 20]));
    }
    assert!(spilled_files(folder.path()).len() <= 1, "no half files");
    drop(parts);
    eventually("empty stores", || held(&cluster) == (0, 0, 0)).await;
    let again = cluster.submit(tasks::bytes::task(MIB, 1_u8));
    assert_eq!(again.result().await.unwrap().len(), 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_memory_is_short_begins_nothing_until_it_is_not() {
    let (cluster, _folder) = cluster(1, MemoryConfig { spill_limit: Some(0), ..MemoryConfig::limited(MIB) }).await;
    let mut tries = 0;
    let mut large = cluster.submit(tasks::bytes::task(900_000_u64, 1_u8));
    let deadline = Instant::now() + Duration::from_secs(20);
    let waiting = loop {
        let task = cluster.submit(tasks::add::task(1, 1));
        if cluster.explain(&task).await.unwrap().to_string().contains("is paused") {
            break task;
        }
        assert!(Instant::now() < deadline, "the worker does not pause");
        tokio::time::sleep(Duration::from_millis(20)).await;
        tries += 1;
        if tries % 100 == 0 {
            // A pause that makes nothing better is given up, and may have been over before it was seen.
            drop(large);
            large = cluster.submit(tasks::bytes::task(900_000_u64, 1_u8));
        }
    };
    drop(large);
    assert_eq!(waiting.result().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_whose_file_is_damaged_is_computed_again_for_who_fetches_it() {
    let (cluster, folder) = cluster(1, MemoryConfig::limited(MIB)).await;
    let part = cluster.submit(tasks::bytes::task(4 * MIB, 3_u8));
    part.wait().await.unwrap();
    let files = spilled_files(folder.path());
    let file = fs::OpenOptions::new().write(true).open(&files[0]).unwrap();
    file.write_all_at(b"damage", 2_000_000).unwrap();
    assert_eq!(part.result().await.unwrap(), Buffer::from(vec![3; 4 << 20]));
    assert_ne!(spilled_files(folder.path()), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_input_is_damaged_on_disk_is_told_so() {
    let (cluster, folder) = cluster(1, MemoryConfig::limited(MIB)).await;
    let part = cluster.submit(tasks::bytes::task(4 * MIB, 3_u8));
    part.wait().await.unwrap();
    let file = fs::OpenOptions::new().write(true).open(&spilled_files(folder.path())[0]).unwrap();
    file.write_all_at(b"damage", 2_000_000).unwrap();
    let failed = cluster.submit(tasks::sum_bytes::task(&part, &part)).result().await.unwrap_err();
    assert!(failed.to_string().contains("checksum"), "{failed}");
    assert!(matches!(failed, ClientError::Failed(failure) if matches!(failure.cause, FailureCause::Store { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_fails_to_encode_stays_in_memory_and_is_an_error_for_who_fetches_it() {
    let (cluster, folder) = cluster(1, MemoryConfig::limited(MIB)).await;
    let numbers = cluster.submit(tasks::late_numbers::task(100_000_u32));
    // A task on the same worker needs no encoding.
    assert_eq!(cluster.submit(tasks::count_late::task(&numbers)).result().await.unwrap(), 100_000);
    // Over the target, it is others that go.
    let parts = cluster.map((0..4).map(|n| tasks::bytes::task(400_000_u64, n)));
    for part in &parts {
        part.wait().await.unwrap();
    }
    eventually("spilled files", || !spilled_files(folder.path()).is_empty()).await;
    assert_eq!(cluster.submit(tasks::count_late::task(&numbers)).result().await.unwrap(), 100_000);
    // Larger than there is room for, it can be neither kept nor spilled.
    let failed = cluster.submit(tasks::late_numbers::task(1_000_000_u32)).wait().await.unwrap_err();
    assert!(failed.to_string().contains("99 is no number") || failed.to_string().contains("encoded"), "{failed}");
    assert_eq!(cluster.submit(tasks::add::task(1, 1)).result().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_spill_as_their_options_say_and_clean_up_after_one_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap().to_owned();
    let args = ["--memory-limit", "256MiB", "--memory-target", "0.02", "--spill-directory", &directory];
    let mut processes = Processes::start(NODE, 0).unwrap();
    processes.start_worker(&args).unwrap();
    let cluster = processes.connect().await.unwrap();
    let parts = cluster.map((0..20).map(|n| tasks::bytes::task(MIB, n)));
    for (n, part) in parts.iter().enumerate() {
        assert_eq!(part.result().await.unwrap(), Buffer::from(vec![n as u8; 1 << 20]));
    }
    eventually("spilled files", || spilled_files(folder.path()).len() >= 14).await;

    processes.workers[0].kill().unwrap();
    processes.workers.clear();
    assert!(spilled_files(folder.path()).len() >= 14, "what it had spilled is left");
    processes.start_worker(&args).unwrap();
    let directories = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(directories, 1, "the new worker's own");
    // All of it is computed again, and spilled again.
    for (n, part) in parts.iter().enumerate() {
        assert_eq!(part.result().await.unwrap(), Buffer::from(vec![n as u8; 1 << 20]));
    }

    let worker = nix::unistd::Pid::from_raw(processes.workers[0].id() as i32);
    nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGTERM).unwrap();
    processes.workers[0].wait().unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a node that is asked to end leaves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_with_little_memory_finish_a_job_with_four_times_as_much_data() {
    const CHUNKS: u64 = 512;
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap().to_owned();
    let args = ["--memory-limit", "64MiB", "--spill-directory", &directory];
    let mut processes = Processes::start(NODE, 0).unwrap();
    // What the processes use besides counts too, and may be near the limit already: that must not stop them.
    processes.start_worker(&args).unwrap();
    processes.start_worker(&args).unwrap();
    let cluster = processes.connect().await.unwrap();
    let chunks = cluster.map((0..CHUNKS).map(|n| tasks::bytes::task(MIB, n as u8)));
    for chunk in &chunks {
        chunk.wait().await.unwrap();
    }
    let last = chunks.len() - 1;
    let sums = cluster.map((0..chunks.len() / 2).map(|n| tasks::sum_bytes::task(&chunks[n], &chunks[last - n])));
    let results = cluster.gather(&sums).await.unwrap();
    assert!(results.iter().all(|&sum| sum == 255 * MIB), "{results:?}");
}
