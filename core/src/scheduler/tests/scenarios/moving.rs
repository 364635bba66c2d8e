//! Replicas, rebalancing, and workers that leave.

use super::super::env::{inner, spec, task};
use super::play::Play;
use crate::scheduler::TaskState;
use crate::wire::{FromClient, FromWorker};

#[test]
fn copies_are_made_on_the_workers_with_the_least_data() {
    let mut play = Play::new(&[1, 1, 1, 1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.scatter(1, 500, &[2]);
        play.scatter(2, 100, &[3]);
    });
    play.replicate(&[0], 3);
    play.expect(&["w4 < acquire 0", "w3 < acquire 0"]);
    play.replica(3, 0);
    play.expect(&[]);
    play.replica(4, 0);
    play.expect(&["c0 < done: 2 moved; "]);
    assert_eq!(play.holders(0), [1, 3, 4]);
}

#[test]
fn what_is_copied_already_is_not_copied_twice() {
    let mut play = Play::new(&[1, 1, 1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.replicate(&[0], 2);
    });
    play.replicate(&[0], 2);
    let lines = play.take();
    assert!(lines.iter().all(|line| !line.contains("acquire")), "{lines:?}");
}

#[test]
fn there_are_no_more_copies_than_workers_and_none_of_what_is_not_there() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.submit(vec![spec(1, &[])]);
    });
    play.replicate(&[0, 1, 77], 100);
    play.expect(&["w2 < acquire 0"]);
    play.not_acquired(2, 0);
    let lines = play.take();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("c0 < done: 0 moved; the output of task 0.0 could not be copied"), "{lines:?}");
    play.replicate(&[1], 2);
    play.expect(&["c0 < done: 0 moved; "]);
}

#[test]
fn a_paused_worker_is_the_last_to_be_given_a_copy() {
    let mut play = Play::new(&[1, 1, 1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.scatter(1, 5_000, &[3]);
        play.pause(2, true);
    });
    play.replicate(&[0], 2);
    play.expect(&["w3 < acquire 0"]);
}

#[test]
fn outputs_move_from_full_workers_to_empty_ones() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| (0..4).for_each(|index| play.scatter(index, 1_000, &[1])));
    play.client(FromClient::Rebalance { token: 7 });
    play.expect(&["w2 < acquire 0", "w2 < acquire 1"]);
    play.replica(2, 0);
    play.expect(&["w1 < free 0"]);
    play.replica(2, 1);
    play.expect(&["w1 < free 1", "c0 < done: 2 moved; "]);
    play.client(FromClient::Rebalance { token: 7 });
    play.expect(&["c0 < done: 0 moved; "]);
}

#[test]
fn the_data_of_a_worker_that_leaves_goes_first() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.scatter(1, 1_000, &[1, 2]);
    });
    play.retire(&[1]);
    // The other one has the second already.
    play.expect(&["w2 < acquire 0", "w1 < free 1"]);
    play.submit(vec![spec(2, &[]), spec(3, &[0])]);
    play.expect(&["w2 < compute 3#1", "w2 < compute 2#1"]);
    play.replica(2, 0);
    play.expect(&["w1 < free 0", "w1 < leave", "c0 < done: 1 moved; "]);
    play.lose(1);
    play.expect(&[]);
    assert_eq!((play.holders(0), play.holders(1)), (vec![2], vec![2]));
}

#[test]
fn a_worker_that_leaves_finishes_what_it_has_begun_and_gives_the_rest_back() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.submit(vec![spec(0, &[]), spec(1, &[])]);
        play.join(2, 1, &[]);
        play.answer(1, 1, 1, false);
    });
    play.retire(&[1]);
    play.expect(&["w1 < steal 0#1"]);
    play.answer(1, 0, 1, true);
    play.expect(&["w2 < compute 0#2"]);
    play.finish(1, 1, 1);
    // What it computes while it leaves goes too.
    play.expect(&["w2 < acquire 1", "c0 < finished 1"]);
    play.replica(2, 1);
    play.expect(&["w1 < free 1", "w1 < leave", "c0 < done: 0 moved; "]);
}

#[test]
fn a_worker_that_asks_to_leave_does_so_in_the_same_way() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| play.scatter(0, 1_000, &[1]));
    play.worker(1, FromWorker::Leaving);
    play.expect(&["w2 < acquire 0"]);
    play.worker(1, FromWorker::Leaving);
    play.expect(&[]);
    play.replica(2, 0);
    play.expect(&["w1 < free 0", "w1 < leave"]);
}

#[test]
fn the_last_worker_cannot_be_retired_and_may_leave() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| play.scatter(0, 1_000, &[1]));
    play.retire(&[1]);
    let lines = play.take();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("c0 < done: 0 moved; worker w1 cannot leave"), "{lines:?}");
    play.submit(vec![spec(1, &[0])]);
    play.expect(&["w1 < compute 1#1"]);
    play.worker(1, FromWorker::Leaving);
    play.expect(&["w1 < leave"]);
}

#[test]
fn of_all_workers_that_are_to_leave_one_stays() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.scatter(1, 1_000, &[2]);
    });
    play.retire(&[1, 2]);
    play.expect(&["w2 < acquire 0"]);
    play.replica(2, 0);
    let lines = play.take();
    assert_eq!(lines[..2], ["w1 < free 0", "w1 < leave"]);
    assert!(lines[2].contains("worker w2 cannot leave") && lines.len() == 3, "{lines:?}");
}

