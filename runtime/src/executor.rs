//! The threads on which tasks run.
//!
//! User code runs here and nowhere else, under `catch_unwind`: a panic costs the task, not the node. The executor
//! decides nothing: the worker machine hands it no more tasks than its threads will soon be free for, which bounds its
//! queue.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::time::Instant;

use bytes::Bytes;
use starling_core::failure::FailureCause;
use starling_core::wire::INLINE_RESULT_BYTES_MAX;
use starling_core::worker::{Event, Execution, HANDED_OUT_PER_THREAD_MAX, Outcome};

use crate::store::{Store, StoreError};
use crate::task::{TaskArgs, Tasks};
use crate::value::Value;

/// Runs a future to its end on an executor's thread. For `async` tasks, which keep their thread while they wait.
///
/// # Panics
/// Outside of a tokio runtime's context; executor threads are always in one.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Handle::current().block_on(future)
}

/// The way to the threads. Dropping it ends each thread once the task it runs has ended; nothing waits for that, since
/// user code cannot be stopped from outside.
pub struct Executor {
    queue: mpsc::SyncSender<Execution>,
}

impl Executor {
    /// `nthreads` threads that take inputs from `store`, put outputs there, and say so by `done`. `done` is called on
    /// the executor's threads and must not block. `async` tasks use `runtime`.
    pub fn start(
        nthreads: u32,
        store: Arc<Store>,
        runtime: tokio::runtime::Handle,
        done: impl Fn(Event) + Send + Sync + 'static,
    ) -> std::io::Result<Executor> {
        watch_panics();
        let (queue, tasks) = mpsc::sync_channel::<Execution>((nthreads * HANDED_OUT_PER_THREAD_MAX) as usize);
        let tasks = Arc::new(Mutex::new(tasks));
        let done = Arc::new(done);
        for number in 0..nthreads {
            let (tasks, store, runtime, done) = (tasks.clone(), store.clone(), runtime.clone(), done.clone());
            std::thread::Builder::new().name(format!("task-{number}")).spawn(move || {
                let _context = runtime.enter();
                while let Some(execution) = next(&tasks) {
                    done(run(execution, &store));
                }
            })?;
        }
        Ok(Executor { queue })
    }

    /// Runs `execution` on a free thread.
    ///
    /// If there is none, which would be a fault of the caller, the task is not run and given back.
    pub fn execute(&self, execution: Execution) -> Result<(), Execution> {
        self.queue.try_send(execution).map_err(|error| match error {
            mpsc::TrySendError::Full(execution) | mpsc::TrySendError::Disconnected(execution) => execution,
        })
    }
}

fn next(tasks: &Mutex<mpsc::Receiver<Execution>>) -> Option<Execution> {
    tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv().ok()
}

/// Runs one task from its inputs in the store to its output in the store.
fn run(execution: Execution, store: &Store) -> Event {
    let started = Instant::now();
    let mut name = String::new();
    // All of it may run the user's code: the task itself, and what encodes or drops its values.
    let outcome = match caught(|| compute(&execution, store, &mut name)) {
        Ok((nbytes, inline)) => Outcome::Stored { nbytes, inline },
        Err(cause) => Outcome::Failed { name, cause: cause.shortened() },
    };
    let run_us = started.elapsed().as_micros() as u64;
    Event::Executed { task: execution.task, attempt: execution.attempt, run_us, outcome }
}

fn compute(execution: &Execution, store: &Store, name: &mut String) -> Result<(u64, Option<Bytes>), FailureCause> {
    let task = Tasks::linked().get(execution.kind).ok_or(FailureCause::UnknownKind)?;
    task.def.name.clone_into(name);
    let inputs = execution.inputs.iter().map(|&input| {
        store.get(input).ok_or_else(|| FailureCause::Codec { message: format!("input {input} is not in the store") })
    });
    let mut args = TaskArgs::new(&execution.payload, inputs.collect::<Result<Vec<Value>, _>>()?)?;
    let value = (task.entries.call)(&mut args)?;
    // An input that came encoded is decoded once, not again for each task that takes it.
    for decoded in args.into_decoded() {
        if let Some(&input) = execution.inputs.get(decoded.number as usize) {
            store.replace_decoded(input, &decoded.encoded, decoded.live);
        }
    }
    let inline = if execution.inline_result { encode_small(&value)? } else { None };
    match store.insert(execution.task, value) {
        Ok(nbytes) => Ok((nbytes, inline)),
        Err(StoreError::Codec(error)) => Err(FailureCause::Codec { message: error.to_string() }),
        Err(full @ StoreError::Full { .. }) => Err(FailureCause::Store { message: full.to_string() }),
    }
}

/// The encoding if it is small enough to ride in the completion.
fn encode_small(value: &Value) -> Result<Option<Bytes>, FailureCause> {
    // An estimate over a few times the limit is not worth the encoding.
    let codec = |message: String| FailureCause::Codec { message };
    if value.nbytes().map_err(|error| codec(error.to_string()))? > 4 * INLINE_RESULT_BYTES_MAX as u64 {
        return Ok(None);
    }
    let encoded = value.encode().map_err(|error| codec(error.to_string()))?;
    let bytes = postcard::to_stdvec(&encoded).map_err(|error| codec(error.to_string()))?;
    Ok((bytes.len() <= INLINE_RESULT_BYTES_MAX).then(|| bytes.into()))
}

thread_local! {
    /// Where the last panic of this thread was, noted by the hook while user code runs under [`caught`].
    static PANIC_AT: RefCell<Option<String>> = const { RefCell::new(None) };
    static IN_TASK: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Notes where tasks panic, and keeps them from printing: the client is told. Other threads' panics go on as before.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IN_TASK.get() {
                PANIC_AT.set(info.location().map(ToString::to_string));
            } else {
                before(info);
            }
        }));
    });
}

/// Runs user code; a panic becomes the task's failure.
fn caught<T>(user: impl FnOnce() -> Result<T, FailureCause>) -> Result<T, FailureCause> {
    IN_TASK.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(user));
    IN_TASK.set(false);
    outcome.unwrap_or_else(|payload| {
        Err(FailureCause::Panicked { message: panic_message(&*payload), location: PANIC_AT.take() })
    })
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a value that is no text".to_owned()
    }
}
