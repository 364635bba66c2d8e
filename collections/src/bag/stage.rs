//! The tasks that bags are made of. None of them knows a type: they find closures by id and chain their sinks.

use std::sync::Arc;

use csv::ByteRecord;
use starling_core::failure::FailureCause;
use starling_macros::task;
use starling_runtime::task::items::{
    AnySink, BlockBuilder, Bucket, Buckets, Collect, Count, FnRef, Frequencies, ItemFns, KeyTable, PairSink, RawSink,
    Row, Stop, Through,
};
use starling_runtime::task::{Call, Entries, Future, IntoArg, Linked, TaskArgs, TaskDef, inventory};
use starling_runtime::value::Value;

use super::plan::{CsvRange, End, MergeSpec, Program, StageSource, Step};
use super::render::render_sink;
use crate::csv::{Columns, CsvError, FileStamp, fault, first_fault, open_records};

/// Runs a program over one partition. `inputs` are its items if the source says so.
pub(crate) fn stage_call(
    source: StageSource,
    program: impl IntoArg<Program>,
    inputs: impl IntoArg<Vec<Arc<Buckets>>>,
) -> Call<Buckets> {
    Call::new(&STAGE).arg::<StageSource>(source).arg::<Program>(program).arg::<Vec<Arc<Buckets>>>(inputs)
}

/// Merges keyed outputs.
pub(crate) fn merge_call(spec: MergeSpec, inputs: Vec<Future<Buckets>>) -> Call<Buckets> {
    Call::new(&MERGE).arg::<MergeSpec>(spec).arg::<Vec<Arc<Buckets>>>(inputs)
}

/// Joins two lists of keyed outputs by key.
pub(crate) fn join_call(left: Vec<Future<Buckets>>, right: Vec<Future<Buckets>>) -> Call<Buckets> {
    Call::new(&JOIN).arg::<Vec<Arc<Buckets>>>(left).arg::<Vec<Arc<Buckets>>>(right)
}

// These three fail with causes of their own, which the attribute cannot say.
static STAGE: TaskDef = TaskDef {
    name: concat!(module_path!(), "::stage"),
    signature: "(StageSource,Program,Vec<Buckets>) -> Buckets",
    version: 0,
    json: None,
    entries: || {
        entries(|args| stage(&*args.shared::<StageSource>(0)?, &*args.shared::<Program>(1)?, &args.list_shared(2)?))
    },
};

static MERGE: TaskDef = TaskDef {
    name: concat!(module_path!(), "::merge"),
    signature: "(MergeSpec,Vec<Buckets>) -> Buckets",
    version: 0,
    json: None,
    entries: || entries(|args| merge(&*args.shared::<MergeSpec>(0)?, &args.list_shared(1)?)),
};

static JOIN: TaskDef = TaskDef {
    name: concat!(module_path!(), "::join"),
    signature: "(Vec<Buckets>,Vec<Buckets>) -> Buckets",
    version: 0,
    json: None,
    entries: || entries(|args| join(&args.list_shared(0)?, &args.list_shared(1)?)),
};

inventory::submit! { Linked(&STAGE) }
inventory::submit! { Linked(&MERGE) }
inventory::submit! { Linked(&JOIN) }

fn entries(run: fn(&mut TaskArgs) -> Result<Buckets, FailureCause>) -> Entries {
    Entries { call: Arc::new(move |args| run(args).map(Value::live)), items: None }
}

/// One bucket of a split output, so that its reader need not fetch the others.
#[task(crate = starling_runtime, json = false)]
pub(crate) fn pick(buckets: &Buckets, number: u32) -> Buckets {
    Buckets(buckets.0.get(number as usize).cloned().into_iter().collect())
}

/// A program with large captures, so that a worker gets it once and not with each of its stage's tasks.
#[task(crate = starling_runtime, json = false)]
pub(crate) fn program(program: Program) -> Program {
    program
}

