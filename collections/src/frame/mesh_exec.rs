//! The root of a plan that runs on the cluster: it submits the stages' tasks when it is first polled, and its partitions
//! are the outputs of the last stage.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::common::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt, stream};
use starling_actors::{Cluster, WeakCluster};
use starling_core::failure::FailureCause;
use starling_core::ids::NodeId;
use starling_macros::task;
use starling_runtime::parts::Parts;
use starling_runtime::task::{ClientError, Future};
use starling_runtime::value::Buffer;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinHandle;

use super::batches::Batches;
use super::codec;
use super::csv::CsvScanExec;
use super::cut::{Stage, cut};
use super::exchange::{ExchangeSourceExec, Read};
use super::files::MeshFiles;
use super::leaf::unchanging;
use super::metrics::StageMetrics;
use super::progress::{QueryProgress, StageProgress};
use super::shown::{self, Told};
use super::slice::{leaves, slice_leaf};
use super::stage::{ExchangeInputs, StageCall, stage};
use super::write::WriteTask;

/// A stage whose tasks' copies of the plan would have more bytes together is sent to the workers once.
const PLAN_BYTES_INLINE_MAX: usize = 256 * 1024;

/// A plan up to this size is the output of a task, which is computed again if its worker is lost; a larger one, which has
/// tables in it, does not fit into a task's arguments.
const PLAN_BYTES_HELD_MAX: usize = 12 << 20;

/// What a session's queries have in common.
#[derive(Clone, Debug)]
pub(super) struct MeshSession {
    pub(super) cluster: WeakCluster,
    /// Where files are.
    pub(super) files: MeshFiles,
    /// Told how far the query is, if somebody watches.
    pub(super) progress: Arc<watch::Sender<QueryProgress>>,
}

/// A plan on the cluster.
#[derive(Debug)]
pub(super) struct MeshExec {
    session: MeshSession,
    /// The plan before it was cut.
    whole: Arc<dyn ExecutionPlan>,
    stages: Arc<Vec<Stage>>,
    /// The stages' plans, encoded.
    plans: Arc<Vec<Bytes>>,
    properties: Arc<PlanProperties>,
    /// What `EXPLAIN` shows below this node.
    shown: Arc<dyn ExecutionPlan>,
    /// How the stages did, once they are done, if they are to tell.
    told: Arc<Told>,
    wants_metrics: bool,
    run: Mutex<Arc<Run>>,
}

/// One execution of all partitions.
#[derive(Debug, Default)]
struct Run {
    submitted: OnceCell<Submitted>,
    /// The partitions that were asked for.
    taken: Mutex<Vec<bool>>,
    /// Whether it was said how many bad rows were left out.
    is_skipping_told: AtomicBool,
}

struct Submitted {
    /// The outputs of the last stage, each until its partition has been read.
    outputs: Vec<Mutex<Option<Future<Parts>>>>,
    /// How each stage did that was run.
    metrics: Vec<Option<Future<StageMetrics>>>,
    /// Who tells how far it is, if somebody watches.
    watcher: Option<JoinHandle<()>>,
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

/// Tells how far the stages are until all are done.
async fn watch_stages(progress: Arc<watch::Sender<QueryProgress>>, stages: Vec<Vec<Future<Parts>>>) {
    let count = |(stage, tasks): (usize, &Vec<_>)| StageProgress { stage, tasks: tasks.len(), done: 0 };
    progress.send_replace(QueryProgress { stages: stages.iter().enumerate().map(count).collect() });
    let tasks = stages.into_iter().enumerate();
    let tasks = tasks.flat_map(|(stage, tasks)| tasks.into_iter().map(move |task| (stage, task)));
    let mut waiting: FuturesUnordered<_> = tasks
        .map(|(stage, task)| async move {
            // Whatever became of it is told by the query itself.
            let _ = task.wait().await;
            stage
        })
        .collect();
    while let Some(stage) = waiting.next().await {
        progress.send_modify(|progress| {
            if let Some(stage) = progress.stages.get_mut(stage) {
                stage.done += 1;
            }
        });
    }
}

impl fmt::Debug for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Submitted({} outputs)", self.outputs.len())
    }
}

