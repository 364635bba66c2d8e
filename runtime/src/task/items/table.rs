//! Encoded keys, numbered in the order in which they were first seen.
//!
//! Most keys are short words or numbers, and most of the time of a grouping goes into finding them. So a short key stands in
//! its entry, as a word that is compared and hashed at once, beside what is kept for it, and the index tells keys apart by
//! 32 bits of their hashes before it looks at an entry.

use super::block::{BlockBuilder, ItemBlock, encode_to};
use starling_core::failure::FailureCause;

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word) as u128 * MULTIPLIER as u128;
    (product as u64) ^ ((product >> 64) as u64)
}

const fn begin(len: u64) -> u64 {
    mix(0x243f_6a88_85a3_08d3, len)
}

/// A hash of an encoded key that is the same on every node, since it decides which task a key goes to. It is fast and fixed:
/// whoever chooses the keys can make them collide, which costs time and nothing else.
pub fn key_hash(key: &[u8]) -> u64 {
    let mut hash = begin(key.len() as u64);
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(
            hash,
            u64::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]]),
        );
    }
    let mut tail = [0; 8];
    tail[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(mix(hash, u64::from_le_bytes(tail)), MULTIPLIER)
}

/// How long a key may be to stand in its entry.
const SHORT_MAX: usize = 16;

/// [`key_hash`] of a short key, from its bytes as a little-endian word.
fn short_hash(word: u128, len: usize) -> u64 {
    const BEGIN: [u64; SHORT_MAX + 1] = {
        let mut begins = [0; SHORT_MAX + 1];
        let mut len = 0;
        while len <= SHORT_MAX {
            begins[len] = begin(len as u64);
            len += 1;
        }
        begins
    };
    let mut hash = mix(BEGIN[len], word as u64);
    if len >= 8 {
        hash = mix(hash, (word >> 64) as u64);
    }
    if len == SHORT_MAX {
        hash = mix(hash, 0);
    }
    mix(hash, MULTIPLIER)
}

/// The bytes of a short key as a little-endian word, or `None` if it is too long. Reads whole words that overlap, which is
/// faster than to copy so few bytes.
fn short_word(key: &[u8]) -> Option<u128> {
    let len = key.len();
    Some(if let (Some(first), Some(last)) = (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        if len > SHORT_MAX {
            return None;
        }
        u128::from(u64::from_le_bytes(*first)) | u128::from(u64::from_le_bytes(*last)) << ((len - 8) * 8)
    } else if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
        u128::from(u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << ((len - 4) * 8))
    } else if let (Some(first), Some(last)) = (key.first(), key.last()) {
        let middle = u32::from(key[len / 2]) << (len / 2 * 8);
        u128::from(u32::from(*first) | middle | u32::from(*last) << ((len - 1) * 8))
    } else {
        0
    })
}

/// Which of `count` buckets a key belongs to. Taken from the middle of the hash: a table tells keys apart and places them by
/// the lower half, so that must still differ among the keys of one bucket.
pub fn bucket_of(key: &[u8], count: u32) -> usize {
    let middle = (key_hash(key) >> 16) as u32;
    ((u64::from(middle) * u64::from(count.max(1))) >> 32) as usize
}

/// A key as it is looked for.
#[derive(Clone, Copy)]
struct Probe<'a> {
    hash: u32,
    len: u32,
    /// The bytes of a short key as a little-endian word; of a long one 0.
    word: u128,
    /// The bytes of a long key; of a short one they do not matter.
    long: &'a [u8],
}

impl<'a> Probe<'a> {
    fn of(key: &'a [u8]) -> Result<Probe<'a>, FailureCause> {
        Ok(match short_word(key) {
            Some(word) => Probe::short(word, key.len()),
            None => {
                let len = u32::try_from(key.len()).map_err(|_| FailureCause::Codec {
                    message: format!("a key of {} bytes is too large: the limit is 4 GiB", key.len()),
                })?;
                Probe { hash: key_hash(key) as u32, len, word: 0, long: key }
            }
        })
    }

    fn short(word: u128, len: usize) -> Probe<'static> {
        Probe { hash: short_hash(word, len) as u32, len: len as u32, word, long: &[] }
    }

