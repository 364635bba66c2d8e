//! Which columns a row's type asks for, found out from its `Deserialize` alone.

use serde::de::value::Error as Stopped;
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;

use super::error::CsvError;

/// The columns that a row's type asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All: the type takes what there is, as a map or a list of fields does.
    All,
    /// These, and any of a field's aliases.
    Named(&'static [&'static str]),
}

impl Wanted {
    /// What `T` asks for.
    pub(crate) fn of<T: DeserializeOwned>() -> Wanted {
        let mut wanted = Wanted::All;
        // Ends in an error at once: the type only gets to say what it is.
        let _ = T::deserialize(Probe { wanted: &mut wanted });
        wanted
    }

    /// The numbers of the wanted columns of `path`. A name that there is no column for is an error unless `missing` is
    /// allowed.
    pub(crate) fn numbers(self, columns: &[String], path: &str, missing: bool) -> Result<Vec<u32>, CsvError> {
        let names = match self {
            Wanted::All => return Ok((0..columns.len() as u32).collect()),
            Wanted::Named(names) => names,
        };
        if !missing && let Some(column) = names.iter().find(|name| !columns.iter().any(|column| column == **name)) {
            return Err(CsvError::UnknownColumn {
                path: path.to_owned(),
                column: (*column).to_owned(),
                known: columns.to_vec(),
            });
        }
        let numbered = columns.iter().zip(0..);
        Ok(numbered.filter(|(column, _)| names.contains(&column.as_str())).map(|(_, number)| number).collect())
    }
}

struct Probe<'a> {
    wanted: &'a mut Wanted,
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stopped;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stopped> {
        Err(Stopped::custom("the type was only asked for its fields"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        *self.wanted = Wanted::Named(fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}
