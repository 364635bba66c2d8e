//! A new scheduler that takes up what survives: clients' jobs, workers' outputs and what they run.

use super::env::{Env, inner, spec, task};
use crate::ids::{Attempt, ClientId, JobId, TaskId, Term};
use crate::scheduler::{Event, TaskState};
use crate::spec::TaskSpec;
use crate::wire::{FromClient, FromWorker};

/// The scheduler of term 1 with workers 1 and 2 of one thread each, still in its recovery.
fn recovering() -> Env {
    let mut env = Env::recovering(Term(1), |config| (config.send_ahead, config.stealing) = (false, false));
    env.quietly(|env| {
        env.join(1, 1);
        env.join(2, 1);
    });
    env
}

fn recovered(env: &mut Env) {
    env.event(Event::Recovered);
}

/// A chain whose end is wanted.
fn chain() -> Vec<TaskSpec> {
    vec![inner(0, &[]), inner(1, &[0]), spec(2, &[1])]
}

const JOINED: [&str; 2] = ["c0 < worker 1", "c0 < worker 2"];

fn joined_and(more: &[&'static str]) -> Vec<&'static str> {
    [&JOINED[..], more].concat()
}

#[test]
fn what_workers_hold_is_announced_and_nothing_is_computed_again() {
    for client_first in [true, false] {
        let mut env = recovering();
        if !client_first {
            env.inventory(1, &[(1, 1, 30)], &[]);
            env.inventory(2, &[(2, 1, 40)], &[]);
            env.expect(&[]);
        }
        env.resume(0);
        env.expect(&joined_and(&["c0 < opened 0 for 7"]));
        env.restore(0, vec![inner(0, &[]), spec(1, &[0]), spec(2, &[1])], 3);
        env.expect(&["c0 < accepted"]);
        if client_first {
            env.inventory(1, &[(1, 1, 30)], &[]);
            env.inventory(2, &[(2, 1, 40)], &[]);
            env.expect(&[]);
        }
        recovered(&mut env);
        env.expect(&["c0 < finished 1: 30 bytes at 1", "c0 < finished 2: 40 bytes at 2"]);
        assert_eq!(env.state(0), TaskState::Released, "it would be computed again if it were needed");
        env.release(&[1, 2]);
        env.expect(&["w2 < free 2", "w1 < free 1"]);
        assert_eq!(env.scheduler.counts().total(), 0);
    }
}

#[test]
fn what_is_said_after_the_recovery_is_taken_at_once() {
    let mut env = recovering();
    env.inventory(1, &[(1, 1, 30)], &[]);
    env.inventory(2, &[], &[]);
    recovered(&mut env);
    env.expect(&[]);
    env.quietly(|env| env.resume(0));
    env.restore(0, chain(), 3);
    // The lost link's end is the only thing to be computed.
    env.expect(&["w1 < compute 2#t1.1 (1@1)", "c0 < accepted"]);
    env.finish(1, 2, Attempt::first_of(Term(1)).0 + 1);
    env.expect(&["w1 < free 1", "c0 < finished 2: 10 bytes at 1"]);
}

#[test]
fn nothing_runs_before_the_recovery_is_over() {
    let mut env = recovering();
    env.quietly(|env| env.resume(0));
    env.restore(0, chain(), 3);
    env.tick_after(50_000);
    env.expect(&["c0 < accepted"]);
    recovered(&mut env);
    env.expect(&["w1 < compute 0#t1.1"]);
}

#[test]
fn pieces_make_up_one_job() {
    let mut env = recovering();
    recovered(&mut env);
    env.quietly(|env| env.resume(0));
    env.restore_piece(0, vec![inner(0, &[])], &[], &[], None);
    env.restore_piece(0, vec![spec(1, &[0])], &[], &[], None);
    env.expect(&["c0 < accepted", "c0 < accepted"]);
    env.restore_piece(0, vec![], &[], &[], Some(5));
    env.expect(&["w1 < compute 0#t1.1", "c0 < accepted"]);
    env.restore_piece(0, vec![spec(3, &[])], &[], &[], Some(5));
    env.expect(&["c0 < rejected: job JobId(0) is not open: connect again"]);
    env.submit(vec![spec(5, &[1])]);
    env.expect(&["c0 < accepted"]);
    assert_eq!(env.state(5), TaskState::Waiting);
}

#[test]
fn a_running_task_is_taken_up_with_its_attempt() {
    let mut env = recovering();
    env.inventory(1, &[(0, 3, 10)], &[(1, 4, false)]);
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![inner(0, &[]), spec(1, &[0])], 2);
    recovered(&mut env);
    env.expect(&["c0 < accepted"]);
    assert_eq!(env.scheduler.processing_on(task(1)).map(|on| on.1), Some(Attempt(4)));
    env.finish(1, 1, 3);
    env.expect(&[]);
    env.finish(1, 1, 4);
    env.expect(&["w1 < free 0", "c0 < finished 1: 10 bytes at 1"]);
}

#[test]
fn a_running_task_that_fails_is_tried_again_under_an_attempt_of_this_term() {
    let mut env = recovering();
    env.inventory(1, &[], &[(0, 4, false)]);
    env.quietly(|env| env.resume(0));
    let mut again = spec(0, &[]);
    again.options.retries = 1;
    env.restore(0, vec![again], 1);
    recovered(&mut env);
    env.expect(&["c0 < accepted"]);
    env.fail(1, 0, 4);
    env.expect(&["w1 < compute 0#t1.1"]);
    env.fail(1, 0, Attempt::first_of(Term(1)).0 + 1);
    env.expect(&["c0 < failed 0: task work (0.0) on node 010101010101 failed: it broke"]);
}

#[test]
fn a_suspended_task_is_taken_up_suspended_and_goes_on() {
    let mut env = recovering();
    env.inventory(1, &[], &[(0, 4, true), (1, 4, false)]);
    // It is not known yet when it says so.
    env.worker(1, FromWorker::Resumed { task: task(0), attempt: Attempt(4) });
    env.worker(1, FromWorker::Suspended { task: task(1), attempt: Attempt(4) });
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![spec(0, &[]), spec(1, &[]), spec(2, &[]), spec(3, &[])], 4);
    recovered(&mut env);
    // Task 0 keeps its thread busy, task 1 does not.
    env.expect(&["w2 < compute 2#t1.1", "w1 < compute 3#t1.1", "c0 < accepted"]);
    env.worker(1, FromWorker::Suspended { task: task(0), attempt: Attempt(4) });
    env.worker(1, FromWorker::Resumed { task: task(0), attempt: Attempt(4) });
    env.worker(1, FromWorker::Resumed { task: task(1), attempt: Attempt(4) });
    env.expect(&[]);
    env.finish(1, 0, 4);
    env.finish(1, 1, 4);
    env.expect(&["c0 < finished 0: 10 bytes at 1", "c0 < finished 1: 10 bytes at 1"]);
}

