//! Who is in the mesh: SWIM by foca, as a pure machine. Packets and time come in; packets, changes and a view come out.
//!
//! It decides who is a member and who is down. It never touches a socket, a clock or a connection: the driver carries
//! its packets and tells it the time.

use std::collections::{BTreeMap, HashSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use foca::{Codec, Foca, NoCustomBroadcast, Notification, PeriodicParams, PostcardCodec, State, Timer};
use libp2p::Multiaddr;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use starling_core::ids::NodeId;

use super::addr::ADDRS_MAX;
use super::{DownReason, Member, MemberInfo};

/// The most nodes that are remembered, members and those that went down lately. Gossip about more is ignored.
const NODES_MAX: usize = 4096;

/// The longest name of a member, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// The longest address, in bytes. An IPv6 one with a port and a peer id has 61.
const ADDR_BYTES_MAX: usize = 128;

/// The largest packet, sent or taken.
const PACKET_BYTES_MAX: NonZeroUsize = NonZeroUsize::new(16 * 1024).unwrap();

/// How the members watch each other: with these, a silent one is down after 3 to 5 seconds.
fn config() -> foca::Config {
    let some = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    let periodic =
        |millis, count| Some(PeriodicParams { frequency: Duration::from_millis(millis), num_members: some(count) });
    foca::Config {
        probe_period: Duration::from_millis(1000),
        probe_rtt: Duration::from_millis(350),
        num_indirect_probes: some(3),
        max_transmissions: const { NonZeroU8::new(10).unwrap() },
        suspect_to_down_after: Duration::from_millis(2000),
        // Long enough for a cut-off node to be dialed, and come back, after a cut of minutes.
        remove_down_after: Some(Duration::from_secs(600)),
        max_packet_size: PACKET_BYTES_MAX,
        notify_down_members: true,
        periodic_announce: periodic(30_000, 1),
        periodic_announce_to_down_members: periodic(15_000, 2),
        periodic_gossip: periodic(200, 3),
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct IdentData {
    node: NodeId,
    /// When the node started, in milliseconds of the Unix epoch; counted up whenever it has to come back. Of two
    /// identities of one node the higher is the later.
    incarnation: u64,
    /// Whether this is the node's last word.
    leaving: bool,
    info: MemberInfo,
    addrs: Vec<Multiaddr>,
}

/// A node as gossip knows it. Node and incarnation determine the rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ident(Arc<IdentData>);

impl Ident {
    pub(crate) fn new(node: NodeId, incarnation: u64, info: MemberInfo, addrs: Vec<Multiaddr>) -> Ident {
        Ident(Arc::new(IdentData { node, incarnation, leaving: false, info, addrs }))
    }

    pub(crate) fn node(&self) -> NodeId {
        self.0.node
    }

    pub(crate) fn leaving(&self) -> bool {
        self.0.leaving
    }

    pub(crate) fn addrs(&self) -> &[Multiaddr] {
        &self.0.addrs
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    pub(crate) fn member(&self) -> Member {
        let IdentData { node, incarnation, info, addrs, .. } = &*self.0;
        Member { node: *node, info: info.clone(), addrs: addrs.clone(), incarnation: *incarnation }
    }

    fn later(&self, incarnation: u64, leaving: bool) -> Ident {
        let IdentData { node, info, addrs, .. } = &*self.0;
        Ident(Arc::new(IdentData { node: *node, incarnation, leaving, info: info.clone(), addrs: addrs.clone() }))
    }

    /// Whether it keeps to the bounds. What does not is not even remembered.
    fn is_sane(&self) -> bool {
        let IdentData { info, addrs, incarnation, .. } = &*self.0;
        info.name.len() <= NAME_BYTES_MAX
            && addrs.len() <= ADDRS_MAX
            && addrs.iter().all(|addr| addr.len() <= ADDR_BYTES_MAX)
            // There must be room to count up.
            && *incarnation < u64::MAX / 2
    }
}

impl PartialEq for Ident {
    fn eq(&self, other: &Ident) -> bool {
        self.0.node == other.0.node && self.0.incarnation == other.0.incarnation
    }
}

impl Eq for Ident {}

impl foca::Identity for Ident {
    type Addr = NodeId;

    fn renew(&self) -> Option<Ident> {
        // A node that has left stays gone.
        (!self.0.leaving).then(|| self.later(self.0.incarnation + 1, false))
    }

    fn addr(&self) -> NodeId {
        self.0.node
    }

    fn win_addr_conflict(&self, adversary: &Ident) -> bool {
        self.0.incarnation > adversary.0.incarnation
    }
}

/// A member's state as nodes tell each other on meeting.
pub(crate) type Report = foca::Member<Ident>;

/// postcard, with a check of every identity that comes in.
#[derive(Clone)]
struct BoundedCodec {
    /// The nodes heard of. Shared with the machine, which drops those that were forgotten.
    known: Arc<Mutex<HashSet<NodeId>>>,
}

#[derive(Debug, thiserror::Error)]
enum CodecError {
    #[error(transparent)]
    Postcard(#[from] postcard::Error),
    #[error("an identity is out of bounds")]
    Bounds,
    #[error("there are too many nodes")]
    Full,
}

impl BoundedCodec {
    fn check(&self, ident: &Ident) -> Result<(), CodecError> {
        if !ident.is_sane() {
            return Err(CodecError::Bounds);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NODES_MAX && !known.contains(&ident.node()) {
            return Err(CodecError::Full);
        }
        known.insert(ident.node());
        Ok(())
    }
}

impl Codec<Ident> for BoundedCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &foca::Header<Ident>, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_header(header, buf)?)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<foca::Header<Ident>, CodecError> {
        let header: foca::Header<Ident> = PostcardCodec.decode_header(buf)?;
        self.check(&header.src)?;
        self.check(&header.dst)?;
        use foca::Message;
        match &header.message {
            Message::PingReq { target: ident, .. } | Message::IndirectAck { target: ident, .. } => self.check(ident)?,
            Message::IndirectPing { origin: ident, .. } | Message::ForwardedAck { origin: ident, .. } => {
                self.check(ident)?;
            }
            _ => {}
        }
        Ok(header)
    }

    fn encode_member(&mut self, member: &Report, buf: impl BufMut) -> Result<(), CodecError> {
        Ok(PostcardCodec.encode_member(member, buf)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Report, CodecError> {
        let member: Report = PostcardCodec.decode_member(buf)?;
        self.check(member.id())?;
        Ok(member)
    }
}

/// What the machine wants done. The driver empties it after each call.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Packets, each for one node.
    pub(crate) packets: Vec<(NodeId, Bytes)>,
    /// Members that went down, in order.
    pub(crate) down: Vec<(Ident, DownReason)>,
    /// Whether the set of live members, or what is known of one, has changed.
    pub(crate) changed: bool,
    /// Whether this node has a new identity, which everybody whom it is connected with must be told.
    pub(crate) renewed: bool,
    /// This node is to be known as something else.
    pub(crate) introduced: bool,
    timers: Vec<(Timer<Ident>, Duration)>,
}

impl foca::Runtime<Ident> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Ident>) {
        match notification {
            Notification::MemberUp(_) | Notification::Rename(..) => self.changed = true,
            Notification::MemberDown(ident) => {
                self.changed = true;
                let reason = if ident.leaving() { DownReason::Left } else { DownReason::Silent };
                self.down.push((ident.clone(), reason));
            }
            Notification::Rejoin(_) => self.renewed = true,
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Ident, data: &[u8]) {
        self.packets.push((to.node(), Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Ident>, after: Duration) {
        self.timers.push((event, after));
    }
}

/// The machine.
pub(crate) struct Membership {
    foca: Foca<Ident, BoundedCodec, StdRng, NoCustomBroadcast>,
    known: Arc<Mutex<HashSet<NodeId>>>,
    /// What foca wants to be told when: by time, then in the order of asking.
    timers: BTreeMap<(Instant, u64), Timer<Ident>>,
    timer_next: u64,
    pub(crate) out: Outbox,
}

impl Membership {
    pub(crate) fn new(me: Ident, rng: StdRng) -> Membership {
        let known = Arc::new(Mutex::new(HashSet::new()));
        let foca = Foca::new(me, config(), rng, BoundedCodec { known: known.clone() });
        Membership { foca, known, timers: BTreeMap::new(), timer_next: 0, out: Outbox::default() }
    }

    /// This node as others shall know it.
    pub(crate) fn me(&self) -> &Ident {
        self.foca.identity()
    }

    /// The live members, this node not among them.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Ident> {
        self.foca.iter_members().map(foca::Member::id)
    }

    /// Nodes that went silent and may be there still, beyond a cut.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &Ident> {
        let lost = |report: &&Report| report.state() == State::Down && !report.id().leaving();
        let me = self.me().node();
        self.foca.iter_membership_state().filter(lost).map(foca::Member::id).filter(move |ident| ident.node() != me)
    }

    /// Everything known, for a node that has just been met.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.foca.iter_membership_state().cloned().collect()
    }

    /// What a node that we are connected with says of itself and of others.
    pub(crate) fn met(&mut self, now: Instant, peer: Option<Ident>, reports: Vec<Report>) {
        let codec = BoundedCodec { known: self.known.clone() };
        let me = self.me().node();
        let reports: Vec<_> = peer
            .map(Report::alive)
            .into_iter()
            .chain(reports)
            .filter(|report| codec.check(report.id()).is_ok())
            .collect();
        // An earlier run under the same key, with a clock that was ahead: only a later identity is believed.
        let mine = reports.iter().map(Report::id).filter(|ident| ident.node() == me).map(Ident::incarnation).max();
        if let Some(seen) = mine.filter(|&seen| seen > self.me().incarnation()) {
            let later = self.me().later(seen + 1, false);
            let outcome = self.foca.change_identity(later, &mut self.out);
            self.out.renewed = true;
            self.note("change_identity", outcome);
        }
        let outcome = self.foca.apply_many(reports.into_iter(), true, &mut self.out);
        self.note("met", outcome);
        self.schedule(now);
    }

    /// This node is to be known as this from now on.
    pub(crate) fn introduce(&mut self, now: Instant, info: MemberInfo) {
        let IdentData { node, incarnation, addrs, .. } = &*self.me().0;
        let me = Ident::new(*node, incarnation + 1, info, addrs.clone());
        let outcome = self.foca.change_identity(me, &mut self.out);
        self.out.introduced = true;
        self.note("introduce", outcome);
        self.schedule(now);
    }

    /// A packet from a member. What cannot be decoded is ignored.
    pub(crate) fn packet(&mut self, now: Instant, data: &[u8]) {
        let outcome = self.foca.handle_data(data, &mut self.out);
        self.note("packet", outcome);
        self.schedule(now);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            let forgotten = match &timer {
                Timer::RemoveDown(ident) => Some(ident.node()),
                _ => None,
            };
            let outcome = self.foca.handle_timer(timer, &mut self.out);
            self.note("timer", outcome);
            if let Some(node) = forgotten
                && !self.foca.iter_membership_state().any(|report| report.id().node() == node)
            {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
            }
            self.schedule(now);
        }
    }

    /// When [`Membership::tick`] is to be called next.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// The node's process is known to be gone: declares it down, unless it has come back since.
    pub(crate) fn gone(&mut self, now: Instant, ident: &Ident) {
        if self.live().any(|live| live == ident) {
            let outcome = self.foca.apply_many(std::iter::once(Report::down(ident.clone())), true, &mut self.out);
            self.note("gone", outcome);
            self.schedule(now);
        }
    }

    /// This node's last word, to be told to everybody whom it is connected with.
    pub(crate) fn farewell(&self) -> Report {
        Report::down(self.me().later(self.me().incarnation() + 1, true))
    }

    /// No timer is of use any more.
    pub(crate) fn stop(&mut self) {
        self.timers.clear();
        self.out.timers.clear();
    }

    fn schedule(&mut self, now: Instant) {
        for (timer, after) in self.out.timers.drain(..) {
            self.timers.insert((now + after, self.timer_next), timer);
            self.timer_next += 1;
        }
    }

    /// Errors of foca are a peer's bad input, or a late timer; both leave its state sound.
    fn note(&self, what: &'static str, outcome: Result<(), foca::Error>) {
        if let Err(error) = outcome {
            tracing::debug!(node = %self.me().node(), what, %error, "gossip ignored");
        }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
