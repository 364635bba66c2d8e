//! From a plan to tasks: which stages there are, how their outputs meet, and how far they are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use starling_actors::Cluster;
use starling_core::failure::{FailureCause, TaskFailure};
use starling_runtime::task::items::{Buckets, ItemBlock};
use starling_runtime::task::{ArgList, Call, ClientError, Future, IntoArg};

use super::BagError;
use super::meet_tasks::{pick, unkeyed};
use super::plan::{CsvRange, End, Group, MergeSpec, Plan, Program, Share, Source, StageSource, Step};
use super::stage::{merge_call, program, stage_call, value_call};

/// How many outputs meet in one task of a tree, unless it is said.
const FAN_IN: usize = 8;

/// A block of the client's own items up to so many bytes rides in its task's arguments.
const INLINE_BYTES_MAX: u64 = 16 << 10;

/// A program that carries up to so many bytes rides in each task's arguments.
pub(crate) const PROGRAM_BYTES_MAX: u64 = 4 << 10;

/// How often a computation is tried again.
const AGAIN_MAX: u32 = 3;

/// Which failures of a computation are worth another attempt, and how many are left.
///
/// What the client itself put into the cluster the cluster cannot compute again: a worker that dies takes its part of a
/// sequence with it. The client still has the sequence, so it puts it there anew.
#[derive(Debug)]
pub(crate) struct Attempts {
    left: u32,
}

impl Attempts {
    pub(crate) fn new() -> Attempts {
        Attempts { left: AGAIN_MAX }
    }

    /// Whether to compute once more after `error`.
    pub(crate) fn again(&mut self, error: &BagError) -> bool {
        let is_lost = matches!(error, BagError::Client(error) if matches!(
            &**error,
            ClientError::Failed(TaskFailure { cause: FailureCause::DataLost { .. }, .. })
        ));
        if !is_lost || self.left == 0 {
            return false;
        }
        self.left -= 1;
        tracing::warn!(%error, left = self.left, "a bag is computed again because part of its input was lost");
        true
    }
}

/// A program as an argument of a stage's tasks.
#[derive(Clone)]
pub(crate) enum SharedProgram {
    /// A small one, itself.
    Own(Program),
    /// The output of a task of its own.
    Sent(Future<Program>),
}

impl IntoArg<Program> for &SharedProgram {
    fn into_arg(self, args: &mut ArgList) {
        match self {
            SharedProgram::Own(program) => program.clone().into_arg(args),
            SharedProgram::Sent(program) => program.into_arg(args),
        }
    }
}

/// Which partitions are computed.
#[derive(Clone)]
pub(crate) enum Only {
    All,
    /// Those of these numbers.
    Range(Range<usize>),
    /// Those of these numbers, and what [`End::Places`] keeps of each.
    Places(BTreeMap<usize, Vec<u64>>),
}

impl Only {
    pub(crate) fn has(&self, number: usize) -> bool {
        match self {
            Only::All => true,
            Only::Range(range) => range.contains(&number),
            Only::Places(places) => places.contains_key(&number),
        }
    }

    /// The same of a plan whose `count` partitions have the numbers from `base` on in the whole.
    pub(crate) fn within(&self, base: usize, count: usize) -> Only {
        match self {
            Only::All => Only::All,
            Only::Range(range) => Only::Range(range.start.saturating_sub(base)..range.end.saturating_sub(base)),
            Only::Places(places) => {
                let here = places.range(base..base + count);
                Only::Places(here.map(|(number, places)| (number - base, places.clone())).collect())
            }
        }
    }

    /// The shares of these sources, in order.
    fn shares(&self, sources: impl IntoIterator<Item = StageSource>) -> Vec<Share> {
        let numbered = sources.into_iter().enumerate().filter(|(number, _)| self.has(*number));
        let share = |(number, source)| {
            let places = if let Only::Places(places) = self { places.get(&number).cloned() } else { None };
            Share { source, number: number as u64, places: places.unwrap_or_default() }
        };
        numbered.map(share).collect()
    }
}

