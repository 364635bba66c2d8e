//! `node sql`: queries on a cluster, or on one inside this process, from the command line, a file, standard input or a shell.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use datafusion::sql::parser::{DFParser, Statement as Parsed};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use futures::StreamExt;
use starling_actors::{Cluster, LocalOptions};
use starling_collections::frame::{FrameError, FrameExt, Frames, OnBadRow, TableError, TableFormat};

use super::config::ConfigFile;
use super::connection::ConnectionOptions;
use super::{CliError, ask, start_runtime, tell};

mod complete;
mod names;
mod output;
mod problem;
mod progress;
mod shell;
mod statements;
mod tables;

use names::Names;
use output::{NewFile, Output, OutputError, RowWriter, Target};
use problem::Problem;
use progress::ProgressLine;
use statements::{Statement, split};
use tables::{NamedTable, TableArgError, parse_tables};

/// How many rows of a table a shell shows.
const SHOWN_INTERACTIVE: usize = 100;
/// How many workers an embedded cluster has.
const WORKERS: usize = 2;

/// What to ask, of whom, and how to answer.
#[derive(Debug, Args)]
pub(super) struct SqlOptions {
    /// The statements, with semicolons between them. Without any, and without --file, they are read from standard input; on a
    /// terminal, a shell asks for them.
    #[arg(value_name = "QUERY", conflicts_with = "file")]
    query: Option<String>,

    /// Read the statements from this file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Files as a table: posts=posts.csv, logs='logs/*.json.gz', events=s3://bucket/events/. What they hold is told by their
    /// names: .csv .tsv .json .jsonl .ndjson .parquet .avro .arrow .feather, the text formats also with .gz .zst .bz2 .xz.
    /// May be given several times.
    #[arg(long = "table", value_name = "NAME=PATH[,NAME=PATH...]")]
    tables: Vec<String>,

    /// Read all tables' files as this, whatever their names say.
    #[arg(long, value_enum)]
    format: Option<FormatArg>,

    /// What to do with a row that does not fit its table.
    #[arg(long, value_enum, default_value = "error")]
    on_bad_row: OnBadRowArg,

    #[command(flatten)]
    connection: ConnectionOptions,

    /// Run on a cluster of so many workers inside this process, which share its cores. This is what happens without --join, with
    /// 2 workers.
    #[arg(long, value_name = "N", conflicts_with = "join")]
    workers: Option<usize>,

    /// How to write the rows. The default is what the name of --output-file says, or a table.
    #[arg(long, value_enum)]
    output: Option<Output>,

    /// Write the rows to this file instead of standard output. It appears once it is whole.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,

    /// Show so many rows of a table and count the others; 0 for all. The default is 100 in a shell, and all elsewhere.
    #[arg(long, value_name = "N")]
    limit_shown: Option<usize>,

    /// Say how many rows each statement gave, and in how many seconds.
    #[arg(long)]
    timing: bool,

    /// Print rows and errors, and nothing else.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    Csv,
    Tsv,
    Json,
    Parquet,
    Avro,
    Arrow,
}

