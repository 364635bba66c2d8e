//! What all nodes together have, merged from what each has said.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use starling_core::ids::NodeId;

use super::error::FilesError;

/// A file on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its absolute path.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub modified: u64,
}

/// What a node has under a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Nothing is there, or nothing matches.
    Nothing,
    /// The path is this file.
    File(FileEntry),
    /// The path is a directory or a pattern, with these files, in order of their paths.
    Files(Vec<FileEntry>),
}

/// One node's copy of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The node.
    pub node: NodeId,
    /// Its size there.
    pub size: u64,
    /// When it was last written to there, in nanoseconds since 1970.
    pub modified: u64,
}

/// A file, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshFile {
    /// Its absolute path.
    pub path: String,
    /// The copies: at least one, at most one a node.
    pub copies: Vec<Copy>,
}

impl MeshFile {
    /// Its size in bytes; that of the first copy, if they differ.
    pub fn size(&self) -> u64 {
        self.copies.first().map_or(0, |copy| copy.size)
    }

    /// When the newest copy was last written to, in nanoseconds since 1970.
    pub fn modified(&self) -> u64 {
        self.copies.iter().map(|copy| copy.modified).max().unwrap_or(0)
    }

    /// Whether the copies have different sizes.
    pub fn differs(&self) -> bool {
        self.copies.iter().any(|copy| copy.size != self.size())
    }

    /// The nodes that have it.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.copies.iter().map(|copy| copy.node)
    }
}

/// What the workers have under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The path or pattern that was asked for.
    pub path: String,
    /// The workers that were asked, with their names for people.
    pub asked: BTreeMap<NodeId, String>,
    /// Whether it is a directory or a pattern, on one of them at least.
    pub is_directory: bool,
    /// The files, in order of their paths.
    pub files: Vec<MeshFile>,
}

impl Listing {
    /// Merges what nodes have said. `names` are those of all workers that were asked; one that has not answered, because it
    /// has left meanwhile, is no longer counted.
    pub fn merge(path: &str, names: &BTreeMap<NodeId, String>, answers: Vec<(NodeId, Found)>) -> Listing {
        let mut asked = BTreeMap::new();
        let mut is_directory = false;
        let mut files: BTreeMap<String, Vec<Copy>> = BTreeMap::new();
        for (node, found) in answers {
            let name = names.get(&node).cloned().unwrap_or_else(|| node.to_string());
            if asked.insert(node, name).is_some() {
                continue;
            }
            let entries = match found {
                Found::Nothing => Vec::new(),
                Found::File(entry) => vec![entry],
                Found::Files(entries) => {
                    is_directory = true;
                    entries
                }
            };
            for FileEntry { path, size, modified } in entries {
                files.entry(path).or_default().push(Copy { node, size, modified });
            }
        }
        let files = files.into_iter().map(|(path, copies)| MeshFile { path, copies }).collect();
        Listing { path: path.to_owned(), asked, is_directory, files }
    }

    /// Whether nobody has anything under the path.
    pub fn is_nothing(&self) -> bool {
        self.files.is_empty() && !self.is_directory
    }

    /// The nodes that lack a file.
    pub fn lacking<'a>(&'a self, file: &'a MeshFile) -> impl Iterator<Item = NodeId> + 'a {
        let having: BTreeSet<NodeId> = file.nodes().collect();
        self.asked.keys().copied().filter(move |node| !having.contains(node))
    }

    /// Nodes for people: names, with the ids where names are not enough.
    pub fn name_of(&self, nodes: impl IntoIterator<Item = NodeId>) -> String {
        name_of(&self.asked, nodes)
    }

    /// Whether the files can be read as one: they are somewhere, and the same wherever they are.
    ///
    /// # Errors
    /// [`FilesError::Nowhere`], [`FilesError::Differs`], and with `everywhere` [`FilesError::NotEverywhere`].
    pub fn check(&self, everywhere: bool) -> Result<(), FilesError> {
        if self.is_nothing() {
            let asked = self.name_of(self.asked.keys().copied());
            return Err(FilesError::Nowhere { path: self.path.clone(), asked });
        }
        if let Some(file) = self.files.iter().find(|file| file.differs()) {
            return Err(FilesError::Differs { path: file.path.clone(), sizes: self.sizes_of(file) });
        }
        if everywhere && let Some(file) = self.files.iter().find(|file| file.copies.len() < self.asked.len()) {
            let lacking = self.name_of(self.lacking(file));
            return Err(FilesError::NotEverywhere { path: file.path.clone(), lacking });
        }
        Ok(())
    }

    /// Which nodes have which size of a file, for people.
    pub fn sizes_of(&self, file: &MeshFile) -> String {
        let mut sizes: BTreeMap<u64, Vec<NodeId>> = BTreeMap::new();
        for copy in &file.copies {
            sizes.entry(copy.size).or_default().push(copy.node);
        }
        let size =
            |(size, nodes): (&u64, &Vec<NodeId>)| format!("{size} bytes on {}", self.name_of(nodes.iter().copied()));
        sizes.iter().map(size).collect::<Vec<_>>().join(", ")
    }
}

/// Nodes for people. Names that are the same on two nodes, or none, say the id as well.
pub(super) fn name_of(names: &BTreeMap<NodeId, String>, nodes: impl IntoIterator<Item = NodeId>) -> String {
    let one = |node: NodeId| match names.get(&node) {
        Some(name) if !name.is_empty() && names.values().filter(|other| *other == name).count() == 1 => name.clone(),
        Some(name) if !name.is_empty() => format!("{name} ({node})"),
        _ => node.to_string(),
    };
    nodes.into_iter().map(one).collect::<Vec<_>>().join(", ")
}
