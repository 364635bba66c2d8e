//! The sending side of a link: this node's way to the actors of another.
//!
//! A [`Peer`] is there as long as somebody holds an address on its node, and as its link: when the link breaks, what is on
//! its way is told as lost, and the next use of an address makes another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use slab::Slab;
use starling_core::ids::NodeId;
use starling_runtime::mesh::{LinkReceiver, Mesh};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::message::MessageDef;
use crate::outgoing::{Closed, Outgoing};
use crate::pace::Pace;
use crate::wire::{ActorId, NoReply, TARGETS_MAX, ToHost, ToSender, WINDOW};

/// What an ask comes back with.
pub(crate) type Answer = Result<Bytes, NoReply>;

/// A link to the actors of a node.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// How fast its actors answer.
    pub(crate) pace: Pace,
    /// Whether the link was ever open: if not, nothing that was queued has left.
    was_open: AtomicBool,
    out: Arc<Outgoing>,
    state: Mutex<State>,
}

struct State {
    /// The message types that the other side knows the number of.
    defined: Vec<MessageDef>,
    targets: Vec<Weak<Target>>,
    by_actor: HashMap<ActorId, Weak<Target>>,
    asks: Slab<Ask>,
    /// Why the link is no more.
    lost: Option<Arc<str>>,
}

/// An answer that is waited for.
struct Ask {
    answer: oneshot::Sender<Answer>,
    /// Of an ask to an actor, whose window it counts in.
    target: Option<Weak<Target>>,
}

/// An actor on the other side, for all addresses of it.
pub(crate) struct Target {
    peer: Arc<Peer>,
    number: u32,
    /// How many messages more may be on their way.
    pub(crate) room: Semaphore,
    /// Tells that are not known to have been handled.
    untold: AtomicU64,
    /// Tells that were lost, and why; told once.
    lost: Mutex<Option<(u64, NoReply)>>,
    is_watched: AtomicBool,
    /// Whether the actor has ended.
    pub(crate) is_gone: watch::Sender<bool>,
}

/// The link is closed.
#[derive(Clone, Debug)]
pub(crate) struct Lost(pub(crate) Arc<str>);

