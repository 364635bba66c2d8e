//! A disk of which a crash leaves what had been written, and perhaps a part of what was being written.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use starling_quorum::{Disk, Memory};

/// A node's disk. The files outlive the node; a node that is dead writes nothing more.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    files: Memory,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Which start of the node may write.
    start: u64,
    /// The writes until the one in which the node dies.
    writes_left: Option<u64>,
    /// How much of that write gets done, in hundredths.
    part: u64,
    has_died: bool,
}

/// The disk as one start of a node has it.
pub(crate) struct Mounted {
    disk: SimDisk,
    start: u64,
}

impl SimDisk {
    /// For a node that starts now. Whatever had it before writes nothing more.
    pub(crate) fn mount(&self) -> Mounted {
        let mut state = self.state();
        *state = State { start: state.start + 1, ..State::default() };
        Mounted { disk: self.clone(), start: state.start }
    }

    /// The node is dead.
    pub(crate) fn unmount(&self) {
        drop(self.mount());
    }

    /// The node dies in the write after so many more, of which a part gets done.
    pub(crate) fn die_in_write(&self, after: u64, part: u64) {
        let mut state = self.state();
        (state.writes_left, state.part) = (Some(after), part);
    }

    /// Whether the node is about to die in a write.
    pub(crate) fn is_armed(&self) -> bool {
        self.state().writes_left.is_some()
    }

    /// Whether the node has died in a write.
    pub(crate) fn has_died(&self) -> bool {
        self.state().has_died
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mounted {
    /// How much of this write gets done, in hundredths; an error if nothing does.
    fn write(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        if state.start != self.start || state.has_died {
            return Err(io::Error::other("the node is dead"));
        }
        match state.writes_left {
            None => Ok(100),
            Some(0) => {
                state.has_died = true;
                Ok(state.part)
            }
            Some(left) => {
                state.writes_left = Some(left - 1);
                Ok(100)
            }
        }
    }

    fn all_or_dead(part: u64) -> io::Result<()> {
        if part == 100 { Ok(()) } else { Err(io::Error::other("the node has died in this write")) }
    }
}

impl Disk for Mounted {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk.files.read(name)
    }

    fn replace(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let part = self.write()?;
        // It was renamed or not; the one who has written it does not get to know.
        if part >= 50 {
            self.disk.files.replace(name, content)?;
        }
        Mounted::all_or_dead(part)
    }

    fn append(&mut self, name: &str, more: &[u8]) -> io::Result<()> {
        let part = self.write()?;
        let len = more.len() * part as usize / 100;
        self.disk.files.append(name, &more[..len])?;
        Mounted::all_or_dead(part)
    }

    fn cut(&mut self, name: &str, len: u64) -> io::Result<()> {
        let part = self.write()?;
        if part >= 50 {
            self.disk.files.cut(name, len)?;
        }
        Mounted::all_or_dead(part)
    }

    fn place(&self, name: &str) -> String {
        format!("/sim/{name}")
    }

    fn is_fast(&self) -> bool {
        true
    }
}
