//! Actors that the cluster makes: where, when anew, and from what state.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use starling::actix::{Actor, ActorContext, Addr, Arbiter, Context, Handler, Message, ResponseFuture};
use starling::core::ids::NodeId;
use starling::{
    ActorEnv, ActorState, ActorStatus, ActorsError, BoxError, Cluster, Ended, Node, NodeRole, Placement, RegisterError,
    RemoteActor, RemoteError, RemoteMessage, Restart, Snapshot, SpawnError,
};

use common::{connect, eventually, in_time, node};

/// Counts, and forgets what it counted when it is made anew.
struct Counter {
    total: u64,
    env: ActorEnv,
}

impl Actor for Counter {
    type Context = Context<Counter>;
}

#[starling::actor]
impl RemoteActor for Counter {
    type Args = u64;

    fn create(from: u64, env: &ActorEnv) -> Result<Counter, BoxError> {
        match from {
            13 => Err("an unlucky number".into()),
            14 => panic!("on purpose"),
            from => Ok(Counter { total: from, env: env.clone() }),
        }
    }
}

#[derive(Clone, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(Counter, Saved, Own)]
struct Add(u64);

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Counter>) -> u64 {
        self.total += number;
        self.total
    }
}

#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "()")]
#[remote(Counter)]
enum End {
    Panic,
    Stop,
}

impl Handler<End> for Counter {
    type Result = ();

    fn handle(&mut self, how: End, context: &mut Context<Counter>) {
        match how {
            End::Panic => panic!("on purpose"),
            End::Stop => context.stop(),
        }
    }
}

/// Where it is: the node's id and name, and the actor's own.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "(NodeId, String, String)")]
#[remote(Counter, Saved)]
struct Place;

fn place_of(env: &ActorEnv) -> (NodeId, String, String) {
    (env.node(), env.node_name().to_owned(), env.name().to_owned())
}

impl Handler<Place> for Counter {
    type Result = starling::actix::MessageResult<Place>;

    fn handle(&mut self, _: Place, _: &mut Context<Counter>) -> Self::Result {
        starling::actix::MessageResult(place_of(&self.env))
    }
}

#[starling::task]
fn square(number: u64) -> u64 {
    number * number
}

/// The sum of the squares, by tasks of the cluster that the actor is on.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "Result<u64, String>")]
#[remote(Counter)]
struct SquareAll(Vec<u64>);

impl Handler<SquareAll> for Counter {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, SquareAll(numbers): SquareAll, _: &mut Context<Counter>) -> Self::Result {
        let env = self.env.clone();
        Box::pin(async move {
            let cluster = env.cluster().await.map_err(|error| error.to_string())?;
            let squares = cluster.map(numbers.into_iter().map(square::task));
            let squares = cluster.gather(&squares).await.map_err(|error| error.to_string())?;
            Ok(squares.into_iter().sum())
        })
    }
}

/// Counts, and remembers.
struct Saved {
    total: u64,
    env: ActorEnv,
}

impl Actor for Saved {
    type Context = Context<Saved>;
}

#[starling::actor(snapshot)]
impl RemoteActor for Saved {
    type Args = u64;

    fn create(from: u64, env: &ActorEnv) -> Result<Saved, BoxError> {
        Ok(Saved { total: from, env: env.clone() })
    }
}

impl Snapshot for Saved {
    type State = u64;

    const EVERY: Duration = Duration::from_millis(20);

    fn snapshot(&self) -> u64 {
        self.total
    }

    fn restore(_: u64, total: u64, env: &ActorEnv) -> Result<Saved, BoxError> {
        Ok(Saved { total, env: env.clone() })
    }
}

impl Handler<Add> for Saved {
    type Result = u64;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Saved>) -> u64 {
        self.total += number;
        self.total
    }
}

impl Handler<Place> for Saved {
    type Result = starling::actix::MessageResult<Place>;

    fn handle(&mut self, _: Place, _: &mut Context<Saved>) -> Self::Result {
        starling::actix::MessageResult(place_of(&self.env))
    }
}

/// An actor that nodes register.
struct Own(u64);

impl Actor for Own {
    type Context = Context<Own>;
}

impl Handler<Add> for Own {
    type Result = u64;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Own>) -> u64 {
        self.0 += number;
        self.0
    }
}

fn own() -> Addr<Own> {
    Own::start_in_arbiter(&Arbiter::new().handle(), |_| Own(0))
}

