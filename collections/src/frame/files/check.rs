//! Whether the files of a plan are still those that it was made for.
//!
//! A plan holds sizes, byte ranges and statistics of its files. A file that has changed since would be read at wrong places,
//! and the answer could be wrong without an error. So a worker looks before it runs a piece of a plan, and again after.
//!
//! On other nodes a copy may have another time: what the plan holds is the newest of them. A copy that is newer than that
//! has been written to; and while the plan runs, nothing may change at all.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};
use starling_actors::CurrentNode;

use super::error::StoreError;
use crate::csv::same_time;
use crate::files::modified;

/// The files of a plan as they were when [`check`] looked.
#[derive(Debug)]
pub struct Checked {
    local: Vec<Seen>,
    remote: Vec<(Arc<dyn ObjectStore>, ObjectMeta)>,
}

/// A file of this node's disk.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    size: u64,
    modified: u64,
    inode: u64,
}

impl Seen {
    fn of(path: PathBuf) -> Result<Seen> {
        let metadata = fs::metadata(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => gone(path.display().to_string()),
            _ => DataFusionError::Context(path.display().to_string(), Box::new(source.into())),
        })?;
        Ok(Seen { size: metadata.len(), modified: modified(&metadata), inode: metadata.ino(), path })
    }
}

/// Compares the files that a plan scans with what is there now: those on this node's disk at once, remote ones only by
/// [`Checked::again`], since a read that begins finds out the same.
///
/// A plan without files of DataFusion's sources passes. Files with an unknown time, as of a server that says none, are
/// compared by size.
///
/// # Errors
/// [`StoreError::Changed`] and [`StoreError::Gone`], as [`DataFusionError::External`].
pub fn check(plan: &Arc<dyn ExecutionPlan>, runtime: &RuntimeEnv) -> Result<Checked> {
    let files = LocalFileSystem::new();
    let mut checked = Checked { local: Vec::new(), remote: Vec::new() };
    for_each_scan(plan, |scan| {
        let is_local = is_local(scan);
        let mut metas: Vec<&ObjectMeta> = metas_of(scan).collect();
        // Several ranges of a file are one file.
        metas.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        metas.dedup_by(|a, b| a.location == b.location);
        for meta in metas {
            if is_local {
                let seen = Seen::of(files.path_to_filesystem(&meta.location)?)?;
                compare(&seen, meta)?;
                checked.local.push(seen);
            } else {
                checked.remote.push((runtime.object_store(&scan.object_store_url)?, meta.clone()));
            }
        }
        Ok(())
    })?;
    Ok(checked)
}

impl Checked {
    /// Compares once more, after the plan has run: nothing may be different from when [`check`] looked. Call it also if the
    /// plan has failed: whatever a changed file looked like, its change is the cause.
    ///
    /// # Errors
    /// As [`check`], and what a remote store says.
    pub async fn again(&self) -> Result<()> {
        for seen in &self.local {
            let now = Seen::of(seen.path.clone())?;
            if now != *seen {
                let what = difference(seen.size, now.size, "it was written to or replaced");
                return Err(changed(seen.path.display().to_string(), what));
            }
        }
        for (store, meta) in &self.remote {
            let path = || format!("{} of {store}", meta.location);
            let now = match store.head(&meta.location).await {
                Ok(now) => now,
                Err(Error::NotFound { .. }) => return Err(gone(path())),
                Err(error) => return Err(error.into()),
            };
            let is_same_tag = match (&meta.e_tag, &now.e_tag) {
                (Some(then), Some(now)) => then == now,
                _ => true,
            };
            if now.size != meta.size || !is_same_tag || !same_time(nanos(&now), nanos(meta)) {
                return Err(changed(path(), difference(meta.size, now.size, "it was written to or replaced")));
            }
        }
        Ok(())
    }
}

fn compare(seen: &Seen, meta: &ObjectMeta) -> Result<()> {
    let planned = nanos(meta);
    let is_newer = planned != 0 && seen.modified > planned && !same_time(seen.modified, planned);
    if seen.size == meta.size && !is_newer {
        return Ok(());
    }
    let what = difference(meta.size, seen.size, "it was written to after it was planned for");
    Err(changed(seen.path.display().to_string(), what))
}

fn difference(then: u64, now: u64, otherwise: &str) -> String {
    if then == now { otherwise.to_owned() } else { format!("it had {then} bytes, and has {now}") }
}

/// The time of change, 0 if the store says none.
fn nanos(meta: &ObjectMeta) -> u64 {
    meta.last_modified.timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0)
}

fn here() -> String {
    match CurrentNode::get() {
        Some(node) if !node.name().is_empty() => format!("{} ({})", node.name(), node.node()),
        Some(node) => node.node().to_string(),
        None => "this machine".to_owned(),
    }
}

fn changed(path: String, what: String) -> DataFusionError {
    StoreError::Changed { path, node: here(), what }.into()
}

fn gone(path: String) -> DataFusionError {
    StoreError::Gone { path, node: here() }.into()
}

/// Calls `look` with every scan of files in a plan.
pub(super) fn for_each_scan(
    plan: &Arc<dyn ExecutionPlan>,
    mut look: impl FnMut(&FileScanConfig) -> Result<()>,
) -> Result<()> {
    plan.apply(|node| {
        if let Some(scan) = scan_of(node) {
            look(scan)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(drop)
}

/// The scan of files that a node of a plan is.
pub(super) fn scan_of(node: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    node.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

pub(super) fn is_local(scan: &FileScanConfig) -> bool {
    scan.object_store_url.as_str().starts_with("file:")
}

pub(super) fn metas_of(scan: &FileScanConfig) -> impl Iterator<Item = &ObjectMeta> {
    scan.file_groups.iter().flat_map(|group| group.files()).map(|file| &file.object_meta)
}

/// The path on a node's disk.
pub(super) fn path_of(location: &Path) -> Result<String> {
    let path = LocalFileSystem::new().path_to_filesystem(location)?;
    path.into_os_string().into_string().map_err(|path| {
        DataFusionError::Execution(format!("{} is not UTF-8; rename it", PathBuf::from(path).display()))
    })
}
