//! Writing files: `COPY ... TO`, `INSERT INTO` a table of files, `DataFrame::write_parquet` and its like. Each partition is
//! written by the task that computes it, as one file; a write that fails leaves none.
//!
//! ```text
//!  task, local disk:   rows -> .part-WRITE-RANDOM.tmp   beside the target
//!  client:             all tasks are done -> their files get their names, on the nodes that wrote them
//!                      otherwise          -> whatever has WRITE in its name is removed, on all nodes
//!  task, other stores: rows -> part-00000-WRITE.parquet, which is there as a whole or not at all; a failure removes it
//! ```
//!
//! `WRITE` is a number of the run. A task that runs twice writes two files, of which one gets a name. Files whose node is lost
//! before they have one are taken over by another node that sees the disk; if none does, all is computed and written again.
//! On machines without a common disk the files of a directory are therefore on the nodes that wrote them.
//!
//! Here are the tasks' side ([`WriteFilesExec`], a node of a stage's plan) and the node's ([`Writes`], [`publish`],
//! [`finish`]); [`super::write_exec`] is the client's.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use datafusion::arrow::array::{RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::file_options::csv_writer::CsvWriterOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::file_format::csv::CsvSink;
use datafusion::datasource::file_format::json::JsonSink;
use datafusion::datasource::file_format::parquet::ParquetSink;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileOutputMode, FileSink, FileSinkConfig};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::execute_input_stream;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Serialize};
use starling_actors::CurrentNode;
use starling_macros::task;
use url::Url;

use super::codec;
use super::stage;

/// So many writes that are over a node remembers, to stop tasks of theirs that it still runs or is still sent.
const ENDED_MAX: usize = 4096;

/// What goes wrong with the files of a write.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// A file could not be given its name, or be removed.
    #[error("{path}: {source}")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The write has failed or was given up while a task of it ran.
    #[error("the write that this task is of is over")]
    Over,
    /// Files have gone before they got their names.
    #[error("{files} files that were written have gone with their nodes each time: write again once the nodes stay")]
    Lost { files: usize },
}

impl WriteError {
    fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> WriteError {
        move |source| WriteError::Io { path: path.as_ref().display().to_string(), source }
    }
}

impl From<WriteError> for DataFusionError {
    fn from(error: WriteError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

/// A number that no other has.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Which run of a write a task is of, in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WriteTask {
    /// The run.
    pub(super) write: u64,
    /// Which partition the task writes; in the client's session this means nothing.
    pub(super) partition: u32,
}

/// Where the files go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    /// The store's URL.
    store: String,
    /// The directory, as a path of the store.
    directory: String,
    /// The URL of the directory, or of the only file.
    url: String,
    /// The name of the only file; `None` if the target is a directory.
    file: Option<String>,
    /// Without a dot.
    extension: String,
}

impl Target {
    /// `None` if the sink is none that can be split into files that are whole.
    pub(super) fn of(sink: &dyn DataSink) -> Option<Target> {
        let config = config_of(sink)?;
        let [url] = &config.table_paths[..] else { return None };
        let is_plain = config.table_partition_cols.is_empty() && config.insert_op == InsertOp::Append;
        if !is_plain || url.get_glob().is_some() {
            return None;
        }
        let mut parts: Vec<String> = url.prefix().parts().map(|part| part.as_ref().to_owned()).collect();
        let file = config.file_output_mode.single_file_output(url).then(|| parts.pop()).flatten();
        Some(Target {
            store: config.object_store_url.as_str().to_owned(),
            directory: parts.join("/"),
            url: url.get_url().to_string(),
            file,
            extension: config.file_extension.clone(),
        })
    }

    /// Whether all goes into one file.
    pub(super) fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether it is a path on the nodes' disks.
    pub(super) fn is_local(&self) -> bool {
        self.store.starts_with("file:")
    }

    /// The name of a partition's file, in the order of the partitions.
    pub(super) fn name(&self, write: u64, partition: usize) -> String {
        match &self.file {
            Some(file) => file.clone(),
            None => format!("part-{partition:05}-{write:016x}.{}", self.extension),
        }
    }

    /// Whether workers have the store by themselves, and not only the client's session.
    pub(super) fn is_workers(&self) -> bool {
        let scheme = self.store.split("://").next().unwrap_or_default();
        self.is_local() || ["s3", "s3a", "hdfs", "http", "https"].contains(&scheme)
    }

