//! What a live task costs in the scheduler's process: its memory before and after many tasks that a client keeps.

use anyhow::Context;

use super::{BENCH, connected, graphs};
use crate::measure::{Plan, Repeat, median};
use crate::report::{Line, STARLING};
use crate::usage::{peak_bytes, resident_bytes};

/// The first look, and the last.
const FEW: u64 = 100_000;
const MANY: u64 = 1_000_000;

/// Measures on a fresh cluster a run, since an allocator does not give back what it once had.
pub(super) async fn measure(plan: &Plan) -> anyhow::Result<Line> {
    let mut repeat = Repeat::start(plan.runs.min(3), plan.budget());
    let (mut few, mut peak) = (Vec::new(), Vec::new());
    while repeat.wants_more() {
        let seen =
            tokio::time::timeout(plan.timeout(), grow(plan)).await.context("the tasks did not end in time")??;
        few.push(seen.few);
        peak.push(seen.peak);
        repeat.add(seen.last);
    }
    let line = Line::new(BENCH, "scheduler-bytes", STARLING, "B/task", &repeat.finish())
        .with_figure("at_100k", median(&few).unwrap_or(0.0))
        .with_figure("peak", median(&peak).unwrap_or(0.0));
    let tasks = if plan.quick { FEW } else { MANY };
    Ok(line.note(format!("growth of the scheduler's resident memory at {tasks} finished tasks whose results are kept")))
}

/// Bytes a task.
struct Seen {
    few: f64,
    /// At the end: `few` again with `--quick`.
    last: f64,
    peak: f64,
}

async fn grow(plan: &Plan) -> anyhow::Result<Seen> {
    let connected = connected(plan).await?;
    let pid = connected.nodes.scheduler_pid();
    let resident = || resident_bytes(pid).context("the scheduler is gone");
    let before = resident()?;
    let per_task = |now: u64, tasks: u64| now.saturating_sub(before) as f64 / tasks as f64;

    let _held = graphs::hold(&connected.cluster, FEW).await?;
    let few = per_task(resident()?, FEW);
    let (mut last, mut tasks, mut more) = (few, FEW, Vec::new());
    if !plan.quick {
        more = graphs::hold(&connected.cluster, MANY - FEW).await?;
        tasks = MANY;
        last = per_task(resident()?, MANY);
    }
    let peak = per_task(peak_bytes(pid).context("the scheduler is gone")?, tasks);
    // Until here, so that the tasks are alive when they are counted.
    drop(more);
    Ok(Seen { few, last, peak })
}
