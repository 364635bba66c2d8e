//! What a scan reads: files, ranges of them, and who reads which.

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use serde::{Deserialize, Serialize};

use super::error::CsvTableError;
use super::options::{Compression, Format};
use super::reader::Origin;
use crate::csv::FileStamp;

/// Where a file lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Place {
    /// In the file system of whoever reads it.
    Local(FileStamp),
    /// In an object store.
    Remote(Object),
}

/// An object as it was when it was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Object {
    /// The store: scheme and authority.
    pub(super) store: String,
    /// The object in the store.
    pub(super) path: String,
    pub(super) len: u64,
    pub(super) modified_ms: i64,
    pub(super) etag: Option<String>,
}

impl Place {
    /// What the user calls it.
    pub(super) fn name(&self) -> String {
        match self {
            Place::Local(stamp) => stamp.path.clone(),
            Place::Remote(object) => format!("{}{}", object.store, object.path),
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Place::Local(stamp) => stamp.len,
            Place::Remote(object) => object.len,
        }
    }
}

/// A file of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableFile {
    pub(super) place: Place,
    pub(super) compression: Compression,
    /// How many columns it has.
    pub(super) columns: usize,
    /// For each column of the table that comes from files the file's number of it, if that is not the same.
    pub(super) mapping: Option<Vec<Option<usize>>>,
    /// The values of the table's further columns, which the path tells.
    pub(super) partition_values: Vec<Option<String>>,
}

/// Bytes `start..end` of a file: whole records, and what stands before them if `start` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The file's number in its table.
    pub(super) file: usize,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Part {
    pub(super) fn nbytes(&self) -> u64 {
        self.end - self.start
    }
}

/// A table as its scans see it: the same for all of its partitions.
#[derive(Clone, Debug)]
pub(super) struct TableSpec {
    pub(super) format: Format,
    /// The columns that come from files, then those that paths tell.
    pub(super) schema: SchemaRef,
    /// How many come from files.
    pub(super) file_columns: usize,
    pub(super) files: Vec<TableFile>,
}

impl TableSpec {
    /// Where the table's columns with these numbers come from in `file`.
    pub(super) fn origins(&self, file: &TableFile, columns: &[usize]) -> Result<Vec<Origin>, CsvTableError> {
        let origin = |&number: &usize| {
            let field = self.schema.field(number);
            if let Some(partition) = number.checked_sub(self.file_columns) {
                let value = file.partition_values.get(partition).cloned().flatten();
                return partition_value(&file.place, field.name(), field.data_type(), value).map(Origin::Constant);
            }
            let place = match &file.mapping {
                None => Some(number),
                Some(mapping) => mapping.get(number).copied().flatten(),
            };
            Ok(place.map_or(Origin::Constant(ScalarValue::Null), Origin::File))
        };
        columns.iter().map(origin).collect()
    }
}

/// The value that a path tells, as a value of its column.
pub(super) fn partition_value(
    place: &Place,
    column: &str,
    data_type: &datafusion::arrow::datatypes::DataType,
    value: Option<String>,
) -> Result<ScalarValue, CsvTableError> {
    let Some(value) = value else { return Ok(ScalarValue::Null) };
    ScalarValue::try_from_string(value.clone(), data_type).map_err(|_| CsvTableError::PartitionValue {
        path: place.name(),
        column: column.to_owned(),
        value,
        data_type: data_type.clone(),
    })
}

/// Deals pieces out to `count` partitions, in their order, so that each has about as many bytes. Neighbours in one file
/// become one part. There are fewer partitions if there are fewer pieces.
pub(super) fn deal(pieces: impl IntoIterator<Item = Part> + Clone, count: usize) -> Vec<Vec<Part>> {
    let total: u128 = pieces.clone().into_iter().map(|piece| u128::from(piece.nbytes())).sum();
    let mut partitions: Vec<Vec<Part>> = vec![Vec::new(); count.max(1)];
    let mut before = 0_u128;
    for piece in pieces {
        let middle = before + u128::from(piece.nbytes()) / 2;
        before += u128::from(piece.nbytes());
        let number = (middle * count as u128).checked_div(total).unwrap_or(0) as usize;
        let last = partitions.len() - 1;
        let partition = &mut partitions[number.min(last)];
        match partition.last_mut() {
            Some(part) if part.file == piece.file && part.end == piece.start => part.end = piece.end,
            _ => partition.push(piece),
        }
    }
    partitions.retain(|partition| !partition.is_empty());
    if partitions.is_empty() {
        partitions.push(Vec::new());
    }
    partitions
}
