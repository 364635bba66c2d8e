//! A scan of files on its way to a worker, with what DataFusion's own encoding of it leaves out: how the files are
//! compressed, and that JSON files hold an array each.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource, JsonSource};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use super::leaf::unchanging;

/// In the metadata of a table's schema: its JSON files hold an array each. The source itself does not tell.
const JSON_ARRAY: &str = "starling.json_array";

/// The schema of a table of JSON files that hold an array each.
pub(super) fn of_json_arrays(schema: &SchemaRef) -> SchemaRef {
    let mut metadata: HashMap<String, String> = schema.metadata().clone();
    metadata.insert(JSON_ARRAY.to_owned(), String::new());
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// The scan, and what is to be said beside it.
#[derive(Debug)]
pub(super) struct ScanExec {
    pub(super) scan: Arc<dyn ExecutionPlan>,
    pub(super) how: How,
}

/// What DataFusion's encoding of a scan leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct How {
    pub(super) compression: String,
    pub(super) is_json_array: bool,
}

impl ScanExec {
    /// A scan that has to be wrapped; `None` for one of which nothing would be lost.
    ///
    /// # Errors
    /// Of Arrow's streams: what reads them cannot be told from what reads its files.
    pub(super) fn wrap(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<ScanExec>> {
        let Some(scan) = config_of(plan) else { return Ok(None) };
        if scan.file_source.file_type() == "arrow_stream" {
            let what = "a stream of Arrow IPC, other than a file, cannot be read by a worker".to_owned();
            return Err(DataFusionError::NotImplemented(what));
        }
        let compression = scan.file_compression_type;
        let is_json_array =
            scan.file_source.file_type() == "json" && scan.file_schema().metadata().contains_key(JSON_ARRAY);
        if compression == FileCompressionType::UNCOMPRESSED && !is_json_array {
            return Ok(None);
        }
        let how = How { compression: compression.get_variant().to_string(), is_json_array };
        Ok(Some(ScanExec { scan: Arc::clone(plan), how }))
    }
}

impl How {
    /// The scan that was decoded, with what was said beside it.
    pub(super) fn restore(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let no_files = || DataFusionError::Plan("what was sent as a scan of files is none".to_owned());
        let scan = config_of(plan).ok_or_else(no_files)?;
        let mut restored = FileScanConfigBuilder::from(scan.clone())
            .with_file_compression_type(FileCompressionType::from_str(&self.compression)?);
        if self.is_json_array
            && let Some(json) = downcast::<JsonSource>(&scan.file_source)
        {
            restored = restored.with_source(Arc::new(json.clone().with_newline_delimited(false)));
        }
        Ok(DataSourceExec::from_data_source(restored.build()))
    }
}

fn config_of(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

fn downcast<T: 'static>(source: &Arc<dyn FileSource>) -> Option<&T> {
    (&**source as &dyn std::any::Any).downcast_ref()
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scan.fmt_as(format, f)
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.scan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    unchanging!();

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.scan.execute(partition, context)
    }
}
