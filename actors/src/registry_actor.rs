//! The registry's actor: tells other nodes what this one holds, hears what they hold, and keeps a view of it that any
//! thread may read.
//!
//! It asks a few nodes a round for what it lacks, more often while there is news. Outputs too small to be worth fetching
//! ([`INLINE_RESULT_BYTES_MAX`]) are not published: they ride in completions, and the scheduler knows them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use starling_core::ids::{NodeId, TaskId, Term};
use starling_core::registry::{Delta, Digest, Registry};
use starling_core::wire::INLINE_RESULT_BYTES_MAX;
use starling_runtime::inbox::Inbox;
use starling_runtime::mesh::{Link, Mesh};
use tokio::runtime::Handle;

use crate::host::Vital;
use crate::link::{Hello, MessageReceiver, Outbox, encode_one};

/// How often other nodes are asked while there is news, and how often when there is none.
const ROUND: Duration = Duration::from_millis(200);
const QUIET_ROUND: Duration = Duration::from_secs(5);
/// For how long after the last news it is asked often.
const NEWS_FRESH: Duration = Duration::from_secs(2);
/// How many nodes are asked a round.
const ASKED: usize = 2;
/// Who leads does not matter here.
const OF_NO_TERM: Term = Term(0);
/// How many changes are told at once.
const CHANGES_MAX: usize = 20_000;

/// What nodes say to each other about data locations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Gossip {
    /// This is what I know: tell me what I lack. Answered by `News`, and by a `Digest` in turn if `answer` says so.
    Ask { digest: Digest, answer: bool },
    /// This is what you lack.
    News(Vec<Delta>),
}

/// What reaches the registry's actor.
pub(crate) enum Input {
    /// A node that may hold values is up.
    NodeUp(NodeId),
    NodeDown(NodeId),
    /// This node holds these outputs, with their sizes, or holds them no more.
    Own(Vec<(TaskId, Option<u64>)>),
    /// A link to a peer is open.
    Link {
        peer: NodeId,
        outbox: Outbox<Gossip>,
    },
    LinkClosed {
        peer: NodeId,
    },
    FromPeer {
        peer: NodeId,
        messages: Vec<Gossip>,
    },
}

/// Who holds which output, as far as this node has heard. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct LocationView {
    holders: Arc<DashMap<TaskId, Vec<(NodeId, u64)>>>,
}

impl LocationView {
    pub(crate) fn who_has(&self, task: TaskId) -> Vec<(NodeId, u64)> {
        self.holders.get(&task).map(|holders| holders.clone()).unwrap_or_default()
    }

    fn update(&self, registry: &Registry, task: TaskId) {
        let holders = registry.who_has(task);
        if holders.is_empty() {
            self.holders.remove(&task);
        } else {
            self.holders.insert(task, holders);
        }
    }

    /// After a change that does not say which tasks it is about.
    fn update_all(&self, registry: &Registry) {
        self.holders.retain(|&task, holders| {
            *holders = registry.who_has(task);
            !holders.is_empty()
        });
    }
}

pub(crate) struct RegistryActor {
    registry: Registry,
    view: LocationView,
    inbox: Inbox<Input>,
    mesh: Mesh,
    /// Where links are opened.
    runtime: Handle,
    peers: Vec<NodeId>,
    /// All and only the peers with an open link, and those whose link is being opened (`None`).
    links: HashMap<NodeId, Option<Outbox<Gossip>>>,
    last_news: Instant,
    last_round: Instant,
}