/// Why a query failed on the cluster: what the task's operators said, and where.
#[derive(Debug, thiserror::Error)]
struct QueryFailed(#[source] ClientError);

impl fmt::Display for QueryFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClientError::Failed(failure) = &self.0 else { return self.0.fmt(f) };
        let FailureCause::Error { message, .. } = &failure.cause else { return self.0.fmt(f) };
        // Whoever shows this says that it is external, too.
        f.write_str(message.strip_prefix("External error: ").unwrap_or(message))?;
        match failure.node {
            Some(node) => write!(f, " (task {} on node {node})", failure.task),
            None => write!(f, " (task {})", failure.task),
        }
    }
}

fn failed(error: ClientError) -> DataFusionError {
    DataFusionError::External(Box::new(QueryFailed(error)))
}

impl MeshExec {
    /// # Errors
    /// A node of the plan cannot be sent to workers, or cannot be cut.
    pub(super) fn try_new(plan: &Arc<dyn ExecutionPlan>, session: &MeshSession) -> Result<MeshExec> {
        let plan = &session.files.regroup(Arc::clone(plan))?;
        let stages = cut(plan)?;
        let encode = |stage: &Stage| match stage.stored {
            Some(_) => Ok(Bytes::new()),
            None => codec::encode(&stage.plan),
        };
        let plans = stages.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let told = Arc::new(Told::new(stages.len()));
        let properties = (**plan.properties()).clone();
        let partitions = plan.output_partitioning().partition_count();
        let properties = match plan.output_partitioning() {
            Partitioning::Hash(..) => properties,
            _ => properties.with_partitioning(Partitioning::UnknownPartitioning(partitions)),
        };
        Ok(MeshExec {
            session: session.clone(),
            whole: Arc::clone(plan),
            shown: shown::show(&stages, &told),
            stages: Arc::new(stages),
            plans: Arc::new(plans),
            properties: Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative)),
            told,
            wants_metrics: skips_bad_rows(plan),
            run: Mutex::default(),
        })
    }

    /// The same plan, whose stages tell how they did.
    pub(super) fn telling(&self) -> MeshExec {
        MeshExec {
            session: self.session.clone(),
            whole: Arc::clone(&self.whole),
            stages: Arc::clone(&self.stages),
            plans: Arc::clone(&self.plans),
            properties: Arc::clone(&self.properties),
            shown: Arc::clone(&self.shown),
            told: Arc::clone(&self.told),
            wants_metrics: true,
            run: Mutex::default(),
        }
    }

    /// The plan before it was cut.
    pub(super) fn whole(&self) -> &Arc<dyn ExecutionPlan> {
        &self.whole
    }

    /// Submits everything, and gives the outputs of the last stage.
    pub(super) async fn store(&self, options: &ConfigOptions) -> Result<Vec<Future<Parts>>> {
        let submitted = self.submission(options).submit().await?;
        Ok(submitted.outputs.iter().filter_map(take).collect())
    }

    fn submission(&self, options: &ConfigOptions) -> Submission {
        Submission {
            session: self.session.clone(),
            stages: Arc::clone(&self.stages),
            plans: Arc::clone(&self.plans),
            settings: Arc::new(settings_of(options)),
            wants_metrics: self.wants_metrics,
            write: None,
        }
    }

    /// The run in which nobody has asked for this partition yet.
    fn run_of(&self, partition: usize) -> Arc<Run> {
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = {
            let mut taken = run.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.resize(self.properties.output_partitioning().partition_count(), false);
            std::mem::replace(&mut taken[partition], true)
        };
        if is_taken {
            let mut taken = vec![false; self.properties.output_partitioning().partition_count()];
            taken[partition] = true;
            *run = Arc::new(Run { taken: Mutex::new(taken), ..Run::default() });
        }
        Arc::clone(&run)
    }
}

