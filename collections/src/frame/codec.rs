//! A stage's plan as bytes: DataFusion's protobuf encoding, and what it does not know of.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::datasource::source::DataSource;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{AcrossPartitions, ConstExpr, EquivalenceProperties, LexOrdering, PhysicalExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter,
};
use datafusion_proto::physical_plan::from_proto::{parse_physical_sort_exprs, parse_protobuf_partitioning};
use datafusion_proto::physical_plan::to_proto::{
    serialize_partitioning, serialize_physical_exprs, serialize_physical_sort_exprs,
};
use datafusion_proto::physical_plan::{
    DeduplicatingProtoConverter, PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::Message;

use super::csv::CsvScanExec;
use super::exchange::{ExchangeSourceExec, Read};
use super::scan::{How, ScanExec};
use super::write::WriteFilesExec;

/// The encoding of a stage's plan. A filter that an operator tells another one while they run is shared again when it is
/// decoded, as long as both are in the stage.
///
/// # Errors
/// A node that cannot be sent, or would be another one when it is decoded.
pub(super) fn encode(plan: &Arc<dyn ExecutionPlan>) -> Result<bytes::Bytes> {
    let plan = Arc::clone(plan).transform_up(sendable).data()?;
    physical_plan_to_bytes_with_proto_converter(plan, &FrameCodec, &DeduplicatingProtoConverter {})
}

/// The node in a form of which nothing is lost on the way.
fn sendable(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let skip = plan.downcast_ref::<GlobalLimitExec>().map(GlobalLimitExec::skip);
    if plan.fetch().into_iter().chain(skip).any(|rows| u32::try_from(rows).is_err()) {
        let what = "a limit or offset of more than 4,294,967,295 rows cannot be sent to workers".to_owned();
        return Err(DataFusionError::NotImplemented(what));
    }
    let window = plan.downcast_ref::<WindowAggExec>().map(WindowAggExec::window_expr);
    let window = window.or_else(|| plan.downcast_ref::<BoundedWindowAggExec>().map(BoundedWindowAggExec::window_expr));
    // The encoding leaves the filter of a window's aggregate out, and its trait is not public: only its text shows it.
    if window.into_iter().flatten().any(|expr| format!("{expr:?}").contains("filter: Some(")) {
        let what = "an aggregate with FILTER over a window cannot be sent to workers".to_owned();
        return Err(DataFusionError::NotImplemented(what));
    }
    let groups = plan.downcast_ref::<AggregateExec>().map(AggregateExec::group_expr);
    if groups.is_some_and(|groups| groups.has_grouping_set() && groups.expr().is_empty()) {
        // A set of no columns leaves nothing in the encoding.
        let what = "grouping by the empty set only cannot be sent to workers".to_owned();
        return Err(DataFusionError::NotImplemented(what));
    }
    if let Some(scan) = ScanExec::wrap(&plan)? {
        return Ok(Transformed::yes(Arc::new(scan)));
    }
    let memory = plan.downcast_ref::<DataSourceExec>();
    let memory = memory.and_then(|source| source.data_source().downcast_ref::<MemorySourceConfig>());
    if let Some(memory) = memory.filter(|memory| !memory.sort_information().is_empty())
        && let Some(columns) = memory.projection()
    {
        // The order is told in terms of the projected columns, and would be read in terms of all.
        let project = |batches: &Vec<RecordBatch>| batches.iter().map(|batch| batch.project(columns)).collect();
        let partitions = memory.partitions().iter().map(project).collect::<Result<Vec<Vec<_>>, ArrowError>>()?;
        let projected = MemorySourceConfig::try_new(&partitions, plan.schema(), None)?.with_limit(memory.fetch());
        let projected = projected.try_with_sort_information(memory.sort_information().to_vec())?;
        return Ok(Transformed::yes(DataSourceExec::from_data_source(projected)));
    }
    Ok(Transformed::no(plan))
}

/// The plan that these bytes are the encoding of. Functions are found by their names in `context`.
pub(super) fn decode(bytes: &[u8], context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
    physical_plan_from_bytes_with_proto_converter(bytes, context, &FrameCodec, &DeduplicatingProtoConverter {})
}

/// Encodes our own nodes.
#[derive(Debug)]
struct FrameCodec;

/// A node that DataFusion does not know.
#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(message, optional, tag = "1")]
    exchange: Option<ExchangeNode>,
    /// A [`CsvScanExec`].
    #[prost(bytes = "vec", optional, tag = "2")]
    csv: Option<Vec<u8>>,
    /// A [`ScanExec`].
    #[prost(message, optional, tag = "3")]
    scan: Option<ScanNode>,
    /// The sink of a [`WriteFilesExec`].
    #[prost(bytes = "vec", optional, tag = "4")]
    write: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ScanNode {
    /// As DataFusion encodes it.
    #[prost(bytes = "vec", tag = "1")]
    scan: Vec<u8>,
    #[prost(string, tag = "2")]
    compression: String,
    #[prost(bool, tag = "3")]
    is_json_array: bool,
}

/// What an exchange's rows are known to have in common, beside their order.
#[derive(Clone, PartialEq, Message)]
struct ExpressionsNode {
    #[prost(message, repeated, tag = "1")]
    exprs: Vec<protobuf::PhysicalExprNode>,
}

#[derive(Clone, PartialEq, Message)]
struct ExchangeNode {
    #[prost(uint32, tag = "1")]
    exchange: u32,
    #[prost(uint32, tag = "2")]
    outputs: u32,
    #[prost(uint32, tag = "3")]
    read: u32,
    #[prost(message, optional, tag = "4")]
    schema: Option<protobuf::Schema>,
    #[prost(message, optional, tag = "5")]
    partitioning: Option<protobuf::Partitioning>,
    /// The orders of each output, each as a list.
    #[prost(message, repeated, tag = "6")]
    orderings: Vec<OrderingNode>,
    #[prost(message, optional, tag = "7")]
    constants: Option<ExpressionsNode>,
    /// Classes of equal expressions.
    #[prost(message, repeated, tag = "8")]
    equal: Vec<ExpressionsNode>,
}

#[derive(Clone, PartialEq, Message)]
struct OrderingNode {
    #[prost(message, repeated, tag = "1")]
    exprs: Vec<protobuf::PhysicalSortExprNode>,
}

const READS: [Read; 4] = [Read::Part, Read::MergePart, Read::Gather, Read::Each];

fn malformed(what: &str) -> DataFusionError {
    DataFusionError::Plan(format!("the plan of a stage is malformed: {what}"))
}

impl PhysicalExtensionCodec for FrameCodec {
    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let mut encoded = Node::default();
        if let Some(source) = node.downcast_ref::<ExchangeSourceExec>() {
            let equivalence = source.properties().equivalence_properties();
            let sort_exprs = |ordering: &LexOrdering| {
                let exprs = serialize_physical_sort_exprs(ordering.iter().cloned(), self, converter)?;
                Ok(OrderingNode { exprs })
            };
            let exprs = |exprs: Vec<Arc<dyn PhysicalExpr>>| {
                let exprs = serialize_physical_exprs(&exprs, self, converter)?;
                Ok::<_, DataFusionError>(ExpressionsNode { exprs })
            };
            let constants = equivalence.constants().into_iter().map(|constant| constant.expr).collect();
            encoded.exchange = Some(ExchangeNode {
                exchange: source.exchange,
                outputs: source.outputs,
                read: READS.iter().position(|read| *read == source.read).unwrap_or_default() as u32,
                schema: Some(node.schema().as_ref().try_into()?),
                partitioning: Some(serialize_partitioning(source.properties().output_partitioning(), self, converter)?),
                orderings: equivalence.oeq_class().iter().map(sort_exprs).collect::<Result<_>>()?,
                constants: Some(exprs(constants)?),
                equal: equivalence
                    .eq_group()
                    .iter()
                    .map(|class| exprs(class.iter().cloned().collect()))
                    .collect::<Result<_>>()?,
            });
        } else if let Some(scan) = node.downcast_ref::<ScanExec>() {
            let inner = physical_plan_to_bytes_with_proto_converter(Arc::clone(&scan.scan), self, converter)?;
            let How { compression, is_json_array } = scan.how.clone();
            encoded.scan = Some(ScanNode { scan: inner.to_vec(), compression, is_json_array });
        } else if let Some(scan) = node.downcast_ref::<CsvScanExec>() {
            encoded.csv = Some(scan.encode()?);
        } else if let Some(write) = node.downcast_ref::<WriteFilesExec>() {
            encoded.write = Some(write.encode()?);
        } else {
            return Err(DataFusionError::NotImplemented(format!("{} cannot be sent to a worker", node.name())));
        }
        encoded.encode(buf).map_err(|error| DataFusionError::External(Box::new(error)))
    }

    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let node = Node::decode(buf).map_err(|error| malformed(&error.to_string()))?;
        if let Some(scan) = node.csv {
            return CsvScanExec::decode(&scan, context);
        }
        if let Some(ScanNode { scan, compression, is_json_array }) = node.scan {
            let scan = physical_plan_from_bytes_with_proto_converter(&scan, context, self, converter)?;
            return How { compression, is_json_array }.restore(&scan);
        }
        if let Some(sink) = node.write {
            let [input] = inputs else { return Err(malformed("files are written of one input")) };
            return Ok(Arc::new(WriteFilesExec::decode(&sink, Arc::clone(input), context)?));
        }
        let Some(source) = node.exchange else { return Err(malformed("a node of no kind")) };
        let schema: Schema = source.schema.as_ref().ok_or_else(|| malformed("no schema"))?.try_into()?;
        let schema = Arc::new(schema);
        let context = PhysicalPlanDecodeContext::new(context, self);
        let partitioning = parse_protobuf_partitioning(source.partitioning.as_ref(), &context, &schema, converter)?;
        let exprs = |node: &ExpressionsNode| -> Result<Vec<Arc<dyn PhysicalExpr>>> {
            node.exprs.iter().map(|expr| converter.proto_to_physical_expr(expr, &schema, &context)).collect()
        };
        let mut orderings = Vec::with_capacity(source.orderings.len());
        for ordering in &source.orderings {
            orderings.extend(LexOrdering::new(parse_physical_sort_exprs(
                &ordering.exprs,
                &context,
                &schema,
                converter,
            )?));
        }
        let mut equivalence = EquivalenceProperties::new_with_orderings(Arc::clone(&schema), orderings);
        for class in &source.equal {
            let class = exprs(class)?;
            for pair in class.windows(2) {
                equivalence.add_equal_conditions(Arc::clone(&pair[0]), Arc::clone(&pair[1]))?;
            }
        }
        if let Some(constants) = &source.constants {
            let constants = exprs(constants)?;
            equivalence.add_constants(
                constants.into_iter().map(|expr| ConstExpr::new(expr, AcrossPartitions::Uniform(None))),
            )?;
        }
        Ok(Arc::new(ExchangeSourceExec::new(
            source.exchange,
            source.outputs,
            *READS.get(source.read as usize).ok_or_else(|| malformed("an unknown way to read"))?,
            equivalence,
            partitioning.ok_or_else(|| malformed("no partitioning"))?,
        )))
    }
}
