//! `bench actors`: asks and tells of 64 bytes, between two processes and between two threads.
//!
//! As with a raw TCP ping-pong, what goes between two processes depends on where the kernel puts them, more than on what is
//! measured. So each end has one thread, which is kept on a core of its own; the socket's own ping-pong is measured so in the
//! same run, before and after. The actor of the local case is on a second thread of the asking process, kept on the other core.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use starling::ClusterSecret;

use crate::measure::{Measured, Plan, Repeat, median};
use crate::peers::{self, Ask, Peer};
use crate::processes::{Process, end_with_starter, own_program};
use crate::raw_tcp::{Cores, RAW_TCP, RawTcp, available_cores, listening_on, pin};
use crate::report::{Line, Report, SIZE, STARLING, tell};

use parts::Size;

mod parts;

/// The subcommand's name in the lines.
const BENCH: &str = "actors";
/// The variable that holds the secret of this run's two nodes.
const SECRET_ENV: &str = "STARLING_SECRET";
/// How long the other process may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);
const ASKS: u32 = 20_000;
const ASKS_QUICK: u32 = 5_000;
const TELLS: u64 = 2_000_000;
const TELLS_QUICK: u64 = 500_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Ask,
    TellRemote,
    TellLocal,
}

impl Case {
    const ALL: [Case; 3] = [Case::Ask, Case::TellRemote, Case::TellLocal];

    fn name(self) -> &'static str {
        match self {
            Case::Ask => "ask-p50",
            Case::TellRemote => "tell-remote",
            Case::TellLocal => "tell-local",
        }
    }

    fn unit(self) -> &'static str {
        if self == Case::Ask { "us" } else { "thousand/s" }
    }

    fn driver_case(self) -> &'static str {
        if self == Case::Ask { "ask" } else { self.name() }
    }

    /// How many messages a run has.
    fn messages(self, plan: &Plan) -> u64 {
        match (self, plan.quick) {
            (Case::Ask, false) => ASKS.into(),
            (Case::Ask, true) => ASKS_QUICK.into(),
            (_, false) => TELLS,
            (_, true) => TELLS_QUICK,
        }
    }

    /// How many a peer's run has at most, so that it takes about as long, going by what is known of its speed.
    fn messages_of(self, peer: Peer, plan: &Plan) -> u64 {
        let most = match (self, peer) {
            (Case::Ask, Peer::Kameo) => 2_000,
            (Case::Ask, _) => 5_000,
            (Case::TellRemote, Peer::Kameo) => 20_000,
            (Case::TellRemote, _) => 200_000,
            (Case::TellLocal, _) => TELLS,
        };
        let most = if plan.quick { most / 4 } else { most };
        most.min(self.messages(plan))
    }

    /// What Starling's line says of how it was measured.
    fn note(self) -> &'static str {
        match self {
            Case::Ask => "a run is the median ask; encrypted, one core for each process",
            Case::TellRemote => "until all are handled; encrypted, one core for each process",
            Case::TellLocal => "until all are handled; two threads of one process, one core for each",
        }
    }
}

/// The other process' whole life: says its address on standard error, as raw TCP's does.
pub(crate) fn host(core: Option<usize>) -> anyhow::Result<()> {
    end_with_starter();
    if let Some(core) = core {
        pin(core)?;
    }
    let (secret, _) = ClusterSecret::find(None, None)?;
    parts::host(secret, |address| tell(format_args!("listening on {address}")))
}

/// Starts the other process.
fn start_host(secret: &ClusterSecret, core: Option<usize>) -> anyhow::Result<(Process, String)> {
    let mut command = Command::new(own_program()?);
    command.arg("actor-host").env(SECRET_ENV, secret.to_text()).stdout(Stdio::null());
    if let Some(core) = core {
        command.args(["--core", &core.to_string()]);
    }
    let process = Process::spawn("actor-host", command, listening_on)?;
    let address = process.found(PATIENCE)?;
    Ok((process, address))
}

/// The cores of the two ends: of this one and of the other. None if there are no two.
fn two_cores() -> anyhow::Result<Option<(usize, usize)>> {
    let cores = available_cores()?;
    Ok(cores.first().copied().zip(cores.get(1).copied()))
}

