//! The Arrow columns that fields' texts go into, each parsed as arrow's own CSV reader parses its type.

use std::sync::Arc;

use datafusion::arrow::array::builder::NullBufferBuilder;
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::types::{
    ArrowPrimitiveType, ArrowTimestampType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type,
    Decimal256Type, DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use datafusion::arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, NullArray, PrimitiveArray, StringArray};
use datafusion::arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::arrow::error::ArrowError;

use super::fields::{Form, Splitter};

/// The text is no value of the column's type.
#[derive(Debug)]
pub(super) struct NoValue;

/// Why a column cannot be finished.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// The text of this row is not UTF-8.
    NotUtf8(usize),
    Arrow(ArrowError),
}

impl From<ArrowError> for Unfinished {
    fn from(error: ArrowError) -> Unfinished {
        Unfinished::Arrow(error)
    }
}

/// A column under construction.
pub(super) trait Column: Send {
    /// Appends the value of a text, which is not empty.
    fn push(&mut self, text: &[u8]) -> Result<(), NoValue>;

    /// Appends the value of a field that has to be unescaped; `scratch` is for that.
    fn push_escaped(
        &mut self,
        splitter: &Splitter,
        field: &[u8],
        form: Form,
        scratch: &mut Vec<u8>,
    ) -> Result<(), NoValue> {
        scratch.clear();
        splitter.unescape(field, form, scratch);
        self.push(scratch)
    }

    /// Appends a NULL.
    fn push_null(&mut self);

    /// Takes back what was appended after the first `rows` values.
    fn truncate(&mut self, rows: usize);

    /// Size of the values so far, in bytes, if they vary in size.
    fn nbytes(&self) -> usize {
        0
    }

    /// The array of all values. The column is empty then, and can be used again.
    fn finish(&mut self) -> Result<ArrayRef, Unfinished>;
}

/// A column of this type, for batches of about `rows` rows.
///
/// # Errors
/// If there is no text for values of the type.
pub(super) fn column(data_type: &DataType, rows: usize) -> Result<Box<dyn Column>, ArrowError> {
    use DataType as T;
    fn parsed<P: ArrowPrimitiveType + Parser>(data_type: &DataType, rows: usize) -> Box<dyn Column> {
        primitive::<P>(data_type, rows, |text| P::parse(std::str::from_utf8(text).ok()?))
    }
    Ok(match data_type {
        T::Null => Box::new(Nulls { rows: 0 }),
        T::Boolean => {
            Box::new(Booleans { values: BooleanBufferBuilder::new(rows), nulls: NullBufferBuilder::new(rows) })
        }
        T::Int8 => parsed::<Int8Type>(data_type, rows),
        T::Int16 => parsed::<Int16Type>(data_type, rows),
        T::Int32 => parsed::<Int32Type>(data_type, rows),
        T::Int64 => primitive::<Int64Type>(data_type, rows, |text| {
            short_integer(text).or_else(|| Int64Type::parse(std::str::from_utf8(text).ok()?))
        }),
        T::UInt8 => parsed::<UInt8Type>(data_type, rows),
        T::UInt16 => parsed::<UInt16Type>(data_type, rows),
        T::UInt32 => parsed::<UInt32Type>(data_type, rows),
        T::UInt64 => parsed::<UInt64Type>(data_type, rows),
        T::Float16 => parsed::<Float16Type>(data_type, rows),
        T::Float32 => parsed::<Float32Type>(data_type, rows),
        T::Float64 => parsed::<Float64Type>(data_type, rows),
        T::Date32 => parsed::<Date32Type>(data_type, rows),
        T::Date64 => parsed::<Date64Type>(data_type, rows),
        T::Time32(TimeUnit::Second) => parsed::<Time32SecondType>(data_type, rows),
        T::Time32(TimeUnit::Millisecond) => parsed::<Time32MillisecondType>(data_type, rows),
        T::Time64(TimeUnit::Microsecond) => parsed::<Time64MicrosecondType>(data_type, rows),
        T::Time64(TimeUnit::Nanosecond) => parsed::<Time64NanosecondType>(data_type, rows),
        T::Timestamp(unit, zone) => {
            let zone = zone.as_deref().unwrap_or("+00:00").parse::<Tz>()?;
            match unit {
                TimeUnit::Second => timestamps::<TimestampSecondType>(data_type, rows, zone),
                TimeUnit::Millisecond => timestamps::<TimestampMillisecondType>(data_type, rows, zone),
                TimeUnit::Microsecond => timestamps::<TimestampMicrosecondType>(data_type, rows, zone),
                TimeUnit::Nanosecond => timestamps::<TimestampNanosecondType>(data_type, rows, zone),
            }
        }
        T::Decimal32(precision, scale) => decimals::<Decimal32Type>(data_type, rows, *precision, *scale),
        T::Decimal64(precision, scale) => decimals::<Decimal64Type>(data_type, rows, *precision, *scale),
        T::Decimal128(precision, scale) => decimals::<Decimal128Type>(data_type, rows, *precision, *scale),
        T::Decimal256(precision, scale) => decimals::<Decimal256Type>(data_type, rows, *precision, *scale),
        T::Utf8 => Box::new(Texts::new(rows, None)),
        T::LargeUtf8 | T::Utf8View => Box::new(Texts::new(rows, Some(data_type.clone()))),
        T::Dictionary(key, value) if key.is_dictionary_key_type() && **value == T::Utf8 => {
            Box::new(Texts::new(rows, Some(data_type.clone())))
        }
        other => return Err(ArrowError::NotYetImplemented(format!("there is no CSV text for values of type {other}"))),
    })
}

