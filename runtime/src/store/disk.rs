//! Spilled values on disk: one node's directory, its files, and blocks with checksums in them.
//!
//! A block is an encoded value as it streams out of its encoder, so that writing needs no second copy of it:
//!
//! ```text
//! head | buffers | length and CRC-32 of head and each buffer (postcard) | length of those, u32 | CRC-32 of these two, u32
//! ```
//!
//! So a part of a value in parts is read, and checked, without the others.
//!
//! A large value has a file to itself, small ones share one. A file goes when the last of its values is dropped from
//! disk; until then the dead bytes in it, 1 MiB at most, count as used. Nothing is read after a restart, so nothing is
//! synced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use crc32fast::Hasher;

use crate::parts::Layout;
use crate::value::{CodecError, Encoded, Value};

/// Bytes that are checked, written or read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// What every node's directory is called, but for a random end.
const PREFIX: &str = "starling-spill-";

/// Held locked in the directory for as long as its node lives.
const LOCK: &str = "lock";

/// The two numbers at a block's end.
const TAIL_BYTES: u64 = 8;

/// A node's directory of spilled values. Dropping it, or closing it, removes it with all that is in it.
pub(super) struct Disk {
    directory: PathBuf,
    /// Locked: what tells other nodes that this directory is in use.
    _lock: File,
    /// How many bytes may be in files.
    limit: u64,
    /// How many are, those in the trash included.
    used: AtomicU64,
    next_number: AtomicU64,
    /// Files that nothing refers to, each with its size. Removed by whoever has the time, since that may take some.
    trash: Mutex<Vec<(u64, u64)>>,
    /// Told when there is something in the trash.
    trashed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    closed: AtomicBool,
}

/// A file of one or more blocks.
struct SpillFile {
    disk: Arc<Disk>,
    number: u64,
    nbytes: u64,
}

/// Where a value is. Clones are the same; the last one dropped gives the place up.
#[derive(Clone)]
pub(super) struct OnDisk {
    file: Arc<SpillFile>,
    offset: u64,
    length: u64,
}

/// Why a value could not be written. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("its Serialize panicked")]
    Panicked,
}

/// Why a value could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error("its checksum does not match")]
    Damaged,
}

