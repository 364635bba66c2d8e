//! What touches the world: the mesh, the codec, the store, the executor threads, the flight recorder.
//!
//! Nothing here decides where or when a task runs; that is `starling_core`'s.

pub mod executor;
pub mod inbox;
pub mod memory;
pub mod mesh;
pub mod near;
pub mod parts;
pub mod recorder;
pub mod secret;
pub mod size;
pub mod slots;
pub mod store;
pub mod task;
pub mod value;
pub mod whole_file;

/// What the macros' generated code refers to. Not for people.
#[doc(hidden)]
pub mod __private {
    pub use starling_core::failure::FailureCause;

    pub use crate::executor::block_on;
    pub use crate::task::*;
    pub use crate::value::*;
}
