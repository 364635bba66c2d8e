//! Where files lie: which worker nodes have a path, whether their copies agree, and how a file gets from one to another.
//!
//! The client names paths, the workers have the files. [`list`] asks every worker what it has under a path and merges the
//! answers; [`put`] and [`get`] copy files over the mesh, in pieces and with a checksum. All of it is done by tasks, so that
//! it needs no port and no protocol of its own, and it sees exactly what a task would see. A task waits for a place on its
//! worker like any other, although before all others in the queue.
//!
//! Contents are compared only where a file is copied. Elsewhere two copies are the same if their sizes are: the times of
//! copies differ as soon as somebody copies without them.

mod error;
mod listing;
mod mesh;
mod read;
mod tasks;
mod transfer;
mod write;

#[cfg(test)]
mod tests;

pub use error::FilesError;
pub use listing::{Copy, FileEntry, Found, Listing, MeshFile};
pub use mesh::{list, read};
#[cfg(feature = "frame")]
pub(crate) use read::modified;
pub use read::{FILES_MAX, READ_BYTES_MAX};
pub use transfer::{GetOptions, Got, Put, PutOptions, Targets, get, put};
