//! Reading the small text files in `/proc` and `/sys`. A file that cannot be read has no value.

use std::fs;
use std::path::Path;
use std::str::FromStr;

/// The text of a file; empty if it cannot be read.
pub(super) fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The text of a file without surrounding white space; `None` if nothing is left.
pub(super) fn line(path: impl AsRef<Path>) -> Option<String> {
    non_empty(text(path).trim())
}

/// A file that holds one number.
pub(super) fn number<T: FromStr>(path: impl AsRef<Path>) -> Option<T> {
    line(path)?.parse().ok()
}

/// The text after the colon on the first line with that name.
pub(super) fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    values(text, name).next()
}

/// The text after the colon on each line with that name.
pub(super) fn values<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (found, value) = line.split_once(':')?;
        (found.trim_end() == name).then(|| value.trim())
    })
}

/// The size of a list of numbers such as `0-3,8`.
pub(super) fn list_length(ranges: &str) -> Option<u64> {
    ranges
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
            Some(last.checked_sub(first)? + 1)
        })
        .sum()
}

/// `None` for an empty text.
pub(super) fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(list_length("0"), Some(1));
        assert_eq!(list_length("0-3,8,10-11"), Some(7));
        assert_eq!(list_length("3-1"), None);
        assert_eq!(list_length(""), None);
    }
}
