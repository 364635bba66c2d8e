//! The client beyond submitting and gathering: waiting for some, running again, what is where, and kept outputs as arguments.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use starling::{
    Buffer, ClientError, Cluster, ConnectOptions, FailureCause, Future, FutureStatus, LocalOptions, Node, NodeConfig,
    NodeRole, ScatterOptions, Scope, as_completed, mesh, task, wait,
};
use starling_integration_tests::tasks;

/// The value, once the file is there.
#[task]
fn gated(gate: PathBuf, value: i64) -> anyhow::Result<i64> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !gate.try_exists()? {
        anyhow::ensure!(Instant::now() < deadline, "nobody opens {}", gate.display());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(value)
}

/// Writes a file once another is there.
#[task]
fn writes_once(gate: PathBuf, file: PathBuf) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !gate.try_exists()? {
        anyhow::ensure!(Instant::now() < deadline, "nobody opens {}", gate.display());
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(std::fs::write(file, "done")?)
}

/// Twice as much.
#[task]
fn doubled(number: u64) -> u64 {
    2 * number
}

/// How many bytes these have together.
#[task]
fn lengths(parts: &[Buffer]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// What a client can do, inside of a task.
#[task]
async fn uses_the_client() -> anyhow::Result<i64> {
    let cluster = Cluster::current()?;
    let squares = cluster.map((0..10_i64).map(tasks::square::task));
    let mut sum = 0;
    let mut ended = as_completed(squares);
    while let Some(square) = ended.next().await {
        sum += square.result().await?;
    }
    let batches = cluster.map_batched((0..10_i64).map(tasks::square::task), 4);
    sum += cluster.gather(&batches).await?.into_iter().flatten().sum::<i64>();
    let failed = cluster.submit(tasks::fail::task(1_u64));
    anyhow::ensure!(wait([&failed]).first_failure().await.done.len() == 1, "it has not failed");
    anyhow::ensure!(cluster.gather_ok([&failed]).await.is_empty(), "it did not fail");
    let values = cluster.scatter_many([1_i64, 2, 3]).await?;
    sum += cluster.submit(tasks::total::task(values.clone())).result().await?;
    let held: usize = cluster.has_what(Scope::Own).await?.values().map(Vec::len).sum();
    anyhow::ensure!(held >= values.len(), "it holds {held}");
    Ok(sum)
}

async fn cluster(workers: usize) -> Cluster {
    Cluster::local_with(LocalOptions { nthreads: 2, ..LocalOptions::new(workers) }).await.unwrap()
}

async fn in_time<T>(what: impl std::future::Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it ended in time")
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn open(gate: &Path) {
    std::fs::write(gate, "").unwrap();
}

fn stored(cluster: &Cluster) -> usize {
    cluster.nodes().iter().map(|node| node.store().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn futures_come_in_the_order_in_which_they_end_and_more_may_be_added() {
    let dir = tempfile::tempdir().unwrap();
    let gates = [dir.path().join("0"), dir.path().join("1")];
    let cluster = cluster(1).await;
    let futures = [0, 1].map(|at| cluster.submit(gated::task(gates[at].clone(), at as i64)));
    let mut ended = as_completed(futures.clone());
    assert!(futures.iter().all(|future| future.status() == FutureStatus::Pending && !future.is_done()));
    open(&gates[1]);
    assert_eq!(in_time(ended.next()).await.unwrap().task(), futures[1].task());
    let (added, failed) = (cluster.submit(tasks::add::task(1, 1)), cluster.submit(tasks::fail::task(7_u64)));
    ended.add(added.clone());
    assert_eq!(in_time(ended.next()).await.unwrap().task(), added.task());
    assert_eq!((ended.len(), ended.is_empty()), (1, false));
    open(&gates[0]);
    assert_eq!(in_time(ended.next()).await.unwrap().result().await.unwrap(), 0);
    assert!(ended.next().await.is_none());
    ended.add(added.clone());
    let mut results = std::pin::pin!(ended.with_results());
    assert_eq!(in_time(results.next()).await.unwrap().1.unwrap(), 2);
    assert!(in_time(failed.wait()).await.is_err());
    assert_eq!([added.status(), futures[0].status()], [FutureStatus::Finished; 2]);
    assert_eq!(failed.status(), FutureStatus::Error);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_all_the_first_the_first_failure_or_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let cluster = cluster(1).await;
    let late = cluster.submit(gated::task(gate.clone(), 1));
    let timed_out = wait([&late]).timeout(Duration::ZERO).await;
    assert_eq!((timed_out.done.len(), timed_out.not_done.len(), timed_out.timed_out), (0, 1, true));
    let early = cluster.submit(tasks::add::task(1, 1));
    let first = in_time(wait([&late, &early]).first_completed().into_future()).await;
    assert_eq!((first.done[0].task(), first.not_done[0].task()), (early.task(), late.task()));
    let failed = cluster.submit(tasks::sleep_then::task(60_000_u64, 1));
    failed.cancel();
    let first = in_time(wait([&late, &early, &failed]).first_failure().into_future()).await;
    assert_eq!((first.done.len(), first.not_done[0].task(), first.timed_out), (2, late.task(), false));
    assert_eq!(failed.status(), FutureStatus::Cancelled);
    open(&gate);
    let all = in_time(wait([&late, &early]).first_failure().into_future()).await;
    assert_eq!((all.done.len(), all.not_done.len()), (2, 0));
    assert_eq!(in_time(wait([&late, &early, &failed]).into_future()).await.done.len(), 3);
    assert!(wait(&Vec::<Future<i64>>::new()).await.done.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_kept_or_skipped_and_many_large_results_are_fetched_together() {
    let cluster = cluster(3).await;
    // Larger than what comes with a completion.
    let parts: Vec<Future<Buffer>> =
        cluster.map((0..300_u64).map(|number| tasks::bytes::task(20_000_u64, number as u8)));
    let twice = parts.iter().chain(&parts[..10]);
    let values = in_time(cluster.gather(twice)).await.unwrap();
    assert_eq!(values.len(), 310);
    assert!(values.iter().enumerate().all(|(at, bytes)| bytes.len() == 20_000 && bytes[0] == (at % 300) as u8));

    let mixed = [cluster.submit(tasks::fail::task(1_u64)), cluster.submit(doubled::task(4_u64))];
    let [failed, done] = &in_time(cluster.gather_all(&mixed)).await[..] else { panic!("another number") };
    assert!(matches!(failed, Err(ClientError::Failed(_))));
    assert_eq!(done, &Ok(8));
    assert_eq!(in_time(cluster.gather_ok(&mixed)).await, [8]);
    assert!(in_time(cluster.gather(&mixed)).await.is_err());
    assert_eq!(in_time(cluster.compute((0..5_u64).map(doubled::task))).await.unwrap(), [0, 2, 4, 6, 8]);
    let persisted = in_time(cluster.persist((0..5_u64).map(doubled::task))).await;
    assert_eq!(in_time(cluster.submit(doubled::task(&persisted[4])).result()).await.unwrap(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_tasks_run_again_with_what_they_need_and_the_same_futures() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(2).await;
    let other = Cluster::local(1).await.unwrap();
    let first = cluster.submit(tasks::fail_at_first::task(dir.path().join("tries"), 2_u64));
    let second = cluster.submit(doubled::task(&first));
    assert!(in_time(second.result()).await.is_err());
    assert_eq!(other.retry([&second]).unwrap_err(), ClientError::ForeignFuture(second.task()));
    cluster.retry([&second]).unwrap();
    // Once more in vain: the file says that it fails twice.
    assert!(in_time(second.result()).await.is_err());
    assert_eq!(second.status(), FutureStatus::Error);
    cluster.retry([&second]).unwrap();
    assert_eq!(in_time(second.result()).await.unwrap(), 6);
    // It was asked for by what needs it, and has its result too.
    assert_eq!(in_time(first.result()).await.unwrap(), 3);
    // What is done, and what could not be submitted, stays as it is.
    let unsent = cluster.submit(doubled::task(1_u64).timeout(Duration::ZERO));
    cluster.retry([&second, &unsent]).unwrap();
    assert_eq!((second.status(), unsent.status()), (FutureStatus::Finished, FutureStatus::Error));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fired_and_forgotten_runs_to_its_end_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, file, other) = (dir.path().join("gate"), dir.path().join("file"), dir.path().join("other"));
    let cluster = cluster(1).await;
    let fired = cluster.submit(writes_once::task(gate.clone(), file.clone()));
    let dropped = cluster.submit(writes_once::task(gate.clone(), other.clone()).priority(-1).workers(["nowhere"]));
    cluster.fire_and_forget(fired).unwrap();
    let failing = cluster.submit(tasks::fail::task(1_u64));
    cluster.fire_and_forget(failing).unwrap();
    drop(dropped);
    open(&gate);
    eventually("the file", || file.exists()).await;
    eventually("an empty store", || stored(&cluster) == 0).await;
    assert!(!other.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_scattered_in_turn_to_named_workers_and_to_all() {
    let cluster = cluster(3).await;
    let holders = async |futures: &[Future<Buffer>]| -> Vec<BTreeSet<_>> {
        let held = cluster.who_has(futures).await.unwrap();
        held.into_iter().map(|(_, nodes, _)| nodes.into_iter().collect()).collect()
    };
    let value = |byte: u8| Buffer::from(vec![byte; 1_000]);
    let many = in_time(cluster.scatter_many((0..30).map(value))).await.unwrap();
    let on = holders(&many).await;
    assert!(on.iter().all(|nodes| nodes.len() == 1));
    for node in &cluster.nodes()[1..] {
        assert_eq!(on.iter().filter(|nodes| nodes.contains(&node.id())).count(), 10);
    }
    assert_eq!(in_time(cluster.submit(lengths::task(many.clone())).result()).await.unwrap(), 30_000);
    assert_eq!(in_time(cluster.gather(&many)).await.unwrap()[29], value(29));

    let everywhere = in_time(cluster.scatter_with(value(1), ScatterOptions::new().broadcast())).await.unwrap();
    assert_eq!(holders(&[everywhere]).await[0].len(), 3);
    let two = in_time(cluster.scatter_with(value(1), ScatterOptions::new().copies(2))).await.unwrap();
    assert_eq!(holders(&[two]).await[0].len(), 2);
    let names = ScatterOptions::new().workers(["worker-0", "worker-2"]);
    let named = in_time(cluster.scatter_many_with((0..4).map(value), names.clone())).await.unwrap();
    let (zero, two) = (cluster.nodes()[1].id(), cluster.nodes()[3].id());
    let on = holders(&named).await;
    assert!(on.iter().all(|nodes| nodes.len() == 1) && on.iter().flatten().all(|node| [zero, two].contains(node)));
    let both = in_time(cluster.scatter_with(value(1), names.broadcast())).await.unwrap();
    assert_eq!(holders(&[both]).await[0], [zero, two].into());
    let nowhere = cluster.scatter_with(value(1), ScatterOptions::new().workers(["nowhere"])).await;
    assert!(matches!(nowhere, Err(ClientError::NoSuchWorker { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_calls_are_few_tasks_and_their_lists_are_arguments() {
    let cluster = cluster(2).await;
    let batches = cluster.map_batched((0..1_000_i64).map(tasks::square::task), 300);
    assert_eq!(batches.len(), 4);
    let lists = in_time(cluster.gather(&batches)).await.unwrap();
    assert!(lists.iter().flatten().copied().eq((0..1_000_i64).map(|x| x * x)));
    assert_eq!(
        in_time(cluster.submit(tasks::total::task(&batches[0])).result()).await.unwrap(),
        lists[0].iter().sum::<i64>()
    );
    // Futures may be arguments of the calls, and results may hold buffers.
    let one = cluster.submit(tasks::add::task(1, 0));
    let sums = cluster.map_batched((0..10_i64).map(|x| tasks::add::task(&one, x)), 5);
    assert_eq!(in_time(sums[1].result()).await.unwrap(), [6, 7, 8, 9, 10]);
    let buffers = cluster.map_batched((1..4_u8).map(|byte| tasks::bytes::task(u64::from(byte), byte)), 3);
    let buffers = in_time(buffers[0].result()).await.unwrap();
    assert_eq!(buffers, [vec![1], vec![2, 2], vec![3, 3, 3]].map(Buffer::from));
    let failed = cluster.map_batched((0..3_u64).map(tasks::fail::task), 2);
    let why = in_time(failed[0].result()).await.unwrap_err().to_string();
    assert!(why.contains("call 1 of 2, of ") && why.contains("record 0 is bad"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_what_and_who_does_what_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let cluster = cluster(2).await;
    let parts = cluster.map((0..4_u8).map(|byte| tasks::bytes::task(1_000_u64, byte)));
    in_time(cluster.gather(&parts)).await.unwrap();
    let held = cluster.has_what(Scope::Own).await.unwrap();
    assert_eq!((held.len(), held.values().map(Vec::len).sum::<usize>()), (2, 4));
    assert_eq!(held, cluster.has_what(Scope::All).await.unwrap());
    let sizes = cluster.nbytes(Scope::Own).await.unwrap();
    assert!(sizes.len() == 1 && sizes[0].name.ends_with("tasks::bytes") && sizes[0].outputs == 4, "{sizes:?}");
    assert!(sizes[0].nbytes >= 4_000);
    assert!(cluster.ncores().values().eq(&[2, 2]));

    let running = cluster.submit(gated::task(gate.clone(), 1));
    eventually("a task that is processed", || {
        futures::executor::block_on(cluster.processing(Scope::Own)).unwrap().values().any(|tasks| !tasks.is_empty())
    })
    .await;
    let processing = cluster.processing(Scope::All).await.unwrap();
    let tasks: Vec<_> = processing.values().flatten().collect();
    assert!(tasks.len() == 1 && tasks[0].0 == running.task() && tasks[0].1.ends_with("gated"), "{tasks:?}");
    let info = cluster.scheduler_info().await.unwrap();
    assert_eq!(info.workers.iter().map(|worker| worker.processing).sum::<u64>(), 1);
    assert_eq!(info.workers.iter().map(|worker| worker.outputs).sum::<u64>(), 4);
    assert!(info.jobs.iter().any(|job| job.job == cluster.job() && job.memory == 4));
    open(&gate);
    assert_eq!(in_time(running.result()).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_runs_once_on_every_worker_or_on_those_that_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(3).await;
    let file = dir.path().join("runs");
    let everywhere = in_time(cluster.run(tasks::noted::task(file.clone(), 0_u64, 5_i64))).await.unwrap();
    assert!(everywhere.keys().copied().collect::<BTreeSet<_>>() == cluster.nodes()[1..].iter().map(Node::id).collect());
    assert!(everywhere.values().all(|result| result == &Ok(5)));
    assert_eq!(tasks::runs(&file).unwrap()[&5], 3);
    let one = in_time(cluster.run_on(tasks::fail::task(1_u64), ["worker-1"])).await.unwrap();
    assert!(one.len() == 1 && matches!(one[&cluster.nodes()[2].id()], Err(ClientError::Failed(_))));
    let nowhere = cluster.run_on(tasks::fail::task(1_u64), ["nowhere"]).await;
    assert!(matches!(nowhere, Err(ClientError::NoSuchWorker { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_all_that_the_client_has_and_the_cluster_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let cluster = cluster(1).await;
    let done = cluster.map((0..4_u8).map(|byte| tasks::bytes::task(20_000_u64, byte)));
    in_time(cluster.gather(&done)).await.unwrap();
    let scattered = in_time(cluster.scatter(1_i64)).await.unwrap();
    let running = cluster.submit(gated::task(gate.clone(), 1));
    in_time(cluster.restart()).await.unwrap();
    assert!(done.iter().all(|future| future.status() == FutureStatus::Cancelled));
    let cancelled =
        |error: ClientError| matches!(error, ClientError::Failed(failure) if failure.cause == FailureCause::Cancelled);
    assert!(cancelled(in_time(running.result()).await.unwrap_err()));
    assert!(cancelled(in_time(cluster.submit(tasks::add::task(&scattered, 1)).result()).await.unwrap_err()));
    open(&gate);
    eventually("an empty store", || stored(&cluster) == 0).await;
    cluster.retry([&running]).unwrap();
    assert_eq!(running.status(), FutureStatus::Cancelled);
    drop((done, scattered, running));
    assert_eq!(in_time(cluster.submit(tasks::add::task(2, 2)).result()).await.unwrap(), 4);
}

/// A scheduler and two workers, which let everybody in.
async fn open_nodes() -> Vec<Node> {
    let loopback = vec![mesh::parse_addr("/ip4/127.0.0.1/tcp/0").unwrap()];
    let config = |role| NodeConfig { listen: loopback.clone(), nthreads: 1, ..NodeConfig::new(role) };
    let mut nodes = vec![Node::start(config(NodeRole::Scheduler)).await.unwrap()];
    let join = nodes[0].listen_addrs();
    for _ in 0..2 {
        nodes.push(Node::start(NodeConfig { join: join.clone(), ..config(NodeRole::Worker) }).await.unwrap());
    }
    nodes
}

async fn connect(nodes: &[Node]) -> Cluster {
    let options = ConnectOptions { insecure: true, ..ConnectOptions::default() };
    let cluster = Cluster::connect_any(&nodes[0].listen_addrs(), options).await.unwrap();
    cluster.wait_for_workers(nodes.len() - 1).await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_data_sets_and_detached_jobs_are_arguments_of_another_clients_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    let nodes = open_nodes().await;
    let first = connect(&nodes).await;
    let parts = first.map((0..4_u8).map(|byte| tasks::bytes::task(20_000_u64, byte)));
    in_time(first.publish("parts", &parts)).await.unwrap();
    let job = in_time(first.submit_detached(gated::task(gate.clone(), 7))).await.unwrap().job();
    first.shutdown().await;

    let second = connect(&nodes).await;
    let set: Vec<Future<Buffer>> = second.data_set("parts").await.unwrap();
    let total = second.submit(lengths::task(set.clone()));
    assert_eq!(in_time(total.result()).await.unwrap(), 80_000);
    let pair = second.submit(tasks::sum_bytes::task(&set[1], &set[3]));
    assert_eq!(in_time(pair.result()).await.unwrap(), 80_000);
    assert_eq!(in_time(second.gather(&set)).await.unwrap()[2], Buffer::from(vec![2; 20_000]));
    // It has not ended yet, and takes no place on a worker from what it waits for.
    let detached: Vec<Future<i64>> = second.detached(job).await.unwrap();
    let sums = second.map((0..3).map(|x| tasks::add::task(&detached[0], x)));
    open(&gate);
    assert_eq!(in_time(second.gather(&sums)).await.unwrap(), [7, 8, 9]);

    // One of another client's is no argument, and what is not kept any more is said to be so.
    let third = connect(&nodes).await;
    let foreign = third.submit(tasks::add::task(&detached[0], 1));
    assert_eq!(in_time(foreign.result()).await.unwrap_err(), ClientError::ForeignFuture(detached[0].task()));
    let late: Vec<Future<Buffer>> = third.data_set("parts").await.unwrap();
    in_time(second.unpublish("parts")).await.unwrap();
    let why = in_time(third.submit(lengths::task(late)).result()).await.unwrap_err().to_string();
    assert!(why.contains("is not to be had"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_the_same_client_inside() {
    let cluster = cluster(2).await;
    let sum = cluster.submit(uses_the_client::task());
    assert_eq!(in_time(sum.result()).await.unwrap(), 2 * 285 + 6);
}
