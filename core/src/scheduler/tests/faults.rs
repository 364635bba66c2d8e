use super::env::{ALLOWED_FAILURES, Env, inner, spec, task};
use crate::failure::FailureCause;
use crate::ids::{JobId, NodeId, WorkerId};
use crate::scheduler::TaskState;
use crate::wire::FromClient;

const BROKE: &str = "on node 010101010101 failed: it broke";

#[test]
fn a_failed_task_is_tried_again_as_often_as_was_asked() {
    let mut env = Env::new(&[1]);
    let mut task = spec(0, &[]);
    task.options.retries = 1;
    env.submit(vec![task]);
    env.expect(&["w1 < compute 0#1", "c0 < accepted"]);
    env.fail(1, 0, 1);
    env.expect(&["w1 < compute 0#2"]);
    env.fail(1, 0, 1);
    env.expect(&[]);
    env.fail(1, 0, 2);
    env.expect(&[&format!("c0 < failed 0: task work (0.0) {BROKE}")]);
    assert_eq!(env.scheduler.failure(super::env::task(0)).unwrap().node, Some(NodeId([1; 32])));
}

#[test]
fn a_failure_reaches_everything_that_waits_for_it_once() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), spec(1, &[]), inner(2, &[0, 1]), spec(3, &[2, 2]), spec(4, &[3, 0])])
    });
    env.finish(1, 1, 1);
    env.expect(&["c0 < finished 1: 10 bytes at 1"]);
    env.fail(1, 0, 1);
    let mut lines = env.take();
    lines.sort();
    assert_eq!(
        lines,
        [format!("c0 < failed 3: task work (0.0) {BROKE}"), format!("c0 < failed 4: task work (0.0) {BROKE}"),]
    );
    env.submit(vec![spec(5, &[3])]);
    env.expect(&["c0 < accepted", &format!("c0 < failed 5: task work (0.0) {BROKE}")]);
    env.release(&[1, 3, 4, 5]);
    env.expect(&["w1 < free 1"]);
    assert_eq!(env.scheduler.counts().total(), 0);
}

#[test]
fn a_failure_cancels_what_only_its_dependents_needed() {
    let mut env = Env::new(&[2]);
    env.quietly(|env| env.submit(vec![inner(0, &[]), inner(1, &[]), spec(2, &[0, 1])]));
    env.fail(1, 0, 1);
    env.expect(&["w1 < cancel 1#1", &format!("c0 < failed 2: task work (0.0) {BROKE}")]);
}

#[test]
fn the_tasks_of_a_lost_worker_run_elsewhere() {
    let mut env = Env::new(&[1, 1]);
    env.submit(vec![spec(0, &[])]);
    env.expect(&["w1 < compute 0#1", "c0 < accepted"]);
    env.lose(1);
    env.expect(&["w2 < gone 1", "w2 < compute 0#2", "c0 < gone 1"]);
    env.finish(1, 0, 1);
    env.expect(&[]);
    env.finish(2, 0, 2);
    env.expect(&["c0 < finished 0: 10 bytes at 2"]);
}

#[test]
fn a_task_that_workers_die_of_is_given_up() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit(vec![inner(0, &[]), spec(1, &[0])]));
    for worker in 1..=ALLOWED_FAILURES {
        env.quietly(|env| {
            env.lose(worker);
            env.join(worker + 1, 1);
        });
    }
    env.lose(ALLOWED_FAILURES + 1);
    let text = "task work (0.0) was given up: 3 workers were lost while they ran it";
    env.expect(&["c0 < gone 3", &format!("c0 < failed 1: {text}")]);
    assert_eq!(env.scheduler.failure(task(1)).unwrap().cause, FailureCause::WorkersLost { count: 3 });
}

#[test]
fn a_lost_output_that_is_held_is_computed_again() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish(1, 0, 1);
    });
    env.lose(1);
    env.expect(&["w2 < gone 1", "w2 < compute 0#2", "c0 < gone 1", "c0 < recomputing 0"]);
    env.finish(2, 0, 2);
    env.expect(&["c0 < finished 0: 10 bytes at 2"]);
}

