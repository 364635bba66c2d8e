//! The lines that the program prints, and what people see beside them.
//!
//! One JSON object a finished measurement on standard output, at once, so that what is measured is not lost when a later
//! case fails. Everything else goes to standard error.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use crate::measure::{Measured, median};

/// The field that says at which size a graph was run, where that is not always the same.
pub(crate) const SIZE: &str = "n";

/// The name of our own system in the lines.
pub(crate) const STARLING: &str = "starling";

/// One finished measurement. The figures of one that failed are null.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    bench: &'static str,
    case: String,
    system: String,
    runs: usize,
    unit: &'static str,
    median: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    /// Processor seconds of one run on average: all processes of the cluster and the client.
    cpu_s: Option<f64>,
    /// The sum of the peaks of all these processes.
    peak_rss_mb: Option<u64>,
    /// Whether the answer was checked and right.
    ok: bool,
    note: String,
    /// What only this case tells.
    #[serde(flatten)]
    extra: BTreeMap<&'static str, Value>,
}

impl Line {
    /// A measurement, whose answers were right unless [`wrong`](Line::wrong) says otherwise.
    pub(crate) fn new(
        bench: &'static str,
        case: impl Into<String>,
        system: impl Into<String>,
        unit: &'static str,
        measured: &Measured,
    ) -> Line {
        let values = &measured.values;
        let least = values.iter().copied().reduce(f64::min);
        let most = values.iter().copied().reduce(f64::max);
        let runs = values.len();
        Line {
            bench,
            case: case.into(),
            system: system.into(),
            runs,
            unit,
            median: median(values).map(rounded),
            min: least.map(rounded),
            max: most.map(rounded),
            cpu_s: (runs > 0).then(|| rounded(measured.used.cpu_s / runs as f64)),
            peak_rss_mb: (runs > 0).then_some(measured.used.peak_rss_mb),
            ok: runs > 0,
            note: String::new(),
            extra: BTreeMap::new(),
        }
    }

    /// A measurement that gave nothing.
    pub(crate) fn failed(
        bench: &'static str,
        case: impl Into<String>,
        system: impl Into<String>,
        unit: &'static str,
        reason: impl fmt::Display,
    ) -> Line {
        let reason = format!("{reason:#}");
        Line::new(bench, case, system, unit, &Measured::default())
            .note(reason.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// With something said to people. Several notes stand one after another.
    pub(crate) fn note(mut self, note: impl AsRef<str>) -> Line {
        let note = note.as_ref();
        if !note.is_empty() {
            if !self.note.is_empty() {
                self.note.push_str("; ");
            }
            self.note.push_str(note);
        }
        self
    }

    /// With a further field.
    pub(crate) fn with(mut self, field: &'static str, value: impl Into<Value>) -> Line {
        self.extra.insert(field, value.into());
        self
    }

    /// With a further figure, rounded as the others are.
    pub(crate) fn with_figure(self, field: &'static str, value: f64) -> Line {
        self.with(field, rounded(value))
    }

    /// Without what it used, which was not measured.
    pub(crate) fn without_usage(mut self) -> Line {
        self.cpu_s = None;
        self.peak_rss_mb = None;
        self
    }

    /// The answer was wrong.
    pub(crate) fn wrong(mut self, wrong: bool) -> Line {
        self.ok = self.ok && !wrong;
        self
    }
}

/// Four digits: more than a run repeats.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    let factor = 10_f64.powi(digits.min(15));
    (value * factor).round() / factor
}

/// What has been measured so far.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
    /// Said in every line, if something else than what is measured kept the machine busy.
    busy: String,
}

impl Report {
    /// An empty report. Says where it is made, and notes whether the machine has anything else to do.
    pub(crate) fn new() -> Report {
        let machine = Machine::look();
        tell(format_args!("{machine}"));
        Report { lines: Vec::new(), busy: machine.busy() }
    }

    /// Prints a line and keeps it.
    pub(crate) fn push(&mut self, line: Line) {
        let line = line.note(&self.busy);
        match serde_json::to_string(&line) {
            Ok(text) => {
                let mut stdout = std::io::stdout().lock();
                // Whoever read the lines has gone; the table still tells.
                let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
            }
            Err(error) => tell(format_args!("a line could not be written: {error}")),
        }
        self.lines.push(line);
    }

