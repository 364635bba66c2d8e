//! A partition as an Avro file.

use apache_avro::types::Value;
use apache_avro::{Codec, DeflateSettings, Schema, Writer, ZstandardSettings, read_marker, to_value};

use crate::input::{Compression, ReadError};

/// So many records make a block.
const BLOCK_RECORDS: usize = 4096;

/// A file under construction.
pub(super) struct AvroFile {
    schema: Schema,
    codec: Codec,
    /// What is written: whole blocks.
    bytes: Vec<u8>,
    /// The next block's records.
    records: Vec<Value>,
}

fn failed(message: impl std::fmt::Display) -> ReadError {
    ReadError::Format { path: "the bag".into(), format: "Avro", message: message.to_string() }
}

impl AvroFile {
    pub(super) fn new(schema: &str, compression: Compression) -> Result<AvroFile, ReadError> {
        let codec = match compression {
            Compression::ByName | Compression::None => Codec::Null,
            Compression::Gzip => Codec::Deflate(DeflateSettings::default()),
            Compression::Zstd => Codec::Zstandard(ZstandardSettings::default()),
            other => {
                return Err(failed(format!("{} is not among its compressions here; take gzip or zstd", other.name())));
            }
        };
        let schema = Schema::parse_str(schema).map_err(|error| failed(format!("the schema is none: {error}")))?;
        Ok(AvroFile { schema, codec, bytes: Vec::new(), records: Vec::new() })
    }

    pub(super) fn push(&mut self, item: &dyn erased_serde::Serialize) -> Result<(), ReadError> {
        let value = to_value(item).and_then(|value| value.resolve(&self.schema)).map_err(failed)?;
        self.records.push(value);
        if self.records.len() >= BLOCK_RECORDS { self.write_block() } else { Ok(()) }
    }

    fn write_block(&mut self) -> Result<(), ReadError> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut writer = if bytes.is_empty() {
            Writer::with_codec(&self.schema, bytes, self.codec)
        } else {
            let marker = read_marker(&bytes);
            Writer::append_to_with_codec(&self.schema, bytes, self.codec, marker)
        };
        for record in self.records.drain(..) {
            writer.append(record).map_err(failed)?;
        }
        self.bytes = writer.into_inner().map_err(failed)?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, ReadError> {
        if !self.records.is_empty() || self.bytes.is_empty() {
            self.write_block()?;
        }
        Ok(self.bytes)
    }
}
