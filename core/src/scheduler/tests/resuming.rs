//! Clients that go on with their jobs at the same scheduler, and workers that come back late.

use std::sync::Arc;

use super::env::{Env, failure, inner, spec, task};
use crate::ids::{Attempt, ClientId, JobId, KindId, TaskId, WorkerId};
use crate::scheduler::{Event, TaskState};
use crate::spec::{Amount, PartOf, Requirements};
use crate::wire::{FromClient, FromWorker, Inventory, StillRunning};

const JOINED: [&str; 3] = ["c1 < worker 1", "c1 < worker 2", "c1 < opened 0 for 7"];

/// Workers 1 and 2 of one thread each; task 0 is done, task 1 runs on worker 1, task 2 waits for both.
fn begun() -> Env {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[]), spec(1, &[0]), spec(2, &[0, 1])]);
        env.finish(1, 0, 1);
    });
    env
}

#[test]
fn a_job_that_is_resumed_goes_on_as_it_was() {
    let mut env = begun();
    env.resume(1);
    env.expect(&JOINED);
    env.restore(1, vec![spec(0, &[]), spec(1, &[0]), spec(2, &[0, 1])], 3);
    env.expect(&["c1 < accepted", "c1 < finished 0: 10 bytes at 1"]);
    // Its old link's end does not end it, nor does what that still says.
    env.release(&[0, 1, 2]);
    env.client(0, FromClient::CancelJob { job: JobId(0) });
    env.event(Event::ClientLost { client: ClientId(0) });
    env.expect(&[]);
    env.finish(1, 1, 1);
    env.expect(&["w1 < compute 2#1 (0@1 1@1)", "c1 < finished 1: 10 bytes at 1"]);
}

#[test]
fn what_was_released_meanwhile_is_released_and_what_was_submitted_is_taken() {
    let mut env = begun();
    env.quietly(|env| env.resume(1));
    env.restore(1, vec![inner(0, &[]), spec(1, &[0]), spec(4, &[1])], 5);
    env.expect(&["c1 < accepted"]);
    assert_eq!(env.state(2), TaskState::Forgotten);
    env.client(1, FromClient::Submit { job: JobId(0), token: 9, kinds: vec![], tasks: vec![spec(5, &[4])] });
    env.expect(&["c1 < accepted"]);
    env.finish(1, 1, 1);
    env.expect(&["w1 < free 0", "w1 < compute 4#1 (1@1)", "c1 < finished 1: 10 bytes at 1"]);
}

#[test]
fn what_has_failed_is_said_again_unless_the_client_knows() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[]), spec(1, &[0]), spec(2, &[0])]);
        env.fail(1, 0, 1);
        env.resume(1);
    });
    env.restore_piece(1, vec![spec(0, &[]), spec(1, &[0]), spec(2, &[0])], &[], &[0, 2], Some(3));
    let broke = "task work (0.0) on node 010101010101 failed: it broke";
    env.expect(&["c1 < accepted", &format!("c1 < failed 1: {broke}")]);
}

#[test]
fn what_a_client_was_told_to_have_failed_is_not_run_again() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.resume(1));
    // Its inputs are not needed any more, so they are not said; what depends on it fails too.
    env.restore_piece(1, vec![spec(3, &[1, 2]), spec(4, &[3]), inner(5, &[])], &[], &[3, 5], Some(6));
    env.expect(&["c1 < accepted", "c1 < failed 4: task work (0.3) failed: it broke"]);
    assert_eq!((env.state(3), env.state(5)), (TaskState::Erred, TaskState::Forgotten));
    assert_eq!(env.scheduler.failure(task(3)), Some(&failure(3)));
}

