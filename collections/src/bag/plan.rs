//! What a bag is before it is computed: a source, and the steps that its items go through.
//!
//! [`Plan`] is the client's; [`StageSource`], [`Program`] and [`MergeSpec`] are what a worker is told. Types are gone here: a closure is
//! an id and its encoded captures.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starling_runtime::task::Future;
use starling_runtime::task::items::{Buckets, FnRef, ItemBlock};

use super::render::Rendering;
use super::source::{FileRange, SourceFiles};
use crate::csv::{CsvFiles, FileStamp, Range, Wanted};

/// A bag without its type.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) source: Arc<Source>,
    pub(crate) steps: Vec<Step>,
}

/// Where items come from.
pub(crate) enum Source {
    /// Records of CSV files.
    Csv { files: CsvFiles, wanted: Wanted },
    /// Lines and records of other files.
    Files(SourceFiles),
    /// The client's own items, a block for each partition.
    Items(Vec<ItemBlock>),
    /// Outputs that the cluster keeps, one for each partition.
    Kept(Vec<Future<Buckets>>),
    /// What another bag's items give when they are grouped, in so many partitions.
    Grouped { input: Plan, group: Group, parts: u32 },
    /// The pairs of two bags' items with equal keys, in so many partitions.
    Joined { left: Plan, right: Plan, left_key: FnRef, right_key: FnRef, parts: u32 },
}

/// How items are grouped. There is one in a plan's node, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Group {
    FoldBy { key: FnRef, zero: Vec<u8>, op: FnRef, combine: FnRef },
    Frequencies,
    Distinct,
}

/// What an item goes through on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Step {
    Map(FnRef),
    Filter(FnRef),
    FlatMap(FnRef),
    TryMap(FnRef),
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
        let step = |step: &Step| match step {
            Step::Map(f) | Step::Filter(f) | Step::FlatMap(f) | Step::TryMap(f) => f.captures.nbytes(),
        };
        let end = match &self.end {
            End::Count | End::Collect { .. } | End::Frequencies { .. } => 0,
            End::Render(rendering) => rendering.nbytes(),
            End::Fold { op, zero } => op.captures.nbytes() + zero.as_ref().map_or(0, |zero| zero.len() as u64),
            End::FoldBy { key, zero, op, .. } => key.captures.nbytes() + zero.len() as u64 + op.captures.nbytes(),
            End::Partition { key, .. } | End::TopK { key, .. } => key.captures.nbytes(),
        };
        self.steps.iter().map(step).sum::<u64>() + end
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
    /// Those with the largest keys.
    TopK { key: FnRef, limit: u64 },
    /// A file's content.
    Render(Rendering),
}

/// How keyed outputs of several tasks become one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum MergeSpec {
    Frequencies { counted: bool },
    FoldBy { combine: FnRef },
}
