//! What a node keeps of itself from one start to the next: its identity. The quorum keeps its log beside it. Two processes with
//! one identity would take each other's place in the mesh, so a data directory is locked before its node joins one.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use starling_runtime::mesh::identity::Keypair;

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read or written.
    #[error("{}: {source}: the data directory cannot be used; choose another with --data-dir", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error(
        "the data directory {} is in use by another process: stop that, or start this one with another --data-dir",
        .0.display()
    )]
    InUse(PathBuf),
    /// The identity is not one.
    #[error(
        "{} is damaged and holds no node's identity: restore it, or start the node as a new one with another --data-dir",
        .0.display()
    )]
    Identity(PathBuf),
}

/// A data directory. No other process has it as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Held for the lock on it.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if there is none, and locks it.
    pub(crate) fn open(path: &Path) -> Result<DataDir, DataError> {
        let lock = path.join("lock");
        let failed = |source| DataError::Io { path: lock.clone(), source };
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(failed)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(DataDir { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(DataError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// The identity that is kept in it, made now if there is none.
    pub(crate) fn identity(&self) -> Result<Keypair, DataError> {
        let path = self.path.join("identity");
        let failed = |source| DataError::Io { path: path.clone(), source };
        match std::fs::read(&path) {
            Ok(bytes) => Keypair::from_protobuf_encoding(&bytes).map_err(|_| DataError::Identity(path.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keypair = Keypair::generate_ed25519();
                let bytes = keypair.to_protobuf_encoding().map_err(|error| failed(io::Error::other(error)))?;
                write_whole(&self.path, &path, &bytes).map_err(failed)?;
                Ok(keypair)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// The file appears under its name once all of it is on the disk, for its owner only.
fn write_whole(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a/b");
        let first = DataDir::open(&directory).unwrap().identity().unwrap();
        assert_eq!(DataDir::open(&directory).unwrap().identity().unwrap().public(), first.public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(directory.join("identity")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_no_identity_is_told_with_its_path_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        for damaged in [&b""[..], b"something else"] {
            std::fs::write(&path, damaged).unwrap();
            let error = DataDir::open(folder.path()).unwrap().identity().unwrap_err();
            assert!(matches!(&error, DataError::Identity(named) if *named == path), "{error}");
            assert!(error.to_string().contains("--data-dir"));
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
    }
    #[test]
    fn a_directory_is_one_nodes_until_that_has_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(&refused, DataError::InUse(path) if path == folder.path()), "{refused}");
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }
}
