//! What values are.

use std::collections::HashMap;

use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};

use super::*;

/// Small files of all kinds: each is read as DataFusion reads it, types included.
const TEXTS: &[(&str, &str)] = &[
    ("integers", "a,b\n1,-2\n9223372036854775807,-9223372036854775808\n,007\n"),
    ("too large for integers", "a\n9223372036854775808\n1\n"),
    ("floats", "a,b,c\n1.5,1,NaN\n-2e10,2.25,inf\n.5,,-inf\n5.,3e-7,1\n"),
    ("booleans", "a,b\ntrue,TRUE\nFalse,\n,false\n"),
    ("dates", "a,b\n2024-02-29,1969-12-31\n,0001-01-01\n"),
    (
        "timestamps",
        "a,b,c,d,e\n2008-07-31T21:42:52,2008-07-31T21:42:52.667,2008-07-31 21:42:52.123456,2008-07-31T21:42:52.123456789,2020-01-01\n\
         1969-12-31 23:59:59,2008-07-31T21:42:52.6,2008-07-31T21:42:52.667Z,2008-07-31T21:42:52.1+02:00,2020-01-01T00:00:00\n",
    ),
    ("mixed", "a,b,c\n1,true,2024-01-01\nx,1,2024\n"),
    ("quoted numbers are numbers", "a,b\n\"1\",\"2.5\"\n\"-3\",\"\"\n"),
    ("empty fields are NULL, quoted or not", "a,b,c\n,x,\n\"\",\"\",1\n"),
    ("nothing at all", "a,b\n,1\n,2\n"),
    ("a header only", "a,b,c\n"),
    ("newlines, commas, quotes", "a,b\n\"x,\n\"\"y\"\"\r\nz\",1\n\"\"\"\",2\n"),
    ("carriage returns", "a,b\r\n1,x\r\n2,\"y\r\n\"\r\n"),
    ("carriage returns alone", "a,b\r1,x\r2,y\r"),
    ("no last newline", "a,b\n1,x\n2,y"),
    ("no last newline, an empty field", "a,b\n1,x\n2,"),
    ("empty lines", "\n\na,b\n\n1,x\n\r\n\n2,y\n\n"),
    ("a byte order mark", "\u{feff}a,b\n1,x\n"),
    ("a byte order mark before a quote", "\u{feff}\"a\",\"b\"\n\"1\",\"x\"\n"),
    ("one column", "a\n1\n\n2\n\"\"\n3\n"),
    ("one column of texts", "a\nx\n\"\"\n\"y\ny\"\n"),
    ("spaces are text", "a,b\n 1,x \n2, y\n"),
    ("texts beyond ASCII", "ä,b\né,\"日本\n語\"\n"),
    ("a duplicate null byte", "a,b\nx\0y,1\n"),
    ("a stray quote", "a,b\nx\"y,1\nz,2\n"),
    ("text after a quote", "a,b\n\"x\"y,1\n\"z\"\"\"\"z\"q\"\",2\n"),
    ("backslashes", "a,b\n\"say \\\"hi\\\" now\",1\nC:\\,2\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn inferred_types_and_values_are_datafusions() {
    let bench = Bench::new().await;
    for (number, (what, text)) in TEXTS.iter().enumerate() {
        let path = bench.write(&format!("{number}.csv"), text);
        let expected = theirs(&path, TheirOptions::new()).await;
        let table = bench.open(&path, fine()).await;
        for partitions in [1, 3] {
            assert_same(&bench.read(&table, partitions).await.unwrap(), &expected, what);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dialects_are_datafusions() {
    let bench = Bench::new().await;
    let path = bench.write("a.csv", "# one\na;b\n'x;\n''y''';1\n# two, with a ' quote\n'z\\'';2\n;3\n");
    let expected = theirs(&path, TheirOptions::new().delimiter(b';').quote(b'\'').escape(b'\\').comment(b'#')).await;
    let options = CsvReadOptions { delimiter: b';', quote: b'\'', escape: Some(b'\\'), comment: Some(b'#'), ..fine() };
    let table = bench.open(&path, options).await;
    assert_same(&bench.read(&table, 4).await.unwrap(), &expected, "all at once");
    assert_eq!(table.warnings(), Vec::<String>::new(), "this was asked for");

    let path = bench.write("b.csv", "1,x\n2,\"y\n\"\n");
    let expected = theirs(&path, TheirOptions::new().has_header(false)).await;
    let table = bench.open(&path, CsvReadOptions { has_header: false, ..fine() }).await;
    assert_same(&bench.read(&table, 4).await.unwrap(), &expected, "no header");

    let path = bench.write("c.csv", "a,b\n1\n2,x\n");
    let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    let expected = theirs(&path, TheirOptions::new().truncated_rows(true).schema(&schema)).await;
    let table = bench.open(&path, CsvReadOptions { truncated_rows: true, ..fine() }).await;
    assert_same(&bench.read(&table, 4).await.unwrap(), &expected, "truncated rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_types_are_parsed_as_datafusion_parses_them() {
    let bench = Bench::new().await;
    let utc = Some(Arc::from("+02:00"));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let columns: Vec<(DataType, [&str; 3])> = vec![
        (DataType::Int8, ["-128", "", "+7"]),
        (DataType::Int16, ["1", "2", "3"]),
        (DataType::Int32, ["-2147483648", "0", "12"]),
        (DataType::UInt8, ["255", "0", ""]),
        (DataType::UInt16, ["1", "2", "3"]),
        (DataType::UInt32, ["1", "2", "3"]),
        (DataType::UInt64, ["18446744073709551615", "2", "3"]),
        (DataType::Float32, ["1.5", "-0", "1e3"]),
        (DataType::Float64, ["1.5", "-0", "1e300"]),
        (DataType::Boolean, ["TRUE", "false", ""]),
        (DataType::Date32, ["2024-02-29", "1999-1-2", ""]),
        (DataType::Date64, ["2024-02-29", "2024-02-29T12:00:00", ""]),
        (DataType::Time32(TimeUnit::Second), ["12:34:56", "01:02:03 PM", ""]),
        (DataType::Time64(TimeUnit::Nanosecond), ["12:34:56.789", "00:00:00", ""]),
        (DataType::Timestamp(TimeUnit::Second, None), ["2024-02-29T12:00:00", "2024-02-29 12:00:00Z", ""]),
        (DataType::Timestamp(TimeUnit::Millisecond, utc), ["2024-02-29T12:00:00", "2024-02-29 12:00:00.5Z", ""]),
        (DataType::Timestamp(TimeUnit::Nanosecond, None), ["2024-02-29", "2024-02-29 12:00:00.123456789", ""]),
        (DataType::Decimal128(10, 2), ["12345678.91", "-0.5", "7"]),
        (DataType::Decimal256(40, 3), ["1.2345", "-1e2", ""]),
        (DataType::Utf8View, ["a text that is longer than twelve bytes", "short", ""]),
        (dictionary, ["x", "y", "x"]),
        (DataType::Null, ["", "", ""]),
    ];
    let fields: Vec<Field> =
        columns.iter().enumerate().map(|(n, (kind, _))| Field::new(format!("c{n}"), kind.clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut text = names.join(",") + "\n";
    for row in 0..3 {
        text += &(columns.iter().map(|(_, values)| values[row]).collect::<Vec<_>>().join(",") + "\n");
    }
    let path = bench.write("a.csv", text);
    let expected = theirs(&path, TheirOptions::new().schema(&schema)).await;
    let table = bench.open(&path, CsvReadOptions { schema: Some(schema), ..fine() }).await;
    assert_same(&bench.read(&table, 2).await.unwrap(), &expected, "given types");
}

#[tokio::test(flavor = "multi_thread")]
async fn null_values_are_null_beside_the_empty_one_in_every_column() {
    let bench = Bench::new().await;
    let path = bench.write("a.csv", "a,b,c\n1,NA,x\nNA,\"N\"\"A\",\n-,2,\"NA\"\n");
    let null_values = vec!["NA".to_owned(), "-".to_owned(), "N\"A".to_owned()];
    let table = bench.open(&path, CsvReadOptions { null_values, ..fine() }).await;
    let read = bench.read(&table, 2).await.unwrap();
    let plain = bench.write("b.csv", "a,b,c\n1,,x\n,,\n,2,\n");
    assert_same(&read, &theirs(&plain, TheirOptions::new()).await, "nulls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_in_which_nothing_was_seen_is_text_unless_all_was_looked_at() {
    let bench = Bench::new().await;
    let text = format!("a,b\n{}5,late\n", "1,\n".repeat(20));
    let path = bench.write("a.csv", text);
    let types = async |records| {
        let table = bench.open(&path, CsvReadOptions { schema_infer_max_rec: records, ..fine() }).await;
        let read = bench.read(&table, 2).await.unwrap();
        assert_eq!(read.num_rows(), 21);
        assert_eq!(read.column(1).null_count(), 20, "nothing is lost");
        table.schema().fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>()
    };
    assert_eq!(types(10).await, [DataType::Int64, DataType::Utf8]);
    assert_eq!(types(100).await, [DataType::Int64, DataType::Utf8]);
    assert_eq!(types(0).await, [DataType::Utf8, DataType::Utf8]);
    let empty = bench.write("b.csv", "a,b\n1,\n2,\n");
    let table = bench.open(&empty, fine()).await;
    assert_eq!(table.schema().field(1).data_type(), &DataType::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_a_given_schema_is_kept() {
    let bench = Bench::new().await;
    let path = bench.write("a.csv", "a\n1\n");
    let metadata = HashMap::from([("unit".to_owned(), "m".to_owned())]);
    let schema = Schema::new(vec![Field::new("x", DataType::Int8, true)]).with_metadata(metadata);
    let table = bench.open(&path, CsvReadOptions { schema: Some(Arc::new(schema.clone())), ..fine() }).await;
    assert_eq!(table.schema().as_ref(), &schema);
    assert_eq!(bench.read(&table, 1).await.unwrap().schema().as_ref(), &schema);
}
