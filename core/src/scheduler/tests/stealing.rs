//! Work that goes from a busy worker to an idle one.

use super::env::{Env, spec};
use crate::scheduler::TaskState;
use crate::wire::{FromWorker, WorkerStatus};

/// Worker 1 has four tasks on its one thread, whose kind is known to take 2 ms.
fn busy() -> Env {
    let mut env = Env::with(&[1], |_| {});
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish_with(1, 0, 1, 10, 2_000);
        env.submit((1..5).map(|index| spec(index, &[])).collect());
    });
    env
}

/// The same, and worker 2 has just come: tasks 4 and 3 are asked back for it.
fn uneven() -> Env {
    let mut env = busy();
    env.quietly(|env| env.join(2, 1));
    env
}

#[test]
fn an_idle_worker_is_given_half_of_what_waits() {
    let mut env = busy();
    env.join(2, 1);
    let lines = env.take();
    let asked: Vec<&String> = lines.iter().filter(|line| line.contains("steal")).collect();
    assert_eq!(asked, ["w1 < steal 4#1", "w1 < steal 3#1"]);
    env.steal_answer(1, 4, 1, true);
    env.expect(&["w2 < compute 4#2"]);
    env.steal_answer(1, 3, 1, false);
    env.expect(&[]);
    assert_eq!(env.state(3), TaskState::Processing);
}

#[test]
fn what_has_begun_is_not_asked_for_again() {
    let mut env = uneven();
    env.steal_answer(1, 4, 1, false);
    env.steal_answer(1, 3, 1, false);
    env.take();
    env.tick_after(10_000);
    env.expect(&["w1 < steal 2#1", "w1 < steal 1#1"]);
    env.steal_answer(1, 2, 1, false);
    env.steal_answer(1, 1, 1, false);
    env.tick_after(10_000);
    env.expect(&[]);
}

#[test]
fn a_task_that_finished_before_it_was_asked_for_counts() {
    let mut env = uneven();
    env.finish(1, 4, 1);
    env.expect(&["c0 < finished 4: 10 bytes at 1"]);
    env.steal_answer(1, 4, 1, true);
    env.expect(&[]);
    assert_eq!(env.state(4), TaskState::Memory);
}

#[test]
fn an_answer_under_another_attempt_or_from_another_worker_is_ignored() {
    let mut env = uneven();
    env.steal_answer(1, 4, 7, true);
    env.steal_answer(2, 4, 1, true);
    env.steal_answer(1, 1, 1, false);
    env.expect(&[]);
    assert_eq!(env.state(4), TaskState::Processing);
}

#[test]
fn a_lost_victim_or_thief_loses_no_task() {
    let mut env = uneven();
    env.lose(1);
    assert!(["w2 < gone 1"].iter().all(|line| env.take().contains(&(*line).to_owned())));
    for index in 1..5 {
        assert!([TaskState::Processing, TaskState::Queued].contains(&env.state(index)));
    }
    let mut env = uneven();
    env.lose(2);
    env.take();
    env.steal_answer(1, 4, 1, true);
    assert_eq!(env.state(4), TaskState::Processing);
    env.expect(&["w1 < compute 4#2"]);
}

#[test]
fn what_waits_behind_a_task_that_takes_too_long_is_stolen() {
    let mut env = Env::with(&[1, 1], |_| {});
    env.quietly(|env| {
        // A microsecond each, as far as is known.
        env.submit(vec![spec(0, &[])]);
        env.finish_with(1, 0, 1, 10, 1);
        env.submit((1..5).map(|index| spec(index, &[])).collect());
        for index in 1..5 {
            if env.take().is_empty() {
                env.finish_with(2, index, 1, 10, 1);
            }
        }
    });
    let held_by_1: Vec<u32> = (1..5).filter(|index| env.state(*index) == TaskState::Processing).collect();
    assert!(held_by_1.len() >= 2, "{held_by_1:?}");
    env.take();
    env.tick_after(60_000);
    let asked = env.take();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.contains("steal")), "{asked:?}");
}

#[test]
fn nothing_is_stolen_whose_inputs_take_longer_to_fetch() {
    let mut env = Env::with(&[1], |_| {});
    env.quietly(|env| {
        env.scatter(0, 1_000_000_000, &[1]);
        env.submit((1..4).map(|index| spec(index, &[0])).collect());
    });
    env.join(2, 1);
    assert!(env.take().iter().all(|line| !line.contains("steal")));
}

#[test]
fn a_paused_worker_is_asked_for_what_it_has_not_begun_and_gets_nothing() {
    let mut env = Env::with(&[1, 1], |_| {});
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    let paused = |paused| FromWorker::Status(WorkerStatus { paused, ..WorkerStatus::default() });
    env.worker(1, paused(true));
    let asked = env.take();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|line| line.starts_with("w1 < steal")), "{asked:?}");
    env.quietly(|env| env.submit(vec![spec(4, &[])]));
    assert_eq!(env.state(4), TaskState::Queued);
    env.worker(1, paused(false));
    env.steal_answer(1, 0, 1, false);
    env.steal_answer(1, 2, 1, false);
    env.finish_with(1, 0, 1, 10, 10);
    let lines = env.take();
    assert!(lines.contains(&"w1 < compute 4#1".to_owned()), "{lines:?}");
}

#[test]
fn stealing_can_be_switched_off() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit((0..3).map(|index| spec(index, &[])).collect()));
    env.join(2, 1);
    env.tick_after(1_000_000);
    assert!(env.take().iter().all(|line| !line.contains("steal")));
}
