//! The coordinator's actor at a node that may hold the scheduler. It is at work while the node is in office.
//!
//! When the quorum does not take what was to be logged, nobody knows whether it will: all sessions are sent away, and come back
//! once it is known what is agreed on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use starling_core::coordination::{
    Coordination, Coordinator, Effects, Event, FromSession, LinkId, SessionId, Step, ToSession,
};
use starling_core::ids::{NodeId, Term, Time};
use starling_core::ledger::Entry;
use starling_quorum::{ProposeError, Quorum};
use starling_runtime::inbox::Inbox;
use starling_runtime::mesh::Link;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::desk::next_messages;
use crate::host::Vital;
use crate::link::{MessageReceiver, Outbox, Refusal, Welcome, encode_one};

/// How long it takes until what is agreed on is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What the actor is told.
pub(crate) enum Input {
    /// The node has taken office in this term. What the ledger has is all that is agreed on.
    TakeOffice {
        term: Term,
        /// The term as the quorum counts it.
        of_quorum: Term,
        quorum: Quorum,
    },
    LeaveOffice,
    /// What is agreed on, after it was not known.
    Agreed {
        term: Term,
        state: Arc<Coordination>,
    },
    /// What came of the steps that were to be logged.
    Logged {
        term: Term,
        outcome: Result<(), ProposeError>,
    },
    /// A session has come. Not answered while there is no coordinator.
    Joined {
        node: NodeId,
        session: SessionId,
        is_new: bool,
        outbox: Outbox<ToSession>,
        welcome: oneshot::Sender<(LinkId, Term)>,
    },
    Said {
        link: LinkId,
        messages: Vec<FromSession>,
    },
    LinkClosed(LinkId),
    NodeLeft(NodeId),
}

/// See the module.
pub(crate) struct CoordinationActor {
    office: Option<Office>,
    /// To hear what came of steps.
    inbox: Inbox<Input>,
    /// Where the quorum is asked.
    runtime: Handle,
    links: HashMap<LinkId, Outbox<ToSession>>,
    /// Never used twice.
    next_link: u64,
    effects: Effects,
}

struct Office {
    /// While it is known what is agreed on.
    machine: Option<Coordinator>,
    term: Term,
    of_quorum: Term,
    quorum: Quorum,
    since: Instant,
}

impl Office {
    fn begin(&mut self, state: &Coordination) {
        let unix_ms =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        self.machine = Some(Coordinator::new(self.now(), unix_ms, state.clone()));
    }

    fn now(&self) -> Time {
        Time(self.since.elapsed().as_micros() as u64)
    }
}

impl CoordinationActor {
    pub(crate) fn new(inbox: Inbox<Input>, runtime: Handle) -> CoordinationActor {
        CoordinationActor {
            office: None,
            inbox,
            runtime,
            links: HashMap::new(),
            next_link: 0,
            effects: Effects::default(),
        }
    }

    fn event(&mut self, event: Event) {
        if let Some(office) = &mut self.office {
            let now = office.now();
            if let Some(machine) = &mut office.machine {
                machine.handle(now, event, &mut self.effects);
                // Before the next event may want other steps logged.
                if let Some(steps) = self.effects.to_log.take() {
                    self.log(steps);
                }
            }
        }
    }

    fn log(&self, steps: Vec<Step>) {
        let Some(Office { term, quorum, .. }) = &self.office else { return };
        let (term, quorum, inbox) = (*term, quorum.clone(), self.inbox.clone());
        self.runtime.spawn(async move {
            let outcome = quorum.propose(Entry::Coordinate(Arc::new(steps))).await;
            inbox.push(Input::Logged { term, outcome });
        });
    }

    /// Sends all sessions away: they come back when they can.
    fn send_away(&mut self) {
        self.effects.to_sessions.clear();
        self.effects.close.clear();
        let links: Vec<LinkId> = self
            .links
            .drain()
            .map(|(link, outbox)| {
                outbox.close();
                link
            })
            .collect();
        for link in links {
            self.event(Event::LinkClosed(link));
        }
    }

    /// Nobody knows whether steps are agreed on: finds out.
    fn start_again(&mut self) {
        if let Some(office) = &mut self.office {
            office.machine = None;
        }
        self.send_away();
        let Some(Office { term, of_quorum, quorum, .. }) = &self.office else { return };
        let (term, of_quorum, quorum, inbox) = (*term, *of_quorum, quorum.clone(), self.inbox.clone());
        self.runtime.spawn(async move {
            // What was proposed before this is agreed on before it, or never.
            let nothing = Entry::Coordinate(Arc::default());
            while quorum.view().borrow().term == of_quorum {
                match quorum.propose(nothing.clone()).await {
                    Ok(()) => {
                        let state = Arc::clone(&quorum.ledger().coordination);
                        return inbox.push(Input::Agreed { term, state });
                    }
                    Err(ProposeError::Closed) => return,
                    Err(error) => tracing::debug!(%error, "it is not known yet what is agreed on"),
                }
                sleep(AGAIN_AFTER).await;
            }
        });
    }

