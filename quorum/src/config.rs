//! How a node takes part: [`QuorumConfig`].

use std::path::PathBuf;
use std::time::Duration;

use starling_core::election::Rank;
use starling_core::ids::NodeId;

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    /// The node itself. Who keeps nothing (`data` is `None`) or has lost what it kept must come with another id, since it
    /// has forgotten what it had promised.
    pub node: NodeId,
    /// The directory for its log; `None` keeps it in memory.
    pub data: Option<PathBuf>,
    /// How much it is preferred as a leader.
    pub rank: Rank,
    /// How many voters there are at most: 1, 3 or 5. The leader's number counts.
    pub voters_max: usize,
    /// How fast everything goes. All nodes must have the same.
    pub pace: Pace,
    /// Bytes of the log above which a snapshot of the ledger takes its place. Default: 8 MiB.
    pub log_bytes_max: u64,
}

impl QuorumConfig {
    /// A node that keeps its log in memory, with defaults for everything else.
    pub fn new(node: NodeId) -> QuorumConfig {
        QuorumConfig {
            node,
            data: None,
            rank: Rank::default(),
            voters_max: 5,
            pace: Pace::default(),
            log_bytes_max: 8 * 1024 * 1024,
        }
    }
}

/// How fast everything goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often a leader is heard. Default: 250 ms.
    pub heartbeat: Duration,
    /// For how long a leader leads without an answer from a quorum. Default: 1.2 s. Followers wait a tenth longer.
    pub lease: Duration,
    /// By how much a node stands later than the next better one. Default: 150 ms.
    pub step: Duration,
    /// For how long a voter is away before another takes its place. Default: 30 s.
    pub patience: Duration,
    /// For how long a pinned voter is there before a leader that is not pinned makes room for it. Default: 5 s.
    pub handover: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            heartbeat: Duration::from_millis(250),
            lease: Duration::from_millis(1200),
            step: Duration::from_millis(150),
            patience: Duration::from_secs(30),
            handover: Duration::from_secs(5),
        }
    }
}

impl Pace {
    /// For how long a follower takes a leader that it has heard for one that leads.
    pub(crate) fn follower_lease(&self) -> Duration {
        self.lease + self.lease / 10
    }

    /// Whether the numbers fit together.
    pub(crate) fn is_sound(&self) -> bool {
        let at_least = Duration::from_millis(10);
        self.heartbeat >= at_least
            && self.step >= at_least
            && self.lease >= self.heartbeat * 2
            && self.lease <= Duration::from_secs(3600)
    }
}
