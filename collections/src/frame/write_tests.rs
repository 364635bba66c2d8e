//! Files are written whole or not at all, one a partition, whatever becomes of the workers.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::{Int64Type, UInt64Type};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use starling_actors::{Cluster, LocalOptions};
use starling_core::ids::NodeId;
use tempfile::TempDir;

use super::*;
use crate::frame::Frames;

/// Where the function `gate` has stopped, by its argument, until it may go on.
static GATES: Mutex<Option<HashMap<i64, Gate>>> = Mutex::new(None);
static GATES_CHANGED: Condvar = Condvar::new();

#[derive(Clone, Copy, Default)]
struct Gate {
    /// The node whose task has come there.
    at: Option<NodeId>,
    is_open: bool,
}

fn with_gate<T>(number: i64, change: impl FnOnce(&mut Gate) -> T) -> T {
    let mut gates = GATES.lock().unwrap();
    let changed = change(gates.get_or_insert_default().entry(number).or_default());
    GATES_CHANGED.notify_all();
    changed
}

/// Waits until a gate is as it should be.
fn wait_at_gate(number: i64, is_so: impl Fn(&Gate) -> bool) -> Gate {
    let mut gates = GATES.lock().unwrap();
    loop {
        let gate = *gates.get_or_insert_default().entry(number).or_default();
        if is_so(&gate) {
            return gate;
        }
        gates = GATES_CHANGED.wait(gates).unwrap();
    }
}

/// `gate(n, number)` is `n`, but whoever has the row `number` waits there.
fn pass_gate(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(args)?;
    let rows = arrays[0].as_primitive::<Int64Type>();
    let number = arrays[1].as_primitive::<Int64Type>().value(0);
    if rows.values().contains(&number) {
        let node = CurrentNode::get().unwrap().node();
        with_gate(number, |gate| gate.at = Some(node));
        wait_at_gate(number, |gate| gate.is_open);
    }
    Ok(ColumnarValue::Array(Arc::clone(&arrays[0])))
}

crate::functions!(|registry| {
    let arguments = vec![DataType::Int64, DataType::Int64];
    let gate = create_udf("gate", arguments, DataType::Int64, Volatility::Volatile, Arc::new(pass_gate));
    registry.register_udf(Arc::new(gate))?;
    Ok(())
});

struct Bench {
    folder: TempDir,
    cluster: Cluster,
    frames: Frames,
}

