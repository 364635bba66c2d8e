//! When which unconnected node is dialed. Times come in; nothing is dialed here.
//!
//! Of two nodes that can dial each other the one with the lower id goes first and the other waits a little, so that
//! they seldom make two connections. A node that does not answer is dialed ever less often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use starling_core::ids::NodeId;

/// Dials that are under way at a time.
const UNDER_WAY_MAX: usize = 8;

/// The first wait after a failure; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(400);

/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A dial that has not been heard of for so long is taken for failed.
const UNHEARD_MAX: Duration = Duration::from_secs(15);

struct Redial {
    addrs: Vec<Multiaddr>,
    at: Instant,
    failures: u32,
    under_way: bool,
}

/// All and only nodes that are wanted, not connected and dialable.
pub(crate) struct Redials {
    me: NodeId,
    dialable: bool,
    nodes: BTreeMap<NodeId, Redial>,
    /// When the join addresses are dialed again; set while there is no peer at all.
    seeds: Option<(Instant, u32)>,
}

impl Redials {
    pub(crate) fn new(me: NodeId, dialable: bool) -> Redials {
        Redials { me, dialable, nodes: BTreeMap::new(), seeds: None }
    }

    /// The nodes that shall be connected and are not, and whether there is no peer at all.
    pub(crate) fn want<'a>(
        &mut self,
        now: Instant,
        wanted: impl Iterator<Item = (NodeId, &'a [Multiaddr])>,
        alone: bool,
    ) {
        let mut nodes = BTreeMap::new();
        let wanted: Vec<_> = wanted.filter(|(_, addrs)| !addrs.is_empty()).collect();
        // Of many that start together not all shall dial all at once.
        let spread = Duration::from_millis(50) + Duration::from_millis(20) * wanted.len() as u32;
        for (node, addrs) in wanted {
            let redial = match self.nodes.remove(&node) {
                Some(redial) if redial.addrs == addrs => redial,
                Some(redial) => Redial { addrs: addrs.to_vec(), ..redial },
                None => Redial {
                    addrs: addrs.to_vec(),
                    at: now + self.courtesy(node, spread),
                    failures: 0,
                    under_way: false,
                },
            };
            nodes.insert(node, redial);
        }
        self.nodes = nodes;
        self.seeds = if alone { self.seeds.or(Some((now + BACKOFF_MIN, 0))) } else { None };
    }

    /// How long to let the other side dial first.
    fn courtesy(&self, node: NodeId, spread: Duration) -> Duration {
        let jitter = spread.mul_f64(rand::random_range(0.0..1.0));
        if self.dialable && node < self.me { Duration::from_millis(400) + 2 * spread + jitter } else { jitter }
    }

    pub(crate) fn connected(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.seeds = None;
    }

    /// A connection broke: both sides dial, without courtesy.
    pub(crate) fn at_once(&mut self, now: Instant, node: NodeId) {
        if let Some(redial) = self.nodes.get_mut(&node) {
            redial.at = now;
        }
    }

