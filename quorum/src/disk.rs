//! Where a node's files are: [`Folder`] on a disk, [`Memory`] for nodes that keep nothing and for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A few named files. When a call that writes returns without an error, what it has written outlives a crash; when it
/// returns with one, anything from nothing to all of it may have been written.
pub trait Disk: Send + 'static {
    /// The file's content; `None` if there is no such file.
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Puts this in the place of the file, all or nothing.
    fn replace(&mut self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Adds to the end of the file, which may be left with a part of it after a crash.
    fn append(&mut self, name: &str, more: &[u8]) -> io::Result<()>;
    /// Leaves the file's first `len` bytes.
    fn cut(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// What a person knows the place by, with the name of a file in it.
    fn place(&self, name: &str) -> String;
    /// Whether calls return at once, so that they need no thread of their own.
    fn is_fast(&self) -> bool {
        false
    }
}

/// A directory, locked as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    appending: Option<(String, File)>,
    /// Held for the lock on it.
    _lock: File,
}

impl Folder {
    /// Opens the directory, makes it if it is missing, and locks it. [`io::ErrorKind::WouldBlock`] says that another process
    /// has it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        std::fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), appending: None, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn appending(&mut self, name: &str) -> io::Result<&mut File> {
        if self.appending.as_ref().is_none_or(|(open, _)| open != name) {
            let path = self.path.join(name);
            let is_new = !path.try_exists()?;
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            if is_new {
                self.sync_folder()?;
            }
            self.appending = Some((name.to_owned(), file));
        }
        let open = self.appending.as_mut().map(|(_, file)| file);
        open.ok_or_else(|| io::Error::other("the file was closed"))
    }
}

impl Disk for Folder {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.path.join(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.appending.take_if(|(open, _)| open == name);
        let new = self.path.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, self.path.join(name))?;
        self.sync_folder()
    }

    fn append(&mut self, name: &str, more: &[u8]) -> io::Result<()> {
        let file = self.appending(name)?;
        file.write_all(more)?;
        file.sync_data()
    }

    fn cut(&mut self, name: &str, len: u64) -> io::Result<()> {
        let file = self.appending(name)?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn place(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Files in memory. Clones are the same files, so that a test can start a node again on what another has left.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    /// No files yet.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.files().iter().map(|(name, content)| (name, content.len()))).finish()
    }
}

impl Disk for Memory {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files().get(name).cloned())
    }

    fn replace(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.files().insert(name.to_owned(), content.to_vec());
        Ok(())
    }

    fn append(&mut self, name: &str, more: &[u8]) -> io::Result<()> {
        self.files().entry(name.to_owned()).or_default().extend_from_slice(more);
        Ok(())
    }

    fn cut(&mut self, name: &str, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.files().entry(name.to_owned()).or_default().truncate(len);
        Ok(())
    }

    fn place(&self, name: &str) -> String {
        format!("{name} in memory")
    }

    fn is_fast(&self) -> bool {
        true
    }
}
