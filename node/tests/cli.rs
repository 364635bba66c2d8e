//! The `node` command as a person uses it: the bare commands, and what it says to wrong input.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// `node` with a home of its own, so that the default place of the secret is the test's.
fn node(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.args(args).env_remove("STARLING_SECRET").env_remove("XDG_CONFIG_HOME").env("HOME", home);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs to the end; gives the exit code and standard error.
fn run(home: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut child = node(home, args).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("`node {}` did not end", args.join(" "));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

/// The error line, which is the last one.
fn error_of((code, text): (Option<i32>, String), expected: i32) -> String {
    assert_eq!(code, Some(expected), "{text}");
    text.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error in:\n{text}")).to_owned()
}

/// Runs a question to its end, which must be a good one; gives what it printed.
fn answer_to(home: &Path, args: &[&str]) -> String {
    let output = node(home, args).stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A node that runs until it is dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (tx, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = tx.try_send(line);
            }
        });
        Running { child, lines }
    }

    fn line_with(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?} came"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the node did not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

#[test]
fn the_first_scheduler_makes_a_secret_with_which_a_worker_joins_and_both_leave_cleanly() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let mut scheduler = Running::start(node(home.path(), &["--role", "scheduler", "--listen", LOOPBACK]));
    scheduler.line_with("made a secret for this cluster in");
    let copy = scheduler.line_with("ssh USER@MACHINE");
    let secret = home.path().join(".config/starling/secret");
    assert!(copy.contains(secret.to_str().unwrap()), "{copy}");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);

    let addr = scheduler.line_with("listening on ").replace("listening on ", "");
    let mut worker = Running::start(node(home.path(), &["--join", &addr, "--listen", LOOPBACK]));
    worker.line_with("is ready");
    let port = addr.rsplit('/').next().unwrap();
    let mut other = Running::start(node(home.path(), &["--join", &format!("127.0.0.1:{port}"), "--no-listen"]));
    other.line_with("it opens no port");

    for node in [&mut other, &mut worker, &mut scheduler] {
        node.signal("-INT");
        assert_eq!(node.exit_code(), Some(0));
    }
}

#[test]
fn a_node_without_a_secret_is_told_what_to_copy_from_where() {
    let home = tempfile::tempdir().unwrap();
    let error = error_of(run(home.path(), &["--join", "127.0.0.1:9"]), 1);
    assert!(error.contains("no cluster secret was found") && error.contains("scp user@scheduler"), "{error}");
    assert!(!home.path().join(".config/starling/secret").exists());
}

#[test]
fn a_wrong_secret_is_refused_with_the_remedy() {
    let (home, stranger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let scheduler = Running::start(node(home.path(), &["--role", "scheduler", "--listen", LOOPBACK]));
    let addr = scheduler.line_with("listening on ").replace("listening on ", "");
    // A secret of another cluster, made the same way.
    let own = Running::start(node(stranger.path(), &["--role", "scheduler", "--listen", LOOPBACK]));
    own.line_with("is ready");
    let error = error_of(run(stranger.path(), &["--join", &addr]), 1);
    assert!(error.contains("secret"), "{error}");
    let error = error_of(run(stranger.path(), &["--join", &addr, "--insecure"]), 1);
    assert!(error.contains("secret"), "{error}");
}

#[test]
fn an_address_that_nobody_listens_on_is_named() {
    let home = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = error_of(run(home.path(), &["--insecure", "--join", &format!("127.0.0.1:{free}")]), 1);
    assert!(error.contains(&free.to_string()) && error.contains("nobody listens"), "{error}");
}

#[test]
fn a_port_in_use_is_named() {
    let home = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let error = error_of(run(home.path(), &["--insecure", "--role", "scheduler", "--listen", &listen]), 1);
    assert!(error.contains("in use") && error.contains(&listen), "{error}");
}

#[test]
fn wrong_uses_exit_with_2() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["--no-such-option"][..],
        &["--insecure", "--role", "worker"],
        &["--insecure", "--join", "not an address"],
        &["--insecure", "--join", "127.0.0.1:1", "--threads", "0"],
        &["--insecure", "--memory-limit", "much"],
        &["--insecure", "--join", "127.0.0.1:1", "--resources", "gpu"],
        &["--insecure", "--role", "scheduler", "--resources", "gpu=1"],
        &["--insecure", "--allowed-failures", "-1"],
        &["--insecure", "--role", "worker", "--join", "127.0.0.1:1", "--record", "file"],
        &["--insecure", "--record", "file", "--record-limit", "10"],
        &["--insecure", "replay", "file"],
        &["explain", "--join", "127.0.0.1:1", "--insecure"],
        &["explain", "17", "--join", "127.0.0.1:1", "--insecure"],
        &["explain", "1.2", "--insecure"],
        &["retire", "--join", "127.0.0.1:1", "--insecure"],
        &["retire", "worker", "--insecure"],
        &["replay", "file", "not-a-task"],
        &["put", "file", "--join", "127.0.0.1:1", "--insecure"],
        &["put", "file", "--to", "0", "--join", "127.0.0.1:1", "--insecure"],
        &["get", "--join", "127.0.0.1:1", "--insecure"],
        &["data", "--insecure"],
        &["--config", "/nonexistent.toml"],
    ] {
        let (code, text) = run(home.path(), args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains("error: "), "{args:?}: {text}");
    }
}

