//! The main job: what a file of Stack Overflow posts says, computed by a cluster.
//!
//! ```text
//! cargo run --release --example stackoverflow
//! cargo run --release --example stackoverflow -- --input 'dump/posts-*.csv' --output json
//! cargo run --release --example stackoverflow -- --join 10.12.0.10:8786 --input /shared/posts.csv
//! ```
//!
//! Without `--join` it starts a cluster of its own in this process: a scheduler node and worker nodes on a real mesh over
//! loopback. Without `--input` it makes a file first, and says where. The queries are in `starling::stackexchange`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use starling::stackexchange::{GenerateOptions, Report, ReportOptions, cached_posts, report};
use starling::{Cluster, ConnectOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reports on Stack Overflow posts: by type, tags, months, answerers, and the time to the accepted answer.
#[derive(Parser)]
#[command(name = "stackoverflow")]
struct Args {
    /// The posts as CSV: a path, or a quoted pattern such as 'posts-*.csv'. By default a seeded file like Stack
    /// Overflow's is made
    #[arg(long, value_name = "PATH")]
    input: Option<String>,
    /// How the report is printed
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Use the running cluster that this address belongs to, such as 10.12.0.10:8786
    #[arg(long, value_name = "ADDR")]
    join: Option<String>,
    /// The cluster's secret, if not in STARLING_SECRET or in the default place
    #[arg(long, value_name = "FILE", requires = "join", conflicts_with = "insecure")]
    secret_file: Option<PathBuf>,
    /// The cluster to join has no secret
    #[arg(long, requires = "join")]
    insecure: bool,
    /// Worker nodes of the embedded cluster
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64), conflicts_with = "join")]
    workers: u16,
    /// Size of the blocks that are read in parallel: bytes, or with K, M or G for 1024, 1024^2, 1024^3 of them
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_block_size)]
    block_size: u64,
    /// Size of the file that is made, with K, M or G for 10^3, 10^6, 10^9 bytes
    #[arg(long, value_name = "SIZE", default_value = "200M", value_parser = parse_file_size, conflicts_with = "input")]
    size: u64,
    /// Seed of the file that is made
    #[arg(long, default_value = "1", conflicts_with = "input")]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// Tables for people
    Table,
    /// One JSON object
    Json,
}

fn parse_size(text: &str, thousand: u64) -> Option<u64> {
    let text = text.trim_end_matches("iB").trim_end_matches('B');
    let (digits, power) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 1),
        b'M' => (&text[..text.len() - 1], 2),
        b'G' => (&text[..text.len() - 1], 3),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(thousand.pow(power))
}

fn parse_block_size(text: &str) -> Result<u64, String> {
    match parse_size(text, 1024) {
        Some(size) if size >= 1024 => Ok(size),
        _ => Err("a size of at least 1K is needed, such as 64K, 16M or 1G".into()),
    }
}

fn parse_file_size(text: &str) -> Result<u64, String> {
    parse_size(text, 1000).ok_or_else(|| "a size is needed, such as 200M or 1G".into())
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: Args) -> Result<()> {
    let input = match args.input {
        Some(input) => input,
        None => make_input(args.size, args.seed)?,
    };
    let (cluster, started) = match &args.join {
        Some(addr) => {
            let options =
                ConnectOptions { secret_file: args.secret_file, insecure: args.insecure, ..ConnectOptions::default() };
            (Cluster::connect_with(addr, options).await?, false)
        }
        None => (Cluster::local(args.workers.into()).await?, true),
    };
    let whose = if started { "embedded" } else { "joined" };
    eprintln!("{whose} cluster: {} workers, {} threads in all", cluster.workers(), cluster.nthreads());

    let bar = progress_bar();
    let shown = bar.clone();
    let options = ReportOptions {
        block_bytes: args.block_size,
        progress: Some(Arc::new(move |query, done, total| {
            shown.set_message(query);
            shown.set_length(total as u64);
            shown.set_position(done as u64);
        })),
        ..ReportOptions::new(input)
    };
    let outcome = report(&cluster, &options).await;
    bar.finish_and_clear();
    cluster.shutdown().await;
    // The cause alone: which task it came up in says nothing to whoever named the file.
    let report = outcome.map_err(|error| anyhow!("{}", error.reason()))?;

    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Table => tables(&report)?,
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("the report cannot be written"),
        _ => Ok(()),
    }
}

