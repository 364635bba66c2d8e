//! The scan: N partitions, each a list of exact ranges, which whoever holds the plan reads.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use serde::{Deserialize, Serialize};

use super::options::{Format, OnBadRow};
use super::part::{Part, TableFile, TableSpec};
use super::source::{self, ScanMetrics};

/// Scans CSV files. A leaf: its partitions are lists of byte ranges of whole records.
#[derive(Debug)]
pub struct CsvScanExec {
    table: Arc<TableSpec>,
    partitions: Arc<Vec<Vec<Part>>>,
    projection: Option<Vec<usize>>,
    fetch: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// The plan as it travels.
#[derive(Serialize, Deserialize)]
struct Wire {
    format: Format,
    /// In Arrow's own encoding.
    schema: Vec<u8>,
    file_columns: usize,
    files: Vec<TableFile>,
    partitions: Vec<Vec<Part>>,
    projection: Option<Vec<usize>>,
    fetch: Option<usize>,
}

impl CsvScanExec {
    pub(super) fn new(
        table: Arc<TableSpec>,
        partitions: Vec<Vec<Part>>,
        projection: Option<Vec<usize>>,
        fetch: Option<usize>,
    ) -> Result<CsvScanExec> {
        let schema = match &projection {
            None => Arc::clone(&table.schema),
            Some(columns) => Arc::new(table.schema.project(columns)?),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(CsvScanExec {
            table,
            partitions: Arc::new(partitions),
            projection,
            fetch,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The plan of one partition of this one, which knows of nothing else.
    ///
    /// # Errors
    /// If there is no such partition.
    pub fn slice(&self, partition: usize) -> Result<Arc<CsvScanExec>> {
        let Some(parts) = self.partitions.get(partition) else {
            return internal_err!("a CSV scan of {} partitions has no number {partition}", self.partitions.len());
        };
        let mut files: Vec<TableFile> = Vec::new();
        let mut last = None;
        let parts = parts.iter().map(|part| {
            // The parts of a file are neighbours.
            if last != Some(part.file) {
                last = Some(part.file);
                files.extend(self.table.files.get(part.file).cloned());
            }
            Part { file: files.len().saturating_sub(1), ..*part }
        });
        let parts = parts.collect();
        let table = TableSpec {
            files,
            format: self.table.format.clone(),
            schema: Arc::clone(&self.table.schema),
            ..*self.table
        };
        Ok(Arc::new(CsvScanExec::new(Arc::new(table), vec![parts], self.projection.clone(), self.fetch)?))
    }

    /// The files that a partition reads: local paths, or URLs.
    pub fn paths(&self, partition: usize) -> Vec<String> {
        let parts = self.partitions.get(partition).map_or(&[][..], Vec::as_slice);
        let mut paths: Vec<String> =
            parts.iter().filter_map(|part| Some(self.table.files.get(part.file)?.place.name())).collect();
        paths.dedup();
        paths
    }

    /// Whether bad rows are left out and counted.
    pub fn skips_bad_rows(&self) -> bool {
        self.table.format.on_bad_row == OnBadRow::Skip
    }

    /// How many bytes a partition reads.
    pub fn nbytes(&self, partition: usize) -> u64 {
        self.partitions.get(partition).map_or(0, |parts| parts.iter().map(Part::nbytes).sum())
    }

    /// The plan as bytes, for [`decode`](CsvScanExec::decode).
    ///
    /// # Errors
    /// If the schema cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut schema = Vec::new();
        StreamWriter::try_new(&mut schema, &self.table.schema)?.finish()?;
        let wire = Wire {
            format: self.table.format.clone(),
            schema,
            file_columns: self.table.file_columns,
            files: self.table.files.clone(),
            partitions: self.partitions.as_ref().clone(),
            projection: self.projection.clone(),
            fetch: self.fetch,
        };
        postcard::to_allocvec(&wire).map_err(|error| DataFusionError::External(Box::new(error)))
    }

    /// The plan that these bytes are the encoding of.
    ///
    /// # Errors
    /// If they are none of a CSV scan.
    pub fn decode(bytes: &[u8], _context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
        let wire: Wire = postcard::from_bytes(bytes).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let schema: SchemaRef = StreamReader::try_new(wire.schema.as_slice(), None)?.schema();
        let columns = schema.fields().len();
        let out_of = |number: &usize| *number >= columns;
        let parts_of =
            wire.partitions.iter().flatten().any(|part| part.file >= wire.files.len() || part.start > part.end);
        if wire.file_columns > columns || wire.projection.iter().flatten().any(out_of) || parts_of {
            return internal_err!("the encoding of a CSV scan is malformed");
        }
        let table = TableSpec { format: wire.format, schema, file_columns: wire.file_columns, files: wire.files };
        Ok(Arc::new(CsvScanExec::new(Arc::new(table), wire.partitions, wire.projection, wire.fetch)?))
    }
}

impl DisplayAs for CsvScanExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nbytes: u64 = (0..self.partitions.len()).map(|partition| self.nbytes(partition)).sum();
        let schema = self.properties.eq_properties.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(
                    f,
                    "CsvScanExec: files={}, partitions={}, bytes={nbytes}, projection=[{}]",
                    self.table.files.len(),
                    self.partitions.len(),
                    columns.join(", "),
                )?;
                if let Some(fetch) = self.fetch {
                    write!(f, ", limit={fetch}")?;
                }
                Ok(())
            }
            DisplayFormatType::TreeRender => write!(f, "files={}\nbytes={nbytes}", self.table.files.len()),
        }
    }
}

impl ExecutionPlan for CsvScanExec {
    fn name(&self) -> &str {
        "CsvScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(parts) = self.partitions.get(partition) else {
            return internal_err!("a CSV scan of {} partitions has no number {partition}", self.partitions.len());
        };
        let columns = match &self.projection {
            Some(columns) => columns.clone(),
            None => (0..self.table.schema.fields().len()).collect(),
        };
        let scan = source::Scan {
            table: Arc::clone(&self.table),
            parts: parts.clone(),
            columns,
            schema: self.schema(),
            batch_size: context.session_config().batch_size(),
            limit: self.fetch.unwrap_or(usize::MAX),
            metrics: ScanMetrics::new(&self.metrics, partition),
        };
        let stream = source::stream(scan, context);
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(self.schema(), stream))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let nbytes = match partition {
            Some(partition) => self.nbytes(partition),
            None => (0..self.partitions.len()).map(|partition| self.nbytes(partition)).sum(),
        };
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.total_byte_size = Precision::Inexact(usize::try_from(nbytes).unwrap_or(usize::MAX));
        Ok(Arc::new(statistics))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let scan =
            CsvScanExec::new(Arc::clone(&self.table), self.partitions.as_ref().clone(), self.projection.clone(), limit);
        scan.ok().map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>)
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }
}