#[test]
fn a_running_task_that_ends_before_it_is_asked_for_is_held_or_forgotten() {
    let mut env = recovering();
    env.inventory(1, &[], &[(0, 4, false), (1, 4, false)]);
    env.finish(1, 0, 4);
    env.fail(1, 1, 4);
    env.expect(&[]);
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![spec(0, &[]), spec(1, &[])], 2);
    recovered(&mut env);
    env.expect(&["w1 < compute 1#t1.1", "c0 < accepted", "c0 < finished 0: 10 bytes at 1"]);
}

#[test]
fn of_several_outputs_those_of_the_last_attempt_are_used() {
    let mut env = recovering();
    env.join(3, 1);
    env.take();
    env.inventory(1, &[(0, 1, 10)], &[]);
    env.inventory(2, &[(0, 2, 20)], &[(1, 1, false)]);
    env.inventory(3, &[(0, 2, 20)], &[(1, 2, false)]);
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![spec(0, &[]), spec(1, &[])], 2);
    recovered(&mut env);
    env.expect(&["w1 < free 0", "w2 < cancel 1#1", "c0 < accepted", "c0 < finished 0: 20 bytes at 2,3"]);
    assert_eq!(env.scheduler.processing_on(task(1)).map(|on| (on.0.0, on.1.0)), Some((3, 2)));
}

#[test]
fn an_output_is_better_than_a_thread_that_computes_it() {
    let mut env = recovering();
    env.inventory(1, &[(0, 1, 10)], &[]);
    env.inventory(2, &[], &[(0, 2, false)]);
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![spec(0, &[])], 1);
    recovered(&mut env);
    env.expect(&["w2 < cancel 0#2", "c0 < accepted", "c0 < finished 0: 10 bytes at 1"]);
}

#[test]
fn a_thread_that_runs_a_task_whose_input_is_lost_is_of_no_use() {
    let mut env = recovering();
    env.inventory(1, &[], &[(1, 4, false)]);
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![inner(0, &[]), spec(1, &[0])], 2);
    recovered(&mut env);
    env.expect(&["w1 < cancel 1#4", "w1 < compute 0#t1.1", "c0 < accepted"]);
    env.finish(1, 1, 4);
    env.expect(&["w1 < free 1"]);
}

#[test]
fn what_nobody_asks_for_is_freed_after_a_while() {
    let mut env = recovering();
    env.inventory(1, &[(0, 1, 10)], &[(1, 1, false)]);
    env.tick_after(100_000_000);
    env.expect(&[]);
    recovered(&mut env);
    env.tick_after(29_000_000);
    env.expect(&[]);
    env.tick_after(1_000_000);
    env.expect(&["w1 < free 0", "w1 < cancel 1#1"]);
    env.inventory(2, &[(0, 1, 10)], &[(1, 1, false)]);
    env.expect(&["w2 < free 0", "w2 < cancel 1#1"]);
}

