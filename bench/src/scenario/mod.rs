//! Scenarios: named, committed workloads, read from TOML.

pub mod arm;
pub(crate) mod checked_file;
mod file;
mod quantities;
mod slo;
#[cfg(test)]
mod tests;
mod timing;
mod values;
mod view;

use std::fmt;
use std::ops::Not;
use std::str::FromStr;
use std::time::Duration;

pub use crate::host::cpus::Placement;
use crate::host::time::nanoseconds;
use anyhow::bail;
use echobench_clients::{Arrivals, Driver, ParseError, Spacing, WorkMix, Workload, parse_duration};
use echobench_protocol::{serde_by_name, textual_enum};
use echobench_servers::{MODELS, Model, textbook_models};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::scenario::arm::{Arm, External};
use crate::scenario::checked_file::Fault;
use crate::scenario::quantities::is_rate;
pub use crate::scenario::quantities::{Payload, parse_rate, parse_size};
pub use crate::scenario::slo::{Percentile, Slo};
use crate::scenario::timing::Timing;
pub use crate::scenario::values::Values;
use crate::scenario::values::one_or_more;
pub use crate::scenario::view::{View, Views};

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
    #[serde(default)]
    pub question: String,
    /// The arms: a model each, with options of `serve` if needed, as in `pool --workers 8`; or in a file
    /// the name of a set of models, see [`ModelSet`].
    #[serde(default = "main_models", deserialize_with = "models")]
    pub models: Vec<String>,
    /// Further arms: servers of other projects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<External>,
    /// Whether the arms of a block run at the same time and are driven in turn. If not, they run one after
    /// the other: for loads of which the machine cannot hold several.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub alternate: bool,
    /// The arm that ratios refer to; `thread` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Objective of an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// Numbers of clients, each a condition of its own.
    #[serde(default = "default_clients", deserialize_with = "one_or_more")]
    pub clients: Vec<u32>,
    /// Forms of the clients, each a condition of its own.
    #[serde(default = "default_drivers", deserialize_with = "one_or_more")]
    pub drivers: Vec<Driver>,
    /// CPUs of servers and clients, each placement a condition of its own.
    #[serde(default = "default_placements", deserialize_with = "one_or_more")]
    pub placements: Vec<Placement>,
    /// Further loads, which show on what the ranking depends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Loads>,
    /// Requests of the clients.
    #[serde(default)]
    pub traffic: Traffic,
    /// Rate sweep: the peak of each arm is found in a closed loop, then an open loop drives it at rates
    /// relative to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// Capacity search: the highest rate at which each arm keeps the objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// Amount of measurement of the short form.
    #[serde(default = "Effort::quick")]
    pub quick: Effort,
    /// Amount of measurement of the long form, whose results are committed.
    #[serde(default = "Effort::full")]
    pub full: Effort,
}

/// Loads beside those of the scenario itself: every combination.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loads {
    /// Numbers of clients.
    #[serde(default = "default_clients", deserialize_with = "one_or_more")]
    pub clients: Vec<u32>,
    /// Forms of the clients.
    #[serde(default = "default_drivers", deserialize_with = "one_or_more")]
    pub drivers: Vec<Driver>,
    /// CPUs of servers and clients.
    #[serde(default = "default_placements", deserialize_with = "one_or_more")]
    pub placements: Vec<Placement>,
    /// Whether the short form leaves them out.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub full_only: bool,
}

/// Finds values that are listed twice.
fn check_distinct<T: PartialEq + fmt::Display>(
    values: &Values<T>,
    field: &str,
    faults: &mut Vec<Fault>,
) {
    let values: Vec<&T> = values.iter().collect();
    for (index, value) in values.iter().enumerate() {
        if values[..index].contains(value) {
            faults.push(Fault::new(field, format!("'{value}' is listed twice")));
        }
    }
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

fn main_models() -> Vec<String> {
    ModelSet::Main.models()
}

fn default_clients() -> Vec<u32> {
    vec![64]
}

/// One thread for all clients takes the least CPU time for a request, so it is the last to be the limit.
fn default_drivers() -> Vec<Driver> {
    vec![Driver::Tasks]
}

/// Clients that share CPUs with the server slow it down, each model in its own way.
fn default_placements() -> Vec<Placement> {
    vec![Placement::Split]
}

/// Longest time over which the clients of a block connect.
const LONGEST_RAMP_UP: Span = Span(Duration::from_secs(86_400));

/// Requests of the clients of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Payload of each request.
    #[serde(default = "Traffic::payload")]
    pub payload_bytes: Values<Payload>,
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
    /// Time over which the clients connect, before the first slice; all at once if not given.
    #[serde(default, skip_serializing_if = "Span::is_zero")]
    pub ramp_up: Span,
    /// Longest wait of a client for a connection or a reply.
    #[serde(default = "Traffic::timeout")]
    pub timeout: Span,
}

