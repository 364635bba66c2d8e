//! Rows as they leave: as a table, CSV, JSON or Parquet, to standard output or to a file.
//!
//! Rows are written as they come. A file has its name only once it is whole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use datafusion::arrow::csv::{Writer as CsvWriter, WriterBuilder as CsvWriterBuilder};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::writer::{LineDelimited, Writer as JsonWriter, WriterBuilder as JsonWriterBuilder};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches_with_options;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A table for people.
    Table,
    /// Comma-separated values, with the columns' names first.
    Csv,
    /// An object a line.
    Json,
    /// Apache Parquet, to a file only.
    Parquet,
}

impl Output {
    /// What the name of a file asks for.
    pub(super) fn of_file(path: &Path) -> Option<Output> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Output::Csv),
            "json" | "jsonl" | "ndjson" => Some(Output::Json),
            "parquet" => Some(Output::Parquet),
            "txt" => Some(Output::Table),
            _ => None,
        }
    }
}

/// Why rows were not written. A file of this name, if there was one, is as it was.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum OutputError {
    #[error("the rows could not be printed: {0}")]
    Print(#[source] io::Error),
    #[error("{} could not be written: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the rows cannot be written so: {0}; --output json and parquet take more types than csv")]
    Arrow(#[source] ArrowError),
    #[error("the rows cannot be written as parquet: {0}")]
    Parquet(#[from] ParquetError),
}

impl OutputError {
    /// Whether whoever read the rows wants no more of them.
    pub(super) fn is_closed_pipe(&self) -> bool {
        let is_closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        match self {
            OutputError::Print(error) | OutputError::File { source: error, .. } => is_closed(error),
            OutputError::Arrow(ArrowError::IoError(_, error)) => is_closed(error),
            // The CSV writer turns the error into its text.
            OutputError::Arrow(ArrowError::CsvError(text)) => text.contains("Broken pipe"),
            OutputError::Arrow(_) | OutputError::Parquet(_) => false,
        }
    }
}

/// Where rows go.
pub(super) enum Target {
    Standard(BufWriter<io::Stdout>),
    File(NewFile),
}

impl Target {
    pub(super) fn standard() -> Target {
        Target::Standard(BufWriter::new(io::stdout()))
    }

    fn failure(&self, source: io::Error) -> OutputError {
        match self {
            Target::Standard(_) => OutputError::Print(source),
            Target::File(file) => OutputError::File { path: file.path.clone(), source },
        }
    }

    /// Says that all has been written.
    fn commit(mut self) -> Result<(), OutputError> {
        match self.flush() {
            Err(error) => Err(self.failure(error)),
            Ok(()) => match self {
                Target::Standard(_) => Ok(()),
                Target::File(file) => file.commit(),
            },
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Standard(out) => out.write(bytes),
            Target::File(file) => file.out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Standard(out) => out.flush(),
            Target::File(file) => file.out.flush(),
        }
    }
}

/// A file under another name, until it is whole; without that it is removed.
pub(super) struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    out: BufWriter<File>,
    is_whole: bool,
}

impl NewFile {
    pub(super) fn create(path: &Path) -> Result<NewFile, OutputError> {
        let failure = |source| OutputError::File { path: path.to_owned(), source };
        let name = path.file_name().ok_or_else(|| failure(io::ErrorKind::IsADirectory.into()))?;
        if path.is_dir() {
            return Err(failure(io::ErrorKind::IsADirectory.into()));
        }
        // In the same folder: only there is a rename one step.
        let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let out = BufWriter::new(File::create(&temporary).map_err(failure)?);
        Ok(NewFile { path: path.to_owned(), temporary, out, is_whole: false })
    }

    fn commit(mut self) -> Result<(), OutputError> {
        let moved = self.out.get_ref().sync_all().and_then(|()| std::fs::rename(&self.temporary, &self.path));
        self.is_whole = moved.is_ok();
        moved.map_err(|source| OutputError::File { path: self.path.clone(), source })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_whole {
            // It may be gone with its folder.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Writes the batches of one result.
pub(super) struct RowWriter {
    rows: u64,
    format: Format,
}

enum Format {
    Table { out: Target, kept: Vec<RecordBatch>, schema: SchemaRef, limit: Option<usize> },
    Csv(Box<CsvWriter<Target>>),
    Json(JsonWriter<Target, LineDelimited>),
    Parquet(Box<ArrowWriter<Target>>),
}

impl RowWriter {
    /// Begins a result with these columns. Of a table, `limit` rows are shown and the others are counted.
    pub(super) fn new(
        output: Output,
        out: Target,
        schema: SchemaRef,
        limit: Option<usize>,
    ) -> Result<RowWriter, OutputError> {
        let format = match output {
            Output::Table => Format::Table { out, kept: Vec::new(), schema, limit },
            Output::Csv => {
                let mut writer = CsvWriterBuilder::new().with_header(true).build(out);
                // The names are there also if no row is.
                writer.write(&RecordBatch::new_empty(schema)).map_err(of_arrow)?;
                Format::Csv(Box::new(writer))
            }
            Output::Json => Format::Json(JsonWriterBuilder::new().with_explicit_nulls(true).build(out)),
            Output::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(compression).build();
                Format::Parquet(Box::new(ArrowWriter::try_new(out, schema, Some(properties))?))
            }
        };
        Ok(RowWriter { rows: 0, format })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        let before = self.rows as usize;
        self.rows += batch.num_rows() as u64;
        match &mut self.format {
            Format::Table { kept, limit, .. } => {
                let room = limit.map_or(usize::MAX, |limit| limit.saturating_sub(before));
                if room > 0 && batch.num_rows() > 0 {
                    kept.push(batch.slice(0, batch.num_rows().min(room)));
                }
                Ok(())
            }
            Format::Csv(writer) => writer.write(batch).map_err(of_arrow),
            Format::Json(writer) => writer.write(batch).map_err(of_arrow),
            Format::Parquet(writer) => Ok(writer.write(batch)?),
        }
    }

    /// Ends the result; gives how many rows it has.
    pub(super) fn finish(self) -> Result<u64, OutputError> {
        let rows = self.rows;
        match self.format {
            Format::Table { mut out, kept, schema, limit } => {
                write_table(&mut out, schema, &kept)?;
                if let Some(limit) = limit.filter(|limit| rows > *limit as u64) {
                    let more = writeln!(out, "{limit} of {rows} rows are shown; --limit-shown 0 shows all");
                    more.map_err(|error| out.failure(error))?;
                }
                out.commit()?;
            }
            Format::Csv(writer) => writer.into_inner().commit()?,
            Format::Json(mut writer) => {
                writer.finish().map_err(of_arrow)?;
                writer.into_inner().commit()?;
            }
            Format::Parquet(writer) => writer.into_inner()?.commit()?,
        }
        Ok(rows)
    }
}

fn write_table(out: &mut Target, schema: SchemaRef, batches: &[RecordBatch]) -> Result<(), OutputError> {
    let options = datafusion::common::format::DEFAULT_FORMAT_OPTIONS.with_null("NULL");
    let empty = [RecordBatch::new_empty(schema)];
    let batches = if batches.is_empty() { &empty } else { batches };
    let table = pretty_format_batches_with_options(batches, &options).map_err(of_arrow)?;
    writeln!(out, "{table}").map_err(|error| out.failure(error))
}

fn of_arrow(error: ArrowError) -> OutputError {
    match error {
        ArrowError::IoError(_, source) => OutputError::Print(source),
        error => OutputError::Arrow(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(from: i64, to: i64) -> RecordBatch {
        let schema =
            Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("text", DataType::Utf8, true)]);
        let texts = (from..to).map(|n| (n % 2 == 0).then(|| format!("{n}\n\"x\", y")));
        let columns: [Arc<dyn datafusion::arrow::array::Array>; 2] =
            [Arc::new(Int64Array::from_iter_values(from..to)), Arc::new(texts.collect::<StringArray>())];
        RecordBatch::try_new(Arc::new(schema), columns.to_vec()).unwrap()
    }

    fn written(output: Output, batches: &[RecordBatch], limit: Option<usize>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let out = Target::File(NewFile::create(&path).unwrap());
        let mut writer = RowWriter::new(output, out, batch(0, 0).schema(), limit).unwrap();
        for batch in batches {
            writer.write(batch).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn a_table_shows_so_many_rows_and_counts_all() {
        let shown = written(Output::Table, &[batch(1, 2), batch(3, 4), batch(5, 6)], Some(2));
        let expected = "+---+------+\n| n | text |\n+---+------+\n| 1 | NULL |\n| 3 | NULL |\n+---+------+\n\
                        2 of 3 rows are shown; --limit-shown 0 shows all\n";
        assert_eq!(shown, expected);
        assert!(written(Output::Table, &[batch(1, 2)], Some(1)).ends_with("| 1 | NULL |\n+---+------+\n"));
        assert!(written(Output::Table, &[], None).contains("| n | text |"));
    }

    #[test]
    fn csv_and_json_hold_newlines_quotes_and_nulls() {
        let batches = [batch(1, 2), batch(2, 3)];
        assert_eq!(written(Output::Csv, &batches, None), "n,text\n1,\n2,\"2\n\"\"x\"\", y\"\n");
        assert_eq!(written(Output::Csv, &[], None), "n,text\n");
        let json = "{\"n\":1,\"text\":null}\n{\"n\":2,\"text\":\"2\\n\\\"x\\\", y\"}\n";
        assert_eq!(written(Output::Json, &batches, None), json);
        assert_eq!(written(Output::Json, &[], None), "");
    }

    #[test]
    fn a_file_that_is_given_up_leaves_nothing_and_the_old_one_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, "old").unwrap();
        let out = Target::File(NewFile::create(&path).unwrap());
        let mut writer = RowWriter::new(Output::Csv, out, batch(0, 0).schema(), None).unwrap();
        writer.write(&batch(0, 10)).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn a_file_in_no_folder_is_an_error_that_names_it() {
        let error = NewFile::create(Path::new("/nowhere/at/all.csv")).err().unwrap().to_string();
        assert!(error.starts_with("/nowhere/at/all.csv could not be written: "), "{error}");
    }
}
