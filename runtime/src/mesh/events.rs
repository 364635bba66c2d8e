//! From what is the case to what is told: members that came and went, then links, into one bounded queue.
//!
//! The news of members is the difference between what was told and what is, so an owner that is slow to listen costs no
//! memory and misses no member; it may miss that one went and came back in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_core::ids::NodeId;
use tokio::sync::{mpsc, watch};

use super::shared::View;
use super::{DownReason, Member, MeshEvent};

/// Tells until nobody listens. `me` is no news.
pub(crate) async fn pump(
    mut view: watch::Receiver<Arc<View>>,
    mut arrivals: mpsc::Receiver<MeshEvent>,
    events: mpsc::Sender<MeshEvent>,
    me: NodeId,
) {
    let mut told = BTreeMap::new();
    loop {
        let arrival = tokio::select! {
            changed = view.changed() => match changed {
                Ok(()) => None,
                Err(_) => return,
            },
            arrival = arrivals.recv() => match arrival {
                Some(arrival) => Some(arrival),
                None => return,
            },
            () = events.closed() => return,
        };
        let now = view.borrow_and_update().clone();
        for event in news(&mut told, &now, me).into_iter().chain(arrival) {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// The events that lead from what was told to what is the case.
fn news(told: &mut BTreeMap<NodeId, Member>, now: &View, me: NodeId) -> Vec<MeshEvent> {
    let gone: Vec<_> = told.keys().filter(|node| !now.members.contains_key(node)).copied().collect();
    let mut events = Vec::new();
    for node in gone {
        told.remove(&node);
        let reason = now.down.get(&node).copied().unwrap_or(DownReason::Silent);
        events.push(MeshEvent::MemberDown { node, reason });
    }
    for (node, member) in &now.members {
        if *node != me && told.get(node) != Some(member) {
            told.insert(*node, member.clone());
            events.push(MeshEvent::MemberUp(member.clone()));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{MemberInfo, Role};

    fn member(id: u8, incarnation: u64) -> (NodeId, Member) {
        let node = NodeId([id; 32]);
        let info = MemberInfo { name: format!("node {id}"), role: Role::Worker, room: 0, keeps: false };
        (node, Member { node, info, addrs: Vec::new(), incarnation })
    }

    fn told(told: &mut BTreeMap<NodeId, Member>, members: &[(NodeId, Member)], down: &[(u8, DownReason)]) -> String {
        let members = members.iter().cloned().collect();
        let down = down.iter().map(|(id, reason)| (NodeId([*id; 32]), *reason)).collect();
        let events = news(told, &View { members, down }, NodeId([1; 32]));
        let words = events.iter().map(|event| match event {
            MeshEvent::MemberUp(member) => format!("+{}@{}", member.node.0[0], member.incarnation),
            MeshEvent::MemberDown { node, reason } => format!("-{} {reason:?}", node.0[0]),
            other => panic!("unexpected {other:?}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_change_is_told_once_and_this_node_never() {
        let mut known = BTreeMap::new();
        assert_eq!(told(&mut known, &[member(1, 1), member(2, 1)], &[]), "+2@1");
        assert_eq!(told(&mut known, &[member(1, 2), member(2, 1)], &[]), "");
        assert_eq!(told(&mut known, &[member(1, 1), member(2, 5), member(3, 1)], &[]), "+2@5, +3@1");
        assert_eq!(told(&mut known, &[member(3, 1)], &[(2, DownReason::Left)]), "-2 Left");
        assert_eq!(told(&mut known, &[], &[]), "-3 Silent");
    }
}
