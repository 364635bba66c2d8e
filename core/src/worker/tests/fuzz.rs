use proptest::collection::vec;
use proptest::prelude::*;

use super::env::{Env, task};
use crate::ids::{Attempt, WorkerId};
use crate::worker::{Effect, Event, Outcome};

/// What the scheduler, the peers and the threads do, in any order. Fetches and executions end as they must: each that
/// was begun ends once.
#[derive(Clone, Debug)]
enum Step {
    Compute(u32, u32, Vec<(u32, Vec<u32>)>),
    Cancel(u32, u32),
    Free(u32),
    Gone(u32),
    Peer(u32),
    Stored(u32),
    SchedulerLost,
    /// One of the fetches under way ends, with what is in the bits.
    EndFetch(usize, u32),
    /// One of the executions under way ends.
    EndExecution(usize, bool),
    /// Something ends that was never begun.
    Nonsense(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let inputs = vec((0..8u32, vec(0..5u32, 0..3)), 0..4);
    prop_oneof![
        6 => (0..8u32, 1..5u32, inputs).prop_map(|(index, attempt, inputs)| Step::Compute(index, attempt, inputs)),
        3 => (0..8u32, 1..5u32).prop_map(|(index, attempt)| Step::Cancel(index, attempt)),
        3 => (0..8u32).prop_map(Step::Free),
        1 => (0..5u32).prop_map(Step::Gone),
        1 => (0..5u32).prop_map(Step::Peer),
        1 => (0..8u32).prop_map(Step::Stored),
        1 => Just(Step::SchedulerLost),
        5 => (any::<usize>(), any::<u32>()).prop_map(|(which, bits)| Step::EndFetch(which, bits)),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(which, fails)| Step::EndExecution(which, fails)),
        1 => (0..8u32).prop_map(Step::Nonsense),
    ]
}

#[derive(Default)]
struct World {
    fetches: Vec<(WorkerId, Vec<crate::ids::TaskId>)>,
    executions: Vec<(crate::ids::TaskId, Attempt)>,
    /// What the store holds: must be what the machine believes, once nothing is under way.
    store: std::collections::BTreeSet<crate::ids::TaskId>,
}

impl World {
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Fetch { from, tasks, .. } => self.fetches.push((from, tasks)),
                Effect::Execute(execution) => {
                    let all_here = execution.inputs.iter().all(|input| self.store.contains(input));
                    assert!(all_here, "{} runs without its inputs", execution.task);
                    self.executions.push((execution.task, execution.attempt));
                }
                Effect::Free { task } => {
                    self.store.remove(&task);
                }
                Effect::ToScheduler(_) | Effect::Abandon { .. } | Effect::Leave => {}
            }
        }
    }

    fn end_fetch(&mut self, env: &mut Env, which: usize, bits: u32) {
        if self.fetches.is_empty() {
            return;
        }
        let (from, tasks) = self.fetches.swap_remove(which % self.fetches.len());
        let arrives = |at: usize| bits >> (at % 32) & 1 == 1;
        let outcome: Vec<_> = tasks.iter().enumerate().map(|(at, task)| (*task, arrives(at).then_some(10))).collect();
        self.store.extend(outcome.iter().filter(|entry| entry.1.is_some()).map(|entry| entry.0));
        env.event(Event::Fetched { from, outcome });
    }

    fn end_execution(&mut self, env: &mut Env, which: usize, fails: bool) {
        if self.executions.is_empty() {
            return;
        }
        let (task, attempt) = self.executions.swap_remove(which % self.executions.len());
        if fails {
            env.failed(task.index, attempt.0);
        } else {
            self.store.insert(task);
            let outcome = Outcome::Stored { nbytes: 10, inline: None };
            env.event(Event::Executed { task, attempt, run_us: 1, outcome });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// `Env` checks the invariants after every event.
    #[test]
    fn whatever_happens_the_store_and_the_records_agree(steps in vec(step(), 0..80), nthreads in 1..3u32, fetches in 1..3usize) {
        let mut env = Env::with(nthreads, fetches, 25);
        let mut world = World::default();
        let cleanup = (0..1_000).map(|_| None);
        for step in steps.into_iter().map(Some).chain(cleanup) {
            match step {
                Some(Step::Compute(index, attempt, inputs)) => {
                    let inputs: Vec<_> = inputs.iter().filter(|input| input.0 != index).map(|(i, h)| (*i, h.as_slice())).collect();
                    env.compute_again(index, attempt, &inputs);
                }
                Some(Step::Cancel(index, attempt)) => env.cancel(index, attempt),
                Some(Step::Free(index)) => env.free(index),
                Some(Step::Gone(peer)) => env.gone(peer),
                Some(Step::Peer(peer)) => env.peer(peer),
                Some(Step::Stored(index)) => {
                    if env.worker.accepts(task(index)) {
                        world.store.insert(task(index));
                        env.stored(index);
                    }
                }
                Some(Step::SchedulerLost) => env.event(Event::SchedulerLost),
                Some(Step::EndFetch(which, bits)) => world.end_fetch(&mut env, which, bits),
                Some(Step::EndExecution(which, fails)) => world.end_execution(&mut env, which, fails),
                Some(Step::Nonsense(index)) => {
                    env.fetched(77, &[(index, Some(10))]);
                    env.failed(index, 1_000);
                }
                None if !world.fetches.is_empty() => world.end_fetch(&mut env, 0, u32::MAX),
                None => world.end_execution(&mut env, 0, false),
            }
            world.perform(env.take_effects());
        }
        prop_assert_eq!(env.worker.executing_len() + env.worker.fetches_len(), 0);
        let held: std::collections::BTreeSet<_> = env.worker.has_what().into_iter().map(|entry| entry.0).collect();
        prop_assert_eq!(held, world.store);
    }
}
