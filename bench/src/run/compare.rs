//! Two committed runs beside each other: ratios within each run and, on one kind of machine, absolute
//! figures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::bail;

use super::committed::{CommittedRun, KEY_COLUMNS, NOT_VALID, SeriesKey};
use super::machines::across_machines;
use super::scenario_report::fixed;
use crate::render::Style;
use crate::render::units::{self, UNBOUNDED, or_unknown, plural};
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
pub fn compare(options: &CompareOptions) -> anyhow::Result<String> {
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

    let comparison = Comparison::new(&before, &after);
    if !comparison.has_common_arm() {
        let differences = &comparison.different_workloads;
        let why = differences.values().map(|why| format!("; {why}"));
        bail!(
            "the two runs have no arm in common{}",
            why.collect::<String>()
        );
    }
    let table = comparison.table(unlike.is_none());
    let notes = comparison.notes(unlike.as_deref()).join("\n");
    let agreement = match unlike {
        Some(_) => {
            let machine = |run| (CommittedRun::machine_name(run), vec![run]);
            format!(
                "\n{}\n",
                across_machines(&[machine(&before), machine(&after)])
            )
        }
        None => String::new(),
    };
    Ok(format!("{table}\n\n{notes}\n{agreement}"))
}

/// Rows of two runs.
struct Comparison<'a> {
    before: &'a CommittedRun,
    after: &'a CommittedRun,
    earlier: BTreeMap<SeriesKey, &'a SummaryRow>,
    later: BTreeMap<SeriesKey, &'a SummaryRow>,
    /// Scenarios whose workloads differ between the runs, each with a sentence on the difference.
    different_workloads: BTreeMap<String, String>,
}

impl<'a> Comparison<'a> {
    fn new(before: &'a CommittedRun, after: &'a CommittedRun) -> Self {
        let names = before.workloads().map(|(name, _)| name);
        let different_workloads = names.filter_map(|name| {
            let difference = before.workload_difference(after, name)?;
            let sentence = format!("the workloads of {name} differ: {difference}");
            Some((name.to_owned(), sentence))
        });
        Comparison {
            before,
            after,
            earlier: before.by_key(),
            later: after.by_key(),
            different_workloads: different_workloads.collect(),
        }
    }

    fn is_comparable(&self, key: &SeriesKey) -> bool {
        !self
            .different_workloads
            .contains_key(&key.condition.scenario)
    }

    fn has_common_arm(&self) -> bool {
        let mut keys = self.earlier.keys();
        keys.any(|key| self.is_comparable(key) && self.later.contains_key(key))
    }

    /// Every arm under the conditions that both runs have, also the arms that only one of them has.
    fn table(&self, absolute: bool) -> String {
        let (earlier, later) = (conditions(&self.earlier), conditions(&self.later));
        let common: BTreeSet<_> = earlier.intersection(&later).copied().collect();
        let keys: BTreeSet<&SeriesKey> = self
            .earlier
            .keys()
            .chain(self.later.keys())
            .filter(|key| self.is_comparable(key) && common.contains(&key.condition))
            .filter(|key| absolute || self.has_ratio(key))
            .collect();
        let rows = keys.into_iter().map(|key| self.cells(key, absolute));

        let mut names = KEY_COLUMNS.to_vec();
        names.extend(["ratio before", "ratio after", "change"]);
        if absolute {
            names.extend(["before", "after", "change"]);
        }
        Style::Plain.table(&names, rows.collect(), &[0, 2, 3, 4, 5])
    }

    fn cells(&self, key: &SeriesKey, absolute: bool) -> Vec<String> {
        let before = self.earlier.get(key).copied();
        let after = self.later.get(key).copied();
        let ratio = |run: &CommittedRun, row: Option<&SummaryRow>| {
            or_unknown(row, |row| {
                let mark = run.mark(row).unwrap_or(' ');
                or_unknown(row.ratio, |ratio| format!("{}{mark}", fixed(ratio, 3)))
            })
        };
        let mut cells = key.cells("");
        cells.extend([ratio(self.before, before), ratio(self.after, after)]);

        cells.push(or_unknown(self.change_of_ratio(key), |change| {
            change.to_string()
        }));

        if absolute {
            let of_estimate = |row: &SummaryRow| Figure {
                value: row.estimate,
                ends: row.low.zip(row.high),
            };
            cells.extend([before, after].map(estimate));
            let (before, after) = (before.map(of_estimate), after.map(of_estimate));
            cells.push(or_unknown(Change::between(before, after), |change| {
                change.to_string()
            }));
        }
        cells
    }

    /// An arm has a ratio in one of the runs: it is not the reference of both.
    fn has_ratio(&self, key: &SeriesKey) -> bool {
        let row = |rows: &BTreeMap<SeriesKey, &SummaryRow>| rows.get(key).and_then(|row| row.ratio);
        row(&self.earlier).or(row(&self.later)).is_some()
    }