/// Measures everything that the plan wants.
pub(crate) fn run(plan: &Plan, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    let cases: Vec<Case> = Case::ALL.into_iter().filter(|case| plan.wants(case.name())).collect();
    let cores = two_cores()?;
    if cores.is_none() {
        tell(format_args!("{BENCH}: only one core may be used, so that nothing is kept on one"));
    }
    let asks = cases.contains(&Case::Ask);
    // Half of the runs before what is measured, and as many after it.
    let half = Plan { runs: plan.runs.div_ceil(2), ..plan.clone() };
    let raw = if asks && cores.is_some() { Some(RawTcp::start()?) } else { None };
    let before = raw.as_ref().map(|raw| ping_pongs(&half, raw)).transpose();
    let size = Size {
        asks: Case::Ask.messages(plan) as u32,
        tells: Case::TellRemote.messages(plan),
        runs: plan.runs,
        budget: plan.budget(),
        timeout: plan.timeout(),
    };
    tell(format_args!("{BENCH}: {STARLING}"));
    let measured = measure(&cases, size, cores);
    let after = raw.as_ref().map(|raw| ping_pongs(&half, raw)).transpose();
    let raw = before.and_then(|before| Ok(before.zip(after?).map(|(before, after)| together(before, after))));
    let unpinned = if asks && cores.is_some() { Some(unpinned_ask(size)) } else { None };
    match measured {
        Ok(measured) => {
            for (case, measured) in measured {
                report.push(line(case, plan, measured, raw.as_ref().ok().and_then(Option::as_ref), unpinned.as_ref()));
            }
        }
        Err(error) => {
            for case in &cases {
                report.push(Line::failed(BENCH, case.name(), STARLING, case.unit(), format!("{error:#}")));
            }
        }
    }
    let (case, unit) = (Case::Ask.name(), Case::Ask.unit());
    match &raw {
        Ok(Some(raw)) => {
            let note =
                "64 bytes on one socket, one core for each process; half of the runs before Starling, half after";
            report.push(Line::new(BENCH, case, RAW_TCP, unit, raw).note(note));
        }
        Ok(None) => {}
        Err(error) => report.push(Line::failed(BENCH, case, RAW_TCP, unit, format!("{error:#}"))),
    }
    for &peer in peers {
        if peer.is_actor_library() {
            peers::measure(peer, BENCH, asks_of(peer, &cases, plan), false, plan, report);
        } else {
            tell(format_args!("{BENCH}: {peer} is not measured"));
        }
    }
    Ok(())
}

/// Starling's side in a process and a thread of their own.
fn measure(
    cases: &[Case],
    size: Size,
    cores: Option<(usize, usize)>,
) -> anyhow::Result<Vec<(Case, anyhow::Result<Measured>)>> {
    let (own, other) = cores.unzip();
    let secret = ClusterSecret::generate();
    let (_host, address) = start_host(&secret, other)?;
    let cases = cases.to_vec();
    parts::on_thread(own, move || parts::measure(&address, secret, &cases, size, other))
}

/// The median ask, in seconds, where the kernel puts both ends as it likes.
fn unpinned_ask(size: Size) -> anyhow::Result<f64> {
    let mut measured = measure(&[Case::Ask], size, None)?;
    let (_, measured) = measured.pop().context("nothing was measured")?;
    median(&measured?.values).context("nothing was asked")
}

/// Medians of raw ping-pongs, in microseconds.
fn ping_pongs(plan: &Plan, raw: &RawTcp) -> anyhow::Result<Measured> {
    let mut repeat = Repeat::start(plan.runs, plan.budget());
    while repeat.wants_more() {
        let trips = Case::Ask.messages(plan) as u32;
        repeat.add(raw.ping_pong(Cores::Two, trips)?.context("there are no two cores")? * 1e6);
    }
    Ok(repeat.finish())
}

/// One measurement of two.
fn together(mut one: Measured, other: Measured) -> Measured {
    one.values.extend(other.values);
    one.used.cpu_s += other.used.cpu_s;
    one.used.peak_rss_mb = one.used.peak_rss_mb.max(other.used.peak_rss_mb);
    one
}

/// Starling's line of a case.
fn line(
    case: Case,
    plan: &Plan,
    measured: anyhow::Result<Measured>,
    raw: Option<&Measured>,
    unpinned: Option<&anyhow::Result<f64>>,
) -> Line {
    let mut measured = match measured {
        Ok(measured) => measured,
        Err(error) => return Line::failed(BENCH, case.name(), STARLING, case.unit(), format!("{error:#}")),
    };
    for value in &mut measured.values {
        *value = if case == Case::Ask { *value * 1e6 } else { *value / 1e3 };
    }
    let line = Line::new(BENCH, case.name(), STARLING, case.unit(), &measured)
        .note(case.note())
        .with(SIZE, case.messages(plan));
    if case != Case::Ask {
        return line;
    }
    let line = match (median(&measured.values), raw.and_then(|raw| median(&raw.values))) {
        (Some(own), Some(raw)) => line.with_figure("of_raw_tcp", own / raw),
        _ => line,
    };
    match unpinned {
        Some(Ok(seconds)) => line.with_figure("unpinned_us", seconds * 1e6),
        Some(Err(error)) => line.note(format!("kept on no core it fails: {error:#}")),
        None => line,
    }
}

