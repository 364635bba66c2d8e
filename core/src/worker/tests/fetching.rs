use super::env::{Env, OWN, assignment};

#[test]
fn inputs_are_fetched_kept_and_reported() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[1]), (1, &[2]), (0, &[1])]);
    env.expect(&["fetch 0 from 1", "fetch 1 from 2"]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["> replica 0"]);
    env.fetched(2, &[(1, Some(10))]);
    env.expect(&["> replica 1", "run 5#1 (0 1 0)"]);
    env.executed(5, 1);
    env.expect(&["> finished 5#1: 10 bytes in 7"]);
    assert!(env.holds(0) && env.holds(1));
    env.free(0);
    env.free(1);
    env.expect(&["free 0", "free 1"]);
    env.expect_idle();
}

#[test]
fn an_input_that_several_tasks_need_is_fetched_once() {
    let mut env = Env::new(2);
    env.compute(5, &[(0, &[1])]);
    env.compute(6, &[(0, &[1, 2])]);
    env.expect(&["fetch 0 from 1"]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["> replica 0", "run 5#1 (0)", "run 6#1 (0)"]);
}

#[test]
fn one_fetch_at_a_time_goes_to_a_peer_and_asks_for_the_most_urgent() {
    let mut env = Env::new(1);
    env.compute(9, &[(0, &[1])]);
    env.compute(8, &[(2, &[1]), (1, &[1])]);
    env.compute(7, &[(3, &[1])]);
    env.expect(&["fetch 0 from 1"]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["> replica 0", "fetch 3 1 2 from 1", "run 9#1 (0)"]);
}

#[test]
fn a_fetch_is_bounded_in_bytes_but_asks_for_one_output_at_least() {
    let mut env = Env::with(1, 10, 25);
    env.compute(5, &[(0, &[1])]);
    let mut large = assignment(6, &[(1, &[1]), (2, &[1]), (3, &[1]), (4, &[1])]);
    large.inputs[3].nbytes = 1_000;
    env.assign(large);
    env.expect(&["fetch 0 from 1"]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["> replica 0", "fetch 1 2 from 1", "run 5#1 (0)"]);
    env.fetched(1, &[(1, Some(10)), (2, Some(10))]);
    env.expect(&["> replica 1", "> replica 2", "fetch 3 from 1"]);
    env.fetched(1, &[(3, Some(10))]);
    env.expect(&["> replica 3", "fetch 4 from 1"]);
}

#[test]
fn so_many_fetches_are_under_way_the_most_urgent_first() {
    let mut env = Env::with(1, 1, 1_000);
    env.compute(9, &[(0, &[1])]);
    env.compute(8, &[(1, &[2])]);
    env.compute(7, &[(2, &[3])]);
    env.expect(&["fetch 0 from 1"]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["> replica 0", "fetch 2 from 3", "run 9#1 (0)"]);
    env.fetched(3, &[(2, None)]);
    env.expect(&["> missing for 7#1: 2 not at 3", "fetch 1 from 2"]);
}

#[test]
fn what_one_holder_does_not_have_the_next_is_asked_for() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[1, 2])]);
    env.expect(&["fetch 0 from 1"]);
    env.fetched(1, &[(0, None)]);
    env.expect(&["fetch 0 from 2"]);
    // A holder that leaves an output out of its answer does not have it either.
    env.fetched(2, &[]);
    env.expect(&["> missing for 5#1: 0 not at 1 2"]);
    env.expect_idle();
}

#[test]
fn all_that_wait_for_a_missing_input_are_given_back_and_others_go_on() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[1]), (1, &[1])]);
    env.compute(6, &[(0, &[1])]);
    env.compute(7, &[(1, &[1])]);
    env.expect(&["fetch 0 1 from 1"]);
    env.fetched(1, &[(0, None), (1, Some(10))]);
    env.expect(&["> missing for 5#1: 0 not at 1", "> missing for 6#1: 0 not at 1", "> replica 1", "run 7#1 (1)"]);
}

#[test]
fn an_input_that_nobody_can_be_asked_for_is_missing_at_once() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[OWN, 99]), (1, &[])]);
    env.expect(&["> missing for 5#1: 0 not at 0 99"]);
    env.compute(6, &[(1, &[])]);
    env.expect(&["> missing for 6#1: 1 not at "]);
    env.expect_idle();
}

