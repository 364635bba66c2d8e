//! How the operators of a stage did, from its tasks to whoever asks with `EXPLAIN ANALYZE`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{Count, Gauge, Metric, MetricValue, MetricsSet, Time};
use serde::{Deserialize, Serialize};

use super::batches::Batches;

/// What one task tells, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StageMetrics {
    /// By the operator's place in the pre-order of the stage's plan, and the figure's name.
    operators: BTreeMap<(u32, String), (Kind, u64)>,
    /// How many tasks tell this.
    pub(super) tasks: u64,
    /// What they put out.
    pub(super) rows: u64,
    pub(super) nbytes: u64,
}

/// What a figure counts, and so how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    OutputRows,
    ElapsedCompute,
    SpillCount,
    SpilledBytes,
    SpilledRows,
    Count,
    /// The largest counts.
    Gauge,
    Nanoseconds,
}

impl StageMetrics {
    /// Of a plan that has run, whose nodes come from these places of the stage's plan.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>, origins: &[u32], outputs: &[Batches]) -> StageMetrics {
        let mut metrics = StageMetrics {
            operators: BTreeMap::new(),
            tasks: 1,
            rows: outputs.iter().map(Batches::rows).sum(),
            nbytes: outputs.iter().map(Batches::size).sum(),
        };
        metrics.add_node(plan, &mut origins.iter());
        metrics
    }

    fn add_node(&mut self, plan: &Arc<dyn ExecutionPlan>, origins: &mut std::slice::Iter<'_, u32>) {
        let Some(&place) = origins.next() else { return };
        for metric in plan.metrics().iter().flat_map(MetricsSet::iter) {
            if let Some((name, kind, value)) = figure(metric.value()) {
                self.add(place, name, kind, value);
            }
        }
        for child in plan.children() {
            self.add_node(child, origins);
        }
    }

    fn add(&mut self, place: u32, name: String, kind: Kind, value: u64) {
        let sum = &mut self.operators.entry((place, name)).or_insert((kind, 0)).1;
        *sum = if kind == Kind::Gauge { value.max(*sum) } else { value.saturating_add(*sum) };
    }

    /// Adds what another task tells.
    pub(super) fn merge(&mut self, other: StageMetrics) {
        for ((place, name), (kind, value)) in other.operators {
            self.add(place, name, kind, value);
        }
        self.tasks += other.tasks;
        self.rows += other.rows;
        self.nbytes += other.nbytes;
    }

    /// The sum of a figure over all operators.
    pub(super) fn total(&self, name: &str) -> u64 {
        self.operators.iter().filter(|((_, figure), _)| figure == name).map(|(_, (_, value))| value).sum()
    }

    /// The figures of the operator at a place.
    pub(super) fn operator(&self, place: u32) -> MetricsSet {
        let mut set = MetricsSet::new();
        let figures = self.operators.range((place, String::new())..(place + 1, String::new()));
        for ((_, name), (kind, value)) in figures {
            set.push(Arc::new(Metric::new(value_of(name, *kind, *value), None)));
        }
        set
    }
}

/// A metric as a number that can be added to others; `None` for points in time and what has no number.
fn figure(value: &MetricValue) -> Option<(String, Kind, u64)> {
    let kind = match value {
        MetricValue::OutputRows(_) => Kind::OutputRows,
        MetricValue::ElapsedCompute(_) => Kind::ElapsedCompute,
        MetricValue::SpillCount(_) => Kind::SpillCount,
        MetricValue::SpilledBytes(_) => Kind::SpilledBytes,
        MetricValue::SpilledRows(_) => Kind::SpilledRows,
        MetricValue::Count { .. } => Kind::Count,
        MetricValue::Gauge { .. } | MetricValue::CurrentMemoryUsage(_) => Kind::Gauge,
        MetricValue::Time { .. } => Kind::Nanoseconds,
        _ => return None,
    };
    Some((value.name().to_owned(), kind, value.as_usize() as u64))
}

fn value_of(name: &str, kind: Kind, value: u64) -> MetricValue {
    let count = || {
        let count = Count::new();
        count.add(value as usize);
        count
    };
    let time = || {
        let time = Time::new();
        time.add_duration(Duration::from_nanos(value));
        time
    };
    let name = || Cow::Owned(name.to_owned());
    match kind {
        Kind::OutputRows => MetricValue::OutputRows(count()),
        Kind::ElapsedCompute => MetricValue::ElapsedCompute(time()),
        Kind::SpillCount => MetricValue::SpillCount(count()),
        Kind::SpilledBytes => MetricValue::SpilledBytes(count()),
        Kind::SpilledRows => MetricValue::SpilledRows(count()),
        Kind::Count => MetricValue::Count { name: name(), count: count() },
        Kind::Nanoseconds => MetricValue::Time { name: name(), time: time() },
        Kind::Gauge => {
            let gauge = Gauge::new();
            gauge.set(value as usize);
            MetricValue::Gauge { name: name(), gauge }
        }
    }
}
