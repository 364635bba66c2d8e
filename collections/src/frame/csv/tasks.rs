//! What the workers do before a table can be scanned: find its files, and look at their first records.

use std::io::Read;

use datafusion::arrow::csv::reader::Format as ArrowFormat;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;
use regex::Regex;
use serde::{Deserialize, Serialize};
use starling_macros::task;

use super::error::CsvTableError;
use super::options::{Compression, Format};
use crate::csv::{CsvError, FileStamp};

/// Whether a file's name ends with `extension`, perhaps with the end of a compression behind it.
pub(super) fn has_extension(name: &str, extension: &str) -> bool {
    let name = match Compression::of_name(name) {
        Compression::None => name,
        _ => name.rsplit_once('.').map_or(name, |(name, _)| name),
    };
    name.ends_with(extension)
}

/// What the first records of a file show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// The columns' names, and what their values are.
    pub(super) columns: Vec<(String, Kind)>,
    /// Whether there are no more records than were looked at.
    pub(super) is_whole: bool,
}

/// The types that are inferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Null,
    Boolean,
    Int64,
    Float64,
    Date32,
    TimestampSecond,
    TimestampMillisecond,
    TimestampMicrosecond,
    TimestampNanosecond,
    Utf8,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Null,
        Kind::Boolean,
        Kind::Int64,
        Kind::Float64,
        Kind::Date32,
        Kind::TimestampSecond,
        Kind::TimestampMillisecond,
        Kind::TimestampMicrosecond,
        Kind::TimestampNanosecond,
        Kind::Utf8,
    ];

    fn of(data_type: &DataType) -> Kind {
        Kind::ALL.into_iter().find(|kind| kind.data_type() == *data_type).unwrap_or(Kind::Utf8)
    }

    pub(super) fn data_type(self) -> DataType {
        use datafusion::arrow::datatypes::TimeUnit;
        match self {
            Kind::Null => DataType::Null,
            Kind::Boolean => DataType::Boolean,
            Kind::Int64 => DataType::Int64,
            Kind::Float64 => DataType::Float64,
            Kind::Date32 => DataType::Date32,
            Kind::TimestampSecond => DataType::Timestamp(TimeUnit::Second, None),
            Kind::TimestampMillisecond => DataType::Timestamp(TimeUnit::Millisecond, None),
            Kind::TimestampMicrosecond => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::TimestampNanosecond => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Kind::Utf8 => DataType::Utf8,
        }
    }

    /// What a column is that is the one in one file and the other in another, as it would be in a single file; `None` if
    /// that were text of what is none in either.
    pub(super) fn merge(self, other: Kind) -> Option<Kind> {
        let is_time = |kind: Kind| (Kind::Date32 as u8..=Kind::TimestampNanosecond as u8).contains(&(kind as u8));
        match (self, other) {
            (one, other) if one == other => Some(one),
            (Kind::Null, other) => Some(other),
            (one, Kind::Null) => Some(one),
            (Kind::Int64, Kind::Float64) | (Kind::Float64, Kind::Int64) => Some(Kind::Float64),
            (one, other) if is_time(one) && is_time(other) => Some(if one as u8 > other as u8 { one } else { other }),
            _ => None,
        }
    }
}

/// Looks at up to `records` records of a file.
#[task(crate = starling_runtime, json = false)]
pub(super) fn sample_file(
    file: &FileStamp,
    format: &Format,
    compression: Compression,
    records: usize,
) -> Result<Sample, CsvTableError> {
    let open = || -> Result<Box<dyn Read + Send>, CsvTableError> {
        let input = file.open(0, file.len)?;
        let input = compression.file_type().convert_read(input);
        input.map_err(|source| CsvTableError::Store { url: file.path.clone(), source })
    };
    sample(open, &file.path, format, records)
}

/// Looks at up to `records` records of what `open` gives, perhaps twice.
pub(super) fn sample<R: Read>(
    open: impl Fn() -> Result<R, CsvTableError>,
    path: &str,
    format: &Format,
    records: usize,
) -> Result<Sample, CsvTableError> {
    let mut arrow = ArrowFormat::default()
        .with_header(format.has_header)
        .with_delimiter(format.delimiter)
        .with_quote(format.quote)
        // What is wrong with a record is told when it is read.
        .with_truncated_rows(true);
    if let Some(escape) = format.escape {
        arrow = arrow.with_escape(escape);
    }
    if let Some(comment) = format.comment {
        arrow = arrow.with_comment(comment);
    }
    if !format.null_values.is_empty() {
        let texts: Vec<String> = format.null_values.iter().map(|text| regex::escape(text)).collect();
        let nulls = Regex::new(&format!("^({}|)$", texts.join("|")));
        arrow = arrow
            .with_null_regex(nulls.map_err(|error| arrow_error(path, ArrowError::ExternalError(Box::new(error))))?);
    }
    let (schema, seen) = match arrow.infer_schema(open()?, Some(records)) {
        Ok(inferred) => inferred,
        Err(error) => {
            let line = first_line_not_utf8(open()?, format, records);
            return Err(match line {
                Some(line) => CsvError::NotUtf8 { path: path.to_owned(), line }.into(),
                None => arrow_error(path, error),
            });
        }
    };
    if schema.fields().is_empty() {
        return Err(CsvError::Empty { path: path.to_owned() }.into());
    }
    let column = |field: &std::sync::Arc<Field>| (field.name().clone(), Kind::of(field.data_type()));
    Ok(Sample { columns: schema.fields().iter().map(column).collect(), is_whole: records > 0 && seen < records })
}

fn arrow_error(path: &str, source: ArrowError) -> CsvTableError {
    CsvTableError::Arrow { path: path.to_owned(), line: 1, source }
}

/// The line on which the first record begins that is not UTF-8, among the first so many.
fn first_line_not_utf8(input: impl Read, format: &Format, records: usize) -> Option<u64> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(format.delimiter)
        .quote(format.quote)
        .escape(format.escape)
        .comment(format.comment)
        .from_reader(input);
    let mut record = csv::ByteRecord::new();
    for _ in 0..=records {
        if !reader.read_byte_record(&mut record).ok()? {
            return None;
        }
        if record.iter().any(|field| std::str::from_utf8(field).is_err()) {
            return record.position().map(csv::Position::line);
        }
    }
    None
}

/// The schema of columns of these kinds.
pub(super) fn schema_of(columns: &[(String, Kind)]) -> Schema {
    Schema::new(columns.iter().map(|(name, kind)| Field::new(name, kind.data_type(), true)).collect::<Vec<_>>())
}
