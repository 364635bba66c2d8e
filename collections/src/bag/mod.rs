//! Bags: items spread over a cluster, as Dask's bags are.
//!
//! A [`Bag`] is lazy: its methods describe, and a terminal method (`collect`, `count`, `fold`, ...) submits the tasks and
//! waits. Steps that need no meeting of partitions (map, filter, flat_map) run in one task a partition, where each item
//! is handed from closure to closure as a live value. Between tasks items are encoded, so that what regroups them
//! (frequencies, distinct, join) needs no types. This module decides which tasks there are; it never reads data itself.
//!
//! Where items come from, and where they go, is in files of its own: `reading` and `source` for files that are read, `writing`
//! and `render` for files that are written, `csv` (the module of the crate) for CSV files in blocks.
//!
//! | method | how partitions meet |
//! |---|---|
//! | `map`, `try_map`, `filter`, `remove`, `flat_map`, `flatten`, `starmap`, `pluck`, `map_partitions`, `random_sample`, `concat` | not at all |
//! | `count`, `collect`, `take` | at the client; `take` computes only as many partitions as it needs |
//! | `fold`, `reduction`, `topk`, `min`, `max`, `sum`, `mean`, `var`, `std`, `any`, `all` | in a tree on the workers, 8 at a time ([`split_every`](Bag::split_every)), in order |
//! | `foldby`, `frequencies`, `distinct`, `distinct_by` | first each partition by itself, then in a tree; with [`parts`](Bag::parts) above 1 each part of the keys in a tree of its own (a hash shuffle), for many distinct keys |
//! | `join`, `groupby` | a hash shuffle into as many parts as the cluster has threads, or [`parts`](Bag::parts); `groupby` into as many as there are partitions, if these are more |
//! | `zip` | partition by partition |
//! | `product` | each partition with each of the other bag |
//! | `repartition` | neighbours in one task, or not at all |
//! | `accumulate` | one after the other: a partition waits for the last state of the one before |
//! | `choices`, `sample` | their counts at the client, then only the partitions that hold chosen items are computed again |
//!
//! A value that every call of a closure needs is a capture of it: `map(task!([factor: f64] |x: f64| x * factor))`. It goes to
//! each worker once, not with each task.

mod aggregate;
mod error;
mod json;
mod meet;
mod meet_tasks;
#[cfg(test)]
mod meet_tests;
#[cfg(test)]
mod operation_tests;
mod places;
mod plan;
mod pluck;
mod random;
mod reading;
mod regroup;
mod render;
#[cfg(feature = "avro")]
mod render_avro;
mod run;
mod scalar;
mod source;
mod stage;
mod steps;
mod summary;
#[cfg(test)]
mod tests;
mod writing;

pub use crate::input::{Compression, ReadError};
pub use error::BagError;
pub use json::Json;
pub use pluck::{Field, JsonItem, Plucked};
pub use reading::{JsonErrors, JsonOptions, Paths, TextErrors, TextOptions};
pub use scalar::{Number, Scalar};
pub use writing::{WriteOptions, WrittenFile};

use std::hash::Hash;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use csv::ByteRecord;
use serde::de::DeserializeOwned;
use starling_actors::Cluster;
use starling_core::failure::FailureCause;
use starling_runtime::task::Future;
use starling_runtime::task::items::{
    BlockBuilder, Buckets, FnRef, Param, Ref, StoredRecord, TaskFn, decode, misfit, row_fields,
};
use starling_runtime::value::{CodecError, Data};

use crate::csv::{CsvError, CsvFiles, Wanted};
use plan::{End, Group, Plan, Source, Step};
use run::{Attempts, Only, ProgressHook, Run, names};
use source::{SourceFiles, Unfit};

