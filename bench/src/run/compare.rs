//! Two committed runs beside each other: ratios within each run and, on one kind of machine, absolute
//! figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::bail;

use super::committed::{CommittedRun, KEY_COLUMNS, NOT_VALID, SeriesKey};
use super::machines::across_machines;
use super::scenario_report::fixed;
use crate::render::grid::Grid;
use crate::render::units::{self, UNBOUNDED, UNKNOWN, or_unknown, plural};
use crate::render::{Part, Style};
use crate::results::ordered::distinct;
use crate::results::{ConditionKey, Metric, SummaryRow};

/// Options of a comparison.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The earlier results folder.
    pub before: PathBuf,
    /// The later results folder.
    pub after: PathBuf,
    /// Also compares the ratios of runs on different kinds of machines.
    pub allow_unlike: bool,
    /// Arm that ratios refer to, in place of that of each run.
    pub reference: Option<String>,
}

/// The table of a comparison and the notes below it.
pub fn compare(options: &CompareOptions, style: Style) -> anyhow::Result<String> {
    let runs = ComparedRuns::read(options)?;
    let comparison = Comparison::new(&runs);

    let mut notes = comparison.sentences(None);
    notes.extend(comparison.notes());
    let mut parts = vec![
        Part::Table(comparison.table(None, Detail::Estimates)),
        Part::Lines(notes),
    ];
    parts.extend(runs.agreement());
    let texts: Vec<String> = parts.iter().map(|part| part.text(style)).collect();
    Ok(texts.join("\n\n") + "\n")
}

/// Two runs that may be compared.
pub(crate) struct ComparedRuns {
    pub(super) before: CommittedRun,
    pub(super) after: CommittedRun,
    /// The difference between the kinds of their machines, which leaves ratios only.
    unlike: Option<String>,
}

impl ComparedRuns {
    /// Reads both results folders. Fails if they have no arm in common, and if the machines were not of the same kind,
    /// unless that is allowed.
    pub(crate) fn read(options: &CompareOptions) -> anyhow::Result<Self> {
        let reference = options.reference.as_deref();
        let before = CommittedRun::read(&options.before, reference)?;
        let after = CommittedRun::read(&options.after, reference)?;

        let unlike = before.difference(&after);
        if let Some(unlike) = &unlike
            && !options.allow_unlike
        {
            bail!(
                "the machines were not of the same kind: {unlike}; --allow-unlike compares ratios only"
            );
        }
        let runs = ComparedRuns {
            before,
            after,
            unlike,
        };
        Comparison::new(&runs).check_common_arm()?;
        Ok(runs)
    }

    /// The runs with their names in sentences and tables.
    pub(super) fn named(&self) -> [(&'static str, &CommittedRun); 2] {
        [("before", &self.before), ("after", &self.after)]
    }

    /// The arms of both runs, with repetitions.
    pub(super) fn arms(&self) -> impl Iterator<Item = &str> {
        let runs = [&self.before, &self.after].into_iter();
        runs.flat_map(CommittedRun::arms)
    }

    /// The ratios that both kinds of machines have; nothing about one kind.
    pub(super) fn agreement(&self) -> Vec<Part> {
        if self.unlike.is_none() {
            return Vec::new();
        }
        across_machines(&self.named().map(|(_, run)| (run.machine_name(), vec![run])))
    }
}

/// Figure of an arm that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    /// Ratio to the reference arm of the same run.
    Ratio,
    /// The metric itself.
    Estimate,
}

impl Quantity {
    /// First word of a sentence, and the name of one figure.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Quantity::Ratio => ("In short", "ratio"),
            Quantity::Estimate => ("Absolute", "figure"),
        }
    }

    pub(super) fn of(self, row: &SummaryRow) -> Figure {
        match self {
            Quantity::Ratio => Figure {
                value: row.ratio,
                ends: row.ratio_low.zip(row.ratio_high),
            },
            Quantity::Estimate => Figure {
                value: row.estimate,
                ends: row.low.zip(row.high),
            },
        }
    }
}

/// Detail of the figures in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    Estimates,
    /// Estimates with their intervals.
    Intervals,
}

