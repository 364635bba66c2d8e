//! Files that appear under their names only once they are whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file beside its place, and then moves it there, over one that may be there already. Of a failure nothing is left.
///
/// # Errors
/// Why it could not be written or moved.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let hidden = format!(".{}.{}-{number}.part", name.to_string_lossy(), std::process::id());
    let part = path.with_file_name(hidden);
    let write = |mut file: File| file.write_all(bytes).and_then(|()| file.sync_all());
    let written = OpenOptions::new().write(true).create_new(true).open(&part).and_then(write);
    written.and_then(|()| fs::rename(&part, path)).inspect_err(|_| {
        // The first failure is the one to be told of.
        let _ = fs::remove_file(&part);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_over_another_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let taken = folder.path().join("folder");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(write(&taken, b"three").is_err());
        assert!(write(&folder.path().join("absent/report.html"), b"four").is_err());
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["folder", "report.html"]);
    }
}
