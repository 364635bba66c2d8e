//! The other systems: their Python environment, their processes, and the drivers that ask them.
//!
//! The program makes its own environment under `.bench/` in the repository, with pinned versions, never the system's. A
//! driver is a small script of `bench/peers/`; `protocol.py` there says how it is talked to. What it answers is input:
//! checked, and on any fault a line that says so. A peer that fails never ends the run.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

#[cfg(feature = "queries")]
use datafusion::DATAFUSION_VERSION;

use crate::measure::{Measured, Plan, median};
use crate::processes::Process;
use crate::report::{Line, Report, SIZE, tell};
use crate::usage::{Meter, resident_bytes};

mod programs;

/// A system to measure beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Dask,
    Ray,
    Hyperqueue,
    Polars,
    Duckdb,
    Datafusion,
    Ballista,
    Kameo,
    Ractor,
}

impl Peer {
    /// Its name in the lines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Dask => "dask",
            Peer::Ray => "ray",
            Peer::Hyperqueue => "hyperqueue",
            Peer::Polars => "polars",
            Peer::Duckdb => "duckdb",
            Peer::Datafusion => "datafusion",
            Peer::Ballista => "ballista",
            Peer::Kameo => "kameo",
            Peer::Ractor => "ractor",
        }
    }

    /// What it needs, pinned.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Peer::Dask => {
                &["dask==2026.8.0", "distributed==2026.8.0", "pandas==3.1.1", "pyarrow==26.0.1", "numpy==2.4.6"]
            }
            Peer::Ray => &["ray==2.60.0"],
            Peer::Hyperqueue => &["hyperqueue==0.27.0", "cloudpickle==3.1.2", "tqdm==4.70.1"],
            Peer::Polars => &["polars==2.1.0"],
            Peer::Duckdb => &["duckdb==2.0.0", "pyarrow==26.0.1"],
            Peer::Datafusion => &["datafusion==55.0.0", "pyarrow==26.0.1"],
            Peer::Ballista => &["ballista==54.1.0", "pyarrow==26.0.1"],
            Peer::Kameo => &["kameo==0.22.2"],
            Peer::Ractor => &["ractor==0.16.5", "ractor_cluster==0.16.5"],
        }
    }

    /// Its version, for the notes.
    fn version(self, bench: &str) -> String {
        if self.is_own_program(bench) {
            return format!("DataFusion {DATAFUSION_VERSION} in one process of this program");
        }
        self.packages()[0].to_owned()
    }

    /// Whether it is this program that does it, and not a script.
    fn is_own_program(self, bench: &str) -> bool {
        self == Peer::Datafusion && matches!(bench, "tpch" | "h2o")
    }

    /// Whether it is a program of `bench/peers/` in Rust, which is about actors.
    pub(crate) fn is_actor_library(self) -> bool {
        matches!(self, Peer::Kameo | Peer::Ractor)
    }

    /// Whether it is processes of ours that its driver connects to.
    fn is_cluster(self) -> bool {
        self == Peer::Dask
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The scripts, which are written out before they are run.
const SCRIPTS: &[(&str, &str)] = &[
    ("protocol.py", include_str!("../peers/protocol.py")),
    ("run_module.py", include_str!("../peers/run_module.py")),
    ("bag_dask.py", include_str!("../peers/bag_dask.py")),
    ("csv_answers.py", include_str!("../peers/csv_answers.py")),
    ("csv_dask.py", include_str!("../peers/csv_dask.py")),
    ("csv_datafusion.py", include_str!("../peers/csv_datafusion.py")),
    ("csv_duckdb.py", include_str!("../peers/csv_duckdb.py")),
    ("csv_polars.py", include_str!("../peers/csv_polars.py")),
    ("h2o_dask.py", include_str!("../peers/h2o_dask.py")),
    ("h2o_duckdb.py", include_str!("../peers/sql_duckdb.py")),
    ("h2o_polars.py", include_str!("../peers/sql_polars.py")),
    ("sql.py", include_str!("../peers/sql.py")),
    ("tpch_dask.py", include_str!("../peers/tpch_dask.py")),
    ("tpch_duckdb.py", include_str!("../peers/sql_duckdb.py")),
    ("tpch_polars.py", include_str!("../peers/sql_polars.py")),
    ("taskbench_dask.py", include_str!("../peers/taskbench_dask.py")),
    ("tasks_dask.py", include_str!("../peers/tasks_dask.py")),
    ("tasks_hyperqueue.py", include_str!("../peers/tasks_hyperqueue.py")),
    ("tasks_ray.py", include_str!("../peers/tasks_ray.py")),
    ("transfer_dask.py", include_str!("../peers/transfer_dask.py")),
];

/// The subcommand of this program that is DataFusion alone.
pub(crate) const DATAFUSION_ALONE: &str = "datafusion-alone";
/// Without the queries there is nothing to ask it.
#[cfg(not(feature = "queries"))]
const DATAFUSION_VERSION: &str = "none";

/// How long a driver may take to import its library and start what it starts.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a driver may take to stop what it has started.
const GRACE: Duration = Duration::from_secs(5);

/// One case as a peer is asked it.
pub(crate) struct Ask {
    /// The case's name in the lines.
    pub(crate) case: String,
    pub(crate) unit: &'static str,
    /// The driver's name for it.
    pub(crate) driver_case: String,
    /// Its size.
    pub(crate) n: u64,
    /// What else goes with the request.
    pub(crate) request: Map<String, Value>,
    /// The unit's figure from a run's seconds.
    pub(crate) figure: Box<dyn Fn(f64) -> f64>,
    /// Whether the driver's `answer` is right, if it gives one.
    pub(crate) check: Box<dyn Fn(&Value) -> bool>,
    /// The seconds that a run would take without any cost of the system's.
    pub(crate) ideal_s: Option<f64>,
    /// Whether the figure is the growth of the scheduler's memory instead, for each of `n`.
    pub(crate) scheduler_memory: bool,
    /// Whether its size differs from system to system, so that the line has to tell it.
    pub(crate) tell_size: bool,
    /// Something to say of it.
    pub(crate) note: String,
}

impl Ask {
    /// A case of size `n` whose figure is made from a run's seconds.
    pub(crate) fn new(
        case: impl Into<String>,
        unit: &'static str,
        driver_case: impl Into<String>,
        n: u64,
        figure: impl Fn(f64) -> f64 + 'static,
    ) -> Ask {
        Ask {
            case: case.into(),
            unit,
            driver_case: driver_case.into(),
            n,
            request: Map::new(),
            figure: Box::new(figure),
            check: Box::new(|_| true),
            ideal_s: None,
            scheduler_memory: false,
            tell_size: false,
            note: String::new(),
        }
    }
}

/// What a driver answers to a request.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Answer {
    seconds: Vec<f64>,
    ok: bool,
    note: String,
    answer: Value,
    extra: Map<String, Value>,
    error: Option<String>,
    ready: bool,
}

