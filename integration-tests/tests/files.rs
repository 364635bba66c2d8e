//! Files that lie on different disks: workers as processes, each with a folder of its own under the same path.
//!
//! The folders are mounted in namespaces, which takes root; without it the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a panic in a helper is the test's failure too")]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::{SessionConfig, SessionContext};
use starling::Cluster;
use starling::core::ids::NodeId;
use starling::frame::files::{MeshFiles, runtime_env};
use starling::frame::{FrameExt, TableSource};
use starling_integration_tests::processes::{Process, Processes};
use tempfile::TempDir;

const NODE: &str = env!("CARGO_BIN_EXE_test-node");
const NAMES: [&str; 3] = ["one", "two", "three"];

/// Three workers that see folders of their own at the path at which the client has another one.
struct Disks {
    folder: TempDir,
    processes: Processes,
}

impl Disks {
    /// `None` with a printed reason where nothing can be mounted.
    fn start() -> Option<Disks> {
        let probe = Command::new("unshare").args(["-m", "true"]).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: folders cannot be mounted here, which takes root and util-linux");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut processes = Processes::start(NODE, 0).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        for name in NAMES {
            fs::create_dir(folder.path().join(name)).unwrap();
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"", "sh"]);
            command.arg(folder.path().join(name)).arg(folder.path().join("data")).arg(NODE);
            command.args([
                "--join",
                &processes.addr,
                "--listen",
                "/ip4/127.0.0.1/tcp/0",
                "--threads",
                "1",
                "--no-data-dir",
            ]);
            command.args(["--name", name, "--secret-file"]).arg(processes.secret_file());
            // Nothing that a test does with its group reaches the nodes of another.
            let worker = Process::start(command.process_group(0)).unwrap();
            worker.wait_for_line(|line| line.contains("is ready").then_some(())).unwrap();
            processes.workers.push(worker);
        }
        Some(Disks { folder, processes })
    }

    /// The path that all have.
    fn path(&self, name: &str) -> String {
        self.folder.path().join("data").join(name).to_str().unwrap().to_owned()
    }

    /// Where a worker really has its files.
    fn at(&self, worker: &str, name: &str) -> PathBuf {
        self.folder.path().join(worker).join(name)
    }

    fn write(&self, workers: &[&str], name: &str, bytes: &[u8]) {
        for worker in workers {
            fs::write(self.at(worker, name), bytes).unwrap();
        }
    }

    /// Runs a command of `node` in a folder.
    fn node(&self, folder: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(NODE);
        command.args(args).args(["--join", &self.processes.addr, "--secret-file"]).arg(self.processes.secret_file());
        command.current_dir(folder).output().unwrap()
    }

    /// What a command prints, which must succeed.
    fn answer(&self, folder: &Path, args: &[&str]) -> String {
        let output = self.node(folder, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error of a command, which must fail.
    fn error(&self, folder: &Path, args: &[&str]) -> String {
        let output = self.node(folder, args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        text.lines().rfind(|line| line.starts_with("error: ")).unwrap().to_owned()
    }
}

fn session(cluster: &Cluster) -> (MeshFiles, SessionContext) {
    let files = MeshFiles::new(cluster);
    let runtime = runtime_env(files.registry()).build_arc().unwrap();
    (files, SessionContext::new_with_config_rt(SessionConfig::new(), runtime))
}

fn node_of(cluster: &Cluster, name: &str) -> NodeId {
    cluster.worker_infos().into_iter().find(|info| info.name == name).unwrap().node
}

/// The integers of a table's column `n`, in order.
async fn column(context: &SessionContext, path: &str) -> Result<Vec<i64>, String> {
    let path = path.to_owned();
    let frame = match path.rsplit('.').next() {
        Some("parquet") => context.read_parquet(path, Default::default()).await,
        _ => context.read_csv(path, Default::default()).await,
    };
    let batches = frame.map_err(|error| error.to_string())?.collect().await.map_err(|error| error.to_string())?;
    let mut values: Vec<i64> = Vec::new();
    for batch in &batches {
        values.extend(batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().values());
    }
    values.sort_unstable();
    Ok(values)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_plans_with_files_that_only_some_workers_have() {
    let Some(disks) = Disks::start() else { return };
    let cluster = disks.processes.connect().await.unwrap();
    let (files, context) = session(&cluster);
    let rows = 200_000_i64;
    let maker = SessionContext::new();
    for (worker, format) in [("one", "csv"), ("two", "parquet")] {
        let path = disks.at(worker, &format!("t.{format}"));
        let copy = format!("COPY (SELECT value AS n FROM generate_series(1, {rows})) TO '{}'", path.display());
        maker.sql(&copy).await.unwrap().collect().await.unwrap();
    }
    for (worker, format) in [("one", "csv"), ("two", "parquet")] {
        let path = disks.path(&format!("t.{format}"));
        assert!(!Path::new(&path).exists());
        assert_eq!(column(&context, &path).await.unwrap(), (1..=rows).collect::<Vec<_>>());
        assert_eq!(files.placement(&path), Some(vec![node_of(&cluster, worker)]));
    }
    disks.write(&NAMES, "all.csv", b"n\n7\n");
    assert_eq!(column(&context, &disks.path("all.csv")).await.unwrap(), [7]);
    assert_eq!(files.placement(&disks.path("all.csv")), None);

    files.require_everywhere(true);
    assert_eq!(column(&context, &disks.path("all.csv")).await.unwrap(), [7]);
    let error = column(&context, &disks.path("t.csv")).await.unwrap_err();
    let lacking = ["two", "three"].map(|name| error.contains(name));
    assert!(error.contains("is not on every node") && lacking == [true; 2], "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_differ_and_files_that_are_nowhere_are_named() {
    let Some(disks) = Disks::start() else { return };
    let cluster = disks.processes.connect().await.unwrap();
    let (_, context) = session(&cluster);
    disks.write(&["one", "three"], "x.csv", b"n\n1\n");
    disks.write(&["two"], "x.csv", b"n\n1\n2\n");
    let error = column(&context, &disks.path("x.csv")).await.unwrap_err();
    assert!(error.contains("x.csv is not the same file on all nodes"), "{error}");
    assert!(error.contains("4 bytes on ") && error.contains("6 bytes on two"), "{error}");

    // What only the client has cannot be read by workers.
    fs::write(disks.path("mine.csv"), "n\n1\n").unwrap();
    let error = column(&context, &disks.path("mine.csv")).await.unwrap_err();
    assert!(error.contains("no worker has") && error.contains("node put"), "{error}");
    assert!(NAMES.iter().all(|name| error.contains(name)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_what_it_has_itself_and_the_rest_from_whoever_is_left() {
    let Some(mut disks) = Disks::start() else { return };
    let cluster = disks.processes.connect().await.unwrap();
    let (_, context) = session(&cluster);
    disks.write(&["one", "two"], "x.csv", b"n\n1\n");
    // Of the same size and time, but not the same: so it shows from where it comes.
    fs::write(disks.path("x.csv"), "n\n2\n").unwrap();
    let time = fs::metadata(disks.at("one", "x.csv")).unwrap().modified().unwrap();
    let set_time = |path: &Path| File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    set_time(Path::new(&disks.path("x.csv")));
    assert_eq!(column(&context, &disks.path("x.csv")).await.unwrap(), [2]);
    fs::write(disks.path("x.csv"), "n\n33\n").unwrap();
    assert_eq!(column(&context, &disks.path("x.csv")).await.unwrap(), [1]);

    // Looked up while both have it, read when one is gone.
    fs::remove_file(disks.path("x.csv")).unwrap();
    let frame = context.read_csv(disks.path("x.csv"), Default::default()).await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    disks.processes.workers[0].kill().unwrap();
    let batches = datafusion::physical_plan::collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);

    // And no longer once it is another one.
    disks.write(&["two"], "x.csv", b"n\n1\n2\n");
    let plan = plan.reset_state().unwrap();
    let error = datafusion::physical_plan::collect(plan, context.task_ctx()).await.unwrap_err().to_string();
    assert!(error.contains("x.csv has changed on two"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_put_listed_and_fetched() {
    let Some(disks) = Disks::start() else { return };
    let here = tempfile::tempdir().unwrap();
    // Several pieces, the last one short.
    let bytes: Vec<u8> = (0..10_000_000_u32).map(|number| (number / 7) as u8).collect();
    let local = here.path().join("posts.csv");
    fs::write(&local, &bytes).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567_890);
    File::options().write(true).open(&local).unwrap().set_modified(time).unwrap();
    let there = disks.path("posts.csv");
    let put = |args: &[&str]| disks.answer(here.path(), &[&["put", "posts.csv", "--as", &there], args].concat());

    let text = put(&["--to", "one"]);
    assert_eq!(text, format!("{there} (10000000 bytes): copied to one\n"));
    let text = put(&["--to", "2"]);
    assert!(text.contains("copied to three; there already on one"), "{text}");
    assert!(!disks.at("two", "posts.csv").exists());
    let listed = disks.answer(here.path(), &["data", &disks.path("*.csv")]);
    assert!(listed.contains(&format!("{there}        10000000  on all but two\n")), "{listed}");
    assert!(listed.ends_with("1 files on 3 nodes\n"), "{listed}");
    put(&["--to", "all"]);
    for worker in NAMES {
        assert_eq!(fs::read(disks.at(worker, "posts.csv")).unwrap(), bytes);
        assert_eq!(fs::metadata(disks.at(worker, "posts.csv")).unwrap().modified().unwrap(), time);
        assert_eq!(fs::read_dir(disks.folder.path().join(worker)).unwrap().count(), 1);
    }

    // Another file is in the way, of the same size even.
    fs::write(disks.at("two", "posts.csv"), vec![1; bytes.len()]).unwrap();
    let error = disks.error(here.path(), &["put", "posts.csv", "--as", &there, "--to", "all"]);
    assert!(error.contains("two has another") && error.contains("--force"), "{error}");
    fs::write(disks.at("two", "posts.csv"), "other").unwrap();
    let error = disks.error(here.path(), &["get", &there]);
    assert!(error.contains("5 bytes on two"), "{error}");
    assert!(disks.answer(here.path(), &["data", &there]).contains("?  differs: 5 bytes on two, 10000000 bytes on "));

    let got = tempfile::tempdir().unwrap();
    disks.answer(got.path(), &["get", &format!("one:{there}")]);
    assert_eq!(fs::read(got.path().join("posts.csv")).unwrap(), bytes);
    assert_eq!(fs::metadata(got.path().join("posts.csv")).unwrap().modified().unwrap(), time);
    let error = disks.error(got.path(), &["get", &format!("two:{there}"), "."]);
    assert!(error.contains("this machine has another") && error.contains("--force"), "{error}");
    disks.answer(got.path(), &["get", &format!("two:{there}"), "posts.csv", "--force"]);
    assert_eq!(fs::read(got.path().join("posts.csv")).unwrap(), b"other");
    assert_eq!(fs::read_dir(got.path()).unwrap().count(), 1);

    put(&["--to", "all", "--force"]);
    assert_eq!(fs::read(disks.at("two", "posts.csv")).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_put_or_fetched_is_said_and_leaves_nothing() {
    let Some(disks) = Disks::start() else { return };
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("x"), "text").unwrap();
    fs::write(here.path().join("empty"), "").unwrap();
    let deep = disks.path("deep/er/x");
    let error = disks.error(here.path(), &["put", "x", "--to", "all", "--as", &deep]);
    assert!(error.contains("has no directory") && error.contains("--make-directories"), "{error}");
    assert!(!disks.at("one", "deep").exists());
    disks.answer(here.path(), &["put", "x", "--to", "all", "--as", &deep, "--make-directories"]);
    assert_eq!(fs::read(disks.at("three", "deep/er/x")).unwrap(), b"text");
    let empty = disks.path("empty");
    disks.answer(here.path(), &["put", "empty", "--to", "1", "--as", &empty]);
    disks.answer(here.path(), &["get", &empty, "again"]);
    assert_eq!(fs::read(here.path().join("again")).unwrap(), b"");
    // A directory is listed with all below it.
    let listed = disks.answer(here.path(), &["data", &disks.path("")]);
    assert!(listed.contains(&format!("{deep}               4  on all\n")), "{listed}");

    for (args, expected) in [
        (&["put", "x", "--to", "4", "--as", &empty][..], "only 3 workers for 4 copies"),
        (&["put", "x", "--to", "four", "--as", &empty], "no worker four: the cluster has "),
        (&["put", "x", "--to", "all", "--as", "relative"], "relative is no absolute path"),
        (&["put", "none", "--to", "all"], "none: No such file"),
        (&["put", ".", "--to", "all"], "is a directory"),
        (&["put", "x", "--to", "all", "--as", &disks.path("deep")], "is a directory"),
        (&["get", &disks.path("none")], "no worker has"),
        (&["get", &disks.path("deep")], "is a directory"),
        (&["get", &format!("four:{deep}")], "no worker four"),
        (&["get", &deep, "none/x"], "this machine has no directory"),
        (&["data", &disks.path("none*")], "no worker has"),
        (&["data", "a**b"], "is no valid pattern"),
    ] {
        let error = disks.error(here.path(), args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}

/// The one row of integers that a query on the cluster gives.
async fn answer(cluster: &Cluster, query: &str) -> Result<Vec<i64>, String> {
    let frame = cluster.frames().sql(query).await.map_err(|error| error.to_string())?;
    let batches = frame.collect().await.map_err(|error| error.to_string())?;
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    Ok(batch.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_run_where_the_files_are() {
    let Some(disks) = Disks::start() else { return };
    let cluster = disks.processes.connect().await.unwrap();
    let maker = SessionContext::new();
    // Two tables, each with a file on every worker that no other has, and one that all have.
    for format in ["csv", "parquet"] {
        for (number, worker) in NAMES.iter().enumerate() {
            fs::create_dir_all(disks.at(worker, format)).unwrap();
            let (from, to) = (number * 1000 + 1, number * 1000 + 1000);
            let path = disks.at(worker, &format!("{format}/{worker}.{format}"));
            let copy = format!("COPY (SELECT value AS n FROM generate_series({from}, {to})) TO '{}'", path.display());
            maker.sql(&copy).await.unwrap().collect().await.unwrap();
            if format == "csv" {
                disks.write(&[worker], "csv/all.csv", b"n\n10000\n");
            }
        }
        let source = TableSource::new(disks.path(&format!("{format}/")));
        cluster.frames().register(format, source).await.unwrap();
    }
    assert_eq!(answer(&cluster, "SELECT count(*), sum(n) FROM parquet").await.unwrap(), [3000, 4_501_500]);
    assert_eq!(answer(&cluster, "SELECT count(*), sum(n) FROM csv").await.unwrap(), [3001, 4_511_500]);
    let joined = "SELECT count(*), sum(csv.n) FROM csv JOIN parquet ON csv.n = parquet.n";
    assert_eq!(answer(&cluster, joined).await.unwrap(), [3000, 4_501_500]);
    let few = "SELECT count(*) FROM (SELECT n FROM parquet LIMIT 7)";
    assert_eq!(answer(&cluster, few).await.unwrap(), [7]);
    let sorted = "SELECT n FROM csv ORDER BY n DESC LIMIT 1";
    assert_eq!(answer(&cluster, sorted).await.unwrap(), [10_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_with_other_times_are_one_table_and_a_changed_one_is_named() {
    let Some(disks) = Disks::start() else { return };
    let cluster = disks.processes.connect().await.unwrap();
    let text: String = std::iter::once("n\n".to_owned()).chain((0..50_000).map(|n| format!("{n}\n"))).collect();
    let json: String = (0..50_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    for (age, worker) in NAMES.iter().enumerate() {
        for (name, text) in [("t.csv", &text), ("t.json", &json)] {
            disks.write(&[worker], name, text.as_bytes());
            let time = std::time::SystemTime::now() - std::time::Duration::from_millis(100_500 * age as u64);
            File::options().write(true).open(disks.at(worker, name)).unwrap().set_modified(time).unwrap();
        }
    }
    for (name, file) in [("c", "t.csv"), ("j", "t.json")] {
        cluster.frames().register(name, TableSource::new(disks.path(file))).await.unwrap();
        let query = format!("SELECT count(*), sum(n) FROM {name}");
        assert_eq!(answer(&cluster, &query).await.unwrap(), [50_000, 1_249_975_000]);
        // Planned before the change, run after it.
        let frame = cluster.frames().sql(&query).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        for worker in NAMES {
            let mut bytes = fs::read(disks.at(worker, file)).unwrap();
            let last = bytes.len() - 3;
            bytes[last] = b'0';
            // The same size, a later time.
            fs::write(disks.at(worker, file), bytes).unwrap();
            let time = std::time::SystemTime::now() + std::time::Duration::from_millis(5_500);
            File::options().write(true).open(disks.at(worker, file)).unwrap().set_modified(time).unwrap();
        }
        let context = cluster.frames().context().task_ctx();
        let error = datafusion::physical_plan::collect(plan, context).await.unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("changed"), "{error}");
        assert!(NAMES.iter().any(|name| error.contains(name)) || error.contains("on node "), "{error}");
    }
}
