//! Where a record's fields begin and end, by RFC 4180 where that says something and as the csv crate has it elsewhere.
//!
//! Nothing is copied and nothing is decoded here. A quoted field is searched for its closing quote only, whatever it holds; an
//! unquoted one for the first delimiter or line end, eight bytes at a time. Fields that nobody wants cost just that.

use memchr::{memchr, memchr_iter, memchr2};

use super::options::Format;
use crate::csv::{WINDOW, mask};

/// A wanted field, as a piece of the bytes that it was found in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) form: Form,
}

/// How a field's bytes are its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// The bytes are the text.
    #[default]
    Plain,
    /// The text, with doubled quotes or escapes in it.
    Escaped,
    /// From the opening quote on; text follows the closing quote.
    Tailed,
}

/// What was found at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A record from `start` (before it are empty lines and comments) to `end`, of so many fields.
    Record { start: usize, end: usize, fields: usize },
    /// Nothing but so many bytes of empty lines and comments, and the end.
    Nothing(usize),
    /// The record does not end here: more bytes are needed. Nothing before so many bytes is.
    More(usize),
    /// The field that a quote opens here is never closed.
    Unclosed(usize),
}

/// Where a quoted field's closing quote is.
enum Closing {
    /// There, and how the text before it is to be taken.
    At(usize, Form),
    /// Perhaps at the end of the bytes: what follows would tell.
    Cut,
    /// Not in these bytes.
    Missing,
}

/// No column: a field that nobody wants.
const UNWANTED: u32 = u32::MAX;

/// Finds fields.
#[derive(Clone, Debug)]
pub(super) struct Splitter {
    delimiter: u8,
    quote: u8,
    escape: Option<u8>,
    comment: Option<u8>,
    /// For each column of the file the place of its span, if it is wanted.
    places: Vec<u32>,
}

impl Splitter {
    /// For files in which the columns with the numbers `wanted` are; each column is wanted once.
    pub(super) fn new(format: &Format, wanted: &[usize]) -> Splitter {
        let mut places = vec![UNWANTED; wanted.iter().max().map_or(0, |last| last + 1)];
        for (place, &column) in (0..).zip(wanted) {
            places[column] = place;
        }
        Splitter {
            delimiter: format.delimiter,
            quote: format.quote,
            escape: format.escape.filter(|escape| *escape != format.quote),
            comment: format.comment,
            places,
        }
    }

    /// Finds the first record in `bytes`, after which nothing comes if `at_end`. Wanted fields go to their places in
    /// `spans`; what the record has no field for stays as it was.
    #[inline]
    pub(super) fn record(&self, bytes: &[u8], at_end: bool, spans: &mut [Span]) -> Found {
        let start = match self.record_start(bytes, at_end) {
            Ok(start) => start,
            Err(found) => return found,
        };
        let mut at = start;
        let mut fields = 0;
        loop {
            let mut span = Span { start: at, end: at, form: Form::Plain };
            if bytes.get(at) == Some(&self.quote) {
                at = match self.quoted(bytes, at, at_end, start, &mut span) {
                    Ok(after) => after,
                    Err(found) => return found,
                };
            } else {
                at = self.plain_end(bytes, at);
                span.end = at;
            }
            let byte = bytes.get(at);
            if byte.is_none() && !at_end {
                return Found::More(start);
            }
            if let Some(&place) = self.places.get(fields)
                && let Some(slot) = spans.get_mut(place as usize)
            {
                *slot = span;
            }
            fields += 1;
            at += 1;
            match byte {
                Some(byte) if *byte == self.delimiter => {}
                Some(_) => return Found::Record { start, end: at, fields },
                None => return Found::Record { start, end: at - 1, fields },
            }
        }
    }

    /// Skips empty lines and comments.
    #[inline]
    fn record_start(&self, bytes: &[u8], at_end: bool) -> Result<usize, Found> {
        let mut at = 0;
        loop {
            match bytes.get(at) {
                Some(b'\n' | b'\r') => at += 1,
                Some(byte) if self.comment == Some(*byte) => match memchr(b'\n', &bytes[at..]) {
                    Some(end) => at += end + 1,
                    None if at_end => return Err(Found::Nothing(bytes.len())),
                    None => return Err(Found::More(at)),
                },
                Some(_) => return Ok(at),
                None if at_end => return Err(Found::Nothing(at)),
                None => return Err(Found::More(at)),
            }
        }
    }

    /// The quoted field at `open`: where it ends. `start` is the record's start.
    #[inline]
    fn quoted(&self, bytes: &[u8], open: usize, at_end: bool, start: usize, span: &mut Span) -> Result<usize, Found> {
        let closing = match self.escape {
            None => self.closing_quote(bytes, open + 1, at_end),
            Some(escape) => self.closing_quote_escaped(bytes, open + 1, at_end, escape),
        };
        let (close, form) = match closing {
            Closing::At(close, form) => (close, form),
            Closing::Cut => return Err(Found::More(start)),
            Closing::Missing if at_end => return Err(Found::Unclosed(open)),
            Closing::Missing => return Err(Found::More(start)),
        };
        *span = Span { start: open + 1, end: close, form };
        let after = close + 1;
        match bytes.get(after) {
            None | Some(b'\n' | b'\r') => return Ok(after),
            Some(byte) if *byte == self.delimiter => return Ok(after),
            Some(_) => {}
        }
        // A stray quote. If it closes what began on an earlier line, that was hardly meant: the quote there was left open.
        if memchr(b'\n', &bytes[open..close]).is_some() {
            return Err(Found::Unclosed(open));
        }
        let end = self.plain_end(bytes, after);
        *span = Span { start: open, end, form: Form::Tailed };
        Ok(end)
    }

