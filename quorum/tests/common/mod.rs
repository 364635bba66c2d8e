//! Nodes that reach one another in one process, on tokio's paused clock.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_core::ids::{JobId, NodeId};
use starling_core::ledger::Entry;
use starling_quorum::{Disk, Memory, Pace, Quorum, QuorumConfig, QuorumError, Rank, Transport, TransportError, View};
use tokio::time::{sleep, timeout};

pub fn id(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// Rank by room: higher numbers are preferred.
pub fn rank(room: u64) -> Rank {
    Rank { room, ..Rank::default() }
}

pub fn jobs(below: u32) -> Entry {
    Entry::JobsBelow(JobId(below))
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Quorum>,
    /// From the first to the second nothing arrives.
    cuts: BTreeSet<(NodeId, NodeId)>,
}

#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<State>>);

struct Port {
    net: Net,
    node: NodeId,
}

impl Transport for Port {
    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (net, from) = (self.net.clone(), self.node);
        async move {
            net.pass(from, to).await?;
            let node = net.0.lock().unwrap().nodes.get(&to).cloned();
            let node = node.ok_or_else(|| TransportError("nobody is there".to_owned()))?;
            let answer = node.answer(from, request).await;
            net.pass(to, from).await?;
            Ok(answer)
        }
        .boxed()
    }
}

impl Net {
    async fn pass(&self, from: NodeId, to: NodeId) -> Result<(), TransportError> {
        sleep(Duration::from_millis(1)).await;
        if self.0.lock().unwrap().cuts.contains(&(from, to)) {
            // What is lost is lost; nobody says so.
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    pub fn port(&self, number: u8) -> Arc<dyn Transport> {
        Arc::new(Port { net: self.clone(), node: id(number) })
    }

    pub async fn start(&self, number: u8, disk: Box<dyn Disk>) -> Result<Quorum, QuorumError> {
        self.start_with(config(number), disk).await
    }

    pub async fn start_with(&self, config: QuorumConfig, disk: Box<dyn Disk>) -> Result<Quorum, QuorumError> {
        let (node, port) = (config.node, Arc::new(Port { net: self.clone(), node: config.node }));
        let quorum = Quorum::start_on(config, port, disk).await?;
        self.0.lock().unwrap().nodes.insert(node, quorum.clone());
        Ok(quorum)
    }

    /// Makes a node that was started elsewhere reachable.
    pub fn add(&self, number: u8, node: Quorum) {
        self.0.lock().unwrap().nodes.insert(id(number), node);
    }

    pub fn node(&self, number: u8) -> Quorum {
        self.0.lock().unwrap().nodes[&id(number)].clone()
    }

    pub fn all(&self) -> Vec<Quorum> {
        self.0.lock().unwrap().nodes.values().cloned().collect()
    }

    /// Nobody hears or reaches it any more; it is dropped as it is.
    pub fn kill(&self, number: u8) {
        let dead = self.0.lock().unwrap().nodes.remove(&id(number));
        assert!(dead.is_some());
    }

    pub fn cut(&self, from: u8, to: u8) {
        self.0.lock().unwrap().cuts.insert((id(from), id(to)));
    }

    /// No message passes between this node and any other.
    pub fn isolate(&self, number: u8) {
        for other in (1..10).filter(|other| *other != number) {
            self.cut(number, other);
            self.cut(other, number);
        }
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().cuts.clear();
    }

    /// Tells all nodes who is there: those that are.
    pub fn tell(&self) {
        let nodes: Vec<NodeId> = self.0.lock().unwrap().nodes.keys().copied().collect();
        self.tell_ranks(nodes.into_iter().map(|node| (node, rank(u64::from(node.0[0])))).collect());
    }

    pub fn tell_ranks(&self, live: Vec<(NodeId, Rank)>) {
        self.all().iter().for_each(|node| node.candidates(live.clone()));
    }

    /// A cluster of nodes 1 to `count`, all of them voters, led by node 1.
    pub async fn cluster(&self, count: u8) {
        for number in 1..=count {
            self.start(number, Box::new(Memory::new())).await.unwrap();
        }
        self.node(1).found().await.unwrap();
        self.tell();
        for number in 1..=count {
            self.until(number, |view| view.voters.len() == usize::from(count) && view.learners.is_empty()).await;
        }
        // The change has a second step, of which the view says nothing.
        sleep(Duration::from_secs(1)).await;
    }

    /// Waits until a node's view is like that.
    pub async fn until(&self, number: u8, like: impl FnMut(&View) -> bool) -> View {
        until(&self.node(number), like).await
    }

    /// Who leads, of the nodes that are there.
    pub fn leaders(&self) -> Vec<Quorum> {
        self.all().into_iter().filter(|node| node.still_leads().is_some()).collect()
    }

    /// Waits until one of these leads.
    pub async fn until_one_leads(&self, of: &[u8]) -> u8 {
        let leads = async {
            loop {
                let leading = of.iter().find(|number| self.node(**number).still_leads().is_some());
                match leading {
                    Some(number) => break *number,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(Duration::from_secs(60), leads).await.expect("a leader within a minute")
    }
}

pub fn config(number: u8) -> QuorumConfig {
    QuorumConfig { rank: rank(u64::from(number)), pace: Pace::default(), ..QuorumConfig::new(id(number)) }
}

pub async fn until(node: &Quorum, mut like: impl FnMut(&View) -> bool) -> View {
    let mut view = node.view();
    let waited = timeout(Duration::from_secs(120), view.wait_for(|view| like(view))).await;
    match waited {
        Ok(seen) => seen.unwrap().clone(),
        Err(_) => panic!("not within two minutes; the view is {:?}", node.view().borrow()),
    }
}
