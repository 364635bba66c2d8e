//! What a node keeps of itself from one start to the next: its identity. The quorum keeps its log beside it.

use std::fs::{DirBuilder, OpenOptions};
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
    /// The identity is not one.
    #[error(
        "{} is damaged and holds no node's identity: restore it, or start the node as a new one with another --data-dir",
        .0.display()
    )]
    Identity(PathBuf),
}

/// The identity that is kept in this directory, made now if there is none.
pub(crate) fn identity(directory: &Path) -> Result<Keypair, DataError> {
    let path = directory.join("identity");
    let failed = |source| DataError::Io { path: path.clone(), source };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(failed)?;
    match std::fs::read(&path) {
        Ok(bytes) => Keypair::from_protobuf_encoding(&bytes).map_err(|_| DataError::Identity(path.clone())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keypair = Keypair::generate_ed25519();
            let bytes = keypair.to_protobuf_encoding().map_err(|error| failed(io::Error::other(error)))?;
            write_whole(directory, &path, &bytes).map_err(failed)?;
            Ok(keypair)
        }
        Err(error) => Err(failed(error)),
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
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a/b");
        let first = identity(&directory).unwrap();
        assert_eq!(identity(&directory).unwrap().public(), first.public());
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
            let error = identity(folder.path()).unwrap_err();
            assert!(matches!(&error, DataError::Identity(named) if *named == path), "{error}");
            assert!(error.to_string().contains("--data-dir"));
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
    }
}
