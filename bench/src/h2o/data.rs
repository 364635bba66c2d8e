//! The tables of h2o.ai's benchmark: `G1_N_1e2_0_0` for grouping and `J1_N_NA_0_0` for joining, no NULLs, unsorted.
//!
//! Made by the rules of its generators, which are written in R, with another source of randomness, always of the same seed.
//! Where the rules want a table of N / 1e6 rows, it has at least ten, so that small sizes have something to join.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::BENCH;
use crate::queries::{Table, parquet};

const TABLES: [&str; 5] = ["x", "lhs", "small", "medium", "big"];
const SEED: u64 = 108;
/// How many groups the small keys have.
const GROUPS: u64 = 100;
const BATCH_ROWS: usize = 8_192;

/// The folder of all tables of this size.
pub(super) fn cached(rows: u64) -> anyhow::Result<PathBuf> {
    parquet::cached(BENCH, &format!("rows-{rows}"), |folder| write(folder, rows))
}

/// The tables of a folder.
pub(super) fn tables(folder: &Path) -> Vec<Table> {
    TABLES.iter().map(|name| parquet::table(folder, name)).collect()
}

/// Makes all tables.
pub(super) fn write(folder: &Path, rows: u64) -> anyhow::Result<()> {
    write_groups(folder, rows)?;
    write_joins(folder, rows)
}

fn write_groups(folder: &Path, rows: u64) -> anyhow::Result<()> {
    let schema = schema(&[
        ("id1", DataType::Utf8),
        ("id2", DataType::Utf8),
        ("id3", DataType::Utf8),
        ("id4", DataType::Int64),
        ("id5", DataType::Int64),
        ("id6", DataType::Int64),
        ("v1", DataType::Int64),
        ("v2", DataType::Int64),
        ("v3", DataType::Float64),
    ]);
    let mut random = random_of("x");
    let many = (rows / GROUPS).max(1);
    let batches = lengths(rows).map(|length| {
        let mut below = |most: u64| (0..length).map(|_| 1 + random.random_range(0..most) as i64).collect::<Vec<_>>();
        let texts: [ArrayRef; 3] = [
            texts(below(GROUPS).iter().map(|key| format!("id{key:03}"))),
            texts(below(GROUPS).iter().map(|key| format!("id{key:03}"))),
            texts(below(many).iter().map(|key| format!("id{key:010}"))),
        ];
        let numbers = [GROUPS, GROUPS, many, 5, 15].map(|most| numbers(below(most).into_iter()));
        let columns = texts.into_iter().chain(numbers).chain([hundredths(&mut random, length)]);
        RecordBatch::try_new(Arc::clone(&schema), columns.collect())
    });
    parquet::write(folder, "x", Arc::clone(&schema), batches)
}

/// The keys of a join: those that only the left side has, those of the right, and those of both.
struct Keys {
    left: Vec<i64>,
    right: Vec<i64>,
}

impl Keys {
    /// Of `number` keys each side, a tenth of which the other side lacks.
    fn split(number: u64, random: &mut ChaCha8Rng) -> Keys {
        let own = (number / 10).max(1);
        let mut keys: Vec<i64> = (1..=(number + own) as i64).collect();
        keys.shuffle(random);
        let (both, own_keys) = keys.split_at((number - own) as usize);
        let (left, right) = own_keys.split_at(own as usize);
        Keys { left: [both, left].concat(), right: [both, right].concat() }
    }
}

/// Every key at least once, if there are rows enough, the others drawn; shuffled.
fn sample_all(keys: &[i64], rows: u64, random: &mut ChaCha8Rng) -> Vec<i64> {
    let drawn = (keys.len() as u64..rows).map(|_| keys[random.random_range(0..keys.len())]).collect::<Vec<_>>();
    let mut sample: Vec<i64> = keys.iter().take(rows as usize).copied().chain(drawn).collect();
    sample.shuffle(random);
    sample
}

fn write_joins(folder: &Path, rows: u64) -> anyhow::Result<()> {
    let mut random = random_of("keys");
    let sizes = [(rows / 1_000_000).max(10), (rows / 1_000).max(10), rows];
    let keys = sizes.map(|size| Keys::split(size, &mut random));
    let left = keys.each_ref().map(|keys| keys.left.as_slice());
    let right = keys.each_ref().map(|keys| keys.right.as_slice());
    write_join(folder, "lhs", rows, &left, "v1")?;
    for (number, name) in (1..).zip(["small", "medium", "big"]) {
        write_join(folder, name, sizes[number - 1], &right[..number], "v2")?;
    }
    Ok(())
}

