//! What a node answers to others: it takes what the mesh tells, and serves the links that others open, each to its end.

use bytes::Bytes;
use starling_core::ids::{NodeId, Term};
use starling_core::wire::WorkerInfo;
use starling_remote::Actors;
use starling_runtime::inbox::Inbox;
use starling_runtime::mesh::{DownReason, Link, Mesh, MeshEvent, Role};
use starling_runtime::task::Tasks;
use tokio::sync::{mpsc, oneshot, watch};

use crate::coordination;
use crate::directory_actor;
use crate::leaders::{self, Leaders};
use crate::link::{Hello, MessageReceiver, Outbox, Refusal, Welcome, compare_kinds, encode_one};
use crate::node::NTHREADS_MAX;
use crate::office::Candidacy;
use crate::quorum_link;
use crate::registry_actor;
use crate::scheduler_actor;
use crate::status::{self, NodeStatus};

/// Where peers of the scheduler are sent, on a node that may hold it.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) inbox: Inbox<scheduler_actor::Input>,
    pub(crate) coordination: Inbox<coordination::Input>,
    /// In which term this node holds the scheduler, if it does.
    pub(crate) term: watch::Receiver<Option<Term>>,
}

/// What a node answers to others with.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) mesh: Mesh,
    pub(crate) registry: Inbox<registry_actor::Input>,
    pub(crate) leaders: Leaders,
    pub(crate) candidacy: Option<Candidacy>,
    pub(crate) seat: Option<Seat>,
    /// The directory, on a node that may hold the scheduler.
    pub(crate) directory: Option<Inbox<directory_actor::Input>>,
    pub(crate) actors: Actors,
    pub(crate) name: String,
}

impl Desk {
    /// Takes what the mesh tells.
    pub(crate) async fn watch(self, mut events: mpsc::Receiver<MeshEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                MeshEvent::MemberUp(member) => {
                    tracing::info!(node = %member.node, name = %member.info.name, role = ?member.info.role, "member up");
                    self.leaders.is_up(&member);
                    if let Some(candidacy) = &self.candidacy {
                        candidacy.tell_members();
                    }
                    if member.info.role != Role::Client {
                        self.registry.push(registry_actor::Input::NodeUp(member.node));
                    }
                }
                MeshEvent::MemberDown { node, reason } => {
                    tracing::info!(%node, ?reason, "member down");
                    self.leaders.is_down(node, reason);
                    if let Some(candidacy) = &self.candidacy {
                        candidacy.quorum.is_down(node);
                        candidacy.tell_members();
                    }
                    self.registry.push(registry_actor::Input::NodeDown(node));
                    if let Some(directory) = &self.directory {
                        directory.push(directory_actor::Input::NodeDown { node });
                    }
                    if let Some(seat) = &self.seat {
                        let has_left = reason == DownReason::Left;
                        seat.inbox.push(scheduler_actor::Input::NodeDown { node, has_left });
                        if has_left {
                            seat.coordination.push(coordination::Input::NodeLeft(node));
                        }
                    }
                }
                MeshEvent::Link { link, hello } => drop(tokio::spawn(self.clone().accept(link, hello))),
                MeshEvent::Refused { addr, refusal } => tracing::warn!(%addr, %refusal, "a peer was not admitted"),
            }
        }
    }

    /// Answers the hello of a link that another node, or this one, has opened, and serves it to its end.
    async fn accept(self, link: Link, hello: Bytes) {
        let in_office = self.seat.filter(|seat| seat.term.borrow().is_some());
        let refusal = match (postcard::from_bytes::<Hello>(&hello), in_office) {
            (Ok(Hello::Registry), _) => return registry_actor::serve(link, self.registry).await,
            (Ok(Hello::Actors), _) => return self.actors.serve(link).await,
            (Ok(Hello::Leads { term }), _) => return self.leaders.hear_from(&self.mesh, term, link.peer),
            (Ok(Hello::Status), _) => {
                let status = NodeStatus::gather(&self.mesh, &self.name, &self.leaders, self.candidacy.as_ref());
                return status::answer(link, &status).await;
            }
            (Ok(Hello::Quorum), _)
                if let Some(candidacy) = &self.candidacy
                    && leaders::member_may_lead(&self.mesh, link.peer) =>
            {
                return quorum_link::serve(link, candidacy.quorum.clone()).await;
            }
            (Ok(Hello::Worker { info, kinds }), Some(scheduler)) => {
                if info.node != link.peer {
                    Refusal::BadHello
                } else if let Err(refusal) = compare_kinds(&kinds, &Tasks::linked().infos()) {
                    refusal
                } else {
                    return serve_worker(link, info, scheduler.inbox).await;
                }
            }
            (Ok(Hello::Client { name }), Some(scheduler)) => return serve_client(link, name, scheduler.inbox).await,
            (Ok(Hello::Session { session, is_new }), Some(scheduler)) => {
                return coordination::serve(link, session, is_new, scheduler.coordination).await;
            }
            (Ok(Hello::Directory), Some(_)) if let Some(directory) = self.directory => {
                return directory_actor::serve(link, directory).await;
            }
            (Ok(_), _) => {
                let leader = self.candidacy.and_then(|candidacy| candidacy.leader()).or_else(|| self.leaders.known());
                Refusal::NotScheduler { leader: leader.filter(|(_, node)| *node != self.mesh.node()) }
            }
            (Err(_), _) => Refusal::BadHello,
        };
        match &refusal {
            Refusal::NotScheduler { .. } => tracing::debug!(peer = %link.peer, "sent on to the scheduler"),
            refusal => tracing::warn!(peer = %link.peer, %refusal, "refused a link"),
        }
        if let Ok(frame) = encode_one(&Welcome::Refused(refusal)) {
            // The peer may have gone meanwhile.
            let _ = link.tx.send(frame).await;
        }
    }
}

