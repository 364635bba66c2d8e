//! All items become one answer.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use starling_runtime::task::items::{Buckets, Param, Ref, TaskFn};
use starling_runtime::value::Data;

use super::plan::{End, StageSource, Step};
use super::run::{Attempts, Only};
use super::scalar::{Number, Scalar};
use super::stage::stage_call;
use super::summary::{Moments, Sum, Summary};
use super::{Bag, BagError, damaged, encode_zero, items};

impl<T: Data> Bag<T> {
    /// Each partition's items go into a state that begins as `zero`, in order; the partitions' states are combined, in
    /// order. `zero` is used once a partition, so it must not change a state that it is combined with.
    pub async fn fold<S: Data, P: Param<Item = T>, Q: Param<Item = S>>(
        &self,
        zero: S,
        op: TaskFn<(S, P), S>,
        combine: TaskFn<(S, Q), S>,
    ) -> Result<S, BagError> {
        let end = End::Fold { op: op.reference()?, zero: Some(encode_zero(&zero)?) };
        let meet = End::Fold { op: combine.reference()?, zero: None };
        match self.met(&end, &meet).await? {
            None => Ok(zero),
            Some(state) => {
                let mut states = items(&state).map_err(BagError::Items)?;
                states.pop().ok_or_else(|| BagError::Items(damaged("a fold has no state")))
            }
        }
    }

    /// The `k` items with the largest keys, largest first, of equals the earliest first. For the smallest let the key be
    /// a [`Reverse`](std::cmp::Reverse).
    pub async fn topk<U, K>(&self, k: usize, key: TaskFn<(Ref<U>,), K>) -> Result<Vec<T>, BagError>
    where
        U: ToOwned<Owned = T> + ?Sized + 'static,
        K: Ord + 'static,
    {
        let end = End::TopK { key: key.reference()?, limit: k as u64 };
        match self.met(&end, &end).await? {
            None => Ok(Vec::new()),
            Some(largest) => items(&largest).map_err(BagError::Items),
        }
    }

    /// What `aggregate` makes of the list of what `per_partition` makes of each partition, which it gets as a list too.
    ///
    /// The lists that `aggregate` gets are of at most 8 values, or [`split_every`](Bag::split_every), and of at least one: it
    /// is called in a tree, in the partitions' order, and once at least. An empty bag counts as one empty partition. A partition must
    /// fit into memory; a [`fold`](Bag::fold) takes its items one by one.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// # async fn longest(words: starling_collections::Bag<String>) -> Result<usize, starling_collections::BagError> {
    /// let longest = task!(|words: &[String]| words.iter().map(String::len).max().unwrap_or(0));
    /// words.reduction(longest, task!(|longest: Vec<usize>| longest.into_iter().max().unwrap_or(0))).await
    /// # }
    /// ```
    pub async fn reduction<P, Q, S>(
        &self,
        per_partition: TaskFn<(P,), S>,
        aggregate: TaskFn<(Q,), S>,
    ) -> Result<S, BagError>
    where
        P: Param<Item = Vec<T>>,
        Q: Param<Item = Vec<S>>,
        S: Data,
    {
        let parts: Bag<S> = self.clone().stepped(per_partition.reference(), Step::Reduce);
        let aggregate = [Step::Reduce(aggregate.reference()?)];
        let mut attempts = Attempts::new();
        loop {
            match parts.reduced_once(&aggregate).await {
                Err(error) if attempts.again(&error) => {}
                outcome => return outcome,
            }
        }
    }

    /// This bag's items, one for each partition, reduced to one.
    async fn reduced_once(&self, aggregate: &[Step]) -> Result<T, BagError> {
        const ALL: End = End::Collect { limit: u64::MAX };
        let mut run = self.run()?;
        let mut outputs = run.lower(&self.plan, &ALL, &Only::All).await?;
        if outputs.is_empty() {
            // A partition without items.
            let program = run.program(&self.plan.steps, &ALL);
            outputs.push(run.submit(stage_call(StageSource::Inputs, &program, Vec::<Arc<Buckets>>::new())));
        }
        if outputs.len() == 1 {
            let program = run.program(aggregate, &ALL);
            outputs = vec![run.submit(stage_call(StageSource::Inputs, &program, outputs))];
        }
        let output = run.stage_tree(outputs, aggregate, &ALL);
        let outputs = run.gather(output.into_iter().collect()).await?;
        let values = outputs.first().map(items).transpose().map_err(BagError::Items)?;
        values
            .and_then(|mut values: Vec<T>| values.pop())
            .ok_or_else(|| BagError::Items(damaged("a reduction has no value")))
    }