impl Disk {
    /// Makes a directory in `parent` for files of up to `limit` bytes together, and removes those of nodes of the same
    /// user that are no more.
    pub(super) fn create(parent: &Path, limit: u64) -> io::Result<Arc<Disk>> {
        fs::create_dir_all(parent)?;
        let name = format!("{PREFIX}{:016x}", rand::random::<u64>());
        // It gets its name once it is locked, so that nobody takes it for a left-over.
        let unnamed = parent.join(format!(".{name}"));
        DirBuilder::new().mode(0o700).create(&unnamed)?;
        let named = parent.join(&name);
        let lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(unnamed.join(LOCK))
            .and_then(|lock| lock.lock().map(|()| lock))
            .and_then(|lock| fs::rename(&unnamed, &named).map(|()| lock))
            .inspect_err(|_| drop(fs::remove_dir_all(&unnamed)))?;
        remove_leftovers(parent, &named);
        if is_in_memory(&named) {
            tracing::warn!(
                directory = %named.display(),
                "values are spilled to a file system that is in memory, which frees nothing: give a --spill-directory on \
                 a disk"
            );
        }
        Ok(Arc::new(Disk {
            directory: named,
            _lock: lock,
            limit,
            used: AtomicU64::new(0),
            next_number: AtomicU64::new(0),
            trash: Mutex::default(),
            trashed: OnceLock::new(),
            closed: AtomicBool::new(false),
        }))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many bytes are in files.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A new file, for one value or several.
    pub(super) fn writer(self: &Arc<Disk>) -> io::Result<Writer> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(io::Error::other("the node is shutting down"));
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(number))?;
        let target = SpillFile { disk: Arc::clone(self), number, nbytes: 0 };
        Ok(Writer { file, target, gathered: Vec::new(), crc: Hasher::new(), error: None })
    }

    /// Writes one value to a file of its own.
    pub(super) fn write(self: &Arc<Disk>, value: &Value) -> Result<OnDisk, WriteError> {
        let mut writer = self.writer()?;
        let place = writer.append(value)?;
        let mut placed = writer.finish([place])?;
        // One in, one out.
        placed.pop().ok_or_else(|| WriteError::Disk(io::Error::other("nothing was written")))
    }

    /// Has `trashed` called, on any thread, whenever there is something for [`Disk::empty_trash`].
    pub(super) fn on_trash(&self, trashed: impl Fn() + Send + Sync + 'static) {
        // A disk has one store.
        let _ = self.trashed.set(Box::new(trashed));
    }

    /// Removes the files that nothing refers to.
    pub(super) fn empty_trash(&self) {
        let trash = std::mem::take(&mut *self.trash.lock().unwrap_or_else(PoisonError::into_inner));
        for (number, nbytes) in trash {
            if let Err(error) = fs::remove_file(self.path(number))
                && !self.closed.load(Ordering::Relaxed)
            {
                tracing::warn!(path = %self.path(number).display(), %error, "a spilled file cannot be removed");
            }
            self.used.fetch_sub(nbytes, Ordering::Relaxed);
        }
    }

    /// Removes the directory. What is still read or written fails.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // A file may be made in it while it is being emptied, but only by what had begun before.
        for _ in 0..8 {
            match fs::remove_dir_all(&self.directory) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                _ => return,
            }
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}"))
    }

    fn reserve(&self, nbytes: u64) -> io::Result<()> {
        let add = |used: u64| used.checked_add(nbytes).filter(|used| *used <= self.limit);
        let try_add = || self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if try_add().is_ok() {
            return Ok(());
        }
        self.empty_trash();
        match try_add() {
            Ok(_) => Ok(()),
            Err(used) => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("{used} bytes are spilled, and --spill-limit is {}", self.limit),
            )),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.disk.trash.lock().unwrap_or_else(PoisonError::into_inner).push((self.number, self.nbytes));
        if let Some(trashed) = self.disk.trashed.get() {
            trashed();
        }
    }
}

/// Whether the system says that files here are in memory.
fn is_in_memory(directory: &Path) -> bool {
    let Ok(directory) = directory.canonicalize() else { return false };
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| is_in_memory_by(&mounts, &directory))
}

/// `mounts` has a line for each mount: device, directory, type, options.
fn is_in_memory_by(mounts: &str, directory: &Path) -> bool {
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?.replace("\\040", " "), fields.next()?))
    });
    // Of those on the way to it the deepest counts, and of several in one place the last.
    let above = fields.filter(|(mounted, _)| directory.starts_with(mounted));
    let nearest = above.max_by_key(|(mounted, _)| mounted.len());
    nearest.is_some_and(|(_, kind)| kind == "tmpfs" || kind == "ramfs")
}

/// Removes directories like `own` beside it, of the same user, whose node has ended without removing them. The system
/// drops a lock with its process, also where process ids say nothing, as between containers.
fn remove_leftovers(parent: &Path, own: &Path) {
    let Ok(user) = fs::symlink_metadata(own).map(|metadata| metadata.uid()) else { return };
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path == own || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Only what nobody else can have put things into.
        let is_ours = fs::symlink_metadata(&path)
            .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user && metadata.mode() & 0o077 == 0);
        if !is_ours {
            continue;
        }
        // Without a lock it is half removed. Held to the end, so that two who clean up do not meet.
        let is_dead = match File::open(path.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_dead {
            match fs::remove_dir_all(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed what an ended node had spilled"),
                Err(error) => tracing::debug!(path = %path.display(), %error, "a left-over cannot be removed"),
            }
        }
    }
}

/// A file that is being written. Dropped before [`Writer::finish`], it is gone.
pub(super) struct Writer {
    file: File,
    /// Its size is what was reserved.
    target: SpillFile,
    /// Not written yet.
    gathered: Vec<u8>,
    /// Of what is being written, since the last piece of a block.
    crc: Hasher,
    /// What first went wrong while an encoder was writing, which can only say that something did.
    error: Option<io::Error>,
}

