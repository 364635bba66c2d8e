//! What a seed stands for: how many nodes there are, and what goes wrong how often.

use starling_quorum::{Rank, Reach};

use crate::rng::Rng;

/// What a seed stands for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Each with its rank.
    pub(crate) ranks: Vec<Rank>,
    pub(crate) voters_max: usize,
    /// For how long things go wrong, in milliseconds.
    pub(crate) faults_ms: u64,
    /// How long to the next fault at most, in milliseconds.
    pub(crate) pause_ms: u64,
    /// How long a message takes at most, in milliseconds.
    pub(crate) delay_ms: u64,
    /// How many messages of a thousand are lost, and how many come twice.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// After how many bytes of log a snapshot is made.
    pub(crate) log_bytes_max: u64,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Plan {
        let nodes = *rng.pick(&[1, 2, 3, 3, 3, 4, 5, 5, 6, 7]).unwrap_or(&3);
        let pinned = rng.chance(30).then(|| rng.below(nodes));
        let rank = |node| Rank {
            pinned: Some(node) == pinned,
            reach: [Reach::None, Reach::Loopback, Reach::Private, Reach::Public][rng.below(4) as usize],
            room: rng.below(3),
        };
        Plan {
            ranks: (0..nodes).map(rank).collect(),
            voters_max: *rng.pick(&[1, 3, 3, 5, 5]).unwrap_or(&3),
            faults_ms: rng.between(15_000, 60_000),
            pause_ms: rng.between(500, 8_000),
            delay_ms: *rng.pick(&[2, 10, 40, 150]).unwrap_or(&10),
            lost: *rng.pick(&[0, 0, 5, 50, 200]).unwrap_or(&0),
            doubled: *rng.pick(&[0, 5, 50]).unwrap_or(&0),
            log_bytes_max: *rng.pick(&[700, 4_000, 1_000_000]).unwrap_or(&4_000),
        }
    }
}
