//! Events, queues, variables, barriers, metadata and topics, as one session or two see them.

use bytes::Bytes;

use super::env::{Env, UNIX_MS, get, put, read, value};
use crate::coordination::{Ask, Change, FromSession, LinkId, Logged, Outcome, Path, Read, Refused};

fn set(name: &str) -> Ask {
    Ask::Change(Change::SetEvent(name.to_owned()))
}

fn path(dotted: &str) -> Path {
    dotted.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn set_metadata(at: &str, leaves: &[(&str, &str)]) -> Ask {
    let leaves = leaves.iter().map(|(at, text)| (path(at), (*text).to_owned())).collect();
    Ask::Change(Change::SetMetadata { path: path(at), leaves })
}

fn leaves(leaves: &[(&str, &str)]) -> Result<Outcome, Refused> {
    Ok(Outcome::Leaves(leaves.iter().map(|(at, text)| (path(at), (*text).to_owned())).collect()))
}

fn log(topic: &str, text: &str) -> Ask {
    Ask::Change(Change::Log { topic: topic.to_owned(), at_unix_ms: 0, value: text.to_owned() })
}

fn events(topic: &str, after: u64) -> Ask {
    read(Read::Events { topic: topic.to_owned(), after })
}

fn arrive(barrier: &str, parties: u32) -> Ask {
    Ask::Arrive { barrier: barrier.to_owned(), parties }
}

fn pair(env: &mut Env) -> (LinkId, LinkId) {
    (env.session(1), env.session(2))
}

#[test]
fn who_waits_for_an_event_goes_on_when_it_is_set_and_at_once_while_it_is() {
    let mut env = Env::new();
    let (a, b) = pair(&mut env);
    env.ask(a, 1, read(Read::WaitSet("go".into())));
    env.ask(b, 1, read(Read::WaitSet("go".into())));
    assert_eq!((env.answer(a, 1), env.answer(b, 1)), (None, None));
    assert_eq!(env.get(b, 2, read(Read::IsSet("go".into()))), Ok(Outcome::Flag(false)));
    env.ask(b, 3, set("go"));
    assert_eq!(env.answer(a, 1), Some(Ok(Outcome::Done)));
    assert_eq!(env.told(b).len(), 2);
    assert_eq!(env.get(a, 2, read(Read::WaitSet("go".into()))), Ok(Outcome::Done));
    assert_eq!(env.get(a, 3, Ask::Change(Change::ClearEvent("go".into()))), Ok(Outcome::Done));
    assert_eq!(env.get(a, 4, read(Read::WaitSet("go".into()))), Ok(Outcome::TimedOut));
}

#[test]
fn a_queue_gives_what_was_put_in_its_order_to_those_who_wait_in_theirs() {
    let mut env = Env::new();
    let (a, b) = pair(&mut env);
    env.ask(a, 1, get("q"));
    env.ask(b, 1, get("q"));
    env.ask(b, 2, put("q", 0, "x"));
    assert_eq!((env.answer(a, 1), env.answer(b, 2)), (Some(value("x")), Some(Ok(Outcome::Done))));
    env.ask(a, 2, put("q", 0, "y"));
    assert_eq!((env.answer(a, 2), env.answer(b, 1)), (Some(Ok(Outcome::Done)), Some(value("y"))));
    for (number, text) in [(3, "1"), (4, "2")] {
        assert_eq!(env.get(a, number, put("q", 0, text)), Ok(Outcome::Done));
    }
    assert_eq!((env.get(b, 3, get("q")), env.get(b, 4, get("q"))), (value("1"), value("2")));
}

#[test]
fn a_full_queue_lets_who_puts_wait_until_somebody_gets() {
    let mut env = Env::new();
    let (a, b) = pair(&mut env);
    assert_eq!(env.get(a, 1, put("q", 1, "x")), Ok(Outcome::Done));
    assert_eq!(env.get(a, 2, put("q", 1, "y")), Ok(Outcome::TimedOut));
    env.ask(a, 3, put("q", 1, "y"));
    assert_eq!(env.answer(a, 3), None);
    assert_eq!(env.get(b, 1, get("q")), value("x"));
    assert_eq!(env.answer(a, 3), Some(Ok(Outcome::Done)));
    assert_eq!(env.get(b, 2, read(Read::Len("q".into()))), Ok(Outcome::Count(1)));
    // What nobody wanted after all is the next again, even into a full queue.
    let back = Ask::Change(Change::PutBack { queue: "q".into(), value: Bytes::from_static(b"x") });
    assert_eq!(env.get(b, 3, back), Ok(Outcome::Done));
    assert_eq!(env.get(b, 4, get("q")), value("x"));
    assert_eq!(env.get(b, 5, get("q")), value("y"));
    assert_eq!(env.get(b, 6, get("q")), Ok(Outcome::TimedOut));
    assert_eq!(env.get(a, 7, put("q", 0, "z")), Ok(Outcome::Done));
    assert_eq!(env.get(a, 8, Ask::Change(Change::ClearQueue("q".into()))), Ok(Outcome::Count(1)));
    assert_eq!(env.get(a, 9, read(Read::Len("q".into()))), Ok(Outcome::Count(0)));
}

#[test]
fn one_who_waits_no_more_is_passed_over() {
    let mut env = Env::new();
    let (a, b) = pair(&mut env);
    env.ask(a, 1, get("q"));
    env.ask_for(a, 2, Some(5_000), get("q"));
    env.ask(b, 1, get("q"));
    env.say(a, FromSession::Cancel { number: 1 });
    assert_eq!(env.answer(a, 1), Some(Ok(Outcome::Cancelled)));
    env.pass(6, &[a, b]);
    assert_eq!(env.answer(a, 2), Some(Ok(Outcome::TimedOut)));
    env.say(a, FromSession::Cancel { number: 2 });
    env.ask(a, 3, put("q", 0, "x"));
    assert_eq!((env.answer(a, 3), env.answer(b, 1)), (Some(Ok(Outcome::Done)), Some(value("x"))));
}

#[test]
fn a_variable_is_waited_for_until_it_is_set_and_is_the_last_value() {
    let mut env = Env::new();
    let (a, b) = pair(&mut env);
    env.ask(a, 1, read(Read::Variable("v".into())));
    assert_eq!(env.answer(a, 1), None);
    let set = |text: &'static str| {
        Ask::Change(Change::SetVariable { name: "v".into(), value: Bytes::from_static(text.as_bytes()) })
    };
    assert_eq!(env.get(b, 1, set("first")), Ok(Outcome::Done));
    assert_eq!(env.answer(a, 1), Some(value("first")));
    assert_eq!(env.get(b, 2, set("second")), Ok(Outcome::Done));
    assert_eq!(env.get(a, 2, read(Read::Variable("v".into()))), value("second"));
    assert_eq!(env.get(a, 3, Ask::Change(Change::DeleteVariable("v".into()))), Ok(Outcome::Flag(true)));
    assert_eq!(env.get(a, 4, Ask::Change(Change::DeleteVariable("v".into()))), Ok(Outcome::Flag(false)));
    assert_eq!(env.get(a, 5, read(Read::Variable("v".into()))), Ok(Outcome::TimedOut));
}