/// A scheduler, and nodes that run no tasks.
async fn services(names: &[&str]) -> Vec<Node> {
    let mut nodes = vec![node(NodeRole::Scheduler, "scheduler", &[]).await];
    let join = nodes[0].listen_addrs();
    for name in names {
        nodes.push(node(NodeRole::Service, name, &join).await);
    }
    nodes
}

async fn status(node: &Node, name: &str) -> Option<ActorStatus> {
    in_time(node.actors_list()).await.unwrap().into_iter().find(|status| status.name == name)
}

#[starling::actix::test]
async fn an_actor_is_made_on_a_node_of_the_cluster_and_found_by_its_name() {
    let cluster = Cluster::local(2).await.unwrap();
    let counter = in_time(cluster.spawn::<Counter>("hits", 40)).await.unwrap();
    assert_eq!(in_time(counter.send(Add(2))).await, Ok(42));
    let found = in_time(cluster.nodes()[0].lookup::<Counter>("hits")).await.unwrap();
    assert_eq!(found, counter);
    let (id, node_name, name) = in_time(found.send(Place)).await.unwrap();
    assert!(node_name.starts_with("worker-") && name == "hits" && id == counter.node());
    // The other node has fewer of them.
    let other = in_time(cluster.spawn::<Counter>("other", 0)).await.unwrap();
    assert_ne!(other.node(), counter.node());
    let near = cluster.spawn::<Counter>("near", 0).placement(Placement::Near(other.node()));
    assert_eq!(in_time(near).await.unwrap().node(), other.node());
    // Actors and tasks in one program.
    assert_eq!(in_time(counter.send(SquareAll((1..=10).collect()))).await, Ok(Ok(385)));

    let listed = in_time(cluster.actors_list()).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|status| status.name.as_str()).collect();
    assert_eq!(names, ["hits", "near", "other"]);
    assert!(listed[0].type_name.ends_with("::Counter"));
    assert_eq!((listed[0].state, listed[0].restarts, &listed[0].node_name), (ActorState::Running, 0, &Some(node_name)));
    in_time(cluster.stop_actor("hits")).await.unwrap();
    assert_eq!(in_time(counter.ended()).await, Ok(Ended::Stopped));
    let late = in_time(counter.send(Add(1)).deadline(Duration::from_millis(300))).await.unwrap_err();
    assert!(matches!(late, RemoteError::NotHeld { .. } | RemoteError::Deadline { .. }), "{late}");
    let refused = in_time(cluster.stop_actor("hits")).await.unwrap_err();
    assert_eq!(refused, ActorsError::Refused("no actor of the name hits is spawned".to_owned()));
    cluster.shutdown().await;
}

#[starling::actix::test]
async fn what_cannot_be_spawned_says_why() {
    let nodes = services(&["a"]).await;
    let node = &nodes[1];
    in_time(node.spawn::<Counter>("hits", 0)).await.unwrap();
    let taken = in_time(node.spawn::<Counter>("hits", 0)).await.unwrap_err();
    assert_eq!(taken, SpawnError::NameTaken { name: "hits".to_owned(), node: node.id() });
    let taken = in_time(node.register("hits", own())).await.unwrap_err();
    assert_eq!(taken, RegisterError::NameTaken { name: "hits".to_owned(), node: node.id() });
    let problem = async |name: &str, from: u64, placement: Placement| {
        let error = in_time(node.spawn::<Counter>(name, from).placement(placement)).await.unwrap_err();
        let SpawnError::Refused { problem, .. } = error else { panic!("{error}") };
        problem
    };
    assert_eq!(problem("x", 13, Placement::Any).await, "an unlucky number");
    assert_eq!(problem("x", 14, Placement::Any).await, "it panicked");
    assert_eq!(problem("x", 0, Placement::Node("b".to_owned())).await, "no node that hosts actors is called b");
    assert!(problem("", 0, Placement::Any).await.contains("1 to 256 bytes"));
    let registered = in_time(node.register("own", own())).await.unwrap();
    let refused = in_time(node.stop_actor("own")).await.unwrap_err();
    assert!(
        matches!(&refused, ActorsError::Refused(problem) if problem.contains("registered by its node")),
        "{refused}"
    );
    assert_eq!(in_time(registered.send(Add(1))).await, Ok(1));
    // Nobody is there who could.
    let alone = self::node(NodeRole::Service, "alone", &[]).await;
    let error = in_time(alone.spawn::<Counter>("hits", 0)).await.unwrap_err();
    assert!(matches!(&error, SpawnError::NotKnown { problem, .. } if problem.contains("no scheduler")), "{error}");
}

