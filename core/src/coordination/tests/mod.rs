mod basics;
mod bounds;
mod env;
mod fuzz;
mod leases;
mod logging;
