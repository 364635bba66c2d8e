//! [`Metadata`]: a tree of JSON objects that the whole cluster shares.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use starling_core::coordination::{Ask, Change, Outcome, Path, Read};

use super::CoordinationError;
use crate::cluster::Cluster;

/// The cluster's metadata: [`Cluster::metadata`].
#[derive(Clone)]
pub struct Metadata {
    cluster: Cluster,
}

/// What says where something is in the metadata: keys separated by dots (`"run.settings.rate"`), or keys one by one, which may have
/// dots in them (`["run", "a.csv"]`). Without keys, all of it is meant.
pub trait IntoPath {
    /// The keys, from the outermost one.
    fn into_path(self) -> Vec<String>;
}

impl IntoPath for &str {
    fn into_path(self) -> Vec<String> {
        if self.is_empty() { Vec::new() } else { self.split('.').map(str::to_owned).collect() }
    }
}

impl IntoPath for &String {
    fn into_path(self) -> Vec<String> {
        self.as_str().into_path()
    }
}

impl<const N: usize> IntoPath for [&str; N] {
    fn into_path(self) -> Vec<String> {
        self.map(str::to_owned).into()
    }
}

impl IntoPath for &[&str] {
    fn into_path(self) -> Vec<String> {
        self.iter().map(|&key| key.to_owned()).collect()
    }
}

impl IntoPath for Vec<String> {
    fn into_path(self) -> Vec<String> {
        self
    }
}

pub(super) fn no_json(error: &serde_json::Error) -> CoordinationError {
    CoordinationError::Json(error.to_string())
}

impl Metadata {
    pub(crate) fn new(cluster: Cluster) -> Metadata {
        Metadata { cluster }
    }

    /// Puts a value, as its JSON, in the place of what is there. An object is merged with nothing: what it does not have is gone.
    ///
    /// # Errors
    /// [`CoordinationError::Json`] for what JSON cannot say. [`Refused::NotAnObject`](super::Refused::NotAnObject) if a number, a text
    /// or an array is where the path goes through. [`Refused::TooLarge`](super::Refused::TooLarge) for a text or array of over
    /// 64 KiB. Otherwise [`CoordinationError`].
    pub async fn set(&self, path: impl IntoPath, value: &(impl Serialize + ?Sized)) -> Result<(), CoordinationError> {
        let path = path.into_path();
        let value = serde_json::to_value(value).map_err(|error| no_json(&error))?;
        let mut leaves = Vec::new();
        flatten(&path, &value, &mut leaves);
        let set = Ask::Change(Change::SetMetadata { path, leaves });
        self.cluster.coordination()?.ask(set, None).await.map(drop)
    }

    /// What is at a path; `None` if there is nothing.
    ///
    /// # Errors
    /// [`CoordinationError::Json`] if it is no `T`; otherwise [`CoordinationError`].
    pub async fn get<T: DeserializeOwned>(&self, path: impl IntoPath) -> Result<Option<T>, CoordinationError> {
        let path = path.into_path();
        let read = Ask::Read(Read::Metadata(path.clone()));
        let leaves = match self.cluster.coordination()?.ask(read, None).await? {
            Outcome::Leaves(leaves) => leaves,
            _ => Vec::new(),
        };
        let Some(value) = build(&path, &leaves)? else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| no_json(&error))
    }

    /// Forgets what is at a path and below it, and objects that are left without keys. Says whether there was anything.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn delete(&self, path: impl IntoPath) -> Result<bool, CoordinationError> {
        let delete = Ask::Change(Change::DeleteMetadata(path.into_path()));
        Ok(self.cluster.coordination()?.ask(delete, None).await? == Outcome::Flag(true))
    }
}

/// The leaves of a value that is at `path`.
fn flatten(path: &[String], value: &Value, leaves: &mut Vec<(Path, String)>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                let below: Path = path.iter().chain([key]).cloned().collect();
                flatten(&below, value, leaves);
            }
        }
        leaf => leaves.push((path.to_vec(), leaf.to_string())),
    }
}

/// The value at `path` that has these leaves.
fn build(path: &[String], leaves: &[(Path, String)]) -> Result<Option<Value>, CoordinationError> {
    let mut built = None;
    for (leaf, text) in leaves {
        let value: Value = serde_json::from_str(text).map_err(|error| no_json(&error))?;
        let Some(keys) = leaf.strip_prefix(path) else { continue };
        let Some((last, keys)) = keys.split_last() else { return Ok(Some(value)) };
        let mut at = built.get_or_insert_with(Map::new);
        for key in keys {
            let below = at.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(object) = below else {
                return Err(CoordinationError::Json(format!(
                    "the metadata has something below {key}, which is no object"
                )));
            };
            at = object;
        }
        at.insert(last.clone(), value);
    }
    Ok(built.map(Value::Object))
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metadata")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_keys_with_dots_between_them_or_keys() {
        assert_eq!("".into_path(), Vec::<String>::new());
        assert_eq!("a.b".into_path(), ["a", "b"].into_path());
        assert_eq!(["a.b"].into_path(), ["a.b"]);
    }

    #[test]
    fn a_value_comes_back_from_its_leaves_whole_and_in_parts() {
        let value = json!({"a": {"b": [1, {"x": null}], "c": {}}, "d": "text", "e": 1.5});
        let mut leaves = Vec::new();
        flatten(&["at".to_owned()], &value, &mut leaves);
        assert_eq!(leaves.len(), 4);
        let find = |path: &[&str]| {
            let path = path.into_path();
            let below: Vec<_> = leaves.iter().filter(|(leaf, _)| leaf.starts_with(&path)).cloned().collect();
            build(&path, &below).unwrap()
        };
        assert_eq!(find(&["at"]), Some(value.clone()));
        assert_eq!(find(&[]), Some(json!({"at": value})));
        assert_eq!(find(&["at", "a"]), Some(value["a"].clone()));
        assert_eq!(find(&["at", "a", "c"]), Some(json!({})));
        assert_eq!(find(&["at", "d"]), Some(json!("text")));
        assert_eq!(find(&["at", "x"]), None);
    }
}