fn take(output: &Mutex<Option<Future<Parts>>>) -> Option<Future<Parts>> {
    output.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What submitting needs of a [`MeshExec`].
#[derive(Clone)]
struct Submission {
    session: MeshSession,
    stages: Arc<Vec<Stage>>,
    plans: Arc<Vec<Bytes>>,
    settings: Arc<Vec<(String, String)>>,
    wants_metrics: bool,
    /// The run of the write, if the last stage writes files.
    write: Option<u64>,
}

impl Submission {
    async fn submit(&self) -> Result<Submitted> {
        let gone = || DataFusionError::Execution("the cluster that the session is of has been shut down".to_owned());
        let cluster = self.session.cluster.upgrade().ok_or_else(gone)?;
        let mut outputs: Vec<Vec<Future<Parts>>> = Vec::with_capacity(self.stages.len());
        let mut metrics = Vec::new();
        for (stage, plan) in self.stages.iter().zip(self.plans.iter()) {
            if let Some(stored) = &stage.stored {
                metrics.extend(self.wants_metrics.then_some(None));
                outputs.push(stored.to_vec());
                continue;
            }
            let tasks = self.submit_stage(&cluster, stage, plan, &outputs).await?;
            if self.wants_metrics {
                let parts = parts_of(stage);
                let call = gather_metrics::task(tasks.clone(), parts as u32).part(parts, parts + 1, 0);
                metrics.push(Some(cluster.submit(call)));
            }
            outputs.push(tasks);
        }
        let is_watched = self.session.progress.receiver_count() > 0;
        let watch = || tokio::spawn(watch_stages(Arc::clone(&self.session.progress), outputs.clone()));
        let watcher = is_watched.then(watch);
        let last = outputs.pop().unwrap_or_default();
        Ok(Submitted { outputs: last.into_iter().map(|output| Mutex::new(Some(output))).collect(), metrics, watcher })
    }

    async fn submit_stage(
        &self,
        cluster: &Cluster,
        stage: &Stage,
        plan: &Bytes,
        outputs: &[Vec<Future<Parts>>],
    ) -> Result<Vec<Future<Parts>>> {
        let nbytes = plan.len();
        let plan = Buffer(plan.clone());
        let (inline, sent) = if nbytes.saturating_mul(stage.tasks) <= PLAN_BYTES_INLINE_MAX {
            (Some(plan), None)
        } else if nbytes <= PLAN_BYTES_HELD_MAX {
            (None, Some(cluster.submit(hold_plan::task(plan))))
        } else {
            (None, Some(cluster.scatter(plan).await.map_err(failed)?))
        };
        let mut tasks = Vec::with_capacity(stage.tasks);
        let files = &self.session.files;
        let mut is_placed = false;
        leaves(stage.body(), None, &mut |leaf, _| {
            is_placed |= !matches!(placement(files, leaf), Ok(None));
            Ok(())
        })?;
        for partition in 0..stage.tasks {
            let Inputs { exchanges, wholes, parted, part } = self.inputs_of(stage, partition, outputs)?;
            let call = StageCall {
                plan: inline.clone(),
                settings: Arc::clone(&self.settings),
                partition: partition as u32,
                tasks: stage.tasks as u32,
                exchanges,
                wants_metrics: self.wants_metrics,
                write: self.write,
            };
            let from = usize::from(sent.is_some()) + wholes.len();
            let has_parted = !parted.is_empty();
            let mut call = self::stage::task(call, sent.iter().cloned().collect::<Vec<_>>(), wholes, parted);
            if has_parted && let Some((part, of)) = part {
                call = call.part(part, of, from);
            }
            if is_placed {
                let mut nodes: Option<Vec<NodeId>> = None;
                leaves(stage.body(), Some(partition), &mut |leaf, partition| {
                    let leaf =
                        partition.map_or_else(|| Ok(Arc::clone(leaf)), |partition| slice_leaf(leaf, partition))?;
                    if let Some(having) = placement(files, &leaf)? {
                        nodes = Some(match nodes.take() {
                            None => having,
                            Some(nodes) => nodes.into_iter().filter(|node| having.contains(node)).collect(),
                        });
                    }
                    Ok(())
                })?;
                if let Some(nodes) = nodes {
                    // No restriction at all would be the opposite.
                    if nodes.is_empty() {
                        let what = "no node has all files of the tables that this query reads side by side: copy them to \
                                    the same nodes with `node put`";
                        return Err(DataFusionError::Execution(what.to_owned()));
                    }
                    call = call.workers(nodes.iter().map(NodeId::hex));
                }
            }
            tasks.push(cluster.submit(call));
        }
        Ok(tasks)
    }

    /// The outputs that a task needs: those of an exchange of which it is to have one part are taken in part, as long as it
    /// is the same part of all.
    fn inputs_of(&self, stage: &Stage, partition: usize, outputs: &[Vec<Future<Parts>>]) -> Result<Inputs> {
        let mut inputs = Inputs::default();
        let mut parted = Vec::new();
        leaves(stage.body(), Some(partition), &mut |leaf, partition| {
            let Some(source) = leaf.downcast_ref::<ExchangeSourceExec>() else { return Ok(()) };
            let producer = source.exchange as usize;
            let missing = || DataFusionError::Internal(format!("stage {producer} was not submitted"));
            let futures = outputs.get(producer).ok_or_else(missing)?;
            if inputs.exchanges.iter().chain(&parted).any(|known: &ExchangeInputs| known.exchange == source.exchange) {
                return Ok(());
            }
            let of = self.stages.get(producer).map_or(1, parts_of) + usize::from(self.wants_metrics);
            let wanted = partition.or_else(|| (leaf.output_partitioning().partition_count() == 1).then_some(0));
            let part = wanted.filter(|_| source.read.is_parted()).unwrap_or_default();
            let can_be_parted = source.read.is_parted()
                && wanted.is_some()
                && of > 1
                && inputs.part.is_none_or(|known| known == (part, of));
            let exchange = source.exchange;
            // A sliced leaf that takes each output as a partition takes only one.
            let futures = match (source.read, partition) {
                (Read::Each, Some(partition)) => futures.get(partition..=partition).ok_or_else(missing)?,
                _ => futures,
            };
            let count = futures.len() as u32;
            let given = ExchangeInputs { exchange, outputs: count, part: part as u32, is_parted: can_be_parted };
            if can_be_parted {
                inputs.part = Some((part, of));
                inputs.parted.extend(futures.iter().cloned());
                parted.push(given);
            } else {
                inputs.wholes.extend(futures.iter().cloned());
                inputs.exchanges.push(given);
            }
            Ok(())
        })?;
        inputs.exchanges.append(&mut parted);
        Ok(inputs)
    }
}

#[derive(Default)]
struct Inputs {
    exchanges: Vec<ExchangeInputs>,
    wholes: Vec<Future<Parts>>,
    parted: Vec<Future<Parts>>,
    /// Which part is taken of those, and of how many.
    part: Option<(usize, usize)>,
}

/// The nodes that have all files of a leaf; `None` if any node will do.
fn placement(files: &MeshFiles, leaf: &Arc<dyn ExecutionPlan>) -> Result<Option<Vec<NodeId>>> {
    let Some(scan) = leaf.downcast_ref::<CsvScanExec>() else { return files.placement_of(leaf) };
    let partitions = 0..scan.properties().partitioning.partition_count();
    let paths: Vec<String> = partitions.flat_map(|partition| scan.paths(partition)).collect();
    files.placement_of_all(paths.iter().map(String::as_str))
}

/// The figure of a scan that tells how many rows it has left out.
const BAD_ROWS: &str = "bad_rows_skipped";

/// Whether rows may be left out, which has to be told.
fn skips_bad_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<CsvScanExec>().is_some_and(CsvScanExec::skips_bad_rows)
        || plan.children().into_iter().any(skips_bad_rows)
}

