//! Pass one over a block: its quotes' parity, and where its first record ends under either assumption.
//!
//! Whether a block starts inside a quoted field depends on all blocks before it, which other workers read. So a block
//! notes both answers; `split` picks the right one once every block's parity is known. Nothing is parsed here.

use memchr::{memchr, memchr_iter, memchr2};
use serde::{Deserialize, Serialize};

/// What pass one learnt of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockScan {
    /// Whether the block holds an odd number of quotes, so that the next one starts in the other state.
    pub(crate) quotes_odd: bool,
    /// Where in the block the first record ends (just after its newline) if the block starts outside of quotes.
    pub(crate) end_if_outside: Option<u64>,
    /// The same if the block starts inside a quoted field.
    pub(crate) end_if_inside: Option<u64>,
}

impl BlockScan {
    /// The block's first record end, given how the block starts.
    pub(crate) fn end(&self, starts_inside: bool) -> Option<u64> {
        if starts_inside { self.end_if_inside } else { self.end_if_outside }
    }

    /// Looks at the next bytes of the block, the first of which is at `at` in it.
    ///
    /// A newline ends a record if an even number of quotes came before it, counted from a start outside of quotes; from
    /// a start inside, if an odd number did. As soon as both ends are known, quotes are only counted.
    pub(crate) fn update(&mut self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut position = at;
        while self.end_if_outside.is_none() || self.end_if_inside.is_none() {
            let looked_for = if self.quotes_odd { &mut self.end_if_inside } else { &mut self.end_if_outside };
            let found = match looked_for {
                // Newlines mean nothing here until the state changes.
                Some(_) => memchr(b'"', rest),
                None => memchr2(b'"', b'\n', rest),
            };
            let Some(found) = found else { return };
            position += found as u64 + 1;
            if rest[found] == b'\n' {
                *looked_for = Some(position);
            } else {
                self.quotes_odd = !self.quotes_odd;
            }
            rest = &rest[found + 1..];
        }
        self.quotes_odd ^= memchr_iter(b'"', rest).count() % 2 == 1;
    }
}
