//! CSV for DataFusion, read in parallel by exact byte ranges although quoted fields hold newlines.
//!
//! [`CsvTable`] is the table: it finds the files, infers what DataFusion would, and plans [`CsvScanExec`]s. Pass one
//! (`cuts`), the Bag's own, finds exact record ends in parallel and tells whether the parity of quotes may be trusted;
//! partitions are balanced lists of ranges between them (`part`). Pass two (`source`, `reader`) takes a range's bytes
//! through a finder of field boundaries (`fields`) into the wanted Arrow columns (`columns`), and fields that nobody asked for are
//! stepped over. Answers are those of DataFusion's own reader with `newlines_in_values`, or an error that names file and line.

mod columns;
mod cuts;
mod error;
mod exec;
mod factory;
mod fields;
mod options;
mod part;
mod reader;
mod source;
mod table;
mod tasks;

#[cfg(test)]
mod tests;

pub use error::CsvTableError;
pub use exec::CsvScanExec;
pub use factory::CsvTableFactory;
pub use options::{CsvReadOptions, OnBadRow};
pub use table::CsvTable;
