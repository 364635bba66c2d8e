//! Files as tables: which files a location means, which format their names say, and which columns they have.
//!
//! A location is a path, a directory with those below it, a glob, or a URL of each. All of a table's files have one format; directories named
//! `key=value` give columns. Nothing but names, and what tells the columns, is read before a query.

use std::fmt;
use std::path::Component;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::avro::AvroFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::cache::cache_manager::TableScopedPath;
use datafusion::prelude::DataFrame;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use url::Url;

use super::csv::{CsvReadOptions, CsvTable, OnBadRow};
use super::error::FrameError;
use super::scan::of_json_arrays;
use super::session::Frames;
use crate::files::FilesError;

/// How the rows of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFormat {
    /// Fields between commas, in quotes where they hold commas, quotes or newlines.
    Csv,
    /// As CSV, with tabs.
    Tsv,
    /// JSON: an object a line, or an array of objects.
    Json,
    /// Apache Parquet.
    Parquet,
    /// Apache Avro's object container.
    Avro,
    /// Arrow IPC, as a file or a stream; also called Feather.
    Arrow,
}

impl TableFormat {
    /// All formats.
    pub const ALL: [TableFormat; 6] = [
        TableFormat::Csv,
        TableFormat::Tsv,
        TableFormat::Json,
        TableFormat::Parquet,
        TableFormat::Avro,
        TableFormat::Arrow,
    ];

    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            TableFormat::Csv => "csv",
            TableFormat::Tsv => "tsv",
            TableFormat::Json => "json",
            TableFormat::Parquet => "parquet",
            TableFormat::Avro => "avro",
            TableFormat::Arrow => "arrow",
        }
    }

    fn of_extension(extension: &str) -> Option<TableFormat> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "csv" => TableFormat::Csv,
            "tsv" => TableFormat::Tsv,
            "json" | "jsonl" | "ndjson" => TableFormat::Json,
            "parquet" => TableFormat::Parquet,
            "avro" => TableFormat::Avro,
            "arrow" | "feather" => TableFormat::Arrow,
            _ => return None,
        })
    }

    /// Whether a file of it may be compressed as a whole.
    fn may_be_compressed(self) -> bool {
        matches!(self, TableFormat::Csv | TableFormat::Tsv | TableFormat::Json)
    }
}

impl fmt::Display for TableFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How files are read.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// Whether CSV files begin with the columns' names.
    pub has_header: bool,
    /// What stands between the fields of a CSV file, if not a comma, or a tab in TSV.
    pub delimiter: Option<u8>,
    /// What fields of a CSV file are put in that hold delimiters or newlines.
    pub quote: u8,
    /// The columns, if they are not to be inferred. Without those that directories give.
    pub schema: Option<SchemaRef>,
    /// How many rows of CSV or JSON are looked at to infer the columns.
    pub infer_rows: usize,
    /// What is done with rows that do not fit.
    pub on_bad_row: OnBadRow,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions {
            has_header: true,
            delimiter: None,
            quote: b'"',
            schema: None,
            infer_rows: 1_000,
            on_bad_row: OnBadRow::Fail,
        }
    }
}

/// The files of a table.
#[derive(Clone, Debug)]
pub struct TableSource {
    locations: Vec<String>,
    format: Option<TableFormat>,
    options: TableOptions,
}

impl TableSource {
    /// The files at a path, a directory, a glob or a URL.
    pub fn new(location: impl Into<String>) -> TableSource {
        TableSource::of([location])
    }

    /// The files at all these locations.
    pub fn of(locations: impl IntoIterator<Item = impl Into<String>>) -> TableSource {
        let locations = locations.into_iter().map(Into::into).collect();
        TableSource { locations, format: None, options: TableOptions::default() }
    }

    /// Reads them as `format`, whatever their names say.
    pub fn format(self, format: TableFormat) -> TableSource {
        TableSource { format: Some(format), ..self }
    }

    /// Reads them with these options.
    pub fn options(self, options: TableOptions) -> TableSource {
        TableSource { options, ..self }
    }
}

