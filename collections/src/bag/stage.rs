//! The tasks that bags are made of. None of them knows a type: they find closures by id and chain their sinks.

use std::ops::Range;
use std::sync::Arc;

use csv::ByteRecord;
use starling_core::failure::FailureCause;
use starling_macros::task;
use starling_runtime::parts::Parts;
use starling_runtime::task::items::{
    AnySink, Buckets, Collect, Count, FnRef, FoldFns, Frequencies, Gate, ItemType, KeyFns, PairSink, RawSink, Row,
    Stop, Through, encode_to,
};
use starling_runtime::task::{Call, Entries, Future, IntoArg, Linked, TaskArgs, TaskDef, inventory};
use starling_runtime::value::Value;

use super::meet_tasks::firsts;
use super::places::{Gated, Places};
use super::plan::{CsvRange, End, MergeSpec, Program, Share, StageSource, Step};
use super::render::render_sink;
use super::summary::summary_sink;
use crate::csv::{Columns, CsvError, FileStamp, fault, first_fault, open_records};

/// Runs a program over one partition. `inputs` are its items if the source says so. The output of a program that splits
/// items by key is `Parts` of `Buckets`, for tasks that take one part each.
pub(crate) fn stage_call(
    share: impl Into<Share>,
    program: impl IntoArg<Program>,
    inputs: impl IntoArg<Vec<Arc<Buckets>>>,
) -> Call<Buckets> {
    Call::new(&STAGE).arg::<Share>(share.into()).arg::<Program>(program).arg::<Vec<Arc<Buckets>>>(inputs)
}

/// Runs a program over a value, which is its one item.
pub(crate) fn value_call(share: Share, program: impl IntoArg<Program>, value: Future<Value>) -> Call<Buckets> {
    Call::new(&VALUE).arg::<Share>(share).arg::<Program>(program).arg::<Value>(value)
}

/// Merges keyed outputs.
pub(crate) fn merge_call(spec: MergeSpec, inputs: Vec<Future<Buckets>>) -> Call<Buckets> {
    Call::new(&MERGE).arg::<MergeSpec>(spec).arg::<Vec<Arc<Buckets>>>(inputs)
}

// These fail with causes of their own, which the attribute cannot say.
static STAGE: TaskDef = TaskDef {
    name: concat!(module_path!(), "::stage"),
    signature: "(Share,Program,Vec<Buckets>) -> Buckets",
    version: 1,
    json: None,
    entries: || {
        value_entries(|args| {
            let (share, program) = (args.shared::<Share>(0)?, args.shared::<Program>(1)?);
            let inputs = args.list_shared(2)?;
            output(&program, |sink| feed(sink, &share.source, &inputs), &share)
        })
    },
};

static VALUE: TaskDef = TaskDef {
    name: concat!(module_path!(), "::value"),
    signature: "(Share,Program,Value) -> Buckets",
    version: 0,
    json: None,
    entries: || {
        value_entries(|args| {
            let (share, program) = (args.shared::<Share>(0)?, args.shared::<Program>(1)?);
            let value = args.value(2)?;
            output(&program, |sink| ended(sink.push_value(&value)), &share)
        })
    },
};

static MERGE: TaskDef = TaskDef {
    name: concat!(module_path!(), "::merge"),
    signature: "(MergeSpec,Vec<Buckets>) -> Buckets",
    version: 0,
    json: None,
    entries: || entries(|args| merge(&*args.shared::<MergeSpec>(0)?, &args.list_shared(1)?)),
};

inventory::submit! { Linked(&STAGE) }
inventory::submit! { Linked(&VALUE) }
inventory::submit! { Linked(&MERGE) }

pub(super) fn entries(run: fn(&mut TaskArgs) -> Result<Buckets, FailureCause>) -> Entries {
    Entries { call: Arc::new(move |args| run(args).map(Value::live)), items: None }
}

fn value_entries(run: fn(&mut TaskArgs) -> Result<Value, FailureCause>) -> Entries {
    Entries { call: Arc::new(run), items: None }
}

/// A program with large captures, so that a worker gets it once and not with each of its stage's tasks.
#[task(crate = starling_runtime, json = false)]
pub(crate) fn program(program: Program) -> Program {
    program
}

