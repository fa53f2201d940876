//! The mix of server work that requests ask for.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use echobench_protocol::Work;
use serde::{Deserialize, Serialize};

use crate::text::{ParseError, parse_duration};

const MAX_WEIGHT: u32 = 1_000_000;

/// Mix of server work: kinds of [`Work`], each with its weight.
///
/// Written as one kind (`none`, `block:5ms`, `spin:50us`) or as several with weights
/// (`none=99,block:10ms=1`). The kind marked `first` applies to the first request on each
/// connection: `block:5s=first` alone, or before the work of the others (`block:5s=first,spin:50us`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkMix {
    first: Option<Work>,
    parts: Vec<(Work, u32)>,
    total_weight: u32,
}

impl WorkMix {
    /// Draws the work of the next request. A mix of one kind takes nothing from `random`.
    pub(crate) fn draw(&self, is_first_on_connection: bool, random: &mut fastrand::Rng) -> Work {
        if let Some(work) = self.first.filter(|_| is_first_on_connection) {
            return work;
        }
        if let [(work, _)] = self.parts[..] {
            return work;
        }

        let mut remaining = random.u32(0..self.total_weight);
        for &(work, weight) in &self.parts {
            if remaining < weight {
                return work;
            }
            remaining -= weight;
        }
        unreachable!("the weights add up to the total")
    }

    /// Longest work of the mix.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest_of(|_| true)
    }

    /// Longest work of the mix that uses the CPU.
    #[must_use]
    pub fn longest_spin(&self) -> Duration {
        self.longest_of(|work| matches!(work, Work::Spin(_)))
    }

    fn longest_of(&self, is_wanted: impl Fn(&Work) -> bool) -> Duration {
        let parts = self.parts.iter().map(|&(work, _)| work);
        let works = parts.chain(self.first).filter(is_wanted);
        works.map(Work::duration).max().unwrap_or_default()
    }
}

impl Default for WorkMix {
    fn default() -> Self {
        WorkMix {
            first: None,
            parts: vec![(Work::None, 1)],
            total_weight: 1,
        }
    }
}

impl FromStr for WorkMix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut first, mut parts) = (None, Vec::new());

        for part in text.split(',') {
            if let Some(work) = part.trim_end().strip_suffix("=first") {
                if first.replace(parse_work(work.trim())?).is_some() {
                    return Err(ParseError(format!("'{text}' has two kinds of first work")));
                }
            } else {
                parts.push(parse_part(part)?);
            }
        }
        if parts.is_empty() {
            parts.push((Work::None, 1));
        }

        let total_weight = parts.iter().map(|(_, weight)| weight).sum();
        Ok(WorkMix {
            first,
            parts,
            total_weight,
        })
    }
}

/// Parses a kind of work with or without a weight.
fn parse_part(part: &str) -> Result<(Work, u32), ParseError> {
    let (work, weight) = match part.split_once('=') {
        Some((work, weight)) => (work, weight.trim().parse().ok()),
        None => (part, Some(1)),
    };

    let weight = weight.filter(|weight| (1..=MAX_WEIGHT).contains(weight));
    let weight = weight.ok_or_else(|| {
        ParseError(format!(
            "the weight in '{part}' is neither a number from 1 to {MAX_WEIGHT} nor 'first'"
        ))
    })?;
    Ok((parse_work(work.trim())?, weight))
}

impl fmt::Display for WorkMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first.map(|work| work_text(work) + "=first");
        let parts = self
            .parts
            .iter()
            .map(|&(work, weight)| match self.parts.len() {
                1 => work_text(work),
                _ => format!("{}={weight}", work_text(work)),
            });

        let only_first = first.is_some() && matches!(self.parts[..], [(Work::None, _)]);
        let parts = parts.filter(|_| !only_first);
        f.write_str(&first.into_iter().chain(parts).collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for WorkMix {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WorkMix> for String {
    fn from(mix: WorkMix) -> Self {
        mix.to_string()
    }
}

fn work_text(work: Work) -> String {
    match work {
        Work::None => "none".to_owned(),
        Work::Block(time) => format!("block:{}", humantime::format_duration(time)),
        Work::Spin(time) => format!("spin:{}", humantime::format_duration(time)),
    }
}

fn parse_work(text: &str) -> Result<Work, ParseError> {
    let work = match text.split_once(':') {
        None if text == "none" => return Ok(Work::None),
        Some(("block", time)) => Work::Block(parse_duration(time)?),
        Some(("spin", time)) => Work::Spin(parse_duration(time)?),
        _ => {
            return Err(ParseError(format!(
                "unknown work '{text}' (none, block:5ms, spin:50us, or a mix: none=99,block:10ms=1)"
            )));
        }
    };

    // The header of a frame holds microseconds in 32 bits.
    let nanos = work.duration().as_nanos();
    if nanos % 1000 != 0 || nanos / 1000 > u128::from(u32::MAX) {
        return Err(ParseError(format!(
            "the time in '{text}' must be whole microseconds, at most an hour"
        )));
    }
    Ok(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_mixes_round_trip_through_text() {
        for text in [
            "none",
            "block:5ms",
            "spin:50us",
            "none=99,block:10ms=1",
            "block:5s=first",
            "block:5s=first,spin:50us",
            "block:5s=first,none=99,block:10ms=1",
        ] {
            let mix: WorkMix = text.parse().unwrap();
            assert_eq!(mix.to_string(), text);
        }
    }

    #[test]
    fn errors_name_the_invalid_part() {
        for (text, word) in [
            ("sleep:5ms", "unknown work"),
            ("block:5", "duration"),
            ("block:5ns", "microseconds"),
            ("none=0,block:1ms=1", "weight"),
            ("none=x", "weight"),
            ("none=first,block:1s=first", "two kinds"),
        ] {
            let error = text.parse::<WorkMix>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let mix: WorkMix = "none=90,block:1ms=10".parse().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let blocked = (0..10_000)
            .filter(|_| mix.draw(false, &mut random) != Work::None)
            .count();
        assert!((850..1150).contains(&blocked), "{blocked}");
    }

    #[test]
    fn the_first_request_on_a_connection_has_its_own_work() {
        let mix: WorkMix = "block:5s=first,spin:50us".parse().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let block = Work::Block(Duration::from_secs(5));
        assert_eq!(mix.draw(true, &mut random), block);

        let spin = Work::Spin(Duration::from_micros(50));
        assert_eq!(mix.draw(false, &mut random), spin);
        assert_eq!(mix.longest(), Duration::from_secs(5));
    }
}
