//! A field of a file that says itself what it holds, and a record as a list of such fields.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// What a field of an Avro, Parquet or XML file holds. Unlike the files' own types it can travel between tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A number with a point.
    Float(f64),
    /// Text.
    Text(String),
    /// Text that stands for whatever the type wants of it, as CSV's fields and XML's attributes do. Of an `Option` that is
    /// nothing if it is empty.
    Loose(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several.
    List(Vec<Cell>),
    /// Several with names: a record or a map.
    Fields(Vec<(String, Cell)>),
}

/// Why cells are not of a type: the names of the fields on the way to the one that does not fit, and what is wrong with it.
#[derive(Debug)]
pub struct Misfit {
    path: Vec<String>,
    message: String,
}

impl Misfit {
    fn under(mut self, field: &str) -> Misfit {
        self.path.insert(0, field.to_owned());
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "field {}: ", self.path.join("."))?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Misfit {}

impl serde::de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Misfit {
        Misfit { path: Vec::new(), message: message.to_string() }
    }
}

struct Fields<'a> {
    rest: std::slice::Iter<'a, (String, Cell)>,
    current: Option<&'a (String, Cell)>,
}

impl<'de, 'a: 'de> MapAccess<'de> for Fields<'a> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        self.current = self.rest.next();
        let key = |(name, _): &'a (String, Cell)| seed.deserialize(StrDeserializer::new(name));
        self.current.map(key).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let (name, cell) = self.current.ok_or_else(|| Misfit::custom("a value without a name"))?;
        seed.deserialize(cell).map_err(|misfit| misfit.under(name))
    }
}

impl<'de, 'a: 'de> IntoDeserializer<'de, Misfit> for &'a Cell {
    type Deserializer = &'a Cell;

    fn into_deserializer(self) -> &'a Cell {
        self
    }
}

/// Numbers that loose text is taken for on demand.
macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            match self {
                Cell::Loose(text) => match text.parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => visitor.visit_str(text),
                },
                other => other.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de, 'a: 'de> Deserializer<'de> for &'a Cell {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self {
            Cell::Null => visitor.visit_unit(),
            Cell::Bool(value) => visitor.visit_bool(*value),
            Cell::Int(value) => visitor.visit_i64(*value),
            Cell::Uint(value) => visitor.visit_u64(*value),
            Cell::Float(value) => visitor.visit_f64(*value),
            Cell::Text(text) | Cell::Loose(text) => visitor.visit_borrowed_str(text),
            Cell::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Cell::List(cells) => visitor.visit_seq(SeqDeserializer::new(cells.iter())),
            Cell::Fields(fields) => visitor.visit_map(Fields { rest: fields.iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self {
            Cell::Null => visitor.visit_none(),
            Cell::Loose(text) if text.is_empty() => visitor.visit_none(),
            cell => visitor.visit_some(cell),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self {
            Cell::Loose(text) => match text.as_str() {
                "true" | "True" | "1" => visitor.visit_bool(true),
                "false" | "False" | "0" => visitor.visit_bool(false),
                other => visitor.visit_str(other),
            },
            cell => cell.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self {
            Cell::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            // As of CSV files a record may be taken by the order of its fields.
            Cell::Fields(fields) => visitor.visit_seq(SeqDeserializer::new(fields.iter().map(|(_, cell)| cell))),
            cell => cell.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self {
            Cell::Text(text) | Cell::Loose(text) => visitor.visit_enum(StrDeserializer::new(text)),
            Cell::Fields(fields) => {
                visitor.visit_enum(MapAccessDeserializer::new(Fields { rest: fields.iter(), current: None }))
            }
            cell => cell.deserialize_any(visitor),
        }
    }

    parsed! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken<'a, T: Deserialize<'a>>(cell: &'a Cell) -> Result<T, String> {
        T::deserialize(cell).map_err(|misfit| misfit.to_string())
    }

    fn loose(text: &str) -> Cell {
        Cell::Loose(text.to_owned())
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        at: Option<u8>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        inner: Inner,
        kind: Kind,
        bytes: Vec<u8>,
        names: Vec<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Kind {
        Good,
    }

    fn outer(at: Cell) -> Cell {
        let fields = [
            ("ignored", Cell::List(vec![Cell::Null])),
            ("inner", Cell::Fields(vec![("at".to_owned(), at)])),
            ("kind", Cell::Text("Good".to_owned())),
            ("bytes", Cell::Bytes(vec![1, 2])),
            ("names", Cell::List(vec![Cell::Text("a".to_owned()), loose("b")])),
        ];
        Cell::Fields(fields.map(|(name, cell)| (name.to_owned(), cell)).into())
    }

    #[test]
    fn a_record_becomes_a_struct_and_what_does_not_fit_is_named() {
        let expected = |at| Outer {
            inner: Inner { at },
            kind: Kind::Good,
            bytes: vec![1, 2],
            names: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(taken(&outer(Cell::Int(7))), Ok(expected(Some(7))));
        assert_eq!(taken(&outer(loose("7"))), Ok(expected(Some(7))));
        assert_eq!(taken(&outer(loose(""))), Ok(expected(None)));
        let error = taken::<Outer>(&outer(Cell::Int(-1))).unwrap_err();
        assert_eq!(error, "field inner.at: invalid value: integer `-1`, expected u8");
        let error = taken::<Outer>(&outer(loose("x"))).unwrap_err();
        assert_eq!(error, "field inner.at: invalid type: string \"x\", expected u8");
    }

    #[test]
    fn loose_text_becomes_what_is_wanted() {
        assert_eq!(taken(&loose("-1.5")), Ok(-1.5));
        assert_eq!(taken(&loose("True")), Ok(true));
        assert_eq!(taken(&loose("12")), Ok("12".to_owned()));
        let row = Cell::Fields(vec![("a".to_owned(), loose("1")), ("b".to_owned(), loose("x"))]);
        assert_eq!(taken(&row), Ok((1_u32, "x".to_owned())));
    }
}