/// What the program makes of the items that `feed` gives.
fn output(
    program: &Program,
    feed: impl FnOnce(&mut dyn RawSink) -> Result<(), FailureCause>,
    share: &Share,
) -> Result<Value, FailureCause> {
    let mut sink = chain(&program.steps, &program.end, share)?;
    feed(&mut *sink)?;
    let buckets = sink.finish()?;
    Ok(match program.end {
        End::First { .. } => Value::live(firsts(&[Arc::new(buckets)])?),
        End::Partition { .. } => Value::live(Parts::live(buckets.0.into_iter().map(|bucket| Buckets(vec![bucket])))),
        _ => Value::live(buckets),
    })
}

fn feed(sink: &mut dyn RawSink, source: &StageSource, inputs: &[Arc<Buckets>]) -> Result<(), FailureCause> {
    match source {
        StageSource::Inputs => ended(feed_inputs(sink, inputs)),
        StageSource::Csv(range) => feed_csv(sink, range),
        StageSource::Files(range) => range.feed(sink),
        StageSource::Numbers(range) => ended(feed_numbers(sink, range.clone())),
    }
}

/// A sink under construction: what comes next.
enum Next {
    /// It takes encoded items.
    Raw(Box<dyn RawSink>),
    /// It takes items of a type.
    Typed(AnySink, ItemType),
    /// It takes the encoded elements of items, of those that all gates let through.
    Elements(Box<dyn RawSink>, Vec<Gate>),
}

impl Next {
    /// As a sink of items of this type, which the step before gives.
    fn of(self, items: ItemType) -> Result<AnySink, FailureCause> {
        match self {
            Next::Raw(raw) => Ok(items.encode(raw)),
            Next::Typed(typed, _) => Ok(typed),
            Next::Elements(raw, gates) => {
                gates.into_iter().try_fold(items.elements(raw), |sink, gate| items.gate(sink, gate))
            }
        }
    }

    /// As a sink of encoded items.
    fn raw(self) -> Result<Box<dyn RawSink>, FailureCause> {
        match self {
            Next::Raw(raw) => Ok(raw),
            Next::Typed(typed, items) => items.decode(typed),
            Next::Elements(..) => Err(FailureCause::Error {
                message: "what is to be flattened has no type on the workers: put a map(task!(|list: Vec<_>| list)), with the \
                          items' type, before flatten"
                    .into(),
                sources: Vec::new(),
            }),
        }
    }

    /// Reached only by the items that the gate lets through.
    fn gated(self, gate: Gate) -> Result<Next, FailureCause> {
        Ok(match self {
            Next::Raw(next) => Next::Raw(Box::new(Gated { gate, next })),
            Next::Typed(typed, items) => Next::Typed(items.gate(typed, gate)?, items),
            Next::Elements(raw, mut gates) => {
                gates.push(gate);
                Next::Elements(raw, gates)
            }
        })
    }
}

/// The whole chain, from its end to its start, as a sink of what the source gives.
fn chain(steps: &[Step], end: &End, share: &Share) -> Result<Box<dyn RawSink>, FailureCause> {
    let mut next = end_sink(end, share)?;
    for (number, step) in steps.iter().enumerate().rev() {
        next = match step {
            Step::Flatten => Next::Elements(next.raw()?, Vec::new()),
            Step::Sample(sample) => next.gated(sample.gate(share.number, number))?,
            Step::Pluck(pluck) => Next::Typed(pluck.open(next.of(pluck.gives())?)?, pluck.takes()),
            closure => {
                let (function, through) = through(closure)?;
                Next::Typed((through.open)(&function.captures, next.of(through.gives)?)?, through.takes)
            }
        };
    }
    next.raw()
}

