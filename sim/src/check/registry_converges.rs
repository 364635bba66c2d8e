//! When nothing is under way any more, what the scheduler believes to be on a node is what that node holds.

use std::collections::BTreeSet;

use starling_core::ids::TaskId;
use starling_core::scheduler::Scheduler;

use crate::node::SimNode;

/// Whether scheduler and nodes agree; gives of how many copies. Values that a client has put somewhere without saying so (an orphan) are nobody's.
pub(crate) fn check(
    scheduler: &Scheduler,
    nodes: &[SimNode],
    is_orphan: impl Fn(TaskId) -> bool,
) -> Result<u64, String> {
    let mut agreed = 0;
    for node in nodes {
        let Some(worker) = node.session else { continue };
        let believed: BTreeSet<TaskId> = scheduler.has_what(worker).into_iter().collect();
        let held = node.machine().has_what().into_iter().map(|(task, _)| task);
        let held: BTreeSet<TaskId> = held.filter(|task| !task.is_part() && !is_orphan(*task)).collect();
        // A client may say that it has put a value where that was refused.
        let is_put = |task: TaskId| scheduler.explain(task).name == "scattered value";
        let missing = believed.iter().find(|task| !held.contains(task) && !is_orphan(**task) && !is_put(**task));
        if let Some(task) = missing {
            return Err(format!("node {} is believed to hold {task} and does not", node.number()));
        }
        if let Some(task) = held.iter().find(|task| !believed.contains(task)) {
            return Err(format!("node {} holds {task}, and the scheduler does not know", node.number()));
        }
        agreed += held.len() as u64;
    }
    Ok(agreed)
}
