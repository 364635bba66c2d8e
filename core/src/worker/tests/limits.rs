//! Time, resources and memory.

use std::sync::Arc;

use super::env::{Env, OWN, assignment, needs};
use crate::failure::FailureCause;
use crate::wire::{Assignment, FromWorker, WorkerStatus};
use crate::worker::{Effect, Event};

fn timed(index: u32, timeout_ms: u32) -> Assignment {
    Assignment { timeout_ms, ..assignment(index, &[]) }
}

fn with_gpus(index: u32, count: u64) -> Assignment {
    Assignment { requirements: Some(Arc::new(needs("gpu", count))), ..assignment(index, &[]) }
}

#[test]
fn a_task_that_runs_too_long_fails_and_its_thread_is_abandoned() {
    let mut env = Env::new(1);
    env.assign(timed(0, 5));
    env.compute(1, &[]);
    env.expect(&["run 0#1 ()"]);
    env.tick(4_999);
    env.expect(&[]);
    env.tick(1);
    env.expect(&["abandon 0#1", "> failed 0#1"]);
    env.tick(10_000);
    env.expect(&[]);
    // The threads have let go of it.
    env.failed(0, 1);
    env.expect(&["run 1#1 ()"]);
    env.executed(1, 1);
    env.free(1);
    env.take();
    env.expect_idle();
}

#[test]
fn the_failure_says_what_the_limit_was() {
    let mut env = Env::new(1);
    env.assign(timed(0, 5));
    env.tick(5_000);
    let effects = env.take_effects();
    let Some(Effect::ToScheduler(FromWorker::Failed { failure, .. })) = effects.last() else { panic!("{effects:?}") };
    assert_eq!(failure.cause, FailureCause::TimedOut { timeout_ms: 5 });
}

#[test]
fn the_time_of_a_task_begins_when_it_has_a_thread() {
    let mut env = Env::new(1);
    env.run_ahead(70);
    env.compute(9, &[]);
    env.executed(9, 1);
    env.take();
    env.compute(0, &[]);
    env.assign(timed(1, 5));
    env.compute(2, &[]);
    env.expect(&["run 0#1 ()"]);
    env.tick(6_000);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7", "run 1#1 ()", "run 2#1 ()"]);
    env.tick(4_999);
    env.executed(1, 1);
    env.expect(&["> finished 1#1: 10 bytes in 7"]);
    env.tick(10_000);
    env.expect(&[]);
}

#[test]
fn a_result_that_came_just_too_late_is_dropped() {
    let mut env = Env::new(1);
    env.assign(timed(0, 5));
    env.tick(5_000);
    env.expect(&["run 0#1 ()", "abandon 0#1", "> failed 0#1"]);
    env.executed(0, 1);
    env.expect(&["free 0"]);
    env.expect_idle();
}

#[test]
fn a_result_that_came_just_too_late_serves_the_next_attempt() {
    let mut env = Env::new(1);
    env.assign(timed(0, 5));
    env.tick(5_000);
    env.expect(&["run 0#1 ()", "abandon 0#1", "> failed 0#1"]);
    env.compute_again(0, 2, &[]);
    env.expect(&[]);
    env.executed(0, 1);
    env.expect(&["> finished 0#2: 10 bytes in 0"]);
    assert!(env.holds(0));
}

#[test]
fn the_next_attempt_runs_once_the_thread_is_let_go_of() {
    let mut env = Env::new(1);
    env.assign(timed(0, 5));
    env.tick(5_000);
    env.expect(&["run 0#1 ()", "abandon 0#1", "> failed 0#1"]);
    env.compute_again(0, 2, &[]);
    env.expect(&[]);
    env.failed(0, 1);
    env.expect(&["run 0#2 ()"]);
    env.executed(0, 2);
    env.expect(&["> finished 0#2: 10 bytes in 7"]);
}

#[test]
fn a_task_out_of_time_takes_no_inputs_and_no_waiting_tasks_along() {
    let mut env = Env::new(1);
    env.stored(8);
    let mut late = timed(0, 5);
    late.inputs = assignment(0, &[(8, &[])]).inputs;
    env.assign(late);
    env.compute(1, &[(0, &[OWN])]);
    env.free(8);
    env.expect(&["run 0#1 (8)"]);
    env.tick(5_000);
    env.expect(&["abandon 0#1", "> failed 0#1", "free 8", "> missing for 1#1: 0 not at 0"]);
    env.failed(0, 1);
    env.expect_idle();
}

#[test]
fn a_copy_fetched_meanwhile_survives_the_task_that_ran_out_of_time() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[1])]);
    env.assign(timed(0, 5));
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["fetch 0 from 1", "run 0#1 ()"]);
    env.tick(5_000);
    env.expect(&["abandon 0#1", "> failed 0#1", "> replica 0"]);
    env.executed(0, 1);
    env.expect(&["run 5#1 (0)"]);
    assert!(env.holds(0));
}

