//! Tables in every kind of store, read by a plain session with the registry.

use std::fs;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::path::Path;
use object_store::{Error, GetResultPayload, ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use super::super::local::LocalStore;
use super::super::registry::{Stores, runtime_env};
use super::server::{KEY, Server};

/// So many rows are in every table.
const ROWS: i64 = 20_000;

/// A session with the registry, in an environment of its own.
pub(super) fn session(environment: &[(&str, &str)]) -> SessionContext {
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let stores = Stores::new(Arc::new(LocalStore::new()), environment);
    let runtime = runtime_env(Arc::new(stores)).build_arc().unwrap();
    // Small files are cut in ranges, too.
    let mut config = SessionConfig::new().with_target_partitions(3);
    config.options_mut().optimizer.repartition_file_min_size = 1;
    SessionContext::new_with_config_rt(config, runtime)
}

fn s3_environment(server: &Server) -> Vec<(&str, &str)> {
    vec![
        ("AWS_ENDPOINT_URL", &server.url),
        ("AWS_REGION", "here"),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ALLOW_HTTP", "true"),
    ]
}

/// Files of the same table in three formats, made by DataFusion.
async fn tables() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let context = SessionContext::new();
    for format in ["parquet", "csv", "json"] {
        let path = folder.path().join(format!("t.{format}"));
        let query = format!(
            "COPY (SELECT value AS n, 'text ' || value AS s FROM generate_series(1, {ROWS})) TO '{}'",
            path.display()
        );
        context.sql(&query).await.unwrap().collect().await.unwrap();
    }
    folder
}

/// Reads a table and checks that nothing of it is missing or doubled.
async fn check_table(context: &SessionContext, url: &str) {
    let format = url.rsplit('.').next().unwrap().trim_end_matches('/');
    let (name, options) =
        (format!("t_{format}"), if format == "csv" { "OPTIONS ('format.has_header' 'true')" } else { "" });
    let create = format!("CREATE EXTERNAL TABLE {name} STORED AS {format} LOCATION '{url}' {options}");
    context.sql(&create).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let query = format!("SELECT count(*), sum(n), count(DISTINCT s) FROM {name}");
    assert_eq!(numbers(context, &query).await, [ROWS, ROWS * (ROWS + 1) / 2, ROWS], "{url}");
    context.deregister_table(name).unwrap();
}

/// The one row of integers that a query gives.
pub(super) async fn numbers(context: &SessionContext, query: &str) -> Vec<i64> {
    let batches = context.sql(query).await.unwrap().collect().await.unwrap();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    batch.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect()
}

#[tokio::test]
async fn local_tables_are_read_whole() {
    let folder = tables().await;
    let context = session(&[]);
    for format in ["parquet", "csv", "json"] {
        check_table(&context, folder.path().join(format!("t.{format}")).to_str().unwrap()).await;
    }
}

#[tokio::test]
async fn tables_are_read_over_http() {
    let folder = tables().await;
    let server = Server::http();
    let context = session(&[]);
    for format in ["parquet", "csv", "json"] {
        server.put(&format!("/some where/t.{format}"), fs::read(folder.path().join(format!("t.{format}"))).unwrap());
        check_table(&context, &format!("{}/some%20where/t.{format}", server.url)).await;
    }
    // In ranges, by name, and no more than that.
    assert!(server.log().iter().any(|line| line.starts_with("GET /some where/t.csv bytes=")), "{:?}", server.log());
    assert!(server.log().iter().all(|line| !line.starts_with("GET /some where/t.parquet") || line.contains("bytes=")));
}

#[tokio::test]
async fn an_http_server_that_lists_nothing_is_explained() {
    let server = Server::http();
    let error =
        session(&[]).read_parquet(format!("{}/none.parquet", server.url), Default::default()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("name each file by its whole URL") && text.contains(&server.url), "{text}");
}

#[tokio::test]
async fn tables_are_read_from_s3_and_written_there() {
    let folder = tables().await;
    let server = Server::s3();
    let context = session(&s3_environment(&server));
    for format in ["parquet", "csv", "json"] {
        server.put(&format!("/bucket/t.{format}"), fs::read(folder.path().join(format!("t.{format}"))).unwrap());
        check_table(&context, &format!("s3://bucket/t.{format}")).await;
    }
    // A directory, in pages.
    for part in 0..5 {
        server.put(&format!("/bucket/parts/{part}.csv"), format!("n\n{part}\n"));
    }
    let create =
        "CREATE EXTERNAL TABLE parts STORED AS csv LOCATION 's3://bucket/parts/' OPTIONS ('format.has_header' 'true')";
    context.sql(create).await.unwrap();
    assert_eq!(numbers(&context, "SELECT count(*), sum(n) FROM parts").await, [5, 10]);
    // What is new is seen by the next query.
    server.put("/bucket/parts/5.csv", "n\n90\n");
    assert_eq!(numbers(&context, "SELECT count(*), sum(n) FROM parts").await, [6, 100]);

    let copy = "COPY (SELECT n, n + 1 AS m FROM parts) TO 's3://bucket/out/t.parquet'";
    context.sql(copy).await.unwrap().collect().await.unwrap();
    assert!(server.paths().contains(&"/bucket/out/t.parquet".to_owned()), "{:?}", server.paths());
    context.sql("CREATE EXTERNAL TABLE out STORED AS parquet LOCATION 's3://bucket/out/t.parquet'").await.unwrap();
    assert_eq!(numbers(&context, "SELECT sum(m) FROM out").await, [106]);
}

