//! The workers' disks as the client's `file://`.
//!
//! A client plans, workers read. Whatever the client lists or looks up under `file://`, it asks all workers for, so that
//! DataFusion plans with the files that will be read, and infers schemas from them, whether or not the client has them. What
//! it has itself, with the same size and time, it reads itself; the rest comes from a worker, in ranges.
//!
//! Each look-up and listing asks anew: a table that is scanned again is planned with the files of that moment. What was
//! found then is remembered for the reads and placements of the plan.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use starling_actors::{Cluster, WeakCluster};
use starling_core::ids::NodeId;

use super::local::LocalStore;
use super::registry::{Stores, environment};
use crate::csv::same_time;
use crate::files::{self, FilesError, Listing, MeshFile, READ_BYTES_MAX, modified};

/// What errors call it.
const STORE: &str = "files of the cluster";
/// With more files remembered than this, all are forgotten, and looked up again when they are needed.
const KNOWN_MAX: usize = 1 << 20;
/// A file that is streamed begins with a piece of so many bytes, as only its head may be wanted.
const STREAM_BYTES_FIRST: u64 = 256 << 10;
/// How many pieces are on their way.
const STREAM_PIECES: usize = 2;

/// The files on the workers' disks, for one client. Clones are the same.
#[derive(Clone)]
pub struct MeshFiles {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: WeakCluster,
    /// The client's own disk.
    local: LocalStore,
    paths: LocalFileSystem,
    require_everywhere: AtomicBool,
    known: Mutex<Known>,
}

/// What the last listings have found.
#[derive(Default)]
struct Known {
    files: BTreeMap<String, Arc<KnownFile>>,
    /// What was warned of.
    warned: HashSet<String>,
}

struct KnownFile {
    file: MeshFile,
    /// Whether every worker had it.
    is_everywhere: bool,
}

impl fmt::Debug for MeshFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshFiles({} known)", self.lock().files.len())
    }
}

impl fmt::Display for MeshFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

impl MeshFiles {
    /// The files of a client's cluster. Does not keep the client.
    pub fn new(cluster: &Cluster) -> MeshFiles {
        let shared = Shared {
            cluster: cluster.downgrade(),
            local: LocalStore::new(),
            paths: LocalFileSystem::new(),
            require_everywhere: AtomicBool::new(false),
            known: Mutex::default(),
        };
        MeshFiles { shared: Arc::new(shared) }
    }

    /// The stores of the client's session: [`registry`](super::registry()), with the workers' disks under `file://`.
    pub fn registry(&self) -> Arc<dyn ObjectStoreRegistry> {
        Arc::new(Stores::new(Arc::new(self.clone()), environment()))
    }

    /// Whether a file that some workers lack is an error, instead of a warning and of tasks only where it is. The default is
    /// no.
    pub fn require_everywhere(&self, required: bool) {
        self.shared.require_everywhere.store(required, Ordering::Relaxed);
    }

    /// The nodes that had the file at this absolute path when it was last looked up; `None` if all had it, or it never was
    /// looked up.
    pub fn placement(&self, path: &str) -> Option<Vec<NodeId>> {
        let known = Arc::clone(self.lock().files.get(path)?);
        (!known.is_everywhere).then(|| known.file.nodes().collect())
    }

    /// Looks for a path, directory or pattern on all workers, and remembers what there is.
    ///
    /// # Errors
    /// [`FilesError::Nowhere`] if no worker has it, nor has the client a directory there; [`FilesError::Differs`];
    /// [`FilesError::NotEverywhere`] if that [is required](MeshFiles::require_everywhere); what the workers say.
    pub async fn look_up(&self, path: &str) -> std::result::Result<Listing, FilesError> {
        let cluster = self.cluster()?;
        let listing = files::list(&cluster, path).await?;
        // Otherwise a directory that is to be written to would have to be on a worker.
        let is_new_directory = listing.is_nothing() && std::path::Path::new(path).is_dir();
        if !is_new_directory {
            listing.check(self.shared.require_everywhere.load(Ordering::Relaxed))?;
        }
        self.remember(&listing);
        Ok(listing)
    }