    /// The line that sums up a system's lines of these cases, whose figures are the sums of theirs.
    #[cfg(feature = "queries")]
    pub(crate) fn total(&self, bench: &'static str, case: &str, system: &str, unit: &'static str, of: &[&str]) -> Line {
        let mut total = Line::new(bench, case, system, unit, &Measured::default());
        let (mut sums, mut cpu_s) = ([0.0; 3], 0.0);
        for name in of {
            let line = self.lines.iter().find(|line| line.system == system && line.case == *name && line.ok);
            let Some((line, [median, min, max])) =
                line.and_then(|line| Some((line, [line.median?, line.min?, line.max?])))
            else {
                return Line::failed(bench, case, system, unit, format!("{name} is not measured"));
            };
            total.runs = if total.runs == 0 { line.runs } else { total.runs.min(line.runs) };
            sums = [sums[0] + median, sums[1] + min, sums[2] + max];
            cpu_s += line.cpu_s.unwrap_or(0.0);
            total.peak_rss_mb = total.peak_rss_mb.max(line.peak_rss_mb);
        }
        [total.median, total.min, total.max] = sums.map(|sum| Some(rounded(sum)));
        total.cpu_s = Some(rounded(cpu_s));
        total.ok = !of.is_empty();
        total
    }

    /// Whether all that was measured of our own system was right.
    pub(crate) fn starling_is_right(&self) -> bool {
        self.lines.iter().filter(|line| line.system == STARLING).all(|line| line.ok)
    }

    /// Says for each other system how far it is from ours in the same case.
    pub(crate) fn ratios(&self) {
        for line in &self.lines {
            if let Some(text) = self.ratio(line) {
                tell(format_args!("{text}"));
            }
        }
    }

    fn ratio(&self, other: &Line) -> Option<String> {
        if other.system == STARLING || !other.ok {
            return None;
        }
        let own = self.lines.iter().find(|line| line.system == STARLING && line.case == other.case && line.ok)?;
        let (mine, theirs) = (own.median?, other.median?);
        // Of a rate more is better, of a time less.
        let ratio = if own.unit.ends_with("/s") { mine / theirs } else { theirs / mine };
        let unit = own.unit;
        let sizes = match (own.extra.get(SIZE), other.extra.get(SIZE)) {
            (Some(own), Some(other)) if own != other => format!(" (at sizes {own} and {other})"),
            _ => String::new(),
        };
        Some(format!("{}: starling {mine} {unit}, {} {theirs} {unit}: {ratio:.2}x{sizes}", own.case, other.system))
    }

    /// Prints all lines for people.
    pub(crate) fn table(&self) {
        let head = ["case", "system", "median", "min", "max", "unit", "runs", "cpu s", "peak MB", "ok", "note"];
        let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.lines.iter().map(row));
        let widths: Vec<usize> = (0..head.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        tell(format_args!(""));
        for row in rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            tell(format_args!("{}", cells.join("  ").trim_end()));
        }
    }
}

fn row(line: &Line) -> Vec<String> {
    let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| value.to_string());
    let extra = line.extra.iter().map(|(field, value)| format!("{field} {value}"));
    let note: Vec<String> = extra.chain(Some(line.note.clone()).filter(|note| !note.is_empty())).collect();
    vec![
        line.case.clone(),
        line.system.clone(),
        figure(line.median),
        figure(line.min),
        figure(line.max),
        line.unit.to_owned(),
        line.runs.to_string(),
        figure(line.cpu_s),
        line.peak_rss_mb.map_or("-".to_owned(), |value| value.to_string()),
        if line.ok { "yes" } else { "NO" }.to_owned(),
        note.join("; "),
    ]
}

/// Where the figures come from.
struct Machine {
    cores: usize,
    model: String,
    commit: String,
    /// How many threads wanted to run, on average over the last minute.
    load: Option<f64>,
}

impl Machine {
    fn look() -> Machine {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let commit = std::process::Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"])
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default();
        Machine {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            model: model.map_or("unknown processor", |(_, model)| model.trim()).to_owned(),
            commit,
            load: load.split_whitespace().next().and_then(|load| load.parse().ok()),
        }
    }

