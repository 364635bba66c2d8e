//! Closures with their types, and what can be made of them by item.
//!
//! `task!` knows a closure's types only as the compiler does, so it asks: each capability below is a pair of traits, one
//! for shapes that have it and one for all, and method lookup picks the first that fits (`(&shape).filter()`). What is
//! picked is erased into boxed functions, which the collection's tasks find by the closure's id.

use std::borrow::Borrow;
use std::collections::BinaryHeap;
use std::error::Error;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use starling_core::failure::FailureCause;

use super::block::{BlockBuilder, Bucket, Buckets, decode, encode_to};
use super::lend::text_for;
use super::scan::Scan;
use super::sink::{AnySink, PairSink, Sink, Stop, mismatch, owned_text, same_type};
use super::table::{KeyTable, bucket_of};
use super::{AnyKey, FoldFns, ItemFns, ItemType, Key, KeyFns, Through, TopK};
use crate::task::TaskResult;
use crate::value::{Data, Encoded};

/// A closure that takes its item by value.
pub struct ByValue<F>(pub(super) F);

/// A closure that takes its item by reference.
pub struct ByRef<U: ?Sized, F>(F, PhantomData<fn(&U)>);

/// A closure of one parameter, as a function of an item.
pub trait Apply<A, R>: 'static {
    /// The closure's result.
    fn apply(&self, item: A) -> R;

    /// The result for a text, which is not copied if the closure takes it by reference. Fails if items are no texts.
    fn apply_str(&self, text: &str) -> Result<R, Stop>;
}

impl<A: 'static, R, F: Fn(A) -> R + 'static> Apply<A, R> for ByValue<F> {
    fn apply(&self, item: A) -> R {
        (self.0)(item)
    }

    fn apply_str(&self, text: &str) -> Result<R, Stop> {
        Ok((self.0)(owned_text(text)?))
    }
}

impl<U: ToOwned + ?Sized + 'static, R, F: Fn(&U) -> R + 'static> Apply<U::Owned, R> for ByRef<U, F> {
    fn apply(&self, item: U::Owned) -> R {
        (self.0)(item.borrow())
    }

    fn apply_str(&self, text: &str) -> Result<R, Stop> {
        Ok((self.0)(text_for(text)?))
    }
}

/// A closure of one parameter that leaves the item whole.
pub trait Look<A, R>: 'static {
    /// The closure's result.
    fn look(&self, item: &A) -> R;

    /// The result for a text. Fails if items are no texts.
    fn look_str(&self, text: &str) -> Result<R, Stop>;
}

impl<U: ToOwned + ?Sized + 'static, R, F: Fn(&U) -> R + 'static> Look<U::Owned, R> for ByRef<U, F> {
    fn look(&self, item: &U::Owned) -> R {
        (self.0)(item.borrow())
    }

    fn look_str(&self, text: &str) -> Result<R, Stop> {
        Ok((self.0)(text_for(text)?))
    }
}

/// A closure of two parameters, as a step of a fold.
pub trait Step<S, A>: 'static {
    /// The state after the item.
    fn step(&self, state: S, item: A) -> S;

    /// The state after a text. Fails if items are no texts.
    fn step_str(&self, state: S, text: &str) -> Result<S, Stop>;
}

impl<S, A: 'static, F: Fn(S, A) -> S + 'static> Step<S, A> for ByValue<F> {
    fn step(&self, state: S, item: A) -> S {
        (self.0)(state, item)
    }

    fn step_str(&self, state: S, text: &str) -> Result<S, Stop> {
        Ok((self.0)(state, owned_text(text)?))
    }
}

impl<S, U: ToOwned + ?Sized + 'static, F: Fn(S, &U) -> S + 'static> Step<S, U::Owned> for ByRef<U, F> {
    fn step(&self, state: S, item: U::Owned) -> S {
        (self.0)(state, item.borrow())
    }

    fn step_str(&self, state: S, text: &str) -> Result<S, Stop> {
        Ok((self.0)(state, text_for(text)?))
    }
}

/// What makes a closure from its captures.
pub trait Make<C, W>: Fn(C) -> W + Clone + Send + Sync + 'static {}

