//! What is out of bounds is refused, and said to be.

use super::env::{Env, acquire, get, lock, node, put, read, value};
use crate::coordination::{
    Ask, Change, Effects, Event, FromSession, LEASE_MS_MAX, LinkId, NAME_BYTES_MAX, Outcome, PATH_PARTS_MAX, Read,
    Refused, SESSIONS_MAX, SessionId, TEXT_BYTES_MAX, TOPIC_EVENTS_MAX, TOPICS_MAX, ToSession, VALUE_BYTES_MAX,
};

fn put_bytes(queue: &str, len: usize) -> Ask {
    Ask::Change(Change::Put { queue: queue.to_owned(), maxsize: 0, value: vec![0; len].into() })
}

fn log(topic: usize, len: usize) -> Ask {
    Ask::Change(Change::Log { topic: topic.to_string(), at_unix_ms: 0, value: "x".repeat(len) })
}

#[test]
fn names_values_and_numbers_have_bounds() {
    let mut env = Env::new();
    let a = env.session(1);
    assert_eq!(env.get(a, 1, acquire("")), Err(Refused::BadName { nbytes: 0 }));
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(env.get(a, 2, get(&long)), Err(Refused::BadName { nbytes: NAME_BYTES_MAX + 1 }));
    let too_large = Err(Refused::TooLarge { nbytes: VALUE_BYTES_MAX + 1, max: VALUE_BYTES_MAX });
    assert_eq!(env.get(a, 3, put_bytes("q", VALUE_BYTES_MAX + 1)), too_large);
    assert!(matches!(env.get(a, 4, log(0, TEXT_BYTES_MAX + 1)), Err(Refused::TooLarge { .. })));
    let of = lock("l");
    for (number, lease_ms) in [(5, 0), (6, LEASE_MS_MAX + 1)] {
        let ask = Ask::Change(Change::Acquire { of: of.clone(), limit: 1, lease_ms });
        assert!(matches!(env.get(a, number, ask), Err(Refused::OutOfBounds { .. })));
    }
    let none = Ask::Change(Change::Acquire { of, limit: 0, lease_ms: 5_000 });
    assert!(env.get(a, 7, none).unwrap_err().to_string().contains("the number of leases must be from 1"));
    let deep = Read::Metadata(vec!["x".to_owned(); PATH_PARTS_MAX + 1]);
    assert!(matches!(env.get(a, 8, read(deep)), Err(Refused::OutOfBounds { .. })));
    assert!(matches!(env.get(a, 9, Ask::Arrive { barrier: "b".into(), parties: 0 }), Err(Refused::OutOfBounds { .. })));
}

#[test]
fn when_values_find_no_room_locks_still_do_and_getting_makes_room() {
    let mut env = Env::new();
    let a = env.session(1);
    let mut number = 0;
    let refused = loop {
        number += 1;
        if let Err(refused) = env.get(a, number, put_bytes("q", VALUE_BYTES_MAX)) {
            break refused;
        }
    };
    assert_eq!((refused, number), (Refused::OutOfRoom, 64));
    assert!(matches!(env.get(a, 100, acquire("l")), Ok(Outcome::Granted(_))));
    env.ask(a, 101, get("q"));
    let told = env.told(a);
    let [ToSession::Answer { seq: Some(seen), .. }] = told.as_slice() else { panic!("{told:?}") };
    // It counts until it was seen.
    assert_eq!(env.get(a, 102, put_bytes("q", VALUE_BYTES_MAX)), Err(Refused::OutOfRoom));
    env.say(a, FromSession::Ping { number: 1, seen: *seen });
    env.told(a);
    assert_eq!(env.get(a, 103, put_bytes("q", VALUE_BYTES_MAX)), Ok(Outcome::Done));
}

#[test]
fn a_topic_forgets_its_oldest_events_and_topics_are_counted() {
    let mut env = Env::new();
    let a = env.session(1);
    let mut number = 0;
    let mut do_it = |env: &mut Env, ask| {
        number += 1;
        env.say(a, FromSession::Request { number, seen: number, wait_ms: Some(0), ask });
        env.answer(a, number).unwrap()
    };
    for event in 1..=TOPIC_EVENTS_MAX as u64 + 3 {
        assert_eq!(do_it(&mut env, log(0, 1)), Ok(Outcome::Count(event)));
    }
    let events = do_it(&mut env, read(Read::Events { topic: "0".into(), after: 0 }));
    let Ok(Outcome::Events(events)) = events else { panic!("{events:?}") };
    assert_eq!(events[0].number, 4);
    // As many large ones as fit.
    for _ in 0..20 {
        do_it(&mut env, log(1, TEXT_BYTES_MAX)).unwrap();
    }
    let Ok(Outcome::Events(events)) = do_it(&mut env, read(Read::Events { topic: "1".into(), after: 0 })) else {
        panic!("no events")
    };
    assert_eq!((events[0].number, events.len()), (6, 4));
    for topic in 2..TOPICS_MAX {
        do_it(&mut env, log(topic, 1)).unwrap();
    }
    assert_eq!(do_it(&mut env, log(TOPICS_MAX, 1)), Err(Refused::TooManyTopics));
    assert!(do_it(&mut env, log(0, 1)).is_ok());
}

#[test]
fn sessions_are_counted() {
    let mut env = Env::new();
    env.agrees = false;
    for session in 0..SESSIONS_MAX as u128 {
        let link = LinkId(session as u64);
        let mut effects = Effects::default();
        let event = Event::Joined { link, node: node(1), session: SessionId(session), is_new: true };
        env.coordinator.handle(env.now, event, &mut effects);
    }
    let link = env.join(u128::MAX, true);
    assert_eq!(env.told(link), [ToSession::NotOpened(Refused::TooManySessions)]);
}

#[test]
fn a_session_that_never_sees_an_answer_may_ask_for_nothing_more() {
    let mut env = Env::new();
    let a = env.session(1);
    let mut refused = None;
    for number in 1..10_000 {
        if let Err(error) = env.get(a, number, put("q", 0, "x")) {
            refused = Some((number, error));
            break;
        }
    }
    assert_eq!(refused, Some((4_097, Refused::TooManyWaiting)));
    let b = env.session(2);
    assert_eq!(env.get(b, 1, get("q")), value("x"));
}
