//! A workflow as a graph of tasks that take as long, and give as much, as its tasks did, scaled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use starling::{Buffer, Cluster, Future};

use super::instance::Workflow;

/// What a task gives to its children.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Output {
    /// Follows from the task, and from what it has seen of its parents' outputs.
    value: u64,
    /// Every byte is the lowest of the value.
    data: Buffer,
}

/// Which tasks of which run this process has executed, each as often as it did.
static EXECUTED: Mutex<BTreeMap<u64, Vec<u32>>> = Mutex::new(BTreeMap::new());

/// A task of a workflow: looks at its parents' outputs, makes its own, and keeps a core busy for the rest of its time.
#[starling::task]
fn step(run: u64, number: u32, run_us: u64, nbytes: u64, parents: &[Output]) -> Output {
    let started = Instant::now();
    EXECUTED.lock().unwrap_or_else(PoisonError::into_inner).entry(run).or_default().push(number);
    let value = parents.iter().fold(own_value(number), |value, parent| combined(value, seen(parent)));
    let data = vec![value as u8; nbytes as usize].into();
    while started.elapsed() < Duration::from_micros(run_us) {
        std::hint::spin_loop();
    }
    Output { value, data }
}

/// What a child would see of the output.
#[starling::task]
fn look(output: &Output) -> u64 {
    seen(output)
}

/// The process, and what it has executed of the run. Takes a moment, so that others go to other workers.
#[starling::task]
fn executed(run: u64) -> (u32, Vec<u32>) {
    std::thread::sleep(Duration::from_millis(2));
    let executed = EXECUTED.lock().unwrap_or_else(PoisonError::into_inner);
    (std::process::id(), executed.get(&run).cloned().unwrap_or_default())
}

