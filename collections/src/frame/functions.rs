//! Functions of the user's: they travel by name, so every node's binary has them.

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;

/// Functions that are linked into the binary: see [`functions!`](crate::functions).
pub struct LinkedFunctions(pub fn(&mut dyn FunctionRegistry) -> Result<()>);

starling_runtime::task::inventory::collect!(LinkedFunctions);

/// Registers the functions of the binary.
pub(super) fn register_linked(registry: &mut dyn FunctionRegistry) -> Result<()> {
    starling_runtime::task::inventory::iter::<LinkedFunctions>().try_for_each(|linked| (linked.0)(registry))
}

/// Links functions of your own into the binary, so that the sessions of its clients know them and its workers can run them:
/// like tasks, they have to be in the binary of every node.
///
/// ```
/// use std::sync::Arc;
/// use datafusion::arrow::datatypes::DataType;
/// use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
/// # use starling_collections::frame::datafusion;
///
/// starling_collections::functions!(|registry| {
///     let same = Arc::new(|args: &[ColumnarValue]| Ok(args[0].clone()));
///     let udf = create_udf("same", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, same);
///     registry.register_udf(Arc::new(udf))?;
///     Ok(())
/// });
/// ```
#[macro_export]
macro_rules! functions {
    ($register:expr) => {
        const _: () = {
            use $crate::frame::__inventory as inventory;
            inventory::submit! { $crate::frame::LinkedFunctions($register) }
        };
    };
}
