//! What lies between two stages: record batches, live on their own node, Arrow IPC on the way to another one.

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

/// Record batches of one schema, perhaps none. The encoding is an Arrow IPC stream, out of band, which is read without being
/// copied; of no batches it is empty.
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

    pub(super) fn size(&self) -> u64 {
        self.nbytes
    }

    pub(super) fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    /// The messages of the stream, first the schema, then each batch by itself: what is decoded of one shares no memory with
    /// the others, so that operators that count what they hold count it once.
    fn encode(&self) -> Result<Vec<Buffer>, ArrowError> {
        let Some(first) = self.batches.first() else { return Ok(Vec::new()) };
        let mut writer = StreamWriter::try_new(Vec::new(), first.schema_ref())?;
        let mut messages = vec![std::mem::take(writer.get_mut()).into()];
        for (number, batch) in self.batches.iter().enumerate() {
            *writer.get_mut() = Vec::with_capacity(nbytes_of(batch) as usize + MESSAGE_HEAD_BYTES);
            writer.write(batch)?;
            if number + 1 == self.batches.len() {
                // A batch without buffers is only decoded when something follows.
                writer.finish()?;
            }
            messages.push(std::mem::take(writer.get_mut()).into());
        }
        Ok(messages)
    }

    fn decode(messages: Vec<Buffer>) -> Result<Batches, ArrowError> {
        let nbytes = messages.iter().map(|message| message.len() as u64).sum();
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        for message in messages {
            let mut message = datafusion::arrow::buffer::Buffer::from(message.0);
            while !message.is_empty() {
                batches.extend(decoder.decode(&mut message)?);
            }
        }
        decoder.finish()?;
        Ok(Batches { batches, nbytes })
    }
}

/// About what a message has beside the columns' bytes, padding included.
const MESSAGE_HEAD_BYTES: usize = 4096;

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
        self.encode().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Batches, D::Error> {
        Batches::decode(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, DictionaryArray, Int64Array, NullArray, StringViewArray};
    use datafusion::arrow::datatypes::{Int32Type, Schema};
    use datafusion::arrow::record_batch::RecordBatchOptions;
    use starling_runtime::value::{Encoded, LiveValue};

    use super::*;

    fn batch(from: i64) -> RecordBatch {
        let numbers: Int64Array = (from..from + 1000).map(Some).collect();
        let texts: StringViewArray = (from..from + 1000).map(|n| Some(format!("a text of some length {n}"))).collect();
        let dictionary: DictionaryArray<Int32Type> = (from..from + 1000).map(|n| ["x", "y"][n as usize % 2]).collect();
        let columns = [("n", Arc::new(numbers) as ArrayRef), ("t", Arc::new(texts)), ("d", Arc::new(dictionary))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn batches_are_decoded_as_they_were_and_share_no_memory_with_each_other() {
        let batches = Batches::new(vec![batch(0), batch(1000).slice(10, 500)]);
        let encoded = Encoded::of(&batches).unwrap();
        assert_eq!(encoded.buffers.len(), 3);
        let back: Batches = encoded.decode().unwrap();
        assert_eq!(back.batches(), batches.batches());
        let sizes: Vec<usize> = back.batches().iter().map(RecordBatch::get_array_memory_size).collect();
        assert!(sizes[0] < 10 * encoded.buffers[1].len(), "{sizes:?}");
    }

    #[test]
    fn batches_without_buffers_are_decoded_too() {
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
        let nulls = RecordBatch::try_from_iter([("n", Arc::new(NullArray::new(7)) as ArrayRef)]).unwrap();
        for batch in [nothing, nulls, batch(0).slice(0, 0)] {
            for count in [1, 2] {
                let batches = Batches::new(vec![batch.clone(); count]);
                let back: Batches = Encoded::of(&batches).unwrap().decode().unwrap();
                assert_eq!(back.batches(), batches.batches());
            }
        }
    }

    #[test]
    fn no_batches_have_an_empty_encoding() {
        let encoded = Encoded::of(&Batches::default()).unwrap();
        assert!(encoded.buffers.is_empty());
        assert!(encoded.decode::<Batches>().unwrap().batches().is_empty());
    }

    #[test]
    fn the_size_is_about_that_of_the_encoding_and_is_not_found_by_encoding() {
        let batches = Batches::new(vec![batch(0).slice(100, 200)]);
        let (counted, encoded) = (batches.nbytes().unwrap(), Encoded::of(&batches).unwrap().nbytes());
        // Strings outside of the slice are still among the encoded buffers until they are gathered.
        assert!(counted > 0 && counted < 2 * encoded && encoded < 10 * counted, "{counted} {encoded}");
    }

    #[test]
    fn what_is_no_stream_is_an_error() {
        let broken = Encoded::of(&vec![Buffer::from(vec![1_u8; 100])]).unwrap();
        assert!(broken.decode::<Batches>().is_err());
    }
}
