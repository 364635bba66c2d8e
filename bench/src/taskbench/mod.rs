//! `bench taskbench`: METG(50%) of the dependence patterns of Task Bench.
//!
//! Slaughter et al., "Task Bench: A Parameterized Benchmark for Evaluating Parallel Runtime Performance", SC'20. The paper
//! has as many columns as cores; here there are more, since a worker that waits for another should find something to do.

use std::time::Instant;

use anyhow::{Context, ensure};

use crate::measure::{Plan, Repeat, median};
use crate::peers::{self, Ask, Peer};
use crate::report::{Line, Report, SIZE, STARLING, tell};
use crate::tasks::{Connected, connected};

mod graph;
mod kernel;
mod metg;
mod pattern;

use graph::{Prepared, Work};
use kernel::Kernel;
use metg::{Point, Sweep};
use pattern::{Grid, Pattern};

/// The subcommand's name in the lines.
const BENCH: &str = "taskbench";
const UNIT: &str = "us";
/// Columns, and rows.
const WIDTH: u32 = 32;
const STEPS: u32 = 200;
const STEPS_QUICK: u32 = 40;
/// How long each thread measures its rate.
const CALIBRATION_MS: u64 = 200;

/// How large the graphs are to be, where the command line says so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub(crate) width: Option<u32>,
    pub(crate) steps: Option<u32>,
}

/// Measures everything that the plan wants.
pub(crate) fn run(plan: &Plan, size: Size, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    let width = size.width.unwrap_or_else(|| WIDTH.max(4 * plan.parallelism()));
    let steps = size.steps.unwrap_or(if plan.quick { STEPS_QUICK } else { STEPS });
    let threads = plan.parallelism();
    ensure!(width >= threads, "--width {width} leaves some of {threads} threads without work: give at least {threads}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut running: Option<Running> = None;
    for pattern in Pattern::ALL {
        for kernel in Kernel::ALL {
            let case = case(pattern, kernel);
            if !plan.wants(&case) {
                continue;
            }
            if plan.is_over() {
                report.push(Line::failed(BENCH, case, STARLING, UNIT, "not begun: --quick's time is over"));
                continue;
            }
            tell(format_args!("{BENCH}: {case}"));
            let grid = Grid { pattern, width, steps };
            match runtime.block_on(measure(plan, grid, kernel, &mut running)) {
                Ok(line) => report.push(line),
                Err(error) => {
                    // What has failed may still be at it: the next case gets a new cluster.
                    running = None;
                    report.push(Line::failed(BENCH, case, STARLING, UNIT, format!("{error:#}")));
                }
            }
        }
    }
    for &peer in peers {
        if peer == Peer::Dask {
            peers::measure(peer, BENCH, asks_of_dask(plan, width), false, plan, report);
        } else {
            tell(format_args!("{BENCH}: {peer} runs no graphs of Task Bench here"));
        }
    }
    Ok(())
}

/// Two patterns, in a few rows: a task costs Dask about as much as a hundred cost us.
fn asks_of_dask(plan: &Plan, width: u32) -> Vec<Ask> {
    let steps = if plan.quick { 4 } else { 16 };
    let patterns = [Pattern::Trivial, Pattern::Stencil].into_iter();
    let asks = patterns.map(|pattern| {
        let graph = Prepared::new(Grid { pattern, width, steps });
        let mut ask = Ask::new(case(pattern, Kernel::Compute), UNIT, "metg", graph.tasks(), |s| s * 1e6);
        ask.request.insert("rows".to_owned(), graph.to_json());
        ask.request.insert("threads".to_owned(), plan.parallelism().into());
        ask.check = Box::new(move |outputs| graph.is_answer(outputs));
        ask.tell_size = true;
        ask
    });
    asks.collect()
}

fn case(pattern: Pattern, kernel: Kernel) -> String {
    format!("{}-{}", pattern.name(), kernel.name())
}

/// A cluster that serves all cases, and what its threads can do.
struct Running {
    connected: Connected,
    /// Units in a microsecond, by kernel.
    rates: [Option<f64>; Kernel::ALL.len()],
}

impl Running {
    async fn start(plan: &Plan) -> anyhow::Result<Running> {
        Ok(Running { connected: connected(plan).await?, rates: [None; Kernel::ALL.len()] })
    }

    /// The threads' rate, measured when it is first asked for.
    async fn rate(&mut self, plan: &Plan, kernel: Kernel) -> anyhow::Result<f64> {
        if let Some(rate) = self.rates[kernel as usize] {
            return Ok(rate);
        }
        let threads = plan.parallelism();
        let measured = graph::rate_of_threads(&self.connected.cluster, kernel, threads, CALIBRATION_MS);
        let rate = tokio::time::timeout(plan.timeout(), measured).await;
        let rate = rate.context("the threads' rates were not measured in time")??;
        let (field, peak) = kernel.peak(rate);
        tell(format_args!("{BENCH}: {} kernel: {field} {peak:.2} on each of {threads} threads", kernel.name()));
        Ok(*self.rates[kernel as usize].insert(rate))
    }
}

/// One case; starts the cluster if there is none.
async fn measure(plan: &Plan, grid: Grid, kernel: Kernel, running: &mut Option<Running>) -> anyhow::Result<Line> {
    let running = match running {
        Some(running) => running,
        None => running.insert(Running::start(plan).await?),
    };
    let rate = running.rate(plan, kernel).await?;
    let graph = Prepared::new(grid);
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    let mut efficiencies = Vec::new();
    while repeat.wants_more() {
        let sweep = sweep(plan, &running.connected, &graph, kernel, rate).await?;
        let metg = sweep.metg().context("no kernel was large enough for an efficiency of 50%")?;
        efficiencies.extend(sweep.largest_efficiency());
        repeat.add(metg);
    }
    let (field, peak) = kernel.peak(rate);
    Ok(Line::new(BENCH, case(grid.pattern, kernel), STARLING, UNIT, &repeat.finish())
        .with(SIZE, graph.tasks())
        .with("width", grid.width)
        .with("steps", grid.steps)
        .with_figure("largest_efficiency", median(&efficiencies).unwrap_or(0.0))
        .with_figure(field, peak)
        .note("METG(50%): wall time x threads / tasks, of which half is kernel; a run is a sweep of kernels"))
}

/// The graph with smaller and smaller kernels.
async fn sweep(
    plan: &Plan,
    connected: &Connected,
    graph: &Prepared,
    kernel: Kernel,
    rate: f64,
) -> anyhow::Result<Sweep> {
    let mut sweep = Sweep::new(1.0 / rate);
    while let Some(kernel_us) = sweep.next() {
        let units = ((kernel_us * rate) as u64).max(1);
        let started = Instant::now();
        let run = graph.run(&connected.cluster, Work { kernel, units });
        let ended = tokio::time::timeout(plan.timeout(), run).await;
        let ended = ended.with_context(|| format!("no answer within {} s", plan.timeout().as_secs()));
        ended.and_then(|ended| ended).with_context(|| format!("at {units} units{}", connected.nodes.last_words()))?;
        let wall_s = started.elapsed().as_secs_f64();
        // What was asked for in whole units.
        let done_us = units as f64 / rate;
        sweep.add(kernel_us, Point::new(done_us, graph.tasks(), plan.parallelism(), wall_s));
    }
    Ok(sweep)
}
