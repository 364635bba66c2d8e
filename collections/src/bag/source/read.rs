//! What is read of a file, item by item.

use std::io::BufReader;

use starling_core::failure::FailureCause;
use starling_runtime::task::items::{Cell, Content, Place, RawSink, Record, Stop, encode_to};

use super::{FileRange, Format, Span, Unfit, xml};
use crate::bag::reading::TextErrors;
use crate::csv::CsvError;
use crate::input::{Line, Lines, ReadError};

/// What may stand before the first line, and means nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const JSON_REMEDY: &str = "; correct the line, or set JsonOptions::errors to JsonErrors::Skip to leave such lines out, or keep \
                           them by read_json_lines_kept";

/// Why reading ends before the end.
pub(super) enum Halt {
    /// The file cannot be read.
    Read(ReadError),
    /// The sink said so.
    Stop(Stop),
}

impl From<ReadError> for Halt {
    fn from(error: ReadError) -> Halt {
        Halt::Read(error)
    }
}

impl From<CsvError> for Halt {
    fn from(error: CsvError) -> Halt {
        Halt::Read(error.into())
    }
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Halt {
        Halt::Stop(stop)
    }
}

impl From<FailureCause> for Halt {
    fn from(cause: FailureCause) -> Halt {
        Halt::Stop(cause.into())
    }
}

/// What was left out of a partition.
#[derive(Default)]
struct Skipped {
    count: u64,
    first: String,
}

impl Skipped {
    fn add(&mut self, first: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = first();
        }
        self.count += 1;
    }

    fn tell(&self, path: &str) {
        if self.count > 0 {
            tracing::warn!(
                path,
                skipped = self.count,
                first = self.first,
                "part of a file was left out, as it did not fit"
            );
        }
    }
}

impl FileRange {
    /// Gives each item to `sink`.
    pub(crate) fn feed(&self, sink: &mut dyn RawSink) -> Result<(), FailureCause> {
        let fed = match &self.reading.format {
            Format::Text { not_utf8, with_path } => self.feed_text(sink, *not_utf8, *with_path),
            Format::JsonLines => self.feed_json(sink),
            Format::XmlRows { element } => self.feed_xml(sink, element),
            Format::Csv { missing_columns } => self.feed_csv(sink, *missing_columns),
            Format::Avro => self.feed_avro(sink),
            Format::Parquet => self.feed_parquet(sink),
        };
        match fed {
            // What was read is the file's content only if nothing wrote to it meanwhile.
            Ok(()) => self.file.check().map_err(|error| cause(&error)),
            Err(Halt::Stop(Stop::Enough)) => Ok(()),
            Err(Halt::Stop(Stop::Failed(cause))) => Err(*cause),
            Err(Halt::Stop(Stop::Unfit(message))) => Err(FailureCause::Codec { message: message.into() }),
            // A file that changed while it was read may look like anything.
            Err(Halt::Read(error)) => Err(cause(&self.file.check().err().unwrap_or(error))),
        }
    }

    fn feed_text(&self, sink: &mut dyn RawSink, not_utf8: TextErrors, with_path: bool) -> Result<(), Halt> {
        let mut skipped = Skipped::default();
        let mut scratch = Vec::new();
        let mut push = |line: &str| {
            if !with_path {
                return sink.push_line(line);
            }
            scratch.clear();
            encode_to(&(line, self.file.path()), &mut scratch)?;
            sink.push_encoded(&scratch)
        };
        self.for_each_line(|offset, line| match (std::str::from_utf8(line), not_utf8) {
            (Ok(text), _) => Ok(push(text)?),
            (Err(error), TextErrors::Fail) => {
                let offset = offset + error.valid_up_to() as u64;
                Err(ReadError::NotUtf8 { path: self.file.path().to_owned(), line: self.line_of(offset), offset }.into())
            }
            (Err(_), TextErrors::Lossy) => Ok(push(&String::from_utf8_lossy(line))?),
            (Err(_), TextErrors::Skip) => {
                skipped.add(|| format!("byte {offset}"));
                Ok(())
            }
        })?;
        skipped.tell(self.file.path());
        Ok(())
    }

    fn feed_json(&self, sink: &mut dyn RawSink) -> Result<(), Halt> {
        let mut skipped = Skipped::default();
        self.for_each_line(|offset, line| {
            if line.iter().all(u8::is_ascii_whitespace) {
                return Ok(());
            }
            let record = self.record(Content::Json(line), Place::Byte(offset));
            match sink.push_record(&record) {
                Err(Stop::Unfit(message)) if self.reading.unfit == Unfit::Skip => {
                    skipped.add(|| format!("byte {offset}: {message}"));
                    Ok(())
                }
                outcome => self.fitting(outcome, &record, JSON_REMEDY),
            }
        })?;
        skipped.tell(self.file.path());
        Ok(())
    }

    fn feed_xml(&self, sink: &mut dyn RawSink, element: &str) -> Result<(), Halt> {
        self.for_each_line(|offset, line| {
            let row = xml::row(line, element, self.reading.wanted.as_deref());
            let row = row.map_err(|message| self.misfit(Place::Byte(offset), message, ""))?;
            row.map_or(Ok(()), |row| self.push_cell(sink, &row, Place::Byte(offset)))
        })
    }

