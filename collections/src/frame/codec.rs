//! A stage's plan as bytes: DataFusion's protobuf encoding, and what it does not know of.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter,
};
use datafusion_proto::physical_plan::from_proto::{parse_physical_sort_exprs, parse_protobuf_partitioning};
use datafusion_proto::physical_plan::to_proto::{serialize_partitioning, serialize_physical_sort_exprs};
use datafusion_proto::physical_plan::{
    DeduplicatingProtoConverter, PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::Message;

use super::csv::CsvScanExec;
use super::exchange::{ExchangeSourceExec, Read};
use super::write::WriteFilesExec;

/// The encoding of a stage's plan. A filter that an operator tells another one while they run is shared again when it is
/// decoded, as long as both are in the stage.
pub(super) fn encode(plan: &Arc<dyn ExecutionPlan>) -> Result<bytes::Bytes> {
    physical_plan_to_bytes_with_proto_converter(Arc::clone(plan), &FrameCodec, &DeduplicatingProtoConverter {})
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
    /// The sink of a [`WriteFilesExec`].
    #[prost(bytes = "vec", optional, tag = "3")]
    write: Option<Vec<u8>>,
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
    #[prost(message, repeated, tag = "6")]
    ordering: Vec<protobuf::PhysicalSortExprNode>,
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
            let ordering = source.properties().output_ordering().cloned().into_iter().flatten();
            encoded.exchange = Some(ExchangeNode {
                exchange: source.exchange,
                outputs: source.outputs,
                read: READS.iter().position(|read| *read == source.read).unwrap_or_default() as u32,
                schema: Some(node.schema().as_ref().try_into()?),
                partitioning: Some(serialize_partitioning(source.properties().output_partitioning(), self, converter)?),
                ordering: serialize_physical_sort_exprs(ordering, self, converter)?,
            });
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
        if let Some(sink) = node.write {
            let [input] = inputs else { return Err(malformed("files are written of one input")) };
            return Ok(Arc::new(WriteFilesExec::decode(&sink, Arc::clone(input), context)?));
        }
        let Some(source) = node.exchange else { return Err(malformed("a node of no kind")) };
        let schema: Schema = source.schema.as_ref().ok_or_else(|| malformed("no schema"))?.try_into()?;
        let context = PhysicalPlanDecodeContext::new(context, self);
        let partitioning = parse_protobuf_partitioning(source.partitioning.as_ref(), &context, &schema, converter)?;
        let ordering = LexOrdering::new(parse_physical_sort_exprs(&source.ordering, &context, &schema, converter)?);
        Ok(Arc::new(ExchangeSourceExec::new(
            source.exchange,
            source.outputs,
            *READS.get(source.read as usize).ok_or_else(|| malformed("an unknown way to read"))?,
            Arc::new(schema),
            partitioning.ok_or_else(|| malformed("no partitioning"))?,
            ordering,
        )))
    }
}
