//! Locks, queues and the rest, on nodes of one process: between clients, inside of tasks, when a holder dies, and when another node
//! takes the scheduler over.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]
#![allow(clippy::print_stdout, reason = "a holder process tells the test so")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use starling_actors::coordination::{CoordinationError, Passed, Refused};
use starling_actors::{Cluster, ConnectOptions, Node, NodeConfig, NodeRole};
use starling_runtime::executor::block_on;
use starling_runtime::mesh::{Multiaddr, parse_addr};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Takes what another task puts, on the same thread's slot.
#[starling_macros::task(crate = starling_runtime)]
fn take(queue: &str) -> Result<u64, Failed> {
    Ok(block_on(Cluster::current()?.queue::<u64>(queue, 0).get())?)
}

#[starling_macros::task(crate = starling_runtime)]
async fn give(queue: String, value: u64) -> Result<(), Failed> {
    Ok(Cluster::current()?.queue(queue, 0).put(&value).await?)
}

/// Counts a variable up, which only the lock makes sound.
#[starling_macros::task(crate = starling_runtime)]
fn count_up(lock: &str, times: u64) -> Result<u64, Failed> {
    let cluster = Cluster::current()?;
    let (lock, count) = (cluster.lock(lock), cluster.variable::<u64>("count"));
    let mut token = 0;
    for _ in 0..times {
        token = block_on(async {
            let guard = lock.acquire().await?;
            let before = count.try_get().await?.unwrap_or(0);
            count.set(&(before + 1)).await?;
            assert!(guard.is_held() && guard.token() > token);
            let token = guard.token();
            guard.release().await?;
            Ok::<u64, CoordinationError>(token)
        })?;
    }
    Ok(token)
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it ended in time")
}

