//! From a physical plan to stages: it is cut where rows change partition.
//!
//! ```text
//!  RepartitionExec         stage: the repartition and what is below it, an output in parts a partition
//!  CoalescePartitionsExec  stage: what is below it; the reader takes all outputs
//!  SortPreservingMergeExec stage: what is below it; the merge stays, and takes each output as a stream
//! ```
//!
//! The partitions of a persisted table are outputs of a stage that has run already. A recursive query stays whole, with what is
//! below it, which is run many times; it cannot be encoded, so that the client runs it.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning, replace_children_if_necessary};

use starling_runtime::parts::Parts;
use starling_runtime::task::Future;

use super::exchange::{ExchangeSourceExec, Read};
use super::single::SinglePartitionExec;
use super::stored::StoredExec;

/// A piece of a plan that runs as one task a partition.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// A [`RepartitionExec`] at its root says how each task's output is split into parts.
    pub(super) plan: Arc<dyn ExecutionPlan>,
    /// How many tasks there are.
    pub(super) tasks: usize,
    /// The outputs, if they are there already: the plan is then only a leaf that stands for them.
    pub(super) stored: Option<Arc<Vec<Future<Parts>>>>,
}

impl Stage {
    fn new(plan: Arc<dyn ExecutionPlan>) -> Stage {
        let tasks = body(&plan).output_partitioning().partition_count();
        let stored = plan.downcast_ref::<StoredExec>().map(|stored| Arc::clone(&stored.outputs));
        Stage { plan, tasks, stored }
    }

    /// What the tasks run: the plan without the repartition at its root.
    pub(super) fn body(&self) -> &Arc<dyn ExecutionPlan> {
        body(&self.plan)
    }
}

/// The plan without the repartition at its root.
pub(super) fn body(plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    plan.downcast_ref::<RepartitionExec>().map_or(plan, RepartitionExec::input)
}

/// The stages of a plan, each after those that it reads; the last one gives the plan's own partitions. The exchanges in
/// them are numbered as the stages whose outputs they are.
pub(super) fn cut(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Stage>> {
    let mut cutter = Cutter { stages: Vec::new() };
    let last = cutter.cut(plan)?;
    cutter.stages.push(Stage::new(last));
    Ok(cutter.stages)
}

/// An input of which only the first rows of each partition are read: in one process whoever has enough stops the others.
pub(super) fn limited(input: &Arc<dyn ExecutionPlan>, rows: Option<usize>) -> Arc<dyn ExecutionPlan> {
    match rows {
        Some(rows) if input.fetch().is_none_or(|fetch| fetch > rows) => {
            Arc::new(LocalLimitExec::new(Arc::clone(input), rows))
        }
        _ => Arc::clone(input),
    }
}

struct Cutter {
    stages: Vec<Stage>,
}

impl Cutter {
    /// The plan with leaves in place of what was cut off.
    fn cut(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if plan.is::<RecursiveQueryExec>() {
            return Ok(Arc::clone(plan));
        }
        if plan.is::<LazyMemoryExec>() && plan.schema().fields().is_empty() {
            // Its encoding has no place for a projection, and without columns the rows would have others than the plan says.
            let what = "a table function of which no column is read cannot be sent to a worker".to_owned();
            return Err(DataFusionError::NotImplemented(what));
        }
        if plan.is::<StoredExec>() {
            let each = plan.output_partitioning().clone();
            return Ok(self.exchange(plan, Arc::clone(plan), Read::Each, each));
        }
        let children = plan.children().into_iter().map(|child| self.cut(child)).collect::<Result<Vec<_>>>()?;
        let plan = replace_children_if_necessary(Arc::clone(plan), children)?;
        if let Some(single) = plan.downcast_ref::<SinglePartitionExec>() {
            return Ok(Arc::clone(single.input()));
        }
        if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
            let partitions = repartition.partitioning().partition_count();
            if partitions == 1 && repartition.input().output_partitioning().partition_count() == 1 {
                return Ok(Arc::clone(repartition.input()));
            }
            let read = if repartition.preserve_order() { Read::MergePart } else { Read::Part };
            return Ok(self.exchange(&plan, Arc::clone(&plan), read, repartition.partitioning().clone()));
        }
        if let Some(coalesce) = plan.downcast_ref::<CoalescePartitionsExec>()
            && coalesce.input().output_partitioning().partition_count() > 1
        {
            let single = Partitioning::UnknownPartitioning(1);
            let input = limited(coalesce.input(), coalesce.fetch());
            let gathered = self.exchange(&plan, input, Read::Gather, single);
            return Ok(match coalesce.fetch() {
                Some(fetch) => Arc::new(GlobalLimitExec::new(gathered, 0, Some(fetch))),
                None => gathered,
            });
        }
        if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>()
            && let outputs = merge.input().output_partitioning().partition_count()
            && outputs > 1
        {
            let each = Partitioning::UnknownPartitioning(outputs);
            let limited = limited(merge.input(), merge.fetch());
            let input = self.exchange(merge.input(), limited, Read::Each, each);
            return replace_children_if_necessary(plan, vec![input]);
        }
        Ok(plan)
    }

    /// Makes a stage of `stage`, and a leaf that stands for `replaced` in what reads it.
    fn exchange(
        &mut self,
        replaced: &Arc<dyn ExecutionPlan>,
        stage: Arc<dyn ExecutionPlan>,
        read: Read,
        partitioning: Partitioning,
    ) -> Arc<dyn ExecutionPlan> {
        let stage = Stage::new(stage);
        let number = self.stages.len() as u32;
        let outputs = stage.tasks as u32;
        let equivalence = replaced.equivalence_properties().clone();
        self.stages.push(stage);
        Arc::new(ExchangeSourceExec::new(number, outputs, read, equivalence, partitioning))
    }
}
