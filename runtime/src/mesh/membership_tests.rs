//! The membership machine alone.
