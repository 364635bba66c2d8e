//! Items by chance: the same ones for the same seed, on whatever workers.

use std::collections::BTreeMap;

use rand::seq::index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use starling_runtime::task::items::{Buckets, Gate};
use starling_runtime::value::Data;

use super::plan::{End, Sample, Step};
use super::run::{Attempts, Only};
use super::{Bag, BagError, items};

impl Sample {
    /// Lets through the items of the partition of this number.
    pub(crate) fn gate(&self, number: u64, step: usize) -> Gate {
        // Distinct streams of one generator: partitions, and samples of samples, do not resemble each other.
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream((self.first + number) << 16 | step as u64);
        let probability = self.probability;
        Box::new(move || random.random::<f64>() < probability)
    }
}

impl<T: Data> Bag<T> {
    /// Each item with this probability, independently. Below 0 is as 0, above 1 as 1.
    ///
    /// Which items depends on the seed, and on their places in the partitions before this step, not on the workers: the same
    /// bag gives the same items whenever it is computed. A step as any other, without a meeting.
    pub fn random_sample(self, probability: f64, seed: u64) -> Bag<T> {
        self.with_step(Step::Sample(Sample { probability, seed, first: 0 }))
    }

    /// `count` items, each time any of all items: the same one may come again. In random order; which ones depends on
    /// the seed and on the items' order, not on partitions or workers.
    ///
    /// The items are counted first; then the partitions that hold chosen ones are computed again, up to the last of those. Keep
    /// a bag that is costly ([`persist`](Bag::persist)), or whose closures do not always give the same.
    ///
    /// # Errors
    /// [`BagError::TooFew`] if the bag is empty and `count` is not 0.
    pub async fn choices(&self, count: usize, seed: u64) -> Result<Vec<T>, BagError> {
        self.chosen(|total| {
            if total == 0 && count > 0 {
                return Err(BagError::TooFew { wanted: count as u64, total });
            }
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            Ok((0..count).map(|_| random.random_range(0..total)).collect())
        })
        .await
    }

    /// `count` different items, every set of so many being as likely. Order, seed and cost are as of
    /// [`choices`](Bag::choices).
    ///
    /// # Errors
    /// [`BagError::TooFew`] if there are fewer items.
    pub async fn sample(&self, count: usize, seed: u64) -> Result<Vec<T>, BagError> {
        self.chosen(|total| {
            let too_few = || BagError::TooFew { wanted: count as u64, total };
            if count as u64 > total {
                return Err(too_few());
            }
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let length = usize::try_from(total).map_err(|_| too_few())?;
            Ok(index::sample(&mut random, length, count).into_iter().map(|at| at as u64).collect())
        })
        .await
    }

    /// The items at the places that `draw` chooses of so many, in its order.
    async fn chosen(&self, draw: impl Fn(u64) -> Result<Vec<u64>, BagError>) -> Result<Vec<T>, BagError> {
        let mut attempts = Attempts::new();
        loop {
            match self.chosen_once(&draw).await {
                Err(error) if attempts.again(&error) => {}
                outcome => return outcome,
            }
        }
    }

    async fn chosen_once(&self, draw: &impl Fn(u64) -> Result<Vec<u64>, BagError>) -> Result<Vec<T>, BagError> {
        let mut run = self.run()?;
        let plan = run.settled(&self.plan).await?;
        let outputs = run.lower(&plan, &End::Count, &Only::All).await?;
        let counts = run.gather(outputs).await?;
        let counts = counts.iter().map(|count| Ok(items::<u64>(count)?.into_iter().sum()));
        let counts = counts.collect::<Result<Vec<u64>, _>>().map_err(BagError::Items)?;
        let drawn = draw(counts.iter().sum())?;

        let mut wanted = drawn.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let places = places(&counts, &wanted);
        let mut run = self.run()?;
        let outputs = run.lower(&plan, &End::Places, &Only::Places(places.clone())).await?;
        let outputs: Vec<Buckets> = run.gather(outputs).await?;
        let mut found = Vec::with_capacity(wanted.len());
        for (&partition, output) in places.keys().zip(&outputs) {
            found.extend(self.taken(partition, output).await?);
        }
        if found.len() != wanted.len() {
            return Err(BagError::Unsteady);
        }
        let item = |place| wanted.binary_search(place).ok().and_then(|at| found.get(at).cloned());
        drawn.iter().map(item).collect::<Option<Vec<T>>>().ok_or(BagError::Unsteady)
    }
}

/// From places in the whole bag, in order, the places in each partition that holds some.
fn places(counts: &[u64], wanted: &[u64]) -> BTreeMap<usize, Vec<u64>> {
    let mut places: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let (mut partition, mut start) = (0, 0);
    for &place in wanted {
        while counts.get(partition).is_some_and(|count| place >= start + count) {
            start += counts[partition];
            partition += 1;
        }
        places.entry(partition).or_default().push(place - start);
    }
    places
}
