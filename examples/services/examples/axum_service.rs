//! A web service, on axum, that is a node: it registers an actor, which every node reaches, and submits tasks from a request
//! handler, all under the service's own tokio runtime.
//!
//! ```sh
//! cargo run --release --example axum_service                      # a cluster of its own; curl localhost:8080/words?text=to+be+or+not+to+be
//! cargo run --release --example axum_service -- --listen 127.0.0.1:8081 --join ADDRESS    # another one, of the same cluster
//! ```
//!
//! `/words?text=...` has a task count the words of the text, and asks the actor, which may be in another process, to keep the total.

#![allow(clippy::print_stdout, reason = "what the example shows is its output")]

use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use serde::{Deserialize, Serialize};
use starling::mesh::parse_addr;
use starling::{Cluster, ClusterSecret, Node, NodeConfig, NodeRole, RemoteAddr, RemoteMessage};

/// Counts words, on whichever worker is free.
#[starling::task]
fn count_words(text: String) -> u64 {
    text.split_whitespace().count() as u64
}

/// Keeps a total for all services of the cluster.
#[derive(Default)]
struct Total(u64);

impl Actor for Total {
    type Context = Context<Total>;
}

/// Adds to the total, and gives it.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "u64")]
#[remote(Total)]
struct Add(u64);

impl Handler<Add> for Total {
    type Result = u64;

    fn handle(&mut self, Add(words): Add, _: &mut Context<Total>) -> u64 {
        self.0 += words;
        self.0
    }
}

#[derive(Parser)]
struct Options {
    /// Where the service listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// A node of the cluster to join; by default the service begins one. Its secret is in `STARLING_SECRET`, or in the default place.
    #[arg(long)]
    join: Option<String>,
}

struct Service {
    cluster: Cluster,
    total: RemoteAddr<Total>,
}

#[derive(Deserialize)]
struct Words {
    text: String,
}

#[derive(Serialize)]
struct Counted {
    words: u64,
    total: u64,
}

/// `/words?text=...`
async fn count(
    State(service): State<Arc<Service>>,
    Query(Words { text }): Query<Words>,
) -> Result<Json<Counted>, (StatusCode, String)> {
    let words = service.cluster.submit(count_words::task(text)).result().await.map_err(unavailable)?;
    let total = service.total.send(Add(words)).await.map_err(unavailable)?;
    Ok(Json(Counted { words, total }))
}

fn unavailable(error: impl std::error::Error) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// The node that this service is. It runs tasks, and holds the scheduler if nobody else does.
async fn start_node(join: Option<&str>) -> anyhow::Result<Node> {
    // The one that other services find as well; made if there is none.
    let secret = match ClusterSecret::find(None, None) {
        Ok((secret, _)) => secret,
        Err(_) => ClusterSecret::create_default()?.0,
    };
    let config = NodeConfig {
        listen: vec![parse_addr("/ip4/127.0.0.1/tcp/0")?],
        join: join.map(parse_addr).transpose()?.into_iter().collect(),
        secret: Some(secret),
        ..NodeConfig::new(NodeRole::Auto)
    };
    Ok(Node::start(config).await?)
}

/// The actor of the cluster: that of another service if one has it, else one of this.
async fn total_of(node: &Node) -> anyhow::Result<RemoteAddr<Total>> {
    if let Ok(total) = node.lookup::<Total>("total").await {
        return Ok(total);
    }
    // On a thread of the node's, beside the service's runtime.
    let total = node.start_actor(|_| Total::default())?;
    Ok(node.register("total", total).await?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let node = start_node(options.join.as_deref()).await?;
    let service = Service { cluster: node.cluster().await?, total: total_of(&node).await? };
    let router = Router::new().route("/words", get(count)).with_state(Arc::new(service));
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    println!("other services join with --join {}", node.listen_addrs()[0]);
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
    node.shutdown().await;
    Ok(())
}
