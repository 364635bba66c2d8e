//! What the directory answers and orders, with nodes that do as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// Nodes, their links, and a directory.
struct Env {
    directory: Directory,
    now: Time,
    effects: Effects,
    links: u64,
    nodes: BTreeMap<u8, Model>,
    /// What the ledger has.
    ledger: BTreeMap<String, Arc<ActorSpec>>,
    /// Whether the ledger can be written.
    has_quorum: bool,
    answers: BTreeMap<u64, Answer>,
    asks: u64,
}

/// A node that does as it is told.
#[derive(Default)]
struct Model {
    link: Option<LinkId>,
    held: BTreeMap<String, HeldName>,
    /// What it was told to make; nothing comes of it before it is asked to.
    starting: Vec<(Arc<ActorSpec>, Incarnation)>,
    actors: u64,
}

impl Env {
    fn new(nodes: u8) -> Env {
        let mut env = Env {
            directory: Directory::new(Term(1), Time(0), []),
            now: Time(0),
            effects: Effects::default(),
            links: 0,
            nodes: (0..nodes).map(|number| (number, Model::default())).collect(),
            ledger: BTreeMap::new(),
            has_quorum: true,
            answers: BTreeMap::new(),
            asks: 0,
        };
        env.event(Event::Tick);
        (0..nodes).for_each(|number| env.link(number));
        env
    }

    fn event(&mut self, event: Event) {
        self.directory.handle(self.now, event, &mut self.effects);
        self.directory.check();
        self.settle();
    }

    /// Has all that the directory wants be done.
    fn settle(&mut self) {
        loop {
            let effects = std::mem::take(&mut self.effects);
            if effects.to_nodes.is_empty() && effects.to_log.is_empty() && effects.to_close.is_empty() {
                return;
            }
            for link in effects.to_close {
                self.nodes.values_mut().filter(|node| node.link == Some(link)).for_each(|node| node.link = None);
            }
            for (link, message) in effects.to_nodes {
                // As it goes over the wire.
                let message = postcard::from_bytes(&postcard::to_stdvec(&message).unwrap()).unwrap();
                if let Some(node) = self.nodes.values_mut().find(|node| node.link == Some(link)) {
                    match message {
                        ToNode::Answer { ask, answer } => drop(self.answers.insert(ask, answer)),
                        ToNode::Confirmed => {}
                        ToNode::Start { spec, incarnation } => node.starting.push((spec, incarnation)),
                        ToNode::Stop { name, actor, .. } => {
                            node.held.retain(|_, held| held.name != name || held.actor != actor);
                        }
                    }
                }
            }
            for entry in effects.to_log {
                let event = if self.has_quorum {
                    match entry.clone() {
                        Entry::Actor(spec) => drop(self.ledger.insert(spec.name.clone(), spec)),
                        Entry::ForgetActor(name) => drop(self.ledger.remove(&name)),
                        other => panic!("{other:?}"),
                    }
                    Event::Logged(entry)
                } else {
                    Event::NotLogged { entry, problem: "no quorum".to_owned() }
                };
                self.directory.handle(self.now, event, &mut self.effects);
                self.directory.check();
            }
        }
    }

    fn pass(&mut self, us: u64) {
        self.now.0 += us;
        self.event(Event::Tick);
    }

    fn link(&mut self, number: u8) {
        self.links += 1;
        let link = LinkId(self.links);
        let model = self.nodes.get_mut(&number).unwrap();
        model.link = Some(link);
        // What it was making is made anew if it is told so.
        model.starting.clear();
        let names = model.held.values().cloned().collect();
        self.event(Event::Linked { link, node: node(number) });
        let info = NodeInfo { name: format!("n{number}"), can_host: true, types: vec!["Counter".to_owned()] };
        self.from(number, FromNode::Introduce(info));
        self.from(number, FromNode::Names { names, is_last: true });
    }

    fn unlink(&mut self, number: u8) {
        if let Some(link) = self.nodes.get_mut(&number).unwrap().link.take() {
            self.event(Event::Unlinked { link });
        }
    }

    fn down(&mut self, number: u8) {
        self.nodes.insert(number, Model::default());
        self.event(Event::NodeDown { node: node(number) });
    }

    fn from(&mut self, number: u8, message: FromNode) {
        if let Some(link) = self.nodes[&number].link {
            self.event(Event::FromNode { link, message });
        }
    }

