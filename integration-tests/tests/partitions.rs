//! Clusters on hosts whose links are cut, one way or both, are slow, or lead to a node that stands still for a while.
//!
//! Each test needs root and iproute2; without them it says so and passes.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::FutureExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use starling::{Cluster, ConnectOptions, Future, NodeStatus};
use starling_integration_tests::hosts::{Hosts, OnHosts, Residence};
use starling_integration_tests::processes::{Equals, PATIENCE, number_of};
use starling_integration_tests::tasks;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Has so many nodes on the first hosts and `clients` more hosts, and runs the test on the first of those. The nodes have chosen
/// who votes.
fn on_hosts(nodes: usize, clients: usize, test: impl AsyncFnOnce(&Hosts, &Equals) + Send) {
    let Some(hosts) = Hosts::make(nodes + clients).unwrap() else { return };
    hosts
        .run_on(nodes, async || {
            let equals = Equals::start_at(OnHosts { hosts: hosts.clone(), binary: NODE }, nodes).unwrap();
            equals.until(nodes - 1, |status| voters(status).len() == 3).await.unwrap();
            test(&hosts, &equals).await;
        })
        .unwrap();
}

/// The numbers of the nodes that vote.
fn voters(status: &NodeStatus) -> Vec<usize> {
    let voters = status.quorum.iter().flat_map(|quorum| &quorum.voters);
    voters.filter_map(|voter| number_of(status, *voter).ok()).collect()
}

/// So many tasks that note that they run, and take so long.
fn noted(cluster: &Cluster, notes: &Path, count: i64, millis: u64) -> Vec<Future<i64>> {
    cluster.map((0..count).map(|value| tasks::noted::task(notes.to_owned(), millis, value)))
}

/// Waits for all results, which are the numbers from 0.
async fn gathered(cluster: &Cluster, futures: &[Future<i64>]) {
    let results = tokio::time::timeout(PATIENCE, cluster.gather(futures)).await.unwrap().unwrap();
    assert_eq!(results, (0..futures.len() as i64).collect::<Vec<_>>());
}

/// Checks that each of so many tasks has run, and tells how many ran again.
fn ran_again(notes: &Path, count: i64) -> usize {
    let runs = tasks::runs(notes).unwrap();
    assert!(runs.keys().copied().eq(0..count), "not all have run: {runs:?}");
    runs.values().sum::<usize>() - count as usize
}

