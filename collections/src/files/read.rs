//! A node's own files, found and read.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::error::FilesError;
use super::listing::{FileEntry, Found};
use crate::csv::same_time;

/// How many files a node lists at once.
pub const FILES_MAX: usize = 100_000;
/// How many entries a node looks at for that, directories and what does not match among them.
const ENTRIES_MAX: usize = 10 * FILES_MAX;
/// Deeper ones are taken for symbolic links in a circle.
const DEPTH_MAX: usize = 64;
/// How many bytes are read over the mesh at once.
pub const READ_BYTES_MAX: u64 = 16 << 20;
/// How many bytes a checksum takes in at once.
const DIGEST_BYTES: usize = 1 << 20;

/// What is under `path` here: a file, the files of a directory and of those below it, or those that a pattern matches. A
/// path that exists is itself, whatever is in its name.
pub(super) fn find(path: &str) -> Result<Found, FilesError> {
    if !Path::new(path).is_absolute() {
        return Err(FilesError::Relative { path: path.to_owned() });
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let mut walk = Walk { root: path, files: Vec::new(), entries: 0 };
            walk.directory(Path::new(path), 0)?;
            walk.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            Ok(Found::Files(walk.files))
        }
        Ok(metadata) => Ok(Found::File(entry(Path::new(path), &metadata)?)),
        Err(error) if is_absent(&error) && path.contains(['*', '?', '[']) => matching(path),
        Err(error) if is_absent(&error) => Ok(Found::Nothing),
        Err(source) => Err(FilesError::Io { path: path.to_owned(), source }),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn matching(pattern: &str) -> Result<Found, FilesError> {
    let invalid = |message: String| FilesError::Pattern { pattern: pattern.to_owned(), message };
    let mut files = Vec::new();
    for (number, path) in glob::glob(pattern).map_err(|error| invalid(error.to_string()))?.enumerate() {
        let path = path.map_err(|error| FilesError::Io {
            path: error.path().display().to_string(),
            source: io::Error::from(error.error().kind()),
        })?;
        if files.len() >= FILES_MAX || number >= ENTRIES_MAX {
            return Err(FilesError::TooMany { path: pattern.to_owned(), limit: FILES_MAX });
        }
        // One that is gone meanwhile is as if it had never been there.
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
        {
            files.push(entry(&path, &metadata)?);
        }
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(if files.is_empty() { Found::Nothing } else { Found::Files(files) })
}

struct Walk<'a> {
    root: &'a str,
    files: Vec<FileEntry>,
    entries: usize,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, depth: usize) -> Result<(), FilesError> {
        let failed = |source| FilesError::Io { path: path.display().to_string(), source };
        if depth > DEPTH_MAX {
            return Err(failed(io::Error::other("there are more than 64 directories in each other")));
        }
        for child in fs::read_dir(path).map_err(failed)? {
            let child = child.map_err(failed)?.path();
            self.entries += 1;
            if self.files.len() >= FILES_MAX || self.entries > ENTRIES_MAX {
                return Err(FilesError::TooMany { path: self.root.to_owned(), limit: FILES_MAX });
            }
            match fs::metadata(&child) {
                Ok(metadata) if metadata.is_dir() => self.directory(&child, depth + 1)?,
                Ok(metadata) if metadata.is_file() => self.files.push(entry(&child, &metadata)?),
                // Devices and sockets hold no data; a link that leads nowhere or a file that is gone is not there.
                Ok(_) => {}
                Err(error) if is_absent(&error) => {}
                Err(source) => return Err(FilesError::Io { path: child.display().to_string(), source }),
            }
        }
        Ok(())
    }
}

fn entry(path: &Path, metadata: &Metadata) -> Result<FileEntry, FilesError> {
    let path = path.to_str().ok_or_else(|| FilesError::NotUtf8 { path: path.display().to_string() })?;
    Ok(FileEntry { path: path.to_owned(), size: metadata.len(), modified: modified(metadata) })
}

/// When it was last written to, in nanoseconds since 1970.
pub(crate) fn modified(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// An open file that is still what it was; `None` if it is not.
pub(super) fn open_same(file: &FileEntry) -> Result<Option<File>, FilesError> {
    let open = match File::open(&file.path) {
        Err(error) if is_absent(&error) => return Ok(None),
        open => open.map_err(FilesError::io(&*file.path))?,
    };
    let metadata = open.metadata().map_err(FilesError::io(&*file.path))?;
    let is_same = metadata.len() == file.size && same_time(modified(&metadata), file.modified);
    Ok(is_same.then_some(open))
}

/// The bytes `start..end` of a file that was opened; shorter if the file ends before.
pub(super) fn read_at(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; end.saturating_sub(start).min(READ_BYTES_MAX) as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(nread) => filled += nread,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// SHA-256 of all of a file.
pub(super) fn digest(file: &File) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; DIGEST_BYTES];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(nread) => {
                hash.update(&buffer[..nread]);
                at += nread as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
