//! From a plan to tasks where bags or partitions meet: how many partitions there are, and which tasks make them.

use futures::future::BoxFuture;
use starling_runtime::task::Future;
use starling_runtime::task::items::{Buckets, FnRef};

use super::BagError;
use super::meet_tasks::{accumulate_call, cut_call, gather_call, join_call, pick, product_call, size, zip_call};
use super::plan::{End, Plan, Source, StageSource, Step, Target};
use super::run::{Only, Run};
use super::stage::stage_call;

/// All items, as they come.
const ALL: End = End::Collect { limit: u64::MAX };

/// As many parts a grouping has of its own accord: each of its tasks takes a part of every input.
const GROWN_PARTS_MAX: usize = 1024;

impl<'a> Run<'a> {
    /// How many partitions the plan has. Asks the cluster for no more than its files, if their number does not depend on the
    /// items.
    pub(crate) fn partitions<'b>(&'b mut self, plan: &'b Plan) -> BoxFuture<'b, Result<usize, BagError>> {
        Box::pin(async move {
            Ok(match &*plan.source {
                Source::Csv { files, .. } => {
                    files.scan().await?.files.iter().map(|(_, split)| split.ranges.len()).sum()
                }
                Source::Files(files) => files.ranges(self.cluster()).await?.len(),
                Source::Items(blocks) => blocks.len(),
                Source::Ranges(ranges) => ranges.len(),
                Source::Kept(futures) => futures.len(),
                Source::Values(futures) => futures.len(),
                Source::Grouped { parts, .. } | Source::Joined { parts, .. } => *parts as usize,
                Source::Gathered { input, parts, grows, .. } => {
                    let inputs = if *grows { self.partitions(input).await? } else { 0 };
                    grown(*parts, inputs) as usize
                }
                Source::Zipped { left, .. } => self.partitions(left).await?,
                Source::Product { left, right } => {
                    let left = self.partitions(left).await?;
                    left.saturating_mul(self.partitions(right).await?)
                }
                Source::Concat(plans) => {
                    let mut all = 0;
                    for plan in plans {
                        all += self.partitions(plan).await?;
                    }
                    all
                }
                Source::Repartitioned { to: Target::Count(count), .. } => *count,
                Source::Repartitioned { .. } => {
                    let source = Plan { source: plan.source.clone(), steps: Vec::new() };
                    self.lower(&source, &ALL, &Only::All).await?.len()
                }
                Source::Accumulated { input, initial, .. } => {
                    self.partitions(input).await?.max(usize::from(initial.is_some()))
                }
            })
        })
    }

    /// The plan with what regroups its items submitted, so that it is computed once however often the plan is lowered.
    pub(crate) fn settled<'b>(&'b mut self, plan: &'b Plan) -> BoxFuture<'b, Result<Plan, BagError>> {
        Box::pin(async move {
            let source = match &*plan.source {
                Source::Csv { .. }
                | Source::Files(_)
                | Source::Items(_)
                | Source::Ranges(_)
                | Source::Kept(_)
                | Source::Values(_) => return Ok(plan.clone()),
                Source::Zipped { left, right } => {
                    Source::Zipped { left: self.settled(left).await?, right: self.settled(right).await? }
                }
                Source::Product { left, right } => {
                    Source::Product { left: self.settled(left).await?, right: self.settled(right).await? }
                }
                Source::Concat(plans) => {
                    let mut settled = Vec::new();
                    for plan in plans {
                        settled.push(self.settled(plan).await?);
                    }
                    Source::Concat(settled)
                }
                Source::Grouped { .. }
                | Source::Joined { .. }
                | Source::Gathered { .. }
                | Source::Repartitioned { .. }
                | Source::Accumulated { .. } => {
                    let source = Plan { source: plan.source.clone(), steps: Vec::new() };
                    Source::Kept(self.lower(&source, &ALL, &Only::All).await?)
                }
            };
            Ok(Plan { source: source.into(), steps: plan.steps.clone() })
        })
    }

    /// The items of a plan, an output for each partition, for tasks that do not know their type.
    async fn encoded(&mut self, plan: &Plan, only: &Only) -> Result<Vec<Future<Buckets>>, BagError> {
        if plan.is_untyped() {
            return Err(BagError::Untyped);
        }
        self.lower(plan, &ALL, only).await
    }

