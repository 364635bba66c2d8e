//! The session of a client: its tables, its functions, its settings.

use std::sync::Arc;

use datafusion::prelude::{DataFrame, SessionContext};
use starling_actors::Cluster;
use tokio::sync::watch;

use super::error::FrameError;
use super::progress::QueryProgress;

/// A client's session: the tables and functions that its queries know.
#[derive(Clone)]
pub struct Frames {
    cluster: Cluster,
    context: Arc<Session>,
}

/// What the client keeps.
struct Session {
    context: SessionContext,
    /// How far the query is that was begun last.
    progress: watch::Sender<QueryProgress>,
}

impl Frames {
    /// The session of this client: the same one each time.
    pub fn of(cluster: &Cluster) -> Frames {
        let context = cluster.extension(|| Session {
            context: SessionContext::new(),
            progress: watch::Sender::new(QueryProgress::default()),
        });
        Frames { cluster: cluster.clone(), context }
    }

    /// The cluster that executes.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// DataFusion's session: whatever is registered there can be queried.
    pub fn context(&self) -> &SessionContext {
        &self.context.context
    }

    /// How far the query is that was begun last: its stages and their tasks.
    pub fn progress(&self) -> watch::Receiver<QueryProgress> {
        self.context.progress.subscribe()
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
