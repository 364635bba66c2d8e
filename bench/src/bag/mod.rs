//! `bench bag`: two jobs over a gigabyte of text, as a user of bags would write them, on a cluster of processes.
//!
//! Beside it stands a program written by hand with as many threads as the cluster has (`handwritten`). The two take turns,
//! so that what else the machine does meets both. Every answer is checked.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use starling::prelude::{Bag, BagError, Cluster, task};

use crate::measure::{Measured, Plan};
use crate::peers::{self, Ask, Peer};
use crate::processes::NodeProcesses;
use crate::report::{Line, Report, STARLING, tell};
use crate::usage::Meter;

mod data;
mod handwritten;

use data::Input;

/// The subcommand's name in the lines.
const BENCH: &str = "bag";
const UNIT: &str = "s";
const NBYTES: u64 = 1_000_000_000;
const NBYTES_QUICK: u64 = 100_000_000;

/// The number and the sum of transactions.
type Sums = (u64, i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    WordCount,
    Accounts,
}

impl Case {
    const ALL: [Case; 2] = [Case::WordCount, Case::Accounts];

    fn name(self) -> &'static str {
        match self {
            Case::WordCount => "wordcount-1g",
            Case::Accounts => "accounts-1g",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Case::WordCount => "words",
            Case::Accounts => "accounts",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Case::WordCount => "txt",
            Case::Accounts => "jsonl",
        }
    }
}

/// What does a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Starling,
    Handwritten,
}

impl System {
    const ALL: [System; 2] = [System::Starling, System::Handwritten];

    fn name(self) -> &'static str {
        match self {
            System::Starling => STARLING,
            System::Handwritten => "handwritten",
        }
    }
}

/// What a job gives; it is summed up when its time is taken.
enum Output {
    Words(Vec<(String, u64)>),
    Accounts(Vec<(String, Sums)>),
}

impl Output {
    /// As the truth of a file is kept, and as a driver answers.
    fn answer(self) -> Value {
        match self {
            Output::Words(counts) => words_answer(counts),
            Output::Accounts(groups) => accounts_answer(groups),
        }
    }
}

fn words_answer(counts: Vec<(String, u64)>) -> Value {
    data::words_summary(counts)
}

fn accounts_answer(mut groups: Vec<(String, Sums)>) -> Value {
    groups.sort_unstable();
    json!(groups)
}

/// Whether the accounts of this name are asked for.
fn is_wanted(name: &str) -> bool {
    name < "N"
}

async fn word_count(cluster: &Cluster, path: &str) -> Result<Vec<(String, u64)>, BagError> {
    Bag::read_text(cluster, path)
        .flat_map(task!(|line: &str| -> impl Iterator<Item = &str> { line.split_ascii_whitespace() }))
        .frequencies()
        .collect()
        .await
}

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    name: String,
    transactions: Vec<Transaction>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Transaction {
    amount: i64,
}

async fn accounts(cluster: &Cluster, path: &str) -> Result<Vec<(String, Sums)>, BagError> {
    Bag::read_text(cluster, path)
        .try_map(task!(|line: &str| serde_json::from_str::<Account>(line)))
        .filter(task!(|account: &Account| is_wanted(&account.name)))
        .foldby(
            task!(|account: &Account| -> &str { &account.name }),
            (0, 0),
            task!(|sums: Sums, account: &Account| {
                let amounts = account.transactions.iter().map(|transaction| transaction.amount);
                (sums.0 + account.transactions.len() as u64, sums.1 + amounts.sum::<i64>())
            }),
            task!(|a: Sums, b: Sums| (a.0 + b.0, a.1 + b.1)),
        )
        .collect()
        .await
}

impl Case {
    async fn on_starling(self, cluster: &Cluster, path: &str) -> anyhow::Result<Output> {
        Ok(match self {
            Case::WordCount => Output::Words(word_count(cluster, path).await?),
            Case::Accounts => Output::Accounts(accounts(cluster, path).await?),
        })
    }

    fn by_hand(self, path: &Path, threads: usize) -> anyhow::Result<Output> {
        Ok(match self {
            Case::WordCount => Output::Words(handwritten::word_count(path, threads)?),
            Case::Accounts => Output::Accounts(handwritten::accounts(path, threads)?),
        })
    }
}

