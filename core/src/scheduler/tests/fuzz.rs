use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::env::{Env, failure, spec, task};
use crate::ids::{Attempt, ClientId, JobId, TaskId, Term, WorkerId};
use crate::ledger::{Entry, Kept};
use crate::query::Query;
use crate::scheduler::{Config, Event};
use crate::spec::{Amount, Requirements, TaskSpec};
use crate::wire::{FromClient, FromWorker, Inventory, KeptName, StillRunning, WorkerInfo, WorkerStatus};

fn any_task() -> impl Strategy<Value = TaskId> {
    prop_oneof![
        8 => (0..12u32).prop_map(task),
        1 => any::<u32>().prop_map(task),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(job, index)| TaskId::new(JobId(job), index)),
    ]
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let of_term_1 = (1..4u32).prop_map(|number| Attempt(Attempt::first_of(Term(1)).0 + number));
    prop_oneof![9 => (0..4u32).prop_map(Attempt), 4 => of_term_1, 1 => any::<u32>().prop_map(Attempt)]
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
        2 => (any_task(), 0..4u32, 0..4u32)
            .prop_map(|(task, attempt, frees_heard)| FromWorker::Replica { task, attempt: Attempt(attempt), frees_heard }),
        2 => (any_task(), any_attempt(), any::<bool>()).prop_map(|(task, attempt, given)| {
            FromWorker::StealAnswer { task, attempt, given }
        }),
        1 => (any_task(), any_attempt()).prop_map(|(task, attempt)| FromWorker::Suspended { task, attempt }),
        1 => (any_task(), any_attempt()).prop_map(|(task, attempt)| FromWorker::Resumed { task, attempt }),
        1 => any_task().prop_map(|task| FromWorker::NotAcquired { task }),
        1 => any::<bool>().prop_map(|paused| FromWorker::Status(WorkerStatus { paused, ..WorkerStatus::default() })),
        1 => Just(FromWorker::Leaving),
        4 => inventory().prop_map(FromWorker::Inventory),
    ]
}

fn inventory() -> impl Strategy<Value = Inventory> {
    let task =
        || prop_oneof![9 => any_task(), 1 => (any_task(), any::<u32>()).prop_map(|(task, part)| task.part(part))];
    let outputs = vec((task(), any_attempt(), any::<u64>()), 0..6);
    let running = vec((task(), any_attempt(), any::<bool>()), 0..4);
    (outputs, running, any::<bool>()).prop_map(|(outputs, running, is_last)| {
        let running =
            running.into_iter().map(|(task, attempt, is_suspended)| StillRunning { task, attempt, is_suspended });
        Inventory { outputs, running: running.collect(), is_last }
    })
}

/// Mostly of job 0, with indices and inputs that fit or do not.
fn specs() -> impl Strategy<Value = Vec<TaskSpec>> {
    let inputs = vec(prop_oneof![9 => 0..14u32, 1 => any::<u32>()], 0..4);
    let index = prop_oneof![14 => 0..14u32, 1 => 1_000..3_000u32, 1 => 0..200_000u32, 1 => Just(u32::MAX)];
    vec((index, inputs, any::<bool>(), requirements()), 0..6).prop_map(|tasks| {
        let task = |(index, mut inputs, wanted, requirements): (u32, Vec<u32>, bool, Option<Arc<Requirements>>)| {
            if index % 3 > 0 {
                inputs.retain(|input| *input < index);
            }
            let mut spec = spec(index, &inputs);
            (spec.options.wanted, spec.options.requirements) = (wanted, requirements);
            spec.options.replicas = (index % 4) as u8;
            spec
        };
        tasks.into_iter().map(task).collect()
    })
}

fn kept_name() -> impl Strategy<Value = KeptName> {
    prop_oneof![
        2 => Just(KeptName::Job(JobId(0))),
        3 => (0..2u32).prop_map(|number| KeptName::DataSet(format!("set {number}"))),
    ]
}

fn any_name() -> impl Strategy<Value = KeptName> {
    prop_oneof![
        5 => kept_name(),
        1 => any::<u32>().prop_map(|job| KeptName::Job(JobId(job))),
        1 => Just(KeptName::DataSet(String::new())),
    ]
}

