//! The actors that are measured, and the process that holds those of the other side.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use actix::{Actor, Arbiter, Handler, Message};
use starling::mesh::parse_addr;
use starling::{ClusterSecret, Node, NodeConfig, NodeRole, RemoteAddr, RemoteMessage};

/// How many messages are handled before the mailbox is looked into again by others. actix's default of 16 makes an actor that
/// only counts slower than its sender.
const MAILBOX: usize = 4096;
const NAME: &str = "counter";

/// Echoes and counts.
pub(super) struct Counter {
    told: u64,
    sum: u64,
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
        node.register(NAME, Counter { told: 0, sum: 0 }.start()).await?;
        let addr = node.listen_addrs().first().context("the node listens nowhere")?.to_string();
        ready(addr);
        node.stopped().await;
        Ok(())
    })
}

/// What one end has measured.
pub(super) struct Measured {
    /// The median of an ask and its answer, in seconds.
    pub(super) ask_p50: f64,
    /// Messages a second to another process.
    pub(super) tell_remote: f64,
    /// Messages a second within this one, to an actor on another thread.
    pub(super) tell_local: f64,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) asks: u32,
    pub(super) tells: u64,
}

/// Measures against the host at `addr`, from a node on this thread.
pub(super) fn measure(addr: &str, secret: ClusterSecret, size: Size) -> anyhow::Result<Measured> {
    actix::System::new().block_on(async {
        let node = node(Some(addr), secret).await?;
        let counter = node.lookup::<Counter>(NAME).await?;
        let ask_p50 = asked(&counter, size.asks).await?;
        let tell_remote = told(&counter, size.tells).await?;
        let here = Counter::start_in_arbiter(&Arbiter::new().handle(), |_| Counter { told: 0, sum: 0 });
        let here = node.register("here", here).await?;
        let tell_local = told(&here, size.tells).await?;
        node.shutdown().await;
        Ok(Measured { ask_p50, tell_remote, tell_local })
    })
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
        if pong != ping {
            return Err(anyhow!("the answer is another than what was sent"));
        }
    }
    crate::measure::median(&seconds).context("nothing was asked")
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
    if counted != expected {
        return Err(anyhow!("{counted:?} was counted instead of {expected:?}"));
    }
    Ok(tells as f64 / seconds)
}

/// Runs on a thread of its own, which may be kept on a core, and gives what that gives.
pub(super) fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || done.send(work()));
    let result = result.recv().map_err(|_| anyhow!("the measuring thread panicked"));
    // Told by the channel.
    let _ = thread.join();
    result?
}
