//! Scenario files: the committed ones, and those of users. All faults of a file are named at once.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use super::checked_file::CheckedFile;
use super::timing::Timing;
use super::{Capacity, Effort, Scenario, check_printable};

/// The committed scenarios, in the order in which they are shown and run.
pub(super) const BUILT_IN: &[(&str, &str)] = &[
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

    /// A scenario with nothing but a name and a question: the defaults of all fields.
    #[must_use]
    pub fn plain(name: &str, question: &str) -> Self {
        let question = toml::Value::from(question);
        let text = format!("question = {question}");
        Self::parse(name, name, &text).expect("a question is all that a scenario needs")
    }

    /// Its file, with every field that has a value.
    pub fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(self)?)
    }

    pub(super) fn parse(name: &str, file: &str, text: &str) -> anyhow::Result<Self> {
        check_printable("scenario", name)?;
        let mut file = CheckedFile::parse(file, text)?;
        let mut scenario: Scenario = file.deserialize();
        name.clone_into(&mut scenario.name);
        scenario.normalise_models();
        scenario.choose_timing(&file);
        for fault in scenario.faults() {
            file.add(&fault);
        }
        file.finish()?;
        Ok(scenario)
    }

    /// Chooses what the file does not say about blocks, rounds, slices, ramps and gaps.
    fn choose_timing(&mut self, file: &CheckedFile<'_>) {
        let timing = Timing::of(self);
        let forms = [
            ("quick", &mut self.quick, Effort::quick()),
            ("full", &mut self.full, Effort::full()),
        ];
        for (form, effort, default) in forms {
            let is_given = |key: &str| file.has(&format!("{form}.{key}"));
            if !is_given("blocks") {
                let search = self.capacity.as_ref().map(|_| Capacity::BLOCKS);
                effort.blocks = search.unwrap_or(default.blocks);
            }
            if !is_given("rounds") {
                effort.rounds = default.rounds;
            }

            let rounds = effort.rounds;
            let chosen = Effort { rounds, ..default }.lengthened(&timing);
            if !is_given("slice") {
                effort.slice = chosen.slice;
            }
            if !is_given("ramp") {
                effort.ramp = chosen.ramp;
            }
            if !is_given("gap") {
                effort.gap = chosen.gap;
            }
        }
    }
}
