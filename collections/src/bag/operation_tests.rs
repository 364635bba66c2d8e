//! The operations of bags against what plain iterators give, over one partition, many, empty ones and none.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use starling_actors::Cluster;

use super::{Bag, BagError, Json};

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

pub(super) async fn cluster() -> Cluster {
    Cluster::local(2).await.unwrap()
}

pub(super) fn bag(cluster: &Cluster, items: &[u64], partitions: usize) -> Bag<u64> {
    Bag::from_sequence(cluster, items.to_vec(), partitions).unwrap()
}

/// Bags of all shapes, each with its items.
pub(super) fn shapes(cluster: &Cluster) -> Vec<(Vec<u64>, Bag<u64>)> {
    let all: Vec<u64> = (0..60).collect();
    let some = |n: &u64| (20..41).contains(n);
    vec![
        (Vec::new(), bag(cluster, &[], 3)),
        (all.clone(), bag(cluster, &all, 1)),
        (all.clone(), bag(cluster, &all, 7)),
        (all.clone(), bag(cluster, &all, 20)),
        // Empty partitions before, between and behind.
        (
            all.iter().copied().filter(some).collect(),
            bag(cluster, &all, 12).filter(task!(|n: &u64| (20..41).contains(n))),
        ),
        (
            all.iter().copied().filter(|n| n % 9 == 4).collect(),
            bag(cluster, &all, 15).filter(task!(|n: &u64| n % 9 == 4)),
        ),
        (Vec::new(), bag(cluster, &all, 5).filter(task!(|_n: &u64| false))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_is_the_opposite_of_filtering() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        let expected: Vec<u64> = items.into_iter().filter(|n| n % 3 != 0).collect();
        assert_eq!(bag.remove(task!(|n: &u64| n.is_multiple_of(3))).collect().await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_of_several_arguments_takes_tuples_apart() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        let pairs = bag.map(task!(|n: u64| (n, n.to_string())));
        let joined = pairs.starmap(task!([by: u64 = 3] |n: u64, text: &str| format!("{} {text}", n * by)));
        let expected: Vec<String> = items.iter().map(|n| format!("{} {n}", n * 3)).collect();
        assert_eq!(joined.collect().await.unwrap(), expected);
    }
    let triples = Bag::from_sequence(&cluster, vec![(1_u8, 2_u16, 3_u32)], 1).unwrap();
    let sums = triples.starmap(task!(|a: u8, b: u16, c: u32| u32::from(a) + u32::from(b) + c));
    assert_eq!(sums.collect().await.unwrap(), [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_mapped_as_a_whole() {
    let cluster = cluster().await;
    let lengths = bag(&cluster, &[5, 6, 7, 8, 9], 2).map_partitions(task!(|items: &[u64]| [items.len()]));
    assert_eq!(lengths.collect().await.unwrap(), [3, 2]);
    for (items, bag) in shapes(&cluster) {
        let doubled = bag.map_partitions(task!(|items: Vec<u64>| items.into_iter().map(|n| n * 2).collect::<Vec<_>>()));
        let expected: Vec<u64> = items.iter().map(|n| n * 2).collect();
        assert_eq!(doubled.clone().map(task!(|n: u64| n + 1)).count().await.unwrap(), expected.len() as u64);
        assert_eq!(doubled.take(3).await.unwrap(), expected[..expected.len().min(3)]);
        assert_eq!(doubled.collect().await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_flattened_wherever_they_come_from() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        let expected: Vec<u64> = items.iter().flat_map(|n| vec![*n; (n % 4) as usize]).collect();
        let lists = bag.map(task!(|n: u64| vec![n; (n % 4) as usize]));
        assert_eq!(lists.clone().flatten().collect().await.unwrap(), expected);
        // Steps between, whose lists are encoded element by element, and steps behind.
        let kept = lists.clone().filter(task!(|list: &[u64]| !list.is_empty()));
        assert_eq!(kept.clone().flatten().collect().await.unwrap(), expected);
        assert_eq!(
            kept.random_sample(1.0, 3).flatten().map(task!(|n: u64| n + 1)).count().await.unwrap(),
            expected.len() as u64
        );
        let nested = lists.map(task!(|list: Vec<u64>| vec![list.clone(), list]));
        let twice: Vec<u64> = items.iter().flat_map(|n| vec![*n; (n % 4) as usize * 2]).collect();
        assert_eq!(nested.flatten().flatten().collect().await.unwrap(), twice);
    }
    let own = Bag::from_sequence(&cluster, vec![vec![1_u8, 2], vec![], vec![3]], 2).unwrap();
    assert_eq!(own.clone().flatten().collect().await.unwrap(), [1, 2, 3]);
    let kept = own.persist().await.unwrap();
    let error = kept.clone().flatten().collect().await.unwrap_err();
    assert!(error.reason().contains("put a map(task!(|list: Vec<_>| list))"), "{error}");
    assert_eq!(kept.map(task!(|list: Vec<u8>| list)).flatten().collect().await.unwrap(), [1, 2, 3]);
}

const LINES: [&str; 2] = [r#"{"name":"a","tags":["x","y"],"n":1}"#, r#"{"name":"b","tags":[],"n":2.5,"more":null}"#];

fn lines_in(cluster: &Cluster, lines: &[&str], partitions: usize) -> Bag<String> {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    Bag::from_sequence(cluster, lines, partitions).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_json_values_are_plucked_with_and_without_a_type() {
    let cluster = cluster().await;
    for partitions in [1, 2] {
        let lines = lines_in(&cluster, &LINES, partitions);
        let values = lines.try_map(task!(|line: &str| serde_json::from_str::<Value>(line)));
        let show = || task!(|value: &Value| value.to_string());
        assert_eq!(values.clone().pluck_as::<String>("name").collect().await.unwrap(), ["a", "b"]);
        assert_eq!(values.clone().pluck_as::<f64>("n").sum().await.unwrap(), 3.5);
        assert_eq!(values.clone().pluck("tags").map(show()).collect().await.unwrap(), [r#"["x","y"]"#, "[]"]);
        assert_eq!(values.clone().pluck_as::<Option<bool>>("more").collect().await.unwrap(), [None, None]);
        let first = values.clone().pluck("tags").pluck_or(0, json!("none"));
        assert_eq!(first.map(show()).collect().await.unwrap(), [r#""x""#, r#""none""#]);
        let both = values.clone().pluck(["n", "name"]).map(show());
        assert_eq!(both.collect().await.unwrap(), [r#"[1,"a"]"#, r#"[2.5,"b"]"#]);

        let error = values.clone().pluck("more").map(show()).collect().await.unwrap_err();
        assert!(error.reason().contains(r#""name":"a""#), "{error}");
        assert!(error.reason().contains(r#"has no "more": use pluck_or"#), "{error}");
        let error = values.clone().pluck_as::<u64>("n").collect().await.unwrap_err();
        assert!(error.reason().starts_with(r#""n" of {"#), "{error}");
        let error = values.pluck("name").collect().await.unwrap_err();
        assert!(error.to_string().contains("cannot travel between tasks"), "{error}");

        let lines = lines_in(&cluster, &LINES, partitions);
        let values = lines.try_map(task!(|line: &str| serde_json::from_str::<Json>(line)));
        let names = values.clone().pluck("name").collect().await.unwrap();
        assert_eq!(names, [Json(json!("a")), Json(json!("b"))]);
        let kept = values.persist().await.unwrap().pluck_or("more", json!(7)).pluck_as::<Option<u8>>("x");
        assert_eq!(kept.collect().await.unwrap(), [None, None]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reduction_meets_in_a_tree_in_order() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        for every in [None, Some(0), Some(3)] {
            let bag = every.map_or(bag.clone(), |every| bag.clone().split_every(every));
            let texts = task!(|items: &[u64]| items.iter().map(|n| format!("{n} ")).collect::<String>());
            let text = bag.reduction(texts, task!(|texts: Vec<String>| texts.concat())).await.unwrap();
            assert_eq!(text, items.iter().map(|n| format!("{n} ")).collect::<String>());
        }
    }
    // Both closures are called even for nothing.
    let none = bag(&cluster, &[], 1);
    let count = task!(|items: &[u64]| items.len() + 1);
    let counted = none.reduction(count, task!(|all: &[usize]| all.len() * 10));
    assert_eq!(counted.await.unwrap(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_summed_up_as_a_plain_loop_would() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        assert_eq!(bag.sum().await.unwrap(), items.iter().sum::<u64>());
        assert_eq!(bag.min().await.unwrap(), items.iter().copied().min());
        assert_eq!(bag.max().await.unwrap(), items.iter().copied().max());
        let texts = bag.clone().map(task!(|n: u64| n.to_string()));
        assert_eq!(texts.max().await.unwrap(), items.iter().map(u64::to_string).max());
        let mean = (!items.is_empty()).then(|| items.iter().sum::<u64>() as f64 / items.len() as f64);
        assert_eq!(bag.mean().await.unwrap(), mean);
        for ddof in [0, 1, 100] {
            let squares: f64 = items.iter().map(|n| (*n as f64 - mean.unwrap()).powi(2)).sum();
            let expected = (items.len() > ddof).then(|| squares / (items.len() - ddof) as f64);
            let found = bag.var(ddof as u64).await.unwrap();
            assert_eq!(found.is_some(), expected.is_some());
            assert!((found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-9, "{found:?} is not {expected:?}");
            assert_eq!(bag.std(ddof as u64).await.unwrap(), found.map(f64::sqrt));
        }
        let even = bag.map(task!(|n: u64| n.is_multiple_of(2)));
        assert_eq!(even.any().await.unwrap(), items.iter().any(|n| n % 2 == 0));
        assert_eq!(even.all().await.unwrap(), items.iter().all(|n| n % 2 == 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_exact_or_an_error() {
    let cluster = cluster().await;
    let large = Bag::from_sequence(&cluster, vec![i64::MAX, 1, -5, 4], 4).unwrap();
    assert_eq!(large.sum().await.unwrap(), i64::MAX);
    let error = bag(&cluster, &[u64::MAX, 1], 2).sum().await.unwrap_err();
    assert!(error.to_string().starts_with("the sum is beyond u64"), "{error}");
    assert_eq!(bag(&cluster, &[u64::MAX, u64::MAX], 2).mean().await.unwrap(), Some(u64::MAX as f64));
    // What a plain sum loses.
    for partitions in [1, 2, 4] {
        let floats = Bag::from_sequence(&cluster, vec![1e16, 1.0, 1.0, -1e16], partitions).unwrap();
        assert_eq!(floats.sum().await.unwrap(), 2.0);
        let infinite = Bag::from_sequence(&cluster, vec![1.0, f64::INFINITY, 2.0], partitions).unwrap();
        assert_eq!(infinite.sum().await.unwrap(), f64::INFINITY);
        let far = Bag::from_sequence(&cluster, vec![1e9_f64, 1e9 + 1.0, 1e9 + 2.0], partitions).unwrap();
        assert!((far.var(1).await.unwrap().unwrap() - 1.0).abs() < 1e-9);
        let undefined = Bag::from_sequence(&cluster, vec![1.0_f32, f32::NAN, 2.0], partitions).unwrap();
        assert!(undefined.min().await.unwrap().unwrap().is_nan());
        assert!(undefined.max().await.unwrap().unwrap().is_nan());
        let zeros = Bag::from_sequence(&cluster, vec![0.0_f64, -0.0], partitions).unwrap();
        assert!(zeros.min().await.unwrap().unwrap().is_sign_negative());
        assert!(zeros.max().await.unwrap().unwrap().is_sign_positive());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_sample_depends_on_the_seed_only() {
    let (one, many) = (Cluster::local(1).await.unwrap(), Cluster::local(3).await.unwrap());
    let items: Vec<u64> = (0..4000).collect();
    let sampled = |cluster: &Cluster, seed| bag(cluster, &items, 8).random_sample(0.25, seed);
    let sample = sampled(&one, 7).collect().await.unwrap();
    assert!((800..1200).contains(&sample.len()), "{} of 4000", sample.len());
    assert_eq!(sampled(&many, 7).collect().await.unwrap(), sample);
    assert_ne!(sampled(&many, 8).collect().await.unwrap(), sample);
    assert!(sample.is_sorted());
    // Partitions do not resemble each other.
    let places = |partition: u64| sample.iter().filter(move |n| **n / 500 == partition).map(|n| n % 500);
    assert_ne!(places(0).collect::<Vec<_>>(), places(1).collect::<Vec<_>>());
    // However it is computed, it is the same.
    assert_eq!(sampled(&one, 7).take(150).await.unwrap(), sample[..150]);
    assert_eq!(sampled(&one, 7).count().await.unwrap(), sample.len() as u64);
    let tail = bag(&one, &[9, 9, 9], 3).chain(sampled(&one, 7));
    assert_eq!(tail.collect().await.unwrap()[3..], sample);
    // Behind a chain, a bag that comes twice is sampled twice.
    let twice = bag(&one, &items, 4).chain(bag(&one, &items, 4)).random_sample(0.5, 1).collect().await.unwrap();
    let half = twice.iter().position(|n| *n > 2000).unwrap();
    let second = twice.windows(2).position(|pair| pair[0] > pair[1]).unwrap() + 1;
    assert_ne!(twice[..half], twice[second..][..half]);
    for (items, bag) in shapes(&one) {
        assert_eq!(bag.clone().random_sample(1.0, 1).collect().await.unwrap(), items);
        assert_eq!(bag.clone().random_sample(0.0, 1).count().await.unwrap(), 0);
        assert_eq!(bag.random_sample(1.0, 1).random_sample(1.0, 1).max().await.unwrap(), items.into_iter().max());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_chosen_by_their_places_whatever_the_partitions() {
    let cluster = cluster().await;
    let all: Vec<u64> = (0..100).collect();
    let mut before = None;
    for partitions in [1, 7, 20] {
        let bag = bag(&cluster, &all, partitions).map(task!(|n: u64| n * 2));
        let chosen = bag.choices(300, 5).await.unwrap();
        assert!(chosen.iter().all(|n| n % 2 == 0 && *n < 200));
        assert!(chosen.iter().collect::<BTreeSet<_>>().len() > 60, "300 of 100 come near to all");
        let sampled = bag.sample(40, 5).await.unwrap();
        assert_eq!(sampled.iter().collect::<BTreeSet<_>>().len(), 40);
        assert!(!sampled.is_sorted());
        assert_eq!(*before.get_or_insert((chosen.clone(), sampled.clone())), (chosen.clone(), sampled));
        assert_ne!(bag.choices(300, 6).await.unwrap(), chosen);
        let mut whole = bag.clone().distinct().chain(bag.clone()).sample(200, 1).await.unwrap();
        whole.sort_unstable();
        assert_eq!(whole, (0..200).map(|n| n / 2 * 2).collect::<Vec<u64>>());
        assert_eq!(bag.sample(0, 1).await.unwrap(), [0_u64; 0]);
        let error = bag.sample(101, 1).await.unwrap_err();
        assert!(matches!(error, BagError::TooFew { wanted: 101, total: 100 }), "{error}");
    }
    let none = bag(&cluster, &[], 1);
    assert!(matches!(none.choices(1, 1).await, Err(BagError::TooFew { wanted: 1, total: 0 })));
    assert_eq!(none.choices(0, 1).await.unwrap(), [0_u64; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_differ_each_time_are_not_chosen_from() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let cluster = cluster().await;
    let unsteady = bag(&cluster, &[1, 2, 3, 4], 1).filter(task!(|_n: &u64| CALLS.fetch_add(1, Ordering::Relaxed) < 4));
    let error = unsteady.sample(4, 1).await.unwrap_err();
    assert!(matches!(error, BagError::Unsteady), "{error}");
}
