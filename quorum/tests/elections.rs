//! Who leads, under deaths and partitions.

mod common;

use std::time::Duration;

use common::{Net, config, id, jobs, rank, until};
use starling_core::ids::{JobId, Term};
use starling_quorum::{Memory, Pace, ProposeError, QuorumConfig, QuorumError, Rank};
use tokio::time::{Instant, advance, sleep};

#[tokio::test(start_paused = true)]
async fn a_founder_leads_alone_and_starts_again_with_its_ledger_in_a_later_term() {
    let (net, disk) = (Net::default(), Memory::new());
    let node = net.start(1, Box::new(disk.clone())).await.unwrap();
    assert!(node.is_new() && node.still_leads().is_none());
    node.found().await.unwrap();
    assert_eq!((node.still_leads(), node.is_new()), (Some(Term(1)), false));
    node.propose(jobs(40)).await.unwrap();
    assert_eq!(node.ledger().jobs_below, JobId(40));
    assert!(matches!(node.found().await, Err(QuorumError::NotNew)));

    net.kill(1);
    drop(node);
    sleep(Duration::from_millis(1)).await;
    let node = net.start(1, Box::new(disk)).await.unwrap();
    assert!(!node.is_new());
    let view = net.until(1, |view| view.is_leader).await;
    assert_eq!((view.term, view.leader, view.has_quorum, view.problem), (Term(2), Some(id(1)), true, None));
    assert_eq!(node.ledger().jobs_below, JobId(40));
    assert!(matches!(node.found().await, Err(QuorumError::NotNew)));
}

