//! `node status`: who leads, who votes, who is there, and what the cluster does not survive.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use starling_actors::{Cluster, ClusterError, ConnectOptions, MemberStatus, NodeStatus};
use starling_core::ids::{NodeId, Term};
use starling_runtime::mesh::Role;

use super::ask::way_to;
use super::connection::ConnectionOptions;
use super::listing::{Align, Output, plain, table};
use super::parse::parse_addrs;
use super::survival::{Voter, cannot_survive};
use super::{CliError, block_on, print_text};

/// Which node to ask, the first of several that answers, and how it is told.
#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// How it is printed: for people, or as one object.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,

    #[command(flatten)]
    pub(super) connection: ConnectionOptions,
}

/// A cluster as one of its nodes sees it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StatusView {
    /// The term that the node knows of.
    pub(super) term: u64,
    /// Who leads in it, by its name; none while nobody does.
    pub(super) leader: Option<String>,
    pub(super) voters: Vec<VoterView>,
    /// The nodes that are there, in their names' order.
    pub(super) members: Vec<MemberView>,
    /// What is wrong, in sentences.
    pub(super) problems: Vec<String>,
    /// What [`cannot_survive`](super::survival::cannot_survive) says.
    pub(super) cannot_survive: Vec<String>,
}

/// A node with a vote.
#[derive(Clone, Debug, Serialize)]
pub(super) struct VoterView {
    #[serde(serialize_with = "hex")]
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) is_live: bool,
}

/// A node of the mesh.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MemberView {
    pub(super) name: String,
    #[serde(serialize_with = "role_name")]
    pub(super) role: Role,
    /// Where it can be dialled; none if it only dials out.
    pub(super) addrs: Vec<String>,
}

/// Prints how the cluster is. That nobody leads is an error.
pub(super) fn status(options: &StatusOptions) -> Result<(), CliError> {
    block_on(async {
        let (addrs, connect) = way_to(&options.connection)?;
        // Before anybody is asked.
        parse_addrs(&addrs)?;
        let view = StatusView::of(&ask_first(&addrs, &connect).await?);
        print_text(&view.shown(options.output)?)?;
        if view.leader.is_some() { Ok(()) } else { Err(CliError::NoLeader) }
    })
}

/// What the first of these nodes says that answers; the error is the first one's.
async fn ask_first(addrs: &[String], connect: &ConnectOptions) -> Result<NodeStatus, CliError> {
    let mut first_error: Option<ClusterError> = None;
    for addr in addrs {
        match Cluster::status_of(addr, connect.clone()).await {
            Ok(status) => return Ok(status),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    Err(first_error.map_or(CliError::NoCluster, CliError::from))
}

fn hex<S: serde::Serializer>(node: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&node.hex())
}

fn role_name<S: serde::Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name_of(*role))
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::Scheduler => "scheduler",
        Role::Auto => "auto",
        Role::Worker => "worker",
        Role::Client => "client",
        Role::Service => "service",
    }
}

impl StatusView {
    /// What a node has said of its cluster.
    pub(super) fn of(status: &NodeStatus) -> StatusView {
        let member = |node: NodeId| status.members.iter().find(|member| member.node == node);
        let away = |node: NodeId| status.quorum.as_ref()?.away.iter().find(|member| member.node == node);
        let known = |node: NodeId| member(node).or_else(|| away(node));
        let name = |node: NodeId| known(node).map_or_else(|| node.to_string(), |member| member.name.clone());
        let mut members: Vec<&MemberStatus> =
            status.members.iter().filter(|member| member.role != Role::Client).collect();
        members.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        let quorum = status.quorum.as_ref();
        let voters = quorum.map_or(&[][..], |quorum| &quorum.voters);
        let standing: Vec<Voter> = voters
            .iter()
            .map(|node| Voter {
                name: name(*node),
                is_live: member(*node).is_some(),
                has_data: known(*node).is_some_and(|member| member.keeps),
            })
            .collect();
        let runs_tasks = |member: &&&MemberStatus| matches!(member.role, Role::Auto | Role::Worker);
        let workers: Vec<String> = members.iter().filter(runs_tasks).map(|member| member.name.clone()).collect();
        StatusView {
            term: status.term.map_or(0, Term::number),
            // A node that has no vote knows only who was the last.
            leader: status.leader.filter(|leader| member(*leader).is_some()).map(name),
            voters: voters
                .iter()
                .map(|node| VoterView { node: *node, name: name(*node), is_live: member(*node).is_some() })
                .collect(),
            members: members
                .iter()
                .map(|member| MemberView { name: member.name.clone(), role: member.role, addrs: member.addrs.clone() })
                .collect(),
            problems: quorum.and_then(|quorum| quorum.problem.clone()).into_iter().collect(),
            // A node that is no part of the quorum does not know who votes.
            cannot_survive: if quorum.is_some() { cannot_survive(&standing, &workers) } else { Vec::new() },
        }
    }

    /// As it is printed, with the last line's end.
    pub(super) fn shown(&self, output: Output) -> Result<String, CliError> {
        match output {
            Output::Table => Ok(self.for_people()),
            Output::Json => Ok(serde_json::to_string(self).map_err(|error| CliError::Print(error.into()))? + "\n"),
        }
    }

