//! Tables whose partitions are outputs in the cluster: what a query has put out stays there, for other queries to read.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::project_schema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{TryStreamExt, stream};
use starling_runtime::parts::Parts;
use starling_runtime::task::Future;

use super::batches::Batches;
use super::leaf::unchanging;

/// A table of outputs, one a partition. They are released when the last one who has the table drops it.
pub(super) struct StoredTable {
    schema: SchemaRef,
    outputs: Arc<Vec<Future<Parts>>>,
    ordering: Option<LexOrdering>,
}

impl StoredTable {
    /// `ordering` is that of each partition.
    pub(super) fn new(schema: SchemaRef, outputs: Vec<Future<Parts>>, ordering: Option<LexOrdering>) -> StoredTable {
        StoredTable { schema, outputs: Arc::new(outputs), ordering }
    }
}

impl fmt::Debug for StoredTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredTable({} partitions)", self.outputs.len())
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let stored = StoredExec::new(Arc::clone(&self.schema), Arc::clone(&self.outputs), self.ordering.clone());
        let mut plan: Arc<dyn ExecutionPlan> = Arc::new(stored);
        if let Some(limit) = limit {
            plan = Arc::new(LocalLimitExec::new(plan, limit));
        }
        if let Some(columns) = projection {
            let schema = project_schema(&self.schema, projection)?;
            let exprs = columns.iter().zip(schema.fields()).map(|(column, field)| ProjectionExpr {
                expr: Arc::new(Column::new(field.name(), *column)) as Arc<dyn PhysicalExpr>,
                alias: field.name().clone(),
            });
            plan = Arc::new(ProjectionExec::try_new(exprs.collect::<Vec<_>>(), plan)?);
        }
        Ok(plan)
    }
}

/// The outputs, as a leaf of a plan that has not been cut yet.
pub(super) struct StoredExec {
    pub(super) outputs: Arc<Vec<Future<Parts>>>,
    properties: Arc<PlanProperties>,
}

impl StoredExec {
    fn new(schema: SchemaRef, outputs: Arc<Vec<Future<Parts>>>, ordering: Option<LexOrdering>) -> StoredExec {
        let equivalence = EquivalenceProperties::new_with_orderings(schema, ordering);
        let partitioning = Partitioning::UnknownPartitioning(outputs.len());
        let properties =
            PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, Boundedness::Bounded);
        StoredExec { outputs, properties: Arc::new(properties) }
    }
}

impl fmt::Debug for StoredExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredExec({} partitions)", self.outputs.len())
    }
}

impl DisplayAs for StoredExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredExec: partitions={}", self.outputs.len())
    }
}

impl ExecutionPlan for StoredExec {
    fn name(&self) -> &'static str {
        "StoredExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    unchanging!();

    /// For plans that cannot be sent to workers.
    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let missing =
            move || DataFusionError::Internal(format!("partition {partition} of a persisted table is missing"));
        let output = self.outputs.get(partition).cloned().ok_or_else(missing)?;
        let read = async move {
            let parts = output.result().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
            let batches = parts.get::<Batches>(0).map_err(|error| DataFusionError::External(Box::new(error)))?;
            let batches = batches.ok_or_else(missing)?;
            Ok::<_, DataFusionError>(stream::iter(batches.batches().to_vec().into_iter().map(Ok)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(read).try_flatten())))
    }
}
