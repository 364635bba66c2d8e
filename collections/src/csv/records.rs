//! Pass two: the records of an exact range, strictly by RFC 4180.
//!
//! This finds where fields and records end, and copies out only the columns that are wanted; `csv-core` then takes those
//! apart. Being strict is what makes the block split safe: a range's start was worked out from the quotes before it, so
//! the first stray quote of a file always lies in a range that starts at a true record, and is met here. A malformed
//! file is an error, never a wrong answer.

use std::io::{self, Read};

use csv::ByteRecord;
use csv_core::ReadRecordResult;
use memchr::memchr;

/// How much is read at once: it stays in the cache between reading and scanning.
pub(super) const READ_BYTES: usize = 256 * 1024;

/// A record that RFC 4180 does not allow, or that cannot be read.
#[derive(Debug)]
pub(crate) struct Malformed {
    /// Where, in the file.
    pub(crate) offset: u64,
    /// What.
    pub(crate) fault: Fault,
}

/// What is wrong with a record.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A quote inside an unquoted field, or text after a closing quote.
    StrayQuote,
    /// A quoted field goes on past the end.
    Unclosed,
    /// A carriage return outside of quotes that no newline follows.
    BareReturn,
    /// The record has another number of fields than the header.
    FieldCount {
        /// The header's number.
        expected: usize,
        /// The record's.
        found: usize,
    },
    /// Reading failed.
    Io(io::Error),
}

/// Which columns are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    wanted: Vec<bool>,
    count: usize,
}

impl Columns {
    /// Of `total` columns, those with these numbers. Numbers beyond are ignored.
    pub(crate) fn some(total: usize, numbers: &[u32]) -> Columns {
        let mut wanted = vec![false; total];
        for &number in numbers {
            if let Some(wanted) = wanted.get_mut(number as usize) {
                *wanted = true;
            }
        }
        let count = wanted.iter().filter(|wanted| **wanted).count();
        Columns { wanted, count }
    }

    /// All of `total` columns.
    #[cfg(test)]
    pub(crate) fn all(total: usize) -> Columns {
        Columns { wanted: vec![true; total], count: total }
    }
}

/// Reads the records of a range one by one.
pub(crate) struct Records<R> {
    input: R,
    /// `None` for a header, whose number of columns is not known yet.
    columns: Option<Columns>,
    buffer: Vec<u8>,
    /// `buffer[start..end]` is read and not yet consumed.
    start: usize,
    end: usize,
    /// The place of `buffer[0]` in the file.
    offset: u64,
    /// The place of the current record in the file.
    record_offset: u64,
    at_end: bool,
    fields: Fields,
}

/// What a look at the buffer gave.
enum Step {
    /// A record of this many bytes.
    Record(usize),
    /// An empty line of this many bytes: no record.
    Blank(usize),
    /// The record does not end in the buffer.
    More,
}

impl<R: Read> Records<R> {
    /// The records in `input`, which is a whole range, whose first byte is at `offset` in the file.
    pub(crate) fn new(input: R, offset: u64, columns: Option<Columns>) -> Records<R> {
        Records {
            input,
            columns,
            buffer: scratch::take(),
            start: 0,
            end: 0,
            offset,
            record_offset: offset,
            at_end: false,
            fields: Fields::new(),
        }
    }

    /// From the next record on there are these columns.
    pub(crate) fn set_columns(&mut self, columns: Columns) {
        self.columns = Some(columns);
    }

    /// Where the current record starts in the file.
    pub(crate) fn record_offset(&self) -> u64 {
        self.record_offset
    }

    /// The next record's wanted fields, in the file's order of columns; `None` at the end. Empty lines are skipped, as the
    /// csv crate does.
    pub(crate) fn next(&mut self) -> Result<Option<&ByteRecord>, Malformed> {
        if self.advance()? { Ok(Some(self.fields())) } else { Ok(None) }
    }

    /// The current record's wanted fields.
    pub(crate) fn fields(&mut self) -> &ByteRecord {
        self.fields.parse()
    }

    /// Goes to the next record without taking its fields apart; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, Malformed> {
        loop {
            if self.start == self.end && !self.fill()? {
                return Ok(false);
            }
            let rest = &self.buffer[self.start..self.end];
            self.record_offset = self.offset + self.start as u64;
            self.fields.raw.clear();
            let step = scan_record(rest, self.at_end, self.columns.as_ref(), &mut self.fields.raw)
                .map_err(|(at, fault)| Malformed { offset: self.record_offset + at as u64, fault })?;
            match step {
                Step::Record(nbytes) => {
                    self.start += nbytes;
                    return Ok(true);
                }
                Step::Blank(nbytes) => self.start += nbytes,
                Step::More => {
                    self.fill()?;
                }
            }
        }
    }

    /// Reads more behind what is there; false if there is no more.
    fn fill(&mut self) -> Result<bool, Malformed> {
        if self.at_end {
            return Ok(false);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.offset += self.start as u64;
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            // A long record: doubling keeps the work of looking at it again linear.
            self.buffer.resize((self.buffer.len() * 2).max(READ_BYTES), 0);
        }
        let room = &mut self.buffer[self.end..];
        let nread = loop {
            match self.input.read(room) {
                Ok(nread) => break nread,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Malformed { offset: self.offset + self.end as u64, fault: Fault::Io(error) });
                }
            }
        };
        self.end += nread;
        self.at_end = nread == 0;
        Ok(nread > 0)
    }
}

