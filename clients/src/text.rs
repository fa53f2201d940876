//! Textual forms: durations, enums by name, and the error of parsing text.

use std::time::Duration;

/// Error of parsing text, with the text and the accepted forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);

/// Parses a duration with a unit, such as `5ms`, `1s`, `250us` or `12.3 µs`; whole numbers may be joined: `1min 30s`.
///
/// A fraction is rounded to nanoseconds.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    // The micro sign and the Greek letter look alike.
    let plain = text.trim().replace(['µ', 'μ'], "u");
    let parsed = match plain.split_once('.') {
        None => humantime::parse_duration(&plain).map_err(|error| error.to_string()),
        Some((whole, rest)) => with_fraction(whole, rest),
    };
    parsed.map_err(|error| ParseError(format!("'{text}' is not a duration such as 5ms: {error}")))
}

/// Parses a duration with a fraction, split at its point: `12` and `3 us`.
fn with_fraction(whole: &str, rest: &str) -> Result<Duration, String> {
    let end = rest.find(|letter: char| !letter.is_ascii_digit());
    let (fraction, unit) = rest.split_at(end.unwrap_or(rest.len()));
    let are_digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_unit = unit
        .trim_start()
        .bytes()
        .all(|byte| byte.is_ascii_alphabetic());
    if !are_digits(whole) || !are_digits(fraction) || !is_unit {
        return Err("a fraction is written as in 1.5 ms".to_owned());
    }

    let unit = humantime::parse_duration(&format!("1{unit}")).map_err(|error| error.to_string())?;
    let number: f64 = format!("{whole}.{fraction}")
        .parse()
        .map_err(|_| "not a number".to_owned())?;
    let seconds = number * unit.as_secs_f64();
    Duration::try_from_secs_f64(seconds).map_err(|_| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_and_tables_write_them() {
        for (text, ns) in [
            ("5ms", 5_000_000),
            ("1000 ms", 1_000_000_000),
            ("250us", 250_000),
            ("12.3 µs", 12_300),
            ("12.3 μs", 12_300),
            ("12.3us", 12_300),
            ("1.5 ms", 1_500_000),
            ("2.50 s", 2_500_000_000),
            ("0.5s", 500_000_000),
            ("64.0 ns", 64),
            ("1min 30s", 90_000_000_000),
            (" 5ms ", 5_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "1.5",
            ".5s",
            "1.s",
            "-1.5s",
            "1.5.5s",
            "1.5 parsec",
            "1e3.0s",
            "NaN s",
            "inf s",
            "1.5s 3.5",
            "99999999999999999999999.5s",
            "∞",
            "–",
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("'{text}' is not a duration")),
                "{error}"
            );
        }
    }
}
