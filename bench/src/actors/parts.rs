//! The actors that are measured, and the process that holds those of the other side.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, Handler, Message};
use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};
use starling::mesh::parse_addr;
use starling::{ClusterSecret, Node, NodeConfig, NodeRole, RemoteAddr, RemoteMessage};

use crate::measure::{Measured, Repeat, median};
use crate::raw_tcp::pin;

use super::Case;

/// How many messages are handled before the mailbox is looked into again by others. actix's default of 16 makes an actor that
/// only counts slower than its sender.
const MAILBOX: usize = 4096;
const NAME: &str = "counter";

/// Echoes and counts.
pub(super) struct Counter {
    told: u64,
    sum: u64,
}

impl Counter {
    fn new() -> Counter {
        Counter { told: 0, sum: 0 }
    }
}

impl Actor for Counter {
    type Context = actix::Context<Counter>;

    fn started(&mut self, context: &mut actix::Context<Counter>) {
        context.set_mailbox_capacity(MAILBOX);
    }
}

/// 64 bytes that come back.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "Ping")]
#[remote(Counter)]
pub(super) struct Ping([u8; 32], [u8; 32]);

/// 64 bytes that are counted.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "()")]
#[remote(Counter)]
pub(super) struct Told([u8; 32], [u8; 32]);

/// How many were counted, and the sum of their first bytes.
#[derive(Serialize, Deserialize, Message, RemoteMessage)]
#[rtype(result = "(u64, u64)")]
#[remote(Counter)]
pub(super) struct HowMany;

impl actix::dev::MessageResponse<Counter, Ping> for Ping {
    fn handle(self, _: &mut actix::Context<Counter>, tx: Option<actix::dev::OneshotSender<Ping>>) {
        if let Some(tx) = tx {
            // Who has asked may have gone.
            let _ = tx.send(self);
        }
    }
}

impl Handler<Ping> for Counter {
    type Result = Ping;

    fn handle(&mut self, ping: Ping, _: &mut Self::Context) -> Ping {
        ping
    }
}

impl Handler<Told> for Counter {
    type Result = ();

    fn handle(&mut self, Told(bytes, _): Told, _: &mut Self::Context) {
        self.told += 1;
        self.sum += u64::from(bytes[0]);
    }
}

impl Handler<HowMany> for Counter {
    type Result = actix::MessageResult<HowMany>;

    fn handle(&mut self, _: HowMany, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult((std::mem::take(&mut self.told), std::mem::take(&mut self.sum)))
    }
}

/// One end's node. It is on this thread, and so is what runs on it.
async fn node(join: Option<&str>, secret: ClusterSecret) -> anyhow::Result<Node> {
    let config = NodeConfig {
        listen: vec![parse_addr("/ip4/127.0.0.1/tcp/0")?],
        join: join.map(parse_addr).transpose()?.into_iter().collect(),
        secret: Some(secret),
        ..NodeConfig::new(NodeRole::Service)
    };
    Ok(Node::start(config).await?)
}

/// The other process' whole life: a node with the actor, on one thread, until its starter is gone. `ready` is told its address.
pub(super) fn host(secret: ClusterSecret, ready: impl FnOnce(String)) -> anyhow::Result<()> {
    actix::System::new().block_on(async {
        let node = node(None, secret).await?;
        node.register(NAME, Counter::new().start()).await?;
        let addr = node.listen_addrs().first().context("the node listens nowhere")?.to_string();
        ready(addr);
        node.stopped().await;
        Ok(())
    })
}

/// How much is measured, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) asks: u32,
    pub(super) tells: u64,
    pub(super) runs: u32,
    /// All runs of a case.
    pub(super) budget: Duration,
    /// One run.
    pub(super) timeout: Duration,
}

