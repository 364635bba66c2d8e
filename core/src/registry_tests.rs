use proptest::prelude::*;

use super::*;
use crate::ids::JobId;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn task(index: u32) -> TaskId {
    TaskId::new(JobId(0), index)
}

/// Registries of so many nodes that all know of each other.
fn mesh(nodes: u8) -> Vec<Registry> {
    let mut registries: Vec<Registry> = (0..nodes).map(|number| Registry::new(node(number), 0)).collect();
    for registry in &mut registries {
        (0..nodes).for_each(|number| registry.node_up(node(number)));
    }
    registries
}

/// `to` asks `from` once. The messages go over the wire.
fn ask(registries: &mut [Registry], to: usize, from: usize, changes_max: usize) -> bool {
    let digest = registries[to].digest();
    let deltas = registries[from].lacking(&digest, changes_max);
    let deltas: Vec<Delta> = postcard::from_bytes(&postcard::to_stdvec(&deltas).unwrap()).unwrap();
    let mut is_new = false;
    for delta in &deltas {
        is_new |= registries[to].merge(delta);
        registries[to].check_invariants();
    }
    is_new
}

fn converge(registries: &mut [Registry], changes_max: usize) {
    let nodes = registries.len();
    let mut is_new = true;
    while is_new {
        is_new = false;
        for pair in 0..nodes * nodes {
            is_new |= ask(registries, pair / nodes, pair % nodes, changes_max);
        }
    }
}

fn assert_same(registries: &[Registry]) {
    for registry in registries {
        assert_eq!(registry.holders, registries[0].holders);
        assert_eq!(registry.digest(), registries[0].digest());
    }
}

#[test]
fn who_has_is_answered_on_every_node_after_gossip_through_a_third() {
    let mut registries = mesh(3);
    registries[0].publish(task(7), 100);
    registries[2].publish(task(7), 100);
    ask(&mut registries, 1, 0, 10);
    ask(&mut registries, 2, 1, 10);
    assert_eq!(registries[2].who_has(task(7)), [(node(0), 100), (node(2), 100)]);
    registries[0].withdraw(task(7));
    converge(&mut registries, 10);
    assert_same(&registries);
    assert_eq!(registries[1].who_has(task(7)), [(node(2), 100)]);
}

#[test]
fn a_node_that_is_down_holds_nothing_and_late_news_of_it_is_ignored() {
    let mut registries = mesh(3);
    registries[0].publish(task(1), 5);
    let late = registries[0].lacking(&Digest::new(), 10);
    ask(&mut registries, 1, 0, 10);
    registries[1].node_down(node(0));
    assert_eq!(registries[1].who_has(task(1)), []);
    assert!(!late.iter().any(|delta| registries[1].merge(delta)));
    registries[1].node_up(node(0));
    assert!(ask(&mut registries, 1, 0, 10));
    assert_eq!(registries[1].who_has(task(1)), [(node(0), 5)]);
}

#[test]
fn who_lacks_forgotten_withdrawals_is_told_everything_instead() {
    let mut registries = mesh(2);
    registries[0].publish(task(0), 1);
    converge(&mut registries, 100);
    registries[0].withdraw(task(0));
    for index in 1..=WITHDRAWN_MAX as u32 {
        registries[0].publish(task(index), 1);
        registries[0].withdraw(task(index));
    }
    registries[0].publish(task(9_999), 1);
    registries[0].check_invariants();
    assert_eq!(registries[1].who_has(task(0)), [(node(0), 1)]);
    converge(&mut registries, 100);
    assert_same(&registries);
    assert_eq!(registries[1].who_has(task(0)), []);
    assert_eq!(registries[1].len(), 1);
}

#[test]
fn a_node_that_comes_back_to_life_is_heard_although_its_numbers_begin_anew() {
    let mut registries = mesh(2);
    registries[0].publish(task(1), 1);
    registries[0].publish(task(2), 1);
    converge(&mut registries, 10);
    registries[0] = Registry::new(node(0), 1_000);
    registries[0].node_up(node(1));
    registries[0].publish(task(3), 1);
    converge(&mut registries, 10);
    assert_eq!(registries[1].who_has(task(1)), []);
    assert_eq!(registries[1].who_has(task(3)), [(node(0), 1)]);
}

proptest! {
    #[test]
    fn merging_converges_in_any_order_with_losses_and_repeats(
        steps in proptest::collection::vec((0..4_usize, 0..4_usize, 0..12_u32, 0..4_u8, 1..4_usize), 1..200)
    ) {
        let mut registries = mesh(4);
        let mut kept: Vec<(usize, Delta)> = Vec::new();
        for (one, other, index, what, changes_max) in steps {
            match what {
                0 => registries[one].publish(task(index), u64::from(index)),
                1 => registries[one].withdraw(task(index)),
                2 => {
                    ask(&mut registries, one, other, changes_max);
                }
                // Said now, heard later and twice.
                _ => {
                    let digest = registries[one].digest();
                    kept.extend(registries[other].lacking(&digest, changes_max).into_iter().map(|delta| (one, delta)));
                }
            }
            registries.iter().for_each(Registry::check_invariants);
        }
        for (to, delta) in kept.iter().rev().chain(&kept) {
            registries[*to].merge(delta);
            prop_assert!(!registries[*to].merge(delta), "hearing it again changes nothing");
            registries[*to].check_invariants();
        }
        converge(&mut registries, 3);
        assert_same(&registries);
    }
}
