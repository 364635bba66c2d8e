//! `bench`: whole-system measurements of Starling and of its peers, by the contract of `BENCH.md`.
//!
//! Each finished measurement is one JSON object on standard output; everything else goes to standard error. The cluster
//! is real: a scheduler and workers, each a process of its own on loopback. This file only reads the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod actors;
mod bag;
#[cfg(feature = "queries")]
mod csv;
mod failover;
#[cfg(feature = "queries")]
mod h2o;
mod measure;
mod peers;
mod processes;
#[cfg(feature = "queries")]
mod queries;
mod raw_tcp;
mod report;
#[cfg(feature = "queries")]
mod slt;
mod taskbench;
mod tasks;
#[cfg(feature = "queries")]
mod tpch;
mod transfer;
mod usage;
mod wfformat;

use measure::Plan;
use peers::Peer;
use report::Report;

/// As in the `node` binary: a cold buffer costs more than most kernels.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Starling, and its peers beside it.
#[derive(Debug, Parser)]
#[command(name = "bench", version, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Task graphs of no-ops, a single task's round trip, the scheduler alone.
    Tasks(Common),
    /// The dependence patterns of Task Bench: how small tasks may be before half of the time is lost, METG(50%).
    Taskbench {
        /// How many columns the graphs have: tasks that may run at once.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
        width: Option<u32>,

        /// How many rows the graphs have, each of which takes outputs of the one before.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        steps: Option<u32>,

        #[command(flatten)]
        common: Common,
    },
    /// A workflow instance of WfCommons, replayed as a graph of tasks with its run times and output sizes, scaled.
    Wfformat {
        /// The instance, in WfFormat: JSON of the schemas 1.0 to 1.6.
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// What run times are multiplied by; by default so that all tasks together take 4 s, with --quick 1 s.
        #[arg(long, value_name = "X", value_parser = scale, allow_negative_numbers = true)]
        scale: Option<f64>,

        /// What output sizes are multiplied by; by default 1, or so that all outputs together have 64 MB.
        #[arg(long, value_name = "X", value_parser = scale, allow_negative_numbers = true)]
        bytes_scale: Option<f64>,

        #[command(flatten)]
        common: Common,
    },
    /// A job whose scheduler, worker, or both are killed in the middle, or whose scheduler is stopped for a while.
    Failover(Common),
    /// A large value from one worker to another.
    Transfer(Common),
    /// Asks and tells between actors of two processes, and of two threads.
    Actors(Common),
    /// Bags over a gigabyte of text: word count, and accounts in JSON lines, beside a program written by hand.
    Bag(Common),
    /// Queries over a large CSV file of posts.
    #[cfg(feature = "queries")]
    Csv(Common),
    /// The 22 queries of TPC-H, every answer compared with plain DataFusion's.
    #[cfg(feature = "queries")]
    Tpch {
        /// The scale factor: 1 is about a gigabyte of text; by default 1, with --quick or --check 0.1.
        #[arg(long, value_name = "X", value_parser = scale_factor, allow_negative_numbers = true)]
        sf: Option<f64>,

        #[command(flatten)]
        check: Check,

        #[command(flatten)]
        common: Common,
    },
    /// The ten group-by and five join questions of h2o.ai, every answer compared with plain DataFusion's.
    #[cfg(feature = "queries")]
    H2o {
        /// How many rows the large tables have; by default 10,000,000, with --quick a tenth, with --check a hundredth.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
        rows: Option<u64>,

        #[command(flatten)]
        check: Check,

        #[command(flatten)]
        common: Common,
    },
    /// Files of sqllogictest on an embedded cluster: the records that plain DataFusion passes are to pass there too.
    #[cfg(feature = "queries")]
    Slt {
        /// The files, or folders of them; paths in them are relative to the working directory.
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,

        /// What runs them; with datafusion, one sees what this runner supports.
        #[arg(long, value_name = "NAME", value_enum, default_value_t = slt::System::Starling)]
        system: slt::System,

        /// How many workers the embedded cluster has.
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
        workers: u32,

        /// Print a table for people on standard error at the end.
        #[arg(long)]
        table: bool,
    },
    /// DataFusion alone, as a peer; started by this program itself.
    #[cfg(feature = "queries")]
    #[command(hide = true)]
    DatafusionAlone {
        /// How many threads it has.
        threads: usize,
    },
    /// The other process of `actors`; started by this program itself.
    #[command(hide = true)]
    ActorHost {
        /// The core that it is kept on.
        #[arg(long, value_name = "N")]
        core: Option<usize>,
    },
    /// The other end of the raw TCP measurements; started by this program itself.
    #[command(hide = true)]
    RawTcp,
}

/// The options of every measurement.
#[derive(Debug, Args)]
struct Common {
    /// Measure these systems as well, in the same run: dask, ray, hyperqueue, polars, duckdb, datafusion, ballista, kameo,
    /// ractor.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    peer: Vec<Peer>,

    /// How often each case is measured; long cases stop earlier, and say so.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// Less work: all of a subcommand ends within 60 seconds.
    #[arg(long)]
    quick: bool,

    /// Print a table for people on standard error at the end.
    #[arg(long)]
    table: bool,

    /// How many worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: u32,

    /// How many threads each worker has.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,

    /// Only the cases whose name contains one of these.
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
}

/// The options of those that can be checked instead.
#[cfg(feature = "queries")]
#[derive(Debug, Args)]
struct Check {
    /// Measure nothing, but ask clusters of 1, 2, 3 and 5 workers each query, undisturbed and with a worker killed.
    #[arg(long, conflicts_with_all = ["peer", "quick"])]
    check: bool,

