//! From Arrow's columns to cells and back, a column of a batch at a time.
//!
//! Towards cells nothing is lost. Towards Arrow a cell must fit the column's type exactly, but for floats, which are rounded
//! to the column's width: what does not fit is an error with its place.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryBuilder,
    FixedSizeListArray, GenericListArray, LargeBinaryArray, LargeStringArray, MapArray, NullArray, OffsetSizeTrait,
    PrimitiveBuilder, StringArray, StringViewArray, StructArray,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, FieldRef, Fields,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTime, IntervalDayTimeType,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type, i256,
};
use datafusion::arrow::error::ArrowError;
use starling_runtime::value::Buffer;

use super::row::{Cell, FromCell, Unit};

/// Whether cells can hold what is of this type.
pub(super) fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => false,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _)
        | DataType::RunEndEncoded(_, field) => is_supported(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_supported(field.data_type())),
        DataType::Dictionary(_, values) => is_supported(values),
        _ => true,
    }
}

/// A cast that refuses what it cannot cast.
fn cast(array: &dyn Array, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}

fn unit_of(unit: TimeUnit) -> Unit {
    match unit {
        TimeUnit::Second => Unit::Second,
        TimeUnit::Millisecond => Unit::Milli,
        TimeUnit::Microsecond => Unit::Micro,
        TimeUnit::Nanosecond => Unit::Nano,
    }
}

/// The cells of a column.
///
/// # Errors
/// For a type that is not [supported](is_supported), and decimals of more digits than an `i128` has.
pub(super) fn cells(array: &dyn Array) -> Result<Vec<Cell>, ArrowError> {
    Ok(match array.data_type() {
        DataType::Null => vec![Cell::Null; array.len()],
        DataType::Boolean => array.as_boolean().iter().map(Cell::from).collect(),
        data_type if data_type.is_signed_integer() => {
            primitives::<Int64Type>(&*cast(array, &DataType::Int64)?, Cell::Int)
        }
        data_type if data_type.is_unsigned_integer() => {
            primitives::<UInt64Type>(&*cast(array, &DataType::UInt64)?, Cell::UInt)
        }
        data_type if data_type.is_floating() => {
            primitives::<Float64Type>(&*cast(array, &DataType::Float64)?, Cell::Float)
        }
        &DataType::Decimal256(_, scale) => {
            let wide =
                || ArrowError::CastError("a decimal has too many digits: cast it to VARCHAR in the query".into());
            let decimals = array.as_primitive::<Decimal256Type>().iter();
            let cell = |value: Option<i256>| match value {
                None => Ok(Cell::Null),
                Some(value) => Ok(Cell::Decimal { digits: value.to_i128().ok_or_else(wide)?, scale }),
            };
            decimals.map(cell).collect::<Result<_, ArrowError>>()?
        }
        &(DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale)) => {
            let array = cast(array, &DataType::Decimal128(38, scale))?;
            primitives::<Decimal128Type>(&*array, |digits| Cell::Decimal { digits, scale })
        }
        DataType::Utf8 => array.as_string::<i32>().iter().map(Cell::from).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(Cell::from).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(Cell::from).collect(),
        DataType::Binary => bytes(array.as_binary::<i32>().iter()),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().iter()),
        DataType::BinaryView => bytes(array.as_binary_view().iter()),
        DataType::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().iter()),
        DataType::Date32 | DataType::Date64 => primitives::<Date32Type>(&*cast(array, &DataType::Date32)?, Cell::Date),
        DataType::Time32(_) | DataType::Time64(_) => {
            primitives::<Time64NanosecondType>(&*cast(array, &DataType::Time64(TimeUnit::Nanosecond))?, Cell::Time)
        }
        DataType::Timestamp(unit, _) => {
            let unit = unit_of(*unit);
            primitives::<Int64Type>(&*cast(array, &DataType::Int64)?, |value| Cell::Timestamp { value, unit })
        }
        DataType::Duration(unit) => {
            let unit = unit_of(*unit);
            primitives::<Int64Type>(&*cast(array, &DataType::Int64)?, |value| Cell::Duration { value, unit })
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            primitives::<IntervalYearMonthType>(array, |months| Cell::Interval { months, days: 0, nanos: 0 })
        }
        DataType::Interval(IntervalUnit::DayTime) => primitives::<IntervalDayTimeType>(array, |value| {
            let nanos = i64::from(value.milliseconds) * 1_000_000;
            Cell::Interval { months: 0, days: value.days, nanos }
        }),
        DataType::Interval(IntervalUnit::MonthDayNano) => primitives::<IntervalMonthDayNanoType>(array, |value| {
            Cell::Interval { months: value.months, days: value.days, nanos: value.nanoseconds }
        }),
        DataType::List(_) => list_cells(array.as_list::<i32>())?,
        DataType::LargeList(_) => list_cells(array.as_list::<i64>())?,
        DataType::ListView(_) => view_cells(array, |row| array.as_list_view::<i32>().value(row))?,
        DataType::LargeListView(_) => view_cells(array, |row| array.as_list_view::<i64>().value(row))?,
        DataType::FixedSizeList(_, size) => {
            let values = cells(array.as_fixed_size_list().values())?;
            grouped(array, (0..array.len()).map(|_| *size as usize), values, Cell::List)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (start, len) = spanned(map.offsets());
            let keys = cells(&*map.keys().slice(start, len))?;
            let values = cells(&*map.values().slice(start, len))?;
            grouped(array, map.offsets().lengths(), keys.into_iter().zip(values).collect(), Cell::Map)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter();
            let columns = columns.map(|column| cells(column).map(Vec::into_iter));
            let mut columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
            let mut structs = Vec::with_capacity(array.len());
            for row in 0..array.len() {
                let next = |(field, column): (&FieldRef, &mut std::vec::IntoIter<Cell>)| {
                    (field.name().clone(), column.next().unwrap_or(Cell::Null))
                };
                let cells = fields.iter().zip(&mut columns).map(next).collect();
                structs.push(if array.is_null(row) { Cell::Null } else { Cell::Struct(cells) });
            }
            structs
        }
        DataType::Dictionary(_, values) => cells(&*cast(array, values)?)?,
        DataType::RunEndEncoded(_, values) => cells(&*cast(array, values.data_type())?)?,
        other => return Err(ArrowError::NotYetImplemented(format!("cells of the type {other}"))),
    })
}

