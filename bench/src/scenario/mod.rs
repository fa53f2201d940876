//! Scenarios: named, committed workloads, read from TOML.

pub mod arm;
mod values;

use std::fs;
use std::path::Path;
use std::time::Duration;

pub use crate::host::cpus::Placement;
use crate::host::time::nanoseconds;
use anyhow::{Context, bail};
use echobench_clients::{Arrivals, Driver, Spacing, WorkMix, Workload, parse_duration};
use echobench_protocol::{MAX_PAYLOAD, serde_by_name, textual_enum};
use echobench_servers::{MODELS, Model, textbook_models};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::scenario::arm::{Arm, External};
pub use crate::scenario::values::Values;
use crate::scenario::values::size;

/// The committed scenarios, in the order in which they are shown and run.
const BUILT_IN: &[(&str, &str)] = &[
    ("steady", include_str!("../../scenarios/steady.toml")),
    ("churn", include_str!("../../scenarios/churn.toml")),
    ("blocking", include_str!("../../scenarios/blocking.toml")),
    ("waits", include_str!("../../scenarios/waits.toml")),
    ("mixed", include_str!("../../scenarios/mixed.toml")),
    ("payload", include_str!("../../scenarios/payload.toml")),
    ("think", include_str!("../../scenarios/think.toml")),
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
    ("designs", include_str!("../../scenarios/designs.toml")),
    ("accept", include_str!("../../scenarios/accept.toml")),
    ("herd", include_str!("../../scenarios/herd.toml")),
    ("c10k", include_str!("../../scenarios/c10k.toml")),
    ("c20k", include_str!("../../scenarios/c20k.toml")),
    ("gate", include_str!("../../scenarios/gate.toml")),
];

/// Shortest gap after a slice of an open loop: time to send late requests and to receive their replies.
const OPEN_LOOP_GAP: Duration = Duration::from_millis(20);

/// A workload and its measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name, from that of its file.
    #[serde(skip)]
    pub name: String,
    /// The question that it answers, in one line.
    pub question: String,
    /// The arms: a model each, with options of `serve` if needed, as in `pool --workers 8`; or in a file
    /// the name of a set of models, see [`ModelSet`].
    #[serde(deserialize_with = "models")]
    pub models: Vec<String>,
    /// Further arms: servers of other projects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<External>,
    /// Whether the arms of a block run at the same time and are driven in turn. If not, they run one after
    /// the other: for loads of which the machine cannot hold several.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub alternate: bool,
    /// Numbers of clients, each a condition of its own.
    pub clients: Vec<u32>,
    /// Forms of the clients, each a condition of its own.
    pub drivers: Vec<Driver>,
    /// CPUs of servers and clients, each placement a condition of its own.
    #[serde(default = "anywhere")]
    pub placements: Vec<Placement>,
    /// Further loads, which show on what the ranking depends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Loads>,
    /// Requests of the clients.
    pub traffic: Traffic,
    /// Rate sweep: the peak of each arm is found in a closed loop, then an open loop drives it at rates
    /// relative to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// Amount of measurement of the short form.
    pub quick: Effort,
    /// Amount of measurement of the long form, whose results are committed.
    pub full: Effort,
}

/// Loads beside those of the scenario itself: every combination.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loads {
    /// Numbers of clients.
    pub clients: Vec<u32>,
    /// Forms of the clients.
    pub drivers: Vec<Driver>,
    /// CPUs of servers and clients.
    pub placements: Vec<Placement>,
}

/// A set of models, by its name in a scenario file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelSet {
    /// Every model.
    All,
    /// The models that textbooks introduce, and the baseline.
    Textbook,
    /// Those of them that serve several connections at the same time. More arms would take too long:
    /// a block's time grows with the square of their number.
    Main,
}

textual_enum!(ModelSet, "set of models", { All => "all", Textbook => "textbook", Main => "main" });

serde_by_name!(ModelSet);

impl ModelSet {
    /// Names of its models, in the order of every table.
    fn models(self) -> Vec<String> {
        let models = match self {
            ModelSet::All => MODELS,
            ModelSet::Textbook | ModelSet::Main => textbook_models(),
        };
        let is_in = |model: &&Model| self != ModelSet::Main || !model.family.is_iterative();
        let models = models.iter().filter(is_in);
        models.map(|model| model.name.to_owned()).collect()
    }
}

