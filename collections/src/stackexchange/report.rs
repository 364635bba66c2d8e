//! The report: what a posts file says of its site, as programs over bags.
//!
//! Each query takes only its columns apart, and the file is cut in ranges once for all of them. Sums are whole numbers
//! until the last division, so that the answers do not depend on how the file is cut or where its pieces run.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use starling_actors::Cluster;

use super::post::{ANSWER, QUESTION, tags};
use super::time::Moment;
use crate::bag::{Bag, BagError};
use crate::csv::{CsvFiles, CsvOptions};

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

/// How many tags are reported.
pub(super) const TOP_TAGS: usize = 20;
/// How many answerers are reported.
pub(super) const TOP_ANSWERERS: usize = 10;

/// Told the query and how many of how many of its tasks are done.
pub type Progress = Arc<dyn Fn(&'static str, usize, usize) + Send + Sync>;

/// What to report on, and how.
#[derive(Clone)]
pub struct ReportOptions {
    /// The posts: a path, or a pattern with `*`, `?`, `[..]` or `**`.
    pub input: String,
    /// Size of the blocks that are read in parallel.
    pub block_bytes: u64,
    /// For a progress bar.
    pub progress: Option<Progress>,
}

impl ReportOptions {
    /// A report on these files, with blocks of the default size.
    pub fn new(input: impl Into<String>) -> ReportOptions {
        ReportOptions { input: input.into(), block_bytes: CsvOptions::default().block_bytes, progress: None }
    }
}

/// What a posts file says. In JSON the fields come in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// All posts.
    pub records: u64,
    /// Posts by type.
    pub by_post_type: BTreeMap<u32, u64>,
    /// The sum of their scores, by type.
    pub score_sum_by_post_type: BTreeMap<u32, i64>,
    /// The tags that most questions have, most first, of equals by name.
    pub top_tags: Vec<(String, u64)>,
    /// Questions by month, as `2014-03`.
    pub questions_per_month: BTreeMap<String, u64>,
    /// The bodies of all posts together, in bytes.
    pub body_utf8_bytes: u64,
    /// Answers that name their question.
    pub answers_with_parent: u64,
    /// The mean score, by type.
    pub mean_score_by_post_type: BTreeMap<u32, f64>,
    /// The users with most answers, most first, of equals by id: user and number of answers.
    pub top_answerers: Vec<(i64, u64)>,
    /// Questions whose accepted answer is there.
    pub questions_with_accepted_answer: u64,
    /// The mean time from these questions to their accepted answers, in hours.
    pub mean_hours_to_accepted_answer: Option<f64>,
}

impl Facts {
    /// Fills in the means, from sums.
    pub(super) fn set_means(&mut self, accepted: u64, accepted_millis: i64) {
        self.mean_score_by_post_type = self
            .by_post_type
            .iter()
            .map(|(kind, count)| {
                (*kind, self.score_sum_by_post_type.get(kind).copied().unwrap_or(0) as f64 / *count as f64)
            })
            .collect();
        self.questions_with_accepted_answer = accepted;
        self.mean_hours_to_accepted_answer =
            (accepted > 0).then(|| accepted_millis as f64 / accepted as f64 / 3_600_000.0);
    }
}

/// How long a query took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// What was asked.
    pub query: String,
    /// How long it took.
    pub seconds: f64,
    /// How much input it went through, by second.
    pub bytes_per_second: f64,
}

/// The facts, and what it took to find them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What the posts say.
    #[serde(flatten)]
    pub facts: Facts,
    /// Size of the input in bytes.
    pub input_bytes: u64,
    /// Each query, in order; the first is to find out how the files are cut.
    pub timings: Vec<Timing>,
}

/// Computes the report on the cluster, query after query.
pub async fn report(cluster: &Cluster, options: &ReportOptions) -> Result<Report, BagError> {
    let csv = CsvOptions { block_bytes: options.block_bytes, ..CsvOptions::default() };
    let mut queries = Queries {
        files: CsvFiles::new(cluster, &options.input, csv),
        progress: options.progress.clone(),
        query: "",
        started: Instant::now(),
        input_bytes: 0,
        timings: Vec::new(),
    };
    let mut facts = Facts::default();

    queries.begin("find record boundaries");
    queries.input_bytes = queries.files.scan().await?.nbytes();
    queries.end();

    queries.begin("posts by type");
    queries.by_type(&mut facts).await?;
    queries.end();

    queries.begin("top tags");
    facts.top_tags = queries.top_tags().await?;
    queries.end();

    queries.begin("questions a month");
    facts.questions_per_month = queries.questions_per_month().await?;
    queries.end();

    queries.begin("top answerers");
    facts.top_answerers = queries.top_answerers().await?;
    queries.end();

    queries.begin("time to accepted answer");
    let (accepted, accepted_millis) = queries.accepted_answers().await?;
    queries.end();

    queries.begin("bodies and parents");
    (facts.body_utf8_bytes, facts.answers_with_parent) = queries.bodies().await?;
    queries.end();

    facts.set_means(accepted, accepted_millis);
    Ok(Report { facts, input_bytes: queries.input_bytes, timings: queries.timings })
}

