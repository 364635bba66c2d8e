//! Chains of sinks built by hand from erased functions, as a collection's task builds them.

use std::collections::HashMap;

use crate as starling_runtime;
use crate::task::{TaskArgs, Tasks};

use super::*;

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

/// A closure, and which step it is.
pub(super) type StepOf<'a> = (&'a FnRef, fn(&ItemFns) -> Option<&Through>);

/// Feeds encoded items to the chain that `functions` form before `end`.
pub(super) fn run(functions: &[StepOf<'_>], end: Box<dyn RawSink>, items: &ItemBlock) -> Buckets {
    let mut raw = Some(end);
    let mut typed: Option<(AnySink, ItemType)> = None;
    for (function, step) in functions.iter().rev() {
        let fns = function.resolve().unwrap();
        let through = step(fns).expect("the function has this step");
        let next = typed.take().map_or_else(|| through.gives.encode(raw.take().unwrap()), |(sink, _)| sink);
        typed = Some(((through.open)(&function.captures, next).unwrap(), through.takes));
    }
    let head = match typed {
        Some((typed, items)) => items.decode(typed).unwrap(),
        None => raw.unwrap(),
    };
    feed(head, items)
}

pub(super) fn feed(mut sink: Box<dyn RawSink>, items: &ItemBlock) -> Buckets {
    for item in items.items().unwrap() {
        match sink.push_encoded(item) {
            Ok(()) => {}
            Err(Stop::Enough) => break,
            Err(stop) => panic!("{stop:?}"),
        }
    }
    sink.finish().unwrap()
}

pub(super) fn strings(items: &[&str]) -> ItemBlock {
    ItemBlock::of(items.iter().copied()).unwrap()
}

#[test]
fn steps_chain_through_live_items_and_end_encoded() {
    let least = 2_usize;
    let long = task!([least: usize] |word: &str| word.len() > least);
    let count = task!(|word: String| -> u64 { word.len() as u64 });
    let twice = task!([times: usize = 2] |n: u64| vec![n; times]);
    let functions = [long.reference().unwrap(), count.reference().unwrap(), twice.reference().unwrap()];
    let out = run(
        &[
            (&functions[0], |fns| fns.filter.as_ref()),
            (&functions[1], |fns| fns.map.as_ref()),
            (&functions[2], |fns| fns.flat_map.as_ref()),
        ],
        Box::new(Collect::new(u64::MAX)),
        &strings(&["a", "four", "to", "seven77"]),
    );
    assert_eq!(out.0[0].items.decode::<u64>().unwrap(), [4, 4, 7, 7]);
}

#[test]
fn counting_needs_no_type_and_taking_stops_early() {
    let items = strings(&["a", "b", "c"]);
    assert_eq!(run(&[], Box::<Count>::default(), &items).0[0].items.decode::<u64>().unwrap(), [3]);
    let two = run(&[], Box::new(Collect::new(2)), &items);
    assert_eq!(two.0[0].items.decode::<String>().unwrap(), ["a", "b"]);
}

#[test]
fn an_error_of_try_map_fails_the_task_with_its_text() {
    let parse = task!(|word: String| word.parse::<u32>()).reference().unwrap();
    let through = parse.resolve().unwrap().try_map.as_ref().unwrap();
    let typed = (through.open)(&parse.captures, through.gives.encode(Box::<Count>::default())).unwrap();
    let mut head = parse.resolve().unwrap().takes.unwrap().decode(typed).unwrap();
    head.push_line("12").unwrap();
    let Err(Stop::Failed(cause)) = head.push_line("x") else { panic!("x is no number") };
    assert_eq!(cause.to_string(), "failed: invalid digit found in string");
    assert!(parse.resolve().unwrap().map.is_none(), "a ParseIntError cannot be an item");
}

#[test]
fn topk_keeps_the_largest_first_and_of_equals_the_earliest() {
    let by_len = task!(|word: &str| word.len()).reference().unwrap();
    let fns = by_len.resolve().unwrap();
    let sink = fns.topk.as_ref().unwrap()(&by_len.captures, 3).unwrap();
    let out = feed(fns.takes.unwrap().decode(sink).unwrap(), &strings(&["aa", "bbb", "c", "ddd", "ee", "ffff"]));
    assert_eq!(out.0[0].items.decode::<String>().unwrap(), ["ffff", "bbb", "ddd"]);
}

#[test]
fn folds_by_key_meet_again_in_a_merge() {
    let key = task!(|word: &str| word.len()).reference().unwrap();
    let add = task!(|sum: u64, word: &str| sum + word.len() as u64).reference().unwrap();
    let combine = task!(|a: u64, b: u64| a + b).reference().unwrap();
    let part = |words: &[&str]| {
        let extract = (key.resolve().unwrap().key.as_ref().unwrap().extract)(&key.captures).unwrap();
        let fold = add.resolve().unwrap().fold.as_ref().unwrap();
        let zero = postcard::to_stdvec(&100_u64).unwrap();
        let sink = (fold.fold_by)(&add.captures, extract, Some(&zero), 2).unwrap();
        feed(add.resolve().unwrap().takes.unwrap().decode(sink).unwrap(), &strings(words))
    };
    let parts = [part(&["a", "bb", "c"]), part(&["dd", "ee", "fff"])];
    let mut all = HashMap::new();
    for bucket in 0..2 {
        let mut merge = (combine.resolve().unwrap().fold.as_ref().unwrap().merge)(&combine.captures, 1).unwrap();
        for part in &parts {
            for (key, value) in part.0[bucket].pairs().unwrap() {
                merge.push_pair(key, value).unwrap();
            }
        }
        for (key, value) in merge.finish().unwrap().0[0].pairs().unwrap() {
            all.insert(decode::<usize>(key).unwrap(), decode::<u64>(value).unwrap());
        }
    }
    assert_eq!(all, HashMap::from([(1, 102), (2, 206), (3, 103)]));
}

#[test]
fn a_fold_without_items_keeps_its_zero_and_combining_starts_with_the_first() {
    let concat = task!(|all: String, one: String| all + &one).reference().unwrap();
    let fold = concat.resolve().unwrap().fold.as_ref().unwrap();
    let takes = concat.resolve().unwrap().takes.unwrap();
    let zero = postcard::to_stdvec("0").unwrap();
    let none = feed(takes.decode((fold.fold)(&concat.captures, Some(&zero)).unwrap()).unwrap(), &strings(&[]));
    assert_eq!(none.0[0].items.decode::<String>().unwrap(), ["0"]);
    let combined =
        feed(takes.decode((fold.fold)(&concat.captures, None).unwrap()).unwrap(), &strings(&["a", "b", "c"]));
    assert_eq!(combined.0[0].items.decode::<String>().unwrap(), ["abc"]);
}

#[test]
fn frequencies_add_up_and_keep_the_order_of_first_sight() {
    let mut sink = Box::new(Frequencies::new(1, true));
    for item in strings(&["b", "a", "b"]).items().unwrap() {
        sink.push_encoded(item).unwrap();
    }
    sink.push_line("a").unwrap();
    let buckets = RawSink::finish(sink).unwrap();
    let pairs: Vec<(String, u64)> =
        buckets.0[0].pairs().unwrap().map(|(key, value)| (decode(key).unwrap(), decode(value).unwrap())).collect();
    assert_eq!(pairs, [("b".to_owned(), 2), ("a".to_owned(), 2)]);
}

#[test]
fn a_row_is_given_its_type_by_its_column_names_and_a_bad_field_is_named() {
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Post {
        #[serde(rename = "Score")]
        score: i64,
        #[serde(rename = "Owner")]
        owner: Option<u32>,
    }
    let show = task!(|post: Post| format!("{} {:?}", post.score, post.owner)).reference().unwrap();
    let through = show.resolve().unwrap().map.as_ref().unwrap();
    let typed = (through.open)(&show.captures, through.gives.encode(Box::new(Collect::new(9)))).unwrap();
    let mut head = show.resolve().unwrap().takes.unwrap().decode(typed).unwrap();
    let header = csv::ByteRecord::from(vec!["Owner", "Score"]);
    head.push_row(&Row { header: &header, record: &csv::ByteRecord::from(vec!["", "-3"]), offset: 0 }).unwrap();
    let bad = csv::ByteRecord::from(vec!["7", "x"]);
    let Err(Stop::Unfit(text)) = head.push_row(&Row { header: &header, record: &bad, offset: 0 }) else {
        panic!("x is no score")
    };
    assert_eq!(&*text, "column Score: invalid digit found in string");
    assert_eq!(head.finish().unwrap().0[0].items.decode::<String>().unwrap(), ["-3 None"]);
}

#[test]
fn a_handle_makes_plain_calls_with_its_captures() {
    let add = task!([by: i64 = 40] |n: i64, words: &[String]| -> i64 { n + by + words.len() as i64 });
    let parts = add.call(1, vec![String::new()]).into_parts().unwrap();
    let mut args = TaskArgs::new(&parts.payload, Vec::new()).unwrap();
    let task = Tasks::linked().get(parts.def.kind()).unwrap();
    assert_eq!(*(task.entries.call)(&mut args).unwrap().get::<i64>().unwrap(), 42);
}

#[test]
fn a_plain_call_of_a_closure_that_returns_an_error_fails() {
    let parse = task!(|text: &str| text.parse::<u8>());
    let run = |text: &str| {
        let call: crate::task::Call<u8> = parse.call(text.to_owned());
        let parts = call.into_parts().unwrap();
        let mut args = TaskArgs::new(&parts.payload, Vec::new()).unwrap();
        (Tasks::linked().get(parts.def.kind()).unwrap().entries.call)(&mut args)
    };
    assert_eq!(*run("7").unwrap().get::<u8>().unwrap(), 7);
    assert_eq!(run("300").unwrap_err().to_string(), "failed: number too large to fit in target type");
}

#[test]
#[should_panic(expected = "returns i32 but is used as if it returned u64")]
fn a_result_type_that_depends_on_its_surroundings_is_refused() {
    let _: TaskFn<(u8,), u64> = task!(|_n: u8| 1);
}

#[test]
fn a_key_hash_stays_as_it_is() {
    // Nodes of one cluster must agree on it.
    assert_eq!([key_hash(b""), key_hash(b"a longer key")], [14_328_560_919_865_584_875, 5_997_894_562_776_135_926]);
    let spread: std::collections::BTreeSet<usize> = (0..1000_u32).map(|n| bucket_of(&n.to_le_bytes(), 16)).collect();
    assert_eq!(spread.len(), 16);
}

#[test]
fn the_keys_of_one_bucket_still_differ_where_a_table_tells_them_apart() {
    // Tables place keys by the lowest bits of their hashes.
    let keys = (0..16_384_u32).map(u32::to_le_bytes).filter(|key| bucket_of(key, 16) == 3);
    let places: std::collections::BTreeSet<u64> = keys.map(|key| key_hash(&key) & 127).collect();
    assert_eq!(places.len(), 128);
}

#[test]
fn keys_of_every_length_are_found_again_and_no_two_are_taken_for_one() {
    let text = "abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz";
    let mut table: KeyTable<usize> = KeyTable::default();
    // Prefixes, also with zeros behind them: what a padded word could mix up.
    let mut keys: Vec<Vec<u8>> = (0..text.len()).map(|len| text.as_bytes()[..len].to_vec()).collect();
    keys.extend((1..40).map(|len| vec![0; len]));
    keys.extend((0..2_000_u64).map(|n| n.to_be_bytes().repeat(1 + n as usize % 3)));
    let distinct: std::collections::BTreeSet<&Vec<u8>> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len() - 1, "eight zeros come twice");
    for key in &keys {
        *table.get_or_insert_with(key, || 0).unwrap() += 1;
    }
    assert_eq!(table.len(), distinct.len());
    assert!(keys.iter().all(|key| table.get(key).is_some()));
    assert_eq!(table.get(b"abd"), None);
    let first: Vec<&[u8]> = table.iter().map(|(key, _)| key).take(3).collect();
    assert_eq!(first, [&b""[..], b"a", b"ab"]);
}

