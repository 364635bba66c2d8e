//! How CSV files are to be read.

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use serde::{Deserialize, Serialize};

use crate::csv::Marks;

/// How CSV files are read. The defaults are RFC 4180 with a header line.
#[derive(Clone, Debug)]
pub struct CsvReadOptions {
    /// Whether the first record of each file holds the names of the columns. Without, they are `column_1` and so on.
    pub has_header: bool,
    /// What stands between fields.
    pub delimiter: u8,
    /// What a field is put in if its text holds delimiters, quotes or newlines; doubled, it is text.
    pub quote: u8,
    /// What makes the next byte in a quoted field text. A file in which there may be such is read in one range.
    pub escape: Option<u8>,
    /// What begins a line that is no record. A file in which there may be such is read in one range.
    pub comment: Option<u8>,
    /// Texts that are NULL, beside the empty one.
    pub null_values: Vec<String>,
    /// The columns in the order of the files, whatever the header calls them. The default is to look at the files.
    pub schema: Option<SchemaRef>,
    /// How many records of each file are looked at for the types of the columns. With 0 all are text.
    pub schema_infer_max_rec: usize,
    /// Whether the fields that a record is too short for are NULL.
    pub truncated_rows: bool,
    /// What is done about a record that has another number of fields, or a value that is not of its column's type.
    pub on_bad_row: OnBadRow,
    /// Whether files may have different columns: they are put together by name, and a column that a file lacks is NULL
    /// there. The default is an error.
    pub union_by_name: bool,
    /// How the files are compressed. The default is what the end of a file's name says.
    pub compression: Option<FileCompressionType>,
    /// What the names of files in a directory end with, before the end that tells of a compression.
    pub file_extension: String,
    /// The columns that are told by the directories' names (`year=2024/`), if they are not to be all that are found, as
    /// text.
    pub partition_columns: Option<Vec<(String, DataType)>>,
    /// A partition of a scan has at least about so many bytes, if there are so many.
    pub partition_bytes_min: u64,
}

impl Default for CsvReadOptions {
    fn default() -> CsvReadOptions {
        CsvReadOptions {
            has_header: true,
            delimiter: b',',
            quote: b'"',
            escape: None,
            comment: None,
            null_values: Vec::new(),
            schema: None,
            schema_infer_max_rec: 1000,
            truncated_rows: false,
            on_bad_row: OnBadRow::Fail,
            union_by_name: false,
            compression: None,
            file_extension: ".csv".to_owned(),
            partition_columns: None,
            partition_bytes_min: 1 << 20,
        }
    }
}

/// What is done about a bad row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnBadRow {
    /// The query fails, and says where the row is.
    #[default]
    Fail,
    /// The row is left out, and counted in the scan's metric `bad_rows_skipped`.
    Skip,
}

/// What of the options tells how a file's bytes are rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Format {
    pub(super) has_header: bool,
    pub(super) delimiter: u8,
    pub(super) quote: u8,
    pub(super) escape: Option<u8>,
    pub(super) comment: Option<u8>,
    pub(super) null_values: Vec<String>,
    pub(super) truncated_rows: bool,
    pub(super) on_bad_row: OnBadRow,
}

impl Format {
    pub(super) fn of(options: &CsvReadOptions) -> Format {
        Format {
            has_header: options.has_header,
            delimiter: options.delimiter,
            quote: options.quote,
            escape: options.escape,
            comment: options.comment,
            null_values: options.null_values.clone(),
            truncated_rows: options.truncated_rows,
            on_bad_row: options.on_bad_row,
        }
    }

    pub(super) fn marks(&self) -> Marks {
        Marks { quote: self.quote, delimiter: self.delimiter }
    }

    /// Whether the parity of quotes tells where records end.
    pub(super) fn is_cuttable(&self) -> bool {
        self.escape.is_none() && self.comment.is_none()
    }
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    /// What the end of the file's name says.
    pub(super) fn of_name(path: &str) -> Compression {
        let ends = [
            (".gz", Compression::Gzip),
            (".bz2", Compression::Bzip2),
            (".xz", Compression::Xz),
            (".zst", Compression::Zstd),
        ];
        let path = path.to_ascii_lowercase();
        ends.iter().find(|(end, _)| path.ends_with(end)).map_or(Compression::None, |(_, compression)| *compression)
    }

    pub(super) fn of(file_type: FileCompressionType) -> Compression {
        match file_type {
            FileCompressionType::GZIP => Compression::Gzip,
            FileCompressionType::BZIP2 => Compression::Bzip2,
            FileCompressionType::XZ => Compression::Xz,
            FileCompressionType::ZSTD => Compression::Zstd,
            _ => Compression::None,
        }
    }

    pub(super) fn file_type(self) -> FileCompressionType {
        match self {
            Compression::None => FileCompressionType::UNCOMPRESSED,
            Compression::Gzip => FileCompressionType::GZIP,
            Compression::Bzip2 => FileCompressionType::BZIP2,
            Compression::Xz => FileCompressionType::XZ,
            Compression::Zstd => FileCompressionType::ZSTD,
        }
    }

    pub(super) fn is_none(self) -> bool {
        self == Compression::None
    }
}
