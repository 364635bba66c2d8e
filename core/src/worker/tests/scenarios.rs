//! Scenarios of other schedulers' tests that have no place elsewhere; see `integration-tests/SCENARIOS.md`.

use super::env::Env;

#[test]
fn a_cancelled_execution_that_fails_changes_nothing_for_who_fetches_its_output() {
    let mut env = Env::new(1);
    env.compute(3, &[]);
    env.compute(5, &[(3, &[1])]);
    env.cancel(3, 1);
    env.expect(&["run 3#1 ()", "fetch 3 from 1"]);
    env.failed(3, 1);
    env.expect(&[]);
    env.fetched(1, &[(3, Some(10))]);
    env.expect(&["> replica 3", "run 5#1 (3)"]);
    env.executed(5, 1);
    env.free(3);
    env.expect(&["> finished 5#1: 10 bytes in 7", "free 3"]);
    env.expect_idle();
}
