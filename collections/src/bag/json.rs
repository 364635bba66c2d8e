//! JSON values as items.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{Deserializer, Error as _};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A JSON value that can travel between tasks, as its text, which a [`serde_json::Value`] cannot. In JSON it is the value
/// itself.
///
/// ```
/// use starling_collections::bag::Json;
///
/// let json = Json(serde_json::json!({"name": "Ada", "age": 36}));
/// assert_eq!(json["name"], "Ada");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Json(pub Value);

impl Deref for Json {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl DerefMut for Json {
    fn deref_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        Json(value)
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Value {
        json.0
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        serializer.serialize_str(&serde_json::to_string(&self.0).map_err(S::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        if deserializer.is_human_readable() {
            return Value::deserialize(deserializer).map(Json);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        serde_json::from_str(&text).map(Json).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_value_travels_as_text_and_is_itself_in_json() {
        let json = Json(serde_json::json!({"a": [1, null, "é"], "b": {"c": 1.5}}));
        let bytes = postcard::to_stdvec(&(json.clone(), 7)).unwrap();
        assert_eq!(postcard::from_bytes::<(Json, i32)>(&bytes).unwrap(), (json.clone(), 7));
        let text = serde_json::to_string(&json).unwrap();
        assert_eq!(text, r#"{"a":[1,null,"é"],"b":{"c":1.5}}"#);
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), json);
    }

    #[test]
    fn equal_values_have_equal_encodings_whatever_the_order_of_their_fields() {
        let encoded = |text: &str| postcard::to_stdvec(&serde_json::from_str::<Json>(text).unwrap()).unwrap();
        assert_eq!(encoded(r#"{"b": 2, "a": 1}"#), encoded(r#"{"a":1,"b":2}"#));
    }
}
