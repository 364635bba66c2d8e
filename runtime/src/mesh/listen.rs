//! Opening the listening sockets, with errors that say what is in the way.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::core::transport::TransportError;
use libp2p::swarm::{Swarm, SwarmEvent};

use super::net::{Behaviour, Event};
use super::{MeshError, addr};

/// How long a listener may take to come up.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for the addresses of further interfaces once the first is known.
const INTERFACES_WAIT: Duration = Duration::from_millis(100);

/// Events of the swarm that came while it was being set up, for the driver to handle first.
pub(crate) type Early = Vec<SwarmEvent<Event>>;

/// Listens on all the addresses, or on none and says why. Returns the actual addresses, with unspecified ones expanded to
/// those of the interfaces.
pub(crate) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    wanted: &[Multiaddr],
) -> Result<(Vec<Multiaddr>, Early), MeshError> {
    let mut waiting = Vec::new();
    let mut expands = false;
    for wanted in wanted {
        let resolved = addr::resolve(wanted).await?;
        for addr in resolved {
            let Some((ip, port)) = addr::socket(&addr) else { continue };
            probe(&addr, SocketAddr::new(ip, port))?;
            expands |= ip.is_unspecified();
            let id = swarm.listen_on(addr.clone()).map_err(|error| match error {
                TransportError::Other(source) => listen_error(&addr, source),
                error => MeshError::Transport(error.to_string()),
            })?;
            waiting.push((id, addr));
        }
    }
    let mut listening = Vec::new();
    let mut early = Vec::new();
    while let Some((_, addr)) = waiting.first() {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the listener did not come up");
        let event = tokio::time::timeout(LISTEN_TIMEOUT, swarm.select_next_some())
            .await
            .map_err(|_| listen_error(addr, late()))?;
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                waiting.retain(|(id, _)| *id != listener_id);
                listening.push(address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                let closed = waiting.iter().find(|(id, _)| *id == listener_id).map(|(_, addr)| addr.clone());
                if let (Some(addr), Err(source)) = (closed, reason) {
                    return Err(listen_error(&addr, source));
                }
            }
            other => early.push(other),
        }
    }
    if expands {
        while let Ok(event) = tokio::time::timeout(INTERFACES_WAIT, swarm.select_next_some()).await {
            match event {
                SwarmEvent::NewListenAddr { address, .. } => listening.push(address),
                other => early.push(other),
            }
        }
    }
    Ok((listening, early))
}

/// Whether the port is free. libp2p listens with SO_REUSEPORT, with which a second node of the same user would get the
/// port too, and every other connection with it. This socket is without.
fn probe(addr: &Multiaddr, at: SocketAddr) -> Result<(), MeshError> {
    TcpListener::bind(at).map(drop).map_err(|source| listen_error(addr, source))
}

fn listen_error(addr: &Multiaddr, source: io::Error) -> MeshError {
    let addr = addr.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => MeshError::PortInUse { addr },
        _ => MeshError::Listen { addr, source },
    }
}

/// A number that is higher than in any earlier run under the same key, if the clock did not go back. If it did, the
/// peers tell on meeting.
pub(crate) fn incarnation() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