    /// The path of a file of this name on a disk.
    pub(super) fn path_of(&self, name: &str) -> Result<String> {
        let path = self.directory()?.join(name);
        path.into_os_string().into_string().map_err(|path| {
            let path = PathBuf::from(path).display().to_string();
            DataFusionError::Execution(format!("{path} is not UTF-8: write to a directory whose path is"))
        })
    }

    /// The directory on a disk.
    fn directory(&self) -> Result<PathBuf> {
        let directory = ObjectPath::parse(&self.directory)?;
        Ok(LocalFileSystem::new().path_to_filesystem(&directory)?)
    }

    /// The URL of a file in the directory.
    fn url_of(&self, name: &str) -> Result<ListingTableUrl> {
        let malformed = || DataFusionError::Plan(format!("{} is no URL that files can be written to", self.url));
        let mut url = Url::parse(&self.url).map_err(|_| malformed())?;
        {
            let mut segments = url.path_segments_mut().map_err(|()| malformed())?;
            segments.pop_if_empty();
            if self.is_file() {
                segments.pop();
            }
            segments.push(name);
        }
        ListingTableUrl::try_new(url, None)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

fn config_of(sink: &dyn DataSink) -> Option<&FileSinkConfig> {
    if let Some(sink) = sink.downcast_ref::<ParquetSink>() {
        return Some(sink.config());
    }
    if let Some(sink) = sink.downcast_ref::<CsvSink>() {
        return Some(sink.config());
    }
    sink.downcast_ref::<JsonSink>().map(FileSink::config)
}

/// The same sink with another configuration.
fn with_config(sink: &dyn DataSink, change: impl FnOnce(&mut FileSinkConfig)) -> Result<Arc<dyn DataSink>> {
    let not_ours = || DataFusionError::Internal("a sink of files that is none".to_owned());
    let mut config = config_of(sink).ok_or_else(not_ours)?.clone();
    change(&mut config);
    Ok(if let Some(sink) = sink.downcast_ref::<ParquetSink>() {
        Arc::new(ParquetSink::new(config, sink.parquet_options().clone()))
    } else if let Some(sink) = sink.downcast_ref::<CsvSink>() {
        Arc::new(CsvSink::new(config, with_formats(sink.writer_options())))
    } else if let Some(sink) = sink.downcast_ref::<JsonSink>() {
        Arc::new(JsonSink::new(config, sink.writer_options().clone()))
    } else {
        return Err(not_ours());
    })
}

/// The options with no format where an empty one is said: DataFusion's encoding knows no other way to say none, and by an
/// empty format every date would be written as nothing.
fn with_formats(options: &CsvWriterOptions) -> CsvWriterOptions {
    let said = &options.writer_options;
    let mut builder = WriterBuilder::new()
        .with_header(said.header())
        .with_delimiter(said.delimiter())
        .with_quote(said.quote())
        .with_escape(said.escape())
        .with_double_quote(said.double_quote())
        .with_null(said.null().to_owned())
        .with_ignore_leading_whitespace(said.ignore_leading_whitespace())
        .with_ignore_trailing_whitespace(said.ignore_trailing_whitespace())
        .with_quote_style(said.quote_style())
        .with_line_terminator(said.line_terminator().clone());
    let format = |format: Option<&str>| format.filter(|format| !format.is_empty()).map(str::to_owned);
    if let Some(format) = format(said.date_format()) {
        builder = builder.with_date_format(format);
    }
    if let Some(format) = format(said.datetime_format()) {
        builder = builder.with_datetime_format(format);
    }
    if let Some(format) = format(said.time_format()) {
        builder = builder.with_time_format(format);
    }
    if let Some(format) = format(said.timestamp_format()) {
        builder = builder.with_timestamp_format(format);
    }
    if let Some(format) = format(said.timestamp_tz_format()) {
        builder = builder.with_timestamp_tz_format(format);
    }
    CsvWriterOptions { writer_options: builder, ..options.clone() }
}

/// Writes each partition as a file. A partition gives one row: how many rows were written, the path of the file if it has
/// yet to get its name, and the node.
#[derive(Debug)]
pub(super) struct WriteFilesExec {
    input: Arc<dyn ExecutionPlan>,
    /// A [`DataSinkExec`] without rows, for its sink.
    sink: Arc<dyn ExecutionPlan>,
    target: Target,
    properties: Arc<PlanProperties>,
    /// The sink that has run.
    ran: OnceLock<Arc<dyn DataSink>>,
}

fn written_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("count", DataType::UInt64, false),
        Field::new("path", DataType::Utf8, true),
        Field::new("node", DataType::Utf8, false),
    ]))
}

