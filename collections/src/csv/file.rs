//! Files as the workers see them: found, opened, and checked to be the ones that were found.
//!
//! A worker on another machine may have a copy: the same path, size and time. Contents are not compared.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::error::CsvError;

/// A file as it was when it was found. It is read only as long as it is still the same, by size and time of change; the
/// time is compared in whole seconds where a copy has no finer one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileStamp {
    /// Its absolute path.
    pub path: String,
    /// Its size in bytes.
    pub len: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub modified: u64,
    /// Whether an older file of the same size is the same: when it was found, nodes had copies with several times, and
    /// `modified` is the newest.
    pub or_older: bool,
}

impl FileStamp {
    /// The file at `path` as it is now.
    pub fn of(path: String) -> Result<FileStamp, CsvError> {
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            other => other,
        };
        match metadata {
            Ok(metadata) => Ok(FileStamp { path, len: metadata.len(), modified: modified(&metadata), or_older: false }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(CsvError::NotFound { pattern: path }),
            Err(source) => Err(CsvError::Io { path, source }),
        }
    }

    /// The files that `pattern` matches, in order of their names; a path that exists is itself, whatever is in its name.
    pub fn find(pattern: &str) -> Result<Vec<FileStamp>, CsvError> {
        if fs::metadata(pattern).is_ok() || !pattern.contains(['*', '?', '[']) {
            return Ok(vec![FileStamp::of(pattern.to_owned())?]);
        }
        let invalid = |message: String| CsvError::Pattern { pattern: pattern.to_owned(), message };
        let paths = glob::glob(pattern).map_err(|error| invalid(error.to_string()))?;
        let mut files = Vec::new();
        for path in paths {
            let path = path.map_err(|error| CsvError::Io {
                path: error.path().display().to_string(),
                source: io::Error::from(error.error().kind()),
            })?;
            if path.is_dir() {
                continue;
            }
            let path = path.into_os_string().into_string();
            files.push(FileStamp::of(path.map_err(|path| invalid(format!("{path:?} is not UTF-8")))?)?);
        }
        if files.is_empty() {
            return Err(CsvError::NotFound { pattern: pattern.to_owned() });
        }
        Ok(files)
    }

    /// Opens the file to read `start..end`, if it is still the same.
    pub fn open(&self, start: u64, end: u64) -> Result<io::Take<File>, CsvError> {
        let io = |source| CsvError::Io { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(io)?;
        self.check(&file)?;
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        Ok(file.take(end - start))
    }

    /// Whether `file`, an open one, is still the same.
    pub fn check(&self, file: &File) -> Result<(), CsvError> {
        let metadata = file.metadata().map_err(|source| CsvError::Io { path: self.path.clone(), source })?;
        let modified = modified(&metadata);
        let is_older_copy = self.or_older && modified < self.modified;
        if metadata.len() == self.len && (is_older_copy || same_time(modified, self.modified)) {
            Ok(())
        } else {
            Err(CsvError::Changed { path: self.path.clone() })
        }
    }

    /// The physical line, from 1, on which byte `offset` stands. Reads the file up to there: for errors only.
    pub fn line_at(&self, offset: u64) -> u64 {
        let mut lines = 1;
        let _ = self
            .open(0, offset)
            .map(|input| for_each_piece(input, |bytes| lines += memchr::memchr_iter(b'\n', bytes).count() as u64));
        lines
    }
}

/// Whether two times in nanoseconds are the same, as far as both are known: a copy may keep only whole seconds.
pub(crate) fn same_time(one: u64, other: u64) -> bool {
    const SECOND: u64 = 1_000_000_000;
    let is_whole = one.is_multiple_of(SECOND) || other.is_multiple_of(SECOND);
    one == other || is_whole && one / SECOND == other / SECOND
}

fn modified(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// Reads `input` to its end, piece by piece, into a buffer that stays in the cache.
pub(crate) fn for_each_piece(mut input: impl Read, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = super::records::scratch::take();
    buffer.resize(buffer.len().max(super::records::READ_BYTES), 0);
    let mut nbytes = 0;
    let outcome = loop {
        match input.read(&mut buffer) {
            Ok(0) => break Ok(nbytes),
            Ok(nread) => {
                look(&buffer[..nread]);
                nbytes += nread as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    super::records::scratch::give(buffer);
    outcome
}
