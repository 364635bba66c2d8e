use super::env::{Env, task};

#[test]
fn a_lost_scheduler_takes_everything_with_it() {
    let mut env = Env::new(1);
    env.stored(8);
    env.compute(0, &[]);
    env.executed(0, 1);
    env.compute(1, &[(8, &[])]);
    env.compute(2, &[(9, &[1])]);
    env.take();
    env.event(crate::worker::Event::SchedulerLost);
    env.expect(&["free 0", "free 8"]);
    env.executed(1, 1);
    env.expect(&["free 1"]);
    env.fetched(1, &[(9, Some(10))]);
    env.expect(&["free 9"]);
    env.expect_idle();
    assert!(env.worker.has_what().is_empty());
}

#[test]
fn a_stale_failure_leaves_nothing_to_free() {
    let mut env = Env::new(1);
    env.compute(1, &[]);
    env.compute(2, &[(9, &[1])]);
    env.take();
    env.event(crate::worker::Event::SchedulerLost);
    env.failed(1, 1);
    env.fetched(1, &[(9, None)]);
    env.expect(&[]);
    env.expect_idle();
}

#[test]
fn the_same_id_is_not_run_until_the_stale_execution_has_ended() {
    let mut env = Env::new(2);
    env.compute(1, &[]);
    env.take();
    env.event(crate::worker::Event::SchedulerLost);
    env.compute(1, &[]);
    env.compute(2, &[]);
    env.expect(&["run 2#1 ()"]);
    env.executed(1, 1);
    env.expect(&["free 1", "run 1#1 ()"]);
    env.executed(1, 1);
    env.expect(&["> finished 1#1: 10 bytes in 7"]);
}

#[test]
fn a_stale_execution_keeps_its_thread() {
    let mut env = Env::new(1);
    env.compute(1, &[]);
    env.take();
    env.event(crate::worker::Event::SchedulerLost);
    env.compute(2, &[]);
    env.expect(&[]);
    env.executed(1, 1);
    env.expect(&["free 1", "run 2#1 ()"]);
}

#[test]
fn the_same_id_is_not_fetched_until_the_stale_fetch_has_ended() {
    let mut env = Env::new(1);
    env.compute(5, &[(9, &[1])]);
    env.take();
    env.event(crate::worker::Event::SchedulerLost);
    // The ids of workers may mean others as well: here nobody but 2 is known.
    env.peer(2);
    env.compute(5, &[(9, &[2])]);
    env.expect(&[]);
    assert!(!env.worker.accepts(task(9)));
    env.fetched(1, &[(9, Some(10))]);
    env.expect(&["free 9", "fetch 9 from 2"]);
    env.fetched(2, &[(9, Some(11))]);
    env.expect(&["> replica 9", "run 5#1 (9)"]);
}

#[test]
fn a_put_under_an_id_that_may_still_be_written_is_not_counted() {
    let mut env = Env::new(1);
    env.compute(1, &[]);
    env.take();
    env.event(crate::worker::Event::SchedulerLost);
    assert!(!env.worker.accepts(task(1)));
    env.stored(1);
    assert!(!env.holds(1));
    env.executed(1, 1);
    env.expect(&["free 1"]);
    assert!(env.worker.accepts(task(1)));
}

#[test]
fn an_input_that_nobody_holds_after_the_stale_fetch_is_missing() {
    let mut env = Env::new(1);
    env.compute(5, &[(9, &[1])]);
    env.take();
    env.event(crate::worker::Event::SchedulerLost);
    env.compute(6, &[(9, &[3])]);
    env.expect(&[]);
    env.fetched(1, &[(9, None)]);
    env.expect(&["> missing for 6#1: 9 not at 3"]);
    env.expect_idle();
}
