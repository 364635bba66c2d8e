//! Which nodes can run a piece of a plan, by the files in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use starling_core::ids::NodeId;

use super::check::{for_each_scan, is_local, metas_of, path_of, scan_of};
use super::error::StoreError;
use super::mesh::MeshFiles;

impl MeshFiles {
    /// The nodes that have all files of the scans in `plan`, a piece that one task runs; `None` if any node will do, because
    /// all have them, or the plan has none on nodes' disks.
    ///
    /// # Errors
    /// [`StoreError::Apart`] if no node has all of them. [`MeshFiles::regroup`] prevents that for the files of one table.
    pub fn placement_of(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Vec<NodeId>>> {
        let mut paths = BTreeSet::new();
        for_each_scan(plan, |scan| {
            if is_local(scan) {
                let locations: BTreeSet<_> = metas_of(scan).map(|meta| &meta.location).collect();
                for location in locations {
                    paths.insert(path_of(location)?);
                }
            }
            Ok(())
        })?;
        self.placement_of_all(paths.iter().map(String::as_str))
    }

    /// The nodes that have all of these files; `None` if any node will do. For sources of files that are not DataFusion's
    /// own.
    ///
    /// # Errors
    /// [`StoreError::Apart`] if no node has all of them.
    pub fn placement_of_all<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<Option<Vec<NodeId>>> {
        let mut nodes: Option<Vec<NodeId>> = None;
        let mut first = None;
        for path in paths {
            let Some(having) = self.placement(path) else { continue };
            let both = match &nodes {
                None => having,
                Some(nodes) => nodes.iter().copied().filter(|node| having.contains(node)).collect(),
            };
            if both.is_empty() {
                let one = first.unwrap_or(path).to_owned();
                return Err(StoreError::Apart { one, other: path.to_owned() }.into());
            }
            nodes = Some(both);
            first.get_or_insert(path);
        }
        Ok(nodes)
    }

    /// The plan with the files of each scan grouped so that every group can be read on one node. A group of files that lie
    /// apart becomes several, so a scan may have more partitions than before; one that had a single partition is merged
    /// into one again. For the finished plan, before it is cut.
    pub fn regroup(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        // Up from the leaves, so that what is put over a scan is not looked at again.
        plan.transform_up(|node| self.regroup_scan(node)).map(|transformed| transformed.data)
    }

    fn regroup_scan(&self, node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
        let Some(scan) = scan_of(&node).filter(|scan| is_local(scan)) else { return Ok(Transformed::no(node)) };
        let mut groups = Vec::with_capacity(scan.file_groups.len());
        for group in &scan.file_groups {
            groups.extend(self.split(group)?);
        }
        // A declared partitioning says which rows are in which group: they must stay where they are.
        if groups.len() == scan.file_groups.len() || scan.output_partitioning.is_some() {
            return Ok(Transformed::no(node));
        }
        // A limit of a single partition is all that limits the rows.
        let (was_one, limit) = (scan.file_groups.len() == 1, scan.limit);
        let scan = FileScanConfigBuilder::from(scan.clone()).with_file_groups(groups).build();
        let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(scan);
        if !was_one {
            return Ok(Transformed::yes(scan));
        }
        Ok(Transformed::yes(match node.output_ordering() {
            Some(ordering) => Arc::new(SortPreservingMergeExec::new(ordering.clone(), scan).with_fetch(limit)),
            None => Arc::new(CoalescePartitionsExec::new(scan).with_fetch(limit)),
        }))
    }

    /// The files of a group in groups that one node has each.
    fn split(&self, group: &FileGroup) -> Result<Vec<FileGroup>> {
        let placed = |file: &PartitionedFile| Ok((self.placement(&path_of(&file.object_meta.location)?), file.clone()));
        let split = together(group.files().iter().map(placed).collect::<Result<Vec<_>>>()?);
        if split.len() <= 1 {
            return Ok(vec![group.clone()]);
        }
        Ok(split.into_iter().map(FileGroup::new).collect())
    }
}

/// Things with the nodes that have them, in groups that one node has each, in their order: each goes to the first group
/// whose nodes have it, too.
pub(in super::super) fn together<T>(things: impl IntoIterator<Item = (Option<Vec<NodeId>>, T)>) -> Vec<Vec<T>> {
    let mut groups: Vec<(Option<Vec<NodeId>>, Vec<T>)> = Vec::new();
    for (having, thing) in things {
        let common = |nodes: &Option<Vec<NodeId>>| match (nodes, &having) {
            (None, having) => Some(having.clone()),
            (nodes, None) => Some(nodes.clone()),
            (Some(nodes), Some(having)) => {
                let both: Vec<NodeId> = nodes.iter().copied().filter(|node| having.contains(node)).collect();
                (!both.is_empty()).then_some(Some(both))
            }
        };
        match groups.iter_mut().find_map(|(nodes, things)| common(nodes).map(|common| (common, nodes, things))) {
            Some((common, nodes, things)) => {
                *nodes = common;
                things.push(thing);
            }
            None => groups.push((having, vec![thing])),
        }
    }
    groups.into_iter().map(|(_, things)| things).collect()
}
