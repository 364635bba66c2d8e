//! A hash map whose order depends on nothing but its history: no random seed.
//!
//! The machines must do the same on every run, and std's default hasher is seeded at random. Keys here are ids that the
//! cluster itself hands out, or names that a program gives its own tasks, so nobody gains by making them collide.
//! Whoever iterates over one still sorts what becomes an effect.

use std::hash::{BuildHasherDefault, Hasher};

/// What makes the hasher of [`FixedMap`], for other maps.
pub type FixedState = BuildHasherDefault<FixedHasher>;

/// A hash map without a random seed.
#[allow(clippy::disallowed_types, reason = "this is the type with a fixed hasher that the others are told to use")]
pub type FixedMap<K, V> = std::collections::HashMap<K, V, FixedState>;

/// A hash set without a random seed.
#[allow(clippy::disallowed_types, reason = "this is the type with a fixed hasher that the others are told to use")]
pub type FixedSet<K> = std::collections::HashSet<K, FixedState>;

/// Multiplies and folds each word; good enough for dense ids and short names, and a few cycles a word.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedHasher(u64);

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl FixedHasher {
    fn fold(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word ^ 0x517c_c1b7_2722_0a95) * u128::from(MULTIPLIER);
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.fold(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, value: u8) {
        self.fold(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.fold(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
