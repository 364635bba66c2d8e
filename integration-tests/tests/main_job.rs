//! The main job on the real posts: exactly the truths, whatever the block size and the number of workers.

use std::fs;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use starling::Cluster;
use starling::stackexchange::{GenerateOptions, ReportOptions, cached_posts, generate, report};
use starling_integration_tests::processes::Processes;

/// The real posts and the truths about them, if this checkout has them.
fn real_posts() -> Option<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let truths = fs::read_to_string(format!("{folder}/counts.json")).ok();
    if truths.is_none() {
        eprintln!("skipped: there is no {folder}");
    }
    Some((format!("{folder}/posts.csv"), truths?))
}

/// Compares what `counts.json` says with what the report says first, in its order.
fn check(report: &str, truths: &str) -> Result<()> {
    let (found, expected): (Value, Value) = (serde_json::from_str(report)?, serde_json::from_str(truths)?);
    let expected = expected.as_object().context("the truths are an object")?;
    for (key, value) in expected {
        ensure!(found[key] == *value, "{key} is {} and not {value}", found[key]);
    }
    let at = |key: &String| report.find(&format!("\"{key}\":")).with_context(|| format!("no {key}"));
    let mut places = expected.keys().map(at).collect::<Result<Vec<_>>>()?;
    places.sort_unstable();
    let later = report.find("\"mean_score_by_post_type\":").context("no means")?;
    ensure!(places.last() < Some(&later), "the keys of the truths do not come first");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_is_exact_for_every_block_size_and_number_of_workers() -> Result<()> {
    let Some((path, truths)) = real_posts() else { return Ok(()) };
    let nbytes = fs::metadata(&path)?.len();
    let mut facts = None;
    for workers in 1..=3 {
        let cluster = Cluster::local(workers).await?;
        for block_bytes in [1 << 10, 4099, 1 << 16, 1_000_003, nbytes, 1 << 30] {
            let options = ReportOptions { block_bytes, ..ReportOptions::new(&path) };
            let report = report(&cluster, &options).await?;
            let what = || format!("{workers} workers, blocks of {block_bytes}");
            check(&serde_json::to_string(&report)?, &truths).with_context(what)?;
            // What the truths do not tell is the same each time.
            let first = facts.get_or_insert_with(|| report.facts.clone());
            ensure!(*first == report.facts, "{}: {:?} and not {first:?}", what(), report.facts);
        }
        cluster.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_matched_by_a_pattern_are_reported_on_together() -> Result<()> {
    let Some((path, truths)) = real_posts() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    for name in ["a.csv", "b.csv"] {
        fs::copy(&path, folder.path().join(name))?;
    }
    let cluster = Cluster::local(2).await?;
    let pattern = folder.path().join("*.csv").display().to_string();
    let report = report(&cluster, &ReportOptions { block_bytes: 1 << 18, ..ReportOptions::new(pattern) }).await?;
    let truths: Value = serde_json::from_str(&truths)?;
    ensure!(Some(report.facts.records) == truths["records"].as_u64().map(|records| 2 * records));
    ensure!(Some(report.facts.body_utf8_bytes) == truths["body_utf8_bytes"].as_u64().map(|nbytes| 2 * nbytes));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_is_exact_although_a_worker_is_killed_in_the_middle() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = GenerateOptions { size: 20_000_000, ..GenerateOptions::default() };
    let truths = generate(&options, &mut std::io::sink())?;
    let (posts, _) = cached_posts(folder.path(), &options)?;
    let mut processes = Processes::start(env!("CARGO_BIN_EXE_test-node"), 3)?;
    let cluster = processes.connect().await?;

    // Killed when the report has come half way through its last query but one, a join over a shuffle.
    let (reached, halfway) = tokio::sync::oneshot::channel();
    let reached = Mutex::new(Some(reached));
    let options = ReportOptions {
        block_bytes: 256 * 1024,
        progress: Some(Arc::new(move |query, done, total| {
            if query == "time to accepted answer" && done * 2 > total {
                let reached = reached.lock().ok().and_then(|mut reached| reached.take());
                reached.map(|reached| reached.send(()));
            }
        })),
        ..ReportOptions::new(posts.display().to_string())
    };
    let reporting = tokio::spawn(async move { report(&cluster, &options).await });
    halfway.await.context("the report ended before the worker was killed")?;
    processes.workers[1].kill()?;
    ensure!(reporting.await??.facts == truths);
    Ok(())
}