#[test]
fn a_barrier_lets_all_through_when_the_last_has_come_and_begins_anew() {
    let mut env = Env::new();
    let (a, b) = pair(&mut env);
    let mut generations = Vec::new();
    for round in 0..2 {
        env.ask(a, 1 + round, arrive("b", 2));
        assert_eq!(env.answer(a, 1 + round), None);
        let refused = env.get(b, 10 + round, arrive("b", 3));
        assert_eq!(refused, Err(Refused::PartiesDiffer { parties: 2 }));
        env.ask(b, 20 + round, arrive("b", 2));
        let (first, last) = (env.answer(a, 1 + round), env.answer(b, 20 + round));
        let Some(Ok(Outcome::Passed { generation, index: 0 })) = first else { panic!("{first:?}") };
        assert_eq!(last, Some(Ok(Outcome::Passed { generation, index: 1 })));
        generations.push(generation);
    }
    assert!(generations[0] < generations[1]);
    // One that waits no more is not counted.
    env.ask_for(a, 5, Some(1_000), arrive("b", 2));
    env.pass(2, &[a, b]);
    assert_eq!(env.answer(a, 5), Some(Ok(Outcome::TimedOut)));
    env.ask(b, 30, arrive("b", 2));
    assert_eq!(env.answer(b, 30), None);
}