/// The default input: made once, kept in the user's cache.
fn make_input(size: u64, seed: u64) -> Result<String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let folder = cache.filter(|path| path.is_absolute()).unwrap_or_else(std::env::temp_dir).join("starling");
    let started = Instant::now();
    let (path, made) = cached_posts(&folder, &GenerateOptions { size, seed, clean: false }).with_context(|| {
        format!("no posts can be made in {}; free some space, or name a file with --input", folder.display())
    })?;
    let path = path.display().to_string();
    if made {
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("no --input: made Stack Overflow-like posts, seed {seed}, in {path} ({seconds:.1} s)");
    } else {
        eprintln!("no --input: using the Stack Overflow-like posts, seed {seed}, made before in {path}");
    }
    Ok(path)
}

fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg:>24} {wide_bar} {pos}/{len} tasks") {
        bar.set_style(style);
    }
    bar
}

fn tables(report: &Report) -> Result<String, std::fmt::Error> {
    let facts = &report.facts;
    let mut text = String::new();

    heading(&mut text, report, "posts by type")?;
    writeln!(text, "  {:<12} {:>12} {:>14} {:>12}", "type", "posts", "score sum", "mean score")?;
    for (kind, count) in &facts.by_post_type {
        let sum = facts.score_sum_by_post_type.get(kind).copied().unwrap_or(0);
        let mean = facts.mean_score_by_post_type.get(kind).copied().unwrap_or(0.0);
        writeln!(text, "  {:<12} {count:>12} {sum:>14} {mean:>12.3}", kind_name(*kind))?;
    }
    writeln!(text, "  {:<12} {:>12}", "all", facts.records)?;

    heading(&mut text, report, "top tags")?;
    for (place, (tag, count)) in (1..).zip(&facts.top_tags) {
        writeln!(text, "  {place:>2}. {tag:<28} {count:>9} questions")?;
    }

    heading(&mut text, report, "questions a month")?;
    let most = facts.questions_per_month.values().copied().max().unwrap_or(1).max(1);
    for (month, count) in &facts.questions_per_month {
        let bar = "#".repeat((count * 40).div_ceil(most) as usize);
        writeln!(text, "  {month} {count:>9} {bar}")?;
    }

    heading(&mut text, report, "top answerers")?;
    for (place, (owner, count)) in (1..).zip(&facts.top_answerers) {
        writeln!(text, "  {place:>2}. user {owner:<23} {count:>9} answers")?;
    }

    heading(&mut text, report, "time to accepted answer")?;
    match facts.mean_hours_to_accepted_answer {
        Some(hours) => {
            let count = facts.questions_with_accepted_answer;
            writeln!(text, "  {hours:.2} hours on average over {count} questions")?;
        }
        None => writeln!(text, "  no question has an accepted answer")?,
    }

    heading(&mut text, report, "bodies and parents")?;
    writeln!(
        text,
        "  {} bytes of bodies, {} answers with a question",
        facts.body_utf8_bytes, facts.answers_with_parent
    )?;

    writeln!(text, "\n{:<28} {:>8} {:>12}", "query", "seconds", "GB/s")?;
    for timing in &report.timings {
        writeln!(text, "  {:<26} {:>8.3} {:>12.2}", timing.query, timing.seconds, timing.bytes_per_second / 1e9)?;
    }
    let seconds: f64 = report.timings.iter().map(|timing| timing.seconds).sum();
    writeln!(text, "  {:<26} {seconds:>8.3}   {:.1} MB of input", "all", report.input_bytes as f64 / 1e6)?;
    Ok(text)
}

fn heading(text: &mut String, report: &Report, query: &str) -> std::fmt::Result {
    let timing = report.timings.iter().find(|timing| timing.query == query);
    let (seconds, rate) = timing.map_or((0.0, 0.0), |timing| (timing.seconds, timing.bytes_per_second / 1e9));
    writeln!(text, "\n{query}  ({seconds:.3} s, {rate:.2} GB/s)")
}

fn kind_name(kind: u32) -> String {
    let name = match kind {
        1 => "question",
        2 => "answer",
        3 => "old wiki",
        4 => "tag excerpt",
        5 => "tag wiki",
        6 => "nomination",
        7 => "wiki notice",
        8 => "privilege",
        _ => return kind.to_string(),
    };
    format!("{kind} {name}")
}