impl Default for Traffic {
    fn default() -> Self {
        Traffic {
            payload_bytes: Traffic::payload(),
            work: Values::default(),
            think: Values::default(),
            arrivals: None,
            active_clients: None,
            requests_per_connection: None,
            ramp_up: Span::default(),
            timeout: Traffic::timeout(),
        }
    }
}

impl Traffic {
    fn payload() -> Values<Payload> {
        Payload(64).into()
    }

    fn timeout() -> Span {
        Span(Duration::from_secs(5))
    }

    fn check(&self, faults: &mut Vec<Fault>) {
        let mut check = |is_fault: bool, field: &str, problem: &str| {
            if is_fault {
                faults.push(Fault::new(format!("traffic.{field}"), problem));
            }
        };
        check(
            self.active_clients == Some(0),
            "active_clients",
            "0 clients make no load; give 1 or more",
        );
        check(
            self.arrivals
                .is_some_and(|arrivals| !is_rate(arrivals.per_second)),
            "arrivals.per_second",
            "not a number of requests a second, such as 1000",
        );
        check(
            self.timeout.ns() == 0,
            "timeout",
            "no request can be answered in no time; give more than 0s",
        );
        check(
            self.requests_per_connection == Some(0),
            "requests_per_connection",
            "a connection needs 1 request or more",
        );
        check(
            self.requests_per_connection.is_some() && !self.ramp_up.is_zero(),
            "ramp_up",
            "spreads connections that last; leave out ramp_up or requests_per_connection",
        );
        check(
            self.ramp_up > LONGEST_RAMP_UP,
            "ramp_up",
            "a block would take days; give 24h or less",
        );
        check(
            self.arrivals.is_some() && self.think != Values::default(),
            "think",
            "an open loop sends requests when they are due; leave out think or arrivals",
        );

        check_distinct(&self.payload_bytes, "traffic.payload_bytes", faults);
        check_distinct(&self.work, "traffic.work", faults);
        check_distinct(&self.think, "traffic.think", faults);
    }