impl<R> Drop for Records<R> {
    fn drop(&mut self) {
        scratch::give(std::mem::take(&mut self.buffer));
    }
}

/// Finds the end of the record at the start of `bytes`, checks it, and appends the wanted fields to `raw`, separated by
/// commas and ended by a newline, quoted as they were. `at_end` says that the range ends with `bytes`.
fn scan_record(
    bytes: &[u8],
    at_end: bool,
    columns: Option<&Columns>,
    raw: &mut Vec<u8>,
) -> Result<Step, (usize, Fault)> {
    let mut at = 0;
    let mut column = 0;
    loop {
        let field_start = at;
        if bytes.get(at) == Some(&b'"') {
            at = match closing_quote(bytes, at + 1) {
                // A quote at the buffer's end may be the first of a doubled one.
                Some(quote) if quote + 1 < bytes.len() || at_end => quote + 1,
                Some(_) => return Ok(Step::More),
                None if at_end => return Err((field_start, Fault::Unclosed)),
                None => return Ok(Step::More),
            };
        } else {
            at += plain_len(&bytes[at..]);
        }
        let field_end = at;
        let (next, record_ends) = match bytes.get(at) {
            Some(b',') => (at + 1, false),
            Some(b'\n') => (at + 1, true),
            Some(b'\r') => match bytes.get(at + 1) {
                Some(b'\n') => (at + 2, true),
                None if !at_end => return Ok(Step::More),
                _ => return Err((at, Fault::BareReturn)),
            },
            None if at_end => (at, true),
            None => return Ok(Step::More),
            Some(_) => return Err((at, Fault::StrayQuote)),
        };
        if record_ends && column == 0 && field_end == 0 {
            return Ok(Step::Blank(next));
        }
        let wanted = columns.is_none_or(|columns| columns.wanted.get(column).is_some_and(|wanted| *wanted));
        if wanted {
            append(raw, &bytes[field_start..field_end]);
        }
        column += 1;
        at = next;
        if record_ends {
            break;
        }
    }
    if let Some(columns) = columns
        && columns.wanted.len() != column
    {
        return Err((0, Fault::FieldCount { expected: columns.wanted.len(), found: column }));
    }
    if columns.is_none_or(|columns| columns.count > 0)
        && let Some(last) = raw.last_mut()
    {
        *last = b'\n';
    }
    Ok(Step::Record(at))
}

fn append(raw: &mut Vec<u8>, field: &[u8]) {
    // An empty line would be no record at all.
    raw.extend_from_slice(if field.is_empty() { b"\"\"" } else { field });
    raw.push(b',');
}

/// The place of the quote that closes the field whose content starts at `at`.
fn closing_quote(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let quote = at + memchr(b'"', &bytes[at..])?;
        if bytes.get(quote + 1) != Some(&b'"') {
            return Some(quote);
        }
        at = quote + 2;
    }
}

/// How many bytes stand before the next comma, quote, newline or carriage return. Unquoted fields are short: a table
/// costs less than a call of memchr for each.
fn plain_len(bytes: &[u8]) -> usize {
    static SPECIAL: [bool; 256] = {
        let mut table = [false; 256];
        table[b',' as usize] = true;
        table[b'"' as usize] = true;
        table[b'\n' as usize] = true;
        table[b'\r' as usize] = true;
        table
    };
    bytes.iter().position(|&byte| SPECIAL[byte as usize]).unwrap_or(bytes.len())
}

/// Takes the raw fields of one record apart.
struct Fields {
    raw: Vec<u8>,
    core: csv_core::Reader,
    output: Vec<u8>,
    ends: Vec<usize>,
    record: ByteRecord,
}

impl Fields {
    fn new() -> Fields {
        let mut core = csv_core::Reader::new();
        // The reader drops a byte order mark at the very start of its input; here that would be data.
        core.read_record(b"x\n", &mut [0; 4], &mut [0; 4]);
        Fields { raw: Vec::new(), core, output: vec![0; 256], ends: vec![0; 16], record: ByteRecord::new() }
    }

    fn parse(&mut self) -> &ByteRecord {
        // Unescaping never makes a field longer, and there are no more fields than bytes.
        if self.output.len() < self.raw.len() {
            self.output.resize(self.raw.len() * 2, 0);
        }
        self.record.clear();
        let (mut nread, mut nwritten, mut nends) = (0, 0, 0);
        while nread < self.raw.len() {
            let (result, read, written, ended) =
                self.core.read_record(&self.raw[nread..], &mut self.output[nwritten..], &mut self.ends[nends..]);
            nread += read;
            nwritten += written;
            nends += ended;
            match result {
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::OutputFull => self.output.resize(self.output.len() * 2, 0),
                ReadRecordResult::Record | ReadRecordResult::End => break,
                ReadRecordResult::InputEmpty => {}
            }
        }
        let mut start = 0;
        for &end in &self.ends[..nends] {
            self.record.push_field(&self.output[start..end]);
            start = end;
        }
        &self.record
    }
}

/// Read buffers, kept by their threads: fresh memory costs more to touch than to scan.
pub(super) mod scratch {
    use std::cell::RefCell;

    thread_local! {
        static KEPT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    pub(in super::super) fn take() -> Vec<u8> {
        KEPT.take()
    }

    pub(in super::super) fn give(buffer: Vec<u8>) {
        // What a giant record needed is not kept.
        if buffer.len() <= 4 * super::READ_BYTES {
            KEPT.replace(buffer);
        }
    }
}
