//! Actors on other nodes: what is sent, answered, refused and lost.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use starling::actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
use starling::mesh::parse_addr;
use starling::{
    Cluster, ClusterSecret, Ended, Node, NodeConfig, NodeRole, RegisterError, RemoteAddr, RemoteError, RemoteMessage,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Counter {
    total: u64,
    seen: Vec<u64>,
}

impl Actor for Counter {
    type Context = Context<Counter>;
}

#[derive(Clone, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(Counter)]
struct Add(u64);

impl Handler<Add> for Counter {
    type Result = u64;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Counter>) -> u64 {
        self.total += number;
        self.seen.push(number);
        self.total
    }
}

#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "Vec<u64>")]
#[remote(Counter)]
struct Seen;

impl Handler<Seen> for Counter {
    type Result = Vec<u64>;

    fn handle(&mut self, _: Seen, _: &mut Context<Counter>) -> Vec<u64> {
        self.seen.clone()
    }
}

/// Answered later, by another actor.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "Result<u64, String>")]
#[remote(Counter)]
struct AddAt {
    other: RemoteAddr<Counter>,
    number: u64,
}

impl Handler<AddAt> for Counter {
    type Result = ResponseFuture<Result<u64, String>>;

    fn handle(&mut self, AddAt { other, number }: AddAt, _: &mut Context<Counter>) -> Self::Result {
        Box::pin(async move { other.send(Add(number)).await.map_err(|error| error.to_string()) })
    }
}

#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "()")]
#[remote(Counter)]
enum Do {
    Panic,
    Stop,
    BlockUntil(std::path::PathBuf),
}

impl Handler<Do> for Counter {
    type Result = ();

