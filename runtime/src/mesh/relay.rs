//! Streams to a node: direct, or through a third node when neither end can dial the other.
//!
//! The relay copies bytes with bounded buffers and understands none of them. Only members relay, and a member is
//! believed when it says for whom it relays. A stream is relayed once, never further.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncWriteExt, BufReader, copy_buf};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use libp2p::Stream;
use serde::{Deserialize, Serialize};
use starling_core::ids::NodeId;

use super::admission::Plane;
use super::net::{BULK, LINK, OpenError, RELAY};
use super::shared::Shared;
use super::{MeshError, MeshEvent, bulk};

/// What a relayed stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Service {
    /// A link.
    Link,
    /// Requests for blocks.
    Bulk,
}

impl Service {
    fn plane(self) -> Plane {
        match self {
            Service::Link => Plane::Control,
            Service::Bulk => Plane::Bulk,
        }
    }
}

/// The first thing on a relay stream.
#[derive(Debug, Serialize, Deserialize)]
enum Header {
    /// To the relay: pass this on. It answers with one byte.
    To { target: NodeId, service: Service },
    /// From the relay: this is for you.
    From { origin: NodeId, service: Service },
}

const HEADER_BYTES_MAX: usize = 64;

/// The relay's answer: the stream goes on to the target.
const THROUGH: u8 = 0;
/// The relay's answer: it has no connection with the target either.
const NO_WAY: u8 = 1;

/// Bytes that the relay holds in each direction.
const COPY_BYTES: usize = 256 * 1024;

/// Relays that are tried for one stream.
const TRIES_MAX: usize = 3;

/// How long the opener of a stream may take to say what it is for.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream to the node on which the node runs the service.
pub(crate) async fn open(shared: &Shared, node: NodeId, service: Service) -> Result<Stream, MeshError> {
    let broken = |error: OpenError| MeshError::Broken { node, source: io::Error::other(error) };
    let protocol = match service {
        Service::Link => LINK,
        Service::Bulk => BULK,
    };
    let failure = match shared.connection(node, service.plane()).await {
        Ok(conn) => return conn.open(protocol).await.map_err(broken),
        Err(error @ MeshError::NoRoute { .. }) => error,
        Err(error) => return Err(error),
    };
    for relay in shared.relay_candidates(node).into_iter().take(TRIES_MAX) {
        match through(shared, relay, node, service).await {
            Ok(stream) => return Ok(stream),
            Err(error) => tracing::debug!(%node, %relay, %error, "a relay did not help"),
        }
    }
    Err(failure)
}

async fn through(shared: &Shared, relay: NodeId, target: NodeId, service: Service) -> Result<Stream, MeshError> {
    let conn = shared.connection(relay, service.plane()).await?;
    let broken = |source: io::Error| MeshError::Broken { node: relay, source };
    let mut stream = conn.open(RELAY).await.map_err(|error| broken(io::Error::other(error)))?;
    let exchange = async {
        write_header(&mut stream, &Header::To { target, service }).await?;
        let mut answer = [NO_WAY];
        stream.read_exact(&mut answer).await?;
        Ok(answer[0])
    };
    // The relay may have to have the target dial it first.
    let patience = shared.limits.handshake_timeout + OPENING_TIMEOUT;
    let answer = tokio::time::timeout(patience, exchange).await;
    match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(broken)? {
        THROUGH => Ok(stream),
        _ => Err(MeshError::NoRoute { node: target, why: format!("nor can node {relay} reach it") }),
    }
}

/// Serves a relay stream that `peer` opened: passes it on, or serves it if it ends here.
pub(crate) async fn serve(shared: Arc<Shared>, peer: NodeId, mut stream: Stream) {
    let header = tokio::time::timeout(OPENING_TIMEOUT, read_header(&mut stream)).await;
    match header.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(Header::From { origin, service: Service::Link }) => accept_link(shared, origin, stream).await,
        Ok(Header::From { origin, service: Service::Bulk }) => bulk::serve(shared, origin, stream).await,
        Ok(Header::To { target, service }) => pass_on(&shared, peer, target, service, stream).await,
        Err(error) => tracing::debug!(%peer, %error, "a relay stream did not say what it is for"),
    }
}

/// Takes a link that `peer` opened.
pub(crate) async fn accept_link(shared: Arc<Shared>, peer: NodeId, stream: Stream) {
    let mut link = shared.link(stream, peer);
    if let Ok(Some(hello)) = tokio::time::timeout(OPENING_TIMEOUT, link.rx.recv()).await {
        drop(shared.arrivals.send(MeshEvent::Link { link, hello }).await);
    }
}

async fn pass_on(shared: &Shared, origin: NodeId, target: NodeId, service: Service, mut stream: Stream) {
    let onward = async {
        let permit = shared.relays.clone().try_acquire_owned().ok()?;
        // A node that is not there costs nothing; one that is may be asked to dial us.
        if target == shared.node || !shared.table().has_control(target) {
            return None;
        }
        let conn = shared.connection(target, service.plane()).await.ok()?;
        let mut onward = conn.open(RELAY).await.ok()?;
        write_header(&mut onward, &Header::From { origin, service }).await.ok()?;
        Some((onward, permit))
    };
    let Some((onward, _permit)) = onward.await else {
        drop(answer(&mut stream, NO_WAY).await);
        return;
    };
    if answer(&mut stream, THROUGH).await.is_err() {
        return;
    }
    tracing::debug!(%origin, %target, ?service, "relaying");
    let (near_read, near_write) = stream.split();
    let (far_read, far_write) = onward.split();
    // Either direction's failure ends both, as the streams are dropped; its orderly end only closes it.
    drop(futures::future::try_join(copy(near_read, far_write), copy(far_read, near_write)).await);
}

async fn copy(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy_buf(BufReader::with_capacity(COPY_BYTES, from), &mut to).await?;
    to.close().await
}

async fn answer(stream: &mut Stream, answer: u8) -> io::Result<()> {
    stream.write_all(&[answer]).await?;
    stream.flush().await
}

async fn write_header(stream: &mut Stream, header: &Header) -> io::Result<()> {
    let body = postcard::to_stdvec(header).map_err(io::Error::other)?;
    let length = u8::try_from(body.len()).map_err(io::Error::other)?;
    stream.write_all(&[length]).await?;
    stream.write_all(&body).await?;
    stream.flush().await
}

async fn read_header(stream: &mut Stream) -> io::Result<Header> {
    let mut length = [0];
    stream.read_exact(&mut length).await?;
    let mut body = [0; HEADER_BYTES_MAX];
    let body = body.get_mut(..usize::from(length[0])).ok_or(io::ErrorKind::InvalidData)?;
    stream.read_exact(body).await?;
    postcard::from_bytes(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
