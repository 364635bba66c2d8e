//! The flight recorder: a real scheduler's record, read while it runs, after it was killed, and after it has ended.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use starling_integration_tests::processes::{PATIENCE, Processes};
use starling_integration_tests::tasks;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn replay(file: &Path, task: Option<&str>) -> Output {
    Command::new(NODE).arg("replay").arg(file).args(task).output().unwrap()
}

/// What a replay tells once it tells `text`.
fn told(file: &Path, task: Option<&str>, text: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = replay(file, task);
        let said = String::from_utf8(output.stdout).unwrap();
        if output.status.success() && said.contains(text) {
            return said;
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < deadline, "{text:?} was not told in:\n{said}\n{errors}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The text between the first `before` and what follows it up to `after`.
fn between<'a>(text: &'a str, before: &str, after: char) -> &'a str {
    text.split_once(before).unwrap().1.split_once(after).unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_tells_of_a_killed_worker_and_outlives_a_killed_scheduler() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events");
    let args = [OsStr::new("--record"), file.as_os_str()];
    let mut processes = Processes::start_with(NODE, 1, &args).unwrap();
    let cluster = processes.connect().await.unwrap();
    let slow = cluster.submit(tasks::slow::task(3_000_u64, 7)).await.unwrap();
    let failing = cluster.submit(tasks::fail::task(3_u64));

    let job = told(&file, None, "  job ");
    let task = format!("{}.0", between(&job, "  job ", ':'));
    told(&file, Some(&task), "-> processing on");
    processes.start_worker(&["--name", "the-other"]).unwrap();
    processes.workers[0].kill().unwrap();
    assert_eq!(slow.clone().result().await.unwrap(), 7);
    failing.clone().result().await.unwrap_err();
    drop((slow, failing));
    told(&file, Some(&task), "-> forgotten");
    told(&file, None, "1 failed");
    processes.scheduler.kill().unwrap();

    let story = told(&file, Some(&task), "without an end: the scheduler was killed, or still runs");
    assert!(story.starts_with(&format!("task starling_integration_tests::tasks::slow ({task})\n")), "{story}");
    let told_in_order = [
        "client 0 submitted 1 task",
        "-> processing on",
        "(worker 0), attempt 1",
        "was lost",
        "-> processing on the-other (worker 1), attempt 2",
        "has finished, attempt 2",
        "-> memory",
        "is told that it has finished",
        "client 0 released",
        "-> forgotten",
        "without an end",
    ];
    let mut rest = story.as_str();
    for text in told_in_order {
        rest = rest.split_once(text).unwrap_or_else(|| panic!("{text:?} is not in its place in:\n{story}")).1;
    }

    let summary = told(&file, None, "workers:  2 joined, 1 lost or left");
    assert!(summary.contains("2 submitted; at the end"), "{summary}");
    assert!(summary.contains("task starling_integration_tests::tasks::fail"), "{summary}");
    assert!(summary.contains("failed: record 3 is bad: the disk said no (1 results)"), "{summary}");
    assert!(summary.contains("client 0, 2 tasks"), "{summary}");

    let other = replay(&file, Some(&task.replace(".0", ".999")));
    assert_eq!(other.status.code(), Some(1));
    let error = String::from_utf8(other.stderr).unwrap();
    assert!(error.contains("is not in this record"), "{error}");
}

#[test]
fn a_record_has_an_end_and_the_one_before_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events");
    let args = [OsStr::new("--record"), file.as_os_str()];
    let stop = |processes: &mut Processes| {
        kill(Pid::from_raw(processes.scheduler.id() as i32), Signal::SIGINT).unwrap();
        assert!(processes.scheduler.wait().unwrap().success());
    };
    let mut first = Processes::start_with(NODE, 1, &args).unwrap();
    stop(&mut first);
    assert!(told(&file, None, "the scheduler was stopped").contains("workers:  1 joined"));
    let mut second = Processes::start_with(NODE, 0, &args).unwrap();
    told(&folder.path().join("events.1"), None, "workers:  1 joined");
    stop(&mut second);
    told(&file, None, "workers:  0 joined");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_is_no_record_is_neither_replayed_nor_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes");
    std::fs::write(&file, "some notes").unwrap();
    let output = replay(&file, None);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("notes: this is no recording of a scheduler"), "{error}");

    let listen = ["--insecure", "--role", "scheduler", "--listen", "/ip4/127.0.0.1/tcp/0", "--record"];
    let mut command = Command::new(NODE);
    // What an earlier version has left in the default place is not this test's.
    command.env("HOME", folder.path()).env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
    let output = command.args(listen).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("notes exists and is no recording, so it is not replaced"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"some notes");
}
