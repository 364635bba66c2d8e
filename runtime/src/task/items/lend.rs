//! Closures whose results borrow from their item: `|line: &str| -> impl Iterator<Item = &str> { .. }`.
//!
//! A result that borrows is no item: items outlive their step. But the step after it can take it while it is there, so
//! that a line's words are counted where they stand. `task!` writes such a closure as a function, since only a function's
//! result may borrow from its argument, and gives it the captures by reference.
//!
//! Texts are what this is for: a sink takes a `&str` where it takes a `String` ([`Sink::push_str`]). Other borrowed results
//! are cloned when they become items.

use std::any::Any;
use std::borrow::Borrow;
use std::marker::PhantomData;

use starling_core::failure::FailureCause;

use super::block::{Buckets, encode_to};
use super::shape::{HasFlatMap, HasKey, HasMap, HasOrder, Look, Partition, captures, largest};
use super::sink::{AnySink, Sink, Stop, mismatch};
use super::{AnyKey, ItemFns, ItemType, Key, KeyFns, Through, TopK};
use crate::value::{Data, Encoded};

/// A text as a `&U`, if that is the same.
pub(super) fn text_as<U: ?Sized + 'static>(text: &str) -> Option<&U> {
    let same: fn(&str) -> &str = |text| text;
    (&same as &dyn Any).downcast_ref::<fn(&str) -> &U>().map(|same| same(text))
}

/// A `&U` as a text, if it is one.
fn as_text<U: ?Sized + 'static>(item: &U) -> Option<&str> {
    let same: fn(&str) -> &str = |text| text;
    (&same as &dyn Any).downcast_ref::<fn(&U) -> &str>().map(|same| same(item))
}

/// A text as a `&U`, or an error that says what was expected.
pub(super) fn text_for<U: ?Sized + 'static>(text: &str) -> Result<&U, Stop> {
    text_as(text).ok_or_else(|| mismatch::<str>(std::any::type_name::<U>()).into())
}

/// Gives a borrowed item to a sink of its type.
fn push_lent<V: ToOwned + ?Sized + 'static>(next: &mut dyn Sink<V::Owned>, item: &V) -> Result<(), Stop> {
    match as_text(item) {
        Some(text) => next.push_str(text),
        None => next.push(item.to_owned()),
    }
}

/// Stands in a handle's type for what a closure returns that gives borrowed items. There is no value of it: the items are
/// only there while a collection runs the closure.
pub struct Lends<V: ?Sized>(std::convert::Infallible, PhantomData<fn(&V)>);

impl<V: ToOwned + ?Sized> IntoIterator for Lends<V> {
    type Item = V::Owned;
    type IntoIter = std::iter::Empty<V::Owned>;

    fn into_iter(self) -> Self::IntoIter {
        match self.0 {}
    }
}

/// A function of captures and an item that gives items that borrow from both.
pub trait GivesMany<'a, C, U: ?Sized, V: ?Sized + 'a>: 'static {
    /// What it returns.
    type Many: IntoIterator<Item = &'a V>;

    /// Calls it.
    fn give(&self, captures: &'a C, item: &'a U) -> Self::Many;
}

impl<'a, C: 'a, U: ?Sized + 'a, V: ?Sized + 'a, F, I> GivesMany<'a, C, U, V> for F
where
    F: Fn(&'a C, &'a U) -> I + 'static,
    I: IntoIterator<Item = &'a V>,
{
    type Many = I;

    fn give(&self, captures: &'a C, item: &'a U) -> I {
        self(captures, item)
    }
}

/// A function that gives borrowed items, with its types: captures, item, given item, function.
pub struct Many<C, U: ?Sized, V: ?Sized, F> {
    f: F,
    #[allow(clippy::type_complexity)] // As many as it says.
    types: PhantomData<fn(C, &U, &V)>,
}

/// The shape of `|item: &U| -> impl Iterator<Item = &V> ...`.
pub fn lends_many<C, U, V, F>(f: F) -> Many<C, U, V, F>
where
    U: ?Sized,
    V: ?Sized,
    F: for<'a> GivesMany<'a, C, U, V>,
{
    Many { f, types: PhantomData }
}

