//! Files of all formats on an embedded cluster, against what was written into them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use starling_actors::Cluster;
use tempfile::TempDir;

use crate::bag::{Bag, BagError, Json, JsonErrors, JsonOptions, TextErrors, TextOptions};
use crate::csv::CsvOptions;
use crate::input::Compression;
use crate::stackexchange::{GenerateOptions, Post, generate};

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

async fn cluster() -> Cluster {
    Cluster::local(2).await.unwrap()
}

fn text(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn packed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut packer = compression.pack().unwrap();
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

const COMPRESSIONS: &[(&str, Compression)] = &[
    ("gz", Compression::Gzip),
    #[cfg(feature = "compression")]
    ("zst", Compression::Zstd),
    #[cfg(feature = "compression")]
    ("bz2", Compression::Bzip2),
    #[cfg(feature = "compression")]
    ("xz", Compression::Xz),
];

#[tokio::test(flavor = "multi_thread")]
async fn compressed_lines_are_read_whole_although_packed_in_several_parts() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..20_000).map(|n| format!("line {n} é")).collect();
    let all = lines.join("\n");
    let (one, other) = all.as_bytes().split_at(100_001);
    for (extension, compression) in COMPRESSIONS {
        let path = text(&folder, &format!("lines.{extension}"));
        fs::write(&path, [packed(*compression, one), packed(*compression, other)].concat()).unwrap();
        let bag = Bag::read_text_in_blocks(&cluster, &path, 1000);
        assert!(bag.collect().await.unwrap() == lines, "{extension}");
        assert_eq!(bag.count().await.unwrap(), 20_000, "{extension}");
        // The name need not say it.
        let unnamed = text(&folder, "unnamed");
        fs::copy(&path, &unnamed).unwrap();
        let options = TextOptions { compression: *compression, ..TextOptions::default() };
        assert_eq!(Bag::read_text_with(&cluster, &unnamed, options).count().await.unwrap(), 20_000);
        // Half of it is no file.
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        let error = bag_error(Bag::read_text(&cluster, &path).count().await);
        assert!(error.contains(&format!("lines.{extension} is no whole {} file", compression.name())), "{error}");
    }
    // Several paths of several kinds.
    fs::write(text(&folder, "plain.txt"), "plain").unwrap();
    fs::write(text(&folder, "ok.txt.gz"), packed(Compression::Gzip, b"packed\n")).unwrap();
    let both = Bag::read_text(&cluster, [text(&folder, "plain.txt"), text(&folder, "ok*.gz")]);
    assert_eq!(both.collect().await.unwrap(), ["plain", "packed"]);
    let named = Bag::read_text_and_paths(&cluster, text(&folder, "*.txt"), TextOptions::default());
    assert_eq!(named.collect().await.unwrap(), [("plain".to_owned(), text(&folder, "plain.txt"))]);
}

