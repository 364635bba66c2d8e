//! From a plan to tasks: which stages there are, how their outputs meet, and how far they are.

use std::pin::pin;
use std::sync::Arc;

use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use starling_actors::Cluster;
use starling_core::failure::{FailureCause, TaskFailure};
use starling_runtime::task::items::{Buckets, FnRef, ItemBlock};
use starling_runtime::task::{ArgList, Call, ClientError, Future, IntoArg};

use super::BagError;
use super::plan::{CsvRange, End, Group, MergeSpec, Plan, Program, Source, StageSource, Step};
use super::stage::{join_call, merge_call, pick, program, stage_call};

/// How many outputs meet in one task of a tree.
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

/// Told how many of how many tasks are done.
pub(crate) type ProgressHook = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// One computation of a bag.
pub(crate) struct Run<'a> {
    cluster: &'a Cluster,
    progress: Option<ProgressHook>,
    /// The tasks submitted, held until they are done, if somebody wants to know how far they are.
    watched: Vec<Future<Buckets>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(cluster: &'a Cluster, progress: Option<ProgressHook>) -> Run<'a> {
        Run { cluster, progress, watched: Vec::new() }
    }

    fn submit(&mut self, call: Call<Buckets>) -> Future<Buckets> {
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

    /// How many partitions the plan has, if that is known without asking the cluster for more than its files.
    pub(crate) async fn partitions(&mut self, plan: &Plan) -> Result<usize, BagError> {
        Ok(match &*plan.source {
            Source::Csv { files, .. } => files.scan().await?.files.iter().map(|(_, split)| split.ranges.len()).sum(),
            Source::Files(files) => files.ranges(self.cluster).await?.len(),
            Source::Items(blocks) => blocks.len(),
            Source::Kept(futures) => futures.len(),
            Source::Grouped { parts, .. } | Source::Joined { parts, .. } => *parts as usize,
        })
    }

    /// Submits the plan's tasks, partitions `only` if that is given: the outputs of its last stage, in order.
    pub(crate) fn lower<'b>(
        &'b mut self,
        plan: &'b Plan,
        end: &'b End,
        only: Option<std::ops::Range<usize>>,
    ) -> BoxFuture<'b, Result<Vec<Future<Buckets>>, BagError>> {
        Box::pin(async move {
            let only = only.unwrap_or(0..usize::MAX);
            let (skip, take) = (only.start, only.len());
            let inputs = match &*plan.source {
                Source::Csv { .. } | Source::Files(_) => {
                    let sources = self.file_ranges(plan, end).await?;
                    let program = self.program(&plan.steps, end);
                    let sources = sources.into_iter().skip(skip).take(take);
                    let calls = sources.map(|source| stage_call(source, &program, Vec::<Arc<Buckets>>::new()));
                    return Ok(calls.map(|call| self.submit(call)).collect());
                }
                Source::Items(blocks) => {
                    let program = self.program(&plan.steps, end);
                    let mut futures = Vec::new();
                    for block in blocks.iter().skip(skip).take(take) {
                        futures.push(self.block_stage(block, &program).await?);
                    }
                    return Ok(futures);
                }
                Source::Kept(futures) => futures.clone(),
                Source::Grouped { input, group, parts } => self.grouped(input, group, *parts).await?,
                Source::Joined { left, right, left_key, right_key, parts } => {
                    let left = self.partitioned(left, left_key, *parts).await?;
                    let right = self.partitioned(right, right_key, *parts).await?;
                    left.into_iter().zip(right).map(|(left, right)| self.submit(join_call(left, right))).collect()
                }
            };
            let inputs = inputs.into_iter().skip(skip).take(take);
            if plan.steps.is_empty() && matches!(end, End::Collect { limit: u64::MAX }) {
                // They are what is asked for already.
                return Ok(inputs.collect());
            }
            let program = self.program(&plan.steps, end);
            let calls = inputs.map(|input| stage_call(StageSource::Inputs, &program, vec![input]));
            Ok(calls.map(|call| self.submit(call)).collect())
        })
    }

    /// The plan with its grouping or join submitted, so that it is computed once however often the plan is lowered.
    pub(crate) async fn settled(&mut self, plan: &Plan) -> Result<Plan, BagError> {
        if !matches!(&*plan.source, Source::Grouped { .. } | Source::Joined { .. }) {
            return Ok(plan.clone());
        }
        let source = Plan { source: plan.source.clone(), steps: Vec::new() };
        let outputs = self.lower(&source, &End::Collect { limit: u64::MAX }, None).await?;
        Ok(Plan { source: Arc::new(Source::Kept(outputs)), steps: plan.steps.clone() })
    }

    async fn file_ranges(&self, plan: &Plan, end: &End) -> Result<Vec<StageSource>, BagError> {
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
            _ => Ok(Vec::new()),
        }
    }

    /// A stage over the client's own items: small ones ride along, others are put into the cluster first.
    async fn block_stage(&mut self, block: &ItemBlock, program: &SharedProgram) -> Result<Future<Buckets>, BagError> {
        let buckets = Buckets::one(block.clone());
        if block.nbytes() <= INLINE_BYTES_MAX {
            return Ok(self.submit(stage_call(StageSource::Inputs, program, vec![Arc::new(buckets)])));
        }
        let input = self.cluster.scatter(buckets).await?;
        Ok(self.submit(stage_call(StageSource::Inputs, program, vec![input])))
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
        };
        let outputs = self.lower(input, &end, None).await?;
        let parts = self.picked(outputs, parts);
        Ok(parts
            .into_iter()
            .filter_map(|outputs| self.tree(outputs, |run, inputs| run.submit(merge_call(merge.clone(), inputs))))
            .collect())
    }

    /// The items of `plan` with their keys, split by key: for each part the outputs that hold it.
    async fn partitioned(
        &mut self,
        plan: &Plan,
        key: &FnRef,
        parts: u32,
    ) -> Result<Vec<Vec<Future<Buckets>>>, BagError> {
        let end = End::Partition { key: key.clone(), buckets: parts };
        let outputs = self.lower(plan, &end, None).await?;
        Ok(self.picked(outputs, parts))
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
            outputs = outputs.chunks(FAN_IN).map(|few| meet(self, few.to_vec())).collect();
        }
        outputs.pop()
    }

    /// Outputs meet in stages with this end.
    pub(crate) fn stage_tree(&mut self, outputs: Vec<Future<Buckets>>, end: &End) -> Option<Future<Buckets>> {
        let mut program = None;
        self.tree(outputs, |run, inputs| {
            let program = program.get_or_insert_with(|| run.program(&[], end));
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