    fn handle(&mut self, what: Do, context: &mut Context<Counter>) {
        match what {
            Do::Panic => panic!("on purpose"),
            Do::Stop => starling::actix::ActorContext::stop(context),
            Do::BlockUntil(path) => {
                while !path.exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

/// Never answered.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "Result<(), String>")]
#[remote(Counter)]
struct Never;

impl Handler<Never> for Counter {
    type Result = ResponseFuture<Result<(), String>>;

    fn handle(&mut self, _: Never, _: &mut Context<Counter>) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "Vec<u8>")]
#[remote(Counter)]
struct Bytes(Vec<u8>, usize);

impl Handler<Bytes> for Counter {
    type Result = Vec<u8>;

    fn handle(&mut self, Bytes(_, size): Bytes, _: &mut Context<Counter>) -> Vec<u8> {
        vec![0; size]
    }
}

/// The message `Add` as another program might define it.
mod other {
    use super::*;

    pub(super) struct Old;

    impl Actor for Old {
        type Context = Context<Old>;
    }

    #[derive(Serialize, Deserialize, Message, RemoteMessage)]
    #[rtype(result = "u64")]
    #[remote(version = 7, Old)]
    pub(super) struct Put(pub(super) u64);

    impl Handler<Put> for Old {
        type Result = u64;

        fn handle(&mut self, Put(number): Put, _: &mut Context<Old>) -> u64 {
            number
        }
    }
}

struct Nodes {
    /// Where actors live in these tests.
    here: Node,
    there: Node,
}

async fn nodes() -> Nodes {
    let secret = Some(ClusterSecret::generate());
    let start = async |name: &str, join: Vec<_>| {
        let config = NodeConfig {
            name: name.to_owned(),
            listen: vec![parse_addr("/ip4/127.0.0.1/tcp/0").unwrap()],
            join,
            secret: secret.clone(),
            ..NodeConfig::new(NodeRole::Service)
        };
        Node::start(config).await.unwrap()
    };
    let here = start("here", Vec::new()).await;
    let there = start("there", here.listen_addrs()).await;
    wait_until(|| here.mesh().members().len() == 2 && there.mesh().members().len() == 2).await;
    Nodes { here, there }
}

async fn wait_until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it came about in time");
}

/// An actor on an arbiter of its own, which a panic may take with it.
fn start() -> Addr<Counter> {
    Counter::start_in_arbiter(&starling::actix::Arbiter::new().handle(), |_| Counter::default())
}

#[starling::actix::test]
async fn an_actor_is_found_by_its_name_and_answers_from_another_node() {
    let Nodes { here, there } = nodes().await;
    let registered = here.register("hits", start()).await.unwrap();
    let counter = there.lookup::<Counter>("hits").await.unwrap();
    assert_eq!((counter.node(), counter.name()), (here.id(), Some("hits")));
    assert_eq!(counter, registered);

    assert_eq!(counter.send(Add(1)).await, Ok(1));
    assert_eq!(registered.send(Add(2)).await, Ok(3));
    // An answer that takes an actor on the asking node.
    let back = there.register("back", start()).await.unwrap();
    assert_eq!(counter.send(AddAt { other: back.clone(), number: 40 }).await, Ok(Ok(40)));
    assert_eq!(back.send(Seen).await, Ok(vec![40]));
    here.shutdown().await;
    there.shutdown().await;
}

#[starling::actix::test]
async fn messages_of_one_sender_are_handled_in_their_order_whatever_their_kind() {
    let Nodes { here, there } = nodes().await;
    here.register("hits", start()).await.unwrap();
    let counter = there.lookup::<Counter>("hits").await.unwrap();
    for number in 0..20_000 {
        match number % 3 {
            0 => counter.tell(Add(number)).await.unwrap(),
            1 if counter.do_send(Add(number)).is_ok() => {}
            _ => {
                counter.send(Add(number)).await.unwrap();
            }
        }
    }
    counter.flush().await.unwrap();
    assert_eq!(counter.send(Seen).await.unwrap(), (0..20_000).collect::<Vec<_>>());
}

#[starling::actix::test]
async fn a_sender_that_is_too_far_ahead_is_refused_or_waits_and_nothing_is_lost() {
    let Nodes { here, there } = nodes().await;
    here.register("hits", start()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for counter in [here.lookup::<Counter>("hits").await.unwrap(), there.lookup("hits").await.unwrap()] {
        let before = counter.send(Seen).await.unwrap().len();
        let go = folder.path().join(format!("after-{before}"));
        counter.do_send(Do::BlockUntil(go.clone())).unwrap();
        let mut sent = 0;
        let error = loop {
            match counter.do_send(Add(sent)) {
                Ok(()) => sent += 1,
                Err(refused) => {
                    assert_eq!(refused.message.0, sent);
                    break refused.error;
                }
            }
        };
        assert_eq!(error, RemoteError::Full { actor: "hits".to_owned(), window: 4096 });
        // Some places may not have been given back yet.
        assert!((4095 - 64..=4095).contains(&sent), "{sent}");
        let waiting = counter.tell(Add(sent));
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
        std::fs::write(&go, "").unwrap();
        timeout(PATIENCE, waiting).await.unwrap().unwrap();
        assert_eq!(counter.send(Seen).await.unwrap()[before..], (0..=sent).collect::<Vec<_>>());
    }
}

#[starling::actix::test]
async fn a_receiver_that_dies_between_send_and_reply_is_an_error() {
    let Nodes { here, there } = nodes().await;
    here.register("hits", start()).await.unwrap();
    let counter = there.lookup::<Counter>("hits").await.unwrap();
    let stopped = RemoteError::Stopped { actor: "hits".to_owned() };
    // It panics while it handles the message.
    assert_eq!(counter.send(Do::Panic).await, Err(stopped.clone()));
    assert_eq!(timeout(PATIENCE, counter.ended()).await.unwrap(), Ok(Ended::Stopped));
    // Another actor takes the name, and the address follows it.
    here.register("hits", start()).await.unwrap();
    assert_eq!(counter.send(Add(5)).await, Ok(5));

    // Its node goes.
    let asking = tokio::spawn({
        let counter = counter.clone();
        async move { counter.send(Never).await }
    });
    assert_eq!(counter.send(Add(1)).await, Ok(6));
    let watching = tokio::spawn({
        let counter = counter.clone();
        async move { counter.ended().await }
    });
    here.shutdown().await;
    let lost = timeout(PATIENCE, asking).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(lost, RemoteError::NodeLost { .. } | RemoteError::Stopped { .. }), "{lost}");
    let ended = timeout(PATIENCE, watching).await.unwrap().unwrap();
    assert!(matches!(ended, Ok(Ended::NodeLost | Ended::Stopped)), "{ended:?}");
    let refused = counter.do_send(Add(1)).unwrap_err().error;
    assert!(matches!(refused, RemoteError::NodeLost { .. } | RemoteError::Stopped { .. }), "{refused}");
}

#[starling::actix::test]
async fn messages_that_were_queued_for_an_actor_that_ends_are_told_as_lost_once() {
    let Nodes { here, there } = nodes().await;
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let addr = start();
    here.register("hits", addr.clone()).await.unwrap();
    let counter = there.lookup::<Counter>("hits").await.unwrap();
    counter.do_send(Do::BlockUntil(go.clone())).unwrap();
    counter.do_send(Do::Stop).unwrap();
    for number in 0..10 {
        counter.do_send(Add(number)).unwrap();
    }
    std::fs::write(&go, "").unwrap();
    let error = timeout(PATIENCE, counter.flush()).await.unwrap().unwrap_err();
    assert!(matches!(error, RemoteError::Undelivered { messages: 10, .. }), "{error}");
    wait_until(|| !addr.connected()).await;
}

#[starling::actix::test]
async fn what_cannot_be_sent_says_why() {
    let Nodes { here, there } = nodes().await;
    here.register("hits", start()).await.unwrap();
    let counter = there.lookup::<Counter>("hits").await.unwrap();
    // Names.
    let nobody = there.lookup::<Counter>("nobody").await.unwrap_err();
    assert_eq!(nobody, RemoteError::NotHeld { name: "nobody".to_owned(), problem: None });
    let wrong = there.lookup::<other::Old>("hits").await.unwrap_err();
    assert!(matches!(&wrong, RemoteError::WrongActor { held, .. } if held.ends_with("Counter")), "{wrong}");
    let taken = there.register("hits", start()).await.unwrap_err();
    assert_eq!(taken, RegisterError::NameTaken { name: "hits".to_owned(), node: here.id() });
    assert_eq!(here.register("", start()).await.unwrap_err(), RegisterError::BadName(0));
    // Sizes, of the message and of the answer.
    let large = counter.send(Bytes(vec![0; 17 << 20], 0)).await.unwrap_err();
    assert!(matches!(large, RemoteError::TooLarge { max: 16_777_216, .. }), "{large}");
    let large = counter.send(Bytes(Vec::new(), 17 << 20)).await.unwrap_err();
    assert!(matches!(large, RemoteError::TooLarge { max: 16_777_216, .. }), "{large}");
    assert_eq!(counter.send(Bytes(vec![1; 1 << 20], 10 << 20)).await.unwrap().len(), 10 << 20);
    // Time.
    let late = counter.send(Never).deadline(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(late, RemoteError::Deadline { .. }), "{late}");
    // An address that no node has.
    let bytes = postcard::to_stdvec(&counter).unwrap();
    let unbound: RemoteAddr<Counter> = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(unbound.send(Add(1)).await, Err(RemoteError::NotBound));
    let bound = postcard::from_bytes::<RemoteAddr<Counter>>(&bytes).unwrap().bind(there.actors());
    assert_eq!(bound.send(Add(1)).await, Ok(1));
}

#[starling::actix::test]
async fn an_actor_that_is_not_registered_any_more_is_let_go_although_others_have_its_address() {
    let Nodes { here, there } = nodes().await;
    let addr = start();
    let weak = addr.downgrade();
    here.register("hits", addr).await.unwrap();
    let counter = there.lookup::<Counter>("hits").await.unwrap();
    assert_eq!(counter.send(Add(1)).await, Ok(1));
    assert!(here.actors().unregister("hits"));
    assert!(!here.actors().unregister("hits"));
    wait_until(|| weak.upgrade().is_none_or(|addr| !addr.connected())).await;
    let error = counter.send(Add(1)).deadline(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, RemoteError::NotHeld { .. } | RemoteError::Deadline { .. }), "{error}");
}

#[starling::actix::test]
async fn a_group_is_reached_on_all_nodes() {
    let Nodes { here, there } = nodes().await;
    for _ in 0..2 {
        here.actors().join_group("workers", start()).unwrap();
        there.actors().join_group("workers", start()).unwrap();
    }
    let group = there.actors().group::<Counter>("workers");
    let broadcast = group.broadcast(Add(3)).await;
    assert_eq!((broadcast.reached.len(), broadcast.failed.len()), (4, 0));
    for member in group.members().await {
        assert_eq!(member.send(Add(1)).await, Ok(4));
    }
    here.shutdown().await;
    wait_until(|| there.mesh().members().len() == 1).await;
    assert_eq!(group.members().await.len(), 2);
}

#[starling::task]
async fn add_from_a_task(counter: RemoteAddr<Counter>, number: u64) -> Result<u64, RemoteError> {
    counter.send(Add(number)).await
}

#[starling::actix::test]
async fn an_actor_is_an_argument_of_a_task_and_a_client_finds_it() {
    let cluster = Cluster::local(1).await.unwrap();
    let worker = &cluster.nodes()[1];
    worker.register("hits", start()).await.unwrap();
    let counter = cluster.actor::<Counter>("hits").await.unwrap();
    let totals = cluster.map((1..=3).map(|number| add_from_a_task::task(counter.clone(), number)));
    cluster.gather(&totals).await.unwrap();
    assert_eq!(counter.send(Add(0)).await, Ok(6));
    cluster.shutdown().await;
}
