//! Admission: who may join. Both ends of every connection run this before anything else is served on it.
//!
//! The transport has proved who the peer is; this proves that it belongs here. Each side says its protocol version,
//! whether it runs with a secret, and a nonce; the dialer proves that it knows the secret, then the listener, then each
//! says welcome. A proof is HMAC-SHA256 under a key derived from the secret, over the leg, the plane, the version, both
//! identities and both nonces: it is good for this connection and this direction only, and the secret never leaves. A
//! stranger learns the version and whether a secret is needed, no more: the listener proves nothing before the dialer has.
//!
//! ```text
//! dialer                    listener
//!   hello  ------------------>
//!          <------------------ hello
//!   proof  ------------------>            or refused, and the end
//!          <------------------ proof
//!   welcome ----------------->            or refused, and the end
//!          <------------------ welcome
//! ```
//! A side serves the peer's streams from just before it says welcome, so that the other may open some at once.

use std::fmt;
use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use starling_core::ids::NodeId;
use starling_core::wire::PROTOCOL_VERSION;

use crate::secret::ClusterSecret;

/// What a connection is for. Bulk has its own, so that it cannot starve what shares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Plane {
    /// Gossip and links.
    Control,
    /// Blocks.
    Bulk,
}

/// Why two nodes do not admit each other. Each text says the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The nodes speak different versions.
    #[error("it speaks protocol version {theirs}, this node {ours}: run the same release on both")]
    Version {
        /// This node's version.
        ours: u32,
        /// The other's.
        theirs: u32,
    },
    /// The other node did not accept this one's proof.
    #[error(
        "this node's secret is not the cluster's: copy the cluster's here, for example with \
         `scp user@scheduler:~/.config/starling/secret ~/.config/starling/secret`"
    )]
    WrongSecret,
    /// The other node's proof is not right.
    #[error(
        "it does not know this cluster's secret: copy it there, for example with \
         `scp ~/.config/starling/secret user@host:~/.config/starling/secret`"
    )]
    Unproven,
    /// They need a secret, and this node runs without one.
    #[error(
        "it needs the cluster's secret and this node runs with --insecure: copy the secret here, for example with \
         `scp user@scheduler:~/.config/starling/secret ~/.config/starling/secret`, and start without --insecure"
    )]
    SecretNeeded,
    /// They run without a secret, and this node has one.
    #[error("it runs with --insecure and this node has a secret: start both with the secret, or both with --insecure")]
    TheyAreInsecure,
    /// The peer's messages are not those of the handshake.
    #[error("it does not follow the admission protocol: it may be another program or another release")]
    Malformed,
}

/// Why the handshake ended without admission.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Who takes part in a handshake.
pub(crate) struct Parties<'a> {
    pub(crate) secret: Option<&'a ClusterSecret>,
    pub(crate) me: NodeId,
    pub(crate) peer: NodeId,
}

const MAGIC: [u8; 8] = *b"starling";
const HELLO_BYTES: usize = MAGIC.len() + 4 + 1 + 1 + 32;

/// What a side says first. Its layout is the same in every version.
#[derive(Clone, Copy)]
struct Hello {
    version: u32,
    plane: Plane,
    secret: bool,
    nonce: [u8; 32],
}

impl Hello {
    fn new(plane: Plane, parties: &Parties<'_>) -> Hello {
        Hello { version: PROTOCOL_VERSION, plane, secret: parties.secret.is_some(), nonce: rand::random() }
    }

    fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12] = u8::from(self.plane == Plane::Bulk);
        bytes[13] = u8::from(self.secret);
        bytes[14..].copy_from_slice(&self.nonce);
        bytes
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, Refusal> {
        let (magic, rest) = bytes.split_at(8);
        if magic != MAGIC {
            return Err(Refusal::Malformed);
        }
        let &[v0, v1, v2, v3, plane, secret, ref nonce @ ..] = rest else { return Err(Refusal::Malformed) };
        let plane = match plane {
            0 => Plane::Control,
            1 => Plane::Bulk,
            _ => return Err(Refusal::Malformed),
        };
        let nonce = nonce.try_into().map_err(|_| Refusal::Malformed)?;
        Ok(Hello { version: u32::from_le_bytes([v0, v1, v2, v3]), plane, secret: secret == 1, nonce })
    }

    /// Whether the two can go on at all. Both sides come to the same conclusion, so neither has to tell the other.
    fn judge(&self, theirs: &Hello) -> Result<(), Refusal> {
        if theirs.version != self.version {
            return Err(Refusal::Version { ours: self.version, theirs: theirs.version });
        }
        match (self.secret, theirs.secret) {
            (true, false) => Err(Refusal::TheyAreInsecure),
            (false, true) => Err(Refusal::SecretNeeded),
            _ => Ok(()),
        }
    }
}

/// Which side a proof is by.
#[derive(Clone, Copy)]
enum Leg {
    Dialer,
    Listener,
}

