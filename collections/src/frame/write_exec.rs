//! The client's side of writing files: waits until every partition's file is whole, has the files given their names, and
//! tells how many rows there are. If anything goes wrong before that, or the query is dropped, the files are removed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::UInt64Type;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::future::{join_all, try_join_all};
use futures::{TryStreamExt, stream};
use starling_actors::{Cluster, WeakCluster};
use starling_runtime::task::ClientError;

use super::mesh_exec::{MeshExec, MeshSession};
use super::write::{Target, WriteError, WriteFilesExec, WriteTask, finish, publish, random, remove};

/// So often all is computed and written, if files go with their nodes before they have their names.
const TRIES: usize = 3;
/// Of what ends a write, before tasks that wait.
const PRIORITY: i32 = 1000;

/// The root of a plan that writes files on the cluster. Gives one row, as [`DataSinkExec`] does.
#[derive(Debug)]
pub(super) struct WriteExec {
    /// A [`MeshExec`], of whose partitions each writes a file.
    input: Arc<dyn ExecutionPlan>,
    target: Target,
    cluster: WeakCluster,
    properties: Arc<PlanProperties>,
}

impl WriteExec {
    /// `None` if the client has to write this itself.
    ///
    /// # Errors
    /// A node of the plan cannot be sent to workers, or cannot be cut.
    pub(super) fn try_new(plan: &Arc<dyn ExecutionPlan>, session: &MeshSession) -> Result<Option<WriteExec>> {
        let Some(sink) = plan.downcast_ref::<DataSinkExec>() else { return Ok(None) };
        let Some(target) = Target::of(sink.sink()).filter(Target::is_workers) else { return Ok(None) };
        let input = match sink.input().downcast_ref::<CoalescePartitionsExec>() {
            Some(coalesce) if coalesce.fetch().is_none() && !target.is_file() => Arc::clone(coalesce.input()),
            _ => Arc::clone(sink.input()),
        };
        let Some(files) = WriteFilesExec::try_new(sink, input)? else { return Ok(None) };
        let target = files.target().clone();
        let files: Arc<dyn ExecutionPlan> = Arc::new(files);
        if target.is_file() && files.output_partitioning().partition_count() != 1 {
            return Err(DataFusionError::Internal("one file is to be written of several partitions".to_owned()));
        }
        Ok(Some(WriteExec {
            input: Arc::new(MeshExec::try_new(&files, session)?),
            target,
            cluster: session.cluster.clone(),
            properties: Arc::clone(plan.properties()),
        }))
    }
}

impl DisplayAs for WriteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteExec: {}", self.target)
    }
}

impl ExecutionPlan for WriteExec {
    fn name(&self) -> &'static str {
        "WriteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let none = || DataFusionError::Internal("files are written of one input".to_owned());
        Ok(Arc::new(WriteExec {
            input: children.pop().ok_or_else(none)?,
            target: self.target.clone(),
            cluster: self.cluster.clone(),
            properties: Arc::clone(&self.properties),
        }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let gone = || DataFusionError::Execution("the cluster that the session is of has been shut down".to_owned());
        let cluster = self.cluster.upgrade().ok_or_else(gone)?;
        let run = Run { input: Arc::clone(&self.input), target: self.target.clone(), cluster };
        let schema = self.schema();
        let row = async move {
            let rows = run.write(&context).await?;
            Ok(RecordBatch::try_new(schema, vec![Arc::new(UInt64Array::from(vec![rows]))])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(row))))
    }
}

/// What executing needs of a [`WriteExec`].
struct Run {
    input: Arc<dyn ExecutionPlan>,
    target: Target,
    cluster: Cluster,
}

/// What a task tells of its file.
struct Written {
    rows: u64,
    /// Where the file is, if it has yet to get its name.
    path: Option<String>,
    node: String,
}

