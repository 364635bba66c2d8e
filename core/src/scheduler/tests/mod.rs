//! Tests of the scheduler machine. Every effect is asserted: `expect` fails if one is missing or left over.

mod env;
mod faults;
mod fuzz;
mod lifetime;
mod placing;
mod queue;
mod scenarios;
mod submitting;