impl Answer {
    fn parse(line: &str) -> anyhow::Result<Answer> {
        let answer: Answer = serde_json::from_str(line).context("the driver's answer is not understood")?;
        if let Some(error) = &answer.error {
            bail!("{error}");
        }
        if !answer.ready && (answer.seconds.is_empty() || answer.seconds.iter().any(|s| !s.is_finite() || *s < 0.0)) {
            bail!("the driver's answer holds no times");
        }
        Ok(answer)
    }
}

/// Installs what these peers need, so that it is no part of any measurement's time. Where that fails, it is told when the
/// peer is to be started, in each of its lines.
pub(crate) fn install(bench: &str, peers: &[Peer]) {
    for &peer in peers.iter().filter(|peer| !peer.is_own_program(bench)) {
        let program = if peer.is_actor_library() { programs::build(peer) } else { Venv::in_repository().with(peer) };
        if let Err(error) = program {
            tell(format_args!("{peer} cannot be installed: {error:#}"));
        }
    }
}

/// Measures a peer in these cases by the script `bench/peers/{bench}_{peer}.py`. With `warm_up` the first case is asked
/// once before it counts, for a driver that does not see to that itself.
pub(crate) fn measure(
    peer: Peer,
    bench: &'static str,
    asks: Vec<Ask>,
    warm_up: bool,
    plan: &Plan,
    report: &mut Report,
) {
    let mut session: Option<Session> = None;
    let mut cannot_start: Option<String> = None;
    for ask in asks {
        if !plan.wants(&ask.case) {
            continue;
        }
        let failed = |reason: &str| Line::failed(bench, ask.case.clone(), peer.name(), ask.unit, reason);
        if plan.is_over() {
            report.push(failed("not begun: --quick's time is over"));
            continue;
        }
        if session.is_none() && cannot_start.is_none() {
            tell(format_args!("{bench}: starting {peer}"));
            match Session::start(peer, bench, plan) {
                Ok(mut started) => {
                    if warm_up {
                        // The first question pays for what is loaded late. If it fails, it will again, and be told.
                        let _ = started.ask(&ask, plan, 1);
                    }
                    session = (!started.is_lost).then_some(started);
                }
                Err(error) => cannot_start = Some(format!("{error:#}")),
            }
        }
        let Some(running) = &mut session else {
            report.push(failed(
                cannot_start.as_deref().unwrap_or("it ended, or did not answer, when it was first asked"),
            ));
            continue;
        };
        tell(format_args!("{bench}: {} on {peer}", ask.case));
        match running.ask(&ask, plan, plan.runs) {
            Ok((answer, measured)) => report.push(line(peer, bench, &ask, answer, &measured)),
            Err(error) => {
                report.push(failed(&format!("{error:#}")));
                // One that did not answer may still be at it: the next case gets a new one.
                if running.is_lost {
                    session = None;
                }
            }
        }
    }
}

