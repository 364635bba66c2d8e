//! How many tasks are known at a time.

use super::env::{Env, spec, task};
use crate::ids::{Attempt, ClientId, JobId, WorkerId};
use crate::scheduler::{Event, TaskState};
use crate::wire::{FromClient, FromWorker};

fn small() -> Env {
    Env::with(&[1], |config| (config.tasks_max, config.send_ahead, config.stealing) = (4, false, false))
}

#[test]
fn a_submission_beyond_the_limit_is_taken_when_tasks_have_been_forgotten() {
    let mut env = small();
    env.quietly(|env| env.submit((0..3).map(|index| spec(index, &[])).collect()));
    env.submit((3..6).map(|index| spec(index, &[])).collect());
    env.expect(&[]);
    assert_eq!(env.state(3), TaskState::Forgotten);
    env.finish(1, 0, 1);
    env.release(&[0, 1]);
    let lines = env.take();
    assert!(lines.contains(&"c0 < accepted".to_owned()), "{lines:?}");
    assert_eq!(env.scheduler.counts().total(), 4);
}

#[test]
fn the_limit_gives_way_when_nothing_else_is_to_be_done() {
    let mut env = small();
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    // It needs all that are known, so that waiting for them to be forgotten would be for ever.
    env.submit(vec![spec(4, &[0, 1, 2, 3])]);
    env.expect(&[]);
    for index in 0..4 {
        env.finish(1, index, 1);
    }
    let lines = env.take();
    assert!(lines.contains(&"c0 < accepted".to_owned()), "{lines:?}");
    assert_eq!(env.state(4), TaskState::Processing);
}

#[test]
fn tasks_that_wait_for_what_they_submit_do_not_keep_it_out() {
    let mut env = small();
    env.quietly(|env| {
        env.submit((0..4).map(|index| spec(index, &[])).collect());
        for index in 0..4 {
            env.worker(1, FromWorker::Suspended { task: task(index), attempt: Attempt(1) });
        }
    });
    env.submit(vec![spec(4, &[])]);
    env.expect(&["w1 < compute 4#1", "c0 < accepted"]);
}

#[test]
fn what_is_kept_stays_in_order_and_may_be_released_and_scattered() {
    let mut env = small();
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    env.submit(vec![spec(4, &[]), spec(5, &[])]);
    env.scatter(6, 10, &[1]);
    env.release(&[5]);
    env.submit(vec![spec(7, &[6])]);
    env.expect(&[]);
    env.release(&[0, 1, 2, 3]);
    let lines = env.take();
    assert_eq!(lines.iter().filter(|line| *line == "c0 < accepted").count(), 2, "{lines:?}");
    assert_eq!(
        [4, 5, 6, 7].map(|index| env.state(index)),
        [TaskState::Processing, TaskState::Forgotten, TaskState::Memory, TaskState::Processing]
    );
}

#[test]
fn a_job_that_is_cancelled_takes_what_is_kept_with_it() {
    let mut env = small();
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    env.submit(vec![spec(4, &[])]);
    env.client(0, FromClient::CancelJob { job: JobId(0) });
    assert_eq!(env.state(4), TaskState::Erred);
    let lines = env.take();
    assert_eq!(lines.iter().filter(|line| line.ends_with("was cancelled")).count(), 5, "{lines:?}");
}

#[test]
fn a_client_that_goes_on_regardless_is_refused_and_one_that_is_gone_leaves_nothing() {
    let mut env = small();
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    let many = |first: u32| (first..first + 500_000).map(|index| spec(index, &[])).collect::<Vec<_>>();
    env.submit(many(4));
    env.submit(many(500_004));
    env.expect(&[]);
    env.submit(many(1_000_004));
    let lines = env.take();
    assert!(lines.len() == 1 && lines[0].starts_with("c0 < rejected: the scheduler knows 4 tasks"), "{lines:?}");
    env.event(Event::ClientLost { client: ClientId(0) });
    assert_eq!(env.scheduler.counts().total(), 0);
    assert_eq!(env.scheduler.state(task(4)), TaskState::Forgotten);
}

