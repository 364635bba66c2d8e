//! `bench csv`: queries over a large file of posts, in SQL and by the public bags, on a cluster of processes.
//!
//! Two files of the same size: in the clean one every record is a physical line, in the other quoted fields hold newlines
//! as real bodies do. The generator knows what is true of them, and every answer is checked against that. Each run
//! begins with nothing known of the file: finding where records begin is part of its time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use starling::csv::{CsvFiles, CsvOptions};
use starling::frame::FrameExt;
use starling::frame::csv::{CsvReadOptions, CsvTable};
use starling::frame::datafusion::arrow::datatypes::{DataType, Field, Schema};
use starling::frame::datafusion::arrow::util::display::array_value_to_string;
use starling::prelude::{BagError, Cluster, task};
use starling::stackexchange::{Facts, GenerateOptions, Moment, QUESTION, generate, tags};

use crate::measure::{Plan, Repeat};
use crate::peers::{self, Ask, Peer};
use crate::processes::NodeProcesses;
use crate::report::{Line, Report, STARLING, tell};

/// The subcommand's name in the lines.
const BENCH: &str = "csv";
const UNIT: &str = "GB/s";
const NBYTES: u64 = 1_000_000_000;
const NBYTES_QUICK: u64 = 100_000_000;
/// How many tags are asked for.
const TOP_TAGS: usize = 20;
/// The bags' name in the lines: what is compared with others is SQL.
const BAG: &str = "starling-bag";
/// The table's name in the queries.
const TABLE: &str = "posts";

/// The columns of the file, which every system is told, and whether they hold numbers.
const COLUMNS: [(&str, bool); 14] = [
    ("Id", true),
    ("PostTypeId", true),
    ("AcceptedAnswerId", true),
    ("ParentId", true),
    ("CreationDate", false),
    ("Score", true),
    ("ViewCount", true),
    ("Body", false),
    ("OwnerUserId", true),
    ("Title", false),
    ("Tags", false),
    ("AnswerCount", true),
    ("CommentCount", true),
    ("FavoriteCount", true),
];

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Frame,
    Bag,
}

impl System {
    const ALL: [System; 2] = [System::Frame, System::Bag];

