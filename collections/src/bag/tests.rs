//! Bags on an embedded cluster, against what plain iterators give.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use starling_actors::{Cluster, LocalOptions};
use starling_core::failure::{FailureCause, TaskFailure};
use starling_core::ids::{JobId, TaskId};
use starling_runtime::task::ClientError;
use starling_runtime::task::items::Buckets;

use super::plan::{CsvRange, End, Program, StageSource};
use super::run::{Attempts, PROGRAM_BYTES_MAX, Run};
use super::stage::stage_call;
use super::{Bag, BagError};
use crate::csv::{CsvFiles, CsvOptions};

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

async fn cluster() -> Cluster {
    Cluster::local(2).await.unwrap()
}

fn words() -> Vec<String> {
    "the quick brown fox jumps over the lazy dog and the cat".split(' ').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_fuse_and_keep_the_order() {
    let cluster = cluster().await;
    for partitions in [1, 3, 5, 100] {
        let bag = Bag::from_sequence(&cluster, words(), partitions).unwrap();
        let out = bag
            .filter(task!(|word: &str| word != "the"))
            .flat_map(task!(|word: String| word.chars().map(|c| c.to_string()).collect::<Vec<_>>()))
            .map(task!([tail: String = "!".to_owned()] |letter: String| letter + &tail));
        let expected: Vec<String> = words()
            .iter()
            .filter(|word| *word != "the")
            .flat_map(|word| word.chars().map(|c| format!("{c}!")).collect::<Vec<_>>())
            .collect();
        assert_eq!(out.count().await.unwrap(), expected.len() as u64);
        assert_eq!(out.take(7).await.unwrap(), expected[..7]);
        assert_eq!(out.take(1000).await.unwrap(), expected);
        assert_eq!(out.collect().await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_bag_has_answers() {
    let cluster = cluster().await;
    let bag = Bag::<u64>::from_sequence(&cluster, Vec::new(), 4).unwrap();
    assert_eq!(bag.count().await.unwrap(), 0);
    assert!(bag.collect().await.unwrap().is_empty());
    let add = task!(|a: u64, b: u64| a + b);
    assert_eq!(bag.fold(7, add.clone(), add).await.unwrap(), 7);
    assert_eq!(bag.clone().frequencies().collect().await.unwrap(), []);
    assert!(bag.topk(2, task!(|n: &u64| *n)).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn folds_meet_in_a_tree_in_order() {
    let cluster = cluster().await;
    let bag = Bag::from_sequence(&cluster, (0..1000_u32).collect(), 77).unwrap();
    let text = bag
        .fold(String::new(), task!(|text: String, n: u32| text + &n.to_string()), task!(|a: String, b: &str| a + b))
        .await
        .unwrap();
    assert_eq!(text, (0..1000).map(|n| n.to_string()).collect::<String>());
    assert_eq!(bag.topk(3, task!(|n: &u32| n % 500)).await.unwrap(), [499, 999, 498]);
    let least = bag.topk(2, task!(|n: &u32| std::cmp::Reverse(*n))).await.unwrap();
    assert_eq!(least, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn groupings_are_the_same_in_one_part_and_in_many() {
    let cluster = cluster().await;
    let bag = Bag::from_sequence(&cluster, (0..500_u64).collect(), 9).unwrap();
    for parts in [1, 4] {
        let bag = bag.clone().parts(parts);
        let by_rest = bag.clone().foldby(
            task!(|n: &u64| n % 7),
            0_u64,
            task!(|sum: u64, n: u64| sum + n),
            task!(|a: u64, b: u64| a + b),
        );
        let found: BTreeMap<u64, u64> = by_rest.collect().await.unwrap().into_iter().collect();
        let mut expected = BTreeMap::new();
        (0..500_u64).for_each(|n| *expected.entry(n % 7).or_default() += n);
        assert_eq!(found, expected);

        let rest = bag.map(task!(|n: u64| n % 3)).parts(parts);
        let mut counts = rest.clone().frequencies().collect().await.unwrap();
        counts.sort_unstable();
        assert_eq!(counts, [(0, 167), (1, 167), (2, 166)]);
        let mut distinct = rest.distinct().map(task!(|n: u64| n * 10)).collect().await.unwrap();
        distinct.sort_unstable();
        assert_eq!(distinct, [0, 10, 20]);
        // A grouping is a bag like any other.
        let sums = by_rest.map(task!(|pair: &(u64, u64)| pair.1)).collect().await.unwrap();
        assert_eq!(sums.iter().sum::<u64>(), 499 * 500 / 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_pairs_equal_keys() {
    let cluster = cluster().await;
    let left = Bag::from_sequence(&cluster, (0..60_u32).collect(), 4).unwrap();
    let right = Bag::from_sequence(&cluster, words(), 3).unwrap();
    for parts in [1, 3] {
        let joined = left.clone().parts(parts).join(
            right.clone(),
            task!(|n: &u32| u64::from(n % 10)),
            task!(|w: &str| w.len() as u64),
        );
        let mut found = joined.collect().await.unwrap();
        found.sort();
        let mut expected = Vec::new();
        for n in 0..60_u32 {
            expected.extend(words().into_iter().filter(|w| w.len() as u32 == n % 10).map(|w| (n, w)));
        }
        expected.sort();
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_read_exactly_whatever_the_block_size() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "one\ntwo\r\n\nfour é").unwrap();
    fs::write(folder.path().join("b.txt"), "five\n").unwrap();
    fs::write(folder.path().join("c.txt"), "").unwrap();
    let pattern = folder.path().join("*.txt").display().to_string();
    for block_bytes in 1..25 {
        let lines = Bag::read_text_in_blocks(&cluster, &pattern, block_bytes);
        assert_eq!(lines.collect().await.unwrap(), ["one", "two", "", "four é", "five"], "blocks of {block_bytes}");
        assert_eq!(lines.count().await.unwrap(), 5);
        let lens = lines.map(task!(|line: &str| line.len() as u64));
        assert_eq!(lens.take(4).await.unwrap(), [3, 3, 0, 7]);
    }
    fs::write(folder.path().join("d.txt"), b"fine\n\xff\n").unwrap();
    let error = Bag::read_text(&cluster, &pattern).collect().await.unwrap_err();
    assert!(error.reason().contains("d.txt, line 2, byte 5: the text is not UTF-8"), "{error}");
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Row {
    id: u32,
    text: String,
}

fn csv_file(content: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    fs::write(&path, content).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_have_the_type_that_they_are_asked_as() {
    let cluster = cluster().await;
    let (_folder, path) = csv_file("\u{feff}id,other,text\n1,x,\"a\nb\"\n2,,\"\"\"c\"\"\"\n");
    let files = CsvFiles::new(&cluster, &path, CsvOptions::default());
    let rows = files.records::<Row>();
    let expected = [Row { id: 1, text: "a\nb".into() }, Row { id: 2, text: "\"c\"".into() }];
    assert_eq!(rows.collect().await.unwrap(), expected);
    assert_eq!(rows.take(1).await.unwrap(), expected[..1]);
    assert_eq!(rows.count().await.unwrap(), 2);
    let texts = rows.map(task!(|row: Row| row.text)).collect().await.unwrap();
    assert_eq!(texts, ["a\nb", "\"c\""]);
    let maps = files.records::<BTreeMap<String, String>>().collect().await.unwrap();
    assert_eq!(maps[1]["text"], "\"c\"");
    assert_eq!(maps[0].len(), 3);
}

async fn failure_of<T: starling_runtime::value::Data>(cluster: &Cluster, path: &str) -> String {
    let options = CsvOptions { block_bytes: 1 << 10, ..CsvOptions::default() };
    let error = Bag::<T>::read_csv(cluster, path, options).collect().await.err().expect("an error");
    let reason = error.reason();
    assert!(!reason.contains('\n'), "{reason}");
    reason.replace(path, "FILE")
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_are_one_line_errors_that_name_the_place() {
    let cluster = cluster().await;
    let padding = "7,some text\n".repeat(1000);
    for (content, expected) in [
        ("", "FILE is empty: a CSV file begins with a line of column names"),
        (
            "id,txt\n1,a\n",
            "FILE has no column text; its columns are id, txt: correct the name, or set CsvOptions::missing_columns if it may \
             be absent or is an alias",
        ),
        (
            &format!("id,text\n{padding}1,a\"b\n{padding}"),
            "FILE, line 1002: a stray quote; put the field in quotes and write each quote in it twice",
        ),
        (
            &format!("id,text\n{padding}1,a\"b\"\n{padding}"),
            "FILE, line 1002: a stray quote; put the field in quotes and write each quote in it twice",
        ),
        (
            &format!("id,text\n{padding}1,\"b\n{padding}"),
            "FILE, line 1002: the quote that opens this field is never closed; close it, or double it if it is text",
        ),
        (
            &format!("id,text\n{padding}1,a,b\n{padding}"),
            "FILE, line 1002: the record has 3 fields, but the header has 2; quote fields that hold commas",
        ),
        (
            &format!("id,text\n{padding}x,a\n{padding}"),
            "FILE, in the record at byte 12008: column id: invalid digit found in string",
        ),
    ] {
        let (_folder, path) = csv_file(content);
        assert_eq!(failure_of::<Row>(&cluster, &path).await, expected);
    }
    let (_folder, path) = csv_file(&format!("id,text\n{padding}x,a\n{padding}"));
    let rows = Bag::<Row>::read_csv(&cluster, &path, CsvOptions::default());
    let error = rows.map(task!(|row: Row| row.id)).count().await.unwrap_err();
    assert_eq!(error.reason().replace(&path, "FILE"), "FILE, line 1002: column id: invalid digit found in string");
    let missing = failure_of::<Row>(&cluster, "/nowhere/posts.csv").await;
    assert_eq!(missing, "there is no file FILE; correct the path, and see that every worker has the file under it");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_with_other_columns_are_not_read_together() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), "id,text\n1,a\n").unwrap();
    fs::write(folder.path().join("b.csv"), "id,text\n2,b\n").unwrap();
    let pattern = folder.path().join("?.csv").display().to_string();
    let both = Bag::<Row>::read_csv(&cluster, &pattern, CsvOptions::default());
    assert_eq!(both.map(task!(|row: &Row| row.id)).collect().await.unwrap(), [1, 2]);
    fs::write(folder.path().join("c.csv"), "id,body\n2,b\n").unwrap();
    let error = Bag::<Row>::read_csv(&cluster, &pattern, CsvOptions::default()).count().await.unwrap_err();
    assert!(error.reason().contains("c.csv has other columns than"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_between_the_passes_is_an_error() {
    let cluster = cluster().await;
    let (_folder, path) = csv_file("id,text\n1,a\n");
    let files = CsvFiles::new(&cluster, &path, CsvOptions::default());
    files.scan().await.unwrap();
    fs::write(&path, "id,text\n1,a\n2,b\n").unwrap();
    let error = files.records::<Row>().count().await.unwrap_err();
    assert!(
        error
            .reason()
            .contains("rows.csv is not the file that was found: it has changed, or this worker has another copy"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn untyped_records_cannot_be_compared_and_say_what_to_do() {
    let cluster = cluster().await;
    let (_folder, path) = csv_file("id,text\n1,a\n1,a\n");
    let rows = Bag::<Row>::read_csv(&cluster, &path, CsvOptions::default());
    let error = rows.clone().frequencies().collect().await.unwrap_err();
    assert!(error.reason().contains("put a map(task!(|row: Row| ...)) before this step"), "{error}");
    assert!(matches!(rows.persist().await, Err(BagError::Untyped)));
    let typed = rows.map(task!(|row: Row| row)).frequencies().collect().await.unwrap();
    assert_eq!(typed, [(Row { id: 1, text: "a".into() }, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_closure_fails_the_bag_with_its_message() {
    let cluster = cluster().await;
    let bag = Bag::from_sequence(&cluster, words(), 3).unwrap();
    let error = bag.clone().try_map(task!(|word: String| word.parse::<u32>())).count().await.unwrap_err();
    assert_eq!(error.reason(), "invalid digit found in string");
    let results = bag.clone().map(task!(|word: String| word.parse::<u32>().map_err(|error| error.to_string())));
    assert_eq!(results.take(1).await.unwrap(), [Err("invalid digit found in string".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_bag_is_computed_once_and_progress_reaches_the_end() {
    let cluster = cluster().await;
    let bag = Bag::from_sequence(&cluster, words(), 3).unwrap().map(task!(|word: String| word.len() as u64));
    let kept = bag.persist().await.unwrap();
    assert_eq!(kept.count().await.unwrap(), words().len() as u64);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook = seen.clone();
    let lens = kept.on_progress(move |done, total| hook.lock().unwrap().push((done, total)));
    assert_eq!(lens.collect().await.unwrap(), words().iter().map(|word| word.len() as u64).collect::<Vec<_>>());
    assert_eq!(lens.map(task!(|n: u64| n + 1)).count().await.unwrap(), 12);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.last(), Some(&(3, 3)));
    assert!(seen.is_sorted_by(|one, next| one.1 != next.1 || one.0 <= next.0), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_stray_quote_of_a_file_is_the_one_that_is_told() {
    let cluster = cluster().await;
    let padding = "7,\"some\ntext\"\n".repeat(1000);
    // The second stray quote makes their number even; what stands between the two is cut inside of its fields.
    let (_folder, path) = csv_file(&format!("id,text\n{padding}1,a\"b\n{padding}2,c\"d\n{padding}"));
    let files = CsvFiles::new(&cluster, &path, CsvOptions { block_bytes: 1 << 10, ..CsvOptions::default() });
    let ranges = files.scan().await.unwrap().files[0].1.ranges.clone();
    let expected = "FILE, line 2002: a stray quote; put the field in quotes and write each quote in it twice";
    // Each range by itself, since which one fails first is chance.
    let mut told = 0;
    for range in ranges {
        let file = files.scan().await.unwrap().files[0].0.clone();
        let (numbers, names) = (vec![0, 1], vec!["id".to_owned(), "text".to_owned()]);
        let source = StageSource::Csv(CsvRange { file, range, total: 2, numbers, names });
        let program = Program { steps: Vec::new(), end: End::Count };
        let run = cluster.submit(stage_call(source, program, Vec::<Arc<Buckets>>::new())).result().await;
        if let Err(error) = run {
            assert_eq!(BagError::from(error).reason().replace(&path, "FILE"), expected);
            told += 1;
        }
    }
    assert!(told > 1, "{told} ranges failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_client_finds_unfit_is_told_with_its_own_file() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), format!("id,text\n{}", "1,a\n".repeat(1000))).unwrap();
    fs::write(folder.path().join("b.csv"), "id,text\n2,b\nx,c\n").unwrap();
    let pattern = folder.path().join("?.csv").display().to_string();
    let options = CsvOptions { block_bytes: 1 << 10, ..CsvOptions::default() };
    let rows = Bag::<Row>::read_csv(&cluster, &pattern, options);
    for error in [rows.collect().await.unwrap_err(), rows.take(2000).await.unwrap_err()] {
        let expected = "b.csv, in the record at byte 12: column id: invalid digit found in string";
        assert!(error.reason().ends_with(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_file_that_is_cut_short_after_it_was_found_is_an_error() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lines.txt");
    fs::write(&path, "one\ntwo\nthree\n").unwrap();
    static CUT: Mutex<Option<std::path::PathBuf>> = Mutex::new(None);
    *CUT.lock().unwrap() = Some(path.clone());
    let lines = Bag::read_text(&cluster, path.display().to_string());
    // The first line is handed on while the file is open, and the file is cut then.
    let shortened = lines.map(task!(|line: String| {
        if let Some(path) = CUT.lock().unwrap().take() {
            fs::write(path, "one\ntwo\n").unwrap();
        }
        line
    }));
    let error = shortened.collect().await.unwrap_err();
    assert!(error.reason().contains("lines.txt is not the file that was found"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_counts_the_tasks_that_work_and_not_those_that_only_cut() {
    let cluster = cluster().await;
    let bag = Bag::from_sequence(&cluster, (0..90_u32).collect(), 9).unwrap().parts(4);
    let seen = Arc::new(Mutex::new((0, 0)));
    let hook = seen.clone();
    let bag = bag.on_progress(move |done, total| *hook.lock().unwrap() = (done, total));
    assert_eq!(bag.distinct().collect().await.unwrap().len(), 90);
    // Nine partitions, and for each of four parts a tree of nine outputs.
    assert_eq!(*seen.lock().unwrap(), (9 + 4 * 3, 9 + 4 * 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_from_a_grouping_groups_once() {
    static LOOKED_AT: AtomicUsize = AtomicUsize::new(0);
    let cluster = cluster().await;
    let bag = Bag::from_sequence(&cluster, (0..100_u32).collect(), 3).unwrap();
    let seen = bag.map(task!(|n: u32| {
        LOOKED_AT.fetch_add(1, Ordering::Relaxed);
        n
    }));
    let distinct = seen.parts(8).distinct().map(task!(|n: u32| n + 1));
    let mut all = distinct.take(1000).await.unwrap();
    all.sort_unstable();
    assert_eq!(all, (1..=100).collect::<Vec<_>>());
    assert_eq!(LOOKED_AT.load(Ordering::Relaxed), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_captures_reach_every_stage_and_travel_once() {
    let cluster = cluster().await;
    let table: Vec<u32> = (0..20_000).rev().collect();
    let bag = Bag::from_sequence(&cluster, (0..40_u32).collect(), 20).unwrap();
    let mapped = bag.map(task!([table: Vec<u32>] |n: u32| table[n as usize]));
    assert_eq!(mapped.collect().await.unwrap(), (0..40).map(|n| 19_999 - n).collect::<Vec<u32>>());
    let sum = mapped.fold(0, task!(|a: u64, n: u32| a + u64::from(n)), task!(|a: u64, b: u64| a + b)).await.unwrap();
    assert_eq!(sum, (0..40).map(|n| 19_999 - n).sum::<u64>());

    let program = Program { steps: mapped.plan.steps.clone(), end: End::Count };
    assert!(program.nbytes() > PROGRAM_BYTES_MAX);
    let shared = Run::new(&cluster, None).program(&mapped.plan.steps, &End::Count);
    let parts = stage_call(StageSource::Inputs, &shared, Vec::<Arc<Buckets>>::new()).into_parts().unwrap();
    assert!(parts.payload.len() < 100, "{} bytes a stage", parts.payload.len());
}

/// Blocks until `gate` is open, or for too long.
fn pass(gate: &AtomicBool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !gate.load(Ordering::Acquire) && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_survives_the_loss_of_a_worker_that_holds_part_of_it() {
    static OPEN: AtomicBool = AtomicBool::new(false);
    let cluster = Cluster::local_with(LocalOptions { nthreads: 1, ..LocalOptions::new(2) }).await.unwrap();
    // Blocks that are too large to ride in the tasks: each worker gets one.
    let bag = Bag::from_sequence(&cluster, (0..40_000_u32).collect(), 2).unwrap();
    let slow = bag.map(task!(|n: u32| {
        pass(&OPEN);
        n
    }));
    let sum = {
        let cluster = cluster.clone();
        let hooked = slow.on_progress({
            let lost = AtomicBool::new(false);
            move |_, _| {
                // Both blocks are placed when progress begins.
                if !lost.swap(true, Ordering::Relaxed) {
                    let cluster = cluster.clone();
                    tokio::spawn(async move {
                        cluster.nodes()[2].mesh().shutdown().await;
                        OPEN.store(true, Ordering::Release);
                    });
                }
            }
        });
        let add = task!(|a: u64, b: u64| a + b);
        hooked.fold(0, task!(|a: u64, n: u32| a + u64::from(n)), add).await.unwrap()
    };
    assert_eq!(sum, (0..40_000_u64).sum::<u64>());
}

#[test]
fn only_lost_data_is_worth_another_attempt_and_not_for_ever() {
    let task = TaskId::new(JobId(1), 2);
    let failed =
        |cause| BagError::from(ClientError::Failed(TaskFailure { task, name: "stage".into(), node: None, cause }));
    let mut attempts = Attempts::new();
    assert!(!attempts.again(&failed(FailureCause::UnknownKind)));
    assert!(!attempts.again(&BagError::Untyped));
    let lost = failed(FailureCause::DataLost { input: task });
    let again: Vec<bool> = (0..5).map(|_| attempts.again(&lost)).collect();
    assert_eq!(again, [true, true, true, false, false]);
}
