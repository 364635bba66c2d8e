//! What is told of the tasks that ran.

use super::env::{Env, spec, task};
use crate::ids::{Attempt, ClientId, KindId, Time, WorkerId};
use crate::scheduler::{Effects, Event, PAGE_RECORDS_MAX, RECORDS_MAX};
use crate::task_stream::{StreamFailure, StreamPage, TaskOutcome, TaskRecord};
use crate::wire::{FromClient, FromWorker};

fn shown(page: &StreamPage) -> Vec<(u32, u32, TaskOutcome)> {
    page.records.iter().map(|record| (record.task.index, record.worker.0, record.outcome)).collect()
}

#[test]
fn what_ended_while_a_client_asks_is_told_with_names_and_reasons() {
    let mut env = Env::new(&[2, 1]);
    let mut retried = spec(1, &[]);
    retried.options.retries = 1;
    env.submit(vec![spec(0, &[]), retried, spec(2, &[]), spec(3, &[])]);
    env.finish(1, 0, 1);
    let none = env.stream(u64::MAX);
    assert_eq!((none.first, none.end, none.forgotten, none.records.len()), (0, 0, 0, 0));
    env.now_us = 5_000;
    let on = |env: &Env, index| env.scheduler.processing_on(task(index)).unwrap().0.0;
    let (of_1, of_2, of_3) = (on(&env, 1), on(&env, 2), on(&env, 3));
    env.fail(of_1, 1, 1);
    env.finish_with(of_2, 2, 1, 77, 1_234);
    env.fail(of_3, 3, 1);
    // Late, doubled or of nobody.
    env.finish(of_2, 2, 1);
    env.finish(1, 99, 1);
    let page = env.stream(0);
    use TaskOutcome::{Failed, Finished, Retried};
    assert_eq!(shown(&page), [(1, of_1, Retried), (2, of_2, Finished), (3, of_3, Failed)]);
    let record = TaskRecord {
        task: task(2),
        kind: KindId(1),
        worker: WorkerId(of_2),
        attempt: Attempt(1),
        ended: Time(5_000),
        run_us: 1_234,
        nbytes: 77,
        outcome: Finished,
    };
    assert_eq!((page.records[1], page.now, page.end), (record, Time(5_000), 3));
    assert_eq!(page.kinds, [(KindId(1), "work".to_owned())]);
    let workers: Vec<_> = page.workers.iter().map(|worker| (worker.name.as_str(), worker.nthreads)).collect();
    assert_eq!(workers, [("worker 1", 2), ("worker 2", 1)]);
    let [StreamFailure { number: 2, message }] = &page.failures[..] else { panic!("{:?}", page.failures) };
    assert!(message.contains("it broke"), "{message}");
    assert_eq!(shown(&env.stream(2)), [(3, of_3, Failed)]);
}

#[test]
fn a_worker_that_is_gone_keeps_its_name() {
    let mut env = Env::new(&[1, 1]);
    env.stream(0);
    env.submit(vec![spec(0, &[])]);
    let worker = env.scheduler.processing_on(task(0)).unwrap().0.0;
    env.finish(worker, 0, 1);
    env.lose(worker);
    let page = env.stream(0);
    assert!(page.workers.iter().any(|of| of.worker.0 == worker && of.name == format!("worker {worker}")));
    assert_eq!(page.workers.len(), 2);
}

#[test]
fn nothing_is_remembered_once_nobody_asks() {
    let mut env = Env::new(&[1]);
    env.event(Event::ClientJoined { client: ClientId(1) });
    env.stream(0);
    env.client(1, FromClient::TaskStream { token: 1, since: 0 });
    env.submit(vec![spec(0, &[]), spec(1, &[]), spec(2, &[])]);
    env.finish(1, 0, 1);
    env.client(0, FromClient::EndTaskStream);
    env.finish(1, 1, 1);
    assert_eq!(env.stream(0).records.len(), 2);
    env.client(0, FromClient::EndTaskStream);
    env.event(Event::ClientLost { client: ClientId(1) });
    env.finish(1, 2, 1);
    let page = env.stream(0);
    assert_eq!((page.records.len(), page.end), (0, 0));
}

#[test]
fn the_oldest_are_forgotten_and_counted_and_answers_are_bounded() {
    let mut env = Env::new(&[1]);
    env.stream(0);
    let count = RECORDS_MAX as u32 + 10;
    env.quietly(|env| env.submit((0..count).map(|index| spec(index, &[])).collect()));
    // Past the environment, which checks the invariants after every event.
    for index in 0..count {
        let (task, attempt) = (task(index), Attempt(1));
        let message = FromWorker::Finished { task, attempt, nbytes: 1, run_us: 1, inline: None };
        let event = Event::FromWorker { worker: WorkerId(1), message };
        env.scheduler.handle(Time(1), event, &mut Effects::default());
    }
    let page = env.stream(3);
    assert_eq!((page.first, page.end, page.forgotten), (10, u64::from(count), 7));
    assert_eq!((page.records.len(), page.records[0].task), (PAGE_RECORDS_MAX, task(10)));
    let last = env.stream(u64::from(count) - 1);
    assert_eq!(shown(&last), [(count - 1, 1, TaskOutcome::Finished)]);
}
