//! The end of a stage whose items become a file's content.

use std::io::Write;

use serde::{Deserialize, Serialize};
use starling_core::failure::FailureCause;
use starling_runtime::task::items::{BlockBuilder, Buckets, Content, RawSink, Record, Row, Stop, decode};

use super::Json;
#[cfg(feature = "avro")]
use super::render_avro::AvroFile;
use super::source::cause;
use crate::input::{Compression, Packer, ReadError};

/// An item of a block has at most so many bytes.
const PIECE_BYTES_MAX: usize = 1 << 30;

/// What items become.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rendering {
    pub(crate) form: Form,
    pub(crate) compression: Compression,
    pub(crate) known: Known,
}

/// A file's format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Form {
    /// Lines.
    Text,
    /// A JSON value a line.
    JsonLines,
    /// Avro records of this schema.
    Avro { schema: String },
}

/// What encoded items are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Known {
    Nothing,
    Text,
    TextCount,
    Json,
}

impl Rendering {
    /// Size in bytes of what it carries.
    pub(crate) fn nbytes(&self) -> u64 {
        if let Form::Avro { schema } = &self.form { schema.len() as u64 } else { 0 }
    }

    /// The sink that makes the file's content.
    pub(crate) fn sink(&self) -> Result<Box<dyn RawSink>, ReadError> {
        let content = match &self.form {
            Form::Text => FileContent::Text(self.compression.pack()?),
            Form::JsonLines => FileContent::Json(self.compression.pack()?),
            #[cfg(feature = "avro")]
            Form::Avro { schema } => FileContent::Avro(AvroFile::new(schema, self.compression)?),
            #[cfg(not(feature = "avro"))]
            Form::Avro { .. } => return Err(ReadError::NoFeature { what: "writing Avro".into(), feature: "avro" }),
        };
        Ok(Box::new(Render { content, known: self.known, items: 0 }))
    }
}

enum FileContent {
    Text(Packer),
    Json(Packer),
    #[cfg(feature = "avro")]
    Avro(AvroFile),
}

struct Render {
    content: FileContent,
    known: Known,
    items: u64,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Stop {
    FailureCause::Error { message: format!("an item cannot be written as {what}: {error}"), sources: Vec::new() }.into()
}

/// The type of items is not known here.
fn untyped() -> Stop {
    FailureCause::Error {
        message:
            "the items' type is not known where the files are written: put a map(task!(|item: Item| item)) before this \
                  step"
                .into(),
        sources: Vec::new(),
    }
    .into()
}

impl Render {
    fn text(&mut self, line: &str) -> Result<(), Stop> {
        match &mut self.content {
            FileContent::Text(packer) => {
                packer
                    .write_all(line.as_bytes())
                    .and_then(|()| packer.write_all(b"\n"))
                    .map_err(|e| failed("text", e))?;
            }
            _ => return self.value(&line),
        }
        self.items += 1;
        Ok(())
    }

    fn value(&mut self, item: &dyn erased_serde::Serialize) -> Result<(), Stop> {
        match &mut self.content {
            FileContent::Json(packer) => {
                let written = serde_json::to_writer(&mut *packer, item).map_err(std::io::Error::from);
                written.and_then(|()| packer.write_all(b"\n")).map_err(|error| failed("JSON", error))?;
            }
            #[cfg(feature = "avro")]
            FileContent::Avro(file) => file.push(item).map_err(|error| failed("Avro", error))?,
            FileContent::Text(_) => return Err(failed("text", "it is no text")),
        }
        self.items += 1;
        Ok(())
    }
}

impl RawSink for Render {
    fn push_encoded(&mut self, item: &[u8]) -> Result<(), Stop> {
        match self.known {
            Known::Text => {
                let line: &str = postcard::from_bytes(item).map_err(|error| failed("text", error))?;
                self.text(line)
            }
            Known::TextCount => self.value(&decode::<(String, u64)>(item)?),
            Known::Json => self.value(&decode::<Json>(item)?),
            Known::Nothing => Err(untyped()),
        }
    }

    fn push_line(&mut self, line: &str) -> Result<(), Stop> {
        self.text(line)
    }

    fn push_row(&mut self, _: &Row<'_>) -> Result<(), Stop> {
        Err(untyped())
    }

    fn push_record(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        match (&mut self.content, record.content) {
            // Its type is not known, but it is what it is to become.
            (FileContent::Json(_), Content::Json(_)) if !record.is_kept => {
                let value: serde_json::Value = record.take().map_err(|message| Stop::Unfit(message.into()))?;
                self.value(&value)
            }
            _ => Err(untyped()),
        }
    }

    fn wants_values(&self) -> bool {
        !matches!(self.content, FileContent::Text(_))
    }

    fn push_serialize(&mut self, item: &dyn erased_serde::Serialize) -> Result<(), Stop> {
        self.value(item)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        let failed =
            |error: std::io::Error| FailureCause::Codec { message: format!("a file cannot be packed: {error}") };
        let bytes = match self.content {
            FileContent::Text(packer) | FileContent::Json(packer) => packer.finish().map_err(failed)?,
            #[cfg(feature = "avro")]
            FileContent::Avro(file) => file.finish().map_err(|error| cause(&error))?,
        };
        let mut block = BlockBuilder::default();
        block.push_value(&self.items)?;
        bytes.chunks(PIECE_BYTES_MAX).try_for_each(|piece| block.push(piece))?;
        Ok(Buckets::one(block.finish()))
    }
}

/// The number of items of a rendered partition, and its file's content.
pub(crate) fn rendered(output: &Buckets) -> Result<(u64, Vec<u8>), String> {
    let bucket = output.0.first().ok_or("it is empty")?;
    let mut pieces = bucket.items.items().map_err(|error| error.to_string())?;
    let count = pieces.next().ok_or("it is empty")?;
    let count = decode(count).map_err(|error| error.to_string())?;
    Ok((count, pieces.collect::<Vec<_>>().concat()))
}

/// Where a rendering cannot begin, the task fails as the client would have been told.
pub(crate) fn render_sink(rendering: &Rendering) -> Result<Box<dyn RawSink>, FailureCause> {
    rendering.sink().map_err(|error| cause(&error))
}
