//! Sizes and rates in the forms that tables print and people write.

use std::fmt;

use echobench_protocol::MAX_PAYLOAD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Parses a size such as `1500`, `64 KiB` or `1.5MiB`. Decimal units are those of a thousand: `64kB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let error = || format!("'{text}' is not a size such as 1500, 64KiB or 1.5MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor: u64 = match unit.trim() {
        "" if number.contains('.') => return Err(error()),
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(error()),
    };
    if number.contains('.') {
        return fraction_of(number, factor).ok_or_else(error);
    }
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(factor).ok_or_else(error)
}

/// A number with a fraction times a factor, rounded.
fn fraction_of(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.')?;
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let bytes = (number.parse::<f64>().ok()? * factor as f64).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number below the largest"
    )]
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Parses a rate in requests per second, such as `1000` or `1,000/s`.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).replace(',', "");
    match number.trim().parse() {
        Ok(rate) if is_rate(rate) => Ok(rate),
        _ => Err("not a number of requests per second, such as 1000".to_owned()),
    }
}

/// Whether a number can be a rate in requests per second.
pub(super) fn is_rate(per_second: f64) -> bool {
    (0.001..=1e9).contains(&per_second)
}

/// Payload of a request in bytes. Its text is one that tables print, as in `64 KiB`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Payload(pub u32);

impl Payload {
    fn new(bytes: u64) -> Result<Self, String> {
        u32::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= MAX_PAYLOAD)
            .map(Payload)
            .ok_or_else(|| format!("{bytes} bytes are more than the {MAX_PAYLOAD} of the protocol"))
    }
}

impl std::str::FromStr for Payload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_size(text).and_then(Payload::new)
    }
}

/// With the largest unit of which it is a multiple, as in `64 KiB`: no two sizes have the same text.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 20, "MiB"), (1 << 10, "KiB")];
        let whole = |(size, _): &(u32, &str)| self.0 > 0 && self.0.is_multiple_of(*size);
        match units.into_iter().find(whole) {
            Some((size, unit)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText)
    }
}

struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as 64 or \"1 KiB\"")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Self::Value, E> {
        Payload::new(bytes).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Self::Value, E> {
        match u64::try_from(bytes) {
            Ok(bytes) => self.visit_u64(bytes),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(bytes), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, size) in [
            ("0", 0),
            ("1500", 1500),
            ("64B", 64),
            ("1KiB", 1024),
            ("1 KiB", 1024),
            ("64kB", 64_000),
            ("1MiB", 1 << 20),
            ("2G", 2 << 30),
            ("1.5 KiB", 1536),
            ("64.0 B", 64),
            ("0.5kB", 500),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "KiB",
            "1XiB",
            "-1",
            "1.5",
            ".5KiB",
            "1.KiB",
            "1.5.5KiB",
            ".",
            "99999999999 GiB",
            "99999999999.0 GiB",
        ] {
            parse_size(text).unwrap_err();
        }
    }

    #[test]
    fn rates_are_read_as_they_are_printed() {
        for (text, per_second) in [("1000", 1e3), ("1,000/s", 1e3), ("0.5", 0.5), ("1e6", 1e6)] {
            assert_eq!(parse_rate(text), Ok(per_second), "{text}");
        }
        for text in ["0", "-1", "1e10", "fast", "NaN"] {
            parse_rate(text).unwrap_err();
        }
    }

    #[test]
    fn payloads_have_texts_of_their_own_that_are_read_back() {
        let texts = [
            (0, "0 B"),
            (64, "64 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1025, "1025 B"),
            (65_536, "64 KiB"),
            (1 << 20, "1 MiB"),
        ];
        for (bytes, text) in texts {
            assert_eq!(Payload(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Payload(bytes)));
        }
        for text in ["17 MiB", "5 GiB", "much"] {
            text.parse::<Payload>().unwrap_err();
        }
    }
}
