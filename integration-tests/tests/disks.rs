//! Data directories that are full, damaged, or in use: the node says so, and the others go on.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use starling::{Cluster, NodeStatus};
use starling_integration_tests::processes::{Equals, PATIENCE, Place, Process};
use starling_integration_tests::tasks;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn votes(count: usize) -> impl Fn(&NodeStatus) -> bool {
    move |status| status.leader.is_some() && status.quorum.as_ref().is_some_and(|quorum| quorum.voters.len() == count)
}

fn problem(status: &NodeStatus) -> &str {
    status.quorum.as_ref().and_then(|quorum| quorum.problem.as_deref()).unwrap_or("")
}

/// A job on what is left of the cluster.
async fn works(cluster: &Cluster) {
    let sums = cluster.map((0..40_i64).map(|x| tasks::add::task(x, 1)));
    let sums = tokio::time::timeout(PATIENCE, cluster.gather(&sums)).await.unwrap().unwrap();
    assert_eq!(sums, (1..=40).collect::<Vec<i64>>());
}

/// Starts a node that is to refuse, and gives what it says.
fn refused(command: &mut Command) -> String {
    let mut process = Process::start(command).unwrap();
    let status = process.wait().unwrap();
    let said = process.output();
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Nodes that each have their data directory on a small disk of their own, which nobody else sees and which ends with them.
struct SmallDisks;

impl SmallDisks {
    /// Whether there can be such disks here; says why not.
    fn can_be() -> bool {
        let folder = tempfile::tempdir().unwrap();
        let output = SmallDisks.mounted(folder.path(), "true").output();
        let problem = match &output {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("skipped: a file system cannot be mounted here: {problem}");
        false
    }

    fn mounted(&self, at: &Path, program: &str) -> Command {
        let mut command = Command::new("unshare");
        let script = "mkdir -p \"$0\" && mount -t tmpfs -o size=256k small \"$0\" && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(at).arg(program);
        command
    }
}

impl Place for SmallDisks {
    fn command(&self, _number: usize, data: &Path) -> Command {
        self.mounted(data, NODE)
    }

    fn listen(&self, _number: usize) -> String {
        "/ip4/127.0.0.1/tcp/0".to_owned()
    }
}

/// A path as a process sees it.
fn seen_by(process: &Process, path: &Path) -> PathBuf {
    Path::new("/proc").join(process.id().to_string()).join("root").join(path.strip_prefix("/").unwrap())
}

/// Writes until there is no more room.
fn fill(folder: &Path) {
    let mut file = std::fs::File::create(folder.join("filler")).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
    assert!(file.metadata().unwrap().len() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full_says_so_and_another_takes_over() {
    if !SmallDisks::can_be() {
        return;
    }
    let mut equals = Equals::start_at(SmallDisks, 3).unwrap();
    let before = equals.until(2, votes(3)).await.unwrap();
    let leader = equals.leader(2).await.unwrap();
    let other = (leader + 1) % 3;
    let cluster = equals.connect().await.unwrap();
    let slow = cluster.map((0..150).map(|value| tasks::slow::task(20_u64, value)));
    slow[3].wait().await.unwrap();

    let process = equals.process(leader).unwrap();
    let data = seen_by(process, &equals.data_dir(leader));
    assert!(data.join("quorum/log").exists());
    fill(&data);
    // One more node that may vote: the leader's log is to remember it.
    equals.nodes.push(None);
    equals.start_one(3).unwrap();

    let after = equals.until(other, |status| status.leader.is_some() && status.leader != before.leader).await.unwrap();
    assert!(after.term > before.term);
    let seen = equals.until(leader, |status| !problem(status).is_empty()).await.unwrap();
    assert_ne!(seen.leader, Some(seen.node));
    let place = equals.data_dir(leader).join("quorum");
    assert!(problem(&seen).contains(place.to_str().unwrap()) && problem(&seen).contains("No space left"), "{seen:?}");
    let results = tokio::time::timeout(PATIENCE, cluster.gather(&slow)).await.unwrap().unwrap();
    assert_eq!(results, (0..150).collect::<Vec<i64>>());
    // It still works for the others.
    cluster.wait_for_workers(4).await.unwrap();
    works(&cluster).await;
    for number in 0..4 {
        let said = equals.process(number).unwrap().output();
        assert!(!said.contains("panicked"), "node {number}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_is_damaged_names_the_file_and_does_not_start_while_the_others_go_on() {
    let mut equals = Equals::start(NODE, 3).unwrap();
    equals.until(2, votes(3)).await.unwrap();
    let leader = equals.leader(2).await.unwrap();
    let (down, other) = ((leader + 1) % 3, (leader + 2) % 3);
    equals.kill(down).unwrap();
    let log = equals.data_dir(down).join("quorum/log");
    let whole = std::fs::read(&log).unwrap();
    let changed_in_the_middle = {
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 0x10;
        changed
    };
    for damaged in [&whole[..whole.len() / 2], &whole[..whole.len() - 3], &changed_in_the_middle, &[]] {
        std::fs::write(&log, damaged).unwrap();
        let said = refused(&mut equals.command(down));
        assert!(said.contains(&format!("{} is damaged", log.display())), "{said}");
        assert!(
            said.contains("Restore the directory, or start the node as a new one with another --data-dir"),
            "{said}"
        );
        assert_eq!(std::fs::read(&log).unwrap(), damaged, "it was left alone");
    }
    std::fs::remove_file(&log).unwrap();
    let said = refused(&mut equals.command(down));
    assert!(said.contains(&format!("{} is damaged (it is missing)", log.display())), "{said}");
    let cluster = equals.connect().await.unwrap();
    works(&cluster).await;
    let before = equals.until(other, votes(3)).await.unwrap();

    // What a crash may leave is cut off: a part of a record that nobody was told of.
    std::fs::write(&log, [&whole[..], &[7; 5]].concat()).unwrap();
    equals.start_one(down).unwrap();
    let said = equals.process(down).unwrap().output();
    let cut = said.lines().find(|line| line.contains("cut off"));
    assert!(cut.is_some_and(|line| line.contains(log.to_str().unwrap())), "{said}");
    let after = equals.until(down, votes(3)).await.unwrap();
    assert_eq!((after.leader, after.term), (before.leader, before.term));
    cluster.wait_for_workers(3).await.unwrap();
    works(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_a_data_directory_that_is_in_use_is_refused_and_disturbs_nobody() {
    let equals = Equals::start(NODE, 3).unwrap();
    equals.until(0, votes(3)).await.unwrap();
    let cluster = equals.connect().await.unwrap();
    let before = equals.agreed(&[0, 1, 2]).await.unwrap();
    let used = equals.data_dir(1);
    for role in [&["--role", "auto"][..], &["--role", "scheduler"], &[]] {
        let mut command = Command::new(NODE);
        command.args(role).args(["--listen", "/ip4/127.0.0.1/tcp/0", "--name", "second", "--join"]);
        command.arg(&equals.nodes[0].as_ref().unwrap().addr).arg("--secret-file").arg(equals.secret_file());
        let said = refused(command.arg("--data-dir").arg(&used));
        let expected = format!("the data directory {} is in use by another node", used.display());
        assert!(said.contains(&expected), "{role:?}: {said}");
        works(&cluster).await;
    }
    assert_eq!(equals.agreed(&[0, 1, 2]).await.unwrap(), before);
    let members = equals.status(2).await.unwrap().members;
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).filter(|name| *name != "status").collect();
    assert!(["node-0", "node-1", "node-2"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(!names.contains(&"second"), "{names:?}");
    cluster.wait_for_workers(3).await.unwrap();
}
