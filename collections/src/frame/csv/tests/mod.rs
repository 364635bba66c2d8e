//! Every way of cutting gives what one reading gives, and that is what DataFusion's own reader gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::physical_plan::{ExecutionPlan, collect_partitioned};
use datafusion::prelude::{CsvReadOptions as TheirOptions, SessionConfig, SessionContext};
use starling_actors::Cluster;
use tempfile::TempDir;

use super::{CsvReadOptions, CsvScanExec, CsvTable};

mod bad;
mod files;
mod plan;
mod remote;
mod rows;
mod types;

/// A folder of files, and a cluster that reads them.
struct Bench {
    folder: TempDir,
    cluster: Cluster,
}

impl Bench {
    async fn new() -> Bench {
        Bench { folder: tempfile::tempdir().unwrap(), cluster: Cluster::local(2).await.unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(&path, bytes).unwrap();
        self.path(name)
    }

    async fn open(&self, path: &str, options: CsvReadOptions) -> Arc<CsvTable> {
        CsvTable::open(&self.cluster, vec![path.to_owned()], options).await.unwrap()
    }

    async fn open_error(&self, paths: &[&str], options: CsvReadOptions) -> String {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        chain(&CsvTable::open(&self.cluster, paths, options).await.unwrap_err())
    }

    /// All of the table, read in up to so many partitions.
    async fn read(&self, table: &Arc<CsvTable>, partitions: usize) -> Result<RecordBatch, String> {
        let context = context(partitions);
        let plan = table.scan(&context.state(), None, &[], None).await.map_err(|error| chain(&error))?;
        rows(&context, plan).await
    }

    async fn read_error(&self, path: &str, options: CsvReadOptions, partitions: usize) -> String {
        let table = self.open(path, options).await;
        self.read(&table, partitions).await.unwrap_err()
    }
}

/// Options by which small files are cut as far as that goes.
fn fine() -> CsvReadOptions {
    CsvReadOptions { partition_bytes_min: 1, ..CsvReadOptions::default() }
}

fn context(partitions: usize) -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions).with_batch_size(100))
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// All rows of a plan, partition by partition.
async fn rows(context: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Result<RecordBatch, String> {
    let schema = plan.schema();
    let partitions = collect_partitioned(plan, context.task_ctx()).await.map_err(|error| chain(&error))?;
    Ok(joined(&schema, &partitions.concat()))
}

fn joined(schema: &SchemaRef, batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(schema, batches).unwrap()
}

/// What DataFusion's own reader makes of a file.
async fn theirs(path: &str, options: TheirOptions<'_>) -> RecordBatch {
    let context = context(1);
    let extension = path.rsplit_once('.').map_or(String::new(), |(_, extension)| format!(".{extension}"));
    let options = options.newlines_in_values(true).file_extension(&extension);
    let frame = context.read_csv(path, options).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    joined(&schema, &frame.collect().await.unwrap())
}

/// The same, with the schema that arrow infers. DataFusion 55 infers from pieces that it cuts at newlines as if quotes were not
/// doubled in them, and so fails on files such as Stack Overflow's.
async fn theirs_of_any(path: &str) -> RecordBatch {
    theirs(path, TheirOptions::new().schema(&schema_of(path))).await
}

fn schema_of(path: &str) -> Schema {
    let format = datafusion::arrow::csv::reader::Format::default().with_header(true);
    format.infer_schema(fs::File::open(path).unwrap(), None).unwrap().0
}

#[track_caller]
fn assert_same(ours: &RecordBatch, theirs: &RecordBatch, what: &str) {
    for (our, their) in ours.schema().fields().iter().zip(theirs.schema().fields()) {
        assert_eq!(our, their, "{what}");
    }
    assert_eq!(ours.num_columns(), theirs.num_columns(), "{what}");
    for (number, (our, their)) in ours.columns().iter().zip(theirs.columns()).enumerate() {
        assert_eq!(our, their, "{what}: column {number}");
    }
}

fn scan_of(plan: &Arc<dyn ExecutionPlan>) -> &CsvScanExec {
    plan.downcast_ref::<CsvScanExec>().expect("a CSV scan")
}
