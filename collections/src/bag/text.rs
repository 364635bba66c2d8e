//! Text files, a line an item.
//!
//! Lines need no pass one: a range takes the lines that start in it, and finds where the first of them starts by looking
//! for the newline before it.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use futures::lock::Mutex;
use serde::{Deserialize, Serialize};
use starling_actors::Cluster;
use starling_macros::task;

use super::BagError;
use crate::csv::{CsvError, FileStamp, absolute};

/// How many bytes of text make a partition, at least and at most. Each makes a table or list of its own that has to be merged
/// with the others, so there are no more than keep the cluster's threads evenly busy.
const BLOCK_BYTES: (u64, u64) = (16 << 20, 64 << 20);

/// How many partitions there should be for each thread of the cluster.
const BLOCKS_PER_THREAD: u64 = 8;

/// How much is read at once: it stays in the cache until its lines are taken.
const READ_BYTES: usize = 256 << 10;

/// Text files, found by the workers when a bag over them is first computed.
#[derive(Clone)]
pub(crate) struct TextFiles {
    pattern: String,
    /// How large partitions are, if somebody has said.
    block_bytes: Option<u64>,
    found: Arc<Mutex<Option<Arc<Vec<TextRange>>>>>,
}

/// The lines that start in `start..end` of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TextRange {
    pub(crate) file: FileStamp,
    start: u64,
    end: u64,
}

impl TextFiles {
    pub(crate) fn new(pattern: &str, block_bytes: Option<u64>) -> TextFiles {
        let block_bytes = block_bytes.map(|nbytes| nbytes.max(1));
        TextFiles { pattern: absolute(pattern), block_bytes, found: Arc::default() }
    }

    pub(crate) async fn ranges(&self, cluster: &Cluster) -> Result<Arc<Vec<TextRange>>, BagError> {
        let mut found = self.found.lock().await;
        if let Some(ranges) = &*found {
            return Ok(ranges.clone());
        }
        let files = cluster.submit(find_text::task(self.pattern.clone())).result().await?;
        let block_bytes = self.block_bytes.unwrap_or_else(|| {
            let wanted = u64::from(cluster.nthreads().max(1)) * BLOCKS_PER_THREAD;
            (files.iter().map(|file| file.len).sum::<u64>() / wanted).clamp(BLOCK_BYTES.0, BLOCK_BYTES.1)
        });
        let mut ranges = Vec::new();
        for file in files {
            for start in (0..file.len).step_by(usize::try_from(block_bytes).unwrap_or(usize::MAX)) {
                let end = start.saturating_add(block_bytes).min(file.len);
                ranges.push(TextRange { file: file.clone(), start, end });
            }
        }
        let ranges = Arc::new(ranges);
        *found = Some(ranges.clone());
        Ok(ranges)
    }
}

/// The text files at a path or pattern.
#[task(crate = starling_runtime, json = false)]
fn find_text(pattern: &str) -> Result<Vec<FileStamp>, CsvError> {
    FileStamp::find(pattern)
}

/// Why a line was not taken.
pub(crate) enum LineStop<E> {
    /// The file cannot be read, or not as text.
    Text(CsvError),
    /// `push` said so.
    Push(E),
}

impl TextRange {
    /// Gives each line to `push`, without its end (`\n` or `\r\n`).
    pub(crate) fn for_each_line<E>(&self, mut push: impl FnMut(&str) -> Result<(), E>) -> Result<(), LineStop<E>> {
        let changed = || LineStop::Text(CsvError::Changed { path: self.file.path.clone() });
        // The byte before the range says whether a line starts with the range.
        let before = self.start.saturating_sub(1);
        let input = self.file.open(before, self.file.len).map_err(LineStop::Text)?;
        let mut reader = Reader { input, buffer: vec![0; READ_BYTES], begin: 0, filled: 0, at: before };
        let io = |source: io::Error| LineStop::Text(CsvError::Io { path: self.file.path.clone(), source });
        if self.start > 0 {
            // A line that ends behind this range is not this range's: there is no need to look for its end.
            while reader.at < self.end && !reader.skip_line() {
                if reader.at < self.end && !reader.fill().map_err(io)? {
                    return Err(changed());
                }
            }
        }
        while reader.at < self.end {
            let whole = match reader.lines_before(self.end) {
                0 if reader.fill().map_err(io)? => continue,
                // The last line of a file may lack its end.
                0 => reader.unread().len(),
                whole => whole,
            };
            if whole == 0 {
                return Err(changed());
            }
            self.push_lines(reader.at, &reader.unread()[..whole], &mut push)?;
            reader.advance(whole);
        }
        // What was read is the file's content only if nothing wrote to it meanwhile.
        self.still_the_same()
    }

    /// Gives the lines of `bytes`, which start at `at` in the file, up to one that is no text.
    fn push_lines<E>(
        &self,
        at: u64,
        bytes: &[u8],
        push: &mut impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), LineStop<E>> {
        let (text, is_text) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, true),
            Err(error) => {
                let valid = &bytes[..error.valid_up_to()];
                let whole = memchr::memrchr(b'\n', valid).map_or(0, |newline| newline + 1);
                (std::str::from_utf8(&valid[..whole]).unwrap_or_default(), false)
            }
        };
        let mut begin = 0;
        let ends = memchr::memchr_iter(b'\n', text.as_bytes());
        for end in ends.chain((!text.ends_with('\n') && !text.is_empty()).then_some(text.len())) {
            let line = &text[begin..end];
            push(line.strip_suffix('\r').unwrap_or(line)).map_err(LineStop::Push)?;
            begin = end + 1;
        }
        if is_text {
            return Ok(());
        }
        self.still_the_same()?;
        let line = self.file.line_at(at + text.len() as u64);
        Err(LineStop::Text(CsvError::NotUtf8 { path: self.file.path.clone(), line }))
    }

    fn still_the_same<E>(&self) -> Result<(), LineStop<E>> {
        self.file.open(0, 0).map(drop).map_err(LineStop::Text)
    }
}

/// A file that is read piece by piece, into a buffer in which whole lines are found.
struct Reader {
    input: io::Take<File>,
    buffer: Vec<u8>,
    /// Where in the buffer begins what is not taken yet, and where it ends.
    begin: usize,
    filled: usize,
    /// Where `begin` is in the file.
    at: u64,
}

impl Reader {
    fn unread(&self) -> &[u8] {
        &self.buffer[self.begin..self.filled]
    }

    fn advance(&mut self, nbytes: usize) {
        self.begin += nbytes;
        self.at += nbytes as u64;
    }

    /// Goes past the next newline, or to the end of what is there; whether there was one.
    fn skip_line(&mut self) -> bool {
        let newline = memchr::memchr(b'\n', self.unread());
        self.advance(newline.map_or(self.filled - self.begin, |newline| newline + 1));
        newline.is_some()
    }

    /// How many bytes the whole lines have that are there and start before `end`.
    fn lines_before(&self, end: u64) -> usize {
        let unread = self.unread();
        let wanted = usize::try_from(end.saturating_sub(self.at + 1)).unwrap_or(usize::MAX);
        match unread.get(wanted..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            Some(newline) => wanted + newline + 1,
            None => memchr::memrchr(b'\n', &unread[..wanted.min(unread.len())]).map_or(0, |newline| newline + 1),
        }
    }

    /// Reads more; whether there was more.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.begin..self.filled, 0);
        self.filled -= self.begin;
        self.begin = 0;
        if self.filled == self.buffer.len() {
            // A line that is longer than the buffer.
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(nread) => {
                    self.filled += nread;
                    return Ok(nread > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
