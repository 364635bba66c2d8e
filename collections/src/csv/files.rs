//! The client's view of CSV files: which they are, how they are cut, and which columns they have. It reads nothing.

use std::sync::Arc;

use futures::future::try_join_all;
use futures::lock::Mutex;
use starling_actors::Cluster;

use super::columns::Wanted;
use super::error::CsvError;
use super::file::FileStamp;
use super::scan::Marks;
use super::split::{Split, split};
use super::tasks;
use crate::bag::{Bag, BagError};

/// Small blocks share a task of pass one until they make up so many bytes.
const SCAN_BYTES: u64 = 4 << 20;

/// The smallest block.
const BLOCK_BYTES_MIN: u64 = 1 << 10;

/// How CSV files are read.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    /// Files are cut in blocks of so many bytes, one task each. At least 1 KiB. The default is 16 MiB.
    pub block_bytes: u64,
    /// Whether columns of the row's type that the files do not have are left to the type's defaults. The default is an
    /// error, since a misspelt column would be read as missing. A field's aliases count as columns too, so a type with
    /// `#[serde(alias = "..")]` needs this.
    pub missing_columns: bool,
}

impl Default for CsvOptions {
    fn default() -> CsvOptions {
        CsvOptions { block_bytes: 16 << 20, missing_columns: false }
    }
}

/// CSV files with the same columns, for bags over their records. Clones share what was found out about the files: they
/// are scanned once, by the workers, when the first bag is computed or [`scan`](CsvFiles::scan) is called.
#[derive(Clone)]
pub struct CsvFiles {
    cluster: Cluster,
    shared: Arc<Shared>,
}

struct Shared {
    pattern: String,
    options: CsvOptions,
    scanned: Mutex<Option<Arc<Scanned>>>,
}

/// What pass one found out.
#[derive(Debug)]
pub struct Scanned {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The files and how each is cut.
    pub files: Vec<(FileStamp, Split)>,
}

impl Scanned {
    /// Size of all files in bytes.
    pub fn nbytes(&self) -> u64 {
        self.files.iter().map(|(file, _)| file.len).sum()
    }
}

impl CsvFiles {
    /// The files at `pattern`: a path, or a pattern with `*`, `?`, `[..]` or `**`. A relative one starts from the client's
    /// working directory. Nothing is read yet.
    pub fn new(cluster: &Cluster, pattern: &str, options: CsvOptions) -> CsvFiles {
        let options = CsvOptions { block_bytes: options.block_bytes.max(BLOCK_BYTES_MIN), ..options };
        let pattern = absolute(pattern);
        CsvFiles { cluster: cluster.clone(), shared: Arc::new(Shared { pattern, options, scanned: Mutex::new(None) }) }
    }

    /// A bag of the records as `T`s, a struct with a field for each column that it needs (`#[serde(rename = "..")]` where
    /// the names differ). Only these columns are taken apart.
    pub fn records<T: serde::de::DeserializeOwned>(&self) -> Bag<T> {
        Bag::of_csv(&self.cluster, self.clone(), Wanted::of::<T>())
    }

    /// Finds the files and how they are cut, if that is not known yet.
    pub async fn scan(&self) -> Result<Arc<Scanned>, BagError> {
        let mut scanned = self.shared.scanned.lock().await;
        if let Some(scanned) = &*scanned {
            return Ok(scanned.clone());
        }
        let found = Arc::new(self.scan_now().await?);
        *scanned = Some(found.clone());
        Ok(found)
    }

    /// The path or pattern, from the root on.
    pub fn pattern(&self) -> &str {
        &self.shared.pattern
    }

    pub(crate) fn missing_columns(&self) -> bool {
        self.shared.options.missing_columns
    }

    async fn scan_now(&self) -> Result<Scanned, BagError> {
        let files = self.cluster.submit(tasks::find::task(self.shared.pattern.clone())).result().await?;
        if let Some(empty) = files.iter().find(|file| file.len == 0) {
            return Err(CsvError::Empty { path: empty.path.clone() }.into());
        }
        let files = try_join_all(files.into_iter().map(|file| self.scan_file(file))).await?;
        let mut files = files.into_iter();
        let mut scanned = Scanned { columns: Vec::new(), files: Vec::new() };
        if let Some((file, split, columns)) = files.next() {
            scanned = Scanned { columns, files: vec![(file, split)] };
        }
        for (file, split, columns) in files {
            if columns != scanned.columns {
                return Err(CsvError::HeaderDiffers { path: file.path, first: scanned.files[0].0.path.clone() }.into());
            }
            scanned.files.push((file, split));
        }
        Ok(scanned)
    }

    async fn scan_file(&self, file: FileStamp) -> Result<(FileStamp, Split, Vec<String>), BagError> {
        let block_bytes = self.shared.options.block_bytes.min(file.len);
        let blocks = file.len.div_ceil(block_bytes);
        let together = (SCAN_BYTES / block_bytes).max(1);
        let scans = (0..blocks)
            .step_by(together as usize)
            .map(|first| {
                self.cluster.submit(tasks::scan::task(file.clone(), Marks::default(), block_bytes, first, together))
            })
            .collect::<Vec<_>>();
        let scans = self.cluster.gather(&scans).await?.concat();
        let Ok(split) = split(file.len, block_bytes, &scans) else {
            self.cluster.submit(tasks::locate::task(file.clone())).result().await?;
            return Err(CsvError::Changed { path: file.path }.into());
        };
        let columns = self.cluster.submit(tasks::header::task(file.clone(), split.header_end)).result().await?;
        Ok((file, split, columns))
    }
}

/// The pattern from the root on: workers have working directories of their own.
pub(crate) fn absolute(pattern: &str) -> String {
    let path = std::path::absolute(pattern).ok();
    path.and_then(|path| path.into_os_string().into_string().ok()).unwrap_or_else(|| pattern.to_owned())
}