impl<C, W, M: Fn(C) -> W + Clone + Send + Sync + 'static> Make<C, W> for M {}

/// A closure of one parameter with its types: captures, item, result, closure, maker.
pub struct Shape<C, A, R, W, M> {
    pub(super) make: M,
    types: PhantomData<fn(C, A, W) -> R>,
}

/// The shape of `|item: A| ...`.
pub fn by_value<C, A, R, F, M>(make: M) -> Shape<C, A, R, ByValue<F>, impl Make<C, ByValue<F>>>
where
    F: Fn(A) -> R + 'static,
    M: Make<C, F>,
{
    Shape { make: move |captures| ByValue(make(captures)), types: PhantomData }
}

/// The shape of `|item: &U| ...`.
#[allow(clippy::type_complexity)] // Only `task!` sees it.
pub fn by_ref<C, U, R, F, M>(make: M) -> Shape<C, U::Owned, R, ByRef<U, F>, impl Make<C, ByRef<U, F>>>
where
    U: ToOwned + ?Sized + 'static,
    F: Fn(&U) -> R + 'static,
    M: Make<C, F>,
{
    Shape { make: move |captures| ByRef(make(captures), PhantomData), types: PhantomData }
}

impl<C: Data, A: Data, R: 'static, W: 'static, M: Make<C, W>> Shape<C, A, R, W, M> {
    /// The functions without any capability.
    pub fn base(&self) -> ItemFns {
        ItemFns::taking::<A, R>()
    }
}

pub(super) fn captures<C: DeserializeOwned>(encoded: &Encoded) -> Result<C, FailureCause> {
    encoded.decode().map_err(|error| FailureCause::Codec { message: format!("the captures of a closure: {error}") })
}

