//! What items flow into: a chain of sinks, built from its end to its start, each step knowing its own types.
//!
//! Between steps of one task an item is a live value, handed on by one virtual call. Where a step's type is not known
//! (counting, collecting) or an item comes from outside, it is encoded: a [`RawSink`]. [`AnySink`] is a typed sink whose
//! type only its two neighbours know.

use std::any::{Any, TypeId, type_name};
use std::marker::PhantomData;
use std::sync::Arc;

use csv::ByteRecord;
use starling_core::failure::FailureCause;

use super::block::{BlockBuilder, Buckets, decode, encode_to};
use super::record::Record;
use super::table::Counts;
use crate::value::{Data, Value};

/// Why no more items are taken.
#[derive(Debug)]
pub enum Stop {
    /// There are enough: the task ends early, and well.
    Enough,
    /// The current item is not what the chain's type wants. Whoever reads the items says where it is.
    Unfit(Box<str>),
    /// The task fails.
    Failed(Box<FailureCause>),
}

impl From<FailureCause> for Stop {
    fn from(cause: FailureCause) -> Stop {
        Stop::Failed(Box::new(cause))
    }
}

/// Takes items of a type known where it is made.
pub trait Sink<A>: 'static {
    /// Takes one item.
    fn push(&mut self, item: A) -> Result<(), Stop>;

    /// Takes an item of type `String` that stays the caller's. A sink that can do with a `&str` does not copy it. Fails if
    /// the sink's items are no texts.
    fn push_str(&mut self, text: &str) -> Result<(), Stop>
    where
        A: 'static,
    {
        self.push(owned_text(text)?)
    }

    /// There are no more items: the task's output.
    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause>;
}

/// A CSV record as a sink sees it: only the columns that the reader was asked for.
pub struct Row<'a> {
    /// The names of the columns.
    pub header: &'a ByteRecord,
    /// The fields, in the same order.
    pub record: &'a ByteRecord,
    /// Where the record starts in its file.
    pub offset: u64,
}

/// Takes items that are encoded or that a file holds.
pub trait RawSink: 'static {
    /// Whether the items' bytes matter, or only that there are items.
    fn wants_bytes(&self) -> bool {
        true
    }

    /// Takes an item in its encoding.
    fn push_encoded(&mut self, item: &[u8]) -> Result<(), Stop>;

    /// Takes a line of text or another text, an item of type `String`.
    fn push_line(&mut self, line: &str) -> Result<(), Stop>;

    /// Takes a record of a CSV file.
    fn push_row(&mut self, row: &Row<'_>) -> Result<(), Stop>;

    /// Takes an item that is the output of another task.
    fn push_value(&mut self, value: &Value) -> Result<(), Stop> {
        let codec = |message| Stop::from(FailureCause::Codec { message });
        let encoded = value.encode().map_err(|error| codec(error.to_string()))?;
        if !encoded.buffers.is_empty() {
            return Err(codec("a value with Buffers in it needs a closure that takes it".into()));
        }
        self.push_encoded(&encoded.head)
    }

    /// Takes a record of another file.
    fn push_record(&mut self, _: &Record<'_>) -> Result<(), Stop> {
        Err(untyped_records().into())
    }

    /// Whether items are wanted as values where their type is known, and not encoded.
    fn wants_values(&self) -> bool {
        false
    }

    /// Takes an item as a value, if that is [wanted](RawSink::wants_values).
    fn push_serialize(&mut self, item: &dyn erased_serde::Serialize) -> Result<(), Stop> {
        let mut encoded = Vec::new();
        encode_to(item, &mut encoded)?;
        self.push_encoded(&encoded)
    }

    /// There are no more items: the task's output.
    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause>;
}

/// A typed sink whose type is known only to who made it and who feeds it.
pub struct AnySink {
    sink: Box<dyn Any>,
    item: &'static str,
}

impl AnySink {
    /// Forgets the type.
    pub fn new<A: 'static>(sink: impl Sink<A>) -> AnySink {
        let sink: Box<dyn Sink<A>> = Box::new(sink);
        AnySink { sink: Box::new(sink), item: type_name::<A>() }
    }

    /// The sink, if it takes items of type `A`. The collection's types make sure of that for one binary; a peer's plan
    /// may still be wrong.
    pub fn typed<A: 'static>(self) -> Result<Box<dyn Sink<A>>, FailureCause> {
        let item = self.item;
        self.sink.downcast::<Box<dyn Sink<A>>>().map(|sink| *sink).map_err(|_| mismatch::<A>(item))
    }
}

