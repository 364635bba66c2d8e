//! The task that drives a mesh: the swarm, the membership machine, and who is dialed when.
//!
//! It never waits for another task: what it has to say it puts into queues that have room, or drops. Handshakes, links
//! and transfers run in tasks of their own, which tell it how they ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, ConnectionId, DialError, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use starling_core::ids::NodeId;
use tokio::sync::{Semaphore, mpsc};

use super::admission::{AdmitError, Parties, Plane, dial, listen};
use super::listen::Early;
use super::membership::{Ident, Membership, Report};
use super::net::{self, Behaviour, Conn, Event, OpenError};
use super::redial::Redials;
use super::shared::{Cmd, DialReply, Shared, View};
use super::wire::{self, PeerMsg};
use super::{DownReason, MeshError, MeshEvent, bulk, dialing, link, node_of, peer_of, relay};

/// How long a peer whose connection closed has to come back before its process is taken for gone.
const GRACE: Duration = Duration::from_secs(1);

/// Inbound streams of one connection that are being served.
const STREAMS_SERVED: usize = 256;

/// How long a refused peer is given to read why.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// How long a peer that leaves may take to close the connection.
const FAREWELL_LINGER: Duration = Duration::from_secs(3);

/// How long a silent node has to come back before the connections with it are closed.
const RETURN_LINGER: Duration = Duration::from_secs(1);

/// How long connections may take to be closed in order when the mesh ends.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Relays to which a packet for an unconnected node is given.
const PACKET_RELAYS: usize = 2;

/// Remembered reasons of members' ends.
const DOWN_REMEMBERED: usize = 1024;

/// Remembered join addresses.
const SEEDS_MAX: usize = 16;

/// A dial that is on its way.
struct Dialing {
    plane: Plane,
    /// Whom it is to reach; none where a person gave the address.
    node: Option<NodeId>,
    addr: Multiaddr,
    reply: Option<DialReply>,
}

