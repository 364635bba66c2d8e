//! Jobs that outlive their clients, from the shell, on clusters of real processes.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use starling_integration_tests::processes::{PATIENCE, Process, Processes};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

/// Asks the cluster at the node of this address.
fn ask(processes: &Processes, addr: &str, args: &[&str]) -> Output {
    let mut command = Command::new(NODE);
    command.args(args).args(["--join", addr, "--secret-file"]).arg(processes.secret_file()).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What a command that succeeds prints.
fn printed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Where a worker listens.
fn addr_of(worker: &Process) -> String {
    worker.wait_for_line(|line| line.strip_prefix("listening on ").map(str::to_owned)).unwrap()
}

/// Detaches a job from a client that is gone when this returns; gives its number.
fn detach(processes: &Processes, task: &str, args: &str) -> String {
    let output = ask(processes, &processes.addr, &["submit", task, args, "--detach", "--name", "nightly"]);
    printed(&output).trim_end().to_owned()
}

/// Asks until the answer is as it should be.
fn eventually(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never was so");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Begins the scheduler anew at its address, on what it had agreed to.
fn start_scheduler(processes: &Processes, data: &Path) -> Process {
    let mut command = Command::new(NODE);
    command.args(["--role", "scheduler", "--listen", &processes.addr, "--secret-file"]).arg(processes.secret_file());
    let scheduler = Process::start(command.arg("--data-dir").arg(data)).unwrap();
    scheduler.wait_for_line(|line| line.starts_with("listening on ").then_some(())).unwrap();
    scheduler
}

#[test]
fn a_detached_job_outlives_its_client_and_its_scheduler_and_any_node_gives_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let args = [OsStr::new("--data-dir"), data.as_os_str()];
    let mut processes = Processes::start_with(NODE, 2, &args).unwrap();
    let other = addr_of(&processes.workers[0]);
    let begun = folder.path().join("begun");
    let long = detach(&processes, "touch_and_sleep", &serde_json::to_string(&(&begun, 600_000)).unwrap());
    eventually(|| begun.exists());
    let short = detach(&processes, "add", "[40, 2]");

    let unfinished = ask(&processes, &other, &["result", &long]);
    assert_eq!((text(&unfinished.stdout), unfinished.status.code()), ("", Some(1)));
    let expected = format!("job {long} has 0 of its 1 results: give --wait");
    assert!(text(&unfinished.stderr).contains(&expected), "{}", text(&unfinished.stderr));

    processes.scheduler.kill().unwrap();
    processes.scheduler = start_scheduler(&processes, &data);
    assert_eq!(printed(&ask(&processes, &other, &["result", &short, "--wait"])), "42\n");
    let object = ask(&processes, &other, &["result", &short, "--output", "json"]);
    let object: serde_json::Value = serde_json::from_str(printed(&object)).unwrap();
    assert_eq!(object["results"][0]["task"], "starling_integration_tests::tasks::add");
    assert_eq!(object["results"][0]["result"], 42);

    let listed = ask(&processes, &other, &["jobs", "--output", "json"]);
    // Jobs of clients that have just left may be there for a moment.
    let jobs = printed(&listed).lines().map(|line| serde_json::from_str(line).unwrap());
    let jobs: Vec<serde_json::Value> = jobs.filter(|job: &serde_json::Value| job["is_detached"] == true).collect();
    assert_eq!(jobs.len(), 2, "{jobs:?}");
    for job in &jobs {
        assert!([&long, &short].contains(&&job["job"].to_string()), "{job}");
        assert_eq!((&job["name"], &job["has_client"]), (&"nightly".into(), &false.into()));
    }
    let table = ask(&processes, &other, &["jobs"]);
    let row = |line: &str| line.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = printed(&table).lines().map(row).collect();
    assert_eq!(rows[0], ["JOB", "NAME", "STATE"]);
    for job in [&long, &short] {
        assert!(rows.contains(&vec![job.clone(), "nightly".to_owned(), "detached".to_owned()]), "{rows:?}");
    }

    let forgotten = ask(&processes, &other, &["forget", &long]);
    assert_eq!(printed(&forgotten), format!("job {long} is forgotten\n"));
    for command in ["forget", "result"] {
        let missing = ask(&processes, &processes.addr, &[command, &long]);
        assert_eq!((text(&missing.stdout), missing.status.code()), ("", Some(1)));
        assert!(text(&missing.stderr).contains("no detached job has the number"), "{}", text(&missing.stderr));
    }
    assert_eq!(printed(&ask(&processes, &other, &["result", &short])), "42\n");
}

#[test]
fn any_node_says_how_the_cluster_is_and_that_nobody_leads() {
    let folder = tempfile::tempdir().unwrap();
    let args = [OsStr::new("--name"), OsStr::new("alpha"), OsStr::new("--data-dir"), folder.path().as_os_str()];
    let mut processes = Processes::start_with(NODE, 1, &args).unwrap();
    let other = addr_of(&processes.workers[0]);
    let status = ask(&processes, &processes.addr, &["status"]);
    let shown = printed(&status);
    assert!(shown.starts_with("alpha leads, in term ") && shown.contains("\nvoters: alpha ("), "{shown}");
    assert!(shown.contains("if alpha is lost, nothing goes on until alpha is started again"), "{shown}");
    // A node without a vote knows who leads, and not who votes.
    let object: serde_json::Value =
        serde_json::from_str(printed(&ask(&processes, &other, &["status", "--output", "json"]))).unwrap();
    assert_eq!((&object["leader"], &object["voters"]), (&"alpha".into(), &serde_json::json!([])));

    processes.scheduler.kill().unwrap();
    let mut last = String::new();
    eventually(|| {
        let status = ask(&processes, &other, &["status"]);
        last = text(&status.stdout).to_owned();
        status.status.code() == Some(1)
    });
    assert!(last.starts_with("nobody leads; the last term is "), "{last}");
    let nowhere = ask(&processes, &processes.addr, &["status"]);
    assert_eq!((text(&nowhere.stdout), nowhere.status.code()), ("", Some(1)));
}
