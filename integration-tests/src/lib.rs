//! What the integration tests share: tasks, and clusters of real processes.

pub mod processes;
pub mod tasks;

/// Keeps the tests' tasks in a binary that calls this.
pub fn link() {
    std::hint::black_box(tasks::add);
}
