//! Futures: tasks whose results are arguments of further tasks.
//!
//! ```text
//! cargo run --release --example futures
//! ```
//!
//! `futures node --role scheduler` and `futures node --join ADDRESS` run this same program as the nodes of a cluster that
//! holds its tasks, and `futures --join ADDRESS` as a client of it.

#![allow(clippy::print_stdout, reason = "what the example shows is its output")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use starling::Cluster;

/// How often each word occurs.
#[starling::task]
fn count(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

/// The counts added up. The parts are shared with the worker's store, not copied.
#[starling::task]
fn merge(parts: Vec<Arc<BTreeMap<String, u64>>>) -> BTreeMap<String, u64> {
    let mut merged = BTreeMap::new();
    for (word, count) in parts.iter().flat_map(|part| part.iter()) {
        *merged.entry(word.clone()).or_default() += count;
    }
    merged
}

fn main() -> Result<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(word) if word == "node" => Ok(starling::cli::run(std::iter::once(word).chain(args))),
        Some(word) if word == "--join" => {
            let addr = args.next().unwrap_or_default().into_string().unwrap_or_default();
            run(Some(addr)).map(|()| ExitCode::SUCCESS)
        }
        Some(word) => {
            anyhow::bail!("{} is not understood: give nothing, `node ..` or `--join ADDRESS`", word.display())
        }
        None => run(None).map(|()| ExitCode::SUCCESS),
    }
}

#[tokio::main]
async fn run(join: Option<String>) -> Result<()> {
    let cluster = match join {
        Some(addr) => Cluster::connect(&addr).await?,
        None => Cluster::local(2).await?,
    };
    let texts = ["the quick brown fox", "jumps over the lazy dog", "the end"].map(str::to_owned);
    let parts = cluster.map(texts.into_iter().map(count::task));
    let total = cluster.submit(merge::task(parts)).result().await?;
    for (word, count) in &total {
        println!("{count:>3} {word}");
    }
    cluster.shutdown().await;
    Ok(())
}