#[tokio::test]
async fn s3_that_is_not_set_up_says_what_to_set() {
    let server = Server::s3();
    server.put("/bucket/t.csv", "n\n1\n");
    let error = async |environment: &[(&str, &str)]| {
        let frame = session(environment).read_csv("s3://bucket/t.csv", Default::default()).await;
        frame.unwrap_err().to_string()
    };
    let all = s3_environment(&server);
    let without = |name: &str| all.iter().copied().filter(|(other, _)| *other != name).collect::<Vec<_>>();
    let text = error(&without("AWS_ALLOW_HTTP")).await;
    assert!(text.contains("set AWS_ALLOW_HTTP=true"), "{text}");
    let text = error(&without("AWS_SECRET_ACCESS_KEY")).await;
    assert!(text.contains("AWS_SECRET_ACCESS_KEY is not"), "{text}");
    let mut wrong = without("AWS_ACCESS_KEY_ID");
    wrong.push(("AWS_ACCESS_KEY_ID", "somebody"));
    let text = error(&wrong).await;
    assert!(text.contains(&server.url) && text.contains("AWS_ACCESS_KEY_ID is set"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let mut wrong = without("AWS_ENDPOINT_URL");
    wrong.push(("AWS_ENDPOINT_URL", "somewhere"));
    let text = error(&wrong).await;
    assert!(text.contains("is no URL"), "{text}");
}

#[tokio::test]
async fn urls_of_other_kinds_and_incomplete_ones_are_refused() {
    let context = session(&[]);
    for (url, expected) in [
        ("gs://bucket/t.csv", "only paths and the URLs file://"),
        ("ftp://host/t.csv", "only paths and the URLs file://"),
    ] {
        let error = context.read_csv(url, Default::default()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_hdfs_that_nobody_serves_is_explained() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("hdfs://127.0.0.1:{free}/t.parquet");
    let error = session(&[]).read_parquet(url, Default::default()).await.unwrap_err().to_string();
    assert!(error.contains("must be reachable from every node") && error.contains("HADOOP_CONF_DIR"), "{error}");
}

#[test]
fn remote_stores_outlive_the_runtime_of_a_query() {
    let server = Server::http();
    server.put("/t.csv", "n\n1\n2\n");
    let context = session(&[]);
    for round in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let frame = context.read_csv(format!("{}/t.csv", server.url), Default::default()).await.unwrap();
            assert_eq!(frame.count().await.unwrap(), 2, "round {round}");
        });
    }
}

#[tokio::test]
async fn parts_of_local_files_are_read_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b%.bin");
    let bytes: Vec<u8> = (0..12_000_000_u32).map(|number| number as u8).collect();
    fs::write(&path, &bytes).unwrap();
    let store = LocalStore::new();
    let at = Path::from_absolute_path(&path).unwrap();

    let meta = store.head(&at).await.unwrap();
    let theirs = object_store::local::LocalFileSystem::new().head(&at).await.unwrap();
    assert_eq!(meta, theirs);
    let whole = store.get(&at).await.unwrap();
    assert!(matches!(whole.payload, GetResultPayload::File(..)));
    assert_eq!(store.get_range(&at, 5..9).await.unwrap(), bytes[5..9]);
    let ranges = store.get_ranges(&at, &[0..3, 11_999_990..12_000_000]).await.unwrap();
    assert_eq!(ranges, [&bytes[..3], &bytes[11_999_990..]]);
    // Several pieces.
    let options = object_store::GetOptions { range: Some((7..11_500_000).into()), ..Default::default() };
    let part = store.get_opts(&at, options).await.unwrap();
    assert!(matches!(part.payload, GetResultPayload::Stream(_)));
    assert_eq!(part.bytes().await.unwrap(), bytes[7..11_500_000]);

    let folder_at = Path::from_absolute_path(folder.path()).unwrap();
    for absent in [&folder_at, &folder_at.clone().join("none"), &at.clone().join("below")] {
        for outcome in [store.head(absent).await.map(drop), store.get(absent).await.map(drop)] {
            assert!(matches!(outcome, Err(Error::NotFound { .. })), "{absent}: {outcome:?}");
        }
    }
    let beyond = store.get_ranges(&at, &[0..1, 11_999_999..12_000_001]).await.unwrap_err().to_string();
    assert!(beyond.contains("ends before byte 12000001: it has become shorter"), "{beyond}");
}