fn own_value(number: u32) -> u64 {
    u64::from(number).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn combined(value: u64, seen: u64) -> u64 {
    (value.rotate_left(9) ^ seen).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// How far apart the bytes are that are looked at: enough to see every page.
const LOOKED_AT: usize = 4096;

/// A digest of an output: another one if its data are not what its maker wrote.
fn seen(output: &Output) -> u64 {
    let bytes = output.data.iter().step_by(LOOKED_AT).chain(output.data.last());
    digest(output.value, output.data.len() as u64, bytes.filter(|byte| **byte != output.value as u8).count() as u64)
}

fn digest(value: u64, nbytes: u64, wrong: u64) -> u64 {
    combined(combined(value, nbytes), wrong)
}

/// What run times and sizes are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) time: f64,
    pub(super) bytes: f64,
}

/// An output of more is refused: it would have to lie in memory.
const OUTPUT_BYTES_MAX: f64 = (1_u64 << 30) as f64;
/// A task that would take longer is refused: that is a mistake in the scale.
const RUN_US_MAX: f64 = 3600e6;

struct Step {
    run_us: u64,
    nbytes: u64,
    parents: Vec<usize>,
    has_children: bool,
}

/// A workflow, scaled.
pub(super) struct Replay {
    names: Vec<String>,
    steps: Vec<Step>,
    /// What is to be seen of the outputs that no task takes; every other output goes into one of them.
    expected: Vec<u64>,
}

impl Replay {
    /// Scales the workflow, and works out what its outputs must be.
    ///
    /// # Errors
    /// Names a task that would take longer, or give more, than can be meant.
    pub(super) fn new(workflow: &Workflow, scale: Scale) -> anyhow::Result<Replay> {
        let mut steps: Vec<Step> = Vec::with_capacity(workflow.tasks.len());
        let mut digests: Vec<u64> = Vec::with_capacity(workflow.tasks.len());
        for (number, task) in workflow.tasks.iter().enumerate() {
            let (run_us, nbytes) = (task.run_s * scale.time * 1e6, task.nbytes * scale.bytes);
            ensure!(
                run_us <= RUN_US_MAX,
                "task {:?} would take {:.0} s, more than an hour: give a smaller --scale than {}",
                task.id,
                run_us / 1e6,
                scale.time
            );
            ensure!(
                nbytes <= OUTPUT_BYTES_MAX,
                "task {:?} would give {nbytes:.0} bytes, more than 1 GiB: give a smaller --bytes-scale than {}",
                task.id,
                scale.bytes
            );
            let nbytes = nbytes.round() as u64;
            let parents = task.parents.iter().map(|parent| digests[*parent]);
            let value = parents.fold(own_value(number as u32), combined);
            digests.push(digest(value, nbytes, 0));
            for parent in &task.parents {
                steps[*parent].has_children = true;
            }
            let parents = task.parents.clone();
            steps.push(Step { run_us: run_us.round() as u64, nbytes, parents, has_children: false });
        }
        let last = steps.iter().zip(digests).filter(|(step, _)| !step.has_children);
        let expected = last.map(|(_, digest)| digest).collect();
        Ok(Replay { names: workflow.tasks.iter().map(|task| task.id.clone()).collect(), steps, expected })
    }

    pub(super) fn tasks(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn edges(&self) -> usize {
        self.steps.iter().map(|step| step.parents.len()).sum()
    }

    /// Seconds of all tasks together.
    pub(super) fn work_s(&self) -> f64 {
        self.steps.iter().map(|step| step.run_us as f64).sum::<f64>() / 1e6
    }

    /// Bytes of all outputs together.
    pub(super) fn nbytes(&self) -> f64 {
        self.steps.iter().map(|step| step.nbytes as f64).sum()
    }

    /// Seconds of the longest chain of tasks.
    pub(super) fn critical_path_s(&self) -> f64 {
        let mut ends: Vec<u64> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let begin = step.parents.iter().map(|parent| ends[*parent]).max().unwrap_or(0);
            ends.push(begin.saturating_add(step.run_us));
        }
        ends.into_iter().max().unwrap_or(0) as f64 / 1e6
    }

    /// No schedule on so many threads takes less.
    pub(super) fn lower_bound_s(&self, threads: u32) -> f64 {
        f64::max(self.critical_path_s(), self.work_s() / f64::from(threads))
    }

    /// Runs the workflow on a cluster of so many worker processes, and checks that every task ran once and saw its
    /// parents' outputs. Gives the seconds from the first submission until the last task has ended. `run` tells it from
    /// every other run on this cluster.
    pub(super) async fn run(&self, cluster: &Cluster, processes: usize, run: u64) -> anyhow::Result<f64> {
        let started = Instant::now();
        let mut futures: Vec<Future<Output>> = Vec::with_capacity(self.steps.len());
        for (number, step) in self.steps.iter().enumerate() {
            let parents: Vec<_> = step.parents.iter().map(|parent| futures[*parent].clone()).collect();
            futures.push(cluster.submit(self::step::task(run, number as u32, step.run_us, step.nbytes, parents)));
        }
        // What has children is let go, and freed when they have taken it.
        let last = futures.into_iter().zip(&self.steps).filter(|(_, step)| !step.has_children);
        let last: Vec<_> = last.map(|(future, _)| future).collect();
        for future in &last {
            future.wait().await?;
        }
        let makespan = started.elapsed().as_secs_f64();

        // Where they lie: the outputs may be large.
        let looks = cluster.map(last.iter().map(look::task));
        let wrong = cluster.gather(&looks).await?.iter().zip(&self.expected).filter(|(found, is)| found != is).count();
        ensure!(wrong == 0, "{wrong} of {} last outputs are wrong", self.expected.len());
        self.check_executions(&executions(cluster, processes, run).await?)?;
        Ok(makespan)
    }

    /// Every task must have been executed once, by one process.
    fn check_executions(&self, executions: &BTreeMap<u32, Vec<u32>>) -> anyhow::Result<()> {
        let mut counts = vec![0_u32; self.steps.len()];
        for number in executions.values().flatten() {
            let count = counts.get_mut(*number as usize);
            *count.with_context(|| format!("a task {number} was executed, which is not there"))? += 1;
        }
        match counts.iter().position(|count| *count != 1) {
            Some(number) => bail!("task {:?} was executed {} times", self.names[number], counts[number]),
            None => Ok(()),
        }
    }
}

/// What each of the worker processes has executed. A question goes where the scheduler sends it, so it is repeated.
async fn executions(cluster: &Cluster, processes: usize, run: u64) -> anyhow::Result<BTreeMap<u32, Vec<u32>>> {
    const ROUNDS: u32 = 100;
    let mut found = BTreeMap::new();
    for _ in 0..ROUNDS {
        let asked = cluster.map((0..processes).map(|_| executed::task(run)));
        found.extend(cluster.gather(&asked).await?);
        if found.len() >= processes {
            return Ok(found);
        }
    }
    let pids: BTreeSet<_> = found.keys().collect();
    bail!("only {} of {processes} workers said what they had executed, the processes {pids:?}", found.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wfformat::instance::{Task, parse};

    const NEW: &str = include_str!("../../instances/diamond-1.5.json");
    const OLD: &str = include_str!("../../instances/diamond-1.4.json");

    fn replay(text: &str, time: f64, bytes: f64) -> Replay {
        Replay::new(&parse(text.as_bytes()).unwrap(), Scale { time, bytes }).unwrap()
    }

    #[test]
    fn figures_of_a_diamond_by_hand() {
        let replay = replay(NEW, 0.1, 0.01);
        assert_eq!((replay.tasks(), replay.edges()), (6, 6));
        assert!((replay.work_s() - 8.4).abs() < 1e-9);
        // split, map, merge
        assert!((replay.critical_path_s() - 5.85).abs() < 1e-9);
        assert_eq!(replay.lower_bound_s(1), replay.work_s());
        assert_eq!(replay.lower_bound_s(2), replay.critical_path_s());
        assert_eq!(replay.nbytes(), 76_009.0);
        assert_eq!(replay.expected.len(), 2);
    }

    #[test]
    fn an_output_that_is_not_what_its_maker_wrote_is_seen() {
        let output = |value: u64, data: Vec<u8>| Output { value, data: data.into() };
        let right = output(7, vec![7; 10_000]);
        assert_eq!(seen(&right), digest(7, 10_000, 0));
        assert_eq!(seen(&output(7, Vec::new())), digest(7, 0, 0));
        let mut data = vec![7; 10_000];
        data[8_192] = 0;
        assert_ne!(seen(&output(7, data.clone())), seen(&right));
        assert_ne!(seen(&output(8, vec![8; 10_000])), seen(&right));
        assert_ne!(seen(&output(7, vec![7; 9_999])), seen(&right));
    }

    #[test]
    fn every_task_must_have_been_executed_once() {
        let replay = replay(NEW, 0.0, 0.0);
        let check = |first: &[u32], second: &[u32]| {
            replay.check_executions(&BTreeMap::from([(1, first.to_vec()), (2, second.to_vec())]))
        };
        assert!(check(&[0, 2, 5], &[4, 1, 3]).is_ok());
        let name = &replay.names[2];
        assert_eq!(
            check(&[0, 2, 5], &[4, 1, 3, 2]).unwrap_err().to_string(),
            format!("task {name:?} was executed 2 times")
        );
        assert_eq!(check(&[0, 5], &[4, 1, 3]).unwrap_err().to_string(), format!("task {name:?} was executed 0 times"));
        assert!(check(&[0, 2, 5], &[4, 1, 3, 6]).is_err());
    }

    #[test]
    fn a_scale_that_cannot_be_meant_is_refused_with_the_task() {
        let task = Task { id: "t".into(), run_s: 10.0, nbytes: 1e6, parents: Vec::new() };
        let workflow = Workflow { tasks: vec![task], unsized_files: 0 };
        let error = |time, bytes| Replay::new(&workflow, Scale { time, bytes }).err().map(|error| error.to_string());
        assert_eq!(error(360.0, 1_000.0), None);
        assert!(error(400.0, 1.0).unwrap().starts_with("task \"t\" would take 4000 s"));
        assert!(error(1.0, 2_000.0).unwrap().starts_with("task \"t\" would give 2000000000 bytes"));
        assert!(error(f64::INFINITY, 1.0).is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_forms_run_on_a_cluster_in_this_process_and_take_their_time() {
        let cluster = Cluster::local(2).await.unwrap();
        for (number, text) in [NEW, OLD].into_iter().enumerate() {
            let replay = replay(text, 0.001, 0.1);
            // All workers are one process.
            let run = tokio::time::timeout(Duration::from_secs(60), replay.run(&cluster, 1, number as u64));
            let makespan = run.await.unwrap().unwrap();
            assert!(makespan >= replay.critical_path_s(), "{makespan}");
        }
        // A run under a number that was there before has executed everything twice.
        let short = replay(NEW, 0.0, 0.0);
        let again = tokio::time::timeout(Duration::from_secs(60), short.run(&cluster, 1, 0));
        assert!(again.await.unwrap().unwrap_err().to_string().ends_with("was executed 2 times"));
    }
}
