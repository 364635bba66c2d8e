//! The one task of a node that looks at the clock: it sends a leader's heartbeats, stands when nobody leads, and has the
//! leader keep the right voters. The rest happens inside openraft or as requests come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use starling_core::election;
use starling_core::ids::NodeId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::members;
use crate::node::{configs, locked};
use crate::raft::{AppendResponse, Metrics, Vote};
use crate::shared::Shared;
use crate::wire::{Answer, Ask};

/// Entries of the log above which a snapshot is made, however few bytes they have.
const LOG_ENTRIES_MAX: u64 = 10_000;

/// How many heartbeats openraft's own are apart. They tell followers what is agreed on, if they have missed it.
const BEATS_A_FULL_ONE: u32 = 4;

/// Runs until the core has stopped for good, or this is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut metrics = shared.metrics.clone();
    let mut driver = Driver::new(shared);
    loop {
        let tick = Instant::now() + driver.shared.config.pace.lease / 4;
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { break },
            () = driver.shared.wake.notified() => {}
            Some(done) = driver.work.join_next() => driver.finish(done.unwrap_or(Done::Nothing)),
            () = sleep_until(tick.min(driver.next)) => {}
        }
        metrics.mark_unchanged();
        if driver.shared.is_running() {
            driver.step(Instant::now()).await;
        }
        driver.shared.update_view();
    }
    driver.shared.update_view();
}

/// What a piece of work has come to.
enum Done {
    Nothing,
    /// The voters were asked; whether to stand.
    Polled {
        stand: bool,
    },
    /// The change of members is over, one way or the other.
    Changed,
}

struct Driver {
    shared: Arc<Shared>,
    work: JoinSet<Done>,
    /// When to look again at the latest.
    next: Instant,
    beat_at: Instant,
    beats: u32,
    stand_at: Instant,
    /// The vote that this node has seen last.
    vote: Vote,
    /// Elections since a leader was last heard.
    tries: u32,
    is_polling: bool,
    is_changing: bool,
    change_at: Instant,
    snapshot_at: Instant,
    /// The term in which `seen` began.
    term: u64,
    /// Since when this node leads in it.
    since: Instant,
    /// When each member has last answered this leader.
    seen: BTreeMap<NodeId, Instant>,
    /// Since when a better leader is ready.
    better_since: Option<Instant>,
    /// When to hand over at the earliest, after an attempt that has failed.
    hand_over_at: Instant,
}

impl Driver {
    fn new(shared: Arc<Shared>) -> Driver {
        let now = Instant::now();
        Driver {
            shared,
            work: JoinSet::new(),
            next: now,
            beat_at: now,
            beats: 0,
            stand_at: now,
            vote: Vote::default(),
            tries: 0,
            is_polling: false,
            is_changing: false,
            change_at: now,
            snapshot_at: now,
            term: 0,
            since: now,
            seen: BTreeMap::new(),
            better_since: None,
            hand_over_at: now,
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Polled { stand } => {
                self.is_polling = false;
                if stand {
                    self.stand(Instant::now(), self.shared.config.pace.follower_lease());
                }
            }
            Done::Changed => self.is_changing = false,
        }
    }

    async fn step(&mut self, now: Instant) {
        self.next = now + self.shared.config.pace.lease / 4;
        let metrics = self.shared.metrics();
        if self.shared.is_elected(&metrics) {
            self.lead(&metrics, now).await;
        } else {
            self.better_since = None;
            *locked(&self.shared.handing_over) = None;
            self.follow(&metrics, now);
        }
        self.keep_log_short(now).await;
    }

    /// Looks again at this moment.
    fn look_at(&mut self, at: Instant) {
        self.next = self.next.min(at);
    }

    async fn keep_log_short(&mut self, now: Instant) {
        let (bytes, entries) = self.shared.store.log_size();
        if now >= self.snapshot_at && (bytes > self.shared.config.log_bytes_max || entries > LOG_ENTRIES_MAX) {
            self.snapshot_at = now + Duration::from_secs(10);
            // An error says that the core has stopped, which the view tells.
            let _ = self.shared.raft.trigger().snapshot().await;
        }
    }

    // Leading.