    fn ask(&mut self, number: u8, question: Ask) -> Option<Answer> {
        self.asks += 1;
        let ask = self.asks;
        self.from(number, FromNode::Ask { ask, question });
        self.answers.get(&ask).cloned()
    }

    fn claim(&mut self, number: u8, name: &str) -> Option<Answer> {
        let model = self.nodes.get_mut(&number).unwrap();
        model.actors += 1;
        let actor = model.actors;
        let question = Ask::Claim { name: name.to_owned(), actor, type_name: "Counter".to_owned() };
        let answer = self.ask(number, question);
        if answer == Some(Answer::Done) {
            let held = HeldName { name: name.to_owned(), actor, type_name: "Counter".to_owned(), spawned: None };
            self.nodes.get_mut(&number).unwrap().held.insert(name.to_owned(), held);
        }
        answer
    }

    fn spawn(&mut self, number: u8, spec: ActorSpec) -> Option<Answer> {
        self.ask(number, Ask::Spawn(Arc::new(spec)))
    }

    /// A node makes what it was told to make.
    fn make(&mut self, number: u8) {
        let model = self.nodes.get_mut(&number).unwrap();
        let mut made = Vec::new();
        for (spec, incarnation) in std::mem::take(&mut model.starting) {
            model.actors += 1;
            let held = HeldName {
                name: spec.name.clone(),
                actor: model.actors,
                type_name: spec.type_name.clone(),
                spawned: Some((spec.id, incarnation)),
            };
            made.push((spec.name.clone(), incarnation, model.actors));
            model.held.insert(spec.name.clone(), held);
        }
        for (name, incarnation, actor) in made {
            self.from(number, FromNode::Started { name, incarnation, outcome: Ok(actor) });
        }
    }

    fn make_all(&mut self) {
        let numbers: Vec<u8> = self.nodes.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.make(number));
    }

    fn end(&mut self, number: u8, name: &str, end: End) {
        let Some(held) = self.nodes.get_mut(&number).unwrap().held.remove(name) else { return };
        match held.spawned {
            Some((_, incarnation)) => {
                self.from(number, FromNode::Ended { name: name.to_owned(), incarnation, end });
            }
            None => self.from(number, FromNode::Released { name: name.to_owned(), actor: held.actor }),
        }
    }

    /// Who says that it holds the name, of the nodes with a link.
    fn holders(&self, name: &str) -> Vec<u8> {
        let holds = self.nodes.iter().filter(|(_, node)| node.link.is_some() && node.held.contains_key(name));
        holds.map(|(number, _)| *number).collect()
    }

    fn status(&mut self, name: &str) -> ActorStatus {
        let Some(Answer::Listed(listed)) = self.ask(0, Ask::List) else { panic!("nothing is listed") };
        listed.into_iter().find(|status| status.name == name).unwrap()
    }
}

fn spec(name: &str, restart: Restart) -> ActorSpec {
    ActorSpec {
        name: name.to_owned(),
        id: 7,
        type_name: "Counter".to_owned(),
        args: bytes::Bytes::from_static(b"abc"),
        placement: Place::Any,
        restart,
    }
}

const TWICE: Restart = Restart::OnFailure { max: 2, within: Duration::from_secs(60) };

#[test]
fn the_first_who_claims_a_name_has_it_until_it_is_released() {
    let mut env = Env::new(2);
    assert_eq!(env.claim(0, "a"), Some(Answer::Done));
    assert_eq!(env.claim(1, "a"), Some(Answer::Taken(node(0))));
    let Some(Answer::Held(Some(holder))) = env.ask(1, Ask::Find("a".to_owned())) else { panic!("not found") };
    assert_eq!((holder.node, holder.type_name.as_str()), (node(0), "Counter"));
    // What another node says of it does not count.
    env.from(1, FromNode::Released { name: "a".to_owned(), actor: 1 });
    assert_eq!(env.claim(1, "a"), Some(Answer::Taken(node(0))));
    env.end(0, "a", End::Stopped);
    assert_eq!(env.claim(1, "a"), Some(Answer::Done));
    assert!(matches!(env.claim(1, ""), Some(Answer::Problem(_))));
    assert!(matches!(env.claim(1, &"x".repeat(257)), Some(Answer::Problem(_))));
}