    /// One plan's partitions after another's, each with the steps that follow.
    pub(crate) async fn concat(
        &mut self,
        plans: &[Plan],
        steps: &[Step],
        end: &End,
        only: &Only,
    ) -> Result<Vec<Future<Buckets>>, BagError> {
        let (mut outputs, mut base) = (Vec::new(), 0);
        for plan in plans {
            let plan = self.settled(plan).await?;
            let partitions = self.partitions(&plan).await?;
            let only = only.within(base, partitions);
            let later = steps.iter().map(|step| step.numbered_from(base as u64));
            let plan = Plan { steps: plan.steps.iter().cloned().chain(later).collect(), source: plan.source };
            if plan.is_untyped() && matches!(end, End::Collect { .. } | End::Places) {
                return Err(BagError::Untyped);
            }
            outputs.extend(self.lower(&plan, end, &only).await?);
            base += partitions;
        }
        Ok(outputs)
    }

    /// The partitions of two plans, one to one.
    pub(crate) async fn zipped(
        &mut self,
        left: &Plan,
        right: &Plan,
        only: &Only,
    ) -> Result<Vec<Future<Buckets>>, BagError> {
        let (left, right) = (self.settled(left).await?, self.settled(right).await?);
        let (here, there) = (self.partitions(&left).await?, self.partitions(&right).await?);
        if here != there {
            return Err(BagError::Unaligned { left: here, right: there });
        }
        let numbers: Vec<u64> = (0..here).filter(|&number| only.has(number)).map(|number| number as u64).collect();
        let (left, right) = (self.encoded(&left, only).await?, self.encoded(&right, only).await?);
        let pairs = left.into_iter().zip(right).zip(numbers);
        Ok(pairs.map(|((left, right), number)| self.submit(zip_call(left, right, number))).collect())
    }

    /// Each partition of one plan with each of another.
    pub(crate) async fn product(
        &mut self,
        left: &Plan,
        right: &Plan,
        only: &Only,
    ) -> Result<Vec<Future<Buckets>>, BagError> {
        let (left, right) = (self.encoded(left, &Only::All).await?, self.encoded(right, &Only::All).await?);
        let pairs = left.iter().flat_map(|left| right.iter().map(move |right| (left, right)));
        let pairs = pairs.enumerate().filter(|(number, _)| only.has(*number));
        Ok(pairs.map(|(_, (left, right))| self.submit(product_call(left.clone(), right.clone()))).collect())
    }

    /// The pairs of items with equal keys: each partition's items split by key, and a task for each part.
    pub(crate) async fn joined(
        &mut self,
        (left, left_key): (&Plan, &FnRef),
        (right, right_key): (&Plan, &FnRef),
        parts: u32,
    ) -> Result<Vec<Future<Buckets>>, BagError> {
        let left = self.split(left, left_key, parts).await?;
        let right = self.split(right, right_key, parts).await?;
        Ok((0..parts).map(|part| self.submit(join_call(left.clone(), right.clone(), part, parts))).collect())
    }

    /// The items of each key together: each partition's items split by key, and a task for each part.
    pub(crate) async fn gathered(
        &mut self,
        input: &Plan,
        key: &FnRef,
        parts: u32,
        grows: bool,
    ) -> Result<Vec<Future<Buckets>>, BagError> {
        let input = self.settled(input).await?;
        let inputs = if grows { self.partitions(&input).await? } else { 0 };
        let parts = grown(parts, inputs);
        let outputs = self.split(&input, key, parts).await?;
        Ok((0..parts).map(|part| self.submit(gather_call(outputs.clone(), part, parts))).collect())
    }

    async fn split(&mut self, plan: &Plan, key: &FnRef, parts: u32) -> Result<Vec<Future<Buckets>>, BagError> {
        self.lower(plan, &End::Partition { key: key.clone(), buckets: parts }, &Only::All).await
    }

    /// The same items in the same order, in other partitions.
    pub(crate) async fn repartitioned(&mut self, input: &Plan, to: Target) -> Result<Vec<Future<Buckets>>, BagError> {
        let outputs = self.encoded(input, &Only::All).await?;
        let shape = match to {
            Target::Count(count) => even(outputs.len(), count),
            Target::Bytes(limit) => {
                let sizes: Vec<_> = outputs.iter().map(|output| self.cluster().submit(size::task(output))).collect();
                by_size(&self.cluster().gather(&sizes).await?, limit)
            }
        };
        let all = self.program(&[], &ALL);
        let mut outputs = outputs.into_iter();
        let mut made = Vec::new();
        for group in shape {
            match group {
                Regroup::Together(1) => made.extend(outputs.next()),
                Regroup::Together(count) => {
                    let few: Vec<_> = outputs.by_ref().take(count).collect();
                    made.push(self.submit(stage_call(StageSource::Inputs, &all, few)));
                }
                Regroup::Pieces(pieces) => {
                    let Some(output) = outputs.next() else { continue };
                    let cut = self.submit(cut_call(output, pieces as u64));
                    let pick = |piece| self.cluster().submit(pick::task(&cut, piece as u32));
                    made.extend((0..pieces).map(pick));
                }
            }
        }
        Ok(made)
    }

