//! The same jobs written by hand for one machine, with nothing of Starling's: what could be had at most.
//!
//! So many threads take ranges of the file that end at line ends, read them in large blocks, and keep a table each; the
//! tables are merged at the end.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use hashbrown::HashMap;
use serde::Deserialize;

use super::{Sums, is_wanted};

/// How many ranges a thread takes, so that one that is held up leaves the rest to the others.
const RANGES_A_THREAD: usize = 16;
const READ_BYTES: usize = 1 << 20;

/// How often each word comes.
pub(super) fn word_count(path: &Path, threads: usize) -> anyhow::Result<Vec<(String, u64)>> {
    let tables = in_threads(path, threads, |table: &mut HashMap<Box<str>, u64>, text| {
        for word in text.split_ascii_whitespace() {
            match table.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(table.insert(word.into(), 1)),
            }
        }
        Ok(())
    })?;
    let all = merged(tables, |count, other| *count += other);
    Ok(all.into_iter().map(|(word, count)| (word.into_string(), count)).collect())
}

#[derive(Deserialize)]
struct Account<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    transactions: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    amount: i64,
}

/// The number and the sum of the transactions of each wanted name.
pub(super) fn accounts(path: &Path, threads: usize) -> anyhow::Result<Vec<(String, Sums)>> {
    let tables = in_threads(path, threads, |table: &mut HashMap<Box<str>, Sums>, text| {
        for line in text.lines() {
            let account: Account<'_> = serde_json::from_str(line)?;
            if !is_wanted(&account.name) {
                continue;
            }
            let amounts = account.transactions.iter().map(|transaction| transaction.amount);
            let own = (account.transactions.len() as u64, amounts.sum::<i64>());
            match table.get_mut(&*account.name) {
                Some(sums) => *sums = plus(*sums, own),
                None => drop(table.insert(account.name.into(), own)),
            }
        }
        Ok(())
    })?;
    let all = merged(tables, |sums, other| *sums = plus(*sums, other));
    Ok(all.into_iter().map(|(name, sums)| (name.into_string(), sums)).collect())
}

fn plus(one: Sums, other: Sums) -> Sums {
    (one.0 + other.0, one.1 + other.1)
}

fn merged<V>(tables: Vec<HashMap<Box<str>, V>>, add: impl Fn(&mut V, V)) -> HashMap<Box<str>, V> {
    let mut tables = tables.into_iter();
    let mut all = tables.next().unwrap_or_default();
    for (key, value) in tables.flatten() {
        match all.get_mut(&key) {
            Some(sum) => add(sum, value),
            None => drop(all.insert(key, value)),
        }
    }
    all
}

/// What each thread makes of the whole lines that it takes.
fn in_threads<T: Default + Send>(
    path: &Path,
    threads: usize,
    take: impl Fn(&mut T, &str) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Vec<T>> {
    let ranges = ranges(path, threads * RANGES_A_THREAD)?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = T::default();
        let mut file = File::open(path)?;
        let mut buffer = Vec::new();
        while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
            for_each_block(&mut file, range, &mut buffer, |text| take(&mut made, text))?;
        }
        anyhow::Ok(made)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?).collect()
    })
}

/// So many ranges of about the same length that begin and end at line ends.
fn ranges(path: &Path, number: usize) -> anyhow::Result<Vec<Range<u64>>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut ends = vec![0];
    let mut buffer = vec![0; READ_BYTES];
    for place in (1..number as u64).map(|at| len * at / number as u64) {
        file.seek(SeekFrom::Start(place))?;
        let nread = file.read(&mut buffer)?;
        let newline = memchr::memchr(b'\n', &buffer[..nread]).context("a line is too long")?;
        ends.push(place + newline as u64 + 1);
    }
    ends.push(len);
    Ok(ends.windows(2).map(|ends| ends[0]..ends[1]).collect())
}

/// Reads the range, and gives it in blocks of whole lines.
fn for_each_block(
    file: &mut File,
    range: &Range<u64>,
    buffer: &mut Vec<u8>,
    mut take: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    file.seek(SeekFrom::Start(range.start))?;
    buffer.resize(2 * READ_BYTES, 0);
    let (mut left, mut kept) = (range.end - range.start, 0);
    while left > 0 {
        let wanted = left.min(READ_BYTES as u64) as usize;
        file.read_exact(&mut buffer[kept..kept + wanted])?;
        left -= wanted as u64;
        let filled = kept + wanted;
        let newline = memchr::memrchr(b'\n', &buffer[..filled]).context("a line is too long")?;
        let whole = if left == 0 { filled } else { newline + 1 };
        take(std::str::from_utf8(&buffer[..whole])?)?;
        buffer.copy_within(whole..filled, 0);
        kept = filled - whole;
        anyhow::ensure!(kept <= READ_BYTES, "a line is too long");
    }
    Ok(())
}
