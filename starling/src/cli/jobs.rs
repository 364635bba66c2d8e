//! `node jobs`, `node result` and `node forget`: jobs that outlive their clients.
//!
//! What they ask of a cluster is [`Jobs`], so that what they print is tested without one.

use clap::{Args, ValueEnum};
use serde::Serialize;
use starling_actors::Cluster;
use starling_core::explain::Why;
use starling_core::ids::JobId;
use starling_core::wire::JobSummary;
use starling_runtime::task::{Call, ClientError, Future, Tasks};
use starling_runtime::value::Value;
use tokio::task::JoinSet;

use super::ask::connect;
use super::connection::ConnectionOptions;
use super::listing::{Align, Output, table};
use super::parse::parse_job;
use super::{CliError, block_on, print, print_text};

/// Which cluster, and how its jobs are listed.
#[derive(Debug, Args)]
pub(super) struct JobsOptions {
    /// How they are printed: for people, or as an object a line.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,

    #[command(flatten)]
    pub(super) connection: ConnectionOptions,
}

/// Whose results to print.
#[derive(Debug, Args)]
pub(super) struct ResultOptions {
    /// The job, as `node submit --detach` and `node jobs` print it.
    #[arg(value_name = "JOB", value_parser = parse_job)]
    pub(super) job: JobId,

    /// Wait until all of its results are there.
    #[arg(long)]
    pub(super) wait: bool,

    /// How they are printed: each as JSON on a line of its own, or all in one object with the job and their tasks.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: ResultOutput,

    #[command(flatten)]
    pub(super) connection: ConnectionOptions,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ResultOutput {
    /// A result a line.
    #[default]
    Lines,
    /// One object.
    Json,
}

/// What not to keep any longer.
#[derive(Debug, Args)]
pub(super) struct ForgetOptions {
    /// The job, as `node submit --detach` and `node jobs` print it. If it still runs, it is cancelled.
    #[arg(value_name = "JOB", value_parser = parse_job)]
    pub(super) job: JobId,

    #[command(flatten)]
    pub(super) connection: ConnectionOptions,
}

/// What there is of a detached job's results.
pub(super) enum Results {
    /// No detached job has this id.
    NoJob,
    /// Some are not there yet.
    Unfinished {
        /// How many are.
        done: usize,
        /// How many there will be.
        of: usize,
    },
    /// All: the name of each task and what it gave, in the order in which they were submitted.
    All(Vec<(String, Value)>),
}

/// What these commands ask of a cluster.
pub(super) trait Jobs {
    /// Submits the call as a job that goes on without its client; gives the job once that is certain.
    async fn detach(&self, call: Call<Value>) -> Result<JobId, CliError>;
    /// All jobs, by their ids.
    async fn jobs(&self) -> Result<Vec<JobSummary>, CliError>;
    /// A detached job's results; waits for them if `wait`. A task that has failed is an error.
    async fn results(&self, job: JobId, wait: bool) -> Result<Results, CliError>;
    /// Keeps a detached job and its results no longer; tells whether there was such a job.
    async fn forget(&self, job: JobId) -> Result<bool, CliError>;
}

/// Prints the jobs.
pub(super) fn jobs(options: &JobsOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let shown = show_jobs(&cluster, options.output).await;
        cluster.shutdown().await;
        print_text(&shown?)
    })
}

/// Prints the results of a job.
pub(super) fn result(options: &ResultOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let shown = show_results(&cluster, options.job, options.wait, options.output).await;
        cluster.shutdown().await;
        print_text(&shown?)
    })
}

/// Forgets a job.
pub(super) fn forget(options: &ForgetOptions) -> Result<(), CliError> {
    block_on(async {
        let cluster = connect(&options.connection).await?;
        let told = forget_job(&cluster, options.job).await;
        cluster.shutdown().await;
        print(format_args!("{}", told?))
    })
}

impl Jobs for Cluster {
    async fn detach(&self, call: Call<Value>) -> Result<JobId, CliError> {
        Ok(self.submit_detached(call).await?.job())
    }