#[test]
fn what_led_to_a_lost_output_is_computed_again_too() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), inner(1, &[0]), spec(2, &[1])]);
        env.finish(1, 0, 1);
        env.finish(1, 1, 1);
        env.finish(1, 2, 1);
        env.join(2, 1);
    });
    assert_eq!((env.state(0), env.state(1)), (TaskState::Released, TaskState::Released));
    env.lose(1);
    env.expect(&["w2 < gone 1", "w2 < compute 0#2", "c0 < gone 1", "c0 < recomputing 2"]);
    env.finish(2, 0, 2);
    env.expect(&["w2 < compute 1#2 (0@2)"]);
    env.finish(2, 1, 2);
    env.expect(&["w2 < free 0", "w2 < compute 2#2 (1@2)"]);
    env.finish(2, 2, 2);
    env.expect(&["w2 < free 1", "c0 < finished 2: 10 bytes at 2"]);
}

#[test]
fn an_output_with_another_copy_is_not_computed_again() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish(1, 0, 1);
        env.replica(2, 0);
        env.replica(2, 0);
    });
    env.lose(1);
    env.expect(&["w2 < gone 1", "c0 < gone 1"]);
    assert_eq!(env.scheduler.who_has(task(0)), [WorkerId(2)]);
}

#[test]
fn a_task_whose_input_is_lost_waits_for_it_again() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), inner(1, &[]), spec(2, &[0, 1])]);
        env.finish_with(1, 0, 1, 1_000, 1);
        env.finish_with(2, 1, 1, 10, 1);
    });
    assert_eq!(env.scheduler.processing_on(task(2)).unwrap().0, WorkerId(1));
    env.lose(2);
    env.expect(&["w1 < gone 2", "w1 < cancel 2#1", "w1 < compute 1#2", "c0 < gone 2"]);
    env.finish(1, 1, 2);
    env.expect(&["w1 < compute 2#2 (0@1 1@1)"]);
}

#[test]
fn what_several_lost_outputs_need_is_computed_once() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), spec(1, &[0]), spec(2, &[0])]);
        env.finish(1, 0, 1);
        env.finish(1, 1, 1);
        let (worker, _) = env.scheduler.processing_on(task(2)).unwrap();
        env.finish(worker.0, 2, 1);
    });
    let lost = env.scheduler.who_has(task(1))[0].0;
    let other = 3 - lost;
    if env.scheduler.who_has(task(2))[0].0 != lost {
        env.quietly(|env| env.lose(other));
        env.quietly(|env| env.join(9, 1));
    }
    env.quietly(|env| env.lose(lost));
    let assigned = [0, 1, 2].map(|index| env.scheduler.processing_on(task(index)).is_some());
    assert_eq!(assigned, [true, false, false]);
}

#[test]
fn a_lost_scattered_value_fails_with_what_needs_it() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.client(0, FromClient::Scattered { job: JobId(0), values: vec![(0, 10, vec![WorkerId(2)])] });
        env.submit(vec![inner(1, &[]), spec(2, &[0, 1])]);
    });
    env.lose(2);
    let text = "task scattered value (0.0) lost its input 0.0: every node that held it is gone";
    let mut lines = env.take();
    lines.sort();
    assert_eq!(
        lines,
        [
            format!("c0 < failed 0: {text}"),
            format!("c0 < failed 2: {text}"),
            "c0 < gone 2".into(),
            "w1 < cancel 1#1".into(),
            "w1 < gone 2".into(),
        ]
    );
}

