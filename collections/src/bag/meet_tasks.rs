//! The tasks in which partitions meet without a closure. None of them knows a type: an item is its encoding, a pair's is its
//! parts' one after the other, and a list's is its length and then its elements'.

use std::sync::Arc;

use starling_core::failure::FailureCause;
use starling_macros::task;
use starling_runtime::parts::Parts;
use starling_runtime::task::items::{BlockBuilder, Bucket, Buckets, ItemBlock, KeyTable, encode_to};
use starling_runtime::task::{Call, Entries, Future, IntoArg, Linked, TaskDef, inventory};
use starling_runtime::value::{Encoded, Value};

use super::plan::{End, Program};
use super::run::SharedProgram;
use super::stage::{ended, entries, feed_inputs, fold_fns, unable};

/// Joins part `part` of the lists of outputs that are split by key.
pub(crate) fn join_call(left: Vec<Future<Buckets>>, right: Vec<Future<Buckets>>, part: u32, of: u32) -> Call<Buckets> {
    let call = Call::new(&JOIN).arg::<Vec<Arc<Buckets>>>(left).arg::<Vec<Arc<Buckets>>>(right);
    call.arg::<u32>(part).part(part as usize, of as usize, 0)
}

/// Brings the items of each key together, of part `part` of outputs that are split by key.
pub(crate) fn gather_call(outputs: Vec<Future<Buckets>>, part: u32, of: u32) -> Call<Buckets> {
    let call = Call::new(&GATHER).arg::<Vec<Arc<Buckets>>>(outputs);
    call.arg::<u32>(part).part(part as usize, of as usize, 0)
}

/// Pairs the items at the same places. `number` is the partition's, for the error.
pub(crate) fn zip_call(left: Future<Buckets>, right: Future<Buckets>, number: u64) -> Call<Buckets> {
    Call::new(&ZIP).arg::<Buckets>(left).arg::<Buckets>(right).arg::<u64>(number)
}

/// Pairs each item of one with each of the other.
pub(crate) fn product_call(left: Future<Buckets>, right: Future<Buckets>) -> Call<Buckets> {
    Call::new(&PRODUCT).arg::<Buckets>(left).arg::<Buckets>(right)
}

/// Splits items, in their order, into so many buckets of about the same number.
pub(crate) fn cut_call(items: Future<Buckets>, pieces: u64) -> Call<Buckets> {
    Call::new(&CUT).arg::<Buckets>(items).arg::<u64>(pieces)
}

/// The states of a running fold over a partition, and the last of them, which `carry` has of the partition before.
pub(crate) fn accumulate_call(
    program: &SharedProgram,
    items: Future<Buckets>,
    carry: Option<Future<Buckets>>,
) -> Call<Buckets> {
    let inputs: Vec<_> = std::iter::once(items).chain(carry).collect();
    Call::new(&ACCUMULATE).arg::<Program>(program).arg::<Vec<Arc<Buckets>>>(inputs)
}

/// A partition's items as one list, which is a `Vec<T>` whatever the items' type.
pub(crate) fn list_call<T>(items: impl IntoArg<Buckets>) -> Call<Vec<T>> {
    Call::new(&LIST).arg::<Buckets>(items)
}

/// One bucket of a split output, so that its reader need not fetch the others.
#[task(crate = starling_runtime, json = false)]
pub(crate) fn pick(buckets: &Buckets, number: u32) -> Buckets {
    Buckets(buckets.0.get(number as usize).cloned().into_iter().collect())
}

/// The items without their keys.
#[task(crate = starling_runtime, json = false)]
pub(crate) fn unkeyed(buckets: &Buckets) -> Buckets {
    Buckets(buckets.0.iter().map(|bucket| Bucket { keys: None, items: bucket.items.clone() }).collect())
}

/// How many items there are, and how many bytes they have.
#[task(crate = starling_runtime, json = false)]
pub(crate) fn size(buckets: &Buckets) -> (u64, u64) {
    let keys = |bucket: &Bucket| bucket.keys.as_ref().map_or(0, ItemBlock::nbytes);
    (count(buckets), buckets.0.iter().map(|bucket| bucket.items.nbytes() + keys(bucket)).sum())
}

// These fail with causes of their own, which the attribute cannot say.
static JOIN: TaskDef = TaskDef {
    name: concat!(module_path!(), "::join"),
    signature: "(Vec<Parts>,Vec<Parts>,u32) -> Buckets",
    version: 1,
    json: None,
    entries: || entries(|args| join(&args.list_shared(0)?, &args.list_shared(1)?, args.owned(2)?)),
};