fn primitives<T: ArrowPrimitiveType>(array: &dyn Array, cell: impl Fn(T::Native) -> Cell) -> Vec<Cell> {
    array.as_primitive::<T>().iter().map(|value| value.map_or(Cell::Null, &cell)).collect()
}

fn bytes<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<Cell> {
    values.map(|value| Cell::from(value.map(|bytes| Buffer::from(bytes.to_vec())))).collect()
}

/// Where the values begin that offsets are of, and how many there are.
fn spanned<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (usize, usize) {
    let (first, last) = (offsets.first().map_or(0, |at| at.as_usize()), offsets.last().map_or(0, |at| at.as_usize()));
    (first, last - first)
}

fn list_cells<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Result<Vec<Cell>, ArrowError> {
    let (start, len) = spanned(list.offsets());
    let values = cells(&*list.values().slice(start, len))?;
    Ok(grouped(list, list.offsets().lengths(), values, Cell::List))
}

/// Values in groups of these lengths; those of rows that are null are left out.
fn grouped<T>(
    array: &dyn Array,
    lengths: impl Iterator<Item = usize>,
    values: Vec<T>,
    cell: fn(Vec<T>) -> Cell,
) -> Vec<Cell> {
    let mut values = values.into_iter();
    let groups = lengths.enumerate().map(|(row, len)| {
        let group = values.by_ref().take(len).collect();
        if array.is_null(row) { Cell::Null } else { cell(group) }
    });
    groups.collect()
}

fn view_cells(array: &dyn Array, value: impl Fn(usize) -> ArrayRef) -> Result<Vec<Cell>, ArrowError> {
    let cell = |row| if array.is_null(row) { Ok(Cell::Null) } else { Ok(Cell::List(cells(&*value(row))?)) };
    (0..array.len()).map(cell).collect()
}

/// Why cells are no column.
#[derive(Debug)]
pub(super) enum Misfit {
    /// One of them does not fit.
    Cell { at: usize, reason: String },
    /// Arrow refuses them.
    Arrow(ArrowError),
}

