//! Task streams and the performance report, on a real cluster inside this process.

use starling::{Cluster, TaskOutcome};

#[starling::task]
fn work(number: u64) -> Result<u64, String> {
    if number == 7 { Err("number <7> is refused".to_owned()) } else { Ok(number) }
}

#[starling::task]
fn total(values: &[u64]) -> u64 {
    values.iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_tells_what_ran_in_it_and_the_report_shows_it() {
    let cluster = Cluster::local(2).await.unwrap();
    cluster.gather(&cluster.map((100..110).map(work::task))).await.unwrap();

    let recording = cluster.record_tasks();
    let parts = cluster.map((0..5_000).filter(|number| *number != 7).map(work::task));
    cluster.submit(total::task(parts)).result().await.unwrap();
    cluster.submit(work::task(7_u64)).result().await.unwrap_err();
    let stream = recording.finish().await.unwrap();
    // More than one page; nothing of before.
    assert_eq!((stream.records.len(), stream.forgotten, stream.is_partial), (5_001, 0, false));
    let named = |end: &str| stream.records.iter().filter(|record| stream.name(record).ends_with(end)).count();
    assert_eq!((named("::work"), named("::total")), (5_000, 1));
    let failed: Vec<_> = stream.records.iter().filter(|record| record.outcome == TaskOutcome::Failed).collect();
    assert_eq!(failed.len(), 1);
    assert!(stream.failures[0].message.contains("number <7> is refused"), "{:?}", stream.failures);
    assert!(stream.records.iter().all(|record| (stream.began_us..=stream.ended_us).contains(&record.ended.0)));
    let names: Vec<&str> = stream.workers.values().map(|worker| worker.name.as_str()).collect();
    assert_eq!(names, ["worker-0", "worker-1"]);

    // Nobody records any more: nothing of this is remembered.
    cluster.gather(&cluster.map((0..10).map(|number| work::task(number % 5)))).await.unwrap();
    let page = cluster.task_stream(0).await.unwrap();
    assert_eq!((page.end, page.records.len()), (0, 0));
    cluster.submit(work::task(1_u64)).result().await.unwrap();
    assert_eq!(cluster.task_stream(0).await.unwrap().records.len(), 1);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let all = async { cluster.gather(&cluster.map((0..5).chain(8..100).map(work::task))).await };
    let results = cluster.performance_report(&path, all).await.unwrap().unwrap();
    assert_eq!(results.len(), 97);
    let report = std::fs::read_to_string(&path).unwrap();
    assert!(report.contains("<dt>Tasks</dt><dd>97</dd>") && report.contains("performance::work</th><td>97</td>"));
    let nowhere = cluster.performance_report(folder.path().join("absent/report.html"), async {}).await;
    assert!(nowhere.unwrap_err().to_string().contains("absent"));
    cluster.shutdown().await;
}
