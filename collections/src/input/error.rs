//! Why files cannot be read or written, with the remedy. No error holds a URL's query or user, which may be secrets.

use std::io;

use crate::csv::CsvError;

/// Why a bag's files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Finding or reading a file failed.
    #[error(transparent)]
    File(#[from] CsvError),
    /// Text that is not UTF-8.
    #[error(
        "{path}, {line}byte {offset}: the text is not UTF-8; convert the file, or set TextOptions::not_utf8 to \
         TextErrors::Lossy or TextErrors::Skip"
    )]
    NotUtf8 {
        /// The file.
        path: String,
        /// The physical line, from 1, as `line 2, `; empty if it is not known.
        line: String,
        /// The first byte that is wrong, from 0, in the unpacked file.
        offset: u64,
    },
    /// A line that is longer than lines may be.
    #[error(
        "{path}, {line}byte {offset}: the line is longer than {limit} bytes; is it a text file? If it is, set line_bytes_max \
         of the options higher"
    )]
    LongLine {
        /// The file.
        path: String,
        /// The physical line, from 1, as `line 2, `; empty if it is not known.
        line: String,
        /// Where the line starts, in the unpacked file.
        offset: u64,
        /// How long a line may be.
        limit: u64,
    },
    /// A record that is not what it should be.
    #[error("{path}, {place}: {message}{remedy}")]
    Record {
        /// The file.
        path: String,
        /// Where the record is: its line, byte or number.
        place: String,
        /// What does not fit.
        message: String,
        /// What to do, if that can be said.
        remedy: &'static str,
    },
    /// A compressed file that cannot be unpacked.
    #[error("{path} is no whole {compression} file; copy it again, or set the compression that it has")]
    Unpack {
        /// The file.
        path: String,
        /// How it is compressed.
        compression: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// A file of another format.
    #[error("{path} cannot be read as {format}: {message}")]
    Format {
        /// The file.
        path: String,
        /// The format.
        format: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The node was built without what this needs.
    #[error(
        "{what} needs the feature \"{feature}\" of starling, which this binary was built without: add it, or \"formats\""
    )]
    NoFeature {
        /// What needs it.
        what: String,
        /// The feature.
        feature: &'static str,
    },
    /// A URL that cannot be used.
    #[error("{url} cannot be used: {problem}")]
    BadUrl {
        /// The URL, without what may be secret.
        url: String,
        /// What to write.
        problem: String,
    },
    /// A store's failure.
    #[error("{url} cannot be reached: {message}; {remedy}")]
    Store {
        /// The URL, without what may be secret.
        url: String,
        /// What the store said.
        message: String,
        /// What to look at.
        remedy: String,
    },
    /// A file cannot be written.
    #[error("{path} cannot be written")]
    Write {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A place for files that is none.
    #[error("{path} is no place for a file a partition: name a directory, or a path with one * in its last part")]
    NoPlace {
        /// The path.
        path: String,
    },
}
