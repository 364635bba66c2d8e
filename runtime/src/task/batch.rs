//! Many small calls in one task.
//!
//! A task costs the cluster some microseconds and a message there and back, whatever it does. Calls that do less than that are
//! run one after the other by one task each batch, whose output is the list of theirs.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::failure::FailureCause;
use starling_core::ids::KindId;

use super::{Call, CallParts, ClientError, Entries, Input, Linked, TaskArgs, TaskDef, Tasks};
use crate::value::{Encoded, Value};

/// One call of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Inner {
    kind: KindId,
    payload: Bytes,
    /// How many of the batch's inputs are its own: those behind the ones of the calls before it.
    inputs: u32,
}

static BATCH: TaskDef = TaskDef {
    name: "starling::batch",
    signature: "(calls: Vec<Call<R>>) -> Vec<R>",
    version: 0,
    json: None,
    entries: || Entries { call: Arc::new(run), items: None },
};

inventory::submit! { Linked(&BATCH) }

/// Calls of many calls each, and the functions that these are of.
pub type Batches<R> = (Vec<Call<Vec<R>>>, Vec<&'static TaskDef>);

/// The calls, `batch_size` at a time in one call, in their order; and the functions that they are of. A batch is treated as its
/// first call says: priority, retries, timeout and requirements are the batch's.
///
/// # Errors
/// What is wrong with the first call that cannot be submitted.
pub fn batches<R>(calls: impl IntoIterator<Item = Call<R>>, batch_size: usize) -> Result<Batches<R>, ClientError> {
    let mut defs: Vec<&'static TaskDef> = Vec::new();
    let mut batches = Vec::new();
    let mut calls = calls.into_iter().map(Call::into_parts).peekable();
    while calls.peek().is_some() {
        let batch = calls.by_ref().take(batch_size.max(1)).collect::<Result<Vec<CallParts>, _>>()?;
        for parts in &batch {
            // Nearly always they are all of one function.
            if !defs.iter().any(|def| std::ptr::eq(*def, parts.def)) {
                defs.push(parts.def);
            }
        }
        batches.push(one_call(batch));
    }
    Ok((batches, defs))
}

fn one_call<R>(batch: Vec<CallParts>) -> Call<Vec<R>> {
    let first = batch.first().cloned();
    let mut inputs: Vec<Input> = Vec::new();
    let mut inner = Vec::with_capacity(batch.len());
    for parts in batch {
        let count = parts.inputs.len() as u32;
        inner.push(Inner { kind: parts.def.kind(), payload: parts.payload.into(), inputs: count });
        inputs.extend(parts.inputs);
    }
    let call = Call::new(&BATCH).arg::<Vec<Inner>>(inner).with_inputs(inputs);
    first.iter().fold(call, Call::treated_as)
}

/// Runs the calls in their order; the first that fails fails all.
fn run(args: &mut TaskArgs) -> Result<Value, FailureCause> {
    let calls: Arc<Vec<Inner>> = args.shared(0)?;
    let codec = |message: String| FailureCause::Codec { message };
    let mut head = postcard::to_stdvec(&calls.len()).map_err(|error| codec(error.to_string()))?;
    let mut buffers = Vec::new();
    let mut from = 0;
    for (inner, at) in calls.iter().zip(1..) {
        let until = from + inner.inputs as usize;
        let inputs = args.inputs().get(from..until).ok_or_else(|| codec(format!("call {at} lacks inputs")))?.to_vec();
        from = until;
        let task = Tasks::linked().get(inner.kind).ok_or(FailureCause::UnknownKind)?;
        let output = TaskArgs::new(&inner.payload, inputs)
            .and_then(|mut args| (task.entries.call)(&mut args))
            .map_err(|cause| of_call(cause, task.def.name, at, calls.len()))?;
        match output {
            Value::Live(live) => live.encode_behind(&mut head, &mut buffers),
            Value::Encoded(encoded) if encoded.buffers.is_empty() => {
                head.extend_from_slice(&encoded.head);
                Ok(())
            }
            Value::Encoded(_) => return Err(codec(format!("{} gives an encoded value with buffers", task.def.name))),
        }
        .map_err(|error| codec(error.to_string()))?;
    }
    Ok(Value::Encoded(Encoded { head: head.into(), buffers }))
}

/// Says which call it was, where there is a text.
fn of_call(cause: FailureCause, name: &str, at: usize, count: usize) -> FailureCause {
    let located = |message: String| format!("call {at} of {count}, of {name}: {message}");
    match cause {
        FailureCause::Error { message, sources } => FailureCause::Error { message: located(message), sources },
        FailureCause::Codec { message } => FailureCause::Codec { message: located(message) },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Buffer;

    static BYTES: TaskDef = TaskDef {
        name: "crate::bytes",
        signature: "(length: u64) -> (u64, Buffer)",
        version: 0,
        json: None,
        entries: || Entries {
            call: Arc::new(|args| {
                let length: u64 = args.owned(0)?;
                if length == 13 {
                    return Err(FailureCause::Error { message: "no".into(), sources: Vec::new() });
                }
                Ok(Value::live((length, Buffer::from(vec![length as u8; length as usize]))))
            }),
            items: None,
        },
    };

    inventory::submit! { Linked(&BYTES) }

    fn batched(lengths: &[u64], batch_size: usize) -> Vec<Result<Value, FailureCause>> {
        let calls = lengths.iter().map(|length| Call::<(u64, Buffer)>::new(&BYTES).arg::<u64>(*length).retries(3));
        let (batches, defs) = batches(calls, batch_size).unwrap();
        assert!(defs.iter().all(|def| std::ptr::eq(*def, &BYTES)) && defs.len() <= 1);
        let run_one = |batch: Call<Vec<(u64, Buffer)>>| {
            let parts = batch.into_parts().unwrap();
            assert_eq!(parts.options.retries, 3);
            run(&mut TaskArgs::new(&parts.payload, Vec::new()).unwrap())
        };
        batches.into_iter().map(run_one).collect()
    }

    #[test]
    fn a_batch_gives_the_list_of_its_calls_outputs_buffers_included() {
        let outputs = batched(&[1, 0, 3, 2, 5], 2);
        let lists = outputs.into_iter().map(|output| output.unwrap().get::<Vec<(u64, Buffer)>>().unwrap());
        let lengths: Vec<Vec<(u64, usize)>> =
            lists.map(|list| list.iter().map(|(length, bytes)| (*length, bytes.len())).collect()).collect();
        assert_eq!(lengths, [vec![(1, 1), (0, 0)], vec![(3, 3), (2, 2)], vec![(5, 5)]]);
        assert!(batched(&[], 2).is_empty());
        assert_eq!(batched(&[1, 2], 0).len(), 2);
    }

    #[test]
    fn the_first_call_that_fails_fails_its_batch_and_says_which_it_is() {
        let outputs = batched(&[1, 13, 2, 4], 2);
        let Err(FailureCause::Error { message, .. }) = &outputs[0] else { panic!("it did not fail") };
        assert_eq!(message, "call 2 of 2, of crate::bytes: no");
        assert!(outputs[1].is_ok());
    }
}
