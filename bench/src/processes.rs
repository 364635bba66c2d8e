//! Processes that the program starts, and the cluster of them.
//!
//! A process that is started here holds its end of a pipe as standard input and ends when that closes, so that nothing
//! outlives a program that was killed. Whatever still runs when its handle is dropped is killed by its number.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use starling::{Cluster, ClusterSecret, ConnectOptions};
use tempfile::TempDir;

use crate::measure::Plan;
use crate::raw_tcp::listening_on;
use crate::usage;

/// How many of a process' last lines are kept for the error that may come.
const TAIL_LINES: usize = 12;
/// How long a node may take to start, or the workers to join.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// This program's own file.
pub(crate) fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("the program's own file cannot be found")
}

/// Ends this process as soon as its starter is gone, which holds the other end of its standard input.
pub(crate) fn end_with_starter() {
    std::thread::spawn(|| {
        // An error, too, says that nobody is there.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// A process of ours, killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Said>,
    /// How long it may take to end by itself once its standard input is closed.
    grace: Duration,
}

/// What a process says on standard error.
#[derive(Default)]
struct Said {
    state: Mutex<SaidState>,
    changed: Condvar,
}

#[derive(Default)]
struct SaidState {
    tail: VecDeque<String>,
    /// The first thing that was looked for.
    found: Option<String>,
    ended: bool,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, SaidState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, stderr: impl Read, look_for: fn(&str) -> Option<String>) {
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        // A process may say what is no UTF-8.
        while lines.read_until(b'\n', &mut line).is_ok_and(|nbytes| nbytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let mut state = self.lock();
            if state.found.is_none() {
                state.found = look_for(&text);
            }
            if state.tail.len() == TAIL_LINES {
                state.tail.pop_front();
            }
            state.tail.push_back(text);
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

impl Process {
    /// Starts `command`, which says somewhere on standard error what `look_for` finds. Its standard output is as the
    /// command has it.
    pub(crate) fn spawn(
        name: impl Into<String>,
        mut command: Command,
        look_for: fn(&str) -> Option<String>,
    ) -> anyhow::Result<Process> {
        let name = name.into();
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let said = Arc::new(Said::default());
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || said.listen(stderr, look_for));
        }
        let stdin = child.stdin.take();
        Ok(Process { name, child, stdin, said, grace: Duration::ZERO })
    }

    /// May take so long to end by itself, before it is killed.
    pub(crate) fn with_grace(mut self, grace: Duration) -> Process {
        self.grace = grace;
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it writes its answers, if the command has that piped; once.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("its input is closed")?;
        stdin.write_all(text.as_bytes()).with_context(|| format!("{} does not read", self.name))?;
        Ok(stdin.flush()?)
    }

    /// What was looked for, once it is said.
    pub(crate) fn found(&self, patience: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + patience;
        let mut state = self.said.lock();
        loop {
            if let Some(found) = &state.found {
                return Ok(found.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                drop(state);
                bail!("{} did not start{}", self.name, self.last_words());
            }
            state = self.said.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The end of what it said, for an error.
    pub(crate) fn last_words(&self) -> String {
        let state = self.said.lock();
        match state.tail.iter().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => format!(": {}", line.chars().take(300).collect::<String>()),
            None => String::new(),
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("{} cannot be killed", self.name))
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What it has started may have another parent once it is gone; the start times tell them from strangers.
        let started: Vec<(u32, Option<u64>)> =
            usage::tree(self.pid()).into_iter().map(|pid| (pid, usage::start_time(pid))).collect();
        self.stdin.take();
        let deadline = Instant::now() + self.grace;
        while Instant::now() < deadline && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(20));
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (pid, start_time) in started {
            if pid != self.child.id() && start_time.is_some() && usage::start_time(pid) == start_time {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
            }
        }
    }
}

/// A cluster of real processes: a scheduler and workers, on loopback, with a secret of its own.
pub(crate) struct NodeProcesses {
    // Dropped in this order: workers first, so that none looks for a scheduler that is gone.
    workers: Vec<Process>,
    scheduler: Process,
    address: String,
    secret: ClusterSecret,
    /// How many threads each worker has.
    threads: u32,
    /// How many workers were ever started.
    started: usize,
    directory: TempDir,
}

impl NodeProcesses {
    /// Starts the scheduler and the workers.
    pub(crate) fn start(plan: &Plan) -> anyhow::Result<NodeProcesses> {
        let (directory, secret) = directory_with_secret()?;
        let scheduler = node(&directory, "scheduler", &["--role", "scheduler", "--no-data-dir"])?;
        let address = scheduler.found(START_TIMEOUT)?;
        let (workers, threads) = (Vec::new(), plan.threads);
        let mut nodes = NodeProcesses { workers, scheduler, address, secret, threads, started: 0, directory };
        for _ in 0..plan.workers {
            let worker = nodes.start_worker()?;
            nodes.workers.push(worker);
        }
        nodes.wait_until_listening()?;
        Ok(nodes)
    }

    fn start_worker(&mut self) -> anyhow::Result<Process> {
        let name = worker_name(self.started);
        self.started += 1;
        let args = ["--role", "worker", "--join", &self.address, "--threads", &self.threads.to_string()];
        node(&self.directory, &name, &args)
    }

    /// Waits until every worker has begun to listen.
    pub(crate) fn wait_until_listening(&self) -> anyhow::Result<()> {
        for worker in &self.workers {
            worker.found(START_TIMEOUT)?;
        }
        Ok(())
    }

    /// Kills the worker at this place of the list (modulo its length) as `kill -9` does, and starts a new one for it. The
    /// new one may still have to join.
    #[cfg(feature = "queries")]
    pub(crate) fn replace_worker(&mut self, place: usize) -> anyhow::Result<()> {
        let place = place % self.workers.len().max(1);
        self.workers.get_mut(place).context("the cluster has no workers")?.kill()?;
        self.workers[place] = self.start_worker()?;
        Ok(())
    }

    /// The names of the workers that run.
    #[cfg(feature = "queries")]
    pub(crate) fn worker_names(&self) -> Vec<String> {
        self.workers.iter().map(|worker| worker.name.trim_start_matches("node ").to_owned()).collect()
    }

    /// A client of the cluster, once all workers are there.
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        let options =
            ConnectOptions { secret: Some(self.secret.clone()), name: Some("bench".into()), ..Default::default() };
        let cluster = Cluster::connect_with(&self.address, options).await?;
        tokio::time::timeout(START_TIMEOUT, cluster.wait_for_workers(self.workers.len()))
            .await
            .map_err(|_| anyhow!("the workers did not join{}", self.last_words()))??;
        Ok(cluster)
    }

    pub(crate) fn scheduler_pid(&self) -> u32 {
        self.scheduler.pid()
    }

    /// What the processes said last, for an error.
    pub(crate) fn last_words(&self) -> String {
        let all = std::iter::once(&self.scheduler).chain(&self.workers);
        all.map(|process| format!("; {}{}", process.name, process.last_words())).collect()
    }
}

/// A folder for one cluster, with its secret in it.
pub(crate) fn directory_with_secret() -> anyhow::Result<(TempDir, ClusterSecret)> {
    let directory = tempfile::Builder::new().prefix("starling-bench-").tempdir()?;
    let secret = ClusterSecret::generate();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(secret_file(&directory))?;
    file.write_all(secret.to_text().as_bytes())?;
    Ok((directory, secret))
}

fn secret_file(directory: &TempDir) -> PathBuf {
    directory.path().join("secret")
}

fn worker_name(number: usize) -> String {
    format!("worker-{number}")
}

/// Starts a node of this cluster on loopback; it says where it listens.
pub(crate) fn node(directory: &TempDir, name: &str, args: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(own_program()?);
    command.arg("node").args(["--listen", "/ip4/127.0.0.1/tcp/0", "--name", name]).args(args);
    command.arg("--secret-file").arg(secret_file(directory)).stdout(Stdio::null());
    command.env_remove("STARLING_SECRET");
    Process::spawn(format!("node {name}"), command, listening_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("sh", command, listening_on).unwrap()
    }

    #[test]
    fn what_a_process_says_is_found_among_its_lines() {
        let process = shell("echo starting >&2; echo listening on 127.0.0.1:5 >&2; cat");
        assert_eq!(process.found(Duration::from_secs(20)).unwrap(), "127.0.0.1:5");
    }

    #[test]
    fn a_process_that_ends_without_saying_it_is_an_error_with_its_last_words() {
        let process = shell("echo the port is in use >&2");
        let error = process.found(Duration::from_secs(20)).unwrap_err();
        assert_eq!(error.to_string(), "sh did not start: the port is in use");
    }

    #[test]
    fn dropping_a_process_ends_it_and_what_it_has_started() {
        let process = shell("sleep 600 & echo listening on $! >&2; wait");
        let sleeper: u32 = process.found(Duration::from_secs(20)).unwrap().parse().unwrap();
        let (pid, started) = (process.pid(), usage::start_time(sleeper));
        assert!(started.is_some());
        drop(process);
        assert_eq!(usage::start_time(pid), None);
        // Its new parent may not have taken note of the end yet.
        let deadline = Instant::now() + Duration::from_secs(20);
        while usage::resident_bytes(sleeper).is_some() && usage::start_time(sleeper) == started {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
