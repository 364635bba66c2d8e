use super::env::{Env, assignment};
use crate::wire::Priority;

#[test]
fn a_task_without_inputs_runs_and_its_end_is_reported() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.expect(&["run 0#1 ()"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
    assert!(env.holds(0));
    env.free(0);
    env.expect(&["free 0"]);
    env.expect_idle();
}

#[test]
fn a_small_result_rides_along_only_if_a_client_waits_for_it() {
    let mut env = Env::new(1);
    let mut wanted = assignment(0, &[]);
    wanted.inline_result = true;
    env.assign(wanted);
    env.expect(&["run 0#1 ()"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes inline in 7"]);
}

#[test]
fn a_failure_is_reported_and_leaves_nothing() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.failed(0, 1);
    env.expect(&["run 0#1 ()", "> failed 0#1"]);
    assert!(!env.holds(0));
    env.expect_idle();
}

#[test]
fn ready_tasks_run_in_the_order_of_their_priority() {
    let mut env = Env::new(1);
    env.compute(5, &[]);
    let mut urgent = assignment(9, &[]);
    urgent.priority = Priority { user: -1, submission: 7, order: 7 };
    [assignment(7, &[]), assignment(6, &[]), urgent].into_iter().for_each(|assignment| env.assign(assignment));
    env.expect(&["run 5#1 ()"]);
    for (done, next) in [(5, 9), (9, 6), (6, 7)] {
        env.executed(done, 1);
        env.expect(&[&format!("> finished {done}#1: 10 bytes in 7"), &format!("run {next}#1 ()")]);
    }
}

#[test]
fn as_many_tasks_run_as_there_are_threads() {
    let mut env = Env::new(2);
    (0..4).for_each(|index| env.compute(index, &[]));
    env.expect(&["run 0#1 ()", "run 1#1 ()"]);
    env.executed(1, 1);
    env.expect(&["> finished 1#1: 10 bytes in 7", "run 2#1 ()"]);
}

#[test]
fn an_assignment_that_comes_twice_is_one() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(0, &[]);
    env.expect(&["run 0#1 ()"]);
    env.executed(0, 1);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
}

#[test]
fn what_is_here_is_not_computed_again() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.executed(0, 1);
    env.take();
    env.compute_again(0, 2, &[]);
    env.expect(&["> finished 0#2: 10 bytes in 0"]);
}

#[test]
fn a_later_attempt_takes_the_place_of_an_earlier_one() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.compute_again(1, 3, &[]);
    env.compute_again(1, 2, &[]);
    env.compute_again(0, 2, &[]);
    env.expect(&["run 0#1 ()"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#2: 10 bytes in 7", "run 1#3 ()"]);
}

#[test]
fn a_cancelled_task_that_has_not_begun_never_does() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.compute(2, &[(9, &[1])]);
    env.expect(&["run 0#1 ()", "fetch 9 from 1"]);
    env.cancel(1, 1);
    env.cancel(2, 1);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
    env.fetched(1, &[(9, Some(10))]);
    env.expect(&["free 9"]);
    env.expect_idle();
}

#[test]
fn what_a_cancelled_execution_gives_is_dropped_without_a_word() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.cancel(0, 1);
    env.cancel(0, 1);
    env.expect(&["run 0#1 ()"]);
    env.compute(1, &[]);
    env.expect(&[]);
    env.executed(0, 1);
    env.expect(&["free 0", "run 1#1 ()"]);
    env.cancel(1, 1);
    env.failed(1, 1);
    env.expect(&[]);
    env.expect_idle();
}

#[test]
fn a_cancel_of_another_attempt_is_ignored() {
    let mut env = Env::new(1);
    env.compute_again(0, 2, &[]);
    env.cancel(0, 1);
    env.executed(0, 2);
    env.expect(&["run 0#2 ()", "> finished 0#2: 10 bytes in 7"]);
}

#[test]
fn a_cancelled_execution_that_is_wanted_again_is_used() {
    let mut env = Env::new(1);
    env.stored(8);
    env.compute(0, &[(8, &[])]);
    env.cancel(0, 1);
    env.compute_again(0, 2, &[(8, &[])]);
    env.expect(&["run 0#1 (8)"]);
    env.free(8);
    env.expect(&[]);
    env.executed(0, 1);
    env.expect(&["free 8", "> finished 0#2: 10 bytes in 7"]);
    env.expect_idle();
}

#[test]
fn an_input_that_is_needed_is_freed_when_it_is_not_any_more() {
    let mut env = Env::new(1);
    env.stored(8);
    env.compute(0, &[(8, &[])]);
    env.compute(1, &[(8, &[])]);
    env.free(8);
    env.expect(&["run 0#1 (8)"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7", "run 1#1 (8)"]);
    env.cancel(1, 1);
    env.expect(&[]);
    env.executed(1, 1);
    env.expect(&["free 8", "free 1"]);
    env.expect_idle();
}

#[test]
fn what_is_computed_again_after_it_was_doomed_stays() {
    let mut env = Env::new(1);
    env.stored(8);
    env.compute(0, &[(8, &[])]);
    env.free(8);
    env.compute_again(8, 1, &[]);
    env.expect(&["run 0#1 (8)", "> finished 8#1: 10 bytes in 0"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
    assert!(env.holds(8));
}

#[test]
fn a_value_unknown_to_the_machine_is_freed_all_the_same() {
    let mut env = Env::new(1);
    env.free(77);
    env.expect(&["free 77"]);
}

#[test]
fn a_completion_that_may_be_late_is_told_later_only_while_something_else_runs() {
    let mut env = Env::new(2);
    for index in 0..2 {
        env.assign(crate::wire::Assignment { may_be_told_late: true, ..assignment(index, &[]) });
    }
    env.expect(&["run 0#1 ()", "run 1#1 ()"]);
    env.executed(0, 1);
    env.expect(&[">> finished 0#1: 10 bytes in 7"]);
    env.executed(1, 1);
    env.expect(&["> finished 1#1: 10 bytes in 7"]);
}
