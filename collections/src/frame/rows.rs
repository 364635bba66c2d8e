//! Frames as bags, and bags as frames: each partition is converted where it is.
//!
//! ```text
//!  to_bag:    stages -> outputs (Parts) -> a task for each -> items (Buckets), the bag's partitions
//!  from_bag:  the bag's stages -> items (Buckets) -> a task for each -> outputs (Parts), the table's partitions
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::Column as ColumnName;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::Expr;
use datafusion::prelude::DataFrame;
use serde::{Deserialize, Serialize};
use starling_actors::Cluster;
use starling_core::failure::FailureCause;
use starling_macros::task;
use starling_runtime::parts::Parts;
use starling_runtime::task::Future;
use starling_runtime::task::items::{BlockBuilder, Buckets, decode};
use starling_runtime::value::{CodecError, Data};

use super::batches::Batches;
use super::cells::{self, Misfit, is_supported};
use super::error::FrameError;
use super::mesh_exec::MeshSession;
use super::persist::{no_cluster, store};
use super::row::{Cell, FromCell, Row, listed};
use super::session::Frames;
use super::stored::StoredTable;
use crate::Bag;

/// How many rows a batch has that is made of items.
const BATCH_ROWS: usize = 8192;

/// From how many bytes of items on a batch is ended.
const BATCH_BYTES: usize = 64 << 20;

/// Why rows cannot be had of a frame, or a frame of rows.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// There is no such column.
    #[error("the frame has no column {column:?}; it has {}", listed(.columns))]
    NoColumn {
        /// The name asked for.
        column: String,
        /// The names that there are.
        columns: Vec<String>,
    },
    /// Two columns have one name, so rows could not tell them apart.
    #[error("two columns are named {column:?}: give one of them another name, as by AS in the query")]
    Ambiguous {
        /// The name.
        column: String,
    },
    /// The column's type has no cells.
    #[error("column {column:?} is of type {data_type}, which rows cannot hold: cast it in the query")]
    Unsupported {
        /// The column's name.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// The column is of another type.
    #[error("column {column:?} is of type {data_type}, but {wanted} was asked for: cast it in the query")]
    ColumnType {
        /// The column's name.
        column: String,
        /// Its type.
        data_type: DataType,
        /// The type asked for.
        wanted: &'static str,
    },
    /// A value is NULL, and the type asked for has no room for it.
    #[error(
        "column {column:?} is NULL in row {row} of partition {partition}: ask for Option<{wanted}>, or leave such rows \
         out with WHERE {column:?} IS NOT NULL"
    )]
    Null {
        /// The column's name.
        column: String,
        /// The row, counted from 1 in its partition.
        row: u64,
        /// The partition, counted from 1.
        partition: u64,
        /// The type asked for.
        wanted: &'static str,
    },
    /// A value is not one of the type asked for.
    #[error("column {column:?} is {found} in row {row} of partition {partition}, which is no {wanted}")]
    Value {
        /// The column's name.
        column: String,
        /// The row, counted from 1 in its partition.
        row: u64,
        /// The partition, counted from 1.
        partition: u64,
        /// What is there.
        found: String,
        /// The type asked for.
        wanted: &'static str,
    },
    /// A row of a bag has not all columns of the schema.
    #[error(
        "row {row} of partition {partition} has no column {column:?}, which the schema has; it has {}",
        listed(.columns)
    )]
    MissingCell {
        /// The row, counted from 1 in its partition.
        row: u64,
        /// The partition, counted from 1.
        partition: u64,
        /// The missing column.
        column: String,
        /// The columns that the row has.
        columns: Vec<String>,
    },
    /// A cell of a bag's row is not of its column's type.
    #[error("row {row} of partition {partition}, column {column:?}: {reason}")]
    Cell {
        /// The row, counted from 1 in its partition.
        row: u64,
        /// The partition, counted from 1.
        partition: u64,
        /// The column's name.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// Arrow refuses to convert a column.
    #[error("column {column:?} cannot be converted")]
    Arrow {
        /// The column's name.
        column: String,
        /// Why.
        source: ArrowError,
    },
    /// Arrow refuses a batch of converted columns.
    #[error("the rows make no batch")]
    Batch(#[source] ArrowError),
    /// An output is not what it should be.
    #[error(transparent)]
    Output(#[from] CodecError),
    /// Items are not what they should be.
    #[error("the items are no rows: {0}")]
    Items(FailureCause),
}

/// A type that a column's values can be taken as: `i64`, `u64`, `f64`, `bool`, `String`, or an `Option` of one of these for
/// columns that may be NULL.
pub trait ColumnItem: Data + sealed::Item {}

mod sealed {
    use serde::{Deserialize, Serialize};

    /// A type without its nullability.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub enum Kind {
        Int,
        UInt,
        Float,
        Bool,
        Text,
    }

    pub trait Item {
        const KIND: Kind;
        const IS_NULLABLE: bool;
    }
}

use sealed::Kind;

macro_rules! column_items {
    ($($item:ty => $kind:ident),*) => {$(
        impl sealed::Item for $item {
            const KIND: Kind = Kind::$kind;
            const IS_NULLABLE: bool = false;
        }

        impl ColumnItem for $item {}

        impl sealed::Item for Option<$item> {
            const KIND: Kind = Kind::$kind;
            const IS_NULLABLE: bool = true;
        }

        impl ColumnItem for Option<$item> {}
    )*};
}

column_items!(i64 => Int, u64 => UInt, f64 => Float, bool => Bool, String => Text);

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Int => "i64",
            Kind::UInt => "u64",
            Kind::Float => "f64",
            Kind::Bool => "bool",
            Kind::Text => "String",
        }
    }

    /// Whether a column of this type has values of the kind.
    fn takes(self, data_type: &DataType) -> bool {
        match data_type {
            DataType::Dictionary(_, values) => self.takes(values),
            DataType::RunEndEncoded(_, values) => self.takes(values.data_type()),
            DataType::Null => true,
            _ => match self {
                Kind::Int | Kind::UInt => data_type.is_integer(),
                Kind::Float => data_type.is_integer() || data_type.is_floating(),
                Kind::Bool => *data_type == DataType::Boolean,
                Kind::Text => matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
            },
        }
    }
}

