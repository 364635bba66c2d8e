//! Locks and semaphores: [`Lock`], [`Semaphore`] and their [`LockGuard`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use starling_core::coordination::{Ask, Change, LeaseKind, LeaseName, Outcome, Read};
use tokio::sync::watch;

use super::CoordinationError;
use super::session::Session;
use crate::cluster::Cluster;

/// For how long a lease lasts when its client is not heard, unless something else is said: 30 s.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);

/// A lock of the cluster's, which one holder has at a time: [`Cluster::lock`].
#[derive(Clone)]
pub struct Lock {
    leased: Leased,
}

/// A semaphore of the cluster's, which so many holders have at a time: [`Cluster::semaphore`].
#[derive(Clone)]
pub struct Semaphore {
    leased: Leased,
}

/// What both are.
#[derive(Clone)]
struct Leased {
    cluster: Cluster,
    of: LeaseName,
    limit: u32,
    lease: Duration,
}

impl Leased {
    fn new(cluster: Cluster, kind: LeaseKind, name: String, limit: u32) -> Leased {
        Leased { cluster, of: LeaseName { kind, name }, limit, lease: LEASE_DEFAULT }
    }

    async fn acquire(&self, wait: Option<Duration>) -> Result<Option<LockGuard>, CoordinationError> {
        let session = self.cluster.coordination()?;
        let lease_ms = u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX);
        let ask = Ask::Change(Change::Acquire { of: self.of.clone(), limit: self.limit, lease_ms });
        match session.ask(ask, wait).await? {
            Outcome::Granted(token) => {
                let lost = session.watch_lease(token);
                Ok(Some(LockGuard { session, _cluster: self.cluster.clone(), of: self.of.clone(), token, lost }))
            }
            _ => Ok(None),
        }
    }

    /// Waits without end, so that there is a guard.
    async fn acquire_for_sure(&self) -> Result<LockGuard, CoordinationError> {
        loop {
            if let Some(guard) = self.acquire(None).await? {
                return Ok(guard);
            }
        }
    }

    async fn leases(&self) -> Result<u64, CoordinationError> {
        let read = Ask::Read(Read::Leases(self.of.clone()));
        match self.cluster.coordination()?.ask(read, None).await? {
            Outcome::Count(count) => Ok(count),
            _ => Ok(0),
        }
    }
}

impl Lock {
    pub(crate) fn new(cluster: Cluster, name: String) -> Lock {
        Lock { leased: Leased::new(cluster, LeaseKind::Lock, name, 1) }
    }

    /// The same with another lease than [`LEASE_DEFAULT`], from a second to ten minutes: for how long it is still held when
    /// its client is not heard any more. A short one gives it to the next sooner when a client has died; a long one bears longer
    /// disturbances.
    pub fn lease(mut self, lease: Duration) -> Lock {
        self.leased.lease = lease;
        self
    }

    /// Waits until the lock is free, and holds it. Dropping this before it resolves gives up the place in the line.
    ///
    /// # Errors
    /// [`CoordinationError`]; the lock is not held then, or is given back.
    pub async fn acquire(&self) -> Result<LockGuard, CoordinationError> {
        self.leased.acquire_for_sure().await
    }

    /// Holds the lock if it is free now, and nobody waits for it.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, CoordinationError> {
        self.leased.acquire(Some(Duration::ZERO)).await
    }

    /// As [`Lock::acquire`], but waits no longer than this; `None` if that was not enough. Longer if the scheduler has to be looked
    /// for meanwhile.
    ///
    /// # Errors
    /// As [`Lock::acquire`].
    pub async fn acquire_timeout(&self, wait: Duration) -> Result<Option<LockGuard>, CoordinationError> {
        self.leased.acquire(Some(wait)).await
    }

    /// Whether anybody holds it.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn is_locked(&self) -> Result<bool, CoordinationError> {
        Ok(self.leased.leases().await? > 0)
    }
}

impl Semaphore {
    pub(crate) fn new(cluster: Cluster, name: String, leases: u32) -> Semaphore {
        Semaphore { leased: Leased::new(cluster, LeaseKind::Semaphore, name, leases) }
    }

    /// As [`Lock::lease`].
    pub fn lease(mut self, lease: Duration) -> Semaphore {
        self.leased.lease = lease;
        self
    }

    /// Waits for a free lease, and holds it. Dropping this before it resolves gives up the place in the line.
    ///
    /// # Errors
    /// [`Refused::LimitDiffers`](super::Refused::LimitDiffers) if it is held by those who have said another number of leases;
    /// otherwise [`CoordinationError`].
    pub async fn acquire(&self) -> Result<LockGuard, CoordinationError> {
        self.leased.acquire_for_sure().await
    }

    /// Holds a lease if there is a free one now, and nobody waits for it.
    ///
    /// # Errors
    /// As [`Semaphore::acquire`].
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, CoordinationError> {
        self.leased.acquire(Some(Duration::ZERO)).await
    }

    /// As [`Semaphore::acquire`], but waits no longer than this; `None` if that was not enough. Longer if the scheduler has to be
    /// looked for meanwhile.
    ///
    /// # Errors
    /// As [`Semaphore::acquire`].
    pub async fn acquire_timeout(&self, wait: Duration) -> Result<Option<LockGuard>, CoordinationError> {
        self.leased.acquire(Some(wait)).await
    }

    /// How many leases are held.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn held(&self) -> Result<u64, CoordinationError> {
        self.leased.leases().await
    }
}

/// A lock that is held, or one lease of a semaphore. Dropping it gives it back, in the background.
///
/// It may be lost: when the client could not be heard for the length of the lease, somebody else may have it.
/// [`LockGuard::is_held`] tells for this moment only. What must never be done by two at once is done by who checks the
/// [token](LockGuard::token): a store that refuses what comes with an older token than it has seen.
pub struct LockGuard {
    session: Arc<Session>,
    _cluster: Cluster,
    of: LeaseName,
    token: u64,
    lost: watch::Receiver<bool>,
}

impl LockGuard {
    /// The fencing token: greater than that of every grant before it of the same name, whoever held the scheduler.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether it is held at this moment, for sure: the scheduler has heard this client within the lease.
    pub fn is_held(&self) -> bool {
        !*self.lost.borrow() && self.session.holds(self.token)
    }

    /// Returns when it is lost.
    pub async fn lost(&self) {
        // The sender goes when it is given back, which needs the guard.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    /// Gives it back, and waits until others can have it. Says whether it was held until then.
    ///
    /// # Errors
    /// [`CoordinationError`]: then it ends with its lease.
    pub async fn release(self) -> Result<bool, CoordinationError> {
        if !self.session.drop_lease(self.token) {
            return Ok(false);
        }
        let release = Change::Release { of: self.of.clone(), token: self.token };
        Ok(self.session.ask(Ask::Change(release), None).await? == Outcome::Flag(true))
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.session.drop_lease(self.token) {
            self.session.say(Change::Release { of: self.of.clone(), token: self.token });
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockGuard({:?} {:?}, token {})", self.of.kind, self.of.name, self.token)
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({:?})", self.leased.of.name)
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Semaphore({:?}, {})", self.leased.of.name, self.leased.limit)
    }
}
