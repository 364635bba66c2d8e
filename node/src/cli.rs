//! The `node` command: one node of a cluster, until Ctrl-C.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};
use starling_actors::{Node, NodeConfig, NodeError, NodeRole};
use starling_runtime::mesh::{Multiaddr, parse_addr};
use starling_runtime::secret::{ClusterSecret, SECRET_ENV, SecretError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

mod config;

use config::{ConfigError, ConfigFile};

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
#[command(name = "node", version, max_term_width = 100, verbatim_doc_comment)]
struct Options {
    /// What the node does. Without it, a node that joins others is a worker, and one that does not is the scheduler.
    #[arg(long, value_enum)]
    role: Option<Role>,

    /// A node of the mesh to join: /ip4/10.12.0.10/tcp/8786, 10.12.0.10:8786 or a host name. May be given several
    /// times; the first that answers is taken.
    #[arg(long, value_name = "ADDRESS")]
    join: Vec<String>,

    /// Where to listen. The scheduler listens on /ip4/0.0.0.0/tcp/8786; a worker on a port that the system chooses.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,

    /// Dial out only, open no port.
    #[arg(long, conflicts_with = "listen")]
    no_listen: bool,

    /// The file that holds the cluster's secret.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// Run without a secret: anybody who can reach the port may run code here.
    #[arg(long, conflicts_with = "secret_file")]
    insecure: bool,

    /// How many tasks a worker runs at once. The default is the number of cores.
    #[arg(long, value_name = "N")]
    threads: Option<u32>,

    /// How many bytes of results a worker holds at most, such as 4GiB. The default is no limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory_limit: Option<u64>,

    /// A name for people. The default is the host's.
    #[arg(long)]
    name: Option<String>,

    /// A configuration file in TOML with these same options; the command line goes before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Scheduler,
    Worker,
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
    #[error("--threads 0 would run nothing: give at least 1")]
    NoThreads,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the async runtime could not be started: {0}")]
    Runtime(std::io::Error),
    #[error("signals cannot be listened for: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Stopped(starling_actors::Stopped),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Config(_) | CliError::Address(_) | CliError::WorkerWithoutJoin | CliError::NoThreads => USAGE,
            CliError::Secret(_)
            | CliError::Runtime(_)
            | CliError::Signals(_)
            | CliError::Node(_)
            | CliError::Stopped(_) => FAILURE,
        }
    }
}

/// Runs the command with these arguments, the program's name first. Gives 2 for a wrong use, 1 for a failure.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            // Help and version are no errors; printing fails only if nobody listens.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    init_logging();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Logs to standard error; `STARLING_LOG` chooses what, as `RUST_LOG` does elsewhere.
fn init_logging() {
    let filter = EnvFilter::try_from_env("STARLING_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,starling_runtime=info,starling_actors=info"));
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

