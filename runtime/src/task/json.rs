//! Calls from outside of the program: the task by its name, its arguments and its result in JSON.
//!
//! Each parameter and each result of a `#[task]` has a function that knows its type; all else is the same for all tasks. A
//! closure has none, since its name is a place in the source, nor has a task that was written with `json = false`.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Deserializer;

use super::{Call, TaskDef, Tasks};
use crate::near::distance_if_near;
use crate::value::{self, CodecError, Data, Encoded, Value};

/// How many names an error lists.
const LISTED_MAX: usize = 8;

/// How many characters of an argument an error shows.
const SHOWN_MAX: usize = 60;

/// How a task is called with arguments in JSON. Written by the macro.
pub struct JsonEntry {
    /// Its parameters.
    pub parameters: &'static [JsonParameter],
    /// Its result in JSON.
    pub show: fn(&Value) -> Result<String, JsonResultError>,
}

/// A parameter of a task. Written by the macro.
pub struct JsonParameter {
    /// Its name.
    pub name: &'static str,
    /// Its type, as written.
    pub written: &'static str,
    /// Encodes the argument whose JSON this is.
    pub encode: fn(&str) -> Result<Encoded, JsonArgumentError>,
}

/// Why a text is no argument of a type.
#[derive(Debug, thiserror::Error)]
pub enum JsonArgumentError {
    /// It is no JSON, or that of another type.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The value cannot go to a task.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Why a result is not shown. The result itself is as good as it was.
#[derive(Debug, thiserror::Error)]
pub enum JsonResultError {
    /// JSON cannot say it, such as a map whose keys are no strings, numbers or truth values.
    #[error("a value of type {type_name} cannot be written as JSON: {source}")]
    Json {
        /// The Rust type.
        type_name: &'static str,
        /// What is in the way.
        source: serde_json::Error,
    },
    /// It is no value of the task's type.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The task's results have no JSON.
    #[error("the results of {task} are for programs only")]
    NotByJson {
        /// The task's name.
        task: &'static str,
    },
}

/// Why there is no call of this name with these arguments. Nothing was submitted.
#[derive(Debug, thiserror::Error)]
pub enum JsonCallError {
    /// The program has no task of this name, nor one whose path ends in it.
    #[error("this program has no task {name}: {}", advice(.known))]
    NoSuchTask {
        /// The name.
        name: String,
        /// What may have been meant, the nearest first; none if the program has no tasks that can be called so.
        known: Vec<&'static str>,
    },
    /// Several tasks have paths that end in this name.
    #[error("{name} may be any of {}: give more of its path", listed(.matching))]
    AmbiguousTask {
        /// The name.
        name: String,
        /// The tasks that it fits.
        matching: Vec<&'static str>,
    },
    /// The task takes what nobody can write down.
    #[error("{task} takes or gives what only a program can make: it cannot be called by its name")]
    NotByJson {
        /// The task's name.
        task: &'static str,
    },
    /// The text is no array in JSON.
    #[error("the arguments of {call} are no array in JSON, such as [\"a.txt\", 3]: {problem}")]
    NoArray {
        /// The task, with its parameters.
        call: String,
        /// What is wrong.
        problem: ArrayProblem,
    },
    /// There are too many arguments, or too few.
    #[error("{call} takes {takes} argument{}, not {given}", if *.takes == 1 { "" } else { "s" })]
    Count {
        /// The task, with its parameters.
        call: String,
        /// How many it takes.
        takes: usize,
        /// How many there are.
        given: usize,
    },
    /// An argument is of another type.
    #[error("argument {position} of {call} is {given}, which is no {written}: {source}")]
    Argument {
        /// The task, with its parameters.
        call: String,
        /// Which argument, from 1.
        position: usize,
        /// The argument, cut off if it is long.
        given: String,
        /// The parameter's type.
        written: &'static str,
        /// What is wrong with it.
        source: JsonArgumentError,
    },
}

/// What is wrong with a text that should be an array.
#[derive(Debug, thiserror::Error)]
pub enum ArrayProblem {
    /// It begins with something else.
    #[error("it does not begin with [")]
    NoBeginning,
    /// An element is no JSON.
    #[error("element {position}: {source}")]
    Element {
        /// Which, from 1.
        position: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It breaks off.
    #[error("it has no ] at its end")]
    Unfinished,
    /// Something stands where there should be a comma or the end.
    #[error("after element {0} comes neither a comma nor ]")]
    NoSeparator(usize),
    /// Something stands behind its end.
    #[error("something follows after its end")]
    Trailing,
}

/// What to do about a name that no task has.
fn advice(known: &[&'static str]) -> String {
    if known.is_empty() {
        return "it has none that can be called by name; run a program of yours that has tasks and calls \
                starling::main()"
            .to_owned();
    }
    format!("did you mean {}?", listed(known))
}

fn listed(names: &[&'static str]) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let mut list = names[..names.len() - more].join(", ");
    if more > 0 {
        list += &format!(" and {more} more");
    }
    list
}

/// The encoding of the `T` whose JSON this is. The macro names it for each parameter.
pub fn encode_json<T: Data>(text: &str) -> Result<Encoded, JsonArgumentError> {
    let argument: T = from_json(text)?;
    Ok(Encoded::of(&argument)?)
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    value::plain(|| serde_json::from_str(text))
}

/// The JSON of a value that is a `T`. The macro names it for each result. Of a [`Buffer`](value::Buffer) and of
/// [`Parts`](crate::parts::Parts) it says the size, and of a number that is not finite `null`.
pub fn show_json<T: Data>(value: &Value) -> Result<String, JsonResultError> {
    let result = value.get::<T>()?;
    value::described(|| serde_json::to_string(&*result))
        .map_err(|source| JsonResultError::Json { type_name: std::any::type_name::<T>(), source })
}

impl TaskDef {
    /// A result of the task in JSON, on one line. Of a [`Buffer`](value::Buffer) and of [`Parts`](crate::parts::Parts) it
    /// says the size, and of a number that is not finite `null`.
    ///
    /// # Errors
    /// If JSON cannot say it, or it is no result of this task.
    pub fn show(&self, result: &Value) -> Result<String, JsonResultError> {
        let entry = self.json.as_ref().ok_or(JsonResultError::NotByJson { task: self.name })?;
        (entry.show)(result)
    }

    /// The task with its parameters, as `crate::count(path: &str, n: u64)`; without them if it cannot be called by name.
    fn as_called(&self) -> String {
        let Some(entry) = &self.json else { return self.name.to_owned() };
        let parameters =
            entry.parameters.iter().map(|JsonParameter { name, written, .. }| format!("{name}: {written}"));
        format!("{}({})", self.name, parameters.collect::<Vec<_>>().join(", "))
    }
}

impl Call<Value> {
    /// A call of the task of this program that has this name, with the arguments in a JSON array. The name is the
    /// function's path, or so much of its end that it fits no other task. What the task gives is not known here: see
    /// [`Future::value`](super::Future::value) and [`TaskDef::show`].
    ///
    /// ```
    /// # use starling_runtime::task::Call;
    /// #[starling_macros::task(crate = starling_runtime)]
    /// fn repeat(text: &str, times: usize) -> String {
    ///     text.repeat(times)
    /// }
    ///
    /// let call = Call::from_json("repeat", r#"["la", 3]"#)?;
    /// assert_eq!(call.def().signature, "(&str,usize,)->String");
    /// assert!(Call::from_json("repeat", r#"["la"]"#).is_err());
    /// # Ok::<(), starling_runtime::task::JsonCallError>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such task or more than one, or if the arguments are not those that it takes.
    pub fn from_json(name: &str, args: &str) -> Result<Call<Value>, JsonCallError> {
        call_of(Tasks::linked().find(name)?, args)
    }
}

impl Tasks {
    /// The task that has this name: its path, or so much of its end that it fits no other task that can be called by name.
    ///
    /// # Errors
    /// If there is no such task, or more than one.
    pub fn find(&self, name: &str) -> Result<&'static TaskDef, JsonCallError> {
        find(name, &self.by_kind.values().map(|task| task.def).collect::<Vec<_>>())
    }
}

/// The task that `name` means among `defs`.
fn find(name: &str, defs: &[&'static TaskDef]) -> Result<&'static TaskDef, JsonCallError> {
    if let Some(exact) = defs.iter().find(|def| def.name == name) {
        return Ok(exact);
    }
    let ends_so = |def: &TaskDef| def.name.strip_suffix(name).is_some_and(|path| path.ends_with("::"));
    let mut callable: Vec<&'static TaskDef> = defs.iter().copied().filter(|def| def.json.is_some()).collect();
    callable.sort_unstable_by_key(|def| def.name);
    let matching: Vec<_> = callable.iter().copied().filter(|def| ends_so(def)).collect();
    match (matching.as_slice(), defs.iter().find(|def| ends_so(def))) {
        ([def], _) => Ok(def),
        ([], Some(def)) => Ok(def),
        ([], None) => Err(JsonCallError::NoSuchTask { name: name.to_owned(), known: probable(name, &callable) }),
        (several, _) => Err(JsonCallError::AmbiguousTask {
            name: name.to_owned(),
            matching: several.iter().map(|def| def.name).collect(),
        }),
    }
}

/// The tasks that may have been meant: those with names like this one, or else all.
fn probable(name: &str, callable: &[&'static TaskDef]) -> Vec<&'static str> {
    let last = |path: &'static str| path.rsplit("::").next().unwrap_or(path);
    let distance = |def: &TaskDef| {
        let whole = distance_if_near(name, def.name).filter(|_| name.contains("::"));
        whole.into_iter().chain(distance_if_near(name, last(def.name))).min()
    };
    let mut near: Vec<_> = callable.iter().filter_map(|def| Some((distance(def)?, def.name))).collect();
    near.sort_unstable();
    if near.is_empty() {
        return callable.iter().map(|def| def.name).collect();
    }
    near.into_iter().map(|(_, name)| name).take(3).collect()
}

fn call_of(def: &'static TaskDef, args: &str) -> Result<Call<Value>, JsonCallError> {
    let entry = def.json.as_ref().ok_or(JsonCallError::NotByJson { task: def.name })?;
    let args = elements(args).map_err(|problem| JsonCallError::NoArray { call: def.as_called(), problem })?;
    let (takes, given) = (entry.parameters.len(), args.len());
    if takes != given {
        return Err(JsonCallError::Count { call: def.as_called(), takes, given });
    }
    let mut call = Call::new(def);
    for (at, (parameter, arg)) in entry.parameters.iter().zip(args).enumerate() {
        let encoded = (parameter.encode)(arg).map_err(|source| JsonCallError::Argument {
            call: def.as_called(),
            position: at + 1,
            given: cut(arg),
            written: parameter.written,
            source,
        })?;
        call = call.encoded_arg(encoded);
    }
    Ok(call)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The texts of an array's elements: each is then read by who knows its type, which a number too large for any type here
/// would not survive otherwise.
fn elements(text: &str) -> Result<Vec<&str>, ArrayProblem> {
    let mut rest = text.trim_ascii().strip_prefix('[').ok_or(ArrayProblem::NoBeginning)?.trim_ascii_start();
    let mut elements = Vec::new();
    if let Some(after) = rest.strip_prefix(']') {
        return if after.is_empty() { Ok(elements) } else { Err(ArrayProblem::Trailing) };
    }
    loop {
        let position = elements.len() + 1;
        let mut values = Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(IgnoredAny)) => {}
            Some(Err(source)) => return Err(ArrayProblem::Element { position, source }),
            None => return Err(ArrayProblem::Unfinished),
        }
        let (element, after) = rest.split_at(values.byte_offset());
        elements.push(element);
        rest = after.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_ascii_start();
        } else if let Some(after) = rest.strip_prefix(']') {
            return if after.is_empty() { Ok(elements) } else { Err(ArrayProblem::Trailing) };
        } else {
            return Err(if rest.is_empty() { ArrayProblem::Unfinished } else { ArrayProblem::NoSeparator(position) });
        }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
