//! For how long a leader leads, and a follower waits: the clock's part in the elections.
//!
//! A leader of a term leads at a moment if a quorum has answered requests of this term that were sent less than a lease ago.
//! A node that has answered neither votes nor stands for a longer time from then on. Any two quorums share a node, so nobody
//! else is elected meanwhile. The shared node may be the leader itself: its lease ends when it promises its vote to another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_core::ids::NodeId;
use tokio::time::Instant;

/// Who has answered, and whom this node has heard.
pub(crate) struct Lease(Mutex<State>);

struct State {
    /// The highest term that this node has promised its vote in, or heard of while it answered.
    promised: u64,
    /// The term of the answers in `answered`.
    term: u64,
    /// When the last request was sent that this node has answered in `term`.
    answered: BTreeMap<NodeId, Instant>,
    /// When a leader was heard last, or this node started.
    heard: Instant,
    /// When a leader said last that it has a quorum.
    led: Option<Instant>,
    /// Requests of a leader that are being answered.
    hearing: usize,
}

impl Lease {
    /// A node that starts now. It waits as if it had just heard a leader, as it may have before it stopped.
    pub(crate) fn new(now: Instant) -> Lease {
        let state = State { promised: 0, term: 0, answered: BTreeMap::new(), heard: now, led: None, hearing: 0 };
        Lease(Mutex::new(state))
    }

    /// This node has answered a request of `term`: no lease of an earlier one holds any more.
    pub(crate) fn promise(&self, term: u64) {
        let mut state = self.state();
        state.promised = state.promised.max(term);
    }

    /// A node has answered a request of `term` that was sent at `sent`.
    pub(crate) fn answered(&self, term: u64, by: NodeId, sent: Instant) {
        let mut state = self.state();
        if term > state.term {
            state.term = term;
            state.answered.clear();
        }
        if term == state.term {
            let last = state.answered.entry(by).or_insert(sent);
            *last = sent.max(*last);
        }
    }

    /// Whether the leader `node` of `term` has heard quorums of all of `configs` within `lease`.
    pub(crate) fn holds(
        &self,
        term: u64,
        node: NodeId,
        configs: &[BTreeSet<NodeId>],
        now: Instant,
        lease: Duration,
    ) -> bool {
        let state = self.state();
        let has_answered = |voter: &&NodeId| {
            let sent = (state.term == term).then(|| state.answered.get(voter)).flatten();
            **voter == node || sent.is_some_and(|sent| now.saturating_duration_since(*sent) < lease)
        };
        let is_quorum = |voters: &BTreeSet<NodeId>| voters.iter().filter(has_answered).count() * 2 > voters.len();
        state.promised <= term && !configs.is_empty() && configs.iter().all(is_quorum)
    }

    /// How many nodes have answered the leader of `term` within `lease`, of these.
    pub(crate) fn count(&self, term: u64, of: &BTreeSet<NodeId>, now: Instant, lease: Duration) -> usize {
        let state = self.state();
        let recent = |voter: &&NodeId| {
            state.answered.get(voter).is_some_and(|sent| now.saturating_duration_since(*sent) < lease)
        };
        if state.term == term { of.iter().filter(recent).count() } else { 0 }
    }

    /// Whether this node has answered in `term` within `lease`.
    pub(crate) fn has_answered(&self, term: u64, by: NodeId, now: Instant, lease: Duration) -> bool {
        self.count(term, &BTreeSet::from([by]), now, lease) == 1
    }

