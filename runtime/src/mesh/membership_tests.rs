//! The membership machine without a network: packets are carried by hand, and time is what the test says it is.

use rand::SeedableRng;

use super::*;
use crate::mesh::Role;

struct Mesh {
    nodes: BTreeMap<NodeId, Membership>,
    now: Instant,
    /// Nodes that neither get nor send anything.
    cut: HashSet<NodeId>,
    down: Vec<(NodeId, NodeId, DownReason)>,
}

fn node(id: u8) -> NodeId {
    NodeId([id; 32])
}

fn ident(id: u8, incarnation: u64) -> Ident {
    let info = MemberInfo { name: format!("node {id}"), role: Role::Worker, room: 0, keeps: false };
    Ident::new(node(id), incarnation, info, vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()])
}

fn machine(ident: Ident, seed: u64) -> Membership {
    Membership::new(ident, StdRng::seed_from_u64(seed))
}

impl Mesh {
    /// Nodes of which each has met the first.
    fn of(count: u8) -> Mesh {
        let nodes = (1..=count).map(|id| (node(id), machine(ident(id, 100), u64::from(id)))).collect();
        let mut mesh = Mesh { nodes, now: Instant::now(), cut: HashSet::new(), down: Vec::new() };
        for id in 2..=count {
            mesh.meet(1, id);
        }
        mesh
    }

    fn meet(&mut self, a: u8, b: u8) {
        for (from, to) in [(node(a), node(b)), (node(b), node(a))] {
            let (me, reports) = (self.nodes[&from].me().clone(), self.nodes[&from].reports());
            // Over the wire, as it is.
            let bytes = postcard::to_stdvec(&(me, reports)).unwrap();
            let (me, reports) = postcard::from_bytes(&bytes).unwrap();
            self.nodes.get_mut(&to).unwrap().met(self.now, Some(me), reports);
        }
    }

    /// Lets time pass in steps of 10 ms, with every packet delivered within its step.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += Duration::from_millis(10);
            let mut packets = Vec::new();
            for (&id, machine) in &mut self.nodes {
                machine.tick(self.now);
                packets.extend(machine.out.packets.drain(..).map(|packet| (id, packet)));
            }
            while let Some((from, (to, data))) = packets.pop() {
                if self.cut.contains(&from) || self.cut.contains(&to) {
                    continue;
                }
                let Some(machine) = self.nodes.get_mut(&to) else { continue };
                machine.packet(self.now, &data);
                packets.extend(machine.out.packets.drain(..).map(|packet| (to, packet)));
            }
            for (&id, machine) in &mut self.nodes {
                self.down.extend(machine.out.down.drain(..).map(|(ident, reason)| (id, ident.node(), reason)));
            }
        }
    }

    fn known(&self, id: u8) -> Vec<u8> {
        let mut known: Vec<_> = self.nodes[&node(id)].live().map(|ident| ident.node().0[0]).collect();
        known.sort_unstable();
        known
    }
}

#[test]
fn nodes_that_met_one_learn_of_all() {
    let mut mesh = Mesh::of(5);
    mesh.run(Duration::from_secs(2));
    for id in 1..=5 {
        assert_eq!(mesh.known(id), (1..=5).filter(|other| *other != id).collect::<Vec<_>>());
    }
    assert!(mesh.down.is_empty());
}

#[test]
fn a_silent_node_is_down_everywhere_within_six_seconds_and_comes_back_later_than_it_was() {
    let mut mesh = Mesh::of(5);
    mesh.run(Duration::from_secs(2));
    mesh.cut.insert(node(3));
    mesh.run(Duration::from_secs(6));
    for id in [1, 2, 4, 5] {
        assert!(!mesh.known(id).contains(&3), "node {id} still knows the silent one");
        assert!(mesh.down.contains(&(node(id), node(3), DownReason::Silent)));
        assert!(mesh.nodes[&node(id)].lost().any(|ident| ident.node() == node(3)));
    }
    // When it is met again by one, which tells it that it is taken for down.
    mesh.cut.clear();
    mesh.meet(1, 3);
    assert!(mesh.nodes[&node(3)].out.renewed);
    mesh.meet(1, 3);
    mesh.run(Duration::from_secs(3));
    for id in 1..=5 {
        assert_eq!(mesh.known(id).len(), 4, "node {id} knows {:?}", mesh.known(id));
    }
    assert!(mesh.nodes[&node(3)].me().incarnation() > 100);
}

