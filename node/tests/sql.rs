//! `node sql` as a person uses it: queries over files, what they print and write, and what it says to wrong ones.

#![cfg(feature = "frame")]
#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// Three records on six lines.
const POSTS: &str = "Id,score,body\n1,10,\"<p>one,\ntwo</p>\"\n2,20,\"a \"\"quoted\"\" word\n\n\"\n3,,plain\n";

/// What a run of `node sql` left behind.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// What it printed; it must have gone well.
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// What it said on standard error; it must have ended with this code, and printed nothing.
    fn bad(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        self.stderr
    }
}

struct Home(TempDir);

impl Home {
    /// A home with `posts.csv`.
    fn new() -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::write(home.path("posts.csv"), POSTS).unwrap();
        home
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env("HOME", self.0.path());
        for variable in ["STARLING_SECRET", "STARLING_LOG", "XDG_CONFIG_HOME", "XDG_STATE_HOME"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn sql(&self, args: &[&str]) -> Ran {
        self.sql_with(args, "")
    }

    /// With this on standard input.
    fn sql_with(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_node"));
        let mut child = command.arg("sql").args(args).stdin(Stdio::piped()).spawn().unwrap();
        // It need not read it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The names in the home, but for what begins with a dot and is a folder, which is configuration.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.path().is_file());
        let mut names: Vec<String> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

const ALL: &str = "SELECT \"Id\", score, body FROM posts ORDER BY \"Id\"";
const TABLE: [&str; 2] = ["--table", "posts=posts.csv"];

#[test]
fn csv_with_newlines_in_quotes_is_a_table() {
    let home = Home::new();
    let printed = home.sql(&["SELECT count(*), sum(score) AS sum FROM posts", TABLE[0], TABLE[1]]).good();
    let expected =
        "+----------+-----+\n| count(*) | sum |\n+----------+-----+\n| 3        | 30  |\n+----------+-----+\n";
    assert_eq!(printed, expected);
}

#[test]
fn rows_are_written_in_every_format_and_read_back_as_they_were() {
    let home = Home::new();
    assert_eq!(home.sql(&[ALL, TABLE[0], TABLE[1], "--output", "csv"]).good(), POSTS);
    let json = "{\"Id\":1,\"score\":10,\"body\":\"<p>one,\\ntwo</p>\"}\n\
                {\"Id\":2,\"score\":20,\"body\":\"a \\\"quoted\\\" word\\n\\n\"}\n\
                {\"Id\":3,\"score\":null,\"body\":\"plain\"}\n";
    assert_eq!(home.sql(&[ALL, TABLE[0], TABLE[1], "--output", "json"]).good(), json);
    for name in ["rows.csv", "rows.json", "rows.parquet"] {
        let printed = home.sql(&[ALL, TABLE[0], TABLE[1], "--output-file", name, "--quiet"]).good();
        assert_eq!(printed, "");
        let back = home.sql(&[ALL, "--table", &format!("posts={name}"), "--output", "csv"]).good();
        assert_eq!(back, POSTS, "{name}");
    }
    assert_eq!(home.files(), ["posts.csv", "rows.csv", "rows.json", "rows.parquet"]);
}

#[test]
fn statements_come_from_a_file_or_standard_input_and_the_timing_is_told_apart_from_rows() {
    let home = Home::new();
    let statements = "-- two; of them\nCREATE VIEW v AS SELECT score FROM posts;\nSELECT max(score) AS m FROM v;\n";
    fs::write(home.path("queries.sql"), statements).unwrap();
    let args = [TABLE[0], TABLE[1], "--output", "csv", "--timing"];
    let piped = home.sql_with(&args, statements);
    assert!(piped.stderr.contains("done in ") && piped.stderr.contains("1 row in "), "{}", piped.stderr);
    assert_eq!(piped.good(), "m\n20\n");
    assert_eq!(home.sql(&[&args[..], &["--file", "queries.sql"]].concat()).good(), "m\n20\n");
    let quiet = home.sql(&[&args[..], &["--file", "queries.sql", "--quiet"]].concat());
    assert_eq!((quiet.stderr.as_str(), quiet.stdout.as_str()), ("", "m\n20\n"));
    assert!(home.sql_with(&args, " -- nothing\n").bad(2).contains("there is no statement in standard input"));
}

#[test]
fn long_tables_are_cut_where_the_limit_says() {
    let home = Home::new();
    let printed = home.sql(&["SELECT score FROM posts ORDER BY 1", TABLE[0], TABLE[1], "--limit-shown", "1"]).good();
    assert!(printed.ends_with("| 10    |\n+-------+\n1 of 3 rows are shown; --limit-shown 0 shows all\n"), "{printed}");
}

#[test]
fn a_wrong_statement_is_shown_with_its_place_and_a_hint_and_those_before_it_have_run() {
    let home = Home::new();
    let ran = home.sql(&["SELECT 1 AS one;\nSELECT id\nFROM posts", TABLE[0], TABLE[1], "--output", "csv"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "one\n1\n"), "{}", ran.stderr);
    let expected = " --> line 2, column 8\n  |\n2 | SELECT id\n  |        ^^\n  = hint: write \"Id\": names with upper case \
                    letters are found only in double quotes\n";
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.ends_with(expected), "{}", ran.stderr);
    let syntax = home.sql(&["SELECT FROM WHERE"]).bad(1);
    assert!(syntax.contains("--> line 1, column "), "{syntax}");
    let table = home.sql(&["SELECT * FROM post", TABLE[0], TABLE[1]]).bad(1);
    assert!(table.contains("| SELECT * FROM post\n  |               ^^^^\n  = hint: did you mean posts?"), "{table}");
}

#[test]
fn a_wrong_use_says_what_to_do() {
    let home = Home::new();
    let wrong = |args: &[&str]| home.sql(&[&["SELECT 1"], args].concat()).bad(2);
    assert!(wrong(&["--table", "posts.csv"]).contains("write it as --table posts=posts.csv"));
    assert!(wrong(&["--table", "a=posts.csv,a=posts.csv"]).contains("--table names a twice"));
    assert!(wrong(&["--table", "a=none.csv"]).contains("table a: there is no file at none.csv"));
    fs::write(home.path("x.doc"), "x").unwrap();
    assert!(wrong(&["--table", "a=x.doc"]).contains("x.doc does not say what it holds: it should end in .csv"));
    assert!(wrong(&["--output", "parquet"]).contains("give --output-file FILE.parquet"));
    assert!(wrong(&["--workers", "0"]).contains("give at least 1"));
    assert!(home.sql(&["SELECT 1; SELECT 2", "--output-file", "x.csv"]).bad(2).contains("2 of these give rows"));
}

#[test]
fn a_query_that_fails_leaves_the_file_as_it_was() {
    let home = Home::new();
    fs::write(home.path("rows.csv"), "old").unwrap();
    fs::write(home.path("numbers.csv"), "n\n1\n0\n").unwrap();
    let failing = "SELECT 1 / n FROM numbers";
    let error = home.sql(&[failing, "--table", "numbers=numbers.csv", "--output-file", "rows.csv"]).bad(1);
    assert!(error.to_lowercase().contains("divide by zero"), "{error}");
    assert_eq!(fs::read_to_string(home.path("rows.csv")).unwrap(), "old");
    assert_eq!(home.files(), ["numbers.csv", "posts.csv", "rows.csv"]);
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let home = Home::new();
    let query = "SELECT value FROM generate_series(1, 1000000)";
    let mut command = home.command(env!("CARGO_BIN_EXE_node"));
    let mut child = command.args(["sql", query, "--output", "csv"]).spawn().unwrap();
    let mut first = [0; 8];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"value\n1\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn the_real_posts_are_counted() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    if !Path::new(folder).is_dir() {
        eprintln!("skipped: there is no {folder}");
        return;
    }
    let home = Home::new();
    let query = "SELECT \"PostTypeId\", count(*) AS n, sum(\"Score\") AS score FROM posts GROUP BY 1 ORDER BY 1";
    let printed = home.sql(&[query, "--table", &format!("posts={folder}/posts.csv"), "--output", "csv"]).good();
    assert_eq!(printed, "PostTypeId,n,score\n1,397,4141\n2,1507,8687\n4,78,0\n5,78,0\n7,1,0\n");
}

#[test]
fn a_running_cluster_answers_too() {
    let home = Home::new();
    let mut command = home.command(env!("CARGO_BIN_EXE_node"));
    command.args(["--role", "scheduler", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let scheduler = Running::start(command, |child| Box::new(child.stderr.take().unwrap()));
    let addr = scheduler.wait_for("is ready");
    let addr = addr.split("listening on ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let mut command = home.command(env!("CARGO_BIN_EXE_node"));
    command.args(["--join", &addr, "--no-listen"]);
    let worker = Running::start(command, |child| Box::new(child.stderr.take().unwrap()));
    worker.wait_for("is ready");
    let printed = home.sql(&[
        "SELECT sum(score) AS s FROM posts",
        TABLE[0],
        &format!("posts={}", home.path("posts.csv")),
        "--join",
        &addr,
        "--output",
        "csv",
    ]);
    assert_eq!(printed.good(), "s\n30\n");
}

/// A process that runs until it is dropped, and what it has said.
struct Running {
    child: Child,
    said: Receiver<Vec<u8>>,
}

/// How long something that is done again and again is given each time.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

impl Running {
    fn start(mut command: Command, output: impl FnOnce(&mut Child) -> Box<dyn Read + Send>) -> Running {
        let mut child = command.spawn().unwrap();
        let mut output = output(&mut child);
        let (tx, said) = sync_channel(10_000);
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if tx.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Running { child, said }
    }

    /// What it says up to `text` from now on.
    fn wait_for(&self, text: &str) -> String {
        self.wait_doing(text, || {})
    }

    /// What it says up to `text` and to where it asks for the next line: what is typed before that is lost.
    fn answers(&self, text: &str) -> String {
        const ASKS: &str = "\x1b[?2004h";
        let mut seen = self.wait_for(text);
        if !seen.split(text).last().unwrap().contains(ASKS) {
            seen += &self.wait_for(ASKS);
        }
        seen
    }

    /// As `wait_for`, doing something again and again until it comes.
    fn wait_doing(&self, text: &str, mut again: impl FnMut()) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        let mut done = Instant::now();
        while !seen.contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} came, but:\n{seen}");
            match self.said.recv_timeout(AGAIN_AFTER) {
                Ok(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {text:?}:\n{seen}"),
            }
            // It may say something all the while, such as how far a query is.
            if done.elapsed() >= AGAIN_AFTER {
                again();
                done = Instant::now();
            }
        }
        seen
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_shell_answers_completes_survives_errors_and_ctrl_c_and_keeps_a_private_history() {
    let has_script = Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !has_script.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no `script` of util-linux, which makes a terminal");
        return;
    }
    let home = Home::new();
    let mut command = home.command("script");
    // `exec`, since a plain shell that waits in between would itself die of the Ctrl-C.
    let shell = format!("exec '{}' sql --table posts=posts.csv", env!("CARGO_BIN_EXE_node"));
    command.args(["--quiet", "--flush", "--return", "--command", &shell, "/dev/null"]);
    command.stdin(Stdio::piped()).env("TERM", "xterm");
    let mut shell = Running::start(command, |child| Box::new(child.stdout.take().unwrap()));
    let mut keys = shell.child.stdin.take().unwrap();
    let mut press = |text: &str| keys.write_all(text.as_bytes()).unwrap();

    shell.answers("end statements with ;");
    press("SELECT count(*) AS n\rFROM po	;\r");
    let rows = shell.answers("1 row in ");
    assert!(rows.contains("| n |") && rows.contains("| 3 |"), "{rows}");
    press("SELECT x FROM posts;\r");
    shell.answers("column 8");
    press("\\d posts\r");
    shell.answers("rows in ");
    press("\\o json\r");
    shell.answers("\\o json");
    press("\\timing\r");
    shell.answers("timing is off");
    // The first statement's answer says that the second is what runs next.
    press("SELECT 'now' || 'here' AS w; SELECT sum(value) FROM generate_series(1, 900000000000);\r");
    shell.wait_for("{\"w\":\"nowhere\"}");
    shell.wait_doing("interrupted: the query was cancelled", || press("\x03"));
    // A Ctrl-C too many may take the line with it.
    shell.wait_doing("{\"answer\":42}", || press("SELECT 40 + 2 AS answer;\r"));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = shell.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the shell does not end");
        // It may have ended before it reads this.
        let _ = keys.write_all(b"\\q\r");
        let _ = shell.said.recv_timeout(Duration::from_millis(300));
    };
    assert!(status.success(), "{status}");

    let history = home.0.path().join(".local/state/starling/sql_history");
    let kept = fs::read_to_string(&history).unwrap();
    assert!(kept.contains("SELECT x FROM posts;") && kept.contains("FROM posts;"), "{kept}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
