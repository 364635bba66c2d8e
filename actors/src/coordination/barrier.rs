//! [`Barrier`].

use std::fmt;
use std::time::Duration;

use starling_core::coordination::{Ask, Outcome};

use super::CoordinationError;
use crate::cluster::Cluster;

/// A barrier of the cluster's, at which so many parties wait for each other, again and again: [`Cluster::barrier`].
#[derive(Clone)]
pub struct Barrier {
    cluster: Cluster,
    name: String,
    parties: u32,
}

/// All parties were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which meeting it was: the same for all parties, and greater for later ones at the same barrier.
    pub generation: u64,
    /// Which of the parties this one was, from 0. One of them is 0.
    pub index: u32,
}

impl Barrier {
    pub(crate) fn new(cluster: Cluster, name: String, parties: u32) -> Barrier {
        Barrier { cluster, name, parties }
    }

    /// Waits until all parties wait here. Dropping this before it resolves takes this one back.
    ///
    /// # Errors
    /// [`Refused::PartiesDiffer`](super::Refused::PartiesDiffer) if others wait for another number of parties; otherwise
    /// [`CoordinationError`].
    pub async fn wait(&self) -> Result<Passed, CoordinationError> {
        loop {
            if let Some(passed) = self.wait_for(None).await? {
                return Ok(passed);
            }
        }
    }

    /// As [`Barrier::wait`], but waits no longer than this, unless the scheduler has to be looked for: then this one is taken back.
    ///
    /// # Errors
    /// As [`Barrier::wait`].
    pub async fn wait_timeout(&self, wait: Duration) -> Result<Option<Passed>, CoordinationError> {
        self.wait_for(Some(wait)).await
    }

    async fn wait_for(&self, wait: Option<Duration>) -> Result<Option<Passed>, CoordinationError> {
        let arrive = Ask::Arrive { barrier: self.name.clone(), parties: self.parties };
        match self.cluster.coordination()?.ask(arrive, wait).await? {
            Outcome::Passed { generation, index } => Ok(Some(Passed { generation, index })),
            _ => Ok(None),
        }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Barrier({:?}, {})", self.name, self.parties)
    }
}
