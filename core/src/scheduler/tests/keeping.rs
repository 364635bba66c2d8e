//! What is kept without a client: detached jobs and data sets.

use std::sync::Arc;

use bytes::Bytes;

use super::env::{Env, inner, spec, task};
use crate::ids::{ClientId, JobId, Term};
use crate::ledger::{Entry, Kept};
use crate::scheduler::{Event, Scheduler, TaskState};
use crate::wire::{FromClient, KeptName};

fn data_set(name: &str) -> KeptName {
    KeptName::DataSet(name.to_owned())
}

fn keep(env: &mut Env, client: u32, name: KeptName, wanted: &[u32]) {
    env.client(client, FromClient::Keep { token: 5, name, job: JobId(0), wanted: wanted.to_vec() });
}

fn forget(env: &mut Env, client: u32, name: KeptName) {
    env.client(client, FromClient::Forget { token: 6, name });
}

fn watch(env: &mut Env, client: u32, tasks: &[u32]) {
    env.client(client, FromClient::Watch { tasks: tasks.iter().map(|index| task(*index)).collect() });
}

fn lose_client(env: &mut Env, client: u32) {
    env.event(Event::ClientLost { client: ClientId(client) });
}

/// The ledger takes everything that was proposed; gives it.
fn log(env: &mut Env) -> Vec<Entry> {
    let entries = env.take_to_log();
    for entry in &entries {
        env.event(Event::Logged(entry.clone()));
    }
    entries
}

/// The one thing that is to be kept.
fn logged(env: &mut Env) -> Kept {
    match log(env).as_slice() {
        [Entry::Keep(kept)] => (**kept).clone(),
        other => panic!("not one thing to keep: {other:?}"),
    }
}

/// A job of a chain whose end is wanted, about to be detached.
fn detached() -> Env {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| env.submit(vec![inner(0, &[]), inner(1, &[0]), spec(2, &[1])]));
    keep(&mut env, 0, KeptName::Job(JobId(0)), &[2]);
    env
}

#[test]
fn a_detached_job_goes_on_without_its_client_until_it_is_forgotten() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit(vec![inner(0, &[]), spec(1, &[0]), spec(2, &[])]));
    keep(&mut env, 0, KeptName::Job(JobId(0)), &[1]);
    env.expect(&[]);
    let kept = logged(&mut env);
    env.expect(&["c0 < done: 0 moved"]);
    assert_eq!((kept.label.as_str(), kept.wanted.as_slice(), kept.values.len()), ("job", &[1][..], 0));
    let indices: Vec<u32> = kept.tasks.iter().map(|spec| spec.task.index).collect();
    assert_eq!(indices, [0, 1], "what it needs, and nothing else");
    assert_eq!(kept.tasks[1], inner(1, &[0]));
    lose_client(&mut env, 0);
    // Nobody wants task 2 any more.
    env.expect(&["w1 < cancel 2#1"]);
    env.finish(1, 0, 1);
    env.expect(&["w1 < compute 1#1 (0@1)"]);
    env.finish(1, 1, 1);
    env.expect(&["w1 < free 0"]);
    env.event(Event::ClientJoined { client: ClientId(1) });
    env.client(1, FromClient::Kept { token: 1, name: KeptName::Job(JobId(0)) });
    env.client(1, FromClient::Kept { token: 1, name: data_set("a") });
    env.expect(&["c1 < worker 1", "c1 < kept: Some([TaskId(0.1)])", "c1 < kept: None"]);
    watch(&mut env, 1, &[1, 2]);
    env.expect(&[
        "c1 < finished 1: 10 bytes at 1",
        "c1 < failed 2: task  (0.2) lost its input 0.2: every node that held it is gone",
    ]);
    forget(&mut env, 1, KeptName::Job(JobId(0)));
    env.expect(&[]);
    assert_eq!(log(&mut env), [Entry::Forget(KeptName::Job(JobId(0)))]);
    env.expect(&["w1 < free 1", "c1 < done: 0 moved"]);
    assert!(env.scheduler.jobs().is_empty());
    forget(&mut env, 1, KeptName::Job(JobId(0)));
    env.expect(&["c1 < done: 0 movedthere is no job 0"]);
}