#[starling::actix::test]
async fn an_actor_that_panics_is_made_anew_until_that_is_too_often() {
    let nodes = services(&["a", "b"]).await;
    let restart = Restart::OnFailure { max: 2, within: Duration::from_secs(600) };
    let counter = in_time(nodes[1].spawn::<Counter>("hits", 5).restart(restart)).await.unwrap();
    let on = counter.node();
    for restarts in 1..=2 {
        assert_eq!(in_time(counter.send(Add(1))).await, Ok(6), "it forgets what it had");
        let watched = in_time(nodes[2].lookup::<Counter>("hits")).await.unwrap();
        let ended = tokio::spawn(async move { watched.ended().await });
        assert!(matches!(in_time(counter.send(End::Panic)).await, Err(RemoteError::Stopped { .. })));
        assert_eq!(in_time(ended).await.unwrap(), Ok(Ended::Stopped));
        // The address follows the name.
        assert_eq!(in_time(counter.send(Add(0))).await, Ok(5));
        assert_eq!(counter.node(), on, "it stays on its node");
        let status = status(&nodes[0], "hits").await.unwrap();
        assert_eq!(
            (status.state, status.restarts, status.problem),
            (ActorState::Running, restarts, Some("it panicked".to_owned()))
        );
    }
    assert!(in_time(counter.send(End::Panic)).await.is_err());
    let given_up = eventually(async || match counter.send(Add(1)).await {
        Err(RemoteError::GivenUp { problem, .. }) => Some(problem),
        _ => None,
    });
    assert!(given_up.await.contains("failed 3 times"));
    // The name is free.
    in_time(nodes[1].register("hits", own())).await.unwrap();
}

#[starling::actix::test]
async fn an_actor_that_ends_by_itself_is_made_anew_only_if_it_always_is() {
    let nodes = services(&["a"]).await;
    let once = in_time(nodes[1].spawn::<Counter>("once", 0)).await.unwrap();
    let always = in_time(nodes[1].spawn::<Counter>("always", 7).restart(Restart::Always)).await.unwrap();
    in_time(once.send(End::Stop)).await.unwrap();
    in_time(always.send(End::Stop)).await.unwrap();
    eventually(async || status(&nodes[1], "once").await.is_none().then_some(())).await;
    assert_eq!(in_time(always.send(Add(1))).await, Ok(8));
    in_time(nodes[1].stop_actor("always")).await.unwrap();
    assert!(status(&nodes[1], "always").await.is_none());
}