#[test]
fn a_node_keeps_its_names_for_a_grace_and_whoever_comes_back_later_is_told_to_stop() {
    let mut env = Env::new(2);
    env.claim(0, "a");
    env.unlink(0);
    env.pass(GRACE_US - 1);
    assert_eq!(env.claim(1, "a"), Some(Answer::Taken(node(0))));
    env.link(0);
    env.pass(GRACE_US * 2);
    assert_eq!(env.holders("a"), [0]);
    env.unlink(0);
    env.pass(GRACE_US);
    assert_eq!(env.claim(1, "a"), Some(Answer::Done));
    env.link(0);
    assert_eq!(env.holders("a"), [1]);
    // A node that is down loses them at once.
    env.down(1);
    assert_eq!(env.claim(0, "a"), Some(Answer::Done));
}

#[test]
fn a_new_directory_hears_who_holds_what_before_it_decides() {
    let mut env = Env::new(2);
    env.claim(0, "a");
    env.directory = Directory::new(Term(2), env.now, [node(0), node(1)]);
    env.link(1);
    assert_eq!(env.claim(1, "a"), None, "it waits");
    env.link(0);
    assert_eq!(env.answers.values().last(), Some(&Answer::Taken(node(0))));
    // A node that never comes is not waited for for ever.
    env.directory = Directory::new(Term(3), env.now, [node(0), node(1)]);
    env.link(1);
    assert_eq!(env.claim(1, "a"), None);
    env.pass(RECOVERY_US);
    assert_eq!(env.answers.values().last(), Some(&Answer::Done));
    env.nodes.get_mut(&1).unwrap().held.insert(
        "a".to_owned(),
        HeldName { name: "a".to_owned(), actor: 2, type_name: "Counter".to_owned(), spawned: None },
    );
    env.link(0);
    assert_eq!(env.holders("a"), [1], "the first has it");
}

#[test]
fn an_actor_is_spawned_once_the_ledger_has_it_on_the_emptiest_node_that_can() {
    let mut env = Env::new(3);
    for name in ["a", "b", "c"] {
        assert_eq!(env.spawn(0, spec(name, TWICE)), None);
        assert!(env.ledger.contains_key(name));
        env.make_all();
        assert!(matches!(env.answers.values().last(), Some(Answer::Held(Some(_)))));
    }
    let on: BTreeSet<u8> = ["a", "b", "c"].into_iter().flat_map(|name| env.holders(name)).collect();
    assert_eq!(on.len(), 3);
    // Asked again, as after a lost link, it is the same.
    assert!(matches!(env.spawn(1, spec("a", TWICE)), Some(Answer::Held(Some(_)))));
    assert!(matches!(env.spawn(1, ActorSpec { id: 8, ..spec("a", TWICE) }), Some(Answer::Taken(_))));
    assert!(matches!(env.claim(1, "a"), Some(Answer::Taken(_))));
    // Where it may be is what is said.
    let placed = |place| ActorSpec { placement: place, ..spec("d", TWICE) };
    env.spawn(0, placed(Place::Node("n2".to_owned())));
    env.make_all();
    assert_eq!(env.holders("d"), [2]);
    let near = ActorSpec { name: "e".to_owned(), ..placed(Place::Near(node(2))) };
    env.spawn(0, near);
    env.make_all();
    assert_eq!(env.holders("e"), [2]);
    for (spec, problem) in [
        (
            ActorSpec { placement: Place::Node("x".to_owned()), ..spec("f", TWICE) },
            "no node that hosts actors is called x",
        ),
        (
            ActorSpec { type_name: "my::Other".to_owned(), ..spec("f", TWICE) },
            "[n0, n1, n2] cannot make actors of type my::Other",
        ),
        (ActorSpec { args: vec![0; ARGS_BYTES_MAX + 1].into(), ..spec("f", TWICE) }, "may have 1048576"),
    ] {
        let answer = env.spawn(0, spec);
        assert!(matches!(&answer, Some(Answer::Problem(text)) if text.contains(problem)), "{answer:?}");
    }
    assert!(!env.ledger.contains_key("f"));
}

#[test]
fn an_actor_that_panics_is_made_anew_on_its_node_until_that_is_too_often() {
    let mut env = Env::new(3);
    env.spawn(0, spec("a", TWICE));
    env.make_all();
    let on = env.holders("a")[0];
    for restarts in 1..=2 {
        env.end(on, "a", End::Panicked);
        assert_eq!(env.ask(0, Ask::Find("a".to_owned())), Some(Answer::Held(None)));
        env.pass(1_000_000);
        env.make_all();
        assert_eq!(env.holders("a"), [on]);
        let status = env.status("a");
        assert_eq!((status.state, status.restarts), (ActorState::Running, restarts));
        assert_eq!(status.problem.as_deref(), Some("it panicked"));
    }
    env.end(on, "a", End::Panicked);
    env.pass(60_000_000);
    env.make_all();
    assert!(env.holders("a").is_empty() && env.ledger.is_empty());
    let answer = env.ask(0, Ask::Find("a".to_owned()));
    assert!(matches!(&answer, Some(Answer::GivenUp(why)) if why.contains("failed 3 times within 60 s")), "{answer:?}");
    assert_eq!(env.claim(1, "a"), Some(Answer::Done), "the name is free");
}

