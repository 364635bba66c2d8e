//! What survives a scheduler: jobs that their clients resume, and outputs and tasks that workers still have.

use crate::ids::{ClientId, JobId, TaskId};
use crate::spec::TaskSpec;
use crate::wire::{Inventory, JobSummary, KeptName};

use super::pool::Slot;
use super::{Effects, Scheduler};

impl Scheduler {
    pub(super) fn on_resume(
        &mut self,
        _client: ClientId,
        _token: u64,
        _job: JobId,
        _name: String,
        _effects: &mut Effects,
    ) {
    }
    pub(super) fn on_restore(
        &mut self,
        _client: ClientId,
        _job: JobId,
        _token: u64,
        _tasks: Vec<TaskSpec>,
        _values: &[(u32, u64)],
        _end: Option<u32>,
        _effects: &mut Effects,
    ) {
    }
    pub(super) fn on_keep(
        &mut self,
        _client: ClientId,
        _token: u64,
        _name: KeptName,
        _job: JobId,
        _wanted: Vec<u32>,
        _effects: &mut Effects,
    ) {
    }
    pub(super) fn on_forget(&mut self, _client: ClientId, _token: u64, _name: KeptName, _effects: &mut Effects) {}
    pub(super) fn summaries(&self) -> Vec<JobSummary> {
        Vec::new()
    }
    pub(super) fn kept_tasks(&self, _name: &KeptName) -> Option<Vec<TaskId>> {
        None
    }
    pub(super) fn on_watch(&mut self, _client: ClientId, _tasks: &[TaskId], _effects: &mut Effects) {}
    pub(super) fn on_inventory(&mut self, _slot: Slot, _inventory: Inventory, _effects: &mut Effects) {}
}