#[test]
fn a_text_is_the_same_key_as_its_encoding() {
    let mut counts = Counts::default();
    let texts: Vec<String> = (0..300).map(|len| "x".repeat(len)).collect();
    texts.iter().for_each(|text| counts.add_text(text, 1).unwrap());
    for text in &texts {
        counts.add(&postcard::to_stdvec(text).unwrap(), 1).unwrap();
    }
    let table = counts.finish().unwrap();
    let kept: Vec<(String, u64)> = table.iter().map(|(key, value)| (decode(key).unwrap(), *value)).collect();
    assert_eq!(kept, texts.into_iter().map(|text| (text, 2)).collect::<Vec<_>>());
}

#[test]
fn counts_of_many_keys_add_up_in_the_order_of_first_sight_however_they_wait() {
    let words: Vec<String> =
        (0..10_000_u64).map(|n| format!("w{}", n * n % 1_009).repeat(1 + n as usize % 4)).collect();
    let (mut counts, mut order, mut expected) = (Counts::default(), Vec::new(), HashMap::new());
    for word in &words {
        counts.add_text(word, 2).unwrap();
        *expected.entry(word.clone()).or_insert_with(|| {
            order.push(word.clone());
            0_u64
        }) += 2;
    }
    let table = counts.finish().unwrap();
    let found: Vec<(String, u64)> = table.iter().map(|(key, count)| (decode(key).unwrap(), *count)).collect();
    assert_eq!(found, order.into_iter().map(|word| (word.clone(), expected[&word])).collect::<Vec<_>>());
}

