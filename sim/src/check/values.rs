//! The oracle of outcomes: it knows the right value of every task of a client, and how else the task may end.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::failure::{FailureCause, TaskFailure};
use starling_core::ids::{JobId, KindId, TaskId, WorkerId};
use starling_core::wire::ResultAt;

use crate::rng::Rng;
use crate::work::{self, FAIL, FLAKY, HANG, Payload};

/// What the client knows of a task.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The right value; `None` if it can have none, because it or what it needs always fails.
    value: Option<u64>,
    /// `None` for a value that the client has put somewhere itself.
    kind: Option<KindId>,
    inputs: Vec<u32>,
    timeout_ms: u32,
    /// Whether the client has given it up.
    is_cancelled: bool,
    /// Whether no node may ever run it.
    is_stuck: bool,
    /// Whether the client holds it and may name it as an input.
    is_held: bool,
    got: Got,
    /// How often the scheduler was told that the result is not where it should be: so often it may be told anew.
    complaints: u32,
    /// Why it has failed, if it was said to.
    failure: Option<TaskFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Nothing,
    /// It is in these stores.
    Place(Vec<WorkerId>),
    /// It was not there, and the scheduler was told.
    Complained,
    Value,
    Failure,
}

/// A task as it is submitted.
#[derive(Clone, Debug)]
pub(crate) struct Submitted {
    pub(crate) kind: KindId,
    pub(crate) payload: Payload,
    pub(crate) inputs: Vec<u32>,
    pub(crate) timeout_ms: u32,
    pub(crate) is_stuck: bool,
    pub(crate) is_held: bool,
}

/// The tasks of a client, and what is due of each.
#[derive(Debug)]
pub(crate) struct Values {
    tasks: BTreeMap<u32, Known>,
    allowed_failures: u32,
    /// Whether stores may be full.
    has_full_stores: bool,
    /// Whether something was to be kept without the client: then what it knows to have failed may be run again for others, and end
    /// anew.
    pub(crate) may_end_anew: bool,
}

