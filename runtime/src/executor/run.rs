//! One task, from its inputs in the store to its output in the store, whatever the user's code does.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Instant;

use bytes::Bytes;
use starling_core::failure::FailureCause;
use starling_core::wire::INLINE_RESULT_BYTES_MAX;
use starling_core::worker::{Event, Execution, Outcome};

use super::Claim;
use crate::store::Store;
use crate::task::{TaskArgs, Tasks};
use crate::value::Value;

/// Runs one task from its inputs in the store to its output in the store. `None` if it was given up meanwhile.
pub(super) fn run(execution: &Execution, store: &Store, claim: &Claim) -> Option<Event> {
    let started = Instant::now();
    let mut name = "";
    // All of it may run the user's code: the task itself, and what encodes or drops its values.
    let computed = caught(|| compute(execution, store, &mut name));
    if !claim.take() {
        // Nobody waits for it, nor for what happens when it is dropped.
        let _ = caught(|| {
            drop(computed);
            Ok(())
        });
        return None;
    }
    let stored = computed.and_then(|(value, inline)| {
        let nbytes = caught(|| Ok(store.insert(execution.task, value)?))?;
        Ok((nbytes, inline))
    });
    let outcome = match stored {
        Ok((nbytes, inline)) => Outcome::Stored { nbytes, inline },
        Err(cause) => Outcome::Failed { name: name.to_owned(), cause: cause.shortened() },
    };
    // 0 would say that it was not run.
    let run_us = (started.elapsed().as_micros() as u64).max(1);
    Some(Event::Executed { task: execution.task, attempt: execution.attempt, run_us, outcome })
}

fn compute(
    execution: &Execution,
    store: &Store,
    name: &mut &'static str,
) -> Result<(Value, Option<Bytes>), FailureCause> {
    let task = Tasks::linked().get(execution.kind).ok_or(FailureCause::UnknownKind)?;
    *name = task.def.name;
    let inputs = execution.inputs.iter().enumerate().map(|(at, &input)| {
        let missing = || FailureCause::Codec { message: format!("input {input} is not in the store") };
        let value = match execution.part.filter(|part| part.covers(at)) {
            Some(part) => store.get_part(input, part.index)?,
            None => store.get(input)?,
        };
        value.ok_or_else(missing)
    });
    let mut args = TaskArgs::new(&execution.payload, inputs.collect::<Result<Vec<Value>, _>>()?)?;
    let value = (task.entries.call)(&mut args)?;
    // An input that came encoded is decoded once, not again for each task that takes it.
    for decoded in args.into_decoded() {
        if let Some(&input) = execution.inputs.get(decoded.number as usize) {
            store.replace_decoded(input, &decoded.encoded, decoded.live);
        }
    }
    // Counting runs the user's code, so it is done here, where the task can still be given up.
    let nbytes = value.nbytes().map_err(codec)?;
    let inline = if execution.inline_result { encode_small(&value, nbytes)? } else { None };
    Ok((value, inline))
}

/// The encoding if it is small enough to ride in the completion.
fn encode_small(value: &Value, nbytes: u64) -> Result<Option<Bytes>, FailureCause> {
    // An estimate over a few times the limit is not worth the encoding.
    if nbytes > 4 * INLINE_RESULT_BYTES_MAX as u64 {
        return Ok(None);
    }
    let encoded = value.encode().map_err(codec)?;
    let bytes = postcard::to_stdvec(&encoded).map_err(codec)?;
    Ok((bytes.len() <= INLINE_RESULT_BYTES_MAX).then(|| bytes.into()))
}

fn codec(error: impl std::fmt::Display) -> FailureCause {
    FailureCause::Codec { message: error.to_string() }
}

thread_local! {
    /// Where the last panic of this thread was, noted by the hook while user code runs under [`caught`].
    static PANIC_AT: RefCell<Option<String>> = const { RefCell::new(None) };
    static IN_TASK: Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Notes where tasks panic, and keeps them from printing: the client is told. Other threads' panics go on as before.
pub(super) fn watch_panics() {
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

/// Runs what is no user code in the middle of a task: a panic there is a fault of ours, and prints.
pub(super) fn outside_task(ours: impl FnOnce()) {
    let was_in_task = IN_TASK.replace(false);
    ours();
    IN_TASK.set(was_in_task);
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
