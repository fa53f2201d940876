//! Units: numbers as text with a unit or thousands separators, and a dash for an unknown value.

/// Text in place of an unknown value.
pub const UNKNOWN: &str = "–";

/// Text of a value without bound.
pub const UNBOUNDED: &str = "∞";

/// Nanoseconds with a unit and three significant digits: `12.3 µs`.
#[must_use]
pub fn duration(ns: f64) -> String {
    if ns.is_infinite() {
        return UNBOUNDED.to_owned();
    }

    // What rounds to 1,000 of a unit is 1 of the next.
    let (value, unit) = match ns {
        ns if ns < 999.5 => (ns, "ns"),
        ns if ns < 999.5e3 => (ns / 1e3, "µs"),
        ns if ns < 999.5e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", significant(value))
}

/// Bytes with a binary unit: `13.6 KiB`.
#[must_use]
pub fn bytes(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    const MIB: f64 = 1024.0 * KIB;
    const GIB: f64 = 1024.0 * MIB;
    let (value, unit) = match bytes.abs() {
        size if size < 1023.5 => (bytes, "B"),
        size if size < 1023.5 * KIB => (bytes / KIB, "KiB"),
        size if size < 1023.5 * MIB => (bytes / MIB, "MiB"),
        _ => (bytes / GIB, "GiB"),
    };
    format!("{} {unit}", significant(value))
}

/// A whole number with thousands separated: `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text of a value that may be unknown.
#[must_use]
pub fn or_unknown<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show)
}

/// A number rounded to a whole one, with thousands separated: `1,235`.
#[must_use]
pub fn whole(number: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates and counts fit"
    )]
    let whole = number.round() as u64;
    count(whole)
}

/// A rate per second, as a whole number: `98,765/s`. One below 1 has three significant digits: `0.500/s`.
#[must_use]
pub fn rate(per_second: f64) -> String {
    if 0.0 < per_second && per_second < 1.0 {
        let decimals = to_count(2.0 - per_second.log10().floor());
        return format!("{per_second:.*}/s", usize::try_from(decimals).unwrap_or(0));
    }
    format!("{}/s", whole(per_second))
}

/// A ratio, with three significant digits: `7.13`.
#[must_use]
pub fn ratio(ratio: f64) -> String {
    significant(ratio)
}

/// A count with its noun: `1 block`, `2 blocks`.
pub(crate) fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// The whole number nearest to a value that is a count.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count"
)]
pub(crate) fn to_count(value: f64) -> u64 {
    value.round() as u64
}

/// Three significant digits, without an exponent.
fn significant(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(duration(999.0), "999 ns");
        assert_eq!(duration(12_345.0), "12.3 µs");
        assert_eq!(duration(5_061_000.0), "5.06 ms");
        assert_eq!(duration(2.5e9), "2.50 s");
        assert_eq!(duration(999.4), "999 ns");
        assert_eq!(duration(999.6), "1.00 µs");
        assert_eq!(duration(999_950.0), "1.00 ms");
        assert_eq!(duration(999.4e6), "999 ms");
        assert_eq!(duration(999.95e6), "1.00 s");
        assert_eq!(duration(f64::INFINITY), "∞");
        assert_eq!(bytes(1023.6), "1.00 KiB");
        assert_eq!(bytes(1023.4 * 1024.0), "1023 KiB");
        assert_eq!(bytes(1023.6 * 1024.0), "1.00 MiB");
        assert_eq!(rate(0.5), "0.500/s");
        assert_eq!(rate(0.0025), "0.00250/s");
        assert_eq!(bytes(13.6 * 1024.0), "13.6 KiB");
        assert_eq!(bytes(-2048.0), "-2.00 KiB");
        assert_eq!(
            (count(7), count(1234), count(1_234_567)),
            ("7".into(), "1,234".into(), "1,234,567".into())
        );
        assert_eq!(rate(98_765.4), "98,765/s");
        assert_eq!(or_unknown(None::<u64>, count), "–");
    }
}
