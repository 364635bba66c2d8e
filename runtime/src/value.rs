//! Values: what a task takes and returns, live in memory or encoded.
//!
//! An output stays a live object in its worker and is encoded only when it is sent or spilled. The encoding is postcard
//! for the structure; a [`Buffer`] inside a value is carried beside it, so that bulk bytes are never copied into a
//! message.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::size::{self, Refused};

/// An encoder writes a byte at a time; so many are gathered before they go on.
const WRITE_BYTES: usize = 32 * 1024;

/// What can be a task's argument or result: every owned, thread-safe serde type that can be read back without names. Not
/// `serde_json::Value`, nor types with serde's `untagged`, `tag`, `flatten` or `skip_serializing_if`.
pub trait Data: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Data for T {}

/// Why a value could not be encoded or decoded. Nothing was changed; trying again gives the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The value's `Serialize` refused, or postcard cannot say it.
    #[error("a value of type {type_name} cannot be encoded: {source}")]
    Encode {
        /// The Rust type.
        type_name: &'static str,
        /// What postcard said.
        source: postcard::Error,
    },
    /// The value's type has no encoding.
    #[error("a value of type {type_name} cannot be encoded: {source}")]
    NoEncoding {
        /// The Rust type.
        type_name: &'static str,
        /// What stands in the way.
        source: Refused,
    },
    /// The bytes are not an encoding of the type.
    #[error("{nbytes} bytes are no encoding of {type_name}: {source}")]
    Decode {
        /// The Rust type.
        type_name: &'static str,
        /// Size of what was given.
        nbytes: u64,
        /// What postcard said.
        source: postcard::Error,
    },
    /// A live value has another type than the one asked for.
    #[error("the value has the type {found}, but {expected} was asked for")]
    Type {
        /// The type asked for.
        expected: &'static str,
        /// The value's type.
        found: &'static str,
    },
}

/// A value as it crosses the wire or lies on disk. The buffers are not copied into the head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoded {
    /// The postcard encoding, in which a [`Buffer`] is only its number.
    pub head: Bytes,
    /// The buffers, in the order of their numbers.
    pub buffers: Vec<Bytes>,
}

impl Encoded {
    /// Bytes in all.
    pub fn nbytes(&self) -> u64 {
        self.head.len() as u64 + self.buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>()
    }

    /// The encoding of `value`.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, CodecError> {
        let outside = OutOfBand::enter(Buffers::Apart(Vec::new()));
        let head = postcard::to_stdvec(value)
            .map_err(|source| CodecError::Encode { type_name: std::any::type_name::<T>(), source })?;
        Ok(Encoded { head: head.into(), buffers: outside.leave() })
    }

    /// Writes the head of the encoding of `value` without holding all of it, and gives the buffers. What goes wrong with
    /// `out` is told as if the value could not be encoded, since the codec cannot carry it: `out` has to remember it.
    pub fn write<T: Serialize + ?Sized>(value: &T, out: &mut dyn Write) -> Result<Vec<Bytes>, CodecError> {
        let outside = OutOfBand::enter(Buffers::Apart(Vec::new()));
        postcard::to_io(value, BufWriter::with_capacity(WRITE_BYTES, out))
            .map_err(|source| CodecError::Encode { type_name: std::any::type_name::<T>(), source })?;
        Ok(outside.leave())
    }

    /// The value that this is the encoding of. Buffers are shared with `self`, not copied.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        // Without any apart, a buffer that is in it is in the head: so it is in what was put together of encoded items.
        let buffers = if self.buffers.is_empty() { Buffers::Within } else { Buffers::Apart(self.buffers.clone()) };
        let _outside = OutOfBand::enter(buffers);
        postcard::from_bytes(&self.head).map_err(|source| CodecError::Decode {
            type_name: std::any::type_name::<T>(),
            nbytes: self.nbytes(),
            source,
        })
    }
}

/// Where the bytes of a [`Buffer`] go or come from.
#[derive(Default)]
enum Buffers {
    /// They are part of the text, as outside of [`Encoded`].
    #[default]
    Within,
    /// They are here, by their numbers.
    Apart(Vec<Bytes>),
    /// Nowhere: only how many there are is said.
    Described,
}

thread_local! {
    /// Of the value that this thread is encoding or decoding.
    static OUT_OF_BAND: RefCell<Buffers> = const { RefCell::new(Buffers::Within) };
}

/// Does `serialize` while a [`Buffer`] says only its length, as a map `{"bytes": 5}`: for what a person reads.
pub(crate) fn described<R>(serialize: impl FnOnce() -> R) -> R {
    let _outside = OutOfBand::enter(Buffers::Described);
    serialize()
}

