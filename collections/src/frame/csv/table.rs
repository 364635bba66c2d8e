//! CSV files as a table: which they are, which columns they have, and how a scan of them is planned.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, exec_datafusion_err};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::wrap_partition_type_in_dict;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use starling_actors::{Cluster, WeakCluster};
use starling_core::ids::NodeId;
use starling_runtime::task::Call;

use super::super::error::FrameError;
use super::super::files::together;
use super::super::session::Frames;
use super::cuts::{Cuts, cuts};
use super::error::CsvTableError;
use super::exec::CsvScanExec;
use super::options::{Compression, CsvReadOptions, Format};
use super::part::{Object, Part, Place, TableFile, TableSpec, deal, partition_value};
use super::source;
use super::tasks::{self, Kind, Sample};
use crate::csv::{CsvError, FileStamp, absolute};
use crate::files::MeshFile;

/// How many files are looked at at once.
const FILES_AT_ONCE: usize = 64;

/// A query that wants so few rows reads the files from their beginning, in one partition, and does not look for cuts.
const ROWS_FEW: usize = 10_000;

/// The directory's name for NULL.
const NULL_DIRECTORY: &str = "__HIVE_DEFAULT_PARTITION__";

/// CSV files as one table.
pub struct CsvTable {
    /// The client's session keeps the table, so the table must not keep the client.
    cluster: WeakCluster,
    spec: Arc<TableSpec>,
    partition_bytes_min: u64,
    reuse_cuts: bool,
    warnings: Mutex<Vec<String>>,
}

impl fmt::Debug for CsvTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsvTable").field("files", &self.spec.files.len()).finish_non_exhaustive()
    }
}

impl CsvTable {
    /// The files at these paths (or in these directories, or of these patterns, or at these URLs) as one table. Workers find
    /// local files, and look at their first records; where the files may be cut is found out when they are first scanned.
    ///
    /// # Errors
    /// [`FrameError::Csv`] if there are none, or they do not go together.
    pub async fn open(
        cluster: &Cluster,
        paths: Vec<String>,
        options: CsvReadOptions,
    ) -> Result<Arc<CsvTable>, FrameError> {
        Ok(Arc::new(CsvTable::opened(cluster, paths, &options).await?))
    }

    async fn opened(
        cluster: &Cluster,
        paths: Vec<String>,
        options: &CsvReadOptions,
    ) -> Result<CsvTable, CsvTableError> {
        let format = Format::of(options);
        let context = Frames::of(cluster).context().task_ctx();
        let mut found = Vec::new();
        for path in &paths {
            found.extend(find(cluster, path, options).await?);
        }
        let records = if options.schema.is_some() { 0 } else { options.schema_infer_max_rec };
        let mut samples = Vec::with_capacity(found.len());
        for file in &found {
            samples.push(sample(cluster, &context, file, &format, options, records).boxed());
        }
        let samples: Vec<Sample> = stream::iter(samples).buffered(FILES_AT_ONCE).try_collect().await?;
        let columns = columns(&found, &samples, options)?;
        let partition_columns = partition_columns(&found, options)?;
        let mut fields: Vec<Arc<Field>> = columns.schema.fields().iter().cloned().collect();
        fields.extend(partition_columns.iter().map(|(name, kind)| Arc::new(Field::new(name, kind.clone(), true))));
        let files = found
            .into_iter()
            .zip(samples)
            .zip(columns.mappings)
            .map(|((file, sample), mapping)| {
                let partition_values = partition_columns
                    .iter()
                    .map(|(name, _)| {
                        let (_, value) = file.hive.iter().find(|(column, _)| column == name)?;
                        (value != NULL_DIRECTORY).then(|| value.clone())
                    })
                    .collect();
                let compression = compression(&file.place, options);
                TableFile { place: file.place, compression, columns: sample.columns.len(), mapping, partition_values }
            })
            .collect();
        let spec = TableSpec {
            format,
            file_columns: columns.schema.fields().len(),
            schema: Arc::new(Schema::new_with_metadata(fields, columns.schema.metadata().clone())),
            files,
        };
        for file in &spec.files {
            for ((name, kind), value) in partition_columns.iter().zip(&file.partition_values) {
                partition_value(&file.place, name, kind, value.clone())?;
            }
        }
        Ok(CsvTable {
            cluster: cluster.downgrade(),
            spec: Arc::new(spec),
            partition_bytes_min: options.partition_bytes_min,
            reuse_cuts: options.reuse_cuts,
            warnings: Mutex::default(),
        })
    }

