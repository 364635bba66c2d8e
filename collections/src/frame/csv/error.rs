//! Why a CSV table cannot be opened or read, with the remedy.

use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use starling_runtime::task::ClientError;

use super::reader::{Fault, FaultKind};
use crate::csv::CsvError;
use crate::files::FilesError;

/// Why a CSV table cannot be opened or read. Nothing was changed; the same files give the same error.
#[derive(Debug, thiserror::Error)]
pub enum CsvTableError {
    /// A file cannot be read, or is no CSV.
    #[error(transparent)]
    File(#[from] CsvError),
    /// The files are not where the workers could read them.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A text is no value of its column's type.
    #[error(
        "{path}, line {line}: {value:?} in column {column} is no {data_type}; look at more records \
         (schema_infer_max_rec), give a schema, name it in null_values, or skip bad rows"
    )]
    Value {
        /// The file.
        path: String,
        /// The physical line on which the record starts, from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// The text.
        value: String,
        /// The column's type.
        data_type: DataType,
    },
    /// A column that is not to have NULLs has one.
    #[error("{path}, line {line}: column {column} is empty, but may not be NULL; make it nullable in the schema")]
    Null {
        /// The file.
        path: String,
        /// The physical line on which the record starts, from 1.
        line: u64,
        /// The column's name.
        column: String,
    },
    /// Files that are read as one table have different columns.
    #[error(
        "{path} has other columns than {first}{}{}{}; read them as tables of their own, or put them together by name \
         (union_by_name)",
        named(" it lacks ", .missing), named(" it adds ", .added),
        if .missing.is_empty() && .added.is_empty() { ": they stand in another order" } else { "" }
    )]
    Columns {
        /// The file.
        path: String,
        /// The file that it was compared with.
        first: String,
        /// What only the first has.
        missing: Vec<String>,
        /// What only the other has.
        added: Vec<String>,
    },
    /// A column has different types in files that are read as one table.
    #[error("column {column} is {data_type} in {path}, but {first_type} in {first}; give a schema")]
    Types {
        /// The column's name.
        column: String,
        /// The file.
        path: String,
        /// What the column is there.
        data_type: DataType,
        /// The file that it was compared with.
        first: String,
        /// What the column is there.
        first_type: DataType,
    },
    /// The schema that was given has another number of columns than a file.
    #[error(
        "the schema has {expected} columns, but {path} has {found}; give a schema of the file's columns, in their order"
    )]
    ColumnCount {
        /// The file.
        path: String,
        /// The schema's number of columns.
        expected: usize,
        /// The file's.
        found: usize,
    },
    /// The directories of files that are read as one table are named for different columns.
    #[error("{path} does not lie in directories that tell its {}; put it there, or leave it out", .expected.join(", "))]
    PartitionColumns {
        /// The file.
        path: String,
        /// The columns that are told by directories' names.
        expected: Vec<String>,
    },
    /// A directory's name tells a value that is none of its column's type.
    #[error("{value:?}, which the path of {path} says of column {column}, is no {data_type}")]
    PartitionValue {
        /// The file.
        path: String,
        /// The column's name.
        column: String,
        /// The value.
        value: String,
        /// The column's type.
        data_type: DataType,
    },
    /// An object store refused.
    #[error("{url} cannot be read")]
    Store {
        /// What was asked for.
        url: String,
        /// What the store said.
        source: DataFusionError,
    },
    /// Arrow or a decompressor refused.
    #[error("{path}, near line {line}, cannot be read")]
    Arrow {
        /// The file.
        path: String,
        /// The physical line, from 1.
        line: u64,
        /// What was said.
        source: ArrowError,
    },
    /// The cluster could not be asked, or a task of it failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

fn named(what: &str, columns: &[String]) -> String {
    if columns.is_empty() { String::new() } else { format!(",{what}{}", columns.join(", ")) }
}

impl From<CsvTableError> for DataFusionError {
    fn from(error: CsvTableError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

impl CsvTableError {
    /// What `fault` means on this line of `path`; `name` and `data_type` are those of an output column.
    pub(super) fn of(
        fault: Fault,
        path: String,
        line: u64,
        column: impl Fn(usize) -> (String, DataType),
    ) -> CsvTableError {
        match fault.kind {
            FaultKind::Unclosed => CsvError::Unclosed { path, line }.into(),
            FaultKind::FieldCount { expected, found } => CsvError::FieldCount { path, line, expected, found }.into(),
            FaultKind::NotUtf8 => CsvError::NotUtf8 { path, line }.into(),
            FaultKind::Value { column: number, text } => {
                let (column, data_type) = column(number);
                CsvTableError::Value { path, line, column, value: text, data_type }
            }
            FaultKind::Null { column: number } => CsvTableError::Null { path, line, column: column(number).0 },
            FaultKind::Arrow(source) => CsvTableError::Arrow { path, line, source },
        }
    }
}
