//! The performance report: one HTML file of what a cluster did.
//!
//! The page is `report/page.html`; what is known goes into its marked places, names escaped, the timeline's data as JSON.

mod lanes;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use starling_core::task_stream::{TaskOutcome, TaskRecord};
use starling_runtime::task::ClientError;
use starling_runtime::whole_file;

use crate::cluster::TaskStream;

const PAGE: &str = include_str!("report/page.html");

/// Why there is no report. No file is left of it.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The scheduler did not tell what ran.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The file could not be written.
    #[error("the report {} could not be written: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes the report of a stream.
pub(crate) fn write(path: &Path, stream: &TaskStream) -> Result<(), ReportError> {
    let page = page(stream);
    whole_file::write(path, page.as_bytes()).map_err(|source| ReportError::Io { path: path.to_owned(), source })
}

/// The tasks of one function, or on one worker.
#[derive(Default)]
struct Sum {
    count: u64,
    failed: u64,
    total_us: u64,
    max_us: u64,
    nbytes: u64,
}

impl Sum {
    fn add(&mut self, record: &TaskRecord) {
        self.count += 1;
        self.failed += u64::from(record.outcome != TaskOutcome::Finished);
        self.total_us = self.total_us.saturating_add(record.run_us);
        self.max_us = self.max_us.max(record.run_us);
        self.nbytes = self.nbytes.saturating_add(record.nbytes);
    }

    /// Of those that ran to their end.
    fn mean_us(&self) -> u64 {
        self.total_us / (self.count - self.failed).max(1)
    }
}

fn page(stream: &TaskStream) -> String {
    let mut all = Sum::default();
    let mut by_kind: BTreeMap<&str, Sum> = BTreeMap::new();
    let mut by_worker: BTreeMap<_, Sum> = stream.workers.keys().map(|worker| (*worker, Sum::default())).collect();
    for record in &stream.records {
        all.add(record);
        by_kind.entry(stream.name(record)).or_default().add(record);
        by_worker.entry(record.worker).or_default().add(record);
    }
    let kinds: Vec<&str> = by_kind.keys().copied().collect();
    let wall_us = stream.ended_us.saturating_sub(stream.began_us);
    let threads: u64 = stream.workers.values().map(|worker| u64::from(worker.nthreads)).sum();

    let mut summary = String::new();
    let mut fact = |name: &str, value: &dyn fmt::Display| {
        // Writing to a string does not fail.
        let _ = write!(summary, "<dt>{name}</dt><dd>{value}</dd>");
    };
    fact("Duration", &Duration(wall_us));
    fact("Tasks", &all.count);
    fact("Failed tries", &all.failed);
    fact("Workers", &stream.workers.len());
    fact("Threads", &threads);
    fact("Work", &Duration(all.total_us));
    fact("Busy", &Share(all.total_us, wall_us * threads));
    fact("Bytes of outputs", &Bytes(all.nbytes));
    if stream.forgotten > 0 {
        fact("Tasks not recorded, because there were too many", &stream.forgotten);
    }
    if stream.is_partial {
        fact("Note", &"another scheduler took over: what ended before is not here");
    }

    let kind_rows = rows(by_kind.iter().map(|(name, sum)| {
        let (total, mean, max) = (Duration(sum.total_us), Duration(sum.mean_us()), Duration(sum.max_us));
        let share = Share(sum.total_us, all.total_us);
        row(&Escaped(name), &[&sum.count, &sum.failed, &total, &share, &mean, &max, &Bytes(sum.nbytes)])
    }));
    let worker_rows = rows(by_worker.iter().map(|(worker, sum)| {
        let (name, nthreads) =
            stream.workers.get(worker).map_or(("", 0), |worker| (worker.name.as_str(), worker.nthreads));
        let busy = Share(sum.total_us, wall_us * u64::from(nthreads));
        let total = Duration(sum.total_us);
        row(&Escaped(name), &[&nthreads, &sum.count, &sum.failed, &total, &busy, &Bytes(sum.nbytes)])
    }));
    let failure_rows =
        rows(stream.failures.iter().map(|failure| format!("<tr><td>{}</td></tr>", Escaped(&failure.message))));

    let places = [
        ("{{summary}}", summary),
        ("{{kinds}}", kind_rows),
        ("{{workers}}", worker_rows),
        ("{{failures}}", failure_rows),
        ("{{data}}", lanes::data(stream, &kinds)),
    ];
    filled(PAGE, &places)
}

/// The text with each marked place filled. What is filled in is not looked at again.
fn filled(mut text: &str, places: &[(&str, String)]) -> String {
    let mut out = String::new();
    while let Some((at, mark, value)) =
        places.iter().filter_map(|(mark, value)| Some((text.find(mark)?, mark, value))).min_by_key(|(at, ..)| *at)
    {
        out.push_str(&text[..at]);
        out.push_str(value);
        text = &text[at + mark.len()..];
    }
    out + text
}

fn rows(rows: impl Iterator<Item = String>) -> String {
    let all: String = rows.collect();
    if all.is_empty() { "<tr><td>none</td></tr>".to_owned() } else { all }
}

fn row(name: &dyn fmt::Display, numbers: &[&dyn fmt::Display]) -> String {
    let numbers: String = numbers.iter().map(|number| format!("<td>{number}</td>")).collect();
    format!("<tr><th>{name}</th>{numbers}</tr>")
}

/// Text between tags or in a quoted attribute.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            char => f.write_char(char),
        })
    }
}

/// Microseconds.
struct Duration(u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..1_000 => write!(f, "{us} µs"),
            us @ 1_000..1_000_000 => write!(f, "{:.2} ms", us as f64 / 1e3),
            us => write!(f, "{:.2} s", us as f64 / 1e6),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut shown = "B";
        for unit in units.iter().take_while(|_| self.0 >= 1024) {
            if value < 1024.0 {
                break;
            }
            (value, shown) = (value / 1024.0, unit);
        }
        if self.0 < 1024 { write!(f, "{} B", self.0) } else { write!(f, "{value:.1} {shown}") }
    }
}

/// A part of a whole.
struct Share(u64, u64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1 == 0 {
            return f.write_str("-");
        }
        write!(f, "{:.0} %", 100.0 * self.0 as f64 / self.1 as f64)
    }
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
