//! Which files make a table, and how they are packed.

use datafusion::arrow::array::{AsArray, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::{StreamExt, TryStreamExt};

use super::*;

async fn compressed(kind: FileCompressionType, text: &str) -> Vec<u8> {
    let bytes = bytes::Bytes::from(text.to_owned());
    let plain = futures::stream::once(async move { Ok(bytes) }).boxed();
    let pieces: Vec<bytes::Bytes> = kind.convert_to_compress_stream(plain).unwrap().try_collect().await.unwrap();
    pieces.concat()
}

async fn total(bench: &Bench, table: &Arc<CsvTable>, query: &str) -> Vec<String> {
    let context = context(3);
    let table = Arc::clone(table) as Arc<dyn TableProvider>;
    context.register_table("t", table).unwrap();
    let batches = context.sql(query).await.unwrap().collect().await.unwrap();
    let _ = bench;
    let text = datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    text.lines().skip(3).filter(|line| !line.starts_with('+')).map(|line| line.replace(' ', "")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_files_are_read_by_their_names_or_by_option() {
    let bench = Bench::new().await;
    let text = format!("a,b\n{}", "1,\"x\n\"\"y\"\" z\"\n".repeat(5000));
    let plain = bench.write("plain.csv", &text);
    let expected = theirs_of_any(&plain).await;
    let kinds = [
        (FileCompressionType::GZIP, "gz"),
        (FileCompressionType::BZIP2, "bz2"),
        (FileCompressionType::XZ, "xz"),
        (FileCompressionType::ZSTD, "zst"),
    ];
    for (kind, extension) in kinds {
        let bytes = compressed(kind, &text).await;
        let path = bench.write(&format!("a.csv.{extension}"), &bytes);
        let table = bench.open(&path, fine()).await;
        assert_same(&bench.read(&table, 4).await.unwrap(), &expected, extension);
        let path = bench.write(&format!("{extension}.data"), &bytes);
        let table = bench.open(&path, CsvReadOptions { compression: Some(kind), ..fine() }).await;
        assert_same(&bench.read(&table, 4).await.unwrap(), &expected, extension);
        // Lines are counted on the way.
        let bytes = compressed(kind, &format!("{text}2,x,y\n")).await;
        let path = bench.write(&format!("bad.csv.{extension}"), &bytes);
        let error = bench.read_error(&path, fine(), 4).await;
        assert!(error.contains(&format!("{path}, line 10002: the record has 3 fields")), "{error}");
        // Half a file is an error, not half an answer.
        let path = bench.write(&format!("half.csv.{extension}"), &bytes[..bytes.len() / 2]);
        let opened = CsvTable::open(&bench.cluster, vec![path], fine()).await;
        let read = match opened {
            Ok(table) => bench.read(&table, 4).await,
            Err(error) => Err(chain(&error)),
        };
        assert!(read.is_err(), "{extension}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_patterns_and_lists_are_one_table_in_order() {
    let bench = Bench::new().await;
    bench.write("d/2.csv", "a,b\n2,x\n");
    bench.write("d/1.csv", "a,b\n1,x\n");
    bench.write("d/deep/3.csv", "a,b\n3,x\n");
    bench.write("d/4.txt", "other\n");
    bench.write("d/_5.csv", "other\n");
    bench.write("d/.6.csv", "other\n");
    let gz = compressed(FileCompressionType::GZIP, "a,b\n7,x\n").await;
    bench.write("d/7.csv.gz", gz);
    let numbers = async |path: &str| {
        let table = bench.open(&bench.path(path), fine()).await;
        let read = bench.read(&table, 2).await.unwrap();
        let numbers: &Int64Array = read.column(0).as_primitive();
        numbers.values().to_vec()
    };
    assert_eq!(numbers("d").await, [1, 2, 7, 3]);
    assert_eq!(numbers("d/").await, [1, 2, 7, 3]);
    assert_eq!(numbers("d/[12].csv").await, [1, 2]);
    assert_eq!(numbers("d/**/3.csv").await, [3]);
    let paths = vec![bench.path("d/2.csv"), bench.path("d/1.csv")];
    let table = CsvTable::open(&bench.cluster, paths.clone(), fine()).await.unwrap();
    assert_eq!(table.paths(), paths);
    let error = bench.open_error(&[&bench.path("d/*.json")], fine()).await;
    assert!(error.contains("no worker has"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_names_are_columns() {
    let bench = Bench::new().await;
    bench.write("h/year=2023/kind=a/x.csv", "v\n1\n2\n");
    bench.write("h/year=2024/kind=b/x.csv", "v\n4\n");
    bench.write("h/year=2024/kind=__HIVE_DEFAULT_PARTITION__/y.csv", "v\n8\n");
    let table = bench.open(&bench.path("h"), fine()).await;
    let names: Vec<String> = table.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["v", "year", "kind"]);
    let text = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
    assert_eq!(table.schema().field(1).data_type(), &text);
    let query = "select year, sum(v) from t group by year order by year";
    assert_eq!(total(&bench, &table, query).await, ["|2023|3|", "|2024|12|"]);
    let query = "select kind, count(*) from t group by kind order by kind nulls last";
    assert_eq!(total(&bench, &table, query).await, ["|a|2|", "|b|1|", "||1|"]);
    assert_eq!(total(&bench, &table, "select count(*) from t where year = '2024'").await, ["|2|"]);

    let partition_columns = Some(vec![("year".to_owned(), DataType::Int32)]);
    let table = bench.open(&bench.path("h/*/*/*.csv"), CsvReadOptions { partition_columns, ..fine() }).await;
    assert_eq!(total(&bench, &table, "select max(year) + 1, sum(v) from t").await, ["|2025|15|"]);
    let partition_columns = Some(vec![("kind".to_owned(), DataType::Int32)]);
    let error = bench.open_error(&[&bench.path("h")], CsvReadOptions { partition_columns, ..fine() }).await;
    assert!(
        error.contains("\"a\", which the path of") && error.contains("says of column kind, is no Int32"),
        "{error}"
    );
    bench.write("h/z.csv", "v\n1\n");
    let error = bench.open_error(&[&bench.path("h")], fine()).await;
    assert!(error.contains("h/z.csv does not lie in directories that tell its year, kind"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_with_other_columns_are_put_together_by_name() {
    let bench = Bench::new().await;
    let one = bench.write("1.csv", "a,b\n1,x\n");
    let two = bench.write("2.csv", "c,a\n2.5,2\n");
    let options = CsvReadOptions { union_by_name: true, ..fine() };
    let table = CsvTable::open(&bench.cluster, vec![one, two], options).await.unwrap();
    let read = bench.read(&table, 2).await.unwrap();
    let same = bench.write("3.csv", "a,b,c\n1,x,\n2,,2.5\n");
    assert_same(&read, &theirs(&same, TheirOptions::new()).await, "union");
    assert_eq!(total(&bench, &table, "select sum(c), count(b), sum(a) from t").await, ["|2.5|1|3|"]);
}
