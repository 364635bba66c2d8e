//! Tasks that come before their inputs are computed, which are assigned here as well.

use super::env::{Env, OWN};

#[test]
fn a_chain_runs_link_by_link_without_a_word_from_the_scheduler() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(1, &[(0, &[OWN])]);
    env.compute(2, &[(1, &[OWN]), (1, &[OWN])]);
    env.expect(&["run 0#1 ()"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7", "run 1#1 (0)"]);
    env.executed(1, 1);
    env.expect(&["> finished 1#1: 10 bytes in 7", "run 2#1 (1 1)"]);
    // What the scheduler knows nobody to need goes, even before the last link has ended.
    env.free(0);
    env.free(1);
    env.expect(&["free 0"]);
    env.executed(2, 1);
    env.expect(&["free 1", "> finished 2#1: 10 bytes in 7"]);
}

#[test]
fn what_waits_for_a_task_that_fails_is_given_back_to_the_end_of_the_chain() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(1, &[(0, &[OWN])]);
    env.compute(2, &[(1, &[OWN])]);
    env.compute(3, &[]);
    env.expect(&["run 0#1 ()"]);
    env.failed(0, 1);
    env.expect(&["> failed 0#1", "> missing for 1#1: 0 not at 0", "> missing for 2#1: 1 not at 0", "run 3#1 ()"]);
    env.failed(3, 1);
    env.expect(&["> failed 3#1"]);
    env.expect_idle();
}

#[test]
fn what_waits_for_a_cancelled_or_stolen_task_is_given_back() {
    for (begun, stolen) in [(false, false), (false, true), (true, false)] {
        let mut env = Env::new(1);
        env.compute(if begun { 1 } else { 0 }, &[]);
        env.compute(1, &[]);
        env.compute(2, &[(1, &[OWN])]);
        env.take();
        if stolen {
            env.steal(1, 1);
            env.expect(&["> gives 1#1", "> missing for 2#1: 1 not at 0"]);
        } else {
            env.cancel(1, 1);
            env.expect(&["> missing for 2#1: 1 not at 0"]);
        }
        assert_eq!(env.worker.assignments_len(), usize::from(!begun));
    }
}

#[test]
fn a_task_that_keeps_its_assignment_keeps_what_waits_for_it() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(1, &[(0, &[OWN])]);
    env.expect(&["run 0#1 ()"]);
    env.steal(0, 1);
    env.expect(&["> keeps 0#1"]);
    env.compute_again(0, 2, &[]);
    env.executed(0, 1);
    env.expect(&["> finished 0#2: 10 bytes in 7", "run 1#1 (0)"]);
}

#[test]
fn a_later_attempt_of_the_input_is_waited_for() {
    let mut env = Env::new(1);
    env.compute(9, &[]);
    env.compute(0, &[]);
    env.compute(1, &[(0, &[OWN])]);
    env.compute_again(0, 2, &[]);
    env.expect(&["run 9#1 ()"]);
    env.executed(9, 1);
    env.executed(0, 2);
    env.expect(&["> finished 9#1: 10 bytes in 7", "run 0#2 ()", "> finished 0#2: 10 bytes in 7", "run 1#1 (0)"]);
}

#[test]
fn an_input_that_another_may_have_is_asked_for_instead_of_given_back() {
    let mut env = Env::new(1);
    env.compute(9, &[]);
    env.compute(0, &[]);
    env.compute(1, &[(0, &[OWN, 1])]);
    // It is not here yet, and somebody has it: whichever comes first.
    env.expect(&["run 9#1 ()", "fetch 0 from 1"]);
    env.cancel(0, 1);
    env.expect(&[]);
    env.fetched(1, &[(0, None)]);
    env.expect(&["> missing for 1#1: 0 not at 1 0"]);
}

#[test]
fn an_input_that_cannot_be_fetched_is_waited_for_while_it_is_assigned_here() {
    let mut env = Env::new(1);
    env.compute(9, &[]);
    env.compute(0, &[]);
    env.compute(1, &[(0, &[1])]);
    env.expect(&["run 9#1 ()", "fetch 0 from 1"]);
    env.fetched(1, &[(0, None)]);
    env.expect(&[]);
    env.executed(9, 1);
    env.executed(0, 1);
    env.expect(&["> finished 9#1: 10 bytes in 7", "run 0#1 ()", "> finished 0#1: 10 bytes in 7", "run 1#1 (0)"]);
}

#[test]
fn an_input_that_was_cancelled_before_is_not_waited_for() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.cancel(0, 1);
    env.compute(1, &[(0, &[OWN])]);
    env.expect(&["run 0#1 ()", "> missing for 1#1: 0 not at 0"]);
}

#[test]
fn a_long_chain_is_given_back_without_recursion() {
    const LINKS: u32 = 50_000;
    let mut env = Env::unchecked(1);
    env.compute(0, &[]);
    for link in 1..LINKS {
        env.compute(link, &[(link - 1, &[OWN])]);
    }
    env.expect(&["run 0#1 ()"]);
    env.cancel(0, 1);
    assert_eq!(env.take().len() as u32, LINKS - 1);
    assert_eq!(env.worker.assignments_len(), 0);
}
