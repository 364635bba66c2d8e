//! What a seed stands for: how large the cluster is, how slow its links are, and what goes wrong.

use crate::rng::Rng;

/// The parameters of one simulated run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes run workers.
    pub nodes: usize,
    /// How many threads each has at most.
    pub nthreads_max: u64,
    /// How many clients connect at the start.
    pub clients: usize,
    /// How many things a client does before it waits for its results.
    pub actions: u64,
    /// The largest submission.
    pub tasks_max: u64,
    /// The longest delay of a message, in microseconds.
    pub delay_max_us: u64,
    /// The longest a task runs, in microseconds.
    pub run_max_us: u64,
    /// How much work a worker hands out before a thread is free, in microseconds of each thread's time.
    pub run_ahead_us: u64,
    /// Of a hundred tasks, how many wait inside for a while, and have no slot then.
    pub waiting: u64,
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
    /// How often a node crashes.
    pub crashes: u64,
    /// How often a node loses its link to the scheduler and keeps running.
    pub link_losses: u64,
    /// How often a client disappears.
    pub client_losses: u64,
    /// How often the scheduler starts anew and knows nothing, ids included.
    pub restarts: u64,
    /// How often a worker is short of memory and pauses for a while.
    pub pauses: u64,
    /// How often a peer says something that nobody asked it for.
    pub lies: u64,
}

impl Plan {
    /// The plan of a seed. A third of the seeds is calm, so that what goes wrong without faults is seen as that.
    pub fn new(rng: &mut Rng) -> Plan {
        let is_calm = rng.chance(33);
        let faults = |rng: &mut Rng, most: u64| if is_calm { 0 } else { rng.below(most + 1) };
        Plan {
            nodes: rng.between(1, 6) as usize,
            nthreads_max: rng.between(1, 4),
            clients: rng.between(1, 3) as usize,
            actions: rng.between(1, 12),
            tasks_max: *rng.pick(&[3, 20, 60, 200]).unwrap_or(&20),
            delay_max_us: *rng.pick(&[20, 300, 5_000]).unwrap_or(&300),
            run_max_us: *rng.pick(&[1, 100, 20_000]).unwrap_or(&100),
            fetches_max: rng.between(1, 4) as usize,
            fetch_bytes_max: *rng.pick(&[1, 5_000_000, 50_000_000]).unwrap_or(&5_000_000),
            allowed_failures: if rng.chance(30) { 1 } else { 1_000 },
            fetch_failures: if rng.chance(50) { 0 } else { faults(rng, 25) },
            failing: *rng.pick(&[0, 0, 3, 15]).unwrap_or(&0),
            crashes: faults(rng, 5),
            link_losses: faults(rng, 5),
            client_losses: faults(rng, 1),
            restarts: if rng.chance(70) { 0 } else { faults(rng, 2) },
            lies: if rng.chance(60) { 0 } else { faults(rng, 20) },
            pauses: if rng.chance(50) { 0 } else { faults(rng, 10) },
            run_ahead_us: *rng.pick(&[0, 500, 50_000]).unwrap_or(&0),
            waiting: *rng.pick(&[0, 5, 50]).unwrap_or(&0),
        }
    }
}
