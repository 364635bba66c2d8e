//! Answers to queries, and whether two of them are the same.
//!
//! Rows are a multiset, except that where a query orders, the columns that it orders by must agree row by row. Floats agree
//! within a relative 1e-6: their sums depend on the order of addition. Everything else, decimals among it, agrees exactly,
//! unless the other system has another type for the column and could only give a float: then to a decimal's last digit.

use std::cmp::Ordering;
use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// How far floats may be apart, relative to the larger.
const TOLERANCE: f64 = 1e-6;
/// How far they may be apart in any case: what is left of terms that cancel, as in a correlation of nothing with nothing.
const CANCELLED: f64 = 1e-12;
/// Above this, rows are compared by sums over all of them and not one by one.
const ROWS_MAX: usize = 1_000_000;

/// A system's answer to a query.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

/// Who gave the answer that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// DataFusion, by whatever way: the names and types of columns are to be the same, and a NaN is no NULL.
    DataFusion,
    /// Another system, whose types and names of columns are its own. pandas has only NaN for a NULL.
    Stranger,
}

impl Answer {
    /// An answer of these batches. What a plan says of NULLs is forgotten, in which batches of one answer may differ.
    pub(crate) fn new(schema: &Schema, batches: Vec<RecordBatch>) -> anyhow::Result<Answer> {
        let fields = schema.fields().iter();
        let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let batches =
            batches.into_iter().map(|batch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()));
        Ok(Answer { batches: batches.collect::<Result<_, _>>()?, schema })
    }

    /// An answer that was written to a Parquet file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Answer> {
        let file = File::open(path).with_context(|| format!("there is no answer in {}", path.display()))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let schema = Arc::clone(reader.schema());
        let batches = reader.build()?.collect::<Result<Vec<_>, _>>()?;
        Answer::new(&schema, batches)
    }

    /// Writes it to a Parquet file, which is there as a whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let mut writer = ArrowWriter::try_new(File::create(&partial)?, Arc::clone(&self.schema), None)?;
        for batch in &self.batches {
            writer.write(batch)?;
        }
        writer.close()?;
        std::fs::rename(&partial, path)?;
        Ok(())
    }

    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Every cell as text.
    pub(crate) fn texts(&self) -> anyhow::Result<Vec<Vec<String>>> {
        let mut texts = Vec::new();
        for batch in &self.batches {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| array_value_to_string(column, row));
                texts.push(cells.collect::<Result<_, _>>()?);
            }
        }
        Ok(texts)
    }

    /// Compares with an answer that is right. `ordered_by` are the columns that the query orders by, by position.
    ///
    /// # Errors
    /// Says the first difference that was found.
    pub(crate) fn agrees_with(&self, right: &Answer, ordered_by: &[usize], from: Origin) -> anyhow::Result<()> {
        let kinds = common_kinds(&self.schema, &right.schema, from)?;
        let (got, expected) = (self.rows(), right.rows());
        ensure!(got == expected, "{got} rows instead of {expected}");
        let nan_is_null = from == Origin::Stranger;
        if got > ROWS_MAX {
            ensure!(ordered_by.is_empty(), "an ordered answer of so many rows is not compared");
            let (got, expected) = (Sums::of(self, &kinds, nan_is_null)?, Sums::of(right, &kinds, nan_is_null)?);
            return got.agree_with(&expected);
        }
        let got = Table::of(self, &kinds, nan_is_null)?;
        let expected = Table::of(right, &kinds, nan_is_null)?;
        for column in ordered_by {
            got.column_agrees(&expected, *column, &kinds[*column]).context("the order is wrong")?;
        }
        got.agrees_with(&expected)
    }
}

/// As what two columns are compared.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Exact(DataType),
    /// May differ by the tolerance, or by `unit`: the last digit of a decimal that is compared with a float.
    Float {
        unit: f64,
    },
}

const FLOAT: Kind = Kind::Float { unit: 0.0 };

fn common_kinds(got: &Schema, right: &Schema, from: Origin) -> anyhow::Result<Vec<Kind>> {
    let (columns, expected) = (got.fields().len(), right.fields().len());
    ensure!(columns == expected, "{columns} columns instead of {expected}");
    let pairs = got.fields().iter().zip(right.fields());
    pairs
        .map(|(got, right)| {
            if from == Origin::DataFusion {
                ensure!(got.name() == right.name(), "column {} instead of {}", got.name(), right.name());
                let (got_type, right_type) = (got.data_type(), right.data_type());
                ensure!(got_type == right_type, "column {}: type {got_type} instead of {right_type}", got.name());
            }
            common_kind(got, right)
        })
        .collect()
}