/// What a client says again, and what it wants kept.
fn of_recovery() -> impl Strategy<Value = FromClient> {
    let job = || prop_oneof![9 => Just(JobId(0)), 1 => any::<u32>().prop_map(JobId)];
    let values = vec((0..14u32, any::<u64>()), 0..3);
    let failed = vec((0..14u32).prop_map(|index| (index, failure(index))), 0..3);
    let end = prop_oneof![2 => Just(None), 4 => (0..20u32).prop_map(Some), 1 => any::<u32>().prop_map(Some)];
    prop_oneof![
        3 => job().prop_map(|job| FromClient::Resume { token: 0, job, name: "job".into() }),
        5 => (job(), specs(), values, failed, end).prop_map(|(job, tasks, values, failed, end)| {
            FromClient::Restore { job, token: 0, tasks, values, failed, end }
        }),
        3 => (any_name(), job(), vec(0..8u32, 0..3)).prop_map(|(name, job, wanted)| {
            FromClient::Keep { token: 0, name, job, wanted }
        }),
        1 => any_name().prop_map(|name| FromClient::Forget { token: 0, name }),
        1 => any_name().prop_map(|name| FromClient::Kept { token: 0, name }),
        1 => Just(FromClient::Jobs { token: 0 }),
        1 => vec(any_task(), 0..3).prop_map(|tasks| FromClient::Watch { tasks }),
    ]
}

/// What the ledger may keep, sensible or not.
fn any_kept() -> impl Strategy<Value = Kept> {
    (kept_name(), specs(), vec((0..14u32, any::<u64>()), 0..2), vec(0..14u32, 0..3)).prop_map(
        |(name, tasks, values, wanted)| Kept { name, job: JobId(0), label: "kept".into(), tasks, values, wanted },
    )
}

fn of_ledger() -> impl Strategy<Value = Event> {
    let entry = || {
        prop_oneof![
            3 => any_kept().prop_map(|kept| Entry::Keep(Arc::new(kept))),
            2 => any_name().prop_map(Entry::Forget),
            1 => any::<u32>().prop_map(|job| Entry::JobsBelow(JobId(job))),
        ]
    };
    prop_oneof![
        2 => any_kept().prop_map(|kept| Event::Restored(Arc::new(kept))),
        2 => Just(Event::Recovered),
        2 => entry().prop_map(Event::Logged),
        1 => entry().prop_map(|entry| Event::NotLogged { entry, problem: "no quorum".into() }),
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
        2 => vec(any_task(), 0..3).prop_map(|tasks| FromClient::Retry { token: 0, tasks }),
        1 => (any_worker(), any_task()).prop_map(|(worker, after)| FromClient::Query {
            token: 0,
            query: Query::HasWhat { worker, job: None, after: Some(after) },
        }),
        1 => (0_u64..8).prop_map(|since| FromClient::TaskStream { token: 0, since }),
        1 => Just(FromClient::EndTaskStream),
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
        3 => (0..3u32, of_recovery()).prop_map(|(client, message)| {
            Event::FromClient { client: ClientId(client), message }
        }),
        1 => of_ledger(),
        1 => (0..3u32).prop_map(|client| Event::ClientJoined { client: ClientId(client) }),
        1 => (1..3u32).prop_map(|client| Event::ClientLost { client: ClientId(client) }),
    ]
}

/// Closes everything, and expects that nothing is left.
fn close(env: &mut Env) {
    env.event(Event::Recovered);
    for client in 0..3 {
        env.event(Event::ClientLost { client: ClientId(client) });
    }
    for name in [KeptName::Job(JobId(0)), KeptName::DataSet("set 0".into()), KeptName::DataSet("set 1".into())] {
        env.event(Event::Logged(Entry::Forget(name)));
    }
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
            spec.options.replicas = (index % 3) as u8;
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
        close(&mut env);
        prop_assert_eq!(env.scheduler.counts().total(), 0);
    }

    /// A new scheduler, to which everything comes in any order.
    #[test]
    fn whatever_comes_back_the_records_agree(
        early in vec(event(), 0..30),
        late in vec(event(), 0..30),
        tasks_max in 0..20u64,
    ) {
        let mut env = Env::recovering(Term(1), |config: &mut Config| config.tasks_max = tasks_max);
        for worker in 1..3 {
            env.join(worker, 2);
        }
        env.event(Event::ClientJoined { client: ClientId(0) });
        env.client(0, FromClient::Resume { token: 0, job: JobId(0), name: "job".into() });
        let tasks = vec![spec(0, &[]), spec(1, &[0]), spec(2, &[0, 1]), spec(5, &[2]), spec(6, &[5, 5])];
        env.client(0, FromClient::Restore {
            job: JobId(0), token: 0, tasks, values: vec![(3, 10)], failed: vec![], end: Some(7),
        });
        for event in early {
            env.event(event);
        }
        env.event(Event::Recovered);
        for event in late {
            env.event(event);
        }
        close(&mut env);
        prop_assert_eq!(env.scheduler.counts().total(), 0);
    }
}
