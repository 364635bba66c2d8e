//! The session of a client: its tables, its functions, its settings.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use starling_actors::Cluster;
use tokio::sync::watch;

use super::csv::CsvTableFactory;
use super::error::FrameError;
use super::files::{MeshFiles, runtime_env};
use super::functions::register_linked;
use super::mesh_exec::MeshSession;
use super::planner;
use super::progress::QueryProgress;

/// Up to which size, as far as it is known, a join's smaller side is sent to every worker whole.
const BROADCAST_BYTES_MAX: usize = 16 << 20;
const BROADCAST_ROWS_MAX: usize = 1_000_000;

/// A client's session: the tables and functions that its queries know.
#[derive(Clone)]
pub struct Frames {
    cluster: Cluster,
    session: Arc<Session>,
}

/// What the client keeps.
struct Session {
    context: SessionContext,
    /// Where files are.
    files: MeshFiles,
    /// How far the query is that was begun last.
    progress: Arc<watch::Sender<QueryProgress>>,
}

impl Session {
    fn new(cluster: &Cluster) -> Session {
        let progress = Arc::new(watch::Sender::new(QueryProgress::default()));
        let files = MeshFiles::new(cluster);
        let session =
            MeshSession { cluster: cluster.downgrade(), files: files.clone(), progress: Arc::clone(&progress) };
        Session { context: context(cluster, session), files, progress }
    }
}

impl Frames {
    /// The session of this client: the same one each time.
    pub fn of(cluster: &Cluster) -> Frames {
        let session = cluster.extension(|| Session::new(cluster));
        Frames { cluster: cluster.clone(), session }
    }

    /// A session of its own, which knows nothing of the client's other ones.
    pub fn fresh(cluster: &Cluster) -> Frames {
        Frames { cluster: cluster.clone(), session: Arc::new(Session::new(cluster)) }
    }

    /// The cluster that executes.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// DataFusion's session: whatever is registered there can be queried.
    pub fn context(&self) -> &SessionContext {
        &self.session.context
    }

    /// Where the files of tables are: which node has which.
    pub fn files(&self) -> &MeshFiles {
        &self.session.files
    }

    /// How far the query is that was begun last: its stages and their tasks.
    pub fn progress(&self) -> watch::Receiver<QueryProgress> {
        self.session.progress.subscribe()
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

fn context(cluster: &Cluster, session: MeshSession) -> SessionContext {
    let runtime = runtime_env(session.files.registry()).build_arc().unwrap_or_else(|error| {
        tracing::error!(%error, "the session has no stores of files but the client's own disk");
        Arc::default()
    });
    let mut state = SessionStateBuilder::new()
        .with_config(config(cluster).with_extension(Arc::new(session.clone())))
        .with_default_features()
        .with_runtime_env(runtime)
        .with_query_planner(Arc::new(planner::MeshPlanner))
        .with_physical_optimizer_rules(planner::rules(session))
        .build();
    state.table_factories_mut().insert("CSV".to_owned(), Arc::new(CsvTableFactory::new(cluster)));
    if let Err(error) = register_linked(&mut state) {
        tracing::error!(%error, "functions of this binary could not be registered");
    }
    SessionContext::new_with_state(state)
}

fn config(cluster: &Cluster) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions_for(cluster.nthreads()))
        .with_information_schema(true)
        .with_round_robin_repartition(false);
    let options = config.options_mut();
    // These share state between the partitions of a plan, which here are in different processes.
    options.execution.enable_file_stream_work_stealing = false;
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // A build side that is sent to every worker lets the scan of the other side be filtered by it, and saves an exchange of
    // the other side; each task builds its own hash table of it.
    options.optimizer.hash_join_single_partition_threshold = BROADCAST_BYTES_MAX;
    options.optimizer.hash_join_single_partition_threshold_rows = BROADCAST_ROWS_MAX;
    // So that errors have their place in the statement.
    options.sql_parser.collect_spans = true;
    config
}

/// How many partitions exchanges have: two for each slot, so that no slot waits long for the last task of a stage; fewer
/// on large clusters, since every task of a stage reads from every task of the one before.
fn partitions_for(slots: u32) -> usize {
    let slots = slots.max(1) as usize;
    if slots <= 64 { slots * 2 } else { slots }
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