/// Frames as bags.
pub trait RowsExt {
    /// Computes the frame on the workers and gives its rows as a bag: what closures do with them runs where they are. The
    /// bag has a partition for each of the frame's, in the frame's order.
    ///
    /// The rows are computed once and stay in the cluster as long as the bag or a clone of it is held; those that a lost
    /// worker held are computed again. Returns as soon as the tasks are submitted: what goes wrong in them shows when the
    /// bag is used.
    ///
    /// A row's cells are found by the columns' names. Each row is built for itself, so do in SQL what SQL can do, and take
    /// only the columns that are needed.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// use starling_collections::frame::{Frames, Row, RowError, RowsExt};
    ///
    /// # async fn run(frames: Frames) -> Result<(), Box<dyn std::error::Error>> {
    /// let posts = frames.sql("SELECT title, score FROM posts WHERE title IS NOT NULL").await?.to_bag().await?;
    /// let words = posts
    ///     .try_map(task!(|row: Row| -> Result<Vec<String>, RowError> {
    ///         Ok(row.get::<&str>("title")?.split_whitespace().map(str::to_lowercase).collect())
    ///     }))
    ///     .flat_map(task!(|words: Vec<String>| -> Vec<String> { words }))
    ///     .frequencies();
    /// println!("{:?}", words.topk(10, task!(|pair: &(String, u64)| -> u64 { pair.1 })).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`FrameError::Query`] if the frame cannot be planned, or is of a session without a cluster;
    /// [`FrameError::Rows`] if two columns have one name, or one has a type that cells cannot hold.
    fn to_bag(self) -> impl std::future::Future<Output = Result<Bag<Row>, FrameError>> + Send;