impl RegistryActor {
    pub(crate) fn new(mesh: Mesh, view: LocationView, inbox: Inbox<Input>, runtime: Handle) -> RegistryActor {
        // A node that comes back under the same identity must count on from where it was.
        let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64);
        let now = Instant::now();
        RegistryActor {
            registry: Registry::new(mesh.node(), first),
            view,
            inbox,
            mesh,
            runtime,
            peers: Vec::new(),
            links: HashMap::new(),
            last_news: now,
            last_round: now,
        }
    }

    fn heard(&mut self, peer: NodeId, message: Gossip) {
        match message {
            Gossip::Ask { digest, answer } => {
                let deltas = self.registry.lacking(&digest, CHANGES_MAX);
                let mut said = vec![Gossip::News(deltas)];
                if answer {
                    said.push(Gossip::Ask { digest: self.registry.digest(), answer: false });
                }
                self.say(peer, said);
            }
            Gossip::News(deltas) => {
                for delta in deltas {
                    if !self.registry.merge(&delta) {
                        continue;
                    }
                    self.last_news = Instant::now();
                    if delta.is_whole {
                        self.view.update_all(&self.registry);
                    }
                    for change in &delta.changes {
                        self.view.update(&self.registry, change.task);
                    }
                }
            }
        }
    }

    fn say(&mut self, peer: NodeId, messages: Vec<Gossip>) {
        if let Some(Some(outbox)) = self.links.get(&peer)
            && outbox.send(messages).is_err()
        {
            self.links.remove(&peer);
        }
    }

    fn open(&mut self, peer: NodeId) {
        self.links.insert(peer, None);
        let (mesh, inbox) = (self.mesh.clone(), self.inbox.clone());
        self.runtime.spawn(async move {
            let Ok(hello) = encode_one(&Hello::Registry) else { return };
            let opened = mesh.open_link(peer, hello).await;
            // The link is served to its end, which comes with the mesh's: it must not keep the mesh.
            drop(mesh);
            match opened {
                Ok(link) => serve(link, inbox).await,
                Err(error) => {
                    tracing::debug!(%peer, %error, "no link for data locations");
                    inbox.push(Input::LinkClosed { peer });
                }
            }
        });
    }
}

impl Vital for RegistryActor {
    type Input = Input;
    const TICK: Option<Duration> = Some(ROUND);
    // Those who tell it have better to do.
    const IN_PLACE: bool = false;

    fn input(&mut self, input: Input) {
        match input {
            Input::NodeUp(node) => {
                self.registry.node_up(node);
                if !self.peers.contains(&node) {
                    self.peers.push(node);
                }
                self.last_news = Instant::now();
            }
            Input::NodeDown(node) => {
                self.registry.node_down(node);
                self.peers.retain(|peer| *peer != node);
                if let Some(Some(outbox)) = self.links.remove(&node) {
                    outbox.close();
                }
                self.view.update_all(&self.registry);
            }
            Input::Own(changes) => {
                for (task, nbytes) in changes {
                    match nbytes {
                        Some(nbytes) => self.registry.publish(task, nbytes),
                        None => self.registry.withdraw(task),
                    }
                    self.view.update(&self.registry, task);
                }
                self.last_news = Instant::now();
            }
            Input::Link { peer, outbox } => {
                self.links.insert(peer, Some(outbox));
            }
            Input::LinkClosed { peer } => {
                self.links.remove(&peer);
            }
            Input::FromPeer { peer, messages } => {
                for message in messages {
                    self.heard(peer, message);
                }
            }
        }
    }

    /// Asks a few nodes, if it is time.
    fn tick(&mut self) {
        let now = Instant::now();
        let pause = if now - self.last_news < NEWS_FRESH { ROUND } else { QUIET_ROUND };
        if self.peers.is_empty() || now - self.last_round < pause {
            return;
        }
        self.last_round = now;
        for _ in 0..ASKED.min(self.peers.len()) {
            let peer = self.peers[rand::random_range(0..self.peers.len())];
            match self.links.get(&peer) {
                Some(Some(_)) => {
                    let ask = Gossip::Ask { digest: self.registry.digest(), answer: true };
                    self.say(peer, vec![ask]);
                }
                Some(None) => {}
                // Asked in a later round.
                None => self.open(peer),
            }
        }
    }
}

/// Reads a link to its end.
pub(crate) async fn serve(link: Link, inbox: Inbox<Input>) {
    let peer = link.peer;
    let outbox = Outbox::new();
    outbox.start(link.tx, OF_NO_TERM);
    inbox.extend_when_free([Input::Link { peer, outbox }]).await;
    let mut messages = MessageReceiver::new(link.rx, OF_NO_TERM);
    loop {
        match messages.recv(peer).await {
            Ok(Some(messages)) => inbox.extend_when_free([Input::FromPeer { peer, messages }]).await,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "a link about data locations is closed");
                break;
            }
        }
    }
    inbox.push(Input::LinkClosed { peer });
}

/// Whether an output is worth telling other nodes of.
pub(crate) fn is_published(nbytes: u64) -> bool {
    nbytes > INLINE_RESULT_BYTES_MAX as u64
}
