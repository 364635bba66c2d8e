//! A client's session: what it has asked for, what it holds, and what is still to be said. `keeper` says it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_core::coordination::{
    Ask, Change, FromSession, LeaseName, Outcome, REQUESTS_MAX, Refused, SessionId, ToSession,
};
use starling_runtime::mesh::Mesh;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::CoordinationError;
use super::keeper;
use crate::leaders::Leaders;

/// How often a session is heard that holds nothing and waits for nothing.
const PING_IDLE: Duration = Duration::from_secs(60);
/// How many pings without an answer are remembered.
const PINGS_MAX: usize = 64;

/// How a client finds the node in office.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) mesh: Mesh,
    pub(crate) leaders: Leaders,
    /// For how long it is looked for.
    pub(crate) patience: Duration,
    /// Where links are served.
    pub(crate) runtime: Handle,
}

/// The client's session, and the next one after one that has ended.
#[derive(Default)]
pub(crate) struct Sessions {
    current: Mutex<Option<Arc<Session>>>,
}

impl Sessions {
    /// The session, begun if there is none.
    pub(crate) fn current(&self, way: impl FnOnce() -> Option<Way>) -> Result<Arc<Session>, CoordinationError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = current.as_ref().filter(|session| session.lock().ended.is_none()) {
            return Ok(Arc::clone(session));
        }
        let way = way().ok_or_else(|| CoordinationError::SchedulerLost("the client is not connected".to_owned()))?;
        let session = Arc::new(Session::default());
        let runtime = way.runtime.clone();
        runtime.spawn(keeper::keep(Arc::clone(&session), SessionId(rand::random()), way));
        *current = Some(Arc::clone(&session));
        Ok(session)
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        if let Some(session) = self.current.get_mut().unwrap_or_else(PoisonError::into_inner) {
            session.leave();
        }
    }
}

/// One session.
#[derive(Default)]
pub(crate) struct Session {
    state: Mutex<State>,
    /// There is something to say.
    pub(super) to_say: Notify,
    /// The leases are others than before, or end at another time.
    pub(super) leases_changed: Notify,
}

#[derive(Default)]
struct State {
    next_number: u64,
    /// Without an answer.
    open: BTreeMap<u64, Open>,
    /// What is to be said over the link that there is, in this order. What has an answer is said again over the next one.
    queue: VecDeque<FromSession>,
    seen: Seen,
    leases: BTreeMap<u64, Lease>,
    /// When the scheduler has heard the session, at the earliest.
    heard_at: Option<Instant>,
    /// Those without an answer: when they were sent.
    pings: BTreeMap<u64, Instant>,
    last_ping: u64,
    pinged_at: Option<Instant>,
    is_leaving: bool,
    /// Why it is over, if it is.
    ended: Option<CoordinationError>,
}

struct Open {
    ask: Ask,
    deadline: Option<Instant>,
    /// When it was said last.
    said_at: Instant,
    /// `None` once nobody waits for it.
    answer: Option<oneshot::Sender<Result<Outcome, CoordinationError>>>,
}

/// A lease that this client holds.
struct Lease {
    of: LeaseName,
    length: Duration,
    /// Set to true when it is lost.
    lost: watch::Sender<bool>,
}

/// Which answers, in the sequence of all that was done for the session, have come.
#[derive(Default)]
struct Seen {
    /// All up to this one.
    upto: u64,
    /// And these, which lie beyond the next.
    beyond: BTreeSet<u64>,
}

impl Seen {
    fn add(&mut self, seq: u64) {
        self.beyond.insert(seq);
        while self.beyond.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
    }
}

impl Session {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the answer. Dropping this takes the request back: what it was given nevertheless is given back.
    pub(super) async fn ask(&self, ask: Ask, wait: Option<Duration>) -> Result<Outcome, CoordinationError> {
        ask.check()?;
        let (tell, answer) = oneshot::channel();
        let number = {
            let mut state = self.lock();
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            if state.open.len() >= REQUESTS_MAX {
                return Err(Refused::TooManyWaiting.into());
            }
            let deadline = wait.and_then(|wait| Instant::now().checked_add(wait));
            state.begin(ask.clone(), deadline, Some(tell))
        };
        self.to_say.notify_one();
        let mut asked = Asked { session: self, number, ask, answer };
        let ended = || CoordinationError::SchedulerLost("the client's runtime has ended".to_owned());
        (&mut asked.answer).await.unwrap_or_else(|_| Err(ended()))
    }

