//! How fast one thread reads CSV into Arrow: posts like Stack Overflow's, clean and with newlines in quoted fields.
//!
//! `cargo run --release -p starling-collections --features frame --example csv_rate -- [MEGABYTES [FOLDER]]`

#![allow(clippy::print_stdout, reason = "it is what a benchmark does")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use datafusion::catalog::TableProvider;
use datafusion::prelude::{CsvReadOptions as TheirOptions, SessionConfig, SessionContext};
use starling_actors::Cluster;
use starling_collections::frame::csv::{CsvReadOptions, CsvTable};
use starling_collections::frame::datafusion;
use starling_collections::stackexchange::{GenerateOptions, cached_posts};

const QUERIES: [(&str, &str); 4] = [
    ("count", "select count(*) from posts"),
    ("by-type", r#"select "PostTypeId", count(*), avg("Score") from posts group by "PostTypeId""#),
    ("two-texts", r#"select count("Tags"), count("Title"), max("CreationDate") from posts"#),
    ("all-columns", ""),
];

const RUNS: usize = 5;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let megabytes: u64 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let cluster = Cluster::local(2).await?;
    for clean in [true, false] {
        let options = GenerateOptions { size: megabytes * 1_000_000, clean, ..GenerateOptions::default() };
        let (path, _) = cached_posts(&folder, &options)?;
        let path = path.display().to_string();
        let size = std::fs::read(&path)?.len() as f64 / 1e9;
        let kind = if clean { "clean" } else { "quoted" };

        let started = Instant::now();
        let options = CsvReadOptions { schema_infer_max_rec: 10_000, ..CsvReadOptions::default() };
        let table = CsvTable::open(&cluster, vec![path.clone()], options).await?;
        let state = context(4).state();
        let opened = started.elapsed();
        table.scan(&state, Some(&vec![]), &[], None).await?;
        let scanned = (started.elapsed() - opened).as_secs_f64();
        println!("{kind}: {size:.2} GB; opened in {opened:?}; cuts found at {:.2} GB/s by two workers", size / scanned);
        for (name, query) in QUERIES {
            for threads in [1, 2] {
                let context = context(threads);
                context.register_table("posts", Arc::clone(&table) as Arc<dyn TableProvider>)?;
                let rate = rate(&context, query, size).await?;
                println!("{kind} {name}: {rate:.2} GB/s, {threads} threads");
            }
        }
        let context = context(1);
        let their_options = TheirOptions::new().newlines_in_values(true);
        let schema = table.schema();
        context.register_csv("posts", &path, their_options.schema(&schema)).await?;
        for (name, query) in QUERIES {
            let rate = rate(&context, query, size).await?;
            println!("{kind} {name}: {rate:.2} GB/s, 1 thread, DataFusion's own reader");
        }
    }
    Ok(())
}

fn context(partitions: usize) -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions))
}

/// GB/s in the best of some runs. No query is a scan of all columns, whose batches are dropped.
async fn rate(context: &SessionContext, query: &str, size: f64) -> Result<f64, Box<dyn Error>> {
    let mut best = 0_f64;
    for _ in 0..RUNS {
        let started = Instant::now();
        if query.is_empty() {
            let plan = context.table("posts").await?.create_physical_plan().await?;
            let streams = datafusion::physical_plan::execute_stream_partitioned(plan, context.task_ctx())?;
            let tasks: Vec<_> = streams
                .into_iter()
                .map(|mut stream| {
                    tokio::spawn(async move {
                        let mut rows = 0;
                        while let Some(batch) = futures::StreamExt::next(&mut stream).await {
                            rows += batch?.num_rows();
                        }
                        Ok::<_, datafusion::error::DataFusionError>(rows)
                    })
                })
                .collect();
            for task in tasks {
                std::hint::black_box(task.await??);
            }
        } else {
            std::hint::black_box(context.sql(query).await?.collect().await?);
        }
        best = best.max(size / started.elapsed().as_secs_f64());
    }
    Ok(best)
}
