//! A stage's task: one partition of the stage's plan, from the outputs of other tasks to an output of its own.

use std::cell::RefCell;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use starling_actors::CurrentNode;
use starling_macros::task;
use starling_runtime::parts::Parts;
use starling_runtime::store::MemoryConfig;
use starling_runtime::value::{Buffer, Value};

use super::codec;
use super::cut::body;
use super::exchange::TaskInputs;
use super::files;
use super::functions::register_linked;
use super::metrics::StageMetrics;
use super::sink::Sink;
use super::slice::{Slice, slice};
use super::write::WriteTask;

/// What fraction of a node's memory limit its operators may use; the rest is for outputs.
const OPERATORS_FRACTION: f64 = 0.4;

/// A sort keeps at most this share of the operators' memory back for merging.
const SORT_RESERVATION_SHARE: usize = 16;

/// What a task is told beside its inputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StageCall {
    /// The stage's plan, unless it is the first input.
    pub(super) plan: Option<Buffer>,
    /// The settings of the query's session that are not the defaults.
    pub(super) settings: Arc<Vec<(String, String)>>,
    /// Which partition of the plan; `None` if the plan has one partition already.
    pub(super) partition: u32,
    /// How many tasks the stage has.
    pub(super) tasks: u32,
    /// In the order of the inputs: first those that are taken whole, then those of which a part is.
    pub(super) exchanges: Vec<ExchangeInputs>,
    /// Whether the output has one part more: how the operators did.
    pub(super) wants_metrics: bool,
    /// The run of the write, if the stage writes files.
    pub(super) write: Option<u64>,
}

/// Which of a task's inputs are the outputs of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExchangeInputs {
    pub(super) exchange: u32,
    /// How many outputs there are.
    pub(super) outputs: u32,
    /// Which part of each is meant.
    pub(super) part: u32,
    /// Whether only that part is among the inputs.
    pub(super) is_parted: bool,
}

/// What the stages' tasks on a node share.
struct FrameNode {
    state: SessionState,
    /// What a sort keeps back for merging what it has spilled, if the node's memory is too small for DataFusion's default.
    sort_reservation: Option<usize>,
}

impl FrameNode {
    fn new(memory: &MemoryConfig) -> Result<FrameNode> {
        let mut state = SessionStateBuilder::new_with_default_features().with_runtime_env(runtime_env(memory)?).build();
        register_linked(&mut state)?;
        let operators = operators_bytes(memory);
        let default = SessionConfig::new().options().execution.sort_spill_reservation_bytes;
        let sort_reservation = operators.map(|bytes| bytes / SORT_RESERVATION_SHARE).filter(|share| *share < default);
        Ok(FrameNode { state, sort_reservation })
    }

    fn context(&self, call: &StageCall, inputs: TaskInputs) -> Result<Arc<TaskContext>> {
        let mut config = SessionConfig::new();
        if let Some(bytes) = self.sort_reservation {
            config.options_mut().execution.sort_spill_reservation_bytes = bytes;
        }
        for (key, value) in call.settings.iter() {
            config.options_mut().set(key, value)?;
        }
        let mut config = config.with_extension(Arc::new(inputs));
        if let Some(write) = call.write {
            config.set_extension(Arc::new(WriteTask { write, partition: call.partition }));
        }
        Ok(Arc::new(TaskContext::from(&self.state).with_session_config(config)))
    }
}

/// How much memory a node's operators may use; `None` for as much as they want.
fn operators_bytes(memory: &MemoryConfig) -> Option<usize> {
    (memory.limit > 0).then_some((memory.limit as f64 * OPERATORS_FRACTION) as usize)
}

fn with_shared<T>(take: impl FnOnce(&FrameNode) -> Result<T>) -> Result<T> {
    let node = CurrentNode::get().ok_or_else(|| DataFusionError::Internal("a stage outside of a node".to_owned()))?;
    let shared = node.extension(|| FrameNode::new(node.memory()));
    take(Result::as_ref(&shared).map_err(|error| DataFusionError::Execution(error.to_string()))?)
}

/// What the queries on the node of the running task have: its stores of files among it.
pub(super) fn environment() -> Result<Arc<RuntimeEnv>> {
    with_shared(|shared| Ok(Arc::clone(shared.state.runtime_env())))
}

