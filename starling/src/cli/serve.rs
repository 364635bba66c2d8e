//! The bare command: one node of a cluster, until Ctrl-C.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use starling_actors::{DataDir, Node, NodeConfig, NodeRole, RecordConfig, Stopped};
use starling_core::spec::Resources;
use starling_runtime::mesh::{Multiaddr, Protocol};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::ConfigFile;
use super::connection::{ConnectionOptions, secret};
use super::memory::MemoryOptions;
use super::parse::{parse_addrs, parse_record_limit, parse_resources};
use super::status::StatusView;
use super::{CliError, block_on, tell};

/// How long a worker that is to leave waits for the scheduler's leave.
const RETIRE_PATIENCE: Duration = Duration::from_secs(60);

/// How the node is to be.
#[derive(Debug, Args)]
pub(super) struct NodeOptions {
    /// What the node does: only schedule, before all others; only work; or work, and schedule when it is elected to, which is what
    /// a node does without this option, unless it joins a cluster that has a scheduler of its own.
    #[arg(long, value_enum)]
    role: Option<Role>,

    /// Where a node that may schedule keeps its identity and its part of the log. The default is a place of the user's own, by
    /// the port that it listens on if one is given.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,

    /// Keep nothing: a scheduler that is started again knows no detached job and no data set of before.
    #[arg(long, conflicts_with = "data_dir")]
    no_data_dir: bool,

    /// How many nodes vote on who schedules, at most: 1, 3 or 5. The default is 3.
    #[arg(long, value_name = "N", value_parser = parse_voters)]
    voters: Option<usize>,

    #[command(flatten)]
    connection: ConnectionOptions,

    /// Where to listen. A scheduler, and a first node, listens on /ip4/0.0.0.0/tcp/8786; others on a port that the system
    /// chooses.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,

    /// Dial out only, open no port.
    #[arg(long, conflicts_with = "listen")]
    no_listen: bool,

    /// How many tasks a worker runs at once. The default is the number of cores.
    #[arg(long, value_name = "N")]
    threads: Option<u32>,

    #[command(flatten)]
    memory: MemoryOptions,

    /// What a worker has of resources that tasks may ask for, under names of your choice: gpu=1,disk=0.5.
    #[arg(long, value_name = "NAME=AMOUNT,...", value_parser = parse_resources)]
    resources: Option<Resources>,

    /// How many workers the scheduler may lose while they run a task before it gives the task up. The default is 3.
    #[arg(long, value_name = "N")]
    allowed_failures: Option<u32>,

    /// How much work the scheduler gives each of a worker's threads in advance, in milliseconds. The default is 10.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    saturation_ms: Option<u64>,

    /// How many tasks the scheduler knows at a time, of about 300 bytes each, before further submissions wait; 0 for no
    /// limit. The default is 20 million.
    #[arg(long, value_name = "N")]
    tasks_max: Option<u64>,

    /// Keep a record of what the scheduler is told in this file, for `node replay`. The one of the run before is kept
    /// as FILE.1.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// How large the record may get; it ends there. The default is 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_record_limit)]
    record_limit: Option<u64>,

    /// A name for people. The default is the host's.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Scheduler,
    Auto,
    Worker,
}

/// Runs a node with these options until it stops.
pub(super) fn serve(options: &NodeOptions) -> Result<(), CliError> {
    let file = ConfigFile::load(options.connection.config.as_deref())?;
    block_on(serve_until_stopped(node_config(options, &file)?))
}

