//! Bags over files: which files, what is in them, and how strictly it is taken.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_actors::Cluster;
use starling_runtime::value::Data;

use super::Bag;
use super::plan::Source;
use super::source::{Format, Reading, SourceFiles, Unfit};
use crate::csv::{CsvFiles, CsvOptions, Wanted, absolute};
use crate::input::{Compression, is_url};
use crate::stackexchange::Post;

/// How long a line may be.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// Which files: paths, patterns with `*`, `?`, `[..]` or `**`, and URLs, one or several.
///
/// Paths are those of the workers, each of which must have the files; a relative one starts from the client's working
/// directory. `http://` and `https://` name one file each. `s3://BUCKET/KEY` may be a pattern, and is reached by what each
/// node's environment says (`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`, ...). URLs need
/// the feature `object-store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths(pub(super) Vec<String>);

impl Paths {
    fn of<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Paths {
        let name = |name: S| if is_url(name.as_ref()) { name.as_ref().to_owned() } else { absolute(name.as_ref()) };
        Paths(names.into_iter().map(name).collect())
    }
}

impl From<&str> for Paths {
    fn from(name: &str) -> Paths {
        Paths::of([name])
    }
}

impl From<&String> for Paths {
    fn from(name: &String) -> Paths {
        Paths::of([name])
    }
}

impl From<String> for Paths {
    fn from(name: String) -> Paths {
        Paths::of([name])
    }
}

impl<S: AsRef<str>> From<&[S]> for Paths {
    fn from(names: &[S]) -> Paths {
        Paths::of(names)
    }
}

impl<S: AsRef<str>> From<Vec<S>> for Paths {
    fn from(names: Vec<S>) -> Paths {
        Paths::of(names)
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for Paths {
    fn from(names: [S; N]) -> Paths {
        Paths::of(names)
    }
}

/// What becomes of a line that is not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextErrors {
    /// The computation fails with the file, the line and the byte.
    #[default]
    Fail,
    /// Wrong bytes become `U+FFFD`.
    Lossy,
    /// The line is left out. How many are is logged.
    Skip,
}

/// How text files are read.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Files are cut in partitions of so many bytes. The default, 0, is 16 to 64 MiB, by how many threads the cluster has when the
    /// files are found. A compressed file is one partition, and is streamed.
    pub block_bytes: u64,
    /// How they are compressed; by default as their names say.
    pub compression: Compression,
    /// What becomes of a line that is not UTF-8.
    pub not_utf8: TextErrors,
    /// A longer line fails the computation, since it would have to fit into memory. The default is 256 MiB.
    pub line_bytes_max: u64,
}

impl Default for TextOptions {
    fn default() -> TextOptions {
        TextOptions {
            block_bytes: 0,
            compression: Compression::ByName,
            not_utf8: TextErrors::Fail,
            line_bytes_max: LINE_BYTES_MAX,
        }
    }
}

impl TextOptions {
    fn reading(&self, format: Format) -> Reading {
        Reading {
            format,
            block_bytes: self.block_bytes,
            compression: self.compression,
            line_bytes_max: self.line_bytes_max,
            unfit: Unfit::Fail,
            wanted: None,
        }
    }

    fn text(&self, with_path: bool) -> Reading {
        self.reading(Format::Text { not_utf8: self.not_utf8, with_path })
    }
}

/// What becomes of a line that is no JSON, such as a half-written one, or not of the items' type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonErrors {
    /// The computation fails with the file, the line, the column and what is wrong.
    #[default]
    Fail,
    /// The line is left out. How many are is logged; to count them, keep them by
    /// [`read_json_lines_kept`](Bag::read_json_lines_kept).
    Skip,
}

