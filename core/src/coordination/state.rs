//! [`Coordination`]: what every voter has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ask::{Change, LeaseName, Outcome, Read, Refused, RequestId, SessionId, Step};
use super::metadata::{self, Metadata};
use super::session::Session;
use super::topics::Topics;
use super::{BYTES_MAX, METADATA_BYTES_MAX, SESSIONS_MAX, VALUES_BYTES_MAX};

/// How many bytes each thing counts for, besides those that it has.
pub(super) const ENTRY_BYTES: u64 = 64;

/// What programs coordinate with, as far as it survives a scheduler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordination {
    /// The last token or generation that was given out.
    last_number: u64,
    sessions: BTreeMap<SessionId, Session>,
    /// Only those with leases.
    leased: BTreeMap<LeaseName, Leased>,
    /// The events that are set.
    set: BTreeSet<String>,
    /// Only those with values.
    queues: BTreeMap<String, VecDeque<Bytes>>,
    variables: BTreeMap<String, Bytes>,
    metadata: Metadata,
    topics: Topics,
    /// Bytes of all of it.
    nbytes: u64,
}

/// The leases of a lock or semaphore, by their tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Leased {
    limit: u32,
    leases: BTreeMap<u64, Lease>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    session: SessionId,
    lease_ms: u32,
}

fn cost(name: &str, len: usize) -> u64 {
    ENTRY_BYTES + (name.len() + len) as u64
}