    /// The files' paths or URLs.
    pub fn paths(&self) -> Vec<String> {
        self.spec.files.iter().map(|file| file.place.name()).collect()
    }

    /// Size of all files in bytes.
    pub fn nbytes(&self) -> u64 {
        self.spec.files.iter().map(|file| file.place.len()).sum()
    }

    /// What scans so far had to be warned of: files that could not be read in parallel.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A scan with up to `partitions` partitions.
    async fn plan(
        &self,
        context: &TaskContext,
        partitions: usize,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<CsvScanExec> {
        let files = &self.spec.files;
        let whole = Arc::<Cuts>::default();
        let cuts = if partitions <= 1 || limit.is_some_and(|rows| rows <= ROWS_FEW) {
            vec![whole; files.len()]
        } else {
            let cluster = self.cluster.upgrade();
            let cluster = cluster.ok_or_else(|| exec_datafusion_err!("the client of this table's cluster is gone"))?;
            let mut found = Vec::with_capacity(files.len());
            for file in files {
                found.push(
                    cuts(&cluster, context, file, &self.spec.format, self.partition_bytes_min, self.reuse_cuts).boxed(),
                );
            }
            stream::iter(found).buffered(FILES_AT_ONCE).try_collect().await?
        };
        self.warn(&cuts);
        let pieces = cuts.iter().zip(files).enumerate();
        let pieces: Vec<Part> =
            pieces.flat_map(|(number, (cuts, file))| cuts.pieces(number, file.place.len())).collect();
        let most = usize::try_from(self.nbytes() / self.partition_bytes_min.max(1)).unwrap_or(usize::MAX).max(1);
        let partitions = if limit.is_some_and(|rows| rows <= ROWS_FEW) { 1 } else { partitions.min(most) };
        let parts = self.apart(deal(pieces, partitions));
        CsvScanExec::new(Arc::clone(&self.spec), parts, projection.cloned(), limit)
    }

    /// The partitions, each of which one node has all files of: one of files that lie apart becomes several.
    fn apart(&self, partitions: Vec<Vec<Part>>) -> Vec<Vec<Part>> {
        let Some(cluster) = self.cluster.upgrade() else { return partitions };
        let frames = Frames::of(&cluster);
        let placement = |part: &Part| match &self.spec.files.get(part.file)?.place {
            Place::Local(stamp) => frames.files().placement(&stamp.path),
            Place::Remote(_) => None,
        };
        let placements = |part: Part| (placement(&part), part);
        let apart = |parts: Vec<Part>| match parts.is_empty() {
            true => vec![parts],
            false => together(parts.into_iter().map(placements)),
        };
        partitions.into_iter().flat_map(apart).collect()
    }

    fn warn(&self, cuts: &[Arc<Cuts>]) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in cuts.iter().filter_map(|cuts| cuts.warning.as_ref()) {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
    }
}

#[async_trait]
impl TableProvider for CsvTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = state.config().target_partitions();
        Ok(Arc::new(self.plan(&state.task_ctx(), partitions, projection, limit).await?))
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut statistics = Statistics::new_unknown(&self.spec.schema);
        statistics.total_byte_size = Precision::Inexact(usize::try_from(self.nbytes()).unwrap_or(usize::MAX));
        Some(statistics)
    }
}

