//! The quorum's requests over the mesh: one long-lived link to each voter, on which requests and answers carry a number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_core::ids::NodeId;
use starling_quorum::{Quorum, Transport, TransportError};
use starling_runtime::mesh::{Link, LinkReceiver, LinkSender, Mesh};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::link::{Hello, encode_one};

/// How long opening a link may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// How many requests of one peer are answered at a time.
const ANSWERED_MAX: usize = 32;
/// How many requests to one peer wait for their answers.
const WAITING_MAX: usize = 1_024;

/// Calls other nodes over the mesh. Clones are the same.
#[derive(Clone)]
pub(crate) struct MeshTransport {
    peers: Arc<Peers>,
}

struct Peers {
    mesh: Mesh,
    links: Mutex<HashMap<NodeId, Slot>>,
}

/// The link to a peer, if there is one. Locked while it is opened.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Peer>>>>;

/// A link, and who waits for what on it.
struct Peer {
    tx: LinkSender,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    answers: HashMap<u64, oneshot::Sender<Bytes>>,
}

impl MeshTransport {
    pub(crate) fn new(mesh: Mesh) -> MeshTransport {
        MeshTransport { peers: Arc::new(Peers { mesh, links: Mutex::default() }) }
    }
}

impl Transport for MeshTransport {
    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let peers = Arc::clone(&self.peers);
        async move { Asked::of(peers.open(to).await?)?.send(&request).await }.boxed()
    }
}

impl Peers {
    /// The link to a node, opened if there is none.
    async fn open(&self, node: NodeId) -> Result<Arc<Peer>, TransportError> {
        let slot = Arc::clone(self.links.lock().unwrap_or_else(PoisonError::into_inner).entry(node).or_default());
        let mut slot = slot.lock().await;
        if let Some(peer) = slot.as_ref().filter(|peer| !peer.tx.is_closed()) {
            return Ok(Arc::clone(peer));
        }
        let hello = encode_one(&Hello::Quorum).map_err(failed)?;
        let opened = timeout(OPEN_TIMEOUT, self.mesh.open_link(node, hello)).await;
        let link =
            opened.map_err(|_| TransportError("a link could not be opened in time".to_owned()))?.map_err(failed)?;
        let peer = Arc::new(Peer { tx: link.tx, waiting: Mutex::default() });
        tokio::spawn(take_answers(Arc::downgrade(&peer), link.rx));
        *slot = Some(Arc::clone(&peer));
        Ok(peer)
    }
}

fn failed(error: impl std::fmt::Display) -> TransportError {
    TransportError(error.to_string())
}

/// A request that waits for its answer. Dropping it forgets it.
struct Asked {
    peer: Arc<Peer>,
    number: u64,
    answer: oneshot::Receiver<Bytes>,
}

impl Asked {
    fn of(peer: Arc<Peer>) -> Result<Asked, TransportError> {
        let (tell, answer) = oneshot::channel();
        let number = {
            let mut waiting = peer.waiting();
            if waiting.answers.len() >= WAITING_MAX {
                return Err(TransportError(format!("{WAITING_MAX} requests wait for answers already")));
            }
            waiting.next += 1;
            let number = waiting.next;
            waiting.answers.insert(number, tell);
            number
        };
        Ok(Asked { peer, number, answer })
    }

    async fn send(mut self, request: &Bytes) -> Result<Bytes, TransportError> {
        self.peer.tx.send(numbered(self.number, request)).await.map_err(failed)?;
        (&mut self.answer).await.map_err(|_| TransportError("the link was closed".to_owned()))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.peer.waiting().answers.remove(&self.number);
    }
}

impl Peer {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn numbered(number: u64, body: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_u64_le(number);
    frame.extend_from_slice(body);
    frame.freeze()
}

fn read_numbered(mut frame: Bytes) -> Option<(u64, Bytes)> {
    let number = u64::from_le_bytes(*frame.first_chunk()?);
    Some((number, frame.split_off(8)))
}

/// Gives answers to those who wait for them, until the link is closed; then nobody waits any more.
async fn take_answers(peer: Weak<Peer>, mut rx: LinkReceiver) {
    while let Some(frame) = rx.recv().await {
        let Some(peer) = peer.upgrade() else { return };
        let waits = read_numbered(frame).and_then(|(number, body)| {
            let waits = peer.waiting().answers.remove(&number)?;
            Some((waits, body))
        });
        if let Some((waits, body)) = waits {
            // Whoever asked may have given up.
            let _ = waits.send(body);
        }
    }
    if let Some(peer) = peer.upgrade() {
        peer.waiting().answers.clear();
    }
}

/// Answers a peer's requests, several at a time, until the link is closed.
pub(crate) async fn serve(link: Link, quorum: Quorum) {
    let Link { peer, tx, mut rx } = link;
    let room = Arc::new(Semaphore::new(ANSWERED_MAX));
    while let Some(frame) = rx.recv().await {
        let Some((number, request)) = read_numbered(frame) else {
            tracing::warn!(%peer, "a request of the quorum's is too short");
            return;
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (quorum, tx) = (quorum.clone(), tx.clone());
        tokio::spawn(async move {
            let answer = quorum.answer(peer, request).await;
            // The peer may have gone.
            let _ = tx.send(numbered(number, &answer)).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use starling_quorum::QuorumConfig;
    use starling_runtime::mesh::{MemberInfo, MeshConfig, MeshEvent, MeshLimits, Role, parse_addr};
    use starling_runtime::store::Store;
    use tokio::sync::mpsc;

    use super::*;
    use crate::served::ServedStore;

    async fn mesh() -> (Mesh, mpsc::Receiver<MeshEvent>) {
        let member = MemberInfo { name: "node".into(), role: Role::Auto, room: 0, keeps: false };
        let listen = vec![parse_addr("/ip4/127.0.0.1/tcp/0").unwrap()];
        let config = MeshConfig { keypair: None, listen, secret: None, member, limits: MeshLimits::default() };
        Mesh::start(config, ServedStore::new(Store::unlimited())).await.unwrap()
    }

    /// Serves the quorum's links, and nothing else.
    async fn take_links(mut events: mpsc::Receiver<MeshEvent>, quorum: Quorum) {
        while let Some(event) = events.recv().await {
            if let MeshEvent::Link { link, .. } = event {
                tokio::spawn(serve(link, quorum.clone()));
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_of_several_at_once_come_back_with_their_own_answers_and_a_lost_peer_is_an_error() {
        let ((near, _events), (far, far_events)) = (mesh().await, mesh().await);
        near.join(&far.listen_addrs()[0]).await.unwrap();
        let quorum =
            Quorum::start(QuorumConfig::new(far.node()), Arc::new(MeshTransport::new(far.clone()))).await.unwrap();
        let serving = tokio::spawn(take_links(far_events, quorum.clone()));
        let transport = MeshTransport::new(near.clone());
        let calls = (0..50_u8).map(|number| transport.call(far.node(), Bytes::from(vec![number; 3])));
        for answer in futures::future::join_all(calls).await {
            // No request at all: it is refused, in an answer.
            assert!(!answer.unwrap().is_empty());
        }
        assert_eq!(transport.peers.links.lock().unwrap().len(), 1);

        let peer = transport.peers.open(far.node()).await.unwrap();
        assert!(peer.waiting().answers.is_empty());
        serving.abort();
        far.close();
        let error =
            timeout(Duration::from_secs(30), transport.call(far.node(), Bytes::from_static(b"x"))).await.unwrap();
        assert!(error.is_err());
    }
}