/// Waits until it is so.
async fn until<T>(what: &str, mut is_so: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(so) = is_so().await {
            return so;
        }
        assert!(Instant::now() < deadline, "it did not come to that: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How a node sees the cluster, asked from some other host than this one.
async fn seen_from(residence: &Residence, equals: &Equals, number: usize) -> NodeStatus {
    let (addr, options) = (equals.nodes[number].as_ref().unwrap().addr.clone(), equals.options());
    residence.run(async move { Cluster::status_of(&addr, options).await }).await.unwrap().unwrap()
}

/// Waits until a node knows that nobody leads it.
async fn until_unled(residence: &Residence, equals: &Equals, number: usize) -> NodeStatus {
    until("a node without a quorum knows of no leader", async || {
        let status = seen_from(residence, equals, number).await;
        status.leader.is_none().then_some(status)
    })
    .await
}

fn problem(status: &NodeStatus) -> &str {
    status.quorum.as_ref().and_then(|quorum| quorum.problem.as_deref()).unwrap_or("")
}

/// Waits until all nodes have one leader in one term and are registered there.
async fn whole_again(equals: &Equals, cluster: &Cluster) -> usize {
    let all: Vec<usize> = (0..equals.nodes.len()).collect();
    let (leader, term) = until("all know each other and agree on who leads", async || {
        let agreed = equals.agreed(&all).await.unwrap();
        let seen = equals.status(agreed.0).await.unwrap();
        let nodes = seen.members.iter().filter(|member| member.name.starts_with("node-")).count();
        (nodes == all.len()).then_some(agreed)
    })
    .await;
    let all_work = until("all are registered once", async || (cluster.workers() == all.len()).then_some(()));
    all_work.await;
    assert_eq!(equals.agreed(&all).await.unwrap(), (leader, term));
    leader
}

#[test]
fn the_side_with_a_quorum_finishes_its_job_and_the_other_says_that_it_has_none_and_does_nothing_that_counts() {
    on_hosts(5, 2, async |hosts, equals| {
        let folder = tempfile::tempdir().unwrap();
        let (notes, far_notes) = (folder.path().join("near"), folder.path().join("far"));
        let (leader, term) = equals.agreed(&[0, 1, 2, 3, 4]).await.unwrap();
        let voters = voters(&equals.status(leader).await.unwrap());
        let silent = (0..5).find(|node| !voters.contains(node)).unwrap();
        let near: Vec<usize> = (0..5).filter(|node| *node != leader && *node != silent).collect();
        let cluster = equals.connect().await.unwrap();
        let far = hosts.residence(6).unwrap();
        let far_cluster = {
            let (addr, options) = (equals.nodes[silent].as_ref().unwrap().addr.clone(), equals.options());
            far.run(async move { Cluster::connect_with(&addr, options).await }).await.unwrap().unwrap()
        };

        let job = noted(&cluster, &notes, 300, 20);
        job[3].wait().await.unwrap();
        hosts.split(&[leader, silent, 6]).unwrap();
        let cut = Instant::now();
        let status = until_unled(&far, equals, leader).await;
        assert!(problem(&status).contains("no quorum: 1 of 3 voters"), "{status:?}");
        until_unled(&far, equals, silent).await;
        let far_job = noted(&far_cluster, &far_notes, 20, 5);

        let after = equals.until(near[0], |status| status.leader.is_some()).await.unwrap();
        eprintln!("another leads {:?} after the cut", cut.elapsed());
        assert!(after.term.unwrap() > term && near.contains(&equals.leader(near[0]).await.unwrap()));
        gathered(&cluster, &job).await;
        eprintln!("the job is finished {:?} after the cut; {} ran again", cut.elapsed(), ran_again(&notes, 300));
        for future in &far_job {
            assert!(future.result().now_or_never().is_none(), "a result without a quorum");
        }
        assert_eq!(tasks::runs(&far_notes).unwrap(), BTreeMap::new());
        for node in [leader, silent] {
            assert_eq!(seen_from(&far, equals, node).await.leader, None);
        }

        hosts.heal().unwrap();
        let healed = Instant::now();
        whole_again(equals, &cluster).await;
        eprintln!("all are together {:?} after the cut was healed", healed.elapsed());
        gathered(&far_cluster, &far_job).await;
        assert_eq!(ran_again(&far_notes, 20), 0);
        // Both have the whole cluster.
        gathered(&cluster, &noted(&cluster, &folder.path().join("last"), 40, 1)).await;
        // A cut is nothing that somebody has to wake up for.
        for node in 0..5 {
            let said = equals.process(node).unwrap().output();
            assert!(!said.contains("ERROR") && !said.contains("panicked"), "node {node}: {said}");
        }
    });
}

/// Cuts one direction of all of the leader's links.
fn a_leader_with_a_one_way_link(name: &str, cut: fn(&Hosts, usize, usize)) {
    on_hosts(3, 1, async |hosts, equals| {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("notes");
        let (leader, term) = equals.agreed(&[0, 1, 2]).await.unwrap();
        let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
        let cluster = equals.connect().await.unwrap();
        let job = noted(&cluster, &notes, 200, 20);
        job[3].wait().await.unwrap();
        let begun = Instant::now();
        (0..4).filter(|host| *host != leader).for_each(|host| cut(hosts, leader, host));

        let is_another = |status: &NodeStatus| status.leader.is_some() && status.term.is_some_and(|now| now > term);
        equals.until(others[0], is_another).await.unwrap();
        eprintln!("{name}: another leads {:?} after the cut", begun.elapsed());
        gathered(&cluster, &job).await;
        eprintln!("{name}: the job is finished {:?} after it; {} ran again", begun.elapsed(), ran_again(&notes, 200));
        let (now, _) = equals.agreed(&others).await.unwrap();
        assert!(others.contains(&now));
        // Asked from its own host, which hears and is heard as little.
        let there = hosts.residence(leader).unwrap();
        until_unled(&there, equals, leader).await;

        hosts.heal().unwrap();
        let healed = Instant::now();
        whole_again(equals, &cluster).await;
        eprintln!("{name}: all are together {:?} after the cut was healed", healed.elapsed());
        gathered(&cluster, &noted(&cluster, &folder.path().join("last"), 40, 1)).await;
    });
}

#[test]
fn a_leader_that_hears_and_is_not_heard_is_followed_by_one_that_works() {
    a_leader_with_a_one_way_link("not heard", |hosts, leader, host| hosts.deafen(host, leader).unwrap());
}

#[test]
fn a_leader_that_is_heard_and_does_not_hear_is_followed_by_one_that_works() {
    a_leader_with_a_one_way_link("deaf", |hosts, leader, host| hosts.deafen(leader, host).unwrap());
}

#[test]
fn a_job_is_finished_although_the_link_to_a_worker_is_slow_and_loses_much() {
    on_hosts(3, 1, async |hosts, equals| {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("notes");
        let before = equals.agreed(&[0, 1, 2]).await.unwrap();
        let slow = (before.0 + 1) % 3;
        let cluster = equals.connect().await.unwrap();
        let way = match hosts.worsen(slow) {
            Ok(way) => way,
            Err(reason) => return eprintln!("skipped: a link cannot be made worse here: {reason}"),
        };
        let begun = Instant::now();
        let small = noted(&cluster, &notes, 100, 20);
        let at = |number: usize| format!("at-{number}");
        // Across the slow link, and back.
        let there = cluster.map((0..4_u8).map(|value| tasks::bytes::task(20_000_u64, value).resource(at(slow), 1.0)));
        let here =
            cluster.map((4..8_u8).map(|value| tasks::bytes::task(20_000_u64, value).resource(at(before.0), 1.0)));
        let sums = (0..4)
            .flat_map(|n| [slow, before.0].map(|on| tasks::sum_bytes::task(&there[n], &here[n]).resource(at(on), 1.0)));
        let sums = cluster.map(sums);
        gathered(&cluster, &small).await;
        let sums = tokio::time::timeout(PATIENCE, cluster.gather(&sums)).await.unwrap().unwrap();
        assert_eq!(sums, (0..8).map(|n| 20_000 * (2 * (n / 2) + 4)).collect::<Vec<u64>>());
        eprintln!("{way}: {:?}, {} ran again", begun.elapsed(), ran_again(&notes, 100));
        assert_eq!(equals.agreed(&[0, 1, 2]).await.unwrap(), before);
    });
}

#[test]
fn a_worker_that_stands_still_for_a_while_comes_back_with_its_data() {
    on_hosts(3, 1, async |_, equals| {
        let folder = tempfile::tempdir().unwrap();
        let (notes, own_notes) = (folder.path().join("notes"), folder.path().join("own"));
        let before = equals.agreed(&[0, 1, 2]).await.unwrap();
        let paused = (before.0 + 1) % 3;
        let cluster = equals.connect().await.unwrap();
        let parts = cluster.map((0..12_u8).map(|value| tasks::noted_bytes::task(notes.clone(), 40_000_u64, value)));
        let own = cluster.map((0..4_u8).map(|value| {
            tasks::noted_bytes::task(own_notes.clone(), 40_000_u64, value).resource(format!("at-{paused}"), 1.0)
        }));
        for future in parts.iter().chain(&own) {
            future.wait().await.unwrap();
        }
        let status = equals.status(paused).await.unwrap();
        let holders = async || {
            let held = cluster.who_has(&parts).await.unwrap();
            let numbers = held.iter().map(|(_, nodes, _)| nodes.iter().map(|node| number_of(&status, *node).unwrap()));
            numbers.map(Iterator::collect).collect::<Vec<Vec<usize>>>()
        };
        let first = holders().await;
        let was_there: Vec<bool> = first.iter().map(|nodes| *nodes == [paused]).collect();
        assert!(was_there.contains(&true) && was_there.contains(&false), "{first:?}");

        let process = Pid::from_raw(equals.process(paused).unwrap().id() as i32);
        kill(process, Signal::SIGSTOP).unwrap();
        let stopped = Instant::now();
        until("others compute what it had", async || {
            let held = holders().await;
            (held.len() == 12 && held.iter().flatten().all(|node| *node != paused)).then_some(())
        })
        .await;
        eprintln!("what others could compute was there again {:?} after the stop", stopped.elapsed());
        let why = cluster.explain(&own[0]).await.unwrap().to_string();
        assert!(why.contains(&format!("at-{paused}")), "{why}");
        kill(process, Signal::SIGCONT).unwrap();
        let continued = Instant::now();
        cluster.wait_for_workers(3).await.unwrap();

        // What nobody has is used.
        let sums = cluster.map((0..4).map(|n| tasks::sum_bytes::task(&own[n], &own[3 - n])));
        let sums = tokio::time::timeout(PATIENCE, cluster.gather(&sums)).await.unwrap().unwrap();
        assert_eq!(sums, [120_000; 4]);
        eprintln!("its data was used {:?} after it went on", continued.elapsed());
        assert_eq!(tasks::runs(&own_notes).unwrap(), (0..4).map(|value| (value, 1)).collect());
        // What others have computed meanwhile is dropped there.
        let last = holders().await;
        assert!(last.iter().flatten().all(|node| *node != paused), "{last:?}");
        let expected = was_there.iter().zip(0..).map(|(was_there, value)| (value, if *was_there { 2 } else { 1 }));
        assert_eq!(tasks::runs(&notes).unwrap(), expected.collect());
        let values = tokio::time::timeout(PATIENCE, cluster.gather(&parts)).await.unwrap().unwrap();
        for (value, bytes) in (0..12_u8).zip(&values) {
            assert!(bytes.len() == 40_000 && bytes.iter().all(|byte| *byte == value));
        }
        assert_eq!(equals.agreed(&[0, 1, 2]).await.unwrap(), before);
    });
}

#[test]
fn a_client_that_is_cut_off_from_the_scheduler_for_a_while_gets_its_results_and_nothing_runs_again() {
    on_hosts(3, 1, async |hosts, equals| {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("notes");
        let before = equals.agreed(&[0, 1, 2]).await.unwrap();
        let cluster = equals.connect().await.unwrap();
        let job = noted(&cluster, &notes, 240, 50);
        job[3].wait().await.unwrap();
        hosts.deafen(before.0, 3).unwrap();
        hosts.deafen(3, before.0).unwrap();
        // Four seconds of work and more.
        until("all have run", async || (tasks::runs(&notes).unwrap().len() == 240).then_some(())).await;
        hosts.heal().unwrap();
        let healed = Instant::now();
        gathered(&cluster, &job).await;
        eprintln!("all results were there {:?} after the cut was healed", healed.elapsed());
        assert_eq!(ran_again(&notes, 240), 0);
        gathered(&cluster, &noted(&cluster, &folder.path().join("last"), 40, 1)).await;
        assert_eq!(equals.agreed(&[0, 1, 2]).await.unwrap(), before);
    });
}

#[test]
fn a_client_that_was_taken_for_gone_comes_back_and_gets_its_results() {
    on_hosts(3, 2, async |hosts, equals| {
        let folder = tempfile::tempdir().unwrap();
        let notes = folder.path().join("notes");
        let before = equals.agreed(&[0, 1, 2]).await.unwrap();
        let away = hosts.residence(4).unwrap();
        let cluster = {
            let addr = equals.nodes[before.0].as_ref().unwrap().addr.clone();
            let options = ConnectOptions { name: Some("away".to_owned()), ..equals.options() };
            away.run(async move { Cluster::connect_with(&addr, options).await }).await.unwrap().unwrap()
        };
        cluster.wait_for_workers(3).await.unwrap();
        let job = noted(&cluster, &notes, 300, 20);
        job[3].wait().await.unwrap();
        let is_known = async || {
            let seen = equals.status(before.0).await.unwrap();
            seen.members.iter().any(|member| member.name == "away")
        };
        assert!(is_known().await);
        hosts.split(&[4]).unwrap();
        until("the client is taken for gone", async || (!is_known().await).then_some(())).await;
        // On its side of the cut it does not know how the job goes.
        let late = noted(&cluster, &folder.path().join("late"), 20, 1);
        hosts.heal().unwrap();
        let healed = Instant::now();
        gathered(&cluster, &job).await;
        gathered(&cluster, &late).await;
        eprintln!("all results were there {:?} after it; {} ran again", healed.elapsed(), ran_again(&notes, 300));
        assert_eq!(equals.agreed(&[0, 1, 2]).await.unwrap(), before);
    });
}
