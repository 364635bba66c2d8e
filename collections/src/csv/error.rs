//! Why a CSV file cannot be read, with the remedy.

use std::io;

use super::records::{Fault, Malformed};

/// Why a CSV file cannot be read. Nothing was changed; the same file gives the same error.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// Reading failed.
    #[error("{path} cannot be read; make it readable under this path on every worker")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The path matches nothing.
    #[error("there is no file {pattern}; correct the path, and see that every worker has the file under it")]
    NotFound {
        /// What was looked for.
        pattern: String,
    },
    /// The pattern is none.
    #[error("{pattern} is no valid pattern: {message}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },
    /// A file without a header.
    #[error("{path} is empty: a CSV file begins with a line of column names")]
    Empty {
        /// The file.
        path: String,
    },
    /// The file is another one than when it was cut in blocks.
    #[error(
        "{path} is not the file that was found: it has changed, or this worker has another copy; start again when nothing \
         writes to it, or copy it with its time (cp -p, rsync -t)"
    )]
    Changed {
        /// The file.
        path: String,
    },
    /// Files that are read together have different columns.
    #[error("{path} has other columns than {first}; read them separately")]
    HeaderDiffers {
        /// The file.
        path: String,
        /// The file that it was compared with.
        first: String,
    },
    /// A column that the file does not have.
    #[error(
        "{path} has no column {column}; its columns are {}: correct the name, or set CsvOptions::missing_columns if it may \
         be absent or is an alias",
        .known.join(", ")
    )]
    UnknownColumn {
        /// The file.
        path: String,
        /// The column asked for.
        column: String,
        /// The columns that there are.
        known: Vec<String>,
    },
    /// Text that is not UTF-8.
    #[error("{path}, line {line}: the text is not UTF-8; convert the file")]
    NotUtf8 {
        /// The file.
        path: String,
        /// The physical line, from 1.
        line: u64,
    },
    /// A quote where none may be.
    #[error("{path}, line {line}: a stray quote; put the field in quotes and write each quote in it twice")]
    StrayQuote {
        /// The file.
        path: String,
        /// The physical line, from 1.
        line: u64,
    },
    /// A quoted field without an end.
    #[error(
        "{path}, line {line}: the quote that opens this field is never closed; close it, or double it if it is text"
    )]
    Unclosed {
        /// The file.
        path: String,
        /// The physical line, from 1.
        line: u64,
    },
    /// A carriage return alone.
    #[error("{path}, line {line}: a carriage return without a newline; end lines with newlines, or quote the field")]
    BareReturn {
        /// The file.
        path: String,
        /// The physical line, from 1.
        line: u64,
    },
    /// A record that is too short or too long.
    #[error(
        "{path}, line {line}: the record has {found} fields, but the header has {expected}; quote fields that hold commas"
    )]
    FieldCount {
        /// The file.
        path: String,
        /// The physical line on which the record starts, from 1.
        line: u64,
        /// Fields of the header.
        expected: usize,
        /// Fields of the record.
        found: usize,
    },
    /// A record that is not what the program takes it to be.
    #[error("{path}, line {line}: {message}")]
    Row {
        /// The file.
        path: String,
        /// The physical line on which the record starts, from 1.
        line: u64,
        /// What does not fit.
        message: String,
    },
    /// The same, found by the client, which does not count lines.
    #[error("{path}, in the record at byte {offset}: {message}")]
    Record {
        /// The file, or the pattern that it was found by.
        path: String,
        /// Where the record starts in its file.
        offset: u64,
        /// What does not fit.
        message: String,
    },
}

impl CsvError {
    /// What `malformed` means, at a line that `line_at` works out from a place in the file.
    pub(crate) fn malformed(path: &str, malformed: Malformed, line_at: impl FnOnce(u64) -> u64) -> CsvError {
        let path = path.to_owned();
        if let Fault::Io(source) = malformed.fault {
            return CsvError::Io { path, source };
        }
        let line = line_at(malformed.offset);
        match malformed.fault {
            Fault::StrayQuote => CsvError::StrayQuote { path, line },
            Fault::Unclosed => CsvError::Unclosed { path, line },
            Fault::BareReturn => CsvError::BareReturn { path, line },
            Fault::FieldCount { expected, found } => CsvError::FieldCount { path, line, expected, found },
            Fault::Io(source) => CsvError::Io { path, source },
        }
    }
}
