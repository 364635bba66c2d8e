//! The nodes' own messages on a control connection.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::ids::NodeId;

use super::link::LinkLimits;
use super::membership::{Ident, Report};

/// Bounds of the stream of these messages. Gossip that finds the queue full is dropped, which gossip can bear.
pub(crate) const LIMITS: LinkLimits =
    LinkLimits { frame_bytes_max: 1024 * 1024, queue_frames: 256, queue_bytes: 4 * 1024 * 1024 };

/// Members told of in one message, so that it stays within the frame limit.
pub(crate) const REPORTS_MAX: usize = 256;

/// What one node tells another whom it is connected with. A peer's message is input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum PeerMsg {
    /// Who I am, and whom I know. The first message of each side on a connection, and again when its identity changes.
    Sync {
        /// The sender; none when it tells of others only, or that it leaves.
        me: Option<Ident>,
        /// What it knows.
        reports: Vec<Report>,
    },
    /// A gossip packet, for the receiver or for a node that the receiver is connected with.
    Packet {
        /// Who made it.
        from: NodeId,
        /// Whom it is for.
        to: NodeId,
        /// The packet.
        data: Bytes,
    },
    /// Please make a bulk connection to me: I cannot dial you.
    DialBack,
}

impl PeerMsg {
    pub(crate) fn encode(&self) -> Bytes {
        // A message of ours is always encodable; were it not, an empty frame is refused by the peer.
        postcard::to_stdvec(self).map_or_else(|_| Bytes::new(), Bytes::from)
    }

    pub(crate) fn decode(frame: &[u8]) -> Result<PeerMsg, postcard::Error> {
        postcard::from_bytes(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_rubbish_is_an_error() {
        let msg = PeerMsg::Packet { from: NodeId([1; 32]), to: NodeId([2; 32]), data: Bytes::from_static(b"xyz") };
        let PeerMsg::Packet { data, .. } = PeerMsg::decode(&msg.encode()).unwrap() else { panic!("another message") };
        assert_eq!(&data[..], b"xyz");
        assert!(PeerMsg::decode(&[]).is_err());
        assert!(PeerMsg::decode(&[0, 1, 255, 255, 255, 255, 15]).is_err());
    }
}