    pub(super) fn remember(&self, listing: &Listing) {
        let mut known = self.lock();
        if known.files.len() + listing.files.len() > KNOWN_MAX {
            *known = Known::default();
        }
        let mut lacking: BTreeMap<Vec<NodeId>, Vec<&str>> = BTreeMap::new();
        for file in &listing.files {
            let without: Vec<NodeId> = listing.lacking(file).collect();
            let is_everywhere = without.is_empty();
            known.files.insert(file.path.clone(), Arc::new(KnownFile { file: file.clone(), is_everywhere }));
            if !is_everywhere {
                lacking.entry(without).or_default().push(&file.path);
            }
        }
        for (nodes, paths) in lacking {
            let nodes = listing.name_of(nodes);
            if known.warned.insert(format!("{} {nodes}", listing.path)) {
                let (path, files) = (paths[0], paths.len());
                tracing::warn!(path, files, lacking = nodes, "not on every node: only those that have it read it");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cluster(&self) -> std::result::Result<Cluster, FilesError> {
        self.shared.cluster.upgrade().ok_or(FilesError::Closed)
    }

    /// The path of an object on a disk.
    fn path_of(&self, location: &Path) -> Result<String> {
        let path = self.shared.paths.path_to_filesystem(location)?;
        path.into_os_string().into_string().map_err(|path| {
            let path = std::path::PathBuf::from(path).display().to_string();
            of_files(FilesError::NotUtf8 { path })
        })
    }

    /// The file at a location as it is now. A directory is no object.
    async fn find(&self, location: &Path) -> Result<Arc<KnownFile>> {
        let path = self.path_of(location)?;
        let absent = |text: String| Error::NotFound { path: path.clone(), source: text.into() };
        let listing = self.look_up(&path).await.map_err(|error| match error {
            // Whoever asks may try it as a directory next, and gets the error itself then.
            FilesError::Nowhere { .. } => absent(error.to_string()),
            error => of_files(error),
        })?;
        if listing.is_directory {
            return Err(absent(format!("{path} is a directory")));
        }
        self.lock().files.get(&path).cloned().ok_or_else(|| absent(format!("{path} has gone")))
    }

    /// The file at a location as it was found last.
    async fn known(&self, location: &Path) -> Result<Arc<KnownFile>> {
        let path = self.path_of(location)?;
        let known = self.lock().files.get(&path).cloned();
        match known {
            Some(known) => Ok(known),
            None => self.find(location).await,
        }
    }

    /// Whether the client has the same file.
    fn is_here(&self, file: &MeshFile) -> bool {
        std::fs::metadata(&file.path).is_ok_and(|metadata| {
            let time = modified(&metadata);
            metadata.len() == file.size() && file.copies.iter().any(|copy| same_time(copy.modified, time))
        })
    }

    async fn read(&self, file: &MeshFile, range: Range<u64>) -> Result<Bytes> {
        let cluster = self.cluster().map_err(of_files)?;
        let wanted = range.end.min(file.size()).saturating_sub(range.start);
        let bytes = files::read(&cluster, file, range).await.map_err(of_files)?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        let text = format!("{}: {} bytes came of {wanted}", file.path, bytes.len());
        Err(Error::Generic { store: STORE, source: text.into() })
    }

    /// The pieces of a range, the first ones small.
    fn stream(&self, known: Arc<KnownFile>, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        let mut at = range.start;
        let mut nbytes = STREAM_BYTES_FIRST;
        let ranges = std::iter::from_fn(move || {
            let piece = at..(at + nbytes).min(range.end);
            at = piece.end;
            nbytes = (2 * nbytes).min(READ_BYTES_MAX);
            (!piece.is_empty()).then_some(piece)
        });
        let files = self.clone();
        stream::iter(ranges)
            .map(move |range| {
                let (files, known) = (files.clone(), Arc::clone(&known));
                async move { files.read(&known.file, range).await }
            })
            .buffered(STREAM_PIECES)
            .boxed()
    }
}

fn of_files(error: FilesError) -> Error {
    Error::Generic { store: STORE, source: Box::new(error) }
}

/// What DataFusion knows of a file: its size, and the time of its newest copy.
fn meta_of(location: Path, file: &MeshFile) -> ObjectMeta {
    let last_modified = DateTime::from_timestamp_nanos(i64::try_from(file.modified()).unwrap_or(i64::MAX));
    ObjectMeta { location, last_modified, size: file.size(), e_tag: None, version: None }
}

#[async_trait]
impl ObjectStore for MeshFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.shared.local.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.shared.local.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let known = if options.head { self.find(location).await? } else { self.known(location).await? };
        let meta = meta_of(location.clone(), &known.file);
        options.check_preconditions(&meta)?;
        let result =
            |payload, meta: ObjectMeta, range| GetResult { payload, meta, range, attributes: Attributes::default() };
        if options.head {
            let range = 0..meta.size;
            return Ok(result(GetResultPayload::Stream(stream::empty().boxed()), meta, range));
        }
        if self.is_here(&known.file) {
            let options = GetOptions { range: options.range, ..GetOptions::default() };
            let here = self.shared.local.get_opts(location, options).await?;
            return Ok(result(here.payload, meta, here.range));
        }
        let range = match &options.range {
            None => 0..meta.size,
            Some(range) => {
                let invalid = |source| Error::Generic { store: STORE, source: Box::new(source) };
                range.as_range(meta.size).map_err(invalid)?
            }
        };
        let payload = GetResultPayload::Stream(self.stream(known, range.clone()));
        Ok(result(payload, meta, range))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let known = self.known(location).await?;
        if self.is_here(&known.file) {
            return self.shared.local.get_ranges(location, ranges).await;
        }
        futures::future::try_join_all(ranges.iter().map(|range| self.read(&known.file, range.clone()))).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.shared.local.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let files = self.clone();
        let listed = async move {
            let path = if prefix.as_ref().is_empty() { "/".to_owned() } else { files.path_of(&prefix)? };
            let listing = match files.look_up(&path).await {
                Ok(listing) => listing,
                // As in any store, nothing is below a prefix that nobody has. What looks like a file was meant to be there.
                Err(FilesError::Nowhere { .. }) if prefix.extension().is_none() => {
                    return Ok(stream::iter(Vec::new()));
                }
                Err(error) => return Err(of_files(error)),
            };
            // A path that is a file is no prefix of any.
            let found = if listing.is_directory { listing.files } else { Vec::new() };
            let metas = found.into_iter().map(|file| Ok(meta_of(Path::from_absolute_path(&file.path)?, &file)));
            Ok::<_, Error>(stream::iter(metas.collect::<Vec<_>>()))
        };
        listed.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let objects: Vec<ObjectMeta> = self.list(prefix).try_collect().await?;
        let prefix = prefix.cloned().unwrap_or_default();
        let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        for object in objects {
            let Some(mut parts) = object.location.prefix_match(&prefix) else { continue };
            let Some(child) = parts.next() else { continue };
            if parts.next().is_none() {
                drop(parts);
                result.objects.push(object);
            } else {
                let below = prefix.clone().join(child);
                // The list is in order of the paths, so that those of one directory follow each other.
                if result.common_prefixes.last() != Some(&below) {
                    result.common_prefixes.push(below);
                }
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.shared.local.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.shared.local.rename_opts(from, to, options).await
    }
}
