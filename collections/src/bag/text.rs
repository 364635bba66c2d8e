//! Text files, a line an item.
//!
//! Lines need no pass one: a range takes the lines that start in it, and finds where the first of them starts by looking
//! for the newline before it.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use futures::lock::Mutex;
use serde::{Deserialize, Serialize};
use starling_actors::Cluster;
use starling_macros::task;

use super::BagError;
use crate::csv::{CsvError, FileStamp, absolute};

/// How many bytes of text make a partition.
const BLOCK_BYTES: u64 = 16 << 20;

/// Text files, found by the workers when a bag over them is first computed.
#[derive(Clone)]
pub(crate) struct TextFiles {
    pattern: String,
    block_bytes: u64,
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
        let block_bytes = block_bytes.unwrap_or(BLOCK_BYTES).max(1);
        TextFiles { pattern: absolute(pattern), block_bytes, found: Arc::default() }
    }

    pub(crate) async fn ranges(&self, cluster: &Cluster) -> Result<Arc<Vec<TextRange>>, BagError> {
        let mut found = self.found.lock().await;
        if let Some(ranges) = &*found {
            return Ok(ranges.clone());
        }
        let files = cluster.submit(find_text::task(self.pattern.clone())).result().await?;
        let mut ranges = Vec::new();
        for file in files {
            for start in (0..file.len).step_by(usize::try_from(self.block_bytes).unwrap_or(usize::MAX)) {
                let end = start.saturating_add(self.block_bytes).min(file.len);
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
        let path = || self.file.path.clone();
        let io = |source: io::Error| LineStop::Text(CsvError::Io { path: path(), source });
        // The byte before the range says whether a line starts with the range.
        let before = self.start.saturating_sub(1);
        let input = self.file.open(before, self.file.len).map_err(LineStop::Text)?;
        let mut input = BufReader::with_capacity(1 << 18, input);
        let mut at = before;
        if self.start > 0 {
            // A line that ends behind this range is not this range's: there is no need to look for its end.
            at += skip_line(&mut input.by_ref().take(self.end - before)).map_err(io)?;
        }
        let mut line = Vec::new();
        while at < self.end {
            line.clear();
            let nread = input.read_until(b'\n', &mut line).map_err(io)? as u64;
            if nread == 0 {
                return Err(LineStop::Text(CsvError::Changed { path: path() }));
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let Ok(text) = std::str::from_utf8(text) else {
                self.still_the_same()?;
                return Err(LineStop::Text(CsvError::NotUtf8 { path: path(), line: self.file.line_at(at) }));
            };
            push(text).map_err(LineStop::Push)?;
            at += nread;
        }
        // What was read is the file's content only if nothing wrote to it meanwhile.
        self.still_the_same()
    }

    fn still_the_same<E>(&self) -> Result<(), LineStop<E>> {
        self.file.open(0, 0).map(drop).map_err(LineStop::Text)
    }
}

/// Reads past the next newline, or to the end; the bytes read.
fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    input.skip_until(b'\n').map(|nread| nread as u64)
}