#[test]
fn insecure_warns() {
    let home = tempfile::tempdir().unwrap();
    let scheduler = Running::start(node(home.path(), &["--role", "scheduler", "--insecure", "--listen", LOOPBACK]));
    scheduler.line_with("warning: running without a secret");
    scheduler.line_with("is ready");
}

#[test]
fn a_second_ctrl_c_stops_at_once() {
    let home = tempfile::tempdir().unwrap();
    let mut scheduler = Running::start(node(home.path(), &["--role", "scheduler", "--insecure", "--listen", LOOPBACK]));
    scheduler.line_with("is ready");
    scheduler.signal("-INT");
    scheduler.signal("-INT");
    assert_eq!(scheduler.exit_code(), Some(0));
}

#[test]
fn a_wrong_configuration_file_is_one_line_that_does_not_show_the_secret() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("node.toml");
    let config = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(home.path(), &["--config", file.to_str().unwrap()])
    };
    let (code, text) = config("threads = 1\nsecret = very-secret-text\n");
    assert_eq!((code, text.lines().count()), (Some(2), 1), "{text}");
    assert!(text.contains("node.toml") && text.contains("line 2") && !text.contains("very-secret"), "{text}");
    let (code, text) = config("colour = 'red'\n");
    assert!(code == Some(2) && text.contains("colour") && text.lines().count() == 1, "{text}");
    let (code, text) = config(&format!("secret = '{}'\n", "x".repeat(40)));
    assert!(code == Some(2) && text.contains("chmod 600"), "{text}");
}

#[test]
fn a_second_scheduler_stands_by_and_one_directory_has_one_node() {
    let home = tempfile::tempdir().unwrap();
    let scheduler = Running::start(node(home.path(), &["--role", "scheduler", "--listen", LOOPBACK]));
    let addr = scheduler.line_with("listening on ").replace("listening on ", "");
    let second = Running::start(node(home.path(), &["--role", "scheduler", "--listen", LOOPBACK, "--join", &addr]));
    second.line_with("is ready");
    let data = home.path().join(".local/state/starling/joined/1");
    let args = ["--role", "scheduler", "--listen", LOOPBACK, "--join", &addr, "--data-dir", data.to_str().unwrap()];
    let error = error_of(run(home.path(), &args), 1);
    assert!(error.contains("is in use by another node") && error.contains("--data-dir"), "{error}");
}

#[test]
fn a_running_cluster_is_asked_about_tasks_and_workers() {
    let home = tempfile::tempdir().unwrap();
    let scheduler = Running::start(node(home.path(), &["--role", "scheduler", "--listen", LOOPBACK]));
    let addr = scheduler.line_with("listening on ").replace("listening on ", "");
    let worker = Running::start(node(home.path(), &["--join", &addr, "--listen", LOOPBACK, "--name", "one"]));
    worker.line_with("is ready");

    let explained = answer_to(home.path(), &["explain", "1.2", "--join", &addr]);
    assert!(explained.starts_with("task 1.2 is not known: it was never submitted"), "{explained}");
    // The address and the secret may come from a file as well.
    let file = home.path().join("node.toml");
    std::fs::write(&file, format!("join = ['{addr}']\n")).unwrap();
    let again = answer_to(home.path(), &["explain", "1.2", "--config", file.to_str().unwrap()]);
    assert_eq!(again, explained);

    let error = error_of(run(home.path(), &["retire", "two", "--join", &addr]), 1);
    assert!(error.contains("there is no worker two: the cluster has one ("), "{error}");
    let error = error_of(run(home.path(), &["retire", "one", "--join", &addr, "--insecure"]), 1);
    assert!(error.contains("secret"), "{error}");
}

#[test]
fn a_worker_is_retired_by_its_name() {
    let home = tempfile::tempdir().unwrap();
    let scheduler = Running::start(node(home.path(), &["--role", "scheduler", "--listen", LOOPBACK]));
    let addr = scheduler.line_with("listening on ").replace("listening on ", "");
    let start = |name| {
        let worker = Running::start(node(
            home.path(),
            &["--join", &addr, "--listen", LOOPBACK, "--name", name, "--threads", "1"],
        ));
        worker.line_with("is ready");
        worker
    };
    let (mut one, mut two) = (start("one"), start("two"));
    let answer = answer_to(home.path(), &["retire", "one", "--join", &addr]);
    assert_eq!(answer, "one left; 0 outputs were moved before\n");
    one.line_with("the cluster has let this worker go");
    assert_eq!(one.exit_code(), Some(0));
    let error = error_of(run(home.path(), &["retire", "two", "--join", &addr]), 1);
    assert!(error.contains("worker two cannot leave: there is no other worker"), "{error}");
    // The last one holds nothing that could be saved, and may go.
    two.signal("-INT");
    two.line_with("the cluster has let this worker go");
    assert_eq!(two.exit_code(), Some(0));
}