#[test]
fn an_output_whose_holders_all_leave_goes_to_one_that_stays() {
    let mut play = Play::new(&[1, 1, 1]);
    play.quietly(|play| play.scatter(0, 1_000, &[1, 2]));
    play.retire(&[1, 2]);
    // The first can go at once: the other one has a copy. That one waits until the third has one.
    play.expect(&["w1 < free 0", "w3 < acquire 0", "w1 < leave"]);
    play.replica(3, 0);
    play.expect(&["w2 < free 0", "w2 < leave", "c0 < done: 1 moved; "]);
    assert_eq!(play.holders(0), [3]);
}

#[test]
fn what_one_worker_cannot_take_another_is_asked_to() {
    let mut play = Play::new(&[1, 1, 1]);
    play.quietly(|play| play.scatter(0, 1_000, &[1]));
    play.retire(&[1]);
    play.expect(&["w2 < acquire 0"]);
    play.not_acquired(2, 0);
    play.expect(&["w3 < acquire 0"]);
    play.lose(3);
    // It was tried everywhere: the worker stays, with its data, and works on.
    play.expect(&["c0 < done: 0 moved; the output of task 0.0 could not be copied to a worker that is gone"]);
    assert_eq!(play.holders(0), [1]);
    play.submit(vec![spec(1, &[0])]);
    play.expect(&["w1 < compute 1#1"]);
}

#[test]
fn a_worker_that_dies_while_it_leaves_is_told_and_its_data_is_computed_again() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| {
        play.submit(vec![spec(0, &[])]);
    });
    let (leaver, attempt) = play.place(0).unwrap();
    play.quietly(|play| {
        play.finish(leaver, 0, attempt);
        play.retire(&[leaver]);
    });
    play.lose(leaver);
    let lines = play.take();
    let again = format!("w{} < compute 0#2", 3 - leaver);
    assert!(lines.contains(&again) && lines.contains(&"c0 < recomputing 0".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("c0 < done: 0 moved")), "{lines:?}");
}

#[test]
fn nothing_new_is_given_to_a_worker_that_leaves() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| {
        play.submit(vec![spec(0, &[])]);
        play.retire(&[1]);
    });
    play.submit((1..20).map(|index| spec(index, &[])).collect());
    let lines = play.take();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with("w2 < compute")), "{lines:?}");
}

#[test]
fn released_outputs_are_not_waited_for() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.retire(&[1]);
    });
    play.release(&[0]);
    let lines = play.take();
    assert!(lines.contains(&"w1 < free 0".to_owned()) && lines.contains(&"w1 < leave".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("c0 < done")), "{lines:?}");
    play.replica(2, 0);
    play.expect(&["w2 < free 0"]);
}

#[test]
fn copies_go_with_the_last_that_needs_them() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| {
        play.submit(vec![inner(0, &[]), spec(1, &[0])]);
        let (worker, attempt) = play.place(0).unwrap();
        play.finish(worker, 0, attempt);
        play.replica(3 - worker, 0);
    });
    assert_eq!(play.holders(0), [1, 2]);
    let (worker, attempt) = play.scheduler.processing_on(task(1)).unwrap();
    play.finish(worker.0, 1, attempt.0);
    let mut lines = play.take();
    lines.sort();
    assert_eq!(lines, ["c0 < finished 1", "w1 < free 0", "w2 < free 0"]);
    assert_eq!(play.state(1), TaskState::Memory);
}

#[test]
fn a_paused_worker_is_asked_to_take_data_only_if_there_is_no_other() {
    let mut play = Play::new(&[1, 1]);
    play.quietly(|play| {
        play.scatter(0, 1_000, &[1]);
        play.pause(2, true);
    });
    play.retire(&[1]);
    play.expect(&["w2 < acquire 0"]);
    play.not_acquired(2, 0);
    play.expect(&["c0 < done: 0 moved; the output of task 0.0 could not be copied to w2"]);
    // It stays, and works on.
    play.submit(vec![spec(1, &[0])]);
    play.expect(&["w1 < compute 1#1"]);
}

#[test]
fn many_workers_leave_at_once_and_nothing_is_lost() {
    let mut play = Play::new(&[1; 10]);
    play.quietly(|play| {
        for index in 0..100 {
            play.scatter(index, 1_000, &[1 + index % 10]);
        }
    });
    play.retire(&(1..10).collect::<Vec<u32>>());
    let mut left = Vec::new();
    loop {
        let lines = play.take();
        if lines.is_empty() {
            break;
        }
        for line in lines {
            let (worker, message) = line.split_once(" < ").unwrap();
            match (worker.strip_prefix('w').map(|worker| worker.parse::<u32>().unwrap()), message) {
                (Some(worker), "leave") => {
                    left.push(worker);
                    play.lose(worker);
                }
                (Some(worker), message) => {
                    if let Some(index) = message.strip_prefix("acquire ") {
                        play.replica(worker, index.parse().unwrap());
                    }
                }
                (None, message) => assert_eq!(message, "done: 90 moved; "),
            }
        }
    }
    left.sort_unstable();
    assert_eq!(left, (1..10).collect::<Vec<u32>>());
    assert!((0..100).all(|index| play.holders(index) == [10]));
}