#[test]
fn what_was_cancelled_is_abandoned_too_when_its_time_is_over() {
    let mut env = Env::new(1);
    env.assign(timed(0, 5));
    env.compute(1, &[]);
    env.cancel(0, 1);
    env.expect(&["run 0#1 ()"]);
    env.tick(5_000);
    env.expect(&["abandon 0#1"]);
    env.failed(0, 1);
    env.expect(&["run 1#1 ()"]);
    let mut env = Env::new(1);
    env.assign(timed(0, 5));
    env.lost();
    env.tick(5_000);
    env.failed(0, 1);
    env.expect(&["run 0#1 ()", "abandon 0#1"]);
    env.expect_idle();
}

#[test]
fn a_task_that_waits_inside_runs_out_of_time_as_well() {
    let mut env = Env::new(1);
    env.assign(timed(0, 5));
    env.compute(1, &[]);
    env.compute(2, &[]);
    env.suspended(0, 1);
    env.expect(&["run 0#1 ()", "> suspended 0#1", "run 1#1 ()"]);
    env.tick(5_000);
    env.failed(0, 1);
    env.expect(&["abandon 0#1", "> failed 0#1"]);
    env.executed(1, 1);
    env.expect(&["> finished 1#1: 10 bytes in 7", "run 2#1 ()"]);
}

#[test]
fn a_resource_is_taken_until_the_thread_is_done_with_it() {
    let mut env = Env::new(4);
    env.assign(with_gpus(0, 1));
    env.assign(with_gpus(1, 1));
    env.cancel(1, 1);
    env.assign(with_gpus(2, 1));
    env.assign(with_gpus(3, 1));
    env.compute(4, &[]);
    env.expect(&["run 0#1 ()", "run 1#1 ()", "run 4#1 ()"]);
    env.executed(4, 1);
    env.expect(&["> finished 4#1: 10 bytes in 7"]);
    env.failed(1, 1);
    env.expect(&["run 2#1 ()"]);
    env.cancel(3, 1);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
}

#[test]
fn an_abandoned_task_takes_no_resource() {
    let mut env = Env::new(4);
    env.assign(Assignment { timeout_ms: 5, ..with_gpus(0, 2) });
    env.assign(with_gpus(1, 2));
    env.tick(5_000);
    env.expect(&["run 0#1 ()", "abandon 0#1", "> failed 0#1"]);
    env.failed(0, 1);
    env.expect(&["run 1#1 ()"]);
}

#[test]
fn a_task_that_takes_more_than_there_is_runs_alone_instead_of_never() {
    let mut env = Env::new(4);
    env.assign(with_gpus(0, 1));
    env.assign(with_gpus(1, u64::MAX / 1000));
    env.expect(&["run 0#1 ()"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7", "run 1#1 ()"]);
    env.assign(with_gpus(2, u64::MAX / 1000));
    env.executed(1, 1);
    env.expect(&["> finished 1#1: 10 bytes in 7", "run 2#1 ()"]);
}

#[test]
fn a_paused_worker_begins_nothing_and_goes_on_when_it_is_not_paused() {
    let mut env = Env::new(2);
    env.compute(0, &[]);
    env.compute(1, &[(8, &[1])]);
    env.expect(&["run 0#1 ()", "fetch 8 from 1"]);
    env.pause(true);
    env.expect(&["> status paused=true"]);
    env.compute(2, &[]);
    env.compute(3, &[(9, &[2])]);
    env.fetched(1, &[(8, Some(10))]);
    env.executed(0, 1);
    env.expect(&["> replica 8", "> finished 0#1: 10 bytes in 7"]);
    env.pause(false);
    env.expect(&["> status paused=false", "fetch 9 from 2", "run 1#1 (8)", "run 2#1 ()"]);
}

#[test]
fn the_scheduler_hears_of_the_status_now_and_then_and_of_a_pause_at_once() {
    let mut env = Env::new(1);
    let status = |bytes| Event::Status(WorkerStatus { memory_bytes: bytes, ..WorkerStatus::default() });
    env.event(status(1));
    env.expect(&["> status paused=false"]);
    env.event(status(2));
    env.tick(999_999);
    env.expect(&[]);
    env.tick(1);
    env.expect(&["> status paused=false"]);
    env.tick(5_000_000);
    env.expect(&[]);
    env.pause(true);
    env.expect(&["> status paused=true"]);
    env.tick(1_000_000);
    env.expect(&["> status paused=true"]);
    env.lost();
    env.tick(1);
    env.expect(&[]);
    env.registered();
    env.expect(&["> has ; runs ", "> status paused=true"]);
    env.tick(1);
    env.expect(&[]);
}

#[test]
fn a_worker_that_is_to_leave_says_so_and_leaves_when_it_may() {
    let mut env = Env::new(1);
    env.leave_wanted();
    env.expect(&["> leaving"]);
    env.event(Event::FromScheduler(crate::wire::ToWorker::Leave));
    env.expect(&["leave"]);
}

#[test]
fn what_is_not_here_is_not_taken_back_stolen_or_resumed() {
    let mut env = Env::new(1);
    env.steal(3, 1);
    env.resumed(3, 1);
    env.not_begun(3, 1);
    env.begun(3, 1);
    env.acquire(&[]);
    env.gone(99);
    env.expect(&[]);
    env.expect_idle();
}