struct Queries {
    files: CsvFiles,
    progress: Option<Progress>,
    query: &'static str,
    started: Instant,
    input_bytes: u64,
    timings: Vec<Timing>,
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

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Owned {
    post_type_id: u32,
    owner_user_id: Option<i64>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    post_type_id: u32,
    accepted_answer_id: Option<i64>,
    creation_date: Moment,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answered {
    id: i64,
    post_type_id: u32,
    creation_date: Moment,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bodied {
    post_type_id: u32,
    parent_id: Option<i64>,
    body: TextLen,
}

impl Queries {
    fn begin(&mut self, query: &'static str) {
        self.query = query;
        self.started = Instant::now();
    }

    fn end(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let bytes_per_second = if seconds > 0.0 { self.input_bytes as f64 / seconds } else { 0.0 };
        self.timings.push(Timing { query: self.query.to_owned(), seconds, bytes_per_second });
    }

    fn watched<T>(&self, bag: Bag<T>) -> Bag<T> {
        let Some(progress) = self.progress.clone() else { return bag };
        let query = self.query;
        bag.on_progress(move |done, total| progress(query, done, total))
    }

    fn records<T: DeserializeOwned>(&self) -> Bag<T> {
        self.watched(self.files.records())
    }

    async fn by_type(&self, facts: &mut Facts) -> Result<(), BagError> {
        let by_type = self.records::<Scored>().foldby(
            task!(|post: &Scored| post.post_type_id),
            (0_u64, 0_i64),
            task!(|sums: (u64, i64), post: &Scored| (sums.0 + 1, sums.1 + post.score.unwrap_or(0))),
            task!(|a: (u64, i64), b: (u64, i64)| (a.0 + b.0, a.1 + b.1)),
        );
        for (kind, (count, score_sum)) in by_type.collect().await? {
            facts.records += count;
            facts.by_post_type.insert(kind, count);
            facts.score_sum_by_post_type.insert(kind, score_sum);
        }
        Ok(())
    }

    async fn top_tags(&self) -> Result<Vec<(String, u64)>, BagError> {
        self.records::<Tagged>()
            .filter(task!(|post: &Tagged| post.post_type_id == QUESTION))
            .flat_map(task!(|post: Tagged| {
                tags(post.tags.as_deref().unwrap_or("")).map(str::to_owned).collect::<Vec<_>>()
            }))
            .frequencies()
            .topk(TOP_TAGS, task!(|tag: &(String, u64)| (tag.1, Reverse(tag.0.clone()))))
            .await
    }

    async fn questions_per_month(&self) -> Result<BTreeMap<String, u64>, BagError> {
        let months = self
            .records::<Dated>()
            .filter(task!(|post: &Dated| post.post_type_id == QUESTION))
            .map(task!(|post: &Dated| post.creation_date.month()))
            .frequencies();
        Ok(months.collect().await?.into_iter().map(|(month, count)| (month.to_string(), count)).collect())
    }

    async fn top_answerers(&self) -> Result<Vec<(i64, u64)>, BagError> {
        self.records::<Owned>()
            .filter(task!(|post: &Owned| post.post_type_id == ANSWER))
            .flat_map(task!(|post: Owned| post.owner_user_id))
            .frequencies()
            .topk(TOP_ANSWERERS, task!(|owner: &(i64, u64)| (owner.1, Reverse(owner.0))))
            .await
    }

    /// How many accepted answers there are, and the sum of the milliseconds that they took.
    async fn accepted_answers(&self) -> Result<(u64, i64), BagError> {
        let asked = self
            .records::<Asked>()
            .filter(task!(|post: &Asked| post.post_type_id == QUESTION))
            .flat_map(task!(|post: Asked| post.accepted_answer_id.map(|id| (id, post.creation_date.0))));
        let answered = self
            .records::<Answered>()
            .filter(task!(|post: &Answered| post.post_type_id == ANSWER))
            .map(task!(|post: &Answered| (post.id, post.creation_date.0)));
        asked
            .join(answered, task!(|post: &(i64, i64)| post.0), task!(|post: &(i64, i64)| post.0))
            .fold(
                (0_u64, 0_i64),
                task!(|sums: (u64, i64), pair: ((i64, i64), (i64, i64))| (sums.0 + 1, sums.1 + (pair.1.1 - pair.0.1))),
                task!(|a: (u64, i64), b: (u64, i64)| (a.0 + b.0, a.1 + b.1)),
            )
            .await
    }

    /// Bytes of all bodies, and answers with a parent.
    async fn bodies(&self) -> Result<(u64, u64), BagError> {
        self.records::<Bodied>()
            .fold(
                (0_u64, 0_u64),
                task!(|sums: (u64, u64), post: &Bodied| {
                    let answers = post.post_type_id == ANSWER && post.parent_id.is_some();
                    (sums.0 + post.body.0, sums.1 + u64::from(answers))
                }),
                task!(|a: (u64, u64), b: (u64, u64)| (a.0 + b.0, a.1 + b.1)),
            )
            .await
    }
}

/// The size of a text in bytes, without keeping the text.
#[derive(Clone, Copy, Debug, Serialize)]
struct TextLen(u64);

impl<'de> Deserialize<'de> for TextLen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TextLen, D::Error> {
        // In a bag it is a number; in a file it is the text.
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(TextLenVisitor)
        } else {
            u64::deserialize(deserializer).map(TextLen)
        }
    }
}

struct TextLenVisitor;

impl Visitor<'_> for TextLenVisitor {
    type Value = TextLen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E>(self, text: &str) -> Result<TextLen, E> {
        Ok(TextLen(text.len() as u64))
    }
}
