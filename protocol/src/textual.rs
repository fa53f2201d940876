//! Enums with one textual form, which is written and read in one place.

/// A name that stands for no value of an enum, with the names that do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {noun} '{name}' ({})", known.join(", "))]
pub struct UnknownName {
    /// The kind of thing that was to be named.
    pub noun: &'static str,
    /// The text that was read.
    pub name: String,
    /// Every name there is.
    pub known: Vec<&'static str>,
}

/// Gives an enum without fields its one textual form: `ALL`, `name()`, `Display` and `FromStr`.
///
/// ```
/// #[derive(Clone, Copy, Debug, PartialEq, Eq)]
/// enum Color {
///     Red,
///     Green,
/// }
///
/// echobench_protocol::textual_enum!(Color, "color", { Red => "red", Green => "green" });
///
/// assert_eq!("green".parse(), Ok(Color::Green));
/// assert_eq!(Color::Red.to_string(), "red");
/// assert_eq!(
///     "blue".parse::<Color>().unwrap_err().to_string(),
///     "unknown color 'blue' (red, green)"
/// );
/// ```
#[macro_export]
macro_rules! textual_enum {
    ($type:ident, $noun:literal, { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in the order of lists.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The textual form.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $crate::UnknownName;

            fn from_str(name: &str) -> ::std::result::Result<Self, Self::Err> {
                let known = Self::ALL.iter().copied();
                known.clone().find(|value| value.name() == name).ok_or_else(|| {
                    $crate::UnknownName {
                        noun: $noun,
                        name: name.to_owned(),
                        known: known.map(Self::name).collect(),
                    }
                })
            }
        }
    };
}

/// Serializes and deserializes enums of [`textual_enum!`](crate::textual_enum) by their names, in a crate
/// that depends on serde.
#[macro_export]
macro_rules! serde_by_name {
    ($($type:ident),+ $(,)?) => {$(
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                let name = <::std::string::String as ::serde::Deserialize>::deserialize(deserializer)?;
                name.parse().map_err(::serde::de::Error::custom)
            }
        }
    )+};
}
