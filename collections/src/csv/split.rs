//! From the scans of all blocks to exact ranges of whole records.
//!
//! Pure arithmetic: a running parity tells how each block starts, hence which of its two candidate record ends is true.
//! A range goes from one block's first record end to the next block's. A record that spans blocks belongs to the range
//! it starts in, and the ranges of blocks in which no record ends are empty and left out.

use serde::{Deserialize, Serialize};

use super::scan::BlockScan;

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
    let mut inside = false;
    let mut ends = Vec::with_capacity(scans.len());
    for (number, scan) in scans.iter().enumerate() {
        if let Some(end) = scan.end(inside) {
            ends.push(number as u64 * block_bytes + end);
        }
        inside ^= scan.quotes_odd;
    }
    if inside {
        return Err(OddQuotes);
    }
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
