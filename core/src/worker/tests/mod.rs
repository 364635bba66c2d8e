//! Tests of the worker machine. Every effect is asserted: `expect` fails if one is missing or left over.

mod assignments;
mod env;
mod fetching;
mod fuzz;
mod losing;
