//! What the actor peers share: how `bench` asks them (as it asks the Python drivers, see protocol.py), the process of the
//! other side, and how a case is timed and checked.
//!
//! As with Starling, each process has one thread, kept on a core of its own, for what goes from one to the other. What
//! stays within a process has two threads, which are not kept anywhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Deserialize;
use serde_json::json;

/// What an actor has counted, and the sum of the first bytes.
pub type Counted = (u64, u64);

/// The first byte of the message of this number, which the others follow.
pub fn first_byte(number: u64) -> u8 {
    number as u8
}

/// How the other process' actor is reached.
pub trait Remote: Sized {
    async fn connect(address: &str) -> anyhow::Result<Self>;
    /// Asks for an echo of the message of this number; gives whether it was one.
    async fn ask(&self, number: u64) -> anyhow::Result<bool>;
    /// Tells so many messages; gives what was counted, as soon as all was.
    async fn tell(&self, tells: u64) -> anyhow::Result<Counted>;
}

/// What `bench` asks.
#[derive(Deserialize)]
struct Request {
    case: String,
    n: u64,
    runs: u32,
    budget_s: f64,
}

/// The whole program. `host` is the other process: it starts the actor, hands on its address and stays; `local` tells so
/// many messages within the process and gives the time of that and what was counted.
pub fn main<R: Remote>(
    host: impl AsyncFnOnce(fn(&str)) -> anyhow::Result<()>,
    local: impl AsyncFn(u64) -> anyhow::Result<(Duration, Counted)>,
    note: &str,
) -> anyhow::Result<()> {
    let all = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    let own = *cores.first().context("no core may be used")?;
    if std::env::args().nth(1).as_deref() == Some("host") {
        pin(*cores.get(1).unwrap_or(&own))?;
        end_with_starter();
        return one_thread()?.block_on(host(say));
    }
    let (_host, address) = start_host()?;
    pin(own)?;
    let runtime = one_thread()?;
    let remote = match runtime.block_on(R::connect(&address)) {
        Ok(remote) => remote,
        Err(error) => {
            say(&json!({"error": format!("{error:#}")}).to_string());
            return Ok(());
        }
    };
    say(&json!({"ready": true}).to_string());
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let answer = match request.case.as_str() {
            "ask" => runtime.block_on(asks(&remote, &request)),
            "tell-remote" => runtime.block_on(tells(&request, async |tells| {
                let started = Instant::now();
                let counted = remote.tell(tells).await?;
                Ok((started.elapsed(), counted))
            })),
            "tell-local" => {
                sched_setaffinity(None, &all)?;
                let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                let answer = two.block_on(tells(&request, &local));
                pin(own)?;
                answer
            }
            other => bail!("there is no case {other}"),
        };
        say(&match answer {
            Ok(seconds) => json!({"seconds": seconds, "ok": true, "note": note}),
            Err(error) => json!({"error": format!("{error:#}")}),
        }
        .to_string());
    }
    Ok(())
}

/// The median of each run's asks.
async fn asks<R: Remote>(remote: &R, request: &Request) -> anyhow::Result<Vec<f64>> {
    let mut runs = Vec::new();
    let begun = Instant::now();
    while wants_more(request, &runs, begun) {
        let mut trips = Vec::new();
        // The first ones open what is opened late.
        let warm = request.n / 10;
        for number in 0..warm + request.n {
            let started = Instant::now();
            let echo = remote.ask(number).await?;
            if number >= warm {
                trips.push(started.elapsed().as_secs_f64());
            }
            ensure!(echo, "the answer is another than what was sent");
        }
        trips.sort_by(f64::total_cmp);
        runs.push(*trips.get(trips.len() / 2).context("nothing was asked")?);
    }
    Ok(runs)
}

/// The time of each run's tells.
async fn tells(
    request: &Request,
    tell: impl AsyncFn(u64) -> anyhow::Result<(Duration, Counted)>,
) -> anyhow::Result<Vec<f64>> {
    let mut runs = Vec::new();
    let expected: Counted = (request.n, (0..request.n).map(|number| u64::from(first_byte(number))).sum());
    let begun = Instant::now();
    while wants_more(request, &runs, begun) {
        let (took, counted) = tell(request.n).await?;
        ensure!(counted == expected, "{counted:?} was counted instead of {expected:?}");
        runs.push(took.as_secs_f64());
    }
    Ok(runs)
}

fn wants_more(request: &Request, runs: &[f64], begun: Instant) -> bool {
    let done = runs.len() as u32;
    let spent = begun.elapsed().as_secs_f64();
    done == 0 || done < request.runs && spent + spent / f64::from(done) <= request.budget_s
}

fn one_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// A line on standard output.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Who has started this may have gone; then the input ends, too.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn end_with_starter() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// The other process, which ends when its standard input closes, and its address.
fn start_host() -> anyhow::Result<(Child, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut host = command.arg("host").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(host.stdout.take().context("the host says nothing")?).read_line(&mut address)?;
    ensure!(!address.trim().is_empty(), "the host did not start");
    Ok((host, address.trim().to_owned()))
}