    /// The values of a column as a bag, computed and kept as by [`to_bag`](RowsExt::to_bag); nothing but the column is
    /// computed.
    ///
    /// ```no_run
    /// # use starling_collections::frame::{Frames, RowsExt};
    /// # async fn run(frames: Frames) -> Result<(), Box<dyn std::error::Error>> {
    /// let scores = frames.sql("SELECT * FROM posts").await?.column::<Option<i64>>("score").await?;
    /// println!("{} different scores", scores.distinct().count().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As `to_bag`; also [`FrameError::Rows`] if there is no such column, or it is not of the type. A NULL, unless `T` is an
    /// `Option`, and an integer that `T` has no room for are told when the bag is used.
    fn column<T: ColumnItem>(self, name: &str) -> impl std::future::Future<Output = Result<Bag<T>, FrameError>> + Send;
}

impl RowsExt for DataFrame {
    async fn to_bag(self) -> Result<Bag<Row>, FrameError> {
        let fields = self.schema().fields().iter();
        check(fields.map(|field| (field.name().as_str(), field.data_type())))?;
        let (cluster, outputs) = outputs(self).await?;
        let rows = cluster.submit_all(outputs.into_iter().map(rows_of::task)).await;
        Ok(Bag::of_kept(&cluster, rows))
    }

    async fn column<T: ColumnItem>(self, name: &str) -> Result<Bag<T>, FrameError> {
        let wanted = Wanted { column: name.to_owned(), kind: T::KIND, is_nullable: T::IS_NULLABLE };
        let column = wanted.expr(&self)?;
        let (cluster, outputs) = outputs(self.select([column])?).await?;
        let calls = (0..).zip(outputs).map(|(partition, output)| items_of::task(output, wanted.clone(), partition));
        let items = cluster.submit_all(calls).await;
        Ok(Bag::of_kept(&cluster, items))
    }
}

/// The frame's partitions, computed in its session's cluster.
async fn outputs(frame: DataFrame) -> Result<(Cluster, Vec<Future<Parts>>), FrameError> {
    let (state, plan) = frame.into_parts();
    let session = state.config().get_extension::<MeshSession>().ok_or_else(no_cluster)?;
    let cluster = session.cluster.upgrade().ok_or_else(no_cluster)?;
    let plan = state.create_physical_plan(&plan).await?;
    let (outputs, _) = store(plan, &state).await?;
    Ok((cluster, outputs))
}

impl Bag<Row> {
    /// The rows as a frame of these columns: [`Frames::from_bag`], which says what it costs.
    ///
    /// # Errors
    /// As of [`from_bag`](Frames::from_bag).
    pub async fn to_frame(self, frames: &Frames, schema: SchemaRef) -> Result<DataFrame, FrameError> {
        frames.from_bag(self, schema).await
    }
}

impl Frames {
    /// A frame of a bag's rows, of these columns. The bag is computed, and its partitions become the frame's, on the
    /// workers; they are kept as long as a frame of them is held, with what [`Bag::persist`] says of lost ones. Returns as
    /// soon as the tasks are submitted.
    ///
    /// A row's cells are found by the columns' names; what it has beside them is left out. A cell must fit its column's
    /// type exactly (an integer any type of numbers that has it), but floats are rounded to narrower ones.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// use std::sync::Arc;
    ///
    /// use starling_collections::Bag;
    /// use starling_collections::frame::datafusion::arrow::datatypes::{DataType, Field, Schema};
    /// use starling_collections::frame::{Frames, Row, row};
    ///
    /// # async fn run(frames: Frames) -> Result<(), Box<dyn std::error::Error>> {
    /// let lines = Bag::read_text(frames.cluster(), "logs/*.txt");
    /// let rows = lines.map(task!(|line: String| -> Row { row!["length" => line.len(), "line" => line] }));
    /// let columns = vec![Field::new("length", DataType::UInt64, false), Field::new("line", DataType::Utf8, false)];
    /// let lines = frames.from_bag(rows, Arc::new(Schema::new(columns))).await?;
    /// frames.context().register_table("lines", lines.into_view())?;
    /// frames.sql("SELECT max(length) FROM lines").await?.show().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`FrameError::Bag`] if the bag cannot be computed; [`FrameError::Rows`] if the schema has two columns of one name, or
    /// one of a type that cells cannot hold. A row that does not fit is told with its place when the frame is used.
    pub async fn from_bag(&self, bag: Bag<Row>, schema: SchemaRef) -> Result<DataFrame, FrameError> {
        let fields = schema.fields().iter();
        check(fields.map(|field| (field.name().as_str(), field.data_type())))?;
        let rows = bag.outputs().await?;
        if rows.is_empty() {
            let empty = MemTable::try_new(schema, vec![Vec::new()])?;
            return Ok(self.context().read_table(Arc::new(empty))?);
        }
        let like = Batches::new(vec![RecordBatch::new_empty(Arc::clone(&schema))]);
        let calls = (0..).zip(rows).map(|(partition, rows)| batches_of::task(rows, like.clone(), partition));
        let outputs = self.cluster().submit_all(calls).await;
        let table = StoredTable::new(schema, outputs, None);
        Ok(self.context().read_table(Arc::new(table))?)
    }
}

