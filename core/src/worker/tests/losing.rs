//! The link to the scheduler is lost, and the worker registers again: at another scheduler, or at the same one.

use super::env::{Env, assignment, needs, task};
use crate::ids::Attempt;
use crate::wire::{Assignment, FromWorker, INVENTORY_MAX, ToWorker};
use crate::worker::{Effect, Event, Outcome};

/// The third try of a task, by default with inputs of their second.
fn third_try(index: u32, inputs: &[(u32, &[u32])]) -> Assignment {
    let mut assignment = Assignment { attempt: Attempt(3), ..assignment(index, inputs) };
    assignment.inputs.iter_mut().for_each(|input| input.attempt = Attempt(2));
    assignment
}

#[test]
fn outputs_stay_and_the_next_scheduler_is_told_of_which_try_they_are() {
    let mut env = Env::new(1);
    env.stored(8);
    env.assign(third_try(0, &[]));
    env.executed(0, 3);
    env.assign(third_try(1, &[(8, &[]), (9, &[1])]));
    env.fetched(1, &[(9, Some(11))]);
    env.failed(1, 3);
    env.take();
    env.lost();
    env.expect(&[]);
    env.registered();
    env.expect(&["> has 0#3 10, 8#0 10, 9#2 11; runs "]);
    env.free(9);
    env.compute(2, &[(0, &[]), (8, &[])]);
    env.expect(&["free 9", "run 2#1 (0 8)"]);
}

#[test]
fn what_was_put_or_computed_last_is_what_is_here() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.executed(0, 1);
    env.stored(0);
    env.stored(1);
    env.assign(third_try(1, &[]));
    // It was cancelled, but its result has taken the place of what was fetched meanwhile.
    env.compute(2, &[]);
    env.compute(3, &[(2, &[1])]);
    env.fetched(1, &[(2, Some(10))]);
    env.cancel(2, 1);
    env.event(Event::Executed {
        task: task(2),
        attempt: Attempt(1),
        run_us: 7,
        outcome: Outcome::Stored { nbytes: 12, inline: None },
    });
    env.failed(3, 1);
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has 0#0 10, 1#3 10, 2#1 12; runs "]);
}

#[test]
fn what_is_fetched_is_of_the_newest_try_that_was_spoken_of_before_it_was_asked_for() {
    let mut env = Env::with(1, 1, 1_000);
    env.compute(0, &[(9, &[1])]);
    let spoken_of = |attempt, index, holder: &[u32]| {
        let mut assignment = assignment(index, &[(8, holder)]);
        assignment.inputs[0].attempt = Attempt(attempt);
        assignment
    };
    [spoken_of(4, 1, &[2]), spoken_of(5, 2, &[2]), spoken_of(3, 3, &[2])].into_iter().for_each(|it| env.assign(it));
    env.fetched(1, &[(9, None)]);
    env.expect(&["fetch 9 from 1", "> missing for 0#1: 9 not at 1", "fetch 8 from 2"]);
    env.assign(spoken_of(6, 4, &[3]));
    env.fetched(2, &[(8, Some(10))]);
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has 8#5 10; runs 1#1"]);
}

#[test]
fn what_was_to_be_computed_and_came_by_a_fetch_is_of_the_try_that_was_told() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.assign(third_try(2, &[(9, &[3])]));
    env.compute(3, &[(2, &[1])]);
    env.fetched(1, &[(2, Some(10))]);
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has 2#3 10; runs 0#1"]);
}

#[test]
fn what_has_not_begun_goes_with_what_it_waited_for() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.stored(8);
    env.compute(1, &[(8, &[])]);
    env.compute(2, &[(8, &[]), (9, &[1]), (7, &[2])]);
    env.compute(3, &[(2, &[0])]);
    env.assign(Assignment { requirements: Some(std::sync::Arc::new(needs("gpu", 1))), ..assignment(4, &[]) });
    env.free(8);
    env.expect(&["run 0#1 ()", "fetch 9 from 1", "fetch 7 from 2"]);
    env.lost();
    env.expect(&["free 8"]);
    assert_eq!(env.worker.assignments_len(), 1);
    env.fetched(1, &[(9, Some(10))]);
    env.fetched(2, &[(7, None)]);
    env.expect(&["free 9"]);
    env.executed(0, 1);
    env.expect(&[]);
    env.registered();
    env.expect(&["> has 0#1 10; runs "]);
    env.expect_idle();
}

