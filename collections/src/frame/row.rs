//! A row as closures see it: cells by the names of their columns, of types that postcard can carry.
//!
//! Arrow's many types are few here: all integers are `Int` or `UInt`, all texts are `Text`, dictionaries are what they stand for.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use starling_runtime::value::Buffer;

/// A row of a frame.
///
/// ```
/// use starling_collections::frame::{Row, row};
///
/// let row: Row = row!["name" => "ada", "score" => 36, "height" => None::<f64>];
/// assert_eq!(row.get::<i64>("score")?, 36);
/// assert_eq!(row.get::<&str>("name")?, "ada");
/// assert_eq!(row.get::<Option<f64>>("height")?, None);
/// let error = row.get::<i64>("name").unwrap_err();
/// assert_eq!(error.to_string(), "column \"name\" is text (\"ada\"), but i64 was asked for");
/// # Ok::<(), starling_collections::frame::RowError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    columns: Columns,
    cells: Vec<Cell>,
}

/// What a row has in a column.
///
/// What there is of it is exact: nothing is rounded on the way from a frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer of any width.
    Int(i64),
    /// An unsigned integer of any width.
    UInt(u64),
    /// A float of any width.
    Float(f64),
    /// `digits` divided by 10 to the power of `scale`.
    Decimal {
        /// All digits, without a point.
        digits: i128,
        /// How many of them are behind the point.
        scale: i8,
    },
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Buffer),
    /// Days since 1970-01-01.
    Date(i32),
    /// Nanoseconds since midnight.
    Time(i64),
    /// The time since 1970-01-01 00:00: in UTC if the column has a time zone, otherwise in whatever zone is meant.
    Timestamp {
        /// How many units.
        value: i64,
        /// Of what.
        unit: Unit,
    },
    /// A length of time.
    Duration {
        /// How many units.
        value: i64,
        /// Of what.
        unit: Unit,
    },
    /// A length of time in the calendar; its three parts add up.
    Interval {
        /// Months.
        months: i32,
        /// Days.
        days: i32,
        /// Nanoseconds.
        nanos: i64,
    },
    /// A list.
    List(Vec<Cell>),
    /// Fields by their names.
    Struct(Vec<(String, Cell)>),
    /// Keys and their values.
    Map(Vec<(Cell, Cell)>),
}

/// What times are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unit {
    /// Seconds.
    Second,
    /// Thousandths of a second.
    Milli,
    /// Millionths of a second.
    Micro,
    /// Billionths of a second.
    Nano,
}

impl Unit {
    /// How many of them are a second.
    pub fn per_second(self) -> i64 {
        match self {
            Unit::Second => 1,
            Unit::Milli => 1_000,
            Unit::Micro => 1_000_000,
            Unit::Nano => 1_000_000_000,
        }
    }

    /// The same time in another unit, if it is a whole number of these and not too many.
    pub(super) fn rescale(self, value: i64, unit: Unit) -> Option<i64> {
        let (have, want) = (i128::from(self.per_second()), i128::from(unit.per_second()));
        let scaled = i128::from(value) * want;
        (scaled % have == 0).then_some(scaled / have).and_then(|value| i64::try_from(value).ok())
    }
}

/// Why a row does not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// There is no such column.
    #[error("the row has no column {column:?}; it has {}", listed(.columns))]
    NoColumn {
        /// The name asked for.
        column: String,
        /// The names that there are.
        columns: Vec<String>,
    },
    /// The column is NULL.
    #[error(
        "column {column:?} is NULL, but {wanted} was asked for: ask for Option<{wanted}>, or filter the NULLs in the \
         query"
    )]
    Null {
        /// The column's name.
        column: String,
        /// The type asked for.
        wanted: &'static str,
    },
    /// The column has another type, or a value that the type has no room for.
    #[error("column {column:?} is {found}, but {wanted} was asked for")]
    Type {
        /// The column's name.
        column: String,
        /// Its type and value.
        found: String,
        /// The type asked for.
        wanted: &'static str,
    },
}

