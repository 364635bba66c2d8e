//! What processes use, from `/proc`. A process that is gone counts for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The kernel's unit of processor time: 100 a second on every Linux that user space can see.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a measurement used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Used {
    /// Processor seconds of all processes.
    pub(crate) cpu_s: f64,
    /// The sum of the processes' peaks.
    pub(crate) peak_rss_mb: u64,
}

/// Watches this process and everything that it has started, and they again.
pub(crate) struct Meter {
    ticks: BTreeMap<u32, u64>,
}

impl Meter {
    /// Begins to watch. The peaks of before are forgotten.
    pub(crate) fn start() -> Meter {
        let pids = tree(std::process::id());
        for pid in &pids {
            // Refused for a process that has just gone, or where the kernel lacks it: then the peak is that of its life.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        Meter { ticks: pids.into_iter().map(|pid| (pid, ticks(pid).unwrap_or(0))).collect() }
    }

    /// What was used since.
    pub(crate) fn stop(self) -> Used {
        let pids = tree(std::process::id());
        let used = pids.iter().map(|pid| {
            let before = self.ticks.get(pid).copied().unwrap_or(0);
            ticks(*pid).unwrap_or(before).saturating_sub(before)
        });
        let cpu_s = used.sum::<u64>() as f64 / TICKS_PER_SECOND;
        let peak = pids.iter().filter_map(|pid| status_bytes(*pid, "VmHWM:")).sum::<u64>();
        Used { cpu_s, peak_rss_mb: peak / 1_000_000 }
    }
}

/// How many bytes of memory a process has now.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// How many bytes of memory a process had at most, since a [`Meter`] was last started.
pub(crate) fn peak_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The fields of `/proc/PID/stat` after the name, which may hold spaces and brackets; the first is the state.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}

/// Processor time of a process and of those of its children that it has waited for.
fn ticks(pid: u32) -> Option<u64> {
    let stat = stat(pid)?;
    // utime, stime, cutime, cstime
    stat.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

/// A process and all that descend from it.
pub(crate) fn tree(root: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = stat(pid).and_then(|stat| stat.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            if found.insert(child) {
                open.push(child);
            }
        }
    }
    found
}

/// When a process was started, in the kernel's own count: tells it from a later one of the same number.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_this_process_holds_its_child_until_it_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        assert!(tree(std::process::id()).contains(&pid));
        assert!(start_time(pid).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!tree(std::process::id()).contains(&pid));
    }

    #[test]
    fn processor_time_and_peak_are_seen() {
        let pid = std::process::id();
        let before = ticks(pid).unwrap();
        let meter = Meter::start();
        let started = std::time::Instant::now();
        let mut block = vec![0_u8; 32 << 20];
        let mut round = 0_u8;
        // Others may have the processor most of the time.
        while ticks(pid).unwrap() < before + 5 {
            assert!(started.elapsed().as_secs() < 60);
            round = round.wrapping_add(1);
            block.fill(round);
        }
        let used = meter.stop();
        assert!(used.cpu_s >= 0.03, "{used:?}");
        assert!(used.peak_rss_mb >= 32, "{used:?}");
        assert!(resident_bytes(pid).unwrap() <= peak_bytes(pid).unwrap());
        drop(block);
    }
}
