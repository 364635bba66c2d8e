//! Which node holds the scheduler, as far as this one has heard.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use starling_core::ids::{NodeId, Term};
use starling_runtime::mesh::{DownReason, Link, Member, Mesh, MeshError, Role};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::link::{Hello, Refusal, Welcome, encode_one};

/// How long a peer may take to answer a hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one that may be gone is tried before the others are asked.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node may take to answer before the next one is asked as well.
const NEXT_AFTER: Duration = Duration::from_millis(250);
/// How long it takes until everybody is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What is known of who leads. Clones stand for the same knowledge.
#[derive(Clone, Debug)]
pub(crate) struct Leaders {
    known: Arc<watch::Sender<Option<(Term, NodeId)>>>,
    /// Of those that might lead, who has taken leave.
    left: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl Leaders {
    pub(crate) fn new() -> Leaders {
        Leaders { known: Arc::new(watch::Sender::new(None)), left: Arc::default() }
    }

    pub(crate) fn is_up(&self, member: &Member) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&member.node);
    }

    pub(crate) fn is_down(&self, node: NodeId, reason: DownReason) {
        let is_leader = self.known().is_some_and(|(_, leader)| leader == node);
        if reason == DownReason::Left && is_leader {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
        }
    }

    /// Whether the one that led has taken leave, and nobody is there who could lead in its place.
    pub(crate) fn have_left(&self, mesh: &Mesh) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let has_left = self.known().is_some_and(|(_, leader)| left.contains(&leader));
        has_left && !mesh.members().iter().any(|member| may_lead(member) && !left.contains(&member.node))
    }

    /// A node leads, or has led, in this term. What is older than what is known is no news.
    pub(crate) fn hear(&self, term: Term, node: NodeId) {
        self.known.send_if_modified(|known| {
            let is_news = known.is_none_or(|(known, _)| known < term);
            if is_news {
                *known = Some((term, node));
            }
            is_news
        });
    }

    /// A member says that it leads. Only one that may lead is believed.
    pub(crate) fn hear_from(&self, mesh: &Mesh, term: Term, node: NodeId) {
        if member_may_lead(mesh, node) {
            self.hear(term, node);
        } else {
            tracing::warn!(%node, "a node that cannot lead says that it does");
        }
    }

    /// The latest that is known.
    pub(crate) fn known(&self) -> Option<(Term, NodeId)> {
        *self.known.borrow()
    }

    /// Whether this term is not over, as far as is known.
    pub(crate) fn is_current(&self, term: Term) -> bool {
        self.known().is_none_or(|(known, _)| known <= term)
    }

    /// Returns once a later term is known.
    pub(crate) async fn later_than(&self, term: Term) {
        let mut known = self.known.subscribe();
        // The sender is here.
        let _ = known.wait_for(|known| known.is_some_and(|(known, _)| known > term)).await;
    }

    /// Opens a link to the scheduler and gives its answer and its term; `None` if none is found in time.
    ///
    /// A node that does not answer at once, as one does not that is cut off, is still waited for while the others are asked, and
    /// asked again.
    ///
    /// # Errors
    /// What stood in the way at the last node that was tried; a refusal other than that the node does not hold the scheduler is an answer.
    pub(crate) async fn open(
        &self,
        mesh: &Mesh,
        hello: &Hello,
        patience: Duration,
    ) -> Result<Option<(Link, Welcome)>, MeshError> {
        let deadline = Instant::now() + patience;
        let limit = TRY_TIMEOUT.max(patience.min(HELLO_TIMEOUT));
        // As long as one may still answer that was asked first, it may be another one that holds the scheduler by now.
        let last_round = Instant::now() + patience.max(limit);
        let mut failure = None;
        let mut asking = FuturesUnordered::new();
        // In this round, or still.
        let mut asked = Vec::new();
        let mut waiting = BTreeSet::new();
        loop {
            let next = self.next_to_ask(mesh, &asked);
            let pause = if next.is_some() { NEXT_AFTER } else { AGAIN_AFTER };
            match next {
                Some(node) => {
                    asked.push(node);
                    waiting.insert(node);
                    asking.push(async move { (node, timeout(limit, ask(mesh, node, hello)).await) });
                }
                None if asking.is_empty() && Instant::now() >= deadline => return failure.map_or(Ok(None), Err),
                None => {}
            }
            let answered = timeout(pause, async {
                match asking.next().await {
                    Some(answered) => answered,
                    None => std::future::pending().await,
                }
            });
            let Ok((node, answer)) = answered.await else {
                if next.is_none() && Instant::now() < last_round {
                    asked = waiting.iter().copied().collect();
                }
                continue;
            };
            waiting.remove(&node);
            match answer {
                Ok(Ok((_, Welcome::Refused(Refusal::NotScheduler { leader })))) => {
                    if let Some((term, leader)) = leader {
                        self.hear(term, leader);
                    }
                }
                Ok(Ok((link, welcome))) => match welcome.term() {
                    Some(term) if !self.is_current(term) => {
                        tracing::warn!(%node, term = term.number(), "a scheduler of an older term is refused");
                    }
                    Some(term) => {
                        self.hear(term, node);
                        return Ok(Some((link, welcome)));
                    }
                    None => return Ok(Some((link, welcome))),
                },
                Ok(Err(error)) => failure = Some(error),
                Err(_) => tracing::debug!(%node, "a node did not answer a hello"),
            }
        }
    }

    /// The node that is known to lead, then all that may hold the scheduler.
    fn next_to_ask(&self, mesh: &Mesh, asked: &[NodeId]) -> Option<NodeId> {
        let leader = self.known().map(|(_, node)| node).filter(|node| !asked.contains(node));
        let members = mesh.members();
        let is_there = |node: &NodeId| members.iter().any(|member| member.node == *node);
        leader.filter(is_there).or_else(|| {
            let may_hold = members.iter().filter(|member| may_lead(member));
            // One that was restarted may for a moment be known beside what it was.
            may_hold
                .filter(|member| !asked.contains(&member.node))
                .max_by_key(|member| member.incarnation)
                .map(|member| member.node)
        })
    }
}

