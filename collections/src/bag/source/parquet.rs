//! Records of Parquet files, a row group a partition.

use std::io::{BufReader, Read};
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use starling_runtime::task::items::{Cell, Place, RawSink};

use super::read::Halt;
use super::{FileRange, Span};
use crate::input::{InputFile, ReadError};

/// A file as the parquet crate reads it.
struct Chunks(InputFile);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

fn external(error: ReadError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl ChunkReader for Chunks {
    type T = BufReader<Box<dyn Read + Send>>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(self.0.open(start, start).map_err(external)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        // The length is the file's own word; it is believed as far as the file goes.
        let end = start.saturating_add(length as u64);
        if end > self.0.len() {
            return Err(ParquetError::EOF(format!("bytes {start} to {end} are beyond the file's end")));
        }
        let mut bytes = Vec::with_capacity(length);
        let read = self.0.open(start, end).map_err(external)?.take(length as u64).read_to_end(&mut bytes);
        if read.map_err(|error| ParquetError::External(Box::new(error)))? != length {
            return Err(ParquetError::EOF(format!("the file ends before byte {end}")));
        }
        Ok(bytes.into())
    }
}

fn failed(file: &InputFile, error: ParquetError) -> ReadError {
    let error = match error {
        ParquetError::External(inner) => match inner.downcast::<ReadError>() {
            Ok(own) => return *own,
            Err(other) => ParquetError::External(other),
        },
        other => other,
    };
    ReadError::Format { path: file.path().to_owned(), format: "Parquet", message: error.to_string() }
}

fn open(file: &InputFile) -> Result<SerializedFileReader<Chunks>, ReadError> {
    SerializedFileReader::new(Chunks(file.clone())).map_err(|error| failed(file, error))
}

/// The file's row groups.
pub(super) fn row_groups(file: &InputFile) -> Result<Vec<Span>, ReadError> {
    let reader = open(file)?;
    let mut rows_before = 0;
    let mut spans = Vec::new();
    for (number, group) in (0..).zip(reader.metadata().row_groups()) {
        spans.push(Span::RowGroup { number, rows_before });
        rows_before += u64::try_from(group.num_rows()).unwrap_or(0);
    }
    Ok(spans)
}

/// The schema with only these columns; `None` for all.
fn projection(schema: &Type, wanted: Option<&[String]>) -> Option<Type> {
    let wanted = wanted?;
    let fields: Vec<_> = schema
        .get_fields()
        .iter()
        .filter(|field| wanted.iter().any(|name| name == field.name()))
        .map(Arc::clone)
        .collect();
    if fields.is_empty() {
        return None;
    }
    Type::group_type_builder(schema.name()).with_fields(fields).build().ok()
}

/// Gives each record of a row group to `sink`.
pub(super) fn feed(range: &FileRange, sink: &mut dyn RawSink) -> Result<(), Halt> {
    let Span::RowGroup { number, rows_before } = range.span else { return Ok(()) };
    let failed = |error| failed(&range.file, error);
    let reader = open(&range.file)?;
    if number >= reader.num_row_groups() as u64 {
        return Err(crate::csv::CsvError::Changed { path: range.file.path().to_owned() }.into());
    }
    let wanted = projection(reader.metadata().file_metadata().schema(), range.reading.wanted.as_deref());
    let group = reader.get_row_group(number as usize).map_err(failed)?;
    for (row, number) in group.get_row_iter(wanted).map_err(failed)?.zip(rows_before + 1..) {
        range.push_cell(sink, &record(row.map_err(failed)?), Place::Row(number))?;
    }
    Ok(())
}

fn record(row: Row) -> Cell {
    Cell::Fields(row.into_columns().into_iter().map(|(name, field)| (name, cell(field))).collect())
}

/// Times are numbers in their own unit since their own beginning.
fn cell(field: Field) -> Cell {
    match field {
        Field::Null => Cell::Null,
        Field::Bool(value) => Cell::Bool(value),
        Field::Byte(value) => Cell::Int(value.into()),
        Field::Short(value) => Cell::Int(value.into()),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => Cell::Int(value.into()),
        Field::Long(value)
        | Field::TimeMicros(value)
        | Field::TimestampMillis(value)
        | Field::TimestampMicros(value) => Cell::Int(value),
        Field::UByte(value) => Cell::Uint(value.into()),
        Field::UShort(value) => Cell::Uint(value.into()),
        Field::UInt(value) => Cell::Uint(value.into()),
        Field::ULong(value) => Cell::Uint(value),
        Field::Float16(value) => Cell::Float(value.to_f64()),
        Field::Float(value) => Cell::Float(value.into()),
        Field::Double(value) => Cell::Float(value),
        Field::Decimal(_) => Cell::Loose(field.to_string()),
        Field::Str(text) => Cell::Text(text),
        Field::Bytes(bytes) => Cell::Bytes(bytes.data().to_vec()),
        Field::Group(row) => record(row),
        Field::ListInternal(list) => Cell::List(list.elements().iter().cloned().map(cell).collect()),
        Field::MapInternal(map) => {
            let entry = |(name, value): &(Field, Field)| {
                let name = match name {
                    Field::Str(text) => text.clone(),
                    other => other.to_string(),
                };
                (name, cell(value.clone()))
            };
            Cell::Fields(map.entries().iter().map(entry).collect())
        }
    }
}