#[test]
fn a_peer_that_is_gone_is_not_asked_any_more() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[1])]);
    env.compute(6, &[(1, &[1, 2]), (2, &[1])]);
    env.expect(&["fetch 0 from 1", "fetch 1 from 2"]);
    env.gone(1);
    env.expect(&["> missing for 6#1: 2 not at 1"]);
    // What is under way ends with an event, as always.
    env.fetched(1, &[(0, None)]);
    env.expect(&["> missing for 5#1: 0 not at 1"]);
    env.fetched(2, &[(1, Some(10))]);
    env.expect(&["free 1"]);
    env.expect_idle();
}

#[test]
fn a_holder_named_anew_is_asked_again() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[1, 2])]);
    env.fetched(1, &[(0, None)]);
    env.expect(&["fetch 0 from 1", "fetch 0 from 2"]);
    env.compute(6, &[(0, &[1])]);
    env.fetched(2, &[(0, None)]);
    env.expect(&["fetch 0 from 1"]);
    env.fetched(1, &[(0, Some(10))]);
    env.expect(&["> replica 0", "run 5#1 (0)"]);
}

#[test]
fn an_input_freed_in_flight_is_dropped_unless_it_is_needed() {
    let mut env = Env::new(1);
    env.compute(5, &[(0, &[1]), (1, &[1])]);
    env.expect(&["fetch 0 1 from 1"]);
    env.free(0);
    env.cancel(5, 1);
    env.compute(6, &[(1, &[1])]);
    env.free(1);
    env.expect(&[]);
    env.fetched(1, &[(0, Some(10)), (1, Some(10))]);
    env.expect(&["free 0", "> replica 1", "run 6#1 (1)"]);
}

#[test]
fn what_arrives_before_it_is_computed_here_is_not_computed() {
    let mut env = Env::new(1);
    env.compute(0, &[]);
    env.compute(5, &[(3, &[1])]);
    env.compute(3, &[(4, &[2])]);
    env.expect(&["run 0#1 ()", "fetch 3 from 1", "fetch 4 from 2"]);
    env.fetched(1, &[(3, Some(10))]);
    env.expect(&["> finished 3#1: 10 bytes in 0"]);
    env.fetched(2, &[(4, Some(10))]);
    env.expect(&["free 4"]);
}

#[test]
fn what_arrives_while_it_is_computed_here_is_used_and_counted_once() {
    let mut env = Env::new(2);
    env.compute(5, &[(3, &[1])]);
    env.compute(3, &[]);
    env.expect(&["fetch 3 from 1", "run 3#1 ()"]);
    env.fetched(1, &[(3, Some(10))]);
    env.expect(&["run 5#1 (3)"]);
    env.executed(3, 1);
    env.expect(&["> finished 3#1: 10 bytes in 7"]);
    env.executed(5, 1);
    env.expect(&["> finished 5#1: 10 bytes in 7"]);
    env.free(3);
    env.expect(&["free 3"]);
}

#[test]
fn a_copy_that_a_cancelled_computation_would_have_reported_is_reported() {
    let mut env = Env::new(2);
    env.compute(5, &[(3, &[1])]);
    env.compute(3, &[]);
    env.fetched(1, &[(3, Some(10))]);
    env.expect(&["fetch 3 from 1", "run 3#1 ()", "run 5#1 (3)"]);
    env.cancel(3, 1);
    env.expect(&["> replica 3"]);
    // Freeing waits for the thread, or the thread would leave a copy that nobody knows.
    env.free(3);
    env.executed(5, 1);
    env.expect(&["> finished 5#1: 10 bytes in 7"]);
    env.executed(3, 1);
    env.expect(&["free 3"]);
    env.expect_idle();
}

#[test]
fn what_a_cancelled_execution_gives_is_kept_if_it_is_awaited_here() {
    let mut env = Env::new(1);
    env.compute(3, &[]);
    env.compute(5, &[(3, &[1])]);
    env.cancel(3, 1);
    env.expect(&["run 3#1 ()", "fetch 3 from 1"]);
    env.executed(3, 1);
    env.expect(&["> replica 3", "run 5#1 (3)"]);
    env.executed(5, 1);
    env.free(3);
    env.expect(&["> finished 5#1: 10 bytes in 7"]);
    env.fetched(1, &[(3, Some(10))]);
    env.expect(&["free 3"]);
    env.expect_idle();
}
