//! No node runs more than its resources allow, what was cancelled and still runs included; and a task that is restricted
//! to workers is given to no other.

use std::collections::BTreeMap;

use starling_core::ids::WorkerId;
use starling_core::scheduler::Scheduler;
use starling_core::spec::{Requirements, Resources};
use starling_core::wire::{Assignment, WorkerInfo};

use crate::plan::has_resources;

/// Whether what is on a node's threads fits into what it has.
pub(crate) fn check_threads<'a>(
    number: u8,
    resources: &Resources,
    running: impl Iterator<Item = &'a Requirements>,
) -> Result<(), String> {
    let mut taken: BTreeMap<&String, u64> = BTreeMap::new();
    for (name, amount) in running.flat_map(|requirements| &requirements.resources) {
        *taken.entry(name).or_default() += amount.0;
    }
    for (name, taken) in taken {
        let has = resources.get(name).map_or(0, |amount| amount.0);
        if taken > has {
            return Err(format!("node {number} uses {taken} of {name} and has {has}"));
        }
    }
    Ok(())
}

/// Whether a worker may run what the scheduler has just given it.
pub(crate) fn check_assignment(scheduler: &Scheduler, worker: WorkerId, given: &Assignment) -> Result<(), String> {
    let Some(requirements) = given.requirements.as_deref() else { return Ok(()) };
    let task = given.task;
    let Some(view) = scheduler.worker(worker) else { return Err(format!("{task} was given to nobody")) };
    if !has_resources(&view.info.resources, requirements) {
        return Err(format!("{task} needs more than {worker:?} has"));
    }
    if requirements.workers.is_empty() || is_named(&view.info, requirements) {
        return Ok(());
    }
    let could_run = |info: &WorkerInfo| is_named(info, requirements) && has_resources(&info.resources, requirements);
    if requirements.allow_other_workers && !scheduler.workers().iter().any(|view| could_run(&view.info)) {
        return Ok(());
    }
    Err(format!("{task} is restricted to {:?} and was given to {}", requirements.workers, view.info.name))
}

fn is_named(info: &WorkerInfo, requirements: &Requirements) -> bool {
    let id = info.node.hex();
    let is_it = |name: &String| *name == info.name || *name == info.host || id.starts_with(name.as_str());
    requirements.workers.iter().any(is_it)
}
