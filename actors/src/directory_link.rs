//! A node's or client's way to the directory, whoever leads.
//!
//! A node says anew at each link which names its actors hold, and does what it is told. While it has no link for longer than
//! [`GRACE`], its actors answer nobody under their names, since others may hold them by now. A client opens a link only when it
//! asks something.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use starling_core::directory::{Answer, Ask, FromNode, NodeInfo, ToNode};
use starling_core::ids::Term;
use starling_remote::{Actors, Directory};
use starling_runtime::mesh::{Link, Mesh, Role};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::desk::next_messages;
use crate::leaders::Leaders;
use crate::link::{Hello, MessageReceiver, Outbox, Welcome};
use crate::spawning::Spawner;

/// For how long a node's actors answer under their names without a link. Less than the directory's grace.
const GRACE: Duration = Duration::from_secs(4);
/// How long whoever leads is looked for at a time.
const LOOK_FOR: Duration = Duration::from_secs(1);
/// The pauses in between.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long an answer is waited for, over as many links as it takes: to who holds a name, to others, and to what the ledger has to
/// be told.
const FIND_TIMEOUT: Duration = Duration::from_secs(3);
const ASK_TIMEOUT: Duration = Duration::from_secs(15);
const SPAWN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node that starts waits for the directory.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// How many names are said in one message.
const NAMES_TOGETHER: usize = 500;
/// How many reports wait for a link. What is not reported is found out by what is held.
const REPORTS_MAX: usize = 4_096;

/// The way there. Clones are the same.
#[derive(Clone)]
pub(crate) struct DirectoryLink {
    shared: Arc<Shared>,
}

struct Shared {
    mesh: Mesh,
    leaders: Leaders,
    info: NodeInfo,
    /// What makes actors here, on a node where that may be. The node keeps it.
    spawner: Weak<Spawner>,
    /// Where the link is served.
    runtime: Handle,
    is_started: AtomicBool,
    /// Whether there has been a link.
    was_linked: AtomicBool,
    line: watch::Sender<Option<Outbox<FromNode>>>,
    /// Whether the directory has heard what this node holds.
    is_confirmed: watch::Sender<bool>,
    /// What could not be reported yet. Locked while something is said, so that what is held and what has ended are said in order.
    reports: Mutex<Vec<FromNode>>,
    asks: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next_ask: AtomicU64,
}

impl DirectoryLink {
    /// On the current tokio runtime.
    pub(crate) fn new(mesh: &Mesh, leaders: &Leaders, info: NodeInfo, spawner: Weak<Spawner>) -> DirectoryLink {
        DirectoryLink {
            shared: Arc::new(Shared {
                mesh: mesh.clone(),
                leaders: leaders.clone(),
                info,
                spawner,
                runtime: Handle::current(),
                is_started: AtomicBool::new(false),
                was_linked: AtomicBool::new(false),
                line: watch::Sender::new(None),
                is_confirmed: watch::Sender::new(false),
                reports: Mutex::default(),
                asks: Mutex::default(),
                next_ask: AtomicU64::new(0),
            }),
        }
    }

    /// Keeps a link from now on, until the mesh ends.
    pub(crate) fn start(&self, actors: &Actors) {
        if !self.shared.is_started.swap(true, Ordering::AcqRel) {
            self.shared.runtime.spawn(self.clone().keep(actors.clone()));
        }
    }

    /// Waits until the directory knows this node for the first time, if somebody may lead, and not for long.
    pub(crate) async fn known(&self) {
        let mut is_confirmed = self.shared.is_confirmed.subscribe();
        if self.is_there() {
            // Without it the node is known a little later.
            let _ = timeout(KNOWN_TIMEOUT, is_confirmed.wait_for(|is_confirmed| *is_confirmed)).await;
        }
    }

    /// Tells the directory what has become of an actor that was spawned here, now or with the next link.
    pub(crate) fn report(&self, report: FromNode) {
        let mut reports = self.shared.reports();
        if let Some(outbox) = &*self.shared.line.borrow() {
            // A link that is closed is followed by another one, with what is held then.
            let _ = outbox.send([report]);
        } else if reports.len() < REPORTS_MAX {
            reports.push(report);
        }
    }

    async fn keep(self, actors: Actors) {
        let shared = &*self.shared;
        let mut suspend_at = None;
        while !shared.mesh.is_closed() {
            if suspend_at.is_none_or(|at| at <= Instant::now()) && shared.leaders.have_left(&shared.mesh) {
                suspend_at = None;
                actors.suspend(false);
            }
            let opened = tokio::select! {
                opened = shared.open() => opened,
                () = sleep_until(suspend_at.unwrap_or_else(Instant::now)), if suspend_at.is_some() => {
                    suspend_at = None;
                    if !shared.leaders.have_left(&shared.mesh) {
                        tracing::warn!("nobody leads, as far as this node can reach: its actors do not answer under their names");
                        actors.suspend(true);
                    }
                    continue;
                }
            };
            match opened {
                Some((link, term)) => {
                    self.serve(link, term, &actors).await;
                    suspend_at = Some(Instant::now() + GRACE);
                }
                None => sleep(AGAIN_AFTER).await,
            }
        }
    }

