//! The executor's threads: what runs when, who has a slot, and what becomes of what was given up. Tasks stop at gates,
//! which the tests open, so that nothing here depends on how fast the machine is.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use starling_core::failure::FailureCause;
use starling_core::ids::{Attempt, JobId, TaskId};
use starling_core::worker::{Event, Execution, Outcome};
use starling_macros::task;
use starling_runtime::executor::{EXTRA_THREADS_MAX, Executor, block_on, current_task};
use starling_runtime::store::Store;
use starling_runtime::task::Call;
use starling_runtime::value::Data;
use tokio::sync::watch;

const DEADLINE: Duration = Duration::from_secs(20);

fn gate(number: u64) -> watch::Sender<bool> {
    static GATES: Mutex<BTreeMap<u64, watch::Sender<bool>>> = Mutex::new(BTreeMap::new());
    GATES.lock().unwrap().entry(number).or_insert_with(|| watch::Sender::new(false)).clone()
}

/// A gate that no other test uses.
fn new_gate() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn open(number: u64) {
    gate(number).send_replace(true);
}

/// Waits as a task should that waits for others.
fn wait_at(number: u64) {
    let mut opened = gate(number).subscribe();
    block_on(async move { opened.wait_for(|is_open| *is_open).await.map(|_| ()).unwrap() });
}