impl From<ArrowError> for Misfit {
    fn from(error: ArrowError) -> Misfit {
        Misfit::Arrow(error)
    }
}

impl Misfit {
    fn new(at: usize, cell: &Cell, data_type: &DataType) -> Misfit {
        Misfit::Cell { at, reason: format!("{} does not fit into {data_type}", cell.described()) }
    }

    /// The misfit of a list's item as one of the list; `ends` says up to which item each list goes.
    fn of_item(self, ends: &[usize]) -> Misfit {
        match self {
            Misfit::Cell { at, reason } => {
                Misfit::Cell { at: ends.partition_point(|&end| end <= at), reason: format!("an item: {reason}") }
            }
            other => other,
        }
    }

    fn of_field(self, name: &str) -> Misfit {
        match self {
            Misfit::Cell { at, reason } => Misfit::Cell { at, reason: format!("field {name:?}: {reason}") },
            other => other,
        }
    }
}

/// A column's cells. What is within something that is NULL is not there at all.
pub(super) type Column<'a> = [Option<&'a Cell>];

/// A column of these cells.
pub(super) fn array(data_type: &DataType, is_nullable: bool, cells: &Column<'_>) -> Result<ArrayRef, Misfit> {
    if !is_nullable && let Some(at) = cells.iter().position(|cell| cell.is_some_and(Cell::is_null)) {
        return Err(Misfit::Cell { at, reason: "NULL, which the schema does not allow".to_owned() });
    }
    let to = Target { data_type, cells };
    match data_type {
        DataType::Null => {
            to.values(|_: &Cell| None::<()>)?;
            Ok(Arc::new(NullArray::new(cells.len())))
        }
        DataType::Boolean => Ok(Arc::new(BooleanArray::from(to.values(bool::from_cell)?))),
        DataType::Int8 => to.primitive::<Int8Type>(i8::from_cell),
        DataType::Int16 => to.primitive::<Int16Type>(i16::from_cell),
        DataType::Int32 => to.primitive::<Int32Type>(i32::from_cell),
        DataType::Int64 => to.primitive::<Int64Type>(i64::from_cell),
        DataType::UInt8 => to.primitive::<UInt8Type>(u8::from_cell),
        DataType::UInt16 => to.primitive::<UInt16Type>(u16::from_cell),
        DataType::UInt32 => to.primitive::<UInt32Type>(u32::from_cell),
        DataType::UInt64 => to.primitive::<UInt64Type>(u64::from_cell),
        DataType::Float32 => to.primitive::<Float32Type>(|cell| {
            let value = f64::from_cell(cell)?;
            let narrow = value as f32;
            (narrow.is_finite() || !value.is_finite()).then_some(narrow)
        }),
        DataType::Float64 => to.primitive::<Float64Type>(f64::from_cell),
        DataType::Decimal32(precision, scale) => to.primitive::<Decimal32Type>(|cell| {
            let digits = i32::try_from(digits(cell, *scale)?).ok()?;
            Decimal32Type::is_valid_decimal_precision(digits, *precision).then_some(digits)
        }),
        DataType::Decimal64(precision, scale) => to.primitive::<Decimal64Type>(|cell| {
            let digits = i64::try_from(digits(cell, *scale)?).ok()?;
            Decimal64Type::is_valid_decimal_precision(digits, *precision).then_some(digits)
        }),
        DataType::Decimal128(precision, scale) => to.primitive::<Decimal128Type>(|cell| {
            digits(cell, *scale).filter(|digits| Decimal128Type::is_valid_decimal_precision(*digits, *precision))
        }),
        DataType::Decimal256(precision, scale) => to.primitive::<Decimal256Type>(|cell| {
            let digits = i256::from_i128(digits(cell, *scale)?);
            Decimal256Type::is_valid_decimal_precision(digits, *precision).then_some(digits)
        }),
        DataType::Utf8 => Ok(Arc::new(StringArray::from(to.within_offsets::<str>(str::len)?))),
        DataType::LargeUtf8 => Ok(Arc::new(LargeStringArray::from(to.values(<&str>::from_cell)?))),
        DataType::Utf8View => Ok(Arc::new(StringViewArray::from(to.values(<&str>::from_cell)?))),
        DataType::Binary => Ok(Arc::new(BinaryArray::from(to.within_offsets::<[u8]>(<[u8]>::len)?))),
        DataType::LargeBinary => Ok(Arc::new(LargeBinaryArray::from(to.values(<&[u8]>::from_cell)?))),
        DataType::BinaryView => Ok(Arc::new(BinaryViewArray::from(to.values(<&[u8]>::from_cell)?))),
        DataType::FixedSizeBinary(size) => {
            let is_fit = |bytes: &&[u8]| i32::try_from(bytes.len()) == Ok(*size);
            let mut builder = FixedSizeBinaryBuilder::with_capacity(cells.len(), *size);
            for value in to.values(|cell| <&[u8]>::from_cell(cell).filter(is_fit))? {
                match value {
                    Some(value) => builder.append_value(value)?,
                    None => builder.append_null(),
                }
            }
            Ok(Arc::new(builder.finish()))
        }
        DataType::Date32 => to.primitive::<Date32Type>(days),
        DataType::Date64 => to.primitive::<Date64Type>(|cell| days(cell).map(|days| i64::from(days) * 86_400_000)),
        DataType::Time32(TimeUnit::Second) => {
            to.primitive::<Time32SecondType>(|cell| i32::try_from(time(cell, Unit::Second)?).ok())
        }
        DataType::Time32(_) => {
            to.primitive::<Time32MillisecondType>(|cell| i32::try_from(time(cell, Unit::Milli)?).ok())
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            to.primitive::<Time64MicrosecondType>(|cell| time(cell, Unit::Micro))
        }
        DataType::Time64(_) => to.primitive::<Time64NanosecondType>(|cell| time(cell, Unit::Nano)),
        DataType::Timestamp(unit, _) => {
            let value = |cell: &Cell| match cell {
                Cell::Timestamp { value, unit: from } => from.rescale(*value, unit_of(*unit)),
                _ => None,
            };
            match unit {
                TimeUnit::Second => to.primitive::<TimestampSecondType>(value),
                TimeUnit::Millisecond => to.primitive::<TimestampMillisecondType>(value),
                TimeUnit::Microsecond => to.primitive::<TimestampMicrosecondType>(value),
                TimeUnit::Nanosecond => to.primitive::<TimestampNanosecondType>(value),
            }
        }
        DataType::Duration(unit) => {
            let value = |cell: &Cell| match cell {
                Cell::Duration { value, unit: from } => from.rescale(*value, unit_of(*unit)),
                _ => None,
            };
            match unit {
                TimeUnit::Second => to.primitive::<DurationSecondType>(value),
                TimeUnit::Millisecond => to.primitive::<DurationMillisecondType>(value),
                TimeUnit::Microsecond => to.primitive::<DurationMicrosecondType>(value),
                TimeUnit::Nanosecond => to.primitive::<DurationNanosecondType>(value),
            }
        }
        DataType::Interval(IntervalUnit::YearMonth) => to.primitive::<IntervalYearMonthType>(|cell| match cell {
            Cell::Interval { months, days: 0, nanos: 0 } => Some(*months),
            _ => None,
        }),
        DataType::Interval(IntervalUnit::DayTime) => to.primitive::<IntervalDayTimeType>(|cell| match cell {
            Cell::Interval { months: 0, days, nanos } if nanos % 1_000_000 == 0 => {
                Some(IntervalDayTime::new(*days, i32::try_from(nanos / 1_000_000).ok()?))
            }
            _ => None,
        }),
        DataType::Interval(IntervalUnit::MonthDayNano) => to.primitive::<IntervalMonthDayNanoType>(|cell| match cell {
            Cell::Interval { months, days, nanos } => Some(IntervalMonthDayNano::new(*months, *days, *nanos)),
            _ => None,
        }),
        DataType::List(field) => to.list::<i32>(field),
        DataType::LargeList(field) => to.list::<i64>(field),
        DataType::FixedSizeList(field, size) => to.fixed_size_list(field, *size),
        DataType::Map(field, is_sorted) => to.map(field, *is_sorted),
        DataType::Struct(fields) => to.structs(fields),
        // Arrow casts to these from their plainer forms without loss.
        DataType::Float16 => Ok(cast(&array(&DataType::Float32, is_nullable, cells)?, data_type)?),
        DataType::ListView(field) => {
            Ok(cast(&array(&DataType::List(Arc::clone(field)), is_nullable, cells)?, data_type)?)
        }
        DataType::LargeListView(field) => {
            Ok(cast(&array(&DataType::LargeList(Arc::clone(field)), is_nullable, cells)?, data_type)?)
        }
        DataType::Dictionary(_, values) => Ok(cast(&array(values, is_nullable, cells)?, data_type)?),
        DataType::RunEndEncoded(_, values) => Ok(cast(&array(values.data_type(), is_nullable, cells)?, data_type)?),
        other => Err(ArrowError::NotYetImplemented(format!("a column of the type {other} from cells")).into()),
    }
}