#[test]
fn what_a_client_is_saying_again_is_not_freed() {
    let mut env = recovering();
    recovered(&mut env);
    env.quietly(|env| env.resume(0));
    env.restore_piece(0, vec![spec(0, &[])], &[], &[], None);
    env.inventory(1, &[(0, 1, 10), (1, 1, 10)], &[]);
    env.tick_after(60_000_000);
    env.expect(&["c0 < accepted"]);
    env.restore_piece(0, vec![], &[], &[], Some(2));
    env.expect(&["w1 < free 1", "c0 < accepted", "c0 < finished 0: 10 bytes at 1"]);
}

#[test]
fn what_a_lost_worker_had_is_computed_again() {
    let mut env = recovering();
    env.inventory(1, &[(0, 1, 10)], &[(1, 1, false)]);
    env.quietly(|env| env.lose(1));
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![spec(0, &[]), spec(1, &[])], 2);
    recovered(&mut env);
    env.expect(&["w2 < compute 0#t1.1", "w2 < compute 1#t1.1", "c0 < accepted"]);
}

#[test]
fn a_client_that_is_lost_before_its_job_was_taken_up_may_come_again() {
    let mut env = recovering();
    env.inventory(1, &[(0, 1, 10)], &[]);
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![spec(0, &[])], 1);
    env.event(Event::ClientLost { client: ClientId(0) });
    recovered(&mut env);
    env.expect(&["c0 < accepted"]);
    env.quietly(|env| env.resume(1));
    env.restore(1, vec![spec(0, &[])], 1);
    env.expect(&["c1 < accepted", "c1 < finished 0: 10 bytes at 1"]);
    env.event(Event::ClientLost { client: ClientId(1) });
    env.expect(&["w1 < free 0"]);
}

#[test]
fn what_a_client_says_of_its_job_too_early_is_done_after_it_in_order() {
    let mut env = recovering();
    env.inventory(1, &[(0, 1, 10), (1, 1, 10)], &[]);
    env.quietly(|env| env.resume(0));
    env.restore(0, vec![spec(0, &[]), spec(1, &[]), spec(2, &[])], 3);
    env.submit(vec![spec(3, &[0]), spec(4, &[2])]);
    env.release(&[0, 1]);
    env.client(0, FromClient::Cancel { tasks: vec![task(2)] });
    env.client(0, FromClient::WhoHas { token: 1, tasks: vec![task(0)] });
    env.client(0, FromClient::Unreachable { task: task(0), holders: vec![] });
    env.expect(&["c0 < accepted"]);
    recovered(&mut env);
    env.expect(&[
        "w1 < free 1",
        "w1 < compute 3#t1.1 (0@1)",
        "c0 < finished 0: 10 bytes at 1",
        "c0 < finished 1: 10 bytes at 1",
        "c0 < accepted",
        "c0 < failed 2: task work (0.2) was cancelled",
        "c0 < failed 4: task work (0.2) was cancelled",
        "c0 < who has: 0@1 10",
    ]);
}

#[test]
fn what_a_client_releases_of_several_jobs_waits_only_where_it_must() {
    let mut env = recovering();
    env.quietly(|env| {
        env.event(Event::ClientJoined { client: ClientId(0) });
        env.client(0, FromClient::OpenJob { name: "new".into(), token: 1 });
        let mut other = spec(0, &[]);
        other.task = TaskId::new(JobId(10), 0);
        env.client(0, FromClient::Submit { job: JobId(10), token: 2, kinds: vec![], tasks: vec![other] });
        env.client(0, FromClient::Resume { token: 7, job: JobId(0), name: "job".into() });
        env.restore(0, vec![spec(0, &[])], 1);
    });
    let other = TaskId::new(JobId(10), 0);
    env.client(0, FromClient::Release { tasks: vec![task(0), other] });
    env.expect(&["w1 < cancel 10.0#t1.1"]);
    recovered(&mut env);
    env.expect(&[]);
    assert_eq!(env.scheduler.counts().total(), 0);
}

#[test]
fn a_new_jobs_id_is_not_one_that_was_resumed() {
    let mut env = recovering();
    env.quietly(|env| {
        env.event(Event::ClientJoined { client: ClientId(0) });
        for job in [10, 11] {
            env.client(0, FromClient::Resume { token: 0, job: JobId(job), name: "job".into() });
        }
    });
    for _ in 0..2 {
        env.client(0, FromClient::OpenJob { name: "new".into(), token: 1 });
    }
    env.expect(&["c0 < opened 12 for 1", "c0 < opened 13 for 1"]);
    assert_eq!(env.scheduler.jobs().len(), 4);
    env.event(Event::ClientLost { client: ClientId(0) });
    assert!(env.scheduler.jobs().is_empty());
    // One that was given out here and closed can be resumed too.
    env.quietly(|env| {
        env.event(Event::ClientJoined { client: ClientId(1) });
        env.client(1, FromClient::Resume { token: 0, job: JobId(12), name: "job".into() });
        env.client(1, FromClient::OpenJob { name: "new".into(), token: 1 });
    });
    assert_eq!(env.scheduler.jobs().iter().map(|view| view.job.0).collect::<Vec<_>>(), [12, 14]);
}
