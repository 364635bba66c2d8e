//! [`Coordinator`]: what the node in office does with requests.

use std::collections::{BTreeMap, VecDeque};

use super::ask::{Ask, Change, FromSession, LeaseName, Outcome, Refused, RequestId, SessionId, Step, ToSession};
use super::lines::{LineName, Lines, Ticket, Waiter};
use super::state::Coordination;
use super::{BATCH_BYTES, GATHERED_BYTES_MAX, LEASE_MS_MIN, REQUESTS_MAX, SESSION_US, WAITERS_MAX};
use crate::ids::{NodeId, Time};

/// How many answers may be remembered for a session. An honest one never has so many that it has not seen.
const UNSEEN_MAX: usize = 2 * REQUESTS_MAX;
/// With how many bytes of them a step is worth making only to forget them.
const UNSEEN_BYTES: u64 = 4 * 1024;

/// A link that a session has opened. No two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a coordinator is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session has come over a new link. Answered by [`ToSession::Opened`] or [`ToSession::NotOpened`].
    Joined {
        /// The link.
        link: LinkId,
        /// From which node.
        node: NodeId,
        /// Which session.
        session: SessionId,
        /// Whether it has never been told that it is open.
        is_new: bool,
    },
    /// A session says something.
    Said {
        /// Over this link.
        link: LinkId,
        /// What.
        message: FromSession,
    },
    /// A link is closed.
    LinkClosed(LinkId),
    /// A node has taken leave, and its sessions with it.
    NodeLeft(NodeId),
    /// The steps that were to be logged are.
    Logged,
    /// Time has passed.
    Tick,
}

/// What a coordinator wants done.
#[derive(Debug, Default)]
pub struct Effects {
    /// Say this, in this order.
    pub to_sessions: Vec<(LinkId, ToSession)>,
    /// Close these links, after that.
    pub close: Vec<LinkId>,
    /// Have a quorum agree on these steps. Then tell [`Event::Logged`]; there are no others before. If it cannot be told, the
    /// coordinator is of no use any more: what is agreed on has to be found out, and another one made of that.
    pub to_log: Option<Vec<Step>>,
}

/// What the node in office does with requests.
#[derive(Debug)]
pub struct Coordinator {
    /// With all steps that were made, logged or not.
    state: Coordination,
    links: BTreeMap<LinkId, SessionId>,
    /// All sessions that the state has.
    heard: BTreeMap<SessionId, Heard>,
    lines: Lines,
    /// Steps that are not being logged yet, and answers that must come after them, in their order.
    gathered: VecDeque<Gathered>,
    gathered_bytes: usize,
    /// While steps are being logged: what to say once they are.
    in_flight: Option<Vec<(LinkId, ToSession)>>,
    now: Time,
    /// The time of 1970 in milliseconds when `now` was 0.
    unix_ms_at_0: u64,
}

#[derive(Debug)]
enum Gathered {
    Step(Step),
    Say(LinkId, ToSession),
}

/// When and where a session was heard last.
#[derive(Debug)]
struct Heard {
    at: Time,
    /// While it is there.
    link: Option<LinkId>,
    node: Option<NodeId>,
}

type Answer = Result<(Option<u64>, Outcome), Refused>;

impl Coordinator {
    /// One that goes on with what is agreed on. `unix_ms` is the time since 1970, in milliseconds.
    pub fn new(now: Time, unix_ms: u64, state: Coordination) -> Coordinator {
        let heard = state.sessions().map(|session| (session, Heard { at: now, link: None, node: None })).collect();
        Coordinator {
            state,
            links: BTreeMap::new(),
            heard,
            lines: Lines::default(),
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            in_flight: None,
            now,
            unix_ms_at_0: unix_ms.saturating_sub(now.0 / 1_000),
        }
    }