#[test]
fn what_follows_an_end_is_what_the_policy_says() {
    for (restart, after_stop, after_panic) in
        [(Restart::Never, false, false), (TWICE, false, true), (Restart::Always, true, true)]
    {
        for (end, is_anew) in [(End::Stopped, after_stop), (End::Panicked, after_panic)] {
            let mut env = Env::new(2);
            env.spawn(0, spec("a", restart));
            env.make_all();
            let on = env.holders("a")[0];
            env.end(on, "a", end.clone());
            env.pass(1_000_000);
            env.make_all();
            assert_eq!(env.holders("a") == [on], is_anew, "{restart:?} {end:?}");
            assert_eq!(env.ledger.contains_key("a"), is_anew);
        }
    }
}

#[test]
fn an_actor_whose_node_is_lost_is_made_on_another_also_by_the_next_directory() {
    let mut env = Env::new(3);
    env.spawn(0, spec("a", TWICE));
    env.make_all();
    let first = env.holders("a")[0];
    env.down(first);
    env.pass(1);
    env.make_all();
    let second = env.holders("a")[0];
    assert_ne!(first, second);
    // The leader is lost with the holder.
    env.directory = Directory::new(Term(2), env.now, (0..3).filter(|number| *number != first).map(node));
    for spec in env.ledger.values().cloned().collect::<Vec<_>>() {
        env.event(Event::Restored(spec));
    }
    env.down(second);
    let third = 3 - first - second;
    env.link(third);
    env.pass(1);
    env.make_all();
    assert_eq!(env.holders("a"), [third]);
    // A holder that was cut off and comes back is told to stop, and one that is there stays.
    let old = env.nodes[&third].held["a"].clone();
    let held = HeldName { actor: 99, spawned: Some((7, Incarnation { term: Term(1), number: 1 })), ..old };
    env.nodes.get_mut(&second).unwrap().held.insert("a".to_owned(), held);
    env.link(second);
    assert_eq!(env.holders("a"), [third]);
}

#[test]
fn an_actor_that_must_be_on_a_node_waits_for_it() {
    let mut env = Env::new(2);
    env.spawn(0, ActorSpec { placement: Place::Node("n1".to_owned()), ..spec("a", TWICE) });
    env.make_all();
    env.down(1);
    env.pass(1_000_000);
    let status = env.status("a");
    assert_eq!(
        (status.state, status.problem.as_deref()),
        (ActorState::Waiting, Some("no node that hosts actors is called n1"))
    );
    env.link(1);
    env.pass(1_000_000);
    env.make_all();
    assert_eq!(env.holders("a"), [1]);
}

#[test]
fn an_actor_that_cannot_be_made_fails_who_spawns_it_and_later_counts_as_a_failure() {
    let mut env = Env::new(1);
    env.spawn(0, spec("a", TWICE));
    let fail = |env: &mut Env| {
        let (_, incarnation) = env.nodes.get_mut(&0).unwrap().starting.remove(0);
        env.from(0, FromNode::Started { name: "a".to_owned(), incarnation, outcome: Err("no disk".to_owned()) });
    };
    fail(&mut env);
    assert_eq!(env.answers.values().last(), Some(&Answer::Problem("no disk".to_owned())));
    assert!(env.ledger.is_empty());
    env.spawn(0, spec("a", TWICE));
    env.make_all();
    env.end(0, "a", End::Panicked);
    for _ in 0..2 {
        env.pass(1_000_000);
        fail(&mut env);
    }
    let answer = env.ask(0, Ask::Find("a".to_owned()));
    assert!(matches!(&answer, Some(Answer::GivenUp(why)) if why.contains("no disk")), "{answer:?}");
}