/// A member whose last control connection closed.
struct Missing {
    ident: Ident,
    deadline: Instant,
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    swarm: Swarm<Behaviour>,
    membership: Membership,
    dials: HashMap<ConnectionId, Dialing>,
    /// Inbound connections whose admission stream has not come yet.
    unheard: HashMap<ConnectionId, Conn>,
    /// Joins whose connection is admitted, and that wait for the first words of the node there.
    syncing: HashMap<ConnectionId, DialReply>,
    streams: HashMap<ConnectionId, Arc<Semaphore>>,
    redials: Redials,
    missing: BTreeMap<NodeId, Missing>,
    /// Through whom packets of nodes came that we are not connected with.
    routes: BTreeMap<NodeId, NodeId>,
    /// Addresses that were joined at.
    seeds: Vec<Multiaddr>,
    leaving: bool,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, swarm: Swarm<Behaviour>, membership: Membership) -> Driver {
        let redials = Redials::new(shared.node, shared.dialable);
        Driver {
            shared,
            swarm,
            membership,
            dials: HashMap::new(),
            unheard: HashMap::new(),
            syncing: HashMap::new(),
            streams: HashMap::new(),
            redials,
            missing: BTreeMap::new(),
            routes: BTreeMap::new(),
            seeds: Vec::new(),
            leaving: false,
        }
    }

    pub(crate) async fn run(mut self, mut cmds: mpsc::Receiver<Cmd>, early: Early) {
        let cancel = self.shared.cancel.clone();
        self.publish();
        for event in early {
            self.on_event(event);
        }
        loop {
            let wake = self.wake_at();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(cmd) = cmds.recv() => self.on_cmd(cmd),
                () = tokio::time::sleep_until(wake.into()) => self.on_time(Instant::now()),
                () = cancel.cancelled() => break,
            }
            self.perform();
        }
        cmds.close();
        self.close().await;
    }

    fn on_event(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(Event::Up(conn)) => self.on_up(conn),
            SwarmEvent::Behaviour(Event::Stream { id, protocol, stream }) => self.on_stream(id, &protocol, stream),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_error(connection_id, &error)
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                self.on_closed(peer_id, connection_id, cause.as_ref());
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "a listener closed: no new node can dial this one there");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "an inbound connection was not accepted"),
            _ => {}
        }
    }

    fn on_cmd(&mut self, cmd: Cmd) {
        match cmd {
            Cmd::Join { addr, peer, reply } => {
                self.remember_seed(&addr);
                let node = peer.as_ref().and_then(node_of);
                self.dial(Dialing { plane: Plane::Control, node, addr: addr.clone(), reply: Some(reply) }, vec![addr]);
            }
            Cmd::Dial { node, addrs, plane, reply } => {
                let addr = addrs.first().cloned().unwrap_or_else(Multiaddr::empty);
                self.dial(Dialing { plane, node: Some(node), addr, reply: Some(reply) }, addrs);
            }
            Cmd::Admitted { conn, plane, stream, reply } => self.on_admitted(conn, plane, stream, reply),
            Cmd::Said { conn, node, msg } => self.on_said(conn, node, msg),
            Cmd::Close { conn } => {
                self.swarm.close_connection(conn);
            }
            Cmd::Introduce { info, done } => {
                self.membership.introduce(Instant::now(), info);
                self.perform();
                done.send(()).ok();
            }
            Cmd::Leave { done } => {
                self.leaving = true;
                let farewell = PeerMsg::Sync { me: None, reports: vec![self.membership.farewell()] };
                self.tell_neighbours(&farewell);
                done.send(()).ok();
            }
        }
    }

    // ---- connections

    fn dial(&mut self, dialing: Dialing, addrs: Vec<Multiaddr>) {
        let opts = match dialing.node {
            None => DialOpts::unknown_peer_id().address(dialing.addr.clone()).allocate_new_port().build(),
            Some(node) => {
                let Some(peer) = peer_of(&node) else {
                    return self
                        .dialed(dialing, Err(MeshError::NoRoute { node, why: "no such key exists".to_owned() }));
                };
                DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addrs).allocate_new_port().build()
            }
        };
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(id, dialing)),
            Err(error) => {
                let error = dialing::error(&dialing.addr, &error);
                self.dialed(dialing, Err(error));
            }
        }
    }

    /// A dial has ended before there was an admitted connection.
    fn dialed(&mut self, dialing: Dialing, outcome: Result<NodeId, MeshError>) {
        if let (Some(node), Plane::Control, Err(error)) = (dialing.node, dialing.plane, &outcome) {
            tracing::debug!(%node, %error, "a dial failed");
            self.redials.failed(Instant::now(), node);
        }
        if let Some(reply) = dialing.reply {
            drop(reply.send(outcome));
        }
    }

    fn on_dial_error(&mut self, id: ConnectionId, error: &DialError) {
        if let Some(dialing) = self.dials.remove(&id) {
            let error = dialing::error(&dialing.addr, error);
            self.dialed(dialing, Err(error));
        }
    }

    /// A connection is up: it must be admitted in time or it is closed.
    fn on_up(&mut self, conn: Conn) {
        self.streams.insert(conn.id, Arc::new(Semaphore::new(STREAMS_SERVED)));
        if conn.dialer {
            match self.dials.remove(&conn.id) {
                Some(dialing) => {
                    self.shared.spawn(admit_dialed(self.shared.clone(), conn, dialing.plane, dialing.reply))
                }
                None => drop(self.swarm.close_connection(conn.id)),
            }
            return;
        }
        self.unheard.insert(conn.id, conn.clone());
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            tokio::select! {
                () = conn.closed.cancelled() => {}
                () = tokio::time::sleep(shared.limits.handshake_timeout) => {
                    if !conn.is_admitted() {
                        tracing::debug!(addr = %conn.remote, "a connection was not admitted in time");
                        drop(shared.cmds.send(Cmd::Close { conn: conn.id }).await);
                    }
                }
            }
        });
    }

    fn on_stream(&mut self, id: ConnectionId, protocol: &StreamProtocol, stream: Stream) {
        let shared = self.shared.clone();
        if *protocol == net::ADMIT {
            // One handshake a connection; another stream for it is dropped.
            if let Some(conn) = self.unheard.remove(&id) {
                self.shared.spawn(admit_inbound(shared, conn, stream));
            }
            return;
        }
        let Some(conn) = self.swarm.behaviour().conn(id).filter(|conn| conn.is_admitted()) else { return };
        let Some(node) = node_of(&conn.peer) else { return };
        let Some(Ok(permit)) = self.streams.get(&id).map(|streams| streams.clone().try_acquire_owned()) else {
            tracing::debug!(%node, "a stream was dropped: too many are being served");
            return;
        };
        let (link, bulk) = (*protocol == net::LINK, *protocol == net::BULK);
        self.shared.spawn(async move {
            match (link, bulk) {
                (true, _) => relay::accept_link(shared, node, stream).await,
                (_, true) => bulk::serve(shared, node, stream).await,
                _ => relay::serve(shared, node, stream).await,
            }
            drop(permit);
        });
    }

    fn on_admitted(&mut self, conn: Conn, plane: Plane, stream: Stream, reply: Option<DialReply>) {
        let Some(node) = node_of(&conn.peer) else { return };
        let full = self.shared.table().peer_count() >= self.shared.limits.peers_max && !self.connected(node);
        if full || !conn.is_open() {
            self.swarm.close_connection(conn.id);
            let why = if full { "this node has as many peers as it may have" } else { "the connection closed at once" };
            drop(reply.map(|reply| reply.send(Err(MeshError::NoRoute { node, why: why.to_owned() }))));
            return;
        }
        tracing::debug!(%node, %plane, addr = %conn.remote, dialer = conn.dialer, "connected");
        match plane {
            Plane::Bulk => {
                self.shared.table().insert_bulk(node, conn);
                drop(reply.map(|reply| reply.send(Ok(node))));
            }
            Plane::Control => {
                let drain = self.shared.drain.clone();
                let link::Link { tx, rx, .. } = link::spawn(stream, node, wire::LIMITS, drain, &self.shared.links);
                self.redials.connected(node);
                self.missing.remove(&node);
                if let Some(reply) = reply {
                    self.syncing.insert(conn.id, reply);
                }
                for msg in self.sync_msgs() {
                    tx.try_send(msg.encode()).ok();
                }
                self.shared.spawn(hear(self.shared.clone(), conn.clone(), node, rx));
                self.shared.table().insert_control(node, conn, tx);
            }
        }
        self.shared.table_changed.send_replace(());
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId, cause: Option<&ConnectionError>) {
        self.unheard.remove(&id);
        self.streams.remove(&id);
        let Some(node) = node_of(&peer) else { return };
        if let Some(reply) = self.syncing.remove(&id) {
            let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            drop(reply.send(Err(MeshError::Broken { node, source })));
        }
        let plane = self.shared.table().remove(node, id);
        if plane.is_some() {
            self.shared.table_changed.send_replace(());
        }
        if plane != Some(Plane::Control) || self.connected(node) || self.leaving {
            return;
        }
        tracing::debug!(%node, ?cause, "disconnected");
        let now = Instant::now();
        let Some(ident) = self.membership.live().find(|ident| ident.node() == node).cloned() else { return };
        self.redials.at_once(now, node);
        // A connection that timed out tells of the network, not of the process: then it is gossip that finds out.
        if !cause.is_some_and(dialing::is_network_failure) {
            self.missing.insert(node, Missing { ident, deadline: now + GRACE });
        }
    }

    fn connected(&self, node: NodeId) -> bool {
        self.shared.table().has_control(node)
    }

    // ---- what peers say

    fn on_said(&mut self, conn: ConnectionId, from: NodeId, msg: PeerMsg) {
        let now = Instant::now();
        match msg {
            PeerMsg::Sync { me, reports } => {
                if me.as_ref().is_some_and(|me| me.node() != from) {
                    tracing::warn!(node = %from, "a node gives itself out as another one");
                    self.swarm.close_connection(conn);
                    return;
                }
                self.membership.met(now, me, reports);
                // Why a node is down is known before it is seen to be.
                self.perform();
                self.publish();
                if let Some(reply) = self.syncing.remove(&conn) {
                    drop(reply.send(Ok(from)));
                }
            }
            PeerMsg::Packet { from: author, to, data } if to == self.shared.node => {
                if author != from && self.shared.view.borrow().members.contains_key(&author) {
                    self.routes.insert(author, from);
                }
                self.membership.packet(now, &data);
            }
            // Passed on once, for a node that we are connected with ourselves.
            PeerMsg::Packet { from: author, to, data } if author == from => {
                let msg = PeerMsg::Packet { from, to, data };
                if let Some(voice) = self.shared.table().voice(to) {
                    voice.try_send(msg.encode()).ok();
                }
            }
            PeerMsg::Packet { .. } => {}
            PeerMsg::DialBack => self.dial_back(from),
        }
    }

    /// A peer that cannot dial us wants a bulk connection.
    fn dial_back(&mut self, node: NodeId) {
        let under_way = self.shared.pool.gate(node, Plane::Bulk).try_lock().is_err();
        if under_way || self.shared.table().conn(node, Plane::Bulk).is_some() {
            return;
        }
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            if let Err(error) = shared.connection(node, Plane::Bulk).await {
                tracing::debug!(%node, %error, "a node could not be dialed back");
            }
        });
    }

    // ---- time

    fn wake_at(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(60);
        let deadlines = self.missing.values().map(|missing| missing.deadline);
        self.membership.wake_at().into_iter().chain(self.redials.wake_at()).chain(deadlines).fold(far, Instant::min)
    }

    fn on_time(&mut self, now: Instant) {
        if self.leaving {
            // Nobody is probed, dialed or declared down any more; the timers are of no use.
            self.membership.stop();
            self.missing.clear();
            self.redials.clear();
            return;
        }
        self.membership.tick(now);
        let over: Vec<_> =
            self.missing.iter().filter(|(_, missing)| missing.deadline <= now).map(|(node, _)| *node).collect();
        for node in over {
            if let Some(missing) = self.missing.remove(&node)
                && !self.connected(node)
            {
                tracing::info!(%node, "a member's connection closed and it did not come back");
                self.membership.gone(now, &missing.ident);
            }
        }
        let room = self.shared.limits.peers_max.saturating_sub(self.shared.table().peer_count());
        for (node, addrs) in self.redials.due(now, room) {
            let addr = addrs.first().cloned().unwrap_or_else(Multiaddr::empty);
            self.dial(Dialing { plane: Plane::Control, node: Some(node), addr, reply: None }, addrs);
        }
        if self.redials.seeds_due(now) {
            for addr in self.seeds.clone() {
                self.dial(Dialing { plane: Plane::Control, node: None, addr: addr.clone(), reply: None }, vec![addr]);
            }
        }
    }

    // ---- what the machine wants

    fn perform(&mut self) {
        let out = &mut self.membership.out;
        let (packets, down) = (std::mem::take(&mut out.packets), std::mem::take(&mut out.down));
        let (changed, renewed) = (std::mem::take(&mut out.changed), std::mem::take(&mut out.renewed));
        let introduced = std::mem::take(&mut out.introduced);
        if self.leaving {
            return;
        }
        if renewed {
            tracing::warn!("the others took this node for down; it comes back");
        }
        if renewed || introduced {
            let me = PeerMsg::Sync { me: Some(self.membership.me().clone()), reports: Vec::new() };
            self.tell_neighbours(&me);
        }
        for (to, data) in packets {
            self.send_packet(to, &PeerMsg::Packet { from: self.shared.node, to, data });
        }
        for (ident, reason) in &down {
            self.forget(ident, *reason);
        }
        if changed || renewed || introduced || !down.is_empty() {
            let reasons: Vec<_> = down.iter().map(|(ident, reason)| (ident.node(), *reason)).collect();
            self.shared.view.send_if_modified(|view| {
                let view = Arc::make_mut(view);
                if view.down.len() + reasons.len() > DOWN_REMEMBERED {
                    view.down.clear();
                }
                view.down.extend(reasons);
                false
            });
            self.publish();
        }
    }

    /// Tells a node directly, or through nodes that are likely to be connected with it.
    fn send_packet(&mut self, to: NodeId, msg: &PeerMsg) {
        let frame = msg.encode();
        if let Some(voice) = self.shared.table().voice(to) {
            // A full queue drops it, as a network would.
            voice.try_send(frame).ok();
            return;
        }
        let known = self.routes.get(&to).copied();
        let relays: Vec<_> = known.into_iter().chain(self.shared.relay_candidates(to)).take(PACKET_RELAYS).collect();
        for relay in relays {
            if let Some(voice) = self.shared.table().voice(relay) {
                voice.try_send(frame.clone()).ok();
            }
        }
    }

    fn tell_neighbours(&self, msg: &PeerMsg) {
        let frame = msg.encode();
        for (_, voice) in self.shared.table().neighbours() {
            voice.try_send(frame.clone()).ok();
        }
    }

    fn sync_msgs(&self) -> Vec<PeerMsg> {
        let reports = self.membership.reports();
        let mut me = Some(self.membership.me().clone());
        let mut msgs: Vec<_> = reports
            .chunks(wire::REPORTS_MAX)
            .map(|reports| PeerMsg::Sync { me: me.take(), reports: reports.to_vec() })
            .collect();
        if let Some(me) = me {
            msgs.push(PeerMsg::Sync { me: Some(me), reports: Vec::new() });
        }
        msgs
    }

    /// A node is down: whatever still hangs on it ends soon, not when the network notices. One that leaves ends it itself,
    /// once it has written what its links hold. One that is silent is told, and keeps its connections if it comes back
    /// on that: on a machine with too much to do, making them again would only add to it.
    fn forget(&mut self, ident: &Ident, reason: DownReason) {
        let node = ident.node();
        self.missing.remove(&node);
        self.routes.remove(&node);
        self.routes.retain(|_, via| *via != node);
        self.shared.pool.forget(node);
        self.shared.end_links(node, reason);
        let conns = self.shared.table().conns(node);
        if reason != DownReason::Left
            && let Some(voice) = self.shared.table().voice(node)
        {
            voice.try_send(PeerMsg::Sync { me: None, reports: vec![Report::down(ident.clone())] }.encode()).ok();
        }
        for conn in conns {
            self.shared.spawn(close_later(self.shared.clone(), conn, reason));
        }
    }

    /// Makes the machine's members everybody's, and the unconnected ones dialed.
    fn publish(&mut self) {
        let live = self.membership.live().chain(std::iter::once(self.membership.me()));
        let members: BTreeMap<_, _> = live.map(|ident| (ident.node(), ident.member())).collect();
        self.shared.view.send_if_modified(|view| {
            let changed = view.members != members;
            if changed {
                *view = Arc::new(View { members, down: view.down.clone() });
            }
            changed
        });
        let now = Instant::now();
        let table = self.shared.table();
        let wanted = self.membership.live().chain(self.membership.lost());
        let wanted = wanted.filter(|ident| !table.has_control(ident.node()));
        let alone = table.peer_count() == 0 && !self.seeds.is_empty();
        self.redials.want(now, wanted.map(|ident| (ident.node(), ident.addrs())), alone);
    }

    fn remember_seed(&mut self, addr: &Multiaddr) {
        if !self.seeds.contains(addr) {
            if self.seeds.len() >= SEEDS_MAX {
                self.seeds.remove(0);
            }
            self.seeds.push(addr.clone());
        }
    }

    /// Closes all connections in order, for as long as that may take.
    async fn close(mut self) {
        let open: Vec<_> = self.swarm.behaviour().ids().collect();
        for id in open {
            self.swarm.close_connection(id);
        }
        let closing = async {
            while self.swarm.behaviour().ids().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        drop(tokio::time::timeout(CLOSE_TIMEOUT, closing).await);
    }
}