#[test]
fn a_task_without_its_inputs_is_as_good_as_its_output() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.resume(1));
    env.restore_piece(1, vec![spec(3, &[1])], &[], &[], None);
    env.inventory(1, &[(3, 1, 10)], &[]);
    env.restore_piece(1, vec![spec(4, &[1])], &[], &[], Some(5));
    let lost = "c1 < failed 4: task scattered value (0.4) lost its input 0.4: every node that held it is gone";
    env.expect(&["c1 < accepted", "c1 < accepted", "c1 < finished 3: 10 bytes at 1", lost]);
}

#[test]
fn what_was_lost_while_the_client_was_away_is_computed_again() {
    let mut env = begun();
    env.quietly(|env| {
        env.lose(1);
        env.finish(2, 0, 2);
        env.resume(1);
    });
    env.restore(1, vec![spec(0, &[]), spec(1, &[0]), spec(2, &[0, 1])], 3);
    env.expect(&["c1 < accepted", "c1 < finished 0: 10 bytes at 2"]);
    assert_eq!(env.scheduler.processing_on(task(1)), Some((WorkerId(2), Attempt(2))));
}

#[test]
fn a_job_that_was_closed_meanwhile_is_taken_up_anew_under_new_attempts() {
    let mut env = begun();
    env.event(Event::ClientLost { client: ClientId(0) });
    env.expect(&["w1 < free 0", "w1 < cancel 1#1"]);
    env.quietly(|env| env.resume(1));
    env.restore(1, vec![spec(0, &[]), spec(1, &[0]), spec(2, &[0, 1])], 3);
    env.expect(&["w1 < compute 0#2", "c1 < accepted"]);
}

#[test]
fn submissions_that_the_old_link_had_waiting_are_not_taken_twice() {
    let mut env = Env::with(&[1, 1], |config| config.tasks_max = 1);
    env.quietly(|env| env.submit(vec![spec(0, &[])]));
    env.submit(vec![spec(1, &[])]);
    env.scatter(2, 50, &[2]);
    env.client(0, FromClient::Release { tasks: vec![task(1)] });
    env.expect(&[]);
    env.resume(1);
    env.expect(&JOINED);
    env.restore_piece(1, vec![spec(0, &[]), spec(1, &[]), spec(3, &[2])], &[(2, 50)], &[], Some(4));
    // The value that nobody but its worker knew of is there.
    env.expect(&["w2 < compute 3#1 (2@2)", "w1 < compute 1#1", "c1 < accepted", "c1 < finished 2: 50 bytes at 2"]);
    env.event(Event::ClientLost { client: ClientId(0) });
    env.finish(1, 0, 1);
    env.expect(&["c1 < finished 0: 10 bytes at 1"]);
}

#[test]
fn another_job_of_the_old_link_keeps_what_waits_for_it() {
    let mut env = Env::with(&[1], |config| config.tasks_max = 1);
    env.quietly(|env| {
        env.client(0, FromClient::OpenJob { name: "other".into(), token: 1 });
        env.submit(vec![spec(0, &[])]);
    });
    let mut other = spec(0, &[]);
    other.task = TaskId::new(JobId(1), 0);
    env.client(0, FromClient::Submit { job: JobId(1), token: 5, kinds: vec![], tasks: vec![other.clone()] });
    env.quietly(|env| env.resume(1));
    env.client(0, FromClient::Release { tasks: vec![other.task] });
    env.restore(1, vec![], 1);
    env.expect(&["w1 < cancel 0#1", "c1 < accepted", "c0 < accepted"]);
    assert_eq!(env.scheduler.counts().total(), 0);
}

