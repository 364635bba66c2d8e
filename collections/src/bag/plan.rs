//! What a bag is before it is computed: a source, and the steps that its items go through.
//!
//! [`Plan`] is the client's; [`StageSource`], [`Program`] and [`MergeSpec`] are what a worker is told. Types are gone here: a closure is
//! an id and its encoded captures.

use std::ops;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starling_runtime::task::Future;
use starling_runtime::task::items::{Buckets, FnRef, ItemBlock};
use starling_runtime::value::Value;

use super::pluck::Pluck;
use super::render::Rendering;
use super::source::{FileRange, SourceFiles};
use super::summary::Summary;
use crate::csv::{CsvFiles, FileStamp, Range, Wanted};

/// A bag without its type.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) source: Arc<Source>,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// Whether the items are records of files that no closure has given a type, so that only the client knows it.
    pub(crate) fn is_untyped(&self) -> bool {
        let is_closure = |step: &Step| !matches!(step, Step::Sample(_));
        let is_of_client = match &*self.source {
            Source::Csv { .. } => true,
            Source::Files(files) => files.is_untyped(),
            _ => false,
        };
        is_of_client && !self.steps.iter().any(is_closure)
    }
}

/// Where items come from.
pub(crate) enum Source {
    /// Records of CSV files.
    Csv { files: CsvFiles, wanted: Wanted },
    /// Lines and records of other files.
    Files(SourceFiles),
    /// The client's own items, a block for each partition.
    Items(Vec<ItemBlock>),
    /// The numbers of each of these ranges.
    Ranges(Vec<ops::Range<u64>>),
    /// Outputs that the cluster keeps, one for each partition.
    Kept(Vec<Future<Buckets>>),
    /// What another bag's items give when they are grouped, in so many partitions.
    Grouped { input: Plan, group: Group, parts: u32 },
    /// The pairs of two bags' items with equal keys, in so many partitions.
    Joined { left: Plan, right: Plan, left_key: FnRef, right_key: FnRef, parts: u32 },
    /// The values of other tasks, each a partition of one item.
    Values(Vec<Future<Value>>),
    /// The items of each key together, in so many partitions, or as many as the input has if these are more and it may grow.
    Gathered { input: Plan, key: FnRef, parts: u32, grows: bool },
    /// The pairs of two bags' items at the same places.
    Zipped { left: Plan, right: Plan },
    /// Each item of one with each of the other.
    Product { left: Plan, right: Plan },
    /// One after the other.
    Concat(Vec<Plan>),
    /// The same items in other partitions.
    Repartitioned { input: Plan, to: Target },
    /// The states of a running fold.
    Accumulated { input: Plan, op: FnRef, initial: Option<Vec<u8>> },
}

/// How items are to be partitioned.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// In so many partitions.
    Count(usize),
    /// In partitions of at most about so many bytes.
    Bytes(u64),
}

/// How items are grouped. There is one in a plan's node, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Group {
    FoldBy { key: FnRef, zero: Vec<u8>, op: FnRef, combine: FnRef },
    Frequencies,
    Distinct,
    DistinctBy { key: FnRef },
}

/// What an item goes through on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Step {
    Map(FnRef),
    Filter(FnRef),
    FlatMap(FnRef),
    TryMap(FnRef),
    Remove(FnRef),
    Starmap(FnRef),
    /// A list of a partition's items becomes a list of items.
    Partitions(FnRef),
    /// A list of a partition's items becomes one item.
    Reduce(FnRef),
    Flatten,
    Pluck(Pluck),
    Sample(Sample),
}

impl Step {
    /// The closure that it runs.
    pub(crate) fn function(&self) -> Option<&FnRef> {
        match self {
            Step::Map(function)
            | Step::Filter(function)
            | Step::FlatMap(function)
            | Step::TryMap(function)
            | Step::Remove(function)
            | Step::Starmap(function)
            | Step::Partitions(function)
            | Step::Reduce(function) => Some(function),
            Step::Flatten | Step::Pluck(_) | Step::Sample(_) => None,
        }
    }

    /// The step as it is done where the first partition has the number `base` in the bag that it was made for.
    pub(crate) fn numbered_from(&self, base: u64) -> Step {
        match self {
            Step::Sample(sample) => Step::Sample(Sample { first: sample.first + base, ..sample.clone() }),
            other => other.clone(),
        }
    }
}

/// Lets through items at random.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) probability: f64,
    pub(crate) seed: u64,
    /// The number of the first partition.
    pub(crate) first: u64,
}

/// What a stage's tasks all do with their partitions: take the items through the steps, and make something of them at
/// the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

impl Program {
    /// Size in bytes of the values that it carries.
    pub(crate) fn nbytes(&self) -> u64 {
        let step = |step: &Step| step.function().map_or(0, |function| function.captures.nbytes());
        let optional = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let end = match &self.end {
            End::Count | End::Collect { .. } | End::Frequencies { .. } | End::Places | End::Summary(_) => 0,
            End::Render(rendering) => rendering.nbytes(),
            End::Fold { op, zero } => op.captures.nbytes() + optional(zero),
            End::Scan { op, initial } => op.captures.nbytes() + optional(initial),
            End::FoldBy { key, zero, op, .. } => key.captures.nbytes() + zero.len() as u64 + op.captures.nbytes(),
            End::Partition { key, .. } | End::First { key, .. } | End::TopK { key, .. } => key.captures.nbytes(),
        };
        self.steps.iter().map(step).sum::<u64>() + end
    }
}

/// What one of a stage's tasks does that the others do not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) source: StageSource,
    /// The number of the partition in the stage.
    pub(crate) number: u64,
    /// The places that [`End::Places`] keeps, in order.
    pub(crate) places: Vec<u64>,
}

impl From<StageSource> for Share {
    fn from(source: StageSource) -> Share {
        Share { source, number: 0, places: Vec::new() }
    }
}

/// A partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum StageSource {
    /// The task's inputs.
    Inputs,
    /// An exact range of a CSV file.
    Csv(CsvRange),
    /// A part of another file.
    Files(FileRange),
    /// Numbers.
    Numbers(ops::Range<u64>),
}

/// An exact range of a CSV file and the columns that are wanted of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CsvRange {
    pub(crate) file: FileStamp,
    pub(crate) range: Range,
    /// How many columns the file has.
    pub(crate) total: u32,
    /// The numbers of the wanted ones.
    pub(crate) numbers: Vec<u32>,
    /// Their names.
    pub(crate) names: Vec<String>,
}

/// What is made of a stage's items.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum End {
    /// Their number.
    Count,
    /// The first of them.
    Collect { limit: u64 },
    /// How often each comes, or only which there are.
    Frequencies { buckets: u32, counted: bool },
    /// A fold; without a zero (encoded) the first item is the state.
    Fold { op: FnRef, zero: Option<Vec<u8>> },
    /// A fold for each key.
    FoldBy { key: FnRef, zero: Vec<u8>, op: FnRef, buckets: u32 },
    /// The items themselves, split by key.
    Partition { key: FnRef, buckets: u32 },
    /// The first item of each key, with its key.
    First { key: FnRef, buckets: u32 },
    /// Those with the largest keys.
    TopK { key: FnRef, limit: u64 },
    /// Those at the places of the task's share.
    Places,
    /// A number about them.
    Summary(Summary),
    /// Each state of a fold; the task goes on from the last state of the partition before.
    Scan { op: FnRef, initial: Option<Vec<u8>> },
    /// A file's content.
    Render(Rendering),
}

/// How keyed outputs of several tasks become one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum MergeSpec {
    Frequencies { counted: bool },
    FoldBy { combine: FnRef },
    First,
}