#[test]
fn what_has_begun_goes_on_and_the_next_scheduler_hears_of_its_end() {
    let mut env = Env::new(3);
    env.stored(8);
    (0..3).for_each(|index| env.assign(third_try(index, &[(8, &[])])));
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has 8#0 10; runs 0#3, 1#3, 2#3"]);
    // What runs keeps what it uses.
    env.free(8);
    env.executed(0, 3);
    env.failed(1, 3);
    env.expect(&["> finished 0#3: 10 bytes in 7", "> failed 1#3"]);
    env.cancel(2, 3);
    env.executed(2, 3);
    env.expect(&["free 8", "free 2"]);
    env.expect_idle();
}

#[test]
fn what_ends_while_there_is_no_scheduler_is_here_or_forgotten() {
    let mut env = Env::new(3);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.assign(Assignment { timeout_ms: 5, ..assignment(2, &[]) });
    env.take();
    env.lost();
    env.executed(0, 1);
    env.failed(1, 1);
    env.expect(&[]);
    env.tick(5_000);
    env.expect(&["abandon 2#1"]);
    env.registered();
    env.expect(&["> has 0#1 10; runs "]);
    // Until the thread is let go of, nothing of the same id runs.
    env.compute_again(2, 2, &[]);
    env.expect(&[]);
    env.failed(2, 1);
    env.expect(&["run 2#2 ()"]);
}

#[test]
fn what_runs_has_its_deadline_still() {
    let mut env = Env::new(1);
    env.assign(Assignment { timeout_ms: 5, ..assignment(2, &[]) });
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has ; runs 2#1"]);
    env.tick(5_000);
    env.expect(&["abandon 2#1", "> failed 2#1"]);
}

#[test]
fn what_was_cancelled_is_not_told_of_and_may_be_wanted_again() {
    let mut env = Env::new(2);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.cancel(0, 1);
    env.cancel(1, 1);
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has ; runs "]);
    env.compute_again(1, 5, &[]);
    env.executed(0, 1);
    env.executed(1, 1);
    env.expect(&["free 0", "> finished 1#5: 10 bytes in 7"]);
    env.lost();
    env.registered();
    env.expect(&["> has 1#5 10; runs "]);
}

#[test]
fn what_runs_is_computed_once_when_the_next_scheduler_assigns_it_too() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has ; runs 0#1"]);
    env.compute_again(0, 5, &[]);
    env.cancel(0, 1);
    env.lost();
    env.registered();
    env.expect(&["> has ; runs 0#5"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#5: 10 bytes in 7"]);
}

#[test]
fn what_waits_inside_is_told_to_wait_and_goes_on_at_the_next_scheduler() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.suspended(0, 1);
    env.take();
    env.lost();
    env.suspended(1, 1);
    env.expect(&[]);
    env.registered();
    env.expect(&["> has ; runs 0#1 suspended, 1#1 suspended"]);
    env.resumed(0, 1);
    env.expect(&["> resumed 0#1"]);
    env.lost();
    env.resumed(1, 1);
    env.registered();
    env.expect(&["> has ; runs 0#1, 1#1"]);
}

#[test]
fn what_is_here_and_computed_as_well_is_told_of_by_its_completion_alone() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(5, &[(0, &[1])]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["run 0#1 ()", "fetch 0 from 1"]);
    env.lost();
    env.registered();
    env.expect(&["> has ; runs 0#1"]);
    // It was fetched for nobody else, and would have been told of by the completion.
    env.failed(0, 1);
    env.expect(&["> failed 0#1", "> replica 0"]);
    env.lost();
    env.registered();
    env.expect(&["> has 0#0 10; runs "]);
}