impl Peer {
    /// A way to a node, over a link that is opened by a task of its own on the current runtime.
    pub(crate) fn open(mesh: Mesh, node: NodeId, hello: Bytes) -> Arc<Peer> {
        let state =
            State { defined: Vec::new(), targets: Vec::new(), by_actor: HashMap::new(), asks: Slab::new(), lost: None };
        let peer = Arc::new(Peer {
            node,
            pace: Pace::default(),
            was_open: AtomicBool::new(false),
            out: Arc::new(Outgoing::new()),
            state: Mutex::new(state),
        });
        let (weak, out) = (Arc::downgrade(&peer), peer.out.clone());
        tokio::spawn(async move {
            let opened = mesh.open_link(node, hello).await;
            // The link is served to its end, which comes with the mesh's: it must not keep the mesh.
            drop(mesh);
            let reason = match opened {
                Ok(link) => {
                    if let Some(peer) = weak.upgrade() {
                        peer.was_open.store(true, Ordering::Release);
                    }
                    tokio::select! {
                        () = read(link.rx, &weak) => {}
                        () = out.write(link.tx) => {}
                    }
                    "the link to it is closed".into()
                }
                Err(error) => error.to_string().into(),
            };
            out.close();
            if let Some(peer) = weak.upgrade() {
                peer.lose(reason);
            }
        });
        peer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether addresses may be made over it.
    pub(crate) fn is_usable(&self) -> bool {
        let state = self.lock();
        state.lost.is_none() && state.targets.len() < TARGETS_MAX
    }

    /// Whether anything that was queued may have reached the node.
    pub(crate) fn was_open(&self) -> bool {
        self.was_open.load(Ordering::Acquire)
    }

    pub(crate) fn lost(&self) -> Option<Lost> {
        self.lock().lost.clone().map(Lost)
    }

    fn lose(&self, reason: Arc<str>) {
        let mut state = self.lock();
        state.lost = Some(reason);
        let asks = std::mem::take(&mut state.asks);
        let targets = std::mem::take(&mut state.targets);
        state.by_actor.clear();
        drop(state);
        for target in targets.iter().filter_map(Weak::upgrade) {
            target.room.close();
            let untold = target.untold.swap(0, Ordering::AcqRel);
            if untold > 0 {
                target.add_lost(untold, NoReply::Stopped);
            }
            // Whoever watches looks at the link as well.
            target.is_gone.send_modify(|_| {});
        }
        drop(asks);
    }

    /// The actor of this id on the other side.
    pub(crate) fn target(self: &Arc<Peer>, actor: ActorId) -> Result<Arc<Target>, Lost> {
        let mut state = self.lock();
        if let Some(reason) = &state.lost {
            return Err(Lost(reason.clone()));
        }
        let known = state.by_actor.get(&actor).and_then(Weak::upgrade);
        // One that was gone may be back: an actor whose name was in doubt for a while.
        if let Some(target) = known.filter(|target| !*target.is_gone.borrow()) {
            return Ok(target);
        }
        let target = Arc::new(Target {
            peer: self.clone(),
            number: state.targets.len() as u32,
            room: Semaphore::new(WINDOW as usize),
            untold: AtomicU64::new(0),
            lost: Mutex::new(None),
            is_watched: AtomicBool::new(false),
            is_gone: watch::Sender::new(false),
        });
        state.targets.push(Arc::downgrade(&target));
        state.by_actor.insert(actor, Arc::downgrade(&target));
        // A closed link is told by the one who closes it.
        let _ = self.out.say(&ToHost::Bind { actor });
        Ok(target)
    }

    /// Waits until not so much waits for the link.
    pub(crate) async fn room(&self) {
        self.out.room().await;
    }

    /// Asks the node itself; the answer is what it says.
    pub(crate) fn question<'a>(&self, item: impl FnOnce(u32) -> ToHost<'a>) -> Result<oneshot::Receiver<Answer>, Lost> {
        let mut state = self.lock();
        let answer = self.ask_with(&mut state, None, item)?;
        Ok(answer)
    }

    fn ask_with<'a>(
        &self,
        state: &mut State,
        target: Option<Weak<Target>>,
        item: impl FnOnce(u32) -> ToHost<'a>,
    ) -> Result<oneshot::Receiver<Answer>, Lost> {
        if let Some(reason) = &state.lost {
            return Err(Lost(reason.clone()));
        }
        let (answer, waiting) = oneshot::channel();
        let ask = state.asks.insert(Ask { answer, target });
        if let Err(Closed) = self.out.say_now(&item(ask as u32)) {
            state.asks.remove(ask);
            return Err(Lost("the link to it is closed".into()));
        }
        Ok(waiting)
    }

    /// The number that the other side knows a message type by.
    fn number_of(&self, state: &mut State, def: &MessageDef) -> u32 {
        let known = state.defined.iter().position(|known| known == def);
        let number = known.unwrap_or_else(|| {
            let MessageDef { name, version, schema } = *def;
            // A closed link is told by the one who closes it.
            let _ = self.out.say(&ToHost::Define { name, version, schema });
            state.defined.push(*def);
            state.defined.len() - 1
        });
        number as u32
    }

    fn take(&self, frame: &Bytes) -> Result<(), postcard::Error> {
        let mut rest: &[u8] = frame;
        while !rest.is_empty() {
            let (item, after) = postcard::take_from_bytes::<ToSender<'_>>(rest)?;
            rest = after;
            match item {
                ToSender::Reply { ask, payload } => self.answered(ask, Ok(frame.slice_ref(payload))),
                ToSender::NoReply { ask, why } => self.answered(ask, Err(why)),
                ToSender::Credit { target, messages } => {
                    if let Some(target) = self.target_of(target) {
                        target.settle(messages);
                    }
                }
                ToSender::Undelivered { target, messages, why } => {
                    if let Some(target) = self.target_of(target) {
                        let lost = target.settle(messages);
                        target.add_lost(lost, why);
                    }
                }
                ToSender::Gone { target } => {
                    if let Some(target) = self.target_of(target) {
                        target.is_gone.send_replace(true);
                    }
                }
            }
        }
        Ok(())
    }

    fn target_of(&self, number: u32) -> Option<Arc<Target>> {
        self.lock().targets.get(number as usize)?.upgrade()
    }

    fn answered(&self, ask: u32, answer: Answer) {
        // An answer that nobody has asked for is ignored.
        let Some(ask) = self.lock().asks.try_remove(ask as usize) else { return };
        if let Some(target) = ask.target.as_ref().and_then(Weak::upgrade) {
            target.room.add_permits(1);
            if answer == Err(NoReply::NoActor) {
                target.is_gone.send_replace(true);
            }
        }
        // Who has asked may have given up.
        let _ = ask.answer.send(answer);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.out.close();
    }
}

