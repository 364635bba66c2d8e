//! The threads on which tasks run.
//!
//! User code runs here and nowhere else, under `catch_unwind`: a panic costs the task, not the node. The executor
//! decides nothing: the worker machine hands it no more tasks than its threads will soon be free for, which bounds its
//! queue.
//!
//! **Slots and threads.** So many tasks run at once as there are slots. A task that waits inside ([`block_on`]) gives its
//! slot up for so long, and one that was given up for its time ([`Executor::abandon`]) has none any more; both keep their
//! thread, since a thread cannot be stopped from outside, and the executor makes others. Of these extra threads there are
//! at most [`EXTRA_THREADS_MAX`]: beyond that a task that waits keeps its slot, and an abandoned one is replaced only once
//! another thread has ended. Threads that are not needed any more end when they have been idle for a while.
//!
//! **What an abandoned task returns** is dropped: a thread claims its execution before it stores anything, `abandon`
//! claims it too, and only the first has it.
//!
//! **Hand-off.** Waking a thread costs more than a small task. A thread that has run a task says so by `done`, which may
//! hand out the next one, and then looks into the queue, for some microseconds, before it parks.

mod run;
mod waiting;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use starling_core::ids::{Attempt, TaskId};
use starling_core::worker::{Event, Execution, HANDED_OUT_PER_THREAD_MAX};

use self::run::{run, watch_panics};
pub use self::waiting::block_on;
use crate::store::Store;

/// How many threads there are at most beyond the slots, for tasks that wait or were abandoned.
pub const EXTRA_THREADS_MAX: usize = 1024;

/// How long a thread that has run a task looks for the next one before it parks.
const SPIN: Duration = Duration::from_micros(20);

/// How long an extra thread is idle before it ends.
const EXTRA_IDLE_MAX: Duration = Duration::from_secs(1);

/// What a task may know of itself, and what its executor was given for it.
#[derive(Clone)]
pub struct TaskContext {
    /// The task.
    pub task: TaskId,
    /// Which try of it this is.
    pub attempt: Attempt,
    /// The user's priority of the task: what it submits itself goes before others of the same priority.
    pub user_priority: i32,
    /// What [`Executor::start`] was given.
    pub extension: Option<Arc<dyn Any + Send + Sync>>,
}

/// The task that runs on this thread; `None` on a thread that is no executor's.
pub fn current_task() -> Option<TaskContext> {
    SEAT.with_borrow(|seat| {
        let seat = seat.as_ref()?;
        let (task, attempt, user_priority) = seat.current.get()?;
        Some(TaskContext { task, attempt, user_priority, extension: seat.shared.extension.clone() })
    })
}

/// The way to the threads. Dropping it drops what waits for a thread, and ends each thread once the task it runs has
/// ended; nothing waits for that, since user code cannot be stopped from outside.
pub struct Executor {
    shared: Arc<Shared>,
}

/// What the threads share.
struct Shared {
    nthreads: usize,
    store: Arc<Store>,
    runtime: tokio::runtime::Handle,
    extension: Option<Arc<dyn Any + Send + Sync>>,
    done: Box<dyn Fn(Event) + Send + Sync>,
    state: Mutex<State>,
    wake: Condvar,
    /// The length of the queue, for those who look without the lock.
    queued: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// What was handed out and has not begun.
    queue: VecDeque<Execution>,
    /// One for each thread, by its number.
    seats: Vec<Seat>,
    /// How many threads there are.
    threads: usize,
    /// How many of them run a task that has a slot. More than there are slots only after a task went on that had given
    /// its slot up.
    busy: usize,
    suspended: usize,
    abandoned: usize,
    /// How many will certainly look into the queue before they park.
    looking: usize,
    /// How many wait to be woken, and how many of these were.
    parked: usize,
    woken: usize,
    is_closed: bool,
}

/// What a thread does.
#[derive(Clone)]
enum Seat {
    /// There is no thread of this number.
    Vacant,
    /// Looking for a task, or parked.
    Idle,
    Busy(OnSeat),
    /// Its task waits, and has given its slot up.
    Suspended(OnSeat),
    /// Its task was given up, and has not ended.
    Abandoned,
}

/// A task on a thread.
#[derive(Clone)]
struct OnSeat {
    task: TaskId,
    attempt: Attempt,
    claim: Arc<Claim>,
}

/// Who decides what becomes of an execution: the first to claim it.
#[derive(Default)]
struct Claim(AtomicU8);

impl Claim {
    const FREE: u8 = 0;
    const TAKEN: u8 = 1;

