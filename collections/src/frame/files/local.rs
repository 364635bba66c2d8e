//! The node's own disk as an object store, read on the thread that asks.
//!
//! `object_store`'s own local store hands every read to a thread pool. A stage of a query has a thread to itself, and the
//! wake-ups there and back cost more than reads from the page cache take. A file that is asked for whole comes as an open
//! file, which DataFusion reads in place; a part of one is read here. What is not reading is left to `object_store`.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// A part of a file that is streamed is read in pieces of so many bytes, but for a part that is small enough to be wanted
/// at once, which would have to be put together again.
const STREAM_BYTES: u64 = 1 << 20;
const AT_ONCE_BYTES_MAX: u64 = 8 << 20;

/// The disk of the node.
#[derive(Debug, Default)]
pub(super) struct LocalStore {
    /// For what is not reading.
    files: LocalFileSystem,
}

impl LocalStore {
    pub(super) fn new() -> LocalStore {
        LocalStore::default()
    }

    fn open(&self, location: &Path) -> Result<File> {
        File::open(self.files.path_to_filesystem(location)?).map_err(|source| failed(location, source))
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("local files")
    }
}

/// The error of a read.
pub(super) fn failed(location: &Path, source: io::Error) -> Error {
    let path = format!("/{location}");
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Error::NotFound { path, source: source.into() }
        }
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => Error::Generic { store: "local files", source: format!("{path}: {source}").into() },
    }
}

fn meta_of(location: &Path, metadata: &Metadata) -> Result<ObjectMeta> {
    if metadata.is_dir() {
        return Err(failed(location, io::ErrorKind::IsADirectory.into()));
    }
    let modified = metadata.modified().map_err(|source| failed(location, source))?;
    let last_modified = DateTime::<Utc>::from(modified);
    // The tag that `object_store`'s own store gives.
    let e_tag = format!("{:x}-{:x}-{:x}", metadata.ino(), last_modified.timestamp_micros(), metadata.len());
    Ok(ObjectMeta {
        location: location.clone(),
        last_modified,
        size: metadata.len(),
        e_tag: Some(e_tag),
        version: None,
    })
}

/// The bytes of a range, all of them.
fn read_range(file: &File, location: &Path, range: &Range<u64>) -> Result<Bytes> {
    let mut bytes = vec![0; range.end.saturating_sub(range.start) as usize];
    file.read_exact_at(&mut bytes, range.start).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => {
            let text = format!("/{location} ends before byte {}: it has become shorter", range.end);
            Error::Generic { store: "local files", source: text.into() }
        }
        _ => failed(location, source),
    })?;
    Ok(bytes.into())
}

/// The bytes of a range, piece by piece. The file may have become shorter than when the range was made.
fn stream_range(file: File, location: Path, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let nbytes = range.end.saturating_sub(range.start);
    let step = if nbytes <= AT_ONCE_BYTES_MAX { nbytes.max(1) } else { STREAM_BYTES };
    let pieces = range.clone().step_by(step as usize).map(move |start| start..(start + step).min(range.end));
    stream::iter(pieces.map(move |piece| read_range(&file, &location, &piece))).boxed()
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = self.files.path_to_filesystem(location)?;
        let result =
            |payload, meta: ObjectMeta, range| GetResult { payload, meta, range, attributes: Attributes::default() };
        if options.head {
            let metadata = fs::metadata(&path).map_err(|source| failed(location, source))?;
            let meta = meta_of(location, &metadata)?;
            options.check_preconditions(&meta)?;
            let range = 0..meta.size;
            return Ok(result(GetResultPayload::Stream(stream::empty().boxed()), meta, range));
        }
        let file = self.open(location)?;
        let meta = meta_of(location, &file.metadata().map_err(|source| failed(location, source))?)?;
        options.check_preconditions(&meta)?;
        match &options.range {
            None => {
                let range = 0..meta.size;
                Ok(result(GetResultPayload::File(file, path), meta, range))
            }
            Some(range) => {
                let invalid = |source| Error::Generic { store: "local files", source: Box::new(source) };
                let range = range.as_range(meta.size).map_err(invalid)?;
                let payload = GetResultPayload::Stream(stream_range(file, location.clone(), range.clone()));
                Ok(result(payload, meta, range))
            }
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let file = self.open(location)?;
        ranges.iter().map(|range| read_range(&file, location, range)).collect()
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await
    }
}