/// Items of type `T`, spread over a cluster. Cloning costs nothing; computing a clone computes everything again, unless
/// [`persist`](Bag::persist) has kept the items.
///
/// # Comparing keys
///
/// `foldby`, `frequencies`, `distinct` and `join` compare keys by their encoding, on every node alike, so equal keys must
/// have equal encodings. A key is therefore `Eq + Hash`, which rules out floats, `HashMap`s and `HashSet`s, whose equal
/// values may have several encodings: map floats to `to_bits` or to an ordered type, and maps and sets to `BTreeMap`s and
/// `BTreeSet`s. An `Eq` of your own that takes different encodings for equal does not count.
///
/// ```no_run
/// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
/// # fn by_bits(floats: starling_collections::Bag<f64>) -> starling_collections::Bag<(u64, u64)> {
/// floats.map(task!(|x: f64| x.to_bits())).frequencies()
/// # }
/// ```
///
/// ```compile_fail,E0277
/// # fn by_itself(floats: starling_collections::Bag<f64>) -> starling_collections::Bag<(f64, u64)> {
/// floats.frequencies()
/// # }
/// ```
///
/// # Lost workers
///
/// What a lost worker had computed is computed again elsewhere. Items of [`from_sequence`](Bag::from_sequence) that it
/// held the client gives again: a terminal method then starts over, up to three times. What [`persist`](Bag::persist)
/// keeps of such a sequence is only in the cluster.
pub struct Bag<T> {
    cluster: Cluster,
    plan: Plan,
    /// A capture that could not be encoded; told when the bag is computed.
    problem: Option<CodecError>,
    parts: Option<u32>,
    split_every: Option<usize>,
    progress: Option<ProgressHook>,
    item: PhantomData<fn() -> T>,
}

impl<T> Clone for Bag<T> {
    fn clone(&self) -> Bag<T> {
        Bag {
            cluster: self.cluster.clone(),
            plan: self.plan.clone(),
            problem: self.problem.clone(),
            parts: self.parts,
            split_every: self.split_every,
            progress: self.progress.clone(),
            item: PhantomData,
        }
    }
}

impl<T> Bag<T> {
    fn from_source(cluster: &Cluster, source: Source) -> Bag<T> {
        Bag {
            cluster: cluster.clone(),
            plan: Plan { source: Arc::new(source), steps: Vec::new() },
            problem: None,
            parts: None,
            split_every: None,
            progress: None,
            item: PhantomData,
        }
    }

    pub(crate) fn of_csv(cluster: &Cluster, files: CsvFiles, wanted: Wanted) -> Bag<T> {
        Bag::from_source(cluster, Source::Csv { files, wanted })
    }

    /// A bag of items that the cluster has, an output for each partition.
    #[cfg(feature = "frame")]
    pub(crate) fn of_kept(cluster: &Cluster, outputs: Vec<Future<Buckets>>) -> Bag<T> {
        Bag::from_source(cluster, Source::Kept(outputs))
    }

    /// The next `foldby`, `frequencies`, `distinct`, `distinct_by`, `join` or `groupby` splits its keys into `parts` partitions.
    ///
    /// Of the first four each costs a task for every partition before it, so a few are enough: about the number of the
    /// cluster's threads. Of `join` and `groupby` each is one task, and should fit into memory.
    pub fn parts(mut self, parts: u32) -> Bag<T> {
        self.parts = Some(parts.max(1));
        self
    }

    /// In the trees in which partitions meet, so many meet in one task, at least 2; 8 if it is not said. Fewer need less memory
    /// at once, more need fewer tasks.
    pub fn split_every(mut self, outputs: usize) -> Bag<T> {
        self.split_every = Some(outputs);
        self
    }

    /// Calls `hook` with the number of finished tasks and of all tasks while the bag is computed: for a progress bar. It is
    /// called in the computing task, and must not block.
    pub fn on_progress(mut self, hook: impl Fn(usize, usize) + Send + Sync + 'static) -> Bag<T> {
        self.progress = Some(Arc::new(hook));
        self
    }

    fn stepped<R>(self, function: Result<FnRef, CodecError>, step: fn(FnRef) -> Step) -> Bag<R> {
        let Bag { cluster, mut plan, mut problem, parts, split_every, progress, .. } = self;
        match function {
            Ok(function) => plan.steps.push(step(function)),
            Err(error) => problem = problem.or(Some(error)),
        }
        Bag { cluster, plan, problem, parts, split_every, progress, item: PhantomData }
    }

    fn regrouped<R>(self, source: Result<Source, CodecError>) -> Bag<R> {
        let mut bag = Bag::from_source(&self.cluster, Source::Items(Vec::new()));
        bag.problem = self.problem;
        bag.progress = self.progress;
        bag.split_every = self.split_every;
        match source {
            Ok(source) => bag.plan.source = Arc::new(source),
            Err(error) => bag.problem = bag.problem.or(Some(error)),
        }
        bag
    }