fn common_kind(got: &Field, right: &Field) -> anyhow::Result<Kind> {
    let (got_kind, right_kind) = (kind(got.data_type()), kind(right.data_type()));
    match (&got_kind, &right_kind) {
        (Some(got), Some(right)) if got == right => Ok(got.clone()),
        // A system may have widened what the other has not.
        (Some(Kind::Exact(got)), Some(Kind::Exact(right))) if [got, right].iter().all(|one| one.is_numeric()) => {
            Ok(Kind::Float { unit: last_digit(got).max(last_digit(right)) })
        }
        (Some(Kind::Float { .. }), Some(Kind::Exact(exact))) | (Some(Kind::Exact(exact)), Some(Kind::Float { .. }))
            if exact.is_numeric() =>
        {
            Ok(Kind::Float { unit: last_digit(exact) })
        }
        // pandas' dates are times.
        (Some(Kind::Exact(DataType::Timestamp(..))), Some(Kind::Exact(DataType::Date32))) => {
            Ok(Kind::Exact(DataType::Date32))
        }
        _ => bail!("column {}: type {} cannot be compared with {}", right.name(), got.data_type(), right.data_type()),
    }
}

/// What the last digit of a decimal stands for; 0 of anything else.
fn last_digit(data_type: &DataType) -> f64 {
    match data_type {
        DataType::Decimal128(_, scale) => 10_f64.powi(-i32::from(*scale)),
        _ => 0.0,
    }
}

/// As what a column is compared with one of its own kind.
fn kind(data_type: &DataType) -> Option<Kind> {
    if data_type.is_integer() {
        return Some(Kind::Exact(DataType::Int64));
    }
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Some(FLOAT),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            Some(Kind::Exact(DataType::Decimal128(38, *scale)))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Kind::Exact(DataType::Utf8View)),
        DataType::Dictionary(_, values) => kind(values),
        DataType::Boolean | DataType::Date32 | DataType::Timestamp(..) => Some(Kind::Exact(data_type.clone())),
        _ => None,
    }
}

/// The columns of a batch in a form that can be compared: those of exact types as one sortable row, the floats apart.
struct Columns {
    rows: Option<Rows>,
    floats: Vec<Floats>,
}

/// A column of floats, and by how much they may differ beside the tolerance.
struct Floats {
    values: Float64Array,
    unit: f64,
}

impl Columns {
    fn of(batch: &RecordBatch, kinds: &[Kind], nan_is_null: bool) -> anyhow::Result<Columns> {
        let (mut exact, mut floats): (Vec<ArrayRef>, _) = (Vec::new(), Vec::new());
        for (column, kind) in batch.columns().iter().zip(kinds) {
            match kind {
                Kind::Exact(data_type) => exact.push(cast(column, data_type)?),
                Kind::Float { unit } => {
                    floats.push(Floats { values: as_floats(column, nan_is_null)?, unit: *unit });
                }
            }
        }
        let rows = if exact.is_empty() {
            None
        } else {
            let fields = exact.iter().map(|array| SortField::new(array.data_type().clone())).collect();
            Some(RowConverter::new(fields)?.convert_columns(&exact)?)
        };
        Ok(Columns { rows, floats })
    }
}

fn as_floats(column: &ArrayRef, nan_is_null: bool) -> anyhow::Result<Float64Array> {
    let floats = cast(column, &DataType::Float64)?;
    let floats = floats.as_primitive::<Float64Type>();
    if nan_is_null {
        return Ok(floats.iter().map(|float| float.filter(|float| !float.is_nan())).collect());
    }
    Ok(floats.clone())
}

/// An answer whose rows are compared one by one.
struct Table {
    batch: RecordBatch,
    columns: Columns,
    /// The rows, by their exact columns and then by their floats.
    sorted: Vec<usize>,
    nan_is_null: bool,
}

impl Table {
    fn of(answer: &Answer, kinds: &[Kind], nan_is_null: bool) -> anyhow::Result<Table> {
        let batch = concat_batches(&answer.schema, &answer.batches)?;
        let columns = Columns::of(&batch, kinds, nan_is_null)?;
        let mut sorted: Vec<usize> = (0..batch.num_rows()).collect();
        let by_floats = |a: usize, b: usize| {
            let orders = columns.floats.iter().map(|floats| order(floats.at(a), floats.at(b)));
            orders.fold(Ordering::Equal, Ordering::then)
        };
        match &columns.rows {
            Some(rows) => sorted.sort_unstable_by(|a, b| rows.row(*a).cmp(&rows.row(*b)).then(by_floats(*a, *b))),
            None => sorted.sort_unstable_by(|a, b| by_floats(*a, *b)),
        }
        Ok(Table { batch, columns, sorted, nan_is_null })
    }

