//! Inputs that are taken in part.

use super::env::{Env, OWN, assignment, part_of_8, task};
use crate::ids::JobId;
use crate::ids::TaskId;
use crate::wire::{Assignment, ToWorker};
use crate::worker::Event;

#[test]
fn a_part_is_fetched_by_itself_and_goes_with_its_task_without_a_word() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 1, &[(0, &[1]), (1, &[1]), (2, &[2])]);
    env.expect(&["fetch 0 1/3 from 1", "fetch 2/3 from 2"]);
    env.fetched(1, &[(0, Some(80))]);
    env.expect(&["> replica 0", "> missing for 5#1: 1 not at 1"]);
    env.compute_part(6, 3, 1, &[(0, &[1]), (1, &[1]), (2, &[2])]);
    env.expect(&["fetch 1/3 from 1"]);
    env.fetched_parts(1, &[(1, 3, Some(10))]);
    env.fetched_parts(2, &[(2, 3, Some(10))]);
    env.expect(&["run 6#1 (0 1/3 2/3)"]);
    assert_eq!((env.worker.has_what(), env.worker.parts_len()), (vec![(task(0), 80)], 2));
    env.executed(6, 1);
    env.expect(&["free 1/3", "free 2/3", "> finished 6#1: 10 bytes in 7"]);
    assert_eq!(env.worker.parts_len(), 0);
    env.expect_idle();
}

#[test]
fn a_part_that_several_tasks_need_is_fetched_once_and_stays_for_the_last() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 0, &[(0, &[1])]);
    env.compute_part(6, 3, 0, &[(0, &[1])]);
    env.compute_part(7, 4, 0, &[(0, &[1])]);
    env.expect(&["fetch 0/3 from 1"]);
    env.fetched_parts(1, &[(0, 3, Some(10))]);
    env.expect(&["fetch 0/4 from 1", "run 5#1 (0/3)"]);
    env.executed(5, 1);
    env.expect(&["> finished 5#1: 10 bytes in 7", "run 6#1 (0/3)"]);
    // One that comes after all of it was said to go still finds it.
    env.compute_part(8, 3, 0, &[(0, &[1])]);
    env.executed(6, 1);
    env.expect(&["> finished 6#1: 10 bytes in 7", "run 8#1 (0/3)"]);
    env.executed(8, 1);
    env.expect(&["free 0/3", "> finished 8#1: 10 bytes in 7"]);
}

#[test]
fn where_the_whole_is_it_is_used() {
    let mut env = Env::new(1);
    env.stored(0);
    env.compute_part(5, 3, 0, &[(0, &[1, OWN])]);
    env.expect(&["run 5#1 (0)"]);
    env.executed(5, 1);
    env.expect(&["> finished 5#1: 10 bytes in 7"]);
    assert!(env.holds(0));
}

#[test]
fn sent_ahead_it_waits_for_the_whole_and_is_given_back_with_it() {
    for fails in [false, true] {
        let mut env = Env::new(1);
        env.compute(0, &[]);
        env.compute_part(5, 3, 0, &[(0, &[OWN]), (1, &[1])]);
        env.expect(&["run 0#1 ()", "fetch 1/3 from 1"]);
        env.fetched_parts(1, &[(1, 3, Some(10))]);
        if fails {
            env.failed(0, 1);
            env.expect(&["> failed 0#1", "free 1/3", "> missing for 5#1: 0 not at 0"]);
        } else {
            env.executed(0, 1);
            env.expect(&["> finished 0#1: 10 bytes in 7", "run 5#1 (0 1/3)"]);
        }
    }
}

#[test]
fn a_whole_that_is_said_to_be_here_and_is_not_is_told_as_missing() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 0, &[(0, &[OWN])]);
    env.expect(&["> missing for 5#1: 0 not at 0"]);
    env.expect_idle();
}

#[test]
fn holders_are_tried_one_after_another_and_the_whole_is_told_as_missing() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 0, &[(0, &[1, 2])]);
    env.expect(&["fetch 0/3 from 1"]);
    env.fetched_parts(1, &[(0, 3, None)]);
    env.expect(&["fetch 0/3 from 2"]);
    env.gone(2);
    env.fetched_parts(2, &[(0, 3, None)]);
    env.expect(&["> missing for 5#1: 0 not at 1 2"]);
    env.expect_idle();
}