    fn run(&self) -> Result<Run<'_>, BagError> {
        match &self.problem {
            Some(error) => Err(error.clone().into()),
            None => Ok(Run::new(&self.cluster, self.progress.clone()).with_fan_in(self.split_every)),
        }
    }

    /// Computes the partitions with this end.
    async fn computed(&self, end: &End) -> Result<Vec<Buckets>, BagError> {
        let mut attempts = Attempts::new();
        loop {
            match self.computed_once(end).await {
                Err(error) if attempts.again(&error) => {}
                outcome => return outcome,
            }
        }
    }

    async fn computed_once(&self, end: &End) -> Result<Vec<Buckets>, BagError> {
        let mut run = self.run()?;
        let outputs = run.lower(&self.plan, end, &Only::All).await?;
        run.gather(outputs).await
    }

    /// Computes the partitions with one end and brings them together with another.
    async fn met(&self, end: &End, meet: &End) -> Result<Option<Buckets>, BagError> {
        let mut attempts = Attempts::new();
        loop {
            match self.met_once(end, meet).await {
                Err(error) if attempts.again(&error) => {}
                outcome => return outcome,
            }
        }
    }

    async fn met_once(&self, end: &End, meet: &End) -> Result<Option<Buckets>, BagError> {
        let mut run = self.run()?;
        let outputs = run.lower(&self.plan, end, &Only::All).await?;
        let Some(output) = run.stage_tree(outputs, &[], meet) else { return Ok(None) };
        Ok(run.gather(vec![output]).await?.pop())
    }

    /// How many items there are. Records of CSV files are only counted, not taken apart.
    pub async fn count(&self) -> Result<u64, BagError> {
        let mut count = 0;
        for buckets in self.computed(&End::Count).await? {
            count += items::<u64>(&buckets).map_err(BagError::Items)?.into_iter().sum::<u64>();
        }
        Ok(count)
    }
}

impl Bag<u64> {
    /// The numbers of the range, in `partitions` partitions of about the same size, or as many as there are numbers. They
    /// are counted on the workers.
    pub fn range(cluster: &Cluster, numbers: Range<u64>, partitions: usize) -> Bag<u64> {
        let count = numbers.end.saturating_sub(numbers.start);
        let partitions = (partitions.max(1) as u64).min(count);
        let at = |number: u64| numbers.start + (u128::from(count) * u128::from(number) / u128::from(partitions)) as u64;
        let ranges = (0..partitions).map(|number| at(number)..at(number + 1)).collect();
        Bag::from_source(cluster, Source::Ranges(ranges))
    }
}

impl<T: Data> Bag<T> {
    /// A bag of these items, in `partitions` partitions of about the same number.
    pub fn from_sequence(cluster: &Cluster, items: Vec<T>, partitions: usize) -> Result<Bag<T>, BagError> {
        let each = items.len().div_ceil(partitions.max(1)).max(1);
        let blocks = items.chunks(each).map(|items| {
            let mut block = BlockBuilder::default();
            items.iter().try_for_each(|item| block.push_value(item)).map(|()| block.finish())
        });
        let blocks = blocks.collect::<Result<Vec<_>, FailureCause>>().map_err(BagError::Items)?;
        Ok(Bag::from_source(cluster, Source::Items(blocks)))
    }

    /// What `f` makes of each item. A `Result` is an item like any other; see [`try_map`](Bag::try_map).
    pub fn map<P: Param<Item = T>, R: Data>(self, f: TaskFn<(P,), R>) -> Bag<R> {
        self.stepped(f.reference(), Step::Map)
    }

