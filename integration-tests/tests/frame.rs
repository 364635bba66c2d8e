//! Queries on an embedded cluster against the same queries by plain DataFusion.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::physical_plan::displayable;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use starling::frame::{FrameError, Frames, Persist, TableSource};
use starling::{Cluster, LocalOptions, MemoryConfig};
use starling_integration_tests::processes::Processes;
use tempfile::TempDir;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

const SCALE: f64 = 0.01;
const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

fn table(name: &str) -> Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>> {
    match name {
        "customer" => Box::new(CustomerArrow::new(CustomerGenerator::new(SCALE, 1, 1))),
        "lineitem" => Box::new(LineItemArrow::new(LineItemGenerator::new(SCALE, 1, 1))),
        "nation" => Box::new(NationArrow::new(NationGenerator::new(SCALE, 1, 1))),
        "orders" => Box::new(OrderArrow::new(OrderGenerator::new(SCALE, 1, 1))),
        "part" => Box::new(PartArrow::new(PartGenerator::new(SCALE, 1, 1))),
        "partsupp" => Box::new(PartSuppArrow::new(PartSuppGenerator::new(SCALE, 1, 1))),
        "region" => Box::new(RegionArrow::new(RegionGenerator::new(SCALE, 1, 1))),
        "supplier" => Box::new(SupplierArrow::new(SupplierGenerator::new(SCALE, 1, 1))),
        other => panic!("no table {other}"),
    }
}

/// The tables of TPC-H as one Parquet file each.
async fn tpch() -> TempDir {
    let directory = TempDir::new().unwrap();
    let plain = SessionContext::new();
    for name in TABLES {
        let batches = table(name).collect::<Result<Vec<_>, _>>().unwrap();
        let path = directory.path().join(format!("{name}.parquet"));
        let frame = plain.read_batches(batches).unwrap();
        let options = DataFrameWriteOptions::new().with_single_file_output(true);
        frame.write_parquet(path.to_str().unwrap(), options, None).await.unwrap();
    }
    directory
}

