//! The main job against a running cluster, as a client on some host of its mesh: `test-report ADDRESS WORKERS FOLDER`.
//!
//! Waits for the workers, makes posts in the folder, and fails unless the report agrees with what was made and every
//! worker has run tasks.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use starling::Cluster;
use starling::stackexchange::{GenerateOptions, ReportOptions, cached_posts, generate, report};
use starling_integration_tests::tasks;

#[tokio::main]
async fn main() -> Result<()> {
    starling_integration_tests::link();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, workers, folder] = args.as_slice() else { anyhow::bail!("usage: test-report ADDRESS WORKERS FOLDER") };
    let workers: usize = workers.parse().context("WORKERS is a number")?;
    let cluster = Cluster::connect(addr).await?;
    cluster.wait_for_workers(workers).await?;

    let options = GenerateOptions { size: 3_000_000, ..GenerateOptions::default() };
    let truths = generate(&options, &mut std::io::sink())?;
    let (posts, _) = cached_posts(Path::new(folder), &options)?;
    let input = posts.to_str().context("the folder's name is text")?;
    let options = ReportOptions { block_bytes: 64 * 1024, ..ReportOptions::new(input) };
    let found = report(&cluster, &options).await?;
    ensure!(found.facts == truths, "found {:?} where {truths:?} is true", found.facts);

    // Large values made on every worker and added up in pairs, so that each must fetch from the others.
    let parts = cluster.map((1..=12_u8).map(|value| tasks::bytes::task(300_000_u64, value)));
    let sums = cluster.map((0..12).map(|at| tasks::sum_bytes::task(&parts[at], &parts[(at + 5) % 12])));
    let sums = cluster.gather(&sums).await?;
    let expected = (0..12_u64).map(|at| 300_000 * (at + 1 + (at + 5) % 12 + 1));
    ensure!(expected.eq(sums.iter().copied()), "sums {sums:?}");
    let holders = cluster.who_has(&parts).await?;
    let nodes: BTreeSet<_> = holders.iter().flat_map(|(_, nodes, _)| nodes).collect();
    ensure!(nodes.len() == workers, "only {} of {workers} workers hold parts", nodes.len());
    Ok(())
}
