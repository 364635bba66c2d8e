//! `node explain` and `node retire`: what a person asks of a running cluster.

use clap::Args;
use starling_actors::{Cluster, ConnectOptions};
use starling_core::ids::TaskId;

use super::config::ConfigFile;
use super::connection::{ConnectionOptions, secret};
use super::parse::{parse_addrs, parse_task};
use super::{CliError, block_on, print};

/// Which task to explain.
#[derive(Debug, Args)]
pub(super) struct ExplainOptions {
    /// The task, as it is printed in errors and logs: JOB.INDEX, such as 3141592653.17.
    #[arg(value_name = "TASK", value_parser = parse_task)]
    task: TaskId,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Which workers to let go.
#[derive(Debug, Args)]
pub(super) struct RetireOptions {
    /// The workers, each by its name or by the beginning of its node's id.
    #[arg(value_name = "NODE", required = true)]
    workers: Vec<String>,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Prints why the task is where it is.
pub(super) fn explain(options: &ExplainOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let explanation = cluster.explain_task(options.task).await;
        cluster.shutdown().await;
        print(format_args!("{}", explanation?))
    })
}

/// Waits until the workers have left.
pub(super) fn retire(options: &RetireOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let moved = cluster.retire_workers(&options.workers).await;
        cluster.shutdown().await;
        print(format_args!("{} left; {} outputs were moved before", options.workers.join(", "), moved?))
    })
}

/// Connects to the cluster that the options, or the configuration file, name.
pub(super) async fn connect(options: &ConnectionOptions) -> Result<Cluster, CliError> {
    connect_as(options, None).await
}

/// As [`connect`], with a name for the job.
pub(super) async fn connect_as(options: &ConnectionOptions, name: Option<String>) -> Result<Cluster, CliError> {
    let (addrs, options) = way_to(options)?;
    Ok(Cluster::connect_any(&parse_addrs(&addrs)?, ConnectOptions { name, ..options }).await?)
}

/// Where the cluster is that the options, or the configuration file, name, at least one node of it, and how to be let in.
pub(super) fn way_to(options: &ConnectionOptions) -> Result<(Vec<String>, ConnectOptions), CliError> {
    let file = ConfigFile::load(options.config.as_deref())?;
    let addrs = options.join_or(&file).to_vec();
    if addrs.is_empty() {
        return Err(CliError::NoCluster);
    }
    let secret = secret(options, &file, false)?;
    Ok((addrs, ConnectOptions { insecure: secret.is_none(), secret, ..ConnectOptions::default() }))
}
