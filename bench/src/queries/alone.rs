//! DataFusion alone, in a process of its own: the peer that is the yardstick.
//!
//! It answers requests as the scripts of `bench/peers/` do (`protocol.py` there), with as many threads as the cluster has,
//! `target_partitions` the same, and DataFusion's defaults otherwise.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use datafusion::prelude::SessionContext;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Table, collect, plain_datafusion, register};

/// What is asked: a query over files, whose answer is to be left in a file.
#[derive(Deserialize)]
struct Request {
    sql: String,
    tables: Map<String, Value>,
    answer: PathBuf,
    runs: u32,
    budget_s: f64,
}

/// Answers requests until standard input ends.
pub(crate) fn serve(threads: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let context = plain_datafusion(threads);
    say(&json!({ "ready": true }))?;
    for line in std::io::stdin().lock().lines() {
        let answered = serde_json::from_str::<Request>(&line?).map_err(anyhow::Error::from).and_then(|request| {
            let context = context.clone();
            // On the runtime's threads, and not on this one beside them.
            runtime.block_on(runtime.spawn(async move { answer(&context, &request).await }))?
        });
        say(&answered.unwrap_or_else(|error| json!({ "error": format!("{error:#}") })))?;
    }
    Ok(())
}

async fn answer(context: &SessionContext, request: &Request) -> anyhow::Result<Value> {
    let tables = request.tables.iter().map(|(name, path)| {
        let path = path.as_str().context("a table's path is no text")?;
        Ok(Table { name: name.clone(), path: Path::new(path).to_owned() })
    });
    for table in tables.collect::<anyhow::Result<Vec<_>>>()? {
        if !context.table_exist(table.name.as_str())? {
            register(context, &[table]).await?;
        }
    }
    let (begun, mut seconds, mut last) = (Instant::now(), Vec::new(), None::<Answer>);
    for _ in 0..request.runs {
        drop(last.take());
        let started = Instant::now();
        let answer = collect(context.sql(&request.sql).await?).await?;
        seconds.push(started.elapsed().as_secs_f64());
        last = Some(answer);
        let spent = begun.elapsed().as_secs_f64();
        if spent + spent / seconds.len() as f64 > request.budget_s {
            break;
        }
    }
    last.context("no run was asked for")?.write(&request.answer)?;
    Ok(json!({ "seconds": seconds, "ok": true, "note": "", "answer": null }))
}

fn say(answer: &Value) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{answer}")?;
    Ok(stdout.flush()?)
}
