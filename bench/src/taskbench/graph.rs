//! A pattern's graph on a cluster, and the answer that it must give.

use std::time::Duration;

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use starling::{Cluster, Future};

use super::kernel::Kernel;
use super::pattern::{Grid, mixed};

/// What each task of a graph does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) kernel: Kernel,
    pub(super) units: u64,
}

/// A task of the grid. Its output follows from its own place, the pattern in `seed`, and the outputs that it takes.
#[starling::task]
fn cell(work: Work, seed: u64, turn: u64, inputs: &[u64]) -> u64 {
    work.kernel.run(work.units, turn);
    output(seed, inputs)
}

/// How many units of the kernel a thread of a worker does in a microsecond.
#[starling::task]
fn rate(kernel: Kernel, millis: u64) -> f64 {
    kernel.rate(Duration::from_millis(millis))
}

/// A task's output. The order of its inputs counts.
fn output(seed: u64, inputs: &[u64]) -> u64 {
    inputs.iter().fold(seed, |folded, input| mixed(folded ^ input.rotate_left(1)))
}

struct Cell {
    /// Columns of the row before.
    inputs: Vec<u32>,
    seed: u64,
    /// No task takes its output: the client looks at it.
    is_last: bool,
}

/// All that is known of a graph before it runs, so that working it out is no part of a run's time.
pub(super) struct Prepared {
    rows: Vec<Vec<Cell>>,
    tasks: u64,
    /// The outputs that no task takes, row by row. Every output goes into one of them.
    expected: Vec<u64>,
}