fn runtime_env(memory: &MemoryConfig) -> Result<Arc<RuntimeEnv>> {
    let mut builder = files::runtime_env(files::registry());
    if let Some(bytes) = operators_bytes(memory) {
        builder = builder.with_memory_pool(Arc::new(FairSpillPool::new(bytes)));
    }
    if let Some(directory) = &memory.spill_directory {
        builder = builder.with_temp_file_path(directory);
    }
    builder.build_arc()
}

/// Runs one partition of a stage.
#[task(crate = starling_runtime, json = false)]
pub(super) fn stage(
    call: &StageCall,
    plan: Vec<Arc<Buffer>>,
    wholes: Vec<Arc<Parts>>,
    parted: Vec<Arc<Parts>>,
) -> Result<Parts> {
    let plan = plan.first().map(|plan| &**plan).or(call.plan.as_ref());
    let plan = plan.ok_or_else(|| DataFusionError::Internal("a stage without a plan".to_owned()))?;
    let inputs = inputs_of(call, wholes, parted)?;
    let context = with_shared(|shared| shared.context(call, inputs))?;
    let plan = codec::decode(plan, &context)?;
    run(&plan, call, &context)
}

/// Gives the inputs to the exchanges that they are of.
fn inputs_of(call: &StageCall, wholes: Vec<Arc<Parts>>, parted: Vec<Arc<Parts>>) -> Result<TaskInputs> {
    let (mut wholes, mut parted) = (wholes.into_iter(), parted.into_iter());
    let mut exchanges = Vec::with_capacity(call.exchanges.len());
    for exchange in &call.exchanges {
        let inputs = if exchange.is_parted { &mut parted } else { &mut wholes };
        let outputs: Vec<Arc<Parts>> = inputs.take(exchange.outputs as usize).collect();
        if outputs.len() != exchange.outputs as usize {
            return Err(DataFusionError::Internal("a stage with too few inputs".to_owned()));
        }
        exchanges.push((exchange.exchange, exchange.part as usize, outputs));
    }
    Ok(TaskInputs { exchanges })
}

fn run(plan: &Arc<dyn ExecutionPlan>, call: &StageCall, context: &Arc<TaskContext>) -> Result<Parts> {
    let partitioning = plan.downcast_ref::<RepartitionExec>().map(RepartitionExec::partitioning);
    let partition = call.partition as usize;
    let Slice { plan, origins } = slice(body(plan), partition)?;
    if plan.output_partitioning().partition_count() != 1 {
        return Err(DataFusionError::Internal("a slice has more than one partition".to_owned()));
    }
    let batch_size = context.session_config().batch_size();
    let mut sink = Sink::new(&plan.schema(), partitioning, batch_size, partition, call.tasks as usize)?;
    let seen = files::check(&plan, &context.runtime_env())?;
    with_runtime(|runtime| {
        runtime.block_on(async {
            let outcome = fill(&mut sink, &plan, context).await;
            // Whatever a file looked like that was changed meanwhile, its change is the cause.
            seen.again().await.and(outcome)
        })
    })??;
    let parts = sink.finish()?;
    let metrics = call.wants_metrics.then(|| StageMetrics::of(&plan, &origins, &parts));
    Ok(Parts::new(parts.into_iter().map(Value::live).chain(metrics.map(Value::live)).collect()))
}

async fn fill(sink: &mut Sink, plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<()> {
    let mut batches = plan.execute(0, Arc::clone(context))?;
    while let Some(batch) = batches.next().await {
        sink.push(batch?)?;
    }
    Ok(())
}

thread_local! {
    /// The runtime of the operators on this thread. It has no thread of its own: everything runs on the task's.
    static RUNTIME: RefCell<Option<tokio::runtime::Runtime>> = const { RefCell::new(None) };
}

/// Runs on the thread's runtime.
pub(super) fn with_runtime<T>(run: impl FnOnce(&tokio::runtime::Runtime) -> T) -> Result<T> {
    let runtime = match RUNTIME.take() {
        Some(runtime) => runtime,
        None => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
    };
    let outcome = run(&runtime);
    RUNTIME.set(Some(runtime));
    Ok(outcome)
}
