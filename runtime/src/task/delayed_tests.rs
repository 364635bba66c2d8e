use std::sync::Arc;

use starling_core::failure::FailureCause;
use starling_core::ids::JobId;

use super::*;
use crate::task::{Entries, key};

static WORK: TaskDef = TaskDef {
    name: "crate::work",
    signature: "(u64) -> u64",
    version: 0,
    json: None,
    entries: || Entries { call: Arc::new(|_| Err(FailureCause::UnknownKind)), items: None },
};

fn call() -> Call<u64> {
    Call::new(&WORK)
}

#[test]
fn what_is_shared_is_in_the_graph_once() {
    let shared = call().delayed();
    let left = call().arg::<u64>(&shared).delayed();
    let right = call().arg::<Vec<u64>>(vec![shared.clone(), left.clone()]).delayed();
    let mut graph = Graph::new();
    let keys = [&left, &right, &left].map(|delayed| graph.add_delayed(delayed).unwrap().name().to_owned());
    assert_eq!((graph.len(), &keys[0]), (3, &keys[2]));
    let lowered = graph.into_parts().graph.lower(JobId(0), 0).unwrap();
    let inputs: Vec<&[u32]> = lowered.tasks.iter().map(|task| task.inputs.as_slice()).collect();
    assert_eq!(inputs, [&[][..], &[0], &[0, 1]]);
}

#[test]
fn named_tasks_and_delayed_calls_take_each_other() {
    let mut graph = Graph::new();
    let delayed = call().arg::<u64>(key("named")).delayed();
    graph.add("last", call().arg::<u64>(&delayed)).unwrap();
    graph.add("named", call()).unwrap();
    let lowered = graph.into_parts().graph.lower(JobId(0), 5).unwrap();
    assert_eq!((lowered.ids["named"].index, lowered.ids["last"].index), (5, 7));
}

#[test]
fn a_call_that_is_wrong_is_told_and_the_graph_stays_as_it_was() {
    let wrong = call().replicas(0).delayed();
    let needs = call().arg::<u64>(&wrong).delayed();
    let mut graph = Graph::new();
    assert!(matches!(graph.add_delayed(&needs), Err(ClientError::BadOptions { .. })));
    assert!(matches!(graph.add("a", call().arg::<u64>(&needs)), Err(ClientError::BadOptions { .. })));
    graph.add("a", call()).unwrap();
    let good = call().delayed();
    assert!(matches!(graph.add("a", call().arg::<u64>(&good)), Err(ClientError::Graph(_))));
    assert_eq!(graph.len(), 1);
}

#[test]
fn a_long_chain_is_lowered_and_dropped_without_recursion() {
    let mut link = call().delayed();
    for _ in 0..100_000 {
        link = call().arg::<u64>(&link).delayed();
    }
    let small_stack = std::thread::Builder::new().stack_size(256 * 1024);
    let lowering = move || {
        let lowered = link.graph().unwrap().into_parts().graph.lower(JobId(0), 0).unwrap();
        drop(link);
        lowered.tasks.len()
    };
    assert_eq!(small_stack.spawn(lowering).unwrap().join().unwrap(), 100_001);
}
