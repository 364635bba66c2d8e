//! What the handles of a node and its driver share, and what it says of itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::ServerState;
use starling_core::election::Rank;
use starling_core::ids::{NodeId, Term};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::answer::Incoming;
use crate::config::QuorumConfig;
use crate::error::ProposeError;
use crate::machine::Applied;
use crate::network::Wire;
use crate::node::{configs, locked};
use crate::raft::{Metrics, Raft};
use crate::store::Store;
use crate::view::View;

/// For how long a problem with another node is told.
const PROBLEM_LASTS: Duration = Duration::from_secs(60);

/// What the handles of a node and its driver share.
pub(crate) struct Shared {
    pub(crate) config: QuorumConfig,
    pub(crate) raft: Raft,
    pub(crate) metrics: watch::Receiver<Metrics>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) store: Arc<Store>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) view: watch::Sender<View>,
    pub(crate) hints: Mutex<Hints>,
    /// The driver has something to look at.
    pub(crate) wake: Notify,
    /// Until when this leader waits for a better one to be elected.
    pub(crate) handing_over: Mutex<Option<Instant>>,
    /// How many voters have answered when this node last asked whether it should stand, itself included.
    pub(crate) polled: Mutex<Option<usize>>,
    /// Held while the node becomes a part of a cluster.
    pub(crate) founding: tokio::sync::Mutex<()>,
    pub(crate) incoming: tokio::sync::Mutex<Incoming>,
}

/// What the mesh has said.
#[derive(Default)]
pub(crate) struct Hints {
    /// Who could vote, this node included.
    pub(crate) live: Vec<(NodeId, Rank)>,
    /// Who is gone.
    pub(crate) down: BTreeSet<NodeId>,
}

impl Shared {
    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.borrow().clone()
    }

    pub(crate) fn set_candidates(&self, mut live: Vec<(NodeId, Rank)>) {
        let own = (self.config.node, self.config.rank);
        live.retain(|(node, _)| *node != own.0);
        live.push(own);
        let mut hints = locked(&self.hints);
        hints.down.retain(|down| live.iter().all(|(node, _)| node != down));
        hints.live = live;
        drop(hints);
        self.wake.notify_one();
    }

    pub(crate) fn set_down(&self, node: NodeId) {
        let mut hints = locked(&self.hints);
        hints.live.retain(|(other, _)| *other != node || node == self.config.node);
        hints.down.insert(node);
        drop(hints);
        self.wake.notify_one();
    }

    /// Whether openraft runs. It stops with an error that it tells, or by a panic, of which it says nothing.
    pub(crate) fn is_running(&self) -> bool {
        self.metrics.has_changed().is_ok() && self.metrics.borrow().running_state.is_ok()
    }

    /// Whether `metrics` say that this node leads, whether or not it has a quorum.
    pub(crate) fn is_elected(&self, metrics: &Metrics) -> bool {
        metrics.running_state.is_ok()
            && self.metrics.has_changed().is_ok()
            && metrics.state == ServerState::Leader
            && metrics.current_leader == Some(self.config.node)
            && metrics.vote.committed
    }

    /// Whether a quorum has answered this leader within the lease.
    pub(crate) fn has_lease(&self, metrics: &Metrics, now: Instant) -> bool {
        let (term, node) = (metrics.current_term, self.config.node);
        self.wire.lease.holds(term, node, configs(metrics), now, self.config.pace.lease)
    }

    pub(crate) fn still_leads(&self, now: Instant) -> Option<Term> {
        let metrics = self.metrics();
        let term = metrics.current_term;
        let leads = self.is_elected(&metrics)
            && metrics.last_applied.is_some_and(|id| id.leader_id.term == term)
            && locked(&self.handing_over).is_none()
            && self.has_lease(&metrics, now)
            && self.store.broken().is_none();
        leads.then_some(Term(term))
    }

    pub(crate) fn why_not_leading(&self) -> ProposeError {
        let metrics = self.metrics();
        if !self.is_running() {
            ProposeError::Closed
        } else if self.is_elected(&metrics) && locked(&self.handing_over).is_none() {
            ProposeError::NoQuorum
        } else {
            let leader = metrics.current_leader.filter(|leader| *leader != self.config.node);
            ProposeError::NotLeader { leader }
        }
    }

    /// Whether this node follows a leader that it has heard within a follower's lease.
    pub(crate) fn follows(&self, metrics: &Metrics, now: Instant) -> bool {
        let is_others = metrics.current_leader.is_some_and(|leader| leader != self.config.node);
        is_others && self.wire.lease.quiet(now) <= self.config.pace.follower_lease()
    }

    /// What has stopped this node.
    pub(crate) fn problem(&self) -> Option<String> {
        if let Some(broken) = self.store.broken() {
            return Some(format!("this node neither votes nor leads until it is started again: {broken}"));
        }
        let stopped = self.metrics.borrow().running_state.clone().err();
        let why = stopped.map(|error| error.to_string());
        (!self.is_running()).then(|| {
            format!("the quorum has stopped on this node: {}", why.as_deref().unwrap_or("its core has panicked"))
        })
    }

    pub(crate) fn update_view(&self) {
        let view = self.look(Instant::now());
        self.view.send_if_modified(|last| {
            let is_changed = *last != view;
            *last = view;
            is_changed
        });
    }

    fn look(&self, now: Instant) -> View {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let (voters, learners): (Vec<_>, Vec<_>) =
            (membership.voter_ids().collect(), membership.learner_ids().collect());
        let stopped = self.problem();
        let is_elected = self.is_elected(&metrics);
        let leads = self.still_leads(now);
        let hears = stopped.is_none() && self.follows(&metrics, now);
        let follows = hears && self.wire.lease.is_led(now, self.config.pace.follower_lease());
        let has_quorum = stopped.is_none() && if is_elected { self.has_lease(&metrics, now) } else { follows };
        let leader = if follows { metrics.current_leader } else { leads.map(|_| self.config.node) };
        let is_lost = !has_quorum && voters.contains(&self.config.node);
        let without_quorum = || is_lost.then(|| self.without_quorum(&metrics, &voters, is_elected, hears, now));
        let problem = stopped.or_else(|| self.recent_problem(now)).or_else(without_quorum);
        View {
            term: Term(metrics.current_term),
            leader,
            is_leader: leads.is_some(),
            has_quorum,
            voters,
            learners,
            problem,
        }
    }

    fn recent_problem(&self, now: Instant) -> Option<String> {
        let problem = locked(&self.wire.problem);
        let recent = problem.as_ref().filter(|(since, _)| now.saturating_duration_since(*since) < PROBLEM_LASTS);
        recent.map(|(_, text)| text.clone())
    }

    fn without_quorum(
        &self,
        metrics: &Metrics,
        voters: &[NodeId],
        is_elected: bool,
        hears: bool,
        now: Instant,
    ) -> String {
        let others = || {
            let voters = voters.iter().copied().filter(|voter| *voter != self.config.node).collect();
            self.wire.lease.count(metrics.current_term, &voters, now, self.config.pace.lease)
        };
        let answering = if is_elected { 1 + others() } else { locked(&self.polled).unwrap_or(1 + usize::from(hears)) };
        if answering * 2 > voters.len() {
            format!("no leader yet: {answering} of {} voters answer", voters.len())
        } else {
            format!("no quorum: {answering} of {} voters answers", voters.len())
        }
    }
}