impl WriteFilesExec {
    /// `None` if the sink is none of files, or of files that are split by columns.
    pub(super) fn try_new(sink: &DataSinkExec, input: Arc<dyn ExecutionPlan>) -> Result<Option<WriteFilesExec>> {
        if config_of(sink.sink()).is_none() {
            return Ok(None);
        }
        // Which files are there already is of no use to the tasks.
        let bare = with_config(sink.sink(), |config| config.file_group = FileGroup::default())?;
        let nothing = Arc::new(EmptyExec::new(sink.input().schema()));
        WriteFilesExec::of(Arc::new(DataSinkExec::new(nothing, bare, None)), input)
    }

    fn of(sink: Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> Result<Option<WriteFilesExec>> {
        let target = sink.downcast_ref::<DataSinkExec>().and_then(|sink| Target::of(sink.sink()));
        let Some(target) = target else { return Ok(None) };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(written_schema()),
            datafusion::physical_expr::Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(Some(WriteFilesExec { input, sink, target, properties: Arc::new(properties), ran: OnceLock::new() }))
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The sink's encoding.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        Ok(codec::encode(&self.sink)?.to_vec())
    }

    pub(super) fn decode(bytes: &[u8], input: Arc<dyn ExecutionPlan>, context: &TaskContext) -> Result<WriteFilesExec> {
        let malformed = || DataFusionError::Plan("the plan of a stage is malformed: no sink of files".to_owned());
        WriteFilesExec::of(codec::decode(bytes, context)?, input)?.ok_or_else(malformed)
    }

    fn sink(&self) -> Result<&dyn DataSink> {
        let not_one = || DataFusionError::Internal("a sink that is none".to_owned());
        self.sink.downcast_ref::<DataSinkExec>().map(DataSinkExec::sink).ok_or_else(not_one)
    }
}

impl DisplayAs for WriteFilesExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.target.is_file() { "one" } else { "one a partition" };
        write!(f, "WriteFilesExec: files={files}, sink=")?;
        self.sink().map_err(|_| fmt::Error)?.fmt_as(format, f)
    }
}

