//! What clients may ask of the records.

use super::env::{Env, spec, task};
use crate::ids::{JobId, WorkerId};
use crate::query::{NbytesOf, Query, Report};

fn env() -> Env {
    let mut env = Env::new(&[1, 1]);
    env.quietly(|env| {
        env.submit((0..4).map(|index| spec(index, &[])).collect());
        env.finish_with(1, 0, 1, 100, 10);
        env.scatter(4, 7, &[1, 2]);
    });
    env
}

#[test]
fn what_a_worker_holds_and_runs_is_told_in_order_and_by_job() {
    let env = env();
    let has_what = |worker, job, after| env.scheduler.report(&Query::HasWhat { worker, job, after });
    let outputs = |outputs: &[(u32, u64)]| Report::Outputs {
        outputs: outputs.iter().map(|(index, nbytes)| (task(*index), *nbytes)).collect(),
        more: false,
    };
    assert_eq!(has_what(WorkerId(1), None, None), outputs(&[(0, 100), (4, 7)]));
    assert_eq!(has_what(WorkerId(1), Some(JobId(0)), Some(task(0))), outputs(&[(4, 7)]));
    assert_eq!(has_what(WorkerId(2), None, None), outputs(&[(4, 7)]));
    assert_eq!(has_what(WorkerId(2), Some(JobId(5)), None), outputs(&[]));
    assert_eq!(has_what(WorkerId(9), None, None), outputs(&[]));
    let processing = |worker| match env.scheduler.report(&Query::Processing { worker, job: None, after: None }) {
        Report::Tasks { tasks, more: false } => tasks,
        other => panic!("{other:?}"),
    };
    let mut all = processing(WorkerId(1));
    all.extend(processing(WorkerId(2)));
    all.sort();
    assert_eq!(all, [1, 2, 3].map(|index| (task(index), "work".to_owned())));
}

#[test]
fn bytes_add_up_by_function_and_each_output_counts_once() {
    let env = env();
    let Report::Nbytes(by_name) = env.scheduler.report(&Query::Nbytes { job: None }) else { panic!("another report") };
    let of = |name: &str, nbytes| NbytesOf { name: name.to_owned(), outputs: 1, nbytes };
    assert_eq!(by_name.iter().map(|sum| sum.nbytes).sum::<u64>(), 107);
    assert!(by_name.contains(&of("work", 100)), "{by_name:?}");
    assert_eq!(env.scheduler.report(&Query::Nbytes { job: Some(JobId(3)) }), Report::Nbytes(Vec::new()));
}

#[test]
fn workers_are_told_with_what_they_have_and_do() {
    let env = env();
    let Report::Workers { workers, more: false } = env.scheduler.report(&Query::Workers { after: None }) else {
        panic!("another report")
    };
    let told: Vec<_> = workers.iter().map(|worker| (worker.worker, worker.outputs, worker.nbytes)).collect();
    assert_eq!(told, [(WorkerId(1), 2, 107), (WorkerId(2), 1, 7)]);
    assert_eq!(workers.iter().map(|worker| worker.processing).sum::<u64>(), 3);
    let Report::Workers { workers, .. } = env.scheduler.report(&Query::Workers { after: Some(WorkerId(1)) }) else {
        panic!("another report")
    };
    assert_eq!(workers.len(), 1);
}