/// Does `deserialize` while a [`Buffer`] is plain bytes, as in any text that is not an [`Encoded`].
pub(crate) fn plain<R>(deserialize: impl FnOnce() -> R) -> R {
    let _outside = OutOfBand::enter(Buffers::Within);
    deserialize()
}

/// Whether a value that is being serialized is for a person to read, and bulk bytes are not wanted.
pub(crate) fn is_described() -> bool {
    OUT_OF_BAND.with_borrow(|buffers| matches!(buffers, Buffers::Described))
}

/// Sets the thread's buffers aside for a nested encoding, and puts them back however it ends.
struct OutOfBand {
    outer: Buffers,
}

impl OutOfBand {
    fn enter(buffers: Buffers) -> OutOfBand {
        OutOfBand { outer: OUT_OF_BAND.replace(buffers) }
    }

    fn leave(self) -> Vec<Bytes> {
        match OUT_OF_BAND.take() {
            Buffers::Apart(buffers) => buffers,
            Buffers::Within | Buffers::Described => Vec::new(),
        }
    }
}

impl Drop for OutOfBand {
    fn drop(&mut self) {
        OUT_OF_BAND.replace(std::mem::take(&mut self.outer));
    }
}

/// Bytes that cross the mesh without being copied into a message. Cloning shares them.
///
/// A `Vec<u8>` in a task's argument or result costs about a millisecond a MiB; a `Buffer` costs nothing.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Buffer(pub Bytes);

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        Buffer(bytes.into())
    }
}

impl From<Bytes> for Buffer {
    fn from(bytes: Bytes) -> Buffer {
        Buffer(bytes)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.0.len())
    }
}

impl Serialize for Buffer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = OUT_OF_BAND.with_borrow_mut(|buffers| match buffers {
            Buffers::Apart(buffers) => {
                buffers.push(self.0.clone());
                Some(buffers.len() as u32 - 1)
            }
            Buffers::Within | Buffers::Described => None,
        });
        match number {
            Some(number) => serializer.serialize_u32(number),
            None if is_described() => serializer.collect_map([("bytes", self.0.len())]),
            None => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Buffer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Buffer, D::Error> {
        if OUT_OF_BAND.with_borrow(|buffers| !matches!(buffers, Buffers::Apart(_))) {
            return deserializer.deserialize_byte_buf(BytesVisitor).map(Buffer);
        }
        let number = u32::deserialize(deserializer)?;
        OUT_OF_BAND
            .with_borrow(|buffers| match buffers {
                Buffers::Apart(buffers) => buffers.get(number as usize).cloned(),
                Buffers::Within | Buffers::Described => None,
            })
            .map(Buffer)
            .ok_or_else(|| serde::de::Error::custom("a buffer is missing"))
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }
}

