use super::env::{Env, inner, spec};
use crate::ids::WorkerId;
use crate::scheduler::TaskState;

#[test]
fn tasks_without_inputs_are_spread_over_the_idle_first() {
    let mut env = Env::new(&[2, 1]);
    env.submit((0..3).map(|index| spec(index, &[])).collect());
    let mut lines = env.take();
    lines.sort();
    let threads = lines.iter().filter(|line| line.starts_with("w1")).count();
    assert_eq!((lines.len(), threads), (4, 2), "{lines:?}");
}

#[test]
fn a_task_goes_where_the_fewest_bytes_have_to_be_moved() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| {
        env.scatter(0, 1_000_000_000, &[1]);
        env.scatter(1, 600_000_000, &[2, 3]);
        env.scatter(2, 600_000_000, &[3]);
    });
    env.submit(vec![spec(3, &[0, 1, 2])]);
    env.expect(&["w3 < compute 3#1 (0@1 1@2,3 2@3)", "c0 < accepted"]);
}

#[test]
fn among_equals_the_least_busy_worker_is_taken() {
    let mut env = Env::new(&[4, 4]);
    env.quietly(|env| {
        env.scatter(0, 1_000, &[1]);
        env.scatter(1, 1_000, &[1, 2]);
        env.submit(vec![spec(2, &[0])]);
    });
    env.submit(vec![spec(3, &[1])]);
    env.expect(&["w2 < compute 3#1 (1@1,2)", "c0 < accepted"]);
}

#[test]
fn a_task_goes_to_an_idle_worker_if_fetching_is_quicker_than_waiting() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.scatter(0, 1_000, &[1]);
        env.scatter(1, 1_000_000_000, &[1]);
        env.submit(vec![spec(2, &[0])]);
    });
    // A gigabyte takes longer than the 5 ms that the first task is expected to run.
    env.submit(vec![spec(3, &[1])]);
    env.expect(&["w1 < compute 3#1 (1@1)", "c0 < accepted"]);
    env.submit(vec![spec(4, &[0])]);
    env.expect(&["w2 < compute 4#1 (0@1)", "c0 < accepted"]);
}

#[test]
fn a_worker_is_given_two_tasks_a_thread_while_durations_are_unknown() {
    let mut env = Env::new(&[2]);
    env.submit((0..10).map(|index| spec(index, &[])).collect());
    env.expect(&["w1 < compute 0#1", "w1 < compute 1#1", "w1 < compute 2#1", "w1 < compute 3#1", "c0 < accepted"]);
    assert_eq!(env.state(4), TaskState::Queued);
    // They take a second each: one more than there are threads is enough from now on.
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 4#1", "c0 < finished 0: 10 bytes at 1"]);
    env.finish(1, 1, 1);
    env.expect(&["c0 < finished 1: 10 bytes at 1"]);
    env.finish(1, 2, 1);
    env.expect(&["w1 < compute 5#1", "c0 < finished 2: 10 bytes at 1"]);
}

#[test]
fn short_tasks_are_sent_far_ahead_up_to_a_bound() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit((0..5_000).map(|index| spec(index, &[])).collect()));
    env.finish_with(1, 0, 1, 1, 1);
    let sent = env.take().len();
    assert!((990..1_001).contains(&sent), "{sent} tasks were sent ahead");
    env.finish_with(1, 1, 1, 1, 1);
    env.expect(&["w1 < compute 1001#1", "c0 < finished 1: 1 bytes at 1"]);
}

#[test]
fn what_was_begun_is_finished_before_something_new_is_begun() {
    let mut env = Env::new(&[1]);
    env.submit(vec![inner(0, &[]), inner(1, &[]), inner(2, &[]), inner(3, &[]), spec(4, &[0]), spec(5, &[1, 2, 3])]);
    env.expect(&["w1 < compute 0#1", "w1 < compute 1#1", "c0 < accepted"]);
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 4#1 (0@1)"]);
    env.finish(1, 4, 1);
    env.expect(&["w1 < free 0", "w1 < compute 2#1", "c0 < finished 4: 10 bytes at 1"]);
}

#[test]
fn a_higher_priority_goes_first_even_before_what_was_begun() {
    let mut env = Env::new(&[1]);
    let mut urgent = spec(4, &[]);
    urgent.options.priority = 1;
    env.submit(vec![inner(0, &[]), spec(1, &[]), spec(2, &[0]), spec(3, &[])]);
    env.expect(&["w1 < compute 0#1", "w1 < compute 1#1", "c0 < accepted"]);
    env.submit(vec![urgent]);
    env.expect(&["c0 < accepted"]);
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 4#1"]);
    env.finish(1, 1, 1);
    env.expect(&["w1 < compute 2#1 (0@1)", "c0 < finished 1: 10 bytes at 1"]);
}

#[test]
fn a_worker_that_runs_dry_takes_from_the_longest_queue() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| {
        env.scatter(0, 1_000_000_000, &[1]);
        env.submit(vec![spec(1, &[]), spec(2, &[]), spec(3, &[])]);
        // Nobody is idle any more, so these stay where their input is.
        env.submit((4..10).map(|index| spec(index, &[0])).collect());
    });
    let views = env.scheduler.workers();
    assert_eq!(views.iter().map(|view| view.processing).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(views.iter().map(|view| view.queued).collect::<Vec<_>>(), [3, 0, 0]);
    assert_eq!(env.scheduler.processing_on(super::env::task(2)).unwrap().0, WorkerId(2));
    env.finish(2, 2, 1);
    env.expect(&["w2 < compute 7#1 (0@1)", "c0 < finished 2: 10 bytes at 2"]);
}

#[test]
fn without_a_worker_tasks_wait_for_the_first_one() {
    let mut env = Env::new(&[]);
    env.submit(vec![inner(0, &[]), spec(1, &[0])]);
    env.expect(&["c0 < accepted"]);
    assert_eq!((env.state(0), env.state(1)), (TaskState::NoWorker, TaskState::Waiting));
    env.join(1, 1);
    env.expect(&["w1 < worker 1", "w1 < compute 0#1", "c0 < worker 1"]);
    env.lose(1);
    env.expect(&["c0 < gone 1"]);
    assert_eq!(env.state(0), TaskState::NoWorker);
    env.join(2, 1);
    env.expect(&["w2 < worker 2", "w2 < compute 0#2", "c0 < worker 2"]);
}

#[test]
fn a_joining_worker_is_given_what_is_queued() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit((0..5).map(|index| spec(index, &[])).collect()));
    env.join(2, 1);
    env.expect(&[
        "w1 < worker 2",
        "w2 < worker 1",
        "w2 < worker 2",
        "w2 < compute 2#1",
        "w2 < compute 3#1",
        "c0 < worker 2",
    ]);
}

#[test]
fn placing_takes_no_longer_with_a_thousand_workers() {
    let mut env = Env::new(&[1; 1_000]);
    env.submit((0..3_000).map(|index| spec(index, &[])).collect());
    let lines = env.take();
    assert_eq!(lines.len(), 2_001);
    assert!(env.scheduler.workers().iter().all(|view| view.processing == 2));
}
