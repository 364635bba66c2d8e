//! Runnable examples, in `examples/`. This library is empty: cargo wants a target that is no example.
