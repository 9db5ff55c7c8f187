//! Durations and sizes as people write them: `"1h30m"`, `"256KiB"`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};

/// Milliseconds of each unit, longest name first where one is the beginning of another.
const DURATION_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Reads a duration: one or more whole numbers with units (`ms`, `s`, `m`, `h`, `d`, `w`), added up.
///
/// # Errors
/// What is wrong with `text`, and what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is not a duration; write a number with a unit, such as \"500ms\", \"5s\", \"20m\"");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total_ms = 0u64;
    while !rest.is_empty() {
        let (number, after) = take_number(rest).ok_or_else(wrong)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let factor = unit_factor(DURATION_UNITS, unit).ok_or_else(wrong)?;
        total_ms = number
            .checked_mul(factor)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(|| format!("{text:?} is too long"))?;
        rest = next.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a size in bytes: a whole number, alone or with `B`, `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB`.
///
/// # Errors
/// What is wrong with `text`, and what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write bytes or a number with a unit, such as \"8KiB\", \"64MiB\"");
    let (number, unit) = take_number(text.trim()).ok_or_else(wrong)?;
    let factor = if unit.is_empty() { 1 } else { unit_factor(SIZE_UNITS, unit).ok_or_else(wrong)? };
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))
}

/// Splits off the whole number at the beginning.
fn take_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest.trim_start()))
}

fn unit_factor(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    let unit = unit.trim_end();
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

/// For `#[serde(deserialize_with)]`: a duration as text.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_any(DurationVisitor)
}

/// For `#[serde(deserialize_with)]`: a size as text or as a number of bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    from.deserialize_any(SizeVisitor)
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with a unit, such as \"5s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).map_err(E::custom)
    }
}

struct SizeVisitor;

impl SizeVisitor {
    fn bytes<E: Error>(bytes: u64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::custom(format!("{bytes} bytes are more than this machine can address")))
    }
}

impl Visitor<'_> for SizeVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size, such as \"256KiB\" or a number of bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
        parse_size(text).map_err(E::custom).and_then(Self::bytes)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<usize, E> {
        Self::bytes(bytes)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<usize, E> {
        u64::try_from(bytes).map_err(|_| E::custom("a size cannot be negative")).and_then(Self::bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_parts() {
        for (text, ms) in [("500ms", 500), ("5s", 5_000), ("20m", 1_200_000), ("1h30m", 5_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_known_unit_is_refused() {
        for text in ["", "5", "5 bananas", "s", "-5s", "5s3", "1.5s", "99999999999999999999s", "9999999999999999w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        for (text, bytes) in [("0", 0), ("128", 128), ("8KiB", 8_192), ("8 KiB", 8_192), ("1MB", 1_000_000)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "8Kib", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