fn serve(options: Options) -> Result<(), CliError> {
    let file = ConfigFile::load(options.config.as_deref())?;
    let config = node_config(&options, &file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    let outcome = runtime.block_on(serve_until_stopped(config));
    // Tasks of user code may still run; they must not hold up the end.
    runtime.shutdown_background();
    outcome
}

fn node_config(options: &Options, file: &ConfigFile) -> Result<NodeConfig, CliError> {
    let join_texts = if options.join.is_empty() { &file.join } else { &options.join };
    let join = parse_addrs(join_texts)?;
    let role = match options.role.or(file.role) {
        Some(Role::Scheduler) => NodeRole::Scheduler,
        Some(Role::Worker) if join.is_empty() => return Err(CliError::WorkerWithoutJoin),
        Some(Role::Worker) => NodeRole::Worker,
        None if join.is_empty() => NodeRole::Scheduler,
        None => NodeRole::Worker,
    };
    let listen_texts = if options.listen.is_empty() { &file.listen } else { &options.listen };
    let listen =
        match (options.no_listen || (file.no_listen && options.listen.is_empty()), listen_texts.is_empty(), role) {
            (true, _, _) => Vec::new(),
            (false, false, _) => parse_addrs(listen_texts)?,
            (false, true, NodeRole::Scheduler) => parse_addrs(&["/ip4/0.0.0.0/tcp/8786".to_owned()])?,
            (false, true, NodeRole::Worker) => parse_addrs(&["/ip4/0.0.0.0/tcp/0".to_owned()])?,
        };
    let defaults = NodeConfig::new(role);
    let nthreads = options.threads.or(file.threads).unwrap_or(defaults.nthreads);
    if nthreads == 0 {
        return Err(CliError::NoThreads);
    }
    let memory_limit = options.memory_limit.or(file.memory_limit_bytes()?).unwrap_or(0);
    let is_first = role == NodeRole::Scheduler && join.is_empty();
    let secret = secret(options, file, is_first)?;
    let name =
        options.name.clone().or_else(|| file.name.clone()).or_else(host_name).unwrap_or_else(|| defaults.name.clone());
    Ok(NodeConfig { name, role, listen, join, secret, nthreads, memory_limit, ..defaults })
}

fn parse_addrs(texts: &[String]) -> Result<Vec<Multiaddr>, CliError> {
    Ok(texts.iter().map(|text| parse_addr(text)).collect::<Result<Vec<_>, _>>()?)
}

/// The secret to use: found, or for the first node of a mesh made. It is looked for in `--secret-file`, in
/// `STARLING_SECRET`, in what the configuration file says, and in the default place, in this order.
fn secret(options: &Options, file: &ConfigFile, is_first: bool) -> Result<Option<ClusterSecret>, CliError> {
    let is_in_environment = std::env::var_os(SECRET_ENV).is_some_and(|value| !value.is_empty());
    let is_given = options.secret_file.is_some() || is_in_environment;
    if options.insecure || (file.insecure && !is_given) {
        tell(format_args!(
            "warning: running without a secret: anybody who can reach this node may run code on it (--insecure)"
        ));
        return Ok(None);
    }
    let from_file = file.secret_file.as_deref().filter(|_| !is_given);
    match ClusterSecret::find(options.secret_file.as_deref().or(from_file), file.secret.as_deref()) {
        Ok((secret, from)) => {
            tracing::info!(%from, "found the cluster's secret");
            Ok(Some(secret))
        }
        Err(SecretError::Missing { .. }) if is_first => {
            let (secret, path, made) = ClusterSecret::create_default()?;
            if made {
                tell(format_args!(
                    "made a secret for this cluster in {}; copy it to every other machine:\n\n    \
                     ssh USER@MACHINE 'install -D -m 600 /dev/stdin ~/.config/starling/secret' < {}\n",
                    path.display(),
                    path.display()
                ));
            }
            Ok(Some(secret))
        }
        Err(error) => Err(error.into()),
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Bytes from a text such as `512MiB`, `4GB` or `1000000`.
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(format!("{text} is no size: write it as 4GiB, 512MB or a number of bytes")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text} is no size: write it as 4GiB or 512MB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is more than can be counted"))
}

async fn serve_until_stopped(config: NodeConfig) -> Result<(), CliError> {
    let mut interrupts = Interrupts::listen()?;
    let (role, listens) = (config.role, !config.listen.is_empty());
    let node = tokio::select! {
        node = Node::start(config) => node?,
        () = interrupts.next() => return Ok(()),
    };
    for addr in node.listen_addrs() {
        tell(format_args!("listening on {addr}"));
    }
    match role {
        NodeRole::Scheduler => tell(format_args!(
            "scheduler {} is ready; on the other machines run: node --join {}",
            node.id(),
            reachable(&node.listen_addrs()).map_or("ADDRESS".to_owned(), ToString::to_string)
        )),
        NodeRole::Worker if listens => tell(format_args!("worker {} is ready", node.id())),
        NodeRole::Worker => tell(format_args!("worker {} is ready; it opens no port", node.id())),
    }
    tokio::select! {
        stopped = node.stopped() => Err(CliError::Stopped(stopped)),
        () = interrupts.next() => {
            tell(format_args!("leaving; press Ctrl-C again to stop at once"));
            tokio::select! {
                () = node.shutdown() => Ok(()),
                () = interrupts.next() => Ok(()),
            }
        }
    }
}

/// The address that other machines are most likely to reach: one that is not loopback, if there is one.
fn reachable(addrs: &[Multiaddr]) -> Option<&Multiaddr> {
    let is_loopback =
        |addr: &&Multiaddr| ["/ip4/127.", "/ip6/::1/"].iter().any(|own| addr.to_string().starts_with(own));
    addrs.iter().find(|addr| !is_loopback(addr)).or(addrs.first())
}

/// Ctrl-C, and the signal by which a service manager stops a service.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From here on the signals no longer end the process by themselves.
    fn listen() -> Result<Interrupts, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::Signals);
        Ok(Interrupts { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("512 MB"), Ok(512_000_000));
        assert_eq!(parse_size("17"), Ok(17));
        assert!(parse_size("many").is_err());
        assert!(parse_size("99999999999GiB").is_err());
    }

    #[test]
    fn the_two_bare_commands_have_the_roles_and_ports_that_the_readme_says() {
        let config = |args: &[&str]| {
            let mut all = vec!["node", "--insecure"];
            all.extend(args);
            node_config(&Options::try_parse_from(all).unwrap(), &ConfigFile::default()).unwrap()
        };
        let scheduler = config(&["--role", "scheduler"]);
        assert_eq!(scheduler.role, NodeRole::Scheduler);
        assert_eq!(scheduler.listen, [parse_addr("/ip4/0.0.0.0/tcp/8786").unwrap()]);
        let worker = config(&["--join", "10.12.0.10:8786"]);
        assert_eq!(worker.role, NodeRole::Worker);
        assert_eq!(worker.join, [parse_addr("/ip4/10.12.0.10/tcp/8786").unwrap()]);
    }

    #[test]
    fn the_line_for_other_machines_names_an_address_that_they_can_reach() {
        let addrs = ["/ip4/127.0.0.1/tcp/8786", "/ip4/10.12.0.10/tcp/8786"].map(|text| parse_addr(text).unwrap());
        assert_eq!(reachable(&addrs), Some(&addrs[1]));
        assert_eq!(reachable(&addrs[..1]), Some(&addrs[0]));
    }

    #[test]
    fn a_worker_without_a_node_to_join_is_a_wrong_use() {
        let options = Options::try_parse_from(["node", "--insecure", "--role", "worker"]).unwrap();
        let error = node_config(&options, &ConfigFile::default()).unwrap_err();
        assert_eq!(error.exit_code(), USAGE);
    }
}
