//! Copies that the scheduler wants here, and no assignment waits for.

use super::env::{Env, OWN};
use crate::worker::Event;

use super::env::task;

#[test]
fn a_copy_is_fetched_kept_and_answered_for() {
    let mut env = Env::new(1);
    env.acquire(&[(0, &[1]), (1, &[1, 2])]);
    env.expect(&["fetch 0 1 from 1"]);
    env.fetched(1, &[(0, Some(10)), (1, None)]);
    env.expect(&["> replica 0", "fetch 1 from 2"]);
    env.fetched(2, &[(1, Some(10))]);
    env.expect(&["> replica 1"]);
    assert!(env.holds(0) && env.holds(1));
    env.free(0);
    env.expect(&["free 0"]);
    env.expect_idle();
}

#[test]
fn what_is_here_is_answered_for_at_once_and_stays() {
    let mut env = Env::new(1);
    env.stored(8);
    env.compute(0, &[(8, &[])]);
    env.free(8);
    env.acquire(&[(8, &[1])]);
    env.expect(&["run 0#1 (8)", "> replica 8"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
    assert!(env.holds(8));
}

#[test]
fn a_copy_that_nobody_can_give_is_not_acquired() {
    let mut env = Env::new(1);
    env.acquire(&[(0, &[]), (1, &[OWN, 99]), (2, &[1])]);
    env.expect(&["> not acquired 0", "> not acquired 1", "fetch 2 from 1"]);
    env.fetched(1, &[(2, None)]);
    env.expect(&["> not acquired 2"]);
    env.acquire(&[(3, &[1]), (4, &[1])]);
    env.expect(&["fetch 3 4 from 1"]);
    env.acquire(&[(5, &[1])]);
    env.gone(1);
    env.expect(&["> not acquired 5"]);
    env.fetched(1, &[]);
    env.expect(&["> not acquired 3", "> not acquired 4"]);
    env.expect_idle();
}

#[test]
fn a_copy_without_room_is_not_acquired_and_its_fetch_ends_as_always() {
    let mut env = Env::new(1);
    env.acquire(&[(0, &[1, 2])]);
    env.event(Event::NoRoom { task: task(0), message: "full".into() });
    env.expect(&["fetch 0 from 1", "> not acquired 0"]);
    env.fetched(1, &[(0, None)]);
    env.expect(&[]);
    env.expect_idle();
}

#[test]
fn inputs_are_fetched_before_copies() {
    let mut env = Env::with(1, 1, 1_000);
    env.compute(5, &[(0, &[1])]);
    env.acquire(&[(1, &[2])]);
    env.compute(6, &[(2, &[3])]);
    env.expect(&["fetch 0 from 1"]);
    env.fetched(1, &[(0, None)]);
    env.expect(&["> missing for 5#1: 0 not at 1", "fetch 2 from 3"]);
    env.fetched(3, &[(2, None)]);
    env.expect(&["> missing for 6#1: 2 not at 3", "fetch 1 from 2"]);
}

#[test]
fn a_copy_stays_when_the_assignment_is_gone_that_waited_for_it() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[1])]);
    env.acquire(&[(0, &[1])]);
    env.expect(&["fetch 0 from 1"]);
    env.cancel(5, 1);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["> replica 0"]);
    assert!(env.holds(0));
    env.expect_idle();
}

#[test]
fn a_copy_that_an_assignment_also_waits_for_is_answered_for_once() {
    let mut env = Env::new(1);
    env.acquire(&[(0, &[1])]);
    env.compute(5, &[(0, &[1])]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["fetch 0 from 1", "> replica 0", "run 5#1 (0)"]);
}

#[test]
fn a_copy_of_what_is_assigned_here_is_answered_for_when_it_is_computed_or_not() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.acquire(&[(0, &[]), (1, &[])]);
    env.expect(&["run 0#1 ()"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7", "> replica 0", "run 1#1 ()"]);
    env.failed(1, 1);
    env.expect(&["> failed 1#1", "> not acquired 1"]);
    env.expect_idle();
}

#[test]
fn a_result_that_would_be_dropped_is_the_copy_if_one_is_wanted() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.cancel(0, 1);
    env.acquire(&[(0, &[1])]);
    env.executed(0, 1);
    env.expect(&["run 0#1 ()", "fetch 0 from 1", "> replica 0"]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&[]);
    assert!(env.holds(0));
}

#[test]
fn a_copy_that_is_not_needed_any_more_is_not_acquired() {
    let mut env = Env::with(1, 1, 1_000);
    env.acquire(&[(0, &[1]), (1, &[2])]);
    env.expect(&["fetch 0 from 1"]);
    env.free(0);
    env.free(1);
    // What is not in the machine's books is freed all the same.
    env.expect(&["> not acquired 0", "> not acquired 1", "free 1"]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["free 0"]);
    env.expect_idle();
}

#[test]
fn a_lost_scheduler_wants_no_copies() {
    let mut env = Env::new(1);
    env.acquire(&[(0, &[1])]);
    env.lost();
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["fetch 0 from 1", "free 0"]);
    env.expect_idle();
}
