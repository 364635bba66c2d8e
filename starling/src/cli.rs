//! The `node` command. By itself it is one node of a cluster, until Ctrl-C; its subcommands ask a running cluster, or
//! read what one has left behind.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use starling_actors::{ActorsError, ClusterError, NodeError};
use starling_collections::files::FilesError;
use starling_core::ids::{JobId, TaskId};
use starling_core::record::ReadError;
use starling_runtime::secret::SecretError;
use starling_runtime::store::MemoryConfigError;
use starling_runtime::task::{ClientError, JsonCallError, JsonResultError};
use tracing_subscriber::EnvFilter;

mod actors;
mod ask;
mod config;
mod connection;
mod data;
mod jobs;
mod listing;
mod memory;
mod parse;
mod replay;
mod serve;
#[cfg(feature = "frame")]
mod sql;
mod status;
mod submit;
mod survival;

use config::ConfigError;

/// A wrong use of the command; nothing was started.
const USAGE: u8 = 2;
/// Anything else that went wrong.
const FAILURE: u8 = 1;

/// A node of a Starling cluster.
///
/// The first node holds the scheduler and makes the cluster's secret; the others join it and run tasks:
///
///   node --role scheduler
///   node --join /ip4/10.12.0.10/tcp/8786
#[derive(Debug, Parser)]
#[command(name = "node", version, max_term_width = 100, verbatim_doc_comment, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    node: serve::NodeOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say why a task of a running cluster is where it is: what it waits for, or which worker is full.
    Explain(ask::ExplainOptions),
    /// Let workers of a running cluster leave, once what only they hold is elsewhere and their tasks are done.
    Retire(ask::RetireOptions),
    /// Run a task that this program holds on a running cluster, and print its result as JSON.
    Submit(submit::SubmitOptions),
    /// List the jobs of a running cluster, and how far they are.
    Jobs(jobs::JobsOptions),
    /// List the actors that hold names in a running cluster: their types, their nodes, and how they are.
    Actors(actors::ActorsOptions),
    /// Print the results of a detached job of a running cluster as JSON.
    Result(jobs::ResultOptions),
    /// Keep a detached job of a running cluster and its results no longer; what of it still runs is cancelled.
    Forget(jobs::ForgetOptions),
    /// Say who leads a running cluster, who votes, who is there, and what it does not survive. Fails if nobody leads.
    Status(status::StatusOptions),
    /// Copy a file to nodes of a running cluster.
    Put(data::PutOptions),
    /// Copy a file from a node of a running cluster.
    Get(data::GetOptions),
    /// List the files that the nodes of a running cluster have, and which node has which.
    Data(data::DataOptions),
    /// Run the scheduler's machine again from a record that `node --record FILE` has kept.
    Replay(replay::ReplayOptions),
    /// Answer SQL queries over files, on a running cluster or on one inside this process.
    #[cfg(feature = "frame")]
    Sql(Box<sql::SqlOptions>),
}

/// What is logged if `STARLING_LOG` does not say. Of voters that do not answer, openraft says several times a second what the
/// quorum's own words say once.
const LOG_OF_NODE: &str = "warn,openraft=off,starling_runtime=info,starling_actors=info";

impl Command {
    fn log(&self) -> &'static str {
        match self {
            // What the nodes inside of this process say of each other would stand between the rows.
            #[cfg(feature = "frame")]
            Command::Sql(_) => "error,starling_collections=warn",
            _ => LOG_OF_NODE,
        }
    }
}