/// Rows of two runs.
pub(super) struct Comparison<'a> {
    runs: &'a ComparedRuns,
    earlier: BTreeMap<SeriesKey, &'a SummaryRow>,
    later: BTreeMap<SeriesKey, &'a SummaryRow>,
    /// Scenarios whose workloads differ between the runs, each with a sentence on the difference.
    different_workloads: BTreeMap<String, String>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(runs: &'a ComparedRuns) -> Self {
        let names = runs.before.workloads().map(|(name, _)| name);
        let different_workloads = names.filter_map(|name| {
            let difference = runs.before.workload_difference(&runs.after, name)?;
            let sentence = format!("the workloads of {name} differ: {difference}");
            Some((name.to_owned(), sentence))
        });
        Comparison {
            runs,
            earlier: runs.before.by_key(),
            later: runs.after.by_key(),
            different_workloads: different_workloads.collect(),
        }
    }

    /// Fails if the runs have no arm in common.
    fn check_common_arm(&self) -> anyhow::Result<()> {
        if self.scenarios().is_empty() {
            let differences = self.different_workloads.values();
            let why: Vec<String> = differences.map(|why| format!("; {why}")).collect();
            bail!("the two runs have no arm in common{}", why.concat());
        }
        Ok(())
    }

    /// The scenarios with an arm that both runs have.
    pub(super) fn scenarios(&self) -> Vec<&str> {
        let common = self
            .earlier
            .keys()
            .filter(|key| self.is_comparable(key) && self.later.contains_key(key));
        distinct(common.map(|key| key.condition.scenario.as_str()))
    }

    fn is_comparable(&self, key: &SeriesKey) -> bool {
        !self
            .different_workloads
            .contains_key(&key.condition.scenario)
    }

    /// The compared quantities: absolute figures only on one kind of machine.
    pub(super) fn quantities(&self) -> &'static [Quantity] {
        match self.runs.unlike {
            None => &[Quantity::Ratio, Quantity::Estimate],
            Some(_) => &[Quantity::Ratio],
        }
    }

    /// The rows of both runs under a key.
    pub(super) fn rows(&self, key: &SeriesKey) -> [Option<&'a SummaryRow>; 2] {
        [&self.earlier, &self.later].map(|rows| rows.get(key).copied())
    }

    /// Every arm under the conditions that both runs have, also the arms that only one of them has; those of one
    /// scenario if it is given.
    pub(super) fn keys(&self, scenario: Option<&str>) -> BTreeSet<&SeriesKey> {
        let (earlier, later) = (conditions(&self.earlier), conditions(&self.later));
        let common: BTreeSet<_> = earlier.intersection(&later).copied().collect();
        let absolute = self.quantities().contains(&Quantity::Estimate);
        let is_wanted =
            |key: &SeriesKey| scenario.is_none_or(|name| key.condition.scenario == name);

        let keys = self.earlier.keys().chain(self.later.keys());
        keys.filter(|key| self.is_comparable(key) && common.contains(&key.condition))
            .filter(|key| absolute || self.has_ratio(key))
            .filter(|key| is_wanted(key))
            .collect()
    }

    /// The table of all scenarios, or of one.
    pub(super) fn table(&self, scenario: Option<&str>, detail: Detail) -> Grid {
        let mut names = KEY_COLUMNS.to_vec();
        names.extend(["ratio before", "ratio after", "change"]);
        if self.quantities().contains(&Quantity::Estimate) {
            names.extend(["before", "after", "change"]);
        }
        let keys = self.keys(scenario);
        let rows = keys.into_iter().map(|key| self.cells(key, detail));
        Grid::of_text(&names, rows.collect(), &[0, 2, 3, 4, 5])
    }

    fn cells(&self, key: &SeriesKey, detail: Detail) -> Vec<String> {
        let rows = self.rows(key);
        let mut cells = key.cells("");
        for &quantity in self.quantities() {
            for ((_, run), row) in self.runs.named().into_iter().zip(rows) {
                cells.push(or_unknown(row, |row| match quantity {
                    Quantity::Ratio => ratio_text(run, row, detail),
                    Quantity::Estimate => estimate_text(row, detail),
                }));
            }
            let change = self.change(key, quantity);
            cells.push(or_unknown(change, |change| change.to_string()));
        }
        cells
    }

    /// An arm has a ratio in one of the runs: it is not the reference of both.
    fn has_ratio(&self, key: &SeriesKey) -> bool {
        let mut rows = self.rows(key).into_iter().flatten();
        rows.any(|row| row.ratio.is_some())
    }

    /// Change of a figure of an arm. Ratios to different arms have none.
    pub(super) fn change(&self, key: &SeriesKey, quantity: Quantity) -> Option<Change> {
        let [before, after] = self.rows(key);
        let (before, after) = before.zip(after)?;
        if quantity == Quantity::Ratio && before.reference != after.reference {
            return None;
        }
        Change::between(quantity.of(before), quantity.of(after))
    }

    /// The answer in sentences, one for each quantity: how many figures changed, and which one most; of all scenarios,
    /// or of one.
    pub(super) fn sentences(&self, scenario: Option<&str>) -> Vec<String> {
        let keys = self.keys(scenario);
        let quantities = self.quantities().iter();
        quantities
            .map(|quantity| self.sentence(&keys, *quantity))
            .collect()
    }

    fn sentence(&self, keys: &BTreeSet<&SeriesKey>, quantity: Quantity) -> String {
        let changes = keys
            .iter()
            .filter_map(|key| Some((key, self.change(key, quantity)?)));
        let changes: Vec<(&&SeriesKey, Change)> = changes.collect();
        let resolved: Vec<_> = changes
            .iter()
            .filter(|(_, change)| change.is_resolved)
            .collect();

        let (lead, noun) = quantity.words();
        let factor = |change: &Change| (change.percent / 100.0).ln_1p().abs();
        let most = resolved
            .iter()
            .max_by(|(_, a), (_, b)| factor(a).total_cmp(&factor(b)));
        match most {
            _ if changes.is_empty() => format!("{lead}: no {noun} is in both runs."),
            None => format!(
                "{lead}: of {} none changed beyond the intervals.",
                plural(changes.len(), noun)
            ),
            Some((key, change)) => format!(
                "{lead}: {} of {} changed beyond the intervals, most {} of `{}` in {} with {}: {:+.1} %.",
                resolved.len(),
                plural(changes.len(), noun),
                key.metric,
                key.model,
                key.condition.scenario,
                key.condition.clients_in_words(),
                change.percent
            ),
        }
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!(
            "Ratio: to the reference arm of the same run. * the intervals of the two runs do not overlap. \
             {NOT_VALID} at least half of the blocks are not valid."
        )];
        let unlike = self.runs.unlike.iter();
        notes.extend(unlike.map(|unlike| {
            format!("Ratios only, since the machines were not of the same kind: {unlike}.")
        }));

        let differences = self.different_workloads.values();
        notes.extend(differences.map(|difference| format!("Not compared: {difference}.")));
        notes.extend(only_in("before", &self.earlier, &self.later));
        notes.extend(only_in("after", &self.later, &self.earlier));

        for (name, run) in self.runs.named() {
            notes.push(format!("{name}: {}", run.title()));
        }
        notes
    }
}

