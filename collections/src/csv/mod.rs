//! CSV files cut into blocks that the workers read in parallel, exactly, although quoted fields hold newlines.
//!
//! Pass one (`scan`): a task a block counts the block's quotes and notes its first record end under both assumptions,
//! that it starts outside and inside a quoted field. The client turns these into exact ranges of whole records
//! (`split`). Pass two (`records`): a task a range reads exactly its bytes, with no look at its neighbours. A file
//! that is not RFC 4180 (a stray quote, an unclosed one, a record with another number of fields) is an error that names
//! the line. Nothing here guesses: no dialects, no repairs.

mod columns;
mod error;
mod file;
mod files;
mod mask;
mod records;
mod scan;
mod split;
mod tasks;

#[cfg(test)]
mod tests;

pub(crate) use columns::Wanted;
pub use error::CsvError;
pub use file::FileStamp;
pub(crate) use file::{for_each_piece, same_time};
pub(crate) use files::absolute;
pub use files::{CsvFiles, CsvOptions, Scanned};
#[cfg(feature = "frame")]
pub(crate) use mask::{WINDOW, mask};
pub(crate) use records::{Columns, Fault, Malformed, Records};
#[cfg(feature = "frame")]
pub(crate) use scan::{BlockScan, Marks};
#[cfg(feature = "frame")]
pub(crate) use split::{OddQuotes, first_stray, record_ends};
pub use split::{Range, Split};
#[cfg(feature = "frame")]
pub(crate) use tasks::scan as scan_task;
pub(crate) use tasks::{BYTE_ORDER_MARK, fault, first_fault, open_records};
#[cfg(test)]
pub(crate) use tests::real_posts;
