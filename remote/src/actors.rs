//! A node's part in remote actors: what it hosts, and its ways to others.

use std::any::{Any, type_name};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, Addr, Context};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use starling_core::directory::{Answer, Ask, Holder};
use starling_core::ids::NodeId;
use starling_runtime::executor::current_task;
use starling_runtime::mesh::{Link, Mesh, Role};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::addr::RemoteAddr;
use crate::error::{RegisterError, RemoteError};
use crate::group::Group;
use crate::hosted::{Hosted, Table, Taken};
use crate::peer::{Lost, Peer, Target};
use crate::serve;
use crate::spawned::Snapshots;
use crate::wire::{ActorId, Held, MEMBERS_MAX, NAME_BYTES_MAX, ToHost};

/// How long a node may take to answer a question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the actors that others may send to are looked after: actix tells nobody when one ends.
const SWEEP: Duration = Duration::from_millis(100);
/// How many nodes are asked at once.
const ASKED_AT_ONCE: usize = 32;

/// Remote actors, as one node or client sees them. Clones stand for the same.
#[derive(Clone)]
pub struct Actors {
    shared: Arc<Shared>,
}

struct Shared {
    mesh: Mesh,
    /// What opens a link to actors.
    hello: Bytes,
    runtime: Handle,
    table: Table,
    snapshots: Snapshots,
    peers: Mutex<HashMap<NodeId, Weak<Peer>>>,
    directory: OnceLock<Arc<dyn Directory>>,
}

/// What a cluster with a scheduler adds: one place that knows names.
pub trait Directory: Send + Sync + 'static {
    /// Whether the mesh has nodes that may lead. Without them names are looked up by asking every node.
    fn is_there(&self) -> bool;

    /// Asks whoever leads. `Err` if nobody does for a while, or the answer does not come: then it may have been heard.
    fn ask(&self, actors: &Actors, question: Ask) -> BoxFuture<'static, Result<Answer, String>>;

    /// An actor of this node holds its name no longer.
    fn release(&self, name: String, actor: u64);
}

/// What tasks that run on a node find: its remote actors, and what else its owner wants them to find.
pub struct TaskHost {
    /// Remote actors, as the node sees them.
    pub actors: Actors,
    /// The owner's own.
    pub owner: Arc<dyn Any + Send + Sync>,
}

thread_local! {
    /// Whose message is being decoded on this thread.
    static SCOPE: RefCell<Option<Actors>> = const { RefCell::new(None) };
}

/// Runs `decode` so that addresses inside of what it decodes belong to these actors.
pub(crate) fn scope<R>(actors: &Actors, decode: impl FnOnce() -> R) -> R {
    let before = SCOPE.replace(Some(actors.clone()));
    let decoded = decode();
    SCOPE.set(before);
    decoded
}

impl Actors {
    /// On the current tokio runtime. `hello` is what a link is opened with that [`Actors::serve`] is to be given.
    pub fn new(mesh: Mesh, hello: Bytes) -> Actors {
        let shared = Shared {
            mesh,
            hello,
            runtime: Handle::current(),
            table: Table::default(),
            snapshots: Snapshots::default(),
            peers: Mutex::default(),
            directory: OnceLock::new(),
        };
        Actors { shared: Arc::new(shared) }
    }

    /// Has names be looked up and claimed there. Only the first call counts.
    pub fn set_directory(&self, directory: Arc<dyn Directory>) {
        // Only the first counts.
        let _ = self.shared.directory.set(directory);
    }

    /// Those of the message that is being decoded, or of the task that runs on this thread.
    pub(crate) fn current() -> Option<Actors> {
        if let Some(actors) = SCOPE.with_borrow(Option::clone) {
            return Some(actors);
        }
        let host = current_task()?.extension?.downcast::<TaskHost>().ok()?;
        Some(host.actors.clone())
    }

