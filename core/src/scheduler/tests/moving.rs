//! Copies on request: replicas, a better balance, workers that leave.

use super::env::{Env, spec, task};
use crate::ids::{Attempt, WorkerId};
use crate::scheduler::TaskState;
use crate::wire::{FromClient, FromWorker};

fn replicate(env: &mut Env, tasks: &[u32], copies: u32) {
    let tasks = tasks.iter().map(|index| task(*index)).collect();
    env.client(0, FromClient::Replicate { token: 1, tasks, copies });
}

fn retire(env: &mut Env, worker: u32) {
    env.client(0, FromClient::Retire { token: 2, workers: vec![WorkerId(worker)] });
}

fn not_acquired(env: &mut Env, worker: u32, index: u32) {
    env.worker(worker, FromWorker::NotAcquired { task: task(index) });
}

#[test]
fn an_output_is_copied_to_the_emptiest_workers_and_the_client_is_told_when_they_have_it() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        env.scatter(1, 50, &[2]);
    });
    replicate(&mut env, &[0], 2);
    env.expect(&["w3 < acquire 0@1"]);
    env.replica(3, 0);
    env.expect(&["c0 < done: 1 moved"]);
    assert_eq!(env.scheduler.who_has(task(0)).len(), 2);
    // So many are there already; what has no output, and what is another's, is passed over.
    replicate(&mut env, &[0, 7], 2);
    env.expect(&["c0 < done: 0 moved"]);
}

#[test]
fn a_copy_that_cannot_be_made_is_told() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| env.scatter(0, 100, &[1]));
    replicate(&mut env, &[0], 5);
    env.expect(&["w2 < acquire 0@1"]);
    not_acquired(&mut env, 2, 0);
    env.expect(&["c0 < done: 0 movedthe output of task 0.0 could not be copied to worker 2"]);
    // Said again, or of what was never asked for: ignored.
    not_acquired(&mut env, 2, 0);
    not_acquired(&mut env, 1, 9);
    env.expect(&[]);
}

#[test]
fn releasing_an_output_ends_its_copying() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        replicate(env, &[0], 2);
    });
    env.release(&[0]);
    env.expect(&["w1 < free 0", "c0 < done: 0 moved"]);
    // The copy comes all the same.
    env.replica(2, 0);
    env.expect(&["w2 < free 0"]);
}

#[test]
fn rebalancing_moves_from_the_fullest_to_the_emptiest() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| (0..4).for_each(|index| env.scatter(index, 100, &[1])));
    env.client(0, FromClient::Rebalance { token: 3 });
    env.expect(&["w2 < acquire 0@1", "w2 < acquire 1@1"]);
    env.replica(2, 0);
    env.expect(&["w1 < free 0"]);
    env.replica(2, 1);
    env.expect(&["w1 < free 1", "c0 < done: 2 moved"]);
    let held: Vec<u64> = env.scheduler.workers().iter().map(|worker| worker.nbytes).collect();
    assert_eq!(held, [200, 200]);
    env.client(0, FromClient::Rebalance { token: 4 });
    env.expect(&["c0 < done: 0 moved"]);
}

#[test]
fn a_worker_leaves_when_its_data_is_elsewhere_and_its_tasks_are_done() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        env.scatter(1, 100, &[1, 2]);
        env.submit(vec![spec(2, &[0])]);
    });
    retire(&mut env, 1);
    env.expect(&["w1 < steal 2#1", "w2 < acquire 0@1", "w1 < free 1"]);
    env.steal_answer(1, 2, 1, false);
    env.replica(2, 0);
    env.expect(&["w1 < free 0"]);
    // What it still finishes is moved as well, and nothing new goes there.
    env.finish(1, 2, 1);
    env.expect(&["w2 < acquire 2@1", "c0 < finished 2: 10 bytes at 1"]);
    env.submit(vec![spec(3, &[1])]);
    env.expect(&["w2 < compute 3#1 (1@2)", "c0 < accepted"]);
    env.replica(2, 2);
    env.expect(&["w1 < free 2", "w1 < leave", "c0 < done: 1 moved"]);
    env.lose(1);
    env.expect(&["w2 < gone 1", "c0 < gone 1"]);
    assert_eq!(env.state(2), TaskState::Memory);
}

#[test]
fn what_a_leaving_worker_gives_back_runs_elsewhere() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    retire(&mut env, 2);
    let asked = env.take();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for line in asked {
        let index = line.trim_start_matches("w2 < steal ").trim_end_matches("#1").parse().unwrap();
        env.steal_answer(2, index, 1, true);
    }
    let lines = env.take();
    assert!(lines.contains(&"w2 < leave".to_owned()) && lines.contains(&"c0 < done: 0 moved".to_owned()), "{lines:?}");
    assert!(lines.iter().all(|line| !line.starts_with("w2 < compute")), "{lines:?}");
}

