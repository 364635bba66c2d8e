//! What `EXPLAIN` shows of the stages: their plans, each below the leaf that reads it, with the figures that its tasks have
//! told. None of it is ever run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{Count, Metric, MetricValue, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};

use super::cut::Stage;
use super::exchange::ExchangeSourceExec;
use super::leaf::unchanging;
use super::metrics::StageMetrics;

/// How the stages did, as far as their tasks have told.
#[derive(Debug)]
pub(super) struct Told {
    stages: Vec<Mutex<Option<StageMetrics>>>,
}

impl Told {
    pub(super) fn new(stages: usize) -> Told {
        Told { stages: (0..stages).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn set(&self, stage: usize, metrics: StageMetrics) {
        if let Some(mut told) = self.get(stage) {
            *told = Some(metrics);
        }
    }

    fn get(&self, stage: usize) -> Option<MutexGuard<'_, Option<StageMetrics>>> {
        self.stages.get(stage).map(|told| told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The last stage with all others below it.
pub(super) fn show(stages: &[Stage], told: &Arc<Told>) -> Arc<dyn ExecutionPlan> {
    show_stage(stages, stages.len().saturating_sub(1), told)
}

fn show_stage(stages: &[Stage], number: usize, told: &Arc<Told>) -> Arc<dyn ExecutionPlan> {
    let stage = &stages[number];
    let mut place = 0;
    let body = show_node(stages, number, stage.body(), &mut place, told);
    let is_split = !Arc::ptr_eq(stage.body(), &stage.plan);
    let body = match is_split {
        false => body,
        true => ShownExec::shared(&stage.plan, vec![body], Node::Splitter, told),
    };
    let parts = if is_split { stage.plan.output_partitioning().partition_count() } else { 1 };
    ShownExec::shared(&stage.plan, vec![body], Node::Stage { number, tasks: stage.tasks, parts }, told)
}

fn show_node(
    stages: &[Stage],
    number: usize,
    plan: &Arc<dyn ExecutionPlan>,
    place: &mut u32,
    told: &Arc<Told>,
) -> Arc<dyn ExecutionPlan> {
    let node = Node::Operator { stage: number, place: *place };
    *place += 1;
    let mut children: Vec<_> =
        plan.children().into_iter().map(|child| show_node(stages, number, child, place, told)).collect();
    if let Some(source) = plan.downcast_ref::<ExchangeSourceExec>() {
        children.push(show_stage(stages, source.exchange as usize, told));
    }
    ShownExec::shared(plan, children, node, told)
}

/// What a node shows.
#[derive(Clone, Copy, Debug)]
enum Node {
    Stage {
        number: usize,
        tasks: usize,
        parts: usize,
    },
    Operator {
        stage: usize,
        place: u32,
    },
    /// What splits the outputs of a stage.
    Splitter,
}

#[derive(Debug)]
struct ShownExec {
    plan: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
    node: Node,
    told: Arc<Told>,
}

impl ShownExec {
    fn shared(
        plan: &Arc<dyn ExecutionPlan>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        node: Node,
        told: &Arc<Told>,
    ) -> Arc<dyn ExecutionPlan> {
        Arc::new(ShownExec { plan: Arc::clone(plan), children, node, told: Arc::clone(told) })
    }
}

impl DisplayAs for ShownExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Node::Stage { number, tasks, parts } => {
                write!(f, "StageExec: stage={number}, tasks={tasks}, parts={parts}")
            }
            _ => self.plan.fmt_as(format, f),
        }
    }
}

impl ExecutionPlan for ShownExec {
    fn name(&self) -> &str {
        match self.node {
            Node::Stage { .. } => "StageExec",
            _ => self.plan.name(),
        }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.plan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.children.iter().collect()
    }

    unchanging!();

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Err(DataFusionError::Internal("what is only shown was run".to_owned()))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        match self.node {
            Node::Splitter => None,
            Node::Operator { stage, place } => Some(self.told.get(stage)?.as_ref()?.operator(place)),
            Node::Stage { number, .. } => {
                let told = self.told.get(number)?;
                let told = told.as_ref()?;
                let mut set = MetricsSet::new();
                let figures = [("output_rows", told.rows), ("output_bytes", told.nbytes), ("tasks_told", told.tasks)];
                for (name, value) in figures {
                    let count = Count::new();
                    count.add(value as usize);
                    set.push(Arc::new(Metric::new(MetricValue::Count { name: name.into(), count }, None)));
                }
                Some(set)
            }
        }
    }
}