#[test]
fn those_who_watch_are_told_how_it_ends() {
    let mut env = detached();
    env.quietly(|env| drop(log(env)));
    lose_client(&mut env, 0);
    env.quietly(|env| {
        env.event(Event::ClientJoined { client: ClientId(1) });
        watch(env, 1, &[2, 2]);
        env.finish(1, 0, 1);
        env.finish(1, 1, 1);
    });
    env.finish(1, 2, 1);
    env.expect(&["w1 < free 1", "c1 < finished 2: 10 bytes at 1"]);
    env.lose(1);
    env.expect(&["w2 < gone 1", "w2 < compute 0#2", "c1 < gone 1", "c1 < recomputing 2"]);
    env.client(1, FromClient::Unreachable { task: task(2), holders: vec![] });
    env.expect(&[]);
    env.fail(2, 0, 2);
    env.expect(&["c1 < failed 2: task work (0.0) on node 020202020202 failed: it broke"]);
    watch(&mut env, 1, &[2]);
    env.expect(&["c1 < failed 2: task work (0.0) on node 020202020202 failed: it broke"]);
    lose_client(&mut env, 1);
    env.expect(&[]);
}

#[test]
fn where_a_watched_output_is_can_be_asked_and_complained_of() {
    let mut env = detached();
    log(&mut env);
    env.quietly(|env| {
        env.event(Event::ClientJoined { client: ClientId(1) });
        watch(env, 1, &[2]);
        (0..3).for_each(|index| env.finish(1, index, 1));
        env.replica(2, 2);
    });
    env.client(1, FromClient::Unreachable { task: task(2), holders: vec![crate::ids::WorkerId(1)] });
    env.expect(&["w1 < free 2", "c1 < finished 2: 10 bytes at 2"]);
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        let mut large = spec(1, &[]);
        large.payload = Bytes::from(vec![0; 9 << 20]);
        env.submit(vec![spec(0, &[])]);
        env.client(0, FromClient::Submit { job: JobId(0), token: 0, kinds: vec![], tasks: vec![large] });
        env.event(Event::ClientJoined { client: ClientId(1) });
    });
    env.take_to_workers();
    keep(&mut env, 0, data_set("a"), &[0, 7]);
    keep(&mut env, 0, data_set(""), &[0]);
    keep(&mut env, 0, KeptName::Job(JobId(3)), &[0]);
    keep(&mut env, 1, data_set("a"), &[0]);
    keep(&mut env, 0, data_set("a"), &[1]);
    env.expect(&[
        "c0 < done: 0 moveddata set a names a task that job 0 has not",
        "c0 < done: 0 movedthe name of a data set has 1 to 256 bytes",
        "c0 < done: 0 movedjob 3 is another job than 0",
        "c1 < done: 0 movedjob 0 is not this client's",
        "c0 < done: 0 movedwhat is needed to compute data set a again takes more than 8388608 bytes: scatter large arguments",
    ]);
    assert!(log(&mut env).is_empty());
    keep(&mut env, 0, data_set("a"), &[0]);
    log(&mut env);
    env.expect(&["c0 < done: 0 moved"]);
    keep(&mut env, 0, data_set("a"), &[0, 1]);
    env.expect(&["c0 < done: 0 moveddata set a is kept already: forget it first"]);
    // The same again is no mistake: the first answer may have been lost with a link.
    keep(&mut env, 0, data_set("a"), &[0]);
    env.expect(&["c0 < done: 0 moved"]);
    assert!(log(&mut env).is_empty());
}

