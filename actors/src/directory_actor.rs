//! The directory's actor: links in, the machine, links out; as long as its node holds the scheduler.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_core::directory::{ActorSpec, Directory, Effects, Event, FromNode, LinkId, ToNode};
use starling_core::ids::{NodeId, Term, Time};
use starling_core::ledger::Entry;
use starling_quorum::Quorum;
use starling_runtime::inbox::Inbox;
use starling_runtime::mesh::Link;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::desk::next_messages;
use crate::host::Vital;
use crate::link::{MessageReceiver, Outbox, Welcome, encode_one};

/// How many lists of entries wait for the quorum. An actor of this system has its own limits on how many it asks for.
const UNLOGGED_MAX: usize = 65_536;

/// What reaches the directory's actor.
pub(crate) enum Input {
    /// This node holds the scheduler from now on.
    TakeOffice(Box<TakeOffice>),
    /// It does not any more.
    LeaveOffice,
    /// An entry was taken into the ledger in this term, or not, and why.
    Logged { term: Term, entry: Entry, outcome: Result<(), String> },
    /// A node or client has opened a link.
    Link { node: NodeId, outbox: Outbox<ToNode>, welcome: oneshot::Sender<(LinkId, Term)> },
    /// Messages from it, in order.
    FromNode { link: LinkId, messages: Vec<FromNode> },
    /// The link is closed.
    LinkClosed { link: LinkId },
    /// Membership has declared a node dead, or it has left.
    NodeDown { node: NodeId },
}

/// What a directory begins with.
pub(crate) struct TakeOffice {
    pub(crate) term: Term,
    /// The term as the quorum counts it.
    pub(crate) of_quorum: Term,
    /// The actors that the ledger has.
    pub(crate) spawned: Vec<Arc<ActorSpec>>,
    /// The nodes that are likely to say what they hold.
    pub(crate) expected: Vec<NodeId>,
    pub(crate) quorum: Quorum,
}

pub(crate) struct DirectoryActor {
    office: Option<Office>,
    /// To hear what came of entries for the ledger.
    inbox: Inbox<Input>,
    /// Where the quorum is asked.
    runtime: Handle,
    started: Instant,
    links: HashMap<LinkId, Outbox<ToNode>>,
    /// The next id; never used twice.
    next_link: u64,
    effects: Effects,
}

struct Office {
    machine: Directory,
    term: Term,
    of_quorum: Term,
    quorum: Quorum,
    /// Entries that the quorum is to take, one after the other.
    to_log: mpsc::Sender<Vec<Entry>>,
}

impl DirectoryActor {
    /// On the current tokio runtime.
    pub(crate) fn new(inbox: Inbox<Input>, runtime: Handle) -> DirectoryActor {
        DirectoryActor {
            office: None,
            inbox,
            runtime,
            started: Instant::now(),
            links: HashMap::new(),
            next_link: 0,
            effects: Effects::default(),
        }
    }

    fn take_office(&mut self, take: TakeOffice) {
        self.leave_office();
        let TakeOffice { term, of_quorum, spawned, expected, quorum } = take;
        let (to_log, logging) = mpsc::channel(UNLOGGED_MAX);
        self.runtime.spawn(log(quorum.clone(), logging, term, self.inbox.clone()));
        let machine = Directory::new(term, self.now(), expected);
        self.office = Some(Office { machine, term, of_quorum, quorum, to_log });
        for spec in spawned {
            self.event(Event::Restored(spec));
        }
    }

    /// Nothing more is said to anybody.
    fn leave_office(&mut self) {
        self.office = None;
        self.close_links();
        self.effects = Effects::default();
    }

    fn close_links(&mut self) -> Vec<LinkId> {
        let closed: Vec<(LinkId, Outbox<ToNode>)> = self.links.drain().collect();
        closed.iter().for_each(|(_, outbox)| outbox.close());
        closed.into_iter().map(|(link, _)| link).collect()
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        if let Some(office) = &mut self.office {
            office.machine.handle(now, event, &mut self.effects);
        }
    }

    fn lose(&mut self, link: LinkId) {
        if let Some(outbox) = self.links.remove(&link) {
            outbox.close();
            self.event(Event::Unlinked { link });
        }
    }