/// How files of JSON lines are read.
#[derive(Clone, Debug)]
pub struct JsonOptions {
    /// Files are cut in partitions of so many bytes. The default, 0, is 16 to 64 MiB, by how many threads the cluster has when the
    /// files are found. A compressed file is one partition, and is streamed.
    pub block_bytes: u64,
    /// How they are compressed; by default as their names say.
    pub compression: Compression,
    /// What becomes of a line that does not fit.
    pub errors: JsonErrors,
    /// A longer line fails the computation, since it would have to fit into memory. The default is 256 MiB.
    pub line_bytes_max: u64,
}

impl Default for JsonOptions {
    fn default() -> JsonOptions {
        let TextOptions { block_bytes, compression, line_bytes_max, .. } = TextOptions::default();
        JsonOptions { block_bytes, compression, errors: JsonErrors::Fail, line_bytes_max }
    }
}

impl JsonOptions {
    fn reading(self, unfit: Unfit) -> Reading {
        let JsonOptions { block_bytes, compression, line_bytes_max, .. } = self;
        let text = TextOptions { block_bytes, compression, line_bytes_max, ..TextOptions::default() };
        Reading { unfit, ..text.reading(Format::JsonLines) }
    }
}

fn wanted<T: DeserializeOwned>() -> Option<Vec<String>> {
    match Wanted::of::<T>() {
        Wanted::All => None,
        Wanted::Named(names) => Some(names.iter().map(|name| (*name).to_owned()).collect()),
    }
}

impl<T> Bag<T> {
    fn of_files(cluster: &Cluster, paths: Paths, reading: Reading) -> Bag<T> {
        Bag::from_source(cluster, Source::Files(SourceFiles::new(paths, reading)))
    }
}

impl Bag<String> {
    /// The lines of text files. Lines end with `\n` or `\r\n`, which are not part of them, and must be UTF-8. Files are
    /// unpacked as their names say: `.gz`, `.zst`, `.bz2`, `.xz`.
    ///
    /// ```no_run
    /// # use starling_collections::Bag;
    /// # async fn run(cluster: starling_actors::Cluster) -> Result<(), starling_collections::BagError> {
    /// let lines = Bag::read_text(&cluster, ["logs/*.txt", "logs/old/*.txt.gz"]).count().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_text(cluster: &Cluster, paths: impl Into<Paths>) -> Bag<String> {
        Bag::read_text_with(cluster, paths, TextOptions::default())
    }

    /// As [`read_text`](Bag::read_text), as the options say.
    pub fn read_text_with(cluster: &Cluster, paths: impl Into<Paths>, options: TextOptions) -> Bag<String> {
        Bag::of_files(cluster, paths.into(), options.text(false))
    }

    /// As [`read_text`](Bag::read_text), with partitions of about `block_bytes`.
    pub fn read_text_in_blocks(cluster: &Cluster, paths: impl Into<Paths>, block_bytes: u64) -> Bag<String> {
        Bag::read_text_with(cluster, paths, TextOptions { block_bytes, ..TextOptions::default() })
    }
}

impl Bag<(String, String)> {
    /// The lines of text files, each with its file's path or URL.
    pub fn read_text_and_paths(
        cluster: &Cluster,
        paths: impl Into<Paths>,
        options: TextOptions,
    ) -> Bag<(String, String)> {
        Bag::of_files(cluster, paths.into(), options.text(true))
    }
}

impl<T: Data> Bag<T> {
    /// The records of CSV files. To ask several questions of the same files, make a [`CsvFiles`] once.
    ///
    /// Files whose name ends like a compressed one's (`.gz`, `.zst`, `.bz2`, `.xz`) and those of URLs are read from start
    /// to end, a partition each; others are cut in blocks.
    pub fn read_csv(cluster: &Cluster, pattern: &str, options: CsvOptions) -> Bag<T> {
        if Compression::ByName.of(pattern) == Compression::None && !is_url(pattern) {
            return CsvFiles::new(cluster, pattern, options).records();
        }
        let format = Format::Csv { missing_columns: options.missing_columns };
        let reading = Reading { wanted: wanted::<T>(), ..TextOptions::default().reading(format) };
        Bag::of_files(cluster, pattern.into(), reading)
    }