/// What a peer is asked.
fn asks_of(peer: Peer, cases: &[Case], plan: &Plan) -> Vec<Ask> {
    let asks = cases.iter().map(|&case| {
        let n = case.messages_of(peer, plan);
        let figure = move |seconds: f64| if case == Case::Ask { seconds * 1e6 } else { n as f64 / seconds / 1e3 };
        let mut ask = Ask::new(case.name(), case.unit(), case.driver_case(), n, figure);
        ask.tell_size = true;
        let own = case.messages(plan);
        ask.note = match case {
            Case::Ask | Case::TellRemote => "one thread and one core for each process".to_owned(),
            Case::TellLocal => "two threads, kept on no core".to_owned(),
        };
        if n < own {
            ask.note.push_str(&format!("; {n} messages a run instead of {own}"));
        }
        ask
    });
    asks.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn plan(quick: bool) -> Plan {
        Plan { runs: 1, quick, workers: 2, threads: 1, only: Vec::new(), started: Instant::now() }
    }

    /// The host on a thread of its own, which ends with the test's process.
    fn host_of(secret: &ClusterSecret) -> String {
        let (ready, address) = std::sync::mpsc::sync_channel(1);
        let secret = secret.clone();
        std::thread::spawn(move || parts::host(secret, move |address| ready.send(address).unwrap()));
        address.recv().unwrap()
    }

    #[test]
    fn what_is_asked_comes_back_and_what_is_told_is_counted() {
        let secret = ClusterSecret::generate();
        let address = host_of(&secret);
        let (budget, timeout) = (Duration::ZERO, Duration::from_secs(60));
        let size = Size { asks: 20, tells: 3_000, runs: 1, budget, timeout };
        let measured =
            parts::on_thread(None, move || parts::measure(&address, secret, &Case::ALL, size, None)).unwrap();
        assert_eq!(measured.iter().map(|(case, _)| *case).collect::<Vec<_>>(), Case::ALL);
        for (case, measured) in measured {
            let values = measured.unwrap().values;
            assert!(values.len() == 1 && values[0] > 0.0, "{case:?}: {values:?}");
        }
    }

    #[test]
    fn a_line_is_in_the_units_of_its_case_and_tells_how_far_from_the_socket_it_is() {
        let measured = |value: f64| Measured { values: vec![value], ..Measured::default() };
        let raw = measured(40.0);
        let ask = line(Case::Ask, &plan(false), Ok(measured(50e-6)), Some(&raw), Some(&Ok(30e-6)));
        let ask = serde_json::to_value(ask).unwrap();
        assert_eq!((&ask["median"], &ask["unit"], &ask["of_raw_tcp"]), (&50.0.into(), &"us".into(), &1.25.into()));
        assert_eq!((&ask["unpinned_us"], &ask["n"]), (&30.0.into(), &20_000.into()));
        let tell = serde_json::to_value(line(Case::TellLocal, &plan(true), Ok(measured(3e6)), None, None)).unwrap();
        assert_eq!(
            (&tell["median"], &tell["unit"], &tell["n"]),
            (&3000.0.into(), &"thousand/s".into(), &500_000.into())
        );
    }

    #[test]
    fn a_slow_peer_is_asked_less_and_its_line_says_so() {
        let asks = asks_of(Peer::Kameo, &Case::ALL, &plan(false));
        let sizes: Vec<u64> = asks.iter().map(|ask| ask.n).collect();
        assert_eq!(sizes, [2_000, 20_000, 2_000_000]);
        assert!(asks[1].note.contains("20000 messages a run instead of 2000000"), "{}", asks[1].note);
        assert!(!asks[2].note.contains("instead"), "{}", asks[2].note);
        // 20,000 in two seconds.
        assert_eq!((asks[1].figure)(2.0), 10.0);
        assert_eq!((asks[0].figure)(400e-6), 400.0);
    }

    #[test]
    fn a_panic_where_it_is_measured_is_an_error() {
        let error = parts::on_thread::<()>(None, || panic!("for the test")).unwrap_err();
        assert_eq!(error.to_string(), "the measuring thread panicked");
    }
}