impl<C, U, V, F> Many<C, U, V, F>
where
    U: ToOwned<Owned: Data> + ?Sized,
    V: ?Sized + 'static,
{
    /// The functions without any capability.
    pub fn base(&self) -> ItemFns {
        ItemFns::taking::<U::Owned, Lends<V>>()
    }
}

struct FlatMapLent<C, U: ?Sized, V: ToOwned<Owned: 'static> + ?Sized, F> {
    f: F,
    captures: C,
    next: Box<dyn Sink<V::Owned>>,
    item: PhantomData<fn(&U)>,
}

impl<C, U, V, F> FlatMapLent<C, U, V, F>
where
    U: ?Sized,
    V: ToOwned<Owned: 'static> + ?Sized + 'static,
    F: for<'a> GivesMany<'a, C, U, V>,
{
    fn look(&mut self, item: &U) -> Result<(), Stop> {
        let next = &mut *self.next;
        self.f.give(&self.captures, item).into_iter().try_for_each(|item| push_lent(next, item))
    }
}

impl<C, U, V, F> Sink<U::Owned> for FlatMapLent<C, U, V, F>
where
    C: 'static,
    U: ToOwned + ?Sized + 'static,
    V: ToOwned<Owned: 'static> + ?Sized + 'static,
    F: for<'a> GivesMany<'a, C, U, V>,
{
    fn push(&mut self, item: U::Owned) -> Result<(), Stop> {
        self.look(item.borrow())
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        self.look(text_for(text)?)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

impl<C, U, V, F> HasFlatMap for Many<C, U, V, F>
where
    C: Data,
    U: ToOwned<Owned: Data> + ?Sized + 'static,
    V: ToOwned<Owned: Data> + ?Sized + 'static,
    F: for<'a> GivesMany<'a, C, U, V> + Copy + Send + Sync,
{
    fn flat_map(&self) -> Option<Through> {
        let f = self.f;
        Some(Through {
            open: Box::new(move |encoded, next| {
                let (captures, next) = (captures(encoded)?, next.typed()?);
                Ok(AnySink::new::<U::Owned>(FlatMapLent::<C, U, V, F> { f, captures, next, item: PhantomData }))
            }),
            takes: ItemType::of::<U::Owned>(),
            gives: ItemType::of::<V::Owned>(),
        })
    }
}

/// A function that gives a part of its item, with its types: captures, item, part, function.
pub struct One<C, U: ?Sized, V: ?Sized, F> {
    f: F,
    #[allow(clippy::type_complexity)] // As many as it says.
    types: PhantomData<fn(C, &U, &V)>,
}

/// The shape of `|item: &U| -> &V ...`.
pub fn lends_one<C, U, V, F>(f: F) -> One<C, U, V, F>
where
    U: ?Sized,
    V: ?Sized,
    F: for<'a> Fn(&'a C, &'a U) -> &'a V,
{
    One { f, types: PhantomData }
}

impl<C, U, V, F> One<C, U, V, F>
where
    U: ToOwned<Owned: Data> + ?Sized,
    V: ToOwned<Owned: 'static> + ?Sized,
{
    /// The functions without any capability.
    pub fn base(&self) -> ItemFns {
        ItemFns::taking::<U::Owned, V::Owned>()
    }
}

/// A function with its captures.
struct Lent<C, U: ?Sized, V: ?Sized, F> {
    f: F,
    captures: C,
    #[allow(clippy::type_complexity)] // The item and its part.
    types: PhantomData<fn(&U) -> V>,
}

impl<C, U, V, F> Look<U::Owned, V::Owned> for Lent<C, U, V, F>
where
    C: 'static,
    U: ToOwned + ?Sized + 'static,
    V: ToOwned + ?Sized + 'static,
    F: for<'a> Fn(&'a C, &'a U) -> &'a V + 'static,
{
    fn look(&self, item: &U::Owned) -> V::Owned {
        (self.f)(&self.captures, item.borrow()).to_owned()
    }

    fn look_str(&self, text: &str) -> Result<V::Owned, Stop> {
        Ok((self.f)(&self.captures, text_for(text)?).to_owned())
    }
}

struct MapLent<C, U: ?Sized, V: ToOwned<Owned: 'static> + ?Sized, F> {
    lent: Lent<C, U, V, F>,
    next: Box<dyn Sink<V::Owned>>,
}

impl<C, U, V, F> Sink<U::Owned> for MapLent<C, U, V, F>
where
    C: 'static,
    U: ToOwned + ?Sized + 'static,
    V: ToOwned<Owned: 'static> + ?Sized + 'static,
    F: for<'a> Fn(&'a C, &'a U) -> &'a V + 'static,
{
    fn push(&mut self, item: U::Owned) -> Result<(), Stop> {
        push_lent(&mut *self.next, (self.lent.f)(&self.lent.captures, item.borrow()))
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        push_lent(&mut *self.next, (self.lent.f)(&self.lent.captures, text_for(text)?))
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

impl<C, U, V, F> One<C, U, V, F>
where
    C: Data,
    U: ?Sized,
    V: ?Sized,
    F: Copy,
{
    fn open(f: F, encoded: &Encoded) -> Result<Lent<C, U, V, F>, FailureCause> {
        Ok(Lent { f, captures: captures(encoded)?, types: PhantomData })
    }
}

impl<C, U, V, F> HasMap for One<C, U, V, F>
where
    C: Data,
    U: ToOwned<Owned: Data> + ?Sized + 'static,
    V: ToOwned<Owned: Data> + ?Sized + 'static,
    F: for<'a> Fn(&'a C, &'a U) -> &'a V + Copy + Send + Sync + 'static,
{
    fn map(&self) -> Option<Through> {
        let f = self.f;
        Some(Through {
            open: Box::new(move |encoded, next| {
                Ok(AnySink::new::<U::Owned>(MapLent { lent: Self::open(f, encoded)?, next: next.typed()? }))
            }),
            takes: ItemType::of::<U::Owned>(),
            gives: ItemType::of::<V::Owned>(),
        })
    }
}

impl<C, U, V, F> HasKey for One<C, U, V, F>
where
    C: Data,
    U: ToOwned<Owned: Data> + ?Sized + 'static,
    V: ToOwned<Owned: Data> + serde::Serialize + ?Sized + 'static,
    F: for<'a> Fn(&'a C, &'a U) -> &'a V + Copy + Send + Sync + 'static,
{
    fn key(&self) -> Option<KeyFns> {
        let f = self.f;
        let key = move |encoded: &Encoded| -> Result<Key<U::Owned>, FailureCause> {
            let lent = Self::open(f, encoded)?;
            Ok(Box::new(move |item, bytes| encode_to((lent.f)(&lent.captures, item.borrow()), bytes)))
        };
        Some(KeyFns {
            extract: Box::new(move |encoded| Ok(AnyKey::new(key(encoded)?))),
            partition: Box::new(move |encoded, count| Ok(AnySink::new(Partition::new(key(encoded)?, count)))),
        })
    }
}

impl<C, U, V, F> HasOrder for One<C, U, V, F>
where
    C: Data,
    U: ToOwned<Owned: Data> + ?Sized + 'static,
    V: ToOwned<Owned: Ord + 'static> + ?Sized + 'static,
    F: for<'a> Fn(&'a C, &'a U) -> &'a V + Copy + Send + Sync + 'static,
{
    fn topk(&self) -> Option<TopK> {
        let f = self.f;
        Some(Box::new(move |encoded, limit| Ok(largest(Self::open(f, encoded)?, limit))))
    }
}

/// What a closure that gives borrowed items has instead of an output of its own.
pub struct NoOutput(());

impl NoOutput {
    /// Of a closure with these captures.
    pub fn of<C>(_: C) -> NoOutput {
        NoOutput(())
    }
}
