//! What is said before a quorum has agreed, what is said twice, and what is remembered.

use super::env::{Env, acquire, get, lock, put, read, release, token, value};
use crate::coordination::{Ask, Change, Event, FromSession, Outcome, Read, ToSession};

#[test]
fn nothing_is_answered_before_the_quorum_has_agreed_and_what_waits_goes_together() {
    let mut env = Env::new();
    let [a, b] = [env.session(1), env.session(2)];
    env.agrees = false;
    env.ask(a, 1, put("q", 0, "x"));
    assert_eq!(env.proposed.as_ref().map(Vec::len), Some(1));
    for number in 2..5 {
        env.ask(a, number, put("q", 0, "x"));
    }
    // Who only reads would read what may never be.
    env.ask(b, 1, read(Read::Len("q".into())));
    assert!(env.said.is_empty());
    env.say(b, FromSession::Ping { number: 9, seen: 0 });
    assert_eq!(env.told(b), [ToSession::Pong { number: 9 }]);
    env.agree();
    assert_eq!(env.answer(a, 1), Some(Ok(Outcome::Done)));
    assert_eq!((env.proposed.as_ref().map(Vec::len), env.answer(b, 1)), (Some(3), None));
    env.agree();
    assert_eq!((env.told(a).len(), env.answer(b, 1)), (3, Some(Ok(Outcome::Count(4)))));
    assert!(env.proposed.is_none());
}

#[test]
fn a_request_that_is_said_twice_is_done_once_also_by_the_next_scheduler() {
    let mut env = Env::new();
    let a = env.session(1);
    env.ask(a, 1, put("q", 0, "x"));
    env.ask(a, 2, put("q", 0, "y"));
    env.ask(a, 3, get("q"));
    env.ask(a, 4, acquire("l"));
    let first = env.told(a);
    env.fail_over();
    let a = env.join(1, false);
    assert_eq!(env.told(a), [ToSession::Opened]);
    env.ask(a, 1, put("q", 0, "x"));
    env.ask(a, 2, put("q", 0, "y"));
    env.ask(a, 3, get("q"));
    env.ask(a, 4, acquire("l"));
    assert_eq!(env.told(a), first);
    assert_eq!(env.get(a, 5, read(Read::Len("q".into()))), Ok(Outcome::Count(1)));
    assert_eq!(env.get(a, 6, get("q")), value("y"));
}

#[test]
fn what_waits_is_said_again_over_another_link_and_waits_once() {
    let mut env = Env::new();
    let [a, b] = [env.session(1), env.session(2)];
    env.ask(a, 1, get("q"));
    env.ask(a, 1, get("q"));
    env.event(Event::LinkClosed(a));
    let a = env.join(1, false);
    env.told(a);
    env.ask(a, 1, get("q"));
    env.ask(b, 1, put("q", 0, "x"));
    env.ask(b, 2, put("q", 0, "y"));
    assert_eq!(env.answer(a, 1), Some(value("x")));
    env.told(b);
    assert_eq!(env.get(b, 3, read(Read::Len("q".into()))), Ok(Outcome::Count(1)));
}

#[test]
fn a_link_that_is_opened_beside_the_old_one_takes_its_place() {
    let mut env = Env::new();
    let old = env.session(1);
    env.ask(old, 1, get("q"));
    let new = env.join(1, false);
    assert_eq!((env.told(new), env.closed.clone()), (vec![ToSession::Opened], vec![old]));
    // What still comes over the old one is nobody's.
    env.ask(old, 2, put("q", 0, "x"));
    env.event(Event::LinkClosed(old));
    assert_eq!(env.get(new, 3, read(Read::Len("q".into()))), Ok(Outcome::Count(0)));
}

#[test]
fn a_session_that_never_heard_that_it_is_open_may_say_so_again() {
    let mut env = Env::new();
    env.session(1);
    env.fail_over();
    env.session(1);
}

#[test]
fn what_a_session_has_seen_is_forgotten() {
    let mut env = Env::new();
    let a = env.session(1);
    env.ask(a, 1, acquire("l"));
    let told = env.told(a);
    let [ToSession::Answer { seq: Some(1), outcome: Ok(Outcome::Granted(held)), .. }] = told.as_slice() else {
        panic!("{told:?}")
    };
    env.say(a, FromSession::Request { number: 2, seen: 1, wait_ms: None, ask: release("l", *held) });
    assert_eq!(env.answer(a, 2), Some(Ok(Outcome::Flag(true))));
    // The answer to the first is not remembered: whoever says it again means another one.
    env.ask(a, 1, acquire("l"));
    assert!(token(env.answer(a, 1)) > *held);
    assert_eq!(env.get(a, 3, read(Read::Leases(lock("l")))), Ok(Outcome::Count(1)));
}

#[test]
fn large_answers_that_were_seen_are_forgotten_without_another_request() {
    let mut env = Env::new();
    let a = env.session(1);
    let large = Ask::Change(Change::Put { queue: "q".into(), maxsize: 0, value: vec![7; 100_000].into() });
    env.ask(a, 1, large);
    env.ask(a, 2, get("q"));
    env.told(a);
    let before = postcard::to_stdvec(&env.agreed).unwrap().len();
    env.say(a, FromSession::Ping { number: 1, seen: 2 });
    assert!(postcard::to_stdvec(&env.agreed).unwrap().len() + 100_000 <= before);
    assert_eq!(env.agreed, *env.coordinator.state());
}
