//! The actors of this node that others may send to.

use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, Addr, Context};
use starling_core::directory::{HeldName, Incarnation};
use tokio::sync::{Notify, Semaphore, watch};

use crate::error::RegisterError;
use crate::message::Handlings;
use crate::receipt::Flow;
use crate::wire::{ActorId, Held, MEMBERS_MAX, NAME_BYTES_MAX, WINDOW};

/// An actor that others may send to.
pub(crate) struct Hosted {
    pub(crate) id: ActorId,
    pub(crate) type_name: &'static str,
    /// An `Addr<A>`.
    pub(crate) addr: Box<dyn Any + Send + Sync>,
    pub(crate) handlings: &'static Handlings,
    pub(crate) local: Arc<LocalFlow>,
    is_connected: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether it is not hosted any more.
    pub(crate) is_gone: watch::Sender<bool>,
    is_gone_now: AtomicBool,
    /// The name that it holds.
    name: Option<String>,
    /// The spec's id and which making, of an actor that the cluster has made.
    spawned: Option<(u64, Incarnation)>,
    /// Whether it does not answer because nobody confirms that the name is its.
    is_suspended: AtomicBool,
}

/// What is on its way to an actor from its own node.
pub(crate) struct LocalFlow {
    /// Apart from the count of who holds this, which both sides write for each message.
    room: Apart<Semaphore>,
    /// How many messages were sent, and how many of them are on their way no more. Senders write the one, the actor the other:
    /// each has a cache line to itself.
    sent: Apart<AtomicU64>,
    settled: Apart<AtomicU64>,
    /// How many wait until all of them are.
    waiting: AtomicU32,
    all_settled: Notify,
    dropped: AtomicU64,
}

/// What two threads write should not lie together. Two lines, since some processors fetch them in pairs.
#[repr(align(128))]
struct Apart<T>(T);

/// How many messages are settled before their places are given back: threads that do so for each of them wait for each other.
const GIVEN_BACK: u64 = 64;