/// The last sink.
fn end_sink(end: &End, share: &Share) -> Result<Next, FailureCause> {
    let raw = |sink: Box<dyn RawSink>| Ok(Next::Raw(sink));
    match end {
        End::Count => raw(Box::<Count>::default()),
        End::Collect { limit } => raw(Box::new(Collect::new(*limit))),
        End::Frequencies { buckets, counted } => raw(Box::new(Frequencies::new(*buckets, *counted))),
        End::Render(rendering) => raw(render_sink(rendering)?),
        End::Fold { op, zero } => {
            let fold = fold_fns(op)?;
            typed(op, (fold.fold)(&op.captures, zero.as_deref())?)
        }
        End::FoldBy { key, zero, op, buckets } => {
            let key = (key_fns(key)?.extract)(&key.captures)?;
            typed(op, (fold_fns(op)?.fold_by)(&op.captures, key, Some(zero), *buckets)?)
        }
        End::Partition { key, buckets } | End::First { key, buckets } => {
            typed(key, (key_fns(key)?.partition)(&key.captures, *buckets)?)
        }
        End::TopK { key, limit } => {
            let topk = key.resolve()?.topk.as_ref().ok_or_else(|| unable("order items"))?;
            typed(key, topk(&key.captures, *limit)?)
        }
        End::Places => raw(Box::new(Places::new(&share.places))),
        End::Summary(summary) => {
            let (sink, items) = summary_sink(*summary)?;
            Ok(Next::Typed(sink, items))
        }
        End::Scan { .. } => Err(unable("be the end of a stage")),
    }
}

/// A sink of the items that `function` takes.
fn typed(function: &FnRef, sink: AnySink) -> Result<Next, FailureCause> {
    Ok(Next::Typed(sink, function.resolve()?.takes.ok_or_else(|| unable("take items"))?))
}

pub(super) fn fold_fns(op: &FnRef) -> Result<&'static FoldFns, FailureCause> {
    op.resolve()?.fold.as_ref().ok_or_else(|| unable("fold"))
}

fn key_fns(key: &FnRef) -> Result<&'static KeyFns, FailureCause> {
    key.resolve()?.key.as_ref().ok_or_else(|| unable("give keys"))
}

fn through(step: &Step) -> Result<(&FnRef, &'static Through), FailureCause> {
    let function = step.function().ok_or_else(|| unable("do this step"))?;
    let fns = function.resolve()?;
    let through = match step {
        Step::Map(_) => &fns.map,
        Step::Filter(_) => &fns.filter,
        Step::FlatMap(_) => &fns.flat_map,
        Step::TryMap(_) => &fns.try_map,
        Step::Remove(_) => &fns.remove,
        Step::Starmap(_) => &fns.starmap,
        Step::Partitions(_) => &fns.partitions,
        Step::Reduce(_) => &fns.reduce,
        Step::Flatten | Step::Pluck(_) | Step::Sample(_) => &None,
    };
    Ok((function, through.as_ref().ok_or_else(|| unable("do this step"))?))
}

/// The collection's types rule this out; a plan of another origin need not obey them.
pub(super) fn unable(what: &str) -> FailureCause {
    FailureCause::Codec { message: format!("a closure of the plan cannot {what}") }
}

/// A stop for having enough is a good end.
pub(super) fn ended(outcome: Result<(), Stop>) -> Result<(), FailureCause> {
    match outcome {
        Ok(()) | Err(Stop::Enough) => Ok(()),
        Err(Stop::Unfit(message)) => Err(FailureCause::Codec { message: message.into() }),
        Err(Stop::Failed(cause)) => Err(*cause),
    }
}

pub(super) fn feed_inputs(sink: &mut dyn RawSink, inputs: &[Arc<Buckets>]) -> Result<(), Stop> {
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

fn feed_numbers(sink: &mut dyn RawSink, numbers: Range<u64>) -> Result<(), Stop> {
    let mut scratch = Vec::new();
    for number in numbers {
        scratch.clear();
        encode_to(&number, &mut scratch)?;
        sink.push_encoded(&scratch)?;
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
        MergeSpec::First => return firsts(inputs),
        MergeSpec::Frequencies { counted } => Box::new(Frequencies::new(1, *counted)),
        MergeSpec::FoldBy { combine } => (fold_fns(combine)?.merge)(&combine.captures, 1)?,
    };
    for bucket in inputs.iter().flat_map(|buckets| &buckets.0) {
        ended(bucket.pairs()?.try_for_each(|(key, item)| sink.push_pair(key, item)))?;
    }
    sink.finish()
}
