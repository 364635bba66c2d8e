//! Encoded keys, numbered in the order in which they were first seen.

use hashbrown::HashTable;

use super::block::{BlockBuilder, ItemBlock};
use starling_core::failure::FailureCause;

/// A hash of an encoded key that is the same on every node, since it decides which task a key goes to.
pub fn key_hash(key: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut hash = mix(0x243f_6a88_85a3_08d3, key.len() as u64);
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

/// Which of `count` buckets a key belongs to. Taken from the middle of the hash: a table tells keys apart by the highest
/// bits and places them by the lowest, so these must still differ among the keys of one bucket.
pub fn bucket_of(key: &[u8], count: u32) -> usize {
    let middle = (key_hash(key) >> 16) as u32;
    ((u64::from(middle) * u64::from(count.max(1))) >> 32) as usize
}

/// The keys and what is kept for each.
pub struct KeyTable<V> {
    index: HashTable<u32>,
    keys: Vec<u8>,
    /// Where each key ends in `keys`.
    ends: Vec<usize>,
    values: Vec<V>,
}

impl<V> Default for KeyTable<V> {
    fn default() -> KeyTable<V> {
        KeyTable { index: HashTable::new(), keys: Vec::new(), ends: Vec::new(), values: Vec::new() }
    }
}

fn key_at<'a>(keys: &'a [u8], ends: &[usize], at: usize) -> &'a [u8] {
    let start = if at == 0 { 0 } else { ends[at - 1] };
    &keys[start..ends[at]]
}

impl<V> KeyTable<V> {
    /// What is kept for `key`.
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        let found = self.index.find(key_hash(key), |&at| key_at(&self.keys, &self.ends, at as usize) == key)?;
        self.values.get(*found as usize)
    }

    /// What is kept for `key`; made by `make` if the key is new.
    pub fn get_or_insert_with(&mut self, key: &[u8], make: impl FnOnce() -> V) -> Result<&mut V, FailureCause> {
        let KeyTable { index, keys, ends, values } = self;
        let hash = key_hash(key);
        let at = match index.find(hash, |&at| key_at(keys, ends, at as usize) == key) {
            Some(&at) => at as usize,
            None => {
                let at = values.len();
                let number = u32::try_from(at).map_err(|_| FailureCause::Error {
                    message: "more than 4 billion keys in one partition: use more partitions".into(),
                    sources: Vec::new(),
                })?;
                keys.extend_from_slice(key);
                ends.push(keys.len());
                values.push(make());
                index.insert_unique(hash, number, |&at| key_hash(key_at(keys, ends, at as usize)));
                at
            }
        };
        Ok(&mut values[at])
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The keys and values, the keys in the order in which they were first seen.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.values.iter().enumerate().map(|(at, value)| (key_at(&self.keys, &self.ends, at), value))
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

fn keyed(keys: ItemBlock, items: ItemBlock) -> super::Bucket {
    super::Bucket { keys: Some(keys), items }
}