#[test]
fn nothing_counted_is_an_empty_output() {
    assert!(Counts::default().finish().unwrap().is_empty());
    assert_eq!(RawSink::finish(Box::new(Frequencies::new(2, true))).unwrap().0.len(), 2);
}

#[test]
fn a_short_key_has_the_hash_of_its_bytes() {
    let bytes: Vec<u8> = (1..=40).collect();
    for len in 0..=40 {
        let mut table: KeyTable<()> = KeyTable::default();
        table.get_or_insert_with(&bytes[..len], || ()).unwrap();
        let buckets = table.into_buckets(1 << 10, |(), items| items.push(b"")).unwrap();
        let bucket = buckets.0.iter().position(|bucket| bucket.count() == 1);
        assert_eq!(bucket, Some(bucket_of(&bytes[..len], 1 << 10)), "of {len} bytes");
    }
}

#[test]
fn what_a_closure_lends_of_a_text_reaches_the_next_step_and_the_counts() {
    let stop = "b".to_owned();
    let trimmed = task!(|line: &str| -> &str { line.trim() }).reference().unwrap();
    let words = task!([stop: String] |line: &str| -> impl Iterator<Item = &str> {
        line.split(' ').filter(move |word| *word != stop)
    });
    let words = words.reference().unwrap();
    let not_empty = task!(|word: &str| !word.is_empty()).reference().unwrap();
    let through = |step: &FnRef, of: fn(&ItemFns) -> Option<&Through>, next: AnySink| {
        (of(step.resolve().unwrap()).expect("the function has this step").open)(&step.captures, next).unwrap()
    };
    let chain = |end: Box<dyn RawSink>| {
        let end = not_empty.resolve().unwrap().filter.as_ref().unwrap().gives.encode(end);
        let filter = through(&not_empty, |fns| fns.filter.as_ref(), end);
        let words = through(&words, |fns| fns.flat_map.as_ref(), filter);
        let trimmed_first = through(&trimmed, |fns| fns.map.as_ref(), words);
        trimmed.resolve().unwrap().takes.unwrap().decode(trimmed_first).unwrap()
    };
    let mut collected = chain(Box::new(Collect::new(9)));
    collected.push_line(" a  b c ").unwrap();
    collected.push_encoded(&postcard::to_stdvec("d b a").unwrap()).unwrap();
    assert_eq!(collected.finish().unwrap().0[0].items.decode::<String>().unwrap(), ["a", "c", "d", "a"]);
    let mut counted = chain(Box::new(Frequencies::new(1, true)));
    counted.push_line("a b a c").unwrap();
    let pairs = counted.finish().unwrap();
    let pairs: Vec<(String, u64)> =
        pairs.0[0].pairs().unwrap().map(|(key, value)| (decode(key).unwrap(), decode(value).unwrap())).collect();
    assert_eq!(pairs, [("a".to_owned(), 2), ("c".to_owned(), 1)]);
}

