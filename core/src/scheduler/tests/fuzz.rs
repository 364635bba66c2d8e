use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::env::{Env, failure, spec, task};
use crate::ids::{Attempt, ClientId, JobId, TaskId, WorkerId};
use crate::scheduler::Event;
use crate::spec::{Amount, Requirements};
use crate::wire::{FromClient, FromWorker, WorkerInfo, WorkerStatus};

fn any_task() -> impl Strategy<Value = TaskId> {
    prop_oneof![
        8 => (0..12u32).prop_map(task),
        1 => any::<u32>().prop_map(task),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(job, index)| TaskId::new(JobId(job), index)),
    ]
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    prop_oneof![9 => (0..4u32).prop_map(Attempt), 1 => any::<u32>().prop_map(Attempt)]
}

fn any_worker() -> impl Strategy<Value = WorkerId> {
    prop_oneof![9 => (1..4u32).prop_map(WorkerId), 1 => any::<u32>().prop_map(WorkerId)]
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    let missing = vec((any_task(), vec(any_worker(), 0..3)), 0..3);
    prop_oneof![
        4 => (any_task(), any_attempt(), any::<u64>(), any::<u64>()).prop_map(|(task, attempt, nbytes, run_us)| {
            FromWorker::Finished { task, attempt, nbytes, run_us, inline: None }
        }),
        1 => (any_task(), any_attempt()).prop_map(|(task, attempt)| {
            FromWorker::Failed { task, attempt, failure: failure(0) }
        }),
        2 => (any_task(), any_attempt(), missing).prop_map(|(task, attempt, missing)| {
            let missing = missing.into_iter().map(|(task, holders)| (task, holders.into())).collect();
            FromWorker::InputsMissing { task, attempt, missing }
        }),
        2 => any_task().prop_map(|task| FromWorker::Replica { task }),
        2 => (any_task(), any_attempt(), any::<bool>()).prop_map(|(task, attempt, given)| {
            FromWorker::StealAnswer { task, attempt, given }
        }),
        1 => (any_task(), any_attempt()).prop_map(|(task, attempt)| FromWorker::Suspended { task, attempt }),
        1 => (any_task(), any_attempt()).prop_map(|(task, attempt)| FromWorker::Resumed { task, attempt }),
        1 => any_task().prop_map(|task| FromWorker::NotAcquired { task }),
        1 => any::<bool>().prop_map(|paused| FromWorker::Status(WorkerStatus { paused, ..WorkerStatus::default() })),
        1 => Just(FromWorker::Leaving),
    ]
}

fn from_client() -> impl Strategy<Value = FromClient> {
    let job = prop_oneof![9 => Just(JobId(0)), 1 => any::<u32>().prop_map(JobId)];
    let inputs = vec(prop_oneof![9 => 0..14u32, 1 => any::<u32>()], 0..4);
    let tasks = vec((0..14u32, inputs, any::<bool>(), requirements()), 0..4);
    let values = vec((prop_oneof![9 => 0..14u32, 1 => any::<u32>()], any::<u64>(), vec(any_worker(), 0..3)), 0..2);
    prop_oneof![
        2 => (job.clone(), tasks).prop_map(|(job, tasks)| {
            let tasks = tasks
                .into_iter()
                .map(|(index, inputs, wanted, requirements)| {
                    let mut spec = spec(index, &inputs);
                    (spec.options.wanted, spec.options.requirements) = (wanted, requirements);
                    spec
                })
                .collect();
            FromClient::Submit { job, token: 0, kinds: vec![], tasks }
        }),
        1 => (job, values).prop_map(|(job, values)| FromClient::Scattered { job, values }),
        1 => vec(any_task(), 0..3).prop_map(|tasks| FromClient::Release { tasks }),
        1 => vec(any_task(), 0..3).prop_map(|tasks| FromClient::WhoHas { token: 0, tasks }),
        1 => (any_task(), vec(any_worker(), 0..3)).prop_map(|(task, holders)| FromClient::Unreachable { task, holders }),
        1 => vec(any_task(), 0..3).prop_map(|tasks| FromClient::Cancel { tasks }),
        1 => Just(FromClient::CancelJob { job: JobId(0) }),
        1 => any_task().prop_map(|task| FromClient::Explain { token: 0, task }),
        1 => (vec(any_task(), 0..3), 0..5u32).prop_map(|(tasks, copies)| {
            FromClient::Replicate { token: 0, tasks, copies }
        }),
        1 => Just(FromClient::Rebalance { token: 0 }),
        1 => vec(any_worker(), 0..3).prop_map(|workers| FromClient::Retire { token: 0, workers }),
    ]
}

/// Mostly none; else a resource, or a restriction, or both.
fn requirements() -> impl Strategy<Value = Option<Arc<Requirements>>> {
    prop_oneof![
        3 => Just(None),
        1 => (0..3u64, 0..3u32, any::<bool>()).prop_map(|(amount, worker, allow_other_workers)| {
            let workers = if worker == 0 { vec![] } else { vec![format!("worker {worker}")] };
            let resources = [("gpu".to_owned(), Amount::whole(amount))].into();
            Some(Arc::new(Requirements { resources, workers, allow_other_workers }))
        }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let client = prop_oneof![9 => Just(ClientId(0)), 1 => any::<u32>().prop_map(ClientId)];
    prop_oneof![
        1 => (any_worker(), any::<u32>(), 0..3u64).prop_map(|(worker, nthreads, gpus)| {
            let resources = [("gpu".to_owned(), Amount::whole(gpus))].into();
            let name = format!("worker {}", worker.0);
            Event::WorkerJoined { worker, info: WorkerInfo { name, nthreads, resources, ..WorkerInfo::default() } }
        }),
        1 => Just(Event::Tick),
        1 => any_worker().prop_map(|worker| Event::WorkerLost { worker }),
        8 => (any_worker(), from_worker()).prop_map(|(worker, message)| Event::FromWorker { worker, message }),
        6 => (client, from_client()).prop_map(|(client, message)| Event::FromClient { client, message }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A graph to begin with, then anything at all. `Env` checks the invariants after every event.
    #[test]
    fn whatever_peers_say_the_records_agree(events in vec(event(), 0..60), tasks_max in 0..20u64, step_us in 0..50_000u64) {
        let mut env = Env::with(&[1, 2], |config| config.tasks_max = tasks_max);
        let kept = |index, inputs: &[u32], wanted| {
            let mut spec = spec(index, inputs);
            (spec.options.wanted, spec.options.retries) = (wanted, 1);
            spec
        };
        env.submit(vec![
            kept(0, &[], false),
            kept(1, &[], true),
            kept(2, &[0, 1], false),
            kept(3, &[2, 2, 1], true),
            kept(4, &[3], true),
        ]);
        for event in events {
            env.now_us += step_us;
            env.event(event);
        }
        env.event(Event::ClientLost { client: ClientId(0) });
        prop_assert_eq!(env.scheduler.counts().total(), 0);
    }
}
