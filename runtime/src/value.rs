//! Values and how they are encoded: postcard for the structure, out-of-band buffers for the bulk.

use bytes::Bytes;

/// A value as it crosses the wire or lies on disk. The buffers are not copied into the head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The postcard encoding, in which a `Buffer` is only its number and length.
    pub head: Bytes,
    /// The buffers, in the order of their numbers.
    pub buffers: Vec<Bytes>,
}

impl Encoded {
    /// Bytes in all.
    pub fn nbytes(&self) -> u64 {
        self.head.len() as u64 + self.buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>()
    }
}
