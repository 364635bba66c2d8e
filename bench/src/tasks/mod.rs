//! `bench tasks`: what a task costs, of many shapes of graph, alone, and at the scheduler.

use std::time::{Duration, Instant};

use anyhow::Context;
use starling::Cluster;

use crate::measure::{Measured, Plan, Repeat, median, percentile};
use crate::peers::{self, Ask, Peer};
use crate::processes::NodeProcesses;
use crate::raw_tcp::{Cores, RAW_TCP, RawTcp};
use crate::report::{Line, Report, SIZE, STARLING, tell};

mod graphs;
mod machine;
mod memory;

use graphs::Shape;

/// The subcommand's name in the lines.
const BENCH: &str = "tasks";

/// A graph to be run.
struct Case {
    name: &'static str,
    shape: Shape,
    n: u32,
}

const GRAPHS: &[Case] = &[
    Case { name: "merge-10k", shape: Shape::Merge, n: 10_000 },
    Case { name: "merge-100k", shape: Shape::Merge, n: 100_000 },
    Case { name: "tree-32k", shape: Shape::Tree, n: 1 << 15 },
    Case { name: "chain-10k", shape: Shape::Chain, n: 10_000 },
    Case { name: "shuffle-200", shape: Shape::Shuffle, n: 200 },
    Case { name: "spin1ms-10k", shape: Shape::Spin, n: 10_000 },
];

/// How many single tasks one run of `roundtrip-p50` makes.
const ROUNDTRIPS: u32 = 1_000;

/// Measures everything that the plan wants.
pub(crate) fn run(plan: &Plan, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for case in GRAPHS.iter().filter(|case| plan.wants(case.name)) {
        tell(format_args!("{BENCH}: {}", case.name));
        let line = runtime.block_on(measure_graph(plan, case));
        report.push(
            line.unwrap_or_else(|error| {
                Line::failed(BENCH, case.name, STARLING, case.shape.unit(), format!("{error:#}"))
            }),
        );
    }
    if plan.wants("roundtrip-p50") {
        tell(format_args!("{BENCH}: roundtrip-p50"));
        match runtime.block_on(measure_roundtrip(plan)) {
            Ok(lines) => lines.into_iter().for_each(|line| report.push(line)),
            Err(error) => report.push(Line::failed(BENCH, "roundtrip-p50", STARLING, "us", format!("{error:#}"))),
        }
    }
    if plan.wants("scheduler-bytes") {
        tell(format_args!("{BENCH}: scheduler-bytes"));
        let line = runtime.block_on(memory::measure(plan));
        report.push(
            line.unwrap_or_else(|error| {
                Line::failed(BENCH, "scheduler-bytes", STARLING, "B/task", format!("{error:#}"))
            }),
        );
    }
    machine::run(plan, report);
    for &peer in peers {
        match asks_of(peer, plan) {
            asks if asks.is_empty() => tell(format_args!("{BENCH}: {peer} runs no task graphs")),
            asks => peers::measure(peer, BENCH, asks, false, plan, report),
        }
    }
    Ok(())
}

/// A cluster of processes and a client of it, warmed up.
pub(super) struct Connected {
    pub(super) cluster: Cluster,
    pub(super) nodes: NodeProcesses,
}

/// Starts a cluster and runs a few tasks on it, so that what is measured is not its start.
pub(super) async fn connected(plan: &Plan) -> anyhow::Result<Connected> {
    let nodes = NodeProcesses::start(plan)?;
    let cluster = nodes.connect().await?;
    let warm = tokio::time::timeout(Duration::from_secs(20), Shape::Merge.run(&cluster, 1_000));
    let warm = warm.await.context("the first 1,000 tasks did not end within 20 s").and_then(|warm| warm);
    warm.with_context(|| format!("the cluster does not work{}", nodes.last_words()))?;
    Ok(Connected { cluster, nodes })
}

async fn measure_graph(plan: &Plan, case: &Case) -> anyhow::Result<Line> {
    let n = if plan.quick { case.shape.quick(case.n) } else { case.n };
    let connected = connected(plan).await?;
    // A cluster's first graph of a size pays for memory that it touches for the first time: told, but not counted.
    let started = Instant::now();
    let cold = tokio::time::timeout(plan.timeout(), case.shape.run(&connected.cluster, n));
    cold.await.with_context(|| format!("no answer within {} s", plan.timeout().as_secs()))??;
    let first = started.elapsed().as_secs_f64();
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    let mut wrong = None;
    while repeat.wants_more() && wrong.is_none() {
        let started = Instant::now();
        match tokio::time::timeout(plan.timeout(), case.shape.run(&connected.cluster, n)).await {
            Ok(Ok(())) => repeat.add(started.elapsed().as_secs_f64()),
            Ok(Err(error)) => wrong = Some(format!("{error:#}{}", connected.nodes.last_words())),
            Err(_) => wrong = Some(format!("no answer within {} s", plan.timeout().as_secs())),
        }
    }
    let measured = repeat.finish();
    let seconds = median(&measured.values);
    let figures = Measured { values: measured.values.iter().map(|s| s * case.shape.factor(n)).collect(), ..measured };
    let mut line = Line::new(BENCH, case.name, STARLING, case.shape.unit(), &figures)
        .wrong(wrong.is_some())
        .with(SIZE, n)
        .with_figure("first", first * case.shape.factor(n))
        .note(case.shape.note(n, case.n))
        .note(wrong.unwrap_or_default());
    if let (Some(ideal), Some(seconds)) = (case.shape.ideal_s(n, plan), seconds) {
        line = line.with_figure("efficiency", ideal / seconds);
    }
    Ok(line)
}

