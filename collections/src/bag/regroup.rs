//! Bags that meet, and items that come into other partitions.

use std::hash::Hash;

use starling_actors::Cluster;
use starling_runtime::task::Future;
use starling_runtime::task::items::{Param, Ref, TaskFn};
use starling_runtime::value::Data;

use super::meet_tasks::list_call;
use super::plan::{Group, Plan, Source, Step, Target};
use super::{Bag, BagError, encode_zero};

impl<T> Bag<T> {
    /// How many partitions the bag has. Looks for its files, if it is of files; computes its items only if their sizes decide
    /// ([`repartition_by_size`](Bag::repartition_by_size)).
    pub async fn npartitions(&self) -> Result<usize, BagError> {
        self.run()?.partitions(&self.plan).await
    }

    /// The bag of this source, which is made of this bag and `other`.
    fn with_other<B, R>(self, mut other: Bag<B>, source: impl FnOnce(Plan, Plan) -> Source) -> Bag<R> {
        let (left, right) = (self.plan.clone(), other.plan.clone());
        let mut bag = self.regrouped(Ok(source(left, right)));
        bag.problem = bag.problem.or(other.problem.take());
        bag
    }
}

impl<T: Data> Bag<T> {
    /// Each item with each item of `other` that has the same key. The pairs come in no promised order. Keys are
    /// [compared](#comparing-keys) by their encoding.
    pub fn join<B, U, V, K>(
        self,
        other: Bag<B>,
        key: TaskFn<(Ref<U>,), K>,
        other_key: TaskFn<(Ref<V>,), K>,
    ) -> Bag<(T, B)>
    where
        B: Data,
        U: ToOwned<Owned = T> + ?Sized + 'static,
        V: ToOwned<Owned = B> + ?Sized + 'static,
        K: Data + Eq + Hash,
    {
        let parts = self.parts.unwrap_or_else(|| self.cluster.nthreads().max(1));
        let left = self.plan.clone();
        let problem = other.problem;
        let keys = || match problem {
            Some(problem) => Err(problem),
            None => Ok((key.reference()?, other_key.reference()?)),
        };
        let keys = keys();
        self.regrouped(keys.map(|(left_key, right_key)| Source::Joined {
            left,
            right: other.plan,
            left_key,
            right_key,
            parts,
        }))
    }

    /// The first item of each key. The items come in no promised order, but always in the same. The keys are
    /// [compared](#comparing-keys) by their encoding, and partitions meet as for [`distinct`](Bag::distinct).
    pub fn distinct_by<U, K>(self, key: TaskFn<(Ref<U>,), K>) -> Bag<T>
    where
        U: ToOwned<Owned = T> + ?Sized + 'static,
        K: Data + Eq + Hash,
    {
        let (input, parts) = (self.plan.clone(), self.parts.unwrap_or(1));
        self.regrouped(key.reference().map(|key| Source::Grouped { input, group: Group::DistinctBy { key }, parts }))
    }

    /// The items of each key together, in their order. The keys come in no promised order, but always in the same. They are
    /// [compared](#comparing-keys) by their encoding.
    ///
    /// All items travel: each partition is split by key into as many parts as there are partitions (at least as many as the
    /// cluster has threads, and of its own accord at most 1,024; [`parts`](Bag::parts) says another number), and a task for each part brings its keys together. A part must fit into
    /// memory, with the items of its keys, and so must all items of one key; the rest may lie on disk. Where a state for each
    /// key is enough, [`foldby`](Bag::foldby) costs far less.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// # fn by_length(words: starling_collections::Bag<String>) -> starling_collections::Bag<(usize, Vec<String>)> {
    /// words.groupby(task!(|word: &str| word.len()))
    /// # }
    /// ```
    pub fn groupby<U, K>(self, key: TaskFn<(Ref<U>,), K>) -> Bag<(K, Vec<T>)>
    where
        U: ToOwned<Owned = T> + ?Sized + 'static,
        K: Data + Eq + Hash,
    {
        let (grows, parts) = (self.parts.is_none(), self.parts.unwrap_or_else(|| self.cluster.nthreads().max(1)));
        let input = self.plan.clone();
        self.regrouped(key.reference().map(|key| Source::Gathered { input, key, parts, grows }))
    }

    /// The items of both at the same places, in pairs: the first of each partition with the first of the other bag's, and so
    /// on. Partitions stay, one task for each pair of them.
    ///
    /// # Errors
    /// When it is computed: [`BagError::Unaligned`] if the bags have not as many partitions; a failure if two partitions have
    /// not as many items. Bags that were made of the same bag by `map` always fit.
    pub fn zip<B: Data>(self, other: Bag<B>) -> Bag<(T, B)> {
        self.with_other(other, |left, right| Source::Zipped { left, right })
    }

