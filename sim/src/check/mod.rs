//! What a run has to keep, one file each.
//!
//! - [`values`]: no wrong value, no outcome that may not be, none twice; an outcome for everything that is held.
//! - [`requests`]: every request is answered once, and truly.
//! - [`resources`]: no node runs more than its resources allow; a restricted task runs only where it may.
//! - [`leaving`]: a worker that is let go takes nothing with it.
//! - [`inventory`]: what a worker says to have when it registers is what its node has.
//! - [`emptiness`]: in the end, nothing is left anywhere.

pub(crate) mod emptiness;
pub(crate) mod inventory;
pub(crate) mod leaving;
pub(crate) mod requests;
pub(crate) mod resources;
pub(crate) mod values;
