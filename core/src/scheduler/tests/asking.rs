//! Cancelling, and why a task is where it is.

use std::sync::Arc;

use super::env::{Env, inner, spec, task};
use crate::explain::{ObstacleKind, Why};
use crate::ids::JobId;
use crate::scheduler::TaskState;
use crate::spec::{Amount, Requirements};
use crate::wire::{FromClient, FromWorker, WorkerStatus};

fn cancel(env: &mut Env, tasks: &[u32]) {
    env.client(0, FromClient::Cancel { tasks: tasks.iter().map(|index| task(*index)).collect() });
}

fn why(env: &Env, index: u32) -> Why {
    env.scheduler.explain(task(index)).why
}

#[test]
fn cancelling_a_task_cancels_what_needs_it_and_nothing_else() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit(vec![spec(0, &[]), spec(1, &[0]), inner(2, &[1]), spec(3, &[2]), spec(4, &[])]));
    cancel(&mut env, &[1]);
    env.expect(&["c0 < failed 1: task work (0.1) was cancelled", "c0 < failed 3: task work (0.1) was cancelled"]);
    assert_eq!([0, 1, 3, 4].map(|index| env.state(index)), {
        use TaskState::{Erred, Processing};
        [Processing, Erred, Erred, Processing]
    });
}

#[test]
fn cancelling_what_runs_takes_it_from_its_worker() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit((0..4).map(|index| spec(index, &[])).collect()));
    cancel(&mut env, &[0]);
    env.expect(&["w1 < cancel 0#1", "w1 < compute 2#1", "c0 < failed 0: task work (0.0) was cancelled"]);
    // It ends all the same.
    env.finish(1, 0, 1);
    env.expect(&["w1 < free 0"]);
}

#[test]
fn what_is_done_stays_and_what_is_not_known_is_ignored() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        env.finish(1, 0, 1);
    });
    cancel(&mut env, &[0, 5, 700]);
    env.client(0, FromClient::Cancel { tasks: vec![crate::ids::TaskId::new(JobId(77), 0)] });
    env.client(0, FromClient::CancelJob { job: JobId(77) });
    env.expect(&[]);
    assert_eq!(env.state(0), TaskState::Memory);
}

#[test]
fn cancelling_a_job_cancels_everything_that_is_not_done() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[]), spec(1, &[0]), spec(2, &[]), spec(3, &[])]);
        env.finish(1, 0, 1);
    });
    env.client(0, FromClient::CancelJob { job: JobId(0) });
    let lines = env.take();
    assert_eq!(lines.iter().filter(|line| line.ends_with("was cancelled")).count(), 3, "{lines:?}");
    // The job goes on.
    env.submit(vec![spec(4, &[0])]);
    env.expect(&["w1 < compute 4#1 (0@1)", "c0 < accepted"]);
}

#[test]
fn a_waiting_task_names_its_inputs() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit((0..30).map(|index| spec(index, &[])).collect());
        env.finish(1, 0, 1);
        env.submit(vec![spec(30, &(0..30).collect::<Vec<_>>())]);
    });
    let Why::Waiting { inputs, more } = why(&env, 30) else { panic!("{:?}", why(&env, 30)) };
    assert_eq!((inputs.len(), more), (16, 13));
    assert_eq!((inputs[0].task, inputs[0].state, inputs[0].name.as_str()), (task(1), TaskState::Processing, "work"));
    let text = env.scheduler.explain(task(30)).to_string();
    assert!(text.starts_with("task work (0.30) waits for 29 inputs:\n  work (0.1), which is processing"), "{text}");
}

#[test]
fn a_queued_task_says_who_is_full_and_what_is_before_it() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit((0..9).map(|index| spec(index, &[])).collect()));
    let Why::Queued { queue_len, next, obstacles, more: 0 } = why(&env, 8) else { panic!("{:?}", why(&env, 8)) };
    assert_eq!((queue_len, next.map(|next| next.task)), (7, Some(task(2))));
    assert_eq!(obstacles.len(), 1);
    assert_eq!(obstacles[0].what, ObstacleKind::Full { processing: 2, occupancy_us: 10_000 });
    env.worker(1, FromWorker::Status(WorkerStatus { paused: true, ..WorkerStatus::default() }));
    let Why::Queued { obstacles, .. } = why(&env, 8) else { panic!() };
    assert_eq!(obstacles[0].what, ObstacleKind::Paused);
}

#[test]
fn a_task_that_no_worker_may_run_says_why_for_each() {
    let mut env = Env::new(&[]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[])]);
        assert_eq!(why(env, 0), Why::NoWorker { obstacles: vec![], more: 0 });
        env.join_with(1, &["gpu=1"]);
        env.join_with(2, &["gpu=4"]);
        let requirements = Requirements {
            resources: [("gpu".to_owned(), Amount::whole(2))].into(),
            workers: vec!["worker 1".into(), "worker 3".into()],
            allow_other_workers: false,
        };
        let mut needing = spec(1, &[]);
        needing.options.requirements = Some(Arc::new(requirements));
        env.submit(vec![needing]);
    });
    let Why::NoWorker { obstacles, .. } = why(&env, 1) else { panic!("{:?}", why(&env, 1)) };
    let kinds: Vec<&ObstacleKind> = obstacles.iter().map(|obstacle| &obstacle.what).collect();
    let lacks = ObstacleKind::Lacks { resource: "gpu".into(), needed: 2_000, total: 1_000 };
    assert_eq!(kinds, [&lacks, &ObstacleKind::Restricted]);
    let text = env.scheduler.explain(task(1)).to_string();
    assert!(text.contains("worker 1: has 1 of the resource gpu, and the task takes 2"), "{text}");
}

#[test]
fn a_task_that_waits_for_a_resource_says_so() {
    let mut env = Env::new(&[]);
    env.quietly(|env| {
        env.join_with(1, &["gpu=1"]);
        for index in 0..2 {
            let resources = [("gpu".to_owned(), Amount::whole(1))].into();
            let mut needing = spec(index, &[]);
            needing.options.requirements = Some(Arc::new(Requirements { resources, ..Requirements::default() }));
            env.submit(vec![needing]);
        }
    });
    let Why::Queued { obstacles, .. } = why(&env, 1) else { panic!("{:?}", why(&env, 1)) };
    assert_eq!(obstacles[0].what, ObstacleKind::InUse { resource: "gpu".into(), needed: 1_000, left: 0 });
}

#[test]
fn the_other_states_are_told_as_they_are() {
    let mut env = Env::with(&[1], |config| config.stealing = false);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[]), spec(1, &[0]), spec(2, &[])]);
        env.finish(1, 2, 1);
    });
    let text = |env: &Env, index| env.scheduler.explain(task(index)).to_string();
    assert_eq!(
        text(&env, 0),
        "task work (0.0) is with worker worker 1, attempt 1; that one runs 1 tasks at once and has 2"
    );
    assert!(text(&env, 1).ends_with("the same worker computes its inputs first:\n  work (0.0), which is processing"));
    assert_eq!(text(&env, 2), "task work (0.2) is done: 10 bytes on worker 1");
    env.fail(1, 0, 1);
    assert_eq!(text(&env, 1), "task work (0.1) has failed: task work (0.0) on node 010101010101 failed: it broke");
    assert_eq!(why(&env, 99), Why::Forgotten);
    env.take();
    env.client(0, FromClient::Explain { token: 9, task: task(99) });
    env.expect(&["c0 < explained: task 0.99 is not known: it was never submitted, or everybody who held its result has released it"]);
}
