//! Fields of JSON values.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use starling_core::failure::FailureCause;
use starling_runtime::task::items::{AnySink, Buckets, ItemType, Sink, Stop};
use starling_runtime::value::Data;

use super::Bag;
use super::json::Json;
use super::plan::Step;
use super::scalar::{Kind, Scalar, with_scalar};

/// How many characters of a value an error shows.
const SHOWN_CHARS_MAX: usize = 200;

/// Which part of a JSON value is taken: a field of an object by its name, an element of an array by its number, or
/// several, which give an array.
///
/// ```
/// use starling_collections::bag::Field;
///
/// let fields = [Field::from("name"), Field::from(0), Field::from(["id", "name"])];
/// assert_eq!(fields.map(|field| field.to_string()), ["\"name\"", "0", "[\"id\",\"name\"]"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Field {
    /// A field of an object.
    Name(String),
    /// An element of an array, counted from 0.
    Index(usize),
    /// Each of these, in an array.
    Several(Vec<Field>),
}

impl From<&str> for Field {
    fn from(name: &str) -> Field {
        Field::Name(name.to_owned())
    }
}

impl From<String> for Field {
    fn from(name: String) -> Field {
        Field::Name(name)
    }
}

impl From<usize> for Field {
    fn from(index: usize) -> Field {
        Field::Index(index)
    }
}

impl<F: Into<Field>, const N: usize> From<[F; N]> for Field {
    fn from(fields: [F; N]) -> Field {
        Field::Several(fields.map(Into::into).into())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Name(name) => write!(f, "{name:?}"),
            Field::Index(index) => write!(f, "{index}"),
            Field::Several(fields) => {
                f.write_str("[")?;
                for (number, field) in fields.iter().enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    write!(f, "{comma}{field}")?;
                }
                f.write_str("]")
            }
        }
    }
}

impl Field {
    /// This part of `value`; the first field that is not there is the error.
    fn of<'a>(&'a self, value: &Value, default: Option<&Value>) -> Result<Value, &'a Field> {
        let found = match self {
            Field::Name(name) => value.get(name),
            Field::Index(index) => value.get(*index),
            Field::Several(fields) => {
                return fields.iter().map(|field| field.of(value, default)).collect::<Result<_, _>>().map(Value::Array);
            }
        };
        found.or(default).cloned().ok_or(self)
    }
}

/// What [`Bag::pluck_as`] gives: a [`Scalar`], or an `Option` of one for fields that may be absent or null.
pub trait Plucked: Data {
    #[doc(hidden)]
    const KIND: Kind;
    #[doc(hidden)]
    const OPTIONAL: bool;
}

impl<S: Scalar> Plucked for S {
    const KIND: Kind = S::KIND;
    const OPTIONAL: bool = false;
}

impl<S: Scalar> Plucked for Option<S> {
    const KIND: Kind = S::KIND;
    const OPTIONAL: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Value {}
    impl Sealed for super::Json {}
}

/// An item that is a JSON value: a [`Json`], or a `serde_json::Value`, which is an item only within a stage, since it cannot
/// travel.
pub trait JsonItem: Data + From<Value> + sealed::Sealed {
    #[doc(hidden)]
    const TRAVELS: bool;
    #[doc(hidden)]
    fn value(&self) -> &Value;
}

impl JsonItem for Value {
    const TRAVELS: bool = false;

    fn value(&self) -> &Value {
        self
    }
}

impl JsonItem for Json {
    const TRAVELS: bool = true;

    fn value(&self) -> &Value {
        self
    }
}

/// A step that takes part of a JSON value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pluck {
    field: Field,
    /// What stands for a field that is absent, as text.
    default: Option<String>,
    /// The type that it becomes, and whether it is in an `Option`; `None` leaves it a JSON value.
    scalar: Option<(Kind, bool)>,
    /// Whether items are [`Json`].
    travels: bool,
}

impl Pluck {
    fn of<J: JsonItem>(field: Field) -> Pluck {
        Pluck { field, default: None, scalar: None, travels: J::TRAVELS }
    }

    /// The items that it gives.
    pub(crate) fn gives(&self) -> ItemType {
        match self.scalar {
            None => self.takes(),
            Some((kind, false)) => with_scalar!(kind, S => ItemType::of::<S>()),
            Some((kind, true)) => with_scalar!(kind, S => ItemType::of::<Option<S>>()),
        }
    }

