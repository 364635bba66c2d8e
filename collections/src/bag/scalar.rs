//! The types of items that workers know without a closure: numbers, text and truth values.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use starling_runtime::value::Data;

/// Which of the types it is, as a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[doc(hidden)]
pub enum Kind {
    Bool,
    Char,
    String,
    I8,
    I16,
    I32,
    I64,
    Isize,
    U8,
    U16,
    U32,
    U64,
    Usize,
    F32,
    F64,
}

mod sealed {
    pub trait Sealed {}
}

/// An item that workers can compare without a closure: a number, a text, a character or a truth value.
pub trait Scalar: Data + sealed::Sealed {
    #[doc(hidden)]
    const KIND: Kind;

    /// Whether it takes the place of `best`, the `wanted` being greater or less.
    #[doc(hidden)]
    fn beats(&self, best: &Self, wanted: Ordering) -> bool;
}

/// An item that can be added up: an integer of at most 64 bits, or a float.
pub trait Number: Scalar + Copy {
    /// What a sum is: `i64`, `u64` or `f64`.
    type Sum: Data;

    /// The number, exactly if it is an integer.
    #[doc(hidden)]
    fn amount(self) -> Amount;

    /// The sum of no numbers.
    #[doc(hidden)]
    fn nothing() -> Total;

    /// The sum, if it fits.
    #[doc(hidden)]
    fn sum(total: Total) -> Option<Self::Sum>;
}

/// A number that is to be added.
#[doc(hidden)]
pub enum Amount {
    Int(i128),
    Float(f64),
}

impl Amount {
    /// The nearest float.
    pub(crate) fn float(self) -> f64 {
        match self {
            Amount::Int(number) => number as f64,
            Amount::Float(number) => number,
        }
    }
}

/// A sum so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[doc(hidden)]
pub enum Total {
    /// Exact: of integers of 64 bits there cannot be enough to overflow it.
    Int(i128),
    /// What additions have lost is kept in `rest` (Neumaier's compensated summation).
    Float { sum: f64, rest: f64 },
}

impl Total {
    /// The sum as a float.
    pub(crate) fn float(self) -> f64 {
        match self {
            Total::Int(sum) => sum as f64,
            // With an infinity in it the rest is no number.
            Total::Float { sum, .. } if !sum.is_finite() => sum,
            Total::Float { sum, rest } => sum + rest,
        }
    }

    pub(crate) fn add(&mut self, amount: Amount) {
        match (self, amount) {
            (Total::Int(sum), Amount::Int(amount)) => *sum = sum.saturating_add(amount),
            (Total::Float { sum, rest }, Amount::Float(amount)) => {
                let next = *sum + amount;
                *rest += if sum.abs() >= amount.abs() { (*sum - next) + amount } else { (amount - next) + *sum };
                *sum = next;
            }
            // A type is of one sort.
            (Total::Int(_), Amount::Float(_)) | (Total::Float { .. }, Amount::Int(_)) => {}
        }
    }

    /// Adds what others have added up, after what is here; the sort of the first counts.
    pub(crate) fn merge(&mut self, other: Total) {
        match other {
            Total::Int(sum) => self.add(Amount::Int(sum)),
            Total::Float { sum, rest } => {
                self.add(Amount::Float(sum));
                if let Total::Float { rest: here, .. } = self {
                    *here += rest;
                }
            }
        }
    }
}

macro_rules! scalar {
    ($($ty:ty: $kind:ident),*) => {
        $(
            impl sealed::Sealed for $ty {}

            impl Scalar for $ty {
                const KIND: Kind = Kind::$kind;

                fn beats(&self, best: &$ty, wanted: Ordering) -> bool {
                    self.cmp(best) == wanted
                }
            }
        )*
    };
}

macro_rules! integer {
    ($sum:ty; $($ty:ty: $kind:ident),*) => {
        scalar!($($ty: $kind),*);
        $(
            impl Number for $ty {
                type Sum = $sum;

                fn amount(self) -> Amount {
                    Amount::Int(self as i128)
                }

                fn nothing() -> Total {
                    Total::Int(0)
                }

                fn sum(total: Total) -> Option<$sum> {
                    match total {
                        Total::Int(sum) => <$sum>::try_from(sum).ok(),
                        Total::Float { .. } => None,
                    }
                }
            }
        )*
    };
}

macro_rules! float {
    ($($ty:ty: $kind:ident),*) => {
        $(
            impl sealed::Sealed for $ty {}

            impl Scalar for $ty {
                const KIND: Kind = Kind::$kind;

                // What is no number wins whatever is wanted, so that it does not depend on the order.
                fn beats(&self, best: &$ty, wanted: Ordering) -> bool {
                    !best.is_nan() && (self.is_nan() || self.total_cmp(best) == wanted)
                }
            }

            impl Number for $ty {
                type Sum = f64;

                fn amount(self) -> Amount {
                    Amount::Float(f64::from(self))
                }

                fn nothing() -> Total {
                    Total::Float { sum: 0.0, rest: 0.0 }
                }

                fn sum(total: Total) -> Option<f64> {
                    Some(total.float())
                }
            }
        )*
    };
}

scalar!(bool: Bool, char: Char, String: String);
integer!(i64; i8: I8, i16: I16, i32: I32, i64: I64, isize: Isize);
integer!(u64; u8: U8, u16: U16, u32: U32, u64: U64, usize: Usize);
float!(f32: F32, f64: F64);

/// `$body` with `$ty` being the type of this kind.
macro_rules! with_number {
    ($kind:expr, $ty:ident => $body:expr, else $other:expr) => {{
        macro_rules! of {
            ($number:ty) => {{
                type $ty = $number;
                $body
            }};
        }
        match $kind {
            Kind::I8 => of!(i8),
            Kind::I16 => of!(i16),
            Kind::I32 => of!(i32),
            Kind::I64 => of!(i64),
            Kind::Isize => of!(isize),
            Kind::U8 => of!(u8),
            Kind::U16 => of!(u16),
            Kind::U32 => of!(u32),
            Kind::U64 => of!(u64),
            Kind::Usize => of!(usize),
            Kind::F32 => of!(f32),
            Kind::F64 => of!(f64),
            Kind::Bool | Kind::Char | Kind::String => $other,
        }
    }};
}

/// `$body` with `$ty` being the type of this kind.
macro_rules! with_scalar {
    ($kind:expr, $ty:ident => $body:expr) => {{
        macro_rules! of_text {
            ($text:ty) => {{
                type $ty = $text;
                $body
            }};
        }
        let kind = $kind;
        match kind {
            Kind::Bool => of_text!(bool),
            Kind::Char => of_text!(char),
            Kind::String => of_text!(String),
            _ => $crate::bag::scalar::with_number!(kind, $ty => $body, else of_text!(bool)),
        }
    }};
}

pub(crate) use {with_number, with_scalar};
