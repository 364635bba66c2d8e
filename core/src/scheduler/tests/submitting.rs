use bytes::Bytes;

use super::env::{Env, inner, spec, task};
use crate::ids::{ClientId, JobId, KindId, TaskId, Term, WorkerId};
use crate::scheduler::{Event, TaskState};
use crate::wire::{FromClient, FromWorker, INLINE_RESULT_BYTES_MAX, KindInfo};

#[test]
fn workers_and_clients_are_told_of_each_other() {
    let mut env = Env::empty();
    env.join(1, 1);
    env.expect(&["w1 < worker 1"]);
    env.event(Event::ClientJoined { client: ClientId(7) });
    env.expect(&["c7 < worker 1"]);
    env.join(2, 1);
    env.expect(&["w1 < worker 2", "w2 < worker 1", "w2 < worker 2", "c7 < worker 2"]);
    env.lose(1);
    env.expect(&["w2 < gone 1", "c7 < gone 1"]);
    env.client(7, FromClient::OpenJob { name: "a".into(), token: 5 });
    env.client(7, FromClient::OpenJob { name: "b".into(), token: 6 });
    env.expect(&["c7 < opened 0 for 5", "c7 < opened 1 for 6"]);
}

#[test]
fn a_scheduler_tells_its_term() {
    let mut env = Env::empty();
    env.scheduler = env.scheduler.in_term(Term(9));
    let mut effects = crate::scheduler::Effects::default();
    let client = ClientId(0);
    env.scheduler.handle(crate::ids::Time(0), Event::ClientJoined { client }, &mut effects);
    let message = FromClient::OpenJob { name: "a".into(), token: 0 };
    env.scheduler.handle(crate::ids::Time(0), Event::FromClient { client, message }, &mut effects);
    let (token, job) = (0, JobId(0));
    assert_eq!(effects.to_clients, [(client, crate::wire::ToClient::JobOpened { token, job, term: Term(9) })]);
}

#[test]
fn a_task_without_inputs_is_computed_and_announced() {
    let mut env = Env::new(&[1]);
    env.submit(vec![spec(0, &[])]);
    env.expect(&["w1 < compute 0#1", "c0 < accepted"]);
    env.finish(1, 0, 1);
    env.expect(&["c0 < finished 0: 10 bytes at 1"]);
    assert_eq!(env.scheduler.who_has(task(0)), [WorkerId(1)]);
}

#[test]
fn a_small_result_is_handed_on_and_a_too_large_one_is_not() {
    for (bytes, line) in [
        (INLINE_RESULT_BYTES_MAX, format!("c0 < finished 0: {INLINE_RESULT_BYTES_MAX} bytes inline")),
        (INLINE_RESULT_BYTES_MAX + 1, "c0 < finished 0: 9 bytes at 1".to_owned()),
    ] {
        let mut env = Env::new(&[1]);
        env.quietly(|env| env.submit(vec![spec(0, &[])]));
        let inline = Some(Bytes::from(vec![1; bytes]));
        let attempt = crate::ids::Attempt(1);
        env.worker(1, FromWorker::Finished { task: task(0), attempt, nbytes: 9, run_us: 1, inline });
        env.expect(&[&line]);
    }
}

#[test]
fn a_result_that_nobody_holds_is_not_announced() {
    let mut env = Env::new(&[1]);
    env.submit(vec![inner(0, &[]), spec(1, &[0])]);
    env.expect(&["w1 < compute 0#1", "c0 < accepted"]);
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 1#1 (0@1)"]);
}

#[test]
fn a_refused_submission_leaves_nothing_behind() {
    let mut env = Env::new(&[1]);
    let mut unknown = spec(1, &[]);
    unknown.kind = KindId(77);
    let mut foreign = spec(1, &[]);
    foreign.task = TaskId::new(JobId(5), 1);
    let refused = [
        (vec![spec(0, &[]), spec(2, &[])], "task 2 was sent where task 1 was due"),
        (vec![spec(1, &[])], "task 1 was sent where task 0 was due"),
        (vec![spec(0, &[]), spec(1, &[1])], "the graph has a cycle: 0.1 -> 0.1: remove one of these inputs"),
        (
            vec![spec(0, &[]), spec(1, &[0, 2]), spec(2, &[])],
            "task 0.1 has the input 0.2, which is no task of the graph: add it, or correct the name",
        ),
        (
            vec![spec(0, &[]), unknown],
            "the cluster does not know kind 000000000000004d: start its nodes from the program that submits them",
        ),
        (vec![spec(0, &[]), foreign], "job JobId(5) is not open: connect again"),
    ];
    for (tasks, text) in refused {
        env.submit(tasks);
        env.expect(&[&format!("c0 < rejected: {text}")]);
        assert_eq!(env.scheduler.counts().total(), 0);
    }
    env.submit(vec![spec(0, &[])]);
    env.expect(&["w1 < compute 0#1", "c0 < accepted"]);
}

