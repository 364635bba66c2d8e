//! The graphs, built with the public client as a user builds them, each with an answer that can be checked.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::ensure;
use starling::{Cluster, Future};

use crate::measure::Plan;

/// Gives what it takes.
#[starling::task]
fn noop(x: u64) -> u64 {
    x
}

/// The sum.
#[starling::task]
fn total(parts: &[u64]) -> u64 {
    parts.iter().sum()
}

/// The sum of two.
#[starling::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// One more.
#[starling::task]
fn increment(x: u64) -> u64 {
    x + 1
}

/// Keeps a core busy for so many microseconds, then gives what it takes.
#[starling::task]
fn spin(micros: u64, x: u64) -> u64 {
    let started = Instant::now();
    while started.elapsed() < Duration::from_micros(micros) {
        black_box(x);
    }
    x
}

/// The shape of a graph of size `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `n` no-ops, and one task that takes them all.
    Merge,
    /// A binary reduction of `n` leaves.
    Tree,
    /// `n` tasks, each of which takes the one before.
    Chain,
    /// `n` producers, and `n` consumers that each take all of them.
    Shuffle,
    /// As `Merge`, of tasks that keep a core busy for a millisecond.
    Spin,
}

impl Shape {
    /// The drivers' name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::Merge => "merge",
            Shape::Tree => "tree",
            Shape::Chain => "chain",
            Shape::Shuffle => "shuffle",
            Shape::Spin => "spin",
        }
    }

    pub(super) fn unit(self) -> &'static str {
        "us/task"
    }

    /// The size for `--quick`.
    pub(super) fn quick(self, n: u32) -> u32 {
        match self {
            Shape::Tree => (n / 8).max(2),
            Shape::Shuffle => n / 2,
            Shape::Merge | Shape::Chain | Shape::Spin => n / 10,
        }
    }

    /// What a run's seconds are multiplied by.
    pub(super) fn factor(self, n: u32) -> f64 {
        let n = f64::from(n);
        let counted = match self {
            Shape::Merge | Shape::Spin => n + 1.0,
            Shape::Tree => 2.0 * n - 1.0,
            Shape::Chain => n,
            Shape::Shuffle => n * n,
        };
        1e6 / counted
    }

    /// What people should know of a run of size `n` where the contract names the size `full`.
    pub(super) fn note(self, n: u32, full: u32) -> String {
        let size = if n == full { String::new() } else { format!("at size {n} instead of {full}; ") };
        let counted = match self {
            Shape::Merge | Shape::Spin => "wall time / tasks".to_owned(),
            Shape::Tree => "wall time / all tasks of the tree".to_owned(),
            Shape::Chain => "wall time / links".to_owned(),
            Shape::Shuffle => {
                format!(
                    "us an edge: wall time / {} dependencies between {n} producers and {n} consumers",
                    u64::from(n) * u64::from(n)
                )
            }
        };
        size + &counted
    }

    /// The seconds that the tasks' own work takes on all threads together, for those that have any.
    pub(super) fn ideal_s(self, n: u32, plan: &Plan) -> Option<f64> {
        (self == Shape::Spin).then(|| f64::from(n) * 1e-3 / f64::from(plan.parallelism()))
    }

    /// Runs the graph and checks its answer.
    pub(super) async fn run(self, cluster: &Cluster, n: u32) -> anyhow::Result<()> {
        let numbers = 0..u64::from(n);
        let sum: u64 = numbers.clone().sum();
        match self {
            Shape::Merge => {
                let parts = cluster.map(numbers.map(noop::task));
                right(cluster.submit(total::task(parts)).result().await?, sum)
            }
            Shape::Tree => {
                let mut level = cluster.map(numbers.map(noop::task));
                while level.len() > 1 {
                    level = next_level(cluster, level);
                }
                match level.pop() {
                    Some(root) => right(root.result().await?, sum),
                    None => Ok(()),
                }
            }
            Shape::Chain => {
                let mut link = cluster.submit(noop::task(0));
                for _ in 0..n {
                    link = cluster.submit(increment::task(link));
                }
                right(link.result().await?, n.into())
            }
            Shape::Shuffle => {
                let producers = cluster.map(numbers.clone().map(noop::task));
                let consumers = cluster.map(numbers.map(|_| total::task(producers.clone())));
                for answer in cluster.gather(&consumers).await? {
                    right(answer, sum)?;
                }
                Ok(())
            }
            Shape::Spin => {
                let parts = cluster.map(numbers.map(|x| spin::task(1_000, x)));
                right(cluster.submit(total::task(parts)).result().await?, sum)
            }
        }
    }
}

/// Pairs added; one that is left over goes up as it is.
fn next_level(cluster: &Cluster, level: Vec<Future<u64>>) -> Vec<Future<u64>> {
    let mut above = Vec::with_capacity(level.len().div_ceil(2));
    let mut level = level.into_iter();
    while let Some(left) = level.next() {
        above.push(match level.next() {
            Some(right) => cluster.submit(add::task(left, right)),
            None => left,
        });
    }
    above
}

fn right(found: u64, expected: u64) -> anyhow::Result<()> {
    ensure!(found == expected, "the answer is {found}, not {expected}");
    Ok(())
}

/// So many single tasks, each submitted when the one before is done; the microseconds of each.
pub(super) async fn round_trips(cluster: &Cluster, trips: u32) -> anyhow::Result<Vec<f64>> {
    let mut micros = Vec::with_capacity(trips as usize);
    for trip in 0..u64::from(trips) {
        let started = Instant::now();
        let answer = cluster.submit(noop::task(trip)).result().await?;
        micros.push(started.elapsed().as_secs_f64() * 1e6);
        right(answer, trip)?;
    }
    Ok(micros)
}

/// Tasks that are kept: `count` of them, submitted and finished.
pub(super) async fn hold(cluster: &Cluster, count: u64) -> anyhow::Result<Vec<Future<u64>>> {
    let held = cluster.map((0..count).map(noop::task));
    for future in &held {
        future.wait().await?;
    }
    if let Some(last) = held.last() {
        right(last.result().await?, count - 1)?;
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_is_counted_as_its_note_says() {
        assert_eq!(Shape::Merge.factor(9), 1e5);
        assert_eq!(Shape::Tree.factor(4), 1e6 / 7.0);
        assert_eq!(Shape::Chain.factor(10), 1e5);
        assert_eq!(Shape::Shuffle.factor(200), 25.0);
        assert!(Shape::Shuffle.note(200, 200).contains("40000 dependencies"));
        assert!(Shape::Merge.note(100, 1_000).starts_with("at size 100 instead of 1000"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_shape_gives_its_answer_on_a_cluster_in_this_process() {
        let cluster = Cluster::local(2).await.unwrap();
        for shape in [Shape::Merge, Shape::Tree, Shape::Chain, Shape::Shuffle, Shape::Spin] {
            // An odd size, so that something is left over in the tree.
            let run = tokio::time::timeout(Duration::from_secs(60), shape.run(&cluster, 37));
            run.await.unwrap_or_else(|_| panic!("{shape:?} did not end")).unwrap();
        }
        assert_eq!(round_trips(&cluster, 3).await.unwrap().len(), 3);
        assert_eq!(hold(&cluster, 10).await.unwrap().len(), 10);
    }
}
