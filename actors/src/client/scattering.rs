//! Values that the client puts on workers itself.

use smallvec::SmallVec;
use starling_core::ids::{NodeId, TaskId, WorkerId};
use starling_core::wire::ResultAt;
use starling_runtime::mesh::Mesh;
use starling_runtime::task::ClientError;
use starling_runtime::value::Encoded;
use tokio::sync::oneshot;

use super::Client;
use super::sending::Queued;

impl Client {
    /// Puts a value on so many of these workers, of all if none is named, in turn; of those it is to be on, it is on another one
    /// or on fewer if some do not take it. Gives the value's id, and what came of it. The putting goes on whether or not that is waited for, because what is queued after it
    /// waits for it.
    pub(crate) fn scatter(
        &self,
        value: Encoded,
        among: &[WorkerId],
        copies: usize,
    ) -> (TaskId, oneshot::Receiver<Result<(), ClientError>>) {
        let (placed, on) = oneshot::channel();
        let (done, outcome) = oneshot::channel();
        let (task, targets) = {
            let mut state = self.lock();
            if let Err(error) = state.check_not_lost() {
                // The receiver is just below.
                let _ = done.send(Err(error.clone()));
                return (TaskId::new(self.job, state.fail_unsent(error)), outcome);
            }
            let index = state.next_index();
            let all = state.workers.iter().filter(|(worker, _)| among.is_empty() || among.contains(worker));
            let mut targets: Vec<_> = all.map(|(&worker, info)| (worker, info.node)).collect();
            if !targets.is_empty() {
                let turn = state.next_scatter % targets.len();
                targets.rotate_left(turn);
            }
            state.next_scatter = state.next_scatter.wrapping_add(1);
            state.queue.push_back(Queued::Scatter { index, placed: on });
            (TaskId::new(self.job, index), targets)
        };
        self.queued.notify_one();
        let (mesh, own) = (self.mesh.clone(), self.own.clone());
        tokio::spawn(async move {
            let nbytes = value.nbytes();
            let put = put_on(&mesh, task, value, targets, copies).await;
            let _ = placed.send(put.as_ref().ok().map(|workers| (workers.clone(), nbytes)));
            if let Some(client) = own.upgrade() {
                // The scheduler says something of a scattered value only if it is lost.
                let result = put.clone().map(|workers| ResultAt::Workers(SmallVec::from_vec(workers)));
                client.lock().settle(task.index, result);
            }
            let _ = done.send(put.map(drop));
        });
        (task, outcome)
    }
}

/// Puts a value on the first of these workers that take it, until so many have it.
async fn put_on(
    mesh: &Mesh,
    task: TaskId,
    value: Encoded,
    targets: Vec<(WorkerId, NodeId)>,
    copies: usize,
) -> Result<Vec<WorkerId>, ClientError> {
    let mut why = "there are no workers".to_owned();
    let mut holders = Vec::new();
    for (worker, node) in targets {
        if holders.len() >= copies {
            break;
        }
        match mesh.put(node, task, value.clone()).await {
            Ok(()) => holders.push(worker),
            Err(error) => {
                tracing::warn!(%task, %node, %error, "a value could not be put on a worker");
                why = error.to_string();
            }
        }
    }
    if holders.is_empty() { Err(ClientError::NotPlaced(why)) } else { Ok(holders) }
}