macro_rules! capability {
    ($(#[$doc:meta])* $has:ident, $lacks:ident, $method:ident -> $fns:ty) => {
        $(#[$doc])*
        pub trait $has {
            /// The functions.
            fn $method(&self) -> Option<$fns>;
        }

        /// Chosen for every other shape.
        pub trait $lacks {
            /// Nothing.
            fn $method(&self) -> Option<$fns> {
                None
            }
        }

        impl<S> $lacks for &S {}
    };
}
pub(super) use capability;

capability!(
    /// For `map`: the result can be an item.
    HasMap, LacksMap, map -> Through
);
capability!(
    /// For `filter`: by reference, and true or false.
    HasFilter, LacksFilter, filter -> Through
);
capability!(
    /// For `flat_map`: the result holds items.
    HasFlatMap, LacksFlatMap, flat_map -> Through
);
capability!(
    /// For `try_map`: the result is a `Result` with an item.
    HasTryMap, LacksTryMap, try_map -> Through
);
capability!(
    /// For `foldby` and `join`: by reference, and the result can be encoded.
    HasKey, LacksKey, key -> KeyFns
);
capability!(
    /// For `topk`: by reference, and the result has an order.
    HasOrder, LacksOrder, topk -> TopK
);
capability!(
    /// For `fold`, `foldby` and combining: `(S, A) -> S`.
    HasFold, LacksFold, fold -> FoldFns
);

struct Map<W, R> {
    f: W,
    next: Box<dyn Sink<R>>,
}

impl<A: 'static, R: 'static, W: Apply<A, R>> Sink<A> for Map<W, R> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        self.next.push(self.f.apply(item))
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        self.next.push(self.f.apply_str(text)?)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

impl<C: Data, A: Data, R: Data, W: Apply<A, R>, M: Make<C, W>> HasMap for Shape<C, A, R, W, M> {
    fn map(&self) -> Option<Through> {
        let make = self.make.clone();
        Some(Through {
            open: Box::new(move |encoded, next| {
                Ok(AnySink::new::<A>(Map { f: make(captures(encoded)?), next: next.typed::<R>()? }))
            }),
            takes: ItemType::of::<A>(),
            gives: ItemType::of::<R>(),
        })
    }
}

struct Filter<W, A> {
    f: W,
    next: Box<dyn Sink<A>>,
}

impl<A: 'static, W: Look<A, bool>> Sink<A> for Filter<W, A> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        if self.f.look(&item) { self.next.push(item) } else { Ok(()) }
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        if self.f.look_str(text)? { self.next.push_str(text) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

impl<C: Data, A: Data, W: Look<A, bool>, M: Make<C, W>> HasFilter for Shape<C, A, bool, W, M> {
    fn filter(&self) -> Option<Through> {
        let make = self.make.clone();
        Some(Through {
            open: Box::new(move |encoded, next| {
                Ok(AnySink::new::<A>(Filter { f: make(captures(encoded)?), next: next.typed::<A>()? }))
            }),
            takes: ItemType::of::<A>(),
            gives: ItemType::of::<A>(),
        })
    }
}

struct FlatMap<W, R: IntoIterator> {
    f: W,
    next: Box<dyn Sink<R::Item>>,
}

impl<A: 'static, R: IntoIterator + 'static, W: Apply<A, R>> Sink<A> for FlatMap<W, R> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        self.f.apply(item).into_iter().try_for_each(|item| self.next.push(item))
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        self.f.apply_str(text)?.into_iter().try_for_each(|item| self.next.push(item))
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

impl<C, A, R, W, M> HasFlatMap for Shape<C, A, R, W, M>
where
    C: Data,
    A: Data,
    R: IntoIterator<Item: Data> + 'static,
    W: Apply<A, R>,
    M: Make<C, W>,
{
    fn flat_map(&self) -> Option<Through> {
        let make = self.make.clone();
        Some(Through {
            open: Box::new(move |encoded, next| {
                Ok(AnySink::new::<A>(FlatMap::<W, R> { f: make(captures(encoded)?), next: next.typed()? }))
            }),
            takes: ItemType::of::<A>(),
            gives: ItemType::of::<R::Item>(),
        })
    }
}

struct TryMap<W, T, E> {
    f: W,
    next: Box<dyn Sink<T>>,
    error: PhantomData<fn() -> E>,
}

impl<A, T, E, W> Sink<A> for TryMap<W, T, E>
where
    A: 'static,
    T: Data,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
    W: Apply<A, Result<T, E>>,
{
    fn push(&mut self, item: A) -> Result<(), Stop> {
        self.next.push(self.f.apply(item).into_outcome()?)
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        self.next.push(self.f.apply_str(text)?.into_outcome()?)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

impl<C, A, T, E, W, M> HasTryMap for Shape<C, A, Result<T, E>, W, M>
where
    C: Data,
    A: Data,
    T: Data,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
    W: Apply<A, Result<T, E>>,
    M: Make<C, W>,
{
    fn try_map(&self) -> Option<Through> {
        let make = self.make.clone();
        Some(Through {
            open: Box::new(move |encoded, next| {
                let step = TryMap::<W, T, E> { f: make(captures(encoded)?), next: next.typed()?, error: PhantomData };
                Ok(AnySink::new::<A>(step))
            }),
            takes: ItemType::of::<A>(),
            gives: ItemType::of::<T>(),
        })
    }
}

/// Splits items by key; the output is keyed, a bucket for each part.
pub(super) struct Partition<A> {
    key: Key<A>,
    parts: Vec<(BlockBuilder, BlockBuilder)>,
    scratch: Vec<u8>,
}

impl<A> Partition<A> {
    pub(super) fn new(key: Key<A>, count: u32) -> Partition<A> {
        let mut parts = Vec::new();
        parts.resize_with(count.max(1) as usize, Default::default);
        Partition { key, parts, scratch: Vec::new() }
    }
}

impl<A: Data> Sink<A> for Partition<A> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        self.scratch.clear();
        (self.key)(&item, &mut self.scratch)?;
        let part = bucket_of(&self.scratch, self.parts.len() as u32);
        let (keys, items) = &mut self.parts[part];
        keys.push(&self.scratch)?;
        Ok(items.push_value(&item)?)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        let parts = self.parts.into_iter();
        Ok(Buckets(parts.map(|(keys, items)| Bucket { keys: Some(keys.finish()), items: items.finish() }).collect()))
    }
}

impl<C: Data, A: Data, R: Data, W: Look<A, R>, M: Make<C, W>> HasKey for Shape<C, A, R, W, M> {
    fn key(&self) -> Option<KeyFns> {
        let make = self.make.clone();
        let key = move |encoded: &Encoded| -> Result<Key<A>, FailureCause> {
            let f = make(captures(encoded)?);
            Ok(Box::new(move |item: &A, bytes: &mut Vec<u8>| encode_to(&f.look(item), bytes)))
        };
        let also = key.clone();
        Some(KeyFns {
            extract: Box::new(move |encoded| Ok(AnyKey::new(key(encoded)?))),
            partition: Box::new(move |encoded, count| Ok(AnySink::new(Partition::new(also(encoded)?, count)))),
        })
    }
}

/// A candidate of `topk`. The greater one is kept: by key, and of equals the earlier one.
struct Candidate<K, A> {
    key: K,
    number: u64,
    item: A,
}

impl<K: Ord, A> PartialEq for Candidate<K, A> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<K: Ord, A> Eq for Candidate<K, A> {}

impl<K: Ord, A> PartialOrd for Candidate<K, A> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, A> Ord for Candidate<K, A> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key).then(other.number.cmp(&self.number))
    }
}

