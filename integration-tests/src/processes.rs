//! Clusters of real processes, on loopback unless another place is said.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use starling::core::ids::{NodeId, Term};
use starling::{Cluster, ClusterSecret, ConnectOptions, NodeStatus};
use tempfile::TempDir;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process whose standard error is read line by line. Killed when dropped.
pub struct Process {
    child: Child,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    /// Reads the lines, until there are no more.
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Result<Process> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?} could not be started"))?;
        let stderr = child.stderr.take().context("the process has no standard error")?;
        let lines: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
        let reader = std::thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    lines.0.lock().unwrap_or_else(|error| error.into_inner()).push(line);
                    lines.1.notify_all();
                }
            }
        });
        Ok(Process { child, lines, reader: Some(reader) })
    }

    /// Waits for a line of standard error that `find` takes something from.
    pub fn wait_for_line<T>(&self, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.0.lock().unwrap_or_else(|error| error.into_inner());
        loop {
            if let Some(found) = lines.iter().find_map(|line| find(line)) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the line did not come; standard error was:\n{}", lines.join("\n"));
            }
            lines = self.lines.1.wait_timeout(lines, left).unwrap_or_else(|error| error.into_inner()).0;
        }
    }

    /// All of standard error so far.
    pub fn output(&self) -> String {
        self.lines.0.lock().unwrap_or_else(|error| error.into_inner()).join("\n")
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end, and for all that it had to say.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if let Some(Err(panic)) = self.reader.take().map(JoinHandle::join) {
                    std::panic::resume_unwind(panic);
                }
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the process did not end; standard error was:\n{}", self.output());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scheduler and workers, each a process of its own.
pub struct Processes {
    binary: PathBuf,
    folder: TempDir,
    /// The scheduler's process.
    pub scheduler: Process,
    /// Where it listens.
    pub addr: String,
    /// The workers' processes.
    pub workers: Vec<Process>,
}

impl Processes {
    /// Starts a scheduler on a port that the system chooses and so many workers with one thread each, from `binary`.
    pub fn start(binary: &str, workers: usize) -> Result<Processes> {
        Processes::start_with(binary, workers, &[])
    }

    /// The same, with more arguments for the scheduler.
    pub fn start_with(binary: &str, workers: usize, scheduler_args: &[&OsStr]) -> Result<Processes> {
        let folder = TempDir::new()?;
        let secret_file = folder.path().join("secret");
        write_secret(&secret_file)?;
        let mut command = Command::new(binary);
        command.args(["--role", "scheduler", "--listen", "/ip4/127.0.0.1/tcp/0", "--secret-file"]).arg(&secret_file);
        command.args(scheduler_args);
        if !scheduler_args.contains(&OsStr::new("--data-dir")) {
            command.arg("--no-data-dir");
        }
        let scheduler = Process::start(&mut command)?;
        let addr = scheduler.wait_for_line(|line| line.strip_prefix("listening on ").map(str::to_owned))?;
        let mut processes = Processes { binary: binary.into(), folder, scheduler, addr, workers: Vec::new() };
        for _ in 0..workers {
            processes.start_worker(&[])?;
        }
        Ok(processes)
    }

    /// Starts a scheduler that was killed again, where it was.
    pub fn restart_scheduler(&mut self, args: &[&OsStr]) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .args(["--role", "scheduler", "--listen", &self.addr, "--secret-file"])
            .arg(self.secret_file())
            .args(args);
        self.scheduler = Process::start(&mut command)?;
        self.scheduler.wait_for_line(|line| line.contains("is ready").then_some(()))
    }

    /// Starts one more worker and waits until it is registered.
    pub fn start_worker(&mut self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .args([
                "--join",
                &self.addr,
                "--listen",
                "/ip4/127.0.0.1/tcp/0",
                "--threads",
                "1",
                "--no-data-dir",
                "--secret-file",
            ])
            .arg(self.secret_file())
            .args(args);
        let worker = Process::start(&mut command)?;
        worker.wait_for_line(|line| line.contains("is ready").then_some(()))?;
        self.workers.push(worker);
        Ok(())
    }

    /// The file with the cluster's secret.
    pub fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// A client of the cluster, once all workers are known to it.
    pub async fn connect(&self) -> Result<Cluster> {
        self.connect_with(ConnectOptions::default()).await
    }

    /// The same, with options.
    pub async fn connect_with(&self, options: ConnectOptions) -> Result<Cluster> {
        let options = ConnectOptions { secret_file: Some(self.secret_file()), ..options };
        let cluster = Cluster::connect_with(&self.addr, options).await?;
        cluster.wait_for_workers(self.workers.len()).await?;
        Ok(cluster)
    }
}

/// Where nodes run that are all alike.
pub trait Place {
    /// What runs the node of this number, whose data directory is to be `data`: the program, and arguments of its own.
    fn command(&self, number: usize, data: &Path) -> Command;
    /// Where it listens when it is started for the first time.
    fn listen(&self, number: usize) -> String;
}

/// On this host, by the program itself.
struct Here(PathBuf);

impl Place for Here {
    fn command(&self, _number: usize, _data: &Path) -> Command {
        Command::new(&self.0)
    }

