//! One run: faults and proposals for a while, then peace, and a look at everything all the time.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_core::ids::NodeId;
use tokio::time::{Instant, sleep};

use super::Report;
use super::committed_is_kept::Oracle;
use super::converges;
use super::net::Net;
use super::one_leader_a_term::OneLeaderATerm;
use super::plan::Plan;
use super::world::World;
use crate::rng::Rng;

/// For how long peace may take to show, in simulated time. It includes the patience with who is gone, and one handover.
const PEACE: Duration = Duration::from_secs(90);

/// One run.
pub(crate) struct Run {
    rng: Rng,
    world: World,
    oracle: Oracle,
    leaders: OneLeaderATerm,
    report: Report,
    began: Instant,
    trace: Option<fn(&str)>,
}

/// Runs a seed to its end.
pub(crate) async fn run(seed: u64, trace: Option<fn(&str)>) -> Result<Report, String> {
    let mut rng = Rng::new(seed);
    let plan = Plan::new(&mut rng);
    let net = Net::new(Rng::new(rng.bits()), plan.delay_ms, plan.lost, plan.doubled);
    let mut run = Run {
        rng,
        world: World::new(plan, net),
        oracle: Oracle::default(),
        leaders: OneLeaderATerm::default(),
        report: Report::default(),
        began: Instant::now(),
        trace,
    };
    run.tell(|run| format!("{:?}", run.world.plan));
    let ended = run.all().await;
    for number in run.world.numbers(true) {
        run.world.crash(number).await;
    }
    ended?;
    run.report.add(&run.world.net.report());
    run.report.terms = run.leaders.terms();
    run.report.committed = run.oracle.acknowledged();
    Ok(run.report)
}

impl Run {
    async fn all(&mut self) -> Result<(), String> {
        self.begin().await?;
        self.faults().await?;
        self.peace().await
    }

    /// Node 1 founds, the others come.
    async fn begin(&mut self) -> Result<(), String> {
        self.world.start(0).await?;
        let founder = self.world.nodes[0].quorum.clone().ok_or("the founder is gone")?;
        founder.found().await.map_err(|error| format!("founding: {error}"))?;
        drop(founder);
        for number in 1..self.world.nodes.len() {
            self.world.start(number).await?;
        }
        self.world.tell_all();
        self.live(Duration::from_secs(5)).await
    }

    async fn faults(&mut self) -> Result<(), String> {
        let end = Instant::now() + Duration::from_millis(self.world.plan.faults_ms);
        while Instant::now() < end {
            let pause = self.rng.between(50, self.world.plan.pause_ms);
            self.live(Duration::from_millis(pause)).await?;
            self.fault().await?;
        }
        Ok(())
    }

    async fn fault(&mut self) -> Result<(), String> {
        let any = self.rng.below(self.world.nodes.len() as u64) as usize;
        match self.rng.below(100) {
            0..20 => self.crash(any).await,
            20..32 => {
                let (after, part) = (self.rng.below(4), self.rng.below(100));
                self.world.nodes[any].disk.die_in_write(after, part);
            }
            32..60 => {
                if let Some(down) = self.rng.pick(&self.world.numbers(false)).copied() {
                    self.restart(down).await?;
                }
            }
            60..70 => {
                self.fault_is("partition");
                let side: BTreeSet<usize> = (0..self.world.nodes.len()).filter(|_| self.rng.chance(40)).collect();
                self.cut_between(&side, true);
            }
            70..78 => {
                self.fault_is("one-way");
                self.cut_between(&BTreeSet::from([any]), false);
            }
            78..92 => {
                self.fault_is("heal");
                self.world.net.heal();
                self.world.tell_all();
            }
            _ => {
                self.fault_is("wrong-hint");
                let heard: BTreeSet<NodeId> =
                    self.world.nodes.iter().map(|node| node.id).filter(|_| self.rng.chance(50)).collect();
                let live = self.world.ranked(&heard);
                self.world.running().for_each(|(_, quorum)| quorum.candidates(live.clone()));
            }
        }
        // The mesh finds out, sooner or later or not before the next change.
        if self.rng.chance(60) {
            self.world.tell_all();
        }
        Ok(())
    }

