//! Values of options: sizes in bytes and durations, in the forms that tables print and people write.

use std::time::Duration;

use echobench_clients::parse_duration;

use crate::render::units::to_count;

/// Parses a size such as `1500`, `64 KiB` or `1.5MiB`. Decimal units are those of a thousand: `64kB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
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
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes < u64::MAX as f64).then(|| to_count(bytes))
}

/// Parses a size of at most `max` bytes.
pub(super) fn bytes_up_to(text: &str, max: u32) -> Result<u32, String> {
    let bytes = bytes(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= max)
        .ok_or_else(|| format!("{bytes} bytes are more than {max}"))
}

/// Parses an interval, which is a millisecond at least.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(1) {
        return Err("shorter than a millisecond".to_owned());
    }
    Ok(interval)
}

/// Parses a rate in requests per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).replace(',', "");
    match number.trim().parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("not a number of requests per second, such as 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::units;

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
            assert_eq!(bytes(text), Ok(size), "{text}");
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
            bytes(text).unwrap_err();
        }
        assert_eq!(bytes_up_to("1KiB", 1024), Ok(1024));
        bytes_up_to("1025", 1024).unwrap_err();
    }

    /// Whether a value that was read back is the one that was shown with three significant digits.
    fn is_rounded(read: f64, shown: f64) -> bool {
        (read - shown).abs() <= (shown * 0.005).max(0.5) * 1.0001
    }

    #[test]
    fn everything_that_tables_print_is_read_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let value = 10_f64.powf(random.f64() * 13.0).round();

            let text = units::duration(value);
            let read = parse_duration(&text).unwrap().as_nanos() as f64;
            assert!(is_rounded(read, value), "{value}: {text}, {read}");

            let text = units::bytes(value);
            let read = bytes(&text).unwrap() as f64;
            assert!(is_rounded(read, value), "{value}: {text}, {read}");

            let per_second = value / 1e3;
            if per_second <= 1e9 {
                let text = units::rate(per_second);
                let read = rate(&text).unwrap();
                let digits = if per_second < 1.0 {
                    per_second * 0.005
                } else {
                    0.5
                };
                assert!(
                    (read - per_second).abs() <= digits * 1.0001,
                    "{per_second}: {text}"
                );
            }
        }
    }

    #[test]
    fn rates_are_read_as_they_are_printed() {
        for (text, per_second) in [("1000", 1e3), ("1,000/s", 1e3), ("0.5", 0.5), ("1e6", 1e6)] {
            assert_eq!(rate(text), Ok(per_second), "{text}");
        }
        for text in ["0", "-1", "1e10", "fast", "NaN"] {
            rate(text).unwrap_err();
        }
    }
}
