//! What a stage's task makes of its rows: an output in parts, one for each partition that reads it.

use std::sync::Arc;

use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::physical_plan::Partitioning;
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::BatchPartitioner;

use super::batches::Batches;

/// Gathers rows into full batches, part by part. Gathering also copies strings out of large shared buffers, of which
/// otherwise every part would have all.
pub(super) struct Sink {
    /// `None` for an output in one part.
    partitioner: Option<BatchPartitioner>,
    parts: Vec<Part>,
}

struct Part {
    coalescer: BatchCoalescer,
    batches: Vec<RecordBatch>,
}

impl Part {
    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.coalescer.push_batch(batch)?;
        while let Some(batch) = self.coalescer.next_completed_batch() {
            self.batches.push(batch);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Batches> {
        self.coalescer.finish_buffered_batch()?;
        self.batches.extend(std::iter::from_fn(|| self.coalescer.next_completed_batch()));
        Ok(Batches::new(self.batches))
    }
}

impl Sink {
    /// For the rows of partition `task` of `tasks`, which go where `partitioning` says, or all into one part.
    pub(super) fn new(
        schema: &SchemaRef,
        partitioning: Option<&Partitioning>,
        batch_size: usize,
        task: usize,
        tasks: usize,
    ) -> Result<Sink> {
        let count = partitioning.map_or(1, Partitioning::partition_count);
        let partitioner = partitioning.filter(|_| count > 1).cloned();
        let partitioner =
            partitioner.map(|partitioning| BatchPartitioner::try_new(partitioning, Time::new(), task, tasks));
        let coalescer = || BatchCoalescer::new(Arc::clone(schema), batch_size);
        let parts = (0..count).map(|_| Part { coalescer: coalescer(), batches: Vec::new() }).collect();
        Ok(Sink { partitioner: partitioner.transpose()?, parts })
    }

    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let Some(partitioner) = &mut self.partitioner else { return self.parts[0].push(batch) };
        let parts = &mut self.parts;
        partitioner.partition(batch, |part, batch| parts[part].push(batch))
    }

    /// The parts, in their order.
    pub(super) fn finish(self) -> Result<Vec<Batches>> {
        self.parts.into_iter().map(Part::finish).collect()
    }
}