struct Largest<W, K, A> {
    f: W,
    limit: usize,
    seen: u64,
    /// The least of the kept ones is on top.
    kept: BinaryHeap<std::cmp::Reverse<Candidate<K, A>>>,
}

impl<A: Data, K: Ord + 'static, W: Look<A, K>> Sink<A> for Largest<W, K, A> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        let candidate = Candidate { key: self.f.look(&item), number: self.seen, item };
        self.seen += 1;
        if self.kept.len() < self.limit {
            self.kept.push(std::cmp::Reverse(candidate));
        } else if let Some(mut least) = self.kept.peek_mut()
            && candidate > least.0
        {
            least.0 = candidate;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        let mut items = BlockBuilder::default();
        for std::cmp::Reverse(candidate) in self.kept.into_sorted_vec() {
            items.push_value(&candidate.item)?;
        }
        Ok(Buckets::one(items.finish()))
    }
}

/// A sink that keeps the `limit` items that `f` gives the largest keys.
pub(super) fn largest<A: Data, K: Ord + 'static, W: Look<A, K>>(f: W, limit: u64) -> AnySink {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    AnySink::new::<A>(Largest { f, limit, seen: 0, kept: BinaryHeap::new() })
}

impl<C: Data, A: Data, R: Ord + 'static, W: Look<A, R>, M: Make<C, W>> HasOrder for Shape<C, A, R, W, M> {
    fn topk(&self) -> Option<TopK> {
        let make = self.make.clone();
        Some(Box::new(move |encoded, limit| Ok(largest::<A, R, W>(make(captures(encoded)?), limit))))
    }
}

/// A closure of two parameters with its types: captures, state, item, result, closure, maker.
pub struct FoldShape<C, S, A, R, W, M> {
    make: M,
    #[allow(clippy::type_complexity)] // As many as it says.
    types: PhantomData<fn(C, S, A, W) -> R>,
}

/// The shape of `|state: S, item: A| ...`.
pub fn fold_by_value<C, S, A, R, F, M>(make: M) -> FoldShape<C, S, A, R, ByValue<F>, impl Make<C, ByValue<F>>>
where
    F: Fn(S, A) -> R + 'static,
    M: Make<C, F>,
{
    FoldShape { make: move |captures| ByValue(make(captures)), types: PhantomData }
}

/// The shape of `|state: S, item: &U| ...`.
#[allow(clippy::type_complexity)] // Only `task!` sees it.
pub fn fold_by_ref<C, S, U, R, F, M>(make: M) -> FoldShape<C, S, U::Owned, R, ByRef<U, F>, impl Make<C, ByRef<U, F>>>
where
    U: ToOwned + ?Sized + 'static,
    F: Fn(S, &U) -> R + 'static,
    M: Make<C, F>,
{
    FoldShape { make: move |captures| ByRef(make(captures), PhantomData), types: PhantomData }
}

impl<C: Data, S: Data, A: Data, R: 'static, W: 'static, M: Make<C, W>> FoldShape<C, S, A, R, W, M> {
    /// The functions without any capability.
    pub fn base(&self) -> ItemFns {
        ItemFns::taking::<A, R>()
    }
}