impl Bench {
    /// Two workers and a table `t`, whose four partitions have the numbers up to 4000 as `n`, in order.
    async fn new() -> Bench {
        let options = LocalOptions { nthreads: 4, ..LocalOptions::new(2) };
        let cluster = Cluster::local_with(options).await.unwrap();
        let frames = Frames::of(&cluster);
        let partitions = (0..4).map(|part| (0..10).map(|batch| numbers((part * 10 + batch) * 100, 100)).collect());
        let partitions: Vec<Vec<RecordBatch>> = partitions.collect();
        let table = MemTable::try_new(partitions[0][0].schema(), partitions).unwrap();
        frames.context().register_table("t", Arc::new(table)).unwrap();
        Bench { folder: tempfile::tempdir().unwrap(), cluster, frames }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// How many rows a statement says it has written.
    async fn count(&self, statement: &str) -> u64 {
        let batches = self.frames.sql(statement).await.unwrap().collect().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
        assert_eq!(batches[0].schema().field(0).name(), "count");
        batches[0].column(0).as_primitive::<UInt64Type>().value(0)
    }

    /// The names of all that is in a directory, hidden files among them, in their order.
    fn names(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.path().join(directory)) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    /// Waits until so many files are whole, and have no names yet.
    async fn wait_for_drafts(&self, directory: &str, count: usize) {
        while self.names(directory).iter().filter(|name| name.ends_with(".tmp")).count() < count {
            tokio::task::yield_now().await;
        }
        let names = self.names(directory);
        assert!(names.iter().all(|name| name.starts_with(".part-")), "{names:?}");
    }
}

fn numbers(first: i64, count: i64) -> RecordBatch {
    let column = |column: Int64Array| Arc::new(column) as ArrayRef;
    let n = column((first..first + count).collect());
    RecordBatch::try_from_iter([("n", n)]).unwrap()
}

/// The numbers of a file, in its order, by plain DataFusion.
async fn read(path: &Path) -> Vec<i64> {
    let context = SessionContext::new();
    let query = format!("SELECT n FROM '{}'", path.display());
    let context = context.enable_url_table();
    let batches = context.sql(&query).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn assert_parts(names: &[String], extension: &str, count: usize) {
    assert_eq!(names.len(), count, "{names:?}");
    for (number, name) in names.iter().enumerate() {
        let is_part = name.starts_with(&format!("part-{number:05}-")) && name.ends_with(&format!(".{extension}"));
        assert!(is_part, "{names:?}");
    }
}

async fn assert_partitions(bench: &Bench, directory: &str, extension: &str) {
    let names = bench.names(directory);
    assert_parts(&names, extension, 4);
    for (number, name) in (0_i64..).zip(&names) {
        let expected: Range<i64> = number * 1000..(number + 1) * 1000;
        let found = read(&bench.folder.path().join(directory).join(name)).await;
        assert_eq!(found, expected.collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_partition_becomes_one_file_in_the_order_of_their_names() {
    let bench = Bench::new().await;
    for format in ["parquet", "csv", "json"] {
        let directory = bench.path(format);
        assert_eq!(bench.count(&format!("COPY t TO '{directory}/' STORED AS {format}")).await, 4000);
        assert_partitions(&bench, format, format).await;
    }
    let frame = || async { bench.frames.context().table("t").await.unwrap() };
    let options = DataFrameWriteOptions::new;
    frame().await.write_parquet(&bench.path("a/parquet/"), options(), None).await.unwrap();
    frame().await.write_csv(&bench.path("a/csv/"), options(), None).await.unwrap();
    frame().await.write_json(&bench.path("a/json/"), options(), None).await.unwrap();
    for format in ["parquet", "csv", "json"] {
        assert_partitions(&bench, &format!("a/{format}"), format).await;
    }
    let copied = format!("COPY t TO '{}/' STORED AS parquet", bench.path("explained"));
    let plan = bench.frames.sql(&format!("EXPLAIN {copied}")).await.unwrap().to_string().await.unwrap();
    for node in
        ["WriteExec: file://", "MeshExec: stages=1, tasks=4", "WriteFilesExec: files=one a partition, sink=Parquet"]
    {
        assert!(plan.contains(node), "{plan}");
    }
    assert_eq!(bench.names("explained"), Vec::<String>::new());
    let analyzed = bench.frames.sql(&format!("EXPLAIN ANALYZE {copied}")).await.unwrap().to_string().await.unwrap();
    assert!(analyzed.contains("rows_written=4.00 K") || analyzed.contains("rows_written=4000"), "{analyzed}");
    assert_partitions(&bench, "explained", "parquet").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_a_file_is_that_file_and_is_replaced() {
    let bench = Bench::new().await;
    for format in ["parquet", "csv", "json"] {
        let file = format!("{format}/all.{format}");
        let path = bench.path(&file);
        assert_eq!(bench.count(&format!("COPY (SELECT n FROM t ORDER BY n DESC) TO '{path}'")).await, 4000);
        assert_eq!(read(Path::new(&path)).await, (0..4000).rev().collect::<Vec<_>>());
        assert_eq!(bench.count(&format!("COPY (SELECT n FROM t WHERE n < 7) TO '{path}'")).await, 7);
        assert_eq!(read(Path::new(&path)).await, (0..7).collect::<Vec<_>>());
        let failing = bench.frames.sql(&format!("COPY (SELECT 1 / (n - 2500) AS n FROM t) TO '{path}'")).await;
        failing.unwrap().collect().await.unwrap_err();
        assert_eq!(read(Path::new(&path)).await, (0..7).collect::<Vec<_>>());
        assert_eq!(bench.names(format), [format!("all.{format}")]);
    }
    // An order is that of the only file; no rows are a file too, and rows that come from nowhere.
    assert_eq!(
        bench.count(&format!("COPY (SELECT n FROM t ORDER BY n DESC) TO '{}/' STORED AS csv", bench.path("o"))).await,
        4000
    );
    let ordered = bench.names("o");
    assert_parts(&ordered, "csv", 1);
    assert_eq!(read(&bench.folder.path().join("o").join(&ordered[0])).await, (0..4000).rev().collect::<Vec<_>>());
    let path = bench.path("none.parquet");
    assert_eq!(bench.count(&format!("COPY (SELECT n FROM t WHERE n < 0) TO '{path}'")).await, 0);
    assert_eq!(read(Path::new(&path)).await, Vec::<i64>::new());
    let path = bench.path("one.parquet");
    assert_eq!(bench.count(&format!("COPY (SELECT CAST(5 AS BIGINT) AS n) TO '{path}'")).await, 1);
    assert_eq!(read(Path::new(&path)).await, [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_in_the_middle_leaves_no_file() {
    let bench = Bench::new().await;
    let directory = bench.path("failed");
    let query = format!("COPY (SELECT 1 / (gate(n, 2500) - 2500) AS n FROM t) TO '{directory}/' STORED AS parquet");
    let failed = tokio::spawn(bench.frames.sql(&query).await.unwrap().collect());
    bench.wait_for_drafts("failed", 3).await;
    with_gate(2500, |gate| gate.is_open = true);
    let error = failed.await.unwrap().unwrap_err();
    assert!(format!("{error:?}").contains("Divide by zero"), "{error:?}");
    assert_eq!(bench.names("failed"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_dropped_leaves_no_file() {
    let bench = Bench::new().await;
    let directory = bench.path("dropped");
    let query = format!("COPY (SELECT gate(n, 2600) AS n FROM t) TO '{directory}/' STORED AS csv");
    let dropped = tokio::spawn(bench.frames.sql(&query).await.unwrap().collect());
    bench.wait_for_drafts("dropped", 3).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    with_gate(2600, |gate| gate.is_open = true);
    while !bench.names("dropped").is_empty() {
        tokio::task::yield_now().await;
    }
}

static STORE: LazyLock<Arc<InMemory>> = LazyLock::new(Arc::default);

/// Gives the node a store that is no disk.
#[task(crate = starling_runtime)]
fn add_store(url: &str) -> Result<()> {
    let store = Arc::clone(&*STORE);
    stage::environment()?.register_object_store(&Url::parse(url).unwrap(), store);
    Ok(())
}

async fn objects() -> Vec<String> {
    let mut objects: Vec<String> =
        STORE.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
    objects.sort_unstable();
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_store_have_their_names_at_once_and_none_is_left_of_a_query_that_fails() {
    let bench = Bench::new().await;
    for node in &bench.cluster.nodes()[1..] {
        let call = add_store::task("s3://in-memory".to_owned()).workers([node.id().hex()]);
        bench.cluster.submit(call).result().await.unwrap();
    }
    let query = "COPY (SELECT 1 / (gate(n, 2700) - 2700) AS n FROM t) TO 's3://in-memory/failed/' STORED AS csv";
    let failed = tokio::spawn(bench.frames.sql(query).await.unwrap().collect());
    while objects().await.len() < 3 {
        assert!(!failed.is_finished(), "{:?}", failed.await);
        tokio::task::yield_now().await;
    }
    with_gate(2700, |gate| gate.is_open = true);
    failed.await.unwrap().unwrap_err();
    assert_eq!(objects().await, Vec::<String>::new());

    assert_eq!(bench.count("COPY (SELECT n FROM t) TO 's3://in-memory/good/' STORED AS json").await, 4000);
    let names: Vec<String> = objects().await;
    assert_parts(&names.iter().map(|name| name.replace("good/", "")).collect::<Vec<_>>(), "json", 4);
    let third = STORE.get(&ObjectPath::from(names[2].as_str())).await.unwrap().bytes().await.unwrap();
    assert!(third.starts_with(b"{\"n\":2000}\n") && third.ends_with(b"{\"n\":2999}\n"));
    assert_eq!(bench.count("COPY (SELECT n FROM t LIMIT 10) TO 's3://in-memory/one.csv'").await, 10);
    assert_eq!(objects().await.last().map(String::as_str), Some("one.csv"));
    assert_eq!(objects().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_inserted_as_files_beside_those_that_are_there() {
    let bench = Bench::new().await;
    let directory = bench.path("table");
    bench.count(&format!("COPY (SELECT n FROM t WHERE n < 10) TO '{directory}/first.parquet'")).await;
    let create = format!("CREATE EXTERNAL TABLE u (n BIGINT) STORED AS PARQUET LOCATION '{directory}/'");
    bench.frames.sql(&create).await.unwrap();
    assert_eq!(bench.count("INSERT INTO u SELECT n FROM t").await, 4000);
    assert_eq!(bench.names("table").len(), 5);
    assert_eq!(bench.count("INSERT INTO u SELECT n + 10000 FROM u WHERE n < 10").await, 20);
    assert_eq!(bench.count("INSERT INTO u VALUES (-1), (-2)").await, 2);
    let sums = bench.frames.sql("SELECT count(*), sum(n) FROM u").await.unwrap().collect().await.unwrap();
    let sum = |column: usize| sums[0].column(column).as_primitive::<Int64Type>().value(0);
    assert_eq!((sum(0), sum(1)), (10 + 4000 + 20 + 2, 45 + 3999 * 2000 + 2 * 45 + 20 * 10000 - 3));
    assert!(bench.names("table").iter().all(|name| name.ends_with(".parquet")), "{:?}", bench.names("table"));
    let overwrite = bench.frames.sql("INSERT OVERWRITE u SELECT n FROM t").await.unwrap().collect().await;
    assert!(overwrite.unwrap_err().to_string().contains("Overwrites are not implemented"));
}

/// Loses a worker when all files but one are whole, and with it the files if `is_with_disk`.
async fn lose_a_worker(number: i64, is_with_disk: bool) {
    let bench = Bench::new().await;
    let path = bench.path("lost");
    let query = format!("COPY (SELECT gate(n, {number}) AS n FROM t) TO '{path}/' STORED AS parquet");
    let written = tokio::spawn(bench.frames.sql(&query).await.unwrap().collect());
    let gate = tokio::task::spawn_blocking(move || wait_at_gate(number, |gate| gate.at.is_some())).await.unwrap();
    bench.wait_for_drafts("lost", 3).await;
    let other = bench.cluster.nodes()[1..].iter().find(|node| Some(node.id()) != gate.at).unwrap();
    other.mesh().shutdown().await;
    if is_with_disk {
        for name in bench.names("lost") {
            fs::remove_file(bench.folder.path().join("lost").join(name)).unwrap();
        }
    }
    with_gate(number, |gate| gate.is_open = true);
    let batches = written.await.unwrap().unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<UInt64Type>().value(0), 4000);
    assert_partitions(&bench, "lost", "parquet").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_leaves_one_file_a_partition() {
    lose_a_worker(3500, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_lost_before_they_have_names_are_written_again() {
    lose_a_worker(3600, true).await;
}

#[test]
fn a_write_that_is_over_stops_its_tasks_and_waits_for_them() {
    let writes = Arc::new(Writes::default());
    let running = Arc::clone(&writes).begin(1).unwrap();
    let ending = std::thread::spawn({
        let writes = Arc::clone(&writes);
        move || writes.end(1)
    });
    while !writes.is_over(1) {
        std::thread::yield_now();
    }
    assert!(!ending.is_finished());
    drop(running);
    ending.join().unwrap();
    assert!(matches!(Arc::clone(&writes).begin(1), Err(WriteError::Over)));
    assert!(writes.begin(2).is_ok());
}

#[test]
fn the_files_of_a_write_are_known_by_their_names() {
    let draft = format!("{}{:016x}.tmp", draft_prefix(7), 9);
    assert!(is_of(&draft, 7, true) && is_of(&format!("{draft}#1"), 7, false));
    assert!(!is_of(&draft, 9, false));
    let part = "part-00003-0000000000000007.csv.gz";
    assert!(is_of(part, 7, false) && !is_of(part, 7, true) && !is_of(part, 3, false));
}
