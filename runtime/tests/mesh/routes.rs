//! Nodes that nobody can dial: everything works to and from them, and between two of them.

use bytes::Bytes;
use starling_runtime::mesh::MeshEvent;

use crate::blocks::fetch;
use crate::common::{DEADLINE, Setup, cluster, task, value, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_move_between_all_pairs_of_dialable_and_dial_out_only_nodes() {
    let setups = vec![Setup::scheduler(), Setup::default(), Setup::dial_out_only(), Setup::dial_out_only()];
    let nodes = cluster(setups).await;
    for (at, node) in nodes.iter().enumerate() {
        let block = value(at as u32, 10, &[300_000]);
        node.store.blocks.lock().unwrap().insert(task(at as u32), block);
    }
    for (at, from) in nodes.iter().enumerate() {
        for (by, to) in nodes.iter().enumerate() {
            let wanted = task(at as u32);
            let blocks = fetch(&to.mesh, from.id(), &[wanted]).await;
            let blocks = blocks.unwrap_or_else(|error| panic!("{by} could not fetch from {at}: {error}"));
            assert!(blocks == [(wanted, Some(value(at as u32, 10, &[300_000])))]);
            let put = task(100 + (at * 10 + by) as u32);
            within("a put", to.mesh.put(from.id(), put, value(1, 1, &[]))).await.unwrap();
            assert!(from.store.blocks.lock().unwrap().contains_key(&put));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_block_crosses_between_two_dial_out_only_nodes() {
    let nodes = cluster(vec![Setup::scheduler(), Setup::dial_out_only(), Setup::dial_out_only()]).await;
    let block = value(3, 0, &[16 << 20]);
    nodes[1].mesh.put(nodes[2].id(), task(1), block.clone()).await.unwrap();
    assert!(fetch(&nodes[1].mesh, nodes[2].id(), &[task(1)]).await.unwrap() == [(task(1), Some(block))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_reach_dial_out_only_nodes_from_everywhere_and_name_who_opened_them() {
    let mut nodes = cluster(vec![Setup::scheduler(), Setup::dial_out_only(), Setup::dial_out_only()]).await;
    let ids: Vec<_> = nodes.iter().map(|node| node.id()).collect();
    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        let mut near = nodes[from].mesh.open_link(ids[to], Bytes::from_static(b"hi")).await.unwrap();
        let (mut far, hello) = nodes[to].link().await;
        assert_eq!((far.peer, near.peer, &hello[..]), (ids[from], ids[to], &b"hi"[..]));
        near.tx.send(Bytes::from_static(b"there")).await.unwrap();
        assert_eq!(within("there", far.rx.recv()).await.unwrap(), "there");
        far.tx.send(Bytes::from_static(b"back")).await.unwrap();
        assert_eq!(within("back", near.rx.recv()).await.unwrap(), "back");
        drop(near);
        assert_eq!(within("the end", far.rx.recv()).await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dial_out_only_nodes_are_not_taken_for_down_for_being_unreachable() {
    // Given members that cannot probe each other but through the scheduler.
    let setups = vec![Setup::scheduler(), Setup::dial_out_only(), Setup::dial_out_only(), Setup::dial_out_only()];
    let mut nodes = cluster(setups).await;
    // Then for longer than it takes to find a silent one, nobody is declared down.
    let quiet = DEADLINE / 4;
    for node in &mut nodes {
        while let Ok(event) = node.events.try_recv() {
            assert!(!matches!(event, MeshEvent::MemberDown { .. }), "{event:?}");
        }
    }
    let watching = futures::future::join_all(nodes.iter_mut().map(|node| async move {
        loop {
            let event = node.events.recv().await.unwrap();
            assert!(!matches!(event, MeshEvent::MemberDown { .. }), "{event:?}");
        }
    }));
    assert!(tokio::time::timeout(quiet, watching).await.is_err());
}
