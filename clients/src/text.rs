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

/// Serializes enums of [`echobench_protocol::textual_enum`] by their names.
macro_rules! serde_by_name {
    ($($type:ident),+) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(deserializer)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

pub(crate) use serde_by_name;