/// One task after another, each waited for, and the raw TCP ping-pongs of the same minute.
async fn measure_roundtrip(plan: &Plan) -> anyhow::Result<Vec<Line>> {
    let trips = if plan.quick { ROUNDTRIPS / 5 } else { ROUNDTRIPS };
    let raw = RawTcp::start()?;
    let connected = connected(plan).await?;
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    let (mut p99s, mut one_core, mut two_cores) = (Vec::new(), Vec::new(), Vec::new());
    while repeat.wants_more() {
        let made = tokio::time::timeout(plan.timeout(), graphs::round_trips(&connected.cluster, trips));
        let micros = made.await.context("the round trips did not end in time")??;
        p99s.extend(percentile(&micros, 0.99));
        repeat.add(median(&micros).context("no round trip was made")?);
        // Between the runs, while the cluster is idle: the machine's wake-ups drift from minute to minute.
        one_core.extend(raw.ping_pong(Cores::One, trips)?.map(|seconds| seconds * 1e6));
        two_cores.extend(raw.ping_pong(Cores::Two, trips)?.map(|seconds| seconds * 1e6));
    }
    let note = format!("a run is the median of {trips} single tasks; cpu_s includes the raw ping-pongs");
    let mut line = Line::new(BENCH, "roundtrip-p50", STARLING, "us", &repeat.finish())
        .note(note)
        .note("raw_tcp_p50 is across two cores")
        .with_figure("p99", median(&p99s).unwrap_or(0.0))
        .with_figure("raw_tcp_one_core_p50", median(&one_core).unwrap_or(0.0));
    let Some(raw_p50) = median(&two_cores) else {
        return Ok(vec![line.note("not measured: there is only one core")]);
    };
    line = line.with_figure("raw_tcp_p50", raw_p50);
    let beside = Measured { values: two_cores, ..Measured::default() };
    let beside = Line::new(BENCH, "roundtrip-p50", RAW_TCP, "us", &beside)
        .without_usage()
        .note("one ping-pong of 64 bytes between two processes pinned to two cores, in the same run")
        .with_figure("one_core", median(&one_core).unwrap_or(0.0));
    Ok(vec![line, beside])
}

/// What a peer is asked, in sizes that end in half a minute at what is known of its speed.
fn asks_of(peer: Peer, plan: &Plan) -> Vec<Ask> {
    // At most so many: merge, tree, chain, shuffle, spin; 0 for a shape that it cannot do.
    let most: [u32; 5] = match peer {
        Peer::Dask => [10_000, 1 << 12, 1_000, 200, 10_000],
        Peer::Ray => [20_000, 1 << 13, 5_000, 200, 10_000],
        Peer::Hyperqueue => [10_000, 1 << 12, 300, 200, 0],
        _ => [0; 5],
    };
    let mut asks = Vec::new();
    if peer == Peer::Dask {
        // First, on a scheduler whose memory nothing has stretched yet.
        let n = if plan.quick { 2_000 } else { 10_000 };
        let mut ask = Ask::new("scheduler-bytes", "B/task", "hold", n, |s| s);
        ask.scheduler_memory = true;
        ask.note = format!("growth of the scheduler's memory at {n} finished tasks");
        asks.push(ask);
    }
    for case in GRAPHS {
        let most = most[case.shape as usize];
        if most == 0 {
            continue;
        }
        let n = case.n.min(most);
        // A power of two as before, which the tree needs.
        let n = if plan.quick { n / if case.shape == Shape::Shuffle { 4 } else { 16 } } else { n };
        let factor = case.shape.factor(n);
        let mut ask = Ask::new(case.name, case.shape.unit(), case.shape.name(), n.into(), move |s| s * factor);
        ask.ideal_s = case.shape.ideal_s(n, plan);
        ask.note = case.shape.note(n, case.n);
        ask.tell_size = true;
        asks.push(ask);
    }
    if matches!(peer, Peer::Dask | Peer::Ray) {
        let trips = if plan.quick { 50 } else { 500 };
        let mut ask = Ask::new("roundtrip-p50", "us", "roundtrip", trips, |s| s * 1e6);
        ask.note = format!("a run is the median of {trips} single tasks");
        asks.push(ask);
    }
    asks
}
