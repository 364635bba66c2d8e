//! Outputs of which several copies are kept up.

use super::env::{Env, spec, task};
use crate::ids::{Term, WorkerId};
use crate::scheduler::{Event, TaskState};
use crate::spec::TaskSpec;
use crate::wire::{FromClient, FromWorker, WorkerStatus};

fn precious(index: u32, inputs: &[u32], replicas: u8) -> TaskSpec {
    let mut spec = spec(index, inputs);
    spec.options.replicas = replicas;
    spec
}

fn not_acquired(env: &mut Env, worker: u32, index: u32) {
    env.worker(worker, FromWorker::NotAcquired { task: task(index) });
}

/// Workers of one thread each; task 0 is done on the first one, with a copy under way to the second.
fn begun(workers: usize, replicas: u8) -> Env {
    let mut env = Env::new(&vec![1; workers]);
    env.quietly(|env| env.submit(vec![precious(0, &[], replicas)]));
    env.finish(1, 0, 1);
    env
}

#[test]
fn an_output_is_copied_as_soon_as_it_is_there_and_survives_its_first_holder() {
    let mut env = begun(3, 2);
    env.expect(&["w2 < acquire 0@1", "c0 < finished 0: 10 bytes at 1"]);
    env.replica(2, 0);
    env.expect(&[]);
    env.lose(1);
    env.expect(&["w2 < gone 1", "w3 < gone 1", "w3 < acquire 0@2", "c0 < gone 1"]);
    env.replica(3, 0);
    env.lose(2);
    env.expect(&["w3 < gone 2", "c0 < gone 2"]);
    assert_eq!((env.state(0), env.scheduler.who_has(task(0))), (TaskState::Memory, vec![WorkerId(3)]));
    env.release(&[0]);
    env.expect(&["w3 < free 0"]);
}

#[test]
fn all_copies_are_freed_and_those_under_way_when_they_arrive() {
    let mut env = begun(3, 3);
    env.expect(&["w2 < acquire 0@1", "w3 < acquire 0@1", "c0 < finished 0: 10 bytes at 1"]);
    env.replica(2, 0);
    env.release(&[0]);
    env.expect(&["w1 < free 0", "w2 < free 0"]);
    env.replica(3, 0);
    env.expect(&["w3 < free 0"]);
}

#[test]
fn a_worker_that_joins_takes_what_is_short() {
    let mut env = begun(1, 3);
    env.expect(&["c0 < finished 0: 10 bytes at 1"]);
    env.join(2, 1);
    env.expect(&["w1 < worker 2", "w2 < worker 1", "w2 < worker 2", "w2 < acquire 0@1", "c0 < worker 2"]);
    env.replica(2, 0);
    env.join(3, 1);
    let lines = env.take();
    assert!(lines.contains(&"w3 < acquire 0@1,2".to_owned()), "{lines:?}");
    env.replica(3, 0);
    env.join(4, 1);
    assert!(!env.take().iter().any(|line| line.contains("acquire")));
}

#[test]
fn a_worker_that_is_lost_on_the_way_is_replaced() {
    let mut env = begun(3, 2);
    env.take();
    env.lose(2);
    env.expect(&["w1 < gone 2", "w3 < gone 2", "w3 < acquire 0@1", "c0 < gone 2"]);
}

#[test]
fn a_copy_that_nobody_can_take_is_tried_again_after_a_while() {
    let mut env = begun(2, 2);
    env.take();
    not_acquired(&mut env, 2, 0);
    env.tick_after(1_000_000);
    env.expect(&[]);
    env.tick_after(1_000_000);
    env.expect(&["w2 < acquire 0@1"]);
    not_acquired(&mut env, 2, 0);
    env.release(&[0]);
    env.tick_after(5_000_000);
    env.expect(&["w1 < free 0"]);
}

#[test]
fn a_paused_worker_takes_its_copies_later() {
    let mut env = Env::new(&[1, 1]);
    let status = |paused| FromWorker::Status(WorkerStatus { paused, ..WorkerStatus::default() });
    env.quietly(|env| {
        env.worker(2, status(true));
        env.submit(vec![precious(0, &[], 2)]);
    });
    env.finish(1, 0, 1);
    env.expect(&["c0 < finished 0: 10 bytes at 1"]);
    env.worker(2, status(false));
    env.expect(&["w2 < acquire 0@1"]);
}

#[test]
fn a_worker_that_leaves_does_not_take_a_copy_with_it() {
    let mut env = begun(3, 2);
    env.quietly(|env| env.replica(2, 0));
    env.client(0, FromClient::Retire { token: 2, workers: vec![WorkerId(1)] });
    env.expect(&["w1 < free 0", "w3 < acquire 0@2", "w1 < leave", "c0 < done: 0 moved"]);
    env.replica(3, 0);
    assert_eq!(env.scheduler.who_has(task(0)), [WorkerId(2), WorkerId(3)]);
}

#[test]
fn copies_that_were_asked_for_are_kept_up() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| env.scatter(0, 100, &[1]));
    env.client(0, FromClient::Replicate { token: 1, tasks: vec![task(0)], copies: 2 });
    env.expect(&["w2 < acquire 0@1"]);
    env.replica(2, 0);
    env.expect(&["c0 < done: 1 moved"]);
    env.lose(1);
    env.expect(&["w2 < gone 1", "w3 < gone 1", "w3 < acquire 0@2", "c0 < gone 1"]);
}

#[test]
fn many_outputs_are_copied_a_few_at_a_time() {
    let mut env = Env::new(&[100, 1]);
    env.quietly(|env| {
        env.worker(2, FromWorker::Status(WorkerStatus { paused: true, ..WorkerStatus::default() }));
        env.submit((0..100).map(|index| precious(index, &[], 2)).collect());
        (0..100).for_each(|index| env.finish(1, index, 1));
    });
    env.worker(2, FromWorker::Status(WorkerStatus::default()));
    let first = env.take().len();
    assert!((1..100).contains(&first), "{first}");
    env.tick_after(50_000);
    assert_eq!(first + env.take().len(), 100);
}

#[test]
fn copies_are_kept_up_by_the_next_scheduler() {
    let mut env = Env::recovering(Term(1), |config| (config.send_ahead, config.stealing) = (false, false));
    env.quietly(|env| {
        env.join(1, 1);
        env.join(2, 1);
        env.join(3, 1);
        env.inventory(1, &[(0, 1, 10)], &[]);
        env.inventory(2, &[(0, 1, 10)], &[]);
        env.resume(0);
        env.restore(0, vec![precious(0, &[], 3)], 1);
    });
    env.event(Event::Recovered);
    env.expect(&["w3 < acquire 0@1,2", "c0 < finished 0: 10 bytes at 1,2"]);
}

#[test]
fn a_record_with_copies_is_as_small_as_before() {
    assert!(size_of::<crate::scheduler::record::Record>() <= 184, "{}", size_of::<crate::scheduler::record::Record>());
}
