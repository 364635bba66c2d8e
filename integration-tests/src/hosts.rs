//! Hosts of their own for nodes and clients: network namespaces behind a switch, whose links can be cut.
//!
//! Host 0 has the address 10.12.0.10, host 1 the next one, and so on. A cut drops packets without a word, as a broken cable or
//! a firewall does: connections stay open and are silent. Needs root and iproute2.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use tokio::runtime::{Builder, Runtime};

use crate::processes::Place;

/// How many sets of hosts this process has made.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// The hosts and their switch. Deleted when dropped; what still runs on them is then cut off.
pub struct Hosts {
    prefix: String,
    count: usize,
}

impl Hosts {
    /// So many hosts that all reach each other; `None` with a printed reason where they cannot be made.
    pub fn make(count: usize) -> Result<Option<Arc<Hosts>>> {
        let prefix = format!("stp{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let hosts = Hosts { prefix, count };
        let switch = hosts.switch();
        if let Err(reason) = ip(&format!("netns add {switch}")) {
            eprintln!("skipped: network namespaces cannot be made here: {reason}");
            return Ok(None);
        }
        for bridge in ["main", "apart"] {
            ip(&format!("-n {switch} link add {bridge} type bridge"))?;
            ip(&format!("-n {switch} link set {bridge} up"))?;
        }
        for host in 0..count {
            let (name, addr) = (hosts.name(host), hosts.addr(host));
            ip(&format!("netns add {name}"))?;
            ip(&format!("link add eth0 netns {name} type veth peer name port-{host} netns {switch}"))?;
            ip(&format!("-n {switch} link set port-{host} master main up"))?;
            ip(&format!("-n {name} addr add {addr}/24 dev eth0"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
            // The rule for local addresses comes first by default, and would go before those of `deafen`.
            ip(&format!("-n {name} rule add pref 100 lookup local"))?;
            ip(&format!("-n {name} rule del pref 0"))?;
        }
        Ok(Some(Arc::new(hosts)))
    }

    fn name(&self, host: usize) -> String {
        format!("{}h{host}", self.prefix)
    }

    fn switch(&self) -> String {
        format!("{}s", self.prefix)
    }

    /// The host's address.
    pub fn addr(&self, host: usize) -> String {
        format!("10.12.0.{}", 10 + host)
    }

    /// A command that will run on a host.
    pub fn command(&self, host: usize, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host)]).arg(program.as_ref());
        command
    }

    /// Runs this on a thread of the host's, and on tasks that it spawns.
    pub fn run_on<T: Send>(&self, host: usize, run: impl AsyncFnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let ran = scope.spawn(|| Ok(self.runtime(host)?.runtime()?.block_on(run())));
            ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A runtime whose tasks run on a host. It has left the calling thread there as well.
    fn runtime(&self, host: usize) -> Result<Residence> {
        let namespace = File::open(Path::new("/run/netns").join(self.name(host)))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        // Its threads begin where the one is that makes them.
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Residence(Some(runtime)))
    }

    /// Another place to run tasks at, on this host.
    pub fn residence(&self, host: usize) -> Result<Residence> {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| self.runtime(host)).join();
            made.map_err(|_| anyhow!("the thread that makes a runtime has panicked"))?
        })
    }

    /// Cuts these hosts off from the others, and not from each other.
    pub fn split(&self, apart: &[usize]) -> Result<()> {
        self.plug(apart, "apart")
    }

    /// Undoes [`split`](Hosts::split) and [`deafen`](Hosts::deafen).
    pub fn heal(&self) -> Result<()> {
        self.plug(&(0..self.count).collect::<Vec<_>>(), "main")?;
        for host in 0..self.count {
            // Fails once there is no such rule any more.
            while ip(&format!("-n {} rule del pref 10", self.name(host))).is_ok() {}
        }
        Ok(())
    }

    fn plug(&self, hosts: &[usize], bridge: &str) -> Result<()> {
        let switch = self.switch();
        hosts.iter().try_for_each(|host| ip(&format!("-n {switch} link set port-{host} master {bridge}")))
    }

    /// Lets a host hear nothing of what another one sends to it. The other one still hears it.
    pub fn deafen(&self, host: usize, to: usize) -> Result<()> {
        let (name, addr) = (self.name(host), self.addr(to));
        ip(&format!("-n {name} rule add pref 10 iif eth0 from {addr} blackhole"))
    }

    /// Makes the link to a host slow, so that much of what is sent to it is lost. Says how.
    pub fn worsen(&self, host: usize) -> Result<&'static str> {
        const WAYS: [&str; 2] = ["netem delay 100ms 50ms loss 5%", "tbf rate 400kbit burst 3200 limit 12000"];
        let (switch, name) = (self.switch(), self.name(host));
        let set = |way: &&&str| {
            let to = tc(&switch, &format!("qdisc replace dev port-{host} root {way}"));
            to.and_then(|()| tc(&name, &format!("qdisc replace dev eth0 root {way}"))).is_ok()
        };
        WAYS.iter().find(set).copied().context("the kernel has neither netem nor tbf")
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in (0..self.count).map(|host| self.name(host)).chain([self.switch()]) {
            // Those that were not made yet are not there to delete.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// A place for tasks on a host. Its tasks are dropped with it.
pub struct Residence(Option<Runtime>);

impl Residence {
    fn runtime(&self) -> Result<&Runtime> {
        self.0.as_ref().context("the runtime is gone")
    }

    /// Runs this there.
    pub async fn run<T: Send + 'static>(&self, run: impl Future<Output = T> + Send + 'static) -> Result<T> {
        Ok(self.runtime()?.spawn(run).await?)
    }
}

impl Drop for Residence {
    fn drop(&mut self) {
        // It may be dropped by a task, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Nodes on hosts of the same numbers.
pub struct OnHosts {
    /// The hosts.
    pub hosts: Arc<Hosts>,
    /// The program.
    pub binary: &'static str,
}

impl Place for OnHosts {
    fn command(&self, number: usize, _data: &Path) -> Command {
        let mut command = self.hosts.command(number, self.binary);
        // A resource that no other node has.
        command.args(["--resources", &format!("at-{number}=1")]);
        command
    }

    fn listen(&self, number: usize) -> String {
        format!("/ip4/{}/tcp/8786", self.hosts.addr(number))
    }
}

fn ip(args: &str) -> Result<()> {
    run("ip", args)
}

fn tc(namespace: &str, args: &str) -> Result<()> {
    run("ip", &format!("netns exec {namespace} tc {args}"))
}

fn run(program: &str, args: &str) -> Result<()> {
    let output = Command::new(program).args(args.split(' ')).output();
    let output = output.with_context(|| format!("`{program}` of iproute2 is not installed"))?;
    ensure!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