/// Told how many of how many tasks are done.
pub(crate) type ProgressHook = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// One computation of a bag.
pub(crate) struct Run<'a> {
    cluster: &'a Cluster,
    progress: Option<ProgressHook>,
    fan_in: usize,
    /// The tasks submitted, held until they are done, if somebody wants to know how far they are.
    watched: Vec<Future<Buckets>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(cluster: &'a Cluster, progress: Option<ProgressHook>) -> Run<'a> {
        Run { cluster, progress, fan_in: FAN_IN, watched: Vec::new() }
    }

    /// With trees in which so many outputs meet in a task; at least two do.
    pub(crate) fn with_fan_in(mut self, fan_in: Option<usize>) -> Run<'a> {
        self.fan_in = fan_in.unwrap_or(FAN_IN).max(2);
        self
    }

    pub(crate) fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    pub(crate) fn submit(&mut self, call: Call<Buckets>) -> Future<Buckets> {
        let future = self.cluster.submit(call);
        if self.progress.is_some() {
            self.watched.push(future.clone());
        }
        future
    }

    /// The program as its stage's tasks take it.
    pub(crate) fn program(&self, steps: &[Step], end: &End) -> SharedProgram {
        let own = Program { steps: steps.to_vec(), end: end.clone() };
        if own.nbytes() <= PROGRAM_BYTES_MAX {
            return SharedProgram::Own(own);
        }
        // Not watched: that would bring it back to the client.
        SharedProgram::Sent(self.cluster.submit(program::task(own)))
    }

    /// Submits the plan's tasks for the partitions `only`: the outputs of its last stage, in order.
    pub(crate) fn lower<'b>(
        &'b mut self,
        plan: &'b Plan,
        end: &'b End,
        only: &'b Only,
    ) -> BoxFuture<'b, Result<Vec<Future<Buckets>>, BagError>> {
        Box::pin(async move {
            let inputs = match &*plan.source {
                Source::Csv { .. } | Source::Files(_) | Source::Ranges(_) => {
                    let sources = self.sources(plan, end).await?;
                    let program = self.program(&plan.steps, end);
                    let shares = only.shares(sources).into_iter();
                    let calls = shares.map(|share| stage_call(share, &program, Vec::<Arc<Buckets>>::new()));
                    return Ok(calls.map(|call| self.submit(call)).collect());
                }
                Source::Items(blocks) => {
                    let program = self.program(&plan.steps, end);
                    let mut futures = Vec::new();
                    for share in only.shares(blocks.iter().map(|_| StageSource::Inputs)) {
                        let block = &blocks[share.number as usize];
                        futures.push(self.block_stage(block, share, &program).await?);
                    }
                    return Ok(futures);
                }
                Source::Values(values) => {
                    let program = self.program(&plan.steps, end);
                    let shares = only.shares(values.iter().map(|_| StageSource::Inputs)).into_iter();
                    let calls = shares.map(|share| {
                        let value = values[share.number as usize].clone();
                        value_call(share, &program, value)
                    });
                    return Ok(calls.map(|call| self.submit(call)).collect());
                }
                Source::Concat(plans) => return self.concat(plans, &plan.steps, end, only).await,
                Source::Zipped { left, right } => {
                    let inputs = self.zipped(left, right, only).await?;
                    return Ok(self.staged(inputs, plan, end, only));
                }
                Source::Product { left, right } => {
                    let inputs = self.product(left, right, only).await?;
                    return Ok(self.staged(inputs, plan, end, only));
                }
                Source::Kept(futures) => futures.clone(),
                Source::Grouped { input, group, parts } => self.grouped(input, group, *parts).await?,
                Source::Joined { left, right, left_key, right_key, parts } => {
                    self.joined((left, left_key), (right, right_key), *parts).await?
                }
                Source::Gathered { input, key, parts, grows } => self.gathered(input, key, *parts, *grows).await?,
                Source::Repartitioned { input, to } => self.repartitioned(input, *to).await?,
                Source::Accumulated { input, op, initial } => self.accumulated(input, op, initial).await?,
            };
            let inputs = inputs.into_iter().enumerate().filter(|(number, _)| only.has(*number));
            let inputs = inputs.map(|(_, input)| input).collect();
            Ok(self.staged(inputs, plan, end, only))
        })
    }

    /// The plan's steps over outputs, which are those of the partitions `only`.
    fn staged(&mut self, inputs: Vec<Future<Buckets>>, plan: &Plan, end: &End, only: &Only) -> Vec<Future<Buckets>> {
        if plan.steps.is_empty() && matches!(end, End::Collect { limit: u64::MAX }) {
            // They are what is asked for already.
            return inputs;
        }
        let program = self.program(&plan.steps, end);
        let last = match only {
            Only::All => inputs.len(),
            Only::Range(range) => range.start.saturating_add(inputs.len()),
            Only::Places(places) => places.last_key_value().map_or(0, |(number, _)| number + 1),
        };
        let shares = only.shares((0..last).map(|_| StageSource::Inputs));
        let calls = shares.into_iter().zip(inputs).map(|(share, input)| stage_call(share, &program, vec![input]));
        calls.map(|call| self.submit(call)).collect()
    }

    async fn sources(&self, plan: &Plan, end: &End) -> Result<Vec<StageSource>, BagError> {
        match &*plan.source {
            Source::Csv { files, wanted } => {
                let scanned = files.scan().await?;
                let path = scanned.files.first().map_or("", |(file, _)| &file.path);
                let all = wanted.numbers(&scanned.columns, path, files.missing_columns())?;
                // To count records is only to find their ends.
                let counted = plan.steps.is_empty() && matches!(end, End::Count);
                let numbers = if counted { Vec::new() } else { all };
                let names: Vec<String> = names(&scanned.columns, &numbers);
                let total = scanned.columns.len() as u32;
                let ranges = scanned.files.iter().flat_map(|(file, split)| {
                    split.ranges.iter().map(|range| CsvRange {
                        file: file.clone(),
                        range: *range,
                        total,
                        numbers: numbers.clone(),
                        names: names.clone(),
                    })
                });
                Ok(ranges.map(StageSource::Csv).collect())
            }
            Source::Files(files) => {
                let ranges = files.ranges(self.cluster).await?;
                Ok(ranges.iter().cloned().map(StageSource::Files).collect())
            }
            Source::Ranges(ranges) => Ok(ranges.iter().cloned().map(StageSource::Numbers).collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// A stage over the client's own items: small ones ride along, others are put into the cluster first.
    async fn block_stage(
        &mut self,
        block: &ItemBlock,
        share: Share,
        program: &SharedProgram,
    ) -> Result<Future<Buckets>, BagError> {
        let buckets = Buckets::one(block.clone());
        if block.nbytes() <= INLINE_BYTES_MAX {
            return Ok(self.submit(stage_call(share, program, vec![Arc::new(buckets)])));
        }
        let input = self.cluster.scatter(buckets).await?;
        Ok(self.submit(stage_call(share, program, vec![input])))
    }

    /// Groups by key: on the workers, then either all keys in one tree, or each part of the keys in a tree of its own.
    async fn grouped(&mut self, input: &Plan, group: &Group, parts: u32) -> Result<Vec<Future<Buckets>>, BagError> {
        let (end, merge) = match group {
            Group::FoldBy { key, zero, op, combine } => {
                let (key, zero, op) = (key.clone(), zero.clone(), op.clone());
                (End::FoldBy { key, zero, op, buckets: parts }, MergeSpec::FoldBy { combine: combine.clone() })
            }
            Group::Frequencies => {
                (End::Frequencies { buckets: parts, counted: true }, MergeSpec::Frequencies { counted: true })
            }
            Group::Distinct => {
                (End::Frequencies { buckets: parts, counted: false }, MergeSpec::Frequencies { counted: false })
            }
            Group::DistinctBy { key } => (End::First { key: key.clone(), buckets: parts }, MergeSpec::First),
        };
        let outputs = self.lower(input, &end, &Only::All).await?;
        let parts = self.picked(outputs, parts);
        let merged: Vec<_> = parts
            .into_iter()
            .filter_map(|outputs| self.tree(outputs, |run, inputs| run.submit(merge_call(merge.clone(), inputs))))
            .collect();
        if !matches!(group, Group::DistinctBy { .. }) {
            return Ok(merged);
        }
        // Of the others a key is part of the item.
        Ok(merged.into_iter().map(|output| self.cluster.submit(unkeyed::task(output))).collect())
    }

    /// Each bucket of each output by itself, grouped by bucket.
    fn picked(&self, outputs: Vec<Future<Buckets>>, parts: u32) -> Vec<Vec<Future<Buckets>>> {
        if parts <= 1 {
            return vec![outputs];
        }
        // Not watched: a result that somebody waits for is brought to the client if it is small, and these only cut.
        let pick = |output, part| self.cluster.submit(pick::task(output, part));
        (0..parts).map(|part| outputs.iter().map(|output| pick(output, part)).collect()).collect()
    }

    /// Outputs meet, a few at a time and in order, until there is one; `None` if there are none.
    pub(crate) fn tree(
        &mut self,
        mut outputs: Vec<Future<Buckets>>,
        mut meet: impl FnMut(&mut Run<'a>, Vec<Future<Buckets>>) -> Future<Buckets>,
    ) -> Option<Future<Buckets>> {
        while outputs.len() > 1 {
            outputs = outputs.chunks(self.fan_in).map(|few| meet(self, few.to_vec())).collect();
        }
        outputs.pop()
    }

    /// Outputs meet in stages with these steps and this end.
    pub(crate) fn stage_tree(
        &mut self,
        outputs: Vec<Future<Buckets>>,
        steps: &[Step],
        end: &End,
    ) -> Option<Future<Buckets>> {
        let mut program = None;
        self.tree(outputs, |run, inputs| {
            let program = program.get_or_insert_with(|| run.program(steps, end));
            run.submit(stage_call(StageSource::Inputs, &*program, inputs))
        })
    }

    /// The outputs, once they are there, and the progress meanwhile.
    pub(crate) async fn gather(self, outputs: Vec<Future<Buckets>>) -> Result<Vec<Buckets>, BagError> {
        let gather = self.cluster.gather(&outputs);
        let Some(progress) = self.progress else { return Ok(gather.await?) };
        let total = self.watched.len();
        let watched: FuturesUnordered<_> =
            self.watched.into_iter().map(|future| async move { future.wait().await }).collect();
        let hook = progress.clone();
        let watch = watched.fold(0, move |done, _| {
            hook(done + 1, total);
            futures::future::ready(done + 1)
        });
        progress(0, total);
        let outputs = match select(pin!(gather), pin!(watch)).await {
            Either::Left((outputs, _)) => outputs?,
            Either::Right((_, gather)) => gather.await?,
        };
        progress(total, total);
        Ok(outputs)
    }
}

pub(crate) fn names(columns: &[String], numbers: &[u32]) -> Vec<String> {
    numbers.iter().filter_map(|&number| columns.get(number as usize).cloned()).collect()
}
