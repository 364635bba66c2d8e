//! Collections: data that is spread over a cluster, and what can be done with it.
//!
//! Each collection lowers to tasks through the public client, `starling_actors::Cluster`. Nothing here knows of actors or
//! of the mesh.

pub mod bag;
pub mod csv;
pub mod files;
#[cfg(feature = "frame")]
pub mod frame;
pub mod input;
pub mod stackexchange;

pub use bag::{Bag, BagError};
