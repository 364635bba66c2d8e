//! What a peer that is of another version, or means harm, gets.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::ids::TaskId;
use starling_runtime::mesh::{BlockStore, MemberInfo, Mesh, MeshConfig, MeshEvent, MeshLimits, Role};
use starling_runtime::value::Encoded;
use tokio::time::timeout;

use crate as starling_remote;
use crate::RemoteMessage;
use crate::actors::Actors;
use crate::message::MessageDef;
use crate::wire::{NoReply, ToHost, WINDOW};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(Echo, version = 2, crate = starling_remote)]
struct Say(u64);

struct Echo;

impl Actor for Echo {
    type Context = Context<Echo>;
}

impl Handler<Say> for Echo {
    type Result = u64;

    fn handle(&mut self, Say(number): Say, _: &mut Context<Echo>) -> u64 {
        number
    }
}

struct NoBlocks;

impl BlockStore for NoBlocks {
    fn get(&self, _: TaskId) -> Option<Encoded> {
        None
    }

    fn put(&self, _: TaskId, _: Encoded) -> Result<(), String> {
        Err("holds nothing".to_owned())
    }
}

/// A node of nothing but actors.
async fn node(join: Option<&Mesh>) -> (Mesh, Actors) {
    let config = MeshConfig {
        keypair: None,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        secret: None,
        member: MemberInfo { name: "node".to_owned(), role: Role::Service, room: 0, keeps: false },
        limits: MeshLimits::default(),
    };
    let (mesh, mut events) = Mesh::start(config, Arc::new(NoBlocks)).await.unwrap();
    let actors = Actors::new(mesh.clone(), Bytes::from_static(b"actors"));
    tokio::spawn({
        let actors = actors.clone();
        async move {
            while let Some(event) = events.recv().await {
                if let MeshEvent::Link { link, .. } = event {
                    let actors = actors.clone();
                    tokio::spawn(async move { actors.serve(link).await });
                }
            }
        }
    });
    if let Some(other) = join {
        mesh.join(&other.listen_addrs()[0]).await.unwrap();
    }
    (mesh, actors)
}

#[actix::test]
async fn a_message_of_another_version_or_shape_is_refused_by_name() {
    let (mesh, here) = node(None).await;
    let (_other, there) = node(Some(&mesh)).await;
    let addr = here.register("echo", Echo.start()).await.unwrap();
    let hosted = here.named("echo").unwrap();
    let target = there.target(addr.node(), hosted.id).unwrap();
    let ask = async |def: MessageDef| target.ask(&def, &[5]).unwrap().await.unwrap();
    assert_eq!(ask(Say::DEF).await, Ok(Bytes::from_static(&[5])));
    let known = NoReply::UnknownMessage { known: vec![2] };
    assert_eq!(ask(MessageDef { version: 1, ..Say::DEF }).await, Err(known.clone()));
    assert_eq!(ask(MessageDef { schema: 1, ..Say::DEF }).await, Err(known));
    let unknown = NoReply::UnknownMessage { known: Vec::new() };
    assert_eq!(ask(MessageDef { name: "no::Such", ..Say::DEF }).await, Err(unknown.clone()));
    // Told, such a message is told as lost.
    target.room.try_acquire().unwrap().forget();
    target.tell(&MessageDef { name: "no::Such", ..Say::DEF }, &[5]).unwrap();
    target.mark().unwrap().await.unwrap().unwrap();
    assert_eq!(target.take_lost(), Some((1, unknown)));
    // And one whose bytes are not one.
    let damaged = target.ask(&Say::DEF, &[0xff; 12]).unwrap().await.unwrap();
    assert!(matches!(damaged, Err(NoReply::Decode(_))), "{damaged:?}");
}

#[actix::test]
async fn a_peer_that_ignores_the_window_or_sends_what_is_no_message_is_cut() {
    let (mesh, here) = node(None).await;
    let (other, _there) = node(Some(&mesh)).await;
    let addr = here.register("echo", Echo.start()).await.unwrap();
    let hosted = here.named("echo").unwrap();
    let item = |item: &ToHost<'_>| postcard::to_stdvec(item).unwrap();
    let begin = [
        item(&ToHost::Define { name: Say::DEF.name, version: 2, schema: Say::DEF.schema }),
        item(&ToHost::Bind { actor: hosted.id }),
    ]
    .concat();
    let tell = item(&ToHost::Tell { target: 0, message: 0, payload: &[1] });
    let bad = [
        b"\xff\xff\xff".to_vec(),
        item(&ToHost::Tell { target: 9, message: 0, payload: &[1] }),
        item(&ToHost::Tell { target: 0, message: 9, payload: &[1] }),
        item(&ToHost::Watch { target: 4_000_000_000 }),
        item(&ToHost::Group { ask: 0, name: &"x".repeat(1000) }),
        // All of them come before the actor, on the same thread, handles the first.
        tell.repeat(WINDOW as usize + 2),
    ];
    for bad in bad {
        let mut link = other.open_link(addr.node(), Bytes::from_static(b"actors")).await.unwrap();
        link.tx.send([begin.clone(), bad].concat().into()).await.unwrap();
        let closed = async { while link.rx.recv().await.is_some() {} };
        timeout(PATIENCE, closed).await.expect("the link is closed");
    }
    assert_eq!(addr.send(Say(7)).await, Ok(7));
}
