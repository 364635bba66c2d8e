//! `node replay`: what a record tells.

use std::path::PathBuf;

use clap::Args;
use starling_core::ids::TaskId;

use super::CliError;
use super::parse::parse_task;

/// What to read, and whose story to tell.
#[derive(Debug, Args)]
pub(super) struct ReplayOptions {
    /// The record.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The task whose story is told, as it is printed; without it, what the record holds.
    #[arg(value_name = "TASK", value_parser = parse_task)]
    task: Option<TaskId>,
}

/// Reads the record and tells.
pub(super) fn replay(options: &ReplayOptions) -> Result<(), CliError> {
    tracing::debug!(file = %options.file.display(), task = ?options.task, "replay");
    Err(CliError::NoReplay)
}