#[test]
fn a_lent_key_groups_as_an_owned_one_and_what_is_no_text_is_cloned() {
    type Pair = (String, Vec<u32>);
    let lent = task!(|pair: &Pair| -> &str { &pair.0 }).reference().unwrap();
    let owned = task!(|pair: &Pair| pair.0.clone()).reference().unwrap();
    let pair: Pair = ("a".into(), vec![3, 4]);
    let key = |function: &FnRef| {
        let mut bytes = Vec::new();
        let extract = &function.resolve().unwrap().key.as_ref().unwrap().extract;
        extract(&function.captures).unwrap().typed::<Pair>().unwrap()(&pair, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(key(&lent), key(&owned));
    let numbers = task!(|pair: &Pair| -> impl Iterator<Item = &u32> { pair.1.iter() }).reference().unwrap();
    let out = run(
        &[(&numbers, |fns| fns.flat_map.as_ref())],
        Box::new(Collect::new(9)),
        &ItemBlock::of([pair.clone(), pair.clone()]).unwrap(),
    );
    assert_eq!(out.0[0].items.decode::<u32>().unwrap(), [3, 4, 3, 4]);
}

#[test]
fn a_closure_that_lends_a_part_is_a_task_of_its_own_too() {
    let trim = task!(|line: &str| -> &str { line.trim() });
    let parts = trim.call(" a ".to_owned()).into_parts().unwrap();
    let mut args = TaskArgs::new(&parts.payload, Vec::new()).unwrap();
    let task = Tasks::linked().get(parts.def.kind()).unwrap();
    assert_eq!(*(task.entries.call)(&mut args).unwrap().get::<String>().unwrap(), "a");
}

#[test]
fn a_text_for_a_step_that_takes_none_is_an_error() {
    let next = task!(|n: &u64| n + 1).reference().unwrap();
    let through = next.resolve().unwrap().map.as_ref().unwrap();
    let typed = (through.open)(&next.captures, through.gives.encode(Box::<Count>::default())).unwrap();
    let mut head = next.resolve().unwrap().takes.unwrap().decode(typed).unwrap();
    let Err(Stop::Failed(cause)) = head.push_line("1") else { panic!("a line is no number") };
    assert!(cause.to_string().contains("a step gives alloc::string::String, but the next one takes u64"), "{cause}");
}

#[test]
fn a_type_that_describes_itself_cannot_travel_and_the_error_says_what_to_do() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(untagged)]
    enum Either {
        #[expect(dead_code)]
        Number(u32),
    }
    let error = decode::<Either>(&[1]).unwrap_err().to_string();
    assert!(error.contains("Either cannot travel between tasks"), "{error}");
    assert!(error.ends_with("map it to a struct in the same stage"), "{error}");
}

