//! Queries over tables in Parquet files, on the cluster and on its peers: what `tpch` and `h2o` have in common.
//!
//! Every answer of every system is compared with that of plain DataFusion, which is found once and kept beside the data.
//! A run's time is from the text of the query to the last row at the client.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};
use serde_json::{Map, Value, json};
use starling::frame::{FrameExt, Frames};
use tempfile::TempDir;

use crate::measure::{Plan, Repeat};
use crate::peers::{self, Ask, Peer};
use crate::processes::NodeProcesses;
use crate::report::{Line, Report, STARLING, tell};

pub(crate) mod alone;
mod answers;
pub(crate) mod check;
pub(crate) mod parquet;

pub(crate) use answers::{Answer, Origin};

pub(crate) const UNIT: &str = "s";
/// The case that sums all others up.
const TOTAL: &str = "total";

/// Tables, and what is asked of them.
pub(crate) struct Suite {
    /// The subcommand's name in the lines.
    pub(crate) bench: &'static str,
    pub(crate) tables: Vec<Table>,
    pub(crate) queries: Vec<Query>,
    /// Where the right answers are kept.
    pub(crate) answers: PathBuf,
    /// What else an answer of plain DataFusion has to agree with.
    pub(crate) agrees: fn(&Query, &Answer) -> anyhow::Result<()>,
    /// What is said in every line.
    pub(crate) note: String,
}

/// A table in a Parquet file.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// A query in SQL.
pub(crate) struct Query {
    /// The case's name in the lines.
    pub(crate) case: String,
    pub(crate) sql: String,
    /// The columns that its rows are ordered by, by position.
    pub(crate) ordered_by: &'static [usize],
}

/// How peers are asked where they are not asked in SQL over the tables.
pub(crate) struct ByHand {
    pub(crate) peer: Peer,
    /// The queries that were written for it.
    pub(crate) cases: &'static [&'static str],
    /// The tables as it takes them.
    pub(crate) tables: Vec<Table>,
    pub(crate) note: &'static str,
}

/// Measures everything that the plan wants.
pub(crate) fn run(
    suite: &Suite,
    by_hand: &[ByHand],
    plan: &Plan,
    peers: &[Peer],
    report: &mut Report,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    suite.warm()?;
    let wanted: Vec<&Query> = suite.queries.iter().filter(|query| plan.wants(&query.case)).collect();
    runtime.block_on(suite.find_right_answers(&wanted))?;
    if let Err(error) = runtime.block_on(measure_all(suite, &wanted, plan, report)) {
        report.push(Line::failed(suite.bench, "cluster", STARLING, UNIT, format!("{error:#}")));
    }
    let cases: Vec<&str> = wanted.iter().map(|query| query.case.as_str()).collect();
    total(suite, plan, STARLING, &cases, report);
    for &peer in peers {
        let by_hand = by_hand.iter().find(|by_hand| by_hand.peer == peer);
        let speaks_sql = matches!(peer, Peer::Datafusion | Peer::Ballista | Peer::Polars | Peer::Duckdb);
        if by_hand.is_none() && !speaks_sql {
            tell(format_args!("{}: {peer} is not asked", suite.bench));
            continue;
        }
        let folder = tempfile::Builder::new().prefix("starling-bench-").tempdir()?;
        let asked: Vec<&Query> = match by_hand {
            Some(by_hand) => wanted.iter().copied().filter(|query| by_hand.cases.contains(&&*query.case)).collect(),
            None => wanted.clone(),
        };
        let cases: Vec<&str> = asked.iter().map(|query| query.case.as_str()).collect();
        if cases.len() < wanted.len() {
            tell(format_args!("{}: {} of {} queries are written for {peer}", suite.bench, cases.len(), wanted.len()));
        }
        peers::measure(peer, suite.bench, suite.asks(&asked, by_hand, &folder)?, true, plan, report);
        total(suite, plan, peer.name(), &cases, report);
    }
    Ok(())
}

fn total(suite: &Suite, plan: &Plan, system: &str, cases: &[&str], report: &mut Report) {
    if plan.wants(TOTAL) && !cases.is_empty() {
        let note = format!("the sum of {} queries", cases.len());
        let line = report.total(suite.bench, TOTAL, system, UNIT, cases).note(note).note(&suite.note);
        report.push(line);
    }
}

async fn measure_all(suite: &Suite, wanted: &[&Query], plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let nodes = NodeProcesses::start(plan)?;
    let cluster = nodes.connect().await?;
    let frames = cluster.frames();
    suite.register(frames.context()).await?;
    if let Some(first) = wanted.first() {
        // As every other system, once before anything counts.
        let warm = tokio::time::timeout(plan.timeout(), answer_of(&frames, first));
        // If it fails, it will again, and be told.
        let _ = warm.await.context("the first query did not end in time")?;
    }
    for query in wanted {
        let failed = |reason: String| Line::failed(suite.bench, query.case.as_str(), STARLING, UNIT, reason);
        if plan.is_over() {
            report.push(failed("not begun: --quick's time is over".to_owned()));
            continue;
        }
        tell(format_args!("{}: {}", suite.bench, query.case));
        let line = measure(suite, query, &frames, plan).await;
        report.push(line.unwrap_or_else(|error| failed(format!("{error:#}{}", nodes.last_words()))));
    }
    Ok(())
}

