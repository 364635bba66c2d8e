//! DataFrame and SQL: Apache DataFusion plans and optimizes, the cluster's workers execute.
//!
//! A session of [`Frames`] is DataFusion's own, so all of its SQL and its `DataFrame` are there. Only the physical plan is
//! executed elsewhere: cut at its exchanges into stages (`cut`), of which each partition is a task (`stage`).
//!
//! ```text
//!  client:  SQL -> logical plan -> physical plan (planner) -> stages (cut) -> tasks, all submitted at once (mesh_exec)
//!  worker:  plan decoded (codec) -> one partition of it (slice) -> run (stage) -> an output in parts (sink, batches)
//! ```
//!
//! Files are written by the tasks too (`write`), and get their names from the client when all are whole (`write_exec`).
//!
//! A task's inputs are the outputs of other stages' tasks, which its plan reads by a leaf (`exchange`). They are values like
//! any others: in the producing worker's store, spilled when memory is short, fetched from peer to peer, a part for each
//! reader, and computed again if their worker is lost.

mod batches;
mod cells;
mod codec;
pub mod csv;
mod cut;
mod error;
mod exchange;
pub mod files;
mod functions;
mod leaf;
mod mesh_exec;
mod metrics;
mod persist;
mod planner;
mod progress;
mod row;
mod rows;
mod scan;
mod session;
mod shown;
mod single;
mod sink;
mod slice;
mod stage;
mod stored;
mod tables;
mod write;
mod write_exec;

pub use csv::OnBadRow;
pub use error::FrameError;
pub use functions::LinkedFunctions;
pub use persist::Persist;
pub use progress::{QueryProgress, StageProgress};
pub use row::{Cell, FromCell, Row, RowError, Unit};
pub use rows::{ColumnItem, RowsError, RowsExt};
pub use session::{FrameExt, Frames};
pub use tables::{TableError, TableFormat, TableOptions, TableSource};

pub use crate::row;

/// The DataFusion that sessions are of.
pub use datafusion;
#[doc(hidden)]
pub use starling_runtime::task::inventory as __inventory;