#[test]
fn an_unknown_function_is_named_by_its_client() {
    let mut env = Env::new(&[1]);
    let kinds = vec![KindInfo { kind: KindId(77), name: "my::function".into(), signature: "fn()".into() }];
    let mut tasks = vec![spec(0, &[]), spec(1, &[])];
    tasks.iter_mut().for_each(|task| task.kind = KindId(77));
    env.client(0, FromClient::Submit { job: JobId(0), token: 1, kinds, tasks });
    let remedy = "start its nodes from the program that submits them";
    env.expect(&[&format!("c0 < rejected: the cluster does not know my::function: {remedy}")]);
}

#[test]
fn a_client_cannot_touch_the_job_of_another() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish(1, 0, 1);
        env.event(Event::ClientJoined { client: ClientId(1) });
    });
    env.client(1, FromClient::Submit { job: JobId(0), token: 1, kinds: vec![], tasks: vec![spec(1, &[])] });
    env.expect(&["c1 < rejected: job JobId(0) is not open: connect again"]);
    env.client(1, FromClient::Release { tasks: vec![task(0)] });
    env.client(1, FromClient::Unreachable { task: task(0), holders: vec![WorkerId(1)] });
    env.client(1, FromClient::Scattered { job: JobId(0), values: vec![(1, 1, vec![WorkerId(1)])] });
    env.expect(&[]);
    env.client(1, FromClient::WhoHas { token: 0, tasks: vec![task(0)] });
    env.expect(&["c1 < who has: "]);
    env.client(0, FromClient::WhoHas { token: 0, tasks: vec![task(0), task(1)] });
    env.expect(&["c0 < who has: 0@1 10"]);
}

#[test]
fn scattered_values_are_inputs_like_others() {
    let mut env = Env::new(&[1, 1]);
    env.client(0, FromClient::Scattered { job: JobId(0), values: vec![(0, 50, vec![WorkerId(2), WorkerId(99)])] });
    env.expect(&[]);
    env.submit(vec![spec(1, &[0])]);
    env.expect(&["w2 < compute 1#1 (0@2)", "c0 < accepted"]);
    env.client(0, FromClient::Scattered { job: JobId(0), values: vec![(7, 50, vec![WorkerId(2)])] });
    env.expect(&[]);
    assert_eq!(env.state(7), TaskState::Forgotten);
}

#[test]
fn a_value_scattered_to_nobody_has_failed() {
    let mut env = Env::new(&[1]);
    env.client(0, FromClient::Scattered { job: JobId(0), values: vec![(0, 50, vec![WorkerId(99)])] });
    let lost = "task scattered value (0.0) lost its input 0.0: every node that held it is gone";
    env.expect(&[&format!("c0 < failed 0: {lost}")]);
    env.submit(vec![spec(1, &[0])]);
    env.expect(&["c0 < accepted", &format!("c0 < failed 1: {lost}")]);
}

#[test]
fn unwanted_tasks_that_nothing_needs_are_not_run() {
    let mut env = Env::new(&[1]);
    env.submit(vec![inner(0, &[]), inner(1, &[0]), spec(2, &[])]);
    env.expect(&["w1 < compute 2#1", "c0 < accepted"]);
    assert_eq!(env.scheduler.counts().total(), 1);
}

#[test]
fn a_released_input_that_is_still_known_is_computed_again_for_a_new_task() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), spec(1, &[0])]);
        env.finish(1, 0, 1);
    });
    env.finish(1, 1, 1);
    env.expect(&["w1 < free 0", "c0 < finished 1: 10 bytes at 1"]);
    assert_eq!(env.state(0), TaskState::Released);
    env.submit(vec![spec(2, &[0, 1])]);
    env.expect(&["w1 < compute 0#2", "c0 < accepted"]);
    env.finish(1, 0, 2);
    env.expect(&["w1 < compute 2#1 (0@1 1@1)"]);
}

#[test]
fn an_input_named_twice_is_one_wait_and_two_arguments() {
    let mut env = Env::new(&[1]);
    env.submit(vec![inner(0, &[]), spec(1, &[0, 0])]);
    env.expect(&["w1 < compute 0#1", "c0 < accepted"]);
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 1#1 (0@1 0@1)"]);
    env.finish(1, 1, 1);
    env.expect(&["w1 < free 0", "c0 < finished 1: 10 bytes at 1"]);
    env.release(&[1]);
    env.expect(&["w1 < free 1"]);
    assert_eq!(env.scheduler.counts().total(), 0);
}
