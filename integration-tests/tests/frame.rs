//! Queries on an embedded cluster against the same queries by plain DataFusion.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use starling::Cluster;
use starling::frame::Frames;
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
    if !query.to_lowercase().contains("order by") {
        lines.sort_unstable();
    }
    lines
}

fn query(number: usize) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../bench/src/tpch/queries/q{number:02}.sql"));
    // Query 11 has a fraction that depends on the scale.
    std::fs::read_to_string(path).unwrap().replace("{fraction}", &(0.0001 / SCALE).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queries_of_tpch_have_the_answers_of_plain_datafusion() {
    let data = tpch().await;
    let plain = SessionContext::new();
    register(&plain, data.path()).await;
    for workers in [1, 3] {
        let cluster = Cluster::local(workers).await.unwrap();
        let frames = Frames::of(&cluster);
        register(frames.context(), data.path()).await;
        for number in 1..=22 {
            let query = query(number);
            let expected = answer(&plain, &query).await;
            assert_eq!(answer(frames.context(), &query).await, expected, "query {number} on {workers} workers");
        }
        cluster.shutdown().await;
    }
    drop(Arc::new(data));
}
