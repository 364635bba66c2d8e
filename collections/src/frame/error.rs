//! What can go wrong with a query.

use datafusion::error::DataFusionError;
use starling_runtime::task::ClientError;

use super::csv::CsvTableError;
use super::rows::RowsError;
use super::tables::TableError;
use crate::BagError;

/// Why a query has no answer. Nothing was changed, unless the query itself was to change something.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// DataFusion refused the query, or a worker failed at it.
    #[error(transparent)]
    Query(#[from] DataFusionError),
    /// Files are no table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// CSV files cannot be opened as a table.
    #[error(transparent)]
    Csv(#[from] CsvTableError),
    /// The frame's columns are none that rows can have, or not those asked for.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A bag that was to become a frame cannot be computed.
    #[error(transparent)]
    Bag(#[from] BagError),
    /// The cluster could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
}