/// Why files are no table. Nothing was registered.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No location was given.
    #[error("a table needs at least one file: give its path")]
    NoLocation,
    /// There is nothing at the location.
    #[error("there is no file at {location}, neither here nor on a worker")]
    NoFiles {
        /// What was asked for.
        location: String,
    },
    /// What was given is no location.
    #[error("{location} is no path or URL: {problem}")]
    Location {
        /// What was asked for.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file's name does not say what it holds.
    #[error(
        "the name of {path} does not say what it holds: it should end in .csv, .tsv, .json, .jsonl, .ndjson, .parquet, \
         .avro, .arrow or .feather, the text formats also with .gz, .zst, .bz2 or .xz behind it; or say the format"
    )]
    UnknownFormat {
        /// The file or directory.
        path: String,
    },
    /// The files of one table are of several formats.
    #[error("{location} holds {first} files and {second} files: choose one kind with a glob, such as *.{first}")]
    Mixed {
        /// What was asked for.
        location: String,
        /// A kind of file that is there.
        first: String,
        /// Another kind that is there.
        second: String,
    },
    /// A format that holds its own compression was compressed.
    #[error("{path}: {format} files hold their own compression and are not read from a compressed file: decompress it")]
    Compressed {
        /// The file.
        path: String,
        /// What it holds.
        format: TableFormat,
    },
    /// The files of one table lie in several stores.
    #[error("{first} and {second} lie in different stores: make a table of each, and a view of both with UNION ALL")]
    Stores {
        /// One of the stores.
        first: String,
        /// Another.
        second: String,
    },
    /// Directories give different columns.
    #[error("{path} is in directories that give the columns {found:?}, and others give {expected:?}")]
    Partitions {
        /// A file that differs.
        path: String,
        /// What its directories give.
        found: Vec<String>,
        /// What those of the first file give.
        expected: Vec<String>,
    },
    /// A glob chooses among directories that give columns.
    #[error(
        "{location} chooses among directories that give columns: name the directory above them or write {key}=*, and choose \
         with WHERE"
    )]
    PartitionGlob {
        /// What was asked for.
        location: String,
        /// The column.
        key: String,
    },
    /// The files have different columns.
    #[error("the columns of {path} do not go together with those of {first}: {problem}")]
    Schemas {
        /// The file that does not fit.
        path: String,
        /// The file before which it does not fit.
        first: String,
        /// How they differ.
        problem: DataFusionError,
    },
    /// Bad rows are to be skipped, and nothing reads this format so.
    #[error("bad rows cannot be skipped in {format} files: leave out the skipping of bad rows")]
    NoSkipping {
        /// The format.
        format: TableFormat,
    },
    /// The files could not be listed or looked into.
    #[error(transparent)]
    Read(#[from] DataFusionError),
}

impl Frames {
    /// Makes a table of files, in the place of one that has the name. Upper case in the name counts as lower case, as in SQL
    /// without quotes.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_collections::frame::{FrameError, FrameExt, TableSource};
    /// # async fn run(cluster: Cluster) -> Result<(), FrameError> {
    /// let frames = cluster.frames();
    /// frames.register("posts", TableSource::new("data/posts*.csv.gz")).await?;
    /// frames.sql("SELECT count(*) FROM posts").await?.show().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`FrameError::Table`] if the files are not there, or are no table.
    pub async fn register(&self, name: &str, source: TableSource) -> Result<(), FrameError> {
        let name = TableReference::from(name);
        let table = self.provider(&source, Some(&name)).await?;
        self.context().deregister_table(name.clone())?;
        self.context().register_table(name, table)?;
        Ok(())
    }

    /// A frame of files, without a name for it.
    ///
    /// # Errors
    /// As [`Frames::register`].
    pub async fn read(&self, source: TableSource) -> Result<DataFrame, FrameError> {
        let table = self.provider(&source, None).await?;
        Ok(self.context().read_table(table)?)
    }

    /// What queries read these files through.
    async fn provider(
        &self,
        source: &TableSource,
        name: Option<&TableReference>,
    ) -> Result<Arc<dyn TableProvider>, FrameError> {
        let state = self.context().state();
        let found = Found::find(&state, source, name).await?;
        match found.format(source).await? {
            Some(format) => Ok(found.listing(&state, format, source).await?),
            None => Ok(CsvTable::open(self.cluster(), source.locations.clone(), found.csv_options(source)).await?),
        }
    }
}

/// What stands behind a [`TableSource`].
struct Found {
    store: Arc<dyn ObjectStore>,
    urls: Vec<ListingTableUrl>,
    files: Vec<ObjectMeta>,
    kind: Kind,
    /// What the names of the files in directories end in.
    extension: String,
    /// The columns that directories give.
    partitions: Vec<(String, DataType)>,
}