#[test]
fn what_the_ledger_does_not_take_is_not_kept() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| env.submit(vec![spec(0, &[]), spec(1, &[])]));
    keep(&mut env, 0, data_set("a"), &[0]);
    keep(&mut env, 0, data_set("a"), &[0]);
    let [entry] = env.take_to_log().try_into().unwrap();
    lose_client(&mut env, 0);
    env.expect(&["w1 < cancel 1#1"]);
    env.event(Event::NotLogged { entry, problem: "no quorum".into() });
    env.expect(&["w1 < cancel 0#1"]);
    assert!(env.scheduler.jobs().is_empty());
    let mut env = detached();
    let [entry] = env.take_to_log().try_into().unwrap();
    env.event(Event::NotLogged { entry, problem: "no quorum".into() });
    env.expect(&["c0 < done: 0 movedno quorum"]);
    keep(&mut env, 0, KeptName::Job(JobId(0)), &[2]);
    log(&mut env);
    env.expect(&["c0 < done: 0 moved"]);
    forget(&mut env, 0, KeptName::Job(JobId(0)));
    let [entry] = env.take_to_log().try_into().unwrap();
    env.event(Event::NotLogged { entry, problem: "no quorum".into() });
    env.expect(&["c0 < done: 0 movedno quorum"]);
    lose_client(&mut env, 0);
    assert_eq!(env.scheduler.jobs().len(), 1, "it is kept still");
}

#[test]
fn what_a_data_set_needs_stays_known_although_it_was_released() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![spec(0, &[]), spec(1, &[0]), spec(2, &[1]), spec(3, &[])]);
        keep(env, 0, data_set("a"), &[1]);
        keep(env, 0, data_set("b"), &[1, 1, 2]);
        log(env);
        (0..4).for_each(|index| env.finish(1, index, 1));
    });
    env.release(&[0, 1, 2, 3]);
    env.expect(&["w1 < free 3", "w1 < free 0"]);
    assert_eq!((env.state(0), env.state(1)), (TaskState::Released, TaskState::Memory));
    forget(&mut env, 0, data_set("b"));
    log(&mut env);
    env.expect(&["w1 < free 2", "c0 < done: 0 moved"]);
    assert_eq!(env.state(1), TaskState::Memory, "it is kept under another name");
    lose_client(&mut env, 0);
    env.expect(&[]);
    env.event(Event::ClientJoined { client: ClientId(1) });
    forget(&mut env, 1, data_set("a"));
    log(&mut env);
    env.expect(&["w1 < free 1", "c1 < worker 1", "c1 < done: 0 moved"]);
    assert!(env.scheduler.jobs().is_empty());
}

#[test]
fn a_released_output_that_is_to_be_kept_is_computed_again() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.submit(vec![inner(0, &[]), spec(1, &[0])]);
        (0..2).for_each(|index| env.finish(1, index, 1));
    });
    assert_eq!(env.state(0), TaskState::Released);
    keep(&mut env, 0, data_set("a"), &[0]);
    env.expect(&["w1 < compute 0#2"]);
}

#[test]
fn values_that_a_data_set_needs_are_kept_with_it() {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.scatter(0, 50, &[1]);
        env.submit(vec![spec(1, &[0])]);
        env.finish(1, 1, 1);
    });
    keep(&mut env, 0, data_set("a"), &[1]);
    let kept = logged(&mut env);
    assert_eq!(kept.values, [(0, 50)]);
    env.expect(&["c0 < done: 0 moved"]);
    env.release(&[0, 1]);
    lose_client(&mut env, 0);
    env.expect(&[]);
    // So what is lost can be computed again.
    env.quietly(|env| env.replica(2, 0));
    env.lose(1);
    env.expect(&["w2 < gone 1", "w2 < compute 1#2 (0@2)"]);
}

