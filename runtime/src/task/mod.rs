//! The tasks that this binary holds, and calls of them.
//!
//! `#[task]` and `task!` write a [`TaskDef`] into the binary; [`Tasks::linked`] collects them before anything runs. A
//! [`Call`] is a task with its arguments, typed by its result; submitted, it becomes a [`Future`], which may be an
//! argument of further calls.

mod args;
mod batch;
mod call;
mod completed;
pub mod delayed;
mod draw;
mod future;
mod graph;
pub mod items;
mod json;

pub use args::{Arg, ArgList, Extract, ExtractList, ExtractListShared, ExtractPlain, Input, IntoArg, TaskArgs};
pub use batch::{Batches, batches};
pub use call::{Call, CallParts, TaskResult};
pub use completed::{AsCompleted, Wait, Waited, as_completed, wait};
pub use delayed::{Delayed, DelayedNode, GraphClient};
pub use draw::DrawError;
pub use future::{ClientError, Future, FutureInner, FutureStatus, ResultSource};
pub use graph::{Graph, GraphParts, Key, key};
/// For the code that the macros write.
#[doc(hidden)]
pub use inventory;
pub use json::{
    ArrayProblem, JsonArgumentError, JsonCallError, JsonEntry, JsonParameter, JsonResultError, encode_json, show_json,
};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use starling_core::failure::FailureCause;
use starling_core::ids::KindId;
use starling_core::wire::KindInfo;

use crate::value::Value;

/// A function of the binary that can be run as a task. Written by the macros.
pub struct TaskDef {
    /// The function's path; for a closure also its line and column.
    pub name: &'static str,
    /// Its signature, as written.
    pub signature: &'static str,
    /// Counted up by hand when the function's meaning changes but its signature does not.
    pub version: u32,
    /// How it is called with arguments in JSON, if it can be.
    pub json: Option<JsonEntry>,
    /// Makes the function's entry points. Called once, at the start.
    pub entries: fn() -> Entries,
}

/// A definition that is linked into the binary. Written by the macros.
pub struct Linked(pub &'static TaskDef);

inventory::collect!(Linked);

impl fmt::Debug for TaskDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskDef({} {})", self.name, self.signature)
    }
}

impl TaskDef {
    /// The id that is the same in every build of the same source.
    pub const fn kind(&self) -> KindId {
        kind_id(self.name, self.signature, self.version)
    }

    /// The definition as it is told to other nodes.
    pub fn info(&self) -> KindInfo {
        KindInfo { kind: self.kind(), name: self.name.to_owned(), signature: self.signature.to_owned() }
    }
}

/// The id of a function: FNV-1a, 64 bits, over name, signature and version.
pub const fn kind_id(name: &str, signature: &str, version: u32) -> KindId {
    let hash = fnv1a(0xcbf2_9ce4_8422_2325, name.as_bytes());
    let hash = fnv1a(hash, b"|");
    let hash = fnv1a(hash, signature.as_bytes());
    KindId(fnv1a(hash, &version.to_le_bytes()))
}

const fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Runs a task: takes the arguments, gives the output.
pub type CallFn = Arc<dyn Fn(&mut TaskArgs) -> Result<Value, FailureCause> + Send + Sync>;

/// How a function is run.
pub struct Entries {
    /// As a task, once.
    pub call: CallFn,
    /// Item by item inside a collection's task, if the function can be.
    pub items: Option<items::ItemFns>,
}

/// A function, ready to run.
pub struct Task {
    /// Its definition.
    pub def: &'static TaskDef,
    /// How it is run.
    pub entries: Entries,
}

/// All tasks of a binary.
pub struct Tasks {
    by_kind: BTreeMap<KindId, Task>,
}

/// Two different functions have the same id. Rename one of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tasks {one} and {other} have the same id: rename one of them")]
pub struct SameKind {
    /// One function.
    pub one: String,
    /// The other.
    pub other: String,
}

impl Tasks {
    /// The tasks that are linked into this binary.
    ///
    /// # Panics
    /// If two tasks have the same id, which is a fault of the binary and shows at its first start.
    pub fn linked() -> &'static Tasks {
        static LINKED: OnceLock<Tasks> = OnceLock::new();
        LINKED.get_or_init(|| match Tasks::collect(inventory::iter::<Linked>().map(|linked| linked.0)) {
            Ok(tasks) => tasks,
            Err(error) => panic!("{error}"),
        })
    }

    fn collect(defs: impl IntoIterator<Item = &'static TaskDef>) -> Result<Tasks, SameKind> {
        let mut by_kind: BTreeMap<KindId, Task> = BTreeMap::new();
        for def in defs {
            if let Some(other) = by_kind.insert(def.kind(), Task { def, entries: (def.entries)() }) {
                return Err(SameKind { one: other.def.name.to_owned(), other: def.name.to_owned() });
            }
        }
        Ok(Tasks { by_kind })
    }

    /// The task of this id.
    pub fn get(&self, kind: KindId) -> Option<&Task> {
        self.by_kind.get(&kind)
    }

    /// All of them, by id.
    pub fn infos(&self) -> Vec<KindInfo> {
        self.by_kind.values().map(|task| task.def.info()).collect()
    }
}
