//! `bench transfer`: a large value that one worker has made and another one takes.
//!
//! Where things run is brought about with the scheduler's own rule, fewest bytes to move: the producer takes a small value
//! that was put on one worker, and the consumer takes, beside the product, a larger value that was put on the other. Each
//! side notes its process, so that a product that did not move is a wrong answer, not a fast one.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use starling::{Buffer, Cluster, Future};

use crate::measure::{Measured, Plan, Repeat};
use crate::peers::{self, Ask, Peer};
use crate::processes::NodeProcesses;
use crate::raw_tcp::{self, RAW_TCP, RawTcp};
use crate::report::{Line, Report, STARLING, tell};

/// The subcommand's name in the lines.
const BENCH: &str = "transfer";
const UNIT: &str = "GB/s";
/// How much is moved.
const NBYTES: u64 = 256 << 20;
const NBYTES_QUICK: u64 = 64 << 20;
/// How many words lie between two that are checked: enough to see every block of a transfer, too few to cost time.
const CHECKED_WORDS: usize = 64 * 1024 / 8;

/// A value to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Plain bytes.
    Bytes,
    /// A record batch in Arrow's stream format, whose columns are read where they lie.
    Arrow,
}

impl Case {
    const ALL: [Case; 2] = [Case::Bytes, Case::Arrow];

    fn name(self) -> &'static str {
        match self {
            Case::Bytes => "bytes-256m",
            Case::Arrow => "arrow-256m",
        }
    }

    fn driver_case(self) -> &'static str {
        match self {
            Case::Bytes => "bytes",
            Case::Arrow => "arrow",
        }
    }
}

/// What the consumer has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// The process that made the value, and the one that took it.
    producer: u32,
    consumer: u32,
    /// The words, and how many of the checked ones were wrong.
    words: u64,
    wrong: u64,
    /// Whether the words were read where the transfer put them.
    in_place: bool,
}