fn line(peer: Peer, bench: &'static str, ask: &Ask, answer: Answer, measured: &Measured) -> Line {
    let wrong = !answer.ok || !(ask.check)(&answer.answer);
    let mut line = Line::new(bench, ask.case.clone(), peer.name(), ask.unit, measured)
        .wrong(wrong)
        .note(if wrong { "the answer is wrong" } else { "" })
        .note(&ask.note)
        .note(&answer.note)
        .note(peer.version(bench));
    if ask.tell_size {
        line = line.with(SIZE, ask.n);
    }
    if let (Some(ideal), Some(median)) = (ask.ideal_s, median(&answer.seconds)) {
        line = line.with_figure("efficiency", ideal / median);
    }
    if let Some(p99) = answer.extra.get("p99_us").and_then(Value::as_f64) {
        line = line.with_figure("p99", p99);
    }
    line
}

/// A peer that runs, with its driver.
struct Session {
    // Dropped in this order: the driver takes leave of its cluster, the workers of their scheduler.
    driver: Process,
    answers: Receiver<String>,
    _workers: Vec<Process>,
    scheduler: Option<Process>,
    _directory: TempDir,
    /// The driver does not answer any more.
    is_lost: bool,
}

impl Session {
    fn start(peer: Peer, bench: &str, plan: &Plan) -> anyhow::Result<Session> {
        let own_program = peer.is_own_program(bench);
        let is_script = !own_program && !peer.is_actor_library();
        let python = if is_script { Venv::in_repository().with(peer)? } else { PathBuf::new() };
        let directory = tempfile::Builder::new().prefix("starling-bench-").tempdir()?;
        let scripts = directory.path().join("peers");
        fs::create_dir(&scripts)?;
        for (name, text) in SCRIPTS {
            fs::write(scripts.join(name), text)?;
        }
        let run = |script: &str| {
            let mut command = Command::new(&python);
            command.arg(scripts.join(script)).current_dir(directory.path());
            // The functions that a driver sends are looked for by their module's name.
            command.env("PYTHONPATH", &scripts).env("PYTHONUNBUFFERED", "1");
            command
        };
        let mut workers = Vec::new();
        let mut scheduler = None;
        let mut address = "-".to_owned();
        if peer.is_cluster() {
            let mut command = run("run_module.py");
            command.args(["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]);
            command.args(["--dashboard-address", "127.0.0.1:0"]).stdout(Stdio::null());
            let process = Process::spawn("dask scheduler", command, dask_address)?;
            address = process.found(START_TIMEOUT)?;
            scheduler = Some(process);
            for number in 0..plan.workers {
                let mut command = run("run_module.py");
                command.args(["distributed.cli.dask_worker", &address, "--no-nanny", "--host", "127.0.0.1"]);
                command.args(["--nthreads", &plan.threads.to_string(), "--dashboard-address", "127.0.0.1:0"]);
                command.args(["--name", &format!("worker-{number}")]).stdout(Stdio::null());
                workers.push(Process::spawn(format!("dask worker-{number}"), command, |_| None)?);
            }
        }
        // A cluster's driver is told how many workers to wait for; what is one process, how many threads to use.
        let size = if peer.is_cluster() { plan.workers } else { plan.parallelism() };
        let mut command = if own_program {
            let mut command = Command::new(crate::processes::own_program()?);
            command.arg(DATAFUSION_ALONE);
            command
        } else if peer.is_actor_library() {
            Command::new(programs::build(peer)?)
        } else {
            let mut command = run(&format!("{bench}_{peer}.py"));
            command.arg(address);
            command
        };
        command.arg(size.to_string()).stdout(Stdio::piped());
        let mut driver = Process::spawn(format!("{peer} driver"), command, |_| None)?.with_grace(GRACE);
        let answers = read_lines(&mut driver)?;
        let mut session =
            Session { driver, answers, _workers: workers, scheduler, _directory: directory, is_lost: false };
        let ready = session.answer(START_TIMEOUT)?;
        if !ready.ready {
            bail!("the driver's first answer is not that it is ready");
        }
        Ok(session)
    }

    fn answer(&mut self, patience: Duration) -> anyhow::Result<Answer> {
        match self.answers.recv_timeout(patience) {
            Ok(line) => Answer::parse(&line),
            Err(RecvTimeoutError::Timeout) => {
                self.is_lost = true;
                bail!("no answer within {} s", patience.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.is_lost = true;
                bail!("the driver has ended{}", self.driver.last_words())
            }
        }
    }

    fn ask(&mut self, ask: &Ask, plan: &Plan, runs: u32) -> anyhow::Result<(Answer, Measured)> {
        let mut request = ask.request.clone();
        request.insert("case".into(), json!(ask.driver_case));
        request.insert("n".into(), json!(ask.n));
        request.insert("runs".into(), json!(runs));
        request.insert("budget_s".into(), json!(plan.peer_budget().as_secs_f64()));
        let scheduler = self.scheduler.as_ref().map(Process::pid);
        let before = scheduler.and_then(resident_bytes);
        let meter = Meter::start();
        self.driver.write(&format!("{}\n", Value::Object(request)))?;
        let answer = self.answer(plan.timeout() + plan.peer_budget())?;
        let used = meter.stop();
        let values = if ask.scheduler_memory {
            let after = scheduler.and_then(resident_bytes);
            let grown = before.zip(after).map(|(before, after)| after.saturating_sub(before));
            vec![grown.context("its scheduler is no process of its own")? as f64 / ask.n as f64]
        } else {
            answer.seconds.iter().map(|seconds| (ask.figure)(*seconds)).collect()
        };
        Ok((answer, Measured { values, used }))
    }
}

/// The address in what Dask's scheduler and worker say when they start.
fn dask_address(line: &str) -> Option<String> {
    let (_, address) = line.split_once("Scheduler at:")?;
    Some(address.trim().to_owned()).filter(|address| address.starts_with("tcp://"))
}

/// The driver's lines, read in a thread so that they can be waited for.
fn read_lines(driver: &mut Process) -> anyhow::Result<Receiver<String>> {
    let stdout = driver.take_stdout().context("the driver's output is not connected")?;
    let (send, receive) = sync_channel(4);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

/// The Python environment.
struct Venv {
    directory: PathBuf,
}

impl Venv {
    fn in_repository() -> Venv {
        Venv { directory: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.bench/venv") }
    }

    /// The environment's Python, with the peer installed in it.
    fn with(&self, peer: Peer) -> anyhow::Result<PathBuf> {
        if peer == Peer::Ballista {
            bail!("not measured: {} is published as source only, and is not built here", peer.packages()[0]);
        }
        let python = self.directory.join("bin/python");
        if !python.exists() {
            fs::create_dir_all(&self.directory)?;
            let mut command = Command::new("python3");
            run_quietly(command.args(["-m", "venv"]).arg(&self.directory))?;
        }
        let wanted = peer.packages().join("\n");
        let marker = self.directory.join(format!("installed-{peer}"));
        if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
            return Ok(python);
        }
        tell(format_args!("installing {} into {}", peer.packages().join(" "), self.directory.display()));
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
        run_quietly(command.args(peer.packages()))?;
        fs::write(&marker, wanted)?;
        Ok(python)
    }
}

/// Runs a command to its end; an error holds the last line that it said.
fn run_quietly(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing said");
        bail!("{name} failed: {last}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_the_times_of_its_runs() {
        let answer = Answer::parse(r#"{"seconds": [0.5, 0.25], "ok": true, "note": "x", "answer": {"records": 7}}"#);
        let answer = answer.unwrap();
        assert_eq!(answer.seconds, [0.5, 0.25]);
        assert!(answer.ok);
        assert_eq!(answer.answer["records"], 7);
    }

    #[test]
    fn an_error_and_nonsense_are_errors_and_not_figures() {
        let error = Answer::parse(r#"{"error": "ParserError: EOF inside string"}"#).unwrap_err();
        assert_eq!(error.to_string(), "ParserError: EOF inside string");
        for line in ["", "Traceback", "[]", "{}", r#"{"seconds": []}"#, r#"{"seconds": [-1.0]}"#, r#"{"second": 1}"#] {
            assert!(Answer::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn dask_tells_its_address() {
        let line = "2026-11-22 16:07:29 - distributed.scheduler - INFO -   Scheduler at:     tcp://127.0.0.1:43157";
        assert_eq!(dask_address(line).as_deref(), Some("tcp://127.0.0.1:43157"));
        assert_eq!(dask_address("Scheduler at: nowhere"), None);
    }

    #[test]
    fn every_version_is_pinned() {
        for peer in Peer::value_variants() {
            assert!(peer.packages().iter().all(|package| package.contains("==")), "{peer}");
        }
    }
}
