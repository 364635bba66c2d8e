//! Tasks that are given up while something of them is under way.

use super::super::env::{inner, spec, task};
use super::play::Play;
use crate::ids::{ClientId, JobId};
use crate::scheduler::{Event, TaskState};
use crate::wire::FromClient;

#[test]
fn a_running_task_that_is_cancelled_is_told_to_its_worker_and_its_client() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| play.submit(vec![spec(0, &[]), spec(1, &[0]), spec(2, &[])]));
    play.cancel(&[0]);
    let lines = play.take();
    assert!(lines.contains(&"w1 < cancel 0#1".to_owned()), "{lines:?}");
    assert!(lines.contains(&"c0 < failed 0: was cancelled".to_owned()), "{lines:?}");
    assert!(lines.contains(&"c0 < failed 1: was cancelled".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("failed 2")), "{lines:?}");
    assert_eq!((play.state(0), play.state(1)), (TaskState::Erred, TaskState::Erred));
    // It could not be stopped, and nobody wants what it gives.
    play.finish(1, 0, 1);
    play.expect(&["w1 < free 0"]);
}

#[test]
fn what_is_done_stays_when_it_is_cancelled() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.submit(vec![spec(0, &[])]);
        play.finish(1, 0, 1);
    });
    play.cancel(&[0]);
    play.expect(&[]);
    assert_eq!(play.holders(0), [1]);
}

#[test]
fn a_failure_that_crosses_a_cancel_changes_nothing() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.submit(vec![spec(0, &[])]);
        play.cancel(&[0]);
    });
    play.fail(1, 0, 1);
    play.expect(&[]);
    assert_eq!(play.state(0), TaskState::Erred);
}

#[test]
fn the_inputs_that_only_a_cancelled_task_needed_go() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.submit(vec![inner(0, &[]), spec(1, &[0])]);
        play.finish(1, 0, 1);
    });
    play.cancel(&[1]);
    let mut lines = play.take();
    lines.sort();
    assert_eq!(lines, ["c0 < failed 1: was cancelled", "w1 < cancel 1#1", "w1 < free 0"]);
}

#[test]
fn a_whole_job_is_cancelled_and_others_are_not() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.event(Event::ClientJoined { client: ClientId(1) });
        play.submit(vec![spec(0, &[]), spec(1, &[]), spec(2, &[1])]);
        play.finish(1, 0, 1);
    });
    // Another client cannot do that.
    play.event(Event::FromClient { client: ClientId(1), message: FromClient::CancelJob { job: JobId(0) } });
    play.event(Event::FromClient { client: ClientId(1), message: FromClient::Cancel { tasks: vec![task(1)] } });
    play.expect(&[]);
    play.client(FromClient::CancelJob { job: JobId(0) });
    let lines = play.take();
    assert!(lines.contains(&"c0 < failed 1: was cancelled".to_owned()), "{lines:?}");
    assert!(lines.contains(&"c0 < failed 2: was cancelled".to_owned()), "{lines:?}");
    assert_eq!((play.state(0), play.state(1), play.state(2)), (TaskState::Memory, TaskState::Erred, TaskState::Erred));
}

#[test]
fn a_task_sent_ahead_of_a_cancelled_one_is_taken_back() {
    let mut play = Play::new(&[1]);
    play.submit(vec![spec(0, &[]), spec(1, &[0])]);
    play.expect(&["w1 < compute 0#1", "w1 < compute 1#1"]);
    play.cancel(&[0]);
    let mut lines = play.take();
    lines.sort();
    let expected =
        ["c0 < failed 0: was cancelled", "c0 < failed 1: was cancelled", "w1 < cancel 0#1", "w1 < cancel 1#1"];
    assert_eq!(lines, expected);
}

#[test]
fn what_was_cancelled_can_be_asked_for_again_as_another_task() {
    let mut play = Play::new(&[1]);
    play.quietly(|play| {
        play.submit(vec![spec(0, &[])]);
        play.cancel(&[0]);
        play.release(&[0]);
    });
    assert_eq!(play.state(0), TaskState::Forgotten);
    play.submit(vec![spec(1, &[])]);
    play.expect(&["w1 < compute 1#1"]);
    play.finish(1, 0, 1);
    play.expect(&["w1 < free 0"]);
    play.finish(1, 1, 1);
    play.expect(&["c0 < finished 1"]);
}
