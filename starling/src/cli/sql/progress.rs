//! The line that tells how far a query is, on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use starling_collections::frame::{Frames, QueryProgress};
use tokio::task::JoinHandle;

const INTERVAL: Duration = Duration::from_millis(100);

/// A line that is rewritten while a query runs, and is gone with the value.
#[derive(Debug)]
pub(super) struct ProgressLine {
    state: Arc<Mutex<State>>,
    task: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hidden,
    Shown,
    Ended,
}

impl ProgressLine {
    /// Shows the query that is about to begin, if standard error is a terminal and `is_wanted`.
    pub(super) fn start(frames: &Frames, is_wanted: bool) -> ProgressLine {
        let state = Arc::new(Mutex::new(State::Hidden));
        if !is_wanted || !std::io::stderr().is_terminal() {
            return ProgressLine { state, task: None };
        }
        let (mut progress, started, shared) = (frames.progress(), Instant::now(), Arc::clone(&state));
        let task = tokio::spawn(async move {
            // What the last query has left there is not this one's.
            if progress.changed().await.is_err() {
                return;
            }
            while show(&shared, &line(&progress.borrow_and_update(), started.elapsed())) {
                tokio::time::sleep(INTERVAL).await;
            }
        });
        ProgressLine { state, task: Some(task) }
    }

    /// Takes the line away for good: rows follow.
    pub(super) fn end(&mut self) {
        let Some(task) = self.task.take() else { return };
        task.abort();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Shown {
            erase_and_write("");
        }
        *state = State::Ended;
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether the line is still wanted.
fn show(state: &Mutex<State>, line: &str) -> bool {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if *state == State::Ended {
        return false;
    }
    *state = State::Shown;
    erase_and_write(line);
    true
}

fn erase_and_write(line: &str) {
    let mut stderr = std::io::stderr().lock();
    // A closed terminal is no reason to stop a query.
    let _ = write!(stderr, "\r\x1b[K{line}");
    let _ = stderr.flush();
}

fn line(progress: &QueryProgress, elapsed: Duration) -> String {
    let (done, all) = progress.tasks();
    let (stages_done, stages) = (progress.stages_done(), progress.stages.len());
    format!("stages {stages_done}/{stages}  tasks {done}/{all}  {:.1} s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use starling_collections::frame::StageProgress;

    use super::*;

    #[test]
    fn the_line_counts_stages_and_tasks() {
        let stages = vec![
            StageProgress { stage: 0, tasks: 40, done: 40 },
            StageProgress { stage: 1, tasks: 56, done: 1 },
            StageProgress { stage: 2, tasks: 1, done: 0 },
        ];
        let line = line(&QueryProgress { stages }, Duration::from_millis(1_234));
        assert_eq!(line, "stages 1/3  tasks 41/97  1.2 s");
    }
}