    fn same_key(&self, one: usize, other: usize) -> bool {
        self.columns.rows.as_ref().is_none_or(|rows| rows.row(one) == rows.row(other))
    }

    /// Row by row, in the order in which they came.
    fn column_agrees(&self, right: &Table, index: usize, kind: &Kind) -> anyhow::Result<()> {
        let kinds = std::slice::from_ref(kind);
        let got = Columns::of(&self.batch.project(&[index])?, kinds, self.nan_is_null)?;
        let expected = Columns::of(&right.batch.project(&[index])?, kinds, self.nan_is_null)?;
        for row in 0..self.batch.num_rows() {
            let same = match (&got.rows, &expected.rows) {
                (Some(got), Some(expected)) => got.row(row) == expected.row(row),
                _ => got.floats[0].agrees(row, &expected.floats[0], row),
            };
            ensure!(same, "{}", Difference { got: self, got_row: row, right, right_row: row });
        }
        Ok(())
    }

    fn agrees_with(&self, right: &Table) -> anyhow::Result<()> {
        let length = self.sorted.len();
        let mut begin = 0;
        while begin < length {
            let same = right.sorted[begin..].iter().take_while(|row| right.same_key(right.sorted[begin], **row));
            let end = begin + same.count();
            self.run_agrees(right, begin, end)?;
            begin = end;
        }
        Ok(())
    }

    /// Whether the rows at these places of the order are the same ones, all of which have equal exact columns at `right`.
    fn run_agrees(&self, right: &Table, begin: usize, end: usize) -> anyhow::Result<()> {
        let mut left: Vec<usize> = right.sorted[begin..end].to_vec();
        for &row in &self.sorted[begin..end] {
            // Nearly always the first that is left: only floats that are nearly equal may stand in another order.
            let found = left.iter().position(|expected| self.row_agrees(row, right, *expected));
            let Some(found) = found else {
                bail!("{}", Difference { got: self, got_row: row, right, right_row: left[0] });
            };
            left.remove(found);
        }
        Ok(())
    }

    fn row_agrees(&self, row: usize, right: &Table, expected: usize) -> bool {
        let exact = match (&self.columns.rows, &right.columns.rows) {
            (Some(got), Some(right)) => got.row(row) == right.row(expected),
            _ => true,
        };
        let mut floats = self.columns.floats.iter().zip(&right.columns.floats);
        exact && floats.all(|(got, right)| got.agrees(row, right, expected))
    }
}

/// Two rows that should be the same, for people.
struct Difference<'a> {
    got: &'a Table,
    got_row: usize,
    right: &'a Table,
    right_row: usize,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |table: &Table, row: usize| {
            let columns = table.batch.columns().iter();
            let cells = columns.map(|column| {
                let cell = array_value_to_string(column, row);
                cell.unwrap_or_else(|error| format!("({error})"))
            });
            cells.collect::<Vec<_>>().join(" | ")
        };
        write!(f, "row [{}] instead of [{}]", text(self.got, self.got_row), text(self.right, self.right_row))
    }
}

impl Floats {
    fn at(&self, row: usize) -> Option<f64> {
        self.values.is_valid(row).then(|| self.values.value(row))
    }

    fn agrees(&self, row: usize, right: &Floats, right_row: usize) -> bool {
        let (got, expected) = (self.at(row), right.at(right_row));
        let within = got.zip(expected).is_some_and(|(got, expected)| (got - expected).abs() <= self.unit);
        within || close(got, expected)
    }
}

