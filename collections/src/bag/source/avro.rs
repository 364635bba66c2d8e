//! Records of Avro files.

use apache_avro::Reader;
use apache_avro::types::Value;
use starling_runtime::task::items::{Cell, Place, RawSink};

use super::FileRange;
use super::read::Halt;
use crate::input::ReadError;

/// Gives each record to `sink`, as it is read.
pub(super) fn feed(range: &FileRange, sink: &mut dyn RawSink) -> Result<(), Halt> {
    let compression = range.reading.compression_of(&range.file);
    let input = std::io::BufReader::with_capacity(1 << 18, range.file.unpacked(compression)?);
    let failed = |number: u64, error: apache_avro::Error| {
        let at = if number == 0 { String::new() } else { format!("record {number}: ") };
        ReadError::Format { path: range.file.path().to_owned(), format: "Avro", message: format!("{at}{error}") }
    };
    let reader = Reader::new(input).map_err(|error| failed(0, error))?;
    for (record, number) in reader.zip(1..) {
        let record = record.map_err(|error| failed(number, error))?;
        let cell = match record {
            Value::Record(fields) => {
                let is_wanted =
                    |name: &String| range.reading.wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
                let fields = fields.into_iter().filter(|(name, _)| is_wanted(name));
                Cell::Fields(fields.map(|(name, value)| (name, cell(value))).collect())
            }
            other => cell(other),
        };
        range.push_cell(sink, &cell, Place::Row(number))?;
    }
    Ok(())
}

/// Times are numbers in their own unit since their own beginning.
fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Boolean(value) => Cell::Bool(value),
        Value::Int(value) | Value::Date(value) | Value::TimeMillis(value) => Cell::Int(value.into()),
        Value::Long(value)
        | Value::TimeMicros(value)
        | Value::TimestampMillis(value)
        | Value::TimestampMicros(value)
        | Value::TimestampNanos(value)
        | Value::LocalTimestampMillis(value)
        | Value::LocalTimestampMicros(value)
        | Value::LocalTimestampNanos(value) => Cell::Int(value),
        Value::Float(value) => Cell::Float(value.into()),
        Value::Double(value) => Cell::Float(value),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Cell::Bytes(bytes),
        Value::String(text) | Value::Enum(_, text) => Cell::Text(text),
        Value::Union(_, value) => cell(*value),
        Value::Array(values) => Cell::List(values.into_iter().map(cell).collect()),
        Value::Map(map) => {
            let mut fields: Vec<_> = map.into_iter().map(|(name, value)| (name, cell(value))).collect();
            fields.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            Cell::Fields(fields)
        }
        Value::Record(fields) => Cell::Fields(fields.into_iter().map(|(name, value)| (name, cell(value))).collect()),
        Value::Decimal(value) => Vec::try_from(&value).map_or(Cell::Null, Cell::Bytes),
        Value::BigDecimal(value) => Cell::Loose(value.to_string()),
        Value::Duration(value) => Cell::Bytes(<[u8; 12]>::from(value).to_vec()),
        Value::Uuid(value) => Cell::Text(value.to_string()),
    }
}
