//! Tasks that are sent before their inputs are there.

use super::env::{Env, inner, spec, task};
use crate::ids::Attempt;
use crate::scheduler::TaskState;
use crate::wire::FromWorker;

fn chain(env: &mut Env, length: u32) {
    env.submit((0..length).map(|index| spec(index, &index.checked_sub(1).into_iter().collect::<Vec<_>>())).collect());
}

#[test]
fn a_chain_is_sent_whole_to_one_worker() {
    let mut env = Env::with(&[1, 1], |_| {});
    chain(&mut env, 3);
    env.expect(&["w1 < compute 0#1", "w1 < compute 1#1 (0@1)", "w1 < compute 2#1 (1@1)", "c0 < accepted"]);
    env.finish(1, 0, 1);
    env.expect(&["c0 < finished 0: 10 bytes at 1"]);
    env.finish(1, 1, 1);
    env.finish(1, 2, 1);
    env.expect(&["c0 < finished 1: 10 bytes at 1", "c0 < finished 2: 10 bytes at 1"]);
}

#[test]
fn a_chain_that_is_submitted_link_by_link_follows() {
    let mut env = Env::with(&[1], |_| {});
    env.quietly(|env| env.submit(vec![spec(0, &[])]));
    env.submit(vec![spec(1, &[0])]);
    env.expect(&["w1 < compute 1#1 (0@1)", "c0 < accepted"]);
}

#[test]
fn a_task_whose_inputs_are_at_two_workers_waits() {
    let mut env = Env::with(&[1, 1], |_| {});
    env.submit(vec![spec(0, &[]), spec(1, &[]), spec(2, &[0, 1])]);
    env.expect(&["w1 < compute 0#1", "w2 < compute 1#1", "c0 < accepted"]);
    // One of them is there, and small: it can be fetched while the other is computed.
    env.finish(1, 0, 1);
    assert_eq!(env.state(2), TaskState::Waiting);
}

#[test]
fn no_more_is_sent_ahead_than_there_is_room_for_and_the_rest_follows() {
    let mut env = Env::with(&[1], |_| {});
    // Tasks of an unknown kind are expected to take 5 ms each, and 10 ms are sent ahead.
    chain(&mut env, 8);
    let sent = env.take();
    assert_eq!(sent.iter().filter(|line| line.contains("compute")).count(), 3, "{sent:?}");
    // Now they are known to take a microsecond.
    env.finish_with(1, 0, 1, 10, 1);
    let sent = env.take();
    assert_eq!(sent.iter().filter(|line| line.contains("compute")).count(), 5, "{sent:?}");
}

#[test]
fn what_was_sent_ahead_of_a_failed_task_is_taken_back() {
    let mut env = Env::with(&[1], |_| {});
    let mut first = spec(0, &[]);
    first.options.retries = 1;
    env.quietly(|env| env.submit(vec![first, spec(1, &[0]), spec(2, &[1])]));
    env.fail(1, 0, 1);
    env.expect(&[
        "w1 < cancel 1#1",
        "w1 < cancel 2#1",
        "w1 < compute 0#2",
        "w1 < compute 1#2 (0@1)",
        "w1 < compute 2#2 (1@1)",
    ]);
    // The worker had given it back meanwhile, under the old attempt.
    env.missing(1, 1, 1, &[(0, &[1])]);
    env.expect(&[]);
    env.fail(1, 0, 2);
    let lines = env.take();
    assert!(lines.iter().filter(|line| line.starts_with("c0 < failed")).count() == 3, "{lines:?}");
    assert_eq!(env.state(2), TaskState::Erred);
}

#[test]
fn a_lost_worker_takes_what_was_sent_ahead_with_it_and_counts_only_what_may_have_run() {
    let mut env = Env::with(&[1, 1], |_| {});
    env.quietly(|env| chain(env, 2));
    env.lose(1);
    env.expect(&["w2 < gone 1", "w2 < compute 0#2", "w2 < compute 1#2 (0@2)", "c0 < gone 1"]);
    env.join(3, 1);
    env.lose(2);
    env.take();
    env.join(4, 1);
    env.lose(3);
    let lines = env.take();
    // Task 0 was under three lost workers, which is one too many; task 1 failed with it, not by itself.
    let given_up: Vec<&String> = lines.iter().filter(|line| line.contains("was given up")).collect();
    assert_eq!(given_up.len(), 2, "{lines:?}");
    assert!(given_up.iter().all(|line| line.contains("task work (0.0)")), "{lines:?}");
}

#[test]
fn a_worker_that_gives_a_task_back_gets_it_when_its_input_is_there() {
    let mut env = Env::with(&[1], |_| {});
    env.quietly(|env| chain(env, 2));
    env.missing(1, 1, 1, &[(0, &[1])]);
    env.expect(&[]);
    assert_eq!(env.state(1), TaskState::Waiting);
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 1#2 (0@1)", "c0 < finished 0: 10 bytes at 1"]);
}

#[test]
fn an_input_that_is_lost_takes_what_was_sent_ahead_of_another_input_with_it() {
    let mut env = Env::with(&[1, 1], |_| {});
    env.quietly(|env| {
        env.scatter(0, 10, &[2]);
        env.submit(vec![spec(1, &[]), spec(2, &[0, 1])]);
    });
    assert_eq!(env.state(2), TaskState::Processing);
    env.lose(2);
    assert_eq!(env.state(2), TaskState::Erred);
    let lines = env.take();
    assert!(lines.contains(&"w1 < cancel 2#1".to_owned()), "{lines:?}");
}

#[test]
fn releasing_the_end_of_a_chain_cancels_all_of_it() {
    let mut env = Env::with(&[1], |_| {});
    env.submit(vec![inner(0, &[]), inner(1, &[0]), spec(2, &[1])]);
    env.take();
    env.release(&[2]);
    let mut lines = env.take();
    lines.sort();
    assert_eq!(lines, ["w1 < cancel 0#1", "w1 < cancel 1#1", "w1 < cancel 2#1"]);
    assert_eq!(env.scheduler.counts().total(), 0);
}

#[test]
fn a_completion_that_comes_before_those_of_its_inputs_counts() {
    let mut env = Env::with(&[1], |_| {});
    env.submit(vec![inner(0, &[]), spec(1, &[0])]);
    env.take();
    // It was in the worker's store already.
    env.finish(1, 1, 1);
    env.expect(&["w1 < cancel 0#1", "c0 < finished 1: 10 bytes at 1"]);
}

#[test]
fn a_suspended_task_leaves_room_for_those_that_it_waits_for() {
    let mut env = Env::with(&[1], |_| {});
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    assert_eq!(env.state(2), TaskState::Queued);
    for index in 0..2 {
        env.worker(1, FromWorker::Suspended { task: task(index), attempt: Attempt(1) });
    }
    env.expect(&["w1 < compute 2#1", "w1 < compute 3#1"]);
    // Said by what is not running there, or under another attempt: ignored.
    env.worker(1, FromWorker::Resumed { task: task(3), attempt: Attempt(1) });
    env.worker(1, FromWorker::Suspended { task: task(0), attempt: Attempt(9) });
    env.worker(1, FromWorker::Resumed { task: task(0), attempt: Attempt(1) });
    env.finish(1, 0, 1);
    env.finish(1, 1, 1);
    env.expect(&["c0 < finished 0: 10 bytes at 1", "c0 < finished 1: 10 bytes at 1"]);
}
