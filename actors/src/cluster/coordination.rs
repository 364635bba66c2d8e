//! What the programs and tasks of a cluster coordinate with: see [`coordination`](crate::coordination).

use std::sync::Arc;

use serde::Serialize;
use starling_runtime::value::Data;

use super::Cluster;
use crate::coordination::{
    self, Barrier, CoordinationError, Event, Lock, LoggedEvent, Metadata, Queue, Semaphore, Session, Sessions,
    Subscription, Variable,
};

impl Cluster {
    /// The client's session at the coordinator.
    pub(crate) fn coordination(&self) -> Result<Arc<Session>, CoordinationError> {
        self.client.slots().get_or_init(Sessions::default).current(|| self.client.way())
    }

    /// The lock of this name, which one holder in the whole cluster has at a time, be it a client or a task. Who dies loses it
    /// when the lease is over, 30 s unless [`Lock::lease`] says otherwise.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_actors::coordination::CoordinationError;
    /// # async fn run(cluster: Cluster) -> Result<(), CoordinationError> {
    /// let guard = cluster.lock("index").acquire().await?;
    /// println!("writing with token {}", guard.token());
    /// guard.release().await?; // or drop it
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock(&self, name: impl Into<String>) -> Lock {
        Lock::new(self.clone(), name.into())
    }

    /// The semaphore of this name, which so many holders in the whole cluster have at a time. All who use it at the same time
    /// must say the same number.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_actors::coordination::CoordinationError;
    /// # async fn run(cluster: Cluster) -> Result<(), CoordinationError> {
    /// let connections = cluster.semaphore("database", 4);
    /// let connection = connections.acquire().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn semaphore(&self, name: impl Into<String>, leases: u32) -> Semaphore {
        Semaphore::new(self.clone(), name.into(), leases)
    }

    /// The event of this name.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_actors::coordination::CoordinationError;
    /// # async fn run(cluster: Cluster) -> Result<(), CoordinationError> {
    /// cluster.event("loaded").wait().await?; // until somebody has said cluster.event("loaded").set().await?
    /// # Ok(())
    /// # }
    /// ```
    pub fn event(&self, name: impl Into<String>) -> Event {
        Event::new(self.clone(), name.into())
    }

    /// The queue of this name. Who puts waits while it has `maxsize` values; 0 is no limit but that of all queues together,
    /// 64 MiB.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_actors::coordination::CoordinationError;
    /// # async fn run(cluster: Cluster) -> Result<(), CoordinationError> {
    /// let found = cluster.queue::<String>("found", 100);
    /// found.put(&"a.csv".to_owned()).await?;
    /// assert_eq!(found.get().await?, "a.csv");
    /// # Ok(())
    /// # }
    /// ```
    pub fn queue<T: Data>(&self, name: impl Into<String>, maxsize: u64) -> Queue<T> {
        Queue::new(self.clone(), name.into(), maxsize)
    }

    /// The variable of this name.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_actors::coordination::CoordinationError;
    /// # async fn run(cluster: Cluster) -> Result<(), CoordinationError> {
    /// let rate = cluster.variable::<f64>("rate");
    /// rate.set(&0.5).await?;
    /// assert_eq!(rate.get().await?, 0.5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn variable<T: Data>(&self, name: impl Into<String>) -> Variable<T> {
        Variable::new(self.clone(), name.into())
    }

    /// The barrier of this name, at which so many parties wait for each other.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_actors::coordination::CoordinationError;
    /// # async fn run(cluster: Cluster) -> Result<(), CoordinationError> {
    /// let passed = cluster.barrier("epoch", 3).wait().await?;
    /// if passed.index == 0 {
    ///     println!("one of the three says so");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn barrier(&self, name: impl Into<String>, parties: u32) -> Barrier {
        Barrier::new(self.clone(), name.into(), parties)
    }

    /// The cluster's metadata, a tree of JSON.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_actors::coordination::CoordinationError;
    /// # async fn run(cluster: Cluster) -> Result<(), CoordinationError> {
    /// cluster.metadata().set("run.rate", &0.5).await?;
    /// assert_eq!(cluster.metadata().get::<f64>(["run", "rate"]).await?, Some(0.5));
    /// # Ok(())
    /// # }
    /// ```
    pub fn metadata(&self) -> Metadata {
        Metadata::new(self.clone())
    }

    /// Adds an event to a topic, which is made if there is none of this name; gives the event's number. A topic keeps its last
    /// thousand events, and at most 1 MiB of them. There are at most 256 topics, which are never forgotten.
    ///
    /// # Errors
    /// [`CoordinationError::Json`] for what JSON cannot say, [`Refused::TooLarge`](coordination::Refused::TooLarge) for more than 64 KiB
    /// of it; otherwise [`CoordinationError`].
    pub async fn log_event(
        &self,
        topic: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<u64, CoordinationError> {
        coordination::log_event(self, topic.into(), value).await
    }

    /// The events that a topic has, in their order; none for a topic that nobody has logged to.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn events(&self, topic: impl Into<String>) -> Result<Vec<LoggedEvent>, CoordinationError> {
        coordination::events(self, topic.into()).await
    }

    /// The topics that somebody has logged to.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn topics(&self) -> Result<Vec<String>, CoordinationError> {
        coordination::topics(self).await
    }

    /// The events of a topic that are logged from now on.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_actors::coordination::CoordinationError;
    /// # async fn run(cluster: Cluster) -> Result<(), CoordinationError> {
    /// let mut steps = cluster.subscribe("steps").await?;
    /// cluster.log_event("steps", &"loaded").await?;
    /// assert_eq!(steps.next().await?.value, "loaded");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<Subscription, CoordinationError> {
        coordination::subscribe(self, topic.into(), None).await
    }

    /// The events of a topic after the one of this number; 0 for all that it has.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn subscribe_after(
        &self,
        topic: impl Into<String>,
        number: u64,
    ) -> Result<Subscription, CoordinationError> {
        coordination::subscribe(self, topic.into(), Some(number)).await
    }
}
