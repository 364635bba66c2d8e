//! A named task graph, checked before it is sent.
//!
//! A [`TaskGraph`] holds tasks under keys of the program's choosing, in any order. [`TaskGraph::lower`] numbers them so
//! that every input comes before what needs it, and depth first, so that what belongs together runs together: the order
//! of the numbers is the order in which the scheduler begins tasks. Nothing here recurses; a chain may be as long as a
//! job.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::fixed::FixedMap;
use crate::ids::{JobId, KindId, TaskId};
use crate::spec::{TaskOptions, TaskSpec};

/// Why tasks do not form a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GraphError {
    /// Two tasks have one key.
    #[error("the key {key} names two tasks: give each task a key of its own")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// An input names no task.
    #[error("task {key} has the input {input}, which is no task of the graph: add it, or correct the name")]
    DanglingInput {
        /// The task.
        key: String,
        /// The input's key.
        input: String,
    },
    /// Tasks wait for each other.
    #[error("the graph has a cycle: {}: remove one of these inputs", .keys.join(" -> "))]
    Cycle {
        /// The tasks of the cycle in order, the first repeated at the end.
        keys: Vec<String>,
    },
    /// A task's index does not continue its job's.
    #[error("task {index} was sent where task {expected} was due")]
    Gap {
        /// The index sent.
        index: u32,
        /// The index due.
        expected: u32,
    },
    /// The job's indices are used up.
    #[error("a job holds at most {} tasks: open another job for the rest", u32::MAX)]
    JobFull,
}

/// Named tasks that form a graph, once it has been checked.
///
/// ```
/// use bytes::Bytes;
/// use starling_core::graph::TaskGraph;
/// use starling_core::ids::{JobId, KindId};
/// use starling_core::spec::TaskOptions;
///
/// let mut graph = TaskGraph::new();
/// let options = TaskOptions::default();
/// graph.add("sum".into(), KindId(2), Bytes::new(), vec!["a".into(), "b".into()], options.clone())?;
/// graph.add("a".into(), KindId(1), Bytes::new(), vec![], options.clone())?;
/// graph.add("b".into(), KindId(1), Bytes::new(), vec![], options)?;
/// let lowered = graph.lower(JobId(0), 0)?;
/// assert_eq!(lowered.ids["sum"].index, 2);
/// assert_eq!(lowered.tasks[2].inputs.as_slice(), [0, 1]);
/// # Ok::<(), starling_core::graph::GraphError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TaskGraph {
    nodes: Vec<Node>,
    by_key: FixedMap<String, u32>,
}

#[derive(Clone, Debug)]
struct Node {
    kind: KindId,
    payload: Bytes,
    inputs: Vec<GraphInput>,
    options: TaskOptions,
}

/// What a task of a graph takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GraphInput {
    /// The output of the graph's task of this key.
    Key(String),
    /// The output of a task of the same job that was submitted earlier, by its index.
    Submitted(u32),
}

/// A task of a graph, to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphTask<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its function.
    pub kind: KindId,
    /// What it takes, in order.
    pub inputs: &'a [GraphInput],
}

/// A graph that was checked and numbered.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// The tasks with dense indices, every one after its inputs.
    pub tasks: Vec<TaskSpec>,
    /// Which task each key became.
    pub ids: FixedMap<String, TaskId>,
}