/// A table with a number and a text for each of these keys, and a value.
fn write_join(folder: &Path, name: &str, rows: u64, keys: &[&[i64]], value: &str) -> anyhow::Result<()> {
    let mut random = random_of(name);
    let numbered = (1..=keys.len()).map(|number| (format!("id{number}"), DataType::Int64));
    let texted = (4..4 + keys.len()).map(|number| (format!("id{number}"), DataType::Utf8));
    let fields: Vec<(String, DataType)> =
        numbered.chain(texted).chain([(value.to_owned(), DataType::Float64)]).collect();
    let schema = schema(&fields.iter().map(|(name, kind)| (name.as_str(), kind.clone())).collect::<Vec<_>>());
    let samples: Vec<Vec<i64>> = keys.iter().map(|keys| sample_all(keys, rows, &mut random)).collect();
    let mut begin = 0;
    let batches = lengths(rows).map(|length| {
        let parts: Vec<&[i64]> = samples.iter().map(|sample| &sample[begin..begin + length]).collect();
        begin += length;
        let columns = parts.iter().map(|part| numbers(part.iter().copied()));
        let columns = columns.chain(parts.iter().map(|part| texts(part.iter().map(|key| format!("id{key}")))));
        let columns = columns.chain([hundredths(&mut random, length)]).collect();
        RecordBatch::try_new(Arc::clone(&schema), columns)
    });
    parquet::write(folder, name, Arc::clone(&schema), batches)
}

/// Each table has its own stream of random numbers, so that it does not depend on the others.
fn random_of(table: &str) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    random.set_stream(table.bytes().fold(0, |stream, byte| stream * 256 + u64::from(byte)));
    random
}

/// The lengths of the batches that so many rows are made in.
fn lengths(rows: u64) -> impl Iterator<Item = usize> {
    let rows = rows as usize;
    (0..rows).step_by(BATCH_ROWS).map(move |begin| BATCH_ROWS.min(rows - begin))
}

fn numbers(numbers: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers))
}

fn texts(texts: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

/// Values up to 100, with six digits after the point.
fn hundredths(random: &mut ChaCha8Rng, length: usize) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values((0..length).map(|_| random.random_range(0..100_000_000) as f64 / 1e6)))
}

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let fields = fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::queries::Answer;

    #[test]
    fn the_tables_are_the_same_each_time() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&one, &other] {
            write(folder.path(), 20_000).unwrap();
        }
        let mut rows = Vec::new();
        for (one, other) in tables(one.path()).iter().zip(tables(other.path())) {
            assert_eq!(fs::read(&one.path).unwrap(), fs::read(&other.path).unwrap(), "{}", one.name);
            rows.push(Answer::read(&one.path).unwrap().rows());
        }
        assert_eq!(rows, [20_000, 20_000, 10, 20, 20_000]);
    }

    #[test]
    fn each_side_of_a_join_lacks_a_tenth_of_the_others_keys() {
        let keys = Keys::split(1_000, &mut random_of("test"));
        let left: BTreeSet<i64> = keys.left.iter().copied().collect();
        let right: BTreeSet<i64> = keys.right.iter().copied().collect();
        assert_eq!((left.len(), right.len()), (1_000, 1_000));
        assert_eq!(left.intersection(&right).count(), 900);
        assert_eq!(left.union(&right).copied().collect::<Vec<_>>(), (1..=1_100).collect::<Vec<i64>>());
    }

    #[test]
    fn a_sample_has_every_key_and_as_many_rows_as_are_wanted() {
        let sample = sample_all(&[3, 5, 7], 100, &mut random_of("test"));
        assert_eq!(sample.len(), 100);
        assert_eq!(sample.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([3, 5, 7]));
    }

    #[test]
    fn the_batches_have_all_rows() {
        assert_eq!(lengths(2 * BATCH_ROWS as u64 + 1).collect::<Vec<_>>(), [BATCH_ROWS, BATCH_ROWS, 1]);
        assert_eq!(lengths(1).collect::<Vec<_>>(), [1]);
        assert_eq!(lengths(0).count(), 0);
    }
}
