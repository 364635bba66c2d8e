//! Bags written to files, one a partition.

use std::any::TypeId;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use starling_macros::task;
use starling_runtime::task::items::Buckets;
use starling_runtime::value::Data;

use super::plan::End;
use super::render::{Form, Known, Rendering, rendered};
use super::run::Attempts;
use super::{Bag, BagError, Json};
use crate::csv::absolute;
use crate::input::{Compression, ReadError, is_url, shown_url, write_file};

/// How files are written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// How they are compressed; by default as the path says: `out/*.txt.gz` with gzip, a directory not at all. In Avro
    /// files it is the blocks that are, with deflate for [`Gzip`](Compression::Gzip).
    pub compression: Compression,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Its path or URL.
    pub path: String,
    /// The name of the node that it is on, or that wrote it to a store.
    pub node: String,
    /// Its size in bytes.
    pub nbytes: u64,
    /// How many items it holds.
    pub items: u64,
}

/// The names of files, one a partition.
#[derive(Debug)]
struct Names {
    before: String,
    after: String,
}

impl Names {
    /// `path` has a `*` in its last part, or is a directory, whose files end in `extension`.
    fn new(path: &str, extension: &str) -> Result<Names, ReadError> {
        let whole = if is_url(path) { path.to_owned() } else { absolute(path) };
        let (folder, name) = whole.rsplit_once('/').unwrap_or(("", &whole));
        match name.matches('*').count() {
            0 if !folder.contains('*') => {
                Ok(Names { before: format!("{}/", whole.trim_end_matches('/')), after: extension.to_owned() })
            }
            1 if !folder.contains('*') => {
                let (before, after) = name.split_once('*').unwrap_or((name, ""));
                Ok(Names { before: format!("{folder}/{before}"), after: after.to_owned() })
            }
            _ => Err(ReadError::NoPlace { path: shown_url(path) }),
        }
    }

    /// The name of a partition's file. Names sort as partitions do, up to a hundred thousand of them.
    fn name(&self, partition: usize) -> String {
        format!("{}{partition:05}{}", self.before, self.after)
    }
}

/// Writes a partition that was brought into its form.
#[task(crate = starling_runtime, json = false)]
fn write(output: &Buckets, path: String) -> Result<WrittenFile, ReadError> {
    let (items, bytes) = rendered(output).map_err(|message| ReadError::Format {
        path: path.clone(),
        format: "a partition's file",
        message,
    })?;
    let nbytes = bytes.len() as u64;
    write_file(&path, bytes)?;
    let node = starling_actors::CurrentNode::get().map_or_else(String::new, |node| node.name().to_owned());
    Ok(WrittenFile { path: shown_url(&path), node, nbytes, items })
}

impl Bag<String> {
    /// Writes the items as lines of text files, one a partition: `path` is a directory, or has one `*` in its last part that
    /// the partition's number takes the place of; it may be of `s3://` with the feature `object-store`. What is
    /// missing of directories is made, and files that are there are replaced. A newline in an item stays one.
    ///
    /// Each file has its name only once it is whole. After a failure no part of a file is left; files that were whole before
    /// it are. A file lies on the node whose worker wrote it, as the answer says.
    ///
    /// # Errors
    /// [`BagError::Read`] if `path` is none, or names a compression that this binary lacks; the failure of a task, among
    /// them that of writing.
    ///
    /// ```no_run
    /// # use starling_collections::Bag;
    /// # async fn run(lines: Bag<String>) -> Result<(), starling_collections::BagError> {
    /// let files = lines.to_text_files("out/*.txt.gz", Default::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn to_text_files(&self, path: &str, options: WriteOptions) -> Result<Vec<WrittenFile>, BagError> {
        self.to_files(path, ".txt", Form::Text, options.compression.of(path)).await
    }
}

impl<T: Data> Bag<T> {
    /// Writes each item as a line of JSON, to files as [`to_text_files`](Bag::to_text_files) does.
    ///
    /// The items must come from a closure, which knows their type where the files are written, unless they are texts, texts
    /// with counts or [`Json`].
    ///
    /// # Errors
    /// As [`to_text_files`](Bag::to_text_files); of items without a closure an error that says which to add.
    pub async fn to_json_lines(&self, path: &str, options: WriteOptions) -> Result<Vec<WrittenFile>, BagError> {
        self.to_files(path, ".jsonl", Form::JsonLines, options.compression.of(path)).await
    }

    /// Writes the items as records of Avro files with this schema (JSON), to files as [`to_text_files`](Bag::to_text_files)
    /// does. The items must come from a closure, as for [`to_json_lines`](Bag::to_json_lines). Needs the feature `avro`.
    ///
    /// # Errors
    /// As [`to_json_lines`](Bag::to_json_lines); a schema that is none, or that an item does not fit.
    pub async fn to_avro(&self, path: &str, schema: &str, options: WriteOptions) -> Result<Vec<WrittenFile>, BagError> {
        let form = Form::Avro { schema: schema.to_owned() };
        let rendering = Rendering { form: form.clone(), compression: options.compression, known: Known::Nothing };
        // A schema that is wrong is told at once.
        rendering.sink()?;
        self.to_files(path, ".avro", form, options.compression).await
    }

    async fn to_files(
        &self,
        path: &str,
        extension: &str,
        form: Form,
        compression: Compression,
    ) -> Result<Vec<WrittenFile>, BagError> {
        let packed = if matches!(form, Form::Avro { .. }) { "" } else { compression.extension() };
        let names = Names::new(path, &format!("{extension}{packed}"))?;
        let rendering = Rendering { form, compression, known: known::<T>() };
        rendering.sink()?;
        let end = End::Render(rendering);
        let mut attempts = Attempts::new();
        loop {
            match self.written(&names, &end).await {
                Err(error) if attempts.again(&error) => {}
                outcome => return outcome,
            }
        }
    }

    async fn written(&self, names: &Names, end: &End) -> Result<Vec<WrittenFile>, BagError> {
        let outputs = self.ended(end).await?;
        let write = |(partition, output)| self.cluster.submit(write::task(output, names.name(partition)));
        let files: Vec<_> = outputs.into_iter().enumerate().map(write).collect();
        // All of them, also after a failure: then nothing writes any more when it is told.
        let written = join_all(files.iter().map(|file| file.result())).await;
        Ok(written.into_iter().collect::<Result<_, _>>()?)
    }
}

/// What the items are, if that can be told to a worker without a closure.
fn known<T: 'static>() -> Known {
    let item = TypeId::of::<T>();
    if item == TypeId::of::<String>() {
        Known::Text
    } else if item == TypeId::of::<(String, u64)>() {
        Known::TextCount
    } else if item == TypeId::of::<Json>() {
        Known::Json
    } else {
        Known::Nothing
    }
}
