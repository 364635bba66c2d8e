//! Steps that take a tuple apart, that see a partition as a whole, that take lists apart, and gates.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{feed, run, strings};
use super::*;
use crate as starling_runtime;

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

fn collect() -> Box<dyn RawSink> {
    Box::new(Collect::new(u64::MAX))
}

fn items_of<T: Data>(buckets: &Buckets) -> Vec<T> {
    buckets.0[0].items.decode().unwrap()
}

#[test]
fn a_closure_of_several_parameters_takes_them_from_a_tuple() {
    let scale =
        task!([by: i64 = 10] |n: i64, name: &str| -> String { format!("{name}{}", n * by) }).reference().unwrap();
    let pairs = ItemBlock::of([(1_i64, "a"), (2, "b")]).unwrap();
    let out = run(&[(&scale, |fns| fns.starmap.as_ref())], collect(), &pairs);
    assert_eq!(items_of::<String>(&out), ["a10", "b20"]);

    let sum = task!(|a: u8, b: &u16, c: Vec<u8>, d: &[u8], e: u64| u64::from(a)
        + u64::from(*b)
        + (c.len() + d.len()) as u64
        + e);
    let sum = sum.reference().unwrap();
    let item = ItemBlock::of([(1_u8, 2_u16, vec![0_u8; 3], vec![0_u8; 4], 5_u64)]).unwrap();
    assert_eq!(items_of::<u64>(&run(&[(&sum, |fns| fns.starmap.as_ref())], collect(), &item)), [15]);

    // A closure of two parameters is a fold too, whose items are not tuples.
    let add = task!(|a: u64, b: u64| a + b).reference().unwrap();
    assert!(add.resolve().unwrap().fold.is_some());
    let pair = ItemBlock::of([(3_u64, 4_u64)]).unwrap();
    assert_eq!(items_of::<u64>(&run(&[(&add, |fns| fns.starmap.as_ref())], collect(), &pair)), [7]);
}

#[test]
fn a_filter_and_its_negation_part_the_items() {
    let long = task!(|word: &str| word.len() > 1).reference().unwrap();
    let items = strings(&["a", "bb", "c"]);
    assert_eq!(items_of::<String>(&run(&[(&long, |fns| fns.filter.as_ref())], collect(), &items)), ["bb"]);
    assert_eq!(items_of::<String>(&run(&[(&long, |fns| fns.remove.as_ref())], collect(), &items)), ["a", "c"]);
}

#[test]
fn a_whole_partition_is_one_list_and_an_empty_one_too() {
    let reversed = task!(|words: Vec<String>| words.into_iter().rev().collect::<Vec<_>>()).reference().unwrap();
    let count = task!(|words: &[String]| -> u64 { words.len() as u64 }).reference().unwrap();
    for (items, expected) in [(strings(&["a", "b"]), vec!["b", "a"]), (strings(&[]), vec![])] {
        let out = run(&[(&reversed, |fns| fns.partitions.as_ref())], collect(), &items);
        assert_eq!(items_of::<String>(&out), expected);
        let both: [tests::StepOf<'_>; 2] =
            [(&reversed, |fns| fns.partitions.as_ref()), (&count, |fns| fns.reduce.as_ref())];
        assert_eq!(items_of::<u64>(&run(&both, collect(), &items)), [expected.len() as u64]);
        // Whoever has enough stops a partition that comes as a whole, too.
        let first = run(&both[..1], Box::new(Collect::new(1)), &items);
        assert_eq!(items_of::<String>(&first), expected[..expected.len().min(1)]);
    }
    assert!(count.resolve().unwrap().partitions.is_none(), "a number is no list of items");
}

fn elements_of<T: Data>(value: T) -> Result<Buckets, String> {
    let mut sink: Box<dyn Sink<T>> = ItemType::of::<T>().elements(collect()).typed().unwrap();
    match sink.push(value) {
        Ok(()) => Ok(sink.finish().unwrap()),
        Err(Stop::Failed(cause)) => Err(cause.to_string()),
        Err(stop) => panic!("{stop:?}"),
    }
}

#[test]
fn lists_of_all_kinds_are_taken_apart_without_the_type_of_their_elements() {
    assert_eq!(items_of::<String>(&elements_of(vec!["a".to_owned(), String::new()]).unwrap()), ["a", ""]);
    assert_eq!(items_of::<u64>(&elements_of(Vec::<u64>::new()).unwrap()), [0_u64; 0]);
    assert_eq!(items_of::<u32>(&elements_of([7_u32, 8]).unwrap()), [7, 8]);
    assert_eq!(items_of::<i8>(&elements_of(BTreeSet::from([3_i8, -3])).unwrap()), [-3, 3]);
    assert_eq!(items_of::<i8>(&elements_of(Some(3_i8)).unwrap()), [3]);
    assert_eq!(items_of::<i8>(&elements_of(None::<i8>).unwrap()), [0_i8; 0]);
    let map = BTreeMap::from([(1_u8, "x".to_owned()), (2, "y".to_owned())]);
    assert_eq!(items_of::<(u8, String)>(&elements_of(map).unwrap()), [(1, "x".to_owned()), (2, "y".to_owned())]);
}

#[test]
fn what_is_no_list_says_so() {
    let error = elements_of(0_u64..3).unwrap_err();
    assert!(error.contains("Range<u64> cannot be flattened"), "{error}");
    assert!(error.ends_with("use flat_map with a closure that takes it apart"), "{error}");
    assert!(elements_of("text".to_owned()).is_err());
}

#[test]
fn a_scan_keeps_each_state_and_tells_the_last() {
    let add = task!(|sum: u64, n: u64| sum + n).reference().unwrap();
    let fns = add.resolve().unwrap();
    let scan = |zero: Option<u64>, keeps_zero, items: &[u64]| {
        let zero = zero.map(|zero| postcard::to_stdvec(&zero).unwrap());
        let sink = (fns.fold.as_ref().unwrap().scan)(&add.captures, zero.as_deref(), keeps_zero).unwrap();
        let out = feed(fns.takes.unwrap().decode(sink).unwrap(), &ItemBlock::of(items).unwrap());
        (items_of::<u64>(&out), out.0[1].items.decode::<u64>().unwrap())
    };
    assert_eq!(scan(None, true, &[1, 2, 3]), (vec![1, 3, 6], vec![6]));
    assert_eq!(scan(Some(10), true, &[1, 2]), (vec![10, 11, 13], vec![13]));
    assert_eq!(scan(Some(10), false, &[1, 2]), (vec![11, 13], vec![13]));
    assert_eq!(scan(Some(10), false, &[]), (vec![], vec![10]));
    assert_eq!(scan(None, false, &[]), (vec![], vec![]));
}

#[test]
fn a_gate_is_asked_for_each_item_in_order() {
    let even = || {
        let mut number = 0;
        Box::new(move || {
            number += 1;
            number % 2 == 0
        })
    };
    let text = ItemType::of::<String>();
    let gated = text.gate(text.encode(collect()), even()).unwrap();
    let out = feed(text.decode(gated).unwrap(), &strings(&["a", "b", "c", "d", "e"]));
    assert_eq!(items_of::<String>(&out), ["b", "d"]);
}
