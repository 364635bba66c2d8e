use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::env::{Env, assignment, needs, part_of_8, task};
use crate::failure::FailureCause;
use crate::ids::{Attempt, TaskId, WorkerId};
use crate::wire::{Assignment, FromWorker, Inventory};
use crate::worker::{Effect, Event, Execution, Outcome};

/// What the scheduler, the peers and the threads do, in any order. Fetches and executions end as they must: each that
/// was begun ends once, and what the threads are asked is answered.
#[derive(Clone, Debug)]
enum Step {
    Compute(u32, u32, Vec<(u32, Vec<u32>)>),
    Cancel(u32, u32),
    Steal(u32, u32),
    Acquire(u32, Vec<u32>),
    Free(u32),
    Gone(u32),
    Peer(u32),
    Stored(u32),
    NoRoom(u32),
    SchedulerLost,
    Registered,
    Pause(bool),
    Tick(u64),
    /// One of the fetches under way ends, with what is in the bits.
    EndFetch(usize, u32),
    /// One of the executions that have begun ends.
    EndExecution(usize, bool),
    /// One of the executions that have begun waits inside, or goes on.
    Wait(usize),
    /// The threads do what they were asked: let go of a task unless it has just ended, or give back what has not begun.
    Answer(usize, bool),
    /// Something ends that was never begun.
    Nonsense(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let inputs = vec((0..8u32, vec(0..5u32, 0..3)), 0..4);
    prop_oneof![
        8 => (0..8u32, 1..5u32, inputs).prop_map(|(index, attempt, inputs)| Step::Compute(index, attempt, inputs)),
        3 => (0..8u32, 1..5u32).prop_map(|(index, attempt)| Step::Cancel(index, attempt)),
        3 => (0..8u32, 1..5u32).prop_map(|(index, attempt)| Step::Steal(index, attempt)),
        3 => (0..8u32, vec(0..5u32, 0..3)).prop_map(|(index, holders)| Step::Acquire(index, holders)),
        3 => (0..8u32).prop_map(Step::Free),
        1 => (0..5u32).prop_map(Step::Gone),
        1 => (0..5u32).prop_map(Step::Peer),
        1 => (0..8u32).prop_map(Step::Stored),
        1 => (0..8u32).prop_map(Step::NoRoom),
        1 => Just(Step::SchedulerLost),
        2 => Just(Step::Registered),
        2 => any::<bool>().prop_map(Step::Pause),
        2 => (0..3_000u64).prop_map(Step::Tick),
        5 => (any::<usize>(), any::<u32>()).prop_map(|(which, bits)| Step::EndFetch(which, bits)),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(which, fails)| Step::EndExecution(which, fails)),
        3 => any::<usize>().prop_map(Step::Wait),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, bit)| Step::Answer(which, bit)),
        1 => (0..8u32).prop_map(Step::Nonsense),
    ]
}

/// Some tasks may run for a millisecond only, some take one of the worker's two `gpu`, some take their inputs in part.
fn limited(index: u32, attempt: u32, inputs: &[(u32, &[u32])]) -> Assignment {
    let mut assignment = Assignment { attempt: Attempt(attempt), ..assignment(index, inputs) };
    assignment.timeout_ms = u32::from(index % 4 == 1);
    assignment.requirements = (index % 4 == 2).then(|| Arc::new(needs("gpu", 1)));
    assignment.part = (index >= 4).then(|| part_of_8(index % 2, attempt % 2));
    assignment
}

#[derive(Debug)]
enum Ask {
    TakeBack(TaskId, Attempt),
    Abandon(TaskId, Attempt),
}

#[derive(Debug)]
struct OnThread {
    task: TaskId,
    attempt: Attempt,
    is_suspended: bool,
}

#[derive(Default)]
struct World {
    nthreads: usize,
    fetches: Vec<(WorkerId, Vec<TaskId>)>,
    queue: Vec<Execution>,
    threads: Vec<OnThread>,
    asks: Vec<Ask>,
    /// How many answers to acquisitions are owed: at most one for each output.
    acquired: BTreeMap<TaskId, u32>,
    /// What the store holds: must be what the machine believes, once nothing is under way.
    store: BTreeSet<TaskId>,
    has_scheduler: bool,
    /// What the scheduler, or the one before, was told to be here and has not freed: the next one must hear of it.
    told: BTreeSet<TaskId>,
}

