//! Records of files that say themselves what their fields are, on their way into the type that a closure takes.

use std::fmt;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, VariantAccess, Visitor,
};
use serde::{Deserialize, Serialize};

use super::cell::Cell;

/// A record as a sink sees it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it holds.
    pub content: Content<'a>,
    /// Whether it is to become a `Result<_, String>`, so that one that does not fit is an item as well.
    pub is_kept: bool,
    /// Its file.
    pub path: &'a str,
    /// Where it is there.
    pub place: Place,
}

/// Where a record is in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// It starts at this byte.
    Byte(u64),
    /// It has this number, from 1.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Byte(offset) => write!(f, "byte {offset}"),
            Place::Row(number) => write!(f, "row {number}"),
        }
    }
}

/// What a record holds.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// JSON text.
    Json(&'a [u8]),
    /// Fields.
    Cell(&'a Cell),
}

/// A record that [`Collect`](super::Collect) took as it stood in its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredRecord {
    place: Place,
    content: StoredContent,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum StoredContent {
    Json(Vec<u8>),
    Cell(Cell),
}

impl StoredRecord {
    /// The record, one of the file at `path`.
    pub fn record<'a>(&'a self, path: &'a str, is_kept: bool) -> Record<'a> {
        let content = match &self.content {
            StoredContent::Json(text) => Content::Json(text),
            StoredContent::Cell(cell) => Content::Cell(cell),
        };
        Record { content, is_kept, path, place: self.place }
    }
}

impl Record<'_> {
    /// The record as an `A`, or what in it does not fit.
    pub fn take<A: DeserializeOwned>(&self) -> Result<A, String> {
        if !self.is_kept {
            return match self.content {
                Content::Json(text) => serde_json::from_slice(text).map_err(|error| json_misfit(&error)),
                Content::Cell(cell) => A::deserialize(cell).map_err(|error| error.to_string()),
            };
        }
        let taken = match self.content {
            Content::Json(text) => json_answer(text).map_err(|error| json_misfit(&error)),
            Content::Cell(cell) => A::deserialize(Answer(Ok(cell))).map_err(|error| error.to_string()),
        };
        taken.or_else(|message| {
            let message = format!("{}, {}: {message}", self.path, self.place);
            let bad: Answer<StringDeserializer<serde::de::value::Error>> = Answer(Err(message));
            A::deserialize(bad).map_err(|error| error.to_string())
        })
    }

    /// Whether the record is well formed, as far as that is known without a type.
    pub fn check(&self) -> Result<(), String> {
        match self.content {
            Content::Json(text) if !self.is_kept => {
                serde_json::from_slice::<IgnoredAny>(text).map(drop).map_err(|error| json_misfit(&error))
            }
            _ => Ok(()),
        }
    }

    /// The record, to be taken later.
    pub fn stored(&self) -> StoredRecord {
        let content = match self.content {
            Content::Json(text) => StoredContent::Json(text.to_vec()),
            Content::Cell(cell) => StoredContent::Cell(cell.clone()),
        };
        StoredRecord { place: self.place, content }
    }
}

fn json_answer<A: DeserializeOwned>(text: &[u8]) -> serde_json::Result<A> {
    let mut input = serde_json::Deserializer::from_slice(text);
    let answer = A::deserialize(Answer(Ok(&mut input)))?;
    input.end()?;
    Ok(answer)
}

/// A line's error has no line number of its own.
fn json_misfit(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(&*text, |(message, _)| message);
    format!("column {}: {message}", error.column())
}

/// A deserializer of a `Result<_, String>`.
struct Answer<D>(Result<D, String>);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Answer<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(D::Error::custom("records that are kept whether they fit or not are Results"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> EnumAccess<'de> for Answer<D> {
    type Error = D::Error;
    type Variant = Answer<D>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Answer<D>), D::Error> {
        let name = if self.0.is_ok() { "Ok" } else { "Err" };
        Ok((seed.deserialize(StrDeserializer::new(name))?, self))
    }
}

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for Answer<D> {
    type Error = D::Error;

    fn unit_variant(self) -> Result<(), D::Error> {
        Err(D::Error::custom("a Result has a value"))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, D::Error> {
        match self.0 {
            Ok(input) => seed.deserialize(input),
            Err(message) => seed.deserialize(StringDeserializer::new(message)),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, D::Error> {
        self.unit_variant().and(Err(D::Error::custom("a Result has one value")))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, D::Error> {
        self.unit_variant().and(Err(D::Error::custom("a Result has one value")))
    }
}