/// Names, quoted, for a message.
pub(super) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("{:?}", name.as_ref())).collect::<Vec<_>>().join(", ")
}

impl Row {
    /// A row of these cells; [`row!`](crate::row!) is shorter. Of two cells of one name the first is found.
    pub fn new<N: Into<String>>(cells: impl IntoIterator<Item = (N, Cell)>) -> Row {
        let (names, cells): (Vec<String>, Vec<Cell>) =
            cells.into_iter().map(|(name, cell)| (name.into(), cell)).unzip();
        Row { columns: Columns(names.into()), cells }
    }

    /// A row of these names and as many cells. Rows of the same names, made one after the other, share them.
    #[doc(hidden)]
    pub fn of_names(names: &[&str], cells: Vec<Cell>) -> Row {
        debug_assert_eq!(names.len(), cells.len(), "a cell for each name");
        Row { columns: Columns::of(names), cells }
    }

    /// A row of names that are shared already.
    pub(super) fn of_columns(columns: &Arc<[String]>, cells: Vec<Cell>) -> Row {
        Row { columns: Columns(Arc::clone(columns)), cells }
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns.0
    }

    /// The cells, in the columns' order.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The cell of a column, if there is such a column.
    pub fn cell(&self, column: &str) -> Option<&Cell> {
        self.cells.get(self.columns.0.iter().position(|name| name == column)?)
    }

    /// What a column has, as a `T`: `bool`, any integer, `f32`, `f64`, `&str`, `String`, `&[u8]`, [`Buffer`], `&Cell`, `Cell`, a
    /// `Vec` of these for a list, or an `Option` for what may be NULL. Integers convert into each other and into floats
    /// as far as nothing is lost.
    ///
    /// # Errors
    /// [`RowError`] names the column, its type and value, and what was asked for.
    pub fn get<'a, T: FromCell<'a>>(&'a self, column: &str) -> Result<T, RowError> {
        let no_column = || RowError::NoColumn { column: column.to_owned(), columns: self.columns().to_vec() };
        let cell = self.cell(column).ok_or_else(no_column)?;
        T::from_cell(cell).ok_or_else(|| match cell {
            Cell::Null => RowError::Null { column: column.to_owned(), wanted: T::wanted() },
            cell => RowError::Type { column: column.to_owned(), found: cell.described(), wanted: T::wanted() },
        })
    }
}

/// A row: `row!["name" => value, ...]`, of whatever is `Into<Cell>`.
#[macro_export]
macro_rules! row {
    ($($name:expr => $value:expr),* $(,)?) => {
        $crate::frame::Row::of_names(&[$($name),*], ::std::vec![$($crate::frame::Cell::from($value)),*])
    };
}

impl Cell {
    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }

    /// The type and the value, for a message.
    pub(super) fn described(&self) -> String {
        let name = match self {
            Cell::Null => return "NULL".to_owned(),
            Cell::Bool(_) => "a boolean",
            Cell::Int(_) | Cell::UInt(_) => "an integer",
            Cell::Float(_) => "a float",
            Cell::Decimal { .. } => "a decimal",
            Cell::Text(_) => "text",
            Cell::Bytes(_) => "bytes",
            Cell::Date(_) => "a date",
            Cell::Time(_) => "a time",
            Cell::Timestamp { .. } => "a timestamp",
            Cell::Duration { .. } => "a duration",
            Cell::Interval { .. } => "an interval",
            Cell::List(_) => "a list",
            Cell::Struct(_) => "a struct",
            Cell::Map(_) => "a map",
        };
        format!("{name} ({self})")
    }
}

/// How much of a text is shown.
const SHOWN_MAX: usize = 40;

