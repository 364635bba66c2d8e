//! Abstract resources and restrictions.

use super::super::env::{spec, task};
use super::play::{Play, only_at, taking};
use crate::explain::Why;
use crate::scheduler::TaskState;

const ONE: [(&str, u64); 1] = [("gpu", 1000)];

fn with_gpus(amounts: &[u64]) -> Play {
    let mut play = Play::new(&[]);
    play.quietly(|play| {
        for (worker, amount) in (1..).zip(amounts) {
            play.join(worker, 4, &[("gpu", *amount)]);
        }
    });
    play
}

#[test]
fn a_worker_is_never_given_more_than_its_resources_allow() {
    let mut play = with_gpus(&[2000]);
    play.submit((0..5).map(|index| taking(spec(index, &[]), &ONE)).collect());
    play.expect(&["w1 < compute 0#1", "w1 < compute 1#1"]);
    play.finish(1, 0, 1);
    play.expect(&["w1 < compute 2#1", "c0 < finished 0"]);
    play.fail(1, 1, 1);
    play.expect(&["w1 < compute 3#1", "c0 < failed 1: failed: it broke"]);
    play.finish(1, 2, 1);
    play.finish(1, 3, 1);
    play.finish(1, 4, 1);
    assert_eq!(play.scheduler.counts().get(TaskState::Memory), 4);
}

#[test]
fn parts_of_a_resource_add_up_without_rounding() {
    let mut play = Play::new(&[]);
    play.quietly(|play| play.join(1, 12, &[("gpu", 1000)]));
    play.submit((0..12).map(|index| taking(spec(index, &[]), &[("gpu", 100)])).collect());
    assert_eq!(play.take().len(), 10);
    assert_eq!(play.scheduler.counts().get(TaskState::Queued), 2);
}

#[test]
fn a_task_waits_for_a_worker_that_has_what_it_takes() {
    let mut play = with_gpus(&[500]);
    play.join(2, 1, &[("disk", 9000)]);
    play.submit(vec![taking(spec(0, &[]), &ONE)]);
    play.expect(&[]);
    assert_eq!(play.state(0), TaskState::NoWorker);
    let Why::NoWorker { obstacles, .. } = play.scheduler.explain(task(0)).why else { panic!("another reason") };
    assert_eq!(obstacles.len(), 2);
    play.join(3, 1, &ONE);
    play.expect(&["w3 < compute 0#1"]);
    // And for the next one, when that is gone.
    play.lose(3);
    assert_eq!(play.state(0), TaskState::NoWorker);
    play.expect(&[]);
}

#[test]
fn tasks_go_to_the_workers_that_have_what_they_take() {
    let mut play = Play::new(&[]);
    play.quietly(|play| {
        play.join(1, 4, &[("gpu", 1000)]);
        play.join(2, 4, &[("disk", 1000)]);
    });
    play.submit(vec![taking(spec(0, &[]), &[("disk", 1000)]), taking(spec(1, &[]), &ONE)]);
    let mut lines = play.take();
    lines.sort();
    assert_eq!(lines, ["w1 < compute 1#1", "w2 < compute 0#1"]);
    play.submit(vec![taking(spec(2, &[]), &[("gpu", 1000), ("disk", 1000)])]);
    assert_eq!(play.state(2), TaskState::NoWorker);
}

#[test]
fn tasks_are_spread_over_the_workers_that_have_a_resource() {
    let mut play = with_gpus(&[4000, 4000]);
    play.quietly(|play| play.submit((0..8).map(|index| taking(spec(index, &[]), &ONE)).collect()));
    let at_first = (0..8).filter(|index| play.place(*index).map(|at| at.0) == Some(1)).count();
    assert_eq!(at_first, 4);
}

#[test]
fn an_input_is_fetched_to_where_the_resource_is() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.join(2, 1, &ONE);
        play.scatter(0, 1_000_000_000, &[1]);
    });
    play.submit(vec![taking(spec(1, &[0]), &ONE)]);
    play.expect(&["w2 < compute 1#1"]);
}

