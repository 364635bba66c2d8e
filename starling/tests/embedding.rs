//! Nodes and clusters that come and go in one process: nothing of them stays, and none sees another.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use starling::mesh::parse_addr;
use starling::{Cluster, ClusterSecret, Node, NodeConfig, NodeRole};

const PATIENCE: Duration = Duration::from_secs(30);

#[starling::task]
fn double(x: u64) -> u64 {
    2 * x
}

/// What a process holds that a node could leave behind; `None` where the system does not tell.
fn held() -> Option<(usize, usize)> {
    let count = |folder: &str| Some(std::fs::read_dir(folder).ok()?.count());
    Some((count("/proc/self/task")?, count("/proc/self/fd")?))
}

/// One cluster of each kind, used and ended.
async fn cycle(number: u64) {
    let cluster = Cluster::local(1).await.unwrap();
    assert_eq!(cluster.submit(double::task(number)).result().await.unwrap(), 2 * number);
    cluster.shutdown().await;

    let config = NodeConfig {
        listen: vec![parse_addr("/ip4/127.0.0.1/tcp/0").unwrap()],
        secret: Some(ClusterSecret::generate()),
        nthreads: 1,
        ..NodeConfig::new(NodeRole::Auto)
    };
    let node = Node::start(config).await.unwrap();
    let cluster = node.cluster().await.unwrap();
    assert_eq!(cluster.submit(double::task(number + 1)).result().await.unwrap(), 2 * number + 2);
    node.shutdown().await;
}

/// On a runtime of its own, so that its threads count, too.
fn cycles(numbers: std::ops::Range<u64>) {
    for number in numbers {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(cycle(number));
    }
}

#[test]
fn a_node_that_has_stopped_leaves_no_thread_and_no_socket_behind() {
    cycles(0..3);
    let Some((threads, files)) = held() else {
        eprintln!("skipped: this system does not say which threads and files a process has");
        return;
    };
    cycles(3..18);
    // Threads end by themselves, soon.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (threads_now, files_now) = held().unwrap();
        // Fifteen rounds of two clusters would leave many more.
        if threads_now <= threads + 8 && files_now <= files + 8 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{threads} threads and {files} files before, {threads_now} and {files_now} after 15 more rounds"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn two_clusters_of_one_process_do_not_see_each_other() {
    let (one, other) = (Cluster::local(1).await.unwrap(), Cluster::local(2).await.unwrap());
    assert_eq!((one.workers(), other.workers()), (1, 2));
    assert_eq!((one.mesh().members().len(), other.mesh().members().len()), (3, 4));
    let results = (one.submit(double::task(3)), other.submit(double::task(4)));
    assert_eq!((results.0.result().await.unwrap(), results.1.result().await.unwrap()), (6, 8));
    let job = other.job();
    assert!(one.jobs().await.unwrap().iter().all(|known| known.job != job));
    one.shutdown().await;
    assert_eq!(other.submit(double::task(5)).result().await.unwrap(), 10);
    other.shutdown().await;
}
