//! What a node keeps: crashes, damage, full disks.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod common;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Net, config, id, jobs, until};
use starling_core::ids::{JobId, Term};
use starling_core::ledger::{Entry, Kept};
use starling_core::wire::KeptName;
use starling_quorum::{Disk, Memory, ProposeError, Quorum, QuorumConfig, QuorumError};
use tokio::time::sleep;

/// Starts node 1 in this directory, when what was there before has let go of it.
async fn start(net: &Net, path: &Path) -> Result<Quorum, QuorumError> {
    for _ in 0..1_000 {
        let config = QuorumConfig { data: Some(path.to_owned()), ..config(1) };
        match Quorum::start(config, net.port(1)).await {
            Err(QuorumError::InUse { .. }) => sleep(Duration::from_millis(1)).await,
            other => return other,
        }
    }
    panic!("the directory stays in use");
}

/// A founder in a directory that has proposed a few things and was dropped as it was.
async fn crashed(path: &Path) {
    let net = Net::default();
    let node = start(&net, path).await.unwrap();
    node.found().await.unwrap();
    for below in [10, 20, 30] {
        node.propose(jobs(below)).await.unwrap();
    }
}

async fn restarted(path: &Path) -> Result<Quorum, QuorumError> {
    let node = start(&Net::default(), path).await?;
    until(&node, |view| view.is_leader).await;
    Ok(node)
}

/// The error says which file and what to do.
fn assert_damaged(started: Result<Quorum, QuorumError>, file: &str) {
    let Err(error) = started else { panic!("it starts although {file} is damaged") };
    let text = error.to_string();
    assert!(matches!(&error, QuorumError::Damaged { place, .. } if place.ends_with(file)), "{text}");
    assert!(text.contains("--data-dir") && text.contains(file), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_node_starts_again_with_all_it_has_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    crashed(folder.path()).await;
    for term in 2..5 {
        let node = restarted(folder.path()).await.unwrap();
        assert_eq!((node.ledger().jobs_below, node.still_leads()), (JobId(30), Some(Term(term))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_has_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let net = Net::default();
    let first = start(&net, folder.path()).await.unwrap();
    let config = QuorumConfig { data: Some(folder.path().to_owned()), ..config(2) };
    let second = Quorum::start(config, net.port(2)).await.map(|_| ());
    let Err(error @ QuorumError::InUse { .. }) = second else { panic!("{second:?}") };
    assert!(error.to_string().contains("in use by another process"), "{error}");
    first.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_torn_record_at_the_end_that_was_never_acknowledged_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    crashed(folder.path()).await;
    restarted(folder.path()).await.unwrap().shutdown().await;
    let path = folder.path().join("log");
    for torn in [&[1, 2, 3][..], &[200, 0, 0, 0, 1, 2, 3, 4, 9], &[0; 40]] {
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], torn].concat()).unwrap();
        let node = restarted(folder.path()).await.unwrap();
        assert_eq!(node.ledger().jobs_below, JobId(30));
        node.propose(jobs(30)).await.unwrap();
        node.shutdown().await;
        // What was written after the cut is whole.
        restarted(folder.path()).await.unwrap().shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lacks_what_was_acknowledged_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    crashed(folder.path()).await;
    drop(restarted(folder.path()).await.unwrap());
    sleep(Duration::from_millis(50)).await;
    let path = folder.path().join("log");
    let whole = fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    let cuts = [whole.len() - 1, whole.len() / 2, 3, 0].map(|len| whole[..len].to_vec());
    for bad in cuts.into_iter().chain([changed]) {
        fs::write(&path, &bad).unwrap();
        assert_damaged(start(&Net::default(), folder.path()).await, "log");
        assert_eq!(fs::read(&path).unwrap(), bad, "the evidence stays");
    }
    fs::remove_file(&path).unwrap();
    assert_damaged(start(&Net::default(), folder.path()).await, "log");
    fs::write(&path, whole).unwrap();
    assert_eq!(restarted(folder.path()).await.unwrap().ledger().jobs_below, JobId(30));
}

#[tokio::test(start_paused = true)]
async fn a_vote_that_is_damaged_or_missing_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    crashed(folder.path()).await;
    let path = folder.path().join("vote");
    let _ = restarted(folder.path()).await.unwrap().shutdown().await;
    let mut changed = fs::read(&path).unwrap();
    changed[9] ^= 1;
    fs::write(&path, changed).unwrap();
    assert_damaged(start(&Net::default(), folder.path()).await, "vote");
    fs::remove_file(&path).unwrap();
    assert_damaged(start(&Net::default(), folder.path()).await, "vote");
}

#[tokio::test(start_paused = true)]
async fn files_of_another_node_are_left_alone() {
    let (net, disk) = (Net::default(), Memory::new());
    net.start(1, Box::new(disk.clone())).await.unwrap().shutdown().await;
    let started = net.start(2, Box::new(disk)).await;
    assert!(matches!(started.err(), Some(QuorumError::OtherNode { node, .. }) if node == id(1)));
}

/// An entry of about this many bytes.
fn large(name: &str, bytes: usize) -> Entry {
    Entry::Keep(Arc::new(Kept {
        name: KeptName::DataSet(name.to_owned()),
        job: JobId(1),
        label: "x".repeat(bytes),
        tasks: Vec::new(),
        values: Vec::new(),
        wanted: Vec::new(),
    }))
}

#[tokio::test(start_paused = true)]
async fn a_long_log_becomes_a_snapshot_from_which_nodes_start_and_others_catch_up() {
    let folder = tempfile::tempdir().unwrap();
    let net = Net::default();
    let node = start(&net, folder.path()).await.unwrap();
    net.add(1, node.clone());
    node.found().await.unwrap();
    for round in 0..60 {
        node.propose(large("same", 300_000 + round)).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(20)).await;
    let size = |name| fs::metadata(folder.path().join(name)).map_or(0, |meta| meta.len());
    assert!(size("snapshot") > 300_000 && size("log") < 9 * 1024 * 1024, "{} {}", size("snapshot"), size("log"));
    let ledger = node.ledger();
    node.shutdown().await;
    net.kill(1);

    let node = restarted(folder.path()).await.unwrap();
    assert_eq!(node.ledger(), ledger);
    node.shutdown().await;

    let node = start(&net, folder.path()).await.unwrap();
    net.add(1, node.clone());
    let second = net.start(2, Box::new(Memory::new())).await.unwrap();
    net.tell();
    net.until(2, |view| view.learners == [id(2)]).await;
    let mut applied = second.applied();
    applied.wait_for(|_| second.ledger() == ledger).await.unwrap();
    drop(applied);
    node.shutdown().await;

    fs::remove_file(folder.path().join("snapshot")).unwrap();
    assert_damaged(start(&Net::default(), folder.path()).await, "snapshot");
    fs::write(folder.path().join("snapshot"), b"something else").unwrap();
    assert_damaged(start(&Net::default(), folder.path()).await, "snapshot");
}

#[tokio::test(start_paused = true)]
async fn the_largest_entry_fits_and_a_larger_one_is_refused() {
    let net = Net::default();
    net.cluster(3).await;
    let fits = starling_core::ledger::ENTRY_BYTES_MAX - 200;
    net.node(1).propose(large("a", fits)).await.unwrap();
    let refused = net.node(1).propose(large("b", fits + 300)).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { bytes }) if bytes > fits), "{refused:?}");
    assert_eq!(net.node(1).ledger().kept.len(), 1);
}

