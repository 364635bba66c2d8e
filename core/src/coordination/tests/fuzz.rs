//! Whatever is said, in whatever order, links and schedulers are lost: what must always hold does.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::env::{Env, lock};
use crate::coordination::{Ask, Change, Event, FromSession, LeaseKind, LeaseName, LinkId, Outcome, Read, ToSession};

const SESSIONS: u128 = 3;
const LIMIT: u32 = 2;

/// What happens next.
#[derive(Clone, Debug)]
enum Move {
    Ask {
        by: u128,
        wait_ms: Option<u64>,
        what: What,
    },
    /// Cancels one of its requests.
    Cancel {
        by: u128,
        back: u64,
    },
    /// Says its unanswered requests again, over another link.
    Reconnect {
        by: u128,
    },
    LinkLost {
        by: u128,
    },
    FailOver,
    Agree,
    Later(u64),
    Ping {
        by: u128,
    },
}

#[derive(Clone, Debug)]
enum What {
    Acquire,
    /// Releases the lease that it was given last.
    Release,
    Lock,
    Put {
        maxsize: u64,
    },
    Get,
    Set,
    Clear,
    WaitSet,
    Arrive,
    Len,
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => Just(What::Acquire),
        3 => Just(What::Release),
        2 => Just(What::Lock),
        4 => (0..3u64).prop_map(|maxsize| What::Put { maxsize }),
        4 => Just(What::Get),
        1 => Just(What::Set),
        1 => Just(What::Clear),
        1 => Just(What::WaitSet),
        2 => Just(What::Arrive),
        1 => Just(What::Len),
    ]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let by = || 1..=SESSIONS;
    let wait = prop_oneof![2 => Just(None), 1 => Just(Some(0)), 1 => (1..40_000u64).prop_map(Some)];
    vec(
        prop_oneof![
            12 => (by(), wait, what()).prop_map(|(by, wait_ms, what)| Move::Ask { by, wait_ms, what }),
            2 => (by(), 0..4u64).prop_map(|(by, back)| Move::Cancel { by, back }),
            2 => by().prop_map(|by| Move::Reconnect { by }),
            1 => by().prop_map(|by| Move::LinkLost { by }),
            1 => Just(Move::FailOver),
            6 => Just(Move::Agree),
            2 => (0..40_000_000u64).prop_map(Move::Later),
            2 => by().prop_map(|by| Move::Ping { by }),
        ],
        0..120,
    )
}

/// A client that is honest.
#[derive(Default)]
struct Session {
    link: Option<LinkId>,
    has_opened: bool,
    next: u64,
    /// Without an answer.
    open: BTreeMap<u64, Ask>,
    /// The places that it has seen.
    seen: BTreeSet<u64>,
    leases: Vec<(LeaseName, u64)>,
    is_out: bool,
}

impl Session {
    fn seen(&self) -> u64 {
        (1..).take_while(|seq| self.seen.contains(seq)).last().unwrap_or(0)
    }
}

/// What a request puts.
fn value_of(ask: &Ask) -> Option<Bytes> {
    match ask {
        Ask::Change(Change::Put { value, .. }) => Some(value.clone()),
        _ => None,
    }
}

#[derive(Default)]
struct World {
    sessions: BTreeMap<u128, Session>,
    /// All tokens of each name, in the order in which their grants were told.
    tokens: BTreeMap<LeaseName, BTreeSet<u64>>,
    values_put: u64,
    /// What was asked to be put, and what was put for sure.
    put: BTreeSet<Bytes>,
    was_put: BTreeSet<Bytes>,
    got: BTreeSet<Bytes>,
}

impl World {
    fn hear(&mut self, env: &mut Env) {
        for (id, session) in &mut self.sessions {
            let Some(link) = session.link else { continue };
            for message in env.told(link) {
                match message {
                    ToSession::Opened => session.has_opened = true,
                    ToSession::NotOpened(_) => {
                        // It was away for too long: it knows nothing of what became of its requests.
                        (session.link, session.is_out) = (None, true);
                    }
                    ToSession::Answer { number, seq, outcome } => {
                        let Some(ask) = session.open.remove(&number) else {
                            panic!("session {id}: two answers to {number}")
                        };
                        session.seen.extend(seq);
                        let outcome = outcome.expect("nothing here is refused");
                        match (ask, outcome) {
                            (Ask::Change(Change::Acquire { of, .. }), Outcome::Granted(token)) => {
                                let is_new = self.tokens.entry(of.clone()).or_default().insert(token);
                                assert!(is_new, "a token twice");
                                session.leases.push((of, token));
                            }
                            (Ask::Change(Change::Get { .. }), Outcome::Value(value)) => {
                                assert!(self.put.contains(&value), "a value from nowhere");
                                assert!(self.got.insert(value), "a value twice");
                            }
                            (ask, Outcome::Done) => self.was_put.extend(value_of(&ask)),
                            _ => {}
                        }
                    }
                    ToSession::Lost { token } => session.leases.retain(|(_, held)| *held != token),
                    ToSession::Pong { .. } => {}
                }
            }
        }
        for link in std::mem::take(&mut env.closed) {
            for session in self.sessions.values_mut().filter(|session| session.link == Some(link)) {
                session.link = None;
            }
        }
    }