    /// The one value that the partitions find out by `each` and put together by `all`; `None` if there are no partitions.
    async fn summary<S: DeserializeOwned>(&self, each: Summary, all: Summary) -> Result<Option<S>, BagError> {
        match self.met(&End::Summary(each), &End::Summary(all)).await? {
            None => Ok(None),
            Some(output) => Ok(items(&output).map_err(BagError::Items)?.pop()),
        }
    }
}

/// Numbers, texts, characters and truth values; of other items, [`topk`](Bag::topk) with 1 gives the greatest by a key.
/// Partitions meet in a tree.
impl<T: Scalar> Bag<T> {
    /// The least item; `None` of an empty bag. Floats: NaN if there is one, and -0.0 is less than 0.0.
    pub async fn min(&self) -> Result<Option<T>, BagError> {
        self.summary(Summary::Min(T::KIND), Summary::Min(T::KIND)).await
    }

    /// The greatest item; `None` of an empty bag. Floats: NaN if there is one, and 0.0 is greater than -0.0.
    pub async fn max(&self) -> Result<Option<T>, BagError> {
        self.summary(Summary::Max(T::KIND), Summary::Max(T::KIND)).await
    }
}

/// Integers of at most 64 bits, and floats. Partitions meet in a tree, in order, so that the same partitions give the same
/// answer to the last bit.
impl<T: Number> Bag<T> {
    /// The sum, 0 of an empty bag. Of integers it is exact; of floats what each addition loses is added in the end (Neumaier).
    ///
    /// # Errors
    /// [`BagError::Overflow`] if a sum of integers does not fit into 64 bits.
    pub async fn sum(&self) -> Result<T::Sum, BagError> {
        let total = self.total().await?.map_or_else(T::nothing, |sum| sum.total);
        T::sum(total).ok_or(BagError::Overflow { type_name: std::any::type_name::<T::Sum>() })
    }

    /// The mean; `None` of an empty bag. Of integers it is that of the exact sum.
    pub async fn mean(&self) -> Result<Option<f64>, BagError> {
        let sum = self.total().await?.filter(|sum| sum.count > 0);
        Ok(sum.map(|sum| sum.total.float() / sum.count as f64))
    }

    async fn total(&self) -> Result<Option<Sum>, BagError> {
        self.summary(Summary::Sum(T::KIND), Summary::Sums).await
    }

    /// The variance: the sum of the squared distances from the mean, divided by the number of items less `ddof`. `None` if
    /// there are not more items than `ddof`, as of an empty bag. `ddof` is 0 for all there is, 1 for a sample of it.
    ///
    /// Takes one pass (Welford; Chan, Golub and LeVeque), which does not lose what squares of large numbers would.
    ///
    /// ```no_run
    /// # async fn spread(heights: starling_collections::Bag<f64>) -> Result<Option<f64>, starling_collections::BagError> {
    /// heights.var(1).await
    /// # }
    /// ```
    pub async fn var(&self, ddof: u64) -> Result<Option<f64>, BagError> {
        let moments: Option<Moments> = self.summary(Summary::Moments(T::KIND), Summary::AllMoments).await?;
        let moments = moments.filter(|moments| moments.count > ddof);
        Ok(moments.map(|moments| moments.squares / (moments.count - ddof) as f64))
    }

    /// The standard deviation, which is the square root of the [variance](Bag::var).
    pub async fn std(&self, ddof: u64) -> Result<Option<f64>, BagError> {
        Ok(self.var(ddof).await?.map(f64::sqrt))
    }
}

/// Each partition stops at the item that decides.
impl Bag<bool> {
    /// Whether any item is true; false of an empty bag.
    pub async fn any(&self) -> Result<bool, BagError> {
        Ok(self.summary(Summary::Any, Summary::Any).await?.unwrap_or(false))
    }

    /// Whether all items are true; true of an empty bag.
    pub async fn all(&self) -> Result<bool, BagError> {
        Ok(self.summary(Summary::All, Summary::All).await?.unwrap_or(true))
    }
}