/// The word at this place of a value; no two near ones are alike.
fn word(at: usize) -> u64 {
    (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A value of so many bytes: its maker's process, then words that can be checked.
fn words(nbytes: u64) -> Vec<u64> {
    let mut words: Vec<u64> = (0..(nbytes / 8) as usize).map(word).collect();
    if let Some(first) = words.first_mut() {
        *first = std::process::id().into();
    }
    words
}

/// Looks at some of `count` words. They are taken by their places, so that those between cost nothing.
fn look(count: usize, word_at: impl Fn(usize) -> u64, in_place: bool) -> Seen {
    let producer = if count > 0 { word_at(0) as u32 } else { 0 };
    let checked = (0..count).step_by(CHECKED_WORDS).skip(1);
    let wrong = checked.filter(|at| word_at(*at) != word(*at)).count() as u64;
    Seen { producer, consumer: std::process::id(), words: count as u64, wrong, in_place }
}

#[starling::task]
fn make_bytes(_seed: &u64, nbytes: u64) -> Buffer {
    words(nbytes).iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>().into()
}

/// What lies beside is only there to bring this to its worker.
#[starling::task]
fn take_bytes(value: &Buffer, _anchor: &Buffer) -> Seen {
    let word_at = |at: usize| {
        let bytes = value[at * 8..].first_chunk::<8>();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    look(value.len() / 8, word_at, true)
}

#[starling::task]
fn make_arrow(_seed: &u64, nbytes: u64) -> Result<Buffer, ArrowError> {
    let column: ArrayRef = Arc::new(UInt64Array::from(words(nbytes)));
    let schema = Arc::new(Schema::new(vec![Field::new("word", DataType::UInt64, false)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column])?;
    let mut writer = StreamWriter::try_new(Vec::with_capacity(nbytes as usize + 4096), &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

#[starling::task]
fn take_arrow(value: &Buffer, _anchor: &Buffer) -> Result<Seen, ArrowError> {
    let stored = value.as_ptr_range();
    let mut stream = arrow_buffer::Buffer::from(value.0.clone());
    let batch = StreamDecoder::new()
        .decode(&mut stream)?
        .ok_or_else(|| ArrowError::IpcError("the value holds no record batch".into()))?;
    let column = batch.column(0).as_primitive_opt::<UInt64Type>();
    let column = column.ok_or_else(|| ArrowError::SchemaError("the column holds no words".into()))?;
    let in_place = stored.contains(&column.values().inner().as_ptr());
    Ok(look(column.len(), |at| column.value(at), in_place))
}

/// Measures everything that the plan wants.
pub(crate) fn run(plan: &Plan, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    ensure!(plan.workers >= 2, "a transfer needs two workers: give --workers 2 or more");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let nbytes = if plan.quick { NBYTES_QUICK } else { NBYTES };
    for case in Case::ALL.into_iter().filter(|case| plan.wants(case.name())) {
        tell(format_args!("{BENCH}: {}", case.name()));
        let line = runtime.block_on(measure(plan, case, nbytes));
        report
            .push(line.unwrap_or_else(|error| Line::failed(BENCH, case.name(), STARLING, UNIT, format!("{error:#}"))));
        let line = measure_raw(plan, case, nbytes);
        report.push(line.unwrap_or_else(|error| Line::failed(BENCH, case.name(), RAW_TCP, UNIT, format!("{error:#}"))));
    }
    for &peer in peers {
        if peer != Peer::Dask {
            tell(format_args!("{BENCH}: {peer} is not measured"));
            continue;
        }
        let asks = Case::ALL.map(|case| {
            let mut ask = Ask::new(case.name(), UNIT, case.driver_case(), nbytes, move |s| rate(nbytes, s));
            ask.note = size_note(nbytes);
            ask
        });
        peers::measure(peer, BENCH, asks.into(), true, plan, report);
    }
    Ok(())
}

fn rate(nbytes: u64, seconds: f64) -> f64 {
    nbytes as f64 / seconds / 1e9
}

fn size_note(nbytes: u64) -> String {
    if nbytes == NBYTES { String::new() } else { format!("{} MiB instead of {}", nbytes >> 20, NBYTES >> 20) }
}

async fn measure(plan: &Plan, case: Case, nbytes: u64) -> anyhow::Result<Line> {
    let nodes = NodeProcesses::start(plan)?;
    let cluster = nodes.connect().await?;
    let places = Places::new(&cluster, nbytes).await.context("the two values that fix the places")?;
    // The first transfer opens the connection and touches the memory.
    let warm = tokio::time::timeout(plan.timeout(), places.transfer(&cluster, case, nbytes));
    warm.await.context("the first transfer did not end in time")??;
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    let mut in_place = true;
    while repeat.wants_more() {
        let transfer = tokio::time::timeout(plan.timeout(), places.transfer(&cluster, case, nbytes));
        let (seconds, seen) = transfer.await.context("a transfer did not end in time")??;
        in_place &= seen.in_place;
        repeat.add(rate(nbytes, seconds));
    }
    let note = "from the consumer's submission to its result, encrypted; the value is made before, cpu_s counts both";
    let line = Line::new(BENCH, case.name(), STARLING, UNIT, &repeat.finish()).note(note).note(size_note(nbytes));
    Ok(if case == Case::Arrow { line.with("zero_copy", in_place) } else { line })
}

/// What brings the producer to one worker and the consumer to another.
struct Places {
    seed: Future<u64>,
    anchor: Future<Buffer>,
}

impl Places {
    async fn new(cluster: &Cluster, nbytes: u64) -> anyhow::Result<Places> {
        // A client's values go to the workers in turn.
        let seed = cluster.scatter(1_u64).await?;
        let anchor = cluster.scatter(Buffer::from(vec![1_u8; nbytes as usize + nbytes as usize / 4])).await?;
        Ok(Places { seed, anchor })
    }

    /// One value made, and then moved: the seconds of that, and what was seen of it.
    async fn transfer(&self, cluster: &Cluster, case: Case, nbytes: u64) -> anyhow::Result<(f64, Seen)> {
        let value = match case {
            Case::Bytes => cluster.submit(make_bytes::task(self.seed.clone(), nbytes)),
            Case::Arrow => cluster.submit(make_arrow::task(self.seed.clone(), nbytes)),
        };
        value.wait().await?;
        let started = Instant::now();
        let taken = match case {
            Case::Bytes => cluster.submit(take_bytes::task(value.clone(), self.anchor.clone())),
            Case::Arrow => cluster.submit(take_arrow::task(value.clone(), self.anchor.clone())),
        };
        let seen = taken.result().await?;
        let seconds = started.elapsed().as_secs_f64();
        ensure!(seen.words == nbytes / 8 && seen.wrong == 0, "the value that arrived is another one: {seen:?}");
        ensure!(seen.producer != seen.consumer, "the value did not move: process {} made and took it", seen.consumer);
        Ok((seconds, seen))
    }
}

/// The same number of bytes over a plain socket between two processes.
fn measure_raw(plan: &Plan, case: Case, nbytes: u64) -> anyhow::Result<Line> {
    let raw = RawTcp::start()?;
    let mut stream = raw.stream()?;
    let mut buffer = vec![0_u8; nbytes as usize];
    raw_tcp::receive(&mut stream, &mut buffer)?;
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    while repeat.wants_more() {
        repeat.add(rate(nbytes, raw_tcp::receive(&mut stream, &mut buffer)?));
    }
    let measured: Measured = repeat.finish();
    let note = "1 MiB writes and reads on one socket into memory that is warm, neither encrypted nor checked";
    Ok(Line::new(BENCH, case.name(), RAW_TCP, UNIT, &measured).note(note).note(size_note(nbytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrow_columns_are_read_where_they_lie() {
        let value = make_arrow(&1, 1 << 20).unwrap();
        let seen = take_arrow(&value, &Buffer::default()).unwrap();
        assert!(seen.in_place);
        assert_eq!((seen.words, seen.wrong, seen.producer), (1 << 17, 0, std::process::id()));
    }

    #[test]
    fn a_changed_byte_where_it_is_looked_for_is_seen() {
        let mut bytes = make_bytes(&1, 1 << 20).to_vec();
        assert_eq!(take_bytes(&bytes.clone().into(), &Buffer::default()).wrong, 0);
        bytes[CHECKED_WORDS * 8] ^= 1;
        assert_eq!(take_bytes(&bytes.into(), &Buffer::default()).wrong, 1);
    }

    #[test]
    fn what_is_no_record_batch_is_an_error() {
        assert!(take_arrow(&Buffer::from(vec![1, 2, 3]), &Buffer::default()).is_err());
    }
}