    async fn lead(&mut self, metrics: &Metrics, now: Instant) {
        if self.term != metrics.current_term {
            self.term = metrics.current_term;
            self.seen = metrics.membership_config.nodes().map(|(node, _)| (*node, now)).collect();
            (self.since, self.beat_at, self.tries, self.better_since) = (now, now, 0, None);
        }
        let until = *locked(&self.shared.handing_over);
        if let Some(until) = until {
            if now < until {
                return self.look_at(until);
            }
            tracing::warn!("nobody has taken over: this node leads on");
            *locked(&self.shared.handing_over) = None;
            self.hand_over_at = now + self.shared.config.pace.patience;
        }
        if now >= self.beat_at {
            self.beat_at = now + self.shared.config.pace.heartbeat;
            self.beat(metrics, now);
            self.beats = self.beats.wrapping_add(1);
            if self.beats.is_multiple_of(BEATS_A_FULL_ONE) {
                let _ = self.shared.raft.trigger().heartbeat().await;
            }
        }
        self.look_at(self.beat_at);
        if self.shared.still_leads(now).is_some() {
            self.look_after_members(metrics, now);
            self.hand_over_if_another_is_better(metrics, now);
        }
    }

    /// Tells all members who leads, and whether a quorum follows. One that was just elected has had one.
    fn beat(&mut self, metrics: &Metrics, now: Instant) {
        let is_new = now.saturating_duration_since(self.since) < self.shared.config.pace.lease;
        let has_quorum = is_new || self.shared.has_lease(metrics, now);
        let others = metrics.membership_config.nodes().map(|(node, _)| *node);
        for to in others.filter(|node| *node != self.shared.config.node) {
            let (shared, vote) = (Arc::clone(&self.shared), metrics.vote);
            self.work.spawn(async move {
                let answer = shared.wire.ask(to, Ask::Beat { vote, has_quorum }).await;
                match answer {
                    Ok(Answer::Beat(AppendResponse::HigherVote(_))) => {
                        // Openraft's own heartbeat hears the same, and makes this leader a follower.
                        let _ = shared.raft.trigger().heartbeat().await;
                    }
                    Ok(Answer::Beat(_)) => shared.wire.lease.answered(vote.leader_id.term, to, now),
                    Ok(_) | Err(_) => {}
                }
                Done::Nothing
            });
        }
    }

    fn look_after_members(&mut self, metrics: &Metrics, now: Instant) {
        let pace = self.shared.config.pace;
        let members: BTreeSet<NodeId> = metrics.membership_config.nodes().map(|(node, _)| *node).collect();
        self.seen.retain(|node, _| members.contains(node));
        for node in members {
            let answers = self.shared.wire.lease.has_answered(self.term, node, now, pace.lease);
            let seen = self.seen.entry(node).or_insert(now);
            if answers || node == self.shared.config.node {
                *seen = now;
            }
        }
        if self.is_changing || now < self.change_at {
            return;
        }
        let live = locked(&self.shared.hints).live.clone();
        let is_ready = |node| self.is_ready(metrics, node, now);
        let is_gone =
            |node| self.seen.get(&node).is_some_and(|seen| now.saturating_duration_since(*seen) >= pace.patience);
        let change = members::next_change(metrics, &live, is_ready, is_gone, self.shared.config.voters_max);
        let Some(change) = change else { return };
        tracing::info!(?change, "the quorum's members change");
        self.is_changing = true;
        self.change_at = now + pace.heartbeat;
        let shared = Arc::clone(&self.shared);
        self.work.spawn(async move {
            members::carry_out(&shared.raft, change, pace.lease * 4).await;
            Done::Changed
        });
    }

    /// Whether this node answers and holds nearly all of the log.
    fn is_ready(&self, metrics: &Metrics, node: NodeId, now: Instant) -> bool {
        let matching = metrics.replication.as_ref().and_then(|all| all.get(&node).copied().flatten());
        let is_near = matching.map(|id| id.index + members::LAG_MAX) >= metrics.last_log_index;
        let answers = self.shared.wire.lease.has_answered(self.term, node, now, self.shared.config.pace.lease);
        node == self.shared.config.node || (is_near && answers)
    }

    /// Stops leading, so that a pinned voter is elected, which stands before all others.
    fn hand_over_if_another_is_better(&mut self, metrics: &Metrics, now: Instant) {
        let (node, pace) = (self.shared.config.node, self.shared.config.pace);
        let is_voter = |other: &NodeId| configs(metrics).iter().all(|voters| voters.contains(other));
        let is_better = |(other, rank): &(NodeId, election::Rank)| {
            *other != node && rank.pinned && is_voter(other) && self.is_ready(metrics, *other, now)
        };
        let better = locked(&self.shared.hints).live.iter().find(|one| is_better(one)).map(|(other, _)| *other);
        let Some(better) = better.filter(|_| !self.shared.config.rank.pinned && !self.is_changing) else {
            self.better_since = None;
            return;
        };
        let since = *self.better_since.get_or_insert(now);
        if now >= self.hand_over_at.max(since + pace.handover) {
            tracing::info!(%better, "handing over to a pinned node");
            *locked(&self.shared.handing_over) = Some(now + pace.follower_lease() * 4);
        }
    }