    fn cut_between(&self, side: &BTreeSet<usize>, both: bool) {
        for (a, from) in self.world.nodes.iter().enumerate() {
            for (b, to) in self.world.nodes.iter().enumerate() {
                if side.contains(&a) && !side.contains(&b) {
                    self.world.net.cut(from.id, to.id);
                    if both {
                        self.world.net.cut(to.id, from.id);
                    }
                }
            }
        }
    }

    async fn crash(&mut self, number: usize) {
        if self.world.nodes[number].quorum.is_some() {
            self.fault_is("crash");
            self.tell(|run| format!("node {} crashes", run.world.nodes[number].id));
            self.world.crash(number).await;
        }
    }

    async fn restart(&mut self, number: usize) -> Result<(), String> {
        self.fault_is("restart");
        self.tell(|run| format!("node {} starts", run.world.nodes[number].id));
        self.world.start(number).await
    }

    async fn peace(&mut self) -> Result<(), String> {
        self.tell(|_| "peace".to_owned());
        self.world.net.heal();
        self.world.net.calm();
        for number in self.world.numbers(true) {
            // One may be about to die in its next write; then that is its last death.
            if self.world.nodes[number].disk.is_armed() {
                self.crash(number).await;
            }
        }
        for number in self.world.numbers(false) {
            self.restart(number).await?;
        }
        self.world.tell_all();
        self.converge().await?;
        // Who leads may still make room for a better one, so one proposal may come at the wrong moment.
        let before = self.oracle.acknowledged();
        for _ in 0..8 {
            self.propose_at_the_leader();
            self.live(Duration::from_secs(1)).await?;
        }
        if self.oracle.acknowledged() == before {
            return Err("nothing is agreed on in peace".to_owned());
        }
        self.converge().await
    }

    async fn converge(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PEACE;
        while let Some(missing) = converges::what_is_missing(&self.world, &self.oracle) {
            if Instant::now() > deadline {
                return Err(format!("after {} s of peace: {missing}", PEACE.as_secs()));
            }
            self.live(Duration::from_millis(250)).await?;
        }
        Ok(())
    }

    /// Lets time pass, and looks at everything again and again.
    async fn live(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(Duration::from_millis(self.rng.between(1, 30))).await;
            self.report.looks += 1;
            self.leaders.check(&self.world)?;
            self.oracle.check(&self.world)?;
            for number in self.world.numbers(true) {
                if self.world.nodes[number].disk.has_died() {
                    self.fault_is("torn-write");
                    self.crash(number).await;
                }
            }
            if self.rng.chance(5) {
                self.propose();
            }
        }
        Ok(())
    }

    /// Anyone may try; mostly it is who seems to lead.
    fn propose(&mut self) {
        if self.rng.chance(80) {
            return self.propose_at_the_leader();
        }
        let running = self.world.numbers(true);
        if let Some(number) = self.rng.pick(&running).copied() {
            self.propose_at(number);
        }
    }

    fn propose_at_the_leader(&mut self) {
        let leads = |number: &usize| {
            let quorum = self.world.nodes[*number].quorum.as_ref();
            quorum.is_some_and(|quorum| quorum.view().borrow().is_leader)
        };
        if let Some(number) = self.world.numbers(true).into_iter().find(leads) {
            self.propose_at(number);
        }
    }

    fn propose_at(&mut self, number: usize) {
        let node = &mut self.world.nodes[number];
        let Some(quorum) = node.quorum.clone() else { return };
        let (entry, change) = self.oracle.next(self.rng.below(400) as usize);
        let oracle = self.oracle.clone();
        while node.proposals.try_join_next().is_some() {}
        node.proposals.spawn(async move {
            if quorum.propose(change).await.is_ok() {
                oracle.acknowledge(entry);
            }
        });
    }

    fn fault_is(&mut self, name: &'static str) {
        self.tell(|_| name.to_owned());
        self.report.fault(name);
    }

    fn tell(&self, what: impl FnOnce(&Run) -> String) {
        if let Some(tell) = self.trace {
            let millis = self.began.elapsed().as_millis();
            tell(&format!("{millis:>7} ms  {}", what(self)));
        }
    }
}
