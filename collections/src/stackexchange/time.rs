//! Dates as the data dump writes them: `2014-03-13T20:32:04.033`, in milliseconds since 1970.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A moment in milliseconds since 1970, read from a date and time without a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Moment(pub i64);

impl Moment {
    /// The moment that `text` names: `YYYY-MM-DDTHH:MM:SS`, and up to three digits after a point.
    pub fn parse(text: &str) -> Option<Moment> {
        let bytes = text.as_bytes();
        let (date, rest) = bytes.split_at_checked(19)?;
        let number = |range: std::ops::Range<usize>| digits(&date[range]);
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if !marks.iter().all(|&(at, mark)| date[at] == mark) {
            return None;
        }
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let millis = match rest {
            [] => 0,
            [b'.', fraction @ ..] if (1..=3).contains(&fraction.len()) => {
                digits(fraction)? * 10_i64.pow(3 - fraction.len() as u32)
            }
            _ => return None,
        };
        let seconds = ((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
        Some(Moment(seconds * 1000 + millis))
    }

    /// Appends the moment as [`parse`](Moment::parse) reads it.
    pub fn write(self, text: &mut Vec<u8>) {
        let (year, month, day) = self.civil();
        let in_day = self.0.rem_euclid(86_400_000);
        let (seconds, millis) = (in_day / 1000, in_day % 1000);
        let parts = [
            (year, 4, b'-'),
            (month, 2, b'-'),
            (day, 2, b'T'),
            (seconds / 3600, 2, b':'),
            (seconds / 60 % 60, 2, b':'),
        ];
        for (number, width, mark) in parts {
            push_number(text, number, width);
            text.push(mark);
        }
        push_number(text, seconds % 60, 2);
        text.push(b'.');
        push_number(text, millis, 3);
    }

    /// The month that the moment is in.
    pub fn month(self) -> Month {
        let (year, month, _) = self.civil();
        Month { year: year as i32, month: month as u8 }
    }

    fn civil(self) -> (i64, i64, i64) {
        civil_from_days(self.0.div_euclid(86_400_000))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        // In a bag it is a number; in a file it is text.
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(MomentVisitor)
        } else {
            i64::deserialize(deserializer).map(Moment)
        }
    }
}

struct MomentVisitor;

impl Visitor<'_> for MomentVisitor {
    type Value = Moment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a date and time such as 2014-03-13T20:32:04.033")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Moment, E> {
        Moment::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// A month of a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Month {
    /// The year.
    pub year: i32,
    /// From 1.
    pub month: u8,
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

fn push_number(text: &mut Vec<u8>, number: i64, width: u32) {
    for place in (0..width).rev() {
        text.push(b'0' + (number / 10_i64.pow(place) % 10) as u8);
    }
}

/// Days from 1970-01-01, by Howard Hinnant's "chrono-compatible low-level date algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}