fn primitive<P: ArrowPrimitiveType>(
    data_type: &DataType,
    rows: usize,
    parse: impl Fn(&[u8]) -> Option<P::Native> + Send + 'static,
) -> Box<dyn Column> {
    Box::new(Primitives::<P, _> {
        values: Vec::with_capacity(rows),
        nulls: NullBufferBuilder::new(rows),
        rows,
        data_type: data_type.clone(),
        parse,
    })
}

fn timestamps<P: ArrowTimestampType>(data_type: &DataType, rows: usize, zone: Tz) -> Box<dyn Column> {
    primitive::<P>(data_type, rows, move |text| {
        let time = string_to_datetime(&zone, std::str::from_utf8(text).ok()?).ok()?;
        match P::UNIT {
            TimeUnit::Second => Some(time.timestamp()),
            TimeUnit::Millisecond => Some(time.timestamp_millis()),
            TimeUnit::Microsecond => Some(time.timestamp_micros()),
            TimeUnit::Nanosecond => time.timestamp_nanos_opt(),
        }
    })
}

fn decimals<P: DecimalType>(data_type: &DataType, rows: usize, precision: u8, scale: i8) -> Box<dyn Column> {
    primitive::<P>(data_type, rows, move |text| {
        parse_decimal::<P>(std::str::from_utf8(text).ok()?, precision, scale).ok()
    })
}

/// An integer of up to 18 digits and nothing else, which is what nearly all are.
#[inline]
fn short_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0_i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

struct Primitives<P: ArrowPrimitiveType, F> {
    values: Vec<P::Native>,
    nulls: NullBufferBuilder,
    rows: usize,
    data_type: DataType,
    parse: F,
}

