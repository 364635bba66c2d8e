//! What a seed stands for: how large the cluster is, how slow its links and nodes are, and what goes wrong.

use starling_core::spec::{Amount, Requirements, Resources};

use crate::rng::Rng;

/// The parameters of one simulated run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whether nothing fails: then nothing may be computed again either.
    pub is_calm: bool,
    /// How many nodes run workers.
    pub nodes: usize,
    /// What each node has of abstract resources.
    pub resources: Vec<Resources>,
    /// By how much each node takes longer than it should.
    pub slowness: Vec<u64>,
    /// How many threads each has at most.
    pub nthreads_max: u64,
    /// How many bytes of outputs a node stores; 0 for no limit.
    pub store_bytes_max: u64,
    /// How many clients connect at the start.
    pub clients: usize,
    /// How many things a client does before it waits for its results.
    pub actions: u64,
    /// The largest submission.
    pub tasks_max: u64,
    /// How many tasks the scheduler knows before further submissions wait; 0 for no limit.
    pub known_tasks_max: u64,
    /// How much work the scheduler gives a thread in advance, in microseconds.
    pub saturation_us: u64,
    /// Whether tasks are sent ahead of their inputs.
    pub sends_ahead: bool,
    /// Whether idle workers are given what waits at busy ones.
    pub steals: bool,
    /// The longest delay of a message, in microseconds.
    pub delay_max_us: u64,
    /// Of a thousand messages, how many are held up, and with them all that come behind.
    pub stalls: u64,
    /// Of a hundred messages that name an attempt, how many arrive twice.
    pub doubled: u64,
    /// The longest a task runs, in microseconds.
    pub run_max_us: u64,
    /// Of a hundred executions, how many take fifty times as long.
    pub long: u64,
    /// Of a hundred tasks, how many may run only for some milliseconds, which may or may not suffice.
    pub timed: u64,
    /// How much work a worker hands out before a thread is free, in microseconds of each thread's time.
    pub run_ahead_us: u64,
    /// Of a hundred tasks, how many take their inputs in part.
    pub parts: u64,
    /// Of a hundred executions, how many wait inside for a while, and have no slot then.
    pub waiting: u64,
    /// Of a hundred tasks, how many wait for another task that they have their client submit.
    pub nesting: u64,
    /// Of a hundred tasks, how many need something of their worker.
    pub demanding: u64,
    /// Of a hundred tasks, how many have copies of their outputs kept up.
    pub precious: u64,
    /// How many fetches at once.
    pub fetches_max: usize,
    /// How many bytes in one fetch.
    pub fetch_bytes_max: u64,
    /// After how many lost workers a task is given up.
    pub allowed_failures: u32,
    /// Of a hundred fetched outputs, how many are not delivered although they are there.
    pub fetch_failures: u64,
    /// Of a hundred tasks, how many always fail.
    pub failing: u64,
    /// How often a node's memory is short for a while.
    pub pauses: u64,
    /// How often a node wants to leave.
    pub leaves: u64,
    /// How often a node crashes.
    pub crashes: u64,
    /// How often a node loses its link to the scheduler and keeps running.
    pub link_losses: u64,
    /// How often a client disappears.
    pub client_losses: u64,
    /// How often a client loses its link and goes on with its job over another.
    pub client_link_losses: u64,
    /// How often the scheduler dies and another takes over.
    pub restarts: u64,
    /// Of a hundred requests of clients, how many are to keep something without them.
    pub keeping: u64,
    /// How often a machine's clock jumps ahead by minutes.
    pub clock_jumps: u64,
    /// Of a hundred times that a machine is told of, how many are minutes too early.
    pub clock_slips: u64,
    /// How often a peer says something that nobody asked it for.
    pub lies: u64,
}