/// Whether rows can have these columns.
fn check<'a>(columns: impl Iterator<Item = (&'a str, &'a DataType)>) -> Result<(), RowsError> {
    let mut names = HashSet::new();
    for (name, data_type) in columns {
        if !names.insert(name) {
            return Err(RowsError::Ambiguous { column: name.to_owned() });
        }
        if !is_supported(data_type) {
            return Err(RowsError::Unsupported { column: name.to_owned(), data_type: data_type.clone() });
        }
    }
    Ok(())
}

/// The batches of a frame's output.
fn batches_in(output: &Parts) -> Result<Arc<Batches>, RowsError> {
    Ok(output.get::<Batches>(0)?.unwrap_or_default())
}

fn cells_of(schema: &Schema, number: usize, column: &ArrayRef) -> Result<Vec<Cell>, RowsError> {
    cells::cells(column).map_err(|source| RowsError::Arrow { column: schema.field(number).name().clone(), source })
}

/// The rows of an output.
#[task(crate = starling_runtime, json = false)]
fn rows_of(output: &Parts) -> Result<Buckets, RowsError> {
    let mut rows = BlockBuilder::default();
    for batch in batches_in(output)?.batches() {
        let schema = batch.schema();
        let names: Arc<[String]> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let columns = batch.columns().iter().enumerate();
        let columns = columns.map(|(number, column)| cells_of(&schema, number, column).map(Vec::into_iter));
        let mut columns = columns.collect::<Result<Vec<_>, RowsError>>()?;
        for _ in 0..batch.num_rows() {
            let cells = columns.iter_mut().map(|column| column.next().unwrap_or(Cell::Null)).collect();
            rows.push_value(&Row::of_columns(&names, cells)).map_err(RowsError::Items)?;
        }
    }
    Ok(Buckets::one(rows.finish()))
}

/// The column that is wanted, and as what.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wanted {
    column: String,
    kind: Kind,
    is_nullable: bool,
}

impl Wanted {
    /// The column of a frame, if it has it and is of the type.
    fn expr(&self, frame: &DataFrame) -> Result<Expr, RowsError> {
        let column = self.column.clone();
        let (qualifier, field) = match frame.schema().qualified_fields_with_unqualified_name(&column)[..] {
            [found] => found,
            [] => {
                let columns = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
                return Err(RowsError::NoColumn { column, columns });
            }
            _ => return Err(RowsError::Ambiguous { column }),
        };
        if !self.kind.takes(field.data_type()) {
            let (data_type, wanted) = (field.data_type().clone(), self.kind.name());
            return Err(RowsError::ColumnType { column, data_type, wanted });
        }
        Ok(Expr::Column(ColumnName::from((qualifier, field))))
    }
}