/// Hands on what a peer says, until it says no more; then the connection is of no use.
async fn hear(shared: Arc<Shared>, conn: Conn, node: NodeId, mut rx: link::LinkReceiver) {
    let id = conn.id;
    loop {
        let Some(frame) = rx.recv().await else {
            return close_later(shared, conn, DownReason::Left).await;
        };
        match PeerMsg::decode(&frame) {
            Ok(msg) => drop(shared.cmds.send(Cmd::Said { conn: id, node, msg }).await),
            Err(error) => {
                tracing::warn!(%node, %error, "a node sent a message that this release does not know");
                break;
            }
        }
    }
    drop(shared.cmds.send(Cmd::Close { conn: id }).await);
}

/// Closes a connection with a node that is down: that leaves, and should have closed it by itself, or that was silent, and
/// has not come back.
async fn close_later(shared: Arc<Shared>, conn: Conn, reason: DownReason) {
    let patience = if reason == DownReason::Left { FAREWELL_LINGER } else { RETURN_LINGER };
    if tokio::time::timeout(patience, conn.closed.cancelled()).await.is_ok() {
        return;
    }
    let back = reason != DownReason::Left && node_of(&conn.peer).is_some_and(|node| shared.member(node).is_some());
    if !back {
        drop(shared.cmds.send(Cmd::Close { conn: conn.id }).await);
    }
}

