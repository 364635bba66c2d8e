//! Why a bag has no result.

use starling_core::failure::{FailureCause, TaskFailure};
use starling_runtime::task::ClientError;
use starling_runtime::value::CodecError;

use crate::csv::CsvError;
use crate::input::ReadError;

/// Why a bag has no result. Nothing of it is kept; computing it again may help if a node was lost.
#[derive(Debug, thiserror::Error)]
pub enum BagError {
    /// A task failed, or the cluster is out of reach.
    #[error(transparent)]
    Client(Box<ClientError>),
    /// The files do not fit together, or do not have the columns asked for.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// A record is not of the items' type, or a file cannot be written.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A captured value or an item could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// What came back from the workers is not what the bag's type says.
    #[error("the bag's items could not be taken: {0}")]
    Items(FailureCause),
    /// The records of files have no type before a closure gives them one.
    #[error("records of a file have no type yet: put a map(task!(|row: Row| ...)) before this step")]
    Untyped,
    /// Two bags have not as many partitions, so that their items are at no common places.
    #[error(
        "bags of {left} and of {right} partitions cannot be zipped: bring them to the same partitions, as by repartition(1) \
         before the steps that both have"
    )]
    Unaligned {
        /// How many partitions the one has.
        left: usize,
        /// How many the other has.
        right: usize,
    },
    /// More items were to be chosen than there are.
    #[error(
        "{wanted} items cannot be chosen out of {total}: ask for fewer, or let them repeat (choices) if there are any"
    )]
    TooFew {
        /// How many were asked for.
        wanted: u64,
        /// How many there are.
        total: u64,
    },
    /// Computed twice, the bag did not have the same items.
    #[error("the bag has other items each time that it is computed: persist it first, and choose from what is kept")]
    Unsteady,
    /// A sum of integers does not fit into 64 bits.
    #[error("the sum is beyond {type_name}: map the items to f64 for one that is near, or fold them into an i128")]
    Overflow {
        /// The type of the sum.
        type_name: &'static str,
    },
}

impl From<ClientError> for BagError {
    fn from(error: ClientError) -> BagError {
        BagError::Client(Box::new(error))
    }
}

impl BagError {
    /// The cause in one line, without the task in which it came up, if the task itself failed by an error.
    pub fn reason(&self) -> String {
        match self {
            BagError::Client(error) => match &**error {
                ClientError::Failed(TaskFailure { cause: FailureCause::Error { message, sources }, .. }) => {
                    sources.iter().fold(message.clone(), |text, source| text + ": " + source)
                }
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }
}
