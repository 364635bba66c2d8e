//! Files as bags read them: found by path, pattern or URL, opened at a place, and unpacked.
//!
//! A file is read only as long as it is the one that was found: local ones are known by size and time, objects of stores
//! by size, time and ETag. All of it blocks, and is done in tasks.

mod compression;
mod error;
mod file;
mod lines;
#[cfg(feature = "object-store")]
mod remote;
#[cfg(feature = "object-store")]
mod stores;
mod write;

pub use compression::Compression;
pub(crate) use compression::Packer;
pub use error::ReadError;
pub(crate) use file::{InputFile, is_url, shown_url};
pub(crate) use lines::{Line, Lines};
#[cfg(all(test, feature = "object-store"))]
pub(crate) use stores::set_environment;
pub(crate) use write::write_file;
