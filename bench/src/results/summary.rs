//! From rows to answers: medians over blocks, ratios to the reference arm, and the verdicts.

use std::collections::BTreeMap;

use super::metric::{Metric, Source};
use crate::results::{BlockRow, ConditionKey, SCHEMA_VERSION, SliceRow, SummaryRow};
use crate::stats::{compare_family, median, sign_interval};

/// The arm that ratios refer to, where it is there; else the first arm.
pub const REFERENCE: &str = "thread";
/// The rate of wrong "differences" over all comparisons of one scenario and metric.
pub const ALPHA: f64 = 0.05;
/// The confidence of the interval of a single estimate.
const CONFIDENCE: f64 = 0.95;

/// The rows of one arm.
#[derive(Default)]
struct Arm<'a> {
    blocks: Vec<&'a BlockRow>,
    slices: BTreeMap<(u32, u32), &'a SliceRow>,
}

/// The arms of each section, and the sections of each scenario, in the order in which they came.
struct Table<'a> {
    sections: Vec<(ConditionKey, Vec<(&'a str, Arm<'a>)>)>,
}

impl<'a> Table<'a> {
    fn new(slices: &'a [SliceRow], blocks: &'a [BlockRow]) -> Self {
        let mut table = Table {
            sections: Vec::new(),
        };
        for row in blocks {
            let key = row.condition();
            let arm = table.arm(key, &row.model);
            if row.is_ok() {
                arm.blocks.push(row);
            }
        }
        for row in slices {
            let key = row.condition();
            table
                .arm(key, &row.model)
                .slices
                .insert((row.block, row.round), row);
        }
        table
    }

    fn arm(&mut self, key: ConditionKey, model: &'a str) -> &mut Arm<'a> {
        let arms = entry(&mut self.sections, key);
        entry(arms, model)
    }
}

/// The value of a key in a list that keeps the order in which keys came.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let index = list
        .iter()
        .position(|(known, _)| *known == key)
        .unwrap_or_else(|| {
            list.push((key, V::default()));
            list.len() - 1
        });
    &mut list[index].1
}

/// The summary of all rows of a run: for each arm and metric an estimate, and its ratio to the
/// reference arm.
///
/// All ratios of one scenario and metric are one family: their verdicts together are wrong with a
/// probability of at most [`ALPHA`].
#[must_use]
pub fn summarize(slices: &[SliceRow], blocks: &[BlockRow]) -> Vec<SummaryRow> {
    let table = Table::new(slices, blocks);
    let mut rows = Vec::new();
    let mut scenarios: Vec<&str> = Vec::new();
    for (ConditionKey { scenario, .. }, _) in &table.sections {
        if !scenarios.contains(&scenario.as_str()) {
            scenarios.push(scenario);
        }
    }
    for scenario in scenarios {
        for &metric in Metric::ALL {
            rows.extend(summarize_metric(&table, scenario, metric));
        }
    }
    rows
}

fn summarize_metric(table: &Table<'_>, scenario: &str, metric: Metric) -> Vec<SummaryRow> {
    let mut rows = Vec::new();
    let mut family = Vec::new();
    for (section, arms) in table
        .sections
        .iter()
        .filter(|(section, _)| section.scenario == scenario)
    {
        let reference = arms
            .iter()
            .find(|(name, _)| *name == REFERENCE)
            .or(arms.first());
        for (name, arm) in arms {
            let mut row = estimate(section, name, arm, metric);
            if let Some((reference_name, reference)) = reference
                && reference_name != name
                && let Some(ratios) = log_ratios(metric, arm, reference)
            {
                row.reference = Some((*reference_name).to_owned());
                family.push((rows.len(), ratios));
            }
            rows.push(row);
        }
    }
    let (places, ratios): (Vec<usize>, Vec<Vec<f64>>) = family.into_iter().unzip();
    for (place, comparison) in places.into_iter().zip(compare_family(&ratios, ALPHA)) {
        let row = &mut rows[place];
        row.ratio = comparison.ratio;
        row.ratio_low = comparison.low;
        row.ratio_high = comparison.high;
        if comparison.blocks > 0 {
            row.ratio_level = Some(comparison.level);
            row.verdict = Some(comparison.verdict);
        }
    }
    rows
}

