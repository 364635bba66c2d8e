//! From the scans of all blocks to exact ranges of whole records.
//!
//! Pure arithmetic: a running parity tells how each block starts, hence which of its two candidate record ends is true.
//! A range goes from one block's first record end to the next block's. A record that spans blocks belongs to the range
//! it starts in, and the ranges of blocks in which no record ends are empty and left out.

use serde::{Deserialize, Serialize};

use super::scan::BlockScan;
#[cfg(feature = "frame")]
use super::scan::Marks;

/// Bytes `start..end` of a file: whole records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first record's first byte.
    pub start: u64,
    /// Just after the last record.
    pub end: u64,
}

impl Range {
    /// Size in bytes.
    pub fn nbytes(&self) -> u64 {
        self.end - self.start
    }
}

/// A file's header and data, cut at true record ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Where the header record ends and the data begins.
    pub header_end: u64,
    /// The data, in order, without gaps; none of them is empty.
    pub ranges: Vec<Range>,
}

/// The file ends inside a quoted field, as far as the number of its quotes tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OddQuotes;

/// Cuts a file of `len` bytes whose blocks of `block_bytes` (the last may be shorter) were scanned.
pub(crate) fn split(len: u64, block_bytes: u64, scans: &[BlockScan]) -> Result<Split, OddQuotes> {
    let mut ends = record_ends(block_bytes, scans)?;
    // The first end is the header's, and the first range starts there. It ends at the first record end of a later block.
    let header_end = ends.first().copied().unwrap_or(len);
    ends.push(len);
    let ranges = ends
        .windows(2)
        .map(|pair| Range { start: pair[0], end: pair[1] })
        .filter(|range| range.start < range.end)
        .collect();
    Ok(Split { header_end, ranges })
}

/// Where the first record of each block ends, if one does, in order.
pub(crate) fn record_ends(block_bytes: u64, scans: &[BlockScan]) -> Result<Vec<u64>, OddQuotes> {
    let mut inside = false;
    let mut ends = Vec::with_capacity(scans.len() + 1);
    for (number, scan) in scans.iter().enumerate() {
        if let Some(end) = scan.end(inside) {
            ends.push(number as u64 * block_bytes + end);
        }
        inside ^= scan.quotes_odd;
    }
    if inside { Err(OddQuotes) } else { Ok(ends) }
}

/// The number of the block with the file's first stray quote. Up to it, parity tells the truth; without one, everywhere.
#[cfg(feature = "frame")]
pub(crate) fn first_stray(marks: Marks, scans: &[BlockScan]) -> Option<usize> {
    let mut inside = false;
    // What stands before the file's first byte is as good as a newline.
    let mut before = b'\n';
    for (number, scan) in scans.iter().enumerate() {
        let Some(first) = scan.first else { continue };
        let closed = before == marks.quote && !inside && !marks.is_edge(first);
        let opens = first == marks.quote && !inside && !marks.is_edge(before);
        if closed || opens || scan.is_stray(inside) {
            return Some(number);
        }
        inside ^= scan.quotes_odd;
        before = scan.last.unwrap_or(before);
    }
    None
}