fn conditions<'a>(rows: &'a BTreeMap<SeriesKey, &SummaryRow>) -> BTreeSet<&'a ConditionKey> {
    rows.keys().map(|key| &key.condition).collect()
}

/// Note on what only one of the runs has: conditions by scenario, and arms of the conditions that both have.
fn only_in(
    name: &str,
    own: &BTreeMap<SeriesKey, &SummaryRow>,
    other: &BTreeMap<SeriesKey, &SummaryRow>,
) -> Option<String> {
    let shared = conditions(other);
    let arms = |rows: &BTreeMap<SeriesKey, &SummaryRow>| -> BTreeSet<(ConditionKey, String)> {
        let keys = rows.keys();
        keys.map(|key| (key.condition.clone(), key.model.clone()))
            .collect()
    };
    let mut missing: BTreeMap<String, BTreeSet<ConditionKey>> = BTreeMap::new();
    for (condition, model) in arms(own).difference(&arms(other)) {
        let what = if shared.contains(condition) {
            format!("{model} in {}", condition.scenario)
        } else {
            condition.scenario.clone()
        };
        missing.entry(what).or_default().insert(condition.clone());
    }
    if missing.is_empty() {
        return None;
    }

    let counts: Vec<String> = missing
        .iter()
        .map(|(what, conditions)| format!("{what} ({})", plural(conditions.len(), "condition")))
        .collect();
    Some(format!("Only {name}: {}.", counts.join(", ")))
}

