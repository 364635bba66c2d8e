//! Tests of the scheduler machine. Every effect is asserted: `expect` fails if one is missing or left over.

mod admitting;
mod ahead;
mod asking;
mod env;
mod faults;
mod fuzz;
mod lifetime;
mod moving;
mod parts;
mod placing;
mod queue;
mod requirements;
mod scenarios;
mod stealing;
mod submitting;
