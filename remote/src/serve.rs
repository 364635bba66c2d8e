//! The hosting side of a link: what another node sends to actors of this one.
//!
//! What comes is input: a number that was not said before, or more messages than the window lets through, closes the link.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starling_core::ids::NodeId;
use starling_runtime::mesh::Link;
use tokio::sync::watch;

use crate::actors::{Actors, scope};
use crate::hosted::Hosted;
use crate::message::{Arrival, Handling};
use crate::outgoing::Outgoing;
use crate::receipt::{Flow, Receipt, Reply};
use crate::wire::{CREDIT_EVERY, MESSAGES_MAX, NAME_BYTES_MAX, NoReply, TARGETS_MAX, ToHost, ToSender, WINDOW};

/// Why a link is closed by this side.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("a frame that is no message: {0}")]
    NoMessage(#[from] postcard::Error),
    #[error("a number that was not said before")]
    UnknownNumber,
    #[error("too many actors or message types for one link")]
    TooMany,
    #[error("more messages to one actor than may be on their way")]
    Overfull,
    #[error("a name that is too long")]
    LongName,
}

/// A message type, as the other side has defined it.
struct Defined {
    name: String,
    version: u32,
    schema: u64,
}

/// An actor that the other side sends to.
struct Target {
    /// Not kept alive by those who send to it.
    hosted: Weak<Hosted>,
    flow: Arc<LinkFlow>,
    /// How each message type is handled, as far as that was looked up.
    handlings: Vec<Option<Result<&'static Handling, Vec<u32>>>>,
    is_watched: bool,
}

/// What is on its way to an actor over this link.
struct LinkFlow {
    target: u32,
    out: Arc<Outgoing>,
    waiting: AtomicU32,
    /// Of those that were handled, how many the sender has not heard of.
    untold: AtomicU32,
}

impl Flow for LinkFlow {
    fn handled(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if self.untold.fetch_add(1, Ordering::Relaxed) + 1 >= CREDIT_EVERY {
            let messages = self.untold.swap(0, Ordering::Relaxed);
            // A closed link has no sender that could wait.
            let _ = self.out.say(&ToSender::Credit { target: self.target, messages });
        }
    }

    fn dropped(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.undelivered(NoReply::Stopped);
    }
}

impl LinkFlow {
    /// For a message that no actor gets.
    fn refused(&self, receipt: Receipt, why: NoReply) {
        receipt.forget();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.undelivered(why);
    }

    fn undelivered(&self, why: NoReply) {
        // A closed link tells its sender by being closed.
        let _ = self.out.say(&ToSender::Undelivered { target: self.target, messages: 1, why });
    }
}

/// An ask that is being handled: it counts, but its reply is what the sender hears.
struct AskFlow(Arc<LinkFlow>);

impl Flow for AskFlow {
    fn handled(&self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn dropped(&self) {
        self.handled();
    }
}

/// Serves a link to its end.
pub(crate) async fn serve(link: Link, actors: Actors) {
    let Link { peer, tx, mut rx } = link;
    let out = Arc::new(Outgoing::new());
    let mut served = Served { actors, out: out.clone(), defined: Vec::new(), targets: Vec::new(), watched: Vec::new() };
    let mut watches = FuturesUnordered::new();
    let writing = out.write(tx);
    tokio::pin!(writing);
    let outcome = loop {
        tokio::select! {
            frame = rx.recv() => {
                let Some(frame) = frame else { break Ok(()) };
                if let Err(problem) = served.frame(peer, &frame) {
                    break Err(problem);
                }
                for (target, is_gone) in served.watched.drain(..) {
                    watches.push(async move {
                        if let Some(mut is_gone) = is_gone {
                            // An error says that it is gone as well.
                            let _ = is_gone.wait_for(|is_gone| *is_gone).await;
                        }
                        target
                    });
                }
            }
            Some(target) = watches.next(), if !watches.is_empty() => {
                if out.say(&ToSender::Gone { target }).is_err() {
                    break Ok(());
                }
            }
            () = &mut writing => break Ok(()),
        }
    };
    if let Err(problem) = outcome {
        tracing::warn!(%peer, %problem, "a link to actors is closed");
    }
    out.close();
}

struct Served {
    actors: Actors,
    out: Arc<Outgoing>,
    defined: Vec<Defined>,
    targets: Vec<Target>,
    /// Targets to be watched from now on, taken by [`serve`]; nothing to wait for if it is gone.
    watched: Vec<(u32, Option<watch::Receiver<bool>>)>,
}

impl Served {
    fn frame(&mut self, peer: NodeId, frame: &[u8]) -> Result<(), Problem> {
        let actors = self.actors.clone();
        // Addresses inside of messages belong to this node.
        scope(&actors, || {
            let mut rest = frame;
            while !rest.is_empty() {
                let (item, after) = postcard::take_from_bytes::<ToHost<'_>>(rest)?;
                rest = after;
                self.item(peer, item)?;
            }
            Ok(())
        })
    }