fn order(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if a.is_finite() && b.is_finite() => {
            (a - b).abs() <= CANCELLED.max(TOLERANCE * a.abs().max(b.abs()))
        }
        (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// What is left of an answer of many rows: sums that a lost, doubled or changed row changes.
#[derive(Debug, PartialEq)]
struct Sums {
    /// Of a hash of each row's exact columns.
    hashes: u64,
    /// For each column of floats: of the floats, each weighted by a factor between 1 and 2 that its row's hash gives, and
    /// how many are NULL, weighted by the hash.
    floats: Vec<(f64, u64)>,
}

impl Sums {
    fn of(answer: &Answer, kinds: &[Kind], nan_is_null: bool) -> anyhow::Result<Sums> {
        let floats = kinds.iter().filter(|kind| matches!(kind, Kind::Float { .. })).count();
        let mut sums = Sums { hashes: 0, floats: vec![(0.0, 0); floats] };
        for batch in &answer.batches {
            let columns = Columns::of(batch, kinds, nan_is_null)?;
            for row in 0..batch.num_rows() {
                let hash = columns.rows.as_ref().map_or(0, |rows| {
                    let mut hasher = DefaultHasher::new();
                    rows.row(row).data().hash(&mut hasher);
                    hasher.finish()
                });
                sums.hashes = sums.hashes.wrapping_add(hash);
                let weight = 1.0 + (hash >> 11) as f64 / (1_u64 << 53) as f64;
                for (floats, sum) in columns.floats.iter().zip(&mut sums.floats) {
                    match floats.at(row) {
                        Some(float) => sum.0 += weight * float,
                        None => sum.1 = sum.1.wrapping_add(hash | 1),
                    }
                }
            }
        }
        Ok(sums)
    }

    fn agree_with(&self, right: &Sums) -> anyhow::Result<()> {
        ensure!(self.hashes == right.hashes, "other rows, by the sum of their hashes");
        for (column, (got, right)) in self.floats.iter().zip(&right.floats).enumerate() {
            ensure!(got.1 == right.1, "other NULLs in the float column {column}");
            let same = close(Some(got.0), Some(right.0));
            ensure!(same, "the weighted sum of the float column {column} is {} instead of {}", got.0, right.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        Date32Array, Decimal128Array, Int32Array, Int64Array, StringArray, StringViewArray,
    };
    use datafusion::arrow::array::{TimestampMicrosecondArray, UInt32Array};

    use super::*;

    fn answer(columns: Vec<(&str, ArrayRef)>) -> Answer {
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
        let batch = batch.unwrap();
        Answer::new(&batch.schema(), vec![batch]).unwrap()
    }

    fn pairs(rows: &[(i64, f64)]) -> Answer {
        answer(vec![
            ("k", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
            ("v", Arc::new(rows.iter().map(|row| row.1).collect::<Float64Array>())),
        ])
    }

    fn agree(got: &Answer, right: &Answer) -> bool {
        got.agrees_with(right, &[], Origin::DataFusion).is_ok()
    }

    #[test]
    fn rows_may_come_in_another_order_and_in_other_batches() {
        let right = pairs(&[(1, 1.0), (2, 2.0), (2, 3.0)]);
        let mut got = pairs(&[(2, 3.0), (1, 1.0), (2, 2.0)]);
        assert!(agree(&got, &right));
        let batch = got.batches.remove(0);
        got.batches = vec![batch.slice(0, 1), batch.slice(1, 0), batch.slice(1, 2)];
        assert!(agree(&got, &right));
    }

    #[test]
    fn a_row_too_many_a_row_twice_and_another_value_differ() {
        let right = pairs(&[(1, 1.0), (2, 2.0)]);
        for got in [&[(1, 1.0)][..], &[(1, 1.0), (1, 1.0)], &[(1, 1.0), (2, 2.1)], &[(1, 1.0), (3, 2.0)]] {
            assert!(!agree(&pairs(got), &right), "{got:?}");
        }
        let error = pairs(&[(1, 1.0), (2, 2.5)]).agrees_with(&right, &[], Origin::DataFusion).unwrap_err();
        assert_eq!(error.to_string(), "row [2 | 2.5] instead of [2 | 2.0]");
    }

    #[test]
    fn floats_agree_within_a_millionth_even_if_that_changes_their_order() {
        let right = pairs(&[(1, 1.0), (1, 1.000_000_1), (1, -5e9)]);
        assert!(agree(&pairs(&[(1, 1.000_000_2), (1, 1.0), (1, -5e9 - 1.0)]), &right));
        assert!(!agree(&pairs(&[(1, 1.000_003), (1, 1.0), (1, -5e9)]), &right));
        assert!(!agree(&pairs(&[(1, f64::INFINITY)]), &pairs(&[(1, 1.0)])));
        assert!(agree(&pairs(&[(1, f64::NAN)]), &pairs(&[(1, f64::NAN)])));
        assert!(agree(&pairs(&[(1, 3e-31)]), &pairs(&[(1, 0.0)])));
        assert!(!agree(&pairs(&[(1, 3e-9)]), &pairs(&[(1, 0.0)])));
    }

    #[test]
    fn only_a_stranger_may_take_nan_for_null() {
        let nan = answer(vec![("v", Arc::new(Float64Array::from(vec![f64::NAN])))]);
        let null = answer(vec![("v", Arc::new(Float64Array::from(vec![None])))]);
        assert!(!agree(&nan, &null));
        assert!(nan.agrees_with(&null, &[], Origin::Stranger).is_ok());
    }

    #[test]
    fn the_columns_that_are_ordered_by_agree_row_by_row() {
        // The second and the third tie in what is ordered by.
        let right = pairs(&[(1, 2.0), (3, 1.0), (2, 1.0)]);
        let tie = pairs(&[(1, 2.0), (2, 1.0), (3, 1.0)]);
        assert!(tie.agrees_with(&right, &[1], Origin::DataFusion).is_ok());
        assert!(tie.agrees_with(&right, &[0], Origin::DataFusion).is_err());
        let other = pairs(&[(3, 1.0), (1, 2.0), (2, 1.0)]);
        assert!(other.agrees_with(&right, &[1], Origin::DataFusion).is_err());
    }

    #[test]
    fn decimals_agree_to_the_last_digit_but_a_stranger_may_give_a_float() {
        let decimals = |value: i128| {
            let array = Decimal128Array::from(vec![value]).with_precision_and_scale(20, 2).unwrap();
            answer(vec![("d", Arc::new(array))])
        };
        assert!(!agree(&decimals(100_000_000_000_001), &decimals(100_000_000_000_000)));
        let float = answer(vec![("x", Arc::new(Float64Array::from(vec![1e12])))]);
        assert!(float.agrees_with(&decimals(100_000_000_000_000), &[], Origin::Stranger).is_ok());
        assert!(float.agrees_with(&decimals(100_000_000_000_000), &[], Origin::DataFusion).is_err());
        assert!(float.agrees_with(&decimals(110_000_000_000_000), &[], Origin::Stranger).is_err());
        // An average that was cut after its last digit.
        let average = answer(vec![("x", Arc::new(Float64Array::from(vec![0.014_99])))]);
        assert!(average.agrees_with(&decimals(1), &[0], Origin::Stranger).is_ok());
        assert!(average.agrees_with(&decimals(3), &[], Origin::Stranger).is_err());
    }

    #[test]
    fn a_stranger_has_its_own_integers_texts_and_dates() {
        let right = answer(vec![
            ("n", Arc::new(Int32Array::from(vec![7]))),
            ("t", Arc::new(StringViewArray::from(vec!["a"]))),
            ("d", Arc::new(Date32Array::from(vec![2]))),
        ]);
        let got = answer(vec![
            ("count", Arc::new(UInt32Array::from(vec![7]))),
            ("text", Arc::new(StringArray::from(vec!["a"]))),
            ("day", Arc::new(TimestampMicrosecondArray::from(vec![2 * 86_400_000_000]))),
        ]);
        assert!(got.agrees_with(&right, &[0, 1, 2], Origin::Stranger).is_ok());
        assert!(got.agrees_with(&right, &[], Origin::DataFusion).is_err());
        let text =
            answer(vec![("n", Arc::new(StringArray::from(vec!["7"]))), ("t", right.batches[0].column(1).clone())]);
        assert!(text.agrees_with(&right, &[], Origin::Stranger).is_err());
    }

    #[test]
    fn an_answer_without_rows_agrees_with_its_like() {
        let none = pairs(&[]);
        assert!(agree(&none, &none));
        assert!(agree(&Answer::new(&none.schema, Vec::new()).unwrap(), &none));
        assert!(!agree(&pairs(&[(1, 1.0)]), &none));
    }

    #[test]
    fn sums_find_a_doubled_row_a_changed_float_and_floats_that_changed_places() {
        let kinds = [Kind::Exact(DataType::Int64), FLOAT];
        let sums = |rows: &[(i64, f64)]| Sums::of(&pairs(rows), &kinds, false).unwrap();
        let right = sums(&[(1, 1.0), (2, 2.0), (3, 3.0)]);
        assert!(sums(&[(3, 3.0), (1, 1.000_000_01), (2, 2.0)]).agree_with(&right).is_ok());
        assert!(sums(&[(1, 1.0), (2, 2.0), (2, 3.0)]).agree_with(&right).is_err());
        assert!(sums(&[(1, 1.0), (2, 3.0), (3, 2.0)]).agree_with(&right).is_err());
        assert!(sums(&[(1, 1.0), (2, 2.01), (3, 3.0)]).agree_with(&right).is_err());
        let null = answer(vec![
            ("k", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("v", Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), None]))),
        ]);
        assert!(Sums::of(&null, &kinds, false).unwrap().agree_with(&right).is_err());
    }

    #[test]
    fn an_answer_comes_back_from_a_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.parquet");
        let right = pairs(&[(1, 1.0), (2, f64::MAX)]);
        right.write(&path).unwrap();
        let read = Answer::read(&path).unwrap();
        assert!(agree(&read, &right));
        assert_eq!(read.rows(), 2);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
