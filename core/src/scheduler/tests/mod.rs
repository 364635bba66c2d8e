//! Tests of the scheduler machine. Every effect is asserted: `expect` fails if one is missing or left over.

mod admitting;
mod ahead;
mod asking;
mod copies;
mod env;
mod faults;
mod fuzz;
mod keeping;
mod lifetime;
mod moving;
mod parts;
mod placing;
mod queue;
mod records;
mod recovering;
mod reports;
mod requirements;
mod resuming;
mod retrying;
mod scenarios;
mod stealing;
mod stream;
mod submitting;