#[test]
fn what_takes_nothing_does_not_wait_behind_what_waits_for_a_resource() {
    let mut play = with_gpus(&[1000]);
    play.submit(vec![taking(spec(0, &[]), &ONE), taking(spec(1, &[]), &ONE), spec(2, &[]), spec(3, &[])]);
    let mut lines = play.take();
    lines.sort();
    assert_eq!(lines, ["w1 < compute 0#1", "w1 < compute 2#1", "w1 < compute 3#1"]);
    assert_eq!(play.state(1), TaskState::Queued);
}

#[test]
fn a_resource_goes_to_the_task_of_the_highest_priority() {
    let mut play = with_gpus(&[1000]);
    play.quietly(|play| play.submit(vec![taking(spec(0, &[]), &ONE)]));
    play.submit(
        (1..4)
            .map(|index| {
                let mut spec = taking(spec(index, &[]), &ONE);
                spec.options.priority = if index == 2 { 5 } else { 0 };
                spec
            })
            .collect(),
    );
    play.expect(&[]);
    play.finish(1, 0, 1);
    play.expect(&["w1 < compute 2#1", "c0 < finished 0"]);
    play.finish(1, 2, 1);
    play.expect(&["w1 < compute 1#1", "c0 < finished 2"]);
}

#[test]
fn a_task_that_is_given_up_gives_its_resource_back() {
    for is_cancelled in [false, true] {
        let mut play = with_gpus(&[1000]);
        play.quietly(|play| play.submit(vec![taking(spec(0, &[]), &ONE), taking(spec(1, &[]), &ONE)]));
        if is_cancelled {
            play.cancel(&[0]);
            play.expect(&["w1 < cancel 0#1", "w1 < compute 1#1", "c0 < failed 0: was cancelled"]);
        } else {
            play.release(&[0]);
            play.expect(&["w1 < cancel 0#1", "w1 < compute 1#1"]);
        }
        play.release(&[1]);
        play.expect(&["w1 < cancel 1#1"]);
        play.submit(vec![taking(spec(2, &[]), &ONE)]);
        play.expect(&["w1 < compute 2#1"]);
    }
}

#[test]
fn a_lost_worker_takes_no_resource_of_others_with_it() {
    let mut play = with_gpus(&[1000, 1000]);
    play.quietly(|play| play.submit((0..2).map(|index| taking(spec(index, &[]), &ONE)).collect()));
    let lost = play.place(0).unwrap().0;
    let other = 3 - lost;
    play.lose(lost);
    play.expect(&[]);
    play.finish(other, 1, 1);
    let expected = format!("w{other} < compute 0#2");
    play.expect(&[expected.as_str(), "c0 < finished 1"]);
}

#[test]
fn a_resource_is_taken_again_for_a_second_try() {
    let mut play = with_gpus(&[1000]);
    let mut tried = taking(spec(0, &[]), &ONE);
    tried.options.retries = 1;
    play.quietly(|play| play.submit(vec![tried, taking(spec(1, &[]), &ONE)]));
    play.fail(1, 0, 1);
    assert_eq!([play.place(0), play.place(1)].iter().flatten().count(), 1, "one has the resource");
    let (index, attempt) = if play.place(0).is_some() { (0, 2) } else { (1, 1) };
    play.finish(1, index, attempt);
    assert_eq!([play.place(0), play.place(1)].iter().flatten().count(), 1);
}

#[test]
fn an_impossible_requirement_is_refused() {
    let mut play = Play::new(&[1]);
    play.submit(vec![only_at(spec(0, &[]), &[""], false)]);
    let lines = play.take();
    assert!(lines[0].starts_with("c0 < rejected: task 0.0 cannot be taken"), "{lines:?}");
    assert_eq!(play.state(0), TaskState::Forgotten);
}

#[test]
fn a_restricted_task_waits_for_its_worker() {
    let mut play = Play::new(&[1]);
    play.submit(vec![only_at(spec(0, &[]), &["w7"], false), spec(1, &[])]);
    play.expect(&["w1 < compute 1#1"]);
    assert_eq!(play.state(0), TaskState::NoWorker);
    play.join(7, 1, &[]);
    play.expect(&["w7 < compute 0#1"]);
}
