//! Addresses and identities: what a person may type, what a node advertises, and how a [`NodeId`] and a libp2p peer id
//! become each other.
//!
//! Nothing here dials, listens or keeps state; [`resolve`] alone asks the system's name service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, identity};
use starling_core::ids::NodeId;

use super::MeshError;

/// The port that a node listens on, and that is dialed where an address names none.
pub const DEFAULT_PORT: u16 = 8786;

/// The most addresses that a node advertises, and that are kept of what another one advertises.
pub(crate) const ADDRS_MAX: usize = 8;

/// The node that a libp2p peer id names; none if the peer's key is not an ed25519 one.
pub fn node_of(peer: &PeerId) -> Option<NodeId> {
    // An ed25519 peer id is an identity multihash, so it holds the key itself and not a hash of it.
    let bytes = (*peer).to_bytes();
    let encoded = bytes.get(2..)?;
    if bytes.first() != Some(&0) {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(encoded).ok()?.try_into_ed25519().ok()?;
    Some(NodeId(key.to_bytes()))
}

/// The libp2p peer id of a node; none if the id is not a point of the curve, and so nobody's.
pub fn peer_of(node: &NodeId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The address that a person meant: a multiaddress, `host:port`, `[v6]:port` or a bare host (port [`DEFAULT_PORT`]).
///
/// ```
/// use starling_runtime::mesh::parse_addr;
/// assert_eq!(parse_addr("10.12.0.10").unwrap(), parse_addr("/ip4/10.12.0.10/tcp/8786").unwrap());
/// assert_eq!(parse_addr("head:9000").unwrap().to_string(), "/dns4/head/tcp/9000");
/// ```
pub fn parse_addr(text: &str) -> Result<Multiaddr, MeshError> {
    let text = text.trim();
    let bad = |why: &str| MeshError::BadAddress { text: text.to_owned(), why: why.to_owned() };
    if text.starts_with('/') {
        let addr: Multiaddr = text.parse().map_err(|error| bad(&format!("{error}")))?;
        check(&addr).map_err(|why| bad(&why))?;
        return Ok(addr);
    }
    if text.is_empty() {
        return Err(bad("it is empty"));
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Ok(tcp(IpAddr::V6(ip), DEFAULT_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| bad("the port is not a number up to 65535"))?),
        None => (text, DEFAULT_PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(tcp(ip, port));
    }
    let name_like = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
    if host.is_empty() || !host.chars().all(name_like) {
        return Err(bad("the host is neither an IP address nor a name"));
    }
    Ok(Multiaddr::empty().with(Protocol::Dns4(host.into())).with(Protocol::Tcp(port)))
}

/// Whether the transport can use the address: a host, then TCP, then at most a peer id.
fn check(addr: &Multiaddr) -> Result<(), String> {
    let mut parts = addr.iter();
    match parts.next() {
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => {}
        _ => return Err("it must begin with /ip4, /ip6, /dns4 or /dns6".to_owned()),
    }
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Tcp(_)), None | Some(Protocol::P2p(_)), None) => Ok(()),
        _ => Err("after the host it must have /tcp/PORT, as in /ip4/10.12.0.10/tcp/8786".to_owned()),
    }
}

/// `/ip4|6/IP/tcp/PORT`.
pub(crate) fn tcp(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::from(ip).with(Protocol::Tcp(port))
}

/// The IP address and port of an address that has both.
pub(crate) fn socket(addr: &Multiaddr) -> Option<(IpAddr, u16)> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((ip, port)),
        _ => None,
    }
}

/// The peer id at the end of an address, if it has one.
pub(crate) fn peer_in(addr: &Multiaddr) -> Option<PeerId> {
    addr.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })
}