impl Values {
    pub(crate) fn new(allowed_failures: u32, has_full_stores: bool) -> Values {
        Values { tasks: BTreeMap::new(), allowed_failures, has_full_stores, may_end_anew: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// All indices.
    pub(crate) fn indices(&self) -> Vec<u32> {
        self.tasks.keys().copied().collect()
    }

    /// The indices of what the client holds.
    pub(crate) fn held(&self) -> Vec<u32> {
        self.tasks.iter().filter(|task| task.1.is_held).map(|task| *task.0).collect()
    }

    /// The client submits a task.
    pub(crate) fn submit(&mut self, index: u32, task: Submitted) {
        let inputs: Option<Vec<u64>> = task.inputs.iter().map(|input| self.tasks.get(input)?.value).collect();
        let may_end_well = task.kind != FAIL && task.kind != HANG;
        let value = inputs.filter(|_| may_end_well).map(|wholes| {
            let taken: Vec<u64> =
                wholes.into_iter().enumerate().map(|(at, whole)| task.payload.take(at, whole)).collect();
            work::result(task.payload, &taken)
        });
        let known = Known {
            value,
            kind: Some(task.kind),
            inputs: task.inputs,
            timeout_ms: task.timeout_ms,
            is_cancelled: false,
            is_stuck: task.is_stuck,
            is_held: task.is_held,
            got: Got::Nothing,
            complaints: 0,
            failure: None,
        };
        self.tasks.insert(index, known);
    }

    /// The client puts a value there itself.
    pub(crate) fn scatter(&mut self, index: u32, value: u64, holders: Vec<WorkerId>) {
        let known = Known {
            value: Some(value),
            kind: None,
            inputs: Vec::new(),
            timeout_ms: 0,
            is_cancelled: false,
            is_stuck: false,
            is_held: true,
            got: Got::Place(holders),
            complaints: 0,
            failure: None,
        };
        self.tasks.insert(index, known);
    }

    /// The client lets a result go. Says whether it held it.
    pub(crate) fn release(&mut self, index: u32) -> bool {
        self.tasks.get_mut(&index).is_some_and(|known| std::mem::take(&mut known.is_held))
    }

    /// The client gives a task up: from now on it may end so.
    pub(crate) fn cancel(&mut self, index: u32) {
        if let Some(known) = self.tasks.get_mut(&index) {
            known.is_cancelled = true;
        }
    }

    /// A task was said to have its output.
    pub(crate) fn finished(
        &mut self,
        task: TaskId,
        nbytes: u64,
        result: ResultAt,
        workers_seen: &BTreeSet<WorkerId>,
    ) -> Result<(), String> {
        let known = self.tasks.get_mut(&task.index).ok_or("an unknown task has finished")?;
        let Some(value) = known.value else { return Err(format!("{task} has finished and must fail")) };
        let ends_anew = self.may_end_anew && known.got == Got::Failure;
        if known.is_held && !ends_anew && matches!(known.got, Got::Place(_) | Got::Value | Got::Failure) {
            if known.complaints == 0 {
                return Err(format!("{task} has finished twice: {:?}", known.got));
            }
            known.complaints -= 1;
        }
        if nbytes != work::nbytes(value) {
            return Err(format!("{task} has {nbytes} bytes instead of {}", work::nbytes(value)));
        }
        known.got = match result {
            ResultAt::Inline(bytes) if bytes.as_ref() == value.to_le_bytes() => Got::Value,
            ResultAt::Inline(_) => return Err(format!("{task} has a wrong inline value")),
            ResultAt::Workers(workers) if workers.iter().all(|worker| workers_seen.contains(worker)) => {
                Got::Place(workers.to_vec())
            }
            ResultAt::Workers(_) => return Err(format!("{task} is on a worker that was never named")),
        };
        Ok(())
    }

    /// A task was said to have failed: for a cause that the task named with it may have, which it needs or is.
    pub(crate) fn failed(&mut self, task: TaskId, failure: &TaskFailure) -> Result<(), String> {
        let known = self.tasks.get(&task.index).ok_or("an unknown task has failed")?;
        if failure.task.job != task.job || !self.needs(task.index, failure.task.index) {
            return Err(format!("{task} has failed because of {}, which it does not need", failure.task));
        }
        let at_fault = self.tasks.get(&failure.task.index).ok_or("a task has failed because of an unknown one")?;
        let is_full = self.has_full_stores;
        let may_be = match &failure.cause {
            FailureCause::Error { .. } => match at_fault.kind {
                Some(FAIL) => true,
                // What a full store costs counts as tries.
                Some(FLAKY) => is_full,
                _ => false,
            },
            FailureCause::TimedOut { timeout_ms } => *timeout_ms > 0 && at_fault.timeout_ms == *timeout_ms,
            FailureCause::WorkersLost { count } => at_fault.kind.is_some() && *count > self.allowed_failures,
            FailureCause::DataLost { input } => at_fault.kind.is_none() && *input == failure.task,
            FailureCause::Cancelled => at_fault.is_cancelled,
            FailureCause::Store { .. } => at_fault.kind.is_some() && is_full,
            FailureCause::Panicked { .. } | FailureCause::UnknownKind | FailureCause::Codec { .. } => false,
        };
        if !may_be {
            return Err(format!("{task} must not fail so: {failure}"));
        }
        let is_had = match known.got {
            Got::Failure => !self.may_end_anew,
            // What was put somewhere fails without a word before.
            Got::Value | Got::Place(_) => known.kind.is_some(),
            Got::Nothing | Got::Complained => false,
        };
        if known.is_held && is_had {
            return Err(format!("{task} has failed and had its outcome: {:?}", known.got));
        }
        if let Some(known) = self.tasks.get_mut(&task.index) {
            known.got = Got::Failure;
            known.failure = Some(failure.clone());
        }
        Ok(())
    }

    /// The client goes on over another link: what it holds is to be announced to it anew, failures apart. Gives the tasks
    /// that it may still need: what it holds, and what is needed to compute that, which nobody needs of what has failed.
    pub(crate) fn resume(&mut self, rng: &mut Rng) -> Vec<u32> {
        let mut needed = BTreeSet::new();
        for (index, known) in self.tasks.iter_mut().rev() {
            if known.is_held || needed.contains(index) {
                needed.insert(*index);
                if known.got != Got::Failure || rng.chance(30) {
                    needed.extend(known.inputs.iter().copied());
                }
            }
            known.complaints = 0;
            if known.got != Got::Failure {
                known.got = Got::Nothing;
            }
        }
        needed.into_iter().collect()
    }

    pub(crate) fn is_held(&self, index: u32) -> bool {
        self.tasks.get(&index).is_some_and(|known| known.is_held)
    }

    /// The right value of a task, if it has one.
    pub(crate) fn value(&self, index: u32) -> Option<u64> {
        self.tasks.get(&index).and_then(|known| known.value)
    }

    pub(crate) fn is_cancelled(&self, index: u32) -> bool {
        self.tasks.get(&index).is_some_and(|known| known.is_cancelled)
    }

    pub(crate) fn failure(&self, index: u32) -> Option<TaskFailure> {
        self.tasks.get(&index).and_then(|known| known.failure.clone())
    }

    pub(crate) fn nbytes(&self, index: u32) -> u64 {
        self.tasks.get(&index).and_then(|known| known.value).map_or(0, work::nbytes)
    }

    /// Whether `input` is `index`, or something that it needs.
    fn needs(&self, index: u32, input: u32) -> bool {
        let mut seen = BTreeSet::new();
        let mut stack = vec![index];
        while let Some(at) = stack.pop() {
            if at == input {
                return true;
            }
            if at > input && seen.insert(at) {
                stack.extend(self.tasks.get(&at).into_iter().flat_map(|known| known.inputs.iter().copied()));
            }
        }
        false
    }

    /// A result was said to be lost, and to be computed again.
    pub(crate) fn recomputing(&mut self, task: TaskId) -> Result<(), String> {
        let known = self.tasks.get_mut(&task.index).ok_or("an unknown task is computed again")?;
        let ends_anew = self.may_end_anew && known.got == Got::Failure;
        if known.is_held && !ends_anew && matches!(known.got, Got::Nothing | Got::Failure) {
            return Err(format!("{task} is computed again and was {:?}", known.got));
        }
        known.got = Got::Nothing;
        Ok(())
    }

    /// Where a result is that is held and was not fetched.
    pub(crate) fn places(&self, index: u32) -> &[WorkerId] {
        match self.tasks.get(&index).filter(|known| known.is_held).map(|known| &known.got) {
            Some(Got::Place(workers)) => workers,
            _ => &[],
        }
    }

    /// A fetch of a result has ended. Says whether there is reason to complain.
    pub(crate) fn fetched(&mut self, task: TaskId, value: Option<u64>) -> Result<bool, String> {
        let Some(known) = self.tasks.get_mut(&task.index).filter(|known| known.is_held) else { return Ok(false) };
        let Got::Place(_) = known.got else { return Ok(false) };
        match value {
            Some(value) if Some(value) == known.value => {
                known.got = Got::Value;
                Ok(false)
            }
            Some(value) => Err(format!("{task} has the value {value} instead of {:?}", known.value)),
            None => {
                known.got = Got::Complained;
                known.complaints += 1;
                Ok(true)
            }
        }
    }

    /// What the client has said of an unreachable result arrives twice.
    pub(crate) fn complain_again(&mut self, index: u32) {
        if let Some(known) = self.tasks.get_mut(&index) {
            known.complaints += 1;
        }
    }

    /// Whether the client has what came of this task, or does not want it.
    pub(crate) fn is_resolved(&self, index: u32) -> bool {
        self.tasks.get(&index).is_none_or(|known| !known.is_held || matches!(known.got, Got::Value | Got::Failure))
    }

    /// What the client holds and has the value of, or was told the place of.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let is_had = |known: &&Known| known.is_held && matches!(known.got, Got::Value | Got::Place(_));
        let held = self.tasks.iter().filter(move |(_, known)| is_had(known));
        held.filter_map(|(index, known)| Some((*index, known.value?)))
    }

    /// What it holds and still waits for, and the results that it was told the place of and does not have.
    pub(crate) fn unresolved(&self, job: JobId) -> Vec<(TaskId, Option<WorkerId>)> {
        let open = self.tasks.keys().copied().filter(|index| !self.is_resolved(*index));
        open.map(|index| (TaskId::new(job, index), self.places(index).first().copied())).collect()
    }

    /// The tasks that no node may ever run and that held tasks without an outcome need.
    pub(crate) fn stuck(&self) -> Vec<u32> {
        let open: Vec<u32> = self.tasks.keys().copied().filter(|index| !self.is_resolved(*index)).collect();
        let stuck = self.tasks.iter().filter(|(_, known)| known.is_stuck && !known.is_cancelled).map(|task| *task.0);
        stuck.filter(|stuck| open.iter().any(|index| self.needs(*index, *stuck))).collect()
    }

    /// Whether a task cannot run, or waits for one that cannot.
    pub(crate) fn is_blocked(&self, index: u32) -> bool {
        self.tasks.iter().any(|(stuck, known)| known.is_stuck && self.needs(index, *stuck))
    }
}
