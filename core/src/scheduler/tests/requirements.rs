//! Tasks that need something of their worker.

use std::sync::Arc;

use super::env::{Env, spec};
use crate::scheduler::TaskState;
use crate::spec::{Amount, NAME_BYTES_MAX, Requirements, TaskSpec};
use crate::wire::{FromWorker, WorkerStatus};

fn needing(index: u32, inputs: &[u32], resource: &str, amount: u64) -> TaskSpec {
    let resources = [(resource.to_owned(), Amount::whole(amount))].into();
    with(spec(index, inputs), Requirements { resources, ..Requirements::default() })
}

fn restricted(index: u32, workers: &[&str], allow_other_workers: bool) -> TaskSpec {
    let workers = workers.iter().map(|name| (*name).to_owned()).collect();
    with(spec(index, &[]), Requirements { workers, allow_other_workers, ..Requirements::default() })
}

fn with(mut spec: TaskSpec, requirements: Requirements) -> TaskSpec {
    spec.options.requirements = Some(Arc::new(requirements));
    spec
}

#[test]
fn a_resource_is_never_given_out_twice() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| {
        env.join_with(1, &["gpu=2"]);
        env.join_with(2, &[]);
    });
    env.submit((0..3).map(|index| needing(index, &[], "gpu", 1)).collect());
    env.expect(&["w1 < compute 0#1", "w1 < compute 1#1", "c0 < accepted"]);
    assert_eq!(env.state(2), TaskState::Queued);
    env.finish(1, 1, 1);
    env.expect(&["w1 < compute 2#1", "c0 < finished 1: 10 bytes at 1"]);
}

#[test]
fn a_task_that_no_worker_can_run_waits_for_one_that_can() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| env.join_with(1, &["gpu=1"]));
    env.submit(vec![needing(0, &[], "gpu", 2), spec(1, &[])]);
    env.expect(&["w1 < compute 1#1", "c0 < accepted"]);
    assert_eq!(env.state(0), TaskState::NoWorker);
    env.join_with(2, &["gpu=1", "disk=1"]);
    assert_eq!(env.state(0), TaskState::NoWorker);
    env.take();
    env.join_with(3, &["gpu=2.5"]);
    assert!(env.take().contains(&"w3 < compute 0#1".to_owned()));
    env.lose(3);
    assert_eq!(env.state(0), TaskState::NoWorker);
}

#[test]
fn a_task_goes_only_to_the_workers_that_it_names() {
    for name in ["worker 2", "host 2", "02020202", &"02".repeat(32)] {
        let mut env = Env::with(&[], |_| {});
        env.quietly(|env| (1..4).for_each(|worker| env.join_with(worker, &[])));
        env.submit((0..4).map(|index| restricted(index, &[name], false)).collect());
        let lines = env.take();
        assert!(lines.iter().all(|line| line.starts_with("w2 <") || line == "c0 < accepted"), "{name}: {lines:?}");
        assert!(lines.contains(&"w2 < compute 0#1".to_owned()));
        env.lose(2);
        assert_eq!(env.state(0), TaskState::NoWorker, "{name}");
    }
}

#[test]
fn other_workers_are_allowed_only_while_none_of_the_named_is_there() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| env.join_with(1, &[]));
    env.submit(vec![restricted(0, &["worker 2"], true)]);
    env.expect(&["w1 < compute 0#1", "c0 < accepted"]);
    env.quietly(|env| env.join_with(2, &[]));
    env.submit(vec![restricted(1, &["worker 2"], true)]);
    env.expect(&["w2 < compute 1#1", "c0 < accepted"]);
    env.lose(2);
    assert!(env.take().contains(&"w1 < compute 1#2".to_owned()));
}

#[test]
fn what_is_restricted_holds_nobody_else_up() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| {
        env.join_with(1, &["gpu=1"]);
        env.submit((0..20).map(|index| needing(index, &[], "gpu", 1)).collect());
    });
    env.submit(vec![spec(20, &[])]);
    env.expect(&["w1 < compute 20#1", "c0 < accepted"]);
}

#[test]
fn of_the_workers_that_qualify_the_one_with_the_inputs_is_taken() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| {
        env.join_with(1, &["gpu=1"]);
        env.join_with(2, &["gpu=1"]);
        env.join_with(3, &[]);
        env.scatter(0, 1_000, &[2]);
        env.scatter(1, 1_000_000, &[3]);
    });
    env.submit(vec![needing(2, &[0, 1], "gpu", 1)]);
    env.expect(&["w2 < compute 2#1 (0@2 1@3)", "c0 < accepted"]);
}

