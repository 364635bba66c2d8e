//! A file that is there whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::ReadError;
use super::file::is_url;

/// Writes a file: beside its place under a hidden name, which it has only until it is whole. What is missing of directories
/// is made.
pub(crate) fn write_file(path: &str, bytes: Vec<u8>) -> Result<(), ReadError> {
    if !is_url(path) {
        return write_local(Path::new(path), &bytes)
            .map_err(|source| ReadError::Write { path: path.to_owned(), source });
    }
    #[cfg(feature = "object-store")]
    return super::remote::put(path, bytes);
    #[cfg(not(feature = "object-store"))]
    Err(ReadError::NoFeature { what: format!("writing {}", super::file::shown_url(path)), feature: "object-store" })
}

fn write_local(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Its name is its own, so that a task that is tried again elsewhere does not meet its first try.
    let mut part = tempfile::Builder::new()
        .prefix(&format!(".{name}.starling-"))
        .suffix(".part")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    part.write_all(bytes)?;
    part.as_file().sync_all()?;
    part.persist(path).map(drop).map_err(|error| error.error)
}