/// Why the command ends without a node.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Address(#[from] starling_runtime::mesh::MeshError),
    #[error("a worker needs a node to join: give --join ADDRESS, such as --join 10.12.0.10:8786")]
    WorkerWithoutJoin,
    #[error("which cluster? give --join ADDRESS, such as --join 10.12.0.10:8786")]
    NoCluster,
    #[error("--threads 0 would run nothing: give at least 1")]
    NoThreads,
    #[error("{option} is for a {role}: give it to a node of that role")]
    OfOtherRole { option: &'static str, role: &'static str },
    #[error(transparent)]
    Memory(#[from] MemoryConfigError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the async runtime could not be started: {0}")]
    Runtime(std::io::Error),
    #[error("signals cannot be listened for: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Cluster(Box<ClusterError>),
    #[error(transparent)]
    Client(Box<ClientError>),
    #[error(transparent)]
    Actors(#[from] ActorsError),
    #[error(transparent)]
    Files(Box<FilesError>),
    #[error(transparent)]
    Call(#[from] JsonCallError),
    #[error(transparent)]
    Result(#[from] JsonResultError),
    #[error("no detached job has the number {}: `node jobs` lists those that there are", .0.0)]
    NoSuchJob(JobId),
    #[error("job {} has {done} of its {of} results: give --wait to wait for the others", .job.0)]
    Unfinished { job: JobId, done: usize, of: usize },
    #[error("nobody leads: nothing is decided in this cluster until enough of its voters are there")]
    NoLeader,
    #[error("interrupted: the task was cancelled")]
    Interrupted,
    #[error("the answer could not be printed: {0}")]
    Print(std::io::Error),
    #[error("{}: {error}", .file.display())]
    Record { file: PathBuf, error: ReadError },
    #[error("task {0} is not in this record: `node replay FILE` lists its jobs and failures")]
    NotRecorded(TaskId),
    #[error(transparent)]
    Stopped(starling_actors::Stopped),
    #[cfg(feature = "frame")]
    #[error(transparent)]
    Sql(#[from] sql::SqlError),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Config(_)
            | CliError::Address(_)
            | CliError::WorkerWithoutJoin
            | CliError::NoCluster
            | CliError::NoThreads
            | CliError::Call(_)
            | CliError::Memory(_)
            | CliError::OfOtherRole { .. } => USAGE,
            #[cfg(feature = "frame")]
            CliError::Sql(error) if error.is_usage() => USAGE,
            #[cfg(feature = "frame")]
            CliError::Sql(_) => FAILURE,
            CliError::Secret(_)
            | CliError::Runtime(_)
            | CliError::Signals(_)
            | CliError::Node(_)
            | CliError::Cluster(_)
            | CliError::Client(_)
            | CliError::Actors(_)
            | CliError::Files(_)
            | CliError::Result(_)
            | CliError::Interrupted
            | CliError::NoSuchJob(_)
            | CliError::Unfinished { .. }
            | CliError::NoLeader
            | CliError::Print(_)
            | CliError::Record { .. }
            | CliError::NotRecorded(_)
            | CliError::Stopped(_) => FAILURE,
        }
    }
}

impl From<ClusterError> for CliError {
    fn from(error: ClusterError) -> CliError {
        CliError::Cluster(Box::new(error))
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        CliError::Client(Box::new(error))
    }
}

impl From<FilesError> for CliError {
    fn from(error: FilesError) -> CliError {
        CliError::Files(Box::new(error))
    }
}

/// Runs the command with these arguments, the program's name first. Gives 2 for a wrong use, 1 for a failure.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; printing fails only if nobody listens.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    init_logging(cli.command.as_ref().map_or(LOG_OF_NODE, Command::log));
    let outcome = match cli.command {
        None => serve::serve(&cli.node),
        Some(Command::Explain(options)) => ask::explain(&options),
        Some(Command::Retire(options)) => ask::retire(&options),
        Some(Command::Submit(options)) => submit::submit(&options),
        Some(Command::Jobs(options)) => jobs::jobs(&options),
        Some(Command::Actors(options)) => actors::actors(&options),
        Some(Command::Result(options)) => jobs::result(&options),
        Some(Command::Forget(options)) => jobs::forget(&options),
        Some(Command::Status(options)) => status::status(&options),
        Some(Command::Put(options)) => data::put(&options),
        Some(Command::Get(options)) => data::get(&options),
        Some(Command::Data(options)) => data::data(&options),
        Some(Command::Replay(options)) => replay::replay(&options),
        #[cfg(feature = "frame")]
        Some(Command::Sql(options)) => sql::sql(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Logs to standard error; `STARLING_LOG` chooses what, as `RUST_LOG` does elsewhere.
fn init_logging(default: &str) {
    let filter = EnvFilter::try_from_env("STARLING_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // A program that embeds this may have set up its own.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

/// Says something to the person at the terminal.
fn tell(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // A closed terminal is no reason to stop a node.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints an answer, which others may read further.
fn print(text: std::fmt::Arguments<'_>) -> Result<(), CliError> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").map_err(CliError::Print)
}

/// Prints an answer that ends its last line itself.
fn print_text(text: &str) -> Result<(), CliError> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_bytes()).map_err(CliError::Print)
}

/// How many threads read and write the mesh's streams. Few: a message wakes the fewer of them, and the others would only
/// take the cores from the tasks. One encrypts about 0.6 GB/s.
fn io_threads() -> usize {
    const CORES_EACH: usize = 4;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / CORES_EACH).clamp(1, 8)
}

fn start_runtime(threads: usize) -> Result<tokio::runtime::Runtime, CliError> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(threads).enable_all().build().map_err(CliError::Runtime)
}

/// Runs a command to its end on a runtime of its own.
fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = start_runtime(io_threads())?;
    let outcome = runtime.block_on(command);
    // Tasks of user code may still run; they must not hold up the end.
    runtime.shutdown_background();
    outcome
}
