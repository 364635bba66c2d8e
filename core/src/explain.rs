//! Why a task is where it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failure::TaskFailure;
use crate::ids::{Attempt, TaskId};
use crate::scheduler::TaskState;

/// How many inputs or workers an explanation names; of others it gives the number.
pub const NAMED_MAX: usize = 16;

/// Why a task is where it is, as the scheduler sees it at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The task.
    pub task: TaskId,
    /// The name of its function; empty if it is not known.
    pub name: String,
    /// Why.
    pub why: Why,
}

/// A task that another waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The task.
    pub task: TaskId,
    /// The name of its function.
    pub name: String,
    /// Its state.
    pub state: TaskState,
}

/// Why a worker does not get a task now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// The worker's name.
    pub worker: String,
    /// What stands in the way.
    pub what: ObstacleKind,
}

/// What stands between a task and a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObstacleKind {
    /// It has as much work as it should have.
    Full {
        /// How many tasks it has.
        processing: u32,
        /// How long they are expected to take, in microseconds.
        occupancy_us: u64,
    },
    /// The task is restricted to other workers.
    Restricted,
    /// It never has so much of this resource.
    Lacks {
        /// The resource.
        resource: String,
        /// How much the task takes, in thousandths.
        needed: u64,
        /// How much the worker has in all, in thousandths.
        total: u64,
    },
    /// Others use this resource now.
    InUse {
        /// The resource.
        resource: String,
        /// How much the task takes, in thousandths.
        needed: u64,
        /// How much is left, in thousandths.
        left: u64,
    },
    /// Its memory is short.
    Paused,
    /// It is about to leave.
    Retiring,
    /// Nothing: it is about to get a task.
    Free,
}

/// The reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The scheduler does not know it: it never was submitted, or everybody has released it.
    Forgotten,
    /// Its submission is kept for later: the scheduler knows as many tasks as it may.
    Kept {
        /// How many that is.
        tasks_max: u64,
    },
    /// Nobody needs it now; it is kept because it may have to be computed again.
    Released,
    /// It waits for these.
    Waiting {
        /// The inputs that are not there.
        inputs: Vec<Awaited>,
        /// How many more there are.
        more: u32,
    },
    /// It could run, and no worker has room for it.
    Queued {
        /// How many tasks are in the same queue.
        queue_len: u32,
        /// The task that goes next from there.
        next: Option<Awaited>,
        /// What stands in the way.
        obstacles: Vec<Obstacle>,
        /// How many more workers there are.
        more: u32,
    },
    /// It could run, and there is no worker that may run it.
    NoWorker {
        /// What stands in the way at each worker; empty if there is none at all.
        obstacles: Vec<Obstacle>,
        /// How many more workers there are.
        more: u32,
    },
    /// A worker has it.
    Processing {
        /// The worker's name.
        worker: String,
        /// Which try of it this is.
        attempt: Attempt,
        /// How many tasks the worker has, this one included.
        processing: u32,
        /// How many it runs at once.
        nthreads: u32,
        /// The inputs that the same worker computes first.
        inputs: Vec<Awaited>,
        /// Whether it waits for tasks that it has submitted itself.
        is_suspended: bool,
        /// Whether the worker was asked to give it back.
        is_stolen: bool,
    },
    /// It is done.
    Memory {
        /// The workers that hold the output.
        workers: Vec<String>,
        /// The output's size in bytes.
        nbytes: u64,
    },
    /// It has failed.
    Erred(TaskFailure),
}

impl fmt::Display for Explanation {
    /// Several lines for a person, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "task {}", self.task)?;
        } else {
            write!(f, "task {} ({})", self.name, self.task)?;
        }
        match &self.why {
            Why::Forgotten => {
                write!(f, " is not known: it was never submitted, or everybody who held its result has released it")
            }
            Why::Kept { tasks_max } => write!(
                f,
                " was submitted and is kept for later: the scheduler knows {tasks_max} tasks, as many as --tasks-max allows, and \
                 takes more when some of them are released"
            ),
            Why::Released => write!(f, " is released: nobody needs its output now"),
            Why::Waiting { inputs, more } => {
                write!(f, " waits for {} inputs:", inputs.len() as u64 + u64::from(*more))?;
                write_awaited(f, inputs, *more)
            }
            Why::Queued { queue_len, next, obstacles, more } => {
                write!(f, " is queued: its inputs are there, and no worker has room for it")?;
                write!(f, "\n  {queue_len} tasks are in its queue")?;
                if let Some(next) = next {
                    write!(f, "; the next is {next}")?;
                }
                write_obstacles(f, obstacles, *more)
            }
            Why::NoWorker { obstacles, more: _ } if obstacles.is_empty() => {
                write!(f, " could run, but there is no worker: start one with `node --join ADDRESS`")
            }
            Why::NoWorker { obstacles, more } => {
                write!(f, " could run, but no worker may run it:")?;
                write_obstacles(f, obstacles, *more)
            }
            Why::Processing { worker, attempt, processing, nthreads, inputs, is_suspended, is_stolen } => {
                write!(f, " is with worker {worker}, attempt {}", attempt.number())?;
                if *is_suspended {
                    write!(f, ", and waits for tasks that it has submitted itself")?;
                } else if processing > nthreads {
                    write!(f, "; that one runs {nthreads} tasks at once and has {processing}")?;
                }
                if *is_stolen {
                    write!(f, "; it is asked back, because another worker has nothing to do")?;
                }
                if !inputs.is_empty() {
                    write!(f, "\n  the same worker computes its inputs first:")?;
                    write_awaited(f, inputs, 0)?;
                }
                Ok(())
            }
            Why::Memory { workers, nbytes } => {
                write!(f, " is done: {nbytes} bytes on {}", workers.join(", "))
            }
            Why::Erred(failure) => write!(f, " has failed: {failure}"),
        }
    }
}

fn write_awaited(f: &mut fmt::Formatter<'_>, inputs: &[Awaited], more: u32) -> fmt::Result {
    inputs.iter().try_for_each(|input| write!(f, "\n  {input}"))?;
    write_more(f, more)
}

fn write_obstacles(f: &mut fmt::Formatter<'_>, obstacles: &[Obstacle], more: u32) -> fmt::Result {
    obstacles.iter().try_for_each(|obstacle| write!(f, "\n  {}: {}", obstacle.worker, obstacle.what))?;
    write_more(f, more)
}

fn write_more(f: &mut fmt::Formatter<'_>, more: u32) -> fmt::Result {
    if more == 0 { Ok(()) } else { write!(f, "\n  and {more} more") }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), which is {}", self.name, self.task, self.state)
    }
}

impl fmt::Display for ObstacleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::spec::Amount;
        match self {
            ObstacleKind::Full { processing, occupancy_us } => {
                write!(f, "has {processing} tasks, which are expected to take {} ms", occupancy_us / 1000)
            }
            ObstacleKind::Restricted => write!(f, "is none of the workers that the task is restricted to"),
            ObstacleKind::Lacks { resource, needed, total } => {
                write!(f, "has {} of the resource {resource}, and the task takes {}", Amount(*total), Amount(*needed))
            }
            ObstacleKind::InUse { resource, needed, left } => {
                let (left, needed) = (Amount(*left), Amount(*needed));
                write!(f, "has {left} of the resource {resource} left, and the task takes {needed}")
            }
            ObstacleKind::Paused => write!(f, "is paused, because its memory is short"),
            ObstacleKind::Retiring => write!(f, "is about to leave"),
            ObstacleKind::Free => write!(f, "has room: it is about to get a task"),
        }
    }
}
