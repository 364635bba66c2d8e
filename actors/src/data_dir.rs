//! What a node keeps of itself from one start to the next: its identity. The quorum keeps its log beside it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use starling_runtime::mesh::identity::Keypair;
use tokio::time::{Instant, sleep};

/// Where a node keeps what is to survive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDir {
    /// In this directory, which no other node may use at the same time.
    At(PathBuf),
    /// In the first folder of this directory that no other node uses: for nodes of one machine that are all alike.
    FirstFree(PathBuf),
}

/// For how long a directory may still be in use.
const IN_USE_FOR: Duration = Duration::from_secs(1);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How many folders are tried.
const FOLDERS_MAX: u32 = 256;

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
    /// Another node has the directory.
    #[error(
        "the data directory {} is in use by another node: stop that, or start this one with another --data-dir", .0.display()
    )]
    InUse(PathBuf),
}

/// A directory that this node has to itself for as long as this is there.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) path: PathBuf,
    /// Who the node is, made when the directory was first used.
    pub(crate) keypair: Keypair,
    /// Locked.
    _lock: File,
}

/// Takes a directory. One that is in use is waited for a moment: a process that was killed may not quite be gone.
pub(crate) async fn claim_soon(directory: &DataDir) -> Result<Claimed, DataError> {
    let deadline = Instant::now() + IN_USE_FOR;
    loop {
        match claim(directory) {
            Err(DataError::InUse(_)) if Instant::now() < deadline => sleep(AGAIN_AFTER).await,
            outcome => return outcome,
        }
    }
}

/// Takes a directory, made now if there is none.
fn claim(directory: &DataDir) -> Result<Claimed, DataError> {
    match directory {
        DataDir::At(path) => claim_one(path),
        DataDir::FirstFree(base) => {
            let mut last = DataError::InUse(base.clone());
            for number in 1..=FOLDERS_MAX {
                match claim_one(&base.join(number.to_string())) {
                    Err(error @ DataError::InUse(_)) => last = error,
                    other => return other,
                }
            }
            Err(last)
        }
    }
}

fn claim_one(directory: &Path) -> Result<Claimed, DataError> {
    let path = directory.join("lock");
    let failed = |source| DataError::Io { path: path.clone(), source };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(failed)?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DataError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    Ok(Claimed { keypair: identity(directory)?, path: directory.to_owned(), _lock: lock })
}

/// The identity that is kept in this directory, made now if there is none.
fn identity(directory: &Path) -> Result<Keypair, DataError> {
    let path = directory.join("identity");
    let failed = |source| DataError::Io { path: path.clone(), source };
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
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a/b");
        let first = claim(&DataDir::At(directory.clone())).unwrap().keypair;
        assert_eq!(claim(&DataDir::At(directory.clone())).unwrap().keypair.public(), first.public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(directory.join("identity")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_directory_has_one_node_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let at = DataDir::At(folder.path().join("1"));
        let first_free = DataDir::FirstFree(folder.path().to_owned());
        let one = claim(&at).unwrap();
        let error = claim(&at).unwrap_err();
        assert!(error.to_string().contains("in use by another node"), "{error}");
        let other = claim(&first_free).unwrap();
        assert!(other.path.ends_with("2") && other.keypair.public() != one.keypair.public());
        let public = one.keypair.public();
        drop(one);
        let again = claim(&first_free).unwrap();
        assert!(again.path.ends_with("1") && again.keypair.public() == public);
    }

    #[test]
    fn what_is_no_identity_is_told_with_its_path_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        for damaged in [&b""[..], b"something else"] {
            std::fs::write(&path, damaged).unwrap();
            let error = claim(&DataDir::At(folder.path().to_owned())).unwrap_err();
            assert!(matches!(&error, DataError::Identity(named) if *named == path), "{error}");
            assert!(error.to_string().contains("--data-dir"));
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
    }
}
