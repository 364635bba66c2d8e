//! Where a scan's bytes come from: local files by plain reads, objects of a store by one request a range.
//!
//! A local file is read where the stream is polled, which blocks for a read from the page cache or the disk, as DataFusion's
//! own local reads do. A file is read only as long as it is the one that was planned with: that is looked at before a range is read
//! and after.

use std::fs::File;
use std::io::{self, Read, Take};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use memchr::memchr_iter;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use super::error::CsvTableError;
use super::options::Compression;
use super::part::{Object, Part, Place, TableFile, TableSpec};
use super::reader::{BatchReader, Fault, Progress, Reading};
use crate::csv::{CsvError, FileStamp};

/// One partition of a scan.
pub(super) struct Scan {
    pub(super) table: Arc<TableSpec>,
    pub(super) parts: Vec<Part>,
    /// The table's columns that are wanted.
    pub(super) columns: Vec<usize>,
    /// Their schema.
    pub(super) schema: SchemaRef,
    pub(super) batch_size: usize,
    pub(super) limit: usize,
    pub(super) metrics: ScanMetrics,
}

/// What a partition tells of itself.
pub(super) struct ScanMetrics {
    baseline: BaselineMetrics,
    bytes_scanned: Count,
    bad_rows_skipped: Count,
}

impl ScanMetrics {
    pub(super) fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> ScanMetrics {
        ScanMetrics {
            baseline: BaselineMetrics::new(metrics, partition),
            bytes_scanned: MetricBuilder::new(metrics).counter("bytes_scanned", partition),
            bad_rows_skipped: MetricBuilder::new(metrics).counter("bad_rows_skipped", partition),
        }
    }
}

/// The batches of a partition, in the order of the files.
pub(super) fn stream(scan: Scan, context: Arc<TaskContext>) -> BoxStream<'static, Result<RecordBatch>> {
    let reader = PartitionReader { scan, context, next: 0, open: None, buffer: Vec::new() };
    let batches = stream::try_unfold(reader, |mut reader| async move {
        let batch = reader.next().await?;
        Ok(batch.map(|batch| (batch, reader)))
    });
    batches.boxed()
}

struct PartitionReader {
    scan: Scan,
    context: Arc<TaskContext>,
    /// The number of the next part.
    next: usize,
    open: Option<Open>,
    /// Kept from part to part: fresh memory costs more to touch than to parse.
    buffer: Vec<u8>,
}

/// A part that is being read.
struct Open {
    file: usize,
    rows: BatchReader,
    input: Input,
}

/// Where its bytes come from.
enum Input {
    /// The range, and the same file for a look at its stamp.
    Plain(Take<File>, File),
    Compressed(Box<dyn Read + Send>, File),
    Remote(BoxStream<'static, Result<Bytes>>, Bytes),
}

impl PartitionReader {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(open) = &mut self.open else {
                if self.scan.limit == 0 || !self.open_next().await? {
                    return Ok(None);
                }
                continue;
            };
            let metrics = &self.scan.metrics;
            let timer = metrics.baseline.elapsed_compute().timer();
            let progress = open.rows.next();
            metrics.bad_rows_skipped.add(open.rows.take_bad_rows());
            drop(timer);
            match progress {
                Ok(Progress::Batch(batch)) => {
                    self.scan.limit -= batch.num_rows().min(self.scan.limit);
                    metrics.baseline.record_output(batch.num_rows());
                    return Ok(Some(batch));
                }
                Ok(Progress::More) => {
                    let nbytes = open.fill(&self.scan.table).await?;
                    metrics.bytes_scanned.add(nbytes);
                }
                Ok(Progress::Done) => self.close()?,
                Err(fault) => {
                    let file = open.file;
                    return Err(self.error(file, fault).await);
                }
            }
        }
    }

    /// Opens the next part, if there is one.
    async fn open_next(&mut self) -> Result<bool> {
        let Some(part) = self.scan.parts.get(self.next).copied() else { return Ok(false) };
        self.next += 1;
        let table = &self.scan.table;
        let Some(file) = table.files.get(part.file) else { return Ok(false) };
        let is_whole = !file.compression.is_none();
        let input = match &file.place {
            Place::Local(stamp) => open_local(stamp, file.compression, part)?,
            Place::Remote(object) => open_remote(&self.context, object, file.compression, part).await?,
        };
        let reading = Reading {
            format: &table.format,
            columns: file.columns,
            schema: Arc::clone(&self.scan.schema),
            origins: table.origins(file, &self.scan.columns)?,
            batch_size: self.scan.batch_size,
            limit: self.scan.limit,
            offset: if is_whole { 0 } else { part.start },
            counts_lines: is_whole,
        };
        let rows = BatchReader::new(reading, std::mem::take(&mut self.buffer))?;
        self.open = Some(Open { file: part.file, rows, input });
        Ok(true)
    }

    fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if let Some(TableFile { place: Place::Local(stamp), .. }) = self.scan.table.files.get(open.file)
            && let Input::Plain(_, file) | Input::Compressed(_, file) = &open.input
        {
            stamp.check(file).map_err(CsvTableError::from)?;
        }
        self.buffer = open.rows.into_buffer();
        Ok(())
    }

    /// What `fault` means. A file that changed while it was read may look like anything.
    async fn error(&mut self, file: usize, fault: Fault) -> DataFusionError {
        let Some(file) = self.scan.table.files.get(file) else {
            return DataFusionError::Internal("a CSV scan reads a file that it has not".to_owned());
        };
        let line = match &file.place {
            Place::Local(stamp) => match stamp.open(0, 0) {
                Err(changed) => return CsvTableError::from(changed).into(),
                Ok(_) if file.compression.is_none() => stamp.line_at(fault.offset),
                Ok(_) => fault.line + 1,
            },
            Place::Remote(object) if file.compression.is_none() => {
                remote_line_at(&self.context, object, fault.offset).await
            }
            Place::Remote(_) => fault.line + 1,
        };
        let column = |number: usize| {
            let field = self.scan.schema.field(number);
            (field.name().clone(), field.data_type().clone())
        };
        CsvTableError::of(fault, file.place.name(), line, column).into()
    }
}