    fn for_people(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = match &self.leader {
            Some(leader) => writeln!(text, "{} leads, in term {}", plain(leader), self.term),
            None => writeln!(text, "nobody leads; the last term is {}", self.term),
        };
        let voters = self.voters.iter().map(|voter| {
            let state = if voter.is_live { "" } else { ", down" };
            format!("{} ({}{state})", plain(&voter.name), voter.node)
        });
        let voters = voters.collect::<Vec<_>>().join(", ");
        let known = if voters.is_empty() { "not known to this node, which has no vote" } else { &voters };
        let _ = writeln!(text, "voters: {known}\n");
        let rows: Vec<[String; 3]> = self
            .members
            .iter()
            .map(|member| {
                let addrs = if member.addrs.is_empty() { "dials out only".to_owned() } else { member.addrs.join(", ") };
                [member.name.clone(), name_of(member.role).to_owned(), addrs]
            })
            .collect();
        text += &table([("NODE", Align::Left), ("ROLE", Align::Left), ("ADDRESSES", Align::Left)], &rows);
        for (title, sentences) in [("problems", &self.problems), ("losses", &self.cannot_survive)] {
            if !sentences.is_empty() {
                let _ = write!(text, "\n{title}:\n");
            }
            for sentence in sentences {
                let _ = writeln!(text, "  {}", plain(sentence));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> StatusView {
        let voter = |byte, name: &str, is_live| VoterView { node: NodeId([byte; 32]), name: name.to_owned(), is_live };
        let member = |name: &str, role, addrs: &[&str]| MemberView {
            name: name.to_owned(),
            role,
            addrs: addrs.iter().map(|&addr| addr.to_owned()).collect(),
        };
        StatusView {
            term: 7,
            leader: Some("alpha".to_owned()),
            voters: vec![voter(0xaa, "alpha", true), voter(0xbb, "beta", true), voter(0xcc, "gamma", false)],
            members: vec![
                member("alpha", Role::Scheduler, &["/ip4/10.12.0.10/tcp/8786", "/ip4/127.0.0.1/tcp/8786"]),
                member("worker-1", Role::Worker, &[]),
            ],
            problems: Vec::new(),
            cannot_survive: vec!["gamma is down".to_owned()],
        }
    }

    #[test]
    fn people_see_who_leads_who_votes_who_is_there_and_what_would_be_lost() {
        let expected = "\
alpha leads, in term 7
voters: alpha (aaaaaaaaaaaa), beta (bbbbbbbbbbbb), gamma (cccccccccccc, down)

NODE      ROLE       ADDRESSES
alpha     scheduler  /ip4/10.12.0.10/tcp/8786, /ip4/127.0.0.1/tcp/8786
worker-1  worker     dials out only

losses:
  gamma is down
";
        assert_eq!(view().shown(Output::Table).unwrap(), expected);
    }

    #[test]
    fn problems_come_before_losses_and_a_cluster_without_a_leader_says_so() {
        let view = StatusView { leader: None, problems: vec!["no quorum\u{7}".to_owned()], ..view() };
        let shown = view.shown(Output::Table).unwrap();
        assert!(shown.starts_with("nobody leads; the last term is 7\n"), "{shown}");
        assert!(shown.ends_with("\nproblems:\n  no quorum\u{fffd}\n\nlosses:\n  gamma is down\n"), "{shown}");
    }

    #[test]
    fn a_node_without_a_vote_does_not_know_who_votes_nor_takes_one_that_is_gone_for_the_leader() {
        let node = NodeId([7; 32]);
        let member = MemberStatus {
            node,
            name: "worker-1".to_owned(),
            role: Role::Worker,
            keeps: false,
            addrs: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
        };
        let mut status = NodeStatus {
            node,
            name: "worker-1".to_owned(),
            term: Some(Term(7)),
            leader: Some(NodeId([1; 32])),
            quorum: None,
            members: vec![member.clone()],
        };
        let view = StatusView::of(&status);
        assert_eq!((&view.leader, view.term, view.cannot_survive.len()), (&None, 7, 0));
        let shown = view.shown(Output::Table).unwrap();
        assert!(shown.starts_with("nobody leads; the last term is 7\nvoters: not known to this node"), "{shown}");
        status.members.push(MemberStatus { node: NodeId([1; 32]), name: "alpha".to_owned(), ..member });
        assert_eq!(StatusView::of(&status).leader.as_deref(), Some("alpha"));
    }

    #[test]
    fn programs_get_one_object_on_one_line() {
        let shown = view().shown(Output::Json).unwrap();
        assert_eq!(shown.find('\n'), Some(shown.len() - 1));
        let object: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!((&object["leader"], &object["term"]), (&"alpha".into(), &7.into()));
        assert_eq!(object["voters"][2]["node"], "cc".repeat(32));
        assert_eq!(object["voters"][2]["is_live"], false);
        assert_eq!(object["members"][1]["role"], "worker");
        assert_eq!(object["problems"], serde_json::json!([]));
    }
}
