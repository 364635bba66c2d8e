//! Nodes and clients of tests, and how long these wait for anything.

#![allow(missing_docs, clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::time::Duration;

use starling::mesh::{Multiaddr, parse_addr};
use starling::{Cluster, ConnectOptions, Node, NodeConfig, NodeRole};
use tokio::time::timeout;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn in_time<T>(what: impl IntoFuture<Output = T>) -> T {
    timeout(PATIENCE, what.into_future()).await.expect("it ended in time")
}

/// Waits until it is so.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(mut find: impl FnMut() -> F) -> T {
    in_time(async {
        loop {
            if let Some(found) = find().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

pub(crate) async fn node(role: NodeRole, name: &str, join: &[Multiaddr]) -> Node {
    let config = NodeConfig {
        name: name.to_owned(),
        listen: vec![parse_addr("/ip4/127.0.0.1/tcp/0").unwrap()],
        join: join.to_vec(),
        nthreads: 2,
        ..NodeConfig::new(role)
    };
    in_time(Node::start(config)).await.unwrap()
}

pub(crate) async fn connect(node: &Node) -> Cluster {
    let options = ConnectOptions { insecure: true, name: Some("tests".to_owned()), ..ConnectOptions::default() };
    in_time(Cluster::connect_any(&node.listen_addrs(), options)).await.unwrap()
}
