//! Pass one over a block: its quotes' parity, and where its first record ends under either assumption.
//!
//! Whether a block starts inside a quoted field depends on all blocks before it, which other workers read. So a block
//! notes both answers; `split` picks the right one once every block's parity is known. Nothing is parsed here, but every
//! quote's two neighbours are looked at: where quotes neither open nor close a field nor double another, their parity
//! tells nothing, and such a stray quote is noted too.

use memchr::{memchr, memchr_iter, memchr2};
use serde::{Deserialize, Serialize};

use super::mask::{WINDOW, mask};

/// The bytes that fields are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// Opens and closes a field; doubled, it is text.
    pub(crate) quote: u8,
    /// Stands between fields.
    pub(crate) delimiter: u8,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { quote: b'"', delimiter: b',' }
    }
}

impl Marks {
    /// Whether `byte` may stand before a quote that opens a field, and after one that closes it.
    pub(crate) fn is_edge(self, byte: u8) -> bool {
        byte == self.delimiter || byte == b'\n' || byte == b'\r' || byte == self.quote
    }
}

/// What pass one learnt of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockScan {
    /// Whether the block holds an odd number of quotes, so that the next one starts in the other state.
    pub(crate) quotes_odd: bool,
    /// Where in the block the first record ends (just after its newline) if the block starts outside of quotes.
    pub(crate) end_if_outside: Option<u64>,
    /// The same if the block starts inside a quoted field.
    pub(crate) end_if_inside: Option<u64>,
    /// Whether a quote of the block is stray if the block starts outside of quotes.
    pub(crate) stray_if_outside: bool,
    /// The same if the block starts inside a quoted field.
    pub(crate) stray_if_inside: bool,
    /// The block's first byte, for a look at what precedes a quote of the block.
    pub(crate) first: Option<u8>,
    /// The block's last byte.
    pub(crate) last: Option<u8>,
}

impl BlockScan {
    /// The block's first record end, given how the block starts.
    pub(crate) fn end(&self, starts_inside: bool) -> Option<u64> {
        if starts_inside { self.end_if_inside } else { self.end_if_outside }
    }

    /// Whether a quote within the block is stray, given how the block starts.
    #[cfg(feature = "frame")]
    pub(crate) fn is_stray(&self, starts_inside: bool) -> bool {
        if starts_inside { self.stray_if_inside } else { self.stray_if_outside }
    }

    /// Looks at the next bytes of the block, the first of which is at `at` in it.
    ///
    /// A newline ends a record if an even number of quotes came before it, counted from a start outside of quotes; from
    /// a start inside, if an odd number did. As soon as both ends are known, only quotes are looked at.
    pub(crate) fn update(&mut self, marks: Marks, at: u64, bytes: &[u8]) {
        let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return };
        match self.last {
            // The last quote's other neighbour.
            Some(byte) if byte == marks.quote => self.closed(marks.is_edge(first)),
            Some(_) => {}
            None => self.first = Some(first),
        }
        let mut from = 0;
        while self.end_if_outside.is_none() || self.end_if_inside.is_none() {
            let looked_for = if self.quotes_odd { &mut self.end_if_inside } else { &mut self.end_if_outside };
            let found = match looked_for {
                // Newlines mean nothing here until the state changes.
                Some(_) => memchr(marks.quote, &bytes[from..]),
                None => memchr2(marks.quote, b'\n', &bytes[from..]),
            };
            let Some(found) = found.map(|found| from + found) else {
                from = bytes.len();
                break;
            };
            from = found + 1;
            if bytes[found] == b'\n' {
                *looked_for = Some(at + from as u64);
            } else {
                self.quote(marks, bytes, found);
            }
        }
        self.quotes(marks, bytes, from);
        self.last = Some(last);
    }

    /// All quotes from `from` on.
    fn quotes(&mut self, marks: Marks, bytes: &[u8], from: usize) {
        let (windows, rest) = bytes[from..].as_chunks::<WINDOW>();
        for (number, window) in windows.iter().enumerate() {
            let at = from + number * WINDOW;
            let mut quotes = mask(window, marks.quote);
            while quotes != 0 {
                let place = quotes.trailing_zeros();
                if quotes >> place & 3 == 3 {
                    self.two_quotes(marks, bytes, at + place as usize);
                    quotes &= !(3 << place);
                } else {
                    self.quote(marks, bytes, at + place as usize);
                    quotes &= quotes - 1;
                }
            }
        }
        for found in memchr_iter(marks.quote, rest) {
            self.quote(marks, bytes, bytes.len() - rest.len() + found);
        }
    }

    /// Two quotes, from `place` on: the same as one and then the other. Nearly all quotes are such, in a text, and there is
    /// nothing to look at: under one assumption they are text, and under the other something was stray already.
    #[inline(always)]
    fn two_quotes(&mut self, marks: Marks, bytes: &[u8], place: usize) {
        let stray = if self.quotes_odd { &mut self.stray_if_inside } else { &mut self.stray_if_outside };
        if !*stray {
            let before = if place == 0 { self.last } else { Some(bytes[place - 1]) };
            let after = bytes.get(place + 2).copied();
            *stray = [before, after].into_iter().flatten().any(|byte| !marks.is_edge(byte));
        }
    }

    /// The quote at `place` in `bytes`. What is not in `bytes` is looked at later, or by `split`.
    fn quote(&mut self, marks: Marks, bytes: &[u8], place: usize) {
        let before = if place == 0 { self.last } else { Some(bytes[place - 1]) };
        if before.is_some_and(|byte| !marks.is_edge(byte)) {
            // It may only close, or be the first of two.
            *(if self.quotes_odd { &mut self.stray_if_inside } else { &mut self.stray_if_outside }) = true;
        }
        self.quotes_odd = !self.quotes_odd;
        if let Some(&after) = bytes.get(place + 1) {
            self.closed(marks.is_edge(after));
        }
    }

    /// Told of what follows a quote, if that closes a field under one of the assumptions.
    fn closed(&mut self, by_edge: bool) {
        let stray = if self.quotes_odd { &mut self.stray_if_inside } else { &mut self.stray_if_outside };
        *stray |= !by_edge;
    }
}