/// A block in a file that is not finished: offset and length.
pub(super) type Place = (u64, u64);

/// A head or a buffer: its length and its checksum.
type Piece = (u64, u32);

impl Writer {
    /// How many bytes there are, written or gathered.
    pub(super) fn nbytes(&self) -> u64 {
        self.target.nbytes + self.gathered.len() as u64
    }

    /// Adds a value. If it cannot be encoded, the file is as it was before; if it cannot be written, the file is of no
    /// use any more.
    pub(super) fn append(&mut self, value: &Value) -> Result<Place, WriteError> {
        let offset = self.nbytes();
        match self.write_block(value) {
            Ok(()) => Ok((offset, self.nbytes() - offset)),
            Err(WriteError::Disk(error)) => Err(WriteError::Disk(error)),
            Err(error) => {
                self.cut(offset)?;
                Err(error)
            }
        }
    }

    /// Writes what is gathered; gives where each of the file's blocks is.
    pub(super) fn finish(mut self, places: impl IntoIterator<Item = Place>) -> io::Result<Vec<OnDisk>> {
        self.write_out()?;
        let file = Arc::new(self.target);
        Ok(places.into_iter().map(|(offset, length)| OnDisk { file: Arc::clone(&file), offset, length }).collect())
    }

    fn write_block(&mut self, value: &Value) -> Result<(), WriteError> {
        let start = self.nbytes();
        self.crc = Hasher::new();
        let buffers = match value {
            // What encodes is the user's code.
            Value::Live(live) => catch_unwind(AssertUnwindSafe(|| live.encode_to(self)))
                .map_err(|_| WriteError::Panicked)
                .and_then(|encoded| match self.error.take() {
                    Some(error) => Err(error.into()),
                    None => Ok(encoded?),
                })?,
            Value::Encoded(encoded) => {
                self.add(&encoded.head)?;
                encoded.buffers.clone()
            }
        };
        let mut pieces: Vec<Piece> = vec![(self.nbytes() - start, self.take_sum())];
        for buffer in &buffers {
            self.add(buffer)?;
            pieces.push((buffer.len() as u64, self.take_sum()));
        }
        let pieces = postcard::to_stdvec(&pieces).map_err(io::Error::other)?;
        self.add(&pieces)?;
        self.add(&(pieces.len() as u32).to_le_bytes())?;
        let sum = self.take_sum();
        Ok(self.add(&sum.to_le_bytes())?)
    }

    /// The checksum of what was written since the last call.
    fn take_sum(&mut self) -> u32 {
        std::mem::take(&mut self.crc).finalize()
    }

    /// Takes away what follows the first `nbytes`.
    fn cut(&mut self, nbytes: u64) -> io::Result<()> {
        if let Some(gathered) = nbytes.checked_sub(self.target.nbytes) {
            self.gathered.truncate(gathered as usize);
            return Ok(());
        }
        self.gathered.clear();
        self.file.set_len(nbytes)?;
        self.target.disk.used.fetch_sub(self.target.nbytes - nbytes, Ordering::Relaxed);
        self.target.nbytes = nbytes;
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        self.write_chunk(&gathered)?;
        self.gathered = gathered;
        self.gathered.clear();
        Ok(())
    }

    fn write_chunk(&mut self, chunk: &[u8]) -> io::Result<()> {
        let nbytes = chunk.len() as u64;
        self.target.disk.reserve(nbytes)?;
        let at = self.target.nbytes;
        // Counted first: what a failed write leaves behind goes with the file.
        self.target.nbytes += nbytes;
        self.file.write_all_at(chunk, at)
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            self.crc.update(chunk);
            if self.gathered.len() + chunk.len() > CHUNK_BYTES {
                self.write_out()?;
            }
            if chunk.len() == CHUNK_BYTES {
                self.write_chunk(chunk)?;
            } else {
                self.gathered.extend_from_slice(chunk);
            }
        }
        Ok(())
    }
}

