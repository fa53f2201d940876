//! Scenario files: the committed ones, and those of users. All faults of a file are named at once.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::timing::Timing;
use super::{Capacity, Effort, Fault, Scenario, check_printable};

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
        let (document, syntax) = DeTable::parse_recoverable(text);
        let mut faults = FileFaults::new(file, text);
        if !syntax.is_empty() {
            for error in &syntax {
                let line = faults.line(error.span().map_or(0, |span| span.start));
                let quoted = text.lines().nth(line - 1).unwrap_or_default().trim();
                let problem = in_one_line(error);
                faults
                    .list
                    .push((line, format!("line {line} ('{quoted}'): {problem}")));
            }
            return Err(faults.into_error());
        }

        let mut scenario = faults.deserialize(document.clone());
        name.clone_into(&mut scenario.name);
        scenario.normalise_models();
        scenario.choose_timing(document.get_ref());
        for fault in scenario.faults() {
            faults.add(document.get_ref(), &fault);
        }
        if faults.list.is_empty() {
            return Ok(scenario);
        }
        Err(faults.into_error())
    }

    /// Chooses what the file does not say about blocks, rounds, slices, ramps and gaps.
    fn choose_timing(&mut self, document: &DeTable<'_>) {
        let timing = Timing::of(self);
        let forms = [
            ("quick", &mut self.quick, Effort::quick()),
            ("full", &mut self.full, Effort::full()),
        ];
        for (form, effort, default) in forms {
            let is_given = |key: &str| span_of(document, &format!("{form}.{key}")).is_some();
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

/// Faults of a file, each with its line.
struct FileFaults<'a> {
    file: &'a str,
    text: &'a str,
    list: Vec<(usize, String)>,
    /// The fields that were left out because of a fault.
    removed: Vec<String>,
}

impl<'a> FileFaults<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        FileFaults {
            file,
            text,
            list: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Reads a scenario. A field that cannot be read is a fault and is left out, so that all others are read.
    fn deserialize(&mut self, mut document: Spanned<DeTable<'a>>) -> Scenario {
        loop {
            let error = match Scenario::deserialize(Deserializer::from(document.clone())) {
                Ok(scenario) => return scenario,
                Err(error) => error,
            };

            let span = error.span().unwrap_or(0..0);
            let field = remove(document.get_mut(), &span);
            let field = field.expect("a scenario without any field can be read");
            let missing = missing_field(&error).map(|name| format!("{field}.{name}"));
            // The field may be missing because it was left out.
            if missing.is_none_or(|field| !self.removed.contains(&field)) {
                let line = self.line(span.start);
                let problem = in_one_line(&error);
                self.list
                    .push((line, format!("line {line}, {field}: {problem}")));
            }
            self.removed.push(field);
        }
    }

    /// Adds a fault of the scenario, unless its field could not even be read.
    fn add(&mut self, document: &DeTable<'_>, fault: &Fault) {
        let is_known = |removed: &String| {
            let inner = |long: &str, short: &str| {
                long.strip_prefix(short)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            inner(removed, &fault.field) || inner(&fault.field, removed)
        };
        if self.removed.iter().any(is_known) {
            return;
        }

        let entry = match span_of(document, &fault.field) {
            Some(span) => {
                let line = self.line(span.start);
                (line, format!("line {line}, {fault}"))
            }
            None => (0, fault.to_string()),
        };
        if !self.list.contains(&entry) {
            self.list.push(entry);
        }
    }

    /// Number of the line with this byte.
    fn line(&self, at: usize) -> usize {
        let ends = self.text.match_indices('\n');
        ends.take_while(|(end, _)| *end < at).count() + 1
    }

    fn into_error(mut self) -> anyhow::Error {
        self.list.sort();
        let lines = self
            .list
            .iter()
            .map(|(_, text)| format!("{}, {text}", self.file));
        anyhow::anyhow!("{}", lines.collect::<Vec<_>>().join("\n"))
    }
}

fn in_one_line(error: &Error) -> String {
    error.message().replace('\n', "; ")
}

/// The name of the field that is missing, if that is the error.
fn missing_field(error: &Error) -> Option<&str> {
    let (_, rest) = error.message().split_once("missing field `")?;
    rest.split('`').next()
}

/// Removes the innermost field that contains a span, and returns its name, as in `traffic.work`. In a list of
/// tables a whole table is removed, since other fields of it may need the one that cannot be read.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let contains = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let key = table.iter().find_map(|(key, value)| {
        let is_here = contains(key.span()) || contains(value.span()) || is_inside(value, span);
        is_here.then(|| key.clone())
    });
    let key = key.or_else(|| table.keys().next().cloned())?;

    let name = key.get_ref().to_string();
    if let Some(value) = table.get_mut(&key)
        && let DeValue::Table(inner) = value.get_mut()
        && !contains(key.span())
        && inner.iter().any(|(key, value)| {
            contains(key.span()) || contains(value.span()) || is_inside(value, span)
        })
        && let Some(field) = remove(inner, span)
    {
        return Some(format!("{name}.{field}"));
    }
    table.remove(&key);
    Some(name)
}

/// Whether a span lies in a value. Tables that are written with a header have the span of the header only.
fn is_inside(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let contains = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    contains(value.span())
        || match value.get_ref() {
            DeValue::Table(table) => table
                .iter()
                .any(|(key, value)| contains(key.span()) || is_inside(value, span)),
            DeValue::Array(values) => values.iter().any(|value| is_inside(value, span)),
            _ => false,
        }
}

/// The place of a field, as in `traffic.work`, or of the innermost table around it.
fn span_of(table: &DeTable<'_>, field: &str) -> Option<Range<usize>> {
    let (name, rest) = field.split_once('.').unwrap_or((field, ""));
    let (key, value) = table.get_key_value(name)?;
    if rest.is_empty() {
        return Some(key.span());
    }
    span_of(value.get_ref().as_table()?, rest)
}