fn node_config(options: &NodeOptions, file: &ConfigFile) -> Result<NodeConfig, CliError> {
    let join = parse_addrs(options.connection.join_or(file))?;
    let role = match options.role.or(file.role) {
        Some(Role::Scheduler) => NodeRole::Scheduler,
        Some(Role::Worker) if join.is_empty() => return Err(CliError::WorkerWithoutJoin),
        Some(Role::Worker) => NodeRole::Worker,
        Some(Role::Auto) => NodeRole::Auto,
        None if join.is_empty() => NodeRole::Auto,
        None => NodeRole::Joining,
    };
    options.check_role(role)?;
    let listen_texts = if options.listen.is_empty() { &file.listen } else { &options.listen };
    let listen =
        match (options.no_listen || (file.no_listen && options.listen.is_empty()), listen_texts.is_empty(), role) {
            (true, _, _) => Vec::new(),
            (false, false, _) => parse_addrs(listen_texts)?,
            (false, true, NodeRole::Scheduler) => parse_addrs(&[DEFAULT_LISTEN])?,
            (false, true, NodeRole::Auto) if join.is_empty() => parse_addrs(&[DEFAULT_LISTEN])?,
            (false, true, _) => parse_addrs(&["/ip4/0.0.0.0/tcp/0"])?,
        };
    let defaults = NodeConfig::new(role);
    let nthreads = options.threads.or(file.threads).unwrap_or(defaults.nthreads);
    if nthreads == 0 {
        return Err(CliError::NoThreads);
    }
    let memory = options.memory.config(file)?;
    let resources = options.resources.clone().or(file.resources()?).unwrap_or_default();
    let allowed_failures = options.allowed_failures.or(file.allowed_failures).unwrap_or(defaults.allowed_failures);
    let saturation_ms = options.saturation_ms.or(file.saturation_ms);
    let saturation = saturation_ms.map_or(defaults.saturation, Duration::from_millis);
    let tasks_max = options.tasks_max.or(file.tasks_max).unwrap_or(defaults.tasks_max);
    let record = record(options, file)?;
    let is_first = join.is_empty();
    let data_dir = if options.no_data_dir || !role.may_lead() {
        None
    } else {
        let own = options.data_dir.clone().or_else(|| file.data_dir.clone());
        own.map(DataDir::At).or_else(|| default_data_dir(&listen))
    };
    let voters = options.voters.or(file.voters).unwrap_or(defaults.voters);
    let secret = secret(&options.connection, file, is_first)?;
    if secret.is_none() {
        tell(format_args!(
            "warning: running without a secret: anybody who can reach this node may run code on it (--insecure)"
        ));
    }
    let name =
        options.name.clone().or_else(|| file.name.clone()).or_else(host_name).unwrap_or_else(|| defaults.name.clone());
    Ok(NodeConfig {
        name,
        role,
        listen,
        join,
        secret,
        nthreads,
        memory,
        resources,
        allowed_failures,
        saturation,
        tasks_max,
        record,
        data_dir,
        voters,
    })
}

/// Where a first node listens.
const DEFAULT_LISTEN: &str = "/ip4/0.0.0.0/tcp/8786";

fn parse_voters(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("1, 3 or 5 nodes vote".to_owned()),
    }
}

