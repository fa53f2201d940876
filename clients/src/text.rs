//! Textual forms: durations, enums by name, and the error of parsing text.

use std::time::Duration;

/// Error of parsing text, with the text and the accepted forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);

/// Parses a duration with a unit, such as `5ms`, `1s` or `250us`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    humantime::parse_duration(text)
        .map_err(|error| ParseError(format!("'{text}' is not a duration such as 5ms: {error}")))
}
