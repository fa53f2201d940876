//! Settings of the traffic with one value or several, each a condition of its own.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Values of a setting, at least one. A file has a list of them, or the only one without a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values<T>(Vec<T>);

impl<T> Values<T> {
    /// The first value: the only one in the traffic of a single condition.
    #[must_use]
    pub fn first(&self) -> &T {
        &self.0[0]
    }

    /// All values, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// Each value with its text, which is empty if there is only one.
    pub(super) fn named(&self, text: impl Fn(&T) -> String) -> Vec<(String, &T)> {
        let is_only = self.0.len() == 1;
        let name = |value| if is_only { String::new() } else { text(value) };
        self.0.iter().map(|value| (name(value), value)).collect()
    }
}

impl<T> Values<T> {
    /// The values of a list; none of an empty one.
    #[must_use]
    pub fn of(list: Vec<T>) -> Option<Self> {
        (!list.is_empty()).then_some(Values(list))
    }
}

impl<T> From<T> for Values<T> {
    fn from(value: T) -> Self {
        Values(vec![value])
    }
}

impl<T: Default> Default for Values<T> {
    fn default() -> Self {
        T::default().into()
    }
}

impl<T: Serialize> Serialize for Values<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [only] => only.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Values<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore(PhantomData))
    }
}

/// Reads one value or a list. An untagged enum would hide what is wrong with a value.
struct OneOrMore<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMore<T> {
    type Value = Values<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Values::from)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Values::from)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Values::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let values = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        if values.is_empty() {
            return Err(de::Error::custom("the list has no value"));
        }
        Ok(Values(values))
    }
}

/// Reads a list, or its only value without one.
pub(super) fn one_or_more<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Values::deserialize(deserializer).map(|values| values.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_value_needs_no_list() {
        for json in [json!(64), json!([64, 1024])] {
            let values: Values<u32> = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(&values).unwrap(), json);
        }
        let one: Values<u32> = serde_json::from_value(json!([64])).unwrap();
        assert_eq!(one, Values::from(64));
        for (json, words) in [
            (json!([]), "no value"),
            (json!(-1), "-1"),
            (json!({}), "a list of values"),
        ] {
            let error = serde_json::from_value::<Values<u32>>(json).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
