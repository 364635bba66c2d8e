//! What the workers do to find out how files are cut: find them, scan their blocks, read their headers.

use starling_macros::task;

use super::error::CsvError;
use super::file::{FileStamp, for_each_piece};
use super::records::{Columns, Fault, Malformed, Records};
use super::scan::{BlockScan, Marks};

/// The three bytes that may stand before the header, and mean nothing.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The files at a path or pattern.
#[task(crate = starling_runtime, json = false)]
pub(super) fn find(pattern: &str) -> Result<Vec<FileStamp>, CsvError> {
    FileStamp::find(pattern)
}

/// Pass one over `count` blocks, from block number `first` on. Small blocks share a task.
#[task(crate = starling_runtime, json = false)]
pub(crate) fn scan(
    file: &FileStamp,
    marks: Marks,
    block_bytes: u64,
    first: u64,
    count: u64,
) -> Result<Vec<BlockScan>, CsvError> {
    scan_blocks(file, marks, block_bytes, first, count)
}

pub(crate) fn scan_blocks(
    file: &FileStamp,
    marks: Marks,
    block_bytes: u64,
    first: u64,
    count: u64,
) -> Result<Vec<BlockScan>, CsvError> {
    let start = first * block_bytes;
    let end = (start + count * block_bytes).min(file.len);
    let mut scans = vec![BlockScan::default(); (end - start).div_ceil(block_bytes) as usize];
    let mut at = 0;
    let nread = for_each_piece(file.open(start, end)?, |mut bytes| {
        if start + at == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            // It is as if it were not there: a quote may follow.
            at = BYTE_ORDER_MARK.len() as u64;
            bytes = &bytes[BYTE_ORDER_MARK.len()..];
        }
        while !bytes.is_empty() {
            let (block, in_block) = (at / block_bytes, at % block_bytes);
            let here = usize::try_from(block_bytes - in_block).unwrap_or(usize::MAX).min(bytes.len());
            if let Some(scan) = scans.get_mut(block as usize) {
                scan.update(marks, in_block, &bytes[..here]);
            }
            at += here as u64;
            bytes = &bytes[here..];
        }
    })
    .map_err(|source| CsvError::Io { path: file.path.clone(), source })?;
    if nread != end - start {
        return Err(CsvError::Changed { path: file.path.clone() });
    }
    Ok(scans)
}

/// The names of the columns, in a header record that ends at `end`.
#[task(crate = starling_runtime, json = false)]
pub(super) fn header(file: &FileStamp, end: u64) -> Result<Vec<String>, CsvError> {
    let mut records = open_records(file, 0, end, None)?;
    let record = records.next().map_err(|malformed| fault(file, malformed))?;
    let Some(record) = record else { return Err(CsvError::Empty { path: file.path.clone() }) };
    record
        .iter()
        .map(|name| String::from_utf8(name.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| CsvError::NotUtf8 { path: file.path.clone(), line: 1 })
}

/// Looks for the place where a file with an odd number of quotes goes wrong. Always fails.
#[task(crate = starling_runtime, json = false)]
pub(super) fn locate(file: &FileStamp) -> Result<(), CsvError> {
    let mut records = open_records(file, 0, file.len, None)?;
    while records.advance().map_err(|malformed| fault(file, malformed))? {}
    Err(CsvError::Changed { path: file.path.clone() })
}

/// The records of the exact range `start..end`, a byte order mark left out.
pub(crate) fn open_records(
    file: &FileStamp,
    mut start: u64,
    end: u64,
    columns: Option<Columns>,
) -> Result<Records<impl std::io::Read + use<>>, CsvError> {
    if start == 0 {
        let mut first = Vec::new();
        std::io::Read::read_to_end(&mut file.open(0, end.min(3))?, &mut first)
            .map_err(|source| CsvError::Io { path: file.path.clone(), source })?;
        if first == BYTE_ORDER_MARK {
            start = 3;
        }
    }
    Ok(Records::new(file.open(start, end)?, start, columns))
}

/// What is wrong with `file`, if something is before byte `offset`, where a record of `total` fields did not fit.
///
/// A pair of stray quotes leaves the number of quotes even, and shifts the ranges between the two: the record that is
/// met first in such a range may be a healthy line, cut at a wrong place. So what is told is the file's first fault, as
/// reading it from its beginning shows it. Only for errors.
pub(crate) fn first_fault(file: &FileStamp, total: u32, offset: u64) -> Result<(), CsvError> {
    let mut records = open_records(file, 0, file.len, Some(Columns::some(total as usize, &[])))?;
    while records.advance().map_err(|malformed| fault(file, malformed))? && records.record_offset() < offset {}
    Ok(())
}

/// What is wrong with a record of `file`. A file that changed while it was read may look like anything.
pub(crate) fn fault(file: &FileStamp, malformed: Malformed) -> CsvError {
    if !matches!(malformed.fault, Fault::Io(_))
        && let Err(changed) = file.open(0, 0)
    {
        return changed;
    }
    CsvError::malformed(&file.path, malformed, |offset| file.line_at(offset))
}
