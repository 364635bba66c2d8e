//! What lies between two stages: record batches, live on their own node, Arrow IPC on the way to another one.

use std::io::Cursor;

use bytes::Bytes;
use datafusion::arrow::array::Array;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use starling_runtime::size;
use starling_runtime::value::Buffer;

/// Record batches of one schema, perhaps none. The encoding is one Arrow IPC stream, out of band, which is read without
/// being copied; of no batches it is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Batches {
    batches: Vec<RecordBatch>,
    /// The size of the encoding, about.
    nbytes: u64,
}

impl Batches {
    pub(super) fn new(batches: Vec<RecordBatch>) -> Batches {
        let nbytes = batches.iter().map(nbytes_of).sum();
        Batches { batches, nbytes }
    }

    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    pub(super) fn nbytes(&self) -> u64 {
        self.nbytes
    }

    pub(super) fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    fn encode(&self) -> Result<Bytes, ArrowError> {
        let Some(first) = self.batches.first() else { return Ok(Bytes::new()) };
        let mut bytes = Vec::with_capacity(self.nbytes as usize + 4096);
        let mut writer = StreamWriter::try_new(Cursor::new(&mut bytes), first.schema_ref())?;
        for batch in &self.batches {
            writer.write(batch)?;
        }
        writer.finish()?;
        drop(writer);
        Ok(bytes.into())
    }

    fn decode(bytes: Bytes) -> Result<Batches, ArrowError> {
        let nbytes = bytes.len() as u64;
        let mut bytes = datafusion::arrow::buffer::Buffer::from(bytes);
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            batches.extend(decoder.decode(&mut bytes)?);
        }
        decoder.finish()?;
        Ok(Batches { batches, nbytes })
    }
}

/// What a batch takes when it is encoded: only the rows that it shows of the buffers that it shares.
fn nbytes_of(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter();
    columns
        .map(|column| {
            column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_buffer_memory_size()) as u64
        })
        .sum()
}

impl Serialize for Batches {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if size::is_counting() {
            return size::count(serializer, self.nbytes);
        }
        Buffer(self.encode().map_err(S::Error::custom)?).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Batches, D::Error> {
        let bytes = Buffer::deserialize(deserializer)?;
        Batches::decode(bytes.0).map_err(D::Error::custom)
    }
}
