//! Tasks for the tests. The test programs and `test-node` both hold them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starling::{Buffer, Cluster, Parts, block_on, task};

/// Their sum.
#[task]
pub fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// Its square.
#[task]
pub fn square(x: &i64) -> i64 {
    x * x
}

/// Their sum.
#[task]
pub fn total(parts: &[i64]) -> i64 {
    parts.iter().sum()
}

/// How often each word occurs.
#[task]
pub fn count_words(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

/// The counts added up.
#[task]
pub fn merge_counts(parts: Vec<Arc<BTreeMap<String, u64>>>) -> BTreeMap<String, u64> {
    let mut merged = BTreeMap::new();
    for (word, count) in parts.iter().flat_map(|part| part.iter()) {
        *merged.entry(word.clone()).or_default() += count;
    }
    merged
}

/// So many bytes of this value.
#[task]
pub fn bytes(length: u64, value: u8) -> Buffer {
    vec![value; length as usize].into()
}

/// The sum of the bytes of both, which had to be on one worker for it.
#[task]
pub fn sum_bytes(one: &Buffer, other: &Buffer) -> u64 {
    let sum = |buffer: &Buffer| buffer.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    sum(one) + sum(other)
}

/// The cause at the end of a chain.
#[derive(Debug, thiserror::Error)]
#[error("the disk said no")]
pub struct Cause;

/// An error with a source.
#[derive(Debug, thiserror::Error)]
#[error("record {record} is bad")]
pub struct BadRecord {
    record: u64,
    #[source]
    cause: Cause,
}

/// Always an error.
#[task]
pub fn fail(record: u64) -> Result<u64, BadRecord> {
    Err(BadRecord { record, cause: Cause })
}

/// Always a panic.
#[task]
pub fn panic_with(message: &str) -> u64 {
    panic!("{message}")
}

/// An error the first so many times, counted in a file.
#[task]
pub fn fail_at_first(file: PathBuf, failures: u64) -> anyhow::Result<u64> {
    let tries = std::fs::read_to_string(&file).map_or(Ok(0), |text| text.parse::<u64>())? + 1;
    std::fs::write(&file, tries.to_string())?;
    anyhow::ensure!(tries > failures, "try {tries} fails");
    Ok(tries)
}

/// Waits on the async runtime.
#[task]
pub async fn sleep_then(millis: u64, value: i64) -> i64 {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    value
}

/// Keeps its thread busy for so long.
#[task]
pub fn slow(millis: u64, value: i64) -> i64 {
    std::thread::sleep(Duration::from_millis(millis));
    value
}

/// Makes an empty file, and keeps its thread busy for so long.
#[task]
pub fn touch_and_sleep(file: PathBuf, millis: u64) -> anyhow::Result<()> {
    std::fs::write(file, "")?;
    std::thread::sleep(Duration::from_millis(millis));
    Ok(())
}

/// Notes in a file that it runs, and keeps its thread busy for so long: see [`runs`].
#[task]
pub fn noted(file: PathBuf, millis: u64, value: i64) -> anyhow::Result<i64> {
    note(&file, value)?;
    std::thread::sleep(Duration::from_millis(millis));
    Ok(value)
}

/// Notes in a file that it runs, and gives so many bytes of this value.
#[task]
pub fn noted_bytes(file: PathBuf, length: u64, value: u8) -> anyhow::Result<Buffer> {
    note(&file, i64::from(value))?;
    std::thread::sleep(Duration::from_millis(20));
    Ok(vec![value; length as usize].into())
}

/// Lines that are added by several processes at a time do not mix.
fn note(file: &Path, value: i64) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(format!("{value}\n").as_bytes())
}

/// How often each value was noted in this file.
pub fn runs(file: &Path) -> anyhow::Result<BTreeMap<i64, usize>> {
    let mut runs = BTreeMap::new();
    let text = if file.try_exists()? { std::fs::read_to_string(file)? } else { String::new() };
    for line in text.lines() {
        *runs.entry(line.parse()?).or_default() += 1;
    }
    Ok(runs)
}

/// Which process runs it.
#[task]
pub fn process() -> u32 {
    std::process::id()
}

/// A type whose length serde does not know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flattened {
    #[serde(flatten)]
    fields: BTreeMap<String, u64>,
}

/// What cannot be encoded.
#[task]
pub fn flattened() -> Flattened {
    Flattened { fields: BTreeMap::from([("one".to_owned(), 1)]) }
}

