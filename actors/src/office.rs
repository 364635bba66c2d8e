//! A node that may hold the scheduler: its part in the quorum, and the taking and leaving of office.
//!
//! The quorum says who leads ([`starling_quorum`]); whoever does tells its scheduler's actor to take office in that term, with
//! what the ledger keeps, and tells the mesh. Who leads no longer, or cannot know, has it leave office.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use starling_core::ids::{JobId, NodeId, Term};
use starling_core::ledger::{Entry, Ledger};
use starling_core::record::Header;
use starling_core::scheduler::{self, Scheduler};
use starling_quorum::{ProposeError, Quorum, QuorumConfig, QuorumError, Rank, Reach, View};
use starling_runtime::inbox::Inbox;
use starling_runtime::mesh::{Member, Mesh, Multiaddr, Role};
use starling_runtime::recorder::Recording;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::coordination;
use crate::directory_actor;
use crate::leaders::Leaders;
use crate::link::{Hello, encode_one};
use crate::node::{NodeRole, RecordConfig};
use crate::quorum_link::MeshTransport;
use crate::scheduler_actor::{Input, TakeOffice};

/// How many nodes the quorum is told of as candidates.
const CANDIDATES_MAX: usize = 16;
/// How long the first leader is waited for.
const LEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long telling one node that this one leads may take.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it takes until what could not be written into the ledger is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A node's part in the quorum, as the rest of the node sees it.
#[derive(Clone)]
pub(crate) struct Candidacy {
    pub(crate) quorum: Quorum,
    mesh: Mesh,
    /// Those that might vote, as they were last seen.
    seen: Arc<Mutex<BTreeMap<NodeId, Member>>>,
}

/// How many of them are remembered.
const SEEN_MAX: usize = 1_024;

impl Candidacy {
    /// Starts it, on what the data directory holds.
    pub(crate) async fn start(
        mesh: &Mesh,
        data: Option<&Path>,
        voters_max: usize,
        own: &Member,
    ) -> Result<Candidacy, QuorumError> {
        let config = QuorumConfig {
            data: data.map(|data| data.join("quorum")),
            rank: rank_of(own),
            voters_max,
            ..QuorumConfig::new(mesh.node())
        };
        let quorum = Quorum::start(config, Arc::new(MeshTransport::new(mesh.clone()))).await?;
        let candidacy = Candidacy { quorum, mesh: mesh.clone(), seen: Arc::default() };
        candidacy.tell_members();
        Ok(candidacy)
    }

    /// Founds a cluster, or waits for the one that was joined, or that this node has been part of, to have a leader; not for
    /// ever, because others may have to be started first.
    pub(crate) async fn take_part(
        &self,
        role: NodeRole,
        is_alone: bool,
        leaders: &Leaders,
        mut held: watch::Receiver<Option<Term>>,
    ) -> Result<(), QuorumError> {
        let others = self.mesh.members().into_iter().filter(|member| member.node != self.mesh.node());
        let has_others = others.into_iter().any(|member| matches!(member.info.role, Role::Scheduler | Role::Auto));
        // A pinned scheduler may join a mesh that has lost the one it had.
        let founds = self.quorum.is_new() && (is_alone || role == NodeRole::Scheduler && !has_others);
        if founds {
            self.quorum.found().await?;
        }
        let is_led = async {
            tokio::select! {
                _ = held.wait_for(Option::is_some) => {}
                () = leaders.later_than(Term::default()) => {}
            }
        };
        if timeout(LEADER_TIMEOUT, is_led).await.is_err() {
            tracing::warn!("nobody leads yet: a quorum of the nodes that vote has to be there");
        }
        Ok(())
    }

    /// Tells the quorum who could vote.
    pub(crate) fn tell_members(&self) {
        let members = self.mesh.members();
        let candidates = members.iter().filter(|member| matches!(member.info.role, Role::Scheduler | Role::Auto));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for member in candidates.clone() {
            if seen.len() < SEEN_MAX || seen.contains_key(&member.node) {
                seen.insert(member.node, member.clone());
            }
        }
        drop(seen);
        let mut live: Vec<(NodeId, Rank)> = candidates.map(|member| (member.node, rank_of(member))).collect();
        // Who votes already is needed, whatever its rank.
        let voters = self.quorum.view().borrow().voters.clone();
        live.sort_by_key(|(node, rank)| (!voters.contains(node), std::cmp::Reverse(*rank), *node));
        live.truncate(CANDIDATES_MAX);
        self.quorum.candidates(live);
    }

