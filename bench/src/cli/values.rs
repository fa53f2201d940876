//! Values of options: sizes in bytes and durations, in the forms that tables print and people write.

use std::time::Duration;

use echobench_clients::parse_duration;

/// Parses a size such as `1500`, `64 KiB` or `1MiB`. Decimal units are those of a thousand: `64kB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let error = || format!("'{text}' is not a size such as 1500, 64KiB or 1MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(factor).ok_or_else(error)
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
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "KiB", "1XiB", "-1", "1.5", "99999999999 GiB"] {
            bytes(text).unwrap_err();
        }
        assert_eq!(bytes_up_to("1KiB", 1024), Ok(1024));
        bytes_up_to("1025", 1024).unwrap_err();
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