#[test]
fn a_barrier_for_one_holds_nobody_up() {
    let mut env = Env::new();
    let a = env.session(1);
    assert!(matches!(env.get(a, 1, arrive("b", 1)), Ok(Outcome::Passed { index: 0, .. })));
}

#[test]
fn metadata_is_a_tree_in_which_the_last_one_set_counts() {
    let mut env = Env::new();
    let a = env.session(1);
    assert_eq!(env.get(a, 1, set_metadata("a.b", &[("a.b.x", "1"), ("a.b.y.z", "2")])), Ok(Outcome::Done));
    assert_eq!(env.get(a, 2, set_metadata("ab", &[("ab", "{}")])), Ok(Outcome::Done));
    let all = |number| (number, read(Read::Metadata(Path::new())));
    let (number, ask) = all(3);
    assert_eq!(env.get(a, number, ask), leaves(&[("a.b.x", "1"), ("a.b.y.z", "2"), ("ab", "{}")]));
    // Below an empty object, there is room; below a number, there is none.
    assert_eq!(env.get(a, 4, set_metadata("ab.c", &[("ab.c", "3")])), Ok(Outcome::Done));
    let refused = env.get(a, 5, set_metadata("a.b.x.deep", &[("a.b.x.deep", "4")]));
    assert_eq!(refused, Err(Refused::NotAnObject { path: path("a.b.x") }));
    assert_eq!(env.get(a, 6, set_metadata("a.b", &[("a.b", "[5]")])), Ok(Outcome::Done));
    assert_eq!(env.get(a, 7, read(Read::Metadata(path("a")))), leaves(&[("a.b", "[5]")]));
    assert_eq!(env.get(a, 8, Ask::Change(Change::DeleteMetadata(path("a")))), Ok(Outcome::Flag(true)));
    assert_eq!(env.get(a, 9, Ask::Change(Change::DeleteMetadata(path("a")))), Ok(Outcome::Flag(false)));
    let (number, ask) = all(10);
    assert_eq!(env.get(a, number, ask), leaves(&[("ab.c", "3")]));
    // Leaves below one another, and leaves elsewhere, are no tree.
    let nested = env.get(a, 11, set_metadata("n", &[("n.a", "1"), ("n.a.b", "2")]));
    assert_eq!(nested, Err(Refused::NotAnObject { path: path("n.a") }));
    assert!(matches!(env.get(a, 12, set_metadata("n", &[("m", "1")])), Err(Refused::NotAnObject { .. })));
}

#[test]
fn a_topic_gives_its_events_in_order_and_those_to_come() {
    let mut env = Env::new();
    let (a, b) = pair(&mut env);
    assert_eq!(env.get(a, 1, events("t", 0)), Ok(Outcome::TimedOut));
    env.ask(a, 2, events("t", 0));
    env.pass(1, &[a, b]);
    assert_eq!(env.get(b, 1, log("t", "1")), Ok(Outcome::Count(1)));
    let first = Logged { number: 1, at_unix_ms: UNIX_MS + 1_000, value: "1".to_owned() };
    assert_eq!(env.answer(a, 2), Some(Ok(Outcome::Events(vec![first]))));
    env.ask(a, 3, events("t", 1));
    assert_eq!(env.answer(a, 3), None);
    assert_eq!(env.get(b, 2, log("t", "2")), Ok(Outcome::Count(2)));
    let Some(Ok(Outcome::Events(second))) = env.answer(a, 3) else { panic!("no events") };
    assert_eq!(second.iter().map(|event| event.number).collect::<Vec<_>>(), [2]);
    assert_eq!(env.get(a, 4, read(Read::LastEvent("t".into()))), Ok(Outcome::Count(2)));
    assert_eq!(env.get(a, 5, read(Read::LastEvent("none".into()))), Ok(Outcome::Count(0)));
    assert_eq!(env.get(a, 6, read(Read::Topics)), Ok(Outcome::Names(vec!["t".to_owned()])));
}