#[test]
fn what_is_released_stays_behind_kept_submissions_that_need_it() {
    let mut env = small();
    env.quietly(|env| {
        env.submit((0..4).map(|index| spec(index, &[])).collect());
        env.finish(1, 0, 1);
        env.submit(vec![spec(4, &[0])]);
    });
    env.release(&[0]);
    env.expect(&[]);
    assert_eq!(env.state(0), TaskState::Memory);
    env.release(&[1]);
    let lines = env.take();
    assert!(lines.contains(&"c0 < accepted".to_owned()), "{lines:?}");
    assert_eq!((env.state(0), env.state(4)), (TaskState::Memory, TaskState::Queued));
    (2..5).for_each(|index| env.finish(1, index, 1));
    assert_eq!((env.state(0), env.state(4)), (TaskState::Released, TaskState::Memory));
}

#[test]
fn a_kept_value_may_be_released() {
    let mut env = small();
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    env.scatter(4, 10, &[1]);
    env.release(&[4]);
    env.expect(&[]);
    env.release(&[3]);
    env.expect(&["w1 < free 4"]);
    assert_eq!(env.state(4), TaskState::Forgotten);
}

#[test]
fn a_kept_task_that_is_given_up_never_begins() {
    let mut env = small();
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    env.submit(vec![spec(4, &[])]);
    env.submit(vec![spec(5, &[])]);
    env.client(0, FromClient::Cancel { tasks: vec![task(4)] });
    env.expect(&[]);
    // The second one is still kept.
    env.release(&[3]);
    env.expect(&["c0 < accepted", "c0 < failed 4: task work (0.4) was cancelled"]);
    assert_eq!((env.state(4), env.state(5)), (TaskState::Erred, TaskState::Forgotten));
}

#[test]
fn values_that_a_client_put_somewhere_and_that_were_kept_go_with_it() {
    let mut env = small();
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    env.scatter(4, 10, &[1, 9]);
    // Of another client's job, and of a task that is known: none of its business.
    let values = vec![(0, 10, vec![WorkerId(1)])];
    env.client(0, FromClient::Scattered { job: JobId(7), values: values.clone() });
    env.client(0, FromClient::Scattered { job: JobId(0), values });
    env.expect(&[]);
    env.event(Event::ClientLost { client: ClientId(0) });
    let lines = env.take();
    let freed: Vec<&String> = lines.iter().filter(|line| line.contains("free")).collect();
    assert_eq!(freed, ["w1 < free 4"]);
}

#[test]
fn tasks_sent_ahead_of_one_that_waits_inside_do_not_keep_out_what_it_submits() {
    let mut env = Env::with(&[1], |config| config.tasks_max = 2);
    env.submit(vec![spec(0, &[]), spec(1, &[0])]);
    env.expect(&["w1 < compute 0#1", "w1 < compute 1#1 (0@1)", "c0 < accepted"]);
    env.submit(vec![spec(2, &[])]);
    env.expect(&[]);
    env.worker(1, FromWorker::Suspended { task: task(0), attempt: Attempt(1) });
    env.expect(&["w1 < compute 2#1", "c0 < accepted"]);
}

#[test]
fn a_submission_that_is_too_large_to_be_kept_keeps_nobody_else_waiting() {
    let mut env = small();
    env.quietly(|env| {
        env.event(Event::ClientJoined { client: ClientId(1) });
        env.client(1, FromClient::OpenJob { name: "other".into(), token: 0 });
        env.submit((0..4).map(|index| spec(index, &[])).collect());
        env.submit((4..1_000_006).map(|index| spec(index, &[])).collect());
    });
    let mut other = spec(0, &[]);
    other.task.job = JobId(1);
    env.client(1, FromClient::Submit { job: JobId(1), token: 9, kinds: vec![], tasks: vec![other] });
    env.expect(&[]);
    env.release(&[0, 1, 2, 3]);
    let lines = env.take();
    assert!(lines.contains(&"c1 < accepted".to_owned()), "{lines:?}");
}

#[test]
fn a_kept_task_that_is_given_up_is_not_mistaken_for_one_that_was_refused() {
    let mut env = small();
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    // The first one needs itself: the second one gets its number.
    env.submit(vec![spec(4, &[4])]);
    env.submit(vec![spec(4, &[])]);
    env.client(0, FromClient::Cancel { tasks: vec![task(4)] });
    env.expect(&[]);
    env.release(&[3]);
    let lines = env.take();
    assert!(lines.iter().any(|line| line == "c0 < failed 4: task work (0.4) was cancelled"), "{lines:?}");
    assert_eq!(env.state(4), TaskState::Erred);
}
