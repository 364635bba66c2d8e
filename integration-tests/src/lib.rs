//! What the integration tests share: tasks, clusters of real processes, and hosts in network namespaces.

pub mod hosts;
pub mod processes;
pub mod tasks;

/// Keeps the tests' tasks in a binary that calls this.
pub fn link() {
    std::hint::black_box(tasks::add);
}