#[test]
fn an_output_that_comes_back_late_is_used_and_the_other_attempt_cancelled() {
    let mut env = begun();
    env.quietly(|env| env.lose(1));
    assert_eq!(env.scheduler.processing_on(task(0)), Some((WorkerId(2), Attempt(2))));
    env.quietly(|env| env.join(3, 1));
    env.inventory(3, &[(0, 1, 10)], &[(1, 1, false)]);
    // What it runs is not waited for: it had to wait for its input again.
    env.expect(&["w2 < cancel 0#2", "w3 < cancel 1#1", "w3 < compute 1#3 (0@3)", "c0 < finished 0: 10 bytes at 3"]);
    // Another one that has the same output of the same attempt has a copy.
    env.quietly(|env| env.join(4, 1));
    env.inventory(4, &[(0, 1, 10)], &[]);
    env.expect(&[]);
    assert_eq!(env.scheduler.who_has(task(0)), [WorkerId(3), WorkerId(4)]);
    // The cancelled attempt ends all the same.
    env.finish(2, 0, 2);
    env.expect(&["w2 < free 0"]);
    // No attempt that was given out is given out again.
    env.quietly(|env| {
        env.client(0, FromClient::Cancel { tasks: vec![task(1)] });
        env.lose(3);
    });
    env.lose(4);
    env.expect(&["w2 < gone 4", "w2 < compute 0#3", "c0 < gone 4", "c0 < recomputing 0"]);
}

#[test]
fn an_output_that_was_computed_again_meanwhile_is_freed() {
    let mut env = begun();
    env.quietly(|env| {
        env.lose(1);
        env.finish(2, 0, 2);
        env.join(3, 1);
    });
    env.inventory(3, &[(0, 1, 10), (7, 1, 10)], &[(8, 1, false)]);
    env.expect(&["w3 < free 0", "w3 < free 7", "w3 < cancel 8#1"]);
}

#[test]
fn a_queued_task_that_is_running_already_is_not_run_twice() {
    let mut env = Env::new(&[2]);
    env.quietly(|env| {
        env.submit((0..4).map(|index| spec(index, &[])).collect());
        env.lose(1);
    });
    env.join(2, 1);
    env.expect(&["w2 < worker 2", "w2 < compute 0#2", "w2 < compute 1#2", "c0 < worker 2"]);
    env.inventory(2, &[], &[(1, 1, false), (2, 1, true), (3, 0, false)]);
    // Task 1 was given to it anew, and it will say so under the new attempt. Task 3 had another attempt since.
    env.expect(&["w2 < cancel 3#0"]);
    let on = |env: &Env, index| env.scheduler.processing_on(task(index)).map(|on| (on.0.0, on.1.0));
    assert_eq!((on(&env, 1), on(&env, 2), on(&env, 3)), (Some((2, 2)), Some((2, 1)), None));
    env.finish(2, 2, 1);
    env.expect(&["c0 < finished 2: 10 bytes at 2"]);
}

#[test]
fn a_worker_that_may_not_run_a_task_does_not_keep_it() {
    let mut env = Env::with(&[], |_| {});
    let mut needs = spec(0, &[]);
    let resources = [("gpu".to_owned(), Amount::whole(1))].into();
    needs.options.requirements = Some(Arc::new(Requirements { resources, ..Requirements::default() }));
    env.quietly(|env| {
        env.submit(vec![needs.clone()]);
        env.join(1, 1);
    });
    assert_eq!(env.state(0), TaskState::NoWorker);
    env.inventory(1, &[], &[(0, 1, false)]);
    env.expect(&["w1 < cancel 0#1"]);
    // One that runs it keeps its resource busy with it.
    env.quietly(|env| env.resume(1));
    env.restore_piece(1, vec![needs.clone()], &[], &[], None);
    env.quietly(|env| env.client(1, FromClient::Cancel { tasks: vec![task(0)] }));
    env.quietly(|env| env.restore_piece(1, vec![], &[], &[], Some(1)));
    env.quietly(|env| env.event(Event::ClientLost { client: ClientId(1) }));
    env.quietly(|env| {
        env.resume(2);
        env.join_with(2, &["gpu=1"]);
        env.inventory(2, &[], &[(0, 1, false)]);
    });
    let mut other = spec(1, &[]);
    other.options = needs.options.clone();
    env.restore(2, vec![needs, other], 2);
    env.expect(&["c2 < accepted"]);
    assert_eq!(env.state(1), TaskState::Queued);
    env.finish(2, 0, 1);
    env.expect(&["w2 < compute 1#1", "c2 < finished 0: 10 bytes at 2"]);
}

