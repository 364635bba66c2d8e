//! Three hosts in network namespaces, at 10.12.0.10, .11 and .12 behind one switch, with the README's bare commands.
//!
//! The third host can be reached by nobody: what dials its port is dropped without an answer, as by a firewall. Needs
//! root and iproute2; without them the test says so and passes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use starling_integration_tests::processes::{Process, write_secret};

/// The hosts and their switch. Deleted when dropped.
struct Hosts {
    prefix: String,
}

const HOSTS: [(&str, &str); 3] = [("a", "10.12.0.10"), ("b", "10.12.0.11"), ("c", "10.12.0.12")];

impl Hosts {
    /// `None` with a printed reason where namespaces cannot be made.
    fn make() -> Result<Option<Hosts>> {
        let hosts = Hosts { prefix: format!("stl{}", std::process::id()) };
        if let Err(reason) = hosts.ip(&format!("netns add {}", hosts.name("s"))) {
            eprintln!("skipped: network namespaces cannot be made here: {reason}");
            return Ok(None);
        }
        let switch = hosts.name("s");
        hosts.ip(&format!("-n {switch} link add br0 type bridge"))?;
        hosts.ip(&format!("-n {switch} link set br0 up"))?;
        for (host, addr) in HOSTS {
            let name = hosts.name(host);
            hosts.ip(&format!("netns add {name}"))?;
            hosts.ip(&format!("link add eth0 netns {name} type veth peer name port-{host} netns {switch}"))?;
            hosts.ip(&format!("-n {switch} link set port-{host} master br0 up"))?;
            hosts.ip(&format!("-n {name} addr add {addr}/24 dev eth0"))?;
            hosts.ip(&format!("-n {name} link set eth0 up"))?;
            hosts.ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(Some(hosts))
    }

    fn name(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    fn ip(&self, args: &str) -> Result<()> {
        let output = Command::new("ip").args(args.split(' ')).output().context("`ip` of iproute2 is not installed")?;
        ensure!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Drops whatever comes from outside to this port of a host, while its own connections to others go on.
    fn firewall(&self, host: &str, port: u16) -> Result<()> {
        let name = self.name(host);
        self.ip(&format!("-n {name} rule add pref 10 iif eth0 ipproto tcp dport {port} blackhole"))?;
        // The rule for local addresses comes first by default, and would let it through.
        self.ip(&format!("-n {name} rule add pref 100 lookup local"))?;
        self.ip(&format!("-n {name} rule del pref 0"))
    }

    /// A command that will run on a host, with a home of its own.
    fn command(&self, host: &str, home: &Path, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host), program]).args(args);
        command.env("HOME", home).env_remove("XDG_CONFIG_HOME").env_remove("STARLING_SECRET");
        command
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in ["a", "b", "c", "s"] {
            // Those that were not made yet are not there to delete.
            let _ = self.ip(&format!("netns del {}", self.name(host)));
        }
    }
}

/// A home with a copy of the cluster's secret in the default place.
fn home_with_secret(folder: &Path, host: &str, secret: &Path) -> Result<PathBuf> {
    let home = folder.join(host);
    let place = home.join(".config/starling");
    std::fs::create_dir_all(&place)?;
    // Copies the mode too.
    std::fs::copy(secret, place.join("secret"))?;
    Ok(home)
}

#[test]
fn the_main_job_runs_on_three_hosts_one_of_which_nobody_can_dial() -> Result<()> {
    const NODE: &str = env!("CARGO_BIN_EXE_test-node");
    let Some(hosts) = Hosts::make()? else { return Ok(()) };
    hosts.firewall("c", 8786)?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    write_secret(&secret)?;
    let home = |host| home_with_secret(folder.path(), host, &secret);

    let scheduler = Process::start(&mut hosts.command("a", &home("a")?, NODE, &["--role", "scheduler"]))?;
    scheduler.wait_for_line(|line| line.contains("is ready").then_some(()))?;
    let join = ["--join", "/ip4/10.12.0.10/tcp/8786"];
    let reachable = Process::start(&mut hosts.command("b", &home("b")?, NODE, &join))?;
    // It believes that it can be dialled, and says so to the others, who find out that it cannot.
    let args = [&join[..], &["--listen", "/ip4/0.0.0.0/tcp/8786"]].concat();
    let hidden = Process::start(&mut hosts.command("c", &home("c")?, NODE, &args))?;
    for worker in [&reachable, &hidden] {
        worker.wait_for_line(|line| line.contains("is ready").then_some(()))?;
    }

    let report = env!("CARGO_BIN_EXE_test-report");
    let output = hosts
        .command(
            "a",
            &home("client")?,
            report,
            &["10.12.0.10", "2", folder.path().to_str().context("the folder has a name")?],
        )
        .output()?;
    ensure!(output.status.success(), "the report failed: {}", String::from_utf8_lossy(&output.stderr));
    // It has checked its answers, and that both workers took part.
    Ok(())
}