/// Folds all items. Without a zero the first item is the state, as when partial states are combined.
struct Fold<W, S> {
    f: W,
    state: Option<S>,
}

/// The state after one more item.
pub(super) fn stepped<S: Data, A: Data>(f: &impl Step<S, A>, state: Option<S>, item: A) -> Result<S, FailureCause> {
    match state {
        Some(state) => Ok(f.step(state, item)),
        None => same_type(item).ok_or_else(|| mismatch::<A>(std::any::type_name::<S>())),
    }
}

impl<S: Data, A: Data, W: Step<S, A>> Sink<A> for Fold<W, S> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        self.state = Some(stepped(&self.f, self.state.take(), item)?);
        Ok(())
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        match self.state.take() {
            Some(state) => self.state = Some(self.f.step_str(state, text)?),
            None => return self.push(owned_text(text)?),
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        Ok(Buckets::one(super::ItemBlock::of(self.state)?))
    }
}

/// Folds the items of each key. Keys come out in the order in which they were first seen.
struct FoldBy<W, S, A> {
    f: W,
    key: Key<A>,
    zero: Option<S>,
    /// `None` only while a state is being stepped.
    states: KeyTable<Option<S>>,
    buckets: u32,
    scratch: Vec<u8>,
}

fn states_out<S: Data>(states: KeyTable<Option<S>>, buckets: u32) -> Result<Buckets, FailureCause> {
    states.into_buckets(buckets, |state, items| match state {
        Some(state) => items.push_value(state),
        None => Err(FailureCause::Codec { message: "a key was left without a state".into() }),
    })
}

impl<S: Data, A: Data, W: Step<S, A>> Sink<A> for FoldBy<W, S, A> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        self.scratch.clear();
        (self.key)(&item, &mut self.scratch)?;
        let state = self.states.get_or_insert_with(&self.scratch, || self.zero.clone())?;
        *state = Some(stepped(&self.f, state.take(), item)?);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        states_out(self.states, self.buckets)
    }
}

/// Combines the states that other tasks made for the same keys.
struct Merge<W, S, A> {
    f: W,
    states: KeyTable<Option<S>>,
    buckets: u32,
    item: PhantomData<fn(A)>,
}

impl<S: Data, A: Data, W: Step<S, A>> PairSink for Merge<W, S, A> {
    fn push_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Stop> {
        let state = self.states.get_or_insert_with(key, || None)?;
        *state = Some(stepped(&self.f, state.take(), decode::<A>(value)?)?);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        states_out(self.states, self.buckets)
    }
}

impl<C: Data, S: Data, A: Data, W: Step<S, A>, M: Make<C, W>> HasFold for FoldShape<C, S, A, S, W, M> {
    fn fold(&self) -> Option<FoldFns> {
        let (make, make_by, make_merge) = (self.make.clone(), self.make.clone(), self.make.clone());
        let make_scan = self.make.clone();
        let state = |zero: Option<&[u8]>| zero.map(decode::<S>).transpose();
        Some(FoldFns {
            fold: Box::new(move |encoded, zero| {
                Ok(AnySink::new::<A>(Fold { f: make(captures(encoded)?), state: state(zero)? }))
            }),
            fold_by: Box::new(move |encoded, key, zero, buckets| {
                Ok(AnySink::new::<A>(FoldBy {
                    f: make_by(captures(encoded)?),
                    key: key.typed::<A>()?,
                    zero: state(zero)?,
                    states: KeyTable::default(),
                    buckets,
                    scratch: Vec::new(),
                }))
            }),
            scan: Box::new(move |encoded, zero, keeps_zero| {
                let scan = Scan::new(make_scan(captures(encoded)?), state(zero)?, keeps_zero)?;
                Ok(AnySink::new::<A>(scan))
            }),
            merge: Box::new(move |encoded, buckets| {
                let f = make_merge(captures(encoded)?);
                Ok(Box::new(Merge::<W, S, A> { f, states: KeyTable::default(), buckets, item: PhantomData }))
            }),
        })
    }
}