    fn connect(&mut self, env: &mut Env, by: u128) {
        let is_new = !self.sessions.entry(by).or_default().has_opened;
        let link = env.join(by, is_new);
        let session = self.sessions.entry(by).or_default();
        session.link = Some(link);
        for (number, ask) in session.open.clone() {
            let seen = session.seen();
            env.say(link, FromSession::Request { number, seen, wait_ms: None, ask });
        }
    }

    fn ask(&mut self, env: &mut Env, by: u128, wait_ms: Option<u64>, what: &What) {
        let session = self.sessions.entry(by).or_default();
        let (Some(link), false) = (session.link, session.is_out) else { return };
        let semaphore = LeaseName { kind: LeaseKind::Semaphore, name: "s".to_owned() };
        let ask = match what {
            What::Acquire => Ask::Change(Change::Acquire { of: semaphore, limit: LIMIT, lease_ms: 20_000 }),
            What::Lock => Ask::Change(Change::Acquire { of: lock("l"), limit: 1, lease_ms: 5_000 }),
            What::Release => match session.leases.pop() {
                Some((of, token)) => Ask::Change(Change::Release { of, token }),
                None => return,
            },
            What::Put { maxsize } => {
                self.values_put += 1;
                let value = Bytes::from(self.values_put.to_string());
                self.put.insert(value.clone());
                Ask::Change(Change::Put { queue: "q".to_owned(), maxsize: *maxsize, value })
            }
            What::Get => Ask::Change(Change::Get { queue: "q".to_owned() }),
            What::Set => Ask::Change(Change::SetEvent("e".to_owned())),
            What::Clear => Ask::Change(Change::ClearEvent("e".to_owned())),
            What::WaitSet => Ask::Read(Read::WaitSet("e".to_owned())),
            What::Arrive => Ask::Arrive { barrier: "b".to_owned(), parties: 2 },
            What::Len => Ask::Read(Read::Len("q".to_owned())),
        };
        session.next += 1;
        session.open.insert(session.next, ask.clone());
        let (number, seen) = (session.next, session.seen());
        env.say(link, FromSession::Request { number, seen, wait_ms, ask });
    }

    fn make(&mut self, env: &mut Env, next: &Move) {
        match next {
            Move::Ask { by, wait_ms, what } => self.ask(env, *by, *wait_ms, what),
            Move::Cancel { by, back } => {
                let session = &self.sessions[by];
                if let (Some(link), Some(number)) = (session.link, session.next.checked_sub(*back)) {
                    env.say(link, FromSession::Cancel { number });
                }
            }
            Move::Reconnect { by } => self.connect(env, *by),
            Move::LinkLost { by } => {
                if let Some(link) = self.sessions.entry(*by).or_default().link.take() {
                    env.event(Event::LinkClosed(link));
                    env.told(link);
                }
            }
            Move::FailOver => {
                // What is proposed may have been agreed on, and may not.
                let agrees = env.agrees;
                env.fail_over();
                env.agrees = agrees;
                self.sessions.values_mut().for_each(|session| session.link = None);
                (1..=SESSIONS).for_each(|by| self.connect(env, by));
            }
            Move::Agree => drop(env.agree()),
            Move::Later(micros) => {
                env.now.0 += micros;
                env.event(Event::Tick);
            }
            Move::Ping { by } => {
                let session = &self.sessions[by];
                if let Some(link) = session.link {
                    env.say(link, FromSession::Ping { number: 0, seen: session.seen() });
                }
            }
        }
        self.hear(env);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// `Env` checks the invariants of both machines after every event: no more leases than there are, each first in line waits
    /// for something, bytes are counted. Here: no answer comes twice, no token, and no value; and in the end nothing is lost.
    #[test]
    fn nothing_is_lost_or_doubled_whatever_happens(moves in moves(), agrees: bool) {
        let mut env = Env::new();
        let mut world = World::default();
        (1..=SESSIONS).for_each(|by| world.connect(&mut env, by));
        world.hear(&mut env);
        env.agrees = agrees;
        for next in &moves {
            world.make(&mut env, next);
        }
        // All comes back, and what was put is got.
        env.agrees = true;
        while env.agree() {}
        (1..=SESSIONS).for_each(|by| world.connect(&mut env, by));
        world.hear(&mut env);
        let reader = env.session(99);
        let mut left = BTreeSet::new();
        for number in 1.. {
            env.ask_for(reader, number, Some(0), Ask::Change(Change::Get { queue: "q".to_owned() }));
            match env.answer(reader, number) {
                Some(Ok(Outcome::Value(value))) => assert!(left.insert(value), "a value twice"),
                _ => break,
            }
            world.hear(&mut env);
        }
        world.hear(&mut env);
        prop_assert!(left.is_disjoint(&world.got), "a value twice");
        let there: BTreeSet<Bytes> = left.union(&world.got).cloned().collect();
        let may_be_put: BTreeSet<Bytes> = world.sessions.values().flat_map(|session| session.open.values()).filter_map(value_of).collect();
        prop_assert!(there.iter().all(|value| world.was_put.contains(value) || may_be_put.contains(value)));
        // What was answered to one who is out, nobody knows.
        if world.sessions.values().all(|session| !session.is_out) {
            prop_assert!(world.was_put.is_subset(&there), "lost: {:?} of {there:?}", world.was_put);
        }
        prop_assert_eq!(&env.agreed, env.coordinator.state());
    }
}