    /// What `f` makes of each item; the first error fails the computation.
    pub fn try_map<P: Param<Item = T>, R: Data, E>(self, f: TaskFn<(P,), Result<R, E>>) -> Bag<R>
    where
        E: 'static + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.stepped(f.reference(), Step::TryMap)
    }

    /// The items of which `f` says true.
    pub fn filter<U: ToOwned<Owned = T> + ?Sized + 'static>(self, f: TaskFn<(Ref<U>,), bool>) -> Bag<T> {
        self.stepped(f.reference(), Step::Filter)
    }

    /// All the items that `f` makes of each item: a collection, or parts of the item, which are then not copied to be
    /// counted or taken further:
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// # fn of(lines: starling_collections::Bag<String>) -> starling_collections::Bag<(String, u64)> {
    /// lines.flat_map(task!(|line: &str| -> impl Iterator<Item = &str> { line.split_whitespace() })).frequencies()
    /// # }
    /// ```
    pub fn flat_map<P: Param<Item = T>, R>(self, f: TaskFn<(P,), R>) -> Bag<R::Item>
    where
        R: IntoIterator<Item: Data> + 'static,
    {
        self.stepped(f.reference(), Step::FlatMap)
    }

    /// A [`fold`](Bag::fold) for each key. The keys come in no promised order, but always in the same. They are
    /// [compared](#comparing-keys) by their encoding.
    pub fn foldby<U, K, S, P, Q>(
        self,
        key: TaskFn<(Ref<U>,), K>,
        zero: S,
        op: TaskFn<(S, P), S>,
        combine: TaskFn<(S, Q), S>,
    ) -> Bag<(K, S)>
    where
        U: ToOwned<Owned = T> + ?Sized + 'static,
        K: Data + Eq + Hash,
        S: Data,
        P: Param<Item = T>,
        Q: Param<Item = S>,
    {
        let group = || {
            let (key, op, combine) = (key.reference()?, op.reference()?, combine.reference()?);
            Ok(Group::FoldBy { key, zero: encode_zero(&zero)?, op, combine })
        };
        let (group, parts) = (group(), self.parts.unwrap_or(1));
        let input = self.plan.clone();
        self.regrouped(group.map(|group| Source::Grouped { input, group, parts }))
    }

    /// The distinct items, each with the number of times it comes. Items are [compared](#comparing-keys) by their
    /// encoding.
    pub fn frequencies(self) -> Bag<(T, u64)>
    where
        T: Eq + Hash,
    {
        let (input, parts) = (self.plan.clone(), self.parts.unwrap_or(1));
        self.regrouped(Ok(Source::Grouped { input, group: Group::Frequencies, parts }))
    }

    /// The distinct items, [compared](#comparing-keys) by their encoding.
    pub fn distinct(self) -> Bag<T>
    where
        T: Eq + Hash,
    {
        let (input, parts) = (self.plan.clone(), self.parts.unwrap_or(1));
        self.regrouped(Ok(Source::Grouped { input, group: Group::Distinct, parts }))
    }

    /// All items, in order.
    pub async fn collect(&self) -> Result<Vec<T>, BagError> {
        let outputs = self.computed(&End::Collect { limit: u64::MAX }).await?;
        let mut all = Vec::new();
        for (partition, output) in outputs.iter().enumerate() {
            all.extend(self.taken(partition, output).await?);
        }
        Ok(all)
    }

    /// The first `count` items, in order. Computes one partition, then more if there are too few.
    ///
    /// A grouping or join before it is computed once and in full.
    pub async fn take(&self, count: usize) -> Result<Vec<T>, BagError> {
        let mut attempts = Attempts::new();
        loop {
            match self.take_once(count).await {
                Err(error) if attempts.again(&error) => {}
                outcome => return outcome,
            }
        }
    }

    async fn take_once(&self, count: usize) -> Result<Vec<T>, BagError> {
        let mut run = self.run()?;
        let mut first = Vec::new();
        if count == 0 {
            return Ok(first);
        }
        let plan = run.settled(&self.plan).await?;
        let partitions = run.partitions(&plan).await?;
        let (mut at, mut together) = (0, 1);
        while at < partitions && first.len() < count {
            // Which records are left out is found out only here.
            let is_sure = self.untyped_records().is_none_or(|files| files.reading.unfit != Unfit::Skip);
            let limit = if is_sure { (count - first.len()) as u64 } else { u64::MAX };
            let end = End::Collect { limit };
            let outputs = run.lower(&plan, &end, &Only::Range(at..at + together)).await?;
            for (output, partition) in run.gather(outputs).await?.iter().zip(at..) {
                first.extend(self.taken(partition, output).await?);
            }
            run = self.run()?;
            at += together;
            together *= 2;
        }
        first.truncate(count);
        Ok(first)
    }

    /// Computes the items once and keeps them on the workers as long as the returned bag or a clone of it is held.
    /// Returns as soon as the tasks are submitted; an error shows when the bag is used.
    ///
    /// Kept items that a lost worker held are computed again, except from a sequence of the client's own: those are
    /// lost, the kept bag fails with [`DataLost`](FailureCause::DataLost) whenever it is used, and `persist` must be called
    /// again on the bag that it was called on.
    pub async fn persist(&self) -> Result<Bag<T>, BagError> {
        Ok(Bag::from_source(&self.cluster, Source::Kept(self.outputs().await?)))
    }

    /// The items, an output for each partition, as soon as their tasks are submitted.
    pub(crate) async fn outputs(&self) -> Result<Vec<Future<Buckets>>, BagError> {
        if self.untyped_rows().is_some() || self.untyped_records().is_some() {
            return Err(BagError::Untyped);
        }
        self.ended(&End::Collect { limit: u64::MAX }).await
    }

    /// The partitions' outputs with this end, as soon as their tasks are submitted.
    async fn ended(&self, end: &End) -> Result<Vec<Future<Buckets>>, BagError> {
        self.run()?.lower(&self.plan, end, &Only::All).await
    }

    /// The files and columns, if the items are records that no closure has given a type.
    fn untyped_rows(&self) -> Option<(&CsvFiles, Wanted)> {
        match &*self.plan.source {
            Source::Csv { files, wanted } if self.plan.is_untyped() => Some((files, *wanted)),
            _ => None,
        }
    }

    /// The files, if the items are records of others than CSV files in blocks that no closure has given a type.
    fn untyped_records(&self) -> Option<&SourceFiles> {
        match &*self.plan.source {
            Source::Files(files) if self.plan.is_untyped() => Some(files),
            _ => None,
        }
    }

    /// The items of a collected output, that of the partition of this number.
    async fn taken(&self, partition: usize, output: &Buckets) -> Result<Vec<T>, BagError> {
        if let Some(files) = self.untyped_records() {
            return self.records(files, partition, output).await;
        }
        let Some((files, wanted)) = self.untyped_rows() else { return items(output).map_err(BagError::Items) };
        let scanned = files.scan().await?;
        // The partitions are the files' ranges, file by file.
        let mut ranged = scanned.files.iter().flat_map(|(file, split)| split.ranges.iter().map(|_| &file.path));
        let path = ranged.nth(partition).map_or(files.pattern(), String::as_str);
        let numbers = wanted.numbers(&scanned.columns, path, files.missing_columns())?;
        let header = ByteRecord::from(names(&scanned.columns, &numbers));
        let rows = |output: &Buckets| {
            let mut rows = Vec::new();
            for bucket in &output.0 {
                for item in bucket.items.items().map_err(BagError::Items)? {
                    let (offset, row) = row_fields(item).map_err(BagError::Items)?;
                    let row = row.deserialize(Some(&header)).map_err(|error| CsvError::Record {
                        path: path.to_owned(),
                        offset,
                        message: misfit(&header, &error),
                    });
                    rows.push(row?);
                }
            }
            Ok(rows)
        };
        rows(output)
    }

    /// The records of a collected output as items.
    async fn records(&self, files: &SourceFiles, partition: usize, output: &Buckets) -> Result<Vec<T>, BagError> {
        let ranges = files.ranges(&self.cluster).await?;
        let path = ranges.get(partition).map_or("", |range| range.file.path());
        let unfit = files.reading.unfit;
        let mut records = Vec::new();
        for stored in items::<StoredRecord>(output).map_err(BagError::Items)? {
            let record = stored.record(path, unfit == Unfit::Keep);
            match record.take() {
                Ok(record) => records.push(record),
                Err(message) if unfit == Unfit::Skip => {
                    tracing::warn!(path, place = %record.place, message, "a record was left out, as it did not fit");
                }
                Err(message) => {
                    let place = record.place.to_string();
                    return Err(ReadError::Record { path: path.to_owned(), place, message, remedy: "" }.into());
                }
            }
        }
        Ok(records)
    }
}

/// The items of an output, keyed ones with their keys.
fn items<T: DeserializeOwned>(output: &Buckets) -> Result<Vec<T>, FailureCause> {
    let mut all = Vec::new();
    let mut scratch = Vec::new();
    for bucket in &output.0 {
        if bucket.keys.is_none() {
            all.extend(bucket.items.decode::<T>()?);
            continue;
        }
        for (key, item) in bucket.pairs()? {
            scratch.clear();
            scratch.extend_from_slice(key);
            scratch.extend_from_slice(item);
            all.push(decode(&scratch)?);
        }
    }
    Ok(all)
}

fn damaged(message: &str) -> FailureCause {
    FailureCause::Codec { message: message.to_owned() }
}

fn encode_zero<T: Data>(value: &T) -> Result<Vec<u8>, CodecError> {
    postcard::to_stdvec(value).map_err(|source| CodecError::Encode { type_name: std::any::type_name::<T>(), source })
}
