//! One partition of a stage's plan: a plan with one partition.
//!
//! An unsliced plan would give wrong answers, since operators share state between partitions: file groups are stolen,
//! joins wait for all of their streams. Client and worker slice in the same way, [`route`]: the client to know what a task
//! needs, the worker to run it.

use std::sync::Arc;

use datafusion::datasource::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSource;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};

use super::csv::CsvScanExec;
use super::exchange::ExchangeSourceExec;

/// What becomes of a node when partition `p` of it is wanted.
enum Route {
    /// It is a leaf, of which only this partition is wanted.
    Leaf,
    /// Of each child this partition is wanted, or all of it as it is.
    Children(Vec<Option<usize>>),
    /// Only this child counts, and of it this partition.
    Only { child: usize, partition: usize },
}

fn route(plan: &Arc<dyn ExecutionPlan>, partition: usize) -> Result<Route> {
    let children = plan.children();
    let partitions = plan.output_partitioning().partition_count();
    if partition >= partitions {
        let what = format!("partition {partition} of {}, which has {partitions}", plan.name());
        return Err(DataFusionError::Internal(what));
    }
    if children.is_empty() {
        return Ok(Route::Leaf);
    }
    if plan.is::<UnionExec>() {
        let mut partition = partition;
        for (child, plan) in children.iter().enumerate() {
            let here = plan.output_partitioning().partition_count();
            if partition < here {
                return Ok(Route::Only { child, partition });
            }
            partition -= here;
        }
        return Err(DataFusionError::Internal("a union has fewer partitions than it says".to_owned()));
    }
    let routes = children.iter().map(|child| match child.output_partitioning().partition_count() {
        here if here == partitions && partitions > 1 => Ok(Some(partition)),
        // The side of a join that every partition sees whole, or what this node itself gathers.
        1 => Ok(None),
        _ if partitions == 1 => Ok(None),
        here => {
            let what = format!("{} has {partitions} partitions and an input of {here}", plan.name());
            Err(DataFusionError::NotImplemented(what))
        }
    });
    routes.collect::<Result<_>>().map(Route::Children)
}

/// Is told a leaf, and which partition of it is meant.
type OnLeaf<'a> = dyn FnMut(&Arc<dyn ExecutionPlan>, Option<usize>) -> Result<()> + 'a;

/// The leaves that partition `partition` needs, each with the partition that is needed of it, or `None` for all of it.
pub(super) fn leaves(plan: &Arc<dyn ExecutionPlan>, partition: Option<usize>, found: &mut OnLeaf<'_>) -> Result<()> {
    let children = plan.children();
    let Some(partition) = partition else {
        if children.is_empty() {
            return found(plan, None);
        }
        return children.into_iter().try_for_each(|child| leaves(child, None, found));
    };
    match route(plan, partition)? {
        Route::Leaf => found(plan, Some(partition)),
        Route::Only { child, partition } => leaves(children[child], Some(partition), found),
        Route::Children(routes) => {
            children.into_iter().zip(routes).try_for_each(|(child, partition)| leaves(child, partition, found))
        }
    }
}

/// A plan of which only one partition is left, and which nodes of the whole plan its nodes come from.
pub(super) struct Slice {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    /// The nodes of `plan` in pre-order, each by its place in the pre-order of the whole plan.
    pub(super) origins: Vec<u32>,
}

/// Partition `partition` of `plan`, by itself.
pub(super) fn slice(plan: &Arc<dyn ExecutionPlan>, partition: usize) -> Result<Slice> {
    let mut origins = Vec::new();
    let mut next = 0;
    let plan = slice_node(plan, Some(partition), &mut next, Some(&mut origins))?;
    Ok(Slice { plan, origins })
}

/// `next` is the place of `plan` in the pre-order of the whole plan, and becomes that of what follows its subtree.
fn slice_node(
    plan: &Arc<dyn ExecutionPlan>,
    partition: Option<usize>,
    next: &mut u32,
    mut origins: Option<&mut Vec<u32>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let here = *next;
    *next += 1;
    let route = partition.map(|partition| route(plan, partition)).transpose()?;
    if let (Some(origins), false) = (origins.as_deref_mut(), matches!(route, Some(Route::Only { .. }))) {
        origins.push(here);
    }
    let children = plan.children();
    match route {
        Some(Route::Leaf) => slice_leaf(plan, partition.unwrap_or_default()),
        Some(Route::Only { child: only, partition }) => {
            let mut kept = None;
            for (number, child) in children.into_iter().enumerate() {
                let is_kept = number == only;
                let origins = origins.as_deref_mut().filter(|_| is_kept);
                let sliced = slice_node(child, is_kept.then_some(partition), next, origins)?;
                if is_kept {
                    kept = Some(sliced);
                }
            }
            kept.ok_or_else(|| DataFusionError::Internal("a union without the input that was wanted".to_owned()))
        }
        None => {
            for child in children {
                slice_node(child, None, next, origins.as_deref_mut())?;
            }
            Ok(Arc::clone(plan))
        }
        Some(Route::Children(routes)) => {
            let mut sliced = Vec::with_capacity(routes.len());
            for (child, partition) in children.into_iter().zip(routes) {
                sliced.push(slice_node(child, partition, next, origins.as_deref_mut())?);
            }
            replace_children_if_necessary(Arc::clone(plan), sliced)
        }
    }
}

/// The partition of a leaf, by itself.
pub(super) fn slice_leaf(plan: &Arc<dyn ExecutionPlan>, partition: usize) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(source) = plan.downcast_ref::<ExchangeSourceExec>() {
        return Ok(Arc::new(source.slice()));
    }
    if let Some(scan) = plan.downcast_ref::<CsvScanExec>() {
        return Ok(scan.slice(partition)?);
    }
    if plan.output_partitioning().partition_count() == 1 {
        return Ok(Arc::clone(plan));
    }
    if let Some(empty) = plan.downcast_ref::<EmptyExec>() {
        return Ok(Arc::new(EmptyExec::new(empty.schema())));
    }
    if let Some(row) = plan.downcast_ref::<PlaceholderRowExec>() {
        return Ok(Arc::new(PlaceholderRowExec::new(row.schema())));
    }
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        return slice_source(source, partition);
    }
    Err(DataFusionError::NotImplemented(format!("one partition of {}", plan.name())))
}

fn slice_source(source: &DataSourceExec, partition: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let config = source.data_source();
    if let Some(scan) = config.downcast_ref::<FileScanConfig>() {
        let group = scan.file_groups.get(partition).cloned().unwrap_or_else(|| FileGroup::new(Vec::new()));
        let scan = FileScanConfigBuilder::from(scan.clone()).with_file_groups(vec![group]);
        let scan = scan.with_output_partitioning(None).build();
        return Ok(DataSourceExec::from_data_source(scan));
    }
    if let Some(memory) = config.downcast_ref::<MemorySourceConfig>() {
        let batches = memory.partitions().get(partition).cloned().unwrap_or_default();
        let sliced = MemorySourceConfig::try_new(&[batches], memory.original_schema(), memory.projection().clone())?;
        let sliced = sliced.with_limit(memory.fetch()).try_with_sort_information(memory.sort_information().to_vec())?;
        return Ok(DataSourceExec::from_data_source(sliced));
    }
    Err(DataFusionError::NotImplemented("one partition of a data source that is neither files nor memory".to_owned()))
}