    /// The states of a fold that runs from partition to partition.
    pub(crate) async fn accumulated(
        &mut self,
        input: &Plan,
        op: &FnRef,
        initial: &Option<Vec<u8>>,
    ) -> Result<Vec<Future<Buckets>>, BagError> {
        let mut outputs = self.encoded(input, &Only::All).await?;
        if outputs.is_empty() && initial.is_some() {
            // There is the initial state even of nothing.
            let all = self.program(&[], &ALL);
            outputs.push(self.submit(stage_call(StageSource::Inputs, &all, Vec::<Future<Buckets>>::new())));
        }
        let program = self.program(&[], &End::Scan { op: op.clone(), initial: initial.clone() });
        let mut carry = None;
        let mut states = Vec::new();
        for items in outputs {
            let scan = self.submit(accumulate_call(&program, items, carry));
            states.push(self.cluster().submit(pick::task(&scan, 0)));
            carry = Some(self.cluster().submit(pick::task(&scan, 1)));
        }
        Ok(states)
    }
}

/// As many parts as there are inputs, within bounds.
fn grown(parts: u32, inputs: usize) -> u32 {
    parts.max(inputs.min(GROWN_PARTS_MAX) as u32)
}

/// What becomes of the next partitions.
#[derive(Debug, PartialEq, Eq)]
enum Regroup {
    /// So many, which may be none, become one.
    Together(usize),
    /// One becomes so many.
    Pieces(usize),
}

/// `before` partitions become `after`, neighbours meeting or each being cut.
fn even(before: usize, after: usize) -> Vec<Regroup> {
    let share = |number: usize, of: usize, all: usize| (number * all) / of;
    if after <= before || before == 0 {
        return (0..after)
            .map(|at| Regroup::Together(share(at + 1, after, before) - share(at, after, before)))
            .collect();
    }
    let pieces = |at| match share(at + 1, before, after) - share(at, before, after) {
        1 => Regroup::Together(1),
        pieces => Regroup::Pieces(pieces),
    };
    (0..before).map(pieces).collect()
}

/// Partitions of so many items and bytes become such of at most about `limit` bytes, or of one item.
fn by_size(sizes: &[(u64, u64)], limit: u64) -> Vec<Regroup> {
    let limit = limit.max(1);
    let mut made = Vec::new();
    let (mut together, mut nbytes) = (0, 0_u64);
    for &(count, size) in sizes {
        if together > 0 && nbytes.saturating_add(size) > limit {
            made.push(Regroup::Together(std::mem::take(&mut together)));
            nbytes = 0;
        }
        if size > limit && count > 1 {
            made.push(Regroup::Pieces(usize::try_from(size.div_ceil(limit).min(count)).unwrap_or(usize::MAX)));
        } else {
            together += 1;
            nbytes = nbytes.saturating_add(size);
        }
    }
    if together > 0 {
        made.push(Regroup::Together(together));
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_meet_or_are_cut_evenly() {
        use Regroup::{Pieces, Together};
        assert_eq!(even(5, 2), [Together(2), Together(3)]);
        assert_eq!(even(3, 3), [Together(1), Together(1), Together(1)]);
        assert_eq!(even(2, 5), [Pieces(2), Pieces(3)]);
        assert_eq!(even(2, 3), [Together(1), Pieces(2)]);
        assert_eq!(even(0, 2), [Together(0), Together(0)]);
        for (before, after) in [(1, 7), (7, 1), (10, 3), (3, 10), (0, 4), (8, 8)] {
            let shape = even(before, after);
            let made: usize = shape.iter().map(|group| if let Pieces(pieces) = group { *pieces } else { 1 }).sum();
            let used: usize = shape.iter().map(|group| if let Together(count) = group { *count } else { 1 }).sum();
            assert_eq!((used, made), (before, after));
        }
    }

    #[test]
    fn partitions_meet_as_long_as_they_are_small_and_are_cut_if_they_are_large() {
        use Regroup::{Pieces, Together};
        assert_eq!(by_size(&[(1, 10), (2, 20), (3, 30), (9, 100), (1, 5)], 60), [Together(3), Pieces(2), Together(1)]);
        assert_eq!(by_size(&[(4, 40), (4, 40)], 60), [Together(1), Together(1)]);
        assert_eq!(by_size(&[(0, 0), (0, 0)], 0), [Together(2)]);
        assert_eq!(by_size(&[(3, 900), (1, 900), (0, 0)], 1), [Pieces(3), Together(1), Together(1)]);
        assert_eq!(by_size(&[], 9), []);
        assert_eq!(by_size(&[(1, u64::MAX), (1, 1)], u64::MAX), [Together(2)]);
    }
}
