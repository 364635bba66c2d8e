//! DataFrame and SQL: Apache DataFusion plans and optimizes, the cluster's workers execute.
//!
//! A session of [`Frames`] is DataFusion's own, so all of its SQL and its `DataFrame` are there. Only the physical plan is
//! executed elsewhere.

pub mod csv;
mod error;
mod session;

pub use error::FrameError;
pub use session::{FrameExt, Frames};

/// The DataFusion that sessions are of.
pub use datafusion;
