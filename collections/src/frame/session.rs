//! The session of a client: its tables, its functions, its settings.

use std::sync::Arc;

use datafusion::prelude::{DataFrame, SessionContext};
use starling_actors::Cluster;

use super::error::FrameError;

/// A client's session: the tables and functions that its queries know.
#[derive(Clone)]
pub struct Frames {
    cluster: Cluster,
    context: Arc<Session>,
}

/// What the client keeps.
struct Session(SessionContext);

impl Frames {
    /// The session of this client: the same one each time.
    pub fn of(cluster: &Cluster) -> Frames {
        let context = cluster.extension(|| Session(SessionContext::new()));
        Frames { cluster: cluster.clone(), context }
    }

    /// A session of its own, which knows nothing of the client's other ones.
    pub fn fresh(cluster: &Cluster) -> Frames {
        Frames { cluster: cluster.clone(), context: Arc::new(Session(SessionContext::new())) }
    }

    /// The cluster that executes.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// DataFusion's session: whatever is registered there can be queried.
    pub fn context(&self) -> &SessionContext {
        &self.context.0
    }

    /// The frame that a query gives. Nothing is read before it is collected; statements such as `CREATE VIEW` take effect
    /// now.
    ///
    /// # Errors
    /// [`FrameError::Query`] for what is no SQL, or names what is not there.
    pub async fn sql(&self, query: &str) -> Result<DataFrame, FrameError> {
        Ok(self.context().sql(query).await?)
    }
}

/// Queries on a cluster.
pub trait FrameExt {
    /// The client's session.
    fn frames(&self) -> Frames;
}

impl FrameExt for Cluster {
    fn frames(&self) -> Frames {
        Frames::of(self)
    }
}
