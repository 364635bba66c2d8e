//! Requests are input: whatever comes, a node answers and goes on.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{Net, config, id, jobs};
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_core::ids::{JobId, NodeId, Term};
use starling_quorum::{Memory, Quorum, REQUEST_BYTES_MAX, Transport, TransportError};
use tokio::time::timeout;

/// Keeps what passes, with who has sent it.
struct Tap(Arc<dyn Transport>, NodeId, Arc<Mutex<Vec<(NodeId, Bytes)>>>);

impl Transport for Tap {
    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        self.2.lock().unwrap().push((self.1, request.clone()));
        self.0.call(to, request).boxed()
    }
}

/// Three voters, and requests of all kinds that they have sent.
async fn tapped(net: &Net) -> Vec<(NodeId, Bytes)> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    for number in 1..=3 {
        let tap = Tap(net.port(number), id(number), Arc::clone(&seen));
        let quorum = Quorum::start_on(config(number), Arc::new(tap), Box::new(Memory::new())).await.unwrap();
        net.add(number, quorum);
    }
    net.node(1).found().await.unwrap();
    net.tell();
    for number in 1..=3 {
        net.until(number, |view| view.voters.len() == 3 && view.learners.is_empty()).await;
    }
    net.node(1).propose(jobs(7)).await.unwrap();
    net.isolate(1);
    let leader = net.until_one_leads(&[2, 3]).await;
    net.node(leader).propose(jobs(8)).await.unwrap();
    net.heal();
    net.until(1, |view| view.leader == Some(id(leader))).await;
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() > 30);
    seen
}

async fn assert_all_is_well(net: &Net, term: Term) {
    let leader = net.until_one_leads(&[1, 2, 3]).await;
    assert_eq!(net.node(leader).still_leads(), Some(term), "nobody was deposed");
    net.node(leader).propose(jobs(9)).await.unwrap();
    for number in 1..=3 {
        let view = net.until(number, |view| view.leader == Some(id(leader))).await;
        assert_eq!(view.problem, None);
        let node = net.node(number);
        let mut applied = node.applied();
        let all = timeout(Duration::from_secs(5), applied.wait_for(|_| node.ledger().jobs_below == JobId(9))).await;
        assert!(all.is_ok(), "{number} has {:?}", node.ledger());
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_shortened_and_random_requests_are_answered_and_change_nothing() {
    let net = Net::default();
    let seen = tapped(&net).await;
    let term = net.leaders()[0].still_leads().unwrap();
    let mut random = 7u64;
    let mut next = || {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize
    };
    for (from, request) in seen.iter().take(400) {
        // The identifier of the cluster stays, or everything would be refused at the door.
        let mut bad = request.to_vec();
        let place = 20 + next() % (bad.len() - 20);
        bad.truncate(place);
        assert!(!net.node(2).answer(*from, bad.into()).await.is_empty());
        assert!(!net.node(3).answer(id(9), request.clone()).await.is_empty(), "it is another's");
    }
    for len in [0, 1, 17, 18, 100, 70_000] {
        let noise: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        assert!(!net.node(1).answer(id(2), noise.into()).await.is_empty());
    }
    let huge = Bytes::from(vec![1; REQUEST_BYTES_MAX + 1]);
    assert!(!net.node(1).answer(id(2), huge).await.is_empty());
    assert_all_is_well(&net, term).await;
}

#[tokio::test(start_paused = true)]
async fn old_requests_that_come_again_in_any_order_change_nothing() {
    let net = Net::default();
    let seen = tapped(&net).await;
    let term = net.leaders()[0].still_leads().unwrap();
    for (from, request) in seen.iter().rev().chain(&seen) {
        for number in (1..=3).filter(|number| id(*number) != *from) {
            net.node(number).answer(*from, request.clone()).await;
        }
    }
    assert_all_is_well(&net, term).await;
}
