//! Links: order, fullness, ends.

use std::time::{Duration, Instant};

use bytes::Bytes;
use starling_runtime::mesh::{Link, LinkError, MeshError, MeshLimits};

use crate::common::{Setup, cluster, until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_frames_each_way_arrive_in_order() {
    const FRAMES: u32 = 100_000;
    let mut nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
    let near = nodes[0].mesh.open_link(nodes[1].id(), Bytes::from_static(b"hello")).await.unwrap();
    let (far, hello) = nodes[1].link().await;
    assert_eq!(&hello[..], b"hello");
    assert_eq!((near.peer, far.peer), (nodes[1].id(), nodes[0].id()));
    let ends = [near, far].map(|mut link| async move {
        let tx = link.tx.clone();
        // Both write all before either has to have read anything: each frame has its number and a length of its own.
        let writing = tokio::spawn(async move {
            for index in 0..FRAMES {
                let mut frame = index.to_le_bytes().to_vec();
                frame.resize(4 + (index % 97) as usize, 7);
                tx.send(Bytes::from(frame)).await.unwrap();
            }
        });
        for index in 0..FRAMES {
            let frame = link.rx.recv().await.unwrap();
            assert_eq!(frame[..4], index.to_le_bytes());
            assert_eq!(frame.len(), 4 + (index % 97) as usize);
        }
        writing.await.unwrap();
        link
    });
    let [near, far] = ends.map(tokio::spawn);
    // Each side keeps the link until the other has read all as well.
    let (near, far) = within("all frames", async { tokio::join!(near, far) }).await;
    drop((near.unwrap(), far.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_every_size_cross_and_too_large_ones_are_refused() {
    let limits = MeshLimits { frame_bytes_max: 3 << 20, link_queue_bytes: 1 << 20, ..MeshLimits::default() };
    let limited = |setup: Setup| Setup { limits: limits.clone(), ..setup };
    let mut nodes = cluster(vec![limited(Setup::scheduler()), limited(Setup::default())]).await;
    let near = nodes[0].mesh.open_link(nodes[1].id(), Bytes::new()).await.unwrap();
    let (mut far, _) = nodes[1].link().await;
    let sizes = [0, 1, 65_531, 65_532, 65_533, 65_536, 65_540, 1 << 20, (1 << 20) + 1, 3 << 20, 5, 0];
    let sending = tokio::spawn(async move {
        for size in sizes {
            near.tx.send(Bytes::from(vec![size as u8; size])).await.unwrap();
        }
        let error = near.tx.send(Bytes::from(vec![0; (3 << 20) + 1])).await.unwrap_err();
        assert!(matches!(error, LinkError::TooLarge { .. }));
        near
    });
    for size in sizes {
        let frame = within("a frame", far.rx.recv()).await.unwrap();
        assert_eq!(frame.len(), size);
        assert!(frame.iter().all(|&byte| byte == size as u8));
    }
    drop(sending.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_closes_as_a_whole_whichever_half_is_dropped() {
    let mut nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
    for half in ["both", "tx", "rx"] {
        let near = nodes[0].mesh.open_link(nodes[1].id(), Bytes::new()).await.unwrap();
        let (mut far, _) = nodes[1].link().await;
        near.tx.send(Bytes::from_static(b"last")).await.unwrap();
        far.tx.send(Bytes::from_static(b"words")).await.unwrap();
        let Link { tx, mut rx, .. } = near;
        match half {
            "both" => drop((tx, rx)),
            "tx" => {
                drop(tx);
                // What the other side sent before is still there to be read.
                assert_eq!(within("the words", rx.recv()).await.unwrap(), "words");
                assert_eq!(within("the end", rx.recv()).await, None);
            }
            _ => {
                drop(rx);
                within("the near end", tx.closed()).await;
            }
        }
        assert_eq!(within("the last", far.rx.recv()).await.unwrap(), "last", "{half}");
        assert_eq!(within("the end", far.rx.recv()).await, None, "{half}");
        within("the far end", far.tx.closed()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_read_fills_the_queue_and_no_more() {
    let limits = MeshLimits { link_queue_frames: 8, link_queue_bytes: 1 << 20, ..MeshLimits::default() };
    let mut nodes = cluster(vec![Setup { limits, ..Setup::scheduler() }, Setup::default()]).await;
    let near = nodes[0].mesh.open_link(nodes[1].id(), Bytes::new()).await.unwrap();
    let (mut far, _) = nodes[1].link().await;
    let frame = Bytes::from(vec![1; 256 * 1024]);
    let (mut sent, mut moved) = (0u32, Instant::now());
    until("a standstill", || {
        loop {
            match near.tx.try_send(frame.clone()) {
                Ok(()) => (sent, moved) = (sent + 1, Instant::now()),
                Err(LinkError::Full) => return moved.elapsed() > Duration::from_millis(300),
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    assert!(sent < 400, "{sent} frames of 256 KiB were taken in");
    // And all that was taken is there once somebody reads.
    for _ in 0..sent {
        assert_eq!(within("a frame", far.rx.recv()).await.unwrap().len(), frame.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_links_opened_at_once_all_arrive() {
    let mut nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
    let (mesh, to) = (nodes[0].mesh.clone(), nodes[1].id());
    let opening = tokio::spawn(async move {
        let links = (0..100u32).map(|index| mesh.open_link(to, Bytes::from(index.to_le_bytes().to_vec())));
        futures::future::try_join_all(links).await
    });
    let mut seen = Vec::new();
    let mut links = Vec::new();
    for _ in 0..100 {
        let (link, hello) = nodes[1].link().await;
        seen.push(u32::from_le_bytes(hello[..].try_into().unwrap()));
        links.push(link);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!(opening.await.unwrap().unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_a_shutdown_arrives_and_then_the_link_ends() {
    let mut nodes = cluster(vec![Setup::scheduler(), Setup::default()]).await;
    let near = nodes[0].mesh.open_link(nodes[1].id(), Bytes::new()).await.unwrap();
    let (mut far, _) = nodes[1].link().await;
    for index in 0..1000u32 {
        near.tx.send(Bytes::from(index.to_le_bytes().to_vec())).await.unwrap();
    }
    nodes[0].mesh.shutdown().await;
    for index in 0..1000u32 {
        assert_eq!(within("a frame", far.rx.recv()).await.unwrap()[..], index.to_le_bytes());
    }
    assert_eq!(within("the end", far.rx.recv()).await, None);
    assert_eq!(near.tx.send(Bytes::new()).await, Err(LinkError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_can_link_to_itself_and_not_to_one_that_does_not_exist() {
    let mut node = Setup::default().start().await;
    let mut near = node.mesh.open_link(node.id(), Bytes::from_static(b"me")).await.unwrap();
    let (mut far, hello) = node.link().await;
    assert_eq!(&hello[..], b"me");
    near.tx.send(Bytes::from_static(b"ping")).await.unwrap();
    assert_eq!(within("ping", far.rx.recv()).await.unwrap(), "ping");
    far.tx.send(Bytes::from_static(b"pong")).await.unwrap();
    assert_eq!(within("pong", near.rx.recv()).await.unwrap(), "pong");
    let stranger = starling_core::ids::NodeId([9; 32]);
    let error = within("an error", node.mesh.open_link(stranger, Bytes::new())).await.unwrap_err();
    assert!(matches!(error, MeshError::NoRoute { .. }), "{error:?}");
}