fn stage(source: &StageSource, program: &Program, inputs: &[Arc<Buckets>]) -> Result<Buckets, FailureCause> {
    let mut sink = chain(&program.steps, &program.end)?;
    match source {
        StageSource::Inputs => ended(feed_inputs(&mut *sink, inputs))?,
        StageSource::Csv(range) => feed_csv(&mut *sink, range)?,
        StageSource::Files(range) => range.feed(&mut *sink)?,
    }
    sink.finish()
}

/// A sink under construction: what comes next takes encoded items, or items of a type.
enum Next {
    Raw(Box<dyn RawSink>),
    Typed(AnySink),
}

/// The whole chain, from its end to its start, as a sink of what the source gives.
fn chain(steps: &[Step], end: &End) -> Result<Box<dyn RawSink>, FailureCause> {
    let (mut next, mut head) = end_sink(end)?;
    for step in steps.iter().rev() {
        let (function, through) = through(step)?;
        let typed = match next {
            Next::Raw(raw) => (through.encode)(raw),
            Next::Typed(typed) => typed,
        };
        next = Next::Typed((through.open)(&function.captures, typed)?);
        head = Some(function.resolve()?);
    }
    match (next, head) {
        (Next::Raw(raw), _) => Ok(raw),
        (Next::Typed(typed), Some(ItemFns { decode: Some(decode), .. })) => decode(typed),
        (Next::Typed(_), _) => Err(unable("take items")),
    }
}

/// The last sink, and the function whose items it takes, if it has one.
fn end_sink(end: &End) -> Result<(Next, Option<&'static ItemFns>), FailureCause> {
    let raw = |sink: Box<dyn RawSink>| Ok((Next::Raw(sink), None));
    match end {
        End::Count => raw(Box::<Count>::default()),
        End::Collect { limit } => raw(Box::new(Collect::new(*limit))),
        End::Frequencies { buckets, counted } => raw(Box::new(Frequencies::new(*buckets, *counted))),
        End::Render(rendering) => raw(render_sink(rendering)?),
        End::Fold { op, zero } => {
            let fns = op.resolve()?;
            let fold = fns.fold.as_ref().ok_or_else(|| unable("fold"))?;
            Ok((Next::Typed((fold.fold)(&op.captures, zero.as_deref())?), Some(fns)))
        }
        End::FoldBy { key, zero, op, buckets } => {
            let fns = op.resolve()?;
            let fold = fns.fold.as_ref().ok_or_else(|| unable("fold"))?;
            let key = (key_fns(key)?.extract)(&key.captures)?;
            Ok((Next::Typed((fold.fold_by)(&op.captures, key, Some(zero), *buckets)?), Some(fns)))
        }
        End::Partition { key, buckets } => {
            Ok((Next::Typed((key_fns(key)?.partition)(&key.captures, *buckets)?), Some(key.resolve()?)))
        }
        End::TopK { key, limit } => {
            let fns = key.resolve()?;
            let topk = fns.topk.as_ref().ok_or_else(|| unable("order items"))?;
            Ok((Next::Typed(topk(&key.captures, *limit)?), Some(fns)))
        }
    }
}

fn key_fns(key: &FnRef) -> Result<&'static starling_runtime::task::items::KeyFns, FailureCause> {
    key.resolve()?.key.as_ref().ok_or_else(|| unable("give keys"))
}

fn through(step: &Step) -> Result<(&FnRef, &'static Through), FailureCause> {
    let (function, through) = match step {
        Step::Map(function) => (function, function.resolve()?.map.as_ref()),
        Step::Filter(function) => (function, function.resolve()?.filter.as_ref()),
        Step::FlatMap(function) => (function, function.resolve()?.flat_map.as_ref()),
        Step::TryMap(function) => (function, function.resolve()?.try_map.as_ref()),
    };
    Ok((function, through.ok_or_else(|| unable("do this step"))?))
}

/// The collection's types rule this out; a plan of another origin need not obey them.
fn unable(what: &str) -> FailureCause {
    FailureCause::Codec { message: format!("a closure of the plan cannot {what}") }
}

