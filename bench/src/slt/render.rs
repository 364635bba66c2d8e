//! Answers as DataFusion's files of sqllogictest have them: what a value looks like, and when rows are the same.
//!
//! NULL is `NULL` and an empty text `(empty)`; floats have up to twelve digits after the point and decimals as many as they
//! need; a text of several lines in the last column goes on in rows of their own, numbered, with dashes for the blanks that
//! they begin with. Everything else is as Arrow displays it.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use sqllogictest::Normalizer;

const NULL: &str = "NULL";
const FLOAT_DIGITS: usize = 12;
/// Stands in a file for whatever may be there.
const IGNORED: &str = "<slt:ignore>";

/// The rows of an answer. What is `root` in them is told as `WORKSPACE_ROOT`.
pub(super) fn rows(batches: &[RecordBatch], root: Option<&str>) -> Result<Vec<Vec<String>>, ArrowError> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| cell(column, row));
            let cells = cells.collect::<Result<Vec<_>, _>>()?;
            let lines = with_lines_apart(cells).into_iter();
            rows.extend(lines.map(|line| match root {
                Some(root) => line.into_iter().map(|cell| cell.replace(root, "WORKSPACE_ROOT")).collect(),
                None => line,
            }));
        }
    }
    Ok(rows)
}

fn cell(column: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    if column.is_null(row) {
        return Ok(NULL.to_owned());
    }
    match column.data_type() {
        DataType::Float16 => Ok(float(column.as_primitive::<Float16Type>().value(row).to_f32().to_string())),
        DataType::Float32 => Ok(float(column.as_primitive::<Float32Type>().value(row).to_string())),
        DataType::Float64 => Ok(float(column.as_primitive::<Float64Type>().value(row).to_string())),
        data_type if data_type.is_decimal() => Ok(rounded(&displayed(column, row)?, usize::MAX)),
        DataType::Utf8 => Ok(text(column.as_string::<i32>().value(row))),
        DataType::LargeUtf8 => Ok(text(column.as_string::<i64>().value(row))),
        DataType::Utf8View => Ok(text(column.as_string_view().value(row))),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            cell(dictionary.values(), dictionary.normalized_keys()[row])
        }
        _ => displayed(column, row),
    }
}

fn displayed(column: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    let options = datafusion::config::FormatOptions { null: NULL.to_owned(), ..Default::default() };
    let options = FormatOptions::try_from(&options).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    Ok(ArrayFormatter::try_new(column.as_ref(), &options)?.value(row).to_string())
}

fn text(text: &str) -> String {
    if text.is_empty() { "(empty)".to_owned() } else { text.trim_end_matches('\n').replace('\0', "\\0") }
}

/// A float from what Rust displays: all of its digits, and no exponent.
fn float(displayed: String) -> String {
    match displayed.as_str() {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        // The sign of a NaN depends on the machine.
        "NaN" | "-NaN" => "NaN".to_owned(),
        number => rounded(number, FLOAT_DIGITS),
    }
}

/// A decimal number with at most so many digits after the point, half to even, and without zeros at its end.
fn rounded(number: &str, digits: usize) -> String {
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let kept = fraction.len().min(digits);
    let mut all: Vec<u8> = whole.bytes().chain(fraction[..kept].bytes()).collect();
    let cut = &fraction.as_bytes()[kept..];
    let is_odd = all.last().is_some_and(|digit| digit % 2 == 1);
    let up = match cut.split_first() {
        None => false,
        Some((first, rest)) if *first == b'5' && rest.iter().all(|digit| *digit == b'0') => is_odd,
        Some((first, _)) => *first >= b'5',
    };
    if up {
        match all.iter().rposition(|digit| *digit != b'9') {
            Some(place) => {
                all[place] += 1;
                all[place + 1..].fill(b'0');
            }
            None => {
                all.fill(b'0');
                all.insert(0, b'1');
            }
        }
    }
    let fraction_at = all.len() - kept;
    let as_text = |digits: &[u8]| String::from_utf8_lossy(digits).into_owned();
    let (whole, fraction) = (as_text(&all[..fraction_at]), as_text(&all[fraction_at..]));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let fraction = fraction.trim_end_matches('0');
    let sign = if negative && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// The lines after the first of the last cell, as rows of their own. The first row keeps the other cells only.
fn with_lines_apart(mut row: Vec<String>) -> Vec<Vec<String>> {
    match row.pop() {
        None => vec![row],
        Some(last) if !last.contains('\n') => {
            row.push(last);
            vec![row]
        }
        Some(last) => {
            let lines = last.split('\n').zip(1..).map(|(line, number)| {
                let content = line.trim_start();
                let dashes = "-".repeat(line.len() - content.len());
                vec![format!("{number:02}){dashes}{content}")]
            });
            std::iter::once(row).chain(lines).collect()
        }
    }
}

/// As lines are compared.
#[expect(clippy::ptr_arg, reason = "the runner's type")]
pub(super) fn without_trailing_blanks(line: &String) -> String {
    line.trim_end().to_owned()
}

/// Whether these are the rows of the file, in which a marker may stand for anything.
pub(super) fn same_rows(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let expected: Vec<String> = expected.iter().map(normalizer).collect();
    let actual: Vec<String> = actual.iter().map(|cells| cells.join(" ").trim_end().to_owned()).collect();
    if !expected.iter().any(|line| line.contains(IGNORED)) {
        return actual == expected;
    }
    let (expected, actual) = (expected.join("\n"), actual.join("\n"));
    let mut left = actual.as_str();
    for (number, fragment) in expected.split(IGNORED).enumerate() {
        match left.find(fragment) {
            // Nothing may stand before the first.
            Some(place) if number > 0 || place == 0 => left = &left[place + fragment.len()..],
            _ => return false,
        }
    }
    true
}