/// How many parts of rows the outputs of a stage have.
fn parts_of(stage: &Stage) -> usize {
    match Arc::ptr_eq(stage.body(), &stage.plan) {
        true => 1,
        false => stage.plan.output_partitioning().partition_count(),
    }
}

/// Puts a stage's plan where its tasks can fetch it.
#[task(crate = starling_runtime, json = false)]
fn hold_plan(plan: Buffer) -> Buffer {
    plan
}

/// Adds up what a stage's tasks tell, which is one part of their outputs.
#[task(crate = starling_runtime, json = false)]
fn gather_metrics(outputs: Vec<Arc<Parts>>, part: u32) -> Result<StageMetrics> {
    let mut all = StageMetrics::default();
    for output in outputs {
        let told =
            output.get::<StageMetrics>(part as usize).map_err(|error| DataFusionError::External(Box::new(error)))?;
        if let Some(told) = told {
            all.merge((*told).clone());
        }
    }
    Ok(all)
}

/// The settings that are not the defaults, as texts: a task's session is made of them.
fn settings_of(options: &ConfigOptions) -> Vec<(String, String)> {
    let defaults = ConfigOptions::new().entries();
    let defaults: std::collections::HashMap<_, _> =
        defaults.into_iter().map(|entry| (entry.key, entry.value)).collect();
    // Extensions of other makers are not known to the workers.
    let ours = options.entries().into_iter().filter(|entry| entry.key.starts_with("datafusion."));
    let changed = ours.filter(|entry| defaults.get(&entry.key) != Some(&entry.value));
    changed.filter_map(|entry| Some((entry.key, entry.value?))).collect()
}

