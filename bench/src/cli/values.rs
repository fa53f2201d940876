//! Values of options: sizes in bytes and durations, in the forms that tables print and people write.

use std::time::Duration;

use echobench_clients::parse_duration;

use crate::scenario::parse_size;

/// Parses a size of at most `max` bytes.
pub(super) fn bytes_up_to(text: &str, max: u32) -> Result<u32, String> {
    let bytes = parse_size(text)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::units;
    use crate::scenario::parse_rate;

    #[test]
    fn sizes_have_an_upper_bound() {
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
            let read = parse_size(&text).unwrap() as f64;
            assert!(is_rounded(read, value), "{value}: {text}, {read}");

            let per_second = value / 1e3;
            if per_second <= 1e9 {
                let text = units::rate(per_second);
                let read = parse_rate(&text).unwrap();
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
}
