//! Bags' files, but for CSV files that are cut in blocks: which there are, and how each is cut into partitions.
//!
//! A file of lines is cut at fixed places: a range takes the lines that start in it, and finds where the first of them
//! starts by looking for the newline before it. A compressed file, one of a server that gives no ranges, and an Avro file are
//! one partition each, and are streamed. A Parquet file has a partition for each row group.

#[cfg(feature = "avro")]
mod avro;
mod csv;
#[cfg(test)]
mod format_tests;
#[cfg(feature = "parquet")]
mod parquet;
mod read;
#[cfg(test)]
#[cfg(feature = "object-store")]
mod remote_tests;
#[cfg(test)]
mod tests;
mod xml;

use std::sync::Arc;

use futures::lock::Mutex;
use serde::{Deserialize, Serialize};
use starling_actors::Cluster;
use starling_macros::task;

pub(super) use read::cause;

use super::BagError;
use super::reading::{Paths, TextErrors};
use crate::input::{Compression, InputFile, ReadError};

/// How many bytes make a partition, at least and at most. Each makes a table or list of its own that has to be merged with the
/// others, so there are no more than keep the cluster's threads evenly busy.
const BLOCK_BYTES: (u64, u64) = (16 << 20, 64 << 20);
/// How many partitions there should be for each thread of the cluster.
const BLOCKS_PER_THREAD: u64 = 8;

/// Files, found by the workers when a bag over them is first computed.
#[derive(Clone)]
pub(crate) struct SourceFiles {
    paths: Paths,
    pub(crate) reading: Arc<Reading>,
    found: Arc<Mutex<Option<Arc<Vec<FileRange>>>>>,
}

/// How files are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) format: Format,
    /// How large partitions are; 0 to let the number of threads decide.
    pub(crate) block_bytes: u64,
    pub(crate) compression: Compression,
    pub(crate) line_bytes_max: u64,
    pub(crate) unfit: Unfit,
    /// The fields that the records' type asks for; `None` for all.
    pub(crate) wanted: Option<Vec<String>>,
}

/// What is in the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Format {
    /// Lines; each with its file's path, if that is said.
    Text { not_utf8: TextErrors, with_path: bool },
    /// A JSON value a line.
    JsonLines,
    /// An XML element of this name a line, its fields in attributes.
    XmlRows { element: String },
    /// Records with a header, from the file's start to its end.
    Csv { missing_columns: bool },
    /// Avro records.
    Avro,
    /// Parquet records.
    Parquet,
}

/// What becomes of a record that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unfit {
    /// The computation fails.
    Fail,
    /// It is left out.
    Skip,
    /// It is an item, an `Err`.
    Keep,
}

/// A part of a file: a partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FileRange {
    pub(crate) file: InputFile,
    pub(crate) span: Span,
    pub(crate) reading: Arc<Reading>,
}

/// Which part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Span {
    /// The lines that start in `start..end`.
    Bytes { start: u64, end: u64 },
    /// All of it.
    Whole,
    /// A row group, by its number, and the number of rows before it.
    RowGroup { number: u64, rows_before: u64 },
}

impl SourceFiles {
    pub(crate) fn new(paths: Paths, reading: Reading) -> SourceFiles {
        SourceFiles { paths, reading: Arc::new(reading), found: Arc::default() }
    }

    /// Whether the items are records that no closure has given a type.
    pub(crate) fn is_untyped(&self) -> bool {
        !matches!(self.reading.format, Format::Text { .. })
    }

    pub(crate) async fn ranges(&self, cluster: &Cluster) -> Result<Arc<Vec<FileRange>>, BagError> {
        let mut found = self.found.lock().await;
        if let Some(ranges) = &*found {
            return Ok(ranges.clone());
        }
        let found_by = find::task(self.paths.0.clone(), (*self.reading).clone(), cluster.nthreads());
        let files = cluster.submit(found_by).result().await?;
        let range = |file: &InputFile, span| FileRange { file: file.clone(), span, reading: self.reading.clone() };
        let ranges = files.iter().flat_map(|(file, spans)| spans.iter().map(|span| range(file, *span)));
        let ranges = Arc::new(ranges.collect::<Vec<_>>());
        *found = Some(ranges.clone());
        Ok(ranges)
    }
}

/// The files at paths, patterns or URLs, and how each is cut.
#[task(crate = starling_runtime, json = false)]
fn find(names: Vec<String>, mut reading: Reading, nthreads: u32) -> Result<Vec<(InputFile, Vec<Span>)>, ReadError> {
    let mut files = Vec::new();
    for name in names {
        files.extend(InputFile::find(&name)?);
    }
    if reading.block_bytes == 0 {
        let total: u64 = files.iter().map(InputFile::len).sum();
        let wanted = u64::from(nthreads.max(1)) * BLOCKS_PER_THREAD;
        reading.block_bytes = (total / wanted).clamp(BLOCK_BYTES.0, BLOCK_BYTES.1);
    }
    let spans = |file: InputFile| reading.spans(&file).map(|spans| (file, spans));
    files.into_iter().map(spans).collect()
}

impl Reading {
    pub(crate) fn compression_of(&self, file: &InputFile) -> Compression {
        self.compression.of(file.path())
    }

    fn spans(&self, file: &InputFile) -> Result<Vec<Span>, ReadError> {
        match self.format {
            Format::Parquet => row_groups(file),
            Format::Avro | Format::Csv { .. } => Ok(vec![Span::Whole]),
            Format::Text { .. } | Format::JsonLines | Format::XmlRows { .. } if file.len() == 0 => Ok(Vec::new()),
            _ if self.compression_of(file) != Compression::None || !file.has_ranges() => Ok(vec![Span::Whole]),
            _ => {
                let step = usize::try_from(self.block_bytes).unwrap_or(usize::MAX);
                let starts = (0..file.len()).step_by(step);
                let span =
                    |start: u64| Span::Bytes { start, end: start.saturating_add(self.block_bytes).min(file.len()) };
                Ok(starts.map(span).collect())
            }
        }
    }
}

#[cfg(feature = "parquet")]
fn row_groups(file: &InputFile) -> Result<Vec<Span>, ReadError> {
    parquet::row_groups(file)
}

#[cfg(not(feature = "parquet"))]
fn row_groups(file: &InputFile) -> Result<Vec<Span>, ReadError> {
    Err(ReadError::NoFeature { what: format!("reading {} as Parquet", file.path()), feature: "parquet" })
}
