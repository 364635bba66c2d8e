//! The workers' disks as a session's, and plans whose files lie apart. The nodes of an embedded cluster share a disk, so
//! that only what was said of a listing can differ here; nodes with disks of their own are in the integration tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use starling_actors::Cluster;
use starling_core::ids::NodeId;

use super::super::check::{for_each_scan, metas_of};
use super::super::error::StoreError;
use super::super::mesh::MeshFiles;
use super::super::registry::runtime_env;
use super::stores::{numbers, session};
use crate::files::{FileEntry, Found, Listing};

/// Says that the files of a folder are on these nodes, of nodes 1 and 2.
fn say(files: &MeshFiles, folder: &Path, holders: &[(&str, &[u8])]) {
    let names: BTreeMap<NodeId, String> = [1, 2].map(|node| (NodeId([node; 32]), format!("node-{node}"))).into();
    let found = |node: u8| {
        let having = holders.iter().filter(|(_, nodes)| nodes.contains(&node));
        let entry = |name: &str| FileEntry { path: folder.join(name).display().to_string(), size: 4, modified: 0 };
        Found::Files(having.map(|(name, _)| entry(name)).collect())
    };
    let answers = [1, 2].map(|node| (NodeId([node; 32]), found(node))).into();
    files.remember(&Listing::merge(folder.to_str().unwrap(), &names, answers));
}

/// The names of the files in each group of the only scan of a plan.
fn groups(plan: &Arc<dyn ExecutionPlan>) -> Vec<Vec<String>> {
    let mut groups = Vec::new();
    for_each_scan(plan, |scan| {
        assert_eq!(metas_of(scan).count(), scan.file_groups.iter().map(|group| group.len()).sum::<usize>());
        for group in &scan.file_groups {
            groups
                .push(group.files().iter().map(|file| file.object_meta.location.filename().unwrap().into()).collect());
        }
        Ok(())
    })
    .unwrap();
    groups
}

