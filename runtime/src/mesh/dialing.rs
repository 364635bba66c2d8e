//! What a failed dial or a broken connection means to a person.

use std::error::Error;
use std::io;

use libp2p::Multiaddr;
use libp2p::core::transport::TransportError;
use libp2p::swarm::{ConnectionError, DialError};

use super::MeshError;

/// The error of a dial to `addr`, which is the address that is named where the swarm names none.
pub(crate) fn error(addr: &Multiaddr, error: &DialError) -> MeshError {
    let addr = addr.clone();
    match error {
        DialError::LocalPeerId { .. } | DialError::NoAddresses => MeshError::Itself { addr },
        DialError::WrongPeerId { .. } => MeshError::OtherNode { addr },
        DialError::Transport(errors) => match errors.first() {
            Some((_, error)) => transport_error(addr, error),
            None => MeshError::Unreachable { addr, why: "no address was tried".to_owned() },
        },
        other => MeshError::Unreachable { addr, why: other.to_string() },
    }
}

fn transport_error(addr: Multiaddr, error: &TransportError<io::Error>) -> MeshError {
    let error = match error {
        TransportError::MultiaddrNotSupported(addr) => {
            let why = "only TCP addresses with a port can be dialed".to_owned();
            return MeshError::BadAddress { text: addr.to_string(), why };
        }
        TransportError::Other(error) => error,
    };
    match system_error(error) {
        Some((io::ErrorKind::ConnectionRefused, _)) => MeshError::NobodyListens { addr },
        Some((kind, why)) if is_network_kind(kind) => MeshError::Unreachable { addr, why },
        // Connected, and then the handshake of the transport came to nothing.
        _ => MeshError::NotStarling { addr, why: innermost(error) },
    }
}

/// The error of the system inside an error of the transport, if there is one.
///
/// The transport's layers wrap it in types that pass on its text and hide it from `source()`, so it is the text that
/// is read: the standard library ends that of a system error with its number, and libp2p that of a timeout with a word.
fn system_error(error: &(dyn Error + 'static)) -> Option<(io::ErrorKind, String)> {
    let text = innermost(error);
    if let Some((_, number)) = text.rsplit_once("(os error ")
        && let Ok(number) = number.trim_end_matches(')').parse()
    {
        return Some((io::Error::from_raw_os_error(number).kind(), text));
    }
    if text.contains("Timeout has been reached") || text.contains("timed out") {
        return Some((io::ErrorKind::TimedOut, "it did not answer in time".to_owned()));
    }
    None
}

/// The text of the innermost error.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    loop {
        let custom = inner.downcast_ref::<io::Error>().and_then(|io| io.get_ref());
        match custom.map(|custom| custom as &(dyn Error + 'static)).or_else(|| inner.source()) {
            Some(next) => inner = next,
            None => return inner.to_string(),
        }
    }
}

fn is_network_kind(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    matches!(kind, TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown)
}

/// Whether a connection closed because the network failed, rather than because the peer closed it or its process ended.
pub(crate) fn is_network_failure(cause: &ConnectionError) -> bool {
    match cause {
        ConnectionError::IO(error) => system_error(error).is_some_and(|(kind, _)| is_network_kind(kind)),
        ConnectionError::KeepAliveTimeout => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the transport's layers do, it has its inner error's text and no source.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Opaque(io::Error);

    fn wrapped(number: i32) -> io::Error {
        io::Error::other(Opaque(io::Error::from_raw_os_error(number)))
    }

    #[test]
    fn the_systems_word_is_found_inside_the_transports() {
        let addr: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let meaning = |number| {
            let errors = vec![(addr.clone(), TransportError::Other(wrapped(number)))];
            error(&addr, &DialError::Transport(errors))
        };
        assert!(matches!(meaning(111), MeshError::NobodyListens { .. }));
        assert!(matches!(meaning(113), MeshError::Unreachable { .. }));
        assert!(matches!(meaning(110), MeshError::Unreachable { .. }));
        assert!(matches!(meaning(104), MeshError::NotStarling { .. }));
    }

    #[test]
    fn a_cut_network_is_told_from_a_process_that_is_gone() {
        assert!(is_network_failure(&ConnectionError::IO(wrapped(110))));
        assert!(!is_network_failure(&ConnectionError::IO(wrapped(104))));
        assert!(!is_network_failure(&ConnectionError::IO(io::ErrorKind::UnexpectedEof.into())));
    }
}