/// A type that panics when it is encoded.
#[derive(Clone, Debug, Deserialize)]
pub struct Refuses;

impl Serialize for Refuses {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("not today")
    }
}

/// What panics when it is encoded.
#[task]
pub fn panics_when_encoded() -> Refuses {
    Refuses
}

/// The Fibonacci number, by tasks that submit tasks and wait for them on their threads.
#[task]
pub fn fibonacci(n: u64) -> anyhow::Result<u64> {
    if n < 2 {
        return Ok(n);
    }
    let cluster = Cluster::current()?;
    let (one, other) = (cluster.submit(fibonacci::task(n - 1)), cluster.submit(fibonacci::task(n - 2)));
    block_on(async { Ok(one.result().await? + other.result().await?) })
}

/// The sum of squares, by an `async` task that submits tasks.
#[task]
pub async fn sum_of_squares(count: i64) -> anyhow::Result<i64> {
    let cluster = Cluster::current()?;
    let squares = cluster.map((0..count).map(square::task));
    Ok(cluster.submit(total::task(squares)).result().await?)
}

/// What a task that fails gives the one that submitted it.
#[task]
pub fn submits_a_failure(record: u64) -> anyhow::Result<u64> {
    let failed = Cluster::current()?.submit(fail::task(record));
    Ok(block_on(failed.result())?)
}

/// The sum of the bytes of a large value that another task makes, and of one that is scattered.
#[task]
pub fn sums_large(length: u64) -> anyhow::Result<u64> {
    let cluster = Cluster::current()?;
    let made = cluster.submit(bytes::task(length, 1_u8));
    block_on(async {
        let fetched: u64 = made.result().await?.iter().map(|&byte| u64::from(byte)).sum();
        let scattered = cluster.scatter(Buffer::from(vec![2; length as usize])).await?;
        Ok(fetched + cluster.submit(sum_bytes::task(&made, &scattered)).result().await?)
    })
}

/// Submits so many tasks that take a minute each, and holds on to none.
#[task]
pub fn forgets_what_it_submits(count: i64) -> anyhow::Result<()> {
    Cluster::current()?.map((0..count).map(|value| sleep_then::task(60_000_u64, value)));
    Ok(())
}

/// A number that cannot be encoded if it is 99: later than what is looked at to count bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Late(u32);

impl Serialize for Late {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            99 => Err(serde::ser::Error::custom("99 is no number")),
            number => serializer.serialize_u32(number),
        }
    }
}

/// So many numbers, which cannot be encoded if there are a hundred or more.
#[task]
pub fn late_numbers(count: u32) -> Vec<Late> {
    (0..count).map(Late).collect()
}

/// How many there are.
#[task]
pub fn count_late(numbers: &[Late]) -> u64 {
    numbers.len() as u64
}

/// A value in so many parts of so many bytes each, all of them `value` plus the part's number.
#[task]
pub fn split(value: u8, parts: u8, length: u64) -> Parts {
    Parts::live((0..parts).map(|number| Buffer::from(vec![value + number; length as usize])))
}

/// What a task was given of a value in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// How many parts there are.
    pub parts: usize,
    /// How many of them were there.
    pub here: usize,
    /// Of the part that is looked at, the first byte and the number of bytes, which are all alike; `None` if it is not there.
    pub part: Option<(u8, usize)>,
}

fn given(parts: &Parts, number: usize) -> anyhow::Result<Given> {
    let part = parts.get::<Buffer>(number)?;
    let part = part.map(|part| part.iter().all(|byte| *byte == part[0]).then(|| (part[0], part.len())));
    let part = part.map(|part| part.ok_or_else(|| anyhow::anyhow!("a part is mixed up"))).transpose()?;
    Ok(Given { parts: parts.len(), here: parts.here().count(), part })
}

/// What it was given of each, after a while.
#[task]
pub fn take_part(values: Vec<Arc<Parts>>, number: u64, millis: u64) -> anyhow::Result<Vec<Given>> {
    std::thread::sleep(Duration::from_millis(millis));
    values.iter().map(|parts| given(parts, number as usize)).collect()
}

/// The length of the first, and what it was given of the second.
#[task]
pub fn take_after(first: &Buffer, second: &Parts, number: u64) -> anyhow::Result<(usize, Given)> {
    Ok((first.len(), given(second, number as usize)?))
}