/// Measures everything that the plan wants.
pub(crate) fn run(plan: &Plan, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    let size = if plan.quick { NBYTES_QUICK } else { NBYTES };
    let mut inputs = Vec::new();
    for case in Case::ALL.into_iter().filter(|case| plan.wants(case.name())) {
        let input = Input::cached(case, size)?;
        input.warm()?;
        inputs.push((case, input));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Err(error) = runtime.block_on(measure_all(plan, &inputs, report)) {
        report.push(Line::failed(BENCH, "cluster", STARLING, UNIT, format!("{error:#}")));
    }
    for &peer in peers {
        if peer != Peer::Dask {
            tell(format_args!("{BENCH}: {peer} has no bags"));
            continue;
        }
        peers::measure(peer, BENCH, asks(&inputs)?, false, plan, report);
    }
    Ok(())
}

async fn measure_all(plan: &Plan, inputs: &[(Case, Input)], report: &mut Report) -> anyhow::Result<()> {
    let nodes = NodeProcesses::start(plan)?;
    let cluster = nodes.connect().await?;
    for (case, input) in inputs {
        tell(format_args!("{BENCH}: {}", case.name()));
        match measure(plan, &cluster, *case, input).await {
            Ok(lines) => lines.into_iter().for_each(|line| report.push(line)),
            Err(error) => {
                let failed = format!("{error:#}{}", nodes.last_words());
                report.push(Line::failed(BENCH, case.name(), STARLING, UNIT, failed));
            }
        }
    }
    Ok(())
}

/// The runs of one system.
struct Runs {
    system: System,
    measured: Measured,
    wrong: bool,
}

impl Runs {
    async fn once(&mut self, plan: &Plan, cluster: &Cluster, case: Case, input: &Input) -> anyhow::Result<()> {
        let path = input.path_text()?;
        let meter = Meter::start();
        let started = Instant::now();
        let output = match self.system {
            System::Starling => {
                let asked = tokio::time::timeout(plan.timeout(), case.on_starling(cluster, path));
                asked.await.context("the bag was not computed in time")??
            }
            System::Handwritten => {
                let (path, threads) = (input.path.clone(), plan.parallelism() as usize);
                tokio::task::spawn_blocking(move || case.by_hand(&path, threads)).await??
            }
        };
        self.measured.values.push(started.elapsed().as_secs_f64());
        let used = meter.stop();
        self.measured.used.cpu_s += used.cpu_s;
        self.measured.used.peak_rss_mb = self.measured.used.peak_rss_mb.max(used.peak_rss_mb);
        self.wrong |= output.answer() != input.truth;
        Ok(())
    }

    fn line(self, case: Case, input: &Input) -> Line {
        Line::new(BENCH, case.name(), self.system.name(), UNIT, &self.measured)
            .wrong(self.wrong)
            .note(if self.wrong { "the answer is wrong" } else { "" })
            .note(format!("{} MB in the page cache", input.nbytes / 1_000_000))
            .note(if self.system == System::Handwritten { "in this process; peak_rss_mb is of all" } else { "" })
    }
}

/// Both systems in turn.
async fn measure(plan: &Plan, cluster: &Cluster, case: Case, input: &Input) -> anyhow::Result<Vec<Line>> {
    let runs = |system| Runs { system, measured: Measured::default(), wrong: false };
    // Once before anything counts: memory that is touched for the first time is dear.
    for system in System::ALL {
        runs(system).once(plan, cluster, case, input).await?;
    }
    let mut all = System::ALL.map(runs);
    let (began, budget) = (Instant::now(), plan.budget() * System::ALL.len() as u32);
    for done in 0..plan.runs {
        let spent = began.elapsed();
        if done > 0 && spent + spent / done > budget {
            break;
        }
        for runs in &mut all {
            runs.once(plan, cluster, case, input).await?;
        }
    }
    Ok(all.map(|runs| runs.line(case, input)).into())
}

fn asks(inputs: &[(Case, Input)]) -> anyhow::Result<Vec<Ask>> {
    let mut asks = Vec::new();
    for (case, input) in inputs {
        let mut ask = Ask::new(case.name(), UNIT, case.file(), input.nbytes, |s| s);
        ask.request = Map::from_iter([("path".to_owned(), json!(input.path_text()?))]);
        let truth = input.truth.clone();
        ask.check = Box::new(move |answer| *answer == truth);
        ask.note = format!("{} MB in the page cache", input.nbytes / 1_000_000);
        asks.push(ask);
    }
    Ok(asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn both_jobs_are_right_on_a_cluster_and_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::local(2).await.unwrap();
        for case in Case::ALL {
            let input = Input::in_folder(folder.path(), case, 2_000_000).unwrap();
            let path = input.path_text().unwrap();
            assert_eq!(case.on_starling(&cluster, path).await.unwrap().answer(), input.truth, "{case:?}");
            assert_eq!(case.by_hand(&input.path, 3).unwrap().answer(), input.truth, "{case:?} by hand");
        }
    }
}