impl Open {
    /// Puts more bytes into the rows' buffer.
    async fn fill(&mut self, table: &TableSpec) -> Result<usize> {
        let nbytes = match &mut self.input {
            Input::Plain(input, _) => read(input, self.rows.room()),
            Input::Compressed(input, _) => read(input, self.rows.room()),
            Input::Remote(input, piece) => {
                while piece.is_empty() {
                    match input.try_next().await? {
                        Some(next) => *piece = next,
                        None => break,
                    }
                }
                let room = self.rows.room();
                let nbytes = piece.len().min(room.len());
                piece.copy_to_slice(&mut room[..nbytes]);
                Ok(nbytes)
            }
        };
        let nbytes = nbytes.map_err(|source| {
            let path = table.files.get(self.file).map_or_else(String::new, |file| file.place.name());
            CsvTableError::from(CsvError::Io { path, source })
        })?;
        self.rows.filled(nbytes);
        Ok(nbytes)
    }
}

fn read(input: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn open_local(stamp: &FileStamp, compression: Compression, part: Part) -> Result<Input> {
    let input = stamp.open(part.start, part.end).map_err(CsvTableError::from)?;
    let file = input.get_ref().try_clone().map_err(|source| CsvError::Io { path: stamp.path.clone(), source });
    let file = file.map_err(CsvTableError::from)?;
    Ok(match compression {
        Compression::None => Input::Plain(input, file),
        compression => Input::Compressed(compression.file_type().convert_read(input)?, file),
    })
}

async fn open_remote(context: &TaskContext, object: &Object, compression: Compression, part: Part) -> Result<Input> {
    let range = if compression.is_none() { Some(part.start..part.end) } else { None };
    let bytes = get(context, object, range).await?;
    let bytes = if compression.is_none() { bytes } else { compression.file_type().convert_stream(bytes)? };
    Ok(Input::Remote(bytes, Bytes::new()))
}

/// The bytes of an object that is still the same.
pub(super) async fn get(
    context: &TaskContext,
    object: &Object,
    range: Option<std::ops::Range<u64>>,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let store = store(context, object)?;
    get_from(store, object, range).await
}

fn store(context: &TaskContext, object: &Object) -> Result<Arc<dyn ObjectStore>> {
    context.runtime_env().object_store(ObjectStoreUrl::parse(&object.store)?)
}

/// The bytes of an object of `store` that is still the same.
pub(super) async fn get_from(
    store: Arc<dyn ObjectStore>,
    object: &Object,
    range: Option<std::ops::Range<u64>>,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let name = format!("{}{}", object.store, object.path);
    let refused = |error: object_store::Error, name: String| -> DataFusionError {
        match error {
            object_store::Error::Precondition { .. } => CsvTableError::from(CsvError::Changed { path: name }).into(),
            error => CsvTableError::Store { url: name, source: error.into() }.into(),
        }
    };
    let path = Path::parse(&object.path).map_err(|error| refused(error.into(), name.clone()))?;
    let options =
        GetOptions { range: range.map(GetRange::Bounded), if_match: object.etag.clone(), ..GetOptions::default() };
    let got = store.get_opts(&path, options).await.map_err(|error| refused(error, name.clone()))?;
    if got.meta.size != object.len {
        return Err(CsvTableError::from(CsvError::Changed { path: name }).into());
    }
    Ok(got.into_stream().map_err(move |error| refused(error, name.clone())).boxed())
}

/// The physical line, from 1, on which byte `offset` stands. Reads the object up to there: for errors only.
async fn remote_line_at(context: &TaskContext, object: &Object, offset: u64) -> u64 {
    let mut lines = 1;
    if offset > 0
        && let Ok(mut pieces) = get(context, object, Some(0..offset)).await
    {
        while let Ok(Some(piece)) = pieces.try_next().await {
            lines += memchr_iter(b'\n', &piece).count() as u64;
        }
    }
    lines
}
