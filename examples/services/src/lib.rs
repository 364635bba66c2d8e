//! Services that host a node: see `examples/`.
