//! A queue of ready tasks in order of priority.
//!
//! Most tasks arrive in order (a submission numbers them so), and then adding and taking cost a few nanoseconds however
//! long the queue is; the others go to a heap beside it. An entry whose task has left the state that the queue stands
//! for is dropped when it comes to the front, or when such entries are the most.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::ids::TaskId;
use crate::wire::Priority;

/// Stale entries are not weeded out of a queue shorter than this.
const COMPACTED_MIN: usize = 64;

type Entry = (Priority, TaskId);

/// Ready tasks in order of priority, the lowest first.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    /// Ascending.
    run: VecDeque<Entry>,
    /// Those that came when a later one was already in the run.
    late: BinaryHeap<Reverse<Entry>>,
    /// How many tasks are in the queue: at most the number of entries.
    live: usize,
}

impl ReadyQueue {
    /// How many tasks wait here.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(super) fn push(&mut self, priority: Priority, task: TaskId) {
        let entry = (priority, task);
        match self.run.back() {
            Some(last) if *last > entry => self.late.push(Reverse(entry)),
            _ => self.run.push_back(entry),
        }
        self.live += 1;
    }

    /// A task has left the queue otherwise than through `pop`. Its entry stays until it is met, or until such entries
    /// are the most.
    pub(super) fn forget_one(&mut self, is_queued: impl Fn(TaskId) -> bool) {
        self.live = self.live.saturating_sub(1);
        if self.run.len() + self.late.len() > COMPACTED_MIN + 2 * self.live {
            self.compact(is_queued);
        }
    }

    /// The first task, which stays.
    pub(super) fn peek(&mut self, is_queued: impl Fn(TaskId) -> bool) -> Option<Entry> {
        loop {
            let from_run = match (self.run.front(), self.late.peek()) {
                (Some(run), Some(Reverse(late))) => run <= late,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return None,
            };
            let entry = if from_run { self.run.front().copied() } else { self.late.peek().map(|entry| entry.0) }?;
            if is_queued(entry.1) {
                return Some(entry);
            }
            self.pop_front(from_run);
        }
    }

    /// The first task, without weeding out what has left the queue.
    pub(super) fn first(&self, is_queued: impl Fn(TaskId) -> bool) -> Option<TaskId> {
        let in_run = self.run.iter().copied().find(|entry| is_queued(entry.1));
        let late = self.late.iter().map(|entry| entry.0).filter(|entry| is_queued(entry.1)).min();
        in_run.into_iter().chain(late).min().map(|entry| entry.1)
    }

    /// Takes the first task. The caller puts it into another state at once.
    pub(super) fn pop(&mut self, is_queued: impl Fn(TaskId) -> bool) -> Option<Entry> {
        let entry = self.peek(is_queued)?;
        let from_run = self.run.front() == Some(&entry);
        self.pop_front(from_run);
        self.live = self.live.saturating_sub(1);
        if self.live == 0 {
            // What is left is stale; a queue that once was long gives its memory back.
            self.run.clear();
            self.late.clear();
            if self.run.capacity() > 1024 {
                self.run = VecDeque::new();
            }
        }
        Some(entry)
    }

    /// Empties the queue: the tasks that were in it, in order.
    pub(super) fn drain(&mut self, is_queued: impl Fn(TaskId) -> bool) -> Vec<TaskId> {
        self.compact(is_queued);
        self.live = 0;
        std::mem::take(&mut self.run).into_iter().map(|entry| entry.1).collect()
    }

    fn pop_front(&mut self, from_run: bool) {
        if from_run {
            self.run.pop_front();
        } else {
            self.late.pop();
        }
    }

    fn compact(&mut self, is_queued: impl Fn(TaskId) -> bool) {
        let late = std::mem::take(&mut self.late).into_iter().map(|entry| entry.0);
        let mut entries: Vec<Entry> = std::mem::take(&mut self.run).into_iter().chain(late).collect();
        entries.retain(|entry| is_queued(entry.1));
        entries.sort_unstable();
        entries.dedup();
        self.run = entries.into();
    }

    /// Whether `task` has an entry. Slow: for checks.
    pub(super) fn contains(&self, priority: Priority, task: TaskId) -> bool {
        self.run.binary_search(&(priority, task)).is_ok() || self.late.iter().any(|entry| entry.0.1 == task)
    }
}