static GATHER: TaskDef = TaskDef {
    name: concat!(module_path!(), "::gather"),
    signature: "(Vec<Parts>,u32) -> Buckets",
    version: 0,
    json: None,
    entries: || entries(|args| gather(&args.list_shared(0)?, args.owned(1)?)),
};

static ZIP: TaskDef = TaskDef {
    name: concat!(module_path!(), "::zip"),
    signature: "(Buckets,Buckets,u64) -> Buckets",
    version: 0,
    json: None,
    entries: || entries(|args| zip(&*args.shared::<Buckets>(0)?, &*args.shared::<Buckets>(1)?, args.owned(2)?)),
};

static PRODUCT: TaskDef = TaskDef {
    name: concat!(module_path!(), "::product"),
    signature: "(Buckets,Buckets) -> Buckets",
    version: 0,
    json: None,
    entries: || entries(|args| product(&*args.shared::<Buckets>(0)?, &*args.shared::<Buckets>(1)?)),
};

static CUT: TaskDef = TaskDef {
    name: concat!(module_path!(), "::cut"),
    signature: "(Buckets,u64) -> Buckets",
    version: 0,
    json: None,
    entries: || entries(|args| cut(&*args.shared::<Buckets>(0)?, args.owned(1)?)),
};

static ACCUMULATE: TaskDef = TaskDef {
    name: concat!(module_path!(), "::accumulate"),
    signature: "(Program,Vec<Buckets>) -> Buckets",
    version: 0,
    json: None,
    entries: || entries(|args| accumulate(&*args.shared::<Program>(0)?, &args.list_shared(1)?)),
};

static LIST: TaskDef = TaskDef {
    name: concat!(module_path!(), "::list"),
    signature: "(Buckets) -> Vec<T>",
    version: 0,
    json: None,
    entries: || Entries { call: Arc::new(|args| list(&*args.shared::<Buckets>(0)?)), items: None },
};

inventory::submit! { Linked(&JOIN) }
inventory::submit! { Linked(&GATHER) }
inventory::submit! { Linked(&ZIP) }
inventory::submit! { Linked(&PRODUCT) }
inventory::submit! { Linked(&CUT) }
inventory::submit! { Linked(&ACCUMULATE) }
inventory::submit! { Linked(&LIST) }

/// An item's encoding in two halves.
type Halves<'a> = (&'a [u8], &'a [u8]);

/// The encoding of each item in two halves: a key and what is kept for it, or an item and nothing.
fn halves(buckets: &Buckets) -> Result<impl Iterator<Item = Halves<'_>>, FailureCause> {
    let mut all: Vec<Box<dyn Iterator<Item = Halves<'_>> + '_>> = Vec::new();
    for bucket in &buckets.0 {
        match bucket.keys {
            Some(_) => all.push(Box::new(bucket.pairs()?)),
            None => all.push(Box::new(bucket.items.items()?.map(|item| (item, [].as_slice())))),
        }
    }
    Ok(all.into_iter().flatten())
}

fn count(buckets: &Buckets) -> u64 {
    buckets.0.iter().map(Bucket::count).sum()
}

/// This part of each of the outputs.
fn parts_of(outputs: &[Arc<Parts>], part: u32) -> Result<Vec<Arc<Buckets>>, FailureCause> {
    let missing = || FailureCause::Codec { message: format!("part {part} of an output is missing") };
    let part_of = |output: &Arc<Parts>| {
        let part = output.get::<Buckets>(part as usize);
        part.map_err(|error| FailureCause::Codec { message: error.to_string() })?.ok_or_else(missing)
    };
    outputs.iter().map(part_of).collect()
}

/// Each left item with each right item of the same key, in the left items' order.
fn join(left: &[Arc<Parts>], right: &[Arc<Parts>], part: u32) -> Result<Buckets, FailureCause> {
    let (left, right) = (parts_of(left, part)?, parts_of(right, part)?);
    let mut by_key: KeyTable<Vec<&[u8]>> = KeyTable::default();
    for bucket in right.iter().flat_map(|buckets| &buckets.0) {
        for (key, item) in bucket.pairs()? {
            by_key.get_or_insert_with(key, Vec::new)?.push(item);
        }
    }
    let mut pairs = BlockBuilder::default();
    for bucket in left.iter().flat_map(|buckets| &buckets.0) {
        for (key, item) in bucket.pairs()? {
            for other in by_key.get(key).into_iter().flatten() {
                pairs.push_pair(item, other)?;
            }
        }
    }
    Ok(Buckets::one(pairs.finish()))
}