async fn read(mut frames: LinkReceiver, peer: &Weak<Peer>) {
    while let Some(frame) = frames.recv().await {
        let Some(peer) = peer.upgrade() else { return };
        if let Err(error) = peer.take(&frame) {
            tracing::warn!(node = %peer.node, %error, "a link to actors carries what is no message: it is closed");
            return;
        }
    }
}

impl Target {
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether messages may still reach the actor, as far as is known.
    pub(crate) fn is_usable(&self) -> bool {
        !*self.is_gone.borrow() && self.peer.lost().is_none()
    }

    /// Sends a message; the caller has taken its place in the window.
    pub(crate) fn tell(&self, def: &MessageDef, payload: &[u8]) -> Result<(), Lost> {
        let mut state = self.peer.lock();
        if let Some(reason) = &state.lost {
            return Err(Lost(reason.clone()));
        }
        let message = self.peer.number_of(&mut state, def);
        self.untold.fetch_add(1, Ordering::AcqRel);
        let said = self.peer.out.say(&ToHost::Tell { target: self.number, message, payload });
        if said.is_err() {
            self.untold.fetch_sub(1, Ordering::AcqRel);
            return Err(Lost("the link to it is closed".into()));
        }
        Ok(())
    }

    /// Sends a message that is answered; the caller has taken its place in the window, which the answer gives back.
    pub(crate) fn ask(self: &Arc<Target>, def: &MessageDef, payload: &[u8]) -> Result<oneshot::Receiver<Answer>, Lost> {
        let mut state = self.peer.lock();
        let message = self.peer.number_of(&mut state, def);
        let target = self.number;
        let weak = Some(Arc::downgrade(self));
        self.peer.ask_with(&mut state, weak, |ask| ToHost::Ask { target, message, ask, payload })
    }

    /// Asks for an answer once all before it is handled. Counts as a message.
    pub(crate) fn mark(self: &Arc<Target>) -> Result<oneshot::Receiver<Answer>, Lost> {
        let mut state = self.peer.lock();
        let target = self.number;
        self.peer.ask_with(&mut state, Some(Arc::downgrade(self)), |ask| ToHost::Mark { target, ask })
    }

    /// Has the other side tell when the actor ends.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        if !self.is_watched.swap(true, Ordering::AcqRel) {
            // A closed link is seen by whoever waits.
            let _ = self.peer.out.say(&ToHost::Watch { target: self.number });
        }
        self.is_gone.subscribe()
    }

    /// Whether so much waits for the link that who can wait does.
    pub(crate) fn is_congested(&self) -> bool {
        self.peer.out.is_full()
    }

    pub(crate) async fn uncongested(&self) {
        self.peer.out.room().await;
    }

    /// So many tells are on their way no more; how many that really were.
    fn settle(&self, messages: u32) -> u64 {
        let messages = u64::from(messages);
        let before = self
            .untold
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |untold| Some(untold.saturating_sub(messages)))
            .unwrap_or_default();
        let settled = messages.min(before);
        self.room.add_permits(settled as usize);
        settled
    }

    fn add_lost(&self, messages: u64, why: NoReply) {
        if why == NoReply::NoActor {
            self.is_gone.send_replace(true);
        }
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lost.as_ref().map_or(0, |(messages, _)| *messages);
        *lost = Some((before + messages, why));
    }

    /// The tells that were lost since this was last asked, at most, and why.
    pub(crate) fn take_lost(&self) -> Option<(u64, NoReply)> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
