//! `--check`: whether clusters of several sizes answer as plain DataFusion does, undisturbed and while a worker is killed.
//!
//! The worker is killed with SIGKILL when about a third of the undisturbed query's time has passed, another one each time,
//! and a new one is started at once, so that the number stays.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use starling::Cluster;
use starling::frame::{FrameExt, Frames};

use super::{Origin, Query, Suite, answer_of};
use crate::measure::{Measured, Plan};
use crate::processes::NodeProcesses;
use crate::report::{Line, Report, STARLING, tell};

/// The share of a query's time after which a worker is killed.
const KILLED_AFTER: f64 = 0.35;
/// How many failures a line tells of.
const TOLD: usize = 5;

/// Checks clusters of these sizes; a line for each.
pub(crate) fn run(suite: &Suite, plan: &Plan, sizes: &[u32], report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let wanted: Vec<&Query> = suite.queries.iter().filter(|query| plan.wants(&query.case)).collect();
    runtime.block_on(suite.find_right_answers(&wanted))?;
    for &workers in sizes {
        let plan = Plan { workers, ..plan.clone() };
        let case = format!("check-{workers}-workers");
        let mut counts = Counts::default();
        let line = match runtime.block_on(check(suite, &wanted, &plan, &mut counts)) {
            Ok(()) => counts.line(suite, case),
            Err(error) => Line::failed(suite.bench, case, STARLING, "queries", format!("{error:#}")),
        };
        report.push(line);
    }
    Ok(())
}

/// What came of the queries of a cluster.
#[derive(Debug, Default)]
struct Counts {
    plain: u32,
    killed: u32,
    /// Killed in the middle of a query that then still ran.
    in_the_middle: u32,
    failures: Vec<String>,
}

impl Counts {
    fn add(&mut self, query: &Query, outcome: anyhow::Result<()>, killed: bool) {
        match outcome {
            Ok(()) if killed => self.killed += 1,
            Ok(()) => self.plain += 1,
            Err(error) => {
                let how = if killed { "with a worker killed" } else { "undisturbed" };
                let failure = format!("{} {how}: {error:#}", query.case);
                tell(format_args!("{failure}"));
                self.failures.push(failure.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }

    fn line(&self, suite: &Suite, case: String) -> Line {
        let right = f64::from(self.plain + self.killed);
        let measured = Measured { values: vec![right], ..Measured::default() };
        let more = self.failures.len().saturating_sub(TOLD);
        let more = if more > 0 { format!("and {more} more failures") } else { String::new() };
        let line = Line::new(suite.bench, case, STARLING, "queries", &measured)
            .without_usage()
            .wrong(!self.failures.is_empty())
            .with("pass", self.plain)
            .with("pass_killed", self.killed)
            .with("killed_in_the_middle", self.in_the_middle)
            .with("fail", self.failures.len())
            .note(&suite.note);
        self.failures.iter().take(TOLD).fold(line, |line, failure| line.note(failure)).note(more)
    }
}

async fn check(suite: &Suite, wanted: &[&Query], plan: &Plan, counts: &mut Counts) -> anyhow::Result<()> {
    let mut nodes = NodeProcesses::start(plan)?;
    let cluster = nodes.connect().await?;
    let frames = cluster.frames();
    suite.register(frames.context()).await?;
    for (turn, query) in wanted.iter().enumerate() {
        tell(format_args!("{}: {} on {} workers", suite.bench, query.case, plan.workers));
        let started = Instant::now();
        let outcome = ask(suite, query, &frames, plan).await;
        let took = started.elapsed();
        counts.add(query, outcome, false);

        let asked = ask(suite, query, &frames, plan);
        let killed = kill_after(took.mul_f64(KILLED_AFTER), &mut nodes, turn);
        tokio::pin!(asked);
        let outcome = tokio::select! {
            biased;
            outcome = &mut asked => outcome,
            killed = killed => {
                killed?;
                counts.in_the_middle += 1;
                asked.await
            }
        };
        counts.add(query, outcome, true);
        settled(&cluster, &nodes, plan).await?;
    }
    Ok(())
}

async fn ask(suite: &Suite, query: &Query, frames: &Frames, plan: &Plan) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(plan.timeout(), answer_of(frames, query));
    let answer = answer.await.context("the query did not end in time")??;
    answer.agrees_with(&suite.right_answer(query)?, query.ordered_by, Origin::DataFusion)
}

async fn kill_after(delay: Duration, nodes: &mut NodeProcesses, turn: usize) -> anyhow::Result<()> {
    tokio::time::sleep(delay).await;
    nodes.replace_worker(turn)
}

/// Waits until the workers that the client knows are those that run: the killed one is out, and its replacement in.
async fn settled(cluster: &Cluster, nodes: &NodeProcesses, plan: &Plan) -> anyhow::Result<()> {
    nodes.wait_until_listening()?;
    let running: BTreeSet<String> = nodes.worker_names().into_iter().collect();
    let joined = async {
        while cluster.worker_infos().into_iter().map(|info| info.name).collect::<BTreeSet<_>>() != running {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let joined = tokio::time::timeout(plan.timeout(), joined).await;
    joined.with_context(|| format!("the new worker did not join{}", nodes.last_words()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_counted_and_told_and_makes_the_line_wrong() {
        let query = Query { case: "q01".into(), sql: String::new(), ordered_by: &[] };
        let suite = Suite {
            bench: "tpch",
            tables: Vec::new(),
            queries: Vec::new(),
            answers: "".into(),
            agrees: |_, _| Ok(()),
            note: String::new(),
        };
        let mut counts = Counts::default();
        counts.add(&query, Ok(()), false);
        let right = serde_json::to_value(counts.line(&suite, "check-2-workers".into())).unwrap();
        assert_eq!((&right["ok"], &right["pass"], &right["fail"]), (&true.into(), &1.into(), &0.into()));
        counts.add(&query, Err(anyhow::anyhow!("a node\nis lost")), true);
        let wrong = serde_json::to_value(counts.line(&suite, "check-2-workers".into())).unwrap();
        assert_eq!((&wrong["ok"], &wrong["pass_killed"], &wrong["fail"]), (&false.into(), &0.into(), &1.into()));
        assert_eq!(wrong["note"], "q01 with a worker killed: a node is lost");
    }
}