#[test]
fn what_is_to_go_is_not_told_of() {
    let mut env = Env::new(1);
    env.stored(8);
    env.compute(0, &[(8, &[])]);
    env.free(8);
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has ; runs 0#1"]);
    env.executed(0, 1);
    env.expect(&["free 8", "> finished 0#1: 10 bytes in 7"]);
}

#[test]
fn what_was_handed_out_and_has_not_begun_is_dropped_when_the_threads_give_it_back() {
    let mut env = Env::new(1);
    env.run_ahead(100);
    env.compute(9, &[]);
    env.executed(9, 1);
    env.stored(8);
    (0..3).for_each(|index| env.compute(index, &[(8, &[])]));
    env.take();
    env.lost();
    env.free(8);
    env.expect(&["take back 0#1", "take back 1#1", "take back 2#1"]);
    env.begun(0, 1);
    env.not_begun(1, 1);
    env.expect(&[]);
    // What the threads have not said anything of by now is the next scheduler's.
    env.registered();
    env.expect(&["> has 8#0 10, 9#1 10; runs 0#1, 2#1"]);
    env.not_begun(2, 1);
    env.expect(&["run 2#1 (8)"]);
    env.executed(0, 1);
    env.executed(2, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7", "> finished 2#1: 10 bytes in 7"]);
}

#[test]
fn what_the_lost_scheduler_wanted_back_is_not_given_to_the_next() {
    let mut env = Env::new(1);
    env.run_ahead(100);
    env.compute(9, &[]);
    env.executed(9, 1);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.steal(1, 1);
    env.take();
    env.lost();
    env.registered();
    env.expect(&["take back 0#1", "take back 1#1", "> has 9#1 10; runs 0#1, 1#1"]);
    env.begun(0, 1);
    env.not_begun(1, 1);
    env.expect(&["run 1#1 ()"]);
    env.begun(1, 1);
    env.expect(&[]);
}

#[test]
fn nothing_is_heard_from_or_said_to_a_scheduler_that_is_not_there() {
    let mut env = Env::new(1);
    env.lost();
    env.lost();
    env.peer(1);
    env.compute(0, &[(9, &[1])]);
    env.acquire(&[(9, &[1])]);
    env.pause(true);
    env.leave_wanted();
    env.event(Event::FromScheduler(ToWorker::Leave));
    env.expect(&[]);
    env.expect_idle();
    // Both are said once there is somebody who can hear them, and again to the next.
    for _ in 0..2 {
        env.lost();
        env.tick(1);
        env.registered();
        env.expect(&["> has ; runs ", "> status paused=true", "> leaving"]);
    }
}

#[test]
fn another_link_without_the_loss_of_the_first_is_a_loss() {
    let mut env = Env::new(1);
    env.stored(8);
    env.compute(0, &[]);
    env.compute(1, &[]);
    env.take();
    env.registered();
    env.expect(&["> has 8#0 10; runs 0#1"]);
    env.executed(0, 1);
    env.expect(&["> finished 0#1: 10 bytes in 7"]);
    env.expect_idle();
}

#[test]
fn a_long_inventory_comes_in_pieces_of_which_the_last_says_so() {
    let mut env = Env::unchecked(5);
    (0..5).for_each(|index| env.compute(index, &[]));
    let outputs = 2 * INVENTORY_MAX as u32 - 3;
    (100..100 + outputs).for_each(|index| env.stored(index));
    env.take();
    env.lost();
    env.registered();
    let pieces: Vec<_> = env
        .take_effects()
        .into_iter()
        .map(|effect| match effect {
            Effect::ToScheduler(FromWorker::Inventory(piece)) => piece,
            other => panic!("{other:?} was said as well"),
        })
        .collect();
    let sizes: Vec<_> = pieces.iter().map(|it| (it.outputs.len(), it.running.len(), it.is_last)).collect();
    assert_eq!(sizes, [(INVENTORY_MAX, 0, false), (INVENTORY_MAX - 3, 3, false), (0, 2, true)]);
    let told: Vec<u32> = pieces.iter().flat_map(|piece| &piece.outputs).map(|output| output.0.index).collect();
    assert_eq!(told, (100..100 + outputs).collect::<Vec<_>>());
    let running: Vec<u32> = pieces.iter().flat_map(|piece| &piece.running).map(|it| it.task.index).collect();
    assert_eq!(running, [0, 1, 2, 3, 4]);
    env.worker.check_invariants();
}

#[test]
fn a_stale_failure_leaves_nothing_to_free() {
    let mut env = Env::new(1);
    env.compute(1, &[]);
    env.compute(2, &[(9, &[1])]);
    env.take();
    env.lost();
    env.failed(1, 1);
    env.fetched(1, &[(9, None)]);
    env.expect(&[]);
    env.expect_idle();
}

#[test]
fn the_same_id_is_not_fetched_until_the_stale_fetch_has_ended() {
    let mut env = Env::new(1);
    env.compute(5, &[(9, &[1])]);
    env.take();
    env.lost();
    env.registered();
    env.expect(&["> has ; runs "]);
    env.compute(5, &[(9, &[2])]);
    env.expect(&[]);
    assert!(!env.worker.accepts(task(9)));
    env.fetched(1, &[(9, Some(10))]);
    env.expect(&["free 9", "fetch 9 from 2"]);
    env.fetched(2, &[(9, Some(11))]);
    env.expect(&["> replica 9", "run 5#1 (9)"]);
}

#[test]
fn the_same_id_is_not_run_until_the_stale_fetch_has_ended() {
    let mut env = Env::new(2);
    env.compute(5, &[(9, &[1])]);
    env.take();
    env.lost();
    env.registered();
    env.compute_again(9, 5, &[]);
    env.expect(&["> has ; runs "]);
    env.fetched(1, &[(9, Some(10))]);
    env.expect(&["free 9", "run 9#5 ()"]);
}

#[test]
fn a_stale_fetch_takes_nothing_with_it_that_stays() {
    let mut env = Env::new(1);
    env.assign(third_try(0, &[]));
    env.assign(third_try(5, &[(0, &[1])]));
    env.executed(0, 3);
    env.expect(&["run 0#3 ()", "fetch 0 from 1", "> finished 0#3: 10 bytes in 7", "run 5#3 (0)"]);
    env.failed(5, 3);
    env.take();
    env.lost();
    // It has taken the place of what was computed here.
    env.fetched(1, &[(0, Some(11))]);
    env.expect(&[]);
    env.registered();
    env.expect(&["> has 0#2 11; runs "]);
    env.free(0);
    env.expect(&["free 0"]);
    env.expect_idle();
}

#[test]
fn a_stale_fetch_does_not_take_a_result_with_it_that_is_about_to_be_told() {
    let mut env = Env::new(1);
    env.assign(third_try(0, &[]));
    env.assign(third_try(5, &[(0, &[1])]));
    env.expect(&["run 0#3 ()", "fetch 0 from 1"]);
    env.lost();
    env.fetched(1, &[(0, Some(11))]);
    env.expect(&[]);
    env.executed(0, 3);
    env.registered();
    env.expect(&["> has 0#3 10; runs "]);
    env.free(0);
    env.expect(&["free 0"]);
    env.expect_idle();
}

#[test]
fn what_is_freed_while_a_stale_fetch_may_write_it_goes_when_that_ends() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(5, &[(0, &[1])]);
    env.executed(0, 1);
    env.executed(5, 1);
    env.take();
    env.lost();
    env.registered();
    env.free(0);
    env.expect(&["> has 0#1 10, 5#1 10; runs "]);
    env.fetched(1, &[(0, Some(11))]);
    env.expect(&["free 0"]);
    env.expect_idle();
}

#[test]
fn an_input_that_nobody_holds_after_the_stale_fetch_is_missing() {
    let mut env = Env::new(1);
    env.compute(5, &[(9, &[1])]);
    env.take();
    env.lost();
    env.registered();
    env.compute(6, &[(9, &[77])]);
    env.expect(&["> has ; runs "]);
    env.fetched(1, &[(9, None)]);
    env.expect(&["> missing for 6#1: 9 not at 77"]);
    env.expect_idle();
}