    /// A leader's request begins to be answered. While any is, this node does not stand.
    pub(crate) fn hear(&self) -> Hearing<'_> {
        self.state().hearing += 1;
        Hearing { lease: self, is_refused: false }
    }

    /// For how long no leader was heard.
    pub(crate) fn quiet(&self, now: Instant) -> Duration {
        let state = self.state();
        if state.hearing > 0 { Duration::ZERO } else { now.saturating_duration_since(state.heard) }
    }

    /// A leader has said that it has a quorum.
    pub(crate) fn led(&self, now: Instant) {
        self.state().led = Some(now);
    }

    /// Whether a leader has said within `lease` that it has a quorum. One that is heard may be cut off from the others.
    pub(crate) fn is_led(&self, now: Instant, lease: Duration) -> bool {
        self.state().led.is_some_and(|led| now.saturating_duration_since(led) <= lease)
    }

    /// Lets `stand` ask for an election, unless a leader was heard within `lease`. Requests that arrive later are answered
    /// later than that.
    pub(crate) fn stand_unless_heard<T>(&self, now: Instant, lease: Duration, stand: impl FnOnce() -> T) -> Option<T> {
        let state = self.state();
        let is_quiet = state.hearing == 0 && now.saturating_duration_since(state.heard) >= lease;
        is_quiet.then(stand)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A leader's request that is being answered. If nobody waits for the answer any more, it counts as heard.
pub(crate) struct Hearing<'l> {
    lease: &'l Lease,
    is_refused: bool,
}

impl Hearing<'_> {
    /// The leader was heard: it may count on this node for a lease from now on.
    pub(crate) fn heard(self) {
        drop(self);
    }

    /// The request was refused: it is not a leader's any more.
    pub(crate) fn refused(mut self) {
        self.is_refused = true;
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        let mut state = self.lease.state();
        state.hearing = state.hearing.saturating_sub(1);
        if !self.is_refused {
            state.heard = state.heard.max(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LEASE: Duration = Duration::from_secs(1);

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn set(numbers: &[u8]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(node).collect()
    }

    #[test]
    fn a_lease_holds_as_long_as_a_quorum_of_every_set_of_voters_has_answered() {
        let start = Instant::now();
        let lease = Lease::new(start);
        let later = start + LEASE / 2;
        let holds = |configs: &[BTreeSet<NodeId>], now| lease.holds(7, node(1), configs, now, LEASE);
        assert!(holds(&[set(&[1])], start) && !holds(&[set(&[1, 2, 3])], start) && !holds(&[], start));
        lease.answered(7, node(2), start);
        assert!(holds(&[set(&[1, 2, 3])], later) && !holds(&[set(&[1, 2, 3]), set(&[1, 3, 4])], later));
        assert!(!holds(&[set(&[1, 2, 3])], start + LEASE));
        lease.answered(7, node(2), later);
        lease.answered(7, node(2), start);
        assert!(holds(&[set(&[1, 2, 3])], start + LEASE), "an older answer that comes later takes nothing back");
    }

    #[test]
    fn answers_of_another_term_do_not_count_and_a_promise_ends_the_lease() {
        let start = Instant::now();
        let lease = Lease::new(start);
        let configs = [set(&[1, 2, 3])];
        lease.answered(7, node(2), start);
        assert!(!lease.holds(8, node(1), &configs, start, LEASE));
        lease.answered(8, node(3), start);
        lease.answered(7, node(2), start);
        assert!(lease.holds(8, node(1), &configs, start, LEASE) && !lease.holds(7, node(1), &configs, start, LEASE));
        lease.promise(9);
        assert!(
            !lease.holds(8, node(1), &configs, start, LEASE) && !lease.holds(8, node(1), &[set(&[1])], start, LEASE)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_stands_while_a_leader_is_heard_or_has_just_been() {
        let lease = Lease::new(Instant::now());
        let stand = || lease.stand_unless_heard(Instant::now(), LEASE, || ());
        assert_eq!(stand(), None, "it may have heard one before it started");
        advance(LEASE).await;
        let hearing = lease.hear();
        assert_eq!((stand(), lease.quiet(Instant::now())), (None, Duration::ZERO));
        hearing.refused();
        assert_eq!((stand(), lease.quiet(Instant::now())), (Some(()), LEASE));
        lease.hear().heard();
        advance(LEASE / 2).await;
        assert_eq!((stand(), lease.quiet(Instant::now())), (None, LEASE / 2));
        drop(lease.hear());
        assert_eq!(lease.quiet(Instant::now()), Duration::ZERO, "nobody knows what came of it");
    }
}
