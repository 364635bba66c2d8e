//! The main job's command as a person uses it: its output, and what it says to wrong input.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The example beside this test's binary; `None` with a printed reason if only the test was built.
fn example() -> Option<PathBuf> {
    let folder = std::env::current_exe().ok()?.parent()?.parent()?.to_owned();
    let path = folder.join("examples/stackoverflow");
    if !path.exists() {
        eprintln!("skipped: the example was not built: run `cargo build --examples` first");
        return None;
    }
    Some(path)
}

fn run(home: &Path, args: &[&str]) -> Option<Output> {
    let mut command = Command::new(example()?);
    command.args(args).env("HOME", home).env_remove("XDG_CACHE_HOME").env_remove("XDG_CONFIG_HOME");
    Some(command.env_remove("STARLING_SECRET").output().unwrap())
}

/// Fails with the exit code and one line that holds all of this.
fn fails(home: &Path, args: &[&str], code: i32, parts: &[&str]) {
    let Some(output) = run(home, args) else { return };
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    let error = text.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{args:?}: {text}"));
    for part in parts {
        assert!(error.contains(part), "{args:?}: {error}");
    }
    assert!(output.stdout.is_empty(), "{args:?} printed something although it failed");
}

#[test]
fn the_default_input_is_made_once_and_reported_on_as_json() {
    let home = tempfile::tempdir().unwrap();
    for said in ["made Stack Overflow-like posts", "made before"] {
        let Some(output) = run(home.path(), &["--size", "2M", "--output", "json"]) else { return };
        assert!(String::from_utf8_lossy(&output.stderr).contains(said));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["records"].as_u64().unwrap() > 1000);
        assert!(report["mean_hours_to_accepted_answer"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn the_tables_are_all_there() {
    let home = tempfile::tempdir().unwrap();
    let Some(output) = run(home.path(), &["--size", "1M"]) else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    for heading in ["posts by type", "top tags", "questions a month", "top answerers", "time to accepted answer"] {
        assert!(text.contains(&format!("\n{heading}  (")), "no {heading} in:\n{text}");
    }
}

#[test]
fn wrong_input_gives_one_line_that_names_it_and_the_remedy() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let header = "Id,PostTypeId,AcceptedAnswerId,ParentId,CreationDate,Score,ViewCount,Body,OwnerUserId,Title,Tags,\
                  AnswerCount,CommentCount,FavoriteCount\n";
    let open = file("open.csv", &format!("{header}1,1,,,2014-03-13T20:32:04.033,3,5,\"never closed\n"));
    let short = file("short.csv", &format!("{header}1,1,,\n"));
    let other = file("other.csv", "a,b\n1,2\n");
    let empty = file("empty.csv", "");
    for (input, parts) in [
        ("/nonexistent.csv", &["/nonexistent.csv"][..]),
        (&*open, &["open.csv", "quote"]),
        (&*short, &["short.csv", "line 2"]),
        (&*other, &["other.csv", "column"]),
        (&*empty, &["empty.csv"]),
    ] {
        fails(home.path(), &["--input", input], 1, parts);
    }
}

#[test]
fn wrong_uses_and_dead_addresses_are_told_apart() {
    let home = tempfile::tempdir().unwrap();
    fails(home.path(), &["--block-size", "1"], 2, &["block-size"]);
    fails(home.path(), &["--output", "yaml"], 2, &["yaml"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let addr = format!("127.0.0.1:{free}");
    fails(home.path(), &["--size", "1K", "--insecure", "--join", &addr], 1, &[&free.to_string()]);
    fails(home.path(), &["--size", "1K", "--join", &addr], 1, &["no cluster secret", "scp"]);
}
