//! How many bytes a value holds, about, without encoding it.
//!
//! A serde serializer that only counts. Of a sequence or map it measures the first [`SAMPLE`] elements and takes the
//! rest to be like them: a partition of ten million records must not be walked through after every task.
//!
//! A `Serialize` that would have to encode in order to be counted may say its size instead: see [`is_counting`].

use std::cell::Cell;

use serde::ser::{self, Serialize};

/// How many elements of a sequence are measured.
const SAMPLE: u64 = 64;

/// About the number of bytes of the postcard encoding of `value`. What cannot be encoded is refused, as far as it shows
/// in the sample.
pub fn estimate<T: Serialize + ?Sized>(value: &T) -> Result<u64, Refused> {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_COUNTING.set(self.0);
        }
    }
    let _reset = Reset(IS_COUNTING.replace(true));
    let mut counter = Counter { nbytes: 0, is_size: false };
    value.serialize(&mut counter)?;
    Ok(counter.nbytes)
}

thread_local! {
    /// Whether this thread is in [`estimate`].
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is only counting bytes. Then a `Serialize` to which encoding is costly should give its size to
/// [`count`] instead.
///
/// ```
/// # use serde::{Serialize, Serializer};
/// # use starling_runtime::size;
/// # struct Table;
/// # impl Table {
/// #     fn memory_bytes(&self) -> u64 { 12 }
/// #     fn encode(&self) -> Vec<u8> { unreachable!() }
/// # }
/// impl Serialize for Table {
///     fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
///         if size::is_counting() {
///             return size::count(serializer, self.memory_bytes());
///         }
///         self.encode().serialize(serializer)
///     }
/// }
/// assert_eq!(size::estimate(&(1_u8, Table)), Ok(13));
/// ```
pub fn is_counting() -> bool {
    IS_COUNTING.get()
}

/// Counts so many bytes. Only for where [`is_counting`] says so: elsewhere it would be encoded as a number.
pub fn count<S: ser::Serializer>(serializer: S, nbytes: u64) -> Result<S::Ok, S::Error> {
    serializer.serialize_newtype_struct(SIZE, &nbytes)
}

/// The name of the newtype that holds a size.
const SIZE: &str = "$starling::size";

struct Counter {
    nbytes: u64,
    /// Whether the next number is a size.
    is_size: bool,
}

/// Why a value cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl ser::Error for Refused {
    fn custom<T: std::fmt::Display>(message: T) -> Refused {
        Refused(message.to_string())
    }
}

/// Postcard writes a length before the elements.
fn check_length(length: Option<usize>) -> Result<(), Refused> {
    match length {
        Some(_) => Ok(()),
        None => Err(Refused("a sequence or map does not know its length, as with #[serde(flatten)]".to_owned())),
    }
}

/// A sequence or map under way.
struct Elements<'a> {
    counter: &'a mut Counter,
    /// The counter before the first element.
    start: u64,
    seen: u64,
}

impl Elements<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.seen += 1;
        if self.seen <= SAMPLE { value.serialize(&mut *self.counter) } else { Ok(()) }
    }

    fn finish(self) -> Result<(), Refused> {
        if self.seen > SAMPLE {
            let sampled = u128::from(self.counter.nbytes - self.start);
            let all = sampled * u128::from(self.seen) / u128::from(SAMPLE);
            self.counter.nbytes = self.start + u64::try_from(all).unwrap_or(u64::MAX / 2);
        }
        Ok(())
    }
}

macro_rules! fixed {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, _: $type) -> Result<(), Refused> {
            self.nbytes += size_of::<$type>() as u64;
            Ok(())
        })*
    };
}

impl<'a> ser::Serializer for &'a mut Counter {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = &'a mut Counter;
    type SerializeTupleStruct = &'a mut Counter;
    type SerializeTupleVariant = &'a mut Counter;
    type SerializeMap = Elements<'a>;
    type SerializeStruct = &'a mut Counter;
    type SerializeStructVariant = &'a mut Counter;

    fixed! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
    }

    fn serialize_u64(self, v: u64) -> Result<(), Refused> {
        let nbytes = if std::mem::take(&mut self.is_size) { v } else { size_of::<u64>() as u64 };
        self.nbytes = self.nbytes.saturating_add(nbytes);
        Ok(())
    }

    fn serialize_str(self, v: &str) -> Result<(), Refused> {
        self.nbytes += v.len() as u64 + 1;
        Ok(())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), Refused> {
        self.nbytes += v.len() as u64 + 1;
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.nbytes += 1;
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.nbytes += 1;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Refused> {
        self.nbytes += 1;
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), Refused> {
        self.is_size = name == SIZE;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.nbytes += 1;
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Elements<'a>, Refused> {
        check_length(length)?;
        self.nbytes += 1;
        Ok(Elements { start: self.nbytes, counter: self, seen: 0 })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.nbytes += 1;
        Ok(self)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'a>, Refused> {
        self.serialize_seq(len)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Refused> {
        Ok(self)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Refused> {
        self.nbytes += 1;
        Ok(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl ser::SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.element(value)
    }

    fn end(self) -> Result<(), Refused> {
        self.finish()
    }
}

impl ser::SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.element(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        // Belongs to the key that was counted just before.
        if self.seen <= SAMPLE { value.serialize(&mut *self.counter) } else { Ok(()) }
    }

    fn end(self) -> Result<(), Refused> {
        self.finish()
    }
}

macro_rules! fields {
    ($($trait:ident $method:ident,)*) => {
        $(impl ser::$trait for &mut Counter {
            type Ok = ();
            type Error = Refused;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

fields! {
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
}

macro_rules! named_fields {
    ($($trait:ident,)*) => {
        $(impl ser::$trait for &mut Counter {
            type Ok = ();
            type Error = Refused;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Refused> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Refused> {
                Ok(())
            }
        })*
    };
}

named_fields! { SerializeStruct, SerializeStructVariant, }

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_long_sequence_is_extrapolated_from_its_beginning() {
        let records: Vec<(u64, String)> = (0..100_000).map(|i| (i, "x".repeat(10))).collect();
        let exact = 100_000 * (8 + 11) + 1;
        assert_eq!(estimate(&records), Ok(exact));
    }

    #[test]
    fn maps_and_options_and_variants_are_counted() {
        let map: BTreeMap<u32, Option<String>> = (0..1000).map(|i| (i, Some("abc".into()))).collect();
        assert_eq!(estimate(&map), Ok(1 + 1000 * (4 + 1 + 4)));
        assert_eq!(estimate(&Some(Err::<u8, &str>("no"))), Ok(1 + 1 + 3));
    }
}