    /// Takes an event, and appends effects.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Effects) {
        self.now = self.now.max(now);
        match event {
            Event::Joined { link, node, session, is_new } => self.join(link, node, session, is_new, effects),
            Event::Said { link, message } => self.hear(link, message, effects),
            Event::LinkClosed(link) => self.lose_link(link),
            Event::NodeLeft(node) => {
                let of_node = self.heard.iter().filter(|(_, heard)| heard.node == Some(node));
                let gone: Vec<SessionId> = of_node.map(|(session, _)| *session).collect();
                gone.into_iter().for_each(|session| self.close(session, effects));
            }
            Event::Logged => effects.to_sessions.extend(self.in_flight.take().into_iter().flatten()),
            Event::Tick => self.tick(effects),
        }
        self.flush(effects);
    }

    fn join(&mut self, link: LinkId, node: NodeId, session: SessionId, is_new: bool, effects: &mut Effects) {
        let known = match (self.state.knows(session), is_new) {
            (true, _) => Ok(()),
            (false, true) => self.state.check_open().map(|()| self.log(Step::Open(session))).map(drop),
            (false, false) => Err(Refused::Expired),
        };
        if let Err(refused) = known {
            effects.to_sessions.push((link, ToSession::NotOpened(refused)));
            effects.close.push(link);
            return;
        }
        let heard = Heard { at: self.now, link: Some(link), node: Some(node) };
        if let Some(before) = self.heard.insert(session, heard).and_then(|before| before.link) {
            self.lose_link(before);
            effects.close.push(before);
        }
        self.links.insert(link, session);
        self.say(link, ToSession::Opened);
    }

    fn hear(&mut self, link: LinkId, message: FromSession, effects: &mut Effects) {
        let Some(session) = self.links.get(&link).copied() else { return };
        if let Some(heard) = self.heard.get_mut(&session) {
            heard.at = self.now;
        }
        match message {
            FromSession::Request { number, seen, wait_ms, ask } => {
                self.request(link, RequestId { session, number }, seen, wait_ms, ask);
            }
            FromSession::Cancel { number } => {
                let waits = self.lines.ticket_of(RequestId { session, number });
                self.end_waits(waits, Outcome::Cancelled);
            }
            FromSession::Ping { number, seen } => {
                if self.state.unseen(session).1 > UNSEEN_BYTES {
                    self.log(Step::Seen { session, seen });
                }
                // Not behind what is being logged: it says that the session was heard.
                effects.to_sessions.push((link, ToSession::Pong { number }));
            }
            FromSession::Leave => self.close(session, effects),
        }
    }

    fn request(&mut self, link: LinkId, request: RequestId, seen: u64, wait_ms: Option<u64>, mut ask: Ask) {
        let number = request.number;
        if let Some((seq, outcome)) = self.state.remembered(request) {
            return self.answer(link, number, Ok((Some(seq), outcome)));
        }
        if self.lines.ticket_of(request).is_some() {
            return;
        }
        if let Ask::Change(Change::Log { at_unix_ms, .. }) = &mut ask {
            *at_unix_ms = self.unix_ms_at_0 + self.now.0 / 1_000;
        }
        match self.admit(request.session, &ask) {
            Err(refused) => return self.answer(link, number, Err(refused)),
            Ok(true) => {
                if let Some(answer) = self.attempt(request, seen, &ask) {
                    self.answer(link, number, answer);
                    return self.serve(after(&ask));
                }
            }
            Ok(false) => {}
        }
        let Some(line) = LineName::of(&ask) else { return };
        if self.lines.len() >= WAITERS_MAX {
            return self.answer(link, number, Err(Refused::TooManyWaiting));
        }
        // The last who comes to a barrier does not wait.
        let completes = matches!(ask, Ask::Arrive { parties, .. } if self.lines.waiting(&line).count() as u64 + 1 == u64::from(parties));
        if wait_ms == Some(0) && !completes {
            return self.answer(link, number, Ok((None, Outcome::TimedOut)));
        }
        let deadline = wait_ms.map(|wait_ms| Time(self.now.0.saturating_add(wait_ms.saturating_mul(1_000))));
        self.lines.add(Waiter { request, link, seen, ask, line: line.clone(), deadline });
        if completes {
            self.pass(&line);
        }
    }

    /// Whether a request may be done at once, and need not wait behind others.
    fn admit(&self, session: SessionId, ask: &Ask) -> Result<bool, Refused> {
        ask.check()?;
        if let Ask::Change(change) = ask {
            let frees = matches!(change, Change::Release { .. } | Change::PutBack { .. });
            if !frees && (self.gathered_bytes > GATHERED_BYTES_MAX || self.state.unseen(session).0 >= UNSEEN_MAX) {
                return Err(Refused::TooManyWaiting);
            }
            self.state.check(change)?;
        }
        let Some(line) = LineName::of(ask) else { return Ok(true) };
        match ask {
            Ask::Read(_) => Ok(true),
            Ask::Change(_) => Ok(self.lines.is_empty(&line)),
            Ask::Arrive { parties, .. } => {
                let theirs = self.lines.waiting(&line).find_map(|(_, waiter)| match &waiter.ask {
                    Ask::Arrive { parties: theirs, .. } if theirs != parties => Some(*theirs),
                    _ => None,
                });
                theirs.map_or(Ok(false), |parties| Err(Refused::PartiesDiffer { parties }))
            }
        }
    }

    /// Does it if that is possible now.
    fn attempt(&mut self, request: RequestId, seen: u64, ask: &Ask) -> Option<Answer> {
        match ask {
            Ask::Read(read) => self.state.read(read).map(|outcome| Ok((None, outcome))),
            Ask::Arrive { .. } => None,
            Ask::Change(change) => match self.state.check(change) {
                Err(refused) => Some(Err(refused)),
                Ok(false) => None,
                Ok(true) => {
                    let done = self.log(Step::Do { request, seen, change: change.clone() });
                    done.map(|(seq, outcome)| Ok((Some(seq), outcome)))
                }
            },
        }
    }

    /// Something has changed for those who wait in these lines.
    fn serve(&mut self, lines: impl IntoIterator<Item = LineName>) {
        let mut lines: Vec<LineName> = lines.into_iter().collect();
        while let Some(line) = lines.pop() {
            let waiting: Vec<Ticket> = self.lines.waiting(&line).map(|(ticket, _)| ticket).collect();
            for ticket in waiting {
                let Some(waiter) = self.lines.remove(ticket) else { continue };
                match self.attempt(waiter.request, waiter.seen, &waiter.ask) {
                    Some(answer) => {
                        self.answer(waiter.link, waiter.request.number, answer);
                        lines.extend(after(&waiter.ask));
                    }
                    None => {
                        let is_read = matches!(waiter.ask, Ask::Read(_));
                        self.lines.put_back(ticket, waiter);
                        // Whoever reads is in nobody's way.
                        if !is_read {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// All who are awaited at a barrier are there.
    fn pass(&mut self, line: &LineName) {
        let tickets: Vec<Ticket> = self.lines.waiting(line).map(|(ticket, _)| ticket).collect();
        let waiters: Vec<Waiter> = tickets.into_iter().filter_map(|ticket| self.lines.remove(ticket)).collect();
        self.log(Step::Pass(waiters.iter().map(|waiter| waiter.request).collect()));
        for waiter in waiters {
            if let Some((seq, outcome)) = self.state.remembered(waiter.request) {
                self.answer(waiter.link, waiter.request.number, Ok((Some(seq), outcome)));
            }
        }
    }

    /// These wait no more, and are told so.
    fn end_waits(&mut self, tickets: impl IntoIterator<Item = Ticket>, outcome: Outcome) {
        let ended: Vec<Waiter> = tickets.into_iter().filter_map(|ticket| self.lines.remove(ticket)).collect();
        for waiter in &ended {
            self.answer(waiter.link, waiter.request.number, Ok((None, outcome.clone())));
        }
        self.serve(ended.into_iter().map(|waiter| waiter.line));
    }

    fn lose_link(&mut self, link: LinkId) {
        let Some(session) = self.links.remove(&link) else { return };
        if let Some(heard) = self.heard.get_mut(&session).filter(|heard| heard.link == Some(link)) {
            heard.link = None;
        }
        let gone = self.lines.of_link(link);
        let lines: Vec<LineName> =
            gone.into_iter().filter_map(|ticket| self.lines.remove(ticket)).map(|waiter| waiter.line).collect();
        self.serve(lines);
    }

    /// Ends a session.
    fn close(&mut self, session: SessionId, effects: &mut Effects) {
        if let Some(link) = self.heard.remove(&session).and_then(|heard| heard.link) {
            self.lose_link(link);
            effects.close.push(link);
        }
        if self.state.knows(session) {
            let of: Vec<LeaseName> = self.state.leases_of(session).map(|(of, ..)| of.clone()).collect();
            self.log(Step::Close(session));
            self.serve(of.into_iter().map(LineName::Lease));
        }
    }

    fn tick(&mut self, effects: &mut Effects) {
        let overdue = self.lines.overdue(self.now);
        self.end_waits(overdue, Outcome::TimedOut);
        let mut expired = Vec::new();
        let mut silent = Vec::new();
        for (session, heard) in &self.heard {
            let quiet_us = self.now.micros_since(heard.at);
            if quiet_us > SESSION_US {
                silent.push(*session);
            } else if quiet_us > u64::from(LEASE_MS_MIN) * 1_000 {
                let leases = self.state.leases_of(*session);
                let over = leases.filter(|(_, _, lease_ms)| quiet_us > u64::from(*lease_ms) * 1_000);
                expired.extend(over.map(|(of, token, _)| (heard.link, of.clone(), token)));
            }
        }
        for (link, of, token) in expired {
            self.log(Step::Expire { of: of.clone(), token });
            if let Some(link) = link {
                self.say(link, ToSession::Lost { token });
            }
            self.serve([LineName::Lease(of)]);
        }
        silent.into_iter().for_each(|session| self.close(session, effects));
    }

    /// Makes a step, which is to be logged.
    fn log(&mut self, step: Step) -> Option<(u64, Outcome)> {
        let outcome = self.state.step(&step);
        self.gathered_bytes += step.nbytes();
        self.gathered.push_back(Gathered::Step(step));
        outcome
    }

    fn answer(&mut self, link: LinkId, number: u64, answer: Answer) {
        let (seq, outcome) = match answer {
            Ok((seq, outcome)) => (seq, Ok(outcome)),
            Err(refused) => (None, Err(refused)),
        };
        self.say(link, ToSession::Answer { number, seq, outcome });
    }

    /// Says something once all steps before it are logged.
    fn say(&mut self, link: LinkId, message: ToSession) {
        self.gathered.push_back(Gathered::Say(link, message));
    }

    /// What waits for no step is said, and the next steps are to be logged if none are.
    fn flush(&mut self, effects: &mut Effects) {
        let mut steps = Vec::new();
        let mut nbytes = 0;
        loop {
            match self.gathered.front() {
                Some(Gathered::Step(_)) if steps.is_empty() && self.in_flight.is_some() => break,
                Some(Gathered::Step(step)) if !steps.is_empty() && nbytes + step.nbytes() > BATCH_BYTES => break,
                _ => {}
            }
            match self.gathered.pop_front() {
                Some(Gathered::Step(step)) => {
                    nbytes += step.nbytes();
                    steps.push(step);
                    self.in_flight.get_or_insert_default();
                }
                Some(Gathered::Say(link, message)) => match &mut self.in_flight {
                    Some(later) => later.push((link, message)),
                    None => effects.to_sessions.push((link, message)),
                },
                None => break,
            }
        }
        self.gathered_bytes -= nbytes;
        if !steps.is_empty() {
            effects.to_log = Some(steps);
        }
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> &Coordination {
        &self.state
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        self.state.check_invariants();
        self.lines.check_invariants();
        assert!(self.state.sessions().eq(self.heard.keys().copied()), "all sessions are heard");
        for (link, session) in &self.links {
            assert_eq!(self.heard.get(session).and_then(|heard| heard.link), Some(*link), "a link of nobody's");
        }
        let steps = self.gathered.iter().filter_map(|gathered| match gathered {
            Gathered::Step(step) => Some(step.nbytes()),
            Gathered::Say(..) => None,
        });
        assert_eq!(steps.sum::<usize>(), self.gathered_bytes, "gathered bytes are counted");
        assert!(self.in_flight.is_some() || self.gathered.is_empty(), "something waits for nothing");
        for line in self.lines.names() {
            let Some((_, first)) = self.lines.waiting(line).next() else { continue };
            let could_go = match &first.ask {
                Ask::Change(change) => self.state.check(change) != Ok(false),
                Ask::Read(read) => self.state.read(read).is_some(),
                Ask::Arrive { .. } => false,
            };
            assert!(!could_go, "{:?} waits for nothing", first.request);
        }
    }
}

/// Whose wait may be over when this was done.
fn after(ask: &Ask) -> Option<LineName> {
    match ask {
        Ask::Change(change) => LineName::after(change),
        Ask::Read(_) | Ask::Arrive { .. } => None,
    }
}
