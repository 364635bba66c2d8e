//! From the bytes of a range to Arrow batches, whoever reads the bytes.
//!
//! The caller fills [`BatchReader::room`] and asks for the next batch. Fields go from that buffer straight into columns, and
//! only those that are wanted. Nothing is read, timed or awaited here.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use memchr::memchr_iter;

use super::columns::{Column, Unfinished, column};
use super::fields::{Form, Found, Span, Splitter};
use super::options::{Format, OnBadRow};
use crate::csv::BYTE_ORDER_MARK;

/// How much is read at once: it stays in the cache between reading and parsing.
const READ_BYTES: usize = 256 * 1024;

/// A batch ends, however few its rows are, when a column's texts are so large: far from what its offsets can say.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Where an output column comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// This column of the file.
    File(usize),
    /// The same for the whole file.
    Constant(ScalarValue),
}

/// What is wrong, and where in the range's file, in bytes.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) offset: u64,
    /// How many lines end before what is still in the buffer, for files that cannot be read again: see
    /// [`BatchReader::line_of`].
    pub(super) line: u64,
    pub(super) kind: FaultKind,
}

/// What is wrong with a row.
#[derive(Debug)]
pub(super) enum FaultKind {
    Unclosed,
    FieldCount {
        expected: usize,
        found: usize,
    },
    Value {
        column: usize,
        text: String,
    },
    /// A NULL in an output column that has none.
    Null {
        column: usize,
    },
    NotUtf8,
    Arrow(ArrowError),
}

/// What asking for a batch gave.
pub(super) enum Progress {
    Batch(RecordBatch),
    /// There has to be more in the buffer, or word that there is no more.
    More,
    Done,
}

/// Reads the rows of one range.
pub(super) struct BatchReader {
    splitter: Splitter,
    null_values: Vec<Vec<u8>>,
    skip_bad_rows: bool,
    truncated_rows: bool,
    /// The number of columns of the file.
    expected: usize,
    schema: SchemaRef,
    origins: Vec<Origin>,
    /// The columns that come from the file, in the order of `origins`, which is that of `spans`.
    columns: Vec<Box<dyn Column>>,
    /// The number of the output column of each of `columns`.
    outputs: Vec<usize>,
    spans: Vec<Span>,
    /// Where each row of the batch under way begins, in the file.
    row_offsets: Vec<u64>,
    batch_size: usize,
    /// How many more rows are wanted.
    limit: usize,
    scratch: Vec<u8>,

    buffer: Vec<u8>,
    /// `buffer[start..end]` is filled and not yet parsed.
    start: usize,
    end: usize,
    /// The place of `buffer[0]` in the file.
    offset: u64,
    at_end: bool,
    /// Line ends before `buffer[0]`, if they are counted.
    lines: Option<u64>,
    /// What is to be skipped before the first row.
    head: Head,
    bad_rows: usize,
}

/// What stands before the first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// Perhaps a byte order mark, and a header if there are headers.
    Mark {
        header: bool,
    },
    Header,
    Passed,
}

/// Which rows of what file are read how.
pub(super) struct Reading<'a> {
    pub(super) format: &'a Format,
    /// The number of columns of the file.
    pub(super) columns: usize,
    /// The output's schema, and where each of its columns comes from.
    pub(super) schema: SchemaRef,
    pub(super) origins: Vec<Origin>,
    pub(super) batch_size: usize,
    pub(super) limit: usize,
    /// Where the range begins. At 0 there are a byte order mark and a header to skip.
    pub(super) offset: u64,
    /// Whether line ends are counted, because the file cannot be read again for that.
    pub(super) counts_lines: bool,
}

