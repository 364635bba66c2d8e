//! What the session's optimizer does for the cluster: joins that stay right when their inputs are split, and the plan put
//! where it runs.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::{JoinType, LogicalPlan};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use super::cut::limited;
use super::mesh_exec::{MeshExec, MeshSession};
use super::single::SinglePartitionExec;
use super::write_exec::WriteExec;

/// DataFusion's planner, which has the stages of a plan that is analyzed tell how they did: the optimizer does not see what
/// its plan is for.
#[derive(Debug)]
pub(super) struct MeshPlanner;

#[async_trait]
impl QueryPlanner for MeshPlanner {
    async fn create_physical_plan(
        &self,
        logical: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = DefaultPhysicalPlanner::default().create_physical_plan(logical, session).await?;
        if !plan.is::<AnalyzeExec>() {
            return Ok(plan);
        }
        let told = plan.transform_down(|node| {
            Ok(match node.downcast_ref::<MeshExec>().map(MeshExec::telling) {
                Some(telling) => Transformed::new(Arc::new(telling), true, TreeNodeRecursion::Jump),
                None => Transformed::no(node),
            })
        });
        told.data()
    }
}

/// DataFusion's rules, and ours among them.
pub(super) fn rules(session: MeshSession) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let after = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |place| place + 1);
    rules.insert(after, Arc::new(SplitJoins));
    rules.push(Arc::new(OntoMesh { session }));
    rules
}

/// Joins that collect their left side and say what of it was not matched know that only if they see the whole right side.
/// In one process the streams of a join tell each other; tasks do not. Hash joins of these kinds are partitioned instead;
/// others take their right side in one partition.
#[derive(Debug)]
struct SplitJoins;

/// Whether the output depends on which rows of the left side were matched by none of the right side.
fn tells_of_unmatched_left(join: JoinType) -> bool {
    matches!(join, JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark)
}

impl SplitJoins {
    fn split(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
        if let Some(series) = plan.downcast_ref::<LazyMemoryExec>()
            && plan.output_ordering().is_some()
        {
            // Workers do not hear of its order, so the rest of the plan must not count on it.
            let unordered = LazyMemoryExec::try_new(plan.schema(), series.generators().clone())?;
            return Ok(Transformed::yes(Arc::new(unordered)));
        }
        if let Some(join) = plan.downcast_ref::<HashJoinExec>()
            && *join.partition_mode() == PartitionMode::CollectLeft
            && tells_of_unmatched_left(*join.join_type())
        {
            if !join.null_aware {
                let partitioned = join.builder().with_partition_mode(PartitionMode::Partitioned).recompute_properties();
                return Ok(Transformed::yes(partitioned.build_exec()?));
            }
            return with_single_right(&plan, Arc::clone(join.left()), Arc::clone(join.right()));
        }
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>()
            && tells_of_unmatched_left(*join.join_type())
        {
            return with_single_right(&plan, Arc::clone(join.left()), Arc::clone(join.right()));
        }
        Ok(Transformed::no(plan))
    }
}

fn with_single_right(
    join: &Arc<dyn ExecutionPlan>,
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if right.is::<SinglePartitionExec>() {
        return Ok(Transformed::no(Arc::clone(join)));
    }
    let right = Arc::new(SinglePartitionExec::new(right));
    Ok(Transformed::yes(replace_children_if_necessary(Arc::clone(join), vec![left, right])?))
}

impl PhysicalOptimizerRule for SplitJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(SplitJoins::split).data()
    }

    fn name(&self) -> &str {
        "split_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Puts the plan onto the cluster. The last merge of partitions is the client's, who wants the rows anyway.
#[derive(Debug)]
struct OntoMesh {
    session: MeshSession,
}

impl OntoMesh {
    fn place(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        match WriteExec::try_new(&plan, &self.session) {
            Ok(Some(placed)) => return Ok(Arc::new(placed)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the client writes the files, since the plan cannot be sent to workers")
            }
        }
        if is_clients(&plan) {
            let gathers = plan.is::<SortPreservingMergeExec>() || plan.is::<CoalescePartitionsExec>();
            let rows = plan.fetch().filter(|_| gathers);
            let children = plan.children().into_iter().map(|child| self.place(limited(child, rows)));
            return replace_children_if_necessary(Arc::clone(&plan), children.collect::<Result<_>>()?);
        }
        if !reads(&plan) {
            return Ok(plan);
        }
        match MeshExec::try_new(&plan, &self.session) {
            Ok(placed) => Ok(Arc::new(placed)),
            Err(error) => {
                tracing::warn!(%error, "a query runs in the client alone, since its plan cannot be sent to workers");
                Ok(plan)
            }
        }
    }
}

/// Whether the client itself runs this node, and the cluster what is below it.
fn is_clients(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<DataSinkExec>() {
        return true;
    }
    if plan.is::<SortPreservingMergeExec>() || plan.is::<CoalescePartitionsExec>() {
        return plan.children().iter().any(|child| child.output_partitioning().partition_count() > 1);
    }
    let is_thin = plan.is::<GlobalLimitExec>() || plan.is::<ProjectionExec>();
    is_thin && plan.output_partitioning().partition_count() == 1 && plan.children().into_iter().all(is_clients)
}

/// Whether there is anything to read: a table in memory, files, or what a table function makes.
fn reads(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let children = plan.children();
    if children.is_empty() {
        return !plan.is::<EmptyExec>() && !plan.is::<PlaceholderRowExec>();
    }
    plan.is::<DataSourceExec>() || children.into_iter().any(reads)
}

impl PhysicalOptimizerRule for OntoMesh {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        self.place(plan)
    }

    fn name(&self) -> &str {
        "onto_mesh"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
