use proptest::prelude::*;

use super::*;

fn add(graph: &mut TaskGraph, key: &str, inputs: &[&str]) -> Result<(), GraphError> {
    let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
    graph.add(key.to_owned(), KindId(1), Bytes::from(key.to_owned()), inputs, TaskOptions::default())
}

fn graph(tasks: &[(&str, &[&str])]) -> TaskGraph {
    let mut graph = TaskGraph::new();
    tasks.iter().for_each(|(key, inputs)| add(&mut graph, key, inputs).unwrap());
    graph
}

fn keys_in_order(lowered: &Lowered) -> Vec<String> {
    lowered.tasks.iter().map(|task| String::from_utf8(task.payload.to_vec()).unwrap()).collect()
}

#[test]
fn a_key_that_names_two_tasks_is_refused_and_changes_nothing() {
    let mut graph = graph(&[("a", &[])]);
    assert_eq!(add(&mut graph, "a", &["b"]), Err(GraphError::DuplicateKey { key: "a".into() }));
    assert_eq!(graph.len(), 1);
    assert!(graph.lower(JobId(0), 0).is_ok());
}

#[test]
fn an_input_that_names_no_task_is_named() {
    let error = graph(&[("a", &[]), ("b", &["a", "x"])]).lower(JobId(0), 0).unwrap_err();
    assert_eq!(error, GraphError::DanglingInput { key: "b".into(), input: "x".into() });
}

#[test]
fn the_tasks_of_one_cycle_are_named_in_order() {
    let cyclic = graph(&[("out", &["a"]), ("a", &["leaf", "b"]), ("b", &["c"]), ("c", &["a"]), ("leaf", &[])]);
    let Err(GraphError::Cycle { keys }) = cyclic.lower(JobId(0), 0) else { panic!("no cycle was found") };
    assert_eq!(keys, ["a", "b", "c", "a"]);
    let error = graph(&[("self", &["self"])]).lower(JobId(0), 0).unwrap_err();
    assert_eq!(error.to_string(), "the graph has a cycle: self -> self: remove one of these inputs");
}

#[test]
fn a_cycle_that_no_output_leads_to_is_found() {
    let error = graph(&[("x", &["y"]), ("y", &["x"]), ("out", &[])]).lower(JobId(0), 0).unwrap_err();
    assert!(matches!(error, GraphError::Cycle { .. }));
}

#[test]
fn tasks_are_numbered_depth_first_from_the_first_index_on() {
    let tree = graph(&[
        ("l1", &[]),
        ("l2", &[]),
        ("l3", &[]),
        ("l4", &[]),
        ("m1", &["l1", "l3"]),
        ("m2", &["l2", "l4"]),
        ("top", &["m1", "m2", "m1"]),
    ]);
    let lowered = tree.lower(JobId(7), 100).unwrap();
    assert_eq!(keys_in_order(&lowered), ["l1", "l3", "m1", "l2", "l4", "m2", "top"]);
    assert_eq!(lowered.ids["top"], TaskId::new(JobId(7), 106));
    assert_eq!(lowered.tasks[6].inputs.as_slice(), [102, 105, 102]);
}

#[test]
fn a_job_without_indices_left_takes_no_more_tasks() {
    let error = graph(&[("a", &[]), ("b", &[])]).lower(JobId(0), u32::MAX - 1).unwrap_err();
    assert_eq!(error, GraphError::JobFull);
}

#[test]
fn a_very_long_chain_needs_no_deep_stack() {
    let mut chain = TaskGraph::new();
    for number in (0..200_000u32).rev() {
        let inputs = number.checked_sub(1).map(|before| before.to_string()).into_iter().collect();
        chain.add(number.to_string(), KindId(1), Bytes::new(), inputs, TaskOptions::default()).unwrap();
    }
    let lowered = chain.lower(JobId(0), 0).unwrap();
    assert_eq!(lowered.ids["199999"].index, 199_999);
}

proptest! {
    /// Tasks are added in a random order; edges lead from higher to lower names, so there is no cycle.
    #[test]
    fn every_task_is_numbered_once_and_after_its_inputs(
        shuffled in Just((0..60usize).collect::<Vec<_>>()).prop_shuffle(),
        inputs in prop::collection::vec(prop::collection::vec(0..60usize, 0..4), 60),
    ) {
        let mut graph = TaskGraph::new();
        for number in &shuffled {
            let inputs = inputs[*number].iter().filter(|input| **input < *number).map(usize::to_string).collect();
            let payload = Bytes::from(number.to_string());
            graph.add(number.to_string(), KindId(1), payload, inputs, TaskOptions::default()).unwrap();
        }
        let lowered = graph.lower(JobId(3), 5).unwrap();
        prop_assert_eq!(lowered.tasks.len(), 60);
        for (index, task) in (5..).zip(&lowered.tasks) {
            prop_assert_eq!(task.task, TaskId::new(JobId(3), index));
            let name: usize = std::str::from_utf8(&task.payload).unwrap().parse().unwrap();
            prop_assert_eq!(lowered.ids[&name.to_string()], task.task);
            let wanted: Vec<u32> = inputs[name].iter().filter(|input| **input < name)
                .map(|input| lowered.ids[&input.to_string()].index).collect();
            prop_assert_eq!(task.inputs.as_slice(), wanted.as_slice());
            prop_assert!(task.inputs.iter().all(|input| *input < index));
        }
    }

    /// With one edge backwards added to a path, the cycle that is named exists.
    #[test]
    fn a_named_cycle_is_one(length in 2..50usize, from in 0..50usize, to in 0..50usize) {
        let (low, high) = (from.min(to) % length, from.max(to) % length);
        let (low, high) = (low.min(high), low.max(high));
        let mut graph = TaskGraph::new();
        for number in 0..length {
            let before = number.checked_sub(1).map(|before| before.to_string());
            let back = (number == low).then(|| high.to_string());
            let inputs = before.into_iter().chain(back).collect();
            graph.add(number.to_string(), KindId(1), Bytes::new(), inputs, TaskOptions::default()).unwrap();
        }
        let Err(GraphError::Cycle { keys }) = graph.lower(JobId(0), 0) else { panic!("no cycle was found") };
        prop_assert_eq!(keys.len(), high - low + 2);
        prop_assert_eq!(keys.first(), keys.last());
    }
}

#[test]
fn what_was_submitted_earlier_is_an_input_in_its_place() {
    let mut graph = graph(&[("a", &[])]);
    let inputs = vec![GraphInput::Submitted(7), GraphInput::Key("a".into()), GraphInput::Submitted(3)];
    graph.add_with("b".into(), KindId(1), Bytes::new(), inputs.clone(), TaskOptions::default()).unwrap();
    assert_eq!(graph.tasks()[1], GraphTask { key: "b", kind: KindId(1), inputs: &inputs });
    let lowered = graph.clone().lower(JobId(0), 8).unwrap();
    assert_eq!(lowered.tasks[1].inputs.as_slice(), [7, 8, 3]);
    // Later ones are of the graph, or not known.
    assert_eq!(graph.lower(JobId(0), 7).unwrap_err(), GraphError::DanglingInput { key: "b".into(), input: "7".into() });
}