/// A value and the ends of its interval.
#[derive(Clone, Copy)]
pub(super) struct Figure {
    pub(super) value: Option<f64>,
    pub(super) ends: Option<(f64, f64)>,
}

impl Figure {
    /// Text of the value, with its interval if that is wanted.
    fn text(self, detail: Detail, show: impl Fn(f64) -> String) -> String {
        let ends = self.ends.filter(|_| detail == Detail::Intervals);
        let interval = ends.map(|(low, high)| format!(" [{}, {}]", show(low), show(high)));
        or_unknown(self.value, &show) + &interval.unwrap_or_default()
    }
}

fn ratio_text(run: &CommittedRun, row: &SummaryRow, detail: Detail) -> String {
    let figure = Quantity::Ratio.of(row);
    if figure.value.is_none() {
        return UNKNOWN.to_owned();
    }
    let mark = run.mark(row).unwrap_or(' ');
    let text = figure.text(detail, |ratio| fixed(ratio, 3));
    format!("{text}{mark}")
}

fn estimate_text(row: &SummaryRow, detail: Detail) -> String {
    Quantity::Estimate
        .of(row)
        .text(detail, |value| with_unit(row.metric, value))
}

fn with_unit(metric: Metric, value: f64) -> String {
    match metric.unit() {
        "ns" => units::duration(value),
        "B" => units::bytes(value),
        "1/s" if value.is_finite() => units::rate(value),
        _ if value.is_infinite() => UNBOUNDED.to_owned(),
        _ if value.abs() < 10.0 && value != 0.0 => format!("{value:.2}"),
        _ => units::whole(value),
    }
}

/// Change from one run to the other.
#[derive(Clone, Copy)]
pub(super) struct Change {
    percent: f64,
    /// The intervals of the two runs do not overlap.
    is_resolved: bool,
}

impl Change {
    /// Zero and values without bound have none.
    fn between(before: Figure, after: Figure) -> Option<Self> {
        let (from, to) = before.value.zip(after.value)?;
        if from <= 0.0 || !from.max(to).is_finite() {
            return None;
        }

        let ends = before.ends.zip(after.ends);
        Some(Change {
            percent: 100.0 * (to / from - 1.0),
            is_resolved: ends
                .is_some_and(|(before, after)| before.1 < after.0 || after.1 < before.0),
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_resolved { "*" } else { " " };
        write!(f, "{:+.1} %{star}", self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_from_nothing_has_no_percentage() {
        let figure = |value: f64| Figure {
            value: Some(value),
            ends: Some((value, value)),
        };
        let missing = Figure {
            value: None,
            ends: None,
        };
        let change =
            |before, after| Change::between(before, after).map(|change| change.to_string());
        assert_eq!(change(figure(0.0), figure(0.0)), None);
        assert_eq!(change(figure(0.0), figure(5.0)), None);
        assert_eq!(change(figure(f64::INFINITY), figure(5.0)), None);
        assert_eq!(change(figure(5.0), missing), None);
        assert_eq!(change(figure(5.0), figure(0.0)).unwrap(), "-100.0 %*");
        assert_eq!(change(figure(5.0), figure(5.0)).unwrap(), "+0.0 % ");
    }

    #[test]
    fn figures_have_their_unit() {
        assert_eq!(with_unit(Metric::Throughput, 0.4), "0.400/s");
        assert_eq!(with_unit(Metric::Throughput, 98_765.4), "98,765/s");
        assert_eq!(with_unit(Metric::LatencyP50, 12_345.0), "12.3 µs");
        assert_eq!(with_unit(Metric::Throughput, f64::INFINITY), UNBOUNDED);
    }
}
