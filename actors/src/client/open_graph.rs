//! What a client has sent and may have to say again, to another scheduler or over another link.
//!
//! Messages are kept as they were encoded for the link, so that keeping them costs next to nothing. What is needed of them is
//! found out when it has to be: the tasks whose futures are held, and what these need in turn. When much has gathered, what is
//! not needed any more is dropped.

use std::collections::BTreeMap;

use bytes::Bytes;
use starling_core::failure::TaskFailure;
use starling_core::fixed::FixedMap;
use starling_core::ids::{JobId, TaskId, Term};
use starling_core::spec::TaskSpec;
use starling_core::wire::FromClient;

use super::IDS_MAX;
use crate::link::frame_with;

/// What has been sent is looked through when it has become twice as large as what was needed of it, and at least this large.
const LOOKED_THROUGH_MIN: usize = 32 * 1024 * 1024;

/// How many tasks go in one piece, and how many bytes of payloads, unless one task has more.
const PIECE_TASKS: usize = 2048;
const PIECE_BYTES: usize = 512 * 1024;

/// The messages.
#[derive(Debug)]
pub(super) struct OpenGraph {
    /// What was sent, each in a frame.
    sent: Vec<Bytes>,
    bytes: usize,
    look_at: usize,
}

impl Default for OpenGraph {
    fn default() -> OpenGraph {
        OpenGraph { sent: Vec::new(), bytes: 0, look_at: LOOKED_THROUGH_MIN }
    }
}

/// What is needed of what was sent.
#[derive(Debug, Default)]
struct Needed {
    tasks: BTreeMap<u32, TaskSpec>,
    values: BTreeMap<u32, u64>,
}

impl OpenGraph {
    /// Keeps a submission, or values that were scattered, in the frame in which they are sent.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.sent.push(frame);
    }

    /// Whether it is time to look through what was sent.
    pub(super) fn has_grown(&self) -> bool {
        self.bytes >= self.look_at
    }

    /// Drops what is needed neither for the futures that are held nor for what these need.
    pub(super) fn drop_unneeded(&mut self, job: JobId, is_held: impl Fn(u32) -> bool) {
        let Needed { tasks, values } = self.needed(is_held);
        self.sent.clear();
        self.bytes = 0;
        let term = Term::default();
        let mut keep = |message: &FromClient| {
            // What was decoded can be encoded.
            if let Ok(frame) = frame_with(term, message) {
                self.push(frame);
            }
        };
        for tasks in pieces(tasks.into_values()) {
            keep(&FromClient::Submit { job, token: 0, kinds: Vec::new(), tasks });
        }
        let values: Vec<_> = values.into_iter().map(|(index, nbytes)| (index, nbytes, Vec::new())).collect();
        if !values.is_empty() {
            keep(&FromClient::Scattered { job, values });
        }
        self.look_at = (2 * self.bytes).max(LOOKED_THROUGH_MIN);
    }

    /// The messages by which a scheduler is told what the job consists of. `failures` are of futures that are held; the tokens
    /// count up from `token`.
    pub(super) fn restore(
        &self,
        job: JobId,
        end: u32,
        mut token: u64,
        is_held: impl Fn(u32) -> bool,
        failures: &FixedMap<u32, TaskFailure>,
    ) -> Vec<FromClient> {
        let Needed { mut tasks, values } = self.needed(&is_held);
        for (index, spec) in &mut tasks {
            spec.options.wanted = is_held(*index);
        }
        let mut said: Vec<FromClient> = Vec::new();
        for tasks in pieces(tasks.into_values()) {
            let failed = tasks.iter().map(|spec| spec.task.index);
            let failed =
                failed.filter_map(|index| failures.get(&index).map(|failure| (index, failure.clone()))).collect();
            said.push(FromClient::Restore { job, token, tasks, values: Vec::new(), failed, end: None });
            token += 1;
        }
        let failed = values.keys().filter_map(|index| failures.get(index).map(|failure| (*index, failure.clone())));
        let failed = failed.collect();
        // Values that are said again count as held: those that only tasks need are let go behind them.
        let released: Vec<TaskId> =
            values.keys().filter(|index| !is_held(**index)).map(|index| TaskId::new(job, *index)).collect();
        let values = values.into_iter().collect();
        said.push(FromClient::Restore { job, token, tasks: Vec::new(), values, failed, end: Some(end) });
        said.extend(released.chunks(IDS_MAX).map(|tasks| FromClient::Release { tasks: tasks.to_vec() }));
        said
    }

    fn needed(&self, is_held: impl Fn(u32) -> bool) -> Needed {
        let mut tasks: BTreeMap<u32, TaskSpec> = BTreeMap::new();
        let mut values: BTreeMap<u32, u64> = BTreeMap::new();
        for frame in &self.sent {
            let decoded = postcard::take_from_bytes::<Term>(frame).and_then(|(_, rest)| postcard::from_bytes(rest));
            match decoded {
                Ok(FromClient::Submit { tasks: specs, .. }) => {
                    tasks.extend(specs.into_iter().map(|spec| (spec.task.index, spec)));
                }
                Ok(FromClient::Scattered { values: all, .. }) => {
                    values.extend(all.into_iter().map(|(index, nbytes, _)| (index, nbytes)));
                }
                _ => tracing::error!("what a client has sent cannot be read again"),
            }
        }
        // Inputs come before what needs them.
        let mut needed: FixedMap<u32, ()> = FixedMap::default();
        for (index, spec) in tasks.iter().rev() {
            if is_held(*index) || needed.contains_key(index) {
                needed.insert(*index, ());
                needed.extend(spec.inputs.iter().map(|input| (*input, ())));
            }
        }
        tasks.retain(|index, _| needed.contains_key(index));
        values.retain(|index, _| is_held(*index) || needed.contains_key(index));
        Needed { tasks, values }
    }
}