pub(super) fn mismatch<A: ?Sized>(wanted: &str) -> FailureCause {
    FailureCause::Codec { message: format!("a step gives {}, but the next one takes {wanted}", type_name::<A>()) }
}

/// Moves a value into the type that it has anyway.
pub(super) fn same_type<A: 'static, B: 'static>(value: A) -> Option<B> {
    let mut slot = Some(value);
    (&mut slot as &mut dyn Any).downcast_mut::<Option<B>>().and_then(Option::take)
}

/// A text as an item, if items are texts.
pub(super) fn owned_text<A: 'static>(text: &str) -> Result<A, Stop> {
    same_type(text.to_owned()).ok_or_else(|| mismatch::<String>(type_name::<A>()).into())
}

/// Decodes items for a typed sink.
pub(super) struct Decode<A> {
    pub(super) next: Box<dyn Sink<A>>,
}

impl<A: Data> RawSink for Decode<A> {
    fn push_encoded(&mut self, item: &[u8]) -> Result<(), Stop> {
        self.next.push(decode(item)?)
    }

    fn push_line(&mut self, line: &str) -> Result<(), Stop> {
        if TypeId::of::<A>() != TypeId::of::<String>() {
            return Err(mismatch::<String>(type_name::<A>()).into());
        }
        self.next.push_str(line)
    }

    fn push_row(&mut self, row: &Row<'_>) -> Result<(), Stop> {
        let item =
            row.record.deserialize(Some(row.header)).map_err(|error| Stop::Unfit(misfit(row.header, &error).into()))?;
        self.next.push(item)
    }

    fn push_value(&mut self, value: &Value) -> Result<(), Stop> {
        let item = value.get::<A>().map_err(|error| FailureCause::Codec { message: error.to_string() })?;
        self.next.push(Arc::unwrap_or_clone(item))
    }

    fn push_record(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        self.next.push(record.take().map_err(|message| Stop::Unfit(message.into()))?)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

/// Why a record is not of the type that it was to become, with the column's name.
pub fn misfit(header: &ByteRecord, error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => match err.field().and_then(|field| header.get(field as usize)) {
            Some(column) => format!("column {}: {}", String::from_utf8_lossy(column), err.kind()),
            None => err.kind().to_string(),
        },
        _ => error.to_string(),
    }
}

/// Encodes items for a sink that does not know their type.
pub(super) struct Encode<R> {
    next: Box<dyn RawSink>,
    wants_bytes: bool,
    wants_values: bool,
    scratch: Vec<u8>,
    item: PhantomData<fn(R)>,
}

impl<R: Data> Encode<R> {
    pub(super) fn erased(next: Box<dyn RawSink>) -> AnySink {
        let (wants_bytes, wants_values) = (next.wants_bytes(), next.wants_values());
        AnySink::new(Encode::<R> { next, wants_bytes, wants_values, scratch: Vec::new(), item: PhantomData })
    }
}

impl<R: Data> Sink<R> for Encode<R> {
    fn push(&mut self, item: R) -> Result<(), Stop> {
        if self.wants_values {
            return self.next.push_serialize(&item);
        }
        if let Some(text) = (&item as &dyn Any).downcast_ref::<String>() {
            return self.next.push_line(text);
        }
        if self.wants_bytes {
            self.scratch.clear();
            encode_to(&item, &mut self.scratch)?;
        }
        self.next.push_encoded(&self.scratch)
    }