#[starling::actix::test]
async fn an_actor_whose_node_is_lost_goes_on_on_another_with_the_state_that_it_had() {
    let mut nodes = services(&["a", "b", "c"]).await;
    let on = nodes[2].id();
    let near = Placement::Near(on);
    in_time(nodes[1].spawn::<Saved>("saved", 100).placement(near.clone())).await.unwrap();
    in_time(nodes[1].spawn::<Counter>("counter", 100).placement(near)).await.unwrap();
    let saved = in_time(nodes[1].lookup::<Saved>("saved")).await.unwrap();
    let counter = in_time(nodes[1].lookup::<Counter>("counter")).await.unwrap();
    assert_eq!((saved.node(), counter.node()), (on, on));
    assert_eq!(in_time(saved.send(Add(11))).await, Ok(111));
    assert_eq!(in_time(counter.send(Add(11))).await, Ok(111));
    // One that leaves has its last state kept elsewhere.
    in_time(nodes.remove(2).shutdown()).await;
    assert_eq!(in_time(saved.send(Add(0))).await, Ok(111));
    assert_eq!(in_time(counter.send(Add(0))).await, Ok(100), "from its arguments");
    assert_ne!(saved.node(), on);
    // One that is gone without a word, has the last that was taken.
    let on = saved.node();
    assert_eq!(in_time(saved.send(Add(1))).await, Ok(112));
    eventually(async || {
        let spec = nodes[0].actors().latest_snapshot_of("saved").await?;
        (spec.state == postcard::to_stdvec(&112_u64).unwrap()).then_some(())
    })
    .await;
    let at = nodes.iter().position(|node| node.id() == on).unwrap();
    drop(nodes.remove(at));
    let found = eventually(async || {
        let found = nodes[1].lookup::<Saved>("saved").await.ok();
        found.filter(|found| found.node() != on)
    })
    .await;
    assert_eq!(in_time(found.send(Add(0))).await, Ok(112));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_survives_the_leader_when_that_is_its_own_node() {
    let first = node(NodeRole::Auto, "a", &[]).await;
    let join = first.listen_addrs();
    let mut nodes = vec![first, node(NodeRole::Auto, "b", &join).await, node(NodeRole::Auto, "c", &join).await];
    eventually(async || {
        let all_vote = |node: &Node| node.status().quorum.is_some_and(|quorum| quorum.voters.len() == 3);
        nodes.iter().all(all_vote).then_some(())
    })
    .await;
    let leader = eventually(async || nodes[0].status().leader).await;
    nodes.sort_by_key(|node| node.id() != leader);
    let cluster = connect(&nodes[1]).await;
    let saved = in_time(cluster.spawn::<Saved>("saved", 1).placement(Placement::Near(leader))).await.unwrap();
    assert_eq!(saved.node(), leader);
    assert_eq!(in_time(saved.send(Add(1))).await, Ok(2));
    in_time(nodes.remove(0).shutdown()).await;
    let found =
        eventually(async || cluster.actor::<Saved>("saved").await.ok().filter(|found| found.node() != leader)).await;
    assert_eq!(in_time(found.send(Add(1))).await, Ok(3));
    // What was held before is held yet, and what is spawned is listed by the next leader.
    let listed = in_time(cluster.actors_list()).await.unwrap();
    assert_eq!((listed.len(), listed[0].state), (1, ActorState::Running));
    in_time(cluster.stop_actor("saved")).await.unwrap();
    in_time(cluster.shutdown()).await;
}

#[starling::actix::test]
async fn an_actor_that_must_be_on_a_node_waits_for_it() {
    let mut nodes = services(&["a", "b"]).await;
    let placement = Placement::Node("b".to_owned());
    let counter = in_time(nodes[1].spawn::<Counter>("hits", 3).placement(placement)).await.unwrap();
    assert_eq!(counter.node(), nodes[2].id());
    in_time(nodes.remove(2).shutdown()).await;
    let waiting =
        eventually(async || status(&nodes[1], "hits").await.filter(|status| status.state == ActorState::Waiting)).await;
    let problem = eventually(async || {
        let problem = status(&nodes[1], "hits").await?.problem?;
        problem.contains("no node that hosts actors is called b").then_some(problem)
    });
    drop((waiting, problem.await));
    let again = node(NodeRole::Service, "b", &nodes[0].listen_addrs()).await;
    assert_eq!(in_time(counter.send(Add(1))).await, Ok(4));
    assert_eq!(counter.node(), again.id());
}

#[starling::actix::test]
async fn of_nodes_that_register_a_name_at_once_one_has_it() {
    let nodes = services(&["a", "b", "c"]).await;
    for round in 0..10 {
        let name = format!("name-{round}");
        let claims = nodes.iter().map(|node| node.register(name.as_str(), own()));
        let claimed = in_time(futures::future::join_all(claims)).await;
        assert_eq!(claimed.iter().filter(|claimed| claimed.is_ok()).count(), 1, "{claimed:?}");
        let winner = claimed.iter().position(Result::is_ok).unwrap();
        for node in &nodes {
            let found = in_time(node.lookup::<Own>(name.as_str())).await.unwrap();
            assert_eq!(found.node(), nodes[winner].id());
        }
        assert!(nodes[winner].actors().unregister(&name));
        eventually(async || nodes[0].register(name.as_str(), own()).await.ok()).await;
    }
}

#[starling::actix::test]
async fn an_actor_whose_node_reaches_no_leader_answers_nobody_until_it_does() {
    let nodes = services(&["a", "b"]).await;
    let counter = in_time(nodes[1].register("hits", own())).await.unwrap();
    let there = in_time(nodes[2].lookup::<Own>("hits")).await.unwrap();
    assert_eq!(in_time(there.send(Add(1))).await, Ok(1));
    nodes[1].actors().suspend(true);
    for addr in [&counter, &there] {
        let refused = in_time(addr.send(Add(1)).deadline(Duration::from_millis(300))).await.unwrap_err();
        assert!(!matches!(refused, RemoteError::Undelivered { .. }), "{refused}");
    }
    let waiting = tokio::spawn(async move { there.send(Add(1)).await });
    nodes[1].actors().suspend(false);
    assert_eq!(in_time(waiting).await.unwrap(), Ok(2), "and it was not handled before");
    assert_eq!(in_time(counter.send(Add(1))).await, Ok(3));
}