    fn item(&mut self, peer: NodeId, item: ToHost<'_>) -> Result<(), Problem> {
        match item {
            ToHost::Define { name, version, schema } => {
                if self.defined.len() >= MESSAGES_MAX {
                    return Err(Problem::TooMany);
                }
                self.defined.push(Defined { name: name.to_owned(), version, schema });
            }
            ToHost::Bind { actor } => {
                if self.targets.len() >= TARGETS_MAX {
                    return Err(Problem::TooMany);
                }
                let flow = LinkFlow {
                    target: self.targets.len() as u32,
                    out: self.out.clone(),
                    waiting: AtomicU32::new(0),
                    untold: AtomicU32::new(0),
                };
                let hosted = self.actors.hosted(actor).map_or_else(Weak::new, |hosted| Arc::downgrade(&hosted));
                self.targets.push(Target { hosted, flow: Arc::new(flow), handlings: Vec::new(), is_watched: false });
            }
            ToHost::Tell { target, message, payload } => {
                let (target, found) = self.find(target, message)?;
                target.arrived()?;
                let receipt = Receipt::new(target.flow.clone());
                match found {
                    Ok((hosted, handling)) => {
                        if let Err((error, _)) = handling.deliver(&*hosted.addr, payload, Arrival::Tell(receipt)) {
                            tracing::warn!(%peer, actor = hosted.type_name, %error, "a message cannot be decoded");
                        }
                    }
                    Err(why) => target.flow.refused(receipt, why),
                }
            }
            ToHost::Ask { target, message, ask, payload } => {
                let out = self.out.clone();
                let (target, found) = self.find(target, message)?;
                target.arrived()?;
                let receipt = Receipt::new(Arc::new(AskFlow(target.flow.clone())));
                let reply = Reply::new(ask, out, Some(receipt));
                match found {
                    Ok((hosted, handling)) => {
                        if let Err((error, Arrival::Ask(reply))) =
                            handling.deliver(&*hosted.addr, payload, Arrival::Ask(reply))
                        {
                            reply.refuse(NoReply::Decode(error.to_string()));
                        }
                    }
                    Err(why) => reply.refuse(why),
                }
            }
            ToHost::Mark { target, ask } => {
                let out = self.out.clone();
                let target = self.targets.get(target as usize).ok_or(Problem::UnknownNumber)?;
                target.arrived()?;
                let receipt = Receipt::new(Arc::new(AskFlow(target.flow.clone())));
                let reply = Reply::new(ask, out, Some(receipt));
                let hosted = target.hosted();
                match hosted.as_ref().and_then(|hosted| Some((hosted, hosted.handlings.any()?))) {
                    Some((hosted, handling)) => handling.mark(&*hosted.addr, reply),
                    None => reply.refuse(NoReply::NoActor),
                }
            }
            ToHost::Watch { target } => {
                let number = target;
                let target = self.targets.get_mut(number as usize).ok_or(Problem::UnknownNumber)?;
                if !std::mem::replace(&mut target.is_watched, true) {
                    let hosted = target.hosted.upgrade();
                    self.watched.push((number, hosted.map(|hosted| hosted.is_gone.subscribe())));
                }
            }
            ToHost::WhoIs { ask, name } => {
                check_name(name)?;
                let held = self.actors.named(name).map(|hosted| hosted.held());
                Reply::new(ask, self.out.clone(), None).send(&held);
            }
            ToHost::Group { ask, name } => {
                check_name(name)?;
                let members: Vec<_> = self.actors.group_here(name).iter().map(|hosted| hosted.held()).collect();
                Reply::new(ask, self.out.clone(), None).send(&members);
            }
            ToHost::Keep { ask, name, version, state } => {
                check_name(name)?;
                let is_kept = self.actors.snapshots().put(name, version, Bytes::copy_from_slice(state));
                Reply::new(ask, self.out.clone(), None).send(&is_kept);
            }
            ToHost::Kept { ask, name, spec } => {
                check_name(name)?;
                Reply::new(ask, self.out.clone(), None).send(&self.actors.snapshots().get(name, spec));
            }
            ToHost::Drop { ask, name, spec } => {
                check_name(name)?;
                self.actors.snapshots().remove(name, spec);
                Reply::new(ask, self.out.clone(), None).send(&());
            }
        }
        Ok(())
    }

    /// The target of this number, and how it handles the message type of this number.
    #[allow(clippy::type_complexity, reason = "a name for it would say no more")]
    fn find(
        &mut self,
        target: u32,
        message: u32,
    ) -> Result<(&Target, Result<(Arc<Hosted>, &'static Handling), NoReply>), Problem> {
        let number = message as usize;
        let defined = self.defined.get(number).ok_or(Problem::UnknownNumber)?;
        let target = self.targets.get_mut(target as usize).ok_or(Problem::UnknownNumber)?;
        let Some(hosted) = target.hosted() else { return Ok((target, Err(NoReply::NoActor))) };
        if target.handlings.len() <= number {
            target.handlings.resize_with(number + 1, || None);
        }
        let found = target.handlings[number]
            .get_or_insert_with(|| hosted.handlings.find(&defined.name, defined.version, defined.schema));
        let found = match found {
            Ok(handling) => Ok((hosted, *handling)),
            Err(known) => Err(NoReply::UnknownMessage { known: known.clone() }),
        };
        Ok((target, found))
    }
}

impl Target {
    fn hosted(&self) -> Option<Arc<Hosted>> {
        self.hosted.upgrade().filter(|hosted| hosted.is_here())
    }

    fn arrived(&self) -> Result<(), Problem> {
        let waiting = self.flow.waiting.fetch_add(1, Ordering::Relaxed);
        // What the sender has not heard of counts as on its way there.
        if waiting > WINDOW { Err(Problem::Overfull) } else { Ok(()) }
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name.len() > NAME_BYTES_MAX { Err(Problem::LongName) } else { Ok(()) }
}