/// A folder of the user's own for state, by the port; of nodes whose ports the system chooses, each takes one that is free.
fn default_data_dir(listen: &[Multiaddr]) -> Option<DataDir> {
    let port = listen.iter().flat_map(|addr| addr.iter()).find_map(|part| match part {
        Protocol::Tcp(port) if port > 0 => Some(port),
        _ => None,
    });
    let folder = std::env::var_os("XDG_STATE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    let folder = folder.join("starling");
    Some(match port {
        Some(port) => DataDir::At(folder.join(format!("node-{port}"))),
        None => DataDir::FirstFree(folder.join("joined")),
    })
}

/// The record to keep, if one is asked for. A limit alone asks for none.
fn record(options: &NodeOptions, file: &ConfigFile) -> Result<Option<RecordConfig>, CliError> {
    let limit_bytes = options.record_limit.or(file.record_limit_bytes()?).unwrap_or(RecordConfig::LIMIT_BYTES_DEFAULT);
    let path = options.record.clone().or_else(|| file.record.clone());
    Ok(path.map(|path| RecordConfig { path, limit_bytes }))
}

impl NodeOptions {
    /// Refuses what would be without effect. Only on the command line: one configuration file may serve all nodes.
    fn check_role(&self, role: NodeRole) -> Result<(), CliError> {
        let misplaced = match role {
            NodeRole::Scheduler => vec![(self.resources.is_some(), "--resources", "worker")],
            NodeRole::Auto | NodeRole::Joining | NodeRole::Service => Vec::new(),
            NodeRole::Worker => vec![
                (self.data_dir.is_some(), "--data-dir", "scheduler"),
                (self.voters.is_some(), "--voters", "scheduler"),
                (self.allowed_failures.is_some(), "--allowed-failures", "scheduler"),
                (self.saturation_ms.is_some(), "--saturation-ms", "scheduler"),
                (self.tasks_max.is_some(), "--tasks-max", "scheduler"),
                (self.record.is_some(), "--record", "scheduler"),
                (self.record_limit.is_some(), "--record-limit", "scheduler"),
            ],
        };
        match misplaced.into_iter().find(|(is_given, ..)| *is_given) {
            Some((_, option, role)) => Err(CliError::OfOtherRole { option, role }),
            None => Ok(()),
        }
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

async fn serve_until_stopped(config: NodeConfig) -> Result<(), CliError> {
    let mut interrupts = Interrupts::listen()?;
    let listens = !config.listen.is_empty();
    let node = tokio::select! {
        node = Node::start(config) => node?,
        () = interrupts.next() => return Ok(()),
    };
    for addr in node.listen_addrs() {
        tell(format_args!("listening on {addr}"));
    }
    let role = node.role();
    let join = reachable(&node.listen_addrs()).map_or("ADDRESS".to_owned(), ToString::to_string);
    match role {
        NodeRole::Scheduler => {
            tell(format_args!("scheduler {} is ready; on the other machines run: node --join {join}", node.id()));
        }
        NodeRole::Auto => {
            tell(format_args!("node {} is ready; on the other machines run: node --join {join}", node.id()));
        }
        NodeRole::Service => tell(format_args!("service {} is ready", node.id())),
        NodeRole::Joining | NodeRole::Worker if listens => tell(format_args!("worker {} is ready", node.id())),
        NodeRole::Joining | NodeRole::Worker => {
            tell(format_args!("worker {} is ready; it opens no port", node.id()));
        }
    }
    let status = node.status();
    // One that has just joined may not have been told who votes.
    if status.quorum.as_ref().is_some_and(|quorum| !quorum.voters.is_empty()) {
        for sentence in StatusView::of(&status).cannot_survive {
            tell(format_args!("{sentence}"));
        }
    }
    tokio::select! {
        stopped = node.stopped() => return ended(stopped),
        () = interrupts.next() => {}
    }
    tokio::select! {
        () = leave(node, role) => Ok(()),
        () = interrupts.next() => Ok(()),
    }
}

/// What a worker says that has nothing left which would be lost with it.
const LET_GO: &str = "the cluster has let this worker go";

/// How the command ends with a node that has stopped by itself.
fn ended(stopped: Stopped) -> Result<(), CliError> {
    match stopped {
        Stopped::Retired => {
            tell(format_args!("{LET_GO}"));
            Ok(())
        }
        stopped => Err(CliError::Stopped(stopped)),
    }
}

/// Leaves cleanly: a worker finishes its tasks first, and what only it holds goes to others.
async fn leave(node: Node, role: NodeRole) {
    match role {
        NodeRole::Scheduler | NodeRole::Service => tell(format_args!("leaving; press Ctrl-C again to stop at once")),
        NodeRole::Auto | NodeRole::Joining | NodeRole::Worker => {
            tell(format_args!(
                "leaving, once what only this worker holds is elsewhere; press Ctrl-C again to stop at once"
            ));
            if node.retire(RETIRE_PATIENCE).await {
                tell(format_args!("{LET_GO}"));
            } else {
                tell(format_args!("the scheduler did not let this worker go: what only it holds is lost"));
            }
        }
    }
    node.shutdown().await;
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
    use clap::Parser;
    use starling_core::spec::Amount;
    use starling_runtime::mesh::parse_addr;
    use starling_runtime::store::MemoryConfig;

    use super::super::{Cli, USAGE};
    use super::*;

    fn options<'a>(args: impl IntoIterator<Item = &'a str>) -> NodeOptions {
        Cli::try_parse_from(args).unwrap().node
    }

    fn file(text: &str) -> ConfigFile {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        ConfigFile::load(Some(&path)).unwrap()
    }

    #[test]
    fn the_two_bare_commands_have_the_roles_and_ports_that_the_readme_says() {
        let config = |args: &[&str]| {
            let mut all = vec!["node", "--insecure"];
            all.extend(args);
            node_config(&options(all), &ConfigFile::default()).unwrap()
        };
        let scheduler = config(&["--role", "scheduler"]);
        assert_eq!(scheduler.role, NodeRole::Scheduler);
        assert_eq!(scheduler.listen, [parse_addr("/ip4/0.0.0.0/tcp/8786").unwrap()]);
        assert!(matches!(scheduler.data_dir, Some(DataDir::At(path)) if path.ends_with("starling/node-8786")));
        let worker = config(&["--join", "10.12.0.10:8786"]);
        assert_eq!(worker.role, NodeRole::Joining);
        assert!(matches!(worker.data_dir, Some(DataDir::FirstFree(path)) if path.ends_with("starling/joined")));
        assert_eq!(worker.join, [parse_addr("/ip4/10.12.0.10/tcp/8786").unwrap()]);
    }

    #[test]
    fn memory_options_are_read_checked_and_go_before_the_file() {
        let memory = |args: &[&'static str], text: &str| {
            let all = ["node", "--insecure", "--join", "10.12.0.10"].into_iter().chain(args.iter().copied());
            node_config(&options(all), &file(text)).map(|config| config.memory)
        };
        let plain = memory(&[], "").unwrap();
        assert_eq!(plain, MemoryConfig { counts_process: true, ..MemoryConfig::default() });
        let text = "memory-limit = '4GiB'\nmemory-target = 0.5\nmemory-pause = 0.0\nspill-limit = '1GB'\n\
                    spill-directory = '/scratch'";
        let args = ["--memory-limit", "2GiB", "--memory-refuse", "0.9", "--spill-directory", "/other"];
        let expected = MemoryConfig {
            limit: 2 << 30,
            target: 0.5,
            pause: 0.0,
            refuse: 0.9,
            spill_directory: Some("/other".into()),
            spill_limit: Some(1_000_000_000),
            ..plain
        };
        assert_eq!(memory(&args, text).unwrap(), expected);
        let wrong = memory(&["--memory-target", "60"], "").unwrap_err();
        assert!(wrong.to_string().contains("--memory-target 60 is no fraction"), "{wrong}");
        assert_eq!(wrong.exit_code(), USAGE);
        let wrong = memory(&[], "spill-limit = 'much'").unwrap_err();
        assert!(wrong.to_string().starts_with("spill-limit in the configuration file"), "{wrong}");
    }

    #[test]
    fn the_line_for_other_machines_names_an_address_that_they_can_reach() {
        let addrs = ["/ip4/127.0.0.1/tcp/8786", "/ip4/10.12.0.10/tcp/8786"].map(|text| parse_addr(text).unwrap());
        assert_eq!(reachable(&addrs), Some(&addrs[1]));
        assert_eq!(reachable(&addrs[..1]), Some(&addrs[0]));
    }

    #[test]
    fn a_worker_without_a_node_to_join_is_a_wrong_use() {
        let options = options(["node", "--insecure", "--role", "worker"]);
        let error = node_config(&options, &ConfigFile::default()).unwrap_err();
        assert_eq!(error.exit_code(), USAGE);
    }
    #[test]
    fn what_a_node_of_the_other_role_has_is_refused_on_the_command_line_and_passed_over_in_a_file() {
        let error = |args: &[&str]| {
            let mut all = vec!["node", "--insecure"];
            all.extend(args);
            node_config(&options(all), &ConfigFile::default()).unwrap_err()
        };
        let refused = error(&["--role", "scheduler", "--resources", "gpu=1"]);
        assert_eq!(refused.to_string(), "--resources is for a worker: give it to a node of that role");
        assert_eq!(refused.exit_code(), USAGE);
        let of_scheduler = [
            ["--allowed-failures", "1"],
            ["--record", "file"],
            ["--record-limit", "1GiB"],
            ["--saturation-ms", "20"],
            ["--tasks-max", "1000"],
        ];
        for args in of_scheduler {
            let mut all = vec!["--role", "worker", "--join", "10.12.0.10:8786"];
            all.extend(args);
            assert!(matches!(error(&all), CliError::OfOtherRole { option, .. } if option == args[0]));
        }

        let file = file(
            "insecure = true\nresources = 'gpu=2'\nallowed-failures = 7\nrecord = 'log'\nrecord-limit = '1GiB'\ntasks-max = 5\n",
        );
        let worker = node_config(&options(["node", "--join", "10.12.0.10:8786"]), &file).unwrap();
        assert_eq!(worker.resources, Resources::from([("gpu".to_owned(), Amount::whole(2))]));
        let scheduler = node_config(&options(["node", "--role", "scheduler"]), &file).unwrap();
        assert_eq!((scheduler.allowed_failures, scheduler.tasks_max), (7, 5));
        assert_eq!(scheduler.record, Some(RecordConfig { path: "log".into(), limit_bytes: 1 << 30 }));
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = file("insecure = true\nallowed-failures = 7\nrecord = 'log'\nrecord-limit = '1GiB'\n");
        let args =
            ["node", "--saturation-ms", "3", "--allowed-failures", "0", "--record", "other", "--record-limit", "2MiB"];
        let config = node_config(&options(args), &file).unwrap();
        assert_eq!((config.allowed_failures, config.saturation), (0, Duration::from_millis(3)));
        assert_eq!(config.record, Some(RecordConfig { path: "other".into(), limit_bytes: 2 << 20 }));
        let limit_alone =
            node_config(&options(["node", "--insecure", "--record-limit", "2MiB"]), &ConfigFile::default());
        assert_eq!(limit_alone.unwrap().record, None);
    }
}