    fn name(self) -> &'static str {
        match self {
            System::Frame => STARLING,
            System::Bag => BAG,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Query {
    Count,
    ByType,
    TopTags,
    Months,
}

impl Query {
    const ALL: [Query; 4] = [Query::Count, Query::ByType, Query::TopTags, Query::Months];

    fn name(self) -> &'static str {
        match self {
            Query::Count => "count",
            Query::ByType => "by-type",
            Query::TopTags => "top-tags",
            Query::Months => "months",
        }
    }

    /// Asks the cluster. The answer has the form of `counts.json`, as a driver's has.
    async fn run(self, system: System, cluster: &Cluster, path: &str) -> anyhow::Result<Value> {
        match system {
            System::Frame => self.run_sql(cluster, path).await,
            System::Bag => Ok(self.run_bag(cluster, path).await?),
        }
    }

    /// The query in SQL, as DataFusion's own driver asks it.
    fn sql(self) -> &'static str {
        match self {
            Query::Count => "select count(*) from posts",
            Query::ByType => r#"select "PostTypeId", count(*), sum("Score") from posts group by 1"#,
            Query::TopTags => {
                r#"select tag, count(*) from (
                       select unnest(string_to_array(btrim("Tags", '<>'), '><')) as tag
                       from posts where "PostTypeId" = 1
                   ) where tag <> '' group by 1 order by 2 desc, 1 limit 20"#
            }
            Query::Months => {
                r#"select substr("CreationDate", 1, 7), count(*) from posts where "PostTypeId" = 1 group by 1"#
            }
        }
    }

    async fn run_sql(self, cluster: &Cluster, path: &str) -> anyhow::Result<Value> {
        let field =
            |(name, is_number)| Field::new(name, if is_number { DataType::Int64 } else { DataType::Utf8 }, true);
        let options = CsvReadOptions {
            schema: Some(Arc::new(Schema::new(COLUMNS.map(field).to_vec()))),
            // Nothing is known of the file in any run.
            reuse_cuts: false,
            ..CsvReadOptions::default()
        };
        let frames = cluster.frames();
        let table = CsvTable::open(cluster, vec![path.to_owned()], options).await?;
        frames.context().deregister_table(TABLE)?;
        frames.context().register_table(TABLE, table)?;
        let batches = frames.sql(self.sql()).await?.collect().await?;
        let mut rows = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| array_value_to_string(column, row));
                rows.push(cells.collect::<Result<Vec<String>, _>>()?);
            }
        }
        self.answer(&rows)
    }

    /// The answer that rows of SQL's tell.
    fn answer(self, rows: &[Vec<String>]) -> anyhow::Result<Value> {
        let cell = |row: &[String], number: usize| row.get(number).cloned().context("the answer has too few columns");
        let number = |row: &[String], at: usize| Ok::<i64, anyhow::Error>(cell(row, at)?.parse()?);
        let mut pairs = Vec::with_capacity(rows.len());
        for row in rows.iter().filter(|row| row.len() > 1) {
            pairs.push((cell(row, 0)?, number(row, 1)?));
        }
        Ok(match self {
            Query::Count => json!({ "records": number(rows.first().context("there is no answer")?, 0)? }),
            Query::ByType => {
                let mut scores = BTreeMap::new();
                for row in rows {
                    scores.insert(cell(row, 0)?, number(row, 2)?);
                }
                json!({ "by_post_type": BTreeMap::from_iter(pairs), "score_sum_by_post_type": scores })
            }
            Query::TopTags => json!({ "top_tags": pairs }),
            Query::Months => json!({ "questions_per_month": BTreeMap::from_iter(pairs) }),
        })
    }

    async fn run_bag(self, cluster: &Cluster, path: &str) -> Result<Value, BagError> {
        let files = CsvFiles::new(cluster, path, CsvOptions::default());
        match self {
            Query::Count => Ok(json!({ "records": files.records::<Kind>().count().await? })),
            Query::ByType => by_type(&files).await,
            Query::TopTags => top_tags(&files).await,
            Query::Months => months(&files).await,
        }
    }

    /// The right answer.
    fn truth(self, facts: &Facts) -> Value {
        match self {
            Query::Count => json!({ "records": facts.records }),
            Query::ByType => json!({
                "by_post_type": facts.by_post_type,
                "score_sum_by_post_type": facts.score_sum_by_post_type,
            }),
            Query::TopTags => json!({ "top_tags": facts.top_tags }),
            Query::Months => json!({ "questions_per_month": facts.questions_per_month }),
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kind {
    post_type_id: u32,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scored {
    post_type_id: u32,
    score: Option<i64>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagged {
    post_type_id: u32,
    tags: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dated {
    post_type_id: u32,
    creation_date: Moment,
}

async fn by_type(files: &CsvFiles) -> Result<Value, BagError> {
    let groups = files.records::<Scored>().foldby(
        task!(|post: &Scored| post.post_type_id),
        (0_u64, 0_i64),
        task!(|sums: (u64, i64), post: &Scored| (sums.0 + 1, sums.1 + post.score.unwrap_or(0))),
        task!(|a: (u64, i64), b: (u64, i64)| (a.0 + b.0, a.1 + b.1)),
    );
    let (mut counts, mut scores) = (BTreeMap::new(), BTreeMap::new());
    for (kind, (count, score)) in groups.collect().await? {
        counts.insert(kind, count);
        scores.insert(kind, score);
    }
    Ok(json!({ "by_post_type": counts, "score_sum_by_post_type": scores }))
}

async fn top_tags(files: &CsvFiles) -> Result<Value, BagError> {
    let top = files
        .records::<Tagged>()
        .filter(task!(|post: &Tagged| post.post_type_id == QUESTION))
        .flat_map(task!(|post: Tagged| {
            tags(post.tags.as_deref().unwrap_or("")).map(str::to_owned).collect::<Vec<_>>()
        }))
        .frequencies()
        .topk(TOP_TAGS, task!(|tag: &(String, u64)| (tag.1, Reverse(tag.0.clone()))))
        .await?;
    Ok(json!({ "top_tags": top }))
}

async fn months(files: &CsvFiles) -> Result<Value, BagError> {
    let months = files
        .records::<Dated>()
        .filter(task!(|post: &Dated| post.post_type_id == QUESTION))
        .map(task!(|post: &Dated| post.creation_date.month()))
        .frequencies()
        .collect()
        .await?;
    let months: BTreeMap<String, u64> = months.into_iter().map(|(month, count)| (month.to_string(), count)).collect();
    Ok(json!({ "questions_per_month": months }))
}

/// A file, and what is true of it.
struct Input {
    /// What the cases on it end with.
    name: &'static str,
    path: PathBuf,
    nbytes: u64,
    facts: Facts,
}

impl Input {
    /// The file of about this size, from the cache if it is there.
    fn cached(name: &'static str, clean: bool, size: u64) -> anyhow::Result<Input> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.bench/csv");
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let path = folder.join(format!("posts-{name}-{size}.csv"));
        let truths = path.with_extension("json");
        if !path.is_file() || !truths.is_file() {
            tell(format_args!("{BENCH}: making {}", path.display()));
            let options = GenerateOptions { size, clean, ..GenerateOptions::default() };
            let partial = path.with_extension(format!("{}.partial", std::process::id()));
            let mut file = BufWriter::new(File::create(&partial)?);
            let facts = generate(&options, &mut file)?;
            file.flush()?;
            // The truths first: a file is used only with the truths that were found when it was made.
            fs::write(&truths, serde_json::to_string(&facts)?)?;
            fs::rename(&partial, &path)?;
        }
        let facts = serde_json::from_str(&fs::read_to_string(&truths)?)
            .with_context(|| format!("{} holds no truths: remove it", truths.display()))?;
        let nbytes = fs::metadata(&path)?.len();
        Ok(Input { name, path, nbytes, facts })
    }

    fn case(&self, query: Query) -> String {
        format!("{}-{}", query.name(), self.name)
    }

    fn path_text(&self) -> anyhow::Result<&str> {
        self.path.to_str().context("the cache's path is no UTF-8")
    }

    /// Brings the file into the page cache, so that no system is the one that reads the disk.
    fn warm(&self) -> anyhow::Result<()> {
        std::io::copy(&mut File::open(&self.path)?, &mut std::io::sink())?;
        Ok(())
    }
}

/// Measures everything that the plan wants.
pub(crate) fn run(plan: &Plan, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    let size = if plan.quick { NBYTES_QUICK } else { NBYTES };
    let inputs = [Input::cached("clean", true, size)?, Input::cached("quoted", false, size)?];
    for input in &inputs {
        input.warm()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Err(error) = runtime.block_on(measure_all(plan, &inputs, report)) {
        report.push(Line::failed(BENCH, "cluster", STARLING, UNIT, format!("{error:#}")));
    }
    for &peer in peers {
        if matches!(peer, Peer::Ray | Peer::Hyperqueue | Peer::Ballista) || peer.is_actor_library() {
            tell(format_args!("{BENCH}: {peer} reads no CSV"));
            continue;
        }
        peers::measure(peer, BENCH, asks(&inputs)?, true, plan, report);
    }
    Ok(())
}

async fn measure_all(plan: &Plan, inputs: &[Input], report: &mut Report) -> anyhow::Result<()> {
    let nodes = NodeProcesses::start(plan)?;
    let cluster = nodes.connect().await?;
    if let Some(first) = inputs.first() {
        // As every other system, once before anything counts.
        for system in System::ALL {
            let warm = tokio::time::timeout(plan.timeout(), Query::Count.run(system, &cluster, first.path_text()?));
            warm.await.context("the first query did not end in time")??;
        }
    }
    for input in inputs {
        for query in Query::ALL {
            let case = input.case(query);
            if !plan.wants(&case) {
                continue;
            }
            for system in System::ALL {
                let name = system.name();
                tell(format_args!("{BENCH}: {case}, {name}"));
                let line = measure(plan, &cluster, input, query, system).await;
                let failed = |error| Line::failed(BENCH, &case, name, UNIT, format!("{error:#}"));
                report.push(line.unwrap_or_else(failed));
            }
        }
    }
    Ok(())
}

async fn measure(plan: &Plan, cluster: &Cluster, input: &Input, query: Query, system: System) -> anyhow::Result<Line> {
    let path = input.path_text()?;
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    let mut answer = Value::Null;
    while repeat.wants_more() {
        let started = Instant::now();
        let asked = tokio::time::timeout(plan.timeout(), query.run(system, cluster, path));
        answer = asked.await.context("the query did not end in time")??;
        repeat.add(input.nbytes as f64 / started.elapsed().as_secs_f64() / 1e9);
    }
    let wrong = answer != query.truth(&input.facts);
    let line = Line::new(BENCH, input.case(query), system.name(), UNIT, &repeat.finish())
        .wrong(wrong)
        .note(if wrong { "the answer is wrong" } else { "" })
        .note(size_note(input))
        .note("record boundaries are found anew in each run");
    Ok(line)
}

fn size_note(input: &Input) -> String {
    format!("{} MB in the page cache", input.nbytes / 1_000_000)
}

fn asks(inputs: &[Input]) -> anyhow::Result<Vec<Ask>> {
    let mut asks = Vec::new();
    for input in inputs {
        for query in Query::ALL {
            let nbytes = input.nbytes as f64;
            let mut ask = Ask::new(input.case(query), UNIT, query.name(), input.nbytes, move |s| nbytes / s / 1e9);
            let quoted = input.name == "quoted";
            ask.request =
                Map::from_iter([("path".to_owned(), json!(input.path_text()?)), ("quoted".to_owned(), json!(quoted))]);
            let truth = Arc::new(query.truth(&input.facts));
            ask.check = Box::new(move |answer| *answer == *truth);
            ask.note = size_note(input);
            asks.push(ask);
        }
    }
    Ok(asks)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_query_gives_the_generators_truth_on_both_kinds_of_file() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::local(2).await.unwrap();
        for clean in [true, false] {
            let path = folder.path().join(format!("{clean}.csv"));
            let options = GenerateOptions { size: 300_000, clean, ..GenerateOptions::default() };
            let facts = generate(&options, &mut File::create(&path).unwrap()).unwrap();
            // As the truths are kept beside a cached file.
            let facts: Facts = serde_json::from_str(&serde_json::to_string(&facts).unwrap()).unwrap();
            for (query, system) in Query::ALL.into_iter().flat_map(|query| System::ALL.map(|system| (query, system))) {
                let asked = query.run(system, &cluster, path.to_str().unwrap());
                let answer = tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap().unwrap();
                assert_eq!(answer, query.truth(&facts), "{query:?}, {system:?}, clean: {clean}");
            }
        }
    }
}