impl Run {
    /// The batches of a partition of the last stage.
    async fn read(&self, submission: Submission, partition: usize, told: Option<Arc<Told>>) -> Result<Arc<Batches>> {
        let submitted = self.submitted.get_or_try_init(|| submission.submit()).await?;
        let output = submitted.outputs.get(partition);
        let output = output.and_then(take);
        let output = output.ok_or_else(|| DataFusionError::Internal("a partition was read twice".to_owned()))?;
        let parts = output.result().await.map_err(failed)?;
        if let Some(told) = told {
            let told_by = submitted.metrics.iter().enumerate();
            let mut skipped = 0;
            for (stage, metrics) in told_by.filter_map(|(stage, metrics)| Some((stage, metrics.as_ref()?))) {
                let metrics = metrics.result().await.map_err(failed)?;
                skipped += metrics.total(BAD_ROWS);
                told.set(stage, metrics);
            }
            if skipped > 0 && !self.is_skipping_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(rows = skipped, "bad rows were left out");
            }
        }
        let batches = parts.get::<Batches>(0).map_err(|error| DataFusionError::External(Box::new(error)))?;
        batches.ok_or_else(|| DataFusionError::Internal("an output without its rows".to_owned()))
    }
}

impl DisplayAs for MeshExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: usize = self.stages.iter().map(|stage| stage.tasks).sum();
        write!(f, "MeshExec: stages={}, tasks={tasks}", self.stages.len())
    }
}

impl ExecutionPlan for MeshExec {
    fn name(&self) -> &'static str {
        "MeshExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.shown]
    }

    unchanging!();

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let run = self.run_of(partition);
        let write = context.session_config().get_extension::<WriteTask>().map(|task| task.write);
        let submission = Submission { write, ..self.submission(context.session_config().options()) };
        let told = self.wants_metrics.then(|| Arc::clone(&self.told));
        let read = async move { run.read(submission, partition, told).await };
        let batches = stream::once(read).map_ok(|batches| stream::iter(batches.batches().to_vec().into_iter().map(Ok)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches.try_flatten().boxed())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        None
    }
}
