//! The cluster's metadata: a tree of JSON objects, kept as its leaves, so that no JSON is read here.
//!
//! A leaf is whatever is no object with keys: a number, a text, an array, `null`, or the empty object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ask::{Path, Refused};
use super::state::ENTRY_BYTES;

/// The JSON of an object without keys, which may get some.
const EMPTY_OBJECT: &str = "{}";

/// The leaves, by their paths. No path begins with another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Metadata {
    leaves: BTreeMap<Path, String>,
    /// Bytes of all of them.
    nbytes: u64,
}

/// Whether leaves can be put in the place of what is at `path`: all are there or below, and none is below another.
pub(super) fn check_leaves(path: &[String], leaves: &[(Path, String)]) -> Result<(), Refused> {
    let mut paths: Vec<&Path> = leaves.iter().map(|(path, _)| path).collect();
    paths.sort_unstable();
    let is_nested = |pair: &&[&Path]| pair[1].starts_with(pair[0]);
    let wrong = paths.windows(2).find(is_nested).map(|pair| pair[0]);
    match wrong.or_else(|| paths.iter().find(|leaf| !leaf.starts_with(path)).copied()) {
        Some(path) => Err(Refused::NotAnObject { path: path.clone() }),
        None => Ok(()),
    }
}

pub(super) fn cost(path: &[String], text: &str) -> u64 {
    ENTRY_BYTES + (path.iter().map(String::len).sum::<usize>() + text.len()) as u64
}

impl Metadata {
    pub(super) fn nbytes(&self) -> u64 {
        self.nbytes
    }

    /// Whether something can be at `path`: nothing above it is a leaf but an empty object.
    pub(super) fn check(&self, path: &[String]) -> Result<(), Refused> {
        let above = (0..path.len()).find_map(|parts| self.leaves.get_key_value(&path[..parts]));
        match above {
            Some((above, text)) if text != EMPTY_OBJECT => Err(Refused::NotAnObject { path: above.clone() }),
            _ => Ok(()),
        }
    }

    /// Puts leaves in the place of what is at `path`. Gives the bytes that went and those that came.
    pub(super) fn set(&mut self, path: &[String], leaves: &[(Path, String)]) -> (u64, u64) {
        let before = self.nbytes;
        self.delete(path);
        for parts in 0..path.len() {
            self.remove(&path[..parts]);
        }
        let freed = before - self.nbytes;
        let added = leaves.iter().map(|(path, text)| cost(path, text)).sum();
        self.leaves.extend(leaves.iter().cloned());
        self.nbytes += added;
        (freed, added)
    }

    /// Gives the bytes that went.
    fn remove(&mut self, path: &[String]) -> u64 {
        let freed = self.leaves.remove_entry(path).map_or(0, |(path, text)| cost(&path, &text));
        self.nbytes -= freed;
        freed
    }

    /// Forgets what is at `path`. Gives the bytes that went: 0 if there was nothing.
    pub(super) fn delete(&mut self, path: &[String]) -> u64 {
        let gone: Vec<Path> = self.below(path).map(|(path, _)| path.clone()).collect();
        gone.iter().map(|path| self.remove(path)).sum()
    }

    /// The leaves at `path` and below.
    pub(super) fn below<'a>(&'a self, path: &'a [String]) -> impl Iterator<Item = (&'a Path, &'a String)> {
        self.leaves.range(path.to_vec()..).take_while(move |(leaf, _)| leaf.starts_with(path))
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let paths: Vec<&Path> = self.leaves.keys().collect();
        assert_eq!(self.nbytes, self.leaves.iter().map(|(path, text)| cost(path, text)).sum::<u64>());
        assert!(paths.windows(2).all(|pair| !pair[1].starts_with(pair[0])), "a leaf is below another: {paths:?}");
    }
}
