//! What was given to one worker and is better done by another.

use super::super::env::{spec, task};
use super::play::{Play, only_at, taking};
use crate::ids::Attempt;
use crate::scheduler::TaskState;
use crate::wire::FromWorker;

/// One worker of one thread with tasks 0 and 1, of which it runs the first; nothing else is queued.
fn two_at_one() -> Play {
    let mut play = Play::new(&[1]);
    play.submit(vec![spec(0, &[]), spec(1, &[])]);
    play.expect(&["w1 < compute 0#1", "w1 < compute 1#1"]);
    play
}

#[test]
fn a_worker_that_joins_is_given_what_waits_at_a_busy_one() {
    let mut play = two_at_one();
    play.join(2, 1, &[]);
    play.expect(&["w1 < steal 1#1"]);
    play.answer(1, 1, 1, true);
    play.expect(&["w2 < compute 1#2"]);
    play.finish(2, 1, 2);
    play.expect(&["c0 < finished 1"]);
}

#[test]
fn what_has_begun_is_not_taken_and_not_asked_for_again() {
    let mut play = two_at_one();
    play.quietly(|play| play.join(2, 1, &[]));
    play.answer(1, 1, 1, false);
    assert_eq!(play.place(1), Some((1, 1)));
    for _ in 0..10 {
        play.pass(10_000);
    }
    // It may be that the first one waits, and has not begun at all.
    let lines = play.take();
    assert!(lines.iter().all(|line| line == "w1 < steal 0#1"), "{lines:?}");
    play.finish(1, 1, 1);
    assert_eq!(play.state(1), TaskState::Memory);
}

#[test]
fn data_that_takes_longer_to_move_than_to_wait_for_is_left_where_it_is() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.scatter(0, 10_000_000_000, &[1]);
        play.submit(vec![spec(1, &[0]), spec(2, &[0])]);
    });
    play.join(2, 1, &[]);
    play.expect(&[]);
    // The wait has turned out to be longer than any transfer.
    play.pass(3_600_000_000);
    play.expect(&["w1 < steal 2#1"]);
    play.answer(1, 2, 1, true);
    play.expect(&["w2 < compute 2#2"]);
}

#[test]
fn small_data_is_moved_to_an_idle_worker() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.submit(vec![spec(1, &[0]), spec(2, &[0])]);
    });
    play.join(2, 1, &[]);
    play.expect(&["w1 < steal 2#1"]);
}

#[test]
fn a_task_is_not_taken_to_a_worker_that_may_not_run_it() {
    for workers in [["w1"], ["host1"]] {
        let mut play = Play::new(&[1]);
        play.quietly(|play| {
            play.submit((0..2).map(|index| only_at(spec(index, &[]), &workers, false)).collect());
        });
        play.join(2, 1, &[]);
        play.pass(3_600_000_000);
        play.expect(&[]);
    }
}

#[test]
fn a_task_is_taken_to_another_worker_that_may_run_it() {
    for workers in [["w1", "w3"], ["host1", "host3"]] {
        let mut play = Play::new(&[1]);
        play.quietly(|play| {
            play.submit((0..2).map(|index| only_at(spec(index, &[]), &workers, false)).collect());
            play.join(2, 1, &[]);
        });
        play.join(3, 1, &[]);
        play.pass(10_000);
        play.expect(&["w1 < steal 1#1"]);
        play.answer(1, 1, 1, true);
        play.expect(&["w3 < compute 1#2"]);
    }
}

#[test]
fn with_other_workers_allowed_a_task_goes_elsewhere_only_while_none_of_the_named_is_there() {
    let mut play = Play::new(&[1]);
    play.submit(vec![only_at(spec(0, &[]), &["w2"], true), only_at(spec(1, &[]), &["w2"], true)]);
    play.expect(&["w1 < compute 0#1", "w1 < compute 1#1"]);
    play.join(2, 1, &[]);
    play.expect(&["w1 < steal 1#1"]);
    play.answer(1, 1, 1, true);
    play.expect(&["w2 < compute 1#2"]);
    play.lose(2);
    // Nobody of the named is left.
    assert_eq!(play.state(1), TaskState::Processing);
    play.expect(&["w1 < compute 1#3"]);
}

#[test]
fn what_takes_resources_is_not_stolen_and_what_waits_for_them_goes_to_whoever_has_them() {
    let mut play = Play::new(&[]);
    play.quietly(|play| {
        play.join(1, 2, &[("gpu", 1000)]);
        play.submit((0..2).map(|index| taking(spec(index, &[]), &[("gpu", 1000)])).collect());
    });
    assert_eq!((play.place(0), play.place(1)), (Some((1, 1)), None));
    play.join(2, 2, &[]);
    play.pass(3_600_000_000);
    play.expect(&[]);
    play.join(3, 1, &[("gpu", 1000)]);
    play.expect(&["w3 < compute 1#1"]);
}

#[test]
fn a_paused_worker_takes_nothing_and_what_it_has_not_begun_is_asked_back() {
    let mut play = two_at_one();
    play.quietly(|play| {
        play.join(2, 1, &[]);
        play.answer(1, 1, 1, true);
    });
    assert_eq!(play.place(1), Some((2, 2)));
    play.pause(2, true);
    play.expect(&["w2 < steal 1#2"]);
    play.answer(2, 1, 2, true);
    play.expect(&["w1 < compute 1#3"]);
    play.pass(10_000);
    play.expect(&[]);
    play.pause(2, false);
    play.pass(10_000);
    play.expect(&["w1 < steal 1#3"]);
}

