//! Typed columns: each has one textual form, written and read here alone.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use echobench_protocol::{serde_by_name, textual_enum};
use serde::{Deserialize, Serialize};

/// State of an arm in a block: the column `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum BlockStatus {
    /// Measured; its values enter the statistics.
    #[default]
    Ok,
    /// Not run, for this reason: it cannot be, on this machine or in this scenario.
    Skipped(String),
    /// Failed, for this reason.
    Failed(String),
}

impl BlockStatus {
    const OK: &str = "ok";
    const SKIPPED: &str = "skipped: ";
}

impl fmt::Display for BlockStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockStatus::Ok => f.write_str(Self::OK),
            BlockStatus::Skipped(reason) => write!(f, "{}{reason}", Self::SKIPPED),
            BlockStatus::Failed(reason) => f.write_str(reason),
        }
    }
}

impl From<String> for BlockStatus {
    fn from(text: String) -> Self {
        match text.strip_prefix(Self::SKIPPED) {
            Some(reason) => BlockStatus::Skipped(reason.to_owned()),
            None if text == Self::OK => BlockStatus::Ok,
            None => BlockStatus::Failed(text),
        }
    }
}

impl From<BlockStatus> for String {
    fn from(status: BlockStatus) -> Self {
        status.to_string()
    }
}

/// A condition that limited or disturbed the figures of an arm in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValidityFlag {
    /// Replies came only after the next arm's slice had begun.
    Overran,
    /// The clients had no CPU left while the server had: the figures are those of the load generator.
    Generator,
    /// Requests of an open loop were sent late although their connection was free.
    Late,
    /// Another process used the machine, or the machine stood still.
    Disturbed,
    /// No local ports were left.
    Ports,
    /// No file descriptors were left to the clients or to the server.
    Files,
    /// The server refused connections: it had reached its limit, or could start no process or thread.
    Refused,
    /// The clocks of the hosts were known too badly to tell slices apart.
    Clock,
}

textual_enum!(ValidityFlag, "validity", { Overran => "overran", Generator => "generator", Late => "late", Disturbed => "disturbed", Ports => "ports", Files => "files", Refused => "refused", Clock => "clock" });

serde_by_name!(ValidityFlag);

/// Set of conditions that limited or disturbed an arm in a block: the column `validity`.
///
/// Its text is `valid` for the empty set, else the flags separated by `;`, as in
/// `generator;disturbed`. Words of other versions are kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Validity {
    flags: BTreeSet<ValidityFlag>,
    unknown: Vec<String>,
}

impl Validity {
    const VALID: &str = "valid";

    /// Whether nothing limited or disturbed the figures.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.flags.is_empty() && self.unknown.is_empty()
    }

    /// Adds a flag.
    pub fn insert(&mut self, flag: ValidityFlag) {
        self.flags.insert(flag);
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn contains(&self, flag: ValidityFlag) -> bool {
        self.flags.contains(&flag)
    }

    /// The flags, in the order of their declaration.
    pub fn flags(&self) -> impl Iterator<Item = ValidityFlag> {
        self.flags.iter().copied()
    }

    /// Words that this version does not know.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.unknown.iter().map(String::as_str)
    }
}

impl FromIterator<ValidityFlag> for Validity {
    fn from_iter<I: IntoIterator<Item = ValidityFlag>>(flags: I) -> Self {
        Validity {
            flags: flags.into_iter().collect(),
            unknown: Vec::new(),
        }
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_valid() {
            return f.write_str(Self::VALID);
        }

        let flags = self.flags.iter().map(|flag| flag.name());
        let words: Vec<&str> = flags.chain(self.unknown()).collect();
        f.write_str(&words.join(";"))
    }
}

impl From<String> for Validity {
    fn from(text: String) -> Self {
        let mut validity = Validity::default();
        let words = text
            .split(';')
            .filter(|word| !word.is_empty() && *word != Self::VALID);

        for word in words {
            match word.parse() {
                Ok(flag) => validity.insert(flag),
                Err(_) => validity.unknown.push(word.to_owned()),
            }
        }
        validity
    }
}