fn bag_error<T: std::fmt::Debug>(outcome: Result<T, BagError>) -> String {
    outcome.unwrap_err().reason()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_utf8_are_told_replaced_or_left_out() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder, "t.txt");
    let bytes = b"one\ntw\xff\nthree\n";
    fs::write(&path, bytes).unwrap();
    fs::write(format!("{path}.gz"), packed(Compression::Gzip, bytes)).unwrap();
    for path in [path.clone(), format!("{path}.gz")] {
        for block_bytes in [1, 5, 6, 100] {
            let read = |not_utf8| {
                let options = TextOptions { not_utf8, block_bytes, ..TextOptions::default() };
                Bag::read_text_with(&cluster, &path, options)
            };
            let error = bag_error(read(TextErrors::Fail).collect().await);
            assert!(error.contains(&format!("{path}, line 2, byte 6: the text is not UTF-8")), "{error}");
            assert_eq!(read(TextErrors::Lossy).collect().await.unwrap(), ["one", "tw\u{fffd}", "three"]);
            assert_eq!(read(TextErrors::Skip).collect().await.unwrap(), ["one", "three"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_absurd_length_is_an_error() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder, "t.txt");
    fs::write(&path, format!("short\n{}\nshort\n", "x".repeat(5000))).unwrap();
    let options = TextOptions { line_bytes_max: 4999, ..TextOptions::default() };
    let error = bag_error(Bag::read_text_with(&cluster, &path, options).count().await);
    assert!(error.contains("line 2, byte 6: the line is longer than 4999 bytes"), "{error}");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    id: u64,
    owner: String,
    balance: Option<i64>,
}

fn account(id: u64) -> Account {
    Account { id, owner: format!("owner \"{id}\""), balance: (!id.is_multiple_of(3)).then_some(id as i64 - 50) }
}

fn json_line(account: &Account) -> String {
    // A field that the type lacks is passed over.
    let mut value = serde_json::to_value(account).unwrap();
    value["unknown"] = serde_json::json!([1, {"a": null}]);
    value.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_become_values_in_blocks_of_any_size() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let accounts: Vec<Account> = (0..100).map(account).collect();
    let lines: Vec<String> = accounts.iter().map(json_line).collect();
    fs::write(
        text(&folder, "a.jsonl"),
        format!("\u{feff}{}\r\n\n  \n{}", lines[..40].join("\n"), lines[40..].join("\n")),
    )
    .unwrap();
    fs::write(text(&folder, "a.jsonl.gz"), packed(Compression::Gzip, lines.join("\n").as_bytes())).unwrap();
    for name in ["a.jsonl", "a.jsonl.gz"] {
        for block_bytes in [7, 100, 1 << 20] {
            let options = JsonOptions { block_bytes, ..JsonOptions::default() };
            let bag = Bag::<Account>::read_json_lines(&cluster, text(&folder, name), options.clone());
            assert_eq!(bag.collect().await.unwrap(), accounts, "{name}, blocks of {block_bytes}");
            assert_eq!(bag.count().await.unwrap(), 100);
            assert_eq!(bag.take(3).await.unwrap(), accounts[..3]);
            let sum = bag.map(task!(|account: Account| account.balance.unwrap_or(0)));
            let sum = sum.fold(0, task!(|a: i64, b: i64| a + b), task!(|a: i64, b: i64| a + b)).await.unwrap();
            assert_eq!(sum, accounts.iter().filter_map(|account| account.balance).sum::<i64>());
            let values = Bag::<Json>::read_json_lines(&cluster, text(&folder, name), options);
            assert_eq!(values.take(1).await.unwrap()[0]["unknown"][1], serde_json::json!({"a": null}));
            let values = values.map(task!(|value: Json| Json(value["id"].clone())));
            let kept = values.persist().await.unwrap();
            assert_eq!(kept.collect().await.unwrap()[99].0, 99);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_no_json_or_no_item_are_told_left_out_or_kept() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder, "a.jsonl");
    let good = |id| json_line(&account(id));
    let lines =
        [good(1), r#"{"id": 2, "owner": "hal"#.to_owned(), good(3), r#"{"id": -4, "owner": ""}"#.to_owned(), good(5)];
    fs::write(&path, lines.join("\n")).unwrap();
    let typed = |bag: Bag<Account>| bag.map(task!(|account: Account| account));
    for block_bytes in [1, 20, 1 << 20] {
        let options = JsonOptions { block_bytes, ..JsonOptions::default() };
        let bag = Bag::<Account>::read_json_lines(&cluster, &path, options.clone());
        let error = bag_error(typed(bag.clone()).collect().await);
        // Of several blocks any may be the first to fail.
        let is_second = error.contains(&format!("{path}, line 2: column 23: EOF while parsing a string"));
        assert!(is_second || block_bytes < 1000 && error.contains("line 4: column 9: "), "{error}");
        assert!(error.contains("JsonErrors::Skip"), "{error}");
        if block_bytes == 1 << 20 {
            assert!(bag_error(bag.collect().await).contains("line 2: column 23"));
        }

        let options = JsonOptions { errors: JsonErrors::Skip, ..options };
        let bag = Bag::<Account>::read_json_lines(&cluster, &path, options.clone());
        let expected = [account(1), account(3), account(5)];
        assert_eq!(bag.collect().await.unwrap(), expected);
        assert_eq!(bag.take(2).await.unwrap(), expected[..2]);
        assert_eq!(typed(bag).collect().await.unwrap(), expected);

        let bag = Bag::read_json_lines_kept(&cluster, &path, options);
        for all in [
            bag.collect().await.unwrap(),
            bag.map(task!(|account: Result<Account, String>| account)).collect().await.unwrap(),
        ] {
            let offset = lines[..3].iter().map(|line| line.len() + 1).sum::<usize>();
            assert_eq!(
                all.iter().filter_map(|account| account.as_ref().ok()).collect::<Vec<_>>(),
                expected.iter().collect::<Vec<_>>()
            );
            let message = all[3].as_ref().unwrap_err();
            assert!(
                message.starts_with(&format!("{path}, byte {offset}: column 9: invalid value: integer `-4`")),
                "{message}"
            );
        }
    }
    let bag = Bag::<Account>::read_json_lines(&cluster, &path, JsonOptions::default());
    assert!(bag_error(bag.persist().await.map(drop)).contains("have no type yet"));
    let error =
        bag_error(Bag::<Json>::read_json_lines(&cluster, &path, JsonOptions::default()).distinct().count().await);
    assert!(error.contains("records of a file have no type yet"), "{error}");
}

/// The same posts as XML, with all that must be escaped escaped.
fn xml_of(csv: &[u8]) -> String {
    let escaped = |text: &str| {
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '<' => out += "&lt;",
                '>' => out += "&gt;",
                '&' => out += "&amp;",
                '"' => out += "&quot;",
                '\n' => out += "&#xA;",
                '\r' => out += "&#xD;",
                c => out.push(c),
            }
        }
        out
    };
    let mut reader = csv::Reader::from_reader(csv);
    let header = reader.headers().unwrap().clone();
    let mut xml = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<posts>\r\n".to_owned();
    for record in reader.records() {
        let record = record.unwrap();
        xml += "  <row";
        for (name, value) in header.iter().zip(&record).filter(|(_, value)| !value.is_empty()) {
            xml += &format!(" {name}=\"{}\"", escaped(value));
        }
        xml += " OwnerDisplayName=\"somebody\" />\r\n";
    }
    xml + "</posts>"
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    body: String,
}

async fn word_counts(bodies: Bag<Body>) -> BTreeMap<String, u64> {
    let words = bodies.flat_map(task!(|post: Body| post
        .body
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect::<Vec<_>>()));
    words.frequencies().collect().await.unwrap().into_iter().collect()
}

/// The posts in both files are the same, and so are the counts of their words.
async fn compare_posts(cluster: &Cluster, csv: &str, xml: &str, block_bytes: u64) -> BTreeMap<String, u64> {
    let options = TextOptions { block_bytes, ..TextOptions::default() };
    let from_csv = Bag::<Post>::read_csv(cluster, csv, CsvOptions::default());
    let from_xml = Bag::<Post>::read_xml_rows(cluster, xml, options.clone());
    let (from_csv, from_xml) = (from_csv.collect().await.unwrap(), from_xml.collect().await.unwrap());
    assert_eq!(from_csv.len(), from_xml.len());
    for (one, other) in from_csv.iter().zip(&from_xml) {
        assert_eq!(one, other);
    }
    let counts = word_counts(Bag::read_csv(cluster, csv, CsvOptions::default())).await;
    assert!(counts == word_counts(Bag::read_xml_rows(cluster, xml, options)).await);
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_from_xml_are_those_from_csv() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let mut csv = Vec::new();
    generate(&GenerateOptions { size: 300_000, ..GenerateOptions::default() }, &mut csv).unwrap();
    fs::write(text(&folder, "posts.csv"), &csv).unwrap();
    fs::write(text(&folder, "Posts.xml"), xml_of(&csv)).unwrap();
    for block_bytes in [5000, 16 << 20] {
        let counts =
            compare_posts(&cluster, &text(&folder, "posts.csv"), &text(&folder, "Posts.xml"), block_bytes).await;
        assert!(counts.len() > 100);
    }
    // Packed, both are read from start to end.
    for name in ["posts.csv", "Posts.xml"] {
        fs::write(
            text(&folder, &format!("{name}.gz")),
            packed(Compression::Gzip, &fs::read(text(&folder, name)).unwrap()),
        )
        .unwrap();
    }
    compare_posts(&cluster, &text(&folder, "posts.csv.gz"), &text(&folder, "Posts.xml.gz"), 5000).await;
    let count =
        Bag::<Post>::read_csv(&cluster, &text(&folder, "posts.csv.gz"), CsvOptions::default()).count().await.unwrap();
    assert_eq!(count, csv::Reader::from_reader(&*csv).records().count() as u64);
    assert_eq!(Bag::read_posts_xml(&cluster, text(&folder, "Posts.xml")).count().await.unwrap(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_posts_have_the_same_words_in_xml_and_csv() {
    let Some((csv, _)) = crate::csv::real_posts() else { return };
    let xml = Path::new(&csv).with_file_name("Posts.xml").display().to_string();
    let cluster = cluster().await;
    let counts = compare_posts(&cluster, &csv, &xml, 1 << 20).await;
    assert!(counts["students"] > 1000, "{}", counts["students"]);
    let posts = Bag::read_posts_xml(&cluster, &xml);
    let kinds = posts.map(task!(|post: Post| post.post_type_id)).frequencies().collect().await.unwrap();
    let truth = fs::read(Path::new(&csv).with_file_name("counts.json")).unwrap();
    let truth: serde_json::Value = serde_json::from_slice(&truth).unwrap();
    assert_eq!(kinds.iter().map(|(_, count)| count).sum::<u64>(), truth["records"]);
    for (kind, count) in kinds {
        assert_eq!(truth["by_post_type"][kind.to_string()], count);
    }
    let bodies = Bag::<Body>::read_xml_rows(&cluster, &xml, TextOptions::default());
    let nbytes = bodies.map(task!(|post: Body| post.body.len() as u64));
    let nbytes = nbytes.fold(0, task!(|a: u64, b: u64| a + b), task!(|a: u64, b: u64| a + b)).await.unwrap();
    assert_eq!(nbytes, truth["body_utf8_bytes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_rows_and_records_are_told_with_their_place() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = text(&folder, "p.xml");
    fs::write(&path, "<posts>\n<row Body=\"a\" />\n<row Id=\"1\" />\n</posts>\n").unwrap();
    let bodies = Bag::<Body>::read_xml_rows(&cluster, &path, TextOptions::default()).map(task!(|body: Body| body.body));
    let error = bag_error(bodies.collect().await);
    assert!(error.contains(&format!("{path}, line 3: missing field `Body`")), "{error}");
    let path = text(&folder, "p.csv.gz");
    fs::write(&path, packed(Compression::Gzip, b"id,owner,balance\n1,a,\n2,b\n")).unwrap();
    let accounts = Bag::<Account>::read_csv(&cluster, &path, CsvOptions::default());
    let error = bag_error(accounts.collect().await);
    assert!(error.contains("p.csv.gz, line 3: the record has 2 fields"), "{error}");
    fs::write(&path, packed(Compression::Gzip, b"id,owner,balance\n1,a,\nx,b,4\n")).unwrap();
    let accounts =
        Bag::<Account>::read_csv(&cluster, &path, CsvOptions::default()).map(task!(|account: Account| account));
    let error = bag_error(accounts.collect().await);
    assert!(error.contains("p.csv.gz, line 3: field id: invalid type: string \"x\""), "{error}");
    let accounts = Bag::<Account>::read_csv(&cluster, &path, CsvOptions::default());
    let error = bag_error(accounts.collect().await);
    assert!(error.contains("p.csv.gz, byte 22: field id: invalid type"), "{error}");
    fs::write(&path, packed(Compression::Gzip, b"id,owner\n1,a\n")).unwrap();
    let error = bag_error(Bag::<Account>::read_csv(&cluster, &path, CsvOptions::default()).collect().await);
    assert!(error.contains("has no column balance"), "{error}");
}