/// Reads a list of arms, or the name of a set of models.
fn models<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "models needs a list of models, \"main\", \"textbook\" or \"all\""
    )]
    enum Models {
        Listed(Vec<String>),
        Set(ModelSet),
    }

    Ok(match Models::deserialize(deserializer)? {
        Models::Listed(models) => models,
        Models::Set(set) => set.models(),
    })
}

fn yes() -> bool {
    true
}

fn anywhere() -> Vec<Placement> {
    vec![Placement::None]
}

/// Requests of the clients of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Payload of each request.
    pub payload_bytes: Values<u32>,
    /// Work of the server before it replies.
    #[serde(default)]
    pub work: Values<WorkMix>,
    /// Pause of a client between a reply and its next request.
    #[serde(default)]
    pub think: Values<Span>,
    /// The schedule of an open loop; a closed loop if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Arrivals>,
    /// Number of clients that send requests, the others hold idle connections; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_clients: Option<u32>,
    /// Requests on a connection before the client opens another one (1: churn); unlimited if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_connection: Option<u64>,
    /// Longest wait of a client for a connection or a reply.
    pub timeout: Span,
}

impl Traffic {
    fn check(&self) -> anyhow::Result<()> {
        if self.active_clients == Some(0) {
            bail!("traffic.active_clients: 0 clients make no load; give 1 or more");
        }
        if self.payload_bytes.iter().any(|bytes| *bytes > MAX_PAYLOAD) {
            bail!("traffic.payload_bytes is more than the {MAX_PAYLOAD} the protocol allows");
        }
        if let Some(arrivals) = self.arrivals
            && !(0.001..=1e9).contains(&arrivals.per_second)
        {
            bail!(
                "traffic.arrivals.per_second must be a number of requests a second, such as 1000"
            );
        }

        if self.timeout.ns() == 0 || self.requests_per_connection == Some(0) {
            bail!("traffic.timeout and traffic.requests_per_connection must be more than 0");
        }

        let each = self.each();
        for (index, (name, _)) in each.iter().enumerate() {
            if each[..index].iter().any(|(known, _)| known == name) {
                bail!("traffic: '{name}' is listed twice");
            }
        }
        Ok(())
    }

    /// The traffic of each condition, which has one value of every setting, with the text that tells it from
    /// the others: `1 KiB`, `block:5ms`, `think 1ms`.
    #[must_use]
    pub fn each(&self) -> Vec<(String, Traffic)> {
        let mut all = Vec::new();
        for (payload, &bytes) in self.payload_bytes.named(|bytes| size(*bytes)) {
            for (work, mix) in self.work.named(ToString::to_string) {
                for (think, &span) in self.think.named(|span| format!("think {:?}", span.0)) {
                    let names = [payload.as_str(), &work, &think];
                    let names: Vec<&str> =
                        names.into_iter().filter(|name| !name.is_empty()).collect();
                    let traffic = Traffic {
                        payload_bytes: bytes.into(),
                        work: mix.clone().into(),
                        think: span.into(),
                        ..self.clone()
                    };
                    all.push((names.join(", "), traffic));
                }
            }
        }
        all
    }
}

/// The rates of a rate sweep.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// In percent of each arm's own peak.
    pub percent: Vec<u32>,
    /// Spacing of the requests.
    pub spacing: Spacing,
    /// Number of blocks from which the peaks are found.
    pub peak_blocks: u32,
}

/// Amount of measurement: each block has `rounds` rounds, in each of which every arm has one slice.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effort {
    /// Number of blocks, each with fresh processes.
    pub blocks: u32,
    /// Least number of rounds; rounded up to a multiple of the arms, so that orders are balanced.
    pub rounds: usize,
    /// Length of the measured part of a slice.
    pub slice: Span,
    /// Time before it in which the clients begin, each at its own moment.
    pub ramp: Span,
    /// Time after it in which requests in flight end, before the next arm's slice.
    pub gap: Span,
}

impl Effort {
    /// Checks one form of a scenario, by its name; `open` if it has an open loop.
    fn check(&self, name: &str, open: bool) -> anyhow::Result<()> {
        if open && self.gap.0 < OPEN_LOOP_GAP {
            bail!("{name}: an open loop needs a gap of {OPEN_LOOP_GAP:?} for its late requests");
        }
        if self.blocks == 0 || self.rounds == 0 || self.slice.ns() == 0 {
            bail!("{name}: blocks, rounds and slice must be more than 0");
        }
        Ok(())
    }
}