/// A file that was found, and what its path tells.
struct Found {
    place: Place,
    hive: Vec<(String, String)>,
}

/// The `name=value` directories of what follows the part of a path that the user named.
fn hive(path: &str) -> Vec<(String, String)> {
    let directories = path.rsplit_once('/').map_or("", |(directories, _)| directories);
    let pair = |directory: &str| directory.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    directories.split('/').filter_map(pair).collect()
}

async fn find(cluster: &Cluster, path: &str, options: &CsvReadOptions) -> Result<Vec<Found>, CsvTableError> {
    let local = match path.split_once("://") {
        Some(("file", path)) => path,
        Some(_) => return find_objects(cluster, path, options).await,
        None => path,
    };
    let path = absolute(local);
    let listing = Frames::of(cluster).files().look_up(&path).await?;
    let is_pattern = path.contains(['*', '?', '[']) && listing.files.iter().all(|file| file.path != path);
    // Up to the last separator before the first wildcard.
    let fixed = if is_pattern { path.find(['*', '?', '[']).unwrap_or(path.len()) } else { path.len() };
    let is_directory = listing.is_directory && !is_pattern;
    let root = if is_directory { path.len() } else { path[..fixed].rfind('/').map_or(0, |place| place + 1) };
    let is_table_file = |file: &&MeshFile| {
        let within = file.path.get(root..).unwrap_or_default();
        let is_hidden = within.split('/').any(|name| name.starts_with(['.', '_']));
        !is_directory || (!is_hidden && tasks::has_extension(within, &options.file_extension))
    };
    let found = listing.files.iter().filter(is_table_file).map(|file| {
        let modified = file.modified();
        let or_older = file.copies.iter().any(|copy| copy.modified != modified);
        let stamp = FileStamp { path: file.path.clone(), len: file.size(), modified, or_older };
        Found { place: Place::Local(stamp), hive: hive(file.path.get(root..).unwrap_or_default()) }
    });
    let found: Vec<Found> = found.collect();
    if found.is_empty() {
        let path = path.trim_end_matches('/');
        return Err(CsvError::NotFound { pattern: format!("{path}/**/*{}", options.file_extension) }.into());
    }
    Ok(found)
}

/// The call, on a node that has the file.
pub(super) fn where_it_is<R>(cluster: &Cluster, call: Call<R>, file: &FileStamp) -> Call<R> {
    match Frames::of(cluster).files().placement(&file.path) {
        Some(nodes) => call.workers(nodes.iter().map(NodeId::hex)),
        None => call,
    }
}

async fn find_objects(cluster: &Cluster, url: &str, options: &CsvReadOptions) -> Result<Vec<Found>, CsvTableError> {
    let refused = |source| CsvTableError::Store { url: url.to_owned(), source };
    // A `?` begins a query in the address of a web page.
    let wildcards: &[char] = if url.starts_with("http") { &['*', '['] } else { &['*', '[', '?'] };
    let listed = match url.find(wildcards).and_then(|place| url[..place].rfind('/')) {
        None => ListingTableUrl::parse(url),
        Some(slash) => ListingTableUrl::parse(&url[..=slash]).and_then(|base| base.with_glob(&url[slash + 1..])),
    };
    let listed = listed.map_err(refused)?;
    let state = Frames::of(cluster).context().state();
    let store = state.runtime_env().object_store(&listed).map_err(refused)?;
    let objects = listed.list_all_files(&state, store.as_ref(), "").await.map_err(refused)?;
    let mut objects: Vec<_> = objects.try_collect().await.map_err(refused)?;
    objects.sort_by(|one, other| one.location.cmp(&other.location));
    if listed.is_collection() && listed.get_glob().is_none() {
        let is_table_file = |name: &str| tasks::has_extension(name, &options.file_extension);
        objects.retain(|object| object.location.filename().is_some_and(is_table_file));
    }
    if objects.is_empty() {
        return Err(CsvError::NotFound { pattern: url.to_owned() }.into());
    }
    let root = listed.prefix().as_ref().len();
    let found = |object: object_store::ObjectMeta| {
        let path = object.location.as_ref().to_owned();
        let hive = if listed.is_collection() { hive(path.get(root..).unwrap_or_default()) } else { Vec::new() };
        let place = Place::Remote(Object {
            store: listed.object_store().as_str().to_owned(),
            path,
            len: object.size,
            modified_ms: object.last_modified.timestamp_millis(),
            etag: object.e_tag,
        });
        Found { place, hive }
    };
    Ok(objects.into_iter().map(found).collect())
}

