//! `node submit`: a task from a shell, by its name.

use std::future::Future;
use std::time::Duration;

use clap::Args;
use starling_actors::Cluster;
use starling_runtime::task::Call;
use starling_runtime::value::Value;

use super::ask::connect_as;
use super::connection::ConnectionOptions;
use super::parse::parse_job_name;
use super::{CliError, block_on, jobs, print, tell};

/// How long the cluster may take to say that it has given a task up, before it is left without that.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Which task to run, with what.
#[derive(Debug, Args)]
pub(super) struct SubmitOptions {
    /// The task: the path of its function, as my_crate::count, or so much of its end that it fits no other.
    #[arg(value_name = "TASK")]
    task: String,

    /// Its arguments, an array in JSON: '["a.txt", 3]'.
    #[arg(value_name = "ARGS", default_value = "[]")]
    args: String,

    /// A name for the job, by which people know it.
    #[arg(long, value_name = "NAME", value_parser = parse_job_name)]
    name: Option<String>,

    /// Have it go on without this command, and print the job's number instead of the result, which is kept until it is
    /// forgotten: `node result JOB`, `node forget JOB`.
    #[arg(long)]
    detach: bool,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Runs the task and prints its result, or detaches it and prints its job.
pub(super) fn submit(options: &SubmitOptions) -> Result<(), CliError> {
    // Before anybody is asked: most mistakes are in what was typed.
    let call = Call::from_json(&options.task, &options.args)?;
    block_on(async {
        let cluster = connect_as(&options.connection, options.name.clone()).await?;
        if options.detach {
            let detached = jobs::detach(&cluster, call).await;
            cluster.shutdown().await;
            let (job, told) = detached?;
            tell(format_args!("{told}"));
            return print(format_args!("{job}"));
        }
        let shown = run(&cluster, call, interrupt()).await;
        cluster.shutdown().await;
        print(format_args!("{}", shown?))
    })
}

/// Resolves at Ctrl-C. If signals cannot be listened for, Ctrl-C ends the process as it always does.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

/// The call's result in JSON. If `interrupt` comes first, the task is given up.
async fn run(cluster: &Cluster, call: Call<Value>, interrupt: impl Future<Output = ()>) -> Result<String, CliError> {
    let def = call.def();
    let future = cluster.submit(call);
    let value = tokio::select! {
        value = future.value() => value?,
        () = interrupt => {
            future.cancel();
            // The result is the cluster's word that nothing is left of it; whoever pressed Ctrl-C does not wait long for it.
            let _ = tokio::time::timeout(CANCEL_TIMEOUT, future.wait()).await;
            return Err(CliError::Interrupted);
        }
    };
    Ok(def.show(&value)?)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::{Condvar, Mutex};

    use clap::Parser;
    use starling_core::failure::FailureCause;
    use starling_runtime::task::ClientError;
    use tokio::sync::Notify;

    use crate as starling;
    use crate::cli::{Cli, Command, USAGE};

    use super::*;

    #[crate::task(crate = starling)]
    fn lengths(texts: &[String], times: usize) -> Result<Vec<usize>, String> {
        if times == 0 {
            return Err("no times are none".to_owned());
        }
        Ok(texts.iter().map(|text| text.len() * times).collect())
    }

    static BEGUN: Notify = Notify::const_new();
    static MAY_END: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    /// Says that it runs, and runs until it may end.
    #[crate::task(crate = starling)]
    fn long() {
        BEGUN.notify_one();
        let may_end = MAY_END.0.lock().unwrap();
        drop(MAY_END.1.wait_while(may_end, |may_end| !*may_end).unwrap());
    }

    fn options(args: &[&str]) -> SubmitOptions {
        let cli = Cli::try_parse_from(["node", "submit"].iter().chain(args)).unwrap();
        match cli.command {
            Some(Command::Submit(options)) => options,
            other => panic!("not a submission: {other:?}"),
        }
    }

    #[test]
    fn a_task_stands_alone_or_with_its_arguments() {
        let alone = options(&["my::count"]);
        assert_eq!((alone.task.as_str(), alone.args.as_str(), alone.name), ("my::count", "[]", None));
        assert!(!alone.detach);
        let full = options(&["count", "[-1]", "--name", "nightly", "--detach", "--join", "10.12.0.10"]);
        assert_eq!((full.args.as_str(), full.name.as_deref(), full.detach), ("[-1]", Some("nightly"), true));
        assert_eq!(full.connection.join, ["10.12.0.10"]);
        let long = "x".repeat(257);
        for wrong in [&["node", "submit"][..], &["node", "submit", "a", "--name", &long]] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_wrong_name_or_argument_is_a_wrong_use_and_told_before_a_cluster_is_looked_for() {
        for (args, told) in [
            (["lenghts", "[]"], "did you mean starling::cli::submit::tests::lengths?"),
            (["lengths", "[]"], "takes 2 arguments, not 0"),
            (["lengths", r#"[["a"], -1]"#], "argument 2 of starling::cli::submit::tests::lengths("),
            (["lengths", "{}"], "are no array in JSON"),
        ] {
            let error = submit(&options(&args)).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
            assert_eq!(error.exit_code(), USAGE);
        }
        let error = submit(&options(&["lengths", r#"[["a"], 1]"#, "--config", "/dev/null"])).unwrap_err();
        assert!(matches!(error, CliError::NoCluster), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_result_is_one_line_of_json_and_an_error_the_tasks_own() {
        let cluster = Cluster::local(1).await.unwrap();
        let call = |args| Call::from_json("lengths", args).unwrap();
        let shown = run(&cluster, call(r#"[["a", "bcd"], 2]"#), pending()).await;
        assert_eq!(shown.unwrap(), "[2,6]");
        match run(&cluster, call("[[], 0]"), pending()).await {
            Err(CliError::Client(error)) => {
                let ClientError::Failed(failure) = *error else { panic!("not a failure: {error}") };
                assert_eq!(failure.name, "starling::cli::submit::tests::lengths");
                let cause = FailureCause::Error { message: "no times are none".to_owned(), sources: Vec::new() };
                assert_eq!(failure.cause, cause);
            }
            other => panic!("not the task's error: {other:?}"),
        }
        cluster.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ctrl_c_gives_the_task_up_and_says_so() {
        let cluster = Cluster::local(1).await.unwrap();
        let outcome = run(&cluster, Call::from_json("long", "[]").unwrap(), BEGUN.notified()).await;
        assert!(matches!(outcome, Err(CliError::Interrupted)), "{outcome:?}");
        *MAY_END.0.lock().unwrap() = true;
        MAY_END.1.notify_all();
        // The cluster goes on.
        let after = run(&cluster, Call::from_json("lengths", r#"[["a"], 1]"#).unwrap(), pending()).await;
        assert_eq!(after.unwrap(), "[1]");
        cluster.shutdown().await;
    }
}