    // Following, and standing.

    fn follow(&mut self, metrics: &Metrics, now: Instant) {
        let (node, pace) = (self.shared.config.node, self.shared.config.pace);
        let configs = configs(metrics);
        let voters: BTreeSet<NodeId> = configs.iter().flatten().copied().collect();
        if !voters.contains(&node) {
            return;
        }
        let is_alone = configs.iter().all(|config| config.len() == 1 && config.contains(&node));
        if is_alone {
            if now >= self.stand_at {
                self.stand(now, Duration::ZERO);
                self.stand_at = now + pace.lease;
            }
            return self.look_at(self.stand_at);
        }
        if self.vote != metrics.vote {
            self.vote = metrics.vote;
            if metrics.vote.leader_id.voted_for != Some(node) {
                // Whom this node has just voted for has the time to win.
                self.stand_at = self.stand_at.max(now + self.pause(&voters));
            }
        }
        let wait = self.wait(metrics, &voters);
        let quiet = self.shared.wire.lease.quiet(now);
        if quiet < pace.heartbeat {
            self.tries = 0;
            *locked(&self.shared.polled) = None;
        }
        let at = (now + wait.saturating_sub(quiet)).max(self.stand_at);
        if self.is_polling {
            return;
        }
        if now < at {
            return self.look_at(at);
        }
        self.tries = self.tries.saturating_add(1);
        self.is_polling = true;
        self.stand_at = now + self.pause(&voters);
        self.poll(metrics, voters);
    }

    /// For how long a leader must have been silent before this node stands.
    fn wait(&self, metrics: &Metrics, voters: &BTreeSet<NodeId>) -> Duration {
        let pace = self.shared.config.pace;
        let hints = locked(&self.shared.hints);
        let leader = metrics.current_leader.filter(|leader| *leader != self.shared.config.node);
        let is_down = leader.is_none_or(|leader| hints.down.contains(&leader));
        let margin = if is_down { Duration::from_millis(5) } else { pace.heartbeat };
        let place = election::position(self.shared.config.node, voters, &hints.live, leader);
        pace.follower_lease() + margin + pace.step * u32::try_from(place).unwrap_or(u32::MAX).min(16)
    }

    /// How long to wait before asking again. It grows with the tries and differs between nodes, so that two that stand
    /// against each other do not go on doing so.
    fn pause(&self, voters: &BTreeSet<NodeId>) -> Duration {
        let pace = self.shared.config.pace;
        let hints = locked(&self.shared.hints);
        let place = election::position(self.shared.config.node, voters, &hints.live, None);
        let spread = self
            .shared
            .config
            .node
            .0
            .iter()
            .fold(self.tries, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
        let steps = 2 + u32::try_from(place).unwrap_or(0).min(8) + self.tries.min(4);
        pace.step * steps + pace.step * (spread % 64) / 64
    }

    /// Asks all voters whether they would vote for this node. Only then it stands: a node that could not win must not
    /// raise the term, which would depose the leader that others hear.
    fn poll(&mut self, metrics: &Metrics, voters: BTreeSet<NodeId>) {
        let shared = Arc::clone(&self.shared);
        let configs = configs(metrics).to_vec();
        let patience = shared.config.pace.step * 2;
        self.work.spawn(async move {
            let node = shared.config.node;
            let last = shared.store.last();
            let ask = |to: NodeId| {
                let shared = &shared;
                async move { (to, timeout(patience, shared.wire.ask(to, Ask::Poll(last))).await) }
            };
            let mut asked: FuturesUnordered<_> =
                voters.iter().filter(|voter| **voter != node).map(|to| ask(*to)).collect();
            let (mut answered, mut willing) = (1, BTreeSet::from([node]));
            while let Some((by, answer)) = asked.next().await {
                let Ok(Ok(Answer::Poll(is_willing))) = answer else { continue };
                answered += 1;
                if is_willing {
                    willing.insert(by);
                }
            }
            drop(asked);
            *locked(&shared.polled) = Some(answered);
            let stand = configs.iter().all(|config| config.intersection(&willing).count() * 2 > config.len());
            Done::Polled { stand }
        });
    }

    fn stand(&mut self, now: Instant, lease: Duration) {
        let shared = &self.shared;
        let asked = shared.wire.lease.stand_unless_heard(now, lease, || shared.raft.trigger().elect().now_or_never());
        if asked.is_some() {
            tracing::info!(node = %shared.config.node, "standing for election");
        }
    }
}