/// Each key with the list of its items, in the order in which they come.
fn gather(outputs: &[Arc<Parts>], part: u32) -> Result<Buckets, FailureCause> {
    let outputs = parts_of(outputs, part)?;
    let mut by_key: KeyTable<Vec<&[u8]>> = KeyTable::default();
    for bucket in outputs.iter().flat_map(|buckets| &buckets.0) {
        for (key, item) in bucket.pairs()? {
            by_key.get_or_insert_with(key, Vec::new)?.push(item);
        }
    }
    by_key.into_buckets(1, |items, lists| {
        let mut list = Vec::new();
        encode_to(&items.len(), &mut list)?;
        items.iter().for_each(|item| list.extend_from_slice(item));
        lists.push(&list)
    })
}

/// The first item of each key, bucket by bucket.
pub(super) fn firsts(outputs: &[Arc<Buckets>]) -> Result<Buckets, FailureCause> {
    let count = outputs.iter().map(|buckets| buckets.0.len()).max().unwrap_or(0);
    let first = |number: usize| {
        let mut by_key: KeyTable<&[u8]> = KeyTable::default();
        for bucket in outputs.iter().filter_map(|buckets| buckets.0.get(number)) {
            for (key, item) in bucket.pairs()? {
                by_key.get_or_insert_with(key, || item)?;
            }
        }
        by_key.into_buckets(1, |item, items| items.push(item))
    };
    let buckets = (0..count).map(first).collect::<Result<Vec<Buckets>, _>>()?;
    Ok(Buckets(buckets.into_iter().flat_map(|buckets| buckets.0).collect()))
}

fn zip(left: &Buckets, right: &Buckets, number: u64) -> Result<Buckets, FailureCause> {
    let (here, there) = (count(left), count(right));
    if here != there {
        return Err(FailureCause::Error {
            message: format!(
                "bags of different shape cannot be zipped: partition {number} has {here} items on the left and {there} on the \
                 right; zip before what filters, or bring both into one partition by repartition(1)"
            ),
            sources: Vec::new(),
        });
    }
    let mut pairs = BlockBuilder::default();
    for (left, right) in halves(left)?.zip(halves(right)?) {
        pairs.push_parts(&[left.0, left.1, right.0, right.1])?;
    }
    Ok(Buckets::one(pairs.finish()))
}

fn product(left: &Buckets, right: &Buckets) -> Result<Buckets, FailureCause> {
    let right: Vec<_> = halves(right)?.collect();
    let mut pairs = BlockBuilder::default();
    for left in halves(left)? {
        for right in &right {
            pairs.push_parts(&[left.0, left.1, right.0, right.1])?;
        }
    }
    Ok(Buckets::one(pairs.finish()))
}

fn cut(items: &Buckets, pieces: u64) -> Result<Buckets, FailureCause> {
    let (total, pieces) = (count(items), pieces.max(1));
    let mut items = halves(items)?;
    let mut buckets = Vec::new();
    let mut taken = 0;
    for piece in 1..=pieces {
        let end = (u128::from(total) * u128::from(piece) / u128::from(pieces)) as u64;
        let mut block = BlockBuilder::default();
        for (key, item) in items.by_ref().take((end - taken) as usize) {
            block.push_pair(key, item)?;
        }
        taken = end;
        buckets.push(Bucket { keys: None, items: block.finish() });
    }
    Ok(Buckets(buckets))
}

/// The first input is the items, the second, if there is one, the last state before them, if there is one.
fn accumulate(program: &Program, inputs: &[Arc<Buckets>]) -> Result<Buckets, FailureCause> {
    let End::Scan { op, initial } = &program.end else { return Err(unable("keep the states of a fold")) };
    let (items, carry) = inputs.split_at(inputs.len().min(1));
    let mut carried = None;
    for buckets in carry {
        carried = halves(buckets)?.last().map(|(state, _)| state);
    }
    let zero = if carry.is_empty() { initial.as_deref() } else { carried };
    let sink = (fold_fns(op)?.scan)(&op.captures, zero, carry.is_empty())?;
    let mut sink = op.resolve()?.takes.ok_or_else(|| unable("take items"))?.decode(sink)?;
    ended(feed_inputs(&mut *sink, items))?;
    sink.finish()
}

fn list(items: &Buckets) -> Result<Value, FailureCause> {
    let mut head = Vec::new();
    encode_to(&count(items), &mut head)?;
    for (key, item) in halves(items)? {
        head.extend_from_slice(key);
        head.extend_from_slice(item);
    }
    Ok(Value::Encoded(Encoded { head: head.into(), buffers: Vec::new() }))
}