impl From<FormatArg> for TableFormat {
    fn from(format: FormatArg) -> TableFormat {
        match format {
            FormatArg::Csv => TableFormat::Csv,
            FormatArg::Tsv => TableFormat::Tsv,
            FormatArg::Json => TableFormat::Json,
            FormatArg::Parquet => TableFormat::Parquet,
            FormatArg::Avro => TableFormat::Avro,
            FormatArg::Arrow => TableFormat::Arrow,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnBadRowArg {
    /// Fail, and say where it is.
    Error,
    /// Leave it out, and count it.
    Skip,
}

impl From<OnBadRowArg> for OnBadRow {
    fn from(on_bad_row: OnBadRowArg) -> OnBadRow {
        match on_bad_row {
            OnBadRowArg::Error => OnBadRow::Fail,
            OnBadRowArg::Skip => OnBadRow::Skip,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error(transparent)]
    TableArg(#[from] TableArgError),
    #[error("table {name}: {source}")]
    Table { name: String, source: FrameError },
    #[error("--workers 0 would run nothing: give at least 1")]
    NoWorkers,
    #[error("parquet goes to a file: give --output-file FILE.parquet")]
    ParquetToStandardOutput,
    #[error("a shell prints its rows: for --output-file give a query, or --file QUERIES.sql")]
    ShellToFile,
    #[error("--output-file holds the rows of one statement, and {0} of these give rows")]
    OneFile(usize),
    #[error("there is no statement in {0}")]
    NoStatement(String),
    #[error("{path} could not be read: {source}")]
    Read { path: String, source: std::io::Error },
    #[error(transparent)]
    Query(#[from] Box<Problem>),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("interrupted: the query was cancelled")]
    Interrupted,
    #[error("the terminal could not be read: {0}")]
    Terminal(#[from] rustyline::error::ReadlineError),
}

impl SqlError {
    /// Whether the command was used in a wrong way, so that nothing was asked.
    pub(super) fn is_usage(&self) -> bool {
        match self {
            SqlError::TableArg(_)
            | SqlError::NoWorkers
            | SqlError::ParquetToStandardOutput
            | SqlError::ShellToFile
            | SqlError::OneFile(_)
            | SqlError::NoStatement(_) => true,
            SqlError::Table { source: FrameError::Table(error), .. } => !matches!(error, TableError::Read(_)),
            SqlError::Table { .. }
            | SqlError::Read { .. }
            | SqlError::Query(_)
            | SqlError::Output(_)
            | SqlError::Interrupted
            | SqlError::Terminal(_) => false,
        }
    }
}

/// Answers queries until there are no more.
pub(super) fn sql(options: &SqlOptions) -> Result<(), CliError> {
    let tables = parse_tables(&options.tables).map_err(SqlError::from)?;
    let plan = options.plan()?;
    let file = ConfigFile::load(options.connection.config.as_deref())?;
    let runtime = start_runtime(runtime_threads())?;
    let outcome = runtime.block_on(Box::pin(Session::start(options, &file, &tables))).and_then(|mut session| {
        let outcome = match plan {
            Plan::Shell => shell::run(&runtime, &mut session),
            Plan::Statements { statements, into_file } => runtime.block_on(Box::pin(async {
                for (number, statement) in statements.iter().enumerate() {
                    let file = options.output_file.as_deref().filter(|_| into_file == Some(number));
                    session.run_or_cancel(statement, file).await?;
                }
                Ok(())
            })),
        };
        runtime.block_on(session.cluster.shutdown());
        match outcome {
            // Whoever reads the rows has seen enough.
            Err(SqlError::Output(error)) if error.is_closed_pipe() => Ok(()),
            outcome => Ok(outcome?),
        }
    });
    // Tasks may still run; they must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// The client plans queries and writes rows while the nodes of an embedded cluster talk.
fn runtime_threads() -> usize {
    super::io_threads().max(2)
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Shell,
    Statements {
        statements: Vec<Statement>,
        /// Which of them gives the rows of `--output-file`.
        into_file: Option<usize>,
    },
}

impl SqlOptions {
    fn plan(&self) -> Result<Plan, SqlError> {
        if self.workers == Some(0) {
            return Err(SqlError::NoWorkers);
        }
        if self.output() == Output::Parquet && self.output_file.is_none() {
            return Err(SqlError::ParquetToStandardOutput);
        }
        let (text, from) = match (&self.query, &self.file) {
            (Some(query), _) => (query.clone(), "the query".to_owned()),
            (None, Some(path)) => {
                let path_text = path.display().to_string();
                let text = std::fs::read_to_string(path);
                (text.map_err(|source| SqlError::Read { path: path_text.clone(), source })?, path_text)
            }
            (None, None) if std::io::stdin().is_terminal() && self.output_file.is_some() => {
                return Err(SqlError::ShellToFile);
            }
            (None, None) if std::io::stdin().is_terminal() => return Ok(Plan::Shell),
            (None, None) => {
                let (mut text, path) = (String::new(), "standard input".to_owned());
                let read = std::io::stdin().read_to_string(&mut text);
                read.map_err(|source| SqlError::Read { path: path.clone(), source })?;
                (text, path)
            }
        };
        let statements = split(&text).all();
        if statements.is_empty() {
            return Err(SqlError::NoStatement(from));
        }
        let into_file = if self.output_file.is_some() { Some(of_rows(&statements)?) } else { None };
        Ok(Plan::Statements { statements, into_file })
    }

    fn output(&self) -> Output {
        self.output.or_else(|| Output::of_file(self.output_file.as_deref()?)).unwrap_or(Output::Table)
    }
}

/// Which statement gives rows; it must be one.
fn of_rows(statements: &[Statement]) -> Result<usize, SqlError> {
    let mut numbers = Vec::new();
    for (number, statement) in statements.iter().enumerate() {
        match gives_rows(&statement.text) {
            Some(true) => numbers.push(number),
            Some(false) => {}
            // What is wrong is told when it is its turn. It may be right by then, in another dialect.
            None => return Ok(statements.len() - 1),
        }
    }
    match numbers[..] {
        [number] => Ok(number),
        _ => Err(SqlError::OneFile(numbers.len())),
    }
}

/// Whether a statement's answer is rows that a person asked for; nothing if it is none that can be read.
fn gives_rows(text: &str) -> Option<bool> {
    Some(match &*DFParser::parse_sql(text).ok()?.into_iter().collect::<Vec<_>>() {
        [Parsed::Explain(_)] => true,
        [Parsed::Statement(statement)] => matches!(
            statement.as_ref(),
            SqlStatement::Query(_)
                | SqlStatement::Explain { .. }
                | SqlStatement::ExplainTable { .. }
                | SqlStatement::ShowTables { .. }
                | SqlStatement::ShowColumns { .. }
                | SqlStatement::ShowFunctions { .. }
                | SqlStatement::ShowVariable { .. }
        ),
        _ => false,
    })
}

/// A client with its tables, and how it answers.
struct Session {
    cluster: Cluster,
    frames: Frames,
    output: Output,
    /// How many rows of a table are shown, if not the default.
    limit_shown: Option<usize>,
    is_interactive: bool,
    timing: bool,
    quiet: bool,
}

/// What became of a statement.
#[derive(Clone, Copy, Debug)]
struct Done {
    /// How many rows it gave; nothing for one that gives none.
    rows: Option<u64>,
    took: Duration,
}

impl Session {
    async fn start(options: &SqlOptions, file: &ConfigFile, tables: &[NamedTable]) -> Result<Session, CliError> {
        let is_embedded = options.workers.is_some() || options.connection.join_or(file).is_empty();
        let cluster = if is_embedded {
            Cluster::local_with(LocalOptions::new(options.workers.unwrap_or(WORKERS))).await?
        } else {
            ask::connect(&options.connection).await?
        };
        let session = Session {
            frames: cluster.frames(),
            cluster,
            output: options.output(),
            limit_shown: options.limit_shown,
            is_interactive: false,
            timing: options.timing,
            quiet: options.quiet,
        };
        match session.prepare(options, tables).await {
            Ok(()) => Ok(session),
            Err(error) => {
                session.cluster.shutdown().await;
                Err(error.into())
            }
        }
    }

    async fn prepare(&self, options: &SqlOptions, tables: &[NamedTable]) -> Result<(), SqlError> {
        {
            let state = self.frames.context().state_ref();
            let mut state = state.write();
            let config = state.config_mut().options_mut();
            // So that errors have places, and SHOW and DESCRIBE work.
            config.sql_parser.collect_spans = true;
            config.catalog.information_schema = true;
        }
        for table in tables {
            let source = table.source(options.format.map(TableFormat::from), options.on_bad_row.into());
            let registered = self.frames.register(&table.name, source).await;
            registered.map_err(|source| SqlError::Table { name: table.name.clone(), source })?;
        }
        Ok(())
    }

    /// Runs a statement to its end, or until Ctrl-C, which gives it up.
    async fn run_or_cancel(&self, statement: &Statement, file: Option<&Path>) -> Result<(), SqlError> {
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = self.run(statement, file) => outcome,
            // If signals cannot be listened for, Ctrl-C ends the process as it always does.
            Ok(()) = tokio::signal::ctrl_c() => Err(SqlError::Interrupted),
        };
        if matches!(outcome, Err(SqlError::Interrupted)) {
            self.cluster.cancel_all();
        }
        let rows = outcome?;
        if self.timing && !self.quiet {
            tell(format_args!("{}", Done { rows, took: started.elapsed() }));
        }
        Ok(())
    }

    /// Runs a statement; gives the number of its rows, if it gives rows.
    async fn run(&self, statement: &Statement, file: Option<&Path>) -> Result<Option<u64>, SqlError> {
        let mut progress = ProgressLine::start(&self.frames, !self.quiet);
        // Taken first: a file that cannot be written is told before hours of work.
        let file = file.map(NewFile::create).transpose()?;
        let frame = match self.frames.sql(&statement.text).await {
            Ok(frame) => frame,
            Err(error) => return Err(self.problem(error, statement).await),
        };
        if frame.schema().fields().is_empty() {
            // It has taken effect, and has no answer.
            let done = frame.collect().await;
            return match done {
                Ok(_) => Ok(None),
                Err(error) => Err(self.problem(error.into(), statement).await),
            };
        }
        let mut batches = match frame.execute_stream().await {
            Ok(batches) => batches,
            Err(error) => return Err(self.problem(error.into(), statement).await),
        };
        let target = file.map_or_else(Target::standard, Target::File);
        let is_early = self.output != Output::Table;
        let mut writer = RowWriter::new(self.output, target, batches.schema(), self.limit())?;
        while let Some(batch) = batches.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return Err(self.problem(error.into(), statement).await),
            };
            if is_early {
                progress.end();
            }
            writer.write(&batch)?;
        }
        progress.end();
        Ok(Some(writer.finish()?))
    }

    fn limit(&self) -> Option<usize> {
        let default = if self.is_interactive { SHOWN_INTERACTIVE } else { 0 };
        Some(self.limit_shown.unwrap_or(default)).filter(|limit| *limit > 0)
    }

    async fn problem(&self, error: FrameError, statement: &Statement) -> SqlError {
        let names = Names::of(&self.frames).await;
        SqlError::Query(Box::new(Problem::of(error, statement, &names)))
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64();
        match self.rows {
            Some(1) => write!(f, "1 row in {seconds:.3} s"),
            Some(rows) => write!(f, "{rows} rows in {seconds:.3} s"),
            None => write!(f, "done in {seconds:.3} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn options(args: &[&str]) -> SqlOptions {
        let args = ["node", "sql"].into_iter().chain(args.iter().copied());
        match Cli::try_parse_from(args).unwrap().command {
            Some(Command::Sql(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn into_file(query: &str) -> Result<Option<usize>, SqlError> {
        match options(&[query, "--output-file", "rows.csv"]).plan()? {
            Plan::Statements { into_file, .. } => Ok(into_file),
            Plan::Shell => panic!("a shell"),
        }
    }

    #[test]
    fn the_query_may_be_an_argument_or_a_file() {
        let Plan::Statements { statements, into_file } = options(&["SELECT 1; SELECT 2"]).plan().unwrap() else {
            panic!("a shell")
        };
        assert_eq!((statements.len(), into_file), (2, None));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.sql");
        let path = path.to_str().unwrap();
        std::fs::write(path, "-- nothing\n").unwrap();
        assert!(matches!(options(&["--file", path]).plan(), Err(SqlError::NoStatement(from)) if from == path));
        std::fs::write(path, "SELECT\n3;").unwrap();
        assert!(matches!(options(&["--file", path]).plan(), Ok(Plan::Statements { .. })));
        let missing = options(&["--file", "/nowhere"]).plan().unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere could not be read: "), "{missing}");
        assert!(Cli::try_parse_from(["node", "sql", "SELECT 1", "--file", path]).is_err());
        assert!(Cli::try_parse_from(["node", "sql", "SELECT 1", "--join", "10.0.0.1", "--workers", "2"]).is_err());
    }

    #[test]
    fn the_name_of_the_file_says_how_rows_are_written_unless_an_option_does() {
        assert_eq!(options(&["x"]).output(), Output::Table);
        assert_eq!(options(&["x", "--output-file", "a/b.parquet"]).output(), Output::Parquet);
        assert_eq!(options(&["x", "--output-file", "b.jsonl"]).output(), Output::Json);
        assert_eq!(options(&["x", "--output-file", "b.csv", "--output", "json"]).output(), Output::Json);
        let refused = options(&["SELECT 1", "--output", "parquet"]).plan().unwrap_err();
        assert!(matches!(refused, SqlError::ParquetToStandardOutput) && refused.is_usage());
    }

    #[test]
    fn one_statement_gives_the_rows_of_a_file() {
        assert_eq!(into_file("SELECT 1").unwrap(), Some(0));
        assert_eq!(into_file("CREATE VIEW v AS SELECT 1; SELECT * FROM v; DROP VIEW v").unwrap(), Some(1));
        assert_eq!(into_file("EXPLAIN SELECT 1").unwrap(), Some(0));
        assert!(matches!(into_file("SELECT 1; SELECT 2"), Err(SqlError::OneFile(2))));
        assert!(matches!(into_file("CREATE VIEW v AS SELECT 1"), Err(SqlError::OneFile(0))));
        assert_eq!(into_file("SELECT 1; SELEC 2").unwrap(), Some(1), "the error is told when it is reached");
    }

    #[test]
    fn no_workers_are_a_wrong_use() {
        let error = options(&["SELECT 1", "--workers", "0"]).plan().unwrap_err();
        assert!(error.is_usage());
        assert_eq!(error.to_string(), "--workers 0 would run nothing: give at least 1");
    }

    #[test]
    fn rows_and_seconds_are_told() {
        let told = |rows| Done { rows, took: Duration::from_millis(1_500) }.to_string();
        assert_eq!(told(Some(3)), "3 rows in 1.500 s");
        assert_eq!(told(Some(1)), "1 row in 1.500 s");
        assert_eq!(told(None), "done in 1.500 s");
    }
}
