//! What a run has to keep, one file each.
//!
//! - [`values`]: no wrong value, no outcome that may not be, none twice; an outcome for everything that is held.
//! - [`requests`]: every request is answered once, and truly.
//! - [`resources`]: no node runs more than its resources allow; a restricted task runs only where it may.
//! - [`leaving`]: a worker that is let go takes nothing with it.
//! - [`acknowledged_is_kept`]: what a client was told of is to be had until it lets it go.
//! - [`one_attempt`]: who reads an output reads the same one as everybody else.
//! - [`terms_grow`]: nobody goes back to the scheduler of an earlier term.
//! - [`registry_converges`]: when all is quiet, the scheduler believes what the nodes hold.
//! - [`inventory`]: what a worker says to have when it registers is what its node has.
//! - [`emptiness`]: in the end, nothing is left anywhere.

pub(crate) mod acknowledged_is_kept;
pub(crate) mod emptiness;
pub(crate) mod inventory;
pub(crate) mod leaving;
pub(crate) mod one_attempt;
pub(crate) mod registry_converges;
pub(crate) mod requests;
pub(crate) mod resources;
pub(crate) mod terms_grow;
pub(crate) mod values;