    /// Decodes what has addresses inside of it that are to belong to these actors.
    ///
    /// # Errors
    /// It is no such value.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, postcard::Error> {
        scope(self, || postcard::from_bytes(bytes))
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.shared.mesh.node()
    }

    /// Serves a link that another node has opened with the hello, to its end.
    pub async fn serve(&self, link: Link) {
        serve::serve(link, self.clone()).await;
    }

    /// Looks after the hosted actors until the mesh ends.
    pub async fn look_after(&self) {
        while !self.shared.mesh.is_closed() {
            tokio::time::sleep(SWEEP).await;
            self.release(self.shared.table.sweep());
        }
        self.close();
    }

    fn release(&self, released: impl IntoIterator<Item = (String, ActorId)>) {
        let Some(directory) = self.shared.directory.get() else { return };
        released.into_iter().for_each(|(name, actor)| directory.release(name, actor));
    }

    /// Hosts nothing any more, and lets the actors go.
    pub fn close(&self) {
        self.shared.table.clear();
        self.peers().clear();
    }

    /// Has `addr` hold a name in the whole cluster, until it is [taken back](Actors::unregister), the actor ends or the node
    /// leaves. The node keeps the actor alive as long as it is registered.
    ///
    /// # Errors
    /// [`RegisterError::NameTaken`] if an actor holds the name; the name or actor cannot be registered; nobody could say whether the
    /// name is free.
    pub async fn register<A: Actor<Context = Context<A>>>(
        &self,
        name: impl Into<String>,
        addr: Addr<A>,
    ) -> Result<RemoteAddr<A>, RegisterError> {
        let name = name.into();
        let hosted = match self.shared.table.name(&name, addr, None)? {
            Ok(hosted) => hosted,
            Err(Taken) => return Err(RegisterError::NameTaken { name, node: self.node() }),
        };
        if let Err(error) = self.claim(&name, &hosted).await {
            self.shared.table.remove(hosted.id);
            return Err(error);
        }
        Ok(RemoteAddr::local(self, Some(name), &hosted))
    }

    /// The directory, if the mesh has nodes that may lead.
    fn directory(&self) -> Option<&Arc<dyn Directory>> {
        self.shared.directory.get().filter(|directory| directory.is_there())
    }

    /// Asks whoever leads.
    ///
    /// # Errors
    /// Why there is no answer. The question may have been heard.
    pub async fn ask_directory(&self, question: Ask) -> Result<Answer, String> {
        match self.directory() {
            Some(directory) => directory.ask(self, question).await,
            None => Err("the mesh has no scheduler: start one with `node --role scheduler`".to_owned()),
        }
    }

    async fn claim(&self, name: &str, hosted: &Hosted) -> Result<(), RegisterError> {
        let taken_by = |node| Err(RegisterError::NameTaken { name: name.to_owned(), node });
        let not_known = |problem| Err(RegisterError::NotKnown { name: name.to_owned(), problem });
        if let Some(directory) = self.directory() {
            let (actor, type_name) = (hosted.id, hosted.type_name.to_owned());
            let claim = Ask::Claim { name: name.to_owned(), actor, type_name };
            return match directory.ask(self, claim).await {
                Ok(Answer::Done) => Ok(()),
                Ok(Answer::Taken(node)) => taken_by(node),
                Ok(Answer::Problem(problem)) | Err(problem) => not_known(problem),
                Ok(other) => not_known(format!("the scheduler's node answers {other:?}")),
            };
        }
        match self.ask_for(name).await {
            Ok(holder) => taken_by(holder.node),
            // A node that does not answer holds nothing that could be reached.
            Err(_) => Ok(()),
        }
    }

    /// Has the actor that holds this name on this node hold it no longer. Says whether one did.
    pub fn unregister(&self, name: &str) -> bool {
        let Some(hosted) = self.shared.table.named(name) else { return false };
        self.shared.table.remove(hosted.id);
        self.release([(name.to_owned(), hosted.id)]);
        true
    }

    /// Has `addr` be a member of a group, of which there may be many, on all nodes, until it ends or its node leaves.
    ///
    /// # Errors
    /// The name or actor cannot be registered.
    pub fn join_group<A: Actor<Context = Context<A>>>(
        &self,
        group: impl Into<String>,
        addr: Addr<A>,
    ) -> Result<RemoteAddr<A>, RegisterError> {
        let hosted = self.shared.table.join(&group.into(), addr)?;
        Ok(RemoteAddr::local(self, None, &hosted))
    }

    /// The group of actors of type `A` under this name. It need not have members.
    pub fn group<A: Actor>(&self, name: impl Into<String>) -> Group<A> {
        Group::new(self.clone(), name.into())
    }

    /// The address of the actor that holds a name.
    ///
    /// # Errors
    /// [`RemoteError::NotHeld`] if nobody does; [`RemoteError::WrongActor`] if the holder is of another type.
    pub async fn lookup<A: Actor>(&self, name: impl Into<String>) -> Result<RemoteAddr<A>, RemoteError> {
        let name = name.into();
        let holder = self.find(&name).await?;
        let wanted = type_name::<A>();
        if holder.type_name != wanted {
            return Err(RemoteError::WrongActor { name, held: holder.type_name, wanted: wanted.to_owned() });
        }
        Ok(self.address(name, &holder))
    }

    /// The address of the holder of a name.
    pub fn address<A: Actor>(&self, name: String, holder: &Holder) -> RemoteAddr<A> {
        RemoteAddr::new(self, Some(name), holder.node, holder.actor)
    }

    /// Who holds a name.
    pub(crate) async fn find(&self, name: &str) -> Result<Holder, RemoteError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(RemoteError::NotHeld {
                name: name.to_owned(),
                problem: Some("a name has 1 to 256 bytes".into()),
            });
        }
        if let Some(hosted) = self.shared.table.named(name) {
            return Ok(self.holder(hosted.held(), self.node()));
        }
        let Some(directory) = self.directory() else { return self.ask_for(name).await };
        match directory.ask(self, Ask::Find(name.to_owned())).await {
            Ok(Answer::Held(Some(holder))) => Ok(holder),
            Ok(Answer::Held(None)) => Err(RemoteError::NotHeld { name: name.to_owned(), problem: None }),
            Ok(Answer::GivenUp(problem)) => Err(RemoteError::GivenUp { name: name.to_owned(), problem }),
            // While nobody leads, those who hold names are still there.
            answer => {
                tracing::debug!(name, ?answer, "the nodes are asked, since whoever leads does not say");
                self.ask_for(name).await
            }
        }
    }

    fn holder(&self, held: Held, node: NodeId) -> Holder {
        Holder { node, actor: held.actor, type_name: held.type_name }
    }

    /// Asks the nodes who holds a name. The first that says that it does is believed.
    async fn ask_for(&self, name: &str) -> Result<Holder, RemoteError> {
        let ask = |node| self.question::<Option<Held>>(node, move |ask| ToHost::WhoIs { ask, name });
        let mut problem = None;
        let mut asked = futures::stream::iter(self.others()).map(ask).buffer_unordered(ASKED_AT_ONCE);
        while let Some((node, answer)) = asked.next().await {
            match answer {
                Ok(Some(held)) => return Ok(self.holder(held, node)),
                Ok(None) => {}
                Err(error) => problem = Some(format!("node {node} could not be asked: {error}")),
            }
        }
        Err(RemoteError::NotHeld { name: name.to_owned(), problem })
    }

    /// The members of a group that are there now, with their nodes, those of this node first.
    pub(crate) async fn members(&self, group: &str) -> Vec<Holder> {
        let here = self.shared.table.group(group).into_iter().map(|hosted| self.holder(hosted.held(), self.node()));
        let mut members: Vec<Holder> = here.collect();
        let ask = |node| self.question::<Vec<Held>>(node, move |ask| ToHost::Group { ask, name: group });
        let mut asked = futures::stream::iter(self.others()).map(ask).buffer_unordered(ASKED_AT_ONCE);
        while let Some((node, answer)) = asked.next().await {
            match answer {
                Ok(held) => members.extend(held.into_iter().take(MEMBERS_MAX).map(|held| self.holder(held, node))),
                Err(error) => tracing::debug!(%node, %error, "a node could not be asked for members of a group"),
            }
        }
        members.sort_by_key(|member| (member.node != self.node(), member.node, member.actor));
        members
    }

    /// Asks a node something.
    pub(crate) async fn question<'a, T: DeserializeOwned>(
        &self,
        node: NodeId,
        item: impl FnOnce(u32) -> ToHost<'a>,
    ) -> (NodeId, Result<T, String>) {
        // Held until the answer is there, as the link is.
        let peer = self.peer(node);
        let asked = peer.question(item);
        let answered = async {
            let Ok(answer) = asked.map_err(|Lost(reason)| reason.to_string())?.await else {
                return Err(peer
                    .lost()
                    .map_or_else(|| "it does not answer".to_owned(), |Lost(reason)| reason.to_string()));
            };
            let payload = answer.map_err(|why| format!("it says {why:?}"))?;
            postcard::from_bytes(&payload).map_err(|error| format!("its answer cannot be understood: {error}"))
        };
        let answer = timeout(QUESTION_TIMEOUT, answered).await;
        (node, answer.unwrap_or_else(|_| Err("it does not answer".to_owned())))
    }

    /// The other nodes that may host actors.
    pub(crate) fn others(&self) -> Vec<NodeId> {
        let members = self.shared.mesh.members();
        let others = members.iter().filter(|member| member.info.role != Role::Client && member.node != self.node());
        others.map(|member| member.node).collect()
    }

    pub(crate) fn hosted(&self, actor: ActorId) -> Option<Arc<Hosted>> {
        self.shared.table.get(actor)
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<Hosted>> {
        self.shared.table.named(name)
    }

    pub(crate) fn group_here(&self, group: &str) -> Vec<Arc<Hosted>> {
        self.shared.table.group(group)
    }

    pub(crate) fn table(&self) -> &Table {
        &self.shared.table
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.shared.snapshots
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<NodeId, Weak<Peer>>> {
        self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn peer(&self, node: NodeId) -> Arc<Peer> {
        let mut peers = self.peers();
        if let Some(peer) = peers.get(&node).and_then(Weak::upgrade).filter(|peer| peer.is_usable()) {
            return peer;
        }
        peers.retain(|_, peer| peer.strong_count() > 0);
        let _entered = self.shared.runtime.enter();
        let peer = Peer::open(self.shared.mesh.clone(), node, self.shared.hello.clone());
        peers.insert(node, Arc::downgrade(&peer));
        peer
    }

    pub(crate) fn target(&self, node: NodeId, actor: ActorId) -> Result<Arc<Target>, Lost> {
        self.peer(node).target(actor)
    }

    /// Whether the mesh counts the node among the living.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.shared.mesh.members().iter().any(|member| member.node == node)
    }
}