async fn measure(suite: &Suite, query: &Query, frames: &Frames, plan: &Plan) -> anyhow::Result<Line> {
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    let mut last = None::<Answer>;
    while repeat.wants_more() {
        // The answer of the run before is no part of this one's memory.
        drop(last.take());
        let started = Instant::now();
        let asked = tokio::time::timeout(plan.timeout(), answer_of(frames, query));
        let answer = asked.await.context("the query did not end in time")??;
        repeat.add(started.elapsed().as_secs_f64());
        last = Some(answer);
    }
    let measured = repeat.finish();
    let agrees =
        last.context("no run was made")?.agrees_with(&suite.right_answer(query)?, query.ordered_by, Origin::DataFusion);
    let line = Line::new(suite.bench, query.case.as_str(), STARLING, UNIT, &measured).wrong(agrees.is_err());
    let line = match agrees {
        Ok(()) => line,
        Err(error) => line.note(format!("the answer is wrong: {error:#}")),
    };
    Ok(line.note(&suite.note))
}

/// Asks the cluster.
pub(crate) async fn answer_of(frames: &Frames, query: &Query) -> anyhow::Result<Answer> {
    collect(frames.sql(&query.sql).await?).await
}

/// All rows of a frame.
pub(crate) async fn collect(frame: DataFrame) -> anyhow::Result<Answer> {
    let logical = Arc::clone(frame.schema().inner());
    let batches = frame.collect().await?;
    let schema = batches.first().map_or(logical, |batch| batch.schema());
    Answer::new(&schema, batches)
}

/// Plain DataFusion with so many threads' worth of partitions.
pub(crate) fn plain_datafusion(partitions: usize) -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions))
}

/// Makes files known as tables.
pub(crate) async fn register(context: &SessionContext, tables: &[Table]) -> anyhow::Result<()> {
    for table in tables {
        let path = table.path.to_str().context("the cache's path is no UTF-8")?;
        context.register_parquet(table.name.as_str(), path, ParquetReadOptions::default()).await?;
    }
    Ok(())
}

impl Suite {
    async fn register(&self, context: &SessionContext) -> anyhow::Result<()> {
        register(context, &self.tables).await
    }

    /// Brings the files into the page cache, so that no system is the one that reads the disk.
    fn warm(&self) -> anyhow::Result<()> {
        for table in &self.tables {
            std::io::copy(&mut fs::File::open(&table.path)?, &mut std::io::sink())?;
        }
        Ok(())
    }

    fn answer_path(&self, query: &Query) -> PathBuf {
        self.answers.join(format!("{}.parquet", query.case))
    }

    /// What plain DataFusion answered.
    pub(crate) fn right_answer(&self, query: &Query) -> anyhow::Result<Answer> {
        Answer::read(&self.answer_path(query))
    }

    /// Asks plain DataFusion what has not been asked before.
    pub(crate) async fn find_right_answers(&self, queries: &[&Query]) -> anyhow::Result<()> {
        fs::create_dir_all(&self.answers)?;
        let context = plain_datafusion(std::thread::available_parallelism().map_or(2, std::num::NonZero::get));
        self.register(&context).await?;
        for query in queries {
            let path = self.answer_path(query);
            // An answer counts only with the question that it was given to.
            let question = path.with_extension("sql");
            let text = format!("-- DataFusion {}\n{}", datafusion::DATAFUSION_VERSION, query.sql);
            if path.is_file() && fs::read_to_string(&question).is_ok_and(|asked| asked == text) {
                continue;
            }
            tell(format_args!("{}: asking plain DataFusion {}", self.bench, query.case));
            let answer = collect(context.sql(&query.sql).await?).await;
            let answer = answer.with_context(|| format!("plain DataFusion fails at {}", query.case))?;
            (self.agrees)(query, &answer)
                .with_context(|| format!("plain DataFusion's answer to {} is wrong", query.case))?;
            if question.exists() {
                fs::remove_file(&question)?;
            }
            answer.write(&path)?;
            fs::write(&question, text)?;
        }
        Ok(())
    }

    /// The queries as a peer's driver is asked them. It writes its answers to files in `folder`.
    fn asks(&self, queries: &[&Query], by_hand: Option<&ByHand>, folder: &TempDir) -> anyhow::Result<Vec<Ask>> {
        let tables = by_hand.map_or(&self.tables, |by_hand| &by_hand.tables);
        let paths = tables.iter().map(|table| {
            let path = table.path.to_str().context("the cache's path is no UTF-8")?;
            Ok((table.name.clone(), json!(path)))
        });
        let paths: Map<String, Value> = paths.collect::<anyhow::Result<_>>()?;
        let asks = queries.iter().map(|query| {
            let answer = folder.path().join(format!("{}.parquet", query.case));
            // A driver looks its case up by name; one that speaks SQL has only one.
            let driver_case = if by_hand.is_some() { query.case.clone() } else { "sql".to_owned() };
            let mut ask = Ask::new(query.case.as_str(), UNIT, driver_case, 1, |s| s);
            ask.request = Map::from_iter([
                ("sql".to_owned(), json!(query.sql)),
                ("tables".to_owned(), Value::Object(paths.clone())),
                ("answer".to_owned(), json!(answer.to_str().context("the folder's path is no UTF-8")?)),
            ]);
            let (right, ordered_by, case) = (self.answer_path(query), query.ordered_by, query.case.clone());
            ask.check = Box::new(move |_| match compare(&answer, &right, ordered_by) {
                Ok(()) => true,
                Err(error) => {
                    tell(format_args!("{case}: {error:#}"));
                    false
                }
            });
            ask.note = by_hand.map_or(String::new(), |by_hand| by_hand.note.to_owned());
            Ok(ask)
        });
        asks.collect()
    }
}

fn compare(answer: &Path, right: &Path, ordered_by: &[usize]) -> anyhow::Result<()> {
    Answer::read(answer)?.agrees_with(&Answer::read(right)?, ordered_by, Origin::Stranger)
}
