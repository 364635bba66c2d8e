//! Collections: data that is spread over a cluster, and what can be done with it.

pub mod csv;