#[test]
fn the_resources_of_a_cancelled_or_failed_task_are_free_again() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| {
        env.join_with(1, &["gpu=1"]);
        env.submit((0..3).map(|index| needing(index, &[], "gpu", 1)).collect());
    });
    env.release(&[0]);
    env.expect(&["w1 < cancel 0#1", "w1 < compute 1#1"]);
    env.fail(1, 1, 1);
    assert!(env.take().contains(&"w1 < compute 2#1".to_owned()));
}

#[test]
fn a_higher_priority_goes_first_among_the_restricted() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| {
        env.join_with(1, &["gpu=1"]);
        env.submit(vec![needing(0, &[], "gpu", 1), needing(1, &[], "gpu", 1)]);
        let mut urgent = needing(2, &[], "gpu", 1);
        urgent.options.priority = 5;
        env.submit(vec![urgent]);
    });
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 2#1", "c0 < finished 0: 10 bytes at 1"]);
}

#[test]
fn a_paused_worker_gets_nothing_however_few_qualify() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| {
        env.join_with(1, &["gpu=1"]);
        env.worker(1, FromWorker::Status(WorkerStatus { paused: true, ..WorkerStatus::default() }));
    });
    env.submit(vec![needing(0, &[], "gpu", 1)]);
    env.expect(&["c0 < accepted"]);
    assert_eq!(env.state(0), TaskState::Queued);
    env.worker(1, FromWorker::Status(WorkerStatus::default()));
    env.expect(&["w1 < compute 0#1"]);
}

#[test]
fn requirements_out_of_bounds_are_refused() {
    let mut env = Env::new(&[1]);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    env.submit(vec![restricted(0, &[&long], false)]);
    env.expect(&[
        "c0 < rejected: task 0.0 cannot be taken: the name of a resource or worker is empty or longer than 256 bytes",
    ]);
    let many: Vec<String> = (0..65).map(|number| format!("worker {number}")).collect();
    env.submit(vec![restricted(0, &many.iter().map(String::as_str).collect::<Vec<_>>(), false)]);
    env.expect(&["c0 < rejected: task 0.0 cannot be taken: it names more than 64 resources or workers"]);
    assert_eq!(env.scheduler.counts().total(), 0);
}

#[test]
fn a_timeout_goes_to_the_worker() {
    let mut env = Env::new(&[1]);
    let mut limited = spec(0, &[]);
    limited.options.timeout_ms = 1_500;
    env.submit(vec![limited]);
    env.expect(&["w1 < compute 0#1 within 1500 ms", "c0 < accepted"]);
}

#[test]
fn a_worker_that_is_expected_to_be_done_sooner_is_sent_what_waits_for_it() {
    let mut env = Env::with(&[1], |config| config.send_ahead = false);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish_with(1, 0, 1, 10, 2_000);
        env.submit((1..6).map(|index| spec(index, &[])).collect());
        env.join(2, 1);
        env.steal_answer(1, 5, 1, true);
        env.submit(vec![restricted(6, &["worker 1"], false), restricted(7, &["worker 1"], false)]);
        assert_eq!([6, 7].map(|index| env.state(index)), [TaskState::Processing, TaskState::Queued]);
        // From now on, tasks of this kind are expected to take less time.
        env.finish_with(2, 5, 2, 10, 1);
    });
    env.steal_answer(1, 4, 1, false);
    env.expect(&["w1 < compute 7#1"]);
}

#[test]
fn of_many_workers_that_qualify_none_stays_idle() {
    let mut env = Env::with(&[], |_| {});
    env.quietly(|env| (1..41).for_each(|worker| env.join_with(worker, &["gpu=1"])));
    env.submit((0..40).map(|index| needing(index, &[], "gpu", 1)).collect());
    let lines = env.take();
    assert_eq!(lines.iter().filter(|line| line.contains("compute")).count(), 40, "{lines:?}");
}

#[test]
fn what_is_urgent_and_restricted_is_not_kept_out_by_chains() {
    for send_ahead in [false, true] {
        let mut env = Env::with(&[], |config| config.send_ahead = send_ahead);
        env.quietly(|env| env.join_with(1, &["gpu=1"]));
        let chain =
            |first: u32| (first..first + 50).map(move |at| spec(at, &if at == first { vec![] } else { vec![at - 1] }));
        env.quietly(|env| env.submit(chain(0).chain(chain(50)).collect()));
        let mut urgent = needing(100, &[], "gpu", 1);
        urgent.options.priority = 10;
        env.quietly(|env| env.submit(vec![urgent]));
        let mut ended = 0;
        for at in 0..50 {
            for index in [at, at + 50] {
                if env.state(100) != TaskState::Processing {
                    env.finish_with(1, index, 1, 10, 5_000);
                    ended += 1;
                }
            }
        }
        assert!(ended < 6, "it was begun after {ended} links");
    }
}
