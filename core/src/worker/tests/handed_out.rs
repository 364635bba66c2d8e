//! What was handed out to the threads and has not begun, or waits inside.

use super::env::{Env, OWN};

/// One thread, which has task 0, and the tasks 1 to 3 handed out behind it.
fn with_tasks_behind_the_first() -> Env {
    let mut env = Env::new(1);
    env.run_ahead(21);
    env.compute(9, &[]);
    env.executed(9, 1);
    env.free(9);
    env.take();
    (0..5).for_each(|index| env.compute(index, &[]));
    env.expect(&["run 0#1 ()", "run 1#1 ()", "run 2#1 ()", "run 3#1 ()"]);
    env
}

#[test]
fn a_cancelled_task_that_has_not_begun_is_taken_back() {
    let mut env = with_tasks_behind_the_first();
    env.cancel(1, 1);
    env.expect(&["take back 1#1"]);
    env.not_begun(1, 1);
    env.expect(&["run 4#1 ()"]);
    env.cancel(0, 1);
    env.expect(&["take back 0#1"]);
    env.begun(0, 1);
    env.expect(&[]);
    env.executed(0, 1);
    env.expect(&["free 0"]);
    for index in 2..5 {
        env.executed(index, 1);
    }
    env.take();
    env.expect_idle();
}

#[test]
fn a_task_that_has_not_begun_is_given_to_the_thief() {
    let mut env = with_tasks_behind_the_first();
    env.steal(2, 1);
    env.expect(&["take back 2#1"]);
    env.not_begun(2, 1);
    env.expect(&["> gives 2#1", "run 4#1 ()"]);
    env.steal(0, 1);
    env.expect(&["take back 0#1"]);
    env.begun(0, 1);
    env.expect(&["> keeps 0#1"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
}

#[test]
fn what_was_sent_ahead_of_a_stolen_task_is_given_back() {
    let mut env = with_tasks_behind_the_first();
    env.compute(6, &[(2, &[OWN])]);
    env.steal(2, 1);
    env.expect(&["take back 2#1"]);
    env.not_begun(2, 1);
    env.expect(&["> gives 2#1", "> missing for 6#1: 2 not at 0", "run 4#1 ()"]);
}

#[test]
fn a_task_that_has_ended_before_the_threads_answer_is_not_stolen() {
    let mut env = with_tasks_behind_the_first();
    env.steal(0, 1);
    env.executed(0, 1);
    env.expect(&["take back 0#1", "> finished 0#1: 10 bytes in 7", "run 4#1 ()"]);
    env.begun(0, 1);
    env.expect(&[]);
}

#[test]
fn a_task_that_was_taken_back_and_is_wanted_again_runs() {
    let mut env = with_tasks_behind_the_first();
    env.steal(1, 1);
    env.cancel(1, 1);
    env.compute_again(1, 2, &[]);
    env.expect(&["take back 1#1", "take back 1#1"]);
    env.not_begun(1, 1);
    env.expect(&["run 1#2 ()"]);
    env.begun(1, 1);
    env.expect(&[]);
    env.executed(1, 2);
    env.expect(&["> finished 1#2: 10 bytes in 7", "run 4#1 ()"]);
}

#[test]
fn a_task_that_was_taken_back_and_is_here_by_now_is_finished() {
    let mut env = with_tasks_behind_the_first();
    env.cancel(1, 1);
    env.compute(6, &[(1, &[1])]);
    env.expect(&["take back 1#1", "fetch 1 from 1"]);
    env.compute_again(1, 2, &[]);
    env.fetched(1, &[(1, Some(10))]);
    env.expect(&[]);
    env.not_begun(1, 1);
    env.expect(&["> finished 1#2: 10 bytes in 0", "run 4#1 ()"]);
    assert!(env.holds(1));
}

#[test]
fn nothing_is_asked_back_when_every_task_has_a_thread() {
    let mut env = Env::new(2);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.take();
    env.steal(0, 1);
    env.cancel(1, 1);
    env.expect(&["> keeps 0#1"]);
}

#[test]
fn what_has_not_begun_waits_while_the_worker_is_paused() {
    let mut env = with_tasks_behind_the_first();
    env.pause(true);
    let asked = ["take back 0#1", "take back 1#1", "take back 2#1", "take back 3#1"];
    env.expect(&["> status paused=true", asked[0], asked[1], asked[2], asked[3]]);
    env.pause(true);
    env.begun(0, 1);
    (1..4).for_each(|index| env.not_begun(index, 1));
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
    env.pause(false);
    env.expect(&["> status paused=false", "run 1#1 ()", "run 2#1 ()", "run 3#1 ()", "run 4#1 ()"]);
}

#[test]
fn a_task_that_waits_inside_has_no_slot_until_it_goes_on() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.compute(2, &[]);
    env.expect(&["run 0#1 ()"]);
    env.suspended(0, 1);
    env.suspended(0, 1);
    env.expect(&["> suspended 0#1", "run 1#1 ()"]);
    env.resumed(0, 1);
    env.resumed(0, 1);
    env.expect(&["> resumed 0#1"]);
    env.executed(1, 1);
    env.expect(&["> finished 1#1: 10 bytes in 7"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7", "run 2#1 ()"]);
}

#[test]
fn a_task_that_ends_while_it_waits_frees_no_second_slot() {
    let mut env = Env::new(1);
    (0..3).for_each(|index| env.compute(index, &[]));
    env.suspended(0, 1);
    env.executed(0, 1);
    env.expect(&["run 0#1 ()", "> suspended 0#1", "run 1#1 ()", "> finished 0#1: 10 bytes in 7"]);
}

#[test]
fn the_scheduler_hears_of_waits_under_the_current_attempt_only() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.cancel(0, 1);
    env.suspended(0, 1);
    env.expect(&["run 0#1 ()"]);
    // It is wanted again, and still waits.
    env.compute_again(0, 2, &[]);
    env.expect(&["> suspended 0#2"]);
    env.compute_again(0, 3, &[]);
    env.expect(&["> suspended 0#3"]);
    env.resumed(0, 1);
    env.expect(&["> resumed 0#3"]);
    env.suspended(0, 3);
    env.suspended(7, 1);
    env.resumed(7, 1);
    env.expect(&[]);
}
