//! A job that goes on over another link.

use std::collections::HashSet;

use bytes::Bytes;
use starling_core::failure::TaskFailure;
use starling_core::fixed::FixedMap;
use starling_core::ids::TaskId;
use starling_core::wire::{FromClient, ResultAt, ToClient};
use starling_runtime::task::ClientError;

use super::sending::Queued;
use super::{Client, IDS_MAX, State, UNSENT_FROM};

impl Client {
    /// What is to be said first over a new link on which the job was resumed, after what the scheduler has said on it.
    pub(crate) fn resume(&self, early: Vec<ToClient>) -> Vec<FromClient> {
        let messages = {
            let mut state = self.lock();
            // Other workers may have these ids now.
            state.workers.clear();
            state.forget_places();
            let mut messages = state.say_again(self.job);
            messages.extend(state.detach_again());
            messages.extend(state.watch_again());
            state.ask_again();
            messages
        };
        self.handle(early);
        messages
    }

    /// Drops what need not be said again, if much has gathered.
    pub(super) fn tidy(&self) {
        let mut state = self.lock();
        if state.open_graph.has_grown() {
            let inputs = state.inputs_of_queued();
            let State { open_graph, tasks, .. } = &mut *state;
            open_graph.drop_unneeded(self.job, |index| tasks.contains_key(&index) || inputs.contains(&index));
        }
    }
}

impl State {
    /// This frame was sent, or will be said again. With it, all numbers below `end` have been said.
    pub(super) fn has_said(&mut self, frame: Bytes, end: u32) {
        self.said = end;
        self.open_graph.push(frame);
    }

    /// These tasks are given up.
    pub(super) fn give_up(&mut self, tasks: impl Iterator<Item = u32>) {
        for index in tasks {
            if self.tasks.get(&index).is_some_and(|entry| entry.outcome.is_none()) {
                self.cancelled.insert(index);
            }
        }
    }

    /// Where outputs are will be said again.
    fn forget_places(&mut self) {
        let watched = self.watched.values_mut().map(|watched| &mut watched.entry);
        for entry in self.tasks.values_mut().chain(watched) {
            if matches!(entry.outcome, Some(Ok(ResultAt::Workers(_)))) {
                entry.outcome = None;
            }
        }
    }

    /// What the job consists of, and what of it is given up.
    fn say_again(&mut self, job: starling_core::ids::JobId) -> Vec<FromClient> {
        let inputs = self.inputs_of_queued();
        let failures: FixedMap<u32, TaskFailure> = self
            .tasks
            .iter()
            .filter_map(|(index, entry)| match entry.outcome.as_ref()?.as_ref().err()?.as_ref() {
                ClientError::Failed(failure) if *index < UNSENT_FROM => Some((*index, failure.clone())),
                _ => None,
            })
            .collect();
        let (tasks, forgotten) = (&self.tasks, &self.forgotten);
        let is_held = |index: u32| tasks.contains_key(&index) && !forgotten.contains(&index) || inputs.contains(&index);
        let mut messages = self.open_graph.restore(job, self.said, self.next_token + 1, is_held, &failures);
        self.next_token += messages.len() as u64;
        self.restoring = messages
            .iter()
            .filter_map(|message| match message {
                FromClient::Restore { token, .. } => Some(*token),
                _ => None,
            })
            .collect();
        let cancelled: Vec<TaskId> = self.cancelled.iter().map(|index| TaskId::new(job, *index)).collect();
        messages.extend(cancelled.chunks(IDS_MAX).map(|tasks| FromClient::Cancel { tasks: tasks.to_vec() }));
        messages
    }

    /// What was asked and not answered is asked again, after all that is queued.
    fn ask_again(&mut self) {
        let is_question = |queued: &Queued| match queued {
            Queued::Message(message) => self.answers.values().any(|question| question.message == *message),
            _ => false,
        };
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|queued| !is_question(queued));
        queue.extend(self.answers.values().map(|question| Queued::Message(question.message.clone())));
        self.queue = queue;
    }

    fn inputs_of_queued(&self) -> HashSet<u32> {
        let specs = self.queue.iter().filter_map(|queued| match queued {
            Queued::Task(spec) => Some(spec),
            _ => None,
        });
        specs.flat_map(|spec| spec.inputs.iter().copied()).collect()
    }
}
