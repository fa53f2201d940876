//! Scenarios: named, committed workloads, read from TOML.

pub mod arm;

use std::fs;
use std::path::Path;
use std::time::Duration;

pub use crate::host::cpus::Placement;
use crate::host::time::nanoseconds;
use anyhow::{Context, bail};
use echobench_clients::{Arrivals, Driver, Spacing, WorkMix, Workload, parse_duration};
use echobench_protocol::MAX_PAYLOAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::scenario::arm::{Arm, External};

/// The committed scenarios, in the order in which they are shown and run.
const BUILT_IN: &[(&str, &str)] = &[
    ("steady", include_str!("../../scenarios/steady.toml")),
    ("churn", include_str!("../../scenarios/churn.toml")),
    ("blocking", include_str!("../../scenarios/blocking.toml")),
    (
        "starvation",
        include_str!("../../scenarios/starvation.toml"),
    ),
    ("placement", include_str!("../../scenarios/placement.toml")),
    ("idle", include_str!("../../scenarios/idle.toml")),
    (
        "rate_sweep",
        include_str!("../../scenarios/rate_sweep.toml"),
    ),
    ("languages", include_str!("../../scenarios/languages.toml")),
    ("c10k", include_str!("../../scenarios/c10k.toml")),
    ("c20k", include_str!("../../scenarios/c20k.toml")),
    ("gate", include_str!("../../scenarios/gate.toml")),
];

/// Between two slices of an open loop there must be time to send what is late, and to be answered.
const OPEN_LOOP_GAP: Duration = Duration::from_millis(20);

/// One workload and how it is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// From the name of its file.
    #[serde(skip)]
    pub name: String,
    /// The question it answers, in one line.
    pub question: String,
    /// The arms: a model each, with options of `serve` if it needs any, as in `pool --workers 8`.
    pub models: Vec<String>,
    /// More arms: servers of other projects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<External>,
    /// Whether the arms of a block are alive at once and driven in turn, or, where the machine cannot
    /// hold them all, one after the other.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub alternate: bool,
    /// Numbers of clients; a table has a section for each.
    pub clients: Vec<u32>,
    /// How the clients are run.
    pub drivers: Vec<Driver>,
    /// On which CPUs servers and clients run; each has a section of its own in the table.
    #[serde(default = "anywhere")]
    pub placements: Vec<Placement>,
    /// What the clients ask.
    pub traffic: Traffic,
    /// If given, the scenario first finds each arm's peak as a closed loop, then drives it at rates
    /// relative to that as an open one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// How long the short form takes.
    pub quick: Effort,
    /// How long the form takes whose results are committed.
    pub full: Effort,
}

fn yes() -> bool {
    true
}

fn anywhere() -> Vec<Placement> {
    vec![Placement::None]
}

/// What the clients of a scenario ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Payload of each request.
    pub payload_bytes: u32,
    /// What the server does before it replies.
    #[serde(default)]
    pub work: WorkMix,
    /// Pause of a client between a reply and its next request.
    #[serde(default)]
    pub think: Span,
    /// The schedule of an open loop; a closed loop if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Arrivals>,
    /// Only so many of the clients ask, the others hold idle connections; all ask if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_clients: Option<u32>,
    /// Requests on a connection before the next is opened (1: churn); for ever if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_connection: Option<u64>,
    /// How long a client waits for a connection or a reply.
    pub timeout: Span,
}

/// The rates of a rate sweep.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// In percent of each arm's own peak.
    pub percent: Vec<u32>,
    /// How requests follow each other.
    pub spacing: Spacing,
    /// Blocks from which the peaks are found.
    pub peak_blocks: u32,
}

/// How much is measured: each block has `rounds` rounds, in each of which every arm has one slice.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effort {
    /// Blocks, each with fresh processes.
    pub blocks: u32,
    /// Rounds at least; rounded up to a multiple of the arms, so that orders are balanced.
    pub rounds: usize,
    /// The measured part of a slice.
    pub slice: Span,
    /// Before it, the time in which clients begin, each at its own moment.
    pub ramp: Span,
    /// After it, the time for requests under way to end before the next arm's slice.
    pub gap: Span,
}

/// A stretch of time as people write it, `30ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// In nanoseconds.
    #[must_use]
    pub fn ns(self) -> u64 {
        nanoseconds(self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Span).map_err(de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The integer nanoseconds and the unit, which reads back exactly.
        serializer.collect_str(&format_args!("{}ns", self.0.as_nanos()))
    }
}

impl Scenario {
    /// The committed scenarios.
    pub fn built_in() -> anyhow::Result<Vec<Self>> {
        BUILT_IN
            .iter()
            .map(|(name, text)| Self::parse(name, &format!("{name}.toml"), text))
            .collect()
    }