    fn record<'a>(&'a self, content: Content<'a>, place: Place) -> Record<'a> {
        Record { content, is_kept: self.reading.unfit == Unfit::Keep, path: self.file.path(), place }
    }

    pub(super) fn push_cell(&self, sink: &mut dyn RawSink, cell: &Cell, place: Place) -> Result<(), Halt> {
        let record = self.record(Content::Cell(cell), place);
        self.fitting(sink.push_record(&record), &record, "")
    }

    fn fitting(&self, outcome: Result<(), Stop>, record: &Record<'_>, remedy: &'static str) -> Result<(), Halt> {
        match outcome {
            Err(Stop::Unfit(message)) => Err(self.misfit(record.place, message.into(), remedy).into()),
            outcome => Ok(outcome?),
        }
    }

    /// A record at `place` that does not fit.
    pub(super) fn misfit(&self, place: Place, message: String, remedy: &'static str) -> ReadError {
        let line = match place {
            Place::Byte(offset) => self.line_of(offset),
            Place::Row(_) => String::new(),
        };
        let place = line.strip_suffix(", ").map_or_else(|| place.to_string(), str::to_owned);
        ReadError::Record { path: self.file.path().to_owned(), place, message, remedy }
    }

    fn line_of(&self, offset: u64) -> String {
        self.file.line_of(self.reading.compression_of(&self.file), offset)
    }

    /// Gives each line and its place to `take`, without its end (`\n` or `\r\n`).
    fn for_each_line(&self, mut take: impl FnMut(u64, &[u8]) -> Result<(), Halt>) -> Result<(), Halt> {
        let compression = self.reading.compression_of(&self.file);
        let limit = self.reading.line_bytes_max;
        let io = |source| self.file.io_error(compression, source);
        let (mut lines, end) = match self.span {
            Span::Bytes { start, end } => {
                // The byte before the range says whether a line starts with the range.
                let before = start.saturating_sub(1);
                let mut lines = Lines::new(self.file.open(before, end)?, before, limit);
                if start > 0 {
                    // A line that ends behind this range is not this range's: there is no need to look for its end.
                    lines.skip_line(end).map_err(io)?;
                }
                (lines, end)
            }
            Span::Whole | Span::RowGroup { .. } => (Lines::new(self.file.unpacked(compression)?, 0, limit), u64::MAX),
        };
        while lines.at() < end {
            match lines.next().map_err(io)? {
                Line::Whole(0, line) if !matches!(self.reading.format, Format::Text { .. }) => {
                    take(0, line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line))?;
                }
                Line::Whole(offset, line) => take(offset, line)?,
                Line::TooLong(offset) => {
                    let path = self.file.path().to_owned();
                    return Err(ReadError::LongLine { path, line: self.line_of(offset), offset, limit }.into());
                }
                Line::End if end == u64::MAX => break,
                Line::End => return Err(CsvError::Changed { path: self.file.path().to_owned() }.into()),
            }
        }
        Ok(())
    }

    fn feed_csv(&self, sink: &mut dyn RawSink, missing_columns: bool) -> Result<(), Halt> {
        let compression = self.reading.compression_of(&self.file);
        let input = BufReader::with_capacity(1 << 18, self.file.unpacked(compression)?);
        let wanted = self.reading.wanted.as_deref();
        let push = |offset, cell: Result<Cell, String>| {
            let place = Place::Byte(offset);
            let cell = cell.map_err(|message| self.misfit(place, message, ""))?;
            self.push_cell(sink, &cell, place)
        };
        super::csv::feed(self.file.path(), input, wanted, missing_columns, push).map_err(|halt| match halt {
            super::csv::CsvHalt::Malformed(malformed) => {
                let line = self.line_of(malformed.offset);
                let number = line.trim_start_matches("line ").trim_end_matches(", ").parse().unwrap_or(0);
                match malformed.fault {
                    crate::csv::Fault::Io(source) => self.file.io_error(compression, source).into(),
                    _ => CsvError::malformed(self.file.path(), malformed, |_| number).into(),
                }
            }
            super::csv::CsvHalt::Other(halt) => halt,
        })
    }

    #[cfg(feature = "avro")]
    fn feed_avro(&self, sink: &mut dyn RawSink) -> Result<(), Halt> {
        super::avro::feed(self, sink)
    }

    #[cfg(not(feature = "avro"))]
    fn feed_avro(&self, _: &mut dyn RawSink) -> Result<(), Halt> {
        let what = format!("reading {} as Avro", self.file.path());
        Err(ReadError::NoFeature { what, feature: "avro" }.into())
    }

    #[cfg(feature = "parquet")]
    fn feed_parquet(&self, sink: &mut dyn RawSink) -> Result<(), Halt> {
        super::parquet::feed(self, sink)
    }

    #[cfg(not(feature = "parquet"))]
    fn feed_parquet(&self, _: &mut dyn RawSink) -> Result<(), Halt> {
        let what = format!("reading {} as Parquet", self.file.path());
        Err(ReadError::NoFeature { what, feature: "parquet" }.into())
    }
}

/// An error as a task's failure.
pub(crate) fn cause(error: &ReadError) -> FailureCause {
    let source = std::error::Error::source(error).map(ToString::to_string);
    FailureCause::Error { message: error.to_string(), sources: source.into_iter().collect() }
}