#[test]
fn a_missing_input_is_computed_again_and_the_task_after_it() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), inner(1, &[]), spec(2, &[0, 1])]);
        env.finish_with(1, 0, 1, 1_000, 1);
        env.finish_with(2, 1, 1, 10, 1);
    });
    env.missing(1, 2, 1, &[(1, &[2, 99])]);
    env.expect(&["w2 < free 1", "w1 < compute 1#2"]);
    env.finish(1, 1, 2);
    env.expect(&["w1 < compute 2#2 (0@1 1@1)"]);
}

#[test]
fn a_missing_input_that_others_hold_is_fetched_from_them() {
    let mut env = Env::new(&[1, 1, 1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), inner(1, &[]), spec(2, &[0, 1])]);
        env.finish_with(1, 0, 1, 1_000, 1);
        env.finish_with(2, 1, 1, 10, 1);
        env.replica(3, 1);
    });
    env.missing(1, 2, 1, &[(1, &[2])]);
    env.expect(&["w2 < free 1", "w1 < compute 2#2 (0@1 1@3)"]);
}

#[test]
fn a_worker_is_believed_only_about_the_inputs_of_its_own_task() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[]), spec(1, &[])]);
        env.finish(1, 0, 1);
    });
    env.missing(2, 1, 1, &[(0, &[1])]);
    env.expect(&["w2 < compute 1#2"]);
    assert_eq!(env.scheduler.who_has(task(0)), [WorkerId(1)]);
}

#[test]
fn a_client_that_cannot_fetch_is_sent_elsewhere_or_told_to_wait() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish(1, 0, 1);
        env.replica(2, 0);
    });
    env.client(0, FromClient::Unreachable { task: task(0), holders: vec![WorkerId(1)] });
    env.expect(&["w1 < free 0", "c0 < finished 0: 10 bytes at 2"]);
    env.client(0, FromClient::Unreachable { task: task(0), holders: vec![WorkerId(2)] });
    env.expect(&["w2 < free 0", "w1 < compute 0#2", "c0 < recomputing 0"]);
    env.client(0, FromClient::Unreachable { task: task(0), holders: vec![WorkerId(2)] });
    env.expect(&[]);
}

#[test]
fn queued_tasks_of_a_lost_worker_are_placed_anew() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.client(0, FromClient::Scattered { job: JobId(0), values: vec![(0, 10, vec![WorkerId(1), WorkerId(2)])] });
        env.submit((1..12).map(|index| spec(index, &[0])).collect());
    });
    assert!(env.scheduler.worker(WorkerId(1)).unwrap().queued > 0);
    env.quietly(|env| env.lose(1));
    let view = env.scheduler.worker(WorkerId(2)).unwrap();
    assert_eq!((view.processing, view.queued), (2, 9));
}

#[test]
fn a_long_chain_of_lost_outputs_is_computed_again_without_a_deep_stack() {
    let last = 50_000;
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        let mut chain = vec![inner(0, &[])];
        chain.extend((1..last).map(|index| inner(index, &[index - 1])));
        chain.push(spec(last, &[last - 1]));
        env.scheduler.handle(
            crate::ids::Time(0),
            crate::scheduler::Event::FromClient {
                client: crate::ids::ClientId(0),
                message: FromClient::Submit { job: JobId(0), token: 0, kinds: vec![], tasks: chain },
            },
            &mut crate::scheduler::Effects::default(),
        );
    });
    for index in 0..=last {
        let message = crate::wire::FromWorker::Finished {
            task: task(index),
            attempt: crate::ids::Attempt(1),
            nbytes: 1,
            run_us: 1,
            inline: None,
        };
        let event = crate::scheduler::Event::FromWorker { worker: WorkerId(1), message };
        env.scheduler.handle(crate::ids::Time(0), event, &mut crate::scheduler::Effects::default());
    }
    assert_eq!(env.state(last), TaskState::Memory);
    env.lose(1);
    env.expect(&["c0 < gone 1", &format!("c0 < recomputing {last}")]);
    assert_eq!(env.scheduler.counts().get(TaskState::Waiting), u64::from(last));
    assert_eq!(env.state(0), TaskState::NoWorker);
}