impl From<Validity> for String {
    fn from(validity: Validity) -> Self {
        validity.to_string()
    }
}

/// State of a run: the field `status` of `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum RunStatus {
    /// Under way, or killed.
    Running,
    /// Every planned block is there.
    Complete,
    /// Ended early by a signal.
    Interrupted,
    /// Ended early by this error.
    Failed(String),
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RunStatus::Running => "running",
            RunStatus::Complete => "complete",
            RunStatus::Interrupted => "interrupted",
            RunStatus::Failed(error) => error,
        })
    }
}

impl FromStr for RunStatus {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [
            RunStatus::Running,
            RunStatus::Complete,
            RunStatus::Interrupted,
        ];
        let status = known.into_iter().find(|status| status.to_string() == text);
        Ok(status.unwrap_or_else(|| RunStatus::Failed(text.to_owned())))
    }
}

impl From<String> for RunStatus {
    fn from(text: String) -> Self {
        let Ok(status) = text.parse();
        status
    }
}

impl From<RunStatus> for String {
    fn from(status: RunStatus) -> Self {
        status.to_string()
    }
}

/// The form in which a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffortName {
    /// The short form.
    Quick,
    /// The long form, whose results are worth keeping.
    Full,
}

textual_enum!(EffortName, "effort", { Quick => "quick", Full => "full" });

serde_by_name!(EffortName);

impl EffortName {
    /// The long form or the short one.
    #[must_use]
    pub fn of_form(full: bool) -> Self {
        if full {
            EffortName::Full
        } else {
            EffortName::Quick
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a value as a column, and the value of that text.
    fn round_trip<T>(value: &T) -> (String, T)
    where
        T: Clone + Serialize + for<'de> Deserialize<'de>,
    {
        let json = serde_json::to_value(value).unwrap();
        let text = json.as_str().unwrap().to_owned();
        (text, serde_json::from_value(json).unwrap())
    }

    #[test]
    fn statuses_read_back() {
        for (status, text) in [
            (BlockStatus::Ok, "ok"),
            (
                BlockStatus::Skipped("no python3".into()),
                "skipped: no python3",
            ),
            (
                BlockStatus::Failed("killed by SIGKILL".into()),
                "killed by SIGKILL",
            ),
        ] {
            assert_eq!(round_trip(&status), (text.to_owned(), status));
        }

        for (status, text) in [
            (RunStatus::Running, "running"),
            (RunStatus::Complete, "complete"),
            (RunStatus::Interrupted, "interrupted"),
            (RunStatus::Failed("failed: S1".into()), "failed: S1"),
        ] {
            assert_eq!(round_trip(&status), (text.to_owned(), status));
        }
    }

    #[test]
    fn validity_has_one_text() {
        let flags = [ValidityFlag::Disturbed, ValidityFlag::Generator];
        let validity: Validity = flags.into_iter().collect();
        assert_eq!(
            round_trip(&validity),
            ("generator;disturbed".to_owned(), validity)
        );

        assert_eq!(
            round_trip(&Validity::default()),
            ("valid".to_owned(), Validity::default())
        );

        let newer = Validity::from("late;eclipsed".to_owned());
        assert!(!newer.is_valid());
        assert_eq!(newer.unknown().collect::<Vec<_>>(), ["eclipsed"]);
        assert_eq!(newer.to_string(), "late;eclipsed");
    }

    #[test]
    fn words_of_an_enum_are_distinct_and_read_back() {
        for effort in EffortName::ALL {
            assert_eq!(round_trip(effort), (effort.name().to_owned(), *effort));
        }
        assert_eq!(
            "half".parse::<EffortName>().unwrap_err().to_string(),
            "unknown effort 'half' (quick, full)"
        );
    }
}