    /// The quote that closes the field whose text begins at `at`.
    #[inline]
    fn closing_quote(&self, bytes: &[u8], mut at: usize, at_end: bool) -> Closing {
        let mut form = Form::Plain;
        while let Some(window) = bytes.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) {
            let mut quotes = mask(window, self.quote);
            let mut next = at + WINDOW;
            while quotes != 0 {
                let place = quotes.trailing_zeros();
                if quotes >> place & 3 == 3 {
                    form = Form::Escaped;
                    quotes &= !(3 << place);
                } else if place as usize + 1 < WINDOW {
                    return Closing::At(at + place as usize, form);
                } else {
                    // The last of the window: what follows tells.
                    match bytes.get(next) {
                        Some(byte) if *byte == self.quote => {
                            form = Form::Escaped;
                            next += 1;
                        }
                        None if !at_end => return Closing::Cut,
                        _ => return Closing::At(at + place as usize, form),
                    }
                    quotes = 0;
                }
            }
            at = next;
        }
        loop {
            let Some(found) = bytes.get(at..).and_then(|rest| memchr(self.quote, rest)) else {
                return Closing::Missing;
            };
            match bytes.get(at + found + 1) {
                Some(byte) if *byte == self.quote => {
                    form = Form::Escaped;
                    at += found + 2;
                }
                // It may be the first of two.
                None if !at_end => return Closing::Cut,
                _ => return Closing::At(at + found, form),
            }
        }
    }

    /// The same where `escape` makes the next byte text.
    fn closing_quote_escaped(&self, bytes: &[u8], mut at: usize, at_end: bool, escape: u8) -> Closing {
        let mut form = Form::Plain;
        loop {
            let found = bytes.get(at..).and_then(|rest| memchr2(self.quote, escape, rest));
            let Some(found) = found.map(|found| at + found) else { return Closing::Missing };
            let is_quote = bytes[found] == self.quote;
            match bytes.get(found + 1) {
                Some(&next) if !is_quote || next == self.quote => {
                    form = Form::Escaped;
                    at = found + 2;
                }
                None if !at_end => return Closing::Cut,
                None if !is_quote => return Closing::Missing,
                _ => return Closing::At(found, form),
            }
        }
    }

    /// The place of the first delimiter or line end from `at` on, or the end.
    #[inline]
    fn plain_end(&self, bytes: &[u8], mut at: usize) -> usize {
        let delimiters = u64::from(self.delimiter) * ONES;
        while let Some(word) = word(bytes, at) {
            let marks =
                zeros(word ^ delimiters) | zeros(word ^ (b'\n' as u64 * ONES)) | zeros(word ^ (b'\r' as u64 * ONES));
            if marks != 0 {
                return at + marks.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let is_mark = |byte: &u8| *byte == self.delimiter || *byte == b'\n' || *byte == b'\r';
        rest.iter().position(is_mark).map_or(bytes.len(), |found| at + found)
    }

    /// Appends a field's text to `text`.
    pub(super) fn unescape(&self, field: &[u8], form: Form, text: &mut Vec<u8>) {
        match form {
            Form::Plain => text.extend_from_slice(field),
            Form::Escaped if self.escape.is_none() => {
                let mut from = 0;
                for quote in memchr_iter(self.quote, field) {
                    // Of each two the first is kept.
                    if quote >= from {
                        text.extend_from_slice(&field[from..=quote]);
                        from = quote + 2;
                    }
                }
                text.extend_from_slice(field.get(from..).unwrap_or_default());
            }
            Form::Escaped => {
                self.unescape_quoted(field, text);
            }
            Form::Tailed => {
                let quoted = field.get(1..).unwrap_or_default();
                let tail = self.unescape_quoted(quoted, text);
                text.extend_from_slice(quoted.get(tail..).unwrap_or_default());
            }
        }
    }

    /// Appends what is quoted up to the closing quote, if there is one in `field`, and says what is after it.
    fn unescape_quoted(&self, field: &[u8], text: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while let Some(&byte) = field.get(at) {
            let next = field.get(at + 1);
            if byte == self.quote && next != Some(&self.quote) {
                return at + 1;
            }
            let doubled = byte == self.quote || self.escape == Some(byte);
            match next {
                Some(&next) if doubled => {
                    text.push(next);
                    at += 2;
                }
                _ => {
                    text.push(byte);
                    at += 1;
                }
            }
        }
        field.len()
    }
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const TOPS: u64 = u64::from_le_bytes([0x80; 8]);

/// The eight bytes at `at`, if there are so many.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The top bit of the lowest byte that is zero; bits above it mean nothing.
#[inline(always)]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & TOPS
}