    fn is_short(&self) -> bool {
        self.len as usize <= SHORT_MAX
    }
}

/// A key and what is kept for it.
struct Entry<V> {
    /// A short key's bytes; where a long one begins in `KeyTable::long`.
    key: [u8; SHORT_MAX],
    len: u32,
    hash: u32,
    value: V,
}

impl<V> Entry<V> {
    fn key<'a>(&'a self, long: &'a [u8]) -> &'a [u8] {
        let len = self.len as usize;
        if len <= SHORT_MAX { &self.key[..len] } else { &long[self.begin()..][..len] }
    }

    /// Where a long key begins.
    fn begin(&self) -> usize {
        u128::from_le_bytes(self.key) as usize
    }

    fn is(&self, probe: &Probe<'_>, long: &[u8]) -> bool {
        self.len == probe.len
            && if probe.is_short() { u128::from_le_bytes(self.key) == probe.word } else { self.key(long) == probe.long }
    }
}

/// The keys and what is kept for each.
pub struct KeyTable<V> {
    /// Open addressing, its size a power of two: 0, or a hash's lower half above the number of its entry plus 1.
    index: Vec<u64>,
    entries: Vec<Entry<V>>,
    /// The bytes of the keys that are not short.
    long: Vec<u8>,
}

impl<V> Default for KeyTable<V> {
    fn default() -> KeyTable<V> {
        KeyTable { index: Vec::new(), entries: Vec::new(), long: Vec::new() }
    }
}

/// Where a key is.
enum Place {
    /// In this entry.
    Taken(usize),
    /// Nowhere; it belongs into this place of the index.
    Free(usize),
}