    fn listen(&self, _number: usize) -> String {
        "/ip4/127.0.0.1/tcp/0".to_owned()
    }
}

/// Nodes that are all alike and elect who holds the scheduler, each a process of its own with a data directory and one thread.
pub struct Equals {
    place: Box<dyn Place>,
    folder: TempDir,
    /// The nodes, by their numbers; `None` for one that is down.
    pub nodes: Vec<Option<Equal>>,
}

/// One of them.
pub struct Equal {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub addr: String,
}

impl Equals {
    /// Starts so many, each of which joins the ones before it.
    pub fn start(binary: &str, count: usize) -> Result<Equals> {
        Equals::start_at(Here(binary.into()), count)
    }

    /// The same, at a place of their own.
    pub fn start_at(place: impl Place + 'static, count: usize) -> Result<Equals> {
        let folder = TempDir::new()?;
        write_secret(&folder.path().join("secret"))?;
        let mut equals = Equals { place: Box::new(place), folder, nodes: Vec::new() };
        for number in 0..count {
            equals.nodes.push(None);
            equals.start_one(number)?;
        }
        Ok(equals)
    }

    /// Starts the node of this number, again if it is down: then on its old port, with what its data directory holds.
    pub fn start_one(&mut self, number: usize) -> Result<()> {
        let process = Process::start(&mut self.command(number))?;
        let addr = process.wait_for_line(|line| line.strip_prefix("listening on ").map(str::to_owned))?;
        process.wait_for_line(|line| line.contains("is ready").then_some(()))?;
        std::fs::write(self.marker(number), &addr)?;
        self.nodes[number] = Some(Equal { process, addr });
        Ok(())
    }

    /// What starts the node of this number.
    pub fn command(&self, number: usize) -> Command {
        let listen = std::fs::read_to_string(self.marker(number)).unwrap_or_else(|_| self.place.listen(number));
        let data = self.data_dir(number);
        let mut command = self.place.command(number, &data);
        command.args(["--role", "auto", "--listen", &listen, "--name", &format!("node-{number}"), "--threads", "1"]);
        command.arg("--secret-file").arg(self.secret_file()).arg("--data-dir").arg(data);
        for other in self.nodes.iter().flatten() {
            command.args(["--join", &other.addr]);
        }
        command
    }

    /// The data directory of the node of this number, as the node calls it.
    pub fn data_dir(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("node-{number}"))
    }

    /// The file that says where a node has listened.
    fn marker(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("{number}.addr"))
    }

    /// The process of a node that is up.
    pub fn process(&self, number: usize) -> Result<&Process> {
        Ok(&self.nodes[number].as_ref().context("the node is down")?.process)
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.nodes[number].take().context("the node is down already")?.process.kill()
    }

    /// The file with the cluster's secret.
    pub fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// How to connect to it.
    pub fn options(&self) -> ConnectOptions {
        ConnectOptions { secret_file: Some(self.secret_file()), ..ConnectOptions::default() }
    }

    /// A client of the cluster, by a node that is up, once all workers are known to it.
    pub async fn connect(&self) -> Result<Cluster> {
        let up: Vec<&Equal> = self.nodes.iter().flatten().collect();
        let addr = &up.last().context("no node is up")?.addr;
        let cluster = Cluster::connect_with(addr, self.options()).await?;
        cluster.wait_for_workers(up.len()).await?;
        Ok(cluster)
    }

    /// How the cluster is, as this node sees it.
    pub async fn status(&self, number: usize) -> Result<NodeStatus> {
        let node = self.nodes[number].as_ref().context("the node is down")?;
        Ok(Cluster::status_of(&node.addr, self.options()).await?)
    }

    /// Waits until this node's view of the cluster is as it should be.
    pub async fn until(&self, number: usize, is_so: impl Fn(&NodeStatus) -> bool) -> Result<NodeStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(number).await?;
            if is_so(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("it did not come to that; the last was {status:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The number of the node that leads, as this one sees it.
    pub async fn leader(&self, seen_by: usize) -> Result<usize> {
        let status = self.until(seen_by, |status| status.leader.is_some()).await?;
        number_of(&status, status.leader.context("nobody leads")?)
    }

    /// Waits until all these nodes agree on who leads, and in which term; gives its number and the term.
    pub async fn agreed(&self, seen_by: &[usize]) -> Result<(usize, Term)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = try_join_all(seen_by.iter().map(|number| self.status(*number))).await?;
            let views: Vec<_> = seen.iter().map(|status| status.leader.zip(status.term)).collect();
            if let Some(&Some((leader, term))) = views.first()
                && views.iter().all(|view| *view == views[0])
            {
                return Ok((number_of(&seen[0], leader)?, term));
            }
            if Instant::now() > deadline {
                bail!("they do not agree: {views:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The number of a node of [`Equals`], by its name.
pub fn number_of(seen: &NodeStatus, node: NodeId) -> Result<usize> {
    let member = seen.members.iter().find(|member| member.node == node).context("the node is no member")?;
    member.name.strip_prefix("node-").and_then(|number| number.parse().ok()).context("the node has another name")
}

/// Writes a fresh secret that only its owner can read.
pub fn write_secret(path: &Path) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", ClusterSecret::generate().to_text())?;
    Ok(())
}