/// The values of an output's only column.
#[task(crate = starling_runtime, json = false)]
fn items_of(output: &Parts, wanted: Wanted, partition: u64) -> Result<Buckets, RowsError> {
    let mut items = BlockBuilder::default();
    for batch in batches_in(output)?.batches() {
        for cell in cells_of(&batch.schema(), 0, batch.column(0))? {
            match wanted.kind {
                Kind::Int => push::<i64>(&mut items, &cell, &wanted, partition)?,
                Kind::UInt => push::<u64>(&mut items, &cell, &wanted, partition)?,
                Kind::Float => push::<f64>(&mut items, &cell, &wanted, partition)?,
                Kind::Bool => push::<bool>(&mut items, &cell, &wanted, partition)?,
                Kind::Text => push::<&str>(&mut items, &cell, &wanted, partition)?,
            }
        }
    }
    Ok(Buckets::one(items.finish()))
}

fn push<'a, T: FromCell<'a> + Serialize>(
    items: &mut BlockBuilder,
    cell: &'a Cell,
    wanted: &Wanted,
    partition: u64,
) -> Result<(), RowsError> {
    let pushed = match Option::<T>::from_cell(cell) {
        Some(item) if wanted.is_nullable => items.push_value(&item),
        Some(Some(item)) => items.push_value(&item),
        refused => {
            let (column, row, partition) = (wanted.column.clone(), items.count() + 1, partition + 1);
            let wanted = wanted.kind.name();
            return Err(match refused {
                Some(_) => RowsError::Null { column, row, partition, wanted },
                None => RowsError::Value { column, row, partition, found: cell.described(), wanted },
            });
        }
    };
    pushed.map_err(RowsError::Items)
}

/// The output that rows are. `like` has the schema.
#[task(crate = starling_runtime, json = false)]
fn batches_of(rows: &Buckets, like: &Batches, partition: u64) -> Result<Parts, RowsError> {
    let schema = like.batches().first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let mut builder = RowsBuilder { schema, partition, rows: Vec::new(), nbytes: 0, done: 0, batches: Vec::new() };
    for bucket in &rows.0 {
        for item in bucket.items.items().map_err(RowsError::Items)? {
            builder.push(decode(item).map_err(RowsError::Items)?, item.len())?;
        }
    }
    builder.flush()?;
    Ok(Parts::live([Batches::new(builder.batches)]))
}

/// Batches of rows under construction.
struct RowsBuilder {
    schema: SchemaRef,
    partition: u64,
    /// The rows of the next batch.
    rows: Vec<Row>,
    /// How many bytes these have as items.
    nbytes: usize,
    /// How many rows are in batches.
    done: u64,
    batches: Vec<RecordBatch>,
}

impl RowsBuilder {
    fn push(&mut self, row: Row, nbytes: usize) -> Result<(), RowsError> {
        self.rows.push(row);
        self.nbytes += nbytes;
        if self.rows.len() >= BATCH_ROWS || self.nbytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RowsError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let columns = (0..self.schema.fields().len()).map(|number| self.column(number));
        let columns = columns.collect::<Result<Vec<_>, RowsError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        self.batches.push(batch.map_err(RowsError::Batch)?);
        self.done += self.rows.len() as u64;
        self.rows.clear();
        self.nbytes = 0;
        Ok(())
    }

    fn column(&self, number: usize) -> Result<ArrayRef, RowsError> {
        let field = self.schema.field(number);
        let column = field.name();
        let place = |at: usize| (self.done + at as u64 + 1, self.partition + 1);
        let mut cells = Vec::with_capacity(self.rows.len());
        for (at, row) in self.rows.iter().enumerate() {
            // Mostly they are in the schema's order.
            let same = row.columns().get(number).filter(|name| *name == column).and_then(|_| row.cells().get(number));
            let Some(cell) = same.or_else(|| row.cell(column)) else {
                let ((row_number, partition), columns) = (place(at), row.columns().to_vec());
                return Err(RowsError::MissingCell { row: row_number, partition, column: column.clone(), columns });
            };
            cells.push(Some(cell));
        }
        cells::array(field.data_type(), field.is_nullable(), &cells).map_err(|misfit| match misfit {
            Misfit::Cell { at, reason } => {
                let (row, partition) = place(at);
                RowsError::Cell { row, partition, column: column.clone(), reason }
            }
            Misfit::Arrow(source) => RowsError::Arrow { column: column.clone(), source },
        })
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
