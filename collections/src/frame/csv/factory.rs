//! `CREATE EXTERNAL TABLE ... STORED AS CSV` makes tables that are read in parallel.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::common::config::{ConfigFileType, CsvOptions};
use datafusion::common::{exec_datafusion_err, plan_err};
use datafusion::datasource::listing_table_factory::ListingTableFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::CreateExternalTable;
use starling_actors::{Cluster, WeakCluster};

use super::CsvTableError;
use super::options::{CsvReadOptions, OnBadRow};
use super::table::CsvTable;
use crate::csv::CsvError;
use crate::files::FilesError;
use crate::frame::FrameError;

/// Makes [`CsvTable`]s of SQL statements. It knows DataFusion's options of the format, except `null_regex` and `terminator`, and
/// three more: `on_bad_row` (`fail`, `skip`), `null_values` (texts with commas between them), `union_by_name`.
#[derive(Debug)]
pub struct CsvTableFactory {
    /// The client's session keeps the factory, so the factory must not keep the client.
    cluster: WeakCluster,
}

impl CsvTableFactory {
    /// Makes tables that this cluster reads.
    pub fn new(cluster: &Cluster) -> CsvTableFactory {
        CsvTableFactory { cluster: cluster.downgrade() }
    }
}

#[async_trait]
impl TableProviderFactory for CsvTableFactory {
    async fn create(&self, state: &dyn Session, command: &CreateExternalTable) -> Result<Arc<dyn TableProvider>> {
        let cluster = self.cluster.upgrade();
        let cluster = cluster.ok_or_else(|| exec_datafusion_err!("the client of this session's cluster is gone"))?;
        let mut options = options(state, &command.options)?;
        let named = &command.table_partition_cols;
        if !command.schema.fields().is_empty() {
            let declared = command.schema.as_arrow();
            let is_partition = |name: &String| named.contains(name);
            let columns = declared.fields().iter().filter(|field| !is_partition(field.name())).cloned();
            options.schema = Some(Arc::new(Schema::new(columns.collect::<Vec<_>>())));
            let mut partition_columns = Vec::new();
            for name in named {
                partition_columns.push((name.clone(), declared.field_with_name(name)?.data_type().clone()));
            }
            options.partition_columns = Some(partition_columns);
        } else if !named.is_empty() {
            let text = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
            options.partition_columns = Some(named.iter().map(|name| (name.clone(), text.clone())).collect());
        }
        match CsvTable::open(&cluster, command.locations.clone(), options).await {
            Ok(table) => Ok(table),
            // Nothing is there yet, and the columns are declared: rows may be inserted later.
            Err(FrameError::Csv(
                CsvTableError::Files(FilesError::Nowhere { .. }) | CsvTableError::File(CsvError::NotFound { .. }),
            )) if !command.schema.fields().is_empty() => ListingTableFactory::new().create(state, command).await,
            Err(FrameError::Query(error)) => Err(error),
            Err(FrameError::Csv(error)) => Err(error.into()),
            Err(FrameError::Table(error)) => Err(DataFusionError::External(Box::new(error))),
            Err(FrameError::Client(error)) => Err(super::CsvTableError::from(error).into()),
            Err(error @ (FrameError::Rows(_) | FrameError::Bag(_))) => Err(DataFusionError::External(Box::new(error))),
        }
    }
}

fn options(state: &dyn Session, given: &HashMap<String, String>) -> Result<CsvReadOptions> {
    let mut theirs = given.clone();
    let mut take = |name: &str| theirs.remove(name).or_else(|| theirs.remove(&format!("format.{name}")));
    let (on_bad_row, null_values, union_by_name) = (take("on_bad_row"), take("null_values"), take("union_by_name"));
    let mut table_options = state.default_table_options();
    table_options.set_config_format(ConfigFileType::CSV);
    table_options.alter_with_string_hash_map(&theirs)?;
    let mut options = CsvReadOptions::of(&table_options.csv, state.config_options().catalog.has_header)?;
    options.on_bad_row = match on_bad_row.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("fail") => OnBadRow::Fail,
        Some("skip") => OnBadRow::Skip,
        Some(other) => return plan_err!("on_bad_row is {other}; it may be fail or skip"),
    };
    options.union_by_name = match union_by_name.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return plan_err!("union_by_name is {other}; it may be true or false"),
    };
    options.null_values = null_values.map_or_else(Vec::new, |texts| texts.split(',').map(str::to_owned).collect());
    Ok(options)
}

impl CsvReadOptions {
    /// What DataFusion's options say, in a session whose files have headers or not.
    ///
    /// # Errors
    /// If they say what is not known here.
    pub fn of(theirs: &CsvOptions, has_header: bool) -> Result<CsvReadOptions> {
        let default = CsvReadOptions::default();
        if theirs.null_regex.is_some() {
            return plan_err!("null_regex is not supported; name the texts that are NULL in null_values");
        }
        if theirs.terminator.is_some() {
            return plan_err!("terminator is not supported: records end with newlines or carriage returns");
        }
        let compression = theirs.compression.is_compressed().then(|| theirs.compression.into());
        Ok(CsvReadOptions {
            has_header: theirs.has_header.unwrap_or(has_header),
            delimiter: theirs.delimiter,
            quote: theirs.quote,
            escape: theirs.escape,
            comment: theirs.comment,
            schema_infer_max_rec: theirs.schema_infer_max_rec.unwrap_or(default.schema_infer_max_rec),
            truncated_rows: theirs.truncated_rows.unwrap_or(false),
            compression,
            ..default
        })
    }
}