    /// A node that might vote, as it was last seen.
    pub(crate) fn last_seen(&self, node: NodeId) -> Option<Member> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// The term that the scheduler has in a term of the quorum's.
    pub(crate) fn term(&self, of_quorum: Term) -> Term {
        self.quorum.ledger().terms_after.after(of_quorum.0)
    }

    /// Who leads, as far as this node can know, and in which term. A node that has just started does not know which term that is
    /// before it has the beginning of the ledger.
    pub(crate) fn leader(&self) -> Option<(Term, NodeId)> {
        let view = self.quorum.view().borrow().clone();
        let is_founded = self.quorum.ledger().terms_after != Term::default();
        view.leader.filter(|_| is_founded).map(|leader| (self.term(view.term), leader))
    }
}

/// How much a node is preferred as a scheduler.
fn rank_of(member: &Member) -> Rank {
    Rank {
        pinned: member.info.role == Role::Scheduler,
        reach: member.addrs.iter().map(reach_of).max().unwrap_or(Reach::None),
        room: member.info.room,
    }
}

fn reach_of(addr: &Multiaddr) -> Reach {
    use starling_runtime::mesh::Protocol;
    let ip: Option<std::net::IpAddr> = addr.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    });
    match ip {
        Some(ip) if ip.is_loopback() => Reach::Loopback,
        Some(std::net::IpAddr::V4(ip)) if ip.is_private() || ip.is_link_local() => Reach::Private,
        Some(std::net::IpAddr::V6(ip)) if ip.is_unique_local() || ip.is_unicast_link_local() => Reach::Private,
        Some(_) => Reach::Public,
        // A name: others resolve it.
        None => Reach::Private,
    }
}

/// What the scheduler is to be like, whenever this node holds it.
pub(crate) struct Office {
    pub(crate) candidacy: Candidacy,
    pub(crate) mesh: Mesh,
    pub(crate) leaders: Leaders,
    pub(crate) inbox: Inbox<Input>,
    pub(crate) coordination: Inbox<coordination::Input>,
    pub(crate) directory: Inbox<directory_actor::Input>,
    pub(crate) config: scheduler::Config,
    pub(crate) record: Option<RecordConfig>,
    /// In which term this node holds the scheduler, if it does.
    pub(crate) term: watch::Sender<Option<Term>>,
}

impl Office {
    /// Takes and leaves office as the quorum says, for as long as it is there.
    pub(crate) async fn run(self) {
        let mut views = self.candidacy.quorum.view();
        let mut applied = self.candidacy.quorum.applied();
        let mut held: Option<Term> = None;
        let mut told = View::default();
        loop {
            let view = views.borrow_and_update().clone();
            log_changes(&told, &view);
            if let Some((term, leader)) = self.candidacy.leader() {
                self.leaders.hear(term, leader);
            }
            let leads = view.is_leader.then_some(view.term);
            if held.is_some() && held != leads {
                self.leave();
                held = None;
            }
            if let Some(term) = leads.filter(|_| held.is_none()) {
                match self.take(term).await {
                    Ok(()) => held = Some(term),
                    Err(error) => {
                        tracing::warn!(%error, "could not take office; trying again");
                        sleep(AGAIN_AFTER).await;
                        continue;
                    }
                }
            }
            told = view;
            let is_over = tokio::select! {
                changed = views.changed() => changed.is_err(),
                // The leader's term may be known by it.
                changed = applied.changed() => changed.is_err(),
            };
            if is_over {
                return self.leave();
            }
        }
    }

    fn leave(&self) {
        if self.term.send_replace(None).is_some() {
            tracing::warn!("this node does not hold the scheduler any more");
            self.inbox.push(Input::LeaveOffice);
            self.coordination.push(coordination::Input::LeaveOffice);
            self.directory.push(directory_actor::Input::LeaveOffice);
        }
    }