/// A stop for having enough is a good end.
fn ended(outcome: Result<(), Stop>) -> Result<(), FailureCause> {
    match outcome {
        Ok(()) | Err(Stop::Enough) => Ok(()),
        Err(Stop::Unfit(message)) => Err(FailureCause::Codec { message: message.into() }),
        Err(Stop::Failed(cause)) => Err(*cause),
    }
}

fn feed_inputs(sink: &mut dyn RawSink, inputs: &[Arc<Buckets>]) -> Result<(), Stop> {
    let mut scratch = Vec::new();
    for bucket in inputs.iter().flat_map(|buckets| &buckets.0) {
        if bucket.keys.is_none() {
            bucket.items.items()?.try_for_each(|item| sink.push_encoded(item))?;
            continue;
        }
        for (key, item) in bucket.pairs()? {
            scratch.clear();
            scratch.extend_from_slice(key);
            scratch.extend_from_slice(item);
            sink.push_encoded(&scratch)?;
        }
    }
    Ok(())
}

fn feed_csv(sink: &mut dyn RawSink, source: &CsvRange) -> Result<(), FailureCause> {
    let CsvRange { file, range, total, numbers, names } = source;
    let columns = Columns::some(*total as usize, numbers);
    let header = ByteRecord::from(names.as_slice());
    let mut records = open_records(file, range.start, range.end, Some(columns)).map_err(csv_cause)?;
    let nothing = ByteRecord::new();
    loop {
        match records.advance() {
            Ok(true) => {}
            Ok(false) => break,
            Err(malformed) => {
                return Err(first_cause(file, *total, malformed.offset, || fault(file, malformed)));
            }
        }
        let offset = records.record_offset();
        let record = if numbers.is_empty() { &nothing } else { records.fields() };
        match sink.push_row(&Row { header: &header, record, offset }) {
            Ok(()) => {}
            Err(Stop::Unfit(message)) => {
                return Err(first_cause(file, *total, offset, || CsvError::Row {
                    path: file.path.clone(),
                    line: file.line_at(offset),
                    message: message.into(),
                }));
            }
            stop => return ended(stop),
        }
    }
    // What was read is the file's content only if nothing wrote to it meanwhile.
    file.open(0, 0).map(drop).map_err(csv_cause)
}

/// Why the record at `offset` is not taken: an earlier fault of its file, if there is one, or what `own` says.
fn first_cause(file: &FileStamp, total: u32, offset: u64, own: impl FnOnce() -> CsvError) -> FailureCause {
    csv_cause(first_fault(file, total, offset).err().unwrap_or_else(own))
}

fn csv_cause(error: CsvError) -> FailureCause {
    let source = std::error::Error::source(&error).map(ToString::to_string);
    FailureCause::Error { message: error.to_string(), sources: source.into_iter().collect() }
}

fn merge(spec: &MergeSpec, inputs: &[Arc<Buckets>]) -> Result<Buckets, FailureCause> {
    let mut sink: Box<dyn PairSink> = match spec {
        MergeSpec::Frequencies { counted } => Box::new(Frequencies::new(1, *counted)),
        MergeSpec::FoldBy { combine } => {
            let fold = combine.resolve()?.fold.as_ref().ok_or_else(|| unable("combine"))?;
            (fold.merge)(&combine.captures, 1)?
        }
    };
    for bucket in inputs.iter().flat_map(|buckets| &buckets.0) {
        ended(bucket.pairs()?.try_for_each(|(key, item)| sink.push_pair(key, item)))?;
    }
    sink.finish()
}

/// Each left item with each right item of the same key, in the left items' order. Needs no types: a pair's encoding is
/// its parts' one after the other.
fn join(left: &[Arc<Buckets>], right: &[Arc<Buckets>]) -> Result<Buckets, FailureCause> {
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
    Ok(Buckets(vec![Bucket { keys: None, items: pairs.finish() }]))
}