    /// The traffic of each condition, which has one value of every setting, with the text that tells it from
    /// the others: `1 KiB`, `block:5ms`, `think 1ms`.
    #[must_use]
    pub fn each(&self) -> Vec<(String, Traffic)> {
        let mut all = Vec::new();
        for (payload, &bytes) in self.payload_bytes.named(ToString::to_string) {
            for (work, mix) in self.work.named(ToString::to_string) {
                for (think, &span) in self.think.named(|span| format!("think {span}")) {
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
#[serde(deny_unknown_fields, default)]
pub struct Sweep {
    /// In percent of each arm's own peak.
    pub percent: Vec<u32>,
    /// Spacing of the requests.
    pub spacing: Spacing,
    /// Number of blocks from which the peaks are found.
    pub peak_blocks: u32,
}

impl Default for Sweep {
    fn default() -> Self {
        Sweep {
            percent: vec![10, 30, 50, 70, 80, 90, 95, 110],
            spacing: Spacing::Poisson,
            peak_blocks: 10,
        }
    }
}

impl Sweep {
    fn check(&self, faults: &mut Vec<Fault>) {
        if self.percent.is_empty() || self.percent.contains(&0) {
            faults.push(Fault::new("sweep.percent", "needs rates of 1 or more"));
        }
        if self.peak_blocks == 0 {
            faults.push(Fault::new("sweep.peak_blocks", "needs 1 block or more"));
        }
    }
}

/// A search for the highest rate at which each arm keeps the objective.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Most steps, each with a rate for each arm.
    pub steps: u32,
    /// Width at which the search ends, as a share of the rate.
    pub precision: f64,
    /// Spacing of the requests.
    pub spacing: Spacing,
    /// Number of blocks from which the peaks are found, half of which are the first rates.
    pub peak_blocks: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity {
            steps: 12,
            precision: 0.05,
            spacing: Spacing::Poisson,
            peak_blocks: 3,
        }
    }
}

impl Capacity {
    /// Number of blocks of a step: an interval of 9 blocks leaves out one at each end.
    pub const BLOCKS: u32 = 9;

    fn check(&self, faults: &mut Vec<Fault>) {
        if self.steps == 0 {
            faults.push(Fault::new("capacity.steps", "needs 1 step or more"));
        }
        if !(0.001..=1.0).contains(&self.precision) {
            let problem = "not a share of a rate from 0.001 to 1, such as 0.05";
            faults.push(Fault::new("capacity.precision", problem));
        }
        if self.peak_blocks == 0 {
            faults.push(Fault::new("capacity.peak_blocks", "needs 1 block or more"));
        }
    }
}

/// Amount of measurement: each block has `rounds` rounds, in each of which every arm has one slice.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
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

impl Default for Effort {
    fn default() -> Self {
        Effort::quick()
    }
}

impl Effort {
    /// The short form, where nothing else is asked for.
    #[must_use]
    pub fn quick() -> Self {
        Effort {
            blocks: 10,
            rounds: 4,
            slice: Span::from_millis(25),
            ramp: Span::from_millis(4),
            gap: Span::from_millis(5),
        }
    }

    /// The long form, where nothing else is asked for.
    #[must_use]
    pub fn full() -> Self {
        Effort {
            blocks: 21,
            rounds: 8,
            slice: Span::from_millis(30),
            ..Effort::quick()
        }
    }

    /// The same with slices in which the requests of a block carry a percentile at this rate.
    #[must_use]
    pub fn for_rate(self, per_second: f64, percentile: Percentile) -> Self {
        let requests = timing::requests_per_slice(per_second, percentile, self.rounds);
        Effort {
            slice: self.slice.max(requests),
            ..self
        }
    }

    /// The same with slices, ramps and gaps as long as `timing` says.
    #[must_use]
    fn lengthened(self, timing: &Timing) -> Self {
        let effort = Effort {
            slice: self.slice.max(timing.slice),
            ramp: self.ramp.max(timing.ramp),
            gap: self.gap.max(timing.gap),
            ..self
        };
        match timing.rate {
            Some((per_second, percentile)) => effort.for_rate(per_second, percentile),
            None => effort,
        }
    }

    /// Checks one form of a scenario, by its name; `open` if it has an open loop.
    fn check(&self, name: &str, open: bool, faults: &mut Vec<Fault>) {
        if open && self.gap.0 < OPEN_LOOP_GAP {
            let problem =
                format!("an open loop needs at least {OPEN_LOOP_GAP:?}, for its late requests");
            faults.push(Fault::new(format!("{name}.gap"), problem));
        }
        let zeros = [
            ("blocks", self.blocks == 0),
            ("rounds", self.rounds == 0),
            ("slice", self.slice.ns() == 0),
        ];
        for (field, _) in zeros.into_iter().filter(|(_, is_zero)| *is_zero) {
            faults.push(Fault::new(format!("{name}.{field}"), "must be more than 0"));
        }
    }
}

/// A duration in its textual form, as in `30ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    const fn from_millis(ms: u64) -> Self {
        Span(Duration::from_millis(ms))
    }

    /// In nanoseconds.
    #[must_use]
    pub fn ns(self) -> u64 {
        nanoseconds(self.0)
    }

    fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_duration(text).map(Span)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TimeText)
    }
}

struct TimeText;

impl Visitor<'_> for TimeText {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time with a unit, such as \"30ms\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map_err(E::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A whole number of a unit is read back exactly; a fraction might not be.
        let ns = self.0.as_nanos();
        let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
        let whole = |(length, _): &(u128, &str)| ns.is_multiple_of(*length);
        let (length, unit) = units.into_iter().find(whole).unwrap_or((1, "ns"));
        serializer.collect_str(&format_args!("{}{unit}", ns / length))
    }
}

impl Scenario {
    /// Everything that is wrong with it beyond the types of its fields.
    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.question.trim().is_empty() {
            let problem = "missing; a scenario needs a question that it answers, in one line";
            faults.push(Fault::new("question", problem));
        }
        if self.question.contains('\n') {
            faults.push(Fault::new("question", "has several lines; give one"));
        }

        for loads in self.all_loads() {
            if loads.placements.contains(&Placement::Apart) {
                let problem = "'apart' comes from hosts; leave it out, and run with --server-on";
                faults.push(Fault::new("placements", problem));
            }
            if loads.clients.contains(&0) {
                faults.push(Fault::new(
                    "clients",
                    "0 clients make no load; give 1 or more",
                ));
            }
        }
        if self.models.is_empty() && self.external.is_empty() {
            faults.push(Fault::new("models", "names none; give one or more"));
        }

        self.check_arms(&mut faults);
        self.traffic.check(&mut faults);
        if let Some(sweep) = &self.sweep {
            sweep.check(&mut faults);
            if self.traffic.arrivals.is_some() {
                let problem = "a sweep has rates of its own; leave out one of them";
                faults.push(Fault::new("traffic.arrivals", problem));
            }
        }
        if let Some(capacity) = &self.capacity {
            capacity.check(&mut faults);
            let other_rates = self.sweep.is_some() || self.traffic.arrivals.is_some();
            if other_rates || self.traffic.think != Values::default() {
                let problem =
                    "a search finds the rates: leave out sweep, traffic.arrivals and traffic.think";
                faults.push(Fault::new("capacity", problem));
            }
            if self.slo.is_none() {
                let problem = "a search needs an objective, such as slo = \"p99=2ms\"";
                faults.push(Fault::new("slo", problem));
            }
        }
        if self.slo.is_some() && !self.is_open_loop() {
            let problem =
                "an objective needs an open loop: give traffic.arrivals, a sweep or capacity";
            faults.push(Fault::new("slo", problem));
        }