    /// The items that it takes.
    pub(crate) fn takes(&self) -> ItemType {
        if self.travels { ItemType::of::<Json>() } else { ItemType::of::<Value>() }
    }

    /// The step's sink.
    pub(crate) fn open(&self, next: AnySink) -> Result<AnySink, FailureCause> {
        if self.travels { self.open_for::<Json>(next) } else { self.open_for::<Value>(next) }
    }

    fn open_for<J: JsonItem>(&self, next: AnySink) -> Result<AnySink, FailureCause> {
        match self.scalar {
            None => self.sink::<J, J>(next, |value| Ok(value.into())),
            Some((kind, false)) => with_scalar!(kind, S => self.sink::<J, S>(next, serde_json::from_value)),
            Some((kind, true)) => with_scalar!(kind, S => self.sink::<J, Option<S>>(next, serde_json::from_value)),
        }
    }

    fn sink<J: JsonItem, R: Data>(&self, next: AnySink, convert: Convert<R>) -> Result<AnySink, FailureCause> {
        let default = match (&self.default, self.scalar) {
            (Some(text), _) => Some(serde_json::from_str(text).map_err(|error| FailureCause::Codec {
                message: format!("the default of the field {}: {error}", self.field),
            })?),
            (None, Some((_, true))) => Some(Value::Null),
            (None, _) => None,
        };
        let field = self.field.clone();
        Ok(AnySink::new::<J>(Plucking { field, default, convert, next: next.typed::<R>()? }))
    }
}

type Convert<R> = fn(Value) -> Result<R, serde_json::Error>;

struct Plucking<R> {
    field: Field,
    default: Option<Value>,
    convert: Convert<R>,
    next: Box<dyn Sink<R>>,
}

impl<J: JsonItem, R: 'static> Sink<J> for Plucking<R> {
    fn push(&mut self, item: J) -> Result<(), Stop> {
        let failed = |message| Stop::from(FailureCause::Error { message, sources: Vec::new() });
        let item = item.value();
        let part = self.field.of(item, self.default.as_ref()).map_err(|absent| {
            let item = shown(item);
            failed(format!("{item} has no {absent}: use pluck_or, or pluck_as::<Option<_>>, if it may be absent"))
        })?;
        let part =
            (self.convert)(part).map_err(|error| failed(format!("{} of {}: {error}", self.field, shown(item))))?;
        self.next.push(part)
    }

    fn finish(self: Box<Self>) -> Result<Buckets, FailureCause> {
        self.next.finish()
    }
}

/// A value, or its beginning, for an error.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// JSON values. Of items that are structs or tuples a closure takes a field, with its type: `map(task!(|post: &Post| post.score))`.
impl<J: JsonItem> Bag<J> {
    /// This field or element of each value. A value that does not have it fails the computation.
    ///
    /// ```no_run
    /// # macro_rules! task { ($($t:tt)*) => { starling_macros::task_closure!(crate = starling_runtime, $($t)*) } }
    /// use starling_collections::bag::{Bag, Json};
    ///
    /// # async fn run(cluster: starling_actors::Cluster) -> Result<(), Box<dyn std::error::Error>> {
    /// let posts = Bag::read_text(&cluster, "posts/*.jsonl").try_map(task!(|line: &str| serde_json::from_str::<Json>(line)));
    /// let names = posts.pluck("owner").pluck_as::<String>("name").frequencies().collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pluck(self, field: impl Into<Field>) -> Bag<J> {
        self.with_step(Step::Pluck(Pluck::of::<J>(field.into())))
    }

    /// As [`pluck`](Bag::pluck), with `default` where the field is absent. A field that is there and null stays null.
    pub fn pluck_or(self, field: impl Into<Field>, default: Value) -> Bag<J> {
        let default = Some(default.to_string());
        self.with_step(Step::Pluck(Pluck { default, ..Pluck::of::<J>(field.into()) }))
    }

    /// As [`pluck`](Bag::pluck), as a number, text or truth value. A value of another type fails the computation; an absent
    /// field or null too, unless it is plucked as an `Option`.
    pub fn pluck_as<R: Plucked>(self, field: impl Into<Field>) -> Bag<R> {
        let scalar = Some((R::KIND, R::OPTIONAL));
        self.with_step(Step::Pluck(Pluck { scalar, ..Pluck::of::<J>(field.into()) }))
    }
}
