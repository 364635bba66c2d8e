//! A worker's way to the scheduler, whoever holds it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use starling_core::ids::Term;
use starling_core::wire::WorkerInfo;
use starling_runtime::inbox::Inbox;
use starling_runtime::mesh::{Link, Mesh, Multiaddr};
use starling_runtime::task::Tasks;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::desk::next_messages;
use crate::leaders::Leaders;
use crate::link::{Hello, MessageReceiver, Outbox, Refusal, Welcome};
use crate::node::{NodeError, Stopped, join_any};
use crate::worker_actor;

/// How long a scheduler is looked for at a time, when one was lost.
const LOOK_FOR: Duration = Duration::from_secs(1);
/// The pauses in between.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// How long to wait for the next try of what was begun then.
fn pause(since: Instant) -> Duration {
    since.elapsed().div_f64(4.0).clamp(AGAIN_MIN, AGAIN_MAX)
}

/// Keeps a worker registered at whoever holds the scheduler.
pub(crate) struct WorkerLoop {
    pub(crate) inbox: Inbox<worker_actor::Input>,
    pub(crate) info: WorkerInfo,
    pub(crate) mesh: Mesh,
    pub(crate) leaders: Leaders,
    pub(crate) join: Vec<Multiaddr>,
    pub(crate) registered: watch::Sender<bool>,
    /// Told when the scheduler has let the worker go.
    pub(crate) leave: Arc<Notify>,
}

/// A link on which a worker is registered, in this term.
pub(crate) struct Registered {
    link: Link,
    term: Term,
}

impl WorkerLoop {
    /// Registers at the scheduler; `None` if the mesh shows none in time.
    pub(crate) async fn register(&self, patience: Duration) -> Result<Option<Registered>, NodeError> {
        let hello = Hello::Worker { info: self.info.clone(), kinds: Tasks::linked().infos() };
        match self.leaders.open(&self.mesh, &hello, patience).await? {
            Some((link, Welcome::Worker { worker, term })) => {
                tracing::info!(
                    worker = worker.number(),
                    scheduler = %link.peer,
                    term = term.number(),
                    "registered at the scheduler"
                );
                Ok(Some(Registered { link, term }))
            }
            Some((_, Welcome::Refused(refusal))) => Err(NodeError::Refused(refusal)),
            Some((_, Welcome::Client { .. } | Welcome::Session { .. } | Welcome::Directory { .. })) => {
                Err(NodeError::Refused(Refusal::BadHello))
            }
            None => Ok(None),
        }
    }

    /// Until the scheduler lets the worker go, or refuses it.
    pub(crate) async fn run(self, first: Option<Registered>, stop: watch::Sender<Option<Stopped>>) {
        let reason = tokio::select! {
            refusal = self.stay_registered(first) => Stopped::Refused(refusal),
            () = self.leave.notified() => {
                tracing::info!("the scheduler has let this worker go");
                self.mesh.shutdown().await;
                Stopped::Retired
            }
        };
        stop.send_replace(Some(reason));
    }

    async fn stay_registered(&self, first: Option<Registered>) -> Refusal {
        if let Some(registered) = first {
            self.serve(registered).await;
        }
        loop {
            let registered = tokio::select! {
                registered = self.register_again() => registered,
                never = self.join_again() => match never {},
            };
            match registered {
                Ok(registered) => self.serve(registered).await,
                Err(refusal) => return refusal,
            }
        }
    }

    /// Registers at whoever holds the scheduler, as soon as somebody does.
    async fn register_again(&self) -> Result<Registered, Refusal> {
        let since = Instant::now();
        loop {
            match self.register(LOOK_FOR).await {
                Ok(Some(registered)) => return Ok(registered),
                Err(NodeError::Refused(refusal @ Refusal::TasksDiffer { .. })) => return Err(refusal),
                Ok(None) => tracing::warn!("the mesh shows no scheduler; looking again"),
                Err(error) => tracing::warn!(%error, "could not register; trying again"),
            }
            sleep(pause(since)).await;
        }
    }

    /// Dials the nodes that were joined first, again and again. The mesh knows what it knows: only a node that it has lost has to be
    /// dialled. A host that is gone lets a dial wait for seconds, which holds up nobody here.
    async fn join_again(&self) -> Infallible {
        let since = Instant::now();
        loop {
            sleep(pause(since)).await;
            if let Err(error) = join_any(&self.mesh, &self.join).await {
                tracing::debug!(%error, "could not join again");
            }
        }
    }

    /// Reads the scheduler's link to its end, or until another has taken over.
    async fn serve(&self, Registered { link, term }: Registered) {
        use worker_actor::Input;
        let outbox = Outbox::new();
        outbox.start(link.tx, term);
        self.inbox.extend_when_free([Input::Registered { outbox: outbox.clone() }]).await;
        self.registered.send_replace(true);
        let mut messages = MessageReceiver::new(link.rx, term);
        let reading = async {
            while let Some(messages) = next_messages(&mut messages, link.peer).await {
                self.inbox.extend_when_free([Input::FromScheduler(messages)]).await;
            }
        };
        tokio::select! {
            () = reading => tracing::warn!("the link to the scheduler is closed"),
            () = self.leaders.later_than(term) => tracing::warn!("another scheduler has taken over"),
        }
        outbox.close();
        self.registered.send_replace(false);
        self.inbox.push(Input::SchedulerLost);
    }
}