impl BatchReader {
    pub(super) fn new(reading: Reading<'_>, buffer: Vec<u8>) -> Result<BatchReader, ArrowError> {
        let Reading { format, schema, origins, batch_size, offset, .. } = reading;
        // Small batches of a small limit need no room for a large one.
        let rows = batch_size.min(reading.limit).min(8192);
        let (mut columns, mut outputs, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for (number, origin) in origins.iter().enumerate() {
            if let Origin::File(place) = origin {
                columns.push(column(schema.field(number).data_type(), rows)?);
                outputs.push(number);
                wanted.push(*place);
            }
        }
        Ok(BatchReader {
            splitter: Splitter::new(format, &wanted),
            null_values: format.null_values.iter().map(|text| text.clone().into_bytes()).collect(),
            skip_bad_rows: format.on_bad_row == OnBadRow::Skip,
            truncated_rows: format.truncated_rows,
            expected: reading.columns,
            spans: vec![Span::default(); wanted.len()],
            schema,
            origins,
            columns,
            outputs,
            row_offsets: Vec::with_capacity(rows),
            batch_size: batch_size.max(1),
            limit: reading.limit,
            scratch: Vec::new(),
            buffer,
            start: 0,
            end: 0,
            offset,
            at_end: false,
            lines: reading.counts_lines.then_some(0),
            head: if offset == 0 { Head::Mark { header: format.has_header } } else { Head::Passed },
            bad_rows: 0,
        })
    }

    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if let Some(lines) = &mut self.lines {
            *lines += memchr_iter(b'\n', &self.buffer[..self.start]).count() as u64;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.offset += self.start as u64;
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            // A long record: doubling keeps the work of looking at it again linear.
            self.buffer.resize((self.buffer.len() * 2).max(READ_BYTES), 0);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes are in the room now; none means that there is nothing more.
    pub(super) fn filled(&mut self, nbytes: usize) {
        self.end += nbytes;
        self.at_end |= nbytes == 0;
    }

    /// How many rows were left out since this was last asked.
    pub(super) fn take_bad_rows(&mut self) -> usize {
        std::mem::take(&mut self.bad_rows)
    }

    /// The buffer, for another range.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        // What a giant record needed is not kept.
        if self.buffer.len() <= 4 * READ_BYTES { self.buffer } else { Vec::new() }
    }

    /// The next batch, as far as the buffer tells.
    pub(super) fn next(&mut self) -> Result<Progress, Fault> {
        loop {
            let rows = self.row_offsets.len();
            if rows >= self.batch_size
                || rows >= self.limit
                || self.columns.iter().any(|c| c.nbytes() >= TEXT_BYTES_MAX)
            {
                return if rows == 0 { Ok(Progress::Done) } else { Ok(Progress::Batch(self.finish()?)) };
            }
            if self.head != Head::Passed {
                if !self.pass_head()? {
                    return Ok(Progress::More);
                }
                continue;
            }
            let found = self.splitter.record(&self.buffer[self.start..self.end], self.at_end, &mut self.spans);
            match found {
                Found::Record { start, end, fields } => {
                    let record = self.start + start;
                    match self.append(fields) {
                        Ok(()) => self.row_offsets.push(self.offset + record as u64),
                        Err(kind) => {
                            for column in &mut self.columns {
                                column.truncate(rows);
                            }
                            if !self.skip_bad_rows {
                                return Err(self.fault(record, kind));
                            }
                            self.bad_rows += 1;
                        }
                    }
                    self.start += end;
                }
                Found::Nothing(nbytes) => {
                    self.start += nbytes;
                    return if rows == 0 { Ok(Progress::Done) } else { Ok(Progress::Batch(self.finish()?)) };
                }
                Found::More(nbytes) => {
                    self.start += nbytes;
                    return Ok(Progress::More);
                }
                Found::Unclosed(at) => return Err(self.fault(self.start + at, FaultKind::Unclosed)),
            }
        }
    }

    /// Skips what stands before the first row; false if more bytes are needed for that.
    fn pass_head(&mut self) -> Result<bool, Fault> {
        let bytes = &self.buffer[self.start..self.end];
        match self.head {
            Head::Mark { header } => {
                if bytes.len() < BYTE_ORDER_MARK.len() && !self.at_end {
                    return Ok(false);
                }
                if bytes.starts_with(BYTE_ORDER_MARK) {
                    self.start += BYTE_ORDER_MARK.len();
                }
                self.head = if header { Head::Header } else { Head::Passed };
            }
            Head::Header => match self.splitter.record(bytes, self.at_end, &mut self.spans) {
                Found::Record { end, .. } => {
                    self.start += end;
                    self.head = Head::Passed;
                }
                Found::Nothing(nbytes) => {
                    self.start += nbytes;
                    self.head = Head::Passed;
                }
                Found::More(nbytes) => {
                    self.start += nbytes;
                    return Ok(false);
                }
                Found::Unclosed(at) => return Err(self.fault(self.start + at, FaultKind::Unclosed)),
            },
            Head::Passed => {}
        }
        Ok(true)
    }

    /// Appends the row whose fields' spans were found.
    #[inline]
    fn append(&mut self, fields: usize) -> Result<(), FaultKind> {
        let short = fields < self.expected;
        if fields != self.expected && !(short && self.truncated_rows) {
            return Err(FaultKind::FieldCount { expected: self.expected, found: fields });
        }
        let bytes = &self.buffer[self.start..self.end];
        for (place, column) in self.columns.iter_mut().enumerate() {
            let span = self.spans[place];
            if short && matches!(self.origins[self.outputs[place]], Origin::File(number) if number >= fields) {
                column.push_null();
                continue;
            }
            let field = &bytes[span.start..span.end];
            let pushed = if span.form == Form::Plain {
                if field.is_empty() || self.null_values.iter().any(|text| text == field) {
                    column.push_null();
                    continue;
                }
                column.push(field)
            } else if self.null_values.is_empty() {
                column.push_escaped(&self.splitter, field, span.form, &mut self.scratch)
            } else {
                self.scratch.clear();
                self.splitter.unescape(field, span.form, &mut self.scratch);
                if self.null_values.contains(&self.scratch) {
                    column.push_null();
                    continue;
                }
                column.push(&self.scratch)
            };
            if pushed.is_err() {
                let mut text = Vec::new();
                self.splitter.unescape(field, span.form, &mut text);
                text.truncate(200);
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(FaultKind::Value { column: self.outputs[place], text });
            }
        }
        Ok(())
    }

    /// The batch of what was appended.
    fn finish(&mut self) -> Result<RecordBatch, Fault> {
        let batch = self.batch().map_err(|(row, kind)| self.fault_of_row(row, kind))?;
        self.limit -= batch.num_rows().min(self.limit);
        self.row_offsets.clear();
        Ok(batch)
    }

    /// The batch, or in which of its rows what is wrong.
    fn batch(&mut self) -> Result<RecordBatch, (usize, FaultKind)> {
        let rows = self.row_offsets.len();
        let arrow = |error| (0, FaultKind::Arrow(error));
        let mut from_file = self.columns.iter_mut();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.origins.len());
        for (number, origin) in self.origins.iter().enumerate() {
            let field = self.schema.field(number);
            let array = match origin {
                Origin::Constant(value) if value.is_null() => new_null_array(field.data_type(), rows),
                Origin::Constant(value) => {
                    value.to_array_of_size(rows).map_err(|error| arrow(ArrowError::ExternalError(Box::new(error))))?
                }
                Origin::File(_) => match from_file.next().map(|column| column.finish()) {
                    Some(Ok(array)) => array,
                    Some(Err(Unfinished::NotUtf8(row))) => return Err((row, FaultKind::NotUtf8)),
                    Some(Err(Unfinished::Arrow(error))) => return Err(arrow(error)),
                    None => new_null_array(field.data_type(), rows),
                },
            };
            if !field.is_nullable() && array.logical_null_count() > 0 {
                let row = (0..rows).find(|row| array.is_null(*row)).unwrap_or(0);
                return Err((row, FaultKind::Null { column: number }));
            }
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(arrow)
    }

    fn fault_of_row(&self, row: usize, kind: FaultKind) -> Fault {
        let offset = self.row_offsets.get(row).copied().unwrap_or(self.offset);
        Fault { offset, line: self.lines_before(offset), kind }
    }

    fn fault(&self, place: usize, kind: FaultKind) -> Fault {
        let offset = self.offset + place as u64;
        Fault { offset, line: self.lines_before(offset), kind }
    }

    /// How many lines end before this place of the file, if lines are counted; as exactly as what is still in the buffer
    /// allows.
    fn lines_before(&self, offset: u64) -> u64 {
        let in_buffer = usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(self.end);
        self.lines.unwrap_or(0) + memchr_iter(b'\n', &self.buffer[..in_buffer]).count() as u64
    }
}
