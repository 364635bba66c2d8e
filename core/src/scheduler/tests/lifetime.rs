use super::env::{Env, inner, spec, task};
use crate::ids::{ClientId, JobId};
use crate::scheduler::{Event, TaskState};
use crate::wire::FromClient;

#[test]
fn an_input_goes_when_its_last_dependent_has_finished() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), spec(1, &[0]), spec(2, &[0])]);
        env.finish(1, 0, 1);
    });
    env.finish(1, 1, 1);
    env.expect(&["c0 < finished 1: 10 bytes at 1"]);
    env.finish(1, 2, 1);
    env.expect(&["w1 < free 0", "c0 < finished 2: 10 bytes at 1"]);
    assert_eq!(env.state(0), TaskState::Released, "its dependents may have to run again");
    env.release(&[1]);
    env.expect(&["w1 < free 1"]);
    assert_eq!(env.state(0), TaskState::Released);
    env.release(&[2]);
    env.expect(&["w1 < free 2"]);
    assert_eq!(env.scheduler.counts().total(), 0);
}

#[test]
fn every_holder_is_told_to_free() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish(1, 0, 1);
        env.replica(2, 0);
    });
    assert_eq!(env.scheduler.who_has(task(0)).len(), 2);
    env.release(&[0]);
    env.expect(&["w1 < free 0", "w2 < free 0"]);
}

#[test]
fn a_copy_of_what_is_gone_is_freed() {
    let mut env = Env::new(&[1]);
    env.replica(1, 5);
    env.expect(&["w1 < free 5"]);
}

#[test]
fn releasing_the_last_result_cancels_all_that_led_to_it() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), inner(1, &[]), inner(2, &[]), spec(3, &[0, 1, 2])]);
        env.finish(1, 0, 1);
    });
    assert_eq!(env.state(2), TaskState::Processing);
    env.release(&[3, 3]);
    let mut lines = env.take();
    lines.sort();
    assert_eq!(lines, ["w1 < cancel 1#1", "w1 < cancel 2#1", "w1 < free 0"]);
    assert_eq!(env.scheduler.counts().total(), 0);
}

#[test]
fn what_another_result_needs_goes_on() {
    let mut env = Env::new(&[4]);
    env.quietly(|env| env.submit(vec![inner(0, &[]), inner(1, &[]), spec(2, &[0, 1]), spec(3, &[1])]));
    env.release(&[2]);
    env.expect(&["w1 < cancel 0#1"]);
    env.finish(1, 1, 1);
    env.expect(&["w1 < compute 3#1 (1@1)"]);
}

#[test]
fn a_released_task_that_another_needs_is_kept_until_then() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit(vec![spec(0, &[]), spec(1, &[0])]));
    env.release(&[0]);
    env.expect(&[]);
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 1#1 (0@1)"]);
}

#[test]
fn a_cancelled_task_may_be_needed_again() {
    let mut env = Env::new(&[1]);
    // 0 is known through 1, which is held, when its other dependent is given up.
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), spec(1, &[0])]);
        env.finish(1, 0, 1);
        env.finish(1, 1, 1);
        env.submit(vec![spec(2, &[0])]);
    });
    env.release(&[2]);
    env.expect(&["w1 < cancel 0#2"]);
    assert_eq!(env.state(0), TaskState::Released);
    env.submit(vec![spec(3, &[0])]);
    env.expect(&["w1 < compute 0#3", "c0 < accepted"]);
    // The cancelled attempt had ended all the same, on the worker that is to compute it again.
    env.finish(1, 0, 2);
    env.expect(&[]);
    env.finish(1, 0, 3);
    env.expect(&["w1 < compute 3#1 (0@1)"]);
}

#[test]
fn late_and_doubled_completions_change_nothing() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish(1, 0, 1);
    });
    env.finish(1, 0, 1);
    env.expect(&[]);
    env.finish(2, 0, 1);
    env.expect(&["w2 < free 0"]);
    env.fail(1, 0, 1);
    env.missing(1, 0, 1, &[(0, &[1])]);
    env.expect(&[]);
    env.finish(1, 77, 1);
    env.expect(&["w1 < free 77"]);
    env.release(&[0]);
    env.expect(&["w1 < free 0"]);
    env.finish(1, 0, 1);
    env.expect(&["w1 < free 0"]);
}

#[test]
fn a_lost_client_leaves_nothing_and_others_lose_nothing() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.event(Event::ClientJoined { client: ClientId(1) });
        env.client(1, FromClient::OpenJob { name: "other".into(), token: 0 });
        env.submit((0..10).map(|index| spec(index, &[])).collect());
        env.finish(1, 0, 1);
    });
    let mut other = spec(0, &[]);
    other.task.job = JobId(1);
    env.client(1, FromClient::Submit { job: JobId(1), token: 1, kinds: vec![], tasks: vec![other] });
    env.expect(&["c1 < accepted"]);
    env.event(Event::ClientLost { client: ClientId(0) });
    env.expect(&["w1 < free 0", "w1 < cancel 1#1", "w1 < cancel 2#1", "w1 < compute 1.0#1"]);
    assert_eq!(env.scheduler.counts().total(), 1);
    env.submit(vec![spec(10, &[])]);
    env.expect(&[]);
}

#[test]
fn a_jobs_memory_goes_with_its_tasks() {
    let mut env = Env::new(&[1]);
    let mut next = 0;
    for _ in 0..20 {
        env.quietly(|env| {
            env.submit((next..next + 1_000).map(|index| spec(index, &[])).collect());
            env.release(&(next..next + 1_000).collect::<Vec<_>>());
        });
        next += 1_000;
    }
    let (_, job) = env.scheduler.jobs.iter().next().unwrap();
    assert_eq!((job.len(), job.next_index, job.iter().count()), (0, 20_000, 0));
    env.submit(vec![spec(20_000, &[])]);
    env.expect(&["w1 < compute 20000#1", "c0 < accepted"]);
}

#[test]
fn a_long_chain_is_dropped_without_a_deep_stack() {
    let mut env = Env::new(&[]);
    let last = 100_000;
    let mut chain: Vec<_> =
        (0..last).map(|index| inner(index, &index.checked_sub(1).map_or(vec![], |i| vec![i]))).collect();
    chain.push(spec(last, &[last - 1]));
    env.submit(chain);
    env.expect(&["c0 < accepted"]);
    env.release(&[last]);
    env.expect(&[]);
    assert_eq!(env.scheduler.counts().total(), 0);
}