impl Plan {
    /// The plan of a seed. A third of the seeds is calm, so that what goes wrong without faults is seen as that.
    pub fn new(rng: &mut Rng) -> Plan {
        let is_calm = rng.chance(33);
        let faults = |rng: &mut Rng, most: u64| if is_calm { 0 } else { rng.below(most + 1) };
        let nodes = rng.between(1, 6) as usize;
        let has_slow_ones = rng.chance(40);
        Plan {
            is_calm,
            nodes,
            resources: (0..nodes).map(|_| some_resources(rng)).collect(),
            slowness: (0..nodes).map(|_| if has_slow_ones && rng.chance(40) { 10 } else { 1 }).collect(),
            nthreads_max: rng.between(1, 4),
            store_bytes_max: if rng.chance(80) { 0 } else { rng.between(5_000_000, 60_000_000) },
            clients: rng.between(1, 3) as usize,
            actions: rng.between(1, 12),
            tasks_max: *rng.pick(&[3, 20, 60, 150]).unwrap_or(&20),
            known_tasks_max: *rng.pick(&[0, 0, 0, 10, 100]).unwrap_or(&0),
            saturation_us: *rng.pick(&[1, 10_000, 10_000, 100_000]).unwrap_or(&10_000),
            sends_ahead: rng.chance(85),
            steals: rng.chance(85),
            delay_max_us: *rng.pick(&[20, 300, 5_000]).unwrap_or(&300),
            stalls: *rng.pick(&[0, 0, 5, 50]).unwrap_or(&0),
            doubled: if rng.chance(60) { 0 } else { faults(rng, 30) },
            run_max_us: *rng.pick(&[1, 100, 20_000]).unwrap_or(&100),
            long: *rng.pick(&[0, 1, 5]).unwrap_or(&0),
            timed: *rng.pick(&[0, 0, 5, 20]).unwrap_or(&0),
            parts: *rng.pick(&[0, 20, 60]).unwrap_or(&0),
            run_ahead_us: *rng.pick(&[0, 500, 50_000]).unwrap_or(&0),
            waiting: *rng.pick(&[0, 5, 50]).unwrap_or(&0),
            nesting: *rng.pick(&[0, 0, 3, 10]).unwrap_or(&0),
            demanding: *rng.pick(&[0, 0, 10, 50]).unwrap_or(&0),
            precious: *rng.pick(&[0, 0, 10, 60]).unwrap_or(&0),
            fetches_max: rng.between(1, 4) as usize,
            fetch_bytes_max: *rng.pick(&[1, 5_000_000, 50_000_000]).unwrap_or(&5_000_000),
            allowed_failures: if rng.chance(30) { 1 } else { 1_000 },
            fetch_failures: if rng.chance(50) { 0 } else { faults(rng, 25) },
            failing: *rng.pick(&[0, 0, 3, 15]).unwrap_or(&0),
            pauses: if rng.chance(50) { 0 } else { rng.below(5) },
            leaves: if rng.chance(50) { 0 } else { rng.below(4) },
            crashes: faults(rng, 5),
            link_losses: faults(rng, 5),
            client_losses: faults(rng, 1),
            client_link_losses: if rng.chance(50) { 0 } else { faults(rng, 3) },
            restarts: if rng.chance(50) { 0 } else { faults(rng, 4) },
            keeping: if rng.chance(60) { 0 } else { 60 },
            clock_jumps: if rng.chance(70) { 0 } else { faults(rng, 4) },
            clock_slips: if rng.chance(70) { 0 } else { faults(rng, 20) },
            lies: if rng.chance(60) { 0 } else { faults(rng, 20) },
        }
    }

    /// Whether some node may run a task of these requirements once every node is there.
    pub fn can_be_met(&self, requirements: &Requirements) -> bool {
        let has_all = |node: usize| has_resources(&self.resources[node], requirements);
        let may_run = |node: usize| {
            requirements.workers.is_empty()
                || requirements.allow_other_workers
                || names(node as u8).iter().any(|name| requirements.workers.contains(name))
        };
        (0..self.nodes).any(|node| has_all(node) && may_run(node))
    }
}

/// Whether somebody who has this has what is required.
pub fn has_resources(resources: &Resources, requirements: &Requirements) -> bool {
    let has = |name: &String| resources.get(name).copied().unwrap_or_default();
    requirements.resources.iter().all(|(name, needed)| has(name) >= *needed)
}

/// What a task may call a node: its name, its host, which it shares with another, and the beginning of its id.
pub fn names(number: u8) -> [String; 3] {
    [format!("node-{number}"), format!("host-{}", number / 2), format!("{number:02x}").repeat(3)]
}

fn some_resources(rng: &mut Rng) -> Resources {
    let mut resources = Resources::new();
    for name in ["gpu", "licence"] {
        if rng.chance(60) {
            resources.insert(name.to_owned(), Amount(rng.between(1, 6) * 500));
        }
    }
    resources
}

/// What a task needs: mostly what some node has.
pub fn some_requirements(nodes: usize, rng: &mut Rng) -> Requirements {
    let mut requirements = Requirements::default();
    if rng.chance(60) {
        for name in ["gpu", "licence"] {
            if rng.chance(60) {
                requirements.resources.insert(name.to_owned(), Amount(rng.between(1, 3) * 500));
            }
        }
    }
    if rng.chance(50) {
        for _ in 0..rng.between(1, 2) {
            // Sometimes a node that there is not.
            let number = rng.below(nodes as u64 + 1) as u8;
            requirements.workers.extend(rng.pick(&names(number)).cloned());
        }
        requirements.allow_other_workers = rng.chance(50);
    }
    requirements
}
