//! A fold that keeps the state after each item.

use starling_core::failure::FailureCause;

use super::block::{BlockBuilder, Bucket, Buckets, ItemBlock};
use super::shape::{Step, stepped};
use super::sink::{Sink, Stop};
use crate::value::Data;

/// Keeps the state after each item; the output is the states, and in a bucket of its own the last one.
pub(super) struct Scan<W, S> {
    f: W,
    state: Option<S>,
    states: BlockBuilder,
}

impl<W, S: Data> Scan<W, S> {
    /// Goes on from `state`, which is itself the first of what is kept if `keeps_zero`.
    pub(super) fn new(f: W, state: Option<S>, keeps_zero: bool) -> Result<Scan<W, S>, FailureCause> {
        let mut states = BlockBuilder::default();
        if keeps_zero && let Some(state) = &state {
            states.push_value(state)?;
        }
        Ok(Scan { f, state, states })
    }
}

impl<S: Data, A: Data, W: Step<S, A>> Sink<A> for Scan<W, S> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        let state = stepped(&self.f, self.state.take(), item)?;
        self.states.push_value(&state)?;
        self.state = Some(state);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        let last = ItemBlock::of(self.state)?;
        Ok(Buckets([self.states.finish(), last].map(|items| Bucket { keys: None, items }).into()))
    }
}
