//! The lines of a file, one after the other, none longer than is allowed.

use std::io::{self, BufRead, BufReader, Read};

/// Reads lines into one buffer.
pub(crate) struct Lines<R> {
    input: BufReader<R>,
    /// Where the next line starts in the unpacked file.
    at: u64,
    line_bytes_max: u64,
    /// A line that did not lie in the input's buffer as a whole.
    line: Vec<u8>,
    /// How many bytes of the input's buffer the last line has taken.
    taken: usize,
}

/// What is next in a file.
pub(crate) enum Line<'a> {
    /// A line without its end, and where it starts.
    Whole(u64, &'a [u8]),
    /// A line that starts here and is too long.
    TooLong(u64),
    /// Nothing.
    End,
}

impl<R: Read> Lines<R> {
    /// The lines of `input`, whose first byte is at `at` in the unpacked file.
    pub(crate) fn new(input: R, at: u64, line_bytes_max: u64) -> Lines<R> {
        Lines { input: BufReader::with_capacity(1 << 18, input), at, line_bytes_max, line: Vec::new(), taken: 0 }
    }

    /// Where the next line starts in the unpacked file.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Reads past the next newline, at most to byte `end`, or to the end.
    pub(crate) fn skip_line(&mut self, end: u64) -> io::Result<()> {
        self.input.consume(std::mem::take(&mut self.taken));
        let rest = end.saturating_sub(self.at);
        self.at += self.input.by_ref().take(rest).skip_until(b'\n')? as u64;
        Ok(())
    }

    /// The next line. Its end, `\n` or `\r\n`, is no part of it.
    pub(crate) fn next(&mut self) -> io::Result<Line<'_>> {
        self.input.consume(std::mem::take(&mut self.taken));
        let start = self.at;
        if let Some(newline) = memchr::memchr(b'\n', self.input.fill_buf()?) {
            self.taken = newline + 1;
            self.at += self.taken as u64;
            let line = &self.input.buffer()[..newline];
            return Ok(self.fitting(start, line));
        }
        self.line.clear();
        // A line's end does not count.
        let limit = self.line_bytes_max.saturating_add(2);
        let nread = self.input.by_ref().take(limit).read_until(b'\n', &mut self.line)? as u64;
        if nread == 0 {
            return Ok(Line::End);
        }
        self.at += nread;
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(self.fitting(start, line))
    }

    /// The line from `start` on, without the second half of its end, if it is not too long.
    fn fitting<'a>(&self, start: u64, line: &'a [u8]) -> Line<'a> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() as u64 > self.line_bytes_max { Line::TooLong(start) } else { Line::Whole(start, line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, max: u64) -> Vec<Option<String>> {
        let mut lines = Lines::new(text.as_bytes(), 0, max);
        let mut all = Vec::new();
        loop {
            match lines.next().unwrap() {
                Line::Whole(_, line) => all.push(Some(String::from_utf8(line.to_vec()).unwrap())),
                Line::TooLong(_) => {
                    all.push(None);
                    return all;
                }
                Line::End => return all,
            }
        }
    }

    #[test]
    fn a_line_may_be_as_long_as_is_allowed_and_no_longer() {
        for end in ["", "\n", "\r\n"] {
            assert_eq!(all(&format!("12345{end}"), 5), [Some("12345".to_owned())], "{end:?}");
            assert_eq!(all(&format!("123456{end}"), 5), [None], "{end:?}");
        }
        // Longer than the buffer.
        let long = "x".repeat(1 << 19);
        assert_eq!(all(&format!("a\n{long}\r\nb"), 1 << 20), ["a", &long, "b"].map(|line| Some(line.to_owned())));
        assert_eq!(all("\n\na", 5), [Some(String::new()), Some(String::new()), Some("a".to_owned())]);
    }
}
