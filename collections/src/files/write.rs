//! A file that comes in pieces: written beside its place under a hidden name, compared with what was sent, and only then
//! given its name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::FilesError;
use super::read::digest;

/// A piece of a file that was left behind by a client that has died is removed when it is so old.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// What is at the place of a file that is to come.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Begun {
    /// Nothing that would be overwritten against the client's will: pieces may come.
    Ready,
    /// A file of another size.
    Another,
    /// A file of the same size, with this SHA-256.
    SameSize([u8; 32]),
    /// There is no such directory.
    NoDirectory(String),
    /// It is a directory.
    IsDirectory,
}

/// Where the pieces of one transfer gather.
pub(super) fn part_path(path: &str, transfer: u64) -> PathBuf {
    let path = Path::new(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}{transfer:016x}.part", part_prefix(&name)))
}

fn part_prefix(name: &str) -> String {
    format!(".{name}.starling-")
}

/// Makes the place ready.
pub(super) fn begin(
    path: &str,
    transfer: u64,
    size: u64,
    overwrite: bool,
    make_directories: bool,
) -> Result<Begun, FilesError> {
    let directory = Path::new(path).parent().unwrap_or(Path::new("/"));
    if make_directories {
        fs::create_dir_all(directory).map_err(FilesError::io(directory.display().to_string()))?;
    }
    if !directory.is_dir() {
        return Ok(Begun::NoDirectory(directory.display().to_string()));
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(Begun::IsDirectory),
        Ok(_) if overwrite => {}
        Ok(metadata) if metadata.len() != size => return Ok(Begun::Another),
        Ok(_) => {
            let file = File::open(path).map_err(FilesError::io(path))?;
            return digest(&file).map(Begun::SameSize).map_err(FilesError::io(path));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(FilesError::Io { path: path.to_owned(), source }),
    }
    remove_left_behind(directory, path);
    let part = part_path(path, transfer);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&part);
    // The place is taken now, so that a full disk is found out before anything is sent.
    file.and_then(|file| file.set_len(size)).map_err(FilesError::io(part.display().to_string()))?;
    Ok(Begun::Ready)
}

fn remove_left_behind(directory: &Path, path: &str) {
    let prefix = part_prefix(&Path::new(path).file_name().unwrap_or_default().to_string_lossy());
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_part = name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".part"));
        let age = entry.metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        if is_part && age.is_some_and(|age| age > LEFT_BEHIND) {
            // Another node that shares the disk may have done it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Writes a piece. Pieces may come in any order, and again.
pub(super) fn piece(path: &str, transfer: u64, at: u64, bytes: &[u8]) -> Result<(), FilesError> {
    let part = part_path(path, transfer);
    let file = OpenOptions::new().write(true).open(&part);
    file.and_then(|file| file.write_all_at(bytes, at)).map_err(FilesError::io(part.display().to_string()))
}

/// Gives the file its name, if it is what was sent; `false` if it is not, and then nothing is left of it.
pub(super) fn end(path: &str, transfer: u64, sent: [u8; 32], time: u64) -> Result<bool, FilesError> {
    let part = part_path(path, transfer);
    let failed = || FilesError::io(part.display().to_string());
    let file = match OpenOptions::new().read(true).write(true).open(&part) {
        Ok(file) => file,
        // Done already, by a try whose outcome was lost.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = File::open(path).map_err(FilesError::io(path))?;
            return Ok(digest(&file).map_err(FilesError::io(path))? == sent);
        }
        Err(error) => return Err(failed()(error)),
    };
    if digest(&file).map_err(failed())? != sent {
        abort(path, transfer);
        return Ok(false);
    }
    set_time(&file, time).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    fs::rename(&part, path).map_err(FilesError::io(path))?;
    Ok(true)
}

/// Removes what has come.
pub(super) fn abort(path: &str, transfer: u64) {
    // It is not there if nothing was begun.
    let _ = fs::remove_file(part_path(path, transfer));
}

fn set_time(file: &File, time: u64) -> io::Result<()> {
    file.set_modified(UNIX_EPOCH + Duration::from_nanos(time))
}

/// A number that no other transfer has.
pub(super) fn transfer_number() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hash = RandomState::new().build_hasher();
    hash.write_u32(std::process::id());
    hash.write_u128(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()));
    hash.finish()
}