    /// The sizes of the clusters that are checked.
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "check", default_values_t = [1, 2, 3, 5],
        value_parser = clap::value_parser!(u32).range(1..=256))]
    sizes: Vec<u32>,
}

#[cfg(feature = "queries")]
impl Check {
    /// The sizes, if it is wanted.
    fn sizes(&self) -> Option<&[u32]> {
        self.check.then_some(self.sizes.as_slice())
    }
}

impl Common {
    /// Prepares what is no part of the subcommand's measurement; the time of the plan begins after that.
    fn plan(&self, bench: &str) -> Plan {
        peers::install(bench, &self.peer);
        Plan {
            runs: self.runs,
            quick: self.quick,
            workers: self.workers,
            threads: self.threads,
            only: self.only.clone(),
            started: std::time::Instant::now(),
        }
    }
}

/// A factor: finite, and not negative.
fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse::<f64>().map_err(|error| error.to_string())?;
    if scale.is_finite() && scale >= 0.0 { Ok(scale) } else { Err("it must be finite and not negative".to_owned()) }
}

/// A scale factor: no smaller than what gives every table its rows.
#[cfg(feature = "queries")]
fn scale_factor(text: &str) -> Result<f64, String> {
    let factor = scale(text)?;
    if (0.001..=1000.0).contains(&factor) { Ok(factor) } else { Err("it must be from 0.001 to 1000".to_owned()) }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next();
    // The processes of a cluster are this program again, so that they hold the benchmark's tasks.
    if args.next().is_some_and(|first| first == "node") {
        processes::end_with_starter();
        return starling::cli::run(program.into_iter().chain(args));
    }
    let options = Options::parse();
    match run(options.what) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::tell(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether every line of Starling's was right. A peer that fails is a finding, not a failure.
fn run(what: What) -> anyhow::Result<bool> {
    let mut report = Report::new();
    let report_to = &mut report;
    let (common, outcome) = match &what {
        What::RawTcp => return raw_tcp::serve().map(|()| true),
        What::ActorHost { core } => return actors::host(*core).map(|()| true),
        What::Actors(common) => (common, actors::run(&common.plan("actors"), &common.peer, report_to)),
        What::Tasks(common) => (common, tasks::run(&common.plan("tasks"), &common.peer, report_to)),
        What::Taskbench { width, steps, common } => {
            let size = taskbench::Size { width: *width, steps: *steps };
            (common, taskbench::run(&common.plan("taskbench"), size, &common.peer, report_to))
        }
        What::Wfformat { file, scale, bytes_scale, common } => {
            let (file, scale, bytes_scale) = (file.clone(), *scale, *bytes_scale);
            let instance = wfformat::Instance { file, scale, bytes_scale };
            (common, wfformat::run(&common.plan("wfformat"), &instance, &common.peer, report_to))
        }
        What::Bag(common) => (common, bag::run(&common.plan("bag"), &common.peer, report_to)),
        What::Failover(common) => (common, failover::run(&common.plan("failover"), report_to)),
        What::Transfer(common) => (common, transfer::run(&common.plan("transfer"), &common.peer, report_to)),
        #[cfg(feature = "queries")]
        What::Slt { paths, system, workers, table } => {
            let outcome = slt::run(paths, *system, *workers, report_to);
            if *table {
                report.table();
            }
            return outcome.map(|()| report.starling_is_right());
        }
        #[cfg(feature = "queries")]
        What::DatafusionAlone { threads } => return queries::alone::serve(*threads).map(|()| true),
        #[cfg(feature = "queries")]
        What::Tpch { sf, check, common } => {
            (common, tpch::run(&common.plan("tpch"), *sf, check.sizes(), &common.peer, report_to))
        }
        #[cfg(feature = "queries")]
        What::H2o { rows, check, common } => {
            (common, h2o::run(&common.plan("h2o"), *rows, check.sizes(), &common.peer, report_to))
        }
        #[cfg(feature = "queries")]
        What::Csv(common) => (common, csv::run(&common.plan("csv"), &common.peer, report_to)),
    };
    report.ratios();
    if common.table {
        report.table();
    }
    outcome?;
    Ok(report.starling_is_right())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    #[cfg(feature = "queries")]
    fn a_check_is_of_four_sizes_unless_others_are_given() {
        let sizes = |args: &[&str]| match Options::try_parse_from(args).unwrap().what {
            What::Tpch { check, .. } => check.sizes().map(<[u32]>::to_vec),
            _ => None,
        };
        assert_eq!(sizes(&["bench", "tpch"]), None);
        assert_eq!(sizes(&["bench", "tpch", "--check"]), Some(vec![1, 2, 3, 5]));
        assert_eq!(sizes(&["bench", "tpch", "--check", "--sizes", "4,1"]), Some(vec![4, 1]));
        assert!(Options::try_parse_from(["bench", "tpch", "--sizes", "4"]).is_err());
        assert!(Options::try_parse_from(["bench", "tpch", "--check", "--quick"]).is_err());
    }

    #[test]
    #[cfg(feature = "queries")]
    fn a_scale_factor_has_bounds() {
        assert_eq!(scale_factor("0.01"), Ok(0.01));
        assert!(scale_factor("0").is_err() && scale_factor("1e6").is_err());
    }

    #[test]
    fn a_scale_is_finite_and_not_negative() {
        assert_eq!(scale("0.001"), Ok(0.001));
        assert_eq!(scale("0"), Ok(0.0));
        for text in ["-1", "inf", "NaN", "1,5", ""] {
            assert!(scale(text).is_err(), "{text}");
        }
        let error = Options::try_parse_from(["bench", "wfformat", "w.json", "--scale", "-1"]).unwrap_err();
        assert!(error.to_string().contains("it must be finite and not negative"), "{error}");
    }
}
