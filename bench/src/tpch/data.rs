//! TPC-H's tables, as `tpchgen` makes them: the same rows as the standard's own generator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchReader};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

use super::BENCH;
use crate::queries::{Table, parquet};

const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// As what columns are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Types {
    /// As the standard has them.
    Standard,
    /// With doubles for decimals and times for dates: pandas has no fast ones of either.
    Pandas,
}

/// The folder of all tables at this scale factor.
pub(super) fn cached(scale: f64) -> anyhow::Result<PathBuf> {
    parquet::cached(BENCH, &format!("sf-{scale}"), |folder| write(folder, scale, Types::Standard))
}

/// The same rows, in types that pandas is fast with.
pub(super) fn cached_for_pandas(scale: f64) -> anyhow::Result<PathBuf> {
    parquet::cached(BENCH, &format!("sf-{scale}-pandas"), |folder| write(folder, scale, Types::Pandas))
}

/// The tables of a folder.
pub(super) fn tables(folder: &Path) -> Vec<Table> {
    TABLES.iter().map(|name| parquet::table(folder, name)).collect()
}

/// Makes all tables.
pub(super) fn write(folder: &Path, scale: f64, types: Types) -> anyhow::Result<()> {
    for name in TABLES {
        let batches = generate(name, scale);
        let schema = match types {
            Types::Standard => batches.schema(),
            Types::Pandas => for_pandas(&batches.schema()),
        };
        let converted = batches.map(|batch| {
            let batch = batch?;
            let columns = batch.columns().iter().zip(schema.fields());
            let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
            RecordBatch::try_new(Arc::clone(&schema), columns)
        });
        parquet::write(folder, name, Arc::clone(&schema), converted)?;
    }
    Ok(())
}

fn generate(name: &str, scale: f64) -> Box<dyn RecordBatchReader> {
    match name {
        "customer" => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
        "lineitem" => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
        "nation" => Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1))),
        "orders" => Box::new(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
        "part" => Box::new(PartArrow::new(PartGenerator::new(scale, 1, 1))),
        "partsupp" => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
        "region" => Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
        _ => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
    }
}

fn for_pandas(schema: &Schema) -> Arc<Schema> {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Decimal128(..) => Field::new(field.name(), DataType::Float64, field.is_nullable()),
        DataType::Date32 => {
            Field::new(field.name(), DataType::Timestamp(TimeUnit::Millisecond, None), field.is_nullable())
        }
        _ => field.as_ref().clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::queries::Answer;

    #[test]
    fn the_tables_are_the_same_each_time_and_as_many_rows_as_the_standard_says() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&one, &other] {
            write(folder.path(), 0.001, Types::Standard).unwrap();
        }
        let rows: Vec<usize> = TABLES
            .iter()
            .map(|name| {
                let (one, other) = (parquet::table(one.path(), name).path, parquet::table(other.path(), name).path);
                assert_eq!(fs::read(&one).unwrap(), fs::read(&other).unwrap(), "{name}");
                Answer::read(&one).unwrap().rows()
            })
            .collect();
        // The lines of orders are random in number: about four each.
        assert_eq!(rows, [150, 6005, 25, 1500, 200, 800, 5, 10]);
    }

    #[test]
    fn for_pandas_there_are_no_decimals_and_no_dates() {
        let schema = for_pandas(&generate("lineitem", 0.001).schema());
        assert_eq!(schema.field_with_name("l_tax").unwrap().data_type(), &DataType::Float64);
        assert_eq!(schema.field_with_name("l_orderkey").unwrap().data_type(), &DataType::Int64);
        let of =
            |wanted: fn(&DataType) -> bool| schema.fields().iter().filter(|field| wanted(field.data_type())).count();
        assert_eq!(of(|data_type| matches!(data_type, DataType::Timestamp(..))), 3);
        assert_eq!(of(|data_type| matches!(data_type, DataType::Decimal128(..) | DataType::Date32)), 0);
    }
}