    /// Asks for what nobody waits for.
    pub(super) fn say(&self, change: Change) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.begin(Ask::Change(change), None, None);
            drop(state);
            self.to_say.notify_one();
        }
    }

    /// Whether a lease that was granted is lost, and when that comes about.
    pub(super) fn watch_lease(&self, token: u64) -> watch::Receiver<bool> {
        let state = self.lock();
        // It may be lost already.
        state.leases.get(&token).map_or_else(|| watch::channel(true).1, |lease| lease.lost.subscribe())
    }

    /// Whether a lease is held for sure at this moment.
    pub(super) fn holds(&self, token: u64) -> bool {
        let state = self.lock();
        let lease = state.leases.get(&token);
        lease.is_some_and(|lease| state.heard_at.is_some_and(|heard_at| Instant::now() < heard_at + lease.length))
    }

    /// A lease is not held any more. Says whether it was.
    pub(super) fn drop_lease(&self, token: u64) -> bool {
        self.lock().leases.remove(&token).is_some()
    }

    /// The client goes: what is still to be said is, if there is a link.
    fn leave(&self) {
        self.lock().is_leaving = true;
        self.to_say.notify_one();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.lock().is_leaving
    }

    /// It is over: nobody waits any more, and nothing is held.
    pub(super) fn end(&self, error: CoordinationError) {
        let mut state = self.lock();
        state.queue.clear();
        for open in std::mem::take(&mut state.open).into_values() {
            // Whoever asked may have given up.
            let _ = open.answer.map(|answer| answer.send(Err(error.clone())));
        }
        for lease in std::mem::take(&mut state.leases).into_values() {
            lease.lost.send_replace(true);
        }
        state.ended.get_or_insert(error);
        drop(state);
        self.to_say.notify_one();
    }

    /// A new link is there, opened by a hello that was sent at this time: everything without an answer is said again.
    pub(super) fn link_opened(&self, hello_at: Instant) {
        let mut state = self.lock();
        let state = &mut *state;
        state.was_heard(hello_at);
        state.pings.clear();
        state.queue.clear();
        let seen = state.seen.upto;
        for (number, open) in &mut state.open {
            if open.answer.is_none() {
                // It may have been done; if not, it need not wait.
                open.deadline = Some(Instant::now());
            }
            state.queue.push_back(open.request(*number, seen));
        }
        self.leases_changed.notify_one();
    }

    /// What is to be said now, and when there may be more by itself.
    pub(super) fn take_queue(&self) -> (Vec<FromSession>, Instant) {
        let mut state = self.lock();
        let now = Instant::now();
        let mut messages: Vec<FromSession> = state.queue.drain(..).collect();
        let pause = state.ping_every();
        if state.pinged_at.is_none_or(|at| at + pause <= now) {
            state.last_ping += 1;
            let number = state.last_ping;
            state.pings.insert(number, now);
            if state.pings.len() > PINGS_MAX {
                state.pings.pop_first();
            }
            state.pinged_at = Some(now);
            messages.push(FromSession::Ping { number, seen: state.seen.upto });
        }
        if state.is_leaving {
            messages.push(FromSession::Leave);
        }
        let next = state.pinged_at.map_or(now, |at| at + pause);
        (messages, next)
    }

    /// Takes what the coordinator says. Gives an error if the session is over.
    pub(super) fn hear(&self, message: ToSession) -> Result<(), CoordinationError> {
        let mut state = self.lock();
        match message {
            ToSession::Opened => {}
            ToSession::NotOpened(refused) => return Err(refused.into()),
            ToSession::Answer { number, seq, outcome } => {
                if let Some(open) = state.open.remove(&number) {
                    seq.into_iter().for_each(|seq| state.seen.add(seq));
                    state.was_heard(open.said_at);
                    if let (Ask::Change(Change::Acquire { of, lease_ms, .. }), Ok(Outcome::Granted(token))) =
                        (&open.ask, &outcome)
                    {
                        let length = Duration::from_millis(u64::from(*lease_ms));
                        let lease = Lease { of: of.clone(), length, lost: watch::Sender::new(false) };
                        state.leases.insert(*token, lease);
                    }
                    let unwanted = match open.answer {
                        Some(answer) => answer.send(outcome.map_err(CoordinationError::from)).err(),
                        None => Some(outcome.map_err(CoordinationError::from)),
                    };
                    if let Some(Ok(outcome)) = unwanted {
                        state.undo(&open.ask, outcome);
                    }
                }
                self.leases_changed.notify_one();
            }
            ToSession::Pong { number } => {
                let sent_at = state.pings.remove(&number);
                sent_at.into_iter().for_each(|sent_at| state.was_heard(sent_at));
                self.leases_changed.notify_one();
            }
            ToSession::Lost { token } => {
                if let Some(lease) = state.leases.remove(&token) {
                    lease.lost.send_replace(true);
                }
            }
        }
        drop(state);
        self.to_say.notify_one();
        Ok(())
    }

    /// Ends the leases whose time is over, and gives when the next may be.
    pub(super) fn end_leases(&self) -> Option<Instant> {
        let mut state = self.lock();
        if state.end_leases() {
            self.to_say.notify_one();
        }
        let heard_at = state.heard_at?;
        state.leases.values().map(|lease| heard_at + lease.length).min()
    }
}

