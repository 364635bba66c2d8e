//! The libp2p side: the transport, and a behaviour that hands out streams of single connections.
//!
//! Two connections join a pair of nodes, one for control and one for bulk, under the same two identities. So whoever
//! opens a stream says on which *connection*, which `libp2p-stream` has no word for (it picks one of a peer's at random,
//! and drops inbound streams that are not taken at once). Until a connection is admitted it serves the admission
//! protocol and nothing else: a stranger is told of no other. Which connections to make, admit or close is decided
//! elsewhere.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo, Version};
use libp2p::core::{ConnectedPoint, Endpoint, Transport as _};
use libp2p::identity::Keypair;
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    self, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    StreamUpgradeError, SubstreamProtocol, Swarm, THandlerInEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, noise, tcp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{MeshError, MeshLimits, muxer};

/// The admission handshake; on the control connection it goes on as the stream of the nodes' own messages.
pub(crate) const ADMIT: StreamProtocol = StreamProtocol::new("/starling/admit/1");
/// A control link.
pub(crate) const LINK: StreamProtocol = StreamProtocol::new("/starling/link/1");
/// Requests for blocks.
pub(crate) const BULK: StreamProtocol = StreamProtocol::new("/starling/bulk/1");
/// A link or bulk stream that goes through a third node.
pub(crate) const RELAY: StreamProtocol = StreamProtocol::new("/starling/relay/1");

/// Streams that one connection is asked for at a time; who asks more waits.
const OPENS_WAITING: usize = 16;

/// A swarm that listens nowhere yet.
pub(crate) fn swarm(keypair: &Keypair, limits: &MeshLimits) -> Result<Swarm<Behaviour>, MeshError> {
    let noise = noise::Config::new(keypair).map_err(|error| MeshError::Transport(error.to_string()))?;
    let arrivals = Arrivals::default();
    let gates = arrivals.clone();
    let transport = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(noise)
        .multiplex_ext(move |_, point| match point {
            ConnectedPoint::Listener { send_back_addr, .. } => muxer::Upgrade::new(gates.open(send_back_addr)),
            // Whom we dial we have chosen, and do not wait for long.
            ConnectedPoint::Dialer { .. } => muxer::Upgrade::new(Arc::new(AtomicBool::new(true))),
        })
        .timeout(limits.handshake_timeout)
        .boxed();
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(60))
        .with_dial_concurrency_factor(NonZeroU8::MAX)
        .with_max_negotiating_inbound_streams(64);
    let behaviour = Behaviour::new(limits.strangers_max, arrivals);
    Ok(Swarm::new(transport, behaviour, keypair.public().to_peer_id(), config))
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the connection is closed")]
    Closed,
    #[error("the peer does not serve {0}")]
    Unsupported(StreamProtocol),
    #[error(transparent)]
    Io(std::io::Error),
}

pub(crate) struct Open {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// One established connection. Clones stand for the same one.
#[derive(Clone)]
pub(crate) struct Conn {
    pub(crate) id: ConnectionId,
    pub(crate) peer: PeerId,
    /// Whether we dialed it.
    pub(crate) dialer: bool,
    /// The other end's address.
    pub(crate) remote: Multiaddr,
    /// Cancelled once it is closed.
    pub(crate) closed: CancellationToken,
    admitted: Arc<AtomicBool>,
    opens: mpsc::Sender<Open>,
}

impl Conn {
    /// From now on the peer may open streams of every protocol.
    pub(crate) fn admit(&self) {
        self.admitted.store(true, Ordering::Release);
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }

    /// A new stream on this very connection.
    pub(crate) async fn open(&self, protocol: StreamProtocol) -> Result<Stream, OpenError> {
        let (reply, answer) = oneshot::channel();
        self.opens.send(Open { protocol, reply }).await.map_err(|_| OpenError::Closed)?;
        answer.await.map_err(|_| OpenError::Closed)?
    }
}

/// What the behaviour tells the driver.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection is up, not admitted yet.
    Up(Conn),
    /// The peer opened a stream. Streams other than admission come from admitted connections only.
    Stream { id: ConnectionId, protocol: StreamProtocol, stream: Stream },
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({} {})", self.id, self.remote)
    }
}

/// Too many connections that nobody has vouched for.
#[derive(Debug, thiserror::Error)]
#[error("too many connections wait for admission")]
struct TooManyStrangers;

/// Hands out the streams of single connections.
pub(crate) struct Behaviour {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    conns: Vec<Conn>,
    /// Inbound connections that are being set up: all and only those that the swarm has not said to be up or failed.
    arriving: HashSet<ConnectionId>,
    arrivals: Arrivals,
    strangers_max: usize,
}

