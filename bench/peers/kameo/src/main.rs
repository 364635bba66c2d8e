//! kameo, measured beside Starling's actors: two libp2p swarms over TCP, Noise and yamux, one message a request.

#[path = "../../actors.rs"]
mod actors;

use std::time::{Duration, Instant};

use actors::{Counted, Remote, first_byte};
use anyhow::{anyhow, bail, ensure};
use kameo::prelude::*;
use libp2p::futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "counter";
/// How many tells wait for their receipt at once; the library drops what is beyond 100.
const IN_FLIGHT: u64 = 64;
/// The bound of an actor's mailbox: as Starling's has it here.
const MAILBOX: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(20);
const NOTE: &str = "a remote tell is one with a receipt, 64 at once";

#[derive(Actor, RemoteActor, Default)]
struct Counter {
    told: u64,
    sum: u64,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Ping([u8; 32], [u8; 32]);

#[derive(Serialize, Deserialize)]
struct Told([u8; 32], [u8; 32]);

#[derive(Serialize, Deserialize)]
struct HowMany;

#[remote_message]
impl Message<Ping> for Counter {
    type Reply = Result<Ping, String>;

    async fn handle(&mut self, ping: Ping, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        Ok(ping)
    }
}

#[remote_message]
impl Message<Told> for Counter {
    type Reply = ();

    async fn handle(&mut self, Told(bytes, _): Told, _: &mut Context<Self, Self::Reply>) {
        self.told += 1;
        self.sum += u64::from(bytes[0]);
    }
}

#[remote_message]
impl Message<HowMany> for Counter {
    type Reply = Result<Counted, String>;

    async fn handle(&mut self, _: HowMany, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        Ok((std::mem::take(&mut self.told), std::mem::take(&mut self.sum)))
    }
}

fn told(number: u64) -> Told {
    Told([first_byte(number); 32], [7; 32])
}

fn swarm() -> anyhow::Result<Swarm<remote::Behaviour>> {
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| remote::Behaviour::new(key.public().to_peer_id(), remote::messaging::Config::default()))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    swarm.behaviour().try_init_global().map_err(|error| anyhow!("{error}"))?;
    Ok(swarm)
}

async fn host(say: fn(&str)) -> anyhow::Result<()> {
    let mut swarm = swarm()?;
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let (listening, address) = tokio::sync::oneshot::channel();
    let mut listening = Some(listening);
    let peer = *swarm.local_peer_id();
    let running = tokio::spawn(async move {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await
                && let Some(listening) = listening.take()
            {
                let _ = listening.send(address);
            }
        }
    });
    let address = address.await?;
    let counter = Counter::spawn_with_mailbox(Counter::default(), mailbox::bounded(MAILBOX));
    counter.register(NAME).await?;
    say(&format!("{address}/p2p/{peer}"));
    running.await?
}

struct Link(RemoteActorRef<Counter>);

impl Remote for Link {
    async fn connect(address: &str) -> anyhow::Result<Link> {
        let mut swarm = swarm()?;
        let address: Multiaddr = address.parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else { bail!("the host's address names no peer") };
        // Without it the registry does not ask there.
        swarm.add_peer_address(peer, address.clone());
        swarm.dial(address)?;
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            // An error, too, may only say that the connection is not there yet.
            let found = RemoteActorRef::lookup(NAME).await;
            if let Ok(Some(counter)) = found {
                return Ok(Link(counter));
            }
            ensure!(Instant::now() < deadline, "the other node's actor did not appear: {:?}", found.err());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ask(&self, number: u64) -> anyhow::Result<bool> {
        let ping = Ping([first_byte(number); 32], [7; 32]);
        Ok(self.0.ask(&ping).send().await? == ping)
    }

    async fn tell(&self, tells: u64) -> anyhow::Result<Counted> {
        let mut lanes = JoinSet::new();
        for lane in 0..IN_FLIGHT {
            let counter = self.0.clone();
            lanes.spawn(async move {
                for number in (lane..tells).step_by(IN_FLIGHT as usize) {
                    counter.tell(&told(number)).send_ack().await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(lane) = lanes.join_next().await {
            lane??;
        }
        Ok(self.0.ask(&HowMany).send().await?)
    }
}

async fn local(tells: u64) -> anyhow::Result<(Duration, Counted)> {
    let counter = Counter::spawn_with_mailbox(Counter::default(), mailbox::bounded(MAILBOX));
    let started = Instant::now();
    for number in 0..tells {
        counter.tell(told(number)).send().await?;
    }
    let counted = counter.ask(HowMany).send().await.map_err(|error| anyhow!("{error}"))?;
    Ok((started.elapsed(), counted))
}

fn main() -> anyhow::Result<()> {
    actors::main::<Link>(host, local, NOTE)
}
