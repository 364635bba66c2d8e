//! Who knows whom: joining, leaving, dying, coming back.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_core::ids::NodeId;
use starling_runtime::mesh::{
    DownReason, Member, MemberInfo, Mesh, MeshError, MeshEvent, MeshLimits, Multiaddr, Role, identity,
};
use tokio::net::TcpListener;

use crate::common::{Node, Setup, cluster, until, within};

async fn down(node: &mut Node, who: NodeId) -> DownReason {
    node.event(|event| match event {
        MeshEvent::MemberDown { node, reason } if node == who => Some(reason),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_join_through_one_and_all_learn_all() {
    let mut nodes = cluster(vec![Setup::scheduler(), Setup::default(), Setup::default()]).await;
    // Then each is told of the two others, with role and address.
    for index in 0..3 {
        let mut up = Vec::new();
        while up.len() < 2 {
            let member = nodes[index]
                .event(|event| match event {
                    MeshEvent::MemberUp(member) => Some(member),
                    _ => None,
                })
                .await;
            let other = nodes.iter().find(|node| node.id() == member.node).unwrap();
            assert_eq!(member.addrs, other.mesh.listen_addrs());
            if !up.contains(&member.node) {
                up.push(member.node);
            }
        }
        assert!(!up.contains(&nodes[index].id()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_seen_to_have_left() {
    let mut nodes = cluster(vec![Setup::scheduler(), Setup::default(), Setup::dial_out_only()]).await;
    let leaver = nodes.remove(1);
    let id = leaver.id();
    let start = Instant::now();
    within("the shutdown", leaver.mesh.shutdown()).await;
    assert!(start.elapsed() < Duration::from_secs(5), "leaving took {:?}", start.elapsed());
    for node in &mut nodes {
        assert_eq!(down(node, id).await, DownReason::Left);
    }
    // And nothing works on it any more, without hanging.
    assert!(leaver.mesh.join(&nodes[0].addr()).await.is_err());
    assert!(leaver.mesh.open_link(nodes[0].id(), "x".into()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_dropped_is_down_soon() {
    for gone in [Setup::default(), Setup::dial_out_only()] {
        let mut nodes = cluster(vec![Setup::scheduler(), gone, Setup::default()]).await;
        let dropped = nodes.remove(1);
        let id = dropped.id();
        drop(dropped);
        let start = Instant::now();
        for node in &mut nodes {
            assert_eq!(down(node, id).await, DownReason::Silent);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    }
}

/// A node in a thread of its own, which can be stopped like a process that gets no processor.
struct Stoppable {
    id: NodeId,
    /// While something is in it, the thread waits for the next.
    stop: std::sync::mpsc::SyncSender<()>,
    members: Arc<Mutex<Vec<Member>>>,
}

impl Stoppable {
    fn join(setup: Setup, at: Multiaddr) -> Stoppable {
        let (stop, stopped) = std::sync::mpsc::sync_channel(0);
        let (started, id) = std::sync::mpsc::sync_channel(1);
        let members = Arc::new(Mutex::new(Vec::new()));
        let seen = members.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let node = setup.start().await;
                node.mesh.join(&at).await.unwrap();
                started.send(node.id()).unwrap();
                loop {
                    *seen.lock().unwrap() = node.mesh.members();
                    match stopped.try_recv() {
                        Err(std::sync::mpsc::TryRecvError::Empty) => {}
                        // The one thread of the node stands still until the second word.
                        Ok(()) => stopped.recv().unwrap(),
                        Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        });
        Stoppable { id: id.recv().unwrap(), stop, members }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_down_in_seconds_and_comes_back() {
    for setup in [Setup::default(), Setup::dial_out_only()] {
        let mut nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
        let at = nodes[0].addr();
        let silent = tokio::task::spawn_blocking(|| Stoppable::join(setup, at)).await.unwrap();
        for node in &nodes {
            node.knows(&[nodes[0].id(), nodes[1].id(), silent.id]).await;
        }
        until("the third to know all", || silent.members.lock().unwrap().len() == 3).await;
        silent.stop.send(()).unwrap();
        let start = Instant::now();
        for node in &mut nodes {
            assert_eq!(down(node, silent.id).await, DownReason::Silent);
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(10), "it took {took:?}");
        silent.stop.send(()).unwrap();
        for node in &mut nodes {
            let back = |event| matches!(event, MeshEvent::MemberUp(member) if member.node == silent.id).then_some(());
            node.event(back).await;
        }
        until("it to know all again", || silent.members.lock().unwrap().len() == 3).await;
        eprintln!("down after {took:?}, back after {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_restarted_under_its_key_is_a_member_again() {
    let keypair = identity::Keypair::generate_ed25519();
    let keyed = || Setup { keypair: Some(keypair.clone()), ..Setup::default() };
    let nodes = cluster(vec![Setup::scheduler(), keyed()]).await;
    let [scheduler, first] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    let member = |mesh: &Mesh| mesh.members().into_iter().find(|member| member.node == first.id());
    let before = member(&scheduler.mesh).unwrap().incarnation;
    let id = first.id();
    let addr = first.addr();
    drop(first.mesh);
    drop(first.events);
    let second = keyed().start().await;
    assert_eq!(second.id(), id);
    second.join(&scheduler).await;
    let find = || scheduler.mesh.members().into_iter().find(|member| member.node == id);
    until("the later incarnation", || find().is_some_and(|member| member.incarnation > before)).await;
    assert_ne!(find().unwrap().addrs, [addr]);
    until("both", || second.mesh.members().len() == 2 && scheduler.mesh.members().len() == 2).await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let first = Setup::default().start().await;
    let setup = Setup { listen: vec![first.addr()], ..Setup::default() };
    let Err(error) = setup.try_start().await else { panic!("two nodes listen on one port") };
    assert!(matches!(&error, MeshError::PortInUse { addr } if *addr == first.addr()), "{error:?}");
    assert!(error.to_string().contains("--listen"), "{error}");
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_named() {
    let node = Setup::dial_out_only().start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", free.local_addr().unwrap().port()).parse().unwrap();
    drop(free);
    let error = node.mesh.join(&addr).await.unwrap_err();
    assert!(matches!(&error, MeshError::NobodyListens { addr: named } if *named == addr), "{error:?}");
}

#[tokio::test]
async fn other_programs_and_this_node_itself_are_told_apart_from_nodes() {
    // Given a server that says something else, one that hangs up, and one that says nothing.
    let quick = MeshLimits { handshake_timeout: Duration::from_millis(500), ..MeshLimits::default() };
    let node = Setup { limits: quick, ..Setup::default() }.start().await;
    for behaviour in ["talks", "hangs up", "is mute"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            if behaviour == "talks" {
                use tokio::io::AsyncWriteExt;
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            }
            if behaviour != "hangs up" {
                std::future::pending::<()>().await;
            }
        });
        let error = node.mesh.join(&addr).await.unwrap_err();
        eprintln!("{behaviour}: {error}");
        assert!(
            matches!(error, MeshError::NotStarling { .. } | MeshError::Unreachable { .. }),
            "{behaviour}: {error:?}"
        );
    }
    let error = node.mesh.join(&node.addr()).await.unwrap_err();
    assert!(matches!(error, MeshError::Itself { .. }), "{error:?}");
    let other = Setup::default().start().await;
    let named = format!("{}/p2p/{}", other.addr(), identity::Keypair::generate_ed25519().public().to_peer_id());
    let error = node.mesh.join(&named.parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, MeshError::OtherNode { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meshes_come_and_go_in_one_process_and_leave_nothing_behind() {
    let runtime = tokio::runtime::Handle::current();
    let before = runtime.metrics().num_alive_tasks();
    for round in 0..10 {
        let nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
        if round % 2 == 0 {
            for node in &nodes {
                within("the shutdown", node.mesh.shutdown()).await;
            }
        }
        drop(nodes);
    }
    until("all tasks to end", || runtime.metrics().num_alive_tasks() <= before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_introduces_itself_anew_is_known_as_that_and_keeps_its_links() {
    let (mut first, second) = (Setup::scheduler().start().await, Setup::default().start().await);
    second.join(&first).await;
    let (mut near, (mut far, _)) =
        (second.mesh.open_link(first.id(), Bytes::from_static(b"hello")).await.unwrap(), first.link().await);
    let info = MemberInfo { name: "renamed".to_owned(), role: Role::Auto, room: 7, keeps: true };
    second.mesh.introduce(info.clone()).await.unwrap();
    let node = second.id();
    let member = first
        .event(|event| match event {
            MeshEvent::MemberUp(member) if member.node == node && member.info.role == Role::Auto => Some(member),
            MeshEvent::MemberDown { node: gone, .. } if gone == node => panic!("it was taken for down"),
            _ => None,
        })
        .await;
    assert_eq!(member.info, info);
    near.tx.send(Bytes::from_static(b"still")).await.unwrap();
    assert_eq!(far.rx.recv().await.unwrap(), "still");
    far.tx.send(Bytes::from_static(b"here")).await.unwrap();
    assert_eq!(near.rx.recv().await.unwrap(), "here");
    second.knows(&[first.id(), second.id()]).await;
}
