//! Tables written to Parquet files, once: a folder of them is there as a whole or not at all.
//!
//! Written as `tpchgen-cli` does by default, snappy, in row groups of at most 131,072 rows, so that a scan can be split, and
//! without the schema of Arrow, so that every system reads the types that it would give the file by itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;

use super::Table;
use crate::report::tell;

const ROW_GROUP_ROWS: usize = 1 << 17;

/// The folder of this name in the repository's cache, filled by `fill` unless it is there. `fill` gets the folder to write
/// to.
pub(crate) fn cached(
    bench: &str,
    name: &str,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.bench").join(bench);
    fs::create_dir_all(&parent)?;
    let parent = parent.canonicalize()?;
    let folder = parent.join(name);
    if !folder.is_dir() {
        tell(format_args!("{bench}: making {}", folder.display()));
        let partial = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&parent)?;
        fill(partial.path())?;
        fs::rename(partial.keep(), &folder)?;
    }
    Ok(folder)
}

/// The table `name` of a cached folder.
pub(crate) fn table(folder: &Path, name: &str) -> Table {
    Table { name: name.to_owned(), path: path(folder, name) }
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.parquet"))
}

/// Writes a table's file.
pub(crate) fn write(
    folder: &Path,
    name: &str,
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> anyhow::Result<()> {
    let path = path(folder, name);
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    let mut writer = ArrowWriter::try_new_with_options(file, schema, options)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}