fn compression(place: &Place, options: &CsvReadOptions) -> Compression {
    options.compression.map_or_else(|| Compression::of_name(&place.name()), Compression::of)
}

async fn sample(
    cluster: &Cluster,
    context: &TaskContext,
    file: &Found,
    format: &Format,
    options: &CsvReadOptions,
    records: usize,
) -> Result<Sample, CsvTableError> {
    let compression = compression(&file.place, options);
    if file.place.len() == 0 {
        return Err(CsvError::Empty { path: file.place.name() }.into());
    }
    match &file.place {
        Place::Local(stamp) => {
            let task = tasks::sample_file::task(stamp.clone(), format.clone(), compression, records);
            Ok(cluster.submit(where_it_is(cluster, task, stamp)).result().await?)
        }
        Place::Remote(object) => sample_object(context, object, compression, format, records).await,
    }
}

/// Looks at the beginning of an object, at more and more of it until there are so many records.
async fn sample_object(
    context: &TaskContext,
    object: &Object,
    compression: Compression,
    format: &Format,
    records: usize,
) -> Result<Sample, CsvTableError> {
    let name = Place::Remote(object.clone()).name();
    let refused = |source| CsvTableError::Store { url: name.clone(), source };
    let mut pieces = source::get(context, object, None).await.map_err(refused)?;
    if !compression.is_none() {
        pieces = compression.file_type().convert_stream(pieces).map_err(refused)?;
    }
    let mut bytes: Vec<u8> = Vec::new();
    let mut enough = 1 << 20;
    loop {
        let mut at_end = true;
        while let Some(piece) = pieces.try_next().await.map_err(refused)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() >= enough {
                at_end = false;
                break;
            }
        }
        // The last record may be cut off: it is not looked at.
        let whole = if at_end { bytes.as_slice() } else { whole_lines(&bytes) };
        let sample = tasks::sample(|| Ok(whole), &name, format, records);
        match sample {
            Ok(sample) if at_end || !sample.is_whole => return Ok(sample),
            Err(error) if at_end => return Err(error),
            _ => enough = bytes.len() * 2,
        }
    }
}

/// Up to the last newline.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = memchr::memrchr(b'\n', bytes).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

/// The columns that come from files.
struct Columns {
    schema: SchemaRef,
    /// For each file its numbers of the table's columns, if they are not the same.
    mappings: Vec<Option<Vec<Option<usize>>>>,
}

fn columns(found: &[Found], samples: &[Sample], options: &CsvReadOptions) -> Result<Columns, CsvTableError> {
    if options.union_by_name && options.has_header {
        return columns_by_name(found, samples, options);
    }
    let mut table: Vec<(String, Kind)> = Vec::new();
    for (number, (file, sample)) in found.iter().zip(samples).enumerate() {
        let path = || file.place.name();
        if let Some(schema) = &options.schema {
            let (expected, found) = (schema.fields().len(), sample.columns.len());
            if expected != found {
                return Err(CsvTableError::ColumnCount { path: path(), expected, found });
            }
            continue;
        }
        if number == 0 {
            table = sample.columns.clone();
            continue;
        }
        let first = || found[0].place.name();
        if !table.iter().map(|(name, _)| name).eq(sample.columns.iter().map(|(name, _)| name)) {
            let missing = lacking(&table, &sample.columns);
            let added = lacking(&sample.columns, &table);
            return Err(CsvTableError::Columns { path: path(), first: first(), missing, added });
        }
        for ((name, kind), (_, other)) in table.iter_mut().zip(&sample.columns) {
            *kind = kind.merge(*other).ok_or_else(|| CsvTableError::Types {
                column: name.clone(),
                path: path(),
                data_type: other.data_type(),
                first: first(),
                first_type: kind.data_type(),
            })?;
        }
    }
    let schema = options.schema.clone().unwrap_or_else(|| Arc::new(inferred(table, samples, options)));
    Ok(Columns { schema, mappings: vec![None; found.len()] })
}

