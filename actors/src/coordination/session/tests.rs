use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use starling_core::coordination::LeaseKind;

use super::*;

const LEASE: Duration = Duration::from_secs(10);

fn of() -> LeaseName {
    LeaseName { kind: LeaseKind::Lock, name: "l".to_owned() }
}

fn acquire() -> Ask {
    Ask::Change(Change::Acquire { of: of(), limit: 1, lease_ms: LEASE.as_millis() as u32 })
}

fn get() -> Ask {
    Ask::Change(Change::Get { queue: "q".to_owned() })
}

fn answer(number: u64, outcome: Outcome) -> ToSession {
    ToSession::Answer { number, seq: Some(number), outcome: Ok(outcome) }
}

/// A session with a link that was opened so long ago.
fn opened(ago: Duration) -> Session {
    let session = Session::default();
    session.link_opened(Instant::now() - ago);
    session.take_queue();
    session
}

/// What is said besides pings.
fn said(session: &Session) -> Vec<FromSession> {
    let (mut messages, _) = session.take_queue();
    messages.retain(|message| !matches!(message, FromSession::Ping { .. }));
    messages
}

/// A request, as it is said for the first time.
fn request(number: u64, seen: u64, ask: Ask) -> FromSession {
    FromSession::Request { number, seen, wait_ms: None, ask }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_answer_comes_to_the_one_who_asked_and_the_next_request_says_that_it_was_seen() {
    let session = opened(Duration::ZERO);
    let mut asking = Box::pin(session.ask(get(), None));
    assert!(poll(asking.as_mut()).is_pending());
    assert_eq!(said(&session), [request(1, 0, get())]);
    session.hear(answer(1, Outcome::Value(Bytes::from_static(b"x")))).unwrap();
    assert!(matches!(poll(asking.as_mut()), Poll::Ready(Ok(Outcome::Value(_)))));
    drop(asking);
    session.say(Change::SetEvent("e".to_owned()));
    assert_eq!(said(&session), [request(2, 1, Ask::Change(Change::SetEvent("e".to_owned())))]);
}

#[test]
fn what_is_given_to_one_who_waits_no_more_is_given_back() {
    let session = opened(Duration::ZERO);
    let value = Bytes::from_static(b"x");
    let put_back = Change::PutBack { queue: "q".to_owned(), value: value.clone() };
    let release = Change::Release { of: of(), token: 7 };
    for (ask, outcome, back) in [(get(), Outcome::Value(value), put_back), (acquire(), Outcome::Granted(7), release)] {
        // Before it is answered.
        let mut asking = Box::pin(session.ask(ask.clone(), None));
        assert!(poll(asking.as_mut()).is_pending());
        drop(asking);
        let number = session.lock().next_number;
        assert_eq!(said(&session).last(), Some(&FromSession::Cancel { number }));
        session.hear(answer(number, outcome.clone())).unwrap();
        let given = said(&session);
        assert!(
            matches!(&given[..], [FromSession::Request { ask: Ask::Change(change), .. }] if *change == back),
            "{given:?}"
        );
        // And after.
        let mut asking = Box::pin(session.ask(ask, None));
        assert!(poll(asking.as_mut()).is_pending());
        let number = session.lock().next_number;
        session.hear(answer(number, outcome)).unwrap();
        drop(asking);
        let given = said(&session);
        assert!(
            matches!(&given[..], [_, FromSession::Request { ask: Ask::Change(change), .. }] if *change == back),
            "{given:?}"
        );
        assert!(!session.holds(7));
    }
}

#[test]
fn a_lease_lasts_from_when_the_session_was_heard_and_is_heard_of_three_times_as_often() {
    let session = opened(Duration::from_secs(5));
    session.say(Change::Acquire { of: of(), limit: 1, lease_ms: LEASE.as_millis() as u32 });
    let (_, idle) = session.take_queue();
    session.lock().open.clear();
    let mut asking = Box::pin(session.ask(acquire(), None));
    assert!(poll(asking.as_mut()).is_pending());
    let number = session.lock().next_number;
    session.hear(answer(number, Outcome::Granted(7))).unwrap();
    assert!(matches!(poll(asking.as_mut()), Poll::Ready(Ok(Outcome::Granted(7)))));
    assert!(session.holds(7) && !*session.watch_lease(7).borrow());
    let (_, next) = session.take_queue();
    assert!(next <= idle && next <= Instant::now() + LEASE / 3);
    let ends = session.end_leases().unwrap();
    assert!(ends <= Instant::now() + LEASE && ends > Instant::now());
}

#[test]
fn a_lease_whose_time_is_over_stays_lost_whatever_is_heard_after_that() {
    let session = opened(Duration::ZERO);
    session.lock().leases.insert(7, Lease { of: of(), length: LEASE, lost: watch::Sender::new(false) });
    let lost = session.watch_lease(7);
    assert!(session.holds(7));
    session.lock().heard_at = Some(Instant::now() - LEASE);
    // A link is there again, before anybody has looked at the clock.
    session.link_opened(Instant::now());
    assert!(!session.holds(7) && *lost.borrow() && *session.watch_lease(7).borrow());
    let release = Ask::Change(Change::Release { of: of(), token: 7 });
    assert!(matches!(&said(&session)[..], [FromSession::Request { ask, .. }] if *ask == release));
}

#[test]
fn a_lease_whose_loss_comes_with_its_grant_is_not_held() {
    let session = opened(Duration::ZERO);
    let mut asking = Box::pin(session.ask(acquire(), None));
    assert!(poll(asking.as_mut()).is_pending());
    session.hear(answer(1, Outcome::Granted(7))).unwrap();
    session.hear(ToSession::Lost { token: 7 }).unwrap();
    assert!(matches!(poll(asking.as_mut()), Poll::Ready(Ok(Outcome::Granted(7)))));
    assert!(!session.holds(7) && *session.watch_lease(7).borrow());
}

#[test]
fn a_new_link_is_told_again_what_has_no_answer_and_nothing_else() {
    let session = opened(Duration::ZERO);
    let mut first = Box::pin(session.ask(get(), None));
    let mut second = Box::pin(session.ask(acquire(), None));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    said(&session);
    session.hear(answer(1, Outcome::Value(Bytes::new()))).unwrap();
    session.link_opened(Instant::now());
    assert_eq!(said(&session), [request(2, 1, acquire())]);
    // And one that was given up meanwhile does not wait.
    drop(second);
    session.link_opened(Instant::now());
    let again = FromSession::Request { number: 2, seen: 1, wait_ms: Some(0), ask: acquire() };
    assert_eq!(said(&session), [again]);
}

#[test]
fn when_it_is_over_everybody_is_told() {
    let session = opened(Duration::ZERO);
    let mut asking = Box::pin(session.ask(get(), None));
    assert!(poll(asking.as_mut()).is_pending());
    session.lock().leases.insert(7, Lease { of: of(), length: LEASE, lost: watch::Sender::new(false) });
    let lost = session.watch_lease(7);
    let Err(error) = session.hear(ToSession::NotOpened(Refused::Expired)) else { panic!("it goes on") };
    session.end(error);
    let told = poll(asking.as_mut());
    assert!(matches!(told, Poll::Ready(Err(CoordinationError::Refused(Refused::Expired)))), "{told:?}");
    assert!(*lost.borrow());
    let next = poll(Box::pin(session.ask(get(), None)).as_mut());
    assert!(matches!(next, Poll::Ready(Err(CoordinationError::Refused(Refused::Expired)))), "{next:?}");
}
