//! Who leads, and the log that all voters share.
//!
//! A few nodes, 1, 3 or 5, vote. They elect one leader a term by Raft (`openraft`), and agree on the entries of the
//! [`Ledger`](starling_core::ledger::Ledger), which outlives any of them. [`Quorum`] is one node's part in that;
//! [`View`] is what it knows of the whole.
//!
//! What holds:
//!
//! - **One leader a term.** A term has at most one leader, ever. A node that starts again does not lead on in its term.
//! - **One leader at a time.** A leader leads as long as a quorum has answered within its lease; followers neither vote nor
//!   stand for a tenth longer. [`Quorum::still_leads`] looks at the clock. It is the monotone clock, which runs on while a
//!   process is stopped; that of a suspended machine may not, and there terms alone must fence.
//! - **What is agreed on stays.** [`Quorum::propose`] returns when a quorum has the entry on disk. A node that finds its files
//!   damaged does not start.
//! - **A node that cannot win does not stand.** It asks first, and so does not depose the leader that others hear.
//!
//! What it never does: it opens no connection ([`Transport`] is the mesh's), and decides nothing about tasks.
//!
//! - `node`: [`Quorum`]; `shared`: its state, and its [`View`]; `driver`: heartbeats, elections, members; `answer`: what it
//!   says to others; `lease`: the clock's part.
//! - `store`: the files, over a [`Disk`]; `record`: their records; `log`, `machine`: the same as openraft sees them.
//! - `wire`, `network`: requests, checked, and how they are sent; `members`: who votes and who only listens.

mod answer;
mod config;
mod disk;
mod driver;
mod error;
mod lease;
mod log;
mod machine;
mod members;
mod network;
mod node;
mod raft;
mod record;
mod shared;
mod store;
mod view;
mod wire;

pub use config::{Pace, QuorumConfig};
pub use disk::{Disk, Folder, Memory};
pub use error::{ProposeError, QuorumError, TransportError};
pub use network::Transport;
pub use node::Quorum;
pub use starling_core::election::{Rank, Reach};
pub use view::View;
pub use wire::REQUEST_BYTES_MAX;
