//! The pure part of Starling: what a cluster decides, with nothing of the world in it.
//!
//! [`scheduler::Scheduler`] and [`worker::Worker`] are deterministic machines: `handle(now, event, &mut effects)` takes
//! an event and appends effects, and the same events give the same effects. Time, identity and randomness come in as
//! arguments. This crate has no clock, no async runtime, no thread and no random-order map; `clippy.toml` beside it and
//! its `Cargo.toml` keep that so.
//!
//! - [`ids`]: the typed ids of everything that crosses a boundary.
//! - [`spec`]: what a client asks for: one task ([`spec::TaskSpec`]).
//! - [`graph`]: a named task graph, checked before it is sent; [`order`]: the order in which tasks should run.
//! - [`wire`]: the messages between client, scheduler and worker, with the protocol's version.
//! - [`failure`]: why a task has no result; [`explain`]: why it does not run.
//! - [`ledger`]: what a quorum of nodes remembers for schedulers to come; [`election`]: who votes, and who stands first.
//! - [`coordination`]: locks, semaphores, events, queues, variables, barriers, metadata, topics.
//! - [`scheduler`], [`worker`], [`registry`]: the machines; [`directory`]: the one that knows who holds which name.
//! - [`record`]: a scheduler's event log, and its replay.
//! - [`query`]: what clients ask about workers, tasks and outputs.
//! - [`fixed`]: hash maps without a random seed.

pub mod coordination;
pub mod directory;
pub mod election;
pub mod explain;
pub mod failure;
pub mod fixed;
pub mod graph;
pub mod ids;
pub mod ledger;
pub mod order;
pub mod query;
pub mod record;
pub mod registry;
pub mod scheduler;
pub mod spec;
pub mod task_stream;
pub mod wire;
pub mod worker;