    /// Each item with each item of `other`: for each pair of partitions a task, which makes a partition.
    pub fn product<B: Data>(self, other: Bag<B>) -> Bag<(T, B)> {
        self.with_other(other, |left, right| Source::Product { left, right })
    }

    /// The items, then those of `other`. Costs nothing: the partitions of both, and the steps that follow are done in the tasks
    /// that compute them.
    pub fn chain(self, other: Bag<T>) -> Bag<T> {
        self.with_other(other, |left, right| Source::Concat(vec![left, right]))
    }

    /// The items of all these bags, one bag after the other, as [`chain`](Bag::chain). No bags give an empty one.
    ///
    /// ```no_run
    /// # use starling_collections::Bag;
    /// # fn logs(cluster: &starling_actors::Cluster) -> Bag<String> {
    /// Bag::concat(cluster, ["a.log", "b.log"].map(|path| Bag::read_text(cluster, path)))
    /// # }
    /// ```
    pub fn concat(cluster: &Cluster, bags: impl IntoIterator<Item = Bag<T>>) -> Bag<T> {
        let (mut plans, mut problem) = (Vec::new(), None);
        for bag in bags {
            problem = problem.or(bag.problem);
            plans.push(bag.plan);
        }
        Bag { problem, ..Bag::from_source(cluster, Source::Concat(plans)) }
    }

    /// The same items in the same order, in `partitions` partitions, at least one: neighbours are brought together, or each
    /// partition is cut into pieces with about as many items. What is computed before is kept until then.
    pub fn repartition(self, partitions: usize) -> Bag<T> {
        self.repartitioned(Target::Count(partitions.max(1)))
    }

    /// The same items in the same order, in partitions of at most about `nbytes` bytes of encoded items: small neighbours are
    /// brought together, large ones cut into pieces with about as many items. The client waits for the sizes of all partitions
    /// before it goes on.
    pub fn repartition_by_size(self, nbytes: u64) -> Bag<T> {
        self.repartitioned(Target::Bytes(nbytes))
    }

    fn repartitioned(self, to: Target) -> Bag<T> {
        let input = self.plan.clone();
        self.regrouped(Ok(Source::Repartitioned { input, to }))
    }

    /// The state after each item of a fold that begins with the first item, which is the first state.
    ///
    /// A partition waits for the last state of the one before it, so that the fold itself is not parallel; the steps before and
    /// after it are.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// # fn running_totals(bag: starling_collections::Bag<u64>) -> starling_collections::Bag<u64> {
    /// bag.accumulate(task!(|sum: u64, n: u64| sum + n)) // 1, 2, 3 gives 1, 3, 6
    /// # }
    /// ```
    pub fn accumulate<P: Param<Item = T>>(self, op: TaskFn<(T, P), T>) -> Bag<T> {
        let input = self.plan.clone();
        self.regrouped(op.reference().map(|op| Source::Accumulated { input, op, initial: None }))
    }

    /// As [`accumulate`](Bag::accumulate), but the first state is `initial`, and there is one more state than items.
    pub fn accumulate_from<S: Data, P: Param<Item = T>>(self, initial: S, op: TaskFn<(S, P), S>) -> Bag<S> {
        let input = self.plan.clone();
        let source = || Ok(Source::Accumulated { input, op: op.reference()?, initial: Some(encode_zero(&initial)?) });
        self.regrouped(source())
    }

    /// A future of each partition's items, for tasks of your own. Returns as soon as the tasks are submitted.
    ///
    /// ```no_run
    /// # async fn run(bag: starling_collections::Bag<u64>) -> Result<(), Box<dyn std::error::Error>> {
    /// let partitions = bag.to_futures().await?;
    /// let first: Vec<u64> = partitions[0].result().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn to_futures(&self) -> Result<Vec<Future<Vec<T>>>, BagError> {
        let outputs = self.outputs().await?;
        Ok(outputs.into_iter().map(|output| self.cluster.submit(list_call(output))).collect())
    }

    /// The items that `f` takes out of the results of tasks, each of which is a partition. The closure tells the workers the
    /// type: `task!(|items: Vec<u64>| items)` for a future of all items of a partition. An error of a task is one of the bag.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// # use starling_collections::Bag;
    /// # use starling_runtime::task::Future;
    /// # fn bag(cluster: &starling_actors::Cluster, months: &[Future<Vec<f64>>]) -> Bag<f64> {
    /// Bag::from_futures(cluster, months, task!(|prices: Vec<f64>| prices))
    /// # }
    /// ```
    pub fn from_futures<V, P, R>(cluster: &Cluster, futures: &[Future<V>], f: TaskFn<(P,), R>) -> Bag<T>
    where
        P: Param<Item = V>,
        R: IntoIterator<Item = T> + 'static,
    {
        let values = futures.iter().map(Future::untyped).collect();
        Bag::<V>::from_source(cluster, Source::Values(values)).stepped(f.reference(), Step::FlatMap)
    }
}