impl Prepared {
    /// Works out the tasks of the grid, and one after another their outputs.
    pub(super) fn new(grid: Grid) -> Prepared {
        let mut rows = Vec::new();
        let mut expected = Vec::new();
        let mut before: Vec<u64> = Vec::new();
        for step in 0..grid.steps {
            let cells = (0..grid.width_at(step)).map(|column| Cell {
                inputs: grid.inputs(step, column),
                seed: mixed(u64::from(step) << 32 | u64::from(column) << 8 | grid.pattern as u64),
                is_last: !grid.is_used(step, column),
            });
            let row: Vec<Cell> = cells.collect();
            let taken = |cell: &Cell| cell.inputs.iter().map(|column| before[*column as usize]).collect::<Vec<_>>();
            let outputs: Vec<u64> = row.iter().map(|cell| output(cell.seed, &taken(cell))).collect();
            expected.extend(row.iter().zip(&outputs).filter(|(cell, _)| cell.is_last).map(|(_, output)| output));
            before = outputs;
            rows.push(row);
        }
        let tasks = rows.iter().map(|row| row.len() as u64).sum();
        Prepared { rows, tasks, expected }
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> u64 {
        self.tasks
    }

    /// Runs the graph and checks its answer.
    pub(super) async fn run(&self, cluster: &Cluster, work: Work) -> anyhow::Result<()> {
        let mut last = Vec::with_capacity(self.expected.len());
        let mut before: Vec<Future<u64>> = Vec::new();
        let mut turn = 0;
        for row in &self.rows {
            let mut submitted = Vec::with_capacity(row.len());
            for cell in row {
                let inputs: Vec<_> = cell.inputs.iter().map(|column| before[*column as usize].clone()).collect();
                let future = cluster.submit(self::cell::task(work, cell.seed, turn, inputs));
                turn += 1;
                if cell.is_last {
                    last.push(future.clone());
                }
                submitted.push(future);
            }
            before = submitted;
        }
        drop(before);
        self.check(&cluster.gather(&last).await?)
    }

    /// The tasks as a peer's driver is told of them.
    pub(super) fn to_json(&self) -> Value {
        let cell = |cell: &Cell| json!([cell.seed, cell.inputs, cell.is_last]);
        self.rows.iter().map(|row| row.iter().map(cell).collect::<Value>()).collect()
    }

    /// Whether a peer's driver has found the right outputs.
    pub(super) fn is_answer(&self, outputs: &Value) -> bool {
        let outputs = outputs.as_array().map(|outputs| outputs.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
        outputs.flatten().is_some_and(|outputs| self.check(&outputs).is_ok())
    }

    fn check(&self, outputs: &[u64]) -> anyhow::Result<()> {
        let wrong = outputs.iter().zip(&self.expected).filter(|(found, expected)| found != expected).count();
        let (found, expected) = (outputs.len(), self.expected.len());
        ensure!(found == expected && wrong == 0, "{wrong} of {found} outputs are wrong, of {expected} that there are");
        Ok(())
    }
}

/// Units in a microsecond on each of the threads, while all of them work: the mean of what they measure.
pub(super) async fn rate_of_threads(
    cluster: &Cluster,
    kernel: Kernel,
    threads: u32,
    millis: u64,
) -> anyhow::Result<f64> {
    let measuring = cluster.map((0..threads).map(|_| rate::task(kernel, millis)));
    let rates = cluster.gather(&measuring).await?;
    ensure!(rates.iter().all(|rate| rate.is_finite() && *rate > 0.0), "the workers' threads measured {rates:?}");
    Ok(rates.iter().sum::<f64>() / f64::from(threads))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::taskbench::pattern::Pattern;

    fn prepared(pattern: Pattern, width: u32, steps: u32) -> Prepared {
        Prepared::new(Grid { pattern, width, steps })
    }

    #[test]
    fn an_answer_follows_from_every_task_of_the_graph() {
        // In a trivial graph every output is looked at, in a chain only the last.
        assert_eq!(prepared(Pattern::Trivial, 4, 3).expected.len(), 12);
        let chains = prepared(Pattern::NoComm, 4, 3);
        assert_eq!(chains.expected.len(), 4);
        let by_hand = |column: usize| {
            let seed = |step: usize| chains.rows[step][column].seed;
            output(seed(2), &[output(seed(1), &[output(seed(0), &[])])])
        };
        assert_eq!(chains.expected, (0..4).map(by_hand).collect::<Vec<_>>());
        // The tree is full in its fourth row; from there on the upper half is not taken.
        let tree = prepared(Pattern::Tree, 8, 5);
        assert_eq!(tree.tasks(), 1 + 2 + 4 + 8 + 8);
        assert_eq!(tree.expected.len(), 4 + 8);
    }

    #[test]
    fn outputs_depend_on_pattern_step_column_inputs_and_their_order() {
        let stencil = prepared(Pattern::Stencil, 4, 2);
        let nearest = prepared(Pattern::Nearest, 4, 2);
        assert_ne!(stencil.rows[0][0].seed, nearest.rows[0][0].seed);
        assert_ne!(stencil.rows[0][0].seed, stencil.rows[0][1].seed);
        assert_ne!(stencil.rows[0][0].seed, stencil.rows[1][0].seed);
        assert_ne!(output(1, &[2, 3]), output(1, &[3, 2]));
        assert_ne!(output(1, &[2]), output(1, &[2, 0]));
    }

    #[test]
    fn a_wrong_or_a_missing_output_is_no_answer() {
        let graph = prepared(Pattern::Fft, 4, 3);
        assert!(graph.check(&graph.expected).is_ok());
        let mut outputs = graph.expected.clone();
        outputs[2] ^= 1;
        assert!(graph.check(&outputs).unwrap_err().to_string().starts_with("1 of 4 outputs are wrong"));
        assert!(graph.check(&graph.expected[1..]).is_err());
        assert!(graph.is_answer(&json!(graph.expected)));
        assert!(!graph.is_answer(&json!(outputs)));
        assert!(!graph.is_answer(&json!([1.5, -1, null, "x"])));
        assert!(!graph.is_answer(&Value::Null));
    }

    #[test]
    fn a_peer_is_told_seeds_inputs_and_which_outputs_are_looked_at() {
        let graph = prepared(Pattern::NoComm, 1, 2);
        let seed = |step: usize| graph.rows[step][0].seed;
        assert_eq!(graph.to_json(), json!([[[seed(0), [], false]], [[seed(1), [0], true]]]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_pattern_gives_its_answer_with_both_kernels_on_a_cluster_in_this_process() {
        let cluster = Cluster::local(2).await.unwrap();
        for pattern in Pattern::ALL {
            for kernel in Kernel::ALL {
                // A width that is no power of two, and more steps than any pattern has dependence sets.
                let graph = prepared(pattern, 11, 6);
                let run = tokio::time::timeout(Duration::from_secs(60), graph.run(&cluster, Work { kernel, units: 2 }));
                run.await.unwrap_or_else(|_| panic!("{pattern:?} did not end")).unwrap();
            }
        }
        let rate = tokio::time::timeout(Duration::from_secs(60), rate_of_threads(&cluster, Kernel::Compute, 2, 1));
        assert!(rate.await.unwrap().unwrap() > 0.0);
    }
}
