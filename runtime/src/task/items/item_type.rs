//! What can be done with items of a type that only the neighbours of a link know.

use starling_core::failure::FailureCause;

use super::elements::Elements;
use super::sink::{AnySink, Decode, Encode, RawSink, Sink, Stop};
use super::{Buckets, Makes};
use crate::value::Data;

/// Asked for each item, in order: whether it goes on.
pub type Gate = Box<dyn FnMut() -> bool>;

/// A type of items, for whoever links sinks without knowing it.
#[derive(Clone, Copy)]
pub struct ItemType {
    decode: fn(AnySink) -> Makes<Box<dyn RawSink>>,
    encode: fn(Box<dyn RawSink>) -> AnySink,
    elements: fn(Box<dyn RawSink>) -> AnySink,
    gate: fn(AnySink, Gate) -> Makes<AnySink>,
}

impl ItemType {
    /// The type `A`.
    pub const fn of<A: Data>() -> ItemType {
        ItemType {
            decode: |next| Ok(Box::new(Decode::<A> { next: next.typed()? })),
            encode: Encode::<A>::erased,
            elements: |next| AnySink::new::<A>(Elements::new(next)),
            gate: |next, gate| Ok(AnySink::new::<A>(Gated::<A> { gate, next: next.typed()? })),
        }
    }

    /// A sink of encoded items for a sink of these items.
    pub fn decode(self, next: AnySink) -> Makes<Box<dyn RawSink>> {
        (self.decode)(next)
    }

    /// A sink of these items that gives them, encoded, to a sink that does not know their type.
    pub fn encode(self, next: Box<dyn RawSink>) -> AnySink {
        (self.encode)(next)
    }

    /// A sink of these items, which are lists, that gives the elements of each, encoded.
    pub fn elements(self, next: Box<dyn RawSink>) -> AnySink {
        (self.elements)(next)
    }

    /// The sink, reached only by the items that the gate lets through.
    pub fn gate(self, next: AnySink, gate: Gate) -> Makes<AnySink> {
        (self.gate)(next, gate)
    }
}

struct Gated<A> {
    gate: Gate,
    next: Box<dyn Sink<A>>,
}

impl<A: 'static> Sink<A> for Gated<A> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        if (self.gate)() { self.next.push(item) } else { Ok(()) }
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        if (self.gate)() { self.next.push_str(text) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}
