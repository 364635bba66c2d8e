//! Where a stage takes the outputs of another one: a leaf of its plan.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::stream;
use starling_runtime::parts::Parts;

use super::batches::Batches;
use super::leaf::unchanging;

/// How the partitions of an [`ExchangeSourceExec`] are made of the outputs of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Partition p is part p of every output, one after the other.
    Part,
    /// Partition p is part p of every output, merged by their common order.
    MergePart,
    /// The only partition is all outputs, one after the other.
    Gather,
    /// Partition i is output i.
    Each,
}

impl Read {
    /// Whether a task takes one part of the outputs, rather than all of them.
    pub(super) fn is_parted(self) -> bool {
        matches!(self, Read::Part | Read::MergePart)
    }
}

/// The outputs of the stage that a plan was cut from. A task finds them in its session's [`TaskInputs`].
#[derive(Debug)]
pub(super) struct ExchangeSourceExec {
    /// Which exchange of the query this is.
    pub(super) exchange: u32,
    /// How many outputs there are.
    pub(super) outputs: u32,
    pub(super) read: Read,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What a stage's task was given, by exchange.
#[derive(Debug, Default)]
pub(super) struct TaskInputs {
    /// Exchange; the part of each output that is meant; the outputs.
    pub(super) exchanges: Vec<(u32, usize, Vec<Arc<Parts>>)>,
}

impl ExchangeSourceExec {
    /// `equivalence` is what holds of each output; orders hold of each partition unless several outputs follow each other
    /// in it.
    pub(super) fn new(
        exchange: u32,
        outputs: u32,
        read: Read,
        mut equivalence: EquivalenceProperties,
        partitioning: Partitioning,
    ) -> ExchangeSourceExec {
        if !matches!(read, Read::Each | Read::MergePart) && outputs != 1 {
            equivalence.clear_orderings();
        }
        let properties =
            PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, Boundedness::Bounded)
                .with_scheduling_type(SchedulingType::Cooperative);
        ExchangeSourceExec {
            exchange,
            outputs,
            read,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The leaf of one task: its only partition.
    pub(super) fn slice(&self) -> ExchangeSourceExec {
        let partitioning = match self.properties.output_partitioning() {
            Partitioning::Hash(exprs, _) => Partitioning::Hash(exprs.clone(), 1),
            _ => Partitioning::UnknownPartitioning(1),
        };
        ExchangeSourceExec {
            exchange: self.exchange,
            outputs: self.outputs,
            read: self.read,
            properties: Arc::new((*self.properties).clone().with_partitioning(partitioning)),
            metrics: self.metrics.clone(),
        }
    }

    fn outputs_of(&self, context: &TaskContext) -> Result<(Vec<Arc<Parts>>, usize)> {
        let missing = || {
            let what = format!("exchange {} is not among the inputs of this task", self.exchange);
            DataFusionError::Internal(what)
        };
        let inputs = context.session_config().get_extension::<TaskInputs>().ok_or_else(missing)?;
        let given = inputs.exchanges.iter().find(|given| given.0 == self.exchange).ok_or_else(missing)?;
        Ok((given.2.clone(), given.1))
    }
}

/// The batches of one part of an output.
fn batches_of(output: &Parts, part: usize) -> Result<Vec<RecordBatch>> {
    let batches = output.get::<Batches>(part).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let batches = batches.ok_or_else(|| DataFusionError::Internal(format!("part {part} of an output is missing")))?;
    Ok(batches.batches().to_vec())
}

impl DisplayAs for ExchangeSourceExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = match self.read {
            Read::Part => "part of each",
            Read::MergePart => "part of each, merged",
            Read::Gather => "all",
            Read::Each => "each",
        };
        write!(f, "ExchangeSourceExec: stage={}, outputs={}, read={read}", self.exchange, self.outputs)?;
        write!(f, ", partitioning={}", self.properties.output_partitioning())
    }
}

impl ExecutionPlan for ExchangeSourceExec {
    fn name(&self) -> &'static str {
        "ExchangeSourceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    unchanging!();

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (outputs, part) = self.outputs_of(&context)?;
        // A leaf that was not sliced, below what takes all partitions, has all parts.
        let is_sliced = self.properties.output_partitioning().partition_count() == 1;
        let part = if is_sliced || !self.read.is_parted() { part } else { partition };
        if self.read == Read::MergePart && outputs.len() > 1 {
            return self.merge(outputs, part, &context);
        }
        let outputs = match self.read {
            Read::Each => {
                let missing = || DataFusionError::Internal(format!("output {partition} of an exchange is missing"));
                vec![outputs.get(partition).cloned().ok_or_else(missing)?]
            }
            _ => outputs,
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let mut batches = Vec::new().into_iter();
        let mut outputs = outputs.into_iter();
        let next = std::iter::from_fn(move || {
            loop {
                if let Some(batch) = batches.next() {
                    return Some(Ok(batch));
                }
                match batches_of(&*outputs.next()?, part) {
                    Ok(more) => batches = more.into_iter(),
                    Err(error) => return Some(Err(error)),
                }
            }
        });
        let counted = next.inspect(move |batch| {
            if let Ok(batch) = batch {
                metrics.record_output(batch.num_rows());
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::iter(counted))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

impl ExchangeSourceExec {
    /// The outputs' parts, merged: each is a stream of a leaf of its own.
    fn merge(
        &self,
        outputs: Vec<Arc<Parts>>,
        part: usize,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let ordering = self.properties.equivalence_properties().output_ordering();
        let ordering = ordering.ok_or_else(|| DataFusionError::Internal("what is merged has no order".to_owned()))?;
        let each = ExchangeSourceExec::new(
            self.exchange,
            outputs.len() as u32,
            Read::Each,
            self.properties.equivalence_properties().clone(),
            Partitioning::UnknownPartitioning(outputs.len()),
        );
        let inputs = TaskInputs { exchanges: vec![(self.exchange, part, outputs)] };
        let config = context.session_config().clone().with_extension(Arc::new(inputs));
        let context = Arc::new(TaskContext::new(
            context.task_id(),
            context.session_id(),
            config,
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            context.runtime_env(),
        ));
        SortPreservingMergeExec::new(ordering, Arc::new(each)).execute(0, context)
    }
}