async fn admit_dialed(shared: Arc<Shared>, conn: Conn, plane: Plane, reply: Option<DialReply>) {
    let timeout = shared.limits.handshake_timeout;
    let handshake = async {
        let node = node_of(&conn.peer).ok_or_else(|| not_starling(&conn, "its key is not an ed25519 key"))?;
        let mut stream = conn.open(net::ADMIT).await.map_err(|error| match error {
            OpenError::Unsupported(_) => not_starling(&conn, "it does not know starling's admission protocol"),
            error => MeshError::Broken { node, source: std::io::Error::other(error) },
        })?;
        let parties = Parties { secret: shared.secret.as_ref(), me: shared.node, peer: node };
        let outcome = dial(&mut stream, &parties, plane, || conn.admit()).await;
        outcome.map(|()| stream).map_err(|error| match error {
            AdmitError::Refused(refusal) => MeshError::Refused { at: conn.remote.to_string(), refusal },
            AdmitError::Io(source) => MeshError::Broken { node, source },
        })
    };
    let late = || MeshError::Timeout { what: format!("admission at {}", conn.remote), ms: timeout.as_millis() as u64 };
    let outcome = tokio::time::timeout(timeout, handshake).await.unwrap_or_else(|_| Err(late()));
    match outcome {
        Ok(stream) => drop(shared.cmds.send(Cmd::Admitted { conn, plane, stream, reply }).await),
        Err(error) => {
            tracing::debug!(addr = %conn.remote, %error, "a connection was not admitted");
            drop(shared.cmds.send(Cmd::Close { conn: conn.id }).await);
            drop(reply.map(|reply| reply.send(Err(error))));
        }
    }
}

