//! How scans are planned, sent and sliced.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::stats::Precision;

use datafusion::physical_plan::StatisticsArgs;
use datafusion::physical_plan::statistics::StatisticsContext;

use super::super::CsvTableFactory;
use super::super::part::{Part, deal};
use super::*;
use crate::stackexchange::{GenerateOptions, generate};

fn posts(bench: &Bench) -> String {
    let mut bytes = Vec::new();
    generate(&GenerateOptions { size: 1_000_000, ..GenerateOptions::default() }, &mut bytes).unwrap();
    bench.write("posts.csv", bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_wanted_columns_are_built_in_the_order_they_are_wanted_in() {
    let bench = Bench::new().await;
    let path = posts(&bench);
    let expected = theirs_of_any(&path).await;
    let table = bench.open(&path, CsvReadOptions { schema_infer_max_rec: 1_000_000, ..fine() }).await;
    let context = context(3);
    for columns in [vec![5, 1], vec![13], vec![0, 7, 4], vec![]] {
        let plan = table.scan(&context.state(), Some(&columns), &[], None).await.unwrap();
        let read = rows(&context, plan).await;
        let read = read.unwrap();
        assert_eq!(read.num_rows(), expected.num_rows(), "{columns:?}");
        assert_same(&read, &expected.project(&columns).unwrap(), &format!("{columns:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_gives_datafusions_answers() {
    let bench = Bench::new().await;
    let path = posts(&bench);
    let ours = context(4);
    let table = bench.open(&path, fine()).await;
    ours.register_table("posts", table).unwrap();
    let theirs = context(1);
    let schema = schema_of(&path);
    theirs.register_csv("posts", &path, TheirOptions::new().newlines_in_values(true).schema(&schema)).await.unwrap();
    for query in [
        r#"select count(*) from posts"#,
        r#"select "PostTypeId", count(*), avg("Score") from posts group by 1 order by 1"#,
        r#"select count(*), sum(length("Body")) from posts where "Title" like '%a%'"#,
        r#"select "Id", "Body" from posts where "Score" > 5 order by "Id" limit 7 offset 2"#,
        r#"select count(*) from posts a join posts q on a."ParentId" = q."Id" where q."Score" > 0"#,
    ] {
        let format = async |context: &SessionContext| {
            let batches = context.sql(query).await.unwrap().collect().await.unwrap();
            datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
        };
        assert_eq!(format(&ours).await, format(&theirs).await, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_that_travelled_give_the_whole() {
    let bench = Bench::new().await;
    posts(&bench);
    bench.write("y=1/a.csv", "a,b\n1,x\n");
    let path = posts(&bench);
    let table = bench.open(&path, fine()).await;
    let context = context(5);
    let projection = vec![3, 0, 7];
    let plan = table.scan(&context.state(), Some(&projection), &[], None).await.unwrap();
    let scan = scan_of(&plan);
    let mut batches = Vec::new();
    for partition in 0..5 {
        let slice = scan.slice(partition).unwrap();
        assert_eq!(slice.paths(0), std::slice::from_ref(&path));
        assert_eq!(slice.nbytes(0), scan.nbytes(partition));
        let bytes = slice.encode().unwrap();
        assert!(bytes.len() < 2_000, "{} bytes", bytes.len());
        let decoded = CsvScanExec::decode(&bytes, &context.task_ctx()).unwrap();
        assert_eq!(decoded.properties().partitioning.partition_count(), 1);
        assert_eq!(decoded.schema(), plan.schema());
        batches.push(rows(&context, decoded).await.unwrap());
    }
    let whole = CsvScanExec::decode(&scan.encode().unwrap(), &context.task_ctx()).unwrap();
    let expected = rows(&context, Arc::clone(&plan)).await.unwrap();
    assert_same(&joined(&plan.schema(), &batches), &expected, "slices");
    assert_same(&rows(&context, whole).await.unwrap(), &expected, "the whole");
    assert!(scan.slice(5).is_err());
    assert!(CsvScanExec::decode(b"no plan", &context.task_ctx()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_know_of_their_files_only() {
    let bench = Bench::new().await;
    for number in 0..9 {
        let text = format!("a,b\n{}", format!("{number},x\n").repeat(10));
        bench.write(&format!("d/{number}.csv"), text);
    }
    let table = bench.open(&bench.path("d"), fine()).await;
    let context = context(3);
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    let scan = scan_of(&plan);
    for partition in 0..3 {
        let slice = scan.slice(partition).unwrap();
        let files: Vec<String> =
            (0..3).map(|number| bench.path(&format!("d/{}.csv", partition * 3 + number))).collect();
        assert_eq!(scan.paths(partition), files);
        assert_eq!(slice.paths(0), files);
        let read = rows(&context, slice).await.unwrap();
        let numbers = read.column(0).as_primitive::<Int64Type>();
        assert_eq!(numbers.value(0), partition as i64 * 3);
        assert_eq!(numbers.len(), 30);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_for_few_rows_reads_the_beginning_only() {
    let bench = Bench::new().await;
    let path = posts(&bench);
    let table = bench.open(&path, fine()).await;
    let context = context(4);
    let plan = table.scan(&context.state(), None, &[], Some(5)).await.unwrap();
    assert_eq!(plan.properties().partitioning.partition_count(), 1);
    assert_eq!(plan.fetch(), Some(5));
    assert_eq!(rows(&context, Arc::clone(&plan)).await.unwrap().num_rows(), 5);
    let read = plan.metrics().unwrap().sum_by_name("bytes_scanned").map(|count| count.as_usize());
    assert!(read.is_some_and(|nbytes| nbytes <= 256 * 1024), "{read:?}");
    assert_eq!(plan.metrics().unwrap().output_rows(), Some(5));
    let more = plan.with_fetch(Some(500)).unwrap();
    assert_eq!(rows(&context, more).await.unwrap().num_rows(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_make_few_partitions_and_sizes_are_known() {
    let bench = Bench::new().await;
    let path = posts(&bench);
    let table = bench.open(&path, CsvReadOptions { partition_bytes_min: 400_000, ..CsvReadOptions::default() }).await;
    let context = context(16);
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    let partitions = plan.properties().partitioning.partition_count();
    assert_eq!(partitions as u64, table.nbytes() / 400_000);
    let size = table.nbytes() as usize;
    let context = StatisticsContext::default();
    let statistics = context.compute(plan.as_ref(), &StatisticsArgs::new()).unwrap();
    assert_eq!(statistics.total_byte_size, Precision::Inexact(size));
    assert_eq!(table.statistics().unwrap().total_byte_size, Precision::Inexact(size));
    assert_eq!(table.schema().field(0).data_type(), &DataType::Int64);
}

#[test]
fn pieces_are_dealt_out_in_order_and_evenly() {
    let sizes = [5_u64, 1, 1, 1, 20, 3, 9, 9, 9, 2];
    let mut at = 0;
    let mut pieces: Vec<Part> = sizes
        .iter()
        .map(|size| {
            at += size;
            Part { file: 0, start: at - size, end: at }
        })
        .collect();
    pieces.push(Part { file: 1, start: 0, end: 10 });
    for count in 1..12 {
        let parts = deal(pieces.iter().copied(), count);
        assert!(parts.len() <= count);
        assert!(parts.iter().all(|parts| !parts.is_empty()));
        let mut end = (0, 0);
        for part in parts.iter().flatten() {
            assert!(part.file == end.0 && part.start == end.1 || part.file == end.0 + 1 && part.start == 0);
            end = (part.file, part.end);
        }
        assert_eq!(end, (1, 10));
        let largest = parts.iter().map(|parts| parts.iter().map(Part::nbytes).sum::<u64>()).max();
        assert!(largest.unwrap() <= 70 / count as u64 + 20, "{count}: {parts:?}");
    }
    assert_eq!(deal([], 3), vec![Vec::new()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_makes_tables() {
    let bench = Bench::new().await;
    bench.write("d/y=1/a.csv", "id;body\n1;'x;\n'\n2\n3;-\n");
    bench.write("d/y=2/a.csv", "id;body\n4;y\n");
    let folder = bench.path("d/");
    let factory = CsvTableFactory::new(&bench.cluster);
    let mut state = context(2).state();
    state.table_factories_mut().insert("CSV".to_owned(), Arc::new(factory));
    let context = SessionContext::new_with_state(state);
    let run = async |query: &str| {
        let frame = context.sql(query).await.map_err(|error| chain(&error))?;
        let batches = frame.collect().await.map_err(|error| chain(&error))?;
        Ok::<_, String>(datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string())
    };
    let create = |name: &str, columns: &str, options: &str| {
        format!(
            "create external table {name} {columns} stored as csv partitioned by (y) location '{folder}' \
             options ('format.delimiter' ';', 'format.quote' '''', {options} 'format.has_header' 'true')"
        )
    };
    run(&create("inferred", "", "'on_bad_row' 'skip', 'null_values' '-,NA',")).await.unwrap();
    let rows =
        run("select id, coalesce(body, 'none') as body, y from inferred where id > 1 order by id").await.unwrap();
    let cells: Vec<String> =
        rows.lines().map(|line| line.replace(' ', "")).filter(|line| line.starts_with('|')).collect();
    assert_eq!(cells, ["|id|body|y|", "|3|none|1|", "|4|y|2|"]);

    run(&create("declared", "(n double, text varchar, y int)", "'format.truncated_rows' 'true',")).await.unwrap();
    let rows = run("select sum(n), sum(y), count(text) from declared").await.unwrap();
    assert!(rows.replace(' ', "").contains("|10.0|5|3|"), "{rows}");
    for (options, expected) in [
        ("'on_bad_row' 'ignore',", "on_bad_row is ignore; it may be fail or skip"),
        ("'format.null_regex' 'x',", "null_regex is not supported"),
        ("'format.no_such' 'x',", "no_such"),
    ] {
        let error = run(&create("wrong", "", options)).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