    async fn jobs(&self) -> Result<Vec<JobSummary>, CliError> {
        let mut jobs = Cluster::jobs(self).await?;
        // Its own is there only because it asks.
        jobs.retain(|job| job.job != self.job());
        Ok(jobs)
    }

    async fn results(&self, job: JobId, wait: bool) -> Result<Results, CliError> {
        let futures = match self.detached::<Value>(job).await {
            Ok(futures) => futures,
            Err(ClientError::NoSuchJob(_)) => return Ok(Results::NoJob),
            Err(error) => return Err(error.into()),
        };
        if wait {
            wait_for_all(&futures).await?;
        }
        let mut names = Vec::with_capacity(futures.len());
        let mut done = 0;
        for future in &futures {
            let explanation = self.explain_task(future.task()).await?;
            match explanation.why {
                Why::Erred(failure) => return Err(ClientError::Failed(failure).into()),
                Why::Memory { .. } => done += 1,
                _ => {}
            }
            names.push(explanation.name);
        }
        // What was there a moment ago may be lost by now: then it is computed again.
        if done < futures.len() && !wait {
            return Ok(Results::Unfinished { done, of: futures.len() });
        }
        let mut results = Vec::with_capacity(futures.len());
        for (name, future) in names.into_iter().zip(&futures) {
            results.push((name, future.value().await?));
        }
        Ok(Results::All(results))
    }

