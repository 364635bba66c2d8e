//! Bags and partitions that meet, against what plain iterators give.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use starling_actors::{Cluster, LocalOptions};
use starling_runtime::store::MemoryConfig;
use starling_runtime::value::Buffer;

use super::operation_tests::{bag, cluster, shapes};
use super::{Bag, BagError};

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

#[tokio::test(flavor = "multi_thread")]
async fn zipped_bags_pair_items_at_the_same_places() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        let squares = bag.clone().map(task!(|n: u64| n * n));
        let pairs = bag.zip(squares.map(task!(|n: u64| n.to_string())));
        let expected: Vec<(u64, String)> = items.iter().map(|n| (*n, (n * n).to_string())).collect();
        assert_eq!(pairs.take(2).await.unwrap(), expected[..expected.len().min(2)]);
        assert_eq!(pairs.starmap(task!(|n: u64, text: String| (n, text))).collect().await.unwrap(), expected);
    }
    // Groupings keep keys beside items; a pair of them has both.
    let words = bag(&cluster, &[1, 1, 2], 2).frequencies();
    let pairs = words.clone().zip(words).collect().await.unwrap();
    assert_eq!(pairs, [((1, 2), (1, 2)), ((2, 1), (2, 1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bags_that_do_not_fit_are_not_zipped_and_the_error_says_what_to_do() {
    let cluster = cluster().await;
    let (two, three) = (bag(&cluster, &[1, 2, 3], 2), bag(&cluster, &[1, 2, 3], 3));
    let error = two.clone().zip(three.clone()).count().await.unwrap_err();
    assert!(matches!(error, BagError::Unaligned { left: 2, right: 3 }), "{error}");
    assert!(error.to_string().contains("repartition(1)"), "{error}");
    let fewer = two.clone().filter(task!(|n: &u64| *n != 3));
    let error = two.clone().zip(fewer.clone()).count().await.unwrap_err();
    assert!(error.reason().contains("partition 1 has 1 items on the left and 0 on the right"), "{error}");
    let whole = two.repartition(1).zip(three.repartition(1));
    assert_eq!(whole.collect().await.unwrap(), [(1, 1), (2, 2), (3, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_pairs_each_with_each() {
    let cluster = cluster().await;
    for (left, bag_of_left) in shapes(&cluster) {
        for right in [vec![], vec!["a".to_owned(), "bb".to_owned(), "c".to_owned()]] {
            let other = Bag::from_sequence(&cluster, right.clone(), 2).unwrap();
            let pairs = bag_of_left.clone().product(other);
            let mut found = pairs.collect().await.unwrap();
            assert_eq!(pairs.take(1).await.unwrap(), found[..found.len().min(1)]);
            found.sort();
            let expected: Vec<_> = left.iter().flat_map(|n| right.iter().map(|text| (*n, text.clone()))).collect();
            assert_eq!(found, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bags_follow_one_another() {
    let cluster = cluster().await;
    assert_eq!(Bag::<u64>::concat(&cluster, []).collect().await.unwrap(), [0_u64; 0]);
    let (expected, bags): (Vec<_>, Vec<_>) = shapes(&cluster).into_iter().unzip();
    let all = Bag::concat(&cluster, bags.clone());
    let expected: Vec<u64> = expected.into_iter().flatten().collect();
    assert_eq!(all.collect().await.unwrap(), expected);
    assert_eq!(all.count().await.unwrap(), expected.len() as u64);
    assert_eq!(all.take(70).await.unwrap(), expected[..70]);
    // A grouping among them, and steps behind, which belong to all.
    let twice = bags[1].clone().distinct().repartition(1).chain(all.clone()).map(task!(|n: u64| n + 1));
    let mut found = twice.collect().await.unwrap();
    found.sort_unstable();
    let mut expected: Vec<u64> = expected.into_iter().chain(0..60).map(|n| n + 1).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let sum = twice.sum().await.unwrap();
    assert_eq!(sum, expected.iter().sum::<u64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_items_of_each_key_come_together_in_order() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        items.iter().for_each(|n| expected.entry((n % 7).to_string()).or_default().push(*n));
        for parts in [None, Some(1), Some(5)] {
            let bag = parts.map_or(bag.clone(), |parts| bag.clone().parts(parts));
            let groups = bag.groupby(task!(|n: &u64| (n % 7).to_string()));
            let found = groups.collect().await.unwrap();
            assert_eq!(found.len(), expected.len(), "a key is in one partition only");
            assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), expected);
            // The lists are lists on the workers, too.
            let sizes = groups.starmap(task!(|key: String, group: &[u64]| (key, group.len() as u64)));
            let sizes: u64 = sizes.map(task!(|pair: (String, u64)| pair.1)).sum().await.unwrap();
            assert_eq!(sizes, items.len() as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_each_key_the_first_item_is_kept() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
        items.iter().for_each(|n| {
            expected.entry(n / 2 % 7).or_insert(*n);
        });
        for parts in [1, 5] {
            let first = bag.clone().parts(parts).distinct_by(task!(|n: &u64| n / 2 % 7));
            assert_eq!(first.count().await.unwrap(), expected.len() as u64);
            let mut found = first.map(task!(|n: u64| (n / 2 % 7, n))).collect().await.unwrap();
            found.sort_unstable();
            assert_eq!(found, expected.clone().into_iter().collect::<Vec<_>>());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_counted_on_the_workers() {
    let cluster = cluster().await;
    for (start, end, partitions) in [(0, 0, 3), (5, 6, 3), (10, 30, 0), (10, 30, 7), (10, 30, 1000), (7, 3, 2)] {
        let bag = Bag::range(&cluster, start..end, partitions);
        let expected: Vec<u64> = (start..end).collect();
        assert_eq!(bag.collect().await.unwrap(), expected);
        assert_eq!(bag.npartitions().await.unwrap(), partitions.max(1).min(expected.len()));
        assert_eq!(bag.take(3).await.unwrap(), expected[..expected.len().min(3)]);
        assert_eq!(bag.sum().await.unwrap(), expected.iter().sum::<u64>());
    }
    assert_eq!(Bag::range(&cluster, u64::MAX - 4..u64::MAX, 3).max().await.unwrap(), Some(u64::MAX - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_brought_together_and_cut() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        for partitions in [1, 11, 50] {
            let other = bag.clone().repartition(partitions);
            assert_eq!(other.npartitions().await.unwrap(), partitions);
            let lengths = other.clone().map_partitions(task!(|items: &[u64]| [items.len()])).collect().await.unwrap();
            assert_eq!((lengths.len(), lengths.iter().sum()), (partitions, items.len()));
            assert_eq!(other.take(30).await.unwrap(), items[..items.len().min(30)]);
            assert_eq!(other.map(task!(|n: u64| n)).collect().await.unwrap(), items);
        }
        for nbytes in [1, 40, 1 << 20] {
            let other = bag.clone().repartition_by_size(nbytes);
            assert_eq!(other.collect().await.unwrap(), items);
            assert_eq!(other.take(2).await.unwrap(), items[..items.len().min(2)]);
        }
    }
    let all: Vec<u64> = (0..60).collect();
    // A number below 128 has a byte, and a length of four.
    assert_eq!(bag(&cluster, &all, 30).repartition_by_size(100).npartitions().await.unwrap(), 3);
    assert_eq!(bag(&cluster, &all, 1).repartition_by_size(100).npartitions().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_fold_goes_from_partition_to_partition() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        let running = |mut state: u64, items: &[u64]| -> Vec<u64> {
            items
                .iter()
                .map(|n| {
                    state = state * 3 % 1000 + n;
                    state
                })
                .collect()
        };
        let op = task!(|state: u64, n: u64| state * 3 % 1000 + n);
        let expected = match items.split_first() {
            None => Vec::new(),
            Some((first, rest)) => std::iter::once(*first).chain(running(*first, rest)).collect(),
        };
        let states = bag.clone().accumulate(op);
        assert_eq!(states.collect().await.unwrap(), expected);
        assert_eq!(states.take(4).await.unwrap(), expected[..expected.len().min(4)]);

        let texts = bag.accumulate_from("0".to_owned(), task!(|state: String, n: &u64| format!("{}{n}", state.len())));
        let mut state = "0".to_owned();
        let expected = items.iter().map(|n| {
            state = format!("{}{n}", state.len());
            state.clone()
        });
        let expected: Vec<String> = std::iter::once("0".to_owned()).chain(expected).collect();
        assert_eq!(texts.collect().await.unwrap(), expected);
        assert_eq!(texts.count().await.unwrap(), expected.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_futures_become_one_another() {
    let cluster = cluster().await;
    for (items, bag) in shapes(&cluster) {
        let futures = bag.map(task!(|n: u64| (n, Buffer::from(vec![n as u8; 3])))).to_futures().await.unwrap();
        let mut found = Vec::new();
        for partition in &futures {
            found.extend(partition.result().await.unwrap());
        }
        let expected: Vec<_> = items.iter().map(|n| (*n, Buffer::from(vec![*n as u8; 3]))).collect();
        assert_eq!(found, expected);
        // A task of one's own in between.
        let odd =
            task!(|items: Vec<(u64, Buffer)>| items.into_iter().filter(|item| item.0 % 2 == 1).collect::<Vec<_>>());
        let odd = cluster.map(futures.into_iter().map(|partition| odd.call(partition)));
        let back = Bag::from_futures(&cluster, &odd, task!(|items: Vec<(u64, Buffer)>| items));
        assert_eq!(back.npartitions().await.unwrap(), odd.len());
        let expected: Vec<_> = expected.into_iter().filter(|item| item.0 % 2 == 1).collect();
        assert_eq!(back.collect().await.unwrap(), expected);
        assert_eq!(back.map(task!(|item: (u64, Buffer)| item.0)).count().await.unwrap(), expected.len() as u64);
    }
    let scattered = cluster.scatter(vec![3_u8, 4]).await.unwrap();
    let bag = Bag::from_futures(&cluster, &[scattered], task!(|items: &[u8]| items.to_vec()));
    assert_eq!(bag.collect().await.unwrap(), [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_have_no_type_yet_are_sampled_but_do_not_meet() {
    let cluster = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let rows: String = (0..50).map(|n| format!("{n},row {n}\n")).collect();
    std::fs::write(&path, format!("id,text\n{rows}")).unwrap();
    let rows = Bag::<(u32, String)>::read_csv(&cluster, path.to_str().unwrap(), crate::csv::CsvOptions::default());
    let sampled = rows.clone().random_sample(0.5, 3).collect().await.unwrap();
    assert!((10..40).contains(&sampled.len()));
    let chosen = rows.sample(3, 1).await.unwrap();
    assert!(chosen.iter().all(|(id, text)| *text == format!("row {id}")));
    for untyped in [rows.clone().zip(rows.clone()).count().await, rows.clone().product(rows.clone()).count().await] {
        assert!(matches!(untyped, Err(BagError::Untyped)), "{untyped:?}");
    }
    assert!(matches!(rows.clone().chain(rows.clone()).collect().await, Err(BagError::Untyped)));
    assert!(matches!(rows.clone().repartition(2).count().await, Err(BagError::Untyped)));
    assert_eq!(rows.clone().chain(rows.clone()).count().await.unwrap(), 100);
    let groups = rows
        .groupby(task!(|row: &(u32, String)| row.0 % 2))
        .map(task!(|group: (u32, Vec<(u32, String)>)| group.1.len()));
    assert_eq!(groups.collect().await.unwrap(), [25, 25]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_cannot_be_encoded_is_told_whatever_the_bag_is_part_of() {
    #[derive(Clone, serde::Deserialize)]
    struct Stubborn;
    impl serde::Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let cluster = cluster().await;
    let fine = bag(&cluster, &[1], 1);
    let wrong = fine.clone().map(task!([stubborn: Stubborn = Stubborn] |n: u64| {
        let _ = &stubborn;
        n
    }));
    let met = [
        fine.clone().chain(wrong.clone()),
        wrong.clone().chain(fine.clone()),
        Bag::concat(&cluster, [fine.clone(), wrong.clone()]),
        fine.clone().zip(wrong.clone()).map(task!(|pair: (u64, u64)| pair.0)),
        wrong.repartition(2),
    ];
    for bag in met {
        assert!(matches!(bag.count().await, Err(BagError::Codec(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grouping_of_more_than_memory_holds_goes_over_the_disk() {
    const LIMIT: u64 = 4 << 20;
    const ITEMS: u64 = 1536;
    let folder = tempfile::tempdir().unwrap();
    let memory = MemoryConfig { spill_directory: Some(folder.path().to_owned()), ..MemoryConfig::limited(LIMIT) };
    let cluster = Cluster::local_with(LocalOptions { memory, nthreads: 1, ..LocalOptions::new(2) }).await.unwrap();
    // 24 MiB in all: three times what both workers may hold.
    let numbers: Vec<u64> = (0..ITEMS).collect();
    let large = bag(&cluster, &numbers, 48).map(task!(|n: u64| (n, Buffer::from(vec![n as u8; 16 << 10]))));
    let groups = large.groupby(task!(|item: &(u64, Buffer)| item.0 % 96)).persist().await.unwrap();
    assert_eq!(groups.npartitions().await.unwrap(), 48);
    let sums = groups.starmap(task!(|key: u64, items: Vec<(u64, Buffer)>| {
        let is_whole =
            items.iter().all(|(n, bytes)| bytes.len() == 16 << 10 && bytes.iter().all(|byte| *byte == *n as u8));
        (key, items.len() as u64, is_whole)
    }));
    let mut found = sums.collect().await.unwrap();
    found.sort_unstable();
    assert_eq!(found, (0..96).map(|key| (key, ITEMS / 96, true)).collect::<Vec<_>>());
    let held = || cluster.nodes().iter().map(|node| (node.store().nbytes(), node.store().spilled_bytes()));
    let (memory, spilled) = held().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert!(memory <= 2 * LIMIT && spilled >= (16 << 20), "{memory} in memory, {spilled} on disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grouping_survives_the_loss_of_a_worker() {
    static OPEN: AtomicBool = AtomicBool::new(false);
    let cluster = Cluster::local_with(LocalOptions { nthreads: 1, ..LocalOptions::new(2) }).await.unwrap();
    let numbers: Vec<u64> = (0..40_000).collect();
    let slow = bag(&cluster, &numbers, 4).map(task!(|n: u64| {
        let deadline = Instant::now() + Duration::from_secs(30);
        // The last partition waits, so that others lie split on both workers when one is lost.
        while n >= 30_000 && !OPEN.load(Ordering::Acquire) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        n
    }));
    let lossy = cluster.clone();
    let lost = AtomicBool::new(false);
    let slow = slow.on_progress(move |done, _| {
        if done >= 2 && !lost.swap(true, Ordering::Relaxed) {
            let cluster = lossy.clone();
            tokio::spawn(async move {
                cluster.nodes()[2].mesh().shutdown().await;
                OPEN.store(true, Ordering::Release);
            });
        }
    });
    let groups = slow.groupby(task!(|n: &u64| n % 10)).collect().await.unwrap();
    let found: BTreeMap<u64, Vec<u64>> = groups.into_iter().collect();
    let expected: BTreeMap<u64, Vec<u64>> = (0..10).map(|key| (key, (key..40_000).step_by(10).collect())).collect();
    assert!(OPEN.load(Ordering::Acquire), "no worker was lost");
    assert_eq!(found, expected);
}