    /// Says whether it was free. The seats' lock orders everything else.
    fn take(&self) -> bool {
        self.0.compare_exchange(Claim::FREE, Claim::TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn reset(&self) {
        self.0.store(Claim::FREE, Ordering::Release);
    }
}

impl Executor {
    /// `nthreads` slots on threads that take inputs from `store`, put outputs there, and say so by `done`. `done` is
    /// called on the executor's threads and must not block; it may hand out further tasks. `async` tasks use `runtime`.
    /// Tasks find `extension` in their [`current_task`].
    pub fn start(
        nthreads: u32,
        store: Arc<Store>,
        runtime: tokio::runtime::Handle,
        extension: Option<Arc<dyn Any + Send + Sync>>,
        done: impl Fn(Event) + Send + Sync + 'static,
    ) -> std::io::Result<Executor> {
        watch_panics();
        let shared = Arc::new(Shared {
            nthreads: nthreads.max(1) as usize,
            store,
            runtime,
            extension,
            done: Box::new(done),
            state: Mutex::default(),
            wake: Condvar::new(),
            queued: AtomicUsize::new(0),
        });
        let executor = Executor { shared };
        let mut state = lock(&executor.shared.state);
        for _ in 0..executor.shared.nthreads {
            executor.shared.spawn(&mut state)?;
        }
        drop(state);
        Ok(executor)
    }

    /// Runs `execution` on a free thread, or on the next that is.
    ///
    /// If more wait than the worker machine ever hands out, which would be a fault of the caller, the task is not run and
    /// given back.
    pub fn execute(&self, execution: Execution) -> Result<(), Execution> {
        let queue_max = self.shared.nthreads * HANDED_OUT_PER_THREAD_MAX as usize;
        let mut state = lock(&self.shared.state);
        if state.is_closed || state.queue.len() >= queue_max {
            return Err(execution);
        }
        state.queue.push_back(execution);
        self.shared.call_threads(&mut state);
        Ok(())
    }

    /// Takes a task back that was handed out. `None` if it has begun, or is not known.
    pub fn take_back(&self, task: TaskId, attempt: Attempt) -> Option<Execution> {
        self.shared.take_from_queue(&mut lock(&self.shared.state), task, attempt)
    }

    /// Gives a task up: its slot is free, its thread counts no longer, and what it still returns is dropped, neither
    /// stored nor told by `done`. Says whether that was possible; if not, the task has ended, and `done` tells how.
    pub fn abandon(&self, task: TaskId, attempt: Attempt) -> bool {
        let mut state = lock(&self.shared.state);
        if self.shared.take_from_queue(&mut state, task, attempt).is_some() {
            return true;
        }
        let is_it = |on: &OnSeat| on.task == task && on.attempt == attempt;
        let Some(number) = state.seats.iter().position(|seat| match seat {
            Seat::Busy(on) | Seat::Suspended(on) => is_it(on) && on.claim.take(),
            Seat::Vacant | Seat::Idle | Seat::Abandoned => false,
        }) else {
            return false;
        };
        match std::mem::replace(&mut state.seats[number], Seat::Abandoned) {
            Seat::Suspended(_) => state.suspended -= 1,
            _ => state.busy -= 1,
        }
        state.abandoned += 1;
        self.shared.call_threads(&mut state);
        true
    }

    /// How many threads still run tasks that were given up.
    pub fn abandoned(&self) -> u32 {
        lock(&self.shared.state).abandoned as u32
    }

    /// How many threads there are, whatever they do.
    pub fn threads_len(&self) -> usize {
        lock(&self.shared.state).threads
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.is_closed = true;
        let queue = std::mem::take(&mut state.queue);
        self.shared.wake.notify_all();
        drop(state);
        drop(queue);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// How many threads are there for tasks with a slot.
    fn threads_serving(&self) -> usize {
        self.threads - self.suspended - self.abandoned
    }
}

impl Shared {
    /// There may be more to do than threads that know of it: wakes as many as there is work and slots for, and makes
    /// threads in place of those that count no longer.
    fn call_threads(self: &Arc<Self>, state: &mut State) {
        self.queued.store(state.queue.len(), Ordering::Release);
        while state.queue.len() > state.looking + state.woken
            && state.busy + state.looking + state.woken < self.nthreads
        {
            if state.parked > state.woken {
                state.woken += 1;
                self.wake.notify_one();
            } else if state.threads_serving() < self.nthreads && state.threads < self.nthreads + EXTRA_THREADS_MAX {
                if let Err(error) = self.spawn(state) {
                    // The next task that is handed out tries again.
                    tracing::error!(%error, threads = state.threads, "no thread can be started for a task");
                    break;
                }
            } else {
                break;
            }
        }
    }

    fn spawn(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let vacant = state.seats.iter().position(|seat| matches!(seat, Seat::Vacant));
        let number = vacant.unwrap_or(state.seats.len());
        let shared = Arc::clone(self);
        std::thread::Builder::new().name(format!("task-{number}")).spawn(move || shared.serve(number))?;
        if vacant.is_none() {
            state.seats.push(Seat::Vacant);
        }
        state.seats[number] = Seat::Idle;
        state.threads += 1;
        state.looking += 1;
        Ok(())
    }

    /// A thread's whole life.
    fn serve(self: Arc<Self>, number: usize) {
        let _context = self.runtime.enter();
        SEAT.set(Some(OwnSeat { shared: Arc::clone(&self), number, current: Cell::new(None) }));
        let claim = Arc::new(Claim::default());
        let mut has_run = false;
        while let Some(execution) = self.next(number, &claim, has_run) {
            has_run = true;
            set_current(Some((execution.task, execution.attempt, execution.user_priority)));
            let ended = run(&execution, &self.store, &claim);
            set_current(None);
            self.leave_slot(number);
            if let Some(ended) = ended {
                (self.done)(ended);
            }
        }
        // It holds what the threads share, which would otherwise go only with the thread.
        SEAT.set(None);
    }

    /// The next task for this thread; `None` if the thread is to end. The caller is counted among those that look.
    fn next(&self, number: usize, claim: &Arc<Claim>, has_run: bool) -> Option<Execution> {
        let mut spins = has_run;
        let mut state = lock(&self.state);
        state.looking -= 1;
        loop {
            if state.is_closed {
                break;
            }
            if state.busy < self.nthreads
                && let Some(execution) = state.queue.pop_front()
            {
                self.queued.store(state.queue.len(), Ordering::Release);
                claim.reset();
                let (task, attempt) = (execution.task, execution.attempt);
                state.seats[number] = Seat::Busy(OnSeat { task, attempt, claim: Arc::clone(claim) });
                state.busy += 1;
                return Some(execution);
            }
            if std::mem::take(&mut spins) {
                state.looking += 1;
                drop(state);
                self.spin();
                state = lock(&self.state);
                state.looking -= 1;
                continue;
            }
            let is_extra = state.threads_serving() > self.nthreads;
            let has_waited;
            (state, has_waited) = self.park(state, is_extra);
            if has_waited && state.queue.is_empty() && state.threads_serving() > self.nthreads {
                break;
            }
        }
        state.seats[number] = Seat::Vacant;
        state.threads -= 1;
        None
    }

    /// Looks for a task for a moment, without the lock.
    fn spin(&self) {
        let began = Instant::now();
        while self.queued.load(Ordering::Acquire) == 0 && began.elapsed() < SPIN {
            for _ in 0..16 {
                std::hint::spin_loop();
            }
        }
    }

    /// Waits until the thread is woken, or, if there are more threads than are needed, for a while: then gives true.
    fn park<'a>(&self, mut state: MutexGuard<'a, State>, is_extra: bool) -> (MutexGuard<'a, State>, bool) {
        state.parked += 1;
        let mut has_waited = false;
        if is_extra {
            let waited = self.wake.wait_timeout(state, EXTRA_IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            has_waited = waited.1.timed_out();
            state = waited.0;
        } else {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.parked -= 1;
        // One that wakes by itself may take the place of one that was woken, which then finds nothing: at worst another
        // is woken too often.
        state.woken = state.woken.saturating_sub(1);
        (state, has_waited)
    }

    /// The task on this thread has ended, and the thread looks for the next.
    fn leave_slot(&self, number: usize) {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut state.seats[number], Seat::Idle) {
            Seat::Busy(_) => state.busy -= 1,
            Seat::Suspended(_) => state.suspended -= 1,
            Seat::Abandoned => state.abandoned -= 1,
            Seat::Idle | Seat::Vacant => {}
        }
        state.looking += 1;
    }

    /// The task on this thread gives its slot up. Gives the task, or `None` if it keeps its slot or has none.
    fn suspend(self: &Arc<Self>, number: usize) -> Option<(TaskId, Attempt)> {
        let mut state = lock(&self.state);
        if state.suspended + state.abandoned >= EXTRA_THREADS_MAX {
            return None;
        }
        let Seat::Busy(on) = state.seats[number].clone() else { return None };
        let suspended = (on.task, on.attempt);
        state.seats[number] = Seat::Suspended(on);
        state.busy -= 1;
        state.suspended += 1;
        self.call_threads(&mut state);
        Some(suspended)
    }

    /// The task on this thread goes on. Gives the task, or `None` if it had kept its slot or has lost it.
    fn resume(&self, number: usize) -> Option<(TaskId, Attempt)> {
        let mut state = lock(&self.state);
        let Seat::Suspended(on) = state.seats[number].clone() else { return None };
        let resumed = (on.task, on.attempt);
        state.seats[number] = Seat::Busy(on);
        state.suspended -= 1;
        state.busy += 1;
        Some(resumed)
    }

    fn take_from_queue(&self, state: &mut State, task: TaskId, attempt: Attempt) -> Option<Execution> {
        // The latest are the likeliest not to have begun.
        let at = state.queue.iter().rposition(|queued| queued.task == task && queued.attempt == attempt)?;
        let execution = state.queue.remove(at);
        self.queued.store(state.queue.len(), Ordering::Release);
        execution
    }
}

/// What a thread of an executor knows of itself.
struct OwnSeat {
    shared: Arc<Shared>,
    number: usize,
    current: Cell<Option<(TaskId, Attempt, i32)>>,
}

thread_local! {
    /// `None` on a thread that is no executor's.
    static SEAT: RefCell<Option<OwnSeat>> = const { RefCell::new(None) };
}

fn set_current(task: Option<(TaskId, Attempt, i32)>) {
    SEAT.with_borrow(|seat| {
        if let Some(seat) = seat {
            seat.current.set(task);
        }
    });
}
