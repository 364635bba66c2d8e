//! Scenarios that every scheduler of this kind meets, with stealing, resources, moves and cancelling all at work.
//! `integration-tests/SCENARIOS.md` says which of them Dask's tests have too.

mod cancelling;
mod moving;
mod play;
mod resources;
mod stealing;