/// Waits until it is so.
async fn eventually<T, F: Future<Output = Option<T>>>(mut find: impl FnMut() -> F) -> T {
    in_time(async {
        loop {
            if let Some(found) = find().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

async fn node(role: NodeRole, name: &str, join: &[Multiaddr]) -> Node {
    let config = NodeConfig {
        name: name.to_owned(),
        listen: vec![parse_addr("/ip4/127.0.0.1/tcp/0").unwrap()],
        join: join.to_vec(),
        nthreads: 1,
        ..NodeConfig::new(role)
    };
    in_time(Node::start(config)).await.unwrap()
}

async fn connect(addrs: &[Multiaddr]) -> Cluster {
    let options = ConnectOptions { insecure: true, ..ConnectOptions::default() };
    in_time(Cluster::connect_any(addrs, options)).await.unwrap()
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

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_share_locks_semaphores_and_events() {
    let scheduler = node(NodeRole::Scheduler, "scheduler", &[]).await;
    let [a, b] = [connect(&scheduler.listen_addrs()).await, connect(&scheduler.listen_addrs()).await];

    let held = in_time(a.lock("l").acquire()).await.unwrap();
    assert!(held.is_held() && in_time(b.lock("l").is_locked()).await.unwrap());
    assert!(in_time(b.lock("l").try_acquire()).await.unwrap().is_none());
    assert!(in_time(b.lock("l").acquire_timeout(Duration::from_millis(100))).await.unwrap().is_none());
    let waiting = tokio::spawn({
        let lock = b.lock("l");
        async move { lock.acquire().await }
    });
    let token = held.token();
    // Dropped, and so given back.
    drop(held);
    let next = in_time(waiting).await.unwrap().unwrap();
    assert!(next.token() > token);
    assert!(in_time(next.release()).await.unwrap());
    // One who waits no more is in nobody's way.
    let held = in_time(a.lock("l").acquire()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), b.lock("l").acquire()).await.is_err());
    in_time(held.release()).await.unwrap();
    drop(in_time(a.lock("l").acquire()).await.unwrap());

    let three = b.semaphore("s", 3);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(in_time(a.semaphore("s", 3).acquire()).await.unwrap());
    }
    assert_eq!(in_time(three.held()).await.unwrap(), 3);
    assert!(in_time(three.try_acquire()).await.unwrap().is_none());
    let differs = in_time(b.semaphore("s", 2).acquire()).await.unwrap_err();
    assert!(matches!(differs, CoordinationError::Refused(Refused::LimitDiffers { limit: 3 })), "{differs}");
    held.pop();
    drop(in_time(three.acquire()).await.unwrap());

    let waiting = tokio::spawn({
        let event = b.event("e");
        async move { event.wait().await }
    });
    assert!(!in_time(a.event("e").wait_timeout(Duration::from_millis(50))).await.unwrap());
    in_time(a.event("e").set()).await.unwrap();
    in_time(waiting).await.unwrap().unwrap();
    assert!(in_time(b.event("e").is_set()).await.unwrap());
    in_time(b.event("e").clear()).await.unwrap();
    assert!(!in_time(a.event("e").is_set()).await.unwrap());

    // Who leaves gives everything back at once, long before its leases are over.
    let guard = in_time(a.lock("left").acquire()).await.unwrap();
    let closed = tokio::spawn(async move {
        guard.lost().await;
        guard.is_held()
    });
    drop(held);
    in_time(a.shutdown()).await;
    in_time(b.lock("left").acquire()).await.unwrap();
    assert!(!in_time(closed).await.unwrap());
    in_time(b.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_share_queues_variables_barriers_metadata_and_topics() {
    let scheduler = node(NodeRole::Scheduler, "scheduler", &[]).await;
    let [a, b] = [connect(&scheduler.listen_addrs()).await, connect(&scheduler.listen_addrs()).await];

    let [put, got] = [a.queue::<(u64, String)>("q", 2), b.queue("q", 2)];
    for number in 0..2 {
        in_time(put.put(&(number, "x".to_owned()))).await.unwrap();
    }
    assert!(!in_time(put.try_put(&(2, "y".to_owned()))).await.unwrap());
    let waiting = tokio::spawn(async move { put.put(&(2, "y".to_owned())).await });
    assert_eq!(in_time(got.get()).await.unwrap(), (0, "x".to_owned()));
    in_time(waiting).await.unwrap().unwrap();
    assert_eq!(in_time(got.len()).await.unwrap(), 2);
    assert_eq!(in_time(got.try_get()).await.unwrap().map(|(number, _)| number), Some(1));
    assert_eq!(in_time(got.clear()).await.unwrap(), 1);
    assert_eq!(in_time(got.get_timeout(Duration::from_millis(50))).await.unwrap(), None);
    let large = a.queue::<Vec<u8>>("large", 0);
    in_time(large.put(&vec![7; 1_000_000])).await.unwrap();
    assert_eq!(in_time(b.queue::<Vec<u8>>("large", 0).get()).await.unwrap().len(), 1_000_000);
    let refused = in_time(large.put(&vec![7; 1_100_000])).await.unwrap_err();
    assert!(matches!(refused, CoordinationError::Refused(Refused::TooLarge { .. })), "{refused}");

    let waiting = tokio::spawn({
        let variable = b.variable::<f64>("v");
        async move { variable.get().await }
    });
    in_time(a.variable("v").set(&1.5)).await.unwrap();
    assert_eq!(in_time(waiting).await.unwrap().unwrap(), 1.5);
    assert!(in_time(b.variable::<f64>("v").delete()).await.unwrap());
    assert_eq!(in_time(a.variable::<f64>("v").try_get()).await.unwrap(), None);

    let other = tokio::spawn({
        let barrier = b.barrier("b", 2);
        async move { barrier.wait().await }
    });
    let here: Passed = in_time(a.barrier("b", 2).wait()).await.unwrap();
    let there = in_time(other).await.unwrap().unwrap();
    assert_eq!((here.generation, BTreeSet::from([here.index, there.index])), (there.generation, [0, 1].into()));
    assert_eq!(in_time(a.barrier("b", 2).wait_timeout(Duration::from_millis(50))).await.unwrap(), None);

    let [ours, theirs] = [a.metadata(), b.metadata()];
    in_time(ours.set("run", &json!({"rate": 0.5, "files": ["a", "b"], "by": {"name": "x"}}))).await.unwrap();
    in_time(ours.set(["run", "by", "host.name"], "h")).await.unwrap();
    assert_eq!(in_time(theirs.get::<f64>("run.rate")).await.unwrap(), Some(0.5));
    let by = in_time(theirs.get::<serde_json::Value>("run.by")).await.unwrap();
    assert_eq!(by, Some(json!({"name": "x", "host.name": "h"})));
    assert!(in_time(theirs.delete("run.by")).await.unwrap());
    let all = in_time(ours.get::<serde_json::Value>("")).await.unwrap();
    assert_eq!(all, Some(json!({"run": {"rate": 0.5, "files": ["a", "b"]}})));
    let wrong = in_time(ours.get::<u64>("run.files")).await.unwrap_err();
    assert!(matches!(wrong, CoordinationError::Json(_)), "{wrong}");
    assert_eq!(in_time(ours.get::<u64>("gone")).await.unwrap(), None);

    in_time(a.log_event("steps", &"before")).await.unwrap();
    let mut stream = Box::pin(in_time(b.subscribe("steps")).await.unwrap().into_stream());
    let from_start = in_time(b.subscribe_after("steps", 0)).await.unwrap();
    for number in 1..=300 {
        in_time(a.log_event("steps", &json!({"n": number}))).await.unwrap();
    }
    for number in 1..=300 {
        let event = in_time(stream.next()).await.unwrap().unwrap();
        assert_eq!((event.number, &event.value), (number + 1, &json!({"n": number})));
    }
    let mut from_start = from_start;
    assert_eq!(in_time(from_start.next()).await.unwrap().value, "before");
    let events = in_time(b.events("steps")).await.unwrap();
    assert_eq!((events.len(), events[300].number), (301, 301));
    assert_eq!(in_time(b.topics()).await.unwrap(), ["steps"]);
    assert!(in_time(b.events("none")).await.unwrap().is_empty());
    in_time(a.shutdown()).await;
    in_time(b.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_coordinate_and_one_that_waits_leaves_its_slot_to_the_one_it_waits_for() {
    let scheduler = node(NodeRole::Scheduler, "scheduler", &[]).await;
    // With one slot.
    let _worker = node(NodeRole::Worker, "worker", &scheduler.listen_addrs()).await;
    let cluster = connect(&scheduler.listen_addrs()).await;
    let taken = cluster.submit(take::task("between".to_owned()));
    let given = cluster.submit(give::task("between".to_owned(), 7));
    assert_eq!(in_time(taken.result()).await.unwrap(), 7);
    in_time(given.result()).await.unwrap();

    let counting = cluster.map((0..4).map(|_| count_up::task("counting".to_owned(), 5)));
    let tokens = in_time(cluster.gather(&counting)).await.unwrap();
    assert_eq!(BTreeSet::from_iter(tokens).len(), 4);
    assert_eq!(in_time(cluster.variable::<u64>("count").get()).await.unwrap(), 20);
    in_time(cluster.shutdown()).await;
}

/// Where the process that holds the lock finds the cluster.
const HOLDER_JOINS: &str = "STARLING_TEST_HOLDER_JOINS";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "another test runs this in a process of its own, and kills it"]
async fn holder_that_is_killed() {
    let addr = std::env::var(HOLDER_JOINS).unwrap();
    let cluster = connect(&[parse_addr(&addr).unwrap()]).await;
    let guard = cluster.lock("l").lease(Duration::from_secs(2)).acquire().await.unwrap();
    println!("\nholds {}", guard.token());
    guard.lost().await;
    panic!("the lease of a holder that lives was lost");
}

/// Killed at the latest when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_holder_is_killed_goes_to_the_next_with_a_greater_token() {
    let scheduler = node(NodeRole::Scheduler, "scheduler", &[]).await;
    let cluster = connect(&scheduler.listen_addrs()).await;
    let mut holder = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holder_that_is_killed", "--ignored", "--nocapture"])
            .env(HOLDER_JOINS, scheduler.listen_addrs()[0].to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let lines = BufReader::new(holder.0.stdout.take().unwrap()).lines();
    let held = tokio::task::spawn_blocking(move || {
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("holds ")?.parse::<u64>().ok())
    });
    let token = in_time(held).await.unwrap().expect("the holder says that it holds the lock");
    assert!(in_time(cluster.lock("l").try_acquire()).await.unwrap().is_none());
    holder.0.kill().unwrap();
    let next = in_time(cluster.lock("l").acquire()).await.unwrap();
    assert!(next.token() > token);
    in_time(cluster.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_at_the_node_that_takes_the_scheduler_over() {
    let mut nodes = three().await;
    let [a, b] = [connect(&nodes[1].listen_addrs()).await, connect(&nodes[2].listen_addrs()).await];
    let guard = in_time(a.lock("l").acquire()).await.unwrap();
    let lease = in_time(a.semaphore("s", 1).acquire()).await.unwrap();
    let queue = a.queue::<u64>("q", 3);
    for number in 0..3 {
        in_time(queue.put(&number)).await.unwrap();
    }
    in_time(a.variable("v").set(&"kept".to_owned())).await.unwrap();
    in_time(a.event("e").set()).await.unwrap();
    in_time(a.metadata().set("x.y", &1)).await.unwrap();
    in_time(a.log_event("t", &1)).await.unwrap();
    let mut events = in_time(b.subscribe("t")).await.unwrap();
    // These wait while the scheduler changes.
    let next_holder = tokio::spawn({
        let lock = b.lock("l");
        async move { lock.acquire().await }
    });
    let full = tokio::spawn({
        let queue = queue.clone();
        async move { queue.put(&3).await }
    });
    let heard = tokio::spawn(async move { events.next().await });
    let at_barrier = tokio::spawn({
        let barrier = b.barrier("b", 2);
        async move { barrier.wait().await }
    });

    in_time(nodes.remove(0).shutdown()).await;
    assert_eq!(in_time(b.variable::<String>("v").get()).await.unwrap(), "kept");
    assert!(in_time(b.event("e").is_set()).await.unwrap());
    assert_eq!(in_time(b.metadata().get::<u64>("x.y")).await.unwrap(), Some(1));
    assert_eq!(in_time(b.semaphore("s", 1).held()).await.unwrap(), 1);
    assert!(guard.is_held() && lease.is_held() && !next_holder.is_finished() && !full.is_finished());
    let token = guard.token();
    assert!(in_time(guard.release()).await.unwrap());
    assert!(in_time(next_holder).await.unwrap().unwrap().token() > token);
    for number in 0..4 {
        assert_eq!(in_time(b.queue::<u64>("q", 3).get()).await.unwrap(), number);
    }
    in_time(full).await.unwrap().unwrap();
    assert_eq!(in_time(a.log_event("t", &2)).await.unwrap(), 2);
    assert_eq!(in_time(heard).await.unwrap().unwrap().value, 2);
    in_time(a.barrier("b", 2).wait()).await.unwrap();
    in_time(at_barrier).await.unwrap().unwrap();
    assert!(in_time(lease.release()).await.unwrap());
    in_time(a.shutdown()).await;
    in_time(b.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_while_the_scheduler_is_lost_is_got_once() {
    const VALUES: u64 = 60;
    let mut nodes = three().await;
    let [a, b] = [connect(&nodes[1].listen_addrs()).await, connect(&nodes[2].listen_addrs()).await];
    let putting: Vec<_> = (0..VALUES)
        .map(|number| {
            let queue = a.queue::<u64>("q", 0);
            // Not all in the same moment, so that some are lost at each step.
            let later = Duration::from_millis(number);
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                queue.put(&number).await
            })
        })
        .collect();
    let getting: Vec<_> = (0..VALUES)
        .map(|_| {
            let queue = b.queue::<u64>("q", 0);
            tokio::spawn(async move { queue.get().await })
        })
        .collect();
    in_time(nodes.remove(0).shutdown()).await;
    for put in putting {
        in_time(put).await.unwrap().unwrap();
    }
    let mut got = BTreeSet::new();
    for value in getting {
        assert!(got.insert(in_time(value).await.unwrap().unwrap()), "a value twice");
    }
    assert_eq!(got, (0..VALUES).collect());
    assert!(in_time(b.queue::<u64>("q", 0).is_empty()).await.unwrap());
    in_time(a.shutdown()).await;
    in_time(b.shutdown()).await;
}
