//! When everything is released, nothing is left anywhere.

use starling_core::ids::TaskId;
use starling_core::scheduler::Scheduler;

use crate::node::SimNode;

/// Whether nothing is left. Values that a client has put somewhere without saying so (an orphan) may be.
pub(crate) fn check(
    scheduler: &Scheduler,
    nodes: &[SimNode],
    is_orphan: impl Fn(TaskId) -> bool,
) -> Result<(), String> {
    let left = scheduler.counts();
    if left.total() > 0 {
        return Err(format!("the scheduler still knows tasks: {left:?}"));
    }
    for view in scheduler.workers() {
        if view.processing + view.queued + view.outputs > 0 || view.nbytes + view.occupancy_us > 0 {
            return Err(format!("the scheduler still counts something: {view:?}"));
        }
    }
    nodes.iter().try_for_each(|node| check_node(node, &is_orphan))
}

fn check_node(node: &SimNode, is_orphan: impl Fn(TaskId) -> bool) -> Result<(), String> {
    let (number, machine) = (node.number(), node.machine());
    if let Some(task) = node.store.keys().find(|task| !is_orphan(**task)) {
        return Err(format!("node {number} still stores {task}: its machine knows it: {}", machine.holds(*task)));
    }
    if let Some((task, _)) = machine.has_what().into_iter().find(|(task, _)| !is_orphan(*task)) {
        return Err(format!("node {number} believes to hold {task}"));
    }
    let (assigned, executing) = (machine.assignments_len(), machine.executing_len());
    if assigned + executing + machine.fetches_len() + node.threads_len() > 0 {
        return Err(format!("node {number} still has {assigned} assignments and runs {executing}"));
    }
    Ok(())
}
