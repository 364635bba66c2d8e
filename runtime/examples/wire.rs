//! How fast the mesh is between two nodes on runtimes of their own, over loopback TCP: `cargo run --release --example wire`.
//!
//! Both ends share the processor here, as do the workers of a small cluster on one machine.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use starling_core::ids::{JobId, TaskId};
use starling_runtime::mesh::{BlockStore, MemberInfo, Mesh, MeshConfig, MeshEvent, MeshLimits, Role};
use starling_runtime::value::Encoded;
use tokio::sync::mpsc;

const BIG: usize = 256 << 20;
const SMALL: usize = 1000;

struct Blocks {
    big: Bytes,
}

impl BlockStore for Blocks {
    fn get(&self, task: TaskId) -> Option<Encoded> {
        let length = if task.index == 0 { BIG } else { SMALL };
        Some(Encoded { head: Bytes::from_static(b"head"), buffers: vec![self.big.slice(..length)] })
    }

    fn put(&self, _: TaskId, _: Encoded) -> Result<(), String> {
        Ok(())
    }
}

async fn node(name: &str) -> (Mesh, mpsc::Receiver<MeshEvent>) {
    let config = MeshConfig {
        keypair: None,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        secret: None,
        member: MemberInfo { name: name.to_owned(), role: Role::Worker, room: 0, keeps: false },
        limits: MeshLimits::default(),
    };
    Mesh::start(config, Arc::new(Blocks { big: Bytes::from(vec![7; BIG]) })).await.unwrap()
}

fn main() {
    // A runtime for each, as if they were two processes.
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (here, there) = (runtime(), runtime());
    let far = there.block_on(node("far"));
    here.block_on(async { here.spawn(run(far)).await.unwrap() });
}

async fn run((far, mut events): (Mesh, mpsc::Receiver<MeshEvent>)) {
    let (near, _events) = node("near").await;
    near.join(&far.listen_addrs()[0]).await.unwrap();
    // `wire bulk` or `wire links` runs the one alone, for a profiler.
    let only = std::env::args().nth(1);
    if only.as_deref() != Some("links") {
        bulk(&near, &far).await;
    }
    if only.as_deref() != Some("bulk") {
        links(&near, &far, &mut events).await;
    }
}

async fn bulk(near: &Mesh, far: &Mesh) {
    let task = |index| TaskId::new(JobId(1), index);
    for round in 0..5 {
        let start = Instant::now();
        near.fetch(far.node(), &[task(0)], &mut |_, block| assert!(block.is_some())).await.unwrap();
        println!("one 256 MiB block, round {round}: {:.2} GB/s", BIG as f64 / 1e9 / start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    near.put(far.node(), task(0), Encoded { head: Bytes::new(), buffers: vec![Bytes::from(vec![1; BIG])] })
        .await
        .unwrap();
    println!("put of 256 MiB, with making it: {:.2} GB/s", BIG as f64 / 1e9 / start.elapsed().as_secs_f64());
    let tasks: Vec<_> = (1..=100_000).map(task).collect();
    let start = Instant::now();
    near.fetch(far.node(), &tasks, &mut |_, block| assert!(block.is_some())).await.unwrap();
    println!("blocks of 1 kB, in one list: {:.0} thousand/s", 100.0 / start.elapsed().as_secs_f64());
    let mut times = Vec::new();
    for index in 1..3000 {
        let start = Instant::now();
        near.fetch(far.node(), &[task(index)], &mut |_, block| assert!(block.is_some())).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("fetch of one 1 kB block: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
}

async fn links(near: &Mesh, far: &Mesh, events: &mut mpsc::Receiver<MeshEvent>) {
    let mut here = near.open_link(far.node(), Bytes::new()).await.unwrap();
    let mut there = loop {
        if let MeshEvent::Link { link, .. } = events.recv().await.unwrap() {
            break link;
        }
    };
    tokio::spawn(async move {
        while let Some(frame) = there.rx.recv().await {
            if frame.len() == 1 {
                there.tx.send(frame).await.unwrap();
            }
        }
    });
    let mut times = Vec::new();
    for _ in 0..10_000 {
        let start = Instant::now();
        here.tx.send(Bytes::from_static(b"x")).await.unwrap();
        here.rx.recv().await.unwrap();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("link ping-pong: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    let frame = Bytes::from(vec![1; 64]);
    let start = Instant::now();
    for _ in 0..2_000_000 {
        here.tx.send(frame.clone()).await.unwrap();
    }
    here.tx.send(Bytes::from_static(b"x")).await.unwrap();
    here.rx.recv().await.unwrap();
    println!("frames of 64 bytes: {:.2} million/s", 2.0 / start.elapsed().as_secs_f64());
}