    /// Change of an arm's ratio. Ratios to different arms have none.
    fn change_of_ratio(&self, key: &SeriesKey) -> Option<Change> {
        let before = self.earlier.get(key).copied()?;
        let after = self.later.get(key).copied()?;
        if before.reference != after.reference {
            return None;
        }
        let of_ratio = |row: &SummaryRow| Figure {
            value: row.ratio,
            ends: row.ratio_low.zip(row.ratio_high),
        };
        Change::between(Some(of_ratio(before)), Some(of_ratio(after)))
    }

    /// The answer in a sentence: how many ratios changed, and which one most.
    fn in_short(&self) -> String {
        let keys = self.earlier.keys().filter(|key| self.is_comparable(key));
        let changes = keys.filter_map(|key| Some((key, self.change_of_ratio(key)?)));
        let changes: Vec<(&SeriesKey, Change)> = changes.collect();
        let resolved: Vec<_> = changes
            .iter()
            .filter(|(_, change)| change.is_resolved)
            .collect();

        let factor = |change: &Change| (change.percent / 100.0).ln_1p().abs();
        let most = resolved
            .iter()
            .max_by(|(_, a), (_, b)| factor(a).total_cmp(&factor(b)));
        match most {
            _ if changes.is_empty() => "In short: no ratio is in both runs.".to_owned(),
            None => format!(
                "In short: of {} none changed beyond the intervals.",
                plural(changes.len(), "ratio")
            ),
            Some((key, change)) => format!(
                "In short: {} of {} changed beyond the intervals, most {} of `{}` in {} with {}: {:+.1} %.",
                resolved.len(),
                plural(changes.len(), "ratio"),
                key.metric,
                key.model,
                key.condition.scenario,
                key.condition.clients_in_words(),
                change.percent
            ),
        }
    }

    fn notes(&self, unlike: Option<&str>) -> Vec<String> {
        let mut notes = vec![self.in_short()];
        notes.push(format!(
            "Ratio: to the reference arm of the same run. * the intervals of the two runs do not overlap. \
             {NOT_VALID} at least half of the blocks are not valid."
        ));
        notes.extend(unlike.map(|unlike| {
            format!("Ratios only, since the machines were not of the same kind: {unlike}.")
        }));

        let differences = self.different_workloads.values();
        notes.extend(differences.map(|difference| format!("Not compared: {difference}.")));
        let (earlier, later) = (conditions(&self.earlier), conditions(&self.later));
        notes.extend(only_in("before", earlier.difference(&later)));
        notes.extend(only_in("after", later.difference(&earlier)));

        for (name, run) in [("before", self.before), ("after", self.after)] {
            notes.push(format!("{name}: {}", run.title()));
        }
        notes
    }
}

fn conditions<'a>(rows: &'a BTreeMap<SeriesKey, &SummaryRow>) -> BTreeSet<&'a ConditionKey> {
    rows.keys().map(|key| &key.condition).collect()
}

/// Note on conditions that only one of the runs has, by scenario.
fn only_in<'a>(
    name: &str,
    conditions: impl Iterator<Item = &'a &'a ConditionKey>,
) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for condition in conditions {
        *counts.entry(&condition.scenario).or_default() += 1;
    }
    if counts.is_empty() {
        return None;
    }

    let counts = counts.into_iter();
    let counts: Vec<String> = counts
        .map(|(scenario, count)| format!("{scenario} ({})", plural(count, "condition")))
        .collect();
    Some(format!("Only {name}: {}.", counts.join(", ")))
}

/// A value and the ends of its interval.
#[derive(Clone, Copy)]
struct Figure {
    value: Option<f64>,
    ends: Option<(f64, f64)>,
}

fn estimate(row: Option<&SummaryRow>) -> String {
    let known = row.and_then(|row| Some((row.metric, row.estimate?)));
    or_unknown(known, |(metric, value)| with_unit(metric, value))
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
struct Change {
    percent: f64,
    /// The intervals of the two runs do not overlap.
    is_resolved: bool,
}

impl Change {
    /// Zero and values without bound have none.
    fn between(before: Option<Figure>, after: Option<Figure>) -> Option<Self> {
        let (before, after) = before.zip(after)?;
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
        let figure = |value: f64| {
            Some(Figure {
                value: Some(value),
                ends: Some((value, value)),
            })
        };
        let change =
            |before, after| Change::between(before, after).map(|change| change.to_string());
        assert_eq!(change(figure(0.0), figure(0.0)), None);
        assert_eq!(change(figure(0.0), figure(5.0)), None);
        assert_eq!(change(figure(f64::INFINITY), figure(5.0)), None);
        assert_eq!(change(figure(5.0), None), None);
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