fn text(plan: &Arc<dyn ExecutionPlan>) -> String {
    displayable(plan.as_ref()).indent(false).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_lie_apart_are_read_in_groups_of_their_own() {
    let cluster = Cluster::local(1).await.unwrap();
    let files = MeshFiles::new(&cluster);
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("a.csv", 1), ("b.csv", 2), ("c.csv", 3), ("d.csv", 4)] {
        fs::write(folder.path().join(name), format!("n\n{value}\n")).unwrap();
    }
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context.register_csv("t", folder.path().to_str().unwrap(), Default::default()).await.unwrap();
    let plan = context.sql("SELECT n FROM t").await.unwrap().create_physical_plan().await.unwrap();

    // Nothing was said: anywhere.
    assert_eq!(files.placement_of(&plan).unwrap(), None);
    let same = files.regroup(Arc::clone(&plan)).unwrap();
    assert_eq!(text(&same), text(&plan));

    say(&files, folder.path(), &[("a.csv", &[1]), ("b.csv", &[2]), ("c.csv", &[1, 2]), ("d.csv", &[2])]);
    let Err(DataFusionError::External(apart)) = files.placement_of(&plan) else { panic!("they lie apart") };
    assert!(matches!(*apart.downcast::<StoreError>().unwrap(), StoreError::Apart { .. }));
    let regrouped = files.regroup(plan).unwrap();
    assert_eq!(groups(&regrouped), [vec!["a.csv", "c.csv"], vec!["b.csv", "d.csv"]]);
    assert!(text(&regrouped).starts_with("CoalescePartitionsExec"), "{}", text(&regrouped));
    let rows = collect(regrouped, context.task_ctx()).await.unwrap();
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 4);

    let limited = context.sql("SELECT n FROM t LIMIT 1").await.unwrap().create_physical_plan().await.unwrap();
    let rows = collect(files.regroup(limited).unwrap(), context.task_ctx()).await.unwrap();
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_files_that_lie_apart_is_kept() {
    let cluster = Cluster::local(1).await.unwrap();
    let files = MeshFiles::new(&cluster);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for (name, first) in [("a", 1), ("b", 11), ("c", 21)] {
        let values = format!("SELECT value AS n FROM generate_series({first}, {first} + 9)");
        let copy = format!("COPY ({values}) TO '{root}/{name}.parquet'");
        context.sql(&copy).await.unwrap().collect().await.unwrap();
    }
    let create = format!("CREATE EXTERNAL TABLE t STORED AS parquet WITH ORDER (n ASC) LOCATION '{root}/'");
    context.sql(&create).await.unwrap();
    let plan = context.sql("SELECT n FROM t ORDER BY n").await.unwrap().create_physical_plan().await.unwrap();
    assert!(!text(&plan).contains("SortExec"), "{}", text(&plan));
    say(&files, folder.path(), &[("a.parquet", &[1]), ("b.parquet", &[2]), ("c.parquet", &[1])]);
    let regrouped = files.regroup(plan).unwrap();
    assert_eq!(groups(&regrouped), [vec!["a.parquet", "c.parquet"], vec!["b.parquet"]]);
    assert!(text(&regrouped).starts_with("SortPreservingMergeExec"), "{}", text(&regrouped));
    let rows = collect(regrouped, context.task_ctx()).await.unwrap();
    let column = |batch: &datafusion::arrow::array::RecordBatch| {
        use datafusion::arrow::array::AsArray;
        batch.column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>().values().to_vec()
    };
    assert_eq!(rows.iter().flat_map(column).collect::<Vec<_>>(), (1..=30).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_of_a_plan_goes_where_its_files_are() {
    let cluster = Cluster::local(1).await.unwrap();
    let files = MeshFiles::new(&cluster);
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.csv", "b.csv"] {
        fs::write(folder.path().join(name), "n\n1\n").unwrap();
    }
    say(&files, folder.path(), &[("a.csv", &[2]), ("b.csv", &[1, 2])]);
    let context = session(&[]);
    let plan = async |name: &str| {
        let frame = context.read_csv(folder.path().join(name).to_str().unwrap(), Default::default()).await.unwrap();
        frame.create_physical_plan().await.unwrap()
    };
    assert_eq!(files.placement_of(&plan("a.csv").await).unwrap(), Some(vec![NodeId([2; 32])]));
    assert_eq!(files.placement_of(&plan("b.csv").await).unwrap(), None);
    assert_eq!(files.placement(folder.path().join("a.csv").to_str().unwrap()), Some(vec![NodeId([2; 32])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_files_are_the_sessions() {
    let cluster = Cluster::local(2).await.unwrap();
    let files = MeshFiles::new(&cluster);
    files.require_everywhere(true);
    let runtime = runtime_env(files.registry()).build_arc().unwrap();
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    fs::create_dir(folder.path().join("k=7")).unwrap();
    fs::write(folder.path().join("k=7/a.csv"), "n\n1\n").unwrap();
    let create = format!(
        "CREATE EXTERNAL TABLE t STORED AS csv PARTITIONED BY (k) LOCATION '{root}/' OPTIONS ('format.has_header' 'true')"
    );
    context.sql(&create).await.unwrap();
    let query = "SELECT count(*), sum(n), sum(CAST(k AS BIGINT)) FROM t";
    assert_eq!(numbers(&context, query).await, [1, 1, 7]);
    assert_eq!(files.placement(&format!("{root}/k=7/a.csv")), None);
    // A file that comes is seen by the next query.
    fs::write(folder.path().join("k=7/b.csv"), "n\n20\n").unwrap();
    assert_eq!(numbers(&context, query).await, [2, 21, 14]);

    let pattern = context.read_csv(format!("{root}/k=7/*.csv"), Default::default()).await.unwrap();
    assert_eq!(pattern.count().await.unwrap(), 2);
    for absent in ["none.csv", "none/", "none/*.csv"] {
        let error = context.read_csv(format!("{root}/{absent}"), Default::default()).await.unwrap_err().to_string();
        let is_file = absent.ends_with("none.csv");
        assert_eq!(error.contains("no worker has"), is_file, "{absent}: {error}");
        let error = files.look_up(&format!("{root}/{absent}")).await.unwrap_err().to_string();
        assert!(error.contains("no worker has") && error.contains("(asked: worker-"), "{absent}: {error}");
    }
    // What is written goes to the client's disk, as without a cluster.
    let copy = format!("COPY (SELECT n FROM t) TO '{root}/out.parquet'");
    context.sql(&copy).await.unwrap().collect().await.unwrap();
    let written = context.read_parquet(format!("{root}/out.parquet"), Default::default()).await.unwrap();
    assert_eq!(written.count().await.unwrap(), 2);
    cluster.shutdown().await;
    let error = context.sql(query).await.unwrap().collect().await.unwrap_err().to_string();
    assert!(error.contains("the scheduler is gone") || error.contains("is closed"), "{error}");
}