#[test]
fn a_node_that_says_farewell_has_left_for_those_too_who_did_not_hear_it() {
    let mut mesh = Mesh::of(5);
    mesh.run(Duration::from_secs(2));
    let farewell = mesh.nodes[&node(4)].farewell();
    mesh.nodes.remove(&node(4));
    mesh.nodes.get_mut(&node(1)).unwrap().met(mesh.now, None, vec![farewell]);
    mesh.run(Duration::from_secs(2));
    for id in [1, 2, 3, 5] {
        assert!(mesh.down.contains(&(node(id), node(4), DownReason::Left)), "node {id}: {:?}", mesh.down);
        assert_eq!(mesh.nodes[&node(id)].lost().count(), 0, "one that left is not looked for");
    }
}

#[test]
fn a_node_whose_process_is_gone_is_down_at_once_for_who_knows_and_soon_for_all() {
    let mut mesh = Mesh::of(4);
    mesh.run(Duration::from_secs(2));
    let gone = mesh.nodes[&node(2)].me().clone();
    mesh.nodes.remove(&node(2));
    mesh.nodes.get_mut(&node(1)).unwrap().gone(mesh.now, &gone);
    assert_eq!(mesh.known(1), [3, 4]);
    mesh.run(Duration::from_secs(1));
    assert_eq!(mesh.down.len(), 3);
}

#[test]
fn news_of_an_earlier_run_does_not_bring_down_the_later_one() {
    let mut mesh = Mesh::of(3);
    let earlier = mesh.nodes[&node(2)].me().clone();
    mesh.run(Duration::from_secs(1));
    mesh.nodes.insert(node(2), machine(ident(2, 200), 9));
    mesh.meet(1, 2);
    mesh.nodes.get_mut(&node(1)).unwrap().gone(mesh.now, &earlier);
    mesh.run(Duration::from_secs(2));
    assert_eq!(mesh.known(1), [2, 3]);
    assert_eq!(mesh.known(3), [1, 2]);
}

#[test]
fn a_node_whose_clock_went_back_takes_a_later_incarnation_than_its_earlier_run() {
    let mut mesh = Mesh::of(3);
    mesh.run(Duration::from_secs(1));
    mesh.nodes.insert(node(2), machine(ident(2, 5), 9));
    mesh.meet(1, 2);
    assert_eq!(mesh.nodes[&node(2)].me().incarnation(), 101);
    assert!(mesh.nodes[&node(2)].out.renewed);
    mesh.meet(1, 2);
    mesh.run(Duration::from_secs(2));
    assert_eq!(mesh.known(3), [1, 2]);
    let seen = mesh.nodes[&node(3)].live().find(|ident| ident.node() == node(2)).unwrap().incarnation();
    assert_eq!(seen, 101);
}

#[test]
fn what_is_out_of_bounds_is_not_remembered() {
    let mut machine = machine(ident(1, 1), 1);
    let addr = || "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let named = |name: &str| MemberInfo { name: name.to_owned(), role: Role::Client, room: 0, keeps: false };
    let insane = [
        Ident::new(node(2), 1, named(&"x".repeat(NAME_BYTES_MAX + 1)), Vec::new()),
        Ident::new(node(3), 1, named("x"), vec![addr(); ADDRS_MAX + 1]),
        Ident::new(node(4), u64::MAX, named("x"), Vec::new()),
    ];
    machine.met(Instant::now(), None, insane.into_iter().map(Report::alive).collect());
    assert_eq!(machine.live().count(), 0);
    let many = (0..NODES_MAX as u32 + 10).map(|index| {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&index.to_le_bytes());
        Report::alive(Ident::new(NodeId(id), 1, named("x"), Vec::new()))
    });
    machine.met(Instant::now(), None, many.collect());
    assert_eq!(machine.live().count(), NODES_MAX);
}

#[test]
fn rubbish_packets_change_nothing() {
    let mut machine = machine(ident(1, 1), 1);
    for length in 0..200 {
        machine.packet(Instant::now(), &vec![length as u8; length]);
    }
    assert_eq!(machine.live().count(), 0);
    assert!(machine.out.packets.is_empty() && machine.out.down.is_empty());
}
