//! What cannot be read says where and why.

use datafusion::arrow::datatypes::{DataType, Field};

use super::super::OnBadRow;
use super::*;

/// Enough rows to be cut, each on two lines.
fn filler(rows: usize) -> String {
    "1,\"a\n\"\"b\"\"\"\n".repeat(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_that_never_closes_is_an_error_with_the_line_where_it_opens() {
    let bench = Bench::new().await;
    // To the end of the file, and up to the next quote, which then opens nothing.
    for (name, tail) in [("end", String::new()), ("next", filler(500))] {
        let path = bench.write(&format!("{name}.csv"), format!("id,body\n{}2,\"open\n3,x\n{tail}", filler(500)));
        let error = bench.read_error(&path, fine(), 4).await;
        assert!(
            error.contains(&format!("{path}, line 1002: the quote that opens this field is never closed")),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_length_are_an_error_with_the_line_or_are_skipped_and_counted() {
    let bench = Bench::new().await;
    for (bad, found) in [("2\n", 1), ("2,x,y\n", 3)] {
        let path = bench.write("a.csv", format!("id,body\n{}{bad}{}", filler(500), filler(500)));
        let error = bench.read_error(&path, fine(), 4).await;
        let expected = format!("{path}, line 1002: the record has {found} fields, but the header has 2");
        assert!(error.contains(&expected), "{error}");
    }
    let bad = "2\n3,\"x\n\",y\n".repeat(3);
    let path = bench.write("b.csv", format!("id,body\n{}{bad}{}{bad}{}", filler(500), filler(300), filler(200)));
    let table = bench.open(&path, CsvReadOptions { on_bad_row: OnBadRow::Skip, ..fine() }).await;
    let context = context(4);
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    assert_eq!(rows(&context, Arc::clone(&plan)).await.unwrap().num_rows(), 1000);
    let metrics = plan.metrics().unwrap();
    assert_eq!(metrics.sum_by_name("bad_rows_skipped").map(|count| count.as_usize()), Some(12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_type_is_an_error_with_line_column_and_value_or_is_skipped() {
    let bench = Bench::new().await;
    let path = bench.write("a.csv", format!("id,body\n{}x\"\"y,last\n{}", filler(2000), filler(10)));
    let error = bench.read_error(&path, fine(), 4).await;
    assert!(error.contains(&format!("{path}, line 4002: \"x\\\"\\\"y\" in column id is no Int64")), "{error}");
    let table = bench.open(&path, CsvReadOptions { on_bad_row: OnBadRow::Skip, ..fine() }).await;
    assert_eq!(bench.read(&table, 4).await.unwrap().num_rows(), 2010);
    // Nobody looks at a value that nobody wants.
    let context = context(4);
    let table = bench.open(&path, fine()).await;
    let plan = table.scan(&context.state(), Some(&vec![1]), &[], None).await.unwrap();
    assert_eq!(rows(&context, plan).await.unwrap().num_rows(), 2011);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_where_the_schema_has_none_is_an_error() {
    let bench = Bench::new().await;
    let path = bench.write("a.csv", "a,b\n1,x\n2,\n");
    let fields = vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8, false)];
    let options = CsvReadOptions { schema: Some(Arc::new(Schema::new(fields))), ..fine() };
    let error = bench.read_error(&path, options, 1).await;
    assert!(error.contains(&format!("{path}, line 3: column b is empty, but may not be NULL")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_differ_are_an_error_that_names_file_and_columns() {
    let bench = Bench::new().await;
    let one = bench.write("one.csv", "a,b,c\n1,2,3\n");
    let other = bench.write("other.csv", "a,c,d\n1,2,3\n");
    let turned = bench.write("turned.csv", "b,a,c\n1,2,3\n");
    let error = bench.open_error(&[&one, &other], fine()).await;
    let expected = format!("{other} has other columns than {one}, it lacks b, it adds d");
    assert!(error.contains(&expected), "{error}");
    let error = bench.open_error(&[&one, &turned], fine()).await;
    assert!(error.contains("they stand in another order"), "{error}");
    let schema = Some(Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)])));
    let error = bench.open_error(&[&one], CsvReadOptions { schema, ..fine() }).await;
    assert!(error.contains(&format!("the schema has 1 columns, but {one} has 3")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_differ_are_an_error_that_names_column_and_files_unless_one_holds_the_other() {
    let bench = Bench::new().await;
    let one = bench.write("one.csv", "a,b,c\n1,2,\n");
    let other = bench.write("other.csv", "a,b,c\n1.5,2,x\n");
    let error_file = bench.write("third.csv", "a,b,c\n1,x,y\n");
    let paths = vec![one.clone(), other];
    let table = CsvTable::open(&bench.cluster, paths, fine()).await.unwrap();
    let types: Vec<DataType> = table.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::Float64, DataType::Int64, DataType::Utf8]);
    assert_eq!(bench.read(&table, 2).await.unwrap().num_rows(), 2);
    let error = bench.open_error(&[&one, &error_file], fine()).await;
    assert!(error.contains(&format!("column b is Utf8 in {error_file}, but Int64 in {one}; give a schema")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf_8_is_an_error_with_the_line() {
    let bench = Bench::new().await;
    let mut bytes = format!("id,body\n{}2,\"caf", filler(2000)).into_bytes();
    bytes.extend(b"\xe9\"\n");
    bytes.extend(filler(10).into_bytes());
    let path = bench.write("late.csv", &bytes);
    let error = bench.read_error(&path, fine(), 4).await;
    assert!(error.contains(&format!("{path}, line 4002: the text is not UTF-8")), "{error}");
    let path = bench.write("early.csv", b"id,body\n1,a\n2,caf\xe9\n");
    let error = bench.open_error(&[&path], fine()).await;
    assert!(error.contains(&format!("{path}, line 3: the text is not UTF-8")), "{error}");
    // Two halves of a letter in two fields are none.
    let path = bench.write("halves.csv", b"id,body,c\n1,a,b\n2,\xc3,\xa9\n");
    let schema = ["id", "body", "c"].map(|name| Field::new(name, DataType::Utf8, true));
    let options = CsvReadOptions { schema: Some(Arc::new(Schema::new(schema.to_vec()))), ..fine() };
    let error = bench.read_error(&path, options, 1).await;
    assert!(error.contains("line 3: the text is not UTF-8"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_or_vanishes_after_planning_is_an_error() {
    let bench = Bench::new().await;
    let path = bench.write("a.csv", format!("id,body\n{}", filler(1000)));
    let table = bench.open(&path, fine()).await;
    let context = context(3);
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    bench.write("a.csv", format!("id,body\n{}", filler(1001)));
    let error = rows(&context, Arc::clone(&plan)).await.unwrap_err();
    assert!(error.contains(&format!("{path} is not the file that was found: it has changed")), "{error}");
    fs::remove_file(&path).unwrap();
    let error = rows(&context, plan).await.unwrap_err();
    assert!(error.contains(&format!("{path} cannot be read")), "{error}");
    let error = bench.open_error(&[&path], fine()).await;
    assert!(error.contains(&format!("no worker has {path}")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_is_an_error() {
    use futures::StreamExt;
    let bench = Bench::new().await;
    let path = bench.write("a.csv", format!("id,body\n{}", filler(1000)));
    let table = bench.open(&path, fine()).await;
    let context = context(1);
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    let mut batches = plan.execute(0, context.task_ctx()).unwrap();
    assert_eq!(batches.next().await.unwrap().unwrap().num_rows(), 100);
    bench.write("a.csv", format!("id,body\n{}", filler(1001)));
    let mut outcome = Ok(());
    while let Some(batch) = batches.next().await {
        outcome = batch.map(|_| ());
    }
    let error = chain(&outcome.unwrap_err());
    assert!(error.contains("it has changed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stray_quotes_make_one_range_and_a_warning_and_give_datafusions_answer() {
    let bench = Bench::new().await;
    for (number, stray) in ["3,a\"b\n", "3,5\"\n4,6\"\n", "3,\"a\\\"b\\\"\"\n"].iter().enumerate() {
        let path = bench.write(&format!("{number}.csv"), format!("id,body\n{}{stray}{}", filler(500), filler(500)));
        let expected = theirs(&path, TheirOptions::new()).await;
        let table = bench.open(&path, fine()).await;
        let context = context(4);
        let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
        assert_eq!(plan.properties().partitioning.partition_count(), 1);
        assert_same(&rows(&context, plan).await.unwrap(), &expected, stray);
        let warnings = table.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(&path), "{warnings:?}");
        assert!(warnings[0].contains("is read in one piece, not in parallel"), "{warnings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_and_a_type_without_texts_are_errors() {
    let bench = Bench::new().await;
    let path = bench.write("a.csv", "");
    let error = bench.open_error(&[&path], fine()).await;
    assert!(error.contains(&format!("{path} is empty")), "{error}");
    let path = bench.write("b.csv", "a\n1\n");
    let schema = Some(Arc::new(Schema::new(vec![Field::new("a", DataType::Binary, true)])));
    let error = bench.read_error(&path, CsvReadOptions { schema, ..fine() }, 1).await;
    assert!(error.contains("there is no CSV text for values of type Binary"), "{error}");
}
