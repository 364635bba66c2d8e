//! How requests travel: late, never, twice, in another order, or only in one direction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_core::ids::NodeId;
use starling_quorum::{Quorum, Transport, TransportError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Report;
use crate::rng::Rng;

/// The network, shared by all.
#[derive(Clone)]
pub(crate) struct Net(Arc<Mutex<State>>);

struct State {
    rng: Rng,
    hosts: BTreeMap<NodeId, Host>,
    /// From the first to the second nothing arrives.
    cuts: BTreeSet<(NodeId, NodeId)>,
    delay_ms: u64,
    lost: u64,
    doubled: u64,
    report: Report,
}

/// A node that runs, and its answers under way.
struct Host {
    start: u64,
    quorum: Quorum,
    answers: JoinSet<()>,
}

/// A node's access to the network, as one start of it has it.
pub(crate) struct Port {
    pub(crate) net: Net,
    pub(crate) node: NodeId,
    pub(crate) start: u64,
}

impl Net {
    pub(crate) fn new(rng: Rng, delay_ms: u64, lost: u64, doubled: u64) -> Net {
        let (hosts, cuts, report) = (BTreeMap::new(), BTreeSet::new(), Report::default());
        Net(Arc::new(Mutex::new(State { rng, hosts, cuts, delay_ms, lost, doubled, report })))
    }

    pub(crate) fn plug_in(&self, node: NodeId, start: u64, quorum: Quorum) {
        self.state().hosts.insert(node, Host { start, quorum, answers: JoinSet::new() });
    }

    /// The node is gone, with all that it was about to answer.
    pub(crate) fn unplug(&self, node: NodeId) {
        let host = self.state().hosts.remove(&node);
        drop(host);
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.state().cuts.insert((from, to));
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state().cuts.contains(&(from, to))
    }

    pub(crate) fn heal(&self) {
        self.state().cuts.clear();
    }

    /// From now on every message arrives once, and soon.
    pub(crate) fn calm(&self) {
        let mut state = self.state();
        (state.lost, state.doubled, state.delay_ms) = (0, 0, 10);
    }

    /// What went wrong with messages.
    pub(crate) fn report(&self) -> Report {
        self.state().report.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One message's way; it ends never if the message does not arrive.
    async fn pass(&self, from: NodeId, to: NodeId) {
        let (delay, is_lost) = {
            let mut state = self.state();
            let spike = if state.rng.chance(1) { 10 } else { 1 };
            let delay_ms = state.delay_ms * spike;
            let is_lost = state.rng.below(1_000) < state.lost;
            if is_lost {
                state.report.fault("lost");
            }
            (state.rng.between(1, delay_ms.max(1)), is_lost)
        };
        sleep(Duration::from_millis(delay)).await;
        // A link that is cut takes with it what is under way.
        if is_lost || self.is_cut(from, to) {
            std::future::pending::<()>().await;
        }
    }

    /// Has the node answer, in a task that ends with it. `None` if nobody is there.
    fn answer(&self, from: NodeId, to: NodeId, request: Bytes) -> Option<oneshot::Receiver<Bytes>> {
        let (answered, answer) = oneshot::channel();
        let mut state = self.state();
        let host = state.hosts.get_mut(&to)?;
        while host.answers.try_join_next().is_some() {}
        let quorum = host.quorum.clone();
        host.answers.spawn(async move {
            // Who has asked may be gone.
            let _ = answered.send(quorum.answer(from, request).await);
        });
        Some(answer)
    }
}

impl Transport for Port {
    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (net, from, start) = (self.net.clone(), self.node, self.start);
        async move {
            let is_alive = net.state().hosts.get(&from).is_some_and(|host| host.start == start);
            if !is_alive {
                std::future::pending::<()>().await;
            }
            let is_doubled = {
                let mut state = net.state();
                state.rng.below(1_000) < state.doubled
            };
            if is_doubled {
                net.state().report.fault("doubled");
                let (net, request) = (net.clone(), request.clone());
                tokio::spawn(async move {
                    net.pass(from, to).await;
                    drop(net.answer(from, to, request));
                });
            }
            net.pass(from, to).await;
            let answer = net.answer(from, to, request);
            let answer = answer.ok_or_else(|| TransportError("nobody is there".to_owned()))?;
            let Ok(answer) = answer.await else { return std::future::pending().await };
            net.pass(to, from).await;
            Ok(answer)
        }
        .boxed()
    }
}