impl LocalFlow {
    fn new() -> LocalFlow {
        LocalFlow {
            room: Apart(Semaphore::new(WINDOW as usize)),
            sent: Apart(AtomicU64::new(0)),
            settled: Apart(AtomicU64::new(0)),
            waiting: AtomicU32::new(0),
            all_settled: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Takes a place in the window, once there is one.
    pub(crate) async fn take(&self) {
        // Never closed.
        if let Ok(permit) = self.room.0.acquire().await {
            permit.forget();
            self.sent.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a place in the window, if there is one.
    pub(crate) fn try_take(&self) -> bool {
        let Ok(permit) = self.room.0.try_acquire() else { return false };
        permit.forget();
        self.sent.0.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn settle(&self) {
        let settled = self.settled.0.fetch_add(1, Ordering::SeqCst) + 1;
        if settled.is_multiple_of(GIVEN_BACK) {
            self.room.0.add_permits(GIVEN_BACK as usize);
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.all_settled.notify_waiters();
        }
    }

    /// Waits until all that was sent before is on its way no more.
    pub(crate) async fn flush(&self) {
        let sent = self.sent.0.load(Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        loop {
            let changed = self.all_settled.notified();
            if self.settled.0.load(Ordering::SeqCst) >= sent {
                return;
            }
            changed.await;
        }
    }

    /// How many messages were not handled since this was last asked.
    pub(crate) fn take_dropped(&self) -> u64 {
        // Asked for each message, and nearly always 0.
        if self.dropped.load(Ordering::Acquire) == 0 { 0 } else { self.dropped.swap(0, Ordering::AcqRel) }
    }
}

/// Somebody waits until this is dropped.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Flow for LocalFlow {
    fn handled(&self) {
        self.settle();
    }

    fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::AcqRel);
        self.settle();
    }
}

impl Hosted {
    fn new<A: Actor<Context = Context<A>>>(
        addr: Addr<A>,
        name: Option<&str>,
        spawned: Option<(u64, Incarnation)>,
    ) -> Result<Hosted, RegisterError> {
        let handlings = Handlings::of(TypeId::of::<A>());
        if handlings.any().is_none() {
            return Err(RegisterError::TakesNothing(type_name::<A>()));
        }
        if !addr.connected() {
            return Err(RegisterError::Stopped);
        }
        let weak = addr.downgrade();
        Ok(Hosted {
            id: rand::random(),
            type_name: type_name::<A>(),
            addr: Box::new(addr),
            handlings,
            local: Arc::new(LocalFlow::new()),
            is_connected: Box::new(move || weak.upgrade().is_some_and(|addr| addr.connected())),
            is_gone: watch::Sender::new(false),
            is_gone_now: AtomicBool::new(false),
            name: name.map(str::to_owned),
            spawned,
            is_suspended: AtomicBool::new(false),
        })
    }

    /// Whether messages reach it.
    pub(crate) fn is_here(&self) -> bool {
        !self.is_gone_now.load(Ordering::Acquire) && !self.is_suspended.load(Ordering::Acquire)
    }

    pub(crate) fn held(&self) -> Held {
        Held { actor: self.id, type_name: self.type_name.to_owned() }
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Table {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<ActorId, Arc<Hosted>>,
    names: BTreeMap<String, ActorId>,
    /// The members of each group, in the order in which they came.
    groups: BTreeMap<String, Vec<ActorId>>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an actor hold a name. `Err` with the holder's node filled in by the caller if another actor here does.
    pub(crate) fn name<A: Actor<Context = Context<A>>>(
        &self,
        name: &str,
        addr: Addr<A>,
        spawned: Option<(u64, Incarnation)>,
    ) -> Result<Result<Arc<Hosted>, Taken>, RegisterError> {
        check_name(name)?;
        let hosted = Arc::new(Hosted::new(addr, Some(name), spawned)?);
        let mut inner = self.lock();
        if inner.names.get(name).is_some_and(|id| inner.by_id.contains_key(id)) {
            return Ok(Err(Taken));
        }
        inner.names.insert(name.to_owned(), hosted.id);
        inner.by_id.insert(hosted.id, hosted.clone());
        Ok(Ok(hosted))
    }

    /// Has an actor join a group.
    pub(crate) fn join<A: Actor<Context = Context<A>>>(
        &self,
        group: &str,
        addr: Addr<A>,
    ) -> Result<Arc<Hosted>, RegisterError> {
        check_name(group)?;
        let hosted = Arc::new(Hosted::new(addr, None, None)?);
        let mut inner = self.lock();
        inner.groups.entry(group.to_owned()).or_default().push(hosted.id);
        inner.by_id.insert(hosted.id, hosted.clone());
        Ok(hosted)
    }

    pub(crate) fn get(&self, id: ActorId) -> Option<Arc<Hosted>> {
        self.lock().by_id.get(&id).cloned()
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<Hosted>> {
        let inner = self.lock();
        inner.names.get(name).and_then(|id| inner.by_id.get(id)).filter(|hosted| hosted.is_here()).cloned()
    }

    /// All that hold names, also those that do not answer at the moment.
    pub(crate) fn holders(&self) -> Vec<HeldName> {
        let inner = self.lock();
        let hosted = inner.names.values().filter_map(|id| inner.by_id.get(id));
        let holders = hosted.filter_map(|hosted| {
            let (name, type_name) = (hosted.name.clone()?, hosted.type_name.to_owned());
            Some(HeldName { name, actor: hosted.id, type_name, spawned: hosted.spawned })
        });
        holders.collect()
    }

    /// Has those that hold names answer no messages, or do so again.
    pub(crate) fn suspend(&self, is_suspended: bool) {
        let inner = self.lock();
        for hosted in inner.names.values().filter_map(|id| inner.by_id.get(id)) {
            hosted.is_suspended.store(is_suspended, Ordering::Release);
        }
    }

    pub(crate) fn group(&self, group: &str) -> Vec<Arc<Hosted>> {
        let inner = self.lock();
        let members = inner.groups.get(group).into_iter().flatten();
        members.filter_map(|id| inner.by_id.get(id)).take(MEMBERS_MAX).cloned().collect()
    }

    /// Hosts it no longer, under no name and in no group.
    pub(crate) fn remove(&self, id: ActorId) {
        let mut inner = self.lock();
        let removed = inner.by_id.remove(&id);
        inner.names.retain(|_, held| *held != id);
        inner.groups.retain(|_, members| {
            members.retain(|member| *member != id);
            !members.is_empty()
        });
        drop(inner);
        if let Some(hosted) = removed {
            hosted.is_gone_now.store(true, Ordering::Release);
            hosted.is_gone.send_replace(true);
        }
    }

    /// Finds the actors that have ended; gives the names of those that were registered. actix tells nobody when an actor ends.
    pub(crate) fn sweep(&self) -> Vec<(String, ActorId)> {
        let hosted: Vec<Arc<Hosted>> = self.lock().by_id.values().cloned().collect();
        let mut released = Vec::new();
        for ended in hosted.iter().filter(|hosted| !(hosted.is_connected)()) {
            tracing::debug!(actor = ended.type_name, "an actor that others may send to has ended");
            self.remove(ended.id);
            if let (Some(name), None) = (&ended.name, ended.spawned) {
                released.push((name.clone(), ended.id));
            }
        }
        released
    }

    /// Hosts nothing any more.
    pub(crate) fn clear(&self) {
        let ids: Vec<ActorId> = self.lock().by_id.keys().copied().collect();
        ids.into_iter().for_each(|id| self.remove(id));
    }
}

/// Another actor here holds the name.
pub(crate) struct Taken;

fn check_name(name: &str) -> Result<(), RegisterError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX { Err(RegisterError::BadName(name.len())) } else { Ok(()) }
}