/// What a file's name says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kind {
    format: TableFormat,
    compression: FileCompressionType,
    /// The end of the name that says it, as it is written there.
    extension: String,
}

impl Kind {
    /// What a name says; nothing for one that ends in something else.
    fn of(name: &str) -> Option<Kind> {
        let (stem, compression) = without_compression(name);
        let (_, extension) = stem.rsplit_once('.')?;
        let format = TableFormat::of_extension(extension)?;
        let start = stem.len() - extension.len() - 1;
        Some(Kind { format, compression, extension: name[start..].to_owned() })
    }

    /// A file that is to be read as `format`, whatever its name says of that.
    fn as_format(name: &str, format: TableFormat) -> Kind {
        let (stem, compression) = without_compression(name);
        let start = stem.rfind('.').filter(|start| *start > 0).unwrap_or(stem.len());
        Kind { format, compression, extension: name[start..].to_owned() }
    }
}

/// A name without the end that says how the file is compressed.
fn without_compression(name: &str) -> (&str, FileCompressionType) {
    let plain = (name, FileCompressionType::UNCOMPRESSED);
    let Some((stem, end)) = name.rsplit_once('.') else { return plain };
    match end.to_ascii_lowercase().as_str() {
        "gz" => (stem, FileCompressionType::GZIP),
        "zst" => (stem, FileCompressionType::ZSTD),
        "bz2" => (stem, FileCompressionType::BZIP2),
        "xz" => (stem, FileCompressionType::XZ),
        _ => plain,
    }
}

impl Found {
    async fn find(
        state: &dyn Session,
        source: &TableSource,
        name: Option<&TableReference>,
    ) -> Result<Found, TableError> {
        let first = source.locations.first().ok_or(TableError::NoLocation)?;
        let urls: Vec<Vec<ListingTableUrl>> =
            source.locations.iter().map(|location| urls_of(location)).collect::<Result<_, _>>()?;
        let one = &urls[0][0];
        let store = state.runtime_env().object_store(one)?;
        if let Some(other) = urls.iter().flatten().find(|url| url.object_store() != one.object_store()) {
            return Err(TableError::Stores { first: one.to_string(), second: other.to_string() });
        }
        let mut found = Found {
            store,
            urls: Vec::new(),
            files: Vec::new(),
            kind: Kind::as_format("", TableFormat::Csv),
            extension: String::new(),
            partitions: Vec::new(),
        };
        let mut kind: Option<Kind> = None;
        let mut partitions = Partitions::default();
        for (location, urls) in source.locations.iter().zip(urls) {
            for url in urls {
                let url = match name {
                    Some(name) => url.with_table_ref(name.clone()),
                    None => url,
                };
                forget(state, &url, name);
                let listed = list(state, &*found.store, &url, location).await?;
                let is_file = listed.len() == 1 && listed[0].location == *url.prefix();
                let mut any = false;
                for file in listed {
                    let name = file.location.filename().unwrap_or_default();
                    let of_file = match source.format {
                        Some(format) => Some(Kind::as_format(name, format)),
                        None => Kind::of(name),
                    };
                    let Some(of_file) = of_file else {
                        if is_file {
                            return Err(TableError::UnknownFormat { path: location.clone() });
                        }
                        continue;
                    };
                    check(&url, &file, location, &of_file, kind.as_ref())?;
                    partitions.add(&url, &file)?;
                    if !is_file {
                        found.extension.clone_from(&of_file.extension);
                    }
                    kind = Some(of_file);
                    any = true;
                    found.files.push(file);
                }
                if !any {
                    return Err(TableError::UnknownFormat { path: location.clone() });
                }
                found.urls.push(url);
            }
        }
        found.kind = kind.ok_or_else(|| TableError::NoFiles { location: first.clone() })?;
        found.partitions = partitions.columns();
        Ok(found)
    }

    /// What DataFusion reads the files as; `None` for CSV, which is read by our own reader.
    async fn format(&self, source: &TableSource) -> Result<Option<Arc<dyn FileFormat>>, TableError> {
        let TableOptions { infer_rows, on_bad_row, .. } = source.options;
        let format = self.kind.format;
        let is_csv = matches!(format, TableFormat::Csv | TableFormat::Tsv);
        if on_bad_row == OnBadRow::Skip && !is_csv {
            return Err(TableError::NoSkipping { format });
        }
        Ok(Some(match format {
            TableFormat::Csv | TableFormat::Tsv => return Ok(None),
            TableFormat::Json => Arc::new(
                JsonFormat::default()
                    .with_schema_infer_max_rec(infer_rows)
                    .with_file_compression_type(self.kind.compression)
                    .with_newline_delimited(!self.is_json_array().await?),
            ),
            TableFormat::Parquet => Arc::new(ParquetFormat::default()),
            TableFormat::Avro => Arc::new(AvroFormat),
            TableFormat::Arrow => Arc::new(ArrowFormat),
        }))
    }