impl Coordination {
    /// Gives out numbers above this one.
    pub fn number_from(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    /// Whether a change can be done now, or has to wait.
    ///
    /// # Errors
    /// Why it can never be done as things are.
    pub(super) fn check(&self, change: &Change) -> Result<bool, Refused> {
        match change {
            Change::Acquire { of, limit, .. } => {
                self.room(2 * cost(&of.name, 0), BYTES_MAX)?;
                match self.leased.get(of) {
                    Some(leased) if leased.limit != *limit => Err(Refused::LimitDiffers { limit: leased.limit }),
                    Some(leased) => Ok((leased.leases.len() as u64) < u64::from(*limit)),
                    None => Ok(true),
                }
            }
            Change::Put { queue, maxsize, value } => {
                let len = self.queues.get(queue).map_or(0, VecDeque::len) as u64;
                self.room(cost(queue, 0) + cost("", value.len()), VALUES_BYTES_MAX)?;
                Ok(*maxsize == 0 || len < *maxsize)
            }
            Change::Get { queue } => Ok(self.queues.contains_key(queue)),
            Change::SetEvent(name) => self.room(cost(name, 0), BYTES_MAX),
            Change::SetVariable { name, value } => self.room(cost(name, value.len()), VALUES_BYTES_MAX),
            Change::SetMetadata { path, leaves } => {
                self.metadata.check(path)?;
                let added = leaves.iter().map(|(path, text)| metadata::cost(path, text)).sum();
                if self.metadata.nbytes() + added > METADATA_BYTES_MAX {
                    return Err(Refused::OutOfRoom);
                }
                self.room(added, VALUES_BYTES_MAX)
            }
            Change::Log { topic, value, .. } => {
                if !self.topics.has_room_for(topic) {
                    return Err(Refused::TooManyTopics);
                }
                self.room(self.topics.cost_of(topic, value), VALUES_BYTES_MAX)
            }
            Change::PutBack { .. }
            | Change::Release { .. }
            | Change::ClearEvent(_)
            | Change::ClearQueue(_)
            | Change::DeleteVariable(_)
            | Change::DeleteMetadata(_) => Ok(true),
        }
    }

    fn room(&self, added: u64, max: u64) -> Result<bool, Refused> {
        if self.nbytes + added <= max { Ok(true) } else { Err(Refused::OutOfRoom) }
    }

    /// Whether another session may begin.
    pub(super) fn check_open(&self) -> Result<(), Refused> {
        if self.sessions.len() >= SESSIONS_MAX || self.nbytes + ENTRY_BYTES > BYTES_MAX {
            return Err(Refused::TooManySessions);
        }
        Ok(())
    }

    /// Makes a step. Gives what came of what it did for a session, with its place in what was done for that.
    pub(super) fn step(&mut self, step: &Step) -> Option<(u64, Outcome)> {
        match step {
            Step::Open(session) => {
                if self.sessions.insert(*session, Session::default()).is_none() {
                    self.nbytes += ENTRY_BYTES;
                }
            }
            Step::Close(session) => {
                if let Some(closed) = self.sessions.get(session) {
                    self.nbytes -= ENTRY_BYTES + closed.nbytes();
                    for (of, token) in closed.leases.clone() {
                        self.end_lease(&of, token);
                    }
                    self.sessions.remove(session);
                }
            }
            Step::Do { request, seen, change } => {
                let outcome = self.change(request.session, change);
                self.has_seen(request.session, *seen);
                return self.remember(*request, outcome);
            }
            Step::Pass(waiting) => {
                self.last_number += 1;
                let generation = self.last_number;
                for (index, request) in (0..).zip(waiting) {
                    self.remember(*request, Outcome::Passed { generation, index });
                }
            }
            Step::Expire { of, token } => {
                let holder = self.lease(of, *token).map(|lease| lease.session);
                self.end_lease(of, *token);
                if let Some(session) = holder.and_then(|holder| self.sessions.get_mut(&holder)) {
                    session.forget_grant(*token);
                }
            }
            Step::Seen { session, seen } => self.has_seen(*session, *seen),
        }
        None
    }

    /// Makes steps that a quorum has agreed on.
    pub fn apply(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn has_seen(&mut self, session: SessionId, seen: u64) {
        if let Some(session) = self.sessions.get_mut(&session) {
            self.nbytes -= session.has_seen(seen);
        }
    }

    fn remember(&mut self, request: RequestId, outcome: Outcome) -> Option<(u64, Outcome)> {
        let session = self.sessions.get_mut(&request.session)?;
        let (seq, added) = session.remember(request.number, outcome.clone());
        self.nbytes += added;
        Some((seq, outcome))
    }

    /// Does what was checked. What cannot be done after all changes nothing.
    fn change(&mut self, session: SessionId, change: &Change) -> Outcome {
        match change {
            Change::Acquire { of, limit, lease_ms } => self.grant(session, of, *limit, *lease_ms),
            Change::Release { of, token } => {
                let is_own = self.lease(of, *token).is_some_and(|lease| lease.session == session);
                Outcome::Flag(is_own && self.end_lease(of, *token))
            }
            Change::SetEvent(name) => {
                if self.set.insert(name.clone()) {
                    self.nbytes += cost(name, 0);
                }
                Outcome::Done
            }
            Change::ClearEvent(name) => {
                if self.set.remove(name) {
                    self.nbytes -= cost(name, 0);
                }
                Outcome::Done
            }
            Change::Put { queue, value, .. } => self.put(queue, value, false),
            Change::PutBack { queue, value } => self.put(queue, value, true),
            Change::Get { queue } => match self.take(queue) {
                Some(value) => Outcome::Value(value),
                None => Outcome::TimedOut,
            },
            Change::ClearQueue(queue) => {
                let count = self.queues.get(queue).map_or(0, VecDeque::len);
                (0..count).for_each(|_| drop(self.take(queue)));
                Outcome::Count(count as u64)
            }
            Change::SetVariable { name, value } => {
                self.delete_variable(name);
                self.nbytes += cost(name, value.len());
                self.variables.insert(name.clone(), value.clone());
                Outcome::Done
            }
            Change::DeleteVariable(name) => Outcome::Flag(self.delete_variable(name)),
            Change::SetMetadata { path, leaves } => {
                let (freed, added) = self.metadata.set(path, leaves);
                self.nbytes = self.nbytes + added - freed;
                Outcome::Done
            }
            Change::DeleteMetadata(path) => {
                let freed = self.metadata.delete(path);
                self.nbytes -= freed;
                Outcome::Flag(freed > 0)
            }
            Change::Log { topic, at_unix_ms, value } => {
                self.nbytes += self.topics.cost_of(topic, value);
                let (number, freed) = self.topics.log(topic, *at_unix_ms, value.clone());
                self.nbytes -= freed;
                Outcome::Count(number)
            }
        }
    }

    fn grant(&mut self, holder: SessionId, of: &LeaseName, limit: u32, lease_ms: u32) -> Outcome {
        let Some(session) = self.sessions.get_mut(&holder) else { return Outcome::TimedOut };
        if let Some(leased) = self.leased.get(of)
            && (leased.limit != limit || leased.leases.len() as u64 >= u64::from(limit))
        {
            return Outcome::TimedOut;
        }
        let nbytes = &mut self.nbytes;
        let leased = self.leased.entry(of.clone()).or_insert_with(|| {
            *nbytes += cost(&of.name, 0);
            Leased { limit, leases: BTreeMap::new() }
        });
        self.last_number += 1;
        leased.leases.insert(self.last_number, Lease { session: holder, lease_ms });
        session.leases.insert((of.clone(), self.last_number));
        self.nbytes += cost(&of.name, 0);
        Outcome::Granted(self.last_number)
    }

    fn lease(&self, of: &LeaseName, token: u64) -> Option<&Lease> {
        self.leased.get(of)?.leases.get(&token)
    }

    fn end_lease(&mut self, of: &LeaseName, token: u64) -> bool {
        let Some(leased) = self.leased.get_mut(of) else { return false };
        let Some(lease) = leased.leases.remove(&token) else { return false };
        if leased.leases.is_empty() {
            self.leased.remove(of);
            self.nbytes -= cost(&of.name, 0);
        }
        self.nbytes -= cost(&of.name, 0);
        if let Some(session) = self.sessions.get_mut(&lease.session) {
            session.leases.remove(&(of.clone(), token));
        }
        true
    }

    fn put(&mut self, name: &str, value: &Bytes, at_front: bool) -> Outcome {
        let nbytes = &mut self.nbytes;
        let queue = self.queues.entry(name.to_owned()).or_insert_with(|| {
            *nbytes += cost(name, 0);
            VecDeque::new()
        });
        if at_front {
            queue.push_front(value.clone())
        } else {
            queue.push_back(value.clone())
        }
        self.nbytes += cost("", value.len());
        Outcome::Done
    }

    fn take(&mut self, name: &str) -> Option<Bytes> {
        let queue = self.queues.get_mut(name)?;
        let value = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(name);
            self.nbytes -= cost(name, 0);
        }
        self.nbytes -= value.as_ref().map_or(0, |value| cost("", value.len()));
        value
    }

    fn delete_variable(&mut self, name: &str) -> bool {
        let deleted = self.variables.remove(name);
        self.nbytes -= deleted.as_ref().map_or(0, |value| cost(name, value.len()));
        deleted.is_some()
    }

    /// What is asked for; `None` if there is nothing yet, and it is waited for.
    pub(super) fn read(&self, read: &Read) -> Option<Outcome> {
        match read {
            Read::Leases(of) => {
                Some(Outcome::Count(self.leased.get(of).map_or(0, |leased| leased.leases.len() as u64)))
            }
            Read::IsSet(name) => Some(Outcome::Flag(self.set.contains(name))),
            Read::WaitSet(name) => self.set.contains(name).then_some(Outcome::Done),
            Read::Len(queue) => Some(Outcome::Count(self.queues.get(queue).map_or(0, VecDeque::len) as u64)),
            Read::Variable(name) => self.variables.get(name).cloned().map(Outcome::Value),
            Read::Metadata(path) => {
                let leaves = self.metadata.below(path).map(|(path, text)| (path.clone(), text.clone()));
                Some(Outcome::Leaves(leaves.collect()))
            }
            Read::Events { topic, after } => {
                let events = self.topics.after(topic, *after);
                (!events.is_empty()).then_some(Outcome::Events(events))
            }
            Read::LastEvent(topic) => Some(Outcome::Count(self.topics.last(topic))),
            Read::Topics => Some(Outcome::Names(self.topics.names())),
        }
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    pub(super) fn knows(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// What came of a request that was done, with its place.
    pub(super) fn remembered(&self, request: RequestId) -> Option<(u64, Outcome)> {
        self.sessions.get(&request.session)?.answer(request.number)
    }

    /// How many answers are remembered for a session, and how many bytes they have.
    pub(super) fn unseen(&self, session: SessionId) -> (usize, u64) {
        self.sessions.get(&session).map_or((0, 0), |session| (session.answers_len(), session.nbytes()))
    }

    /// The leases of a session, each with its length in milliseconds.
    pub(super) fn leases_of(&self, session: SessionId) -> impl Iterator<Item = (&LeaseName, u64, u32)> {
        let leases = self.sessions.get(&session).into_iter().flat_map(|session| &session.leases);
        leases.filter_map(|(of, token)| Some((of, *token, self.lease(of, *token)?.lease_ms)))
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let mut nbytes = self.sessions.values().map(|session| ENTRY_BYTES + session.nbytes()).sum::<u64>();
        let mut leases = BTreeSet::new();
        for (of, leased) in &self.leased {
            assert!(!leased.leases.is_empty() && leased.leases.len() <= leased.limit as usize, "{of:?}: {leased:?}");
            nbytes += cost(&of.name, 0) * (1 + leased.leases.len() as u64);
            for (token, lease) in &leased.leases {
                assert!(*token <= self.last_number, "a token of the future");
                leases.insert((lease.session, of.clone(), *token));
            }
        }
        let of_sessions = self
            .sessions
            .iter()
            .flat_map(|(id, session)| session.leases.iter().map(|(of, token)| (*id, of.clone(), *token)));
        assert_eq!(of_sessions.collect::<BTreeSet<_>>(), leases, "sessions know their leases");
        nbytes += self.set.iter().map(|name| cost(name, 0)).sum::<u64>();
        for (name, values) in &self.queues {
            assert!(!values.is_empty(), "an empty queue is kept");
            nbytes += cost(name, 0) + values.iter().map(|value| cost("", value.len())).sum::<u64>();
        }
        nbytes += self.variables.iter().map(|(name, value)| cost(name, value.len())).sum::<u64>();
        self.metadata.check_invariants();
        nbytes += self.metadata.nbytes() + self.topics.nbytes();
        assert_eq!(nbytes, self.nbytes, "bytes are counted");
    }
}
