//! CSV records read from a file's start to its end, as a compressed one must be.

use std::io::{self, Read};

use csv::ByteRecord;
use starling_runtime::task::items::Cell;

use super::read::Halt;
use crate::csv::{Columns, CsvError, Malformed, Records};

/// Why reading ends before the end.
pub(super) enum CsvHalt {
    Malformed(Malformed),
    Other(Halt),
}

impl From<Malformed> for CsvHalt {
    fn from(malformed: Malformed) -> CsvHalt {
        CsvHalt::Malformed(malformed)
    }
}

impl From<CsvError> for CsvHalt {
    fn from(error: CsvError) -> CsvHalt {
        CsvHalt::Other(error.into())
    }
}

/// Gives the records of the file at `path`, unpacked, and where each starts to `push`.
pub(super) fn feed(
    path: &str,
    input: impl Read,
    wanted: Option<&[String]>,
    missing_columns: bool,
    mut push: impl FnMut(u64, Result<Cell, String>) -> Result<(), Halt>,
) -> Result<(), CsvHalt> {
    let (input, start) = without_mark(input).map_err(|source| CsvError::Io { path: path.to_owned(), source })?;
    let mut records = Records::new(input, start, None);
    let Some(header) = records.next()?.cloned() else { return Err(CsvError::Empty { path: path.to_owned() }.into()) };
    let columns: Result<Vec<String>, _> = header.iter().map(|name| String::from_utf8(name.to_vec())).collect();
    let columns = columns.map_err(|_| CsvError::NotUtf8 { path: path.to_owned(), line: 1 })?;
    let is_wanted = |column: &String| wanted.is_none_or(|wanted| wanted.contains(column));
    if !missing_columns && let Some(column) = wanted.into_iter().flatten().find(|name| !columns.contains(name)) {
        let unknown = CsvError::UnknownColumn { path: path.to_owned(), column: column.clone(), known: columns };
        return Err(unknown.into());
    }
    let numbers: Vec<u32> =
        columns.iter().zip(0..).filter(|(column, _)| is_wanted(column)).map(|(_, number)| number).collect();
    let header: Vec<&String> = columns.iter().filter(|column| is_wanted(column)).collect();
    records.set_columns(Columns::some(columns.len(), &numbers));
    let nothing = ByteRecord::new();
    while records.advance()? {
        let offset = records.record_offset();
        let record = if numbers.is_empty() { &nothing } else { records.fields() };
        push(offset, cell(&header, record)).map_err(CsvHalt::Other)?;
    }
    Ok(())
}

/// A record's fields with their names; the error says which is no text.
fn cell(header: &[&String], record: &ByteRecord) -> Result<Cell, String> {
    let field = |(name, field): (&&String, &[u8])| match std::str::from_utf8(field) {
        Ok(text) => Ok(((*name).clone(), Cell::Loose(text.to_owned()))),
        Err(_) => Err(format!("field {name}: the text is not UTF-8; convert the file")),
    };
    header.iter().zip(record).map(field).collect::<Result<_, _>>().map(Cell::Fields)
}

/// The input without a byte order mark, and how long that was.
fn without_mark(mut input: impl Read) -> io::Result<(impl Read, u64)> {
    let mut first = Vec::new();
    input.by_ref().take(3).read_to_end(&mut first)?;
    let mark = if first == crate::csv::BYTE_ORDER_MARK { 3 } else { 0 };
    let first = first.split_off(mark);
    Ok((io::Cursor::new(first).chain(input), mark as u64))
}
