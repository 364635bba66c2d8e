//! A bag of lines: the words that text files hold most often.
//!
//! ```text
//! cargo run --release --example wordcount -- 'logs/*.txt'
//! ```

#![allow(clippy::print_stdout, reason = "what the example shows is its output")]

use anyhow::{Context, Result, anyhow};
use starling::prelude::*;

#[tokio::main]
async fn main() -> Result<()> {
    let pattern = std::env::args().nth(1).context("give a path or a quoted pattern, such as 'logs/*.txt'")?;
    let cluster = Cluster::local(2).await?;
    let words = Bag::read_text(&cluster, &pattern)
        .flat_map(task!(|line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()))
        .frequencies();
    let most =
        words.topk(10, task!(|word: &(String, u64)| word.1)).await.map_err(|error| anyhow!("{}", error.reason()))?;
    for (word, count) in most {
        println!("{count:>9} {word}");
    }
    cluster.shutdown().await;
    Ok(())
}