        self.quick.check("quick", self.is_open_loop(), &mut faults);
        self.full.check("full", self.is_open_loop(), &mut faults);
        faults
    }

    /// Fails if anything is wrong with it, naming everything.
    pub fn check(&self) -> anyhow::Result<()> {
        let faults = self.faults();
        if faults.is_empty() {
            return Ok(());
        }
        let lines = faults.iter().map(|fault| format!("{}, {fault}", self.name));
        bail!("{}", lines.collect::<Vec<_>>().join("\n"))
    }

    /// The amount of measurement of the long form or of the short one.
    #[must_use]
    pub fn effort(&self, full: bool) -> Effort {
        if full { self.full } else { self.quick }
    }

    /// Whether requests are due at given times.
    #[must_use]
    pub fn is_open_loop(&self) -> bool {
        self.sweep.is_some() || self.capacity.is_some() || self.traffic.arrivals.is_some()
    }

    /// Checks that every arm can be read and has a name of its own, and that the reference is one of them.
    fn check_arms(&self, faults: &mut Vec<Fault>) {
        for model in &self.models {
            let checked = check_printable("model", model).and_then(|()| check_arm(model));
            faults.extend(
                checked
                    .err()
                    .map(|error| Fault::new("models", error.to_string())),
            );
        }
        for external in &self.external {
            let checked =
                check_printable("external server", &external.name).and_then(|()| external.check());
            faults.extend(
                checked
                    .err()
                    .map(|error| Fault::new("external", error.to_string())),
            );
        }

        let external = self.external.iter().map(|external| &external.name);
        let names: Vec<_> = self.models.iter().chain(external).collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                let problem = format!("model '{name}' is named twice");
                faults.push(Fault::new("models", problem));
            }
        }

        if let Some(reference) = &self.reference
            && !names.contains(&reference)
        {
            let known: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            let problem = format!("'{reference}' is no arm ({})", known.join(", "));
            faults.push(Fault::new("reference", problem));
        }
    }

    /// Separates the words of each model by one space, so that an arm has one name however it was written.
    pub fn normalise_models(&mut self) {
        for model in &mut self.models {
            *model = model.split_whitespace().collect::<Vec<_>>().join(" ");
        }
    }

    /// Whether its requests ask for work, which servers of other projects do not do.
    #[must_use]
    pub fn asks_for_work(&self) -> bool {
        self.traffic.work != Values::default()
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
            if self.asks_for_work() {
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
            full_only: false,
        };
        std::iter::once(own).chain(self.beside.clone()).collect()
    }

    /// Leaves out the loads that are not those of the long form or of the short one.
    pub fn take_form(&mut self, full: bool) {
        self.beside.retain(|loads| full || !loads.full_only);
    }

    /// Runs every condition with these placements.
    pub fn place(&mut self, placements: &[Placement]) {
        self.placements = placements.to_vec();
        for loads in &mut self.beside {
            loads.placements = placements.to_vec();
        }
    }

    /// Leaves out placements that need more CPUs than this process may use; returns whether there were any.
    pub fn leave_out_impossible_placements(&mut self) -> bool {
        let is_possible = |placement: &Placement| placement.cpus().is_ok();
        let before = self.loads().len();

        self.placements.retain(is_possible);
        if self.placements.is_empty() {
            self.placements = vec![Placement::None];
        }
        for loads in &mut self.beside {
            loads.placements.retain(is_possible);
        }
        self.beside.retain(|loads| !loads.placements.is_empty());
        self.loads().len() < before
    }

    /// Makes slices, ramps and gaps at least as long as its traffic needs.
    pub fn lengthen(&mut self) {
        let timing = Timing::of(self);
        self.quick = self.quick.lengthened(&timing);
        self.full = self.full.lengthened(&timing);
    }

    /// The workload of its clients, where the traffic is that of one condition.
    #[must_use]
    pub fn workload(&self, seed: u64) -> Workload {
        Workload {
            payload_bytes: self.traffic.payload_bytes.first().0,
            work: self.traffic.work.first().clone(),
            think_ns: self.traffic.think.first().ns(),
            arrivals: self.traffic.arrivals,
            active_clients: self.traffic.active_clients,
            requests_per_connection: self.traffic.requests_per_connection,
            ramp_up_ns: self.traffic.ramp_up.ns(),
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
