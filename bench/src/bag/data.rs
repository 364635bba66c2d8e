//! The files that the cases read, made once from a seed, each with what is true of it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use hashbrown::HashSet;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{Value, json};

use super::{BENCH, Case, accounts_answer, words_answer};
use crate::report::tell;

const SEED: u64 = 6;
/// How many distinct words there are, as in a gigabyte of English without capitals.
const VOCABULARY: usize = 500_000;
/// After so many bytes a line of text ends.
const LINE_BYTES: usize = 72;
/// How many transactions an account has at most.
const TRANSACTIONS_MAX: u32 = 30;

const NAMES: [&str; 40] = [
    "Alice", "Bob", "Charlie", "Dan", "Edith", "Frank", "George", "Hannah", "Ingrid", "Jerry", "Kevin", "Laura",
    "Michael", "Norbert", "Oliver", "Patricia", "Quinn", "Ray", "Sarah", "Tim", "Ursula", "Victor", "Wendy", "Xavier",
    "Yvonne", "Zelda", "Anna", "Björn", "Chloé", "Dmitri", "Eva", "Fatima", "Gustav", "Hiro", "Isabel", "Jürgen",
    "Karen", "Luis", "Marion", "Noël",
];

/// A file, and the right answer to the question that is asked of it.
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) nbytes: u64,
    pub(super) truth: Value,
}

impl Input {
    /// The case's file of about this size, from the cache if it is there.
    pub(super) fn cached(case: Case, size: u64) -> anyhow::Result<Input> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.bench").join(BENCH);
        fs::create_dir_all(&folder)?;
        Input::in_folder(&folder.canonicalize()?, case, size)
    }

    pub(super) fn in_folder(folder: &Path, case: Case, size: u64) -> anyhow::Result<Input> {
        let path = folder.join(format!("{}-{size}.{}", case.file(), case.extension()));
        let truths = path.with_extension("truth.json");
        if !path.is_file() || !truths.is_file() {
            tell(format_args!("{BENCH}: making {}", path.display()));
            let partial = path.with_extension(format!("{}.partial", std::process::id()));
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
            let truth = match case {
                Case::WordCount => write_words(&mut file, size)?,
                Case::Accounts => write_accounts(&mut file, size)?,
            };
            file.flush()?;
            // The truths first: a file is used only with the truths that were found when it was made.
            fs::write(&truths, truth.to_string())?;
            fs::rename(&partial, &path)?;
        }
        let truth = serde_json::from_str(&fs::read_to_string(&truths)?)
            .with_context(|| format!("{} holds no truths: remove it", truths.display()))?;
        let nbytes = fs::metadata(&path)?.len();
        Ok(Input { path, nbytes, truth })
    }

    pub(super) fn path_text(&self) -> anyhow::Result<&str> {
        self.path.to_str().context("the cache's path is no UTF-8")
    }

    /// Brings the file into the page cache, so that no system is the one that reads the disk.
    pub(super) fn warm(&self) -> anyhow::Result<()> {
        std::io::copy(&mut File::open(&self.path)?, &mut std::io::sink())?;
        Ok(())
    }
}

/// Text whose words come as often as Zipf's law says: the n-th most frequent one 1/n times as often as the first.
fn write_words(file: &mut impl Write, size: u64) -> anyhow::Result<Value> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let vocabulary = vocabulary(&mut random);
    let law = Zipf::of(vocabulary.len());
    let mut counts = vec![0_u64; vocabulary.len()];
    let (mut nbytes, mut line) = (0_u64, Vec::new());
    while nbytes < size {
        line.clear();
        while line.len() < LINE_BYTES {
            if !line.is_empty() {
                line.push(b' ');
            }
            let rank = law.draw(&mut random);
            counts[rank] += 1;
            line.extend_from_slice(vocabulary[rank].as_bytes());
        }
        line.push(b'\n');
        file.write_all(&line)?;
        nbytes += line.len() as u64;
    }
    Ok(words_answer(vocabulary.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()))
}