impl ExecutionPlan for WriteFilesExec {
    fn name(&self) -> &'static str {
        "WriteFilesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let none = || DataFusionError::Internal("files are written of one input".to_owned());
        let input = children.pop().ok_or_else(none)?;
        let replaced = WriteFilesExec::of(Arc::clone(&self.sink), input)?;
        Ok(Arc::new(replaced.ok_or_else(none)?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    /// Runs in a stage's task only, of whose plan one partition is left.
    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let outside = || DataFusionError::Internal("files are written by tasks only".to_owned());
        let task = context.session_config().get_extension::<WriteTask>().ok_or_else(outside)?;
        let node = CurrentNode::get().ok_or_else(outside)?;
        let running = Writes::of(&node).begin(task.write)?;

        let (name, path) = if self.target.is_local() {
            let name = format!("{}{:016x}.tmp", draft_prefix(task.write), random());
            let path = self.target.path_of(&name)?;
            (name, Some(path))
        } else {
            (self.target.name(task.write, task.partition as usize), None)
        };
        let file = self.target.url_of(&name)?;
        let sink = with_config(self.sink()?, |config| {
            config.table_paths = vec![file];
            config.file_output_mode = FileOutputMode::SingleFile;
        })?;
        let sink = Arc::clone(self.ran.get_or_init(|| sink));

        // Refuses NULLs where the sink has none.
        let sink_schema = Arc::clone(self.sink()?.schema());
        let input = execute_input_stream(Arc::clone(&self.input), sink_schema, partition, Arc::clone(&context))?;
        let writes = Arc::clone(&running.writes);
        let input = RecordBatchStreamAdapter::new(
            input.schema(),
            input.map(move |batch| match writes.is_over(task.write) {
                true => Err(WriteError::Over.into()),
                false => batch,
            }),
        );
        let node = node.node().hex();
        let write = async move {
            let draft = path.map(Draft::new);
            let rows = sink.write_all(Box::pin(input), &context).await?;
            let path = draft.map(Draft::keep);
            drop(running);
            let row = RecordBatch::try_new(
                written_schema(),
                vec![
                    Arc::new(UInt64Array::from(vec![rows])),
                    Arc::new(StringArray::from(vec![path])),
                    Arc::new(StringArray::from(vec![node])),
                ],
            )?;
            Ok(row)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(written_schema(), stream::once(write))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.ran.get()?.metrics()
    }
}

/// What the names of a write's files begin with while they are written. Listings pass them over.
fn draft_prefix(write: u64) -> String {
    format!(".part-{write:016x}-")
}

/// A file that is written. It is removed if that fails.
struct Draft {
    path: String,
    is_kept: bool,
}

impl Draft {
    fn new(path: String) -> Draft {
        Draft { path, is_kept: false }
    }

    /// The path, of the file that is now whole.
    fn keep(mut self) -> String {
        self.is_kept = true;
        std::mem::take(&mut self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_kept {
            // What is left of it, if it cannot be removed now, goes when the write is over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The writes of which a node runs tasks, and those that are over.
#[derive(Debug, Default)]
struct Writes {
    state: Mutex<WritesState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WritesState {
    running: HashMap<u64, usize>,
    over: VecDeque<u64>,
}

/// A task of a write that runs.
struct Running {
    writes: Arc<Writes>,
    write: u64,
}

impl Writes {
    fn of(node: &CurrentNode) -> Arc<Writes> {
        node.extension(Writes::default)
    }

    fn lock(&self) -> MutexGuard<'_, WritesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: Arc<Self>, write: u64) -> Result<Running, WriteError> {
        let mut state = self.lock();
        if state.over.contains(&write) {
            return Err(WriteError::Over);
        }
        *state.running.entry(write).or_default() += 1;
        drop(state);
        Ok(Running { writes: self, write })
    }

    fn is_over(&self, write: u64) -> bool {
        self.lock().over.contains(&write)
    }

    /// Lets no task of the write begin any more, and waits for those that run: they fail at their next rows.
    fn end(&self, write: u64) {
        let mut state = self.lock();
        if !state.over.contains(&write) {
            state.over.push_back(write);
            if state.over.len() > ENDED_MAX {
                state.over.pop_front();
            }
        }
        let is_running = |state: &mut WritesState| state.running.contains_key(&write);
        drop(self.changed.wait_while(state, is_running).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.writes.lock();
        if let Some(running) = state.running.get_mut(&self.write) {
            *running -= 1;
            if *running == 0 {
                state.running.remove(&self.write);
            }
        }
        drop(state);
        self.writes.changed.notify_all();
    }
}

/// Gives files their names. Returns how many of them are not there.
#[task(crate = starling_runtime, json = false)]
pub(super) fn publish(files: Vec<(String, String)>, are_new: bool) -> Result<u32, WriteError> {
    let mut lost = 0;
    for (from, to) in files {
        match fs::rename(&from, &to) {
            Ok(()) => {}
            // This has been done by a node that was lost before it could tell.
            Err(error) if error.kind() == io::ErrorKind::NotFound && are_new && Path::new(&to).exists() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => lost += 1,
            Err(error) => return Err(WriteError::io(to)(error)),
        }
    }
    Ok(lost)
}

/// Ends a write on this node: stops its tasks, and removes its files from the node's disk, but for those that have their
/// names, if it went well.
#[task(crate = starling_runtime, json = false)]
pub(super) fn finish(write: u64, target: Target, is_good: bool) -> Result<()> {
    if let Some(node) = CurrentNode::get() {
        Writes::of(&node).end(write);
    }
    if !target.is_local() {
        return Ok(());
    }
    let directory = target.directory()?;
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        // Nothing was written here.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(WriteError::io(&directory)(error).into()),
    };
    for entry in entries {
        let entry = entry.map_err(WriteError::io(&directory))?;
        if !is_of(&entry.file_name().to_string_lossy(), write, is_good) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(WriteError::io(entry.path())(error).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file with this name was made by the write, or only by a task of it whose file was not taken.
fn is_of(name: &str, write: u64, only_drafts: bool) -> bool {
    name.starts_with(&draft_prefix(write))
        || !only_drafts && name.starts_with("part-") && name.contains(&format!("-{write:016x}."))
}

/// Removes the files of a write that failed from a store that is no node's disk.
#[task(crate = starling_runtime, json = false)]
pub(super) fn remove(write: u64, target: Target) -> Result<()> {
    let store = stage::environment()?.object_store(&ObjectStoreUrl::parse(&target.store)?)?;
    let directory = ObjectPath::parse(&target.directory)?;
    stage::with_runtime(|runtime| {
        runtime.block_on(async {
            let files: Vec<_> = store.list(Some(&directory)).try_collect().await?;
            for file in files {
                if file.location.filename().is_some_and(|name| is_of(name, write, false)) {
                    store.delete(&file.location).await?;
                }
            }
            Ok(())
        })
    })?
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