    /// Has the actor take office in this term of the quorum's.
    async fn take(&self, of_quorum: Term) -> Result<(), ProposeError> {
        let quorum = &self.candidacy.quorum;
        let is_first = quorum.ledger().terms_after == Term::default();
        if is_first {
            let before = Term::before_founding(unix_ms() / 1_000, rand::random());
            quorum.propose(Entry::Founded(before)).await?;
            quorum.propose(Entry::JobsBelow(JobId(rand::random()))).await?;
        }
        let ledger = quorum.ledger();
        let first_job = ledger.jobs_below;
        quorum.propose(Entry::JobsBelow(Scheduler::jobs_below(first_job))).await?;
        let term = self.candidacy.term(of_quorum);
        let header =
            Header { config: self.config.clone(), term, first_job, has_ledger: true, started_unix_ms: unix_ms() };
        let recording = self.record.as_ref().and_then(|record| start_recording(record, &header));
        let expected = if is_first { Vec::new() } else { self.workers() };
        tracing::info!(
            term = term.number(),
            kept = ledger.kept.len(),
            workers = expected.len(),
            "this node takes office"
        );
        self.leaders.hear(term, self.mesh.node());
        self.directory.push(directory_actor::Input::TakeOffice(Box::new(directory_actor::TakeOffice {
            term,
            of_quorum,
            spawned: quorum.ledger().actors.values().cloned().collect(),
            expected: if is_first { Vec::new() } else { self.nodes() },
            quorum: quorum.clone(),
        })));
        self.inbox.push(Input::TakeOffice(Box::new(TakeOffice {
            header,
            of_quorum,
            recording,
            kept: kept(&ledger),
            expected,
            quorum: quorum.clone(),
        })));
        let quorum = quorum.clone();
        self.coordination.push(coordination::Input::TakeOffice { term, of_quorum, quorum });
        self.term.send_replace(Some(term));
        self.tell_all(term);
        Ok(())
    }

    /// The nodes that run workers, as far as the mesh knows.
    fn workers(&self) -> Vec<NodeId> {
        let members = self.mesh.members();
        members
            .iter()
            .filter(|member| matches!(member.info.role, Role::Worker | Role::Auto))
            .map(|member| member.node)
            .collect()
    }

    /// The nodes that may hold names, as far as the mesh knows.
    fn nodes(&self) -> Vec<NodeId> {
        let members = self.mesh.members();
        members.iter().filter(|member| member.info.role != Role::Client).map(|member| member.node).collect()
    }

    /// Tells every node that this one leads, so that none waits for a scheduler that is gone.
    fn tell_all(&self, term: Term) {
        let Ok(hello) = encode_one(&Hello::Leads { term }) else { return };
        for member in self.mesh.members().into_iter().filter(|member| member.node != self.mesh.node()) {
            let (mesh, hello) = (self.mesh.clone(), hello.clone());
            tokio::spawn(async move {
                // Who is not told finds out by asking.
                let told = timeout(TELL_TIMEOUT, mesh.open_link(member.node, hello)).await;
                if let Ok(Err(error)) = told {
                    tracing::debug!(node = %member.node, %error, "a node could not be told who leads");
                }
            });
        }
    }
}

fn kept(ledger: &Ledger) -> Vec<Arc<starling_core::ledger::Kept>> {
    ledger.kept.values().cloned().collect()
}

/// A recording that cannot be started keeps nobody from working.
fn start_recording(record: &RecordConfig, header: &Header) -> Option<Recording> {
    match Recording::start(&record.path, header, record.limit_bytes) {
        Ok(recording) => Some(recording),
        Err(error) => {
            tracing::error!(%error, "the scheduler's events are not recorded");
            None
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

fn log_changes(before: &View, now: &View) {
    if before.problem != now.problem
        && let Some(problem) = &now.problem
    {
        tracing::warn!(problem, "the quorum");
    }
    if before.voters != now.voters {
        let voters: Vec<String> = now.voters.iter().map(ToString::to_string).collect();
        tracing::info!(voters = voters.join(", "), "the quorum's voters");
    }
}

#[cfg(test)]
mod tests {
    use starling_runtime::mesh::{MemberInfo, parse_addr};

    use super::*;

    fn member(role: Role, addrs: &[&str], room: u64) -> Member {
        let info = MemberInfo { name: "node".to_owned(), role, room, keeps: false };
        let addrs = addrs.iter().map(|text| parse_addr(text).unwrap()).collect();
        Member { node: NodeId([1; 32]), info, addrs, incarnation: 1 }
    }

    #[test]
    fn pinned_goes_before_reach_and_reach_before_room() {
        let in_order = [
            member(Role::Auto, &[], 64_000),
            member(Role::Auto, &["/ip4/127.0.0.1/tcp/1"], 32_000),
            member(Role::Auto, &["/ip4/127.0.0.1/tcp/1", "/ip4/10.12.0.10/tcp/1"], 8_000),
            member(Role::Auto, &["/ip6/fd00::1/tcp/1"], 9_000),
            member(Role::Auto, &["/ip4/10.12.0.10/tcp/1", "/ip4/93.184.216.34/tcp/1"], 1_000),
            member(Role::Scheduler, &[], 0),
        ];
        let ranks: Vec<Rank> = in_order.iter().map(rank_of).collect();
        assert!(ranks.is_sorted() && ranks.windows(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
    }
}