impl World {
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Fetch { from, tasks, .. } => self.fetches.push((from, tasks)),
                Effect::Execute(execution) => self.queue.push(execution),
                Effect::Free { task } => {
                    self.store.remove(&task);
                }
                Effect::ToScheduler(message) | Effect::ToSchedulerSoon(message) => self.hear(message),
                Effect::TakeBack { task, attempt } => self.asks.push(Ask::TakeBack(task, attempt)),
                Effect::Abandon { task, attempt } => self.asks.push(Ask::Abandon(task, attempt)),
                Effect::Leave => {}
            }
        }
        while !self.queue.is_empty() && self.threads.iter().filter(|it| !it.is_suspended).count() < self.nthreads {
            let execution = self.queue.remove(0);
            let (task, attempt) = (execution.task, execution.attempt);
            let all_here = execution.inputs.iter().all(|input| self.store.contains(input));
            assert!(all_here, "{task} runs without its inputs");
            self.threads.push(OnThread { task, attempt, is_suspended: false });
        }
    }

    fn hear(&mut self, message: FromWorker) {
        assert!(self.has_scheduler, "{message:?} is said to nobody");
        match message {
            FromWorker::Replica { task, .. } => {
                self.acquired.remove(&task);
                self.told.insert(task);
            }
            FromWorker::NotAcquired { task } => drop(self.acquired.remove(&task)),
            FromWorker::Finished { task, .. } => drop(self.told.insert(task)),
            FromWorker::Inventory(inventory) => self.check_inventory(&inventory),
            _ => {}
        }
    }

    /// With so few tasks there is one piece.
    fn check_inventory(&mut self, inventory: &Inventory) {
        let outputs: BTreeSet<TaskId> = inventory.outputs.iter().map(|output| output.0).collect();
        let running: BTreeSet<TaskId> = inventory.running.iter().map(|running| running.task).collect();
        assert!(inventory.is_last && outputs.is_disjoint(&running), "{inventory:?}");
        assert!(outputs.is_subset(&self.store), "{inventory:?} is not here");
        for it in &inventory.running {
            let is_waiting = |on: &OnThread| on.task == it.task && on.is_suspended == it.is_suspended;
            let is_queued = !it.is_suspended && self.queue.iter().any(|queued| queued.task == it.task);
            assert!(is_queued || self.threads.iter().any(is_waiting), "{it:?} does not run");
        }
        let untold = self.told.iter().find(|task| !outputs.contains(*task) && !running.contains(*task));
        assert_eq!(untold, None, "{inventory:?} lacks something");
        self.told.extend(outputs);
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
        if self.threads.is_empty() {
            return;
        }
        let OnThread { task, attempt, .. } = self.threads.swap_remove(which % self.threads.len());
        self.say_executed(env, task, attempt, fails);
    }

    fn say_executed(&mut self, env: &mut Env, task: TaskId, attempt: Attempt, fails: bool) {
        let outcome = if fails {
            Outcome::Failed { name: "work".into(), cause: FailureCause::UnknownKind }
        } else {
            self.store.insert(task);
            Outcome::Stored { nbytes: 10, inline: None }
        };
        env.event(Event::Executed { task, attempt, run_us: 1, outcome });
    }

    fn wait(&mut self, env: &mut Env, which: usize) {
        if self.threads.is_empty() {
            return;
        }
        let at = which % self.threads.len();
        let thread = &mut self.threads[at];
        thread.is_suspended = !thread.is_suspended;
        let (task, attempt) = (thread.task, thread.attempt);
        let waits = thread.is_suspended;
        env.event(if waits { Event::Suspended { task, attempt } } else { Event::Resumed { task, attempt } });
    }

    fn answer(&mut self, env: &mut Env, which: usize, has_ended: bool) {
        if self.asks.is_empty() {
            return;
        }
        match self.asks.remove(which % self.asks.len()) {
            Ask::TakeBack(task, attempt) => {
                let at = self.queue.iter().position(|it| it.task == task && it.attempt == attempt);
                let execution = at.map(|at| self.queue.remove(at));
                env.event(Event::TakenBack { task, attempt, execution });
            }
            Ask::Abandon(task, attempt) => {
                if let Some(at) = self.threads.iter().position(|it| it.task == task && it.attempt == attempt) {
                    self.threads.remove(at);
                    self.say_executed(env, task, attempt, !has_ended);
                }
            }
        }
    }

    fn step(&mut self, env: &mut Env, step: Step) {
        match step {
            Step::Compute(index, attempt, inputs) => {
                let inputs = inputs.iter().filter(|input| input.0 != index);
                let inputs: Vec<_> = inputs.map(|(input, holders)| (*input, holders.as_slice())).collect();
                env.assign(limited(index, attempt, &inputs));
            }
            Step::Cancel(index, attempt) => env.cancel(index, attempt),
            Step::Steal(index, attempt) => env.steal(index, attempt),
            Step::Acquire(index, holders) => {
                if self.has_scheduler {
                    self.acquired.insert(task(index), 1);
                }
                env.acquire(&[(index, &holders)]);
            }
            Step::Free(index) => {
                if self.has_scheduler {
                    self.told.remove(&task(index));
                }
                env.free(index);
            }
            Step::Gone(peer) => env.gone(peer),
            Step::Peer(peer) => env.peer(peer),
            Step::Stored(index) => {
                if env.worker.accepts(task(index)) {
                    self.store.insert(task(index));
                    self.told.insert(task(index));
                    env.stored(index);
                }
            }
            Step::NoRoom(index) => {
                for task in [task(index), task(index).part(index % 2)] {
                    env.event(Event::NoRoom { task, message: "full".into() });
                }
            }
            Step::SchedulerLost => {
                self.acquired.clear();
                self.has_scheduler = false;
                env.event(Event::SchedulerLost);
            }
            Step::Registered => {
                self.acquired.clear();
                self.has_scheduler = true;
                env.event(Event::Registered);
            }
            Step::Pause(paused) => env.pause(paused),
            Step::Tick(micros) => env.tick(micros),
            Step::EndFetch(which, bits) => self.end_fetch(env, which, bits),
            Step::EndExecution(which, fails) => self.end_execution(env, which, fails),
            Step::Wait(which) => self.wait(env, which),
            Step::Answer(which, bit) => self.answer(env, which, bit),
            Step::Nonsense(index) => {
                env.fetched(77, &[(index, Some(10))]);
                env.fetched_parts(77, &[(index, 0, Some(10))]);
                env.failed(index, 1_000);
                for (task, attempt) in [(task(index), Attempt(1_000)), (task(99), Attempt(1))] {
                    env.event(Event::Suspended { task, attempt });
                    env.event(Event::Resumed { task, attempt });
                    env.event(Event::TakenBack { task, attempt, execution: None });
                }
            }
        }
        self.perform(env.take_effects());
    }

    /// Everything is cancelled, and everything under way ends.
    fn settle(&mut self, env: &mut Env) {
        if !self.has_scheduler {
            self.step(env, Step::Registered);
        }
        self.step(env, Step::Pause(false));
        for (index, attempt) in (0..8).flat_map(|index| (1..5).map(move |attempt| (index, attempt))) {
            self.step(env, Step::Cancel(index, attempt));
        }
        while self.fetches.len() + self.queue.len() + self.threads.len() + self.asks.len() > 0 {
            self.step(env, Step::Answer(0, true));
            self.step(env, Step::EndFetch(0, u32::MAX));
            self.step(env, Step::EndExecution(0, false));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// `Env` checks the invariants after every event.
    #[test]
    fn whatever_happens_the_store_and_the_records_agree(
        steps in vec(step(), 0..80),
        nthreads in 1..3u32,
        fetches in 1..3usize,
        ahead in prop_oneof![Just(0), Just(3)],
    ) {
        let mut env = Env::with(nthreads, fetches, 25);
        env.run_ahead(ahead);
        let mut world = World { nthreads: nthreads as usize, has_scheduler: true, ..World::default() };
        for step in steps {
            world.step(&mut env, step);
        }
        world.settle(&mut env);
        prop_assert_eq!(env.worker.executing_len() + env.worker.fetches_len() + env.worker.assignments_len(), 0);
        prop_assert_eq!(&world.acquired, &BTreeMap::new(), "unanswered");
        let held: BTreeSet<_> = env.worker.has_what().into_iter().map(|entry| entry.0).collect();
        prop_assert_eq!(&held, &world.store);
        prop_assert_eq!(env.worker.parts_len(), 0);
        prop_assert_eq!(&held, &world.told, "a scheduler could not have freed it");
        (0..8).for_each(|index| world.step(&mut env, Step::Free(index)));
        prop_assert_eq!(&world.store, &BTreeSet::new());
    }
}