    /// A note, if figures taken now are not to be trusted.
    fn busy(&self) -> String {
        match self.load {
            Some(load) if load > 0.5 => format!("the machine was busy before: load {load} on {} cores", self.cores),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores of {}, commit {}", self.cores, self.model, self.commit)?;
        match self.load {
            Some(load) => write!(f, ", load {load}"),
            None => Ok(()),
        }
    }
}

/// Says something to people.
pub(crate) fn tell(text: fmt::Arguments<'_>) {
    // Nobody listens: then nobody misses it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Used;

    fn measured(values: &[f64]) -> Measured {
        Measured { values: values.to_vec(), used: Used { cpu_s: 1.5, peak_rss_mb: 91 } }
    }

    #[test]
    fn a_line_has_the_fields_of_the_contract_in_its_order() {
        let line = Line::new("tasks", "merge-100k", STARLING, "us/task", &measured(&[2.9, 2.8, 3.3]));
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"bench":"tasks","case":"merge-100k","system":"starling","runs":3,"unit":"us/task","median":2.9,"min":2.8,"max":3.3,"cpu_s":0.5,"peak_rss_mb":91,"ok":true,"note":""}"#
        );
    }

    #[test]
    fn further_fields_stand_beside_the_others() {
        let line = Line::new("tasks", "spin1ms-10k", STARLING, "us/task", &measured(&[600.0]));
        let value = serde_json::to_value(line.with_figure("efficiency", 0.83333).note("a").note("b")).unwrap();
        assert_eq!(value["efficiency"], 0.8333);
        assert_eq!(value["note"], "a; b");
    }

    #[test]
    fn a_failed_measurement_has_no_figures_and_says_why() {
        let line = Line::failed("csv", "count-quoted", "dask", "GB/s", "EOF inside\n string");
        let value = serde_json::to_value(line).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["median"], Value::Null);
        assert_eq!(value["runs"], 0);
        assert_eq!(value["note"], "EOF inside string");
    }

    #[test]
    fn figures_are_rounded_to_four_digits() {
        assert_eq!(rounded(123_456.0), 123_500.0);
        assert_eq!(rounded(0.001_234_56), 0.001_235);
        assert_eq!(rounded(0.0), 0.0);
        assert_eq!(rounded(f64::NAN), 0.0);
    }

    #[test]
    fn a_ratio_says_how_much_better_we_are_for_times_and_for_rates() {
        let mut report = Report::default();
        report.lines.push(Line::new("tasks", "a", STARLING, "us/task", &measured(&[2.0])));
        report.lines.push(Line::new("csv", "b", STARLING, "GB/s", &measured(&[2.0])));
        let dask = Line::new("tasks", "a", "dask", "us/task", &measured(&[500.0]));
        assert_eq!(report.ratio(&dask).unwrap(), "a: starling 2 us/task, dask 500 us/task: 250.00x");
        let polars = Line::new("csv", "b", "polars", "GB/s", &measured(&[1.6]));
        assert_eq!(report.ratio(&polars).unwrap(), "b: starling 2 GB/s, polars 1.6 GB/s: 1.25x");
        let failed = Line::failed("csv", "b", "dask", "GB/s", "no");
        assert!(report.ratio(&failed).is_none());
    }

    #[test]
    fn a_ratio_of_unlike_sizes_says_so() {
        let mut report = Report::default();
        report.lines.push(Line::new("tasks", "a", STARLING, "us/task", &measured(&[2.0])).with(SIZE, 1_000));
        let same = Line::new("tasks", "a", "ray", "us/task", &measured(&[4.0])).with(SIZE, 1_000);
        assert!(report.ratio(&same).unwrap().ends_with("2.00x"));
        let other = Line::new("tasks", "a", "ray", "us/task", &measured(&[4.0])).with(SIZE, 100);
        assert!(report.ratio(&other).unwrap().ends_with("2.00x (at sizes 1000 and 100)"));
    }

    #[test]
    fn a_busy_machine_is_told() {
        let machine = |load| Machine { cores: 2, model: "m".into(), commit: "c".into(), load: Some(load) };
        assert_eq!(machine(0.2).busy(), "");
        assert!(machine(3.5).busy().contains("load 3.5 on 2 cores"));
    }
}
