//! What a run has met: shows that the seeds go where they should.

use std::collections::BTreeMap;

use starling_core::failure::FailureCause;
use starling_core::wire::{FromWorker, ResultAt, ToClient, ToWorker};

/// What came of a run that went well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events that the machines handled.
    pub events: u64,
    /// Tasks that were submitted.
    pub tasks: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Messages by what they say: shows that a run went where it should go.
    pub said: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Adds another run's figures.
    pub fn add(&mut self, other: &Report) {
        self.events += other.events;
        self.tasks += other.tasks;
        self.faults += other.faults;
        for (name, count) in &other.said {
            *self.said.entry(name).or_default() += count;
        }
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        self.count_many(name, 1);
    }

    pub(crate) fn count_many(&mut self, name: &'static str, count: u64) {
        *self.said.entry(name).or_default() += count;
    }
}

pub(crate) fn name_to_worker(message: &ToWorker) -> &'static str {
    match message {
        ToWorker::Worker { .. } => "peer",
        ToWorker::WorkerGone { .. } => "peer-gone",
        ToWorker::Compute(_) => "compute",
        ToWorker::Cancel { .. } => "cancel",
        ToWorker::Free { .. } => "free",
        ToWorker::Steal { .. } => "steal",
        ToWorker::Acquire { .. } => "acquire",
        ToWorker::Leave => "leave",
    }
}

pub(crate) fn name_from_worker(message: &FromWorker) -> &'static str {
    match message {
        FromWorker::Finished { .. } => "finished",
        FromWorker::Failed { .. } => "failed",
        FromWorker::InputsMissing { .. } => "inputs-missing",
        FromWorker::Inventory(inventory) if !inventory.running.is_empty() => "still-running",
        FromWorker::Inventory(inventory) if !inventory.outputs.is_empty() => "still-here",
        FromWorker::Inventory(_) => "inventory",
        FromWorker::Replica { .. } => "replica",
        FromWorker::StealAnswer { given: true, .. } => "stolen",
        FromWorker::StealAnswer { given: false, .. } => "kept",
        FromWorker::Suspended { .. } => "suspended",
        FromWorker::Resumed { .. } => "resumed",
        FromWorker::NotAcquired { .. } => "not-acquired",
        FromWorker::Status(status) if status.paused => "paused",
        FromWorker::Status(_) => "status",
        FromWorker::Leaving => "leaving",
    }
}

pub(crate) fn name_to_client(message: &ToClient) -> &'static str {
    match message {
        ToClient::Rejected { .. } => "rejected",
        ToClient::Recomputing { .. } => "recomputing",
        ToClient::Finished { result: ResultAt::Inline(_), .. } => "inline",
        ToClient::Failed { failure, .. } => match failure.cause {
            FailureCause::WorkersLost { .. } => "workers-lost",
            FailureCause::DataLost { .. } => "data-lost",
            FailureCause::TimedOut { .. } => "timed-out",
            FailureCause::Cancelled => "cancelled",
            FailureCause::Store { .. } => "store-full",
            _ => "task-failed",
        },
        ToClient::Explained { .. } => "explained",
        ToClient::Done { problem, .. } if problem.is_empty() => "done",
        ToClient::Done { .. } => "not-done",
        _ => "other",
    }
}
