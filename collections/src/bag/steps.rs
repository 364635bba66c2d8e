//! Steps that need no meeting of partitions, beside the plainest.

use starling_runtime::task::items::{ItemBlock, Param, Params, Ref, TaskFn};
use starling_runtime::value::Data;
use std::sync::Arc;

use super::Bag;
use super::plan::{Source, Step};

impl<T> Bag<T> {
    /// The bag after one more step.
    pub(super) fn with_step<R>(mut self, step: Step) -> Bag<R> {
        self.plan.steps.push(step);
        self.retyped()
    }

    /// The same plan for items of another type.
    fn retyped<R>(self) -> Bag<R> {
        let Bag { cluster, plan, problem, parts, split_every, progress, .. } = self;
        Bag { cluster, plan, problem, parts, split_every, progress, item: std::marker::PhantomData }
    }
}

impl<T: Data> Bag<T> {
    /// The items of which `f` says false.
    pub fn remove<U: ToOwned<Owned = T> + ?Sized + 'static>(self, f: TaskFn<(Ref<U>,), bool>) -> Bag<T> {
        self.stepped(f.reference(), Step::Remove)
    }

    /// What `f` makes of each item, a tuple whose parts are the closure's two to five parameters.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// # fn lines(counts: starling_collections::Bag<(String, u64)>) -> starling_collections::Bag<String> {
    /// counts.starmap(task!(|word: String, count: u64| format!("{word} {count}")))
    /// # }
    /// ```
    pub fn starmap<P: Params<Items = T>, R: Data>(self, f: TaskFn<P, R>) -> Bag<R> {
        self.stepped(f.reference(), Step::Starmap)
    }

    /// All the items that `f` makes of each partition, which it gets as a list, an empty one too. A partition must fit
    /// into memory.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// # fn sorted(bag: starling_collections::Bag<u64>) -> starling_collections::Bag<u64> {
    /// bag.map_partitions(task!(|mut items: Vec<u64>| { items.sort_unstable(); items }))
    /// # }
    /// ```
    pub fn map_partitions<P: Param<Item = Vec<T>>, R>(self, f: TaskFn<(P,), R>) -> Bag<R::Item>
    where
        R: IntoIterator<Item: Data> + 'static,
    {
        self.stepped(f.reference(), Step::Partitions)
    }

    /// The elements of all items, which are lists, sets, maps, arrays or options.
    ///
    /// What the elements are only a closure tells a worker. So some step must stand between a source of lists and this one,
    /// `map(task!(|list: Vec<u64>| list))` if there is no other; only a bag of the client's own items can do without.
    pub fn flatten(mut self) -> Bag<T::Item>
    where
        T: IntoIterator<Item: Data>,
    {
        match (self.plan.steps.pop(), &*self.plan.source) {
            // The lists that it makes need not be encoded to be taken apart.
            (Some(Step::Map(function)), _) => return self.with_step(Step::FlatMap(function)),
            (Some(step), _) => self.plan.steps.push(step),
            (None, Source::Items(blocks)) => {
                let elements = blocks.iter().map(|block| ItemBlock::of(block.decode::<T>()?.into_iter().flatten()));
                if let Ok(blocks) = elements.collect() {
                    self.plan.source = Arc::new(Source::Items(blocks));
                    return self.retyped();
                }
            }
            (None, _) => {}
        }
        self.with_step(Step::Flatten)
    }
}
