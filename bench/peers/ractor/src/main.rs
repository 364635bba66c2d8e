//! ractor with ractor_cluster, measured beside Starling's actors: two nodes over a plain TCP connection.

#[path = "../../actors.rs"]
mod actors;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use actors::{Counted, Remote, first_byte};
use anyhow::Context;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call_t, pg};
use ractor_cluster::{
    BytesConvertable, NetworkStream, NodeServer, NodeServerMessage, RactorClusterMessage, client_connect,
};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GROUP: &str = "counters";
/// How many messages are told before others may run: this library's mailboxes have no bound.
const AT_ONCE: u64 = 256;
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_MS: u64 = 60_000;
const NOTE: &str = "not encrypted, mailboxes without bound";

#[derive(Clone, Copy, PartialEq)]
struct Block([u8; 64]);

impl Block {
    fn new(number: u64) -> Block {
        let mut block = [7; 64];
        block[..32].fill(first_byte(number));
        Block(block)
    }
}

impl BytesConvertable for Block {
    fn into_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }

    fn from_bytes(bytes: Vec<u8>) -> Block {
        // What is no block is not counted as one.
        Block(bytes.try_into().unwrap_or([0; 64]))
    }
}

#[derive(RactorClusterMessage)]
enum Message {
    #[rpc]
    Ping(Block, RpcReplyPort<Block>),
    Told(Block),
    #[rpc]
    HowMany(RpcReplyPort<Vec<u64>>),
}

struct Counter;

impl Actor for Counter {
    type Msg = Message;
    type State = Counted;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<Counted, ActorProcessingErr> {
        Ok((0, 0))
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        (told, sum): &mut Counted,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Ping(block, reply) => reply.send(block)?,
            Message::Told(Block(bytes)) => {
                *told += 1;
                *sum += u64::from(bytes[0]);
            }
            Message::HowMany(reply) => reply.send(vec![std::mem::take(told), std::mem::take(sum)])?,
        }
        Ok(())
    }
}

async fn node(name: &str) -> anyhow::Result<ActorRef<NodeServerMessage>> {
    let server = NodeServer::new(0, "bench".into(), name.into(), "localhost".into(), None, None)
        .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Ok(Actor::spawn(None, server, ()).await?.0)
}

async fn host(say: fn(&str)) -> anyhow::Result<()> {
    let node = node("host").await?;
    let (counter, _) = Actor::spawn(None, Counter, ()).await?;
    pg::join(GROUP.into(), vec![counter.get_cell()]);
    // The node does not tell on which port it listens, so it is given connections from here.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(&listener.local_addr()?.to_string());
    loop {
        let (stream, peer_addr) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let local_addr = stream.local_addr()?;
        let stream = Box::new(NetworkStream::Raw { peer_addr, local_addr, stream });
        node.cast(NodeServerMessage::ConnectionOpened { stream, is_server: true })?;
    }
}

struct Link {
    counter: ActorRef<Message>,
    _node: ActorRef<NodeServerMessage>,
}

impl Remote for Link {
    async fn connect(address: &str) -> anyhow::Result<Link> {
        let node = node("driver").await?;
        client_connect(&node, address).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(counter) = pg::get_members(&GROUP.into()).into_iter().next() {
                return Ok(Link { counter: counter.into(), _node: node });
            }
            anyhow::ensure!(Instant::now() < deadline, "the other node's actor did not appear");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ask(&self, number: u64) -> anyhow::Result<bool> {
        let block = Block::new(number);
        Ok(call_t!(self.counter, Message::Ping, PATIENCE_MS, block)? == block)
    }

    async fn tell(&self, tells: u64) -> anyhow::Result<Counted> {
        tell(&self.counter, tells).await
    }
}

async fn tell(counter: &ActorRef<Message>, tells: u64) -> anyhow::Result<Counted> {
    for number in 0..tells {
        counter.cast(Message::Told(Block::new(number)))?;
        if number % AT_ONCE == AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
    }
    let counted = call_t!(counter, Message::HowMany, PATIENCE_MS)?;
    Ok((*counted.first().context("nothing was counted")?, *counted.get(1).context("no sum was counted")?))
}

async fn local(tells: u64) -> anyhow::Result<(Duration, Counted)> {
    let (counter, _) = Actor::spawn(None, Counter, ()).await?;
    let started = Instant::now();
    let counted = tell(&counter, tells).await?;
    let took = started.elapsed();
    counter.stop(None);
    Ok((took, counted))
}

fn main() -> anyhow::Result<()> {
    actors::main::<Link>(host, local, NOTE)
}