impl TaskGraph {
    /// A graph with no tasks.
    pub fn new() -> TaskGraph {
        TaskGraph::default()
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no tasks.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether there is a task of this key.
    pub fn contains(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// The tasks in the order in which they were added.
    pub fn tasks(&self) -> Vec<GraphTask<'_>> {
        let mut keys = vec![""; self.nodes.len()];
        for (key, number) in &self.by_key {
            keys[*number as usize] = key;
        }
        let all = keys.into_iter().zip(&self.nodes);
        all.map(|(key, node)| GraphTask { key, kind: node.kind, inputs: &node.inputs }).collect()
    }

    /// Adds a task. Its inputs may be added later. An error leaves the graph as it was.
    pub fn add(
        &mut self,
        key: String,
        kind: KindId,
        payload: Bytes,
        inputs: Vec<String>,
        options: TaskOptions,
    ) -> Result<(), GraphError> {
        self.add_with(key, kind, payload, inputs.into_iter().map(GraphInput::Key).collect(), options)
    }

    /// As [`TaskGraph::add`]; the inputs may also be tasks that were submitted earlier.
    pub fn add_with(
        &mut self,
        key: String,
        kind: KindId,
        payload: Bytes,
        inputs: Vec<GraphInput>,
        options: TaskOptions,
    ) -> Result<(), GraphError> {
        let number =
            u32::try_from(self.nodes.len()).ok().filter(|number| *number < u32::MAX).ok_or(GraphError::JobFull)?;
        if self.by_key.contains_key(&key) {
            return Err(GraphError::DuplicateKey { key });
        }
        self.by_key.insert(key, number);
        self.nodes.push(Node { kind, payload, inputs, options });
        Ok(())
    }

    /// Checks the graph and numbers its tasks from `first_index` on. Costs time and memory in proportion to its tasks and
    /// inputs.
    pub fn lower(self, job: JobId, first_index: u32) -> Result<Lowered, GraphError> {
        if self.nodes.len() as u64 + u64::from(first_index) > u64::from(u32::MAX) {
            return Err(GraphError::JobFull);
        }
        let edges = self.edges(first_index)?;
        let order = depth_first(&edges).map_err(|cycle| self.name_cycle(&cycle))?;
        let mut index_of = vec![0u32; self.nodes.len()];
        for (index, number) in (first_index..).zip(&order) {
            index_of[*number as usize] = index;
        }
        let ids =
            self.by_key.into_iter().map(|(key, number)| (key, TaskId::new(job, index_of[number as usize]))).collect();
        let mut nodes: Vec<Option<Node>> = self.nodes.into_iter().map(Some).collect();
        let tasks = order
            .into_iter()
            .filter_map(|number| {
                let node = nodes[number as usize].take()?;
                let mut of_graph = edges[number as usize].iter().map(|input| index_of[*input as usize]);
                let index = |input: &GraphInput| match input {
                    GraphInput::Key(_) => of_graph.next(),
                    GraphInput::Submitted(index) => Some(*index),
                };
                let inputs = node.inputs.iter().filter_map(index).collect();
                let task = TaskId::new(job, index_of[number as usize]);
                Some(TaskSpec { task, kind: node.kind, payload: node.payload, inputs, options: node.options })
            })
            .collect();
        Ok(Lowered { tasks, ids })
    }

    /// Every task's inputs in the graph by number instead of by key. What was submitted earlier has a smaller index than any task
    /// of the graph.
    fn edges(&self, first_index: u32) -> Result<Vec<Edges>, GraphError> {
        let dangling =
            |number: usize, input: String| GraphError::DanglingInput { key: self.key_of(number as u32), input };
        let find = |number: usize, input: &GraphInput| match input {
            GraphInput::Key(key) => Some(self.by_key.get(key).copied().ok_or_else(|| dangling(number, key.clone()))),
            GraphInput::Submitted(index) if *index < first_index => None,
            GraphInput::Submitted(index) => Some(Err(dangling(number, index.to_string()))),
        };
        self.nodes
            .iter()
            .enumerate()
            .map(|(number, node)| node.inputs.iter().filter_map(|input| find(number, input)).collect())
            .collect()
    }

    /// Slow: for errors.
    fn key_of(&self, number: u32) -> String {
        self.by_key.iter().find(|entry| *entry.1 == number).map(|entry| entry.0.clone()).unwrap_or_default()
    }

    fn name_cycle(&self, cycle: &[u32]) -> GraphError {
        let keys = cycle.iter().take(CYCLE_KEYS_MAX).map(|number| self.key_of(*number)).collect();
        GraphError::Cycle { keys }
    }
}

type Edges = SmallVec<[u32; 3]>;

/// How many tasks of a cycle an error names.
const CYCLE_KEYS_MAX: usize = 100;

/// All numbers, every one after those that its edges lead to, depth first from what nothing leads to. Or a cycle in
/// the order of its edges, its first number repeated at the end.
fn depth_first(edges: &[Edges]) -> Result<Vec<u32>, Vec<u32>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut is_input = vec![false; edges.len()];
    for input in edges.iter().flatten() {
        is_input[*input as usize] = true;
    }
    // What lies on a cycle, or only leads to one, may be reached from no sink: so the others are tried as well.
    let sinks = (0..edges.len() as u32).filter(|number| !is_input[*number as usize]);
    let others = (0..edges.len() as u32).filter(|number| is_input[*number as usize]);
    let mut marks = vec![Mark::New; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    // Each number on the way with the place of the next edge to follow.
    let mut way: Vec<(u32, usize)> = Vec::new();
    for start in sinks.chain(others) {
        if marks[start as usize] != Mark::New {
            continue;
        }
        marks[start as usize] = Mark::Open;
        way.push((start, 0));
        while let Some((number, next)) = way.last_mut() {
            let Some(input) = edges[*number as usize].get(*next).copied() else {
                marks[*number as usize] = Mark::Done;
                order.push(*number);
                way.pop();
                continue;
            };
            *next += 1;
            match marks[input as usize] {
                Mark::Done => {}
                Mark::New => {
                    marks[input as usize] = Mark::Open;
                    way.push((input, 0));
                }
                Mark::Open => {
                    let on_cycle = way.iter().map(|step| step.0).skip_while(|number| *number != input);
                    return Err(on_cycle.chain([input]).collect());
                }
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
