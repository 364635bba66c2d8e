//! Files of web servers and of S3.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde::{Deserialize, Serialize};
use starling_actors::Cluster;

// The server that tables are tested with: not all that it can do is asked of it here.
#[allow(dead_code, clippy::duplicate_mod)]
#[path = "../../frame/files/tests/server.rs"]
mod server;

use server::{KEY, Server};

use crate::bag::{Bag, JsonOptions, TextOptions, WriteOptions};
use crate::input::set_environment;

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

async fn cluster() -> Cluster {
    Cluster::local(2).await.unwrap()
}

/// A bucket of its own for each test, since stores are the process's.
fn s3(bucket: &str) -> Server {
    let server = Server::s3();
    set_environment(
        bucket,
        &[
            ("AWS_ENDPOINT_URL", &server.url),
            ("AWS_REGION", "here"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", "very-secret"),
            ("AWS_ALLOW_HTTP", "true"),
        ],
    );
    server
}

fn lines(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("line {n} é {}", "x".repeat(n as usize % 50))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_web_server_are_read_by_ranges() {
    let cluster = cluster().await;
    let server = Server::http();
    let lines = lines(500);
    server.put("/a/t.txt", lines.join("\n"));
    let url = format!("{}/a/t.txt", server.url);
    for block_bytes in [1000, 4321, 1 << 20] {
        let bag = Bag::read_text_in_blocks(&cluster, &url, block_bytes);
        assert!(bag.collect().await.unwrap() == lines, "blocks of {block_bytes}");
    }
    assert!(server.log().iter().any(|request| request.starts_with("GET /a/t.txt bytes=999-")), "{:?}", server.log());
    let error = Bag::read_text(&cluster, format!("{}/none.txt", server.url)).count().await.unwrap_err().reason();
    assert!(error.contains("there is no file http://"), "{error}");
    for (url, expected) in [
        (format!("{url}?signature=hidden"), "signed URLs cannot be read"),
        (format!("{}/a/*.txt", server.url), "name each file"),
        (url.replace("http://", "http://somebody:hidden@"), "it names a user"),
        (url.replace("http://", "ftp://"), "http://, https://, s3://"),
    ] {
        let error = Bag::read_text(&cluster, url).count().await.unwrap_err().reason();
        assert!(error.contains(expected) && !error.contains("hidden"), "{error}");
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    id: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_of_s3_are_read_by_pattern_and_written() {
    let cluster = cluster().await;
    let server = s3("accounts");
    let mut id = 0;
    for name in ["2026/b.jsonl", "2026/a.jsonl", "2026/deep/c.jsonl", "2026/d.txt", "2027/e.jsonl", "2026/f.jsonl"] {
        let lines: String = (0..50).map(|n| format!("{{\"id\": {}}}\n", id + n)).collect();
        id += 50;
        server.put(&format!("/accounts/{name}"), lines);
    }
    let options = JsonOptions { block_bytes: 100, ..JsonOptions::default() };
    let read = |url: &str| Bag::<Account>::read_json_lines(&cluster, url, options.clone());
    let found = read("s3://accounts/2026/*.jsonl").collect().await.unwrap();
    let ids: Vec<u64> = found.iter().map(|account| account.id).collect();
    assert_eq!(ids, (50..100).chain(0..50).chain(250..300).collect::<Vec<_>>());
    assert_eq!(read("s3://accounts/**/*.jsonl").count().await.unwrap(), 250);
    let error = read("s3://accounts/2028/*").count().await.unwrap_err().reason();
    assert!(error.contains("there is no file s3://accounts/2028/*"), "{error}");

    let texts = read("s3://accounts/2026/a.jsonl").map(task!(|account: Account| account.id.to_string()));
    let files = texts.to_text_files("s3://accounts/out/*.txt.gz", WriteOptions::default()).await.unwrap();
    assert!(server.paths().contains(&"/accounts/out/00000.txt.gz".to_owned()));
    assert_eq!(files.iter().map(|file| file.items).sum::<u64>(), 50);
    let read = Bag::read_text(&cluster, "s3://accounts/out/*.gz").collect().await.unwrap();
    assert_eq!(read, (50..100).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_after_it_was_found_is_an_error() {
    let cluster = cluster().await;
    let server = s3("changing");
    server.put("/changing/t.txt", "one\ntwo\n");
    let bag = Bag::read_text(&cluster, "s3://changing/t.txt");
    assert_eq!(bag.count().await.unwrap(), 2);
    server.put("/changing/t.txt", "1\n2\n3\n4\n");
    let error = bag.count().await.unwrap_err().reason();
    assert!(error.contains("s3://changing/t.txt is not the file that was found"), "{error}");
    assert_eq!(Bag::read_text(&cluster, "s3://changing/t.txt").count().await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_between_a_bucket_and_a_node_is_told_without_secrets() {
    let cluster = cluster().await;
    let server = s3("forbidden");
    server.put("/forbidden/t.txt", "one\n");
    set_environment(
        "forbidden",
        &[
            ("AWS_ENDPOINT_URL", &server.url),
            ("AWS_REGION", "here"),
            ("AWS_ACCESS_KEY_ID", "somebody"),
            ("AWS_SECRET_ACCESS_KEY", "very-secret"),
            ("AWS_ALLOW_HTTP", "true"),
        ],
    );
    let error = Bag::read_text(&cluster, "s3://forbidden/t.txt").count().await.unwrap_err().reason();
    assert!(error.contains("AWS_ACCESS_KEY_ID is set") && error.contains("s3://forbidden"), "{error}");
    assert!(!error.contains("very-secret") && !error.contains("somebody"), "{error}");
}

/// A web server that gives whole files only.
fn without_ranges(body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let body = body.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut writer = stream;
                let mut request = String::new();
                while reader.read_line(&mut request).is_ok_and(|nread| nread > 0) {
                    if !request.ends_with("\r\n\r\n") {
                        continue;
                    }
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nlast-modified: Wed, 21 Oct 2015 07:28:10 GMT\r\n\r\n",
                        body.len()
                    );
                    let body = if request.starts_with("HEAD") { "" } else { &body };
                    if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body.as_bytes())).is_err() {
                        return;
                    }
                    request.clear();
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_gives_a_file_whole() {
    let cluster = cluster().await;
    let lines = lines(50_000);
    let url = without_ranges(lines.join("\n"));
    let options = TextOptions { block_bytes: 1000, ..TextOptions::default() };
    let bag = Bag::read_text_with(&cluster, format!("{url}/t.txt"), options);
    assert!(bag.collect().await.unwrap() == lines);
}
