//! Numbers about all items of a bag: what each partition finds out, and how that is put together.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use starling_core::failure::FailureCause;
use starling_runtime::task::items::{AnySink, Buckets, ItemBlock, ItemType, Sink, Stop};
use starling_runtime::value::Data;

use super::scalar::{Kind, Number, Scalar, Total, with_number, with_scalar};

/// What is found out of items of a type that is said by its kind, or of what other tasks found out.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Summary {
    /// Their number and sum: a [`Sum`].
    Sum(Kind),
    /// The sum of [`Sum`]s.
    Sums,
    /// Their mean and how far they are from it: [`Moments`].
    Moments(Kind),
    /// All [`Moments`] together.
    AllMoments,
    /// The least, if there is one.
    Min(Kind),
    /// The greatest, if there is one.
    Max(Kind),
    /// Whether one of them is true.
    Any,
    /// Whether all of them are true.
    All,
}

/// How many numbers there were, and what they add up to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) total: Total,
}

/// How many numbers there were, their mean, and the sum of the squares of their distances from it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Moments {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) squares: f64,
}

impl Moments {
    /// Welford's update by one number.
    fn add(&mut self, number: f64) {
        self.count += 1;
        let before = number - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (number - self.mean);
    }

    /// Both together, by Chan, Golub and LeVeque.
    fn merge(&mut self, other: Moments) {
        if self.count == 0 {
            *self = other;
        } else if other.count > 0 {
            let (here, there) = (self.count as f64, other.count as f64);
            let apart = other.mean - self.mean;
            self.count += other.count;
            let all = self.count as f64;
            self.mean += apart * there / all;
            self.squares += other.squares + apart * apart * here * there / all;
        }
    }
}

/// The sink that finds it out, and the items that it takes.
pub(crate) fn summary_sink(summary: Summary) -> Result<(AnySink, ItemType), FailureCause> {
    let not_a_number = || FailureCause::Codec { message: "the plan adds up what are no numbers".into() };
    Ok(match summary {
        Summary::Sum(kind) => with_number!(kind, N => {
            let add = |sum: &mut Sum, number: N| {
                sum.count += 1;
                sum.total.add(number.amount());
            };
            folding::<N, Sum>(Sum { count: 0, total: N::nothing() }, add)
        }, else return Err(not_a_number())),
        Summary::Sums => folding(Sum { count: 0, total: Total::Int(0) }, |all: &mut Sum, sum: Sum| {
            if all.count == 0 {
                *all = sum;
            } else {
                all.count += sum.count;
                all.total.merge(sum.total);
            }
        }),
        Summary::Moments(kind) => with_number!(kind, N => {
            folding::<N, Moments>(Moments::default(), |moments, number| moments.add(number.amount().float()))
        }, else return Err(not_a_number())),
        Summary::AllMoments => folding::<Moments, Moments>(Moments::default(), |all, moments| all.merge(moments)),
        Summary::Min(kind) => with_scalar!(kind, S => extreme::<S>(Ordering::Less)),
        Summary::Max(kind) => with_scalar!(kind, S => extreme::<S>(Ordering::Greater)),
        Summary::Any => deciding(true),
        Summary::All => deciding(false),
    })
}

fn folding<A: Data, S: Serialize + 'static>(state: S, add: fn(&mut S, A)) -> (AnySink, ItemType) {
    (AnySink::new::<A>(Folding { state, add }), ItemType::of::<A>())
}

/// A fold by a function of ours; the output is the state.
struct Folding<A, S> {
    state: S,
    add: fn(&mut S, A),
}

impl<A: 'static, S: Serialize + 'static> Sink<A> for Folding<A, S> {
    fn push(&mut self, item: A) -> Result<(), Stop> {
        (self.add)(&mut self.state, item);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        Ok(Buckets::one(ItemBlock::of([self.state])?))
    }
}

fn extreme<S: Scalar>(wanted: Ordering) -> (AnySink, ItemType) {
    (AnySink::new::<S>(Extreme::<S> { best: None, wanted }), ItemType::of::<S>())
}

/// Keeps the least or the greatest; the output is that, if there is any.
struct Extreme<S> {
    best: Option<S>,
    wanted: Ordering,
}