/// A live value whose type is not known here.
pub trait LiveValue: Send + Sync + 'static {
    /// The encoding.
    fn encode(&self) -> Result<Encoded, CodecError>;
    /// Writes the head of the encoding and gives the buffers: see [`Encoded::write`].
    fn encode_to(&self, out: &mut dyn Write) -> Result<Vec<Bytes>, CodecError>;
    /// About how many bytes it holds: the size of its encoding, sampled for long sequences.
    fn nbytes(&self) -> Result<u64, CodecError>;
    /// Appends the encoding to what is encoded already, as the next element of a list: the buffers' numbers go on.
    fn encode_behind(&self, head: &mut Vec<u8>, buffers: &mut Vec<Bytes>) -> Result<(), CodecError>;
    /// The Rust type.
    fn type_name(&self) -> &'static str;
    /// For downcasting.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Data> LiveValue for T {
    fn encode(&self) -> Result<Encoded, CodecError> {
        Encoded::of(self)
    }

    fn encode_to(&self, out: &mut dyn Write) -> Result<Vec<Bytes>, CodecError> {
        Encoded::write(self, out)
    }

    fn encode_behind(&self, head: &mut Vec<u8>, buffers: &mut Vec<Bytes>) -> Result<(), CodecError> {
        let outside = OutOfBand::enter(Buffers::Apart(std::mem::take(buffers)));
        let encoded = postcard::to_extend(self, std::mem::take(head))
            .map_err(|source| CodecError::Encode { type_name: std::any::type_name::<T>(), source });
        *buffers = outside.leave();
        *head = encoded?;
        Ok(())
    }

    fn nbytes(&self) -> Result<u64, CodecError> {
        let _inside = OutOfBand::enter(Buffers::Within);
        size::estimate(self).map_err(|source| CodecError::NoEncoding { type_name: std::any::type_name::<T>(), source })
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A value, live or encoded. Cloning shares it.
#[derive(Clone)]
pub enum Value {
    /// An object in memory.
    Live(Arc<dyn LiveValue>),
    /// What came over the wire and has not been looked at yet.
    Encoded(Encoded),
}

impl Value {
    /// A live value.
    pub fn live<T: Data>(value: T) -> Value {
        Value::Live(Arc::new(value))
    }

    /// About how many bytes it holds. Fails if the value cannot be encoded.
    pub fn nbytes(&self) -> Result<u64, CodecError> {
        match self {
            Value::Live(live) => live.nbytes(),
            Value::Encoded(encoded) => Ok(encoded.nbytes()),
        }
    }

    /// The encoding; costs nothing if it is encoded already.
    pub fn encode(&self) -> Result<Encoded, CodecError> {
        match self {
            Value::Live(live) => live.encode(),
            Value::Encoded(encoded) => Ok(encoded.clone()),
        }
    }

    /// Whether somebody else has it too, so that dropping it would free nothing. Buffers that a live value shares with
    /// others do not show.
    pub fn is_shared(&self) -> bool {
        match self {
            Value::Live(live) => Arc::strong_count(live) > 1,
            Value::Encoded(encoded) => {
                let mut parts = std::iter::once(&encoded.head).chain(&encoded.buffers);
                parts.any(|part| !part.is_empty() && !part.is_unique())
            }
        }
    }

    /// The object, shared if it is live, decoded if not.
    pub fn get<T: Data>(&self) -> Result<Arc<T>, CodecError> {
        match self {
            Value::Live(live) => {
                let found = live.type_name();
                Arc::clone(live)
                    .into_any()
                    .downcast::<T>()
                    .map_err(|_| CodecError::Type { expected: std::any::type_name::<T>(), found })
            }
            Value::Encoded(encoded) => encoded.decode().map(Arc::new),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Live(live) => write!(f, "Live({})", live.type_name()),
            Value::Encoded(encoded) => write!(f, "Encoded({} bytes)", encoded.nbytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Chunk {
        name: String,
        data: Buffer,
        tail: Option<Buffer>,
    }

    fn chunk() -> Chunk {
        Chunk { name: "c".into(), data: vec![7; 1 << 20].into(), tail: Some(vec![1, 2].into()) }
    }

    #[test]
    fn buffers_stay_out_of_the_head_and_are_not_copied() {
        let value = chunk();
        let encoded = Encoded::of(&value).unwrap();
        assert_eq!(encoded.head.len(), 5);
        assert_eq!(encoded.buffers.len(), 2);
        assert_eq!(encoded.buffers[0].as_ptr(), value.data.0.as_ptr());
        let back: Chunk = encoded.decode().unwrap();
        assert_eq!(back, value);
        assert_eq!(back.data.0.as_ptr(), value.data.0.as_ptr());
    }

    #[test]
    fn what_is_written_is_what_is_encoded() {
        let value = (vec![7_u32; 100_000], chunk());
        let mut head = Vec::new();
        let buffers = Encoded::write(&value, &mut head).unwrap();
        assert_eq!(Encoded { head: head.into(), buffers }, Encoded::of(&value).unwrap());
    }

    #[test]
    fn a_value_is_shared_while_somebody_else_has_it() {
        let value = Value::live(chunk());
        assert!(!value.is_shared());
        let encoded = value.encode().unwrap();
        // The live value has the buffers too.
        assert!(Value::Encoded(encoded.clone()).is_shared());
        let copy = value.clone();
        assert!(value.is_shared());
        drop((copy, value));
        let encoded = Value::Encoded(encoded);
        assert!(!encoded.is_shared());
    }

    #[test]
    fn a_buffer_outside_of_an_encoding_is_plain_bytes() {
        let bytes = postcard::to_stdvec(&chunk()).unwrap();
        assert_eq!(postcard::from_bytes::<Chunk>(&bytes).unwrap(), chunk());
    }

    #[test]
    fn a_missing_buffer_is_an_error() {
        let mut encoded = Encoded::of(&chunk()).unwrap();
        encoded.buffers.pop();
        assert!(matches!(encoded.decode::<Chunk>(), Err(CodecError::Decode { .. })));
        // The thread's state is as before.
        assert_eq!(Encoded::of(&chunk()).unwrap().buffers.len(), 2);
    }

    #[test]
    fn a_live_value_of_another_type_is_an_error_that_names_both() {
        let error = Value::live(1_u32).get::<String>().unwrap_err();
        assert_eq!(error.to_string(), "the value has the type u32, but alloc::string::String was asked for");
    }

    #[test]
    fn the_size_of_a_live_value_counts_its_buffers() {
        let nbytes = Value::live(chunk()).nbytes().unwrap();
        assert!((1 << 20..(1 << 20) + 64).contains(&nbytes), "{nbytes}");
    }
}