/// Distinct words, short ones first; in one of a hundred there is a letter that is not ASCII.
fn vocabulary(random: &mut ChaCha8Rng) -> Vec<String> {
    const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxz";
    const VOWELS: &[u8] = b"aeiouy";
    let mut seen: HashSet<String> = HashSet::new();
    let mut words = Vec::with_capacity(VOCABULARY);
    while words.len() < VOCABULARY {
        let rank = words.len() as f64 + 1.0;
        let letters = (1.5 + 0.8 * rank.log10()) as usize + random.random_range(0..3);
        let mut word = String::new();
        let begins_with_vowel = random.random_range(0..2);
        for at in 0..letters {
            let among = if (at + begins_with_vowel) % 2 == 0 { CONSONANTS } else { VOWELS };
            word.push(char::from(among[random.random_range(0..among.len())]));
        }
        if random.random_range(0..100) == 0 {
            word.push('é');
        }
        // What is taken already is made longer, so that there are enough short ones.
        while !seen.insert(word.clone()) {
            word.push(char::from(CONSONANTS[random.random_range(0..CONSONANTS.len())]));
        }
        words.push(word);
    }
    words
}

/// Draws ranks by Zipf's law, by Walker's alias method.
struct Zipf {
    /// For each rank how much of its column is its own, of 2^32, and whose the rest is.
    columns: Vec<(u32, u32)>,
}

impl Zipf {
    fn of(ranks: usize) -> Zipf {
        let weights = (1..=ranks).map(|rank| 1.0 / rank as f64);
        let mean = weights.clone().sum::<f64>() / ranks as f64;
        let mut shares: Vec<f64> = weights.map(|weight| weight / mean).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..ranks).partition(|&rank| shares[rank] < 1.0);
        let mut columns: Vec<(u32, u32)> = (0..ranks).map(|rank| (u32::MAX, rank as u32)).collect();
        while let (Some(small), Some(&large)) = (poor.pop(), rich.last()) {
            columns[small] = ((shares[small] * f64::from(u32::MAX)) as u32, large as u32);
            shares[large] -= 1.0 - shares[small];
            if shares[large] < 1.0 {
                rich.pop();
                poor.push(large);
            }
        }
        Zipf { columns }
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> usize {
        let column = random.random_range(0..self.columns.len());
        let (own, other) = self.columns[column];
        if random.random::<u32>() <= own { column } else { other as usize }
    }
}

#[derive(Serialize)]
struct Account<'a> {
    id: u64,
    name: &'a str,
    transactions: Vec<Transaction>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Transaction {
    transaction_id: u64,
    amount: i64,
}

/// Accounts in JSON lines, as those of Dask's tutorial.
fn write_accounts(file: &mut impl Write, size: u64) -> anyhow::Result<Value> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED + 1);
    let mut sums = vec![(0_u64, 0_i64); NAMES.len()];
    let (mut nbytes, mut id, mut transaction_id, mut line) = (0_u64, 0_u64, 0_u64, Vec::new());
    while nbytes < size {
        let number = random.random_range(0..NAMES.len());
        let transactions = (0..random.random_range(0..=TRANSACTIONS_MAX)).map(|_| {
            transaction_id += random.random_range(1..10_u64);
            Transaction { transaction_id, amount: random.random_range(-2_000..5_000) }
        });
        let account = Account { id, name: NAMES[number], transactions: transactions.collect() };
        sums[number].0 += account.transactions.len() as u64;
        sums[number].1 += account.transactions.iter().map(|transaction| transaction.amount).sum::<i64>();
        line.clear();
        serde_json::to_writer(&mut line, &account)?;
        line.push(b'\n');
        file.write_all(&line)?;
        nbytes += line.len() as u64;
        id += 1;
    }
    let wanted = NAMES.iter().zip(sums).filter(|(name, _)| super::is_wanted(name));
    Ok(accounts_answer(wanted.map(|(name, sums)| ((*name).to_owned(), sums)).collect()))
}

/// Of the words and how often each comes: how many there are, how many distinct ones, and a checksum of all in order.
pub(super) fn words_summary(mut counts: Vec<(String, u64)>) -> Value {
    counts.sort_unstable();
    let mut checksum = crc32fast::Hasher::new();
    for (word, count) in &counts {
        checksum.update(format!("{word} {count}\n").as_bytes());
    }
    let words: u64 = counts.iter().map(|(_, count)| count).sum();
    json!({ "words": words, "distinct": counts.len(), "crc32": checksum.finalize() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_comes_twice_as_often_as_the_second() {
        let law = Zipf::of(1_000);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut counts = vec![0_u32; 1_000];
        (0..1_000_000).for_each(|_| counts[law.draw(&mut random)] += 1);
        // 1 / (1 + 1/2 + ... + 1/1000) of a million is 133,600.
        assert!(counts[0].abs_diff(133_600) < 3_000 && counts[1].abs_diff(66_800) < 3_000, "{:?}", &counts[..4]);
        assert!(counts[999] < 300);
    }
}
