//! Frames become bags and bags frames on an embedded cluster, and nothing is lost on the way.

use std::collections::BTreeMap;

use datafusion::arrow::array::{
    Array, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, DurationSecondArray,
    FixedSizeBinaryArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int64Array,
    IntervalMonthDayNanoArray, LargeStringArray, ListArray, MapBuilder, NullArray, StringArray, StringBuilder,
    StringViewArray, StructArray, Time32SecondArray, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::array::{Int64Builder, MapFieldNames};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Field, Fields, Int8Type, Int32Type, Int64Type, IntervalMonthDayNano};
use datafusion::prelude::SessionContext;

use super::super::row::{RowError, Unit};
use super::*;
use crate::row;

macro_rules! task {
    ($($input:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($input)*) };
}

async fn frames() -> Frames {
    Frames::of(&Cluster::local(2).await.unwrap())
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

/// A column of each type that cells can hold: a value, NULL, and another value.
fn every_type() -> RecordBatch {
    let mut map = MapBuilder::new(
        Some(MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() }),
        StringBuilder::new(),
        Int64Builder::new(),
    );
    map.keys().append_value("a");
    map.values().append_value(1);
    map.append(true).unwrap();
    map.append(false).unwrap();
    map.keys().append_value("b");
    map.values().append_null();
    map.append(true).unwrap();
    let nested = Fields::from(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("tags", DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))), true),
    ]);
    let tags = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None]),
        Some(vec![Some(9)]),
        Some(vec![]),
    ]);
    let nested = StructArray::new(
        nested,
        vec![Arc::new(Int64Array::from(vec![7, 0, 8])), Arc::new(tags)],
        Some(NullBuffer::from(vec![true, false, true])),
    );
    let pairs = [Some(vec![Some(1), Some(2)]), None, Some(vec![None, Some(4)])];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("null", Arc::new(NullArray::new(3))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("int8", Arc::new(Int8Array::from(vec![Some(-128), None, Some(127)]))),
        ("int64", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        ("uint64", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)]))),
        ("float32", Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::INFINITY)]))),
        ("float64", Arc::new(Float64Array::from(vec![Some(-0.5), None, Some(1e300)]))),
        (
            "decimal",
            Arc::new(Decimal128Array::from(vec![Some(-12345), None, Some(5)]).with_precision_and_scale(20, 2).unwrap()),
        ),
        ("text", Arc::new(StringArray::from(vec![Some("a\n\"b\""), None, Some("ü")]))),
        ("large_text", Arc::new(LargeStringArray::from(vec![Some("x"), None, Some("")]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("longer than twelve bytes"), None, Some("s")]))),
        ("dictionary", Arc::new([Some("p"), None, Some("p")].into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\xff\0"[..]), None, Some(b"")]))),
        (
            "fixed_bytes",
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some(*b"ab"), None, Some(*b"cd")].into_iter(), 2)
                    .unwrap(),
            ),
        ),
        ("date", Arc::new(Date32Array::from(vec![Some(-1), None, Some(20_000)]))),
        ("time", Arc::new(Time32SecondArray::from(vec![Some(86_399), None, Some(0)]))),
        (
            "timestamp",
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_001), None, Some(-1)]).with_timezone("UTC"),
            ),
        ),
        ("duration", Arc::new(DurationSecondArray::from(vec![Some(-3), None, Some(3)]))),
        (
            "interval",
            Arc::new(IntervalMonthDayNanoArray::from(vec![
                Some(IntervalMonthDayNano::new(1, -2, 3)),
                None,
                Some(IntervalMonthDayNano::new(0, 0, 0)),
            ])),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int8Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])])),
        ),
        ("pair", Arc::new(FixedSizeListArray::from_iter_primitive::<Int8Type, _, _>(pairs, 2))),
        ("map", Arc::new(map.finish())),
        ("struct", Arc::new(nested)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_as_it_was() {
    let frames = frames().await;
    let batch = every_type();
    let bag = frames.context().read_batch(batch.clone()).unwrap().to_bag().await.unwrap();

    let rows = bag.collect().await.unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].get::<i8>("int8"), Ok(-128));
    assert_eq!(rows[0].get::<u64>("uint64"), Ok(u64::MAX));
    assert_eq!(rows[0].get::<Cell>("decimal"), Ok(Cell::Decimal { digits: -12345, scale: 2 }));
    assert_eq!(rows[2].get::<&str>("dictionary"), Ok("p"));
    assert_eq!(rows[0].get::<&[u8]>("bytes"), Ok(&b"\xff\0"[..]));
    assert_eq!(rows[0].get::<Cell>("time"), Ok(Cell::Time(86_399_000_000_000)));
    let timestamp = Cell::Timestamp { value: 1_700_000_000_000_001, unit: Unit::Micro };
    assert_eq!(rows[0].get::<Cell>("timestamp"), Ok(timestamp));
    assert_eq!(rows[0].get::<Vec<Option<i64>>>("list"), Ok(vec![Some(1), None]));
    assert_eq!(rows[2].get::<Cell>("map"), Ok(Cell::Map(vec![(Cell::from("b"), Cell::Null)])));
    let tags = Cell::from(vec![Some(1_i64), None]);
    let nested = Cell::Struct(vec![("n".to_owned(), Cell::Int(7)), ("tags".to_owned(), tags)]);
    assert_eq!(rows[0].get::<Cell>("struct"), Ok(nested));
    assert!(rows[1].cells().iter().all(Cell::is_null), "{:?}", rows[1]);

    let back = frames.from_bag(bag, batch.schema()).await.unwrap();
    let back = concat_batches(&batch.schema(), &back.collect().await.unwrap()).unwrap();
    for (number, field) in batch.schema().fields().iter().enumerate() {
        assert_eq!(back.column(number).to_data(), canonical(batch.column(number)).to_data(), "{}", field.name());
    }
}

