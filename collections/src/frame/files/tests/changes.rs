//! Files that change, or go, between planning and the end of a query.

use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use super::super::check::{Checked, check};
use super::super::error::StoreError;
use super::server::Server;
use super::stores::session;

/// A table of a local file, planned for.
struct Planned {
    folder: TempDir,
    context: SessionContext,
    plan: Arc<dyn ExecutionPlan>,
}

impl Planned {
    async fn of(text: &str) -> Planned {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("t.csv"), text).unwrap();
        let context = session(&[]);
        let path = folder.path().join("t.csv");
        let frame = context.read_csv(path.to_str().unwrap(), Default::default()).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        Planned { folder, context, plan }
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("t.csv"), text).unwrap();
    }

    fn set_time(&self, time: SystemTime) {
        File::options().write(true).open(self.folder.path().join("t.csv")).unwrap().set_modified(time).unwrap();
    }

    fn time(&self) -> SystemTime {
        fs::metadata(self.folder.path().join("t.csv")).unwrap().modified().unwrap()
    }

    fn check(&self) -> Result<Checked> {
        check(&self.plan, &self.runtime())
    }

    fn runtime(&self) -> Arc<RuntimeEnv> {
        self.context.runtime_env()
    }
}

fn cause(outcome: Result<impl Sized>) -> StoreError {
    match outcome.map(drop) {
        Err(DataFusionError::External(error)) => *error.downcast::<StoreError>().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_stays_passes_before_and_after() {
    let planned = Planned::of("n\n1\n2\n").await;
    planned.check().unwrap().again().await.unwrap();
}

#[tokio::test]
async fn a_file_that_grows_before_the_plan_runs_is_named_with_its_sizes() {
    let planned = Planned::of("n\n1\n2\n").await;
    planned.write("n\n1\n2\n3\n");
    let text = cause(planned.check()).to_string();
    assert!(text.contains("/t.csv has changed on this machine") && text.contains("run the query again"), "{text}");
    assert!(text.contains("it had 6 bytes, and has 8"), "{text}");
}

#[tokio::test]
async fn a_file_of_the_same_size_that_was_written_to_later_has_changed() {
    let planned = Planned::of("n\n1\n2\n").await;
    let time = planned.time();
    planned.write("n\n1\n3\n");
    planned.set_time(time + Duration::from_millis(1_500));
    assert!(matches!(cause(planned.check()), StoreError::Changed { .. }));
}

#[tokio::test]
async fn a_copy_that_is_older_than_the_newest_one_is_fine_as_long_as_it_stays() {
    let planned = Planned::of("n\n1\n2\n").await;
    let time = planned.time();
    planned.set_time(time - Duration::from_millis(86_400_500));
    let checked = planned.check().unwrap();
    checked.again().await.unwrap();
    // Not newer than planned, but not what it was at the beginning either.
    planned.set_time(time - Duration::from_millis(3_500));
    assert!(matches!(cause(checked.again().await), StoreError::Changed { .. }));
}

#[tokio::test]
async fn a_file_that_goes_is_named_before_and_after() {
    let planned = Planned::of("n\n1\n2\n").await;
    let checked = planned.check().unwrap();
    fs::remove_file(planned.folder.path().join("t.csv")).unwrap();
    for gone in [cause(checked.again().await), cause(planned.check())] {
        let text = gone.to_string();
        assert!(
            matches!(gone, StoreError::Gone { .. }) && text.contains("/t.csv is no longer on this machine"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_the_plan_runs_has_changed_although_it_looks_alike() {
    let planned = Planned::of("n\n1\n2\n").await;
    let (checked, time) = (planned.check().unwrap(), planned.time());
    let other = planned.folder.path().join("other");
    fs::write(&other, "n\n1\n9\n").unwrap();
    fs::rename(&other, planned.folder.path().join("t.csv")).unwrap();
    planned.set_time(time);
    assert!(matches!(cause(checked.again().await), StoreError::Changed { .. }));
}

#[tokio::test]
async fn remote_files_are_compared_after_the_plan_has_run() {
    let server = Server::http();
    server.put("/t.csv", "n\n1\n2\n");
    let context = session(&[]);
    let frame = context.read_csv(format!("{}/t.csv", server.url), Default::default()).await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let checked = check(&plan, &context.runtime_env()).unwrap();
    checked.again().await.unwrap();
    server.put_later("/t.csv", "n\n1\n3\n");
    let text = cause(checked.again().await).to_string();
    assert!(text.contains("t.csv of") && text.contains("written to or replaced"), "{text}");
    server.remove("/t.csv");
    assert!(matches!(cause(checked.again().await), StoreError::Gone { .. }));
}