fn not_starling(conn: &Conn, why: &str) -> MeshError {
    MeshError::NotStarling { addr: conn.remote.clone(), why: why.to_owned() }
}

async fn admit_inbound(shared: Arc<Shared>, conn: Conn, mut stream: Stream) {
    // The whole connection has a deadline; whoever opened it late has less time.
    let Some(node) = node_of(&conn.peer) else {
        drop(shared.cmds.send(Cmd::Close { conn: conn.id }).await);
        return;
    };
    let parties = Parties { secret: shared.secret.as_ref(), me: shared.node, peer: node };
    let error = match listen(&mut stream, &parties, || conn.admit()).await {
        Ok(plane) => {
            drop(shared.cmds.send(Cmd::Admitted { conn, plane, stream, reply: None }).await);
            return;
        }
        Err(error) => error,
    };
    tracing::info!(addr = %conn.remote, %error, "a connection was refused");
    if let AdmitError::Refused(refusal) = error {
        drop(shared.arrivals.try_send(MeshEvent::Refused { addr: conn.remote.clone(), refusal }));
        // The peer hangs up once it has read why.
        drop(tokio::time::timeout(REFUSAL_LINGER, conn.closed.cancelled()).await);
    }
    drop(shared.cmds.send(Cmd::Close { conn: conn.id }).await);
}
