//! Kept outputs as arguments of a client's own tasks.
//!
//! A task's inputs are of its own job. So a kept output of another job comes into this one by a task that has no inputs: on its
//! worker it watches the kept task as any client does, waits without a slot, and gives what it fetches as its own output. It
//! runs where the kept output is, if that is known, and again as any task does if its own output is lost. There is one for each
//! kept output whose futures are held, made when the first call takes one.

use std::sync::Arc;

use starling_core::failure::FailureCause;
use starling_core::ids::TaskId;
use starling_core::spec::TaskSpec;
use starling_core::wire::ResultAt;
use starling_runtime::executor::block_on;
use starling_runtime::task::{Call, ClientError, Entries, Future, Linked, TaskArgs, TaskDef, inventory};
use starling_runtime::value::Value;

use super::sending::Queued;
use super::{Client, KeptResults, State};
use crate::connect::CurrentNode;

/// Near how many holders of a kept output it is copied.
const HOLDERS_MAX: usize = 8;

pub(super) static KEPT_OUTPUT: TaskDef = TaskDef {
    name: "starling::kept_output",
    signature: "(task: TaskId) -> T",
    version: 0,
    json: None,
    entries: || Entries { call: Arc::new(run), items: None },
};

inventory::submit! { Linked(&KEPT_OUTPUT) }

fn run(args: &mut TaskArgs) -> Result<Value, FailureCause> {
    let task: TaskId = args.owned(0)?;
    let failed = |why: String| FailureCause::Error {
        message: format!("the kept output {task} is not to be had: {why}"),
        sources: Vec::new(),
    };
    let node = CurrentNode::get().ok_or_else(|| failed("this is no node's thread".to_owned()))?;
    let client = node.client().map_err(|error| failed(error.to_string()))?;
    client.watch(&[task]).map_err(|error| failed(error.to_string()))?;
    let kept: Future<()> = Future::new(task, Arc::new(KeptResults(client)));
    block_on(kept.value()).map_err(|error| failed(error.to_string()))
}

impl Client {
    /// The number of the task by which this kept output is in the client's own job.
    pub(super) fn borrowed(&self, state: &mut State, task: TaskId, priority: i32) -> Result<u32, ClientError> {
        state.check_not_lost()?;
        let Some(watched) = state.watched.get(&task) else { return Err(ClientError::ForeignFuture(task)) };
        let is_good = |index: &u32| state.tasks.get(index).is_some_and(|entry| !matches!(entry.outcome, Some(Err(_))));
        if let Some(index) = watched.borrowed.filter(is_good) {
            return Ok(index);
        }
        let (failed, holders) = match &watched.entry.outcome {
            Some(Ok(ResultAt::Workers(holders))) => (watched.borrowed, holders.as_slice()),
            _ => (watched.borrowed, &[][..]),
        };
        let near = holders.iter().filter_map(|holder| state.workers.get(holder)).take(HOLDERS_MAX);
        let near: Vec<String> = near.map(|info| info.node.hex()).collect();
        let call = Call::<()>::new(&KEPT_OUTPUT).arg::<TaskId>(task).priority(priority);
        let parts = call.workers(near).allow_other_workers().into_parts()?;
        let kind = self.known_kind(state, &KEPT_OUTPUT)?;
        let index = state.next_index();
        let (payload, options) = (parts.payload.into(), parts.options);
        let spec = TaskSpec { task: TaskId::new(self.job, index), kind, payload, inputs: Default::default(), options };
        state.queue.push_back(Queued::Task(spec));
        if let Some(failed) = failed {
            state.let_go(TaskId::new(self.job, failed));
        }
        if let Some(watched) = state.watched.get_mut(&task) {
            watched.borrowed = Some(index);
        }
        Ok(index)
    }
}