fn estimate(section: &ConditionKey, model: &str, arm: &Arm<'_>, metric: Metric) -> SummaryRow {
    let ConditionKey {
        scenario,
        placement,
        driver,
        clients,
        load_percent,
    } = section.clone();
    let mut row = SummaryRow {
        schema_version: SCHEMA_VERSION,
        scenario,
        clients,
        driver,
        placement,
        load_percent,
        model: model.to_owned(),
        metric,
        estimate: None,
        low: None,
        high: None,
        level: None,
        method: "median of blocks, sign-test interval".to_owned(),
        blocks: arm.blocks.len(),
        reference: None,
        ratio: None,
        ratio_low: None,
        ratio_high: None,
        ratio_level: None,
        verdict: None,
    };
    let values: Vec<f64> = match metric.source() {
        Source::Slice(_, value) | Source::Block(value) | Source::Median(value) => {
            arm.blocks.iter().filter_map(|block| value(block)).collect()
        }
        Source::Sum(value) => {
            "sum of blocks".clone_into(&mut row.method);
            row.estimate = Some(arm.blocks.iter().map(|block| value(block)).sum());
            return row;
        }
    };
    row.blocks = values.len();
    row.estimate = median(&values);
    if let Some(interval) = sign_interval(&values, CONFIDENCE) {
        row.low = Some(interval.low);
        row.high = Some(interval.high);
        row.level = Some(interval.level);
    }
    row
}

/// The interval of a median over blocks, as in the summary.
#[must_use]
pub fn interval_of(values: &[f64]) -> Option<(f64, f64)> {
    sign_interval(values, CONFIDENCE).map(|interval| (interval.low, interval.high))
}

/// The summary of the throughput alone, for those who cannot wait.
#[must_use]
pub fn summarize_throughput(
    scenario: &str,
    slices: &[SliceRow],
    blocks: &[BlockRow],
) -> Vec<SummaryRow> {
    summarize_metric(&Table::new(slices, blocks), scenario, Metric::Throughput)
}

/// The logarithm of the ratio to the reference in each block in which both have a value.
fn log_ratios(metric: Metric, arm: &Arm<'_>, reference: &Arm<'_>) -> Option<Vec<f64>> {
    let ratio = |value: Option<f64>, of: Option<f64>| match (value, of) {
        (Some(value), Some(of)) if value > 0.0 && of > 0.0 => Some((value / of).ln()),
        _ => None,
    };
    let both = arm.blocks.iter().filter_map(|block| {
        let same = reference
            .blocks
            .iter()
            .find(|other| other.block == block.block)?;
        Some((*block, *same))
    });
    match metric.source() {
        Source::Block(value) => Some(
            both.filter_map(|(a, b)| ratio(value(a), value(b)))
                .collect(),
        ),
        Source::Slice(value, _) => Some(
            both.filter_map(|(block, _)| {
                let rounds = arm.slices.range((block.block, 0)..=(block.block, u32::MAX));
                let ratios: Vec<f64> = rounds
                    .filter_map(|(round, slice)| {
                        ratio(value(slice), value(reference.slices.get(round)?))
                    })
                    .collect();
                median(&ratios)
            })
            .collect(),
        ),
        Source::Sum(_) | Source::Median(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::results::{csv_text, read_blocks, read_slices};

    /// The lines of committed summaries, byte for byte. Metrics that a folder is too old to have are left
    /// out.
    #[test]
    fn committed_summaries_follow_from_their_rows() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
        let mut folders = 0;
        for entry in fs::read_dir(results).unwrap() {
            let folder = entry.unwrap().path();
            let Ok(committed) = fs::read_to_string(folder.join("summary.csv")) else {
                continue;
            };

            let (slices, blocks) = (read_slices(&folder).unwrap(), read_blocks(&folder).unwrap());
            let mut summary = summarize(&slices, &blocks);
            summary.retain(|row| committed.contains(&format!(",{},", row.metric)));

            let recomputed = csv_text(&summary, true).unwrap();
            for (now, then) in recomputed.lines().zip(committed.lines()) {
                assert_eq!(now, then, "{}", folder.display());
            }
            assert_eq!(recomputed.lines().count(), committed.lines().count());
            folders += 1;
        }
        assert!(folders > 0);
    }
}