#[test]
fn what_no_honest_peer_says_changes_nothing() {
    let mut env = begun();
    let part = task(0).part(1);
    let many = vec![(part, Attempt(1), u64::MAX), (task(0), Attempt(u32::MAX), 1), (task(u32::MAX), Attempt(1), 1)];
    let running = vec![StillRunning { task: part, attempt: Attempt(9), is_suspended: true }; 2];
    let inventory = Inventory { outputs: [many.clone(), many].concat(), running, is_last: false };
    env.worker(1, FromWorker::Inventory(inventory.clone()));
    // It is known to hold task 0 already.
    env.expect(&[
        "w1 < free 0/1",
        "w1 < free 4294967295",
        "w1 < free 0/1",
        "w1 < free 4294967295",
        "w1 < cancel 0/1#9",
        "w1 < cancel 0/1#9",
    ]);
    env.worker(9, FromWorker::Inventory(inventory));
    env.expect(&[]);
    env.resume(1);
    env.take();
    let job = |job: u32, index: u32| {
        let mut spec = spec(index, &[]);
        spec.task = TaskId::new(JobId(job), index);
        spec
    };
    let not_open = "c1 < rejected: job JobId(0) is not open: connect again";
    let mut foreign = job(5, 0);
    env.restore(1, vec![foreign.clone()], 1);
    env.expect(&["c1 < rejected: job JobId(5) is not open: connect again"]);
    foreign.task = part;
    env.restore(1, vec![foreign], 1);
    env.expect(&[not_open]);
    env.restore(1, vec![spec(u32::MAX, &[])], 1);
    env.expect(&[not_open]);
    env.restore_piece(1, vec![], &[(u32::MAX, 1)], &[], Some(1));
    env.expect(&[not_open]);
    env.restore(1, vec![spec(3, &[3])], 1);
    env.expect(&[not_open]);
    env.restore(1, vec![spec(3, &[8])], 1);
    env.expect(&[not_open]);
    let mut unknown = spec(3, &[]);
    unknown.kind = KindId(99);
    env.restore(1, vec![unknown], 1);
    let lines = env.take();
    assert!(lines[0].starts_with("c1 < rejected: the cluster does not know kind"), "{lines:?}");
    let mut parts = spec(3, &[]);
    parts.options.part = Some(PartOf { index: 9, of: 2.try_into().unwrap(), from: 0 });
    env.restore(1, vec![parts], 1);
    assert!(env.take()[0].contains("part 9 of 2"));
    // Another client's.
    env.restore(0, vec![], 1);
    env.expect(&["c0 < rejected: job JobId(0) is not open: connect again"]);
    env.client(
        1,
        FromClient::Restore { job: JobId(77), token: 8, tasks: vec![], values: vec![], failed: vec![], end: Some(1) },
    );
    env.expect(&["c1 < rejected: job JobId(77) is not open: connect again"]);
    // What is said twice, and an end that is far away.
    env.restore_piece(1, vec![spec(0, &[]), spec(0, &[]), inner(1, &[])], &[(0, 1)], &[], Some(u32::MAX));
    env.expect(&["w1 < cancel 1#1", "c1 < accepted", "c1 < finished 0: 10 bytes at 1"]);
}

#[test]
fn an_end_that_lies_behind_changes_no_numbers() {
    let mut env = begun();
    env.quietly(|env| env.resume(1));
    env.restore(1, vec![spec(0, &[])], 1);
    env.expect(&["w1 < cancel 1#1", "c1 < accepted", "c1 < finished 0: 10 bytes at 1"]);
    env.client(1, FromClient::Submit { job: JobId(0), token: 9, kinds: vec![], tasks: vec![spec(3, &[0])] });
    env.expect(&["w1 < compute 3#1 (0@1)", "c1 < accepted"]);
}