/// Keeps its slot until the gate is open.
fn hold_at(number: u64) {
    let opened = gate(number).subscribe();
    while !*opened.borrow() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[task(crate = starling_runtime)]
fn number(value: u64) -> u64 {
    value
}

#[task(crate = starling_runtime)]
fn waits(number: u64) -> u64 {
    wait_at(number);
    number
}

#[task(crate = starling_runtime)]
async fn waits_async(number: u64) -> u64 {
    gate(number).subscribe().wait_for(|is_open| *is_open).await.map(|_| ()).unwrap();
    number
}

#[task(crate = starling_runtime)]
fn holds(number: u64) -> u64 {
    hold_at(number);
    number
}

#[task(crate = starling_runtime)]
fn waits_and_holds(waited: u64, held: u64) -> u64 {
    wait_at(waited);
    hold_at(held);
    held
}

#[task(crate = starling_runtime)]
fn panics_after(number: u64) -> u64 {
    let mut opened = gate(number).subscribe();
    block_on(async move {
        opened.wait_for(|is_open| *is_open).await.map(|_| ()).unwrap();
        panic!("after all")
    })
}

#[task(crate = starling_runtime)]
fn says_what_it_is() -> String {
    let own = current_task().unwrap();
    let node = own.extension.unwrap().downcast::<String>().unwrap();
    format!("{}#{} {} on {node}", own.task, own.attempt.0, own.user_priority)
}

#[task(crate = starling_runtime)]
fn thread_name() -> String {
    std::thread::current().name().unwrap().to_owned()
}

fn task(index: u32) -> TaskId {
    TaskId::new(JobId(0), index)
}

fn execution<R>(index: u32, call: Call<R>) -> Execution {
    let parts = call.into_parts().unwrap();
    Execution {
        task: task(index),
        attempt: Attempt(1),
        kind: parts.def.kind(),
        payload: parts.payload.into(),
        inputs: Default::default(),
        part: None,
        inline_result: false,
        user_priority: 3,
    }
}

/// An executor, and what its threads say.
struct Threads {
    executor: Executor,
    store: Arc<Store>,
    said: Receiver<Event>,
    _runtime: tokio::runtime::Runtime,
}

impl Threads {
    fn start(nthreads: u32) -> Threads {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = Store::unlimited();
        let (say, said) = sync_channel(10_000);
        let extension = Arc::new("here".to_owned());
        let executor =
            Executor::start(nthreads, store.clone(), runtime.handle().clone(), Some(extension), move |event| {
                say.send(event).unwrap();
            });
        Threads { executor: executor.unwrap(), store, said, _runtime: runtime }
    }

    fn run<R>(&self, index: u32, call: Call<R>) {
        self.executor.execute(execution(index, call)).unwrap();
    }

    /// The next thing that is said, as a short text.
    fn next(&self) -> String {
        match self.said.recv_timeout(DEADLINE).expect("something is said") {
            Event::Suspended { task, attempt } => format!("suspended {}#{}", task.index, attempt.0),
            Event::Resumed { task, attempt } => format!("resumed {}#{}", task.index, attempt.0),
            Event::Executed { task, attempt, outcome, .. } => {
                let outcome = match outcome {
                    Outcome::Stored { .. } => "stored".to_owned(),
                    Outcome::Failed { cause: FailureCause::Panicked { message, .. }, .. } => {
                        format!("panic: {message}")
                    }
                    Outcome::Failed { cause, .. } => cause.to_string(),
                };
                format!("executed {}#{}: {outcome}", task.index, attempt.0)
            }
            other => panic!("an executor does not say {other:?}"),
        }
    }

    fn expect(&self, lines: &[&str]) {
        for line in lines {
            assert_eq!(&self.next(), line);
        }
    }

    fn expect_silence(&self) {
        assert!(self.said.try_recv().is_err());
    }

    fn output<T: Data + Clone>(&self, index: u32) -> T {
        T::clone(&self.store.get(task(index)).unwrap().unwrap().get::<T>().unwrap())
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_task_knows_what_it_is_and_other_threads_are_no_task() {
    let threads = Threads::start(1);
    threads.run(7, says_what_it_is::task());
    threads.expect(&["executed 7#1: stored"]);
    assert_eq!(threads.output::<String>(7), "0.7#1 3 on here");
    assert!(current_task().is_none());
}

#[test]
fn a_task_that_waits_gives_its_slot_up_until_it_goes_on() {
    for asynchronous in [false, true] {
        let threads = Threads::start(1);
        let gate = new_gate();
        if asynchronous {
            threads.run(0, waits_async::task(gate));
        } else {
            threads.run(0, waits::task(gate));
        }
        threads.expect(&["suspended 0#1"]);
        threads.run(1, number::task(1_u64));
        threads.expect(&["executed 1#1: stored"]);
        open(gate);
        threads.expect(&["resumed 0#1", "executed 0#1: stored"]);
    }
}

#[test]
fn a_wait_that_is_over_at_once_keeps_the_slot() {
    let threads = Threads::start(1);
    let gate = new_gate();
    open(gate);
    threads.run(0, waits::task(gate));
    threads.expect(&["executed 0#1: stored"]);
    assert_eq!(threads.executor.threads_len(), 1);
}

#[test]
fn a_panic_after_a_wait_has_its_slot_again() {
    let threads = Threads::start(1);
    let gate = new_gate();
    threads.run(0, panics_after::task(gate));
    threads.expect(&["suspended 0#1"]);
    open(gate);
    threads.expect(&["resumed 0#1", "executed 0#1: panic: after all"]);
}

#[test]
fn nothing_begins_while_tasks_that_went_on_take_all_slots() {
    let threads = Threads::start(1);
    let (waited, first, second) = (new_gate(), new_gate(), new_gate());
    threads.run(0, waits_and_holds::task(waited, first));
    threads.run(1, holds::task(second));
    threads.expect(&["suspended 0#1"]);
    eventually("the second task begun", || gate(second).receiver_count() > 0);
    open(waited);
    threads.expect(&["resumed 0#1"]);
    threads.run(2, number::task(2_u64));
    open(second);
    threads.expect(&["executed 1#1: stored"]);
    // The first still has the only slot.
    let back = threads.executor.take_back(task(2), Attempt(1)).expect("it has not begun");
    threads.executor.execute(back).unwrap();
    open(first);
    threads.expect(&["executed 0#1: stored", "executed 2#1: stored"]);
}

#[test]
fn an_abandoned_task_has_no_slot_and_what_it_returns_is_dropped() {
    let threads = Threads::start(1);
    let gate = new_gate();
    threads.run(0, holds::task(gate));
    threads.run(1, number::task(1_u64));
    eventually("the first task begun", || self::gate(gate).receiver_count() > 0);
    assert!(threads.executor.abandon(task(0), Attempt(1)));
    assert!(!threads.executor.abandon(task(0), Attempt(1)));
    threads.expect(&["executed 1#1: stored"]);
    assert_eq!(threads.executor.abandoned(), 1);
    // The same task may run again beside it, and it is the second that counts.
    let again = Execution { attempt: Attempt(2), ..execution(0, number::task(42_u64)) };
    threads.executor.execute(again).unwrap();
    threads.expect(&["executed 0#2: stored"]);
    open(gate);
    eventually("the abandoned task ended", || threads.executor.abandoned() == 0);
    eventually("the extra thread ended", || threads.executor.threads_len() == 1);
    threads.run(2, number::task(2_u64));
    threads.expect(&["executed 2#1: stored"]);
    threads.expect_silence();
    assert_eq!(threads.output::<u64>(0), 42);
}

#[test]
fn a_task_that_waits_can_be_abandoned_and_says_nothing_any_more() {
    let threads = Threads::start(1);
    let gate = new_gate();
    threads.run(0, waits::task(gate));
    threads.expect(&["suspended 0#1"]);
    assert!(threads.executor.abandon(task(0), Attempt(1)));
    open(gate);
    eventually("the abandoned task ended", || threads.executor.abandoned() == 0);
    threads.run(1, number::task(1_u64));
    threads.expect(&["executed 1#1: stored"]);
    threads.expect_silence();
    assert!(threads.store.get(task(0)).unwrap().is_none());
}

#[test]
fn what_has_not_begun_is_taken_back_or_abandoned_and_never_runs() {
    let threads = Threads::start(1);
    let gate = new_gate();
    threads.run(0, holds::task(gate));
    threads.run(1, number::task(1_u64));
    threads.run(2, number::task(2_u64));
    threads.run(3, number::task(3_u64));
    eventually("the first task begun", || self::gate(gate).receiver_count() > 0);
    assert!(threads.executor.take_back(task(0), Attempt(1)).is_none());
    assert!(threads.executor.take_back(task(1), Attempt(2)).is_none());
    assert_eq!(threads.executor.take_back(task(1), Attempt(1)).unwrap(), execution(1, number::task(1_u64)));
    assert!(threads.executor.abandon(task(2), Attempt(1)));
    assert_eq!(threads.executor.abandoned(), 0);
    open(gate);
    threads.expect(&["executed 0#1: stored", "executed 3#1: stored"]);
    assert!(!threads.executor.abandon(task(3), Attempt(1)));
    threads.expect_silence();
}

#[test]
fn the_next_task_may_be_handed_out_by_the_thread_that_has_just_ended_one() {
    const LINKS: u32 = 1_000;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = Store::unlimited();
    let slot: Arc<OnceLock<Executor>> = Arc::default();
    let (say, said) = sync_channel(1);
    let executor = Executor::start(2, store.clone(), runtime.handle().clone(), None, {
        let slot = slot.clone();
        move |event| {
            let Event::Executed { task, outcome: Outcome::Stored { .. }, .. } = event else { panic!("{event:?}") };
            if task.index + 1 < LINKS {
                slot.wait().execute(execution(task.index + 1, thread_name::task())).unwrap();
            } else {
                say.send(()).unwrap();
            }
        }
    });
    assert!(slot.set(executor.unwrap()).is_ok());
    slot.wait().execute(execution(0, thread_name::task())).unwrap();
    said.recv_timeout(DEADLINE).unwrap();
    assert_eq!(store.len() as u32, LINKS);
}

#[test]
fn more_than_the_queue_holds_is_given_back() {
    let threads = Threads::start(1);
    let gate = new_gate();
    threads.run(0, holds::task(gate));
    eventually("the first task begun", || self::gate(gate).receiver_count() > 0);
    for index in 1..=256 {
        threads.run(index, number::task(1_u64));
    }
    let refused = execution(257, number::task(1_u64));
    assert_eq!(threads.executor.execute(refused.clone()), Err(refused));
    open(gate);
    for index in 0..=256 {
        threads.expect(&[&format!("executed {index}#1: stored")]);
    }
}

#[test]
fn beyond_so_many_extra_threads_a_task_that_waits_keeps_its_slot() {
    const SLOTS: u32 = 64;
    let threads = Threads::start(SLOTS);
    let gate = new_gate();
    let waiting = EXTRA_THREADS_MAX as u32 + SLOTS;
    for index in 0..waiting {
        threads.run(index, waits::task(gate));
    }
    for _ in 0..EXTRA_THREADS_MAX {
        assert!(threads.next().starts_with("suspended"));
    }
    eventually("all of them begun", || self::gate(gate).receiver_count() as u32 == waiting);
    threads.run(waiting, number::task(1_u64));
    assert!(threads.executor.take_back(task(waiting), Attempt(1)).is_some());
    assert_eq!(threads.executor.threads_len() as u32, waiting);
    threads.expect_silence();
    open(gate);
    let mut ended = 0;
    while ended < waiting {
        ended += u32::from(threads.next().starts_with("executed"));
    }
}
