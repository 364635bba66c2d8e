//! Tests of the worker machine. Every effect is asserted: `expect` fails if one is missing or left over.

mod acquiring;
mod assignments;
mod env;
mod fetching;
mod fuzz;
mod handed_out;
mod limits;
mod losing;
mod parts;
mod scenarios;
mod sent_ahead;
