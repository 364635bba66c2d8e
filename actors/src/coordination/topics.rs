//! Topics: events that are logged, listed and listened to.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, SystemTime};

use futures::Stream;
use serde::Serialize;
use starling_core::coordination::{Ask, Change, Logged, Outcome, Read};

use super::CoordinationError;
use super::metadata::no_json;
use super::queue::count;
use crate::cluster::Cluster;

/// An event of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedEvent {
    /// Its number in its topic: they count from 1, without gaps.
    pub number: u64,
    /// When it was logged, by the clock of the node that held the scheduler.
    pub at: SystemTime,
    /// What was logged.
    pub value: serde_json::Value,
}

impl LoggedEvent {
    fn of(logged: Logged) -> Result<LoggedEvent, CoordinationError> {
        let value = serde_json::from_str(&logged.value).map_err(|error| no_json(&error))?;
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(logged.at_unix_ms);
        Ok(LoggedEvent { number: logged.number, at, value })
    }
}

pub(crate) async fn log_event(
    cluster: &Cluster,
    topic: String,
    value: &(impl Serialize + ?Sized),
) -> Result<u64, CoordinationError> {
    let value = serde_json::to_string(value).map_err(|error| no_json(&error))?;
    let log = Change::Log { topic, at_unix_ms: 0, value };
    Ok(count(&cluster.coordination()?.ask(Ask::Change(log), None).await?))
}

pub(crate) async fn events(cluster: &Cluster, topic: String) -> Result<Vec<LoggedEvent>, CoordinationError> {
    let mut events: Vec<LoggedEvent> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.number);
        let more = after_number(cluster, &topic, after, Some(Duration::ZERO)).await?;
        if more.is_empty() {
            return Ok(events);
        }
        events.extend(more);
    }
}

pub(crate) async fn topics(cluster: &Cluster) -> Result<Vec<String>, CoordinationError> {
    match cluster.coordination()?.ask(Ask::Read(Read::Topics), None).await? {
        Outcome::Names(names) => Ok(names),
        _ => Ok(Vec::new()),
    }
}

pub(crate) async fn subscribe(
    cluster: &Cluster,
    topic: String,
    after: Option<u64>,
) -> Result<Subscription, CoordinationError> {
    let after = match after {
        Some(after) => after,
        None => count(&cluster.coordination()?.ask(Ask::Read(Read::LastEvent(topic.clone())), None).await?),
    };
    Ok(Subscription { cluster: cluster.clone(), topic, after, events: VecDeque::new() })
}

async fn after_number(
    cluster: &Cluster,
    topic: &str,
    after: u64,
    wait: Option<Duration>,
) -> Result<Vec<LoggedEvent>, CoordinationError> {
    let read = Ask::Read(Read::Events { topic: topic.to_owned(), after });
    match cluster.coordination()?.ask(read, wait).await? {
        Outcome::Events(events) => events.into_iter().map(LoggedEvent::of).collect(),
        _ => Ok(Vec::new()),
    }
}

/// The events of a topic as they come: [`Cluster::subscribe`]. It asks for more when it has given what it has, so that one who takes
/// them slowly holds nobody up. A fail-over loses none; but a topic keeps its last thousand events only, so that one who is
/// further behind misses some, and sees that by their numbers.
pub struct Subscription {
    cluster: Cluster,
    topic: String,
    /// The number of the last event that has come here.
    after: u64,
    events: VecDeque<LoggedEvent>,
}

impl Subscription {
    /// The next event, once there is one. Dropping this before it resolves loses none.
    ///
    /// # Errors
    /// [`CoordinationError`]; the next call tries again.
    pub async fn next(&mut self) -> Result<LoggedEvent, CoordinationError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let events = after_number(&self.cluster, &self.topic, self.after, None).await?;
            self.after = events.last().map_or(self.after, |event| event.number);
            self.events.extend(events);
        }
    }

    /// The same as a stream, which ends with the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<LoggedEvent, CoordinationError>> {
        futures::stream::unfold(Some(self), |subscription| async {
            let mut subscription = subscription?;
            let event = subscription.next().await;
            let goes_on = event.is_ok().then_some(subscription);
            Some((event, goes_on))
        })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({:?}, after {})", self.topic, self.after)
    }
}
