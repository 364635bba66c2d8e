//! `node submit`: tasks from a shell, on clusters of real processes.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use starling_integration_tests::processes::{PATIENCE, Processes};

const NODE: &str = env!("CARGO_BIN_EXE_test-node");

fn submission(processes: &Processes, args: &[&str]) -> Command {
    let mut command = Command::new(NODE);
    command.arg("submit").args(args).args(["--join", &processes.addr, "--secret-file"]).arg(processes.secret_file());
    command.stdin(Stdio::null());
    command
}

fn submit(processes: &Processes, args: &[&str]) -> Output {
    submission(processes, args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_result_is_printed_as_json_and_errors_have_their_exit_codes() {
    let processes = Processes::start(NODE, 1).unwrap();
    for (args, printed) in [
        (["add", "[40, 2]"], "42\n"),
        (["tasks::count_words", r#"["a b a"]"#], "{\"a\":2,\"b\":1}\n"),
        (["starling_integration_tests::tasks::merge_counts", r#"[[{"a": 1}, {"a": 2}]]"#], "{\"a\":3}\n"),
        // Larger than what rides in a completion, so that it comes from the worker.
        (["bytes", "[100000, 7]"], "{\"bytes\":100000}\n"),
    ] {
        let output = submit(&processes, &args);
        assert_eq!((text(&output.stdout), output.status.code()), (printed, Some(0)), "{}", text(&output.stderr));
    }
    for (args, told, code) in [
        (["fail", "[7]"], "record 7 is bad", 1),
        (["panic_with", r#"["oh no"]"#], "oh no", 1),
        (["ad", "[40, 2]"], "did you mean starling_integration_tests::tasks::add?", 2),
        (["add", "[40]"], "takes 2 arguments, not 1", 2),
        (["add", "[40, \"2\"]"], "argument 2 of starling_integration_tests::tasks::add(a: i64, b: i64) is \"2\"", 2),
    ] {
        let output = submit(&processes, &args);
        assert_eq!((text(&output.stdout), output.status.code()), ("", Some(code)), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    }
}

#[test]
fn ctrl_c_cancels_the_task_and_says_so() {
    let processes = Processes::start(NODE, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("begun");
    let args = serde_json::to_string(&(&file, 600_000)).unwrap();
    let mut command = submission(&processes, &["touch_and_sleep", &args]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "the task did not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(running.id() as i32), Signal::SIGINT).unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout), output.status.code()), ("", Some(1)));
    assert!(text(&output.stderr).contains("interrupted: the task was cancelled"), "{}", text(&output.stderr));
}