async fn register(context: &SessionContext, directory: &Path) {
    for name in TABLES {
        let path = directory.join(format!("{name}.parquet"));
        context.register_parquet(name, path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    }
    // So that even small files are read in several pieces.
    context.sql("SET datafusion.optimizer.repartition_file_min_size = 1000").await.unwrap();
}

/// The rows as text: in the query's order if it has one, else in theirs.
async fn answer(context: &SessionContext, query: &str) -> Vec<String> {
    let batches = context.sql(query).await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // An order inside of parentheses is that of something else.
    if !query.to_lowercase().rsplit(')').next().unwrap_or_default().contains("order by") {
        lines.sort_unstable();
    }
    lines
}

fn query(number: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../bench/src/tpch/queries/q{number:02}.sql"));
    // Query 11 has a fraction that depends on the scale.
    std::fs::read_to_string(path).unwrap().replace("{fraction}", &(0.0001 / SCALE).to_string())
}

/// Sessions of plain DataFusion and of the cluster that know the same tables.
struct Both {
    plain: SessionContext,
    frames: Frames,
}

impl Both {
    /// Tables `a`, `b` and `nested` in memory, in several partitions, with NULLs, and keys that match none, one or many.
    async fn with_small_tables(cluster: &Cluster) -> Both {
        let both = Both { plain: SessionContext::new(), frames: Frames::fresh(cluster) };
        for context in [&both.plain, both.frames.context()] {
            for (name, from) in [("a", 0), ("b", 40)] {
                let partitions = (0..3).map(|part| vec![small(from + part * 20)]).collect();
                let table = MemTable::try_new(small(0).schema(), partitions).unwrap();
                context.register_table(name, Arc::new(table)).unwrap();
            }
            let nested = "CREATE TABLE nested AS SELECT k, [k, NULL, k + 1] AS list, {'x': k, 'y': s} AS pair FROM a";
            context.sql(nested).await.unwrap().collect().await.unwrap();
        }
        both
    }

    async fn agree_on(&self, query: &str) {
        let expected = answer(&self.plain, query).await;
        let plan = self.frames.sql(query).await.unwrap().create_physical_plan().await.unwrap();
        let plan = displayable(&*plan).indent(false).to_string();
        assert!(plan.contains("MeshExec"), "{query} does not run on the cluster:\n{plan}");
        assert_eq!(answer(self.frames.context(), query).await, expected, "{query}\n{plan}");
    }
}

/// Rows with the keys from `from` to `from + 20`, some of them twice and some NULL.
fn small(from: i64) -> RecordBatch {
    let keys = (from..from + 20).flat_map(|key| vec![(key % 7 != 3).then_some(key); 1 + (key % 3 == 0) as usize]);
    let keys: Vec<Option<i64>> = keys.collect();
    let texts = keys.iter().map(|key| key.filter(|key| key % 5 != 1).map(|key| format!("text {}", key % 11)));
    let texts: StringArray = texts.collect();
    let numbers: Float64Array = keys.iter().enumerate().map(|(row, _)| Some(row as f64 / 4.0)).collect();
    RecordBatch::try_from_iter([
        ("k", Arc::new(Int64Array::from(keys)) as ArrayRef),
        ("s", Arc::new(texts)),
        ("x", Arc::new(numbers)),
    ])
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_query_has_the_answer_of_plain_datafusion() {
    let cluster = Cluster::local(2).await.unwrap();
    let both = Both::with_small_tables(&cluster).await;
    let kinds = [
        "JOIN",
        "LEFT JOIN",
        "RIGHT JOIN",
        "FULL JOIN",
        "LEFT SEMI JOIN",
        "RIGHT SEMI JOIN",
        "LEFT ANTI JOIN",
        "RIGHT ANTI JOIN",
    ];
    for kind in kinds {
        for on in ["a.k = b.k", "a.k = b.k AND a.x < b.x", "a.k < b.k - 30", "a.x = b.x AND a.s <> b.s"] {
            both.agree_on(&format!("SELECT * FROM a {kind} b ON {on}")).await;
        }
    }
    for query in [
        "SELECT a.k, b.k FROM a CROSS JOIN b WHERE a.x + b.x > 12",
        "SELECT count(*), count(k), sum(k), avg(x), min(s), max(s), count(DISTINCT s) FROM a",
        "SELECT s, count(*), sum(x), round(stddev(x), 9), array_agg(k ORDER BY k) FROM a GROUP BY s",
        "SELECT k % 3, s, sum(x) FROM a GROUP BY ROLLUP (k % 3, s)",
        "SELECT DISTINCT s FROM a",
        "SELECT * FROM a ORDER BY k NULLS FIRST, x LIMIT 7 OFFSET 3",
        "SELECT * FROM a ORDER BY s DESC, k, x",
        "SELECT k, x, sum(x) OVER (PARTITION BY s ORDER BY k, x), row_number() OVER (ORDER BY k, x), lag(x) OVER (ORDER BY k, x) FROM a",
        "SELECT k FROM a UNION ALL SELECT k FROM b",
        "SELECT k, s FROM a UNION SELECT k, s FROM b",
        "SELECT k FROM a INTERSECT SELECT k FROM b",
        "SELECT k FROM a EXCEPT SELECT k FROM b",
        "SELECT * FROM a WHERE k IN (SELECT k FROM b WHERE x > 2)",
        "SELECT * FROM a WHERE k NOT IN (SELECT k FROM b WHERE k IS NOT NULL)",
        "SELECT * FROM a WHERE k NOT IN (SELECT k FROM b)",
        "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.x > 1)",
        "SELECT * FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
        "SELECT k, (SELECT max(x) FROM b WHERE b.k = a.k) FROM a",
        "SELECT * FROM a WHERE x > (SELECT avg(x) FROM b)",
        "WITH big AS (SELECT s, sum(x) AS total FROM a GROUP BY s) SELECT * FROM big JOIN big AS other ON big.total < other.total",
        "SELECT k, unnest(list) FROM nested",
        "SELECT pair['x'], count(*) FROM nested GROUP BY 1",
        "SELECT CASE WHEN k > 20 THEN 'high' WHEN k IS NULL THEN 'none' ELSE 'low' END AS c, count(*) FROM a GROUP BY c",
        "SELECT date_bin(INTERVAL '1 day', to_timestamp(k * 10000)) AS day, count(*) FROM a GROUP BY day",
        "SELECT approx_distinct(k), median(x), first_value(k ORDER BY k, x) FROM a",
        "SELECT x, row_number() OVER (PARTITION BY k ORDER BY x) FROM a WHERE k = 5",
        "SELECT x, sum(x) OVER (PARTITION BY k, s ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM a WHERE k = 5",
        "SELECT value, row_number() OVER (PARTITION BY value % 3 ORDER BY value) FROM generate_series(1, 9)",
        "SELECT count(*) FROM a CROSS JOIN b WHERE a.k > (SELECT min(k) FROM b) - 30",
        "SELECT s, k FROM a WHERE s LIKE '%1%' OR regexp_like(s, '[5-7]$')",
    ] {
        both.agree_on(query).await;
    }
    cluster.shutdown().await;
}

/// As without a cluster: nothing of such rows is written.
#[tokio::test(flavor = "multi_thread")]
async fn nulls_are_not_inserted_where_a_table_has_none() {
    let folder = TempDir::new().unwrap();
    let cluster = Cluster::local(2).await.unwrap();
    let frames = Frames::of(&cluster);
    let create = "CREATE EXTERNAL TABLE t (a BIGINT NOT NULL, b BIGINT) STORED AS PARQUET LOCATION";
    frames.sql(&format!("{create} '{}/'", folder.path().display())).await.unwrap();
    let insert = async |values: &str| {
        frames.sql(&format!("INSERT INTO t {values}")).await?.collect().await.map_err(FrameError::from)
    };
    insert("VALUES (1, 2)").await.unwrap();
    assert!(insert("VALUES (NULL, 3)").await.is_err());
    assert!(insert("(b) VALUES (4)").await.is_err());
    let rows = answer(frames.context(), "SELECT a, b FROM t").await;
    assert!(rows.contains(&"| 1 | 2 |".to_owned()) && rows.len() == 5, "{rows:?}");
    cluster.shutdown().await;
}

/// Dates and times of CSV files, whose formats are said by nothing.
#[tokio::test(flavor = "multi_thread")]
async fn times_are_written_to_csv_files_by_the_workers() {
    let folder = TempDir::new().unwrap();
    let cluster = Cluster::local(2).await.unwrap();
    let frames = Frames::of(&cluster);
    let path = folder.path().join("times.csv").display().to_string();
    let rows = "SELECT value AS n, to_timestamp(value) AS t, CAST(to_timestamp(value) AS DATE) AS d FROM generate_series(1, 2)";
    frames.sql(&format!("COPY ({rows} ORDER BY n) TO '{path}'")).await.unwrap().collect().await.unwrap();
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(written, "n,t,d\n1,1970-01-01T00:00:01,1970-01-01\n2,1970-01-01T00:00:02,1970-01-01\n");
    cluster.shutdown().await;
}

/// A plan that cannot be sent runs in the client, over tables of every kind.
#[tokio::test(flavor = "multi_thread")]
async fn what_workers_cannot_run_the_client_runs() {
    let cluster = Cluster::local(2).await.unwrap();
    let both = Both::with_small_tables(&cluster).await;
    both.frames.sql("SELECT * FROM a").await.unwrap().persist("kept").await.unwrap();
    both.plain.sql("CREATE VIEW kept AS SELECT * FROM a").await.unwrap().collect().await.unwrap();
    for query in [
        "WITH RECURSIVE r AS (SELECT k FROM kept WHERE k < 4 UNION ALL SELECT k + 1 FROM r WHERE k < 9) SELECT k, count(*) FROM r GROUP BY k",
        "SELECT count(*) FROM generate_series(1, 9)",
        "SELECT count(k) FROM (SELECT k FROM kept LIMIT 4294967296)",
        "SELECT k, count(*) FILTER (WHERE k > 9) OVER (PARTITION BY s), sum(x) FILTER (WHERE k > 9) OVER (ORDER BY k, x) FROM a",
        "SELECT count(*), sum(x) FROM a GROUP BY GROUPING SETS (())",
        "SELECT 40 + 2",
    ] {
        assert_eq!(answer(both.frames.context(), query).await, answer(&both.plain, query).await, "{query}");
    }
    cluster.shutdown().await;
}

/// The rows of a table in memory travel in the plan of the stage that scans it.
#[tokio::test(flavor = "multi_thread")]
async fn plans_of_any_size_reach_the_workers() {
    let cluster = Cluster::local(2).await.unwrap();
    let both = Both { plain: SessionContext::new(), frames: Frames::fresh(&cluster) };
    for (name, rows) in [("small", 1_000), ("large", 300_000), ("huge", 2_000_000)] {
        for context in [&both.plain, both.frames.context()] {
            let numbers: Int64Array = (0..rows).map(|n| Some(n * 7919 % 1_000_003)).collect();
            let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap();
            let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
            context.register_table(name, Arc::new(table)).unwrap();
        }
        both.agree_on(&format!("SELECT n % 10 AS d, count(*), sum(n) FROM {name} GROUP BY d")).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_explained_by_its_stages_and_what_they_did() {
    let cluster = Cluster::local(2).await.unwrap();
    let both = Both::with_small_tables(&cluster).await;
    let query = "SELECT s, count(*) FROM a GROUP BY s ORDER BY s";
    let text = answer(both.frames.context(), &format!("EXPLAIN {query}")).await.join("\n");
    assert!(text.contains("MeshExec: stages=") && text.contains("ExchangeSourceExec: stage="), "{text}");
    let text = answer(both.frames.context(), &format!("EXPLAIN ANALYZE {query}")).await.join("\n");
    let stage = text.lines().find(|line| line.contains("StageExec: stage=0")).unwrap();
    assert!(stage.contains("output_rows=") && !stage.contains("output_rows=0"), "{text}");
    let scan = text.lines().find(|line| line.contains("DataSourceExec")).unwrap();
    let all = small(0).num_rows() + small(20).num_rows() + small(40).num_rows();
    assert!(stage.contains("tasks=3"), "{text}");
    assert!(text.contains(&format!("output_rows={all}")) || scan.contains("metrics=[]"), "{text}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persisted_frame_stays_in_the_cluster_until_it_is_dropped() {
    let cluster = Cluster::local(2).await.unwrap();
    let both = Both::with_small_tables(&cluster).await;
    let kept = both.frames.sql("SELECT s, k, x * 2 AS double FROM a WHERE k > 5").await.unwrap();
    let kept = kept.persist("kept").await.unwrap();
    assert_eq!(kept.schema().fields().len(), 3);
    both.plain.sql("CREATE VIEW kept AS SELECT s, k, x * 2 AS double FROM a WHERE k > 5").await.unwrap();
    for query in [
        "SELECT * FROM kept",
        "SELECT s, sum(double) FROM kept GROUP BY s",
        "SELECT kept.k FROM kept JOIN b ON kept.k = b.k",
    ] {
        both.agree_on(query).await;
    }
    assert!(stored(&cluster) > 0);
    drop(kept);
    both.frames.context().deregister_table("kept").unwrap();
    eventually("the release of what was persisted", || stored(&cluster) == 0).await;
    cluster.shutdown().await;
}

fn stored(cluster: &Cluster) -> usize {
    cluster.nodes().iter().map(|node| node.store().len()).sum()
}

/// Waits for a condition that other threads bring about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

starling::functions!(|registry| {
    let thrice = Arc::new(|args: &[ColumnarValue]| {
        let values = ColumnarValue::values_to_arrays(args)?;
        let values = values[0].as_primitive::<Int64Type>();
        Ok(ColumnarValue::Array(Arc::new(values.unary::<_, Int64Type>(|value| value * 3))))
    });
    let thrice = create_udf("thrice", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, thrice);
    registry.register_udf(Arc::new(thrice))?;
    Ok(())
});

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_the_binary_run_on_the_workers() {
    let cluster = Cluster::local(2).await.unwrap();
    let both = Both::with_small_tables(&cluster).await;
    let lines = answer(both.frames.context(), "SELECT sum(thrice(k)) AS n FROM a").await;
    assert_eq!(lines, answer(&both.plain, "SELECT sum(k * 3) AS n FROM a").await);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_query_names_what_went_wrong_and_leaves_nothing() {
    let cluster = Cluster::local(2).await.unwrap();
    let both = Both::with_small_tables(&cluster).await;
    let frame = both.frames.sql("SELECT s, sum(10 / (k - k)) FROM a WHERE k > 3 GROUP BY s").await.unwrap();
    let error = frame.collect().await.unwrap_err().to_string();
    assert!(error.contains("Divide by zero"), "{error}");
    eventually("the release of everything", || stored(&cluster) == 0).await;
    // The session goes on.
    both.agree_on("SELECT sum(x) FROM a").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_larger_than_memory_spills_and_finishes() {
    let folder = TempDir::new().unwrap();
    let memory = MemoryConfig { spill_directory: Some(folder.path().to_owned()), ..MemoryConfig::limited(32 << 20) };
    let cluster = Cluster::local_with(LocalOptions { memory, ..LocalOptions::new(2) }).await.unwrap();
    let frames = Frames::of(&cluster);
    // Some 90 MB of rows, all of which cross an exchange and are sorted.
    let rows = "SELECT value AS n, value % 1000 AS g, repeat('x', 100) AS t FROM generate_series(1, 800000)";
    let query = format!(
        "WITH r AS ({rows}), w AS (SELECT n, t, row_number() OVER (PARTITION BY g ORDER BY n DESC) AS p FROM r) \
         SELECT count(*), sum(p), sum(length(t)) FROM w"
    );
    let mut most_spilled = 0;
    let asked = answer(frames.context(), &query);
    let watched = async {
        loop {
            for node in cluster.nodes() {
                most_spilled = most_spilled.max(node.store().spilled_bytes());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let lines = tokio::select! {
        lines = asked => lines,
        () = watched => unreachable!("it watches for ever"),
    };
    assert_eq!(lines, answer(&SessionContext::new(), &query).await);
    assert!(most_spilled > 0, "nothing was spilled");
    cluster.shutdown().await;
}

/// Real processes, so that one can be killed in the middle of each query.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_costs_no_query_its_answer() {
    let data = tpch().await;
    let plain = SessionContext::new();
    register(&plain, data.path()).await;
    let mut processes = Processes::start(env!("CARGO_BIN_EXE_test-node"), 3).unwrap();
    let cluster = processes.connect().await.unwrap();
    let frames = Frames::of(&cluster);
    register(frames.context(), data.path()).await;
    for number in [1, 3, 5, 18, 21] {
        let query = query(number);
        let expected = answer(&plain, &query).await;
        let progress = frames.progress();
        let asked = tokio::spawn({
            let (context, query) = (frames.context().clone(), query.clone());
            async move { answer(&context, &query).await }
        });
        // In the middle: some tasks have ended, and not all.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while progress.borrow().tasks().0 == 0 && !asked.is_finished() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut worker = processes.workers.remove(0);
        worker.kill().unwrap();
        assert_eq!(asked.await.unwrap(), expected, "query {number}");
        processes.start_worker(&[]).unwrap();
    }
    cluster.shutdown().await;
}

/// The real posts, if this checkout has them.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_posts_are_counted_exactly_by_sql() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/posts.csv");
    let Ok(counts) = std::fs::read_to_string(path.replace("posts.csv", "counts.json")) else {
        eprintln!("skipped: there is no {path}");
        return;
    };
    let counts: serde_json::Value = serde_json::from_str(&counts).unwrap();
    let cluster = Cluster::local(2).await.unwrap();
    let frames = Frames::of(&cluster);
    frames.register("posts", TableSource::new(path)).await.unwrap();
    let query = "SELECT \"PostTypeId\", count(*) FROM posts GROUP BY 1";
    let found: BTreeMap<String, u64> =
        frames.sql(query).await.unwrap().collect().await.unwrap().iter().flat_map(pairs).collect();
    let expected: BTreeMap<String, u64> = serde_json::from_value(counts["by_post_type"].clone()).unwrap();
    assert_eq!(found, expected);
    cluster.shutdown().await;
}

/// The rows of a batch of a number and a count.
fn pairs(batch: &RecordBatch) -> Vec<(String, u64)> {
    let numbers = batch.column(0).as_primitive::<Int64Type>();
    let counts = batch.column(1).as_primitive::<Int64Type>();
    numbers.values().iter().zip(counts.values()).map(|(number, count)| (number.to_string(), *count as u64)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queries_of_tpch_have_the_answers_of_plain_datafusion_on_one_worker() {
    tpch_agrees_on(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queries_of_tpch_have_the_answers_of_plain_datafusion_on_three_workers() {
    tpch_agrees_on(3).await;
}

async fn tpch_agrees_on(workers: usize) {
    let data = tpch().await;
    let plain = SessionContext::new();
    register(&plain, data.path()).await;
    let cluster = Cluster::local(workers).await.unwrap();
    let frames = Frames::of(&cluster);
    register(frames.context(), data.path()).await;
    for number in 1..=22 {
        let query = query(number);
        let expected = answer(&plain, &query).await;
        assert_eq!(answer(frames.context(), &query).await, expected, "query {number}");
    }
    cluster.shutdown().await;
}
