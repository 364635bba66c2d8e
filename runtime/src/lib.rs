//! What touches the world: the mesh, the codec, the store, the executor threads.
//!
//! Nothing here decides where or when a task runs; that is `starling_core`'s.

pub mod mesh;
pub mod value;