async fn serve_worker(link: Link, mut info: WorkerInfo, inbox: Inbox<scheduler_actor::Input>) {
    use scheduler_actor::Input;
    info.nthreads = info.nthreads.clamp(1, NTHREADS_MAX);
    let outbox = Outbox::new();
    let (welcome, worker) = oneshot::channel();
    inbox.extend_when_free([Input::WorkerLink { info, outbox: outbox.clone(), welcome }]).await;
    let Ok((worker, term)) = worker.await else { return };
    let Ok(frame) = encode_one(&Welcome::Worker { worker, term }) else { return };
    if link.tx.send(frame).await.is_ok() {
        outbox.start(link.tx, term);
        let mut messages = MessageReceiver::new(link.rx, term);
        while let Some(messages) = next_messages(&mut messages, link.peer).await {
            inbox.extend_when_free([Input::FromWorker { worker, messages }]).await;
        }
    }
    inbox.push(Input::WorkerLinkClosed { worker });
}

async fn serve_client(link: Link, name: String, inbox: Inbox<scheduler_actor::Input>) {
    use scheduler_actor::Input;
    let outbox = Outbox::new();
    let (welcome, client) = oneshot::channel();
    inbox.extend_when_free([Input::ClientLink { node: link.peer, outbox: outbox.clone(), welcome }]).await;
    let Ok((client, term)) = client.await else { return };
    tracing::info!(client = client.0, peer = %link.peer, name, "client connected");
    let kinds = Tasks::linked().infos();
    let Ok(frame) = encode_one(&Welcome::Client { client, term, kinds }) else { return };
    if link.tx.send(frame).await.is_ok() {
        outbox.start(link.tx, term);
        let mut messages = MessageReceiver::new(link.rx, term);
        while let Some(messages) = next_messages(&mut messages, link.peer).await {
            inbox.extend_when_free([Input::FromClient { client, messages }]).await;
        }
    }
    inbox.push(Input::ClientLinkClosed { client });
}

/// The next messages; `None` when the link is closed, or carries what is no message.
pub(crate) async fn next_messages<M: serde::de::DeserializeOwned>(
    messages: &mut MessageReceiver<M>,
    peer: NodeId,
) -> Option<Vec<M>> {
    match messages.recv(peer).await {
        Ok(messages) => messages,
        Err(error) => {
            tracing::warn!(%error, "a link is closed");
            None
        }
    }
}