fn failed(error: ClientError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl Run {
    async fn write(&self, context: &Arc<TaskContext>) -> Result<u64> {
        let mut tries = 1;
        loop {
            let write = random();
            let ending = Ending { write, target: self.target.clone(), cluster: self.cluster.clone(), is_over: false };
            let outcome = self.write_once(write, context).await;
            ending.end(matches!(outcome, Ok((_, 0)))).await;
            match outcome? {
                (rows, 0) => return Ok(rows),
                (_, lost) if tries == TRIES => return Err(WriteError::Lost { files: lost }.into()),
                (_, lost) => tracing::warn!(lost, "files have gone with their nodes: all is written again"),
            }
            tries += 1;
        }
    }

    /// How many rows there are, and how many files were lost before they had their names.
    async fn write_once(&self, write: u64, context: &Arc<TaskContext>) -> Result<(u64, usize)> {
        let context = of_write(context, write);
        let partitions = 0..self.input.output_partitioning().partition_count();
        let outputs = partitions.map(|partition| self.input.execute(partition, Arc::clone(&context)));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let read = outputs.into_iter().map(|output| async { written(output.try_collect().await?) });
        let files = try_join_all(read).await?;

        let mut moves: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
        for (partition, file) in files.iter().enumerate() {
            if let Some(path) = &file.path {
                let name = self.target.path_of(&self.target.name(write, partition))?;
                moves.entry(&file.node).or_default().push((path.clone(), name));
            }
        }
        let published = moves.into_iter().map(|(node, files)| {
            let call = publish::task(files, !self.target.is_file());
            self.cluster.submit(call.workers([node]).allow_other_workers().priority(PRIORITY))
        });
        let published: Vec<_> = published.collect();
        let lost = try_join_all(published.iter().map(|published| published.result())).await.map_err(failed)?;
        Ok((files.iter().map(|file| file.rows).sum(), lost.into_iter().sum::<u32>() as usize))
    }
}

/// The same context, in which tasks know the run.
fn of_write(context: &TaskContext, write: u64) -> Arc<TaskContext> {
    let config = context.session_config().clone().with_extension(Arc::new(WriteTask { write, partition: 0 }));
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    ))
}

fn written(batches: Vec<RecordBatch>) -> Result<Written> {
    let wrong = || DataFusionError::Internal("a task that writes a file has told something else".to_owned());
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).ok_or_else(wrong)?;
    let [rows, path, node] = batch.columns() else { return Err(wrong()) };
    let rows = rows.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?.value(0);
    let path = path.as_string_opt::<i32>().ok_or_else(wrong)?;
    let node = node.as_string_opt::<i32>().ok_or_else(wrong)?.value(0).to_owned();
    Ok(Written { rows, path: path.is_valid(0).then(|| path.value(0).to_owned()), node })
}

/// A run of a write that is to be ended, whatever becomes of it.
struct Ending {
    write: u64,
    target: Target,
    cluster: Cluster,
    is_over: bool,
}

impl Ending {
    async fn end(mut self, is_good: bool) {
        end(self.cluster.clone(), self.write, self.target.clone(), is_good).await;
        self.is_over = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let ended = end(self.cluster.clone(), self.write, self.target.clone(), false);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(ended)),
            Err(_) => tracing::warn!(target = %self.target, "a write was given up, and its unfinished files are left"),
        }
    }
}

/// Stops what still runs of a write, and removes its files but for those that have their names if it went well.
async fn end(cluster: Cluster, write: u64, target: Target, is_good: bool) {
    if is_good && !target.is_local() {
        return;
    }
    let told = |error: ClientError| {
        tracing::warn!(%target, error = &error as &dyn std::error::Error, "files of a write may be left that are not wanted");
    };
    let finished = cluster.worker_infos().into_iter().map(|worker| {
        let call = finish::task(write, target.clone(), is_good).workers([worker.node.hex()]);
        cluster.submit(call.allow_other_workers().priority(PRIORITY))
    });
    let finished: Vec<_> = finished.collect();
    let finished = join_all(finished.iter().map(|finished| finished.result())).await;
    finished.into_iter().filter_map(std::result::Result::err).for_each(told);
    if !target.is_local() && !target.is_file() {
        let removed = cluster.submit(remove::task(write, target.clone()).priority(PRIORITY));
        removed.result().await.unwrap_or_else(told);
    }
}