/// A short form, for messages.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Null => f.write_str("NULL"),
            Cell::Bool(value) => write!(f, "{value}"),
            Cell::Int(value) => write!(f, "{value}"),
            Cell::UInt(value) => write!(f, "{value}"),
            Cell::Float(value) => write!(f, "{value}"),
            Cell::Decimal { digits, scale } => write!(f, "{digits}e{}", -i32::from(*scale)),
            Cell::Text(text) => match text.char_indices().nth(SHOWN_MAX) {
                Some((end, _)) => write!(f, "{:?}...", &text[..end]),
                None => write!(f, "{text:?}"),
            },
            Cell::Bytes(bytes) => write!(f, "{} of them", bytes.len()),
            Cell::Date(days) => write!(f, "day {days}"),
            Cell::Time(nanos) => write!(f, "{nanos} ns"),
            Cell::Timestamp { value, unit } | Cell::Duration { value, unit } => {
                let unit = match unit {
                    Unit::Second => "s",
                    Unit::Milli => "ms",
                    Unit::Micro => "us",
                    Unit::Nano => "ns",
                };
                write!(f, "{value} {unit}")
            }
            Cell::Interval { months, days, nanos } => write!(f, "{months} months {days} days {nanos} ns"),
            Cell::List(items) => write!(f, "{} items", items.len()),
            Cell::Struct(fields) => {
                let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                write!(f, "of {}", listed(&names))
            }
            Cell::Map(entries) => write!(f, "{} entries", entries.len()),
        }
    }
}

/// The columns' names, shared by the rows of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Columns(Arc<[String]>);

thread_local! {
    /// The names that were read last: the next row most likely has the same.
    static LAST: RefCell<Arc<[String]>> = RefCell::new(Arc::default());
}

impl Columns {
    fn of(names: &[&str]) -> Columns {
        let last = LAST.with_borrow(Arc::clone);
        if last.iter().eq(names) {
            return Columns(last);
        }
        let columns: Arc<[String]> = names.iter().map(|&name| name.to_owned()).collect();
        LAST.set(Arc::clone(&columns));
        Columns(columns)
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0[..].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Columns, D::Error> {
        let columns = deserializer.deserialize_seq(Names(LAST.with_borrow(Arc::clone)))?;
        LAST.set(Arc::clone(&columns));
        Ok(Columns(columns))
    }
}

/// Reads names, and gives the expected ones if they are these.
struct Names(Arc<[String]>);

impl<'de> Visitor<'de> for Names {
    type Value = Arc<[String]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the names of columns")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Arc<[String]>, A::Error> {
        let mut same = 0;
        let first_other = loop {
            match seq.next_element_seed(Name(self.0.get(same).map(String::as_str)))? {
                Some(None) => same += 1,
                other => break other.flatten(),
            }
        };
        if first_other.is_none() && same == self.0.len() {
            return Ok(self.0);
        }
        let mut names = self.0.get(..same).unwrap_or_default().to_vec();
        names.extend(first_other);
        while let Some(name) = seq.next_element()? {
            names.push(name);
        }
        Ok(names.into())
    }
}

/// Reads a name: `None` if it is the expected one.
struct Name<'a>(Option<&'a str>);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a column")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<String>, E> {
        Ok((self.0 != Some(name)).then(|| name.to_owned()))
    }
}

/// What [`Row::get`] can give.
pub trait FromCell<'a>: Sized {
    /// The cell as this type; `None` if it is of another, or has a value that this one has no room for.
    fn from_cell(cell: &'a Cell) -> Option<Self>;

    /// The type's name, for a message.
    fn wanted() -> &'static str {
        std::any::type_name::<Self>()
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl FromCell<'_> for $integer {
            fn from_cell(cell: &Cell) -> Option<$integer> {
                match cell {
                    Cell::Int(value) => <$integer>::try_from(*value).ok(),
                    Cell::UInt(value) => <$integer>::try_from(*value).ok(),
                    _ => None,
                }
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, i128, u8, u16, u32, u64, usize);

/// The largest integer up to which a float has all of them.
const EXACT_MAX: u64 = 1 << f64::MANTISSA_DIGITS;

impl FromCell<'_> for f64 {
    fn from_cell(cell: &Cell) -> Option<f64> {
        match cell {
            Cell::Float(value) => Some(*value),
            Cell::Int(value) if value.unsigned_abs() <= EXACT_MAX => Some(*value as f64),
            Cell::UInt(value) if *value <= EXACT_MAX => Some(*value as f64),
            _ => None,
        }
    }
}

