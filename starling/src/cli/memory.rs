//! A worker's memory options.

use std::path::PathBuf;

use clap::Args;
use starling_runtime::store::MemoryConfig;

use super::CliError;
use super::config::ConfigFile;
use super::parse::parse_size;

/// A worker's memory. The four thresholds are Dask's: `distributed.worker.memory.*`.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct MemoryOptions {
    /// How much memory a worker uses, such as 4GiB. Outputs over it go to disk. The default is no limit.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory_limit: Option<u64>,

    /// The part of the limit above which outputs in memory are written to disk, the least recently used first. 0 for
    /// none. The default is 0.6.
    #[arg(long, value_name = "FRACTION")]
    memory_target: Option<f64>,

    /// The part of the limit above which outputs are written to disk because of what the whole process uses. The
    /// default is 0.7.
    #[arg(long, value_name = "FRACTION")]
    memory_spill: Option<f64>,

    /// The part of the limit above which the worker begins no task, as long as waiting helps. The default is 0.8.
    #[arg(long, value_name = "FRACTION")]
    memory_pause: Option<f64>,

    /// The part of the limit above which no output is kept in memory: it goes straight to disk, and is refused if that
    /// is impossible. The default is 0.95.
    #[arg(long, value_name = "FRACTION")]
    memory_refuse: Option<f64>,

    /// Where outputs are written, in a directory of the node's own that goes with it. The default is the system's
    /// temporary directory; choose another if that is in memory.
    #[arg(long, value_name = "DIRECTORY")]
    spill_directory: Option<PathBuf>,

    /// How much of the disk may be used, such as 100GiB; 0 to write nothing. The default is all of it.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    spill_limit: Option<u64>,
}

impl MemoryOptions {
    /// What this says, and what `file` says of what this does not.
    pub(super) fn config(&self, file: &ConfigFile) -> Result<MemoryConfig, CliError> {
        let defaults = MemoryConfig::default();
        let config = MemoryConfig {
            limit: self.memory_limit.or(file.memory_limit_bytes()?).unwrap_or(defaults.limit),
            target: self.memory_target.or(file.memory_target).unwrap_or(defaults.target),
            spill: self.memory_spill.or(file.memory_spill).unwrap_or(defaults.spill),
            pause: self.memory_pause.or(file.memory_pause).unwrap_or(defaults.pause),
            refuse: self.memory_refuse.or(file.memory_refuse).unwrap_or(defaults.refuse),
            spill_directory: self.spill_directory.clone().or_else(|| file.spill_directory.clone()),
            spill_limit: self.spill_limit.or(file.spill_limit_bytes()?),
            // A node of this command has its process to itself.
            counts_process: true,
        };
        config.check()?;
        Ok(config)
    }
}
