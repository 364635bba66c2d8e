//! The pure scheduler against the clock: a merge graph of no-op tasks, with every message made up on the spot.
