//! Objects of a store.

use std::sync::Arc;

use datafusion::datasource::object_store::ObjectStoreUrl;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::frame::FrameExt;
use crate::stackexchange::{GenerateOptions, generate};

/// A store that the client's session and the context that reads know.
async fn store(bench: &Bench, readers: &[&SessionContext]) -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    let url = ObjectStoreUrl::parse("mem://bucket").unwrap();
    let shared = Arc::clone(&store) as Arc<dyn ObjectStore>;
    bench.cluster.frames().context().register_object_store(url.as_ref(), Arc::clone(&shared));
    for reader in readers {
        reader.register_object_store(url.as_ref(), Arc::clone(&shared));
    }
    store
}

async fn put(store: &InMemory, path: &str, bytes: impl Into<bytes::Bytes>) {
    store.put(&ObjectPath::from(path), bytes.into().into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_cut_and_read_as_files_are() {
    let bench = Bench::new().await;
    let context = context(5);
    let store = store(&bench, &[&context]).await;
    let mut bytes = Vec::new();
    generate(&GenerateOptions { size: 1_000_000, ..GenerateOptions::default() }, &mut bytes).unwrap();
    put(&store, "posts/a.csv", bytes.clone()).await;
    let local = bench.write("a.csv", &bytes);
    let expected = theirs_of_any(&local).await;
    let options = CsvReadOptions { schema_infer_max_rec: 1_000_000, ..fine() };
    for url in ["mem://bucket/posts/a.csv", "mem://bucket/posts/*.csv", "mem://bucket/posts/"] {
        let table = bench.open(url, options.clone()).await;
        assert_eq!(table.paths(), ["mem://bucket/posts/a.csv"]);
        let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
        assert_eq!(plan.properties().partitioning.partition_count(), 5);
        let decoded = CsvScanExec::decode(&scan_of(&plan).encode().unwrap(), &context.task_ctx()).unwrap();
        assert_same(&rows(&context, decoded).await.unwrap(), &expected, url);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_object_is_told_with_its_line() {
    let bench = Bench::new().await;
    let context = context(3);
    let store = store(&bench, &[&context]).await;
    let row = "1,\"a\n\"\"b\"\"\"\n";
    put(&store, "bad.csv", format!("id,body\n{}2\n{}", row.repeat(500), row.repeat(500))).await;
    let table = bench.open("mem://bucket/bad.csv", fine()).await;
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    assert_eq!(plan.properties().partitioning.partition_count(), 3);
    let error = rows(&context, plan).await.unwrap_err();
    assert!(error.contains("mem://bucket/bad.csv, line 1002: the record has 1 fields"), "{error}");

    put(&store, "stray.csv", format!("id,body\n{}2,a\"b\n", row.repeat(500))).await;
    let table = bench.open("mem://bucket/stray.csv", fine()).await;
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    assert_eq!(plan.properties().partitioning.partition_count(), 1);
    assert_eq!(rows(&context, plan).await.unwrap().num_rows(), 501);
    assert_eq!(table.warnings().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changes_after_planning_is_an_error() {
    let bench = Bench::new().await;
    let context = context(3);
    let store = store(&bench, &[&context]).await;
    put(&store, "a.csv", "id,body\n1,x\n").await;
    let table = bench.open("mem://bucket/a.csv", fine()).await;
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    put(&store, "a.csv", "id,body\n2,x\n").await;
    let error = rows(&context, plan).await.unwrap_err();
    assert!(error.contains("mem://bucket/a.csv is not the file that was found"), "{error}");
    let error = bench.open_error(&["mem://bucket/b.csv"], fine()).await;
    assert!(error.contains("mem://bucket/b.csv"), "{error}");
    let error = bench.open_error(&["other://bucket/b.csv"], fine()).await;
    assert!(error.contains("other://bucket/b.csv"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_objects_are_streamed() {
    use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
    use futures::{StreamExt, TryStreamExt};
    let bench = Bench::new().await;
    let context = context(3);
    let store = store(&bench, &[&context]).await;
    let plain = bytes::Bytes::from(format!("a,b\n{}", "1,\"x\n\"\n".repeat(2000)));
    let stream = futures::stream::once(async move { Ok(plain) }).boxed();
    let pieces: Vec<bytes::Bytes> =
        FileCompressionType::GZIP.convert_to_compress_stream(stream).unwrap().try_collect().await.unwrap();
    put(&store, "a.csv.gz", pieces.concat()).await;
    let table = bench.open("mem://bucket/a.csv.gz", fine()).await;
    let plan = table.scan(&context.state(), None, &[], None).await.unwrap();
    assert_eq!(rows(&context, plan).await.unwrap().num_rows(), 2000);
}