impl<S: Scalar> Sink<S> for Extreme<S> {
    fn push(&mut self, item: S) -> Result<(), Stop> {
        if self.best.as_ref().is_none_or(|best| item.beats(best, self.wanted)) {
            self.best = Some(item);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        Ok(Buckets::one(ItemBlock::of(self.best)?))
    }
}

fn deciding(decisive: bool) -> (AnySink, ItemType) {
    (AnySink::new::<bool>(Deciding { decisive, outcome: !decisive }), ItemType::of::<bool>())
}

/// Looks for one value, and for no more once it is found; the output is that value if it was found, else the other.
struct Deciding {
    decisive: bool,
    outcome: bool,
}

impl Sink<bool> for Deciding {
    fn push(&mut self, item: bool) -> Result<(), Stop> {
        if item != self.decisive {
            return Ok(());
        }
        self.outcome = self.decisive;
        Err(Stop::Enough)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        Ok(Buckets::one(ItemBlock::of([self.outcome])?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use starling_runtime::task::items::RawSink;

    use super::*;

    /// What a task finds out of these items.
    fn found<A: Data, R: DeserializeOwned>(summary: Summary, items: &[A]) -> Vec<R> {
        let (sink, taken) = summary_sink(summary).unwrap();
        let mut sink: Box<dyn RawSink> = taken.decode(sink).unwrap();
        for item in ItemBlock::of(items).unwrap().items().unwrap() {
            if let Err(Stop::Enough) = sink.push_encoded(item) {
                break;
            }
        }
        sink.finish().unwrap().0[0].items.decode().unwrap()
    }

    /// What a tree of two levels finds out of these partitions.
    fn met<A: Data, R: Data>(each: Summary, all: Summary, partitions: &[Vec<A>]) -> Option<R> {
        let parts = partitions.iter().flat_map(|items| found::<A, R>(each, items)).collect::<Vec<_>>();
        let halves = parts.chunks(2).flat_map(|few| found::<R, R>(all, few)).collect::<Vec<_>>();
        found::<R, R>(all, &halves).pop()
    }

    proptest! {
        #[test]
        fn sums_and_extremes_are_those_of_a_plain_loop(partitions: Vec<Vec<i64>>) {
            let items: Vec<i64> = partitions.concat();
            let sum: Sum = met(Summary::Sum(Kind::I64), Summary::Sums, &partitions).unwrap();
            prop_assert_eq!(sum.count, items.len() as u64);
            prop_assert_eq!(sum.total, Total::Int(items.iter().map(|n| i128::from(*n)).sum()));
            let (least, greatest) = (Summary::Min(Kind::I64), Summary::Max(Kind::I64));
            prop_assert_eq!(met(least, least, &partitions), items.iter().min().copied());
            prop_assert_eq!(met(greatest, greatest, &partitions), items.iter().max().copied());
        }

        #[test]
        fn moments_are_those_of_a_plain_loop(partitions: Vec<Vec<i32>>) {
            let items: Vec<f64> = partitions.concat().into_iter().map(f64::from).collect();
            let moments: Moments = met(Summary::Moments(Kind::I32), Summary::AllMoments, &partitions).unwrap();
            let mean = items.iter().sum::<f64>() / items.len().max(1) as f64;
            let squares: f64 = items.iter().map(|n| (n - mean).powi(2)).sum();
            prop_assert_eq!(moments.count, items.len() as u64);
            prop_assert!((moments.mean - mean).abs() <= 1e-6, "{} is not {}", moments.mean, mean);
            prop_assert!((moments.squares - squares).abs() <= 1e-9 * squares, "{} is not {}", moments.squares, squares);
        }

        #[test]
        fn a_decision_is_that_of_a_plain_loop(partitions: Vec<Vec<bool>>) {
            let items: Vec<bool> = partitions.concat();
            prop_assert_eq!(met::<bool, bool>(Summary::Any, Summary::Any, &partitions), Some(items.contains(&true)));
            prop_assert_eq!(met::<bool, bool>(Summary::All, Summary::All, &partitions), Some(!items.contains(&false)));
        }

        #[test]
        fn a_compensated_sum_is_nearer_than_its_items_apart(floats: Vec<i32>) {
            // Quarters of integers add up exactly, large ones before and after them or not.
            let quarters: Vec<f64> = floats.iter().map(|n| f64::from(*n) / 4.0).collect();
            let partitions = vec![vec![1e18], quarters.clone(), vec![-1e18]];
            let sum: Sum = met(Summary::Sum(Kind::F64), Summary::Sums, &partitions).unwrap();
            prop_assert_eq!(sum.total.float(), quarters.iter().sum::<f64>());
        }
    }

    #[test]
    fn what_is_no_number_is_not_added_up() {
        let error = summary_sink(Summary::Sum(Kind::String)).err().unwrap();
        assert!(error.to_string().contains("no numbers"), "{error}");
    }
}