#[test]
fn a_part_that_comes_for_nobody_goes_at_once() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 0, &[(0, &[1])]);
    env.cancel(5, 1);
    env.expect(&["fetch 0/3 from 1"]);
    env.fetched_parts(1, &[(0, 3, Some(10))]);
    env.expect(&["free 0/3"]);
    env.expect_idle();
}

#[test]
fn the_whole_is_freed_and_copied_whatever_parts_of_it_are_here() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 0, &[(0, &[1])]);
    env.fetched_parts(1, &[(0, 3, Some(10))]);
    env.expect(&["fetch 0/3 from 1", "run 5#1 (0/3)"]);
    env.acquire(&[(0, &[1])]);
    env.fetched(1, &[(0, Some(80))]);
    env.expect(&["fetch 0 from 1", "> replica 0"]);
    env.free(0);
    env.expect(&["free 0"]);
    env.executed(5, 1);
    env.expect(&["free 0/3", "> finished 5#1: 10 bytes in 7"]);
}

#[test]
fn parts_go_with_the_link_to_the_scheduler_and_are_not_mixed_up_with_new_ones() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 0, &[(0, &[1]), (1, &[2])]);
    env.fetched_parts(1, &[(0, 3, Some(10))]);
    env.expect(&["fetch 0/3 from 1", "fetch 1/3 from 2"]);
    env.lost();
    env.expect(&["free 0/3"]);
    env.registered();
    env.expect(&["> has ; runs "]);
    env.compute_part(5, 3, 0, &[(1, &[3])]);
    env.expect(&[]);
    env.fetched_parts(2, &[(1, 3, Some(10))]);
    env.expect(&["free 1/3", "fetch 1/3 from 3"]);
}

#[test]
fn a_part_stays_without_a_scheduler_while_a_thread_uses_it_and_is_not_told_of() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 0, &[(0, &[1])]);
    env.fetched_parts(1, &[(0, 3, Some(10))]);
    env.compute_part(6, 3, 0, &[(0, &[1])]);
    env.expect(&["fetch 0/3 from 1", "run 5#1 (0/3)"]);
    env.lost();
    env.registered();
    env.expect(&["> has ; runs 5#1"]);
    env.executed(5, 1);
    env.expect(&["free 0/3", "> finished 5#1: 10 bytes in 7"]);
    env.expect_idle();
}

#[test]
fn a_part_that_cannot_be_stored_fails_who_waits_for_it() {
    let mut env = Env::new(1);
    env.compute_part(5, 3, 0, &[(0, &[1])]);
    env.event(Event::NoRoom { task: task(0).part(3), message: "full".into() });
    env.fetched_parts(1, &[(0, 3, None)]);
    env.expect(&["fetch 0/3 from 1", "> failed 5#1"]);
    env.expect_idle();
}

#[test]
fn what_is_stolen_or_runs_again_releases_its_parts() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute_part(5, 3, 0, &[(1, &[1])]);
    env.fetched_parts(1, &[(1, 3, Some(10))]);
    env.expect(&["run 0#1 ()", "fetch 1/3 from 1"]);
    env.steal(5, 1);
    env.expect(&["free 1/3", "> gives 5#1"]);
    env.compute_again(0, 2, &[]);
    env.executed(0, 1);
    env.expect(&["> finished 0#2: 10 bytes in 7"]);
}

#[test]
fn what_speaks_of_parts_as_of_tasks_is_ignored() {
    let mut env = Env::new(1);
    let part = |index| TaskId::new(JobId(0), index).part(1);
    env.assign(Assignment { task: part(5), ..assignment(5, &[]) });
    let mut of_part = assignment(6, &[(0, &[1])]);
    of_part.inputs[0].task = part(0);
    env.event(Event::FromScheduler(ToWorker::Acquire { inputs: of_part.inputs.clone() }));
    env.assign(of_part);
    assert!(!env.worker.accepts(part(7)));
    env.event(Event::Stored { task: part(7), nbytes: 10 });
    env.expect(&[]);
    env.expect_idle();
    env.assign(Assignment { part: Some(part_of_8(u32::MAX, 0)), ..assignment(8, &[(0, &[1])]) });
    env.expect(&["fetch 0 from 1"]);
}
