//! A coordinator with its sessions, its links and its quorum played by the test.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::coordination::{
    Ask, Change, Coordination, Coordinator, Effects, Event, FromSession, LeaseKind, LeaseName, LinkId, Outcome, Read,
    Refused, SessionId, Step, ToSession,
};
use crate::ids::{NodeId, Time};

/// The time since 1970 at which these tests begin, in milliseconds.
pub(super) const UNIX_MS: u64 = 1_700_000_000_000;

pub(super) struct Env {
    pub(super) coordinator: Coordinator,
    /// What the quorum has agreed on.
    pub(super) agreed: Coordination,
    /// What it is asked to agree on.
    pub(super) proposed: Option<Vec<Step>>,
    /// Whether it agrees at once.
    pub(super) agrees: bool,
    pub(super) now: Time,
    /// What was said and not looked at, by link.
    pub(super) said: BTreeMap<LinkId, Vec<ToSession>>,
    pub(super) closed: Vec<LinkId>,
    next_link: u64,
}

/// As it comes out at the other side of a link, or of the log.
fn sent<T: Serialize + DeserializeOwned>(value: T) -> T {
    postcard::from_bytes(&postcard::to_stdvec(&value).unwrap()).unwrap()
}

pub(super) fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

pub(super) fn lock(name: &str) -> LeaseName {
    LeaseName { kind: LeaseKind::Lock, name: name.to_owned() }
}

pub(super) fn acquire(name: &str) -> Ask {
    Ask::Change(Change::Acquire { of: lock(name), limit: 1, lease_ms: 30_000 })
}

pub(super) fn semaphore(name: &str, limit: u32) -> Ask {
    let of = LeaseName { kind: LeaseKind::Semaphore, name: name.to_owned() };
    Ask::Change(Change::Acquire { of, limit, lease_ms: 30_000 })
}

pub(super) fn release(name: &str, token: u64) -> Ask {
    Ask::Change(Change::Release { of: lock(name), token })
}

pub(super) fn put(queue: &str, maxsize: u64, value: &'static str) -> Ask {
    Ask::Change(Change::Put { queue: queue.to_owned(), maxsize, value: Bytes::from_static(value.as_bytes()) })
}

pub(super) fn get(queue: &str) -> Ask {
    Ask::Change(Change::Get { queue: queue.to_owned() })
}

pub(super) fn read(read: Read) -> Ask {
    Ask::Read(read)
}

pub(super) fn value(text: &'static str) -> Result<Outcome, Refused> {
    Ok(Outcome::Value(Bytes::from_static(text.as_bytes())))
}

/// The token of a grant.
#[track_caller]
pub(super) fn token(outcome: Option<Result<Outcome, Refused>>) -> u64 {
    match outcome {
        Some(Ok(Outcome::Granted(token))) => token,
        other => panic!("no grant: {other:?}"),
    }
}

impl Env {
    pub(super) fn new() -> Env {
        Env::of(Coordination::default(), Time(0))
    }

    /// One that goes on with what was agreed on.
    pub(super) fn of(agreed: Coordination, now: Time) -> Env {
        let agreed = sent(agreed);
        Env {
            coordinator: Coordinator::new(now, UNIX_MS, agreed.clone()),
            agreed,
            proposed: None,
            agrees: true,
            now,
            said: BTreeMap::new(),
            closed: Vec::new(),
            next_link: 0,
        }
    }

    /// Another node has taken over.
    pub(super) fn fail_over(&mut self) {
        let agreed = std::mem::take(&mut self.agreed);
        *self = Env::of(agreed, self.now);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.handle(event);
        while self.agrees && self.agree() {}
    }

    /// The quorum agrees on what was proposed. Says whether there was anything.
    pub(super) fn agree(&mut self) -> bool {
        let Some(steps) = self.proposed.take() else { return false };
        self.agreed.apply(&sent(steps));
        self.handle(Event::Logged);
        true
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Effects::default();
        self.coordinator.handle(self.now, event, &mut effects);
        for (link, message) in effects.to_sessions {
            self.said.entry(link).or_default().push(sent(message));
        }
        self.closed.extend(effects.close);
        if let Some(steps) = effects.to_log {
            assert!(self.proposed.replace(steps).is_none(), "two proposals at a time");
        }
        self.coordinator.check_invariants();
        self.agreed.check_invariants();
    }

    pub(super) fn join(&mut self, session: u128, is_new: bool) -> LinkId {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let session = SessionId(session);
        self.event(Event::Joined { link, node: node(session.0 as u8), session, is_new });
        link
    }

    /// A session that was let in.
    pub(super) fn session(&mut self, session: u128) -> LinkId {
        let link = self.join(session, true);
        assert_eq!(self.told(link), [ToSession::Opened]);
        link
    }

    pub(super) fn told(&mut self, link: LinkId) -> Vec<ToSession> {
        self.said.remove(&link).unwrap_or_default()
    }

    pub(super) fn say(&mut self, link: LinkId, message: FromSession) {
        self.event(Event::Said { link, message: sent(message) });
    }

    /// A request that may wait for as long as it takes.
    pub(super) fn ask(&mut self, link: LinkId, number: u64, ask: Ask) {
        self.ask_for(link, number, None, ask);
    }

    pub(super) fn ask_for(&mut self, link: LinkId, number: u64, wait_ms: Option<u64>, ask: Ask) {
        self.say(link, FromSession::Request { number, seen: 0, wait_ms, ask });
    }

    /// What was answered to this request, which must be all that was said.
    #[track_caller]
    pub(super) fn answer(&mut self, link: LinkId, number: u64) -> Option<Result<Outcome, Refused>> {
        match self.told(link).as_slice() {
            [] => None,
            [ToSession::Answer { number: of, outcome, .. }] if *of == number => Some(outcome.clone()),
            other => panic!("not the answer to {number} alone: {other:?}"),
        }
    }

    /// Asks what is answered at once.
    #[track_caller]
    pub(super) fn get(&mut self, link: LinkId, number: u64, ask: Ask) -> Result<Outcome, Refused> {
        self.ask_for(link, number, Some(0), ask);
        self.answer(link, number).expect("an answer at once")
    }

    /// Time passes, while these links are heard every second.
    pub(super) fn pass(&mut self, seconds: u64, heard: &[LinkId]) {
        for _ in 0..seconds {
            self.now.0 += 1_000_000;
            for link in heard {
                self.say(*link, FromSession::Ping { number: 0, seen: 0 });
                let mut told = self.told(*link);
                told.retain(|message| *message != ToSession::Pong { number: 0 });
                if !told.is_empty() {
                    self.said.insert(*link, told);
                }
            }
            self.event(Event::Tick);
        }
    }
}