    /// The values of files with a JSON value a line. Empty lines are none. Fields that `T` lacks are passed over.
    ///
    /// A line that is no JSON or no `T` fails the computation, or is left out, as the options say. Without a closure behind
    /// it `count` counts the lines that are JSON, whatever `T` is. [`Json`](super::Json) takes any value.
    ///
    /// ```no_run
    /// # use starling_collections::Bag;
    /// # use starling_collections::bag::{JsonErrors, JsonOptions};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// # struct Account { id: u64, balance: i64 }
    /// # async fn run(cluster: starling_actors::Cluster) -> Result<(), starling_collections::BagError> {
    /// let options = JsonOptions { errors: JsonErrors::Skip, ..JsonOptions::default() };
    /// let accounts = Bag::<Account>::read_json_lines(&cluster, "accounts/*.jsonl.gz", options).collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_json_lines(cluster: &Cluster, paths: impl Into<Paths>, options: JsonOptions) -> Bag<T> {
        let unfit = match options.errors {
            JsonErrors::Fail => Unfit::Fail,
            JsonErrors::Skip => Unfit::Skip,
        };
        Bag::of_files(cluster, paths.into(), options.reading(unfit))
    }

    /// The elements of XML files that have one `<row .../>` a line with all its fields in attributes, as the dumps of Stack
    /// Exchange do. Entities are resolved. Attributes that `T` lacks are passed over; one that may be absent is an `Option`
    /// of `T`.
    pub fn read_xml_rows(cluster: &Cluster, paths: impl Into<Paths>, options: TextOptions) -> Bag<T> {
        let format = Format::XmlRows { element: "row".to_owned() };
        Bag::of_files(cluster, paths.into(), Reading { wanted: wanted::<T>(), ..options.reading(format) })
    }

    /// The records of Avro files, a partition a file, streamed. Fields that `T` lacks are passed over; dates and times are
    /// numbers in the unit that the file has, decimals bytes. Needs the feature `avro`.
    pub fn read_avro(cluster: &Cluster, paths: impl Into<Paths>) -> Bag<T> {
        Bag::of_typed(cluster, paths.into(), Format::Avro)
    }

    /// The records of Parquet files, a partition a row group. Columns that `T` lacks are not read; dates and times are numbers
    /// in the unit that the file has, decimals text or numbers as `T` wants them. Needs the feature `parquet`.
    ///
    /// A table with much arithmetic does better as a DataFrame.
    pub fn read_parquet(cluster: &Cluster, paths: impl Into<Paths>) -> Bag<T> {
        Bag::of_typed(cluster, paths.into(), Format::Parquet)
    }

    fn of_typed(cluster: &Cluster, paths: Paths, format: Format) -> Bag<T> {
        let options = TextOptions { compression: Compression::None, ..TextOptions::default() };
        Bag::of_files(cluster, paths, Reading { wanted: wanted::<T>(), ..options.reading(format) })
    }
}

impl<T: Data> Bag<Result<T, String>> {
    /// As [`read_json_lines`](Bag::read_json_lines); a line that is no JSON or no `T` is an `Err`, which says the file, the
    /// byte at which the line starts, the column and what is wrong. The options' `errors` do not matter.
    pub fn read_json_lines_kept(
        cluster: &Cluster,
        paths: impl Into<Paths>,
        options: JsonOptions,
    ) -> Bag<Result<T, String>> {
        Bag::of_files(cluster, paths.into(), options.reading(Unfit::Keep))
    }
}

impl Bag<Post> {
    /// The posts of a Stack Exchange site, from `Posts.xml` of its dump.
    pub fn read_posts_xml(cluster: &Cluster, paths: impl Into<Paths>) -> Bag<Post> {
        Bag::read_xml_rows(cluster, paths, TextOptions::default())
    }
}