/// Whether inbound connections are admitted, which their transport has to know: it takes little from a stranger. By the
/// other end's address, from when the transport is set up until the swarm says that the connection is up, or is not.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<HashMap<Multiaddr, Arc<AtomicBool>>>>);

impl Arrivals {
    fn open(&self, remote: &Multiaddr) -> Arc<AtomicBool> {
        let admitted = Arc::new(AtomicBool::new(false));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(remote.clone(), admitted.clone());
        admitted
    }

    fn take(&self, remote: &Multiaddr) -> Arc<AtomicBool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(remote).unwrap_or_default()
    }
}

impl Behaviour {
    fn new(strangers_max: usize, arrivals: Arrivals) -> Behaviour {
        Behaviour {
            arrivals,
            events: VecDeque::new(),
            waker: None,
            conns: Vec::new(),
            arriving: HashSet::new(),
            strangers_max,
        }
    }

    /// The connection, while it is up.
    pub(crate) fn conn(&self, id: ConnectionId) -> Option<&Conn> {
        self.conns.iter().find(|conn| conn.id == id)
    }

    /// Every connection that is up.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.conns.iter().map(|conn| conn.id)
    }

    /// Inbound connections that are not admitted, those being set up among them.
    fn strangers(&self) -> usize {
        self.arriving.len() + self.conns.iter().filter(|conn| !conn.dialer && !conn.is_admitted()).count()
    }

    fn connected(&mut self, id: ConnectionId, peer: PeerId, remote: &Multiaddr, dialer: bool) -> Handler {
        let (opens, requests) = mpsc::channel(OPENS_WAITING);
        let admitted = if dialer { Arc::default() } else { self.arrivals.take(remote) };
        let closed = CancellationToken::new();
        let conn = Conn { id, peer, dialer, remote: remote.clone(), closed, admitted: admitted.clone(), opens };
        self.conns.push(conn);
        Handler { admitted, requests, waiting: VecDeque::new() }
    }

    fn emit(&mut self, event: Event) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.strangers() >= self.strangers_max {
            return Err(ConnectionDenied::new(TooManyStrangers));
        }
        self.arriving.insert(id);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        self.arriving.remove(&id);
        Ok(self.connected(id, peer, remote, false))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.connected(id, peer, remote, true))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                if let Some(conn) = self.conn(established.connection_id).cloned() {
                    self.emit(Event::Up(conn));
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                let id = closed.connection_id;
                self.conns.extract_if(.., |conn| conn.id == id).for_each(|conn| conn.closed.cancel());
            }
            FromSwarm::ListenFailure(failure) => {
                self.arriving.remove(&failure.connection_id);
                self.arrivals.take(failure.send_back_addr);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, id: ConnectionId, (protocol, stream): Inbound) {
        self.emit(Event::Stream { id, protocol, stream });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

type Inbound = (StreamProtocol, Stream);

/// The behaviour's part in one connection's task.
pub(crate) struct Handler {
    admitted: Arc<AtomicBool>,
    requests: mpsc::Receiver<Open>,
    /// Inbound streams for the behaviour. At most as many as the swarm lets negotiate at a time.
    waiting: VecDeque<Inbound>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Inbound;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        let offer = if self.admitted.load(Ordering::Acquire) { vec![LINK, BULK, RELAY] } else { vec![ADMIT] };
        SubstreamProtocol::new(Offer(offer), ())
    }

    fn connection_keep_alive(&self) -> bool {
        // The driver closes the connections that nobody vouches for; the others are wanted even when idle.
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, Open, Inbound>> {
        if let Some(inbound) = self.waiting.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(inbound));
        }
        match self.requests.poll_recv(cx) {
            Poll::Ready(Some(open)) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Offer(vec![open.protocol.clone()]), open),
            }),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Open>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info: () }) => {
                self.waiting.push_back(protocol);
            }
            // Whoever asked may have given up: then the stream is dropped, which resets it.
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (_, stream), info }) => {
                drop(info.reply.send(Ok(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::Io(std::io::ErrorKind::TimedOut.into()),
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported(info.protocol.clone()),
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                drop(info.reply.send(Err(error)));
            }
            _ => {}
        }
    }
}

/// The protocols that one side offers for a stream.
pub(crate) struct Offer(Vec<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = Inbound;
    type Error = Infallible;
    type Future = Ready<Result<Inbound, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = Inbound;
    type Error = Infallible;
    type Future = Ready<Result<Inbound, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
