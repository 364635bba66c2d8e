//! Each service as a person uses it: two processes of one cluster, whose handlers submit tasks and share an actor.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "STARLING_SECRET";

/// The example beside this test's binary; `None` with a printed reason if only the test was built.
fn example(name: &str) -> Option<PathBuf> {
    let folder = std::env::current_exe().ok()?.parent()?.parent()?.to_owned();
    let path = folder.join("examples").join(name);
    if !path.exists() {
        eprintln!("skipped: the example was not built: run `cargo build --examples` first");
        return None;
    }
    Some(path)
}

struct Service {
    child: Child,
    /// Where it answers requests.
    address: String,
    /// Where others join its node.
    node: String,
}

impl Service {
    fn start(program: &PathBuf, join: Option<&str>, secret: &str) -> Service {
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0"]).env(SECRET, secret).stdout(Stdio::piped());
        let mut child = command.args(join.iter().flat_map(|join| ["--join", join])).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut after = |word: &str| {
            let line = said.find(|line| line.contains(word)).expect("the service says where it is");
            line.split_once(word).unwrap().1.to_owned()
        };
        let node = after("--join ");
        let address = after("http://");
        Service { child, address, node }
    }

    fn words(&self, text: &str) -> serde_json::Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = &self.address;
        write!(stream, "GET /words?text={text} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Ends it as Ctrl-C does.
    fn end(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the service has not ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended, or is to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn two_services_share_an_actor(name: &str) {
    let Some(program) = example(name) else { return };
    let secret = starling::ClusterSecret::generate();
    let first = Service::start(&program, None, secret.to_text());
    assert_eq!(first.words("to+be+or+not+to+be"), serde_json::json!({ "words": 6, "total": 6 }));
    let second = Service::start(&program, Some(&first.node), secret.to_text());
    assert_eq!(second.words("that+is"), serde_json::json!({ "words": 2, "total": 8 }));
    assert_eq!(first.words("the+question"), serde_json::json!({ "words": 2, "total": 10 }));
    second.end();
    assert_eq!(first.words("whether"), serde_json::json!({ "words": 1, "total": 11 }));
    first.end();
}

#[test]
fn an_axum_service_is_a_node() {
    two_services_share_an_actor("axum_service");
}

#[test]
fn an_actix_web_service_is_a_node() {
    two_services_share_an_actor("actix_web_service");
}
