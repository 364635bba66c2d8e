//! What stands between a query and its files, with the remedy.

use datafusion::error::DataFusionError;

/// Why a query cannot read its files. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A URL of a kind that is not known.
    #[error(
        "{url} cannot be read: only paths and the URLs file://, http://, https://, s3://, s3a:// and hdfs:// are known; copy the \
         file to one of these, or register a store for it on every node"
    )]
    UnknownScheme {
        /// The URL.
        url: String,
    },
    /// A URL without what must be in it.
    #[error("{url} is incomplete: {problem}")]
    BadUrl {
        /// The URL.
        url: String,
        /// What to write.
        problem: &'static str,
    },
    /// A variable of the environment that stands in the way.
    #[error("{store} cannot be reached as this node's environment is: {problem}")]
    Environment {
        /// The store.
        store: String,
        /// Which variable, and what to set.
        problem: String,
    },
    /// A store's failure, with what to look at.
    #[error("{source}; {remedy}")]
    Store {
        /// The failure.
        source: Box<object_store::Error>,
        /// What to look at.
        remedy: String,
    },
    /// The threads for remote files could not be started.
    #[error("the threads that read remote files could not be started: {0}")]
    Threads(std::io::Error),
    /// A file that is another one than when the query was planned.
    #[error("{path} has changed on {node} while the query ran: {what}; run the query again when nothing writes to it")]
    Changed {
        /// The file.
        path: String,
        /// The node.
        node: String,
        /// What is different.
        what: String,
    },
    /// A file that has gone since the query was planned.
    #[error("{path} is no longer on {node}; put it back if it was removed by mistake, and run the query again")]
    Gone {
        /// The file.
        path: String,
        /// The node.
        node: String,
    },
    /// Files that are needed together and lie apart.
    #[error(
        "no node has all of the files that are to be read together, such as {one} and {other}; copy them to the same nodes, for \
         example with `node put`"
    )]
    Apart {
        /// One of them.
        one: String,
        /// One that is on none of its nodes.
        other: String,
    },
}

impl From<StoreError> for DataFusionError {
    fn from(error: StoreError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}