    /// A table that DataFusion reads.
    async fn listing(
        self,
        state: &dyn Session,
        format: Arc<dyn FileFormat>,
        source: &TableSource,
    ) -> Result<Arc<dyn TableProvider>, TableError> {
        let schema = match &source.options.schema {
            Some(schema) => Arc::clone(schema),
            None => self.schema(state, &*format).await?,
        };
        let is_json_array = self.kind.format == TableFormat::Json && self.is_json_array().await?;
        let schema = if is_json_array { of_json_arrays(&schema) } else { schema };
        let options =
            ListingOptions::new(format).with_file_extension(self.extension).with_table_partition_cols(self.partitions);
        let config =
            ListingTableConfig::new_with_multi_paths(self.urls).with_listing_options(options).with_schema(schema);
        let cache = state.runtime_env().cache_manager.get_file_statistic_cache();
        Ok(Arc::new(ListingTable::try_new(config)?.with_cache(cache)))
    }

    /// How the files are read if they are CSV.
    fn csv_options(&self, source: &TableSource) -> CsvReadOptions {
        let TableOptions { has_header, delimiter, quote, schema, infer_rows, on_bad_row } = source.options.clone();
        let default = if self.kind.format == TableFormat::Tsv { b'\t' } else { b',' };
        CsvReadOptions {
            has_header,
            delimiter: delimiter.unwrap_or(default),
            quote,
            schema,
            schema_infer_max_rec: infer_rows,
            on_bad_row,
            compression: Some(self.kind.compression),
            file_extension: without_compression(&self.extension).0.to_owned(),
            partition_columns: Some(self.partitions.clone()),
            ..CsvReadOptions::default()
        }
    }