/// The column without what NULLs hide.
fn canonical(column: &ArrayRef) -> ArrayRef {
    let cells = cells::cells(column).unwrap();
    let cells: Vec<Option<&Cell>> = cells.iter().map(Some).collect();
    let own = cells::array(column.data_type(), true, &cells).unwrap();
    assert_eq!(&own, column, "{}", column.data_type());
    own
}

#[test]
fn parts_of_columns_are_their_own_rows() {
    let batch = every_type();
    let doubled = concat_batches(&batch.schema(), [&batch, &batch]).unwrap();
    for (whole, part) in doubled.columns().iter().zip(doubled.slice(2, 3).columns()) {
        let all = cells::cells(whole).unwrap();
        assert_eq!(cells::cells(part).unwrap(), all[2..5], "{}", whole.data_type());
    }
}

#[test]
fn a_row_survives_its_encoding() {
    let mut rows = Vec::new();
    for names in [&["a", "b"][..], &["a", "b"], &["a"], &["a", "c", "d"], &[], &["b", "a"]] {
        rows.push(Row::of_names(names, names.iter().map(|name| Cell::from(*name)).collect()));
        rows.push(Row::new(names.iter().map(|name| (*name, Cell::Null))));
    }
    for row in &rows {
        let bytes = postcard::to_stdvec(row).unwrap();
        assert_eq!(postcard::from_bytes::<Row>(&bytes).unwrap(), *row);
    }
    // Rows of the same names share them when they are read.
    let bytes = postcard::to_stdvec(&(&rows[0], &rows[2])).unwrap();
    let (first, second) = postcard::from_bytes::<(Row, Row)>(&bytes).unwrap();
    assert!(std::ptr::eq(first.columns(), second.columns()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bags_word_count_is_that_of_sql() {
    let frames = frames().await;
    let query =
        "SELECT 'w' || (value % 7) || ' w' || (value % 3) || ' x' AS body, value AS id FROM generate_series(1, 2000)";
    frames.sql(&format!("CREATE TABLE posts AS {query}")).await.unwrap();
    let posts = frames.sql("SELECT body, max(id) AS id FROM posts GROUP BY body, id").await.unwrap();

    let bag = posts.to_bag().await.unwrap();
    let words = bag
        .clone()
        .try_map(task!(|row: Row| -> Result<Vec<String>, RowError> {
            Ok(row.get::<&str>("body")?.split(' ').map(str::to_owned).collect())
        }))
        .flat_map(task!(|words: Vec<String>| -> Vec<String> { words }))
        .foldby(
            task!(|word: &str| -> String { word.to_owned() }),
            0_u64,
            task!(|count: u64, _word: String| -> u64 { count + 1 }),
            task!(|a: u64, b: u64| -> u64 { a + b }),
        );
    let counted: BTreeMap<String, u64> = words.collect().await.unwrap().into_iter().collect();

    let sql =
        "SELECT word, count(*) AS n FROM (SELECT unnest(string_to_array(body, ' ')) AS word FROM posts) GROUP BY word";
    let rows = frames.sql(sql).await.unwrap().to_bag().await.unwrap().collect().await.unwrap();
    let expected: BTreeMap<String, u64> =
        rows.iter().map(|row| (row.get("word").unwrap(), row.get("n").unwrap())).collect();
    assert_eq!(counted.len(), 8);
    assert_eq!(counted, expected);
    assert_eq!(bag.count().await.unwrap(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bag_is_in_the_frames_order() {
    let frames = frames().await;
    let sorted = frames.sql("SELECT value FROM generate_series(1, 20000) ORDER BY value DESC").await.unwrap();
    let values = sorted.column::<i64>("value").await.unwrap().collect().await.unwrap();
    assert!(values.iter().copied().eq((1..=20_000).rev()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bag_of_closures_rows_is_a_table() {
    let frames = frames().await;
    let numbers = Bag::from_sequence(frames.cluster(), (0..20_000_u32).collect(), 3).unwrap();
    let rows = numbers.map(task!(|n: u32| -> Row {
        row!["half" => f64::from(n) / 2.0, "beside" => "unused", "n" => n, "odd" => (n % 2 == 1).then_some(n)]
    }));
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int16, false),
        Field::new("odd", DataType::Decimal128(10, 1), true),
        Field::new("half", DataType::Float32, false),
    ]);
    let table = frames.from_bag(rows, Arc::new(schema)).await.unwrap();
    frames.context().register_table("numbers", table.into_view()).unwrap();

    let query = "SELECT count(*) AS rows, sum(n) AS n, count(odd) AS odd, max(odd) = 19999.0 AS is_max, max(half) AS half FROM numbers";
    let answers = frames.sql(query).await.unwrap().to_bag().await.unwrap().collect().await.unwrap();
    let answer = Row::new([
        ("rows", Cell::Int(20_000)),
        ("n", Cell::Int(199_990_000)),
        ("odd", Cell::Int(10_000)),
        ("is_max", Cell::Bool(true)),
        ("half", Cell::Float(9999.5)),
    ]);
    assert_eq!(answers, [answer]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_something_too() {
    let frames = frames().await;
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let nothing = Bag::<Row>::from_sequence(frames.cluster(), Vec::new(), 1).unwrap();
    let table = frames.from_bag(nothing, Arc::clone(&schema)).await.unwrap();
    assert_eq!(table.clone().count().await.unwrap(), 0);
    let bag = table.to_bag().await.unwrap();
    assert_eq!(bag.count().await.unwrap(), 0);

    let rows = Bag::from_sequence(frames.cluster(), vec![row!["n" => 1], row!["n" => 2]], 2).unwrap();
    let none = rows.filter(task!(|row: &Row| -> bool { row.cells().is_empty() }));
    let table = frames.from_bag(none, schema).await.unwrap();
    assert_eq!(table.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_become_bags_of_their_types() {
    let frames = frames().await;
    let query = "SELECT * FROM (VALUES (1, 1.5, 'a', true), (2, 2.5, NULL, false)) AS t(i, f, s, b)";
    let frame = frames.sql(query).await.unwrap();
    assert_eq!(frame.clone().column::<u64>("i").await.unwrap().collect().await.unwrap(), [1, 2]);
    assert_eq!(frame.clone().column::<f64>("i").await.unwrap().collect().await.unwrap(), [1.0, 2.0]);
    assert_eq!(frame.clone().column::<f64>("f").await.unwrap().collect().await.unwrap(), [1.5, 2.5]);
    assert_eq!(frame.clone().column::<bool>("b").await.unwrap().collect().await.unwrap(), [true, false]);
    let texts = frame.clone().column::<Option<String>>("s").await.unwrap();
    assert_eq!(texts.collect().await.unwrap(), [Some("a".to_owned()), None]);

    let error = frame.clone().column::<String>("s").await.unwrap().collect().await.unwrap_err().reason();
    assert_eq!(
        error,
        "column \"s\" is NULL in row 2 of partition 1: ask for Option<String>, or leave such rows out with WHERE \"s\" \
         IS NOT NULL"
    );
    let negative = frames.sql("SELECT -1 AS i").await.unwrap().column::<u64>("i").await.unwrap();
    let error = negative.collect().await.unwrap_err().reason();
    assert_eq!(error, "column \"i\" is an integer (-1) in row 1 of partition 1, which is no u64");
    let error = frame.clone().column::<i64>("s").await.err().unwrap().to_string();
    assert!(error.ends_with("but i64 was asked for: cast it in the query"), "{error}");
    let error = frame.clone().column::<i64>("I").await.err().unwrap().to_string();
    assert_eq!(error, "the frame has no column \"I\"; it has \"i\", \"f\", \"s\", \"b\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_without_rows_of_their_own_are_refused() {
    let frames = frames().await;
    let twice = frames.sql("SELECT * FROM (SELECT 1 AS id) a CROSS JOIN (SELECT 2 AS id) b").await.unwrap();
    let error = twice.clone().to_bag().await.err().unwrap().to_string();
    assert_eq!(error, "two columns are named \"id\": give one of them another name, as by AS in the query");
    let error = twice.column::<i64>("id").await.err().unwrap().to_string();
    assert!(error.starts_with("two columns are named \"id\""), "{error}");

    let elsewhere = SessionContext::new().sql("SELECT 1 AS id").await.unwrap();
    let error = elsewhere.to_bag().await.err().unwrap().to_string();
    assert!(error.contains("the frame's session has no cluster"), "{error}");
}

/// What is told of a bag of these rows that becomes a frame of one column.
async fn refused(frames: &Frames, rows: Vec<Row>, data_type: DataType) -> String {
    let bag = Bag::from_sequence(frames.cluster(), rows, 1).unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("n", data_type, false)]));
    match frames.from_bag(bag, schema).await {
        Ok(frame) => chain(&frame.collect().await.unwrap_err()),
        Err(error) => chain(&error),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_are_told_with_their_place() {
    let frames = frames().await;
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int8, false)));
    let cases = [
        (row!["n" => 300], DataType::Int8, "column \"n\": an integer (300) does not fit into Int8"),
        (row!["n" => "x"], DataType::Int64, "column \"n\": text (\"x\") does not fit into Int64"),
        (row!["n" => 1.5], DataType::Int64, "column \"n\": a float (1.5) does not fit into Int64"),
        (row!["n" => 1e300], DataType::Float32, "does not fit into Float32"),
        (row!["n" => 1000], DataType::Decimal128(3, 1), "does not fit into Decimal128(3, 1)"),
        (row!["n" => None::<i64>], DataType::Int64, "column \"n\": NULL, which the schema does not allow"),
        (row!["n" => vec![1, 2, 300]], list.clone(), "column \"n\": an item: an integer (300) does not fit into Int8"),
        (row!["n" => vec![None::<i8>]], list, "column \"n\": an item: NULL, which the schema does not allow"),
        (row!["m" => 1], DataType::Int64, "has no column \"n\", which the schema has; it has \"m\""),
    ];
    for (bad, data_type, expected) in cases {
        // Behind the end of the first batch, rows are still counted from the partition's start.
        let good = match &data_type {
            DataType::List(_) => row!["n" => vec![1_i64]],
            DataType::Float32 => row!["n" => 1.0],
            _ => row!["n" => 1_i64],
        };
        let rows = vec![good; 9000].into_iter().chain([bad]).collect();
        let error = refused(&frames, rows, data_type).await;
        assert!(error.contains("row 9001 of partition 1") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_getter_says_what_is_there_instead() {
    let row = row!["name" => "ada", "score" => -3, "none" => None::<i64>, "large" => u64::MAX];
    assert_eq!(row.get::<f64>("score"), Ok(-3.0));
    assert_eq!(row.get::<Option<i64>>("none"), Ok(None));
    let cases = [
        (
            row.get::<i64>("nam").unwrap_err(),
            "the row has no column \"nam\"; it has \"name\", \"score\", \"none\", \"large\"",
        ),
        (
            row.get::<i64>("none").unwrap_err(),
            "column \"none\" is NULL, but i64 was asked for: ask for Option<i64>, or filter the NULLs in the query",
        ),
        (row.get::<u8>("score").unwrap_err(), "column \"score\" is an integer (-3), but u8 was asked for"),
        (
            row.get::<f64>("large").unwrap_err(),
            "column \"large\" is an integer (18446744073709551615), but f64 was asked for",
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(error.to_string(), expected);
    }
}