#[tokio::test(start_paused = true)]
async fn two_nodes_have_one_voter_and_the_third_makes_it_three() {
    let net = Net::default();
    net.start(1, Box::new(Memory::new())).await.unwrap();
    net.node(1).found().await.unwrap();
    net.start(2, Box::new(Memory::new())).await.unwrap();
    net.tell();
    let view = net.until(2, |view| view.leader == Some(id(1))).await;
    assert_eq!((view.voters, view.learners), (vec![id(1)], vec![id(2)]));
    net.start(3, Box::new(Memory::new())).await.unwrap();
    net.tell();
    for number in 1..=3 {
        let view = net.until(number, |view| view.voters.len() == 3).await;
        assert_eq!((view.leader, view.term, view.is_leader), (Some(id(1)), Term(1), number == 1));
    }
    net.node(1).propose(jobs(7)).await.unwrap();
    let mut applied = net.node(3).applied();
    applied.wait_for(|_| net.node(3).ledger().jobs_below == JobId(7)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_by_the_best_of_the_others_within_two_leases() {
    let net = Net::default();
    net.cluster(3).await;
    net.node(1).propose(jobs(9)).await.unwrap();
    let dead = Instant::now();
    net.kill(1);
    net.until(3, |view| view.is_leader).await;
    assert!(dead.elapsed() < Pace::default().lease * 2, "it took {:?}", dead.elapsed());
    assert_eq!((net.node(3).ledger().jobs_below, net.leaders().len()), (JobId(9), 1));
    net.until(2, |view| view.leader == Some(id(3))).await;
    net.node(3).propose(jobs(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_the_leader_is_down_makes_it_faster_and_never_faster_than_the_lease() {
    let pace = Pace::default();
    let mut took = Vec::new();
    for is_told in [false, true] {
        let net = Net::default();
        net.cluster(3).await;
        let dead = Instant::now();
        net.kill(1);
        sleep(Duration::from_millis(1)).await;
        if is_told {
            net.all().iter().for_each(|node| node.is_down(id(1)));
        }
        net.until(3, |view| view.is_leader).await;
        took.push(dead.elapsed());
    }
    assert!(took[1] < took[0] && took[1] > pace.lease - pace.heartbeat, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_quorum_stops_leading_before_another_leads_and_says_so() {
    let net = Net::default();
    net.cluster(3).await;
    let old = net.node(1);
    net.isolate(1);
    let cut = Instant::now();
    let both = async {
        while net.node(2).still_leads().is_none() && net.node(3).still_leads().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(old.still_leads(), None, "two lead at once");
    };
    both.await;
    assert!(cut.elapsed() < Pace::default().lease * 2);
    let view = net.until(1, |view| !view.has_quorum).await;
    assert_eq!((view.is_leader, view.leader), (false, None));
    assert_eq!(view.problem.as_deref(), Some("no quorum: 1 of 3 voters answers"));
    assert_eq!(old.propose(jobs(1)).await, Err(ProposeError::NoQuorum));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_hears_a_leader_without_a_quorum_knows_that_nobody_leads() {
    let net = Net::default();
    net.cluster(5).await;
    let [here, there] = [[1, 2].as_slice(), &[3, 4, 5]];
    for (one, other) in here.iter().flat_map(|one| there.iter().map(move |other| (*one, *other))) {
        net.cut(one, other);
        net.cut(other, one);
    }
    net.until_one_leads(there).await;
    let view = net.until(2, |view| !view.has_quorum).await;
    assert_eq!((view.leader, view.problem.as_deref()), (None, Some("no quorum: 2 of 5 voters answers")));
    sleep(Duration::from_secs(20)).await;
    assert_eq!(*net.node(2).view().borrow(), view, "it stays so");
    net.heal();
    let leader = net.leaders()[0].view().borrow().leader;
    let view = net.until(2, |view| view.leader.is_some()).await;
    assert_eq!((view.leader, view.has_quorum, view.problem), (leader, true, None));
}

#[tokio::test(start_paused = true)]
async fn a_cut_follower_does_not_depose_the_leader_when_it_comes_back() {
    let net = Net::default();
    net.cluster(3).await;
    net.isolate(3);
    let view = net.until(3, |view| view.problem.is_some()).await;
    assert_eq!((view.leader, view.has_quorum), (None, false));
    sleep(Duration::from_secs(20)).await;
    net.heal();
    let view = net.until(3, |view| view.leader.is_some()).await;
    assert_eq!((view.leader, view.term, view.problem), (Some(id(1)), Term(1), None));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(net.node(1).still_leads(), Some(Term(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_only_hears_or_only_speaks_is_replaced_and_there_is_one_in_the_end() {
    for is_mute in [true, false] {
        let net = Net::default();
        net.cluster(3).await;
        for other in 2..=3 {
            if is_mute { net.cut(1, other) } else { net.cut(other, 1) }
        }
        let started = Instant::now();
        if is_mute {
            net.until_one_leads(&[2, 3]).await;
        } else {
            // Its followers hear it and stay with it, so there is none until the cut is healed.
            net.until(1, |view| !view.is_leader).await;
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        net.heal();
        net.until_one_leads(&[1, 2, 3]).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(net.leaders().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn five_voters_live_through_two_deaths_and_not_three() {
    let net = Net::default();
    net.cluster(5).await;
    net.kill(1);
    net.kill(5);
    assert_eq!(net.until_one_leads(&[2, 3, 4]).await, 4);
    net.node(4).propose(jobs(3)).await.unwrap();
    net.kill(4);
    let view = net.until(3, |view| view.problem.is_some() && !view.has_quorum).await;
    sleep(Duration::from_secs(20)).await;
    assert!(net.leaders().is_empty(), "{view:?}");
    let view = net.node(3).view().borrow().clone();
    assert_eq!(view.problem.as_deref(), Some("no quorum: 2 of 5 voters answers"));
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_stays_away_is_replaced_and_one_that_is_away_shortly_is_not() {
    let net = Net::default();
    net.cluster(3).await;
    net.start(4, Box::new(Memory::new())).await.unwrap();
    net.tell();
    net.until(1, |view| view.learners == [id(4)]).await;
    net.isolate(2);
    sleep(Duration::from_secs(20)).await;
    net.heal();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(net.node(1).view().borrow().voters, [id(1), id(2), id(3)]);
    net.kill(2);
    net.tell();
    let gone = Instant::now();
    net.until(1, |view| view.voters == [id(1), id(3), id(4)]).await;
    assert!(gone.elapsed() >= Pace::default().patience - Pace::default().heartbeat * 2);
    net.until(1, |view| view.learners.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pinned_voter_gets_the_lead_and_keeps_it() {
    let net = Net::default();
    net.cluster(3).await;
    let pinned = Rank { pinned: true, ..Rank::default() };
    net.tell_ranks(vec![(id(1), rank(1)), (id(2), pinned), (id(3), rank(3))]);
    let lost = async {
        while net.node(1).still_leads().is_some() {
            sleep(Duration::from_millis(10)).await;
        }
        Instant::now()
    };
    let lost = lost.await;
    let view = net.until(2, |view| view.is_leader).await;
    assert!(lost.elapsed() < Pace::default().lease * 2, "it took {:?}", lost.elapsed());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(net.node(2).still_leads(), Some(view.term));
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_process_was_stopped_for_a_lease_does_not_lead_when_it_goes_on() {
    let net = Net::default();
    net.cluster(3).await;
    let leader = net.node(1);
    assert!(leader.still_leads().is_some());
    advance(Pace::default().lease).await;
    // The view has had no time to say so.
    assert_eq!(leader.still_leads(), None);
    assert_eq!(leader.propose(jobs(1)).await, Err(ProposeError::NoQuorum));
    // Nobody else was elected meanwhile, since all of them were stopped; so it leads on.
    until(&leader, |view| !view.is_leader).await;
    until(&leader, |view| view.is_leader && view.term == Term(1)).await;
    leader.propose(jobs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn followers_and_strangers_propose_nothing_and_say_who_leads() {
    let net = Net::default();
    net.cluster(3).await;
    net.until(2, |view| view.leader.is_some()).await;
    assert_eq!(net.node(2).propose(jobs(1)).await, Err(ProposeError::NotLeader { leader: Some(id(1)) }));
    let stranger = net.start(9, Box::new(Memory::new())).await.unwrap();
    assert_eq!(stranger.propose(jobs(1)).await, Err(ProposeError::NotLeader { leader: None }));
    stranger.clone().shutdown().await;
    assert_eq!(stranger.propose(jobs(1)).await, Err(ProposeError::Closed));
}

#[tokio::test(start_paused = true)]
async fn settings_that_make_no_sense_are_refused() {
    let net = Net::default();
    let even = QuorumConfig { voters_max: 2, ..config(1) };
    let hasty = Pace { lease: Duration::from_millis(300), ..Pace::default() };
    for bad in [even, QuorumConfig { pace: hasty, ..config(1) }] {
        let started = net.start_with(bad, Box::new(Memory::new())).await;
        assert!(matches!(started.err(), Some(QuorumError::Config(_))));
    }
}
