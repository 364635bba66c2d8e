//! Locks and semaphores: who holds them, for how long, and under which token.

use super::env::{Env, acquire, lock, node, release, semaphore, token};
use crate::coordination::{
    Ask, Change, Coordination, Event, FromSession, LeaseName, LinkId, Outcome, Read, Refused, ToSession,
};
use crate::ids::{Term, Time};
use crate::ledger::{Entry, Ledger};

fn leases(env: &mut Env, link: LinkId, number: u64, of: LeaseName) -> u64 {
    match env.get(link, number, Ask::Read(Read::Leases(of))) {
        Ok(Outcome::Count(count)) => count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_goes_to_those_who_wait_in_their_order_each_time_with_a_greater_token() {
    let mut env = Env::new();
    let links: Vec<LinkId> = (1..=3).map(|session| env.session(session)).collect();
    for link in &links {
        env.ask(*link, 1, acquire("l"));
    }
    let mut last = 0;
    for (at, link) in links.iter().enumerate() {
        let granted = token(env.answer(*link, 1));
        assert!(granted > last);
        last = granted;
        assert!(links[at + 1..].iter().all(|later| !env.said.contains_key(later)));
        assert_eq!(env.get(*link, 2, release("l", granted)), Ok(Outcome::Flag(true)));
    }
    assert_eq!(env.get(links[0], 3, release("l", last)), Ok(Outcome::Flag(false)));
    assert_eq!(leases(&mut env, links[0], 4, lock("l")), 0);
}

#[test]
fn a_lease_is_ended_by_its_holder_only() {
    let mut env = Env::new();
    let [a, b] = [env.session(1), env.session(2)];
    env.ask(a, 1, acquire("l"));
    let held = token(env.answer(a, 1));
    assert_eq!(env.get(b, 1, release("l", held)), Ok(Outcome::Flag(false)));
    assert_eq!(env.get(b, 2, acquire("l")), Ok(Outcome::TimedOut));
    assert_eq!(leases(&mut env, b, 3, lock("l")), 1);
}

#[test]
fn a_semaphore_has_as_many_leases_as_all_say_and_who_says_another_number_is_told() {
    let mut env = Env::new();
    let [a, b] = [env.session(1), env.session(2)];
    for number in 1..=2 {
        env.ask(a, number, semaphore("s", 2));
        token(env.answer(a, number));
    }
    env.ask(a, 3, semaphore("s", 2));
    assert_eq!(env.answer(a, 3), None);
    assert_eq!(env.get(b, 1, semaphore("s", 3)), Err(Refused::LimitDiffers { limit: 2 }));
    // A lock of that name is something else.
    env.ask(b, 2, acquire("s"));
    token(env.answer(b, 2));
}

#[test]
fn who_is_not_heard_for_so_long_loses_the_lease_and_the_next_gets_a_greater_token() {
    let mut env = Env::new();
    let [a, b] = [env.session(1), env.session(2)];
    env.ask(a, 1, acquire("l"));
    let first = token(env.answer(a, 1));
    env.ask(b, 1, acquire("l"));
    env.pass(100, &[a, b]);
    assert_eq!(env.answer(b, 1), None);
    env.pass(30, &[b]);
    assert_eq!(env.answer(b, 1), None);
    env.pass(1, &[b]);
    assert!(token(env.answer(b, 1)) > first);
    assert_eq!(env.told(a), [ToSession::Lost { token: first }]);
    // The first holder comes back too late.
    assert_eq!(env.get(a, 2, release("l", first)), Ok(Outcome::Flag(false)));
}

#[test]
fn a_grant_that_was_never_heard_of_and_has_expired_is_not_told_later() {
    let mut env = Env::new();
    let [a, b] = [env.session(1), env.session(2)];
    env.ask(a, 1, acquire("l"));
    let unheard = token(env.answer(a, 1));
    env.event(Event::LinkClosed(a));
    env.pass(31, &[b]);
    env.ask(b, 1, acquire("l"));
    assert!(token(env.answer(b, 1)) > unheard);
    let a = env.join(1, false);
    env.told(a);
    env.ask(a, 1, acquire("l"));
    assert_eq!(env.answer(a, 1), Some(Ok(Outcome::TimedOut)));
}

#[test]
fn who_leaves_gives_everything_back_at_once_whether_it_says_so_or_its_node_does() {
    let mut env = Env::new();
    let links: Vec<LinkId> = (1..=3).map(|session| env.session(session)).collect();
    for link in &links {
        env.ask(*link, 1, acquire("l"));
    }
    token(env.answer(links[0], 1));
    env.say(links[0], FromSession::Leave);
    token(env.answer(links[1], 1));
    env.event(Event::NodeLeft(node(2)));
    token(env.answer(links[2], 1));
    assert_eq!(env.closed, [links[0], links[1]]);
}

#[test]
fn who_loses_its_link_keeps_its_lease_but_not_its_place_in_the_line() {
    let mut env = Env::new();
    let [a, b, c] = [env.session(1), env.session(2), env.session(3)];
    for link in [a, b, c] {
        env.ask(link, 1, acquire("l"));
    }
    let held = token(env.answer(a, 1));
    env.event(Event::LinkClosed(a));
    env.event(Event::LinkClosed(b));
    env.pass(20, &[c]);
    assert_eq!(env.answer(c, 1), None);
    let a = env.join(1, false);
    assert_eq!(env.told(a), [ToSession::Opened]);
    assert_eq!(env.get(a, 2, release("l", held)), Ok(Outcome::Flag(true)));
    token(env.answer(c, 1));
}

#[test]
fn the_next_scheduler_gives_every_holder_a_full_lease_and_goes_on_with_the_tokens() {
    let mut env = Env::new();
    let [a, b] = [env.session(1), env.session(2)];
    env.ask(a, 1, acquire("l"));
    let first = token(env.answer(a, 1));
    env.ask(b, 1, acquire("l"));
    env.pass(25, &[]);
    env.fail_over();
    let b = env.join(2, false);
    env.told(b);
    env.ask(b, 1, acquire("l"));
    env.pass(30, &[b]);
    assert_eq!(env.answer(b, 1), None);
    env.pass(1, &[b]);
    assert!(token(env.answer(b, 1)) > first);
}

#[test]
fn a_session_that_was_away_for_too_long_is_told_so_and_a_new_one_is_let_in() {
    let mut env = Env::new();
    let a = env.session(1);
    env.event(Event::LinkClosed(a));
    env.pass(601, &[]);
    let again = env.join(1, false);
    assert_eq!(env.told(again), [ToSession::NotOpened(Refused::Expired)]);
    assert_eq!(env.closed, [again]);
    env.session(2);
}

#[test]
fn tokens_of_a_cluster_that_is_founded_anew_are_greater_than_those_of_the_one_before() {
    let founded = |term| {
        let mut ledger = Ledger::default();
        ledger.apply(Entry::Founded(term));
        let mut env = Env::of(Coordination::clone(&ledger.coordination), Time(0));
        let a = env.session(1);
        env.ask(a, 1, acquire("l"));
        token(env.answer(a, 1))
    };
    assert!(founded(Term::before_founding(1_800_000_000, 7)) < founded(Term::before_founding(1_800_000_001, 0)));
}

#[test]
fn a_lease_lasts_as_long_as_its_holder_has_said() {
    let mut env = Env::new();
    let a = env.session(1);
    let short = |number: u64| Ask::Change(Change::Acquire { of: lock(&number.to_string()), limit: 1, lease_ms: 5_000 });
    env.ask(a, 1, short(1));
    let brief = token(env.answer(a, 1));
    env.ask(a, 2, acquire("long"));
    token(env.answer(a, 2));
    env.pass(6, &[]);
    assert_eq!(env.told(a), [ToSession::Lost { token: brief }]);
    let b = env.session(2);
    assert_eq!((leases(&mut env, b, 1, lock("1")), leases(&mut env, b, 2, lock("long"))), (0, 1));
}
