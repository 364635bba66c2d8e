//! The mesh over real TCP on loopback: whole clusters in one process, each node on a port that the system gave it.

#![allow(missing_docs, clippy::unwrap_used)]

mod admission;
mod blocks;
mod common;
mod links;
mod members;
mod routes;