    fn is_in_term(&self, term: Term) -> bool {
        self.office.as_ref().is_some_and(|office| office.term == term)
    }
}

impl Vital for CoordinationActor {
    type Input = Input;
    const TICK: Option<Duration> = Some(Duration::from_millis(50));

    fn tick(&mut self) {
        if self.still_leads() {
            self.event(Event::Tick);
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::TakeOffice { term, of_quorum, quorum } => {
                self.office = None;
                self.send_away();
                let state = Arc::clone(&quorum.ledger().coordination);
                let mut office = Office { machine: None, term, of_quorum, quorum, since: Instant::now() };
                office.begin(&state);
                self.office = Some(office);
            }
            Input::LeaveOffice => {
                self.office = None;
                self.send_away();
            }
            Input::Agreed { term, state } => {
                if self.is_in_term(term)
                    && let Some(office) = &mut self.office
                {
                    office.begin(&state);
                }
            }
            Input::Logged { term, outcome } if self.is_in_term(term) => match outcome {
                Ok(()) => self.event(Event::Logged),
                Err(error) => {
                    tracing::warn!(%error, "what clients coordinate with waits for the quorum");
                    self.start_again();
                }
            },
            Input::Logged { .. } => {}
            Input::Joined { node, session, is_new, outbox, welcome } => {
                let Some(Office { machine: Some(_), term, .. }) = &self.office else { return };
                self.next_link += 1;
                let link = LinkId(self.next_link);
                // The one who waits has gone: so has the link.
                if welcome.send((link, *term)).is_ok() {
                    self.links.insert(link, outbox);
                    self.event(Event::Joined { link, node, session, is_new });
                }
            }
            Input::Said { link, messages } => {
                for message in messages {
                    self.event(Event::Said { link, message });
                }
            }
            Input::LinkClosed(link) => {
                self.links.remove(&link);
                self.event(Event::LinkClosed(link));
            }
            Input::NodeLeft(node) => self.event(Event::NodeLeft(node)),
        }
    }

    fn perform(&mut self) {
        while !self.effects.to_sessions.is_empty() || !self.effects.close.is_empty() {
            if !self.still_leads() {
                // If it leads on after all, they come back.
                return self.send_away();
            }
            self.say();
        }
    }
}

impl CoordinationActor {
    /// Whether this node may speak as the one in office now.
    fn still_leads(&self) -> bool {
        self.office.as_ref().is_some_and(|office| office.quorum.still_leads() == Some(office.of_quorum))
    }

    /// Says what is to be said, and then closes links.
    fn say(&mut self) {
        for (link, message) in std::mem::take(&mut self.effects.to_sessions) {
            let is_last = matches!(message, ToSession::NotOpened(_));
            let Some(outbox) = self.links.get(&link) else { continue };
            let is_sent = outbox.send([message]).is_ok();
            if is_last {
                // It closes the link when it has read that.
                self.links.remove(&link);
            } else if !is_sent {
                self.effects.close.push(link);
            }
        }
        for link in std::mem::take(&mut self.effects.close) {
            if let Some(outbox) = self.links.remove(&link) {
                outbox.close();
                self.event(Event::LinkClosed(link));
            }
        }
    }
}

/// Serves a session's link to its end.
pub(crate) async fn serve(link: Link, session: SessionId, is_new: bool, inbox: Inbox<Input>) {
    let outbox = Outbox::new();
    let (welcome, welcomed) = oneshot::channel();
    let joined = Input::Joined { node: link.peer, session, is_new, outbox: outbox.clone(), welcome };
    inbox.extend_when_free([joined]).await;
    let Ok((id, term)) = welcomed.await else {
        if let Ok(frame) = encode_one(&Welcome::Refused(Refusal::NotScheduler { leader: None })) {
            // The peer may have gone meanwhile.
            let _ = link.tx.send(frame).await;
        }
        return;
    };
    let Ok(frame) = encode_one(&Welcome::Session { term }) else { return };
    if link.tx.send(frame).await.is_ok() {
        outbox.start(link.tx, term);
        let mut messages = MessageReceiver::new(link.rx, term);
        while let Some(messages) = next_messages(&mut messages, link.peer).await {
            inbox.extend_when_free([Input::Said { link: id, messages }]).await;
        }
    }
    outbox.close();
    inbox.push(Input::LinkClosed(id));
}