/// The names of those columns that `others` has not.
fn lacking(columns: &[(String, Kind)], others: &[(String, Kind)]) -> Vec<String> {
    let names = columns.iter().map(|(name, _)| name);
    names.filter(|name| !others.iter().any(|(other, _)| other == *name)).cloned().collect()
}

fn inferred(mut columns: Vec<(String, Kind)>, samples: &[Sample], options: &CsvReadOptions) -> Schema {
    // Where nothing was seen, and not all was looked at, there may yet be anything: text keeps it. DataFusion, which
    // takes it for NULLs, would lose it.
    let is_whole = samples.iter().all(|sample| sample.is_whole) && options.schema_infer_max_rec > 0;
    for (_, kind) in &mut columns {
        if *kind == Kind::Null && !is_whole {
            *kind = Kind::Utf8;
        }
    }
    tasks::schema_of(&columns)
}

fn columns_by_name(found: &[Found], samples: &[Sample], options: &CsvReadOptions) -> Result<Columns, CsvTableError> {
    let schema = match &options.schema {
        Some(schema) => Arc::clone(schema),
        None => {
            let mut table: Vec<(String, Kind, usize)> = Vec::new();
            for (number, sample) in samples.iter().enumerate() {
                for (name, kind) in &sample.columns {
                    let Some((_, merged, first)) = table.iter_mut().find(|(known, ..)| known == name) else {
                        table.push((name.clone(), *kind, number));
                        continue;
                    };
                    *merged = merged.merge(*kind).ok_or_else(|| CsvTableError::Types {
                        column: name.clone(),
                        path: found[number].place.name(),
                        data_type: kind.data_type(),
                        first: found[*first].place.name(),
                        first_type: merged.data_type(),
                    })?;
                }
            }
            let table = table.into_iter().map(|(name, kind, _)| (name, kind)).collect();
            Arc::new(inferred(table, samples, options))
        }
    };
    let mapping = |sample: &Sample| {
        let place = |field: &Arc<Field>| sample.columns.iter().position(|(name, _)| name == field.name());
        let mapping: Vec<Option<usize>> = schema.fields().iter().map(place).collect();
        let is_same = mapping.iter().enumerate().all(|(number, place)| *place == Some(number));
        (!is_same).then_some(mapping)
    };
    let mappings = samples.iter().map(mapping).collect();
    Ok(Columns { schema, mappings })
}

/// The columns that paths tell, and their types.
fn partition_columns(found: &[Found], options: &CsvReadOptions) -> Result<Vec<(String, DataType)>, CsvTableError> {
    let columns = match (&options.partition_columns, found.first()) {
        (Some(columns), _) => columns.clone(),
        // As DataFusion has them: texts, of which there are few.
        (None, Some(first)) => {
            first.hive.iter().map(|(name, _)| (name.clone(), wrap_partition_type_in_dict(DataType::Utf8))).collect()
        }
        (None, None) => Vec::new(),
    };
    for file in found {
        if let Some((_, _)) = columns.iter().find(|(name, _)| !file.hive.iter().any(|(column, _)| column == name)) {
            let expected = columns.iter().map(|(name, _)| name.clone()).collect();
            return Err(CsvTableError::PartitionColumns { path: file.place.name(), expected });
        }
    }
    Ok(columns)
}
