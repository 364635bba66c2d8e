//! Files of every format and place become the tables that are in them, or an error that says what to do.

use std::fs;
use std::path::Path;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use starling_actors::Cluster;
use tempfile::TempDir;

use super::*;

struct Folder {
    folder: TempDir,
    frames: Frames,
    /// For writing files.
    context: SessionContext,
}

impl Folder {
    async fn new() -> Folder {
        let cluster = Cluster::local(1).await.unwrap();
        Folder { folder: tempfile::tempdir().unwrap(), frames: Frames::of(&cluster), context: SessionContext::new() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes two rows by DataFusion's own writer.
    async fn copy(&self, name: &str, options: &str) -> String {
        let path = self.path(name);
        let query = format!("COPY (SELECT * FROM (VALUES (1, 'a\nb'), (2, 'ü')) AS t(n, s)) TO '{path}' {options}");
        self.context.sql(&query).await.unwrap().collect().await.unwrap();
        path
    }

    async fn table(&self, source: TableSource) -> Result<Arc<dyn TableProvider>, TableError> {
        self.frames.provider(&source, None).await.map_err(|error| match error {
            FrameError::Table(error) => error,
            other => TableError::Read(DataFusionError::External(Box::new(other))),
        })
    }

    /// What a query says of the table `t` that the source is.
    async fn answer(&self, source: TableSource, query: &str) -> Vec<String> {
        let table = self.table(source).await.unwrap();
        let context = self.frames.context();
        context.deregister_table("t").unwrap();
        context.register_table("t", table).unwrap();
        let batches = context.sql(query).await.unwrap().collect().await.unwrap();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
        rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>().join(",").trim_matches(',').to_owned())
            .collect()
    }

    async fn error(&self, source: TableSource) -> TableError {
        self.table(source).await.expect_err("a table")
    }
}

const ROWS: &str = "SELECT n, replace(s, chr(10), '/') FROM t ORDER BY n";
const EXPECTED: [&str; 2] = ["1,a/b", "2,ü"];

/// An Avro container of one block with the two rows.
fn avro() -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        long(out, text.len() as i64);
        out.extend(text.as_bytes());
    }
    fn long(out: &mut Vec<u8>, value: i64) {
        let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
        while zigzag > 0x7F {
            out.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        out.push(zigzag as u8);
    }
    let sync = [7_u8; 16];
    let mut out = b"Obj\x01".to_vec();
    long(&mut out, 1);
    text(&mut out, "avro.schema");
    text(
        &mut out,
        r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"},{"name":"s","type":"string"}]}"#,
    );
    long(&mut out, 0);
    out.extend(sync);
    let mut block = Vec::new();
    for (n, s) in [(1, "a\nb"), (2, "ü")] {
        long(&mut block, n);
        text(&mut block, s);
    }
    long(&mut out, 2);
    long(&mut out, block.len() as i64);
    out.extend(block);
    out.extend(sync);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_read_by_its_name() {
    let folder = Folder::new().await;
    let mut paths = vec![
        folder.file("x.csv", "n,s\n1,\"a\nb\"\n2,ü\n"),
        folder.file("x.TSV", "n\ts\n1\t\"a\nb\"\n2\tü\n"),
        folder.file("x.ndjson", "{\"n\":1,\"s\":\"a\\nb\"}\n{\"n\":2,\"s\":\"ü\"}\n"),
        folder.file("x.jsonl", "{\"n\":1,\"s\":\"a\\nb\"}\n{\"n\":2,\"s\":\"ü\"}\n"),
        folder.file("array.json", " \n[{\"n\":1,\"s\":\"a\\nb\"},\n {\"n\":2,\"s\":\"ü\"}]\n"),
        folder.file("x.avro", avro()),
    ];
    for name in ["x.parquet", "x.arrow"] {
        paths.push(folder.copy(name, "").await);
    }
    paths.push(folder.file("x.feather", fs::read(&paths[7]).unwrap()));
    for path in paths {
        assert_eq!(folder.answer(TableSource::new(&path), ROWS).await, EXPECTED, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_read_from_compressed_files_and_through_globs_and_directories() {
    let folder = Folder::new().await;
    for (end, compression) in [("gz", "gzip"), ("zst", "zstd"), ("bz2", "bzip2"), ("xz", "xz")] {
        let options =
            format!("STORED AS CSV OPTIONS ('format.compression' '{compression}', 'format.has_header' 'true')");
        let path = folder.copy(&format!("csv/{end}/x.csv.{end}"), &options).await;
        assert_eq!(folder.answer(TableSource::new(&path), ROWS).await, EXPECTED, "{path}");
        let options = format!("STORED AS JSON OPTIONS ('format.compression' '{compression}')");
        let path = folder.copy(&format!("json/{end}/x.json.{end}"), &options).await;
        assert_eq!(folder.answer(TableSource::new(&path), ROWS).await, EXPECTED, "{path}");
        let directory = folder.path(&format!("json/{end}"));
        assert_eq!(folder.answer(TableSource::new(&directory), ROWS).await, EXPECTED, "{directory}");
        let glob = folder.path(&format!("csv/{end}/*.csv.*"));
        assert_eq!(folder.answer(TableSource::new(&glob), ROWS).await, EXPECTED, "{glob}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_are_one_table_with_the_columns_of_all() {
    let folder = Folder::new().await;
    folder.file("d/a1.csv", "n,s\n1,x\n");
    folder.file("d/a2.csv", "n,s\n2,y\n");
    folder.file("d/below/b.csv", "n,s\n3,z\n");
    folder.file("d/_SUCCESS", "");
    folder.file("d/.hidden.csv", "other\n1\n");
    folder.file("d/_temporary/x.csv", "other\n1\n");
    folder.file("d/README", "read me");
    let count = "SELECT count(*), sum(n) FROM t";
    assert_eq!(folder.answer(TableSource::new(folder.path("d")), count).await, ["3,6"]);
    assert_eq!(folder.answer(TableSource::new(folder.path("d/")), count).await, ["3,6"]);
    assert_eq!(folder.answer(TableSource::new(folder.path("d/a?.csv")), count).await, ["2,3"]);
    assert_eq!(folder.answer(TableSource::new(folder.path("*/a*.csv")), count).await, ["2,3"]);
    let two = TableSource::of([folder.path("d/below/b.csv"), folder.path("d/a1.csv")]);
    assert_eq!(folder.answer(two, count).await, ["2,4"]);
    let url = format!("file://{}", folder.path("d/a*.csv"));
    assert_eq!(folder.answer(TableSource::new(url), count).await, ["2,3"]);
    let around = TableSource::new(folder.path("d/../d/below/b.csv"));
    assert_eq!(folder.answer(around, count).await, ["1,3"]);
    let odd = folder.file("odd[1] name*.csv", "n\n7\n");
    assert_eq!(folder.answer(TableSource::new(odd), count).await, ["1,7"], "a file whose name looks like a glob");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_named_key_and_value_give_columns() {
    let folder = Folder::new().await;
    folder.file("h/year=2023/kind=a/x.csv", "n\n1\n");
    folder.file("h/year=2024/kind=b/x.csv", "n\n2\n");
    folder.file("h/year=2024/kind=b/y.csv", "n\n4\n");
    let query = "SELECT year + 1, kind, sum(n) FROM t GROUP BY 1, 2 ORDER BY 1, 2";
    for location in ["h", "h/year=*/kind=*/*.csv"] {
        let rows = folder.answer(TableSource::new(folder.path(location)), query).await;
        assert_eq!(rows, ["2024,a,1", "2025,b,6"], "{location}");
    }
    let some = folder.answer(TableSource::new(folder.path("h/year=*/kind=*/x.csv")), query).await;
    assert_eq!(some, ["2024,a,1", "2025,b,2"]);
    let chosen = folder.error(TableSource::new(folder.path("h/year=2024/kind=?/*.csv"))).await;
    assert!(matches!(&chosen, TableError::PartitionGlob { key, .. } if key == "kind"), "{chosen}");
    folder.file("h/year=2025/x.csv", "n\n1\n");
    let uneven = folder.error(TableSource::new(folder.path("h"))).await;
    assert!(matches!(&uneven, TableError::Partitions { .. }), "{uneven}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_was_said_goes_before_the_name() {
    let folder = Folder::new().await;
    let path = folder.file("rows.txt", "n,s\n1,\"a\nb\"\n2,ü\n");
    let source = TableSource::new(&path).format(TableFormat::Csv);
    assert_eq!(folder.answer(source, ROWS).await, EXPECTED);
    let piped = folder.file("rows", "1|x\n2|y\n");
    let options = TableOptions { has_header: false, delimiter: Some(b'|'), ..TableOptions::default() };
    let source = TableSource::new(&piped).format(TableFormat::Csv).options(options);
    assert_eq!(folder.answer(source, "SELECT sum(column_1), max(column_2) FROM t").await, ["3,y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_table_is_told_with_what_to_do() {
    let folder = Folder::new().await;
    let missing = folder.error(TableSource::new(folder.path("none.csv"))).await;
    assert!(missing.to_string().starts_with("there is no file at "), "{missing}");
    let missing = folder.error(TableSource::new(folder.path("*.csv"))).await;
    assert!(matches!(missing, TableError::NoFiles { .. }), "{missing}");
    fs::create_dir(folder.path("empty")).unwrap();
    let missing = folder.error(TableSource::new(folder.path("empty"))).await;
    assert!(matches!(missing, TableError::NoFiles { .. }), "{missing}");
    let unknown = folder.error(TableSource::new(folder.file("x.xlsx", "x"))).await;
    assert!(unknown.to_string().contains("x.xlsx does not say what it holds: it should end in .csv"), "{unknown}");
    let compressed = folder.error(TableSource::new(folder.file("x.parquet.gz", "x"))).await;
    assert!(matches!(compressed, TableError::Compressed { .. }), "{compressed}");
    folder.file("mixed/a.csv", "n\n1\n");
    folder.file("mixed/b.json", "{\"n\":1}\n");
    let mixed = folder.error(TableSource::new(folder.path("mixed"))).await;
    assert!(mixed.to_string().ends_with("holds csv files and json files: choose one kind with a glob, such as *.csv"));
    let stores = folder.error(TableSource::of([folder.path("mixed/a.csv"), "http://localhost/b.csv".to_owned()])).await;
    assert!(matches!(stores, TableError::Stores { .. }), "{stores}");
    let none = folder.error(TableSource::of(Vec::<String>::new())).await;
    assert!(matches!(none, TableError::NoLocation), "{none}");
    let skipping = TableOptions { on_bad_row: OnBadRow::Skip, ..TableOptions::default() };
    let refused = folder.error(TableSource::new(folder.copy("x.parquet", "").await).options(skipping)).await;
    assert!(matches!(refused, TableError::NoSkipping { format: TableFormat::Parquet }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_whose_columns_do_not_go_together_are_named() {
    let folder = Folder::new().await;
    fs::create_dir(folder.path("p")).unwrap();
    for (name, value) in [("a", "1"), ("b", "2"), ("c", "'three'")] {
        let query = format!("COPY (SELECT {value} AS n) TO '{}'", folder.path(&format!("p/{name}.parquet")));
        folder.context.sql(&query).await.unwrap().collect().await.unwrap();
    }
    let error = folder.error(TableSource::new(folder.path("p"))).await.to_string();
    assert!(
        error.contains("p/c.parquet do not go together with those of ") && error.contains("p/a.parquet: "),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_posts_are_what_they_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/posts.csv");
    if !Path::new(path).exists() {
        eprintln!("skipped: there is no {path}");
        return;
    }
    let folder = Folder::new().await;
    let query = "SELECT \"PostTypeId\", count(*), sum(\"Score\") FROM t GROUP BY 1 ORDER BY 1";
    let rows = folder.answer(TableSource::new(path), query).await;
    assert_eq!(rows, ["1,397,4141", "2,1507,8687", "4,78,0", "5,78,0", "7,1,0"]);
}
