//! `bench slt`: files of sqllogictest on an embedded cluster, record by record beside plain DataFusion.
//!
//! A record that plain DataFusion passes under this runner must pass on the cluster too. One that plain DataFusion itself
//! fails says nothing of the cluster (a function or a file that is not here, a setting that the runner lacks): it counts as
//! unsupported, and so does an `EXPLAIN` whose text differs, since a plan of stages is another plan. Each file has a fresh
//! session. Paths in files are relative to the working directory, as DataFusion's own runner has it, and as there
//! `test_files/scratch/NAME` is made anew before a file is run, if there is a `test_files` folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use datafusion::prelude::{SessionConfig, SessionContext};
use sqllogictest::{Record, RecordOutput, Runner, parse_file, strict_column_validator};
use starling::Cluster;
use starling::frame::Frames;

use crate::measure::Measured;
use crate::report::{Line, Report, STARLING, tell};

mod engine;
mod render;

use engine::{ColumnKind, Engine};

const BENCH: &str = "slt";
const UNIT: &str = "records";
/// As in DataFusion's own runner: some files tell plans, which depend on it.
const PARTITIONS: usize = 4;
/// How many characters of a failure are told.
const FAILURE_CHARS: usize = 400;

/// What runs the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    Starling,
    Datafusion,
}

/// What came of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// No statement and no query, or one that is not for this engine.
    Nothing,
    Pass,
    Fail(String),
}

/// What came of the records of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    pass: u32,
    fail: u32,
    unsupported: u32,
    first_failure: Option<String>,
}

/// Runs all files; a line for each, and one for all.
pub(crate) fn run(paths: &[PathBuf], system: System, workers: u32, report: &mut Report) -> anyhow::Result<()> {
    let files = files(paths)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cluster = match system {
        System::Starling => Some(runtime.block_on(Cluster::local(usize::try_from(workers)?))?),
        System::Datafusion => None,
    };
    let name = if cluster.is_some() { STARLING } else { "datafusion" };
    let mut total = Counts::default();
    for file in &files {
        let case = file.display().to_string();
        match runtime.block_on(run_file(file, cluster.as_ref())) {
            Ok(counts) => {
                report.push(counts.line(case, name));
                total.add(counts);
            }
            Err(error) => report.push(Line::failed(BENCH, case, name, UNIT, format!("{error:#}"))),
        }
    }
    report.push(total.line("total".to_owned(), name));
    Ok(())
}

/// The files themselves, and those that end in `.slt` below the folders.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?;
        if !metadata.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
        let wanted = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|extension| extension == "slt");
        let mut below: Vec<PathBuf> = entries.into_iter().filter(wanted).collect();
        below.sort();
        files.extend(self::files(&below)?);
    }
    Ok(files)
}

async fn run_file(file: &Path, cluster: Option<&Cluster>) -> anyhow::Result<Counts> {
    tell(format_args!("{BENCH}: {}", file.display()));
    let records = parse_file::<ColumnKind>(file)?;
    let plain = run_records(file, &records, plain_datafusion()).await?;
    let Some(cluster) = cluster else {
        return Ok(Counts::of_plain(&plain));
    };
    let own = run_records(file, &records, Frames::fresh(cluster).context().clone()).await?;
    let sqls: Vec<&str> = records.iter().map(sql_of).collect();
    Ok(Counts::of(&sqls, &plain, &own))
}

fn plain_datafusion() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(PARTITIONS))
}

async fn run_records(
    file: &Path,
    records: &[Record<ColumnKind>],
    context: SessionContext,
) -> anyhow::Result<Vec<Outcome>> {
    make_scratch(file)?;
    let root = workspace_root()?;
    let mut runner = Runner::new(|| {
        let engine = Engine::new(context.clone(), root.clone());
        async { Ok(engine) }
    });
    runner.add_label("Datafusion");
    runner.with_column_validator(strict_column_validator);
    runner.with_normalizer(render::without_trailing_blanks);
    runner.with_validator(render::same_rows);
    let mut outcomes = Vec::new();
    for record in records {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        let is_counted = matches!(record, Record::Statement { .. } | Record::Query { .. } | Record::System { .. });
        outcomes.push(match runner.run_async(record.clone()).await {
            Ok(RecordOutput::Nothing) => Outcome::Nothing,
            Ok(_) if !is_counted => Outcome::Nothing,
            Ok(_) => Outcome::Pass,
            Err(error) => Outcome::Fail(shortened(&error.to_string())),
        });
    }
    runner.shutdown_async().await;
    Ok(outcomes)
}

/// Where DataFusion's files expect to write.
fn make_scratch(file: &Path) -> anyhow::Result<()> {
    let folder = Path::new("test_files");
    if !folder.is_dir() {
        return Ok(());
    }
    let stem = file.file_stem().context("the file has no name")?;
    let scratch = folder.join("scratch").join(stem);
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    Ok(())
}

/// What plans call `WORKSPACE_ROOT`: two folders above the working directory, without the slash at its beginning.
fn workspace_root() -> anyhow::Result<Option<String>> {
    let here = std::env::current_dir()?;
    let root = here.parent().and_then(Path::parent).and_then(Path::to_str);
    Ok(root.map(|root| root.trim_start_matches('/').to_owned()).filter(|root| !root.is_empty()))
}

fn sql_of(record: &Record<ColumnKind>) -> &str {
    match record {
        Record::Statement { sql, .. } | Record::Query { sql, .. } => sql,
        _ => "",
    }
}

/// On one line, and not too long.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(FAILURE_CHARS) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

impl Counts {
    fn of_plain(plain: &[Outcome]) -> Counts {
        let mut counts = Counts::default();
        for outcome in plain {
            match outcome {
                Outcome::Nothing => {}
                Outcome::Pass => counts.pass += 1,
                Outcome::Fail(error) => {
                    tell(format_args!("  plain DataFusion: {error}"));
                    counts.unsupported += 1;
                }
            }
        }
        counts
    }

    /// Of the records with these texts, by what came of them on plain DataFusion and on the cluster.
    fn of(sqls: &[&str], plain: &[Outcome], own: &[Outcome]) -> Counts {
        let mut counts = Counts::default();
        for ((sql, plain), own) in sqls.iter().zip(plain).zip(own) {
            match (plain, own) {
                (Outcome::Nothing, _) | (_, Outcome::Nothing) => {}
                (Outcome::Fail(_), _) => counts.unsupported += 1,
                (Outcome::Pass, Outcome::Pass) => counts.pass += 1,
                (Outcome::Pass, Outcome::Fail(_)) if is_explain(sql) => counts.unsupported += 1,
                (Outcome::Pass, Outcome::Fail(error)) => {
                    tell(format_args!("  {error}"));
                    counts.fail += 1;
                    counts.first_failure.get_or_insert_with(|| error.clone());
                }
            }
        }
        counts
    }

    fn add(&mut self, other: Counts) {
        self.pass += other.pass;
        self.fail += other.fail;
        self.unsupported += other.unsupported;
    }

    fn line(&self, case: String, system: &str) -> Line {
        let measured = Measured { values: vec![f64::from(self.pass)], ..Measured::default() };
        Line::new(BENCH, case, system, UNIT, &measured)
            .without_usage()
            .wrong(self.fail > 0)
            .with("pass", self.pass)
            .with("fail", self.fail)
            .with("unsupported", self.unsupported)
            .note(self.first_failure.as_deref().unwrap_or_default())
    }
}

fn is_explain(sql: &str) -> bool {
    sql.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("explain"))
}

#[cfg(test)]
mod tests;
