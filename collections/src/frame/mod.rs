//! DataFrame and SQL: Apache DataFusion plans and optimizes, the cluster's workers execute.
//!
//! A session of [`Frames`] is DataFusion's own, so all of its SQL and its `DataFrame` are there. Only the physical plan is
//! executed elsewhere.

mod error;
mod progress;
mod session;
mod tables;

pub use error::FrameError;
pub use progress::{QueryProgress, StageProgress};
pub use session::{FrameExt, Frames};
pub use tables::{OnBadRow, TableError, TableFormat, TableOptions, TableSource};

/// The DataFusion that sessions are of.
pub use datafusion;
