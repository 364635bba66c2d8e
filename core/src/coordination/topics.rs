//! Topics: for each, its last events.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::ask::Logged;
use super::state::ENTRY_BYTES;
use super::{TOPIC_BYTES_MAX, TOPIC_EVENTS_MAX, TOPICS_MAX};

/// How many events, and about how many bytes of them, are given at a time.
const GIVEN_EVENTS_MAX: usize = 256;
const GIVEN_BYTES_MAX: usize = 256 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Topics {
    topics: BTreeMap<String, Topic>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Topic {
    /// The number of the last event.
    last: u64,
    /// In the order of their numbers, which have no gaps.
    events: VecDeque<Logged>,
    nbytes: u64,
}

fn cost(value: &str) -> u64 {
    ENTRY_BYTES + value.len() as u64
}

impl Topics {
    #[cfg(test)]
    pub(super) fn nbytes(&self) -> u64 {
        self.topics.iter().map(|(name, topic)| cost(name) + topic.nbytes).sum()
    }

    /// Whether there is a topic of this name, or may be.
    pub(super) fn has_room_for(&self, name: &str) -> bool {
        self.topics.len() < TOPICS_MAX || self.topics.contains_key(name)
    }

    /// How many more bytes there are with one more event, before older ones go.
    pub(super) fn cost_of(&self, name: &str, value: &str) -> u64 {
        cost(value) + if self.topics.contains_key(name) { 0 } else { cost(name) }
    }

    /// Adds an event. Gives its number, and the bytes of older ones that went.
    pub(super) fn log(&mut self, name: &str, at_unix_ms: u64, value: String) -> (u64, u64) {
        let topic = self.topics.entry(name.to_owned()).or_default();
        topic.last += 1;
        topic.nbytes += cost(&value);
        topic.events.push_back(Logged { number: topic.last, at_unix_ms, value });
        let mut freed = 0;
        while topic.events.len() > TOPIC_EVENTS_MAX || topic.nbytes > TOPIC_BYTES_MAX {
            let Some(oldest) = topic.events.pop_front() else { break };
            let gone = cost(&oldest.value);
            topic.nbytes -= gone;
            freed += gone;
        }
        (topic.last, freed)
    }

    pub(super) fn last(&self, name: &str) -> u64 {
        self.topics.get(name).map_or(0, |topic| topic.last)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    /// The first of the events after the one of this number.
    pub(super) fn after(&self, name: &str, after: u64) -> Vec<Logged> {
        let Some(topic) = self.topics.get(name) else { return Vec::new() };
        let first = topic.events.partition_point(|event| event.number <= after);
        let mut nbytes = 0;
        let events = topic.events.range(first..).take(GIVEN_EVENTS_MAX).take_while(|event| {
            let has_room = nbytes < GIVEN_BYTES_MAX;
            nbytes += event.value.len();
            has_room
        });
        events.cloned().collect()
    }
}
