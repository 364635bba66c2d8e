//! [`Event`].

use std::fmt;
use std::time::Duration;

use starling_core::coordination::{Ask, Change, Outcome, Read};

use super::CoordinationError;
use crate::cluster::Cluster;

/// An event of the cluster's, which is set or not: [`Cluster::event`].
#[derive(Clone)]
pub struct Event {
    cluster: Cluster,
    name: String,
}

impl Event {
    pub(crate) fn new(cluster: Cluster, name: String) -> Event {
        Event { cluster, name }
    }

    /// Sets it: whoever waits for it goes on.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn set(&self) -> Result<(), CoordinationError> {
        let set = Ask::Change(Change::SetEvent(self.name.clone()));
        self.cluster.coordination()?.ask(set, None).await.map(drop)
    }

    /// Clears it: whoever waits for it from now on waits until it is set again.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn clear(&self) -> Result<(), CoordinationError> {
        let clear = Ask::Change(Change::ClearEvent(self.name.clone()));
        self.cluster.coordination()?.ask(clear, None).await.map(drop)
    }

    /// Whether it is set.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn is_set(&self) -> Result<bool, CoordinationError> {
        let is_set = Ask::Read(Read::IsSet(self.name.clone()));
        Ok(self.cluster.coordination()?.ask(is_set, None).await? == Outcome::Flag(true))
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn wait(&self) -> Result<(), CoordinationError> {
        while !self.wait_for(None).await? {}
        Ok(())
    }

    /// Waits until it is set, but no longer than this, unless the scheduler has to be looked for. Says whether it is.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn wait_timeout(&self, wait: Duration) -> Result<bool, CoordinationError> {
        self.wait_for(Some(wait)).await
    }

    async fn wait_for(&self, wait: Option<Duration>) -> Result<bool, CoordinationError> {
        let read = Ask::Read(Read::WaitSet(self.name.clone()));
        Ok(self.cluster.coordination()?.ask(read, wait).await? == Outcome::Done)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?})", self.name)
    }
}
