//! Sinks that look at an item's place, not at the item.

use starling_core::failure::FailureCause;
use starling_runtime::task::items::{Buckets, Collect, Gate, RawSink, Record, Row, Stop};

/// Keeps the items at some places, in order, and takes no more behind the last of them.
pub(crate) struct Places {
    /// The places, in order, from the last to the next.
    left: Vec<u64>,
    at: u64,
    kept: Collect,
}

impl Places {
    /// `places` are distinct and in order.
    pub(crate) fn new(places: &[u64]) -> Places {
        Places { left: places.iter().rev().copied().collect(), at: 0, kept: Collect::new(u64::MAX) }
    }

    fn take(&mut self, push: impl FnOnce(&mut Collect) -> Result<(), Stop>) -> Result<(), Stop> {
        if self.left.last() == Some(&self.at) {
            self.left.pop();
            push(&mut self.kept)?;
        }
        self.at += 1;
        if self.left.is_empty() { Err(Stop::Enough) } else { Ok(()) }
    }
}

impl RawSink for Places {
    fn push_encoded(&mut self, item: &[u8]) -> Result<(), Stop> {
        self.take(|kept| kept.push_encoded(item))
    }

    fn push_line(&mut self, line: &str) -> Result<(), Stop> {
        self.take(|kept| kept.push_line(line))
    }

    fn push_row(&mut self, row: &Row<'_>) -> Result<(), Stop> {
        self.take(|kept| kept.push_row(row))
    }

    fn push_record(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        self.take(|kept| kept.push_record(record))
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        Box::new(self.kept).finish()
    }
}

/// Lets through the items that a gate does.
pub(crate) struct Gated {
    pub(crate) gate: Gate,
    pub(crate) next: Box<dyn RawSink>,
}

impl RawSink for Gated {
    fn wants_bytes(&self) -> bool {
        self.next.wants_bytes()
    }

    fn push_encoded(&mut self, item: &[u8]) -> Result<(), Stop> {
        if (self.gate)() { self.next.push_encoded(item) } else { Ok(()) }
    }

    fn push_line(&mut self, line: &str) -> Result<(), Stop> {
        if (self.gate)() { self.next.push_line(line) } else { Ok(()) }
    }

    fn push_row(&mut self, row: &Row<'_>) -> Result<(), Stop> {
        if (self.gate)() { self.next.push_row(row) } else { Ok(()) }
    }

    fn push_record(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        if (self.gate)() { self.next.push_record(record) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}