/// The tasks, as many at a time as go in one message.
pub(super) fn pieces(tasks: impl Iterator<Item = TaskSpec>) -> impl Iterator<Item = Vec<TaskSpec>> {
    let mut tasks = tasks.peekable();
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        let mut bytes = 0;
        while piece.len() < PIECE_TASKS && bytes < PIECE_BYTES {
            let Some(spec) = tasks.next() else { break };
            bytes += spec.payload.len();
            piece.push(spec);
        }
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use starling_core::failure::FailureCause;
    use starling_core::ids::{KindId, TaskId};
    use starling_core::spec::TaskOptions;

    use super::*;

    const JOB: JobId = JobId(3);

    fn spec(index: u32, inputs: &[u32]) -> TaskSpec {
        TaskSpec {
            task: TaskId::new(JOB, index),
            kind: KindId(1),
            payload: Bytes::from(vec![7; 100]),
            inputs: inputs.iter().copied().collect(),
            options: TaskOptions::default(),
        }
    }

    fn graph(tasks: Vec<TaskSpec>, values: &[u32]) -> OpenGraph {
        let mut graph = OpenGraph::default();
        let values = values.iter().map(|index| (*index, 10, Vec::new())).collect();
        for message in [
            FromClient::Submit { job: JOB, token: 1, kinds: Vec::new(), tasks },
            FromClient::Scattered { job: JOB, values },
        ] {
            graph.push(frame_with(Term(9), &message).unwrap());
        }
        graph
    }

    /// Tasks and whether they are wanted, values, failures, the end; what is released.
    type Said = (Vec<(u32, bool)>, Vec<u32>, Vec<u32>, Option<u32>, Vec<u32>);

    fn said(messages: &[FromClient]) -> Said {
        let mut all = (Vec::new(), Vec::new(), Vec::new(), None, Vec::new());
        for message in messages {
            let (tasks, values, failed, end) = match message {
                FromClient::Restore { tasks, values, failed, end, .. } => (tasks, values, failed, end),
                FromClient::Release { tasks } => {
                    all.4.extend(tasks.iter().map(|task| task.index));
                    continue;
                }
                other => panic!("{other:?}"),
            };
            all.0.extend(tasks.iter().map(|spec| (spec.task.index, spec.options.wanted)));
            all.1.extend(values.iter().map(|(index, _)| *index));
            all.2.extend(failed.iter().map(|(index, _)| *index));
            all.3 = all.3.or(*end);
        }
        all
    }

    #[test]
    fn what_is_held_and_what_that_needs_is_said_again_and_nothing_else() {
        let tasks = vec![spec(0, &[]), spec(1, &[0]), spec(2, &[0]), spec(4, &[1, 3]), spec(5, &[2]), spec(6, &[])];
        let mut graph = graph(tasks, &[3, 7]);
        let failure =
            TaskFailure { task: TaskId::new(JOB, 6), name: String::new(), node: None, cause: FailureCause::Cancelled };
        let failures = [(6, failure)].into_iter().collect();
        let is_held = |index| [4, 6].contains(&index);
        let expected = (vec![(0, false), (1, false), (4, true), (6, true)], vec![3], vec![6], Some(8), vec![3]);
        assert_eq!(said(&graph.restore(JOB, 8, 1, is_held, &failures)), expected);
        let before = graph.bytes;
        graph.drop_unneeded(JOB, is_held);
        assert!(graph.bytes < before && !graph.has_grown());
        assert_eq!(said(&graph.restore(JOB, 8, 1, is_held, &failures)), expected);
    }

    #[test]
    fn pieces_are_bounded_and_the_last_one_says_so() {
        let tasks: Vec<TaskSpec> = (0..5_000).map(|index| spec(index, &[])).collect();
        let graph = graph(tasks, &[]);
        let messages = graph.restore(JOB, 5_000, 10, |_| true, &FixedMap::default());
        assert_eq!(messages.len(), 4);
        let tokens = messages.iter().map(|message| match message {
            FromClient::Restore { token, end, .. } => (*token, *end),
            other => panic!("{other:?}"),
        });
        assert_eq!(tokens.collect::<Vec<_>>(), [(10, None), (11, None), (12, None), (13, Some(5_000))]);
        assert_eq!(said(&messages).0.len(), 5_000);
    }
}