impl FromCell<'_> for f32 {
    fn from_cell(cell: &Cell) -> Option<f32> {
        let value = f64::from_cell(cell)?;
        let narrow = value as f32;
        (f64::from(narrow) == value || value.is_nan()).then_some(narrow)
    }
}

impl FromCell<'_> for bool {
    fn from_cell(cell: &Cell) -> Option<bool> {
        if let Cell::Bool(value) = cell { Some(*value) } else { None }
    }
}

impl<'a> FromCell<'a> for &'a str {
    fn from_cell(cell: &'a Cell) -> Option<&'a str> {
        if let Cell::Text(text) = cell { Some(text) } else { None }
    }
}

impl FromCell<'_> for String {
    fn from_cell(cell: &Cell) -> Option<String> {
        <&str>::from_cell(cell).map(str::to_owned)
    }

    fn wanted() -> &'static str {
        "String"
    }
}

impl<'a> FromCell<'a> for &'a [u8] {
    fn from_cell(cell: &'a Cell) -> Option<&'a [u8]> {
        if let Cell::Bytes(bytes) = cell { Some(bytes) } else { None }
    }
}

impl FromCell<'_> for Buffer {
    fn from_cell(cell: &Cell) -> Option<Buffer> {
        if let Cell::Bytes(bytes) = cell { Some(bytes.clone()) } else { None }
    }

    fn wanted() -> &'static str {
        "Buffer"
    }
}

impl<'a> FromCell<'a> for &'a Cell {
    fn from_cell(cell: &'a Cell) -> Option<&'a Cell> {
        Some(cell)
    }
}

impl FromCell<'_> for Cell {
    fn from_cell(cell: &Cell) -> Option<Cell> {
        Some(cell.clone())
    }
}

impl<'a, T: FromCell<'a>> FromCell<'a> for Vec<T> {
    fn from_cell(cell: &'a Cell) -> Option<Vec<T>> {
        if let Cell::List(items) = cell { items.iter().map(T::from_cell).collect() } else { None }
    }

    fn wanted() -> &'static str {
        "Vec"
    }
}

impl<'a, T: FromCell<'a>> FromCell<'a> for Option<T> {
    fn from_cell(cell: &'a Cell) -> Option<Option<T>> {
        if cell.is_null() { Some(None) } else { T::from_cell(cell).map(Some) }
    }

    fn wanted() -> &'static str {
        T::wanted()
    }
}

macro_rules! into_cell {
    ($($from:ty => |$value:ident| $cell:expr),* $(,)?) => {$(
        impl From<$from> for Cell {
            fn from($value: $from) -> Cell {
                $cell
            }
        }
    )*};
}

into_cell! {
    bool => |value| Cell::Bool(value),
    i8 => |value| Cell::Int(value.into()),
    i16 => |value| Cell::Int(value.into()),
    i32 => |value| Cell::Int(value.into()),
    i64 => |value| Cell::Int(value),
    u8 => |value| Cell::UInt(value.into()),
    u16 => |value| Cell::UInt(value.into()),
    u32 => |value| Cell::UInt(value.into()),
    u64 => |value| Cell::UInt(value),
    usize => |value| Cell::UInt(value as u64),
    f32 => |value| Cell::Float(value.into()),
    f64 => |value| Cell::Float(value),
    &str => |value| Cell::Text(value.to_owned()),
    String => |value| Cell::Text(value),
    Buffer => |value| Cell::Bytes(value),
}

/// NULL for `None`.
impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// A list, also of a `Vec<u8>`: bytes are a [`Buffer`].
impl<T: Into<Cell>> From<Vec<T>> for Cell {
    fn from(items: Vec<T>) -> Cell {
        Cell::List(items.into_iter().map(Into::into).collect())
    }
}
