//! Task streams: which task ran where and when, while somebody records.

use std::collections::BTreeMap;
use std::future::Future as StdFuture;
use std::path::Path;

use starling_core::ids::{KindId, WorkerId};
use starling_core::task_stream::{StreamFailure, StreamPage, StreamWorker, TaskRecord};
use starling_runtime::task::ClientError;

use super::Cluster;
use crate::client::AskedPage;
use crate::report::{self, ReportError};

/// What the scheduler has recorded of the tasks that ended, of all clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskStream {
    /// The tasks, in the order in which the scheduler heard that they had ended.
    pub records: Vec<TaskRecord>,
    /// The names of their functions.
    pub kinds: BTreeMap<KindId, String>,
    /// The workers that were there at the end, and those that ran a task here.
    pub workers: BTreeMap<WorkerId, StreamWorker>,
    /// Why tasks failed: of the last hundred failures.
    pub failures: Vec<StreamFailure>,
    /// How many tasks are not here, because the scheduler remembers only so many.
    pub forgotten: u64,
    /// When the recording began and ended, in microseconds by the scheduler's clock, which tells the ends of tasks.
    pub began_us: u64,
    /// See `began_us`.
    pub ended_us: u64,
    /// Whether another scheduler has taken over meanwhile: what ended before is not here.
    pub is_partial: bool,
}

impl TaskStream {
    /// The name of a task's function.
    pub fn name(&self, record: &TaskRecord) -> &str {
        self.kinds.get(&record.kind).map_or("", String::as_str)
    }

    fn add(&mut self, page: StreamPage) {
        self.forgotten += page.forgotten;
        self.records.extend(page.records);
        self.kinds.extend(page.kinds);
        self.workers.extend(page.workers.into_iter().map(|worker| (worker.worker, worker)));
        self.failures.extend(page.failures);
    }
}

/// A recording that is under way. Dropping it ends it.
#[must_use = "a recording ends when it is dropped"]
pub struct TaskRecording {
    cluster: Cluster,
    /// The first page, which tells where the recording begins; taken when it is finished.
    begin: Option<Result<AskedPage, ClientError>>,
}

impl Cluster {
    /// Has the scheduler record which task runs where and when, from what is submitted next until the recording is
    /// [finished](TaskRecording::finish) or dropped. It remembers the last 100,000 tasks of all clients, and only while somebody
    /// records. Does not wait.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::{Call, ClientError};
    /// # async fn run(cluster: Cluster, call: Call<i64>) -> Result<(), ClientError> {
    /// let recording = cluster.record_tasks();
    /// cluster.submit(call).result().await?;
    /// let stream = recording.finish().await?;
    /// for record in &stream.records {
    ///     println!("{} ran {} us on {}", stream.name(record), record.run_us, stream.workers[&record.worker].name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn record_tasks(&self) -> TaskRecording {
        self.client.begin_recording();
        TaskRecording { cluster: self.clone(), begin: Some(self.client.ask_task_stream(u64::MAX)) }
    }

    /// A page of what the scheduler remembers of the tasks that ended, from number `since` on; at most 4,096 of them. Ask again from
    /// `first` and their number on, until `end` is reached. It remembers what ends while a [`TaskRecording`] is under way, or after
    /// this was asked for the first time, until the client leaves or finishes a recording.
    ///
    /// # Errors
    /// The scheduler is lost.
    pub async fn task_stream(&self, since: u64) -> Result<StreamPage, ClientError> {
        self.client.task_stream_page(self.client.ask_task_stream(since)?).await
    }

    /// Does this work, and writes what the cluster did meanwhile as one HTML file that needs nothing else: when which worker ran
    /// what, the tasks by function, the workers, and what failed. Gives what the work gives.
    ///
    /// ```no_run
    /// # use starling_actors::Cluster;
    /// # use starling_runtime::task::{Call, ClientError};
    /// # async fn run(cluster: Cluster, calls: Vec<Call<i64>>) -> Result<(), Box<dyn std::error::Error>> {
    /// let work = async { cluster.gather(&cluster.map(calls)).await };
    /// let results = cluster.performance_report("report.html", work).await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The recording could not be had, or the file not be written. The work was done, and what it gave is lost: let it keep what is
    /// dear.
    pub async fn performance_report<F: StdFuture>(
        &self,
        path: impl AsRef<Path>,
        work: F,
    ) -> Result<F::Output, ReportError> {
        let recording = self.record_tasks();
        let output = work.await;
        let stream = recording.finish().await?;
        report::write(path.as_ref(), &stream)?;
        Ok(output)
    }
}

impl TaskRecording {
    /// Ends the recording, and gives what ended in it. A task whose end was awaited is in it.
    ///
    /// # Errors
    /// The scheduler is lost.
    pub async fn finish(mut self) -> Result<TaskStream, ClientError> {
        let client = self.cluster.client.clone();
        let Some(begin) = self.begin.take() else { return Ok(TaskStream::default()) };
        let begin = client.task_stream_page(begin?).await?;
        let mut stream = TaskStream { began_us: begin.now.0, ..TaskStream::default() };
        let (mut since, mut term, mut until) = (begin.end, begin.term, None);
        loop {
            let page = client.task_stream_page(client.ask_task_stream(since)?).await?;
            if page.term != term {
                // It counts anew, and by another clock.
                term = page.term;
                stream = TaskStream { is_partial: true, began_us: page.now.0, ..TaskStream::default() };
                (since, until) = (0, None);
                continue;
            }
            let end = *until.get_or_insert(page.end);
            stream.ended_us = stream.ended_us.max(page.now.0);
            since = page.first + page.records.len() as u64;
            let is_last = since >= end || page.records.is_empty();
            stream.add(page);
            if is_last {
                let first_ended = stream.records.first().map(|record| record.ended.0.saturating_sub(record.run_us));
                if stream.is_partial {
                    stream.began_us = stream.began_us.min(first_ended.unwrap_or(u64::MAX));
                }
                return Ok(stream);
            }
        }
    }
}

impl Drop for TaskRecording {
    fn drop(&mut self) {
        if let Some(Ok(asked)) = &self.begin {
            self.cluster.client.forget_page(asked);
        }
        self.cluster.client.end_recording();
    }
}
