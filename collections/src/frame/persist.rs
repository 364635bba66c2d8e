//! Frames that are computed once and stay in the cluster.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream_partitioned};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;
use starling_runtime::parts::Parts;
use starling_runtime::task::Future;

use super::batches::Batches;
use super::error::FrameError;
use super::mesh_exec::{MeshExec, MeshSession};
use super::stored::StoredTable;

/// Keeping what a frame gives.
pub trait Persist {
    /// Computes the frame and keeps its partitions in the cluster's memory, or on its disks when memory is short, as the
    /// table `name` of the session, in place of an earlier one. Gives a frame of the table. Does not wait until all is
    /// computed. The partitions are released when the table is deregistered and no frame of it is left; what is lost with a
    /// worker is computed again. A table that is left in the client's own session keeps the client: deregister it, or shut the
    /// cluster down.
    ///
    /// ```no_run
    /// # use starling_collections::frame::{Frames, FrameError, Persist};
    /// # async fn run(frames: Frames) -> Result<(), FrameError> {
    /// let big = frames.sql("SELECT * FROM posts WHERE score > 10").await?.persist("popular").await?;
    /// let tags = frames.sql("SELECT tags, count(*) FROM popular GROUP BY tags").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`FrameError::Query`] if the frame cannot be planned, or is of a session without a cluster.
    fn persist(self, name: &str) -> impl std::future::Future<Output = Result<DataFrame, FrameError>> + Send;
}

impl Persist for DataFrame {
    async fn persist(self, name: &str) -> Result<DataFrame, FrameError> {
        let (state, plan) = self.into_parts();
        let plan = state.create_physical_plan(&plan).await?;
        let (outputs, plan) = store(plan, &state).await?;
        let table = StoredTable::new(plan.schema(), outputs, plan.output_ordering().cloned());
        // Columns of the same name would be refused once the old table is gone.
        DFSchema::try_from(plan.schema())?;
        let context = SessionContext::new_with_state(state);
        context.deregister_table(name)?;
        context.register_table(name, Arc::new(table))?;
        Ok(context.table(name).await?)
    }
}

pub(super) fn no_cluster() -> DataFusionError {
    DataFusionError::Plan("the frame's session has no cluster to keep it in".to_owned())
}

/// The outputs of a plan, which stay where they are computed.
pub(super) async fn store(
    plan: Arc<dyn ExecutionPlan>,
    state: &SessionState,
) -> Result<(Vec<Future<Parts>>, Arc<dyn ExecutionPlan>)> {
    let session = state.config().get_extension::<MeshSession>().ok_or_else(no_cluster)?;
    let whole = plan.transform_down(|node| {
        Ok(match node.downcast_ref::<MeshExec>().map(|placed| Arc::clone(placed.whole())) {
            Some(whole) => Transformed::yes(whole),
            None => Transformed::no(node),
        })
    });
    let whole = whole.data()?;
    if let Ok(placed) = MeshExec::try_new(&whole, &session) {
        return Ok((placed.store(state.config_options()).await?, whole));
    }
    let cluster = session.cluster.upgrade().ok_or_else(no_cluster)?;
    let mut outputs = Vec::new();
    for partition in execute_stream_partitioned(Arc::clone(&whole), state.task_ctx())? {
        let batches = Batches::new(partition.try_collect().await?);
        let output = cluster.scatter(Parts::live([batches])).await;
        outputs.push(output.map_err(|error| DataFusionError::External(Box::new(error)))?);
    }
    Ok((outputs, whole))
}
