//! Steps that see a partition as a whole, and the negation of a filter.

use starling_core::failure::FailureCause;

use super::shape::{Apply, Look, Make, Shape, capability, captures};
use super::sink::{AnySink, Sink, Stop};
use super::{Buckets, ItemType, Through};
use crate::value::Data;

capability!(
    /// For `map_partitions`: takes a list of items, and the result holds items.
    HasPartitions, LacksPartitions, partitions -> Through
);
capability!(
    /// For `reduction`: takes a list of items, and the result can be an item.
    HasReduce, LacksReduce, reduce -> Through
);
capability!(
    /// For `remove`: by reference, and true or false.
    HasRemove, LacksRemove, remove -> Through
);

/// Gathers all items, and gives what `f` makes of them when there are no more.
struct Whole<W, X, R, I> {
    f: W,
    items: Vec<X>,
    next: Box<dyn Sink<I>>,
    /// What goes on of the closure's result.
    spread: fn(R, &mut dyn Sink<I>) -> Result<(), Stop>,
}

impl<X, R, I, W> Sink<X> for Whole<W, X, R, I>
where
    X: 'static,
    R: 'static,
    I: 'static,
    W: Apply<Vec<X>, R>,
{
    fn push(&mut self, item: X) -> Result<(), Stop> {
        self.items.push(item);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Buckets, FailureCause> {
        let result = self.f.apply(std::mem::take(&mut self.items));
        match (self.spread)(result, &mut *self.next) {
            Ok(()) | Err(Stop::Enough) => self.next.finish(),
            Err(Stop::Unfit(message)) => Err(FailureCause::Codec { message: message.into() }),
            Err(Stop::Failed(cause)) => Err(*cause),
        }
    }
}

impl<C, X, R, W, M> HasPartitions for Shape<C, Vec<X>, R, W, M>
where
    C: Data,
    X: Data,
    R: IntoIterator<Item: Data> + 'static,
    W: Apply<Vec<X>, R>,
    M: Make<C, W>,
{
    fn partitions(&self) -> Option<Through> {
        let make = self.make.clone();
        Some(Through {
            open: Box::new(move |encoded, next| {
                let spread =
                    |result: R, next: &mut dyn Sink<R::Item>| result.into_iter().try_for_each(|item| next.push(item));
                let f = make(captures(encoded)?);
                Ok(AnySink::new::<X>(Whole { f, items: Vec::new(), next: next.typed()?, spread }))
            }),
            takes: ItemType::of::<X>(),
            gives: ItemType::of::<R::Item>(),
        })
    }
}

impl<C: Data, X: Data, R: Data, W: Apply<Vec<X>, R>, M: Make<C, W>> HasReduce for Shape<C, Vec<X>, R, W, M> {
    fn reduce(&self) -> Option<Through> {
        let make = self.make.clone();
        Some(Through {
            open: Box::new(move |encoded, next| {
                let spread = |result: R, next: &mut dyn Sink<R>| next.push(result);
                let f = make(captures(encoded)?);
                Ok(AnySink::new::<X>(Whole { f, items: Vec::new(), next: next.typed()?, spread }))
            }),
            takes: ItemType::of::<X>(),
            gives: ItemType::of::<R>(),
        })
    }
}

struct Remove<W, A> {
    f: W,
    next: Box<dyn Sink<A>>,
}

impl<A: 'static, W: Look<A, bool>> Sink<A> for Remove<W, A> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        if self.f.look(&item) { Ok(()) } else { self.next.push(item) }
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

impl<C: Data, A: Data, W: Look<A, bool>, M: Make<C, W>> HasRemove for Shape<C, A, bool, W, M> {
    fn remove(&self) -> Option<Through> {
        let make = self.make.clone();
        Some(Through {
            open: Box::new(move |encoded, next| {
                let f = make(captures(encoded)?);
                Ok(AnySink::new::<A>(Remove::<W, A> { f, next: next.typed()? }))
            }),
            takes: ItemType::of::<A>(),
            gives: ItemType::of::<A>(),
        })
    }
}
