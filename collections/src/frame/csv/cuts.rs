//! Where files may be cut: the exact record ends that pass one finds, computed once a file and kept by the client.
//!
//! Local files are looked at by tasks of the cluster, a task some blocks. Objects of a store are looked at by the client, with
//! several requests at a time: they are read twice, once here and once by the scan. A file whose quotes' parity cannot be trusted
//! is read as one range, and a warning says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::execution::TaskContext;
use futures::{StreamExt, TryStreamExt, stream};
use starling_actors::Cluster;

use super::error::CsvTableError;
use super::options::Format;
use super::part::{Object, Part, Place, TableFile};
use super::source;
use super::table::where_it_is;
use crate::csv::{BYTE_ORDER_MARK, BlockScan, CsvError, Marks, OddQuotes, first_stray, record_ends, scan_task};

/// A task looks at about so many bytes.
const TASK_BYTES: u64 = 16 << 20;

/// Blocks are of at most so many bytes: ranges of partitions are balanced as finely as that.
const BLOCK_BYTES_MAX: u64 = 4 << 20;

/// The smallest block.
const BLOCK_BYTES_MIN: u64 = 1 << 10;

/// A file is cut in so many blocks, if these are not too large or too small.
const BLOCKS: u64 = 256;

/// How many requests to a store are under way at once.
const REQUESTS: usize = 8;

/// Where a file may be cut.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// Record ends, in order; none if the file is not to be cut.
    ends: Vec<u64>,
    /// Why the file is not to be cut, if it should be possible.
    pub(super) warning: Option<String>,
}

impl Cuts {
    /// The pieces of the file, which has this number in its table.
    pub(super) fn pieces(&self, file: usize, len: u64) -> impl Iterator<Item = Part> + Clone + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ends = self.ends.iter().copied().chain(std::iter::once(len));
        starts.zip(ends).map(move |(start, end)| Part { file, start, end }).filter(|part| part.start < part.end)
    }

    pub(super) fn of(name: &str, marks: Marks, block_bytes: u64, scans: &[BlockScan]) -> Cuts {
        let stray = first_stray(marks, scans);
        let (block, what) = match (stray, record_ends(block_bytes, scans)) {
            (None, Ok(ends)) => return Cuts { ends, warning: None },
            (Some(block), _) => (block, "a quote that neither opens nor closes a field"),
            (None, Err(OddQuotes)) => (scans.len().saturating_sub(1), "a quote that is never closed"),
        };
        let warning = format!(
            "{name} is read in one piece, not in parallel, because of {what} near byte {}; double quotes that are text, or set \
             the escape option if there are backslashes before them",
            block as u64 * block_bytes,
        );
        tracing::warn!("{warning}");
        Cuts { ends: Vec::new(), warning: Some(warning) }
    }
}

/// The cuts that a client knows of.
#[derive(Default)]
pub(super) struct CutsKept(Mutex<HashMap<(Place, Marks, u64), Arc<Cuts>>>);

/// How many files' cuts are kept.
const FILES_KEPT: usize = 16_384;

impl CutsKept {
    fn get(&self, key: &(Place, Marks, u64)) -> Option<Arc<Cuts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: (Place, Marks, u64), cuts: &Arc<Cuts>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= FILES_KEPT {
            kept.clear();
        }
        kept.insert(key, Arc::clone(cuts));
    }
}

/// Where `file` may be cut in pieces that are wanted to be of at least `bytes_min` bytes.
pub(super) async fn cuts(
    cluster: &Cluster,
    context: &TaskContext,
    file: &TableFile,
    format: &Format,
    bytes_min: u64,
) -> Result<Arc<Cuts>, CsvTableError> {
    let len = file.place.len();
    let block_bytes = (len / BLOCKS).clamp(bytes_min.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX / 16), BLOCK_BYTES_MAX);
    if !file.compression.is_none() || !format.is_cuttable() || len <= bytes_min.max(block_bytes) {
        return Ok(Arc::default());
    }
    let marks = format.marks();
    let kept = cluster.extension(CutsKept::default);
    let key = (file.place.clone(), marks, block_bytes);
    if let Some(cuts) = kept.get(&key) {
        return Ok(cuts);
    }
    let together = (TASK_BYTES / block_bytes).max(1);
    let firsts = (0..len.div_ceil(block_bytes)).step_by(together as usize);
    let scans = match &file.place {
        Place::Local(stamp) => {
            let tasks: Vec<_> = firsts
                .map(|first| scan_task::task(stamp.clone(), marks, block_bytes, first, together))
                .map(|scan| cluster.submit(where_it_is(cluster, scan, stamp)))
                .collect();
            cluster.gather(&tasks).await?.concat()
        }
        Place::Remote(object) => {
            let scans = firsts.map(|first| scan_object(context, object, marks, block_bytes, first, together));
            stream::iter(scans).buffered(REQUESTS).try_concat().await?
        }
    };
    let cuts = Arc::new(Cuts::of(&file.place.name(), marks, block_bytes, &scans));
    kept.put(key, &cuts);
    Ok(cuts)
}

/// Pass one over `count` blocks of an object, from block number `first` on.
async fn scan_object(
    context: &TaskContext,
    object: &Object,
    marks: Marks,
    block_bytes: u64,
    first: u64,
    count: u64,
) -> Result<Vec<BlockScan>, CsvTableError> {
    let refused = |source| CsvTableError::Store { url: format!("{}{}", object.store, object.path), source };
    let start = first * block_bytes;
    let end = (start + count * block_bytes).min(object.len);
    let mut scans = vec![BlockScan::default(); (end - start).div_ceil(block_bytes) as usize];
    let mut at = 0;
    let mut pieces = source::get(context, object, Some(start..end)).await.map_err(refused)?;
    while let Some(piece) = pieces.try_next().await.map_err(refused)? {
        let mut bytes = piece.as_ref();
        if start + at == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            at = BYTE_ORDER_MARK.len() as u64;
            bytes = &bytes[BYTE_ORDER_MARK.len()..];
        }
        while !bytes.is_empty() {
            let (block, in_block) = (at / block_bytes, at % block_bytes);
            let here = usize::try_from(block_bytes - in_block).unwrap_or(usize::MAX).min(bytes.len());
            if let Some(scan) = scans.get_mut(block as usize) {
                scan.update(marks, in_block, &bytes[..here]);
            }
            at += here as u64;
            bytes = &bytes[here..];
        }
    }
    if start + at != end {
        return Err(CsvError::Changed { path: format!("{}{}", object.store, object.path) }.into());
    }
    Ok(scans)
}
