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
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report { lines: Vec::new() }
    }

    /// Prints a line and keeps it.
    pub(crate) fn push(&mut self, line: Line) {
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
        Some(format!("{}: starling {mine} {unit}, {} {theirs} {unit}: {ratio:.2}x", own.case, other.system))
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
        let mut report = Report { lines: Vec::new() };
        report.lines.push(Line::new("tasks", "a", STARLING, "us/task", &measured(&[2.0])));
        report.lines.push(Line::new("csv", "b", STARLING, "GB/s", &measured(&[2.0])));
        let dask = Line::new("tasks", "a", "dask", "us/task", &measured(&[500.0]));
        assert_eq!(report.ratio(&dask).unwrap(), "a: starling 2 us/task, dask 500 us/task: 250.00x");
        let polars = Line::new("csv", "b", "polars", "GB/s", &measured(&[1.6]));
        assert_eq!(report.ratio(&polars).unwrap(), "b: starling 2 GB/s, polars 1.6 GB/s: 1.25x");
        let failed = Line::failed("csv", "b", "dask", "GB/s", "no");
        assert!(report.ratio(&failed).is_none());
    }
}