    /// Whether the first file with anything in it begins an array.
    async fn is_json_array(&self) -> Result<bool, TableError> {
        let Some(file) = self.files.iter().find(|file| file.size > 0) else { return Ok(false) };
        let (first, _) = self.beginning(file).await?;
        Ok(first.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['))
    }

    /// The columns of all files together.
    async fn schema(&self, state: &dyn Session, format: &dyn FileFormat) -> Result<SchemaRef, TableError> {
        // An empty file has no columns, and would be an error in some formats.
        let files: Vec<ObjectMeta> = self.files.iter().filter(|file| file.size > 0).cloned().collect();
        match format.infer_schema(state, &self.store, &files).await {
            Ok(schema) => Ok(schema),
            Err(error) => Err(self.misfit(state, format, &files).await.unwrap_or(TableError::Read(error))),
        }
    }

    /// The first bytes of a file, decompressed, and whether they are all.
    async fn beginning(&self, file: &ObjectMeta) -> Result<(Vec<u8>, bool), TableError> {
        /// More than a thousand rows of most files, and than a block of any compression.
        const READ_BYTES: u64 = 8 << 20;
        let read = file.size.min(READ_BYTES);
        let bytes = self.store.get_range(&file.location, 0..read).await.map_err(DataFusionError::from)?;
        let mut chunks = self.kind.compression.convert_stream(Box::pin(futures::stream::once(async { Ok(bytes) })))?;
        let mut text = Vec::new();
        // What is broken in the file is told when it is read; here the end may only be missing.
        while let Ok(Some(chunk)) = chunks.try_next().await {
            text.extend_from_slice(&chunk);
        }
        Ok((text, read == file.size))
    }

    /// A file as people know it.
    fn shown(&self, file: &ObjectMeta) -> String {
        shown(&self.urls[0], file)
    }

    /// The first file whose columns do not go together with those before it, if that is what is wrong.
    async fn misfit(&self, state: &dyn Session, format: &dyn FileFormat, files: &[ObjectMeta]) -> Option<TableError> {
        let (first, others) = files.split_first()?;
        let mut merged = of_file(state, format, &self.store, first).await?;
        for file in others {
            let schema = of_file(state, format, &self.store, file).await?;
            merged = match Schema::try_merge([merged, schema]) {
                Ok(merged) => merged,
                Err(problem) => {
                    return Some(TableError::Schemas {
                        path: self.shown(file),
                        first: self.shown(first),
                        problem: problem.into(),
                    });
                }
            };
        }
        None
    }
}

async fn of_file(
    state: &dyn Session,
    format: &dyn FileFormat,
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
) -> Option<Schema> {
    let schema = format.infer_schema(state, store, std::slice::from_ref(file)).await.ok()?;
    Some(schema.as_ref().clone())
}

/// A file behind a URL, as people know it.
fn shown(url: &ListingTableUrl, file: &ObjectMeta) -> String {
    let store = if url.scheme() == "file" { "/".to_owned() } else { url.object_store().to_string() };
    format!("{store}{}", file.location)
}

/// Refuses a file that cannot be read, or not together with those before it.
fn check(
    url: &ListingTableUrl,
    file: &ObjectMeta,
    location: &str,
    kind: &Kind,
    before: Option<&Kind>,
) -> Result<(), TableError> {
    if kind.compression.is_compressed() && !kind.format.may_be_compressed() {
        return Err(TableError::Compressed { path: shown(url, file), format: kind.format });
    }
    let is_other = |before: &&Kind| before.format != kind.format || before.compression != kind.compression;
    match before.filter(is_other) {
        Some(before) => Err(TableError::Mixed {
            location: location.to_owned(),
            first: before.extension.trim_start_matches('.').to_owned(),
            second: kind.extension.trim_start_matches('.').to_owned(),
        }),
        None => Ok(()),
    }
}

/// The columns that the names of directories give.
#[derive(Default)]
struct Partitions {
    keys: Option<Vec<String>>,
    /// For each key, whether every value is a whole number, as it is written without zeros before it.
    are_numbers: Vec<bool>,
}

impl Partitions {
    fn add(&mut self, url: &ListingTableUrl, file: &ObjectMeta) -> Result<(), TableError> {
        let parts: Vec<&str> = url.strip_prefix(&file.location).map(Iterator::collect).unwrap_or_default();
        let folders = parts.split_last().map(|(_, folders)| folders).unwrap_or_default();
        let pairs: Vec<(&str, &str)> = folders.iter().filter_map(|part| part.split_once('=')).collect();
        let keys: Vec<String> = pairs.iter().map(|(key, _)| (*key).to_owned()).collect();
        let expected = self.keys.get_or_insert_with(|| keys.clone());
        if *expected != keys {
            let path = shown(url, file);
            return Err(TableError::Partitions { path, found: keys, expected: expected.clone() });
        }
        self.are_numbers.resize(pairs.len(), true);
        for (are_numbers, (_, value)) in self.are_numbers.iter_mut().zip(pairs) {
            *are_numbers &= value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
        }
        Ok(())
    }

    fn columns(self) -> Vec<(String, DataType)> {
        let types =
            self.are_numbers.iter().map(|are_numbers| if *are_numbers { DataType::Int64 } else { DataType::Utf8 });
        self.keys.unwrap_or_default().into_iter().zip(types.collect::<Vec<_>>()).collect()
    }
}

/// Lets go of what was listed there before: DataFusion keeps it for as long as the session is.
fn forget(state: &dyn Session, url: &ListingTableUrl, name: Option<&TableReference>) {
    if let Some(cache) = state.runtime_env().cache_manager.get_list_files_cache() {
        cache.remove(&TableScopedPath { table: name.cloned(), path: url.prefix().clone() });
    }
}

/// The files behind a URL, but for hidden ones.
async fn list(
    state: &dyn Session,
    store: &dyn ObjectStore,
    url: &ListingTableUrl,
    location: &str,
) -> Result<Vec<ObjectMeta>, TableError> {
    let no_files = || TableError::NoFiles { location: location.to_owned() };
    let listed = async { url.list_all_files(state, store, "").await?.try_collect().await };
    let listed: Result<Vec<ObjectMeta>, DataFusionError> = listed.await;
    let mut files = listed.map_err(|error| if is_nowhere(&error) { no_files() } else { error.into() })?;
    let is_hidden = |file: &ObjectMeta| {
        let mut parts = url.strip_prefix(&file.location).into_iter().flatten();
        parts.any(|part| part.starts_with(['.', '_']) && !part.contains('='))
    };
    files.retain(|file| !is_hidden(file));
    if files.is_empty() {
        return Err(no_files());
    }
    files.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(files)
}

/// Whether the cause of an error is that no worker has a file.
fn is_nowhere(error: &DataFusionError) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.any(|cause| matches!(cause.downcast_ref(), Some(FilesError::Nowhere { .. })))
}

const GLOB: [char; 3] = ['*', '?', '['];
/// What the names in a directory match that are read: neither `.part.csv` nor `_temporary`.
const NOT_HIDDEN: &str = "[!._]*";

/// A location as DataFusion lists it: at least one.
fn urls_of(location: &str) -> Result<Vec<ListingTableUrl>, TableError> {
    if location.contains("://") {
        return Ok(vec![remote(location)?]);
    }
    if std::fs::metadata(location).is_ok() || !location.contains(GLOB) {
        return Ok(vec![local(location, location)?]);
    }
    if let Some(url) = partitioned(location)? {
        return Ok(vec![url]);
    }
    let problem = |problem: String| TableError::Location { location: location.to_owned(), problem };
    let mut urls = Vec::new();
    for path in glob::glob(location).map_err(|error| problem(error.to_string()))? {
        let path = path.map_err(|error| problem(error.to_string()))?;
        let text = path.to_str().ok_or_else(|| problem(format!("{} is not UTF-8", path.display())))?;
        urls.push(local(text, location)?);
    }
    if urls.is_empty() {
        return Err(TableError::NoFiles { location: location.to_owned() });
    }
    Ok(urls)
}

/// A path of this machine, which is no glob.
fn local(path: &str, location: &str) -> Result<ListingTableUrl, TableError> {
    let problem = |problem: &str| TableError::Location { location: location.to_owned(), problem: problem.to_owned() };
    let mut absolute = std::path::absolute(path).map_err(|error| problem(&error.to_string()))?;
    if absolute.components().any(|part| part == Component::ParentDir) {
        // Stores take no `..`; what it means behind a symbolic link is known to the file system only.
        absolute = absolute.canonicalize().map_err(|_| TableError::NoFiles { location: location.to_owned() })?;
    }
    let is_directory = path.ends_with('/') || absolute.is_dir();
    if is_directory {
        let url = Url::from_directory_path(&absolute).map_err(|()| problem("it is no path of a directory"))?;
        return with_glob(url.as_str(), NOT_HIDDEN, location);
    }
    let url = Url::from_file_path(&absolute).map_err(|()| problem("it is no path of a file"))?;
    Ok(ListingTableUrl::try_new(url, None)?)
}

/// A glob over directories that give columns, such as `data/year=*/*.csv`: the directory above them and what the files' names
/// match. Nothing for any other glob.
fn partitioned(location: &str) -> Result<Option<ListingTableUrl>, TableError> {
    let parts: Vec<&str> = location.split('/').collect();
    let first = parts.iter().position(|part| part.contains(GLOB)).unwrap_or(parts.len());
    let (folder, rest) = parts.split_at(first);
    let Some((name, keys)) = rest.split_last().filter(|(_, keys)| keys.iter().any(|key| key.contains('='))) else {
        return Ok(None);
    };
    if let Some(key) = keys.iter().find(|key| key.split_once('=').is_none_or(|(_, value)| value != "*")) {
        let key = key.split('=').next().unwrap_or_default().to_owned();
        return Err(TableError::PartitionGlob { location: location.to_owned(), key });
    }
    let folder = match folder {
        [] => "./".to_owned(),
        folder => folder.join("/") + "/",
    };
    let base = local(&folder, location)?;
    with_glob(base.as_str(), name, location).map(Some)
}

/// A URL, of which the last part may be a glob.
fn remote(location: &str) -> Result<ListingTableUrl, TableError> {
    // A question mark begins the query of a URL.
    match location.rsplit_once('/').filter(|(_, name)| name.contains(['*', '['])) {
        Some((folder, name)) => with_glob(&format!("{folder}/"), name, location),
        None if location.ends_with('/') => with_glob(location, NOT_HIDDEN, location),
        None => ListingTableUrl::parse(location).map_err(TableError::Read),
    }
}

fn with_glob(folder: &str, name: &str, location: &str) -> Result<ListingTableUrl, TableError> {
    let problem = |problem: String| TableError::Location { location: location.to_owned(), problem };
    let url = Url::parse(folder).map_err(|error| problem(error.to_string()))?;
    let glob = glob::Pattern::new(name).map_err(|error| problem(error.to_string()))?;
    Ok(ListingTableUrl::try_new(url, Some(glob))?)
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
