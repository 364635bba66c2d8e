//! Failed tasks that run again.

use super::env::{Env, inner, spec, task};
use crate::ids::{ClientId, JobId, TaskId};
use crate::scheduler::{Event, TaskState};
use crate::wire::FromClient;

fn retry(env: &mut Env, tasks: &[u32]) {
    env.client(0, FromClient::Retry { token: 9, tasks: tasks.iter().map(|index| task(*index)).collect() });
}

#[test]
fn a_failed_task_runs_again_with_the_failed_ones_that_it_needs_and_no_others() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), spec(1, &[0]), spec(2, &[1]), spec(3, &[0])]);
        env.fail(1, 0, 1);
    });
    assert_eq!([0, 1, 2, 3].map(|index| env.state(index)), [TaskState::Erred; 4]);
    retry(&mut env, &[2]);
    env.expect(&["w1 < compute 0#2", "c0 < done: 3 moved"]);
    // It failed because of the same input, and was not asked for.
    assert_eq!(env.state(3), TaskState::Erred);
    env.quietly(|env| env.finish(1, 0, 2));
    assert_eq!([0, 1, 2].map(|index| env.state(index)), [TaskState::Memory, TaskState::Processing, TaskState::Waiting]);
    retry(&mut env, &[3]);
    env.expect(&["w1 < compute 3#1 (0@1)", "c0 < done: 1 moved"]);
}

#[test]
fn a_task_that_fails_once_more_is_told_once_more() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.fail(1, 0, 1);
        retry(env, &[0]);
    });
    env.fail(1, 0, 2);
    env.expect(&["c0 < failed 0: task work (0.0) on node 010101010101 failed: it broke"]);
    retry(&mut env, &[0]);
    env.expect(&["w1 < compute 0#3", "c0 < done: 1 moved"]);
}

#[test]
fn a_task_that_was_given_up_or_that_workers_died_of_has_another_chance() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[]), spec(1, &[])]);
        env.client(0, FromClient::Cancel { tasks: vec![task(1)] });
        for worker in 1..4 {
            env.lose(worker);
            env.join(worker + 1, 1);
        }
    });
    assert_eq!([0, 1].map(|index| env.state(index)), [TaskState::Erred; 2]);
    env.quietly(|env| {
        retry(env, &[0, 1]);
        env.lose(4);
        env.join(5, 1);
    });
    assert_eq!([0, 1].map(|index| env.state(index)), [TaskState::Processing; 2]);
}

#[test]
fn what_has_not_failed_is_not_there_or_is_anothers_is_passed_over() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[]), spec(1, &[])]);
        env.finish(1, 0, 1);
        env.fail(1, 1, 1);
        env.event(Event::ClientJoined { client: ClientId(1) });
    });
    retry(&mut env, &[0, 7]);
    env.expect(&["c0 < done: 0 moved"]);
    env.client(0, FromClient::Retry { token: 9, tasks: vec![TaskId::new(JobId(77), 0)] });
    env.expect(&["c0 < done: 0 moved"]);
    env.client(1, FromClient::Retry { token: 9, tasks: vec![task(1)] });
    env.expect(&["c1 < done: 0 moved"]);
    assert_eq!(env.state(1), TaskState::Erred);
}

#[test]
fn a_scattered_value_that_is_lost_is_lost_again_and_with_it_what_needs_it() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.scatter(0, 10, &[1]);
        env.submit(vec![spec(1, &[0])]);
        env.lose(1);
        env.join(2, 1);
        env.take();
    });
    assert_eq!([0, 1].map(|index| env.state(index)), [TaskState::Erred; 2]);
    retry(&mut env, &[1]);
    let said = env.take();
    assert_eq!(said[0], "c0 < done: 2 moved");
    assert!(said[1..].iter().any(|line| line.starts_with("c0 < failed 1: ")), "{said:?}");
    assert_eq!(env.state(1), TaskState::Erred);
}