    pub(crate) fn failed(&mut self, now: Instant, node: NodeId) {
        if let Some(redial) = self.nodes.get_mut(&node) {
            redial.under_way = false;
            redial.at = now + backoff(redial.failures);
            redial.failures = redial.failures.saturating_add(1);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.seeds = None;
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let room = self.under_way() < UNDER_WAY_MAX;
        // One that is under way is looked at again when it is overdue.
        let nodes = self.nodes.values().filter(|redial| redial.under_way || room).map(|redial| redial.at);
        nodes.chain(self.seeds.map(|(at, _)| at)).min()
    }

    fn under_way(&self) -> usize {
        self.nodes.values().filter(|redial| redial.under_way).count()
    }

    /// Whom to dial now; `room` is how many more connections there may be.
    pub(crate) fn due(&mut self, now: Instant, room: usize) -> Vec<(NodeId, Vec<Multiaddr>)> {
        for redial in self.nodes.values_mut().filter(|redial| redial.under_way && redial.at <= now) {
            redial.under_way = false;
        }
        let mut free = room.min(UNDER_WAY_MAX.saturating_sub(self.under_way()));
        let mut due = Vec::new();
        for (node, redial) in self.nodes.iter_mut().filter(|(_, redial)| !redial.under_way && redial.at <= now) {
            if free == 0 {
                // Looked at again in a while, not in a busy loop.
                redial.at = now + BACKOFF_MIN;
                continue;
            }
            free -= 1;
            redial.under_way = true;
            redial.at = now + UNHEARD_MAX;
            due.push((*node, redial.addrs.clone()));
        }
        due
    }

    /// Whether to dial the join addresses now.
    pub(crate) fn seeds_due(&mut self, now: Instant) -> bool {
        match &mut self.seeds {
            Some((at, failures)) if *at <= now => {
                *at = now + backoff(*failures);
                *failures = failures.saturating_add(1);
                true
            }
            _ => false,
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let base = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    base.mul_f64(rand::random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId([5; 32]);
    const LOW: NodeId = NodeId([1; 32]);
    const HIGH: NodeId = NodeId([9; 32]);

    fn addrs() -> Vec<Multiaddr> {
        vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()]
    }

    fn want(redials: &mut Redials, now: Instant, nodes: &[NodeId]) {
        let addrs = addrs();
        redials.want(now, nodes.iter().map(|node| (*node, addrs.as_slice())), false);
    }

    fn due(redials: &mut Redials, now: Instant) -> Vec<NodeId> {
        redials.due(now, 100).into_iter().map(|(node, _)| node).collect()
    }

    #[test]
    fn the_lower_id_dials_first_and_the_higher_one_later() {
        let start = Instant::now();
        let mut redials = Redials::new(ME, true);
        want(&mut redials, start, &[LOW, HIGH]);
        assert_eq!(due(&mut redials, start + Duration::from_millis(100)), [HIGH]);
        assert_eq!(due(&mut redials, start + Duration::from_millis(900)), [LOW]);
    }

    #[test]
    fn a_node_that_nobody_can_dial_waits_for_nobody() {
        let start = Instant::now();
        let mut redials = Redials::new(ME, false);
        want(&mut redials, start, &[LOW, HIGH]);
        assert_eq!(due(&mut redials, start + Duration::from_millis(100)), [LOW, HIGH]);
    }

    #[test]
    fn a_node_that_fails_is_dialed_ever_less_often_and_never_forgotten() {
        let mut now = Instant::now();
        let mut redials = Redials::new(ME, false);
        want(&mut redials, now, &[LOW]);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let at = redials.wake_at().unwrap();
            waits.push(at.saturating_duration_since(now));
            now = at;
            assert_eq!(due(&mut redials, now), [LOW]);
            assert!(due(&mut redials, now).is_empty(), "dialed twice at a time");
            redials.failed(now, LOW);
        }
        assert!(waits[1] < Duration::from_secs(1) && waits[11] > Duration::from_secs(20), "{waits:?}");
    }

    #[test]
    fn a_connected_or_unwanted_node_is_not_dialed() {
        let now = Instant::now();
        let mut redials = Redials::new(ME, false);
        want(&mut redials, now, &[LOW, HIGH]);
        redials.connected(LOW);
        want(&mut redials, now, &[]);
        assert_eq!(redials.wake_at(), None);
    }

    #[test]
    fn join_addresses_are_dialed_while_there_is_no_peer() {
        let now = Instant::now();
        let mut redials = Redials::new(ME, false);
        redials.want(now, std::iter::empty(), true);
        let at = redials.wake_at().unwrap();
        assert!(redials.seeds_due(at) && !redials.seeds_due(at));
        redials.connected(LOW);
        assert_eq!(redials.wake_at(), None);
    }
}