impl<V> KeyTable<V> {
    /// What is kept for `key`.
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        if self.index.is_empty() {
            return None;
        }
        match self.find(&Probe::of(key).ok()?) {
            Place::Taken(at) => Some(&self.entries[at].value),
            Place::Free(_) => None,
        }
    }

    /// What is kept for `key`; made by `make` if the key is new.
    pub fn get_or_insert_with(&mut self, key: &[u8], make: impl FnOnce() -> V) -> Result<&mut V, FailureCause> {
        self.entry(&Probe::of(key)?, make)
    }

    fn entry(&mut self, probe: &Probe<'_>, make: impl FnOnce() -> V) -> Result<&mut V, FailureCause> {
        self.make_room(1)?;
        let at = match self.find(probe) {
            Place::Taken(at) => at,
            Place::Free(place) => {
                let at = self.entries.len();
                let key = if probe.is_short() { probe.word } else { self.long.len() as u128 };
                self.long.extend_from_slice(probe.long);
                self.entries.push(Entry { key: key.to_le_bytes(), len: probe.len, hash: probe.hash, value: make() });
                self.index[place] = slot(probe.hash, at);
                at
            }
        };
        Ok(&mut self.entries[at].value)
    }

    fn find(&self, probe: &Probe<'_>) -> Place {
        let mask = self.index.len() - 1;
        let mut place = probe.hash as usize & mask;
        loop {
            let slot = self.index[place];
            if slot == 0 {
                return Place::Free(place);
            }
            let at = (slot as u32 - 1) as usize;
            if (slot >> 32) as u32 == probe.hash && self.entries[at].is(probe, &self.long) {
                return Place::Taken(at);
            }
            place = (place + 1) & mask;
        }
    }

    /// Keeps the index at most three quarters full with so many keys more, so that a search ends soon.
    fn make_room(&mut self, more: usize) -> Result<(), FailureCause> {
        while self.entries.len() + more > self.index.len() / 4 * 3 {
            self.grow()?;
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<(), FailureCause> {
        let size = (self.index.len() * 2).max(64);
        if size as u64 > 1 << 32 {
            return Err(FailureCause::Error {
                message: "more than 3 billion keys in one partition: use more partitions".into(),
                sources: Vec::new(),
            });
        }
        let mask = size - 1;
        self.index.clear();
        self.index.resize(size, 0);
        for (at, entry) in self.entries.iter().enumerate() {
            let mut place = entry.hash as usize & mask;
            while self.index[place] != 0 {
                place = (place + 1) & mask;
            }
            self.index[place] = slot(entry.hash, at);
        }
        Ok(())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys and values, the keys in the order in which they were first seen.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.entries.iter().map(|entry| (entry.key(&self.long), &entry.value))
    }

    /// Keys and values as a task's output, split into `count` buckets by key.
    pub fn into_buckets(
        self,
        count: u32,
        mut encode: impl FnMut(&V, &mut BlockBuilder) -> Result<(), FailureCause>,
    ) -> Result<super::Buckets, FailureCause> {
        let mut buckets: Vec<(BlockBuilder, BlockBuilder)> = Vec::new();
        buckets.resize_with(count.max(1) as usize, Default::default);
        for (key, value) in self.iter() {
            let (keys, items) = &mut buckets[if count > 1 { bucket_of(key, count) } else { 0 }];
            keys.push(key)?;
            encode(value, items)?;
        }
        Ok(super::Buckets(buckets.into_iter().map(|(keys, items)| keyed(keys.finish(), items.finish())).collect()))
    }
}

/// How many short keys wait until they are looked for together.
const WAITING: usize = 32;

/// Counts for each key, added up.
///
/// In a large table nearly every look-up waits for memory, first for the index and then for the entry. So short keys are
/// looked for many at a time, in passes whose waits overlap.
#[derive(Default)]
pub struct Counts {
    table: KeyTable<u64>,
    waiting: Vec<(u64, Probe<'static>)>,
}

impl Counts {
    /// Adds to a key's count.
    pub fn add(&mut self, key: &[u8], count: u64) -> Result<(), FailureCause> {
        match short_word(key) {
            Some(word) => self.wait(Probe::short(word, key.len()), count),
            None => {
                // In their order, which is that in which keys come out.
                self.look_up()?;
                *self.table.get_or_insert_with(key, || 0)? += count;
                Ok(())
            }
        }
    }

    /// Adds to the count of the encoding of `text`.
    pub fn add_text(&mut self, text: &str, count: u64) -> Result<(), FailureCause> {
        // The encoding is the length, in one byte if it is so short, and then the text.
        if text.len() < SHORT_MAX
            && let Some(word) = short_word(text.as_bytes())
        {
            return self.wait(Probe::short(word << 8 | text.len() as u128, text.len() + 1), count);
        }
        let mut encoded = Vec::with_capacity(text.len() + 5);
        encode_to(text, &mut encoded)?;
        self.add(&encoded, count)
    }

    fn wait(&mut self, probe: Probe<'static>, count: u64) -> Result<(), FailureCause> {
        self.waiting.push((count, probe));
        if self.waiting.len() == WAITING { self.look_up() } else { Ok(()) }
    }

    /// Adds what waits.
    fn look_up(&mut self) -> Result<(), FailureCause> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.table.make_room(self.waiting.len())?;
        let KeyTable { index, entries, .. } = &mut self.table;
        let mask = index.len() - 1;
        let mut slots = [0; WAITING];
        for (slot, (_, probe)) in slots.iter_mut().zip(&self.waiting) {
            *slot = index[probe.hash as usize & mask];
        }
        // Most keys are known, and stand where they are looked for first.
        let mut known = [false; WAITING];
        for ((known, slot), (_, probe)) in known.iter_mut().zip(slots).zip(&self.waiting) {
            let entry = entries.get((slot as u32).wrapping_sub(1) as usize);
            *known = entry.is_some_and(|entry| entry.is(probe, &[]));
        }
        for ((known, slot), (count, probe)) in known.into_iter().zip(slots).zip(&self.waiting) {
            if known {
                self.table.entries[(slot as u32 - 1) as usize].value += count;
            } else {
                *self.table.entry(probe, || 0)? += count;
            }
        }
        self.waiting.clear();
        Ok(())
    }

    /// All counts.
    pub fn finish(mut self) -> Result<KeyTable<u64>, FailureCause> {
        self.look_up()?;
        Ok(self.table)
    }
}

fn slot(hash: u32, at: usize) -> u64 {
    u64::from(hash) << 32 | (at as u64 + 1)
}

fn keyed(keys: ItemBlock, items: ItemBlock) -> super::Bucket {
    super::Bucket { keys: Some(keys), items }
}
