//! Lists taken apart without knowing what they hold.
//!
//! In an encoded list nothing says where an element ends. The list's own `Serialize` still does, so a live list is
//! serialized into a serializer that encodes each element by itself.

use std::fmt;
use std::marker::PhantomData;

use serde::ser::{Error, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeTuple, Serializer};
use starling_core::failure::FailureCause;

use super::Buckets;
use super::block::encode_to;
use super::sink::{RawSink, Sink, Stop};
use crate::value::Data;

/// Gives the elements of lists, encoded, to a sink that does not know their type.
pub(super) struct Elements<R> {
    next: Box<dyn RawSink>,
    scratch: Vec<u8>,
    list: PhantomData<fn(R)>,
}

impl<R> Elements<R> {
    pub(super) fn new(next: Box<dyn RawSink>) -> Elements<R> {
        Elements { next, scratch: Vec::new(), list: PhantomData }
    }
}

impl<R: Data> Sink<R> for Elements<R> {
    fn push(&mut self, list: R) -> Result<(), Stop> {
        let mut push = |element: &[u8]| self.next.push_encoded(element);
        let apart = Apart { push: &mut push, scratch: &mut self.scratch };
        list.serialize(apart).map_err(|error| match error {
            Unlisted::Stop(stop) => stop,
            Unlisted::Shape(message) => Stop::from(FailureCause::Codec {
                message: format!(
                    "{} cannot be flattened ({message}): use flat_map with a closure that takes it apart",
                    std::any::type_name::<R>()
                ),
            }),
        })
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

/// Why a list was not taken apart.
#[derive(Debug)]
enum Unlisted {
    /// The next sink said so.
    Stop(Stop),
    /// It is no list as serde sees it.
    Shape(String),
}

impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unlisted::Stop(_) => f.write_str("no more elements are taken"),
            Unlisted::Shape(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Unlisted {}

impl Error for Unlisted {
    fn custom<T: fmt::Display>(message: T) -> Unlisted {
        Unlisted::Shape(message.to_string())
    }
}

/// A serializer of one list.
struct Apart<'a> {
    push: &'a mut dyn FnMut(&[u8]) -> Result<(), Stop>,
    scratch: &'a mut Vec<u8>,
}

impl Apart<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), Unlisted> {
        self.scratch.clear();
        self.pair_element(element)
    }

    /// Appends to what is there, and gives all of it.
    fn pair_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), Unlisted> {
        encode_to(element, self.scratch).map_err(|cause| Unlisted::Stop(cause.into()))?;
        (self.push)(self.scratch).map_err(Unlisted::Stop)
    }
}

impl SerializeSeq for Apart<'_> {
    type Ok = ();
    type Error = Unlisted;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), Unlisted> {
        self.element(element)
    }

    fn end(self) -> Result<(), Unlisted> {
        Ok(())
    }
}

impl SerializeTuple for Apart<'_> {
    type Ok = ();
    type Error = Unlisted;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), Unlisted> {
        self.element(element)
    }

    fn end(self) -> Result<(), Unlisted> {
        Ok(())
    }
}

/// An entry is a pair, whose encoding is its parts' one after the other.
impl SerializeMap for Apart<'_> {
    type Ok = ();
    type Error = Unlisted;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unlisted> {
        self.scratch.clear();
        encode_to(key, self.scratch).map_err(|cause| Unlisted::Stop(cause.into()))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unlisted> {
        self.pair_element(value)
    }

    fn end(self) -> Result<(), Unlisted> {
        Ok(())
    }
}

macro_rules! no_list {
    ($($method:ident($ty:ty)),*) => {
        $(fn $method(self, _: $ty) -> Result<(), Unlisted> {
            Err(not_a_list())
        })*
    };
}

fn not_a_list() -> Unlisted {
    Unlisted::Shape("serde does not see it as a list".into())
}

impl Serializer for Apart<'_> {
    type Ok = ();
    type Error = Unlisted;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Impossible<(), Unlisted>;
    type SerializeTupleVariant = Impossible<(), Unlisted>;
    type SerializeMap = Self;
    type SerializeStruct = Impossible<(), Unlisted>;
    type SerializeStructVariant = Impossible<(), Unlisted>;

    no_list!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_f32(f32),
        serialize_f64(f64),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_unit_struct(&'static str)
    );

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_none(self) -> Result<(), Unlisted> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Unlisted> {
        self.element(value)
    }

    fn serialize_unit(self) -> Result<(), Unlisted> {
        Err(not_a_list())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Unlisted> {
        Err(not_a_list())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unlisted> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unlisted> {
        Err(not_a_list())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Unlisted> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unlisted> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Unlisted> {
        Err(not_a_list())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unlisted> {
        Err(not_a_list())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Unlisted> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Unlisted> {
        Err(not_a_list())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unlisted> {
        Err(not_a_list())
    }
}