    async fn forget(&self, job: JobId) -> Result<bool, CliError> {
        match Cluster::forget(self, job).await {
            Ok(()) => Ok(true),
            Err(ClientError::NoSuchJob(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until all of them are there, or one has failed.
async fn wait_for_all(futures: &[Future<Value>]) -> Result<(), ClientError> {
    let mut waiting: JoinSet<Result<(), ClientError>> = JoinSet::new();
    for future in futures {
        let future = future.clone();
        waiting.spawn(async move { future.wait().await });
    }
    while let Some(ended) = waiting.join_next().await {
        ended.map_err(|_| ClientError::SchedulerLost("the client's runtime has ended".to_owned()))??;
    }
    Ok(())
}

/// The jobs, as they are printed, with the last line's end.
async fn show_jobs(cluster: &impl Jobs, output: Output) -> Result<String, CliError> {
    let jobs = cluster.jobs().await?;
    match output {
        Output::Json => jobs.iter().map(|job| Ok(json(job)? + "\n")).collect(),
        Output::Table if jobs.is_empty() => Ok("there are no jobs\n".to_owned()),
        Output::Table => Ok(table_of(&jobs)),
    }
}

fn table_of(jobs: &[JobSummary]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("JOB", Right),
        ("NAME", Left),
        ("STATE", Left),
        ("WAITING", Right),
        ("QUEUED", Right),
        ("NO WORKER", Right),
        ("RUNNING", Right),
        ("DONE", Right),
        ("FAILED", Right),
        ("DATA SETS", Left),
    ];
    let rows: Vec<[String; 10]> = jobs
        .iter()
        .map(|job| {
            let [waiting, queued, no_worker, running, done, failed] =
                [job.waiting, job.queued, job.no_worker, job.processing, job.memory, job.erred].map(|n| n.to_string());
            let (id, sets) = (job.job.0.to_string(), job.data_sets.join(", "));
            [id, job.name.clone(), state(job), waiting, queued, no_worker, running, done, failed, sets]
        })
        .collect();
    table(columns, &rows)
}

/// Who a job is there for.
fn state(job: &JobSummary) -> String {
    let state = match (job.is_detached, job.has_client) {
        (true, true) => "detached, client here",
        (true, false) => "detached",
        (false, true) => "client here",
        // What is left of it is in its data sets, or its client may yet come back.
        (false, false) => "client gone",
    };
    state.to_owned()
}

/// A detached job's results, as they are printed, with the last line's end.
async fn show_results(cluster: &impl Jobs, job: JobId, wait: bool, output: ResultOutput) -> Result<String, CliError> {
    let results = match cluster.results(job, wait).await? {
        Results::NoJob => return Err(CliError::NoSuchJob(job)),
        Results::Unfinished { done, of } => return Err(CliError::Unfinished { job, done, of }),
        Results::All(results) => results,
    };
    let shown = results.iter().map(|(task, value)| Ok((task.as_str(), Tasks::linked().find(task)?.show(value)?)));
    let shown = shown.collect::<Result<Vec<_>, CliError>>()?;
    match output {
        ResultOutput::Lines => Ok(shown.into_iter().map(|(_, result)| result + "\n").collect()),
        ResultOutput::Json => {
            // The results are JSON already.
            let results =
                shown.into_iter().map(|(task, result)| Ok(format!("{{\"task\":{},\"result\":{result}}}", json(task)?)));
            let results = results.collect::<Result<Vec<_>, CliError>>()?;
            Ok(format!("{{\"job\":{},\"results\":[{}]}}\n", job.0, results.join(",")))
        }
    }
}

/// Forgets a detached job; gives what is said of it.
async fn forget_job(cluster: &impl Jobs, job: JobId) -> Result<String, CliError> {
    if !cluster.forget(job).await? {
        return Err(CliError::NoSuchJob(job));
    }
    Ok(format!("job {} is forgotten", job.0))
}

/// Submits the call as a job of its own; gives the job's id, which is all that is printed, and what is said to people.
pub(super) async fn detach(cluster: &impl Jobs, call: Call<Value>) -> Result<(String, String), CliError> {
    let job = cluster.detach(call).await?.0;
    Ok((job.to_string(), format!("job {job} goes on without this client; its result: node result {job} --wait")))
}

fn json(value: &(impl Serialize + ?Sized)) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::Print(error.into()))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use clap::Parser;

    use crate as starling;
    use crate::cli::FAILURE;

    use super::*;

    #[crate::task(crate = starling)]
    fn doubled(n: u64) -> u64 {
        2 * n
    }

    const DOUBLED: &str = "starling::cli::jobs::tests::doubled";

    /// A cluster with these jobs; job 7 is detached and has `done` of 2 results.
    #[derive(Default)]
    struct Fake {
        jobs: Vec<JobSummary>,
        done: usize,
        asked: RefCell<Vec<String>>,
    }

    impl Jobs for Fake {
        async fn detach(&self, call: Call<Value>) -> Result<JobId, CliError> {
            self.asked.borrow_mut().push(call.def().name.to_owned());
            Ok(JobId(7))
        }

        async fn jobs(&self) -> Result<Vec<JobSummary>, CliError> {
            Ok(self.jobs.clone())
        }

        async fn results(&self, job: JobId, wait: bool) -> Result<Results, CliError> {
            let results = || [4_u64, 6].map(|result| (DOUBLED.to_owned(), Value::live(result))).to_vec();
            match (job, self.done) {
                (JobId(7), 2) => Ok(Results::All(results())),
                (JobId(7), _) if wait => Ok(Results::All(results())),
                (JobId(7), done) => Ok(Results::Unfinished { done, of: 2 }),
                _ => Ok(Results::NoJob),
            }
        }

        async fn forget(&self, job: JobId) -> Result<bool, CliError> {
            Ok(job == JobId(7))
        }
    }

    fn summary(job: u32, name: &str) -> JobSummary {
        JobSummary { job: JobId(job), name: name.to_owned(), ..JobSummary::default() }
    }

    #[derive(Debug, Parser)]
    enum Commands {
        Jobs(JobsOptions),
        Result(ResultOptions),
        Forget(ForgetOptions),
    }

    #[test]
    fn jobs_are_named_by_their_numbers() {
        let parse = |args: &[&str]| Commands::try_parse_from(["node"].iter().chain(args));
        let Ok(Commands::Result(options)) = parse(&["result", "4294967295", "--wait", "--output", "json"]) else {
            panic!("not understood")
        };
        assert_eq!((options.job, options.wait, options.output), (JobId(u32::MAX), true, ResultOutput::Json));
        let Ok(Commands::Forget(options)) = parse(&["forget", "7", "--join", "a:1"]) else { panic!("not understood") };
        assert_eq!((options.job, options.connection.join), (JobId(7), vec!["a:1".to_owned()]));
        let Ok(Commands::Jobs(options)) = parse(&["jobs"]) else { panic!("not understood") };
        assert_eq!((options.output, options.connection.insecure), (Output::Table, false));
        for wrong in [&["result"][..], &["result", "4294967296"], &["forget", "7.1"], &["jobs", "--output", "csv"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn jobs_are_listed_with_their_tasks_by_state() {
        let jobs = vec![
            JobSummary {
                has_client: true,
                waiting: 12,
                queued: 3,
                processing: 2,
                memory: 1000,
                ..summary(7, "nightly")
            },
            JobSummary { is_detached: true, erred: 1, no_worker: 4, ..summary(3_141_592_653, "a\nb") },
            JobSummary { data_sets: vec!["x".to_owned(), "y".to_owned()], ..summary(9, "") },
        ];
        let cluster = Fake { jobs, ..Fake::default() };
        let expected = "       \
       JOB  NAME     STATE        WAITING  QUEUED  NO WORKER  RUNNING  DONE  FAILED  DATA SETS
         7  nightly  client here       12       3          0        2  1000       0
3141592653  a\u{fffd}b      detached           0       0          4        0     0       1
         9           client gone        0       0          0        0     0       0  x, y
";
        assert_eq!(show_jobs(&cluster, Output::Table).await.unwrap(), expected);
        let lines = show_jobs(&cluster, Output::Json).await.unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[1]["job"], &lines[1]["name"]), (&3_141_592_653_u32.into(), &"a\nb".into()));
        assert_eq!((&lines[0]["memory"], &lines[2]["data_sets"][1]), (&1000.into(), &"y".into()));
    }

    #[tokio::test]
    async fn no_jobs_are_a_sentence_for_people_and_nothing_for_programs() {
        assert_eq!(show_jobs(&Fake::default(), Output::Table).await.unwrap(), "there are no jobs\n");
        assert_eq!(show_jobs(&Fake::default(), Output::Json).await.unwrap(), "");
    }

    #[tokio::test]
    async fn results_are_shown_by_the_program_that_has_their_tasks() {
        let cluster = Fake { done: 2, ..Fake::default() };
        let lines = show_results(&cluster, JobId(7), false, ResultOutput::Lines).await.unwrap();
        assert_eq!(lines, "4\n6\n");
        let object = show_results(&cluster, JobId(7), false, ResultOutput::Json).await.unwrap();
        let object: serde_json::Value = serde_json::from_str(&object).unwrap();
        let expected = serde_json::json!({
            "job": 7, "results": [{"task": DOUBLED, "result": 4}, {"task": DOUBLED, "result": 6}]
        });
        assert_eq!(object, expected);
    }

    #[tokio::test]
    async fn a_job_that_is_not_done_or_not_there_is_a_failure_that_says_which() {
        let cluster = Fake { done: 1, ..Fake::default() };
        let error = show_results(&cluster, JobId(7), false, ResultOutput::Lines).await.unwrap_err();
        assert_eq!(error.to_string(), "job 7 has 1 of its 2 results: give --wait to wait for the others");
        assert_eq!(error.exit_code(), FAILURE);
        assert_eq!(show_results(&cluster, JobId(7), true, ResultOutput::Lines).await.unwrap(), "4\n6\n");
        for error in [
            show_results(&cluster, JobId(8), true, ResultOutput::Json).await.unwrap_err(),
            forget_job(&cluster, JobId(8)).await.unwrap_err(),
        ] {
            assert_eq!(error.to_string(), "no detached job has the number 8: `node jobs` lists those that there are");
        }
    }

    #[tokio::test]
    async fn what_is_detached_is_told_by_its_number_and_can_be_forgotten() {
        let cluster = Fake::default();
        let (printed, told) = detach(&cluster, Call::from_json("tests::doubled", "[2]").unwrap()).await.unwrap();
        assert_eq!(printed, "7");
        assert_eq!(told, "job 7 goes on without this client; its result: node result 7 --wait");
        assert_eq!(*cluster.asked.borrow(), [DOUBLED]);
        assert_eq!(forget_job(&cluster, JobId(7)).await.unwrap(), "job 7 is forgotten");
    }
}