#[test]
fn a_new_scheduler_keeps_what_the_ledger_says_and_computes_what_is_lost() {
    let kept = |name, wanted: Vec<u32>| {
        let tasks = vec![inner(1, &[0]), inner(2, &[1]), inner(4, &[2]), inner(5, &[4, 3])];
        Kept { name, job: JobId(0), label: "job".into(), tasks, values: vec![(0, 50), (3, 50)], wanted }
    };
    let mut env = Env::recovering(Term(1), |config| (config.send_ahead, config.stealing) = (false, false));
    env.event(Event::Restored(Arc::new(kept(data_set("a"), vec![2]))));
    env.event(Event::Restored(Arc::new(kept(KeptName::Job(JobId(0)), vec![4, 5]))));
    env.quietly(|env| {
        env.join(1, 1);
        env.event(Event::ClientJoined { client: ClientId(1) });
    });
    env.inventory(1, &[(0, 0, 50), (2, 1, 10), (7, 1, 10)], &[]);
    // What is asked of what is kept waits until that is known.
    watch(&mut env, 1, &[2, 4]);
    env.client(1, FromClient::Kept { token: 1, name: data_set("a") });
    forget(&mut env, 1, data_set("b"));
    env.expect(&[]);
    env.event(Event::Recovered);
    env.expect(&[
        "w1 < compute 4#t1.1 (2@1)",
        "c1 < finished 2: 10 bytes at 1",
        "c1 < kept: Some([TaskId(0.2)])",
        "c1 < done: 0 movedthere is no data set b",
    ]);
    // Value 3 is lost, and task 5 with it.
    assert_eq!((env.state(1), env.state(5)), (TaskState::Released, TaskState::Erred));
    env.client(1, FromClient::Jobs { token: 1 });
    let lines = env.take();
    assert!(lines[0].contains("has_client: false, is_detached: true, data_sets: [\"a\"]"), "{lines:?}");
    // Its client comes and has more of the same job.
    env.quietly(|env| env.resume(2));
    env.restore_piece(2, vec![spec(2, &[1]), spec(7, &[2]), spec(8, &[7])], &[], &[], Some(9));
    env.expect(&[
        "w1 < compute 8#t1.1 (7@1)",
        "c2 < accepted",
        "c2 < finished 2: 10 bytes at 1",
        "c2 < finished 7: 10 bytes at 1",
    ]);
    lose_client(&mut env, 2);
    env.expect(&["w1 < cancel 8#t1.1", "w1 < free 7"]);
    env.finish(1, 4, crate::ids::Attempt::first_of(Term(1)).0 + 1);
    env.expect(&["c1 < finished 4: 10 bytes at 1"]);
    for name in [data_set("a"), KeptName::Job(JobId(0))] {
        forget(&mut env, 1, name);
        log(&mut env);
    }
    env.take();
    assert!(env.scheduler.jobs().is_empty());
}

#[test]
fn what_this_binary_cannot_compute_is_kept_as_long_as_it_is_there() {
    let mut foreign = inner(1, &[]);
    foreign.kind = crate::ids::KindId(99);
    let kept = Kept {
        name: data_set("a"),
        job: JobId(0),
        label: "job".into(),
        tasks: vec![foreign, inner(2, &[0])],
        values: vec![],
        wanted: vec![1, 2, 3],
    };
    let mut env = Env::recovering(Term(1), |_| {});
    env.event(Event::Restored(Arc::new(kept)));
    env.join(1, 1);
    env.inventory(1, &[(1, 1, 10)], &[]);
    env.event(Event::Recovered);
    env.expect(&["w1 < worker 1"]);
    assert_eq!((env.state(1), env.state(2), env.state(3)), (TaskState::Memory, TaskState::Erred, TaskState::Forgotten));
    env.event(Event::Logged(Entry::Forget(data_set("a"))));
    env.expect(&["w1 < free 1"]);
    assert!(env.scheduler.jobs().is_empty());
}

#[test]
fn job_ids_are_reserved_before_they_are_used() {
    let mut env = Env::recovering(Term(1), |_| {});
    env.event(Event::ClientJoined { client: ClientId(0) });
    let below = Scheduler::jobs_below(JobId(10));
    let mut used = 0;
    let mut open = |env: &mut Env| {
        env.client(0, FromClient::OpenJob { name: String::new(), token: 0 });
        used += 1;
        used
    };
    let more = loop {
        let used = open(&mut env);
        let entries = env.take_to_log();
        if let [Entry::JobsBelow(more)] = entries.as_slice() {
            assert!(10 + used < below.0, "too late: {used}");
            break *more;
        }
        env.take();
        // Their number alone shall not make the test slow.
        lose_client(&mut env, 0);
        env.event(Event::ClientJoined { client: ClientId(0) });
    };
    assert!(more > below);
    open(&mut env);
    assert!(env.take_to_log().is_empty());
    // If the ledger does not take it, it is asked again.
    env.event(Event::NotLogged { entry: Entry::JobsBelow(more), problem: "no quorum".into() });
    open(&mut env);
    assert_eq!(env.take_to_log(), [Entry::JobsBelow(more)]);
    env.event(Event::Logged(Entry::JobsBelow(more)));
    open(&mut env);
    assert!(env.take_to_log().is_empty());
}
