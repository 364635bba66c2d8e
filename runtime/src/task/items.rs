//! How a closure is run item by item inside a collection's task, with the types erased.
//!
//! A collection's task is one function for all types: it gets the ids of closures and finds their [`ItemFns`] here. Each
//! of these builds one link of a chain of sinks ([`sink`]); only neighbours share a type. `task!` writes the functions
//! ([`shape`]) and gives the caller a typed handle, [`TaskFn`].

mod block;
mod cell;
mod elements;
mod handle;
mod item_type;
mod lend;
mod record;
mod scan;
mod shape;
mod sink;
#[cfg(test)]
mod step_tests;
mod table;
#[cfg(test)]
mod tests;
mod whole;

pub use block::{BlockBuilder, Bucket, Buckets, ItemBlock, Items, decode, encode_to};
pub use cell::{Cell, Misfit};
pub use handle::{
    FnRef, Outcome, OutcomeNone, OutcomePlain, OutcomeResult, Param, Params, PlainFn, Ref, TaskFn, never,
};
pub use item_type::{Gate, ItemType};
pub use lend::{GivesMany, Lends, Many, NoOutput, One, lends_many, lends_one};
pub use record::{Content, Place, Record, StoredRecord};
pub use shape::{
    Apply, ByRef, ByValue, FoldShape, HasFilter, HasFlatMap, HasFold, HasKey, HasMap, HasOrder, HasTryMap, LacksFilter,
    LacksFlatMap, LacksFold, LacksKey, LacksMap, LacksOrder, LacksTryMap, Look, Make, Shape, Step, by_ref, by_value,
    fold_by_ref, fold_by_value,
};
pub use sink::{AnySink, Collect, Count, Frequencies, PairSink, RawSink, Row, Sink, Stop, misfit, row_fields};
pub use table::{Counts, KeyTable, bucket_of, key_hash};
pub use whole::{HasPartitions, HasReduce, HasRemove, LacksPartitions, LacksReduce, LacksRemove};

use std::any::{Any, TypeId, type_name};

use starling_core::failure::FailureCause;

use crate::value::{Data, Encoded};

/// Makes something for one run of a task, or says why it cannot.
pub type Makes<T> = Result<T, FailureCause>;

/// From a closure's captures and the next sink, the sink of a step.
pub type Open = Box<dyn Fn(&Encoded, AnySink) -> Makes<AnySink> + Send + Sync>;

/// A step that items pass through.
pub struct Through {
    /// The step's sink, from the closure's captures and the next sink.
    pub open: Open,
    /// The items that the step takes.
    pub takes: ItemType,
    /// The items that it gives.
    pub gives: ItemType,
}

/// Appends the encoding of an item's key.
pub type Key<A> = Box<dyn Fn(&A, &mut Vec<u8>) -> Result<(), FailureCause>>;

/// A [`Key`] whose item type is known only to its neighbours.
pub struct AnyKey(Box<dyn Any>);

impl AnyKey {
    /// Forgets the item type.
    pub fn new<A: 'static>(key: Key<A>) -> AnyKey {
        AnyKey(Box::new(key))
    }

    /// The key function, if it is one for items of type `A`.
    pub fn typed<A: 'static>(self) -> Result<Key<A>, FailureCause> {
        self.0.downcast::<Key<A>>().map(|key| *key).map_err(|_| FailureCause::Codec {
            message: format!("the key function is not one of {}", type_name::<A>()),
        })
    }
}

/// From a closure's captures, its key function.
pub type Extract = Box<dyn Fn(&Encoded) -> Makes<AnyKey> + Send + Sync>;

/// From a closure's captures and the number of buckets, a sink that splits items by key.
pub type Partition = Box<dyn Fn(&Encoded, u32) -> Makes<AnySink> + Send + Sync>;

/// What a key closure is good for.
pub struct KeyFns {
    /// The key function.
    pub extract: Extract,
    /// A sink that splits items.
    pub partition: Partition,
}

/// A sink that keeps so many items with the largest keys, largest first and of equals the earliest first.
pub type TopK = Box<dyn Fn(&Encoded, u64) -> Makes<AnySink> + Send + Sync>;

/// From captures, the key function, an encoded zero (without one the first item of a key is its state) and the number
/// of buckets: a sink that folds the items of each key.
pub type FoldBy = Box<dyn Fn(&Encoded, AnyKey, Option<&[u8]>, u32) -> Makes<AnySink> + Send + Sync>;

/// From captures and an encoded zero (without one the first item is the state), a sink that folds all items.
pub type Fold = Box<dyn Fn(&Encoded, Option<&[u8]>) -> Makes<AnySink> + Send + Sync>;

/// From captures and an encoded zero (without one the first item is the state), a sink that keeps the state after each
/// item, the zero first if that is said. The output has two buckets: the states, and the last of them if there is one.
pub type Scan = Box<dyn Fn(&Encoded, Option<&[u8]>, bool) -> Makes<AnySink> + Send + Sync>;

/// From captures and the number of buckets, a sink that combines states of the same key.
pub type Merge = Box<dyn Fn(&Encoded, u32) -> Makes<Box<dyn PairSink>> + Send + Sync>;

/// What a closure `(S, A) -> S` is good for.
pub struct FoldFns {
    /// A sink that folds all items.
    pub fold: Fold,
    /// A sink that folds by key.
    pub fold_by: FoldBy,
    /// A sink that keeps all states.
    pub scan: Scan,
    /// A sink that combines states.
    pub merge: Merge,
}

/// The item-wise entry points of a function: each is there if the function's types allow it.
pub struct ItemFns {
    /// What the function returns. A handle checks that it is used as that.
    pub returns: TypeId,
    /// Its name.
    pub returns_name: &'static str,
    /// The function's (last) parameter as an item; `None` if it takes neither one nor two.
    pub takes: Option<ItemType>,
    /// `A -> R`
    pub map: Option<Through>,
    /// `&A -> bool`, for the items of which it says true
    pub filter: Option<Through>,
    /// `&A -> bool`, for the others
    pub remove: Option<Through>,
    /// `A -> impl IntoIterator`
    pub flat_map: Option<Through>,
    /// `A -> Result<R, E>`
    pub try_map: Option<Through>,
    /// `(A, B, ..) -> R`, the items being tuples
    pub starmap: Option<Through>,
    /// `Vec<A> -> impl IntoIterator`, the whole of a partition
    pub partitions: Option<Through>,
    /// `Vec<A> -> R`, the whole of a partition
    pub reduce: Option<Through>,
    /// `&A -> K`
    pub key: Option<KeyFns>,
    /// `&A -> K` with an order
    pub topk: Option<TopK>,
    /// `(S, A) -> S`
    pub fold: Option<FoldFns>,
}

impl ItemFns {
    /// No entry points, for a function that returns what `like` would.
    pub fn plain<R: 'static>(_: impl FnOnce() -> R) -> ItemFns {
        ItemFns {
            returns: TypeId::of::<R>(),
            returns_name: type_name::<R>(),
            takes: None,
            map: None,
            filter: None,
            remove: None,
            flat_map: None,
            try_map: None,
            starmap: None,
            partitions: None,
            reduce: None,
            key: None,
            topk: None,
            fold: None,
        }
    }

    fn taking<A: Data, R: 'static>() -> ItemFns {
        ItemFns { takes: Some(ItemType::of::<A>()), ..ItemFns::plain(never::<R>) }
    }
}