/// A disk that takes so many writes more, of the next one a half, and then none.
struct Filling(Memory, Arc<AtomicUsize>);

impl Filling {
    fn take(&self) -> io::Result<()> {
        let left = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

impl Disk for Filling {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.read(name)
    }

    fn replace(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.take()?;
        self.0.replace(name, content)
    }

    fn append(&mut self, name: &str, more: &[u8]) -> io::Result<()> {
        if let Err(error) = self.take() {
            self.0.append(name, &more[..more.len() / 2])?;
            return Err(error);
        }
        self.0.append(name, more)
    }

    fn cut(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.take()?;
        self.0.cut(name, len)
    }

    fn place(&self, name: &str) -> String {
        format!("/full/{name}")
    }

    fn is_fast(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_is_full_stops_says_so_and_another_leads_with_all_that_was_agreed_on() {
    let net = Net::default();
    let (disk, room) = (Memory::new(), Arc::new(AtomicUsize::new(usize::MAX)));
    let full = net.start(1, Box::new(Filling(disk.clone(), Arc::clone(&room)))).await.unwrap();
    full.found().await.unwrap();
    for number in 2..=3 {
        net.start(number, Box::new(Memory::new())).await.unwrap();
    }
    net.tell();
    net.until(2, |view| view.voters.len() == 3).await;
    sleep(Duration::from_secs(1)).await;
    full.propose(jobs(50)).await.unwrap();
    room.store(0, Ordering::SeqCst);
    assert_eq!(full.propose(jobs(60)).await, Err(ProposeError::Closed));
    let view = until(&full, |view| view.problem.is_some()).await;
    let problem = view.problem.clone().unwrap();
    assert!(problem.contains("/full") && problem.contains("neither votes nor leads"), "{problem}");
    assert_eq!((view.is_leader, view.has_quorum, full.still_leads()), (false, false, None));

    let next = net.until_one_leads(&[2, 3]).await;
    assert!(net.node(next).ledger().jobs_below >= JobId(50));

    // With room again, the node starts on what the full disk has kept, torn end and all.
    net.kill(1);
    drop(full);
    sleep(Duration::from_millis(1)).await;
    let again = net.start(1, Box::new(disk)).await.unwrap();
    net.node(next).propose(jobs(70)).await.unwrap();
    let mut applied = again.applied();
    applied.wait_for(|_| again.ledger().jobs_below == JobId(70)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_founder_without_room_says_so() {
    let net = Net::default();
    for room in 0..6 {
        let disk = Filling(Memory::new(), Arc::new(AtomicUsize::new(room)));
        match net.start(1, Box::new(disk)).await {
            Err(error) => assert!(matches!(&error, QuorumError::Io { .. }), "{error}"),
            Ok(node) => {
                let error = node.found().await.expect_err("it has no room");
                let told = matches!(error, QuorumError::Io { .. } | QuorumError::Stopped(_));
                assert!(told && error.to_string().contains("/full"), "room for {room}: {error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_of_another_cluster_is_left_alone_and_both_say_what_to_do() {
    let net = Net::default();
    let stranger = net.start(2, Box::new(Memory::new())).await.unwrap();
    stranger.found().await.unwrap();
    stranger.propose(jobs(5)).await.unwrap();
    net.start(1, Box::new(Memory::new())).await.unwrap();
    net.node(1).found().await.unwrap();
    net.node(1).candidates(vec![(id(2), common::rank(2))]);
    let theirs = net.until(2, |view| view.problem.is_some()).await;
    let problem = theirs.problem.unwrap();
    assert!(problem.contains("belongs to another cluster") && problem.contains("--data-dir"), "{problem}");
    assert!(theirs.is_leader);
    let ours = net.until(1, |view| view.problem.is_some()).await;
    assert!(ours.problem.unwrap().contains("belongs to another cluster") && ours.is_leader);
    assert_eq!((stranger.ledger().jobs_below, net.node(1).ledger().jobs_below), (JobId(5), JobId(0)));
}