    fn push_str(&mut self, text: &str) -> Result<(), Stop> {
        self.next.push_line(text)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

/// Counts items; the output is one item, a `u64`.
#[derive(Debug, Default)]
pub struct Count {
    count: u64,
}

impl RawSink for Count {
    fn wants_bytes(&self) -> bool {
        false
    }

    fn push_encoded(&mut self, _: &[u8]) -> Result<(), Stop> {
        self.count += 1;
        Ok(())
    }

    fn push_line(&mut self, _: &str) -> Result<(), Stop> {
        self.count += 1;
        Ok(())
    }

    fn push_row(&mut self, _: &Row<'_>) -> Result<(), Stop> {
        self.count += 1;
        Ok(())
    }

    fn push_record(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        record.check().map_err(|message| Stop::Unfit(message.into()))?;
        self.count += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        Ok(Buckets::one(super::ItemBlock::of([self.count])?))
    }
}

/// Gathers the first items, in order.
///
/// A CSV record that no step has given a type stays what it is, its place and its fields; [`row_fields`] takes it apart. A
/// record of another file becomes a [`StoredRecord`](super::StoredRecord).
#[derive(Debug)]
pub struct Collect {
    limit: u64,
    items: BlockBuilder,
}

impl Collect {
    /// Takes at most `limit` items.
    pub fn new(limit: u64) -> Collect {
        Collect { limit, items: BlockBuilder::default() }
    }

    fn taken(&self) -> Result<(), Stop> {
        if self.items.count() < self.limit { Ok(()) } else { Err(Stop::Enough) }
    }
}

impl RawSink for Collect {
    fn push_encoded(&mut self, item: &[u8]) -> Result<(), Stop> {
        self.taken()?;
        self.items.push(item)?;
        self.taken()
    }

    fn push_line(&mut self, line: &str) -> Result<(), Stop> {
        self.taken()?;
        self.items.push_value(line)?;
        self.taken()
    }

    fn push_row(&mut self, row: &Row<'_>) -> Result<(), Stop> {
        self.taken()?;
        let fields: Vec<&[u8]> = row.record.iter().collect();
        self.items.push_value(&(row.offset, fields))?;
        self.taken()
    }

    fn push_record(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        self.taken()?;
        record.check().map_err(|message| Stop::Unfit(message.into()))?;
        self.items.push_value(&record.stored())?;
        self.taken()
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        Ok(Buckets::one(self.items.finish()))
    }
}

/// The fields of a record that [`Collect`] took as it stood in its file, and where it started there.
pub fn row_fields(item: &[u8]) -> Result<(u64, ByteRecord), FailureCause> {
    decode::<(u64, Vec<Vec<u8>>)>(item).map(|(offset, fields)| (offset, fields.iter().collect()))
}

/// Counts how often each item comes; the output is keyed by item.
#[derive(Default)]
pub struct Frequencies {
    counts: Counts,
    buckets: u32,
    /// Whether the counts are wanted, or only the distinct items.
    counted: bool,
}

impl Frequencies {
    /// Splits its output into `buckets` by item. Without `counted` each item comes alone, for `distinct`.
    pub fn new(buckets: u32, counted: bool) -> Frequencies {
        Frequencies { buckets, counted, ..Frequencies::default() }
    }

    /// Adds a count made elsewhere.
    pub fn add(&mut self, item: &[u8], count: u64) -> Result<(), FailureCause> {
        self.counts.add(item, count)
    }
}

impl RawSink for Frequencies {
    fn push_encoded(&mut self, item: &[u8]) -> Result<(), Stop> {
        Ok(self.add(item, 1)?)
    }

    fn push_line(&mut self, line: &str) -> Result<(), Stop> {
        Ok(self.counts.add_text(line, 1)?)
    }

    fn push_row(&mut self, _: &Row<'_>) -> Result<(), Stop> {
        Err(untyped_rows().into())
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        let counted = self.counted;
        self.counts
            .finish()?
            .into_buckets(self.buckets, |count, items| if counted { items.push_value(count) } else { items.push(&[]) })
    }
}

impl PairSink for Frequencies {
    fn push_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Stop> {
        let count = if self.counted { decode(value)? } else { 1 };
        Ok(self.add(key, count)?)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        RawSink::finish(self)
    }
}

/// Rows that no closure has given a type cannot be compared.
fn untyped_rows() -> FailureCause {
    FailureCause::Error {
        message: "records of a CSV file have no type yet: put a map(task!(|row: Row| ...)) before this step".into(),
        sources: Vec::new(),
    }
}

/// The same of records of other files.
fn untyped_records() -> FailureCause {
    FailureCause::Error {
        message: "records of a file have no type yet: put a map(task!(|record: Record| ...)) before this step".into(),
        sources: Vec::new(),
    }
}

/// Takes what was gathered for keys elsewhere.
pub trait PairSink: 'static {
    /// Takes a key and what was gathered for it.
    fn push_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Stop>;
    /// There are no more: the task's output, keyed.
    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause>;
}