/// Measures these cases, in seconds an ask and in messages a second, against the host at `addr`, from a node on this thread.
/// The actor of [`Case::TellLocal`] is on another thread, which is kept on `core`.
pub(super) fn measure(
    addr: &str,
    secret: ClusterSecret,
    cases: &[Case],
    size: Size,
    core: Option<usize>,
) -> anyhow::Result<Vec<(Case, anyhow::Result<Measured>)>> {
    actix::System::new().block_on(async {
        let node = node(Some(addr), secret).await?;
        let mut all = Vec::new();
        for &case in cases {
            let counter = match case {
                Case::TellLocal => local(&node, core).await,
                Case::Ask | Case::TellRemote => Ok(node.lookup::<Counter>(NAME).await?),
            };
            let measured = match counter {
                Ok(counter) => repeated(case, &counter, size).await,
                Err(error) => Err(error),
            };
            all.push((case, measured));
        }
        node.shutdown().await;
        Ok(all)
    })
}

/// An actor of this process, on a thread of its own.
async fn local(node: &Node, core: Option<usize>) -> anyhow::Result<RemoteAddr<Counter>> {
    let arbiter = Arbiter::new();
    if let Some(core) = core {
        let (pinned, done) = tokio::sync::oneshot::channel();
        // It has been started by a thread that is pinned, and is so itself.
        arbiter.spawn_fn(move || drop(pinned.send(pin(core))));
        done.await.context("the actor's thread has ended")??;
    }
    let counter = Counter::start_in_arbiter(&arbiter.handle(), |_| Counter::new());
    Ok(node.register("here", counter).await?)
}

async fn repeated(case: Case, counter: &RemoteAddr<Counter>, size: Size) -> anyhow::Result<Measured> {
    let mut repeat = Repeat::start(size.runs, size.budget);
    while repeat.wants_more() {
        let run = async {
            match case {
                Case::Ask => asked(counter, size.asks).await,
                Case::TellRemote | Case::TellLocal => told(counter, size.tells).await,
            }
        };
        let value = tokio::time::timeout(size.timeout, run).await;
        repeat.add(value.with_context(|| format!("a run did not end within {} s", size.timeout.as_secs()))??);
    }
    Ok(repeat.finish())
}

async fn asked(counter: &RemoteAddr<Counter>, asks: u32) -> anyhow::Result<f64> {
    let mut seconds = Vec::with_capacity(asks as usize);
    // The first ones open the link and fill the caches.
    for number in 0..asks + asks / 10 {
        let ping = Ping([number as u8; 32], [7; 32]);
        let started = Instant::now();
        let pong = counter.send(ping).await?;
        if number >= asks / 10 {
            seconds.push(started.elapsed().as_secs_f64());
        }
        ensure!(pong == ping, "the answer is another than what was sent");
    }
    median(&seconds).context("nothing was asked")
}

async fn told(counter: &RemoteAddr<Counter>, tells: u64) -> anyhow::Result<f64> {
    counter.send(HowMany).await?;
    let started = Instant::now();
    for number in 0..tells {
        counter.tell(Told([number as u8; 32], [7; 32])).await?;
    }
    counter.flush().await?;
    let seconds = started.elapsed().as_secs_f64();
    let expected = (tells, (0..tells).map(|number| u64::from(number as u8)).sum());
    let counted = counter.send(HowMany).deadline(Duration::from_secs(60)).await?;
    ensure!(counted == expected, "{counted:?} was counted instead of {expected:?}");
    Ok(tells as f64 / seconds)
}

/// Runs on a thread of its own, which is kept on `core`, and gives what that gives.
pub(super) fn on_thread<T: Send + 'static>(
    core: Option<usize>,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let pinned = core.map_or(Ok(()), pin);
        // Somebody waits for it below.
        let _ = done.send(pinned.map_err(anyhow::Error::from).and_then(|()| work()));
    });
    let result = result.recv().map_err(|_| anyhow!("the measuring thread panicked"));
    // Told by the channel.
    let _ = thread.join();
    result?
}