/// A duration in its textual form, as in `30ms`.
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
        // Whole nanoseconds read back exactly; a decimal fraction of a larger unit might not.
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
        let is_file = path.extension().is_some_and(|end| end == "toml");

        if is_file {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read the scenario {name}"))?;
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            return Self::parse(stem.unwrap_or(name), name, &text);
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
        check_printable("scenario", name)?;
        scenario.normalise_models();
        scenario
            .check()
            .map_err(|problem| anyhow::anyhow!("{file}: {problem}"))?;
        Ok(scenario)
    }

    /// Checks everything that the types of the file do not.
    fn check(&self) -> anyhow::Result<()> {
        for loads in self.all_loads() {
            if loads.clients.is_empty() || loads.drivers.is_empty() || loads.placements.is_empty() {
                bail!("clients, drivers and placements must each name at least one");
            }
            if loads.clients.contains(&0) {
                bail!("clients: 0 clients make no load; give 1 or more");
            }
        }
        if self.models.is_empty() && self.external.is_empty() {
            bail!("models must name at least one");
        }

        self.check_arms()?;
        self.traffic.check()?;
        if let Some(sweep) = &self.sweep
            && (sweep.percent.is_empty() || sweep.percent.contains(&0) || sweep.peak_blocks == 0)
        {
            bail!("sweep.percent needs rates of 1 or more, and sweep.peak_blocks 1 or more blocks");
        }

        let open = self.sweep.is_some() || self.traffic.arrivals.is_some();
        self.quick.check("quick", open)?;
        self.full.check("full", open)
    }

    /// Checks that every arm can be read and has a name of its own.
    pub fn check_arms(&self) -> anyhow::Result<()> {
        for model in &self.models {
            check_printable("model", model)?;
            check_arm(model)?;
        }
        for external in &self.external {
            check_printable("external server", &external.name)?;
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

    /// Separates the words of each model by one space, so that an arm has one name however it was written.
    pub fn normalise_models(&mut self) {
        for model in &mut self.models {
            *model = model.split_whitespace().collect::<Vec<_>>().join(" ");
        }
    }

    /// The arms, models first. External servers only echo: where requests ask for work, they are skipped.
    pub fn arms(&self) -> anyhow::Result<Vec<Arm>> {
        let mut arms: Vec<_> = self
            .models
            .iter()
            .map(|model| Arm::of_model(model))
            .collect();

        for external in &self.external {
            let mut arm = Arm::of_external(external)?;
            if self.traffic.work != Values::default() {
                arm.skip = Some("an external server does no work, it only echoes".to_owned());
            }
            arms.push(arm);
        }
        Ok(arms)
    }

    /// The number of clients, their driver and the placement of each condition: first those of the scenario
    /// itself, then those beside it.
    #[must_use]
    pub fn loads(&self) -> Vec<(u32, Driver, Placement)> {
        let mut all = Vec::new();
        for loads in self.all_loads() {
            for &placement in &loads.placements {
                for &clients in &loads.clients {
                    for &driver in &loads.drivers {
                        let load = (clients, driver, placement);
                        if !all.contains(&load) {
                            all.push(load);
                        }
                    }
                }
            }
        }
        all
    }

    /// Its own loads and those beside them.
    fn all_loads(&self) -> Vec<Loads> {
        let own = Loads {
            clients: self.clients.clone(),
            drivers: self.drivers.clone(),
            placements: self.placements.clone(),
        };
        std::iter::once(own).chain(self.beside.clone()).collect()
    }

    /// Runs every condition with this placement.
    pub fn place(&mut self, placement: Placement) {
        self.placements = vec![placement];
        for loads in &mut self.beside {
            loads.placements = vec![placement];
        }
    }

    /// Leaves out placements that need more CPUs than this process may use; returns whether there were any.
    pub fn leave_out_impossible_placements(&mut self) -> bool {
        let is_possible = |placement: &Placement| placement.cpus().is_ok();
        let before = self.loads().len();

        self.placements.retain(is_possible);
        if self.placements.is_empty() {
            self.placements = anywhere();
        }
        for loads in &mut self.beside {
            loads.placements.retain(is_possible);
        }
        self.beside.retain(|loads| !loads.placements.is_empty());
        self.loads().len() < before
    }

    /// The workload of its clients, where the traffic is that of one condition.
    #[must_use]
    pub fn workload(&self, seed: u64) -> Workload {
        Workload {
            payload_bytes: *self.traffic.payload_bytes.first(),
            work: self.traffic.work.first().clone(),
            think_ns: self.traffic.think.first().ns(),
            arrivals: self.traffic.arrivals,
            active_clients: self.traffic.active_clients,
            requests_per_connection: self.traffic.requests_per_connection,
            timeout_ns: self.traffic.timeout.ns(),
            seed,
            ..Workload::default()
        }
    }
}

/// Fails for a name that a table, a CSV file or a terminal cannot show as it is.
fn check_printable(noun: &str, name: &str) -> anyhow::Result<()> {
    // Characters without width, and those that turn the direction of text.
    let is_invisible = |letter: char| {
        matches!(letter,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let is_unprintable = |letter: char| letter.is_control() || is_invisible(letter);
    if name.chars().any(is_unprintable) {
        bail!("{noun} {name:?} has characters in its name that cannot be shown; give it another");
    }
    Ok(())
}

/// Checks that an arm begins with the name of a model; options of `serve` may follow.
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
    fn a_list_of_traffic_makes_conditions_of_its_own() {
        let mut scenario = Scenario::find("steady").unwrap();
        let names = |scenario: &Scenario| -> Vec<String> {
            let each = scenario.traffic.each().into_iter();
            each.map(|(name, _)| name).collect()
        };
        assert_eq!(names(&scenario), [""]);

        let text = BUILT_IN[0].1.replace(
            "payload_bytes = 64",
            "payload_bytes = [64, 1024]\nwork = [\"none\", \"block:5ms\"]\nthink = \"1ms\"",
        );
        scenario = Scenario::parse("x", "x.toml", &text).unwrap();
        assert_eq!(
            names(&scenario),
            [
                "64 B, none",
                "64 B, block:5ms",
                "1 KiB, none",
                "1 KiB, block:5ms"
            ]
        );
        let (_, last) = scenario.traffic.each().pop().unwrap();
        scenario.traffic = last;
        let workload = scenario.workload(1);
        assert_eq!(
            (workload.payload_bytes, workload.think_ns),
            (1024, 1_000_000)
        );
        assert_eq!(workload.work, "block:5ms".parse().unwrap());
        assert_eq!(names(&scenario), [""]);

        let recorded = serde_json::to_value(&scenario).unwrap();
        assert_eq!(recorded["traffic"]["payload_bytes"], 1024);
    }

    #[test]
    fn a_set_of_models_is_recorded_as_its_models() {
        let steady = Scenario::find("steady").unwrap();
        let main = ["thread", "fork", "pool", "async"];
        assert_eq!(steady.models, main);
        assert_eq!(Scenario::find("churn").unwrap().models.len(), 5);

        let recorded = serde_json::to_value(&steady).unwrap();
        assert_eq!(recorded["models"], serde_json::json!(main));
    }

    #[test]
    fn arms_have_names_that_can_be_told_apart_and_shown() {
        let arms = |models: &[&str], external: &[&str]| {
            let mut scenario = Scenario::find("steady").unwrap();
            scenario.models = models.iter().map(ToString::to_string).collect();
            scenario.normalise_models();
            let external = external.iter().map(|name| External {
                name: name.to_string(),
                command: "server {port}".to_owned(),
                needs: None,
            });
            scenario.external = external.collect();
            scenario.check_arms().map_err(|error| error.to_string())
        };
        assert_eq!(
            arms(
                &["thread", "pool --workers 8"],
                &["a b", "a_b", "a,b", "a-b", "ä|b"]
            ),
            Ok(())
        );

        let twice = arms(&["pool  --workers\t8", "pool --workers 8"], &[]).unwrap_err();
        assert!(twice.contains("named twice"), "{twice}");
        for name in ["a\u{1b}[2J", "a\u{202e}b", "a\u{200b}"] {
            let error = arms(&["thread"], &[name]).unwrap_err();
            assert!(!error.contains(name) && !error.contains('\n'), "{error}");
        }
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
                good.replace("\"main\"", "[\"thread\", \"fibre\"]"),
                vec!["fibre", "thread", "fork"],
            ),
            (
                good.replace("= 64", "= [64, 64]"),
                vec!["64 B", "listed twice"],
            ),
            (
                good.replace("= 64", "= 64\nwork = [\"none\", \"sleep:1ms\"]"),
                vec!["line", "sleep"],
            ),
            (
                good.replace("\"main\"", "\"most\""),
                vec!["line 2", "all", "main"],
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