fn days(cell: &Cell) -> Option<i32> {
    if let Cell::Date(days) = cell { Some(*days) } else { None }
}

fn time(cell: &Cell, unit: Unit) -> Option<i64> {
    if let Cell::Time(nanos) = cell { Unit::Nano.rescale(*nanos, unit) } else { None }
}

/// The digits of a decimal of this scale that is the cell's number exactly.
fn digits(cell: &Cell, scale: i8) -> Option<i128> {
    let (digits, from) = match cell {
        Cell::Decimal { digits, scale } => (*digits, *scale),
        other => (i128::from_cell(other)?, 0),
    };
    let by = i32::from(scale) - i32::from(from);
    if digits == 0 {
        return Some(0);
    }
    let factor = 10_i128.checked_pow(by.unsigned_abs())?;
    if by >= 0 { digits.checked_mul(factor) } else { (digits % factor == 0).then_some(digits / factor) }
}

/// Cells and the type of what is made of them.
struct Target<'a> {
    data_type: &'a DataType,
    cells: &'a Column<'a>,
}

impl<'a> Target<'a> {
    /// The cells as values of a type.
    fn values<T>(&self, value: impl Fn(&'a Cell) -> Option<T>) -> Result<Vec<Option<T>>, Misfit> {
        let one = |(at, cell): (usize, &Option<&'a Cell>)| match cell {
            None | Some(Cell::Null) => Ok(None),
            Some(cell) => value(cell).map(Some).ok_or_else(|| Misfit::new(at, cell, self.data_type)),
        };
        self.cells.iter().enumerate().map(one).collect()
    }

    /// Texts or bytes that together have no more bytes than an `i32` can say.
    fn within_offsets<T: ?Sized + 'a>(&self, len: fn(&T) -> usize) -> Result<Vec<Option<&'a T>>, Misfit>
    where
        &'a T: FromCell<'a>,
    {
        let values = self.values(<&'a T>::from_cell)?;
        let mut total = 0_usize;
        for (at, value) in values.iter().enumerate() {
            total += value.map_or(0, len);
            if i32::try_from(total).is_err() {
                let large = if *self.data_type == DataType::Utf8 { DataType::LargeUtf8 } else { DataType::LargeBinary };
                let reason = format!("the batch has more than {} bytes: make the column {large}", i32::MAX);
                return Err(Misfit::Cell { at, reason });
            }
        }
        Ok(values)
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        value: impl Fn(&'a Cell) -> Option<T::Native>,
    ) -> Result<ArrayRef, Misfit> {
        let mut builder = PrimitiveBuilder::<T>::with_capacity(self.cells.len()).with_data_type(self.data_type.clone());
        for value in self.values(value)? {
            builder.append_option(value);
        }
        Ok(Arc::new(builder.finish()))
    }

    fn nulls(&self) -> NullBuffer {
        self.cells.iter().map(|cell| cell.is_some_and(|cell| !cell.is_null())).collect::<Vec<bool>>().into()
    }

    /// The items of all lists, and up to which of them each list goes.
    fn items(&self) -> Result<(Vec<Option<&'a Cell>>, Vec<usize>), Misfit> {
        let lists = self.values(|cell| if let Cell::List(items) = cell { Some(items) } else { None })?;
        let mut items = Vec::new();
        let mut ends = Vec::with_capacity(lists.len());
        for list in lists {
            items.extend(list.into_iter().flatten().map(Some));
            ends.push(items.len());
        }
        Ok((items, ends))
    }

    fn list<O: OffsetSizeTrait>(&self, field: &FieldRef) -> Result<ArrayRef, Misfit> {
        let (items, ends) = self.items()?;
        let values = array(field.data_type(), field.is_nullable(), &items).map_err(|misfit| misfit.of_item(&ends))?;
        let list = GenericListArray::<O>::try_new(Arc::clone(field), offsets(&ends), values, Some(self.nulls()))?;
        Ok(Arc::new(list))
    }

    fn fixed_size_list(&self, field: &FieldRef, size: i32) -> Result<ArrayRef, Misfit> {
        let len = size as usize;
        let lists = self.values(|cell| match cell {
            Cell::List(items) if items.len() == len => Some(items),
            _ => None,
        })?;
        let mut items = Vec::with_capacity(lists.len() * len);
        for list in lists {
            match list {
                Some(list) => items.extend(list.iter().map(Some)),
                None => items.extend((0..len).map(|_| None)),
            }
        }
        let ends: Vec<usize> = (1..=self.cells.len()).map(|row| row * len).collect();
        let values = array(field.data_type(), field.is_nullable(), &items).map_err(|misfit| misfit.of_item(&ends))?;
        let (field, nulls) = (Arc::clone(field), Some(self.nulls()));
        Ok(Arc::new(FixedSizeListArray::try_new_with_length(field, size, values, nulls, self.cells.len())?))
    }

    fn map(&self, field: &FieldRef, is_sorted: bool) -> Result<ArrayRef, Misfit> {
        let maps = self.values(|cell| if let Cell::Map(entries) = cell { Some(entries) } else { None })?;
        let DataType::Struct(fields) = field.data_type() else {
            return Err(ArrowError::SchemaError(format!("the entries of a map are {}", field.data_type())).into());
        };
        let [key, value] = &fields[..] else {
            return Err(ArrowError::SchemaError("the entries of a map are no pairs".to_owned()).into());
        };
        let (mut keys, mut values, mut ends) = (Vec::new(), Vec::new(), Vec::with_capacity(maps.len()));
        for map in maps {
            for (key, value) in map.into_iter().flatten() {
                keys.push(Some(key));
                values.push(Some(value));
            }
            ends.push(keys.len());
        }
        let of_item = |misfit: Misfit| misfit.of_item(&ends);
        let keys = array(key.data_type(), key.is_nullable(), &keys).map_err(of_item)?;
        let values = array(value.data_type(), value.is_nullable(), &values).map_err(of_item)?;
        let entries = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
        let nulls = Some(self.nulls());
        Ok(Arc::new(MapArray::try_new(Arc::clone(field), offsets(&ends), entries, nulls, is_sorted)?))
    }

    fn structs(&self, fields: &Fields) -> Result<ArrayRef, Misfit> {
        let structs = self.values(|cell| if let Cell::Struct(fields) = cell { Some(fields) } else { None })?;
        let mut columns = Vec::with_capacity(fields.len());
        for (number, field) in fields.iter().enumerate() {
            let name = field.name();
            let mut cells = Vec::with_capacity(structs.len());
            for (at, cell) in structs.iter().enumerate() {
                let Some(cell) = cell else {
                    cells.push(None);
                    continue;
                };
                // Mostly they are in the schema's order.
                let same = cell.get(number).filter(|field| field.0 == *name);
                let found = same.or_else(|| cell.iter().find(|field| field.0 == *name));
                let missing = || Misfit::Cell { at, reason: format!("the struct has no field {name:?}") };
                cells.push(Some(&found.ok_or_else(missing)?.1));
            }
            let column = array(field.data_type(), field.is_nullable(), &cells);
            columns.push(column.map_err(|misfit| misfit.of_field(name))?);
        }
        let nulls = Some(self.nulls());
        Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, self.cells.len())?))
    }
}

fn offsets<O: OffsetSizeTrait>(ends: &[usize]) -> OffsetBuffer<O> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    OffsetBuffer::from_lengths(starts.zip(ends).map(|(start, end)| end - start))
}