/// The IP addresses that a person's address stands for, without its peer id. Asks the system's resolver for a name, so
/// that `/etc/hosts` and whatever else the machine is set up with count.
pub(crate) async fn resolve(addr: &Multiaddr) -> Result<Vec<Multiaddr>, MeshError> {
    let (host, port) = match (addr.iter().next(), addr.iter().nth(1)) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => return Ok(vec![tcp(ip.into(), port)]),
        (Some(Protocol::Ip6(ip)), Some(Protocol::Tcp(port))) => return Ok(vec![tcp(ip.into(), port)]),
        (Some(Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host)), Some(Protocol::Tcp(port))) => {
            (host, port)
        }
        _ => {
            let why = "only TCP addresses can be dialed".to_owned();
            return Err(MeshError::BadAddress { text: addr.to_string(), why });
        }
    };
    let unknown = |why: String| MeshError::UnknownHost { host: host.to_string(), why };
    let found = tokio::net::lookup_host((host.as_ref(), port)).await.map_err(|error| unknown(error.to_string()))?;
    let mut found: Vec<_> = found.collect();
    // What was asked for comes first; a name that has only the other kind is no reason to fail.
    let v6_first = matches!(addr.iter().next(), Some(Protocol::Dns6(_)));
    found.sort_by_key(|at| at.is_ipv4() == v6_first);
    let addrs: Vec<_> = found.into_iter().take(ADDRS_MAX).map(|at| tcp(at.ip(), at.port())).collect();
    if addrs.is_empty() { Err(unknown("it has no address".to_owned())) } else { Ok(addrs) }
}

/// Of the addresses that a node listens on, those that it tells others: loopback ones only if there are no other ones.
pub(crate) fn advertised(listening: &[Multiaddr]) -> Vec<Multiaddr> {
    let known = |addr: &&Multiaddr| socket(addr).is_some_and(|(ip, _)| !ip.is_unspecified() && !link_local(&ip));
    let loopback = |addr: &Multiaddr| socket(addr).is_some_and(|(ip, _)| ip.is_loopback());
    let (near, far): (Vec<_>, Vec<_>) = listening.iter().filter(known).cloned().partition(loopback);
    let mut addrs = if far.is_empty() { near } else { far };
    addrs.sort();
    addrs.dedup();
    addrs.truncate(ADDRS_MAX);
    addrs
}

/// Addresses that mean nothing without the name of an interface.
fn link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::is_link_local(ip),
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_and_its_peer_id_become_each_other() {
        let peer = identity::Keypair::generate_ed25519().public().to_peer_id();
        let node = node_of(&peer).unwrap();
        assert_eq!(peer_of(&node), Some(peer));
    }

    #[test]
    fn a_peer_id_that_is_a_hash_names_no_node() {
        assert_eq!(node_of(&PeerId::random()), None);
    }

    #[test]
    fn what_people_type_is_understood() {
        for (text, addr) in [
            ("10.12.0.10:8786", "/ip4/10.12.0.10/tcp/8786"),
            (" 10.12.0.10 ", "/ip4/10.12.0.10/tcp/8786"),
            ("head", "/dns4/head/tcp/8786"),
            ("head.example.org:1", "/dns4/head.example.org/tcp/1"),
            ("[::1]:9", "/ip6/::1/tcp/9"),
            ("::1", "/ip6/::1/tcp/8786"),
            ("/dns4/head/tcp/7", "/dns4/head/tcp/7"),
        ] {
            assert_eq!(parse_addr(text).unwrap().to_string(), addr, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_dialed_is_refused_with_the_reason() {
        for text in ["", "host:port", "1.2.3.4:99999", "/ip4/1.2.3.4", "/ip4/1.2.3.4/udp/1", "a b:1", "/nonsense", ":1"]
        {
            let error = parse_addr(text).unwrap_err();
            assert!(matches!(error, MeshError::BadAddress { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn loopback_is_advertised_only_where_there_is_nothing_else() {
        let addrs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Multiaddr>>();
        let near = addrs(&["/ip4/127.0.0.1/tcp/1"]);
        assert_eq!(advertised(&near), near);
        let both = addrs(&["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1"]);
        assert_eq!(advertised(&both), addrs(&["/ip4/10.0.0.1/tcp/1"]));
    }
}