    /// A committed scenario by its name, or the one in a file whose name ends in `.toml`.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        let path = Path::new(name);
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read the scenario {name}"))?;
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or(name);
            return Self::parse(stem, name, &text);
        }
        let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!(
                "unknown scenario '{name}' ({}, or a file: NAME.toml)",
                names.join(", ")
            );
        };
        Self::parse(name, &format!("{name}.toml"), text)
    }

    fn parse(name: &str, file: &str, text: &str) -> anyhow::Result<Self> {
        let mut scenario: Scenario = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text[..at].matches('\n').count() + 1;
            let key = text.lines().nth(line - 1).unwrap_or_default().trim();
            let message = error.message().replace('\n', "; ");
            anyhow::anyhow!("{file}, line {line} ('{key}'): {message}")
        })?;
        name.clone_into(&mut scenario.name);
        scenario
            .check()
            .map_err(|problem| anyhow::anyhow!("{file}: {problem}"))?;
        Ok(scenario)
    }

    /// What TOML's types cannot say.
    fn check(&self) -> anyhow::Result<()> {
        if self.models.is_empty() && self.external.is_empty()
            || self.clients.is_empty()
            || self.drivers.is_empty()
            || self.placements.is_empty()
        {
            bail!("models, clients, drivers and placements must each name at least one");
        }
        if self.clients.contains(&0) || self.traffic.active_clients == Some(0) {
            bail!("clients: 0 clients make no load; give 1 or more");
        }
        self.check_arms()?;
        if self.traffic.payload_bytes > MAX_PAYLOAD {
            bail!("traffic.payload_bytes is more than the {MAX_PAYLOAD} the protocol allows");
        }
        if let Some(sweep) = &self.sweep
            && (sweep.percent.is_empty() || sweep.percent.contains(&0) || sweep.peak_blocks == 0)
        {
            bail!("sweep.percent needs rates of 1 or more, and sweep.peak_blocks 1 or more blocks");
        }
        if let Some(arrivals) = self.traffic.arrivals
            && !(0.001..=1e9).contains(&arrivals.per_second)
        {
            bail!(
                "traffic.arrivals.per_second must be a number of requests a second, such as 1000"
            );
        }
        if self.traffic.timeout.ns() == 0 || self.traffic.requests_per_connection == Some(0) {
            bail!("traffic.timeout and traffic.requests_per_connection must be more than 0");
        }
        for (name, effort) in [("quick", &self.quick), ("full", &self.full)] {
            let open = self.sweep.is_some() || self.traffic.arrivals.is_some();
            if open && effort.gap.0 < OPEN_LOOP_GAP {
                bail!(
                    "{name}: an open loop needs a gap of {OPEN_LOOP_GAP:?} for its late requests"
                );
            }
            if effort.blocks == 0 || effort.rounds == 0 || effort.slice.ns() == 0 {
                bail!("{name}: blocks, rounds and slice must be more than 0");
            }
        }
        Ok(())
    }

    /// Every arm can be read, and has a name of its own.
    pub fn check_arms(&self) -> anyhow::Result<()> {
        for model in &self.models {
            check_arm(model)?;
        }
        for external in &self.external {
            external.check()?;
        }
        let external = self.external.iter().map(|external| &external.name);
        let names: Vec<_> = self.models.iter().chain(external).collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                bail!("model '{name}' is named twice");
            }
        }
        Ok(())
    }

    /// Its arms, models first. External servers only return bytes: where requests ask for work, they are
    /// skipped.
    pub fn arms(&self) -> anyhow::Result<Vec<Arm>> {
        let mut arms: Vec<_> = self
            .models
            .iter()
            .map(|model| Arm::of_model(model))
            .collect();
        for external in &self.external {
            let mut arm = Arm::of_external(external)?;
            if self.traffic.work != WorkMix::default() {
                arm.skip = Some("an external server does no work, it only echoes".to_owned());
            }
            arms.push(arm);
        }
        Ok(arms)
    }

    /// The workload of its clients.
    #[must_use]
    pub fn workload(&self, seed: u64) -> Workload {
        Workload {
            payload_bytes: self.traffic.payload_bytes,
            work: self.traffic.work.clone(),
            think_ns: self.traffic.think.ns(),
            arrivals: self.traffic.arrivals,
            active_clients: self.traffic.active_clients,
            requests_per_connection: self.traffic.requests_per_connection,
            timeout_ns: self.traffic.timeout.ns(),
            seed,
            ..Workload::default()
        }
    }
}

/// An arm begins with the name of a model; options of `serve` may follow.
pub fn check_arm(arm: &str) -> anyhow::Result<()> {
    let name = arm.split_whitespace().next().unwrap_or_default();
    echobench_servers::find(name)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_scenarios_are_valid() {
        let scenarios = Scenario::built_in().unwrap();
        assert_eq!(scenarios.len(), BUILT_IN.len());
        for scenario in scenarios {
            assert!(!scenario.question.is_empty());
            assert!(!scenario.question.contains('\n'));
        }
    }

    #[test]
    fn a_scenario_survives_being_recorded() {
        let scenario = Scenario::find("blocking").unwrap();
        let json = serde_json::to_string(&scenario).unwrap();
        let back: Scenario = serde_json::from_str(&json).unwrap();
        assert_eq!(
            serde_json::to_value(back.full).unwrap(),
            serde_json::to_value(scenario.full).unwrap()
        );
    }

    #[test]
    fn bad_files_say_where() {
        let good = BUILT_IN[0].1;
        for (bad, words) in [
            (
                good.replace("payload_bytes", "payload"),
                vec!["line", "payload", "x.toml"],
            ),
            (good.replace("gap =", "gap = 3 #"), vec!["line", "gap"]),
            (
                good.replace("clients = [", "clients = [0, "),
                vec!["0 clients"],
            ),
            (
                good.replace("\"fork\"", "\"fibre\""),
                vec!["fibre", "thread", "fork"],
            ),
            ("question = ".to_owned(), vec!["line 1"]),
        ] {
            let error = Scenario::parse("x", "x.toml", &bad)
                .unwrap_err()
                .to_string();
            for word in words {
                assert!(error.contains(word), "{error}: no {word}");
            }
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