#[test]
fn the_last_worker_cannot_be_retired_but_may_leave() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.scatter(0, 100, &[1]));
    retire(&mut env, 1);
    env.expect(&[
        "c0 < done: 0 movedworker worker 1 cannot leave: there is no other worker to take its tasks and data",
    ]);
    env.worker(1, FromWorker::Leaving);
    env.expect(&["w1 < leave"]);
}

#[test]
fn data_that_one_worker_cannot_take_goes_to_another() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| env.scatter(0, 100, &[1]));
    env.worker(1, FromWorker::Leaving);
    env.expect(&["w2 < acquire 0@1"]);
    not_acquired(&mut env, 2, 0);
    env.expect(&["w3 < acquire 0@1"]);
    env.replica(3, 0);
    env.expect(&["w1 < free 0", "w1 < leave"]);
}

#[test]
fn a_worker_whose_data_nobody_can_take_stays_and_works_on() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        retire(env, 1);
    });
    not_acquired(&mut env, 2, 0);
    let lines = env.take();
    assert!(lines.iter().any(|line| line.starts_with("c0 < done: 0 moved") && line.contains("task 0.0")), "{lines:?}");
    env.submit(vec![spec(1, &[0])]);
    env.expect(&["w1 < compute 1#1 (0@1)", "c0 < accepted"]);
}

#[test]
fn a_receiver_that_is_lost_is_replaced_and_a_giver_that_is_lost_ends_it() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        retire(env, 1);
    });
    env.lose(2);
    assert!(env.take().contains(&"w3 < acquire 0@1".to_owned()));
    env.lose(1);
    let lines = env.take();
    assert!(lines.contains(&"c0 < done: 0 moved".to_owned()), "{lines:?}");
    assert_eq!(env.state(0), TaskState::Erred);
}

#[test]
fn a_client_that_is_gone_leaves_no_request() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        retire(env, 1);
    });
    env.event(crate::scheduler::Event::ClientLost { client: crate::ids::ClientId(0) });
    env.expect(&["w1 < free 0", "w1 < leave"]);
}

#[test]
fn a_value_that_is_put_on_a_leaving_worker_moves_on() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| env.scatter(0, 100, &[1]));
    retire(&mut env, 1);
    env.expect(&["w2 < acquire 0@1"]);
    env.scatter(1, 5, &[1]);
    env.expect(&["w2 < acquire 1@1"]);
    env.replica(2, 0);
    env.expect(&["w1 < free 0"]);
    env.replica(2, 1);
    env.expect(&["w1 < free 1", "w1 < leave", "c0 < done: 1 moved"]);
}

#[test]
fn workers_that_leave_together_leave_nothing_to_each_other() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        env.scatter(1, 500, &[3]);
    });
    env.client(0, FromClient::Retire { token: 2, workers: vec![WorkerId(1), WorkerId(2)] });
    env.expect(&["w3 < acquire 0@1", "w2 < leave"]);
    env.replica(3, 0);
    env.expect(&["w1 < free 0", "w1 < leave", "c0 < done: 1 moved"]);
}

#[test]
fn a_worker_does_not_leave_while_a_copy_is_on_its_way_to_it() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        env.scatter(1, 500, &[3]);
        retire(env, 1);
    });
    // Worker 2 was asked to take it over, and wants to leave itself.
    env.worker(2, FromWorker::Leaving);
    env.expect(&[]);
    env.replica(2, 0);
    env.expect(&["w1 < free 0", "w3 < acquire 0@2", "w1 < leave", "c0 < done: 1 moved"]);
    env.replica(3, 0);
    env.expect(&["w2 < free 0", "w2 < leave"]);
}

#[test]
fn a_copy_that_is_being_made_on_the_only_other_worker_is_waited_for() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        replicate(env, &[0], 2);
    });
    retire(&mut env, 1);
    env.expect(&[]);
    env.replica(2, 0);
    env.expect(&["w1 < free 0", "w1 < leave", "c0 < done: 1 moved", "c0 < done: 0 moved"]);
}

#[test]
fn nobody_leaves_its_data_to_a_worker_that_goes_at_once() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.scatter(0, 100, &[1]);
        retire(env, 1);
    });
    env.worker(2, FromWorker::Leaving);
    env.expect(&["w2 < leave", "c0 < done: 0 movedthe output of task 0.0 could not be copied to worker 2"]);
    // The copy comes all the same, and goes with its worker; the first one stays.
    env.replica(2, 0);
    env.expect(&[]);
    env.lose(2);
    assert_eq!(env.scheduler.who_has(task(0)), [WorkerId(1)]);
    // What is submitted now runs on the one that has stayed.
    env.quietly(|env| env.submit(vec![spec(1, &[0])]));
    assert_eq!(env.state(1), TaskState::Processing);
}

#[test]
fn a_worker_that_is_about_to_leave_stays_if_the_others_are_lost() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.worker(1, FromWorker::Suspended { task: task(0), attempt: Attempt(1) });
        retire(env, 1);
        env.submit(vec![spec(1, &[])]);
    });
    env.lose(2);
    let lines = env.take();
    assert!(lines.contains(&"w1 < compute 1#2".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("cannot leave: there is no other worker any more")), "{lines:?}");
}