impl<P: ArrowPrimitiveType, F: Fn(&[u8]) -> Option<P::Native> + Send> Column for Primitives<P, F> {
    fn push(&mut self, text: &[u8]) -> Result<(), NoValue> {
        self.values.push((self.parse)(text).ok_or(NoValue)?);
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        self.values.push(P::Native::default());
        self.nulls.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        if self.values.len() > rows {
            self.values.truncate(rows);
            self.nulls.truncate(rows);
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, Unfinished> {
        let values = std::mem::replace(&mut self.values, Vec::with_capacity(self.rows));
        let array = PrimitiveArray::<P>::try_new(ScalarBuffer::from(values), self.nulls.finish())?;
        Ok(Arc::new(array.with_data_type(self.data_type.clone())))
    }
}

struct Booleans {
    values: BooleanBufferBuilder,
    nulls: NullBufferBuilder,
}

impl Column for Booleans {
    fn push(&mut self, text: &[u8]) -> Result<(), NoValue> {
        let value = if text.eq_ignore_ascii_case(b"true") {
            true
        } else if text.eq_ignore_ascii_case(b"false") {
            false
        } else {
            return Err(NoValue);
        };
        self.values.append(value);
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        self.values.append(false);
        self.nulls.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        if self.values.len() > rows {
            self.values.truncate(rows);
            self.nulls.truncate(rows);
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, Unfinished> {
        Ok(Arc::new(BooleanArray::new(self.values.finish(), self.nulls.finish())))
    }
}

/// A column in whose sample there was no text at all: there is nothing that it could hold.
struct Nulls {
    rows: usize,
}

impl Column for Nulls {
    fn push(&mut self, _: &[u8]) -> Result<(), NoValue> {
        Err(NoValue)
    }

    fn push_null(&mut self) {
        self.rows += 1;
    }

    fn truncate(&mut self, rows: usize) {
        self.rows = self.rows.min(rows);
    }

    fn finish(&mut self) -> Result<ArrayRef, Unfinished> {
        Ok(Arc::new(NullArray::new(std::mem::take(&mut self.rows))))
    }
}

/// Texts are appended one behind the other, and are seen to be UTF-8 all at once.
struct Texts {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    rows: usize,
    /// What the strings are made in the end, if not that.
    cast_to: Option<DataType>,
}

impl Texts {
    fn new(rows: usize, cast_to: Option<DataType>) -> Texts {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Texts { bytes: Vec::new(), offsets, nulls: NullBufferBuilder::new(rows), rows, cast_to }
    }

    fn end(&mut self) -> Result<(), NoValue> {
        // A batch ends long before its texts are so large; one text that is so large is none.
        self.offsets.push(i32::try_from(self.bytes.len()).map_err(|_| NoValue)?);
        self.nulls.append_non_null();
        Ok(())
    }
}

impl Column for Texts {
    fn push(&mut self, text: &[u8]) -> Result<(), NoValue> {
        self.bytes.extend_from_slice(text);
        self.end()
    }

    fn push_escaped(
        &mut self,
        splitter: &Splitter,
        field: &[u8],
        form: Form,
        _scratch: &mut Vec<u8>,
    ) -> Result<(), NoValue> {
        splitter.unescape(field, form, &mut self.bytes);
        self.end()
    }

    fn push_null(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
        self.nulls.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        if self.offsets.len() > rows + 1 {
            self.offsets.truncate(rows + 1);
            self.nulls.truncate(rows);
        }
        // What could not be appended may have left bytes.
        self.bytes.truncate(self.offsets.last().map_or(0, |end| *end as usize));
    }

    fn nbytes(&self) -> usize {
        self.bytes.len()
    }

    fn finish(&mut self) -> Result<ArrayRef, Unfinished> {
        let bytes = std::mem::take(&mut self.bytes);
        // The next batch is about as large.
        self.bytes.reserve(bytes.len() + bytes.len() / 8);
        let mut offsets = Vec::with_capacity(self.rows + 1);
        offsets.push(0);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.offsets, offsets)));
        let bytes = Buffer::from_vec(bytes);
        let array = StringArray::try_new(offsets.clone(), bytes.clone(), self.nulls.finish())
            .map_err(|_| Unfinished::NotUtf8(broken_row(&offsets, &bytes)))?;
        Ok(match &self.cast_to {
            None => Arc::new(array),
            Some(data_type) => cast(&array, data_type)?,
        })
    }
}

/// The first row whose text is not UTF-8.
fn broken_row(offsets: &[i32], bytes: &[u8]) -> usize {
    let is_broken = |pair: &[i32]| {
        let text = bytes.get(pair[0] as usize..pair[1] as usize);
        text.is_none_or(|text| std::str::from_utf8(text).is_err())
    };
    offsets.windows(2).position(is_broken).unwrap_or(0)
}
