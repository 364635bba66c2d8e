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
    /// Puts a value on one of the workers, in turn, or on the next one if that does not take it. Gives the value's id,
    /// and what came of it. The putting goes on whether or not that is waited for, because what is queued after it
    /// waits for it.
    pub(crate) fn scatter(&self, value: Encoded) -> (TaskId, oneshot::Receiver<Result<(), ClientError>>) {
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
            let mut targets: Vec<_> = state.workers.iter().map(|(&worker, info)| (worker, info.node)).collect();
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
            let put = put_on_one(&mesh, task, value, targets).await;
            let _ = placed.send(put.as_ref().ok().map(|&worker| (worker, nbytes)));
            if let Some(client) = own.upgrade() {
                // The scheduler says something of a scattered value only if it is lost.
                let result = put.clone().map(|worker| ResultAt::Workers(SmallVec::from_slice(&[worker])));
                client.lock().settle(task.index, result);
            }
            let _ = done.send(put.map(drop));
        });
        (task, outcome)
    }
}

/// Puts a value on the first of these workers that takes it.
async fn put_on_one(
    mesh: &Mesh,
    task: TaskId,
    value: Encoded,
    targets: Vec<(WorkerId, NodeId)>,
) -> Result<WorkerId, ClientError> {
    let mut why = "there are no workers".to_owned();
    for (worker, node) in targets {
        match mesh.put(node, task, value.clone()).await {
            Ok(()) => return Ok(worker),
            Err(error) => {
                tracing::warn!(%task, %node, %error, "a value could not be put on a worker");
                why = error.to_string();
            }
        }
    }
    Err(ClientError::NotPlaced(why))
}
