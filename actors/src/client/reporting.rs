//! What a client asks about workers, tasks and outputs: one question a page.

use starling_core::ids::{JobId, TaskId, WorkerId};
use starling_core::query::{NbytesOf, Query, Report, WorkerReport};
use starling_core::wire::{FromClient, ToClient};
use starling_runtime::task::ClientError;

use super::Client;
use super::asking::another_answer;

impl Client {
    async fn query(&self, query: Query) -> Result<Report, ClientError> {
        match self.ask(|token| FromClient::Query { token, query }).await? {
            ToClient::Report { report, .. } => Ok(report),
            _ => Err(another_answer()),
        }
    }

    /// The outputs that a worker holds, of one job or of all.
    pub(crate) async fn has_what(
        &self,
        worker: WorkerId,
        job: Option<JobId>,
    ) -> Result<Vec<(TaskId, u64)>, ClientError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|last: &(TaskId, u64)| last.0);
            match self.query(Query::HasWhat { worker, job, after }).await? {
                Report::Outputs { outputs, more } => {
                    let is_last = !more || outputs.is_empty();
                    all.extend(outputs);
                    if is_last {
                        return Ok(all);
                    }
                }
                _ => return Err(another_answer()),
            }
        }
    }

    /// The tasks that a worker was given, of one job or of all.
    pub(crate) async fn processing(
        &self,
        worker: WorkerId,
        job: Option<JobId>,
    ) -> Result<Vec<(TaskId, String)>, ClientError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|last: &(TaskId, String)| last.0);
            match self.query(Query::Processing { worker, job, after }).await? {
                Report::Tasks { tasks, more } => {
                    let is_last = !more || tasks.is_empty();
                    all.extend(tasks);
                    if is_last {
                        return Ok(all);
                    }
                }
                _ => return Err(another_answer()),
            }
        }
    }

    pub(crate) async fn nbytes(&self, job: Option<JobId>) -> Result<Vec<NbytesOf>, ClientError> {
        match self.query(Query::Nbytes { job }).await? {
            Report::Nbytes(by_name) => Ok(by_name),
            _ => Err(another_answer()),
        }
    }

    pub(crate) async fn worker_reports(&self) -> Result<Vec<WorkerReport>, ClientError> {
        let mut all: Vec<WorkerReport> = Vec::new();
        loop {
            match self.query(Query::Workers { after: all.last().map(|last| last.worker) }).await? {
                Report::Workers { workers, more } => {
                    let is_last = !more || workers.is_empty();
                    all.extend(workers);
                    if is_last {
                        return Ok(all);
                    }
                }
                _ => return Err(another_answer()),
            }
        }
    }
}