/// What both sides know of the connection once the hellos are exchanged.
struct Transcript {
    key: [u8; 32],
    plane: Plane,
    version: u32,
    dialer: (NodeId, [u8; 32]),
    listener: (NodeId, [u8; 32]),
}

impl Transcript {
    fn mac(&self, leg: Leg) -> Hmac<Sha256> {
        let mut mac = keyed(&self.key);
        mac.update(match leg {
            Leg::Dialer => b"starling admission, dialer  ",
            Leg::Listener => b"starling admission, listener",
        });
        mac.update(&[u8::from(self.plane == Plane::Bulk)]);
        mac.update(&self.version.to_le_bytes());
        for (node, nonce) in [&self.dialer, &self.listener] {
            mac.update(&node.0);
            mac.update(nonce);
        }
        mac
    }

    fn prove(&self, leg: Leg) -> [u8; 32] {
        self.mac(leg).finalize().into_bytes().into()
    }

    fn verify(&self, leg: Leg, proof: &[u8; 32]) -> bool {
        self.mac(leg).verify_slice(proof).is_ok()
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of every length; the signature is that of MACs that do not.
    Hmac::<Sha256>::new_from_slice(key).expect("hmac takes keys of every length")
}

/// The key of the proofs. Nodes without a secret agree on a key that everybody knows.
fn key(secret: Option<&ClusterSecret>) -> [u8; 32] {
    let mut mac = keyed(secret.map_or(b"insecure".as_slice(), ClusterSecret::as_bytes));
    mac.update(b"starling admission key 1");
    mac.finalize().into_bytes().into()
}

const PROOF: u8 = 1;
const REFUSED: u8 = 2;
const WELCOME: u8 = 3;

/// A message after the hellos: its kind, and the proof if it is one.
async fn say(io: &mut (impl AsyncWrite + Unpin), kind: u8, body: [u8; 32]) -> io::Result<()> {
    let mut bytes = [0; 33];
    bytes[0] = kind;
    bytes[1..].copy_from_slice(&body);
    io.write_all(&bytes).await?;
    io.flush().await
}

/// The body of the next message, which must be of this kind.
async fn hear(io: &mut (impl AsyncRead + Unpin), kind: u8) -> Result<[u8; 32], AdmitError> {
    let mut bytes = [0; 33];
    io.read_exact(&mut bytes).await?;
    let [got, body @ ..] = bytes;
    match got {
        _ if got == kind => Ok(body),
        REFUSED => Err(Refusal::WrongSecret.into()),
        _ => Err(Refusal::Malformed.into()),
    }
}

async fn say_hello(io: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> io::Result<()> {
    io.write_all(&hello.encode()).await?;
    io.flush().await
}

async fn hear_hello(io: &mut (impl AsyncRead + Unpin)) -> Result<Hello, AdmitError> {
    let mut bytes = [0; HELLO_BYTES];
    io.read_exact(&mut bytes).await?;
    Ok(Hello::decode(&bytes)?)
}

/// The dialer's part. `admit` is called when the listener may open streams.
pub(crate) async fn dial(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    parties: &Parties<'_>,
    plane: Plane,
    admit: impl FnOnce(),
) -> Result<(), AdmitError> {
    let mine = Hello::new(plane, parties);
    say_hello(io, &mine).await?;
    let theirs = hear_hello(io).await?;
    mine.judge(&theirs)?;
    let transcript = Transcript {
        key: key(parties.secret),
        plane,
        version: mine.version,
        dialer: (parties.me, mine.nonce),
        listener: (parties.peer, theirs.nonce),
    };
    say(io, PROOF, transcript.prove(Leg::Dialer)).await?;
    let proof = hear(io, PROOF).await?;
    if !transcript.verify(Leg::Listener, &proof) {
        say(io, REFUSED, [0; 32]).await?;
        return Err(Refusal::Unproven.into());
    }
    admit();
    say(io, WELCOME, [0; 32]).await?;
    hear(io, WELCOME).await?;
    Ok(())
}

/// The listener's part. `admit` is called when the dialer may open streams.
pub(crate) async fn listen(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    parties: &Parties<'_>,
    admit: impl FnOnce(),
) -> Result<Plane, AdmitError> {
    let theirs = hear_hello(io).await?;
    let mine = Hello::new(theirs.plane, parties);
    say_hello(io, &mine).await?;
    mine.judge(&theirs)?;
    let transcript = Transcript {
        key: key(parties.secret),
        plane: theirs.plane,
        version: mine.version,
        dialer: (parties.peer, theirs.nonce),
        listener: (parties.me, mine.nonce),
    };
    let proof = hear(io, PROOF).await?;
    if !transcript.verify(Leg::Dialer, &proof) {
        say(io, REFUSED, [0; 32]).await?;
        return Err(Refusal::Unproven.into());
    }
    say(io, PROOF, transcript.prove(Leg::Listener)).await?;
    hear(io, WELCOME).await?;
    admit();
    say(io, WELCOME, [0; 32]).await?;
    Ok(theirs.plane)
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Plane::Control => "control",
            Plane::Bulk => "bulk",
        })
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
