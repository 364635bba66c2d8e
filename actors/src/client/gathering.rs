//! Many outputs at a time: those on the same worker are fetched together.

use std::collections::BTreeMap;

use futures::future::join_all;
use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt};
use starling_core::fixed::FixedMap;
use starling_core::ids::{NodeId, TaskId};
use starling_core::wire::ResultAt;
use starling_runtime::task::ClientError;
use starling_runtime::value::{Encoded, Value};

use super::Client;
use super::fetching::{Held, decode_inline};

/// How many outputs are fetched together at most, if so many are there.
const TOGETHER_MAX: usize = 1_024;
/// How many such batches are on their way at a time.
const BATCHES_MAX: usize = 4;

/// A task whose output is wanted, with its place in the caller's list.
type Wanted = (usize, Held, TaskId);
/// An output, by its task's place in the caller's list.
type Outcome = (usize, Result<Value, ClientError>);

impl Client {
    /// The outputs of these tasks, each with its place in the list, as they come.
    pub(crate) fn outputs(&self, tasks: Vec<Wanted>) -> impl Stream<Item = Outcome> + Send + '_ {
        let settled = |(at, held, task): Wanted| async move { ((at, held, task), self.settled(held, task).await) };
        let settled: FuturesUnordered<_> = tasks.into_iter().map(settled).collect();
        let batches = settled.ready_chunks(TOGETHER_MAX).map(|batch| Box::pin(self.fetch_batch(batch)));
        batches.buffer_unordered(BATCHES_MAX).flat_map(stream::iter)
    }

    async fn fetch_batch(&self, batch: Vec<(Wanted, Result<ResultAt, ClientError>)>) -> Vec<Outcome> {
        let workers = self.workers();
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut by_node: BTreeMap<NodeId, Vec<Wanted>> = BTreeMap::new();
        let mut missing: Vec<Wanted> = Vec::new();
        for (wanted, settled) in batch {
            match settled {
                Err(error) => outcomes.push((wanted.0, Err(error))),
                Ok(ResultAt::Inline(bytes)) => outcomes.push((wanted.0, decode_inline(wanted.2, &bytes))),
                Ok(ResultAt::Workers(holders)) => match holders.iter().find_map(|holder| workers.get(holder)) {
                    Some(info) => by_node.entry(info.node).or_default().push(wanted),
                    None => missing.push(wanted),
                },
            }
        }
        let fetched = by_node.into_iter().map(|(node, wanted)| self.fetch_together(node, wanted));
        for (wanted, found) in join_all(fetched).await.into_iter().flatten() {
            match found {
                Some(encoded) => outcomes.push((wanted.0, Ok(Value::Encoded(encoded)))),
                None => missing.push(wanted),
            }
        }
        // From another holder, or once it is computed again.
        let singly = missing.into_iter().map(|(at, held, task)| async move { (at, self.fetch(held, task).await) });
        outcomes.extend(join_all(singly).await);
        outcomes
    }

    async fn fetch_together(&self, node: NodeId, wanted: Vec<Wanted>) -> Vec<(Wanted, Option<Encoded>)> {
        let mut tasks: Vec<TaskId> = wanted.iter().map(|wanted| wanted.2).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let mut found: FixedMap<TaskId, Encoded> = FixedMap::default();
        let mut keep = |task: TaskId, block: Option<Encoded>| found.extend(block.map(|block| (task, block)));
        if let Err(error) = self.mesh.fetch(node, &tasks, &mut keep).await {
            tracing::warn!(%node, %error, "results could not be fetched");
        }
        wanted.into_iter().map(|wanted| (wanted, found.get(&wanted.2).cloned())).collect()
    }
}