impl State {
    fn begin(
        &mut self,
        ask: Ask,
        deadline: Option<Instant>,
        answer: Option<oneshot::Sender<Result<Outcome, CoordinationError>>>,
    ) -> u64 {
        self.next_number += 1;
        let number = self.next_number;
        let mut open = Open { ask, deadline, said_at: Instant::now(), answer };
        let request = open.request(number, self.seen.upto);
        self.queue.push_back(request);
        self.open.insert(number, open);
        number
    }

    /// The scheduler has heard the session at this time, or later. What was lost before that was known stays lost: the scheduler may
    /// have given it to another.
    fn was_heard(&mut self, at: Instant) {
        self.end_leases();
        self.heard_at = self.heard_at.max(Some(at));
    }

    /// Ends the leases whose time is over. Says whether there were any.
    fn end_leases(&mut self) -> bool {
        let (now, Some(heard_at)) = (Instant::now(), self.heard_at) else { return false };
        let is_over = |_: &u64, lease: &mut Lease| heard_at + lease.length <= now;
        let over: Vec<(u64, Lease)> = self.leases.extract_if(.., is_over).collect();
        let has_ended = !over.is_empty();
        for (token, lease) in over {
            lease.lost.send_replace(true);
            // If the scheduler still has it, others need not wait for it to end there too.
            self.begin(Ask::Change(Change::Release { of: lease.of, token }), None, None);
        }
        has_ended
    }

    /// Gives back what nobody wants any more.
    fn undo(&mut self, ask: &Ask, outcome: Outcome) {
        let change = match (ask, outcome) {
            (Ask::Change(Change::Acquire { of, .. }), Outcome::Granted(token)) => {
                self.leases.remove(&token);
                Change::Release { of: of.clone(), token }
            }
            (Ask::Change(Change::Get { queue }), Outcome::Value(value)) => {
                Change::PutBack { queue: queue.clone(), value }
            }
            _ => return,
        };
        self.begin(Ask::Change(change), None, None);
    }

    /// A third of the shortest lease that is held or asked for.
    fn ping_every(&self) -> Duration {
        let held = self.leases.values().map(|lease| lease.length);
        let asked = self.open.values().filter_map(|open| match &open.ask {
            Ask::Change(Change::Acquire { lease_ms, .. }) => Some(Duration::from_millis(u64::from(*lease_ms))),
            _ => None,
        });
        held.chain(asked).min().map_or(PING_IDLE, |shortest| shortest / 3)
    }
}

impl Open {
    /// Says it, for what is left of its time.
    fn request(&mut self, number: u64, seen: u64) -> FromSession {
        self.said_at = Instant::now();
        let left = |deadline: Instant| deadline.saturating_duration_since(self.said_at).as_millis() as u64;
        FromSession::Request { number, seen, wait_ms: self.deadline.map(left), ask: self.ask.clone() }
    }
}

/// A request that waits for its answer.
struct Asked<'a> {
    session: &'a Session,
    number: u64,
    ask: Ask,
    answer: oneshot::Receiver<Result<Outcome, CoordinationError>>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.answer.close();
        let untaken = self.answer.try_recv();
        let mut state = self.session.lock();
        if let Ok(Ok(outcome)) = untaken {
            state.undo(&self.ask, outcome);
        } else if let Some(open) = state.open.get_mut(&self.number) {
            open.answer = None;
            state.queue.push_back(FromSession::Cancel { number: self.number });
        } else {
            return;
        }
        drop(state);
        self.session.to_say.notify_one();
    }
}
