//! Where tables' files lie, and how queries read them.
//!
//! - [`registry`] gives every node the stores of files: `file://`, `http(s)://`, `s3://`, `hdfs://`, each made when a URL
//!   first names it, from the node's own environment.
//! - [`MeshFiles`] is what a client puts in the place of its own disk under `file://`: paths are looked for on the workers,
//!   who are to read them. It knows which file is where ([`MeshFiles::placement_of`]).
//! - [`check`] says on a worker that a file is another one than the plan was made for.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use datafusion::prelude::{SessionConfig, SessionContext};
//! # use starling_actors::Cluster;
//! # use starling_collections::frame::files::{MeshFiles, runtime_env, registry};
//! # fn sessions(cluster: &Cluster) -> Result<(), datafusion::error::DataFusionError> {
//! // At the client:
//! let files = MeshFiles::new(cluster);
//! let runtime = runtime_env(files.registry()).build_arc()?;
//! let context = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
//! // On a worker node, for all of its tasks:
//! let runtime = runtime_env(registry()).build_arc()?;
//! # Ok(())
//! # }
//! ```

mod check;
mod error;
mod explained;
mod local;
mod mesh;
mod place;
mod registry;

#[cfg(test)]
mod tests;

pub use check::{Checked, check};
pub use error::StoreError;
pub use mesh::MeshFiles;
pub(super) use place::together;
pub use registry::{registry, runtime_env};