#[test]
fn a_spawned_actor_is_stopped_by_name_and_one_that_cannot_be_forgotten_yet_is_later() {
    let mut env = Env::new(2);
    env.spawn(0, spec("a", Restart::Always));
    env.make_all();
    env.has_quorum = false;
    assert_eq!(env.ask(1, Ask::Stop("a".to_owned())), None);
    env.has_quorum = true;
    env.pass(1_000_000);
    assert_eq!(env.answers.values().last(), Some(&Answer::Done));
    assert!(env.holders("a").is_empty() && env.ledger.is_empty());
    for (name, problem) in [("a", "no actor of the name a is spawned"), ("b", "registered by its node")] {
        env.claim(1, "b");
        let answer = env.ask(0, Ask::Stop(name.to_owned()));
        assert!(matches!(&answer, Some(Answer::Problem(text)) if text.contains(problem)), "{answer:?}");
    }
    // One that is being made is stopped once it is.
    env.spawn(0, spec("c", Restart::Always));
    assert_eq!(env.ask(1, Ask::Stop("c".to_owned())), Some(Answer::Done));
    env.make_all();
    assert!(env.holders("c").is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Claim(u8, u8),
    Spawn(u8, u8, u8),
    Stop(u8, u8),
    End(u8, u8, bool),
    Make(u8),
    Unlink(u8),
    Link(u8),
    Down(u8),
    Pass(u64),
    Quorum(bool),
    NewLeader(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..4_u8;
    let name = || 0..3_u8;
    prop_oneof![
        3 => (node(), name()).prop_map(|(node, name)| Step::Claim(node, name)),
        3 => (node(), name(), 0..3_u8).prop_map(|(node, name, restart)| Step::Spawn(node, name, restart)),
        1 => (node(), name()).prop_map(|(node, name)| Step::Stop(node, name)),
        3 => (node(), name(), any::<bool>()).prop_map(|(node, name, panics)| Step::End(node, name, panics)),
        4 => node().prop_map(Step::Make),
        2 => node().prop_map(Step::Unlink),
        4 => node().prop_map(Step::Link),
        1 => node().prop_map(Step::Down),
        4 => (0..6_000_000_u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Quorum),
        1 => node().prop_map(Step::NewLeader),
    ]
}

proptest! {
    #[test]
    fn a_name_has_one_holder_among_the_nodes_that_the_directory_reaches(steps in prop::collection::vec(step(), 1..80)) {
        let mut env = Env::new(4);
        let name = |number: u8| format!("name-{number}");
        for step in steps {
            match step {
                Step::Claim(node, number) if !env.nodes[&node].held.contains_key(&name(number)) => {
                    env.claim(node, &name(number));
                }
                Step::Claim(..) => {}
                Step::Spawn(node, number, restart) => {
                    let restart = [Restart::Never, TWICE, Restart::Always][usize::from(restart)];
                    let id = env.now.0;
                    env.spawn(node, ActorSpec { id, ..spec(&name(number), restart) });
                }
                Step::Stop(node, number) => drop(env.ask(node, Ask::Stop(name(number)))),
                Step::End(node, number, panics) => {
                    env.end(node, &name(number), if panics { End::Panicked } else { End::Stopped });
                }
                Step::Make(node) => env.make(node),
                Step::Unlink(node) => env.unlink(node),
                Step::Link(node) => env.link(node),
                Step::Down(node) => env.down(node),
                Step::Pass(us) => env.pass(us),
                Step::Quorum(has_quorum) => env.has_quorum = has_quorum,
                Step::NewLeader(term) => {
                    let numbers: Vec<u8> = env.nodes.keys().copied().collect();
                    env.directory = Directory::new(Term(u64::from(term) + env.now.0), env.now, numbers.iter().copied().map(node));
                    for spec in env.ledger.values().cloned().collect::<Vec<_>>() {
                        env.event(Event::Restored(spec));
                    }
                    numbers.into_iter().for_each(|number| env.link(number));
                }
            }
            for number in 0..3 {
                let holders = env.holders(&name(number));
                prop_assert!(holders.len() <= 1, "{number}: {holders:?}");
            }
        }
        // Once all is well again, what the ledger has runs, and nothing else that was spawned.
        env.has_quorum = true;
        (0..4).for_each(|number| env.link(number));
        for _ in 0..8 {
            env.pass(13_000_000);
            env.make_all();
        }
        for number in 0..3 {
            let name = name(number);
            let spawned = env.holders(&name).iter().any(|node| env.nodes[node].held[&name].spawned.is_some());
            prop_assert_eq!(spawned, env.ledger.contains_key(&name));
        }
    }
}