#[test]
fn an_answer_for_a_task_that_was_released_meanwhile_is_ignored() {
    let mut play = two_at_one();
    play.quietly(|play| play.join(2, 1, &[]));
    play.release(&[1]);
    play.expect(&["w1 < cancel 1#1"]);
    play.answer(1, 1, 1, true);
    play.expect(&[]);
    assert_eq!(play.state(1), TaskState::Forgotten);
}

#[test]
fn a_completion_that_crosses_the_question_counts_and_the_answer_does_not() {
    let mut play = two_at_one();
    play.quietly(|play| play.join(2, 1, &[]));
    play.finish(1, 1, 1);
    play.expect(&["c0 < finished 1"]);
    for given in [false, true] {
        play.answer(1, 1, 1, given);
        play.expect(&[]);
    }
    assert_eq!(play.holders(1), [1]);
}

#[test]
fn a_worker_that_dies_while_it_is_asked_loses_its_tasks_to_others() {
    let mut play = two_at_one();
    play.quietly(|play| play.join(2, 1, &[]));
    play.lose(1);
    let lines = play.take();
    assert!(lines.contains(&"w2 < compute 1#2".to_owned()) && lines.contains(&"w2 < compute 0#2".to_owned()));
    assert_eq!(lines.len(), 2, "{lines:?}");
    play.answer(1, 1, 1, true);
    play.expect(&[]);
}

#[test]
fn what_was_asked_for_a_worker_that_died_meanwhile_goes_back() {
    let mut play = two_at_one();
    play.quietly(|play| {
        play.join(2, 1, &[]);
        play.lose(2);
    });
    play.answer(1, 1, 1, true);
    play.expect(&["w1 < compute 1#2"]);
}

#[test]
fn a_task_does_not_go_to_and_fro() {
    let mut play = two_at_one();
    play.quietly(|play| {
        play.join(2, 1, &[]);
        play.answer(1, 1, 1, true);
    });
    for _ in 0..100 {
        play.pass(50_000);
    }
    play.expect(&[]);
    play.finish(1, 0, 1);
    play.pass(50_000);
    // The other one is at work on it; there is nothing behind it.
    play.expect(&["c0 < finished 0"]);
}

#[test]
fn a_stolen_task_can_be_stolen_again() {
    let mut play = two_at_one();
    play.quietly(|play| {
        play.join(2, 1, &[]);
        play.answer(1, 1, 1, true);
    });
    play.submit(vec![only_at(spec(2, &[]), &["w2"], false)]);
    play.expect(&["w2 < compute 2#1"]);
    play.pass(10_000);
    play.expect(&[]);
    play.finish(1, 0, 1);
    play.expect(&["w2 < steal 1#2", "c0 < finished 0"]);
    play.answer(2, 1, 2, true);
    play.expect(&["w1 < compute 1#3"]);
}

#[test]
fn many_idle_workers_share_what_one_has() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        // So short that many of them are given in advance.
        play.submit(vec![spec(0, &[])]);
        play.finish_with(1, 0, 1, 1, 100);
        play.submit((1..200).map(|index| spec(index, &[])).collect());
    });
    let given = (1..200).filter(|index| play.place(*index).is_some()).count();
    assert!(given > 50, "{given}");
    for worker in 2..8 {
        play.join(worker, 1, &[]);
    }
    for _ in 0..50 {
        play.pass(2_000);
        for line in play.take() {
            if let Some(asked) = line.strip_prefix("w1 < steal ") {
                let (index, attempt) = asked.split_once('#').unwrap();
                play.answer(1, index.parse().unwrap(), attempt.parse().unwrap(), true);
            }
        }
    }
    let workers = play.scheduler.workers();
    assert!(workers.iter().all(|worker| worker.processing > 0), "{workers:?}");
    let total: usize = workers.iter().map(|worker| worker.processing).sum();
    assert_eq!(total + play.scheduler.counts().get(TaskState::Queued) as usize, 199);
}

#[test]
fn a_task_that_waits_inside_is_not_taken_and_leaves_its_place_to_others() {
    let mut play = two_at_one();
    let suspended = FromWorker::Suspended { task: task(0), attempt: Attempt(1) };
    play.worker(1, suspended);
    play.expect(&[]);
    play.join(2, 1, &[]);
    play.pass(3_600_000_000);
    // The second one runs in the place of the first.
    play.expect(&[]);
    play.finish(1, 1, 1);
    play.worker(1, FromWorker::Resumed { task: task(0), attempt: Attempt(1) });
    play.finish(1, 0, 1);
    play.expect(&["c0 < finished 1", "c0 < finished 0"]);
}

#[test]
fn even_work_is_left_alone() {
    let mut play = Play::new(&[2, 2]);
    play.quietly(|play| play.submit((0..8).map(|index| spec(index, &[])).collect()));
    for index in 0..8 {
        let (worker, attempt) = play.place(index).unwrap();
        play.pass(100);
        play.finish(worker, index, attempt);
        let lines = play.take();
        assert_eq!(lines, [format!("c0 < finished {index}")]);
    }
}