/// Where the capabilities' traits are not imported, as in a user's module.
mod elsewhere {
    use crate as starling_runtime;
    use crate::task::{TaskArgs, Tasks};

    #[test]
    fn a_closure_may_call_methods_that_have_the_names_of_capabilities() {
        // In the closure `map`, `filter` and `key` are the item's, whatever `task!` itself has in scope.
        let next = starling_macros::task_closure!(crate = starling_runtime, |o: &Option<i64>| o
            .map(|n| n + 1)
            .filter(|n| *n > 1));
        let parts = next.call(Some(1)).into_parts().unwrap();
        let mut args = TaskArgs::new(&parts.payload, Vec::new()).unwrap();
        let task = Tasks::linked().get(parts.def.kind()).unwrap();
        assert_eq!(*(task.entries.call)(&mut args).unwrap().get::<Option<i64>>().unwrap(), Some(2));
    }
}

#[test]
fn a_damaged_block_is_an_error() {
    let block = strings(&["abc"]);
    let mut encoded = crate::value::Encoded::of(&block).unwrap();
    encoded.buffers[1] = bytes::Bytes::from_static(b"ab");
    let damaged: ItemBlock = encoded.decode().unwrap();
    assert_eq!(
        damaged.items().err().unwrap().to_string(),
        "could not be encoded or decoded: a block of 1 items is damaged"
    );
}