    /// Whether this node may speak as the leader now. If not, everybody finds whoever leads; which may be this node after all.
    fn still_leads(&mut self) -> bool {
        let Some(office) = &self.office else { return false };
        if office.quorum.still_leads() == Some(office.of_quorum) {
            return true;
        }
        for entry in std::mem::take(&mut self.effects).to_log {
            let problem = "the leader could not be sure to lead".to_owned();
            self.event(Event::NotLogged { entry, problem });
        }
        for link in self.close_links() {
            self.event(Event::Unlinked { link });
        }
        // Nobody is there to hear what followed from that.
        self.effects = Effects::default();
        false
    }
}

impl Vital for DirectoryActor {
    type Input = Input;
    const TICK: Option<Duration> = Some(Duration::from_millis(100));

    fn tick(&mut self) {
        if self.office.is_some() && self.still_leads() {
            self.event(Event::Tick);
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::TakeOffice(take) => self.take_office(*take),
            Input::LeaveOffice => self.leave_office(),
            Input::Logged { term, entry, outcome } => {
                if self.office.as_ref().is_some_and(|office| office.term == term) {
                    self.event(match outcome {
                        Ok(()) => Event::Logged(entry),
                        Err(problem) => Event::NotLogged { entry, problem },
                    });
                }
            }
            Input::Link { node, outbox, welcome } => {
                let Some(term) = self.office.as_ref().map(|office| office.term) else { return };
                self.next_link += 1;
                let link = LinkId(self.next_link);
                // The one who waits has gone: so has the link.
                if welcome.send((link, term)).is_ok() {
                    self.links.insert(link, outbox);
                    self.event(Event::Linked { link, node });
                }
            }
            Input::FromNode { link, messages } => {
                for message in messages {
                    self.event(Event::FromNode { link, message });
                }
            }
            Input::LinkClosed { link } => self.lose(link),
            Input::NodeDown { node } => self.event(Event::NodeDown { node }),
        }
    }

    fn perform(&mut self) {
        while !self.effects.to_nodes.is_empty() || !self.effects.to_log.is_empty() || !self.effects.to_close.is_empty()
        {
            if !self.still_leads() {
                return;
            }
            let Effects { to_nodes, to_log, to_close } = std::mem::take(&mut self.effects);
            let mut lost = Vec::new();
            for (link, message) in to_nodes {
                if self.links.get(&link).is_some_and(|outbox| outbox.send([message]).is_err()) {
                    lost.push(link);
                }
            }
            to_close.into_iter().chain(lost).for_each(|link| self.lose(link));
            let Some(office) = self.office.as_ref().filter(|_| !to_log.is_empty()) else { continue };
            if let Err(error) = office.to_log.try_send(to_log) {
                for entry in error.into_inner() {
                    let problem = "too much waits for the quorum".to_owned();
                    self.event(Event::NotLogged { entry, problem });
                }
            }
        }
    }
}

/// Has the quorum take entries into the ledger, one after the other, until the office ends.
async fn log(quorum: Quorum, mut entries: mpsc::Receiver<Vec<Entry>>, term: Term, inbox: Inbox<Input>) {
    while let Some(entries) = entries.recv().await {
        for entry in entries {
            let outcome = quorum.propose(entry.clone()).await.map_err(|error| error.to_string());
            inbox.push(Input::Logged { term, entry, outcome });
        }
    }
}

/// Serves a link of a node or client to its end.
pub(crate) async fn serve(link: Link, inbox: Inbox<Input>) {
    let outbox = Outbox::new();
    let (welcome, welcomed) = oneshot::channel();
    inbox.extend_when_free([Input::Link { node: link.peer, outbox: outbox.clone(), welcome }]).await;
    let Ok((id, term)) = welcomed.await else { return };
    let Ok(frame) = encode_one(&Welcome::Directory { term }) else { return };
    if link.tx.send(frame).await.is_ok() {
        outbox.start(link.tx, term);
        let mut messages = MessageReceiver::new(link.rx, term);
        while let Some(messages) = next_messages(&mut messages, link.peer).await {
            inbox.extend_when_free([Input::FromNode { link: id, messages }]).await;
        }
    }
    inbox.push(Input::LinkClosed { link: id });
}
