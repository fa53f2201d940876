//! Two committed runs beside each other: ratios within each run and, on one kind of machine, absolute
//! figures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::bail;

use super::committed::{CommittedRun, KEY_COLUMNS, NOT_VALID, SeriesKey};
use super::machines::across_machines;
use super::scenario_report::fixed;
use crate::render::Style;
use crate::render::units::{UNBOUNDED, UNKNOWN, or_unknown, plural};
use crate::results::{ConditionKey, SummaryRow};

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

        // Ratios to different arms have no change.
        let reference = |row: Option<&SummaryRow>| row.and_then(|row| row.reference.clone());
        let same_reference = reference(before) == reference(after);
        let of_ratio = |row: &SummaryRow| Figure {
            value: row.ratio.filter(|_| same_reference),
            ends: row.ratio_low.zip(row.ratio_high),
        };
        cells.push(change(before.map(of_ratio), after.map(of_ratio)));

        if absolute {
            let of_estimate = |row: &SummaryRow| Figure {
                value: row.estimate,
                ends: row.low.zip(row.high),
            };
            let (before, after) = (before.map(of_estimate), after.map(of_estimate));
            cells.extend([before, after].map(figure));
            cells.push(change(before, after));
        }
        cells
    }

    fn notes(&self, unlike: Option<&str>) -> Vec<String> {
        let mut notes = vec![format!(
            "Ratio: to the reference arm of the same run. * the intervals of the two runs do not overlap. \
             {NOT_VALID} at least half of the blocks are not valid."
        )];
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

fn figure(figure: Option<Figure>) -> String {
    or_unknown(figure.and_then(|figure| figure.value), |value| {
        if value.is_infinite() {
            return UNBOUNDED.to_owned();
        }
        let decimals = if value.abs() < 10.0 && value != 0.0 {
            2
        } else {
            0
        };
        format!("{value:.decimals$}")
    })
}

/// Change in percent, with a star where the intervals do not overlap. Zero and values without bound have none.
fn change(before: Option<Figure>, after: Option<Figure>) -> String {
    let Some((before, after)) = before.zip(after) else {
        return UNKNOWN.to_owned();
    };
    let ends = before.ends.zip(after.ends);
    let apart = ends.is_some_and(|(before, after)| before.1 < after.0 || after.1 < before.0);

    let values = before.value.zip(after.value);
    let values = values.filter(|(before, after)| *before > 0.0 && before.max(*after).is_finite());
    or_unknown(values, |(before, after)| {
        let percent = 100.0 * (after / before - 1.0);
        let star = if apart { "*" } else { " " };
        format!("{percent:+.1} %{star}")
    })
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
        assert_eq!(change(figure(0.0), figure(0.0)), UNKNOWN);
        assert_eq!(change(figure(0.0), figure(5.0)), UNKNOWN);
        assert_eq!(change(figure(f64::INFINITY), figure(5.0)), UNKNOWN);
        assert_eq!(change(figure(5.0), None), UNKNOWN);
        assert_eq!(change(figure(5.0), figure(0.0)), "-100.0 %*");
        assert_eq!(change(figure(5.0), figure(5.0)), "+0.0 % ");
    }

    #[test]
    fn small_figures_keep_their_digits() {
        let text = |value| figure(Some(Figure { value, ends: None }));
        assert_eq!(text(Some(0.4)), "0.40");
        assert_eq!(text(Some(98_765.4)), "98765");
        assert_eq!((text(Some(0.0)), text(None)), ("0".into(), UNKNOWN.into()));
        assert_eq!(text(Some(f64::INFINITY)), UNBOUNDED);
    }
}
