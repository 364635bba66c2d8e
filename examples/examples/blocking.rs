//! A plain program without async: the client that waits.
//!
//! ```text
//! cargo run --release --example blocking
//! ```

#![allow(clippy::print_stdout, reason = "what the example shows is its output")]

use anyhow::Result;
use starling::blocking::Cluster;

/// How many primes there are below `below`, from `from` on.
#[starling::task]
fn primes(from: u64, below: u64) -> u64 {
    (from.max(2)..below).filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d))).count() as u64
}

#[starling::task]
fn total(counts: &[u64]) -> u64 {
    counts.iter().sum()
}

fn main() -> Result<()> {
    let cluster = Cluster::local(2)?;
    let counts = cluster.map((0..8).map(|part| primes::task(part * 25_000, (part + 1) * 25_000)));
    for (part, count) in cluster.as_completed(counts.clone()) {
        println!("{:>6} primes in part {part}", count?);
    }
    // Futures are arguments of further tasks, and so are delayed calls.
    let sum = total::task(counts).delayed();
    println!("{:>6} primes below 200000", cluster.compute(&sum)?);
    Ok(())
}