    /// Both directions of a link to its end.
    async fn serve(&self, link: Link, term: Term, actors: &Actors) {
        let shared = &*self.shared;
        let outbox = Outbox::new();
        outbox.start(link.tx, term);
        shared.was_linked.store(true, Ordering::Release);
        {
            let mut reports = shared.reports();
            let names = actors.held_names();
            let mut chunks: Vec<_> = names.chunks(NAMES_TOGETHER).map(<[_]>::to_vec).collect();
            let last = chunks.pop().unwrap_or_default();
            let introduce = FromNode::Introduce(shared.info.clone());
            let names = chunks.into_iter().map(|names| FromNode::Names { names, is_last: false });
            let all = std::iter::once(introduce).chain(names).chain([FromNode::Names { names: last, is_last: true }]);
            // A link that is closed is followed by another one.
            let _ = outbox.send(all.chain(reports.drain(..)));
            shared.line.send_replace(Some(outbox.clone()));
        }
        let mut messages = MessageReceiver::new(link.rx, term);
        let reading = async {
            while let Some(messages) = next_messages(&mut messages, link.peer).await {
                messages.into_iter().for_each(|message| self.take(message, actors));
            }
        };
        tokio::select! {
            () = reading => tracing::debug!("the link to the directory is closed"),
            () = shared.leaders.later_than(term) => tracing::debug!("another node leads"),
        }
        {
            let _reports = shared.reports();
            shared.line.send_replace(None);
        }
        outbox.close();
        // Whoever waits asks again.
        shared.asks().clear();
    }

    fn take(&self, message: ToNode, actors: &Actors) {
        match message {
            ToNode::Answer { ask, answer } => {
                if let Some(waiting) = self.shared.asks().remove(&ask) {
                    // Who has asked may have given up.
                    let _ = waiting.send(answer);
                }
            }
            ToNode::Confirmed => {
                actors.suspend(false);
                self.shared.is_confirmed.send_replace(true);
            }
            ToNode::Start { spec, incarnation } => match self.shared.spawner.upgrade() {
                Some(spawner) => spawner.start(actors, self, spec, incarnation),
                None => {
                    let outcome = Err("this node hosts no actors".to_owned());
                    self.report(FromNode::Started { name: spec.name.clone(), incarnation, outcome });
                }
            },
            ToNode::Stop { name, actor, is_over } => {
                let spawner = self.shared.spawner.upgrade();
                let was_spawned = spawner.is_some_and(|spawner| spawner.stop(&name, actor, is_over));
                if !was_spawned {
                    tracing::warn!(name, "another actor holds the name: the one of this node is hosted no longer");
                }
                actors.let_go(actor);
            }
        }
    }
}

impl Directory for DirectoryLink {
    fn is_there(&self) -> bool {
        let Shared { mesh, leaders, was_linked, .. } = &*self.shared;
        let may_lead = |role: Role| matches!(role, Role::Scheduler | Role::Auto);
        // A node that is cut off sees no others.
        mesh.members().iter().any(|member| may_lead(member.info.role))
            || was_linked.load(Ordering::Acquire) && !leaders.have_left(mesh)
    }

    fn ask(&self, actors: &Actors, question: Ask) -> BoxFuture<'static, Result<Answer, String>> {
        self.start(actors);
        let shared = self.shared.clone();
        let patience = match question {
            Ask::Find(_) => FIND_TIMEOUT,
            Ask::Spawn(_) => SPAWN_TIMEOUT,
            Ask::Claim { .. } | Ask::Stop(_) | Ask::List => ASK_TIMEOUT,
        };
        Box::pin(async move {
            let deadline = Instant::now() + patience;
            let asking = async {
                loop {
                    if let Some(answer) = shared.ask_once(&question).await {
                        return answer;
                    }
                }
            };
            let answer = timeout_at(deadline, asking).await;
            answer.map_err(|_| format!("whoever leads the cluster has not answered within {patience:?}"))
        })
    }

    fn release(&self, name: String, actor: u64) {
        let _reports = self.shared.reports();
        if let Some(outbox) = &*self.shared.line.borrow() {
            // With the next link it is not among what is held.
            let _ = outbox.send([FromNode::Released { name, actor }]);
        }
    }
}

impl Shared {
    fn reports(&self) -> MutexGuard<'_, Vec<FromNode>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asks(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link to whoever leads, if one is found soon.
    async fn open(&self) -> Option<(Link, Term)> {
        match self.leaders.open(&self.mesh, &Hello::Directory, LOOK_FOR).await {
            Ok(Some((link, Welcome::Directory { term }))) => Some((link, term)),
            Ok(Some((link, welcome))) => {
                tracing::debug!(node = %link.peer, ?welcome, "no link to the directory");
                None
            }
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%error, "no link to the directory");
                None
            }
        }
    }

    /// Asks over the link that there is, or over the next one; `None` if that is lost before the answer comes.
    async fn ask_once(&self, question: &Ask) -> Option<Answer> {
        let mut line = self.line.subscribe();
        // The sender is here.
        let outbox = line.wait_for(Option::is_some).await.ok()?.clone()?;
        let ask = self.next_ask.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let forget = ForgetAsk { shared: self, ask };
        self.asks().insert(ask, answer);
        if outbox.send([FromNode::Ask { ask, question: question.clone() }]).is_err() {
            sleep(AGAIN_AFTER).await;
            return None;
        }
        // If the link ended just before the question was noted down, nobody forgets it.
        let is_over = async {
            let _ = line.wait_for(Option::is_none).await;
        };
        let answered = tokio::select! {
            biased;
            answered = answered => answered.ok(),
            () = is_over => None,
        };
        drop(forget);
        answered
    }
}

/// A question that is not waited for any more.
struct ForgetAsk<'a> {
    shared: &'a Shared,
    ask: u64,
}

impl Drop for ForgetAsk<'_> {
    fn drop(&mut self) {
        self.shared.asks().remove(&self.ask);
    }
}
