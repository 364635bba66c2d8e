//! What the runner of sqllogictest talks to: a session of DataFusion, plain or of the cluster.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;
use sqllogictest::{AsyncDB, ColumnType, DBOutput};

use super::render;

/// How long a record may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A column's type, as one letter in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Boolean,
    DateTime,
    Integer,
    Timestamp,
    Float,
    Text,
    Another,
}

impl ColumnType for ColumnKind {
    fn from_char(value: char) -> Option<ColumnKind> {
        Some(match value {
            'B' => ColumnKind::Boolean,
            'D' => ColumnKind::DateTime,
            'I' => ColumnKind::Integer,
            'P' => ColumnKind::Timestamp,
            'R' => ColumnKind::Float,
            'T' => ColumnKind::Text,
            _ => ColumnKind::Another,
        })
    }

    fn to_char(&self) -> char {
        match self {
            ColumnKind::Boolean => 'B',
            ColumnKind::DateTime => 'D',
            ColumnKind::Integer => 'I',
            ColumnKind::Timestamp => 'P',
            ColumnKind::Float => 'R',
            ColumnKind::Text => 'T',
            ColumnKind::Another => '?',
        }
    }
}

impl ColumnKind {
    pub(super) fn of(data_type: &DataType) -> ColumnKind {
        match data_type {
            DataType::Boolean => ColumnKind::Boolean,
            data_type if data_type.is_integer() => ColumnKind::Integer,
            // Decimals and floats.
            data_type if data_type.is_numeric() => ColumnKind::Float,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnKind::Text,
            DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => ColumnKind::DateTime,
            DataType::Timestamp(..) => ColumnKind::Timestamp,
            DataType::Dictionary(_, values) if ColumnKind::of(values) == ColumnKind::Text => ColumnKind::Text,
            _ => ColumnKind::Another,
        }
    }
}

/// Why a record has no answer. The files tell these texts.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("DataFusion error: {}", .0.strip_backtrace())]
    DataFusion(#[from] DataFusionError),
    #[error("Arrow error: {0}")]
    Arrow(#[from] datafusion::arrow::error::ArrowError),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("the query panicked")]
    Panic,
}

/// A session.
pub(super) struct Engine {
    context: SessionContext,
    /// What is told as `WORKSPACE_ROOT`.
    root: Option<String>,
}

impl Engine {
    pub(super) fn new(context: SessionContext, root: Option<String>) -> Engine {
        Engine { context, root }
    }
}

#[async_trait]
impl AsyncDB for Engine {
    type Error = EngineError;
    type ColumnType = ColumnKind;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<ColumnKind>, EngineError> {
        let (context, sql) = (self.context.clone(), sql.to_owned());
        // In a task of its own, so that a query that panics fails its record only.
        let mut query = tokio::spawn(async move { execute(&context, &sql).await });
        let answered = match tokio::time::timeout(PATIENCE, &mut query).await {
            Ok(joined) => joined.map_err(|_| EngineError::Panic)?,
            Err(_) => {
                query.abort();
                return Err(EngineError::Timeout);
            }
        };
        let (schema, batches) = answered?;
        let types: Vec<ColumnKind> = schema.fields().iter().map(|field| ColumnKind::of(field.data_type())).collect();
        let rows = render::rows(&batches, self.root.as_deref())?;
        if rows.is_empty() && types.is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "DataFusion"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

async fn execute(context: &SessionContext, sql: &str) -> Result<(Arc<Schema>, Vec<RecordBatch>), DataFusionError> {
    let frame = context.sql(sql).await?;
    let task = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    let schema = plan.schema();
    Ok((schema, collect(plan, task).await?))
}