/// For encoders, which lose the error: it is kept aside.
impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.add(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                let kind = error.kind();
                self.error.get_or_insert(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OnDisk {
    pub(super) fn path(&self) -> PathBuf {
        self.file.disk.path(self.file.number)
    }

    /// Reads the value, and checks it.
    pub(super) fn read(&self) -> Result<Encoded, ReadError> {
        let block = self.open()?;
        let mut pieces = (0..block.pieces.len()).map(|number| block.read(number));
        let head = pieces.next().ok_or(ReadError::Damaged)??;
        Ok(Encoded { head, buffers: pieces.collect::<Result<_, _>>()? })
    }

    /// Reads a value in parts, of which only this part is there, and checks what it reads. What is not in parts is read as
    /// it is.
    pub(super) fn read_part(&self, number: u32) -> Result<Encoded, ReadError> {
        let block = self.open()?;
        let Some(layout) = Layout::of(&block.read(0)?) else { return self.read() };
        let buffers = layout.buffers_of(number).into_iter().map(|buffer| block.read(buffer as usize + 1));
        layout.only(number, buffers.collect::<Result<_, _>>()?).map_err(|_| ReadError::Damaged)
    }

    fn open(&self) -> Result<Block, ReadError> {
        let file = File::open(self.path())?;
        let mut tail = [0; TAIL_BYTES as usize];
        let tail_at = self.length.checked_sub(TAIL_BYTES).ok_or(ReadError::Damaged)?;
        file.read_exact_at(&mut tail, self.offset + tail_at)?;
        let [a, b, c, d, sum @ ..] = tail;
        let table_nbytes = u64::from(u32::from_le_bytes([a, b, c, d]));
        let pieces_nbytes = tail_at.checked_sub(table_nbytes).ok_or(ReadError::Damaged)?;
        let mut table = vec![0; table_nbytes as usize];
        file.read_exact_at(&mut table, self.offset + pieces_nbytes)?;
        let mut crc = Hasher::new();
        crc.update(&table);
        crc.update(&tail[..4]);
        if crc.finalize() != u32::from_le_bytes(sum) {
            return Err(ReadError::Damaged);
        }
        let table: Vec<Piece> = postcard::from_bytes(&table).map_err(|_| ReadError::Damaged)?;
        let mut at = self.offset;
        let mut pieces = Vec::with_capacity(table.len());
        for (length, sum) in table {
            pieces.push((at, length, sum));
            at = at.checked_add(length).ok_or(ReadError::Damaged)?;
        }
        if at != self.offset + pieces_nbytes {
            return Err(ReadError::Damaged);
        }
        Ok(Block { file, pieces })
    }
}

/// A block that is being read.
struct Block {
    file: File,
    /// Of the head and each buffer, where it is, its length and its checksum.
    pieces: Vec<(u64, u64, u32)>,
}

impl Block {
    /// The head, or the buffer of one less than this number.
    fn read(&self, number: usize) -> Result<Bytes, ReadError> {
        let &(mut at, length, sum) = self.pieces.get(number).ok_or(ReadError::Damaged)?;
        let mut crc = Hasher::new();
        let mut piece = vec![0; length as usize];
        for chunk in piece.chunks_mut(CHUNK_BYTES) {
            self.file.read_exact_at(chunk, at)?;
            // Checked just after it is read, while it is in the cache.
            crc.update(chunk);
            at += chunk.len() as u64;
        }
        if crc.finalize() == sum { Ok(piece.into()) } else { Err(ReadError::Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_says_whether_files_are_in_memory() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/big\\040disk xfs rw 0 0\n\
                      tmpfs /run tmpfs rw 0 0\n/dev/vdc /run ext4 rw 0 0\n";
        let is = |path: &str| is_in_memory_by(mounts, Path::new(path));
        assert!(is("/tmp/x") && is("/tmp") && is("/tmp/big"));
        assert!(!is("/tmpx") && !is("/home") && !is("/tmp/big disk/x") && !is("/run/x"));
    }
}