/// Whether the mesh knows the node as one that may hold the scheduler.
pub(crate) fn member_may_lead(mesh: &Mesh, node: NodeId) -> bool {
    mesh.members().iter().any(|member| member.node == node && may_lead(member))
}

fn may_lead(member: &Member) -> bool {
    matches!(member.info.role, Role::Scheduler | Role::Auto)
}

/// Opens a link with a hello and gives the answer.
async fn ask(mesh: &Mesh, node: NodeId, hello: &Hello) -> Result<(Link, Welcome), MeshError> {
    let no_answer = || MeshError::Protocol { node, why: "it did not answer a hello".to_owned() };
    let hello = encode_one(hello).map_err(|error| MeshError::Protocol { node, why: error.to_string() })?;
    let mut link = mesh.open_link(node, hello).await?;
    let answer = timeout(HELLO_TIMEOUT, link.rx.recv()).await.ok().flatten().ok_or_else(no_answer)?;
    let welcome = postcard::from_bytes(&answer).map_err(|_| no_answer())?;
    Ok((link, welcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_term_is_news() {
        let leaders = Leaders::new();
        let [a, b] = [NodeId([1; 32]), NodeId([2; 32])];
        assert!(leaders.is_current(Term(0)));
        leaders.hear(Term(4), a);
        leaders.hear(Term(4), b);
        leaders.hear(Term(3), b);
        assert_eq!(leaders.known(), Some((Term(4), a)));
        assert!(leaders.is_current(Term(4)) && !leaders.is_current(Term(3)));
        leaders.hear(Term(5), b);
        assert_eq!(leaders.known(), Some((Term(5), b)));
    }
}
